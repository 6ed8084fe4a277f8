/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tls_relay.c - a relay: the handshake, then records on one side and bytes on the other; see tls.h
 *
 * Nothing here blocks but poll(2). GnuTLS reads from `in` and writes to `out`; when `in` is empty it is told to come again. Each direction has one buffer of plain bytes (`up` to the
 * other host, `down` to the engine), and nothing more is read for it before that is empty: so who is slow slows the other side down, as TCP does.
 */
#include "wire/tls_relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/confine.h"
#include "base/util.h"
#include "wire/conn.h"
#include "wire/frame.h"

#define PLAIN_BYTES (128u << 10)
#define RECORD_BYTES (16u << 10)
#define RECORD_MORE 256u /* what a record has beside its text, generously */
#define WIRE_BYTES (PLAIN_BYTES + (PLAIN_BYTES / RECORD_BYTES + 8) * RECORD_MORE)
#define QUESTION_MAX 4096u
#define REQUEST_MS 5000
#define HANDSHAKE_RECORD 0x16
#define WELCOME "GODWIT1\n" /* by who accepts: TLS 1.3 ends for the caller before its certificate has been looked at */
#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1"

struct buffer {
	uint8_t *data;
	size_t at, have; /* `have` bytes from `at` on are to be passed on */
};

struct relay {
	struct tls_identity *id;
	struct tls_request request;
	int net, local;
	gnutls_session_t session;
	char peer[CONN_ADDRESS_TEXT];
	char names[ERR_MESSAGE_MAX]; /* of the other side's certificate */
	enum tls_verdict verdict;
	uint64_t deadline_ns;        /* of the handshake */
	struct buffer in, out, up, down;
	uint8_t first[4];            /* bytes that came from the other host */
	size_t n_first;
	bool net_ended;              /* no more bytes come from there, */
	bool peer_ended;             /* after a close_notify */
	bool net_broken, net_shut;
	bool engine_ended, engine_gone; /* it sends nothing more; it has closed */
	bool told_end;               /* the engine, of peer_ended */
};

static bool calls(const struct relay *r)
{
	return r->request.kind == TLS_CONNECT || r->request.kind == TLS_ASK;
}

static uint8_t buffers[4][WIRE_BYTES];

static void use_buffers(struct relay *r)
{
	struct buffer *const all[] = { &r->in, &r->out, &r->up, &r->down };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		*all[i] = (struct buffer){ .data = buffers[i] };
}

/* --- the other host --- */

/* Reads what has come, if nothing is left. */
static void fill(struct relay *r)
{
	ssize_t n;

	if (r->in.have || r->net_ended || r->net < 0)
		return;
	n = recv(r->net, r->in.data, WIRE_BYTES, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		r->net_ended = true;
		r->net_broken = r->net_broken || n < 0;
		return;
	}
	r->in.at = 0;
	r->in.have = (size_t)n;
	if (r->n_first < sizeof(r->first)) {
		size_t more = MIN(sizeof(r->first) - r->n_first, (size_t)n);

		memcpy(r->first + r->n_first, r->in.data, more);
		r->n_first += more;
	}
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *to, size_t len)
{
	struct relay *r = ptr;

	fill(r);
	if (!r->in.have) {
		if (r->net_ended)
			return 0;
		gnutls_transport_set_errno(r->session, EAGAIN);
		return -1;
	}
	len = MIN(len, r->in.have);
	memcpy(to, r->in.data + r->in.at, len);
	r->in.at += len;
	r->in.have -= len;
	return (ssize_t)len;
}

/* There is room: only what fits is given to GnuTLS at once. An alert at a bad time may find none. */
static ssize_t push(gnutls_transport_ptr_t ptr, const void *data, size_t len)
{
	struct relay *r = ptr;

	if (r->out.at + r->out.have + len > WIRE_BYTES) {
		gnutls_transport_set_errno(r->session, EAGAIN);
		return -1;
	}
	memcpy(r->out.data + r->out.at + r->out.have, data, len);
	r->out.have += len;
	return (ssize_t)len;
}

