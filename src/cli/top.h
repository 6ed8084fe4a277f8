/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * top.h - godwit top: what its files share
 *
 *	top.c         the verb, the loop, keys      top_model.c   what is known, sorted and filtered
 *	top_draw.c    the screen                    top_orders.c  moves and drains that were begun here
 *	top_once.c    --once
 *
 * godwitd is asked for nodes, units and moves under way once in an interval; the screen is drawn anew after each answer and each key, from the model alone.
 */
#ifndef GODWIT_CLI_TOP_H
#define GODWIT_CLI_TOP_H

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "ask/ask.h"
#include "cli/cli.h"

#define TOP_RATES 64u
#define TOP_ORDERS 16u
#define TOP_INPUT_MAX 64u
#define TOP_SORTS 5u

enum top_answer { TOP_NODES, TOP_UNITS, TOP_MOVES, TOP_ANSWERS };

/* How fast a move sends: between two looks. */
struct top_rate {
	char trace[40]; /* "": free */
	uint64_t ns, seen_ns;
	double bytes, per_s;
};

struct top_order {
	struct ask ask; /* fd -1: free */
	bool drains;
	char what[400]; /* "n1:4711 to n2" */
};

struct top {
	/* what is known: lists, NULL at first */
	json_t *lists[TOP_ANSWERS];
	char self[80];
	char trouble[200]; /* why nothing new is known; "" */
	struct top_rate rates[TOP_RATES];
	/* how it is looked at */
	json_t *shown; /* units that the filter lets through, sorted */
	bool in_nodes; /* the cursor is among the nodes, otherwise among the units */
	char unit[320], node[80]; /* where it is */
	size_t sort;
	bool reverse;
	char filter[TOP_INPUT_MAX];
	size_t first_node, first_unit, page; /* the first row of each that is drawn, and how many units are */
	/* what is being asked of the user */
	enum { MODE_LIST, MODE_HOST, MODE_FILTER, MODE_DRAIN, MODE_UNDRAIN, MODE_QUIT, MODE_HELP } mode;
	char input[TOP_INPUT_MAX];
	char said[500]; /* what was said last */
	bool said_wrong;
	struct top_order orders[TOP_ORDERS];
};

/* --- top_model.c --- */

/* A result of godwitd's; the lists of it are kept. */
void top_take(struct top *t, enum top_answer which, const json_t *result);
/* Sorts and filters anew; the cursor stays on its unit, or goes to the one that has come in its place. */
void top_arrange(struct top *t);
/* The cursor by so many rows. */
void top_step(struct top *t, long rows);
size_t top_index(const json_t *list, const char *key, const char *value); /* SIZE_MAX: it is not there */
/* What the cursor is on; NULL: nothing. */
const json_t *top_unit(const struct top *t);
const json_t *top_node(const struct top *t);
double top_rate_of(const struct top *t, const json_t *move);
const char *top_sort_name(size_t sort);
/* A part of the processors or of the memory of a node that is in use; negative: not known. */
double top_cpu(const json_t *node);
double top_memory(const json_t *node);
double top_index_of(const json_t *node, const char *name);
void top_free(struct top *t);

/* --- top_orders.c --- */

void top_say(struct top *t, bool wrong, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Has godwitd do it (takes the reference). */
void top_order(struct top *t, json_t *request, bool drains, const char *what);
size_t top_orders_running(const struct top *t);
/* Their descriptors; returns how many. */
size_t top_orders_poll(const struct top *t, struct pollfd *p);
/* Reads what has been said. */
void top_orders_read(struct top *t);
/* Interrupts all; what has been committed goes on. */
void top_orders_cancel(struct top *t);

/* --- top_once.c --- */

/* Prints everything once; returns the exit status. */
int top_once(void);

/* --- top_draw.c --- */

/* false: this terminal is not known, which has been said. */
bool top_screen_begin(void);
void top_screen_end(void);
void top_draw(struct top *t);

#endif
