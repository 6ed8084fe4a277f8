/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * encode.c - writes a state
 *
 * Its length is known before the first byte is written, and nothing is held beside the list of objects: what is the same in memory and in
 * the state goes to the descriptor from where it is, the rest through a buffer.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "portable/state.h"

#define BUFFER_BYTES 65536u
#define DIRECT_BYTES 16384u /* from here on not through the buffer */

struct sink {
	int fd; /* -1: only counts */
	uint64_t bytes;
	struct digest digest;
	struct err *e;
	int error;
	size_t have;
	uint8_t buffer[BUFFER_BYTES];
};

static void write_all(struct sink *s, const void *data, size_t len)
{
	const char *p = data;

	while (len && !s->error) {
		ssize_t n = write(s->fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			s->error = err_sys(s->e, n < 0 ? -errno : -EIO, "writing the state");
			return;
		}
		p += n;
		len -= (size_t)n;
	}
}

static void flush(struct sink *s)
{
	digest_add(&s->digest, s->buffer, s->have);
	write_all(s, s->buffer, s->have);
	s->have = 0;
}

static void put(struct sink *s, const void *data, size_t len)
{
	s->bytes += len;
	if (s->fd < 0 || s->error || !len)
		return;
	if (len >= DIRECT_BYTES) {
		flush(s);
		digest_add(&s->digest, data, len);
		write_all(s, data, len);
		return;
	}
	if (s->have + len > BUFFER_BYTES)
		flush(s);
	memcpy(s->buffer + s->have, data, len);
	s->have += len;
}

static void put_u8(struct sink *s, uint8_t x)
{
	put(s, &x, sizeof(x));
}

static void put_u16(struct sink *s, uint16_t x)
{
	put(s, &x, sizeof(x));
}

static void put_u32(struct sink *s, uint32_t x)
{
	put(s, &x, sizeof(x));
}

static void put_u64(struct sink *s, uint64_t x)
{
	put(s, &x, sizeof(x));
}

static void put_text(struct sink *s, const char *text)
{
	size_t len = text ? strlen(text) : 0;

	put_u16(s, (uint16_t)len);
	if (len)
		put(s, text, len);
}

/* What one state is written from. */
struct writer {
	struct plans plans;
	struct objects objects;
	const struct variables *vars;
	const struct state_about *about;
	struct file_state *files;
	char (*paths)[STATE_TEXT_MAX];
	struct sink sink;
};

static void put_fields(struct writer *w, const struct plan *p)
{
	put_u32(&w->sink, (uint32_t)p->n);
	for (size_t k = 0; k < p->n; k++) {
		const struct godwit_field *f = &p->fields[k];

		put_text(&w->sink, f->name);
		put_u8(&w->sink, (uint8_t)f->kind);
		put_u8(&w->sink, (uint8_t)f->target);
		put_u32(&w->sink, f->type ? (uint32_t)plan_index(&w->plans, f->type) : STATE_NONE);
		put_u64(&w->sink, f->count);
		put_text(&w->sink, f->counter);
	}
}

static void put_tables(struct writer *w)
{
	struct sink *s = &w->sink;
	struct utsname name;

	uname(&name);
	put_text(s, w->about->program);
	put_u32(s, w->about->version);
	put_u32(s, w->about->point);
	put_text(s, name.machine);
	put_u32(s, (uint32_t)w->plans.n);
	for (size_t i = 0; i < w->plans.n; i++) {
		put_text(s, i ? w->plans.v[i].type->name : "");
		put_fields(w, &w->plans.v[i]);
	}
	put_u32(s, (uint32_t)w->vars->n_files);
	for (size_t i = 0; i < w->vars->n_files; i++) {
		put_text(s, w->files[i].name);
		put_text(s, w->files[i].path);
		put_u8(s, w->files[i].flags);
		put_u64(s, w->files[i].position);
	}
	put_u32(s, w->objects.numbers);
	for (size_t i = 0; i < w->objects.n; i++) {
		const struct object *o = &w->objects.v[i];

		if (!o->number)
			continue;
		put_u32(s, o->owner);
		put_u32(s, o->field | (o->inner ? STATE_INNER : 0));
		put_u64(s, o->count);
	}
}

static int put_pointer(struct writer *w, const void *pointer, const struct elem *want, uint64_t n, const char *name)
{
	uint32_t number = 0;
	uint64_t position = 0;
	char text[128];

	if (pointer && n && objects_locate(&w->plans, &w->objects, pointer, want, n, &number, &position) < 0) {
		elem_text(want, text);
		return err_set(w->sink.e, -EFAULT, "'%s' points to where no %s is", name, text);
	}
	put_u32(&w->sink, number);
	put_u64(&w->sink, position);
	return 0;
}

static int put_long_doubles(struct writer *w, const void *at, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		long double x = ((const long double *)at)[i];
		double d = (double)x;

		if (!isnan(x) && (long double)d != x)
			return err_set(w->sink.e, -ERANGE, "'%s' has a long double that no double is equal to (%.21Lg): other architectures cannot have it", name, x);
		put(&w->sink, &d, sizeof(d));
	}
	return 0;
}

static int put_struct(struct writer *w, const struct plan *p, uintptr_t base);