/* Sends from a buffer what goes; false: there is no other end any more. */
static bool pass_on(int fd, struct buffer *b)
{
	while (b->have) {
		ssize_t n = send(fd, b->data + b->at, b->have, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		b->at += (size_t)n;
		b->have -= (size_t)n;
	}
	b->at = 0;
	return true;
}

/* --- the handshake --- */

/* Called by GnuTLS when the other side's certificates are there. */
static int judge(gnutls_session_t session)
{
	struct relay *r = gnutls_session_get_ptr(session);
	bool calling = calls(r);
	unsigned n = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n);
	char address[CONN_ADDRESS_TEXT];

	r->verdict = chain ? tls_judge(r->id, chain, n, calling ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT, r->names) : TLS_NONE;
	if (r->verdict == TLS_GOOD && calling) {
		snprintf(address, sizeof(address), "%s", r->peer);
		address[strcspn(address, ":")] = 0;
		if (!tls_names_have(r->names, r->request.name[0] ? r->request.name : address))
			r->verdict = TLS_OTHER_NAME;
	}
	return r->verdict == TLS_GOOD ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

static gnutls_alert_description_t alert_of(enum tls_verdict verdict)
{
	switch (verdict) {
	case TLS_REVOKED:
		return GNUTLS_A_CERTIFICATE_REVOKED;
	case TLS_EXPIRED:
	case TLS_NOT_YET:
		return GNUTLS_A_CERTIFICATE_EXPIRED;
	case TLS_STRANGER:
		return GNUTLS_A_UNKNOWN_CA;
	case TLS_OTHER_NAME:
		return GNUTLS_A_ACCESS_DENIED;
	case TLS_NONE:
		return GNUTLS_A_CERTIFICATE_REQUIRED;
	default:
		return GNUTLS_A_CERTIFICATE_UNKNOWN;
	}
}

/* What the other side says of our certificate. */
static const char *alert_text(int alert)
{
	switch (alert) {
	case GNUTLS_A_CERTIFICATE_REVOKED:
		return tls_verdict_text(TLS_REVOKED);
	case GNUTLS_A_CERTIFICATE_EXPIRED:
		return "it has expired, or is not valid yet (`godwit pki issue` makes a new one; do the clocks agree?)";
	case GNUTLS_A_UNKNOWN_CA:
		return tls_verdict_text(TLS_STRANGER);
	case GNUTLS_A_ACCESS_DENIED:
		return tls_verdict_text(TLS_OTHER_NAME);
	case GNUTLS_A_CERTIFICATE_UNKNOWN:
		return tls_verdict_text(TLS_OLD_LIST);
	case GNUTLS_A_CERTIFICATE_REQUIRED:
		return tls_verdict_text(TLS_NONE);
	default:
		return NULL;
	}
}

#define SPEAKS_PLAIN "%s speaks without TLS, and this node has [tls] in its godwit.conf: set it there as well (`godwit pki issue`), or remove it here"

static bool is_plain(const struct relay *r)
{
	static const uint8_t magic[4] = { 'G', 'D', 'W', '1' };

	return r->n_first == sizeof(magic) && !memcmp(r->first, magic, sizeof(magic));
}

/* A sentence about a handshake that GnuTLS has ended. */
static int explain(struct relay *r, int code, struct err *e)
{
	int alert = code == GNUTLS_E_FATAL_ALERT_RECEIVED ? (int)gnutls_alert_get(r->session) : -1;

	if (is_plain(r))
		return err_set(e, -EPROTO, SPEAKS_PLAIN, r->peer);
	if (r->n_first && r->first[0] != HANDSHAKE_RECORD)
		return err_set(e, -EPROTO, "%s speaks no TLS: is it a godwitd?", r->peer);
	if (r->verdict == TLS_OTHER_NAME)
		return err_set(e, -EACCES, "%s was called%s%s, and has the certificate of %s: `godwit pki issue --address` puts addresses into it, [nodes] says which node has which", r->peer,
			       r->request.name[0] ? " as " : "", r->request.name, *r->names ? r->names : "nobody");
	if (r->verdict != TLS_GOOD)
		return err_set(e, -EACCES, "the certificate of %s%s%s is not accepted: %s", r->peer, *r->names ? ", " : "", r->names, tls_verdict_text(r->verdict));
	if (alert >= 0 && alert_text(alert))
		return err_set(e, -EACCES, "%s does not accept this node's certificate: %s", r->peer, alert_text(alert));
	if (alert >= 0)
		return err_set(e, -EPROTO, "TLS with %s: it says: %s", r->peer, gnutls_alert_get_name((gnutls_alert_description_t)alert));
	if (r->net_ended)
		return err_set(e, -ECONNRESET, "%s ended the connection in the handshake of TLS", r->peer);
	return err_set(e, -EPROTO, "TLS with %s: %s", r->peer, gnutls_strerror(code));
}

/* Until something comes from the other host, or can be sent there. The engine's end is an end. */
static int wait_net(struct relay *r, short events, struct err *e)
{
	struct pollfd p[2] = { { r->net, events, 0 }, { r->request.kind == TLS_ASK ? -1 : r->local, 0, 0 } };
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	if (now >= r->deadline_ns)
		return err_set(e, -ETIMEDOUT, "%s: no answer in time in the handshake of TLS", r->peer);
	if (poll(p, 2, (int)((r->deadline_ns - now + 999999) / 1000000)) < 0 && errno != EINTR)
		return err_sys(e, -errno, "poll");
	return p[1].revents & (POLLHUP | POLLERR) ? err_set(e, -ECANCELED, "given up") : 0;
}

static int wait_connected(struct relay *r, struct err *e)
{
	struct sockaddr_in other;
	int error = 0;

	while (getpeername(r->net, (struct sockaddr *)&other, &(socklen_t){ sizeof(other) }) < 0) {
		if (wait_net(r, POLLOUT, e) < 0)
			return e->code;
		if (getsockopt(r->net, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){ sizeof(error) }) < 0)
			error = errno;
		if (error == ECONNREFUSED)
			return err_set(e, -error, "connecting to %s: connection refused: does godwitd run there?", r->peer);
		if (error)
			return err_sys(e, -error, "connecting to %s", r->peer);
	}
	return 0;
}

