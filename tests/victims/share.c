// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * share.c - victims of several processes: descriptions and tables that they share, pipes and sockets between them, their locks
 *
 * A helper is a forked process that waits for a command (a number), runs its part of the victim and answers with what differs.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17
#endif

#include "victim.h"

#define WORDS 512

struct helper {
	pid_t pid;
	int wire;
};

static struct helper helpers[3];

static _Noreturn void serve(int wire, void (*part)(int command))
{
	char command;

	while (recv(wire, &command, 1, 0) == 1) {
		part(command);
		if (send(wire, failure(), strlen(failure()) + 1, MSG_NOSIGNAL) < 0)
			break;
	}
	_exit(0);
}

/* Forks a helper (flags: CLONE_FILES, or 0). With `part` it serves commands, else it runs `loop`. */
static void start(struct helper *h, unsigned long flags, void (*part)(int command), void (*loop)(void))
{
	int wire[2];

	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, wire));
	h->pid = (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
	must(h->pid >= 0);
	if (h->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!(flags & CLONE_FILES))
			close(wire[0]);
		if (part)
			serve(wire[1], part);
		loop();
		_exit(0);
	}
	if (!(flags & CLONE_FILES))
		close(wire[1]);
	h->wire = wire[0];
}

/* Has a helper run its part, and takes over what it found. */
static void tell(struct helper *h, char command)
{
	char text[2000] = "";
	ssize_t n;

	if (send(h->wire, &command, 1, MSG_NOSIGNAL) != 1) {
		fail("sending to the helper %d: errno %d", (int)h->pid, errno);
		return;
	}
	do {
		n = recv(h->wire, text, sizeof(text) - 1, 0);
	} while (n < 0 && errno == EINTR); /* by the signal with which the check begins */
	if (n <= 0)
		fail("the helper %d does not answer: %zd, errno %d", (int)h->pid, n, errno);
	else if (text[0])
		fail("helper %d: %s", (int)h->pid, text);
}

static void finish(struct helper *h)
{
	int status = -1;

	close(h->wire);
	kill(h->pid, SIGKILL);
	expect_u64("the helper that ends", (uint64_t)h->pid, (uint64_t)waitpid(h->pid, &status, 0));
}

/* ---- one description, one offset ---- */

static int data_fd, log_fd, other_fd, own_fd;
static char path_of_data[4200];

static void offset_part(int command)
{
	char c[4] = "";

	switch (command) {
	case 0:
		own_fd = open(path_of_data, O_RDONLY | O_CLOEXEC);
		must(own_fd >= 0 && lseek(own_fd, 3, SEEK_SET) == 3);
		break;
	case 1:
		expect_u64("position set by the parent", 7, (uint64_t)lseek(data_fd, 0, SEEK_CUR));
		expect(read(data_fd, c, 2) == 2 && c[0] == '7');
		expect(!(fcntl(log_fd, F_GETFL) & O_NONBLOCK));
		expect(!fcntl(log_fd, F_SETFL, O_APPEND | O_NONBLOCK));
		expect(lseek(other_fd, 5, SEEK_SET) == 5);
		break;
	case 2:
		expect_u64("position of its own description", 3, (uint64_t)lseek(own_fd, 0, SEEK_CUR));
		break;
	}
}

static void offset_setup(void)
{
	snprintf(path_of_data, sizeof(path_of_data), "%s", beside("data"));
	data_fd = open(path_of_data, O_RDWR | O_CREAT, 0600);
	must(data_fd >= 0 && write(data_fd, "0123456789", 10) == 10);
	log_fd = open(beside("log"), O_WRONLY | O_CREAT | O_APPEND, 0600);
	other_fd = open(path_of_data, O_RDONLY);
	must(log_fd >= 0 && other_fd >= 0);
	start(&helpers[0], 0, offset_part, NULL);
	tell(&helpers[0], 0);
	must(lseek(data_fd, 7, SEEK_SET) == 7);
}

static void offset_check(void)
{
	expect_u64("position", 7, (uint64_t)lseek(data_fd, 0, SEEK_CUR));
	tell(&helpers[0], 1);
	expect_u64("position after the child has read", 9, (uint64_t)lseek(data_fd, 0, SEEK_CUR));
	expect(fcntl(log_fd, F_GETFL) & O_NONBLOCK);
	expect_u64("position that the child set", 5, (uint64_t)lseek(other_fd, 0, SEEK_CUR));
	expect(lseek(other_fd, 6, SEEK_SET) == 6);
	tell(&helpers[0], 2);
	finish(&helpers[0]);
}

