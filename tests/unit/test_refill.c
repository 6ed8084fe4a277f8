// SPDX-License-Identifier: GPL-2.0-or-later
/* test_refill.c - what comes back goes into a pipe before what lies there, whoever writes into it meanwhile (home/refill.h) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "home/refill.h"

#define TURNS 30
#define LINE 8 /* each line is its number: a place in the stream */

static int pipe_fds[2];

static size_t fill_lines(char *out, size_t from, size_t n)
{
	char text[LINE + 1];

	for (size_t i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "%07zu\n", (from + i) % 3000000);
		memcpy(out + i * LINE, text, LINE);
	}
	return n * LINE;
}

/* Writes lines from number `from` on without a pause, `at_once` of them a call. */
static pid_t start_writer(size_t from, size_t at_once)
{
	pid_t pid = fork();
	char block[65536];

	assert_true(pid >= 0);
	if (pid)
		return pid;
	for (;; from += at_once)
		if (write(pipe_fds[1], block, fill_lines(block, from, at_once)) < 0)
			_exit(1);
}

static void read_lines(size_t from, size_t n)
{
	static char got[65536], want[65536];

	for (size_t done = 0; done < n * LINE;) {
		size_t some = MIN(sizeof(got), n * LINE - done);
		ssize_t len = read(pipe_fds[0], got, some);

		assert_true(len > 0);
		fill_lines(want, from + done / LINE, sizeof(want) / LINE);
		assert_memory_equal(got, want + done % LINE, MIN((size_t)len, sizeof(want) - done % LINE));
		done += (size_t)len;
	}
}

/* What a relay has taken out, `kept` lines, comes back while the writer waits for room, or writes. */
static void give_back(size_t kept, size_t at_once)
{
	struct refill r = REFILL_INIT;
	static char taken[1 << 20];
	struct err e = ERR_INIT;
	int status, size;
	pid_t writer;

	assert_int_equal(pipe(pipe_fds), 0);
	size = fcntl(pipe_fds[0], F_GETPIPE_SZ);
	r.fd = pipe_fds[0];
	writer = start_writer(kept, at_once);
	refill_add(&r, taken, fill_lines(taken, 0, kept));
	assert_int_equal(refill_check_room(&r, &e), 0);
	assert_int_equal(refill_before(&r, &e), 0);
	read_lines(0, kept + 30000);
	assert_true(fcntl(pipe_fds[0], F_GETPIPE_SZ) >= size);
	assert_int_equal(kill(writer, SIGKILL), 0);
	assert_int_equal(waitpid(writer, &status, 0), writer);
	refill_free(&r);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void test_writer_without_a_pause(void **state)
{
	(void)state;
	for (int i = 0; i < TURNS; i++)
		give_back(1 + (size_t)i * 997 % 8000, i % 3 == 0 ? 1 : i % 3 == 1 ? 511 : 8192);
}

static void test_nobody_writes(void **state)
{
	struct refill r = REFILL_INIT;
	char lines[5 * LINE];
	struct err e = ERR_INIT;
	int left, size;

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	size = fcntl(pipe_fds[0], F_GETPIPE_SZ);
	r.fd = pipe_fds[0];
	assert_int_equal(refill_before(&r, &e), 0);
	fill_lines(lines, 0, 5);
	assert_int_equal(write(pipe_fds[1], lines + 2 * LINE, 3 * LINE), 3 * LINE);
	refill_add(&r, lines, 2 * LINE);
	assert_int_equal(refill_before(&r, &e), 0);
	read_lines(0, 5);
	assert_int_equal(ioctl(pipe_fds[0], FIONREAD, &left), 0);
	assert_int_equal(left, 0);
	assert_int_equal(fcntl(pipe_fds[0], F_GETPIPE_SZ), size);
	refill_free(&r);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = { cmocka_unit_test(test_nobody_writes), cmocka_unit_test(test_writer_without_a_pause) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
