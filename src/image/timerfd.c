/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* timerfd.c - timerfd_create(2); see timerfd.h */
#include "image/timerfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/file_record.h"

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

#define NS_PER_S 1000000000ll
#define TIMER_NS_MAX (INT64_MAX / 2)
#define DUE_NS 2000000u        /* for an expiration that must come; then it is taken for one that comes at the destination */
#define MAYBE_DUE_NS 10000000u
#define AT_ONCE_NS 100000      /* two calls in a row, the worker not having been preempted between them */
#define TRIES_MAX 200u         /* a busy machine preempts the worker in many a look */
#define TRIES_SHORT_MAX 16u    /* with intervals of some microseconds no look is without an expiration in it */

/* The clock on which the deadline is expressed. The relative timers of CLOCK_REALTIME run on CLOCK_MONOTONIC in the kernel, too. */
static clockid_t deadline_clock(uint32_t clock, uint32_t settime_flags)
{
	switch (clock) {
	case CLOCK_BOOTTIME:
	case CLOCK_BOOTTIME_ALARM:
		return CLOCK_BOOTTIME;
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_ALARM:
		return settime_flags & TFD_TIMER_ABSTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
	default:
		return CLOCK_MONOTONIC;
	}
}

static int64_t to_ns(const struct timespec *t)
{
	return t->tv_sec >= TIMER_NS_MAX / NS_PER_S ? TIMER_NS_MAX : t->tv_sec * NS_PER_S + t->tv_nsec;
}

static int read_ticks(int held, uint64_t *ret_ticks)
{
	char path[48], text[1024];
	cleanup_close int fd = -1;
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", held);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (len < 0)
		return -errno;
	text[len] = '\0';
	return fdinfo_u64(text, "ticks", 10, ret_ticks) ? 0 : -EPROTO;
}

/* One moment of a timer: so many expirations until then, and the next one at that time of the clock. */
struct moment {
	uint64_t ticks;
	int64_t next_ns; /* 0: none */
	int64_t interval_ns;
	bool steady;     /* there was none before the expirations were counted, and none afterwards */
};

/*
 * Looks once. Each timerfd_gettime folds the expirations of a periodic timer that nobody reads into the ticks. Returns whether none of them fell between what
 * was looked at, and the remaining time is not that of a timer that is due.
 */
static int look_once(int held, clockid_t clock, struct moment *m)
{
	struct itimerspec before = { 0 }, after = { 0 };
	int64_t began = (int64_t)clock_ns(CLOCK_MONOTONIC), left_ns;
	int ret = timerfd_gettime(held, &before) < 0 ? -errno : 0;
	bool at_once;

	m->ticks = 0;
	left_ns = to_ns(&before.it_value);
	m->next_ns = left_ns ? (int64_t)clock_ns(clock) + left_ns : 0;
	at_once = (int64_t)clock_ns(CLOCK_MONOTONIC) - began < AT_ONCE_NS;
	m->interval_ns = to_ns(&before.it_interval);
	if (ret == 0)
		ret = read_ticks(held, &m->ticks);
	if (ret == 0 && timerfd_gettime(held, &after) < 0)
		ret = -errno;
	if (ret < 0)
		return ret;
	m->steady = !left_ns && !to_ns(&after.it_value);
	if (!left_ns)
		return !m->interval_ns && m->ticks;
	return at_once && to_ns(&after.it_value) && to_ns(&after.it_value) <= left_ns &&
		(!m->interval_ns || (int64_t)clock_ns(CLOCK_MONOTONIC) - began < m->interval_ns);
}

/*
 * A remaining time of 0 is that of a timer that is not armed, or of one that is due: its interrupt comes within microseconds, but for a CPU that the host of
 * a virtual machine does not run at the moment. For one that is known to be armed, or was before, it is waited for. One that was due and is no more, since its
 * interrupt came while this task was kept from running, is looked at again: its expiration is counted already.
 */
static int look_at_timer(const struct fd_look *look, clockid_t clock, bool was_armed, struct moment *m)
{
	uint64_t end_ns = clock_ns(CLOCK_MONOTONIC) + (look->armed == FILE_ARMED_YES ? DUE_NS : MAYBE_DUE_NS);
	bool was_seen = false, may_be_due = look->armed == FILE_ARMED_YES || (look->armed == FILE_ARMED_UNKNOWN && was_armed);

	for (unsigned tries = 0;; tries++) {
		int ret = look_once(look->held, clock, m);

		if (ret)
			return ret < 0 ? ret : 0;
		was_seen |= m->next_ns != 0;
		if (m->steady && (!(may_be_due || was_seen) || clock_ns(CLOCK_MONOTONIC) > end_ns))
			break;
		if (!m->steady && tries > (m->interval_ns && m->interval_ns < AT_ONCE_NS ? TRIES_SHORT_MAX : TRIES_MAX))
			break;
	}
	if (!m->next_ns && (look->armed == FILE_ARMED_YES || was_seen))
		m->next_ns = (int64_t)clock_ns(clock);
	return 0;
}

