/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * borrow.c - a thread of a running process runs system calls for the worker; see borrow.h
 */
#include "migrate/borrow.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/partial.h"
#include "image/restart.h"
#include "image/seccomp.h"
#include "image/thread.h"
#include "kern/trace.h"
#include "migrate/hold.h"

#define RECORDS_MAX 4096

/* System calls that return EINTR after any stop, or start over with all of their time; all others are gone on with by the kernel itself. */
static bool minds_a_stop(long nr)
{
	static const long calls[] = { SYS_epoll_wait, SYS_epoll_pwait, 441 /* epoll_pwait2 */, SYS_rt_sigtimedwait, SYS_semop, SYS_semtimedop, SYS_io_getevents, SYS_io_pgetevents,
				      SYS_msgrcv, SYS_msgsnd, SYS_accept, SYS_accept4, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg, SYS_sendto, SYS_sendmsg, SYS_write, SYS_writev, SYS_sendfile };

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i] == nr)
			return true;
	return false;
}

/*
 * The thread that is least disturbed by a stop; one without a system call filter first, since the agent inherits it. The main thread last: while that one is traced
 * the kernel keeps signals to the process that nothing follows, and ends another thread's call for them.
 */
static pid_t pick_thread(pid_t pid)
{
	cleanup_free pid_t *tids = NULL;
	pid_t filtered = 0;
	size_t n = 0;

	if (trace_list_threads(pid, &tids, &n, NULL) < 0)
		return pid;
	n = MIN(n, 64ul);
	for (size_t i = 1; i <= n; i++) {
		char path[64], text[64] = "";
		cleanup_fclose FILE *f = NULL;
		pid_t tid = tids[i % n];

		snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
		f = fopen(path, "re");
		if (!f || !fgets(text, sizeof(text), f) || minds_a_stop(text[0] == 'r' ? -1 : atol(text)))
			continue;
		if (!seccomp_mode_of(tid))
			return tid;
		filtered = tid;
	}
	return filtered ? filtered : pid;
}

/* What a thread in a ptrace stop is to go on with. */
static int regs_to_go_on(pid_t tid, const struct restart_context *context, struct user_regs_struct *ret_regs, struct err *e)
{
	pid_t pid = context->pid;
	struct restart_now now = restart_now_read(0, 0);
	Gw__Thread *msg = thread_new(tid);
	int ret = thread_capture_stopped(tid, msg, e);

	if (ret == 0) {
		memcpy(ret_regs, msg->regs.data, sizeof(*ret_regs));
		ret = rseq_abort_fix(pid, msg, ret_regs, e);
		memcpy(msg->regs.data, ret_regs, sizeof(*ret_regs));
	}
	/* restart_syscall, which the kernel would make of -516, may be forbidden by a filter that knows the call itself. */
	if (ret >= 0 && (int64_t)ret_regs->orig_rax >= 0 && ((int64_t)ret_regs->rax == -EINTR || restart_has_all_time(ret_regs) || partial_may_be(ret_regs) || (msg->n_seccomp_filters && (int64_t)ret_regs->rax == -516))) {
		ret = restart_capture(msg, context, e);
		memcpy(ret_regs, msg->regs.data, sizeof(*ret_regs));
		if (ret == 0 && msg->restart && (context->before || msg->n_seccomp_filters || msg->restart->kind == GW__RESTART__KIND__PARTIAL))
			restart_finish_in(pid, ret_regs, msg->restart, &now);
	}
	gw__thread__free_unpacked(msg, NULL);
	return ret < 0 ? ret : 0;
}

static uint8_t *put_mov(uint8_t *p, unsigned reg, uint64_t value)
{
	*p++ = reg < 8 ? 0x48 : 0x49; /* movabs $value, %reg; leaves the flags alone, as everything here does */
	*p++ = (uint8_t)(0xb8 + reg % 8);
	memcpy(p, &value, sizeof(value));
	return p + sizeof(value);
}

