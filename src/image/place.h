/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * place.h - where this worker finds the paths that a unit sees
 *
 * A unit with a mount namespace of its own sees other files under a path than the worker does; through /proc/PID/root of a process in that namespace the
 * worker reaches them. A worker has one unit, so this is one place. Paths in messages are as the unit sees them.
 */
#ifndef GODWIT_IMAGE_PLACE_H
#define GODWIT_IMAGE_PLACE_H

#include <sys/types.h>

/* A process in the unit's mount namespace; 0: paths are as the worker sees them. */
void place_set(pid_t pid);
/*
 * Files that the unit has open on mounts that are not in its namespace (what a runtime has given to a container) have paths of this form, which lead to the same on every host.
 * See ns_mark_outside.
 */
#define PLACE_OUTSIDE "/proc/self/root"
/* "" or "/proc/PID/root". */
const char *place_prefix(void);
/* The prefix and the path (the path itself when it is one outside), in one of a few static buffers (up to four are valid at a time). */
const char *place_of(const char *path);

/*
 * For calls that must be given a path as the unit sees it (bind(2) of a unix socket): in between the worker's root is the unit's, where there is
 * no /proc of the worker's. Returns 0 or -errno. A worker that cannot come back ends.
 */
int place_enter(void);
void place_leave(void);

#endif
