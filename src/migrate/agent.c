/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * agent.c - making an agent in a running process, and taking it away again; see agent.h
 *
 * Theory of operation: a thread is stopped and made to run one clone(CLONE_VM) at the vdso's syscall instruction; it goes on at once. The new
 * task, which is born traced and stopped, is then driven by single steps until the scratch is mapped, and enters the stub. CLONE_FILES with
 * close_range(CLOSE_RANGE_UNSHARE) right after gives it an empty descriptor table without copying the process's. Its exit signal is 0, so that the
 * process's wait(2) calls do not see it.
 */
#include "migrate/agent.h"

#include <errno.h>
#include <fcntl.h>
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
#include "image/restart.h"
#include "image/thread.h"
#include "kern/fdpass.h"
#include "kern/pagemap.h"
#include "kern/trace.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif
#define RECORDS_MAX 4096
#define USER_MODE_ONLY 1 /* UFFD_USER_MODE_ONLY: enough for asynchronous write protection, and needs no privilege */
#define AGENT_CLONE (CLONE_VM | CLONE_FILES | CLONE_PTRACE)

/* System calls that return EINTR after any stop; all others are gone on with by the kernel itself. */
static bool minds_a_stop(long nr)
{
	static const long calls[] = { SYS_epoll_wait, SYS_epoll_pwait, 441 /* epoll_pwait2 */, SYS_rt_sigtimedwait, SYS_semop, SYS_semtimedop, SYS_io_getevents,
				      SYS_msgrcv, SYS_msgsnd, SYS_accept, SYS_accept4, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg, SYS_sendto, SYS_sendmsg };

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i] == nr)
			return true;
	return false;
}

/* The thread that is least disturbed by a stop. */
static pid_t pick_thread(pid_t pid)
{
	cleanup_free pid_t *tids = NULL;
	size_t n = 0;

	if (trace_list_threads(pid, &tids, &n, NULL) < 0)
		return pid;
	for (size_t i = 0; i < MIN(n, 64ul); i++) {
		char path[64], text[64] = "";
		cleanup_fclose FILE *f = NULL;

		snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tids[i]);
		f = fopen(path, "re");
		if (f && fgets(text, sizeof(text), f) && !minds_a_stop(text[0] == 'r' ? -1 : atol(text)))
			return tids[i];
	}
	return pid;
}

/* What a thread in a ptrace stop is to go on with. */
static int regs_to_go_on(pid_t pid, pid_t tid, const struct restart_record *before, struct user_regs_struct *ret_regs, struct err *e)
{
	struct restart_context context = { .pid = pid, .before = before };
	struct restart_now now = restart_now_read(0, 0);
	Gw__Thread *msg = thread_new(tid);
	int ret = thread_capture_stopped(tid, msg, e);

	if (ret == 0) {
		memcpy(ret_regs, msg->regs.data, sizeof(*ret_regs));
		ret = rseq_abort_fix(pid, msg, ret_regs, e);
		memcpy(msg->regs.data, ret_regs, sizeof(*ret_regs));
	}
	if (ret >= 0 && (int64_t)ret_regs->orig_rax >= 0 && (int64_t)ret_regs->rax == -EINTR) {
		ret = restart_capture(msg, &context, e);
		memcpy(ret_regs, msg->regs.data, sizeof(*ret_regs));
		if (ret == 0 && msg->restart && before)
			restart_finish_in(pid, ret_regs, msg->restart, &now);
	}
	gw__thread__free_unpacked(msg, NULL);
	return ret < 0 ? ret : 0;
}

