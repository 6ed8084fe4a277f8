/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* plan.c - descriptions made ready: every type that the variables lead to, and where its fields are in memory and in a state; see state.h */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "portable/state.h"

static const struct {
	const char *name;
	size_t size, wire;
} kinds[GODWIT_KINDS] = {
	[GODWIT_INT8] = { "int8", 1, 1 },
	[GODWIT_INT16] = { "int16", 2, 2 },
	[GODWIT_INT32] = { "int32", 4, 4 },
	[GODWIT_INT64] = { "int64", 8, 8 },
	[GODWIT_UINT8] = { "uint8", 1, 1 },
	[GODWIT_UINT16] = { "uint16", 2, 2 },
	[GODWIT_UINT32] = { "uint32", 4, 4 },
	[GODWIT_UINT64] = { "uint64", 8, 8 },
	[GODWIT_LONG] = { "long", sizeof(long), 0 },
	[GODWIT_ULONG] = { "unsigned long", sizeof(unsigned long), 0 },
	[GODWIT_CHAR] = { "char", 1, 1 },
	[GODWIT_BOOL] = { "bool", sizeof(_Bool), 1 },
	[GODWIT_FLOAT] = { "float", sizeof(float), 4 },
	[GODWIT_DOUBLE] = { "double", sizeof(double), 8 },
	[GODWIT_LONG_DOUBLE] = { "long double", sizeof(long double), 8 },
	[GODWIT_STRUCT] = { "structure", 0, 0 },
	[GODWIT_POINTER] = { "pointer", sizeof(void *), STATE_POINTER_BYTES },
	[GODWIT_COUNTED] = { "counted array", sizeof(void *), STATE_POINTER_BYTES },
	[GODWIT_STRING] = { "string", sizeof(void *), STATE_POINTER_BYTES },
};

const char *kind_name(enum godwit_kind kind)
{
	return kind > 0 && kind < GODWIT_KINDS ? kinds[kind].name : "nothing";
}

bool kind_is_number(enum godwit_kind kind)
{
	return kind > 0 && kind < GODWIT_STRUCT;
}

bool kind_is_pointer(enum godwit_kind kind)
{
	return kind > GODWIT_STRUCT && kind < GODWIT_KINDS;
}

size_t kind_size(enum godwit_kind kind)
{
	return kinds[kind].size;
}

size_t kind_wire(enum godwit_kind kind, unsigned long_width)
{
	return kind == GODWIT_LONG || kind == GODWIT_ULONG ? long_width : kinds[kind].wire;
}

struct elem elem_of(const struct godwit_field *f)
{
	return (struct elem){ .kind = f->kind, .target = f->target, .type = f->type };
}

struct elem elem_pointee(const struct godwit_field *f)
{
	if (f->target == GODWIT_POINTER)
		return (struct elem){ .kind = GODWIT_POINTER, .target = GODWIT_STRUCT, .type = f->type };
	if (f->target == GODWIT_STRING)
		return (struct elem){ .kind = GODWIT_STRING, .target = GODWIT_CHAR };
	return (struct elem){ .kind = f->target, .type = f->target == GODWIT_STRUCT ? f->type : NULL };
}

struct elem elem_inner(const struct elem *array)
{
	return (struct elem){ .kind = array->target, .type = array->type };
}

size_t elem_size(const struct elem *m)
{
	return m->kind == GODWIT_STRUCT ? m->type->size : kind_size(m->kind);
}

size_t elem_slots(const struct plans *p, const struct elem *m)
{
	return m->kind == GODWIT_STRUCT ? plan_of(p, m->type)->slots : 1;
}

size_t elem_wire(const struct plans *p, const struct elem *m, enum godwit_kind wire_kind)
{
	return m->kind == GODWIT_STRUCT ? plan_of(p, m->type)->wire : kind_wire(kind_is_number(m->kind) ? wire_kind : m->kind, p->long_width);
}

