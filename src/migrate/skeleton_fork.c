/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton_fork.c - a process of the unit at the destination that another one of it forks; see skeleton_set.h
 *
 * Theory of operation: the creator, at rest in its stub, is handed the new process's memfd and sockets, and clones. The scratch is MADV_DONTFORK, so the child has no code to
 * run; but it is traced from its birth and has stopped before it ran any. It is given its own scratch as the first process was. A creator that
 * has its layout already (`late`) shares its memory with the child for a moment instead of having it copied, and the child execs the skeleton program: so no
 * page is copied, and no userfaultfd hears of a fork. One that shares its creator's memory for good has a scratch of its own in there, and an agent.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "kern/fdpass.h"
#include "kern/trace.h"
#include "migrate/skeleton_internal.h"
#include "migrate/skeleton_set_internal.h"

#define HANDED 4 /* memfd, transfer, bell, program */

/* Hands descriptors over; ret_got[i] is -1 where fds[i] is. */
static int hand_over(struct skeleton *by, const int fds[HANDED], int ret_got[HANDED], struct err *e)
{
	int list[HANDED], got[HANDED], ret;
	size_t n = 0;

	for (size_t i = 0; i < HANDED; i++)
		if (fds[i] >= 0)
			list[n++] = fds[i];
	ret = fd_send(by->transfer, list, n, e);
	if (ret == 0)
		ret = batch_receive_fds(by->threads[0]->batch, by->transfer_end, got, n, e);
	n = 0;
	for (size_t i = 0; i < HANDED; i++)
		ret_got[i] = ret == 0 && fds[i] >= 0 ? got[n++] : -1;
	return ret;
}

/* Whose child it is to be, for __WNOTHREAD and PR_SET_PDEATHSIG. */
static struct skeleton_thread *forking_thread(struct skeleton *by, pid_t tid, struct err *e)
{
	if (!tid)
		return by->threads[0];
	return skeleton_add_thread(by, tid, e) < 0 ? NULL : skeleton_find_thread(by, tid);
}

unsigned skeleton_levels(pid_t pid)
{
	cleanup_close int own = ns_open(0, NS_PID);
	int ns = ns_open(pid, NS_PID);
	unsigned levels = 0;

	for (; ns >= 0 && ns_id_of(ns) != ns_id_of(own); levels++) {
		int above = ioctl(ns, NS_GET_PARENT);

		close(ns);
		ns = above;
	}
	close_fdp(&ns);
	return levels;
}

int skeleton_setns(struct skeleton *s, int ns, int flag, struct err *e)
{
	struct batch *b = s->threads[0]->batch;
	int number, ret = fd_send(s->transfer, &ns, 1, e);

	if (ret == 0)
		ret = batch_receive_fds(b, s->transfer_end, &number, 1, e);
	if (ret == 0)
		ret = (int)remote_do(b, e, "setns", SYS_setns, (uint64_t)number, (uint64_t)flag);
	return ret < 0 ? ret : (int)remote_do(b, e, "close", SYS_close, (uint64_t)number);
}

#define SPARE_HIGHEST 32700
#define SPARE_LOWEST 30000

/* What set_tid says. In a namespace below the root's the kernel would choose low numbers, which may be needed in a moment: `tries` is for those that may be any. */
static size_t numbers_of(const struct skeleton_birth *birth, unsigned tries, pid_t ret[TREE_LEVELS_MAX + 1])
{
	size_t depth = birth->tree ? tree_depth(birth->tree, birth->space) : 0, n;

	n = birth->tree ? tree_set_tid(birth->tree, birth->space, birth->number, ret) : 0;
	if (n > depth || (!n && !depth && !birth->number))
		return n;
	if (!depth) {
		ret[0] = birth->number;
		return 1;
	}
	for (n = 0; n < depth; n++)
		ret[n] = SPARE_HIGHEST - (pid_t)tries;
	if (birth->number)
		ret[n++] = birth->number;
	return n;
}

static int64_t clone_with(struct skeleton *by, struct skeleton *s, struct skeleton_thread *t, struct clone_args wanted, const pid_t *numbers, size_t n, unsigned slot, struct err *e)
{
	const struct scratch *scratch = &by->agent.scratch;
	struct clone_args *args;
	uint64_t at;

	args = batch_space(t->batch, sizeof(*args), &at);
	*args = wanted;
	if (args->flags & CLONE_VM) { /* one that does not exec never uses it: it stops before its first instruction */
		args->stack = scratch_slot_address(scratch, slot) + SLOT_STACK;
		args->stack_size = SLOT_STACK_BYTES;
	}
	if (n) {
		args->set_tid = batch_data(t->batch, numbers, n * sizeof(*numbers));
		args->set_tid_size = n;
	}
	return skeleton_spawn(&t->task, t->batch, SYS_clone3, (const uint64_t[6]){ at, sizeof(*args) }, slot, &s->pid, e);
}

