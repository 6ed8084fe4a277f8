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

#include "base/limits.h"
#include "base/log.h"
#include "base/util.h"
#include "image/clocks.h"
#include "image/membarrier.h"
#include "image/mempolicy.h"
#include "image/ns_mount.h"
#include "image/ns_net.h"
#include "image/restart.h"
#include "kern/fdpass.h"
#include "kern/pagemap.h"
#include "migrate/arrival.h"
#include "migrate/decode.h"
#include "migrate/hold.h"
#include "migrate/pace.h"
#include "migrate/registry.h"
#include "migrate/timeline.h"
#include "migrate/unit_page.h"
#include "wire/frame.h"

#define ROUNDS_MAX 12u
#define ROUND_SMALL 128u              /* pages: a round this small is followed by the freeze */
#define WORKING_SET_NS 2000000        /* how long write tracking watches before the freeze */
#define OFFER_ANSWER_MS 60000
#define RECORDS_MAX 4096u
#define TRIES 40
#define TRIES_RUNNING 3              /* after so many the unit is held from the beginning */
#define TORN_TRIES 2
#define VFORK_NS 2000000000ull        /* how long a vfork() may take to call exec */
#define VFORK_PAUSE_US 2000
#define AGAIN_NS 10000000000ull       /* attempts are begun for so long */
#define OFFERS_REFUSED_MAX 3          /* for files that are perhaps open for a moment only */
#define REFUSED_PAUSE_US 20000

static struct restart_reader *reader; /* of this process and its children */
static struct file_reader *file_reader;

void migrate_init(int ret_keep[MIGRATE_KEEP_FDS])
{
	struct err e = ERR_INIT;

	if (!reader && restart_reader_load(&reader, &e) < 0)
		log_warning("event=no-bpf text=\"%s\"", e.message);
	if (!file_reader && file_reader_load(&file_reader, &e) < 0)
		log_warning("event=no-bpf text=\"%s\"", e.message);
	ret_keep[0] = reader ? restart_reader_fd(reader) : -1;
	ret_keep[1] = file_reader ? file_reader_fd(file_reader) : -1;
}

static struct link_peer peer_of(const struct source *s)
{
	return (struct link_peer){ &s->request->dest, s->mig_id, s->request->self_name };
}

/* --- hello --- */

static int step_hello(void *context, struct err *e)
{
	struct source *s = context;
	struct link_peer peer = peer_of(s);
	struct frame f;
	int ret;

	if (getrandom(s->mig_id, sizeof(s->mig_id), 0) != (ssize_t)sizeof(s->mig_id))
		return err_sys(e, errno, "random numbers");
	ret = link_connect(&s->link, ROLE_CONTROL, 0, &peer, e);
	if (ret < 0)
		return ret;
	ret = frame_recv_expect(s->link.control, FRAME_HELLO, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, e);
	if (ret < 0)
		return err_wrap(e, "%s", s->request->dest_name);
	ret = hello_decode(f.payload, f.len, &s->peer, e);
	frame_free(&f);
	return ret < 0 ? ret : link_connect(&s->link, ROLE_GO, 0, &peer, e);
}

/* --- offer --- */

