// SPDX-License-Identifier: GPL-2.0-or-later
/* crowd.c - what gap.c has beside its one busy thread; see crowd.h */
#include "crowd.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#define STACK_BYTES (64ul << 10)
#define PAGE 4096ul

static int gate[2];

static void *rest(void *unused)
{
	char byte;

	(void)unused;
	while (read(gate[0], &byte, 1) != 0)
		;
	return NULL;
}

static int make_thread(void)
{
	pthread_attr_t attr;
	pthread_t thread;

	return pthread_attr_init(&attr) || pthread_attr_setstacksize(&attr, STACK_BYTES) || pthread_create(&thread, &attr, rest, NULL);
}

static int make_process(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, 9);
		for (;;)
			pause();
	}
	return pid < 0;
}

/* Neighbours differ, so that the kernel does not join them. */
static int make_mapping(unsigned i)
{
	char *at = mmap(NULL, PAGE, i & 1 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED;
}

static int make_descriptor(void)
{
	return open("/dev/null", O_RDWR | O_CLOEXEC) < 0;
}

int crowd_make(const char *spec)
{
	const char *equals = strchr(spec, '=');
	unsigned n = equals ? (unsigned)strtoul(equals + 1, NULL, 10) : 0;
	struct rlimit limit;
	int failed = 0;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (pipe(gate) < 0)
		return -1;
	for (unsigned i = 1; i <= n && !failed; i++)
		failed = spec[0] == 't' ? i < n && make_thread() : spec[0] == 'p' ? i < n && make_process() : spec[0] == 'm' ? make_mapping(i) : make_descriptor();
	if (failed)
		perror(spec);
	return failed ? -1 : 0;
}
