// SPDX-License-Identifier: GPL-2.0-or-later
/* unix.c - victims about unix sockets: names, connections, accept queues, queues with descriptors and credentials in flight */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
static int fd[64];

struct name {
	struct sockaddr_un a;
	socklen_t len;
};

static struct name path_name(const char *what)
{
	struct name n = { .a.sun_family = AF_UNIX };

	must(strlen(beside(what)) < sizeof(n.a.sun_path));
	strcpy(n.a.sun_path, beside(what));
	n.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(n.a.sun_path) + 1);
	return n;
}

static struct name abstract_name(const char *what)
{
	struct name n = { .a.sun_family = AF_UNIX };

	n.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
		(size_t)snprintf(n.a.sun_path + 1, sizeof(n.a.sun_path) - 1, "victim-%s-%d", what, getpid()));
	return n;
}

static int bound(int type, const struct name *n)
{
	int s = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	must(s >= 0 && !bind(s, (const void *)&n->a, n->len));
	return s;
}

static int connected(int type, const struct name *n)
{
	int s = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	must(s >= 0 && !connect(s, (const void *)&n->a, n->len));
	return s;
}

static void expect_name(const char *what, int s, int (*call)(int, struct sockaddr *, socklen_t *), const struct name *n)
{
	struct name got = { .len = sizeof(got.a) };
	socklen_t len = n ? n->len : sizeof(sa_family_t);

	if (call(s, (void *)&got.a, &got.len))
		fail("%s: errno %d", what, errno);
	else if (got.len != len || (n && memcmp(&got.a, &n->a, len)))
		fail("%s, expected %s (%u bytes), got %s (%u bytes)", what, n ? n->a.sun_path + !n->a.sun_path[0] : "", len,
			got.a.sun_path + !got.a.sun_path[0], got.len);
}

