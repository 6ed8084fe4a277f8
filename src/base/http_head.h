/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * http_head.h - the head of a request of HTTP/1.1 (RFC 9112), of which only what the API knows is kept
 *
 * What is passed on is written anew from this, so that nothing goes by that has not been understood: no body of an unknown length, no second request behind the first.
 */
#ifndef GODWIT_BASE_HTTP_HEAD_H
#define GODWIT_BASE_HTTP_HEAD_H

#include <stddef.h>

#include "base/err.h"

#define HTTP_HEAD_MAX 8192u
#define HTTP_BODY_MAX 4096u
#define HTTP_VALUE_MAX 320u
#define HTTP_TARGET_MAX 1024u

/* An empty text: the request has no such header. */
struct http_head {
	char method[8], target[HTTP_TARGET_MAX];
	char host[HTTP_VALUE_MAX], origin[HTTP_VALUE_MAX], fetch_site[HTTP_VALUE_MAX], authorization[HTTP_VALUE_MAX], last_event_id[HTTP_VALUE_MAX];
	size_t body_len;
};

/* How long the head in these bytes is, with the empty line that ends it; 0: it is not whole. */
size_t http_head_length(const char *bytes, size_t len);
/* Reads a whole head. -EINVAL with words. */
int http_head_parse(const char *bytes, size_t len, struct http_head *ret, struct err *e);
/* The same request for the API, with the connection's end behind it. */
size_t http_head_write(const struct http_head *head, char *text, size_t size);

#endif
