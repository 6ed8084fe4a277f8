/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guard.c - ends a worker that is stopped; see guard.h */
#include "migrate/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "kern/fdpass.h"

#define LOOK_MS 200

static uint32_t *watched; /* shared with the guard */

/* Stopped by a signal or by a tracer. */
static bool is_stopped(int stat)
{
	char text[512], *state;
	ssize_t n = pread(stat, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return false;
	text[n] = 0;
	state = strrchr(text, ')');
	return state && (state[2] == 'T' || state[2] == 't');
}

/* A fork of the worker, which keeps nothing of it: connections mean something to others as long as they are open. */
static void __attribute__((noreturn)) guard_main(int worker, int stat)
{
	struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
	unsigned stopped_ms = 0;

	setsid();
	prctl(PR_SET_NAME, "godwit-guard");
	if (dup2(worker, STDIN_FILENO) < 0 || dup2(stat, STDOUT_FILENO) < 0)
		_exit(1);
	syscall(SYS_close_range, STDERR_FILENO + 1, ~0u, 0);
	while (poll(&p, 1, LOOK_MS) <= 0) {
		bool counts = __atomic_load_n(watched, __ATOMIC_ACQUIRE) && is_stopped(STDOUT_FILENO);

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
	page = mmap(NULL, sizeof(*watched), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return err_sys(e, -errno, "mmap");
	watched = page;
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
	if (watched)
		__atomic_store_n(watched, on, __ATOMIC_RELEASE);
}
