/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_park.c - stopping and parking all threads, and letting them go on
 *
 * Theory of operation: each thread is seized, stopped, read by ptrace (thread_capture_stopped), and pointed at the stub with its list of calls, which it runs while the worker goes on
 * with mappings and descriptors. The registers in its slot are those with which it goes on here if nothing comes of the move.
 */
#include <errno.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/util.h"
#include "image/clocks.h"
#include "image/ns_net.h"
#include "image/ns_other.h"
#include "image/restart.h"
#include "image/seccomp.h"
#include "image/thread_fs.h"
#include "image/thread_plain.h"
#include "kern/trace.h"
#include "migrate/borrow.h"
#include "migrate/hold.h"
#include "migrate/pace.h"
#include "migrate/source.h"
#include "migrate/timeline.h"

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

int source_plan_parking(struct source_process *p, struct err *e)
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

/* The main thread last: once that one is traced, signals to the process that nothing follows end calls of the others, which only the tracer can mend (partial.h). */
void source_seize(struct source_process *p)
{
	for (size_t k = p->nparked; k-- > 0;) {
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

struct parked *source_find_parked(struct source_process *p, pid_t tid, size_t near)
{
	for (size_t k = 0; k < p->nparked; k++)
		if (p->parked[(near + k) % p->nparked].tid == tid)
			return &p->parked[(near + k) % p->nparked];
	return NULL;
}

/* Stops a thread that has not been told to, of which it is known where to look for it first; 1: told, 0: it has ended. */
static int interrupt_one(struct source_process *p, pid_t tid, size_t near, struct err *e)
{
	struct parked *t = source_find_parked(p, tid, near);

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

void source_read_process_records(struct source_process *p, int which)
{
	int n = p->watch ? restart_watch_read(p->watch, p->records[which], p->records_room, NULL) : 0;

	p->nrecords[which] = n > 0 ? (size_t)n : 0;
}

void source_read_records(struct source *s, int which)
{
	for (size_t i = 0; i < s->nprocs; i++)
		source_read_process_records(&s->procs[i], which);
}

/* Whether the records have none but threads that are stopped. */
static bool records_show_all(struct source_process *p)
{
	size_t n = p->nrecords[1];

	for (size_t k = 0; k < n; k++) {
		const struct parked *t = k < p->nparked && p->parked[k].tid == (pid_t)p->records[1][k].tid ? &p->parked[k] : source_find_parked(p, (pid_t)p->records[1][k].tid, k);

		if (!t || !t->stopped)
			return false;
	}
	return n && n < p->records_room;
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
		source_read_records(s, 1);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		others |= !records_show_all(&s->procs[i]);
		if (others)
			ret = stop_others(&s->procs[i], e);
	}
	/* They may have changed what all have in common. */
	if (others)
		source_read_records(s, 1);
	return ret;
}

/* Registers with which a parked thread goes on here without a tracer. */
static void regs_to_go_on(pid_t tid, const Gw__Thread *msg, const struct restart_now *now, struct user_regs_struct *ret_regs)
{
	memcpy(ret_regs, msg->regs.data, sizeof(*ret_regs));
	if (restart_is_unfinished(msg->restart))
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

const struct restart_record *source_find_record(const struct source_process *p, int which, pid_t tid, size_t near)
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
	struct restart_context context = { .stopped = p->stop_signal, .tid = t->tid, .pid = p->u->pid, .before = source_find_record(p, 0, t->tid, near), .after = source_find_record(p, 1, t->tid, near),
					   .monotonic_offset_ns = clocks->monotonic_offset_ns, .boottime_offset_ns = clocks->boottime_offset_ns };
	struct user_regs_struct regs;
	int ret = source_plain_capture(p, t, e);

	if (ret == 0)
		ret = thread_capture_stopped(t->tid, t->msg, e);
	if (ret == 0)
		ret = thread_fs_capture(p->u->pid, t->tid, t->msg, e);
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
		for (size_t k = 1; k < i && ret == 0 && p->parked[i].msg->own_fs; k++)
			ret = thread_fs_check(p->parked[i].tid, p->parked[i].msg, p->parked[k].tid, p->parked[k].msg, e);
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
	const struct restart_record *r;

	source_read_process_records(p, 0);
	r = source_find_record(p, 0, p->u->pid, 0);
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

int source_stop_and_park(struct source *s, struct err *e)
{
	int ret;

	source_read_records(s, 0);
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

/* All are told before any is waited for. */
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
			task_command(&t->task, COMMAND_RESTORE);
			task_wake(&t->task, NULL);
		} else if (t->traced && t->stopped) {
			borrow_let_go(p->u->pid, t->tid, p->stop_signal ? p->stop_signal : SIGTRAP);
		}
	}
	for (size_t i = 0; i < p->nparked; i++)
		if (p->parked[i].parked && !p->parked[i].plain && p->parked[i].task.wake != TASK_HELD)
			task_wait(&p->parked[i].task, 5000, NULL);
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
		int signal = SIGTRAP;

		if (!t->traced || t->parked || t->stopped)
			continue;
		if (t->interrupted || trace_interrupt(t->tid, NULL) == 0)
			trace_try_stop(t->tid, &signal, NULL);
		borrow_let_go(p->u->pid, t->tid, signal);
	}
}

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
