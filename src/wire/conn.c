// SPDX-License-Identifier: LGPL-2.1-or-later
/* conn.c - TCP connections between nodes; see conn.h */
#include "wire/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/util.h"

static int dead_peer_ms = CONN_DEAD_PEER_MS;

void conn_set_dead_peer(int timeout_ms)
{
	dead_peer_ms = timeout_ms;
}

static void set_number(int fd, int level, int option, int value)
{
	(void)!setsockopt(fd, level, option, &value, sizeof(value));
}

/* With TCP_USER_TIMEOUT it is that time, and not the number of probes, that ends a connection; probes only have to be frequent enough. */
void conn_tune(int fd)
{
	int interval_s = MAX(dead_peer_ms / 4000, 1);

	set_number(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	(void)!setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
	set_number(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_number(fd, IPPROTO_TCP, TCP_KEEPIDLE, interval_s);
	set_number(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval_s);
	set_number(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
	set_number(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, dead_peer_ms);
}

void conn_address_text(const struct sockaddr_in *address, char text[CONN_ADDRESS_TEXT])
{
	char ip[INET_ADDRSTRLEN] = "?";

	inet_ntop(AF_INET, &address->sin_addr, ip, sizeof(ip));
	snprintf(text, CONN_ADDRESS_TEXT, "%s:%u", ip, ntohs(address->sin_port));
}

int conn_address_parse(const char *text, struct sockaddr_in *ret, struct err *e)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(CONN_DEFAULT_PORT) };
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	char ip[INET_ADDRSTRLEN];

	if (len >= sizeof(ip))
		return err_set(e, -EINVAL, "'%.64s' is not an IPv4 address; write 10.0.0.1 or 10.0.0.1:4470", text);
	memcpy(ip, text, len);
	ip[len] = 0;
	if (inet_pton(AF_INET, ip, &address.sin_addr) != 1)
		return err_set(e, -EINVAL, "'%.64s' is not an IPv4 address; write 10.0.0.1 or 10.0.0.1:4470", text);
	if (colon) {
		char *end;
		unsigned long port = strtoul(colon + 1, &end, 10);

		if (colon[1] < '0' || colon[1] > '9' || *end || port < 1 || port > 65535)
			return err_set(e, -EINVAL, "'%.64s' is not a port number from 1 to 65535", colon + 1);
		address.sin_port = htons((uint16_t)port);
	}
	*ret = address;
	return 0;
}

int conn_begin(const struct sockaddr_in *to, struct err *e)
{
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char text[CONN_ADDRESS_TEXT];

	conn_address_text(to, text);
	if (fd < 0)
		return err_sys(e, -errno, "connecting to %s: socket", text);
	conn_tune(fd);
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0 && errno != EINPROGRESS && errno != EINTR)
		return err_sys(e, -errno, "connecting to %s", text);
	return take_fd(&fd);
}

int conn_finish(int fd, const struct sockaddr_in *to, struct err *e)
{
	int error = 0, flags;
	socklen_t len = sizeof(error);
	char text[CONN_ADDRESS_TEXT];

	conn_address_text(to, text);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error == ECONNREFUSED)
		return err_set(e, -error, "connecting to %s: connection refused: does godwitd run there?", text);
	if (error)
		return err_sys(e, -error, "connecting to %s", text);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return err_sys(e, -errno, "fcntl");
	return 0;
}

int conn_connect(const struct sockaddr_in *to, int timeout_ms, struct err *e)
{
	cleanup_close int fd = conn_begin(to, e);
	uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + (uint64_t)MAX(timeout_ms, 0) * 1000000ull;
	char text[CONN_ADDRESS_TEXT];
	int r;

	if (fd < 0)
		return fd;
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };
		uint64_t now = clock_ns(CLOCK_MONOTONIC);

		r = poll(&p, 1, now >= deadline ? 0 : (int)((deadline - now + 999999) / 1000000));
		if (r > 0)
			break;
		if (r < 0 && errno != EINTR)
			return err_sys(e, -errno, "poll");
		if (!r) {
			conn_address_text(to, text);
			return err_set(e, -ETIMEDOUT, "connecting to %s: no answer within %d ms: is the host up?", text, timeout_ms);
		}
	}
	r = conn_finish(fd, to, e);
	return r < 0 ? r : take_fd(&fd);
}

int conn_listen(const struct sockaddr_in *at, int backlog, struct err *e)
{
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	char text[CONN_ADDRESS_TEXT];

	conn_address_text(at, text);
	if (fd < 0)
		return err_sys(e, -errno, "listening on %s: socket", text);
	set_number(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (bind(fd, (const struct sockaddr *)at, sizeof(*at)) < 0 || listen(fd, backlog) < 0)
		return err_sys(e, -errno, "listening on %s", text);
	return take_fd(&fd);
}
