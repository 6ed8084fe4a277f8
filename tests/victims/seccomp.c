// SPDX-License-Identifier: GPL-2.0-or-later
/* seccomp.c - victims with system call filters: what they forbid stays forbidden, and what they allow is all that a move may need */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

#define NR_OF(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (n), 0, 1)
#define ANSWER(x) BPF_STMT(BPF_RET | BPF_K, (x))
#define THREADS 3
#define PAUSE_MS 4000u

/* Calls that a move would make inside of the process, if it made them where filters are in force. The victim itself needs none of them. */
static const int deadly[] = { SYS_restart_syscall, SYS_userfaultfd, SYS_memfd_create, SYS_socketpair, SYS_sendmsg, SYS_recvmsg, SYS_sendto, SYS_recvfrom,
			      SYS_close_range, SYS_kill, SYS_wait4, SYS_sigaltstack, SYS_getpriority, SYS_sched_getattr, SYS_getitimer, SYS_personality,
			      SYS_capget, SYS_setfsuid, SYS_setsid, SYS_mremap, SYS_ioctl, SYS_setpriority, SYS_waitid, SYS_getresuid };

static pthread_barrier_t ready, go_on;
static struct text before[THREADS + 1];
static int tsync;

static int install(const struct sock_filter *program, unsigned short len, unsigned flags)
{
	struct sock_fprog p = { len, (struct sock_filter *)program };

	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p);
}

/* getppid fails with 77. */
static void install_common(unsigned flags)
{
	const struct sock_filter f[] = { NR_OF(SYS_getppid), ANSWER(SECCOMP_RET_ERRNO | 77), ANSWER(SECCOMP_RET_ALLOW) };

	must(!install(f, 4, flags));
}

/* sched_getparam fails with its argument's low bits. */
static void install_own(int number)
{
	const struct sock_filter f[] = { NR_OF(SYS_sched_getparam), ANSWER(SECCOMP_RET_ERRNO | (unsigned)(80 + number)), ANSWER(SECCOMP_RET_ALLOW) };

	must(!install(f, 4, number < 4 ? SECCOMP_FILTER_FLAG_LOG : 0)); /* each time it logs costs a line of the kernel log */
}

static void install_deadly(void)
{
	struct sock_filter f[3 * sizeof(deadly) / sizeof(*deadly) + 1];
	unsigned short n = 0;

	for (size_t i = 0; i < sizeof(deadly) / sizeof(*deadly); i++) {
		const struct sock_filter one[] = { NR_OF(deadly[i]), ANSWER(SECCOMP_RET_KILL_PROCESS) };

		memcpy(f + n, one, sizeof(one));
		n += 3;
	}
	f[n++] = (struct sock_filter)ANSWER(SECCOMP_RET_ALLOW);
	must(!install(f, n, 0));
}

static void own_status(struct text *t)
{
	static const char *lines[] = { "NoNewPrivs:", "Seccomp:", "Seccomp_filters:", NULL };
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%ld/status", syscall(SYS_gettid));
	text_file(t, path, lines);
}

static void expect_errno(const char *what, long result, int number)
{
	int got = errno;

	if (result != -1 || got != number)
		fail("%s, expected errno %d, got %ld with errno %d", what, number, result, got);
}

static void check_own(int number)
{
	struct text after = { 0 };

	own_status(&after);
	expect_text("filters of a thread", before[number].s, after.s);
	expect_errno("getppid", syscall(SYS_getppid), 77);
	if (tsync)
		expect(syscall(SYS_sched_getparam, 0, NULL) == -1 && errno == EINVAL);
	else if (number)
		expect_errno("sched_getparam", syscall(SYS_sched_getparam, 0, NULL), 80 + number);
}

static void *filtered_thread(void *arg)
{
	int number = (int)(uintptr_t)arg;
	struct epoll_event event;
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	must(epoll >= 0);
	pthread_barrier_wait(&go_on); /* the common filter is there */
	if (!tsync)
		install_own(number);
	if (!tsync && number > 1)
		install_deadly();
	own_status(&before[number]);
	pthread_barrier_wait(&ready);
	while (!victim_stopping) { /* calls that are interrupted by a stop, in each of the kernel's ways */
		uint64_t begin = now_ns(CLOCK_MONOTONIC);

		if (number == 1)
			expect(!usleep(1000));
		else if (number == 2)
			expect(!poll(NULL, 0, PAUSE_MS));
		else
			expect(!epoll_wait(epoll, &event, 1, PAUSE_MS));
		if (number > 1)
			expect(now_ns(CLOCK_MONOTONIC) - begin >= PAUSE_MS * 1000000ull);
	}
	check_own(number);
	return NULL;
}

static void start_threads(void)
{
	pthread_barrier_init(&go_on, NULL, THREADS + 1);
	pthread_barrier_init(&ready, NULL, THREADS + 1);
	for (uintptr_t i = 1; i <= THREADS; i++)
		spawn(filtered_thread, (void *)i, NULL);
	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	install_common(SECCOMP_FILTER_FLAG_TSYNC);
	pthread_barrier_wait(&go_on);
	pthread_barrier_wait(&ready);
}

static void filter_setup(void)
{
	start_threads();
	install_deadly();
	own_status(&before[0]);
}

static void filter_check(void)
{
	check_own(0);
	join_all();
}

VICTIM(seccomp_filter, V_CHECK_FILE | V_NO_STOP, filter_setup, NULL, filter_check);

/* All threads have the same filter, as an object: another one can be given to all of them at once. */
static void tsync_setup(void)
{
	tsync = 1;
	start_threads();
	own_status(&before[0]);
}

