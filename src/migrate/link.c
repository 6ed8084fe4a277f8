/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* link.c - the connections of one migration; see link.h */
#include "migrate/link.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/util.h"
#include "kern/fdpass.h"
#include "wire/conn.h"
#include "wire/frame.h"

#define BULK_BUFFER (1 << 20)
#define PATIENCE_MS 600000
#define TCP_RTO_MAX_MS_OPTION 44 /* TCP_RTO_MAX_MS of Linux 6.15; older kernels refuse it, and try less often */

void link_limit_stall(int bulk, int timeout_ms)
{
	struct timeval limit = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };

	setsockopt(bulk, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

static void tune(int fd, enum migrate_role role)
{
	int buffer = BULK_BUFFER;

	conn_tune(fd);
	if (role != ROLE_BULK)
		return;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	link_limit_stall(fd, LINK_TIMEOUT_MS);
}

int link_connect(struct link *l, enum migrate_role role, const struct sockaddr_in *to, const uint8_t mig_id[HELLO_MIG_ID_BYTES], const char *self_name,
		 struct err *e)
{
	cleanup_close int fd = conn_connect(to, LINK_TIMEOUT_MS, e);
	Gw__Hello hello;
	int ret;

	if (fd < 0)
		return fd;
	hello_fill(&hello);
	hello.role = role;
	hello.node_name = (char *)(uintptr_t)self_name;
	hello.mig_id = (ProtobufCBinaryData){ HELLO_MIG_ID_BYTES, (uint8_t *)(uintptr_t)mig_id };
	ret = hello_send(fd, &hello, e);
	if (ret < 0)
		return ret;
	tune(fd, role);
	l->fd[role] = take_fd(&fd);
	return 0;
}

int link_accept(struct link *l, int handoff, int timeout_ms, struct err *e)
{
	while (l->fd[ROLE_GO] < 0 || l->fd[ROLE_FAULT] < 0 || l->fd[ROLE_BULK] < 0) {
		struct pollfd p[2] = { { handoff, POLLIN, 0 }, { l->fd[ROLE_CONTROL], POLLRDHUP, 0 } };
		uint8_t role;
		int fd, ret;

		if (poll(p, 2, timeout_ms) <= 0)
			return err_set(e, -ETIMEDOUT, "the source did not open its connections");
		if (p[1].revents)
			return err_set(e, -ECONNRESET, "the source went away");
		ret = fd_receive(handoff, &role, 1, &fd, e);
		if (ret < 0)
			return ret;
		if (role == ROLE_CONTROL || role > ROLE_BULK || l->fd[role] >= 0) {
			close(fd);
			return err_set(e, -EPROTO, "an unexpected connection (role %u)", role);
		}
		tune(fd, role);
		l->fd[role] = fd;
	}
	return 0;
}

void link_make_patient(struct link *l)
{
	static const enum migrate_role roles[] = { ROLE_FAULT, ROLE_BULK };
	/* Probes find out soon when the other host has been booted anew; and after silence the next try comes soon. */
	static const int options[][2] = { { TCP_USER_TIMEOUT, PATIENCE_MS }, { TCP_KEEPIDLE, 3 }, { TCP_KEEPINTVL, 3 }, { TCP_RTO_MAX_MS_OPTION, 2000 } };

	for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
		for (size_t k = 0; k < ARRAY_SIZE(options); k++)
			setsockopt(l->fd[roles[i]], IPPROTO_TCP, options[k][0], &options[k][1], sizeof(int));
}

void link_close(struct link *l)
{
	for (size_t i = 0; i < ARRAY_SIZE(l->fd); i++)
		close_fdp(&l->fd[i]);
}
