/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source.c - the source's worker: the steps of a migration up to the freeze, and after the commit
 *
 * Theory of operation: see ARCHITECTURE.md, "One migration". The process runs untouched until the step "agent", shortly stops there, and runs on until the
 * step "freeze". Every step before "commit" can be undone; from "commit" on the process here never runs again. Techniques of Roush and Campbell
 * (1996): nothing is asked or answered between the stop and the resume (source_go sends one message); the pages that the first instructions need
 * are known from the registers (source_freeze.c); the destination has built everything before (the steps "offer" to "rounds").
 */
#include "migrate/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "image/clocks.h"
#include "image/restart.h"
#include "kern/fdpass.h"
#include "kern/pagemap.h"
#include "migrate/arrival.h"
#include "migrate/decode.h"
#include "migrate/pace.h"
#include "migrate/registry.h"
#include "migrate/timeline.h"
#include "wire/frame.h"

#define ROUNDS_MAX 12u
#define ROUND_SMALL 128u              /* pages: a round this small is followed by the freeze */
#define WORKING_SET_NS 2000000        /* how long write tracking watches before the freeze */
#define OFFER_ANSWER_MS 60000
#define RECORDS_MAX 4096u
#define TRIES 40
#define AGAIN_NS 10000000000ull       /* attempts are begun for so long */

static struct restart_reader *reader; /* of this process and its children */

int migrate_init(void)
{
	struct err e = ERR_INIT;

	if (!reader && restart_reader_load(&reader, &e) < 0) {
		log_warning("event=no-bpf text=\"%s\"", e.message);
		return -1;
	}
	return restart_reader_fd(reader);
}

/* --- hello --- */

static int step_hello(void *context, struct err *e)
{
	struct source *s = context;
	struct frame f;
	int ret;

	if (getrandom(s->mig_id, sizeof(s->mig_id), 0) != (ssize_t)sizeof(s->mig_id))
		return err_sys(e, errno, "random numbers");
	ret = link_connect(&s->link, ROLE_CONTROL, &s->request->dest, s->mig_id, s->request->self_name, e);
	if (ret < 0)
		return ret;
	ret = frame_recv_expect(s->link.fd[ROLE_CONTROL], FRAME_HELLO, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, e);
	if (ret < 0)
		return err_wrap(e, "%s", s->request->dest_name);
	ret = hello_decode(f.payload, f.len, &s->peer, e);
	frame_free(&f);
	for (enum migrate_role role = ROLE_GO; role <= ROLE_BULK && ret == 0; role++)
		ret = link_connect(&s->link, role, &s->request->dest, s->mig_id, s->request->self_name, e);
	return ret;
}

/* --- offer --- */

static int send_offer(struct source *s, struct err *e)
{
	Gw__Offer offer = GW__OFFER__INIT;
	struct bytes_list threads = { 0 };
	cleanup_free uint8_t *packed = NULL;
	uint8_t *part[6] = { NULL };
	size_t len[6] = { 0 };
	int ret;

	/* As late as possible: the destination reads its own clocks when the offer arrives. */
	ret = clocks_read(s->unit.pid, s->unit.process->clocks, e);
	if (ret >= 0)
		ret = process_encode(s->unit.process, &part[0], &len[0]);
	if (ret >= 0)
		ret = unit_encode_threads(s->unit.threads, s->unit.nthreads, &threads, e);
	if (ret >= 0)
		ret = fsfile_table_encode(&s->unit.files, &part[1], &len[1], e);
	if (ret >= 0)
		ret = vma_list_encode(&s->unit.vmas, &part[2], &len[2], e);
	if (ret >= 0)
		ret = vdso_encode(&s->unit.vdso, &part[3], &len[3], e);
	if (ret >= 0)
		ret = mm_encode(&s->unit.mm, &part[4], &len[4], e);
	if (ret >= 0)
		ret = fdtable_encode(&s->unit.fds, &part[5], &len[5], e);
	if (ret >= 0) {
		offer.unit = s->report->unit;
		offer.from = (char *)(uintptr_t)s->request->self_name;
		offer.pid = s->unit.pid;
		offer.strategy = s->request->strategy;
		offer.moves = s->moves;
		offer.scratch_base = vma_find_free(&s->unit.vmas, NULL,
						   scratch_size((unsigned)s->unit.nthreads + THREADS_SPARE, pages_arena_bytes(&s->unit.vmas)));
		offer.process = (ProtobufCBinaryData){ len[0], part[0] };
		offer.n_threads = threads.n;
		offer.threads = threads.v;
		offer.files = (ProtobufCBinaryData){ len[1], part[1] };
		offer.vmas = (ProtobufCBinaryData){ len[2], part[2] };
		offer.vdso = (ProtobufCBinaryData){ len[3], part[3] };
		offer.mm = (ProtobufCBinaryData){ len[4], part[4] };
		offer.fds = (ProtobufCBinaryData){ len[5], part[5] };
		scratch_header(&s->agent.scratch); /* the base is chosen here and used by step_agent */
		s->agent.scratch.base = offer.scratch_base;
		packed = malloc(gw__offer__get_packed_size(&offer));
		if (!offer.scratch_base)
			ret = err_set(e, -ENOMEM, "process %d has no free addresses for the scratch", s->unit.pid);
		else if (!packed)
			ret = err_sys(e, ENOMEM, "the offer");
		else
			ret = frame_send(s->link.fd[ROLE_CONTROL], FRAME_OFFER, packed, gw__offer__pack(&offer, packed), e);
	}
	bytes_list_free(&threads);
	for (size_t i = 0; i < ARRAY_SIZE(part); i++)
		free(part[i]);
	return ret;
}

