/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * godwit-portable.h - a program says what its state is, and moves by itself, also to a machine of another architecture
 *
 *	static struct node { int32_t key; double weight; struct node *next; } *list;
 *	GODWIT_TYPE(node_type, struct node,
 *		GODWIT_FIELD(struct node, key), GODWIT_FIELD(struct node, weight), GODWIT_FIELD_POINTER(struct node, next, node_type));
 *
 *	int main(int argc, char **argv)
 *	{
 *		long step = 0;
 *
 *		godwit_portable_begin(&argc, &argv, "sums", 1);
 *		GODWIT_VAR(step);
 *		GODWIT_VAR_POINTER(list, node_type);
 *		if (godwit_portable_ready() < 0)
 *			errx(1, "%s", godwit_why());
 *		for (; step < 1000000; step++) {
 *			work();
 *			godwit_point();
 *		}
 *	}
 *
 * The state is everything that can be reached from the variables that are named: it is written with the widths and the byte order of
 * this machine, both of which the state says, and pointers as numbers of objects and positions in them. So cycles stay cycles, what is
 * shared stays shared, and pointers into the middle of an object point there again. A program of another name, version or layout of its
 * types is refused, with the difference named. Objects that come out of a state are each from malloc.
 *
 * What cannot be described: unions and bit fields (make an integer of them in a call-back before the move), pointers to functions,
 * pointers behind the end of an object, __int128. A long double travels as a double and is refused when that is not exact. A `long` (and
 * size_t) may be of another width where the program goes on; a value that does not fit there is refused.
 *
 * One thread calls these functions; at godwit_point() others must rest. Functions that return int: 0 or more, or a negative errno, and
 * then godwit_why() has the sentence. docs/portable.md has the whole of it.
 */
#ifndef GODWIT_PORTABLE_H
#define GODWIT_PORTABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum godwit_kind {
	GODWIT_INT8 = 1, GODWIT_INT16, GODWIT_INT32, GODWIT_INT64, GODWIT_UINT8, GODWIT_UINT16, GODWIT_UINT32, GODWIT_UINT64,
	GODWIT_LONG, GODWIT_ULONG, /* of a width that the architecture chooses */
	GODWIT_CHAR, /* signed or not as the architecture chooses: carried as it is */
	GODWIT_BOOL, GODWIT_FLOAT, GODWIT_DOUBLE, GODWIT_LONG_DOUBLE,
	GODWIT_STRUCT,  /* of a described type, in place */
	GODWIT_POINTER, /* to one thing */
	GODWIT_COUNTED, /* to an array as long as another field says */
	GODWIT_STRING,  /* to characters, the last of which is 0 */
	GODWIT_KINDS
};

struct godwit_type;

/* One field of a structure, or a variable. Made by the macros below. */
struct godwit_field {
	const char *name;
	size_t offset;                  /* of a variable: its address */
	size_t count;                   /* of a fixed array; else 1 */
	enum godwit_kind kind;
	enum godwit_kind target;        /* POINTER, COUNTED: of what they point to */
	const struct godwit_type *type; /* STRUCT, and POINTER, COUNTED to one, or to pointers to one */
	const char *counter;            /* COUNTED: the name of the field, or variable, that has the number */
};

struct godwit_type {
	const char *name;
	size_t size;
	const struct godwit_field *fields;
	size_t n_fields;
};

#define GODWIT_KIND(x) _Generic((x), signed char: GODWIT_INT8, short: GODWIT_INT16, int: GODWIT_INT32, long: GODWIT_LONG, \
	long long: GODWIT_INT64, unsigned char: GODWIT_UINT8, unsigned short: GODWIT_UINT16, unsigned int: GODWIT_UINT32, \
	unsigned long: GODWIT_ULONG, unsigned long long: GODWIT_UINT64, char: GODWIT_CHAR, _Bool: GODWIT_BOOL, float: GODWIT_FLOAT, \
	double: GODWIT_DOUBLE, long double: GODWIT_LONG_DOUBLE)
#define GODWIT_OF_(S, f) (((S *)0)->f)

