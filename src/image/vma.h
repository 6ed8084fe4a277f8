/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vma.h - the layout of an address space
 *
 * A list of mappings, ordered by address, without overlaps, page aligned. It is read from /proc/PID/smaps (once, with
 * all flags) and compared with /proc/PID/maps inside the freeze. [vsyscall] and Godwit's own scratch are left out; vdso
 * and vvar are in the list (kinds VMA_VDSO, VMA_VVAR) but are moved, not made. See proc(5), mmap(2), madvise(2).
 */
#ifndef GODWIT_IMAGE_VMA_H
#define GODWIT_IMAGE_VMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/fsfile.h"
#include "image/refuse.h"
#include "kern/vma_record.h"

#define VMA_TASK_SIZE 0x7ffffffff000ull
#define VMA_MAX 262144u
#define VMA_NAME_MAX 80u
#define VMA_SCRATCH_NAME "/memfd:godwit-scratch"

enum vma_kind {
	VMA_ANON,           /* private anonymous, heap and stacks too; a private mapping of /dev/zero */
	VMA_FILE_PRIVATE,
	VMA_FILE_SHARED,    /* shared with a file, a memfd or shared anonymous memory */
	VMA_SYSV,           /* an attached System V segment (or a part of one) */
	VMA_HUGE,           /* private anonymous memory in explicit huge pages (MAP_HUGETLB), file -1 */
	VMA_VDSO,
	VMA_VVAR,           /* [vvar] and [vvar_vclock], told apart by their order */
	VMA_AIO,            /* the ring of a context of asynchronous I/O: see aio.h */
	VMA_URING,          /* memory of an io_uring: see uring.h */
	VMA_KINDS,
};

/* What of its contents has to travel. */
enum vma_content {
	VMA_CONTENT_NONE,       /* all of it is in a file that the destination has, or comes with the kernel */
	VMA_CONTENT_ANON,       /* private anonymous pages: those that are present */
	VMA_CONTENT_PRIVATE,    /* private file mapping: only modified pages (pagemap: present and not PAGE_IS_FILE) */
	VMA_CONTENT_SHARED,     /* memory of an object that travels as the content of its file, not as pages of this mapping: see shared.h */
	VMA_CONTENTS,
};

enum {
	VMA_GROWSDOWN = 1 << 0,
	VMA_LOCKED = 1 << 1,
	VMA_LOCKONFAULT = 1 << 2,
	VMA_HUGEPAGE = 1 << 3,
	VMA_NOHUGEPAGE = 1 << 4,
	VMA_DONTFORK = 1 << 5,
	VMA_DONTDUMP = 1 << 6,
	VMA_WIPEONFORK = 1 << 7,
	VMA_MERGEABLE = 1 << 8,
	VMA_RANDOM = 1 << 9,
	VMA_SEQUENTIAL = 1 << 10,
	VMA_NORESERVE = 1 << 11,
	VMA_ACCOUNT = 1 << 12,
	VMA_SYNC = 1 << 13,
	VMA_DROPPABLE = 1 << 14,    /* MAP_DROPPABLE: without content */
	VMA_WRITE_SHARED = 1 << 15, /* VM_SHARED: a shared mapping whose file is open for writing */
	VMA_GUESSED = 1 << 16,      /* flags were not read, but taken to be the default (vma_list_reread) */
	VMA_HUGE_2M = 1 << 17,      /* VMA_HUGE: the size of its pages */
	VMA_HUGE_1G = 1 << 18,
	VMA_SEALED = 1 << 19,       /* mseal(2) */
	VMA_BITS_ALL = (1 << 20) - 1,
};

struct vma {
	uint64_t start, end;
	uint64_t offset;        /* in the file, bytes */
	uint64_t dev, ino;      /* as in /proc/PID/maps; only for comparison on the source */
	uint32_t prot;          /* PROT_READ | PROT_WRITE | PROT_EXEC */
	uint32_t bits;          /* VMA_* */
	enum vma_kind kind;
	enum vma_content content;
	uint64_t object_bytes;  /* VMA_SYSV: the size of the whole segment, page aligned */
	int32_t file;           /* index into the fsfile table, -1: none */
	char name[VMA_NAME_MAX]; /* PR_SET_VMA_ANON_NAME, "" when none */
};

/* What the kernel maps by itself: vdso.h, aio.h, uring.h. */
static inline bool vma_is_kernels(const struct vma *v)
{
	return v->kind == VMA_VDSO || v->kind == VMA_VVAR || v->kind == VMA_AIO || v->kind == VMA_URING;
}

/* Whether pages of it can be shared copy-on-write with a relative, so that they travel once (migrate/source_common.c). */
static inline bool vma_may_be_common(const struct vma *v)
{
	return v->content == VMA_CONTENT_ANON || (v->content == VMA_CONTENT_PRIVATE && v->kind == VMA_FILE_PRIVATE);
}

struct range {
	uint64_t start, end;
};

struct range_list {
	struct range *v;
	size_t n, allocated;
};