static int take_refuse(struct source *s, const struct frame *f, struct err *e)
{
	int ret = refuse_decode(f->payload, f->len, s->refusals, e);

	/* What is said of files may be about what the process has removed or replaced meanwhile. */
	if (ret == 0 && source_files_replaced(s)) {
		refusals_free(s->refusals);
		*s->refusals = (struct refusals){ 0 };
		return err_set(e, -EAGAIN, "process %d has removed or replaced a file since the offer", s->unit.pid);
	}
	return ret < 0 ? ret : err_set(e, -EPERM, "%s cannot take process %d", s->request->dest_name, s->unit.pid);
}

int source_take_accept(struct source *s, uint32_t n, struct fsfile_answer **ret_answers, struct err *e)
{
	struct frame f;
	int ret = frame_recv(s->link.fd[ROLE_CONTROL], &f, FRAME_PAYLOAD_MAX, OFFER_ANSWER_MS, e);

	if (ret < 0)
		return err_wrap(e, "%s", s->request->dest_name);
	if (f.type == FRAME_REFUSE) {
		ret = take_refuse(s, &f, e);
	} else if (f.type == FRAME_ERROR) {
		ret = frame_error_decode(&f, e);
	} else if (f.type != FRAME_ACCEPT) {
		ret = err_set(e, -EPROTO, "%s answered the offer with %s", s->request->dest_name, frame_type_name(f.type));
	} else {
		ret = accept_decode(f.payload, f.len, n, ret_answers, e);
	}
	frame_free(&f);
	return ret;
}

static bool asks_to_cancel(void *context)
{
	struct source *s = context;

	return s->request->progress && s->request->progress(s->report, s->request->progress_arg);
}

static int step_offer(void *context, struct err *e)
{
	struct source *s = context;
	bool same_kernel;
	Gw__Hello self;
	int ret = arrival_wait(s->request->pid, asks_to_cancel, s, e);

	if (ret < 0)
		return ret;
	ret = unit_capture(s->request->pid, &s->unit, s->refusals, e);
	if (ret < 0)
		return ret;
	if (s->refusals->n)
		return err_set(e, -EPERM, "process %d cannot move", s->request->pid);
	hello_fill(&self);
	same_kernel = !strcmp(self.boot_id, s->peer->boot_id);
	ret = fsfile_prepare_offer(&s->unit.files, same_kernel, e);
	if (ret == 0)
		ret = source_look_at_files(s, e);
	if (ret == 0)
		ret = send_offer(s, e);
	if (ret == 0)
		ret = source_take_accept(s, s->unit.files.n, &s->answers, e);
	if (ret == 0)
		s->nanswers = s->unit.files.n;
	if (ret == 0)
		vma_list_apply_answers(&s->unit.vmas, s->answers, s->nanswers);
	return ret;
}

