/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * host_pty.c - a terminal of the host for `exec --tty`
 *
 * The pty is opened inside the host, so that its name means something there; the master is passed out over a
 * socket. The relay runs with all signals blocked and takes them from a signalfd: the window's size changes, or somebody sends
 * us a signal that the command must get. Control characters go through the raw terminal as they are.
 */
#include "labhost.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>

#include "base/util.h"

int pty_open_inside(int channel)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = "", .iov_len = 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	cleanup_close int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	char name[64];
	int slave;

	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof(name)) != 0)
		return -1;
	slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
		return -1;
	control.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(&control.header), &master, sizeof(int));
	if (sendmsg(channel, &message, 0) < 0)
		return -1;
	return dup2(slave, 0) < 0 || dup2(slave, 1) < 0 || dup2(slave, 2) < 0 ? -1 : 0;
}

int pty_receive(int channel)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int fd = -1;

	if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) <= 0 || control.header.cmsg_type != SCM_RIGHTS) {
		errno = EPIPE;
		return -1;
	}
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

static void copy_window_size(int master)
{
	struct winsize size;

	if (ioctl(0, TIOCGWINSZ, &size) == 0)
		ioctl(master, TIOCSWINSZ, &size);
}

static ssize_t pass(int from, int to)
{
	char buffer[16384];
	ssize_t n = read(from, buffer, sizeof(buffer));

	for (ssize_t done = 0; done < n;) {
		ssize_t w = write(to, buffer + done, (size_t)(n - done));

		if (w < 0)
			return -1;
		done += w;
	}
	return n;
}

static void relay_loop(int master, int pidfd, int signals)
{
	struct pollfd fds[4] = {
		{ .fd = 0, .events = POLLIN }, { .fd = master, .events = POLLIN },
		{ .fd = signals, .events = POLLIN }, { .fd = pidfd, .events = POLLIN },
	};
	struct signalfd_siginfo info;

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			return;
		if (fds[2].revents && read(signals, &info, sizeof(info)) == sizeof(info)) {
			if (info.ssi_signo == SIGWINCH)
				copy_window_size(master);
			else
				syscall(SYS_pidfd_send_signal, pidfd, info.ssi_signo, NULL, 0);
		}
		if (fds[0].revents && pass(0, master) <= 0)
			fds[0].fd = -1;
		if (fds[1].revents) {
			if (pass(master, 1) <= 0)
				return;
		} else if (fds[3].revents) {
			return;         /* it has ended, and all it wrote is out */
		}
	}
}

void pty_relay(int master, int pidfd)
{
	struct termios saved, raw;
	bool terminal = tcgetattr(0, &saved) == 0;
	cleanup_close int signals = -1;
	sigset_t watched;

	sigfillset(&watched);
	sigdelset(&watched, SIGCHLD);
	signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
	copy_window_size(master);
	if (terminal) {
		raw = saved;
		cfmakeraw(&raw);
		tcsetattr(0, TCSADRAIN, &raw);
	}
	relay_loop(master, pidfd, signals);
	if (terminal)
		tcsetattr(0, TCSADRAIN, &saved);
}
