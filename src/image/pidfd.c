/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pidfd.c - pidfds; see pidfd.h */
#include "image/pidfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/file.h"
#include "image/file_owner.h"
#include "kern/nsfs.h"

#ifndef PIDFD_NONBLOCK
#define PIDFD_NONBLOCK O_NONBLOCK
#endif
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

/* struct pidfd_info of linux/pidfd.h, which is newer than the headers. */
struct info {
	uint64_t mask, cgroupid;
	uint32_t pid, tgid, ppid, ids[8];
	int32_t exit_code;
	uint32_t rest[4];
};

#define INFO_EXIT (1u << 3)
#define GET_INFO _IOWR(0xff, 11, struct info)

bool pidfd_is_one(const char *link)
{
	return !strcmp(link, "anon_inode:[pidfd]") || !strncmp(link, "pidfd:[", 7);
}

int pidfd_capture(const struct fd_look *look, Gw__FdDesc *d, pidfd_finder *find, const void *arg, struct refusals *refusals, struct err *e)
{
	const char *text = fdinfo_find(look->info, "Pid");
	struct info info = { .mask = INFO_EXIT };
	long pid = text ? strtol(text, NULL, 10) : 0;
	bool inside;
	struct stat st;

	if (!text)
		return err_set(e, -EPROTO, "fd %d: fdinfo of a pidfd without a pid", look->fd);
	if (!d->pid) {
		d->pid = fd_alloc(sizeof(*d->pid));
		gw__fd_pid__init(d->pid);
	}
	d->pid->process = 0;
	d->pid->thread = d->pid->zombie = 0;
	inside = pid > 0 && find(arg, (pid_t)pid, d->pid);
	if (pid > 0 && !inside) {
		refusals_add(refusals, "fd.pidfd", "it is a pidfd of a process that would stay behind", "close it first",
			"fd %d (pidfd of process %ld)", look->fd, pid);
		refusals_blame(refusals, refusals->n - 1, (pid_t)pid);
		return FD_REFUSED;
	}
	if (pid == 0) {
		refusals_add(refusals, "fd.pidfd", "it is a pidfd of a process in another pid namespace", "close it first",
			"fd %d (pidfd)", look->fd);
		return FD_REFUSED;
	}
	if (pid < 0 && fstat(look->held, &st) == 0)
		d->pid->inode = st.st_ino;
	if (pid < 0 && ioctl(look->held, GET_INFO, &info) == 0 && (info.mask & INFO_EXIT)) {
		d->pid->has_status = true;
		d->pid->status = (uint32_t)info.exit_code;
	}
	return 0;
}

int pidfd_validate(const Gw__FdDesc *d, size_t n_processes, struct err *e)
{
	if (!d->pid || d->pid->process > n_processes || d->pid->thread < 0 || d->pid->zombie < 0 || d->pid->status > 0xffff)
		return err_set(e, -EPROTO, "pidfd: process %u", d->pid ? d->pid->process : 0);
	return 0;
}

/* How a child has to end for wait to give `status`. */
static _Noreturn void end_like(uint32_t status)
{
	struct sigaction action = { .sa_handler = SIG_DFL };
	sigset_t none;

	if (WIFSIGNALED((int)status)) {
		sigemptyset(&none);
		sigaction(WTERMSIG((int)status), &action, NULL);
		sigprocmask(SIG_SETMASK, &none, NULL);
		kill(getpid(), WTERMSIG((int)status));
	}
	_exit(WEXITSTATUS((int)status));
}

/*
 * A child of this worker's, in the pid namespace of `beside`: signals can be sent to nobody outside of the sender's, and the answer would be that, and not that
 * the process has ended. *ret_child is 0 in the child.
 */
static int clone_beside(pid_t beside, pid_t *ret_child, struct err *e)
{
	cleanup_close int own = ns_open_for_children(0, NS_PID), theirs = beside ? ns_open(beside, NS_PID) : -1;
	bool enters = own >= 0 && theirs >= 0 && ns_id_of(own) != ns_id_of(theirs);
	int code = enters ? ns_enter(theirs, NS_PID) : 0;

	if (code < 0)
		return err_sys(e, code, "pidfd: the pid namespace of a process that has ended");
	*ret_child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
	code = *ret_child < 0 ? -errno : 0;
	if (*ret_child == 0)
		return 0;
	if (enters && ns_enter(own, NS_PID) < 0)
		abort(); /* what else it makes would be in there */
	return code < 0 ? err_sys(e, code, "pidfd: a process that ends") : 0;
}

static int restore_ended(const Gw__FdDesc *d, pid_t beside, struct pidfd_ended **ended, size_t *n_ended, int *ret_fd, struct err *e)
{
	struct pidfd_ended *grown;
	pid_t child = 0;
	int fd;

	for (size_t i = 0; i < *n_ended; i++)
		if ((*ended)[i].inode == d->pid->inode)
			child = (*ended)[i].pid;
	if (!child) {
		fd = clone_beside(beside, &child, e);
		if (fd < 0)
			return fd;
		if (child == 0)
			end_like(d->pid->status & 0xff7f);
		grown = realloc(*ended, (*n_ended + 1) * sizeof(*grown));
		if (!grown)
			abort();
		*ended = grown;
		grown[(*n_ended)++] = (struct pidfd_ended){ d->pid->inode, child };
	}
	fd = (int)syscall(SYS_pidfd_open, child, d->flags & PIDFD_NONBLOCK);
	if (fd < 0)
		return err_sys(e, -errno, "pidfd of a process that has ended");
	*ret_fd = fd;
	return 0;
}

void pidfd_reap(struct pidfd_ended **ended, size_t *n_ended)
{
	for (size_t i = 0; i < *n_ended; i++)
		while (waitpid((*ended)[i].pid, NULL, 0) < 0 && errno == EINTR)
			;
	free(*ended);
	*ended = NULL;
	*n_ended = 0;
}

/* The number here of the thread of `pid` that the unit sees as `seen`; 0: there is none. */
static pid_t find_thread(pid_t pid, pid_t seen)
{
	cleanup_closedir DIR *tasks = NULL;
	struct dirent *entry;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	tasks = opendir(path);
	while (tasks && (entry = readdir(tasks)))
		if (atoi(entry->d_name) > 0 && fd_owner_seen(atoi(entry->d_name), "NSpid:") == seen)
			return atoi(entry->d_name);
	return 0;
}

int pidfd_restore(const Gw__FdDesc *d, const struct fd_env *env, pid_t beside, struct pidfd_ended **ended, size_t *n_ended, int *ret_fd, struct err *e)
{
	pid_t pid;
	int fd;

	if (!d->pid->process && !d->pid->zombie)
		return restore_ended(d, beside, ended, n_ended, ret_fd, e);
	/* A zombie is a process still, here. */
	if (d->pid->zombie)
		pid = env->host_pid(env->host_pid_arg, d->pid->zombie);
	else
		pid = d->pid->process <= env->n_pids ? env->pids[d->pid->process - 1] : 0;
	if (pid && d->pid->thread)
		pid = find_thread(pid, d->pid->thread);
	if (!pid)
		return err_set(e, -ESRCH, "pidfd: the process is not there");
	fd = (int)syscall(SYS_pidfd_open, pid, d->flags & (PIDFD_NONBLOCK | PIDFD_THREAD));
	if (fd < 0)
		return err_sys(e, -errno, "pidfd of process %d", (int)pid);
	*ret_fd = fd;
	return 0;
}