/* One that got other numbers than it was to have. */
static int give_up(struct skeleton *by, struct skeleton *s, int64_t number, uint32_t exit_signal, struct err *e)
{
	kill(s->pid, SIGKILL);
	skeleton_reap(s->pid);
	s->pid = 0;
	if (remote_do(by->threads[0]->batch, e, "wait4", SYS_wait4, (uint64_t)number, 0, __WALL, 0) < 0)
		return e ? e->code : -ECHILD;
	return skeleton_take_signal(by, exit_signal, e);
}

/* With the numbers that its creator may choose, and led up to the others. -EEXIST: they did not come. */
static int64_t clone_led(struct skeleton *by, struct skeleton *s, struct skeleton_thread *t, const struct skeleton_birth *birth, struct clone_args args, const pid_t *numbers, size_t n,
	unsigned slot, struct err *e)
{
	cleanup_close int ns = by->namespaces[NS_USER] && n ? ns_open(by->pid, NS_PID) : -1;
	int at = birth->children >= 0 ? birth->children : ns;
	size_t chosen = ns < 0 ? n : skeleton_numbers_chosen(by, at, birth->first, n);
	int64_t made = -EEXIST;

	if (chosen == n)
		return clone_with(by, s, t, args, numbers, n, slot, e);
	for (int tries = 0; made == -EEXIST && tries < SKELETON_NUMBER_TRIES; tries++) {
		int ret = skeleton_lead_to(at, birth->first, numbers, chosen, n, e);

		if (ret < 0)
			return ret;
		made = clone_with(by, s, t, args, numbers, chosen, slot, e);
		skeleton_lead_back();
		if (made < 0 || skeleton_has_numbers(s->pid, numbers, n))
			break;
		if (birth->sibling || birth->share & CLONE_VM) /* whose end nobody here can wait for */
			return -EEXIST;
		ret = give_up(by, s, made, birth->exit_signal, e);
		made = ret < 0 ? ret : -EEXIST;
	}
	return made;
}

static int64_t clone_process(struct skeleton *by, struct skeleton *s, const struct skeleton_birth *birth, uint64_t flags, unsigned slot, struct err *e)
{
	const struct clone_args args = { .flags = flags | (birth->first ? CLONE_NEWPID : 0), .exit_signal = birth->sibling ? 0 : birth->exit_signal };
	struct skeleton_thread *t = forking_thread(by, birth->tid, e);
	pid_t numbers[TREE_LEVELS_MAX + 1];
	int64_t made = -EEXIST;

	if (!t)
		return e ? e->code : -ESRCH;
	for (unsigned tries = 0; made == -EEXIST && tries <= (birth->space ? SPARE_HIGHEST - SPARE_LOWEST : 0); tries++) {
		size_t n = numbers_of(birth, tries, numbers);

		made = clone_led(by, s, t, birth, args, numbers, n, slot, e);
		if (birth->number && n && numbers[0] != SPARE_HIGHEST - (pid_t)tries)
			break; /* there is no choice */
	}
	return made;
}

/* Where it is to be born into another pid namespace than the creator's own: leads the creator's children there, and back when there is one. */
static int64_t clone_into(struct skeleton *by, struct skeleton *s, const struct skeleton_birth *birth, uint64_t flags, unsigned slot, struct err *e)
{
	cleanup_close int own = -1;
	int64_t made;
	int ret;

	if (birth->children < 0)
		return clone_process(by, s, birth, flags, slot, e);
	own = ns_open(by->pid, NS_PID);
	ret = own < 0 ? err_sys(e, errno, "the pid namespace of process %d", by->pid) : skeleton_setns(by, birth->children, CLONE_NEWPID, e);
	if (ret < 0)
		return ret;
	made = clone_process(by, s, birth, flags, slot, e);
	ret = skeleton_setns(by, own, CLONE_NEWPID, made < 0 ? NULL : e);
	return made < 0 || ret == 0 ? made : ret;
}