static void say(int s, const char *text)
{
	must(send(s, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

static void hear(const char *what, int s, const char *text)
{
	char buf[300] = "";
	ssize_t n = recv(s, buf, sizeof(buf) - 1, MSG_DONTWAIT);

	if (n != (ssize_t)strlen(text) || memcmp(buf, text, (size_t)n))
		fail("%s, expected '%s', got '%s' (%zd, errno %d)", what, text, buf, n, errno);
}

static void silent(const char *what, int s)
{
	char c;
	ssize_t n = recv(s, &c, 1, MSG_DONTWAIT);

	if (n >= 0 || errno != EAGAIN)
		fail("%s: expected nothing, got %zd, errno %d", what, n, errno);
}

/* ---- connected by name ---- */

static struct name names[16];

/* A listener, a client without a name and one with a name, both accepted, with data both ways. */
static void connected_setup(void)
{
	for (int i = 0; i < 4; i++) {
		int type = i % 2 ? SOCK_SEQPACKET : SOCK_STREAM, *f = &fd[8 * i];

		names[2 * i] = i < 2 ? path_name(i ? "q" : "s") : abstract_name(i % 2 ? "q" : "s");
		names[2 * i + 1] = i < 2 ? path_name(i ? "qc" : "sc") : abstract_name(i % 2 ? "qc" : "sc");
		f[0] = bound(type, &names[2 * i]);
		must(!listen(f[0], 5));
		f[1] = connected(type, &names[2 * i]);
		f[2] = accept4(f[0], NULL, NULL, SOCK_CLOEXEC);
		f[3] = bound(type, &names[2 * i + 1]);
		must(!connect(f[3], (const void *)&names[2 * i].a, names[2 * i].len));
		f[4] = accept4(f[0], NULL, NULL, SOCK_CLOEXEC);
		must(f[2] >= 0 && f[4] >= 0);
		say(f[1], "to the server");
		say(f[1], ", twice");
		say(f[4], "to the client");
	}
}

static void connected_check(void)
{
	for (int i = 0; i < 4; i++) {
		int *f = &fd[8 * i], c, a;

		expect_name("name of a listener", f[0], getsockname, &names[2 * i]);
		expect_name("name of an accepted socket", f[2], getsockname, &names[2 * i]);
		expect_name("name of another accepted socket", f[4], getsockname, &names[2 * i]);
		expect_name("name of a client's peer", f[1], getpeername, &names[2 * i]);
		expect_name("name of a bound client", f[3], getsockname, &names[2 * i + 1]);
		expect_name("name of an accepted socket's peer", f[4], getpeername, &names[2 * i + 1]);
		expect_name("name of a client", f[1], getsockname, NULL);
		hear("queue of an accepted socket", f[2], i % 2 ? "to the server" : "to the server, twice");
		if (i % 2)
			hear("queue of an accepted socket", f[2], ", twice");
		hear("queue of a client", f[3], "to the client");
		silent("client", f[1]);
		say(f[2], "after");
		hear("after the move", f[1], "after");
		/* The listener goes on. */
		c = connected(i % 2 ? SOCK_SEQPACKET : SOCK_STREAM, &names[2 * i]);
		a = accept4(f[0], NULL, NULL, SOCK_CLOEXEC);
		expect(a >= 0);
		say(c, "new");
		hear("a new connection", a, "new");
		close(c);
		close(a);
		close(f[1]);
		expect_u64("end of a connection", 0, (uint64_t)recv(f[2], &c, 1, MSG_DONTWAIT));
		if (names[2 * i].a.sun_path[0]) {
			struct stat st;

			expect(!lstat(names[2 * i].a.sun_path, &st) && S_ISSOCK(st.st_mode));
			unlink(names[2 * i].a.sun_path);
			unlink(names[2 * i + 1].a.sun_path);
		}
	}
}

VICTIM(unix_connected, 0, connected_setup, NULL, connected_check);

/* ---- names without a file ---- */

static void ghost_setup(void)
{
	int gone;

	names[0] = path_name("ghost");
	fd[0] = bound(SOCK_STREAM, &names[0]);
	must(!listen(fd[0], 5));
	fd[1] = connected(SOCK_STREAM, &names[0]);
	fd[2] = accept4(fd[0], NULL, NULL, SOCK_CLOEXEC);
	unlink(names[0].a.sun_path); /* the listener cannot be reached any more */
	names[1] = path_name("ghostd");
	fd[3] = bound(SOCK_DGRAM, &names[1]);
	fd[4] = connected(SOCK_DGRAM, &names[1]); /* reaches it all the same */
	unlink(names[1].a.sun_path);
	names[2] = path_name("gone");
	fd[5] = bound(SOCK_DGRAM, &names[2]);
	/* A sender that is no more. */
	names[3] = path_name("sender");
	gone = bound(SOCK_DGRAM, &names[3]);
	must(sendto(gone, "from the dead", 13, 0, (void *)&names[2].a, names[2].len) == 13);
	close(gone);
	unlink(names[3].a.sun_path);
	say(fd[1], "hello");
	say(fd[4], "datagram");
}

static void ghost_check(void)
{
	struct name from = { .len = sizeof(from.a) };
	char buf[30] = "";

	expect_name("name of a listener without a file", fd[0], getsockname, &names[0]);
	expect_name("name of an accepted socket", fd[2], getsockname, &names[0]);
	expect_name("name of a client's peer", fd[1], getpeername, &names[0]);
	expect_name("name of a datagram socket without a file", fd[3], getsockname, &names[1]);
	expect_name("name of a datagram socket's peer", fd[4], getpeername, &names[1]);
	expect(access(names[0].a.sun_path, F_OK) && access(names[1].a.sun_path, F_OK));
	hear("stream", fd[2], "hello");
	hear("datagram", fd[3], "datagram");
	say(fd[4], "more");
	hear("datagram after the move", fd[3], "more");
	expect(recvfrom(fd[5], buf, sizeof(buf), MSG_DONTWAIT, (void *)&from.a, &from.len) == 13 && !memcmp(buf, "from the dead", 13));
	expect(from.len == names[3].len && !memcmp(&from.a, &names[3].a, from.len));
	unlink(names[2].a.sun_path);
}

VICTIM(unix_ghost, 0, ghost_setup, NULL, ghost_check);

/* ---- accept queues ---- */

static void waiting_setup(void)
{
	for (int i = 0; i < 4; i++) {
		int type = i % 2 ? SOCK_SEQPACKET : SOCK_STREAM, *f = &fd[8 * i];

		names[2 * i] = i < 2 ? path_name(i ? "wq" : "ws") : abstract_name(i % 2 ? "wq" : "ws");
		names[2 * i + 1] = path_name(i == 0 ? "w0" : i == 1 ? "w1" : i == 2 ? "w2" : "w3");
		f[0] = bound(type, &names[2 * i]);
		must(!listen(f[0], 5));
		f[1] = connected(type, &names[2 * i]);
		f[2] = bound(type, &names[2 * i + 1]);
		must(!connect(f[2], (const void *)&names[2 * i].a, names[2 * i].len));
		f[3] = connected(type, &names[2 * i]);
		must(!listen(f[0], 1)); /* fewer than wait already */
	}
}

static void waiting_check(void)
{
	for (int i = 0; i < 4; i++) {
		int *f = &fd[8 * i], a[3];

		expect_name("name of the peer of one who waits", f[1], getpeername, &names[2 * i]);
		for (int k = 0; k < 3; k++) {
			say(f[k + 1], k == 0 ? "first" : k == 1 ? "second" : "third");
			a[k] = accept4(f[0], NULL, NULL, SOCK_CLOEXEC);
			expect(a[k] >= 0);
		}
		expect_name("name of an accepted socket's peer", a[1], getpeername, &names[2 * i + 1]);
		expect_name("name of an accepted socket", a[1], getsockname, &names[2 * i]);
		hear("first in the accept queue", a[0], "first");
		hear("second in the accept queue", a[1], "second");
		hear("third in the accept queue", a[2], "third");
		unlink(names[2 * i + 1].a.sun_path);
		if (names[2 * i].a.sun_path[0])
			unlink(names[2 * i].a.sun_path);
	}
}

VICTIM(unix_accept_queue, 0, waiting_setup, NULL, waiting_check);

/* Something has been said already, and some of those who said it have gone. */
static void sent_setup(void)
{
	struct name n;
	int c;

	for (int i = 0; i < 2; i++) {
		int type = i ? SOCK_SEQPACKET : SOCK_STREAM, *f = &fd[8 * i];

		names[2 * i] = path_name(i ? "sentq" : "sents");
		f[0] = bound(type, &names[2 * i]);
		must(!listen(f[0], 5));
		f[1] = connected(type, &names[2 * i]);
		say(f[1], "early");
		say(f[1], "bird");
		n = abstract_name(i ? "deadq" : "deads");
		names[2 * i + 1] = n;
		c = bound(type, &n);
		must(!connect(c, (const void *)&names[2 * i].a, names[2 * i].len));
		say(c, "and gone");
		close(c);
		c = connected(type, &names[2 * i]);
		close(c);
	}
}

static void sent_check(void)
{
	char c;

	for (int i = 0; i < 2; i++) {
		int *f = &fd[8 * i], a[3];

		for (int k = 0; k < 3; k++) {
			a[k] = accept4(f[0], NULL, NULL, SOCK_CLOEXEC);
			expect(a[k] >= 0);
		}
		hear("said before it was accepted", a[0], i ? "early" : "earlybird");
		if (i)
			hear("said before it was accepted", a[0], "bird");
		say(a[0], "hello");
		hear("an answer", f[1], "hello");
		expect_name("name of a client that has gone", a[1], getpeername, &names[2 * i + 1]);
		hear("said by one who has gone", a[1], "and gone");
		expect_u64("its end", 0, (uint64_t)recv(a[1], &c, 1, MSG_DONTWAIT));
		expect_u64("end of one who said nothing", 0, (uint64_t)recv(a[2], &c, 1, MSG_DONTWAIT));
		unlink(names[2 * i].a.sun_path);
	}
}

VICTIM(unix_accept_queue_sent, 0, sent_setup, NULL, sent_check);

/* ---- ends that are gone ---- */

static void gone_setup(void)
{
	int s[2];

	for (int i = 0; i < 3; i++) {
		must(!socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, s));
		say(s[1], "last words");
		close(s[1]);
		fd[i] = s[0];
		must(!socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, s));
		say(s[0], "unread"); /* leaves a reset behind */
		close(s[1]);
		fd[3 + i] = s[0];
	}
	names[0] = abstract_name("gone");
	fd[6] = bound(SOCK_STREAM, &names[0]);
	must(!listen(fd[6], 5));
	fd[7] = connected(SOCK_STREAM, &names[0]);
	s[0] = accept4(fd[6], NULL, NULL, SOCK_CLOEXEC);
	say(s[0], "bye");
	close(s[0]);
	/* Shut down in one direction each. */
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, &fd[8]));
	say(fd[8], "no more");
	must(!shutdown(fd[8], SHUT_WR));
	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, &fd[10]));
	say(fd[11], "kept");
	must(!shutdown(fd[10], SHUT_RD));
	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, &fd[12]));
	must(!shutdown(fd[12], SHUT_RDWR));
}

