/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* shared.c - what has been written to memory that mappings share; see shared.h */
#include "image/shared.h"

#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "kern/pagemap.h"

#define CHUNK_BYTES (32ull << 20) /* scanned under one hold of the address space's lock */

static const struct pagemap_query query_rearm = { .all_of = PAGE_CATEGORY_WRITTEN, .want = PAGE_CATEGORY_WRITTEN, .rearm = 1 };
static const struct pagemap_query query_written = { .all_of = PAGE_CATEGORY_WRITTEN, .want = PAGE_CATEGORY_WRITTEN };
/* Whatever is not registered with a userfaultfd. */
static const struct pagemap_query query_untracked = { .all_of = PAGE_CATEGORY_WPALLOWED, .inverted = PAGE_CATEGORY_WPALLOWED,
						      .want = PAGE_CATEGORY_WPALLOWED };

/* A scan of one mapping. */
struct shared_scan {
	struct shared *s;
	struct shared_mapping m;
	bool any;
};

static int ignore_region(const struct pagemap_region *region, void *arg)
{
	(void)region;
	(void)arg;
	return 0;
}

static int note_region(const struct pagemap_region *region, void *arg)
{
	(void)region;
	((struct shared_scan *)arg)->any = true;
	return 0;
}

static int add_dirty(const struct pagemap_region *region, void *arg)
{
	struct shared_scan *x = arg;
	uint64_t at = x->m.offset + (region->start - x->m.start);

	return range_list_add(&x->s->dirty[x->m.file], at, at + (region->end - region->start));
}

static int add_whole(struct shared *s, const struct shared_mapping *m)
{
	return range_list_add(&s->dirty[m->file], m->offset, m->offset + (m->end - m->start));
}

/* One mapping of it may have been longer than anybody has seen it. */
static int add_file(struct shared *s, int32_t file)
{
	return range_list_add(&s->dirty[file], 0, SHARED_END);
}

/* In pieces, so that the program does not wait long for the lock. */
static int protect(const struct shared_view *view, const struct shared_mapping *m, int (*found)(const struct pagemap_region *, void *), void *arg)
{
	int ret = 0;

	for (uint64_t at = m->start; at < m->end && ret == 0; at += CHUNK_BYTES)
		ret = pagemap_scan(view->pagemap_fd, at, MIN(at + CHUNK_BYTES, m->end), &query_rearm, found, arg, NULL);
	return ret;
}

/*
 * Registering again what is registered does no harm. A mapping that went away meanwhile is the next look's matter. One that has grown meanwhile must not be registered in part: the
 * kernel would split it, and the program could no longer mremap(2) it as a whole. So the free addresses behind it are registered with it, unless something else is there by now.
 */
static int track(const struct shared_view *view, const struct shared_mapping *m, struct err *e)
{
	int ret = uffd_register(view->uffd, m->start, m->limit, UFFD_TRACK, NULL);

	if (ret < 0)
		ret = uffd_register(view->uffd, m->start, m->end, UFFD_TRACK, NULL);
	return ret == 0 || ret == -EINVAL || ret == -ENOENT ? 0 : err_sys(e, ret, "tracking writes to shared memory at %llx", (unsigned long long)m->start);
}

/* The ith mapping of the process. */
static struct shared_mapping mapping_of(const struct shared_view *view, size_t i)
{
	const struct vma *v = &view->vmas->v[i];
	uint64_t limit = i + 1 < view->vmas->n ? v[1].start : VMA_TASK_SIZE;

	if (view->scratch.start >= v->end && view->scratch.start < limit)
		limit = view->scratch.start;
	return (struct shared_mapping){ v->start, v->end, v->offset, limit, v->file };
}

static bool is_looked_at(const struct vma *v)
{
	return v->content == VMA_CONTENT_SHARED && v->file >= 0;
}

static struct shared_seen *seen_of(struct shared *s, pid_t pid)
{
	struct shared_seen *grown;

	for (size_t i = 0; i < s->nseen; i++)
		if (s->seen[i].pid == pid)
			return &s->seen[i];
	grown = realloc(s->seen, (s->nseen + 1) * sizeof(*grown));
	if (!grown)
		return NULL;
	s->seen = grown;
	s->seen[s->nseen] = (struct shared_seen){ .pid = pid };
	return &s->seen[s->nseen++];
}

