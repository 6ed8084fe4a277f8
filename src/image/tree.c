/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tree.c - the processes of a unit, read from /proc; see tree.h and proc(5) */
#include "image/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/file_owner.h"
#include "image/process_check.h"
#include "image/tree_plan.h"
#include "kern/nsfs.h"

#define LOOKS_MAX 40
#define CORE_DUMPED 0x80u
#define FLAG_KTHREAD 0x00200000ul

void tree_free(struct tree *t)
{
	free(t->v);
	free(t->numbers);
	free(t->above);
	*t = TREE_INIT;
}

uint32_t tree_find(const struct tree *t, pid_t pid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->v[i].pid == pid)
			return (uint32_t)i;
	return TREE_NONE;
}

uint32_t tree_find_host(const struct tree *t, pid_t host_pid)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->v[i].host_pid == host_pid)
			return (uint32_t)i;
	return TREE_NONE;
}

/* --- who belongs to it --- */

static int add(struct tree *t, pid_t host_pid, uint32_t parent, pid_t parent_tid, struct err *e)
{
	if (t->n >= TREE_PROCESSES_MAX)
		return err_set(e, -E2BIG, "more than %u processes", TREE_PROCESSES_MAX);
	if ((t->n & (t->n - 1)) == 0) {
		struct tree_process *grown = realloc(t->v, (t->n ? t->n * 2 : 1) * sizeof(*grown));

		if (!grown)
			return err_sys(e, ENOMEM, "a tree of processes");
		t->v = grown;
	}
	t->v[t->n++] = (struct tree_process){ .host_pid = host_pid, .parent = parent, .parent_tid = parent_tid };
	return 0;
}

static int add_children_of_thread(struct tree *t, uint32_t parent, pid_t tid, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	char path[64];
	int child, ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", t->v[parent].host_pid, tid);
	f = fopen(path, "re");
	while (f && ret == 0 && fscanf(f, "%d", &child) == 1)
		ret = add(t, child, parent, tid, e);
	return ret;
}

static int add_children(struct tree *t, uint32_t parent, struct err *e)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64];
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", t->v[parent].host_pid);
	dir = opendir(path);
	for (struct dirent *d; ret == 0 && dir && (d = readdir(dir));)
		if (d->d_name[0] != '.')
			ret = add_children_of_thread(t, parent, atoi(d->d_name), e);
	return ret;
}

/* Numbers only. */
static int list(pid_t root, const pid_t *also, size_t n_also, struct tree *ret, struct err *e)
{
	struct tree t = TREE_INIT;
	int code = add(&t, root, TREE_NONE, 0, e);

	for (size_t i = 0; i < n_also && code == 0; i++) {
		code = add(&t, also[i], 0, 0, e);
		if (code == 0)
			t.v[t.n - 1].detached = true;
	}
	for (uint32_t i = 0; i < t.n && code == 0; i++)
		code = add_children(&t, i, e);
	if (code < 0)
		tree_free(&t);
	else
		*ret = t;
	return code;
}

static bool same_members(const struct tree *a, const struct tree *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (a->v[i].host_pid != b->v[i].host_pid || a->v[i].parent != b->v[i].parent)
			return false;
	return true;
}

/* --- what each is --- */

/* The column of a line of numbers, one a pid namespace, that is the root's. */
static pid_t column(const char *line, unsigned level)
{
	char *end;

	for (line += strcspn(line, "\t"); *line; line = end) {
		long number = strtol(line, &end, 10);

		if (end == line)
			break;
		if (!level--)
			return (pid_t)number;
	}
	return 0;
}

static unsigned count_columns(const char *line)
{
	unsigned n = 0;

	for (const char *p = line; *p; p++)
		n += *p == '\t';
	return n;
}

/* Numbers in the root's pid namespace, which is `level` below the outermost that can be seen; the root finds it out. */
static int read_status(struct tree_process *p, unsigned *level, bool is_root, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	size_t size = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", p->host_pid);
	f = fopen(path, "re");
	if (!f)
		return err_sys(e, errno == ENOENT ? ESRCH : errno, "%s", path);
	while (getline(&line, &size, f) > 0) {
		if (strncmp(line, "NSpid:", 6) == 0 && is_root)
			*level = count_columns(line) - 1;
		if (strncmp(line, "NSpid:", 6) == 0)
			p->pid = column(line, *level);
		if (strncmp(line, "NSpgid:", 7) == 0)
			p->pgid = column(line, *level);
		if (strncmp(line, "NSsid:", 6) == 0)
			p->sid = column(line, *level);
		sscanf(line, "Uid: %u", &p->uid);
		sscanf(line, "Gid: %u", &p->gid);
	}
	return p->pid > 0 ? 0 : err_set(e, -ESRCH, "process %d has ended meanwhile", p->host_pid);
}

