// SPDX-License-Identifier: GPL-2.0-or-later
/* talk.c - conversations with godwitd; see talk.h */
#include "api/talk.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

static int channel = -1;

void talk_use(int fd)
{
	channel = fd;
}

static int hand_over(int end, int connection, struct err *e)
{
	union {
		char bytes[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec data = { .iov_base = (char[]){ 'T' }, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(2 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(c), (int[]){ end, connection }, 2 * sizeof(int));
	while (sendmsg(channel, &m, MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return err_sys(e, -errno, "godwitd cannot be asked");
	return 0;
}

int talk_open(struct ask *ask, int connection, json_t *request, struct err *e)
{
	int ends[2];
	int r;

	*ask = (struct ask){ .fd = -1 };
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		json_decref(request);
		return err_sys(e, -errno, "socketpair");
	}
	ask->fd = ends[0];
	r = hand_over(ends[1], connection, e);
	close(ends[1]);
	if (r == 0)
		return ask_send(ask, request, e);
	json_decref(request);
	return r;
}
