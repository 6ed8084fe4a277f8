/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_listen.c - listening and unconnected sockets; see socket_listen.h */
#include "image/socket_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"
#include "image/socket_pair.h"
#include "image/unix_diag.h"

#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894C
#endif

#define OPTION_VALUE_MAX 256u

/*
 * What is carried. Those of `family` 0 belong to all families, those of `type` 0 to all types. Order matters: address reuse comes
 * before bind.
 */
static const struct carried {
	int level, name, family, type;
} carried[] = {
	{ SOL_SOCKET, SO_REUSEADDR, 0, 0 },
	{ SOL_SOCKET, SO_REUSEPORT, AF_INET, 0 },
	{ SOL_SOCKET, SO_REUSEPORT, AF_INET6, 0 },
	{ SOL_SOCKET, SO_KEEPALIVE, 0, 0 },
	{ SOL_SOCKET, SO_BROADCAST, 0, 0 },
	{ SOL_SOCKET, SO_OOBINLINE, 0, 0 },
	{ SOL_SOCKET, SO_DONTROUTE, 0, 0 },
	{ SOL_SOCKET, SO_LINGER, 0, 0 },
	{ SOL_SOCKET, SO_RCVLOWAT, 0, 0 },
	{ SOL_SOCKET, SO_PRIORITY, 0, 0 },
	{ SOL_SOCKET, SO_MARK, 0, 0 },
	{ SOL_SOCKET, SO_RCVTIMEO, 0, 0 },
	{ SOL_SOCKET, SO_SNDTIMEO, 0, 0 },
	{ SOL_SOCKET, SO_PASSCRED, AF_UNIX, 0 },
	{ SOL_SOCKET, SO_TIMESTAMP, 0, 0 },
	{ SOL_SOCKET, SO_BINDTODEVICE, AF_INET, 0 },
	{ SOL_SOCKET, SO_BINDTODEVICE, AF_INET6, 0 },
	{ IPPROTO_IPV6, IPV6_V6ONLY, AF_INET6, 0 },
	{ IPPROTO_IPV6, IPV6_TCLASS, AF_INET6, 0 },
	{ IPPROTO_IPV6, IPV6_UNICAST_HOPS, AF_INET6, 0 },
	{ IPPROTO_IPV6, IPV6_RECVPKTINFO, AF_INET6, 0 },
	{ IPPROTO_IP, IP_TOS, AF_INET, 0 },
	{ IPPROTO_IP, IP_TTL, AF_INET, 0 },
	{ IPPROTO_IP, IP_PKTINFO, AF_INET, 0 },
	{ IPPROTO_IP, IP_FREEBIND, AF_INET, 0 },
	{ IPPROTO_IP, IP_TRANSPARENT, AF_INET, 0 },
	{ IPPROTO_TCP, TCP_NODELAY, 0, SOCK_STREAM },
	{ IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, SOCK_STREAM },
	{ IPPROTO_TCP, TCP_KEEPIDLE, 0, SOCK_STREAM },
	{ IPPROTO_TCP, TCP_KEEPINTVL, 0, SOCK_STREAM },
	{ IPPROTO_TCP, TCP_KEEPCNT, 0, SOCK_STREAM },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, 0, SOCK_STREAM },
	{ IPPROTO_TCP, TCP_SYNCNT, 0, SOCK_STREAM },
	{ IPPROTO_TCP, TCP_FASTOPEN, 0, SOCK_STREAM },
	{ IPPROTO_TCP, TCP_CONGESTION, 0, SOCK_STREAM },
	/* Doubled by the kernel when set: handled apart. */
	{ SOL_SOCKET, SO_RCVBUF, 0, 0 },
	{ SOL_SOCKET, SO_SNDBUF, 0, 0 },
};

static bool applies(const struct carried *o, const Gw__FdSocket *s)
{
	bool is_tcp = s->type == SOCK_STREAM && s->family != AF_UNIX;

	if (o->level == IPPROTO_TCP && !is_tcp)
		return false;
	return (!o->family || (uint32_t)o->family == s->family) && (!o->type || (uint32_t)o->type == s->type);
}

static int get_int(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) < 0 ? -1 : value;
}

