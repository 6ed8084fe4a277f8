/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* channel_internal.h - what channel.c and channel_message.c share */
#ifndef GODWIT_HOME_CHANNEL_INTERNAL_H
#define GODWIT_HOME_CHANNEL_INTERNAL_H

#include <sys/socket.h>
#include <sys/types.h>

#include "home/channel.h"

void channel_tell(struct session *s, const struct channel *ch, Gw__HomeKind kind, const void *data, size_t len);
void channel_end_reading(struct channel *ch, struct session *s);
/* sendmsg with the credentials of the unit. */
ssize_t channel_send(const struct channel *ch, const void *data, size_t len);

static inline bool channel_has_messages(const struct channel *ch)
{
	return ch->type == SOCK_DGRAM || ch->type == SOCK_SEQPACKET;
}

/* Reads one message and sends it on. Returns whether anything was read. */
bool channel_read_message(struct channel *ch, struct session *s);
/* DATA: a message, or a piece of one of which more follows. */
void channel_keep_message(struct channel *ch, const uint8_t *data, size_t len, bool more);
/* Whether the next message of the buffer is whole. */
bool channel_has_whole(const struct channel *ch);
/* Writes one whole message of the buffer. Returns its bytes, -EAGAIN when there is none or no room for it. */
ssize_t channel_write_message(struct channel *ch);

#endif
