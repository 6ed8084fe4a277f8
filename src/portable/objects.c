/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * objects.c - everything in memory that the variables lead to
 *
 * Every pointer says where something is, of which type and how much. First all of that is collected, beginning with the variables; what
 * is found twice, by the same address, type and number, is looked at once. Then what lies within something else (an element of an array, a
 * field of a structure, a variable) becomes part of it. What is left are the objects of the state, and none overlaps another.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "portable/state.h"

struct finder {
	const struct plans *p;
	struct object *v; /* in the order in which they were found: those behind `done` have not been followed */
	size_t n, space, done;
	uint32_t *table; /* index + 1, by address */
	size_t table_size;
};

static size_t hash(uintptr_t address)
{
	return (size_t)(((uint64_t)address * 0x9e3779b97f4a7c15ull) >> 20);
}

static bool same_elem(const struct elem *a, const struct elem *b)
{
	return a->kind == b->kind && a->target == b->target && a->type == b->type;
}

/* Of a power of two, at least twice as many as there are objects; NULL: no memory. */
static uint32_t *make_table(const struct object *v, size_t n, size_t size)
{
	uint32_t *table = calloc(size, sizeof(*table));

	for (size_t i = 0; table && i < n; i++) {
		size_t at = hash(v[i].address) & (size - 1);

		while (table[at])
			at = (at + 1) & (size - 1);
		table[at] = (uint32_t)i + 1;
	}
	return table;
}

static int table_grow(struct finder *f, struct err *e)
{
	size_t size = f->table_size ? f->table_size * 2 : 1024;
	uint32_t *table = make_table(f->v, f->n, size);

	if (!table)
		return err_set(e, -ENOMEM, "no memory to look through %zu objects", f->n);
	free(f->table);
	f->table = table;
	f->table_size = size;
	return 0;
}

static int room(struct finder *f, struct err *e)
{
	if (f->n == f->space) {
		size_t space = f->space ? f->space * 2 : 256;
		struct object *v = realloc(f->v, space * sizeof(*v));

		if (!v || space > UINT32_MAX / 2)
			return err_set(e, -ENOMEM, "no memory to look through %zu objects", f->n);
		f->v = v;
		f->space = space;
	}
	return (f->n + 1) * 2 > f->table_size ? table_grow(f, e) : 0;
}

static int add(struct finder *f, const struct object *o, struct err *e)
{
	int r = room(f, e);
	size_t at;

	if (r < 0)
		return r;
	for (at = hash(o->address) & (f->table_size - 1); f->table[at]; at = (at + 1) & (f->table_size - 1)) {
		const struct object *have = &f->v[f->table[at] - 1];

		if (have->address == o->address && have->count == o->count && same_elem(&have->elem, &o->elem))
			return 0;
	}
	f->table[at] = (uint32_t)f->n + 1;
	f->v[f->n++] = *o;
	return 0;
}

static int read_count(const struct godwit_field *counter, uintptr_t base, uint64_t *ret)
{
	const void *at = (const void *)(base + counter->offset);
	int64_t n = 0;

	switch (counter->kind) {
	case GODWIT_INT8: n = (*(const uint8_t *)at ^ 0x80) - 0x80; break;
	case GODWIT_INT16: n = *(const int16_t *)at; break;
	case GODWIT_INT32: n = *(const int32_t *)at; break;
	case GODWIT_INT64: n = *(const int64_t *)at; break;
	case GODWIT_UINT8: n = *(const uint8_t *)at; break;
	case GODWIT_UINT16: n = *(const uint16_t *)at; break;
	case GODWIT_UINT32: n = *(const uint32_t *)at; break;
	case GODWIT_LONG: n = *(const long *)at; break;
	case GODWIT_ULONG: n = (int64_t)*(const unsigned long *)at; break;
	case GODWIT_UINT64: n = (int64_t)*(const uint64_t *)at; break;
	default: return -EINVAL;
	}
	*ret = (uint64_t)n;
	return n < 0 || n > (int64_t)(STATE_BYTES_MAX) ? -ERANGE : 0;
}

