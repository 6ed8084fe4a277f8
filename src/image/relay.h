/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * relay.h - descriptors whose other end stays at home: which they are, and the ends that stand for those at the destination
 *
 * A pipe (or FIFO) of which the unit has only read ends, or only write ends, while a process outside has the others, is *relayed*: the unit gets a pipe at
 * the destination, and src/home carries what goes through it. So is a connected unix socket whose other end is outside. A relay has a number for life (relay_id). What lies in the pipe at home stays there, for
 * src/home to read or for whom it was written; what lies in the one of a host that the unit leaves again travels as any pipe's content does.
 *
 * A pseudo-terminal whose master is outside is relayed, too (at most one in a unit): the unit gets another one at the destination, whose master src/home has. What has been
 * typed and not read comes along, and is taken out of the one at home afterwards; what has been written and not shown stays at home.
 */
#ifndef GODWIT_IMAGE_RELAY_H
#define GODWIT_IMAGE_RELAY_H

#include "image/file.h"

enum relay_kind { RELAY_NONE, RELAY_UNIT_READS, RELAY_UNIT_WRITES, RELAY_TERMINAL, RELAY_SOCKET };

#define RELAYS_MAX 1000u
#define RELAY_OWN UINT32_MAX
#define RELAYS_SOCKETS 500u /* from here on the numbers of sockets; below, of pipes */
#define RELAY_TERMINAL_ID 1023u

struct fd_relay {
	uint32_t id;
	enum relay_kind kind;
	uint32_t process; /* source: one that has it (RELAY_OWN: none, fd is the worker's), and its number there; destination: fd is the worker's */
	int fd;
	uint64_t ino;     /* source: of the pipe; the terminal's number; of the end of a socket that the unit has not */
	bool given;       /* destination: the unit has got it; source, of those that have come from home: that the unit has closed it would be known */
};

struct fd_relays {
	struct fd_relay *v;
	size_t n;
};

/* Source: all of the last capture. Free with fd_relays_free. */
int fdtable_list_relays(const struct fdtable *t, struct fd_relays *ret, struct err *e);
/* Source: a relay that has come from home keeps its number: those with these inodes get these ids. Returns how many are not among them. */
size_t fdtable_name_relays(struct fdtable *t, const struct fd_relays *known);
/* Destination: what the unit had instead of a relay before it left home; NULL. */
struct fd_relay *fd_relays_find(const struct fd_relays *r, const Gw__FdPipe *p);
/* Whether there is any; index of the relayed terminal among the table's, or -1. */
bool fdtable_has_relays(const Gw__FdTable *t);
int fdtable_relayed_terminal(const Gw__FdTable *t);
/* Whether it has unix sockets with a file that others connect to. */
bool fdtable_has_unix_listeners(const Gw__FdTable *t);
struct fd_relay *fd_relays_find_socket(const struct fd_relays *r, const Gw__FdUnix *u);
/* Takes fd over. */
int fd_relays_add(struct fd_relay **v, size_t *n, const struct fd_relay *relay, struct err *e);
/* Source, in the freeze: what the unit has written into a relayed socket and src/home has not read cannot come along: -EAGAIN. */
int fdtable_check_relays(const struct fdtable *t, struct err *e);
/* Frees the list, not the descriptors. */
void fd_relays_free(struct fd_relays *r);

#endif
