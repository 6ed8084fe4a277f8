// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * sleep.c - threads that are inside a system call while the process moves
 *
 * `sleep [CALL]`: calls with a timeout: each ends at its time, never earlier, never much later, never with EINTR, and is not started over.
 * `block [CALL]`: calls without one: each ends when it is woken after the move, with the result it would have had.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "victim.h"

#define MS 1000000ull
#define LATE (400 * MS)

static int empty_pipe[2], empty_epoll;
static uint32_t futex_word;

/* Each returns 0 when the call ended as a timeout ends, or the errno (or -1 for a wrong result). Times are relative unless abs says so. */
struct times {
	struct timespec rel, abs_mono, abs_real;
	int rel_ms;
};

static int ended(long ret, long want, int want_errno)
{
	if (ret != want)
		return ret < 0 ? errno : -1;
	return ret < 0 && errno != want_errno ? errno : 0;
}

static int s_nanosleep(const struct times *t)
{
	return ended(nanosleep(&t->rel, NULL), 0, 0);
}

/* The kernel writes the time that remains at every stop, SIGSTOP's for example, although the call goes on afterwards. */
static int s_nanosleep_rem(const struct times *t)
{
	struct timespec rem = { 77, 77 };
	int err = ended(nanosleep(&t->rel, &rem), 0, 0);
	bool untouched = rem.tv_sec == 77 && rem.tv_nsec == 77;
	bool remains = rem.tv_sec >= 0 && rem.tv_sec <= t->rel.tv_sec && rem.tv_nsec >= 0 && rem.tv_nsec < 1000000000;

	return err ? err : untouched || remains ? 0 : -1;
}

static int s_clock_rel(const struct times *t)
{
	return clock_nanosleep(CLOCK_MONOTONIC, 0, &t->rel, NULL);
}

static int s_clock_rel_boot(const struct times *t)
{
	return clock_nanosleep(CLOCK_BOOTTIME, 0, &t->rel, NULL);
}

static int s_clock_abs(const struct times *t)
{
	return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t->abs_mono, NULL);
}

static int s_clock_abs_real(const struct times *t)
{
	return clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &t->abs_real, NULL);
}

static int s_poll(const struct times *t)
{
	struct pollfd p = { empty_pipe[0], POLLIN, 0 };

	return ended(poll(&p, 1, t->rel_ms), 0, 0);
}

static int s_poll_none(const struct times *t)
{
	return ended(poll(NULL, 0, t->rel_ms), 0, 0);
}

static int s_ppoll(const struct times *t)
{
	struct pollfd p = { empty_pipe[0], POLLIN, 0 };

	return ended(ppoll(&p, 1, &t->rel, NULL), 0, 0);
}

static int s_ppoll_mask(const struct times *t)
{
	struct pollfd p = { empty_pipe[0], POLLIN, 0 };
	sigset_t mask;

	sigfillset(&mask);
	sigdelset(&mask, SIGURG);
	return ended(ppoll(&p, 1, &t->rel, &mask), 0, 0);
}

static int s_select(const struct times *t)
{
	struct timeval tv = { t->rel.tv_sec, t->rel.tv_nsec / 1000 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(empty_pipe[0], &set);
	return ended(select(empty_pipe[0] + 1, &set, NULL, NULL, &tv), 0, 0);
}

static int s_pselect(const struct times *t)
{
	sigset_t mask;
	fd_set set;

	FD_ZERO(&set);
	FD_SET(empty_pipe[0], &set);
	sigfillset(&mask);
	return ended(pselect(empty_pipe[0] + 1, &set, NULL, NULL, &t->rel, &mask), 0, 0);
}

static int s_futex_rel(const struct times *t)
{
	return ended(syscall(SYS_futex, &futex_word, FUTEX_WAIT_PRIVATE, 0, &t->rel, NULL, 0), -1, ETIMEDOUT);
}

static int s_futex_abs(const struct times *t)
{
	return ended(syscall(SYS_futex, &futex_word, FUTEX_WAIT_BITSET_PRIVATE, 0, &t->abs_mono, NULL, FUTEX_BITSET_MATCH_ANY), -1, ETIMEDOUT);
}

static int s_epoll(const struct times *t)
{
	struct epoll_event ev;

	return ended(epoll_wait(empty_epoll, &ev, 1, t->rel_ms), 0, 0);
}

static int s_epoll_pwait(const struct times *t)
{
	struct epoll_event ev;
	sigset_t mask;

	sigfillset(&mask);
	return ended(epoll_pwait(empty_epoll, &ev, 1, t->rel_ms, &mask), 0, 0);
}

static int s_epoll_pwait2(const struct times *t)
{
	struct epoll_event ev;

	return ended(epoll_pwait2(empty_epoll, &ev, 1, &t->rel, NULL), 0, 0);
}

static int s_sem(const struct times *t)
{
	static sem_t sem;

	return ended(sem_timedwait(&sem, &t->abs_real), -1, ETIMEDOUT);
}

static int s_cond(const struct times *t)
{
	static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
	int err;

	pthread_mutex_lock(&m);
	err = pthread_cond_timedwait(&c, &m, &t->abs_real);
	pthread_mutex_unlock(&m);
	return err == ETIMEDOUT ? 0 : err ? err : -1;
}

static int s_mutex(const struct times *t)
{
	static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	int err;

	pthread_mutex_lock(&m);
	err = pthread_mutex_timedlock(&m, &t->abs_real);
	return err == ETIMEDOUT ? 0 : err ? err : -1;
}

static int s_sigtimedwait(const struct times *t)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return ended(sigtimedwait(&set, NULL, &t->rel), -1, EAGAIN);
}

