/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* heir.c - see heir.h */
#include "migrate/heir.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/fdpass.h"

#define STACK_BYTES (256u << 10)
#define KEEPS_MAX 65536u

static const struct heir *heir;
static pid_t heir_pid;
static char *stack;
static int worker = -1;
static int *kept;

/* Without the C library, whose errno is the worker's. */
static long call(long number, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return ret;
}

static int compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return x < y ? -1 : x > y;
}

static void close_others(void)
{
	size_t n = heir->keeps(heir->arg, kept, KEEPS_MAX);
	unsigned from = 0;

	if (n > KEEPS_MAX)
		n = 0;
	qsort(kept, n, sizeof(*kept), compare);
	for (size_t i = 0; i < n; i++) {
		if (kept[i] < 0 || (unsigned)kept[i] < from)
			continue;
		if ((unsigned)kept[i] > from)
			syscall(SYS_close_range, from, (unsigned)kept[i] - 1, 0);
		from = (unsigned)kept[i] + 1;
	}
	syscall(SYS_close_range, from, ~0u, 0);
}

static int heir_main(void *arg)
{
	static const char name[] = "godwit-heir";
	struct pollfd p = { .fd = worker, .events = POLLIN };

	(void)arg;
	call(SYS_setsid, 0, 0, 0, 0);
	call(SYS_prctl, PR_SET_NAME, (long)name, 0, 0);
	while (call(SYS_poll, (long)&p, 1, -1, 0) <= 0)
		;
	if (heir->first)
		heir->first(heir->arg);
	close_others();
	heir->inherit(heir->arg);
	_exit(0);
}

int heir_start(const struct heir *h, struct err *e)
{
	if (heir_pid)
		return err_set(e, -EBUSY, "there is an heir");
	if (worker < 0)
		worker = pidfd_open_process(getpid(), e);
	if (worker < 0)
		return worker;
	if (!kept)
		kept = malloc(KEEPS_MAX * sizeof(*kept));
	if (!stack)
		stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (!kept || stack == MAP_FAILED) {
		stack = NULL;
		return err_sys(e, ENOMEM, "an heir");
	}
	heir = h;
	heir_pid = clone(heir_main, stack + STACK_BYTES, CLONE_VM | CLONE_FILES, NULL);
	if (heir_pid > 0)
		return heir_pid;
	heir_pid = 0;
	return err_sys(e, -errno, "an heir");
}

void heir_dismiss(void)
{
	if (!heir_pid)
		return;
	kill(heir_pid, SIGKILL);
	waitpid(heir_pid, NULL, __WALL);
	heir_pid = 0;
}
