// SPDX-License-Identifier: GPL-2.0-or-later
/* test_look.c - what BPF says of a process is what /proc says, and is another thing when that has changed: so that /proc need not be read in the freeze */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "image/process.h"
#include "kern/restart_block.h"
#include "kern/task.h"

static int orders[2], answers[2];
static pid_t child;
static struct restart_reader *reader;
static struct restart_watch *watch;

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		_exit(1);
	close(fd);
}

static void __attribute__((noreturn)) obey(void)
{
	timer_t timer;
	char order;

	while (read(orders[0], &order, 1) == 1) {
		switch (order) {
		case 'u':
			umask(0123);
			break;
		case 'd':
			if (chdir("/tmp") < 0)
				_exit(1);
			break;
		case 'b': /* there and back */
			if (chdir("/") < 0 || chdir("/tmp") < 0)
				_exit(1);
			break;
		case 'o':
			write_file("/proc/self/oom_score_adj", "77");
			break;
		case 'f':
			write_file("/proc/self/coredump_filter", "0x5");
			break;
		case 't':
			if (timer_create(CLOCK_MONOTONIC, &(struct sigevent){ .sigev_notify = SIGEV_NONE }, &timer) < 0)
				_exit(1);
			break;
		}
		if (write(answers[1], "", 1) != 1)
			break;
	}
	_exit(0);
}

static void tell(char order)
{
	char answer;

	assert_int_equal(write(orders[1], &order, 1), 1);
	assert_int_equal(read(answers[0], &answer, 1), 1);
}

static struct process_look look(void)
{
	struct restart_record records[4] = { 0 };
	struct err e = ERR_INIT;

	assert_int_equal(restart_watch_read(watch, records, ARRAY_SIZE(records), &e), 1);
	assert_int_equal(records[0].tid, child);
	return records[0].look;
}

/* Whether both say the same. */
static bool agree(const struct process_look *l)
{
	Gw__Process *msg = process_new(child);
	struct process_query q = { .pid = child, .timers.listing_fd = -1 };
	struct err e = ERR_INIT;
	char path[64];
	bool ret;

	snprintf(path, sizeof(path), "/proc/%d/status", child);
	q.status_fd = open(path, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", child);
	q.oom_fd = open(path, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/%d/coredump_filter", child);
	q.filter_fd = open(path, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/%d/loginuid", child);
	q.login_fd = open(path, O_RDONLY);
	snprintf(path, sizeof(path), "/proc/%d/autogroup", child);
	q.autogroup_fd = open(path, O_RDONLY);
	assert_int_equal(process_capture_look(&q, msg, &e), 0);
	ret = process_is_as_seen(&q, msg, l);
	process_query_close(&q);
	gw__process__free_unpacked(msg, NULL);
	return ret;
}

static void changes_show(void **state)
{
	static const char changes[] = { 'u', 'd', 'b', 'o', 'f' };
	struct process_look before = look(), now;

	(void)state;
	if (!before.known) {
		print_message("this kernel keeps these things elsewhere\n");
		skip();
	}
	assert_true(agree(&before));
	now = look();
	assert_memory_equal(&before, &now, sizeof(now));
	for (size_t i = 0; i < sizeof(changes); i++) {
		tell(changes[i]);
		now = look();
		assert_memory_not_equal(&before, &now, sizeof(now));
		assert_true(agree(&now));
		before = now;
	}
	assert_int_equal(before.umask, 0123);
	assert_int_equal(before.oom_score_adj, 77);
	assert_int_equal(before.coredump_filter, 5);
	before.umask = 022;
	assert_false(agree(&before));
	tell('t');
	now = look();
	assert_true(now.timers != 0);
	assert_false(agree(&now));
}

static int start(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	if (pipe(orders) < 0 || pipe(answers) < 0)
		return -1;
	child = fork();
	if (!child) {
		close(orders[1]);
		obey();
	}
	if (restart_reader_load(&reader, &e) < 0 || restart_watch_open(reader, child, &watch, &e) < 0) {
		print_error("%s\n", e.message);
		return -1;
	}
	return 0;
}

static int stop(void **state)
{
	(void)state;
	restart_watch_close(watch);
	restart_reader_free(reader);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(changes_show) };

	return cmocka_run_group_tests(tests, start, stop);
}
