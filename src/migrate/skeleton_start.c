/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * skeleton_start.c - the first process of a unit at the destination; see skeleton.h
 *
 * Theory of operation: clone3(set_tid) gives the child its number, CLONE_PARENT makes it a child of godwitd; it execs a program of two instructions, so that nothing of the
 * worker is left in its address space. The unit's other processes are forked from it and from each other (skeleton_fork.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "home/parent.h"
#include "image/ns_user.h"
#include "kern/fdpass.h"
#include "kern/trace.h"
#include "migrate/skeleton_internal.h"

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

int skeleton_memfd(const char *name, struct err *e)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0)
		fd = memfd_create(name, MFD_CLOEXEC);
	return fd < 0 ? err_sys(e, errno, "memfd_create") : fd;
}

static const Gw__NsUser *user_of(const struct skeleton *s)
{
	return s->world && s->world->msg ? s->world->msg->user : NULL;
}

/* Whether the pid namespace belongs to the unit's user namespace: then whoever makes it is in that already. */
static bool user_owns_pids(const struct skeleton *s)
{
	return user_of(s) && user_of(s)->inside & NS_BIT(NS_PID);
}

static int mount_numbers(void)
{
	return unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ? -errno : 0;
}

/* A view (view.h) is in a mount namespace of the host's, which nobody can enter from inside the unit's user namespace: whoever makes the pid namespace from in there enters it before. */
static bool enters_view_before(const struct skeleton *s)
{
	return s->world && user_owns_pids(s) && !s->world->msg->n_mounts && s->world->made->mounts >= 0;
}

/*
 * In the child. Mounts that belong to the unit's user namespace can be entered from inside of it only, others only from outside. Of a pid namespace that is there for a number, /proc
 * is mounted where the unit's mounts are the host's.
 */
static int join_world(const struct skeleton *s)
{
	const Gw__NsUser *user = user_of(s);
	bool inside = user && user->inside & NS_BIT(NS_MNT);
	int ret = 0;

	if (s->world && !inside && !enters_view_before(s))
		ret = ns_join(s->world->msg, s->world->made, s->world->why);
	if (ret == 0 && s->namespace_init && !(s->world && s->world->msg && s->world->made->mounts >= 0))
		ret = mount_numbers();
	if (ret == 0 && user && !user_owns_pids(s))
		ret = ns_user_enter(user, s->world->made->user, s->world->why);
	return ret == 0 && inside ? ns_join(s->world->msg, s->world->made, s->world->why) : ret;
}

