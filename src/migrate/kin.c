/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* kin.c - see kin.h */
#include "migrate/kin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/process_check.h"
#include "kern/nsfs.h"

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

static void prefix(struct refusal *f, const char *text)
{
	char *way_out;

	if (asprintf(&way_out, "%s; or %s", text, f->way_out) < 0)
		abort();
	free(f->way_out);
	f->way_out = way_out;
}

/* What would have to be named to take process `other` along; 0: it cannot be. */
static pid_t top_of(pid_t pid, pid_t other)
{
	struct line theirs = ancestors(other);

	return theirs.n && !ns_differs(pid, theirs.v[theirs.n - 1], NS_PID) ? theirs.v[theirs.n - 1] : 0;
}

struct list {
	char text[256];
	size_t len;
};

static void name(struct list *l, pid_t pid)
{
	char word[16], *at;
	int n = snprintf(word, sizeof(word), ",%d", pid);

	for (at = l->text; (at = strstr(at, word)); at++)
		if (!at[n] || at[n] == ',')
			return;
	if (l->len + (size_t)n < sizeof(l->text))
		l->len += (size_t)snprintf(l->text + l->len, sizeof(l->text) - l->len, "%s", word);
}

/* Those that are no relatives. */
static void advise_several(pid_t pid, const struct line *own, const pid_t *also, size_t n_also, struct refusals *r)
{
	struct list list = { .len = 0 };
	char text[400];

	name(&list, pid);
	for (size_t i = 0; i < n_also; i++)
		name(&list, also[i]);
	for (size_t i = 0; i < r->n; i++)
		if (r->v[i].other && meet(own, r->v[i].other) >= own->n && top_of(pid, r->v[i].other))
			name(&list, top_of(pid, r->v[i].other));
	snprintf(text, sizeof(text), "move them as one unit: godwit migrate %s HOST (what is below them goes along)", list.text + 1);
	for (size_t i = 0; i < r->n; i++)
		if (r->v[i].other && meet(own, r->v[i].other) >= own->n && top_of(pid, r->v[i].other))
			prefix(&r->v[i], text);
}

static void advise_ancestor(const struct line *own, struct refusals *r)
{
	struct process_stat stat;
	char text[160];
	size_t top = 0;

	for (size_t i = 0; i < r->n; i++) {
		size_t at = r->v[i].other ? meet(own, r->v[i].other) : own->n;

		if (at < own->n && at > top)
			top = at;
	}
	if (!top || process_stat_read(own->v[top], &stat, NULL) < 0)
		return;
	snprintf(text, sizeof(text), "move process %d (%s) instead, and all below it goes along, both of these too", own->v[top], stat.name);
	for (size_t i = 0; i < r->n; i++)
		if (r->v[i].other && meet(own, r->v[i].other) < own->n)
			prefix(&r->v[i], text);
}

void kin_advise(pid_t pid, const pid_t *also, size_t n_also, struct refusals *r)
{
	struct line own = ancestors(pid);

	if (!r->n)
		return;
	advise_ancestor(&own, r);
	advise_several(pid, &own, also, n_also, r);
}

void kin_keep_tops(pid_t *v, size_t *n)
{
	size_t kept = 0;

	for (size_t i = 0; i < *n; i++) {
		struct line l = ancestors(v[i]);
		bool below = false;

		for (size_t k = 0; k < *n; k++) {
			below |= k < i && v[k] == v[i];
			for (size_t a = 1; a < l.n; a++)
				below |= k != i && l.v[a] == v[k];
		}
		if (!below)
			v[kept++] = v[i];
	}
	*n = kept;
}
