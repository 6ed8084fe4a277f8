/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cgroup.c - see cgroup.h */
#include "image/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/cgroup_group.h"
#include "image/file_owner.h"
#include "image/ns.h"
#include "image/ns_info.h"

#define PLACES_MAX 16384u
#define NAME_MAX_LEN 256u
#define LINE_MAX_LEN (PATH_MAX + 512)

/* Splits "5:cpu,cpuacct:/path"; the names are empty for the one of version 2. */
static bool split(char *line, const char **ret_names, const char **ret_path)
{
	char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;

	if (!path)
		return false;
	path[strcspn(path, "\n")] = 0;
	*path = 0;
	*ret_names = names + 1;
	*ret_path = path + 1;
	return true;
}

static char *own_places; /* of this worker: what /proc/self/cgroup says in its own namespace */

int cgroup_read_own(void)
{
	cleanup_close int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);

	free(own_places);
	own_places = NULL;
	return fd < 0 || read_whole(fd, &own_places, NULL) < 0 ? -errno : 0;
}

/* In the text of a /proc/PID/cgroup. */
static bool find_path(const char *text, const char *names, char path[PATH_MAX])
{
	size_t len = strlen(names);

	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		const char *found = strchr(line, ':');

		if (!found || strncmp(found + 1, names, len) || found[1 + len] != ':')
			continue;
		snprintf(path, PATH_MAX, "%.*s", (int)strcspn(found + len + 2, "\n"), found + len + 2);
		return true;
	}
	return false;
}

const char *cgroup_own_path(const char *names, char path[PATH_MAX])
{
	return find_path(own_places, names, path) ? path : "";
}

static bool is_own_path(const char *names, const char *path)
{
	char own[PATH_MAX];

	return !strcmp(cgroup_own_path(names, own), path);
}

bool cgroup_leads_here(const char *names, const char *path)
{
	char own[PATH_MAX];

	return path_below(cgroup_own_path(names, own), path) != NULL;
}

static void add(Gw__Process *msg, const char *names, const char *path, pid_t tid)
{
	Gw__CgroupPlace *place = must_alloc(sizeof(*place));
	Gw__CgroupPlace **grown = realloc(msg->cgroups, (msg->n_cgroups + 1) * sizeof(*grown));

	if (!grown)
		abort();
	gw__cgroup_place__init(place);
	string_set(&place->hierarchy, names);
	string_set(&place->path, path);
	place->tid = tid;
	msg->cgroups = grown;
	grown[msg->n_cgroups++] = place;
}

static bool is_plain(const char *path)
{
	size_t len = strlen(path);

	return path[0] == '/' && len < PATH_MAX && !strstr(path, "/../") && strncmp(path, "/..", 3) != 0 && (len < 3 || strcmp(path + len - 3, "/..") != 0);
}

static const char *process_place(const Gw__Process *msg, const char *names)
{
	for (size_t i = 0; i < msg->n_cgroups; i++)
		if (!msg->cgroups[i]->tid && !strcmp(msg->cgroups[i]->hierarchy, names))
			return msg->cgroups[i]->path;
	return NULL;
}

/* Of a process (tid 0) what is not godwitd's own place; of a thread what is not its process's. */
static int capture_places(const char *path, pid_t tid, Gw__Process *msg, struct err *e)
{
	cleanup_fclose FILE *f = fopen(path, "re");
	char line[LINE_MAX_LEN];
	const char *names, *place;

	if (!f)
		return errno == ENOENT || errno == ESRCH ? 0 : err_sys(e, -errno, "%s", path); /* a kernel without control groups, a thread that has ended */
	while (fgets(line, sizeof(line), f) && msg->n_cgroups < PLACES_MAX) {
		const char *process;

		if (!split(line, &names, &place) || strlen(names) >= NAME_MAX_LEN || !is_plain(place))
			continue;
		process = tid ? process_place(msg, names) : NULL;
		if (process ? strcmp(process, place) != 0 : !is_own_path(names, place))
			add(msg, names, place, tid);
	}
	return 0;
}

