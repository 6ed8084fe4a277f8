// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * late.c - victims whose attributes change all the time, so also between the offer and the freeze
 *
 * A table of attributes, each with a few values that can be set and read again. What was last set is noted; from the move on nothing is set any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/fsuid.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "late.h"
#include "victim.h"

#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_BEST_EFFORT (2 << 13)

static const struct late_attribute *attributes;
static int n_attributes, noted[LATE_ATTRIBUTES_MAX];
static uint64_t steps;

void late_begin(const struct late_attribute *a, int n)
{
	must(n <= LATE_ATTRIBUTES_MAX);
	attributes = a;
	n_attributes = n;
	for (int i = 0; i < n; i++) {
		for (noted[i] = a[i].values - 1; noted[i] >= 0; noted[i]--) {
			a[i].set(noted[i]);
			if (a[i].get() != noted[i])
				fail("%s, set to %d, is %d (errno %d)", a[i].name, noted[i], a[i].get(), errno);
		}
		noted[i] = 0;
	}
}

void late_work(void)
{
	for (int k = 0; k < 32 && !moved(); k++) {
		uint64_t r = mix(++steps);
		int i = (int)(r % (unsigned)n_attributes), value = (int)(r >> 32) & 0xff;

		value %= attributes[i].values;
		attributes[i].set(value);
		noted[i] = value;
	}
}

void late_check(void)
{
	for (int i = 0; i < n_attributes; i++) {
		int got = attributes[i].get();

		if (got != noted[i])
			fail("%s, expected %d, got %d", attributes[i].name, noted[i], got);
	}
}

#define BEGIN(table) late_begin(table, (int)(sizeof(table) / sizeof(*table)))

/* ---- of the process and its main thread ---- */

static void set_umask(int v) { umask(v ? 027 : 022); }
static int get_umask(void)
{
	mode_t was = umask(0);

	umask(was);
	return was == 027 ? 1 : was == 022 ? 0 : -1;
}

static const char *const directories[] = { "/", "/usr", "/proc", "/etc" };
static void set_cwd(int v) { must(!chdir(directories[v])); }
static int get_cwd(void)
{
	char path[4096];

	must(getcwd(path, sizeof(path)));
	for (int i = 0; i < 4; i++)
		if (!strcmp(path, directories[i]))
			return i;
	return -1;
}

static void set_nice(int v) { must(!setpriority(PRIO_PROCESS, 0, v + 1)); }
static int get_nice(void) { return getpriority(PRIO_PROCESS, 0) - 1; }
static void set_ioprio(int v) { must(!syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_BEST_EFFORT | (v + 2))); }
static int get_ioprio(void) { return (int)syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) - IOPRIO_BEST_EFFORT - 2; }
static void set_slack(int v) { must(!prctl(PR_SET_TIMERSLACK, 50001L + v)); }
static int get_slack(void) { return prctl(PR_GET_TIMERSLACK) - 50001; }

static void set_name(int v)
{
	char name[16] = "late-x";

	name[5] = (char)('a' + v);
	must(!prctl(PR_SET_NAME, name));
}
static int get_name(void)
{
	char name[16] = "";

	prctl(PR_GET_NAME, name);
	return name[5] - 'a';
}

static void set_dumpable(int v) { must(!prctl(PR_SET_DUMPABLE, v)); }
static int get_dumpable(void) { return prctl(PR_GET_DUMPABLE); }
static void set_subreaper(int v) { must(!prctl(PR_SET_CHILD_SUBREAPER, v)); }
static int get_subreaper(void)
{
	int v = -1;

	prctl(PR_GET_CHILD_SUBREAPER, &v);
	return v;
}
static void set_keepcaps(int v) { must(!prctl(PR_SET_KEEPCAPS, v)); }
static int get_keepcaps(void) { return prctl(PR_GET_KEEPCAPS); }
static void set_thp(int v) { must(!prctl(PR_SET_THP_DISABLE, v, 0, 0, 0)); }
static int get_thp(void) { return prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0); }
static void set_mce(int v) { must(!prctl(PR_MCE_KILL, PR_MCE_KILL_SET, v ? PR_MCE_KILL_EARLY : PR_MCE_KILL_LATE, 0, 0)); }
static int get_mce(void) { return prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) == PR_MCE_KILL_EARLY; }