/* --- agent --- */

static int step_agent(void *context, struct err *e)
{
	struct source *s = context;
	uint64_t base = s->agent.scratch.base;
	struct agent_fds fds = { s->link.fd[ROLE_GO], s->link.fd[ROLE_FAULT], s->link.fd[ROLE_BULK], -1, -1, -1, -1 };
	struct err ignored = ERR_INIT;
	char path[64];
	int ret;

	/* Without BPF timed sleeps that are interrupted start over: still right, only longer. */
	if (!reader)
		migrate_init();
	if (!reader || restart_watch_open(reader, s->unit.pid, &s->watch, &ignored) < 0)
		log_warning("event=no-bpf text=\"%s\"", ignored.message);
	for (int i = 0; i < 2; i++)
		s->records[i] = calloc(RECORDS_MAX, sizeof(**s->records));
	ret = agent_inject(&s->agent, s->unit.pid, base, (unsigned)s->unit.nthreads + THREADS_SPARE, pages_arena_bytes(&s->unit.vmas), s->watch, e);
	if (ret < 0)
		return ret;
	pace_calm_beside(s->agent.pid, s->unit.nthreads);
	snprintf(path, sizeof(path), "/proc/%d/pagemap", s->unit.pid);
	s->pages = (struct pages){ .pid = s->unit.pid, .agent = &s->agent, .pagemap_fd = open(path, O_RDONLY | O_CLOEXEC) };
	if (s->pages.pagemap_fd < 0)
		return err_sys(e, errno, "%s", path);
	fds.pagemap = s->pages.pagemap_fd;
	snprintf(path, sizeof(path), "/proc/%d/mem", s->unit.pid);
	s->mem_fd = fds.mem = open(path, O_RDONLY | O_CLOEXEC);
	if (fds.mem < 0)
		return err_sys(e, errno, "%s", path);
	scratch_header(&s->agent.scratch)->tgid = s->unit.pid;
	ret = source_prepare_ask(s, e);
	if (ret < 0)
		return ret;
	ret = agent_equip(&s->agent, -1, &fds, e);
	if (ret == 0)
		ret = scratch_warm(&s->agent.scratch, (unsigned)s->unit.nthreads, s->agent.batch, e);
	if (ret == 0)
		ret = pages_layout(&s->pages, &s->unit.vmas, e);
	if (ret == 0)
		ret = pages_count(&s->pages, &s->count, e);
	s->report->pages_total = s->count.total;
	s->report->pages_skipped_file = s->count.in_file;
	return ret;
}

static void undo_agent(void *context)
{
	struct source *s = context;

	if (s->agent.pid)
		pages_untrack(&s->pages);
	agent_remove(&s->agent, s->unit.pid);
}

/* --- content --- */

static int step_content(void *context, struct err *e)
{
	return source_send_contents(context, e);
}

/* --- prepare: the destination builds; nothing to do here but wait --- */

static int step_prepare(void *context, struct err *e)
{
	struct source *s = context;
	struct frame f;
	int ret = frame_recv_expect(s->link.fd[ROLE_CONTROL], FRAME_PREPARED, &f, FRAME_HELLO_MAX, OFFER_ANSWER_MS, e);

	if (ret < 0)
		return err_wrap(e, "%s", s->request->dest_name);
	frame_free(&f);
	return 0;
}

/* --- rounds --- */

/* Files that the running process has opened. What fails or cannot move now may be over at the freeze, where it is looked at again. */
static void look_at_descriptors(struct source *s)
{
	struct refusals ignored = { 0 };
	struct err unheard = ERR_INIT;

	fdtable_recapture(&s->unit.fds, &s->unit.files, &ignored, &unheard);
	fdtable_release(&s->unit.fds);
	refusals_free(&ignored);
}

/*
 * A new layout, where `vmas` is not NULL. A barrier goes before it in the stream of pages: the destination changes the layout when it has received the pages
 * of the old one, and before it takes those of the new one. The last round ends with a barrier too: what goes with the registers is newer than what may
 * still be on its way.
 */
