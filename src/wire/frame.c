// SPDX-License-Identifier: LGPL-2.1-or-later
/* frame.c - sending and receiving frames; see frame.h for the layout */
#include "wire/frame.h"

#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/util.h"

#define SEND_STALL_MS 60000
#define SEND_PIECES_FEW 8

static const char *const type_names[] = {
	[FRAME_HELLO] = "HELLO",       [FRAME_OFFER] = "OFFER",       [FRAME_ACCEPT] = "ACCEPT", [FRAME_REFUSE] = "REFUSE",
	[FRAME_CONTENT] = "CONTENT",   [FRAME_PREPARED] = "PREPARED", [FRAME_ROUND] = "ROUND",   [FRAME_GO] = "GO",
	[FRAME_RESUMED] = "RESUMED",   [FRAME_ABORT] = "ABORT",       [FRAME_ASK] = "ASK",       [FRAME_ANSWER] = "ANSWER",
	[FRAME_RELEASE] = "RELEASE",   [FRAME_ERROR] = "ERROR",       [FRAME_NODE_INFO] = "NODE_INFO", [FRAME_FILES] = "FILES",
	[FRAME_MOUNTS] = "MOUNTS",
	[FRAME_AHEAD] = "AHEAD",       [FRAME_THREADS] = "THREADS",   [FRAME_NET] = "NET",       [FRAME_CONNECTIONS] = "CONNECTIONS",
};

const char *frame_type_name(uint16_t type)
{
	if (type >= ARRAY_SIZE(type_names) || !type_names[type])
		return "unknown";
	return type_names[type];
}

static uint32_t get_le32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint16_t get_le16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

void frame_header_encode(uint8_t header[FRAME_HEADER_BYTES], uint16_t type, uint16_t flags, uint32_t len)
{
	uint32_t magic = htole32(FRAME_MAGIC);

	type = htole16(type);
	flags = htole16(flags);
	len = htole32(len);
	memset(header, 0, FRAME_HEADER_BYTES);
	memcpy(header, &magic, 4);
	memcpy(header + 4, &type, 2);
	memcpy(header + 6, &flags, 2);
	memcpy(header + 8, &len, 4);
}

int frame_header_decode(const uint8_t header[FRAME_HEADER_BYTES], size_t max_len, struct frame *ret, struct err *e)
{
	uint32_t magic = get_le32(header), len = get_le32(header + 8);
	uint16_t type = get_le16(header + 4);

	if (magic != FRAME_MAGIC)
		return err_set(e, -EPROTO, "expected a frame that begins with 47 44 57 31 (GDW1), got %02x %02x %02x %02x: not a Godwit peer",
			       header[0], header[1], header[2], header[3]);
	max_len = MIN(max_len, (size_t)FRAME_PAYLOAD_MAX);
	if (len > max_len)
		return err_set(e, -EPROTO, "expected at most %zu bytes of payload, got a %s frame (type %u) of %u", max_len,
			       frame_type_name(type), type, len);
	*ret = (struct frame){ .type = type, .flags = get_le16(header + 6), .len = len };
	return 0;
}

/* Drops the first `sent` bytes of the pieces. */
static void iov_advance(struct iovec **iov, size_t *n, size_t sent)
{
	while (*n && sent >= (*iov)->iov_len) {
		sent -= (*iov)->iov_len;
		(*iov)++;
		(*n)--;
	}
	if (*n) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + sent;
		(*iov)->iov_len -= sent;
	}
}

static int send_all(int fd, struct iovec *iov, size_t n, struct err *e)
{
	while (n) {
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = MIN(n, (size_t)IOV_MAX) };
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		ssize_t sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
		int r;

		if (sent >= 0) {
			iov_advance(&iov, &n, (size_t)sent);
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return err_sys(e, -errno, "sending to the peer");
		r = poll(&p, 1, SEND_STALL_MS);
		if (!r)
			return err_set(e, -ETIMEDOUT, "sending to the peer: it took nothing for %d s", SEND_STALL_MS / 1000);
		if (r < 0 && errno != EINTR)
			return err_sys(e, -errno, "poll");
	}
	return 0;
}

int frame_sendv(int fd, uint16_t type, uint16_t flags, const struct iovec *payload, size_t n, struct err *e)
{
	cleanup_free struct iovec *many = n > SEND_PIECES_FEW ? malloc((n + 1) * sizeof(*many)) : NULL;
	struct iovec few[SEND_PIECES_FEW + 1], *iov = many ? many : few;
	uint8_t header[FRAME_HEADER_BYTES];
	size_t len = 0, i, used = 1;
	int r;

	if (n > SEND_PIECES_FEW && !many)
		return err_sys(e, ENOMEM, "a frame");
	for (i = 0; i < n; i++) {
		if (payload[i].iov_len > FRAME_PAYLOAD_MAX - len)
			return err_set(e, -EMSGSIZE, "%s frame above %u bytes", frame_type_name(type), FRAME_PAYLOAD_MAX);
		len += payload[i].iov_len;
		if (payload[i].iov_len)
			iov[used++] = payload[i];
	}
	frame_header_encode(header, type, flags, (uint32_t)len);
	iov[0] = (struct iovec){ header, sizeof(header) };
	r = send_all(fd, iov, used, e);
	if (r < 0)
		err_wrap(e, "%s", frame_type_name(type));
	return r;
}