static void describe_address(const struct sockaddr_storage *a, socklen_t len, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN] = "";
	const struct sockaddr_un *un = (const void *)a;
	const struct sockaddr_in *in = (const void *)a;
	const struct sockaddr_in6 *in6 = (const void *)a;

	if (a->ss_family == AF_INET)
		snprintf(out, size, "%s:%u", inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text)), ntohs(in->sin_port));
	else if (a->ss_family == AF_INET6)
		snprintf(out, size, "[%s]:%u", inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text)), ntohs(in6->sin6_port));
	else if (a->ss_family == AF_UNIX && len > offsetof(struct sockaddr_un, sun_path))
		snprintf(out, size, "%s%.*s", un->sun_path[0] ? "" : "@", (int)(len - offsetof(struct sockaddr_un, sun_path)),
			un->sun_path[0] ? un->sun_path : un->sun_path + 1);
	else
		snprintf(out, size, "no address");
}

static const char *protocol_name(const Gw__FdSocket *s)
{
	if (s->family == AF_UNIX)
		return s->type == SOCK_STREAM ? "unix stream" : s->type == SOCK_DGRAM ? "unix datagram" : "unix seqpacket";
	if (s->family == AF_NETLINK)
		return "netlink";
	if (s->family == AF_PACKET)
		return "packet";
	if (s->family != AF_INET && s->family != AF_INET6)
		return "socket";
	if (s->type == SOCK_STREAM)
		return s->protocol == IPPROTO_TCP ? "TCP" : "MPTCP or other stream";
	return s->type == SOCK_DGRAM ? "UDP" : "raw";
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
	struct sockaddr_storage local = { 0 }, peer = { 0 };
	socklen_t local_len = sizeof(local), peer_len = sizeof(peer);
	char from[200], to[200], code[64];
	const char *state = s->type == SOCK_STREAM && s->family != AF_UNIX ? tcp_state_name(look->held) : NULL;

	getsockname(look->held, (void *)&local, &local_len);
	if (getpeername(look->held, (void *)&peer, &peer_len) < 0)
		peer_len = 0;
	describe_address(&local, local_len, from, sizeof(from));
	describe_address(&peer, peer_len, to, sizeof(to));
	if (s->family == AF_UNIX) {
		refusals_add(refusals, "fd.socket.unix.connected", "connected unix sockets cannot move yet", "close the connection first",
			"fd %d (%s, %s to %s)", look->fd, protocol_name(s), from, to);
		return FD_REFUSED;
	}
	snprintf(code, sizeof(code), "fd.socket.%s", state ? "tcp.established" : s->type == SOCK_DGRAM ? "udp.connected" : "other");
	refusals_add(refusals, code, "connected sockets cannot move yet", "close the connection first",
		"fd %d (%s %s to %s%s%s)", look->fd, protocol_name(s), from, to, state ? ", " : "", state ? state : "");
	return FD_REFUSED;
}

void socket_capture_options(int fd, Gw__FdSocket *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(carried); i++) {
		uint8_t value[OPTION_VALUE_MAX];
		socklen_t len = sizeof(value);
		Gw__FdSockOpt *o;

		if (!applies(&carried[i], s) || getsockopt(fd, carried[i].level, carried[i].name, value, &len) < 0 || !len)
			continue;
		o = fd_alloc(sizeof(*o));
		gw__fd_sock_opt__init(o);
		o->level = (uint32_t)carried[i].level;
		o->name = (uint32_t)carried[i].name;
		o->value.data = fd_alloc(len);
		o->value.len = len;
		memcpy(o->value.data, value, len);
		fd_append(&s->options, &s->n_options, o);
	}
}

static bool same_net_namespace(int fd)
{
	cleanup_close int ns = ioctl(fd, SIOCGSKNS);
	struct stat theirs, ours;

	return ns < 0 || fstat(ns, &theirs) < 0 || stat("/proc/self/ns/net", &ours) < 0 || theirs.st_ino == ours.st_ino;
}

int socket_listen_recheck(const struct fd_look *look, const Gw__FdDesc *d, struct refusals *refusals)
{
	struct pollfd p = { .fd = look->held, .events = POLLIN };

	if (!d->socket->local.len || poll(&p, 1, 0) != 1 || !(p.revents & POLLIN))
		return 0;
	if (d->socket->listening)
		refusals_add(refusals, "fd.socket.accept-queue", "connections wait in its accept queue, and such cannot move yet",
			"try again when the program has accepted them", "fd %d (%s listener)", look->fd, protocol_name(d->socket));
	else
		refusals_add(refusals, "fd.socket.queue", "datagrams wait in its queue, and such cannot move yet",
			"try again when the program has read them", "fd %d (%s)", look->fd, protocol_name(d->socket));
	return FD_REFUSED;
}

