/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * host_kill.c - a power cut
 *
 * labhost kill STATE PREFIX NAME
 *
 * The host's port of the switch goes down first, so that not one packet leaves any more: no FIN, no RST when the
 * sockets of dying processes are closed. Then SIGKILL to the init, with which the kernel kills everything in the pid namespace. Returns when
 * all of it is dead. The orchestrator deletes the network namespace afterwards, before the port can come up again.
 */
#include "labhost.h"

#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/util.h"

#define KILL_TIMEOUT_MS 10000

static void port_down(const struct labhost *host)
{
	cleanup_close int netns = lab_open_netns(host, "net");
	cleanup_close int s = -1;
	struct ifreq ifr = { 0 };

	if (netns < 0 || setns(netns, CLONE_NEWNET) < 0)
		lab_die(host, errno, "namespace %s-net of the switch", host->prefix);
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", host->name);
	/* flags 0: IFF_UP is the only one that can be changed here and that we had set */
	if (s < 0 || ioctl(s, SIOCSIFFLAGS, &ifr) < 0)
		lab_die(host, errno, "taking port %s of the switch down", host->name);
}

int host_kill(struct labhost *host, int argc, char **argv)
{
	cleanup_close int pidfd = -1;
	struct pollfd ended;
	pid_t pid;

	(void)argc;
	(void)argv;
	pidfd = lab_open_init(host, &pid);
	if (pidfd < 0)
		lab_die(host, 0, "is not running");
	port_down(host);
	if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
		lab_die(host, errno, "killing its init (pid %d)", (int)pid);
	ended = (struct pollfd){ .fd = pidfd, .events = POLLIN };
	if (poll(&ended, 1, KILL_TIMEOUT_MS) != 1)
		lab_die(host, 0, "processes of it are still there %d s after SIGKILL", KILL_TIMEOUT_MS / 1000);
	return 0;
}
