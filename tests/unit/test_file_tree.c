/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_file_tree.c - the descriptor tables of several processes move: what they share stays shared, whoever changes it between offer and freeze */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "file_move.h"
#include "file_phase.h"

/* A parent, its child, and the child's child: one description, one offset. */
static void shared_phase(int process, int phase)
{
	if (phase == 0 && process == 0) {
		at(MUST(open(in_dir("data"), O_RDWR | O_CREAT, 0600)), 3, 0);
		MUST(write(3, "0123456789", 10));
		at(MUST(open(in_dir("data"), O_RDONLY)), 4, 0);
		at(MUST(open("/dev/null", O_RDWR)), 0, 0);
		at(MUST(eventfd(0, 0)), 7, 0);
	} else if (phase == 0 && process == 1) {
		at(MUST(dup(3)), 9, O_CLOEXEC);
		at(MUST(open(in_dir("data"), O_RDONLY)), 4, 0); /* another description, at the number of its parent's */
	} else if (phase == 0) {
		MUST(close(3)); /* it has it as 9 */
	} else if (phase == 1 && process == 0) {
		MUST(close(4));
		at(MUST(open(in_dir("data"), O_RDONLY)), 4, 0); /* like the one before, and the children's are other ones */
		MUST(write(7, &(uint64_t){ 5 }, 8));
	} else if (phase == 1 && process == 1) {
		MUST(lseek(9, 4, SEEK_SET));
		MUST(dup2(4, 11));
		at(MUST(open(in_dir("new"), O_RDWR | O_CREAT, 0600)), 5, 0);
	} else if (phase == 1) {
		MUST(lseek(4, 2, SEEK_SET)); /* process 1's */
		MUST(dup2(7, 4)); /* and leaves it */
		MUST(close(7));
	}
}

static void test_shared(void **state)
{
	static const struct file_tree tree = { .n = 3, .parent = { 0, 0, 1 }, .phase = shared_phase };
	struct file_move m;
	int a, b;

	(void)state;
	file_move_run_tree(&m, &tree);
	file_move_compare(&m);
	a = file_move_get_from(&m, 0, 3);
	b = file_move_get_from(&m, 2, 9);
	assert_int_equal(lseek(a, 0, SEEK_CUR), 4);
	assert_int_equal(lseek(a, 1, SEEK_CUR), 5);
	assert_int_equal(lseek(b, 0, SEEK_CUR), 5);
	close(a);
	close(b);
	a = file_move_get_from(&m, 1, 4);
	assert_int_equal(lseek(a, 0, SEEK_CUR), 2);
	close(a);
	file_move_end(&m);
}

/* As a shell makes a pipeline: 1 writes, 2 reads, 0 has neither end any more. A second one breaks. */
static void pipeline_phase(int process, int phase)
{
	int p[2];

	if (phase == 0 && process == 0) {
		MUST(pipe(p)); /* 0, 1 */
		MUST(pipe2(p, O_DIRECT)); /* 2, 3 */
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p)); /* 4, 5 */
		MUST(pipe(p)); /* 6, 7 */
	} else if (phase == 0 && process == 1) {
		MUST(close(0));
		MUST(close(2));
		MUST(close(4));
		MUST(write(1, "early ", 6));
		MUST(fcntl(1, F_SETPIPE_SZ, 1 << 20));
	} else if (phase == 0 && process == 2) {
		MUST(close(1));
		MUST(close(3));
		MUST(close(5));
	} else if (phase == 1 && process == 0) {
		for (int fd = 0; fd < 6; fd++)
			MUST(close(fd));
		MUST(close(7));
	} else if (phase == 1 && process == 1) {
		MUST(write(1, "late", 4));
		MUST(write(3, "one", 3));
		MUST(write(3, "two", 3));
		MUST(write(5, "through the pair", 16));
		MUST(write(7, "last words", 10));
		MUST(close(7));
		MUST(close(6));
	} else if (phase == 1 && process == 2) {
		MUST(close(7));
		MUST(write(4, "back", 4));
	}
}

