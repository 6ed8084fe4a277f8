/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_place.h - what file_restore.c, file_place.c and file_numbers.c share */
#ifndef GODWIT_IMAGE_FILE_PLACE_H
#define GODWIT_IMAGE_FILE_PLACE_H

#include "image/file.h"

/* file_codec.c */
bool fdtable_numbers_same(const Gw__FdNumbers *a, const Gw__FdNumbers *b);

/* Opens the descriptions of t from index `from` on into r->fds, which grows. */
int fdtable_open_from(const Gw__FdTable *t, size_t from, const struct fd_env *env, struct fd_restore *r, struct err *e);

/* file_check.c: fdtable_validate; what is the very message of `old` (or NULL) has been checked. */
int fdtable_validate_against(const Gw__FdTable *t, const Gw__FdTable *old, uint32_t n_files, size_t n_processes, struct err *e);

/* Sets all contents of `new` on the worker's duplicates; `old` is what they were opened with. */
int fdtable_fill(const Gw__FdTable *old, const Gw__FdTable *new, const struct fd_env *env, struct fd_restore *r, struct err *e);

/* --- file_numbers.c --- */

/* Which numbers of a process are in use, as far as the plan has got. Freed with free(u->used). */
struct number_use {
	uint8_t *used;
	size_t n;
	size_t lowest; /* nothing below is free */
};

void number_use_set(struct number_use *u, int fd, bool used);
/* Takes the lowest free number. */
int number_use_take(struct number_use *u);
/* Adds the numbers of a table; wide: also those that entries of epoll sets may need for a moment. */
void number_use_add(struct number_use *u, const Gw__FdTable *t, uint32_t table, bool wide);

/* Where descriptors go. */
struct placing {
	struct fd_restore *r;
	struct fd_transfer *x;
	struct batch *b;
};

/* One description and the first number that it is for. */
struct fd_wanted {
	uint32_t desc;
	int fd;
	bool cloexec;
};

/* Runs the batch, and checks the numbers at which descriptors have arrived. */
int placing_run(const struct placing *p, struct err *e);

/*
 * Sends descriptions, ascending by number, and plans their arrival. When `run` is set, the batch runs after each message, so that its
 * size stays bounded.
 */
int placing_send(const struct placing *p, const struct fd_wanted *w, size_t n, struct number_use *use, bool run, struct err *e);

/*
 * The same for the numbers i of a table for which take[i] is set: each description is sent once, for the first of its numbers, and
 * dup3 makes the others.
 */
int placing_slots(const struct placing *p, const Gw__FdTable *t, uint32_t table, const uint8_t *take, struct number_use *use, bool run,
	struct err *e);

#endif
