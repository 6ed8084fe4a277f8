/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_file.c - descriptor tables move from a child into a skeleton: every kind, changes between offer and freeze, many numbers */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include "base/util.h"
#include "file_move.h"
#include "image/dir_position.h"
#include "file_phase.h"
#include "image/relay.h"

static void files_phase(int phase)
{
	if (phase == 0) {
		at(MUST(open("/dev/null", O_RDWR)), 0, 0);
		MUST(dup(0));
		at(MUST(open(in_dir("log"), O_RDWR | O_CREAT | O_APPEND, 0600)), 2, 0);
		at(MUST(open(in_dir("data"), O_RDWR | O_CREAT, 0600)), 5, O_CLOEXEC);
		MUST(write(5, "0123456789", 10));
		MUST(dup2(5, 900));
		at(MUST(open(in_dir("data"), O_RDONLY | O_NONBLOCK)), 6, 0);
		at(MUST(open(in_dir("gone"), O_RDWR | O_CREAT, 0600)), 7, 0);
		MUST(write(7, "abc", 3));
		MUST(unlink(in_dir("gone")));
		at(MUST(open("/", O_RDONLY | O_DIRECTORY)), 8, O_CLOEXEC);
		at(MUST(open("/usr", O_PATH)), 9, 0);
		at(MUST(memfd_create("m", 0)), 10, 0);
		at(MUST(open("/dev/urandom", O_RDONLY)), 11, 0);
		at(MUST(open(phase_directory, O_TMPFILE | O_RDWR, 0600)), 12, 0);
	} else if (phase == 1) {
		char entries[200];

		MUST(lseek(5, 3, SEEK_SET));
		MUST(syscall(SYS_getdents64, 8, entries, sizeof(entries)));
		MUST(fcntl(2, F_SETFL, O_NONBLOCK));
		MUST(close(1));
		MUST(fcntl(0, F_SETFD, FD_CLOEXEC));
		/* Numbers change hands. */
		at(MUST(dup(6)), 20, 0);
		MUST(dup2(7, 6));
		at(MUST(dup(20)), 7, O_CLOEXEC);
		/* The lowest unused one, where the transfer socket is likely to be. */
		at(MUST(open(in_dir("log"), O_WRONLY)), 1, 0);
		at(MUST(open(in_dir("log"), O_WRONLY)), 3, 0);
		at(MUST(open(in_dir("log"), O_RDONLY)), 1500, 0);
		MUST(close(900));
	}
}

static void test_files(void **state)
{
	struct file_move m;

	(void)state;
	file_move_run(&m, files_phase, NULL);
	file_move_compare(&m);
	file_move_end(&m);
}

static void pipes_phase(int phase)
{
	int p[2];
	static char block[40000];

	if (phase == 0) {
		MUST(pipe(p)); /* 0, 1 */
		MUST(write(1, "hello", 5));
		MUST(pipe2(p, O_DIRECT | O_NONBLOCK)); /* 2, 3 */
		MUST(write(3, "first", 5));
		MUST(write(3, "second!", 7));
		MUST(pipe(p)); /* 4, 5: no writer any more */
		MUST(write(5, "end", 3));
		MUST(close(5));
		MUST(pipe(p)); /* 5, 6: no reader any more */
		MUST(close(5));
		MUST(dup2(1, 800));
		MUST(pipe(p)); /* 5, 7: full */
		for (size_t i = 0; i < sizeof(block); i++)
			block[i] = (char)(i * 7);
		MUST(write(7, block, sizeof(block)));
		MUST(mkfifo(in_dir("fifo"), 0600));
		at(MUST(open(in_dir("fifo"), O_RDWR)), 50, 0);
		at(MUST(open(in_dir("fifo"), O_WRONLY)), 51, O_CLOEXEC);
		MUST(write(51, "fifo", 4));
	} else if (phase == 1) {
		MUST(read(0, block, 2));
		MUST(write(1, "more", 4));
		MUST(read(2, block, 100));
		MUST(pipe2(p, O_CLOEXEC));
		MUST(write(p[1], "new", 3));
		MUST(fcntl(p[1], F_SETPIPE_SZ, 8192));
	}
}

