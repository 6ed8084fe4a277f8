/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_mount.c - reading the mounts of a unit; see ns_mount.h. Contents are in ns_entry.c, making in ns_mount_make.c */
#include "image/ns_mount_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/notes.h"
#include "image/ns_terminal.h"

/* File systems that each mount makes anew, or that have one instance a namespace. */
static const char *const kernel_types[] = { "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "binfmt_misc", "debugfs", "tracefs", "securityfs", "bpf",
					    "pstore", "configfs", "devtmpfs", "fusectl" };

#define MEMORY "tmpfs"

/* Of the unit that this worker moves. */
static struct {
	struct mount_infos mounts; /* as in the message */
	struct mount_infos host;
	struct mount_space *spaces;
	size_t n_spaces;
} unit;

bool ns_mount_is_root(const Gw__Namespaces *msg, size_t i)
{
	return !i || msg->mounts[i]->space != msg->mounts[i - 1]->space;
}

static void join(char **field, const char *a, const char *b)
{
	char path[2 * PATH_MAX];

	snprintf(path, sizeof(path), "%s%s", strcmp(a, "/") == 0 ? "" : a, strcmp(b, "/") == 0 ? "" : b);
	string_set(field, path[0] ? path : "/");
}

/* A path on the host that leads to what the unit has mounted (something else may be mounted over it); the mount nearest to the file system's root counts. */
static bool find_on_host(const struct mount_info *m, char **path)
{
	const struct mount_info *best = NULL;
	struct stat there, here;

	if (m->fd < 0 || fstat(m->fd, &there) < 0)
		return false;
	for (size_t i = 0; i < unit.host.n; i++) {
		const struct mount_info *o = &unit.host.v[i];
		cleanup_free char *candidate = NULL;

		if (o->major != m->major || o->minor != m->minor || !path_below(m->root, o->root) || (best && strlen(o->root) >= strlen(best->root)))
			continue;
		candidate = strdup("");
		join(&candidate, o->where, path_below(m->root, o->root));
		if (lstat(candidate, &here) < 0 || here.st_dev != there.st_dev || here.st_ino != there.st_ino)
			continue;
		best = o;
		join(path, o->where, path_below(m->root, o->root));
	}
	return best != NULL;
}

/* The host has mounted it somewhere, with something over it. */
static bool is_covered_on_host(const struct mount_info *m)
{
	for (size_t i = 0; i < unit.host.n; i++)
		if (unit.host.v[i].major == m->major && unit.host.v[i].minor == m->minor)
			return true;
	return false;
}

/* Mounted from a file system of the host's, and without a name in it any more: the destination has it in memory. */
static bool is_remnant(const struct mount_info *m)
{
	size_t len;

	return mount_root_is_removed(m->root, &len) && is_covered_on_host(m);
}

/* A file system of the unit's, or what it has of remnants of the host's: its index in the message, or -1. */
static int find_fs(const Gw__Namespaces *msg, const struct mount_info *m)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i] && msg->mounts[i]->fs && unit.mounts.v[i].major == m->major && unit.mounts.v[i].minor == m->minor && is_remnant(&unit.mounts.v[i]) == is_remnant(m))
			return (int)msg->mounts[i]->fs - 1;
	return -1;
}

static bool is_group_of_host(unsigned group)
{
	for (size_t i = 0; group && i < unit.host.n; i++)
		if (unit.host.v[i].group == group)
			return true;
	return false;
}

bool ns_mount_is_kernels(const char *type)
{
	for (size_t i = 0; i < ARRAY_SIZE(kernel_types); i++)
		if (strcmp(type, kernel_types[i]) == 0)
			return true;
	return false;
}

static void refuse(const struct mount_info *m, const char *cause, const char *way_out, struct refusals *r)
{
	refusals_add(r, "ns.mount", cause, way_out, "mount %s (%s, %s)", m->where, m->type, m->source);
}

