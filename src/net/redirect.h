/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * redirect.h - packets of connections follow their sockets to other hosts
 *
 * Theory of operation. A connection's identity is the pair of addresses and ports that it was made with; it never changes, and nothing in a packet is
 * rewritten. What changes is on which host an *end* of it is: the socket with the address and port `own`, whose peer is `peer`. A host has a table (a BPF
 * hash map) from ends to where they are, asked by BPF programs at ingress and egress of its network devices (bpf/redirect.bpf.c) for each packet that goes to
 * such an end:
 *
 *	HERE     ours, whatever its address: given to the local socket (a mark, and a rule that routes what has it to this host)
 *	THERE    sent on to that node as it is, with the node's link address as next hop. Both nodes are on one link
 *	HELD     kept in a queue (a tun device's) until it is known who gets it
 *
 * What a socket sends whose end is THERE or HELD is dropped: it is the old copy. An end without an entry is where its address says.
 *
 * Who has entries: the host that has the socket; the host that it has left, which forwards for those who know nothing (hosts without Godwit, too);
 * and hosts that run Godwit and have the other end, which send directly. The latter learn it by the daemons' news (news.h), after the move.
 *
 * A *move* is the entries of one unit that leaves or arrives. Its state is one word that all its entries refer to, so that thousands of connections
 * are held, or given on, by one store, without a system call. A move that is under way and whose worker has died is ended by the daemon (housekeeping).
 *
 * Everything is in the kernel: programs and maps are found by the program of the loopback device, so godwitd may be restarted, and every process may open them. They are
 * attached when the first move needs them. Calls of one host exclude each other by a lock (they change the table), which is not held while programs are loaded;
 * those for the freeze take none.
 *
 * All calls but those marked [freeze] may block for milliseconds, and must be made in the host's network namespace, or after redirect_open there.
 */
#ifndef GODWIT_NET_REDIRECT_H
#define GODWIT_NET_REDIRECT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "net/redirect_map.h"

struct redirect;
struct redirect_move;

/*
 * One end. protocol: IPPROTO_TCP or IPPROTO_UDP. Addresses are 16 bytes, those of IPv4 mapped (::ffff:a.b.c.d), in network order; ports in network order, too.
 * Addresses are those of the packets: of an IPv6 socket that talks IPv4, the mapped ones. peer and peer_port all zero: every peer
 * (listeners and UDP sockets that are not connected). own must be a real address then, too: redirect_addresses() lists those of this host for wildcards.
 */
struct redirect_flow; /* redirect_map.h */

/* Fills an end in from two socket addresses; peer NULL: every peer. False for another family. */
bool redirect_flow_set(struct redirect_flow *flow, uint8_t protocol, const struct sockaddr *own, const struct sockaddr *peer);
/* "tcp 10.0.0.1:80 (peer 10.0.0.2:4711)" */
#define REDIRECT_FLOW_TEXT 160
const char *redirect_flow_text(const struct redirect_flow *flow, char text[REDIRECT_FLOW_TEXT]);

/*
 * The programs. The kernel verifies them when they are loaded, which takes it some tenths of a second of a CPU (many seconds where the CPU is wanted by others). They are the same for
 * every move: who has them prepared, and its children, only attach them.
 */
enum redirect_program { REDIRECT_IN, REDIRECT_OUT, REDIRECT_IN_RAW, REDIRECT_OUT_RAW, REDIRECT_PROGRAMS };
/* Loads them, for the table that is in use or a new one: descriptors. */
int redirect_prepare(int ret[REDIRECT_PROGRAMS], struct err *e);
/* From now on redirect_open takes these, which are the module's own then (those of before are closed), unless the table that is in use has others: redirect_is_prepared. */
void redirect_set_prepared(const int programs[REDIRECT_PROGRAMS]);
bool redirect_is_prepared(const struct redirect *r);

/* This host as others reach it: the addresses of the device over which `connection` (a connected TCP socket to the other node) goes. */
int redirect_self(int connection, const char *name, struct redirect_node *ret, struct err *e);

/* Finds the table or makes one, and attaches the programs to devices that are new. Loads them where they are not prepared. Needs CAP_BPF and CAP_NET_ADMIN. */
int redirect_open(struct redirect **ret, struct err *e);
/* The same when they are there; *ret is NULL when nothing has ever been redirected here. */
int redirect_find(struct redirect **ret, struct err *e);
void redirect_close(struct redirect **r);
/*
 * Whether packets can be sent on to the node: it must be on a link of this host, and have an address of the family that is needed. -EHOSTUNREACH with
 * words for the user otherwise. Both sides should ask.
 */
int redirect_check_node(struct redirect *r, const struct redirect_node *node, bool ipv6, struct err *e);

/*
 * Addresses that the unit takes along (net/owned.h). Their ends are held and forwarded as others; but an end that is here has no entry when the address is, nobody else is
 * told of it, and where it has left the entry is for packets that still come. n of 16 bytes, copied.
 */
int redirect_set_owned(struct redirect *r, const void *addresses, size_t n, struct err *e);
/* Such an address is here, or belongs to nobody any more: entries from when it left are removed. */
void redirect_forget_address(struct redirect *r, const uint8_t address[16]);

/* The source's side. */

/*
 * Before the freeze: enters the ends, which will go to `node`. Nothing changes for their packets, but those to peers on this host become as small as the link
 * between the nodes wants them. -EHOSTUNREACH as redirect_check_node; -ENOSPC: more than the tables hold.
 */
int redirect_depart(struct redirect *r, const struct redirect_node *node, const struct redirect_flow *flows, size_t n, struct redirect_move **ret,
		    struct err *e);
/*
 * What the destination has to be told of an end: as bytes, they are for redirect_arrive there. self: this host, as the destination reaches it
 * (redirect_self). [freeze]
 */
void redirect_tell(struct redirect *r, const struct redirect_flow *flow, const struct redirect_node *self, struct redirect_known *ret);
/* [freeze] What arrives for the ends from now on is kept; what the sockets here send is dropped. One store. */
void redirect_park(struct redirect_move *m);
/* [freeze] Back to what was before; what was kept is delivered to the sockets here. Before the commit only. Does nothing when not parked. */
void redirect_unpark(struct redirect_move *m);
/* [freeze] What this socket has sent and is kept is not sent on: it goes along, and sends that again. Without memory for it, it is. */
void redirect_leave_out(struct redirect_move *m, const struct redirect_flow *sender);
/* [freeze] After the commit: what was kept, and all that comes, goes to the node. A packet that is just being put into the queue then goes with redirect_settle. */
void redirect_forward(struct redirect_move *m);

/* The destination's side. */

/* Before the go: enters the ends that are to come, with what the source has told of each (checked here). Nothing changes for their packets. */
int redirect_arrive(struct redirect *r, const struct redirect_flow *flows, const struct redirect_known *known, size_t n, struct redirect_move **ret,
		    struct err *e);
/*
 * [freeze] Packets of these ends are ours from now on: the sockets exist that take them (they may be in repair mode still; before this their own packets
 * are dropped). One store. Sockets must be IP_TRANSPARENT, listeners too: answers to foreign addresses would fail otherwise.
 */
void redirect_live(struct redirect_move *m);

/*
 * Connections that the listener of the source has answered and that nobody has accepted are made anew here: by the next segment that acknowledges the answer (what the client says, or
 * what is said again in its name over the loopback device, with REDIRECT_MARK) a socket comes into the queue of the listener that has the address here.
 */

/* Whether this kernel can; called before redirect_expect_call, since it loads what that needs. */
bool redirect_takes_calls(struct redirect *r);
/* [freeze] unanswered: the client has not acknowledged yet, and its end has been entered (redirect_add). call->until_ns is filled in here. */
int redirect_expect_call(struct redirect *r, const struct redirect_flow *flow, const struct redirect_call *call, bool unanswered);
/* [freeze] When the socket is there. */
void redirect_forget_call(struct redirect *r, const struct redirect_flow *flow);

/* Both sides. */

/* More ends for a move. [freeze], some 3 us each. known: at the destination only. */
int redirect_add(struct redirect_move *m, const struct redirect_flow *flows, const struct redirect_known *known, size_t n, struct err *e);
/* Once what is to happen has happened: the entries get their state for good; others will be told. Frees m. A move that was neither forwarded nor live is cancelled. */
void redirect_settle(struct redirect_move **m);
/* The entries are as they were before redirect_depart or redirect_arrive; unparks. Frees m; does nothing for NULL. */
void redirect_cancel(struct redirect_move **m);

/*
 * Who ends the move when it does not end: while this process lives nobody else touches it (at first it is the caller of redirect_depart or redirect_arrive).
 * All calls work in a child of that process as well, one at a time.
 */
void redirect_set_owner(struct redirect_move *m, pid_t pid);

/*
 * For a listener, or a socket of UDP without a peer, that is bound to every address of a family: one flow for each address of this host, and for each that
 * is here only because such a socket has brought it. *ret is malloc'ed.
 */
int redirect_listening(struct redirect *r, uint8_t protocol, int family, uint16_t port, struct redirect_flow **ret, size_t *ret_n, struct err *e);

/* The descriptors that calls with m (NULL: none) need. */
size_t redirect_descriptors(const struct redirect *r, const struct redirect_move *m, int *ret, size_t max);

/* Addresses of this host of a family (AF_INET, AF_INET6), for sockets bound to every address; with the loopback ones, without those of links. *ret is malloc'ed. */
int redirect_addresses(int family, struct in6_addr **ret, size_t *ret_n, struct err *e);

#endif