static int flush(struct relay *r, struct err *e)
{
	int ret = 0;

	while (r->out.have && ret == 0) {
		if (!pass_on(r->net, &r->out))
			return err_set(e, -ECONNRESET, "%s ended the connection in the handshake of TLS", r->peer);
		ret = r->out.have ? wait_net(r, POLLOUT, e) : 0;
	}
	return ret;
}

/* One operation of GnuTLS, until it is done; e is not NULL. */
static int complete(struct relay *r, int (*step)(struct relay *r), struct err *e)
{
	for (;;) {
		int code = step(r);

		if (code >= 0)
			return flush(r, e);
		if (code != GNUTLS_E_AGAIN && code != GNUTLS_E_INTERRUPTED && gnutls_error_is_fatal(code)) {
			explain(r, code, e);
			if (r->verdict != TLS_GOOD)
				(void)gnutls_alert_send(r->session, GNUTLS_AL_FATAL, alert_of(r->verdict));
			else if (code != GNUTLS_E_FATAL_ALERT_RECEIVED && r->n_first && !is_plain(r))
				(void)gnutls_alert_send_appropriate(r->session, code);
			(void)flush(r, NULL);
			return e->code;
		}
		if (flush(r, e) < 0 || (!r->in.have && wait_net(r, POLLIN, e) < 0))
			return e->code;
	}
}

static int shake(struct relay *r)
{
	/* Not a byte of another protocol gets to a parser. */
	fill(r);
	if (r->n_first && r->first[0] != HANDSHAKE_RECORD && (!calls(r) || r->first[0] == 'G'))
		return GNUTLS_E_UNEXPECTED_PACKET;
	return gnutls_handshake(r->session);
}

static int say_welcome(struct relay *r)
{
	return (int)gnutls_record_send(r->session, WELCOME, sizeof(WELCOME) - 1);
}

