// SPDX-License-Identifier: GPL-2.0-or-later
/* units.c - see units.h */
#include "daemon/units.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>

#include "base/util.h"

struct process {
	pid_t pid, parent;
	char state;
	char name[16];
	uint64_t ticks; /* user, system, and those of children that were waited for */
};

struct table {
	struct process *v; /* sorted by pid */
	size_t n, size;
};

static size_t read_text(char *text, size_t size, const char *format, int a, int b)
{
	char path[64];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), format, a, b); // NOLINT(clang-diagnostic-format-nonliteral): the callers' are literals
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, size - 1) : -1;
	text[MAX(n, 0)] = 0;
	return (size_t)MAX(n, 0);
}

static bool read_process(pid_t pid, struct process *ret)
{
	char text[1024];
	unsigned long long t[4];
	const char *p, *name;
	int parent;

	if (!read_text(text, sizeof(text), "/proc/%d/stat", pid, 0))
		return false;
	p = strrchr(text, ')');
	name = strchr(text, '(');
	ret->pid = pid;
	if (p && name && name < p) {
		size_t len = MIN((size_t)(p - name - 1), sizeof(ret->name) - 1);

		memcpy(ret->name, name + 1, len);
		ret->name[len] = 0;
	}
	if (!p || sscanf(p + 1, " %c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu %llu %llu", &ret->state, &parent, &t[0], &t[1], &t[2], &t[3]) != 6)
		return false;
	ret->parent = parent;
	ret->ticks = t[0] + t[1] + t[2] + t[3];
	return true;
}

static int by_pid(const void *a, const void *b)
{
	pid_t x = ((const struct process *)a)->pid, y = ((const struct process *)b)->pid;

	return x < y ? -1 : x > y;
}

static int read_table(struct table *t, struct err *e)
{
	cleanup_closedir DIR *dir = opendir("/proc");
	struct dirent *item;

	if (!dir)
		return err_sys(e, -errno, "/proc");
	while ((item = readdir(dir))) {
		if (!isdigit((unsigned char)*item->d_name))
			continue;
		if (t->n == t->size) {
			size_t size = t->size ? 2 * t->size : 256;
			struct process *grown = reallocarray(t->v, size, sizeof(*grown));

			if (!grown)
				return err_sys(e, -ENOMEM, "the processes of this host");
			t->v = grown;
			t->size = size;
		}
		t->n += read_process((pid_t)atoi(item->d_name), &t->v[t->n]);
	}
	if (t->n)
		qsort(t->v, t->n, sizeof(*t->v), by_pid);
	return 0;
}

static const struct process *find_process(const struct table *t, pid_t pid)
{
	struct process key = { .pid = pid };

	return t->n ? bsearch(&key, t->v, t->n, sizeof(key), by_pid) : NULL;
}

/* --- the list --- */

struct collecting {
	const struct daemon *d;
	struct units list;
	size_t size;
	bool failed;
};

static int collect(const struct registry_entry *entry, void *arg)
{
	struct collecting *c = arg;
	size_t len = strlen(c->d->config.name);

	if (c->list.n == c->size) {
		size_t size = c->size ? 2 * c->size : 16;
		struct unit_info *grown = reallocarray(c->list.v, size, sizeof(*grown));

		if (!grown) {
			c->failed = true;
			return 1;
		}
		c->list.v = grown;
		c->size = size;
	}
	c->list.v[c->list.n++] = (struct unit_info){ .entry = *entry, .foreign = strncmp(entry->unit, c->d->config.name, len) != 0 || entry->unit[len] != ':' };
	return 0;
}

static void collect_also(struct collecting *c, const pid_t *also, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct registry_entry entry = { .pid = also[i], .local = true, .start_ticks = registry_start_ticks(also[i]) };
		bool known = !entry.start_ticks;

		for (size_t k = 0; k < c->list.n; k++)
			known |= c->list.v[k].entry.pid == also[i];
		snprintf(entry.unit, sizeof(entry.unit), "%s:%d", c->d->config.name, (int)also[i]);
		if (!known)
			collect(&entry, c);
	}
}

