/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* trace.c - stopping threads, and the first system calls inside a foreign process; see trace.h and ptrace(2) */
#include "kern/trace.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "base/util.h"

#define PF_IO_WORKER 0x10u
#define PF_USER_WORKER 0x4000u
#define VDSO_MAX 65536
#define STOP_WAIT_S 1
#define STOP_SPIN_NS 60000ull /* no longer: the thread may be waiting for this very CPU */

static bool has_ended(pid_t tid)
{
	char path[64], text[512];
	cleanup_close int fd = -1;
	const char *end;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = 0;
	end = strrchr(text, ')');
	return !end || strchr("ZXx", end[2]);
}

int trace_seize(pid_t tid, unsigned long options, struct err *e)
{
	int code;

	if (ptrace(PTRACE_SEIZE, tid, 0, options) == 0)
		return 0;
	code = errno;
	if (code == EPERM && has_ended(tid)) /* that is what ptrace(2) says of those, too */
		code = ESRCH;
	return err_sys(e, code, "thread %d: cannot be stopped%s", tid, code == EPERM ? " (is a debugger attached to it?)" : "");
}

int trace_interrupt(pid_t tid, struct err *e)
{
	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
		return err_sys(e, errno, "thread %d: stopping", tid);
	return 0;
}

static void on_alarm(int sig)
{
}

/* Sleeps until the thread stops, for STOP_WAIT_S at most: waitpid(2) has no limit of its own. */
static pid_t wait_sleeping(pid_t tid, int *status)
{
	const struct sigaction ring = { .sa_handler = on_alarm };
	const struct itimerval limit = { { 0, 50000 }, { STOP_WAIT_S, 0 } }, none = { { 0, 0 }, { 0, 0 } };
	struct sigaction before;
	pid_t got;
	int code;

	sigaction(SIGALRM, &ring, &before);
	setitimer(ITIMER_REAL, &limit, NULL); /* rings on, in case that it rings just before the wait */
	got = waitpid(tid, status, __WALL);
	code = errno == EINTR ? ETIMEDOUT : errno;
	setitimer(ITIMER_REAL, &none, NULL);
	sigaction(SIGALRM, &before, NULL);
	errno = code;
	return got;
}

/* A stop takes a few microseconds, waking this CPU again many: look for it for a while before going to sleep. */
static pid_t wait_spinning(pid_t tid, bool limited, int *status)
{
	uint64_t end = clock_ns(CLOCK_MONOTONIC) + STOP_SPIN_NS;
	pid_t got;

	while ((got = waitpid(tid, status, __WALL | WNOHANG)) == 0)
		if (clock_ns(CLOCK_MONOTONIC) > end)
			return limited ? wait_sleeping(tid, status) : waitpid(tid, status, __WALL);
	return got;
}

static int wait_stop(pid_t tid, bool limited, int *ret_signal, struct err *e)
{
	for (;;) {
		int status;

		if (wait_spinning(tid, limited, &status) < 0)
			return errno == ETIMEDOUT ? err_set(e, -ETIMEDOUT, "thread %d cannot be stopped: it waits for a device, or for a child that it made with vfork; try again later", tid) :
						    err_sys(e, errno, "thread %d: waiting for its stop", tid);
		if (!WIFSTOPPED(status))
			return err_set(e, -ESRCH, "thread %d ended meanwhile", tid);
		if (status >> 16 == PTRACE_EVENT_STOP) {
			*ret_signal = WSTOPSIG(status);
			return 0;
		}
		/* A signal on its way: its handler is entered, and the stop follows before the handler's first instruction. */
		if (ptrace(PTRACE_CONT, tid, 0, status >> 16 ? 0 : WSTOPSIG(status)) < 0)
			return err_sys(e, errno, "thread %d: passing signal %d", tid, WSTOPSIG(status));
	}
}

int trace_wait_stop(pid_t tid, struct err *e)
{
	int ignored;

	return wait_stop(tid, false, &ignored, e);
}

int trace_wait_stop_signal(pid_t tid, int *ret_signal, struct err *e)
{
	return wait_stop(tid, false, ret_signal, e);
}

int trace_try_stop(pid_t tid, int *ret_signal, struct err *e)
{
	return wait_stop(tid, true, ret_signal, e);
}

int trace_detach(pid_t tid, struct err *e)
{
	if (ptrace(PTRACE_DETACH, tid, 0, 0) < 0)
		return err_sys(e, errno, "thread %d: letting go", tid);
	return 0;
}

int trace_get_regs(pid_t tid, struct user_regs_struct *ret_regs, struct err *e)
{
	struct iovec iov = { ret_regs, sizeof(*ret_regs) };

	if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &iov) < 0)
		return err_sys(e, errno, "thread %d: reading registers", tid);
	if (iov.iov_len != sizeof(*ret_regs))
		return err_set(e, -EOPNOTSUPP, "thread %d is a 32-bit one", tid);
	return 0;
}

