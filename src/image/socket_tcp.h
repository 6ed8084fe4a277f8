/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket_tcp.h - TCP connections
 *
 * Theory of operation: what a connection is for the program is what has arrived, what is still to be sent, which directions have ended, and options;
 * sequence numbers are the hosts' business. Of a connection with both ends in the unit (a *pair*) the two sockets at the destination are therefore
 * made into the ends of a new one before the freeze, by a bind and a connect in repair mode each (tests/facts/tcp_pair.c). In the freeze each end sends what
 * the other had received and not read, then what it had not sent yet, and ends its stream if it had: the states follow by themselves.
 *
 * A *half* connection is one whose other end has ended its stream and is nobody's any more; one that has *ended* still has its addresses,
 * perhaps unread data and an error. For these the worker makes the other end, and lets it end, or reset, the connection. A *connecting* socket
 * calls again, and so does one that nobody has accepted, in the order of the listener's queue. What clients outside have begun and nobody has accepted is
 * put into the queue of the new listener (tcp_waiting.h).
 *
 * The source only looks: records read by BPF (kern/tcp_peek.h), peeks at the queues. Ends of a connection are looked at one after the other while the kernel may
 * still carry data between them: first what each has to send, then what each has received, so that nothing is missed; what was seen twice is dropped.
 */
#ifndef GODWIT_IMAGE_SOCKET_TCP_H
#define GODWIT_IMAGE_SOCKET_TCP_H

#include "image/file_look.h"
#include "image/refuse.h"
#include "kern/tcp_record.h"

#define TCP_QUEUE_BYTES_MAX (64u << 20) /* of one direction */

/* What a TCP socket is, at the source. */
enum tcp_class {
	TCP_CLASS_FREE,      /* neither connected nor listening */
	TCP_CLASS_LISTENING,
	TCP_CLASS_LINKED,    /* FdTcp, `kind` says which */
	TCP_CLASS_REFUSED,
};

struct tcp_member {
	uint32_t desc;       /* of one that waits: the listener's */
	int held;            /* of one that waits, and while the unit runs (file_running.c): -1 */
	bool waits;
	const struct tcp_record *record;
	bool foreign;        /* of another network namespace than this process */
	enum tcp_class class;
	Gw__FdTcpKind kind;
	const char *why;     /* TCP_CLASS_REFUSED: the cause, and the way out */
	const char *way_out;
	const char *code;    /* NULL: that of connections */
	struct tcp_member *other; /* of a pair, or of one that waits and its client */
	struct tcp_member *waiting; /* of a listener: its queue */
	size_t n_waiting;
	bool gone;           /* of one that waits: its client is nobody's */
	bool outside;        /* of one that waits: its client is not of the unit, and it goes along */
	bool leaked;         /* file_leak.h: it stays; the unit has a socket without address in its place */
	/* In the freeze: what lies in its send queue, and the number behind the last byte. */
	uint8_t *to_send;
	size_t n_to_send;
	uint32_t end;
};

/* What lies in its queues: nothing but an estimate while the unit runs. */
uint64_t socket_tcp_queued(const struct tcp_member *m);

static inline uint32_t tcp_unread_bytes(const struct tcp_record *r)
{
	int32_t n = (int32_t)(r->rcv_nxt - r->copied_seq) - (r->flags & TCP_RECORD_FINISHED ? 1 : 0);

	return n > 0 ? (uint32_t)n : 0;
}

bool socket_tcp_is_one(const Gw__FdSocket *s);

/* NULL: it is no connection. */
static inline const Gw__FdSocket *socket_tcp_linked(const Gw__FdTable *t, size_t desc)
{
	const Gw__FdDesc *d = t->descs[desc];

	return d->kind == GW__FD_KIND__FD_SOCKET && d->socket && d->socket->tcp ? d->socket : NULL;
}

