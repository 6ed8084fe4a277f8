/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_freeze.c - stopping and parking all threads, and capturing what only a stopped process shows
 *
 * Theory of operation: everything that can be done before the stop is (lists of calls are written, files opened). Each thread is seized, stopped, read by ptrace
 * (thread_capture_stopped), and pointed at the stub with its list of calls, which it runs while the worker goes on with mappings and descriptors. The
 * registers in its slot are those with which it goes on here if nothing comes of the move.
 */
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/kcmp.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "image/aio.h"
#include "image/clocks.h"
#include "image/cwd.h"
#include "image/mempolicy.h"
#include "image/ns_mount.h"
#include "image/ns_net.h"
#include "image/ns_other.h"
#include "image/restart.h"
#include "image/seccomp.h"
#include "image/thread_plain.h"
#include "kern/trace.h"
#include "kern/vma_peek.h"
#include "migrate/hold.h"
#include "migrate/pace.h"
#include "migrate/source.h"
#include "migrate/timeline.h"

#define RECORDS_MAX 4096u

static const Gw__Thread *offered_thread(const struct unit_process *u, pid_t tid)
{
	for (size_t i = 0; i < u->nthreads; i++)
		if (u->tids[i] == tid)
			return u->threads[i];
	return NULL;
}

static struct parked *add_parked(struct source_process *p, pid_t tid, struct err *e)
{
	unsigned slots = scratch_header(&p->agent.scratch)->nslots;
	struct parked *t;

	if (p->nparked + 1 >= slots) {
		err_set(e, -EAGAIN, "process %d has made more than %u threads since the offer", p->u->pid, THREADS_SPARE);
		return NULL;
	}
	t = &p->parked[p->nparked++];
	*t = (struct parked){ .tid = tid, .task = { &p->agent.scratch, (unsigned)p->nparked, tid, TASK_FUTEX, -1 } };
	t->batch = batch_new(&t->task);
	return t;
}

static void plan_thread(struct source_process *p, struct parked *t)
{
	const Gw__Thread *offered = offered_thread(p->u, t->tid);

	t->number = offered ? offered->tid : unit_number(p->u, t->tid);
	t->msg = thread_new(t->number);
	thread_capture_plan(t->batch, &t->query, offered);
}

static int plan_main(struct source_process *p, struct batch *b, struct err *e)
{
	int ret = process_capture_plan(b, &p->query, p->u->pid, e);

	if (ret < 0)
		return ret;
	p->brk = mm_capture_plan(b);
	return 0;
}

/* Lists of calls for the threads that are known. */
static int plan(struct source_process *p, struct err *e)
{
	int ret = 0;

	p->parked = calloc(scratch_header(&p->agent.scratch)->nslots, sizeof(*p->parked));
	if (!p->parked)
		return err_sys(e, ENOMEM, "parking threads");
	for (size_t i = 0; i < p->u->nthreads && ret == 0; i++) {
		struct parked *t = add_parked(p, p->u->tids[i], e);

		if (!t)
			return e ? e->code : -EAGAIN;
		if (i == 0)
			ret = plan_main(p, t->batch, e);
		plan_thread(p, t);
	}
	p->process = process_new(p->u->pid);
	source_plain_prepare(p);
	return ret;
}

/* Seizing does not stop a thread, but signals to it do from then on; one that has ended meanwhile is found out later. */
static void seize_known(struct source_process *p)
{
	for (size_t k = 0; k < p->nparked; k++) {
		struct parked *t = &p->parked[k];

		t->stopped = t->interrupted = hold_has(t->tid);
		t->traced = t->stopped || trace_seize(t->tid, 0, NULL) == 0;
		if (t->stopped && hold_signal(t->tid) != SIGTRAP)
			p->stop_signal = hold_signal(t->tid);
		hold_give(t->tid);
	}
}

/* Seizes and stops threads until there is none that is not stopped. Threads that have ended are left out (batch and all). */
static int wait_stops(struct source_process *p, struct err *e)
{
	/* The last one first: while this worker sleeps the others, of which some wait for its CPU, come to their stops, and then need not be waited for. */
	for (size_t k = p->nparked; k-- > 0;) {
		int ret, signal = SIGTRAP;

		if (!p->parked[k].interrupted || p->parked[k].stopped)
			continue;
		ret = trace_try_stop(p->parked[k].tid, &signal, e);
		if (ret < 0)
			return ret;
		if (signal != SIGTRAP)
			p->stop_signal = signal;
		p->parked[k].stopped = true;
	}
	return 0;
}

