/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unix_queue.h - what lies in the receive queue of a unix socket, with names of senders, credentials, and descriptors in flight
 *
 * Read with MSG_PEEK from a duplicate: nothing is taken out. SO_PEEK_OFF walks through the queue. SO_PASSCRED makes the kernel show
 * credentials, and keep pieces of a stream with different ones apart. Both are options of the socket itself, set back afterwards.
 */
#ifndef GODWIT_IMAGE_UNIX_QUEUE_H
#define GODWIT_IMAGE_UNIX_QUEUE_H

#include "image/file_look.h"

#define UNIX_QUEUE_BYTES_MAX (64u << 20)
#define UNIX_QUEUE_MESSAGES_MAX 65536u
#define UNIX_RIGHTS_MAX 253u /* descriptors in one message */

/*
 * Reads the queue of the socket `held`. The descs of each message are descriptors of this process, duplicates of those in flight; the
 * caller gives them a meaning, and closes them. `running`: the program may receive meanwhile; credentials are shown only if it has asked for them. Returns 0 or
 *	-ENODATA   there is out-of-band data
 *	-EMSGSIZE  something that this module cannot read
 * or another error of the kernel.
 */
int unix_queue_read(int held, uint32_t type, bool running, Gw__FdUnixMessage ***ret, size_t *ret_n);
/* Frees messages; with `close_fds` closes their descs, for as long as they are descriptors. */
void unix_queue_free(Gw__FdUnixMessage **v, size_t n, bool close_fds);

int unix_queue_validate(Gw__FdUnixMessage *const *v, size_t n, uint32_t type, size_t n_descs, struct err *e);

/*
 * Sends a message through `via`, to `name` if that is not NULL, with descriptors fds[descs[i]] and credentials of process `pid` (0: the
 * message has none). Does not block.
 */
int unix_queue_send(int via, const Gw__FdUnixMessage *m, const ProtobufCBinaryData *name, const int *fds, pid_t pid, struct err *e);

#endif
