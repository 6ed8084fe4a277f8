/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file.h - the descriptor tables of a unit
 *
 * The image (wire/proto/file.proto) has one table of open file *descriptions*, pipes and locks for all processes of the unit, and for
 * each process a table number -> description, FD_CLOEXEC. A description that processes share, since one inherited it from the other,
 * is one description: shared again at the destination. Processes may share a whole table (clone with CLONE_FILES); the first of them
 * is the one that all plans are for. Processes are known by their index in the list given to fdtable_capture. A description keeps its
 * index from the offer to the freeze; one that is closed becomes FD_CLOSED.
 *
 * Source: nothing is held while the unit runs, but for a moment: one description at a time, and nothing of TCP sockets that are like one that is known (file_running.c). From
 * fdtable_recapture on, inside the freeze, the worker holds a duplicate of each description, until fdtable_release: call it on abort, before the unit goes on, or once the source's
 * copy has died.
 * Capturing again costs 4 to 5 us a number.
 *
 *	fdtable_capture (offer)   ->  fdtable_encode   ->  fdtable_decode, fdtable_restore_open once, then for each process _place and
 *	                                                   _late, when all processes and threads exist (preparation)
 *	fdtable_recapture (freeze) -> fdtable_encode   ->  fdtable_decode, fdtable_restore_update (plan; run; fdtable_restore_check)
 *	fdtable_plan_release_locks for each process before the go message; fdtable_plan_retake_locks on abort
 */
#ifndef GODWIT_IMAGE_FILE_H
#define GODWIT_IMAGE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "file.pb-c.h"
#include "image/fsfile.h"
#include "image/lease.h"
#include "image/pty.h"
#include "image/refuse.h"
#include "image/timerfd.h"
#include "image/unix_name.h"
#include "kern/file_table.h"
#include "kern/remote.h"

#define FDTABLE_NUMBERS_MAX 1048576u
#define FDTABLE_PROCESSES_MAX 65536u

struct fd_process {
	pid_t pid;
	int pidfd;               /* borrowed; -1: it has ended and waits for its parent (a zombie), and has no descriptors */
};

struct fd_view;
struct fd_held;
struct fd_pipe_id;

struct fdtable {
	struct fd_view *views;   /* one for each process */
	size_t n_views;
	Gw__FdTable *msg;        /* the image */
	struct fd_held *held;    /* one for each description */
	uint32_t *order;         /* descriptions that are open, sorted by file and kcmp order */
	size_t n_order;
	struct fd_pipe_id *pipe_ids; /* one for each of msg->pipes */
	bool changed;            /* since the last capture that succeeded: some number or description is not what it was */
	bool frozen;             /* of the current capture: the processes are stopped */
	bool running;            /* of the current capture: they run, and what is looked at is found by records (file_running.c) */
	uint64_t *pty_ids;       /* one for each of msg->ptys */
	int kept_info;           /* fdinfo files kept open */
	char *text;              /* buffer for fdinfo */
	size_t text_size;
	struct file_watch *self; /* file_freeze.c: of this process's own table; NULL: no BPF */
	struct file_record *records;
	size_t records_room;
	int terminal;            /* the root's controlling terminal, a description of this worker's (file_terminal.c); 0: not opened */
	bool relays_travel;      /* what lies in relayed pipes comes along (relay.h); set by the caller */
	bool learned;            /* which description of the kernel each is */
	bool order_is_old;
	bool has_unix, has_ptys, has_watched, has_tcp; /* there is, or was, one */
	struct tcp_set *tcp;     /* file_tcp.c: of the current capture */
	struct fd_kin *kin;      /* file_kin.c: options that TCP sockets of the unit have */
	size_t n_kin;
	bool holding;            /* duplicates */
	bool few;                /* of the current capture: only the descriptions in todo may have changed */
	bool retaken;            /* frozen: numbers have been looked at since the records were read that are known, so that these say nothing about them */
	bool ends_listed;        /* fdtable_list_fresh_ends has listed all, but for those of the descriptions in todo */
	uint32_t *todo;
	size_t n_todo, todo_room;
	uint32_t *briefs;        /* those that are brief: of the last capture */
	size_t n_briefs, briefs_room;
	uint32_t round;
	uint8_t *differs;        /* one for each description: from the offer, as far as its record tells */
	size_t differs_room;
};

