/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * agent.c - making an agent in a running process, and taking it away again; see agent.h
 *
 * Theory of operation: a thread is stopped and made to run clone(CLONE_VM) at the vdso's syscall instruction, and the new task the same; the one in between ends,
 * so that the agent is nobody's child in the process. The agent, which is born traced and stopped, is then driven by single steps until the scratch is mapped, and
 * enters the stub. CLONE_FILES with close_range(CLOSE_RANGE_UNSHARE) right after gives it an empty descriptor table without copying the process's.
 */
#include "migrate/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/file_owner.h"
#include "image/ns.h"
#include "image/process_check.h"
#include "image/seccomp.h"
#include "image/thread.h"
#include "image/thread_abi.h"
#include "image/vma.h"
#include "kern/fdpass.h"
#include "kern/pagemap.h"
#include "kern/trace.h"
#include "migrate/agent_limits.h"
#include "migrate/borrow.h"
#include "migrate/keeper.h"
#include "migrate/pace.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif
#define USER_MODE_ONLY 1 /* UFFD_USER_MODE_ONLY: enough for asynchronous write protection, and needs no privilege */
#define ADOPTERS_MAX 16u
#define INTERRUPTED (-513) /* ERESTARTNOINTR: no clone while a signal waits that cannot be blocked */
#define AGENT_CLONE (CLONE_VM | CLONE_FILES | CLONE_PTRACE)

/* Calls in the new agent before it has any code: only while it is traced and stopped. */
static int agent_step(struct agent *a, const struct user_regs_struct *regs, const char *what, const uint64_t call[7], int64_t *ret_result, struct err *e)
{
	int ret = trace_syscall(a->pid, a->gadget, regs, call, ret_result, e);

	if (ret == 0 && *ret_result < 0 && *ret_result > -4096)
		ret = err_sys(e, (int)*ret_result, "agent: %s", what);
	return ret;
}

/* memfd_create needs a name in the process's memory: a page that lives as long as the call. */
static int make_memfd(struct agent *a, const struct user_regs_struct *regs, struct err *e)
{
	int64_t page, fd, ignored;
	cleanup_close int mem = -1;
	char path[64];
	int ret;

	ret = agent_step(a, regs, "close_range", (const uint64_t[7]){ SYS_close_range, 0, ~0u, CLOSE_RANGE_UNSHARE }, &ignored, e);
	if (ret == 0)
		ret = agent_step(a, regs, "mmap", (const uint64_t[7]){ SYS_mmap, 0, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				 ~0ull, 0 }, &page, e);
	if (ret)
		return ret;
	snprintf(path, sizeof(path), "/proc/%d/mem", a->pid);
	mem = open(path, O_RDWR | O_CLOEXEC);
	if (mem < 0)
		ret = err_sys(e, errno, "%s", path);
	else
		ret = trace_poke(mem, (uint64_t)page, SCRATCH_NAME, sizeof(SCRATCH_NAME), e);
	if (ret == 0 && agent_step(a, regs, "memfd_create", (const uint64_t[7]){ SYS_memfd_create, (uint64_t)page, MFD_CLOEXEC | MFD_EXEC }, &fd, NULL) < 0)
		ret = agent_step(a, regs, "memfd_create", (const uint64_t[7]){ SYS_memfd_create, (uint64_t)page, MFD_CLOEXEC }, &fd, e);
	if (agent_step(a, regs, "munmap", (const uint64_t[7]){ SYS_munmap, (uint64_t)page, PAGE_SIZE_BYTES }, &ignored, ret ? NULL : e) < 0 && ret == 0)
		ret = -EIO;
	return ret ? ret : (int)fd;
}

/*
 * Whether mlockall(MCL_FUTURE) is in force: the only sign of it is what becomes of a new mapping, the scratch. That one is unlocked. Most programs
 * have nothing locked at all, which is quicker to see.
 */
