/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_listen.c - listening and unconnected sockets; see socket_listen.h */
#include "image/socket_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/ns_other.h"
#include "image/socket_address.h"
#include "image/socket_netlink.h"
#include "image/socket_options.h"
#include "image/socket_tcp.h"
#include "image/socket_udp.h"
#include "image/tcp_outside.h"
#include "image/udp_outside.h"
#include "kern/sock_destroy.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static bool is_inet(const Gw__FdSocket *s)
{
	return s->family == AF_INET || s->family == AF_INET6;
}

static bool is_mptcp(const Gw__FdSocket *s)
{
	return is_inet(s) && s->type == SOCK_STREAM && s->protocol == IPPROTO_MPTCP;
}

static bool is_stream(const Gw__FdSocket *s)
{
	return socket_tcp_is_one(s) || is_mptcp(s);
}

bool socket_listen_is_called(const Gw__FdSocket *s)
{
	return s->listening && is_stream(s) && s->local.len;
}

static void describe_address(const struct sockaddr_storage *a, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN] = "";
	const struct sockaddr_in *in = (const void *)a;
	const struct sockaddr_in6 *in6 = (const void *)a;

	if (a->ss_family == AF_INET)
		snprintf(out, size, "%s:%u", inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text)), ntohs(in->sin_port));
	else if (a->ss_family == AF_INET6)
		snprintf(out, size, "[%s]:%u", inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text)), ntohs(in6->sin6_port));
	else
		snprintf(out, size, "no address");
}

