/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* host_keeper.c - see host_keeper.h */
#include "image/host_keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/ns.h"
#include "kern/fdpass.h"

#define KEEPERS_MAX 16u

static int sockets[KEEPERS_MAX]; /* to each of them */
static size_t n_keepers;

/* Out of what is the unit's: it would be one more process in there, and keep it. */
static void leave_unit(void)
{
	for (int k = 0; k < NS_KINDS; k++) {
		cleanup_close int fd = NS_ENTERED & NS_BIT(k) ? ns_open_hosts((enum ns_kind)k) : -1;

		if (fd >= 0)
			(void)ns_enter(fd, (enum ns_kind)k);
	}
}

static void be_ordinary(void)
{
	static const struct sched_param none;
	sigset_t no_signals;

	sigemptyset(&no_signals);
	sigprocmask(SIG_SETMASK, &no_signals, NULL);
	(void)sched_setscheduler(0, SCHED_OTHER, &none);
	(void)setpriority(PRIO_PROCESS, 0, 0);
}

/* A fork of the worker, which keeps nothing of it: connections mean something to others as long as they are open. The socket is 0, the others are 1 and 2. */
static void keep_only(int socket, const int fds[HOST_KEEPER_FDS])
{
	int all[HOST_KEEPER_FDS + 1], moved[HOST_KEEPER_FDS + 1];

	all[0] = socket;
	memcpy(all + 1, fds, HOST_KEEPER_FDS * sizeof(*fds));
	for (int i = 0; i <= HOST_KEEPER_FDS; i++)
		moved[i] = all[i] < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : fcntl(all[i], F_DUPFD_CLOEXEC, NS_HIGH_FD);
	for (int i = 0; i <= HOST_KEEPER_FDS; i++)
		dup2(moved[i], i);
	syscall(SYS_close_range, HOST_KEEPER_FDS + 1u, ~0u, 0u);
}

static void __attribute__((noreturn)) keeper_main(const struct host_keeper *k, void *arg, int socket, const int fds[HOST_KEEPER_FDS])
{
	struct pollfd p;
	int root = -1;
	char byte;

	prctl(PR_SET_NAME, "godwit-net");
	setsid();
	leave_unit();
	be_ordinary();
	keep_only(socket, fds);
	if (!k->begin(arg, (const int[HOST_KEEPER_FDS]){ fds[0] < 0 ? -1 : 1, fds[1] < 0 ? -1 : 2 }))
		_exit(1);
	close(1);
	close(2);
	/* Whose pidfd comes over the socket. */
	if (write(0, "", 1) == 1 && fd_receive(0, &byte, 1, &root, NULL) == 0) {
		close(0);
		p = (struct pollfd){ root, POLLIN, 0 };
		while (poll(&p, 1, -1) < 0 && errno == EINTR)
			;
	}
	k->end(arg);
	_exit(0);
}

int host_keeper_start(const struct host_keeper *k, void *arg, const int fds[HOST_KEEPER_FDS], struct err *e)
{
	int pair[2];
	char byte;
	pid_t pid;

	if (n_keepers >= KEEPERS_MAX)
		return err_set(e, -E2BIG, "more than %u things that the host keeps for the unit", KEEPERS_MAX);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "socketpair");
	pid = fork();
	if (pid == 0)
		keeper_main(k, arg, pair[1], fds);
	close(pair[1]);
	sockets[n_keepers++] = pair[0];
	if (pid < 0)
		return err_sys(e, errno, "godwit-net");
	return read(pair[0], &byte, 1) == 1;
}

int host_keepers_keep(pid_t root, struct err *e)
{
	cleanup_close int pidfd = n_keepers ? pidfd_open_process(root, e) : -1;
	int ret = n_keepers && pidfd < 0 ? pidfd : 0;

	for (size_t i = 0; i < n_keepers && ret == 0; i++) {
		struct pollfd p = { sockets[i], POLLIN | POLLHUP, 0 };

		if (!(poll(&p, 1, 0) > 0 && p.revents & POLLHUP)) /* one that could not begin */
			ret = fd_send(sockets[i], &pidfd, 1, e);
	}
	return ret;
}
