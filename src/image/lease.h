/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lease.h - file leases (F_SETLEASE in fcntl(2))
 *
 * A lease belongs to the open file description. That somebody opens the file breaks it, and this worker and the destination's are somebody: so a file with a
 * write lease, or with a lease that is being broken, is FD_LEASED. It is not opened, but known by its path, must be the very same at the destination, and is opened
 * there in the freeze, when the source has given the lease up. Until then its number is /dev/null's. A read lease does not mind readers; its file travels like others (FD_FILE).
 *
 * A write lease needs that nobody else has the file open; where the source's copy has (one kernel), it is taken when that has ended, a moment after the resume. A
 * lease that is being broken is broken again, by an open that does not wait, before the process can hear of it: it has been told at the source.
 */
#ifndef GODWIT_IMAGE_LEASE_H
#define GODWIT_IMAGE_LEASE_H

#include "image/file_look.h"
#include "image/refuse.h"

/* From look->info, into d->lease (NULL: there is none). False: a delegation, which cannot move. */
bool lease_capture(const struct fd_look *look, Gw__FdDesc *d);
/* Whether d->lease makes the description an FD_LEASED. */
bool lease_is_touchy(const Gw__FdDesc *d);
/* Path and identity of an FD_LEASED. 0 or FD_REFUSED. */
int lease_identify(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals);
int lease_validate(const Gw__FdDesc *d, struct err *e);
void lease_judge(const Gw__FdDesc *d, int fd, struct refusals *refusals);

/* The source gives up and takes again what the descriptions held have. */
void lease_release_all(const Gw__FdTable *t, int (*held)(void *arg, uint32_t desc), void *arg);
void lease_retake_all(const Gw__FdTable *t, int (*held)(void *arg, uint32_t desc), void *arg);

/* What has to wait until the source's copy has ended. */
struct lease_late {
	struct lease_waiting *v;
	size_t n;
};

/* Destination, in the freeze: the file of an FD_LEASED. */
int lease_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
/* Takes the lease of a description, or puts a duplicate into `late`. */
int lease_take(const Gw__FdTable *t, uint32_t desc, int fd, struct lease_late *late, struct err *e);
/* After the commit; what cannot be taken stays in the list. */
void lease_late_take(struct lease_late *late, unsigned timeout_ms);
void lease_late_free(struct lease_late *late);

#endif
