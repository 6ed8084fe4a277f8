// SPDX-License-Identifier: GPL-2.0-or-later
/* ns_tree.c - victims whose processes are in several namespaces of a kind, and descriptors of namespaces */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "tree.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static const char *const kinds[] = { "uts", "ipc", "net", "cgroup", "pid", "mnt", "user", "time" };
#define KINDS (sizeof(kinds) / sizeof(*kinds))
#define HELD 4

/* What the processes have in common; the descriptors are those of the first. */
static struct {
	pid_t members[16];
	size_t n;
	uint64_t monotonic_ns; /* of the one that has been asked last */
} *shared;
static int held[HELD];
static struct text before;

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !close(fd));
}

static unsigned long id_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_ino : 0;
}

static unsigned long member_ns(pid_t pid, const char *kind)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
	return id_of(path);
}

/* Of which member's namespaces each one's are, and each descriptor: the first that has it. */
static void relations(struct text *t)
{
	struct stat st;

	for (size_t k = 0; k < KINDS; k++)
		for (size_t i = 0; i < shared->n; i++) {
			size_t like = 0;

			while (member_ns(shared->members[like], kinds[k]) != member_ns(shared->members[i], kinds[k]))
				like++;
			text_add(t, "%s of %zu: that of %zu\n", kinds[k], i, like);
		}
	for (size_t h = 0; h < HELD; h++)
		for (size_t k = 0; held[h] > 0 && k < KINDS; k++)
			for (size_t i = 0; i < shared->n; i++)
				if (!fstat(held[h], &st) && st.st_ino == member_ns(shared->members[i], kinds[k])) {
					text_add(t, "descriptor %zu: the %s namespace of %zu\n", h, kinds[k], i);
					i = shared->n;
				}
}

static void snapshot_own(struct text *t)
{
	struct utsname u;

	must(!uname(&u));
	text_add(t, "host %s, domain %s\n", u.nodename, u.domainname);
	text_file(t, "/proc/sys/kernel/msgmax", NULL);
	text_file(t, "/proc/sys/kernel/sem", NULL);
}

static void wait_and_compare(int told, void (*snapshot)(struct text *t), const char *who)
{
	struct text was = { 0 }, is = { 0 };

	snapshot(&was);
	member_ready(told);
	member_wait();
	snapshot(&is);
	expect_text(who, was.s, is.s);
	member_fail(who);
}

static void begin(void)
{
	shared = mmap(NULL, 4096, PROT_RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(shared != MAP_FAILED);
	shared->members[shared->n++] = getpid();
}

static void add(void (*run)(int told))
{
	shared->members[shared->n] = member_fork(run, true);
	shared->n++;
}

static void ask_all(void)
{
	for (size_t i = shared->n; i-- > 1;)
		if (shared->members[i] > 0)
			member_ask("member", shared->members[i]);
}

static void hold_ns(size_t slot, pid_t pid, const char *kind)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
	held[slot] = open(path, O_RDONLY | O_CLOEXEC);
	must(held[slot] > 0);
}

/* ---- names and IPC ---- */

static void plain_member(int told)
{
	wait_and_compare(told, snapshot_own, "member of somebody's namespaces");
	_exit(0);
}

static void named(int told)
{
	pid_t child;

	must(!unshare(CLONE_NEWUTS) && !sethostname("of-a-member", 11));
	child = member_fork(plain_member, true);
	wait_and_compare(told, snapshot_own, "member with a name");
	member_ask("member's child", child);
	member_fail("member with a name");
	_exit(0);
}

static void limited(int told)
{
	must(!unshare(CLONE_NEWUTS | CLONE_NEWIPC) && !sethostname("of-another", 10) && !setdomainname("far", 3));
	write_to("/proc/sys/kernel/msgmax", "4321");
	write_to("/proc/sys/kernel/sem", "50 60 70 80");
	wait_and_compare(told, snapshot_own, "member with limits");
	_exit(0);
}

static void joined(int told)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/uts", shared->members[1]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && !setns(fd, CLONE_NEWUTS) && !close(fd));
	wait_and_compare(told, snapshot_own, "member that has joined another");
	_exit(0);
}

static void several_setup(void)
{
	begin();
	add(named);
	add(limited);
	add(joined);
	hold_ns(0, shared->members[1], "uts");
	hold_ns(1, shared->members[2], "ipc");
	hold_ns(2, getpid(), "net");
	hold_ns(3, getpid(), "uts");
	relations(&before);
}

static void several_check(void)
{
	struct text now = { 0 };
	struct utsname u;

	relations(&now);
	expect_text("who is where", before.s, now.s);
	ask_all();
	expect(!setns(held[0], CLONE_NEWUTS) && !uname(&u));
	expect_text("the name in a namespace that is held open", "of-a-member", u.nodename);
}

VICTIM(ns_several, V_TREE, several_setup, NULL, several_check);

static void below_setup(void)
{
	must(!unshare(CLONE_NEWUTS | CLONE_NEWIPC) && !sethostname("of-the-first", 12));
	several_setup();
	add(plain_member);
	before.len = 0;
	relations(&before);
	snapshot_own(&before);
}

