// SPDX-License-Identifier: LGPL-2.1-or-later
/* registry.c - the units of this host, one JSON file each; see registry.h */
#include "migrate/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <sys/stat.h>

#include "base/util.h"
#include "kern/proc_start.h"

#define ENTRY_MAX_BYTES 8192

static char directory[PATH_MAX - 64] = REGISTRY_DEFAULT_DIRECTORY;

void registry_use_directory(const char *new_directory)
{
	snprintf(directory, sizeof(directory), "%s", new_directory);
}

const char *registry_directory(void)
{
	return directory;
}

static void entry_path(char path[PATH_MAX], pid_t pid, const char *suffix)
{
	snprintf(path, PATH_MAX, "%s/%d.json%s", directory, (int)pid, suffix);
}

uint64_t registry_start_ticks(pid_t pid)
{
	return proc_start_ticks(pid);
}

uint64_t registry_cpu_ms(pid_t pid)
{
	char path[64], text[1024];
	cleanup_close int fd = -1;
	unsigned long long t[4] = { 0 };
	const char *p;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	text[MAX(n, 0)] = 0;
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3]) != 4)
		return 0;
	return (t[0] + t[1] + t[2] + t[3]) * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK);
}

int registry_make_directory(const char *path, mode_t mode, struct err *e)
{
	char parent[PATH_MAX];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", path);
	slash = strrchr(parent, '/');
	if (slash && slash != parent) {
		*slash = 0;
		if (mkdir(parent, 0755) < 0 && errno != EEXIST)
			return err_sys(e, -errno, "%s: mkdir", parent);
	}
	return mkdir(path, mode) < 0 && errno != EEXIST ? err_sys(e, -errno, "%s: mkdir", path) : 0;
}

static int write_file(const char *path, const char *text, struct err *e)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	size_t len = strlen(text);

	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	if (write(fd, text, len) != (ssize_t)len)
		return err_sys(e, errno ? -errno : -EIO, "%s: write", path);
	return 0;
}

/* {"ID": ["avx2", ...], ...}, ID in hexadecimal digits */
static json_t *programs_json(const struct cpu_programs *programs)
{
	json_t *o = json_object();

	for (size_t i = 0; o && i < programs->n; i++) {
		json_t *uses = json_array();
		char id[17];

		for (unsigned int k = 0; k < cpu_features(); k++)
			if (cpu_has(&programs->v[i].uses, k))
				json_array_append_new(uses, json_string(cpu_feature_name(k)));
		snprintf(id, sizeof(id), "%016" PRIx64, programs->v[i].id);
		json_object_set_new(o, id, uses);
	}
	return o;
}

static void programs_from_json(json_t *o, struct cpu_programs *ret)
{
	const char *id;
	json_t *uses;

	json_object_foreach(o, id, uses) {
		struct cpu_program *p = &ret->v[ret->n];
		const json_t *name;
		size_t i;

		if (ret->n == CPU_PROGRAMS_MAX)
			return;
		p->id = strtoull(id, NULL, 16);
		json_array_foreach(uses, i, name) {
			int feature = json_is_string(name) ? cpu_feature_find(json_string_value(name)) : -1;

			if (feature >= 0)
				cpu_add(&p->uses, (unsigned int)feature);
		}
		ret->n++;
	}
}

int registry_add(const struct registry_entry *entry, struct err *e)
{
	char path[PATH_MAX], temporary[PATH_MAX];
	uint64_t ticks = registry_start_ticks(entry->pid);
	cleanup_free char *text = NULL;
	json_t *o;
	int r;

	if (!ticks)
		return err_set(e, -ESRCH, "unit %s: no process %d", entry->unit, (int)entry->pid);
	r = registry_make_directory(directory, 0755, e);
	if (r < 0)
		return r;
	o = json_pack("{s:s, s:i, s:I, s:s, s:s, s:I, s:I, s:i, s:s, s:i, s:b, s:b, s:I, s:s}", "unit", entry->unit, "pid", (int)entry->pid, "start_ticks",
		      (json_int_t)ticks, "from", entry->from, "strategy", entry->strategy, "since",
		      (json_int_t)(entry->since ? entry->since : time(NULL)), "freeze_us", (json_int_t)entry->freeze_us, "moves",
		      (int)entry->moves, "home", entry->home, "parent", (int)entry->parent, "local", entry->local, "started", entry->started, "cpu_ms",
		      (json_int_t)entry->cpu_ms, "reason", entry->reason);
	if (o && entry->protection.every_ms)
		json_object_set_new(o, "protection", protection_json(&entry->protection));
	if (o && entry->programs.n)
		json_object_set_new(o, "programs", programs_json(&entry->programs));
	text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	if (!text)
		return err_set(e, -ENOMEM, "unit %.200s: cannot be written as JSON", entry->unit);
	entry_path(path, entry->pid, "");
	entry_path(temporary, entry->pid, ".new");
	r = write_file(temporary, text, e);
	if (r < 0)
		return r;
	if (rename(temporary, path) < 0)
		return err_sys(e, -errno, "%s: rename", path);
	return 0;
}

