// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stop.c - victims that the driver sends signals to while it moves them
 *
 * stop_signals: what was sent to it while it was stopped is delivered after SIGCONT, once, and not before. Threads wait in calls that a stop interrupts in
 * each of the kernel's ways.
 *
 * signal_numbers: queued signals with the numbers 0, 1, ...; STATUS.sent says how many.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

#define SLEEP_MS 1500u

static volatile sig_atomic_t seen[65], queued_sum;
static volatile uint64_t laps;

static void on_signal(int sig, siginfo_t *si, void *ctx)
{
	seen[sig]++;
	if (si->si_code == SI_QUEUE)
		queued_sum += si->si_int;
}

/* A sleep goes on after a stop, and ends in its time; epoll_wait says EINTR after one, which no other signal of this thread can be the reason of. */
static void *sleeper(void *arg)
{
	struct epoll_event event;
	int epoll = arg ? epoll_create1(EPOLL_CLOEXEC) : -1;

	while (!victim_stopping) {
		uint64_t begin = now_ns(CLOCK_MONOTONIC);
		struct timespec t = { SLEEP_MS / 1000, SLEEP_MS % 1000 * 1000000 };

		if (!arg) {
			expect(!syscall(SYS_nanosleep, &t, NULL));
			expect(now_ns(CLOCK_MONOTONIC) - begin >= SLEEP_MS * 1000000ull);
		} else {
			int n = epoll_wait(epoll, &event, 1, SLEEP_MS);

			expect(n == 0 || (n < 0 && errno == EINTR));
		}
	}
	return NULL;
}

static void *runner(void *arg)
{
	while (!victim_stopping)
		laps++;
	return NULL;
}

static void stop_setup(void)
{
	static const int signals[] = { SIGUSR1, SIGUSR2, SIGCONT };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
	sigset_t blocked;

	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		must(!sigaction(signals[i], &sa, NULL));
	must(!sigaction(SIGRTMIN + 4, &sa, NULL));
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &blocked, NULL);
	spawn(sleeper, NULL, NULL);
	spawn(sleeper, (void *)1, NULL);
	spawn(runner, NULL, NULL);
}

static void stop_work(void)
{
	laps++;
	usleep(1000); /* SIGCONT has a handler: EINTR */
}

/* The driver has stopped it, sent USR1, USR2 and two queued real-time signals (values 5 and 7), and continued it once. */
static void stop_check(void)
{
	sigset_t pending;

	if (victim_arg(0, 0)) {
		expect_u64("SIGCONT", (uint64_t)victim_arg(0, 0), (uint64_t)seen[SIGCONT]);
		expect_u64("SIGUSR1", 1, (uint64_t)seen[SIGUSR1]);
		expect_u64("SIGUSR2, which is blocked", 0, (uint64_t)seen[SIGUSR2]);
		expect_u64("real-time signals", 2, (uint64_t)seen[SIGRTMIN + 4]);
		expect_u64("their values", 12, (uint64_t)queued_sum);
		sigpending(&pending);
		expect(sigismember(&pending, SIGUSR2) == 1);
	}
	join_all();
}

VICTIM(stop_signals, V_CHECK_FILE, stop_setup, stop_work, stop_check);

/* A child that a terminal's stop signal has stopped, as its parent hears of it. Its group is not orphaned: the parent is in another one of the session. */
static pid_t tstp_child;

static void expect_stopped(void)
{
	siginfo_t si = { 0 };

	if (waitid(P_PID, (id_t)tstp_child, &si, WSTOPPED | WNOWAIT) < 0)
		fail("waitid for a stopped child: errno %d", errno);
	expect_u64("what its parent hears", CLD_STOPPED, (uint64_t)si.si_code);
	expect_u64("signal that stopped it", SIGTSTP, (uint64_t)si.si_status);
}

static void tstp_setup(void)
{
	tstp_child = fork();
	must(tstp_child >= 0);
	if (!tstp_child)
		for (;;)
			pause();
	must(!setpgid(tstp_child, tstp_child) && !kill(tstp_child, SIGTSTP));
	expect_stopped();
}

static void tstp_check(void)
{
	expect_stopped();
	kill(tstp_child, SIGKILL);
	expect(waitpid(tstp_child, NULL, 0) == tstp_child);
}

