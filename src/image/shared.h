/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shared.h - what has been written to memory that mappings share, of one process or of several
 *
 * Shared anonymous memory, memfds, System V segments, and files that the destination has to make are objects of the unit, not of a process: each
 * is one entry of the fsfile table, which every mapping of it refers to (VMA_FILE_SHARED, VMA_SYSV). The destination makes the object once. What
 * is in it travels once, as the content of that file. A write through a mapping changes no file's times; it shows in the page table of the process
 * that wrote, and only there. So all mappings are tracked (asynchronous write protection, see kern/pagemap.h), and what the scans of all processes
 * find is united by place in the file. Entries that are not there count as written too, since the kernel may have dropped one with its mark. What
 * came and went between two looks, a mapping or a part of one, is in no page table: shared_watch.h tells of it.
 */
#ifndef GODWIT_IMAGE_SHARED_H
#define GODWIT_IMAGE_SHARED_H

#include "base/err.h"
#include "image/vma.h"

/* One process of the unit. */
struct shared_view {
	pid_t pid;
	int pagemap_fd, uffd;          /* the userfaultfd that tracks writes, made by the agent in this process; borrowed */
	bool remapped;                 /* since the last look, asked after the processes stand still: shared_watch_take() */
	struct range_list unmapped;
	const struct vma_list *vmas;   /* mappings with VMA_CONTENT_SHARED are looked at */
	struct range scratch;          /* where the agent's is, which is not in vmas */
};

/* A shared mapping as it was at the last look. */
struct shared_mapping {
	uint64_t start, end, offset;
	uint64_t limit; /* from `end` to here nothing is mapped */
	int32_t file;
};

struct shared_seen {
	pid_t pid;
	struct shared_mapping *v;
	size_t n, allocated;
};

struct shared {
	struct range_list *dirty;      /* for each file: ranges of offsets, page aligned, in order after shared_collect */
	uint32_t n;
	struct shared_seen *seen;      /* by process */
	size_t nseen;
};

/*
 * While the processes run, before any content is sent: registers all shared mappings for tracking and protects them. From here on what is written is
 * found, but what is written through mappings made after `vmas` was read and gone before the next look: so it is called again with a list that has been read since, and
 * the watch is started first. Blocks for about 15 ms for each GiB mapped.
 */
int shared_track(struct shared *s, const struct shared_view *views, size_t n, struct err *e);

/*
 * Adds to s->dirty what may have been written since the last call (or shared_track): also all of a mapping that is new, what was unmapped, and all of a file where nobody can know which part
 * of it was mapped. `frozen`: the processes stand still, nothing is protected again. n_files: entries of the fsfile table.
 */
int shared_collect(struct shared *s, const struct shared_view *views, size_t n, uint32_t n_files, bool frozen, struct err *e);
static inline bool shared_is_dirty(const struct shared *s, uint32_t file)
{
	return file < s->n && s->dirty[file].n;
}

/* All of every mapping counts as written; before shared_collect. */
int shared_distrust(struct shared *s);
/* Where the range of dirty that is a whole file ends: beyond any file's end. */
#define SHARED_END (1ull << 62)
/* The ranges of one file have been sent. */
void shared_clean(struct shared *s, uint32_t file);
void shared_free(struct shared *s);

#endif
