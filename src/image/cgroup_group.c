/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cgroup_group.c - reading the groups that a unit is in; see cgroup.h
 *
 * What a group's settings are is not written down here: they are the files that can be written and read, but for those that count, that say who is in it, or
 * that do something. The destination writes only what differs from what a new group has.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/cgroup.h"
#include "image/cgroup_bpf.h"
#include "image/cgroup_group.h"
#include "image/ns.h"

#define DEPTH_MAX 64u
bool cgroup_is_setting(const char *name)
{
	static const char *const no[] = { "cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.type", "cgroup.subtree_control", "cgroup.event_control", "tasks", "release_agent",
					  "memory.reclaim", "memory.force_empty", "cpuset.memory_pressure_enabled" };
	static const char *const counters[] = { "usage", "failcnt", "peak", ".stat", "events", "pressure", ".current", "_stat" };

	if (strchr(name, '/') || !strchr(name, '.') || name[0] == '.')
		return !strcmp(name, "notify_on_release");
	for (size_t i = 0; i < ARRAY_SIZE(no); i++)
		if (!strcmp(name, no[i]))
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
		if (strstr(name, counters[i]))
			return false;
	return true;
}

int cgroup_read_file(int dir, const char *name, char *text, size_t size)
{
	cleanup_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = fd < 0 ? -1 : 0;

	while (fd >= 0 && len < size - 1 && (n = read(fd, text + len, size - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = 0;
	while (len && text[len - 1] == '\n')
		text[--len] = 0;
	return n < 0 ? -errno : 0;
}

static void add_setting(Gw__CgroupGroup *g, const char *name, const char *value)
{
	Gw__CgroupSetting *s = must_alloc(sizeof(*s));

	gw__cgroup_setting__init(s);
	string_set(&s->name, name);
	string_set(&s->value, value);
	g->settings = realloc(g->settings, (g->n_settings + 1) * sizeof(*g->settings));
	if (!g->settings)
		abort();
	g->settings[g->n_settings++] = s;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(Gw__CgroupSetting *const *)a)->name, (*(Gw__CgroupSetting *const *)b)->name);
}

static void read_group(int dir, Gw__CgroupGroup *g)
{
	cleanup_free char *text = must_alloc(CGROUP_SETTING_MAX);
	cleanup_closedir DIR *d = fdopendir(fcntl(dir, F_DUPFD_CLOEXEC, 0));
	struct stat st;

	if (fstat(dir, &st) == 0) {
		g->uid = st.st_uid;
		g->gid = st.st_gid;
		g->mode = st.st_mode & 07777;
	}
	g->threaded = cgroup_read_file(dir, "cgroup.type", text, CGROUP_SETTING_MAX) == 0 && !strcmp(text, "threaded");
	if (cgroup_read_file(dir, "cgroup.subtree_control", text, CGROUP_SETTING_MAX) == 0)
		string_set(&g->controllers, text);
	if (cgroup_read_file(dir, "devices.list", text, CGROUP_SETTING_MAX) == 0)
		string_set(&g->devices, text);
	if (!g->hierarchy[0])
		cgroup_bpf_capture(dir, g);
	if (d)
		rewinddir(d);
	for (struct dirent *entry; d && (entry = readdir(d));)
		if (cgroup_is_setting(entry->d_name) && fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0600) == 0600 &&
		    cgroup_read_file(dir, entry->d_name, text, CGROUP_SETTING_MAX) == 0)
			add_setting(g, entry->d_name, text);
	qsort(g->settings, g->n_settings, sizeof(*g->settings), by_name); /* limits come before those that must not be below them */
}

static Gw__CgroupGroup *find(const Gw__Cgroups *msg, const char *hierarchy, const char *path)
{
	for (size_t i = 0; i < msg->n_groups; i++)
		if (!strcmp(msg->groups[i]->hierarchy, hierarchy) && !strcmp(msg->groups[i]->path, path))
			return msg->groups[i];
	return NULL;
}

