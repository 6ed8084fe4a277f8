// SPDX-License-Identifier: LGPL-2.1-or-later
/* measure.c - the load vector of this host; see measure.h. The only file of src/cluster that does I/O */
#include "cluster/measure.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <utmpx.h>

#include "base/util.h"

#define INITIAL_PID_NAMESPACE 4026531836u /* PROC_PID_INIT_INO: the same on every kernel */
#define TASKS_MAX 65536
#define MIB 1048576.0
#define PARENTS_MAX 64
#define TERMINAL_KNOWN_S 10

static bool __attribute__((format(printf, 4, 5))) read_text(const struct measure *m, char *text, size_t size, const char *format, ...)
{
	char path[PATH_MAX];
	cleanup_close int fd = -1;
	size_t len = (size_t)snprintf(path, sizeof(path), "%s", m->root);
	ssize_t n;
	va_list ap;

	va_start(ap, format);
	vsnprintf(path + len, sizeof(path) - len, format, ap); // NOLINT(clang-analyzer-valist.Uninitialized): version 14 is wrong
	va_end(ap);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, size - 1) : -1;
	text[MAX(n, 0)] = 0;
	return n > 0;
}

/* The number behind a word at the beginning of a line, 0 when it is not there. */
static double number_behind(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = text; p && *p; p = strchr(p, '\n'), p += p != NULL)
		if (!strncmp(p, word, len))
			return strtod(p + len, NULL);
	return 0;
}

static double average(double before, double now, double dt_s, double over_s)
{
	return now + (before - now) * exp(-dt_s / over_s);
}

/* --- limits --- */

static bool has_controller(const char *list, size_t len, const char *name)
{
	for (const char *p = list, *end = list + len; p < end; p += strcspn(p, ",:") + 1)
		if (strcspn(p, ",:") == strlen(name) && !strncmp(p, name, strlen(name)))
			return true;
	return false;
}

/* The path of our control group: version 2 ("0::") or a controller of version 1. */
static bool group_path(const char *groups, const char *controller, char ret[PATH_MAX / 2])
{
	for (const char *p = groups; p && *p; p = strchr(p, '\n'), p += p != NULL) {
		const char *list = strchr(p, ':'), *path = list ? strchr(list + 1, ':') : NULL;
		size_t len = path ? (size_t)(path - list - 1) : 0;

		if (!path || (*controller ? !has_controller(list + 1, len, controller) : len != 0))
			continue;
		snprintf(ret, PATH_MAX / 2, "%.*s", (int)strcspn(path + 1, "\n"), path + 1);
		return true;
	}
	return false;
}

struct limits {
	double cores, mem_mib, used_mib; /* HUGE_VAL: none */
	char group[PATH_MAX];            /* of version 2, under the root; "": none, or the hierarchy's own root */
};

static void limit_v2(const struct measure *m, const char *path, struct limits *l)
{
	char text[256], current[64], stat[4096];
	double quota, period;

	if (read_text(m, text, sizeof(text), "%s/cpu.max", path) && sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0)
		l->cores = MIN(l->cores, quota / period);
	if (!read_text(m, text, sizeof(text), "%s/memory.max", path) || sscanf(text, "%lf", &quota) != 1 || quota / MIB >= l->mem_mib)
		return;
	l->mem_mib = quota / MIB;
	read_text(m, current, sizeof(current), "%s/memory.current", path);
	read_text(m, stat, sizeof(stat), "%s/memory.stat", path);
	l->used_mib = MAX(strtod(current, NULL) - number_behind(stat, "inactive_file "), 0) / MIB;
}

static void limit_v1_cpu(const struct measure *m, const char *path, struct limits *l)
{
	char quota[64], period[64];

	if (read_text(m, quota, sizeof(quota), "%s/cpu.cfs_quota_us", path) && strtod(quota, NULL) > 0 &&
	    read_text(m, period, sizeof(period), "%s/cpu.cfs_period_us", path) && strtod(period, NULL) > 0)
		l->cores = MIN(l->cores, strtod(quota, NULL) / strtod(period, NULL));
}

