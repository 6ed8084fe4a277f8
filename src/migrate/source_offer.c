/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_offer.c - the source's step "offer": the unit is captured from outside, offered, and the destination's answer taken
 */
#include "migrate/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "image/clocks.h"
#include "image/ns_mount.h"
#include "migrate/arrival.h"
#include "migrate/decode.h"
#include "migrate/hold.h"
#include "migrate/pace.h"
#include "migrate/plan.h"
#include "migrate/registry.h"
#include "wire/frame.h"

#define ANSWER_MS 60000
#define OFFERS_REFUSED_MAX 3          /* for files that are perhaps open for a moment only */
#define REFUSED_PAUSE_US 20000

static int compare_starts(const void *a, const void *b)
{
	uint64_t x = ((const struct vma *)a)->start, y = ((const struct vma *)b)->start;

	return x < y ? -1 : x > y;
}

/* Where its scratch is to be: free in its memory, and not where those of other processes with the same memory will be. */
static uint64_t choose_base(const struct source_process *p, struct err *e)
{
	const struct source *s = p->s;
	struct vma_list taken = { 0 };
	uint64_t base;

	for (const struct source_process *q = s->procs; q < p; q++) {
		uint64_t start = q->agent.scratch.base, len = scratch_size(source_slots(q->u), pages_arena_bytes(&q->u->vmas));

		if (q->u->host == p->u->host && vma_list_append(&taken, &(struct vma){ .start = start, .end = start + len }) < 0) {
			vma_list_free(&taken);
			return 0;
		}
	}
	if (taken.n > 1) /* lower and lower */
		qsort(taken.v, taken.n, sizeof(*taken.v), compare_starts);
	base = vma_find_free(&s->unit.procs[p->u->host].vmas, &taken, scratch_size(source_slots(p->u), pages_arena_bytes(&p->u->vmas)));
	vma_list_free(&taken);
	if (!base)
		err_set(e, -ENOMEM, "process %d has no free addresses for the scratch", p->u->pid);
	return base;
}

/* Encodes one process; what it allocates hangs on *o and `threads`, also after a failure. */
static int encode_process(struct source_process *p, Gw__OfferProcess *o, struct bytes_list *threads, struct err *e)
{
	struct unit_process *u = p->u;
	int ret = process_encode(u->process, &o->process.data, &o->process.len);

	if (ret >= 0)
		ret = unit_encode_threads(u->threads, u->nthreads, threads, e);
	if (ret >= 0)
		ret = vma_list_encode(&u->vmas, &o->vmas.data, &o->vmas.len, e);
	if (ret >= 0)
		ret = vdso_encode(&u->vdso, &o->vdso.data, &o->vdso.len, e);
	if (ret >= 0)
		ret = mm_encode(&u->mm, &o->mm.data, &o->mm.len, e);
	o->pid = u->number;
	o->threads = threads->v;
	o->n_threads = threads->n;
	/* The base is chosen here and used by step_agent. */
	o->scratch_base = p->agent.scratch.base = ret < 0 ? 0 : choose_base(p, e);
	if (ret >= 0 && !o->scratch_base)
		ret = -ENOMEM;
	return ret < 0 ? ret : 0;
}

static void free_encoded(Gw__OfferProcess *o, struct bytes_list *threads)
{
	free(o->process.data);
	free(o->vmas.data);
	free(o->vdso.data);
	free(o->mm.data);
	bytes_list_free(threads);
}