int registry_remove(pid_t pid, struct err *e)
{
	char path[PATH_MAX];

	entry_path(path, pid, "");
	if (unlink(path) == 0)
		return 1;
	return errno == ENOENT ? 0 : err_sys(e, -errno, "%s: unlink", path);
}

static int decode(const char *text, size_t len, struct registry_entry *ret)
{
	const char *unit, *from, *strategy, *home = "", *reason = "";
	json_int_t start, since, freeze_us, cpu_ms = 0;
	struct registry_entry entry = { 0 };
	int pid, moves, parent = 0, local = 0, started = 0, r;
	json_t *o = json_loadb(text, len, 0, NULL);

	if (!o)
		return -EBADMSG;
	r = json_unpack(o, "{s:s, s:i, s:I, s:s, s:s, s:I, s:I, s:i, s?s, s?i, s?b, s?b, s?I, s?s}", "unit", &unit, "pid", &pid, "start_ticks", &start, "from", &from,
			"strategy", &strategy, "since", &since, "freeze_us", &freeze_us, "moves", &moves, "home", &home, "parent", &parent,
			"local", &local, "started", &started, "cpu_ms", &cpu_ms, "reason", &reason);
	if (!r && pid > 0 && moves >= 0) {
		snprintf(entry.unit, sizeof(entry.unit), "%s", unit);
		snprintf(entry.from, sizeof(entry.from), "%s", from);
		snprintf(entry.strategy, sizeof(entry.strategy), "%s", strategy);
		snprintf(entry.home, sizeof(entry.home), "%s", home);
		snprintf(entry.reason, sizeof(entry.reason), "%s", reason);
		entry.parent = parent;
		entry.local = local;
		entry.started = started;
		entry.cpu_ms = (uint64_t)cpu_ms;
		entry.pid = pid;
		entry.moves = (unsigned)moves;
		entry.start_ticks = (uint64_t)start;
		entry.since = since;
		entry.freeze_us = (uint64_t)freeze_us;
		protection_from_json(json_object_get(o, "protection"), &entry.protection);
		programs_from_json(json_object_get(o, "programs"), &entry.programs);
		*ret = entry;
	}
	json_decref(o);
	return !r && pid > 0 && moves >= 0 ? 0 : -EBADMSG;
}

int registry_lookup(pid_t pid, struct registry_entry *ret, struct err *e)
{
	char path[PATH_MAX], text[ENTRY_MAX_BYTES];
	struct registry_entry entry;
	cleanup_close int fd = -1;
	ssize_t n;

	entry_path(path, pid, "");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? -ENOENT : err_sys(e, -errno, "%s", path);
	n = read(fd, text, sizeof(text));
	if (n < 0)
		return err_sys(e, -errno, "%s", path);
	if (decode(text, (size_t)n, &entry) < 0 || entry.pid != pid || entry.start_ticks != registry_start_ticks(pid)) {
		unlink(path); /* the process has ended, or the number belongs to another one now */
		return -ENOENT;
	}
	*ret = entry;
	return 0;
}

int registry_lookup_foreign(pid_t pid, struct registry_entry *ret, struct err *e)
{
	int r = registry_lookup(pid, ret, e);

	return r == 0 && ret->local ? -ENOENT : r;
}

/* The number in "PID.json", 0: it is another file. */
static pid_t pid_of_file(const char *name)
{
	char *end;
	long pid = strtol(name, &end, 10);

	return pid > 0 && pid <= INT_MAX && !strcmp(end, ".json") ? (pid_t)pid : 0;
}

unsigned registry_count(void)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;
	unsigned n = 0;

	while (d && (item = readdir(d)))
		n += pid_of_file(item->d_name) > 0;
	return n;
}

int registry_list(int (*each)(const struct registry_entry *entry, void *arg), void *arg, struct err *e)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;
	int n = 0;

	if (!d)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "%s", directory);
	while ((item = readdir(d))) {
		struct registry_entry entry;
		pid_t pid = pid_of_file(item->d_name);

		if (!pid || registry_lookup(pid, &entry, NULL) < 0)
			continue;
		n++;
		if (each && each(&entry, arg))
			break;
	}
	return n;
}