static void limit_v1_memory(const struct measure *m, const char *path, struct limits *l)
{
	char text[64], used[64], stat[4096];

	if (!read_text(m, text, sizeof(text), "%s/memory.limit_in_bytes", path) || strtod(text, NULL) / MIB >= l->mem_mib)
		return;
	l->mem_mib = strtod(text, NULL) / MIB;
	read_text(m, used, sizeof(used), "%s/memory.usage_in_bytes", path);
	read_text(m, stat, sizeof(stat), "%s/memory.stat", path);
	l->used_mib = MAX(strtod(used, NULL) - number_behind(stat, "total_inactive_file "), 0) / MIB;
}

/* The group and all above it. */
static void limit_up(const struct measure *m, const char *mount, const char *group, struct limits *l, void (*limit)(const struct measure *m, const char *path, struct limits *l))
{
	char path[PATH_MAX];
	size_t base = (size_t)snprintf(path, sizeof(path), "%s", mount);

	snprintf(path + base, sizeof(path) - base, "%s", strcmp(group, "/") ? group : "");
	for (;;) {
		char *slash;

		limit(m, path, l);
		slash = strrchr(path, '/');
		if (!slash || (size_t)(slash - path) < base)
			return;
		*slash = 0;
	}
}

/*
 * The path of a group inside its mount: of a mount that shows a part of the hierarchy (in a container, or seen from a cgroup namespace below its root: "/../..") mountinfo says which.
 */
static void strip_root(const struct measure *m, const char *mount, char group[PATH_MAX / 2])
{
	static char text[262144];
	size_t shown = 0;

	read_text(m, text, sizeof(text), "/proc/self/mountinfo");
	for (const char *p = text; p && *p; p = strchr(p, '\n'), p += p != NULL) {
		char root[PATH_MAX / 2], point[PATH_MAX / 2];
		size_t len;

		if (sscanf(p, "%*s %*s %*s %2047s %2047s", root, point) != 2 || strcmp(point, mount) != 0)
			continue;
		len = strcmp(root, "/") ? strlen(root) : 0;
		shown = !strncmp(group, root, len) && (!group[len] || group[len] == '/') ? len : 0; /* the last one covers those before */
	}
	memmove(group, group + shown, strlen(group + shown) + 1);
}

static struct limits read_limits(const struct measure *m)
{
	struct limits l = { HUGE_VAL, HUGE_VAL, 0, "" };
	char groups[8192], group[PATH_MAX / 2], text[64];

	if (!read_text(m, groups, sizeof(groups), "/proc/self/cgroup"))
		return l;
	if (group_path(groups, "", group)) {
		const char *mount = read_text(m, text, sizeof(text), "/sys/fs/cgroup/cgroup.controllers") ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";

		strip_root(m, mount, group);
		limit_up(m, mount, group, &l, limit_v2);
		if (*group && strcmp(group, "/") != 0)
			snprintf(l.group, sizeof(l.group), "%s%s", mount, group);
	}
	if (group_path(groups, "cpu", group)) {
		strip_root(m, "/sys/fs/cgroup/cpu", group);
		limit_up(m, "/sys/fs/cgroup/cpu", group, &l, limit_v1_cpu);
	}
	if (group_path(groups, "memory", group)) {
		strip_root(m, "/sys/fs/cgroup/memory", group);
		limit_up(m, "/sys/fs/cgroup/memory", group, &l, limit_v1_memory);
	}
	return l;
}

/* --- tasks --- */

static int by_tid(const void *a, const void *b)
{
	const struct measure_task *x = a, *y = b;

	return (x->tid > y->tid) - (x->tid < y->tid);
}

static void add_task(const struct measure *m, int pid, int tid, struct measure_task **list, size_t *n, size_t *room)
{
	unsigned long long ran, waited;
	char text[128];

	if (*n >= TASKS_MAX || !read_text(m, text, sizeof(text), "/proc/%d/task/%d/schedstat", pid, tid) || sscanf(text, "%llu %llu", &ran, &waited) != 2)
		return;
	if (*n == *room) {
		size_t more = MAX(256, 2 * *room);
		struct measure_task *grown = reallocarray(*list, more, sizeof(*grown));

		if (!grown)
			return;
		*list = grown;
		*room = more;
	}
	(*list)[(*n)++] = (struct measure_task){ tid, ran, waited };
}

