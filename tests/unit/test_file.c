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
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include "base/util.h"
#include "file_move.h"

#define MUST(x)                                                  \
	({                                                       \
		int r_ = (int)(x);                               \
		if (r_ < 0)                                      \
			die(__LINE__, #x);                       \
		r_;                                              \
	})

static char dir[64];

static const char *in_dir(const char *name);

/* In the source: its descriptors are gone, so the words go to the terminal or the log that the parent has. */
static void die(int line, const char *what)
{
	char text[200];
	int n = snprintf(text, sizeof(text), "test_file.c:%d: %s: %s\n", line, what, strerror(errno)), fd = open(in_dir("died"),
		O_WRONLY | O_CREAT, 0600);

	if (write(fd, text, (size_t)n) < 0)
		abort();
	abort();
}

static int at(int fd, int wanted, int flags)
{
	if (fd == wanted) {
		fcntl(fd, F_SETFD, flags & O_CLOEXEC ? FD_CLOEXEC : 0);
		return fd;
	}
	MUST(dup3(fd, wanted, flags));
	close(fd);
	return wanted;
}

static const char *in_dir(const char *name)
{
	static char path[4][160];
	static int next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

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
		at(MUST(open(dir, O_TMPFILE | O_RDWR, 0600)), 12, 0);
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
	int pidfd = (int)syscall(SYS_pidfd_open, m->skeleton.pid, 0);

	assert_int_equal(fdtable_capture(m->skeleton.pid, pidfd, &t, &files, &refusals, NULL), 0);
	for (int round = 0; round < 2; round++) {
		fdtable_plan_release_locks(&t, &m->skeleton);
		if (round)
			fdtable_plan_retake_locks(&t, &m->skeleton);
		assert_int_equal(batch_run(&m->skeleton, NULL), 0);
		batch_reset(&m->skeleton);
		if (!round) {
			struct fdtable now = FDTABLE_INIT;

			assert_int_equal(fdtable_capture(m->skeleton.pid, pidfd, &now, &files, &refusals, NULL), 0);
			assert_int_equal(now.msg->n_locks, 0);
			fdtable_free(&now);
		}
	}
	assert_int_equal(fdtable_recapture(&t, &files, &refusals, NULL), 0);
	assert_int_equal(t.msg->n_locks, 4);
	fdtable_free(&t);
	fsfile_table_free(&files);
	close(pidfd);
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

static int outside[2];

static void refused_phase(int phase)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(16381), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	if (phase != 0)
		return;
	/* Connected to itself. */
	MUST(socket(AF_INET, SOCK_DGRAM, 0));
	MUST(bind(0, (void *)&in, sizeof(in)));
	MUST(connect(0, (void *)&in, sizeof(in)));
	in.sin_port = htons(16382);
	MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(bind(1, (void *)&in, sizeof(in)));
	MUST(listen(1, 5));
	MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(2, (void *)&in, sizeof(in)));
	MUST(syscall(SYS_inotify_init1, 0));
	MUST(open("/proc/self/status", O_RDONLY));
	MUST(syscall(SYS_pidfd_open, getpid(), 0));
	MUST(open("/dev/ptmx", O_RDWR | O_NOCTTY));
	MUST(open("/dev/tty0", O_PATH) < 0 ? 0 : 0);
	MUST(open("/sys/kernel", O_RDONLY));
	MUST(socket(AF_NETLINK, SOCK_RAW, 0));
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
	if (fdtable_capture(s.pid, s.pidfd, &t, &files, &refusals, &e) < 0)
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
	static const char *const codes[] = { "fd.socket.udp.connected", "fd.socket.accept-queue", "fd.socket.tcp.established",
		"fd.inotify", "fd.proc", "fd.pidfd", "fd.tty", "fd.sysfs",
		"fd.socket.other" };

	(void)state;
	expect_refusals(refused_phase, codes, ARRAY_SIZE(codes));
}

static void outside_phase(int phase)
{
	char path[64];

	if (phase)
		return;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getppid(), outside[1]);
	MUST(open(path, O_WRONLY));
}

static void test_outside_pipe(void **state)
{
	static const char *const codes[] = { "fd.pipe.outside" };

	(void)state;
	assert_int_equal(pipe2(outside, O_CLOEXEC), 0);
	expect_refusals(outside_phase, codes, 1);
	close(outside[0]);
	close(outside[1]);
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
	print_message("8,500 descriptors, 400 changed: recapture %lu us, update %lu us\n", (unsigned long)m.recapture_ns / 1000,
		(unsigned long)m.update_ns / 1000);
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
	print_message("5 descriptors: recapture %lu us, update %lu us\n", (unsigned long)m.recapture_ns / 1000,
		(unsigned long)m.update_ns / 1000);
	file_move_compare(&m);
	file_move_end(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_few), cmocka_unit_test(test_files), cmocka_unit_test(test_pipes),
			cmocka_unit_test(test_pairs), cmocka_unit_test(test_events),
		cmocka_unit_test(test_epoll), cmocka_unit_test(test_locks), cmocka_unit_test(test_owner), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_outside_pipe), cmocka_unit_test(test_many), cmocka_unit_test(test_listen),
	};
	char command[100];
	int r;

	strcpy(dir, "/var/tmp/godwit-test-file-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) == 0 ? r : 1;
}
