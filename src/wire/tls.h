/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tls.h - connections between nodes over TLS 1.3 with certificates on both sides
 *
 * Theory of operation: pages are sent and received by agents, which run without a library inside the processes that move, and which know sockets only. So TLS is done beside
 * them: a relay, a process for each connection, has the TCP connection, and a stream socket (AF_UNIX) whose other end stands for it everywhere else. Relays are children of
 * godwit-tls (daemon/tls_starter.h), which listens on a unix socket for root; whoever wants a relay connects there, and says what for with the TCP connection attached. That
 * same socket carries the bytes then:
 *
 *	engine                             relay                                   the other relay
 *	struct tls_request, TCP    ->
 *	                                   gives all rights away (base/confine.h)
 *	                                   handshake, both certificates judged  <->
 *	                                   (accepting) the word TLS_WELCOME      ->   (calling) so it has been accepted
 *	struct tls_greeting        <-
 *	bytes                      <->     records                               <->
 *
 * Not a byte of the other host reaches the engine before the greeting. How a connection ends is passed on: a shutdown of one side as close_notify, and shutdown(2) there; anything else, and a
 * relay that is killed, as a close, which the engine can tell from that (conn_ended_orderly). TCP options that the engine sets later are asked for with a control message.
 *
 * RFC 8446, unix(7).
 */
#ifndef GODWIT_WIRE_TLS_H
#define GODWIT_WIRE_TLS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define TLS_NODE_MAX 64u    /* HELLO_NAME_MAX */
#define TLS_HANDSHAKE_MS 5000
#define TLS_ANSWER_MAX 512u /* of TLS_ASK: what comes back */
#define TLS_PATH_MAX 256u

/* Files; all set, or none. */
struct tls_paths {
	char ca[TLS_PATH_MAX], certificate[TLS_PATH_MAX], key[TLS_PATH_MAX], crl[TLS_PATH_MAX];
};

enum tls_kind {
	TLS_ACCEPT,  /* an accepted connection */
	TLS_CONNECT, /* one that is being made */
	TLS_ASK,     /* a socket that is not connected: each time the engine sends something (at most 4096 bytes) it is connected, sent that, and what the other side answers until
			it ends the connection comes back, at once and whole; sixteen bytes of 0: there was no answer. For who cannot ask for a relay (agent/doubt.c). No greeting. */
	TLS_SERVE,   /* an accepted connection of somebody who needs no certificate, and is none of the nodes (gate/gate.h); no WELCOME */
};

#define TLS_MAGIC 0x31534c54u

struct tls_request {
	uint32_t magic, kind;
	int32_t timeout_ms;           /* TLS_ASK: for one question */
	struct sockaddr_in peer;
	char name[TLS_NODE_MAX + 1];  /* who is called; "": whoever has the address of `peer` in its certificate */
};

struct tls_greeting {
	uint32_t magic;
	int32_t code;                 /* 0, or a negative errno */
	char text[ERR_MESSAGE_MAX];   /* the names of the other side's certificate, with blanks between them; of a failure the sentence */
};

/*
 * From now on, in this process and its children: connections are made by relays of the godwit-tls at that path. name_of: the node with an address, if one is known.
 * "" as long as it has not been called: connections are plain.
 */
void tls_use(const char *socket_path, bool (*name_of)(const struct sockaddr_in *address, char ret[TLS_NODE_MAX + 1]));
bool tls_is_used(void);
/* Asks for a relay; `net` is no longer needed then. The caller's descriptor, non-blocking, on which the greeting comes. Never blocks. */
int tls_begin(enum tls_kind kind, int net, const struct sockaddr_in *peer, int timeout_ms, struct err *e);
/* Takes the greeting when it is there: 0 and the names, -EAGAIN, or what failed. Never blocks. */
int tls_greeting_take(int fd, char ret_names[ERR_MESSAGE_MAX], struct err *e);
/* Whether `name` is one of the names in a greeting. */
bool tls_names_have(const char *names, const char *name);
/* Whether a descriptor is the engine's end of a relay. */
bool tls_is_relayed(int fd);
/* The two addresses of a relayed connection; -ENOTCONN when it is none. */
int tls_addresses(int fd, struct sockaddr_in *ret_own, struct sockaddr_in *ret_peer);
/* Asks the relay to wait out so long a broken link. */
int tls_make_patient(int fd);

#endif