/* Stops one thread, has it run `call`, and lets it go as it was. */
static int call_in_thread(pid_t pid, uint64_t gadget, struct restart_watch *watch, const uint64_t call[7], struct user_regs_struct *ret_regs,
			  int64_t *ret_result, struct err *e)
{
	pid_t tid = pick_thread(pid);
	struct restart_record *records = watch ? calloc(RECORDS_MAX, sizeof(*records)) : NULL;
	int n = records ? restart_watch_read(watch, records, RECORDS_MAX, NULL) : 0;
	struct user_regs_struct regs;
	uint64_t mask = 0;
	int ret, back;

	ret = trace_seize(tid, 0, e);
	if (ret == 0 && ((ret = trace_interrupt(tid, e)) < 0 || (ret = trace_wait_stop(tid, e)) < 0)) {
		free(records);
		return ret;
	}
	if (ret == 0)
		ret = regs_to_go_on(pid, tid, n > 0 ? restart_record_find(records, (size_t)n, tid) : NULL, &regs, e);
	free(records);
	if (ret == 0)
		ret = trace_get_mask(tid, &mask, e);
	if (ret < 0) {
		trace_detach(tid, NULL);
		return ret;
	}
	if (ret_regs)
		*ret_regs = regs;
	ret = trace_set_mask(tid, UINT64_MAX, e);
	if (ret == 0)
		ret = trace_syscall(tid, gadget, &regs, call, ret_result, e);
	back = trace_set_regs(tid, &regs, ret ? NULL : e);
	if (back == 0)
		back = trace_set_mask(tid, mask, ret ? NULL : e);
	if (trace_detach(tid, ret || back ? NULL : e) < 0 && ret == 0)
		ret = -ESRCH;
	return ret ? ret : back;
}

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
	if (ret < 0)
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
	return ret < 0 ? ret : (int)fd;
}

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
		ret = agent_step(a, regs, "mapping the scratch", (const uint64_t[7]){ SYS_mmap, base, a->scratch.size, PROT_READ | PROT_WRITE | PROT_EXEC,
				 MAP_SHARED | MAP_FIXED_NOREPLACE, (uint64_t)fd, 0 }, &at, e);
	if (ret == 0)
		scratch_set_base(&a->scratch, base);
	if (ret == 0)
		ret = agent_step(a, regs, "madvise", (const uint64_t[7]){ SYS_madvise, base, a->scratch.size, MADV_DONTFORK }, &at, e);
	return ret;
}

/* An ordinary task, whatever the program's priority and session: it must not be stopped by the terminal nor run ahead of the program. */
static int settle(struct agent *a, struct err *e)
{
	struct sched_param none = { 0 };
	cpu_set_t all;

	memset(&all, 0xff, sizeof(all));
	sched_setaffinity(a->pid, sizeof(all), &all);
	sched_setscheduler(a->pid, SCHED_OTHER, &none);
	batch_try(a->batch, "setsid", SYS_setsid);
	batch_call(a->batch, "prctl", SYS_prctl, PR_SET_NAME, batch_string(a->batch, "godwit-agent"));
	if (batch_run(a->batch, e) < 0)
		return e ? e->code : -EIO;
	batch_reset(a->batch);
	return 0;
}

static int track(struct agent *a, struct err *e)
{
	int64_t fd = remote_do(a->batch, e, "userfaultfd", SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);

	if (fd < 0)
		return (int)fd;
	a->uffd = pidfd_get(a->pidfd, (int)fd, e);
	if (a->uffd < 0)
		return a->uffd;
	scratch_header(&a->scratch)->uffd = (int32_t)fd;
	return uffd_enable(a->uffd, UFFD_FEATURES_TRACK, e);
}

