// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_bridge.c - what comes over ssh: the first 96 bytes (where the first one is 'G'), or frames, of connections that really are made
 *
 * Behind a byte that says which side this is, 2 bytes a piece: how much comes at once, then that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/util.h"
#include "wire/bridge_internal.h"
#include "wire/conn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int entrance = -1;

static char directory[] = "/tmp/godwit-fuzz-XXXXXX";

static void clean(void)
{
	char path[BRIDGE_PATH_MAX];

	bridge_entrance(path);
	unlink(path);
	rmdir(directory);
}

static void prepare(void)
{
	char path[BRIDGE_PATH_MAX];

	if (!mkdtemp(directory))
		abort();
	bridge_use_directory(directory);
	bridge_entrance(path);
	entrance = conn_listen_unix(path, 0, 4096, NULL);
	if (entrance < 0)
		abort();
	atexit(clean);
}

static void hello(const uint8_t *data)
{
	struct bridge_hello h;
	struct err e = ERR_INIT;

	if (bridge_hello_decode(data, &h, &e) < 0) {
		if (!e.message[0])
			abort();
		return;
	}
	if (!hello_name_valid(h.node))
		abort();
}

/* A connection of the engine's, with which the other side may do what it likes. */
static void add_engine(struct relay *r, bool ask)
{
	const struct bridge_request request = { .magic = BRIDGE_MAGIC, .kind = ask ? BRIDGE_ASK : BRIDGE_CONNECT, .timeout_ms = 0 };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	(void)!send(pair[1], &request, sizeof(request), 0);
	channel_take(r, pair[0]);
	if (ask)
		(void)!send(pair[1], "what?", 5, 0);
	for (int i = 0; i < 2; i++)
		for (struct channel *c = r->all; c; c = c->next)
			if (c->fd == pair[0])
				channel_event(r, c, EPOLLIN);
	close(pair[1]);
}

static void frames(const uint8_t *data, size_t len)
{
	static const struct bridge_record sides[2] = { { .node = "n2", .self = "n1", .ours = true }, { .node = "n1", .self = "n2" } };
	struct relay *r = calloc(1, sizeof(*r));
	int fd;

	if (!r)
		abort();
	r->b = (struct bridge){ .record = &sides[data[0] & 1], .in = -1, .out = -1, .client = -1, .dead_ms = 10000 };
	r->listener = -1;
	r->epoll = epoll_create1(EPOLL_CLOEXEC);
	r->next_id = data[0] & 1;
	r->heard_ns = clock_ns(CLOCK_MONOTONIC);
	add_engine(r, false);
	add_engine(r, true);
	add_engine(r, false);
	for (size_t at = 1; at + 2 < len && !r->lost;) {
		size_t n = (size_t)data[at] << 8 | data[at + 1];

		at += 2;
		n = MIN(MIN(n, len - at), sizeof(r->in) - r->in_have);
		if (!n)
			break;
		memcpy(r->in + r->in_have, data + at, n);
		r->in_have += n;
		relay_take_frames(r);
		channels_tick(r);
		at += n;
	}
	r->lost = true;
	channels_reset(r, true);
	for (struct channel *c = r->all; c; c = c->next)
		channel_event(r, c, EPOLLHUP | EPOLLIN);
	channels_tick(r);
	while (r->all) {
		r->all->gone = true;
		close_fdp(&r->all->fd);
		channels_tick(r);
	}
	if (r->n_channels)
		abort();
	while ((fd = accept(entrance, NULL, NULL)) >= 0)
		close(fd);
	close(r->epoll);
	free(r->out);
	free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (entrance < 0)
		prepare();
	if (len >= BRIDGE_HELLO_BYTES && data[0] == 'G')
		hello(data);
	else if (len > 3)
		frames(data, len);
	return 0;
}
