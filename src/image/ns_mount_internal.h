/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_mount_internal.h - what the files of ns_mount share */
#ifndef GODWIT_IMAGE_NS_MOUNT_INTERNAL_H
#define GODWIT_IMAGE_NS_MOUNT_INTERNAL_H

#include "image/ns_mount.h"

#ifndef MOVE_MOUNT_SET_GROUP
#define MOVE_MOUNT_SET_GROUP 0x100
#endif

/* Source: one mount namespace of the unit's. */
struct mount_space {
	uint32_t number;
	char *lines; /* as they were read, for the comparison in the freeze */
	int fd;      /* that they can be read from */
	struct mount_own {
		int id;
		unsigned major, minor;
		char *where, *root; /* where: from the namespace's root on */
		bool used;   /* by something of the unit that has been looked at: a file, a directory */
	} *own;
	size_t n_own;
};

const struct mount_space *mount_spaces(size_t *ret_n);
/* The host's mounts. */
const struct mount_infos *mount_host(void);

/* Destination. */
struct maker {
	const Gw__Namespaces *msg;
	bool late;
	uint32_t space; /* which mount namespace is put together */
	const char *base; /* directory in which that is done */
	uint32_t numbers; /* if late: what belongs to which pid namespace */
	int *mounts; /* root of each mount, -1: not made, or not by this process and not to be reached; shared with children */
	int *fs;     /* root of each file system */
	int *spaces; /* each mount namespace, 0 is the first process's; -1: none, or not here; shared as well */
};

/* In a process of the pid namespace `numbers`: mounts what belongs to that one. ns: the first process's mount namespace, -1: it has none. */
int mount_join_late(const Gw__Namespaces *msg, uint32_t numbers, int ns, struct err *e);
/* Into one of the mount namespaces, which m->space is then. */
int mount_enter_space(struct maker *m, uint32_t space);
/* When all that are made are in place: their peer groups and masters. */
int mount_set_groups(struct maker *m, struct err *e);

#endif