static void set_affinity(int v)
{
	cpu_set_t s;

	CPU_ZERO(&s);
	CPU_SET(0, &s);
	if (!v && sysconf(_SC_NPROCESSORS_CONF) > 1)
		CPU_SET(1, &s);
	must(!sched_setaffinity(0, sizeof(s), &s));
}
static int get_affinity(void)
{
	cpu_set_t s;

	must(!sched_getaffinity(0, sizeof(s), &s));
	return CPU_COUNT(&s) == 1 && sysconf(_SC_NPROCESSORS_CONF) > 1;
}

static void set_policy(int v)
{
	struct sched_param p = { 0 };

	must(!sched_setscheduler(0, v ? SCHED_BATCH : SCHED_OTHER, &p));
}
static int get_policy(void) { return sched_getscheduler(0) == SCHED_BATCH; }

static void set_nofile(int v)
{
	struct rlimit l;

	must(!getrlimit(RLIMIT_NOFILE, &l));
	l.rlim_cur = 500 + (rlim_t)v;
	must(!setrlimit(RLIMIT_NOFILE, &l));
}
static int get_nofile(void)
{
	struct rlimit l;

	must(!getrlimit(RLIMIT_NOFILE, &l));
	return (int)l.rlim_cur - 500;
}

static void set_fsuid(int v) { setfsuid((uid_t)v * 1000); }
static int get_fsuid(void) { return setfsuid((uid_t)-1) / 1000; }
static void set_egid(int v) { must(!setresgid((gid_t)-1, (gid_t)v * 1000, (gid_t)-1)); }
static int get_egid(void) { return (int)getegid() / 1000; }

static void set_groups(int v)
{
	gid_t g[3] = { 5, 6, 7 };

	must(!setgroups((size_t)v + 1, g));
}
static int get_groups(void) { return getgroups(0, NULL) - 1; }

static void set_caps(int v)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];

	must(!syscall(SYS_capget, &h, d));
	d[0].effective = v ? d[0].effective & ~(1u << CAP_NET_RAW) : d[0].effective | (d[0].permitted & 1u << CAP_NET_RAW);
	d[0].inheritable = v ? 1u << CAP_CHOWN : 0;
	must(!syscall(SYS_capset, &h, d));
}
static int get_caps(void)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];

	must(!syscall(SYS_capget, &h, d));
	return d[0].inheritable == 1u << CAP_CHOWN ? !(d[0].effective & 1u << CAP_NET_RAW) : d[0].inheritable ? -1 : 0;
}

static void handler(int s) { (void)s; }
static void set_action(int v)
{
	struct sigaction sa = { .sa_handler = v == 0 ? SIG_DFL : v == 1 ? SIG_IGN : handler, .sa_flags = v > 1 ? SA_RESTART | SA_ONSTACK : 0 };

	must(!sigaction(SIGRTMIN + 3, &sa, NULL));
}
static int get_action(void)
{
	struct sigaction sa;

	must(!sigaction(SIGRTMIN + 3, NULL, &sa));
	return sa.sa_handler == SIG_DFL ? 0 : sa.sa_handler == SIG_IGN ? 1 : sa.sa_handler == handler && (sa.sa_flags & SA_ONSTACK) ? 2 : -1;
}

static void set_mask(int v)
{
	sigset_t s;

	sigemptyset(&s);
	sigaddset(&s, SIGUSR2);
	must(!sigprocmask(v ? SIG_BLOCK : SIG_UNBLOCK, &s, NULL));
}
static int get_mask(void)
{
	sigset_t s;

	sigprocmask(SIG_BLOCK, NULL, &s);
	return sigismember(&s, SIGUSR2);
}

static char stacks[2][65536];
static void set_altstack(int v)
{
	stack_t s = { .ss_sp = stacks[v ? 1 : 0], .ss_size = sizeof(stacks[0]), .ss_flags = v == 2 ? SS_DISABLE : 0 };

	must(!sigaltstack(&s, NULL));
}
static int get_altstack(void)
{
	stack_t s;

	sigaltstack(NULL, &s);
	return s.ss_flags & SS_DISABLE ? 2 : s.ss_sp == stacks[1] ? 1 : s.ss_sp == stacks[0] ? 0 : -1;
}

