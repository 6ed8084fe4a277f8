// SPDX-License-Identifier: GPL-2.0-or-later
/* portable_start.c - how a program was started at the source (portable/start.c): a peer's bytes; see portable.h */
#include <errno.h>

#include "base/util.h"
#include "daemon/portable.h"
#include "portable/state.h"

#define TEXTS_MAX 65536u

/* "FLAGS:POSITION:PATH" */
static int read_standard(const char *value, struct portable_standard *ret)
{
	struct portable_standard s = { 0 };
	unsigned long long position;
	int used = 0;

	if (sscanf(value, "%u:%llu:%n", &s.flags, &position, &used) < 2 || !used || value[used] != '/' || strlen(value + used) >= STATE_TEXT_MAX || position > INT64_MAX ||
	    s.flags > (FILE_READ | FILE_WRITE | FILE_APPEND | FILE_OPEN) || ret->path)
		return -EPROTO;
	s.position = position;
	s.path = value + used;
	*ret = s;
	return 0;
}

static int read_mask(const char *value, mode_t *ret)
{
	char *end;
	unsigned long mask = strtoul(value, &end, 8);

	if (value[0] < '0' || value[0] > '7' || *end || mask > 0777)
		return -EPROTO;
	*ret = (mode_t)mask;
	return 0;
}

static int take(struct portable_start *s, char *text)
{
	if (!strncmp(text, "arg=", 4)) {
		s->arguments[s->n_arguments++] = text + 4;
		return 0;
	}
	if (!strncmp(text, "env=", 4) && strchr(text + 4, '=')) {
		if (strncmp(text + 4, "GODWIT_PORTABLE_", 16) != 0)
			s->environment[s->n_environment++] = text + 4;
		return 0;
	}
	if (!strncmp(text, "cwd=/", 5) && !s->directory && strlen(text) < STATE_TEXT_MAX) {
		s->directory = text + 4;
		return 0;
	}
	if (!strncmp(text, "umask=", 6))
		return read_mask(text + 6, &s->mask);
	if (!strncmp(text, "std", 3) && text[3] >= '0' && text[3] <= '2' && text[4] == '=')
		return read_standard(text + 5, &s->standard[text[3] - '0']);
	return !strncmp(text, "env=", 4) ? 0 : -EPROTO; /* what has no name is left out */
}

int portable_start_decode(char *data, size_t len, struct portable_start *ret, struct err *e)
{
	struct portable_start s = { .mask = 022 };
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < len; i++)
		n += !data[i];
	if (!len || data[len - 1] || len > TALK_START_MAX || n > TEXTS_MAX)
		return err_set(e, -EPROTO, "how the program was started cannot be read");
	s.arguments = calloc(n + 1, sizeof(*s.arguments));
	s.environment = calloc(n + 4, sizeof(*s.environment)); /* and ours */
	if (!s.arguments || !s.environment)
		r = err_sys(e, -ENOMEM, "the program's arguments");
	for (char *at = data; r == 0 && at < data + len; at += strlen(at) + 1)
		if (take(&s, at) < 0)
			r = err_set(e, -EPROTO, "how the program was started has a part that cannot be read");
	if (r == 0 && (!s.n_arguments || !s.directory))
		r = err_set(e, -EPROTO, "how the program was started says no arguments, or no directory");
	if (r < 0)
		portable_start_free(&s);
	else
		*ret = s;
	return r;
}

void portable_start_free(struct portable_start *s)
{
	free(s->arguments);
	free(s->environment);
	*s = (struct portable_start){ 0 };
}