/* The list of now takes the place of the one of before. */
static int remember(struct shared_seen *seen, const struct shared_view *view)
{
	const struct vma_list *l = view->vmas;

	seen->n = 0;
	for (size_t i = 0; i < l->n_shared; i++) {
		const struct vma *v = &l->v[l->shared[i]];

		if (!is_looked_at(v))
			continue;
		if (!seen->v || seen->n == seen->allocated) {
			size_t allocated = seen->allocated ? seen->allocated * 2 : 16;
			struct shared_mapping *grown = realloc(seen->v, allocated * sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			seen->v = grown;
			seen->allocated = allocated;
		}
		seen->v[seen->n++] = mapping_of(view, l->shared[i]);
	}
	return 0;
}

/* Whether all of m is mapped now as it was, maybe as several mappings. */
static bool is_still_there(const struct shared_mapping *m, const struct vma_list *l)
{
	for (uint64_t at = m->start; at < m->end;) {
		const struct vma *v = vma_find(l, at);

		if (!v || !is_looked_at(v) || v->file != m->file || v->offset - v->start != m->offset - m->start)
			return false;
		at = v->end;
	}
	return true;
}

/* Whether all of [start, end) is in pieces of l that may be in any order. */
static bool is_covered(const struct range_list *l, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < l->n && start < end; i++)
		if (l->v[i].start <= start && start < l->v[i].end)
			return is_covered(l, l->v[i].end, end);
	return start >= end;
}

static bool was_seen(const struct shared_seen *seen, uint64_t start, uint64_t end)
{
	for (size_t i = 0; i < seen->n && start < end; i++)
		if (seen->v[i].start <= start && start < seen->v[i].end)
			return was_seen(seen, seen->v[i].end, end);
	return start >= end;
}

/* Adds what was unmapped. Returns false when it was not where the last look had seen it. */
static bool add_unmapped(struct shared *s, const struct shared_seen *seen, const struct range_list *l)
{
	for (size_t k = 0; k < l->n; k++) {
		if (!was_seen(seen, l->v[k].start, l->v[k].end))
			return false;
		for (size_t i = 0; i < seen->n; i++) {
			const struct shared_mapping *m = &seen->v[i];
			uint64_t start = MAX(m->start, l->v[k].start), end = MIN(m->end, l->v[k].end);

			if (start < end && range_list_add(&s->dirty[m->file], m->offset + (start - m->start), m->offset + (end - m->start)) < 0)
				return false;
		}
	}
	return true;
}

static int distrust(struct shared *s, const struct shared_seen *seen, const struct vma_list *l)
{
	int ret = 0;

	for (size_t i = 0; i < seen->n && ret == 0; i++)
		ret = add_file(s, seen->v[i].file);
	for (size_t k = 0; l && k < l->n_shared && ret == 0; k++)
		if (is_looked_at(&l->v[l->shared[k]]) && (uint32_t)l->v[l->shared[k]].file < s->n)
			ret = add_file(s, l->v[l->shared[k]].file);
	return ret;
}

/* What was written through a mapping that is gone, or a part of one, can no longer be seen. */
static int add_lost(struct shared *s, const struct shared_seen *seen, const struct shared_view *view)
{
	int ret = 0;

	if (view->remapped || !add_unmapped(s, seen, &view->unmapped))
		return distrust(s, seen, view->vmas);
	for (size_t i = 0; i < seen->n && ret == 0; i++)
		if (!is_still_there(&seen->v[i], view->vmas) && !is_covered(&view->unmapped, seen->v[i].start, seen->v[i].end))
			ret = add_file(s, seen->v[i].file);
	return ret;
}

/* Adds what was written through one mapping. One that is not tracked was made anew since the last look: what the one before it wrote is lost. */
static int look(struct shared *s, const struct shared_view *view, const struct shared_mapping *m, bool frozen, struct err *e)
{
	struct shared_scan x = { .s = s, .m = *m };
	int ret = pagemap_scan(view->pagemap_fd, m->start, m->end, &query_untracked, note_region, &x, NULL);

	if (ret == 0 && x.any && !frozen)
		ret = track(view, m, e);
	if (ret == 0 && !frozen)
		ret = protect(view, m, x.any ? ignore_region : add_dirty, &x);
	else if (ret == 0 && !x.any)
		ret = pagemap_scan(view->pagemap_fd, m->start, m->end, &query_written, add_dirty, &x, e);
	/* -EPERM: a part of it has been made anew right now. */
	if ((ret == 0 && x.any) || (ret == -EPERM && !frozen))
		ret = add_whole(s, m);
	return ret;
}

