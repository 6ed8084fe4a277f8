/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* process_check.c - why a process cannot move, as seen from outside; see process_check.h */
#include "image/process_check.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/clocks.h"
#include "image/timer.h"

#define FLAG_KTHREAD 0x00200000ul
#define CHILDREN_NAMED 8
#define STATE_RETRIES 20

int process_stat_read(pid_t pid, struct process_stat *ret_stat, struct err *e)
{
	cleanup_close int fd = -1;
	char path[64], text[1024];
	struct process_stat s;
	const char *p;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return err_set(e, errno == ENOENT ? -ESRCH : -errno, "process %d: %s", pid, errno == ENOENT ? "no such process" : strerror(errno));
	text[n] = 0;
	p = strrchr(text, ')'); /* the name may hold anything */
	if (!p || sscanf(p + 1, " %c %d %d %d %d %*d %lu", &s.state, &s.ppid, &s.pgid, &s.sid, &s.tty, &s.flags) != 6)
		return err_set(e, -EIO, "%s: unexpected form", path);
	*ret_stat = s;
	return 0;
}

static void check_children(pid_t pid, struct refusals *r)
{
	cleanup_closedir DIR *proc = opendir("/proc");
	char names[512] = "";
	size_t len = 0;
	unsigned n = 0;

	for (struct dirent *d; proc && (d = readdir(proc));) {
		pid_t child = atoi(d->d_name);
		struct process_stat stat;

		if (child <= 0 || process_stat_read(child, &stat, NULL) < 0 || stat.ppid != pid)
			continue;
		if (n++ < CHILDREN_NAMED)
			len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%d%s", n > 1 ? ", " : "", child,
						stat.state == 'Z' ? " (dead, not waited for)" : "");
	}
	if (n)
		refusals_add(r, "task.children", "processes with children cannot move yet", "move it when its children have ended",
			     "process %d (%u child%s: %s%s)", pid, n, n == 1 ? "" : "ren", names, n > CHILDREN_NAMED ? ", ..." : "");
}

/* Whether it is the task that Godwit itself has in a process whose memory is on its way. */
static bool is_agent(pid_t pid)
{
	cleanup_close int fd = -1;
	char path[64], name[32] = "";

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, name, sizeof(name) - 1) > 0 && strcmp(name, "godwit-agent\n") == 0;
}

/* A task that shares the address space and is neither a thread nor parent or child (CLONE_VM with CLONE_PARENT, or an orphan). */
static void check_sharers(pid_t pid, pid_t parent, struct refusals *r)
{
	cleanup_closedir DIR *proc = opendir("/proc");

	for (struct dirent *d; proc && (d = readdir(proc));) {
		pid_t other = atoi(d->d_name);
		struct process_stat stat;

		if (other <= 0 || other == pid || other == parent || syscall(SYS_kcmp, pid, other, KCMP_VM, 0, 0) != 0)
			continue;
		/* those without memory are all alike */
		if (process_stat_read(other, &stat, NULL) < 0 || stat.state == 'Z' || stat.flags & FLAG_KTHREAD || stat.ppid == pid || is_agent(other))
			continue;
		refusals_add(r, "task.shared-memory", "another process shares its address space", "end the other process first",
			     "process %d (shared with process %d)", pid, other);
	}
}

static bool namespace_of(const char *pid, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%s/ns/%s", pid, name);
	n = readlink(path, text, size - 1);
	if (n < 0)
		return false;
	text[n] = 0;
	return true;
}

static void check_namespaces(pid_t pid, struct refusals *r)
{
	static const char *const names[] = { "user", "net", "ipc", "mnt", "uts", "cgroup", "pid" };
	char number[16], theirs[64], ours[64];

	snprintf(number, sizeof(number), "%d", pid);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!namespace_of(number, names[i], theirs, sizeof(theirs)) || !namespace_of("self", names[i], ours, sizeof(ours)))
			continue;
		if (strcmp(theirs, ours) != 0)
			refusals_add(r, "task.namespace", "namespaces other than godwitd's cannot move yet",
				     "run godwitd in the same namespaces, or start the program without them", "process %d (%s namespace)", pid,
				     names[i]);
	}
	clocks_check(pid, r);
}

