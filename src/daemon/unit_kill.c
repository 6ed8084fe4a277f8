// SPDX-License-Identifier: GPL-2.0-or-later
/* unit_kill.c - see unit_kill.h */
#include "daemon/unit_kill.h"

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/process_check.h"
#include "migrate/registry.h"

#define PROCESSES_MAX 65536
#define ROUNDS_MAX 64

struct family {
	pid_t v[PROCESSES_MAX];
	size_t n;
};

static pid_t parent_of(pid_t pid)
{
	struct process_stat s;

	return process_stat_read(pid, &s, NULL) == 0 ? s.ppid : 0;
}

static bool is_in(const struct family *f, pid_t pid)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i] == pid)
			return true;
	return false;
}

/* Stops those that are new; whether there were any. */
static bool stop_more(struct family *f)
{
	cleanup_closedir DIR *d = opendir("/proc");
	struct dirent *item;
	size_t before = f->n;

	while (d && (item = readdir(d))) {
		pid_t pid = isdigit((unsigned char)*item->d_name) ? (pid_t)atoi(item->d_name) : 0;

		if (pid <= 1 || f->n == PROCESSES_MAX || is_in(f, pid) || !is_in(f, parent_of(pid)))
			continue;
		kill(pid, SIGSTOP);
		f->v[f->n++] = pid;
	}
	return f->n > before;
}

unsigned unit_kill(pid_t pid, uint64_t start_ticks)
{
	static struct family f;

	if (registry_start_ticks(pid) != start_ticks || !start_ticks)
		return 0;
	f.v[0] = pid;
	f.n = 1;
	kill(pid, SIGSTOP);
	for (int i = 0; i < ROUNDS_MAX && stop_more(&f); i++)
		;
	for (size_t i = 0; i < f.n; i++)
		kill(f.v[i], SIGKILL);
	return (unsigned)f.n;
}