int timerfd_capture(const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	uint64_t clock, flags;
	Gw__FdTimer *timer = d->timer;
	clockid_t deadline;
	struct moment m;
	int ret;

	if (!fdinfo_u64(look->info, "clockid", 10, &clock) || !fdinfo_u64(look->info, "settime flags", 8, &flags))
		return err_set(e, -EPROTO, "fd %d: its fdinfo shows no timer", look->fd);
	deadline = deadline_clock((uint32_t)clock, (uint32_t)flags);
	ret = look_at_timer(look, deadline, timer && timer->deadline_ns, &m);
	if (ret < 0)
		return err_sys(e, ret, "fd %d: its timer", look->fd);
	if (!timer) {
		timer = d->timer = fd_alloc(sizeof(*timer));
		gw__fd_timer__init(timer);
	}
	timer->clock = (uint32_t)clock;
	timer->settime_flags = (uint32_t)flags;
	timer->ticks = m.ticks;
	timer->deadline_clock = (uint32_t)deadline;
	timer->deadline_ns = m.next_ns;
	timer->interval_ns = (uint64_t)m.interval_ns;
	return 0;
}

int timerfd_validate(const Gw__FdDesc *d, struct err *e)
{
	const Gw__FdTimer *t = d->timer;

	if (!t)
		return err_set(e, -EPROTO, "timerfd without a timer");
	if (t->clock != CLOCK_REALTIME && t->clock != CLOCK_MONOTONIC && t->clock != CLOCK_BOOTTIME &&
	    t->clock != CLOCK_REALTIME_ALARM && t->clock != CLOCK_BOOTTIME_ALARM)
		return err_set(e, -EPROTO, "timerfd: unknown clock %u", t->clock);
	if (t->settime_flags & ~(uint32_t)(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET))
		return err_set(e, -EPROTO, "timerfd: unknown flags %#x", t->settime_flags);
	if (t->deadline_clock != (uint32_t)deadline_clock(t->clock, t->settime_flags))
		return err_set(e, -EPROTO, "timerfd: a deadline on another clock");
	if (t->deadline_ns < 0 || t->interval_ns > TIMER_NS_MAX)
		return err_set(e, -EPROTO, "timerfd: time out of range");
	return 0;
}

int timerfd_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	int fd = timerfd_create((clockid_t)d->timer->clock, O_CLOEXEC | (int)(d->flags & O_NONBLOCK));

	if (fd < 0)
		return err_sys(e, -errno, "timerfd_create with clock %u", d->timer->clock);
	*ret_fd = fd;
	return 0;
}

/*
 * What remains until the deadline `at`, for a timer that was set relatively and shall look so in fdinfo. What has expired in the move is counted, and a
 * periodic timer keeps its phase.
 */
static int64_t remaining(const Gw__FdTimer *t, int64_t at, uint64_t *ticks)
{
	int64_t left = at - (int64_t)clock_ns((clockid_t)t->deadline_clock);

	if (left > 0)
		return left;
	if (!t->interval_ns)
		return 1;
	*ticks += 1 + (uint64_t)-left / t->interval_ns;
	return (int64_t)(t->interval_ns - (uint64_t)-left % t->interval_ns);
}

int timerfd_fill(const Gw__FdDesc *d, int fd, const struct fd_clocks *clocks, struct err *e)
{
	const Gw__FdTimer *t = d->timer;
	struct itimerspec set = { .it_interval = { (time_t)(t->interval_ns / NS_PER_S), (long)(t->interval_ns % NS_PER_S) } };
	uint64_t ticks = t->ticks;
	int64_t at = t->deadline_ns;

	if (at && t->deadline_clock == CLOCK_MONOTONIC)
		at -= clocks->monotonic_delta_ns;
	else if (at && t->deadline_clock == CLOCK_BOOTTIME)
		at -= clocks->boottime_delta_ns;
	if (t->deadline_ns && t->settime_flags & TFD_TIMER_ABSTIME)
		at = at > 0 ? at : 1;
	else if (t->deadline_ns)
		at = remaining(t, at, &ticks);
	set.it_value.tv_sec = (time_t)(at / NS_PER_S);
	set.it_value.tv_nsec = (long)(at % NS_PER_S);
	if (timerfd_settime(fd, (int)t->settime_flags, &set, NULL) < 0)
		return err_sys(e, -errno, "timerfd_settime");
	if (ticks && ioctl(fd, TFD_IOC_SET_TICKS, &ticks) < 0)
		return err_sys(e, -errno, "timerfd: setting %llu expirations", (unsigned long long)ticks);
	return 0;
}
