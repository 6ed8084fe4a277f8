/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * decode.c - reads a state: the head and the tables, which must be those of this program
 *
 * The bytes are nobody's friend. The order is: length and digest, whose it is, its types against those of the program, its files, its objects
 * (whose data must be exactly what is left), every value (fill.c); then memory is taken, files are opened, and only then something is changed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "portable/state.h"

void *(*state_allocate)(size_t n, size_t size) = calloc;

struct input {
	const uint8_t *p;
	size_t left;
	bool swap, bad;
};

struct text {
	const char *s;
	size_t len;
};
#define TEXT(t) (int)(t).len, (t).s

static const void *take(struct input *in, size_t n)
{
	static const uint8_t zeros[8];
	const void *p = in->p;

	if (in->bad || n > in->left) {
		in->bad = true;
		return zeros;
	}
	in->p += n;
	in->left -= n;
	return p;
}

static uint8_t get_u8(struct input *in)
{
	return *(const uint8_t *)take(in, 1);
}

static uint16_t get_u16(struct input *in)
{
	uint16_t x;

	memcpy(&x, take(in, sizeof(x)), sizeof(x));
	return in->swap ? __builtin_bswap16(x) : x;
}

static uint32_t get_u32(struct input *in)
{
	uint32_t x;

	memcpy(&x, take(in, sizeof(x)), sizeof(x));
	return in->swap ? __builtin_bswap32(x) : x;
}

static uint64_t get_u64(struct input *in)
{
	uint64_t x;

	memcpy(&x, take(in, sizeof(x)), sizeof(x));
	return in->swap ? __builtin_bswap64(x) : x;
}

static struct text get_text(struct input *in)
{
	struct text t = { .len = get_u16(in) };

	if (t.len > STATE_TEXT_MAX || t.len > in->left) {
		in->bad = true;
		t.len = 0;
	}
	t.s = take(in, t.len);
	for (size_t i = 0; i < t.len; i++)
		in->bad |= (unsigned char)t.s[i] < ' ' || t.s[i] == 127;
	if (in->bad)
		t.len = 0;
	return t;
}

static bool text_is(struct text t, const char *s)
{
	size_t len = s ? strlen(s) : 0;

	return t.len == len && (!len || !memcmp(t.s, s, len));
}

struct decoder {
	struct reader reader;
	struct input in;
	const struct variables *vars;
	uint32_t *types; /* number in the state to that of a plan */
	uint32_t n_types;
	struct text arch;
	struct file_state *files;
	char (*paths)[STATE_TEXT_MAX + 1];
	int *fds;
};

static int damaged(struct err *e)
{
	return err_set(e, -EPROTO, "the state is damaged or cut short: it does not say what its tables should");
}

static int read_head(struct decoder *d, const void *data, size_t len, struct err *e)
{
	const uint8_t *head = data;
	struct digest digest;
	struct input end;
	uint64_t length;

	if (len < STATE_HEAD + 8 + STATE_DIGEST || memcmp(head, STATE_MAGIC, 8) != 0)
		return err_set(e, -EPROTO, "this is no state of a program with libgodwit-portable");
	if (head[8] != STATE_FORM)
		return err_set(e, -EPROTONOSUPPORT, "the state has form %u, and this library reads form %u", head[8], STATE_FORM);
	if (head[9] < 1 || head[9] > 2 || (head[10] != 4 && head[10] != 8) || memcmp(head + 11, "\0\0\0\0\0", 5) != 0)
		return damaged(e);
	d->in = (struct input){ .p = head + STATE_HEAD, .left = len - STATE_HEAD - STATE_DIGEST, .swap = head[9] != own_order() };
	d->reader.swap = d->in.swap;
	length = get_u64(&d->in);
	if (length != d->in.left)
		return err_set(e, -EPROTO, "the state is cut short or has something behind it: %llu bytes, and it says %llu", (unsigned long long)d->in.left,
			       (unsigned long long)length);
	digest_begin(&digest);
	digest_add(&digest, data, len - STATE_DIGEST);
	end = (struct input){ .p = head + len - STATE_DIGEST, .left = STATE_DIGEST, .swap = own_order() != 1 };
	return digest_end(&digest) == get_u64(&end) ? head[10] : err_set(e, -EBADMSG, "the state is damaged: its digest is another");
}