static unsigned slots_for(const struct unit_process *u)
{
	return (unsigned)u->nthreads + THREADS_SPARE;
}

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
		uint64_t start = q->agent.scratch.base, len = scratch_size(slots_for(q->u), pages_arena_bytes(&q->u->vmas));

		if (q->u->host == p->u->host && vma_list_append(&taken, &(struct vma){ .start = start, .end = start + len }) < 0) {
			vma_list_free(&taken);
			return 0;
		}
	}
	if (taken.n > 1) /* lower and lower */
		qsort(taken.v, taken.n, sizeof(*taken.v), compare_starts);
	base = vma_find_free(&s->unit.procs[p->u->host].vmas, &taken, scratch_size(slots_for(p->u), pages_arena_bytes(&p->u->vmas)));
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
	offer->files_policy = s->request->files;
	offer->moves = s->moves;
	source_home_offer(s, offer);
	source_view_offer(s, offer);
	packed = malloc(gw__offer__get_packed_size(offer));
	ret = packed ? frame_send(s->link.control, FRAME_OFFER, packed, gw__offer__pack(offer, packed), e) : err_sys(e, ENOMEM, "the offer");
	source_view_offered(offer);
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
	int ret = frame_recv(s->link.control, &f, FRAME_PAYLOAD_MAX, OFFER_ANSWER_MS, e);

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
		s->procs[i] = (struct source_process){ .s = s, .u = &s->unit.procs[i], .agent = AGENT_INIT, .pages = { .pagemap_fd = -1 }, .mem_fd = -1 };
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
	if (ret < 0)
		return ret;
	answer = gw__ns_answer__unpack(NULL, f.len, f.payload);
	if (!answer)
		return err_set(e, -EBADMSG, "an answer about mounts that cannot be read");
	ret = ns_mounts_send(s->unit.ns, answer, &s->unit.files, s->refusals, e);
	gw__ns_answer__free_unpacked(answer, NULL);
	return ret == 0 && s->refusals->n ? err_set(e, -EPERM, "process %d cannot move", s->request->pid) : ret;
}

/*
 * A device that reads from a disk writes to pages that it was given before, which write protection does not see (O_DIRECT): a page that was sent meanwhile would be old
 * for good. So of such a unit no page is sent before it stands still and nothing is in flight any more.
 */
static void choose_strategy(struct source *s)
{
	s->strategy = s->request->strategy;
	s->direct_io = fdtable_has_direct_io(s->unit.fds.msg);
	if (s->direct_io && s->strategy == STRATEGY_HYBRID)
		s->strategy = STRATEGY_FREEZE_FREE;
	else if (s->direct_io && s->strategy == STRATEGY_PRE_COPY)
		s->strategy = STRATEGY_STOP_COPY;
	if (s->strategy != s->request->strategy)
		log_info("event=direct-io pid=%d strategy=%s instead=%s", s->request->pid, strategy_name(s->request->strategy), strategy_name(s->strategy));
	s->report->strategy = s->strategy;
}

static int step_offer(void *context, struct err *e)
{
	struct source *s = context;
	bool same_kernel;
	Gw__Hello self;
	int ret = arrival_wait(s->request->pid, asks_to_cancel, s, e);

	if (ret == 0 && s->hold) {
		s->stopped_ns = clock_ns(CLOCK_REALTIME);
		ret = hold_unit(s->request->pid, e);
	}
	if (ret < 0)
		return ret;
	ret = unit_capture(s->request->pid, &s->unit, s->refusals, e);
	if (ret < 0)
		return ret;
	if (s->refusals->n)
		return err_set(e, -EPERM, "process %d cannot move", s->request->pid);
	choose_strategy(s);
	ret = make_processes(s, e);
	if (ret == 0)
		ret = source_home_look(s, e);
	if (ret == 0 && s->home.kind == HOME_STUB && ns_has_pids())
		refusals_add(s->refusals, "ns.pid.awaited", "its parent waits for it, and the first process of a pid namespace cannot be stood in for",
			     "start it detached", "process %d (parent %d)", s->request->pid, s->home.parent);
	if (ret == 0 && s->refusals->n)
		return err_set(e, -EPERM, "process %d cannot move", s->request->pid);
	if (ret == 0 && s->unit.ns && s->unit.ns->n_mounts && s->request->files != FSFILE_POLICY_REFUSE)
		ret = ask_about_mounts(s, e);
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
	return ret == 0 && s->refusals->n ? err_set(e, -EPERM, "process %d cannot move", s->request->pid) : ret;
}

static void undo_offer(void *context)
{
	(void)context;
	hold_release();
}

/* --- agent --- */

static int connect_pages(struct source *s, struct err *e)
{
	struct link_peer peer = peer_of(s);
	int ret = link_expect(&s->link, s->nprocs, e);

	ns_outside(true);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		ret = link_connect(&s->link, ROLE_FAULT, (uint32_t)i, &peer, e);
		if (ret == 0)
			ret = link_connect(&s->link, ROLE_BULK, (uint32_t)i, &peer, e);
		s->procs[i].link = &s->link.pages[i];
	}
	ns_outside(false);
	return ret;
}