static int by_number(const void *a, const void *b)
{
	pid_t x = ((const struct unit_info *)a)->entry.pid, y = ((const struct unit_info *)b)->entry.pid;

	return x < y ? -1 : x > y;
}

static struct unit_info *find_root(const struct units *u, pid_t pid)
{
	struct unit_info key = { .entry.pid = pid };

	return u->n ? bsearch(&key, u->v, u->n, sizeof(key), by_number) : NULL;
}

/* The unit that a process belongs to: the highest one above it. */
static struct unit_info *unit_of(const struct units *u, const struct table *t, const struct process *p)
{
	struct unit_info *found = NULL;

	for (int depth = 0; p && depth < 4096; depth++) {
		struct unit_info *root = find_root(u, p->pid);

		found = root ? root : found;
		p = p->parent > 0 ? find_process(t, p->parent) : NULL;
	}
	return found;
}

static double kib_of(const char *text, const char *key)
{
	const char *at = strstr(text, key);

	return at ? strtod(at + strlen(key), NULL) : 0;
}

static uint64_t demand_of(pid_t pid)
{
	char path[64], text[128];
	cleanup_closedir DIR *dir = NULL;
	struct dirent *item;
	uint64_t sum = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (item = readdir(dir))) {
		unsigned long long ran = 0, waited = 0;

		if (isdigit((unsigned char)*item->d_name) && read_text(text, sizeof(text), "/proc/%d/task/%d/schedstat", pid, atoi(item->d_name)) &&
		    sscanf(text, "%llu %llu", &ran, &waited) == 2)
			sum += ran + waited;
	}
	return sum;
}

static void count_in(struct unit_info *unit, const struct process *p)
{
	char text[4096];

	unit->cpu_s += (double)p->ticks / (double)sysconf(_SC_CLK_TCK);
	unit->demand_ns += demand_of(p->pid);
	unit->run += p->state == 'R';
	read_text(text, sizeof(text), "/proc/%d/status", p->pid, 0);
	unit->mem_mib += (kib_of(text, "\nRssAnon:") + kib_of(text, "\nRssShmem:") + kib_of(text, "\nVmSwap:")) / 1024;
}

static void read_command(struct unit_info *unit)
{
	size_t n = read_text(unit->command, sizeof(unit->command), "/proc/%d/cmdline", unit->entry.pid, 0);

	if (!n)
		n = read_text(unit->command, sizeof(unit->command), "/proc/%d/comm", unit->entry.pid, 0);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)unit->command[i] < ' ')
			unit->command[i] = ' ';
	while (n && unit->command[n - 1] == ' ')
		unit->command[--n] = 0;
}

const struct unit_info *units_find(const struct units *u, pid_t pid, uint64_t start_ticks)
{
	const struct unit_info *found = find_root(u, pid);

	return found && found->entry.start_ticks == start_ticks ? found : NULL;
}

/* What is below another unit, and what has ended, goes out. */
static void keep_roots(struct units *u, const struct table *t)
{
	size_t kept = 0;
	cleanup_free bool *is_root = calloc(u->n + 1, sizeof(*is_root));

	for (size_t i = 0; i < u->n && is_root; i++) {
		const struct process *p = find_process(t, u->v[i].entry.pid);

		is_root[i] = p && unit_of(u, t, p) == &u->v[i];
	}
	for (size_t i = 0; i < u->n; i++)
		if (!is_root || is_root[i])
			u->v[kept++] = u->v[i];
	u->n = kept;
}

static void add_process(struct units *u, pid_t pid, const struct unit_info *unit)
{
	if (u->n_procs < u->room_procs)
		u->procs[u->n_procs++] = (struct unit_process){ pid, (size_t)(unit - u->v) };
}

/* The device of the file system that home serves to a unit (FUSE's connection has that number); -1: there is none. */
static long device_from_home(pid_t root)
{
	char path[64], line[1024];
	cleanup_fclose FILE *f = NULL;
	unsigned major, minor;

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)root);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, " - fuse.godwit ") && sscanf(line, "%*d %*d %u:%u", &major, &minor) == 2)
			return (long)minor;
	return -1;
}

