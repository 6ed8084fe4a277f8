/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * terminal.h - a program's terminal stays at home
 *
 * The unit gets a pseudo-terminal at its host, whose line discipline does all that the one at home did for the program: echo, lines, Ctrl-C, job control; godwit-away holds the
 * master. While the unit is in the foreground at home, the terminal there does nothing to what is typed, so that all keys come through, in order. Its other modes are
 * those that the unit has set, also for what others write there: since output is processed where it is written, godwit-home takes back what the line discipline at
 * the unit's host has done to the ends of lines.
 *
 * When the unit stops, ends or goes to the background, the terminal at home gets all modes that the unit has set, and what was typed and not read; when it comes back to the
 * foreground the unit's gets those of home. So each finds what the other has left, as on one terminal.
 */
#ifndef GODWIT_HOME_TERMINAL_H
#define GODWIT_HOME_TERMINAL_H

#include <asm/termbits.h>
#include <sys/ioctl.h>

#include "home/channel.h"

/* At home. */
struct terminal {
	bool there;            /* there is one */
	uint32_t channel;
	int fd;                /* a duplicate of the channel's */
	bool foreground;       /* as the other side knows */
	bool begun;            /* the unit has been in the foreground since it left */
	bool raw;              /* `set` is in force */
	struct termios2 modes; /* the unit's */
	struct termios2 set;   /* ... without what is done to keys */
	struct winsize size;
	uint8_t *unread;       /* what came back: first what has gone through the unit's line discipline */
	size_t n_unread, n_seen;
	uint64_t held_ns;      /* a carriage return is held back since then, until it is known what comes behind it; 0: none */
};

/* The unit has left, with these modes. `foreground`: keys are for it from now on, until godwit-home looks after the terminal. */
void terminal_begin(struct terminal *t, int fd, const struct termios2 *modes, bool foreground);
/* In godwit-home. Duplicates fd. */
void terminal_open(struct terminal *t, uint32_t channel, int fd);
/* Looks what has changed: `foreground` says whether the unit is in the foreground, and not stopped. Sends TERMIOS, WINDOW, FOREGROUND. */
void terminal_update(struct terminal *t, bool foreground, struct session *s);
/* TERMIOS: the unit has set its modes. */
void terminal_take_modes(struct terminal *t, const Gw__HomeMessage *m);
/* UNREAD: what the unit has not read is kept until terminal_leave. */
void terminal_take_back(struct terminal *t, const Gw__HomeMessage *m);
/* The unit's modes hold here from now on, and whoever reads here next gets what the unit has not read, and what was typed since. */
void terminal_leave(struct terminal *t);
/* DATA: changes the ends of lines in `data`, which has room for one byte more; returns the new length. */
size_t terminal_undo_output(struct terminal *t, uint8_t *data, size_t len);
/* Whether a carriage return is to be written now after all. */
bool terminal_release(struct terminal *t);
/* The signal that a key makes in the foreground group, by the modes of the unit; 0: none. */
int terminal_signal_of(const struct terminal *t, uint8_t key);

/* At the unit's host. */
struct away_terminal {
	int master;            /* the channel's; -1: none, or hung up */
	int slave;             /* keeps it from being hung up; of the session that godwit-away leads, if it controls it */
	bool controls;
	bool returns;          /* what is typed and not read goes back home when the unit stops or ends */
	bool foreground;
	bool told;
	struct termios2 modes; /* as home knows */
	pid_t group;           /* of the unit: its foreground group when it went to the background */
};


void away_terminal_open(struct away_terminal *t, int master);
/* Sends TERMIOS when the unit has changed its modes. */
void away_terminal_tell_modes(struct away_terminal *t, struct session *s);
/* TERMIOS, WINDOW, and DATA of the terminal for a unit that is not in the foreground: it goes back. Returns whether it was one of those. */
bool away_terminal_handle(struct away_terminal *t, const Gw__HomeMessage *m, struct session *s);
/* FOREGROUND: the unit, with this root, is in the foreground. */
void away_terminal_take(struct away_terminal *t, pid_t root);
/* ... not any more, or it stops, or has ended: UNREAD. From now on what was typed goes back. */
void away_terminal_return(struct away_terminal *t, struct session *s);

#endif
