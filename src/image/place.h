/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * place.h - where this worker finds the paths that a unit sees
 *
 * A unit with a mount namespace of its own sees other files under a path than the worker does; through /proc/PID/root of a process in that namespace the
 * worker reaches them. A worker has one unit, so this is one place. Paths in messages are as the unit sees them.
 */
#ifndef GODWIT_IMAGE_PLACE_H
#define GODWIT_IMAGE_PLACE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A process in the unit's mount namespace; 0: paths are as the worker sees them. */
void place_set(pid_t pid);
/*
 * Files that the unit has open on mounts that are not in its namespace (what a runtime has given to a container) have paths of this form, which lead to the same on every host.
 * See ns_mark_outside.
 */
#define PLACE_OUTSIDE "/proc/self/root"
/*
 * Paths in another mount namespace of the unit's (ns_other.h) than that of its first process are marked with its number.
 */
#define PLACE_SPACE "/proc/self/ns/mnt/"
/* pid: a process in it, whatever its own root is. 0 or -errno. */
int place_set_space(uint32_t number, pid_t pid);
bool place_has_spaces(void);
/* The path with that mark, or as it is for 0. Returns false if it does not fit. */
bool place_mark(uint32_t number, const char *path, char *ret, size_t size);
/* What the unit calls a path that place_of has given. */
const char *place_seen(const char *placed);
/* "" or "/proc/PID/root". */
const char *place_prefix(void);
/* The prefix and the path (the path itself when it is one outside), in one of a few static buffers (up to four are valid at a time). */
const char *place_of(const char *path);

/*
 * For calls that must be given a path as the unit sees it (bind(2) of a unix socket): in between the worker's root is the unit's, or what `root` leads to (empty: the
 * first), where there is no /proc of the worker's. Returns 0 or -errno. A worker that cannot come back ends.
 */
int place_enter(const char *root);
void place_leave(void);

#endif