/* The same of a process godwit-relay, as newer kernels tell; -1. */
static long device_of_relay(pid_t pid)
{
	char path[64], text[512];
	cleanup_closedir DIR *dir = NULL;
	struct dirent *item;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)pid);
	dir = opendir(path);
	while (dir && (item = readdir(dir))) {
		const char *at;

		if (isdigit((unsigned char)*item->d_name) && read_text(text, sizeof(text), "/proc/%d/fdinfo/%d", pid, atoi(item->d_name)) && (at = strstr(text, "fuse_connection:")))
			return strtol(at + strlen("fuse_connection:"), NULL, 10);
	}
	return -1;
}

/* Godwit's own that relay standard streams of a unit that is not at home, and files. */
static void add_helpers(struct units *u, const struct table *t)
{
	for (size_t i = 0; i < u->n; i++) {
		const struct process *p = find_process(t, u->v[i].entry.pid), *parent = p ? find_process(t, p->parent) : NULL;
		long device = u->v[i].foreign ? device_from_home(u->v[i].entry.pid) : -1;

		if (parent && !strcmp(parent->name, "godwit-away"))
			add_process(u, parent->pid, &u->v[i]);
		for (size_t k = 0; k < t->n && device >= 0; k++)
			if (!strcmp(t->v[k].name, "godwit-relay") && device_of_relay(t->v[k].pid) == device)
				add_process(u, t->v[k].pid, &u->v[i]);
	}
}

static void measure(struct units *u, const struct units *before, const struct table *t)
{
	double dt_ns = (double)(u->at_ns - before->at_ns);

	u->room_procs = 2 * (t->n + u->n);
	u->procs = u->n ? calloc(u->room_procs, sizeof(*u->procs)) : NULL;
	for (size_t i = 0; i < t->n; i++) {
		struct unit_info *unit = unit_of(u, t, &t->v[i]);

		if (!unit)
			continue;
		count_in(unit, &t->v[i]);
		if (u->procs)
			add_process(u, t->v[i].pid, unit);
	}
	for (size_t i = 0; i < u->n; i++) {
		struct unit_info *unit = &u->v[i];
		const struct unit_info *old = before->at_ns ? units_find(before, unit->entry.pid, unit->entry.start_ticks) : NULL;

		unit->cpu_s += (double)unit->entry.cpu_ms / 1000;
		read_command(unit);
		if (!old || dt_ns <= 0)
			continue;
		unit->grows_mib_s = (unit->mem_mib - old->mem_mib) * 1e9 / dt_ns;
		unit->run = unit->demand_ns > old->demand_ns ? (double)(unit->demand_ns - old->demand_ns) / dt_ns : 0;
	}
}

int units_read(struct units *u, const struct daemon *d, const pid_t *also, size_t n_also, struct err *e)
{
	struct collecting c = { .d = d };
	struct table t = { 0 };
	int r = registry_list(collect, &c, e);

	c.list.at_ns = clock_ns(CLOCK_BOOTTIME);
	collect_also(&c, also, n_also);
	if (r >= 0)
		r = c.failed ? err_sys(e, -ENOMEM, "the units of this host") : read_table(&t, e);
	if (r >= 0) {
		if (c.list.n)
			qsort(c.list.v, c.list.n, sizeof(*c.list.v), by_number);
		keep_roots(&c.list, &t);
		measure(&c.list, u, &t);
		if (c.list.procs)
			add_helpers(&c.list, &t);
		units_free(u);
		*u = c.list;
	} else {
		units_free(&c.list);
	}
	free(t.v);
	return MIN(r, 0);
}

void units_free(struct units *u)
{
	freep(&u->v);
	freep(&u->procs);
	*u = (struct units){ 0 };
}

struct policy_unit units_policy(const struct unit_info *unit)
{
	time_t now = time(NULL);

	return (struct policy_unit){
		.number = (uint64_t)unit->entry.pid, .cpu_s = unit->cpu_s * MIN(unit->run, 1), .run = unit->run, .mem_mib = unit->mem_mib,
		.since_move_s = unit->entry.moves ? (double)MAX(now - unit->entry.since, 0) : HUGE_VAL,
	};
}