static int s_io_pgetevents(const struct times *t)
{
	unsigned long context = 0;
	struct timespec rel = t->rel;
	char event[32];
	int err;

	if (syscall(SYS_io_setup, 1, &context) < 0)
		return errno;
	err = ended(syscall(SYS_io_pgetevents, context, 1l, 1l, event, &rel, NULL), 0, 0);
	syscall(SYS_io_destroy, context);
	return err;
}

static int s_timerfd(const struct times *t)
{
	struct itimerspec its = { { 0, 0 }, t->rel };
	uint64_t count = 0;
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), err;

	timerfd_settime(fd, 0, &its, NULL);
	err = ended(read(fd, &count, 8), 8, 0);
	close(fd);
	return err ? err : count == 1 ? 0 : -1;
}

static int s_accept(const struct times *t)
{
	struct timeval tv = { t->rel.tv_sec, t->rel.tv_nsec / 1000 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	listen(fd, 5);
	err = ended(accept(fd, NULL, NULL), -1, EAGAIN);
	close(fd);
	return err;
}

static const struct {
	const char *name;
	int (*call)(const struct times *);
} sleeps[] = {
	{ "nanosleep", s_nanosleep },
	{ "nanosleep_rem", s_nanosleep_rem },
	{ "clock_rel", s_clock_rel },
	{ "clock_rel_boot", s_clock_rel_boot },
	{ "clock_abs", s_clock_abs },
	{ "clock_abs_real", s_clock_abs_real },
	{ "poll", s_poll },
	{ "poll_none", s_poll_none },
	{ "ppoll", s_ppoll },
	{ "ppoll_mask", s_ppoll_mask },
	{ "select", s_select },
	{ "pselect", s_pselect },
	{ "futex_rel", s_futex_rel },
	{ "futex_abs", s_futex_abs },
	{ "epoll", s_epoll },
	{ "epoll_pwait", s_epoll_pwait },
	{ "epoll_pwait2", s_epoll_pwait2 },
	{ "sem", s_sem },
	{ "cond", s_cond },
	{ "mutex", s_mutex },
	{ "sigtimedwait", s_sigtimedwait },
	{ "io_pgetevents", s_io_pgetevents }, { "timerfd", s_timerfd },
	{ "accept", s_accept },
};

static pthread_barrier_t started;
static uint64_t sleep_ns;

static struct timespec to_ts(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / (1000 * MS)), (long)(ns % (1000 * MS)) };
}

static void *sleep_thread(void *arg)
{
	size_t i = (size_t)arg;
	uint64_t len = sleep_ns + i * 5 * MS, t0, took, late;
	struct times t = { 0 };
	int err;

	pthread_barrier_wait(&started);
	t0 = now_ns(CLOCK_REALTIME);
	t.rel = to_ts(len);
	t.rel_ms = (int)(len / MS);
	t.abs_mono = to_ts(now_ns(CLOCK_MONOTONIC) + len);
	t.abs_real = to_ts(t0 + len);
	err = sleeps[i].call(&t);
	took = now_ns(CLOCK_REALTIME) - t0;
	if (err)
		fail("%s, expected the end of its time, got %s after %llu of %llu ms", sleeps[i].name,
		     err < 0 ? "another result" : strerrorname_np(err), (unsigned long long)(took / MS), (unsigned long long)(len / MS));
	/* A socket's own timeout cannot be shortened for one call: it starts over, the one wait that does (README). */
	late = sleeps[i].call == s_accept ? len + LATE : LATE;
	if (!err && (took + 2 * MS < len || took > len + late))
		fail("%s of %llu ms (at most %llu late), got %llu us", sleeps[i].name, (unsigned long long)(len / MS),
		     (unsigned long long)(late / MS), (unsigned long long)(took / 1000));
	if (getenv("VICTIM_EXPECT_MOVE") && !moved())
		fail("%s ended before the move: the driver was too slow", sleeps[i].name);
	return NULL;
}

