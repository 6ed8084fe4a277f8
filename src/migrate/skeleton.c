/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton.c - the destination's process before it runs; see skeleton.h
 *
 * Theory of operation: clone3(set_tid) gives the child its number; it execs a program of two instructions, so that nothing of the worker is left in
 * its address space; the worker maps the scratch into it by one single-stepped mmap and points it at the stub. From then on the main thread runs lists of
 * calls and rests in a ptrace stop. Threads are cloned by the main thread with CLONE_PTRACE. The process and the agent are cloned with CLONE_PARENT: godwitd is
 * the parent of both, and no stranger appears among the process's children.
 */
#include "migrate/skeleton.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "kern/fdpass.h"
#include "kern/pagemap.h"
#include "kern/trace.h"

extern const uint8_t skeleton_blob[], skeleton_blob_end[];

/* Descriptors that the child has when it execs. */
#define CHILD_MEMFD 3
#define CHILD_TRANSFER 4
#define CHILD_AGENT_END 5
#define CHILD_PROGRAM 6
#define CHILD_GATE 7
#define NUMBER_WAIT_MS 2000

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

static int make_memfd(const char *name, struct err *e)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0)
		fd = memfd_create(name, MFD_CLOEXEC);
	return fd < 0 ? err_sys(e, errno, "memfd_create") : fd;
}

/* The child between clone and exec. Only system calls. */
static void __attribute__((noreturn)) child_main(const int fds[5], int gate, bool own_namespace)
{
	sigset_t all;
	char byte;

	close(gate); /* or the worker's death would not end the wait for it */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	for (int i = 0; i < 5; i++)
		if (fcntl(fds[i], F_DUPFD, 64) < 64 + i) /* out of the way of 3..7; ends up at 64, 65, ... */
			_exit(125);
	for (int i = 0; i < 5; i++)
		dup2(64 + i, CHILD_MEMFD + i);
	if (own_namespace && (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
			      mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0))
		_exit(126);
	if (read(CHILD_GATE, &byte, 1) != 1) /* until the worker traces */
		_exit(124);
	syscall(SYS_close_range, CHILD_GATE, ~0u, 0);
	fcntl(CHILD_PROGRAM, F_SETFD, FD_CLOEXEC);
	syscall(SYS_execveat, CHILD_PROGRAM, "", (char *[]){ (char[]){ "godwit-skeleton" }, NULL }, (char *[]){ NULL }, AT_EMPTY_PATH);
	_exit(127);
}

/*
 * The first process of a pid namespace made for one unit: it reaps what is left to it, and ends when nobody else is in the namespace.
 */
static void __attribute__((noreturn)) namespace_init(void)
{
	prctl(PR_SET_NAME, "godwit-init");
	setsid();
	syscall(SYS_close_range, 0, ~0u, 0);
	for (int idle = 0; idle < 3;) {
		while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
			;
		idle = kill(-1, 0) < 0 && errno == ESRCH ? idle + 1 : 0;
		usleep(300000);
	}
	_exit(0);
}

/* The child's parent is the worker's, godwitd: a worker's end must not look like a parent's death to the program (PR_SET_PDEATHSIG). */
static pid_t clone_numbered(pid_t pid, struct err *e)
{
	struct clone_args args = { .flags = CLONE_PARENT, .set_tid = (uintptr_t)&pid, .set_tid_size = 1 };
	pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	if (child < 0)
		return err_sys(e, errno, "creating a process with the number %d", pid);
	return child;
}

/* Whether the holder of a number is a skeleton whose worker is giving it up (one of an attempt that failed a moment ago), or a process that has just ended. */
static bool about_to_go(pid_t pid)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[256], state = 0;
	int tracer = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	if (!f)
		return true;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "State: %c", &state) != 1 && sscanf(line, "TracerPid: %d", &tracer) == 1)
			break;
	return state == 'Z' || state == 'X' || tracer;
}

static int enter_own_namespace(struct skeleton *s, struct err *e)
{
	pid_t init;

	if (unshare(CLONE_NEWPID) < 0)
		return err_sys(e, errno, "a pid namespace for a number that is taken here");
	init = fork();
	if (init < 0)
		return err_sys(e, errno, "the first process of a pid namespace");
	if (init == 0)
		namespace_init();
	s->namespace_init = init;
	return 0;
}

