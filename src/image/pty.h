/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pty.h - pseudo-terminals (pty(7), ioctl_tty(2)): with both ends in the unit, or with the master at home (relay.h)
 *
 * A pseudo-terminal is one FdPty; each open file description of one of its ends names it. Whether somebody outside has an end open, too, is
 * told by the kernel's count of descriptions, and by a look at who shares those of the unit. What lies in its buffers is looked at without taking it out (kern/tty_peek.h), so
 * that a migration that fails leaves no trace.
 *
 * It keeps its number N of /dev/pts/N, for programs remember the name of their terminal (ttyname, SSH_TTY, GPG_TTY). Where N belongs to another
 * terminal the unit is refused. One whose master is at home gets another number then, since half of all terminals are number 0.
 *
 * Restoring: the pair is made in the preparation, empty. In the freeze its buffers are filled: what the master can read is written to
 * the slave without output processing, what the slave can read is given to the line discipline one character at a time (TIOCSTI), with all
 * special characters off but the one that makes a line end where there was one. Then come its settings. What the line discipline had not
 * seen yet, for want of room, is written to the master at last.
 */
#ifndef GODWIT_IMAGE_PTY_H
#define GODWIT_IMAGE_PTY_H

#include "image/file_look.h"
#include "image/refuse.h"

#define PTYS_MAX 4096u

/* The source's view of the descriptions, for pty_capture. */
struct pty_source {
	Gw__FdTable *msg;
	int (*held)(void *arg, uint32_t desc);   /* the worker's duplicate, -1: closed */
	int (*number)(void *arg, uint32_t desc); /* a number that a process has it at, for messages */
	void (*refused)(void *arg, uint32_t desc);
	bool (*inside)(void *arg, pid_t pid);    /* whether a process belongs to the unit, or to this worker */
	pid_t (*seen)(const void *arg, int type, pid_t id); /* a process or group (F_OWNER_*) as the unit numbers it; 0: none of it */
	void *arg;
	pid_t (*process)(const void *arg, size_t i); /* the unit's processes, the root first; 0: no more */
	int (*terminal)(void *arg, uint32_t number); /* the worker's own description of the root's controlling terminal, N of /dev/pts/N; -1: it has none */
	bool relays_travel;                      /* what lies in a relayed terminal comes along */
	uint64_t **ids;                          /* the source's own names of msg->ptys: grows */
	bool frozen;                             /* contents are wanted */
	struct refusals *refusals;
};

/* The kind of a terminal's device, GW__FD_KIND__FD_CLOSED for one that is no pseudo-terminal. */
Gw__FdKind pty_kind(uint32_t device_major, uint32_t device_minor);

bool pty_is_kind(Gw__FdKind kind);

/* Whether a duplicate with the inode of description d is of its pseudo-terminal. */
bool pty_same(const Gw__FdDesc *d, int fd);

/*
 * Fills msg->ptys, and index, number and state of the descriptions of their ends. One whose master is outside is relayed; more of them are refused.
 * -EAGAIN: one changed in a way that the destination cannot follow, or does not settle.
 */
int pty_capture(const struct pty_source *s, struct err *e);

int pty_validate(const Gw__FdTable *t, struct err *e);
/* Whether `new` may follow `old`. */
int pty_validate_update(const Gw__FdTable *old, const Gw__FdTable *new, struct err *e);

/* Destination, at the offer: adds what this host cannot give. */
void pty_judge(const Gw__FdTable *t, struct refusals *refusals);

/*
 * A new master, locked still, by the ptmx at `path` (openat(2)), that has this number; with higher_does a higher one will do. -EBUSY: the number is another's.
 */
int pty_make_master(int dir, const char *path, uint32_t number, bool higher_does, struct err *e);

struct pty_made {
	int master;    /* the worker's; -1: not made, or closed in the unit */
	bool done, home;
	int *early;    /* by description: opened when it was made, until pty_open gives it away; -1: none */
	size_t n_early;
};

/* The unit comes home: its relayed terminal is one that exists. Neither its contents nor its settings are looked after here. */
struct pty_home {
	int fd;                                                 /* a description of it */
	int (*open_tty)(void *arg, int flags, struct err *e);   /* opens /dev/tty by a process that it controls; NULL: not now */
	void *arg;
};

/* The worker's pseudo-terminals, by index. */
struct pty_set {
	const struct pty_home *home; /* NULL: the relayed one is made anew */
	struct pty_made *v;
	size_t n;
};

/* Makes all pseudo-terminals of the offer, before any process exists that one of them controls. A relayed one that has another number here gets it in the table, too. */
int pty_make_all(const Gw__FdTable *t, struct pty_set *set, struct err *e);
/* The same numbers for the table of the freeze. */
void pty_set_numbers(const Gw__FdTable *from, Gw__FdTable *t);
/* A new description of the slave, O_CLOEXEC. */
int pty_open_slave(int master, int flags, struct err *e);
/* Opens description i of the table; the first one of a pseudo-terminal that is new since then makes it. */
int pty_open(const Gw__FdTable *t, size_t i, struct pty_set *set, int *ret_fd, struct err *e);
/* In the freeze: contents and settings. */
int pty_fill(const Gw__FdTable *old, const Gw__FdTable *t, const struct pty_set *set, struct err *e);
void pty_set_free(struct pty_set *set);

#endif