/* Those that have been seized are stopped before anybody looks who else there is. */
static void interrupt_known(struct source_process *p)
{
	for (size_t k = 0; k < p->nparked; k++)
		p->parked[k].interrupted |= p->parked[k].traced && !p->parked[k].stopped && trace_interrupt(p->parked[k].tid, NULL) == 0;
}

/* near: where it is, mostly. */
static struct parked *find_parked(struct source_process *p, pid_t tid, size_t near)
{
	for (size_t k = 0; k < p->nparked; k++)
		if (p->parked[(near + k) % p->nparked].tid == tid)
			return &p->parked[(near + k) % p->nparked];
	return NULL;
}

/* Stops a thread that has not been told to, of which it is known where to look for it first; 1: told, 0: it has ended. */
static int interrupt_one(struct source_process *p, pid_t tid, size_t near, struct err *e)
{
	struct parked *t = find_parked(p, tid, near);

	if (!t && (t = add_parked(p, tid, e)))
		plan_thread(p, t);
	if (!t)
		return e ? e->code : -EAGAIN;
	if (t->interrupted)
		return 0;
	if ((!t->traced && trace_seize(t->tid, 0, e) < 0) || trace_interrupt(t->tid, e) < 0) {
		if (kill(p->u->pid, 0) == 0 && ((e && e->code == -ESRCH) || syscall(SYS_tgkill, p->u->pid, t->tid, 0) < 0))
			return 0;
		return e ? e->code : -EIO;
	}
	t->traced = t->interrupted = true;
	return 1;
}

static void read_records(struct source *s, int which)
{
	for (size_t i = 0; i < s->nprocs; i++) {
		struct source_process *p = &s->procs[i];
		int n = p->watch ? restart_watch_read(p->watch, p->records[which], RECORDS_MAX, NULL) : 0;

		p->nrecords[which] = n > 0 ? (size_t)n : 0;
	}
}

/* Whether the records have none but threads that are stopped. */
static bool records_show_all(struct source_process *p)
{
	size_t n = p->nrecords[1];

	for (size_t k = 0; k < n; k++) {
		const struct parked *t = k < p->nparked && p->parked[k].tid == (pid_t)p->records[1][k].tid ? &p->parked[k] : find_parked(p, (pid_t)p->records[1][k].tid, k);

		if (!t || !t->stopped)
			return false;
	}
	return n && n < RECORDS_MAX;
}

/* Stops those that are not known. */
static int stop_others(struct source_process *p, struct err *e)
{
	int ret = 0;

	while (ret == 0) {
		cleanup_free pid_t *tids = NULL;
		size_t n, fresh = 0;

		ret = trace_list_threads(p->u->pid, &tids, &n, e);
		for (size_t i = 0; ret >= 0 && i < n; i++) {
			ret = interrupt_one(p, tids[i], i, e);
			fresh += ret > 0;
		}
		if (ret < 0)
			return ret;
		if (!fresh)
			return 0;
		ret = wait_stops(p, e);
	}
	return ret;
}

static int stop_all(struct source *s, struct err *e)
{
	bool others = false;
	int ret = 0;

	for (size_t i = 0; i < s->nprocs; i++)
		interrupt_known(&s->procs[i]);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = wait_stops(&s->procs[i], e);
	if (ret == 0)
		read_records(s, 1);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		others |= !records_show_all(&s->procs[i]);
		if (others)
			ret = stop_others(&s->procs[i], e);
	}
	/* They may have changed what all have in common. */
	if (others)
		read_records(s, 1);
	return ret;
}

/* Registers with which a parked thread goes on here without a tracer. */
static void regs_to_go_on(pid_t tid, const Gw__Thread *msg, const struct restart_now *now, struct user_regs_struct *ret_regs)
{
	memcpy(ret_regs, msg->regs.data, sizeof(*ret_regs));
	if (msg->restart && msg->restart->kind == GW__RESTART__KIND__TIMED_CALL)
		restart_finish_in(tid, ret_regs, msg->restart, now);
	restart_to_call(ret_regs);
}

static void fill_slot(struct slot *slot, const struct user_regs_struct *r, uint64_t mask)
{
	slot->regs = (struct slot_regs){ .r15 = r->r15, .r14 = r->r14, .r13 = r->r13, .r12 = r->r12, .rbp = r->rbp, .rbx = r->rbx, .r11 = r->r11,
					 .r10 = r->r10, .r9 = r->r9, .r8 = r->r8, .rax = r->rax, .rcx = r->rcx, .rdx = r->rdx, .rsi = r->rsi,
					 .rdi = r->rdi, .orig_rax = r->orig_rax, .rip = r->rip, .cs = r->cs, .eflags = r->eflags, .rsp = r->rsp, .ss = r->ss };
	slot->sigmask = mask;
	slot->flags = 0;
}

