// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * refuse.c - states that cannot move: Godwit has to say so, naming the thing, before the process is touched
 *
 * Each kind's text is a regular expression that the refusal must match ("fd N" stands for the number that "info fd=" reports).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

static int held, held2;
static pid_t helper;

/* Works all the time, so that harm shows. */
static uint64_t work_sum, work_rounds;

static void work(void)
{
	uint64_t s = 0;

	for (uint64_t i = 0; i < 10000; i++)
		s += mix(i);
	work_sum += s;
	work_rounds++;
	usleep(1000);
}

static void check(void)
{
	uint64_t s = 0;

	for (uint64_t i = 0; i < 10000; i++)
		s += mix(i);
	expect_u64("sum", s * work_rounds, work_sum);
	if (helper > 0)
		kill(helper, SIGKILL);
}

#define REFUSED(name, setup, text) VICTIM_TEXT(victim_refuse_##name, "refuse_" #name, setup, work, check, V_REFUSED, text)

static void hold(int fd)
{
	must(fd >= 0);
	held = fd;
	report("info fd=%d", fd);
}

/* Pipe to which a process that is not ours, and not our child, holds the other end. */
static void detached_helper(void (*run)(void *), void *arg)
{
	int p[2], status;
	pid_t child;

	must(!pipe2(p, O_CLOEXEC));
	child = fork();
	must(child >= 0);
	if (!child) {
		pid_t grandchild = fork();

		if (grandchild) {
			must(write(p[1], &grandchild, sizeof(grandchild)) == sizeof(grandchild));
			_exit(0);
		}
		signal(SIGTERM, SIG_DFL);
		alarm(120);
		run(arg);
		_exit(0);
	}
	must(read(p[0], &helper, sizeof(helper)) == sizeof(helper));
	must(waitpid(child, &status, 0) == child);
	close(p[0]);
	close(p[1]);
}

static void just_wait(void *arg)
{
	for (;;)
		pause();
}

static void child_setup(void)
{
	helper = fork();
	must(helper >= 0);
	if (!helper) {
		signal(SIGTERM, SIG_DFL);
		alarm(120);
		just_wait(NULL);
	}
}

REFUSED(child, child_setup, "child|descendant");

static void zombie_setup(void)
{
	pid_t child = fork();

	must(child >= 0);
	if (!child)
		_exit(3);
	usleep(20000);
}

REFUSED(zombie, zombie_setup, "child|zombie");

static int tcp_pair(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(!bind(l, (struct sockaddr *)&sin, len) && !listen(l, 1) && !getsockname(l, (struct sockaddr *)&sin, &len));
	must(!connect(c, (struct sockaddr *)&sin, len));
	held2 = accept(l, NULL, NULL);
	close(l);
	return c;
}

static void tcp_setup(void)
{
	hold(tcp_pair());
}

REFUSED(tcp, tcp_setup, "(?i)fd N\\b.*tcp|tcp.*fd N\\b");

static void udp_setup(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(9) };

	hold(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	must(!connect(held, (struct sockaddr *)&sin, sizeof(sin)));
}

REFUSED(udp, udp_setup, "(?i)fd N\\b.*udp|udp.*fd N\\b");