static const char *protocol_name(const Gw__FdSocket *s)
{
	static const struct { uint32_t family; const char *name; } others[] = {
		{ AF_ALG, "kernel crypto" }, { AF_VSOCK, "vsock" }, { AF_KEY, "PF_KEY" }, { AF_XDP, "XDP" }, { AF_CAN, "CAN" },
		{ AF_BLUETOOTH, "bluetooth" }, { AF_TIPC, "TIPC" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (s->family == others[i].family)
			return others[i].name;
	if (!is_inet(s))
		return "socket";
	if (s->type == SOCK_STREAM)
		return s->protocol == IPPROTO_TCP ? "TCP" : is_mptcp(s) ? "MPTCP" : "other stream";
	return s->type == SOCK_RAW ? "raw" : socket_udp_is_one(s) ? "UDP" : s->type == SOCK_DGRAM ? "ping" : "SCTP or other";
}

static const char *tcp_state_name(int fd)
{
	static const char *const names[] = { "?", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
		"CLOSE", "CLOSE_WAIT",
		"LAST_ACK", "LISTEN", "CLOSING" };
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 || info.tcpi_state >= ARRAY_SIZE(names))
		return NULL;
	return names[info.tcpi_state];
}

int socket_refuse_connected(const struct fd_look *look, const Gw__FdSocket *s, struct refusals *refusals)
{
	if (is_mptcp(s))
		return socket_refuse_because(look, s, "fd.socket.mptcp", "connections of MPTCP cannot move, only sockets that listen for them",
			"let the program use TCP (Go: GODEBUG=multipathtcp=0), or sysctl net.mptcp.enabled=0 before it starts", refusals);
	return socket_refuse_because(look, s, NULL, "connected sockets cannot move yet, unless both ends do", "close the connection first", refusals);
}

int socket_refuse_because(const struct fd_look *look, const Gw__FdSocket *s, const char *code, const char *cause, const char *way_out,
	struct refusals *refusals)
{
	struct sockaddr_storage local = { 0 }, peer = { 0 };
	socklen_t local_len = sizeof(local), peer_len = s->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	char from[200], to[200], made[64];
	const char *state = s->type == SOCK_STREAM ? tcp_state_name(look->held) : NULL;

	getsockname(look->held, (void *)&local, &local_len);
	getsockopt(look->held, SOL_SOCKET, SO_PEERNAME, &peer, &peer_len);
	describe_address(&local, from, sizeof(from));
	describe_address(&peer, to, sizeof(to));
	if (!is_inet(s)) {
		snprintf(made, sizeof(made), "fd.socket.family.%u", s->family);
		refusals_add(refusals, made, "sockets of this family cannot move yet", "close it first", "fd %d (%s, family %u)",
			look->fd, protocol_name(s), s->family);
		return FD_REFUSED;
	}
	snprintf(made, sizeof(made), "fd.socket.%s", state ? "tcp.established" : s->type == SOCK_DGRAM ? "udp.connected" : "other");
	refusals_add(refusals, code ? code : made, cause, way_out, "fd %d (%s %s to %s%s%s)", look->fd, protocol_name(s), from, to, state ? ", " : "", state ? state : "");
	return FD_REFUSED;
}

int socket_listen_recheck(const struct fd_look *look, const Gw__FdDesc *d, struct refusals *refusals, struct err *e)
{
	struct pollfd p = { .fd = look->held, .events = POLLIN };

	if (socket_host_is_one(d->socket))
		return socket_host_recheck(look, d, e);

	/* A raw socket needs no address to receive. */
	if ((!d->socket->local.len && d->socket->type == SOCK_STREAM) || poll(&p, 1, 0) != 1 || !(p.revents & POLLIN))
		return 0;
	if (d->socket->listening)
		refusals_add(refusals, "fd.socket.accept-queue", "connections wait in its accept queue, and such cannot move yet",
			"try again when the program has accepted them", "fd %d (%s listener)", look->fd, protocol_name(d->socket));
	else
		refusals_add(refusals, "fd.socket.queue", "datagrams wait in its queue, and such cannot move yet",
			"try again when the program has read them", "fd %d (%s)", look->fd, protocol_name(d->socket));
	return FD_REFUSED;
}

/* Bound or fresh, but without a peer? */
static bool can_carry(const struct fd_look *look, const Gw__FdSocket *s)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	bool ping = s->type == SOCK_DGRAM && s->protocol == (s->family == AF_INET ? IPPROTO_ICMP : (uint32_t)IPPROTO_ICMPV6);
	struct pollfd ended = { .fd = look->held, .events = POLLRDHUP };
	const char *state;

	if (!is_inet(s) || (s->type != SOCK_RAW && !is_stream(s) && !socket_udp_is_one(s) && !ping))
		return false;
	if (socket_udp_is_one(s))
		return true;
	if (s->listening)
		return true;
	if (getpeername(look->held, (void *)&peer, &len) == 0)
		return false;
	/* One that has had a connection. */
	if (is_mptcp(s) && (poll(&ended, 1, 0) < 0 || ended.revents & (POLLRDHUP | POLLERR)))
		return false;
	state = s->type == SOCK_STREAM ? tcp_state_name(look->held) : NULL;
	return !state || !strcmp(state, "CLOSE");
}

static bool is_bound(const Gw__FdSocket *s, const struct sockaddr_storage *a)
{
	static const struct in6_addr none = IN6ADDR_ANY_INIT;

	/* What a raw socket shows as its port is its protocol. */
	if (s->type == SOCK_RAW)
		return s->family == AF_INET ? ((const struct sockaddr_in *)a)->sin_addr.s_addr != 0 :
			memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &none, sizeof(none)) != 0;
	return ((const struct sockaddr_in *)a)->sin_port != 0;
}

/* All that is carried, of a socket whose family, type and protocol are known. */
static int capture_state(const struct fd_look *look, Gw__FdSocket *s, struct err *e)
{
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);
	struct tcp_info info = { 0 };
	socklen_t info_len = sizeof(info);

	memset(&local, 0, sizeof(local));
	if (getsockname(look->held, (void *)&local, &len) < 0)
		return err_sys(e, -errno, "fd %d: getsockname", look->fd);
	if (is_bound(s, &local)) {
		s->local.data = fd_alloc(len + 1);
		s->local.len = len;
		memcpy(s->local.data, &local, len);
	}
	/* Of a listener: the greatest length of its accept queue. */
	if (s->listening && getsockopt(look->held, IPPROTO_TCP, TCP_INFO, &info, &info_len) == 0)
		s->backlog = info.tcpi_sacked;
	socket_options_capture(look->held, s->family, s->type, &s->options, &s->n_options);
	if (socket_udp_is_one(s))
		socket_udp_capture(look->held, s);
	return 0;
}

