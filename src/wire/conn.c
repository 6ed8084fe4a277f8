// SPDX-License-Identifier: LGPL-2.1-or-later
/* conn.c - TCP connections between nodes; see conn.h */
#include "wire/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "wire/bridge.h"
#include "wire/tls.h"

#define TCP_RTO_MAX_MS_OPTION 44 /* TCP_RTO_MAX_MS of Linux 6.15; older kernels refuse it, and try less often */

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

static int begin_plain(const struct sockaddr_in *to, struct err *e)
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

int conn_begin(const struct sockaddr_in *to, struct err *e)
{
	cleanup_close int net = -1, fd = -1;
	char text[CONN_ADDRESS_TEXT];

	if (bridge_is_address(to))
		return bridge_begin(BRIDGE_CONNECT, to, dead_peer_ms, e);
	net = begin_plain(to, e);
	if (net < 0 || !tls_is_used())
		return take_fd(&net);
	conn_address_text(to, text);
	fd = tls_begin(TLS_CONNECT, net, to, dead_peer_ms, e);
	return fd < 0 ? err_wrap(e, "connecting to %s", text) : take_fd(&fd);
}

short conn_decided(int fd)
{
	return fd >= 0 && tls_is_relayed(fd) ? POLLIN : POLLOUT;
}

int conn_finish(int fd, const struct sockaddr_in *to, struct err *e)
{
	char text[CONN_ADDRESS_TEXT], names[ERR_MESSAGE_MAX];
	int error = 0, flags;
	socklen_t len = sizeof(error);

	conn_address_text(to, text);
	if (tls_is_relayed(fd)) {
		int r = tls_greeting_take(fd, names, e);

		if (r < 0)
			return r == -EAGAIN ? err_sys(e, r, "connecting to %s", text) : r;
	}
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

static int finish_in_time(int given, const struct sockaddr_in *to, int timeout_ms, struct err *e)
{
	cleanup_close int fd = given;
	uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + (uint64_t)MAX(timeout_ms, 0) * 1000000ull;
	char text[CONN_ADDRESS_TEXT];
	int r;

	if (fd < 0)
		return fd;
	for (;;) {
		struct pollfd p = { .fd = fd, .events = conn_decided(fd) };
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

int conn_connect(const struct sockaddr_in *to, int timeout_ms, struct err *e)
{
	return finish_in_time(conn_begin(to, e), to, timeout_ms, e);
}

int conn_connect_here(const struct sockaddr_in *to, int timeout_ms, struct err *e)
{
	return finish_in_time(begin_plain(to, e), to, timeout_ms, e);
}

int conn_addresses(int fd, struct sockaddr_in *ret_own, struct sockaddr_in *ret_peer)
{
	struct sockaddr_in own = { 0 }, peer = { 0 };
	int r = 0;

	if (tls_is_relayed(fd))
		r = bridge_addresses(fd, false, &own, &peer) == 0 ? 0 : tls_addresses(fd, &own, &peer);
	else if (getsockname(fd, (struct sockaddr *)&own, &(socklen_t){ sizeof(own) }) < 0 || getpeername(fd, (struct sockaddr *)&peer, &(socklen_t){ sizeof(peer) }) < 0)
		r = -errno;
	if (r == 0) {
		*ret_own = own;
		*ret_peer = peer;
	}
	return r;
}

int conn_host_addresses(int fd, struct sockaddr_in *ret_own, struct sockaddr_in *ret_peer)
{
	struct sockaddr_in own, peer;

	if (bridge_addresses(fd, true, &own, &peer) < 0)
		return conn_addresses(fd, ret_own, ret_peer);
	if (!own.sin_addr.s_addr || !peer.sin_addr.s_addr)
		return -EHOSTUNREACH;
	*ret_own = own;
	*ret_peer = peer;
	return 0;
}

bool conn_ended_orderly(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	/* A relay that has heard the other side's end shuts its own side down; one that has not, or was killed, closes. */
	if (tls_is_relayed(fd))
		return poll(&p, 1, 0) == 1 && p.revents == POLLRDHUP;
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && info.tcpi_state == TCP_CLOSE_WAIT;
}

void conn_make_patient(int fd)
{
	/* Probes find out soon when the other host has been booted anew; and after silence the next try comes soon. */
	static const int options[][2] = { { TCP_USER_TIMEOUT, CONN_PATIENCE_MS }, { TCP_KEEPIDLE, 3 }, { TCP_KEEPINTVL, 3 }, { TCP_RTO_MAX_MS_OPTION, 2000 } };

	if (tls_is_relayed(fd))
		(void)!tls_make_patient(fd);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		set_number(fd, IPPROTO_TCP, options[i][0], options[i][1]);
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

int conn_listen_unix(const char *path, mode_t closed, int backlog, struct err *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask;
	int r;

	if (fd < 0)
		return err_sys(e, -errno, "socket");
	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(e, -ENAMETOOLONG, "%s: a socket's path has at most %zu bytes", path, sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	unlink(path);
	mask = umask(closed);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, backlog) < 0 ? -errno : 0;
	umask(mask);
	return r < 0 ? err_sys(e, r, "%s", path) : take_fd(&fd);
}