/* near: where it is, mostly: the kernel lists threads in the order of their birth. */
static const struct restart_record *find_record(const struct source_process *p, int which, pid_t tid, size_t near)
{
	size_t n = p->nrecords[which];

	for (size_t k = 0; k < n; k++) {
		const struct restart_record *r = &p->records[which][(near + k) % n];

		if ((pid_t)r->tid == tid)
			return r;
	}
	return NULL;
}

/* Reads a stopped thread and points it at the stub with its list of calls; it stays stopped. */
static int park(struct source_process *p, struct parked *t, const struct restart_now *now, struct err *e)
{
	const Gw__Clocks *clocks = p->u->process->clocks;
	size_t near = (size_t)(t - p->parked);
	struct restart_context context = { .stopped = p->stop_signal, .pid = p->u->pid, .before = find_record(p, 0, t->tid, near), .after = find_record(p, 1, t->tid, near),
					   .monotonic_offset_ns = clocks->monotonic_offset_ns, .boottime_offset_ns = clocks->boottime_offset_ns };
	struct user_regs_struct regs;
	int ret = source_plain_capture(p, t, e);

	if (ret == 0)
		ret = thread_capture_stopped(t->tid, t->msg, e);
	t->msg->tid = t->number;

	if (ret == -EREMOTE)
		refusals_add(p->s->refusals, "task.seccomp-notify", e->message, "start it without that supervisor", "thread %d (seccomp)", t->tid);
	if (ret >= 0 && t->msg->n_seccomp_filters && !p->held)
		ret = err_set(e, -EAGAIN, "thread %d has got a seccomp filter since the offer", t->tid);
	if (ret < 0)
		return ret;
	memcpy(&regs, t->msg->regs.data, sizeof(regs));
	ret = t->plain ? 0 : rseq_abort_fix(p->u->pid, t->msg, &regs, e);
	if (ret < 0)
		return ret;
	memcpy(t->msg->regs.data, &regs, sizeof(regs));
	ret = restart_capture(t->msg, &context, e);
	if (ret < 0)
		return ret;
	regs_to_go_on(t->tid, t->msg, now, &regs);
	fill_slot(scratch_slot(&p->agent.scratch, t->task.slot), &regs, t->msg->sigmask);
	if (!t->plain)
		batch_prepare(t->batch);
	/* In this order: if this worker died in between, a mask without the stub would stay for good. */
	ret = trace_enter_stub(t->tid, &p->agent.scratch, t->task.slot, &regs, e);
	t->parked = ret == 0;
	return ret < 0 ? ret : trace_set_mask(t->tid, UINT64_MAX, e);
}

/* --- what the running process may have changed since the last round --- */

void source_look_at_descriptors(struct source *s)
{
	struct refusals ignored = { 0 };
	struct err unheard = ERR_INIT;

	fdtable_recapture(&s->unit.fds, false, &s->unit.files, &ignored, &unheard);
	fdtable_release(&s->unit.fds);
	refusals_free(&ignored);
}

/* What the records say of the address space; 0: nothing. */
static uint64_t layout_now(const struct source_process *p, int which)
{
	return p->nrecords[which] ? p->records[which][0].layout : 0;
}

void source_note_layouts(struct source *s)
{
	s->layouts_moved = true;
	read_records(s, 0);
	for (size_t i = 0; i < s->nprocs; i++)
		s->procs[i].compared_layout = layout_now(&s->procs[i], 0);
}

static bool have_layouts_moved(const struct source *s)
{
	for (size_t i = 0; i < s->nprocs; i++)
		if (!s->procs[i].compared_layout || layout_now(&s->procs[i], 1) != s->procs[i].compared_layout)
			return true;
	return false;
}

/*
 * Whether the mappings are those that the rehearsal has seen, and found unchanged: nobody has changed any since (the kernel counts), or what was changed is as it was.
 * which: the records read last.
 */
static bool is_as_rehearsed(const struct source_process *p, int which)
{
	struct vma_digest now;

	if (p->rehearsed_layout && layout_now(p, which) == p->rehearsed_layout)
		return true;
	return p->rehearsed_digest.count && vma_peek_digest(p->u->pid, &now, NULL) == 0 && !memcmp(&now, &p->rehearsed_digest, sizeof(now));
}

