/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * session.h - what godwit-home and godwit-away tell each other, across connections that break
 *
 * Messages (wire/proto/home.proto) are numbered and kept until the other side says that it has handled them; a new connection begins with a RESUME from both
 * sides, after which what was not handled is sent again. So each is handled once and in order, as long as both processes live. Nothing here blocks: the owner
 * polls session.fd for POLLIN, and for POLLOUT while session_wants_out.
 */
#ifndef GODWIT_HOME_SESSION_H
#define GODWIT_HOME_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "home.pb-c.h"
#include "wire/frame.h"

#define FRAME_HOME 40u
#define HOME_MESSAGE_MAX (128u << 10)
#define CHANNELS_MAX 1024u
#define CHANNEL_COUNT_MAX (64u << 20) /* bytes that one TAKEN may tell of: after moves there may be more than one message's */
#define CHANNEL_DATA_MAX (64u << 10) /* bytes in one message, and on their way in one direction of a channel */

struct session_kept;

struct session {
	int fd;           /* -1: not connected */
	bool resumed;     /* the other side's RESUME has come on this connection */
	struct frame_reader reader;
	uint64_t seq;     /* of the last message sent */
	uint64_t handled; /* of the last message handled */
	bool ack_due;
	bool deaf;        /* nothing is handled any more but RESUME and ACK: the other side sends it to somebody else */
	struct session_kept *first, *last;
	uint8_t *out;
	size_t out_len, out_done, out_size;
};

#define SESSION_INIT ((struct session){ .fd = -1 })

/* Takes over a connection whose HELLO is done; an earlier one is closed. */
void session_attach(struct session *s, int fd);
void session_detach(struct session *s);
/* Keeps and sends. Sets message->seq and message->ack. Aborts when there is no memory. */
void session_send(struct session *s, Gw__HomeMessage *message);
/*
 * Takes in what has come; `handle` is called for each message but RESUME and ACK. An error means that the connection is to be detached: it has ended, or
 * brought nonsense.
 */
int session_input(struct session *s, void (*handle)(void *arg, const Gw__HomeMessage *m), void *arg, struct err *e);
int session_output(struct session *s, struct err *e);
bool session_wants_out(const struct session *s);
/* Whether everything sent has been handled by the other side. */
bool session_settled(const struct session *s);
/* Another peer takes the place of this one, which has handled `handled` messages: the rest is sent to the new one, numbered anew. */
void session_renew(struct session *s, uint64_t handled);
/* The other side has handled so many: a word that came another way. */
void session_confirm(struct session *s, uint64_t handled);
/* What it has not handled, in order. */
void session_each_kept(const struct session *s, void (*fn)(void *arg, const Gw__HomeMessage *m), void *arg);
void session_free(struct session *s);

/* Decodes and checks sizes and ranges. */
int home_message_decode(const void *data, size_t len, Gw__HomeMessage **ret, struct err *e);

#endif