/* Which of them are what, and whose ends. Of what is not held the caller says whether it is foreign. waiting: what waits in the queues of listeners. frozen: nobody will accept any of these any more. */
void socket_tcp_sort(struct tcp_member *m, size_t n, struct tcp_member *waiting, size_t n_waiting, bool frozen);
/* Whether the destination, which knows s, can go on with the socket that it has made. */
bool socket_tcp_is_same(const struct tcp_member *m, const Gw__FdSocket *s);
/* s->tcp, and what belongs to it; s is complete but for that. */
void socket_tcp_capture(const struct tcp_member *m, Gw__FdSocket *s);
/* The same of one whose options are known, by its record alone. */
void socket_tcp_capture_told(const struct tcp_member *m, Gw__FdSocket *s);
/* Whether one of its addresses says less than it is: it belongs to a link. */
bool socket_tcp_has_scope(const struct tcp_record *r);
/* In the freeze, of all members: 1 when there is something. Then, with records that are read after that, the other. */
int socket_tcp_read_to_send(struct tcp_member *m, struct err *e);
int socket_tcp_read_received(struct tcp_member *m, Gw__FdSocket *s, struct err *e);

/* In the freeze, of a listener: what has been sent on connections that wait in its queue. Of clients that are of the unit it comes before what they have to send. */
struct tcp_data {
	void *bytes; /* tcp_peek_data */
	size_t len;
};
int socket_tcp_read_waiting(struct tcp_member *m, Gw__FdSocket *s, const Gw__FdTable *t, const struct tcp_data *data, struct err *e);
bool socket_tcp_has_waiting_data(const struct tcp_member *m);

/* Whether both ends of the connection have nothing to read, to send or to report. m's socket has been captured. */
bool socket_tcp_is_quiet(const struct tcp_member *m);
/* A connection that need not be spoken of in the freeze, when it is quiet and has not changed since the offer. s->tcp->quiet says so, since this looks through its options. */
bool socket_tcp_may_be_quiet(const Gw__FdSocket *s);

static inline bool socket_tcp_can_be_quiet(const Gw__FdSocket *s)
{
	return s->tcp && s->tcp->quiet;
}

/* known: the description has been checked, as one of another table. */
int socket_tcp_validate(const Gw__FdTable *t, size_t desc, bool known, struct err *e);
/* Whether an idle connection with others may be what `was` has become, which has been checked. */
bool socket_tcp_may_go_ahead(const Gw__FdSocket *was, const Gw__FdTcp *now);
bool socket_tcp_is_construction_same(const Gw__FdSocket *was, const Gw__FdSocket *now);

/* Destination, of a unit in the host's network namespace: a connection that this host has already, or cannot have. */
void socket_tcp_judge(const Gw__FdTable *t, size_t desc, int fd, struct refusals *refusals);
/* Makes the connections of all descriptions from `from` on. others: by description, ends that are nobody's. */
int socket_tcp_open(const Gw__FdTable *t, size_t from, const int *fds, int *others, struct err *e);
/* Before the freeze: makes connections with others again that are idle by now, with other numbers than t says, and takes these into t. news: fdtable_decode_ahead. */
int socket_tcp_go_ahead(const Gw__FdTable *t, const Gw__FdTable *news, const int *fds, int *others, struct err *e);
/* Queues, ends and options, of what is not the same as in the offer. */
int socket_tcp_fill(const Gw__FdTable *old, const Gw__FdTable *t, const int *fds, int *others, struct err *e);
/*
 * Connections with others (tcp_outside.h), when the unit is this host's: all that do not live already, since they are as they were in the offer, and the first error.
 * *at: 0; who inherits this goes on from there.
 */
int socket_tcp_go_live(const Gw__FdTable *old, const Gw__FdTable *t, const int *fds, size_t *at, struct err *e);
/* Whether something is done to description i a little later. */
bool socket_tcp_must_settle(const Gw__FdTable *t, size_t i);
/* Ends a connection of this host without a word to anybody. */
void socket_tcp_forget(int fd);
/* All connections with others. n: of fds. */
void socket_tcp_forget_outside(const Gw__FdTable *t, const int *fds, size_t n);

#endif
