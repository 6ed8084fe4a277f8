/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_user.h - the user namespace that a unit has for itself (user_namespaces(7)), and which of its other namespaces belong to it
 *
 * The worker is never in it: it sees the host's ids, and the maps say what the unit sees. At the destination a child, the owner, makes it, with the maps written by the worker, and
 * in it the namespaces that belong to it. The skeleton's first process enters it before it becomes the skeleton, with all capabilities that it has there and none on the host.
 */
#ifndef GODWIT_IMAGE_NS_USER_H
#define GODWIT_IMAGE_NS_USER_H

#include "image/ns.h"

/* Source: `owned` and the rest of msg are there already. */
int ns_user_capture(pid_t root, Gw__Namespaces *msg, struct refusals *r, struct err *e);
int ns_user_validate(const Gw__Namespaces *msg, struct err *e);

/* Whether the worker's unit has one (both sides). */
bool ns_user_is_owned(void);
/* What the unit sees of an id of the host; 65534 for those that are not mapped. The id itself without a user namespace. */
uint32_t ns_user_sees(bool group, uint32_t host_id);
/* The same as whoever makes the unit's mounts has to say it. */
uint32_t ns_user_gives(bool group, uint32_t host_id);
/* Whether an id that the unit sees is one that it can take. */
bool ns_user_can_take(bool group, uint32_t id);
bool ns_user_denies_groups(void);
void ns_user_leave(void);

struct ns_owner {
	pid_t pid;
	int socket, fd; /* to it; the namespace */
};
/* What the owner does then; it ends when this returns. */
typedef void (*ns_user_then)(const Gw__Namespaces *msg, int socket, void *arg);

/* Destination: starts the owner, which goes on in all namespaces that belong to it but for that of mounts, and has called `fill`; the worker enters these, too. */
int ns_user_make(const Gw__Namespaces *msg, int (*fill)(const Gw__Namespaces *msg), ns_user_then then, void *arg, struct ns_owner *ret, struct err *e);
/* open(2) with O_CREAT, by the worker. */
int ns_user_create(const char *path, int open_flags, mode_t mode);
/* In a process that is to be in it, without other threads: with the ids that the unit's first process has, and all capabilities there, also over an exec. */
int ns_user_enter(const Gw__NsUser *u, int ns, struct err *e);

#endif
