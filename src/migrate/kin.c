/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* kin.c - see kin.h */
#include "migrate/kin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/process_check.h"

#define DEPTH_MAX 64u /* of a process below the host's first one */

struct line {
	pid_t v[DEPTH_MAX]; /* a process, its parent, and so on */
	size_t n;
};

/* Up to what starts programs of all kinds: the host's first process, or one of Godwit's. */
static struct line ancestors(pid_t pid)
{
	struct line l = { .n = 0 };
	struct process_stat stat;

	while (pid > 1 && l.n < DEPTH_MAX && process_stat_read(pid, &stat, NULL) == 0 && strncmp(stat.name, "godwit", 6)) {
		l.v[l.n++] = pid;
		pid = stat.ppid;
	}
	return l;
}

/* Where the other's line meets this one; own->n: nowhere. */
static size_t meet(const struct line *own, pid_t other)
{
	struct line theirs = ancestors(other);

	for (size_t i = 0; i < own->n; i++)
		for (size_t k = 0; k < theirs.n; k++)
			if (own->v[i] == theirs.v[k])
				return i;
	return own->n;
}

void kin_advise(pid_t pid, struct refusals *r)
{
	struct line own = ancestors(pid);
	struct process_stat stat;
	size_t top = 0;

	for (size_t i = 0; i < r->n; i++) {
		size_t at = r->v[i].other ? meet(&own, r->v[i].other) : own.n;

		if (at < own.n && at > top)
			top = at;
	}
	if (!top || process_stat_read(own.v[top], &stat, NULL) < 0)
		return;
	for (size_t i = 0; i < r->n; i++) {
		char *way_out;

		if (!r->v[i].other || meet(&own, r->v[i].other) >= own.n)
			continue;
		if (asprintf(&way_out, "move process %d (%s) instead, and all below it goes along, both of these too; or %s", own.v[top], stat.name, r->v[i].way_out) < 0)
			abort();
		free(r->v[i].way_out);
		r->v[i].way_out = way_out;
	}
}