static int open_proc(pid_t pid, const char *name, struct err *e)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_sys(e, errno, "%s", path) : fd;
}

static int read_membarrier(struct agent *a, struct err *e)
{
	struct remote_call *call = membarrier_plan_read(a->batch);
	int ret = batch_run(a->batch, e);

	a->membarrier = ret == 0 ? membarrier_of(call) : 0;
	batch_reset(a->batch);
	return ret;
}

static int equip(struct source_process *p, struct err *e)
{
	struct source *s = p->s;
	struct agent_fds fds = { s->link.go, p->link->fault, p->link->bulk, -1, -1, -1, -1, p == s->procs ? -1 : source_root(s)->scratch.memfd, -1 };
	cleanup_close int ask = -1;
	int ret;

	pace_calm_beside(p->agent.pid, p->u->nthreads);
	p->pages = (struct pages){ .pid = p->u->pid, .agent = &p->agent, .pagemap_fd = -1 };
	p->pages.pagemap_fd = fds.pagemap = ret = open_proc(p->u->pid, "pagemap", e);
	if (ret >= 0)
		p->mem_fd = fds.mem = ret = open_proc(p->u->pid, "mem", e);
	if (ret < 0)
		return ret;
	/* The first process of a pid namespace takes the agents with it when it ends: it is killed by this worker when they have done their work. */
	scratch_header(&p->agent.scratch)->tgid = p->u->number == 1 ? 0 : p->u->number;
	scratch_header(&p->agent.scratch)->ends_namespace = p->u->number == 1;
	ret = source_prepare_ask(p, &ask, e);
	fds.ask = ask;
	if (ret == 0)
		ret = agent_equip(&p->agent, -1, &fds, e);
	if (ret == 0)
		ret = read_membarrier(&p->agent, e);
	if (ret == 0)
		ret = scratch_warm(&p->agent.scratch, (unsigned)p->u->nthreads, p->agent.batch, e);
	if (ret == 0)
		ret = pages_layout(&p->pages, &p->u->vmas, e);
	return ret < 0 ? ret : pages_count(&p->pages, &p->count, e);
}

static int prepare_agent(struct source_process *p, struct err *e)
{
	struct unit_process *u = p->u;
	struct err ignored = ERR_INIT;
	uint64_t base = p->agent.scratch.base;
	int ret;

	if (!reader || restart_watch_open(reader, u->pid, &p->watch, &ignored) < 0)
		log_warning("event=no-bpf text=\"%s\"", ignored.message);
	for (int i = 0; i < 2; i++)
		p->records[i] = calloc(RECORDS_MAX, sizeof(**p->records));
	if (!p->records[0] || !p->records[1])
		return err_sys(e, ENOMEM, "restart records");
	p->agent.guest = u->guest;
	ret = agent_inject(&p->agent, u->pid, p->s->request->pid, base, slots_for(u), pages_arena_bytes(&u->vmas), p->watch, e);
	if (ret == -EREMOTE)
		refusals_add(p->s->refusals, "task.seccomp-notify", e->message, "start it without that supervisor", "process %d (seccomp)", u->pid);
	return ret < 0 ? ret : equip(p, e);
}

static int step_agent(void *context, struct err *e)
{
	struct source *s = context;
	int ret = connect_pages(s, e), unused[MIGRATE_KEEP_FDS];
	uint32_t agents = 0;

	/* Without BPF timed sleeps that are interrupted start over: still right, only longer. */
	if (!reader)
		migrate_init(unused);
	if (file_reader)
		fdtable_watch(&s->unit.fds, file_reader);
	s->report->pages_total = s->report->pages_skipped_file = 0;
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		ret = prepare_agent(&s->procs[i], e);
		agents += s->procs[i].agent.seen != 0;
		s->report->pages_total += s->procs[i].count.total;
		s->report->pages_skipped_file += s->procs[i].count.in_file;
	}
	tree_watch_agents(s->unit.watch, agents);
	return ret;
}

