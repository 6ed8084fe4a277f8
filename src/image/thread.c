/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* thread.c - one thread: capture and validation; see thread.h. Restoring is in thread_restore.c */
#include "image/thread.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rseq.h>
#include <sched.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/loginuid.h"
#include "image/restart.h"
#include "image/seccomp.h"
#include "image/thread_abi.h"
#include "image/thread_fs.h"

#define NAME_MAX_LEN 16
#define CODE_32BIT 0x23 /* __USER32_CS */

Gw__Thread *thread_new(pid_t tid)
{
	Gw__Thread *msg = must_alloc(sizeof(*msg));

	gw__thread__init(msg);
	msg->tid = tid;
	return msg;
}

static Gw__Credentials *cred_of(Gw__Thread *msg)
{
	if (!msg->credentials) {
		msg->credentials = must_alloc(sizeof(*msg->credentials));
		gw__credentials__init(msg->credentials);
	}
	return msg->credentials;
}

static void read_status(pid_t tid, FILE *f, Gw__Thread *msg, struct refusals *r)
{
	cleanup_free char *line = NULL;
	size_t size = 0;

	while (getline(&line, &size, f) > 0) {
		if (strncmp(line, "Seccomp:", 8) == 0)
			msg->seccomp_mode = (uint32_t)atoi(line + 8);
		if (strncmp(line, "x86_Thread_features:", 20) == 0 && strstr(line, "shstk"))
			refusals_add(r, "task.shadow-stack", "shadow stacks cannot move yet",
				     "start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off", "thread %d", tid);
	}
}

/* Of other classes than the ordinary ones the kernel tells the niceness elsewhere; it counts again when the thread leaves its class. */
static void fill_nice(struct thread_sched_attr *attr, long nice)
{
	if (attr->policy != SCHED_OTHER && attr->policy != SCHED_BATCH)
		attr->nice = (int32_t)nice;
}

int thread_capture_outside(pid_t pid, pid_t tid, Gw__Thread *msg, struct refusals *r, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	struct thread_sched_attr attr = { 0 };
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	f = fopen(path, "re");
	if (!f)
		return err_sys(e, -errno, "%s", path);
	msg->tid = tid;
	read_status(tid, f, msg, r);
	seccomp_check(msg, "source", r);
	if (syscall(SYS_sched_getattr, tid, &attr, sizeof(attr), 0) < 0)
		return err_sys(e, -errno, "thread %d: sched_getattr", tid);
	fill_nice(&attr, getpriority(PRIO_PROCESS, (id_t)tid));
	bytes_set(&msg->sched_attr, &attr, sizeof(attr));
	loginuid_check(pid, tid, r);
	if (thread_fs_offer(pid, tid, msg, r, e) < 0)
		return e ? e->code : -EIO;
	return cred_capture_outside(pid, tid, cred_of(msg), e);
}

static int capture_registers(pid_t tid, Gw__Thread *msg, struct err *e)
{
	uint8_t area[XSTATE_MAX]; /* filled by the kernel up to iov_len, the rest stays untouched */
	struct user_regs_struct regs;
	struct iovec iov = { &regs, sizeof(regs) };

	if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &iov) < 0)
		return err_sys(e, -errno, "thread %d: registers", tid);
	if (iov.iov_len != sizeof(regs) || regs.cs == CODE_32BIT)
		return err_set(e, -EBUSY, "thread %d is in 32-bit code, which cannot move", tid);
	bytes_set(&msg->regs, &regs, sizeof(regs));
	iov = (struct iovec){ area, sizeof(area) };
	if (ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &iov) < 0)
		return err_sys(e, -errno, "thread %d: XSAVE state", tid);
	if (iov.iov_len < XSTATE_LEGACY_LEN)
		return err_set(e, -EIO, "thread %d: XSAVE state of %zu bytes", tid, iov.iov_len);
	if (((const uint64_t *)(area + 512))[0] >> XSTATE_TILE_DATA & 1)
		return err_set(e, -EBUSY, "thread %d has data in AMX tiles, which cannot move; try again later", tid);
	bytes_set(&msg->xstate, area, xstate_used_len(area, iov.iov_len));
	iov = (struct iovec){ area, sizeof(area) };
	if (ptrace(PTRACE_GETREGSET, tid, NT_386_IOPERM, &iov) == 0)
		return err_set(e, -EBUSY, "thread %d has access to I/O ports (ioperm), which cannot move", tid);
	return 0;
}