static int read_program(struct decoder *d, const struct state_about *about, unsigned *ret_point, struct err *e)
{
	struct text program = get_text(&d->in);
	uint32_t version = get_u32(&d->in), point = get_u32(&d->in);

	d->arch = get_text(&d->in);
	if (d->in.bad)
		return damaged(e);
	if (!text_is(program, about->program))
		return err_set(e, -EINVAL, "the state is of program '%.*s', and this is '%s'", TEXT(program), about->program);
	if (version != about->version)
		return err_set(e, -EINVAL, "the state is of version %u of '%s', and this is version %u", version, about->program, about->version);
	*ret_point = point;
	return 0;
}

/* Of one type, which is left out. */
static void skip_fields(struct input *in)
{
	uint32_t n = get_u32(in);

	for (uint32_t k = 0; k < n && !in->bad; k++) {
		get_text(in);
		take(in, 2 + 4);
		take(in, 8);
		get_text(in);
	}
}

/* Which type of the state is which of ours; STATE_NONE: none. */
static int map_types(struct decoder *d, struct err *e)
{
	struct input in = d->in;
	uint32_t n = get_u32(&in);

	if (in.bad || !n || n > STATE_TYPES_MAX)
		return damaged(e);
	d->types = calloc(n, sizeof(*d->types));
	if (!d->types)
		return err_set(e, -ENOMEM, "no memory for the state's types");
	d->n_types = n;
	for (uint32_t i = 0; i < n && !in.bad; i++) {
		struct text name = get_text(&in);

		d->types[i] = i ? STATE_NONE : 0;
		for (size_t k = 1; i && k < d->reader.plans.n; k++)
			if (text_is(name, d->reader.plans.v[k].type->name))
				d->types[i] = (uint32_t)k;
		skip_fields(&in);
	}
	return in.bad ? damaged(e) : 0;
}

/* `long` is of another width elsewhere, and int64_t is long in one place and long long in another. */
static bool kinds_fit(enum godwit_kind state, enum godwit_kind here)
{
	static const enum godwit_kind pairs[][2] = { { GODWIT_LONG, GODWIT_INT64 }, { GODWIT_ULONG, GODWIT_UINT64 } };

	for (size_t i = 0; i < 2; i++)
		if ((state == pairs[i][0] && here == pairs[i][1]) || (state == pairs[i][1] && here == pairs[i][0]))
			return true;
	return state == here;
}

struct in_field {
	struct text name, counter;
	unsigned kind, target;
	uint32_t type;
	uint64_t count;
};

static struct in_field get_field(struct input *in)
{
	struct in_field f = { .name = get_text(in) };

	f.kind = get_u8(in);
	f.target = get_u8(in);
	f.type = get_u32(in);
	f.count = get_u64(in);
	f.counter = get_text(in);
	return f;
}


/* One field of the state against ours of the same place. */
static int compare_field(struct decoder *d, struct plan *p, size_t k, const struct in_field *in, struct err *e)
{
	const struct godwit_field *f = &p->fields[k];
	const char *where = p->type ? p->type->name : "variables";
	uint32_t type = in->type < d->n_types ? d->types[in->type] : STATE_NONE;

	if (!text_is(in->name, f->name))
		return err_set(e, -EINVAL, "%s: the state has '%.*s' where this program has '%s'", where, TEXT(in->name), f->name);
	if (!kinds_fit(in->kind, f->kind) || !kinds_fit(in->target, f->target))
		return err_set(e, -EINVAL, "%s: '%s' is %s%s%s in the state, and %s%s%s in this program", where, f->name, kind_name(in->kind),
			       kind_is_pointer(in->kind) ? " of " : "", kind_is_pointer(in->kind) ? kind_name(in->target) : "", kind_name(f->kind),
			       kind_is_pointer(f->kind) ? " of " : "", kind_is_pointer(f->kind) ? kind_name(f->target) : "");
	if (in->count != f->count)
		return err_set(e, -EINVAL, "%s: '%s' has %llu elements in the state, and %zu in this program", where, f->name, (unsigned long long)in->count, f->count);
	if (f->type ? type == STATE_NONE || !type || d->reader.plans.v[type].type != f->type : in->type != STATE_NONE)
		return err_set(e, -EINVAL, "%s: '%s' is of another type in the state than in this program, where it is %s", where, f->name, f->type ? f->type->name : "no structure");
	if (!text_is(in->counter, f->counter))
		return err_set(e, -EINVAL, "%s: '%s' is counted by '%.*s' in the state, and by '%s' in this program", where, f->name, TEXT(in->counter),
			       f->counter ? f->counter : "");
	p->places[k].wire_kind = kind_is_number(f->kind) ? in->kind : in->target;
	return 0;
}