static Gw__NsFs *append_fs(Gw__Namespaces *msg, const char *type, const struct mount_info *m, const char *options)
{
	Gw__NsFs *fs = must_alloc(sizeof(*fs));

	gw__ns_fs__init(fs);
	string_set(&fs->type, type);
	string_set(&fs->source, m->source);
	string_set(&fs->options, options);
	msg->fs = realloc(msg->fs, (msg->n_fs + 1) * sizeof(*msg->fs));
	if (!msg->fs)
		abort();
	msg->fs[msg->n_fs++] = fs;
	return fs;
}

static uint32_t add_fs(Gw__Namespaces *msg, const struct mount_info *m, struct refusals *r)
{
	Gw__NsFs *fs;

	if (is_remnant(m)) {
		append_fs(msg, MEMORY, m, "")->travels = true;
		return (uint32_t)msg->n_fs;
	}
	if (!ns_mount_is_kernels(m->type) && strcmp(m->type, MEMORY))
		refuse(m, "file systems of this type that the host has not mounted itself cannot move", "mount it on the host, or unmount it", r);
	fs = append_fs(msg, m->type, m, m->options);
	fs->readonly = m->readonly;
	fs->travels = !is_covered_on_host(m) && strcmp(m->type, MEMORY) == 0;
	return (uint32_t)msg->n_fs;
}

/* Two that were removed can have had the same name: then the second one has another there. */
static void name_removed(const Gw__Namespaces *msg, const struct mount_info *m, Gw__NsMount *out)
{
	char name[PATH_MAX];
	struct stat own, st;
	size_t len;

	mount_root_is_removed(m->root, &len);
	if (fstat(m->fd, &own) < 0)
		return;
	for (size_t i = 0, n = 1; i < msg->n_mounts; i++) {
		if (msg->mounts[i]->fs != out->fs || strcmp(msg->mounts[i]->root, out->root) || fstat(unit.mounts.v[i].fd, &st) < 0 || (st.st_dev == own.st_dev && st.st_ino == own.st_ino))
			continue;
		snprintf(name, sizeof(name), "%.*s.%zu%s", (int)len, m->root, n++, m->root + len);
		string_set(&out->root, name);
		i = (size_t)-1; /* nor may that name be another's */
	}
}

/* Contents are read from `root` on, unless they are read from further up. */
static void add_tree(Gw__NsFs *fs, const char *root)
{
	size_t len, kept = 0;
	bool removed = mount_root_is_removed(root, &len);
	Gw__NsTree *tree;

	for (size_t i = 0; i < fs->n_trees; i++)
		if (fs->trees[i]->removed == removed && (removed ? !strcmp(root, fs->trees[i]->root) : path_below(root, fs->trees[i]->root) != NULL))
			return;
	for (size_t i = 0; i < fs->n_trees; i++) {
		if (!removed && !fs->trees[i]->removed && path_below(fs->trees[i]->root, root))
			gw__ns_tree__free_unpacked(fs->trees[i], NULL);
		else
			fs->trees[kept++] = fs->trees[i];
	}
	tree = must_alloc(sizeof(*tree));
	gw__ns_tree__init(tree);
	string_set(&tree->root, root);
	tree->removed = removed;
	fs->trees = realloc(fs->trees, (kept + 1) * sizeof(*fs->trees));
	if (!fs->trees)
		abort();
	fs->trees[kept] = tree;
	fs->n_trees = kept + 1;
}