static size_t list_tasks(const struct measure *m, struct measure_task **ret)
{
	char path[PATH_MAX], name[32];
	cleanup_closedir DIR *proc = NULL;
	struct dirent *process, *task;
	size_t n = 0, room = 0;

	snprintf(path, sizeof(path), "%s/proc", m->root);
	proc = opendir(path);
	while (proc && (process = readdir(proc))) {
		cleanup_closedir DIR *tasks = NULL;
		int pid = atoi(process->d_name);

		if (pid <= 0 || (read_text(m, name, sizeof(name), "/proc/%d/comm", pid) && !strncmp(name, "godwit", 6)))
			continue; /* who moves units is no load that lasts */
		snprintf(path, sizeof(path), "%s/proc/%d/task", m->root, pid);
		tasks = opendir(path);
		while (tasks && (task = readdir(tasks)))
			if (atoi(task->d_name) > 0)
				add_task(m, pid, atoi(task->d_name), ret, &n, &room);
	}
	if (n)
		qsort(*ret, n, sizeof(**ret), by_tid);
	return n;
}

/* Tasks that ran or waited since the last time, in the mean; those that have ended are not known any more. ret_busy: the CPU time that they got. */
static double count_tasks(struct measure *m, double dt_s, double *ret_busy_s)
{
	struct measure_task *now = NULL;
	size_t n = list_tasks(m, &now), old = 0;
	uint64_t ran = 0, waited = 0;

	for (size_t i = 0; i < n; i++) {
		struct measure_task before = { now[i].tid, 0, 0 };

		while (old < m->n_tasks && m->tasks[old].tid < now[i].tid)
			old++;
		if (old < m->n_tasks && m->tasks[old].tid == now[i].tid)
			before = m->tasks[old];
		if (now[i].ran_ns >= before.ran_ns && now[i].waited_ns >= before.waited_ns && m->at_ns) {
			ran += now[i].ran_ns - before.ran_ns;
			waited += now[i].waited_ns - before.waited_ns;
		}
	}
	free(m->tasks);
	m->tasks = now;
	m->n_tasks = n;
	*ret_busy_s = (double)ran / 1e9;
	return dt_s > 0 ? (double)(ran + waited) / 1e9 / dt_s : 0;
}

void measure_sample(struct measure *m)
{
	char text[65536];

	if (m->own_tasks || !read_text(m, text, sizeof(text), "/proc/stat"))
		return;
	m->runnable += MAX(number_behind(text, "procs_running ") - 1, 0); /* without the one who asks */
	m->n_samples++;
}

/* --- the rest --- */

static double busy_of_machine(const struct measure *m)
{
	char text[65536];
	double user, nice, system, idle, iowait, irq, softirq;

	if (!read_text(m, text, sizeof(text), "/proc/stat") ||
	    sscanf(text, "cpu %lf %lf %lf %lf %lf %lf %lf", &user, &nice, &system, &idle, &iowait, &irq, &softirq) != 7)
		return 0;
	return (user + nice + system + irq + softirq) / (double)sysconf(_SC_CLK_TCK);
}

static void take_cpu(struct measure *m, double dt_s, double cores)
{
	double busy, run, power, *v = m->load.v;

	if (m->own_tasks) {
		run = count_tasks(m, dt_s, &busy);
	} else {
		double now = busy_of_machine(m);

		busy = MAX(now - m->busy_s, 0);
		m->busy_s = now;
		run = m->n_samples ? m->runnable / m->n_samples : 0;
		m->runnable = m->n_samples = 0;
	}
	v[LOAD_CORES] = cores;
	v[LOAD_SPEED] = m->speed;
	v[LOAD_RUN] = run;
	if (!m->at_ns)
		return;
	power = load_power(&m->load);
	v[LOAD_R15S] = average(v[LOAD_R15S], run / power, dt_s, 15);
	v[LOAD_R1M] = average(v[LOAD_R1M], run / power, dt_s, 60);
	v[LOAD_R15M] = average(v[LOAD_R15M], run / power, dt_s, 900);
	v[LOAD_UT] = average(v[LOAD_UT], MIN(busy / dt_s / cores, 1), dt_s, 60);
}

