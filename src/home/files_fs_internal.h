/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files_fs_internal.h - what the files of files_fs share */
#ifndef GODWIT_HOME_FILES_FS_INTERNAL_H
#define GODWIT_HOME_FILES_FS_INTERNAL_H

#define FUSE_USE_VERSION 34
#include <fuse3/fuse_lowlevel.h>
#include <stdio.h>
#include <sys/stat.h>

#include "home/files_check.h"
#include "home/files_fs.h"

#define FILES_BUCKETS 4096u

/* A file or directory that the other kernel knows. */
struct files_node {
	struct files_node *next;        /* in its bucket */
	struct files_node *next_number; /* the same by number */
	uint64_t number;                /* what it is called there (fuse_ino_t); never given out twice */
	dev_t dev;
	ino_t ino;
	int fd;             /* O_PATH */
	int writer;         /* for what shared mappings have written; -1 until then */
	uint64_t lookups;
	struct files_lock_owner *owners; /* files_lock.c */
};

struct files_waiter;

struct files_fs {
	struct fuse_session *session;
	void (*answer)(void *arg, const struct iovec *iov, size_t n);
	void *arg;
	struct files_node *directories;
	size_t n_directories;
	uint64_t last_number;
	struct files_node *buckets[FILES_BUCKETS], *numbers[FILES_BUCKETS];
	bool begun;
	struct files_waiter *waiters;
};

static inline struct files_fs *files_fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* NULL: the root, or nothing that is known. */
struct files_node *files_node_of(fuse_ino_t ino);

/* -1 for the root: what is asked of it fails with EBADF. */
static inline int files_node_fd(fuse_ino_t ino)
{
	struct files_node *n = files_node_of(ino);

	return n ? n->fd : -1;
}

#define FILES_LINK_LEN 32
/* "/proc/self/fd/N": for calls that O_PATH descriptors do not allow. */
static inline const char *files_node_link(fuse_ino_t ino, char text[FILES_LINK_LEN])
{
	snprintf(text, FILES_LINK_LEN, "/proc/self/fd/%d", files_node_fd(ino));
	return text;
}

/* Answers with the entry of that name; 0 or a positive error number, with nothing answered. */
int files_fs_find(struct files_fs *fs, fuse_ino_t parent, const char *name, struct fuse_entry_param *ret);

/* What an open file's number is: its descriptor's. */
enum files_handle files_io_handle(uint64_t number);
void files_io_ops(struct fuse_lowlevel_ops *ops);
void files_lock_ops(struct fuse_lowlevel_ops *ops);
/* The locks of this owner go (close(2)); the last lookup of the node has gone. */
void files_lock_drop(struct files_node *n, uint64_t owner);
void files_lock_drop_all(struct files_node *n);
void files_lock_closed(struct files_node *n, int fh);

#endif
