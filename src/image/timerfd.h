/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * timerfd.h - timerfd_create(2): clock, deadline, interval and expirations not yet read
 *
 * The image carries a deadline, not a remaining time, so that the time spent between capture and restore counts. The deadline is on a
 * clock of the source host (outside any time namespace); struct fd_clocks translates it. Timers on a clock that runs alike everywhere
 * (CLOCK_REALTIME, absolute) keep following it; all others are set against CLOCK_MONOTONIC or CLOCK_BOOTTIME.
 */
#ifndef GODWIT_IMAGE_TIMERFD_H
#define GODWIT_IMAGE_TIMERFD_H

#include "image/file_look.h"

/* What to add to a clock of this host to get the same clock of the source host (outside time namespaces). */
struct fd_clocks {
	int64_t monotonic_delta_ns;
	int64_t boottime_delta_ns;
};

/* Fills d->timer (a message allocated when NULL). Expirations until the deadline that it says are counted in its ticks. */
int timerfd_capture(const struct fd_look *look, Gw__FdDesc *d, struct err *e);
int timerfd_validate(const Gw__FdDesc *d, struct err *e);
int timerfd_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
/* Arms or disarms, and sets the ticks. */
int timerfd_fill(const Gw__FdDesc *d, int fd, const struct fd_clocks *clocks, struct err *e);

#endif
