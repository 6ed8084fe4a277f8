/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * front.h - one request of somebody who cannot connect to api.sock himself, and its answer
 *
 * It is read to its end, and written anew for api.sock from what has been understood of it; the connection ends behind the answer. So nobody's request comes in behind another's. For `godwit dashboard` (cli/dashboard.c) and
 * godwit-gate (gate/visit.c), which decide who may ask for what. For blocking sockets.
 */
#ifndef GODWIT_ASK_FRONT_H
#define GODWIT_ASK_FRONT_H

#include <stdbool.h>

#include "base/http_head.h"

struct front_request {
	struct http_head head;
	bool is_page; /* one of the dashboard's files, which are for everybody */
	const char *body;
	char text[HTTP_HEAD_MAX + HTTP_BODY_MAX];
};

/* Reads it. false: there is none, which has been answered. */
bool front_hear(int fd, struct front_request *ret);
/* Whether no page of a stranger's has made a browser send it; that has been answered. over_tls: see base/browser.h. */
bool front_is_ours(int fd, const struct front_request *request, bool over_tls);
/* Behind "Bearer ", or "". */
const char *front_token(const struct front_request *request);
/* Hands it on to api.sock, and back what is answered, until either end has had enough. */
void front_pass(int fd, int api, const struct front_request *request);
/* An error. */
void front_refuse(int fd, const char *status, const char *code, const char *text);
/* Something else, in JSON. */
void front_answer(int fd, const char *status, const char *json);

#endif