static void gone_check(void)
{
	char c;

	for (int i = 0; i < 3; i++) {
		hear("last words", fd[i], "last words");
		if (i == 1) {
			expect(send(fd[i], "x", 1, MSG_NOSIGNAL) < 0 && errno == ECONNREFUSED);
			continue;
		}
		expect_u64("end of a stream whose peer is gone", 0, (uint64_t)recv(fd[i], &c, 1, MSG_DONTWAIT));
		expect(send(fd[i], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
		if (i == 0)
			expect(recv(fd[3 + i], &c, 1, MSG_DONTWAIT) < 0 && errno == ECONNRESET);
		expect_u64("the same after a reset", 0, (uint64_t)recv(fd[3], &c, 1, MSG_DONTWAIT));
	}
	expect_name("name of a peer that is gone", fd[7], getpeername, &names[0]);
	hear("from a peer that is gone", fd[7], "bye");
	expect_u64("then", 0, (uint64_t)recv(fd[7], &c, 1, MSG_DONTWAIT));
	hear("before a shutdown", fd[9], "no more");
	expect_u64("after it", 0, (uint64_t)recv(fd[9], &c, 1, MSG_DONTWAIT));
	say(fd[9], "back");
	hear("the other direction", fd[8], "back");
	hear("read side shut, data before", fd[10], "kept");
	expect(send(fd[11], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
	expect(send(fd[12], "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
}

VICTIM(unix_gone, 0, gone_setup, NULL, gone_check);

/* ---- datagrams ---- */

static void dgram_setup(void)
{
	names[0] = path_name("d0");
	names[1] = abstract_name("d1");
	names[2] = path_name("d2");
	for (int i = 0; i < 3; i++)
		fd[i] = bound(SOCK_DGRAM, &names[i]);
	fd[3] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* no name */
	must(sendto(fd[0], "a", 1, 0, (void *)&names[1].a, names[1].len) == 1);
	must(sendto(fd[2], "", 0, 0, (void *)&names[1].a, names[1].len) == 0);
	must(sendto(fd[2], "", 0, 0, (void *)&names[1].a, names[1].len) == 0);
	must(sendto(fd[3], "nobody", 6, 0, (void *)&names[1].a, names[1].len) == 6);
	must(sendto(fd[1], "b", 1, 0, (void *)&names[0].a, names[0].len) == 1);
	fd[4] = connected(SOCK_DGRAM, &names[0]); /* to one who will take from names[2] only */
	must(!connect(fd[0], (void *)&names[2].a, names[2].len)); /* one way, with a message of another before it */
	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, &fd[5]));
	say(fd[5], "pair");
}

static void expect_from(const char *what, int s, const char *text, const struct name *n)
{
	struct name from = { .len = sizeof(from.a) };
	char buf[100] = "";
	ssize_t got = recvfrom(s, buf, sizeof(buf), MSG_DONTWAIT, (void *)&from.a, &from.len);

	if (got != (ssize_t)strlen(text) || memcmp(buf, text, strlen(text)))
		fail("%s, expected '%s', got '%s' (%zd, errno %d)", what, text, buf, got, errno);
	else if (n ? from.len != n->len || memcmp(&from.a, &n->a, n->len) : from.len != 0)
		fail("sender of %s, expected %s, got %s (%u bytes)", what, n ? n->a.sun_path + !n->a.sun_path[0] : "", from.a.sun_path +
			!from.a.sun_path[0], from.len);
}

static void dgram_check(void)
{
	expect_from("first datagram", fd[1], "a", &names[0]);
	expect_from("an empty datagram", fd[1], "", &names[2]);
	expect_from("another empty datagram", fd[1], "", &names[2]);
	expect_from("a datagram without a sender's name", fd[1], "nobody", NULL);
	silent("datagrams", fd[1]);
	expect_from("a datagram from before the connection", fd[0], "b", &names[1]);
	expect_name("peer of a datagram socket", fd[0], getpeername, &names[2]);
	say(fd[0], "to 2");
	expect_from("from a connected datagram socket", fd[2], "to 2", &names[0]);
	expect(sendto(fd[1], "no", 2, MSG_DONTWAIT, (void *)&names[0].a, names[0].len) < 0 && errno == EPERM);
	expect(send(fd[4], "no", 2, MSG_DONTWAIT) < 0 && errno == EPERM);
	hear("pair", fd[6], "pair");
	say(fd[6], "back");
	hear("pair", fd[5], "back");
	unlink(names[0].a.sun_path);
	unlink(names[2].a.sun_path);
}

VICTIM(unix_dgram, 0, dgram_setup, NULL, dgram_check);

/* ---- in flight ---- */

static void send_fds(int s, const char *text, const int *fds, size_t n, bool cred)
{
	char control[CMSG_SPACE(16 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))] = { 0 };
	struct iovec iov = { (char *)text, strlen(text) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	size_t len = 0;

	if (n) {
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(h), fds, n * sizeof(int));
		len += CMSG_SPACE(n * sizeof(int));
		h = CMSG_NXTHDR(&m, h);
	}
	if (cred) {
		struct ucred c = { getpid(), 1, 2 };

		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_CREDENTIALS;
		h->cmsg_len = CMSG_LEN(sizeof(c));
		memcpy(CMSG_DATA(h), &c, sizeof(c));
		len += CMSG_SPACE(sizeof(c));
	}
	m.msg_controllen = len;
	must(sendmsg(s, &m, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)iov.iov_len);
}

/* Returns how many descriptors came. */
static size_t receive(const char *what, int s, const char *text, int *fds, struct ucred *cred)
{
	char control[CMSG_SPACE(16 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))], buf[100] = "";
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t got = recvmsg(s, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	size_t n = 0;

	if (got != (ssize_t)strlen(text) || memcmp(buf, text, strlen(text)))
		fail("%s, expected '%s', got '%.*s' (%zd, errno %d)", what, text, (int)(got > 0 ? got : 0), buf, got, errno);
	if (got < 0)
		return 0;
	if (cred)
		*cred = (struct ucred){ -1, 0, 0 };
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_type == SCM_RIGHTS) {
			n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(h), n * sizeof(int));
		} else if (h->cmsg_type == SCM_CREDENTIALS && cred) {
			memcpy(cred, CMSG_DATA(h), sizeof(*cred));
		}
	}
	return n;
}