void source_remove_agents(struct source *s)
{
	source_untrack_shared(s);
	for (size_t i = s->nprocs; i-- > 0;) { /* the root's last, which may have to wait for the others' */
		struct agent *a = &s->procs[i].agent;
		pid_t seen = a->seen;

		if (a->pid)
			pages_untrack(&s->procs[i].pages);
		agent_remove(a, s->procs[i].u->pid);
		if (seen)
			agent_reap(s->procs[0].u->pid, seen);
	}
}

static void undo_agent(void *context)
{
	source_remove_agents(context);
}

/* --- content --- */

static int step_content(void *context, struct err *e)
{
	int ret = source_track_shared(context, e);

	if (ret == 0)
		ret = source_send_common(context, e);
	return ret < 0 ? ret : source_send_contents(context, e);
}

/* --- prepare: the destination builds; nothing to do here but wait --- */

static int step_prepare(void *context, struct err *e)
{
	struct source *s = context;
	struct frame f;
	int ret = frame_recv_expect(s->link.control, FRAME_PREPARED, &f, FRAME_HELLO_MAX, OFFER_ANSWER_MS, e);

	if (ret < 0)
		return err_wrap(e, "%s", s->request->dest_name);
	frame_free(&f);
	return 0;
}

/* --- rounds --- */

/*
 * New layouts. A barrier goes before each in its process's stream of pages: the destination changes the layout when it has received the pages of the old one,
 * and before it takes those of the new one. The last round ends with a barrier too: what goes with the registers is newer than what may
 * still be on its way.
 */
int source_tell_layouts(struct source *s, const struct layouts *changed, bool over, struct err *e)
{
	Gw__Round round = GW__ROUND__INIT;
	cleanup_free Gw__RoundLayout *l = calloc(s->nprocs, sizeof(*l)), **list = calloc(s->nprocs, sizeof(*list));
	cleanup_free uint8_t *packed = NULL;
	int ret = l && list ? 0 : err_sys(e, ENOMEM, "a round");

	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		if (changed->v[i] || over)
			ret = pages_barrier(&s->procs[i].pages, e);
		if (ret < 0 || !changed->v[i])
			continue;
		list[round.n_layouts] = &l[i];
		gw__round_layout__init(&l[i]);
		l[i].process = (uint32_t)i;
		ret = vma_list_encode(changed->v[i], &l[i].vmas.data, &l[i].vmas.len, e);
		round.n_layouts++;
	}
	round.layouts = list;
	round.over = over;
	packed = ret == 0 ? malloc(gw__round__get_packed_size(&round) + 1) : NULL;
	if (ret == 0)
		ret = packed ? frame_send(s->link.control, FRAME_ROUND, packed, gw__round__pack(&round, packed), e) : err_sys(e, ENOMEM, "a round");
	for (size_t i = 0; l && i < s->nprocs; i++)
		free(l[i].vmas.data);
	return ret;
}

static int take_new_layout(struct source_process *p, struct vma_list *vmas, struct err *e)
{
	struct vma_list old = p->u->vmas;
	int ret;

	p->u->vmas = *vmas;
	*vmas = (struct vma_list){ 0 };
	ret = pages_layout(&p->pages, &p->u->vmas, e);
	if (ret == 0)
		ret = pages_forget_remapped(&p->pages, &old, &p->u->vmas, p->s->unit.files.n, e);
	vma_list_free(&old);
	return ret;
}

/* A program that calls exec has another vdso: nothing of what was offered holds any more. */
static bool has_executed(const struct vma_list *old, const struct vma_list *new)
{
	for (size_t i = 0; i < old->n; i++) {
		const struct vma *v = old->v[i].kind == VMA_VDSO ? vma_find(new, old->v[i].start) : NULL;

		if (old->v[i].kind == VMA_VDSO)
			return !v || v->kind != VMA_VDSO || v->start != old->v[i].start;
	}
	return false;
}