static int pack_offer(struct source *s, Gw__Offer *offer, struct err *e)
{
	Gw__Protection protection;
	char *protected_on[PROTECTION_COPIES_MAX];
	cleanup_free uint8_t *files = NULL, *fds = NULL, *tree = NULL, *ns = NULL, *cgroups = NULL, *packed = NULL;
	int ret = fsfile_table_encode(&s->unit.files, &files, &offer->files.len, e);

	if (ret >= 0)
		ret = tree_encode(&s->unit.tree, &tree, &offer->tree.len);
	if (ret >= 0 && s->unit.ns)
		ns_encode(s->unit.ns, &ns, &offer->namespaces.len);
	if (s->unit.cgroups) {
		cgroups = malloc(gw__cgroups__get_packed_size(s->unit.cgroups) + 1);
		offer->cgroups.len = cgroups ? gw__cgroups__pack(s->unit.cgroups, cgroups) : 0;
	}
	if (ret >= 0)
		ret = fdtable_encode(&s->unit.fds, &fds, &offer->fds.len, e);
	if (ret < 0)
		return ret;
	offer->files.data = files;
	offer->fds.data = fds;
	offer->tree.data = tree;
	offer->namespaces.data = ns;
	offer->cgroups.data = cgroups;
	offer->unit = s->report->unit;
	offer->from = (char *)(uintptr_t)s->request->self_name;
	offer->strategy = s->strategy;
	offer->held = s->hold;
	offer->files_policy = s->request->files;
	offer->moves = s->moves;
	offer->reason = (char *)(uintptr_t)(s->request->reason ? s->request->reason : "");
	offer->started = s->started;
	protection_to_message(&s->protection, &protection, protected_on);
	offer->protection = s->protection.every_ms ? &protection : NULL;
	offer->cpu_ms = s->cpu_ms;
	for (size_t i = 0; i < s->nprocs; i++)
		offer->cpu_ms += registry_cpu_ms(s->unit.procs[i].pid);
	source_home_offer(s, offer);
	source_net_offer(s, offer);
	source_address_offer(s, offer);
	source_view_offer(s, offer);
	packed = malloc(gw__offer__get_packed_size(offer));
	ret = packed ? frame_send(s->link.control, FRAME_OFFER, packed, gw__offer__pack(offer, packed), e) : err_sys(e, ENOMEM, "the offer");
	offer->protection = NULL;
	source_view_offered(offer);
	source_address_offered(offer);
	source_net_offered(offer);
	return ret;
}

static int send_offer(struct source *s, struct err *e)
{
	Gw__Offer offer = GW__OFFER__INIT;
	cleanup_free Gw__OfferProcess *o = calloc(s->nprocs, sizeof(*o)), **list = calloc(s->nprocs, sizeof(*list));
	cleanup_free struct bytes_list *threads = calloc(s->nprocs, sizeof(*threads));
	int ret = o && list && threads ? 0 : err_sys(e, ENOMEM, "the offer");

	for (size_t i = 0; i < s->nprocs && ret >= 0; i++) {
		gw__offer_process__init(&o[i]);
		list[i] = &o[i];
		/* As late as possible: the destination reads its own clocks when the offer arrives. */
		ret = clocks_read(s->unit.procs[i].pid, s->unit.procs[i].process->clocks, e);
		cpu_uses_describe(s->unit.procs[i].pid, &s->programs, s->unit.procs[i].process);
		if (ret >= 0)
			ret = encode_process(&s->procs[i], &o[i], &threads[i], e);
	}
	offer.processes = list;
	offer.n_processes = s->nprocs;
	if (ret >= 0)
		ret = pack_offer(s, &offer, e);
	for (size_t i = 0; o && threads && i < s->nprocs; i++)
		free_encoded(&o[i], &threads[i]);
	return ret;
}

/* Whether it is all about files: the program may have had one open for a moment only. */
static bool only_files(const struct refusals *r)
{
	for (size_t i = 0; i < r->n; i++)
		if (strncmp(r->v[i].code, "file.", strlen("file.")) != 0)
			return false;
	return r->n > 0;
}

/* Said after the offer, what is wrong with a file is looked at anew; said of an offer, it is believed when it has been said a few times. */
static int take_refuse(struct source *s, const struct frame *f, struct err *e)
{
	static unsigned offers_refused;
	struct path_list from_home;
	int ret = refuse_decode(f->payload, f->len, s->refusals, &from_home, e);

	if (ret == 0 && from_home.n)
		ret = source_view_refused(s, &from_home, e);
	path_list_free(&from_home);
	if (ret < 0)
		return ret;
	if (only_files(s->refusals) && (s->answers || offers_refused < OFFERS_REFUSED_MAX)) {
		err_set(e, -EAGAIN, "%s: %s", s->refusals->v[0].thing, s->refusals->v[0].cause);
		offers_refused += !s->answers;
		refusals_cut(s->refusals, 0);
		usleep(REFUSED_PAUSE_US);
		return -EAGAIN;
	}

	/* What is said of files may be about what the process has removed or replaced meanwhile. */
	if (ret == 0 && source_files_replaced(s)) {
		refusals_free(s->refusals);
		*s->refusals = (struct refusals){ 0 };
		return err_set(e, -EAGAIN, "process %d has removed or replaced a file since the offer", s->request->pid);
	}
	return ret < 0 ? ret : err_set(e, -EPERM, "%s cannot take process %d", s->request->dest_name, s->request->pid);
}

