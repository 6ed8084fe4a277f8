/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cgroup_make.c - control groups at the destination; see cgroup.h
 *
 * Theory of operation: a group that is there stays as it is. One that is made gets what differs from what the kernel gave it, limits first and what it allows to
 * those below last. Where the unit has a cgroup namespace, the worker makes that from within the group that is to be its root, before anything is allowed to those
 * below: then no process could be in there.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/cgroup.h"
#include "image/cgroup_bpf.h"
#include "image/cgroup_group.h"
#include "image/ns.h"
#include "image/ns_info.h"

static int write_file(int dir, const char *name, const char *text, size_t len)
{
	cleanup_close int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, text, len) != (ssize_t)len ? -errno : 0;
}

/* What a controller says that has nothing to say: no loss where the destination does not have it. */
static bool is_neutral(const char *value)
{
	static const char *const neutral[] = { "", "max", "0", "1", "100", "default 100", "max 100000", "-1", "prefer", "member" };

	for (size_t i = 0; i < ARRAY_SIZE(neutral); i++)
		if (!strcmp(value, neutral[i]))
			return true;
	return false;
}

/* Lines that are not in `now`, each by itself: that is how the kernel takes what it shows in several. */
static int write_lines(int dir, const char *name, const char *value, const char *now)
{
	while (*value) {
		size_t len = strcspn(value, "\n");
		const char *same = now;
		int ret;

		while (same && !(strncmp(same, value, len) == 0 && (same[len] == '\n' || !same[len])))
			same = strchr(same, '\n') ? strchr(same, '\n') + 1 : NULL;
		ret = same ? 0 : write_file(dir, name, value, len);
		if (ret < 0)
			return ret;
		value += len + (value[len] == '\n');
	}
	return 0;
}

static int apply_setting(int dir, const Gw__CgroupGroup *g, const Gw__CgroupSetting *s, struct err *e)
{
	cleanup_free char *now = must_alloc(CGROUP_SETTING_MAX);
	int ret = cgroup_read_file(dir, s->name, now, CGROUP_SETTING_MAX);

	if (ret == -ENOENT)
		return is_neutral(s->value) ? 0 : err_set(e, -EOPNOTSUPP, "control group %s: %s is %s, and the destination has no such setting there", g->path, s->name, s->value);
	if (ret < 0 || !strcmp(now, s->value))
		return 0;
	ret = strchr(s->value, '\n') ? write_lines(dir, s->name, s->value, now) : write_file(dir, s->name, s->value, strlen(s->value));
	return ret < 0 ? err_sys(e, ret, "control group %s: setting %s to %s", g->path, s->name, s->value) : 0;
}

static int apply_devices(int dir, const Gw__CgroupGroup *g, struct err *e)
{
	cleanup_free char *now = must_alloc(CGROUP_SETTING_MAX);
	int ret;

	if (!g->devices[0] || cgroup_read_file(dir, "devices.list", now, CGROUP_SETTING_MAX) < 0 || !strcmp(now, g->devices))
		return 0;
	ret = write_file(dir, "devices.deny", "a", 1);
	if (ret == 0)
		ret = write_lines(dir, "devices.allow", g->devices, "");
	return ret < 0 ? err_sys(e, ret, "control group %s: devices", g->path) : 0;
}

/* The controllers that the group has at the source must be handed down to it; what is handed down further up already stays. */
static void hand_down(const char *point, const char *path)
{
	char above[2 * PATH_MAX], controllers[4096], word[128], *save;
	cleanup_close int dir = -1;

	snprintf(above, sizeof(above), "%s%s", point, path);
	*strrchr(above, '/') = 0;
	dir = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || cgroup_read_file(dir, "cgroup.controllers", controllers, sizeof(controllers)) < 0)
		return;
	for (char *c = strtok_r(controllers, " ", &save); c; c = strtok_r(NULL, " ", &save)) {
		snprintf(word, sizeof(word), "+%.100s", c);
		(void)!write_file(dir, "cgroup.subtree_control", word, strlen(word));
	}
}