VICTIM(share_offset, 0, offset_setup, NULL, offset_check);

/* ---- a pipeline, as a shell makes it ---- */

static int stream[2][2];

static void producer(void)
{
	uint64_t w[WORDS], n = 0;

	close(stream[0][0]);
	close(stream[1][0]);
	close(stream[1][1]);
	for (;;) {
		size_t len = 8 * (1 + n % WORDS), done = 0;

		for (size_t i = 0; i < len / 8; i++)
			w[i] = mix(n++);
		while (done < len) {
			ssize_t got = write(stream[0][1], (char *)w + done, len - done);

			if (got < 0)
				_exit(10 + (errno != EPIPE));
			done += (size_t)got;
		}
	}
}

static void filter(void)
{
	uint64_t w;

	close(stream[0][1]);
	close(stream[1][0]);
	for (;;) {
		ssize_t got = read(stream[0][0], &w, 8);

		if (got <= 0)
			_exit(got == 0 ? 20 : 21);
		w++;
		if (got != 8 || write(stream[1][1], &w, 8) != 8)
			_exit(22);
	}
}

static uint64_t consumed;

static void pipeline_setup(void)
{
	must(!pipe(stream[0]) && !pipe(stream[1]));
	signal(SIGPIPE, SIG_IGN);
	start(&helpers[0], 0, NULL, producer);
	start(&helpers[1], 0, NULL, filter);
	close(stream[0][0]);
	close(stream[0][1]);
	close(stream[1][1]);
}

static void pipeline_work(void)
{
	uint64_t w[64];
	ssize_t n = read(stream[1][0], w, sizeof(w));

	if (n <= 0 || n % 8) {
		fail("the end of the pipeline: %zd, errno %d", n, errno);
		return;
	}
	for (ssize_t i = 0; i < n / 8; i++, consumed++)
		if (w[i] != mix(consumed) + 1)
			fail("word %llu of the pipeline, expected %#llx, got %#llx", (unsigned long long)consumed,
			     (unsigned long long)(mix(consumed) + 1), (unsigned long long)w[i]);
}

/* The first ends, then the others see the end. */
static void pipeline_check(void)
{
	int status = 0;
	uint64_t w;

	for (int i = 0; i < 1000 && !failed(); i++)
		pipeline_work();
	kill(helpers[0].pid, SIGKILL);
	expect(waitpid(helpers[0].pid, &status, 0) == helpers[0].pid && WIFSIGNALED(status));
	while (read(stream[1][0], &w, 8) == 8)
		consumed++;
	expect(waitpid(helpers[1].pid, &status, 0) == helpers[1].pid);
	expect_u64("status of the filter", 20 << 8, (uint64_t)status);
}

VICTIM(share_pipeline, V_CHECK_FILE, pipeline_setup, pipeline_work, pipeline_check);

/* ---- pipes in their states, with ends in different processes ---- */

static int full[2], packets[2], no_reader[2], no_writer[2], pair[2];

static void fill_forever(void)
{
	int others[] = { full[0], packets[0], packets[1], no_reader[0], no_reader[1], no_writer[0], no_writer[1], pair[0], pair[1] };
	char block[4096];
	uint64_t at = 0;

	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		close(others[i]);
	for (;;) {
		fill(block, sizeof(block), at);
		at += sizeof(block) / 8;
		if (write(full[1], block, sizeof(block)) != sizeof(block))
			_exit(1);
	}
}

static void states_part(int command)
{
	uint64_t w[64];
	char text[16] = "";

	if (command == 0) { /* before the move */
		close(no_reader[0]);
		close(no_writer[1]);
		close(pair[0]);
		close(packets[0]);
		return;
	}
	expect(write(no_reader[1], "x", 1) < 0 && errno == EPIPE);
	expect(read(no_writer[0], text, sizeof(text)) == 4 && !memcmp(text, "left", 4));
	expect(read(no_writer[0], text, sizeof(text)) == 0);
	expect(recv(pair[1], text, sizeof(text), 0) == 5 && !memcmp(text, "hello", 5));
	expect(send(pair[1], "answer", 6, MSG_NOSIGNAL) == 6);
	fill(w, 80, 900);
	expect(write(packets[1], w, 80) == 80);
}