static void test_pipes(void **state)
{
	struct file_move m;
	char text[64];
	int fd;

	(void)state;
	file_move_run(&m, pipes_phase, NULL);
	file_move_compare(&m);
	/* With the worker's copies gone, the one without writers ends. */
	fdtable_free(&m.table);
	fd = file_move_get(&m, 4);
	assert_int_equal(read(fd, text, sizeof(text)), 3);
	assert_int_equal(read(fd, text, sizeof(text)), 0);
	close(fd);
	file_move_end(&m);
}

static void events_phase(int phase)
{
	sigset_t set;
	uint64_t n;
	struct itimerspec soon = { .it_value = { 0, 1000 } }, periodic = { { 50, 0 }, { 50, 0 } },
		absolute = { .it_value = { 4000000000, 5 } };

	if (phase == 0) {
		MUST(eventfd(7, EFD_NONBLOCK));
		MUST(eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC));
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		MUST(signalfd(-1, &set, 0)); /* 2 */
		MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)); /* 3: disarmed */
		MUST(timerfd_create(CLOCK_MONOTONIC, 0)); /* 4: expired */
		MUST(timerfd_settime(4, 0, &soon, NULL));
		MUST(poll(&(struct pollfd){ .fd = 4, .events = POLLIN }, 1, 1000));
		MUST(timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC)); /* 5 */
		MUST(timerfd_settime(5, 0, &periodic, NULL));
		MUST(timerfd_create(CLOCK_REALTIME, 0)); /* 6 */
		MUST(timerfd_settime(6, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &absolute, NULL));
		MUST(timerfd_create(CLOCK_REALTIME, 0)); /* 7 */
		MUST(timerfd_settime(7, 0, &periodic, NULL));
	} else if (phase == 1) {
		n = 3;
		MUST(write(1, &n, 8));
		MUST(read(0, &n, 8));
		n = 0xfffffffffffffffe;
		MUST(write(0, &n, 8));
		sigemptyset(&set);
		sigaddset(&set, SIGHUP);
		MUST(signalfd(2, &set, 0));
		periodic.it_interval.tv_nsec = 77;
		MUST(timerfd_settime(3, 0, &periodic, NULL));
		MUST(eventfd(9, 0));
	}
}

static void test_events(void **state)
{
	struct file_move m;

	(void)state;
	file_move_run(&m, events_phase, NULL);
	file_move_compare(&m);
	file_move_end(&m);
}

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event ev = { .events = events, .data.u64 = data };

	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
}

static void epoll_phase(int phase)
{
	struct epoll_event ev = { .events = EPOLLOUT, .data.u64 = 99 };
	int p[2];

	if (phase == 0) {
		MUST(epoll_create1(EPOLL_CLOEXEC)); /* 0 */
		MUST(pipe(p)); /* 1, 2 */
		for (int i = 3; i < 9; i++)
			MUST(eventfd(0, 0));
		add(0, 1, EPOLLIN | EPOLLET, 0x1122334455667788);
		for (int i = 3; i < 9; i++)
			add(0, i, EPOLLIN, (uint64_t)i);
		/* 4 is known by a number that is closed, 5 by one that is something else. */
		MUST(dup2(4, 40));
		MUST(close(4));
		MUST(dup2(5, 41));
		MUST(dup2(6, 5));
		add(0, 5, EPOLLIN | EPOLLONESHOT, 55);
		MUST(at(epoll_create1(0), 50, 0));
		add(50, 0, EPOLLIN, 1);
		MUST(at(epoll_create1(0), 51, 0));
		add(51, 7, EPOLLIN | EPOLLEXCLUSIVE, 7);
	} else if (phase == 1) {
		MUST(epoll_ctl(0, EPOLL_CTL_MOD, 3, &ev));
		MUST(epoll_ctl(0, EPOLL_CTL_DEL, 8, &ev));
		MUST(epoll_ctl(51, EPOLL_CTL_DEL, 7, &ev));
		MUST(close(7)); /* leaves the set with the description */
		at(MUST(eventfd(0, 0)), 7, 0);
		add(0, 7, EPOLLIN, 7); /* the same words as before, another description */
		add(51, 7, EPOLLIN | EPOLLEXCLUSIVE, 8);
		at(MUST(eventfd(1, 0)), 60, 0);
		add(0, 60, EPOLLIN, 60);
		MUST(dup2(60, 61));
		MUST(close(60));
		at(MUST(epoll_create1(0)), 70, 0);
		add(70, 0, EPOLLIN, 70);
	}
}

