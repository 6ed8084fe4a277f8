/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * proc_ended.c - files of /proc about processes that have ended; see proc_ended.h
 *
 * Theory of operation: only children are born into another pid namespace (setns(2)), so a child of the worker enters it and clones the stand-in. Both end when
 * the pipe `hold` has no writer any more, be it that the worker has died. Both make system calls only: the worker may have threads.
 */
#include "image/proc_ended.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "image/place.h"
#include "kern/nsfs.h"

#define NUMBER_MAX (1 << 30) /* of a descriptor: above what the kernel allows */

/* Shared by the three. */
struct word {
	pid_t here, seen;
	int error;
};

struct birth {
	struct word *word;
	int space; /* the pid namespace */
	pid_t number;
	int hold[2], ready[2];
};

pid_t proc_path_process(const char *path, const char **ret_rest)
{
	char *end;
	long pid;

	if (strncmp(path, "/proc/", 6) || path[6] < '1' || path[6] > '9')
		return 0;
	pid = strtol(path + 6, &end, 10);
	if ((*end && *end != '/') || pid > INT_MAX)
		return 0;
	*ret_rest = end;
	return (pid_t)pid;
}

/* What follows "/task/N" for its main thread; NULL: it is another thread. */
static const char *below_task(const char *rest, pid_t pid)
{
	char *end;

	if (strncmp(rest, "/task/", 6))
		return rest;
	return strtol(rest + 6, &end, 10) == pid && (!*end || *end == '/') ? end : NULL;
}

/* What comes behind the process, or its thread. */
static const char *behind_task(const char *path)
{
	const char *rest;

	if (!proc_path_process(path, &rest))
		return NULL;
	return !strncmp(rest, "/task/", 6) ? rest + 6 + strcspn(rest + 6, "/") : rest;
}

int proc_path_descriptor(const char *path)
{
	static const char name[] = "/fdinfo/";
	const char *rest = behind_task(path);
	char *end;
	long number;

	if (!rest || strncmp(rest, name, sizeof(name) - 1) != 0 || !isdigit((unsigned char)rest[sizeof(name) - 1]))
		return -1;
	number = strtol(rest + sizeof(name) - 1, &end, 10);
	return *end || number > NUMBER_MAX ? -1 : (int)number;
}

bool proc_path_is_fleeting(const char *path)
{
	static const char *const fleeting[] = { "/fd/", "/fdinfo/", "/map_files/" };
	const char *rest = behind_task(path);

	if (!rest)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(fleeting); i++)
		if (!strncmp(rest, fleeting[i], strlen(fleeting[i])))
			return true;
	return false;
}

bool proc_ended_is_possible(const char *path)
{
	const char *rest;
	pid_t pid = proc_path_process(path, &rest);

	return pid && below_task(rest, pid) && !proc_path_is_fleeting(path);
}

static pid_t clone_with_number(pid_t number)
{
	struct clone_args args = { .set_tid = number ? (uintptr_t)&number : 0, .set_tid_size = number ? 1 : 0 };

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static _Noreturn void stand_in(const struct birth *b)
{
	char byte = 0;

	b->word->seen = (pid_t)syscall(SYS_getpid);
	(void)!write(b->ready[1], &byte, 1);
	while (read(b->hold[0], &byte, 1) < 0 && errno == EINTR)
		;
	_exit(0);
}

static _Noreturn void parent(const struct birth *b)
{
	pid_t made = -1;
	char byte = 0;

	close(b->hold[1]);
	close(b->ready[0]);
	if (ns_enter(b->space, NS_PID) == 0) {
		made = clone_with_number(b->number);
		if (made < 0) /* it is somebody's, or cannot be chosen */
			made = clone_with_number(0);
	}
	if (made == 0)
		stand_in(b);
	b->word->error = made < 0 ? errno : 0;
	b->word->here = made;
	(void)!write(b->ready[1], &byte, 1);
	close(b->ready[1]);
	while (made > 0 && waitpid(made, NULL, __WALL) < 0 && errno == EINTR)
		;
	_exit(0);
}

static bool are_ready(int fd)
{
	char bytes[2];
	size_t n = 0;

	while (n < sizeof(bytes)) {
		ssize_t got = read(fd, bytes, sizeof(bytes) - n);

		if (got == 0 || (got < 0 && errno != EINTR))
			return false;
		n += got > 0 ? (size_t)got : 0;
	}
	return true;
}

static int give_birth(struct proc_ended *p, struct birth *b, struct err *e)
{
	bool ready;

	p->child = clone_with_number(0);
	if (p->child < 0)
		return err_sys(e, -errno, "a stand-in for process %d", (int)b->number);
	if (p->child == 0)
		parent(b);
	p->hold = take_fd(&b->hold[1]);
	close_fdp(&b->ready[1]);
	ready = are_ready(b->ready[0]);
	p->here = b->word->here;
	p->seen = b->word->seen;
	if (!ready || p->here <= 0)
		return err_sys(e, b->word->error ? -b->word->error : -ECHILD, "a stand-in for process %d", (int)b->number);
	return 0;
}

int proc_ended_start(struct proc_ended *p, const char *path, pid_t beside, struct err *e)
{
	struct birth b = { .hold = { -1, -1 }, .ready = { -1, -1 } };
	const char *rest;
	int ret = 0;

	b.number = proc_path_process(path, &rest);
	b.space = ns_open(beside, NS_PID);
	b.word = mmap(NULL, sizeof(*b.word), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b.space < 0 || b.word == MAP_FAILED || pipe2(b.hold, O_CLOEXEC) < 0 || pipe2(b.ready, O_CLOEXEC) < 0)
		ret = err_sys(e, -errno, "a stand-in for process %d", (int)b.number);
	if (ret == 0)
		ret = give_birth(p, &b, e);
	for (int i = 0; i < 2; i++) {
		close_fdp(&b.hold[i]);
		close_fdp(&b.ready[i]);
	}
	close_fdp(&b.space);
	if (b.word != MAP_FAILED)
		munmap(b.word, sizeof(*b.word));
	if (ret < 0)
		proc_ended_stop(p);
	return ret;
}

int proc_ended_open(const struct proc_ended *p, const char *path, int flags, struct err *e)
{
	const char *rest, *below;
	pid_t was = proc_path_process(path, &rest), now = place_prefix()[0] ? p->seen : p->here;
	char name[PATH_MAX];
	int fd;

	below = was ? below_task(rest, was) : NULL;
	if (!below)
		return err_set(e, -EPROTO, "%s: not a file of a process", path);
	if (below == rest)
		snprintf(name, sizeof(name), "/proc/%d%s", (int)now, rest);
	else
		snprintf(name, sizeof(name), "/proc/%d/task/%d%s", (int)now, (int)now, below);
	fd = open(place_of(name), flags | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? err_sys(e, -errno, "%s: opening it for %s", name, path) : fd;
}

void proc_ended_stop(struct proc_ended *p)
{
	close_fdp(&p->hold);
	while (p->child > 0 && waitpid(p->child, NULL, __WALL) < 0 && errno == EINTR)
		;
	p->child = 0;
}