static int reread_layouts(struct source *s, struct round *r, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		struct unit_process *u = &s->unit.procs[i];
		bool changed = false;

		ret = u->guest ? 0 : vma_list_reread(u->pid, &u->vmas, true, &s->unit.files, s->refusals, &r->vmas[i], &changed, e);
		if (ret == 0 && s->refusals->n)
			ret = err_set(e, -EPERM, "process %d has begun something that cannot move", u->pid);
		if (ret == 0 && changed && has_executed(&u->vmas, &r->vmas[i]))
			ret = err_set(e, -EAGAIN, "process %d has called exec since the offer", u->pid);
		if (ret == 0 && changed)
			vma_list_apply_answers(&r->vmas[i], s->answers, s->nanswers);
		r->now[i] = changed ? &r->vmas[i] : &u->vmas;
		r->changed[i] = changed ? &r->vmas[i] : NULL;
	}
	return ret;
}

int source_round_begin(struct source *s, struct round *r, struct err *e)
{
	*r = (struct round){ calloc(s->nprocs, sizeof(*r->vmas)), calloc(s->nprocs, sizeof(*r->now)), calloc(s->nprocs, sizeof(*r->changed)) };
	return r->vmas && r->now && r->changed ? reread_layouts(s, r, e) : err_sys(e, ENOMEM, "a round");
}

void source_round_end(struct source *s, struct round *r)
{
	for (size_t i = 0; r->vmas && i < s->nprocs; i++)
		vma_list_free(&r->vmas[i]);
	free(r->vmas);
	free(r->now);
	free(r->changed);
}

static int exchange_round(struct source *s, struct round *r, bool over, struct err *e)
{
	const struct layouts now = { r->now, s->nprocs }, changed = { r->changed, s->nprocs };
	struct frame f;
	int ret;

	source_look_at_descriptors(s);
	source_note_layouts(s);
	ret = source_tell_files(s, &now, e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (r->changed[i])
			vma_list_apply_answers(&r->vmas[i], s->answers, s->nanswers);
	if (ret == 0)
		ret = source_tell_layouts(s, &changed, over, e);
	if (ret == 0)
		ret = frame_recv_expect(s->link.control, FRAME_ROUND, &f, FRAME_HELLO_MAX, OFFER_ANSWER_MS, e);
	if (ret < 0)
		return ret;
	frame_free(&f);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (r->changed[i])
			ret = take_new_layout(&s->procs[i], &r->vmas[i], e);
	return ret;
}

/* Sends a Round and waits for its answer. */
static int send_round(struct source *s, bool over, struct err *e)
{
	struct round r;
	int ret = source_round_begin(s, &r, e);

	if (ret == 0)
		ret = exchange_round(s, &r, over, e);
	source_round_end(s, &r);
	return ret;
}

/* Adds up what has been sent so far, after the commit with what the agents have served. */
static void account(struct source *s)
{
	struct migrate_report *r = s->report;

	r->pages_sent = r->pages_skipped_zero = r->pages_faulted = 0;
	r->bytes_sent = s->content_bytes + s->ahead_bytes + s->go_pages_len;
	for (size_t i = 0; i < s->nprocs; i++) {
		const struct source_process *p = &s->procs[i];
		const struct agent_counters *c = &scratch_header(&p->agent.scratch)->counters;

		r->pages_sent += p->pages.sent.pages_sent + p->go_runs.pages + c->pages_sent;
		r->pages_skipped_zero += p->pages.sent.pages_zero + c->pages_zero;
		r->pages_faulted += c->pages_faulted;
		r->bytes_sent += p->pages.sent.bytes_sent + c->bytes_sent;
	}
}

static int all_pages_round(struct source *s, int kinds, uint64_t *ret_sent, struct err *e)
{
	uint64_t sent = 0;
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		uint64_t n = 0;

		ret = pages_round(&s->procs[i].pages, kinds, &n, e);
		sent += n;
	}
	if (ret_sent)
		*ret_sent = sent;
	return ret;
}

