/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_state.h - what the files of the source's side of the tables share: file.c, file_*.c but for file_restore.c and file_place.c */
#ifndef GODWIT_IMAGE_FILE_STATE_H
#define GODWIT_IMAGE_FILE_STATE_H

#include "image/file.h"
#include "image/file_look.h"
#include "image/pipe.h"

/* The worker's view of one open file description. */
struct fd_held {
	int fd;            /* the duplicate; -1 between captures */
	uint32_t uses;     /* numbers that refer to it */
	uint64_t dev, ino;
	uint32_t view;     /* a process that has it */
	uint32_t slot;     /* index into that one's seen of one of them */
	bool known;        /* its kind has been found out */
	bool refused;
	bool closed;       /* the unit has closed it; FD_CLOSED in the image */
	bool scanned;      /* unix sockets: looked for holders outside */
	bool leaked;       /* file_leak.h: a connection that stays with an ancestor */
	bool changed;      /* the text of its fdinfo changed */
	/* file_unix.c: in a message; loose: no number refers to it, only that: then the text is the worker's own; what lies in a unix socket's queue */
	bool in_flight, loose, unix_refused;
	/* file_freeze.c: whether the record of the freeze is all of it; same: it is the one known before */
	bool settled, same;
	uint8_t armed;     /* enum file_armed, as the last record said; FILE_ARMED_UNKNOWN again once it has been used */
	uint64_t peer_ino; /* of a relayed unix socket */
	char *text;
	Gw__FdUnixMessage **queue;
	size_t n_queue;
	/* file_freeze.c: what the kernel knows it as, 0: not learned; in the freeze what it is known as now */
	uint64_t file, inode, operations;
	uint64_t now;
	/* file_freeze.c: of a TCP socket what its record said before it was captured; quiet: nothing is under way, so that this tells whether it has changed */
	uint64_t digest;
	/*
	 * Of a connection with others: a digest of what the kernel has as its settings (kern/tcp_mask.h), where they are known to be those captured; brief: in this freeze only
	 * its numbers and queues have been looked at
	 */
	uint64_t settings;
	uint32_t round;    /* file_freeze.c: the one in which it has been looked at */
	bool quiet, brief;
	/* As the destination was told in the offer. */
	bool offered;
	bool as_offered; /* they are, as far as the image knows */
	uint64_t image_settings;   /* fdtable_digest_settings, when the difference from the offer was last learned; 0: nothing */
	uint64_t offered_settings; /* the same, as offered */
	uint64_t offered_digest; /* of a quiet TCP socket or a set of epoll */
	int64_t offered_position;
	uint32_t offered_flags;
};

/* One number. */
struct fd_seen {
	int fd;
	uint32_t desc;
	int info;          /* /proc/PID/fdinfo/N kept open, or -1 */
	bool cloexec;
	bool has_locks;
	char *text;        /* of fdinfo, as last read */
	size_t text_len;
};

/* One process. */
/* file_terminal.c: for struct pty_source. */
int fdtable_terminal(void *table, uint32_t number);
/* Whether the root's controlling terminal is a pseudo-terminal. Not looked for when the unit is frozen. */
bool fdtable_has_terminal(const struct fdtable *t);

struct fd_view {
	pid_t pid;
	int pidfd;             /* borrowed */
	uint32_t first;        /* the first process with this table: itself, mostly. The others have no numbers of their own here */
	int fd_dir, info_dir;  /* /proc/PID/fd and fdinfo; -1 where another is the first */
	struct fd_seen *seen;  /* ascending by number */
	size_t n_seen;
	/* file_freeze.c: records of the last read; those known before, and of which of them nothing but the record can tell a change */
	struct file_watch *watch;
	struct file_record *records, *known;
	struct tcp_told *told;       /* file_running.c: of each of the records, while the unit runs; NULL: not asked */
	size_t n_records, records_room, n_known, known_room;
	uint8_t *easy;
	Gw__FdNumbers *offered;      /* as the destination was told */
};

struct fd_pipe_id {
	uint64_t dev, ino;
	bool scanned;      /* looked for holders outside */
};

/* A number of this capture. */
struct fd_fetched {
	struct fd_held held;
	struct fd_seen *old; /* what the number was, or NULL */
	uint32_t view, desc;
	uint32_t like;       /* one of an earlier process that is known to be of the same description, plus one; its duplicate is the only one */
	int fd;
	bool assigned;
};

