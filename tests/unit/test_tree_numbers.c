// SPDX-License-Identifier: GPL-2.0-or-later
/* test_tree_numbers.c - processes in several pid namespaces: their numbers, the message, and who can make whom */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "image/tree_plan.h"

/*
 * 100 is the root. 101 is the first in space 2, which lies in the root's; 102 its child; 103, a child of 102, is the first in space 3, which lies in 2. Space 1 is of another kind.
 */
static uint32_t above[] = { 0, 0, 0, 2 };
static struct tree_number numbers[] = {
	{ .number = 101, .space = 2, .depth = 1, .below = { 1 } },
	{ .number = 102, .space = 2, .depth = 1, .below = { 2 } },
	{ .number = 103, .space = 3, .depth = 2, .below = { 7, 1 } },
};

static struct tree_process process(pid_t pid, uint32_t parent, uint32_t space, uint32_t i)
{
	return (struct tree_process){ .pid = pid, .parent = parent, .parent_tid = 0, .pgid = 100, .sid = 100, .exit_signal = SIGCHLD, .tpgid = -1, .space = space,
				      .memory = i, .files = i, .fs = i, .handlers = i };
}

static struct tree example(struct tree_process v[4])
{
	v[0] = process(100, TREE_NONE, 0, 0);
	v[1] = process(101, 0, 2, 1);
	v[2] = process(102, 1, 2, 2);
	v[3] = process(103, 2, 3, 3);
	return (struct tree){ .v = v, .n = 4, .numbers = numbers, .n_numbers = 3, .above = above, .n_spaces = 4 };
}

static void numbers_depend_on_who_looks(void **state)
{
	struct tree_process v[4];
	struct tree t = example(v);
	pid_t set[TREE_LEVELS_MAX + 1];

	assert_int_equal(tree_seen(&t, 0, 103), 103);
	assert_int_equal(tree_seen(&t, 2, 103), 7);
	assert_int_equal(tree_seen(&t, 3, 103), 1);
	assert_int_equal(tree_seen(&t, 3, 102), 0);
	assert_int_equal(tree_seen(&t, 2, 100), 0);
	assert_int_equal(tree_set_tid(&t, 3, 103, set), 3);
	assert_int_equal(set[0], 1);
	assert_int_equal(set[1], 7);
	assert_int_equal(set[2], 103);
	assert_int_equal(tree_set_tid(&t, 0, 100, set), 1);
	assert_int_equal(tree_set_tid(&t, 3, 555, set), 0); /* not known in there */
	assert_true(tree_is_first(&t, 1) && !tree_is_first(&t, 2) && tree_is_first(&t, 3) && !tree_is_first(&t, 0));
}

static void the_message_keeps_them(void **state)
{
	struct tree_process v[4];
	struct tree t = example(v), got;
	uint8_t *data;
	size_t len;

	assert_int_equal(tree_encode(&t, &data, &len), 0);
	assert_int_equal(tree_decode(data, len, &got, NULL), 0);
	assert_int_equal(got.n_numbers, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(got.numbers[i].number, numbers[i].number);
		assert_int_equal(got.numbers[i].space, numbers[i].space);
		assert_memory_equal(got.numbers[i].below, numbers[i].below, sizeof(numbers[i].below));
	}
	assert_int_equal(got.v[3].space, 3);
	assert_int_equal(tree_depth(&got, 3), 2);
	free(data);
	tree_free(&got);
}

static int decoded(const struct tree *t)
{
	struct tree got;
	uint8_t *data;
	size_t len;
	int ret;

	assert_int_equal(tree_encode(t, &data, &len), 0);
	ret = tree_decode(data, len, &got, NULL);
	free(data);
	if (ret == 0)
		tree_free(&got);
	return ret;
}

static void nonsense_is_not_believed(void **state)
{
	struct tree_number changed[3];
	uint32_t ring[] = { 0, 0, 3, 2 };
	struct tree_process v[4];
	struct tree t = example(v);

	t.above = ring;
	assert_int_equal(decoded(&t), -EBADMSG);
	t.above = above;
	v[0].space = 2;
	assert_int_equal(decoded(&t), -EBADMSG);
	v[0].space = 0;
	v[2].space = 9;
	assert_int_equal(decoded(&t), -EBADMSG);
	v[2].space = 0; /* but it has a number below */
	assert_int_equal(decoded(&t), -EBADMSG);
	v[2].space = 2;
	for (int i = 0; i < 3; i++) {
		memcpy(changed, numbers, sizeof(numbers));
		t.numbers = changed;
		if (i == 0)
			changed[2].depth = 1;
		else if (i == 1)
			changed[0].number = 103; /* not ascending */
		else
			changed[1].below[0] = -3;
		assert_int_equal(decoded(&t), -EBADMSG);
	}
	t.numbers = numbers;
	assert_int_equal(decoded(&t), 0);
}

static void somebody_has_to_be_able_to_make_each(void **state)
{
	struct tree_process v[4];
	struct tree t = example(v);

	assert_int_equal(tree_check_spaces(&t, NULL), 0);
	/* Born from outside into a namespace that is there: fine. */
	v[2].parent = 0;
	assert_int_equal(tree_check_spaces(&t, NULL), 0);
	/* A child that is in the namespace above its parent's. */
	v[2].parent = 1;
	v[3] = process(104, 2, 0, 3);
	assert_int_equal(tree_check_spaces(&t, NULL), -EOPNOTSUPP);
	/* Before there is a first process. */
	t = example(v);
	v[1] = process(102, 0, 2, 1);
	v[2] = process(101, 0, 2, 2);
	v[3].parent = 1;
	assert_int_equal(tree_check_spaces(&t, NULL), -EOPNOTSUPP);
}

static void groups_that_are_not_seen(void **state)
{
	struct tree_process v[4];
	struct tree t = example(v);

	/* Two groups of the namespace: who does not see one is put into it by a parent that does. */
	v[1].pgid = 101;
	v[2].pgid = 101;
	assert_int_equal(tree_check_spaces(&t, NULL), 0);
	v[3].pgid = 101;
	assert_int_equal(tree_check_spaces(&t, NULL), 0); /* its parent sees it */
	v[3].pgid = 102;
	v[2].pgid = 102;
	assert_int_equal(tree_check_spaces(&t, NULL), 0);
	/* One that is led from outside of the unit, of which those within have it from the first, and that one from its parent. */
	for (int i = 0; i < 4; i++) {
		v[i].sid = 60;
		v[i].pgid = 50;
	}
	assert_int_equal(tree_check_spaces(&t, NULL), 0);
	/* The first in there has another one: its children cannot have it from anybody. */
	v[1].pgid = 101;
	assert_int_equal(tree_check_spaces(&t, NULL), -EOPNOTSUPP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_depend_on_who_looks), cmocka_unit_test(the_message_keeps_them), cmocka_unit_test(nonsense_is_not_believed),
		cmocka_unit_test(somebody_has_to_be_able_to_make_each), cmocka_unit_test(groups_that_are_not_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