/* Repeats until little is left or it no longer becomes less. */
static int precopy_rounds(struct source *s, struct err *e)
{
	uint64_t last = UINT64_MAX;

	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		uint64_t sent = 0;
		int ret = send_round(s, false, e);

		if (ret == 0)
			ret = all_pages_round(s, PAGES_LAZY | PAGES_EAGER, &sent, e);
		if (ret < 0)
			return ret;
		s->report->rounds++;
		account(s);
		if (s->request->progress && s->request->progress(s->report, s->request->progress_arg))
			return err_set(e, -ECANCELED, "cancelled");
		if (sent <= ROUND_SMALL * s->nprocs || (i > 2 && sent >= last - last / 8))
			return 0;
		last = sent;
	}
	return 0;
}

/* What was written during a short while is what will be written next. */
static int find_working_set(struct source *s, struct err *e)
{
	struct timespec pause = { 0, WORKING_SET_NS };
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		struct run_list ignored = { 0 };

		ret = pages_written(&s->procs[i].pages, 0, &ignored, e);
		run_list_free(&ignored);
	}
	if (ret < 0)
		return ret;
	nanosleep(&pause, NULL);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = pages_written(&s->procs[i].pages, GO_PAGES_MAX, &s->procs[i].hot, e);
	return ret;
}

static int find_memory_policies(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (!s->procs[i].u->guest)
			ret = mempolicy_find(s->procs[i].agent.batch, &s->procs[i].u->vmas, s->procs[i].u->process, e);
	return ret;
}

static int step_rounds(void *context, struct err *e)
{
	struct source *s = context;
	enum strategy strategy = s->strategy;
	int ret = 0;

	s->post_copy = strategy_is_post_copy(strategy);
	s->push = strategy_pushes(strategy);
	for (size_t i = 0; i < s->nprocs && ret == 0 && strategy != STRATEGY_STOP_COPY; i++)
		ret = pages_track(&s->procs[i].pages, e);
	if (ret == 0 && (strategy == STRATEGY_PRE_COPY || strategy == STRATEGY_HYBRID))
		ret = precopy_rounds(s, e);
	else if (ret == 0 && strategy != STRATEGY_STOP_COPY && !s->direct_io)
		ret = all_pages_round(s, PAGES_EAGER, NULL, e);
	if (ret == 0)
		ret = send_round(s, true, e);
	if (ret == 0)
		ret = find_memory_policies(s, e);
	timeline_mark("rounds over");
	if (ret == 0)
		source_rehearse(s, false);
	timeline_mark("rehearsed");
	if (ret == 0 && s->post_copy && strategy != STRATEGY_HYBRID)
		ret = find_working_set(s, e);
	if (ret == 0 && !s->direct_io)
		ret = source_send_ahead(s, e);
	timeline_mark("working set sent ahead");
	if (ret == 0)
		source_rehearse(s, true);
	return ret;
}

/* --- push --- */

/* Waits until the agent of one process has sent everything. */
static int wait_pushed(struct source_process *p, struct err *e)
{
	struct source *s = p->s;
	struct scratch_header *h = scratch_header(&p->agent.scratch);
	struct pace_demand demand = { 0 };

	while (!__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE)) {
		struct pollfd f[2] = { { p->agent.pidfd, POLLIN, 0 }, { s->link.control, POLLIN | POLLRDHUP, 0 } };

		pace_warm_on_demand(&demand, h->counters.pages_faulted);
		poll(f, 2, s->push ? 5 : 200);
		account(s);
		if (s->request->progress)
			s->request->progress(s->report, s->request->progress_arg);
		if (f[0].revents && !__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE))
			return err_set(e, -ESRCH, "the frozen image of process %d ended before all its pages had left", p->u->pid);
		if (f[1].revents)
			usleep(1000);
	}
	pace_cool();
	if (h->agent_error)
		return err_sys(e, h->agent_error, "pushing the pages of process %d", p->u->pid);
	return 0;
}