static int put_field(struct writer *w, const struct plan *p, const struct godwit_field *f, uintptr_t base)
{
	const void *at = (const void *)(base + f->offset);
	struct elem want;
	int r = 0;

	if (f->kind == GODWIT_LONG_DOUBLE)
		return put_long_doubles(w, at, f->count, f->name);
	if (kind_is_number(f->kind)) {
		put(&w->sink, at, kind_size(f->kind) * f->count);
		return 0;
	}
	if (f->kind == GODWIT_STRUCT) {
		const struct plan *inner = plan_of(&w->plans, f->type);

		for (size_t i = 0; r == 0 && i < f->count; i++)
			r = put_struct(w, inner, base + f->offset + i * inner->size);
		return r;
	}
	want = elem_pointee(f);
	for (size_t i = 0; r == 0 && i < f->count; i++) {
		const void *pointer = ((void *const *)at)[i];
		uint64_t n = 0;

		if (pointer)
			r = pointee_count(p, f, base, pointer, &n, w->sink.e);
		if (r == 0)
			r = put_pointer(w, pointer, &want, n, f->name);
	}
	return r;
}

static int put_struct(struct writer *w, const struct plan *p, uintptr_t base)
{
	int r = 0;

	if (p->same) {
		put(&w->sink, (const void *)base, p->size);
		return w->sink.error;
	}
	for (size_t k = 0; r == 0 && k < p->n; k++)
		r = put_field(w, p, &p->fields[k], base);
	return r < 0 ? r : w->sink.error;
}

static int put_object(struct writer *w, const struct object *o)
{
	const void *at = (const void *)o->address;
	const struct plan *p = o->elem.kind == GODWIT_STRUCT ? plan_of(&w->plans, o->elem.type) : NULL;
	const char *name = w->plans.v[o->owner].fields[o->field].name;
	struct elem want;
	int r = 0;

	if (o->elem.kind == GODWIT_LONG_DOUBLE)
		return put_long_doubles(w, at, o->count, name);
	if (kind_is_number(o->elem.kind) || (p && p->same)) {
		put(&w->sink, at, o->bytes);
		return w->sink.error;
	}
	for (size_t i = 0; p && r == 0 && i < o->count; i++)
		r = put_struct(w, p, o->address + i * p->size);
	if (p)
		return r;
	want = elem_inner(&o->elem);
	for (size_t i = 0; r == 0 && i < o->count; i++) {
		const void *pointer = ((void *const *)at)[i];

		r = put_pointer(w, pointer, &want, pointer && o->elem.kind == GODWIT_STRING ? strlen(pointer) + 1 : 1, name);
	}
	return r < 0 ? r : w->sink.error;
}

static uint64_t data_bytes(const struct writer *w)
{
	uint64_t n = w->plans.v[0].wire;

	for (size_t i = 0; i < w->objects.n; i++) {
		const struct object *o = &w->objects.v[i];

		n += o->number ? (uint64_t)o->count * elem_wire(&w->plans, &o->elem, o->elem.kind) : 0;
	}
	return n;
}

static int put_state(struct writer *w, int fd)
{
	uint8_t head[STATE_HEAD] = STATE_MAGIC;
	uint64_t length, digest;
	struct sink *s = &w->sink;
	int r;

	s->fd = -1;
	put_tables(w);
	length = s->bytes + data_bytes(w);
	s->fd = fd;
	s->bytes = 0;
	digest_begin(&s->digest);
	head[8] = STATE_FORM;
	head[9] = (uint8_t)own_order();
	head[10] = sizeof(long);
	put(s, head, sizeof(head));
	put_u64(s, length);
	put_tables(w);
	r = put_struct(w, &w->plans.v[0], 0);
	for (size_t i = 0; r == 0 && i < w->objects.n; i++)
		if (w->objects.v[i].number)
			r = put_object(w, &w->objects.v[i]);
	if (r < 0)
		return r;
	if (s->bytes != STATE_HEAD + 8 + length)
		return err_set(s->e, -EINVAL, "the state has changed while it was written: do other threads rest at this point?");
	flush(s);
	digest = digest_end(&s->digest);
	digest = own_order() == 1 ? digest : __builtin_bswap64(digest);
	put(s, &digest, sizeof(digest));
	flush(s);
	return s->error;
}

static int look_at_files(struct writer *w, struct err *e)
{
	size_t n = w->vars->n_files;
	int r = 0;

	w->files = calloc(n + 1, sizeof(*w->files));
	w->paths = calloc(n + 1, sizeof(*w->paths));
	if (!w->files || !w->paths)
		return err_set(e, -ENOMEM, "no memory for the files");
	for (size_t i = 0; r == 0 && i < n; i++)
		r = file_look(&w->vars->files[i], &w->files[i], w->paths[i], e);
	return r;
}

int state_write(const struct variables *vars, const struct state_about *about, int fd, uint64_t *ret_bytes, struct err *e)
{
	struct err own = ERR_INIT;
	struct writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(e, -ENOMEM, "no memory to write the state");
	w->vars = vars;
	w->about = about;
	w->sink.e = e ? e : &own;
	r = plans_make(vars, sizeof(long), &w->plans, e);
	if (r == 0)
		r = objects_find(&w->plans, &w->objects, e);
	if (r == 0)
		r = look_at_files(w, e);
	if (r == 0)
		r = put_state(w, fd);
	if (r == 0 && ret_bytes)
		*ret_bytes = w->sink.bytes;
	objects_free(&w->objects);
	plans_free(&w->plans);
	free(w->files);
	free(w->paths);
	free(w);
	return r;
}
