/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* timeline.c - where the microseconds of a freeze go; see timeline.h */
#include "migrate/timeline.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/util.h"

#define STEPS_MAX 16 /* so many find a place also when there are too many marks */

static struct timeline_mark marks[TIMELINE_MARKS_MAX];
static unsigned nmarks;

static void add(const char *what, bool is_step, unsigned max)
{
	if (nmarks < max)
		marks[nmarks++] = (struct timeline_mark){ what, clock_ns(CLOCK_REALTIME), is_step };
}

void timeline_begin(void)
{
	nmarks = 0;
}

void timeline_mark(const char *what)
{
	add(what, false, TIMELINE_MARKS_MAX - STEPS_MAX);
}

void timeline_step(const char *name)
{
	add(name, true, TIMELINE_MARKS_MAX);
}

unsigned timeline_read(const struct timeline_mark **ret)
{
	*ret = marks;
	return nmarks;
}

void timeline_log(void)
{
	for (unsigned i = 0; i < nmarks; i++)
		log_debug("event=mark at_us=%" PRIu64 " after_us=%" PRIu64 " what=\"%s\"", marks[i].ns / 1000 % 100000000,
			  i ? (marks[i].ns - marks[i - 1].ns) / 1000 : 0, marks[i].what);
}