static void take_paging(struct measure *m, double dt_s)
{
	char text[65536];
	double paged, moved;

	read_text(m, text, sizeof(text), "/proc/vmstat");
	paged = number_behind(text, "pswpin ") + number_behind(text, "pswpout ") + number_behind(text, "pgmajfault ");
	moved = number_behind(text, "pgpgin ") + number_behind(text, "pgpgout ");
	if (m->at_ns && dt_s > 0) {
		m->load.v[LOAD_PG] = average(m->load.v[LOAD_PG], MAX(paged - m->paged, 0) / dt_s, dt_s, 15);
		m->load.v[LOAD_IO] = average(m->load.v[LOAD_IO], MAX(moved - m->moved_kib, 0) / dt_s, dt_s, 15);
	}
	m->paged = paged;
	m->moved_kib = moved;
}

static void take_memory(struct measure *m, const struct limits *l)
{
	char text[8192];
	double all, available;

	read_text(m, text, sizeof(text), "/proc/meminfo");
	all = number_behind(text, "MemTotal:") / 1024;
	available = number_behind(text, "MemAvailable:") / 1024;
	m->load.v[LOAD_SWP] = number_behind(text, "SwapFree:") / 1024;
	m->load.v[LOAD_MAXMEM] = MIN(all, l->mem_mib);
	m->load.v[LOAD_MEM] = l->mem_mib < all ? MIN(available, MAX(l->mem_mib - l->used_mib, 0)) : available;
}

static void take_pressure(struct measure *m, const struct limits *l)
{
	static const struct {
		enum load_index index;
		const char *name;
	} all[] = { { LOAD_PSI_CPU, "cpu" }, { LOAD_PSI_MEM, "memory" }, { LOAD_PSI_IO, "io" } };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		char text[256];
		double avg10 = 0;

		if ((*l->group && read_text(m, text, sizeof(text), "%s/%s.pressure", l->group, all[i].name)) ||
		    read_text(m, text, sizeof(text), "/proc/pressure/%s", all[i].name))
			avg10 = number_behind(text, "some avg10=");
		m->load.v[all[i].index] = avg10 / 100;
	}
}

/* --- persons --- */

/* Of /proc/PID/stat. The terminal as the kernel writes it: new_encode_dev(). */
static bool read_stat(const struct measure *m, int pid, int *ret_parent, unsigned *ret_terminal, char ret_name[16])
{
	char text[1024], *open, *close;
	int terminal;

	if (!read_text(m, text, sizeof(text), "/proc/%d/stat", pid))
		return false;
	open = strchr(text, '(');
	close = strrchr(text, ')');
	if (!open || !close || sscanf(close + 1, " %*c %d %*d %*d %d", ret_parent, &terminal) != 2)
		return false;
	*ret_terminal = (unsigned)terminal;
	*close = 0;
	snprintf(ret_name, 16, "%s", open + 1);
	return true;
}

/* What has come from another node descends from one of Godwit's own. */
static bool is_guest(const struct measure *m, int pid)
{
	unsigned terminal;
	char name[16];
	int parent;

	for (int i = 0; i < PARENTS_MAX && pid > 1 && read_stat(m, pid, &parent, &terminal, name); i++, pid = parent)
		if (!strncmp(name, "godwit", 6) && i > 0)
			return true;
	return false;
}

/* Whether it is the terminal of a session that has begun here: what units that came bring along is touched by persons elsewhere. */
static bool is_persons(const struct measure *m, dev_t device)
{
	unsigned wanted = (minor(device) & 0xff) | major(device) << 8 | (minor(device) & ~0xffu) << 12, terminal;
	char path[PATH_MAX], name[16];
	cleanup_closedir DIR *proc = NULL;
	struct dirent *process;
	int parent;

	snprintf(path, sizeof(path), "%s/proc", m->root);
	proc = opendir(path);
	while (proc && (process = readdir(proc))) {
		int pid = atoi(process->d_name);

		if (pid > 0 && read_stat(m, pid, &parent, &terminal, name) && terminal == wanted && !is_guest(m, pid))
			return true;
	}
	return false;
}

