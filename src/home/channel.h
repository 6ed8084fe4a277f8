/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * channel.h - relaying one descriptor: what is read from it here is written there, and the other way round
 *
 * A pipe whose other end stayed at home is cut in two: the unit has a pipe at its host, godwit-away the other end of that; godwit-home has the end at home that
 * the unit had. Datagrams and the messages of a SOCK_SEQPACKET socket stay what they are: a large one goes in pieces. Bytes on their way are bounded (CHANNEL_DATA_MAX a direction), so that a writer is held up as by a full pipe. End of file and broken pipes are
 * passed on. The descriptors are opened anew where that is possible (pipes, FIFOs), so that O_NONBLOCK is nobody else's.
 */
#ifndef GODWIT_HOME_CHANNEL_H
#define GODWIT_HOME_CHANNEL_H

#include <poll.h>

#include "home/session.h"

enum channel_kind {
	CHANNEL_READS = 1,  /* bytes come out of this descriptor */
	CHANNEL_WRITES = 2, /* bytes go into it */
	CHANNEL_SOCKET = 4, /* it is a socket: end of file is shutdown(2) */
	CHANNEL_OWN = 8,    /* nobody else uses this description: it is not opened again */
	CHANNEL_TERMINAL = 16, /* its end is the end of both directions: it has been hung up */
	CHANNEL_HOME = 32,  /* it is the unit's own description, which is kept for its return */
	CHANNEL_SILENT = 128, /* in a list of relays: that its other end has been closed nobody is told */
	CHANNEL_MASTER = 64, /* a terminal's master: closing it hangs the other end up */
};

struct channel {
	uint32_t id;
	unsigned kind;     /* CHANNEL_* */
	int fd;            /* -1: done */
	int original;      /* at home: the unit's own, for its return; -1 */
	int rights;        /* a socket's SO_PASSRIGHTS, as it was */
	int type;          /* a socket's SOCK_*; 0: no socket */
	int32_t sender[3]; /* a socket at home: pid, user and group id that who asks for them (SO_PASSCRED) sees; pid 0: this process's */
	size_t in_flight;  /* sent, not yet taken by the other side */
	uint8_t *buffer;   /* to be written; with messages (channel_message.c): struct message_head and data each */
	size_t have, done;
	bool paused;       /* nothing is read now */
	size_t skip;       /* so many bytes that are read first are dropped */
	void (*seen)(void *arg, const uint8_t *data, size_t len); /* called with what has been read; NULL: nobody wants to know */
	void *arg;
	bool end_sent;     /* there is nothing more to read here */
	bool ending;       /* when the buffer is empty, nothing more will come */
	bool broken;       /* the other side's reader is gone */
};

struct channels {
	struct channel *v;
	size_t n;
};

/* Takes over fd. */
int channels_add(struct channels *c, uint32_t id, unsigned kind, int fd, struct err *e);
/* Two entries each at most, none where there is nothing to wait for. */
void channels_poll(const struct channels *c, struct pollfd *p);
/* After poll: moves what can be moved. */
void channels_step(struct channels *c, const struct pollfd *p, struct session *s);
/* DATA, TAKEN, END, BROKEN. */
void channels_handle(struct channels *c, const Gw__HomeMessage *m, struct session *s);
/*
 * The unit is about to leave: what it has written into channels that it has closed since, and that it has closed them, is sent. False: not all can be sent now, since the other side has
 * not taken what was sent before.
 */
bool channels_finish(struct channels *c, struct session *s);
/* The unit is about to leave: what waits to be written goes into its pipes, which are made larger for that, and leaves with them. */
void channels_empty(struct channels *c, struct session *s);
/* One byte more to write. */
void channel_put(struct channel *ch, uint8_t byte, struct session *s);
/* NULL: there is none. */
struct channel *channels_find(const struct channels *c, uint32_t id);
/* Whether both sides know that nothing more goes through it either way. */
bool channel_is_over(const struct channel *ch);
/* Takes it out of the list, if it is in there. */
void channels_forget(struct channels *c, uint32_t id);
/* END or BROKEN, of a channel that need not be in a list. */
void channel_say(const struct channel *ch, Gw__HomeKind kind, struct session *s);
/* The unit gets its own socket back. */
void channel_allow_rights(const struct channel *ch);
/* Closes all. */
void channels_close(struct channels *c);
/* Whether all that could be read now has been read and sent. Reads. */
bool channels_drain(struct channels *c, struct session *s);
/* Whether everything that came has been written, as far as somebody reads it. */
bool channels_flushed(const struct channels *c);

#endif