static void expect_text(struct file_move *m, int process, int fd, const char *text)
{
	int got = file_move_get_from(m, process, fd);
	char buffer[64] = "";

	assert_int_equal(read(got, buffer, sizeof(buffer) - 1), strlen(text));
	assert_string_equal(buffer, text);
	close(got);
}

static void test_pipeline(void **state)
{
	static const struct file_tree tree = { .n = 3, .parent = { 0, 0, 0 }, .phase = pipeline_phase };
	struct file_move m;
	int fd;

	(void)state;
	file_move_run_tree(&m, &tree);
	file_move_compare(&m);
	fdtable_free(&m.table);
	expect_text(&m, 2, 0, "early late");
	expect_text(&m, 2, 2, "one");
	expect_text(&m, 2, 2, "two");
	expect_text(&m, 2, 4, "through the pair");
	expect_text(&m, 1, 5, "back");
	expect_text(&m, 2, 6, "last words");
	fd = file_move_get_from(&m, 0, 6);
	assert_int_equal(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0), 1); /* the end: nobody writes */
	close(fd);
	file_move_end(&m);
}

static void set_lock(int fd, short type, off_t start, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	MUST(fcntl(fd, F_SETLK, &l));
}

static void locks_phase(int process, int phase)
{
	if (phase == 0 && process == 0) {
		MUST(open(in_dir("locked"), O_RDWR | O_CREAT, 0600)); /* 0 */
		MUST(open(in_dir("flocked"), O_RDWR | O_CREAT, 0600)); /* 1 */
		set_lock(0, F_WRLCK, 0, 10);
		MUST(flock(1, LOCK_EX));
	} else if (phase == 0) {
		set_lock(0, F_WRLCK, process * 100, 10); /* the same description, another owner */
		set_lock(0, F_RDLCK, 1000, 0);
	} else if (phase == 1 && process == 0) {
		MUST(close(1)); /* its children keep the lock */
	} else if (phase == 2) {
		set_lock(0, F_UNLCK, 0, 0);
		if (process)
			MUST(flock(1, LOCK_UN));
	}
}

static pid_t who_locks(struct file_move *m, off_t start)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };
	int fd = file_move_get_from(m, 0, 0);

	assert_int_equal(fcntl(fd, F_GETLK, &l), 0);
	close(fd);
	return l.l_type == F_UNLCK ? 0 : l.l_pid;
}

/* In the skeletons, as the source does with its own processes. */
static void release_and_retake(struct file_move *m)
{
	struct fd_process p[FILE_PROCESSES_MAX];
	struct fdtable t = FDTABLE_INIT;
	struct fsfile_table files = { 0 };

	for (size_t i = 0; i < m->n; i++)
		p[i] = (struct fd_process){ m->skeleton[i].pid, (int)syscall(SYS_pidfd_open, m->skeleton[i].pid, 0) };
	file_capture_all(p, m->n, &t, &files);
	for (uint32_t i = 0; i < m->n; i++) {
		fdtable_plan_release_locks(&t, i, &m->skeleton[i]);
		assert_int_equal(batch_run(&m->skeleton[i], NULL), 0);
		batch_reset(&m->skeleton[i]);
	}
	assert_int_equal(who_locks(m, 5) | who_locks(m, 105) | who_locks(m, 205) | who_locks(m, 1005), 0);
	for (uint32_t i = 0; i < m->n; i++) {
		fdtable_plan_retake_locks(&t, i, &m->skeleton[i]);
		assert_int_equal(batch_run(&m->skeleton[i], NULL), 0);
		batch_reset(&m->skeleton[i]);
		close(p[i].pidfd);
	}
	assert_int_equal(who_locks(m, 205), m->skeleton[2].pid);
	fdtable_free(&t);
	fsfile_table_free(&files);
}