static int compare_type(struct decoder *d, struct plan *p, struct err *e)
{
	const char *where = p->type ? p->type->name : "variables";
	uint32_t n = get_u32(&d->in);

	for (uint32_t k = 0; k < n && !d->in.bad; k++) {
		struct in_field in = get_field(&d->in);
		int r;

		if (d->in.bad)
			break;
		if (k >= p->n)
			return err_set(e, -EINVAL, "%s: the state has '%.*s', and this program does not", where, TEXT(in.name));
		r = compare_field(d, p, k, &in, e);
		if (r < 0)
			return r;
	}
	if (d->in.bad)
		return damaged(e);
	return n < p->n ? err_set(e, -EINVAL, "%s: this program has '%s', and the state does not", where, p->fields[n].name) : 0;
}

static int read_types(struct decoder *d, struct err *e)
{
	int r = map_types(d, e);

	get_u32(&d->in);
	for (uint32_t i = 0; r == 0 && i < d->n_types; i++) {
		struct text name = get_text(&d->in);

		if (d->types[i] == STATE_NONE)
			return err_set(e, -EINVAL, "the state has a type '%.*s', and this program does not", TEXT(name));
		for (uint32_t k = 0; k < i; k++)
			if (d->types[k] == d->types[i])
				return damaged(e);
		r = compare_type(d, &d->reader.plans.v[d->types[i]], e);
	}
	if (r == 0 && d->n_types != d->reader.plans.n)
		return err_set(e, -EINVAL, "the state has %u types, and this program %zu", d->n_types - 1, d->reader.plans.n - 1);
	return r < 0 ? r : plans_measure(&d->reader.plans, e);
}

static int read_files(struct decoder *d, struct err *e)
{
	uint32_t n = get_u32(&d->in);

	if (d->in.bad || n > STATE_FILES_MAX)
		return damaged(e);
	if (n != d->vars->n_files)
		return err_set(e, -EINVAL, "the state has %u files, and this program %zu", n, d->vars->n_files);
	d->files = calloc(n + 1, sizeof(*d->files));
	d->paths = calloc(n + 1, sizeof(*d->paths));
	d->fds = calloc(n + 1, sizeof(*d->fds));
	if (!d->files || !d->paths || !d->fds)
		return err_set(e, -ENOMEM, "no memory for the files");
	for (uint32_t i = 0; i < n; i++) {
		struct text name = get_text(&d->in), path = get_text(&d->in);

		d->fds[i] = -1;
		d->files[i] = (struct file_state){ .name = d->vars->files[i].name, .path = d->paths[i], .flags = get_u8(&d->in), .position = get_u64(&d->in) };
		if (d->in.bad || d->files[i].position > INT64_MAX || (d->files[i].flags & FILE_OPEN && (!path.len || path.s[0] != '/')))
			return damaged(e);
		if (!text_is(name, d->files[i].name))
			return err_set(e, -EINVAL, "files: the state has '%.*s' where this program has '%s'", TEXT(name), d->files[i].name);
		memcpy(d->paths[i], path.s, path.len);
	}
	return 0;
}