static Gw__FdSocket *socket_new(int fd)
{
	Gw__FdSocket *s = fd_alloc(sizeof(*s));

	gw__fd_socket__init(s);
	s->family = (uint32_t)socket_get_int(fd, SOL_SOCKET, SO_DOMAIN);
	s->type = (uint32_t)socket_get_int(fd, SOL_SOCKET, SO_TYPE);
	s->protocol = (uint32_t)socket_get_int(fd, SOL_SOCKET, SO_PROTOCOL);
	s->listening = socket_get_int(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1;
	return s;
}

/* Anew each time: most of it may have changed. */
static int capture_tcp(const struct fd_look *look, Gw__FdDesc *d, const struct tcp_member *m, struct refusals *refusals, struct err *e)
{
	Gw__FdSocket *s = socket_new(look->held);
	int r;

	if (d->socket)
		gw__fd_socket__free_unpacked(d->socket, NULL);
	d->socket = s;
	if (m->foreign && (m->class != TCP_CLASS_LISTENING || m->n_waiting || !socket_same_net_namespace(look->held)))
		return socket_refuse_namespace(look, protocol_name(s), refusals);
	if (m->class == TCP_CLASS_REFUSED)
		return socket_refuse_because(look, s, m->code, m->why, m->way_out, refusals);
	if (socket_options_refuse(look, refusals))
		return FD_REFUSED;
	s->backlog = s->listening ? SOMAXCONN : 0;
	r = capture_state(look, s, e);
	if (r == 0)
		socket_tcp_capture(m, s);
	return r;
}

int socket_listen_capture(const struct fd_look *look, Gw__FdDesc *d, const struct tcp_member *m, struct refusals *refusals, struct err *e)
{
	Gw__FdSocket *s;
	int r;

	if (m)
		return capture_tcp(look, d, m, refusals, e);
	if (d->socket)
		return socket_listen_recheck(look, d, refusals, e);
	s = d->socket = socket_new(look->held);
	if (socket_host_is_one(s))
		return socket_host_capture(look, d, refusals, e);
	s->backlog = s->listening ? SOMAXCONN : 0;
	if (!can_carry(look, s))
		return socket_refuse_connected(look, s, refusals);
	if (!socket_same_net_namespace(look->held))
		return socket_refuse_namespace(look, protocol_name(s), refusals);
	if (socket_options_refuse(look, refusals))
		return FD_REFUSED;
	r = capture_state(look, s, e);
	return r || socket_udp_is_one(s) ? r : socket_listen_recheck(look, d, refusals, e);
}

static void swap_options(Gw__FdSocket *a, Gw__FdSocket *b)
{
	Gw__FdSockOpt **options = a->options;
	size_t n = a->n_options;

	a->options = b->options;
	a->n_options = b->n_options;
	b->options = options;
	b->n_options = n;
}

/* Addresses, peers and what else is no option, with the options of one of them. Queues are looked at apart. */
static bool same_besides(const Gw__FdSocket *was, const Gw__FdSocket *now)
{
	Gw__FdSocket a = *was, b = *now;
	size_t len;
	cleanup_free uint8_t *x = NULL, *y = NULL;

	a.n_queue = b.n_queue = a.n_options = b.n_options = 0;
	a.error = b.error = 0;
	len = gw__fd_socket__get_packed_size(&a);
	if (len != gw__fd_socket__get_packed_size(&b))
		return false;
	x = fd_alloc(len);
	y = fd_alloc(len);
	gw__fd_socket__pack(&a, x);
	gw__fd_socket__pack(&b, y);
	return !memcmp(x, y, len);
}

int socket_listen_refresh(const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	Gw__FdSocket *now;
	int r;

	if (socket_host_is_one(d->socket))
		return socket_host_same(d, look->held) ? 0 : err_set(e, -EAGAIN, "fd %d: its socket is not what it was at the offer; try again", look->fd);
	now = socket_new(look->held);
	now->space = d->socket->space;
	r = capture_state(look, now, e);
	if (r == 0 && !same_besides(d->socket, now))
		r = err_set(e, -EAGAIN, "fd %d (%s): it has another address or peer than at the offer; try again", look->fd, protocol_name(d->socket));
	if (r == 0)
		swap_options(d->socket, now);
	gw__fd_socket__free_unpacked(now, NULL);
	return r;
}

static bool is_same(const Gw__FdDesc *d, int fd)
{
	struct stat st;
	struct fd_look look = { .fd = fd, .held = fd, .st = &st };
	Gw__FdSocket *now;
	bool same = false;

	if (!d->socket || fstat(fd, &st) < 0)
		return false;
	if (socket_host_is_one(d->socket))
		return socket_host_same(d, fd);
	/* They are looked at together, and what is not the same is made anew (file_tcp.c). */
	if (socket_tcp_is_one(d->socket))
		return true;
	now = socket_new(fd);
	/* Queues are looked at apart. */
	now->space = d->socket->space;
	now->queue = d->socket->queue;
	now->n_queue = d->socket->n_queue;
	now->error = d->socket->error;
	if (capture_state(&look, now, NULL) == 0) {
		size_t len = gw__fd_socket__get_packed_size(now);
		cleanup_free uint8_t *a = fd_alloc(len), *b = fd_alloc(len);

		same = len == gw__fd_socket__get_packed_size(d->socket);
		if (same) {
			gw__fd_socket__pack(now, a);
			gw__fd_socket__pack(d->socket, b);
			same = !memcmp(a, b, len);
		}
	}
	now->queue = NULL;
	now->n_queue = 0;
	gw__fd_socket__free_unpacked(now, NULL);
	return same && can_carry(&look, d->socket);
}

static int validate_local(const Gw__FdSocket *s, struct err *e)
{
	uint16_t family;

	if (!s->local.len)
		return 0;
	if (s->local.len != (s->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)))
		return err_set(e, -EPROTO, "socket: address of %zu bytes", s->local.len);
	memcpy(&family, s->local.data, sizeof(family));
	return family == s->family ? 0 : err_set(e, -EPROTO, "socket: address of another family");
}