static void test_locks(void **state)
{
	static const struct file_tree tree = { .n = 3, .parent = { 0, 0, 1 }, .phase = locks_phase };
	struct file_move m;

	(void)state;
	file_move_run_tree(&m, &tree);
	assert_int_equal(m.table.msg->n_locks, 6);
	file_move_compare(&m);
	for (int i = 0; i < 3; i++)
		assert_int_equal(who_locks(&m, i * 100 + 5), m.skeleton[i].pid);
	release_and_retake(&m);
	file_move_end(&m);
}

static void add(int ep, int fd, uint64_t data)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = data };

	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
}

/* Sets that two processes have, with entries that only one of them, or none of those that have the set, could add. */
static void epoll_phase(int process, int phase)
{
	if (phase == 0 && process == 0) {
		MUST(epoll_create1(0)); /* 0: all have it */
		MUST(epoll_create1(0)); /* 1: only process 0 in the end */
		MUST(eventfd(0, 0)); /* 2: only process 1 in the end */
		MUST(eventfd(0, 0)); /* 3: all */
		MUST(eventfd(1, 0)); /* 4, 5, 6: not process 0 in the end, but its set watches them */
		MUST(eventfd(1, 0));
		MUST(eventfd(1, 0));
		add(0, 2, 2);
		add(0, 3, 3);
		add(1, 2, 12);
	} else if (phase == 0 && process == 1) {
		MUST(close(1));
		MUST(eventfd(0, 0)); /* 1: of its own */
		add(0, 1, 1001);
		at(MUST(eventfd(0, 0)), 20, 0);
		add(0, 20, 20);
	} else if (phase == 0) {
		MUST(close(2));
		MUST(close(1));
	} else if (phase == FILE_PHASE_ALL && process == 0) {
		add(1, 5, 15);
		add(1, 6, 16);
		MUST(close(5));
		MUST(close(6));
	} else if (phase == 1 && process == 0) {
		add(1, 4, 14);
		MUST(close(4));
		MUST(close(2));
		add(1, 3, 13);
		at(MUST(eventfd(1, 0)), 2, 0); /* the number that an entry of 1 was added with */
		add(1, 2, 112);
	} else if (phase == 1 && process == 1) {
		MUST(write(2, &(uint64_t){ 1 }, 8));
		MUST(dup2(20, 21));
		MUST(close(20));
		MUST(close(5)); /* the entry ends when process 2 has closed it, too */
	} else if (phase == 1) {
		MUST(epoll_ctl(0, EPOLL_CTL_DEL, 3, NULL));
		MUST(close(5));
	}
}

static void test_epoll(void **state)
{
	static const struct file_tree tree = { .n = 3, .parent = { 0, 0, 1 }, .phase = epoll_phase };
	struct epoll_event ev[8];
	struct file_move m;
	int fd;

	(void)state;
	file_move_run_tree(&m, &tree);
	file_move_compare(&m);
	fd = file_move_get_from(&m, 0, 1);
	assert_int_equal(epoll_wait(fd, ev, 8, 0), 4); /* 12, 112, 14, 16 */
	close(fd);
	fd = file_move_get_from(&m, 2, 0);
	assert_int_equal(epoll_wait(fd, ev, 8, 0), 1);
	assert_int_equal(ev[0].data.u64, 2);
	close(fd);
	file_move_end(&m);
}

static void owner_phase(int process, int phase)
{
	struct f_owner_ex owner = { F_OWNER_PID, getpid() };
	int p[2];

	if (phase == 0 && process == 0) {
		signal(SIGIO, SIG_IGN);
		signal(SIGURG, SIG_IGN);
		MUST(setpgid(0, 0));
		MUST(pipe(p));
		MUST(pipe(p));
		MUST(fcntl(2, F_SETOWN, -getpid()));
		MUST(fcntl(2, F_SETSIG, SIGURG));
	} else if (phase == 0) {
		MUST(setresuid(7, 1000, 0));
		MUST(fcntl(0, F_SETOWN_EX, &owner)); /* its parent has it too */
		MUST(setresuid(0, 0, 0));
		MUST(fcntl(0, F_SETFL, O_ASYNC));
		MUST(close(3));
		owner.type = F_OWNER_TID;
		MUST(fcntl(1, F_SETOWN_EX, &owner));
	} else if (phase == 1 && process == 0) {
		MUST(fcntl(1, F_SETOWN, getpid()));
		MUST(fcntl(2, F_SETOWN, 0));
	}
}

