/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * loginuid.h - who logged in, as auditing remembers it (/proc/PID/loginuid)
 *
 * A number that children inherit. Only a process itself can set its own, and a second time only with CAP_AUDIT_CONTROL. The session id that
 * goes with it is chosen by the kernel of each host.
 */
#ifndef GODWIT_IMAGE_LOGINUID_H
#define GODWIT_IMAGE_LOGINUID_H

#include "image/refuse.h"
#include "kern/remote.h"
#include "task.pb-c.h"

/* Threads with another number than the process's: nobody does that, and it would be lost. */
void loginuid_check(pid_t pid, pid_t tid, struct refusals *r);
/* What this host cannot give (destination, at the offer). */
void loginuid_validate_here(const Gw__Process *msg, struct refusals *r);
/*
 * Gives the process of an empty list of calls its number; it has that of this one, which made it. Needs privileges, and /proc: before its root
 * changes. Blocks.
 */
int loginuid_set(struct batch *b, const Gw__Process *msg, struct err *e);

#endif
