// SPDX-License-Identifier: GPL-2.0-or-later
/* Relays: bytes go through in both directions, an orderly end can be told from others, and nothing comes through before certificates have been accepted. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "pki/pki.h"
#include "wire/conn.h"
#include "wire/frame.h"
#include "wire/tls_relay.h"

#define WAIT_MS 20000

struct place {
	char root[64], pki[96];
};

/* One side of a connection. */
struct end {
	int local; /* the engine's */
	pid_t relay;
	struct err error;
	char names[ERR_MESSAGE_MAX];
};

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	struct err e = ERR_INIT;
	char *files = NULL;

	strcpy(p->root, "/tmp/godwit-tls-XXXXXX");
	if (!mkdtemp(p->root))
		return -1;
	snprintf(p->pki, sizeof(p->pki), "%s/pki", p->root);
	if (pki_init(p->pki, &e) < 0)
		return -1;
	for (int i = 1; i <= 2; i++) {
		const char *address = "127.0.0.1";

		if (pki_issue(p->pki, i == 1 ? "n1" : "n2", &address, i == 2, 10, &files, &e) < 0)
			return -1;
		free(files);
	}
	signal(SIGPIPE, SIG_IGN);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;
	char command[128];
	int status;

	snprintf(command, sizeof(command), "rm -rf %s", p->root);
	status = system(command);
	free(p);
	return status;
}

static struct tls_paths paths_of(const struct place *p, const char *node)
{
	struct tls_paths ret;

	snprintf(ret.ca, TLS_PATH_MAX, "%s/nodes/%s/ca.pem", p->pki, node);
	snprintf(ret.certificate, TLS_PATH_MAX, "%s/nodes/%s/node.pem", p->pki, node);
	snprintf(ret.key, TLS_PATH_MAX, "%s/nodes/%s/node.key", p->pki, node);
	snprintf(ret.crl, TLS_PATH_MAX, "%s/nodes/%s/crl.pem", p->pki, node);
	return ret;
}

/* As godwit-tls and tls_begin do it. `others`: descriptors that the relay must not hold. */
static struct end start(const struct place *p, const char *node, enum tls_kind kind, int net, const char *called, const int *others, size_t n)
{
	struct tls_request request = { .magic = TLS_MAGIC, .kind = kind, .timeout_ms = 3000 };
	struct tls_paths paths = paths_of(p, node);
	struct tls_identity id;
	struct end ret = { .local = -1 };
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { &request, sizeof(request) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int pair[2];

	if (tls_identity_load(&paths, node, &id, &ret.error) < 0)
		fail_msg("%s", ret.error.message);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ret.relay = fork();
	if (ret.relay == 0) {
		close(pair[0]);
		close(net);
		for (size_t i = 0; i < n; i++)
			close(others[i]);
		_exit(tls_relay_run(&id, pair[1]));
	}
	tls_identity_free(&id);
	close(pair[1]);
	ret.local = pair[0];
	getpeername(net, (struct sockaddr *)&request.peer, &(socklen_t){ sizeof(request.peer) });
	snprintf(request.name, sizeof(request.name), "%s", called);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &net, sizeof(int));
	assert_int_equal(sendmsg(ret.local, &m, 0), sizeof(request));
	close(net);
	return ret;
}

static void take_greeting(struct end *end)
{
	struct pollfd p = { end->local, POLLIN, 0 };
	int r;

	do {
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		r = tls_greeting_take(end->local, end->names, &end->error);
	} while (r == -EAGAIN);
}

/* Two ends of a TCP connection on this host. */
static void connect_tcp(int ret[2])
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(bind(l, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(l, 1) == 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&at, &(socklen_t){ sizeof(at) }), 0);
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(ret[0], (struct sockaddr *)&at, sizeof(at)), 0);
	ret[1] = accept(l, NULL, NULL);
	close(l);
}

