// SPDX-License-Identifier: GPL-2.0-or-later
/* test_portable.c - states of programs: what is written is read again, and what is another program's is refused with the difference */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "portable/state.h"

struct point {
	char tag;
	double x, y;
};
struct node {
	int8_t small;
	int64_t key;
	struct point at[2];
	struct node *next, *other;
	double *into; /* somewhere in another node, or in an array */
	char *name;
	uint16_t n;
	float *values;
	bool yes;
	long double exact;
};

GODWIT_TYPE(point_type, struct point, GODWIT_FIELD(struct point, tag), GODWIT_FIELD(struct point, x), GODWIT_FIELD(struct point, y));
GODWIT_TYPE(node_type, struct node, GODWIT_FIELD(struct node, small), GODWIT_FIELD(struct node, key),
	    GODWIT_FIELD_STRUCT(struct node, at, struct point, point_type), GODWIT_FIELD_POINTER(struct node, next, node_type),
	    GODWIT_FIELD_POINTER(struct node, other, node_type), GODWIT_FIELD_POINTER_TO_NUMBER(struct node, into), GODWIT_FIELD_STRING(struct node, name),
	    GODWIT_FIELD(struct node, n), GODWIT_FIELD_COUNTED(struct node, values, n), GODWIT_FIELD(struct node, yes), GODWIT_FIELD(struct node, exact));

/* The variables of the program under test. */
static struct all {
	struct node *list, **table, *array;
	char **names;
	uint32_t n_table, n_names;
	long n_array, n_big;
	int64_t *big;
	double grid[4][5];
	double *cursor;
	struct point *corner;
	char text[16], *in_text;
} a;

#define V(x, n, k, target, t, counter) { #x, (size_t)(uintptr_t)&a.x, n, k, target, t, counter }
static struct godwit_field fields[] = {
	V(list, 1, GODWIT_POINTER, GODWIT_STRUCT, &node_type, NULL),
	V(table, 1, GODWIT_COUNTED, GODWIT_POINTER, &node_type, "n_table"),
	V(array, 1, GODWIT_COUNTED, GODWIT_STRUCT, &node_type, "n_array"),
	V(names, 1, GODWIT_COUNTED, GODWIT_STRING, NULL, "n_names"),
	V(n_table, 1, GODWIT_UINT32, 0, NULL, NULL),
	V(n_names, 1, GODWIT_UINT32, 0, NULL, NULL),
	V(n_array, 1, GODWIT_LONG, 0, NULL, NULL),
	V(n_big, 1, GODWIT_LONG, 0, NULL, NULL),
	V(big, 1, GODWIT_COUNTED, GODWIT_INT64, NULL, "n_big"),
	V(grid, 20, GODWIT_DOUBLE, 0, NULL, NULL),
	V(cursor, 1, GODWIT_POINTER, GODWIT_DOUBLE, NULL, NULL),
	V(corner, 1, GODWIT_POINTER, GODWIT_STRUCT, &point_type, NULL),
	V(text, 16, GODWIT_CHAR, 0, NULL, NULL),
	V(in_text, 1, GODWIT_STRING, GODWIT_CHAR, NULL, NULL),
};
static const struct variables vars = { .fields = fields, .n = ARRAY_SIZE(fields) };
static const struct state_about about = { .program = "test", .version = 3, .point = 7 };
#define ABOUT_OF(name, number) (&(const struct state_about){ .program = name, .version = number })

static int save(const struct variables *v, struct err *e)
{
	int fd = memfd_create("state", MFD_CLOEXEC), r = state_write(v, &about, fd, NULL, e);

	if (r < 0)
		close(fd);
	return r < 0 ? r : fd;
}

static int load(const struct variables *v, const struct state_about *whose, int fd, size_t cut, struct err *e)
{
	size_t len = (size_t)lseek(fd, 0, SEEK_END);
	void *data = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	unsigned point;
	int r;

	assert_ptr_not_equal(data, MAP_FAILED);
	r = state_read(v, whose, data, cut ? cut : len, &point, e);
	if (r == 0)
		assert_int_equal(point, 7);
	munmap(data, len);
	return r;
}

static struct node *make(int64_t key)
{
	struct node *n = calloc(1, sizeof(*n));

	*n = (struct node){ .small = (int8_t)-key, .key = key * 1000000007, .at = { { 'a', key / 3.0, -0.0 }, { 'b', INFINITY, key } }, .n = 3, .yes = key & 1, .exact = key + 0.25L };
	n->values = malloc(3 * sizeof(float));
	for (int i = 0; i < 3; i++)
		n->values[i] = key + i / 7.0f;
	return n;
}

