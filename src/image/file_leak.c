/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_leak.c - see file_leak.h; proc(5) */
#include "image/file_leak.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "image/notes.h"
#include "image/process_check.h"

#define TEXT_MAX (1u << 20)
#define WAITED_MAX 4096u /* descriptors of one poll that are looked at; more count as this one */
#define DEPTH_MAX 64

/* --- what a program was told --- */

/* A number by itself, as one writes it: not part of another, of an address or of a name, without zeros in front. */
static bool has_number(const char *s, int fd)
{
	for (const char *p = s; *p;) {
		const char *begin = p;
		char *end;
		long n;

		if (!isdigit((unsigned char)*p)) {
			p++;
			continue;
		}
		n = strtol(p, &end, 10);
		p = end;
		if (n == fd && (*begin != '0' || end == begin + 1) && (begin == s || begin[-1] != '.') && *end != '.' && !isalpha((unsigned char)*end))
			return true;
	}
	return false;
}

/* By its name, or by what it says. */
static bool is_about_descriptors(const char *variable)
{
	static const char *const names[] = { "FD", "SOCK", "PIPE", "CHANNEL", "HANDLE", "DESC", "CONN", "STREAM", "JOB", "MAKEFLAGS", "LISTEN" };
	static const char *const values[] = { "fd:", "fd=", "fd/" };
	size_t name = strcspn(variable, "=");

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		for (size_t k = 0; k + strlen(names[i]) <= name; k++)
			if (!strncasecmp(variable + k, names[i], strlen(names[i])))
				return true;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		if (strstr(variable + name, values[i]))
			return true;
	return false;
}

/* Hydra (MPICH) means its own helper by it, and does not take it out of the environment of what that starts. */
static bool is_for_another(const char *variable)
{
	return !strncmp(variable, "HYDI_CONTROL_FD=", 16);
}

/* sd_listen_fds(3): how many there are, from the third on. */
static bool is_listen_fds(const char *variable, int fd)
{
	return !strncmp(variable, "LISTEN_FDS=", 11) && fd < 3 + atoi(variable + 11);
}

bool fd_is_named(const char *text, size_t len, bool variables, int fd)
{
	for (size_t at = 0; at < len; at += strnlen(text + at, len - at) + 1) {
		const char *s = text + at;

		if (strnlen(s, len - at) == len - at) /* cut off */
			return true;
		if (variables && is_listen_fds(s, fd))
			return true;
		if ((!variables || (is_about_descriptors(s) && !is_for_another(s))) && has_number(variables ? s + strcspn(s, "=") : s, fd))
			return true;
	}
	return false;
}

static bool was_told(pid_t pid, const char *file, bool variables, int fd)
{
	cleanup_free char *text = malloc(TEXT_MAX + 1);
	cleanup_close int in = -1;
	char path[64];
	size_t len = 0;
	ssize_t n = 1;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	in = open(path, O_RDONLY | O_CLOEXEC);
	while (text && in >= 0 && len < TEXT_MAX && (n = read(in, text + len, TEXT_MAX - len)) > 0)
		len += (size_t)n;
	if (!text || in < 0 || n < 0 || len == TEXT_MAX)
		return true;
	text[len] = 0;
	return fd_is_named(text, len && text[len - 1] ? len + 1 : len, variables, fd);
}

/* --- what it does --- */

static bool is_in_set(pid_t pid, uint64_t address, int fd)
{
	unsigned char byte = 0;
	struct iovec own = { &byte, 1 }, theirs = { (void *)(uintptr_t)(address + (unsigned)fd / 8), 1 };

	return address && (process_vm_readv(pid, &own, 1, &theirs, 1, 0) != 1 || byte >> fd % 8 & 1);
}

static bool is_polled(pid_t pid, uint64_t address, uint64_t n, int fd)
{
	static struct pollfd v[WAITED_MAX];
	struct iovec own = { v, n * sizeof(*v) }, theirs = { (void *)(uintptr_t)address, n * sizeof(*v) };

	if (n > WAITED_MAX || process_vm_readv(pid, &own, 1, &theirs, 1, 0) != (ssize_t)own.iov_len)
		return n > 0;
	for (size_t i = 0; i < n; i++)
		if (v[i].fd == fd)
			return true;
	return false;
}

/* Whether a thread waits in a call about this descriptor. */
static bool waits_for(pid_t pid, int tid, int fd)
{
	cleanup_fclose FILE *f = NULL;
	uint64_t a[4] = { 0 };
	char path[64];
	long nr;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	f = fopen(path, "re");
	if (!f || fscanf(f, "%ld %lx %lx %lx %lx", &nr, &a[0], &a[1], &a[2], &a[3]) != 5) /* it runs */
		return false;
	if (nr == SYS_poll || nr == SYS_ppoll)
		return is_polled(pid, a[0], a[1], fd);
	if (nr == SYS_select || nr == SYS_pselect6)
		return (uint64_t)fd < a[0] && (is_in_set(pid, a[1], fd) || is_in_set(pid, a[2], fd) || is_in_set(pid, a[3], fd));
	/* Of others the first argument, where it is a descriptor; otherwise it is hardly so small a number. */
	return a[0] == (uint64_t)fd;
}

