/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * files_listen.h - unix sockets that a unit binds in a directory that home serves, for the programs at home
 *
 * The file of such a socket is one of home's, where it is bound to a socket of this process: what connects to it is a client of the unit's, and is handed to godwit-home (DOOR_CONNECT), which
 * relays it. A stream socket is all that can be offered, since what the unit's is has not been said: who wants another is told EPROTOTYPE. Until godwit-home
 * is there, the unit being frozen, clients wait.
 */
#ifndef GODWIT_HOME_FILES_LISTEN_H
#define GODWIT_HOME_FILES_LISTEN_H

#include <poll.h>
#include <stddef.h>
#include <sys/types.h>

#define FILES_LISTEN_MAX 64u

/* For DOOR_CONNECT. */
void files_listen_for(const char *unit);
/* mknodat(2) of a socket. */
int files_listen_make(int parent, const char *name, mode_t mode);
/* What to wait for, FILES_LISTEN_MAX at most, and what to do then. Returns their number. */
size_t files_listen_poll(struct pollfd *p);
void files_listen_step(const struct pollfd *p, size_t n);
/* Nothing is served any more: those who wait still are handed on. */
void files_listen_end(void);
/* Whether a client waits for godwit-home: then step is to be called in a moment. */
int files_listen_timeout(int ms);

#endif