/* What a number has come to. */
struct fd_taken {
	struct fd_seen *old; /* what it was, or NULL */
	uint32_t desc;
	int fd;
};

/* file.c: fetches a number. Returns 1, or 0 when the process has closed it meanwhile. */
int fdtable_fetch(const struct fd_view *view, int fd, struct fd_held *ret, struct err *e);
/* Makes these, ascending, the process's numbers. */
void fdtable_take_numbers(struct fdtable *t, struct fd_view *view, const struct fd_taken *got, size_t n);

/*
 * file_freeze.c: after a capture, while the duplicates are held; and a look by records in place of numbers and infos: at a few, when
 * that is enough, or at all.
 */
void fdtable_learn(struct fdtable *t);

/* What differs from the offer is told in the freeze, whether or not it changes once more: after each offer, too, for a look at a few learns about those alone. */
void fdtable_learn_differences(struct fdtable *t);
bool fdtable_read_records(struct fdtable *t); /* false: there are none */
void fdtable_note_digests(struct fdtable *t); /* before a capture: of the records that have been read */
uint64_t fdtable_digest_settings(const Gw__FdDesc *d); /* of a connection with others: of what traffic does not change; 0: something else */
uint64_t fdtable_digest_desc(const struct fd_held *held, const Gw__FdDesc *d); /* of what changes about a quiet TCP socket or a set of epoll; 0: something else */
bool fdtable_is_plain(const Gw__FdDesc *d); /* position and flags are all that changes about it, but for locks */
bool fdtable_is_few(const struct fdtable *t);
int fdtable_sync_few(struct fdtable *t, struct err *e);
int fdtable_sync_by_records(struct fdtable *t, struct err *e); /* frozen */

/* file_freeze.c: what captures read by; NULL: nothing */
const struct file_reader *fdtable_reader(void);

/*
 * file_running.c, while the unit runs: a duplicate of a description for the moment, if its number still is one of it. 1: held->fd is that; 0: it is another one's by now; or an
 * error. What is closed by the program meanwhile is closed when it is let go.
 */
int fdtable_hold(struct fdtable *t, uint32_t desc, struct err *e);
void fdtable_let_go(struct fdtable *t, uint32_t desc);
/* The same, of all unix sockets, which are looked at together. -EAGAIN when one has gone. */
int fdtable_hold_unix(struct fdtable *t, struct err *e);
/* Whether the number that the description was looked at by still is one of it. */
bool fdtable_is_still_there(const struct fdtable *t, uint32_t desc);
/* Finds device and inode of what a record tells. 0: the number is another one's by now. */
int fdtable_find_inode(const struct fd_view *view, const struct file_record *r, struct fd_held *ret);
/* Asks for the TCP sockets among the records with wanted[i]; is_gone[i] is set of what is not the record's any more. Either may be NULL: all, nothing. */
void fdtable_ask_tcp(struct fd_view *view, const uint8_t *wanted, uint8_t *is_gone);
/* What has been told of a description, at the number that it is looked at by; NULL: nothing. */
const struct tcp_told *fdtable_told(const struct fdtable *t, uint32_t desc);
const struct file_record *fdtable_record_of(const struct fdtable *t, uint32_t desc);
bool fdtable_is_socket(const struct fd_held *held);
/* The network namespace of this process, as the records of TCP sockets have it. */
uint64_t fdtable_own_net(void);

/* file_kin.c: takes over a TCP socket that is, but for addresses and numbers, one that is known. false: it is to be looked at. */
bool fdtable_take_kin(struct fdtable *t, uint32_t desc);
/* The options of one that has been looked at, between two times that this was told of it. */
void fdtable_note_kin(struct fdtable *t, uint32_t desc, const struct tcp_told *before, const struct tcp_told *after);
void fdtable_forget_kin(struct fdtable *t);

