/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * socket_groups.h - options of Internet sockets that name a network device: memberships in multicast groups, and devices to send over
 *
 * Devices have other numbers on other hosts: their names travel. In the list of options each of these is one entry, whose value is struct socket_group[] (memberships) or one
 * struct socket_group (a device, with the address that goes with it).
 */
#ifndef GODWIT_IMAGE_SOCKET_GROUPS_H
#define GODWIT_IMAGE_SOCKET_GROUPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "file.pb-c.h"
#include "image/file_look.h"
#include "image/refuse.h"

struct socket_group {
	char device[16]; /* empty: of the kernel's choice */
	uint32_t family;
	uint8_t address[16];
};

#define SOCKET_GROUPS_MAX 1024u

/* Whether an entry is one of these. */
bool socket_groups_is(uint32_t level, uint32_t name);
bool socket_groups_is_valid(const Gw__FdSockOpt *o);
/* Appends those of our descriptor fd. */
void socket_groups_capture(int fd, Gw__FdSockOpt ***v, size_t *n);
/* FD_REFUSED, and a refusal added, when the socket has something that no call shows and nobody carries. */
int socket_groups_refuse(const struct fd_look *look, struct refusals *refusals);
/* was: the entry that has been set before; NULL: none. o is NULL when there is none any more. */
int socket_groups_set(int fd, const Gw__FdSockOpt *was, const Gw__FdSockOpt *o, struct err *e);

#endif
