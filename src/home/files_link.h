/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * files_link.h - messages of a file relay, across connections that break
 *
 * Like session.h, for messages that are bytes of another protocol (FUSE's) and larger: numbered, kept until the other side has handled them, handled once and in
 * order. A connection begins with a FILES_RESUME from both sides. Nothing blocks: the owner polls fd for POLLIN, and for POLLOUT while files_link_wants_out.
 */
#ifndef GODWIT_HOME_FILES_LINK_H
#define GODWIT_HOME_FILES_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "wire/frame.h"

#define FRAME_FILES_RESUME 50u /* uint64: number of the last message handled */
#define FRAME_FILES_MESSAGE 51u /* uint64 number, uint64 of the last message handled, the message; an empty one says that there will be no more */
#define FRAME_FILES_ACK 52u    /* uint64: as RESUME */
#define FRAME_FILES_OPEN 53u   /* 16 bytes: the name of a session that begins; before the first RESUME */
#define FILES_MESSAGE_MAX ((1u << 20) + 4096u)

struct files_kept;

struct files_link {
	int fd;                /* -1: not connected */
	bool resumed;          /* the other side's RESUME has come */
	struct frame_reader reader;
	uint64_t seq, handled; /* of the last message sent, and handled */
	unsigned unsaid;       /* messages handled that the other side has not been told of */
	struct files_kept *first, *last;
	struct files_kept *unsent; /* the first that has not been given to this connection as a whole */
	size_t unsent_done;
	uint8_t word[FRAME_HEADER_BYTES + 8]; /* a RESUME or ACK on its way */
	size_t word_len, word_done;
};

#define FILES_LINK_INIT ((struct files_link){ .fd = -1 })

/* Takes over a connection; an earlier one is closed. */
void files_link_attach(struct files_link *l, int fd);
void files_link_detach(struct files_link *l);
/* Keeps a message and sends as much as can be sent. -ENOMEM. */
int files_link_send(struct files_link *l, const struct iovec *iov, size_t n);
/* Takes in what has come. An error means that the connection is to be detached. */
int files_link_input(struct files_link *l, void (*handle)(void *arg, const uint8_t *data, size_t len), void *arg, struct err *e);
int files_link_output(struct files_link *l, struct err *e);
bool files_link_wants_out(const struct files_link *l);
/* Whether everything sent has been handled by the other side. */
bool files_link_settled(const struct files_link *l);

#endif
