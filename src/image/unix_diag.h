/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unix_diag.h - what only sock_diag(7) tells about the unix sockets of this network namespace: who is connected to whom, what waits
 * in accept queues, which file a name means
 */
#ifndef GODWIT_IMAGE_UNIX_DIAG_H
#define GODWIT_IMAGE_UNIX_DIAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct unix_diag_info {
	uint32_t ino;
	uint8_t state;        /* 1: connected, 7: not, 10: listening (TCP_ESTABLISHED, TCP_CLOSE, TCP_LISTEN) */
	uint8_t shut_down;    /* 1: receiving, 2: sending */
	bool has_peer;        /* has or had one */
	uint32_t peer_ino;    /* 0: it has been closed, or it waits in an accept queue */
	int backlog;          /* of a listener; -1: not told */
	bool has_file;        /* bound to a path, whether that still exists or not */
	uint32_t file_ino;
	uint32_t file_dev;    /* as the kernel encodes it: major << 20 | minor */
	uint32_t *waiting;    /* of a listener: clients in the order of its accept queue; 0: one that has been closed */
	size_t n_waiting;
};

struct unix_diag {
	int nl;                    /* the netlink socket */
	struct unix_diag_info *v;  /* all sockets, sorted by ino, when they have been listed */
	size_t n;
	unsigned looks;
	struct unix_diag_info one;
};

#define UNIX_DIAG_INIT ((struct unix_diag){ .nl = -1 })

/*
 * Looks a socket up by its inode number; NULL when there is none. Valid until the next look or unix_diag_done. After a few looks, each
 * of which makes the kernel search all sockets (some 10 us), all are listed once: what changes later is not seen.
 */
const struct unix_diag_info *unix_diag_look(struct unix_diag *d, uint64_t ino);
void unix_diag_done(struct unix_diag *d);

#endif