int frame_send(int fd, uint16_t type, const void *payload, size_t len, struct err *e)
{
	struct iovec iov = { (void *)payload, len };

	return frame_sendv(fd, type, 0, &iov, len ? 1 : 0, e);
}

int frame_send_error(int fd, int code, const char *message, struct err *e)
{
	uint32_t number = htole32((uint32_t)(code < 0 ? -code : code));
	struct iovec iov[2] = { { &number, sizeof(number) }, { (void *)message, strnlen(message, ERR_MESSAGE_MAX) } };

	return frame_sendv(fd, FRAME_ERROR, 0, iov, 2, e);
}

int frame_error_decode(const struct frame *frame, struct err *e)
{
	uint32_t number;

	if (frame->type != FRAME_ERROR || frame->len < 4)
		return err_set(e, -EPROTO, "expected an ERROR frame of 4 bytes or more, got %s of %u", frame_type_name(frame->type), frame->len);
	number = get_le32(frame->payload);
	if (!number || number > 4095)
		number = EPROTO;
	return err_set(e, -(int)number, "the peer says: %.*s", (int)MIN(frame->len - 4, ERR_MESSAGE_MAX - 32u),
		       (const char *)frame->payload + 4);
}

void frame_free(struct frame *frame)
{
	if (!frame)
		return;
	freep(&frame->payload);
	frame->len = 0;
}

void frame_reader_free(struct frame_reader *reader)
{
	frame_free(&reader->frame);
	*reader = (struct frame_reader){ 0 };
}

/* Where the next bytes go and how many are wanted; 0 when the frame is complete. */
static size_t reader_wanted(struct frame_reader *r, uint8_t **ret_at)
{
	if (r->have < FRAME_HEADER_BYTES) {
		*ret_at = r->header + r->have;
		return FRAME_HEADER_BYTES - r->have;
	}
	*ret_at = r->frame.payload ? r->frame.payload + (r->have - FRAME_HEADER_BYTES) : NULL;
	return r->frame.len - (r->have - FRAME_HEADER_BYTES);
}

int frame_reader_step(struct frame_reader *r, int fd, size_t max_len, struct frame *ret, struct err *e)
{
	uint8_t *at;
	size_t want;
	int rc;

	while ((want = reader_wanted(r, &at))) {
		ssize_t got = recv(fd, at, want, MSG_DONTWAIT);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return 0;
		if (got < 0)
			return err_sys(e, -errno, "receiving from the peer");
		if (!got)
			return err_set(e, -ECONNRESET, r->have ? "the peer closed the connection in the middle of a frame" :
								 "the peer closed the connection");
		r->have += (size_t)got;
		if (r->have != FRAME_HEADER_BYTES || r->frame.payload)
			continue;
		rc = frame_header_decode(r->header, max_len, &r->frame, e);
		if (rc < 0)
			return rc;
		if (!r->frame.len)
			continue;
		r->frame.payload = malloc((size_t)r->frame.len + 1);
		if (!r->frame.payload)
			return err_sys(e, -ENOMEM, "%s frame of %u bytes", frame_type_name(r->frame.type), r->frame.len);
		r->frame.payload[r->frame.len] = 0;
	}
	*ret = r->frame;
	*r = (struct frame_reader){ 0 };
	return 1;
}

int frame_recv(int fd, struct frame *ret, size_t max_len, int timeout_ms, struct err *e)
{
	__attribute__((cleanup(frame_reader_free))) struct frame_reader reader = { 0 };
	uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + (uint64_t)MAX(timeout_ms, 0) * 1000000ull;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int r = frame_reader_step(&reader, fd, max_len, ret, e);
		int wait_ms = -1;

		if (r)
			return r < 0 ? r : 0;
		if (timeout_ms >= 0) {
			uint64_t now = clock_ns(CLOCK_MONOTONIC);

			if (now >= deadline)
				return err_set(e, -ETIMEDOUT, "the peer sent no complete frame within %d ms", timeout_ms);
			wait_ms = (int)((deadline - now + 999999) / 1000000);
		}
		if (poll(&p, 1, wait_ms) < 0 && errno != EINTR)
			return err_sys(e, -errno, "poll");
	}
}

int frame_recv_expect(int fd, uint16_t type, struct frame *ret, size_t max_len, int timeout_ms, struct err *e)
{
	cleanup_frame struct frame frame = { 0 };
	int r = frame_recv(fd, &frame, MAX(max_len, FRAME_HELLO_MAX), timeout_ms, e);

	if (r < 0)
		return err_wrap(e, "waiting for %s", frame_type_name(type)), r;
	if (frame.type == FRAME_ERROR && type != FRAME_ERROR)
		return frame_error_decode(&frame, e);
	if (frame.type != type)
		return err_set(e, -EPROTO, "expected a %s frame, got %s (type %u)", frame_type_name(type), frame_type_name(frame.type),
			       frame.type);
	if (frame.len > max_len)
		return err_set(e, -EPROTO, "expected at most %zu bytes of %s, got %u", max_len, frame_type_name(type), frame.len);
	*ret = frame;
	frame.payload = NULL;
	return 0;
}