int trace_set_regs(pid_t tid, const struct user_regs_struct *regs, struct err *e)
{
	struct iovec iov = { (void *)(uintptr_t)regs, sizeof(*regs) };

	if (ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &iov) < 0)
		return err_sys(e, errno, "thread %d: setting registers", tid);
	return 0;
}

int trace_get_mask(pid_t tid, uint64_t *ret_mask, struct err *e)
{
	if (ptrace(PTRACE_GETSIGMASK, tid, sizeof(*ret_mask), ret_mask) < 0)
		return err_sys(e, errno, "thread %d: reading the signal mask", tid);
	return 0;
}

int trace_set_mask(pid_t tid, uint64_t mask, struct err *e)
{
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof(mask), &mask) < 0)
		return err_sys(e, errno, "thread %d: setting the signal mask", tid);
	return 0;
}

static int compare_pids(const void *a, const void *b)
{
	return *(const pid_t *)a - *(const pid_t *)b;
}

bool trace_expects_workers = true;

/* Threads of the kernel's own in the process (of io_uring, vhost): none that could be traced, or that the program knows. */
static bool is_worker(pid_t pid, const char *tid)
{
	char path[80], text[512], *rest;
	unsigned flags = 0;
	ssize_t n;
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/stat", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = 0;
	rest = strrchr(text, ')');
	return rest && sscanf(rest, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && (flags & (PF_IO_WORKER | PF_USER_WORKER));
}

int trace_list_threads(pid_t pid, pid_t **ret_tids, size_t *ret_n, struct err *e)
{
	cleanup_closedir DIR *dir = NULL;
	cleanup_free pid_t *tids = NULL;
	size_t n = 0, capacity = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	if (!dir)
		return err_sys(e, errno == ENOENT ? ESRCH : errno, "process %d", pid);
	for (struct dirent *d; (d = readdir(dir));) {
		if (d->d_name[0] == '.' || (trace_expects_workers && is_worker(pid, d->d_name)))
			continue;
		if (n == capacity) {
			pid_t *grown = realloc(tids, (capacity = capacity ? capacity * 2 : 64) * sizeof(*tids));
			if (!grown)
				return err_sys(e, ENOMEM, "process %d: listing threads", pid);
			tids = grown;
		}
		tids[n++] = atoi(d->d_name);
	}
	if (!n)
		return err_sys(e, ESRCH, "process %d", pid);
	qsort(tids, n, sizeof(*tids), compare_pids);
	*ret_tids = take_ptr(tids);
	*ret_n = n;
	return 0;
}

static int find_vdso(pid_t pid, uint64_t *ret_start, uint64_t *ret_end, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[512];

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return err_sys(e, errno, "%s", path);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "[vdso]") && sscanf(line, "%" SCNx64 "-%" SCNx64, ret_start, ret_end) == 2)
			return 0;
	return err_set(e, -EOPNOTSUPP, "process %d has no vdso mapping", pid);
}

int trace_find_tail(pid_t pid, uint64_t *ret_start, struct err *e)
{
	uint64_t start, end;
	int ret = find_vdso(pid, &start, &end, e);

	if (ret == 0)
		*ret_start = end - TRACE_TAIL_BYTES;
	return ret;
}

const uint8_t trace_errand_head[TRACE_ERRAND_HEAD] = { 0x0f, 0x05, 0x48, 0x89, 0xc1, 0xe3, 0x02, 0xeb, 0x0f, 0xb8, 60, 0, 0, 0, 0x0f, 0x05 };

int trace_find_gadget(pid_t pid, uint64_t *ret_syscall, size_t room_bytes, uint64_t *ret_room, struct err *e)
{
	uint8_t text[VDSO_MAX];
	uint64_t start, end;
	cleanup_close int mem = -1;
	char path[64];
	size_t len, used, free_end;
	int ret = find_vdso(pid, &start, &end, e);

	if (ret < 0)
		return ret;
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	if (mem < 0)
		return err_sys(e, errno, "%s", path);
	len = MIN(end - start, sizeof(text));
	ret = trace_peek(mem, start, text, len, e);
	if (ret < 0)
		return ret;
	used = len;
	if (room_bytes > TRACE_TAIL_BYTES && len > TRACE_TAIL_BYTES)
		used -= TRACE_TAIL_BYTES;
	free_end = used;
	/* What a worker that died in between has left there may be written over. */
	if (room_bytes && used > room_bytes && !memcmp(text + used - room_bytes, trace_errand_head, 5))
		used -= room_bytes;
	while (used && !text[used - 1])
		used--;
	if (ret_room)
		*ret_room = free_end - used >= room_bytes + 16 ? start + free_end - room_bytes : 0;
	for (size_t i = 0; i + 1 < used; i++)
		if (text[i] == 0x0f && text[i + 1] == 0x05) {
			*ret_syscall = start + i;
			return 0;
		}
	return err_set(e, -EOPNOTSUPP, "the vdso of process %d has no syscall instruction", pid);
}