static bool is_persons_known(struct measure *m, dev_t device, time_t now)
{
	struct measure_terminal *at = m->terminals;

	for (size_t i = 0; i < MEASURE_TERMINALS; i++) {
		if (m->terminals[i].device == device && now < m->terminals[i].until)
			return m->terminals[i].persons;
		if (m->terminals[i].until < at->until)
			at = &m->terminals[i];
	}
	*at = (struct measure_terminal){ device, is_persons(m, device), now + TERMINAL_KNOWN_S };
	return at->persons;
}

static double idle_of(const struct stat *st, time_t now)
{
	return (double)MAX(now - st->st_atime, 0);
}

/* The kernel sets the time of access when somebody types, though not more often than every eight seconds. */
static double look_at_terminals(struct measure *m, const char *directory, const char *prefix, double idle_s, time_t now)
{
	char path[PATH_MAX];
	cleanup_closedir DIR *d = NULL;
	struct dirent *item;

	snprintf(path, sizeof(path), "%s%s", m->root, directory);
	d = opendir(path);
	while (d && (item = readdir(d))) {
		const char *number = item->d_name + strlen(prefix);
		struct stat st;

		if (strncmp(item->d_name, prefix, strlen(prefix)) != 0 || *number < '0' || *number > '9' || fstatat(dirfd(d), item->d_name, &st, 0) < 0 || !S_ISCHR(st.st_mode))
			continue;
		if (idle_of(&st, now) < idle_s && is_persons_known(m, st.st_rdev, now))
			idle_s = idle_of(&st, now);
	}
	return idle_s;
}

/* Persons, and for how many minutes nobody has pressed a key, logged in or not; nobody there: since the host was started. */
static void take_persons(struct measure *m)
{
	char text[64];
	struct utmpx *u;
	double idle_s;
	time_t now = time(NULL);
	unsigned n = 0;

	read_text(m, text, sizeof(text), "/proc/uptime");
	idle_s = strtod(text, NULL);
	setutxent();
	while (!*m->root && (u = getutxent())) {
		char path[sizeof(u->ut_line) + 8];
		struct stat st;

		if (u->ut_type != USER_PROCESS)
			continue;
		n++;
		snprintf(path, sizeof(path), "/dev/%.*s", (int)sizeof(u->ut_line), u->ut_line);
		if (stat(path, &st) == 0)
			idle_s = MIN(idle_s, idle_of(&st, now));
	}
	endutxent();
	idle_s = look_at_terminals(m, "/dev/pts", "", idle_s, now);
	idle_s = look_at_terminals(m, "/dev", "tty", idle_s, now);
	m->load.v[LOAD_LS] = n;
	m->load.v[LOAD_IT] = idle_s / 60;
}

static double room_mib(const char *path)
{
	struct statvfs fs;

	return statvfs(path, &fs) == 0 ? (double)fs.f_bavail * (double)fs.f_frsize / MIB : 0;
}

static double cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : (double)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
}

void measure_init(struct measure *m, double speed, const char *root)
{
	struct stat st;

	*m = (struct measure){ .speed = speed > 0 ? speed : 1 };
	snprintf(m->root, sizeof(m->root), "%s", root ? root : "");
	m->own_tasks = root || (stat("/proc/self/ns/pid", &st) == 0 && st.st_ino != INITIAL_PID_NAMESPACE);
}

void measure_free(struct measure *m)
{
	freep(&m->tasks);
	m->n_tasks = 0;
}

void measure_take(struct measure *m, uint64_t now_ns, struct load *ret)
{
	struct limits l = read_limits(m);
	double dt_s = m->at_ns && now_ns > m->at_ns ? (double)(now_ns - m->at_ns) / 1e9 : 0;

	if (m->at_ns && dt_s == 0) {
		*ret = m->load;
		return;
	}
	take_cpu(m, dt_s, MIN(cpus(), l.cores));
	take_paging(m, dt_s);
	take_memory(m, &l);
	take_pressure(m, &l);
	take_persons(m);
	m->load.v[LOAD_TMP] = room_mib("/tmp");
	m->at_ns = now_ns;
	*ret = m->load;
}
