/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sock_destroy.h - ends a TCP connection that nobody has any more: sock_diag(7), SOCK_DESTROY */
#ifndef GODWIT_KERN_SOCK_DESTROY_H
#define GODWIT_KERN_SOCK_DESTROY_H

#include <stdbool.h>
#include <sys/socket.h>

/*
 * The connection of this network namespace with these two ends, of one family (addresses of IPv4 mapped into IPv6 are looked for as IPv4), when it belongs to no process
 * (closed, or TIME_WAIT). False: there is none, or the kernel cannot.
 */
bool sock_destroy_orphan(const struct sockaddr *own, const struct sockaddr *peer);
/* The same whoever has it. */
bool sock_destroy(const struct sockaddr *own, const struct sockaddr *peer);

#endif