static void check_program(pid_t pid, struct refusals *r)
{
	cleanup_close int fd = -1;
	unsigned char ident[EI_NIDENT];
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, ident, sizeof(ident)) == (ssize_t)sizeof(ident) && ident[EI_CLASS] != ELFCLASS64)
		refusals_add(r, "task.32bit", "32-bit programs cannot move", "use a 64-bit build", "process %d", pid);
}

static void check_status(pid_t pid, struct refusals *r)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	size_t size = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && getline(&line, &size, f) > 0) {
		const char *last = strrchr(line, '\t');

		if (strncmp(line, "TracerPid:", 10) == 0 && atoi(line + 10))
			refusals_add(r, "task.traced", "a debugger or tracer is attached to it", "detach it", "process %d (traced by %d)", pid,
				     atoi(line + 10));
		if (strncmp(line, "Tgid:", 5) == 0 && atoi(line + 5) != pid)
			refusals_add(r, "task.thread", "it is a thread of another process", "name its process", "thread %d (of process %d)", pid,
				     atoi(line + 5));
		if (strncmp(line, "NSpid:", 6) == 0 && last && atoi(last) == 1)
			refusals_add(r, "task.init", "the first process of a host or container cannot move", "move its children", "process %d",
				     pid);
		if (strncmp(line, "untag_mask:", 11) == 0 && strtoull(line + 11, NULL, 16) != UINT64_MAX)
			refusals_add(r, "task.tagged-addresses", "linear address masking cannot move yet", "start it without LAM", "process %d",
				     pid);
	}
}

static void check_state(pid_t pid, char state, struct refusals *r)
{
	struct process_stat stat;

	/* waiting for a disk is over soon */
	for (unsigned i = 0; state == 'D' && i < STATE_RETRIES; i++) {
		nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
		if (process_stat_read(pid, &stat, NULL) == 0)
			state = stat.state;
	}
	if (state == 'D')
		refusals_add(r, "task.uninterruptible", "it waits for a device and cannot be stopped", "try again later", "process %d", pid);
	if (state == 'T')
		refusals_add(r, "task.stopped", "stopped processes cannot move yet", "continue it (kill -CONT)", "process %d", pid);
}

static void check_relations(pid_t pid, const struct process_stat *stat, struct refusals *r)
{
	char mine[4096] = "", theirs[4096] = "", path[64];

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (readlink("/proc/self/exe", mine, sizeof(mine) - 1) < 0 || readlink(path, theirs, sizeof(theirs) - 1) < 0)
		mine[0] = theirs[0] = 0;
	if (pid == getpid() || pid == getppid() || (stat->ppid == getppid() && mine[0] && strcmp(mine, theirs) == 0))
		refusals_add(r, "task.self", "godwitd cannot move itself", "name another process", "process %d", pid);
	if (stat->tty)
		refusals_add(r, "task.controlling-terminal", "processes with a controlling terminal cannot move yet",
			     "start it with setsid", "process %d (terminal %d:%d)", pid, stat->tty >> 8 & 0xff, stat->tty & 0xff);
	if (stat->ppid > 0 && syscall(SYS_kcmp, pid, stat->ppid, KCMP_VM, 0, 0) == 0)
		refusals_add(r, "task.shared-memory-parent", "it shares its memory with its parent (vfork)", "try again when it has called exec",
			     "process %d (parent %d)", pid, stat->ppid);
}

int process_check(pid_t pid, const struct process_stat *stat, struct refusals *r, struct err *e)
{
	if (stat->flags & FLAG_KTHREAD) {
		refusals_add(r, "task.kernel-thread", "it is part of the kernel", "name another process", "process %d", pid);
		return 0;
	}
	if (stat->state == 'Z' || stat->state == 'X') {
		refusals_add(r, "task.dead", "it has ended", "name another process", "process %d", pid);
		return 0;
	}
	check_state(pid, stat->state, r);
	check_status(pid, r);
	check_relations(pid, stat, r);
	check_children(pid, r);
	check_sharers(pid, stat->ppid, r);
	check_namespaces(pid, r);
	check_program(pid, r);
	return timer_check(pid, r, e);
}