VICTIM(stop_child_tstp, 0, tstp_setup, NULL, tstp_check);

static volatile uint64_t numbers;

static void on_number(int sig, siginfo_t *si, void *ctx)
{
	if ((uint64_t)(uintptr_t)si->si_ptr != numbers)
		fail("number of a signal, expected %llu, got %llu", (unsigned long long)numbers, (unsigned long long)(uintptr_t)si->si_ptr);
	numbers++;
}

static void numbers_setup(void)
{
	struct sigaction sa = { .sa_sigaction = on_number, .sa_flags = SA_SIGINFO | SA_RESTART };

	must(!sigaction(SIGRTMIN + 7, &sa, NULL));
}

/* The last ones, which reached a dead process, nobody can have got; there are few of them. */
static void numbers_check(void)
{
	unsigned long long sent = 0;
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s.sent", victim_out);
	f = victim_arg(0, 0) ? fopen(path, "re") : NULL;

	if (!f)
		return;
	expect(fscanf(f, "%llu", &sent) == 1);
	fclose(f);
	if (numbers > sent || numbers + 100 < sent)
		fail("signals, expected nearly %llu, got %llu", sent, (unsigned long long)numbers);
	report("info sent=%llu got=%llu", sent, (unsigned long long)numbers);
}

VICTIM(signal_numbers, V_CHECK_FILE, numbers_setup, NULL, numbers_check);

/* ---- stopped children: what their parent has been told of a stop it is not told again, and what it has not been told it still is ---- */

static pid_t told, untold;
static int from_child[2];

static void stopped_child(const char *word)
{
	raise(SIGSTOP);
	if (write(from_child[1], word, 1) != 1)
		_exit(9);
	_exit(*word);
}

static void children_setup(void)
{
	siginfo_t si = { 0 };
	sigset_t chld;

	must(!pipe(from_child));
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	must(!sigprocmask(SIG_BLOCK, &chld, NULL));
	told = fork();
	if (!told)
		stopped_child("t");
	must(waitid(P_PID, (id_t)told, &si, WSTOPPED) == 0 && si.si_status == SIGSTOP);
	untold = fork();
	if (!untold)
		stopped_child("u");
	must(waitid(P_PID, (id_t)untold, &si, WSTOPPED | WNOWAIT) == 0 && si.si_code == CLD_STOPPED);
	must(sigtimedwait(&chld, NULL, &(struct timespec){ 1, 0 }) == SIGCHLD); /* both stops in one signal, or two: none is left */
	sigtimedwait(&chld, NULL, &(struct timespec){ 0, 0 });
}

static void expect_end(pid_t pid, char word)
{
	siginfo_t si = { 0 };
	char got = 0;

	expect(!kill(pid, SIGCONT));
	expect(!waitid(P_PID, (id_t)pid, &si, WCONTINUED | WEXITED));
	if (si.si_code == CLD_CONTINUED)
		expect(!waitid(P_PID, (id_t)pid, &si, WEXITED));
	expect_u64("how a child ended", CLD_EXITED, (uint64_t)si.si_code);
	expect_u64("its status", (uint64_t)word, (uint64_t)si.si_status);
	expect(read(from_child[0], &got, 1) == 1);
	expect_u64("its word", (uint64_t)word, (uint64_t)got);
}

static void children_check(void)
{
	siginfo_t si = { 0 };
	sigset_t chld;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	expect(sigtimedwait(&chld, NULL, &(struct timespec){ 0, 50000000 }) < 0 && errno == EAGAIN);
	expect(!waitid(P_PID, (id_t)told, &si, WSTOPPED | WCONTINUED | WNOHANG));
	expect_u64("news of a child whose stop is known", 0, (uint64_t)si.si_pid);
	expect(!waitid(P_PID, (id_t)untold, &si, WSTOPPED | WCONTINUED | WNOHANG));
	expect_u64("news of a child whose stop is not known yet", (uint64_t)untold, (uint64_t)si.si_pid);
	expect_u64("its code", CLD_STOPPED, (uint64_t)si.si_code);
	expect_u64("its signal", SIGSTOP, (uint64_t)si.si_status);
	expect_end(told, 't');
	expect_end(untold, 'u');
}

