// SPDX-License-Identifier: GPL-2.0-or-later
/* test_log.c - fields of the journal from a line of the log */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/journal.h"

#define HEAD "PRIORITY=4\nSYSLOG_IDENTIFIER=x\nMESSAGE="

static void check(const char *text, const char *fields)
{
	char got[1024], wanted[1024];
	size_t len = journal_encode(4, "x", text, got, sizeof(got) - 1);

	got[len] = 0;
	snprintf(wanted, sizeof(wanted), HEAD "%s\n%s", text, fields);
	assert_string_equal(got, wanted);
}

static void test_fields(void **state)
{
	(void)state;
	check("event=moved unit=n1:4711 freeze_us=12", "GODWIT_EVENT=moved\nGODWIT_UNIT=n1:4711\nGODWIT_FREEZE_US=12\n");
	check("error=\"no route to n2\" node=n2", "GODWIT_ERROR=no route to n2\nGODWIT_NODE=n2\n");
	check("error=\"host 'x': a \"b\" of c=d\" node=n2", "GODWIT_ERROR=host 'x': a \"b\" of c=d\nGODWIT_NODE=n2\n");
	check("error=\"without an end", "GODWIT_ERROR=without an end\n");
	check("empty= text=\"\"", "GODWIT_EMPTY=\nGODWIT_TEXT=\n");
	check("words that are no fields, a Key=1 =2", "");
	check("", "");
}

/* What does not fit is left out as a whole. */
static void test_room(void **state)
{
	char got[64];
	size_t len = journal_encode(4, "x", "event=moved unit=n1:4711-with-a-name-that-is-long", got, sizeof(got));

	(void)state;
	assert_true(len <= sizeof(got));
	got[len - 1] = 0;
	assert_string_equal(got, "PRIORITY=4\nSYSLOG_IDENTIFIER=x\nGODWIT_EVENT=moved");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_fields), cmocka_unit_test(test_room) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