static int read_object(struct decoder *d, struct in_object *o, struct err *e)
{
	uint32_t owner = get_u32(&d->in), field = get_u32(&d->in);
	uint64_t count = get_u64(&d->in);
	const struct plan *p = owner < d->n_types ? &d->reader.plans.v[d->types[owner]] : NULL;
	const struct godwit_field *f = p && (field & ~STATE_INNER) < p->n ? &p->fields[field & ~STATE_INNER] : NULL;

	if (d->in.bad || !f || !kind_is_pointer(f->kind) || !count || count > STATE_BYTES_MAX)
		return damaged(e);
	*o = (struct in_object){ .elem = elem_pointee(f), .wire_kind = p->places[f - p->fields].wire_kind, .count = (size_t)count, .name = f->name };
	if (count > SIZE_MAX / 64)
		return err_set(e, -E2BIG, "'%s' leads to more than this machine can have", f->name);
	if (field & STATE_INNER) {
		if (!kind_is_pointer(o->elem.kind))
			return damaged(e);
		o->elem = elem_inner(&o->elem);
		o->wire_kind = o->elem.kind;
	}
	return 0;
}

static int read_objects(struct decoder *d, struct err *e)
{
	struct reader *reader = &d->reader;
	uint32_t n = get_u32(&d->in);
	int r = 0;

	if (d->in.bad || n > d->in.left / 16)
		return damaged(e);
	reader->objects = calloc((size_t)n + 1, sizeof(*reader->objects));
	if (!reader->objects)
		return err_set(e, -ENOMEM, "no memory for %u objects", n);
	reader->n_objects = n;
	for (uint32_t i = 0; r == 0 && i < n; i++)
		r = read_object(d, &reader->objects[i], e);
	if (r < 0)
		return r;
	reader->variables = take(&d->in, reader->plans.v[0].wire);
	for (uint32_t i = 0; i < n && !d->in.bad; i++) {
		struct in_object *o = &reader->objects[i];
		size_t bytes;

		if (__builtin_mul_overflow(elem_wire(&reader->plans, &o->elem, o->wire_kind), o->count, &bytes))
			return damaged(e);
		o->wire = take(&d->in, bytes);
	}
	return d->in.bad || d->in.left ? damaged(e) : 0;
}

/* Memory and files; nothing of the program's has changed yet. */
static int acquire(struct decoder *d, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < d->reader.n_objects; i++) {
		struct in_object *o = &d->reader.objects[i];

		o->memory = state_allocate(o->count, elem_size(&o->elem));
		if (!o->memory)
			return err_set(e, -ENOMEM, "no memory for %zu elements of '%s'", o->count, o->name);
	}
	for (size_t i = 0; r == 0 && i < d->vars->n_files; i++)
		r = file_open(&d->files[i], &d->fds[i], e);
	for (size_t i = 0; r == 0 && i < d->vars->n_files; i++) {
		r = file_put(&d->vars->files[i], &d->files[i], d->fds[i], e);
		d->fds[i] = r == 0 ? -1 : d->fds[i];
	}
	return r;
}

static void release(struct decoder *d, bool failed)
{
	for (size_t i = 0; failed && i < d->reader.n_objects; i++)
		free(d->reader.objects[i].memory);
	for (size_t i = 0; d->fds && i < d->vars->n_files; i++)
		if (d->fds[i] >= 0)
			close(d->fds[i]);
	free(d->reader.objects);
	free(d->types);
	free(d->files);
	free(d->paths);
	free(d->fds);
	plans_free(&d->reader.plans);
}

int state_read(const struct variables *vars, const struct state_about *about, const void *data, size_t len, unsigned *ret_point, struct err *e)
{
	struct decoder d = { .vars = vars };
	unsigned point = 0;
	int r = read_head(&d, data, len, e);

	if (r >= 0)
		r = plans_make(vars, (unsigned)r, &d.reader.plans, e);
	if (r == 0)
		r = read_program(&d, about, &point, e);
	if (r == 0)
		r = read_types(&d, e);
	if (r == 0)
		r = read_files(&d, e);
	if (r == 0)
		r = read_objects(&d, e);
	if (r == 0)
		r = fill_check(&d.reader, e);
	if (r == 0)
		r = acquire(&d, e);
	if (r == 0) {
		fill_all(&d.reader);
		*ret_point = point;
	}
	release(&d, r < 0);
	return r;
}
