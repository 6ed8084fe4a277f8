/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vma_internal.h - what reading a layout (vma_read.c) and telling kinds of mappings apart (vma_classify.c) share */
#ifndef GODWIT_IMAGE_VMA_INTERNAL_H
#define GODWIT_IMAGE_VMA_INTERNAL_H

#include <string.h>

#include "image/vma.h"

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