int socket_listen_validate(const Gw__FdDesc *d, struct err *e)
{
	const Gw__FdSocket *s = d->socket;
	int r;

	if (!s)
		return err_set(e, -EPROTO, "socket without its description");
	if (socket_host_is_one(s))
		return socket_host_validate(s, e);
	if (!is_inet(s))
		return err_set(e, -EPROTO, "socket: family %u", s->family);
	if (!is_stream(s) && !(s->type == SOCK_RAW && s->protocol <= UINT16_MAX) &&
	    !(s->type == SOCK_DGRAM && (socket_udp_is_one(s) ||
	    s->protocol == (s->family == AF_INET ? IPPROTO_ICMP : (uint32_t)IPPROTO_ICMPV6))))
		return err_set(e, -EPROTO, "socket: type %u, protocol %u", s->type, s->protocol);
	if (s->listening && s->type != SOCK_STREAM)
		return err_set(e, -EPROTO, "socket: a listening socket of type %u", s->type);
	r = socket_options_validate(s->family, s->type, s->options, s->n_options, e);
	if (r == 0 && socket_udp_is_one(s))
		r = socket_udp_validate(s, e);
	return r < 0 ? r : validate_local(s, e);
}

/* Whether another one of the unit, a connection or none, has its port. */
static bool shares_port(const Gw__FdTable *t, const Gw__FdSocket *s, bool linked)
{
	struct endpoint p = endpoint_of(&s->local);

	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdSocket *o = t->descs[i]->kind == GW__FD_KIND__FD_SOCKET ? t->descs[i]->socket : NULL;

		if (o && o != s && is_stream(o) && !o->tcp == !linked && o->local.len && endpoint_of(&o->local).port == p.port)
			return true;
	}
	return false;
}

