/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fill.c - the data of a state: checked as a whole, then turned into what memory has here
 *
 * What has to be looked at: pointers (which must lead to what their type says, as many as the counter says, text with an end), truth
 * values, and numbers that are wider in the state than here. The rest is copied, its bytes turned around where the order is another.
 */
#include <errno.h>
#include <string.h>

#include "portable/state.h"

#if defined(__has_attribute) && __has_attribute(optimize)
#define VECTORS __attribute__((optimize("O3")))
#else
#define VECTORS
#endif

static uint64_t load_number(const struct reader *r, const uint8_t *at, size_t width)
{
	uint16_t x16;
	uint32_t x32;
	uint64_t x64;

	switch (width) {
	case 1: return *at;
	case 2: memcpy(&x16, at, 2); return r->swap ? __builtin_bswap16(x16) : x16;
	case 4: memcpy(&x32, at, 4); return r->swap ? __builtin_bswap32(x32) : x32;
	default: memcpy(&x64, at, 8); return r->swap ? __builtin_bswap64(x64) : x64;
	}
}

static bool is_signed(enum godwit_kind kind)
{
	return kind <= GODWIT_INT64 || kind == GODWIT_LONG;
}

static uint64_t load_integer(const struct reader *r, const uint8_t *at, enum godwit_kind wire_kind)
{
	size_t width = kind_wire(wire_kind, r->plans.long_width);
	uint64_t x = load_number(r, at, width);

	if (is_signed(wire_kind) && width < 8)
		x = (uint64_t)((int64_t)(x << (64 - 8 * width)) >> (64 - 8 * width));
	return x;
}

/* The numbers of one field or object. */
struct run {
	enum godwit_kind kind, wire_kind;
	size_t n;
	const char *name;
};

static int check_run(const struct reader *r, const struct run *run, const uint8_t *wire, struct err *e)
{
	size_t width = kind_wire(run->wire_kind, r->plans.long_width), here = kind_size(run->kind);

	if (run->kind == GODWIT_BOOL)
		for (size_t i = 0; i < run->n; i++)
			if (wire[i] > 1)
				return err_set(e, -EPROTO, "'%s' is a truth value, and the state has %u", run->name, wire[i]);
	if (run->kind == GODWIT_LONG_DOUBLE || width <= here)
		return 0;
	for (size_t i = 0; i < run->n; i++) {
		uint64_t x = load_integer(r, wire + i * width, run->wire_kind);

		if (is_signed(run->kind) ? (int64_t)x != (int32_t)x : x != (uint32_t)x)
			return err_set(e, -ERANGE, "'%s' has %lld, which does not fit into the %zu bytes that it has here", run->name, (long long)x, here);
	}
	return 0;
}

VECTORS static void swap16(uint8_t *restrict to, const uint8_t *restrict from, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t x;

		memcpy(&x, from + 2 * i, 2);
		x = (uint16_t)(x << 8 | x >> 8);
		memcpy(to + 2 * i, &x, 2);
	}
}

VECTORS static void swap32(uint8_t *restrict to, const uint8_t *restrict from, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t x;

		memcpy(&x, from + 4 * i, 4);
		x = __builtin_bswap32(x);
		memcpy(to + 4 * i, &x, 4);
	}
}

VECTORS static void swap64(uint8_t *restrict to, const uint8_t *restrict from, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t x;

		memcpy(&x, from + 8 * i, 8);
		x = __builtin_bswap64(x);
		memcpy(to + 8 * i, &x, 8);
	}
}

