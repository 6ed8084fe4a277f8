/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton_commit.c - the ends of a unit's processes at the destination: zombies, the commit, giving up; see skeleton_set.h
 *
 * Theory of operation of the commit: before it every thread is *held*: the program's registers are kept by the worker and in its slot, where a command says to wait for the
 * unit's state and to go on with them. It is still in its ptrace stop, in the stub. Should the worker die, those that have lost EXITKILL by then run into that command.
 * EXITKILL is taken from all threads, last of all from the root's main thread: the commit point. When that one runs in the stub with the state COMMITTING, the kernel has not
 * killed it, so it was passed, and it says so for all (agent/stub.c); the agent writes the record then. But ordinarily the worker lives, writes the record, sets the state, and gives each
 * thread the program's registers by ptrace, so that the kernel goes on with interrupted calls, and delivers signals, as it sees fit. The steps are those of agent/handover.h.
 */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "kern/fdpass.h"
#include "kern/trace.h"
#include "migrate/skeleton_internal.h"
#include "migrate/skeleton_set_internal.h"
#include "migrate/unit_page.h"

/* --- zombies --- */

static void plan_end(struct batch *b, const struct tree *t, const struct tree_process *p)
{
	static const struct rlimit none;
	const uint64_t deflt[4] = { 0 };
	uint32_t signal = p->exit_status & 0x7f;
	uint64_t set;

	batch_call(b, "prctl(PR_SET_NAME)", SYS_prctl, PR_SET_NAME, batch_data(b, p->name, sizeof(p->name)));
	batch_call(b, "prlimit64", SYS_prlimit64, 0, RLIMIT_CORE, batch_data(b, &none, sizeof(none)), 0);
	batch_call(b, "setresgid", SYS_setresgid, p->gid, p->gid, p->gid);
	batch_call(b, "setresuid", SYS_setresuid, p->uid, p->uid, p->uid);
	batch_call(b, "prctl(PR_SET_DUMPABLE)", SYS_prctl, PR_SET_DUMPABLE, 0);
	if (!signal) {
		batch_call(b, "exit", SYS_exit_group, p->exit_status >> 8 & 0xff);
		return;
	}
	set = 1ull << (signal - 1);
	if (signal != SIGKILL)
		batch_call(b, "rt_sigaction", SYS_rt_sigaction, signal, batch_data(b, deflt, sizeof(deflt)), 0, sizeof(set));
	batch_call(b, "rt_sigprocmask", SYS_rt_sigprocmask, SIG_UNBLOCK, batch_data(b, &set, sizeof(set)), 0, sizeof(set));
	batch_call(b, "kill", SYS_kill, (uint64_t)tree_seen(t, p->space, p->pid), signal);
}

static int bury(struct skeleton_set *set, uint32_t i, struct err *e)
{
	const struct tree_process *p = &set->tree.v[i];
	struct skeleton *s = set->v[i], *parent = set->v[p->parent];
	int status, ret, signal = (int)(p->exit_status & 0x7f);
	struct batch *b;

	while (s->nthreads > 1) {
		ret = skeleton_end_thread(s, s->threads[s->nthreads - 1]->tid, e);
		if (ret < 0)
			return ret;
	}
	b = s->threads[0]->batch;
	plan_end(b, &set->tree, p);
	batch_prepare(b);
	ret = task_wake(&s->threads[0]->task, e);
	if (ret < 0)
		return ret;
	for (;;) {
		if (waitpid(s->pid, &status, __WALL) < 0)
			return err_sys(e, errno, "process %d: its end", p->pid);
		if (!WIFSTOPPED(status))
			break;
		/* A rest means that the list is over, and so that a call failed, or that the signal does not end it. */
		if (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP)
			return err_set(e, -EIO, "process %d does not end with status %#x", p->pid, p->exit_status);
		ptrace(PTRACE_CONT, s->pid, 0, status >> 16 == 0 && WSTOPSIG(status) == signal ? signal : 0);
	}
	if (status != (int)p->exit_status)
		return err_set(e, -EIO, "process %d has ended with status %#x instead of %#x", p->pid, status, p->exit_status);
	s->pid = 0;
	skeleton_destroy(s);
	free(s);
	set->v[i] = NULL;
	return skeleton_take_signal(parent, p->exit_signal, e);
}

int skeleton_set_bury(struct skeleton_set *set, const struct tree *tree, struct err *e)
{
	int ret = 0;

	for (size_t k = 0; k < tree->n && ret == 0; k++) {
		uint32_t i = tree_find(&set->tree, tree->v[k].pid);

		if (!tree->v[k].zombie || i == TREE_NONE || !set->v[i])
			continue;
		if (i == 0)
			return err_set(e, -EINVAL, "the root has ended");
		set->tree.v[i].zombie = true;
		set->tree.v[i].exit_status = tree->v[k].exit_status;
		set->tree.v[i].uid = tree->v[k].uid;
		set->tree.v[i].gid = tree->v[k].gid;
		memcpy(set->tree.v[i].name, tree->v[k].name, sizeof(set->tree.v[i].name));
		ret = bury(set, i, e);
	}
	return ret;
}

