// SPDX-License-Identifier: GPL-2.0-or-later
/* test_batch.c - lists of calls that are planned twice: batch_keep and batch_is_kept (kern/remote.h) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kern/remote.h"
#include "kern/task.h"

static struct scratch scratch;
static struct task task = { &scratch, 1, 1, TASK_FUTEX, -1, 0 };

struct plan {
	unsigned calls;
	uint64_t argument;
	const char *name;
	unsigned extra; /* data that no call is given */
};

static void make(struct batch *b, const struct plan *p)
{
	uint64_t at;

	for (unsigned i = 0; i < p->calls; i++)
		batch_call(b, "prctl", SYS_prctl, i, i == 2 ? p->argument : 7, batch_string(b, i == 1 ? p->name : "same"));
	for (unsigned i = 0; i < p->extra; i++)
		((char *)batch_space(b, 16, &at))[3] = (char)i;
}

static bool same(const struct plan *before, const struct plan *now)
{
	struct batch *b = batch_new(&task);
	bool kept;

	make(b, before);
	batch_keep(b);
	/* what a run leaves behind is no part of it */
	batch_call(b, "getpid", SYS_getpid)->ret = 5;
	batch_reset(b);
	make(b, now);
	kept = batch_is_kept(b);
	batch_free(b);
	return kept;
}

static void test_the_same_list_is_known(void **state)
{
	const struct plan p = { 4, 1, "name", 3 };

	(void)state;
	assert_true(same(&p, &p));
	assert_true(same(&(struct plan){ 0 }, &(struct plan){ 0 }));
	assert_true(same(&(struct plan){ 150, 1, "name", 0 }, &(struct plan){ 150, 1, "name", 0 }) == false); /* too much data to be kept: never the same */
}

static void test_any_difference_is_seen(void **state)
{
	const struct plan p = { 4, 1, "name", 3 };

	(void)state;
	assert_false(same(&p, &(struct plan){ 4, 2, "name", 3 }));
	assert_false(same(&p, &(struct plan){ 4, 1, "nome", 3 }));
	assert_false(same(&p, &(struct plan){ 4, 1, "longer name", 3 }));
	assert_false(same(&p, &(struct plan){ 3, 1, "name", 3 }));
	assert_false(same(&p, &(struct plan){ 5, 1, "name", 3 }));
	assert_false(same(&p, &(struct plan){ 4, 1, "name", 2 }));
	assert_false(same(&p, &(struct plan){ 4, 1, "name", 4 }));
	assert_false(same(&(struct plan){ 0 }, &p));
}

static void test_nothing_kept(void **state)
{
	struct batch *b = batch_new(&task);

	(void)state;
	assert_false(batch_is_kept(b));
	batch_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_the_same_list_is_known), cmocka_unit_test(test_any_difference_is_seen), cmocka_unit_test(test_nothing_kept) };
	int memfd = memfd_create("scratch", MFD_CLOEXEC);

	if (memfd < 0 || scratch_init(&scratch, memfd, 4, 8 << 20, NULL) < 0)
		return 1;
	scratch_set_base(&scratch, 0x10000000);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