static int step_push(void *context, struct err *e)
{
	struct source *s = context;
	int ret = 0;

	if (s->unit.ns && s->unit.ns->n_nets)
		ns_net_gone(s->unit.ns->nets[0]);
	if (!s->push) {
		s->report->total_ms = (double)(clock_ns(CLOCK_MONOTONIC) - s->begin_ns) / 1e6;
		s->report->outcome = "moved"; /* what is left stays until it is asked for; the user need not wait */
	}
	/* One that fails does not end the others. */
	for (size_t i = 0; i < s->nprocs; i++) {
		int one = wait_pushed(&s->procs[i], ret < 0 ? NULL : e);

		ret = ret < 0 ? ret : one;
	}
	account(s);
	return ret;
}

/* --- release --- */

/* The first process of a pid namespace is left to us (equip). */
static void end_namespace(struct source *s)
{
	if (!ns_has_pids() || ns_seen(s->unit.procs[0].pid) != 1)
		return;
	for (size_t i = 0; i < s->nprocs; i++)
		poll(&(struct pollfd){ s->procs[i].agent.pidfd, POLLIN, 0 }, 1, 5000);
	pidfd_signal(s->unit.procs[0].pidfd, SIGKILL);
	source_held_reap(&s->procs[0]);
}

static int step_release(void *context, struct err *e)
{
	struct source *s = context;
	struct frame f;

	(void)e;
	for (size_t i = 0; i < s->nprocs; i++) {
		struct agent *a = &s->procs[i].agent;

		task_wait(&a->task, 1000, NULL);
		task_command(&a->task, COMMAND_LEAVE);
		task_wake(&a->task, NULL);
	}
	if (frame_recv_expect(s->link.control, FRAME_RELEASE, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, NULL) == 0)
		frame_free(&f);
	end_namespace(s);
	for (size_t i = 0; i < s->nprocs; i++) {
		struct pollfd agent = { s->procs[i].agent.pidfd, POLLIN, 0 }, process = { s->unit.procs[i].pidfd, POLLIN, 0 };

		poll(&agent, 1, 5000);
		if (s->home.kind != HOME_STUB || i > 0)
			poll(&process, 1, 5000);
		registry_remove(s->unit.procs[i].pid, NULL);
	}
	if (s->unit.cgroups)
		cgroups_remove(s->unit.cgroups);
	return 0;
}

