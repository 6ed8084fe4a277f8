/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unix_diag.h - what only sock_diag(7) tells about a unix socket of this network namespace */
#ifndef GODWIT_IMAGE_UNIX_DIAG_H
#define GODWIT_IMAGE_UNIX_DIAG_H

#include <stdbool.h>
#include <stdint.h>

struct unix_diag_info {
	int backlog;          /* of a listener; -1: not told */
	uint32_t peer_ino;    /* 0: no peer, or one that has been closed */
	uint8_t shut_down;    /* 1: receiving, 2: sending */
};

/* Looks a socket up by its inode number. False when there is none. Opens a netlink socket: some 20 us. */
bool unix_diag_look(uint64_t ino, struct unix_diag_info *ret);

#endif
