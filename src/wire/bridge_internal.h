/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bridge_internal.h - shared by bridge_relay.c, which has ssh, and bridge_channel.c, which has the connections */
#ifndef GODWIT_WIRE_BRIDGE_INTERNAL_H
#define GODWIT_WIRE_BRIDGE_INTERNAL_H

#include <stddef.h>

#include "wire/bridge_relay.h"

#define BRIDGE_CHANNELS 4096u /* of each side */
#define BRIDGE_IN_BYTES (256u << 10)
#define BRIDGE_OUT_BYTES (128u << 10)  /* above which connections are not read from */
#define BRIDGE_OUT_MAX (8u << 20)      /* words to the other side that do not get away: there is something wrong */

/* What is allowed in which state: */
enum channel_state {
	CHANNEL_NEW,     /* our engine has connected, and its request is to be read */
	CHANNEL_ASKER,   /* a socket for questions, each of which has a channel of its own; it is on no channel */
	CHANNEL_OPENING, /* OPEN has been sent; the engine waits for its greeting and sends nothing */
	CHANNEL_OPEN,    /* bytes go in both directions */
};

struct channel {
	enum channel_state state;
	uint32_t id;
	int fd;                     /* -1: the engine has closed, or there is none (a question) */
	unsigned events;            /* that are waited for */
	bool listed;                /* with epoll */
	bool patient;
	bool up_ended, down_ended;  /* END has been sent, has come */
	bool told;                  /* that END has been passed on to the engine */
	uint32_t credit, owed;      /* bytes that may be sent; that have been taken and not been told */
	uint8_t *down;              /* what the engine has not taken yet; BRIDGE_WINDOW bytes, or NULL */
	size_t down_at, down_have;
	struct channel *asker;      /* a question: where its answer goes; an asker: its question, NULL when there is none */
	uint64_t deadline_ns;       /* of a question */
	int32_t timeout_ms;         /* an asker's */
	uint16_t answer_len, question_len;
	uint8_t *answer;            /* a question: TLS_ANSWER_MAX bytes for what is answered, then what is asked */
	struct channel *next;       /* all that are */
	bool gone;                  /* to be freed when nobody holds it */
};

struct relay {
	struct bridge b;
	int listener, epoll;
	bool lost;                  /* ssh has ended */
	bool closing;               /* BRIDGE_CLOSE */
	bool kept;
	struct channel *slots[2][BRIDGE_CHANNELS]; /* by (id >> 1) % BRIDGE_CHANNELS; [0] with even ids */
	struct channel *all;
	uint32_t next_id;
	size_t n_channels;          /* all that are, with askers */
	uint64_t heard_ns, pinged_ns, used_ns;
	uint8_t in[BRIDGE_IN_BYTES];
	size_t in_have;
	uint8_t *out;
	size_t out_at, out_have, out_size;
	struct err error;
};

/* --- bridge_relay.c --- */

/* A frame to the other side. Always taken; what is too much ends the bridge. */
void relay_say(struct relay *r, enum bridge_type type, uint32_t channel, const void *data, size_t len);
/* Those that have come whole. */
void relay_take_frames(struct relay *r);
/* Where a DATA frame's bytes can be put, behind room for its header, and how many; 0: not now. */
uint8_t *relay_room(struct relay *r, size_t *ret_len);
/* They have been. */
void relay_said_data(struct relay *r, uint32_t channel, size_t len);
bool relay_is_silent(const struct relay *r);
void relay_lose(struct relay *r, int code, const char *why);

/* --- bridge_channel.c --- */

void channel_accept(struct relay *r);
/* The same for one that has been accepted; takes it over. */
void channel_take(struct relay *r, int fd);
/* Events of epoll. */
void channel_event(struct relay *r, struct channel *c, unsigned events);
/* A frame of the other side. */
void channel_frame(struct relay *r, const struct bridge_frame *f, const uint8_t *data);
/* Questions whose time is over, and what else is due; frees what is gone. */
void channels_tick(struct relay *r);
/* Ends them: those that are not patient, or all that go over ssh. */
void channels_reset(struct relay *r, bool patient_too);
/* Those that somebody uses, without askers. */
size_t channels_in_use(const struct relay *r);

#endif