static void fill_run(const struct reader *r, const struct run *run, const uint8_t *wire, void *to)
{
	size_t width = kind_wire(run->wire_kind, r->plans.long_width), here = kind_size(run->kind);

	if (run->kind == GODWIT_LONG_DOUBLE) {
		for (size_t i = 0; i < run->n; i++) {
			uint64_t x = load_number(r, wire + i * 8, 8);
			double d;

			memcpy(&d, &x, sizeof(d));
			((long double *)to)[i] = d;
		}
	} else if (width != here) {
		for (size_t i = 0; i < run->n; i++) {
			uint64_t x = load_integer(r, wire + i * width, run->wire_kind);

			if (here == 8)
				((uint64_t *)to)[i] = x;
			else
				((uint32_t *)to)[i] = (uint32_t)x;
		}
	} else if (!r->swap || width == 1) {
		memcpy(to, wire, run->n * width);
	} else if (width == 2) {
		swap16(to, wire, run->n);
	} else if (width == 4) {
		swap32(to, wire, run->n);
	} else {
		swap64(to, wire, run->n);
	}
}

/* Where a pointer in a state leads. number 0: nowhere. */
static int resolve(const struct reader *r, const uint8_t *wire, const struct elem *want, struct where *ret, const struct in_object **ret_in, uint32_t *ret_number)
{
	uint32_t number = (uint32_t)load_number(r, wire, 4);
	uint64_t position = load_number(r, wire + 4, 8);

	*ret_number = number;
	*ret_in = NULL;
	if (!number)
		return position ? -EPROTO : 0;
	if (number == 1)
		return position_find_variable(&r->plans, position, want, ret);
	if (number - 2 >= r->n_objects)
		return -EPROTO;
	*ret_in = &r->objects[number - 2];
	return position_find(&r->plans, &(*ret_in)->elem, (*ret_in)->wire_kind, (*ret_in)->count, position, want, ret);
}

/* n: at least so many must be there. */
static int check_pointer(const struct reader *r, const uint8_t *wire, const struct elem *want, uint64_t n, const char *name, bool text, struct err *e)
{
	const struct in_object *in;
	struct where where = { 0 };
	uint32_t number;
	char type[128];
	int ret = resolve(r, wire, want, &where, &in, &number);

	elem_text(want, type);
	if (ret < 0)
		return err_set(e, -EPROTO, "'%s' points to where no %s is in the state", name, type);
	if (number && where.left < n)
		return err_set(e, -EPROTO, "'%s' should lead to %llu of %s, and there are only %llu in the state", name, (unsigned long long)n, type,
			       (unsigned long long)where.left);
	if (number && text && !memchr((in ? in->wire : r->variables) + where.wire, 0, (size_t)where.left))
		return err_set(e, -EPROTO, "'%s' points to text without an end in the state", name);
	return 0;
}

static void *pointer_to(const struct reader *r, const uint8_t *wire, const struct elem *want)
{
	const struct in_object *in;
	struct where where = { 0 };
	uint32_t number;

	if (resolve(r, wire, want, &where, &in, &number) < 0 || !number)
		return NULL;
	return in ? (char *)in->memory + where.offset : (char *)(uintptr_t)where.offset;
}

static int check_struct(const struct reader *r, const struct plan *p, const uint8_t *wire, struct err *e);

static int check_field(const struct reader *r, const struct plan *p, size_t k, const uint8_t *base, struct err *e)
{
	const struct godwit_field *f = &p->fields[k];
	const struct plan *inner = f->kind == GODWIT_STRUCT ? plan_of(&r->plans, f->type) : NULL;
	struct run run = { .kind = f->kind, .wire_kind = p->places[k].wire_kind, .n = f->count, .name = f->name };
	const uint8_t *wire = base + p->places[k].wire;
	struct elem want = elem_pointee(f);
	uint64_t n = 1;
	int ret = 0;

	if (kind_is_number(f->kind))
		return check_run(r, &run, wire, e);
	if (f->kind == GODWIT_COUNTED) {
		const struct place *place = &p->places[p->places[k].counter];

		n = load_integer(r, base + place->wire, place->wire_kind);
	}
	for (size_t i = 0; ret == 0 && i < f->count; i++)
		ret = inner ? check_struct(r, inner, wire + i * inner->wire, e)
			    : check_pointer(r, wire + i * STATE_POINTER_BYTES, &want, n, f->name, f->kind == GODWIT_STRING, e);
	return ret;
}