static int capture_rseq(pid_t tid, Gw__Thread *msg, struct err *e)
{
	struct __ptrace_rseq_configuration rseq = { 0 };

	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof(rseq), &rseq) < 0) {
		if (errno == EIO) /* a kernel without it: nobody can have registered anything that we could know of */
			return err_set(e, -EOPNOTSUPP, "this kernel lacks PTRACE_GET_RSEQ_CONFIGURATION");
		return err_sys(e, -errno, "thread %d: PTRACE_GET_RSEQ_CONFIGURATION", tid);
	}
	msg->rseq = rseq.rseq_abi_pointer;
	msg->rseq_len = rseq.rseq_abi_pointer ? rseq.rseq_abi_size : 0;
	msg->rseq_signature = rseq.signature;
	return 0;
}

int thread_capture_stopped(pid_t tid, Gw__Thread *msg, struct err *e)
{
	struct thread_syscall_dispatch dispatch = { 0 };
	uint64_t mask = 0;
	void *head = NULL;
	size_t len = 0;
	int rc;

	msg->tid = tid;
	rc = capture_registers(tid, msg, e);
	if (rc < 0)
		return rc;
	if (ptrace(PTRACE_GETSIGMASK, tid, sizeof(mask), &mask) < 0)
		return err_sys(e, -errno, "thread %d: PTRACE_GETSIGMASK", tid);
	msg->sigmask = mask;
	rc = signal_peek(tid, false, &msg->pending, e);
	if (rc < 0)
		return rc;
	rc = capture_rseq(tid, msg, e);
	if (rc == 0)
		rc = seccomp_capture(tid, msg, e);
	if (rc < 0)
		return rc;
	/* What a parked thread does would be handed to the program. */
	if (ptrace(THREAD_PTRACE_GET_DISPATCH, tid, sizeof(dispatch), &dispatch) == 0 && dispatch.mode)
		return err_set(e, -EBUSY, "thread %d has its system calls handed to the program since the offer (PR_SET_SYSCALL_USER_DISPATCH), which cannot move", tid);
	if (syscall(SYS_get_robust_list, tid, &head, &len) < 0)
		return err_sys(e, -errno, "thread %d: get_robust_list", tid);
	msg->robust_list = (uint64_t)(uintptr_t)head;
	msg->robust_list_len = len;
	return 0;
}

static void plan_modes(struct batch *b, struct thread_query *q)
{
	uint64_t at;

	q->pdeath_signal = batch_space(b, sizeof(int), &at);
	batch_call(b, "prctl(PR_GET_PDEATHSIG)", SYS_prctl, PR_GET_PDEATHSIG, at);
	q->tsc_mode = batch_space(b, sizeof(int), &at);
	batch_call(b, "prctl(PR_GET_TSC)", SYS_prctl, PR_GET_TSC, at);
	q->name = batch_space(b, NAME_MAX_LEN, &at);
	batch_call(b, "prctl(PR_GET_NAME)", SYS_prctl, PR_GET_NAME, at);
	q->slack = batch_call(b, "prctl(PR_GET_TIMERSLACK)", SYS_prctl, PR_GET_TIMERSLACK);
	q->no_new_privs = batch_call(b, "prctl(PR_GET_NO_NEW_PRIVS)", SYS_prctl, PR_GET_NO_NEW_PRIVS);
	q->mce_kill = batch_try(b, "prctl(PR_MCE_KILL_GET)", SYS_prctl, PR_MCE_KILL_GET);
	q->cpuid = batch_try(b, "arch_prctl(ARCH_GET_CPUID)", SYS_arch_prctl, THREAD_ARCH_GET_CPUID);
	q->spec_store_bypass = batch_try(b, "prctl(PR_GET_SPECULATION_CTRL)", SYS_prctl, PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS);
	q->spec_indirect_branch =
		batch_try(b, "prctl(PR_GET_SPECULATION_CTRL)", SYS_prctl, PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH);
	q->spec_l1d_flush = batch_try(b, "prctl(PR_GET_SPECULATION_CTRL)", SYS_prctl, PR_GET_SPECULATION_CTRL, PR_SPEC_L1D_FLUSH);
	q->seccomp = batch_try(b, "prctl(PR_GET_SECCOMP)", SYS_prctl, PR_GET_SECCOMP);
}

/* Read once, when lists are planned: sysconf opens files in /sys. */
static unsigned online_cpus(void)
{
	static unsigned online;

	if (!online)
		online = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	return online;
}

