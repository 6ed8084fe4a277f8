/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vma_restore.c - builds and changes a layout; see vma_restore.h
 *
 * Theory of operation: building is changing the empty layout. The boundaries of both lists cut the address space into
 * pieces, each of which has at most one old and one new mapping. Each piece needs nothing, or is unmapped, mapped,
 * remapped (another object), or gets other attributes. Pieces next to each other that need the same become one call.
 * Order: all unmaps, then maps, protections, advice, locks.
 */
#include "image/vma_restore.h"

#include <errno.h>
#include <linux/prctl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "base/util.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#define HUGE_SIZE (2ull << 20)
#define HUGE_SHIFT_BITS 26
#define APART (1ull << 40) /* the scratch is at the upper end of the same room */

/* Bits that a mapping is born with. */
#define BORN_BITS (VMA_GROWSDOWN | VMA_NORESERVE | VMA_DROPPABLE | VMA_SYNC | VMA_WRITE_SHARED)

struct piece {
	uint64_t start, end;
	const struct vma *old, *new;
	bool anew; /* it is not kept, although it could become what it is to be */
};

struct pieces {
	struct piece *v;
	size_t n;
};

struct layout_change {
	const struct vma_list *old, *new;
	const int *fds;
	uint32_t n_fds;
};

/* A kind of advice: set when the bit is in the new mapping, undone when it was in the old one only (0: nothing undoes it). */
struct advice {
	uint32_t bit;
	int set, undo;
	bool hint; /* a failure does not matter to the program */
	const char *what;
};

static const struct advice advices[] = {
	{ VMA_HUGEPAGE, MADV_HUGEPAGE, 0, true, "madvise(MADV_HUGEPAGE)" },
	{ VMA_NOHUGEPAGE, MADV_NOHUGEPAGE, 0, true, "madvise(MADV_NOHUGEPAGE)" },
	{ VMA_MERGEABLE, MADV_MERGEABLE, MADV_UNMERGEABLE, true, "madvise(MADV_MERGEABLE)" },
	{ VMA_RANDOM, MADV_RANDOM, MADV_NORMAL, true, "madvise(MADV_RANDOM)" },
	{ VMA_SEQUENTIAL, MADV_SEQUENTIAL, MADV_NORMAL, true, "madvise(MADV_SEQUENTIAL)" },
	{ VMA_DONTFORK, MADV_DONTFORK, MADV_DOFORK, false, "madvise(MADV_DONTFORK)" },
	{ VMA_DONTDUMP, MADV_DONTDUMP, MADV_DODUMP, false, "madvise(MADV_DONTDUMP)" },
	{ VMA_WIPEONFORK, MADV_WIPEONFORK, MADV_KEEPONFORK, false, "madvise(MADV_WIPEONFORK)" },
};

static bool has_file(const struct vma *v)
{
	return v->kind == VMA_FILE_PRIVATE || v->kind == VMA_FILE_SHARED || v->kind == VMA_SYSV;
}

/* Whether two mappings are pieces of the same object at the same place, so that one can become the other by changing attributes. */
static bool same_object(const struct vma *a, const struct vma *b)
{
	bool guessed = (a->bits | b->bits) & VMA_GUESSED;

	if (a->kind != b->kind || a->file != b->file || (!guessed && (a->bits ^ b->bits) & BORN_BITS))
		return false;
	return !has_file(a) || a->offset - a->start == b->offset - b->start;
}

/* A reservation that nobody could ever access holds no pages. */
static bool may_hold_pages(const struct vma *v)
{
	return v->prot || v->bits & VMA_ACCOUNT;
}

/*
 * Whether an anonymous mapping lies where several others lay whose pages may be there already. The kernel joins memory that has been touched as little as
 * mappings of other kinds; for the program it is one mapping, though, that can be moved as a whole (mremap(2)).
 * `first`: the first old mapping that ends behind its start.
 */
static bool is_joined(const struct vma_list *old, size_t first, const struct vma *w)
{
	unsigned n = 0;

	if (w->kind != VMA_ANON)
		return false;
	for (size_t i = first; i < old->n && old->v[i].start < w->end; i++)
		n += old->v[i].end > w->start && may_hold_pages(&old->v[i]) && same_object(&old->v[i], w);
	return n > 1;
}

