/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * require.h - resource requirement strings: which nodes will do, which is the best of them, and what will be used there
 *
 *	select[mem>4G && (gpu || zone==east)] order[ut:-mem] rusage[mem=2000:tmp=500]
 *
 * The language is LSF's (bsub(1), lsfintro). Each section may be left out, and comes once; a string without any section is an expression of select. In select:
 * || && ! == != < <= > >= + - * / ( ), numbers with K, M, G or T behind them (sizes are in MiB), the indices of load.h, `name` (of the node), and labels of the node.
 * A label is 1 where it is set and 0 elsewhere; `label==text` compares its value. order sorts by one index after the other, the better value first (little ut, much mem),
 * with '-' the other way round. rusage says what will be used: a node that has not so much does not match, and require_reserve takes it away.
 *
 * A parsed requirement is one flat value: it may be copied and thrown away as it is. It is bounded: strings up to REQUIRE_TEXT_MAX bytes. Nothing here allocates or blocks.
 */
#ifndef GODWIT_CLUSTER_REQUIRE_H
#define GODWIT_CLUSTER_REQUIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/load.h"

#define REQUIRE_TEXT_MAX 1024
#define REQUIRE_STEPS_MAX 256  /* of the expression */
#define REQUIRE_DEPTH_MAX 32   /* of parentheses and signs */
#define REQUIRE_ORDER_MAX 8

/* A node, as select sees it. */
struct require_node {
	const char *name;
	const char *labels; /* "gpu zone=east": divided by blanks */
	const struct load *load;
};

enum require_op {
	REQUIRE_NUMBER, REQUIRE_INDEX, REQUIRE_LABEL, REQUIRE_TEXT_IS, /* these put a value on the stack */
	REQUIRE_NOT, REQUIRE_MINUS,                                    /* these change the uppermost */
	REQUIRE_OR, REQUIRE_AND, REQUIRE_EQ, REQUIRE_NE, REQUIRE_LT, REQUIRE_LE, REQUIRE_GT, REQUIRE_GE, /* these make one of two */
	REQUIRE_ADD, REQUIRE_SUB, REQUIRE_MUL, REQUIRE_DIV,
};

struct require_step {
	uint8_t op;    /* enum require_op */
	uint8_t index; /* INDEX: enum load_index */
	uint16_t name, value; /* LABEL, TEXT_IS: offsets into text; name 0: the node's name */
	double number;
};

struct require {
	struct require_step steps[REQUIRE_STEPS_MAX]; /* postfix; none: every node matches */
	size_t n_steps;
	struct {
		uint8_t index;
		bool reverse;
	} order[REQUIRE_ORDER_MAX];
	size_t n_order; /* none given: r15s, pg */
	double usage[LOAD_INDICES];
	char text[2 * REQUIRE_TEXT_MAX]; /* names and values, each with its 0; the first is "" */
	size_t text_len;
};

/* -EINVAL with the column and what was expected there. An empty string asks for nothing. */
int require_parse(struct require *ret, const char *text, struct err *e);
/* Never a failure: what cannot be computed (1/0) does not match. */
bool require_match(const struct require *r, const struct require_node *node);
/* Below 0: a is the better one. For qsort: what is alike is 0. */
int require_compare(const struct require *r, const struct load *a, const struct load *b);
/* What the load would be with this on it: used amounts go off what is free, and on what is in use. */
void require_reserve(const struct require *r, struct load *load);
/* The value of a label in "gpu zone=east": "" for gpu; its length in *ret_len. NULL: not set. */
const char *require_label(const char *labels, const char *name, size_t *ret_len);

#endif