static bool needs_controllers(const Gw__CgroupGroup *g, int dir)
{
	for (size_t i = 0; i < g->n_settings; i++)
		if (!is_neutral(g->settings[i]->value) && faccessat(dir, g->settings[i]->name, F_OK, 0) < 0)
			return true;
	return false;
}

static void give_owner(int dir, const Gw__CgroupGroup *g)
{
	static const char *const files[] = { ".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks" };

	for (size_t i = 0; i < ARRAY_SIZE(files) && (g->uid || g->gid); i++)
		(void)!fchownat(dir, files[i], g->uid, g->gid, AT_SYMLINK_NOFOLLOW);
	(void)!fchmod(dir, g->mode);
}

static int make_group(const Gw__CgroupGroup *g, struct cgroups_made *made, struct err *e)
{
	char point[PATH_MAX], full[2 * PATH_MAX];
	cleanup_close int dir = -1;
	int ret = 0;

	if (!cgroup_find_mount(g->hierarchy, point))
		return 0;
	snprintf(full, sizeof(full), "%s%s", point, g->path);
	if (mkdir(full, 0755) < 0)
		return errno == EEXIST ? 0 : err_sys(e, errno, "control group %s", full);
	made->paths = realloc(made->paths, (made->n + 1) * sizeof(*made->paths));
	if (!made->paths || !(made->paths[made->n++] = strdup(full)))
		abort();
	(void)!setxattr(full, CGROUP_MARK, "made", 4, 0);
	dir = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return err_sys(e, errno, "control group %s", full);
	if (g->threaded)
		ret = write_file(dir, "cgroup.type", "threaded", 8);
	if (ret < 0)
		return err_sys(e, ret, "control group %s: a group of threads", full);
	if (!g->hierarchy[0] && needs_controllers(g, dir))
		hand_down(point, g->path);
	for (size_t i = 0; i < g->n_settings && ret == 0; i++)
		ret = apply_setting(dir, g, g->settings[i], e);
	if (ret == 0)
		ret = apply_devices(dir, g, e);
	if (ret == 0 && !g->hierarchy[0])
		ret = cgroup_bpf_restore(dir, g, e);
	give_owner(dir, g);
	return ret;
}

static bool was_made(const struct cgroups_made *made, const char *full)
{
	for (size_t i = 0; i < made->n; i++)
		if (!strcmp(made->paths[i], full))
			return true;
	return false;
}

static int allow_below(const Gw__CgroupGroup *g, const struct cgroups_made *made, struct err *e)
{
	char point[PATH_MAX], full[2 * PATH_MAX], word[128], *save;
	cleanup_free char *controllers = strdup(g->controllers);
	cleanup_close int dir = -1;

	if (!g->controllers[0] || !cgroup_find_mount(g->hierarchy, point))
		return 0;
	snprintf(full, sizeof(full), "%s%s", point, g->path);
	dir = was_made(made, full) ? open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	for (char *c = strtok_r(controllers, " ", &save); dir >= 0 && c; c = strtok_r(NULL, " ", &save)) {
		int ret;

		snprintf(word, sizeof(word), "+%.100s", c);
		ret = write_file(dir, "cgroup.subtree_control", word, strlen(word));
		if (ret < 0 && ret != -EINVAL && ret != -ENOENT) /* a controller that is not here: a limit that it had is missed where it was set */
			return err_sys(e, ret, "control group %s: handing %s down", full, c);
	}
	return 0;
}

static int move_self(const char *hierarchy, const char *path, struct err *e)
{
	char point[PATH_MAX], full[2 * PATH_MAX];
	cleanup_close int dir = -1;
	int ret;

	if (!cgroup_find_mount(hierarchy, point))
		return 0;
	snprintf(full, sizeof(full), "%s%s", point, path);
	dir = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ret = dir < 0 ? -errno : write_file(dir, "cgroup.procs", "0", 1);
	return ret < 0 ? err_sys(e, ret, "control group %s as the root of a namespace", full) : 0;
}