#define FDTABLE_INIT ((struct fdtable){ 0 })

/* Captures go by what this one reads, from now on; without it the worker has duplicates of all that is open for as long as a look takes. */
void fdtable_use_reader(const struct file_reader *reader);

/*
 * Captures the tables of n processes while they run or are stopped. Files go to `files`. What cannot move is added to `refusals`; a
 * table with refusals must not be encoded. -EAGAIN when a process has ended meanwhile. Raises this process's soft limit of descriptors
 * to the hard one. Reads all of /proc when there are pipes.
 */
int fdtable_capture(const struct fd_process *p, size_t n, struct fdtable *ret, struct fsfile_table *files, struct refusals *refusals,
	struct err *e);
/*
 * The same again, for what changed. frozen: the processes are stopped, and all contents are read. -EAGAIN also when one no longer shares
 * its table with another.
 */
int fdtable_recapture(struct fdtable *t, bool frozen, struct fsfile_table *files, struct refusals *refusals, struct err *e);
/* Whether io_urings, which are made in the preparation only, have other numbers than when the table was last encoded whole. */
bool fdtable_has_moved_rings(const struct fdtable *t);
/* Whether a file or device is open for direct I/O (O_DIRECT) and may be read. */
bool fdtable_has_direct_io(const Gw__FdTable *t);
/*
 * From here on, tables are read by BPF in the freeze, once a capture with the unit running has succeeded (kern/file_table.h). Where that cannot
 * be, everything is as before.
 */
void fdtable_watch(struct fdtable *t, const struct file_reader *reader);
void fdtable_unwatch(struct fdtable *t);
/* After the commit: the unit's connections here, of which it has new ones there, end without a word. */
void fdtable_end_connections(const struct fdtable *t);
/* Drops the duplicates; the table stays, and can be captured again. */
void fdtable_release(struct fdtable *t);
void fdtable_free(struct fdtable *t);

/* About how many bytes lie in queues of connections, as far as they were looked at last; and memory of this process for that is touched, for the freeze. */
uint64_t fdtable_expect_queues(const struct fdtable *t);

/* Plans for a task of this process (one that shares its descriptor table). POSIX locks belong to a process, others to a description. */
void fdtable_plan_release_locks(const struct fdtable *t, uint32_t process, struct batch *b);
void fdtable_plan_retake_locks(const struct fdtable *t, uint32_t process, struct batch *b);

/* What lies in queues of connections: pieces of the table's own memory. */
struct fd_queues {
	struct iovec *v;
	size_t n;
};
/* malloc'ed bytes: of the offer, and in the freeze what differs from the offer, which large queues are to follow; free ret_queues->v. */
int fdtable_encode(struct fdtable *t, uint8_t **ret_data, size_t *ret_len, struct err *e);
int fdtable_encode_update(const struct fdtable *t, uint8_t **ret_data, size_t *ret_len, struct fd_queues *ret_queues, struct err *e);
/* Between the two, behind a recapture: connections with others that are idle, and were offered with other numbers. From here on these count as offered. *ret_n: how many. */
int fdtable_encode_ahead(struct fdtable *t, uint8_t **ret_data, size_t *ret_len, size_t *ret_n, struct err *e);
/*
 * Decodes and validates; n_files is the number of entries in the table of files, n_processes that of the unit. Free with
 * gw__fd_table__free_unpacked(p, NULL).
 */