/* Whether the piece is to stay as it is. */
static bool unchanged(const struct piece *p)
{
	return p->old && p->new && !p->anew && p->old->prot == p->new->prot && p->old->bits == p->new->bits && same_object(p->old, p->new);
}

/* Cuts both lists into pieces, and keeps those that need something. Walks both lists once. */
static int cut(const struct vma_list *old, const struct vma_list *new, struct pieces *ret, struct err *e)
{
	struct piece *v = calloc(2 * (old->n + new->n) + 1, sizeof(*v));
	size_t io = 0, in = 0, n = 0, judged = SIZE_MAX;
	bool joined = false;
	uint64_t at = 0;

	if (!v)
		return err_set(e, -ENOMEM, "no memory to compare layouts");
	for (;;) {
		const struct vma *o, *w;
		struct piece p = { 0 };

		while (io < old->n && old->v[io].end <= at)
			io++;
		while (in < new->n && new->v[in].end <= at)
			in++;
		o = io < old->n ? &old->v[io] : NULL;
		w = in < new->n ? &new->v[in] : NULL;
		if (!o && !w)
			break;
		p.start = MAX(at, MIN(o ? o->start : UINT64_MAX, w ? w->start : UINT64_MAX));
		p.old = o && o->start <= p.start ? o : NULL;
		p.new = w && w->start <= p.start ? w : NULL;
		if (p.new && judged != in) {
			judged = in;
			joined = is_joined(old, io, w);
		}
		p.anew = p.new && joined;
		p.end = MIN(!o ? UINT64_MAX : p.old ? o->end : o->start, !w ? UINT64_MAX : p.new ? w->end : w->start);
		at = p.end;
		if (!unchanged(&p))
			v[n++] = p;
	}
	ret->v = v;
	ret->n = n;
	return 0;
}

static bool replaced(const struct piece *p)
{
	return p->old && p->new && (p->anew || !same_object(p->old, p->new));
}

static bool to_unmap(const struct piece *p)
{
	return p->old && (!p->new || replaced(p));
}

static bool to_map(const struct piece *p)
{
	return p->new && (!p->old || replaced(p));
}

static void plan_unmaps(struct batch *b, const struct pieces *p)
{
	for (size_t i = 0; i < p->n; i++) {
		uint64_t start = p->v[i].start, end = p->v[i].end;

		if (!to_unmap(&p->v[i]))
			continue;
		while (i + 1 < p->n && p->v[i + 1].start == end && to_unmap(&p->v[i + 1]))
			end = p->v[++i].end;
		batch_call(b, "munmap", SYS_munmap, start, end - start);
	}
}

/* The protection that a mapping is made with: memory that is read-only now but was writable counts as the program's own (VM_ACCOUNT). */
static uint32_t born_prot(const struct vma *v)
{
	bool was_writable = (v->bits & VMA_ACCOUNT) && (v->kind == VMA_ANON || v->kind == VMA_FILE_PRIVATE);

	if (v->kind == VMA_SYSV)
		return PROT_READ | (v->bits & VMA_WRITE_SHARED ? PROT_WRITE : 0) | (v->prot & PROT_EXEC);
	return v->prot | (was_writable ? PROT_WRITE : 0);
}

/* `free_at`: where the whole segment can be attached for a moment, when only a part of it is mapped. */
static int plan_attach(struct batch *b, const struct vma *v, const struct range *to, int id, uint64_t free_at, struct err *e)
{
	uint64_t flags = (v->bits & VMA_WRITE_SHARED ? 0 : SHM_RDONLY) | (v->prot & PROT_EXEC ? SHM_EXEC : 0);
	uint64_t offset = v->offset + (to->start - v->start), len = to->end - to->start;

	if (!offset && len == v->object_bytes) {
		batch_call(b, "shmat", SYS_shmat, (uint64_t)id, to->start, flags);
		return 0;
	}
	if (!free_at)
		return err_set(e, -ENOMEM, "no room to attach the segment at %llx", (unsigned long long)v->start);
	batch_call(b, "shmat", SYS_shmat, (uint64_t)id, free_at, flags);
	batch_call(b, "mremap of shared memory", SYS_mremap, free_at + offset, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to->start);
	if (offset)
		batch_call(b, "munmap", SYS_munmap, free_at, offset);
	if (offset + len < v->object_bytes)
		batch_call(b, "munmap", SYS_munmap, free_at + offset + len, v->object_bytes - offset - len);
	return 0;
}