static int capture_unix_file(const struct fd_look *look, Gw__FdSocket *s, struct refusals *refusals)
{
	const struct sockaddr_un *un = (const void *)s->local.data;
	struct stat st;

	if (s->local.len <= offsetof(struct sockaddr_un, sun_path) || !un->sun_path[0])
		return 0;
	if (un->sun_path[0] != '/') {
		refusals_add(refusals, "fd.socket.unix.relative", "unix sockets bound to a relative path cannot move yet",
			"bind it to an absolute path",
			"fd %d (unix socket %.100s)", look->fd, un->sun_path);
		return FD_REFUSED;
	}
	if (lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode)) {
		s->mode = st.st_mode & 07777;
		s->uid = st.st_uid;
		s->gid = st.st_gid;
	}
	return 0;
}

/* Backlog of a listener, and the rest of its queue. */
static void capture_backlog(const struct fd_look *look, Gw__FdSocket *s)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	struct unix_diag_info diag;

	if (s->family == AF_UNIX) {
		/* There is no socket option for it. */
		if (unix_diag_look(look->st->st_ino, &diag) && diag.backlog >= 0)
			s->backlog = (uint32_t)diag.backlog;
	} else if (getsockopt(look->held, IPPROTO_TCP, TCP_INFO, &info, &len) == 0) {
		/* Of a listener: the greatest length of its accept queue. */
		s->backlog = info.tcpi_sacked;
	}
}

/* Bound or fresh, but without a peer? */
static bool can_carry(const struct fd_look *look, const Gw__FdSocket *s)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	const char *state;

	if (s->family != AF_INET && s->family != AF_INET6 && s->family != AF_UNIX)
		return false;
	if (s->family != AF_UNIX && s->protocol != IPPROTO_TCP && s->protocol != IPPROTO_UDP)
		return false;
	if (s->listening)
		return true;
	if (getpeername(look->held, (void *)&peer, &len) == 0)
		return false;
	state = s->protocol == IPPROTO_TCP && s->family != AF_UNIX ? tcp_state_name(look->held) : NULL;
	return !state || !strcmp(state, "CLOSE");
}

/* All that is carried, of a socket whose family, type and protocol are known. */
static int capture_state(const struct fd_look *look, Gw__FdSocket *s, struct err *e)
{
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);

	memset(&local, 0, sizeof(local));
	if (getsockname(look->held, (void *)&local, &len) < 0)
		return err_sys(e, -errno, "fd %d: getsockname", look->fd);
	/* Not bound: port 0, or a unix address of the family alone. */
	if (s->family == AF_UNIX ? len > offsetof(struct sockaddr_un, sun_path) : ((struct sockaddr_in *)&local)->sin_port != 0) {
		s->local.data = fd_alloc(len + 1);
		s->local.len = len;
		memcpy(s->local.data, &local, len);
	}
	if (s->listening)
		capture_backlog(look, s);
	socket_capture_options(look->held, s);
	return 0;
}