int fdtable_decode(const void *data, size_t len, uint32_t n_files, size_t n_processes, Gw__FdTable **ret, struct err *e);
/*
 * The whole table of the freeze, of which descriptions that have not changed are those of `old` (the very messages), and whether it may
 * follow `old`: descriptions and pipes keep index and kind, processes share the same tables. queues: what has come behind it, which it refers to. Free with
 * fdtable_update_free, before `old`.
 */
int fdtable_decode_update(const void *data, size_t len, const void *queues, size_t queues_len, uint32_t n_files, const Gw__FdTable *old, Gw__FdTable **ret,
			  struct err *e);
/* Free with gw__fd_table__free_unpacked. socket_tcp_go_ahead makes the connections again, and takes what news says into t; news is useless then. */
int fdtable_decode_ahead(const void *data, size_t len, const Gw__FdTable *old, Gw__FdTable **ret, struct err *e);
void fdtable_update_free(Gw__FdTable *t, const Gw__FdTable *old);
int fdtable_validate(const Gw__FdTable *t, uint32_t n_files, size_t n_processes, struct err *e);
int fdtable_validate_update(const Gw__FdTable *old, const Gw__FdTable *new, struct err *e);

/*
 * The first process that has the same table as this one: itself, unless it must be made with CLONE_FILES so that it shares the table of
 * that one. What shares needs no transfer of its own (struct fd_transfer): use that of the first.
 */
uint32_t fdtable_first_sharer(const Gw__FdTable *t, uint32_t process);

/* Destination, at the offer: what this host cannot give. own_net: the unit has a network namespace of its own. */
void fdtable_judge(const Gw__FdTable *t, const struct fsfile_table *files, bool own_net, struct refusals *refusals);

/*
 * Ends of connections with somebody outside of the unit, and, with peer NULL, what takes new ones (listeners): in the host's network namespace. `own` is as
 * the socket has it, perhaps every address.
 */
typedef void fd_end_fn(void *arg, uint8_t protocol, const struct sockaddr *own, const struct sockaddr *peer);
void fdtable_list_ends(const Gw__FdTable *t, fd_end_fn *add, void *arg);
/* Those of the last capture; when only a few descriptions have changed since all were listed by this function, the ends of those. */
void fdtable_list_fresh_ends(struct fdtable *t, fd_end_fn *add, void *arg);
/* Sockets whose call nobody has answered yet, and which call again at the destination. */
void fdtable_list_callers(const Gw__FdTable *t, fd_end_fn *add, void *arg);
bool fdtable_listens(const Gw__FdTable *t);
/* Whether nobody is about to call one. queues: and nobody waits in one. Found out without duplicates; negative: the kernel does not tell. */
int fdtable_are_listeners_calm(const struct fdtable *t, bool queues);
/* Duplicates of what listens, to be closed by the caller; *ret is malloc'ed. What cannot be got is left out. */
size_t fdtable_hold_listeners(const struct fdtable *t, int **ret);

/* What the destination knows besides the table. */
struct fd_env {
	const struct fsfile_answer *answers; /* one for each file, finished (fsfile_finish), with descriptors */
	uint32_t n_files;
	struct fd_clocks clocks;
	/* What this worker calls a process of the unit; 0: there is none by that number. */
	pid_t (*host_pid)(const void *arg, pid_t pid);
	/* A descriptor of the working directory that a process here has and that is this one, whose name was removed; -1: none has. */
	int (*removed_cwd)(const void *arg, const Gw__FdInode *inode);
	/* Gives such a process some descriptor with this number, until its own are placed; NULL: can no more. */
	int (*lend)(const void *arg, pid_t pid, uint32_t number, struct err *e);
	const void *host_pid_arg;            /* for all three */
	const pid_t *pids;                   /* of the unit's processes, as this process sees them; may be NULL */
	size_t n_pids;
};

struct fd_arrival;
struct fd_relay;
struct fd_relays;