static uint64_t anonymous_flags(const struct vma *v)
{
	if (v->bits & VMA_DROPPABLE)
		return MAP_DROPPABLE | MAP_ANONYMOUS;
	if (v->kind == VMA_HUGE)
		return MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (v->bits & VMA_HUGE_2M ? 21u : 30u) << HUGE_SHIFT_BITS;
	return MAP_PRIVATE | MAP_ANONYMOUS;
}

static void plan_map(struct batch *b, const struct vma *v, const struct range *to, const int *fds)
{
	uint64_t flags = MAP_FIXED_NOREPLACE, fd = (uint64_t)-1, offset = 0;

	if (has_file(v)) {
		fd = fds[v->file];
		offset = v->offset + (to->start - v->start);
		flags |= v->kind == VMA_FILE_SHARED ? MAP_SHARED : MAP_PRIVATE;
	} else {
		flags |= anonymous_flags(v);
	}
	if ((v->bits & VMA_NORESERVE) && !(v->bits & VMA_DROPPABLE))
		flags |= MAP_NORESERVE;
	if (v->bits & VMA_GROWSDOWN)
		flags |= MAP_GROWSDOWN;
	batch_call(b, has_file(v) ? "mmap of a file" : "mmap", SYS_mmap, to->start, to->end - to->start, born_prot(v), flags, fd, offset);
}

static int plan_maps(struct batch *b, const struct pieces *p, const struct layout_change *c, struct range_list *mapped, struct err *e)
{
	for (size_t i = 0; i < p->n; i++) {
		struct range to = { p->v[i].start, p->v[i].end };
		const struct vma *v = p->v[i].new;
		int rc = 0;

		if (!to_map(&p->v[i]))
			continue;
		while (i + 1 < p->n && p->v[i + 1].start == to.end && p->v[i + 1].new == v && to_map(&p->v[i + 1]))
			to.end = p->v[++i].end;
		if (has_file(v) && (v->file < 0 || (uint32_t)v->file >= c->n_fds || c->fds[v->file] < 0))
			return err_set(e, -EINVAL, "mapping %llx-%llx has no file to map", (unsigned long long)to.start,
				       (unsigned long long)to.end);
		if (v->kind == VMA_SYSV)
			rc = plan_attach(b, v, &to, c->fds[v->file], vma_find_free(c->old, c->new, v->object_bytes + APART), e);
		else
			plan_map(b, v, &to, c->fds);
		if (rc < 0)
			return rc;
		if (mapped && range_list_add(mapped, to.start, to.end) < 0)
			return err_set(e, -ENOMEM, "no memory for the list of new ranges");
	}
	return 0;
}

/* What the piece has before plan_protections. */
static uint32_t prot_before(const struct piece *p)
{
	return to_map(p) ? born_prot(p->new) : p->old->prot;
}

static void plan_protections(struct batch *b, const struct pieces *p)
{
	for (size_t i = 0; i < p->n; i++) {
		uint64_t start = p->v[i].start, end = p->v[i].end;
		uint32_t prot;

		if (!p->v[i].new || prot_before(&p->v[i]) == p->v[i].new->prot)
			continue;
		prot = p->v[i].new->prot;
		while (i + 1 < p->n && p->v[i + 1].start == end && p->v[i + 1].new && p->v[i + 1].new->prot == prot &&
		       prot_before(&p->v[i + 1]) != prot)
			end = p->v[++i].end;
		batch_call(b, "mprotect", SYS_mprotect, start, end - start, prot);
	}
}

/* +1: set, -1: undo, 0: leave. */
static int advice_change(const struct piece *p, const struct advice *a)
{
	bool before = !to_map(p) && p->old && (p->old->bits & a->bit), after = p->new && (p->new->bits & a->bit);

	if (!p->new || (!to_map(p) && (p->new->bits & VMA_GUESSED)) || before == after)
		return 0;
	return after ? 1 : a->undo || a->bit == VMA_RANDOM || a->bit == VMA_SEQUENTIAL ? -1 : 0;
}

