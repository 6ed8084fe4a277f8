// SPDX-License-Identifier: GPL-2.0-or-later
/* late_threads.c - threads whose attributes change all the time, each by itself (see late.c); some of them sleep in between */
#include <asm/prctl.h>
#include <errno.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

#define THREADS 12
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_BEST_EFFORT (2 << 13)

struct attribute {
	const char *name;
	int values;
	void (*set)(int value);
	int (*get)(void);
};

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
static void set_affinity(int v)
{
	cpu_set_t s;

	CPU_ZERO(&s);
	CPU_SET(v, &s);
	must(!sched_setaffinity(0, sizeof(s), &s) || sysconf(_SC_NPROCESSORS_CONF) == 1);
}
static int get_affinity(void)
{
	cpu_set_t s;

	must(!sched_getaffinity(0, sizeof(s), &s));
	return sysconf(_SC_NPROCESSORS_CONF) > 1 && CPU_ISSET(1, &s);
}
static void set_policy(int v)
{
	struct sched_param p = { 0 };

	must(!sched_setscheduler(0, (v ? SCHED_BATCH : SCHED_OTHER) | (v == 2 ? SCHED_RESET_ON_FORK : 0), &p));
}
static int get_policy(void)
{
	int policy = sched_getscheduler(0);

	return policy == (SCHED_BATCH | SCHED_RESET_ON_FORK) ? 2 : policy == SCHED_BATCH;
}
static void set_mask(int v)
{
	sigset_t s;

	sigfillset(&s);
	sigprocmask(SIG_SETMASK, &s, NULL);
	sigemptyset(&s);
	sigaddset(&s, SIGRTMIN + 10 + v);
	must(!sigprocmask(SIG_UNBLOCK, &s, NULL));
}
static int get_mask(void)
{
	sigset_t s;

	sigprocmask(SIG_BLOCK, NULL, &s);
	for (int v = 0; v < 4; v++)
		if (!sigismember(&s, SIGRTMIN + 10 + v))
			return v;
	return -1;
}
static _Thread_local char *stacks;
static void set_altstack(int v)
{
	stack_t s = { .ss_flags = v == 2 ? SS_DISABLE : 0, .ss_size = 16384 };

	if (!stacks)
		stacks = map_anon(32768, PROT_READ | PROT_WRITE, 0);
	s.ss_sp = stacks + (v == 1 ? 16384 : 0);
	must(!sigaltstack(&s, NULL));
}
static int get_altstack(void)
{
	stack_t s;

	sigaltstack(NULL, &s);
	return s.ss_flags & SS_DISABLE ? 2 : s.ss_sp == stacks ? 0 : s.ss_sp == stacks + 16384 ? 1 : -1;
}
static void set_memory(int v)
{
	unsigned long nodes = 1;

	must(!syscall(SYS_set_mempolicy, v ? MPOL_BIND : MPOL_DEFAULT, v ? &nodes : NULL, v ? 64UL : 0UL));
}
static int get_memory(void)
{
	int mode = -1;

	syscall(SYS_get_mempolicy, &mode, NULL, 0UL, NULL, 0UL);
	return mode == MPOL_BIND ? 1 : mode == MPOL_DEFAULT ? 0 : -1;
}
static void set_gs(int v) { must(!syscall(SYS_arch_prctl, ARCH_SET_GS, 0x100000UL * (unsigned long)v)); }
static int get_gs(void)
{
	unsigned long base = 0;

	must(!syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
	return (int)(base / 0x100000);
}
static _Thread_local struct robust_list_head heads[2];
static void set_robust(int v)
{
	heads[v] = (struct robust_list_head){ { &heads[v].list }, 8, NULL };
	must(!syscall(SYS_set_robust_list, &heads[v], sizeof(heads[v])));
}
static int get_robust(void)
{
	struct robust_list_head *head = NULL;
	size_t len = 0;

	must(!syscall(SYS_get_robust_list, 0, &head, &len));
	return head == &heads[0] ? 0 : head == &heads[1] ? 1 : -1;
}
static void set_caps(int v)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];

	must(!syscall(SYS_capget, &h, d));
	d[0].effective = v ? d[0].effective & ~(1u << CAP_NET_RAW) : d[0].effective | (d[0].permitted & 1u << CAP_NET_RAW);
	must(!syscall(SYS_capset, &h, d));
}
static int get_caps(void)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];

	must(!syscall(SYS_capget, &h, d));
	return !(d[0].effective & 1u << CAP_NET_RAW) && d[0].permitted & 1u << CAP_NET_RAW;
}
static void set_ambient(int v)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];

	must(!syscall(SYS_capget, &h, d));
	d[0].inheritable = 1u << CAP_CHOWN;
	must(!syscall(SYS_capset, &h, d));
	must(!prctl(PR_CAP_AMBIENT, v ? PR_CAP_AMBIENT_RAISE : PR_CAP_AMBIENT_LOWER, CAP_CHOWN, 0, 0));
}
static int get_ambient(void) { return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0); }
static void set_fsgid(int v) { syscall(SYS_setfsgid, v * 1000); }
static int get_fsgid(void) { return (int)syscall(SYS_setfsgid, -1) / 1000; }

#define ATTRIBUTE(name, values) { #name, values, set_##name, get_##name }
static const struct attribute attributes[] = {
	ATTRIBUTE(nice, 3), ATTRIBUTE(ioprio, 3), ATTRIBUTE(slack, 100), ATTRIBUTE(name, 20), ATTRIBUTE(affinity, 2), ATTRIBUTE(policy, 3), ATTRIBUTE(mask, 4),
	ATTRIBUTE(altstack, 3), ATTRIBUTE(memory, 2), ATTRIBUTE(gs, 50), ATTRIBUTE(robust, 2), ATTRIBUTE(caps, 2), ATTRIBUTE(ambient, 2),
	ATTRIBUTE(fsgid, 2),
};
#define ATTRIBUTES (int)(sizeof(attributes) / sizeof(*attributes))

static volatile int ready;
static bool calm; /* most of the time they sleep, with few changes */

static void *change(void *arg)
{
	int noted[ATTRIBUTES], number = (int)(intptr_t)arg;
	uint64_t steps = (uint64_t)number << 32;

	for (int i = 0; i < ATTRIBUTES; i++) {
		for (noted[i] = attributes[i].values - 1; noted[i] > 0; noted[i]--)
			attributes[i].set(noted[i]);
		attributes[i].set(0);
	}
	for (int i = 0; i < ATTRIBUTES; i++)
		if (attributes[i].get())
			fail("thread %d: %s, set to 0, is %d", number, attributes[i].name, attributes[i].get());
	__atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
	while (!victim_stopping) {
		uint64_t r = mix(++steps);
		int i = (int)(r % ATTRIBUTES), value = (int)(r >> 32 & 0xff) % attributes[i].values;

		if (calm || moved())
			usleep(3000);
		if (moved())
			continue;
		attributes[i].set(value);
		noted[i] = value;
	}
	for (int i = 0; i < ATTRIBUTES; i++)
		if (attributes[i].get() != noted[i])
			fail("thread %d: %s, expected %d, got %d", number, attributes[i].name, noted[i], attributes[i].get());
	return NULL;
}

static void setup(void)
{
	for (int i = 0; i < THREADS; i++)
		spawn(change, (void *)(intptr_t)(i + 1), NULL);
	while (ready < THREADS && !failed())
		usleep(1000);
}

static void calm_setup(void)
{
	calm = true;
	setup();
}

VICTIM(late_threads, 0, setup, NULL, join_all);
VICTIM(late_sleepers, 0, calm_setup, NULL, join_all);
