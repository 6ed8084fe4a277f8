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
int ns_user_capture(pid_t root, Gw__Namespaces *msg, struct err *e);
int ns_user_validate(const Gw__Namespaces *msg, struct err *e);

/*
 * Both sides: the functions below tell of the one that is chosen, at first of number 0, which the first process is in. A process in another one (ns_other.h) sees other ids. Returns what was
 * chosen before.
 */
uint32_t ns_user_choose(uint32_t number);
uint32_t ns_user_chosen(void);
/* The maps of one, with ids outside as the host counts. */
void ns_user_remember(uint32_t number, const char *uid_map, const char *gid_map, bool deny_groups, bool has_mounts);
/* Whether it is one of the unit's. */
bool ns_user_is_owned(void);
/* What is seen of an id of the host in there; 65534 for those that are not mapped. The id itself without a user namespace. */
uint32_t ns_user_sees(bool group, uint32_t host_id);
/* The same in place; false: it is not mapped. */
bool ns_user_maps(bool group, uint32_t *id);
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
/* openat(2) with O_CREAT or O_TMPFILE, by the worker. */
int ns_user_create(int directory, const char *name, int open_flags, mode_t mode);
/* In a process that is to be in it, without other threads: with the ids that the unit's first process has, and all capabilities there, also over an exec. */
int ns_user_enter(const Gw__NsUser *u, int ns, struct err *e);

/* --- those that the first process is not in --- */

/* Source: of a process, as the host counts: real, effective and saved user, then group; and its supplementary groups. */
#define NS_USER_IDS 6
void ns_user_read_ids(pid_t pid, uint32_t **ret_ids, size_t *ret_n_ids, uint32_t **ret_groups, size_t *ret_n_groups);
bool ns_user_ids_are_good(size_t n_ids, size_t n_groups);
/* Source: maps, owner. */
int ns_user_read(int ns, Gw__NsOther *out, struct err *e);
int ns_user_validate_other(const Gw__NsOther *o, struct err *e);
/* Destination: makes one below number `parent` (parent_fd; -1: the host's), whose maps are known. Returns a descriptor. */
int ns_user_make_other(const Gw__NsOther *o, uint32_t parent, int parent_fd, struct err *e);
/* In a process for the moment, without other threads: enters number `number`, as the first user and group in it, and chooses it. 0 or -errno. */
int ns_user_be(int ns, uint32_t number);

#endif
