/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bridge_relay.c - godwit-bridge: its loop, and frames over ssh; see bridge_relay.h */
#include "wire/bridge_relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/util.h"
#include "wire/bridge_internal.h"
#include "wire/conn.h"

#define EVENTS_MAX 64
#define PING_NS 2500000000ull
#define IDLE_NS 2000000000ull /* what is not kept, and not used for so long, ends */
#define TICK_MS 1000

void relay_lose(struct relay *r, int code, const char *why)
{
	if (r->lost)
		return;
	r->lost = true;
	err_set(&r->error, code, "%s", why);
}

/* --- to the other side --- */

/* Room for more at the end. */
static bool grow(struct relay *r, size_t more)
{
	uint8_t *grown;
	size_t size = r->out_size;

	if (r->out_at && (r->out_at + r->out_have + more > size || !r->out_have)) {
		memmove(r->out, r->out + r->out_at, r->out_have);
		r->out_at = 0;
	}
	while (r->out_have + more > size)
		size = size ? 2 * size : 2 * BRIDGE_OUT_BYTES;
	if (size == r->out_size)
		return true;
	grown = size <= BRIDGE_OUT_MAX ? realloc(r->out, size) : NULL;
	if (!grown) {
		relay_lose(r, -ENOBUFS, "ssh takes nothing any more");
		return false;
	}
	r->out = grown;
	r->out_size = size;
	return true;
}

void relay_say(struct relay *r, enum bridge_type type, uint32_t channel, const void *data, size_t len)
{
	struct bridge_frame f = { channel, type, (uint16_t)len };

	if (r->lost || !grow(r, BRIDGE_HEADER_BYTES + len))
		return;
	bridge_frame_encode(&f, r->out + r->out_at + r->out_have);
	if (len)
		memcpy(r->out + r->out_at + r->out_have + BRIDGE_HEADER_BYTES, data, len);
	r->out_have += BRIDGE_HEADER_BYTES + len;
}

uint8_t *relay_room(struct relay *r, size_t *ret_len)
{
	*ret_len = 0;
	if (r->lost || r->out_have >= BRIDGE_OUT_BYTES || !grow(r, BRIDGE_HEADER_BYTES + BRIDGE_DATA_MAX))
		return NULL;
	*ret_len = BRIDGE_DATA_MAX;
	return r->out + r->out_at + r->out_have + BRIDGE_HEADER_BYTES;
}

void relay_said_data(struct relay *r, uint32_t channel, size_t len)
{
	struct bridge_frame f = { channel, BRIDGE_DATA, (uint16_t)len };

	bridge_frame_encode(&f, r->out + r->out_at + r->out_have);
	r->out_have += BRIDGE_HEADER_BYTES + len;
}

static void flush(struct relay *r)
{
	while (r->out_have && !r->lost) {
		ssize_t n = write(r->b.out, r->out + r->out_at, r->out_have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			relay_lose(r, -ECONNRESET, "ssh has ended");
			return;
		}
		r->out_at += (size_t)n;
		r->out_have -= (size_t)n;
	}
}

/* --- from the other side --- */

static void on_frame(struct relay *r, const struct bridge_frame *f, const uint8_t *data)
{
	if (f->type == BRIDGE_PING)
		relay_say(r, BRIDGE_PONG, 0, NULL, 0);
	else if (f->type != BRIDGE_PONG)
		channel_frame(r, f, data);
}

void relay_take_frames(struct relay *r)
{
	struct bridge_frame f;
	struct err e = ERR_INIT;
	size_t at = 0;

	while (!r->lost && r->in_have - at >= BRIDGE_HEADER_BYTES) {
		if (bridge_frame_decode(r->in + at, &f, &e) < 0) {
			relay_lose(r, e.code, e.message);
			return;
		}
		if (r->in_have - at < BRIDGE_HEADER_BYTES + f.len)
			break;
		on_frame(r, &f, r->in + at + BRIDGE_HEADER_BYTES);
		at += BRIDGE_HEADER_BYTES + f.len;
	}
	memmove(r->in, r->in + at, r->in_have - at);
	r->in_have -= at;
}

static void hear(struct relay *r)
{
	ssize_t n = read(r->b.in, r->in + r->in_have, sizeof(r->in) - r->in_have);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		relay_lose(r, -ECONNRESET, "ssh has ended");
		return;
	}
	r->in_have += (size_t)n;
	r->heard_ns = clock_ns(CLOCK_MONOTONIC);
	relay_take_frames(r);
}

