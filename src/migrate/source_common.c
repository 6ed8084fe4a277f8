/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_common.c - pages that processes of a unit share copy-on-write; docs/decisions/2026-11-30-copy-on-write.md
 *
 * Theory of operation: two processes share a page when the same page frame is at the same address in both (/proc/PID/pagemap, CAP_SYS_ADMIN): one of anonymous memory, or
 * a modified one of a private file mapping (those that are not modified are the file's). Such pages
 * travel once, before the destination has forked the processes of the skeleton from one that holds them. Writes are watched from before
 * the last look at the frames on: who writes a shared page gets another frame, or is the last who has it; either shows. So what a process has in common is
 * as good as sent, until it is seen to be written.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "base/util.h"
#include "kern/pagemap.h"
#include "migrate/pages_internal.h"
#include "migrate/source.h"

#define WINDOW 512u           /* entries read at once */
#define NEAR_BYTES (64 * PAGE_SIZE_BYTES) /* what is no farther apart is read at once */
#define BATCH_PAGES 64u       /* in one message */
#define RUNS_MAX 4096u        /* in one message */
#define ENTRY_PRESENT (1ull << 63)
#define ENTRY_FILE (1ull << 61) /* a file's page, or of shared memory */
#define ENTRY_FRAME ((1ull << 55) - 1)

struct common_page {
	uint64_t address, frame; /* frame 0: it is common no longer */
};

struct common {
	struct source *s;
	struct common_page *v;
	size_t n, allocated;
	uint64_t zero_frame;
	struct err *e;
};

/* The frames of n pages; 0 where none is, or a file's. */
static int read_frames(int pagemap_fd, uint64_t address, size_t n, uint64_t *ret)
{
	ssize_t got = pread(pagemap_fd, ret, n * sizeof(*ret), (off_t)(address / PAGE_SIZE_BYTES * sizeof(*ret)));

	for (size_t i = 0; i < n; i++)
		ret[i] = got == (ssize_t)(n * sizeof(*ret)) && ret[i] & ENTRY_PRESENT && !(ret[i] & ENTRY_FILE) ? ret[i] & ENTRY_FRAME : 0;
	return got < 0 ? -errno : 0;
}

static uint64_t find_zero_frame(void)
{
	char *p = mmap(NULL, PAGE_SIZE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cleanup_close int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t frame = 0;

	if (p == MAP_FAILED)
		return 0;
	(void)*(volatile char *)p;
	read_frames(fd, (uintptr_t)p, 1, &frame);
	munmap(p, PAGE_SIZE_BYTES);
	return frame;
}

/* Processes that only share the memory of another have no pages of their own. */
static bool has_memory(const struct source_process *p)
{
	const struct tree_process *t = &p->s->unit.tree.v[p->u->in_tree];

	return t->memory == p->u->in_tree && p->pages.pagemap_fd >= 0;
}

static int add_page(struct common *c, uint64_t address, uint64_t frame)
{
	if (!c->v || c->n == c->allocated) {
		size_t allocated = c->allocated ? c->allocated * 2 : 4096;
		struct common_page *grown = realloc(c->v, allocated * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		c->v = grown;
		c->allocated = allocated;
	}
	c->v[c->n++] = (struct common_page){ address, frame };
	return 0;
}

/* The frame that most processes have; of the first two that are met. Returns 0 when nobody shares. */
static uint64_t most_frequent(const uint64_t *frames, size_t n, size_t stride, uint64_t zero_frame)
{
	uint64_t version[2] = { 0 };
	size_t count[2] = { 0 };
	int best;

	for (size_t i = 0; i < n; i++) {
		uint64_t frame = frames[i * stride];

		for (int k = 0; frame && frame != zero_frame && k < 2; k++) {
			version[k] = version[k] ? version[k] : frame;
			if (version[k] == frame) {
				count[k]++;
				break;
			}
		}
	}
	best = count[1] > count[0];
	return count[best] > 1 ? version[best] : 0;
}

/* What processes have at [at, at + n pages), page by page. */
static int compare_window(struct common *c, uint64_t at, size_t n, uint64_t *frames)
{
	size_t have = 0;
	int ret = 0;

	for (size_t j = 0; j < c->s->nprocs; j++)
		if (has_memory(&c->s->procs[j]) && vma_overlaps(&c->s->procs[j].u->vmas, at, at + n * PAGE_SIZE_BYTES))
			read_frames(c->s->procs[j].pages.pagemap_fd, at, n, frames + have++ * WINDOW);
	for (size_t i = 0; have > 1 && i < n && ret == 0; i++) {
		uint64_t frame = most_frequent(frames + i, have, WINDOW, c->zero_frame);

		if (frame)
			ret = add_page(c, at + i * PAGE_SIZE_BYTES, frame);
	}
	return ret;
}

static int add_region(const struct pagemap_region *region, void *arg)
{
	return range_list_add(arg, region->start, region->end);
}

/* Where any process has pages of its own that may be common. Only these are looked at: address spaces are mostly empty, some reserve terabytes. */
static int find_present(struct common *c, struct range_list *ret)
{
	static const struct pagemap_query present = {
		.all_of = PAGE_CATEGORY_PRESENT | PAGE_CATEGORY_FILE | PAGE_CATEGORY_PFNZERO, .inverted = PAGE_CATEGORY_FILE | PAGE_CATEGORY_PFNZERO, .want = PAGE_CATEGORY_PRESENT,
	};
	int rc = 0;

	for (size_t k = 0; k < c->s->nprocs; k++) {
		const struct source_process *p = &c->s->procs[k];

		for (size_t i = 0; has_memory(p) && i < p->u->vmas.n && rc == 0; i++)
			if (vma_may_be_common(&p->u->vmas.v[i]))
				rc = pagemap_scan(p->pages.pagemap_fd, p->u->vmas.v[i].start, p->u->vmas.v[i].end, &present, add_region, ret, c->e);
	}
	range_list_join(ret, NEAR_BYTES);
	return rc;
}

static int find_pages(struct common *c)
{
	cleanup_free uint64_t *frames = calloc(c->s->nprocs * WINDOW, sizeof(*frames));
	struct range_list present = { 0 };
	int ret = frames ? find_present(c, &present) : -ENOMEM;

	for (size_t i = 0; i < present.n && ret == 0; i++)
		for (uint64_t at = present.v[i].start, n; at < present.v[i].end && ret == 0; at += n * PAGE_SIZE_BYTES) {
			n = MIN((present.v[i].end - at) / PAGE_SIZE_BYTES, (uint64_t)WINDOW);
			ret = compare_window(c, at, n, frames);
		}
	range_list_free(&present);
	return ret;
}

/* How many pages from i on follow each other, at most max. */
static size_t together(const struct common *c, size_t i, size_t max)
{
	size_t n = 1;

	while (n < max && i + n < c->n && c->v[i + n].address == c->v[i].address + n * PAGE_SIZE_BYTES)
		n++;
	return n;
}

/* The common pages that process p has now. */
static int pages_of(const struct common *c, const struct source_process *p, struct run_list *ret_list)
{
	uint64_t frames[WINDOW];
	int ret = 0;

	for (size_t i = 0, n; i < c->n && ret == 0; i += n) {
		n = together(c, i, WINDOW);
		read_frames(p->pages.pagemap_fd, c->v[i].address, n, frames);
		for (size_t k = 0; k < n && ret == 0; k++)
			if (c->v[i + k].frame && frames[k] == c->v[i + k].frame && pages_has(&p->pages, c->v[i + k].address))
				ret = run_list_add(ret_list, c->v[i + k].address, 1, 0);
	}
	return ret;
}

static int ignore_region(const struct pagemap_region *region, void *arg)
{
	(void)region;
	(void)arg;
	return 0;
}

/* From here on writes of p to what it has in common are seen. */
static int watch(const struct common *c, struct source_process *p, struct run_list *ret_armed)
{
	static const struct pagemap_query rearm = { .all_of = PAGE_CATEGORY_WRITTEN, .want = PAGE_CATEGORY_WRITTEN, .rearm = 1 };
	int ret = pages_of(c, p, ret_armed);

	if (ret == 0 && ret_armed->n)
		ret = pages_track(&p->pages, c->e);
	for (size_t i = 0; i < ret_armed->n && ret == 0; i++) {
		const struct page_run *r = &ret_armed->v[i];

		ret = pagemap_scan(p->pages.pagemap_fd, r->address, r->address + r->npages * PAGE_SIZE_BYTES, &rearm, ignore_region, NULL, NULL);
		/* Mapped anew right now: then it has the page no longer. */
		ret = ret == -EPERM ? 0 : ret;
	}
	return ret;
}

static int send_message(struct common *c, Gw__Content *m)
{
	cleanup_free uint8_t *packed = malloc(gw__content__get_packed_size(m) + 1);

	if (!packed)
		return -ENOMEM;
	c->s->content_bytes += m->data.len;
	return frame_send(c->s->link.control, FRAME_CONTENT, packed, gw__content__pack(m, packed), c->e);
}

/* Reads n pages from whoever still has all of them after the reading. (process_vm_readv(2) would pin them, and pinning makes the kernel copy shared pages.) */
static bool read_content(const struct common *c, size_t i, size_t n, uint8_t *to)
{
	for (size_t j = 0; j < c->s->nprocs; j++) {
		const struct source_process *p = &c->s->procs[j];
		uint64_t frames[BATCH_PAGES];
		size_t same = 0;

		if (!has_memory(p) || read_frames(p->pages.pagemap_fd, c->v[i].address, 1, frames) < 0 || frames[0] != c->v[i].frame)
			continue;
		if (pread(p->mem_fd, to, n * PAGE_SIZE_BYTES, (off_t)c->v[i].address) != (ssize_t)(n * PAGE_SIZE_BYTES))
			continue;
		read_frames(p->pages.pagemap_fd, c->v[i].address, n, frames);
		while (same < n && frames[same] && frames[same] == c->v[i + same].frame)
			same++;
		if (same == n)
			return true;
	}
	return false;
}

static int send_pages(struct common *c)
{
	static uint8_t data[BATCH_PAGES * PAGE_SIZE_BYTES];
	int ret = 0;

	for (size_t i = 0, n; i < c->n && ret == 0; i += n) {
		Gw__Content m = GW__CONTENT__INIT;

		n = together(c, i, BATCH_PAGES);
		if (!read_content(c, i, n, data)) {
			n = 1;
			if (!c->v[i].frame || !read_content(c, i, n, data)) {
				c->v[i].frame = 0;
				continue;
			}
		}
		m.common = GW__COMMON__PAGES;
		m.address = c->v[i].address;
		m.data = (ProtobufCBinaryData){ n * PAGE_SIZE_BYTES, data };
		ret = send_message(c, &m);
	}
	return ret;
}

static int send_runs(struct common *c, size_t process, const struct run_list *l)
{
	int ret = 0;

	for (size_t i = 0; i < l->n && ret == 0; i += RUNS_MAX) {
		Gw__Content m = GW__CONTENT__INIT;

		m.common = GW__COMMON__OF_PROCESS;
		m.process = (uint32_t)process;
		m.data = (ProtobufCBinaryData){ MIN(l->n - i, (size_t)RUNS_MAX) * sizeof(*l->v), (uint8_t *)&l->v[i] };
		ret = send_message(c, &m);
	}
	return ret;
}

/* What p still has is at the destination; what has been watched in vain is looked at in any case. */
static int settle(struct common *c, size_t process, const struct run_list *armed)
{
	struct source_process *p = &c->s->procs[process];
	int ret = pages_of(c, p, &p->common);
	uint64_t lazy = 0;

	for (size_t i = 0; i < p->common.n; i++) {
		pages_mark(&p->pages, p->common.v[i].address, p->common.v[i].npages);
		for (uint64_t k = 0; k < p->common.v[i].npages; k++)
			lazy += pages_is_lazy(&p->pages, p->common.v[i].address + k * PAGE_SIZE_BYTES);
	}
	for (size_t i = 0; i < armed->n && ret == 0; i++)
		for (uint64_t k = 0; k < armed->v[i].npages && ret == 0; k++) {
			uint64_t at = armed->v[i].address + k * PAGE_SIZE_BYTES;

			if (!pages_sent_bit(&p->pages, at))
				ret = range_list_add(&p->pages.forgotten, at, at + PAGE_SIZE_BYTES);
		}
	p->count.lazy -= MIN(p->count.lazy, lazy);
	return ret < 0 ? ret : send_runs(c, process, &p->common);
}

static int share(struct common *c)
{
	cleanup_free struct run_list *armed = calloc(c->s->nprocs, sizeof(*armed));
	int ret = armed ? 0 : -ENOMEM;

	for (size_t j = 0; j < c->s->nprocs && ret == 0; j++)
		if (has_memory(&c->s->procs[j]))
			ret = watch(c, &c->s->procs[j], &armed[j]);
	if (ret == 0)
		ret = send_pages(c);
	for (size_t j = 0; j < c->s->nprocs && ret == 0; j++)
		if (has_memory(&c->s->procs[j]))
			ret = settle(c, j, &armed[j]);
	for (size_t j = 0; armed && j < c->s->nprocs; j++)
		run_list_free(&armed[j]);
	return ret;
}

int source_send_common(struct source *s, struct err *e)
{
	struct common c = { .s = s, .zero_frame = find_zero_frame(), .e = e };
	int ret = 0;

	if (s->nprocs < 2)
		return 0;
	ret = find_pages(&c);
	if (ret == 0 && c.n)
		ret = share(&c);
	free(c.v);
	return ret < 0 && e && !e->code ? err_sys(e, ret, "pages that processes share") : ret;
}