Gw__FdSocket *socket_new(int fd)
{
	Gw__FdSocket *s = fd_alloc(sizeof(*s));

	gw__fd_socket__init(s);
	s->family = (uint32_t)get_int(fd, SOL_SOCKET, SO_DOMAIN);
	s->type = (uint32_t)get_int(fd, SOL_SOCKET, SO_TYPE);
	s->protocol = (uint32_t)get_int(fd, SOL_SOCKET, SO_PROTOCOL);
	s->listening = get_int(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1;
	return s;
}

int socket_listen_capture(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals, struct err *e)
{
	Gw__FdSocket *s = d->socket = socket_new(look->held);
	int r;

	s->backlog = s->listening ? SOMAXCONN : 0;
	if (!can_carry(look, s))
		return socket_refuse_connected(look, s, refusals);
	if (!same_net_namespace(look->held)) {
		refusals_add(refusals, "fd.socket.namespace", "sockets of another network namespace cannot move yet",
			"run it in the host's network namespace",
			"fd %d (%s)", look->fd, protocol_name(s));
		return FD_REFUSED;
	}
	r = capture_state(look, s, e);
	if (r == 0 && s->family == AF_UNIX)
		r = capture_unix_file(look, s, refusals);
	return r ? r : socket_listen_recheck(look, d, refusals);
}

bool socket_listen_same(const Gw__FdDesc *d, int fd)
{
	struct stat st;
	struct fd_look look = { .fd = fd, .held = fd, .st = &st };
	Gw__FdSocket *now;
	bool same = false;

	if (!d->socket || fstat(fd, &st) < 0)
		return false;
	now = socket_new(fd);
	/* Mode and owner of a unix socket's file are left as captured. */
	now->backlog = d->socket->listening ? d->socket->backlog : 0;
	now->mode = d->socket->mode;
	now->uid = d->socket->uid;
	now->gid = d->socket->gid;
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
	gw__fd_socket__free_unpacked(now, NULL);
	return same && can_carry(&look, d->socket);
}

static int validate_local(const Gw__FdSocket *s, struct err *e)
{
	uint16_t family;

	if (!s->local.len)
		return 0;
	if (s->local.len < sizeof(family) || s->local.len > sizeof(struct sockaddr_un))
		return err_set(e, -EPROTO, "socket: address of %zu bytes", s->local.len);
	memcpy(&family, s->local.data, sizeof(family));
	if (family != s->family || (family == AF_INET && s->local.len != sizeof(struct sockaddr_in)) ||
	    (family == AF_INET6 && s->local.len != sizeof(struct sockaddr_in6)))
		return err_set(e, -EPROTO, "socket: address of another family");
	return 0;
}

int socket_listen_validate(const Gw__FdDesc *d, struct err *e)
{
	const Gw__FdSocket *s = d->socket;
	bool inet;

	if (!s)
		return err_set(e, -EPROTO, "socket without its description");
	inet = s->family == AF_INET || s->family == AF_INET6;
	if (!inet && s->family != AF_UNIX)
		return err_set(e, -EPROTO, "socket: family %u", s->family);
	if (inet && !(s->type == SOCK_STREAM && s->protocol == IPPROTO_TCP) && !(s->type == SOCK_DGRAM && s->protocol == IPPROTO_UDP))
		return err_set(e, -EPROTO, "socket: type %u, protocol %u", s->type, s->protocol);
	if (!inet && (s->protocol > 1 || (s->type != SOCK_STREAM && s->type != SOCK_DGRAM && s->type != SOCK_SEQPACKET)))
		return err_set(e, -EPROTO, "unix socket: type %u, protocol %u", s->type, s->protocol);
	if (s->listening && s->type == SOCK_DGRAM)
		return err_set(e, -EPROTO, "socket: a listening datagram socket");
	if (d->kind == GW__FD_KIND__FD_SOCKETPAIR && (s->family != AF_UNIX || s->listening || s->local.len))
		return err_set(e, -EPROTO, "socket: a pair with an address");
	if (s->n_options > ARRAY_SIZE(carried) || s->mode > 07777)
		return err_set(e, -EPROTO, "socket: options or mode out of range");
	for (size_t i = 0; i < s->n_options; i++) {
		const Gw__FdSockOpt *o = s->options[i];
		bool known = false;

		for (size_t j = 0; j < ARRAY_SIZE(carried) && !known; j++)
			known = o->level == (uint32_t)carried[j].level && o->name == (uint32_t)carried[j].name && applies(&carried[j], s);
		if (!known || !o->value.len || o->value.len > OPTION_VALUE_MAX)
			return err_set(e, -EPROTO, "socket: option %u of level %u", o->name, o->level);
	}
	return validate_local(s, e);
}

int socket_set_option(int fd, const Gw__FdSockOpt *o, struct err *e)
{
	uint8_t now[OPTION_VALUE_MAX];
	socklen_t len = sizeof(now);
	int size;

	/* What a new socket has anyway is left alone: setting it may need privileges, or switch off automatic tuning. */
	if (getsockopt(fd, (int)o->level, (int)o->name, now, &len) == 0 && len == o->value.len && !memcmp(now, o->value.data, len))
		return 0;
	if (o->level == SOL_SOCKET && (o->name == SO_RCVBUF || o->name == SO_SNDBUF)) {
		if (o->value.len != sizeof(size))
			return err_set(e, -EPROTO, "socket: buffer size of %zu bytes", o->value.len);
		memcpy(&size, o->value.data, sizeof(size));
		size /= 2;
		if (setsockopt(fd, SOL_SOCKET, o->name == SO_RCVBUF ? SO_RCVBUFFORCE : SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
			return err_sys(e, -errno, "socket: buffer size %d", size);
		return 0;
	}
	if (setsockopt(fd, (int)o->level, (int)o->name, o->value.data, (socklen_t)o->value.len) < 0)
		return err_sys(e, -errno, "socket: option %u of level %u", o->name, o->level);
	return 0;
}

static int bind_socket(const Gw__FdSocket *s, int fd, struct err *e)
{
	struct sockaddr_storage a = { 0 };
	char text[200];
	int on = 1;

	memcpy(&a, s->local.data, s->local.len);
	describe_address(&a, (socklen_t)s->local.len, text, sizeof(text));
	if (bind(fd, (void *)&a, (socklen_t)s->local.len) == 0)
		return 0;
	/* An address that this host does not have. Applies to IPv6 too. */
	if (errno == EADDRNOTAVAIL && setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on)) == 0 &&
	    bind(fd, (void *)&a, (socklen_t)s->local.len) == 0)
		return 0;
	if (errno == EADDRINUSE)
		return err_set(e, -EADDRINUSE, "%s %s: another process on this host has the address; stop it first",
			protocol_name(s), text);
	return err_sys(e, -errno, "%s: binding to %s", protocol_name(s), text);
}

/*
 * Whether a socket of this network namespace is bound to the path. Connecting would disturb the source's own server behind a shared
 * file.
 */
static bool unix_path_is_served(const char *path)
{
	cleanup_fclose FILE *f = fopen("/proc/net/unix", "re");
	char line[512], at[256];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %*s %*s %*s %*s %*s %*s %255s", at) == 1 && !strcmp(at, path))
			return true;
	return false;
}

/* A file at the place of a unix socket: whether a living server is behind it. */
static int check_unix_place(const Gw__FdSocket *s, struct err *e)
{
	struct sockaddr_un a = { 0 };
	struct stat st;

	memcpy(&a, s->local.data, MIN(s->local.len, sizeof(a) - 1));
	if (lstat(a.sun_path, &st) < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "unix socket %s", a.sun_path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EADDRINUSE, "unix socket %s: a file that is no socket is there on this host; move it away", a.sun_path);
	if (unix_path_is_served(a.sun_path))
		return err_set(e, -EADDRINUSE, "unix socket %s: another process on this host uses the path; stop it first", a.sun_path);
	return 0;
}

static bool is_unix_file(const Gw__FdSocket *s)
{
	return s->family == AF_UNIX && s->local.len > offsetof(struct sockaddr_un, sun_path) &&
		s->local.data[offsetof(struct sockaddr_un, sun_path)] == '/';
}

int socket_listen_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	const Gw__FdSocket *s = d->socket;
	cleanup_close int fd = socket((int)s->family, (int)(s->type | SOCK_CLOEXEC | (d->flags & O_NONBLOCK)), (int)s->protocol);
	int r = 0;

	if (fd < 0)
		return err_sys(e, -errno, "socket");
	for (size_t i = 0; i < s->n_options && r == 0; i++)
		r = socket_set_option(fd, s->options[i], e);
	if (r == 0 && s->local.len)
		r = is_unix_file(s) ? check_unix_place(s, e) : s->family == AF_UNIX ? 0 : bind_socket(s, fd, e);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}

