/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* process_check.c - why a process cannot move, as seen from outside; see process_check.h */
#include "image/process_check.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>

#include "base/util.h"
#include "image/timer.h"
#include "kern/nsfs.h"

#define FLAG_KTHREAD 0x00200000ul
#define STATE_RETRIES 100

int process_stat_read(pid_t pid, struct process_stat *ret_stat, struct err *e)
{
	cleanup_close int fd = -1;
	char path[64], text[1024];
	struct process_stat s = { 0 };
	const char *p, *name;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return err_set(e, errno == ENOENT ? -ESRCH : -errno, "process %d: %s", pid, errno == ENOENT ? "no such process" : strerror(errno));
	text[n] = 0;
	name = strchr(text, '(');
	p = strrchr(text, ')'); /* the name may hold anything */
	if (!p || !name || p - name > (ptrdiff_t)sizeof(s.name) ||
	    sscanf(p + 1, " %c %d %d %d %d %d %lu %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %u %*d %llu %*u %*d %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u "
			  "%*u %*u %*u %d %d %*u %*u %*u %*u %*d %*u %*u %*u %*u %*u %*u %*u %u", &s.state, &s.ppid, &s.pgid, &s.sid, &s.tty, &s.tpgid,
		   &s.flags, &s.threads, &s.start_ticks, &s.exit_signal, &s.cpu, &s.exit_status) != 12)
		return err_set(e, -EIO, "%s: unexpected form", path);
	memcpy(s.name, name + 1, (size_t)(p - name - 1));
	*ret_stat = s;
	return 0;
}

/*
 * Whether Godwit has put it into a pid namespace, with its own /proc, because its number was taken here (skeleton_start.c): it leaves that by moving. The first process of
 * such a namespace is Godwit's.
 */
bool process_in_own_numbers(pid_t pid)
{
	cleanup_closedir DIR *proc = opendir("/proc");
	uint64_t own = ns_id(pid, NS_PID);

	for (struct dirent *d; proc && (d = readdir(proc));) {
		struct process_stat stat;

		if (own && atoi(d->d_name) > 0 && ns_id(atoi(d->d_name), NS_PID) == own && process_stat_read(atoi(d->d_name), &stat, NULL) == 0 && !strcmp(stat.name, "godwit-init"))
			return true;
	}
	return false;
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

		if (strncmp(line, "TracerPid:", 10) == 0 && atoi(line + 10) && atoi(line + 10) != getpid())
			refusals_add(r, "task.traced", "a debugger or tracer is attached to it", "detach it", "process %d (traced by %d)", pid,
				     atoi(line + 10));
		if (strncmp(line, "Tgid:", 5) == 0 && atoi(line + 5) != pid)
			refusals_add(r, "task.thread", "it is a thread of another process", "name its process", "thread %d (of process %d)", pid,
				     atoi(line + 5));
		if (strncmp(line, "NSpid:", 6) == 0 && last && last == strchr(line, '\t') && atoi(last) == 1)
			refusals_add(r, "task.init", "the first process of a host or container cannot move", "move its children", "process %d",
				     pid);
		if (strncmp(line, "untag_mask:", 11) == 0 && strtoull(line + 11, NULL, 16) != UINT64_MAX)
			refusals_add(r, "task.tagged-addresses", "linear address masking cannot move yet", "start it without LAM", "process %d",
				     pid);
	}
}

/* How often the main thread has gone to sleep; -1: not known. */
static long long count_sleeps(pid_t pid)
{
	char path[64], line[256];
	cleanup_fclose FILE *f = NULL;
	long long n;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "voluntary_ctxt_switches: %lld", &n) == 1)
			return n;
	return -1;
}

/* Waiting for a disk is over soon, also for a program that does so again and again; what has been waiting all the time may do so for ever. */
static void check_state(pid_t pid, char state, struct refusals *r)
{
	long long sleeps = state == 'D' ? count_sleeps(pid) : 0;
	struct process_stat stat;

	for (unsigned i = 0; state == 'D' && i < STATE_RETRIES; i++) {
		nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
		if (process_stat_read(pid, &stat, NULL) == 0)
			state = stat.state;
		if (count_sleeps(pid) != sleeps)
			return;
	}
	if (state == 'D')
		refusals_add(r, "task.uninterruptible", "it waits for a device and cannot be stopped", "try again later", "process %d", pid);
}

static void check_relations(pid_t pid, const struct process_stat *stat, struct refusals *r)
{
	char mine[4096] = "", theirs[4096] = "", path[64];

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (readlink("/proc/self/exe", mine, sizeof(mine) - 1) < 0 || readlink(path, theirs, sizeof(theirs) - 1) < 0)
		mine[0] = theirs[0] = 0;
	if (pid == getpid() || pid == getppid() || (stat->ppid == getppid() && mine[0] && strcmp(mine, theirs) == 0))
		refusals_add(r, "task.self", "godwitd cannot move itself", "name another process", "process %d", pid);
	if (strstr(theirs, "memfd:godwit-stub"))
		refusals_add(r, "task.stub", "it only stands for a process that has moved (ps shows where it runs)", "move it from there",
			     "process %d (a stub)", pid);
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
	check_program(pid, r);
	return timer_check(pid, r, e);
}