int source_tell_layout(struct source *s, const struct vma_list *vmas, bool over, struct err *e)
{
	Gw__Round round = GW__ROUND__INIT;
	cleanup_free uint8_t *packed = NULL, *vma_bytes = NULL;
	size_t len = 0;
	int ret = 0;

	if (vmas || over)
		ret = pages_barrier(&s->pages, e);
	if (ret == 0 && vmas)
		ret = vma_list_encode(vmas, &vma_bytes, &len, e);
	if (ret < 0)
		return ret;
	round.vmas = (ProtobufCBinaryData){ len, vma_bytes };
	round.over = over;
	packed = malloc(gw__round__get_packed_size(&round) + 1);
	if (!packed)
		return err_sys(e, ENOMEM, "a round");
	return frame_send(s->link.fd[ROLE_CONTROL], FRAME_ROUND, packed, gw__round__pack(&round, packed), e);
}

int source_send_round(struct source *s, bool over, struct err *e)
{
	struct vma_list vmas = { 0 };
	bool changed = false;
	struct frame f;
	int ret = vma_list_reread(s->unit.pid, &s->unit.vmas, true, &s->unit.files, s->refusals, &vmas, &changed, e);

	if (ret == 0 && s->refusals->n)
		ret = err_set(e, -EPERM, "process %d has begun something that cannot move", s->unit.pid);
	if (ret == 0)
		look_at_descriptors(s);
	if (ret == 0)
		ret = source_tell_files(s, changed ? &vmas : &s->unit.vmas, e);
	if (ret == 0 && changed)
		vma_list_apply_answers(&vmas, s->answers, s->nanswers);
	if (ret == 0)
		ret = source_tell_layout(s, changed ? &vmas : NULL, over, e);
	if (ret == 0)
		ret = frame_recv_expect(s->link.fd[ROLE_CONTROL], FRAME_ROUND, &f, FRAME_HELLO_MAX, OFFER_ANSWER_MS, e);
	if (ret < 0)
		return ret;
	frame_free(&f);
	if (changed) {
		struct vma_list old = s->unit.vmas;

		s->unit.vmas = vmas;
		ret = pages_layout(&s->pages, &s->unit.vmas, e);
		if (ret == 0)
			ret = pages_forget_remapped(&s->pages, &old, &s->unit.vmas, s->unit.files.n, e);
		vma_list_free(&old);
	}
	return ret;
}

static void account(struct source *s)
{
	s->report->pages_sent = s->pages.sent.pages_sent;
	s->report->pages_skipped_zero = s->pages.sent.pages_zero;
	s->report->bytes_sent = s->content_bytes + s->pages.sent.bytes_sent;
}

/* Repeats until little is left or it no longer becomes less. */
static int precopy_rounds(struct source *s, struct err *e)
{
	uint64_t last = UINT64_MAX;

	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		uint64_t sent = 0;
		int ret = source_send_round(s, false, e);

		if (ret == 0)
			ret = pages_round(&s->pages, PAGES_LAZY | PAGES_EAGER, &sent, e);
		if (ret < 0)
			return ret;
		s->report->rounds++;
		account(s);
		if (s->request->progress && s->request->progress(s->report, s->request->progress_arg))
			return err_set(e, -ECANCELED, "cancelled");
		if (sent <= ROUND_SMALL || (i > 2 && sent >= last - last / 8))
			return 0;
		last = sent;
	}
	return 0;
}

/* What was written during a short while is what will be written next. */
static int find_working_set(struct source *s, struct err *e)
{
	struct run_list ignored = { 0 };
	struct timespec pause = { 0, WORKING_SET_NS };
	int ret = pages_written(&s->pages, 0, &ignored, e);

	run_list_free(&ignored);
	if (ret < 0)
		return ret;
	nanosleep(&pause, NULL);
	return pages_written(&s->pages, GO_PAGES_MAX, &s->hot, e);
}

