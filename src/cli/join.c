// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * join.c - see join.h
 *
 * The process that waits (godwit-join) is root, has one token, and ends with it. What strangers send is read by children of it that are nobody (base/confine.h), at most 16 at a time and for ten seconds each; what comes out
 * of a TLS record reaches it as one datagram of a fixed size, and is compared with the secret before anything else.
 */
#include "cli/join.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>

#include "base/confine.h"
#include "base/util.h"
#include "wire/conn.h"

#define CALLERS_MAX 16
#define CALLER_MS 10000
#define CONNECT_MS 5000
#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1"

struct server {
	const struct join_offer *offer;
	gnutls_certificate_credentials_t credentials;
	struct join_token token;
	uint8_t ca[JOIN_CA_BYTES];
	int listener;
	uint64_t until_ns;
	unsigned tries;
	struct {
		pid_t pid; /* 0: free */
		int fd;
		uint64_t until_ns;
	} callers[CALLERS_MAX];
};

/* --- TLS, both ends --- */

static int tls_all(gnutls_session_t session, uint8_t *data, size_t len, bool sends, struct err *e)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = sends ? gnutls_record_send(session, data + done, len - done) : gnutls_record_recv(session, data + done, len - done);

		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			continue;
		if (n <= 0)
			return err_set(e, -ECONNRESET, "%s", n == 0 ? "the other side has ended the connection" : gnutls_strerror((int)n));
		done += (size_t)n;
	}
	return 0;
}

static int shake_hands(gnutls_session_t session, int fd, struct err *e)
{
	int code;

	gnutls_transport_set_int(session, fd);
	gnutls_handshake_set_timeout(session, CONNECT_MS);
	do
		code = gnutls_handshake(session);
	while (code < 0 && !gnutls_error_is_fatal(code));
	return code < 0 ? err_set(e, -EPROTO, "TLS: %s", gnutls_strerror(code)) : 0;
}

/* --- a child: a stranger --- */

/* All that it needs is there: two descriptors, and memory. */
static int give_up_rights(void)
{
	static const int more[] = { SYS_recvmsg, SYS_recvfrom, SYS_sendto, SYS_sendmsg, SYS_shutdown, SYS_setsockopt, SYS_getsockopt };

	prctl(PR_SET_NAME, "godwit-join-in");
	prctl(PR_SET_DUMPABLE, 0);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	return confine(more, ARRAY_SIZE(more), NULL);
}

/* The answer comes back in pieces: its head, and then its parts. */
static void pass_answer(gnutls_session_t session, int root)
{
	uint8_t piece[16384];
	ssize_t n;

	while ((n = recv(root, piece, sizeof(piece), 0)) > 0)
		if (tls_all(session, piece, (size_t)n, true, NULL) < 0)
			return;
	(void)gnutls_bye(session, GNUTLS_SHUT_WR);
}

static void serve_stranger(struct server *s, int net, int root)
{
	const struct timeval limit = { CONNECT_MS / 1000, 0 };
	uint8_t request[JOIN_REQUEST_BYTES];
	gnutls_session_t session;

	setsockopt(net, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(net, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (give_up_rights() < 0 || gnutls_init(&session, GNUTLS_SERVER) < 0 || gnutls_priority_set_direct(session, PRIORITIES, NULL) < 0 ||
	    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, s->credentials) < 0)
		return;
	if (shake_hands(session, net, NULL) < 0 || tls_all(session, s->ca, sizeof(s->ca), true, NULL) < 0 ||
	    tls_all(session, request, sizeof(request), false, NULL) < 0)
		return;
	if (send(root, request, sizeof(request), MSG_NOSIGNAL) == (ssize_t)sizeof(request))
		pass_answer(session, root);
}

/* --- the one that waits --- */

static void admit(struct server *s)
{
	int net = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC), pair[2], i = 0;

	while (i < CALLERS_MAX && s->callers[i].pid)
		i++;
	if (net < 0 || i == CALLERS_MAX || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		close_fdp(&net);
		return;
	}
	s->callers[i].fd = pair[0];
	s->callers[i].until_ns = clock_ns(CLOCK_MONOTONIC) + CALLER_MS * 1000000ull;
	s->callers[i].pid = fork();
	if (s->callers[i].pid == 0) {
		close(s->listener);
		explicit_bzero(&s->token.secret, sizeof(s->token.secret));
		for (int k = 0; k < CALLERS_MAX; k++)
			close_fdp(&s->callers[k].fd);
		serve_stranger(s, net, pair[1]);
		_exit(0);
	}
	close(net);
	close(pair[1]);
	if (s->callers[i].pid < 0) {
		s->callers[i].pid = 0;
		close_fdp(&s->callers[i].fd);
	}
}

static void dismiss(struct server *s, int i, bool kill_it)
{
	if (kill_it)
		kill(s->callers[i].pid, SIGKILL);
	close_fdp(&s->callers[i].fd);
	waitpid(s->callers[i].pid, NULL, 0);
	s->callers[i].pid = 0;
}