/* file_identity.c: whether two duplicates are of one description; a new description. */
bool fdtable_same_held(const struct fd_held *a, const struct fd_held *b);
/* Whether number theirs->fd of any process, a file of theirs->dev and theirs->ino, is one of the descriptions of the last capture: log n comparisons. While the duplicates are held. */
bool fdtable_find_held(const struct fdtable *t, pid_t pid, const struct fd_held *theirs, uint32_t *ret_desc);
uint32_t fdtable_add_desc(struct fdtable *t, const struct fd_held *held);
/* Decides which description each number refers to; duplicates that are not needed are closed. */
void fdtable_identify(struct fdtable *t, struct fd_fetched *got, size_t n);
/* The description of what was found in flight. The duplicate is the description's, or closed. */
uint32_t fdtable_identify_loose(struct fdtable *t, struct fd_held *held);
/* Makes an open description a new one; the old one is nobody's any more. */
uint32_t fdtable_move_desc(struct fdtable *t, uint32_t desc);

/* file_unix.c: what a description has become, plus one; 0: itself. */
void fdtable_renumber(struct fdtable *t, const uint32_t *map);

/*
 * file_tcp.c: looks at all TCP sockets that are held, before the contents are captured; their queues, behind that, in the freeze. false: of a few that were to be
 * looked at one has become another one, so that all must be.
 */
bool fdtable_capture_tcp(struct fdtable *t);
int fdtable_capture_tcp_queues(struct fdtable *t, struct err *e);
const struct tcp_member *fdtable_find_tcp(const struct fdtable *t, uint32_t desc);
void fdtable_forget_tcp(struct fdtable *t);

/*
 * While the unit runs: whether the settings of connections that are captured between the two are those that their digests are of. `descs` are looked at; n of them, FDTABLE_WATCHED
 * at most.
 */
#define FDTABLE_WATCHED 64
struct fd_settings {
	uint64_t digest[FDTABLE_WATCHED], settings[FDTABLE_WATCHED];
	uint32_t desc[FDTABLE_WATCHED];
	size_t n;
};
void fdtable_begin_settings(const struct fdtable *t, const uint32_t *descs, size_t n, struct fd_settings *ret);
void fdtable_end_settings(struct fdtable *t, const struct fd_settings *s);
/* In the freeze: of changed connections of a process, those about which nothing is to be captured but numbers and queues. The others are to be looked at. */
struct fd_changed {
	uint32_t desc, record; /* of the view's */
};
int fdtable_take_brief(struct fdtable *t, struct fd_view *view, const struct fd_changed *v, size_t n, uint8_t *ret_taken, struct err *e);

/* file_info.c: brings the text of a number's fdinfo up to date, and what is read from it. */
int fdtable_read_info(struct fdtable *t, struct fd_view *v, struct fd_seen *s, struct err *e);
void fdtable_drop_seen(struct fdtable *t, struct fd_seen *s);

/*
 * file_source.c: captures or refreshes the descriptions that file.c found, the pipes and the locks. table_changed: some number or
 * description is not what it was.
 */
int fdtable_capture_contents(struct fdtable *t, bool table_changed, struct fsfile_table *files, struct refusals *refusals, struct err *e);

/*
 * Whether the description held at fd, on the same file as d's, is of d's kind with all that only its creation decides. Sockets:
 * whether address, options and backlog are those captured.
 */
bool fdtable_same_kind(const Gw__FdDesc *d, int fd);

/* The number of the process (or of the one whose table it shares) in its seen, or NULL. */
const struct fd_seen *fdtable_find_number(const struct fdtable *t, uint32_t view, uint32_t fd);

/* A number of an open description, in the process held->view; number -1 when it is in flight only. */
static inline const struct fd_seen *fdtable_number_of(const struct fdtable *t, uint32_t desc)
{
	static const struct fd_seen none = { .fd = -1, .info = -1 };

	return t->held[desc].loose ? &none : &t->views[t->held[desc].view].seen[t->held[desc].slot];
}

/* What one capture works with. */
struct capture {
	struct fdtable *t;
	bool table_changed;
	struct fsfile_table *files;
	struct refusals *refusals;
};

/* With several processes: puts the one that has the description before each refusal from `first` on. */
void fdtable_name_process(const struct capture *c, size_t first, uint32_t desc);

/* file_ends.c: pipe_outside_scan, with the processes of the unit as those inside. */
void fdtable_scan_outside(const struct fdtable *t, struct pipe_holder *holders, size_t n);
/* A pipe is found by its inode, or appended. */
void fdtable_add_pipe_end(struct capture *c, const struct fd_look *look, Gw__FdDesc *d);
int fdtable_capture_pipes(struct capture *c, struct err *e);

/* file_locks.c */
void fdtable_capture_locks(struct capture *c);

#endif
