/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * epoll.h - epoll(7) sets
 *
 * An entry is known by the number it was added with and by the description behind that number at that time. The number may since
 * have been closed, or refer to something else; kcmp(KCMP_EPOLL_TFD) tells which description an entry really watches. Entries are
 * added by the task itself, because the kernel records the number; where the number is not (or no longer) the description's, it
 * is for a moment made so.
 */
#ifndef GODWIT_IMAGE_EPOLL_H
#define GODWIT_IMAGE_EPOLL_H

#include "image/file_look.h"
#include "kern/remote.h"

#define EPOLL_ITEMS_MAX 1000000u

/* Which description a number of the captured unit refers to now, and where the worker holds each. */
struct fd_resolver {
	/* Index of the description behind a number, of the process looked at or of another one, or -1. */
	int (*slot)(void *arg, const struct fd_look *look, uint32_t fd);
	/* The worker's duplicate of description i (-1 when it is closed), and the number of descriptions. */
	int (*held)(void *arg, uint32_t desc);
	/* Whether description i is a socket on this device, as the kernel writes it in fdinfo: of a socket there is one description for an inode. */
	bool (*is_socket)(void *arg, uint32_t desc, uint64_t device);
	/* Whether an entry with this number is none, or another one, by now, since the process runs: it is left out. */
	bool (*has_changed)(void *arg, const struct fd_look *look, uint32_t fd);
	uint32_t (*count)(void *arg);
	uint64_t (*ino)(void *arg, uint32_t desc);
	void *arg;
};

/*
 * Parses the entries from look->info into d->items. -ENOENT when an entry watches something that no descriptor of the unit refers to
 * (another process or a message in flight keeps it open); *ret_lost is its number then.
 */
int epoll_capture(const struct fd_look *look, Gw__FdDesc *d, const struct fd_resolver *resolver, uint32_t *ret_lost, struct err *e);
/* What the record of a descriptor has as its digest (kern/file_record.h) when the set is this one; file: what the record of a description has as its file. */
uint64_t epoll_digest(const Gw__FdDesc *d, uint64_t (*file)(const void *arg, uint32_t desc), const void *arg);
int epoll_validate(const Gw__FdDesc *d, size_t n_descs, struct err *e);
int epoll_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);

/* The table of numbers at the moment that a plan runs. */
struct fd_numbers {
	int (*slot)(const void *arg, uint32_t fd, bool *ret_cloexec); /* description behind a number, or -1 */
	int (*number)(const void *arg, uint32_t desc);                /* any number of a description, or -1 */
	bool (*mine)(const void *arg, const Gw__FdEpollItem *item);   /* whether this process is the one for the entry */
	int spare;                                                    /* a number that nothing uses */
	const void *arg;
};

/*
 * Adds to the batch what turns the set `was` (NULL: empty) of the epoll descriptor behind `d` into d's. Removals are planned by
 * epoll_plan_remove with the numbers before, additions by epoll_plan_add with the numbers after the table changed.
 */
void epoll_plan_remove(struct batch *b, const Gw__FdDesc *was, const Gw__FdDesc *d, int epfd, const struct fd_numbers *before);
int epoll_plan_add(struct batch *b, const Gw__FdDesc *was, const Gw__FdDesc *d, int epfd, const struct fd_numbers *after, struct err *e);

#endif