/* --- the commit --- */

int skeleton_hold(struct skeleton_thread *t, const struct user_regs_struct *regs, uint64_t sigmask, struct err *e)
{
	struct slot *slot = scratch_slot(t->task.scratch, t->task.slot);
	bool inside = slot->done != slot->seq; /* stopped in an interrupted call, and not at rest */
	int ret = 0;

	_Static_assert(offsetof(struct user_regs_struct, ss) == offsetof(struct slot_regs, ss), "abi.h");
	memcpy(&slot->regs, regs, sizeof(slot->regs));
	slot->sigmask = sigmask;
	t->regs = *regs;
	task_command(&t->task, COMMAND_AWAIT);
	if (inside)
		ret = trace_enter_stub(t->task.tid, t->task.scratch, t->task.slot, regs, e);
	t->held = ret == 0;
	return ret;
}

static int take_exitkill(const struct skeleton_thread *t, struct err *e)
{
	if (ptrace(PTRACE_SETOPTIONS, t->task.tid, 0, 0) < 0)
		return err_sys(e, errno, "thread %d: options", t->tid);
	return 0;
}

static int let_go(struct skeleton *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nthreads; i++) {
		struct skeleton_thread *t = s->threads[i];

		if (trace_set_mask(t->task.tid, scratch_slot(t->task.scratch, t->task.slot)->sigmask, e) < 0 || trace_set_regs(t->task.tid, &t->regs, e) < 0 ||
		    trace_detach(t->task.tid, e) < 0)
			ret = -ESRCH;
	}
	return ret;
}

/* All but the root's main thread. */
static int take_exitkill_from_others(struct skeleton *const *v, size_t n, struct err *e)
{
	for (size_t i = n; i-- > 0;)
		for (size_t k = v[i] ? v[i]->nthreads : 0; k-- > 0;) {
			const struct skeleton_thread *t = v[i]->threads[k];
			int ret = t->held ? 0 : err_set(e, -EINVAL, "thread %d is not held", t->tid);

			if (ret == 0 && (i || k) && !t->no_exitkill)
				ret = take_exitkill(t, e);
			if (ret < 0)
				return ret;
		}
	return 0;
}

/* The commit point. One in the place of its stub is not killed with the worker: there it is that the state could be changed. */
static int decide(struct skeleton *root, struct err *e)
{
	const struct skeleton_thread *t = root->threads[0];
	int ret;

	if (root->seated)
		return unit_step(&root->agent, HANDOVER_SEAT_TAKEN) ? 0 : err_set(e, -ECANCELED, "the unit was given up");
	scratch_slot(t->task.scratch, t->task.slot)->flags |= SLOT_ROOT;
	unit_step(&root->agent, HANDOVER_RELEASE_BEGINS);
	ret = take_exitkill(t, e);
	unit_step(&root->agent, ret < 0 ? HANDOVER_RELEASE_FAILED : HANDOVER_ROOT_RELEASED);
	return ret;
}

int skeleton_set_release(struct skeleton_set *set, struct err *e)
{
	int ret = take_exitkill_from_others(set->v, set->tree.n, e);

	if (ret == 0)
		ret = decide(set->v[0], e);
	if (ret < 0)
		return ret;
	ret = set->record ? set->record(set->first_arg, e) : 0;
	unit_step(&set->v[0]->agent, ret < 0 ? HANDOVER_RECORD_FAILED : HANDOVER_RECORDED);
	if (ret == 0 && set->committed)
		set->committed(set->first_arg);
	for (size_t i = 0; i < set->tree.n && ret == 0; i++)
		if (set->v[i] && let_go(set->v[i], e) < 0)
			ret = -ESRCH;
	return ret;
}

/* --- giving up --- */

void skeleton_set_destroy(struct skeleton_set *set)
{
	/* All at once, so that none sees another's end. */
	for (size_t i = 0; set->v && i < set->tree.n; i++)
		if (set->v[i] && set->v[i]->pidfd >= 0 && !set->v[i]->seated)
			pidfd_signal(set->v[i]->pidfd, SIGKILL);
	/* The first process of a pid namespace does not end before its agents, and others', have been waited for. */
	for (size_t i = 0; set->v && i < set->tree.n; i++)
		if (set->v[i])
			skeleton_end_agent(&set->v[i]->agent);
	/* What shares another's scratch goes first. */
	for (size_t i = set->tree.n; set->v && i-- > 0;)
		if (set->v[i]) {
			skeleton_destroy(set->v[i]);
			free(set->v[i]);
		}
	free(set->v);
	tree_free(&set->tree);
	*set = (struct skeleton_set){ .parent = set->parent, .seat = set->seat };
}