static void set_itimer(int v)
{
	struct itimerval t = { .it_value.tv_sec = v * 100000, .it_interval.tv_sec = v * 7 };

	must(!setitimer(ITIMER_REAL, &t, NULL));
}
static int get_itimer(void)
{
	struct itimerval t;

	getitimer(ITIMER_REAL, &t);
	return (int)(t.it_value.tv_sec + 50000) / 100000;
}

static timer_t timer;
static bool has_timer;
static void set_timer(int v)
{
	struct sigevent sev = { .sigev_notify = SIGEV_NONE };
	struct itimerspec its = { .it_value.tv_sec = v * 100000 };

	if (has_timer)
		must(!timer_delete(timer));
	has_timer = v > 0;
	if (v) {
		must(!timer_create(v == 1 ? CLOCK_MONOTONIC : CLOCK_BOOTTIME, &sev, &timer));
		must(!timer_settime(timer, 0, &its, NULL));
	}
}
static int get_timer(void)
{
	struct itimerspec its;

	if (!has_timer)
		return 0;
	if (timer_gettime(timer, &its) < 0)
		return -1;
	return (int)(its.it_value.tv_sec + 50000) / 100000;
}

static void set_persona(int v) { personality(v ? ADDR_NO_RANDOMIZE : 0); }
static int get_persona(void) { return personality(0xffffffff) == ADDR_NO_RANDOMIZE; }

static void write_number(const char *path, int v)
{
	FILE *f = fopen(path, "we");

	must(f && fprintf(f, "%d", v) > 0 && !fclose(f));
}
static int read_number(const char *path, int base)
{
	FILE *f = fopen(path, "re");
	char text[32] = "";

	must(f && fgets(text, sizeof(text), f));
	fclose(f);
	return (int)strtol(text, NULL, base);
}
static void set_oom(int v) { write_number("/proc/self/oom_score_adj", 100 + v); }
static int get_oom(void) { return read_number("/proc/self/oom_score_adj", 10) - 100; }
static void set_filter(int v) { write_number("/proc/self/coredump_filter", 0x10 + v); }
static int get_filter(void) { return read_number("/proc/self/coredump_filter", 16) - 0x10; }

static void set_policy_of_memory(int v)
{
	unsigned long nodes = 1;

	must(!syscall(SYS_set_mempolicy, v ? MPOL_BIND : MPOL_DEFAULT, v ? &nodes : NULL, v ? 64UL : 0UL));
}
static int get_policy_of_memory(void)
{
	int mode = -1;

	syscall(SYS_get_mempolicy, &mode, NULL, 0UL, NULL, 0UL);
	return mode == MPOL_BIND ? 1 : mode == MPOL_DEFAULT ? 0 : -1;
}

static void set_lockall(int v) { must(!(v ? mlockall(MCL_FUTURE) : munlockall())); }
static int get_lockall(void)
{
	void *p = map_anon(4096, PROT_READ | PROT_WRITE, 0);
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[512];
	unsigned long start = 0, end, from;
	char c;
	int found = -1;

	must(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %c", &from, &end, &c) == 3)
			start = (unsigned long)p >= from && (unsigned long)p < end;
		if (start && !strncmp(line, "VmFlags:", 8))
			found = strstr(line, " lo") != NULL;
	}
	fclose(f);
	munmap(p, 4096);
	return found;
}

static const struct late_attribute of_process[] = {
	LATE(umask, 2), LATE(cwd, 4), LATE(nice, 3), LATE(ioprio, 3), LATE(slack, 100), LATE(name, 20), LATE(dumpable, 2),
	LATE(subreaper, 2), LATE(keepcaps, 2), LATE(thp, 2), LATE(mce, 2), LATE(affinity, 2), LATE(policy, 2),
	LATE(nofile, 50), LATE(action, 3), LATE(mask, 2), LATE(altstack, 3), LATE(itimer, 3), LATE(timer, 3), LATE(persona, 2),
	LATE(oom, 50), LATE(filter, 8), LATE(policy_of_memory, 2),
};
static void process_setup(void) { BEGIN(of_process); }
VICTIM(late_process, V_CHECK_FILE | V_OPENS, process_setup, late_work, late_check);