void elem_text(const struct elem *m, char text[128])
{
	if (m->kind == GODWIT_STRUCT)
		snprintf(text, 128, "%.100s", m->type->name);
	else if (m->kind == GODWIT_POINTER)
		snprintf(text, 128, "pointer to %.100s", m->type ? m->type->name : kind_name(m->target));
	else
		snprintf(text, 128, "%s", kind_name(m->kind));
}

/* The field that counts for f; NULL: there is none. */
static const struct godwit_field *find_counter(const struct plan *p, const struct godwit_field *f)
{
	for (size_t i = 0; f->counter && i < p->n; i++)
		if (!strcmp(p->fields[i].name, f->counter))
			return &p->fields[i];
	return NULL;
}

size_t plan_index(const struct plans *p, const struct godwit_type *type)
{
	for (size_t i = 1; i < p->n; i++)
		if (p->v[i].type == type)
			return i;
	return 0;
}

const struct plan *plan_of(const struct plans *p, const struct godwit_type *type)
{
	return &p->v[plan_index(p, type)];
}

static const char *owner_name(const struct plan *p)
{
	return p->type ? p->type->name : "the variables";
}

static int field_check(const struct plan *p, const struct godwit_field *f, struct err *e)
{
	const struct godwit_field *counter = find_counter(p, f);
	bool target_type = f->target == GODWIT_STRUCT || (f->kind == GODWIT_COUNTED && f->target == GODWIT_POINTER);

	if (!f->name || !f->name[0] || strlen(f->name) > STATE_TEXT_MAX || f->kind <= 0 || f->kind >= GODWIT_KINDS || !f->count)
		return err_set(e, -EINVAL, "%s: field '%s' is not described by one of the macros, or has no elements", owner_name(p), f->name ? f->name : "");
	if ((f->kind == GODWIT_STRUCT || (kind_is_pointer(f->kind) && target_type)) && !f->type)
		return err_set(e, -EINVAL, "%s: field '%s' lacks the type that it is of", owner_name(p), f->name);
	if (f->kind == GODWIT_COUNTED && (!counter || !kind_is_number(counter->kind) || counter->kind >= GODWIT_CHAR || counter->count != 1))
		return err_set(e, -EINVAL, "%s: field '%s' has as many elements as '%s' says, and that is no integer that is described beside it", owner_name(p), f->name,
			       f->counter ? f->counter : "");
	if (p->type && (f->offset > p->size || f->count > (p->size - f->offset) / (f->kind == GODWIT_STRUCT ? f->type->size : kind_size(f->kind))))
		return err_set(e, -EINVAL, "%s: field '%s' is not within it", owner_name(p), f->name);
	for (const struct godwit_field *other = p->fields; other < f; other++)
		if (!strcmp(other->name, f->name))
			return err_set(e, -EEXIST, "%s: two fields are called '%s'", owner_name(p), f->name);
	return 0;
}

static int add_type(struct plans *p, const struct godwit_type *type, struct err *e)
{
	struct plan *v;
	size_t i;

	if (plan_index(p, type))
		return 0;
	if (!type->name || !type->name[0] || strlen(type->name) > STATE_TEXT_MAX || !type->size || !type->n_fields || type->n_fields > STATE_FIELDS_MAX)
		return err_set(e, -EINVAL, "type '%s' has no name, no size or no fields, or more than %u", type->name ? type->name : "", STATE_FIELDS_MAX);
	for (i = 1; i < p->n; i++)
		if (!strcmp(p->v[i].type->name, type->name))
			return err_set(e, -EEXIST, "two types are called '%s'", type->name);
	if (p->n >= STATE_TYPES_MAX)
		return err_set(e, -E2BIG, "more than %u types", STATE_TYPES_MAX);
	v = realloc(p->v, (p->n + 1) * sizeof(*v));
	if (!v)
		return err_set(e, -ENOMEM, "no memory for the types");
	p->v = v;
	p->v[p->n++] = (struct plan){ .type = type, .fields = type->fields, .n = type->n_fields, .size = type->size };
	return 0;
}