static void test_epoll(void **state)
{
	struct epoll_event ev[4];
	struct file_move m;
	int fd;

	(void)state;
	file_move_run(&m, epoll_phase, NULL);
	file_move_compare(&m);
	fd = file_move_get(&m, 0);
	/* 3 is ready for output, 60 for input. */
	assert_int_equal(epoll_wait(fd, ev, 4, 0), 2);
	close(fd);
	file_move_end(&m);
}

static void locks_phase(int phase)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5 };

	if (phase == 0) {
		MUST(open(in_dir("a"), O_RDWR | O_CREAT, 0600));
		MUST(open(in_dir("b"), O_RDWR | O_CREAT, 0600));
		MUST(open(in_dir("a"), O_RDONLY));
		MUST(fcntl(0, F_SETLK, &l));
		l.l_start = 100;
		l.l_len = 0;
		l.l_type = F_RDLCK;
		MUST(fcntl(0, F_SETLK, &l));
		MUST(flock(1, LOCK_EX));
		MUST(open(in_dir("c"), O_RDWR | O_CREAT, 0600));
		l.l_pid = 0;
		MUST(fcntl(3, F_OFD_SETLK, &l));
	} else if (phase == 2) {
		l.l_type = F_UNLCK;
		l.l_start = l.l_len = 0;
		MUST(fcntl(0, F_SETLK, &l));
		MUST(fcntl(3, F_OFD_SETLK, &l));
		MUST(flock(1, LOCK_UN));
	}
}

/* In the skeleton, as the source does with its own threads. */
static void release_and_retake(struct file_move *m)
{
	struct fdtable t = FDTABLE_INIT;
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct fd_process p = { m->skeleton[0].pid, (int)syscall(SYS_pidfd_open, m->skeleton[0].pid, 0) };

	file_capture_all(&p, 1, &t, &files);
	for (int round = 0; round < 2; round++) {
		fdtable_plan_release_locks(&t, 0, &m->skeleton[0]);
		if (round)
			fdtable_plan_retake_locks(&t, 0, &m->skeleton[0]);
		assert_int_equal(batch_run(&m->skeleton[0], NULL), 0);
		batch_reset(&m->skeleton[0]);
		if (!round) {
			struct fdtable now = FDTABLE_INIT;

			file_capture_all(&p, 1, &now, &files);
			assert_int_equal(now.msg->n_locks, 0);
			fdtable_free(&now);
		}
	}
	assert_int_equal(fdtable_recapture(&t, true, &files, &refusals, NULL), 0);
	assert_int_equal(t.msg->n_locks, 4);
	fdtable_free(&t);
	fsfile_table_free(&files);
	close(p.pidfd);
}

static void test_locks(void **state)
{
	struct file_move m;

	(void)state;
	file_move_run(&m, locks_phase, NULL);
	assert_int_equal(m.table.msg->n_locks, 4);
	file_move_compare(&m);
	release_and_retake(&m);
	file_move_end(&m);
}

