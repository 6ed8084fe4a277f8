/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns.h - the namespaces that a unit has for itself (namespaces(7))
 *
 * A unit owns a namespace when its root is in another one than godwitd; those that others of its processes are in are in ns_other.h. The worker itself enters UTS, IPC, network and cgroup namespaces, at the source to see what the unit sees, at the destination after it has made them, where
 * the skeleton then inherits them; connections to other hosts are made outside (ns_outside). The mount namespace is not entered but
 * reached through a process (place.h). The pid namespace is made with the unit's root, which is its first process.
 *
 * What is carried: names of the host; the limits of System V IPC and of message queues; networks (ns_net.h); mounts (ns_mount.h).
 */
#ifndef GODWIT_IMAGE_NS_H
#define GODWIT_IMAGE_NS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"
#include "kern/nsfs.h"
#include "ns.pb-c.h"

/* Those that a worker lives in as its unit does. */
#define NS_ENTERED (NS_BIT(NS_UTS) | NS_BIT(NS_IPC) | NS_BIT(NS_NET) | NS_BIT(NS_CGROUP))
#define NS_OTHERS_MAX 256u
#define NS_MOUNTS_MAX 1024u
#define NS_ENTRIES_MAX 262144u
#define NS_ENTRY_BYTES_MAX (192u << 20) /* of all of them */
#define NS_ASK_BYTES_MAX (4u << 20)

/* Which of them process `pid` has apart from the caller. */
uint32_t ns_owned(pid_t pid);

/* Source: back in godwitd's cgroup namespace (true), where paths of control groups are those of the host, or in the unit's again. */
void ns_in_own_cgroups(bool own);
/* Whether the unit has a cgroup namespace of its own. */
bool ns_has_cgroups(void);
/* Destination: one for the unit, with its roots where the worker is; the worker stays in its own. */
int ns_make_cgroups(struct err *e);


/*
 * Source: enters the root's UTS, IPC, network and cgroup namespaces, and reads what is in them. *ret is NULL for a unit without any of its own. Mounts
 * are not in it yet. has_view: its mount namespace is a view (view.h), and not its own. After this, ns_owned says 0 for them.
 */
int ns_capture(pid_t root, bool has_view, Gw__Namespaces **ret, struct refusals *r, struct err *e);
/* Source: whether the unit has a pid namespace of its own, so that it sees other numbers than the worker. */
bool ns_has_pids(void);
/* The number that a task sees of itself. */
pid_t ns_seen(pid_t tid);
/* Whether it is the first process of a pid namespace, which is not the worker's. */
bool ns_is_first(pid_t pid);
/* Whether it has a network namespace of its own. */
bool ns_has_net(void);
/* Destination: before the worker leaves the host's, and when it is in the unit's, for ns_outside. */
int ns_remember_host_net(struct err *e);
int ns_remember_unit_net(struct err *e);
/* Source: whether a namespace is godwitd's own. Destination: that of a kind, to be closed. */
bool ns_is_hosts(enum ns_kind kind, uint64_t id);
int ns_open_hosts(enum ns_kind kind);
/* Destination, before the worker enters others: remembers godwitd's own. */
int ns_remember_hosts(struct err *e);
/* Settings of System V IPC and of message queues, of the caller's namespace. */
bool ns_setting_is(const char *name, const char *value);
void ns_settings_capture(Gw__NsSetting ***v, size_t *n);
int ns_settings_validate(Gw__NsSetting *const *v, size_t n, struct err *e);
int ns_settings_restore(Gw__NsSetting *const *v, size_t n, struct err *e);
/* Back in the host's network namespace for a connection to another host (true), and back to the unit's (false). */
void ns_outside(bool outside);

/* Source, after ns_capture: processes that are in the unit's pid or network namespace and are none of it, which would lose it when the unit goes. */
void ns_check_others(bool (*is_inside)(void *arg, pid_t pid), void *arg, struct refusals *r);

/* Source: the worker goes back to where it was before ns_capture. */
void ns_leave(void);

void ns_encode(const Gw__Namespaces *msg, uint8_t **ret_data, size_t *ret_len);
int ns_decode(const void *data, size_t len, Gw__Namespaces **ret, struct err *e);

/* Destination: makes them, enters them and fills them; then the mounts, in the namespace of a process that this leaves behind. */
struct ns_made {
	pid_t holder; /* of the mount namespaces; 0: none */
	int user, mounts; /* the user and the first process's mount namespace; -1: none */
	pid_t spaces[NS_OTHERS_MAX]; /* holders of other mount namespaces, by number - 1; they end with the holder */
};
#define NS_MADE_INIT ((struct ns_made){ .user = -1, .mounts = -1 })
#define NS_HIGH_FD 64 /* for descriptors that ns_join finds: above the numbers that the skeleton takes for itself before it joins */
int ns_make(const Gw__Namespaces *msg, struct ns_made *made, struct refusals *r, struct err *e);
/*
 * The part of it that makes the holder: a process in a new mount namespace, where make(arg) has put the mounts together. first: that is the first process's.
 */
int ns_hold(int (*make)(const void *arg, pid_t *ret_pids, struct err *e), const void *arg, bool first, struct ns_made *made, struct err *e);
/*
 * In the new process, which is to be in the namespace's own pid namespace already: enters the mount namespace and mounts what belongs to a pid namespace. msg is NULL
 * for a unit that has only a view (view.h).
 */
int ns_join(const Gw__Namespaces *msg, const struct ns_made *made, struct err *e);
/* Ends the holder. */
void ns_made_free(struct ns_made *made);

#endif