void thread_capture_plan(struct batch *b, struct thread_query *q, const Gw__Thread *offered)
{
	uint64_t at;

	online_cpus();
	*q = (struct thread_query){ .offered = offered };
	q->altstack = batch_space(b, sizeof(stack_t), &at);
	batch_call(b, "sigaltstack", SYS_sigaltstack, 0, at);
	q->clear_tid = batch_space(b, sizeof(uint64_t), &at);
	batch_call(b, "prctl(PR_GET_TID_ADDRESS)", SYS_prctl, PR_GET_TID_ADDRESS, at);
	q->sched_attr = batch_space(b, sizeof(struct thread_sched_attr), &at);
	batch_call(b, "sched_getattr", SYS_sched_getattr, 0, at, sizeof(struct thread_sched_attr), 0);
	q->nice = batch_call(b, "getpriority", SYS_getpriority, PRIO_PROCESS, 0);
	q->affinity = batch_space(b, THREAD_AFFINITY_MAX, &at);
	q->affinity_call = batch_call(b, "sched_getaffinity", SYS_sched_getaffinity, 0, THREAD_AFFINITY_MAX, at);
	q->ioprio = batch_call(b, "ioprio_get", SYS_ioprio_get, THREAD_IOPRIO_WHO_PROCESS, 0);
	plan_modes(b, q);
	mempolicy_plan_get(b, 0, &q->mempolicy);
	signal_capture_plan(b, &q->signals, false);
	cred_capture_plan(b, &q->cred, offered ? offered->credentials : NULL);
}

static unsigned bits_in(const uint8_t *mask, size_t len)
{
	unsigned n = 0;

	for (size_t i = 0; i < len; i++)
		n += (unsigned)__builtin_popcount(mask[i]);
	return n;
}

static uint32_t optional(const struct remote_call *call)
{
	return call->ret < 0 ? 0 : (uint32_t)call->ret;
}

static void collect_sched(const struct thread_query *q, Gw__Thread *msg)
{
	struct thread_sched_attr attr;
	size_t len = (size_t)q->affinity_call->ret;

	memcpy(&attr, q->sched_attr, sizeof(attr));
	fill_nice(&attr, 20 - q->nice->ret);
	bytes_set(&msg->sched_attr, &attr, sizeof(attr));
	bytes_set(&msg->affinity, NULL, 0);
	if (bits_in(q->affinity, len) < online_cpus())
		bytes_set(&msg->affinity, q->affinity, len);
	msg->ioprio = (uint32_t)q->ioprio->ret;
	msg->timer_slack_ns = (uint64_t)q->slack->ret;
}

int thread_capture_collect(const struct thread_query *q, Gw__Thread *msg, ProtobufCBinaryData *shared, bool is_main, struct err *e)
{
	char name[NAME_MAX_LEN + 1] = "";

	msg->seccomp_mode = optional(q->seccomp);
	memcpy(name, q->name, NAME_MAX_LEN);
	string_set(&msg->name, name);
	msg->altstack_sp = q->altstack[0];
	msg->altstack_flags = (uint32_t)q->altstack[1];
	msg->altstack_size = q->altstack[2];
	msg->clear_tid = *q->clear_tid;
	msg->pdeath_signal = (uint32_t)*q->pdeath_signal;
	msg->tsc_mode = (uint32_t)*q->tsc_mode;
	msg->no_new_privs = q->no_new_privs->ret;
	msg->mce_kill = optional(q->mce_kill);
	msg->cpuid_faults = q->cpuid->ret == 0;
	msg->spec_store_bypass = optional(q->spec_store_bypass);
	msg->spec_indirect_branch = optional(q->spec_indirect_branch);
	msg->spec_l1d_flush = optional(q->spec_l1d_flush);
	collect_sched(q, msg);
	if (msg->memory_policy)
		gw__memory_policy__free_unpacked(msg->memory_policy, NULL);
	msg->memory_policy = mempolicy_collect(&q->mempolicy);
	if (is_main)
		signal_complete(&q->signals, msg->tid, shared, &msg->pending);
	else
		signal_complete(&q->signals, msg->tid, &msg->pending, shared);
	return cred_capture_collect(&q->cred, cred_of(msg), e);
}