static void other_network(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	assert_int_equal(unshare(CLONE_NEWNET), 0);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	close(fd);
}

static void listen_phase(int phase)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(16379), .sin_addr.s_addr = htonl(INADDR_ANY) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(16379) };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int on = 1;

	if (phase != 0)
		return;
	MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	MUST(setsockopt(0, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
	MUST(setsockopt(0, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	MUST(bind(0, (void *)&in, sizeof(in)));
	MUST(listen(0, 511));
	MUST(socket(AF_INET6, SOCK_STREAM, 0));
	MUST(setsockopt(1, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)));
	MUST(bind(1, (void *)&in6, sizeof(in6)));
	MUST(listen(1, 17));
	MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	strcpy(un.sun_path, in_dir("sock"));
	MUST(bind(2, (void *)&un, sizeof(un)));
	MUST(listen(2, 5));
	MUST(socket(AF_INET, SOCK_DGRAM, 0));
	MUST(bind(3, (void *)&in, sizeof(in)));
	MUST(socket(AF_INET, SOCK_STREAM, 0));
	in.sin_port = htons(16380);
	in.sin_addr.s_addr = htonl(0x0a4d0001); /* not in the other network */
	on = 1;
	MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(setsockopt(5, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on)));
	MUST(bind(5, (void *)&in, sizeof(in)));
	MUST(listen(5, 1));
	MUST(epoll_create1(0));
	add(6, 0, EPOLLIN, 1);
	add(6, 2, EPOLLIN, 2);
}

static void test_listen(void **state)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(16379), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct file_move m;
	int fd, client, accepted;
	char aside[200];

	(void)state;
	other_network();
	file_move_run(&m, listen_phase, other_network);
	file_move_compare(&m);
	snprintf(aside, sizeof(aside), "%s.godwit-%d", in_dir("sock"), getpid());
	assert_int_equal(access(in_dir("sock"), F_OK), 0);
	assert_int_equal(access(aside, F_OK), -1);
	fd = file_move_get(&m, 0);
	client = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(client, (void *)&in, sizeof(in)), 0);
	accepted = accept(fd, NULL, NULL);
	assert_true(accepted >= 0);
	close(accepted);
	close(client);
	close(fd);
	file_move_end(&m);
}

static void owner_phase(int phase)
{
	int p[2];

	if (phase == 0) {
		signal(SIGIO, SIG_IGN);
		MUST(pipe(p));
		MUST(fcntl(0, F_SETOWN, getpid()));
		MUST(fcntl(0, F_SETSIG, SIGIO));
		MUST(fcntl(0, F_SETFL, O_ASYNC | O_NONBLOCK));
	}
}

static void test_owner(void **state)
{
	struct file_move m;

	(void)state;
	file_move_run(&m, owner_phase, NULL);
	file_move_compare(&m);
	file_move_end(&m);
}

static void pairs_phase(int phase)
{
	char block[64];
	int p[2];

	if (phase == 0) {
		MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p)); /* 0, 1 */
		MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p)); /* 2, 3 */
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p)); /* 4, 5 */
		MUST(write(5, "last words", 10));
		MUST(close(5));
		MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, p)); /* 5, 6 */
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p)); /* 7, 8 */
		MUST(write(0, "before", 6));
		MUST(epoll_create1(0)); /* 9 */
		add(9, 1, EPOLLIN, 1);
	} else if (phase == 1) {
		MUST(write(0, "after", 5));
		MUST(write(1, "back", 4));
		MUST(read(1, block, 2));
		MUST(write(2, "one", 3));
		MUST(write(2, "three", 5));
		MUST(write(6, "datagram", 8));
		MUST(shutdown(1, SHUT_WR));
		MUST(write(8, "x", 1));
		MUST(close(8));
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p)); /* 8, 10 */
		MUST(write(10, "new", 3));
	}
}