static int see_mlockall(struct agent *a, const struct user_regs_struct *regs, uint64_t base, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	size_t size = 0;
	uint32_t bits = 0;
	long locked = 0;
	int64_t ignored;
	char path[64];
	int ret;

	snprintf(path, sizeof(path), "/proc/%d/status", a->pid);
	f = fopen(path, "re");
	while (f && getline(&line, &size, f) > 0)
		if (strncmp(line, "VmLck:", 6) == 0)
			locked = atol(line + 6);
	if (!locked)
		return f ? 0 : err_sys(e, errno, "%s", path);
	ret = vma_bits_at(a->pid, base, &bits, e);
	if (ret < 0 || !(bits & (VMA_LOCKED | VMA_LOCKONFAULT)))
		return ret;
	a->mlock_future = MCL_FUTURE | (bits & VMA_LOCKONFAULT ? MCL_ONFAULT : 0);
	return agent_step(a, regs, "munlock", (const uint64_t[7]){ SYS_munlock, base, a->scratch.size }, &ignored, e);
}

/* A process with PR_SET_MDWE has its code apart. */
static int give_access(struct agent *a, const struct user_regs_struct *regs, uint64_t base, int fd, struct err *e)
{
	struct scratch *s = &a->scratch;
	struct err why = ERR_INIT;
	int64_t done;
	int ret;

	ret = agent_step(a, regs, "mprotect", (const uint64_t[7]){ SYS_mprotect, base, s->size, PROT_READ | PROT_WRITE | PROT_EXEC }, &done, &why);
	if (ret != -EACCES)
		return ret < 0 ? err_set(e, ret, "%s", why.message) : 0;
	ret = agent_step(a, regs, "mprotect", (const uint64_t[7]){ SYS_mprotect, base, s->arena_end, PROT_READ | PROT_WRITE }, &done, e);
	if (ret == 0)
		ret = agent_step(a, regs, "mapping code apart from data", (const uint64_t[7]){ SYS_mmap, base + s->arena_end, s->arena_start, PROT_READ | PROT_EXEC,
				 MAP_SHARED | MAP_FIXED, (uint64_t)fd, 0 }, &done, e);
	if (ret == 0 && a->mlock_future)
		ret = agent_step(a, regs, "munlock", (const uint64_t[7]){ SYS_munlock, base + s->arena_end, s->arena_start }, &done, e);
	if (ret == 0)
		scratch_set_apart(s);
	return ret;
}

/* Without access at first: mlockall(MCL_FUTURE) would fill it all with pages. */
static int map_scratch(struct agent *a, const struct user_regs_struct *regs, uint64_t base, unsigned threads, size_t arena_bytes, struct err *e)
{
	int fd = make_memfd(a, regs, e), own, ret;
	int64_t at;

	if (fd < 0)
		return fd;
	own = pidfd_get(a->pidfd, fd, e);
	if (own < 0)
		return own;
	ret = scratch_init(&a->scratch, own, threads, arena_bytes, e);
	if (ret == 0)
		ret = agent_step(a, regs, "mapping the scratch", (const uint64_t[7]){ SYS_mmap, base, a->scratch.size, PROT_NONE,
				 MAP_SHARED | MAP_FIXED_NOREPLACE, (uint64_t)fd, 0 }, &at, e);
	if (ret == 0)
		ret = see_mlockall(a, regs, base, e);
	if (ret == 0)
		ret = give_access(a, regs, base, fd, e);
	if (ret == 0)
		scratch_set_base(&a->scratch, base);
	if (ret == 0)
		ret = agent_step(a, regs, "madvise", (const uint64_t[7]){ SYS_madvise, base, a->scratch.size, MADV_DONTFORK }, &at, e);
	return ret;
}

/* Where many threads want the CPUs, one that is new waits for each of its few steps as long as all of them. */
static void run_at_once(pid_t tid)
{
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	sched_setaffinity(tid, sizeof(all), &all);
	pace_boost(tid);
}

/* An ordinary task, whatever the program's priority: it must not run ahead of the program. */
static void calm_down(const struct agent *a)
{
	sched_setscheduler(a->pid, SCHED_OTHER, &(struct sched_param){ 0 });
	pace_calm(a->pid);
}

/* Whatever the program's session: it must not be stopped by the terminal. */
static int settle(struct agent *a, struct err *e)
{
	batch_try(a->batch, "setsid", SYS_setsid);
	batch_call(a->batch, "prctl", SYS_prctl, PR_SET_NAME, batch_string(a->batch, "godwit-agent"));
	if (batch_run(a->batch, e) < 0)
		return e ? e->code : -EIO;
	batch_reset(a->batch);
	return 0;
}

