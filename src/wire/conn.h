/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conn.h - TCP connections between nodes: made with a deadline, tuned so that a dead peer is seen within about ten seconds
 *
 * Every descriptor is born CLOEXEC. Addresses are IPv4. See tcp(7).
 */
#ifndef GODWIT_WIRE_CONN_H
#define GODWIT_WIRE_CONN_H

#include <netinet/in.h>
#include <stdbool.h>

#include "base/err.h"

#define CONN_DEFAULT_PORT 4470
#define CONN_DEAD_PEER_MS 10000
#define CONN_PATIENCE_MS 600000
#define CONN_ADDRESS_TEXT 24 /* "255.255.255.255:65535" and its 0 */

/*
 * Connects and tunes. Blocks for at most timeout_ms. Returns a blocking descriptor that the caller owns, or -ETIMEDOUT,
 * -ECONNREFUSED, ... with the address in the message.
 */
int conn_connect(const struct sockaddr_in *to, int timeout_ms, struct err *e);
/* Begins to connect and returns the non-blocking descriptor: writable when decided, then conn_finish says how it went. */
int conn_begin(const struct sockaddr_in *to, struct err *e);
/* 0 when connected, otherwise the reason. Makes the descriptor blocking. */
int conn_finish(int fd, const struct sockaddr_in *to, struct err *e);
/* What to poll for until conn_finish can say it: POLLOUT, or of a connection that a relay makes (tls.h, bridge.h) POLLIN. */
short conn_decided(int fd);
/* As conn_connect, to somebody on this host who is part of the same migration (image_write.c): never over TLS. */
int conn_connect_here(const struct sockaddr_in *to, int timeout_ms, struct err *e);
/* Both addresses of a connection, which may be a relayed one. */
int conn_addresses(int fd, struct sockaddr_in *ret_own, struct sockaddr_in *ret_peer);
/* Those at which packets of other connections reach the two hosts; of a bridge (bridge.h) not the nodes' own. -EHOSTUNREACH: that is not known. */
int conn_host_addresses(int fd, struct sockaddr_in *ret_own, struct sockaddr_in *ret_peer);
/*
 * Whether a connection that reads as ended was ended by a close or shutdown on the other side, and not by an error. Of one of which this side has been shut down, too, it cannot be said: false.
 */
bool conn_ended_orderly(int fd);
/* It waits out CONN_PATIENCE_MS of a broken link. */
void conn_make_patient(int fd);
/* A listening non-blocking socket (SO_REUSEADDR). */
int conn_listen(const struct sockaddr_in *at, int backlog, struct err *e);
/* The same by a path, in the place of whatever has that name; closed: who may not connect, as umask has it. Before there are threads. */
int conn_listen_unix(const char *path, mode_t closed, int backlog, struct err *e);
/*
 * TCP_NODELAY, cubic where the kernel has it (bbr, often the default, is slower on local links), keepalive and TCP_USER_TIMEOUT.
 * For accepted connections; conn_connect does it itself. Never fails: each is an improvement only.
 */
void conn_tune(int fd);
/* For conn_tune in this process and its children; the default is CONN_DEAD_PEER_MS. */
void conn_set_dead_peer(int timeout_ms);
/* "10.66.0.1:4470" into text. */
void conn_address_text(const struct sockaddr_in *address, char text[CONN_ADDRESS_TEXT]);
/* Reads "10.66.0.1" or "10.66.0.1:4470"; -EINVAL with the reason. */
int conn_address_parse(const char *text, struct sockaddr_in *ret, struct err *e);

#endif
