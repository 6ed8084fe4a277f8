// SPDX-License-Identifier: GPL-2.0-or-later
/* relay_socket.c - stream sockets of AF_UNIX as relays of TLS use them: how the other end has ended can be told, also later; a descriptor marks the byte that it came with */
#include <sys/socket.h>
#include <sys/un.h>

#include "fact.h"

static int events_of(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) == 1 ? p.revents : 0;
}

static void pair(int fds[2])
{
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
}

static void ends(void)
{
	char byte;
	int fds[2];
	pid_t child;

	pair(fds);
	FACT(events_of(fds[0]) == 0, "nothing, as long as the other end is there");
	shutdown(fds[1], SHUT_WR);
	FACT(recv(fds[0], &byte, 1, 0) == 0 && events_of(fds[0]) == POLLRDHUP, "POLLRDHUP alone after a shutdown of the other end");
	FACT(send(fds[0], "x", 1, MSG_NOSIGNAL) == 1, "the other direction stays");
	recv(fds[1], &byte, 1, 0);
	close(fds[1]);
	FACT(events_of(fds[0]) & POLLHUP, "POLLHUP after its close");
	close(fds[0]);
	pair(fds);
	child = fork();
	if (child == 0)
		pause();
	close(fds[1]);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	FACT(recv(fds[0], &byte, 1, 0) == 0 && events_of(fds[0]) & POLLHUP, "POLLHUP when its process has been killed");
	close(fds[0]);
}

static void marked(void)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char text[100];
	struct iovec iov = { "P", 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	int fds[2];

	pair(fds);
	*CMSG_FIRSTHDR(&m) = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fds[0], sizeof(int));
	MUST(send(fds[0], "before", 6, 0) == 6 && sendmsg(fds[0], &m, 0) == 1 && send(fds[0], "after", 5, 0) == 5);
	iov = (struct iovec){ text, sizeof(text) };
	m.msg_controllen = sizeof(control);
	FACT(recvmsg(fds[1], &m, 0) == 7 && text[6] == 'P' && m.msg_controllen, "a byte that came with a descriptor is the last of what is read");
	FACT(recv(fds[1], text, sizeof(text), 0) == 5, "what was sent behind it is read next");
}

static void named(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX, .sun_path = "\0godwit fact" };
	int fds[2];

	pair(fds);
	FACT(bind(fds[0], (struct sockaddr *)&name, sizeof(sa_family_t) + 12) == 0, "an end of a pair can have a name");
}

int main(void)
{
	ends();
	marked();
	named();
	return fact_result();
}
