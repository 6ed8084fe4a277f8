/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* timer.c - interval timers and POSIX timers; see timer.h */
#include "image/timer.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"

#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS 77
#endif
#define RESTORE_IDS_OFF 0
#define RESTORE_IDS_ON 1
#define RESTORE_IDS_GET 2

#define NS_PER_S 1000000000ull
#define ITIMERS 3
#define SIGNALS 64u
#define LISTING_MAX (TIMERS_MAX * 128)
#define ID_MAX 0x7fffffffu
#define ID_BY_COUNTING_MAX 4096u /* without RESTORE_IDS each number below has to be created and deleted */

/* What the kernel calls struct sigevent; glibc's hides the thread id. */
struct kernel_sigevent {
	uint64_t value;
	int32_t signo;
	int32_t notify;
	int32_t tid;
	int32_t pad[11];
};

static uint64_t spec_ns(const struct timespec *t)
{
	return (uint64_t)t->tv_sec * NS_PER_S + (uint64_t)t->tv_nsec;
}

static struct timespec ns_spec(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
}

static uint64_t val_ns(const struct timeval *t)
{
	return (uint64_t)t->tv_sec * NS_PER_S + (uint64_t)t->tv_usec * 1000;
}

static bool clock_is_cpu(int clock)
{
	return clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
}

/* Clocks whose expiry can be set absolutely without changing what the timer means. */
static bool clock_is_steady(int clock)
{
	return clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME || clock == CLOCK_BOOTTIME_ALARM;
}

/* Dynamic clocks (/dev/ptp0) are negative numbers like CPU clocks, told apart by their lowest bits. */
static bool clock_is_supported(int clock)
{
	if (clock < 0)
		return (clock & 7) != 3 && (clock & 3) != 3;
	return clock <= CLOCK_TAI && clock != CLOCK_MONOTONIC_RAW && clock != CLOCK_REALTIME_COARSE && clock != CLOCK_MONOTONIC_COARSE;
}

/* The whole listing in a malloc'ed string. Few programs have timers: the common case is one small read. */
static int read_listing(int fd, char **ret_text, struct err *e)
{
	size_t len = 0, size = 512;
	cleanup_free char *text = must_alloc(size);
	ssize_t n;

	while ((n = pread(fd, text + len, size - 1 - len, (off_t)len)) > 0) {
		len += (size_t)n;
		if (len < size - 1)
			continue;
		if (size > LISTING_MAX)
			return err_set(e, -E2BIG, "more than %d POSIX timers", TIMERS_MAX);
		size *= 4;
		text = realloc(text, size);
		if (!text)
			abort();
	}
	if (n < 0)
		return err_sys(e, -errno, "timers in /proc");
	text[len] = 0;
	*ret_text = take_ptr(text);
	return 0;
}

static int open_listing(pid_t pid, struct err *e)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/timers", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_sys(e, -errno, "%s", path) : fd;
}

/* One timer of the listing; moves *text behind it. Returns false at the end. */
static bool parse_timer(const char **text, Gw__PosixTimer *t)
{
	unsigned long long value;
	char kind[16], target[8];
	int used = 0, signo, tid, clock;
	unsigned id;

	if (sscanf(*text, " ID: %u signal: %d/%llx notify: %15[^/]/%7[^.].%d ClockID: %d%n", &id, &signo, &value, kind, target, &tid,
		   &clock, &used) != 7 || !used)
		return false;
	*text += used;
	t->id = id;
	t->clock = clock;
	t->signal = (uint32_t)signo;
	t->value = value;
	t->notify = strcmp(kind, "none") == 0 ? SIGEV_NONE : strcmp(kind, "thread") == 0 ? SIGEV_THREAD : SIGEV_SIGNAL;
	if (strcmp(target, "tid") == 0) {
		t->notify |= SIGEV_THREAD_ID;
		t->notify_tid = tid;
	}
	return true;
}

int timer_check(pid_t pid, struct refusals *r, struct err *e)
{
	cleanup_free char *text = NULL;
	cleanup_close int fd = open_listing(pid, e);
	const char *p;
	Gw__PosixTimer t;
	size_t n = 0;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fd;
	if (read_listing(fd, &text, NULL) < 0)
		n = TIMERS_MAX + 1;
	gw__posix_timer__init(&t);
	for (p = text; text && parse_timer(&p, &t);) {
		n++;
		if (!clock_is_supported(t.clock))
			refusals_add(r, "task.timer-clock", "timers on this clock cannot move", "delete the timer", "POSIX timer %u (clock %d)",
				     t.id, t.clock);
	}
	if (n > TIMERS_MAX)
		refusals_add(r, "task.timers", "too many timers", "delete some", "%zu POSIX timers", n);
	return 0;
}