/* Nothing is compared when no change has been possible since the rehearsal found none. */
static int compare_layout(struct source_process *p, struct err *e)
{
	struct source *s = p->s;
	int ret;

	p->layout_changed = false;
	if (p->u->guest || (is_as_rehearsed(p, 1) && (!p->guarded || vma_guards_same(p->u->pid, &p->u->vmas, &p->guarded))))
		return 0;
	timeline_mark("layout has changed since the rehearsal");
	ret = vma_list_reread(p->u->pid, &p->u->vmas, false, &s->unit.files, s->refusals, &p->frozen_vmas, &p->layout_changed, e);
	if (ret == 0 && s->refusals->n)
		ret = refusals_begun(s->refusals, p->u->pid, e);
	return ret;
}

static int tell_files(struct source *s, struct err *e)
{
	cleanup_free const struct vma_list **now = calloc(s->nprocs, sizeof(*now));

	if (!now)
		return err_sys(e, ENOMEM, "layouts");
	for (size_t i = 0; i < s->nprocs; i++)
		now[i] = source_layout(&s->procs[i]);
	s->layouts_moved = have_layouts_moved(s);
	return source_files_frozen(s, &(struct layouts){ now, s->nprocs }, e);
}

/* Until there is no connection with others over which something may still come. */
static int capture_descriptors(struct source *s, struct err *e)
{
	int ret = fdtable_recapture(&s->unit.fds, true, &s->unit.files, s->refusals, e);

	while (ret == 0 && !s->refusals->n && (ret = source_net_add(s, e)) > 0)
		ret = fdtable_recapture(&s->unit.fds, true, &s->unit.files, s->refusals, e);
	return ret == 0 ? source_address_check(s, e) : ret;
}

/* Its list of calls has been run, or runs: this one comes behind it. A thread that has none is a tracee, and can make no call. */
static int enter_uring(void *arg, pid_t tid, unsigned fd, struct err *e)
{
	struct parked *t = find_parked(arg, tid, 0);
	struct batch *b;
	int ret;

	if (!t || t->plain)
		return err_set(e, -EAGAIN, "thread %d, which uses an io_uring, is not parked", tid);
	ret = task_wait(&t->task, 5000, e);
	if (ret < 0)
		return ret;
	b = batch_new(&t->task);
	batch_try(b, "io_uring_enter", SYS_io_uring_enter, fd, 0, 0, IORING_ENTER_GETEVENTS, 0, 0);
	ret = batch_run(b, e);
	batch_free(b);
	return ret;
}

static int capture_urings(struct source_process *p, struct err *e)
{
	const Gw__Clocks *clocks = p->u->process->clocks;
	const struct uring_enter enter = { enter_uring, p, { clocks->monotonic_offset_ns, clocks->boottime_offset_ns } };

	return p->u->guest ? 0 : uring_recapture(p->u->pid, p->u->pidfd, source_layout(p), p->u->urings, &enter, p->process, e);
}

static bool have_pinned(const struct source *s)
{
	for (size_t i = 0; i < s->nprocs; i++)
		if (uring_pinned_bytes(s->procs[i].process))
			return true;
	return false;
}