static void send_answer(int fd, const struct join_answer *a)
{
	uint8_t head[JOIN_ANSWER_BYTES];

	join_answer_encode(a, head);
	if (send(fd, head, sizeof(head), MSG_NOSIGNAL) < 0)
		return;
	for (int i = 0; i < JOIN_PARTS; i++)
		for (size_t at = 0, n; at < a->part[i].size; at += n) {
			n = MIN((size_t)a->part[i].size - at, (size_t)8192);
			if (send(fd, a->part[i].data + at, n, MSG_NOSIGNAL) < 0)
				return;
		}
}

static gnutls_datum_t copy_of(const char *text)
{
	return (gnutls_datum_t){ (unsigned char *)gnutls_strdup(text), (unsigned)strlen(text) };
}

static int load_key(const char *path, gnutls_datum_t *ret, struct err *e)
{
	int code = gnutls_load_file(path, ret);

	return code < 0 ? err_set(e, -EIO, "%s: %s", path, gnutls_strerror(code)) : 0;
}

/* Who has the secret. The token is used up, whatever becomes of it. */
static void answer(const struct server *s, int fd, const uint8_t *bytes)
{
	struct join_answer a = { 0 };
	struct join_request request;
	struct err e = ERR_INIT;

	if (join_request_decode(bytes, &request, &e) == 0 && pki_issue_request(s->offer->pki, &request, s->offer->days, &a, &e) == 0 && load_key(s->offer->key_file, &a.part[JOIN_KEY], &e) == 0)
		a.part[JOIN_SEED] = copy_of(s->offer->seed);
	if (e.code < 0) {
		join_answer_free(&a);
		a.code = e.code;
		a.part[0] = copy_of(e.message);
		syslog(LOG_WARNING, "event=join-refused error=\"%s\"", e.message);
	} else {
		syslog(LOG_NOTICE, "event=joined node=%s address=%s", request.node, request.address);
	}
	send_answer(fd, &a);
	join_answer_free(&a);
}

/* true: the token is used up. */
static bool hear(struct server *s, int i)
{
	uint8_t bytes[JOIN_REQUEST_BYTES];
	ssize_t n = recv(s->callers[i].fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	bool proves;

	if (n != (ssize_t)sizeof(bytes)) {
		dismiss(s, i, n > 0);
		return false;
	}
	proves = join_request_proves(bytes, s->token.secret);
	if (proves) {
		explicit_bzero(&s->token.secret, sizeof(s->token.secret)); /* before anything is issued */
		answer(s, s->callers[i].fd, bytes);
		dismiss(s, i, false);
	} else {
		s->tries++;
		syslog(LOG_WARNING, "event=join-refused error=\"not the secret of this token\" tries=%u", s->tries);
		dismiss(s, i, true);
	}
	explicit_bzero(bytes, sizeof(bytes));
	return proves || s->tries >= JOIN_TRIES;
}

static void __attribute__((noreturn)) wait_for_it(struct server *s)
{
	bool over = false;
	uint64_t now;

	while (!over && (now = clock_ns(CLOCK_BOOTTIME)) < s->until_ns) {
		struct pollfd p[CALLERS_MAX + 1] = { { s->listener, POLLIN, 0 } };
		uint64_t mono;

		for (int i = 0; i < CALLERS_MAX; i++)
			p[i + 1] = (struct pollfd){ s->callers[i].pid ? s->callers[i].fd : -1, POLLIN, 0 };
		if (poll(p, CALLERS_MAX + 1, 1000) < 0 && errno != EINTR)
			break;
		mono = clock_ns(CLOCK_MONOTONIC);
		for (int i = 0; i < CALLERS_MAX && !over; i++) {
			if (p[i + 1].revents)
				over = hear(s, i);
			else if (s->callers[i].pid && mono >= s->callers[i].until_ns)
				dismiss(s, i, true);
		}
		if (p[0].revents && !over)
			admit(s);
	}
	explicit_bzero(&s->token, sizeof(s->token));
	_exit(0);
}

static void leave_behind(struct server *s)
{
	int null = open("/dev/null", O_RDWR);

	setsid();
	prctl(PR_SET_NAME, "godwit-join");
	prctl(PR_SET_DUMPABLE, 0);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	(void)!chdir("/");
	openlog("godwit-join", 0, LOG_DAEMON);
	if (fork() == 0)
		wait_for_it(s);
	_exit(0);
}

int join_serve(const struct join_offer *offer, struct join_token *ret, struct err *e)
{
	static struct server s;
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(offer->port) };
	pid_t pid;

	s = (struct server){ .offer = offer, .token.port = offer->port, .until_ns = clock_ns(CLOCK_BOOTTIME) + (uint64_t)offer->seconds * 1000000000ull };
	for (int i = 0; i < CALLERS_MAX; i++)
		s.callers[i].fd = -1;
	s.listener = conn_listen(&at, 64, e);
	if (s.listener == -EADDRINUSE)
		return err_set(e, -EADDRINUSE, "port %u is in use, perhaps by another token that waits for a host: --port chooses another one", offer->port);
	if (s.listener < 0)
		return s.listener;
	if (pki_join_identity(offer->pki, offer->seconds, &s.credentials, s.ca, s.token.ca, e) < 0)
		return e->code;
	if (gnutls_rnd(GNUTLS_RND_KEY, s.token.secret, sizeof(s.token.secret)) < 0)
		return err_set(e, -EIO, "no random numbers");
	*ret = s.token;
	pid = fork();
	if (pid < 0)
		return err_sys(e, -errno, "fork");
	if (pid == 0)
		leave_behind(&s);
	waitpid(pid, NULL, 0);
	close(s.listener);
	return 0;
}