static void test_owner(void **state)
{
	static const struct file_tree tree = { .n = 2, .parent = { 0, 0 }, .phase = owner_phase };
	struct f_owner_ex owner;
	struct file_move m;
	int fd;

	(void)state;
	file_move_run_tree(&m, &tree);
	file_move_compare(&m);
	fd = file_move_get_from(&m, 0, 0);
	assert_int_equal(fcntl(fd, F_GETOWN_EX, &owner), 0);
	assert_int_equal(owner.pid, m.skeleton[1].pid);
	assert_true(fcntl(fd, F_GETFL) & O_ASYNC);
	close(fd);
	fd = file_move_get_from(&m, 1, 1);
	assert_int_equal(fcntl(fd, F_GETOWN_EX, &owner), 0);
	assert_int_equal(owner.pid, m.skeleton[0].pid);
	close(fd);
	file_move_end(&m);
}

/* Processes 0 and 1 have one table. */
static void table_phase(int process, int phase)
{
	int p[2];

	if (phase == 0 && process == 0) {
		MUST(pipe(p));
		at(MUST(open(in_dir("table"), O_RDWR | O_CREAT, 0600)), 5, 0);
	} else if (phase == 0 && process == 1) {
		at(MUST(eventfd(3, 0)), 10, 0); /* process 0 has it, too */
		set_lock(5, F_WRLCK, 7, 1);
	} else if (phase == 1 && process == 1) {
		MUST(write(1, "x", 1));
	} else if (phase == 2 && process == 1) {
		set_lock(5, F_UNLCK, 0, 0);
	}
}

static void test_table(void **state)
{
	static const struct file_tree tree = { .n = 3, .parent = { 0, 0, 0 }, .shares = { false, true }, .phase = table_phase };
	struct file_move m;
	int fd;

	(void)state;
	file_move_run_tree(&m, &tree);
	file_move_compare(&m);
	assert_int_equal(m.table.msg->n_tables, 2);
	assert_int_equal(syscall(SYS_kcmp, m.skeleton[0].pid, m.skeleton[1].pid, 2 /* KCMP_FILES */, 0, 0), 0);
	fd = file_move_get_from(&m, 0, 5);
	assert_int_equal(fcntl(fd, F_GETLK, &(struct flock){ .l_type = F_WRLCK, .l_start = 7, .l_len = 1 }), 0);
	close(fd);
	fd = file_move_get_from(&m, 1, 10);
	close(fd);
	file_move_end(&m);
}

#define INHERITED 5500 /* of four processes: more than this one may hold */

static void inherited_phase(int process, int phase)
{
	if (phase == 0 && process == 0) {
		for (int i = 0; i < INHERITED; i++)
			MUST(open(in_dir("inherited"), O_RDWR | O_CREAT, 0600));
	} else if (phase == 1 && process == 2) {
		MUST(lseek(100, 5, SEEK_SET));
		MUST(close(200));
		MUST(open(in_dir("inherited"), O_RDWR));
	}
}

static void test_inherited(void **state)
{
	static const struct file_tree tree = { .n = 4, .parent = { 0, 0, 0, 0 }, .phase = inherited_phase };
	struct file_move m;
	int fd;

	(void)state;
	file_move_run_tree(&m, &tree);
	assert_int_equal(m.table.msg->n_descs, INHERITED + 1);
	file_move_compare(&m);
	fd = file_move_get_from(&m, 3, 100);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 5);
	close(fd);
	file_move_end(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared), cmocka_unit_test(test_pipeline), cmocka_unit_test(test_locks),
		cmocka_unit_test(test_epoll), cmocka_unit_test(test_owner), cmocka_unit_test(test_table),
		cmocka_unit_test(test_inherited),
	};

	return file_move_main(tests);
}