static void flight_setup(void)
{
	int p[2], inner[2], file = open(beside("flying"), O_RDWR | O_CREAT | O_CLOEXEC, 0600), three[3];

	must(file >= 0 && write(file, "contents", 8) == 8);
	for (int i = 0; i < 3; i++) {
		must(!socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, &fd[2 * i]));
		say(fd[2 * i], "plain");
		must(!pipe2(p, O_CLOEXEC) && write(p[1], "in a pipe", 9) == 9);
		three[0] = p[0];
		three[1] = file; /* stays open here, too */
		three[2] = p[1];
		send_fds(fd[2 * i], "with three", three, 3, false);
		close(p[0]);
		close(p[1]);
		/* A socket in flight that has one in flight itself. */
		must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, inner));
		send_fds(inner[0], "inner", &file, 1, false);
		close(inner[0]);
		send_fds(fd[2 * i], "nested", &inner[1], 1, false);
		close(inner[1]);
		say(fd[2 * i], "end");
	}
	fd[10] = file;
}

static void flight_check(void)
{
	char buf[20] = "";

	for (int i = 0; i < 3; i++) {
		int got[16], inner[16], s = fd[2 * i + 1];

		/* In a stream bytes without descriptors end where some come. */
		if (i) {
			hear("before those in flight", s, "plain");
			expect_u64("descriptors in flight", 3, receive("message", s, "with three", got, NULL));
		} else {
			expect_u64("descriptors in flight", 3, receive("stream", s, "plainwith three", got, NULL));
		}
		expect(read(got[0], buf, 20) == 9 && !memcmp(buf, "in a pipe", 9));
		expect(lseek(fd[10], 3 + i, SEEK_SET) == 3 + i && lseek(got[1], 0, SEEK_CUR) == 3 + i);
		expect(write(got[2], "more", 4) == 4 && read(got[0], buf, 20) == 4);
		expect(fcntl(got[0], F_GETFD) == FD_CLOEXEC);
		close(got[2]);
		expect_u64("end of a pipe that was in flight", 0, (uint64_t)read(got[0], buf, 20));
		expect_u64("a socket in flight", 1, receive("nested", s, "nested", got, NULL));
		expect_u64("one in its queue", 1, receive("inner", got[0], "inner", inner, NULL));
		expect(lseek(inner[0], 0, SEEK_CUR) == 3 + i);
		expect_u64("its other end is gone", 0, (uint64_t)recv(got[0], buf, 1, MSG_DONTWAIT));
		hear("behind those in flight", s, "end");
		silent("then", s);
	}
	unlink(beside("flying"));
}