static void tsync_check(void)
{
	const struct sock_filter allow[] = { ANSWER(SECCOMP_RET_ALLOW) };

	check_own(0);
	join_all();
	expect(!install(allow, 1, SECCOMP_FILTER_FLAG_TSYNC));
}

VICTIM(seccomp_tsync, V_CHECK_FILE | V_NO_STOP, tsync_setup, NULL, tsync_check);

/* One thread without a filter among others that have one; and without no_new_privs. */
static void *half_thread(void *arg)
{
	install_common(0);
	install_deadly();
	own_status(&before[1]);
	pthread_barrier_wait(&ready);
	while (!victim_stopping)
		expect(!usleep(700));
	struct text after = { 0 };

	own_status(&after);
	expect_text("filters of a thread", before[1].s, after.s);
	expect_errno("getppid", syscall(SYS_getppid), 77);
	return NULL;
}

static void half_setup(void)
{
	pthread_barrier_init(&ready, NULL, 2);
	spawn(half_thread, NULL, NULL);
	pthread_barrier_wait(&ready);
	own_status(&before[0]);
}

static void half_check(void)
{
	struct text after = { 0 };

	own_status(&after);
	expect_text("filters of the main thread", before[0].s, after.s);
	expect(syscall(SYS_getppid) >= 0);
	join_all();
}

VICTIM(seccomp_half, V_CHECK_FILE | V_NO_STOP, half_setup, NULL, half_check);

/* ---- strict mode: read, write, exit and rt_sigreturn ---- */

static int ask[2], answer[2];

static void *strict_thread(void *arg)
{
	uint64_t x;

	must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	while (read(ask[0], &x, sizeof(x)) == sizeof(x) && x) {
		x = mix(x);
		if (write(answer[1], &x, sizeof(x)) != sizeof(x))
			break;
	}
	syscall(SYS_exit, 0);
	return NULL;
}

static void strict_ask(uint64_t x)
{
	uint64_t got = 0;
	ssize_t n;

	expect(write(ask[1], &x, sizeof(x)) == sizeof(x));
	do /* the signal that asks for the check may come now */
		n = read(answer[0], &got, sizeof(got));
	while (n < 0 && errno == EINTR);
	expect(n == sizeof(got));
	expect_u64("answer of the thread in strict mode", mix(x), got);
}

static void strict_setup(void)
{
	sigset_t all, old;
	pthread_t t;

	must(!pipe(ask) && !pipe(answer));
	/* The signal that asks for the check is for the main thread: in this one it would end the read, and with it the thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	must(!pthread_create(&t, NULL, strict_thread, NULL)); /* not joined: its stack could not be freed in strict mode */
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	strict_ask(1);
}

static void strict_work(void)
{
	static uint64_t x;

	strict_ask(++x);
	usleep(500);
}

static void strict_check(void)
{
	uint64_t end = 0;

	strict_ask(99);
	expect(write(ask[1], &end, sizeof(end)) == sizeof(end));
}

VICTIM(seccomp_strict, 0, strict_setup, strict_work, strict_check);

/* The whole program in strict mode. It cannot open its status file any more, nor end as others do. */
static volatile sig_atomic_t asked;
static int status_fd;

static void on_ask(int sig)
{
	asked = 1;
}

static void strict_all_setup(void)
{
	status_fd = open(victim_out, O_WRONLY | O_APPEND | O_CLOEXEC);
	must(status_fd >= 0 && !pipe(ask));
}

static void strict_all_work(void)
{
	static const char ok[] = "ok\n", bad[] = "FAIL: sum or pipe\n";
	uint64_t sum = 0, x = 0, rounds = 0, got = 0;
	bool good = true;

	signal(SIGTERM, on_ask);
	must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	while (!asked) {
		x = mix(rounds++);
		sum += x;
		good &= write(ask[1], &x, sizeof(x)) == sizeof(x) && read(ask[0], &got, sizeof(got)) == sizeof(got) && got == x;
	}
	for (x = 0; x < rounds; x++)
		sum -= mix(x);
	good &= !sum;
	if (write(status_fd, good ? ok : bad, good ? sizeof(ok) - 1 : sizeof(bad) - 1) < 0)
		asked = 2;
	syscall(SYS_exit, 0);
}

static void strict_all_check(void)
{
}

VICTIM(seccomp_strict_all, 0, strict_all_setup, strict_all_work, strict_all_check);

/* ---- a filtered child of a filtered parent: the child has one filter more ---- */

static pid_t child;

static void child_of_filtered(void)
{
	uint64_t x;

	install_own(4);
	install_deadly();
	while (read(ask[0], &x, sizeof(x)) == sizeof(x)) {
		x = mix(x);
		if (syscall(SYS_getppid) != -1 || errno != 77 || syscall(SYS_sched_getparam, 0, NULL) != -1 || errno != 84)
			x = 0;
		if (write(answer[1], &x, sizeof(x)) != sizeof(x))
			break;
	}
	_exit(0);
}

static void family_setup(void)
{
	must(!pipe(ask) && !pipe(answer) && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	install_common(0);
	child = fork();
	must(child >= 0);
	if (!child) {
		close(ask[1]);
		close(answer[0]);
		child_of_filtered();
	}
	strict_ask(5);
}

static void family_check(void)
{
	strict_ask(99);
	expect_errno("getppid", syscall(SYS_getppid), 77);
	kill(child, SIGKILL);
}

VICTIM(seccomp_family, V_NO_STOP, family_setup, strict_work, family_check);
