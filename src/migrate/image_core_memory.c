/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* image_core_memory.c - memory of an image is written to a core file; see image_core.c */
#include <errno.h>
#include <fcntl.h>

#include "agent/abi.h"
#include "base/util.h"
#include "image.pb-c.h"
#include "migrate/ahead.h"
#include "migrate/image_core_internal.h"
#include "wire/frame.h"

/* --- the file --- */

/* The first segment that ends behind an address. */
static size_t find(const struct core *c, uint64_t address)
{
	size_t low = 0, high = c->nsegments;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (c->segments[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int write_at(struct core *c, const uint8_t *data, uint64_t len, uint64_t at, struct err *e)
{
	static const uint8_t zeros[64 * PAGE_SIZE_BYTES];
	uint64_t step = data ? len : MIN(len, sizeof(zeros));

	if (!data && fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len) == 0)
		return 0;
	while (len) {
		ssize_t n = pwrite(c->fd, data ? data : zeros, MIN(step, len), (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_sys(e, n ? -errno : -ENOSPC, "writing the core file");
		data = data ? data + n : NULL;
		at += (uint64_t)n;
		len -= (uint64_t)n;
		step = data ? len : step;
	}
	return 0;
}

int core_put(struct core *c, uint64_t address, const uint8_t *data, uint64_t len, struct err *e)
{
	uint64_t end = address + len;
	int ret = 0;

	for (size_t i = find(c, address); i < c->nsegments && c->segments[i].start < end && ret == 0; i++) {
		const struct core_segment *s = &c->segments[i];
		uint64_t from = MAX(address, s->start), to = MIN(end, s->end);

		if (s->contents)
			ret = write_at(c, data ? data + (from - address) : NULL, to - from, s->at + (from - s->start), e);
	}
	return ret;
}

bool core_read(const struct core *c, uint64_t address, void *to, size_t len)
{
	size_t i = find(c, address);
	const struct core_segment *s = &c->segments[i];

	return i < c->nsegments && s->contents && s->start <= address && len <= s->end - address &&
	       pread(c->fd, to, len, (off_t)(s->at + (address - s->start))) == (ssize_t)len;
}

/* --- pages --- */

static int put_run(struct core *c, const struct page_run *run, const uint8_t **pages, struct err *e)
{
	uint64_t len = run->npages * PAGE_SIZE_BYTES;
	const uint8_t *data = run->flags & RUN_ZERO ? NULL : *pages;

	if (data)
		*pages += len;
	return core_put(c, run->address, data, len, e);
}

static int put_stream(struct core *c, const struct archive_record *r, struct err *e)
{
	size_t at = 0;
	int ret = 0;

	while (at < r->len && ret == 0) {
		const uint8_t *pages;
		struct page_frame f;
		uint64_t left;

		ret = core_read_frame(c, r, at, &f, e);
		if (ret < 0)
			return ret;
		at += sizeof(f);
		pages = r->data + at + f.nruns * sizeof(struct page_run);
		left = f.npages;
		for (uint32_t i = 0; i < f.nruns && ret == 0; i++) {
			struct page_run run;

			memcpy(&run, r->data + at + i * sizeof(run), sizeof(run));
			if (!(run.flags & RUN_ZERO) && run.npages > left)
				return err_set(e, -EBADMSG, "%s: pages that cannot be read", c->image);
			left -= run.flags & RUN_ZERO ? 0 : run.npages;
			ret = put_run(c, &run, &pages, e);
		}
		at += f.nruns * sizeof(struct page_run) + f.npages * PAGE_SIZE_BYTES;
	}
	return ret;
}

static int put_ahead(struct core *c, const struct archive_record *r, struct err *e)
{
	struct ahead a;
	int ret = ahead_decode(r->data, r->len, (uint32_t)c->offer.nprocs, &a, e);

	for (uint32_t i = 0; ret == 0 && a.head.process == c->memory && i < a.head.npages; i++) {
		uint64_t address;

		memcpy(&address, a.addresses + i * sizeof(address), sizeof(address));
		ret = core_put(c, address, a.pages + i * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES, e);
	}
	return ret;
}

/* In the order of a destination: what is to be forgotten, differences, pages. */
static int put_go(struct core *c, struct err *e)
{
	const struct go_process *g = &c->go.procs[c->memory];
	const uint8_t *at = g->msg->deltas.data, *data, *pages = g->pages;
	size_t left = g->msg->deltas.len;
	struct page_run run;
	struct delta d;
	int ret = g->msg->vmas.len ? core_take_layout(c, g->msg->vmas.data, g->msg->vmas.len, e) : 0;

	for (size_t i = 0; i + sizeof(run) <= g->msg->stale.len && ret == 0; i += sizeof(run)) {
		memcpy(&run, g->msg->stale.data + i, sizeof(run));
		ret = core_put(c, run.address, NULL, run.npages * PAGE_SIZE_BYTES, e);
	}
	while (ret >= 0 && (ret = delta_next(&at, &left, &d, &data, e)) > 0)
		ret = core_put(c, d.address, data, d.len, e);
	for (size_t i = 0; i + sizeof(run) <= g->msg->runs.len && ret == 0; i += sizeof(run)) {
		memcpy(&run, g->msg->runs.data + i, sizeof(run));
		run.flags &= ~RUN_ZERO; /* here there are pages for all */
		ret = put_run(c, &run, &pages, e);
	}
	return ret;
}

/* Those that this process had, too, of the pages that were common to several. */
static int put_common(struct core *c, const struct archive_record *r, struct err *e)
{
	Gw__Content *m = gw__content__unpack(NULL, r->len, r->data);
	int ret = m ? 0 : err_set(e, -EBADMSG, "%s: contents that cannot be read", c->image);

	if (m && m->common == GW__COMMON__PAGES)
		for (size_t i = range_list_behind(&c->common, m->address); i < c->common.n && c->common.v[i].start < m->address + m->data.len && ret == 0; i++) {
			uint64_t from = MAX(m->address, c->common.v[i].start), to = MIN(m->address + m->data.len, c->common.v[i].end);

			ret = core_put(c, from, m->data.data + (from - m->address), to - from, e);
		}
	if (m)
		gw__content__free_unpacked(m, NULL);
	return ret;
}

static int put_record(struct core *c, const struct archive_record *r, struct err *e)
{
	const Gw__OfferProcess *offered = c->offer.msg->processes[c->memory];

	if (r->kind == ARCHIVE_PAGES && r->stream == c->memory)
		return put_stream(c, r, e);
	if (r->kind != ARCHIVE_FRAME)
		return 0;
	switch (r->type) {
	case FRAME_OFFER:
		return core_take_layout(c, offered->vmas.data, offered->vmas.len, e);
	case FRAME_ROUND:
		return core_take_round(c, r, e);
	case FRAME_CONTENT:
		return put_common(c, r, e);
	case FRAME_AHEAD:
		return put_ahead(c, r, e);
	case FRAME_GO:
		return put_go(c, e);
	default:
		return 0;
	}
}

/* --- files in memory --- */

/* What has been written to in a private mapping is not the file's any more. */
static int put_private(struct core *c, uint64_t address, const uint8_t *data, uint64_t len, struct err *e)
{
	uint64_t at = address, end = address + len;
	int ret = 0;

	for (size_t i = range_list_behind(&c->pages, at); at < end && ret == 0; i++) {
		uint64_t stop = i < c->pages.n ? MIN(MAX(c->pages.v[i].start, at), end) : end;

		if (at < stop)
			ret = core_put(c, at, data + (at - address), stop - at, e);
		at = i < c->pages.n ? MAX(c->pages.v[i].end, at) : end;
	}
	return ret;
}

static int put_content(struct core *c, const Gw__Content *m, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < c->last.n && ret == 0 && !m->common; i++) {
		const struct vma *v = &c->last.v[i];
		uint64_t from, to;

		if (v->file < 0 || (uint32_t)v->file != m->file || !core_has_file(c, v) || m->offset > UINT64_MAX - m->data.len)
			continue;
		from = MAX(m->offset, v->offset);
		to = MIN(m->offset + m->data.len, v->offset + (v->end - v->start));
		if (from >= to)
			continue;
		if (v->kind == VMA_FILE_PRIVATE)
			ret = put_private(c, v->start + (from - v->offset), m->data.data + (from - m->offset), to - from, e);
		else
			ret = core_put(c, v->start + (from - v->offset), m->data.data + (from - m->offset), to - from, e);
	}
	return ret;
}

static int put_contents(struct core *c, const struct archive_record *r, struct err *e)
{
	int ret = 0;

	if (r->type == FRAME_CONTENT) {
		Gw__Content *m = gw__content__unpack(NULL, r->len, r->data);

		ret = m ? put_content(c, m, e) : err_set(e, -EBADMSG, "%s: contents that cannot be read", c->image);
		if (m)
			gw__content__free_unpacked(m, NULL);
	} else if (r->type == FRAME_FILES) {
		Gw__FileSync *m = gw__file_sync__unpack(NULL, r->len, r->data);

		if (!m)
			return err_set(e, -EBADMSG, "%s: news of files that cannot be read", c->image);
		for (size_t i = 0; i < m->n_content && ret == 0; i++)
			ret = put_content(c, m->content[i], e);
		gw__file_sync__free_unpacked(m, NULL);
	}
	return ret;
}

static bool has_files(const struct core *c)
{
	for (size_t i = 0; i < c->last.n; i++)
		if (core_has_file(c, &c->last.v[i]))
			return true;
	return false;
}

static int each_record(struct core *c, int (*take)(struct core *, const struct archive_record *, struct err *), struct err *e)
{
	struct archive_record r;
	int ret = archive_rewind(c->archive, e);

	while (ret >= 0 && (ret = archive_next(c->archive, true, &r, e)) > 0)
		ret = take(c, &r, e);
	return ret;
}

static int put_file_record(struct core *c, const struct archive_record *r, struct err *e)
{
	return r->kind == ARCHIVE_FRAME ? put_contents(c, r, e) : 0;
}

/* Where this process has its own, if that is the very same one. 0: it is not, or that cannot be known (which needs privileges). */
static uint64_t find_same_vdso(const struct vdso *wanted)
{
	struct fsfile_table files = { 0 };
	struct refusals refusals = { 0 };
	struct vma_list here = { 0 };
	struct vdso own;
	uint64_t at = 0;

	if (vma_list_read(getpid(), &files, &refusals, &here, NULL) == 0 && vdso_read(getpid(), &here, &own, NULL) == 0 && vdso_compatible(wanted, &own, &refusals))
		for (size_t i = 0; i < here.n; i++)
			if (here.v[i].kind == VMA_VDSO)
				at = here.v[i].start;
	refusals_free(&refusals);
	vma_list_free(&here);
	fsfile_table_free(&files);
	return at;
}

/* The kernel's code is in no image. */
static int put_vdso(struct core *c, struct err *e)
{
	uint64_t here = find_same_vdso(&c->offer.procs[c->memory].vdso);

	for (size_t i = 0; i < c->last.n && here; i++)
		if (c->last.v[i].kind == VMA_VDSO)
			return core_put(c, c->last.v[i].start, (const uint8_t *)(uintptr_t)here, c->last.v[i].end - c->last.v[i].start, e);
	return 0;
}

int core_write_memory(struct core *c, struct err *e)
{
	int ret = each_record(c, put_record, e);

	if (ret == 0 && has_files(c))
		ret = each_record(c, put_file_record, e);
	return ret < 0 ? ret : put_vdso(c, e);
}
