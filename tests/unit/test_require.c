// SPDX-License-Identifier: GPL-2.0-or-later
/* test_require.c - requirement strings: what they mean, and what is said of those that mean nothing */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/util.h"
#include "cluster/require.h"

static struct load idle(void)
{
	struct load load = { 0 };

	load.v[LOAD_CORES] = 8;
	load.v[LOAD_SPEED] = 1;
	load.v[LOAD_MAXMEM] = 16384;
	load.v[LOAD_MEM] = 6000;
	load.v[LOAD_UT] = 0.25;
	load.v[LOAD_R15S] = 0.5;
	return load;
}

static bool matches(const char *text)
{
	struct load load = idle();
	struct require_node node = { .name = "n1", .labels = "gpu zone=east rack=7", .load = &load };
	struct require r;
	struct err e = ERR_INIT;

	if (require_parse(&r, text, &e) < 0)
		fail_msg("%s: %s", text, e.message);
	return require_match(&r, &node);
}

static void test_select(void **state)
{
	static const struct {
		const char *text;
		bool matches;
	} cases[] = {
		{ "", true }, { "  ", true }, { "select[]", true },
		{ "mem>4000", true }, { "mem > 4G", true }, { "mem>6G", false }, { "mem>=6000", true }, { "mem<6000", false }, { "mem>4096M && mem<8192M", true },
		{ "maxmem==16G", true }, { "mem>1T", false }, { "mem > 5000K", true },
		{ "gpu", true }, { "fpga", false }, { "!fpga", true }, { "!gpu", false }, { "gpu && fpga", false }, { "gpu || fpga", true },
		{ "zone==east", true }, { "zone == west", false }, { "zone!=west", true }, { "zone", true }, { "rack==7", true }, { "gpu==yes", false }, { "fpga!=a", true },
		{ "name==n1", true }, { "hname!=n1", false }, { "name==n-1.x", false },
		{ "ut<0.5", true }, { "ut*4==1", true }, { "mem-tmp>5999", true }, { "cores/2+1==5", true }, { "cores-2-2==4", true }, { "16/2/2==4", true }, { "-cores<0", true },
		{ "ncpus==8 && cpuf==1", true },
		{ "1+2*3==7", true }, { "(1+2)*3==9", true }, { "1||0&&0", true }, { "(1||0)&&0", false }, { "1<2==1", true }, { "!0==1", true }, { "!!gpu", true },
		{ "1/0", false }, { "!(1/0)", false }, { "1/0==1", false }, { "1/0!=1", false }, { "1/0||1", true }, { "1/0&&1", false },
		{ "select[mem>4000 && gpu] order[ut:mem] rusage[mem=2000]", true }, { "rusage[mem=7G]", false }, { "rusage[mem=2000:tmp=1]", false }, { "order[-mem]", true },
		{ "rusage[r15s=4]", true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (matches(cases[i].text) != cases[i].matches)
			fail_msg("'%s' does%s match", cases[i].text, cases[i].matches ? " not" : "");
}

static void test_wrong(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "mem>", "column 5: the string ends too early" },
		{ "mem>4Q", "column 6: what stands behind this number" },
		{ "(mem>4", "column 7: ')' was expected" },
		{ "mem>4)", "column 6: this does not belong" },
		{ "select[mem>4", "column 13: ']' was expected" },
		{ "select[mem] select[ut]", "column 20: this section is there twice" },
		{ "span[hosts=1]", "column 1: a section was expected" },
		{ "order[memory]", "column 7: an index was expected" },
		{ "order[mem:]", "column 11: an index was expected" },
		{ "rusage[mem]", "column 11: '=' and an amount" },
		{ "rusage[mem=x]", "column 12: a number was expected" },
		{ "rusage[mem=-1]", "column 12: a number was expected" },
		{ "name", "a node's name were expected" },
		{ "zone==", "column 7: a text was expected" },
		{ "mem && && ut", "column 8: a number, an index or a label" },
		{ "mem $ 4", "column 5: this does not belong" },
		{ "order[ut:ut:ut:ut:ut:ut:ut:ut:ut]", "too many indices" },
		{ "((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))", "too many parentheses" },
		{ "1e999", "a number was expected" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct require r;
		struct err e = ERR_INIT;

		if (require_parse(&r, cases[i].text, &e) == 0 || !strstr(e.message, cases[i].says))
			fail_msg("'%s': %s", cases[i].text, e.message);
	}
}

static void test_long(void **state)
{
	char text[REQUIRE_TEXT_MAX + 2];
	struct require r;
	struct err e = ERR_INIT;

	memset(text, '!', sizeof(text));
	text[REQUIRE_TEXT_MAX + 1] = 0;
	assert_true(require_parse(&r, text, &e) < 0);
	for (size_t i = 0; i < REQUIRE_TEXT_MAX; i++)
		text[i] = "a|| "[i % 4];
	text[REQUIRE_TEXT_MAX - 3] = 0;
	assert_true(require_parse(&r, text, &e) < 0);
	assert_non_null(strstr(e.message, "too long"));
	text[400] = 'a';
	text[401] = 0;
	assert_int_equal(require_parse(&r, text, &e), 0);
}

static int compare(const char *text, struct load a, struct load b)
{
	struct require r;

	assert_int_equal(require_parse(&r, text, NULL), 0);
	assert_int_equal(require_compare(&r, &a, &b), -require_compare(&r, &b, &a));
	return require_compare(&r, &a, &b);
}

static void test_order(void **state)
{
	struct load a = idle(), b = idle();

	b.v[LOAD_UT] = 0.5;
	b.v[LOAD_MEM] = 9000;
	assert_int_equal(compare("order[ut]", a, b), -1);
	assert_int_equal(compare("order[-ut]", a, b), 1);
	assert_int_equal(compare("order[mem]", a, b), 1);
	assert_int_equal(compare("order[r1m:mem]", a, b), 1);
	assert_int_equal(compare("", a, b), 0);
	b.v[LOAD_R15S] = 0.4;
	assert_int_equal(compare("", a, b), 1);
}

static void test_reserve(void **state)
{
	struct load load = idle();
	struct require r;

	assert_int_equal(require_parse(&r, "rusage[mem=2000:r15s=1,swp=5]", NULL), 0);
	require_reserve(&r, &load);
	assert_float_equal(load.v[LOAD_MEM], 4000, 1e-9);
	assert_float_equal(load.v[LOAD_R15S], 1.5, 1e-9);
	assert_float_equal(load.v[LOAD_SWP], 0, 1e-9);
}

static void test_check(void **state)
{
	struct load load = idle();

	assert_int_equal(load_check(&load, NULL), 0);
	load.v[LOAD_MEM] = -1;
	assert_true(load_check(&load, NULL) < 0);
	load.v[LOAD_MEM] = NAN;
	assert_true(load_check(&load, NULL) < 0);
	load.v[LOAD_MEM] = HUGE_VAL;
	assert_true(load_check(&load, NULL) < 0);
	for (int i = 0; i < LOAD_INDICES; i++)
		assert_int_equal(load_find(load_name((enum load_index)i), strlen(load_name((enum load_index)i))), i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_select), cmocka_unit_test(test_wrong), cmocka_unit_test(test_long),
		cmocka_unit_test(test_order),  cmocka_unit_test(test_reserve), cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
