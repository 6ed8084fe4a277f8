// SPDX-License-Identifier: GPL-2.0-or-later
/* conf_edit.c - see conf_edit.h */
#include "cli/conf_edit.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

/* Of the line that begins at p. */
static size_t line_length(const char *p)
{
	size_t n = strcspn(p, "\n");

	return n + (p[n] == '\n');
}

static bool begins_section(const char *p, size_t len, const char *section)
{
	size_t n = strlen(section);
	const char *word = p + strspn(p, " \t");

	return *word == '[' && word + n + 2 <= p + len && !strncmp(word + 1, section, n) && word[n + 1] == ']';
}

static bool is_section(const char *p)
{
	return p[strspn(p, " \t")] == '[';
}

static bool has_key(const char *p, size_t len, const char *key)
{
	size_t n = strlen(key);
	const char *word = p + strspn(p, " \t");

	if (word + n >= p + len || strncmp(word, key, n) != 0)
		return false;
	word += n;
	word += strspn(word, " \t");
	return *word == '=' || *word == ':';
}

static bool is_blank(const char *p)
{
	p += strspn(p, " \t\r");
	return !*p || *p == '\n';
}

/* Where the line is that is to be replaced, and how long it is; or where a new one belongs, and 0. *ret_section: whether there is such a section. */
static size_t find_place(const char *text, const char *section, const char *key, size_t *ret_len, bool *ret_section)
{
	const char *p = text, *last = NULL;
	bool inside = false;

	*ret_len = 0;
	*ret_section = false;
	for (size_t len; *p; p += len) {
		len = line_length(p);
		if (is_section(p)) {
			inside = begins_section(p, len, section);
			*ret_section = *ret_section || inside;
		}
		if (inside && !is_section(p) && has_key(p, len, key)) {
			*ret_len = len;
			return (size_t)(p - text);
		}
		if (inside && !is_blank(p))
			last = p + len;
	}
	return last ? (size_t)(last - text) : strlen(text);
}

int conf_set(char **text, const char *section, const char *key, const char *value, struct err *e)
{
	bool has_section;
	size_t len, at = find_place(*text, section, key, &len, &has_section);
	const char *end = at && (*text)[at - 1] != '\n' ? "\n" : "";
	char *made = NULL;
	int n;

	if (!value && !len)
		return 0;
	if (!value)
		n = asprintf(&made, "%.*s%s", (int)at, *text, *text + at + len);
	else if (has_section)
		n = asprintf(&made, "%.*s%s%s = %s\n%s", (int)at, *text, end, key, value, *text + at + len);
	else
		n = asprintf(&made, "%s%s%s[%s]\n%s = %s\n", *text, end, at ? "\n" : "", section, key, value);
	if (n < 0)
		return err_sys(e, -ENOMEM, "the configuration");
	free(*text);
	*text = made;
	return 0;
}
