// SPDX-License-Identifier: GPL-2.0-or-later
/* api.c - godwit-api: its start, and what comes from it; see api.h */
#include "daemon/api.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/log.h"
#include "base/program.h"
#include "base/util.h"
#include "wire/conn.h"

#define AGAIN_NS 1000000000ull
#define BACKLOG 64
#define AT_ONCE_MAX 16 /* conversations that are taken up before others are looked at */

int api_open(struct daemon *d, const char *directory, struct err *e)
{
	snprintf(d->api_path, sizeof(d->api_path), "%s/api.sock", directory);
	d->api_fd = conn_listen_unix(d->api_path, 0111, BACKLOG, e); /* whoever connects is asked who he is: access.h */
	return MIN(d->api_fd, 0);
}

static void __attribute__((noreturn)) execute(const struct daemon *d, int channel)
{
	char program[PATH_MAX], listener[16], ours[16], group[16] = "-1";

	(void)fcntl(d->api_fd, F_SETFD, 0);
	(void)fcntl(channel, F_SETFD, 0);
	snprintf(listener, sizeof(listener), "%d", d->api_fd);
	snprintf(ours, sizeof(ours), "%d", channel);
	if (d->config.has_access_group)
		snprintf(group, sizeof(group), "%u", d->config.access_group);
	execl(program_beside("godwit-api", program), "godwit-api", listener, ours, group, (char *)NULL);
	log_error("event=api-failed error=\"%s: %s\"", program, strerror(errno));
	_exit(1);
}

int api_tick(struct daemon *d)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	int ends[2];
	bool child;

	if (d->api_fd < 0 || worker_count(d, WORKER_API))
		return -1;
	if (now >= d->api_due_ns) {
		d->api_due_ns = now + AGAIN_NS;
		close_fdp(&d->api_channel);
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
			return (int)(AGAIN_NS / 1000000);
		worker_start(d, WORKER_API, (const int[]){ d->api_fd, ends[1] }, 2, &child, NULL);
		if (child)
			execute(d, ends[1]);
		close(ends[1]);
		d->api_channel = ends[0];
	}
	return (int)(AGAIN_NS / 1000000);
}

/* Whether this is the server's end of a connection to our socket, of which the kernel knows who has made it. Of a listener, or a client's end, it would say that root is at the other end. */
static bool is_connection(const struct daemon *d, int fd)
{
	struct sockaddr_un own = { 0 };
	socklen_t len = sizeof(own);
	int listens = 1, type = 0;

	return getsockname(fd, (struct sockaddr *)&own, &len) == 0 && own.sun_family == AF_UNIX && !strncmp(own.sun_path, d->api_path, sizeof(own.sun_path)) &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){ sizeof(type) }) == 0 && type == SOCK_STREAM &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &(socklen_t){ sizeof(listens) }) == 0 && !listens;
}

static bool is_stream(int fd)
{
	int domain = 0, type = 0;

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &(socklen_t){ sizeof(domain) }) == 0 && domain == AF_UNIX &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){ sizeof(type) }) == 0 && type == SOCK_STREAM;
}

/* Two descriptors, the conversation and for whom; what is more than that is not taken, and what is less is no question. 0: it has ended; -EAGAIN. */
static int receive(int channel, int fds[2])
{
	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec data = { &byte, 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
	ssize_t n = recvmsg(channel, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;

	fds[0] = fds[1] = -1;
	if (n <= 0)
		return n < 0 ? -errno : 0;
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(sizeof(int)))
		memcpy(fds, CMSG_DATA(c), MIN(c->cmsg_len - CMSG_LEN(0), 2 * sizeof(int)));
	return 1;
}

void api_input(struct daemon *d)
{
	int r = 1;

	for (int i = 0; i < AT_ONCE_MAX && r > 0; i++) {
		int fds[2];

		r = receive(d->api_channel, fds);
		if (r > 0 && fds[0] >= 0 && fds[1] >= 0 && is_stream(fds[0]) && is_connection(d, fds[1]) && fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0)
			client_admit(d, take_fd(&fds[0]), fds[1]);
		else if (r > 0)
			log_warning("event=api-odd error=\"what godwit-api hands over is no conversation\"");
		close_fdp(&fds[0]);
		close_fdp(&fds[1]);
	}
	if (r == 0 || (r < 0 && r != -EAGAIN && r != -EINTR))
		close_fdp(&d->api_channel); /* it has ended: its successor brings another */
}