static void link_nodes(const struct place *p, const char *called, struct end *n1, struct end *n2)
{
	int tcp[2];

	connect_tcp(tcp);
	*n1 = start(p, "n1", TLS_CONNECT, tcp[0], called, &tcp[1], 1);
	*n2 = start(p, "n2", TLS_ACCEPT, tcp[1], "", &n1->local, 1);
	take_greeting(n1);
	take_greeting(n2);
}

static void unlink_node(struct end *end)
{
	int status;

	close_fdp(&end->local);
	assert_int_equal(waitpid(end->relay, &status, 0), end->relay);
}

static void accepted(const struct end *end)
{
	if (end->error.code)
		fail_msg("%s", end->error.message);
}

/* Sends len bytes one way while as many go the other way. */
static void exchange(int a, int b, size_t len)
{
	size_t sent[2] = { 0 }, got[2] = { 0 };
	int fds[2] = { a, b };
	static uint8_t out[100000], in[100000];

	while (got[0] < len || got[1] < len) {
		for (int i = 0; i < 2; i++) {
			size_t n = MIN(len - sent[i], (size_t)1 + sent[i] % 99991);
			ssize_t done;

			for (size_t k = 0; k < n; k++)
				out[k] = (uint8_t)((sent[i] + k) * 7 + (size_t)i);
			done = n ? send(fds[i], out, n, MSG_DONTWAIT) : 0;
			sent[i] += done > 0 ? (size_t)done : 0;
			done = recv(fds[1 - i], in, sizeof(in), MSG_DONTWAIT);
			assert_true(done > 0 || (done < 0 && errno == EAGAIN));
			for (ssize_t k = 0; k < done; k++)
				assert_int_equal(in[k], (uint8_t)((got[i] + (size_t)k) * 7 + (size_t)i));
			got[i] += done > 0 ? (size_t)done : 0;
		}
	}
}

static void test_bytes(void **state)
{
	struct end a, b;

	link_nodes(*state, "n2", &a, &b);
	accepted(&a);
	accepted(&b);
	assert_string_equal(a.names, "n2 127.0.0.1");
	assert_string_equal(b.names, "n1");
	exchange(a.local, b.local, 100);
	assert_int_equal(tls_make_patient(a.local), 0); /* no byte of the stream */
	exchange(a.local, b.local, 5u << 20);
	unlink_node(&a);
	unlink_node(&b);
}

static void wait_end(int fd)
{
	char byte;

	assert_int_equal(recv(fd, &byte, 1, 0), 0);
}

/* A shutdown goes through, the other direction stays; an end after it is orderly as well. */
static void test_orderly_end(void **state)
{
	struct end a, b;
	char word[4];

	link_nodes(*state, "n2", &a, &b);
	assert_int_equal(send(a.local, "last", 4, 0), 4);
	shutdown(a.local, SHUT_WR);
	assert_int_equal(recv(b.local, word, 4, MSG_WAITALL), 4);
	wait_end(b.local);
	assert_true(conn_ended_orderly(b.local));
	assert_int_equal(send(b.local, "back", 4, 0), 4);
	assert_int_equal(recv(a.local, word, 4, MSG_WAITALL), 4);
	unlink_node(&a);
	assert_true(conn_ended_orderly(b.local));
	unlink_node(&b);
	link_nodes(*state, "n2", &a, &b);
	assert_int_equal(send(a.local, "last", 4, 0), 4);
	unlink_node(&a);
	assert_int_equal(recv(b.local, word, 4, MSG_WAITALL), 4);
	wait_end(b.local);
	assert_true(conn_ended_orderly(b.local));
	unlink_node(&b);
}

/* Whoever's relay is killed: neither side takes it for the other's end. */
static void test_killed(void **state)
{
	for (int own = 0; own < 2; own++) {
		struct end a, b;
		struct pollfd p;
		char byte;

		link_nodes(*state, "n2", &a, &b);
		kill(own ? b.relay : a.relay, SIGKILL);
		p = (struct pollfd){ b.local, POLLIN, 0 };
		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		assert_true(recv(b.local, &byte, 1, 0) <= 0);
		assert_false(conn_ended_orderly(b.local));
		unlink_node(&a);
		unlink_node(&b);
	}
}

