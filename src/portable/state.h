/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * state.h - descriptions made ready, and the form in which a state is written
 *
 * A state: 16 bytes of a head, then tables, then the data of every object, then a digest. Everything behind the head is in the byte
 * order and with the widths that the head tells.
 *
 *	head      "GODWITPS", version of the form, byte order (1 little, 2 big), width of long, 5 bytes 0
 *	u64       bytes behind the head, without the digest
 *	program   text, u32 version, u32 point, text architecture
 *	types     u32 number; each: text name, fields; and the variables, which have no name
 *	fields    u32 number; each: text name, u8 kind, u8 target, u32 type (or NONE), u64 count, text counter
 *	files     u32 number; each: text name, text path, u8 flags, u64 position
 *	objects   u32 number; each: u32 type (0: the variables) and u32 field whose pointer found it (the highest bit: a pointer in the array
 *	          to which that one leads), u64 elements
 *	data      of the variables, then of each object
 *	digest    u64, little-endian
 *
 * A text is a u16 and so many bytes. Elements are packed: numbers in their widths, a pointer as u32 object + 1 (0: none; 1: the
 * variables), u64 position. A position counts numbers and pointers, not bytes, so that it means the same in every layout.
 *
 * A plan is a description made ready: where each field is in memory and in a state. Variables are the fields of a structure at address 0.
 */
#ifndef GODWIT_PORTABLE_STATE_H
#define GODWIT_PORTABLE_STATE_H

#include <stdbool.h>

#include "base/err.h"
#include "portable/godwit-portable.h"

#define STATE_MAGIC "GODWITPS"
#define STATE_FORM 1u
#define STATE_HEAD 16u
#define STATE_DIGEST 8u
#define STATE_NONE UINT32_MAX
#define STATE_INNER 0x80000000u
#define STATE_POINTER_BYTES 12u
#define STATE_TYPES_MAX 1024u
#define STATE_FIELDS_MAX 4096u
#define STATE_FILES_MAX 1024u
#define STATE_TEXT_MAX 4096u
#define STATE_NEST_MAX 16u
#define STATE_BYTES_MAX (1ull << 42)

/* What an array consists of. */
struct elem {
	enum godwit_kind kind;
	enum godwit_kind target;
	const struct godwit_type *type;
};

struct place {
	size_t wire, slot;
	size_t counter; /* COUNTED: the field that counts */
	enum godwit_kind wire_kind; /* of numbers and what pointers point to: LONG and INT64 may stand for each other */
};

struct plan {
	const struct godwit_type *type; /* NULL: the variables */
	const struct godwit_field *fields;
	size_t n, size;
	struct place *places;
	size_t wire, slots; /* of one */
	bool points;        /* there are pointers in it */
	bool same;          /* memory and state are the same bytes, but for their order */
	bool measured;
};

struct plans {
	struct plan *v; /* v[0]: the variables */
	size_t n;
	unsigned long_width; /* of the state */
};

struct file_entry {
	const char *name;
	int *fd;
	FILE **stream;
};

struct variables {
	struct godwit_field *fields;
	size_t n, space;
	struct file_entry *files;
	size_t n_files;
	struct err error; /* of the first that was wrong */
};

/* What comes out of a state beside the variables. */
struct state_about {
	const char *program;
	unsigned version, point;
};

/* plan.c. wire_long: width of long in the state. The kinds in a state are the program's own until plans_measure is called after they have been changed. */
int plans_make(const struct variables *vars, unsigned wire_long, struct plans *ret, struct err *e);
/* Computes what depends on the kinds in the state. */
int plans_measure(struct plans *p, struct err *e);
void plans_free(struct plans *p);
const struct plan *plan_of(const struct plans *p, const struct godwit_type *type);
size_t plan_index(const struct plans *p, const struct godwit_type *type);
size_t kind_size(enum godwit_kind kind);                      /* of numbers, in memory */
size_t kind_wire(enum godwit_kind kind, unsigned long_width); /* in a state */
bool kind_is_number(enum godwit_kind kind);
bool kind_is_pointer(enum godwit_kind kind);
const char *kind_name(enum godwit_kind kind);
struct elem elem_of(const struct godwit_field *f);
struct elem elem_pointee(const struct godwit_field *f);
struct elem elem_inner(const struct elem *array); /* of an array of pointers */
size_t elem_size(const struct elem *m);
size_t elem_slots(const struct plans *p, const struct elem *m);
size_t elem_wire(const struct plans *p, const struct elem *m, enum godwit_kind wire_kind);
void elem_text(const struct elem *m, char text[128]);

