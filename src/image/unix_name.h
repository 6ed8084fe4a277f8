/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unix_name.h - names of unix sockets: bound to the file that they mean, or to nothing
 *
 * A socket keeps its name when its file has been removed, and an accepted socket has the name of its listener. Such a name is given
 * in the *den*: an empty directory that is made the root for a moment, in which bind(2) may make any path. The file goes, the name
 * stays. Not for threads: the root and the working directory are the whole worker's.
 */
#ifndef GODWIT_IMAGE_UNIX_NAME_H
#define GODWIT_IMAGE_UNIX_NAME_H

#include "image/file_look.h"

struct unix_den {
	int root, cwd;      /* to come back to; -1: never entered */
	char path[64];      /* "" before the first use */
	char **made;        /* paths in it, to be removed at the end */
	size_t n_made;
};

#define UNIX_DEN_INIT ((struct unix_den){ .root = -1, .cwd = -1 })

/* struct sockaddr_un of a name; its length is the return value. */
struct sockaddr_un;
unsigned int unix_name_address(const ProtobufCBinaryData *name, struct sockaddr_un *ret);
bool unix_name_is_path(const ProtobufCBinaryData *name);
bool unix_name_equal(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b);
/* For messages. */
void unix_name_describe(const ProtobufCBinaryData *name, char *out, size_t size);
int unix_name_validate(const ProtobufCBinaryData *name, struct err *e);

/* Makes the den the root directory, and the root directory that again. */
int unix_den_enter(struct unix_den *d, struct err *e);
void unix_den_leave(const struct unix_den *d);
/*
 * Binds to a path in the den. Several sockets may have the same name there: the file is called after `tag` from then on, and stays until
 * unix_den_clear.
 */
int unix_den_bind(struct unix_den *d, int fd, const ProtobufCBinaryData *name, size_t tag, struct err *e);
/* The address of what has been bound with that tag, inside the den; `buffer` is of sizeof(struct sockaddr_un) bytes. */
void unix_den_address(size_t tag, uint8_t *buffer, ProtobufCBinaryData *ret_name);
/* Connects to what has been bound there. */
int unix_den_connect(struct unix_den *d, int fd, size_t tag, struct err *e);
/* Removes the files and the directory. */
void unix_den_clear(struct unix_den *d);

/* Whether a living server other than ours, or a file that is no socket, is at the place of the name's file. */
int unix_place_check(const Gw__FdUnix *u, const int *ours, size_t n_ours, struct err *e);
/*
 * Binds to the file, or to the abstract name. A socket file that lies there (the source's own, on a shared file system) is moved aside;
 * *ret_aside is its path then (malloc'ed), else NULL, also when the function fails.
 */
int unix_place_bind(const Gw__FdUnix *u, int fd, char **ret_aside, struct err *e);
/* Connects to a name that unix_place_bind has bound. */
int unix_place_connect(const Gw__FdUnix *to, int fd, struct err *e);
/*
 * The address that reaches the place from any working directory, in *ret_name; `buffer` is of sizeof(struct sockaddr_un) bytes.
 */
int unix_place_address(const Gw__FdUnix *u, uint8_t *buffer, ProtobufCBinaryData *ret_name, struct err *e);
/* After the commit: removes the file moved aside. */
void unix_aside_remove(const char *path);
/* On abort: puts it back in the place of the new one. */
void unix_aside_restore(const char *path);

#endif