static void aside_name(const char *path, char *out, size_t size)
{
	snprintf(out, size, "%s.godwit-%d", path, (int)getpid());
}

void socket_aside_remove(const char *path)
{
	char aside[PATH_MAX];

	aside_name(path, aside, sizeof(aside));
	unlink(aside);
}

void socket_aside_restore(const char *path)
{
	char aside[PATH_MAX];

	aside_name(path, aside, sizeof(aside));
	rename(aside, path);
}

/* The file of the source's socket may be there, on a shared file system: the new socket takes its place, for that is the server from now on. */
static int bind_unix(const Gw__FdSocket *s, int fd, char **ret_aside, struct err *e)
{
	struct sockaddr_un a = { 0 };
	char aside[PATH_MAX];
	struct stat st;
	int r;

	memcpy(&a, s->local.data, MIN(s->local.len, sizeof(a) - 1));
	if (is_unix_file(s) && lstat(a.sun_path, &st) == 0 && S_ISSOCK(st.st_mode)) {
		aside_name(a.sun_path, aside, sizeof(aside));
		if (rename(a.sun_path, aside) < 0)
			return err_sys(e, -errno, "unix socket %s: moving the old one aside", a.sun_path);
		*ret_aside = fd_strdup(a.sun_path);
	}
	r = bind_socket(s, fd, e);
	if (r < 0 || !is_unix_file(s))
		return r;
	if ((s->mode && chmod(a.sun_path, s->mode) < 0) || lchown(a.sun_path, s->uid, s->gid) < 0)
		return err_sys(e, -errno, "unix socket %s: its mode and owner", a.sun_path);
	return 0;
}

int socket_listen_fill(const Gw__FdDesc *d, int fd, char **ret_aside, struct err *e)
{
	const Gw__FdSocket *s = d->socket;
	int r;

	*ret_aside = NULL;
	r = s->family == AF_UNIX && s->local.len ? bind_unix(s, fd, ret_aside, e) : 0;

	if (r < 0)
		return r;
	if (s->listening && listen(fd, (int)s->backlog) < 0)
		return err_sys(e, -errno, "%s: listen", protocol_name(s));
	return 0;
}