static void add_group(Gw__Cgroups *msg, const char *hierarchy, const char *path, int dir)
{
	Gw__CgroupGroup *g = must_alloc(sizeof(*g));

	gw__cgroup_group__init(g);
	string_set(&g->hierarchy, hierarchy);
	string_set(&g->path, path);
	read_group(dir, g);
	msg->groups = realloc(msg->groups, (msg->n_groups + 1) * sizeof(*msg->groups));
	if (!msg->groups)
		abort();
	msg->groups[msg->n_groups++] = g;
}

static bool is_frozen(int dir)
{
	char text[4096];

	return (cgroup_read_file(dir, "cgroup.events", text, sizeof(text)) == 0 && strstr(text, "frozen 1")) ||
	       (cgroup_read_file(dir, "freezer.state", text, sizeof(text)) == 0 && strcmp(text, "THAWED") != 0);
}

/* A group and those above it. */
static int add_path(Gw__Cgroups *msg, const char *hierarchy, const char *path, struct refusals *r, struct err *e)
{
	char point[PATH_MAX], full[2 * PATH_MAX], at[PATH_MAX];

	if (!cgroup_find_mount(hierarchy, point))
		return 0;
	snprintf(at, sizeof(at), "%s", path);
	for (char *end = at + 1; at[1] && end; end = strchr(end, '/') ? strchr(end, '/') + 1 : NULL) {
		char *slash = strchr(end, '/');
		cleanup_close int dir = -1;

		if (slash)
			*slash = 0;
		snprintf(full, sizeof(full), "%s%s", point, at);
		dir = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return err_sys(e, errno, "control group %s", full);
		if (!slash && is_frozen(dir))
			refusals_add(r, "cgroup.frozen", "what is frozen cannot be taken along", "thaw it first", "control group %s", full);
		if (msg->n_groups >= CGROUP_GROUPS_MAX)
			return err_set(e, -E2BIG, "more than %u control groups", CGROUP_GROUPS_MAX);
		if (!find(msg, hierarchy, at))
			add_group(msg, hierarchy, at, dir);
		if (slash)
			*slash = '/';
	}
	return 0;
}

/* What is below a group that the unit is in, whether or not somebody is in there. */
static void add_below(Gw__Cgroups *msg, const char *hierarchy, const char *point, const char *path, unsigned depth)
{
	char full[2 * PATH_MAX], inner[PATH_MAX];
	cleanup_closedir DIR *d = NULL;

	snprintf(full, sizeof(full), "%s%s", point, path);
	d = opendir(full);
	for (struct dirent *entry; d && depth < DEPTH_MAX && (entry = readdir(d));) {
		cleanup_close int dir = -1;

		if (entry->d_type != DT_DIR || entry->d_name[0] == '.' || snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name) >= (int)sizeof(inner))
			continue;
		snprintf(full, sizeof(full), "%s%s", point, inner);
		dir = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0 || msg->n_groups >= CGROUP_GROUPS_MAX)
			continue;
		if (!find(msg, hierarchy, inner))
			add_group(msg, hierarchy, inner, dir);
		add_below(msg, hierarchy, point, inner, depth + 1);
	}
}