/* A userfaultfd of the agent, of which this process gets a duplicate. Returns the agent's number of it. */
static int64_t make_uffd(struct agent *a, uint64_t features, int *ret_duplicate, struct err *e)
{
	int64_t fd = remote_do(a->batch, e, "userfaultfd", SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
	int ret;

	if (fd < 0)
		return fd;
	*ret_duplicate = pidfd_get(a->pidfd, (int)fd, e);
	ret = *ret_duplicate < 0 ? *ret_duplicate : uffd_enable(*ret_duplicate, features, e);
	return ret < 0 ? ret : fd;
}

static int track(struct agent *a, struct err *e)
{
	int64_t fd = make_uffd(a, UFFD_FEATURES_TRACK, &a->uffd, e);

	if (fd < 0)
		return (int)fd;
	scratch_header(&a->scratch)->uffd = (int32_t)fd;
	fd = make_uffd(a, UFFD_FEATURES_TRACK_SHARED, &a->shared_uffd, e);
	return fd < 0 ? (int)fd : (int)remote_do(a->batch, e, "close", SYS_close, (uint64_t)fd);
}

/* How many threads of the process are in a range of addresses just now. */
static size_t threads_inside(pid_t pid, uint64_t start, uint64_t end)
{
	cleanup_free pid_t *tids = NULL;
	size_t n = 0, inside = 0;

	if (trace_list_threads(pid, &tids, &n, NULL) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		char path[64], text[256] = "";
		cleanup_fclose FILE *f = NULL;
		uint64_t rip = 0;
		char *last;

		snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tids[i]);
		f = fopen(path, "re");
		if (!f || !fgets(text, sizeof(text), f))
			continue;
		last = strrchr(text, ' ');
		if (!strncmp(text, "running", 7)) /* it cannot be read */
			rip = borrow_ask_where(pid, tids[i]);
		else if (last)
			rip = strtoull(last, NULL, 16);
		inside += rip >= start && rip < end;
	}
	return inside;
}

/*
 * A worker that died before the commit cannot unmap its scratch. With `b` NULL only looks whether the process is still held by a migration whose outcome is
 * not known; otherwise unmaps what is left.
 */
static int leftovers(pid_t pid, struct borrowed *b, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[512];
	uint64_t start, end;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		int64_t ignored;

		if (!strstr(line, "/memfd:" SCRATCH_NAME) || sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) != 2)
			continue;
		if (!b && threads_inside(pid, start, end))
			return err_set(e, -EBUSY, "process %d is still held by an earlier migration whose outcome is not known yet", pid);
		if (b && borrow_call(b, (const uint64_t[7]){ SYS_munmap, start, end - start }, &ignored, e) < 0)
			return e ? e->code : -EIO;
	}
	return 0;
}

/*
 * Has the borrowed thread clone a helper, and that one the agent; then the helper ends and is reaped. So the agent is no child of the process: when it ends, be
 * it long after its worker, no zombie stays there, and wait(2) calls never meet it. Both are traced, and die with the worker.
 */
static int make_orphan(struct agent *a, struct borrowed *b, struct err *e)
{
	static const uint64_t clone_call[7] = { SYS_clone, AGENT_CLONE };
	const unsigned long options = PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | (b->filtered ? SECCOMP_PTRACE_SUSPEND : 0);
	struct user_regs_struct regs = b->regs;
	int64_t number, ignored; /* in the process's own pid namespace */
	pid_t helper;
	int status, ret = borrow_call(b, clone_call, &number, e);

	helper = b->made;
	if (ret == 0 && number == INTERRUPTED)
		ret = err_set(e, -EAGAIN, "making the agent: process %d is being stopped", b->tid);
	else if (ret == 0 && (number < 0 || !helper))
		ret = err_sys(e, number < 0 ? (int)number : ESRCH, "making the agent");
	if (ret < 0)
		return ret;
	a->pid = 0;
	run_at_once(helper);
	ret = trace_wait_stop(helper, e);
	if (ret == 0 && ptrace(PTRACE_SETOPTIONS, helper, 0, options) < 0)
		ret = err_sys(e, errno, "the agent's helper: options");
	if (ret == 0)
		ret = trace_clone(helper, a->gadget, &b->regs, clone_call, &a->pid, e); /* its options are the helper's */
	if (a->pid)
		run_at_once(a->pid);
	trace_regs_to_call(&regs, a->gadget, (const uint64_t[7]){ SYS_exit, 0 });
	if (trace_set_regs(helper, &regs, NULL) < 0 || ptrace(PTRACE_CONT, helper, 0, 0) < 0)
		kill(helper, SIGKILL);
	while (waitpid(helper, &status, __WALL) == helper && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, helper, 0, 0);
	if (borrow_call(b, (const uint64_t[7]){ SYS_wait4, (uint64_t)number, 0, __WALL, 0 }, &ignored, ret ? NULL : e) < 0 && ret == 0)
		ret = -EIO;
	return ret < 0 ? ret : trace_wait_stop(a->pid, e);
}