static void describe(const struct mount_info *m, Gw__NsMount *out, Gw__Namespaces *msg, struct refusals *r)
{
	uint32_t number;
	struct stat st;
	bool removed;
	size_t len;
	int fs;

	gw__ns_mount__init(out);
	out->parent = m->above < 0 ? 0 : (uint32_t)m->above;
	string_set(&out->where, m->where);
	string_set(&out->at, m->at);
	out->flags = m->flags;
	out->unbindable = m->unbindable;
	out->group = m->group;
	out->master = m->master;
	out->of_host = is_group_of_host(m->group) || is_group_of_host(m->master);
	if (m->fd < 0) {
		refuse(m, "the place where it is mounted was removed", "unmount it", r);
		return;
	}
	if (m->idmapped)
		refuse(m, "mounts that translate owners (idmapped) cannot move", "mount it without", r);
	/* All of a hierarchy of control groups can be mounted anywhere, and hosts have them in different places. */
	if ((strncmp(m->type, "cgroup", 6) || strcmp(m->root, "/")) && find_on_host(m, &out->root)) {
		if (ns_terminal_is(m->type, m->root, &number))
			refuse(m, "it is a terminal of the host's, whose number may be another terminal's on the destination", "unmount it", r);
		return;
	}
	removed = mount_root_is_removed(m->root, &len);
	if (removed && (ns_mount_is_kernels(m->type) || fstat(m->fd, &st) < 0 || S_ISSOCK(st.st_mode) || S_ISLNK(st.st_mode))) {
		refuse(m, "what is mounted there was removed", "unmount it", r);
		return;
	}
	fs = find_fs(msg, m);
	out->fs = fs < 0 ? add_fs(msg, m, r) : (uint32_t)fs + 1;
	/* Of control groups above the root of its namespace the unit sees nothing at the destination. */
	string_set(&out->root, strncmp(m->type, "cgroup", 6) == 0 && strncmp(m->root, "/..", 3) == 0 ? "/" : m->root);
	if (removed)
		name_removed(msg, m, out);
	if (is_remnant(m))
		notes_add("what is mounted on %s was removed: at the destination it is in memory.", m->where);
	if (msg->fs[out->fs - 1]->travels)
		add_tree(msg->fs[out->fs - 1], out->root);
}

/* Of a file system that is to be made again a mount shows all: else what its parts were like cannot be known. */
static bool is_lonely_part(const Gw__Namespaces *msg, size_t i)
{
	const Gw__NsMount *m = msg->mounts[i];
	const char *type = m->fs ? msg->fs[m->fs - 1]->type : "";

	if (!m->fs || !strcmp(m->root, "/") || !ns_mount_is_kernels(type) || !strncmp(type, "cgroup", 6) || !strcmp(type, "proc") || !strcmp(type, "sysfs"))
		return false;
	for (size_t k = 0; k < msg->n_mounts; k++)
		if (msg->mounts[k]->fs == m->fs && !strcmp(msg->mounts[k]->root, "/"))
			return false;
	return true;
}

static void capture(Gw__Namespaces *msg, uint32_t space, struct refusals *r)
{
	size_t first = msg->n_mounts;

	msg->mounts = realloc(msg->mounts, (unit.mounts.n + 1) * sizeof(*msg->mounts));
	if (!msg->mounts)
		abort();
	for (size_t i = first; i < unit.mounts.n; i++) {
		Gw__NsMount *out = must_alloc(sizeof(*out));

		describe(&unit.mounts.v[i], out, msg, r);
		out->space = space;
		msg->mounts[msg->n_mounts++] = out;
		if (out->fs && ns_mount_is_root(msg, i) && strcmp(unit.mounts.v[i].type, "tmpfs"))
			refuse(&unit.mounts.v[i], "the unit's root is on a file system that the host has not mounted", "mount it on the host", r);
	}
	for (size_t i = first; i < msg->n_mounts; i++)
		if (is_lonely_part(msg, i))
			refuse(&unit.mounts.v[i], "only a part of this file system is mounted, which cannot be made again", "unmount it", r);
}

/* What a copy of a namespace does not show: the numbers of the mounts, and since Linux 6.17 which are unbindable. */
static int take_own(struct mount_space *s, char *lines, struct mount_infos *seen, struct err *e)
{
	struct mount_infos own = { 0 };
	int ret = mount_infos_parse(lines, &own, e);

	for (size_t i = 0; ret == 0 && i < own.n; i++)
		for (size_t k = 0; own.v[i].unbindable && k < seen->n; k++) {
			struct mount_info *m = &seen->v[k];

			m->unbindable |= m->major == own.v[i].major && m->minor == own.v[i].minor && !strcmp(m->root, own.v[i].root) && !strcmp(m->where, own.v[i].where);
		}
	s->own = must_alloc((own.n + 1) * sizeof(*s->own));
	for (s->n_own = 0; s->n_own < own.n; s->n_own++) {
		const struct mount_info *m = &own.v[s->n_own];

		s->own[s->n_own] = (struct mount_own){ m->id, m->major, m->minor, strdup(m->where), strdup(m->root), false };
		if (!s->own[s->n_own].where || !s->own[s->n_own].root)
			abort();
	}
	free(own.v);
	return ret;
}