VICTIM(unix_in_flight, 0, flight_setup, NULL, flight_check);

/* ---- epoll sets in flight ---- */

static void watch(int set, int target, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	must(!epoll_ctl(set, EPOLL_CTL_ADD, target, &ev));
}

/* One that watches a pipe of this process's, one that is in flight itself (by a number that is another file's now), and another set; and an empty one. */
static void flight_epoll_setup(void)
{
	int set = epoll_create1(EPOLL_CLOEXEC), empty = epoll_create1(EPOLL_CLOEXEC), flying[2], all[4];

	must(set >= 0 && empty >= 0);
	fd[4] = epoll_create1(EPOLL_CLOEXEC);
	must(fd[4] >= 0 && !pipe2(fd, O_CLOEXEC) && !pipe2(flying, O_CLOEXEC) && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd + 2));
	watch(set, fd[0], EPOLLIN, 0x1111222233334444);
	watch(set, flying[0], EPOLLIN | EPOLLET, 0x5555);
	watch(fd[4], fd[0], EPOLLIN, 0x6666);
	watch(set, fd[4], EPOLLIN, 0x7777);
	all[0] = set;
	all[1] = empty;
	all[2] = flying[0];
	all[3] = flying[1];
	send_fds(fd[2], "sets", all, 4, false);
	for (int i = 0; i < 4; i++)
		close(all[i]);
	fd[5] = eventfd(0, EFD_CLOEXEC);
	must(fd[5] >= 0 && dup2(fd[5], flying[0]) == flying[0]);
	fd[6] = flying[0];
}

