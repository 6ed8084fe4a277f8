// SPDX-License-Identifier: GPL-2.0-or-later
/* visit.c - one connection from outside, and the one request that it is for; see gate.h */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "ask/front.h"
#include "base/confine.h"
#include "base/util.h"
#include "gate/gate.h"
#include "wire/tls.h"

#define PATIENCE_S 5u  /* for some bytes, either way; and */
#define REQUEST_S 15u  /* ... for the whole request */

static int give_away(struct err *e)
{
	static const int more[] = { SYS_recvfrom, SYS_recvmsg, SYS_sendto, SYS_sendmsg, SYS_shutdown, SYS_setsockopt, SYS_getsockopt, SYS_alarm, SYS_setitimer };

	prctl(PR_SET_DUMPABLE, 0);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	return confine(more, ARRAY_SIZE(more), e);
}

/* Until the handshake is over. */
static int wait_greeting(int net, struct err *e)
{
	uint64_t until = clock_ns(CLOCK_MONOTONIC) + (TLS_HANDSHAKE_MS + 1000) * 1000000ull;
	char names[ERR_MESSAGE_MAX];
	int r;

	while ((r = tls_greeting_take(net, names, e)) == -EAGAIN && clock_ns(CLOCK_MONOTONIC) < until) {
		struct pollfd p = { net, POLLIN, 0 };

		(void)poll(&p, 1, TLS_HANDSHAKE_MS);
	}
	return r;
}

/* A connection to api.sock; -EACCES: that token is nobody's. */
static int ask_gate(int gate, const char *token)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct gate_question question = { 0 };
	char byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes) };
	const struct cmsghdr *c;
	int fd;

	if (strlen(token) >= sizeof(question.token))
		return -EACCES;
	memcpy(question.token, token, strlen(token));
	if (send(gate, &question, sizeof(question), MSG_NOSIGNAL) != (ssize_t)sizeof(question) || recvmsg(gate, &m, MSG_CMSG_CLOEXEC) != 1)
		return -EIO;
	c = CMSG_FIRSTHDR(&m);
	if (byte != 'Y' || !c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
		return byte == 'N' ? -EACCES : -EIO;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static void attend(int net, int gate)
{
	static struct front_request request;
	cleanup_close int api = -1;

	if (!front_hear(net, &request) || !front_is_ours(net, &request, true))
		return;
	alarm(0);
	if (!request.is_page && !front_token(&request)[0]) {
		front_refuse(net, "401 Unauthorized", "no-key", "send a token: Authorization: Bearer TOKEN; `godwit token add` makes one");
		return;
	}
	api = ask_gate(gate, request.is_page ? "" : front_token(&request));
	if (api == -EACCES)
		front_refuse(net, "401 Unauthorized", "no-key", "that token is nobody's: `godwit token list` on the node lists those that there are");
	else if (api < 0)
		front_refuse(net, "502 Bad Gateway", "no-answer", "godwit-api does not answer on this node: its log says why");
	else
		front_pass(net, api, &request);
}

int visit_run(int net, int gate)
{
	struct err e = ERR_INIT;

	prctl(PR_SET_NAME, "godwit-visit");
	alarm(REQUEST_S); /* SIGALRM is its end */
	if (give_away(&e) < 0 || wait_greeting(net, &e) < 0)
		return 1;
	(void)fcntl(net, F_SETFL, fcntl(net, F_GETFL) & ~O_NONBLOCK);
	setsockopt(net, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ PATIENCE_S, 0 }, sizeof(struct timeval));
	setsockopt(net, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){ PATIENCE_S, 0 }, sizeof(struct timeval));
	attend(net, gate);
	shutdown(net, SHUT_WR);
	return 0;
}