static int start_child(struct skeleton *s, pid_t pid, const int fds[5], int gate, struct err *e)
{
	pid_t child = s->own_pid_namespace ? -EEXIST : clone_numbered(pid, e);

	for (int tries = 0; child == -EEXIST && !s->own_pid_namespace && tries < NUMBER_WAIT_MS && about_to_go(pid); tries++) {
		usleep(1000);
		child = clone_numbered(pid, e);
	}
	if (child == -EEXIST) {
		int ret = enter_own_namespace(s, e);

		if (ret < 0)
			return ret;
		s->own_pid_namespace = true;
		child = clone_numbered(pid, e);
	}
	if (child < 0)
		return child;
	if (child == 0)
		child_main(fds, gate, s->own_pid_namespace);
	s->pid = child;
	return 0;
}

/* Seizes the child, opens its gate and waits until it has exec'ed. */
static int wait_for_exec(struct skeleton *s, int gate, struct err *e)
{
	int status, ret = trace_seize(s->pid, PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC, e);
	bool executed = false;

	if (ret < 0)
		return ret;
	if (write(gate, "", 1) != 1)
		return err_sys(e, errno, "starting the skeleton");
	for (;;) {
		if (waitpid(s->pid, &status, __WALL) < 0)
			return err_sys(e, errno, "waiting for the skeleton");
		if (!WIFSTOPPED(status))
			return err_set(e, -ECHILD, "the skeleton ended early (%s %d)", WIFEXITED(status) ? "status" : "signal",
				       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		if (status >> 16 == PTRACE_EVENT_EXEC)
			executed = true;
		/* Registers may be set only when execve has returned: at the program's own int3. */
		else if (executed && WSTOPSIG(status) == SIGTRAP)
			return 0;
		ptrace(PTRACE_CONT, s->pid, 0, 0);
	}
}

/* Lets a task that has just been pointed at the stub run until its first rest. */
static int first_rest(pid_t tid, struct err *e)
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

static int add_thread_entry(struct skeleton *s, pid_t tid, pid_t outer, unsigned slot, struct err *e)
{
	struct skeleton_thread **grown = realloc(s->threads, (s->nthreads + 1) * sizeof(*grown));
	struct skeleton_thread *t = grown ? calloc(1, sizeof(*t)) : NULL;

	if (grown)
		s->threads = grown;
	if (!t)
		return err_sys(e, ENOMEM, "threads of the skeleton");
	*t = (struct skeleton_thread){ .tid = tid, .task = { &s->agent.scratch, slot, outer, TASK_PTRACE, -1 } };
	t->batch = batch_new(&t->task);
	s->threads[s->nthreads++] = t;
	return 0;
}

static int map_scratch(struct skeleton *s, pid_t pid, uint64_t base, struct err *e)
{
	struct user_regs_struct regs;
	int64_t at;
	int ret;

	ret = trace_find_gadget(s->pid, &s->agent.gadget, 0, NULL, e);
	if (ret == 0)
		ret = trace_get_regs(s->pid, &regs, e);
	if (ret == 0)
		ret = trace_set_mask(s->pid, UINT64_MAX, e);
	if (ret == 0)
		ret = trace_syscall(s->pid, s->agent.gadget, &regs, (const uint64_t[7]){ SYS_mmap, base, s->agent.scratch.size, PROT_READ | PROT_WRITE | PROT_EXEC,
				    MAP_SHARED | MAP_FIXED_NOREPLACE, CHILD_MEMFD, 0 }, &at, e);
	if (ret == 0 && at != (int64_t)base)
		ret = err_sys(e, (int)at, "mapping the scratch at %#" PRIx64, base);
	if (ret < 0)
		return ret;
	scratch_set_base(&s->agent.scratch, base);
	scratch_slot(&s->agent.scratch, 1)->flags = SLOT_TRAP;
	ret = trace_enter_stub(s->pid, &s->agent.scratch, 1, &regs, e);
	if (ret == 0)
		ret = first_rest(s->pid, e);
	if (ret == 0)
		ret = add_thread_entry(s, pid, s->pid, 1, e);
	if (ret == 0)
		ret = (int)remote_do(s->threads[0]->batch, e, "madvise", SYS_madvise, base, s->agent.scratch.size, MADV_DONTFORK);
	if (ret == 0)
		ret = (int)remote_do(s->threads[0]->batch, e, "close", SYS_close, CHILD_MEMFD);
	return ret;
}

/* Has the main thread clone; returns the new task's number as the process sees it. */
static int64_t spawn(struct skeleton *s, uint64_t nr, const uint64_t arg[6], unsigned slot, struct err *e)
{
	struct slot *main_slot = scratch_slot(&s->agent.scratch, 1);
	struct remote_call *call = batch_space(s->threads[0]->batch, sizeof(*call), &main_slot->list);
	int ret;

	call->nr = nr;
	memcpy(call->arg, arg, sizeof(call->arg));
	main_slot->ncalls = 1;
	main_slot->spawn_slot = scratch_slot_address(&s->agent.scratch, slot);
	ret = task_run(&s->threads[0]->task, COMMAND_SPAWN, 10000, e);
	batch_reset(s->threads[0]->batch);
	return ret < 0 ? ret : main_slot->result;
}

static ino_t pid_namespace_of(pid_t pid)
{
	struct stat st;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	return stat(path, &st) < 0 ? 0 : st.st_ino;
}

/* The agent's number, which in another pid namespace is not the one that clone returned: godwitd's other child in the process's namespace. */
static pid_t sibling_in_namespace(const struct skeleton *s)
{
	ino_t namespace = pid_namespace_of(s->pid);
	cleanup_fclose FILE *f = NULL;
	char path[64];
	int child;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", getppid(), getppid());
	f = fopen(path, "re");
	while (f && fscanf(f, "%d", &child) == 1)
		if (child != s->pid && child != s->namespace_init && pid_namespace_of(child) == namespace)
			return child;
	return -1;
}

static int make_agent(struct skeleton *s, struct err *e)
{
	struct agent *a = &s->agent;
	const uint64_t arg[6] = { CLONE_VM | CLONE_FILES | CLONE_PARENT | CLONE_PTRACE, a->scratch.base + SCRATCH_AGENT_STACK_TOP - 64 };
	int64_t pid;
	int ret;

	scratch_slot(&a->scratch, 0)->flags = SLOT_AGENT;
	pid = spawn(s, SYS_clone, arg, 0, e);
	if (pid < 0)
		return err_sys(e, (int)pid, "making the agent");
	a->pid = s->own_pid_namespace ? sibling_in_namespace(s) : (pid_t)pid;
	if (a->pid <= 0)
		return err_set(e, -ESRCH, "the agent was made but is not there");
	/* Traced, and so killed with this worker, until it has been equipped to notice this worker's death by itself. */
	ret = trace_wait_stop(a->pid, e);
	if (ret == 0 && ptrace(PTRACE_SETOPTIONS, a->pid, 0, PTRACE_O_EXITKILL) < 0)
		ret = err_sys(e, errno, "agent: options");
	if (ret == 0 && ptrace(PTRACE_CONT, a->pid, 0, 0) < 0)
		ret = err_sys(e, errno, "agent: starting");
	if (ret < 0)
		return ret;
	a->task = (struct task){ &a->scratch, 0, a->pid, TASK_FUTEX, -1 };
	a->batch = batch_new(&a->task);
	a->pidfd = ret = pidfd_open_process(a->pid, e);
	if (ret < 0)
		return ret;
	batch_try(a->batch, "setsid", SYS_setsid);
	batch_call(a->batch, "close_range", SYS_close_range, 0, CHILD_AGENT_END - 1, CLOSE_RANGE_UNSHARE);
	batch_call(a->batch, "close_range", SYS_close_range, CHILD_AGENT_END + 1, ~0u, 0);
	batch_call(a->batch, "prctl", SYS_prctl, PR_SET_NAME, batch_string(a->batch, "godwit-agent"));
	ret = batch_run(a->batch, e);
	batch_reset(a->batch);
	s->agent_end = CHILD_AGENT_END;
	return ret;
}

static int open_child_files(struct skeleton *s, unsigned threads, size_t arena_bytes, int fds[5], int gate[2], struct err *e)
{
	int pair[2], memfd, program;
	size_t len = (size_t)(skeleton_blob_end - skeleton_blob);

	memfd = make_memfd(SCRATCH_NAME, e);
	if (memfd < 0)
		return memfd;
	if (scratch_init(&s->agent.scratch, memfd, threads, arena_bytes, e) < 0)
		return e ? e->code : -ENOMEM;
	fds[0] = memfd;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "socketpair");
	s->transfer = pair[0];
	fds[1] = pair[1];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "socketpair");
	s->agent.socket = pair[0];
	fds[2] = pair[1];
	fds[3] = program = make_memfd("godwit-skeleton", e);
	if (program < 0)
		return program;
	if (write(program, skeleton_blob, len) != (ssize_t)len || fchmod(program, 0755) < 0)
		return err_sys(e, errno, "the skeleton program");
	if (pipe2(gate, O_CLOEXEC) < 0)
		return err_sys(e, errno, "pipe");
	fds[4] = gate[0];
	return 0;
}

