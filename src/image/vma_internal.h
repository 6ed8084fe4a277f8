/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vma_internal.h - what reading a layout (vma_read.c) and telling kinds of mappings apart (vma_classify.c) share */
#ifndef GODWIT_IMAGE_VMA_INTERNAL_H
#define GODWIT_IMAGE_VMA_INTERNAL_H

#include <string.h>

#include "image/vma.h"
#include "kern/vma_peek.h"

/* A line of /proc/PID/maps. */
struct vma_line {
	uint64_t start, end, offset, dev, ino;
	uint32_t prot;
	bool shared;
	const char *path; /* not terminated */
	size_t path_len;
};

struct vma_reader {
	pid_t pid;
	bool ours;          /* a userfaultfd is Godwit's own tracking */
	dev_t shm_dev;      /* of memfds and shared anonymous memory */
	struct fsfile_table *files;
	struct refusals *refusals;
	struct vma_list *list;
	struct err *e;
};

/* Flags of all mappings at one moment; n is 0 where they cannot be read. `at` is where the next mapping is looked for: they are asked for in order. */
struct vma_flags {
	const struct vma_record *v; /* until the next are read */
	size_t n, at;
};

/* vma_flags.c */
void vma_flags_read(pid_t pid, struct vma_flags *ret);
/* Sets v's bits; without records nothing. -EAGAIN: it is not the mapping that v says, or cannot move. */
int vma_flags_apply(struct vma_flags *f, struct vma *v, struct err *e);
/* Whether the flags of all mappings are those of `old`. Not a mapping of it: they are not. */
bool vma_flags_same(struct vma_flags *f, const struct vma_list *old);
/* 1: the range may hold guard pages, or did once; 0: it never did; -1: that is not known. */
int vma_flags_guarded(struct vma_flags *f, uint64_t start, uint64_t end);

static inline bool vma_line_starts(const struct vma_line *l, const char *prefix)
{
	size_t len = strlen(prefix);

	return l->path_len >= len && !memcmp(l->path, prefix, len);
}

/* Parses one line of maps at *p (text ends with 0) and moves *p behind its newline. */
bool vma_parse_line(const char **p, struct vma_line *l);
/* Neither [vsyscall] nor Godwit's scratch belongs to the layout. */
bool vma_left_out(const struct vma_line *l);
/* Reads a whole file of /proc into *buffer, growing it; zero-terminated. Returns the length or an error. */
ssize_t vma_read_whole(const char *path, char **buffer, size_t *size, struct err *e);

/* Adds a refusal about the mapping of line l; the list is then not complete. */
void vma_refuse(struct vma_reader *r, const struct vma_line *l, const char *code, const char *cause, const char *way_out);
/*
 * Fills in v (whose bits are set) from line l: kind, content, file. Returns 1 to keep it, 0 when it was refused, -EAGAIN when the mapping
 * is no longer there, or another error.
 */
int vma_classify(struct vma_reader *r, const struct vma_line *l, struct vma *v);

#endif