/*
 * What the host has mounted to keep namespaces of its own (ip netns, podman) is in every copy of its mounts, and goes when the host lets go of it: those namespaces are not
 * where the unit goes.
 */
static void leave_out_namespaces(struct mount_infos *l)
{
	cleanup_free int *places = must_alloc((l->n + 1) * sizeof(*places));
	size_t kept = 0;

	for (size_t i = 0; i < l->n; i++) {
		cleanup_free char *path = strdup("");

		places[i] = (int)kept;
		if (strcmp(l->v[i].type, "nsfs") != 0 || mount_infos_has_above(l, i) || !find_on_host(&l->v[i], &path)) {
			l->v[kept++] = l->v[i];
			continue;
		}
		notes_add("the mount %s of a namespace of the host that it has left is not there.", l->v[i].where);
		close_fdp(&l->v[i].fd);
	}
	l->n = kept;
	for (size_t i = 0; i < l->n; i++)
		l->v[i].above = l->v[i].above < 0 ? -1 : places[l->v[i].above];
}

/* Behind those of other namespaces; the descriptors go along. */
static int append(struct mount_infos *seen, struct err *e)
{
	struct mount_info *grown;
	size_t first = unit.mounts.n;

	if (first + seen->n > NS_MOUNTS_MAX)
		return err_set(e, -E2BIG, "the unit has more than %u mounts", NS_MOUNTS_MAX);
	grown = realloc(unit.mounts.v, (first + seen->n) * sizeof(*grown));
	if (!grown)
		abort();
	unit.mounts.v = grown;
	for (size_t i = 0; i < seen->n; i++) {
		grown[first + i] = seen->v[i];
		grown[first + i].above += seen->v[i].above < 0 ? 0 : (int)first;
		seen->v[i].fd = -1;
	}
	unit.mounts.n += seen->n;
	for (size_t i = 0; i < unit.mounts.n; i++) /* which point into what has moved */
		mount_info_set_at(&unit.mounts, i);
	return 0;
}

int ns_mounts_capture(pid_t pid, uint32_t number, Gw__Namespaces *msg, struct refusals *r, struct err *e)
{
	struct mount_space *grown = realloc(unit.spaces, (unit.n_spaces + 1) * sizeof(*grown)), *s;
	cleanup_free char *lines = NULL;
	struct mount_infos seen = { 0 };
	char path[64];
	int ret;

	if (!grown)
		abort();
	unit.spaces = grown;
	s = &grown[unit.n_spaces++];
	*s = (struct mount_space){ .number = number };
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	s->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd < 0 || read_whole(s->fd, &s->lines, NULL) < 0)
		return err_sys(e, errno, "%s", path);
	ret = ns_survey(pid, &seen, &lines, e);
	if (ret == 0)
		ret = take_own(s, lines, &seen, e);
	if (ret == 0 && !unit.host.n)
		ret = mount_infos_read("/proc/self/mountinfo", &unit.host, e);
	if (ret == 0) {
		leave_out_namespaces(&seen);
		ret = append(&seen, e);
	}
	mount_infos_free(&seen);
	if (ret == 0)
		capture(msg, number, r);
	return ret;
}

void ns_mounts_leave(void)
{
	mount_infos_free(&unit.mounts);
	mount_infos_free(&unit.host);
	for (size_t i = 0; i < unit.n_spaces; i++) {
		free(unit.spaces[i].lines);
		for (size_t k = 0; k < unit.spaces[i].n_own; k++) {
			free(unit.spaces[i].own[k].where);
			free(unit.spaces[i].own[k].root);
		}
		free(unit.spaces[i].own);
		close_fdp(&unit.spaces[i].fd);
	}
	free(unit.spaces);
	unit.spaces = NULL;
	unit.n_spaces = 0;
}