int cgroup_capture(pid_t pid, Gw__Process *msg, struct err *e)
{
	cleanup_closedir DIR *threads = NULL;
	char path[64];
	int ret;

	ns_in_own_cgroups(true);
	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	ret = cgroup_read_own() < 0 ? 0 : capture_places(path, 0, msg, e); /* a kernel without control groups */
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	threads = opendir(path);
	for (struct dirent *d; ret == 0 && threads && (d = readdir(threads));) {
		if (atoi(d->d_name) <= 0 || atoi(d->d_name) == pid)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%.12s/cgroup", pid, d->d_name);
		ret = capture_places(path, fd_owner_seen(atoi(d->d_name), "NSpid:"), msg, e);
	}
	ns_in_own_cgroups(false);
	return ret;
}

int cgroup_validate(const Gw__Process *msg, struct err *e)
{
	if (msg->n_cgroups > PLACES_MAX)
		return err_set(e, -EBADMSG, "%zu control groups", msg->n_cgroups);
	for (size_t i = 0; i < msg->n_cgroups; i++)
		if (strlen(msg->cgroups[i]->hierarchy) >= NAME_MAX_LEN || !is_plain(msg->cgroups[i]->path))
			return err_set(e, -EBADMSG, "a control group that cannot be");
	return 0;
}

static bool has_option(const char *options, const char *name, size_t len)
{
	for (const char *p = options; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (!strncmp(p, name, len) && (!p[len] || p[len] == ',' || p[len] == '\n'))
			return true;
	return false;
}

/* Whether a mount with these options is of the hierarchy with these names. */
static bool has_names(const char *options, const char *names)
{
	for (const char *p = names; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ','))
		if (!has_option(options, p, strcspn(p, ",")))
			return false;
	return true;
}

/* Something else may have been mounted over it. */
static bool leads_to(const char *point, unsigned major, unsigned minor)
{
	struct stat st;

	return stat(point, &st) == 0 && st.st_dev == makedev(major, minor);
}

/* fsconfig(2) for each of a hierarchy's names: "name=systemd" or controllers. */
static int name_hierarchy(int context, const char *names)
{
	char word[NAME_MAX_LEN], *save;
	bool controllers = false;
	int ret = 0;

	snprintf(word, sizeof(word), "%s", names);
	for (char *w = strtok_r(word, ",", &save); w && ret == 0; w = strtok_r(NULL, ",", &save)) {
		if (!strncmp(w, "name=", 5)) {
			ret = fsconfig(context, FSCONFIG_SET_STRING, "name", w + 5, 0);
			continue;
		}
		controllers = true;
		ret = fsconfig(context, FSCONFIG_SET_FLAG, w, NULL, 0);
	}
	if (ret == 0 && names[0] && !controllers)
		ret = fsconfig(context, FSCONFIG_SET_FLAG, "none", NULL, 0);
	return ret;
}

/*
 * A hierarchy that nobody has mounted here, or only where it cannot be seen, is there all the same: a mount of it that is attached nowhere, which the worker
 * keeps. One that /proc/self/cgroup does not have would be made by this.
 */
static bool find_detached(const char *names, char ret_point[PATH_MAX])
{
	static struct { char names[NAME_MAX_LEN]; int fd; } kept[16];
	cleanup_close int context = -1;
	char own[PATH_MAX];
	size_t n = 0;

	for (; n < ARRAY_SIZE(kept) && kept[n].fd; n++) {
		if (strcmp(kept[n].names, names) != 0)
			continue;
		snprintf(ret_point, PATH_MAX, "/proc/self/fd/%d", kept[n].fd);
		return true;
	}
	if (n == ARRAY_SIZE(kept) || strlen(names) >= sizeof(kept[n].names) || (!own_places && cgroup_read_own() < 0) || !*cgroup_own_path(names, own))
		return false;
	context = fsopen(names[0] ? "cgroup" : "cgroup2", FSOPEN_CLOEXEC);
	if (context < 0 || name_hierarchy(context, names) < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ||
	    (kept[n].fd = fsmount(context, FSMOUNT_CLOEXEC, 0)) < 0)
		return kept[n].fd = 0, false;
	snprintf(kept[n].names, sizeof(kept[n].names), "%s", names);
	snprintf(ret_point, PATH_MAX, "/proc/self/fd/%d", kept[n].fd);
	return true;
}