VICTIM(stop_children, V_CHECK_FILE, children_setup, NULL, children_check);

/* ---- the same of children that have been continued ---- */

static void *does_nothing(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static pid_t continued_child(bool with_thread)
{
	siginfo_t si = { 0 };
	pthread_t thread;
	pid_t child = fork();

	must(child >= 0);
	if (!child) {
		if (with_thread)
			must(!pthread_create(&thread, NULL, does_nothing, NULL));
		raise(SIGSTOP);
		does_nothing(NULL);
	}
	must(waitid(P_PID, (id_t)child, &si, WSTOPPED) == 0 && si.si_status == SIGSTOP && !kill(child, SIGCONT));
	must(waitid(P_PID, (id_t)child, &si, WCONTINUED | WNOWAIT) == 0 && si.si_code == CLD_CONTINUED);
	return child;
}

static pid_t with_thread;

static void news_setup(void)
{
	sigset_t chld;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	must(!sigprocmask(SIG_BLOCK, &chld, NULL));
	told = continued_child(false);
	untold = continued_child(false);
	with_thread = continued_child(true);
	must(waitid(P_PID, (id_t)told, &(siginfo_t){ 0 }, WCONTINUED) == 0);
	while (sigtimedwait(&chld, NULL, &(struct timespec){ 0, 50000000 }) == SIGCHLD)
		;
}

static void expect_news(pid_t child, bool any)
{
	siginfo_t si = { 0 };

	expect(!waitid(P_PID, (id_t)child, &si, WSTOPPED | WCONTINUED | WNOHANG));
	expect_u64("whose news there are", any ? (uint64_t)child : 0, (uint64_t)si.si_pid);
	if (any)
		expect_u64("what they are", CLD_CONTINUED, (uint64_t)si.si_code);
}

static void news_check(void)
{
	pid_t all[] = { told, untold, with_thread };
	sigset_t chld;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	expect(sigtimedwait(&chld, NULL, &(struct timespec){ 0, 50000000 }) < 0 && errno == EAGAIN);
	for (int again = 0; again < 2; again++)
		for (int i = 0; i < 3; i++)
			expect_news(all[i], i > 0 && !again);
	for (int i = 0; i < 3; i++) {
		kill(all[i], SIGKILL);
		expect(waitpid(all[i], NULL, 0) == all[i]);
	}
}

VICTIM(stop_news, V_CHECK_FILE, news_setup, NULL, news_check);

/* ---- SIGCONT, blocked and pending: one that everybody may take, one of a thread ---- */

static void *continued_thread(void *arg)
{
	sigset_t cont;
	siginfo_t si = { 0 };

	sigemptyset(&cont);
	sigaddset(&cont, SIGCONT);
	must(!pthread_kill(pthread_self(), SIGCONT));
	pthread_barrier_wait(arg);
	while (!victim_stopping)
		usleep(10000);
	expect(sigtimedwait(&cont, &si, &(struct timespec){ 0, 0 }) == SIGCONT);
	return NULL;
}

static pthread_barrier_t continued;

static void continued_setup(void)
{
	sigset_t cont;

	sigemptyset(&cont);
	sigaddset(&cont, SIGCONT);
	must(!pthread_sigmask(SIG_BLOCK, &cont, NULL));
	pthread_barrier_init(&continued, NULL, 2);
	spawn(continued_thread, &continued, NULL);
	pthread_barrier_wait(&continued);
	must(!sigqueue(getpid(), SIGCONT, (union sigval){ .sival_int = 77 }));
}

static void continued_check(void)
{
	sigset_t cont;
	siginfo_t si = { 0 };

	join_all();
	sigemptyset(&cont);
	sigaddset(&cont, SIGCONT);
	expect(sigtimedwait(&cont, &si, &(struct timespec){ 0, 0 }) == SIGCONT);
	expect_u64("its code", (uint64_t)SI_QUEUE, (uint64_t)si.si_code);
	expect_u64("its value", 77, (uint64_t)si.si_int);
	expect_u64("its sender", (uint64_t)getpid(), (uint64_t)si.si_pid);
}

VICTIM(stop_continued, V_CHECK_FILE | V_NO_STOP, continued_setup, NULL, continued_check);