/* A ring, whose members also point to each other's insides; a table of them that shares them; an array; text that is shared. */
static void build(void)
{
	struct node *n[4];

	memset(&a, 0, sizeof(a));
	for (int i = 0; i < 4; i++)
		n[i] = make(i + 1);
	for (int i = 0; i < 4; i++) {
		n[i]->next = n[(i + 1) % 4];
		n[i]->into = &n[(i + 2) % 4]->at[1].y;
	}
	n[0]->name = strdup("Schnepfe");
	n[1]->name = n[0]->name + 3;
	n[2]->other = n[2];
	a.list = n[0];
	a.n_table = 5;
	a.table = calloc(5, sizeof(*a.table));
	a.table[0] = n[3];
	a.table[4] = n[1];
	a.n_array = 3;
	a.array = calloc(3, sizeof(*a.array));
	a.array[2].next = &a.array[1];
	a.array[1].into = &a.grid[3][4];
	a.n_names = 2;
	a.names = calloc(2, sizeof(*a.names));
	a.names[1] = strdup("");
	a.n_big = 100000;
	a.big = malloc(100000 * sizeof(*a.big));
	for (int i = 0; i < 100000; i++)
		a.big[i] = i * INT64_C(0x123456789ab) - 77;
	for (int i = 0; i < 20; i++)
		a.grid[i / 5][i % 5] = i / 9.0;
	a.cursor = &a.grid[1][1];
	a.corner = &a.array[2].at[1];
	strcpy(a.text, "Pfuhl");
	a.in_text = a.text + 2;
}

static void clear(void)
{
	free(a.big);
	memset(&a, 0x5a, sizeof(a));
}

static void check(void)
{
	struct node *n = a.list;

	for (int i = 0; i < 4; i++, n = n->next) {
		assert_int_equal(n->key, (i + 1) * 1000000007l);
		assert_int_equal(n->small, -(i + 1));
		assert_true(n->at[0].x == (i + 1) / 3.0 && signbit(n->at[0].y) && isinf(n->at[1].x) && n->at[1].tag == 'b');
		assert_ptr_equal(n->into, &n->next->next->at[1].y);
		assert_int_equal(n->n, 3);
		assert_true(n->values[2] == (i + 1) + 2 / 7.0f);
		assert_true(n->yes == ((i + 1) & 1) && n->exact == i + 1 + 0.25L);
	}
	assert_ptr_equal(n, a.list);
	assert_string_equal(n->name, "Schnepfe");
	assert_ptr_equal(n->next->name, n->name + 3);
	assert_ptr_equal(n->next->next->other, n->next->next);
	assert_null(n->other);
	assert_ptr_equal(a.table[0], n->next->next->next);
	assert_ptr_equal(a.table[4], n->next);
	assert_null(a.table[1]);
	assert_ptr_equal(a.array[2].next, &a.array[1]);
	assert_ptr_equal(a.array[1].into, &a.grid[3][4]);
	assert_null(a.names[0]);
	assert_string_equal(a.names[1], "");
	for (int i = 0; i < 100000; i++)
		assert_int_equal(a.big[i], i * INT64_C(0x123456789ab) - 77);
	for (int i = 0; i < 20; i++)
		assert_true(a.grid[i / 5][i % 5] == i / 9.0);
	assert_ptr_equal(a.cursor, &a.grid[1][1]);
	assert_ptr_equal(a.corner, &a.array[2].at[1]);
	assert_string_equal(a.text, "Pfuhl");
	assert_ptr_equal(a.in_text, a.text + 2);
}

static void test_round(void **state)
{
	struct err e = ERR_INIT;
	int fd;

	(void)state;
	build();
	fd = save(&vars, &e);
	assert_string_equal(e.message, "");
	clear();
	assert_int_equal(load(&vars, &about, fd, 0, &e), 0);
	check();
	close(fd);
	fd = save(&vars, &e); /* and what came out of a state goes into one */
	clear();
	assert_int_equal(load(&vars, &about, fd, 0, &e), 0);
	check();
	close(fd);
}

/* The state is refused with these words, and the variables are as they were. */
static void refused(const struct variables *v, const struct state_about *whose, int fd, size_t cut, const char *words)
{
	struct err e = ERR_INIT;
	struct all before = a;

	assert_true(load(v, whose, fd, cut, &e) < 0);
	if (!strstr(e.message, words))
		fail_msg("'%s' is not in '%s'", words, e.message);
	assert_memory_equal(&before, &a, sizeof(a));
}

struct other {
	int8_t small;
	int64_t key;
};
GODWIT_TYPE(shorter, struct other, GODWIT_FIELD(struct other, small), GODWIT_FIELD(struct other, key));

/* The same variables with field i changed. */
static struct variables with(size_t i, struct godwit_field changed)
{
	static struct godwit_field copy[ARRAY_SIZE(fields)];

	memcpy(copy, fields, sizeof(copy));
	copy[i] = changed;
	return (struct variables){ .fields = copy, .n = ARRAY_SIZE(fields) };
}