static void flight_epoll_check(void)
{
	struct epoll_event ev[4];
	uint64_t all = 0;
	int got[16], n;

	expect_u64("descriptors in flight", 4, receive("message", fd[3], "sets", got, NULL));
	expect_u64("events of a set in flight", 0, (uint64_t)epoll_wait(got[0], ev, 4, 0));
	expect(write(fd[1], "a", 1) == 1 && write(got[3], "b", 1) == 1);
	n = epoll_wait(got[0], ev, 4, 0);
	for (int i = 0; i < n; i++)
		all += ev[i].data.u64;
	expect_u64("events of a set in flight", 3, (uint64_t)n);
	expect_u64("their data", 0x1111222233334444 + 0x5555 + 0x7777, all);
	n = epoll_wait(got[0], ev, 4, 0);
	expect_u64("without the one that is told once", 2, (uint64_t)n);
	expect_u64("events of the empty set", 0, (uint64_t)epoll_wait(got[1], ev, 4, 0));
	/* The number that it was added with. */
	expect(epoll_ctl(got[0], EPOLL_CTL_DEL, fd[6], NULL) < 0 && errno == ENOENT);
	expect(dup2(got[2], fd[6]) == fd[6] && !epoll_ctl(got[0], EPOLL_CTL_DEL, fd[6], NULL));
	expect(!epoll_ctl(got[0], EPOLL_CTL_DEL, fd[0], NULL) && !epoll_ctl(got[0], EPOLL_CTL_DEL, fd[4], NULL));
}

