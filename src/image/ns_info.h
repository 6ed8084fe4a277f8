/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_info.h - lines of /proc/PID/mountinfo (proc_pid_mountinfo(5)) as a tree
 *
 * After mount_infos_order the list is in the order in which the mounts can be made, or unmounted backwards, by their paths: a parent before its children,
 * and whatever covers a place after all that lies below it.
 */
#ifndef GODWIT_IMAGE_NS_INFO_H
#define GODWIT_IMAGE_NS_INFO_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct mount_info {
	int id, parent;
	unsigned major, minor, group, master;
	char root[PATH_MAX], where[PATH_MAX], type[64], source[PATH_MAX], options[PATH_MAX];
	uint64_t flags; /* MS_* */
	bool unbindable, readonly, idmapped; /* readonly: the file system */
	int above;        /* index of its parent, -1 for the root */
	const char *at;   /* in where: the part below its parent, without a slash */
	int fd;           /* its root, or -1 */
	bool lacking;     /* the destination has not what it shows */
};

struct mount_infos {
	struct mount_info *v;
	size_t n;
};

/* Reads the lines in `text`, which it changes. */
int mount_infos_parse(char *text, struct mount_infos *ret, struct err *e);
int mount_infos_read(const char *path, struct mount_infos *ret, struct err *e);
/* Mounts that the root of the list does not lead to are left out. */
int mount_infos_order(struct mount_infos *l, struct err *e);
/* Whether something is mounted on it. */
bool mount_infos_has_above(const struct mount_infos *l, size_t index);
/* Sets `at` of one whose parent is known. */
void mount_info_set_at(struct mount_infos *l, size_t index);
/* Closes their descriptors. */
void mount_infos_free(struct mount_infos *l);
/* The whole of a file whose size is not known; ends with a 0. */
int read_whole(int fd, char **ret, struct err *e);

/* The octal escapes of blanks in a field of a line, where they stand. */
void mount_unescape(char *s);

/* The part of `path` below `base`, with its slash or empty, or NULL. */
const char *path_below(const char *path, const char *base);
/* Whether a root ends with what the kernel puts behind a name that was removed; *ret_len is the length without it. */
bool mount_root_is_removed(const char *root, size_t *ret_len);

#endif
