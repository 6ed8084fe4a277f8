/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * position.c - positions in objects: which number or pointer of it, counted from its beginning
 *
 * An offset in bytes means something else in every layout; a position does not. What a pointer points to must begin there, in the type
 * that the pointer has: a structure and its first field have the same position, and the type says which of them is meant.
 */
#include <errno.h>

#include "portable/state.h"

static bool is_integer(enum godwit_kind kind)
{
	return kind > 0 && kind <= GODWIT_CHAR;
}

/* Whether what is `have` may be used as `want`. */
static bool fits(const struct elem *have, const struct elem *want)
{
	if (have->kind == GODWIT_STRUCT || want->kind == GODWIT_STRUCT)
		return have->kind == want->kind && have->type == want->type;
	if (kind_is_pointer(have->kind))
		return have->kind == want->kind && have->target == want->target && have->type == want->type;
	return have->kind == want->kind || (is_integer(have->kind) && is_integer(want->kind) && kind_size(have->kind) == kind_size(want->kind));
}

static size_t field_bytes(const struct godwit_field *f)
{
	struct elem m = elem_of(f);

	return elem_size(&m) * f->count;
}

int position_of(const struct plans *p, const struct elem *m, size_t count, size_t offset, const struct elem *want, uint64_t want_n, uint64_t *ret)
{
	struct elem at = *m;
	uint64_t position = 0;

	for (unsigned depth = 0; depth <= STATE_NEST_MAX; depth++) {
		size_t size = elem_size(&at), i = offset / size, rest = offset % size, k;
		const struct plan *plan;

		if (i >= count)
			return -EFAULT;
		position += (uint64_t)i * elem_slots(p, &at);
		if (rest == 0 && fits(&at, want)) {
			if (count - i < want_n)
				return -ERANGE;
			*ret = position;
			return 0;
		}
		if (at.kind != GODWIT_STRUCT)
			return -EFAULT;
		plan = plan_of(p, at.type);
		for (k = 0; k < plan->n; k++)
			if (rest >= plan->fields[k].offset && rest - plan->fields[k].offset < field_bytes(&plan->fields[k]))
				break;
		if (k == plan->n)
			return -EFAULT;
		position += plan->places[k].slot;
		offset = rest - plan->fields[k].offset;
		count = plan->fields[k].count;
		at = elem_of(&plan->fields[k]);
	}
	return -EFAULT;
}

/* The field of `plan` that has this position. */
static const struct godwit_field *field_at(const struct plans *p, const struct plan *plan, uint64_t position, uint64_t *ret_rest)
{
	for (size_t k = 0; k < plan->n; k++) {
		struct elem m = elem_of(&plan->fields[k]);

		if (position >= plan->places[k].slot && position - plan->places[k].slot < elem_slots(p, &m) * plan->fields[k].count) {
			*ret_rest = position - plan->places[k].slot;
			return &plan->fields[k];
		}
	}
	return NULL;
}

int position_find(const struct plans *p, const struct elem *m, enum godwit_kind wire_kind, size_t count, uint64_t position, const struct elem *want, struct where *ret)
{
	struct elem at = *m;
	struct where where = { 0 };

	for (unsigned depth = 0; depth <= STATE_NEST_MAX; depth++) {
		uint64_t slots = elem_slots(p, &at), i = position / slots, rest = position % slots;
		const struct plan *plan = at.kind == GODWIT_STRUCT ? plan_of(p, at.type) : NULL;
		const struct godwit_field *f;

		if (i >= count)
			return -EFAULT;
		where.offset += (size_t)i * elem_size(&at);
		where.wire += (size_t)i * elem_wire(p, &at, wire_kind);
		where.left = count - i;
		if (rest == 0 && fits(&at, want)) {
			*ret = where;
			return 0;
		}
		f = plan ? field_at(p, plan, rest, &position) : NULL;
		if (!f)
			return -EFAULT;
		where.offset += f->offset;
		where.wire += plan->places[f - plan->fields].wire;
		wire_kind = plan->places[f - plan->fields].wire_kind;
		count = f->count;
		at = elem_of(f);
	}
	return -EFAULT;
}

int position_find_variable(const struct plans *p, uint64_t position, const struct elem *want, struct where *ret)
{
	uint64_t rest;
	const struct godwit_field *f = field_at(p, &p->v[0], position, &rest);
	const struct place *place = f ? &p->v[0].places[f - p->v[0].fields] : NULL;
	struct elem m;
	int r;

	if (!f)
		return -EFAULT;
	m = elem_of(f);
	r = position_find(p, &m, place->wire_kind, f->count, rest, want, ret);
	if (r == 0) {
		ret->offset += f->offset;
		ret->wire += place->wire;
	}
	return r;
}
