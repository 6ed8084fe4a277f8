/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_timerfd.c - a moment of a timer: ticks and deadline belong together, and one that is due is not taken for one that is not armed */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/util.h"
#include "image/timerfd.h"
#include "kern/file_table.h"

#define MS 1000000
#define SLIP_NS (MS / 2)

static void read_info(int fd, char *text, size_t size)
{
	char path[64];
	int info;
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY);
	len = read(info, text, size - 1);
	assert_true(len > 0);
	text[len] = 0;
	close(info);
}

static int timer(int clock, long first_ns, long interval_ns)
{
	struct itimerspec set = { { 0, interval_ns }, { 0, first_ns } };
	int fd = timerfd_create(clock, TFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(timerfd_settime(fd, 0, &set, NULL), 0);
	return fd;
}

static void wait_ms(long ms)
{
	uint64_t n;
	int fd = timer(CLOCK_MONOTONIC, ms * MS, 0);

	assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
	close(fd);
}

/* The next of the expirations, of which the first was a millisecond behind begun_ns, is the one behind those that are counted. */
static void belongs(const Gw__FdTimer *t, int64_t begun_ns)
{
	int64_t begun = t->deadline_ns - (int64_t)(t->ticks + 1) * MS;

	assert_int_not_equal(t->deadline_ns, 0);
	if (begun < begun_ns - SLIP_NS || begun > begun_ns + SLIP_NS)
		fail_msg("%llu ticks, the next at %lld, begun at %lld", (unsigned long long)t->ticks, (long long)t->deadline_ns, (long long)begun_ns);
}

static void test_text_is_old(void **state)
{
	Gw__FdDesc d = GW__FD_DESC__INIT;
	char text[1024];
	struct fd_look look = { .info = text };
	int64_t begun_ns = (int64_t)clock_ns(CLOCK_MONOTONIC);

	(void)state;
	look.fd = look.held = timer(CLOCK_MONOTONIC, MS, MS);
	read_info(look.fd, text, sizeof(text));
	wait_ms(30);
	assert_int_equal(timerfd_capture(&look, &d, NULL), 0);
	assert_in_range(d.timer->ticks, 29, 10000);
	belongs(d.timer, begun_ns);
	free(d.timer);
	close(look.fd);
}

/* Among so many looks are some at the very moment at which it is due, and some with an expiration between two calls. */
static void look_often(uint8_t armed)
{
	Gw__FdDesc d = GW__FD_DESC__INIT;
	char text[1024];
	struct fd_look look = { .info = text };
	int64_t begun_ns = (int64_t)clock_ns(CLOCK_MONOTONIC);

	look.fd = look.held = timer(CLOCK_MONOTONIC, MS, MS);
	read_info(look.fd, text, sizeof(text));
	wait_ms(3);
	for (int i = 0; i < 20000; i++) {
		look.armed = i ? armed : FILE_ARMED_YES;
		assert_int_equal(timerfd_capture(&look, &d, NULL), 0);
		belongs(d.timer, begun_ns);
	}
	free(d.timer);
	close(look.fd);
}

static void test_due(void **state)
{
	(void)state;
	look_often(FILE_ARMED_YES);
}

static void test_due_known_from_before(void **state)
{
	(void)state;
	look_often(FILE_ARMED_UNKNOWN);
}

static void test_not_armed(void **state)
{
	char text[1024];
	struct fd_look look = { .info = text, .armed = FILE_ARMED_NO };

	(void)state;
	for (int interval = 0; interval <= MS; interval += MS) {
		Gw__FdDesc d = GW__FD_DESC__INIT;

		look.fd = look.held = timer(CLOCK_MONOTONIC, 0, interval);
		read_info(look.fd, text, sizeof(text));
		assert_int_equal(timerfd_capture(&look, &d, NULL), 0);
		assert_int_equal(d.timer->deadline_ns, 0);
		assert_int_equal(d.timer->interval_ns, interval);
		free(d.timer);
		close(look.fd);
	}
}

static int armed_of(const struct file_record *records, ssize_t n, int fd)
{
	for (ssize_t i = 0; i < n; i++)
		if (records[i].fd == (unsigned int)fd)
			return records[i].armed;
	return -1;
}

static void test_record(void **state)
{
	int armed, periodic, disarmed, once, alarm, other;
	struct itimerspec later = { .it_value.tv_sec = 1000 };
	struct file_record *records = NULL;
	struct file_reader *reader;
	struct file_watch *watch;
	struct err e = ERR_INIT;
	size_t room = 0;
	ssize_t n;

	(void)state;
	if (file_reader_load(&reader, &e) < 0) {
		print_message("no BPF here: %s\n", e.message);
		skip();
	}
	/* Not before: loading may take a while. */
	armed = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	assert_int_equal(timerfd_settime(armed, 0, &later, NULL), 0);
	periodic = timer(CLOCK_BOOTTIME, 1, 999 * MS);
	disarmed = timer(CLOCK_REALTIME, 0, MS);
	once = timer(CLOCK_MONOTONIC, 1, 0);
	alarm = timerfd_create(CLOCK_BOOTTIME_ALARM, 0);
	other = open("/dev/null", O_RDONLY);
	if (alarm >= 0)
		assert_int_equal(timerfd_settime(alarm, 0, &later, NULL), 0);
	wait_ms(2);
	assert_int_equal(file_watch_open(reader, getpid(), &watch, &e), 0);
	n = file_watch_read(watch, &records, &room, &e);
	assert_true(n > 0);
	assert_int_equal(armed_of(records, n, armed), FILE_ARMED_YES);
	assert_int_equal(armed_of(records, n, disarmed), FILE_ARMED_NO);
	/* It has expired, and goes on when somebody looks at it. */
	assert_int_equal(armed_of(records, n, periodic), FILE_ARMED_YES);
	assert_int_equal(armed_of(records, n, once), FILE_ARMED_NO);
	if (alarm >= 0)
		assert_int_equal(armed_of(records, n, alarm), FILE_ARMED_YES);
	assert_int_equal(armed_of(records, n, other), FILE_ARMED_UNKNOWN);
	free(records);
	file_watch_close(watch);
	file_reader_free(reader);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_is_old), cmocka_unit_test(test_due), cmocka_unit_test(test_due_known_from_before), cmocka_unit_test(test_not_armed),
		cmocka_unit_test(test_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
