/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tun.h - /dev/net/tun: the interface that a descriptor makes, with its addresses
 *
 * The interface is made in the preparation and goes up, with its addresses, in the freeze. Routes over it other than those that its
 * addresses make are the host's. Packets that the program has not read cannot be put into another queue: then the freeze asks for
 * another attempt.
 */
#ifndef GODWIT_IMAGE_TUN_H
#define GODWIT_IMAGE_TUN_H

#include "image/file_look.h"
#include "image/refuse.h"

bool tun_is_one(const struct stat *st);
int tun_capture(const struct fd_look *look, Gw__FdDesc *d, bool frozen, struct refusals *refusals, struct err *e);
int tun_validate(const Gw__FdDesc *d, struct err *e);
int tun_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
int tun_fill(const Gw__FdDesc *d, int fd, struct err *e);

#endif