int skeleton_create(struct skeleton *s, pid_t pid, bool own_namespace, uint64_t base, unsigned threads, size_t arena_bytes, struct err *e)
{
	int fds[5] = { -1, -1, -1, -1, -1 }, gate[2] = { -1, -1 }, ret;
	char path[64];

	*s = SKELETON_INIT;
	s->own_pid_namespace = own_namespace;
	ret = open_child_files(s, threads, arena_bytes, fds, gate, e);
	if (ret == 0)
		ret = start_child(s, pid, fds, gate[1], e);
	for (int i = 1; i < 5; i++)
		close_fdp(&fds[i]);
	if (ret == 0)
		ret = wait_for_exec(s, gate[1], e);
	close_fdp(&gate[1]);
	if (ret < 0)
		return ret;
	s->pidfd = ret = pidfd_open_process(s->pid, e);
	if (ret < 0)
		return ret;
	snprintf(path, sizeof(path), "/proc/%d/mem", s->pid);
	s->mem_fd = open(path, O_RDWR | O_CLOEXEC);
	if (s->mem_fd < 0)
		return err_sys(e, errno, "%s", path);
	s->transfer_end = CHILD_TRANSFER;
	ret = map_scratch(s, pid, base, e);
	return ret < 0 ? ret : make_agent(s, e);
}

