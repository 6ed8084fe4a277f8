/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * service.h - what a daemon and its service manager tell each other: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)
 *
 * All of it comes in the environment, which is read once and then cleared, so that no child takes itself for the daemon. Without a manager each call does nothing.
 */
#ifndef GODWIT_BASE_SERVICE_H
#define GODWIT_BASE_SERVICE_H

#include <sys/types.h>

struct service {
	int notify_fd;          /* connected; -1: nobody wants to know */
	int listen_fd;          /* the one listener that the manager has passed; -1: none. service_take_listener takes it */
	int watchdog_ms;        /* how often the manager wants to hear something; -1: never */
	unsigned long long next_ns; /* CLOCK_MONOTONIC: when it is told again */
};

#define SERVICE_INIT { -1, -1, -1, 0 }

/* Before threads and children. What cannot be used is left alone, and said in the log. */
void service_begin(struct service *s);

/* The manager's listener, if it is a stream socket of AF_UNIX that listens at `path`: the caller's, close-on-exec and nonblocking; -1: there is none like that. */
int service_take_listener(struct service *s, const char *path);

/* state: lines as sd_notify(3) has them, "READY=1" or "STOPPING=1\nSTATUS=...". */
void service_tell(const struct service *s, const char *state);

/* From the daemon's loop, which lives if this is called: ms until it wants to be called again, -1 never. */
int service_tick(struct service *s);

#endif