int pointee_count(const struct plan *p, const struct godwit_field *f, uintptr_t base, const void *pointer, uint64_t *ret, struct err *e)
{
	*ret = 1;
	if (f->kind == GODWIT_STRING)
		*ret = strlen(pointer) + 1;
	if (f->kind == GODWIT_COUNTED && read_count(&p->fields[p->places[f - p->fields].counter], base, ret) < 0)
		return err_set(e, -ERANGE, "'%s' says that '%s' has %lld elements", f->counter, f->name, (long long)*ret);
	return 0;
}

/* What one pointer leads to. */
static int follow_pointer(struct finder *f, const struct plan *p, size_t k, uintptr_t base, uintptr_t cell, struct err *e)
{
	const struct godwit_field *field = &p->fields[k];
	struct object o = { .elem = elem_pointee(field), .owner = (uint32_t)(p - f->p->v), .field = (uint32_t)k };
	const void *pointer = *(void *const *)cell;
	uint64_t n;
	int r;

	if (!pointer)
		return 0;
	r = pointee_count(p, field, base, pointer, &n, e);
	if (r < 0 || !n)
		return r;
	o.address = (uintptr_t)pointer;
	o.count = (size_t)n;
	if (o.count != n || __builtin_mul_overflow(elem_size(&o.elem), o.count, &o.bytes) || o.address + o.bytes < o.address)
		return err_set(e, -EOVERFLOW, "'%s' leads to more than there can be: %llu elements", field->name, (unsigned long long)n);
	return add(f, &o, e);
}

static int follow_struct(struct finder *f, const struct plan *p, uintptr_t base, struct err *e)
{
	int r = 0;

	for (size_t k = 0; r == 0 && k < p->n; k++) {
		const struct godwit_field *field = &p->fields[k];
		uintptr_t at = base + field->offset;

		for (size_t i = 0; kind_is_pointer(field->kind) && r == 0 && i < field->count; i++)
			r = follow_pointer(f, p, k, base, at + i * sizeof(void *), e);
		if (field->kind != GODWIT_STRUCT || !plan_of(f->p, field->type)->points)
			continue;
		for (size_t i = 0; r == 0 && i < field->count; i++)
			r = follow_struct(f, plan_of(f->p, field->type), at + i * field->type->size, e);
	}
	return r;
}

/* An array of pointers, or of strings: its elements are like a field that has one of them. */
static int follow_cells(struct finder *f, const struct object *o, struct err *e)
{
	struct object found = { .elem = elem_inner(&o->elem), .owner = o->owner, .field = o->field, .inner = true };
	int r = 0;

	for (size_t i = 0; r == 0 && i < o->count; i++) {
		const void *pointer = ((void *const *)o->address)[i];

		if (!pointer)
			continue;
		found.address = (uintptr_t)pointer;
		found.count = o->elem.kind == GODWIT_STRING ? strlen(pointer) + 1 : 1;
		found.bytes = elem_size(&found.elem) * found.count;
		r = add(f, &found, e);
	}
	return r;
}

static int follow(struct finder *f, const struct object *o, struct err *e)
{
	const struct plan *p = o->elem.kind == GODWIT_STRUCT ? plan_of(f->p, o->elem.type) : NULL;
	int r = 0;

	if (kind_is_pointer(o->elem.kind))
		return follow_cells(f, o, e);
	for (size_t i = 0; p && p->points && r == 0 && i < o->count; i++)
		r = follow_struct(f, p, o->address + i * p->size, e);
	return r;
}

/* The variables themselves, each an object whose number is 0. */
static int add_variables(struct finder *f, struct err *e)
{
	const struct plan *p = &f->p->v[0];
	int r = 0;

	for (size_t k = 0; r == 0 && k < p->n; k++) {
		struct elem m = elem_of(&p->fields[k]);
		struct object o = { .address = p->fields[k].offset, .count = p->fields[k].count, .elem = m, .owner = STATE_NONE, .field = (uint32_t)k,
				    .position = p->places[k].slot };

		o.bytes = o.count * elem_size(&m);
		r = add(f, &o, e);
	}
	f->done = f->n;
	return r < 0 ? r : follow_struct(f, p, 0, e);
}