/* In another pid namespace the worker's number of the newest thread is the one that it does not know yet. */
static pid_t outer_tid(struct skeleton *s, pid_t tid, struct err *e)
{
	cleanup_free pid_t *tids = NULL;
	size_t n;

	if (!s->own_pid_namespace)
		return tid;
	if (trace_list_threads(s->pid, &tids, &n, e) < 0)
		return e ? e->code : -ESRCH;
	for (size_t i = 0; i < n; i++) {
		bool known = false;

		for (size_t k = 0; k < s->nthreads; k++)
			known |= s->threads[k]->task.tid == tids[i];
		if (!known)
			return tids[i];
	}
	return err_set(e, -ESRCH, "thread %d was made but is not there", tid);
}

int skeleton_add_thread(struct skeleton *s, pid_t tid, struct err *e)
{
	unsigned slot = 1;
	uint64_t at, tid_at;
	struct clone_args *args;
	int64_t made;
	pid_t outer;
	int ret;

	for (size_t i = 0; i < s->nthreads; i++)
		slot = MAX(slot, s->threads[i]->task.slot);
	if (++slot >= scratch_header(&s->agent.scratch)->nslots)
		return err_set(e, -E2BIG, "more threads than slots");
	scratch_slot(&s->agent.scratch, slot)->flags = SLOT_TRAP;
	args = batch_space(s->threads[0]->batch, sizeof(*args), &at);
	tid_at = batch_data(s->threads[0]->batch, &tid, sizeof(tid));
	*args = (struct clone_args){ .flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PTRACE,
				     .stack = scratch_slot_address(&s->agent.scratch, slot) + 1024, .stack_size = SLOT_SIZE - 1024 - 64,
				     .set_tid = tid_at, .set_tid_size = 1 };
	made = spawn(s, SYS_clone3, (const uint64_t[6]){ at, sizeof(*args) }, slot, e);
	if (made < 0)
		return err_sys(e, (int)made, "creating thread %d", tid);
	outer = outer_tid(s, tid, e);
	if (outer < 0)
		return outer;
	ret = trace_wait_stop(outer, e);
	if (ret == 0 && ptrace(PTRACE_SETOPTIONS, outer, 0, PTRACE_O_EXITKILL) < 0)
		ret = err_sys(e, errno, "thread %d: options", tid);
	if (ret == 0)
		ret = first_rest(outer, e);
	return ret < 0 ? ret : add_thread_entry(s, tid, outer, slot, e);
}

