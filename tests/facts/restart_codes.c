// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * restart_codes.c - what a blocked system call looks like in the registers at a ptrace stop, and what it returns to the program
 * when the tracer does nothing: rax -512/-513/-514/-516 are restarted by the kernel, EINTR reaches the program unless
 * the tracer rewrites rax = orig_rax, rip -= 2
 */
#include <linux/futex.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "fact.h"

struct shared {
	volatile int ready, returned;
	volatile long result;
	volatile int error;
	uint32_t word;
};

static struct shared *s;

static long call_read(void)
{
	int p[2];
	char c;

	MUST(pipe(p) == 0);
	return syscall(SYS_read, p[0], &c, 1);
}

static long call_futex(void)
{
	return syscall(SYS_futex, &s->word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static long call_futex_timed(void)
{
	struct timespec t = { 100, 0 };

	return syscall(SYS_futex, &s->word, FUTEX_WAIT, 0, &t, NULL, 0);
}

static long call_futex_absolute(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += 100;
	return syscall(SYS_futex, &s->word, FUTEX_WAIT_BITSET, 0, &t, NULL, ~0u);
}

static long call_nanosleep(void)
{
	struct timespec t = { 100, 0 };

	return syscall(SYS_nanosleep, &t, &t);
}

static long call_clock_nanosleep_absolute(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += 100;
	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static long call_poll(void)
{
	return syscall(SYS_poll, NULL, 0, 100000);
}

static long call_poll_forever(void)
{
	return syscall(SYS_poll, NULL, 0, -1);
}

static long call_ppoll(void)
{
	struct timespec t = { 100, 0 };

	return syscall(SYS_ppoll, NULL, 0, &t, NULL, 0);
}

static long call_select(void)
{
	struct timeval t = { 100, 0 };

	return syscall(SYS_select, 0, NULL, NULL, NULL, &t);
}

static long call_pselect(void)
{
	struct timespec t = { 100, 0 };

	return syscall(SYS_pselect6, 0, NULL, NULL, NULL, &t, NULL);
}

static long call_pause(void)
{
	return syscall(SYS_pause);
}

static long call_epoll_wait(void)
{
	struct epoll_event ev;

	return syscall(SYS_epoll_wait, epoll_create1(0), &ev, 1, 100000);
}

static long call_epoll_pwait_forever(void)
{
	struct epoll_event ev;

	return syscall(SYS_epoll_pwait, epoll_create1(0), &ev, 1, -1, NULL, 0);
}

static long call_sigtimedwait(void)
{
	struct timespec t = { 100, 0 };
	uint64_t set = 1ull << (SIGUSR1 - 1);

	return syscall(SYS_rt_sigtimedwait, &set, NULL, &t, 8);
}

static long call_sigsuspend(void)
{
	uint64_t set = 0;

	return syscall(SYS_rt_sigsuspend, &set, 8);
}

static int listener(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	MUST(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 1) == 0);
	return fd;
}

static long call_accept(void)
{
	return syscall(SYS_accept, listener(), NULL, NULL);
}

static long call_accept_timeout(void)
{
	struct timeval t = { 100, 0 };
	int fd = listener();

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	return syscall(SYS_accept, fd, NULL, NULL);
}

static long call_recv(void)
{
	int p[2];
	char c;

	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0);
	return syscall(SYS_recvfrom, p[0], &c, 1, 0, NULL, NULL);
}

static long call_recv_timeout(void)
{
	struct timeval t = { 100, 0 };
	int p[2];
	char c;

	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, p) == 0);
	setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t));
	return syscall(SYS_recvfrom, p[0], &c, 1, 0, NULL, NULL);
}

static long call_semop(void)
{
	int id = semget(IPC_PRIVATE, 1, 0600);
	struct sembuf b = { 0, -1, 0 };
	long r = syscall(SYS_semop, id, &b, 1);
	int e = errno;

	semctl(id, 0, IPC_RMID);
	errno = e;
	return r;
}

static long call_msgrcv(void)
{
	int id = msgget(IPC_PRIVATE, 0600);
	char b[64];
	long r = syscall(SYS_msgrcv, id, b, 8, 0, 0);
	int e = errno;

	msgctl(id, IPC_RMID, NULL);
	errno = e;
	return r;
}

