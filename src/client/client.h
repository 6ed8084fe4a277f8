/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * client.h - what the files of libgodwit share
 *
 * A list is one block: this head, pointers with a NULL behind the last one, and the structures. Their texts are those of the JSON that
 * the head refers to; programs hold the address of the pointers.
 */
#ifndef GODWIT_CLIENT_CLIENT_H
#define GODWIT_CLIENT_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "ask/answer.h"
#include "ask/ask.h"
#include "client/godwit.h"

#define EXPORT __attribute__((visibility("default")))

struct godwit {
	char *socket;
};

struct list {
	json_t *texts;
	const void *items[];
};

/* question.c */

/* Fills e, which may be NULL, and returns the number. */
int fail(struct godwit_error *e, int number, const char *code, const char *message);
/* The same from an "error" of godwitd. */
int fail_as(struct godwit_error *e, const json_t *error);
/* A whole conversation: request (takes the reference), final answer (the caller's). Blocks. */
int question(const struct godwit *g, json_t *request, json_t **ret, struct godwit_error *e);
/* A member as number; `other`: it is absent, or none. */
int64_t number_of(const json_t *o, const char *key, int64_t other);
/* A unit as callers name it, into a request: a number or HOME:PID. -EINVAL. */
int name_unit(json_t *request, const char *unit, struct godwit_error *e);

/* list.c */

/* An empty result where there is no memory: these return NULL. The array stays the caller's. */
const void *const *units_list(json_t *array);
const void *const *nodes_list(json_t *array);
const void *const *refusals_list(json_t *array);

#endif