static pid_t inner_tid(const struct tree *t, const struct tree_process *p, unsigned level)
{
	struct tree_process thread = { .host_pid = p->parent_tid };

	if (!p->parent_tid)
		return 0;
	if (p->parent_tid == t->v[p->parent].host_pid)
		return t->v[p->parent].pid;
	return read_status(&thread, &level, false, NULL) < 0 ? 0 : thread.pid;
}

static int describe(struct tree *t, struct err *e)
{
	unsigned level = 0;

	for (size_t i = 0; i < t->n; i++) {
		struct tree_process *p = &t->v[i];
		struct process_stat stat = { 0 };
		int ret = process_stat_read(p->host_pid, &stat, e);

		if (ret < 0 && p->detached)
			return err_set(e, ret == -ENOENT ? -ESRCH : ret, "process %d, which was to move along, has ended", p->host_pid);
		if (ret == 0)
			ret = read_status(p, &level, i == 0, e);
		if (ret < 0)
			return ret;
		p->space_id = ns_id(p->host_pid, NS_PID);
		/* The main thread alone may have ended: then there are others. */
		p->zombie = (stat.state == 'Z' || stat.state == 'X') && stat.threads <= 1;
		p->stopped = stat.state == 'T';
		p->exit_signal = stat.exit_signal > 0 ? (uint32_t)stat.exit_signal : 0;
		p->exit_status = p->zombie ? stat.exit_status : 0;
		p->tty = (uint32_t)stat.tty;
		p->tpgid = stat.tty ? stat.tpgid : -1;
		if (p->zombie)
			memcpy(p->name, stat.name, sizeof(p->name));
		else
			p->uid = p->gid = 0;
		p->parent_tid = inner_tid(t, p, level);
		p->memory = p->files = p->fs = p->handlers = (uint32_t)i;
	}
	if (tree_numbers_capture(t, level, e) < 0)
		return e ? e->code : -EIO;
	fd_owner_level(level, t->n_numbers);
	return 0;
}

/* --- who shares what --- */

struct sharer {
	uint32_t index;
	pid_t pid;
	int type;
};

static int compare_sharers(const void *a, const void *b)
{
	const struct sharer *x = a, *y = b;
	long ret = syscall(SYS_kcmp, x->pid, y->pid, x->type, 0, 0);

	if (ret == 0)
		return x->index < y->index ? -1 : 1;
	return ret == 1 ? -1 : 1;
}

static int find_sharers(struct tree *t, int type, size_t member, struct err *e)
{
	struct sharer *s = calloc(t->n, sizeof(*s));
	size_t n = 0;

	if (!s)
		return err_sys(e, ENOMEM, "a tree of processes");
	for (uint32_t i = 0; i < t->n; i++)
		if (!t->v[i].zombie)
			s[n++] = (struct sharer){ i, t->v[i].host_pid, type };
	qsort(s, n, sizeof(*s), compare_sharers);
	for (size_t i = 1; i < n; i++) {
		uint32_t *mine = (uint32_t *)((char *)&t->v[s[i].index] + member), *other = (uint32_t *)((char *)&t->v[s[i - 1].index] + member);

		if (syscall(SYS_kcmp, s[i - 1].pid, s[i].pid, type, 0, 0) == 0)
			*mine = MIN(*other, *mine);
	}
	free(s);
	return 0;
}

static int find_all_sharers(struct tree *t, struct err *e)
{
	int ret = find_sharers(t, KCMP_VM, offsetof(struct tree_process, memory), e);

	if (ret == 0)
		ret = find_sharers(t, KCMP_FILES, offsetof(struct tree_process, files), e);
	if (ret == 0)
		ret = find_sharers(t, KCMP_FS, offsetof(struct tree_process, fs), e);
	if (ret == 0)
		ret = find_sharers(t, KCMP_SIGHAND, offsetof(struct tree_process, handlers), e);
	return ret;
}

/* --- what cannot move --- */

/* Whether it is the task that Godwit itself has in a process whose memory is on its way. */
static bool is_agent(pid_t pid)
{
	cleanup_close int fd = -1;
	char path[64], name[32] = "";

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, name, sizeof(name) - 1) > 0 && strcmp(name, "godwit-agent\n") == 0;
}