static int hear_welcome(struct relay *r)
{
	char word[sizeof(WELCOME) - 1];
	ssize_t n = gnutls_record_recv(r->session, word, sizeof(word));

	if (n < 0)
		return (int)n;
	return n == (ssize_t)sizeof(word) && !memcmp(word, WELCOME, sizeof(word)) ? 0 : GNUTLS_E_UNEXPECTED_PACKET;
}

static int start_session(struct relay *r, struct err *e)
{
	bool calling = calls(r);
	int code = gnutls_init(&r->session, (calling ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);

	if (code >= 0)
		code = gnutls_priority_set_direct(r->session, PRIORITIES, NULL);
	if (code >= 0)
		code = gnutls_credentials_set(r->session, GNUTLS_CRD_CERTIFICATE, r->id->credentials);
	if (code < 0)
		return err_set(e, -EIO, "TLS: %s", gnutls_strerror(code));
	gnutls_certificate_set_verify_function(r->id->credentials, judge);
	gnutls_certificate_server_set_request(r->session, r->request.kind == TLS_SERVE ? GNUTLS_CERT_IGNORE : GNUTLS_CERT_REQUIRE);
	gnutls_session_set_ptr(r->session, r);
	gnutls_transport_set_ptr(r->session, r);
	gnutls_transport_set_push_function(r->session, push);
	gnutls_transport_set_pull_function(r->session, pull);
	return 0;
}

/* All until bytes of the engine go. A caller without TLS is told in its own words, which are made here and nothing is read for. */
static int greet(struct relay *r, struct err *e)
{
	bool calling = calls(r);

	r->deadline_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)r->request.timeout_ms * 1000000ull;
	conn_address_text(&r->request.peer, r->peer);
	if (calling && wait_connected(r, e) < 0)
		return e->code;
	if (start_session(r, e) < 0 || complete(r, shake, e) < 0) {
		if (r->request.kind == TLS_ACCEPT && is_plain(r) && frame_send_error(r->net, -EPROTO, "this node has [tls] in its godwit.conf and takes nothing without TLS: set it where you call from as well, "
								"with a certificate by `godwit pki issue`, or remove it here", NULL) == 0) {
			shutdown(r->net, SHUT_WR);
			while (recv(r->net, r->in.data, WIRE_BYTES, MSG_DONTWAIT) > 0) /* a close with unread bytes would take the words with it */
				;
		}
		return e->code;
	}
	return r->request.kind == TLS_SERVE ? 0 : complete(r, calling ? hear_welcome : say_welcome, e);
}

static void send_greeting(const struct relay *r, const struct err *e)
{
	struct tls_greeting g = { .magic = TLS_MAGIC, .code = e->code };

	snprintf(g.text, sizeof(g.text), "%s", e->code < 0 ? e->message : r->names);
	(void)!send(r->local, &g, sizeof(g), MSG_NOSIGNAL);
}

/* --- bytes --- */

/* From the engine. A byte that has come with a descriptor is the last of what was read (unix(7)), and no data (tls_make_patient). */
static ssize_t read_local(struct relay *r)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct iovec iov = { r->up.data, PLAIN_BYTES };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(r->local, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	bool word = false;

	if (n <= 0)
		return n < 0 ? -errno : 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		word = c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS;
		for (size_t i = 0; word && i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			close(fd);
		}
	}
	if (word)
		conn_make_patient(r->net);
	return word && n == 1 ? -EAGAIN : n - word;
}

/* What the engine has sent becomes records. */
static void encrypt(struct relay *r)
{
	ssize_t n;

	if (r->out.have || r->engine_ended || r->net < 0)
		return;
	n = read_local(r);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n > 0) {
		for (size_t at = 0; at < (size_t)n; at += RECORD_BYTES)
			if (gnutls_record_send(r->session, r->up.data + at, MIN((size_t)n - at, (size_t)RECORD_BYTES)) < 0)
				r->net_broken = true;
		return;
	}
	r->engine_ended = true;
	if (n < 0) /* it has closed with something unread: so do we, without a word */
		r->net_broken = r->engine_gone = true;
	else
		(void)gnutls_bye(r->session, GNUTLS_SHUT_WR);
}