static void states_setup(void)
{
	uint64_t w[64];

	signal(SIGPIPE, SIG_IGN);
	must(!pipe(full) && !pipe2(packets, O_DIRECT | O_NONBLOCK) && !pipe(no_reader) && !pipe(no_writer));
	must(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	must(fcntl(full[0], F_SETPIPE_SZ, 16384) == 16384);
	must(write(no_writer[1], "left", 4) == 4);
	start(&helpers[0], 0, states_part, NULL);
	start(&helpers[1], 0, NULL, fill_forever); /* is blocked soon */
	close(full[1]);
	close(no_reader[0]);
	close(no_reader[1]);
	close(no_writer[0]);
	close(no_writer[1]);
	close(pair[1]);
	tell(&helpers[0], 0);
	kill(helpers[1].pid, 0);
	for (uint64_t i = 0; i < 5; i++) {
		fill(w, sizeof(w), i * 100);
		must(write(packets[1], w, 8 * (i + 1)) == (ssize_t)(8 * (i + 1)));
	}
	close(packets[1]);
	must(send(pair[0], "hello", 5, 0) == 5);
}

static void states_check(void)
{
	uint64_t w[512];

	expect_u64("size of the full pipe", 16384, (uint64_t)fcntl(full[0], F_GETPIPE_SZ));
	for (uint64_t at = 0; at < 20000 && !failed(); at += 512) {
		size_t got = 0;

		while (got < sizeof(w)) {
			ssize_t n = read(full[0], (char *)w + got, sizeof(w) - got);

			if (n <= 0) {
				fail("read of the full pipe: %zd, errno %d", n, errno);
				return;
			}
			got += (size_t)n;
		}
		verify("contents of the full pipe", w, sizeof(w), at);
	}
	tell(&helpers[0], 1);
	for (uint64_t i = 0; i < 5; i++) {
		expect_u64("length of a packet", 8 * (i + 1), (uint64_t)read(packets[0], w, sizeof(w)));
		verify("packet", w, 8 * (i + 1), i * 100);
	}
	expect_u64("length of the last packet", 80, (uint64_t)read(packets[0], w, sizeof(w)));
	expect(recv(pair[0], w, sizeof(w), 0) == 6 && !memcmp(w, "answer", 6));
	finish(&helpers[0]);
	expect(recv(pair[0], w, sizeof(w), MSG_DONTWAIT) == 0); /* the other end is closed */
	expect(read(packets[0], w, sizeof(w)) == 0);
	finish(&helpers[1]);
}

VICTIM(share_pipe_states, 0, states_setup, NULL, states_check);

/* ---- locks of two processes ---- */

static int locked, flocked;

static int lock(int fd, int how, short type, off_t start)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 10 };

	return fcntl(fd, how, &l);
}

static pid_t who_locks(off_t start)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };

	expect(!fcntl(locked, F_GETLK, &l));
	return l.l_type == F_UNLCK ? 0 : l.l_pid;
}

static void lock_part(int command)
{
	switch (command) {
	case 0:
		must(!lock(locked, F_SETLK, F_WRLCK, 100) && !lock(locked, F_SETLK, F_RDLCK, 200));
		break;
	case 1:
		expect_u64("who locks 0", (uint64_t)getppid(), (uint64_t)who_locks(0));
		expect(lock(locked, F_SETLK, F_WRLCK, 0) < 0 && errno == EAGAIN);
		expect(!lock(locked, F_SETLK, F_UNLCK, 100));
		expect(!flock(flocked, LOCK_UN)); /* its description is the parent's */
		break;
	}
}

/* Waits for the lock that the parent has until the check. */
static void lock_wait(void)
{
	_exit(lock(locked, F_SETLKW, F_WRLCK, 0) == 0 ? 33 : 34);
}

static void lock_setup(void)
{
	locked = open(beside("locked"), O_RDWR | O_CREAT, 0600);
	flocked = open(beside("flocked"), O_RDWR | O_CREAT, 0600);
	must(locked >= 0 && flocked >= 0);
	must(!lock(locked, F_SETLK, F_WRLCK, 0) && !lock(locked, F_SETLK, F_RDLCK, 200) && !flock(flocked, LOCK_EX));
	start(&helpers[0], 0, lock_part, NULL);
	start(&helpers[1], 0, NULL, lock_wait);
	tell(&helpers[0], 0);
}