VICTIM(unix_epoll_in_flight, 0, flight_epoll_setup, NULL, flight_epoll_check);

/* ---- credentials ---- */

static void cred_setup(void)
{
	int on = 1;

	for (int i = 0; i < 3; i++) {
		must(!socketpair(AF_UNIX, types[i] | SOCK_CLOEXEC, 0, &fd[2 * i]));
		say(fd[2 * i], "none"); /* nobody wanted any yet */
		must(!setsockopt(fd[2 * i + 1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
		say(fd[2 * i], "mine");
		send_fds(fd[2 * i], "other", NULL, 0, true);
	}
	/* Bound by itself when it sends. */
	fd[6] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(!setsockopt(fd[6], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
	names[0] = abstract_name("cred");
	fd[7] = bound(SOCK_DGRAM, &names[0]);
	must(sendto(fd[6], "auto", 4, 0, (void *)&names[0].a, names[0].len) == 4);
	names[1].len = sizeof(names[1].a);
	must(!getsockname(fd[6], (void *)&names[1].a, &names[1].len) && names[1].len > sizeof(sa_family_t));
}

static void expect_cred(const char *what, int s, const char *text, pid_t pid, uid_t uid, gid_t gid)
{
	struct ucred c;

	receive(what, s, text, NULL, &c);
	if (c.pid != pid || c.uid != uid || c.gid != gid)
		fail("credentials of %s, expected %d %u %u, got %d %u %u", what, pid, uid, gid, c.pid, c.uid, c.gid);
}

static void cred_check(void)
{
	for (int i = 0; i < 3; i++) {
		int value = 0, s = fd[2 * i + 1];
		socklen_t len = sizeof(value);

		expect(!getsockopt(s, SOL_SOCKET, SO_PASSCRED, &value, &len) && value == 1);
		expect_cred("a message sent before", s, "none", 0, 65534, 65534);
		expect_cred("a message", s, "mine", getpid(), getuid(), getgid());
		expect_cred("a message with chosen ones", s, "other", getpid(), 1, 2);
		say(fd[2 * i], "new");
		expect_cred("a new message", s, "new", getpid(), getuid(), getgid());
	}
	expect_name("name that the kernel chose", fd[6], getsockname, &names[1]);
	expect_from("from that", fd[7], "auto", &names[1]);
}

VICTIM(unix_cred, 0, cred_setup, NULL, cred_check);

/* Made by somebody who is no more, whom SO_PEERCRED names. */
static pid_t maker;

static void maker_setup(void)
{
	int via[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, via));
	maker = fork();
	must(maker >= 0);
	if (!maker) {
		int made[2];

		must(!setresgid(12, 12, 12) && !setresuid(11, 11, 11) && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, made));
		send_fds(via[1], "made", made, 2, false);
		_exit(0);
	}
	must(waitpid(maker, NULL, 0) == maker);
	close(via[1]);
	must(receive("made", via[0], "made", fd, NULL) == 2);
	close(via[0]);
}

static void maker_check(void)
{
	struct ucred c;
	socklen_t len = sizeof(c);

	for (int i = 0; i < 2; i++) {
		expect(!getsockopt(fd[i], SOL_SOCKET, SO_PEERCRED, &c, &len));
		if (c.pid != maker || c.uid != 11 || c.gid != 12)
			fail("SO_PEERCRED, expected %d 11 12, got %d %u %u", maker, c.pid, c.uid, c.gid);
	}
	say(fd[0], "still");
	hear("connected", fd[1], "still");
}

VICTIM(unix_maker, 0, maker_setup, NULL, maker_check);

/* ---- large queues, buffer sizes, options ---- */

static uint64_t block[65536 / 8];

static void full_setup(void)
{
	int big = 4 << 20, small = 4608, on = 1, off = 3;
	struct timeval tv = { 7, 500000 };
	ssize_t n;

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, &fd[0]));
	must(!setsockopt(fd[0], SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big)) || !setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big)));
	fd[20] = 0;
	for (;;) {
		fill(block, sizeof(block), (uint64_t)fd[20]);
		n = send(fd[0], block, sizeof(block), MSG_DONTWAIT);
		if (n <= 0)
			break;
		fd[20] += (int)n;
		if (n < (ssize_t)sizeof(block))
			break;
	}
	must(!setsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
	must(!setsockopt(fd[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) && !setsockopt(fd[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, &fd[2]));
	say(fd[2], "abcdef");
	must(!setsockopt(fd[3], SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off)));
	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, &fd[4]));
	must(!setsockopt(fd[5], SOL_SOCKET, SO_TIMESTAMP, &on, sizeof(on)));
	/* As many as the receiver takes. */
	for (fd[21] = 0; send(fd[4], &fd[21], sizeof(int), MSG_DONTWAIT) == sizeof(int); fd[21]++)
		;
}