static void sleep_setup(void)
{
	const char *only = victim_argc ? victim_argv[0] : "all";
	unsigned count = 0;

	sleep_ns = (uint64_t)victim_arg(1, 1500) * MS;
	must(!pipe2(empty_pipe, O_CLOEXEC));
	empty_epoll = epoll_create1(EPOLL_CLOEXEC);
	for (size_t i = 0; i < sizeof(sleeps) / sizeof(*sleeps); i++)
		count += !strcmp(only, "all") || !strcmp(only, sleeps[i].name);
	must(count);
	pthread_barrier_init(&started, NULL, count + 1);
	for (size_t i = 0; i < sizeof(sleeps) / sizeof(*sleeps); i++) {
		if (!strcmp(only, "all") || !strcmp(only, sleeps[i].name))
			spawn(sleep_thread, (void *)i, NULL);
	}
	pthread_barrier_wait(&started);
	usleep(20000);
}

VICTIM(sleep, V_TIMED | V_NO_STOP | V_OPENS, sleep_setup, NULL, join_all);

/* ---- calls that end when something happens ---- */

static int wake_pipe[2], wake_pipe2[2], wake_event, wake_listener, wake_signalfd, wake_epoll_fd, full_pipe[2], lock_fd[2];
static uint32_t wake_futex;
static sem_t wake_sem;
static pthread_mutex_t wake_mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned long block_thread_id[32];
static volatile int usr1_seen;

static int b_read(void)
{
	char c = 0;

	return ended(read(wake_pipe[0], &c, 1), 1, 0) ?: c == 'w' ? 0 : -1;
}

static void w_read(void)
{
	must(write(wake_pipe[1], "w", 1) == 1);
}

static int b_write(void)
{
	static char block[100000];

	return ended(write(full_pipe[1], block, sizeof(block)), sizeof(block), 0);
}

static void w_write(void)
{
	char buf[65536];
	size_t left = 65536 + 100000;

	while (left) {
		ssize_t n = read(full_pipe[0], buf, sizeof(buf) < left ? sizeof(buf) : left);

		must(n > 0);
		left -= (size_t)n;
	}
}

static int b_poll(void)
{
	struct pollfd p = { wake_pipe2[0], POLLIN, 0 };

	return ended(poll(&p, 1, -1), 1, 0) ?: p.revents == POLLIN ? 0 : -1;
}

static void w_poll(void)
{
	must(write(wake_pipe2[1], "p", 1) == 1);
}

static int b_eventfd(void)
{
	uint64_t v = 0;

	return ended(read(wake_event, &v, 8), 8, 0) ?: v == 5 ? 0 : -1;
}

static void w_eventfd(void)
{
	uint64_t v = 5;

	must(write(wake_event, &v, 8) == 8);
}

static int b_epoll(void)
{
	struct epoll_event ev = { 0 };

	return ended(epoll_wait(wake_epoll_fd, &ev, 1, -1), 1, 0) ?: ev.data.u64 == 0x1122334455667788 ? 0 : -1;
}