pid_t trace_event_task(pid_t tid, int status)
{
	unsigned long task = 0;

	if (status >> 16 != PTRACE_EVENT_CLONE || ptrace(PTRACE_GETEVENTMSG, tid, 0, &task) < 0)
		return 0;
	return (pid_t)task;
}

void trace_regs_to_call(struct user_regs_struct *regs, uint64_t at, const uint64_t call[7])
{
	regs->rax = call[0];
	regs->rdi = call[1];
	regs->rsi = call[2];
	regs->rdx = call[3];
	regs->r10 = call[4];
	regs->r8 = call[5];
	regs->r9 = call[6];
	regs->rip = at;
	regs->orig_rax = (unsigned long long)-1;
}

/* *ret_made: the task that the call has made, if any (PTRACE_O_TRACECLONE). */
static int run_call(pid_t tid, uint64_t gadget, const struct user_regs_struct *base, const uint64_t call[7], int64_t *ret_result, pid_t *ret_made,
		    struct err *e)
{
	struct user_regs_struct regs = *base;
	int status, ret;

	trace_regs_to_call(&regs, gadget, call);
	ret = trace_set_regs(tid, &regs, e);
	if (ret < 0)
		return ret;
	/* Not by single steps: their SIGTRAP, where it is blocked or ignored, makes the kernel forget the program's action for it. */
	for (int stops = 0; stops < 2;) {
		if (ptrace(PTRACE_SYSCALL, tid, 0, 0) < 0 || waitpid(tid, &status, __WALL) < 0)
			return err_sys(e, errno, "thread %d: running system call %" PRIu64, tid, call[0]);
		if (!WIFSTOPPED(status))
			return err_set(e, -ESRCH, "thread %d ended meanwhile", tid);
		stops += status >> 16 == 0 && WSTOPSIG(status) == SIGTRAP; /* the entry, the exit */
		if (status >> 16 == PTRACE_EVENT_CLONE)
			*ret_made = trace_event_task(tid, status);
	}
	ret = trace_get_regs(tid, &regs, e);
	if (ret < 0)
		return ret;
	*ret_result = (int64_t)regs.rax;
	return 0;
}

int trace_syscall(pid_t tid, uint64_t gadget, const struct user_regs_struct *base, const uint64_t call[7], int64_t *ret_result, struct err *e)
{
	pid_t ignored = 0;

	return run_call(tid, gadget, base, call, ret_result, &ignored, e);
}

int trace_clone(pid_t tid, uint64_t gadget, const struct user_regs_struct *base, const uint64_t call[7], pid_t *ret_made, struct err *e)
{
	int64_t result = 0;
	pid_t made = 0;
	int ret = run_call(tid, gadget, base, call, &result, &made, e);

	if (ret == 0 && result < 0)
		return err_sys(e, result == -513 /* ERESTARTNOINTR: it is being stopped */ ? -EAGAIN : (int)result, "thread %d: clone", tid);
	if (ret == 0 && !made)
		return err_set(e, -ESRCH, "thread %d: the kernel did not report a new task", tid);
	if (ret == 0)
		*ret_made = made;
	return ret;
}

int trace_enter_stub(pid_t tid, const struct scratch *s, unsigned slot, const struct user_regs_struct *base, struct err *e)
{
	struct user_regs_struct regs = *base;

	regs.rip = s->base + s->exec_delta;
	regs.rdi = scratch_slot_address(s, slot);
	regs.rsi = s->base + SCRATCH_HEADER;
	regs.rsp = slot ? SLOT_STACK_TOP(scratch_slot_address(s, slot)) : s->base + SCRATCH_AGENT_STACK_TOP - 64;
	regs.orig_rax = (unsigned long long)-1;
	regs.rax = 0;
	regs.eflags = (regs.eflags & ~0x400ull) | 0x200; /* direction flag down, interrupts on */
	return trace_set_regs(tid, &regs, e);
}

/* Nothing is read or written where the memory has gone meanwhile: the process has ended, or called exec since its memory was opened (proc_pid_mem(5)). */
static int memory_failed(ssize_t n, const char *doing, size_t len, uint64_t address, struct err *e)
{
	if (n == 0)
		return err_set(e, -ESRCH, "%s %zu bytes of memory at %#" PRIx64 ": it has ended or runs another program", doing, len, address);
	return err_sys(e, errno, "%s %zu bytes of memory at %#" PRIx64, doing, len, address);
}

int trace_peek(int mem_fd, uint64_t address, void *to, size_t len, struct err *e)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(mem_fd, (char *)to + done, len - done, (off_t)(address + done));

		if (n <= 0)
			return memory_failed(n, "reading", len, address, e);
		done += (size_t)n;
	}
	return 0;
}

int trace_poke(int mem_fd, uint64_t address, const void *from, size_t len, struct err *e)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(mem_fd, (const char *)from + done, len - done, (off_t)(address + done));

		if (n <= 0)
			return memory_failed(n, "writing", len, address, e);
		done += (size_t)n;
	}
	return 0;
}