static void test_differences(void **state)
{
	struct godwit_type node = node_type;
	struct godwit_field inside[16], f;
	struct variables v = vars;
	int fd;

	(void)state;
	build();
	fd = save(&vars, NULL);
	refused(&vars, ABOUT_OF("tests", 3), fd, 0, "of program 'test', and this is 'tests'");
	refused(&vars, ABOUT_OF("test", 4), fd, 0, "version 3 of 'test', and this is version 4");
	refused(&vars, &about, fd, 100, "cut short");
	v.n--;
	refused(&v, &about, fd, 0, "variables: the state has 'in_text', and this program does not");
	f = fields[4];
	f.name = "n_tables";
	v = with(4, f);
	refused(&v, &about, fd, 0, "no integer that is described beside it");
	f = fields[12];
	f.count = 15;
	v = with(12, f);
	refused(&v, &about, fd, 0, "'text' has 16 elements in the state, and 15 in this program");
	f = fields[9];
	f.kind = GODWIT_FLOAT;
	v = with(9, f);
	refused(&v, &about, fd, 0, "variables: 'grid' is double in the state, and float in this program");
	f = fields[11];
	f.type = &shorter;
	v = with(11, f);
	refused(&v, &about, fd, 0, "'corner' is of another type in the state than in this program, where it is shorter");
	memcpy(inside, node_type.fields, node_type.n_fields * sizeof(*inside));
	node.fields = inside;
	inside[1].kind = GODWIT_INT32; /* of the list's type only: all have to change */
	for (size_t i = 3; i <= 4; i++)
		inside[i].type = &node;
	v = with(0, (struct godwit_field){ "list", (size_t)(uintptr_t)&a.list, 1, GODWIT_POINTER, GODWIT_STRUCT, &node, NULL });
	v.fields[1].type = v.fields[2].type = &node;
	refused(&v, &about, fd, 0, "node_type: 'key' is long in the state, and int32 in this program");
	inside[1] = node_type.fields[1];
	inside[1].name = "keys";
	refused(&v, &about, fd, 0, "node_type: the state has 'key' where this program has 'keys'");
	close(fd);
}

static void not_saved(const struct variables *v, const char *words)
{
	struct err e = ERR_INIT;

	assert_true(save(v, &e) < 0);
	if (!strstr(e.message, words))
		fail_msg("'%s' is not in '%s'", words, e.message);
}

static void test_cannot_be_said(void **state)
{
	static double outside;
	struct node *n;

	(void)state;
	build();
	a.list->exact = 1 / 3.0L;
	not_saved(&vars, "long double");
	build();
	n = a.list->next;
	n->into = (double *)(void *)&n->key; /* there is no double */
	not_saved(&vars, "not as such");
	build();
	a.cursor = &outside; /* one more object, of one number */
	assert_true(save(&vars, NULL) >= 0);
	build();
	a.n_array = -1;
	not_saved(&vars, "'n_array' says that 'array' has -1 elements");
}

/* A byte of the data is another: the digest says so; and with the right digest the decoder. */
static void test_damaged(void **state)
{
	int fd;
	uint8_t x;

	(void)state;
	build();
	fd = save(&vars, NULL);
	assert_int_equal(pread(fd, &x, 1, 5000), 1);
	x ^= 1;
	assert_int_equal(pwrite(fd, &x, 1, 5000), 1);
	refused(&vars, &about, fd, 0, "its digest is another");
	close(fd);
}

static void test_files(void **state)
{
	char path[] = "/tmp/test_portable.XXXXXX", word[8];
	int fd = mkstemp(path), closed = -1, saved;
	FILE *stream;
	struct file_entry files[] = { { .name = "log", .fd = &fd }, { .name = "none", .fd = &closed }, { .name = "text", .stream = &stream } };
	struct variables v = { .files = files, .n_files = 3 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(write(fd, "one two three\n", 14), 14);
	lseek(fd, 4, SEEK_SET);
	stream = fopen(path, "r");
	assert_int_equal(fscanf(stream, "%7s", word), 1);
	saved = save(&v, &e);
	assert_string_equal(e.message, "");
	close(fd);
	fclose(stream);
	fd = closed = 99;
	stream = NULL;
	assert_int_equal(load(&v, &about, saved, 0, &e), 0);
	assert_int_equal(closed, -1);
	assert_int_equal(read(fd, word, 3), 3);
	assert_memory_equal(word, "two", 3);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_int_equal(fscanf(stream, "%7s", word), 1);
	assert_string_equal(word, "two");
	assert_int_equal(truncate(path, 2), 0);
	assert_true(load(&v, &about, saved, 0, &e) < 0);
	assert_non_null(strstr(e.message, "it is shorter than the position in it"));
	unlink(path);
	assert_true(load(&v, &about, saved, 0, &e) < 0);
	assert_non_null(strstr(e.message, "cannot be opened here"));
	close(saved);
	assert_true(save(&v, &e) < 0);
	assert_non_null(strstr(e.message, "has been removed"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round), cmocka_unit_test(test_differences), cmocka_unit_test(test_cannot_be_said), cmocka_unit_test(test_damaged), cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
