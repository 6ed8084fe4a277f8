/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file.h - the descriptor table of one process
 *
 * The image (wire/proto/file.proto) is a table of open file *descriptions* and a table number -> description, FD_CLOEXEC. A
 * description keeps its index from the offer to the freeze; one that is closed becomes FD_CLOSED.
 *
 * Source: nothing is held while the process runs. From fdtable_recapture on, inside the freeze, the worker holds a duplicate of
 * each description, until fdtable_release: call it on abort, before the process goes on, or once the source's copy has died.
 * Capturing again costs 4 to 5 us a number.
 *
 *	fdtable_capture (offer)   ->  fdtable_encode   ->  fdtable_decode, fdtable_restore_open, _place, _late (preparation)
 *	fdtable_recapture (freeze) -> fdtable_encode   ->  fdtable_decode, fdtable_restore_update (plan; run; fdtable_restore_check)
 *	fdtable_plan_release_locks before the go message; fdtable_plan_retake_locks on abort
 */
#ifndef GODWIT_IMAGE_FILE_H
#define GODWIT_IMAGE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "file.pb-c.h"
#include "image/fsfile.h"
#include "image/refuse.h"
#include "image/timerfd.h"
#include "kern/remote.h"

#define FDTABLE_NUMBERS_MAX 1048576u

struct fd_held;
struct fd_seen;
struct fd_pipe_id;

struct fdtable {
	pid_t pid;
	int pidfd;               /* borrowed */
	int fd_dir, info_dir;    /* /proc/PID/fd and fdinfo */
	Gw__FdTable *msg;        /* the image */
	struct fd_held *held;    /* one for each description */
	struct fd_seen *seen;    /* one for each slot */
	size_t n_seen;
	uint32_t *order;         /* descriptions that are open, sorted by file and kcmp order */
	size_t n_order;
	struct fd_pipe_id *pipe_ids; /* one for each of msg->pipes */
	bool offered;            /* the offer's capture is done: the next ones are inside the freeze */
	int kept_info;           /* fdinfo files kept open */
	char *text;              /* buffer for fdinfo */
	size_t text_size;
};

#define FDTABLE_INIT ((struct fdtable){ .pidfd = -1, .fd_dir = -1, .info_dir = -1 })

/*
 * Captures the table of `pid` while it runs or is stopped. Files go to `files`. What cannot move is added to `refusals`; a table
 * with refusals must not be encoded. Raises this process's soft limit of descriptors to the hard one. Reads all of /proc when
 * there are pipes.
 */
int fdtable_capture(pid_t pid, int pidfd, struct fdtable *ret, struct fsfile_table *files, struct refusals *refusals, struct err *e);
/* The same again, for what changed; the process is stopped. */
int fdtable_recapture(struct fdtable *t, struct fsfile_table *files, struct refusals *refusals, struct err *e);
/* Drops the duplicates; the table stays, and can be captured again. */
void fdtable_release(struct fdtable *t);
void fdtable_free(struct fdtable *t);

/* Plans for a task of the process (one that shares its descriptor table). */
void fdtable_plan_release_locks(const struct fdtable *t, struct batch *b);
void fdtable_plan_retake_locks(const struct fdtable *t, struct batch *b);

/* malloc'ed bytes. */
int fdtable_encode(const struct fdtable *t, uint8_t **ret_data, size_t *ret_len, struct err *e);
/* Decodes and validates; n_files is the number of entries in the table of files. Free with gw__fd_table__free_unpacked(p, NULL). */
int fdtable_decode(const void *data, size_t len, uint32_t n_files, Gw__FdTable **ret, struct err *e);
int fdtable_validate(const Gw__FdTable *t, uint32_t n_files, struct err *e);
/* Whether `new` may follow `old`: descriptions and pipes keep index and kind. */
int fdtable_validate_update(const Gw__FdTable *old, const Gw__FdTable *new, struct err *e);

/* What the destination knows besides the table. */
struct fd_env {
	const struct fsfile_answer *answers; /* one for each file, finished (fsfile_finish), with descriptors */
	uint32_t n_files;
	struct fd_clocks clocks;
	pid_t self_pid;                      /* the process's pid in its own pid namespace, for F_SETOWN */
};

struct fd_arrival;

/* The destination's worker: its duplicates of the descriptions, and the state of the transfer. */
struct fd_restore {
	int *fds;                /* by description; -1: none */
	int *others;             /* socketpairs whose other end the process has closed: that end, until the queue is filled */
	size_t n;
	int transfer_worker;     /* the worker's end of the transfer socket, borrowed */
	int transfer_task;       /* the number of the other end in the skeleton; changes */
	struct fd_arrival *arrivals; /* messages whose numbers have not been checked */
	size_t n_arrivals;
	char **aside;            /* paths of unix sockets whose old file has been moved aside */
	size_t n_aside;
};

#define FD_RESTORE_INIT ((struct fd_restore){ .transfer_worker = -1, .transfer_task = -1 })

/* Opens or creates every description, without contents and without listening. */
int fdtable_restore_open(const Gw__FdTable *t, const struct fd_env *env, struct fd_restore *ret, struct err *e);
/*
 * Moves the descriptions into the skeleton at their numbers. r->transfer_worker and r->transfer_task are a connected unix
 * SOCK_SEQPACKET or SOCK_DGRAM pair. Everything else that is open in the skeleton is closed first. Runs the batch several times.
 * r->transfer_task may change.
 */
int fdtable_restore_place(const Gw__FdTable *t, struct fd_restore *r, struct batch *b, struct err *e);
/* epoll entries and owners, by the task itself. Runs the batch. */
int fdtable_restore_late(const Gw__FdTable *t, const struct fd_env *env, struct fd_restore *r, struct batch *b, struct err *e);
/*
 * Inside the freeze: opens, closes and replaces what differs, sets positions, flags and all contents, starts listening, and takes
 * the locks. Adds to the batch; the caller runs it and then calls fdtable_restore_check. The last call closes the transfer socket
 * in the skeleton.
 */
int fdtable_restore_update(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_env *env, struct fd_restore *r, struct batch *b,
	struct err *e);
/* After the batch of an update has run: whether the skeleton received the descriptors at the numbers that the plan counted with. */
int fdtable_restore_check(struct fd_restore *r, struct err *e);
/* Closes the worker's duplicates, and removes what the update moved aside: after the commit. */
void fdtable_restore_free(struct fd_restore *r);
/* The same before the commit: puts socket files that the update replaced back into their place. */
void fdtable_restore_undo(struct fd_restore *r);

#endif