static pid_t parent_of(pid_t pid)
{
	struct process_stat stat;

	return process_stat_read(pid, &stat, NULL) == 0 ? stat.ppid : -1;
}

/* A thread with a deadline reservation may clone only when its children shall not inherit that. Returns whether it was changed. */
static bool let_clone(pid_t tid, bool on)
{
	struct thread_sched_attr attr = { 0 };

	if (syscall(SYS_sched_getattr, tid, &attr, sizeof(attr), 0) < 0 || attr.policy != POLICY_DEADLINE ||
	    !(attr.flags & SCHED_FLAG_RESET_ON_FORK_ONLY) != on)
		return false;
	attr.flags ^= SCHED_FLAG_RESET_ON_FORK_ONLY;
	return syscall(SYS_sched_setattr, tid, &attr, 0) == 0;
}

/* Whether `who` is `pid` or one of its ancestors up to `root`. */
static bool is_in_line(pid_t who, pid_t pid, pid_t root)
{
	while (pid > 0 && pid != who && pid != root)
		pid = parent_of(pid);
	return pid == who;
}

/* One call in a process: by the borrowed thread where it is its own. */
static int call_in(struct borrowed *b, pid_t own, pid_t pid, const uint64_t call[7], struct err *e)
{
	uint64_t gadget, errand = 0;
	int64_t ignored;
	int ret;

	if (pid == own)
		return borrow_call(b, call, &ignored, e);
	ret = trace_find_gadget(pid, &gadget, ERRAND_BYTES, &errand, e);
	return ret < 0 ? ret : borrow_for_call(pid, errand, call, &ignored, e);
}

/* Who is left alone in a pid namespace of the unit's own is a child of its first process: agents, too. */
static bool is_left_to_first(struct agent *a, pid_t root)
{
	pid_t adopter = parent_of(a->pid);

	if (!ns_is_first(adopter) || !is_in_line(root, adopter, root))
		return false;
	a->seen = ns_seen(a->pid);
	a->reaper = adopter;
	return true;
}

/*
 * A process that is a child subreaper gets orphans of its descendants: no process of the unit may be one for the moment in which an agent is made, or its wait(2) would find
 * the agent. Those outside of the unit reap it.
 */
static int make_agent(struct agent *a, struct borrowed *b, pid_t pid, pid_t root, struct err *e)
{
	pid_t adopters[ADOPTERS_MAX];
	size_t n = 0;
	int ret = make_orphan(a, b, e);

	while (ret == 0 && !is_left_to_first(a, root) && is_in_line(parent_of(a->pid), pid, root)) {
		pid_t adopter = parent_of(a->pid);

		if (n == ADOPTERS_MAX) {
			ret = err_set(e, -EOPNOTSUPP, "more than %u child subreapers one above the other", ADOPTERS_MAX);
			break;
		}
		pid_t number = ns_seen(a->pid);

		kill(a->pid, SIGKILL);
		waitpid(a->pid, NULL, __WALL);
		ret = call_in(b, pid, adopter, (const uint64_t[7]){ SYS_wait4, (uint64_t)number, 0, __WALL, 0 }, e);
		a->pid = 0;
		if (ret == 0)
			ret = call_in(b, pid, adopter, (const uint64_t[7]){ SYS_prctl, PR_SET_CHILD_SUBREAPER, 0 }, e);
		if (ret == 0) {
			adopters[n++] = adopter;
			ret = make_orphan(a, b, e);
		}
	}
	while (n > 0)
		call_in(b, pid, adopters[--n], (const uint64_t[7]){ SYS_prctl, PR_SET_CHILD_SUBREAPER, 1 }, NULL);
	return ret;
}

