/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * uring.h - io_urings (io_uring_setup(2))
 *
 * A ring is a descriptor (FD_URING), memory of the kernel's that the program has mapped (VMA_URING), and what has been registered with it. The destination's
 * process makes another ring (it cannot be handed to one: descriptors of rings do not travel over sockets) of the same size and has it mapped at the same
 * addresses.
 *
 * The kernel and the program count submissions and completions from the beginning, modulo 2^32, each in its own memory: the new ring's counts are brought to where the old one's
 * were by as many requests that do nothing. That happens before the freeze, up to where the ring stood at the offer, and in it for what was submitted
 * since. Requests that a device or a worker of the kernel's is doing are waited for in the freeze; if that takes longer than URING_WAIT_MS it is another attempt's turn. What waits
 * for something (polls, timeouts, accepts, reads and writes of sockets and pipes) is read by BPF and submitted again at the destination; the old one ends with the process.
 */
#ifndef GODWIT_IMAGE_URING_H
#define GODWIT_IMAGE_URING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "file.pb-c.h"
#include "image/refuse.h"
#include "image/vma.h"
#include "kern/remote.h"
#include "task.pb-c.h"

#define URING_WAIT_MS 50

/* What is added to this host's clocks for the process's. */
struct uring_clocks {
	int64_t monotonic_offset_ns, boottime_offset_ns;
};

/* --- source --- */

/* Of one process: what the destination has been told of its rings. */
struct uring_told;

/*
 * For the offer, when the table of descriptors has been captured: fills msg->urings. pidfd: of the process. Refuses what cannot be carried, and mappings of rings
 * whose descriptor has been closed. *ret_told is NULL when there are none.
 */
int uring_capture(pid_t pid, int pidfd, const struct vma_list *layout, Gw__Process *msg, struct uring_told **ret_told, struct refusals *refusals, struct err *e);
/* Requests in flight that take something from, or give it to, somebody who stays; msg->urings: as captured. In the freeze, too. */
void uring_refuse_relayed(const Gw__FdTable *t, uint32_t process, const Gw__Process *msg, struct refusals *refusals);
/* Whether a process of the table, or with these mappings, has any: only then is it worth while to look. */
bool uring_is_in(const Gw__FdTable *t, uint32_t process, const struct vma_list *layout);
/* Rings that several processes have. */
void uring_refuse_shared(const Gw__FdTable *t, struct refusals *refusals);
/* A stopped thread, by its number here, makes io_uring_enter(fd, 0, 0, IORING_ENTER_GETEVENTS), so that the completions which only it may make are made. */
struct uring_enter {
	int (*run)(void *arg, pid_t tid, unsigned fd, struct err *e);
	void *arg;
	struct uring_clocks clocks;
};
/*
 * In the freeze, before descriptors and pages are looked at: waits for what is in flight, and fills msg->urings. -EAGAIN: other rings than at the offer, or
 * requests that do not end.
 */
int uring_recapture(pid_t pid, int pidfd, const struct vma_list *layout, struct uring_told *told, const struct uring_enter *enter, Gw__Process *msg, struct err *e);
/*
 * Behind them: -EAGAIN when a request has ended in between, so that what it has read, say, was looked at before, and its completion is not in the message, or the other way round.
 */
int uring_recheck(pid_t pid, const struct uring_told *told, struct err *e);
/* How much memory the process has registered with its rings: the kernel reads and writes it past the page tables. */
uint64_t uring_pinned_bytes(const Gw__Process *msg);
void uring_told_free(struct uring_told *told);

/* --- both --- */

int uring_validate(const Gw__Process *msg, struct err *e);
/* Whether the rings of the freeze may follow those of the offer. */
int uring_validate_update(const Gw__Process *was, const Gw__Process *now, struct err *e);

/* --- destination --- */

/* The rings of one process of the skeleton. */
struct uring_set;

/* How the process's threads are reached; `thread` by its number in the unit, NULL: there is none. */
struct uring_skeleton {
	struct batch *main;
	struct batch *(*thread)(void *arg, pid_t tid);
	void *arg;
	pid_t pid;   /* as this worker sees it */
	int pidfd;
	struct uring_clocks clocks;
};

void uring_validate_here(const Gw__Process *msg, struct refusals *refusals);
/* When layout, threads and descriptors stand: makes and maps the rings, and brings their counts to where the offer has them. */
int uring_make(const struct uring_skeleton *s, const Gw__Process *msg, const Gw__FdNumbers *numbers, struct uring_set **ret, struct err *e);
/* In the freeze, before the lists of calls: counts and memory. */
int uring_fill(const struct uring_skeleton *s, const Gw__Process *msg, struct uring_set *set, struct err *e);
/* Behind them, when descriptors have their numbers and eager pages are in place: what is registered. */
int uring_register(const struct uring_skeleton *s, const Gw__Process *msg, struct uring_set *set, struct err *e);
void uring_set_free(struct uring_set *set);

#endif