static const struct late_attribute of_credentials[] = { LATE(fsuid, 2), LATE(egid, 2), LATE(groups, 3), LATE(caps, 2) };
static void credentials_setup(void) { BEGIN(of_credentials); }
VICTIM(late_credentials, V_CHECK_FILE | V_KEEP_OUT, credentials_setup, late_work, late_check);

static const struct late_attribute of_locks[] = { LATE(lockall, 2) };
static void lockall_setup(void) { BEGIN(of_locks); }
VICTIM(late_lockall, V_CHECK_FILE, lockall_setup, late_work, late_check);

/* ---- of descriptors ---- */

static int file, other, pipes[2], event, epoll, watch, wd, sealed, sfd, tfd, unixes[2];

static void set_append(int v) { must(!fcntl(file, F_SETFL, v ? O_APPEND : 0)); }
static int get_append(void) { return (fcntl(file, F_GETFL) & O_APPEND) != 0; }
static void set_cloexec(int v) { must(!fcntl(file, F_SETFD, v)); }
static int get_cloexec(void) { return fcntl(file, F_GETFD); }
static void set_position(int v) { must(lseek(file, v, SEEK_SET) == v); }
static int get_position(void) { return (int)lseek(file, 0, SEEK_CUR); }
static void set_lock(int v) { must(!flock(file, v == 2 ? LOCK_EX : v ? LOCK_SH : LOCK_UN)); }
static int get_lock(void)
{
	int fd = open(beside("late"), O_RDWR | O_CLOEXEC), ret = 0;

	must(fd >= 0);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		ret = flock(fd, LOCK_SH | LOCK_NB) < 0 ? 2 : 1;
	close(fd);
	return ret;
}
static void set_ofd(int v)
{
	struct flock l = { .l_type = v ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET, .l_start = 50, .l_len = 5 };

	must(!fcntl(file, F_OFD_SETLK, &l));
}
static int get_ofd(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 52, .l_len = 1 };

	must(!fcntl(other, F_OFD_GETLK, &l));
	return l.l_type != F_UNLCK;
}
static void set_owner(int v) { must(!fcntl(pipes[0], F_SETOWN, v ? getpid() : 0)); }
static int get_owner(void) { return fcntl(pipes[0], F_GETOWN) == getpid(); }
static void set_sigio(int v) { must(!fcntl(pipes[0], F_SETSIG, v ? SIGRTMIN + v : 0)); }
static int get_sigio(void) { return fcntl(pipes[0], F_GETSIG) ? fcntl(pipes[0], F_GETSIG) - SIGRTMIN : 0; }
static void set_pipe_size(int v) { must(fcntl(pipes[1], F_SETPIPE_SZ, 4096 << v) > 0); }
static int get_pipe_size(void)
{
	int size = fcntl(pipes[1], F_GETPIPE_SZ);

	return size == 4096 ? 0 : size == 8192 ? 1 : size == 16384 ? 2 : -1;
}
static void set_pipe_bytes(int v)
{
	char b[4096];

	while (read(pipes[0], b, sizeof(b)) > 0)
		;
	must(v == 0 || write(pipes[1], b, (size_t)v) == v);
}
static int get_pipe_bytes(void)
{
	int n = -1;

	ioctl(pipes[0], FIONREAD, &n);
	return n;
}
static void set_counter(int v)
{
	uint64_t n;

	(void)!read(event, &n, sizeof(n));
	n = (uint64_t)v;
	must(write(event, &n, sizeof(n)) == sizeof(n));
}
static int get_counter(void)
{
	uint64_t n = 0;

	(void)!read(event, &n, sizeof(n));
	return (int)n;
}
static bool in_set;
static void set_epoll(int v)
{
	struct epoll_event ev = { .events = EPOLLIN | (v == 2 ? EPOLLET : 0), .data.u64 = (uint64_t)v };

	if (in_set && !v)
		must(!epoll_ctl(epoll, EPOLL_CTL_DEL, unixes[0], NULL));
	else if (v)
		must(!epoll_ctl(epoll, in_set ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, unixes[0], &ev));
	in_set = v;
}
static int get_epoll(void)
{
	struct epoll_event ev;
	char b;
	int n;

	must(write(unixes[1], "x", 1) == 1);
	n = epoll_wait(epoll, &ev, 1, 0);
	must(read(unixes[0], &b, 1) == 1);
	return n < 1 ? 0 : (int)ev.data.u64;
}
static void set_watch(int v)
{
	char b[4096];

	if (wd > 0)
		must(!inotify_rm_watch(watch, wd));
	wd = v ? inotify_add_watch(watch, "/etc", v == 2 ? IN_CREATE : IN_DELETE) : 0;
	must(wd >= 0);
	while (read(watch, b, sizeof(b)) > 0)
		;
}
static int get_watch(void)
{
	char path[64], line[256];
	unsigned mask = 0;
	FILE *f;
	int number = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", watch);
	f = fopen(path, "re");
	must(f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "inotify wd:", 11))
			sscanf(line, "inotify wd:%x ino:%*x sdev:%*x mask:%x", &number, &mask);
	fclose(f);
	if (number != wd)
		return -1;
	return mask & IN_CREATE ? 2 : mask & IN_DELETE ? 1 : 0;
}
static void set_memory_size(int v) { must(!ftruncate(sealed, 4096 * (v + 1))); }
static int get_memory_size(void)
{
	struct stat st;

	must(!fstat(sealed, &st));
	return (int)(st.st_size / 4096) - 1;
}
static void set_memory_mode(int v) { must(!fchmod(sealed, v ? 0600 : 0644)); }
static int get_memory_mode(void)
{
	struct stat st;

	must(!fstat(sealed, &st));
	return (st.st_mode & 0777) == 0600;
}
static void set_signalfd(int v)
{
	sigset_t s;

	sigemptyset(&s);
	sigaddset(&s, SIGRTMIN + 8 + v);
	must(signalfd(sfd, &s, 0) == sfd);
}
static int get_signalfd(void)
{
	char path[64], line[256];
	unsigned long long mask = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", sfd);
	f = fopen(path, "re");
	must(f);
	while (fgets(line, sizeof(line), f))
		sscanf(line, "sigmask: %llx", &mask);
	fclose(f);
	return mask ? __builtin_ctzll(mask) + 1 - SIGRTMIN - 8 : -1;
}
static void set_timerfd(int v)
{
	struct itimerspec its = { .it_value.tv_sec = v * 100000, .it_interval.tv_sec = v };

	must(!timerfd_settime(tfd, 0, &its, NULL));
}
static int get_timerfd(void)
{
	struct itimerspec its;

	must(!timerfd_gettime(tfd, &its));
	return its.it_interval.tv_sec == (its.it_value.tv_sec + 50000) / 100000 ? (int)its.it_interval.tv_sec : -1;
}
static int number_fd = -1;
static void set_number(int v) /* the same description at another number */
{
	if (number_fd >= 0)
		close(number_fd);
	number_fd = dup2(file, 60 + v);
	must(number_fd == 60 + v);
}
static int get_number(void)
{
	int found = -1;

	for (int i = 0; i < 4; i++)
		if (fcntl(60 + i, F_GETFD) >= 0)
			found = found < 0 ? i : -2;
	return found;
}

