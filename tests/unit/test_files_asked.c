/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test_files_asked.c - the relay answers a question about locks itself exactly while no request has passed that may have changed them */
#include <linux/fuse.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "home/files_asked.h"
#include "kern/files_locks.h"

static struct files_asked asked;
static uint64_t unique = 2;

struct request {
	struct fuse_in_header head;
	union {
		struct fuse_ioctl_in in;
		struct fuse_lk_in lock;
		struct fuse_flush_in flush;
	};
};

/* Whether it is to be sent to home. */
static bool passes(const struct request *r, char *ret_text)
{
	size_t len = 0;
	const uint8_t *answer = files_asked_request(&asked, (const void *)r, sizeof(*r), &len);
	struct fuse_out_header head;

	if (!answer)
		return true;
	memcpy(&head, answer, sizeof(head));
	assert_int_equal(head.unique, r->head.unique);
	assert_int_equal(head.len, len);
	assert_int_equal(len, sizeof(head) + 8);
	memcpy(ret_text, answer + sizeof(head), 8);
	return false;
}

static struct request question(uint64_t node, uint64_t fh)
{
	return (struct request){ { .opcode = FUSE_IOCTL, .nodeid = node, .unique = unique += 2 }, .in = { .fh = fh, .cmd = FILES_IOC_LOCKS, .out_size = sizeof(struct files_locks) } };
}

static struct request other(uint32_t opcode)
{
	return (struct request){ .head = { .opcode = opcode, .nodeid = 1, .unique = unique += 2 } };
}

static struct request lock_of(uint64_t owner, uint32_t flags)
{
	struct request r = other(FUSE_SETLK);

	r.lock = (struct fuse_lk_in){ .owner = owner, .lk_flags = flags };
	return r;
}

static struct request flush_of(uint64_t node, uint64_t owner)
{
	struct request r = other(FUSE_FLUSH);

	r.head.nodeid = node;
	r.flush = (struct fuse_flush_in){ .lock_owner = owner };
	return r;
}

static void answer(const struct request *r, int error, const char *text)
{
	uint8_t bytes[sizeof(struct fuse_out_header) + 8] = { 0 };
	struct fuse_out_header head = { .len = sizeof(bytes), .error = error, .unique = r->head.unique };

	memcpy(bytes, &head, sizeof(head));
	strcpy((char *)bytes + sizeof(head), text);
	files_asked_answered(&asked, bytes, sizeof(bytes));
}

static bool is_asked(uint64_t node, uint64_t fh, char *ret_text)
{
	struct request r = question(node, fh);

	return passes(&r, ret_text);
}

static void know(uint64_t node, uint64_t fh, const char *text)
{
	struct request r = question(node, fh);
	char unused[8];

	assert_true(passes(&r, unused));
	answer(&r, 0, text);
}

static void test_known(void **state)
{
	struct request read = other(FUSE_READ), another = question(1, 5);
	char text[8];

	(void)state;
	know(1, 5, "one");
	know(1, 6, "two");
	know(2, 5, "three");
	assert_true(passes(&read, text));
	assert_false(is_asked(1, 5, text));
	assert_string_equal(text, "one");
	assert_false(is_asked(1, 6, text));
	assert_string_equal(text, "two");
	assert_false(is_asked(2, 5, text));
	assert_string_equal(text, "three");
	another.in.cmd = 17;
	assert_true(passes(&another, text));
	another.in.cmd = FILES_IOC_LOCKS;
	another.in.out_size = 4;
	assert_true(passes(&another, text));
	files_asked_forget(&asked);
	assert_true(is_asked(1, 5, text));
	files_asked_free(&asked);
}

static void test_changes(void **state)
{
	static const uint32_t opcodes[] = { FUSE_SETLK, FUSE_SETLKW, FUSE_RELEASE };
	char text[8];

	(void)state;
	for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++) {
		struct request change = other(opcodes[i]), early = question(1, 5);

		know(1, 5, "free");
		assert_true(passes(&change, text));
		/* It may be done at home already, or not yet. */
		assert_true(passes(&early, text));
		answer(&early, 0, "free");
		assert_true(is_asked(1, 5, text));
		/* Also after a connection has broken: it is sent again. */
		files_asked_forget(&asked);
		assert_true(is_asked(1, 5, text));
		answer(&change, 0, "");
		know(1, 5, "locked");
		assert_false(is_asked(1, 5, text));
		assert_string_equal(text, "locked");
		files_asked_free(&asked);
	}
}

static void done(struct request r)
{
	char unused[8];

	assert_true(passes(&r, unused));
	answer(&r, 0, "");
}

/* A close gives back the locks of who closes, and only his, and only of that file: a worker that closes its duplicates changes nothing. */
static void test_flush(void **state)
{
	char text[8];

	(void)state;
	done(lock_of(7, 0));
	done(lock_of(8, FUSE_LK_FLOCK));
	know(1, 5, "locked");
	done(flush_of(1, 6));
	done(flush_of(1, 8));
	done(flush_of(2, 7));
	assert_false(is_asked(1, 5, text));
	done(flush_of(1, 7));
	know(1, 5, "free");
	done(flush_of(1, 7));
	assert_false(is_asked(1, 5, text));
	assert_string_equal(text, "free");
	files_asked_free(&asked);
}

/* Asked, then changed: the answer that comes then is old. */
static void test_late_answer(void **state)
{
	struct request asks = question(1, 5), change = other(FUSE_SETLK);
	char text[8];

	(void)state;
	assert_true(passes(&asks, text));
	assert_true(passes(&change, text));
	answer(&change, 0, "");
	answer(&asks, 0, "free");
	assert_true(is_asked(1, 5, text));
	files_asked_free(&asked);
}

static void test_error(void **state)
{
	struct request asks = question(1, 5);
	char text[8];

	(void)state;
	assert_true(passes(&asks, text));
	answer(&asks, -5, "");
	assert_true(is_asked(1, 5, text));
	files_asked_free(&asked);
}

static void test_many(void **state)
{
	char text[8];
	size_t local = 0;

	(void)state;
	for (uint64_t fh = 0; fh < 10000; fh++)
		know(1, fh, "x");
	for (uint64_t fh = 0; fh < 10000; fh++)
		local += !is_asked(1, fh, text);
	assert_in_range(local, 64, 1000);
	files_asked_free(&asked);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known), cmocka_unit_test(test_changes), cmocka_unit_test(test_flush), cmocka_unit_test(test_late_answer), cmocka_unit_test(test_error), cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