static void lock_check(void)
{
	int again = open(beside("flocked"), O_RDWR), status = 0;

	expect(waitpid(helpers[1].pid, &status, WNOHANG) == 0); /* it waits */
	expect_u64("who locks 100", (uint64_t)helpers[0].pid, (uint64_t)who_locks(100));
	expect_u64("who locks 200", (uint64_t)helpers[0].pid, (uint64_t)who_locks(200));
	expect(flock(again, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	tell(&helpers[0], 1);
	expect_u64("who locks 100", 0, (uint64_t)who_locks(100));
	expect(!flock(again, LOCK_EX | LOCK_NB));
	expect(!lock(locked, F_SETLK, F_UNLCK, 0));
	expect(waitpid(helpers[1].pid, &status, 0) == helpers[1].pid);
	expect_u64("status of the one that waited", 33 << 8, (uint64_t)status);
	finish(&helpers[0]);
}

VICTIM(share_locks, 0, lock_setup, NULL, lock_check);

/* ---- locks that come and go; another process asks for all of them after each step ---- */

#define BUSY_FILES 4
#define BUSY_PLACES 4 /* in each file as many for record locks, and behind them for those of the description */

struct busy_file {
	short places[2 * BUSY_PLACES]; /* F_UNLCK, F_RDLCK or F_WRLCK */
	short whole;                   /* LOCK_UN, LOCK_SH or LOCK_EX by flock(2) */
};

static struct busy_file *busy; /* what the helper is to find */
static int busy_fds[BUSY_FILES], busy_asks[BUSY_FILES], busy_other = -1;
static uint64_t busy_steps;

static void busy_look(const struct busy_file *f, int fd)
{
	for (int i = 0; i < 2 * BUSY_PLACES; i++)
		for (short type = F_RDLCK; type <= F_WRLCK; type++) {
			struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = 100 * i, .l_len = 1 };
			bool conflicts = f->places[i] == F_WRLCK || (f->places[i] == F_RDLCK && type == F_WRLCK);

			must(!fcntl(fd, F_OFD_GETLK, &l));
			if ((l.l_type != F_UNLCK) != conflicts)
				fail("place %d has a lock of type %d, and one of type %d conflicts: %d", i, f->places[i], type, l.l_type != F_UNLCK);
		}
	for (int how = LOCK_SH; how <= LOCK_EX; how++) {
		bool free = f->whole == LOCK_UN || (f->whole == LOCK_SH && how == LOCK_SH), got = flock(fd, how | LOCK_NB) == 0;

		if (got != free)
			fail("the whole is locked with %d, and by %d %s", f->whole, how, got ? "can be" : "cannot be");
		must(!flock(fd, LOCK_UN));
	}
}

static void busy_part(int i)
{
	busy_look(&busy[i], busy_asks[i]);
}

static void busy_setup(void)
{
	busy = mmap(NULL, BUSY_FILES * sizeof(*busy), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(busy != MAP_FAILED);
	for (int i = 0; i < BUSY_FILES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "busy%d", i);
		busy_fds[i] = open(beside(name), O_RDWR | O_CREAT, 0600);
		busy_asks[i] = open(beside(name), O_RDWR);
		must(busy_fds[i] >= 0 && busy_asks[i] >= 0);
		busy[i].whole = LOCK_UN;
		for (int k = 0; k < 2 * BUSY_PLACES; k++)
			busy[i].places[k] = F_UNLCK;
	}
	start(&helpers[0], 0, busy_part, NULL);
}

static void busy_set(int i, int place, short type)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = 100 * place, .l_len = 10 };

	expect(!fcntl(busy_fds[i], place < BUSY_PLACES ? F_SETLK : F_OFD_SETLK, &l));
	busy[i].places[place] = type;
}

static void busy_set_all(int i, short first, short whole)
{
	for (int k = 0; k < 2 * BUSY_PLACES; k++)
		busy_set(i, k, k % BUSY_PLACES == i ? first : F_UNLCK);
	busy[i].whole = whole;
	expect(!flock(busy_fds[i], whole));
}

/* Another file is opened and closed, so that the table has changed at most looks. */
static void busy_open(bool open_it)
{
	if (busy_other >= 0)
		close(busy_other);
	busy_other = open_it ? open(beside("busy_other"), O_RDWR | O_CREAT, 0600) : -1;
}

