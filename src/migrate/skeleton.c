/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton.c - the destination's process before it runs; see skeleton.h
 *
 * Theory of operation: a blank process (skeleton_start.c, skeleton_fork.c) is given the scratch by one mmap that the worker drives, and pointed at the stub.
 * From then on the main thread runs lists of calls and rests in a ptrace stop. Threads are cloned by the main thread; the kernel reports each new task to the tracer, and
 * it is a tracee with the same options from its birth.
 */
#include "migrate/skeleton.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "home/parent.h"
#include "kern/fdpass.h"
#include "image/partial.h"
#include "kern/trace.h"
#include "migrate/skeleton_internal.h"

/* Lets a task that has just been pointed at the stub run until its first rest. */
int skeleton_first_rest(pid_t tid, struct err *e)
{
	for (;;) {
		int status;

		if (ptrace(PTRACE_CONT, tid, 0, 0) < 0 || waitpid(tid, &status, __WALL) < 0)
			return err_sys(e, errno, "task %d: starting", tid);
		if (!WIFSTOPPED(status))
			return err_set(e, -ECHILD, "task %d ended early", tid);
		if (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP)
			return 0;
		if (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGILL)
			return err_set(e, -EFAULT, "task %d: signal %d in the stub", tid, WSTOPSIG(status));
	}
}

int skeleton_add_entry(struct skeleton *s, pid_t tid, pid_t outer, unsigned slot, struct err *e)
{
	struct skeleton_thread **grown = realloc(s->threads, (s->nthreads + 1) * sizeof(*grown));
	struct skeleton_thread *t = grown ? calloc(1, sizeof(*t)) : NULL;

	if (grown)
		s->threads = grown;
	if (!t)
		return err_sys(e, ENOMEM, "threads of the skeleton");
	*t = (struct skeleton_thread){ .tid = tid, .task = { .scratch = &s->agent.scratch, .slot = slot, .tid = outer, .wake = TASK_PTRACE, .bell_fd = -1 } };
	t->batch = batch_new(&t->task);
	s->threads[s->nthreads++] = t;
	return 0;
}

int skeleton_take_slot(const struct scratch *scratch, unsigned *ret_slot, struct err *e)
{
	for (unsigned i = 1; i < scratch_header(scratch)->nslots; i++) {
		struct slot *slot = scratch_slot(scratch, i);

		if (slot->flags)
			continue;
		*slot = (struct slot){ .flags = SLOT_TRAP };
		*ret_slot = i;
		return 0;
	}
	return err_set(e, -E2BIG, "more threads than slots");
}

int skeleton_hold_on(struct skeleton *s, struct err *e)
{
	char path[64];

	s->pidfd = pidfd_open_process(s->pid, e);
	if (s->pidfd < 0)
		return s->pidfd;
	snprintf(path, sizeof(path), "/proc/%d/mem", s->pid);
	s->mem_fd = open(path, O_RDWR | O_CLOEXEC);
	return s->mem_fd < 0 ? err_sys(e, errno, "%s", path) : 0;
}

int skeleton_enter(struct skeleton *s, pid_t number, uint64_t base, int memfd, struct err *e)
{
	const struct scratch *scratch = &s->agent.scratch;
	struct user_regs_struct regs;
	unsigned slot;
	int64_t at;
	int ret = trace_get_regs(s->pid, &regs, e);

	if (ret == 0)
		ret = trace_set_mask(s->pid, UINT64_MAX, e);
	if (ret == 0)
		ret = trace_syscall(s->pid, s->agent.gadget, &regs, (const uint64_t[7]){ SYS_mmap, base, scratch->size, PROT_READ | PROT_WRITE | PROT_EXEC,
				    MAP_SHARED | MAP_FIXED_NOREPLACE, (uint64_t)memfd, 0 }, &at, e);
	if (ret == 0 && at != (int64_t)base)
		ret = err_sys(e, (int)at, "mapping the scratch at %#" PRIx64, base);
	if (ret < 0)
		return ret;
	scratch_set_base(&s->agent.scratch, base);
	ret = skeleton_take_slot(scratch, &slot, e);
	if (ret == 0)
		ret = trace_enter_stub(s->pid, scratch, slot, &regs, e);
	if (ret == 0)
		ret = skeleton_first_rest(s->pid, e);
	if (ret == 0)
		ret = skeleton_add_entry(s, number, s->pid, slot, e);
	if (ret < 0)
		return ret;
	batch_call(s->threads[0]->batch, "madvise", SYS_madvise, base, scratch->size, MADV_DONTFORK);
	batch_call(s->threads[0]->batch, "close", SYS_close, (uint64_t)memfd);
	ret = batch_run(s->threads[0]->batch, e);
	batch_reset(s->threads[0]->batch);
	return ret;
}

