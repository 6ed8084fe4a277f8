/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_cgroup_roots.c - where cgroup namespaces begin, of two texts between which others have mounted and unmounted hierarchies */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/cgroup.h"

static Gw__NsOther *cut(const char *whole, const char *seen)
{
	cleanup_free char *text = strdup(whole);
	Gw__NsOther *out = calloc(1, sizeof(*out));

	assert_non_null(out);
	gw__ns_other__init(out);
	if (cgroup_roots_cut(text, seen, out))
		return out;
	gw__ns_other__free_unpacked(out, NULL);
	return NULL;
}

static void assert_root(const Gw__NsOther *o, const char *names, const char *path)
{
	for (size_t i = 0; i < o->n_roots; i++)
		if (!strcmp(o->roots[i]->name, names)) {
			assert_string_equal(o->roots[i]->value, path);
			return;
		}
	fail_msg("no root of %s", names);
}

static void assert_roots(const char *seen, const char *own, const char *names, const char *path, const char *unified)
{
	Gw__NsOther *o = cut(seen, own);

	assert_non_null(o);
	assert_int_equal(o->n_roots, 2);
	assert_root(o, names, path);
	assert_root(o, "", unified);
	gw__ns_other__free_unpacked(o, NULL);
}

static void test_below(void **state)
{
	(void)state;
	assert_roots("4:cpu,cpuacct:/a/b/c\n0::/x/y\n", "4:cpu,cpuacct:/c\n0::/\n", "cpu,cpuacct", "/a/b", "/x/y");
	assert_null(cut("0::/x/y\n", "0::/../z\n"));
	assert_null(cut("0::/x/y\n", "0::/z\n"));
}

static void test_others_mount(void **state)
{
	(void)state;
	assert_roots("4:cpu:/a/b\n0::/x\n", "9:name=new:/\n4:cpu:/b\n0::/\n", "cpu", "/a", "/x");
}

static void test_others_unmount(void **state)
{
	(void)state;
	assert_roots("9:name=old:/\n4:cpu:/a/b\n0::/x\n", "4:cpu:/b\n0::/\n", "cpu", "/a", "/x");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_below), cmocka_unit_test(test_others_mount), cmocka_unit_test(test_others_unmount) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