int rseq_abort_fix(pid_t pid, const Gw__Thread *msg, struct user_regs_struct *regs, struct err *e)
{
	struct rseq_cs cs;
	uint64_t at = 0, zero = 0;
	uint32_t signature = 0;
	struct iovec local = { &at, sizeof(at) }, remote = { (void *)(uintptr_t)(msg->rseq + offsetof(struct rseq, rseq_cs)), sizeof(at) };

	if (!msg->rseq)
		return 0;
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != sizeof(at))
		return err_sys(e, -errno, "thread %d: rseq area", msg->tid);
	if (!at)
		return 0;
	local = (struct iovec){ &zero, sizeof(zero) };
	if (process_vm_writev(pid, &local, 1, &remote, 1, 0) != sizeof(zero))
		return err_sys(e, -errno, "thread %d: rseq area", msg->tid);
	local = (struct iovec){ &cs, sizeof(cs) };
	remote = (struct iovec){ (void *)(uintptr_t)at, sizeof(cs) };
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != sizeof(cs))
		return err_sys(e, -errno, "thread %d: rseq critical section", msg->tid);
	if (regs->rip - cs.start_ip >= cs.post_commit_offset)
		return 0;
	local = (struct iovec){ &signature, sizeof(signature) };
	remote = (struct iovec){ (void *)(uintptr_t)(cs.abort_ip - sizeof(signature)), sizeof(signature) };
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != sizeof(signature))
		return err_sys(e, -errno, "thread %d: rseq abort handler", msg->tid);
	if (cs.version || signature != msg->rseq_signature)
		return err_set(e, -EINVAL, "thread %d: its restartable sequence is malformed; the kernel would kill it", msg->tid);
	regs->rip = cs.abort_ip;
	return 1;
}

int thread_encode(const Gw__Thread *msg, uint8_t **ret_data, size_t *ret_len)
{
	*ret_len = gw__thread__get_packed_size(msg);
	*ret_data = must_alloc(*ret_len);
	gw__thread__pack(msg, *ret_data);
	return 0;
}

int thread_decode(const void *data, size_t len, Gw__Thread **ret_msg, struct err *e)
{
	Gw__Thread *msg = gw__thread__unpack(NULL, len, data);
	int rc;

	if (!msg)
		return err_set(e, -EBADMSG, "not a thread's message");
	rc = thread_validate(msg, e);
	if (rc < 0) {
		gw__thread__free_unpacked(msg, NULL);
		return rc;
	}
	*ret_msg = msg;
	return 0;
}

static int validate_sched(const Gw__Thread *msg, struct err *e)
{
	struct thread_sched_attr attr;

	if (msg->sched_attr.len != sizeof(attr) || msg->affinity.len > THREAD_AFFINITY_MAX)
		return err_set(e, -EBADMSG, "thread %d: scheduling is incomplete", msg->tid);
	memcpy(&attr, msg->sched_attr.data, sizeof(attr));
	if (attr.policy > POLICY_EXT || attr.nice < -20 || attr.nice > 19 || attr.priority > 99)
		return err_set(e, -EBADMSG, "thread %d: scheduling policy %u, nice %d, priority %u", msg->tid, attr.policy, attr.nice,
			       attr.priority);
	if (attr.policy == POLICY_DEADLINE && (!attr.runtime || attr.runtime > attr.deadline || attr.deadline > attr.period || attr.period > INT64_MAX))
		return err_set(e, -EBADMSG, "thread %d: deadline parameters %llu, %llu, %llu", msg->tid, (unsigned long long)attr.runtime,
			       (unsigned long long)attr.deadline, (unsigned long long)attr.period);
	return 0;
}

int thread_validate(const Gw__Thread *msg, struct err *e)
{
	int rc;

	if (msg->tid <= 0 || msg->tid > 0x400000)
		return err_set(e, -EBADMSG, "thread id %d", msg->tid);
	if (strlen(msg->name) >= NAME_MAX_LEN)
		return err_set(e, -EBADMSG, "thread %d: its name is too long", msg->tid);
	/* empty registers: a message of the offer */
	if (msg->regs.len && (msg->regs.len != sizeof(struct user_regs_struct) || msg->xstate.len < XSTATE_LEGACY_LEN ||
			      msg->xstate.len > XSTATE_MAX))
		return err_set(e, -EBADMSG, "thread %d: registers of %zu and %zu bytes", msg->tid, msg->regs.len, msg->xstate.len);
	if (msg->syscall_dispatch.len && msg->syscall_dispatch.len != sizeof(struct thread_syscall_dispatch))
		return err_set(e, -EBADMSG, "thread %d: system call dispatch of %zu bytes", msg->tid, msg->syscall_dispatch.len);
	if (msg->pdeath_signal > SIGNAL_COUNT)
		return err_set(e, -EBADMSG, "thread %d: value out of range", msg->tid);
	rc = validate_sched(msg, e);
	if (rc == 0)
		rc = mempolicy_validate(msg->memory_policy, e);
	if (rc == 0)
		rc = seccomp_validate(msg, e);
	if (rc == 0)
		rc = restart_validate(msg->restart, e);
	if (rc == 0)
		rc = thread_fs_validate(msg, e);
	if (rc < 0)
		return rc;
	rc = signal_validate_queue(&msg->pending, e);
	return rc < 0 ? rc : cred_validate(msg->credentials, e);
}
