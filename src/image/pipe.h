/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pipe.h - pipe(2) and fifo(7) with both ends in the unit, and what lies in them
 *
 * The contents are read with tee(2), which consumes nothing. Packet mode (O_DIRECT) keeps its boundaries. A pipe is one FdPipe; each end
 * is an FD_PIPE description that names it. An end that a process outside of the unit holds is refused: pipe_outside_scan finds who.
 */
#ifndef GODWIT_IMAGE_PIPE_H
#define GODWIT_IMAGE_PIPE_H

#include "image/file_look.h"

#define PIPE_SIZE_MAX (16u << 20)

/* Reads size and, when wanted, contents of the pipe behind the worker's descriptor `held` (any end) into p, replacing what was there. */
int pipe_capture(int held, bool contents, Gw__FdPipe *p, struct err *e);

/* What is left of a pipe that the unit has closed: its place in the image. */
void pipe_forget(Gw__FdPipe *p);

/* Whether nobody at all has the other end: true for a read end without writers and for a write end without readers. */
bool pipe_is_broken(int held, bool write_end);

/*
 * Looks for a process other than the n_inside ones and this one that has a descriptor of one of the pipes (or sockets) with these inode
 * numbers. Reads the descriptor tables of all processes: milliseconds. Sets *ret_pid and *ret_fd for inode i, ret_pid 0 where
 * nobody was found.
 */
struct pipe_holder {
	uint64_t ino; /* in */
	pid_t pid;    /* out; 0: nobody */
	int fd;
};
void pipe_outside_scan(const pid_t *inside, size_t n_inside, struct pipe_holder *holders, size_t n);

int pipe_validate(const Gw__FdPipe *p, struct err *e);

/* A pipe being made: a descriptor of both directions, and the ends of pipe2 that no description has taken yet. */
struct pipe_made {
	int both;
	int ends[2];
};

#define PIPE_MADE_INIT ((struct pipe_made){ -1, { -1, -1 } })

/* Opens one end of p (flags of the description); the first call makes the pipe. pipe_made_close after all ends have been opened. */
int pipe_open(const Gw__FdPipe *p, uint32_t flags, struct pipe_made *made, int *ret_fd, struct err *e);
void pipe_made_close(struct pipe_made *made);

/* Replaces the contents of the pipe behind fd (any end) by p's. */
int pipe_fill(const Gw__FdPipe *p, int fd, struct err *e);

#endif
