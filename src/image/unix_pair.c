/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unix_pair.c - connected pairs of unix sockets, with their names and what they say of each other; see unix_pair.h */
#include "image/unix_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/peer_cred.h"
#include "image/unix_name.h"

int unix_listen_as(int fd, int backlog, const Gw__FdUnixCred *cred)
{
	struct peer_cred_own own;
	int ret;

	peer_cred_enter(cred, &own);
	ret = listen(fd, backlog) < 0 ? -errno : 0;
	peer_cred_leave(&own);
	return ret;
}

/* Two connected ends, the first of which has the abstract name without holding it. */
static int accept_pair(uint32_t type, const struct unix_end *first, const struct unix_end *second, int ret_fds[2], struct err *e)
{
	const ProtobufCBinaryData *name = first->name;
	cleanup_close int listener = socket(AF_UNIX, (int)type | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, (int)type | SOCK_CLOEXEC, 0);
	cleanup_close int accepted = -1;
	struct ucred cred = { 0 };
	socklen_t cred_len = sizeof(cred);
	struct sockaddr_un a;
	unsigned int len = unix_name_address(name, &a);
	struct peer_cred_own own;
	char text[200];
	int ret;

	unix_name_describe(name, text, sizeof(text));
	if (listener < 0 || client < 0)
		return err_sys(e, -errno, "unix socket");
	if (bind(listener, (void *)&a, len) < 0 && errno == EADDRINUSE)
		return err_set(e, -EADDRINUSE, "unix socket %s: another process on this host has the name; stop it first", text);
	ret = unix_listen_as(listener, 1, second->cred);
	peer_cred_enter(first->cred, &own);
	ret = ret == 0 && connect(client, (void *)&a, len) < 0 ? -errno : ret;
	peer_cred_leave(&own);
	if (ret < 0)
		return err_sys(e, ret, "unix socket: connecting to %s", text);
	accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (accepted < 0)
		return err_sys(e, -errno, "unix socket: accepting at %s", text);
	if (getsockopt(accepted, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) < 0 || cred.pid != getpid())
		return err_set(e, -EAGAIN, "unix socket %s: somebody else has connected to it", text);
	ret_fds[0] = take_fd(&accepted);
	ret_fds[1] = take_fd(&client);
	return 0;
}

int unix_name_end(struct fd_restore *r, int fd, const ProtobufCBinaryData *name, bool owner, size_t tag, struct err *e)
{
	struct sockaddr_un a;
	unsigned int len;

	if (!name->len || (owner && unix_name_is_path(name)))
		return 0;
	if (unix_name_is_path(name))
		return unix_den_bind(&r->den, fd, name, tag, e);
	len = unix_name_address(name, &a);
	if (bind(fd, (void *)&a, len) < 0)
		return err_sys(e, -errno, "unix socket: binding to the abstract name %.100s", a.sun_path + 1);
	return 0;
}

static bool must_accept(const struct unix_end *x)
{
	return x->name->len && !unix_name_is_path(x->name) && !x->owner;
}

/*
 * A socketpair(2) as a process made it that is no more: its number and ids are what SO_PEERCRED shows. Somebody with that number makes it,
 * in this process's table of descriptors, and ends. -1: the number is taken; then the pair is this process's.
 */
static int pair_of_the_dead(const Gw__FdUnixCred *cred, uint32_t type, int ret_fds[2])
{
	pid_t number = cred->pid, child;
	struct clone_args args = { .flags = CLONE_FILES, .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&number, .set_tid_size = 1 };
	int *fds = mmap(NULL, 2 * sizeof(*fds), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), status = -1;

	if (fds == MAP_FAILED)
		return -1;
	child = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (child == 0)
		_exit(syscall(SYS_setgroups, cred->n_groups, cred->groups) < 0 || syscall(SYS_setresgid, cred->gid, cred->gid, cred->gid) < 0 ||
			syscall(SYS_setresuid, cred->uid, cred->uid, cred->uid) < 0 ||
			socketpair(AF_UNIX, (int)type | SOCK_CLOEXEC, 0, fds) < 0);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	ret_fds[0] = fds[0];
	ret_fds[1] = fds[1];
	munmap(fds, 2 * sizeof(*fds));
	return child > 0 && status == 0 ? 0 : -1;
}

int unix_socketpair_as(uint32_t type, const Gw__FdUnixCred *cred, int ret_fds[2], struct err *e)
{
	struct peer_cred_own own;
	int ret;

	if (cred && !cred->process && cred->pid > 1 && pair_of_the_dead(cred, type, ret_fds) == 0)
		return 0;
	peer_cred_enter(cred, &own);
	ret = socketpair(AF_UNIX, (int)type | SOCK_CLOEXEC, 0, ret_fds) < 0 ? -errno : 0;
	peer_cred_leave(&own);
	return ret < 0 ? err_sys(e, ret, "socketpair") : 0;
}

/* A pair whose first end was accepted from a listener with a path: that of whoever listened and that of whoever connected differ. */
static int accept_in_den(struct fd_restore *r, uint32_t type, const struct unix_end *first, const struct unix_end *second, int ret_fds[2], struct err *e)
{
	cleanup_close int listener = socket(AF_UNIX, (int)type | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, (int)type | SOCK_CLOEXEC, 0);
	struct peer_cred_own own;
	int ret = listener < 0 || client < 0 ? err_sys(e, -errno, "unix socket") : unix_den_bind(&r->den, listener, first->name, first->tag, e);

	if (ret == 0 && unix_listen_as(listener, 1, second->cred) < 0)
		ret = err_sys(e, -errno, "unix socket: listen");
	if (ret < 0)
		return ret;
	peer_cred_enter(first->cred, &own);
	ret = unix_den_connect(&r->den, client, first->tag, e);
	peer_cred_leave(&own);
	if (ret < 0)
		return ret;
	ret_fds[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (ret_fds[0] < 0)
		return err_sys(e, -errno, "unix socket: accepting");
	ret_fds[1] = take_fd(&client);
	return 0;
}

static bool is_from_den(const struct unix_end *x)
{
	return x->name->len && unix_name_is_path(x->name) && !x->owner;
}

int unix_make_pair(struct fd_restore *r, uint32_t type, const struct unix_end ends[2], int ret_fds[2], struct err *e)
{
	int first = must_accept(&ends[0]) ? 0 : 1, fds[2] = { -1, -1 }, result;
	bool in_den = false;

	if (type != SOCK_DGRAM && !must_accept(&ends[first]) && ends[0].cred && ends[1].cred && !peer_cred_equal(ends[0].cred, ends[1].cred)) {
		in_den = is_from_den(&ends[0]) || is_from_den(&ends[1]);
		first = is_from_den(&ends[0]) ? 0 : 1;
	}
	if (in_den || (type != SOCK_DGRAM && must_accept(&ends[first]))) {
		result = in_den ? accept_in_den(r, type, &ends[first], &ends[!first], fds, e) : accept_pair(type, &ends[first], &ends[!first], fds, e);
		if (result < 0)
			return result;
		ret_fds[first] = fds[0];
		ret_fds[!first] = fds[1];
		return unix_name_end(r, fds[1], ends[!first].name, ends[!first].owner, ends[!first].tag, e);
	}
	result = unix_socketpair_as(type, ends[0].cred ? ends[0].cred : ends[1].cred, ret_fds, e);
	if (result == 0)
		result = unix_name_end(r, ret_fds[0], ends[0].name, ends[0].owner, ends[0].tag, e);
	return result < 0 ? result : unix_name_end(r, ret_fds[1], ends[1].name, ends[1].owner, ends[1].tag, e);
}
