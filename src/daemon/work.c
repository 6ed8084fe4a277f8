// SPDX-License-Identifier: GPL-2.0-or-later
/* work.c - see work.h */
#include "daemon/work.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/node_ask.h"
#include "daemon/node_state.h"
#include "wire/conn.h"

#define CONNECT_MS 500
#define QUESTION_MS 1000
#define INFO_MAX_BYTES 4096
#define OLD_MS 2000 /* godwit-balance was not there, or busy: who asked has figures that are others by now */

int work_init(int ret[2], struct err *e)
{
	return socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) < 0 ? err_sys(e, -errno, "socketpair") : 0;
}

int work_ask(const struct daemon *d, const struct sockaddr_in *address, struct err *e)
{
	cleanup_close int fd = conn_connect(address, CONNECT_MS, e);
	int r;

	if (fd < 0)
		return fd;
	r = hello_ask(fd, ROLE_WORK, d->config.name, e);
	return r < 0 ? r : node_info_send(d, fd, e);
}

/* Runs in the worker. */
static int serve(const struct daemon *d, int fd)
{
	cleanup_frame struct frame frame = { 0 };
	struct work_ask ask = { .at_ms = cluster_now_ms() };
	Gw__NodeInfo *info = NULL;
	struct err e = ERR_INIT;
	int r = frame_recv_expect(fd, FRAME_NODE_INFO, &frame, INFO_MAX_BYTES, QUESTION_MS, &e);

	prctl(PR_SET_NAME, "godwit-table");
	if (r >= 0)
		r = node_info_decode(frame.payload, frame.len, &info, &e);
	if (r < 0) {
		log_warning("event=question-refused error=\"%s\"", e.message);
		return 1;
	}
	ask.node = gossip_id(info->name);
	node_load(info, &ask.load);
	if (node_takes(info) && node_state_balances(d->shared))
		(void)!send(d->asks[1], &ask, sizeof(ask), MSG_DONTWAIT | MSG_NOSIGNAL);
	gw__node_info__free_unpacked(info, NULL);
	return 0;
}

int work_serve(struct daemon *d, int fd, struct err *e)
{
	struct worker *w;
	bool child;

	set_blocking(fd);
	w = worker_start(d, WORKER_REQUEST, (int[]){ fd, d->asks[1] }, 2, &child, e);
	if (child)
		_exit(serve(d, fd));
	return w ? 0 : e->code;
}

bool work_next(int fd, struct work_ask *ret)
{
	while (recv(fd, ret, sizeof(*ret), MSG_DONTWAIT) == sizeof(*ret))
		if (cluster_now_ms() - ret->at_ms <= OLD_MS)
			return true;
	return false;
}