static void full_check(void)
{
	struct timeval tv = { 0, 0 };
	socklen_t len = sizeof(tv);
	int value = 0, waiting = 0, sum = 0;
	char buf[8] = "";

	expect(!ioctl(fd[1], FIONREAD, &waiting));
	expect_u64("bytes in a full queue", (uint64_t)fd[20], (uint64_t)waiting);
	expect(!getsockopt(fd[1], SOL_SOCKET, SO_RCVTIMEO, &tv, &len) && tv.tv_sec == 7 && tv.tv_usec == 500000);
	len = sizeof(value);
	expect(!getsockopt(fd[0], SOL_SOCKET, SO_SNDBUF, &value, &len));
	expect_u64("SO_SNDBUF", 9216, (uint64_t)value);
	expect(send(fd[0], "x", 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	while (sum < fd[20]) {
		size_t want = (size_t)(fd[20] - sum) < sizeof(block) ? (size_t)(fd[20] - sum) : sizeof(block);

		if (recv(fd[1], block, want, MSG_WAITALL) != (ssize_t)want) {
			fail("reading a full queue at %d: errno %d", sum, errno);
			return;
		}
		verify("a full queue", block, want, (uint64_t)sum);
		sum += (int)want;
	}
	expect(send(fd[0], "x", 1, MSG_DONTWAIT) == 1);
	expect(!getsockopt(fd[3], SOL_SOCKET, SO_PEEK_OFF, &value, &len) && value == 3);
	expect(recv(fd[3], buf, 2, MSG_PEEK) == 2 && !memcmp(buf, "de", 2));
	expect(recv(fd[3], buf, 8, 0) == 6);
	expect(!getsockopt(fd[5], SOL_SOCKET, SO_TIMESTAMP, &value, &len) && value == 1);
	expect(send(fd[4], "x", 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	for (int i = 0; i < fd[21]; i++)
		expect(recv(fd[5], &value, sizeof(value), MSG_DONTWAIT) == sizeof(value) && value == i);
}

VICTIM(unix_full, 0, full_setup, NULL, full_check);

/* ---- connections come and go all the time ---- */

static unsigned rounds;

static void churn_setup(void)
{
	names[0] = path_name("churn");
	fd[0] = bound(SOCK_STREAM, &names[0]);
	must(!listen(fd[0], 5));
	for (int i = 1; i < 9; i++)
		fd[i] = -1;
}

static void churn_work(void)
{
	int at = 1 + 2 * (int)(rounds++ % 4);
	char text[20], got[20] = "";
	ssize_t n;

	snprintf(text, sizeof(text), "%u", rounds);
	if (fd[at] >= 0) {
		n = recv(fd[at + 1], got, sizeof(got), 0);
		if (n <= 0 || atoi(got) != (int)rounds - 4)
			fail("through a connection, expected %d, got '%s' (%zd, errno %d)", (int)rounds - 4, got, n, errno);
		close(fd[at]);
		close(fd[at + 1]);
	}
	fd[at] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd[at], (void *)&names[0].a, names[0].len))
		fail("connect: errno %d", errno);
	fd[at + 1] = accept4(fd[0], NULL, NULL, SOCK_CLOEXEC);
	if (fd[at + 1] < 0 || send(fd[at], text, strlen(text) + 1, MSG_NOSIGNAL) < 0)
		fail("accept, send: errno %d", errno);
	usleep(500);
}

static void churn_check(void)
{
	for (int i = 0; i < 8 && !failed(); i++)
		churn_work();
	unlink(names[0].a.sun_path);
}

VICTIM(unix_churn, V_OPENS, churn_setup, churn_work, churn_check);
