// SPDX-License-Identifier: LGPL-2.1-or-later
/* http_head.c - see http_head.h */
#include "base/http_head.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"

#define LENGTH_DIGITS_MAX 4u

size_t http_head_length(const char *bytes, size_t len)
{
	const char *end = memmem(bytes, len, "\r\n\r\n", 4);

	return end ? (size_t)(end - bytes) + 4 : 0;
}

static bool is_plain(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < ' ' || (unsigned char)text[i] >= 127)
			return false;
	return true;
}

/* "GET /path HTTP/1.1" */
static int read_request_line(const char *line, size_t len, struct http_head *ret, struct err *e)
{
	static const char *const methods[] = { "GET", "POST", "PUT", "DELETE" };
	const char *target = memchr(line, ' ', len), *end;
	size_t method_len, target_len;
	bool known = false;

	end = target ? memchr(target + 1, ' ', len - (size_t)(target + 1 - line)) : NULL;
	if (!end || (size_t)(line + len - end) != 9 || memcmp(end, " HTTP/1.1", 9) != 0)
		return err_set(e, -EINVAL, "the first line is none of HTTP/1.1");
	method_len = (size_t)(target - line);
	target_len = (size_t)(end - ++target);
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		known = known || (strlen(methods[i]) == method_len && !memcmp(methods[i], line, method_len));
	if (!known || !target_len || target_len >= sizeof(ret->target) || target[0] != '/')
		return err_set(e, -EINVAL, "a method that is not known, or a path that is too long or none");
	memcpy(ret->method, line, method_len);
	memcpy(ret->target, target, target_len);
	return 0;
}

static int read_length(const char *value, size_t len, struct http_head *ret, struct err *e)
{
	size_t n = 0;

	if (!len || len > LENGTH_DIGITS_MAX)
		return err_set(e, -EINVAL, "a body of more than %u bytes", HTTP_BODY_MAX);
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)value[i]))
			return err_set(e, -EINVAL, "Content-Length is no number");
		n = 10 * n + (size_t)(value[i] - '0');
	}
	if (n > HTTP_BODY_MAX)
		return err_set(e, -EINVAL, "a body of more than %u bytes", HTTP_BODY_MAX);
	ret->body_len = n;
	return 0;
}

static int read_header(const char *line, size_t len, struct http_head *ret, unsigned *seen, struct err *e)
{
	const struct {
		const char *name;
		char *to; /* NULL: read below */
	} known[] = { { "Host", ret->host }, { "Origin", ret->origin }, { "Sec-Fetch-Site", ret->fetch_site }, { "Authorization", ret->authorization }, { "Last-Event-ID", ret->last_event_id },
		      { "Content-Length", NULL }, { "Transfer-Encoding", NULL } };
	const char *colon = memchr(line, ':', len), *value;
	size_t name_len, value_len, i = 0;

	if (!colon || colon == line || !is_plain(line, len) || memchr(line, ' ', (size_t)(colon - line)))
		return err_set(e, -EINVAL, "a line that is no header");
	name_len = (size_t)(colon - line);
	for (value = colon + 1; value < line + len && *value == ' '; value++)
		;
	for (value_len = (size_t)(line + len - value); value_len && value[value_len - 1] == ' '; value_len--)
		;
	while (i < ARRAY_SIZE(known) && (strlen(known[i].name) != name_len || strncasecmp(known[i].name, line, name_len) != 0))
		i++;
	if (i == ARRAY_SIZE(known))
		return 0;
	if (*seen & 1u << i || !strcmp(known[i].name, "Transfer-Encoding"))
		return err_set(e, -EINVAL, "%s twice, or a body of unknown length", known[i].name);
	*seen |= 1u << i;
	if (!known[i].to)
		return read_length(value, value_len, ret, e);
	if (value_len >= HTTP_VALUE_MAX)
		return err_set(e, -EINVAL, "%s is too long", known[i].name);
	memcpy(known[i].to, value, value_len);
	return 0;
}

int http_head_parse(const char *bytes, size_t len, struct http_head *ret, struct err *e)
{
	const char *line = bytes, *end = memmem(line, len, "\r\n", 2);
	struct http_head head = { 0 };
	unsigned seen = 0;
	int r;

	if (!len || http_head_length(bytes, len) != len || !is_plain(line, (size_t)(end - line)))
		return err_set(e, -EINVAL, "no whole head of a request");
	r = read_request_line(line, (size_t)(end - line), &head, e);
	for (line = end + 2; r == 0 && line < bytes + len - 2; line = end + 2) {
		end = memmem(line, (size_t)(bytes + len - line), "\r\n", 2);
		r = read_header(line, (size_t)(end - line), &head, &seen, e);
	}
	if (r == 0)
		*ret = head;
	return r;
}

size_t http_head_write(const struct http_head *head, char *text, size_t size)
{
	int n = snprintf(text, size, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", head->method, head->target);

	if (head->last_event_id[0])
		n += snprintf(text + n, size - (size_t)n, "Last-Event-ID: %s\r\n", head->last_event_id);
	n += snprintf(text + n, size - (size_t)n, "Content-Length: %zu\r\n\r\n", head->body_len);
	return (size_t)n;
}