int timer_capture_plan(struct batch *b, struct timer_query *q, pid_t pid, struct err *e)
{
	const char *p;
	Gw__PosixTimer t;
	uint64_t at;
	int rc;

	*q = (struct timer_query){ .listing_fd = -1 };
	q->itimers = batch_space(b, ITIMERS * sizeof(*q->itimers), &at);
	for (unsigned i = 0; i < ITIMERS; i++)
		batch_call(b, "getitimer", SYS_getitimer, i, at + i * sizeof(*q->itimers));
	q->monotonic = batch_space(b, sizeof(*q->monotonic), &at);
	batch_call(b, "clock_gettime", SYS_clock_gettime, CLOCK_MONOTONIC, at);
	rc = open_listing(pid, e);
	if (rc == -ENOENT)
		return 0; /* a kernel without POSIX timers or checkpoint support */
	if (rc < 0)
		return rc;
	q->listing_fd = rc;
	rc = read_listing(q->listing_fd, &q->listing, e);
	if (rc < 0)
		return rc;
	gw__posix_timer__init(&t);
	for (p = q->listing; parse_timer(&p, &t);)
		q->n++;
	q->one = must_alloc(q->n * sizeof(*q->one));
	p = q->listing;
	for (size_t i = 0; i < q->n && parse_timer(&p, &t); i++) {
		q->one[i].now = batch_space(b, sizeof(*q->one[i].now), &at);
		batch_try(b, "clock_gettime", SYS_clock_gettime, (uint64_t)(int64_t)t.clock, at);
		q->one[i].setting = batch_space(b, sizeof(*q->one[i].setting), &at);
		q->one[i].call = batch_try(b, "timer_gettime", SYS_timer_gettime, t.id, at);
	}
	return 0;
}

static int collect_timer(const struct timer_query_one *one, Gw__PosixTimer *t, struct err *e)
{
	uint64_t remaining;

	if (one->call->ret < 0)
		return err_set(e, -EAGAIN, "POSIX timer %u was deleted meanwhile", t->id);
	remaining = spec_ns(&one->setting->it_value);
	t->interval_ns = spec_ns(&one->setting->it_interval);
	t->armed = remaining > 0;
	t->expiry_is_remaining = clock_is_cpu(t->clock);
	t->expires_ns = remaining + (t->armed && !t->expiry_is_remaining ? spec_ns(one->now) : 0);
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	const Gw__PosixTimer *const *x = a, *const *y = b;

	return (*x)->id < (*y)->id ? -1 : (*x)->id > (*y)->id;
}

int timer_capture_look(struct timer_query *q, struct err *e)
{
	int rc;

	if (q->listing_fd < 0)
		return 0;
	freep(&q->again);
	rc = read_listing(q->listing_fd, &q->again, e);
	if (rc == 0 && strcmp(q->listing, q->again) != 0)
		return err_set(e, -EAGAIN, "a POSIX timer was created or deleted meanwhile");
	return rc;
}

static int collect_posix_timers(struct timer_query *q, Gw__Process *msg, struct err *e)
{
	const char *p = q->listing;
	int rc;

	msg->timers = must_alloc(q->n * sizeof(*msg->timers));
	for (size_t i = 0; i < q->n; i++) {
		Gw__PosixTimer *t = must_alloc(sizeof(*t));

		gw__posix_timer__init(t);
		msg->timers[msg->n_timers++] = t;
		if (!parse_timer(&p, t))
			return err_set(e, -EIO, "timers in /proc: unexpected form");
		rc = collect_timer(&q->one[i], t, e);
		if (rc < 0)
			return rc;
	}
	qsort(msg->timers, msg->n_timers, sizeof(*msg->timers), compare_ids); /* the kernel lists the newest first */
	return 0;
}

int timer_capture_collect(struct timer_query *q, Gw__Process *msg, struct err *e)
{
	const struct itimerval *timer = &q->itimers[ITIMER_REAL];
	/*
	 * An interval without a next expiry: SIGALRM is pending, and the kernel starts the timer again when that is taken. What is queued at the
	 * destination is a SIGALRM that has no timer to start, so the timer goes on by itself; an expiry while the signal is pending changes nothing.
	 */
	uint64_t real = val_ns(val_ns(&timer->it_value) ? &timer->it_value : &timer->it_interval);

	bytes_set(&msg->itimers, q->itimers, ITIMERS * sizeof(*q->itimers));
	msg->itimer_real_expires_ns = real ? spec_ns(q->monotonic) + real : 0;
	return q->listing_fd >= 0 ? collect_posix_timers(q, msg, e) : 0;
}

void timer_query_close(struct timer_query *q)
{
	close_fdp(&q->listing_fd);
	freep(&q->listing);
	freep(&q->again);
	freep(&q->one);
}

int timer_validate(const Gw__Process *msg, struct err *e)
{
	if (msg->itimers.len != ITIMERS * sizeof(struct itimerval))
		return err_set(e, -EBADMSG, "interval timers: %zu bytes", msg->itimers.len);
	if (msg->n_timers > TIMERS_MAX)
		return err_set(e, -EBADMSG, "%zu POSIX timers", msg->n_timers);
	for (size_t i = 0; i < msg->n_timers; i++) {
		const Gw__PosixTimer *t = msg->timers[i];

		if (t->id > ID_MAX || !clock_is_supported(t->clock) || t->signal > SIGNALS || t->expires_ns > INT64_MAX ||
		    t->interval_ns > INT64_MAX || (t->notify & ~(uint32_t)(SIGEV_NONE | SIGEV_THREAD | SIGEV_THREAD_ID)))
			return err_set(e, -EBADMSG, "POSIX timer %u makes no sense", t->id);
		/* timer_plan_create relies on the order */
		if (i && t->id <= msg->timers[i - 1]->id)
			return err_set(e, -EBADMSG, "POSIX timers %u and %u are not in order", msg->timers[i - 1]->id, t->id);
	}
	return 0;
}