int64_t skeleton_spawn(struct task *by, struct batch *b, uint64_t nr, const uint64_t arg[6], unsigned slot, pid_t *ret_outer, struct err *e)
{
	struct slot *own = scratch_slot(by->scratch, by->slot);
	struct remote_call *call = batch_space(b, sizeof(*call), &own->list);
	int ret;

	call->nr = nr;
	memcpy(call->arg, arg, sizeof(call->arg));
	own->ncalls = 1;
	own->spawn_slot = scratch_slot_address(by->scratch, slot);
	by->event = 0;
	ret = task_run(by, COMMAND_SPAWN, 10000, e);
	batch_reset(b);
	if (ret < 0 || own->result < 0)
		return ret < 0 ? ret : own->result;
	if (!by->event)
		return err_set(e, -ESRCH, "the kernel did not report a new task");
	*ret_outer = (pid_t)by->event;
	ret = trace_wait_stop(*ret_outer, e);
	return ret < 0 ? ret : own->result;
}

int skeleton_create(struct skeleton *s, pid_t pid, bool own_namespace, uint64_t base, unsigned threads, size_t arena_bytes, struct err *e)
{
	const struct skeleton_terms terms = { base, threads, arena_bytes };
	int ret = skeleton_start(s, pid, own_namespace, &terms, e);

	return ret < 0 ? ret : skeleton_make_agent(s, false, e);
}

static int64_t clone_thread(struct skeleton *s, const pid_t *numbers, size_t n, unsigned slot, pid_t *ret_outer, struct err *e)
{
	const struct scratch *scratch = &s->agent.scratch;
	struct batch *b = s->threads[0]->batch;
	struct clone_args *args;
	uint64_t at;

	args = batch_space(b, sizeof(*args), &at);
	*args = (struct clone_args){ .flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
				     .stack = scratch_slot_address(scratch, slot) + SLOT_STACK, .stack_size = SLOT_STACK_BYTES };
	if (n) {
		args->set_tid = batch_data(b, numbers, n * sizeof(*numbers));
		args->set_tid_size = n;
	}
	return skeleton_spawn(&s->threads[0]->task, b, SYS_clone3, (const uint64_t[6]){ at, sizeof(*args) }, slot, ret_outer, e);
}

static int add_with(struct skeleton *s, pid_t tid, const pid_t *numbers, size_t n, pid_t *ret_outer, struct err *e)
{
	unsigned slot;
	int64_t made;
	int ret = skeleton_take_slot(&s->agent.scratch, &slot, e);

	if (ret < 0)
		return ret;
	made = clone_thread(s, numbers, n, slot, ret_outer, e);
	if (made < 0)
		return err_sys(e, (int)made, "creating thread %d", tid);
	ret = skeleton_first_rest(*ret_outer, e);
	return ret < 0 ? ret : skeleton_add_entry(s, tid, *ret_outer, slot, e);
}

