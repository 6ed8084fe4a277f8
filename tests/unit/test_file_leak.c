/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_file_leak.c - whether a program was told of a descriptor that it has inherited (image/file_leak.h) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "image/file_leak.h"

#define ARGUMENTS(text, fd) fd_is_named(text, sizeof(text), false, fd)
#define VARIABLES(text, fd) fd_is_named(text, sizeof(text), true, fd)

static void test_arguments(void **state)
{
	(void)state;
	assert_true(ARGUMENTS("helper\0--fd\0003", 3));
	assert_true(ARGUMENTS("helper\0--fd=3", 3));
	assert_true(ARGUMENTS("cat\0/dev/fd/3", 3));
	assert_true(ARGUMENTS("make\0-j\0--jobserver-auth=3,4", 4));
	assert_false(ARGUMENTS("ring\00030\0--port=4713", 3));
	assert_false(ARGUMENTS("ping\00010.66.0.3", 3));
	assert_false(ARGUMENTS("python3.11\0-m\0http", 3));
	assert_false(ARGUMENTS("/srv/0003-job/ring", 3));
	assert_false(ARGUMENTS("time\0003s", 3));
	assert_false(ARGUMENTS("", 3));
}

static void test_variables(void **state)
{
	(void)state;
	assert_true(VARIABLES("HOME=/\0PMI_FD=5", 5));
	assert_true(VARIABLES("NODE_CHANNEL_FD=3", 3));
	assert_true(VARIABLES("MAKEFLAGS= -j4 --jobserver-auth=3,4", 3));
	assert_true(VARIABLES("DISPLAY_SERVER=unix:fd=7", 7));
	assert_false(VARIABLES("PMI_RANK=3\0SHLVL=3\0SSH_CLIENT=10.66.0.3 50220 4722", 3));
	assert_false(VARIABLES("PMI_FD=5", 3));
	/* sd_listen_fds(3): two of them, 3 and 4 */
	assert_true(VARIABLES("LISTEN_FDS=2", 4));
	assert_false(VARIABLES("LISTEN_FDS=2", 5));
}

/* What has been cut off may go on with anything. */
static void test_cut_off(void **state)
{
	(void)state;
	assert_true(fd_is_named("a\0b", 3, false, 3));
	assert_false(fd_is_named("a\0b", 4, false, 3));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_arguments), cmocka_unit_test(test_variables), cmocka_unit_test(test_cut_off) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