int agent_inject(struct agent *a, pid_t pid, pid_t root, uint64_t base, unsigned threads, size_t arena_bytes, struct restart_watch *watch, struct err *e)
{
	struct borrowed thread;
	struct rlimit processes;
	bool deadline, guest = a->guest;
	int back, ret;

	*a = AGENT_INIT;
	a->guest = guest;
	ret = guest ? 0 : leftovers(pid, NULL, e);
	if (ret == 0)
		ret = trace_find_gadget(pid, &a->gadget, ERRAND_BYTES, &a->errand, e);
	if (ret == 0 && !a->errand)
		ret = err_set(e, -EOPNOTSUPP, "the vdso of process %d has no %u unused bytes at its end", pid, ERRAND_BYTES);
	if (ret == 0)
		ret = borrow_thread(pid, a->errand, watch, &thread, e);
	if (ret)
		return ret;
	a->filtered = thread.filtered;
	deadline = let_clone(thread.tid, true);
	ret = guest ? 0 : leftovers(pid, &thread, e);
	if (ret == 0)
		ret = make_agent(a, &thread, pid, root, e);
	if (ret == -EAGAIN && agent_lift_processes(pid, &processes)) {
		if (e)
			*e = ERR_INIT;
		ret = make_agent(a, &thread, pid, root, e);
		agent_restore_processes(pid, &processes);
	}
	if (deadline)
		let_clone(thread.tid, false);
	back = borrow_return(&thread, ret ? NULL : e);
	if (ret < 0 || back < 0)
		return err_wrap(e, "process %d: agent", pid), ret ? ret : back;
	agent_lift_limits(a->pid);
	a->pidfd = ret = pidfd_open_process(a->pid, e);
	if (ret >= 0)
		ret = map_scratch(a, &thread.regs, base, threads, arena_bytes, e);
	if (ret == 0) {
		scratch_slot(&a->scratch, 0)->flags = SLOT_AGENT;
		ret = trace_enter_stub(a->pid, &a->scratch, 0, &thread.regs, e);
	}
	/* It stays traced until it has been equipped to notice this worker's death by itself. */
	if (ret == 0 && ptrace(PTRACE_CONT, a->pid, 0, 0) < 0)
		ret = err_sys(e, errno, "agent: starting");
	if (ret < 0)
		return ret;
	a->task = (struct task){ &a->scratch, 0, a->pid, TASK_FUTEX, -1 };
	a->batch = batch_new(&a->task);
	ret = settle(a, e);
	if (ret == 0)
		ret = track(a, e);
	calm_down(a);
	return ret;
}

/* A seqpacket pair made by the agent; the worker takes one end out of it. */
static int bell_make(struct agent *a, int *ret_agent_end, struct err *e)
{
	uint64_t at;
	int *pair = batch_space(a->batch, 2 * sizeof(int), &at), ends[2];
	int ret;

	batch_call(a->batch, "socketpair", SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, at);
	ret = batch_run(a->batch, e);
	if (ret < 0)
		return ret;
	memcpy(ends, pair, sizeof(ends));
	batch_reset(a->batch);
	a->socket = pidfd_get(a->pidfd, ends[1], e);
	if (a->socket < 0)
		return a->socket;
	fcntl(a->socket, F_SETFD, FD_CLOEXEC);
	*ret_agent_end = ends[0];
	return (int)remote_do(a->batch, e, "close", SYS_close, (uint64_t)ends[1]);
}

/* `fd`: the root's scratch in the agent; `memfd`: here. */
static int share_unit(struct agent *a, int fd, int memfd, struct err *e)
{
	uint64_t at = a->scratch.base + SCRATCH_UNIT;
	int ret;

	batch_call(a->batch, "mapping the unit's page", SYS_mmap, at, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		   (uint64_t)fd, SCRATCH_UNIT);
	batch_call(a->batch, "madvise", SYS_madvise, at, PAGE_SIZE_BYTES, MADV_DONTFORK);
	batch_call(a->batch, "close", SYS_close, (uint64_t)fd);
	ret = batch_run(a->batch, e);
	batch_reset(a->batch);
	return ret < 0 ? ret : scratch_share_unit(&a->scratch, memfd, e);
}

