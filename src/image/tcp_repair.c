/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tcp_repair.c - see tcp_repair.h */
#include "image/tcp_repair.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/socket_options.h"

#define CHUNK_BYTES 65536u
#define CHUNK_MIN 512u

/* struct tcp_repair_opt */
struct repair_option {
	uint32_t code, value;
};

enum { OPTION_SEGMENT = 2, OPTION_WINDOW = 3, OPTION_SACK = 4, OPTION_TIMESTAMP = 8 };

int tcp_state_of(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ? -1 : info.tcpi_state;
}

int tcp_repair_set_numbers(int fd, uint32_t send, uint32_t receive)
{
	int r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);

	if (r == 0)
		r = socket_set_int(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)send);
	if (r == 0)
		r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
	if (r == 0)
		r = socket_set_int(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)receive);
	if (r == 0)
		r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
	return r;
}

int tcp_repair_set_window(int fd, const struct tcp_repair_window *w)
{
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, w, sizeof(*w)) < 0 ? -errno : 0;
}

int tcp_repair_set_settled(int fd, const Gw__FdTcp *p, bool reversed, uint32_t segment_max)
{
	uint32_t send = reversed ? p->receive_scale : p->send_scale, receive = reversed ? p->send_scale : p->receive_scale;
	struct repair_option v[4] = { { OPTION_SEGMENT, MAX(segment_max, TCP_SEGMENT_MIN) } };
	size_t n = 1;

	if (p->options & TCPI_OPT_WSCALE)
		v[n++] = (struct repair_option){ OPTION_WINDOW, send | receive << 16 };
	if (p->options & TCPI_OPT_SACK)
		v[n++] = (struct repair_option){ OPTION_SACK, 0 };
	if (p->options & TCPI_OPT_TIMESTAMPS)
		v[n++] = (struct repair_option){ OPTION_TIMESTAMP, 0 };
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, v, (socklen_t)(n * sizeof(*v))) < 0 ? -errno : 0;
}

int tcp_repair_fill(int fd, int queue, const uint8_t *data, size_t len)
{
	size_t chunk = CHUNK_BYTES;
	int r;

	if (!len)
		return 0;
	r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
	while (r == 0 && len) {
		ssize_t n = send(fd, data, MIN(len, chunk), MSG_DONTWAIT | MSG_NOSIGNAL);

		/* A large piece may find no memory where smaller ones do. */
		if (n < 0 && (errno == ENOBUFS || errno == ENOMEM) && chunk > CHUNK_MIN) {
			chunk /= 2;
			continue;
		}
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		len -= (size_t)n;
	}
	return r < 0 ? r : socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
}

void tcp_repair_compute_segments(int fd)
{
	uint8_t options[64];
	socklen_t len = sizeof(options);

	if (getsockopt(fd, IPPROTO_IP, IP_OPTIONS, options, &len) == 0)
		(void)!setsockopt(fd, IPPROTO_IP, IP_OPTIONS, options, len);
}

int tcp_send_all(int fd, const uint8_t *data, size_t len, int flags)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL | flags);

		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

void tcp_make_room(int fd, size_t len)
{
	int wanted = (int)MIN(2 * len + (1u << 20), (size_t)INT32_MAX / 2);

	if (len && socket_get_int(fd, SOL_SOCKET, SO_SNDBUF) < 2 * wanted)
		socket_set_int(fd, SOL_SOCKET, SO_SNDBUFFORCE, wanted);
}
