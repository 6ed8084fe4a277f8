/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bridge.h - connections between two nodes through one channel of ssh
 *
 * Theory of operation: `godwit migrate PID user@host` runs ssh, and over there `godwit bridge --stdio`. The two ends of that channel are given to a process beside godwitd on each
 * side, godwit-bridge (bridge_relay.h). Together they carry any number of connections, begun by either side, and to the rest of Godwit each of them looks as one that a relay of TLS
 * has (tls.h): a stream socket (AF_UNIX), on which a greeting comes first. Who is on the other side ssh has proved: what asks at this end is root, or may do all that root may, on
 * that host, and what listens at that one is whom ssh has connected.
 *
 *	engine                       godwit-bridge                                 godwit-bridge               godwitd
 *	struct bridge_request  ->
 *	                             OPEN                                    ->    connects, names the node ->
 *	                                                                     <-    OPENED, or REFUSED
 *	struct tls_greeting    <-
 *	bytes                  <->   DATA, as far as CREDIT goes; END; RESET <->                            <->  as of any peer (daemon/peer.c)
 *
 * A node to which a bridge leads has an address as any other, by which it is known to all that hold addresses of nodes: in 0.0.0.0/8, where nobody can be, made from the node's name. So it
 * is the same on a bridge that is made anew, and needs no agreement: each side knows the other's name.
 *
 * Files, in a directory for root: HASH.sock, where the process listens; HASH.node, its record, which it holds locked and leaves behind; HASH.both, the pid of one that lets both; in.sock, where godwitd takes what comes.
 */
#ifndef GODWIT_WIRE_BRIDGE_H
#define GODWIT_WIRE_BRIDGE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "wire/hello.h"
#include "wire/tls.h"

#define BRIDGE_HOW_MAX 256u
#define BRIDGE_PATH_MAX 96u

/* What is known of a bridge. */
struct bridge_record {
	char node[HELLO_NAME_MAX + 1], self[HELLO_NAME_MAX + 1]; /* the other node, this one */
	char how[BRIDGE_HOW_MAX]; /* user@host, or of one that the other side has made "" */
	bool ours, kept;          /* made from here; until somebody closes it */
	struct in_addr own, peer; /* of the hosts, where each has that one that ssh uses; otherwise 0 */
	pid_t pid;
};

/* --- where --- */

void bridge_use_directory(const char *directory);
/* Of a file there: "HASH.sock" and "HASH.node" of a node with `suffix` ".sock", ".node". */
void bridge_path(const struct sockaddr_in *of, const char *suffix, char ret[BRIDGE_PATH_MAX]);
/* Where godwitd listens. */
void bridge_entrance(char ret[BRIDGE_PATH_MAX]);
struct sockaddr_in bridge_address(const char *node);
bool bridge_is_address(const struct sockaddr_in *address);
/* Whether there is a bridge to that node, and its record; ret may be NULL. */
bool bridge_find(const char *node, struct bridge_record *ret);
/* Who has made it from the other side has shown to be root here, too: from now on both may do what the one may that has made it. */
int bridge_let_both(const struct bridge_record *record, struct err *e);
bool bridge_lets_both(const struct bridge_record *record);
/* Whether there is, or has been since the host was booted. */
bool bridge_was(const char *node);
/* All that there are; returns what `each` did when it was not 0. */
int bridge_list(int (*each)(const struct bridge_record *record, void *arg), void *arg);
/* Writes and locks the record: the descriptor that holds the lock. -EBUSY: there is one already, -EEXIST: of another node with the same address. */
int bridge_record_take(const struct bridge_record *record, struct err *e);

/* --- the engine's side --- */

#define BRIDGE_MAGIC 0x31475242u

enum bridge_kind {
	BRIDGE_CONNECT, /* a connection: a greeting comes, then bytes */
	BRIDGE_ASK,     /* as TLS_ASK */
	BRIDGE_CLOSE,   /* the bridge is no longer wanted: a greeting says whether it ends, -EBUSY: something goes over it */
};

struct bridge_request {
	uint32_t magic, kind;
	int32_t timeout_ms; /* BRIDGE_ASK: for one question */
};

/* As tls_begin. Never blocks. */
int bridge_begin(enum bridge_kind kind, const struct sockaddr_in *to, int timeout_ms, struct err *e);
/* Names an end of a connection, for bridge_addresses of who has it, or of who has the other one. */
void bridge_name_end(int fd, const struct sockaddr_in *own, const struct sockaddr_in *peer, struct in_addr own_host, struct in_addr peer_host);
/* The nodes' addresses, or, with `hosts`, those of the hosts (0 where they are not known). -ENOTCONN: it goes over no bridge. */
int bridge_addresses(int fd, bool hosts, struct sockaddr_in *ret_own, struct sockaddr_in *ret_peer);

/* --- what goes over ssh --- */

#define BRIDGE_HELLO_BYTES 96u
#define BRIDGE_HEADER_BYTES 8u
#define BRIDGE_DATA_MAX (16u << 10)
#define BRIDGE_REFUSED_MAX 1024u
#define BRIDGE_WINDOW (1u << 20) /* so much of one connection may be on its way and not yet taken */

/* First of all, from the side that ssh has begun; then from the other. */
struct bridge_hello {
	char node[HELLO_NAME_MAX + 1];
	struct in_addr own, peer; /* of the hosts, as whoever says it sees them; 0: not known */
};

enum bridge_type { BRIDGE_OPEN = 1, BRIDGE_OPENED, BRIDGE_REFUSED, BRIDGE_DATA, BRIDGE_END, BRIDGE_RESET, BRIDGE_CREDIT, BRIDGE_PING, BRIDGE_PONG };

/* A header: channel (4 bytes, little-endian; the lowest bit is 0 when the side that ran ssh has opened it), type (1), 0 (1), length of what follows (2). */
struct bridge_frame {
	uint32_t channel;
	enum bridge_type type;
	uint16_t len;
};

void bridge_hello_encode(const struct bridge_hello *hello, uint8_t to[BRIDGE_HELLO_BYTES]);
/* -EPROTO with what came instead. */
int bridge_hello_decode(const uint8_t from[BRIDGE_HELLO_BYTES], struct bridge_hello *ret, struct err *e);
void bridge_frame_encode(const struct bridge_frame *frame, uint8_t to[BRIDGE_HEADER_BYTES]);
/* The type, and whether a frame of that type may be so long. -EPROTO. */
int bridge_frame_decode(const uint8_t from[BRIDGE_HEADER_BYTES], struct bridge_frame *ret, struct err *e);

#endif
