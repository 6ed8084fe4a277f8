// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * main.c - godwit-api: HTTP over a unix socket (docs/api.md); started by godwitd (daemon/api.h), by nobody else
 *
 * godwit-api LISTENER CHANNEL GROUP: two descriptors, and the number of the group whose members may do everything, -1: there is none. It gives its rights away before it reads anything. When
 * godwitd ends it takes nothing new, and ends as soon as the migrations that it has started have.
 */
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "api/http.h"
#include "api/moves.h"
#include "api/talk.h"
#include "base/confine.h"
#include "base/log.h"
#include "base/util.h"

#define DESCRIPTORS_MAX 512u
#define LOOK_MS 200

static int give_away(struct err *e)
{
	/* Threads, and conversations by sockets that come to it or that godwitd is handed; none that it could bind, or connect to something. */
	static const int more[] = { SYS_clone, SYS_clone3, SYS_set_robust_list, SYS_rseq, SYS_eventfd2, SYS_accept4, SYS_socketpair, SYS_getsockopt, SYS_setsockopt, SYS_getsockname, SYS_sendmsg, SYS_sendto,
				    SYS_recvfrom, SYS_shutdown };

	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ DESCRIPTORS_MAX, DESCRIPTORS_MAX });
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	if (confine(more, ARRAY_SIZE(more), e) < 0)
		return e->code;
	return 0;
}

int main(int argc, char **argv)
{
	struct http_setup setup;
	struct err e = ERR_INIT;
	struct pollfd p;
	long group;

	if (argc != 4) {
		fputs("godwit-api is started by godwitd: set enabled = yes in [api] of godwit.conf(5)\n", stderr);
		return 2;
	}
	group = strtol(argv[3], NULL, 10);
	setup = (struct http_setup){ atoi(argv[1]), group >= 0, group >= 0 ? (gid_t)group : 0 };
	p = (struct pollfd){ atoi(argv[2]), POLLIN, 0 };
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_DUMPABLE, 0);
	mallopt(M_ARENA_MAX, 2);
	talk_use(p.fd);
	if (give_away(&e) < 0 || http_start(&setup, &e) < 0) {
		log_error("event=api-failed error=\"%s\"", e.message);
		return 1;
	}
	while (poll(&p, 1, -1) < 0 || !p.revents)
		;
	http_quiesce();
	while (moves_running())
		poll(NULL, 0, LOOK_MS);
	return 0;
}