/* The types that plan i leads to; its fields are sound then. */
static int follow(struct plans *p, size_t i, struct err *e)
{
	int r = 0;

	p->v[i].places = calloc(p->v[i].n + 1, sizeof(*p->v[i].places));
	if (!p->v[i].places)
		return err_set(e, -ENOMEM, "no memory for the types");
	for (size_t k = 0; r == 0 && k < p->v[i].n; k++) {
		const struct godwit_field *f = &p->v[i].fields[k];

		p->v[i].places[k].wire_kind = kind_is_number(f->kind) ? f->kind : f->target;
		r = field_check(&p->v[i], f, e);
		if (r == 0 && f->kind == GODWIT_COUNTED)
			p->v[i].places[k].counter = (size_t)(find_counter(&p->v[i], f) - p->v[i].fields);
		if (r == 0 && f->type)
			r = add_type(p, f->type, e);
	}
	return r;
}

static int measure(struct plans *p, size_t i, unsigned depth, struct err *e)
{
	struct plan *v = &p->v[i];

	if (v->measured)
		return 0;
	if (depth > STATE_NEST_MAX)
		return err_set(e, -ELOOP, "type '%s' contains itself, or types within types more than %u deep", owner_name(v), STATE_NEST_MAX);
	v->wire = v->slots = 0;
	v->points = false;
	v->same = v->type != NULL;
	for (size_t k = 0; k < v->n; k++) {
		const struct godwit_field *f = &v->fields[k];
		struct elem m = elem_of(f);
		size_t wire, slots, bytes, units;
		int r = f->kind == GODWIT_STRUCT ? measure(p, plan_index(p, f->type), depth + 1, e) : 0;

		if (r < 0)
			return r;
		wire = elem_wire(p, &m, v->places[k].wire_kind);
		slots = elem_slots(p, &m);
		v->places[k].wire = v->wire;
		v->places[k].slot = v->slots;
		v->points |= kind_is_pointer(f->kind) || (f->kind == GODWIT_STRUCT && plan_of(p, f->type)->points);
		v->same &= f->offset == v->wire && !kind_is_pointer(f->kind) && f->kind != GODWIT_BOOL && f->kind != GODWIT_LONG_DOUBLE &&
			   (f->kind == GODWIT_STRUCT ? plan_of(p, f->type)->same : wire == elem_size(&m));
		if (__builtin_mul_overflow(wire, f->count, &bytes) || __builtin_add_overflow(v->wire, bytes, &v->wire) || __builtin_mul_overflow(slots, f->count, &units) ||
		    __builtin_add_overflow(v->slots, units, &v->slots))
			return err_set(e, -EOVERFLOW, "%s: too large", owner_name(v));
	}
	v->same &= v->wire == v->size;
	v->measured = true;
	return 0;
}

int plans_measure(struct plans *p, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < p->n; i++)
		p->v[i].measured = false;
	for (size_t i = 0; r == 0 && i < p->n; i++)
		r = measure(p, i, 0, e);
	return r;
}

int plans_make(const struct variables *vars, unsigned wire_long, struct plans *ret, struct err *e)
{
	struct plans p = { .long_width = wire_long, .n = 1, .v = calloc(1, sizeof(*p.v)) };
	int r = 0;

	if (!p.v)
		return err_set(e, -ENOMEM, "no memory for the types");
	p.v[0].fields = vars->fields;
	p.v[0].n = vars->n;
	for (size_t i = 0; r == 0 && i < p.n; i++)
		r = follow(&p, i, e);
	if (r == 0)
		r = plans_measure(&p, e);
	if (r < 0)
		plans_free(&p);
	else
		*ret = p;
	return r;
}

void plans_free(struct plans *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i].places);
	free(p->v);
	*p = (struct plans){ 0 };
}