static long call_wait4(void)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	long r = syscall(SYS_wait4, pid, NULL, 0, NULL);
	int e = errno;
	kill(pid, SIGKILL);
	errno = e;
	return r;
}

static long call_timerfd_read(void)
{
	uint64_t v;

	return syscall(SYS_read, timerfd_create(CLOCK_MONOTONIC, 0), &v, 8);
}

enum seen { RESTARTED, REACHED_PROGRAM };

static const struct {
	const char *name;
	long (*call)(void);
	long rax; /* expected at the stop */
	enum seen seen;
} calls[] = {
	{ "read of a pipe", call_read, -512, RESTARTED },
	{ "recv", call_recv, -512, RESTARTED },
	{ "recv with SO_RCVTIMEO", call_recv_timeout, -EINTR, REACHED_PROGRAM },
	{ "accept", call_accept, -512, RESTARTED },
	{ "accept with SO_RCVTIMEO", call_accept_timeout, -EINTR, REACHED_PROGRAM },
	{ "read of a timerfd", call_timerfd_read, -512, RESTARTED },
	{ "wait4", call_wait4, -512, RESTARTED },
	{ "futex wait", call_futex, -512, RESTARTED },
	{ "futex wait, timed", call_futex_timed, -516, RESTARTED },
	{ "futex wait, absolute timeout", call_futex_absolute, -516, RESTARTED },
	{ "nanosleep", call_nanosleep, -516, RESTARTED },
	{ "clock_nanosleep absolute", call_clock_nanosleep_absolute, -514, RESTARTED },
	{ "poll, timed", call_poll, -516, RESTARTED },
	{ "poll, forever", call_poll_forever, -516, RESTARTED },
	{ "ppoll, timed", call_ppoll, -514, RESTARTED },
	{ "select, timed", call_select, -514, RESTARTED },
	{ "pselect6, timed", call_pselect, -514, RESTARTED },
	{ "pause", call_pause, -514, RESTARTED },
	{ "rt_sigsuspend", call_sigsuspend, -514, RESTARTED },
	{ "epoll_wait, timed", call_epoll_wait, -EINTR, REACHED_PROGRAM },
	{ "epoll_pwait, forever", call_epoll_pwait_forever, -EINTR, REACHED_PROGRAM },
	{ "rt_sigtimedwait", call_sigtimedwait, -EINTR, REACHED_PROGRAM },
	{ "semop", call_semop, -EINTR, REACHED_PROGRAM },
	{ "msgrcv", call_msgrcv, -514, RESTARTED },
};

static void one(unsigned i, bool rewrite)
{
	struct user_regs_struct r;
	int status;

	memset(s, 0, sizeof(*s));
	pid_t pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		s->ready = 1;
		s->result = calls[i].call();
		s->error = s->result < 0 ? errno : 0;
		s->returned = 1;
		_exit(0);
	}
	WAIT_FOR(s->ready && task_state(pid) == 'S');
	usleep(1000); /* some set things up before they block */
	WAIT_FOR(task_state(pid) == 'S');
	seize_stop(pid, 0);
	MUST(ptrace(PTRACE_GETREGS, pid, 0, &r) == 0);
	long rax = (long)r.rax;
	if (rewrite && rax == -EINTR && (long)r.orig_rax >= 0) {
		r.rax = r.orig_rax;
		r.rip -= 2;
		MUST(ptrace(PTRACE_SETREGS, pid, 0, &r) == 0);
	}
	MUST(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
	for (int quiet = 0; quiet < 3; usleep(500)) /* blocked again, or ended */
		quiet = strchr("SZ", task_state(pid)) ? quiet + 1 : 0;
	if (!rewrite)
		FACT(rax == calls[i].rax && s->returned == (calls[i].seen == REACHED_PROGRAM), "%-30s rax %4ld at the stop; program: %s", calls[i].name, rax,
		     s->returned ? strerror(s->error) : "still waits");
	else if (rax == -EINTR)
		FACT(!s->returned, "%-30s rewritten (rax = orig_rax, rip - 2): still waits", calls[i].name);
	kill(-pid, SIGKILL);
	waitpid(pid, &status, 0);
}

int main(void)
{
	s = map_shared(PAGE);
	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		one(i, false);
	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (calls[i].seen == REACHED_PROGRAM)
			one(i, true);
	return fact_result();
}
