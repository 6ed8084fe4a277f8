/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vma.c - lists of mappings and ranges; see vma.h. Reading is in vma_read.c, bytes in vma_wire.c */
#include "image/vma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define GIB (1ull << 30)
#define FREE_MARGIN 65536ull

int range_list_add(struct range_list *r, uint64_t start, uint64_t end)
{
	if (start >= end)
		return 0;
	if (r->n && r->v[r->n - 1].end == start) {
		r->v[r->n - 1].end = end;
		return 0;
	}
	if (r->n == r->allocated) {
		size_t allocated = r->allocated ? r->allocated * 2 : 16;
		struct range *grown = realloc(r->v, allocated * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		r->v = grown;
		r->allocated = allocated;
	}
	r->v[r->n++] = (struct range){ start, end };
	return 0;
}

void range_list_free(struct range_list *r)
{
	free(r->v);
	*r = (struct range_list){ 0 };
}

size_t range_list_behind(const struct range_list *r, uint64_t address)
{
	size_t lo = 0, hi = r->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (address >= r->v[mid].end)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int vma_list_append(struct vma_list *l, const struct vma *v)
{
	if (l->n == l->allocated) {
		size_t allocated = l->allocated ? l->allocated * 2 : 64;
		struct vma *grown = realloc(l->v, allocated * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		l->v = grown;
		l->allocated = allocated;
	}
	l->v[l->n++] = *v;
	return 0;
}

void vma_list_free(struct vma_list *l)
{
	free(l->v);
	free(l->shared);
	free(l->buffer);
	free(l->known);
	range_list_free(&l->huge);
	range_list_free(&l->guards);
	*l = (struct vma_list){ 0 };
}

const struct vma *vma_find(const struct vma_list *l, uint64_t address)
{
	size_t low = 0, high = l->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (address < l->v[middle].start)
			high = middle;
		else if (address >= l->v[middle].end)
			low = middle + 1;
		else
			return &l->v[middle];
	}
	return NULL;
}

int vma_list_index(struct vma_list *l)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		n += l->v[i].content == VMA_CONTENT_SHARED;
	free(l->shared);
	l->shared = calloc(n + 1, sizeof(*l->shared));
	l->n_shared = 0;
	if (!l->shared)
		return -ENOMEM;
	for (size_t i = 0; i < l->n && n; i++)
		if (l->v[i].content == VMA_CONTENT_SHARED)
			l->shared[l->n_shared++] = (uint32_t)i;
	return 0;
}

void vma_list_apply_answers(struct vma_list *l, const struct fsfile_answer *answers, uint32_t n)
{
	for (size_t i = 0; i < l->n; i++) {
		struct vma *v = &l->v[i];

		if (v->kind != VMA_FILE_SHARED || v->file < 0 || (uint32_t)v->file >= n)
			continue;
		/* Through a mapping that cannot be made writable nothing is written that would have to be found */
		if (fsfile_answer_lacks(&answers[v->file]) && (v->bits & VMA_WRITE_SHARED))
			v->content = VMA_CONTENT_SHARED;
		else
			v->content = VMA_CONTENT_NONE;
	}
	vma_list_index(l); /* without memory for it there is none, and shared_collect says so */
}

static int range_compare(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

void range_list_join(struct range_list *r, uint64_t near)
{
	size_t kept = 0;

	if (r->n < 2)
		return;
	qsort(r->v, r->n, sizeof(*r->v), range_compare);
	for (size_t i = 1; i < r->n; i++) {
		if (r->v[i].start <= r->v[kept].end || r->v[i].start - r->v[kept].end <= near)
			r->v[kept].end = MAX(r->v[kept].end, r->v[i].end);
		else
			r->v[++kept] = r->v[i];
	}
	r->n = kept + 1;
}

int vma_file_ranges(const struct vma_list *l, uint32_t file, struct range_list *ret, struct err *e)
{
	struct range_list all = { 0 };

	for (size_t i = 0; i < l->n; i++) {
		const struct vma *v = &l->v[i];

		if (v->file != (int32_t)file)
			continue;
		if (range_list_add(&all, v->offset, v->offset + (v->end - v->start)) < 0) {
			range_list_free(&all);
			return err_set(e, -ENOMEM, "no memory for the ranges of a file");
		}
	}
	range_list_join(&all, 0);
	*ret = all;
	return 0;
}

/* The highest mapping of l that starts below address, or NULL. */
static const struct vma *below(const struct vma_list *l, uint64_t address)
{
	size_t low = 0, high = l->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (l->v[middle].start < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? &l->v[low - 1] : NULL;
}

bool vma_overlaps(const struct vma_list *l, uint64_t start, uint64_t end)
{
	const struct vma *v = below(l, end);

	return v && v->end > start;
}

/*
 * Goes down from `top`: whenever a mapping is in the way, on below it. Mappings that grow down keep 1 GiB below them
 * free. Never lower than `bottom`.
 */
static uint64_t search_down(const struct vma_list *lists[2], uint64_t top, uint64_t bottom, uint64_t need)
{
	uint64_t end = top;

	for (;;) {
		bool moved = false;

		if (end < bottom + need)
			return 0;
		for (int i = 0; i < 2; i++) {
			const struct vma *v = lists[i] ? below(lists[i], end) : NULL;
			/* a stack above end may still claim the room */
			const struct vma *next = !lists[i] ? NULL : v ? v + 1 : lists[i]->v;
			uint64_t limit = end;

			if (next && lists[i]->n && next < lists[i]->v + lists[i]->n && (next->bits & VMA_GROWSDOWN) &&
			    next->start < end + GIB)
				limit = next->start > GIB ? next->start - GIB : 0;
			if (v && v->end > limit - MIN(limit, need))
				limit = MIN(limit, v->bits & VMA_GROWSDOWN ? (v->start > GIB ? v->start - GIB : 0) : v->start);
			if (limit < end) {
				end = limit;
				moved = true;
			}
		}
		if (!moved)
			return end - need;
	}
}

uint64_t vma_find_free(const struct vma_list *a, const struct vma_list *b, uint64_t len_bytes)
{
	const struct vma_list *lists[2] = { a, b };
	uint64_t need = PAGE_ALIGN_UP(len_bytes) + 2 * FREE_MARGIN, found;

	/*
	 * New mappings go down from mmap_base (0x7fff.... less stack room and randomness), a heap goes up from the program
	 * (0x55... or 0x0000...). The part between, from 0x7000.... down to 0x6000...., is in nobody's way.
	 */
	found = search_down(lists, 0x700000000000ull, 0x600000000000ull, need);
	if (!found)
		found = search_down(lists, VMA_TASK_SIZE - 64 * GIB, 0x100000000000ull, need);
	return found ? found + FREE_MARGIN : 0;
}
