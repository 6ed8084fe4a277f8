/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * order_all.h - having other nodes answer a request as their own clients would (ROLE_ORDER): all at once, each with one line of JSON, within a time
 */
#ifndef GODWIT_DAEMON_ORDER_ALL_H
#define GODWIT_DAEMON_ORDER_ALL_H

#include <jansson.h>

#include "daemon/daemon.h"

#define ORDER_ANSWER_MAX (4u << 20)

struct order_answer {
	const struct cluster_node *node;
	json_t *result;      /* of {"event":"result"}, as the node said it: to be checked; NULL: none, and why */
	struct err error;
};

/* One answer for each node, in their order; -ENOMEM. The caller frees *ret with order_answers_free. Blocks for timeout_ms at most. */
int order_all(const struct daemon *d, const struct cluster_node *nodes, size_t n, const json_t *order, int timeout_ms, struct order_answer **ret, struct err *e);
void order_answers_free(struct order_answer *answers, size_t n);
/* The result in a line of JSON. -EPROTO for what is none; an error that the node reports is one here. */
int order_answer_decode(const char *line, size_t len, json_t **ret, struct err *e);

#endif