static void plan_advice(struct batch *b, const struct pieces *p, const struct advice *a, int change)
{
	for (size_t i = 0; i < p->n; i++) {
		uint64_t start = p->v[i].start, end = p->v[i].end;
		uint64_t value = change > 0 ? a->set : a->undo;

		if (advice_change(&p->v[i], a) != change)
			continue;
		while (i + 1 < p->n && p->v[i + 1].start == end && advice_change(&p->v[i + 1], a) == change)
			end = p->v[++i].end;
		if (a->hint)
			batch_try(b, a->what, SYS_madvise, start, end - start, value);
		else
			batch_call(b, a->what, SYS_madvise, start, end - start, value);
	}
}

enum lock { LOCK_NONE, LOCK_ONFAULT, LOCK_FULL };

static enum lock lock_of(const struct vma *v)
{
	return !(v->bits & VMA_LOCKED) || vma_is_kernels(v) ? LOCK_NONE : v->bits & VMA_LOCKONFAULT ? LOCK_ONFAULT : LOCK_FULL;
}

/* Whether mprotect would bring in all pages of what is locked. */
static bool loosens(const struct piece *p)
{
	return !to_map(p) && p->new && lock_of(p->old) == LOCK_FULL && p->old->prot != p->new->prot;
}

static enum lock lock_before(const struct piece *p)
{
	return to_map(p) ? LOCK_NONE : loosens(p) ? LOCK_ONFAULT : lock_of(p->old);
}

static enum lock lock_after(const struct piece *p)
{
	return !to_map(p) && (p->new->bits & VMA_GUESSED) ? lock_before(p) : lock_of(p->new);
}

static void plan_loosening(struct batch *b, const struct pieces *p)
{
	for (size_t i = 0; i < p->n; i++)
		if (loosens(&p->v[i]))
			batch_try(b, "mlock2", SYS_mlock2, p->v[i].start, p->v[i].end - p->v[i].start, MLOCK_ONFAULT);
}

/* To LOCK_NONE or LOCK_ONFAULT; what is to be LOCK_FULL becomes at least LOCK_ONFAULT. -1: nothing is to be done. */
static int lock_change(const struct piece *p)
{
	enum lock after = p->new ? lock_after(p) : LOCK_NONE;

	if (!p->new || lock_before(p) == after || (after == LOCK_FULL && lock_before(p) == LOCK_ONFAULT))
		return -1;
	return after == LOCK_NONE ? LOCK_NONE : LOCK_ONFAULT;
}

static void plan_lock(struct batch *b, uint64_t start, uint64_t end, enum lock lock)
{
	if (lock == LOCK_NONE)
		batch_call(b, "munlock", SYS_munlock, start, end - start);
	else
		batch_call(b, "mlock2 (RLIMIT_MEMLOCK?)", SYS_mlock2, start, end - start, MLOCK_ONFAULT);
}

/* From `start`, which lies in l->v[i], to the next hole. Returns the end. */
static uint64_t plan_full_lock(struct batch *b, const struct vma_list *l, size_t i, uint64_t start)
{
	size_t last = i;

	while (last + 1 < l->n && l->v[last + 1].start == l->v[last].end)
		last++;
	batch_try(b, "mlock2", SYS_mlock2, start, l->v[last].end + PAGE_SIZE_BYTES - start, 0);
	for (; i <= last; i++) {
		enum lock lock = lock_of(&l->v[i]);
		uint64_t from = l->v[i].start;

		if (lock == LOCK_FULL || vma_is_kernels(&l->v[i]))
			continue;
		while (i < last && lock_of(&l->v[i + 1]) == lock && !vma_is_kernels(&l->v[i + 1]))
			i++;
		plan_lock(b, from, l->v[i].end, lock);
	}
	return l->v[last].end;
}

/*
 * mlock brings all pages in, which are not here yet, and it cannot wait until they are: the program may have called munlock by then. But a range that ends in a hole is an error to it,
 * which it finds when it has set the flags of the mappings before the hole and has not yet touched a page. What it has locked too much is given its own lock again.
 */
