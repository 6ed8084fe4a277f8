// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_state.c - a state of a program, as it comes from another host
 *
 * The input lacks the digest, which is put behind it. What was accepted is walked as the program would, and written again.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "portable/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct part {
	char tag;
	double x[2];
};
struct node {
	long key;
	struct part parts[2];
	struct node *next;
	double *into;
	char *name;
	uint16_t n;
	int64_t *values;
	_Bool yes;
};
GODWIT_TYPE(part_type, struct part, GODWIT_FIELD(struct part, tag), GODWIT_FIELD_ARRAY(struct part, x));
GODWIT_TYPE(node_type, struct node, GODWIT_FIELD(struct node, key), GODWIT_FIELD_STRUCT(struct node, parts, struct part, part_type),
	    GODWIT_FIELD_POINTER(struct node, next, node_type), GODWIT_FIELD_POINTER_TO_NUMBER(struct node, into), GODWIT_FIELD_STRING(struct node, name),
	    GODWIT_FIELD(struct node, n), GODWIT_FIELD_COUNTED(struct node, values, n), GODWIT_FIELD(struct node, yes));

static struct {
	struct node *list, **table;
	uint32_t n_table;
	double grid[3];
	char text[4], *in_text;
} a;

#define V(x, n, k, target, t, counter) { #x, (size_t)(uintptr_t)&a.x, n, k, target, t, counter }
static struct godwit_field fields[] = {
	V(list, 1, GODWIT_POINTER, GODWIT_STRUCT, &node_type, NULL), V(table, 1, GODWIT_COUNTED, GODWIT_POINTER, &node_type, "n_table"),
	V(n_table, 1, GODWIT_UINT32, 0, NULL, NULL),                V(grid, 3, GODWIT_DOUBLE, 0, NULL, NULL),
	V(text, 4, GODWIT_CHAR, 0, NULL, NULL),                     V(in_text, 1, GODWIT_STRING, GODWIT_CHAR, NULL, NULL),
};
static const struct variables vars = { .fields = fields, .n = ARRAY_SIZE(fields) };

static void **taken;
static size_t n_taken;

static void *take(size_t n, size_t size)
{
	void *p = calloc(n, size);

	taken = realloc(taken, (n_taken + 1) * sizeof(*taken));
	if (!taken)
		abort();
	if (p)
		taken[n_taken++] = p;
	return p;
}

/* Reads everything that a program would. */
static uint64_t walk(void)
{
	uint64_t sum = a.in_text ? strlen(a.in_text) : 0;
	struct node *n = a.list;

	for (uint32_t i = 0; a.table && i < a.n_table; i++)
		sum += a.table[i] ? (uint64_t)a.table[i]->key : 0;
	for (int steps = 0; n && steps < 100; n = n->next, steps++) {
		sum += (n->name ? strlen(n->name) : 0) + n->yes;
		for (int i = 0; n->values && i < n->n; i++)
			sum += (uint64_t)n->values[i];
		if (n->into)
			sum += *n->into > 1;
	}
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const struct state_about about = { .program = "fuzz", .version = 1 };
	static int null = -1;
	uint8_t *copy = malloc(len + STATE_DIGEST);
	struct err e = ERR_INIT;
	struct digest digest;
	uint64_t value;
	unsigned point;

	if (!copy)
		abort();
	if (null < 0)
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	state_allocate = take;
	memset(&a, 0, sizeof(a));
	memcpy(copy, data, len);
	digest_begin(&digest);
	digest_add(&digest, data, len);
	value = digest_end(&digest);
	memcpy(copy + len, &value, sizeof(value));
	if (state_read(&vars, &about, copy, len + STATE_DIGEST, &point, &e) < 0) {
		if (!e.message[0] || a.list || a.table)
			abort();
	} else {
		uint64_t sum = walk();

		__asm__ volatile("" : : "r"(sum)); /* it must be read */
		if (state_write(&vars, &about, null, NULL, &e) < 0 && !e.message[0])
			abort();
		while (n_taken)
			free(taken[--n_taken]);
	}
	n_taken = 0;
	free(copy);
	return 0;
}
