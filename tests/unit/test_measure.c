// SPDX-License-Identifier: GPL-2.0-or-later
/* test_measure.c - the load vector of hosts that are made of files: limits of both versions of control groups, rates, averages */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "cluster/measure.h"

#define SECOND 1000000000ull

static char root[] = "/tmp/godwit-measure-XXXXXX";

static void put(const char *path, const char *text)
{
	char whole[512];
	FILE *f;

	snprintf(whole, sizeof(whole), "%s%s", root, path);
	for (char *p = whole + strlen(root) + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = 0;
		assert_true(mkdir(whole, 0755) == 0 || errno == EEXIST);
	}
	f = fopen(whole, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int clear(void **state)
{
	char command[512];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s/*", root);
	return system(command);
}

static void put_machine(void)
{
	put("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         1 kB\nMemAvailable:   8388608 kB\nSwapFree:        1048576 kB\n");
	put("/proc/vmstat", "pgpgin 1000\npgpgout 500\npswpin 10\npswpout 20\npgmajfault 5\n");
	put("/proc/pressure/cpu", "some avg10=25.00 avg60=1.00 avg300=0.00 total=1\n");
	put("/proc/uptime", "6000.00 1.00\n");
	put("/proc/self/cgroup", "0::/\n");
	put("/proc/5/task/5/schedstat", "1000000000 500000000 1\n");
	put("/proc/5/task/6/schedstat", "0 0 0\n");
}

static void test_machine(void **state)
{
	struct measure m;
	struct load load;

	put_machine();
	measure_init(&m, 0, root);
	measure_take(&m, 100 * SECOND, &load);
	assert_float_equal(load.v[LOAD_RUN], 0, 1e-9); /* it knows no rates yet */
	assert_float_equal(load.v[LOAD_MAXMEM], 16384, 1e-6);
	assert_float_equal(load.v[LOAD_MEM], 8192, 1e-6);
	assert_float_equal(load.v[LOAD_SWP], 1024, 1e-6);
	assert_float_equal(load.v[LOAD_PSI_CPU], 0.25, 1e-6);
	assert_float_equal(load.v[LOAD_IT], 100, 1e-6);
	assert_true(load.v[LOAD_CORES] >= 1);
	/* two seconds later: one task ran for 2 s, another one waited for 1 s, a third is new and one has ended */
	put("/proc/5/task/5/schedstat", "3000000000 500000000 1\n");
	put("/proc/5/task/6/schedstat", "0 1000000000 0\n");
	put("/proc/7/task/7/schedstat", "500000000 500000000 0\n");
	put("/proc/vmstat", "pgpgin 5000\npgpgout 4500\npswpin 10\npswpout 20\npgmajfault 105\n");
	measure_take(&m, 102 * SECOND, &load);
	assert_float_equal(load.v[LOAD_RUN], 2, 1e-6);
	assert_true(load.v[LOAD_R15S] > 0 && load.v[LOAD_R1M] > 0 && load.v[LOAD_R15S] > load.v[LOAD_R1M] && load.v[LOAD_R1M] > load.v[LOAD_R15M]);
	assert_true(load.v[LOAD_UT] > 0 && load.v[LOAD_UT] < 0.1);
	assert_float_equal(load.v[LOAD_PG], 50 * (1 - 0.875173), 0.01); /* 1 - e^(-2/15) */
	assert_float_equal(load.v[LOAD_IO], 4000 * (1 - 0.875173), 0.1);
	for (uint64_t t = 104; t < 200; t += 2) {
		char text[64];

		snprintf(text, sizeof(text), "%llu 500000000 1\n", (unsigned long long)(3 + t - 102) * SECOND);
		put("/proc/5/task/5/schedstat", text);
		measure_take(&m, t * SECOND, &load);
	}
	assert_float_equal(load.v[LOAD_R15S], 1 / load.v[LOAD_CORES], 0.02);
	assert_int_equal(load_check(&load, NULL), 0);
	measure_free(&m);
}

static void test_version_2(void **state)
{
	struct measure m;
	struct load load;

	put_machine();
	put("/proc/self/cgroup", "0::/host/n1\n");
	put("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
	put("/sys/fs/cgroup/host/cpu.max", "50000 100000\n");
	put("/sys/fs/cgroup/host/n1/cpu.max", "max 100000\n");
	put("/sys/fs/cgroup/host/n1/memory.max", "1073741824\n");
	put("/sys/fs/cgroup/host/n1/memory.current", "536870912\n");
	put("/sys/fs/cgroup/host/n1/memory.stat", "anon 1\ninactive_file 268435456\n");
	put("/sys/fs/cgroup/host/n1/cpu.pressure", "some avg10=50.00 avg60=1.00 avg300=0.00 total=1\n");
	measure_init(&m, 2, root);
	measure_take(&m, SECOND, &load);
	assert_float_equal(load.v[LOAD_CORES], 0.5, 1e-9);
	assert_float_equal(load.v[LOAD_SPEED], 2, 1e-9);
	assert_float_equal(load.v[LOAD_MAXMEM], 1024, 1e-6);
	assert_float_equal(load.v[LOAD_MEM], 768, 1e-6);
	assert_float_equal(load.v[LOAD_PSI_CPU], 0.5, 1e-6);
	measure_free(&m);
}

static void test_version_1(void **state)
{
	struct measure m;
	struct load load;

	put_machine();
	put("/proc/self/mountinfo", "1 1 0:1 /../.. /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n2 1 0:2 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n");
	put("/proc/self/cgroup", "5:cpuset:/wrong\n4:memory:/../../lab/n2\n3:cpuacct,cpu:/lab/n2\n0::/\n");
	put("/sys/fs/cgroup/cpu/lab/n2/cpu.cfs_quota_us", "-1\n");
	put("/sys/fs/cgroup/cpu/lab/cpu.cfs_quota_us", "25000\n");
	put("/sys/fs/cgroup/cpu/lab/cpu.cfs_period_us", "100000\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/lab/n2/memory.limit_in_bytes", "2147483648\n");
	put("/sys/fs/cgroup/memory/lab/n2/memory.usage_in_bytes", "2147483648\n");
	put("/sys/fs/cgroup/memory/lab/n2/memory.stat", "cache 5\ntotal_inactive_file 1073741824\n");
	measure_init(&m, 1, root);
	measure_take(&m, SECOND, &load);
	assert_float_equal(load.v[LOAD_CORES], 0.25, 1e-9);
	assert_float_equal(load.v[LOAD_MAXMEM], 2048, 1e-6);
	assert_float_equal(load.v[LOAD_MEM], 1024, 1e-6);
	measure_free(&m);
}

/* Nothing can be read: still a vector that others take. */
static void test_nothing(void **state)
{
	struct measure m;
	struct load load;

	measure_init(&m, 1, root);
	measure_take(&m, SECOND, &load);
	measure_take(&m, 2 * SECOND, &load);
	measure_take(&m, 2 * SECOND, &load);
	assert_int_equal(load_check(&load, NULL), 0);
	assert_true(load.v[LOAD_CORES] >= 1);
	measure_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_machine, NULL, clear),   cmocka_unit_test_setup_teardown(test_version_2, NULL, clear),
		cmocka_unit_test_setup_teardown(test_version_1, NULL, clear), cmocka_unit_test_setup_teardown(test_nothing, NULL, clear),
	};
	int failed;

	if (!mkdtemp(root))
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(root);
	return failed;
}
