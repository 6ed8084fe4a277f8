/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * id_index.h - where a node is in a table of many: a hash table over an array of ids that the caller has (0: unused)
 *
 * Open addressing, at most half full; what is removed closes its gap, so that it never has to be built anew. Pure.
 */
#ifndef GODWIT_CLUSTER_ID_INDEX_H
#define GODWIT_CLUSTER_ID_INDEX_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct id_index {
	uint32_t *at; /* 1 + a place in the array; 0: free */
	size_t mask;
};

/* For arrays of `capacity`. -1: no memory. */
static inline int id_index_init(struct id_index *x, size_t capacity)
{
	size_t size = 16;

	while (size < 2 * capacity)
		size *= 2;
	x->at = calloc(size, sizeof(*x->at));
	x->mask = size - 1;
	return x->at ? 0 : -1;
}

static inline size_t id_index_home(const struct id_index *x, uint64_t id)
{
	return (size_t)((id * 0x9e3779b97f4a7c15ull) >> 32) & x->mask;
}

/* SIZE_MAX: it is not there. */
static inline size_t id_index_find(const struct id_index *x, const uint64_t *ids, uint64_t id)
{
	for (size_t i = id_index_home(x, id); x->at[i]; i = (i + 1) & x->mask)
		if (ids[x->at[i] - 1] == id)
			return x->at[i] - 1;
	return SIZE_MAX;
}

/* ids[place] is there, and was not before. */
static inline void id_index_add(struct id_index *x, const uint64_t *ids, size_t place)
{
	size_t i = id_index_home(x, ids[place]);

	while (x->at[i])
		i = (i + 1) & x->mask;
	x->at[i] = (uint32_t)place + 1;
}

/* Before ids[place] changes. */
static inline void id_index_remove(struct id_index *x, const uint64_t *ids, size_t place)
{
	size_t gap = id_index_home(x, ids[place]);

	while (x->at[gap] != place + 1)
		gap = (gap + 1) & x->mask;
	for (size_t i = (gap + 1) & x->mask; x->at[i]; i = (i + 1) & x->mask) {
		size_t home = id_index_home(x, ids[x->at[i] - 1]);

		if (((i - home) & x->mask) < ((i - gap) & x->mask))
			continue; /* it would be before its home */
		x->at[gap] = x->at[i];
		gap = i;
	}
	x->at[gap] = 0;
}

/* ids[place] becomes `id`, or unused when that is 0. */
static inline void id_index_set(struct id_index *x, uint64_t *ids, size_t place, uint64_t id)
{
	if (ids[place])
		id_index_remove(x, ids, place);
	ids[place] = id;
	if (id)
		id_index_add(x, ids, place);
}

#endif
