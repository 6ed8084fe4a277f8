/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bpf_iter.h - reading BPF iterators over processes and their descriptors */
#ifndef GODWIT_KERN_BPF_ITER_H
#define GODWIT_KERN_BPF_ITER_H

#include <bpf/libbpf.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* Keeps libbpf from writing to stderr; returns what to give back. */
libbpf_print_fn_t bpf_iter_quiet(void);

/* Calls a skeleton's open_and_load without words of libbpf's. NULL with errno set. */
#define BPF_ITER_LOAD(open_and_load)                             \
	({                                                       \
		libbpf_print_fn_t print_ = bpf_iter_quiet();     \
		typeof(open_and_load()) loaded_ = open_and_load(); \
		int errno_ = errno;                              \
                                                                 \
		libbpf_set_print(print_);                        \
		errno = errno_;                                  \
		loaded_;                                         \
	})

/* An iteration of the program over the threads, or the descriptors, of process `pid`: a descriptor to be read. */
int bpf_iter_of(int program, pid_t pid, struct err *e);
/* The same for this process. */
int bpf_iter_own(int program, struct err *e);

/* Iterations of one process, one after the other: the next one can be made beforehand, so that a read in the freeze is a read. */
struct bpf_iter_watch {
	int link_fd;
	int next_fd; /* -1: none made */
};

/* `info`: which threads or descriptors; pid is for the message. */
int bpf_iter_watch_open(struct bpf_iter_watch *w, int program, union bpf_iter_link_info *info, pid_t pid, struct err *e);
void bpf_iter_watch_close(struct bpf_iter_watch *w);
void bpf_iter_watch_prepare(struct bpf_iter_watch *w);
/* The next iteration, to be read and closed by the caller. */
int bpf_iter_watch_take(struct bpf_iter_watch *w, struct err *e);

/* Reads an iteration to its end, or until `room_bytes` are full. Returns the number of bytes. */
ssize_t bpf_iter_fill(int fd, void *to, size_t room_bytes, struct err *e);
/* Reads all of it. *buffer is malloc'ed, NULL at first, has *room_bytes and grows; it is the caller's, after a failure too. Returns the number of bytes. */
ssize_t bpf_iter_read_all(int fd, void **buffer, size_t *room_bytes, struct err *e);
/* Iterates over our descriptors and reads it whole. *ret is malloc'ed. */
int bpf_iter_read_own(int program, void **ret, size_t *ret_len, struct err *e);

#endif