/* A type that is described further down, for pointers to it. */
#define GODWIT_TYPE_DECLARE(t) static const struct godwit_type t
/* Describes structure S as `t`; `t` is also what the state calls it. */
#define GODWIT_TYPE(t, S, ...) \
	static const struct godwit_type t; \
	static const struct godwit_field t##_fields_[] = { __VA_ARGS__ }; \
	static const struct godwit_type t = { #t, sizeof(S), t##_fields_, sizeof(t##_fields_) / sizeof(t##_fields_[0]) }

/* Fields: a number; arrays of one and two dimensions of numbers, in place; a structure or an array of them in place; */
#define GODWIT_FIELD(S, f) { #f, offsetof(S, f), 1, GODWIT_KIND(GODWIT_OF_(S, f)), (enum godwit_kind)0, NULL, NULL }
#define GODWIT_FIELD_ARRAY(S, f) { #f, offsetof(S, f), sizeof(GODWIT_OF_(S, f)) / sizeof(GODWIT_OF_(S, f)[0]), \
	GODWIT_KIND(GODWIT_OF_(S, f)[0]), (enum godwit_kind)0, NULL, NULL }
#define GODWIT_FIELD_GRID(S, f) { #f, offsetof(S, f), sizeof(GODWIT_OF_(S, f)) / sizeof(GODWIT_OF_(S, f)[0][0]), \
	GODWIT_KIND(GODWIT_OF_(S, f)[0][0]), (enum godwit_kind)0, NULL, NULL }
#define GODWIT_FIELD_STRUCT(S, f, E, t) { #f, offsetof(S, f), sizeof(GODWIT_OF_(S, f)) / sizeof(E), GODWIT_STRUCT, (enum godwit_kind)0, &(t), NULL }
/* a pointer (or an array of pointers) to a structure; to one number; to text; */
#define GODWIT_FIELD_POINTER(S, f, t) { #f, offsetof(S, f), sizeof(GODWIT_OF_(S, f)) / sizeof(void *), GODWIT_POINTER, GODWIT_STRUCT, &(t), NULL }
#define GODWIT_FIELD_POINTER_TO_NUMBER(S, f) { #f, offsetof(S, f), 1, GODWIT_POINTER, GODWIT_KIND(*GODWIT_OF_(S, f)), NULL, NULL }
#define GODWIT_FIELD_STRING(S, f) { #f, offsetof(S, f), sizeof(GODWIT_OF_(S, f)) / sizeof(char *), GODWIT_STRING, GODWIT_CHAR, NULL, NULL }
/* a pointer to as many numbers, structures, pointers to structures, or strings as the field `n` says. */
#define GODWIT_FIELD_COUNTED(S, f, n) { #f, offsetof(S, f), 1, GODWIT_COUNTED, GODWIT_KIND(*GODWIT_OF_(S, f)), NULL, #n }
#define GODWIT_FIELD_COUNTED_STRUCTS(S, f, n, t) { #f, offsetof(S, f), 1, GODWIT_COUNTED, GODWIT_STRUCT, &(t), #n }
#define GODWIT_FIELD_COUNTED_POINTERS(S, f, n, t) { #f, offsetof(S, f), 1, GODWIT_COUNTED, GODWIT_POINTER, &(t), #n }
#define GODWIT_FIELD_COUNTED_STRINGS(S, f, n) { #f, offsetof(S, f), 1, GODWIT_COUNTED, GODWIT_STRING, NULL, #n }