/* A bit for each port that a socket of the offer has which the program has closed since. */
static uint8_t yielded[8192];

void socket_listen_yield(const Gw__FdDesc *d, int fd)
{
	const Gw__FdSocket *s = d->socket;
	struct endpoint p;

	if (!s || !is_inet(s) || s->type == SOCK_RAW || !s->local.len || fd < 0)
		return;
	p = endpoint_of(&s->local);
	yielded[ntohs(p.port) / 8] |= (uint8_t)(1u << ntohs(p.port) % 8);
	socket_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
}

/* bind(2), also to an address that one of the offer's has until the processes have brought their numbers up to date. */
static int call_bind(const Gw__FdSocket *s, int fd, const struct sockaddr_storage *a)
{
	struct endpoint p = endpoint_of(&s->local);
	bool shares = s->type != SOCK_RAW && yielded[ntohs(p.port) / 8] >> ntohs(p.port) % 8 & 1;
	int was = shares ? socket_get_int(fd, SOL_SOCKET, SO_REUSEADDR) : 0, r;

	if (shares)
		socket_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	r = bind(fd, (const void *)a, (socklen_t)s->local.len) < 0 ? -errno : 0;
	/* Of a listener it is set when it listens. */
	if (shares && !is_stream(s))
		socket_set_int(fd, SOL_SOCKET, SO_REUSEADDR, was);
	errno = -r;
	return r < 0 ? -1 : 0;
}

static int bind_socket(const Gw__FdTable *t, const Gw__FdSocket *s, int fd, struct err *e)
{
	struct sockaddr_storage a = { 0 };
	char text[200];
	int on = 1;

	/*
	 * Options that allowed it may have been taken away since; and a connection that is accepted asks nobody for its port. What they are now is set when it
	 * listens.
	 */
	if (is_stream(s) && shares_port(t, s, false))
		setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	if (is_stream(s) && shares_port(t, s, true))
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	memcpy(&a, s->local.data, s->local.len);
	describe_address(&a, text, sizeof(text));
	if (call_bind(s, fd, &a) == 0)
		return 0;
	/* An address that this host does not have. Applies to IPv6 too. */
	if (errno == EADDRNOTAVAIL) {
		int was = socket_get_int(fd, IPPROTO_IP, IP_FREEBIND), r;

		setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on));
		r = call_bind(s, fd, &a) < 0 ? -errno : 0;
		setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &was, sizeof(was));
		if (r == 0)
			return 0;
		errno = -r;
	}
	/* It may have been here before, and closed connections. */
	if (errno == EADDRINUSE && is_stream(s) && sock_destroy_ended((void *)&a) && call_bind(s, fd, &a) == 0)
		return 0;
	if (errno == EADDRINUSE)
		return err_set(e, -EADDRINUSE, "%s %s: another process on this host has the address; stop it first",
			protocol_name(s), text);
	return err_sys(e, -errno, "%s: binding to %s", protocol_name(s), text);
}

/* Whether a group may make ping sockets is a setting of the host; the program was allowed to. */
static int ping_socket(const Gw__FdSocket *s, uint32_t flags)
{
	static const char path[] = "/proc/sys/net/ipv4/ping_group_range";
	char was[64] = "", all[] = "0 2147483647";
	cleanup_close int setting = open(path, O_RDWR | O_CLOEXEC);
	ssize_t len = setting >= 0 ? pread(setting, was, sizeof(was), 0) : -1;
	int fd, saved;

	if (len <= 0 || pwrite(setting, all, sizeof(all) - 1, 0) < 0)
		return -1;
	fd = socket((int)s->family, (int)(s->type | SOCK_CLOEXEC | (flags & O_NONBLOCK)), (int)s->protocol);
	saved = errno;
	if (pwrite(setting, was, (size_t)len, 0) < 0 && fd >= 0) {
		close(fd);
		return -1;
	}
	errno = saved;
	return fd;
}

