/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * frame.h - what travels on a connection between two nodes: a fixed header, then a payload
 *
 *	offset  size  field     (little-endian)
 *	0       4     magic     'G' 'D' 'W' '1'
 *	4       2     type      enum frame_type
 *	6       2     flags     for the type; 0 where nothing is said
 *	8       4     len       bytes of payload that follow; the receiver has a limit for each type
 *	12      4     reserved  0 from the sender, ignored by the receiver
 *
 * The payload of most types is a protobuf message (proto/). A receiver refuses a wrong magic and a length above its limit
 * before it allocates anything. See docs/wire.md.
 */
#ifndef GODWIT_WIRE_FRAME_H
#define GODWIT_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

#define FRAME_MAGIC 0x31574447u /* "GDW1" read as a little-endian number */
#define FRAME_HEADER_BYTES 16u
#define FRAME_PAYLOAD_MAX (256u << 20) /* no limit passed to this module may be larger */
#define FRAME_HELLO_MAX 4096u          /* limit for a HELLO and for an ERROR */

/* The numbers are part of the protocol: append, never renumber. */
enum frame_type {
	FRAME_HELLO = 1,   /* Hello: first frame of every connection */
	FRAME_OFFER,       /* what the unit consists of */
	FRAME_ACCEPT,      /* the destination takes it */
	FRAME_REFUSE,      /* the destination does not, with every reason */
	FRAME_CONTENT,     /* contents of a file that the destination lacks */
	FRAME_PREPARED,    /* the skeleton stands */
	FRAME_ROUND,       /* a pre-copy round */
	FRAME_GO,          /* everything that is left; its end is the resume signal */
	FRAME_RESUMED,     /* the destination owns the process */
	FRAME_ABORT,       /* the sender gives up, with a reason */
	FRAME_ASK,         /* who owns the migration? */
	FRAME_ANSWER,      /* answer to ASK */
	FRAME_RELEASE,     /* the source holds nothing any more */
	FRAME_ERROR,       /* error number and sentence (frame_send_error) */
	FRAME_NODE_INFO,   /* NodeInfo: answer to a HELLO with ROLE_NODE_INFO */
	FRAME_FILES,       /* FileSync: files that are new or have changed since the offer */
	FRAME_MOUNTS,      /* NsAsk before the offer, and NsAnswer: what the destination lacks of what is mounted */
	FRAME_AHEAD,       /* pages of the working set, before GO: migrate/ahead.h */
	FRAME_THREADS,     /* ThreadsAhead: threads that sleep, behind AHEAD of their process */
	FRAME_NET,         /* NetAnswer, empty and before the offer: whether connections with others can go on at the destination; and the answer */
	FRAME_CONNECTIONS, /* FdTable, a difference: connections that are idle with other numbers than told before; and the empty answer */
	FRAME_TYPE_FREE,   /* the first number not used in this header */
};

/* A received frame; owns its payload. */
struct frame {
	uint16_t type;
	uint16_t flags;
	uint32_t len;     /* bytes of payload */
	uint8_t *payload; /* len bytes and a 0 behind them, NULL when len is 0 */
};

/* The state of a frame that arrives piece by piece on a non-blocking descriptor. Zero it before use. */
struct frame_reader {
	uint8_t header[FRAME_HEADER_BYTES];
	size_t have; /* bytes received of header and payload together */
	struct frame frame;
};

/* The name of a type for messages; a static string, "unknown" for numbers outside the enum. */
const char *frame_type_name(uint16_t type);

/*
 * Reads a header. Checks magic and length; the type is the caller's affair. ret->payload is NULL.
 * -EPROTO with what was expected and what was seen.
 */
int frame_header_decode(const uint8_t header[FRAME_HEADER_BYTES], size_t max_len, struct frame *ret, struct err *e);
void frame_header_encode(uint8_t header[FRAME_HEADER_BYTES], uint16_t type, uint16_t flags, uint32_t len);

/*
 * Sends one frame on a socket, blocking (also on a non-blocking descriptor, up to a minute without progress: -ETIMEDOUT).
 * A dead peer is an error, never a signal. payload may be NULL when len is 0.
 */
int frame_send(int fd, uint16_t type, const void *payload, size_t len, struct err *e);
/* The same with flags, gathering the payload from n pieces (at most 64). */
int frame_sendv(int fd, uint16_t type, uint16_t flags, const struct iovec *payload, size_t n, struct err *e);
/* Sends FRAME_ERROR: 4 bytes errno (positive, little-endian), then the sentence. */
int frame_send_error(int fd, int code, const char *message, struct err *e);

/*
 * Receives one frame. timeout_ms covers the whole frame; negative: no limit. Works on blocking and non-blocking sockets.
 * Errors: -EPROTO (garbage or a payload above max_len), -ECONNRESET (the peer closed), -ETIMEDOUT, -ENOMEM, and what recv says.
 * On success the caller owns ret->payload (frame_free). On failure *ret is untouched.
 */
int frame_recv(int fd, struct frame *ret, size_t max_len, int timeout_ms, struct err *e);
/* The same, for when only one type makes sense: another one is -EPROTO, and a FRAME_ERROR becomes the error it carries. */
int frame_recv_expect(int fd, uint16_t type, struct frame *ret, size_t max_len, int timeout_ms, struct err *e);
/* Turns the payload of a FRAME_ERROR (untrusted) into an error; returns its code. */
int frame_error_decode(const struct frame *frame, struct err *e);

/*
 * Receives what is there without blocking. 1: complete, and *ret is the caller's; the reader is empty again. 0: more must come.
 * Errors like frame_recv; afterwards only frame_reader_free may be called.
 */
int frame_reader_step(struct frame_reader *reader, int fd, size_t max_len, struct frame *ret, struct err *e);
void frame_reader_free(struct frame_reader *reader);

void frame_free(struct frame *frame);
#define cleanup_frame __attribute__((cleanup(frame_free)))

#endif