static void test_pairs(void **state)
{
	struct file_move m;
	char text[64];
	int fd;

	(void)state;
	file_move_run(&m, pairs_phase, NULL);
	file_move_compare(&m);
	fd = file_move_get(&m, 4);
	assert_int_equal(read(fd, text, sizeof(text)), 10);
	assert_int_equal(read(fd, text, sizeof(text)), 0);
	close(fd);
	fd = file_move_get(&m, 1);
	assert_int_equal(read(fd, text, sizeof(text)), 9);
	assert_memory_equal(text, "foreafter", 9);
	close(fd);
	fd = file_move_get(&m, 3);
	assert_int_equal(read(fd, text, sizeof(text)), 3);
	assert_int_equal(read(fd, text, sizeof(text)), 5);
	close(fd);
	fd = file_move_get(&m, 7);
	assert_int_equal(read(fd, text, sizeof(text)), 1);
	assert_int_equal(read(fd, text, sizeof(text)), 0);
	close(fd);
	fd = file_move_get(&m, 8);
	assert_int_equal(read(fd, text, sizeof(text)), 3);
	close(fd);
	file_move_end(&m);
}

/* --- positions in directories --- */

static void fill_directory(const char *path, int n)
{
	char name[200];

	assert_int_equal(mkdir(path, 0700), 0);
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/entry-%d", path, i);
		close(MUST(open(name, O_CREAT | O_WRONLY, 0600)));
	}
}

static void remove_directory(const char *path, int n)
{
	char name[200];

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/entry-%d", path, i);
		unlink(name);
	}
	rmdir(path);
}

/* The names that are left to be read. */
static size_t read_names(int fd, char *to, size_t size)
{
	_Alignas(8) char buffer[4096];
	size_t n = 0;
	long len;

	while ((len = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0)
		for (long at = 0; at < len; at += *(unsigned short *)(buffer + at + 16))
			n += (size_t)snprintf(to + n, size - n, "%s\n", buffer + at + 19);
	return n;
}

static void test_directory_elsewhere(void **state)
{
	Gw__FdDesc d = GW__FD_DESC__INIT;
	char path[64], left[4096], left_there[4096];
	_Alignas(8) char some[400];
	struct err e = ERR_INIT;
	int from, to;

	(void)state;
	snprintf(path, sizeof(path), "/dev/shm/godwit-test-%d", getpid());
	fill_directory(path, 20);
	from = MUST(open(path, O_RDONLY | O_DIRECTORY));
	assert_true(syscall(SYS_getdents64, from, some, sizeof(some)) > 0);
	d.kind = GW__FD_KIND__FD_DIRECTORY;
	d.path = path;
	d.position = lseek(from, 0, SEEK_CUR);
	assert_int_equal(dir_position_capture(from, &d, &e), 0);
	assert_true(d.directory->known && d.directory->read > 0 && d.directory->read < d.directory->entries);
	/* The very directory. */
	to = MUST(open(path, O_RDONLY | O_DIRECTORY));
	assert_int_equal(dir_position_set(&d, to, &e), 0);
	assert_int_equal(lseek(to, 0, SEEK_CUR), d.position);
	/* One that is like it. */
	d.directory->ino++;
	assert_int_equal(lseek(to, 0, SEEK_SET), 0);
	assert_int_equal(dir_position_set(&d, to, &e), 0);
	read_names(from, left, sizeof(left));
	read_names(to, left_there, sizeof(left_there));
	assert_string_equal(left, left_there);
	close(to);
	/* One that is not. */
	remove_directory(path, 7);
	to = MUST(open(path, O_RDONLY | O_DIRECTORY));
	assert_int_equal(dir_position_set(&d, to, &e), -EAGAIN);
	close(to);
	close(from);
	remove_directory(path, 20);
	gw__fd_directory__free_unpacked(d.directory, NULL);
}

static int outside[2];

static char terminals[2][32]; /* whose masters are this program's: one could be relayed */

static pid_t outsider;

static void refused_phase(int phase)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(16381), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char path[64];

	if (phase != 0)
		return;
	/* Connected to nobody here. */
	MUST(socket(AF_INET, SOCK_DGRAM, 0));
	MUST(connect(0, (void *)&in, sizeof(in)));
	snprintf(path, sizeof(path), "/proc/%d/status", outsider);
	MUST(open(path, O_RDONLY));
	MUST(syscall(SYS_pidfd_open, getppid(), 0));
	MUST(open(terminals[0], O_RDWR | O_NOCTTY));
	MUST(open(terminals[1], O_RDWR | O_NOCTTY));
	MUST(open("/dev/tty0", O_PATH) < 0 ? 0 : 0);
	MUST(socket(AF_VSOCK, SOCK_STREAM, 0));
}