static int open_here(const Gw__FdTable *t, const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	const Gw__FdSocket *s = d->socket;
	cleanup_close int fd = -1;
	int r;

	if (socket_host_is_one(s))
		return socket_host_open(d, ret_fd, e);
	fd = socket((int)s->family, (int)(s->type | SOCK_CLOEXEC | (d->flags & O_NONBLOCK)), (int)s->protocol);
	if (fd < 0 && errno == EACCES && s->type == SOCK_DGRAM)
		fd = ping_socket(s, d->flags);
	if (fd < 0)
		return err_sys(e, -errno, "socket");
	r = socket_options_set(fd, s->options, s->n_options, OPTIONS_EARLY, e);
	if (r == 0 && !s->tcp)
		r = socket_options_set(fd, s->options, s->n_options, OPTIONS_LATE, e);
	if (r == 0 && (s->listening ? tcp_outside_begun() : s->local.len && socket_udp_is_one(s) && udp_outside_begun()))
		r = tcp_outside_set_transparent(s, fd);
	if (r == 0 && s->local.len && !s->tcp)
		r = bind_socket(t, s, fd, e);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}

static int fill_here(const Gw__FdDesc *was, const Gw__FdDesc *d, int fd, struct err *e)
{
	const Gw__FdSocket *s = d->socket;
	int r = 0, on = 1;

	if (socket_host_is_one(s))
		return socket_host_fill(d, fd, e);
	if ((!socket_tcp_is_one(s) || !s->tcp) && was && was->socket)
		r = socket_options_update(fd, was->socket->options, was->socket->n_options, s->options, s->n_options, e);
	/* Connections with this port may be there already; they allow it for the time (socket_tcp_restore.c). */
	if (s->listening)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (r == 0 && s->listening && listen(fd, (int)s->backlog) < 0)
		return err_sys(e, -errno, "%s: listen", protocol_name(s));
	if (r == 0 && is_stream(s) && !s->tcp)
		r = socket_options_set_one(fd, s->options, s->n_options, SOL_SOCKET, SO_REUSEPORT, e);
	if (r == 0 && is_stream(s) && !s->tcp)
		r = socket_options_set_one(fd, s->options, s->n_options, SOL_SOCKET, SO_REUSEADDR, e);
	/* Of one without a connection, which is an error to be ignored. */
	if (socket_tcp_is_one(s) && !s->tcp && s->shut_down)
		(void)!shutdown(fd, s->shut_down == 1 ? SHUT_RD : s->shut_down == 2 ? SHUT_WR : SHUT_RDWR);
	return r;
}

/* --- in the socket's network namespace --- */

bool socket_listen_same(const Gw__FdDesc *d, int fd)
{
	int back = d->socket ? ns_others_visit(NS_NET, d->socket->space) : -EINVAL;
	bool same;

	if (back < 0)
		return false;
	same = is_same(d, fd);
	ns_others_return(NS_NET, back);
	return same;
}

int socket_listen_open(const Gw__FdTable *t, const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	int back = ns_others_visit(NS_NET, d->socket->space), r;

	if (back < 0)
		return err_sys(e, back, "the network namespace of a socket");
	r = open_here(t, d, ret_fd, e);
	ns_others_return(NS_NET, back);
	return r;
}

int socket_listen_fill(const Gw__FdDesc *was, const Gw__FdDesc *d, int fd, struct err *e)
{
	int back = ns_others_visit(NS_NET, d->socket->space), r;

	if (back < 0)
		return err_sys(e, back, "the network namespace of a socket");
	r = fill_here(was, d, fd, e);
	ns_others_return(NS_NET, back);
	return r;
}