/* Data that nobody reads is held back at the sender, and what a relay holds is bounded; it is all there later. */
static void test_slow_reader(void **state)
{
	static uint8_t block[65536];
	struct end a, b;
	size_t sent = 0, got = 0;
	ssize_t n;

	link_nodes(*state, "n2", &a, &b);
	for (int quiet = 0; quiet < 20;) {
		n = send(a.local, block, sizeof(block), MSG_DONTWAIT);
		sent += n > 0 ? (size_t)n : 0;
		quiet = n > 0 ? 0 : quiet + 1;
		if (n < 0)
			usleep(10000);
	}
	assert_true(sent < 64u << 20);
	shutdown(a.local, SHUT_WR);
	while ((n = recv(b.local, block, sizeof(block), 0)) > 0)
		got += (size_t)n;
	assert_int_equal(got, sent);
	unlink_node(&a);
	unlink_node(&b);
}

static void refused(const struct end *end, const char *word)
{
	if (!end->error.code || !strstr(end->error.message, word))
		fail_msg("'%s' and not '%s'", end->error.message, word);
}

static void test_name(void **state)
{
	struct end a, b;

	link_nodes(*state, "", &a, &b); /* by its address */
	accepted(&a);
	unlink_node(&a);
	unlink_node(&b);
	link_nodes(*state, "n3", &a, &b);
	refused(&a, "was called as n3, and has the certificate of n2");
	refused(&b, "another node");
	unlink_node(&a);
	unlink_node(&b);
}

static void test_revoked(void **state)
{
	const struct place *p = *state;
	struct err e = ERR_INIT;
	struct end a, b;
	char command[300];
	size_t n;

	/* n1 does not know it yet, and would not start with it: what it has is kept. */
	snprintf(command, sizeof(command), "cp -r %s/nodes/n1 %s/keep", p->pki, p->root);
	assert_int_equal(system(command), 0);
	assert_int_equal(pki_revoke(p->pki, "n1", &n, &e), 0);
	snprintf(command, sizeof(command), "cp %s/keep/crl.pem %s/nodes/n1/crl.pem", p->root, p->pki);
	assert_int_equal(system(command), 0);
	link_nodes(p, "n2", &a, &b);
	refused(&a, "does not accept this node's certificate: it has been revoked");
	refused(&b, ", n1 is not accepted: it has been revoked");
	unlink_node(&a);
	unlink_node(&b);
}

/* Who has no certificate of this cluster says nothing to the engine; who speaks without TLS is told so. */
static void test_plain_caller(void **state)
{
	struct frame f = { 0 };
	struct err e = ERR_INIT;
	struct end b;
	int tcp[2];

	connect_tcp(tcp);
	b = start(*state, "n2", TLS_ACCEPT, tcp[1], "", &tcp[0], 1);
	assert_int_equal(frame_send(tcp[0], FRAME_HELLO, "abc", 3, NULL), 0);
	assert_int_equal(frame_recv_expect(tcp[0], FRAME_HELLO, &f, 1000, WAIT_MS, &e), -EPROTO);
	assert_non_null(strstr(e.message, "takes nothing without TLS"));
	take_greeting(&b);
	refused(&b, "speaks without TLS");
	unlink_node(&b);
	close(tcp[0]);
}

static void test_plain_server(void **state)
{
	struct end a;
	int tcp[2];

	connect_tcp(tcp);
	a = start(*state, "n1", TLS_CONNECT, tcp[0], "n2", &tcp[1], 1);
	assert_int_equal(frame_send_error(tcp[1], -EPROTO, "what is this?", NULL), 0);
	take_greeting(&a);
	refused(&a, "speaks without TLS");
	unlink_node(&a);
	close(tcp[1]);
}

static void test_silent(void **state)
{
	struct end a;
	int tcp[2];

	connect_tcp(tcp);
	a = start(*state, "n1", TLS_CONNECT, tcp[0], "n2", &tcp[1], 1);
	take_greeting(&a);
	refused(&a, "no answer in time");
	unlink_node(&a);
	close(tcp[1]);
}