static const struct late_attribute of_files[] = {
	LATE(append, 2), LATE(cloexec, 2), LATE(position, 100), LATE(lock, 3), LATE(ofd, 2), LATE(owner, 2), LATE(sigio, 3),
	LATE(pipe_size, 3), LATE(pipe_bytes, 200), LATE(epoll, 3), LATE(watch, 3), LATE(memory_size, 4), LATE(memory_mode, 2),
	LATE(signalfd, 4), LATE(timerfd, 4), LATE(number, 4), LATE(counter, 100),
};

static void files_setup(void)
{
	must((file = open(beside("late"), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) >= 0 && (other = open(beside("late"), O_RDWR | O_CLOEXEC)) >= 0);
	must(!pipe2(pipes, O_NONBLOCK | O_CLOEXEC) && (event = eventfd(0, EFD_NONBLOCK)) >= 0 && (epoll = epoll_create1(0)) >= 0);
	must((watch = inotify_init1(IN_NONBLOCK)) >= 0 && (sealed = memfd_create("late", 0)) >= 0 && (tfd = timerfd_create(CLOCK_BOOTTIME, 0)) >= 0);
	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, unixes));
	{
		sigset_t s;

		sigemptyset(&s);
		must((sfd = signalfd(-1, &s, 0)) >= 0);
	}
	BEGIN(of_files);
}

VICTIM(late_files, V_OPENS, files_setup, late_work, late_check);