static int compare(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = compare_layout(&s->procs[i], e);
	/* What is in flight writes memory and files. */
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = aio_capture(s->procs[i].u->pid, source_layout(&s->procs[i]), s->procs[i].process, e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = capture_urings(&s->procs[i], e);
	if (ret == 0)
		ret = capture_descriptors(s, e);
	for (uint32_t i = 0; i < s->nprocs && ret == 0; i++)
		uring_refuse_relayed(s->unit.fds.msg, i, s->procs[i].process, s->refusals);
	if (ret == 0 && s->refusals->n)
		ret = refusals_begun(s->refusals, s->request->pid, e);
	if (ret == 0 && !s->direct_io && (fdtable_has_direct_io(s->unit.fds.msg) || have_pinned(s)))
		ret = err_set(e, -EAGAIN, "process %d has begun direct I/O since the offer", s->request->pid);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = uring_recheck(s->procs[i].u->pid, s->procs[i].u->urings, e);
	if (ret == 0 && fdtable_has_moved_rings(&s->unit.fds))
		ret = err_set(e, -EAGAIN, "process %d has other io_urings than at the offer", s->request->pid);
	if (ret == 0 && s->unit.ns)
		ret = ns_entries_check(s->unit.ns, &s->unit.files, e);
	if (ret == 0 && s->unit.ns)
		ret = ns_nets_freeze(s->unit.ns, e);
	if (ret == 0)
		ret = source_home_check(s, e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (s->procs[i].layout_changed)
			vma_list_apply_answers(&s->procs[i].frozen_vmas, s->answers, s->nanswers);
	return ret < 0 ? ret : tell_files(s, e);
}

/* Processes that were made, have ended or been waited for since the offer: the next attempt offers the unit as it is then. */
static int check_tree(struct source *s, struct err *e)
{
	bool idle = tree_watch_idle(s->unit.watch);
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && !idle; i++) {
		uint32_t at = tree_find_host(&s->unit.tree, s->procs[i].u->pid);

		for (size_t k = 0; k < s->procs[i].nparked && ret == 0; k++)
			ret = tree_watch_thread(s->unit.watch, at, k, s->procs[i].parked[k].tid, e);
	}
	if (ret == 0)
		ret = tree_watch_changed(s->unit.watch, e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (s->unit.procs[i].guest && syscall(SYS_kcmp, s->unit.procs[s->unit.procs[i].host].pid, s->unit.procs[i].pid, KCMP_VM, 0, 0) != 0)
			return err_set(e, -EAGAIN, "process %d has called exec since the offer", s->unit.procs[i].pid);
	return ret > 0 ? err_set(e, -EAGAIN, "process %d has other descendants than at the offer", s->request->pid) : ret;
}

static void drop_entry(struct parked *t)
{
	gw__thread__free_unpacked(t->msg, NULL);
	batch_free(t->batch);
}

/* Drops the entries of threads that ended between the offer and the stop. Batches point at the task inside of an entry: what moves is planned anew. */
static void drop_ended(struct source_process *p)
{
	size_t kept = 0;

	for (size_t i = 0; i < p->nparked; i++) {
		struct parked *from = &p->parked[i], *to = &p->parked[kept];

		if (!from->interrupted) {
			drop_entry(from);
			continue;
		}
		if (kept++ == i)
			continue;
		drop_entry(from);
		*to = *from;
		to->batch = batch_new(&to->task);
		plan_thread(p, to);
	}
	p->nparked = kept;
}

/* Whatever happens: those that are parked run the stub, the others are let go as they are (source_thaw). */
static int park_process(struct source_process *p, struct err *e)
{
	const Gw__Clocks *clocks = p->u->process->clocks;
	const struct restart_now now = restart_now_read(clocks->monotonic_offset_ns, clocks->boottime_offset_ns);
	int ret = signal_peek(p->u->pid, true, &p->process->pending, e);

	p->query.pending_taken = true;
	p->peeked = p->process->pending.len;
	p->held = p->stop_signal || seccomp_in_use(p->u->threads, p->u->nthreads);
	/* One that has been told to continue meanwhile has that signal pending. */
	if (p->stop_signal && !(signal_set_of(&p->process->pending) & SIGNAL_BIT(SIGCONT)))
		p->process->stopped_by = (uint32_t)p->stop_signal;
	for (size_t i = 0; i < p->nparked && ret == 0; i++) {
		ret = park(p, &p->parked[i], &now, e);
		if (p->parked[i].plain)
			continue;
		if (ret == 0)
			ret = p->held ? source_held_go(p, &p->parked[i], e) : trace_detach(p->parked[i].tid, e);
		if (ret == 0)
			p->parked[i].traced = p->held;
	}
	return ret;
}

int source_note_namespaces(struct source_process *p, struct err *e)
{
	int n = p->watch ? restart_watch_read(p->watch, p->records[0], RECORDS_MAX, NULL) : 0;
	const struct restart_record *r = n > 0 ? restart_record_find(p->records[0], (size_t)n, p->u->pid) : NULL;

	p->namespaces = r ? r->namespaces : 0;
	return ns_others_same(p->u->pid, p->u->pid, p->u->process) ? 0 : err_set(e, -EAGAIN, "process %d is in another namespace than at the offer", p->u->pid);
}

static int check_namespaces(const struct source_process *p, struct err *e)
{
	bool known = p->namespaces && p->nrecords[1];

	for (size_t i = 0; i < (known ? p->nrecords[1] : 1); i++) {
		const struct restart_record *r = &p->records[1][i];
		pid_t tid = known ? (pid_t)r->tid : p->u->pid;

		if (known && r->namespaces == p->namespaces)
			continue;
		if (!ns_others_same(p->u->pid, tid, p->u->process))
			return err_set(e, -EAGAIN, "thread %d is in another namespace than its process was at the offer", tid);
	}
	return 0;
}

static int stop_and_park(struct source *s, struct err *e)
{
	int ret;

	read_records(s, 0);
	for (size_t i = 0; i < s->nprocs; i++)
		if (s->procs[i].watch)
			restart_watch_ready(s->procs[i].watch);
	pace_warm();
	if (!s->hold)
		s->stopped_ns = clock_ns(CLOCK_REALTIME);
	ret = stop_all(s, e);
	timeline_mark("stopped");
	if (ret == 0)
		source_net_park(s);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = source_begin_beside(&s->procs[i], e);
	if (ret == 0)
		ret = check_tree(s, e);
	if (ret < 0)
		return ret;
	for (size_t i = 0; i < s->nprocs; i++)
		drop_ended(&s->procs[i]);
	for (size_t i = 0; i < s->nprocs; i++)
		source_plain_read(&s->procs[i]);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = check_namespaces(&s->procs[i], e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = park_process(&s->procs[i], e);
	return ret;
}

/* More than there was room for, groups for example: the thread is asked again, beside its list, whose answers about the process are still to be read. */
static int ask_thread_again(struct source_process *p, struct parked *t, bool is_main, struct err *e)
{
	struct batch *b = batch_new(&t->task);
	int ret;

	thread_capture_plan(b, &t->query, NULL);
	ret = batch_run(b, e);
	if (ret == 0)
		ret = thread_capture_collect(&t->query, t->msg, &p->process->pending, is_main, e);
	batch_free(b);
	return ret;
}

static int collect_thread(struct source_process *p, struct parked *t, bool is_main, struct err *e)
{
	int ret = t->plain ? 0 : batch_finish(t->batch, e);

	if (t->plain) {
		thread_complete_plain(p->parked[0].msg, t->msg);
		return 0;
	}
	if (ret == 0)
		ret = thread_capture_collect(&t->query, t->msg, &p->process->pending, is_main, e);
	return ret == -EAGAIN ? ask_thread_again(p, t, is_main, e) : ret;
}

/* /proc shows the numbers of the pid namespace that it is of: godwitd's. */
static void use_inner_numbers(struct source_process *p)
{
	p->process->pid = p->u->number;
	for (size_t i = 0; i < p->process->n_timers; i++) {
		Gw__PosixTimer *t = p->process->timers[i];

		if (t->notify_tid > 0)
			t->notify_tid = p->u->elsewhere ? ns_seen(t->notify_tid) : t->notify_tid; /* as the process sees it */
	}
}

static int collect(struct source_process *p, struct err *e)
{
	int ret = 0;

	/* The last one first, as in wait_stops. What comes of it is seen below. */
	if (p->nparked > 1)
		task_wait(&p->parked[p->nparked - 1].task, 60000, NULL);
	for (size_t i = 0; i < p->nparked && ret == 0; i++) {
		ret = collect_thread(p, &p->parked[i], i == 0, e);
		if (ret == 0 && i == 0) {
			mm_capture_collect(&p->u->mm, p->brk);
			ret = process_capture_collect(&p->query, p->process, e);
			mempolicy_keep(p->u->process, source_layout(p), p->process);
			use_inner_numbers(p);
			if (ret == 0 && p->process->loginuid_plus_1 != p->u->process->loginuid_plus_1)
				ret = err_set(e, -EAGAIN, "process %d has changed its login id since the offer", p->u->pid);
		}
	}
	return ret;
}

#define DIGEST_ATTEMPTS 16 /* the program may change its mappings at that moment */

static struct vma_digest digest_of(pid_t pid)
{
	struct vma_digest d = { 0 };
	int ret = -EAGAIN;

	for (int i = 0; i < DIGEST_ATTEMPTS && ret == -EAGAIN; i++)
		ret = vma_peek_digest(pid, &d, NULL);
	return d;
}

/* Compares the layouts, unless they have not changed since this was done before. */
static void rehearse_layouts(struct source *s)
{
	struct refusals ignored = { 0 };
	struct err unheard = ERR_INIT;

	read_records(s, 0);
	for (size_t i = 0; i < s->nprocs; i++) {
		struct unit_process *u = &s->unit.procs[i];
		uint64_t layout = layout_now(&s->procs[i], 0);
		struct vma_digest digest;
		struct vma_list vmas = { 0 };
		bool changed = true;
		int ret;

		if (u->guest)
			continue;
		if (vma_guards_same(u->pid, &u->vmas, &s->procs[i].guarded) && is_as_rehearsed(&s->procs[i], 0)) {
			s->procs[i].rehearsed_layout = layout;
			continue;
		}
		digest = digest_of(u->pid);
		ret = vma_list_reread(u->pid, &u->vmas, false, &s->unit.files, &ignored, &vmas, &changed, &unheard);
		s->procs[i].rehearsed_layout = ret == 0 && !changed ? layout : 0;
		s->procs[i].rehearsed_digest = ret == 0 && !changed ? digest : (struct vma_digest){ 0 };
		vma_list_free(&vmas);
	}
	for (size_t i = 0; i < s->nprocs; i++)
		vma_peek_ready(s->unit.procs[i].pid);
	refusals_free(&ignored);
}

/* What /proc says of the process; the records are those of rehearse_layouts. And a scan that changes nothing. */
static void rehearse_look(struct source_process *p)
{
	const struct restart_record *r = find_record(p, 0, p->u->pid, 0);
	struct run_list ignored = { 0 };
	struct err unheard = ERR_INIT;

	p->seen = (struct process_look){ 0 };
	if (r && process_capture_look(&p->query, p->process, &unheard) == 0 && process_is_as_seen(&p->query, p->process, &r->look))
		p->seen = r->look;
	if (!p->pages.forgotten.n)
		pages_stale(&p->pages, PAGES_EAGER, &ignored, &unheard);
	run_list_free(&ignored);
}

/* mlockall(2) may have been called since the agent came. */
static int check_locking(const struct source_process *p, const struct restart_record *r, struct err *e)
{
	uint32_t now = r && r->new_mappings & vma_peek_bit(VMA_PEEK_LOCKED) ? MCL_FUTURE : 0;

	if (!r || !vma_peek_bit(VMA_PEEK_LOCKED) || p->u->guest)
		return 0;
	if (now && r->new_mappings & vma_peek_bit(VMA_PEEK_LOCKONFAULT))
		now |= MCL_ONFAULT;
	return now == p->agent.mlock_future ? 0 : err_set(e, -EAGAIN, "process %d has called mlockall or munlockall since the offer", p->u->pid);
}

/* Where nothing of it can have changed since, nothing is looked at. */
static int look(struct source_process *p, struct err *e)
{
	const struct restart_record *r = find_record(p, 1, p->u->pid, 0);
	int rc;

	if (check_locking(p, r, e) < 0)
		return -EAGAIN;
	if (p->seen.known && r && !memcmp(&r->look, &p->seen, sizeof(p->seen)) && !p->process->stopped_by)
		return 0;
	rc = process_capture_look(&p->query, p->process, e);
	if (rc < 0)
		return rc;
	return cwd_is_reached(p->u->pid, p->process) ? 0 : err_set(e, -EAGAIN, "process %d is in a directory that no path leads to", p->u->pid);
}

void source_rehearse(struct source *s, bool again)
{
	rehearse_layouts(s);
	for (size_t i = 0; i < s->nprocs && again; i++)
		rehearse_look(&s->procs[i]);
	if (again)
		return;
	source_look_at_descriptors(s);
	read_records(s, 0);
}

static int plan_all(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = plan(&s->procs[i], e);
	return ret;
}

static int collect_sysv(struct source *s, struct err *e)
{
	cleanup_free Gw__Process **msgs = calloc(s->nprocs, sizeof(*msgs));

	if (!msgs)
		return err_sys(e, ENOMEM, "System V objects");
	for (size_t i = 0; i < s->nprocs; i++)
		msgs[i] = s->procs[i].process;
	return sysv_recapture(s->unit.sysv, s->procs[0].u->process, msgs, e);
}

static int collect_all(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = collect(&s->procs[i], e);
	return ret < 0 ? ret : collect_sysv(s, e);
}

static size_t count_threads(const struct source *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->nprocs; i++)
		n += s->procs[i].nparked;
	return n;
}

/*
 * All that the freeze needs is planned and touched, then the working set is looked for and goes ahead: the less time passes from there to the stop, the less differs, and the more of it is in
 * this CPU's cache.
 */
static int get_ready(struct source *s, struct err *e)
{
	int ret = plan_all(s, e);

	timeline_mark("planned");
	link_make_patient(&s->link);
	pace_warm_prepare(true);
	pace_prepare_for(count_threads(s));
	pace_touch();
	timeline_mark("touched");
	if (ret == 0 && s->post_copy && s->strategy != STRATEGY_HYBRID)
		ret = source_find_working_set(s, e);
	timeline_mark("working set found");
	if (ret == 0 && !s->direct_io)
		ret = source_send_ahead(s, e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = source_plan_beside(&s->procs[i], e);
	timeline_mark("working set sent ahead");
	if (ret == 0)
		ret = source_home_hold(s, e);
	if (ret == 0)
		ret = source_net_tell_ahead(s, s->link.go, e);
	if (ret == 0)
		source_rehearse(s, true);
	return ret;
}

int source_freeze(void *context, struct err *e)
{
	struct source *s = context;
	int ret;

	ret = source_net_depart(s, e);
	if (ret == 0)
		ret = get_ready(s, e);
	if (ret == 0)
		source_net_hold(s);
	if (ret == 0)
		ret = source_address_hold(s, e);
	timeline_mark("ready");
	pace_remember(s->procs[0].u->pid);
	for (size_t i = 0; i < s->nprocs; i++)
		if (s->procs[i].beside.b)
			pace_apart(s->procs[i].agent.pid, &s->procs[i].beside.cpus);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		seize_known(&s->procs[i]);
	timeline_mark("seized");
	pace_rule();
	if (ret == 0)
		ret = stop_and_park(s, e);
	timeline_mark("parked");
	if (ret == 0)
		ret = compare(s, e);
	timeline_mark("layout and descriptors compared");
	/* The threads run their lists meanwhile. */
	if (ret == 0)
		ret = source_choose_pages(s, e);
	timeline_mark("pages chosen");
	if (ret == 0)
		ret = source_read_pages(s, e);
	timeline_mark("pages read");
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		ret = look(&s->procs[i], e);
		if (ret == 0 && strcmp(s->procs[i].process->root, s->procs[i].u->process->root) != 0)
			ret = err_set(e, -EAGAIN, "process %d has called chroot since the offer", s->procs[i].u->pid);
		if (ret == 0 && cwd_is_news(s->procs[i].u->process, s->procs[i].process))
			ret = err_set(e, -EAGAIN, "process %d: its working directory was removed since the offer", s->procs[i].u->pid);
	}
	timeline_mark("processes seen");
	ret = ret < 0 ? ret : collect_all(s, e);
	timeline_mark("collected");
	return ret;
}

static void retake_locks(struct source_process *p)
{
	struct batch *b = p->nparked ? p->parked[0].batch : NULL;

	if (!p->locks_released || !b)
		return;
	batch_reset(b);
	fdtable_plan_retake_locks(&p->s->unit.fds, (uint32_t)(p - p->s->procs), b);
	if (batch_run(b, NULL) < 0)
		log_error("event=locks-lost pid=%d", p->u->pid);
}

static void thaw_process(struct source_process *p)
{
	for (size_t i = 0; i < p->nparked; i++) {
		struct parked *t = &p->parked[i];

		if (t->parked && t->plain) {
			source_plain_thaw(p, t);
		} else if (t->parked && t->task.wake == TASK_HELD) {
			source_held_thaw(p, t);
		} else if (t->parked) {
			if (t->traced)
				trace_detach(t->tid, NULL);
			task_wait(&t->task, 5000, NULL);
			task_run(&t->task, COMMAND_RESTORE, 5000, NULL);
		} else if (t->traced && t->stopped) {
			trace_detach(t->tid, NULL);
		}
	}
	process_query_close(&p->query);
}

/*
 * Threads that have been seized and not stopped: only a stopped one can be let go. When all that were stopped go on, since one that waits in vfork(2) stops
 * when its child has called exec.
 */
static void let_seized_go(struct source_process *p)
{
	for (size_t i = 0; i < p->nparked; i++) {
		struct parked *t = &p->parked[i];
		int ignored;

		if (!t->traced || t->parked || t->stopped)
			continue;
		if (t->interrupted || trace_interrupt(t->tid, NULL) == 0)
			trace_try_stop(t->tid, &ignored, NULL);
		trace_detach(t->tid, NULL);
	}
}

/* Lets everything go on here. */
void source_thaw(void *context)
{
	struct source *s = context;

	pace_cool();
	for (size_t i = 0; i < s->nprocs; i++)
		pace_together(s->procs[i].agent.pid, &s->procs[i].beside.cpus);
	source_net_stay(s);
	if (s->unit.ns)
		ns_nets_thaw(s->unit.ns);
	for (size_t i = 0; i < s->nprocs; i++)
		source_held_again(&s->procs[i]);
	for (size_t i = 0; i < s->nprocs; i++)
		retake_locks(&s->procs[i]);
	fdtable_release(&s->unit.fds);
	for (size_t i = 0; i < s->nprocs; i++)
		thaw_process(&s->procs[i]);
	for (size_t i = 0; i < s->nprocs; i++)
		let_seized_go(&s->procs[i]);
	source_home_stay(s);
}
