/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* thread_restore.c - one thread at the destination; see thread.h */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/util.h"
#include "image/seccomp.h"
#include "image/thread.h"
#include "image/thread_abi.h"
#include "image/thread_fs.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
#define DEFAULT_SLACK_NS 50000u
#define SPEC_SETTABLE (PR_SPEC_DISABLE | PR_SPEC_FORCE_DISABLE | PR_SPEC_DISABLE_NOEXEC)

static struct thread_sched_attr choose_sched(const Gw__Thread *msg)
{
	struct thread_sched_attr attr;

	memcpy(&attr, msg->sched_attr.data, sizeof(attr));
	attr.size = sizeof(attr);
	attr.flags &= attr.policy == POLICY_DEADLINE ? SCHED_FLAGS_DEADLINE : SCHED_FLAG_RESET_ON_FORK_ONLY;
	if (attr.util_min || (attr.util_max && attr.util_max != UTIL_WHOLE))
		attr.flags |= SCHED_FLAGS_CLAMP;
	if (attr.policy != POLICY_DEADLINE)
		attr.runtime = attr.deadline = attr.period = 0; /* a slice hint, relative to the host */
	return attr;
}

/* Whether this kernel would admit a deadline reservation: the worker asks for it, and gives it back. That it can still be had later is not certain. */
static void check_deadline(const Gw__Thread *msg, struct refusals *r)
{
	struct thread_sched_attr attr = { 0 }, own = { 0 };
	const char *cause = "its reservation is not admitted by the destination's kernel";

	if (msg->sched_attr.len != sizeof(attr))
		return;
	memcpy(&attr, msg->sched_attr.data, sizeof(attr));
	if (attr.policy != POLICY_DEADLINE || syscall(SYS_sched_getattr, 0, &own, sizeof(own), 0) < 0)
		return;
	attr = choose_sched(msg);
	attr.flags |= SCHED_FLAG_RESET_ON_FORK_ONLY;
	own.size = sizeof(own);
	if (syscall(SYS_sched_setattr, 0, &attr, 0) == 0) {
		if (syscall(SYS_sched_setattr, 0, &own, 0) == 0)
			return;
		cause = "its reservation could not be tried";
	}
	refusals_add(r, "task.sched-deadline", cause, "end other reservations there, or choose another destination",
		     "thread %d (SCHED_DEADLINE, %llu of %llu ns)", msg->tid, (unsigned long long)attr.runtime, (unsigned long long)attr.period);
}

void thread_validate_here(const Gw__Thread *msg, struct refusals *r)
{
	cred_validate_here(msg->credentials, msg->tid, r);
	seccomp_check(msg, "destination", r);
	check_deadline(msg, r);
}

/* The CPUs of the saved mask that exist here; all of this host's when none does, or when it was every CPU of the source. */
static void choose_affinity(const Gw__Thread *msg, uint8_t mask[THREAD_AFFINITY_MAX])
{
	long cpus = sysconf(_SC_NPROCESSORS_CONF);
	bool some = false;

	memset(mask, 0, THREAD_AFFINITY_MAX);

	for (long cpu = 0; cpu < cpus && cpu < (long)THREAD_AFFINITY_MAX * 8; cpu++) {
		if ((size_t)cpu / 8 < msg->affinity.len && (msg->affinity.data[cpu / 8] >> cpu % 8 & 1)) {
			mask[cpu / 8] |= (uint8_t)(1 << cpu % 8);
			some = true;
		}
	}
	if (!some)
		memset(mask, 0xff, THREAD_AFFINITY_MAX);
}

int thread_restore_slack(pid_t tid, const Gw__Thread *msg, struct err *e)
{
	char path[64], text[32];
	cleanup_close int fd = -1;
	int n;

	if (!msg->timer_slack_ns)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/timerslack_ns", tid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	n = snprintf(text, sizeof(text), "%llu", (unsigned long long)msg->timer_slack_ns);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		return err_sys(e, -errno, "thread %d: timer slack", msg->tid);
	return 0;
}

int thread_restore_placement(pid_t tid, const Gw__Thread *msg, struct err *e)
{
	uint8_t mask[THREAD_AFFINITY_MAX];

	if (msg->affinity.len)
		choose_affinity(msg, mask);
	if (msg->affinity.len && syscall(SYS_sched_setaffinity, tid, sizeof(mask), mask) < 0)
		return err_sys(e, -errno, "thread %d: sched_setaffinity", msg->tid);
	if (msg->ioprio >> 13 && syscall(SYS_ioprio_set, THREAD_IOPRIO_WHO_PROCESS, tid, msg->ioprio) < 0)
		return err_sys(e, -errno, "thread %d: ioprio_set", msg->tid);
	return 0;
}

int thread_restore_sched(pid_t tid, const Gw__Thread *msg, struct err *e)
{
	struct thread_sched_attr attr = choose_sched(msg), plain = { .size = sizeof(plain), .policy = SCHED_OTHER, .nice = attr.nice };

	/*
	 * In the ordinary classes the attributes have the niceness and the slice. The others leave both alone, so these are set before: the slice is Godwit's own
	 * until then (pace.h).
	 */
	if ((attr.policy != SCHED_OTHER && attr.policy != SCHED_BATCH && syscall(SYS_sched_setattr, tid, &plain, 0) < 0) ||
	    syscall(SYS_sched_setattr, tid, &attr, 0) < 0)
		return err_sys(e, -errno, "thread %d: sched_setattr", msg->tid);
	/* A change of the scheduling class sets the slack to the default, so that it comes last. */
	return msg->timer_slack_ns == DEFAULT_SLACK_NS ? 0 : thread_restore_slack(tid, msg, e);
}