bool cgroup_find_mount(const char *names, char ret_point[PATH_MAX])
{
	cleanup_fclose FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[LINE_MAX_LEN], root[PATH_MAX], type[64], options[LINE_MAX_LEN];

	while (f && fgets(line, sizeof(line), f)) {
		const char *rest = strstr(line, " - ");
		unsigned major, minor;

		if (!rest || sscanf(line, "%*s %*s %u:%u %4095s %4095s", &major, &minor, root, ret_point) != 4 || sscanf(rest, " - %63s %*s %4500s", type, options) != 2 ||
		    strcmp(root, "/") != 0)
			continue;
		if ((names[0] ? !strcmp(type, "cgroup") && has_names(options, names) : !strcmp(type, "cgroup2")) && leads_to(ret_point, major, minor))
			return true;
	}
	return find_detached(names, ret_point);
}

static bool is_threaded(const char *point, const char *path)
{
	char file[2 * PATH_MAX], type[64] = "";
	cleanup_fclose FILE *f = NULL;

	snprintf(file, sizeof(file), "%s%s/cgroup.type", point, path);
	f = fopen(file, "re");
	return f && fgets(type, sizeof(type), f) && !strcmp(type, "threaded\n");
}

void cgroup_to_domain(const char *point, char *path)
{
	while (path[0] && is_threaded(point, path))
		*strrchr(path, '/') = 0;
}

static int put_into(const char *point, const char *path, const char *file, pid_t pid)
{
	char full[2 * PATH_MAX + 32], number[16];
	int len = snprintf(number, sizeof(number), "%d", pid);
	cleanup_close int fd = -1;

	snprintf(full, sizeof(full), "%s%s/%s", point, path, file);
	fd = open(full, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, number, (size_t)len) != len ? -errno : 0;
}

/* A threaded group takes the threads of a process one by one, when the process is in the group that is the domain. */
static int join_place(pid_t pid, pid_t tid, const Gw__CgroupPlace *place)
{
	bool second = !place->hierarchy[0];
	char point[PATH_MAX], domain[PATH_MAX];
	int ret;

	if (!cgroup_find_mount(place->hierarchy, point))
		return -ENOENT;
	if (place->tid)
		return put_into(point, place->path, second ? "cgroup.threads" : "tasks", tid);
	snprintf(domain, sizeof(domain), "%s", place->path);
	if (second)
		cgroup_to_domain(point, domain);
	ret = put_into(point, domain, "cgroup.procs", pid);
	if (ret == 0 && strcmp(domain, place->path) != 0)
		ret = put_into(point, place->path, "cgroup.procs", pid);
	return ret;
}

static int join(pid_t pid, const Gw__Process *msg, pid_t (*find)(void *arg, pid_t tid), void *arg, struct err *e)
{
	for (size_t i = 0; i < msg->n_cgroups; i++) {
		const Gw__CgroupPlace *place = msg->cgroups[i];
		pid_t tid = place->tid ? find(arg, place->tid) : 0;
		int ret = place->tid && !tid ? 0 : join_place(pid, tid, place);

		/* A hierarchy that is not here is one that does nothing to it. */
		if (ret < 0 && ret != -ENOENT)
			return err_sys(e, ret, "process %d: joining the control group %s", msg->pid, place->path);
	}
	return 0;
}

int cgroup_join(pid_t pid, const Gw__Process *msg, pid_t (*find)(void *arg, pid_t tid), void *arg, struct err *e)
{
	int ret;

	ns_in_own_cgroups(true);
	ret = join(pid, msg, find, arg, e);
	ns_in_own_cgroups(false);
	return ret;
}