/* --- time --- */

bool relay_is_silent(const struct relay *r)
{
	return clock_ns(CLOCK_MONOTONIC) - r->heard_ns > (uint64_t)r->b.dead_ms * 1000000;
}

static void tick(struct relay *r)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	if (!r->lost && now - r->pinged_ns >= PING_NS) {
		r->pinged_ns = now;
		relay_say(r, BRIDGE_PING, 0, NULL, 0);
	}
	if (!r->lost && relay_is_silent(r))
		channels_reset(r, false);
	if (channels_in_use(r))
		r->used_ns = now;
	channels_tick(r);
}

/* Who has asked for it is gone. The bridge that the other side has made ends with its `godwit bridge`, whose end of ssh it has. */
static void hear_client(struct relay *r)
{
	char text[64];
	ssize_t n = recv(r->b.client, text, sizeof(text), MSG_DONTWAIT);

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	close_fdp(&r->b.client);
	r->used_ns = clock_ns(CLOCK_MONOTONIC);
	if (!r->b.record->ours)
		relay_lose(r, -ECONNRESET, "ssh has ended");
}

/* --- the loop --- */

static bool is_wanted(const struct relay *r)
{
	if (r->lost || r->closing)
		return false;
	if (!r->b.record->ours || r->kept || r->b.client >= 0)
		return true;
	return clock_ns(CLOCK_MONOTONIC) - r->used_ns < IDLE_NS;
}

static void serve_channels(struct relay *r)
{
	struct epoll_event events[EVENTS_MAX];
	int n = epoll_wait(r->epoll, events, EVENTS_MAX, 0);

	for (int i = 0; i < n; i++)
		channel_event(r, events[i].data.ptr, events[i].events);
}

static void loop(struct relay *r)
{
	while (is_wanted(r)) {
		struct pollfd p[] = {
			{ .fd = r->b.in, .events = POLLIN },
			{ .fd = r->b.out, .events = r->out_have ? POLLOUT : 0 },
			{ .fd = r->out_have < BRIDGE_OUT_BYTES ? r->epoll : -1, .events = POLLIN },
			{ .fd = r->listener, .events = POLLIN },
			{ .fd = r->b.client, .events = POLLIN },
		};

		if (poll(p, ARRAY_SIZE(p), TICK_MS) < 0 && errno != EINTR)
			relay_lose(r, -errno, "poll");
		if (p[0].revents)
			hear(r);
		if (p[1].revents & (POLLERR | POLLHUP) && !(p[1].revents & POLLOUT) && r->b.out != r->b.in)
			relay_lose(r, -ECONNRESET, "ssh has ended");
		if (p[2].revents)
			serve_channels(r);
		if (p[3].revents)
			channel_accept(r);
		if (p[4].revents)
			hear_client(r);
		tick(r);
		flush(r);
	}
}

static void set_non_blocking(int fd)
{
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

int bridge_relay_listen(const struct bridge_record *record, struct err *e)
{
	const struct sockaddr_in address = bridge_address(record->node);
	char path[BRIDGE_PATH_MAX];

	bridge_path(&address, ".sock", path);
	return conn_listen_unix(path, 0177, SOMAXCONN, e);
}

int bridge_relay_run(const struct bridge *bridge, int listener, struct err *e)
{
	static struct relay r;
	const struct sockaddr_in address = bridge_address(bridge->record->node);
	char path[BRIDGE_PATH_MAX];

	r = (struct relay){ .b = *bridge, .listener = listener, .epoll = epoll_create1(EPOLL_CLOEXEC), .next_id = bridge->record->ours ? 0 : 1, .kept = bridge->record->kept };
	r.heard_ns = r.used_ns = r.pinged_ns = clock_ns(CLOCK_MONOTONIC);
	if (r.epoll < 0)
		return err_sys(e, -errno, "epoll");
	set_non_blocking(r.b.in);
	set_non_blocking(r.b.out);
	loop(&r);
	/* Nobody else finds it before its connections are over. */
	bridge_path(&address, ".sock", path);
	unlink(path);
	if (!r.error.code)
		r.lost = true;
	channels_reset(&r, true);
	channels_tick(&r);
	if (r.error.code && e)
		*e = r.error;
	return r.error.code;
}
