// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * main.c - godwit-gate; see gate.h
 *
 * godwit-gate LISTENER TLS-SOCKET API-SOCKET TOKENS: a descriptor and three paths. It is root to read the tokens and to become their users, and keeps only the capabilities for that; of what comes from outside it
 * reads tokens, of a fixed length.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/confine.h"
#include "base/log.h"
#include "base/util.h"
#include "gate/gate.h"
#include "wire/tls.h"

#define VISITS_MAX 64u
#define VISITS_EACH_MAX 16u /* from one address */
#define FIXED 1u            /* the listener */

static struct {
	int fd; /* to the visit; -1: none */
	struct in_addr from;
} visits[VISITS_MAX];
static const char *api_path, *tokens_path;

/* --- in a child that becomes the user --- */

static int become(const char *user, struct err *e)
{
	const struct passwd *p = getpwnam(user);

	if (!p)
		return err_set(e, -ENOENT, "there is no user %s", user);
	if (initgroups(user, p->pw_gid) < 0 || setresgid(p->pw_gid, p->pw_gid, p->pw_gid) < 0 || setresuid(p->pw_uid, p->pw_uid, p->pw_uid) < 0)
		return err_sys(e, -errno, "becoming %s", user);
	return 0;
}

static int become_nobody(struct err *e)
{
	if (setgroups(0, NULL) < 0 || setresgid(CONFINE_USER, CONFINE_USER, CONFINE_USER) < 0 || setresuid(CONFINE_USER, CONFINE_USER, CONFINE_USER) < 0)
		return err_sys(e, -errno, "becoming nobody");
	return 0;
}

static int connect_api(struct err *e)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", api_path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return err_sys(e, -errno, "%s", api_path);
	return take_fd(&fd);
}

static void send_connection(int visit, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec data = { .iov_base = (char[]){ 'Y' }, .iov_len = 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	*c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	(void)!sendmsg(visit, &m, MSG_NOSIGNAL);
}

static int admit(int visit, const char *user)
{
	struct err e = ERR_INIT;
	cleanup_close int fd = -1;

	if ((user ? become(user, &e) : become_nobody(&e)) == 0)
		fd = connect_api(&e);
	if (fd >= 0) {
		send_connection(visit, fd);
		return 0;
	}
	log_error("event=gate-failed user=%s error=\"%s\"", user ? user : "nobody", e.message);
	(void)!send(visit, "E", 1, MSG_NOSIGNAL);
	return 1;
}

/* --- the gate --- */

static void answer(size_t i, const struct gate_question *question)
{
	char user[TOKEN_USER_MAX + 1] = "", from[INET_ADDRSTRLEN] = "";
	struct err e = ERR_INIT;
	int r = question->token[0] ? tokens_find(tokens_path, question->token, user, &e) : 0;

	if (r < 0) {
		inet_ntop(AF_INET, &visits[i].from, from, sizeof(from));
		log_warning("event=gate-refused from=%s error=\"%s\"", from, e.message);
		(void)!send(visits[i].fd, "N", 1, MSG_NOSIGNAL);
		return;
	}
	if (fork() == 0)
		_exit(admit(visits[i].fd, question->token[0] ? user : NULL));
}

/* One question, then nothing more is heard of it. */
static void hear(size_t i)
{
	struct gate_question question;
	ssize_t n = recv(visits[i].fd, &question, sizeof(question), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == (ssize_t)sizeof(question) && memchr(question.token, 0, sizeof(question.token)))
		answer(i, &question);
	else if (n > 0)
		log_warning("event=gate-odd error=\"what a visit asks is no question\"");
	explicit_bzero(&question, sizeof(question));
	if (n <= 0)
		close_fdp(&visits[i].fd);
}

/* A place for one from there, or VISITS_MAX. */
static size_t find_place(struct in_addr from)
{
	size_t place = VISITS_MAX;
	unsigned theirs = 0;

	for (size_t i = 0; i < VISITS_MAX; i++) {
		if (visits[i].fd < 0)
			place = i;
		else
			theirs += visits[i].from.s_addr == from.s_addr;
	}
	return theirs < VISITS_EACH_MAX ? place : VISITS_MAX;
}

static void let_in(int listener)
{
	struct sockaddr_in peer = { 0 };
	socklen_t len = sizeof(peer);
	cleanup_close int net = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK), relay = -1;
	size_t place = find_place(peer.sin_addr);
	struct err e = ERR_INIT;
	int ends[2];

	if (net < 0 || place == VISITS_MAX)
		return;
	relay = tls_begin(TLS_SERVE, net, &peer, TLS_HANDSHAKE_MS, &e);
	if (relay < 0) {
		log_error("event=gate-failed error=\"%s\"", e.message);
		return;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return;
	if (fork() == 0) {
		close(listener);
		close(net);
		close(ends[0]);
		for (size_t i = 0; i < VISITS_MAX; i++)
			close_fdp(&visits[i].fd);
		_exit(visit_run(relay, ends[1]));
	}
	close(ends[1]);
	visits[place].fd = ends[0];
	visits[place].from = peer.sin_addr;
}

static void serve(int listener)
{
	struct pollfd p[FIXED + VISITS_MAX] = { { listener, POLLIN, 0 } };

	for (size_t i = 0; i < VISITS_MAX; i++)
		p[FIXED + i] = (struct pollfd){ visits[i].fd, POLLIN, 0 };
	if (poll(p, FIXED + VISITS_MAX, -1) < 0)
		return;
	for (size_t i = 0; i < VISITS_MAX; i++)
		if (p[FIXED + i].revents)
			hear(i);
	if (p[0].revents)
		let_in(listener);
}

int main(int argc, char **argv)
{
	int listener;

	if (argc != 5) {
		fputs("godwit-gate is started by godwitd: set listen in [api] of godwit.conf(5)\n", stderr);
		return 2;
	}
	listener = atoi(argv[1]);
	tls_use(argv[2], NULL);
	api_path = argv[3];
	tokens_path = argv[4];
	for (size_t i = 0; i < VISITS_MAX; i++)
		visits[i].fd = -1;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); /* nobody waits for visits */
	confine_starter();
	for (;;)
		serve(listener);
}
