/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_state.h - what file.c and file_source.c share about the source's side of a table */
#ifndef GODWIT_IMAGE_FILE_STATE_H
#define GODWIT_IMAGE_FILE_STATE_H

#include "image/file.h"
#include "image/file_look.h"

/* The worker's view of one open file description. */
struct fd_held {
	int fd;            /* the duplicate; -1 between captures */
	uint64_t dev, ino;
	uint32_t uses;     /* slots that refer to it */
	uint32_t slot;     /* index into seen of one of them */
	bool known;        /* its kind has been found out */
	bool refused;
	bool closed;       /* the process has closed it; FD_CLOSED in the image */
	bool scanned;      /* socketpairs: looked for holders outside */
	uint64_t peer_ino; /* socketpairs: of the other end, 0 when closed */
	bool changed;      /* the text of its fdinfo changed */
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

struct fd_pipe_id {
	uint64_t dev, ino;
	bool scanned;      /* looked for holders outside */
};

/*
 * Captures or refreshes the descriptions that file.c found, the pipes and the locks. table_changed: some number or description is
 * not what it was.
 */
int fdtable_capture_contents(struct fdtable *t, bool table_changed, struct fsfile_table *files, struct refusals *refusals, struct err *e);

/*
 * Whether the description held at fd, on the same file as d's, is of d's kind with all that only its creation decides. Sockets:
 * whether address, options and backlog are those captured.
 */
bool fdtable_same_kind(const Gw__FdDesc *d, int fd);

#endif