/* position.c: where in an array of `count` elements that offset, or position, is, which must be that of `want_n` elements `want`. */
struct where {
	size_t offset, wire; /* in bytes, in memory and in a state */
	uint64_t left;       /* so many of them are there, from it on */
};
int position_of(const struct plans *p, const struct elem *m, size_t count, size_t offset, const struct elem *want, uint64_t want_n, uint64_t *ret);
int position_find(const struct plans *p, const struct elem *m, enum godwit_kind wire_kind, size_t count, uint64_t position, const struct elem *want, struct where *ret);
/* Of the variables: the offset is the address. */
int position_find_variable(const struct plans *p, uint64_t position, const struct elem *want, struct where *ret);

/* objects.c: everything that the variables lead to */
struct object {
	uintptr_t address;
	size_t count, bytes;
	struct elem elem;
	uint32_t owner, field; /* whose pointer has found it, */
	bool inner;            /* or a pointer in the array to which that one leads */
	uint32_t number;       /* in the state; 0: it is (part of) the variables */
	uint64_t position;     /* of its first element */
};
struct objects {
	struct object *v; /* sorted by address, none within another */
	size_t n;
	uint32_t *table;  /* index + 1, by the hash of the address: most pointers lead to the beginning of something */
	size_t table_size;
	uint32_t numbers;
};
int objects_find(const struct plans *p, struct objects *ret, struct err *e);
void objects_free(struct objects *o);
/* The number + 1 and the position of what a pointer points to. */
int objects_locate(const struct plans *p, const struct objects *o, const void *pointer, const struct elem *want, uint64_t want_n, uint32_t *ret_number, uint64_t *ret_position);
/* The elements that the pointer in field f of the structure at `base` leads to, and how many. */
int pointee_count(const struct plan *p, const struct godwit_field *f, uintptr_t base, const void *pointer, uint64_t *ret, struct err *e);

/* encode.c, decode.c, fill.c */
int state_write(const struct variables *vars, const struct state_about *about, int fd, uint64_t *ret_bytes, struct err *e);
/* Nothing in the variables has changed after an error. point: where it was taken. */
extern void *(*state_allocate)(size_t n, size_t size); /* calloc; tests have others */
int state_read(const struct variables *vars, const struct state_about *about, const void *data, size_t len, unsigned *ret_point, struct err *e);

/* What decode.c has made of the tables, for fill.c. */
struct in_object {
	struct elem elem;
	enum godwit_kind wire_kind;
	size_t count;
	const uint8_t *wire;
	void *memory;
	const char *name; /* of the field that leads to it */
};
struct reader {
	struct plans plans;
	bool swap;
	const uint8_t *variables; /* their data */
	struct in_object *objects;
	size_t n_objects;
};
/* Whether everything in the data is a value that it can have. */
int fill_check(const struct reader *r, struct err *e);
/* Then: puts it into the objects, which have memory, and into the variables. */
void fill_all(const struct reader *r);

/* files.c */
struct file_state {
	const char *name, *path;
	uint8_t flags;
	uint64_t position;
};
#define FILE_READ 1u
#define FILE_WRITE 2u
#define FILE_APPEND 4u
#define FILE_OPEN 8u
int file_look(const struct file_entry *f, struct file_state *ret, char path[STATE_TEXT_MAX], struct err *e);
/* Opens it; *ret_fd is -1 for one that was not open. */
int file_open(const struct file_state *s, int *ret_fd, struct err *e);
int file_put(const struct file_entry *f, const struct file_state *s, int fd, struct err *e);

/* digest.c: of a sequence of bytes, in whatever pieces it comes */
struct digest {
	uint64_t lane[4], bytes;
	uint8_t rest[32];
};
void digest_begin(struct digest *d);
void digest_add(struct digest *d, const void *data, size_t len);
uint64_t digest_end(const struct digest *d);

static inline unsigned own_order(void)
{
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 1 : 2;
}

#endif