static void plan_speculation(struct batch *b, uint64_t which, uint32_t mode)
{
	if ((mode & PR_SPEC_PRCTL) && (mode & SPEC_SETTABLE))
		batch_call(b, "prctl(PR_SET_SPECULATION_CTRL)", SYS_prctl, PR_SET_SPECULATION_CTRL, which, mode & SPEC_SETTABLE);
}

static void plan_modes(struct batch *b, const Gw__Thread *msg)
{
	batch_call(b, "prctl(PR_SET_NAME)", SYS_prctl, PR_SET_NAME, batch_string(b, msg->name));
	if (msg->timer_slack_ns)
		batch_call(b, "prctl(PR_SET_TIMERSLACK)", SYS_prctl, PR_SET_TIMERSLACK, msg->timer_slack_ns);
	if (msg->mce_kill != PR_MCE_KILL_DEFAULT)
		batch_call(b, "prctl(PR_MCE_KILL)", SYS_prctl, PR_MCE_KILL, PR_MCE_KILL_SET, msg->mce_kill);
	if (msg->tsc_mode == PR_TSC_SIGSEGV)
		batch_call(b, "prctl(PR_SET_TSC)", SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV);
	mempolicy_plan_set(b, msg->memory_policy);
	if (msg->cpuid_faults)
		batch_call(b, "arch_prctl(ARCH_SET_CPUID)", SYS_arch_prctl, THREAD_ARCH_SET_CPUID, 0);
	thread_fs_plan(b, msg);
	plan_speculation(b, PR_SPEC_STORE_BYPASS, msg->spec_store_bypass);
	plan_speculation(b, PR_SPEC_INDIRECT_BRANCH, msg->spec_indirect_branch);
	/* This one is off by default, and PR_SPEC_ENABLE turns the flushing on. */
	if ((msg->spec_l1d_flush & PR_SPEC_PRCTL) && (msg->spec_l1d_flush & PR_SPEC_ENABLE))
		batch_call(b, "prctl(PR_SET_SPECULATION_CTRL)", SYS_prctl, PR_SET_SPECULATION_CTRL, PR_SPEC_L1D_FLUSH, PR_SPEC_ENABLE);
}

static void plan_privileges(struct batch *b, const Gw__Thread *msg)
{
	if (msg->no_new_privs)
		batch_call(b, "prctl(PR_SET_NO_NEW_PRIVS)", SYS_prctl, PR_SET_NO_NEW_PRIVS, 1);
	/* after the ids: changing them clears it */
	if (msg->pdeath_signal)
		batch_call(b, "prctl(PR_SET_PDEATHSIG)", SYS_prctl, PR_SET_PDEATHSIG, msg->pdeath_signal);
}

int thread_plan_restore(struct batch *b, const Gw__Thread *msg, enum thread_stage stage, struct err *e)
{
	int rc;

	if (stage == THREAD_MODES) {
		plan_modes(b, msg);
		return 0;
	}
	rc = stage == THREAD_CREDENTIALS ? cred_plan_restore(b, msg->credentials, e) : 0;
	if (rc < 0)
		return err_wrap(e, "thread %d", msg->tid);
	plan_privileges(b, msg);
	return 0;
}

void thread_plan_memory(struct batch *b, const Gw__Thread *msg)
{
	/* SS_ONSTACK tells where the thread stands, which the registers tell as well; it cannot be set */
	uint64_t altstack[3] = { msg->altstack_sp, msg->altstack_flags & (SS_AUTODISARM | SS_DISABLE), msg->altstack_size };

	batch_call(b, "sigaltstack", SYS_sigaltstack, batch_data(b, altstack, sizeof(altstack)), 0);
	if (msg->robust_list)
		batch_call(b, "set_robust_list", SYS_set_robust_list, msg->robust_list, msg->robust_list_len);
	batch_call(b, "set_tid_address", SYS_set_tid_address, msg->clear_tid);
	if (msg->rseq)
		batch_call(b, "rseq", SYS_rseq, msg->rseq, msg->rseq_len, 0, msg->rseq_signature);
}

int thread_apply_state(pid_t tid, const Gw__Thread *msg, const struct xstate_layout *source, struct err *e)
{
	uint8_t area[XSTATE_MAX];
	const size_t len = xstate_layout_here()->len;
	struct iovec iov = { area, len };
	int rc;

	if (len > sizeof(area))
		return err_set(e, -EOPNOTSUPP, "XSAVE area of %zu bytes", len);
	memset(area, 0, len);
	rc = xstate_translate(source, msg->xstate.data, msg->xstate.len, area, e);
	if (rc < 0)
		return err_wrap(e, "thread %d", msg->tid);
	if (ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &iov) < 0)
		return err_sys(e, -errno, "thread %d: setting XSAVE state", msg->tid);
	if (msg->syscall_dispatch.len && ptrace(THREAD_PTRACE_SET_DISPATCH, tid, msg->syscall_dispatch.len, msg->syscall_dispatch.data) < 0)
		return err_sys(e, -errno, "thread %d: setting system call dispatch", msg->tid);
	return 0;
}

int thread_apply_registers(pid_t tid, const Gw__Thread *msg, const struct xstate_layout *source, struct err *e)
{
	struct iovec iov = { msg->regs.data, msg->regs.len };
	uint64_t mask = msg->sigmask;
	int rc = thread_apply_state(tid, msg, source, e);

	if (rc < 0)
		return rc;
	if (ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &iov) < 0)
		return err_sys(e, -errno, "thread %d: setting registers", msg->tid);
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask) < 0)
		return err_sys(e, -errno, "thread %d: PTRACE_SETSIGMASK", msg->tid);
	return 0;
}