const struct mount_space *mount_spaces(size_t *ret_n)
{
	*ret_n = unit.n_spaces;
	return unit.spaces;
}

const struct mount_infos *mount_host(void)
{
	return &unit.host;
}

int ns_mounts_check(struct err *e)
{
	for (size_t i = 0; i < unit.n_spaces; i++) {
		cleanup_free char *now = NULL;

		if (read_whole(unit.spaces[i].fd, &now, e) < 0 || strcmp(now, unit.spaces[i].lines) != 0)
			return err_set(e, -EAGAIN, "the unit has mounted or unmounted something since the offer");
	}
	return 0;
}

/* --- what the destination lacks --- */

/* Whether nothing is in a directory. */
static bool is_empty(int at, const char *path)
{
	cleanup_close int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 0));

	for (const struct dirent *d; dir && (d = readdir(dir));)
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
			return false;
	return true;
}

/* One that the unit has only because its mounts were a copy of the host's, and does nothing with. */
static bool is_idle_copy(const Gw__Namespaces *msg, size_t i)
{
	const struct mount_info *m = &unit.mounts.v[i];
	const struct mount_space *s = NULL;
	bool is_hosts = false;

	if (msg->mounts[i]->fs || ns_mount_is_root(msg, i))
		return false;
	for (size_t k = 0; k < unit.host.n && !is_hosts; k++)
		is_hosts = unit.host.v[k].major == m->major && unit.host.v[k].minor == m->minor && !strcmp(unit.host.v[k].root, m->root) && !strcmp(unit.host.v[k].where, m->where);
	for (size_t k = 0; k < unit.n_spaces && !s; k++)
		s = unit.spaces[k].number == msg->mounts[i]->space ? &unit.spaces[k] : NULL;
	for (size_t k = 0; s && k < s->n_own; k++)
		if (s->own[k].used && s->own[k].major == m->major && s->own[k].minor == m->minor && !strcmp(s->own[k].root, m->root) && !strcmp(s->own[k].where, m->where))
			return false;
	return is_hosts && s;
}

/* An idle copy of what the host has mounted is the destination's own there, whatever lies in it. */
static void ask_about(const Gw__Namespaces *msg, size_t i, Gw__NsAsk *ask)
{
	const struct mount_info *m = &unit.mounts.v[i];
	Gw__NsPath *p = must_alloc(sizeof(*p));
	struct stat st = { 0 };

	gw__ns_path__init(p);
	(void)!fstat(m->fd, &st);
	string_set(&p->path, msg->mounts[i]->root);
	p->mode = st.st_mode & S_IFMT;
	p->populated = S_ISDIR(st.st_mode) && !is_idle_copy(msg, i) && !is_empty(m->fd, ".");
	ask->paths[ask->n_paths++] = p;
}

void ns_mounts_ask(const Gw__Namespaces *msg, Gw__NsAsk *ask)
{
	ask->paths = must_alloc((msg->n_mounts + 1) * sizeof(*ask->paths));
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (!msg->mounts[i]->fs)
			ask_about(msg, i, ask);
}

void ns_mounts_answer(const Gw__NsAsk *ask, Gw__NsAnswer *answer)
{
	answer->lacking = must_alloc((ask->n_paths + 1) * sizeof(*answer->lacking));
	for (size_t i = 0; i < ask->n_paths; i++) {
		const Gw__NsPath *p = ask->paths[i];
		bool lacking = access(p->path, F_OK) < 0;
		struct stat st;

		if (!lacking && p->mode)
			lacking = lstat(p->path, &st) < 0 || (st.st_mode & S_IFMT) != p->mode || (p->populated && is_empty(AT_FDCWD, p->path));
		answer->lacking[answer->n_lacking++] = lacking;
	}
}

/* What is the unit's own, though the host has it mounted: its root, files that are mounted one by one, a file system in memory as a whole. The rest is what it shares with others. */
static bool can_be_sent(const struct mount_info *m, bool is_root)
{
	struct stat st;

	if (m->fd < 0 || fstat(m->fd, &st) < 0)
		return false;
	return is_root || S_ISREG(st.st_mode) || (strcmp(m->type, "tmpfs") == 0 && strcmp(m->root, "/") == 0);
}

