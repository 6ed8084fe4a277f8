/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * start.c - how the program was started: arguments, environment, directory, standard streams
 *
 * Texts, each with a 0 behind it: "cwd=PATH", "umask=OCTAL", "arg=...", "env=NAME=VALUE", and for each of the first three descriptors that is a regular file or /dev/null
 * "stdN=FLAGS:POSITION:PATH" (FLAGS as in files.c). What else they are does not travel: it becomes /dev/null.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "portable/program.h"
#include "portable/talk.h"

extern char **environ;

struct text {
	char *s;
	size_t len, space;
	bool failed;
};

static void add(struct text *t, const char *key, const char *value)
{
	size_t n = strlen(key) + strlen(value) + 1;

	while (!t->failed && t->len + n > t->space) {
		size_t space = t->space ? t->space * 2 : 4096;
		char *s = realloc(t->s, space);

		t->failed = !s;
		if (s) {
			t->s = s;
			t->space = space;
		}
	}
	if (t->failed)
		return;
	memcpy(t->s + t->len, key, strlen(key));
	memcpy(t->s + t->len + strlen(key), value, strlen(value) + 1);
	t->len += n;
}

static void add_standard(struct text *t, int fd)
{
	char path[STATE_TEXT_MAX], value[STATE_TEXT_MAX + 64], key[16];
	struct file_state s;
	struct stat st;

	snprintf(key, sizeof(key), "std%d=", fd);
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && file_look(&(struct file_entry){ .name = key, .fd = &fd }, &s, path, NULL) == 0) {
		snprintf(value, sizeof(value), "%u:%llu:%s", s.flags, (unsigned long long)s.position, path);
		add(t, key, value);
	}
}

char *start_describe(int argc, char **argv, size_t *ret_len)
{
	char path[STATE_TEXT_MAX] = "/", mask[16];
	struct text t = { 0 };
	mode_t was = umask(077);

	umask(was);
	snprintf(mask, sizeof(mask), "%03o", (unsigned)was);
	if (getcwd(path, sizeof(path)))
		add(&t, "cwd=", path);
	add(&t, "umask=", mask);
	for (int i = 0; i < argc && argv[i]; i++)
		add(&t, "arg=", argv[i]);
	for (char **v = environ; v && *v; v++)
		add(&t, "env=", *v);
	for (int fd = 0; fd < 3; fd++)
		add_standard(&t, fd);
	if (t.failed || t.len > TALK_START_MAX) {
		free(t.s);
		return NULL;
	}
	*ret_len = t.len;
	return t.s;
}
