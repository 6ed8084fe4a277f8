/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * udp_outside.h - sockets of UDP that hear from other hosts, or speak to them
 *
 * Their addresses stay what they were (IP_TRANSPARENT), and whoever moves the unit sees to it that datagrams find them (net/redirect.h). What they have received and
 * not read is received once more at the destination: datagrams from the senders' addresses, whosever they are, which a mark makes local.
 */
#ifndef GODWIT_IMAGE_UDP_OUTSIDE_H
#define GODWIT_IMAGE_UDP_OUTSIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "file.pb-c.h"

/* Source: whether datagrams of others find their way; at first they do not. */
void udp_outside_set(bool can_move);
bool udp_outside_can_move(void);
/* Whether it has an end that is to be led elsewhere. */
bool udp_outside_has_end(const Gw__FdTable *t, const Gw__FdDesc *d);

/* Destination, before all others: the mark of packets that are for this host whatever their address. */
void udp_outside_begin(uint32_t mark);
bool udp_outside_begun(void);
/* s receives this, and has no peer yet. */
int udp_outside_receive(const Gw__FdSocket *s, const Gw__FdUnixMessage *m, struct err *e);
/* Tells fd, which is s and connected, that nobody is where it sends to. That such a message is lost is nothing that a program can complain about. */
void udp_outside_refuse(const Gw__FdSocket *s, int fd);

#endif