/* --- the new node --- */

static int resolve(const char *host, uint16_t port, struct sockaddr_in *ret, struct err *e)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *list = NULL;
	int code = getaddrinfo(host, NULL, &hints, &list);

	if (code)
		return err_set(e, -ENOENT, "host '%.100s': %s", host, gai_strerror(code));
	*ret = *(struct sockaddr_in *)list->ai_addr;
	ret->sin_port = htons(port);
	freeaddrinfo(list);
	return 0;
}

int join_own_address(const char *host, char ret[46], struct err *e)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in to, own;

	if (resolve(host, JOIN_PORT, &to, e) < 0)
		return e->code;
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 || getsockname(fd, (struct sockaddr *)&own, &(socklen_t){ sizeof(own) }) < 0)
		return err_sys(e, -errno, "%s", host);
	inet_ntop(AF_INET, &own.sin_addr, ret, 46);
	return 0;
}

/* Before it has said anything; for the handshake any certificate will do. */
static int judge(gnutls_session_t session, const struct join_token *token, struct err *e)
{
	uint8_t ca[JOIN_CA_BYTES];
	unsigned n = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n);

	if (tls_all(session, ca, sizeof(ca), false, e) < 0)
		return e->code;
	return chain && n && join_is_by(&chain[0], ca, token->ca) ? 0 : err_set(e, -EACCES, "what answers has not the CA of this token: it is another cluster's, or not whom you mean; nothing has been told to it");
}

static int read_answer(gnutls_session_t session, struct join_answer *ret, struct err *e)
{
	uint8_t head[JOIN_ANSWER_BYTES];

	if (tls_all(session, head, sizeof(head), false, e) < 0 || join_answer_decode(head, ret, e) < 0)
		return e->code;
	for (int i = 0; i < JOIN_PARTS; i++) {
		ret->part[i].data = gnutls_calloc(1, ret->part[i].size + 1);
		if (!ret->part[i].data)
			return err_sys(e, -ENOMEM, "the answer");
		if (tls_all(session, ret->part[i].data, ret->part[i].size, false, e) < 0)
			return e->code;
	}
	return ret->code < 0 ? err_set(e, -EACCES, "%.400s", (const char *)ret->part[0].data) : 0;
}

static int converse(gnutls_session_t session, int fd, const struct join_token *token, struct join_request *request, struct join_answer *ret, struct err *e)
{
	uint8_t bytes[JOIN_REQUEST_BYTES];
	int r = shake_hands(session, fd, e);

	if (r == 0)
		r = judge(session, token, e);
	if (r < 0)
		return r;
	memcpy(request->secret, token->secret, sizeof(request->secret));
	join_request_encode(request, bytes);
	r = tls_all(session, bytes, sizeof(bytes), true, e);
	explicit_bzero(bytes, sizeof(bytes));
	if (r == 0)
		r = read_answer(session, ret, e);
	return r == -ECONNRESET ? err_wrap(e, "the token was refused") : r;
}

int join_ask(const char *host, const struct join_token *token, struct join_request *request, struct join_answer *ret, struct err *e)
{
	const struct timeval limit = { CALLER_MS / 1000, 0 };
	gnutls_certificate_credentials_t credentials = NULL;
	gnutls_session_t session = NULL;
	struct sockaddr_in to;
	cleanup_close int fd = -1;
	int r, code;

	if (resolve(host, token->port, &to, e) < 0)
		return e->code;
	fd = conn_connect(&to, CONNECT_MS, e);
	if (fd < 0)
		return fd == -ECONNREFUSED ? err_set(e, fd, "nobody waits at %s, port %u: the token has been used, or its time is over; `godwit cluster token` makes another one", host, token->port) : fd;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	code = gnutls_certificate_allocate_credentials(&credentials);
	if (code >= 0)
		code = gnutls_init(&session, GNUTLS_CLIENT);
	if (code >= 0)
		code = gnutls_priority_set_direct(session, PRIORITIES, NULL);
	if (code >= 0)
		code = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
	if (code >= 0) {
		r = converse(session, fd, token, request, ret, e);
	} else {
		r = err_set(e, -EIO, "TLS: %s", gnutls_strerror(code));
	}
	if (session)
		gnutls_deinit(session);
	if (credentials)
		gnutls_certificate_free_credentials(credentials);
	return r;
}
