/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * exchange.h - one request and its answer
 */
#ifndef GODWIT_API_EXCHANGE_H
#define GODWIT_API_EXCHANGE_H

#include <jansson.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>

#include "api/http.h"
#include "api/moves.h"

#define SEGMENTS_MAX 4u
#define SEGMENT_MAX 320u

/* Who is connected. */
struct guest {
	int fd;
	uid_t uid;
	struct viewer viewer;
};

struct exchange {
	struct MHD_Connection *connection;
	const struct guest *guest;
	size_t n;                 /* segments of the path behind /v1 */
	char segment[SEGMENTS_MAX][SEGMENT_MAX];
	json_t *body;             /* an object, or NULL: there was none */
	struct listener *listener; /* or NULL: he is sent no events */
	size_t len;
	bool too_long;
	char text[BODY_BYTES_MAX];
};

/* Answers with an object (takes the reference), or with an error. All answers forbid browsers to make anything else of them. */
enum MHD_Result answer(struct exchange *x, unsigned status, json_t *o);
enum MHD_Result complain(struct exchange *x, unsigned status, const char *code, const char *message, const char *way_out);
/* What every answer says to browsers. */
void answer_add_headers(struct MHD_Response *response, const char *type);
/* Puts a request (takes the reference) that godwitd answers with one line, or with the last of some, which is in *ret. false: there is none, which has been answered with *said. */
bool hear(struct exchange *x, json_t *request, json_t **ret, enum MHD_Result *said);
/* Answers what the path, in x, says (paths.c). */
enum MHD_Result route(struct exchange *x, const char *url, const char *method);
/* Answers with the figures of this node (metrics.c). */
enum MHD_Result metrics(struct exchange *x, const char *method);

#endif