/* By address; of those at the same one the larger first, and of those of the same size variables, then structures, for a number may be all of a structure. */
static int compare(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	if (x->address != y->address)
		return x->address < y->address ? -1 : 1;
	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	if ((x->owner == STATE_NONE) != (y->owner == STATE_NONE))
		return x->owner == STATE_NONE ? -1 : 1;
	return (y->elem.kind == GODWIT_STRUCT) - (x->elem.kind == GODWIT_STRUCT);
}

static int overlap(const struct object *in, const struct object *o, struct err *e)
{
	char what[128], where[128];

	elem_text(&o->elem, what);
	elem_text(&in->elem, where);
	return err_set(e, -EFAULT, "a pointer leads to %zu of %s, which %s %zu of %s, and not as such: is it described by its type, and not freed?", o->count, what,
		       o->address + o->bytes > in->address + in->bytes ? "begin within" : "lie within", in->count, where);
}

/* What lies within another is not one of its own. */
static int merge(struct finder *f, struct err *e)
{
	size_t i, kept = 0;

	if (f->n)
		qsort(f->v, f->n, sizeof(*f->v), compare);
	for (i = 0; i < f->n; i++) {
		const struct object *in = kept ? &f->v[kept - 1] : NULL, *o = &f->v[i];
		uint64_t position;
		int r;

		if (!in || o->address >= in->address + in->bytes) {
			f->v[kept++] = *o;
			continue;
		}
		r = o->address + o->bytes > in->address + in->bytes ? -EFAULT :
			position_of(f->p, &in->elem, in->count, o->address - in->address, &o->elem, o->count, &position);
		if (r < 0 && o->bytes == in->bytes && in->owner != STATE_NONE && position_of(f->p, &o->elem, o->count, 0, &in->elem, in->count, &position) == 0) {
			f->v[kept - 1] = *o;
			continue;
		}
		if (r < 0)
			return overlap(in, o, e);
		if (o->owner == STATE_NONE)
			return err_set(e, -EEXIST, "variables '%s' and another one are the same memory", f->p->v[0].fields[o->field].name);
	}
	f->n = kept;
	return 0;
}

int objects_find(const struct plans *p, struct objects *ret, struct err *e)
{
	struct finder f = { .p = p };
	uint32_t number = 0;
	int r = add_variables(&f, e);

	while (r == 0 && f.done < f.n) {
		struct object o = f.v[f.done++]; /* the array may move */

		r = follow(&f, &o, e);
	}
	free(f.table);
	if (r == 0)
		r = merge(&f, e);
	if (r < 0) {
		free(f.v);
		return r;
	}
	for (size_t i = 0; i < f.n; i++)
		f.v[i].number = f.v[i].owner == STATE_NONE ? 0 : ++number;
	*ret = (struct objects){ .v = f.v, .n = f.n, .numbers = number, .table_size = f.table_size, .table = make_table(f.v, f.n, f.table_size) };
	if (ret->table)
		return 0;
	objects_free(ret);
	return err_set(e, -ENOMEM, "no memory to look up %zu objects", f.n);
}

void objects_free(struct objects *o)
{
	free(o->v);
	free(o->table);
	*o = (struct objects){ 0 };
}

/* The last object that begins at this address or before it; NULL: none. */
static const struct object *find(const struct objects *o, uintptr_t at)
{
	size_t low = 0, high = o->n;

	for (size_t i = hash(at) & (o->table_size - 1); o->table_size && o->table[i]; i = (i + 1) & (o->table_size - 1))
		if (o->v[o->table[i] - 1].address == at)
			return &o->v[o->table[i] - 1];
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (o->v[middle].address <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? &o->v[low - 1] : NULL;
}

int objects_locate(const struct plans *p, const struct objects *o, const void *pointer, const struct elem *want, uint64_t want_n, uint32_t *ret_number, uint64_t *ret_position)
{
	uintptr_t at = (uintptr_t)pointer;
	const struct object *in = find(o, at);
	uint64_t position;
	int r = in && at - in->address < in->bytes ? position_of(p, &in->elem, in->count, at - in->address, want, want_n, &position) : -EFAULT;

	if (r < 0)
		return r;
	*ret_number = in->number + 1;
	*ret_position = in->position + position;
	return 0;
}
