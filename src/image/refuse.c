/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* refuse.c - the reasons why a unit cannot move; see refuse.h */
#include "image/refuse.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *copy(const char *text)
{
	char *p = strdup(text);

	if (!p)
		abort();
	return p;
}

void refusals_add(struct refusals *r, const char *code, const char *cause, const char *way_out, const char *thing_format, ...)
{
	struct refusal *grown = realloc(r->v, (r->n + 1) * sizeof(*r->v));
	char *thing;
	va_list ap;

	va_start(ap, thing_format);
	if (!grown || vasprintf(&thing, thing_format, ap) < 0)
		abort();
	va_end(ap);
	r->v = grown;
	r->v[r->n++] = (struct refusal){ copy(code), thing, copy(cause), copy(way_out), 0 };
}

void refusals_blame(struct refusals *r, size_t from, pid_t other)
{
	for (size_t i = from; i < r->n; i++)
		r->v[i].other = other;
}

void refusals_cut(struct refusals *r, size_t n)
{
	for (; r->n > n; r->n--) {
		struct refusal *last = &r->v[r->n - 1];

		free(last->code);
		free(last->thing);
		free(last->cause);
		free(last->way_out);
	}
}

void refusals_free(struct refusals *r)
{
	refusals_cut(r, 0);
	free(r->v);
	*r = (struct refusals){ 0 };
}

char *refusals_text(const struct refusals *r)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		abort();
	for (size_t i = 0; i < r->n; i++)
		fprintf(f, "%s%s: %s (%s)", i ? "; " : "", r->v[i].thing, r->v[i].cause, r->v[i].way_out);
	fclose(f);
	return text;
}

int refusals_begun(const struct refusals *r, pid_t pid, struct err *e)
{
	return err_set(e, -EPERM, "process %d has begun something that cannot move: %s: %s (%s)", pid, r->v[0].thing, r->v[0].cause, r->v[0].way_out);
}