/* A cgroup namespace has its roots where its maker is. The worker goes on in its own one. */
static int make_namespace(const Gw__Cgroups *msg, struct err *e)
{
	char path[PATH_MAX];
	int ret = cgroup_read_own();

	if (ret < 0)
		return err_sys(e, ret, "/proc/self/cgroup");
	for (size_t i = 0; i < msg->n_roots && ret == 0; i++)
		ret = move_self(msg->roots[i]->hierarchy, msg->roots[i]->path, e);
	if (ret == 0)
		ret = ns_make_cgroups(e);
	for (size_t i = 0; i < msg->n_roots; i++)
		(void)!move_self(msg->roots[i]->hierarchy, cgroup_own_path(msg->roots[i]->hierarchy, path), NULL);
	return ret;
}

static bool is_root(const Gw__Cgroups *msg, const Gw__CgroupGroup *g)
{
	for (size_t i = 0; i < msg->n_roots; i++)
		if (!strcmp(msg->roots[i]->hierarchy, g->hierarchy) && !strcmp(msg->roots[i]->path, g->path))
			return true;
	return false;
}

static bool is_below_root(const Gw__Cgroups *msg, const Gw__CgroupGroup *g)
{
	for (size_t i = 0; i < msg->n_roots; i++) {
		const char *below = strcmp(msg->roots[i]->hierarchy, g->hierarchy) ? NULL : path_below(g->path, msg->roots[i]->path);

		if (below && below[0])
			return true;
	}
	return false;
}

/* First those that are not below the root of a namespace, then that, and then what is allowed below it and is there. */
int cgroups_make(const Gw__Cgroups *msg, bool own_namespace, struct cgroups_made *made, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < msg->n_groups && ret == 0; i++) {
		if (is_below_root(msg, msg->groups[i]))
			continue;
		ret = make_group(msg->groups[i], made, e);
		if (ret == 0 && !is_root(msg, msg->groups[i]))
			ret = allow_below(msg->groups[i], made, e);
	}
	if (ret == 0 && own_namespace)
		ret = make_namespace(msg, e);
	for (size_t i = 0; i < msg->n_groups && ret == 0; i++) {
		if (is_below_root(msg, msg->groups[i]))
			ret = make_group(msg->groups[i], made, e);
		if (ret == 0 && (is_root(msg, msg->groups[i]) || is_below_root(msg, msg->groups[i])))
			ret = allow_below(msg->groups[i], made, e);
	}
	if (own_namespace)
		ns_in_own_cgroups(false);
	return ret;
}

void cgroups_made_undo(struct cgroups_made *made)
{
	while (made->n) {
		(void)!rmdir(made->paths[--made->n]);
		free(made->paths[made->n]);
	}
	free(made->paths);
	*made = (struct cgroups_made){ 0 };
}

static bool is_good_path(const char *path)
{
	size_t len = strlen(path);

	return path[0] == '/' && len < PATH_MAX && !strstr(path, "/../") && !strstr(path, "/./") && !(len >= 3 && !strcmp(path + len - 3, "/.."));
}

int cgroups_validate(const Gw__Cgroups *msg, struct err *e)
{
	if (msg->n_groups > CGROUP_GROUPS_MAX || msg->n_roots > 64)
		return err_set(e, -EBADMSG, "%zu control groups", msg->n_groups);
	for (size_t i = 0; i < msg->n_roots; i++)
		if (!is_good_path(msg->roots[i]->path) || strlen(msg->roots[i]->hierarchy) > 255)
			return err_set(e, -EBADMSG, "a root of a cgroup namespace that cannot be");
	for (size_t i = 0; i < msg->n_groups; i++) {
		const Gw__CgroupGroup *g = msg->groups[i];

		if (strlen(g->hierarchy) > 255 || !is_good_path(g->path) || !g->path[1] || g->mode > 07777 || g->n_settings > 1024)
			return err_set(e, -EBADMSG, "a control group that cannot be");
		if (cgroup_bpf_validate(g, e) < 0)
			return -EBADMSG;
		for (size_t k = 0; k < g->n_settings; k++)
			if (!cgroup_is_setting(g->settings[k]->name) || strlen(g->settings[k]->value) >= CGROUP_SETTING_MAX)
				return err_set(e, -EBADMSG, "control group %s: a setting that cannot be", g->path);
	}
	return 0;
}
