/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sock_destroy.h - finds a TCP connection by its addresses, and ends one that nobody has any more: sock_diag(7), SOCK_DESTROY */
#ifndef GODWIT_KERN_SOCK_DESTROY_H
#define GODWIT_KERN_SOCK_DESTROY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/*
 * The connection of this network namespace with these two ends, of one family (addresses of IPv4 mapped into IPv6 are looked for as IPv4), when it belongs to no process
 * (closed, or TIME_WAIT). False: there is none, or the kernel cannot.
 */
bool sock_destroy_orphan(const struct sockaddr *own, const struct sockaddr *peer);
/* The same, for many: some microseconds each. */
void sock_make_way(const struct sockaddr *own, const struct sockaddr *peer);
/* The same whoever has it. */
bool sock_destroy(const struct sockaddr *own, const struct sockaddr *peer);
/*
 * All that have ended at this end, with everything acknowledged, and keep the port of `own` from being bound: TIME_WAIT, or FIN_WAIT2 without a process. Their peers hear nothing of it.
 * Returns how many. Walks over all connections.
 */
size_t sock_destroy_ended(const struct sockaddr *own);
/* Whether there is one, which somebody has or will have. */
bool sock_is_connected(const struct sockaddr *own, const struct sockaddr *peer);

#endif
