/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pty_internal.h - what the files of pty.h share */
#ifndef GODWIT_IMAGE_PTY_INTERNAL_H
#define GODWIT_IMAGE_PTY_INTERNAL_H

#include "image/pty.h"
#include "kern/tty_record.h"

/* pty.c: source. */
void pty_set_bytes(ProtobufCBinaryData *b, const void *data, size_t len);
void pty_capture_queue(const struct tty_record_end *r, bool lines, Gw__FdPtyEnd *end);
/* What the line discipline would still echo, as bytes. Returns how many; the buffer is three times as large as the echo's. */
size_t pty_decode_echo(const struct tty_record_end *r, uint8_t *to);

/* N, by a descriptor of either end; -1 when it is hung up or no pseudo-terminal. */
int pty_number_of(int fd);

/* pty_relay.c: source: one whose master is outside, by a duplicate of a slave's description. `known`: it was there at the offer. */
int pty_capture_relayed(const struct pty_source *s, uint32_t index, int slave, bool known, struct err *e);

/* Owner and mode of /dev/pts/N. */
int pty_set_owner(const Gw__FdPty *p, struct err *e);

#endif
