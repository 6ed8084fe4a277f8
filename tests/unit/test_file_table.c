/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test_file_table.c - what a prepared read of a descriptor table shows is what one by one shows, whatever has happened to the table in between */
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kern/file_table.h"
#include "kern/restart_block.h"

#define MANY 2200 /* enough for several threads */
#define LOOKS 300
#define HIGH 3990
#define FAR 4095

static struct file_reader *reader;

/* A process that does something to its table each time it is told to, and then waits. */
struct child {
	pid_t pid;
	int to, from;
	struct file_watch *prepared;
	struct file_record *records;
	size_t room;
};

static void must(long result)
{
	if (result < 0)
		_exit(1);
}

static void make_table(void)
{
	struct itimerspec later = { .it_value.tv_sec = 1000 };
	struct sockaddr_in any = { .sin_family = AF_INET };
	int fd;

	for (int i = 0; i < MANY; i++)
		must(i % 4 ? open("/dev/null", i % 3 ? O_RDONLY : O_RDWR | O_CLOEXEC) : socket(AF_INET, SOCK_STREAM, 0));
	for (int i = 100; i < MANY; i += 7)
		close(i);
	must(dup2(1, 110));
	must(fcntl(111, F_SETFL, O_APPEND));
	must(fcntl(112, F_SETOWN, getpid()));
	must(fd = timerfd_create(CLOCK_MONOTONIC, 0));
	must(timerfd_settime(fd, 0, &later, NULL));
	must(fd = socket(AF_INET, SOCK_STREAM, 0));
	must(bind(fd, (const void *)&any, sizeof(any)));
	must(listen(fd, 3));
	must(socket(AF_INET6, SOCK_STREAM, 0));
	must(socket(AF_UNIX, SOCK_STREAM, 0));
	must(fd = open("/proc/self/exe", O_RDONLY));
	must(lseek(fd, 4711, SEEK_SET));
	must(fcntl(fd, F_SETLK, &(struct flock){ .l_type = F_RDLCK, .l_len = 1 }));
}

static void act(char what)
{
	switch (what) {
	case 'p': /* positions, flags, FD_CLOEXEC; a number less, another one, in a place that was free, one above all */
		must(lseek(open("/proc/self/exe", O_RDONLY), 99, SEEK_SET));
		must(fcntl(120, F_SETFL, O_NONBLOCK));
		must(fcntl(121, F_SETFD, FD_CLOEXEC));
		must(close(122));
		must(dup2(130, 131));
		break;
	case 'n': /* a few more, which the spare group has room for */
		for (int i = 0; i < 40; i++)
			must(fcntl(130, F_DUPFD, MANY));
		break;
	case 'h': /* far above the groups */
		must(dup2(1, HIGH));
		break;
	case 'f': /* and none between */
		must(close_range(200, HIGH - 1, 0));
		break;
	default:
		_exit(0);
	}
}

static void live(int from, int to)
{
	char what;

	make_table();
	do
		must(write(to, "", 1));
	while (read(from, &what, 1) == 1 && (act(what), true));
	_exit(0);
}

static void wait_done(struct child *c)
{
	char done;

	assert_int_equal(read(c->from, &done, 1), 1);
}