/* Mostly all locks of a file are given up, or the same are taken that it has had before; else one is another one. */
static void busy_work(void)
{
	static const short types[] = { F_UNLCK, F_RDLCK, F_WRLCK };
	uint64_t r = mix(++busy_steps);
	int i = (int)(r % BUSY_FILES), place = (int)(r >> 8) & (2 * BUSY_PLACES - 1), what = (int)(r >> 16) % 8;

	if (what < 4)
		busy_set_all(i, F_UNLCK, LOCK_UN);
	else if (what < 7)
		busy_set_all(i, F_WRLCK, i % 2 ? LOCK_SH : LOCK_EX);
	else
		busy_set(i, place, types[(r >> 32) % 3]);
	busy_open(r >> 40 & 1);
	tell(&helpers[0], (char)i);
}

static void busy_check(void)
{
	for (char i = 0; i < BUSY_FILES; i++)
		tell(&helpers[0], i);
	finish(&helpers[0]);
}

VICTIM(share_locks_busy, V_OPENS, busy_setup, busy_work, busy_check);

/* ---- epoll sets ---- */

static int set, only_child, both, child_set;

static void add(int ep, int fd, uint64_t data)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = data };

	must(!epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
}

static uint64_t next_event(int ep)
{
	struct epoll_event ev = { 0 };

	return epoll_wait(ep, &ev, 1, 0) == 1 ? ev.data.u64 : 0;
}

static void epoll_part(int command)
{
	switch (command) {
	case 0:
		child_set = epoll_create1(0);
		must(child_set >= 0);
		add(child_set, set, 9);
		break;
	case 1:
		expect_u64("event of the set of sets", 0, next_event(child_set));
		expect(write(only_child, &(uint64_t){ 1 }, 8) == 8);
		expect_u64("event of the set of sets", 9, next_event(child_set));
		expect_u64("event", 2, next_event(set));
		break;
	case 2:
		expect(write(both, &(uint64_t){ 1 }, 8) == 8);
		break;
	}
}

static void epoll_setup(void)
{
	set = epoll_create1(EPOLL_CLOEXEC);
	only_child = eventfd(0, EFD_SEMAPHORE);
	both = eventfd(0, 0);
	must(set >= 0 && only_child >= 0 && both >= 0);
	add(set, only_child, 2);
	add(set, both, 3);
	start(&helpers[0], 0, epoll_part, NULL);
	tell(&helpers[0], 0);
	close(only_child); /* stays in the set: the child has it open */
}

static void epoll_check(void)
{
	expect_u64("event before anything", 0, next_event(set));
	tell(&helpers[0], 1);
	expect_u64("event", 2, next_event(set));
	tell(&helpers[0], 2);
	expect(next_event(set) != 0 && next_event(set) != next_event(set));
	finish(&helpers[0]);
	expect_u64("event when the child has ended", 3, next_event(set)); /* the other one went with it */
}

VICTIM(share_epoll, 0, epoll_setup, NULL, epoll_check);

/* ---- one table of two processes ---- */

static void table_part(int command)
{
	int fd;

	switch (command) {
	case 0:
		must(dup2(STDERR_FILENO, 200) == 200);
		break;
	case 1:
		fd = open(beside("table"), O_RDWR | O_CREAT, 0600);
		expect(fd >= 0 && dup2(fd, 201) == 201 && !close(fd));
		expect(write(201, "from the child", 14) == 14);
		expect(fcntl(202, F_GETFD) == FD_CLOEXEC);
		break;
	}
}

static void table_setup(void)
{
	start(&helpers[0], CLONE_FILES, table_part, NULL);
	tell(&helpers[0], 0);
	must(fcntl(200, F_GETFD) >= 0);
}

static void table_check(void)
{
	char text[20] = "";

	expect(fcntl(200, F_GETFD) >= 0);
	expect(dup3(200, 202, O_CLOEXEC) == 202);
	tell(&helpers[0], 1);
	expect(pread(201, text, 14, 0) == 14 && !memcmp(text, "from the child", 14));
	close(201);
	finish(&helpers[0]);
}

VICTIM(share_table, 0, table_setup, NULL, table_check);

/* The child's mappings change all the time, too: files come through the table that it shares. */
static void map_files(void)
{
	int fd = open("/proc/self/exe", O_RDONLY);
	void *map[50];

	for (;;) {
		for (int i = 0; i < 50; i++) {
			map[i] = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
			if (map[i] == MAP_FAILED || *(volatile char *)map[i] != 0x7f)
				_exit(1);
			usleep(300);
		}
		for (int i = 0; i < 50; i++)
			munmap(map[i], 4096);
	}
}

