/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* timerfd.c - timerfd_create(2); see timerfd.h */
#include "image/timerfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>

#include "base/util.h"

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t)
#endif

#define NS_PER_S 1000000000ll
#define TIMER_NS_MAX (INT64_MAX / 2)

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

void timerfd_refresh(int held)
{
	struct itimerspec now;

	timerfd_gettime(held, &now);
}

int timerfd_capture(const struct fd_look *look, Gw__FdDesc *d, struct err *e)
{
	uint64_t clock, ticks, flags;
	struct itimerspec now;
	int64_t remaining_ns;
	Gw__FdTimer *timer = d->timer;

	if (!fdinfo_u64(look->info, "clockid", 10, &clock) || !fdinfo_u64(look->info, "ticks", 10, &ticks) ||
	    !fdinfo_u64(look->info, "settime flags", 8, &flags))
		return err_set(e, -EPROTO, "fd %d: its fdinfo shows no timer", look->fd);
	if (timerfd_gettime(look->held, &now) < 0)
		return err_sys(e, -errno, "fd %d: timerfd_gettime", look->fd);
	if (!timer) {
		timer = d->timer = fd_alloc(sizeof(*timer));
		gw__fd_timer__init(timer);
	}
	remaining_ns = now.it_value.tv_sec >= TIMER_NS_MAX / NS_PER_S ? TIMER_NS_MAX :
		now.it_value.tv_sec * NS_PER_S + now.it_value.tv_nsec;
	timer->clock = (uint32_t)clock;
	timer->settime_flags = (uint32_t)flags;
	timer->ticks = ticks;
	timer->deadline_clock = (uint32_t)deadline_clock(timer->clock, timer->settime_flags);
	timer->deadline_ns = remaining_ns ? (int64_t)clock_ns((clockid_t)timer->deadline_clock) + remaining_ns : 0;
	timer->interval_ns = now.it_interval.tv_sec >= TIMER_NS_MAX / NS_PER_S ? TIMER_NS_MAX :
		(uint64_t)(now.it_interval.tv_sec * NS_PER_S + now.it_interval.tv_nsec);
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