int skeleton_add_thread(struct skeleton *s, pid_t tid, struct err *e)
{
	cleanup_close int ns = -1;
	pid_t numbers[TREE_LEVELS_MAX + 1], outer = 0;
	size_t n, chosen;
	int ret;

	if (skeleton_find_thread(s, tid)) /* one that had to fork (skeleton_fork.c) */
		return 0;
	n = s->tree ? tree_set_tid(s->tree, s->namespaces[NS_PID], tid, numbers) : 0;
	if (s->namespaces[NS_PID] && n <= 1)
		return err_set(e, -EAGAIN, "thread %d has come since the offer, in a pid namespace of a part of the unit", tid);
	if (!n)
		numbers[n++] = tid;
	if (!s->namespaces[NS_USER])
		return add_with(s, tid, numbers, n, &outer, e);
	ns = ns_open(s->pid, NS_PID);
	if (ns < 0)
		return err_sys(e, errno, "the pid namespace of process %d", s->pid);
	chosen = skeleton_numbers_chosen(s, ns, false, n);
	for (int tries = 0; tries < SKELETON_NUMBER_TRIES; tries++) {
		ret = skeleton_lead_to(ns, false, numbers, chosen, n, e);
		if (ret == 0)
			ret = add_with(s, tid, numbers, chosen, &outer, e);
		skeleton_lead_back();
		if (ret < 0 || skeleton_has_numbers(outer, numbers, n))
			return ret;
		ret = skeleton_end_thread(s, tid, e);
		if (ret < 0)
			return ret;
	}
	return err_set(e, -EEXIST, "creating thread %d: others on this host are quicker to take its number", tid);
}

struct skeleton_thread *skeleton_find_thread(struct skeleton *s, pid_t tid)
{
	for (size_t k = 0; k < s->nthreads; k++) {
		size_t i = (s->looked_up + k) % s->nthreads;

		if (s->threads[i]->tid != tid)
			continue;
		s->looked_up = i;
		return s->threads[i];
	}
	return NULL;
}

static void free_thread(struct skeleton_thread *t)
{
	if (t->ahead)
		gw__thread__free_unpacked(t->ahead, NULL);
	batch_free(t->batch);
	free(t);
}

/* What the kernel would write to at its end. */
static void plan_forget(struct skeleton_thread *t)
{
	const uint64_t forget = 1; /* RSEQ_FLAG_UNREGISTER */

	batch_try(t->batch, "set_robust_list", SYS_set_robust_list, 0, sizeof(struct robust_list_head));
	batch_call(t->batch, "set_tid_address", SYS_set_tid_address, 0);
	if (t->ahead->rseq)
		batch_try(t->batch, "rseq", SYS_rseq, t->ahead->rseq, t->ahead->rseq_len, forget, t->ahead->rseq_signature);
}

int skeleton_end_thread(struct skeleton *s, pid_t tid, struct err *e)
{
	struct skeleton_thread *t = skeleton_find_thread(s, tid);
	int status, ret;

	if (!t || t == s->threads[0])
		return err_set(e, -EINVAL, "no thread %d to end", tid);
	if (t->ahead)
		plan_forget(t);
	batch_call(t->batch, "exit", SYS_exit, 0);
	batch_prepare(t->batch);
	if (task_wake(&t->task, e) < 0)
		return e ? e->code : -EIO;
	while (waitpid(t->task.tid, &status, __WALL) == t->task.tid && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, t->task.tid, 0, 0);
	for (size_t i = 0; i < s->nthreads; i++)
		if (s->threads[i] == t)
			s->threads[i] = s->threads[--s->nthreads];
	scratch_slot(t->task.scratch, t->task.slot)->flags = 0;
	ret = t->ahead && t->ahead->rseq ? trace_poke(s->mem_fd, t->ahead->rseq, t->area, sizeof(t->area), e) : 0;
	free_thread(t);
	return ret;
}