/* What has come becomes bytes for the engine. */
static void decrypt(struct relay *r)
{
	while (!r->net_broken && !r->peer_ended && r->down.at + r->down.have + RECORD_BYTES <= PLAIN_BYTES) {
		ssize_t n = gnutls_record_recv(r->session, r->down.data + r->down.at + r->down.have, RECORD_BYTES);

		if (n > 0)
			r->down.have += (size_t)n;
		else if (n == 0)
			r->peer_ended = r->net_ended = true;
		else if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			return;
		else if (gnutls_error_is_fatal((int)n))
			r->net_broken = true;
	}
}

static void tell_end(struct relay *r)
{
	if (!r->peer_ended || r->down.have || r->told_end)
		return;
	r->told_end = true;
	shutdown(r->local, SHUT_WR);
}

/* After both have ended, or in the middle: what is still to be read would make a reset of the close. */
static void end_net(struct relay *r)
{
	if (r->net < 0)
		return;
	if (!r->net_broken)
		while (recv(r->net, r->in.data, WIRE_BYTES, MSG_DONTWAIT) > 0)
			;
	else
		(void)!setsockopt(r->net, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
	close_fdp(&r->net);
}

static void step(struct relay *r)
{
	if (r->net >= 0 && !r->engine_gone) {
		if (!r->down.have)
			decrypt(r);
		if (r->down.have && !pass_on(r->local, &r->down))
			r->engine_gone = true;
	}
	if (r->engine_gone)
		r->down.have = 0;
	encrypt(r);
	if (r->net >= 0 && !r->net_broken && !pass_on(r->net, &r->out))
		r->net_broken = true;
	if (r->engine_ended && !r->out.have && !r->net_shut && r->net >= 0 && !r->net_broken) {
		r->net_shut = true;
		shutdown(r->net, SHUT_WR);
	}
	tell_end(r);
	if (r->peer_ended && r->net_shut)
		end_net(r);
}

/* Whether there is anything left to do. The engine's end is waited for even when the connection is over: so that it can tell an orderly end from others. */
static bool goes_on(const struct relay *r)
{
	if (r->net_broken)
		return !r->engine_gone && r->down.have;
	if (r->engine_gone)
		return r->net >= 0 && !r->net_shut;
	return true;
}

static void pump(struct relay *r)
{
	for (step(r); goes_on(r); step(r)) {
		struct pollfd net = { .fd = r->net_broken ? -1 : r->net }, local = { .fd = r->engine_gone ? -1 : r->local };
		struct pollfd p[2];

		if (!r->down.have && !r->net_ended && !r->engine_gone)
			net.events |= POLLIN;
		if (r->out.have)
			net.events |= POLLOUT;
		if (!r->out.have && !r->engine_ended)
			local.events |= POLLIN;
		if (r->down.have)
			local.events |= POLLOUT;
		p[0] = net;
		p[1] = local;
		/* What GnuTLS has already read is no event of a socket. */
		if (poll(p, 2, (r->in.have && !r->down.have && !r->peer_ended) || (r->engine_gone && !r->engine_ended && !r->out.have) ? 0 : -1) < 0 && errno != EINTR)
			return;
		if (p[1].revents & (POLLHUP | POLLERR))
			r->engine_gone = true;
		if (p[0].revents & POLLERR || (p[0].revents & POLLHUP && r->net_ended && !r->peer_ended))
			r->net_broken = true;
	}
}

/* --- questions --- */

/* A connection for one question. What comes back, or nothing. */
static size_t ask_once(struct relay *r, const uint8_t *question, size_t len, uint8_t answer[TLS_ANSWER_MAX])
{
	struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	struct err e = ERR_INIT;
	size_t have = 0;
	bool ended = false;

	use_buffers(r);
	r->net_ended = r->peer_ended = r->net_broken = false;
	r->n_first = 0;
	r->verdict = TLS_GOOD;
	if ((connect(r->net, (struct sockaddr *)&r->request.peer, sizeof(r->request.peer)) == 0 || errno == EINPROGRESS) && greet(r, &e) == 0 &&
	    gnutls_record_send(r->session, question, len) == (ssize_t)len && flush(r, &e) == 0) {
		while (!ended && have < TLS_ANSWER_MAX) {
			ssize_t n = gnutls_record_recv(r->session, answer + have, TLS_ANSWER_MAX - have);

			ended = n == 0 || (n < 0 && n != GNUTLS_E_AGAIN && n != GNUTLS_E_INTERRUPTED && gnutls_error_is_fatal((int)n));
			have += n > 0 ? (size_t)n : 0;
			if (n < 0 && !ended && wait_net(r, POLLIN, &e) < 0)
				ended = true;
		}
	}
	if (r->session)
		gnutls_deinit(r->session);
	r->session = NULL;
	(void)connect(r->net, &nowhere, sizeof(nowhere));
	return have;
}

static void answer_questions(struct relay *r)
{
	static const uint8_t none[16];
	uint8_t question[QUESTION_MAX], answer[TLS_ANSWER_MAX];
	ssize_t n;

	while ((n = recv(r->local, question, sizeof(question), 0)) > 0) {
		size_t len = ask_once(r, question, (size_t)n, answer);

		if (send(r->local, len ? answer : none, len ? len : sizeof(none), MSG_NOSIGNAL) < 0)
			return;
	}
}

/* --- the process --- */

static int take_request(struct relay *r)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = { &r->request, sizeof(r->request) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct pollfd p = { r->local, POLLIN, 0 };
	const struct cmsghdr *c;

	if (poll(&p, 1, REQUEST_MS) <= 0 || recvmsg(r->local, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != (ssize_t)sizeof(r->request) || !(c = CMSG_FIRSTHDR(&m)) ||
	    c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
		return -EPROTO;
	memcpy(&r->net, CMSG_DATA(c), sizeof(r->net));
	r->request.name[TLS_NODE_MAX] = 0;
	return r->request.magic == TLS_MAGIC && r->request.kind <= TLS_SERVE ? 0 : -EPROTO;
}

static int give_up_rights(const struct relay *r, struct err *e)
{
	static const int more[] = { SYS_recvmsg, SYS_recvfrom, SYS_sendto, SYS_sendmsg, SYS_shutdown, SYS_setsockopt, SYS_getsockopt, SYS_getpeername, SYS_getsockname, SYS_connect };

	prctl(PR_SET_NAME, r->request.kind == TLS_ASK ? "godwit-tls-ask" : "godwit-tls-link");
	prctl(PR_SET_DUMPABLE, 0);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	/* The last one only where a connection is made again and again. */
	return confine(more, ARRAY_SIZE(more) - (r->request.kind != TLS_ASK), e);
}

int tls_relay_run(struct tls_identity *id, int local)
{
	static struct relay r;
	struct err e = ERR_INIT;

	r = (struct relay){ .id = id, .net = -1, .local = local };
	use_buffers(&r);
	if (take_request(&r) < 0)
		return 1;
	(void)fcntl(r.net, F_SETFL, fcntl(r.net, F_GETFL) | O_NONBLOCK);
	if (give_up_rights(&r, &e) < 0) {
		send_greeting(&r, &e);
		return 1;
	}
	if (r.request.kind == TLS_ASK) {
		answer_questions(&r);
		return 0;
	}
	if (greet(&r, &e) == 0) {
		gnutls_credentials_clear(r.session);
		tls_identity_free(id);
	}
	if (e.code == 0) {
		send_greeting(&r, &e);
		pump(&r);
		end_net(&r);
	} else {
		/* First the other side, so that it knows when this one does. */
		close_fdp(&r.net);
		send_greeting(&r, &e);
	}
	if (r.session)
		gnutls_deinit(r.session);
	close_fdp(&r.local);
	return e.code < 0;
}