/* The other end is held by a process outside. */
static void unix_setup(void)
{
	int s[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	detached_helper(just_wait, NULL);
	close(s[1]);
	hold(s[0]);
}

REFUSED(unix, unix_setup, "(?i)fd N\\b.*(unix|socketpair)");

static void packet_setup(void)
{
	hold(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
}

REFUSED(netlink, packet_setup, "(?i)fd N\\b.*(netlink|socket)");

static void hold_pipe(void *arg)
{
	just_wait(NULL);
}

static void pipe_setup(void)
{
	int p[2];

	must(!pipe2(p, 0));
	detached_helper(hold_pipe, NULL);
	close(p[1]);
	hold(p[0]);
}

REFUSED(pipe, pipe_setup, "(?i)fd N\\b.*pipe");

static void tty_setup(void)
{
	int m = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), s;

	must(m >= 0 && !grantpt(m) && !unlockpt(m));
	s = open(ptsname(m), O_RDWR | O_CLOEXEC);
	must(s >= 0);
	must(getsid(0) == getpid());
	(void)ioctl(s, TIOCSCTTY, 0);
	signal(SIGHUP, SIG_IGN);
	hold(s);
}

REFUSED(tty, tty_setup, "(?i)(fd N\\b.*(tty|terminal|pts))|controlling terminal");

static void be_tracer(void *arg)
{
	pid_t victim = (pid_t)(uintptr_t)arg;
	int status;

	if (ptrace(PTRACE_SEIZE, victim, 0, 0))
		_exit(1);
	for (;;) {
		pid_t p = waitpid(-1, &status, __WALL);

		if (p < 0)
			_exit(0);
		if (WIFSTOPPED(status))
			ptrace(PTRACE_CONT, p, 0, status >> 16 ? 0 : WSTOPSIG(status));
	}
}

static void ptraced_setup(void)
{
	FILE *f;
	char line[256];
	bool traced = false;

	detached_helper(be_tracer, (void *)(uintptr_t)getpid());
	for (int i = 0; i < 100 && !traced; i++) {
		usleep(10000);
		f = fopen("/proc/self/status", "re");
		while (fgets(line, sizeof(line), f)) {
			if (!strncmp(line, "TracerPid:", 10))
				traced = atoi(line + 10) > 0;
		}
		fclose(f);
	}
	must(traced);
}

REFUSED(ptraced, ptraced_setup, "(?i)trac");

static void seccomp_setup(void)
{
	struct sock_filter allow = { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW };
	struct sock_fprog prog = { 1, &allow };

	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

REFUSED(seccomp, seccomp_setup, "(?i)seccomp");

static void inotify_setup(void)
{
	hold(inotify_init1(IN_CLOEXEC));
	must(inotify_add_watch(held, "/etc", IN_CREATE) > 0);
}

REFUSED(inotify, inotify_setup, "(?i)fd N\\b.*inotify");

static void uffd_setup(void)
{
	hold((int)syscall(SYS_userfaultfd, O_CLOEXEC));
}

REFUSED(userfaultfd, uffd_setup, "(?i)fd N\\b.*userfaultfd");

static void uring_setup(void)
{
	struct io_uring_params p = { 0 };

	hold((int)syscall(SYS_io_uring_setup, 4, &p));
}

REFUSED(io_uring, uring_setup, "(?i)fd N\\b.*io_uring");

static void perf_setup(void)
{
	struct perf_event_attr a = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(a), .config = PERF_COUNT_SW_TASK_CLOCK };

	hold((int)syscall(SYS_perf_event_open, &a, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
}

REFUSED(perf, perf_setup, "(?i)fd N\\b.*perf");

static void sysv_setup(void)
{
	int id = shmget(IPC_PRIVATE, 65536, 0600);
	char *p = shmat(id, NULL, 0);

	must(p != (void *)-1);
	shmctl(id, IPC_RMID, NULL);
	fill(p, 65536, 1);
}

REFUSED(sysv_shm, sysv_setup, "(?i)sysv|shm");

static void mq_setup(void)
{
	char name[64];

	snprintf(name, sizeof(name), "/victim-%d", getpid());
	hold(mq_open(name, O_CREAT | O_RDWR | O_CLOEXEC, 0600, NULL));
	mq_unlink(name);
}

REFUSED(mqueue, mq_setup, "(?i)fd N\\b");

static void pidfd_setup(void)
{
	hold((int)syscall(SYS_pidfd_open, getpid(), 0));
}

REFUSED(pidfd, pidfd_setup, "(?i)fd N\\b.*pidfd");

static void proc_setup(void)
{
	char path[64];

	detached_helper(just_wait, NULL);
	snprintf(path, sizeof(path), "/proc/%d/status", helper);
	hold(open(path, O_RDONLY | O_CLOEXEC));
}

REFUSED(proc_file, proc_setup, "(?i)fd N\\b.*proc");

static int share_files(void *arg)
{
	for (;;)
		pause();
	return 0;
}

/* A process that shares our memory (and descriptors) without being a thread. */
static void share_setup(unsigned long flags)
{
	char *stack = map_anon(65536, PROT_READ | PROT_WRITE, 0);

	helper = clone(share_files, stack + 65536, (int)flags, NULL);
	must(helper > 0);
}

static void shared_vm_setup(void)
{
	share_setup(CLONE_VM | CLONE_PARENT | SIGCHLD);
}

REFUSED(shared_vm, shared_vm_setup, "(?i)memory|address space|child|share");

static void *unshared(void *arg)
{
	must(!unshare(CLONE_FILES));
	must(open("/dev/zero", O_RDONLY) >= 0);
	*(volatile int *)arg = 1;
	while (!victim_stopping)
		usleep(10000);
	return NULL;
}

static void unshared_files_setup(void)
{
	static volatile int up;

	spawn(unshared, (void *)&up, NULL);
	while (!up)
		usleep(1000);
}

REFUSED(unshared_files, unshared_files_setup, "(?i)descriptor table|files|thread");

static void in_flight_setup(void)
{
	char c = 'x', control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &c, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	int s[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	must(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, s));
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &null, sizeof(int));
	must(sendmsg(s[0], &m, 0) == 1);
	hold(s[1]);
}

REFUSED(in_flight, in_flight_setup, "(?i)fd (N|[0-9]+)\\b.*(unix|socketpair)");

static void lease_setup(void)
{
	hold(open(beside("leased"), O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
	must(!fcntl(held, F_SETLEASE, F_RDLCK));
}

REFUSED(lease, lease_setup, "(?i)(fd N\\b.*)?lease");
