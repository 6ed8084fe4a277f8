// SPDX-License-Identifier: GPL-2.0-or-later
/* fence.c - see fence.h */
#include "daemon/fence.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/protect_journal.h"
#include "daemon/unit_kill.h"

#define WATCH_NS 100000000ull   /* between two looks, at most */
#define OVER_NS 50000000ull     /* when its time is over: what still comes is killed */
#define AGAIN_NS 200000000ull
#define ALONE_LOOKS 100         /* without a godwitd: is there anything to watch? */

/* In the file, which has one page. */
struct fence {
	uint64_t deadline_ns; /* CLOCK_BOOTTIME; 0: there has been no lease */
	uint64_t watcher;     /* number of the newest godwit-watch; older ones end */
	uint64_t epoch;
};

static struct fence *fence;
static bool wanted;

uint64_t fence_span_ns(unsigned lease_s)
{
	uint64_t lease_ns = lease_s * 1000000000ull;

	return lease_ns - MAX(lease_ns / 5, 1000000000ull);
}

int fence_init(const char *run_directory, bool is_wanted, struct err *e)
{
	char path[PATH_MAX];
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "%s/fence", run_directory);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)PAGE_SIZE_BYTES) < 0)
		return err_sys(e, -errno, "%s", path);
	fence = mmap(NULL, PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fence == MAP_FAILED)
		return err_sys(e, -errno, "%s: mmap", path);
	wanted = is_wanted;
	if (!wanted)
		__atomic_store_n(&fence->deadline_ns, 0, __ATOMIC_SEQ_CST);
	return 0;
}

bool fence_wanted(void)
{
	return wanted;
}

static uint64_t deadline(void)
{
	return __atomic_load_n(&fence->deadline_ns, __ATOMIC_SEQ_CST);
}

void fence_renew(uint64_t asked_ns, unsigned lease_s)
{
	__atomic_store_n(&fence->deadline_ns, asked_ns + fence_span_ns(lease_s), __ATOMIC_SEQ_CST);
}

void fence_lose(void)
{
	__atomic_store_n(&fence->deadline_ns, 1, __ATOMIC_SEQ_CST);
	fence_kill_all("its lease in etcd is gone");
}

bool fence_holds(void)
{
	return !wanted || clock_ns(CLOCK_BOOTTIME) < deadline();
}

bool fence_is_over(void)
{
	uint64_t until = deadline();

	return until && clock_ns(CLOCK_BOOTTIME) >= until;
}

unsigned fence_epoch(void)
{
	return fence ? (unsigned)__atomic_load_n(&fence->epoch, __ATOMIC_SEQ_CST) : 0;
}

void fence_next_epoch(void)
{
	__atomic_add_fetch(&fence->epoch, 1, __ATOMIC_SEQ_CST);
}

const char *fence_why_not(void)
{
	return fence_holds() ? NULL : "that node holds no lease in etcd, which protected units need";
}

/* --- killing --- */

void fence_kill(const struct registry_entry *entry, const char *why)
{
	unsigned n;

	protect_note_lost(entry);
	n = unit_kill(entry->pid, entry->start_ticks);
	if (n)
		log_error("event=fenced-killed unit=%s pid=%d processes=%u why=\"%s\"", entry->unit, (int)entry->pid, n, why);
}

struct killing {
	const char *why;
	unsigned n;
};

static int kill_one(const struct registry_entry *entry, void *arg)
{
	struct killing *k = arg;

	if (!entry->protection.every_ms)
		return 0;
	fence_kill(entry, k->why);
	k->n++;
	return 0;
}

unsigned fence_kill_all(const char *why)
{
	struct killing k = { .why = why };

	if (registry_count())
		registry_list(kill_one, &k, NULL);
	return k.n;
}

/* --- godwit-watch --- */

static int see(const struct registry_entry *entry, void *arg)
{
	*(bool *)arg |= entry->protection.every_ms > 0;
	return *(bool *)arg;
}

bool fence_has_units(void)
{
	bool any = false;

	registry_list(see, &any, NULL);
	return any;
}

/* Before everything else, and never waiting for a page. What is not allowed it goes without. */
static void come_first(void)
{
	const struct sched_param p = { .sched_priority = 1 };

	(void)setpriority(PRIO_PROCESS, 0, -20);
	(void)sched_setscheduler(0, SCHED_FIFO, &p);
	(void)mlockall(MCL_CURRENT | MCL_FUTURE);
}

static void __attribute__((noreturn)) watch(pid_t daemon)
{
	const uint64_t self = (uint64_t)getpid();
	unsigned alone = 0;

	prctl(PR_SET_NAME, "godwit-watch");
	log_set_context("side=watch");
	come_first();
	__atomic_store_n(&fence->watcher, self, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&fence->watcher, __ATOMIC_SEQ_CST) == self) {
		uint64_t now = clock_ns(CLOCK_BOOTTIME), until = deadline(), sleep_ns = WATCH_NS;
		struct timespec t;

		if (until && now >= until) {
			fence_kill_all("its lease in etcd could not be renewed");
			sleep_ns = OVER_NS;
		} else if (until) {
			sleep_ns = MIN(sleep_ns, until - now);
		}
		alone = getppid() == daemon ? 0 : alone + 1;
		if (alone && (!until || (alone % ALONE_LOOKS == 0 && !fence_has_units())))
			break;
		t = (struct timespec){ 0, (long)sleep_ns };
		nanosleep(&t, NULL);
	}
	_exit(0);
}

int fence_tick(struct daemon *d)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	pid_t daemon = getpid();
	bool child;

	if (!wanted || worker_count(d, WORKER_WATCH))
		return -1; /* its end wakes */
	if (now >= d->watch_due_ns) {
		d->watch_due_ns = now + AGAIN_NS;
		worker_start(d, WORKER_WATCH, NULL, 0, &child, NULL);
		if (child)
			watch(daemon);
	}
	return (int)(AGAIN_NS / 1000000);
}