static void send_instead(Gw__Namespaces *msg, size_t index)
{
	struct mount_info *m = &unit.mounts.v[index];
	bool memory = strcmp(m->type, MEMORY) == 0 && strcmp(m->root, "/") == 0;
	Gw__NsMount *out = msg->mounts[index];
	Gw__NsFs *fs = append_fs(msg, MEMORY, m, memory ? m->options : "");
	struct stat st;

	fs->travels = true;
	string_set(&out->root, fstat(m->fd, &st) == 0 && S_ISDIR(st.st_mode) ? "/" : strrchr(m->root, '/'));
	out->fs = (uint32_t)msg->n_fs;
	add_tree(fs, out->root);
}

/* Takes the marked ones out of both lists. */
static void leave_out(Gw__Namespaces *msg, const bool *out)
{
	cleanup_free uint32_t *places = must_alloc((msg->n_mounts + 1) * sizeof(*places));
	size_t kept = 0, n = msg->n_mounts;

	for (size_t i = 0; i < n; i++) {
		places[i] = (uint32_t)kept;
		if (out[i]) {
			gw__ns_mount__free_unpacked(msg->mounts[i], NULL);
			close_fdp(&unit.mounts.v[i].fd);
			continue;
		}
		msg->mounts[kept] = msg->mounts[i];
		msg->mounts[kept]->parent = places[msg->mounts[i]->parent];
		unit.mounts.v[kept] = unit.mounts.v[i];
		unit.mounts.v[kept].above = unit.mounts.v[i].above < 0 ? -1 : (int)places[unit.mounts.v[i].above];
		kept++;
	}
	msg->n_mounts = unit.mounts.n = kept;
	for (size_t i = 0; i < kept; i++) /* which point into what has moved */
		mount_info_set_at(&unit.mounts, i);
}

/*
 * What the destination lacks of a copy of the host's mounts (unshare -m, a service's PrivateTmp), and what lies on that: it is the host's, which the unit leaves. Not, when something of the unit
 * is on it, or something of its own is mounted there.
 */
static void leave_out_lacking(Gw__Namespaces *msg)
{
	cleanup_free bool *idle = must_alloc(msg->n_mounts + 1), *out = must_alloc(msg->n_mounts + 1);

	for (size_t i = 0; i < msg->n_mounts; i++)
		idle[i] = is_idle_copy(msg, i);
	for (size_t i = msg->n_mounts; i-- > 0;) /* those below come behind */
		if (!idle[i] && !ns_mount_is_root(msg, i))
			idle[msg->mounts[i]->parent] = false;
	for (size_t i = 0; i < msg->n_mounts; i++) {
		out[i] = idle[i] && (unit.mounts.v[i].lacking || (!ns_mount_is_root(msg, i) && out[msg->mounts[i]->parent]));
		if (out[i])
			notes_add("the mount %s of the host that it has left is not there: the destination has none like it, and nothing of the unit is on it.", msg->mounts[i]->where);
	}
	leave_out(msg, out);
}

int ns_mounts_send(Gw__Namespaces *msg, const Gw__NsAnswer *answer, const struct fsfile_table *files, struct refusals *r, struct err *e)
{
	size_t first = msg->n_fs, at = 0;

	for (size_t i = 0; i < msg->n_mounts; i++)
		at += !msg->mounts[i]->fs;
	if (at != answer->n_lacking)
		return err_set(e, -EPROTO, "an answer about %zu mounts", answer->n_lacking);
	at = 0;
	for (size_t i = 0; i < msg->n_mounts; i++)
		unit.mounts.v[i].lacking = !msg->mounts[i]->fs && answer->lacking[at++];
	leave_out_lacking(msg);
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (unit.mounts.v[i].lacking && can_be_sent(&unit.mounts.v[i], ns_mount_is_root(msg, i)))
			send_instead(msg, i);
	return first == msg->n_fs ? 0 : ns_entries_capture(msg, first, files, r, e);
}

bool ns_mount_is_hosts(size_t index)
{
	return is_covered_on_host(&unit.mounts.v[index]);
}