static const struct step steps[] = {
	{ "hello", step_hello, NULL, false },
	{ "offer", step_offer, undo_offer, false },
	{ "agent", step_agent, undo_agent, false },
	{ "content", step_content, NULL, false },
	{ "prepare", step_prepare, NULL, false },
	{ "rounds", step_rounds, NULL, false },
	{ "freeze", source_freeze, source_thaw, false },
	{ "go", source_go, NULL, false },
	{ "commit", source_commit, NULL, true },
	{ "home", source_home, NULL, true },
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
		return fault_point("source", step->name, s->link.control, e);
	if (s->request->progress && s->request->progress(s->report, s->request->progress_arg))
		return err_set(e, -ECANCELED, "cancelled before the commit; process %d goes on here", s->request->pid);
	if (timeout_ms && clock_ns(CLOCK_MONOTONIC) - s->begin_ns > (uint64_t)timeout_ms * 1000000)
		return err_set(e, -ETIMEDOUT, "not committed within %u ms; process %d goes on here", timeout_ms, s->request->pid);
	return fault_point("source", step->name, s->link.control, e);
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

static void process_free(struct source_process *p)
{
	for (size_t i = 0; i < p->nparked; i++) {
		batch_free(p->parked[i].batch);
		if (p->parked[i].msg)
			gw__thread__free_unpacked(p->parked[i].msg, NULL);
	}
	free(p->parked);
	if (p->process)
		gw__process__free_unpacked(p->process, NULL);
	agent_forget(&p->agent);
	close_fdp(&p->mem_fd);
	for (int i = 0; i < 2; i++)
		free(p->records[i]);
	restart_watch_close(p->watch);
	range_list_free(&p->count.lazy_ranges);
	free(p->late_queue.data);
	run_list_free(&p->hot);
	source_free_ahead(p);
	run_list_free(&p->common);
	run_list_free(&p->go_runs);
	run_list_free(&p->stale);
	vma_list_free(&p->frozen_vmas);
	pages_free(&p->pages);
}

static void source_free(struct source *s)
{
	hold_release();
	source_untrack_shared(s);
	for (size_t i = 0; i < s->nprocs; i++)
		process_free(&s->procs[i]);
	source_home_free(s);
	free(s->procs);
	free(s->go_pages);
	if (s->peer)
		hello_free(&s->peer);
	source_files_free(s);
	source_view_end(s);
	shared_free(&s->shared);
	free(s->news_frame);
	free(s->answers);
	unit_free(&s->unit);
	link_close(&s->link);
}

/* hold: the unit stands still from the beginning. */
static int try_once(const struct migrate_request *request, bool hold, struct migrate_report *report, struct refusals *refusals, bool *ret_committed,
		    struct err *e)
{
	static struct source s;
	int ret;

	s = (struct source){ .request = request, .report = report, .refusals = refusals, .begin_ns = clock_ns(CLOCK_MONOTONIC), .link = LINK_INIT,
			     .unit = UNIT_INIT, .hold = hold, .home = { .mover = -1 }, .export = FILES_EXPORT_INIT };
	report->strategy = request->strategy;
	snprintf(report->from, sizeof(report->from), "%s", request->self_name);
	snprintf(report->to, sizeof(report->to), "%s", request->dest_name);
	identify(&s);
	ret = steps_run(&source_steps, &s, watch_step, ret_committed, e);
	*ret_committed &= !s.backed_out;
	/* Then that is why something failed, or looked as if it could not move. */
	if (ret < 0 && ret != -ECANCELED && !*ret_committed && unit_has_changed(&s.unit)) {
		refusals_free(refusals);
		*refusals = (struct refusals){ 0 };
		ret = -EAGAIN;
	}
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

/* A vfork() is under way: it is over when the child calls exec. */
static bool only_vfork(const struct refusals *r)
{
	for (size_t i = 0; i < r->n; i++)
		if (strncmp(r->v[i].code, "task.shared-memory", strlen("task.shared-memory")) != 0)
			return false;
	return r->n > 0;
}

/*
 * What was read of a running program at different moments may not fit together: a mapping that may be written to, of a file that has been sealed meanwhile. Such
 * a picture fails in one way or another where it is used; another one may be whole. What is wrong all the time fails again.
 */
static bool may_be_torn(int code)
{
	switch (-code) {
	case EPERM:
	case ENOENT:
	case ESRCH:
	case EBADF:
	case EACCES:
	case EFAULT:
	case EEXIST:
	case ENOTDIR:
	case EINVAL:
		return true;
	}
	return false;
}

int migrate_source(const struct migrate_request *request, struct migrate_report *report, struct refusals *refusals, struct err *e)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC), spent;
	bool committed, vfork_runs, torn;
	int torn_tries = 0, ret;

	fault_load();
	limits_raise_descriptors();
	pace_calm(0);
	pace_prepare();
	xstate_layout_here(); /* slow the first time */
	for (int tries = 1;; tries++) {
		ret = try_once(request, tries > TRIES_RUNNING, report, refusals, &committed, e);
		spent = clock_ns(CLOCK_MONOTONIC) - begin;
		vfork_runs = ret < 0 && only_vfork(refusals) && spent < VFORK_NS;
		torn = ret < 0 && !refusals->n && may_be_torn(ret) && torn_tries++ < TORN_TRIES;
		if ((ret != -EAGAIN && ret != -ESTALE && !vfork_runs && !torn) || committed || (tries >= TRIES && !vfork_runs) || spent > AGAIN_NS)
			return ret;
		if (vfork_runs) {
			tries--; /* not one after which the unit is held: who waits in vfork() cannot be stopped */
			refusals_free(refusals);
			*refusals = (struct refusals){ 0 };
			usleep(VFORK_PAUSE_US);
		}
		/* Something changed between the offer and the freeze that the destination had not been told of. */
		log_info("event=again pid=%d text=\"%s\"", request->pid, e->message);
		report->outcome = NULL;
		*e = ERR_INIT;
	}
}