/* Variables, local or global: they must live until the last godwit_point(). The same kinds as for fields. Errors are kept for godwit_portable_ready(). */
#define GODWIT_VAR_(x, n, k, target, t, counter) \
	godwit_variable(&(const struct godwit_field){ #x, (size_t)(uintptr_t)&(x), n, k, target, t, counter })
#define GODWIT_VAR(x) GODWIT_VAR_(x, 1, GODWIT_KIND(x), (enum godwit_kind)0, NULL, NULL)
#define GODWIT_VAR_ARRAY(x) GODWIT_VAR_(x, sizeof(x) / sizeof((x)[0]), GODWIT_KIND((x)[0]), (enum godwit_kind)0, NULL, NULL)
#define GODWIT_VAR_GRID(x) GODWIT_VAR_(x, sizeof(x) / sizeof((x)[0][0]), GODWIT_KIND((x)[0][0]), (enum godwit_kind)0, NULL, NULL)
#define GODWIT_VAR_STRUCT(x, t) GODWIT_VAR_(x, sizeof(x) / (t).size, GODWIT_STRUCT, (enum godwit_kind)0, &(t), NULL)
#define GODWIT_VAR_POINTER(x, t) GODWIT_VAR_(x, sizeof(x) / sizeof(void *), GODWIT_POINTER, GODWIT_STRUCT, &(t), NULL)
#define GODWIT_VAR_POINTER_TO_NUMBER(x) GODWIT_VAR_(x, 1, GODWIT_POINTER, GODWIT_KIND(*(x)), NULL, NULL)
#define GODWIT_VAR_STRING(x) GODWIT_VAR_(x, sizeof(x) / sizeof(char *), GODWIT_STRING, GODWIT_CHAR, NULL, NULL)
#define GODWIT_VAR_COUNTED(x, n) GODWIT_VAR_(x, 1, GODWIT_COUNTED, GODWIT_KIND(*(x)), NULL, #n)
#define GODWIT_VAR_COUNTED_STRUCTS(x, n, t) GODWIT_VAR_(x, 1, GODWIT_COUNTED, GODWIT_STRUCT, &(t), #n)
#define GODWIT_VAR_COUNTED_POINTERS(x, n, t) GODWIT_VAR_(x, 1, GODWIT_COUNTED, GODWIT_POINTER, &(t), #n)
#define GODWIT_VAR_COUNTED_STRINGS(x, n) GODWIT_VAR_(x, 1, GODWIT_COUNTED, GODWIT_STRING, NULL, #n)

/* A variable with a name of its own; the macros above call it. The field is copied, its strings are not. */
int godwit_variable(const struct godwit_field *variable);
/* An open regular file: opened by the same name, as it was, at the same position, where the program goes on. -1 and NULL are files that are not open. */
int godwit_file(const char *name, int *fd);
int godwit_stream(const char *name, FILE **stream);

/*
 * The first call of main. program, version: whose state it is; only a state of the same is taken. Returns 0 when the program
 * begins afresh, 1 when it goes on with a state, which is in the variables after godwit_portable_ready().
 */
int godwit_portable_begin(int *argc, char ***argv, const char *program, unsigned version);
/* When all variables have been named: fills them in when there is a state. Returns 0: afresh, 1: goes on, < 0: the state is not for this program. */
int godwit_portable_ready(void);
/* The text of the last failure. */
const char *godwit_why(void);

/* The number of the point at which the state was taken: godwit_point_at's, 0 for godwit_point(). -1: the program began afresh. */
int godwit_resumed_at(void);

/*
 * A point at which the program may move: a load and a branch while nobody asks. When somebody does, the state goes to the other host, and if the program
 * goes on there this process ends (by _exit(0), behind the call-backs) and does not come back from here. Otherwise: a negative errno, and godwit_why() says why it has stayed.
 * Files that are not named, sockets and children do not move.
 */
#define godwit_point() godwit_point_at(0)
/* The same for a program with several: the number comes out of godwit_resumed_at(). */
static inline int godwit_point_at(unsigned number);

/* What becomes of a move. */
enum godwit_moved {
	GODWIT_LEFT,   /* it goes on elsewhere; this process is about to end */
	GODWIT_STAYED, /* it did not come to that: the program goes on here */
};
/* before: at the point, before the state is taken; other than 0: not now. after: behind it. Either may be NULL. In the order of the calls. */
int godwit_on_move(int (*before)(void *arg), void (*after)(enum godwit_moved what, void *arg), void *arg);
/* Readable when somebody asks, for a program that waits in poll(2): it had better come to its point then. Nothing is to be read from it. */
int godwit_point_fd(void);

/*
 * Asks this host's godwitd to move this program to another node, as the user that it has: 0 when that will happen at the next point; otherwise why not. Waits
 * for that, and for nothing else. No privileges are needed.
 */
int godwit_migrate_self(const char *host);
/* Asks the cluster where this program would be better off (`godwit balance explain`): 1 and the node's name, 0: here. */
int godwit_suggest(char *ret_host, size_t size);

/* Not for programs: what godwit_point_at looks at. */
extern const volatile uint32_t *godwit_asked_;
int godwit_point_slowly_(unsigned number);
static inline int godwit_point_at(unsigned number)
{
	return __builtin_expect(*godwit_asked_ != 0, 0) ? godwit_point_slowly_(number) : 0;
}

/* Writes the state to a descriptor or a file, and reads it: what a program needs that moves its parts itself, by connections of its own. */
int godwit_save_fd(int fd);
int godwit_save(const char *path);
int godwit_load_fd(int fd);
int godwit_load(const char *path);

#ifdef __cplusplus
}
#endif

#endif