struct vma_list {
	struct vma *v;
	size_t n, allocated;
	struct range_list huge; /* where the source had huge pages */
	struct range_list guards; /* guard pages without a mapping of their own (MADV_GUARD_INSTALL); PAGEMAP_SCAN shows them as swapped */
	uint32_t *shared;       /* mappings with VMA_CONTENT_SHARED, by index; up to date after reading and vma_list_apply_answers */
	size_t n_shared;
	char *buffer;           /* for reading maps without allocation in the freeze */
	size_t buffer_size;
	char *known;            /* the text of maps that is known to be this list, with known_len bytes */
	size_t known_len, known_size;
	bool complete;          /* false: something refused was left out */
};

/* Appends, joining with the last range when they touch. Allocation failure: -ENOMEM. */
int range_list_add(struct range_list *r, uint64_t start, uint64_t end);
/* Puts ranges in order, and joins those that overlap or lie at most `near` apart. */
void range_list_join(struct range_list *r, uint64_t near);
void range_list_free(struct range_list *r);
/* The first of ranges in order that ends behind an address; r->n: none. */
size_t range_list_behind(const struct range_list *r, uint64_t address);

/*
 * Reads the layout of pid with all flags. Files are added to `files`; what cannot move is added to `refusals` and left
 * out of the list. Blocks for about 0.4 ms for 100 mappings, plus a walk of the page tables (5 ms/GiB). Needs
 * CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE (or CAP_SYS_ADMIN).
 */
int vma_list_read(pid_t pid, struct fsfile_table *files, struct refusals *refusals, struct vma_list *ret, struct err *e);

/*
 * Source, when the lists of all n processes of the unit have been read (or the answers have come, which give more mappings VMA_CONTENT_SHARED):
 * refuses what they share with a process outside of the unit. Reads /proc/PID/maps of every process when anything is shared.
 */
int vma_check_sharing(const pid_t *pids, const struct vma_list *const *lists, size_t n, struct refusals *refusals);

/* Destination: whether there are huge pages (hugetlb) enough for all lists and their files; adds refusals. */
void vma_validate_here(const struct vma_list *const *lists, size_t n, const struct fsfile_table *files, struct refusals *refusals);

/*
 * Compares the present layout with `old` (from vma_list_read); about 20 us for 100 mappings when nothing changed.
 * *ret_changed says whether anything did; when it did, *ret holds the new list, else it stays empty. Flags are read by BPF; where that cannot be, those of
 * mappings that were there are taken over, and new ones get the default flags with VMA_GUESSED. `exact` reads smaps again. New files may be added to
 * `files`; what cannot move to `refusals`.
 */
int vma_list_reread(pid_t pid, struct vma_list *old, bool exact, struct fsfile_table *files, struct refusals *refusals,
		    struct vma_list *ret, bool *ret_changed, struct err *e);

/*
 * The digest (kern/vma_peek.h) of the layout that the last vma_list_reread has found to be `old`; generations of files are left out, since they are not known. Where digests
 * of this process are alike, it had this layout at that moment. -EAGAIN: it has another one now; -ENOSYS: flags cannot be read.
 */
int vma_list_digest(pid_t pid, const struct vma_list *old, struct vma_digest *ret, struct err *e);
/*
 * Whether mappings that have guard pages have the same ones: they may change while the layout's sequence number does not. *ret_guarded: there are, or were, any
 * in the process: only then has this to be asked in the freeze as well, where reading the flags of thousands of mappings would be felt.
 */
bool vma_guards_same(pid_t pid, const struct vma_list *old, bool *ret_guarded);
void vma_list_free(struct vma_list *l);
int vma_list_append(struct vma_list *l, const struct vma *v);

/* The mapping that holds address, or NULL. */
const struct vma *vma_find(const struct vma_list *l, uint64_t address);
/* Whether a mapping has a part of [start, end). */
bool vma_overlaps(const struct vma_list *l, uint64_t start, uint64_t end);

/*
 * Both sides, after the destination has answered: sets content classes. Shared mappings of a file that the destination
 * had to make carry their own pages when they are writable.
 */
void vma_list_apply_answers(struct vma_list *l, const struct fsfile_answer *answers, uint32_t n);

/* Brings l->shared up to date. -ENOMEM. */
int vma_list_index(struct vma_list *l);

/* The ranges (file offsets) of a file that are mapped, for stand-ins. The last may reach behind the file's end. */
int vma_file_ranges(const struct vma_list *l, uint32_t file, struct range_list *ret, struct err *e);

/* Source: the bits of the mapping that begins at `start`, whatever it is. -ENOENT: there is none. */
int vma_bits_at(pid_t pid, uint64_t start, uint32_t *ret_bits, struct err *e);

/*
 * An address where len_bytes (rounded up to pages) are free in both lists (b may be NULL), with a gap of 64 KiB on both
 * sides, not in the growth of the stack (1 GiB below it) or of the heap (64 GiB above brk, or what there is), nor where
 * the kernel puts new mappings first. 0 when there is none.
 */
uint64_t vma_find_free(const struct vma_list *a, const struct vma_list *b, uint64_t len_bytes);

int vma_list_encode(const struct vma_list *l, uint8_t **ret_data, size_t *ret_len, struct err *e);
/* Decodes and validates; n_files bounds the file indices. */
int vma_list_decode(const void *data, size_t len, uint32_t n_files, struct vma_list *ret, struct err *e);
int vma_list_validate(const struct vma_list *l, uint32_t n_files, struct err *e);

#endif