static void expect_refusals(void (*phase)(int), const char *const *codes, size_t n)
{
	struct file_source s;
	struct fdtable t = FDTABLE_INIT;
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;

	file_source_start(&s, phase);
	file_source_phase(&s, 0);
	if (fdtable_capture(&(struct fd_process){ s.pid, s.pidfd }, 1, &t, &files, &refusals, &e) < 0)
		fail_msg("%s", e.message);
	for (size_t i = 0; i < n; i++) {
		bool found = false;

		for (size_t j = 0; j < refusals.n; j++)
			found = found || !strcmp(refusals.v[j].code, codes[i]);
		if (!found)
			fail_msg("%s is missing in: %s", codes[i], refusals_text(&refusals));
	}
	assert_int_equal(refusals.n, n);
	refusals_free(&refusals);
	fdtable_free(&t);
	fsfile_table_free(&files);
	file_source_end(&s);
}

static void test_refused(void **state)
{
	static const char *const codes[] = { "fd.socket.udp.connected", "fd.proc", "fd.pidfd", "fd.tty", "fd.socket.family.40" };

	(void)state;
	for (int i = 0; i < 2; i++) {
		int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), zero = 0;

		assert_true(master >= 0 && ioctl(master, TIOCSPTLCK, &zero) == 0 && ptsname_r(master, terminals[i], sizeof(terminals[i])) == 0);
	}
	outsider = fork();
	if (!outsider) {
		pause();
		_exit(0);
	}
	expect_refusals(refused_phase, codes, ARRAY_SIZE(codes));
	kill(outsider, SIGKILL);
	assert_int_equal(waitpid(outsider, NULL, 0), outsider);
}

static void outside_phase(int phase)
{
	char path[64];

	if (phase)
		return;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getppid(), outside[1]);
	MUST(open(path, O_WRONLY));
}

/* With one kind of end only it is relayed. */
static void test_outside_pipe(void **state)
{
	struct file_source s;
	struct fdtable t = FDTABLE_INIT;
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct fd_relays relays;

	(void)state;
	assert_int_equal(pipe2(outside, O_CLOEXEC), 0);
	file_source_start(&s, outside_phase);
	file_source_phase(&s, 0);
	assert_int_equal(fdtable_capture(&(struct fd_process){ s.pid, s.pidfd }, 1, &t, &files, &refusals, NULL), 0);
	assert_int_equal(refusals.n, 0);
	assert_int_equal(fdtable_list_relays(&t, &relays, NULL), 0);
	assert_int_equal(relays.n, 1);
	assert_int_equal(relays.v[0].kind, RELAY_UNIT_WRITES);
	fd_relays_free(&relays);
	fdtable_free(&t);
	fsfile_table_free(&files);
	file_source_end(&s);
	close(outside[0]);
	close(outside[1]);
}

static void print_times(const char *what, const struct file_move *m)
{
	print_message("%s: recapture %lu us, over the wire (%zu bytes) %lu us, update %lu us\n", what, (unsigned long)m->recapture_ns / 1000,
		m->update_bytes, (unsigned long)m->wire_ns / 1000, (unsigned long)m->update_ns / 1000);
}