static bool is_waited_for(pid_t pid, int fd)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));)
		if (d->d_name[0] != '.' && waits_for(pid, atoi(d->d_name), fd))
			return true;
	return !dir;
}

static bool has_target(pid_t pid, const char *epoll, int fd)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[256];
	int target;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%.16s", pid, epoll);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "tfd: %d", &target) == 1 && target == fd)
			return true;
	return false;
}

static bool is_in_epoll(pid_t pid, int fd)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64], link[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		ssize_t n = readlinkat(dirfd(dir), d->d_name, link, sizeof(link) - 1);

		link[MAX(n, 0)] = 0;
		if (!strcmp(link, "anon_inode:[eventpoll]") && has_target(pid, d->d_name, fd))
			return true;
	}
	return !dir;
}

/* --- who left it open --- */

/* Where a program's stack begins, which execve(2) chooses at random; 0: not known. */
static uint64_t program_of(pid_t pid)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], text[1024] = "";
	const char *p;
	int field = 2;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f || !fgets(text, sizeof(text), f) || !(p = strrchr(text, ')')))
		return 0;
	while (*p && field < 28)
		if (*p++ == ' ')
			field++;
	return strtoull(p, NULL, 10);
}

static bool has_open(pid_t pid, const char *kind, uint64_t ino)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64], wanted[64], link[64];

	snprintf(wanted, sizeof(wanted), "%s:[%llu]", kind, (unsigned long long)ino);
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		ssize_t n = readlinkat(dirfd(dir), d->d_name, link, sizeof(link) - 1);

		link[MAX(n, 0)] = 0;
		if (!strcmp(link, wanted))
			return true;
	}
	return false;
}

bool fdtable_has_process(const struct fdtable *t, pid_t pid)
{
	for (size_t i = 0; i < t->n_views; i++)
		if (t->views[i].pid == pid)
			return true;
	return false;
}

static pid_t find_ancestor(const struct fdtable *t, pid_t pid, uint32_t desc)
{
	const struct fd_held *held = &t->held[desc];
	const char *kind = t->msg->descs[desc]->kind == GW__FD_KIND__FD_PIPE ? "pipe" : "socket";
	struct process_stat stat;

	for (int depth = 0; depth < DEPTH_MAX && process_stat_read(pid, &stat, NULL) == 0 && stat.ppid > 1; depth++) {
		pid = stat.ppid;
		if (!fdtable_has_process(t, pid) && has_open(pid, kind, held->ino))
			return pid;
	}
	return 0;
}

/* NULL: it is leaked by *ret. Otherwise why it is not. */
static const char *leaked_into(const struct fdtable *t, const struct fd_view *v, const struct fd_seen *s, pid_t *ret)
{
	pid_t from = find_ancestor(t, v->pid, s->desc);
	uint64_t own = program_of(v->pid), theirs = from ? program_of(from) : 0;

	*ret = from;
	if (!from || !own || !theirs || own == theirs)
		return "a process that would stay behind has this connection open, too";
	if (s->fd <= 2)
		return "a process that would stay behind has this connection open, too, and here it is a standard stream";
	if (s->cloexec)
		return "a process that would stay behind has this connection open, too, and here it is to be closed by exec: the program knows of it";
	if (was_told(v->pid, "cmdline", false, s->fd) || was_told(v->pid, "environ", true, s->fd))
		return "a process that would stay behind has this connection open, too, and here arguments or environment name it";
	if (is_waited_for(v->pid, s->fd) || is_in_epoll(v->pid, s->fd))
		return "a process that would stay behind has this connection open, too, and here somebody waits for it";
	return NULL;
}

static const char *leaked_from(const struct fdtable *t, uint32_t desc, pid_t *ret)
{
	for (size_t i = 0; i < t->n_views; i++)
		for (size_t k = 0; k < t->views[i].n_seen; k++) {
			const char *why = t->views[i].seen[k].desc == desc ? leaked_into(t, &t->views[i], &t->views[i].seen[k], ret) : NULL;

			if (why)
				return why;
		}
	/* Who has it by a message may know what it is. */
	return t->held[desc].in_flight ? "a process that would stay behind has this connection open, too, and here it lies in a message" : NULL;
}

bool fdtable_is_leaked(struct fdtable *t, uint32_t desc, const char *what, const char **ret_why)
{
	struct fd_held *held = &t->held[desc];
	struct process_stat stat = { .name = "?" };
	const char *why = NULL;
	pid_t from = 0;

	if (!held->leaked && !t->frozen)
		why = leaked_from(t, desc, &from);
	if (ret_why && why)
		*ret_why = why;
	if (from && !why) {
		held->leaked = true;
		process_stat_read(from, &stat, NULL);
		notes_add("a %s of process %d (%s), left open in what that had started (fd %d), stays with it; there it leads nowhere.", what, (int)from, stat.name,
			  fdtable_number_of(t, desc)->fd);
	}
	return held->leaked;
}