static void test_files(void **state)
{
	const struct place *p = *state;
	struct tls_paths good = paths_of(p, "n1"), other = paths_of(p, "n2"), mixed = good;
	struct tls_identity id;
	struct err e = ERR_INIT;

	assert_int_equal(tls_identity_load(&good, "n1", &id, &e), 0);
	tls_identity_free(&id);
	assert_int_equal(tls_identity_load(&good, "n2", &id, &e), -EINVAL);
	assert_non_null(strstr(e.message, "is a certificate of n1, and this node is n2"));
	strcpy(mixed.key, other.key);
	assert_int_equal(tls_identity_load(&mixed, "n1", &id, &e), -EINVAL);
	assert_non_null(strstr(e.message, "is not the key of the certificate"));
	assert_int_equal(chmod(good.key, 0640), 0);
	assert_int_equal(tls_identity_load(&good, "n1", &id, &e), -EINVAL);
	assert_non_null(strstr(e.message, "chmod 600"));
	assert_int_equal(chmod(good.key, 0600), 0);
	assert_int_equal(chmod(good.ca, 0664), 0);
	assert_int_equal(tls_identity_load(&good, "n1", &id, &e), -EINVAL);
	assert_int_equal(chmod(good.ca, 0644), 0);
	strcpy(good.crl, "/nowhere");
	assert_int_equal(tls_identity_load(&good, "n1", &id, &e), -ENOENT);
}

/* The relay makes a connection for each question, to whoever listens then. */
static void test_questions(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), net = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), pair[2];
	struct tls_request request = { .magic = TLS_MAGIC, .kind = TLS_ASK, .timeout_ms = 3000, .name = "n2" };
	struct tls_paths paths = paths_of(*state, "n1");
	struct tls_identity id;
	struct err e = ERR_INIT;
	uint8_t answer[600];
	pid_t relay;

	assert_true(bind(l, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(l, 4) == 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&request.peer, &(socklen_t){ sizeof(at) }), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(tls_identity_load(&paths, "n1", &id, &e), 0);
	relay = fork();
	if (relay == 0) {
		close(pair[0]);
		close(l);
		_exit(tls_relay_run(&id, pair[1]));
	}
	close(pair[1]);
	{
		union {
			struct cmsghdr align;
			char space[CMSG_SPACE(sizeof(int))];
		} control = { 0 };
		struct iovec iov = { &request, sizeof(request) };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };

		*CMSG_FIRSTHDR(&m) = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &net, sizeof(int));
		assert_int_equal(sendmsg(pair[0], &m, 0), sizeof(request));
	}
	usleep(20000); /* a question is one message of its own */
	for (int i = 0; i < 3; i++) {
		struct end b;

		assert_int_equal(send(pair[0], "who?", 4, 0), 4);
		if (i == 1) { /* nobody who can answer */
			close(accept(l, NULL, NULL));
			assert_int_equal(recv(pair[0], answer, sizeof(answer), 0), 16);
			assert_int_equal(answer[0], 0);
			continue;
		}
		b = start(*state, "n2", TLS_ACCEPT, accept(l, NULL, NULL), "", pair, 1);
		take_greeting(&b);
		accepted(&b);
		assert_int_equal(recv(b.local, answer, 4, MSG_WAITALL), 4);
		assert_int_equal(send(b.local, "you", 3, 0), 3);
		unlink_node(&b);
		assert_int_equal(recv(pair[0], answer, sizeof(answer), 0), 3);
		assert_memory_equal(answer, "you", 3);
	}
	close(pair[0]);
	assert_int_equal(waitpid(relay, NULL, 0), relay);
	tls_identity_free(&id);
	close(l);
	close(net);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bytes),        TEST(test_orderly_end),  TEST(test_killed), TEST(test_slow_reader), TEST(test_name), TEST(test_revoked),
		TEST(test_plain_caller), TEST(test_plain_server), TEST(test_silent), TEST(test_files),       TEST(test_questions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
