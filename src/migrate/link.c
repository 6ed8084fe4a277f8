/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* link.c - the connections of one migration; see link.h */
#include "migrate/link.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/util.h"
#include "kern/fdpass.h"
#include "wire/conn.h"
#include "wire/frame.h"

#define BULK_BUFFER (1 << 20)

void link_limit_stall(int bulk, int timeout_ms)
{
	struct timeval limit = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };

	setsockopt(bulk, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

static void tune(int fd, unsigned role)
{
	int buffer = BULK_BUFFER;

	conn_tune(fd);
	if (role != ROLE_BULK)
		return;
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	link_limit_stall(fd, LINK_TIMEOUT_MS);
}

int link_expect(struct link *l, size_t n, struct err *e)
{
	struct page_link *grown = realloc(l->pages, n * sizeof(*grown));

	if (!grown)
		return err_sys(e, ENOMEM, "connections");
	for (size_t i = l->npages; i < n; i++)
		grown[i] = (struct page_link){ -1, -1 };
	l->pages = grown;
	l->npages = n;
	return 0;
}

/* Where a connection of this role belongs; NULL: nowhere. */
static int *place_of(struct link *l, unsigned role, uint32_t process)
{
	if (role == ROLE_CONTROL)
		return &l->control;
	if (role == ROLE_GO)
		return &l->go;
	if (process >= l->npages || role > ROLE_BULK)
		return NULL;
	return role == ROLE_FAULT ? &l->pages[process].fault : &l->pages[process].bulk;
}

int link_connect(struct link *l, enum migrate_role role, uint32_t process, const struct link_peer *peer, struct err *e)
{
	cleanup_close int fd = peer->here ? conn_connect_here(peer->to, LINK_TIMEOUT_MS, e) : conn_connect(peer->to, LINK_TIMEOUT_MS, e);
	Gw__Hello hello;
	int ret;

	if (fd < 0)
		return fd;
	hello_fill(&hello);
	hello.role = role;
	hello.process = process;
	hello.node_name = (char *)(uintptr_t)peer->self_name;
	hello.mig_id = (ProtobufCBinaryData){ HELLO_MIG_ID_BYTES, (uint8_t *)(uintptr_t)peer->mig_id };
	ret = hello_send(fd, &hello, e);
	if (ret < 0)
		return ret;
	tune(fd, role);
	*place_of(l, role, process) = take_fd(&fd);
	return 0;
}

static bool complete(const struct link *l)
{
	bool all = l->go >= 0;

	for (size_t i = 0; i < l->npages; i++)
		all = all && l->pages[i].fault >= 0 && l->pages[i].bulk >= 0;
	return all;
}

int link_accept(struct link *l, int handoff, int timeout_ms, struct err *e)
{
	while (!complete(l)) {
		struct pollfd p[2] = { { handoff, POLLIN, 0 }, { l->control, POLLRDHUP, 0 } };
		struct link_handoff what;
		int fd, ret, *place;

		if (poll(p, 2, timeout_ms) <= 0)
			return err_set(e, -ETIMEDOUT, "the source did not open its connections");
		if (p[1].revents)
			return err_set(e, -ECONNRESET, "the source went away");
		ret = fd_receive(handoff, &what, sizeof(what), &fd, e);
		if (ret < 0)
			return ret;
		place = what.role == ROLE_CONTROL ? NULL : place_of(l, what.role, what.process);
		if (!place || *place >= 0) {
			close(fd);
			return err_set(e, -EPROTO, "an unexpected connection (role %u, process %u)", what.role, what.process);
		}
		tune(fd, what.role);
		*place = fd;
	}
	return 0;
}

void link_make_patient(struct link *l)
{
	for (size_t i = 0; i < l->npages; i++) {
		conn_make_patient(l->pages[i].fault);
		conn_make_patient(l->pages[i].bulk);
	}
}

void link_close(struct link *l)
{
	close_fdp(&l->control);
	close_fdp(&l->go);
	for (size_t i = 0; i < l->npages; i++) {
		close_fdp(&l->pages[i].fault);
		close_fdp(&l->pages[i].bulk);
	}
	free(l->pages);
	*l = LINK_INIT;
}
