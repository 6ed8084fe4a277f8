/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tls.c - the engine's side of relays; see tls.h */
#include "wire/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"
#include "wire/conn.h"

static char starter[sizeof(((struct sockaddr_un *)0)->sun_path)];
static bool (*node_of)(const struct sockaddr_in *address, char ret[TLS_NODE_MAX + 1]);

void tls_use(const char *socket_path, bool (*name_of)(const struct sockaddr_in *address, char ret[TLS_NODE_MAX + 1]))
{
	snprintf(starter, sizeof(starter), "%s", socket_path);
	node_of = name_of;
}

bool tls_is_used(void)
{
	return starter[0];
}

/* The name of the engine's end says which connection it is: it is with the descriptor wherever that goes. Listening on it is nobody, so that nobody can connect to it. */
static void name_end(int fd, int net, const struct sockaddr_in *peer)
{
	static unsigned count;
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	char own_text[CONN_ADDRESS_TEXT], peer_text[CONN_ADDRESS_TEXT];
	struct sockaddr_in own = { 0 };
	int len;

	if (getsockname(net, (struct sockaddr *)&own, &(socklen_t){ sizeof(own) }) < 0)
		return;
	conn_address_text(&own, own_text);
	conn_address_text(peer, peer_text);
	len = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "godwit-tls %s %s %d.%u", own_text, peer_text, (int)getpid(), count++);
	(void)!bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len));
}

/* `with` goes along; the data is what is sent. */
static int send_with(int fd, const void *data, size_t len, int with)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &with, sizeof(int));
	return sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)len ? 0 : -errno;
}

int tls_begin(enum tls_kind kind, int net, const struct sockaddr_in *peer, int timeout_ms, struct err *e)
{
	struct tls_request request = { .magic = TLS_MAGIC, .kind = kind, .timeout_ms = timeout_ms, .peer = *peer };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int ret;

	if (fd < 0)
		return err_sys(e, -errno, "TLS: socket");
	if ((kind == TLS_CONNECT || kind == TLS_ASK) && node_of && !node_of(peer, request.name))
		request.name[0] = 0;
	if (kind != TLS_ASK)
		name_end(fd, net, peer);
	memcpy(to.sun_path, starter, sizeof(to.sun_path));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return err_sys(e, -errno, "TLS: godwit-tls, %s, which godwitd starts", starter);
	ret = send_with(fd, &request, sizeof(request), net);
	return ret < 0 ? err_sys(e, ret, "TLS: godwit-tls") : take_fd(&fd);
}

int tls_greeting_take(int fd, char ret_names[ERR_MESSAGE_MAX], struct err *e)
{
	struct tls_greeting g;
	ssize_t n = recv(fd, &g, sizeof(g), MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	if (n < 0)
		return err_sys(e, -errno, "TLS");
	if (!n)
		return err_set(e, -ECONNRESET, "TLS: the relay of this connection has ended");
	if (n < (ssize_t)sizeof(g))
		return -EAGAIN;
	if (recv(fd, &g, sizeof(g), MSG_DONTWAIT) != (ssize_t)sizeof(g) || g.magic != TLS_MAGIC)
		return err_set(e, -EPROTO, "TLS: a greeting that is none");
	g.text[sizeof(g.text) - 1] = 0;
	if (g.code < 0)
		return err_set(e, g.code, "%s", g.text);
	memcpy(ret_names, g.text, sizeof(g.text));
	return 0;
}

bool tls_names_have(const char *names, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = names; *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");

		if (len && n == len && !memcmp(p, name, n))
			return true;
		p += n;
	}
	return false;
}

bool tls_is_relayed(int fd)
{
	int domain = 0;

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &(socklen_t){ sizeof(domain) }) == 0 && domain == AF_UNIX;
}

int tls_addresses(int fd, struct sockaddr_in *ret_own, struct sockaddr_in *ret_peer)
{
	struct sockaddr_un name = { 0 };
	socklen_t len = sizeof(name) - 1;
	char own[CONN_ADDRESS_TEXT], peer[CONN_ADDRESS_TEXT];

	if (getsockname(fd, (struct sockaddr *)&name, &len) < 0 || name.sun_family != AF_UNIX || name.sun_path[0] ||
	    sscanf(name.sun_path + 1, "godwit-tls %23s %23s", own, peer) != 2 || conn_address_parse(own, ret_own, NULL) < 0 || conn_address_parse(peer, ret_peer, NULL) < 0)
		return -ENOTCONN;
	return 0;
}

/* A byte with a descriptor is a word to the relay, and goes no further: data never has one. */
int tls_make_patient(int fd)
{
	return send_with(fd, "P", 1, fd);
}