static int check_struct(const struct reader *r, const struct plan *p, const uint8_t *wire, struct err *e)
{
	int ret = 0;

	if (p->same)
		return 0;
	for (size_t k = 0; ret == 0 && k < p->n; k++)
		ret = check_field(r, p, k, wire, e);
	return ret;
}

static int check_object(const struct reader *r, const struct in_object *o, struct err *e)
{
	const struct plan *p = o->elem.kind == GODWIT_STRUCT ? plan_of(&r->plans, o->elem.type) : NULL;
	struct run run = { .kind = o->elem.kind, .wire_kind = o->wire_kind, .n = o->count, .name = o->name };
	struct elem want = elem_inner(&o->elem);
	int ret = 0;

	if (kind_is_number(o->elem.kind))
		return check_run(r, &run, o->wire, e);
	if (p && p->same)
		return 0;
	for (size_t i = 0; ret == 0 && i < o->count; i++)
		ret = p ? check_struct(r, p, o->wire + i * p->wire, e)
			: check_pointer(r, o->wire + i * STATE_POINTER_BYTES, &want, 1, o->name, o->elem.kind == GODWIT_STRING, e);
	return ret;
}

int fill_check(const struct reader *r, struct err *e)
{
	int ret = check_struct(r, &r->plans.v[0], r->variables, e);

	for (size_t i = 0; ret == 0 && i < r->n_objects; i++)
		ret = check_object(r, &r->objects[i], e);
	return ret;
}

static void fill_struct(const struct reader *r, const struct plan *p, const uint8_t *wire, uintptr_t base)
{
	if (p->same && !r->swap) {
		memcpy((void *)base, wire, p->size);
		return;
	}
	for (size_t k = 0; k < p->n; k++) {
		const struct godwit_field *f = &p->fields[k];
		const uint8_t *from = wire + p->places[k].wire;
		struct run run = { .kind = f->kind, .wire_kind = p->places[k].wire_kind, .n = f->count };
		struct elem want = elem_pointee(f);
		void *to = (void *)(base + f->offset);

		if (kind_is_number(f->kind)) {
			fill_run(r, &run, from, to);
		} else if (f->kind == GODWIT_STRUCT) {
			const struct plan *inner = plan_of(&r->plans, f->type);

			for (size_t i = 0; i < f->count; i++)
				fill_struct(r, inner, from + i * inner->wire, base + f->offset + i * inner->size);
		} else {
			for (size_t i = 0; i < f->count; i++)
				((void **)to)[i] = pointer_to(r, from + i * STATE_POINTER_BYTES, &want);
		}
	}
}

static void fill_object(const struct reader *r, const struct in_object *o)
{
	const struct plan *p = o->elem.kind == GODWIT_STRUCT ? plan_of(&r->plans, o->elem.type) : NULL;
	struct run run = { .kind = o->elem.kind, .wire_kind = o->wire_kind, .n = o->count };
	struct elem want = elem_inner(&o->elem);

	if (kind_is_number(o->elem.kind))
		fill_run(r, &run, o->wire, o->memory);
	else if (p && p->same && !r->swap)
		memcpy(o->memory, o->wire, o->count * p->size);
	else
		for (size_t i = 0; i < o->count; i++) {
			if (p)
				fill_struct(r, p, o->wire + i * p->wire, (uintptr_t)o->memory + i * p->size);
			else
				((void **)o->memory)[i] = pointer_to(r, o->wire + i * STATE_POINTER_BYTES, &want);
		}
}

void fill_all(const struct reader *r)
{
	for (size_t i = 0; i < r->n_objects; i++)
		fill_object(r, &r->objects[i]);
	fill_struct(r, &r->plans.v[0], r->variables, 0);
}