static void start(struct child *c)
{
	struct rlimit limit = { FAR + 1, FAR + 1 };
	int to[2], from[2];
	struct err e = ERR_INIT;

	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(pipe(to) | pipe(from), 0);
	*c = (struct child){ .pid = fork(), .to = to[1], .from = from[0] };
	if (!c->pid) {
		close(to[1]);
		close(from[0]);
		live(to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	wait_done(c);
	assert_int_equal(file_watch_open(reader, c->pid, &c->prepared, &e), 0);
}

static void end(struct child *c)
{
	close(c->to);
	waitpid(c->pid, NULL, 0);
	close(c->from);
	file_watch_close(c->prepared);
	free(c->records);
}

/* Reads it in both ways; returns the number of descriptors. */
static ssize_t compare(struct child *c, bool by_groups)
{
	struct file_record *records = NULL;
	struct file_watch *watch;
	struct err e = ERR_INIT;
	size_t room = 0;
	ssize_t n, prepared;

	assert_int_equal(file_watch_open(reader, c->pid, &watch, &e), 0);
	n = file_watch_read(watch, &records, &room, &e);
	assert_false(file_watch_was_by_groups(watch));
	prepared = file_watch_read(c->prepared, &c->records, &c->room, &e);
	assert_int_equal(file_watch_was_by_groups(c->prepared), by_groups);
	assert_true(n > 0);
	assert_int_equal(prepared, n);
	assert_memory_equal(c->records, records, (size_t)n * sizeof(*records));
	file_watch_close(watch);
	free(records);
	return n;
}

static void tell(struct child *c, char what)
{
	assert_int_equal(write(c->to, &what, 1), 1);
	wait_done(c);
}

static void test_same(void **state)
{
	struct child c;
	ssize_t n;

	(void)state;
	start(&c);
	compare(&c, false);
	file_watch_prepare(c.prepared);
	n = compare(&c, true);
	tell(&c, 'p');
	compare(&c, true);
	tell(&c, 'n');
	assert_int_equal(compare(&c, true), n + 40);
	file_watch_prepare(c.prepared);
	compare(&c, true);
	end(&c);
}

/* Numbers that no group is for are not overlooked. */
static void test_beyond(void **state)
{
	struct child c;

	(void)state;
	start(&c);
	compare(&c, false);
	file_watch_prepare(c.prepared);
	tell(&c, 'h');
	compare(&c, false);
	file_watch_prepare(c.prepared);
	compare(&c, true);
	tell(&c, 'f');
	compare(&c, true);
	/* Few and far between. */
	file_watch_prepare(c.prepared);
	assert_true(compare(&c, false) > 100);
	end(&c);
}

/* Reads again and again what does not change; returns how often it was different. */
static void *look_again(void *arg)
{
	struct child *c = arg;
	struct file_record *records = NULL;
	uintptr_t different = 0;
	struct err e = ERR_INIT;
	size_t room = 0;
	ssize_t first, n;

	first = file_watch_read(c->prepared, &c->records, &c->room, &e);
	for (int i = 0; i < LOOKS; i++) {
		n = file_watch_read(c->prepared, &records, &room, &e);
		different += first <= 0 || n != first || memcmp(records, c->records, (size_t)n * sizeof(*records)) != 0;
	}
	free(records);
	return (void *)different;
}

/* Two tables are read at once, as by two workers, and each by several threads. */
static void test_at_once(void **state)
{
	struct child c[2];
	pthread_t other;
	void *different;

	(void)state;
	for (int i = 0; i < 2; i++) {
		start(&c[i]);
		compare(&c[i], false);
		file_watch_prepare(c[i].prepared);
	}
	assert_int_equal(pthread_create(&other, NULL, look_again, &c[1]), 0);
	assert_null(look_again(&c[0]));
	assert_int_equal(pthread_join(other, &different), 0);
	assert_null(different);
	end(&c[1]); /* which has inherited what ends the other one */
	end(&c[0]);
}

static const struct file_record *record_of(struct child *c, int fd)
{
	struct err e = ERR_INIT;
	ssize_t n = file_watch_read(c->prepared, &c->records, &c->room, &e);

	for (ssize_t i = 0; i < n; i++)
		if (c->records[i].fd == (unsigned int)fd)
			return &c->records[i];
	return NULL;
}

static void set_entry(int ep, int how, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = { .events = events, .data.u64 = data };

	assert_int_equal(epoll_ctl(ep, how, fd, &event), 0);
}

/* The digest of a set of epoll is that of its entries, however they have got there. */
static void test_epoll(void **state)
{
	int to[2], ep = epoll_create1(0);
	uint64_t files[200], some = 0, expected = file_record_set(0, 0, 0);
	struct child c = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(pipe(to), 0);
	assert_int_equal(file_watch_open(reader, getpid(), &c.prepared, &e), 0);
	assert_true(file_watch_read(c.prepared, &c.records, &c.room, &e) > 0);
	file_watch_prepare(c.prepared);
	assert_int_equal(record_of(&c, ep)->digest, expected | 1);
	assert_int_equal(record_of(&c, to[0])->digest, 0);
	for (int i = 0; i < 200; i++) {
		int fd = fcntl(to[i & 1], F_DUPFD, 300 + (i * 77) % 200);

		set_entry(ep, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, (uint64_t)i << 40 | 3);
		files[i] = record_of(&c, to[i & 1])->file;
		expected += file_record_entry(files[i], (unsigned int)fd, EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLET, (uint64_t)i << 40 | 3);
		if (i % 50 != 49)
			continue;
		file_watch_prepare(c.prepared); /* for higher numbers */
		assert_int_equal(record_of(&c, ep)->digest, expected | 1);
		some = (uint64_t)fd;
	}
	set_entry(ep, EPOLL_CTL_MOD, (int)some, EPOLLIN, 199ull << 40 | 3);
	assert_int_not_equal(record_of(&c, ep)->digest, expected | 1);
	set_entry(ep, EPOLL_CTL_MOD, (int)some, EPOLLIN | EPOLLET, 199ull << 40 | 3);
	assert_int_equal(record_of(&c, ep)->digest, expected | 1);
	set_entry(ep, EPOLL_CTL_DEL, (int)some, 0, 0);
	assert_int_equal(record_of(&c, ep)->digest, (expected - file_record_entry(files[199], (unsigned int)some, EPOLLIN | EPOLLERR | EPOLLHUP | EPOLLET, 199ull << 40 | 3)) | 1);
	close_range(300, 600, 0);
	close(to[0]);
	close(to[1]);
	close(ep);
	file_watch_close(c.prepared);
	free(c.records);
}

/* A process that is gone has no descriptors, not those of an earlier read. */
static void test_gone(void **state)
{
	struct child c;
	struct err e = ERR_INIT;

	(void)state;
	start(&c);
	compare(&c, false);
	file_watch_prepare(c.prepared);
	kill(c.pid, SIGKILL);
	assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
	assert_true(file_watch_read(c.prepared, &c.records, &c.room, &e) <= 0);
	end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_same), cmocka_unit_test(test_beyond), cmocka_unit_test(test_at_once), cmocka_unit_test(test_epoll), cmocka_unit_test(test_gone) };
	struct err e = ERR_INIT;
	int ret;

	if (file_reader_load(&reader, &e) < 0) {
		struct restart_reader *other;

		print_message("no BPF here: %s\n", e.message);
		/* Where others can be loaded it is this program's own fault. */
		return restart_reader_load(&other, &e) == 0 ? 1 : 77;
	}
	ret = cmocka_run_group_tests(tests, NULL, NULL);
	file_reader_free(reader);
	return ret;
}
