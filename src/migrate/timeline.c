/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* timeline.c - where the microseconds of a freeze go; see timeline.h */
#include "migrate/timeline.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/util.h"

#define MARKS_MAX 128

static struct {
	const char *what;
	uint64_t ns;
} marks[MARKS_MAX];
static unsigned nmarks;

void timeline_mark(const char *what)
{
	if (nmarks == MARKS_MAX)
		return;
	marks[nmarks].what = what;
	marks[nmarks++].ns = clock_ns(CLOCK_REALTIME);
}

void timeline_log(void)
{
	for (unsigned i = 0; i < nmarks; i++)
		log_debug("event=mark at_us=%" PRIu64 " after_us=%" PRIu64 " what=\"%s\"", marks[i].ns / 1000 % 100000000,
			  i ? (marks[i].ns - marks[i - 1].ns) / 1000 : 0, marks[i].what);
	nmarks = 0;
}
