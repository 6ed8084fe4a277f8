/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cgroup_group.h - what cgroup_group.c and cgroup_make.c share */
#ifndef GODWIT_IMAGE_CGROUP_GROUP_H
#define GODWIT_IMAGE_CGROUP_GROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#define CGROUP_MARK "trusted.godwit" /* of a group that godwitd has made */

#define CGROUP_SETTING_MAX 65536u /* bytes of a value, with its 0 */

/* Reads /proc/self/cgroup: where this worker is, in its own cgroup namespace. 0 or -errno. */
int cgroup_read_own(void);
/* Where it was then in a hierarchy; "" when it was nowhere. */
const char *cgroup_own_path(const char *hierarchy, char path[PATH_MAX]);
/* Whether a file of a group is one of its settings, by its name. */
bool cgroup_is_setting(const char *name);
/* Without the line's end. */
int cgroup_read_file(int dir, const char *name, char *text, size_t size);

#endif