int ns_mount_fd(size_t index)
{
	return unit.mounts.v[index].fd;
}

int ns_tree_root(const Gw__Namespaces *msg, size_t fs, size_t tree)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->fs == fs + 1 && strcmp(msg->mounts[i]->root, msg->fs[fs]->trees[tree]->root) == 0)
			return unit.mounts.v[i].fd;
	return -1;
}

static bool good_path(const char *path)
{
	return path[0] == '/' && strlen(path) < PATH_MAX && !strstr(path, "/../") && !strstr(path, "/./");
}

static int check_entries(const Gw__NsTree *t, size_t *entries, size_t *bytes)
{
	for (size_t i = 0; i < t->n_entries; i++) {
		const Gw__NsEntry *n = t->entries[i];
		const char *p = (const char *)n->path.data;

		if (++*entries > NS_ENTRIES_MAX || (*bytes += n->data.len) > NS_ENTRY_BYTES_MAX || n->path.len >= PATH_MAX || n->link_of > i ||
		    n->data.len > n->size || n->size > INT64_MAX)
			return -EBADMSG;
		if (n->path.len && (p[0] == '/' || memchr(p, 0, n->path.len) || memmem(p, n->path.len, "..", 2) == p || memmem(p, n->path.len, "/../", 4)))
			return -EBADMSG;
	}
	return good_path(t->root) ? 0 : -EBADMSG;
}

/* Each mount namespace has mounts, behind each other. */
static int check_spaces(const Gw__Namespaces *msg)
{
	cleanup_free bool *seen = must_alloc(msg->n_others + 1);
	uint32_t space = 0;

	memset(seen, 0, msg->n_others + 1);
	for (size_t i = 0; i < msg->n_mounts; i++) {
		space = msg->mounts[i]->space;
		if (space > msg->n_others || (space && (msg->others[space - 1]->kind != NS_MNT || msg->others[space - 1]->of_host)) ||
		    (seen[space] && msg->mounts[i - 1]->space != space))
			return -EBADMSG;
		seen[space] = true;
	}
	for (size_t k = 0; k < msg->n_others; k++)
		if (seen[k + 1] != (msg->others[k]->kind == NS_MNT && !msg->others[k]->of_host))
			return -EBADMSG;
	return seen[0] == ((msg->owned & NS_BIT(NS_MNT)) != 0) ? 0 : -EBADMSG;
}

int ns_mounts_validate(const Gw__Namespaces *msg, struct err *e)
{
	size_t entries = 0, bytes = 0;

	if (msg->n_mounts > NS_MOUNTS_MAX || msg->n_fs > msg->n_mounts || check_spaces(msg) < 0)
		return err_set(e, -EBADMSG, "%zu mounts of %zu file systems", msg->n_mounts, msg->n_fs);
	for (size_t i = 0; i < msg->n_fs; i++) {
		if (msg->fs[i]->numbers && (msg->fs[i]->numbers > msg->n_others || msg->others[msg->fs[i]->numbers - 1]->kind != NS_PID || strcmp(msg->fs[i]->type, "proc")))
			return err_set(e, -EBADMSG, "file system %zu of pid namespace %u", i, msg->fs[i]->numbers);
		for (size_t k = 0; k < msg->fs[i]->n_trees; k++)
			if (check_entries(msg->fs[i]->trees[k], &entries, &bytes) < 0)
				return err_set(e, -EBADMSG, "file system %zu cannot be", i);
	}
	for (size_t i = 0; i < msg->n_mounts; i++) {
		const Gw__NsMount *m = msg->mounts[i];

		bool root = ns_mount_is_root(msg, i);

		if ((!root && (m->parent >= i || msg->mounts[m->parent]->space != m->space)) || !good_path(m->where) || !good_path(m->root) || (root && strcmp(m->where, "/")) || m->fs > msg->n_fs ||
		    m->at[0] == '/' || strstr(m->at, "..") == m->at || strstr(m->at, "/../"))
			return err_set(e, -EBADMSG, "mount %zu cannot be", i);
	}
	return 0;
}
