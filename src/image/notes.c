/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* notes.c - see notes.h */
#include "image/notes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static char notes[NOTES_MAX][NOTE_MAX];
static size_t n_notes;

void notes_add(const char *format, ...)
{
	char text[NOTE_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	for (size_t i = 0; i < n_notes; i++)
		if (!strcmp(notes[i], text))
			return;
	if (n_notes < NOTES_MAX)
		memcpy(notes[n_notes++], text, sizeof(text));
}

size_t notes_count(void)
{
	return n_notes;
}

const char *notes_get(size_t i)
{
	return notes[i];
}

void notes_clear(void)
{
	n_notes = 0;
}