static void many_phase(int phase)
{
	if (phase == 0)
		for (int i = 0; i < 8500; i++)
			MUST(open(i % 2 ? "/dev/null" : "/dev/zero", O_RDWR | (i % 3 ? O_CLOEXEC : 0)));
	else if (phase == 1)
		for (int i = 0; i < 400; i++)
			MUST(dup2(5000, 1000 + 2 * i));
}

static void test_many(void **state)
{
	struct file_move m;

	(void)state;
	file_move_run(&m, many_phase, NULL);
	print_times("8,500 descriptors, 400 changed", &m);
	file_move_compare(&m);
	file_move_end(&m);
}

#define PLAIN 8500 /* the test holds them twice, and may hold 20,000 */

static void plain_phase(int phase)
{
	if (phase == 0)
		for (int i = 0; i < PLAIN; i++)
			MUST(open(in_dir("plain"), O_RDWR | O_CREAT, 0600));
	else if (phase == 1)
		for (int i = 0; i < PLAIN; i += 100)
			MUST(lseek(i, i, SEEK_SET));
}

static void test_plain(void **state)
{
	struct file_move m;

	(void)state;
	file_move_run(&m, plain_phase, NULL);
	print_times("8,500 descriptors, the position of 85 changed", &m);
	if (file_move_reader) /* the others do not travel in the freeze */
		assert_in_range(m.update_bytes, 85, 40 * 85);
	file_move_compare(&m);
	file_move_end(&m);
}

static void few_phase(int phase)
{
	if (phase == 0) {
		for (int i = 0; i < 3; i++)
			MUST(open("/dev/null", O_RDWR));
		MUST(open(in_dir("data"), O_RDWR | O_CREAT, 0600));
		MUST(eventfd(0, 0));
	} else if (phase == 1) {
		MUST(lseek(3, 2, SEEK_SET));
	}
}

static void test_few(void **state)
{
	struct file_move m;

	(void)state;
	file_move_run(&m, few_phase, NULL);
	print_times("5 descriptors", &m);
	file_move_compare(&m);
	file_move_end(&m);
}

/* The same lock at each even phase, none at each odd one. */
static void lock_again_phase(int phase)
{
	struct flock l = { .l_type = phase % 2 ? F_UNLCK : F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5 };

	if (phase == 0)
		MUST(open(in_dir("again"), O_RDWR | O_CREAT, 0600));
	MUST(fcntl(0, F_SETLK, &l));
}

/* A lock that is given up between two looks, and taken again before the next, looks as it did at first. */
static void test_lock_again(void **state)
{
	struct fdtable t = FDTABLE_INIT;
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct file_source source;
	struct fd_process p;

	(void)state;
	file_source_start(&source, lock_again_phase);
	file_source_phase(&source, 0);
	p = (struct fd_process){ source.pid, source.pidfd };
	file_capture_all(&p, 1, &t, &files);
	assert_int_equal(t.msg->n_locks, 1);
	for (int phase = 1; phase < 5; phase++) {
		file_source_phase(&source, phase);
		assert_int_equal(fdtable_recapture(&t, phase == 4, &files, &refusals, NULL), 0);
		assert_int_equal(t.msg->n_locks, phase % 2 ? 0 : 1);
	}
	fdtable_free(&t);
	fsfile_table_free(&files);
	file_source_end(&source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_few), cmocka_unit_test(test_files), cmocka_unit_test(test_pipes),
			cmocka_unit_test(test_pairs), cmocka_unit_test(test_events),
		cmocka_unit_test(test_epoll), cmocka_unit_test(test_locks), cmocka_unit_test(test_lock_again), cmocka_unit_test(test_owner), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_directory_elsewhere),
		cmocka_unit_test(test_outside_pipe), cmocka_unit_test(test_many), cmocka_unit_test(test_plain), cmocka_unit_test(test_listen),
	};

	return file_move_main(tests);
}