static void make_errand(uint8_t code[ERRAND_BYTES], const struct user_regs_struct *regs, uint64_t mask, bool clones)
{
	/* The head: syscall; mov %rax,%rcx; jrcxz 1f; jmp 2f; 1: mov $60,%eax; syscall; mask: .quad; 2: rt_sigprocmask(SIG_SETMASK, &mask, NULL, 8) */
	static const uint8_t unmask[] = { 0xb8, 14, 0, 0, 0, 0xbf, 2, 0, 0, 0, 0x48, 0x8d, 0x35, 0xce, 0xff, 0xff, 0xff, 0xba, 0, 0, 0, 0, 0x41, 0xba, 8, 0,
					  0, 0, 0x0f, 0x05 };
	/* wait4(%eax, NULL, __WALL, NULL) */
	static const uint8_t reap[] = { 0x89, 0xc7, 0xbe, 0, 0, 0, 0, 0xba, 0, 0, 0, 0x40, 0x41, 0xba, 0, 0, 0, 0, 0xb8, 61, 0, 0, 0, 0x0f, 0x05 };
	struct user_regs_struct r = *regs;
	uint8_t *p = code;

	restart_to_call(&r);
	memset(code, 0, ERRAND_BYTES);
	memcpy(p, trace_errand_head, sizeof(trace_errand_head));
	memcpy(p + sizeof(trace_errand_head), &mask, sizeof(mask));
	if (!clones)
		memset(p + 5, 0x90, 2); /* no jrcxz: a result of 0 is no child */
	p += sizeof(trace_errand_head) + sizeof(mask);
	memset(p, 0x90, sizeof(reap));
	if (clones)
		memcpy(p, reap, sizeof(reap));
	p += sizeof(reap);
	memcpy(p, unmask, sizeof(unmask));
	p += sizeof(unmask);
	const uint64_t values[] = { r.rax, r.rcx, r.rdx, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11 };
	static const uint8_t numbers[] = { 0, 1, 2, 6, 7, 8, 9, 10, 11 };

	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		p = put_mov(p, numbers[i], values[i]);
	memcpy(p, (uint8_t[]){ 0xff, 0x25, 0, 0, 0, 0 }, 6); /* jmp *0(%rip) */
	memcpy(p + 6, &r.rip, 8);
}

/* NULL where there is none; *ret_records is to be freed. */
static const struct restart_record *read_record(struct restart_watch *watch, pid_t tid, struct restart_record **ret_records)
{
	int n;

	*ret_records = watch ? malloc(RECORDS_MAX * sizeof(**ret_records)) : NULL; /* a megabyte, of which next to nothing is filled */
	n = *ret_records ? restart_watch_read(watch, *ret_records, RECORDS_MAX, NULL) : 0;
	return n > 0 ? restart_record_find(*ret_records, (size_t)n, tid) : NULL;
}

static int stop_one(pid_t tid, int *ret_signal, struct err *e)
{
	int ret = trace_seize(tid, 0, e);

	if (ret < 0)
		return ret;
	ret = trace_interrupt(tid, e);
	return ret < 0 ? ret : trace_try_stop(tid, ret_signal, e);
}

void borrow_let_go(pid_t pid, pid_t tid, int signal)
{
	const struct restart_context context = { .pid = pid, .tid = tid, .stopped = signal != SIGTRAP };
	struct user_regs_struct regs;

	if (regs_to_go_on(tid, &context, &regs, NULL) == 0)
		trace_set_regs(tid, &regs, NULL);
	trace_detach(tid, NULL);
}

uint64_t borrow_ask_where(pid_t pid, pid_t tid)
{
	struct user_regs_struct regs;
	int signal = SIGTRAP;

	if (trace_seize(tid, 0, NULL) < 0)
		return 0;
	if (trace_interrupt(tid, NULL) < 0 || trace_try_stop(tid, &signal, NULL) < 0 || trace_get_regs(tid, &regs, NULL) < 0)
		regs.rip = 0;
	borrow_let_go(pid, tid, signal);
	return regs.rip;
}

