/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guard.c - ends a worker that is stopped, lets through one that waits for a CPU; see guard.h */
#include "migrate/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "kern/fdpass.h"
#include "migrate/pace.h"

#define LOOK_MS 200
#define WAIT_NS 50000000ull /* a quarter of a look */

/* Written by the worker, but for `hurries`. */
struct shared {
	uint32_t watched, hurries;
	uint32_t n_tasks;
	pid_t tasks[GUARD_TASKS_MAX]; /* the first is the worker */
};

/* What a task has got of the CPUs (/proc/PID/schedstat). */
struct got {
	int fd; /* -1: not opened yet, or it has ended */
	bool seen;
	uint64_t ran_ns, waited_ns;
};

static struct shared *shared;

/* As in /proc/PID/stat; 0: it has ended. */
static char process_state(int stat)
{
	char text[512], *state;
	ssize_t n = pread(stat, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return 0;
	text[n] = 0;
	state = strrchr(text, ')');
	return state && state[1] ? state[2] : 0;
}

/* By a signal or by a tracer. */
static bool is_stopped(int stat)
{
	char state = process_state(stat);

	return state == 'T' || state == 't';
}

static bool wants_cpu(pid_t tid)
{
	char path[64];
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && process_state(fd) == 'R';
}

/*
 * Whether a task has waited for a CPU for a good part of the last look. What it waits is counted when it gets one: who has got none wants one at both ends of the look, and has neither run
 * nor waited in between.
 */
static bool has_waited(struct got *got, pid_t tid)
{
	unsigned long long ran, waited;
	bool starves = false;
	char text[128];
	ssize_t n;

	if (got->fd < 0) {
		snprintf(text, sizeof(text), "/proc/%d/schedstat", tid);
		got->fd = open(text, O_RDONLY | O_CLOEXEC);
	}
	n = got->fd < 0 ? -1 : pread(got->fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return false;
	text[n] = 0;
	if (sscanf(text, "%llu %llu", &ran, &waited) != 2)
		return false;
	if (got->seen)
		starves = waited - got->waited_ns > WAIT_NS || (ran == got->ran_ns && waited == got->waited_ns && wants_cpu(tid));
	*got = (struct got){ got->fd, true, ran, waited };
	return starves;
}

/* Only the niceness: the class and the slice are the worker's business, and may be others in the freeze. */
static void let_through(const struct got *got, uint32_t n)
{
	char text[128];

	for (uint32_t i = 0; i < n; i++)
		if (got[i].fd >= 0 && pread(got[i].fd, text, sizeof(text), 0) > 0)
			setpriority(PRIO_PROCESS, (id_t)shared->tasks[i], PACE_HURRY_NICE);
}

static void care(struct got got[GUARD_TASKS_MAX])
{
	uint32_t n = MIN(__atomic_load_n(&shared->n_tasks, __ATOMIC_ACQUIRE), GUARD_TASKS_MAX);
	bool waits = false;

	for (uint32_t i = 0; i < n; i++)
		waits |= has_waited(&got[i], shared->tasks[i]);
	if (!waits)
		return;
	__atomic_store_n(&shared->hurries, 1, __ATOMIC_RELEASE);
	let_through(got, n);
}

/* A fork of the worker, which keeps nothing of it: connections mean something to others as long as they are open. */
static void __attribute__((noreturn)) guard_main(int worker, int stat)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
	struct got got[GUARD_TASKS_MAX];
	unsigned stopped_ms = 0;

	for (size_t i = 0; i < GUARD_TASKS_MAX; i++)
		got[i] = (struct got){ .fd = -1 };
	setsid();
	setpriority(PRIO_PROCESS, 0, -20);
	prctl(PR_SET_NAME, "godwit-guard");
	if (dup2(worker, STDIN_FILENO) < 0 || dup2(stat, STDOUT_FILENO) < 0)
		_exit(1);
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
	while (poll(&p, 1, LOOK_MS) <= 0) {
		bool counts = __atomic_load_n(&shared->watched, __ATOMIC_ACQUIRE) && is_stopped(STDOUT_FILENO);

		care(got);
		stopped_ms = counts ? stopped_ms + LOOK_MS : 0;
		if (stopped_ms != GUARD_STOPPED_MS)
			continue;
		syscall(SYS_pidfd_send_signal, STDIN_FILENO, SIGKILL, NULL, 0);
		log_error("event=worker-stopped text=\"it was stopped for %u ms in the middle of a migration, and has been ended\"", stopped_ms);
	}
	_exit(0);
}

static int start(struct err *e)
{
	char path[64];
	cleanup_close int worker = pidfd_open_process(getpid(), e), stat = -1;
	void *page;
	pid_t pid;

	if (worker < 0)
		return worker;
	snprintf(path, sizeof(path), "/proc/%d/stat", getpid());
	stat = open(path, O_RDONLY | O_CLOEXEC);
	if (stat < 0)
		return err_sys(e, -errno, "%s", path);
	page = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return err_sys(e, -errno, "mmap");
	shared = page;
	guard_care(getpid());
	pid = fork();
	if (pid == 0)
		guard_main(worker, stat);
	return pid < 0 ? err_sys(e, -errno, "fork") : 0;
}

void guard_start(void)
{
	struct err e = ERR_INIT;

	if (start(&e) < 0)
		log_warning("event=no-guard text=\"%s\"", e.message);
}

void guard_watch(bool on)
{
	if (shared)
		__atomic_store_n(&shared->watched, on, __ATOMIC_RELEASE);
}

void guard_care(pid_t tid)
{
	uint32_t n = shared ? shared->n_tasks : GUARD_TASKS_MAX;

	if (n == GUARD_TASKS_MAX)
		return;
	for (uint32_t i = 0; i < n; i++)
		if (shared->tasks[i] == tid)
			return;
	shared->tasks[n] = tid;
	__atomic_store_n(&shared->n_tasks, n + 1, __ATOMIC_RELEASE);
}

bool guard_hurries(void)
{
	return shared && __atomic_load_n(&shared->hurries, __ATOMIC_ACQUIRE);
}
