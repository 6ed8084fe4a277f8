// SPDX-License-Identifier: GPL-2.0-or-later
/* test_address.c - addresses as users write them, and records of them that others may have damaged */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/proc_start.h"
#include "net/owned.h"
#include "net/owned_internal.h"

static void check(const char *text, const char *plain, const char *device, unsigned prefix)
{
	struct owned_address a;
	struct err e = ERR_INIT;
	char out[ADDRESS_TEXT], whole[ADDRESS_TEXT];

	assert_int_equal(address_parse(text, &a, &e), 0);
	assert_string_equal(address_text(&a, out), plain);
	assert_string_equal(a.device, device);
	assert_int_equal(a.prefix, prefix);
	assert_int_equal(address_parse(address_text_whole(&a, whole), &a, &e), 0);
	assert_string_equal(address_text(&a, out), plain);
	assert_string_equal(a.device, device);
}

static void test_what_they_mean(void **state)
{
	(void)state;
	check("10.66.0.50/24", "10.66.0.50/24", "", 24);
	check("10.66.0.50", "10.66.0.50", "", 0);
	check("10.66.0.50/32%eth0.5", "10.66.0.50/32", "eth0.5", 32);
	check("10.66.0.50%br-lan", "10.66.0.50", "br-lan", 0);
	check("fd00::50/64%eth0", "fd00::50/64", "eth0", 64);
	check("FD00:0:0::0050/128", "fd00::50/128", "", 128);
}

static void test_what_means_nothing(void **state)
{
	static const char *const wrong[] = {
		"", "/24", "%eth0", "10.66.0", "10.66.0.50/", "10.66.0.50/0", "10.66.0.50/33", "10.66.0.50/+4", "10.66.0.50/24x", "10.66.0.50/24%", "10.66.0.50/24%a/b",
		"10.66.0.50/24%..", "10.66.0.50/24%sixteenbytes_long", "10.66.0.50/24%a b", "127.0.0.1/8", "0.0.0.0/0", "224.0.0.1/4", "255.255.255.255", "::/64", "::1/128",
		"fe80::1/64", "ff02::1/64", "::ffff:10.0.0.1/96", "fd00::50/129", "fd00::g/64", "host/24",
		"fd00:0000:0000:0000:0000:0000:0000:0050/64%eth0000000000000000000000000000000000000000000000000000000",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct owned_address a;
		struct err e = ERR_INIT;

		if (address_parse(wrong[i], &a, &e) != -EINVAL || !e.message[0])
			fail_msg("'%s' is taken", wrong[i]);
	}
}

static char directory[] = "/tmp/godwit-owned-XXXXXX";

static int count(const struct owned *o, void *arg)
{
	assert_int_equal(o->n, 2);
	++*(int *)arg;
	return 0;
}

static void test_records(void **state)
{
	struct owned o = { .pid = getpid(), .start_ticks = proc_start_ticks(getpid()), .keeper = 1, .keeper_ticks = 2, .coming = true, .n = 2 }, got;
	char path[128];
	int n = 0, fd;

	(void)state;
	assert_int_equal(address_parse("10.66.0.50/24%eth0", &o.v[0], NULL), 0);
	assert_int_equal(address_parse("fd00::50/64", &o.v[1], NULL), 0);
	strcpy(o.v[1].on, "eth7");
	assert_int_equal(owned_write(&o, NULL), 0);
	assert_int_equal(owned_find(getpid(), &got), 0);
	assert_memory_equal(&got, &o, sizeof(o));
	assert_true(owned_has(&o.v[1]));
	owned_list(count, &n);
	assert_int_equal(n, 1);
	/* Another process of that number has none. */
	o.start_ticks++;
	assert_int_equal(owned_write(&o, NULL), 0);
	assert_int_equal(owned_find(getpid(), &got), -ENOENT);
	snprintf(path, sizeof(path), "%s/%d.json", directory, (int)getpid());
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(fd, "{\"pid\":1}", 9), 9);
	close(fd);
	assert_true(owned_read(getpid(), &got) < 0);
	owned_erase(getpid());
	assert_int_equal(owned_read(getpid(), &got), -ENOENT);
	rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_they_mean),
		cmocka_unit_test(test_what_means_nothing),
		cmocka_unit_test(test_records),
	};

	if (!mkdtemp(directory))
		return 1;
	owned_use_directory(directory);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
