/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* parent.c - making the surrogate parent and, by it, the root of a unit; see parent.h */
#include "home/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "home/door.h"
#include "home/keep.h"

/* Of the child, after its number: a pidfd by which the worker finds out what number it has for itself. */
struct made {
	int32_t pid; /* or a negative errno */
};

static pid_t clone_as(pid_t pid, uint64_t flags, int exit_signal, int *ret_pidfd)
{
	struct clone_args args = { .flags = flags | (ret_pidfd ? CLONE_PIDFD : 0), .pidfd = (uintptr_t)ret_pidfd, .exit_signal = (unsigned)exit_signal,
				   .set_tid = pid ? (uintptr_t)&pid : 0, .set_tid_size = pid ? 1 : 0 };
	pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));

	return child < 0 ? -errno : child;
}

/* The number that the process of a pidfd has in this process's pid namespace. */
static pid_t number_of(int pidfd)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[128];
	int pid = -1;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Pid: %d", &pid) == 1)
			break;
	return pid;
}

static void __attribute__((noreturn)) surrogate(const struct parent *p, int control, pid_t pid, void (*child)(void *arg), void *arg)
{
	struct made made;
	int pidfd = -1;

	prctl(PR_SET_NAME, "godwit-away");
	setsid();
	if (p->slave >= 0 && p->controls)
		ioctl(p->slave, TIOCSCTTY, 0);
	made.pid = p->clone ? p->clone(p->clone_arg, pid, &pidfd) : clone_as(pid, 0, SIGCHLD, &pidfd);
	if (made.pid == 0) {
		close(control);
		if (!p->leads && !p->clone) /* a group of its own: with a parent in the same session it is not orphaned, so that SIGTSTP and the like stop it */
			setpgid(0, 0);
		child(arg);
		_exit(125);
	}
	door_send(control, &made, sizeof(made), &pidfd, made.pid > 0 ? 1 : 0, NULL);
	if (made.pid < 0)
		_exit(0);
	close_fdp(&pidfd);
	keep_host_namespaces(getppid()); /* godwitd's */
	away_run(p, control, made.pid);
}

pid_t parent_clone(struct parent *p, pid_t pid, void (*child)(void *arg), void *arg, struct err *e)
{
	cleanup_close int ours = -1, theirs = -1, pidfd = -1;
	struct made made = { 0 };
	int pair[2];
	size_t n;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, -errno, "socketpair");
	ours = pair[0];
	theirs = pair[1];
	/* Its parent is the worker's, godwitd. */
	p->pid = p->wanted_pid > 1 && p->wanted_pid != pid ? clone_as(p->wanted_pid, CLONE_PARENT, 0, NULL) : -EEXIST;
	if (p->pid < 0)
		p->pid = clone_as(0, CLONE_PARENT, 0, NULL);
	if (p->pid < 0)
		return err_sys(e, p->pid, "the surrogate parent");
	if (p->pid == 0) {
		close(ours);
		surrogate(p, theirs, pid, child, arg);
	}
	close_fdp(&theirs);
	if (door_receive(ours, &made, sizeof(made), &pidfd, 1, &n, e) != (ssize_t)sizeof(made) || made.pid == 0 || (made.pid > 0 && n != 1)) {
		p->pid = 0;
		return err_set(e, -ECHILD, "the surrogate parent ended early");
	}
	if (made.pid < 0) {
		p->pid = 0;
		return err_sys(e, made.pid, "creating a process with the number %d", pid);
	}
	p->control = take_fd(&ours);
	return number_of(pidfd);
}

int parent_add_channel(struct parent *p, uint32_t id, unsigned kind, int fd, struct err *e)
{
	const struct parent_word w = { PARENT_CHANNEL, id, kind };

	return door_send(p->control, &w, sizeof(w), &fd, 1, e);
}

static void say(struct parent *p, uint32_t word)
{
	const struct parent_word w = { .word = word };

	close_fdp(&p->slave);
	if (p->control >= 0)
		door_send(p->control, &w, sizeof(w), NULL, 0, NULL);
	close_fdp(&p->control);
}

void parent_commit(struct parent *p)
{
	say(p, PARENT_COMMIT);
}

void parent_abort(struct parent *p)
{
	say(p, PARENT_ABORT);
}