/* The child between clone and exec. Only system calls, but for what a unit with namespaces of its own needs; the worker has no other threads that take locks. */
static void __attribute__((noreturn)) child_main(const int fds[5], int gate, const struct skeleton *s)
{
	int moved[5];
	sigset_t all;
	char byte;

	close(gate); /* or the worker's death would not end the wait for it */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	for (int i = 0; i < 5; i++) {
		moved[i] = fcntl(fds[i], F_DUPFD, 64); /* out of the way of 3..7 */
		if (moved[i] < 0)
			_exit(125);
	}
	for (int i = 0; i < 5; i++)
		dup2(moved[i], CHILD_MEMFD + i);
	if (read(CHILD_GATE, &byte, 1) != 1) /* until the worker traces */
		_exit(124);
	if (join_world(s) < 0)
		_exit(126);
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
bool skeleton_about_to_go(pid_t pid)
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

/*
 * A process in a new pid namespace that belongs to the unit's user namespace: whoever makes it has to be in there, and cannot come back, so that a helper does. `numbers`: for
 * set_tid, the innermost first. Returns 0 in the process, its number on the host in the caller.
 */
static pid_t clone_first_in_user(const struct skeleton *s, uint64_t parent_flag, int exit_signal, struct err *e)
{
	pid_t *child = mmap(NULL, sizeof(*child), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), one = 1, helper, made;
	struct clone_args args = { .flags = CLONE_PARENT | CLONE_NEWPID, .set_tid = (uintptr_t)&one, .set_tid_size = 1 };
	struct clone_args helper_args = { .flags = parent_flag | CLONE_PIDFD, .exit_signal = (unsigned)exit_signal }; /* also the child's (CLONE_PARENT) */
	int pidfd = -1;

	if (child == MAP_FAILED)
		return err_sys(e, errno, "a pid namespace");
	helper_args.pidfd = (uintptr_t)&pidfd;
	helper = (pid_t)syscall(SYS_clone3, &helper_args, sizeof(helper_args));
	if (helper == 0) {
		if (enters_view_before(s) && ns_join(s->world->msg, s->world->made, s->world->why) < 0)
			_exit(1);
		if (ns_user_enter(user_of(s), s->world->made->user, s->world->why) < 0)
			_exit(1);
		made = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
		if (made == 0)
			return 0;
		*child = made < 0 ? -errno : made;
		_exit(0);
	}
	if (helper < 0)
		return err_sys(e, errno, "a pid namespace");
	poll(&(struct pollfd){ pidfd, POLLIN, 0 }, 1, -1);
	close(pidfd);
	if (!parent_flag)
		waitpid(helper, NULL, __WALL);
	made = *child;
	munmap(child, sizeof(*child));
	if (s->world->why->code < 0)
		return err_set(e, s->world->why->code, "%s", s->world->why->message);
	return made > 0 ? made : err_sys(e, made ? -made : ECHILD, "the first process of a pid namespace");
}

/* For numbers: of the unit's user namespace, if it has one, since only then they can be chosen from inside. */
static pid_t start_namespace_init(const struct skeleton *s, struct err *e)
{
	pid_t init;

	if (user_of(s)) {
		init = clone_first_in_user(s, 0, 0, e);
	} else {
		if (unshare(CLONE_NEWPID) < 0)
			return err_sys(e, errno, "a pid namespace for a number that is taken here");
		init = fork();
	}
	if (init == 0)
		namespace_init();
	return init < 0 ? err_sys(e, errno, "the first process of a pid namespace") : init;
}

static int enter_own_namespace(struct skeleton *s, struct err *e)
{
	cleanup_close int fd = -1;
	pid_t init = start_namespace_init(s, e);

	if (init < 0)
		return init;
	s->namespace_init = init;
	if (!user_of(s))
		return 0;
	fd = ns_open(init, NS_PID);
	return fd < 0 || ns_enter(fd, NS_PID) < 0 ? err_sys(e, errno, "the pid namespace of process %d", init) : 0;
}

/* What child_main needs, for a child that the surrogate parent clones. */
struct child_arguments {
	const int *fds;
	int gate;
	const struct skeleton *skeleton;
};

static void surrogate_child(void *arg)
{
	const struct child_arguments *a = arg;

	child_main(a->fds, a->gate, a->skeleton);
}

static pid_t clone_child(struct skeleton *s, pid_t pid, const int fds[5], int gate, struct err *e)
{
	struct child_arguments a = { fds, gate, s };
	pid_t child;

	if (s->parent && s->agent.scratch.map) /* which lives as long as the unit, and shall not keep the scratch */
		madvise(s->agent.scratch.map, s->agent.scratch.size, MADV_DONTFORK);
	child = s->parent ? parent_clone(s->parent, pid, surrogate_child, &a, e) : clone_numbered(pid, e);
	if (child == 0)
		child_main(fds, gate, s);
	return child;
}

/* For the surrogate parent: number 1 of a pid namespace, `pid` on the host, if that is free. */
static pid_t clone_first(void *arg, pid_t pid, int *ret_pidfd)
{
	const struct skeleton *s = arg;
	pid_t numbers[2] = { 1, pid }, child;
	struct clone_args args = { .flags = CLONE_NEWPID | CLONE_PIDFD, .pidfd = (uintptr_t)ret_pidfd, .exit_signal = SIGCHLD, .set_tid = (uintptr_t)numbers, .set_tid_size = 2 };

	if (user_owns_pids(s)) {
		child = clone_first_in_user(s, 0, SIGCHLD, NULL);
		if (child > 0)
			*ret_pidfd = pidfd_open_process(child, NULL);
		return child;
	}
	child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (child < 0 && errno == EEXIST) {
		args.set_tid_size = 1;
		child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	}
	return child < 0 ? -errno : child;
}

static int start_awaited_first(struct skeleton *s, const int fds[5], int gate, struct err *e)
{
	pid_t child;

	s->parent->clone = clone_first;
	s->parent->clone_arg = s;
	child = clone_child(s, s->world->msg->root, fds, gate, e);
	if (child < 0)
		return child;
	s->pid = child;
	s->own_pid_namespace = true;
	return 0;
}

/* The first process of a pid namespace that is the unit's own: on the host it has the number that it had at the source, if that is free. */
static int start_first(struct skeleton *s, const int fds[5], int gate, struct err *e)
{
	pid_t numbers[2] = { 1, s->world->msg->root };
	struct clone_args args = { .flags = CLONE_PARENT | CLONE_NEWPID, .set_tid = (uintptr_t)numbers, .set_tid_size = 2 };
	pid_t child;

	if (s->parent)
		return start_awaited_first(s, fds, gate, e);
	child = user_owns_pids(s) ? clone_first_in_user(s, CLONE_PARENT, 0, e) : (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (child < 0 && user_owns_pids(s))
		return child;
	if (child < 0 && errno == EEXIST) {
		args.set_tid_size = 1;
		child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	}
	if (child < 0)
		return err_sys(e, errno, "creating the first process of a pid namespace");
	if (child == 0)
		child_main(fds, gate, s);
	s->pid = child;
	s->own_pid_namespace = true;
	return 0;
}

static bool is_first(const struct skeleton *s)
{
	return s->world && s->world->msg && s->world->msg->owned & NS_BIT(NS_PID);
}

static int start_child(struct skeleton *s, pid_t pid, const int fds[5], int gate, struct err *e)
{
	pid_t child = s->own_pid_namespace ? -EEXIST : clone_child(s, pid, fds, gate, e);

	for (int tries = 0; child == -EEXIST && !s->own_pid_namespace && tries < NUMBER_WAIT_MS && skeleton_about_to_go(pid); tries++) {
		usleep(1000);
		child = clone_child(s, pid, fds, gate, e);
	}
	if (child == -EEXIST) {
		int ret = enter_own_namespace(s, e);

		if (ret < 0)
			return ret;
		s->own_pid_namespace = true;
		child = clone_child(s, pid, fds, gate, e);
	}
	if (child < 0)
		return child;
	s->pid = child;
	return 0;
}

int skeleton_wait_exec(struct skeleton *s, struct err *e)
{
	bool executed = false;
	int status;

	for (;;) {
		if (waitpid(s->pid, &status, __WALL) < 0)
			return err_sys(e, errno, "waiting for the skeleton");
		if (!WIFSTOPPED(status) && s->world && s->world->why->code < 0)
			return err_set(e, s->world->why->code, "%s", s->world->why->message);
		if (!WIFSTOPPED(status))
			return err_set(e, -ECHILD, "the skeleton ended early (%s %d)", WIFEXITED(status) ? "status" : "signal",
				       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
		if (status >> 16 == PTRACE_EVENT_EXEC)
			executed = true;
		/* Registers may be set only when execve has returned: at the program's own int3. */
		else if (executed && WSTOPSIG(status) == SIGTRAP)
			break;
		ptrace(PTRACE_CONT, s->pid, 0, 0);
	}
	if (ptrace(PTRACE_SETOPTIONS, s->pid, 0, SKELETON_OPTIONS) < 0)
		return err_sys(e, errno, "the skeleton: options");
	return 0;
}

/* Seizes the child, opens its gate and waits until it has exec'ed. */
static int let_exec(struct skeleton *s, int gate, struct err *e)
{
	int ret = trace_seize(s->pid, SKELETON_OPTIONS | PTRACE_O_TRACEEXEC, e);

	if (ret < 0)
		return ret;
	if (write(gate, "", 1) != 1)
		return err_sys(e, errno, "starting the skeleton");
	return skeleton_wait_exec(s, e);
}

int skeleton_program(struct err *e)
{
	size_t len = (size_t)(skeleton_blob_end - skeleton_blob);
	int fd = skeleton_memfd("godwit-skeleton", e);

	if (fd < 0)
		return fd;
	if (write(fd, skeleton_blob, len) != (ssize_t)len || fchmod(fd, 0755) < 0) {
		close(fd);
		return err_sys(e, errno, "the skeleton program");
	}
	return fd;
}

int skeleton_open(struct skeleton *s, const struct skeleton_terms *terms, int ret_fds[3], struct err *e)
{
	int pair[2], ret;

	ret_fds[0] = ret = skeleton_memfd(SCRATCH_NAME, e);
	if (ret < 0)
		return ret;
	/* The scratch owns it from here on, also when this fails. */
	ret = scratch_init(&s->agent.scratch, ret_fds[0], terms->threads, terms->arena_bytes, e);
	if (ret < 0)
		return ret;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "socketpair");
	s->transfer = pair[0];
	ret_fds[1] = pair[1];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "socketpair");
	s->agent.socket = pair[0];
	ret_fds[2] = pair[1];
	return 0;
}

int skeleton_start(struct skeleton *s, pid_t pid, bool own_namespace, const struct skeleton_terms *terms, struct err *e)
{
	int fds[5] = { -1, -1, -1, -1, -1 }, gate[2] = { -1, -1 }, ret;
	struct parent *parent = s->parent;
	const struct skeleton_world *world = s->world;

	*s = SKELETON_INIT;
	s->parent = parent;
	s->world = world;
	s->own_pid_namespace = own_namespace;
	ret = skeleton_open(s, terms, fds, e);
	if (ret == 0)
		fds[3] = ret = skeleton_program(e);
	if (ret >= 0)
		ret = pipe2(gate, O_CLOEXEC) < 0 ? err_sys(e, errno, "pipe") : 0;
	fds[4] = gate[0];
	if (ret == 0)
		ret = is_first(s) ? start_first(s, fds, gate[1], e) : start_child(s, pid, fds, gate[1], e);
	for (int i = 1; i < 5; i++)
		close_fdp(&fds[i]);
	if (ret == 0)
		ret = let_exec(s, gate[1], e);
	close_fdp(&gate[1]);
	if (ret == 0)
		ret = skeleton_hold_on(s, e);
	if (ret == 0)
		ret = trace_find_gadget(s->pid, &s->agent.gadget, 0, NULL, e);
	if (ret < 0)
		return ret;
	s->transfer_end = CHILD_TRANSFER;
	s->agent_end = CHILD_AGENT_END;
	return skeleton_enter(s, pid, terms->base, CHILD_MEMFD, e);
}
