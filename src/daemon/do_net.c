// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_net.c - looking after the connections that are redirected here: what has ended goes, other nodes are told what is here, and tell us
 *
 * The table is in the kernel (net/redirect.h), so nothing is remembered here but whether there may be one.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "kern/fdpass.h"
#include "net/news.h"
#include "net/owned.h"
#include "net/tidy.h"
#include "wire/conn.h"

#define PERIOD_NS 2000000000ull
#define STATUS_NOTHING 3 /* nothing is redirected on this host */
#define STATUS_OTHER_TABLE 4 /* the table is not that of the programs that are prepared */
#define PREPARE_NICE 10
#define CONNECT_MS 1000
#define ANSWER_MS 10000

/* The whole list. */
static int send_news(const struct daemon *d, struct redirect *r, int fd, struct err *e)
{
	cleanup_free void *news = NULL;
	struct redirect_node self;
	size_t len = 0;
	int code = redirect_self(fd, d->config.name, &self, e);

	if (code >= 0)
		code = news_write(r, &self, &news, &len, e);
	return code < 0 ? code : frame_send(fd, NEWS_FRAME, news, len, e);
}

static int receive_news(int fd, const char *name, struct err *e)
{
	cleanup_frame struct frame news = { 0 };
	struct redirect_node from = { 0 };
	struct sockaddr_in own, address = { 0 };
	int code = frame_recv_expect(fd, NEWS_FRAME, &news, NEWS_BYTES_MAX, ANSWER_MS, e);

	if (code >= 0 && (code = conn_host_addresses(fd, &own, &address)) < 0)
		err_sys(e, code, "the other node's address");
	if (code < 0)
		return code;
	snprintf(from.name, sizeof(from.name), "%s", name);
	memcpy(from.v4, &address.sin_addr, sizeof(from.v4));
	return news_apply(&from, news.payload, news.len, e);
}

static int tell(const struct daemon *d, struct redirect *r, const struct cluster_node *node, struct err *e)
{
	cleanup_close int fd = conn_connect(&node->address, CONNECT_MS, e);
	int code;

	if (fd < 0)
		return fd;
	code = hello_ask(fd, ROLE_NET, d->config.name, e);
	if (code >= 0)
		code = send_news(d, r, fd, e);
	return code < 0 ? code : receive_news(fd, node->name, e);
}

/* Whether all have heard. */
static bool tell_all(const struct daemon *d, struct redirect *r)
{
	cleanup_free struct cluster_node *nodes = NULL;
	bool all = true;
	size_t n = 0;

	if (node_list_bridged(d, &nodes, &n, NULL) < 0)
		return false;
	for (size_t i = 1; i < n; i++) {
		struct err e = ERR_INIT;

		/* Who is not there hears it the next time. Until then the host that was left forwards. */
		if (tell(d, r, &nodes[i], &e) < 0) {
			log_info("event=news-not-told node=%s error=\"%s\"", nodes[i].name, e.message);
			all = false;
		}
	}
	return all;
}

/* What it is seen as: neither the daemon nor one that moves something. */
static void be_named(void)
{
	prctl(PR_SET_NAME, "godwit-table");
}

static int look_after(const struct daemon *d)
{
	struct redirect *r = NULL;
	struct err e = ERR_INIT;
	uint32_t number;
	bool empty = true, owned;
	bool prepared;
	int code;

	be_named();
	owned = owned_tidy(-1);
	code = redirect_find(&r, &e);
	if (r)
		code = redirect_tidy(r, &empty, &e);
	if (code < 0) {
		log_error("event=connections-not-looked-after error=\"%s\"", e.message);
		empty = false;
	}
	if (code >= 0 && !empty && news_due(r, &number))
		news_told(r, number, tell_all(d, r));
	prepared = empty || redirect_is_prepared(r);
	redirect_close(&r);
	return empty && !owned ? STATUS_NOTHING : prepared ? 0 : STATUS_OTHER_TABLE;
}

/* Runs in the worker. */
static int prepare(int socket)
{
	int programs[REDIRECT_PROGRAMS];
	struct err e = ERR_INIT;
	int code;

	prctl(PR_SET_NAME, "godwit-prepare");
	(void)setpriority(PRIO_PROCESS, 0, PREPARE_NICE);
	code = redirect_prepare(programs, &e);
	for (size_t i = 0; i < REDIRECT_PROGRAMS && code >= 0; i++)
		code = fd_send(socket, &programs[i], 1, &e);
	if (code < 0)
		log_warning("event=redirection-not-prepared error=\"%s\"", e.message);
	return code < 0;
}

void net_prepare(struct daemon *d)
{
	cleanup_close int ours = -1, its = -1;
	struct worker *w;
	bool child;
	int pair[2];

	if (d->cannot_prepare || worker_count(d, WORKER_PREPARE) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	ours = pair[0];
	its = pair[1];
	w = worker_start(d, WORKER_PREPARE, &its, 1, &child, NULL);
	if (child)
		_exit(prepare(its));
	if (w)
		w->handoff = take_fd(&ours);
}

void net_prepared(struct daemon *d, int socket)
{
	int programs[REDIRECT_PROGRAMS] = { -1, -1, -1, -1 };
	struct err e = ERR_INIT;
	char byte;

	/* It has ended: what it has sent is there. */
	for (size_t i = 0; i < REDIRECT_PROGRAMS && !d->cannot_prepare; i++)
		d->cannot_prepare = fd_receive(socket, &byte, 1, &programs[i], &e) < 0;
	if (d->cannot_prepare) {
		for (size_t i = 0; i < REDIRECT_PROGRAMS; i++)
			close_fdp(&programs[i]);
		return;
	}
	worker_keep_programs(programs);
	redirect_set_prepared(programs);
}

void net_ended(struct daemon *d, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_OTHER_TABLE)
		net_prepare(d);
	/* Who moves something may be about to redirect, a request to give an address. */
	if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_NOTHING && !worker_count(d, WORKER_SOURCE) && !worker_count(d, WORKER_DEST) && !worker_count(d, WORKER_REQUEST))
		d->redirects = false;
}

int net_tick(struct daemon *d)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	bool child;

	if (!d->redirects)
		return -1;
	if (now >= d->net_due_ns) {
		d->net_due_ns = now + PERIOD_NS;
		if (!worker_count(d, WORKER_NET)) {
			worker_start(d, WORKER_NET, NULL, 0, &child, NULL);
			if (child)
				_exit(look_after(d));
		}
	}
	return (int)((d->net_due_ns - now) / 1000000) + 1;
}

/* Runs in the worker. */
static int take_news(const struct daemon *d, int fd, const char *from)
{
	struct redirect *r = NULL;
	struct err e = ERR_INIT;
	int code;

	be_named();
	code = receive_news(fd, from, &e);
	if (code >= 0)
		code = redirect_find(&r, &e);
	if (code >= 0)
		code = send_news(d, r, fd, &e);
	else
		frame_send_error(fd, code, e.message, NULL);
	if (code < 0)
		log_warning("event=news-refused node=%s error=\"%s\"", from, e.message);
	redirect_close(&r);
	drain(fd);
	return code < 0;
}

int net_news(struct daemon *d, int fd, const Gw__Hello *hello, struct err *e)
{
	d->redirects = true;
	return worker_answer(d, fd, hello, take_news, e);
}