int agent_equip(struct agent *a, int agent_socket_fd, const struct agent_fds *fds, struct err *e)
{
	const int list[] = { fds->go, fds->fault, fds->bulk, fds->pagemap, fds->mem, fds->process_pidfd, fds->worker_pidfd,
			     fds->root_pidfd ? fds->root_pidfd : -1, fds->unit ? fds->unit : -1, fds->ask ? fds->ask : -1,
			     fds->record ? fds->record : -1 };
	struct scratch_header *h = scratch_header(&a->scratch);
	int32_t unit = -1, *const into[] = { &h->go_fd, &h->fault_fd, &h->bulk_fd, &h->pagemap_fd, &h->mem_fd, &h->process_pidfd, &h->worker_pidfd,
				  &h->root_pidfd, &unit, &h->ask_fd, &h->record_fd };
	int send[ARRAY_SIZE(list)], got[ARRAY_SIZE(list)];
	size_t n = 0;
	int ret = 0;

	if (agent_socket_fd < 0)
		ret = bell_make(a, &agent_socket_fd, e);
	if (ret < 0)
		return ret;
	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		if (list[i] >= 0)
			send[n++] = list[i];
	ret = fd_send(a->socket, send, n, e);
	if (ret == 0)
		ret = batch_receive_fds(a->batch, agent_socket_fd, got, n, e);
	if (ret < 0)
		return ret;
	n = 0;
	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		*into[i] = list[i] >= 0 ? got[n++] : -1;
	if (unit >= 0)
		ret = share_unit(a, unit, fds->unit, e);
	if (ret < 0)
		return ret;
	/* From its next wait on, which may or may not have begun, the agent listens to the socket: this call rings both. */
	h->worker_fd = agent_socket_fd;
	a->task.wake = TASK_SOCKET;
	a->task.bell_fd = a->socket;
	ret = (int)remote_do(a->batch, e, "getpid", SYS_getpid);
	if (a->filtered)
		return ret < 0 ? ret : keeper_take_over(a, e);
	if (ret >= 0)
		ret = trace_interrupt(a->pid, e);
	if (ret == 0)
		ret = trace_wait_stop(a->pid, e);
	return ret < 0 ? ret : trace_detach(a->pid, e);
}

void agent_forget(struct agent *a)
{
	batch_free(a->batch);
	close_fdp(&a->uffd);
	close_fdp(&a->shared_uffd);
	close_fdp(&a->socket);
	close_fdp(&a->pidfd);
	scratch_free(&a->scratch);
	*a = AGENT_INIT;
}

/* Waits until no thread of the process runs the stub: after COMMAND_RESTORE it is a few instructions away from its program. */
static void wait_out_of_stub(struct agent *a, pid_t pid)
{
	for (int tries = 0; tries < 1000 && threads_inside(pid, a->scratch.base, a->scratch.base + a->scratch.size); tries++)
		usleep(1000);
}

void agent_heard(const struct agent *a)
{
	char bell[16];

	while (recv(a->socket, bell, sizeof(bell), MSG_DONTWAIT) > 0)
		;
}

void agent_wait_exit(const struct agent *a, int timeout_ms)
{
	struct pollfd p = { a->pidfd, POLLIN, 0 };

	if (a->pidfd >= 0 && poll(&p, 1, timeout_ms) == 0) {
		pidfd_signal(a->pidfd, SIGKILL);
		poll(&p, 1, timeout_ms);
	}
}

void agent_remove(struct agent *a, pid_t pid)
{
	int64_t ignored;

	if (!a->pid)
		return;
	if (a->scratch.base)
		wait_out_of_stub(a, pid);
	if (a->batch) {
		task_command(&a->task, COMMAND_LEAVE);
		task_wake(&a->task, NULL);
		agent_wait_exit(a, 2000);
	} else {
		kill(a->pid, SIGKILL);
	}
	while (waitpid(a->pid, NULL, __WALL) < 0 && errno == EINTR) /* ECHILD when it was not traced any more */
		;
	if (a->scratch.base)
		borrow_for_call(pid, a->errand, (const uint64_t[7]){ SYS_munmap, a->scratch.base, a->scratch.size }, &ignored, NULL);
	agent_forget(a);
}

void agent_reap(pid_t pid, pid_t seen)
{
	uint64_t gadget, errand = 0;
	int64_t ignored;

	if (trace_find_gadget(pid, &gadget, ERRAND_BYTES, &errand, NULL) == 0 && errand)
		borrow_for_call(pid, errand, (const uint64_t[7]){ SYS_wait4, (uint64_t)seen, 0, __WALL, 0 }, &ignored, NULL);
}