static void plan_locks(struct batch *b, const struct pieces *p, const struct vma_list *l)
{
	uint64_t done = 0;

	for (size_t i = 0; i < p->n; i++) {
		uint64_t start = p->v[i].start, end = p->v[i].end;
		int change = lock_change(&p->v[i]);

		if (change < 0)
			continue;
		while (i + 1 < p->n && p->v[i + 1].start == end && lock_change(&p->v[i + 1]) == change)
			end = p->v[++i].end;
		plan_lock(b, start, end, (enum lock)change);
	}
	for (size_t i = 0, k = 0; i < p->n; i++) {
		if (!p->v[i].new || p->v[i].start < done || lock_after(&p->v[i]) != LOCK_FULL || lock_before(&p->v[i]) == LOCK_FULL)
			continue;
		while (l->v[k].end <= p->v[i].start)
			k++;
		done = plan_full_lock(b, l, k, p->v[i].start);
	}
}

static void plan_names(struct batch *b, const struct pieces *p)
{
	for (size_t i = 0; i < p->n; i++) {
		const struct vma *v = p->v[i].new;

		if (v && v->name[0] && to_map(&p->v[i]))
			batch_try(b, "prctl(PR_SET_VMA_ANON_NAME)", SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, p->v[i].start,
				  p->v[i].end - p->v[i].start, batch_string(b, v->name));
	}
}

static bool covered(const struct range_list *l, const struct range *r)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].start <= r->start && r->end <= l->v[i].end)
			return true;
	return false;
}

static bool mapped_anew(const struct pieces *p, const struct range *r)
{
	for (size_t i = 0; i < p->n; i++)
		if (to_map(&p->v[i]) && p->v[i].start < r->end && r->start < p->v[i].end)
			return true;
	return false;
}

/* Guards go in before locks: the kernel puts none into locked memory. */
static void plan_guards(struct batch *b, const struct pieces *p, const struct range_list *old, const struct range_list *new)
{
	for (size_t i = 0, k = 0; i < old->n; i++) {
		uint64_t start = old->v[i].start;

		while (k < new->n && new->v[k].end <= start)
			k++;
		for (size_t n = k; start < old->v[i].end; n++) {
			uint64_t end = n < new->n ? MIN(MAX(new->v[n].start, start), old->v[i].end) : old->v[i].end;

			if (start < end)
				batch_try(b, "madvise(MADV_GUARD_REMOVE)", SYS_madvise, start, end - start, MADV_GUARD_REMOVE);
			start = n < new->n ? MAX(new->v[n].end, start) : end;
		}
	}
	for (size_t i = 0; i < new->n; i++)
		if (!covered(old, &new->v[i]) || mapped_anew(p, &new->v[i]))
			batch_call(b, "madvise(MADV_GUARD_INSTALL)", SYS_madvise, new->v[i].start, new->v[i].end - new->v[i].start,
				   MADV_GUARD_INSTALL);
}

int vma_plan_sync(struct batch *b, const struct vma_list *old, const struct vma_list *new, const int *fds, uint32_t n_fds,
		  struct range_list *ret_mapped, struct err *e)
{
	const struct layout_change c = { old, new, fds, n_fds };
	struct pieces p = { 0 };
	size_t kept = 0;
	int rc = cut(old, new, &p, e);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < p.n; i++) {
		const struct piece *q = &p.v[i];
		bool is = q->new && vma_is_kernels(q->new), was = q->old && vma_is_kernels(q->old);

		if (is != was || (is && q->new->kind != q->old->kind))
			rc = err_set(e, -ENOTSUP, "the program moved its vdso or a ring of asynchronous I/O (%llx) during the preparation; try again",
				     (unsigned long long)q->start);
		if (!is && !was)
			p.v[kept++] = *q;
	}
	p.n = kept;
	if (rc == 0) {
		plan_unmaps(b, &p);
		rc = plan_maps(b, &p, &c, ret_mapped, e);
	}
	if (rc == 0) {
		plan_loosening(b, &p);
		plan_protections(b, &p);
		for (size_t i = 0; i < ARRAY_SIZE(advices); i++)
			plan_advice(b, &p, &advices[i], -1);
		for (size_t i = 0; i < ARRAY_SIZE(advices); i++)
			plan_advice(b, &p, &advices[i], 1);
		plan_names(b, &p);
		plan_guards(b, &p, &old->guards, &new->guards);
		plan_locks(b, &p, new);
	}
	free(p.v);
	return rc;
}

