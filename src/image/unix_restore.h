/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unix_restore.h - unix(7) sockets of the unit, the destination's side
 *
 * Prepared (unix_open): sockets and connected pairs exist, with the names that no file belongs to. In the freeze (unix_fill): names
 * with files, listening, accept queues, connected datagram sockets, queues, ends of connections, in that order: a message can be sent
 * only while its receiver takes messages from that sender.
 */
#ifndef GODWIT_IMAGE_UNIX_RESTORE_H
#define GODWIT_IMAGE_UNIX_RESTORE_H

#include "image/file.h"

/* Makes all unix sockets of t from index `from` on: r->fds, and in r->others the ends that nobody has any more. */
int unix_open(const Gw__FdTable *t, size_t from, struct fd_restore *r, struct err *e);
/* *ret_desc is the description that an error is about. */
int unix_fill(const Gw__FdTable *t, const struct fd_env *env, struct fd_restore *r, size_t *ret_desc, struct err *e);

#endif
