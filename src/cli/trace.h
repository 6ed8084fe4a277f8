/* SPDX-License-Identifier: GPL-2.0-or-later */
/* trace.h - what `godwit trace` has in a file of its own: moves in the Trace Event Format, which Perfetto and chrome://tracing open */
#ifndef GODWIT_CLI_TRACE_H
#define GODWIT_CLI_TRACE_H

#include <jansson.h>

/* Nanoseconds, whole: number_of would round them. */
static inline long long time_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

/* Writes the moves of an answer to a file, which is replaced; "-" is standard output. Returns the exit status; what is wrong has been said. */
int trace_write_chrome(const json_t *result, const char *path);

#endif