struct skeleton_thread *skeleton_find_thread(struct skeleton *s, pid_t tid)
{
	for (size_t i = 0; i < s->nthreads; i++)
		if (s->threads[i]->tid == tid)
			return s->threads[i];
	return NULL;
}

int skeleton_end_thread(struct skeleton *s, pid_t tid, struct err *e)
{
	struct skeleton_thread *t = skeleton_find_thread(s, tid);
	int status;

	if (!t || t == s->threads[0])
		return err_set(e, -EINVAL, "no thread %d to end", tid);
	batch_call(t->batch, "exit", SYS_exit, 0);
	batch_prepare(t->batch);
	if (task_wake(&t->task, e) < 0)
		return e ? e->code : -EIO;
	while (waitpid(t->task.tid, &status, __WALL) == t->task.tid && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, t->task.tid, 0, 0);
	for (size_t i = 0; i < s->nthreads; i++)
		if (s->threads[i] == t)
			s->threads[i] = s->threads[--s->nthreads];
	batch_free(t->batch);
	free(t);
	return 0;
}

int skeleton_place_trampoline(struct skeleton *s, struct err *e)
{
	/* syscall; xor %edi,%edi; mov $60,%eax; syscall: the second call is exit(0). */
	static const uint8_t code[] = { 0x0f, 0x05, 0x31, 0xff, 0xb8, 0x3c, 0x00, 0x00, 0x00, 0x0f, 0x05 };
	uint64_t gadget, room;
	int ret = trace_find_gadget(s->pid, &gadget, 64, &room, e);

	if (ret < 0 || !room)
		return ret; /* without room the scratch stays mapped: harmless */
	ret = trace_poke(s->mem_fd, room, code, sizeof(code), e);
	if (ret == 0)
		scratch_header(&s->agent.scratch)->trampoline = room;
	return ret;
}

int skeleton_release(struct skeleton *s, struct err *e)
{
	struct scratch_header *h = scratch_header(&s->agent.scratch);
	int ret = 0;

	for (size_t i = s->nthreads; i-- > 1;)
		if (ptrace(PTRACE_SETOPTIONS, s->threads[i]->task.tid, 0, 0) < 0)
			return err_sys(e, errno, "thread %d: options", s->threads[i]->tid);
	__atomic_store_n(&h->state, STATE_COMMITTING, __ATOMIC_SEQ_CST);
	if (ptrace(PTRACE_SETOPTIONS, s->threads[0]->task.tid, 0, 0) < 0) {
		__atomic_store_n(&h->state, STATE_FROZEN, __ATOMIC_SEQ_CST);
		return err_sys(e, errno, "process %d: options", s->pid);
	}
	__atomic_store_n(&h->state, STATE_COMMITTED, __ATOMIC_SEQ_CST);
	for (size_t i = 0; i < s->nthreads; i++)
		if (trace_detach(s->threads[i]->task.tid, e) < 0)
			ret = -ESRCH;
	return ret;
}

static void reap_thread(pid_t tid)
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

void skeleton_destroy(struct skeleton *s)
{
	if (s->pid > 0) {
		kill(s->pid, SIGKILL);
		/* The main thread's end is not reported before the others, being tracees, have been waited for. */
		for (size_t i = s->nthreads; i-- > 1;)
			reap_thread(s->threads[i]->task.tid);
		while (waitpid(s->pid, NULL, __WALL) < 0 && errno == EINTR)
			;
	}
	if (s->agent.pid > 0) {
		if (s->agent.pidfd >= 0)
			pidfd_signal(s->agent.pidfd, SIGKILL);
		while (waitpid(s->agent.pid, NULL, __WALL) < 0 && errno == EINTR)
			;
		agent_wait_exit(&s->agent, 2000);
	}
	for (size_t i = 0; i < s->nthreads; i++) {
		batch_free(s->threads[i]->batch);
		free(s->threads[i]);
	}
	free(s->threads);
	close_fdp(&s->pidfd);
	close_fdp(&s->mem_fd);
	close_fdp(&s->transfer);
	agent_forget(&s->agent);
	*s = SKELETON_INIT;
}