static bool is_viewed(const struct shared_view *views, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (views[i].pid == pid)
			return true;
	return false;
}

/* What a process that has ended has written since the last look. */
static int add_ended(struct shared *s, const struct shared_view *views, size_t n)
{
	int ret = 0;

	for (size_t i = s->nseen; i-- > 0 && ret == 0;) {
		if (is_viewed(views, n, s->seen[i].pid))
			continue;
		ret = distrust(s, &s->seen[i], NULL);
		free(s->seen[i].v);
		s->seen[i] = s->seen[--s->nseen];
	}
	return ret;
}

static int range_compare(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

static void put_in_order(struct range_list *l)
{
	size_t kept = 0;

	if (l->n < 2)
		return;
	qsort(l->v, l->n, sizeof(*l->v), range_compare);
	for (size_t i = 1; i < l->n; i++) {
		if (l->v[i].start <= l->v[kept].end)
			l->v[kept].end = MAX(l->v[kept].end, l->v[i].end);
		else
			l->v[++kept] = l->v[i];
	}
	l->n = kept + 1;
}

static int grow(struct shared *s, uint32_t n_files, struct err *e)
{
	struct range_list *grown;

	if (n_files <= s->n)
		return 0;
	grown = realloc(s->dirty, n_files * sizeof(*grown));
	if (!grown)
		return err_sys(e, -ENOMEM, "account of shared memory");
	s->dirty = grown;
	memset(grown + s->n, 0, (n_files - s->n) * sizeof(*grown));
	s->n = n_files;
	return 0;
}

int shared_track(struct shared *s, const struct shared_view *views, size_t n, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < n && ret == 0; i++) {
		struct shared_seen *seen = seen_of(s, views[i].pid);

		if (!seen || !views[i].vmas->shared || remember(seen, &views[i]) < 0)
			return err_sys(e, -ENOMEM, "account of shared memory");
		for (size_t k = 0; k < seen->n && ret == 0; k++) {
			ret = track(&views[i], &seen->v[k], e);
			/* What has been mapped anew since the list was read is found by the next look. */
			if (ret == 0)
				ret = protect(&views[i], &seen->v[k], ignore_region, NULL);
			if (ret == -EPERM)
				ret = 0;
		}
	}
	return ret < 0 && e && !e->code ? err_sys(e, ret, "protecting shared memory") : ret;
}

int shared_collect(struct shared *s, const struct shared_view *views, size_t n, uint32_t n_files, bool frozen, struct err *e)
{
	int ret = grow(s, n_files, e);

	if (ret == 0)
		ret = add_ended(s, views, n);
	for (size_t i = 0; i < n && ret == 0; i++) {
		const struct vma_list *l = views[i].vmas;
		struct shared_seen *seen = seen_of(s, views[i].pid);

		if (!seen || !l->shared)
			return err_sys(e, -ENOMEM, "account of shared memory");
		ret = add_lost(s, seen, &views[i]);
		for (size_t k = 0; k < l->n_shared && ret == 0; k++) {
			const struct vma *v = &l->v[l->shared[k]];
			struct shared_mapping m = mapping_of(&views[i], l->shared[k]);

			if (is_looked_at(v) && (uint32_t)m.file < s->n)
				ret = look(s, &views[i], &m, frozen, e);
		}
		if (ret == 0)
			ret = remember(seen, &views[i]);
	}
	for (uint32_t i = 0; i < s->n; i++)
		put_in_order(&s->dirty[i]);
	return ret < 0 && e && !e->code ? err_sys(e, ret, "looking at shared memory") : ret;
}

int shared_distrust(struct shared *s)
{
	int ret = 0;

	for (size_t i = 0; i < s->nseen; i++)
		for (size_t k = 0; k < s->seen[i].n && ret == 0; k++)
			ret = add_whole(s, &s->seen[i].v[k]);
	return ret;
}

void shared_clean(struct shared *s, uint32_t file)
{
	if (file < s->n)
		s->dirty[file].n = 0;
}

void shared_free(struct shared *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		range_list_free(&s->dirty[i]);
	for (size_t i = 0; i < s->nseen; i++)
		free(s->seen[i].v);
	free(s->dirty);
	free(s->seen);
	*s = (struct shared){ 0 };
}