static int b_accept(void)
{
	int fd = accept(wake_listener, NULL, NULL);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static void w_accept(void)
{
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(!getsockname(wake_listener, (struct sockaddr *)&sin, &len));
	if (connect(fd, (struct sockaddr *)&sin, len))
		fail("connect to the listener after the move: errno %d", errno);
}

static int b_futex(void)
{
	return ended(syscall(SYS_futex, &wake_futex, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), 0, 0);
}

static void w_futex(void)
{
	__atomic_store_n(&wake_futex, 1, __ATOMIC_SEQ_CST);
	expect_u64("futex waiters woken", 1, (uint64_t)syscall(SYS_futex, &wake_futex, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
}

static int b_sem(void)
{
	return ended(sem_wait(&wake_sem), 0, 0);
}

static void w_sem(void)
{
	sem_post(&wake_sem);
}

static int b_mutex(void)
{
	return pthread_mutex_lock(&wake_mutex);
}

static void w_mutex(void)
{
	pthread_mutex_unlock(&wake_mutex);
}

static void on_usr1(int sig)
{
	usr1_seen++;
}

static int b_pause(void)
{
	sigset_t set;
	int err;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	err = ended(pause(), -1, EINTR);
	return err ?: usr1_seen ? 0 : -1;
}

static int b_sigsuspend(void)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGUSR1);
	return ended(sigsuspend(&set), -1, EINTR);
}

static int b_sigwait(void)
{
	sigset_t set;
	int sig = 0, err;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	err = sigwait(&set, &sig);
	return err ?: sig == SIGUSR2 ? 0 : -1;
}

static int b_sigwaitinfo(void)
{
	siginfo_t si = { 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return ended(sigwaitinfo(&set, &si), SIGUSR2, 0);
}

static int b_signalfd(void)
{
	struct signalfd_siginfo si = { 0 };

	return ended(read(wake_signalfd, &si, sizeof(si)), sizeof(si), 0) ?: si.ssi_signo == SIGUSR2 ? 0 : -1;
}

static int b_flock(void)
{
	return ended(flock(lock_fd[1], LOCK_EX), 0, 0);
}

static void w_flock(void)
{
	flock(lock_fd[0], LOCK_UN);
}

static const struct {
	const char *name;
	int (*call)(void);
	void (*wake)(void);
	int sig;
} blocks[] = {
	{ "read", b_read, w_read, 0 },
	{ "write", b_write, w_write, 0 },
	{ "poll", b_poll, w_poll, 0 },
	{ "eventfd", b_eventfd, w_eventfd, 0 },
	{ "epoll", b_epoll, w_poll, 0 },
	{ "accept", b_accept, w_accept, 0 },
	{ "futex", b_futex, w_futex, 0 },
	{ "sem", b_sem, w_sem, 0 },
	{ "mutex", b_mutex, w_mutex, 0 },
	{ "pause", b_pause, NULL, SIGUSR1 },
	{ "sigsuspend", b_sigsuspend, NULL, SIGUSR1 },
	{ "sigwait", b_sigwait, NULL, SIGUSR2 },
	{ "sigwaitinfo", b_sigwaitinfo, NULL, SIGUSR2 },
	{ "signalfd", b_signalfd, NULL, SIGUSR2 },
	{ "flock", b_flock, w_flock, 0 },
};
#define N_BLOCKS (sizeof(blocks) / sizeof(*blocks))

static bool block_on[N_BLOCKS];
static volatile bool block_may_end[N_BLOCKS];

static void *block_thread(void *arg)
{
	size_t i = (size_t)arg;
	int err;

	pthread_barrier_wait(&started);
	err = blocks[i].call();
	if (!block_may_end[i])
		fail("%s, expected to block, returned %s before it was woken", blocks[i].name, err > 0 ? strerrorname_np(err) : "success");
	else if (err)
		fail("%s, expected success, got %s", blocks[i].name, err < 0 ? "another result" : strerrorname_np(err));
	return NULL;
}

static void block_objects(void)
{
	struct sigaction sa = { .sa_handler = on_usr1 };
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 0x1122334455667788 };
	static char block[65536];
	sigset_t set;

	must(!sigaction(SIGUSR1, &sa, NULL));
	must(!pipe2(wake_pipe, O_CLOEXEC) && !pipe2(wake_pipe2, O_CLOEXEC) && !pipe2(full_pipe, O_CLOEXEC));
	must(write(full_pipe[1], block, sizeof(block)) == sizeof(block));
	wake_event = eventfd(0, EFD_CLOEXEC);
	wake_epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	must(!epoll_ctl(wake_epoll_fd, EPOLL_CTL_ADD, wake_pipe2[0], &ev));
	wake_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(!listen(wake_listener, 5));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	wake_signalfd = signalfd(-1, &set, SFD_CLOEXEC);
	sem_init(&wake_sem, 0, 0);
	pthread_mutex_lock(&wake_mutex);
	for (int i = 0; i < 2; i++)
		lock_fd[i] = open(beside("lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static void block_setup(void)
{
	const char *only = victim_argc ? victim_argv[0] : "all";
	unsigned count = 0;

	block_objects();
	for (size_t i = 0; i < N_BLOCKS; i++) {
		/* flock would make the whole unit unmovable where locks are refused: alone only */
		block_on[i] = !strcmp(only, blocks[i].name) || (!strcmp(only, "all") && strcmp(blocks[i].name, "flock"));
		count += block_on[i];
	}
	must(count);
	if (block_on[N_BLOCKS - 1])
		must(!flock(lock_fd[0], LOCK_EX));
	pthread_barrier_init(&started, NULL, count + 1);
	for (size_t i = 0; i < N_BLOCKS; i++) {
		if (block_on[i])
			spawn(block_thread, (void *)i, &block_thread_id[i]);
	}
	pthread_barrier_wait(&started);
	usleep(50000);
}

static void block_check(void)
{
	for (size_t i = 0; i < N_BLOCKS; i++)
		block_may_end[i] = true;
	for (size_t i = 0; i < N_BLOCKS && !failed(); i++) {
		if (!block_on[i])
			continue;
		if (blocks[i].sig && pthread_kill(block_thread_id[i], blocks[i].sig))
			fail("pthread_kill for %s", blocks[i].name);
		if (blocks[i].wake && !(i == 4 && block_on[2]))
			blocks[i].wake();
	}
	join_all();
	unlink(beside("lock"));
}

VICTIM(block, V_NO_STOP, block_setup, NULL, block_check);