/* The destination's worker: its duplicates of the descriptions of the whole unit. */
struct fd_restore {
	int *fds;                /* by description; -1: none */
	int *others;             /* unix sockets whose peer the unit has closed: that peer, until the queue is filled */
	size_t n;
	struct fd_arrival *arrivals; /* messages whose numbers have not been checked */
	size_t n_arrivals;
	char **aside;            /* paths of unix sockets whose old file has been moved aside */
	size_t n_aside;
	struct pty_set ptys;
	struct lease_late late;  /* stays behind fdtable_restore_free */
	struct unix_den den;     /* where names are given that no file belongs to */
	struct fd_relay *relays; /* ends of relayed pipes that are not the unit's (relay.h) */
	size_t n_relays;
	const struct fd_relays *originals; /* set by the caller, for a unit that comes home: what it has instead of its relays; what lies in them is the caller's affair */
};

#define FD_RESTORE_INIT ((struct fd_restore){ .den = UNIX_DEN_INIT })

/* How descriptors get into one process: a connected unix SOCK_SEQPACKET or SOCK_DGRAM pair. */
struct fd_transfer {
	int worker_end;          /* the worker's end, borrowed */
	int task_number;         /* the number of the other end in the process; changes */
};

#define FD_TRANSFER_INIT ((struct fd_transfer){ -1, -1 })

/* Opens or creates every description, without contents and without listening. */
int fdtable_restore_open(const Gw__FdTable *t, const struct fd_env *env, struct fd_restore *ret, struct err *e);
/*
 * Moves the descriptions into a process of the skeleton at their numbers. Everything else that is open there is closed first. Runs the
 * batch several times. x->task_number may change. Does nothing for a process that shares the table of an earlier one.
 */
int fdtable_restore_place(const Gw__FdTable *t, uint32_t process, struct fd_restore *r, struct fd_transfer *x, struct batch *b,
	struct err *e);
/*
 * epoll entries and owners, by the task itself: when all processes have been placed and all threads and groups exist. Runs the batch.
 * Does nothing for a process that shares the table of an earlier one.
 */
int fdtable_restore_late(const Gw__FdTable *t, uint32_t process, struct fd_restore *r, struct fd_transfer *x, struct batch *b,
	struct err *e);

/* One process of the skeleton. */
struct fd_target {
	struct batch *b;
	struct fd_transfer *x;
};

/*
 * Inside the freeze: opens, closes and replaces what differs, sets positions, flags and all contents, starts listening, and takes
 * the locks. Adds to the batches of the processes, one target each; they may run at the same time. The caller runs them and then calls
 * fdtable_restore_check. The last call of a list closes the transfer socket in that process.
 */
int fdtable_restore_update(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_env *env, struct fd_restore *r,
	const struct fd_target *targets, struct err *e);
/* After the batches of an update have run: whether the skeleton received the descriptors at the numbers that the plan counted with. */
int fdtable_restore_check(struct fd_restore *r, struct err *e);
/*
 * Closes the worker's duplicates: behind the commit, just before the processes run, so that what they close then is closed. A connection in a queue stays, which cannot be
 * fetched later.
 */
void fdtable_restore_drop(struct fd_restore *r, const Gw__FdTable *t);
/*
 * A little later: connections with others get the congestion control that they had. Each is fetched for that, if its number still is one of it. pidfd: that of a process of the unit,
 * or -1.
 */
void fdtable_restore_settle(struct fd_restore *r, const Gw__FdTable *t, int (*pidfd)(const void *arg, uint32_t process), const void *arg);
bool fdtable_must_settle(const Gw__FdTable *t);
/* Closes the worker's duplicates, and removes what the update moved aside: after the commit. */
void fdtable_restore_free(struct fd_restore *r);
/* The same before the commit: puts socket files that the update replaced back into their place. */
void fdtable_restore_undo(struct fd_restore *r);

#endif
