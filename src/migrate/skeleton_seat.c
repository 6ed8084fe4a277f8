/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton_seat.c - the unit's root in the place of its stub; see skeleton.h and home/back.h
 *
 * Theory of operation: the stub, which is the task with the number, the parent, the session and the group that the root has at home, has exec'ed itself anew as
 * root and is idle. It is traced, and from there on is what a blank skeleton is. But PTRACE_O_EXITKILL would let its parent see its end if this worker
 * dies: without it, its threads wait in the scratch then (agent/stub.c) until godwit-home makes it a stub again. The commit is the change of the
 * unit's state alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "home/door.h"
#include "home/stub_abi.h"
#include "kern/fdpass.h"
#include "kern/nsfs.h"
#include "kern/trace.h"
#include "migrate/skeleton_internal.h"
#include "migrate/unit_page.h"

#define STUB_MS 5000

static int take_stub(const struct skeleton_seat *seat, const int fds[3], struct err *e)
{
	const uint8_t word = DOOR_STUB;
	struct door_answer a = { 0 };
	struct pollfd p = { seat->door, POLLIN, 0 };
	int ret = door_send(seat->door, &word, 1, fds, 3, e);

	if (ret < 0)
		return ret;
	if (poll(&p, 1, STUB_MS) <= 0 || door_receive(seat->door, &a, sizeof(a), NULL, 0, NULL, NULL) != (ssize_t)sizeof(a))
		return err_set(e, -ETIMEDOUT, "the stub %d does not give its place up", seat->pid);
	a.why[sizeof(a.why) - 1] = 0;
	return a.pid == seat->pid ? 0 : err_set(e, -EPERM, "the stub %d does not give its place up: %s", seat->pid, a.why);
}

static int stop(struct skeleton *s, struct err *e)
{
	int ret = trace_seize(s->pid, SKELETON_OPTIONS & ~PTRACE_O_EXITKILL, e);

	if (ret == 0)
		ret = trace_interrupt(s->pid, e);
	return ret < 0 ? ret : trace_wait_stop(s->pid, e);
}

/* Into the time namespace that this worker's children live in, where that is another one. */
static int join_time(struct skeleton *s, struct err *e)
{
	cleanup_close int fd = ns_open_for_children(0, NS_TIME);
	struct batch *b = s->threads[0]->batch;
	int number, ret;

	if (fd < 0 || ns_id_of(fd) == ns_id(s->pid, NS_TIME))
		return 0;
	ret = fd_send(s->transfer, &fd, 1, e);
	if (ret == 0)
		ret = batch_receive_fds(b, s->transfer_end, &number, 1, e);
	if (ret == 0)
		ret = (int)remote_do(b, e, "setns", SYS_setns, (uint64_t)number, 0);
	return ret < 0 ? ret : (int)remote_do(b, e, "close", SYS_close, (uint64_t)number);
}

/* What the program was allowed is set again with all that it was; making it takes more. */
static int lift_limits(struct skeleton *s, struct err *e)
{
	static const struct rlimit none = { RLIM_INFINITY, RLIM_INFINITY };
	struct batch *b = s->threads[0]->batch;
	int ret;

	batch_call(b, "setresuid", SYS_setresuid, 0, 0, 0);
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit hard;

		if (prlimit(s->pid, i, NULL, &hard) < 0)
			continue;
		hard.rlim_cur = hard.rlim_max;
		batch_try(b, "prlimit64", SYS_prlimit64, 0, (uint64_t)i, batch_data(b, &hard, sizeof(hard)), 0);
		batch_try(b, "prlimit64", SYS_prlimit64, 0, (uint64_t)i, batch_data(b, &none, sizeof(none)), 0);
	}
	batch_call(b, "close", SYS_close, STUB_SOCKET);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

int skeleton_sit(struct skeleton *s, pid_t number, const struct skeleton_terms *terms, const struct skeleton_seat *seat, struct err *e)
{
	int fds[3] = { -1, -1, -1 }, ret;

	*s = SKELETON_INIT;
	ret = skeleton_open(s, terms, fds, e);
	if (ret == 0)
		scratch_header(&s->agent.scratch)->seated = 1;
	if (ret == 0)
		ret = take_stub(seat, fds, e);
	for (int i = 1; i < 3; i++)
		close_fdp(&fds[i]);
	if (ret < 0)
		return ret;
	s->pid = seat->pid;
	s->seated = true;
	s->transfer_end = STUB_BECOME_FIRST + 1;
	s->agent_end = STUB_BECOME_FIRST + 2;
	ret = stop(s, e);
	if (ret == 0)
		ret = skeleton_hold_on(s, e);
	if (ret == 0)
		ret = trace_find_gadget(s->pid, &s->agent.gadget, 0, NULL, e);
	if (ret == 0)
		ret = skeleton_enter(s, number, terms->base, STUB_BECOME_FIRST, e);
	if (ret == 0)
		ret = lift_limits(s, e);
	return ret < 0 ? ret : join_time(s, e);
}

void skeleton_leave_seat(struct skeleton *s)
{
	unit_step(&s->agent, HANDOVER_DEST_ORPHANED);
	for (size_t i = s->nthreads; i-- > 0;)
		trace_detach(s->threads[i]->task.tid, NULL);
	if (!s->nthreads)
		trace_detach(s->pid, NULL);
}