static uint64_t plan_create_one(struct batch *b, const struct kernel_sigevent *event, int clock, uint32_t id)
{
	uint64_t at_event = batch_data(b, event, sizeof(*event)), at_id = batch_data(b, &id, sizeof(id));

	batch_call(b, "timer_create", SYS_timer_create, (uint64_t)(int64_t)clock, at_event, at_id);
	return at_id;
}

static struct kernel_sigevent event_of(const Gw__PosixTimer *t)
{
	/* SIGEV_NONE timers have no signal, and none is checked */
	return (struct kernel_sigevent){ t->value, (int32_t)t->signal, (int32_t)t->notify, t->notify_tid, { 0 } };
}

void timer_plan_create(struct batch *b, const Gw__Process *msg)
{
	const struct kernel_sigevent none = { .notify = SIGEV_NONE };
	bool by_id = prctl(PR_TIMER_CREATE_RESTORE_IDS, RESTORE_IDS_GET, 0, 0, 0) >= 0;
	uint32_t next = 0;

	if (!msg->n_timers)
		return;
	if (by_id)
		batch_call(b, "prctl(PR_TIMER_CREATE_RESTORE_IDS)", SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, RESTORE_IDS_ON);
	for (size_t i = 0; i < msg->n_timers; i++) {
		const struct kernel_sigevent event = event_of(msg->timers[i]);

		/* older kernels number the timers of a new process 0, 1, 2, ... and never reuse a number early */
		for (; !by_id && next < msg->timers[i]->id && next < ID_BY_COUNTING_MAX; next++) {
			plan_create_one(b, &none, CLOCK_MONOTONIC, next);
			batch_call(b, "timer_delete", SYS_timer_delete, next);
		}
		plan_create_one(b, &event, msg->timers[i]->clock, msg->timers[i]->id);
		next++;
	}
	if (by_id)
		batch_call(b, "prctl(PR_TIMER_CREATE_RESTORE_IDS)", SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, RESTORE_IDS_OFF);
	/* a timer that got another number is noticed here and not when the program asks for it */
	for (size_t i = 0; i < msg->n_timers; i++) {
		uint64_t at;

		batch_space(b, sizeof(struct itimerspec), &at);
		batch_call(b, "timer_gettime", SYS_timer_gettime, msg->timers[i]->id, at);
	}
}

static uint64_t remaining_ns(uint64_t expires_ns, uint64_t now_ns)
{
	return expires_ns > now_ns ? expires_ns - now_ns : 1;
}

static void plan_arm_itimers(struct batch *b, const Gw__Process *msg, uint64_t now_ns)
{
	struct itimerval timers[ITIMERS];

	memcpy(timers, msg->itimers.data, sizeof(timers));
	if (msg->itimer_real_expires_ns) {
		uint64_t us = (remaining_ns(msg->itimer_real_expires_ns, now_ns) + 999) / 1000;

		timers[ITIMER_REAL].it_value = (struct timeval){ (time_t)(us / 1000000), (suseconds_t)(us % 1000000) };
	}
	for (unsigned i = 0; i < ITIMERS; i++)
		if (val_ns(&timers[i].it_value))
			batch_call(b, "setitimer", SYS_setitimer, i, batch_data(b, &timers[i], sizeof(timers[i])));
}

void timer_plan_arm(struct batch *b, const Gw__Process *msg, uint64_t now_ns)
{
	uint64_t real_now = clock_ns(CLOCK_REALTIME), tai_now = clock_ns(CLOCK_TAI);

	plan_arm_itimers(b, msg, now_ns);
	for (size_t i = 0; i < msg->n_timers; i++) {
		const Gw__PosixTimer *t = msg->timers[i];
		struct itimerspec spec = { .it_interval = ns_spec(t->interval_ns) };
		uint64_t flags = 0;

		if (!t->armed && !t->interval_ns)
			continue;
		if (t->armed && (t->expiry_is_remaining || clock_is_cpu(t->clock)))
			spec.it_value = ns_spec(MAX(t->expires_ns, 1ull));
		else if (t->armed && clock_is_steady(t->clock)) {
			spec.it_value = ns_spec(MAX(t->expires_ns, 1ull));
			flags = TIMER_ABSTIME;
		} else if (t->armed)
			spec.it_value = ns_spec(remaining_ns(t->expires_ns, t->clock == CLOCK_TAI ? tai_now : real_now));
		batch_call(b, "timer_settime", SYS_timer_settime, t->id, flags, batch_data(b, &spec, sizeof(spec)));
	}
}