static int compare_starts(const void *a, const void *b)
{
	const struct vma *v = a, *w = b;

	return v->start < w->start ? -1 : v->start > w->start;
}

int vma_plan_build(struct batch *b, const struct vma_list *there, const struct vma_list *l, const int *fds, uint32_t n_fds, struct range_list *ret_mapped,
		   struct err *e)
{
	struct vma_list old = { 0 };
	int rc = 0;

	for (size_t i = 0; there && i < there->n && rc == 0; i++)
		rc = vma_list_append(&old, &there->v[i]);
	/* vdso and vvar are there already */
	for (size_t i = 0; i < l->n && rc == 0; i++)
		if (vma_is_kernels(&l->v[i]))
			rc = vma_list_append(&old, &l->v[i]);
	if (rc < 0) {
		vma_list_free(&old);
		return err_set(e, -ENOMEM, "no memory for the list of mappings");
	}
	if (old.n)
		qsort(old.v, old.n, sizeof(*old.v), compare_starts);
	rc = vma_plan_sync(b, &old, l, fds, n_fds, ret_mapped, e);
	vma_list_free(&old);
	return rc;
}

/* Unmaps [start, end) except what is in keep. */
static void plan_unmap_except(struct batch *b, uint64_t start, uint64_t end, const struct range_list *keep)
{
	while (start < end) {
		uint64_t hole_start = end, hole_end = end;

		for (size_t i = 0; keep && i < keep->n; i++) {
			if (keep->v[i].end > start && keep->v[i].start < hole_start) {
				hole_start = MAX(start, keep->v[i].start);
				hole_end = MIN(end, keep->v[i].end);
			}
		}
		if (hole_start > start)
			batch_call(b, "munmap", SYS_munmap, start, hole_start - start);
		start = hole_end;
	}
}

void vma_plan_empty(struct batch *b, const struct vma_list *own, const struct range_list *keep)
{
	for (size_t i = 0; i < own->n; i++) {
		uint64_t start = own->v[i].start, end = own->v[i].end;

		if (vma_is_kernels(&own->v[i]))
			continue;
		while (i + 1 < own->n && own->v[i + 1].start == end && !vma_is_kernels(&own->v[i + 1]))
			end = own->v[++i].end;
		plan_unmap_except(b, start, end, keep);
	}
}

void vma_plan_seals(struct batch *b, const struct vma_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		uint64_t start = l->v[i].start, end = l->v[i].end;

		if (!(l->v[i].bits & VMA_SEALED) || vma_is_kernels(&l->v[i]))
			continue;
		while (i + 1 < l->n && l->v[i + 1].start == end && l->v[i + 1].bits & VMA_SEALED && !vma_is_kernels(&l->v[i + 1]))
			end = l->v[++i].end;
		batch_call(b, "mseal", SYS_mseal, start, end - start, 0);
	}
}

void vma_plan_finish(struct batch *b, const struct vma_list *l)
{
	for (size_t i = 0; i < l->huge.n; i++) {
		uint64_t start = (l->huge.v[i].start + HUGE_SIZE - 1) & ~(HUGE_SIZE - 1), end = l->huge.v[i].end & ~(HUGE_SIZE - 1);

		if (start < end)
			batch_try(b, "madvise(MADV_COLLAPSE)", SYS_madvise, start, end - start, MADV_COLLAPSE);
	}
	for (size_t i = 0; i < l->n; i++) {
		const struct vma *v = &l->v[i];
		bool write = (v->prot & PROT_WRITE) && !(v->bits & VMA_WRITE_SHARED) && v->kind != VMA_FILE_SHARED && v->kind != VMA_SYSV;

		if (lock_of(v) == LOCK_FULL && v->prot)
			batch_try(b, "madvise(MADV_POPULATE)", SYS_madvise, v->start, v->end - v->start, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
	}
}
