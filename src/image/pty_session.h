/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pty_session.h - controlling terminals and their foreground process groups (credentials(7), tcsetpgrp(3))
 *
 * A pseudo-terminal of the unit (pty.h) names the session that it controls. The session's leader takes it again in the preparation, when the
 * terminals have been made; a process inherits its controlling terminal from its parent at its birth, so those that are to have it
 * must be born after that. The foreground group is set when all processes have their groups.
 */
#ifndef GODWIT_IMAGE_PTY_SESSION_H
#define GODWIT_IMAGE_PTY_SESSION_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "file.pb-c.h"
#include "image/refuse.h"
#include "image/tree.h"
#include "kern/remote.h"

/*
 * Source: refuses a process whose controlling terminal (tty_nr of /proc/PID/stat) is none of the unit's, or belongs to a session whose leader
 * is not in the unit; unless it is the terminal of the root's session, which is relayed (relay.h).
 */
void pty_check_controlling(pid_t pid, int tty_nr, const Gw__FdTable *t, bool (*inside)(void *arg, pid_t pid), void *arg, struct refusals *r);

/* N of /dev/pts/N, of a terminal as stat has it (tty_nr); -1: no pseudo-terminal. */
int pty_number_of_tty(int tty_nr);

/* The terminal that a session has: its index, or -1. */
int pty_of_session(const Gw__FdTable *t, pid_t session);
/* The one that the root has from a leader outside (FdPty.inherited). */
int pty_inherited(const Gw__FdTable *t);

/* Destination: the leader of session `pid` takes its terminal, as soon as it has begun the session. Runs the batch (of a task of the leader). */
int pty_restore_controlling(const Gw__FdTable *t, pid_t pid, struct batch *b, struct err *e);
/* A process of a session with a terminal that has none itself: it gives up what it was born with. */
int pty_give_up_controlling(struct batch *b, struct err *e);

/*
 * Plans the foreground group of the session of `pid`, by its leader, which has the table of this process: behind fdtable_restore_update. The root (process 0)
 * does it for the session that it is born to. `home_group`: the root is on its own terminal again, whose name
 * need not be one here (devpts has instances), and in this group, in whose place it had one of its own; 0.
 */
void pty_plan_foreground(const Gw__FdTable *t, pid_t pid, uint32_t process, pid_t home_group, const struct tree *tree, struct batch *b);

#endif