int skeleton_place_trampoline(struct skeleton *s, struct err *e)
{
	/* syscall; xor %edi,%edi; mov $60,%eax; syscall: the second call is exit(0). */
	static const uint8_t code[] = { 0x0f, 0x05, 0x31, 0xff, 0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05 };
	uint64_t gadget, room;
	int ret = trace_find_gadget(s->pid, &gadget, TRACE_TAIL_BYTES, &room, e);

	if (ret < 0 || !room)
		return ret; /* without room the scratch stays mapped: harmless */
	ret = trace_poke(s->mem_fd, room, code, sizeof(code), e);
	/* A thread may be in there, or be about to come back to it from a handler. */
	if (ret == 0)
		ret = trace_poke(s->mem_fd, room + TRACE_TAIL_CONTINUE, partial_code, sizeof(partial_code), e);
	if (ret == 0)
		scratch_header(&s->agent.scratch)->trampoline = room;
	return ret;
}

/*
 * The main thread is sent SIGSTOP while everything else is blocked, and receives `signal` in its place; the stop that follows is the group's. The other
 * threads rest in ptrace stops and take part in it when they are let go. A process whose group has been orphaned since is not stopped by the others: then it is
 * SIGSTOP all the same.
 */
int skeleton_stop(struct skeleton *s, int signal, struct err *e)
{
	pid_t tid = s->threads[0]->task.tid;
	int status = 0, next = signal, ret;
	uint64_t mask;

	ret = trace_get_mask(tid, &mask, e);
	if (ret == 0)
		ret = trace_set_mask(tid, ~(1ull << (signal - 1)), e);
	if (ret == 0 && syscall(SYS_tgkill, s->pid, tid, SIGSTOP) < 0)
		ret = err_sys(e, errno, "process %d: SIGSTOP", s->pid);
	while (ret == 0 && !(status >> 16 == PTRACE_EVENT_STOP && (WSTOPSIG(status) == signal || WSTOPSIG(status) == SIGSTOP))) {
		bool delivers = WIFSTOPPED(status) && !(status >> 16);

		if (ptrace(PTRACE_CONT, tid, 0, delivers ? next : 0) < 0 || waitpid(tid, &status, __WALL) < 0)
			ret = err_sys(e, errno, "process %d: stopping it", s->pid);
		else if (!WIFSTOPPED(status))
			ret = err_set(e, -ESRCH, "process %d ended while it was being stopped", s->pid);
		next = delivers ? SIGSTOP : next;
	}
	return ret < 0 ? ret : trace_set_mask(tid, mask, e);
}

void skeleton_reap(pid_t tid)
{
	int status;

	for (;;) {
		pid_t got = waitpid(tid, &status, __WALL);

		if (got == tid && (WIFEXITED(status) || WIFSIGNALED(status)))
			return;
		if (got < 0 && errno != EINTR)
			return;
	}
}

void skeleton_end_agent(struct agent *a)
{
	if (a->pid <= 0)
		return;
	if (a->pidfd >= 0)
		pidfd_signal(a->pidfd, SIGKILL);
	skeleton_reap(a->pid);
	agent_wait_exit(a, 2000);
}

void skeleton_destroy(struct skeleton *s)
{
	if (s->pid > 0 && s->seated)
		skeleton_leave_seat(s);
	else if (s->pid > 0)
		kill(s->pid, SIGKILL);
	/* The first process of a pid namespace does not end before those in it have been waited for, and the agent is our tracee. */
	skeleton_end_agent(&s->agent);
	if (s->pid > 0 && !s->seated) {
		/* The main thread's end is not reported before the others, being tracees, have been waited for. */
		for (size_t i = s->nthreads; i-- > 1;)
			skeleton_reap(s->threads[i]->task.tid);
		skeleton_reap(s->pid);
	}
	for (size_t i = 0; i < s->nthreads; i++)
		free_thread(s->threads[i]);
	free(s->threads);
	close_fdp(&s->pidfd);
	close_fdp(&s->mem_fd);
	close_fdp(&s->transfer);
	agent_forget(&s->agent);
	*s = SKELETON_INIT;
}