static int compare_ints(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* The new process, in its creator's memory still: away with the descriptors that are copies of the creator's, and exec. */
static int exec_skeleton(struct skeleton *by, struct skeleton *s, unsigned slot, const int got[HANDED], struct err *e)
{
	struct task task = { .scratch = &by->agent.scratch, .slot = slot, .tid = s->pid, .wake = TASK_PTRACE, .bell_fd = -1 };
	struct batch *b;
	uint64_t argv[2] = { 0 }, from = 0;
	int keep[HANDED], ret = skeleton_first_rest(s->pid, e);

	if (ret == 0 && ptrace(PTRACE_SETOPTIONS, s->pid, 0, SKELETON_OPTIONS | PTRACE_O_TRACEEXEC) < 0)
		ret = err_sys(e, errno, "the skeleton: options");
	if (ret < 0)
		return ret;
	b = batch_new(&task);
	memcpy(keep, got, sizeof(keep));
	qsort(keep, HANDED, sizeof(*keep), compare_ints);
	for (size_t i = 0; i < HANDED; i++) {
		if ((uint64_t)keep[i] > from)
			batch_call(b, "close_range", SYS_close_range, from, (uint64_t)keep[i] - 1, 0);
		from = (uint64_t)keep[i] + 1;
	}
	batch_call(b, "close_range", SYS_close_range, from, ~0u, 0);
	for (size_t i = 0; i < HANDED; i++)
		batch_call(b, "fcntl", SYS_fcntl, (uint64_t)got[i], F_SETFD, i == 3 ? FD_CLOEXEC : 0);
	argv[0] = batch_string(b, "godwit-skeleton");
	batch_call(b, "execveat", SYS_execveat, (uint64_t)got[3], batch_string(b, ""), batch_data(b, argv, sizeof(argv)), batch_data(b, &argv[1], sizeof(argv[1])),
		   AT_EMPTY_PATH);
	batch_prepare(b);
	ret = task_wake(&task, e);
	if (ret == 0)
		ret = skeleton_wait_exec(s, e);
	batch_free(b);
	scratch_slot(task.scratch, slot)->flags = 0;
	return ret;
}

/* The child has what was handed to its creator, which now forgets it; the child forgets its creator's. */
static int close_handed(struct skeleton *by, struct skeleton *s, const int got[HANDED], bool shared_table, bool copied, struct err *e)
{
	struct batch *b = by->threads[0]->batch;
	int ret;

	for (size_t i = 0; i < HANDED; i++)
		if (got[i] >= 0 && !(shared_table && i < 3))
			batch_call(b, "close", SYS_close, (uint64_t)got[i]);
	ret = batch_run(b, e);
	batch_reset(b);
	if (ret < 0 || !copied)
		return ret;
	b = s->threads[0]->batch;
	batch_call(b, "close", SYS_close, (uint64_t)by->transfer_end);
	if (by->agent_end >= 0)
		batch_call(b, "close", SYS_close, (uint64_t)by->agent_end);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

int skeleton_fork(struct skeleton *by, struct skeleton *s, const struct skeleton_birth *birth, const struct skeleton_terms *terms, struct err *e)
{
	bool shares = birth->share & CLONE_VM, execs = birth->late && !shares;
	int fds[HANDED] = { -1, -1, -1, -1 }, got[HANDED] = { -1, -1, -1, -1 }, ret;
	uint64_t flags = birth->share | (execs ? CLONE_VM : 0) | (birth->sibling ? CLONE_PARENT : 0);
	unsigned slot = 0;
	int64_t number;

	*s = SKELETON_INIT;
	s->own_pid_namespace = by->own_pid_namespace;
	memcpy(s->namespaces, by->namespaces, sizeof(s->namespaces));
	s->namespaces[NS_PID] = birth->space;
	s->tree = birth->tree;
	if (birth->late && birth->share & ~(uint64_t)CLONE_VM)
		return err_set(e, -EAGAIN, "process %d shares with its creator, which is prepared already", birth->number);
	ret = skeleton_open(s, terms, fds, e);
	if (ret == 0 && execs)
		fds[3] = ret = skeleton_program(e);
	if (ret >= 0)
		ret = hand_over(by, fds, got, e);
	for (size_t i = 1; i < HANDED; i++)
		close_fdp(&fds[i]);
	if (ret == 0 && execs)
		ret = skeleton_take_slot(&by->agent.scratch, &slot, e);
	if (ret < 0)
		return ret;
	number = clone_into(by, s, birth, flags, slot, e);
	if (number < 0)
		return err_sys(e, (int)number, "creating process %d", birth->number);
	ret = by->seated && ptrace(PTRACE_SETOPTIONS, s->pid, 0, SKELETON_OPTIONS) < 0 ? err_sys(e, errno, "the skeleton: options") : 0;
	if (ret == 0 && execs)
		ret = exec_skeleton(by, s, slot, got, e);
	if (ret == 0)
		ret = skeleton_hold_on(s, e);
	if (ret < 0)
		return ret;
	s->transfer_end = got[1];
	s->agent_end = got[2];
	s->agent.gadget = by->agent.gadget;
	if (birth->late)
		ret = trace_find_gadget(s->pid, &s->agent.gadget, 0, NULL, e);
	if (ret == 0)
		ret = skeleton_enter(s, birth->number ? birth->number : (pid_t)number, terms->base, got[0], e);
	return ret < 0 ? ret : close_handed(by, s, got, birth->share & CLONE_FILES, !execs && !(birth->share & CLONE_FILES), e);
}
