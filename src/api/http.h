/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * http.h - the paths of the API (docs/api.md, docs/openapi.json), served by libmicrohttpd
 *
 * A connection has a thread; there are CONNECTIONS_MAX of them at most, CONNECTIONS_EACH_MAX of a user, and one that says nothing ends. What is asked is handed to godwitd (talk.h), whose answers are
 * those of `godwit ... --json`.
 */
#ifndef GODWIT_API_HTTP_H
#define GODWIT_API_HTTP_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

#define CONNECTIONS_MAX 64u
#define CONNECTIONS_EACH_MAX 16u
#define BODY_BYTES_MAX 4096u /* of a request */

struct http_setup {
	int listen_fd;
	bool has_group;
	gid_t group; /* whose members see what others have started */
};

/* From now on threads answer. */
int http_start(const struct http_setup *setup, struct err *e);
/* No new connections. */
void http_quiesce(void);

#endif
