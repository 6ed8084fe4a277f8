/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* log.c - lines with key=value fields on stderr; see log.h */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/journal.h"

static enum log_level threshold = LOG_LEVEL_INFO;
static char context[128];

static const char *const level_names[] = { "debug", "info", "warning", "error" };

__attribute__((constructor)) static void log_level_from_environment(void)
{
	const char *wanted = getenv("GODWIT_LOG");

	for (int i = 0; wanted && i < 4; i++)
		if (!strcmp(wanted, level_names[i]))
			threshold = (enum log_level)i;
}

void log_set_level(enum log_level level)
{
	threshold = level;
}

void log_set_context(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(context, sizeof(context), format, ap);
	va_end(ap);
}

void log_line(enum log_level level, const char *format, ...)
{
	int priority = level == LOG_LEVEL_ERROR ? 3 : level == LOG_LEVEL_WARNING ? 4 : level == LOG_LEVEL_INFO ? 6 : 7;
	char text[2048], line[4096];
	size_t at, head;
	va_list ap;

	if (level < threshold)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	head = (size_t)snprintf(line, sizeof(line), "<%d>", priority);
	at = head + (size_t)snprintf(line + head, sizeof(line) - head, "level=%s %s%s", level_names[level], context, context[0] ? " " : "");
	for (const char *p = text; *p && at < sizeof(line) - 6; p++) {
		unsigned char c = (unsigned char)*p;
		if (c < 0x20 || c == 0x7f)
			at += (size_t)snprintf(line + at, sizeof(line) - at, "\\x%02x", c);
		else
			line[at++] = (char)c;
	}
	line[at] = 0;
	if (journal_is_stderr() && journal_send(priority, line + head))
		return;
	line[at++] = '\n';
	if (write(STDERR_FILENO, line, at) < 0)
		return; /* nowhere left to say it */
}
