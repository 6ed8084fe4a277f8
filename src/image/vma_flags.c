/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vma_flags.c - flags of mappings in the freeze
 *
 * Theory of operation: maps does not show what madvise(2) and mlock(2) have set, and smaps, which does, walks the page tables. BPF reads the flags alone
 * (kern/vma_peek.h). Flags that have no place in the image are those of mappings that cannot move: smaps says so in another attempt.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/util.h"
#include "image/vma_internal.h"

#define RAW_SHARED 0x8ull
#define RAW_PFNMAP 0x400ull
#define RAW_IO 0x4000ull
#define RAW_HIGH (~0ull << 32) /* protection keys, shadow stacks... */

static const struct {
	enum vma_peek_flag flag;
	uint32_t bit;
} flags[] = {
	{ VMA_PEEK_GROWSDOWN, VMA_GROWSDOWN }, { VMA_PEEK_LOCKED, VMA_LOCKED }, { VMA_PEEK_LOCKONFAULT, VMA_LOCKONFAULT }, { VMA_PEEK_HUGEPAGE, VMA_HUGEPAGE },
	{ VMA_PEEK_NOHUGEPAGE, VMA_NOHUGEPAGE }, { VMA_PEEK_DONTFORK, VMA_DONTFORK }, { VMA_PEEK_DONTDUMP, VMA_DONTDUMP },
	{ VMA_PEEK_WIPEONFORK, VMA_WIPEONFORK }, { VMA_PEEK_MERGEABLE, VMA_MERGEABLE }, { VMA_PEEK_RANDOM, VMA_RANDOM },
	{ VMA_PEEK_SEQUENTIAL, VMA_SEQUENTIAL }, { VMA_PEEK_NORESERVE, VMA_NORESERVE }, { VMA_PEEK_ACCOUNT, VMA_ACCOUNT }, { VMA_PEEK_DROPPABLE, VMA_DROPPABLE },
	{ VMA_PEEK_SEALED, VMA_SEALED },
};

/* What the record says. Of a file that is mapped synchronously (MAP_SYNC) only smaps tells, and of the size of huge pages their file. */
#define FROM_RECORD (VMA_BITS_ALL & ~(VMA_HUGE_2M | VMA_HUGE_1G | VMA_SYNC))

void vma_flags_read(pid_t pid, struct vma_flags *ret)
{
	ssize_t n = vma_peek(pid, &ret->v, NULL);

	ret->n = n < 0 ? 0 : (size_t)n;
	ret->at = 0;
}

static uint32_t bits_of(uint64_t raw)
{
	uint32_t bits = raw & RAW_SHARED ? VMA_WRITE_SHARED : 0;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		bits |= raw & vma_peek_bit(flags[i].flag) ? flags[i].bit : 0;
	return bits;
}

/* The kernel gives a key of its own to what may only be executed. */
static bool is_strange(uint64_t raw, const struct vma *v)
{
	uint64_t strange = RAW_PFNMAP | RAW_IO | (v->prot == PROT_EXEC ? 0 : RAW_HIGH);

	return raw & strange & ~vma_peek_bit(VMA_PEEK_DROPPABLE) & ~vma_peek_bit(VMA_PEEK_SEALED);
}

int vma_flags_apply(struct vma_flags *f, struct vma *v, struct err *e)
{
	if (!f->n || vma_is_kernels(v)) /* no program changes those of the kernel's */
		return 0;
	while (f->at < f->n && f->v[f->at].end <= v->start)
		f->at++;
	/* A part of it may have been cut off while the process ran, as at the rehearsal. */
	if (f->at == f->n || f->v[f->at].start > v->start || f->v[f->at].end < v->end)
		return err_set(e, -EAGAIN, "mapping %llx changed while the layout was read", (unsigned long long)v->start);
	if (is_strange(f->v[f->at].flags, v))
		return err_set(e, -EAGAIN, "mapping %llx has been made since the offer in a way that it has to be looked at", (unsigned long long)v->start);
	v->bits = (v->bits & ~FROM_RECORD) | bits_of(f->v[f->at].flags);
	return 0;
}

int vma_flags_guarded(struct vma_flags *f, uint64_t start, uint64_t end)
{
	uint64_t guarded = vma_peek_bit(VMA_PEEK_GUARDED);
	bool any = false;

	if (!f->n || !guarded)
		return -1;
	while (f->at && f->v[f->at - 1].end > start)
		f->at--;
	while (f->at < f->n && f->v[f->at].end <= start)
		f->at++;
	for (size_t i = f->at; i < f->n && f->v[i].start < end; i++)
		any = any || f->v[i].flags & guarded;
	return any;
}

bool vma_flags_same(struct vma_flags *f, const struct vma_list *old)
{
	bool same = true;

	for (size_t i = 0; i < old->n && same; i++) {
		struct vma v = old->v[i];

		same = vma_flags_apply(f, &v, NULL) == 0 && v.bits == old->v[i].bits;
	}
	f->at = 0;
	return same;
}

int vma_list_digest(pid_t pid, const struct vma_list *old, struct vma_digest *ret, struct err *e)
{
	struct vma_digest d = { 0 };
	struct vma_flags now;
	struct vma_line l;

	vma_flags_read(pid, &now);
	if (!now.n)
		return err_set(e, -ENOSYS, "flags of mappings cannot be read by BPF here");
	if (!old->known || !vma_flags_same(&now, old))
		return err_set(e, -EAGAIN, "process %d has other mappings than before", pid);
	for (const char *p = old->known; *p && vma_parse_line(&p, &l);) {
		const struct vma_record *v = &now.v[d.count];

		if (l.start >= VMA_TASK_SIZE)
			continue;
		if (d.count == now.n || v->start != l.start || v->end != l.end)
			return err_set(e, -EAGAIN, "process %d has other mappings than before", pid);
		vma_digest_add(&d, v->start, v->end, v->flags);
		if (l.dev || l.ino)
			vma_digest_add_file(&d, l.offset / PAGE_SIZE_BYTES, l.ino, (unsigned)(l.dev >> 32), (unsigned)l.dev);
	}
	if (d.count != now.n)
		return err_set(e, -EAGAIN, "process %d has other mappings than before", pid);
	*ret = d;
	return 0;
}