int source_take_accept(struct source *s, uint32_t n, struct fsfile_answer **ret_answers, struct err *e)
{
	struct frame f;
	int ret = frame_recv(s->link.control, &f, FRAME_PAYLOAD_MAX, ANSWER_MS, e);

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

static int make_processes(struct source *s, struct err *e)
{
	s->procs = calloc(s->unit.nprocs, sizeof(*s->procs));
	if (!s->procs)
		return err_sys(e, ENOMEM, "the unit");
	s->nprocs = s->unit.nprocs;
	for (size_t i = 0; i < s->nprocs; i++)
		s->procs[i] = (struct source_process){ .s = s, .u = &s->unit.procs[i], .agent = AGENT_INIT, .pages = { .pagemap_fd = -1 }, .mem_fd = -1,
							.peek = { .next_fd = -1 } };
	return 0;
}

/* What the destination lacks of what the unit has mounted, as far as it can be sent. */
static int ask_about_mounts(struct source *s, struct err *e)
{
	Gw__NsAsk ask = GW__NS_ASK__INIT;
	Gw__NsAnswer *answer;
	cleanup_free uint8_t *packed = NULL;
	cleanup_frame struct frame f = { 0 };
	int ret;

	ns_mounts_ask(s->unit.ns, &ask);
	packed = malloc(gw__ns_ask__get_packed_size(&ask) + 1);
	ret = packed ? frame_send(s->link.control, FRAME_MOUNTS, packed, gw__ns_ask__pack(&ask, packed), e) : err_sys(e, ENOMEM, "mounts");
	for (size_t i = 0; i < ask.n_paths; i++)
		gw__ns_path__free_unpacked(ask.paths[i], NULL);
	free(ask.paths);
	if (ret == 0)
		ret = frame_recv_expect(s->link.control, FRAME_MOUNTS, &f, NS_ASK_BYTES_MAX, LINK_TIMEOUT_MS, e);
	if (ret == 0)
		ret = ns_answer_decode(f.payload, f.len, &answer, e);
	if (ret)
		return ret;
	ret = ns_mounts_send(s->unit.ns, answer, &s->unit.files, s->refusals, e);
	gw__ns_answer__free_unpacked(answer, NULL);
	return ret == 0 && s->refusals->n ? err_set(e, -EPERM, "process %d cannot move", s->request->pid) : ret;
}

/* Registered with io_urings: so much goes with the registers (image/uring.h), since it must be there before the resume. */
#define PINNED_GO_BYTES_MAX (16u << 20)

/*
 * A device that reads from a disk writes to pages that it was given before, which write protection does not see (O_DIRECT): a page that was sent meanwhile would be old
 * for good. So of such a unit no page is sent before it stands still and nothing is in flight any more. Memory
 * that is registered with an io_uring is written so, too.
 */
static void choose_strategy(struct source *s)
{
	uint64_t pinned = 0;

	for (size_t i = 0; i < s->unit.nprocs; i++)
		pinned += uring_pinned_bytes(s->unit.procs[i].process);
	s->strategy = s->request->strategy;
	s->direct_io = pinned || fdtable_has_direct_io(s->unit.fds.msg);
	if (pinned > PINNED_GO_BYTES_MAX)
		s->strategy = STRATEGY_STOP_COPY;
	if (s->direct_io && s->strategy == STRATEGY_HYBRID)
		s->strategy = STRATEGY_FREEZE_FREE;
	else if (s->direct_io && s->strategy == STRATEGY_PRE_COPY)
		s->strategy = STRATEGY_STOP_COPY;
	if (s->strategy != s->request->strategy)
		log_info("event=direct-io pid=%d strategy=%s instead=%s", s->request->pid, strategy_name(s->request->strategy), strategy_name(s->strategy));
	s->report->strategy = s->strategy;
}

/*
 * What was read of a running unit at different moments may look like something that cannot move: a descriptor that was closed meanwhile in a set of epoll's,
 * say. So it is only believed when it has been seen twice.
 */
static int capture(struct source *s, struct err *e)
{
	cleanup_free char *first = NULL, *second = NULL;
	int ret = unit_capture(s->request->pid, s->request->also, s->request->n_also, s->request->caller, &s->unit, s->refusals, e);

	if (ret < 0 || !s->refusals->n)
		return ret;
	first = refusals_text(s->refusals);
	unit_free(&s->unit);
	s->unit = UNIT_INIT;
	refusals_cut(s->refusals, 0);
	ret = unit_capture(s->request->pid, s->request->also, s->request->n_also, s->request->caller, &s->unit, s->refusals, e);
	second = ret == 0 && s->refusals->n ? refusals_text(s->refusals) : NULL;
	if (!second || (first && !strcmp(first, second)))
		return ret;
	refusals_cut(s->refusals, 0);
	return err_set(e, -EAGAIN, "process %d cannot move, for one reason or another: %s", s->request->pid, second);
}

int source_offer(void *context, struct err *e)
{
	struct source *s = context;
	bool same_kernel;
	Gw__Hello self;
	int ret = arrival_wait(s->request->pid, asks_to_cancel, s, e);

	for (size_t i = 0; i < s->request->n_also && ret == 0; i++)
		ret = arrival_wait(s->request->also[i], asks_to_cancel, s, e);
	if (ret == 0 && s->hold) {
		pace_hurry(0);
		ret = source_net_ready(s, e);
		s->stopped_ns = clock_ns(CLOCK_REALTIME);
	}
	if (ret == 0 && s->hold)
		ret = hold_unit(s->request->pid, s->request->also, s->request->n_also, e);
	if (ret < 0)
		return ret;
	source_address_look(s);
	source_net_look(s);
	ret = capture(s, e);
	if (ret < 0)
		return ret;
	if (s->refusals->n)
		return err_set(e, -EPERM, "process %d cannot move", s->request->pid);
	choose_strategy(s);
	ret = make_processes(s, e);
	if (ret == 0)
		ret = source_home_look(s, e);
	if (ret == 0 && s->refusals->n)
		return err_set(e, -EPERM, "process %d cannot move", s->request->pid);
	if (ret == 0 && s->unit.ns && s->unit.ns->n_mounts && s->request->files != FSFILE_POLICY_REFUSE)
		ret = ask_about_mounts(s, e);
	if (ret == 0)
		ret = source_address_begin(s, e);
	if (ret == 0)
		ret = source_net_begin(s, e);
	if (ret == 0)
		ret = source_address_redirect(s, e);
	if (ret == 0 && s->refusals->n)
		return err_set(e, -EPERM, "process %d cannot move", s->request->pid);
	if (ret == 0)
		ret = source_view_begin(s, e);
	hello_fill(&self);
	same_kernel = !strcmp(self.boot_id, s->peer->boot_id);
	if (ret == 0)
		ret = fsfile_prepare_offer(&s->unit.files, same_kernel, e);
	if (ret == 0)
		ret = source_look_at_files(s, e);
	if (ret == 0)
		ret = send_offer(s, e);
	if (ret == 0)
		ret = source_take_accept(s, s->unit.files.n, &s->answers, e);
	if (ret == 0)
		s->nanswers = s->unit.files.n;
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		vma_list_apply_answers(&s->unit.procs[i].vmas, s->answers, s->nanswers);
	if (ret == 0)
		ret = source_check_sharing(s, e);
	if (ret == 0 && !s->refusals->n && s->request->ask_only) {
		if (s->request->plan)
			plan_fill(s, s->request->plan);
		s->report->outcome = "possible";
		return err_set(e, -ECANCELED, "%s would take process %d", s->request->dest_name, s->request->pid);
	}
	return ret == 0 && s->refusals->n ? err_set(e, -EPERM, "process %d cannot move", s->request->pid) : ret;
}

void source_offer_undo(void *context)
{
	(void)context;
	hold_release();
}
