/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unix_pair.h - connected pairs of unix sockets, made anew
 *
 * A connected pair is a socketpair(2) whose ends are bound afterwards. That does not do for abstract names, which can be bound once
 * only, while all the sockets that a listener has accepted have its name: such an end is accepted from a listener of that name that
 * lives for a moment, before the unit's own gets the name. Nor does it where the ends say of each other that different users made them
 * (peer_cred.h): there one is accepted, too, from a listener in the den when the name is a path.
 */
#ifndef GODWIT_IMAGE_UNIX_PAIR_H
#define GODWIT_IMAGE_UNIX_PAIR_H

#include "image/file.h"

/* One end of a pair that is to be made. */
struct unix_end {
	const ProtobufCBinaryData *name;
	bool owner; /* of the file, or of the abstract name */
	size_t tag; /* its description, or any other number of its own */
	const Gw__FdUnixCred *cred; /* what it says of the other end */
};

/* listen(2) as the one that clients are to see. Returns 0 or -errno. */
int unix_listen_as(int fd, int backlog, const Gw__FdUnixCred *cred);
/* Gives an end the name that it has without a file, if it has one. Abstract ones: only when it is to hold the name. */
int unix_name_end(struct fd_restore *r, int fd, const ProtobufCBinaryData *name, bool owner, size_t tag, struct err *e);
/* What a process of before made is made by somebody with its number, if that is free, else by this one with its ids. */
int unix_socketpair_as(uint32_t type, const Gw__FdUnixCred *cred, int ret_fds[2], struct err *e);
int unix_make_pair(struct fd_restore *r, uint32_t type, const struct unix_end ends[2], int ret_fds[2], struct err *e);

#endif