/* A process outside of the unit that has the memory of one inside. */
static void check_outsider(const struct tree *t, pid_t other, struct refusals *r)
{
	for (size_t i = 0; i < t->n; i++) {
		struct process_stat stat;
		pid_t pid = t->v[i].host_pid;

		if (t->v[i].zombie || t->v[i].memory != i || syscall(SYS_kcmp, pid, other, KCMP_VM, 0, 0) != 0)
			continue;
		/* those without memory are all alike */
		if (process_stat_read(other, &stat, NULL) < 0 || stat.state == 'Z' || stat.flags & FLAG_KTHREAD || is_agent(other))
			return;
		if (process_stat_read(pid, &stat, NULL) == 0 && stat.ppid == other)
			refusals_add(r, "task.shared-memory-parent", "it shares its memory with its parent (vfork)", "try again when it has called exec",
				     "process %d (parent %d)", pid, other);
		else
			refusals_add(r, "task.shared-memory", "another process shares its address space", "end the other process first",
				     "process %d (shared with process %d)", pid, other);
		return;
	}
}

static void check_outsiders(const struct tree *t, struct refusals *r)
{
	cleanup_closedir DIR *proc = opendir("/proc");

	for (struct dirent *d; proc && (d = readdir(proc));) {
		pid_t other = atoi(d->d_name);

		if (other > 0 && tree_find_host(t, other) == TREE_NONE)
			check_outsider(t, other, r);
	}
}

bool tree_waits_in_vfork(pid_t pid, pid_t tid)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], text[128] = "";
	long nr;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	f = fopen(path, "re");
	if (!f || !fgets(text, sizeof(text), f) || text[0] < '0' || text[0] > '9') /* "running": it does not wait */
		return false;
	nr = atol(text);
	return nr == SYS_vfork || nr == SYS_clone || nr == SYS_clone3;
}

static bool waits_in_vfork(pid_t pid)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));)
		if (d->d_name[0] != '.' && tree_waits_in_vfork(pid, atoi(d->d_name)))
			return true;
	return false;
}

static void check(const struct tree *t, struct refusals *r)
{
	struct tree_plan plan;
	struct err e = ERR_INIT;

	for (size_t i = 0; i < t->n; i++) {
		const struct tree_process *p = &t->v[i];

		if (p->zombie && p->exit_status & CORE_DUMPED)
			refusals_add(r, "tree.zombie-core", "it has ended with a core dump, which its end at the destination would make again",
				     "have its parent wait for it", "process %d (dead, not waited for)", p->host_pid);
		if (p->memory != i && waits_in_vfork(t->v[p->parent].host_pid))
			refusals_add(r, "task.shared-memory-parent", "its parent waits until it has called exec (vfork), and cannot be stopped", "try again then",
				     "process %d (parent %d)", p->host_pid, t->v[p->parent].host_pid);
	}
	check_outsiders(t, r);
	if (tree_plan(t, NULL, &plan, &e) < 0)
		refusals_add(r, "tree.sessions", e.message, "start it anew", "the processes below %d", t->v[0].host_pid);
	else
		tree_plan_free(&plan);
}

int tree_capture(pid_t root, const pid_t *also, size_t n_also, struct tree *ret_tree, struct refusals *r, struct err *e)
{
	struct tree t = TREE_INIT, again = TREE_INIT;
	int ret = -EAGAIN;

	for (int looks = 0; ret == -EAGAIN && looks < LOOKS_MAX; looks++) {
		tree_free(&t);
		ret = list(root, also, n_also, &t, e);
		if (ret == 0)
			ret = describe(&t, e);
		if (ret == 0)
			ret = find_all_sharers(&t, e);
		if (ret == 0)
			ret = list(root, also, n_also, &again, e);
		if ((ret == 0 && !same_members(&t, &again)) || (ret == -ESRCH && kill(root, 0) == 0)) /* one of the others */
			ret = err_set(e, -EAGAIN, "process %d starts and ends processes faster than they can be looked at", root);
		tree_free(&again);
	}
	if (ret == 0)
		ret = tree_validate(&t, e);
	if (ret == -EBADMSG) { /* what was seen at different moments may not fit together: worth another look */
		ret = -EINVAL;
		if (e)
			e->code = ret;
	}
	if (ret < 0) {
		tree_free(&t);
		return ret;
	}
	if (r)
		check(&t, r);
	*ret_tree = t;
	return 0;
}
