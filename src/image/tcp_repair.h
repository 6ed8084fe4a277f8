/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tcp_repair.h - steps of making a TCP socket the end of a connection without a handshake: TCP_REPAIR of tcp(7)
 *
 * All but the last three need the socket to be in repair mode. Return 0 or -errno.
 */
#ifndef GODWIT_IMAGE_TCP_REPAIR_H
#define GODWIT_IMAGE_TCP_REPAIR_H

#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file.pb-c.h"

#define TCP_SEGMENT_MIN 536u
#define TCP_SEGMENT_MAX 32767u /* of TCP_MAXSEG */

/* Before the connect: the next number to be sent, and the next one expected. */
int tcp_repair_set_numbers(int fd, uint32_t send, uint32_t receive);
/* Behind it, what a handshake would have settled. reversed: of the other end, which has the scales the other way round. */
int tcp_repair_set_settled(int fd, const Gw__FdTcp *p, bool reversed, uint32_t segment_max);
int tcp_repair_set_window(int fd, const struct tcp_repair_window *w);
/* Puts data behind what is in TCP_RECV_QUEUE, or in TCP_SEND_QUEUE as if it had been sent. */
int tcp_repair_fill(int fd, int queue, const uint8_t *data, size_t len);

/* The size of segments has been computed before that of the other end was known: once more. */
void tcp_repair_compute_segments(int fd);
/* TCP_* of <netinet/tcp.h>, or -1. */
int tcp_state_of(int fd);
/* All of it, or -errno. The buffer must have room: tcp_make_room. */
int tcp_send_all(int fd, const uint8_t *data, size_t len, int flags);
void tcp_make_room(int fd, size_t len);

#endif