/* --- where cgroup namespaces begin --- */

static void add_root(Gw__NsOther *out, const char *names, const char *path)
{
	Gw__NsSetting **grown = realloc(out->roots, (out->n_roots + 1) * sizeof(*grown)), *s = must_alloc(sizeof(*s));

	if (!grown)
		abort();
	gw__ns_setting__init(s);
	string_set(&s->name, names);
	string_set(&s->value, is_own_path(names, path) ? "" : path);
	out->roots = grown;
	grown[out->n_roots++] = s;
}

/* The next line of a /proc/PID/cgroup; NULL: there are no more. */
static char *next_line(char **text, const char **ret_names, const char **ret_path)
{
	char *line;

	while ((line = strsep(text, "\n")))
		if (split(line, ret_names, ret_path))
			return line;
	return NULL;
}

bool cgroup_roots_cut(char *whole, const char *seen, Gw__NsOther *out)
{
	const char *names, *path;

	while (next_line(&whole, &names, &path)) {
		char root[PATH_MAX], seen_path[PATH_MAX];
		size_t len = strlen(path), cut;

		if (!find_path(seen, names, seen_path))
			continue;
		cut = strcmp(seen_path, "/") ? strlen(seen_path) : 0;
		if (strlen(names) >= NAME_MAX_LEN || len >= PATH_MAX || !is_plain(path))
			return false;
		if (!is_plain(seen_path) || cut > len || strcmp(path + len - cut, cut ? seen_path : ""))
			return false;
		snprintf(root, sizeof(root), "%.*s", (int)(len - cut), path);
		add_root(out, names, root[0] ? root : "/");
	}
	return true;
}

int cgroup_roots_capture(pid_t pid, int ns, Gw__NsOther *out, struct refusals *r, struct err *e)
{
	cleanup_free char *whole = NULL, *seen = NULL;
	cleanup_close int back = -1, fd = -1, again = -1;
	char path[64];
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	ns_in_own_cgroups(true);
	back = ns_open(0, NS_CGROUP);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (back < 0 || fd < 0 || cgroup_read_own() < 0 || read_whole(fd, &whole, NULL) < 0 || ns_enter(ns, NS_CGROUP) < 0) {
		ret = err_sys(e, errno, "the cgroup namespace of process %d", pid);
	} else {
		again = open(path, O_RDONLY | O_CLOEXEC);
		ret = again < 0 || read_whole(again, &seen, NULL) < 0 ? err_sys(e, errno, "%s", path) : 0;
		if (ns_enter(back, NS_CGROUP) < 0)
			abort();
	}
	if (ret == 0 && !cgroup_roots_cut(whole, seen, out))
		refusals_add(r, "ns.cgroup", "it is in a control group outside of the root of its cgroup namespace", "move it into one below", "process %d", pid);
	ns_in_own_cgroups(false);
	return ret;
}

int cgroup_roots_validate(const Gw__NsOther *o, struct err *e)
{
	if (o->n_roots > PLACES_MAX)
		return err_set(e, -EBADMSG, "%zu control groups", o->n_roots);
	for (size_t i = 0; i < o->n_roots; i++)
		if (strlen(o->roots[i]->name) >= NAME_MAX_LEN || (o->roots[i]->value[0] && !is_plain(o->roots[i]->value)))
			return err_set(e, -EBADMSG, "a control group that cannot be");
	return 0;
}

int cgroup_roots_join(const Gw__NsOther *o, struct err *e)
{
	int ret = 0;

	ns_in_own_cgroups(true);
	for (size_t i = 0; i < o->n_roots && ret == 0; i++) {
		char point[PATH_MAX];

		if (!o->roots[i]->value[0] || !cgroup_find_mount(o->roots[i]->name, point))
			continue;
		ret = put_into(point, o->roots[i]->value, "cgroup.procs", getpid());
		if (ret < 0)
			err_sys(e, ret, "control group %s as the root of a namespace", o->roots[i]->value);
	}
	return ret;
}