static void below_check(void)
{
	struct text now = { 0 };

	relations(&now);
	snapshot_own(&now);
	expect_text("who is where", before.s, now.s);
	ask_all();
}

/* The first process has its own, too. */
VICTIM(ns_several_below, V_TREE, below_setup, NULL, below_check);

/* ---- clocks ---- */

#define FAR_NS 1000000000000000ull
#define NEAR_NS 2000000000ull /* that a move may take, in two readings */

static int timer;

static void shift_clocks(const char *offsets)
{
	int fd;

	must(!unshare(CLONE_NEWTIME));
	write_to("/proc/self/timens_offsets", offsets);
	fd = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && !setns(fd, CLONE_NEWTIME) && !close(fd));
}

static void set_timer(void)
{
	uint64_t at = now_ns(CLOCK_MONOTONIC) + FAR_NS;
	struct itimerspec s = { .it_value = { (time_t)(at / 1000000000), (long)(at % 1000000000) } };

	timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	must(timer >= 0 && !timerfd_settime(timer, TFD_TIMER_ABSTIME, &s, NULL));
	shared->monotonic_ns = at;
}

static void check_timer(uint64_t at)
{
	uint64_t now = now_ns(CLOCK_MONOTONIC), left;
	struct itimerspec s;

	expect(!timerfd_gettime(timer, &s));
	left = (uint64_t)s.it_value.tv_sec * 1000000000 + (uint64_t)s.it_value.tv_nsec;
	if (now + left + NEAR_NS < at || at + NEAR_NS < now + left)
		fail("a timer: expected %llu ns, got %llu", (unsigned long long)at, (unsigned long long)(now + left));
}

static uint64_t apart(clockid_t clock, clockid_t other)
{
	return now_ns(clock) - now_ns(other);
}

/* Between the clocks of one process, of which boottime is shifted, there is no time. */
static void in_another_time(int told)
{
	uint64_t at, was, is;

	shift_clocks("monotonic 500000 0\nboottime 900000 0\n");
	set_timer();
	at = shared->monotonic_ns;
	was = apart(CLOCK_BOOTTIME, CLOCK_MONOTONIC);
	member_ready(told);
	member_wait();
	is = apart(CLOCK_BOOTTIME, CLOCK_MONOTONIC);
	if (is - was + NEAR_NS > 2 * NEAR_NS)
		fail("clocks: expected %llu apart, got %llu", (unsigned long long)was, (unsigned long long)is);
	check_timer(at);
	shared->monotonic_ns = now_ns(CLOCK_MONOTONIC);
	member_fail("member with other clocks");
	_exit(0);
}

static uint64_t own_timer_at;

static void time_setup(void)
{
	begin();
	add(in_another_time);
	set_timer();
	own_timer_at = shared->monotonic_ns;
	hold_ns(0, shared->members[1], "time");
	hold_ns(1, getpid(), "time");
	relations(&before);
}

static void time_check(void)
{
	struct text now = { 0 };
	int64_t off;

	relations(&now);
	expect_text("who is where", before.s, now.s);
	check_timer(own_timer_at);
	ask_all();
	off = (int64_t)(shared->monotonic_ns - now_ns(CLOCK_MONOTONIC)) - 500000000000000ll;
	if (off > (int64_t)NEAR_NS || off < -(int64_t)NEAR_NS)
		fail("the member's clock is %lld ns off", (long long)off);
}

VICTIM(ns_time, V_TREE, time_setup, NULL, time_check);

static void time_first_setup(void)
{
	shift_clocks("monotonic 300000 0\nboottime 100000 0\n");
	begin();
	set_timer();
	own_timer_at = shared->monotonic_ns;
}

static void time_first_check(void)
{
	check_timer(own_timer_at);
}

VICTIM(ns_time_first, 0, time_first_setup, NULL, time_first_check);

/* ---- what cannot move ---- */

static void *live_apart(void *arg)
{
	must(!unshare(CLONE_NEWUTS));
	*(volatile int *)arg = 1;
	while (!victim_stopping)
		sleep_ms(10);
	return NULL;
}

static volatile int is_apart;

static void thread_setup(void)
{
	unsigned long t;

	spawn(live_apart, (void *)&is_apart, &t);
	while (!is_apart)
		sleep_ms(1);
}

static void nothing(void)
{
}

VICTIM_TEXT(victim_refuse_thread_namespace, "refuse_thread_namespace", thread_setup, NULL, nothing, V_REFUSED, "uts namespace.*threads with namespaces");

static void with_queue(int told)
{
	must(!unshare(CLONE_NEWIPC) && mq_open("/of-a-member", O_CREAT | O_RDWR | O_CLOEXEC, 0600, NULL) >= 0);
	member_ready(told);
	member_wait();
	_exit(0);
}

static void queue_setup(void)
{
	begin();
	add(with_queue);
}

VICTIM_TEXT(victim_refuse_queue_apart, "refuse_queue_apart", queue_setup, NULL, ask_all, V_REFUSED, "POSIX message queues in its IPC namespace");

static void time_children_setup(void)
{
	must(!unshare(CLONE_NEWTIME));
}

VICTIM_TEXT(victim_refuse_time_for_children, "refuse_time_for_children", time_children_setup, NULL, nothing, V_REFUSED, "time namespace.*future children");
