/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * api.h - godwit-api: the REST API, a process of its own that is nobody (src/api)
 *
 * It has from godwitd the socket api.sock where it listens, and a channel. Whoever connects there asks godwitd through it: with one end of a socket pair godwit-api hands over the very connection, so
 * that it is the kernel that says who asks (access.h), and a godwit-api that somebody has got hold of can only act for those who are connected to it.
 */
#ifndef GODWIT_DAEMON_API_H
#define GODWIT_DAEMON_API_H

#include "daemon/daemon.h"

/* Makes the socket, api.sock in the directory. */
int api_open(struct daemon *d, const char *directory, struct err *e);
/* In the main process: starts it when it does not run; the time until that is looked at again, -1: its end wakes. */
int api_tick(struct daemon *d);
/* The channel, d->api_channel, is readable. */
void api_input(struct daemon *d);

#endif