int agent_inject(struct agent *a, pid_t pid, uint64_t base, unsigned threads, size_t arena_bytes, struct restart_watch *watch, struct err *e)
{
	struct user_regs_struct regs;
	int64_t child;
	int ret;

	*a = AGENT_INIT;
	ret = trace_find_gadget(pid, &a->gadget, NULL, e);
	if (ret < 0)
		return ret;
	ret = call_in_thread(pid, a->gadget, watch, (const uint64_t[7]){ SYS_clone, AGENT_CLONE }, &regs, &child, e);
	if (ret < 0)
		return ret;
	if (child < 0)
		return err_sys(e, (int)child, "process %d: making the agent", pid);
	a->pid = (pid_t)child;
	ret = trace_wait_stop(a->pid, e);
	if (ret == 0)
		a->pidfd = ret = pidfd_open_process(a->pid, e);
	if (ret >= 0)
		ret = map_scratch(a, &regs, base, threads, arena_bytes, e);
	if (ret == 0) {
		scratch_slot(&a->scratch, 0)->flags = SLOT_AGENT;
		ret = trace_enter_stub(a->pid, &a->scratch, 0, &regs, e);
	}
	if (ret == 0)
		ret = trace_detach(a->pid, e);
	if (ret < 0)
		return ret;
	a->task = (struct task){ &a->scratch, 0, a->pid, TASK_FUTEX, -1 };
	a->batch = batch_new(&a->task);
	ret = settle(a, e);
	return ret < 0 ? ret : track(a, e);
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

int agent_equip(struct agent *a, int agent_socket_fd, const struct agent_fds *fds, struct err *e)
{
	const int list[] = { fds->go, fds->fault, fds->bulk, fds->pagemap, fds->mem, fds->process_pidfd, fds->worker_pidfd };
	struct scratch_header *h = scratch_header(&a->scratch);
	int32_t *const into[] = { &h->go_fd, &h->fault_fd, &h->bulk_fd, &h->pagemap_fd, &h->mem_fd, &h->process_pidfd, &h->worker_pidfd };
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
	/* From its next wait on, which may or may not have begun, the agent listens to the socket: this call rings both. */
	h->worker_fd = agent_socket_fd;
	a->task.wake = TASK_SOCKET;
	a->task.bell_fd = a->socket;
	ret = (int)remote_do(a->batch, e, "getpid", SYS_getpid);
	return ret < 0 ? ret : 0;
}

void agent_forget(struct agent *a)
{
	batch_free(a->batch);
	close_fdp(&a->uffd);
	close_fdp(&a->socket);
	close_fdp(&a->pidfd);
	scratch_free(&a->scratch);
	*a = AGENT_INIT;
}

static bool in_scratch(const struct agent *a, uint64_t rip)
{
	return rip >= a->scratch.base && rip < a->scratch.base + a->scratch.size;
}

/* Waits until no thread of the process runs the stub: after COMMAND_RESTORE it is a few instructions away from its program. */
static void wait_out_of_stub(struct agent *a, pid_t pid)
{
	for (int tries = 0; tries < 1000; tries++) {
		cleanup_free pid_t *tids = NULL;
		size_t n = 0, inside = 0;

		if (trace_list_threads(pid, &tids, &n, NULL) < 0)
			return;
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
			if (!strncmp(text, "running", 7)) { /* it cannot be read: stop it shortly */
				struct user_regs_struct regs;

				if (trace_seize(tids[i], 0, NULL) == 0) {
					if (trace_interrupt(tids[i], NULL) == 0 && trace_wait_stop(tids[i], NULL) == 0 &&
					    trace_get_regs(tids[i], &regs, NULL) == 0)
						rip = regs.rip;
					trace_detach(tids[i], NULL);
				}
			} else if (last) {
				rip = strtoull(last, NULL, 16);
			}
			inside += in_scratch(a, rip);
		}
		if (!inside)
			return;
		usleep(1000);
	}
}

static void wait_exit(struct agent *a)
{
	struct pollfd p = { a->pidfd, POLLIN, 0 };

	if (poll(&p, 1, 2000) == 0) {
		pidfd_signal(a->pidfd, SIGKILL);
		poll(&p, 1, 2000);
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
		wait_exit(a);
	} else if (a->pidfd >= 0) {
		pidfd_signal(a->pidfd, SIGKILL);
		waitpid(a->pid, NULL, __WALL);
	}
	if (a->scratch.base)
		call_in_thread(pid, a->gadget, NULL, (const uint64_t[7]){ SYS_munmap, a->scratch.base, a->scratch.size }, NULL, &ignored, NULL);
	call_in_thread(pid, a->gadget, NULL, (const uint64_t[7]){ SYS_wait4, (uint64_t)a->pid, 0, 0x40000000 /* __WALL */, 0 }, NULL, &ignored, NULL);
	agent_forget(a);
}