int borrow_thread(pid_t pid, uint64_t errand, struct restart_watch *watch, struct borrowed *ret, struct err *e)
{
	struct borrowed b = { .tid = pick_thread(pid), .errand = errand, .mem = -1 };
	struct restart_record *records[2] = { NULL };
	struct restart_context context = { .pid = pid, .tid = b.tid };
	const unsigned long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE;
	int signal = SIGTRAP, code;
	bool stopped = false;
	char path[64];

	context.before = read_record(watch, b.tid, &records[0]);
	b.filtered = seccomp_mode_of(b.tid);
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	b.mem = open(path, O_RDWR | O_CLOEXEC);
	b.held = hold_has(b.tid);
	code = b.mem < 0 ? err_sys(e, errno, "%s", path) : 0;
	if (b.held)
		signal = hold_signal(b.tid);
	else if (code == 0)
		code = stop_one(b.tid, &signal, e);
	stopped = code == 0 && !b.held;
	/* Only now: while its filters are out of force it may run nothing of the program. */
	if (code == 0 && ptrace(PTRACE_SETOPTIONS, b.tid, 0, options | (b.filtered ? SECCOMP_PTRACE_SUSPEND : 0)) < 0)
		code = err_sys(e, errno, "thread %d", b.tid);
	if (code == 0 && b.filtered)
		context.after = read_record(watch, b.tid, &records[1]);
	context.stopped = signal != SIGTRAP;
	if (code == 0)
		code = regs_to_go_on(b.tid, &context, &b.regs, e);
	free(records[0]);
	free(records[1]);
	if (code == 0)
		code = trace_get_mask(b.tid, &b.mask, e);
	if (code == 0) {
		*ret = b;
		return 0;
	}
	if (stopped)
		trace_detach(b.tid, NULL);
	close_fdp(&b.mem);
	return code;
}

int borrow_call(struct borrowed *b, const uint64_t call[7], int64_t *ret_result, struct err *e)
{
	struct user_regs_struct regs = b->regs;
	uint8_t code[ERRAND_BYTES];
	int status, ret;

	make_errand(code, &b->regs, b->mask, call[0] == SYS_clone);
	ret = trace_poke(b->mem, b->errand, code, sizeof(code), e);
	if (ret < 0)
		return ret;
	trace_regs_to_call(&regs, b->errand, call);
	ret = trace_set_regs(b->tid, &regs, e);
	if (ret == 0 && !b->masked) { /* in this order: from now on the errand would put it back */
		ret = trace_set_mask(b->tid, UINT64_MAX, e);
		b->masked = true;
	}
	for (int stops = 0; ret == 0 && stops < 2;) { /* the call's begin and its end */
		if (ptrace(PTRACE_SYSCALL, b->tid, 0, 0) < 0 || waitpid(b->tid, &status, __WALL) < 0)
			return err_sys(e, errno, "thread %d: running system call %" PRIu64, b->tid, call[0]);
		if (!WIFSTOPPED(status))
			return err_set(e, -ESRCH, "thread %d ended meanwhile", b->tid);
		stops += WSTOPSIG(status) == (SIGTRAP | 0x80);
		if (status >> 16 == PTRACE_EVENT_CLONE)
			b->made = trace_event_task(b->tid, status);
	}
	if (ret == 0)
		ret = trace_get_regs(b->tid, &regs, e);
	if (ret == 0)
		*ret_result = (int64_t)regs.rax;
	return ret;
}

/* Interrupted calls are gone on with by the kernel only from a stop of the kind that PTRACE_INTERRUPT makes. */
int borrow_return(struct borrowed *b, struct err *e)
{
	static const uint8_t nothing[ERRAND_BYTES];
	int ret = 0;

	if (b->masked) {
		ret = trace_interrupt(b->tid, e);
		if (ret == 0 && ptrace(PTRACE_CONT, b->tid, 0, 0) < 0)
			ret = err_sys(e, errno, "thread %d: going on", b->tid);
		if (ret == 0)
			ret = trace_wait_stop(b->tid, e);
		if (ret == 0)
			ret = trace_set_mask(b->tid, b->mask, e);
	}
	if (ret == 0)
		ret = trace_set_regs(b->tid, &b->regs, e);
	if (b->held)
		ptrace(PTRACE_SETOPTIONS, b->tid, 0, 0);
	else if (trace_detach(b->tid, ret ? NULL : e) < 0 && ret == 0)
		ret = -ESRCH;
	if (ret == 0)
		trace_poke(b->mem, b->errand, nothing, sizeof(nothing), NULL);
	close_fdp(&b->mem);
	return ret;
}

int borrow_for_call(pid_t pid, uint64_t errand, const uint64_t call[7], int64_t *ret_result, struct err *e)
{
	struct borrowed b;
	int back, ret = borrow_thread(pid, errand, NULL, &b, e);

	if (ret)
		return ret;
	ret = borrow_call(&b, call, ret_result, e);
	back = borrow_return(&b, ret ? NULL : e);
	return ret ? ret : back;
}