static void table_maps_setup(void)
{
	start(&helpers[0], CLONE_FILES, NULL, map_files);
}

static void table_maps_check(void)
{
	int status = 0;

	usleep(20000);
	expect(waitpid(helpers[0].pid, &status, WNOHANG) == 0);
	finish(&helpers[0]);
}

VICTIM(share_table_maps, 0, table_maps_setup, NULL, table_maps_check);

/* ---- signals for another process ---- */

static int owned[2], group_owned[2];
static uid_t owner_uids[2];
static volatile sig_atomic_t got_io, got_usr;

static void on_io(int sig, siginfo_t *info, void *context)
{
	if (sig == SIGUSR2)
		got_usr++;
	else
		got_io++;
}

static void owner_part(int command)
{
	struct sigaction a = { .sa_sigaction = on_io, .sa_flags = SA_SIGINFO | SA_RESTART };

	switch (command) {
	case 0:
		must(!sigaction(SIGIO, &a, NULL) && !sigaction(SIGUSR2, &a, NULL));
		break;
	case 1:
		expect_u64("SIGIO", 1, (uint64_t)got_io);
		break;
	case 2:
		expect_u64("SIGUSR2", 1, (uint64_t)got_usr);
		break;
	}
}

static void owner_setup(void)
{
	struct f_owner_ex owner = { F_OWNER_PID, 0 };

	signal(SIGUSR2, SIG_IGN);
	must(!pipe(owned) && !pipe(group_owned));
	start(&helpers[0], 0, owner_part, NULL);
	tell(&helpers[0], 0);
	owner.pid = helpers[0].pid;
	must(!setresuid(1234, 0, 0) && !fcntl(owned[0], F_SETOWN_EX, &owner) && !setresuid(0, 0, 0));
	must( !fcntl(owned[0], F_SETFL, O_ASYNC));
	must(!setpgid(helpers[0].pid, helpers[0].pid));
	owner.type = F_OWNER_PGRP;
	must(!fcntl(group_owned[0], F_SETOWN_EX, &owner) && !fcntl(group_owned[0], F_SETSIG, SIGUSR2));
	must(!fcntl(group_owned[0], F_SETFL, O_ASYNC));
}

static void owner_check(void)
{
	struct f_owner_ex owner = { 0 };

	expect(!fcntl(owned[0], F_GETOWN_EX, &owner));
	expect_u64("owner", (uint64_t)helpers[0].pid, (uint64_t)owner.pid);
	expect(!fcntl(owned[0], F_GETOWNER_UIDS, owner_uids));
	expect_u64("user of who named the owner", 1234, owner_uids[0]);
	expect(write(owned[1], "x", 1) == 1);
	tell(&helpers[0], 1);
	expect(write(group_owned[1], "x", 1) == 1);
	tell(&helpers[0], 2);
	finish(&helpers[0]);
}

VICTIM(share_owner, 0, owner_setup, NULL, owner_check);

/* ---- counters and timers that one process waits for and another one feeds ---- */

static int semaphore, timer;

static void wait_loop(void)
{
	uint64_t n;

	for (int i = 0; i < 3; i++)
		if (read(semaphore, &n, 8) != 8 || n != 1)
			_exit(1);
	_exit(read(timer, &n, 8) == 8 && n == 1 ? 44 : 2);
}

static void wait_setup(void)
{
	semaphore = eventfd(1, EFD_SEMAPHORE);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	must(semaphore >= 0 && timer >= 0);
	start(&helpers[0], 0, NULL, wait_loop);
}

static void wait_check(void)
{
	struct itimerspec soon = { .it_value = { 0, 1000000 } };
	int status = 0;

	expect(waitpid(helpers[0].pid, &status, WNOHANG) == 0);
	expect(write(semaphore, &(uint64_t){ 2 }, 8) == 8);
	expect(!timerfd_settime(timer, 0, &soon, NULL));
	expect(waitpid(helpers[0].pid, &status, 0) == helpers[0].pid);
	expect_u64("status of the one that waited", 44 << 8, (uint64_t)status);
}

VICTIM(share_wait, 0, wait_setup, NULL, wait_check);