/* The roots of the unit's cgroup namespace: what is cut off of the paths when its first process is looked at from in there. */
static void mark_roots(Gw__Cgroups *msg, pid_t root, const Gw__Process *first)
{
	cleanup_fclose FILE *f = NULL;
	char file[64], line[PATH_MAX + 512];

	msg->roots = must_alloc((first->n_cgroups + 1) * sizeof(*msg->roots));
	snprintf(file, sizeof(file), "/proc/%d/cgroup", root);
	f = fopen(file, "re");
	while (f && msg->n_roots < first->n_cgroups && fgets(line, sizeof(line), f)) {
		char *names = strchr(line, ':'), *seen = names ? strchr(names + 1, ':') : NULL;

		if (!seen)
			continue;
		*seen++ = 0;
		seen[strcspn(seen, "\n")] = 0;
		for (size_t i = 0; i < first->n_cgroups; i++) {
			const char *path = first->cgroups[i]->path;
			size_t cut = strcmp(seen, "/") ? strlen(seen) : 0;
			char above[PATH_MAX];
			Gw__CgroupRoot *r;

			if (first->cgroups[i]->tid || strcmp(first->cgroups[i]->hierarchy, names + 1) || strlen(path) < cut || strcmp(path + strlen(path) - cut, cut ? seen : ""))
				continue;
			snprintf(above, sizeof(above), "%.*s", (int)(strlen(path) - cut), path);
			msg->roots[msg->n_roots++] = r = must_alloc(sizeof(*r));
			gw__cgroup_root__init(r);
			string_set(&r->hierarchy, names + 1);
			string_set(&r->path, above[0] ? above : "/");
			break;
		}
	}
}

/* Whether a process before the i-th is in the same group as it is by its k-th place. */
static bool was_seen(Gw__Process *const *processes, size_t i, size_t k)
{
	const Gw__CgroupPlace *p = processes[i]->cgroups[k];

	for (size_t before = 0; before <= i; before++)
		for (size_t place = 0; place < (before == i ? k : processes[before]->n_cgroups); place++) {
			const Gw__CgroupPlace *other = processes[before]->cgroups[place];

			if (!strcmp(other->path, p->path) && !strcmp(other->hierarchy, p->hierarchy))
				return true;
		}
	return false;
}

int cgroups_capture(pid_t root, Gw__Process *const *processes, size_t n, Gw__Cgroups **ret, struct refusals *r, struct err *e)
{
	Gw__Cgroups *msg = must_alloc(sizeof(*msg));
	char point[PATH_MAX];
	int code = 0;

	*msg = (Gw__Cgroups)GW__CGROUPS__INIT;
	if (ns_has_cgroups())
		mark_roots(msg, root, processes[0]);
	ns_in_own_cgroups(true);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < processes[i]->n_cgroups && code == 0; k++)
			code = was_seen(processes, i, k) ? 0 : add_path(msg, processes[i]->cgroups[k]->hierarchy, processes[i]->cgroups[k]->path, r, e);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < processes[i]->n_cgroups && code == 0; k++) {
			const Gw__CgroupPlace *p = processes[i]->cgroups[k];

			if (!was_seen(processes, i, k) && !cgroup_leads_here(p->hierarchy, p->path) && cgroup_find_mount(p->hierarchy, point))
				add_below(msg, p->hierarchy, point, p->path, 0);
		}
	for (size_t i = 0; i < msg->n_roots && code == 0; i++)
		if (!cgroup_leads_here(msg->roots[i]->hierarchy, msg->roots[i]->path) && cgroup_find_mount(msg->roots[i]->hierarchy, point))
			add_below(msg, msg->roots[i]->hierarchy, point, msg->roots[i]->path, 0);
	ns_in_own_cgroups(false);
	if (code < 0 || (!msg->n_groups && !msg->n_roots)) {
		gw__cgroups__free_unpacked(msg, NULL);
		return code;
	}
	*ret = msg;
	return 0;
}

void cgroups_remove(const Gw__Cgroups *msg)
{
	ns_in_own_cgroups(true);
	for (size_t i = msg->n_groups; i-- > 0;) {
		char point[PATH_MAX], full[2 * PATH_MAX], mark[8];

		if (!cgroup_find_mount(msg->groups[i]->hierarchy, point))
			continue;
		snprintf(full, sizeof(full), "%s%s", point, msg->groups[i]->path);
		if (getxattr(full, CGROUP_MARK, mark, sizeof(mark)) > 0)
			(void)!rmdir(full); /* not while somebody is in it */
	}
	ns_in_own_cgroups(false);
}
