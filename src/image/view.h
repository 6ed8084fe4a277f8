/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * view.h - the view of a unit that is away from home: a copy of the host's mounts, with directories of home over them
 *
 * A unit that uses files which only its home has gets a mount namespace in which those directories are a FUSE file system (type fuse.godwit) that home serves
 * (home/files_serve.h). Everything else there is the host's. A view is no namespace of the unit's own (ns.h): at home again the unit has none. All that has to be
 * known to move on is in the mounts themselves: the source of each is "ADDRESS/TOKEN" of home's export, and the mounted directories are "/0", "/1" of it.
 */
#ifndef GODWIT_IMAGE_VIEW_H
#define GODWIT_IMAGE_VIEW_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "control.pb-c.h"
#include "image/ns.h"

#define VIEW_TOKEN_BYTES 16u
#define VIEW_DIRECTORIES_MAX 64u

/* Source: whether `pid`'s mount namespace is a view; *ret is malloc'ed then (gw__view__free_unpacked). An error, or 0 and *ret NULL when it is none. */
int view_read(pid_t pid, Gw__View **ret, struct err *e);
/* Source: view_use for the unit with that process, which has it already. */
void view_enter(pid_t pid, const Gw__View *v);
/* Checks what came from another host. */
int view_validate(const Gw__View *v, struct err *e);
/* Whether `path` is one of the directories or below one. */
bool view_covers(const Gw__View *v, const char *path);
/* The view that this worker's unit has, or is to have (borrowed; NULL: none), for view_has. Like its place (place.h) it is one for the whole worker. */
void view_use(const Gw__View *v);
bool view_has(const char *path);
/* Source: whether that is the file system of the view that the unit is in. */
bool view_has_device(dev_t device);
struct sockaddr_in view_address(const Gw__View *v);
/*
 * Destination: makes the view; `fuse` is a descriptor of /dev/fuse for which somebody answers. made->holder is the process in whose mount namespace it is.
 */
int view_make(const Gw__View *v, int fuse, struct ns_made *made, struct err *e);

/*
 * Home: which directory to serve for `path`: the mount point of its file system, or, on the root file system, the first directory of the path (/home; of /var the next: /var/lib), when that is neither the
 * system's (/usr, /etc and the like, which are each host's own) nor something of the kernel's. Returns false when there is none; `ret` has PATH_MAX bytes.
 */
bool view_directory_for(const char *path, char *ret);

#endif