static int step_rounds(void *context, struct err *e)
{
	struct source *s = context;
	enum strategy strategy = s->request->strategy;
	int ret = 0;

	s->post_copy = strategy == STRATEGY_FREEZE_FREE || strategy == STRATEGY_HYBRID || strategy == STRATEGY_COPY_ON_REFERENCE;
	s->push = strategy != STRATEGY_COPY_ON_REFERENCE;
	if (strategy != STRATEGY_STOP_COPY)
		ret = pages_track(&s->pages, e);
	if (ret == 0 && (strategy == STRATEGY_PRE_COPY || strategy == STRATEGY_HYBRID))
		ret = precopy_rounds(s, e);
	else if (ret == 0 && strategy != STRATEGY_STOP_COPY)
		ret = pages_round(&s->pages, PAGES_EAGER, NULL, e);
	if (ret == 0)
		ret = source_send_round(s, true, e);
	/* A look at what will be looked at in the freeze, so that it is in the caches then. */
	timeline_mark("rounds over");
	if (ret == 0)
		ret = source_rehearse(s, e);
	timeline_mark("rehearsed");
	if (ret == 0 && s->post_copy && strategy != STRATEGY_HYBRID)
		ret = find_working_set(s, e);
	return ret;
}

/* --- push --- */

static void add_serve_counters(struct source *s)
{
	const struct agent_counters *c = &scratch_header(&s->agent.scratch)->counters;

	s->report->pages_sent = s->pages.sent.pages_sent + s->go_runs.pages + c->pages_sent;
	s->report->pages_skipped_zero = s->pages.sent.pages_zero + c->pages_zero;
	s->report->pages_faulted = c->pages_faulted;
	s->report->bytes_sent = s->content_bytes + s->pages.sent.bytes_sent + s->go_pages_len + c->bytes_sent;
}

static int step_push(void *context, struct err *e)
{
	struct source *s = context;
	struct scratch_header *h = scratch_header(&s->agent.scratch);

	if (!s->push) {
		s->report->total_ms = (double)(clock_ns(CLOCK_MONOTONIC) - s->begin_ns) / 1e6;
		s->report->outcome = "moved"; /* what is left stays until it is asked for; the user need not wait */
	}
	while (!__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE)) {
		struct pollfd p[2] = { { s->agent.pidfd, POLLIN, 0 }, { s->link.fd[ROLE_CONTROL], POLLIN | POLLRDHUP, 0 } };

		poll(p, 2, s->push ? 5 : 200);
		add_serve_counters(s);
		if (s->request->progress)
			s->request->progress(s->report, s->request->progress_arg);
		if (p[0].revents && !__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE))
			return err_set(e, -ESRCH, "the frozen image of process %d ended before all its pages had left", s->unit.pid);
		if (p[1].revents)
			usleep(1000);
	}
	add_serve_counters(s);
	if (h->agent_error)
		return err_sys(e, h->agent_error, "pushing the pages of process %d", s->unit.pid);
	return 0;
}

/* --- release --- */

static int step_release(void *context, struct err *e)
{
	struct source *s = context;
	struct pollfd p = { s->agent.pidfd, POLLIN, 0 }, process = { s->unit.pidfd, POLLIN, 0 };
	struct frame f;

	task_wait(&s->agent.task, 1000, NULL);
	task_command(&s->agent.task, COMMAND_LEAVE);
	task_wake(&s->agent.task, NULL);
	if (frame_recv_expect(s->link.fd[ROLE_CONTROL], FRAME_RELEASE, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, NULL) == 0)
		frame_free(&f);
	poll(&p, 1, 5000);
	poll(&process, 1, 5000);
	registry_remove(s->unit.pid, NULL);
	return 0;
}

static const struct step steps[] = {
	{ "hello", step_hello, NULL, false },
	{ "offer", step_offer, NULL, false },
	{ "agent", step_agent, undo_agent, false },
	{ "content", step_content, NULL, false },
	{ "prepare", step_prepare, NULL, false },
	{ "rounds", step_rounds, NULL, false },
	{ "freeze", source_freeze, source_thaw, false },
	{ "go", source_go, NULL, false },
	{ "commit", source_commit, NULL, true },
	{ "push", step_push, NULL, true },
	{ "release", step_release, NULL, true },
};

const struct step_table source_steps = { "source", steps, ARRAY_SIZE(steps) };

