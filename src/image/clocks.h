/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * clocks.h - monotonic clocks that go on counting: time namespaces (time_namespaces(7))
 *
 * What a process reads is the host's clock plus the offset of its time namespace. The destination's offset is chosen so that the
 * process's clock goes on where it was. The two hosts' clocks must be sampled at the same moment: between hosts with the same boot
 * id this does not matter; otherwise the caller exchanges a ping and passes the source's sample together with the middle of the destination's
 * two. The error is at most half of the round trip, less than the time that the freeze itself needs, so that the clock cannot
 * run backwards. Offsets are set before the first task enters the namespace and cannot be changed later.
 */
#ifndef GODWIT_IMAGE_CLOCKS_H
#define GODWIT_IMAGE_CLOCKS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"
#include "task.pb-c.h"

struct clock_offsets {
	int64_t monotonic_ns, boottime_ns;
	bool needed; /* a namespace other than the worker's own is needed */
};

/* Samples this host's clocks; the offsets are those of pid's time namespace (0: the caller's own). */
int clocks_read(pid_t pid, Gw__Clocks *ret_clocks, struct err *e);
int clocks_validate(const Gw__Clocks *clocks, struct err *e);
/* Offsets of a time namespace that is open. Blocks until a child has been in there. */
int clocks_offsets_of(int ns, int64_t *ret_monotonic, int64_t *ret_boottime, struct err *e);
/* A time namespace in which nobody is yet; to be closed. */
int clocks_make_namespace(int64_t monotonic_ns, int64_t boottime_ns, int user, uint32_t number, struct err *e);

/* Offsets for the process on the destination, both samples taken at the same moment. */
struct clock_offsets clock_offsets_for(const Gw__Clocks *source, const Gw__Clocks *dest);
/*
 * Makes the caller's future children live in a time namespace with these offsets; nothing to do unless needed. -EOPNOTSUPP where
 * the kernel has none. Needs CAP_SYS_TIME.
 */
int clock_enter_namespace(const struct clock_offsets *offsets, struct err *e);

/* Now, as a process with this offset reads CLOCK_MONOTONIC. */
uint64_t clock_process_ns(int64_t monotonic_offset_ns);
/* The same for CLOCK_BOOTTIME. */
uint64_t clock_process_boottime_ns(int64_t boottime_offset_ns);

#endif