static int watch_step(void *context, const struct step *step, struct err *e)
{
	struct source *s = context;
	unsigned timeout_ms = s->request->timeout_ms;

	s->report->phase = step->name;
	timeline_mark(step->name);
	if (step->committed || !strcmp(step->name, "go"))
		return fault_point("source", step->name, s->link.fd[ROLE_CONTROL], e);
	if (s->request->progress && s->request->progress(s->report, s->request->progress_arg))
		return err_set(e, -ECANCELED, "cancelled before the commit; process %d goes on here", s->request->pid);
	if (timeout_ms && clock_ns(CLOCK_MONOTONIC) - s->begin_ns > (uint64_t)timeout_ms * 1000000)
		return err_set(e, -ETIMEDOUT, "not committed within %u ms; process %d goes on here", timeout_ms, s->request->pid);
	return fault_point("source", step->name, s->link.fd[ROLE_CONTROL], e);
}

static void identify(struct source *s)
{
	struct registry_entry entry;

	if (registry_lookup(s->request->pid, &entry, NULL) == 0) {
		snprintf(s->report->unit, sizeof(s->report->unit), "%s", entry.unit);
		s->moves = entry.moves;
	} else {
		snprintf(s->report->unit, sizeof(s->report->unit), "%s:%d", s->request->self_name, s->request->pid);
	}
}

static void source_free(struct source *s)
{
	for (size_t i = 0; i < s->nparked; i++)
		batch_free(s->parked[i].batch);
	free(s->parked);
	free(s->go_pages);
	agent_forget(&s->agent);
	close_fdp(&s->mem_fd);
	for (int i = 0; i < 2; i++)
		free(s->records[i]);
	restart_watch_close(s->watch);
	if (s->peer)
		hello_free(&s->peer);
	source_files_free(s);
	free(s->news_frame);
	free(s->answers);
	range_list_free(&s->count.lazy_ranges);
	run_list_free(&s->hot);
	run_list_free(&s->go_runs);
	run_list_free(&s->stale);
	pages_free(&s->pages);
	unit_free(&s->unit);
	link_close(&s->link);
}

static int try_once(const struct migrate_request *request, struct migrate_report *report, struct refusals *refusals, bool *ret_committed, struct err *e)
{
	static struct source s;
	int ret;

	s = (struct source){ .request = request, .report = report, .refusals = refusals, .begin_ns = clock_ns(CLOCK_MONOTONIC), .link = LINK_INIT,
			     .unit = UNIT_INIT, .agent = AGENT_INIT, .pages = { .pagemap_fd = -1 }, .mem_fd = -1 };
	report->strategy = request->strategy;
	snprintf(report->from, sizeof(report->from), "%s", request->self_name);
	snprintf(report->to, sizeof(report->to), "%s", request->dest_name);
	identify(&s);
	ret = steps_run(&source_steps, &s, watch_step, ret_committed, e);
	*ret_committed &= !s.backed_out;
	if (ret < 0 && *ret_committed)
		err_wrap(e, "process %d has been handed over (`godwit ps` on %s says whether it runs there)", request->pid, request->dest_name);
	report->total_ms = (double)(clock_ns(CLOCK_MONOTONIC) - s.begin_ns) / 1e6;
	if (ret == 0)
		report->outcome = "moved";
	else if (report->outcome == NULL)
		report->outcome = *ret_committed ? "in-doubt" : refusals->n ? "refused" : ret == -ECANCELED ? "cancelled" : "failed";
	timeline_mark("end");
	timeline_log();
	source_free(&s);
	return ret;
}

int migrate_source(const struct migrate_request *request, struct migrate_report *report, struct refusals *refusals, struct err *e)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC);
	bool committed;
	int ret;

	fault_load();
	pace_calm(0);
	pace_prepare();
	xstate_layout_here(); /* slow the first time */
	for (int tries = 1;; tries++) {
		ret = try_once(request, report, refusals, &committed, e);
		if ((ret != -EAGAIN && ret != -ESTALE) || committed || tries == TRIES || clock_ns(CLOCK_MONOTONIC) - begin > AGAIN_NS)
			return ret;
		/* Something changed between the offer and the freeze that the destination had not been told of. */
		log_info("event=again pid=%d text=\"%s\"", request->pid, e->message);
		report->outcome = NULL;
		*e = ERR_INIT;
	}
}
