/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image_core.c - what a core file is to have, and the file; see image_core.h
 *
 * Theory of operation: the image is read twice. The first time says which process it is of, how its memory was laid out in the end, and which pages of file mappings it had written to:
 * with that every address has its place in the file. The second time all pages are written there in the order in which they were sent, so that what
 * came last remains, as at a destination; where files in memory are mapped their contents follow. Headers and notes come last. What has never been sent is a hole in the file: zeros.
 */
#include "migrate/image_core.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agent/abi.h"
#include "base/util.h"
#include "wire/archive_chain.h"
#include "image.pb-c.h"
#include "migrate/image_core_internal.h"
#include "wire/frame.h"

#define THREADS_SPARE 65536u /* the image has been accepted by its writer: any number of them */

/* --- files --- */

static int grow_answers(struct core *c, uint32_t n, struct err *e)
{
	struct fsfile_answer *grown = realloc(c->answers, (n + 1) * sizeof(*grown));

	if (!grown)
		return err_sys(e, -ENOMEM, "files");
	c->answers = grown;
	for (; c->nfiles < n; c->nfiles++)
		c->answers[c->nfiles] = FSFILE_ANSWER_INIT;
	return 0;
}

static int take_answers(struct core *c, const struct archive_record *r, struct err *e)
{
	uint32_t n = c->offer.files.n - c->nfiles, first = c->nfiles;
	struct fsfile_answer *more = NULL;
	int ret = accept_decode(r->data, r->len, n, &more, e);

	if (ret == 0)
		ret = grow_answers(c, c->offer.files.n, e);
	if (ret == 0)
		memcpy(c->answers + first, more, n * sizeof(*more));
	free(more);
	return ret;
}

static int take_files(struct core *c, const struct archive_record *r, struct err *e)
{
	struct fsfile_table *t = &c->offer.files;
	uint32_t before = t->n;
	struct file_news news;
	struct fsfile *grown;
	int ret = files_decode(r->data, r->len, before, &news, e);

	if (ret == 0) {
		grown = realloc(t->v, (t->n + news.added.n + 1) * sizeof(*grown));
		ret = grown ? 0 : err_sys(e, -ENOMEM, "files");
	}
	if (ret == 0) {
		t->v = grown;
		if (news.added.n)
			memcpy(t->v + t->n, news.added.v, news.added.n * sizeof(*grown));
		t->n += news.added.n;
		free(news.added.v);
		news.added = (struct fsfile_table){ 0 };
	}
	/* In the freeze nobody was asked: the source said which ones it sends. */
	if (ret == 0 && (r->stream == ARCHIVE_GO || news.msg->n_filled))
		ret = grow_answers(c, t->n, e);
	for (size_t i = 0; ret == 0 && i < news.msg->n_filled; i++)
		c->answers[news.msg->filled[i]].verdict = FSFILE_TEMP;
	file_news_free(&news);
	return ret;
}

bool core_has_file(const struct core *c, const struct vma *v)
{
	return v->file >= 0 && (uint32_t)v->file < c->nfiles && fsfile_answer_lacks(&c->answers[v->file]);
}

/* --- which process --- */

static int name_all(const struct core *c, pid_t pid, struct err *e)
{
	char list[ERR_MESSAGE_MAX / 2] = "";
	size_t len = 0;

	for (size_t i = 0; i < c->offer.nprocs && len + 16 < sizeof(list); i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%d", i ? ", " : "", c->offer.procs[i].msg->pid);
	if (pid)
		return err_set(e, -EINVAL, "%s: there is no process %d in it; it has %s", c->image, (int)pid, list);
	return err_set(e, -EINVAL, "%s: it has several processes: say which one with --pid (%s)", c->image, list);
}

static size_t memory_of(const struct core *c, pid_t pid)
{
	const struct tree *t = &c->offer.tree;
	uint32_t at = tree_find(t, pid);

	for (size_t i = 0; at != TREE_NONE && i < c->offer.nprocs; i++)
		if (c->offer.procs[i].msg->pid == t->v[t->v[at].memory].pid)
			return i;
	return SIZE_MAX;
}

static int choose(struct core *c, pid_t pid, struct err *e)
{
	size_t i = 0;

	while (pid && i < c->offer.nprocs && c->offer.procs[i].msg->pid != pid)
		i++;
	if (i == c->offer.nprocs || (!pid && c->offer.nprocs > 1))
		return name_all(c, pid, e);
	c->process = i;
	c->memory = memory_of(c, c->offer.procs[i].msg->pid);
	return c->memory == SIZE_MAX ? err_set(e, -EBADMSG, "%s: a process without memory", c->image) : 0;
}

/* --- the first reading --- */

/* What is another mapping than before has none of what was there. */
static bool same_object(const struct vma *a, const struct vma *b)
{
	return a->kind == b->kind && a->file == b->file && a->content == b->content && (a->file < 0 || a->start - a->offset == b->start - b->offset);
}

static int forget_replaced(struct core *c, const struct vma_list *new, struct err *e)
{
	int ret = 0;

	for (size_t i = 0, k = 0; i < new->n && ret == 0; i++) {
		const struct vma *w = &new->v[i];
		uint64_t at = w->start;

		while (k < c->layout.n && c->layout.v[k].end <= at)
			k++;
		for (size_t o = k; at < w->end && ret == 0; o++) {
			const struct vma *v = o < c->layout.n && c->layout.v[o].start < w->end ? &c->layout.v[o] : NULL;
			uint64_t stop = v ? MAX(v->start, at) : w->end;

			if (at < stop)
				ret = core_put(c, at, NULL, stop - at, e);
			at = v ? MIN(MAX(v->end, at), w->end) : w->end;
			if (v && ret == 0 && stop < at && !same_object(v, w))
				ret = core_put(c, stop, NULL, at - stop, e);
		}
	}
	return ret;
}

int core_take_layout(struct core *c, const void *data, size_t len, struct err *e)
{
	struct vma_list new = { 0 };
	int ret = vma_list_decode(data, len, c->offer.files.n, &new, e);

	if (ret < 0)
		return ret;
	vma_list_apply_answers(&new, c->answers, c->nfiles);
	ret = c->fd >= 0 ? forget_replaced(c, &new, e) : 0;
	vma_list_free(&c->layout);
	c->layout = new;
	return ret;
}

static int note_pages(struct core *c, uint64_t start, uint64_t pages, struct err *e)
{
	const struct vma *v = vma_find(&c->layout, start);
	uint64_t end;

	if (pages > (VMA_TASK_SIZE - MIN(start, VMA_TASK_SIZE)) / PAGE_SIZE_BYTES || start % PAGE_SIZE_BYTES)
		return err_set(e, -EBADMSG, "%s: pages outside of a process", c->image);
	end = start + pages * PAGE_SIZE_BYTES;
	/* Only of these it matters which pages there are. */
	if (v && v->content == VMA_CONTENT_ANON && end <= v->end)
		return 0;
	return range_list_add(&c->pages, start, end) < 0 ? err_sys(e, -ENOMEM, "pages") : 0;
}

int core_read_frame(const struct core *c, const struct archive_record *r, size_t at, struct page_frame *ret, struct err *e)
{
	size_t left = r->len - at;

	if (left >= sizeof(*ret))
		memcpy(ret, r->data + at, sizeof(*ret));
	if (left < sizeof(*ret) || ret->magic != STREAM_MAGIC || ret->nruns > STREAM_RUNS_MAX || ret->npages > STREAM_PAGES_MAX ||
	    left - sizeof(*ret) < ret->nruns * sizeof(struct page_run) + ret->npages * PAGE_SIZE_BYTES)
		return err_set(e, -EBADMSG, "%s: pages that cannot be read", c->image);
	return 0;
}

static int note_stream(struct core *c, const struct archive_record *r, struct err *e)
{
	size_t at = 0;
	int ret = 0;

	while (at < r->len && ret == 0) {
		struct page_frame f;
		size_t runs = at + sizeof(f);

		ret = core_read_frame(c, r, at, &f, e);
		if (ret < 0)
			return ret;
		for (uint32_t i = 0; i < f.nruns && ret == 0; i++) {
			struct page_run run;

			memcpy(&run, r->data + runs + i * sizeof(run), sizeof(run));
			ret = note_pages(c, run.address, run.npages, e);
		}
		at = runs + f.nruns * sizeof(struct page_run) + f.npages * PAGE_SIZE_BYTES;
	}
	return ret;
}

static int note_runs(struct core *c, const ProtobufCBinaryData *runs, struct err *e)
{
	struct page_run run;
	int ret = 0;

	for (size_t i = 0; i + sizeof(run) <= runs->len && ret == 0; i += sizeof(run)) {
		memcpy(&run, runs->data + i, sizeof(run));
		ret = note_pages(c, run.address, run.npages, e);
	}
	return ret;
}

static int take_offer(struct core *c, const struct archive_record *r, pid_t pid, struct err *e)
{
	int ret = offer_decode(r->data, r->len, &c->offer, e);

	if (ret == 0)
		ret = choose(c, pid, e);
	return ret < 0 ? ret : core_take_layout(c, c->offer.msg->processes[c->memory]->vmas.data, c->offer.msg->processes[c->memory]->vmas.len, e);
}

int core_take_round(struct core *c, const struct archive_record *r, struct err *e)
{
	struct round_news news;
	int ret = round_decode(r->data, r->len, c->offer.files.n, c->offer.nprocs, &news, e);

	for (size_t i = 0; i < news.n && ret == 0; i++)
		if (news.msg->layouts[i]->process == c->memory)
			ret = core_take_layout(c, news.msg->layouts[i]->vmas.data, news.msg->layouts[i]->vmas.len, e);
	round_news_free(&news);
	return ret;
}

static int take_content(struct core *c, const struct archive_record *r, struct err *e)
{
	Gw__Content *m = gw__content__unpack(NULL, r->len, r->data);
	struct page_run run;
	int ret = m ? 0 : err_set(e, -EBADMSG, "%s: contents that cannot be read", c->image);

	if (m && m->common == GW__COMMON__OF_PROCESS && m->process == c->memory)
		for (size_t i = 0; i + sizeof(run) <= m->data.len && ret == 0; i += sizeof(run)) {
			memcpy(&run, m->data.data + i, sizeof(run));
			ret = note_pages(c, run.address, run.npages, e);
			if (ret == 0 && range_list_add(&c->common, run.address, run.address + run.npages * PAGE_SIZE_BYTES) < 0)
				ret = err_sys(e, -ENOMEM, "pages");
		}
	if (m)
		gw__content__free_unpacked(m, NULL);
	return ret;
}

static int take_go(struct core *c, const struct archive_record *r, struct err *e)
{
	const struct go_terms terms = { c->offer.procs, c->offer.nprocs, THREADS_SPARE, c->offer.files.n, c->offer.fds };
	const Gw__GoProcess *m;
	int ret;

	c->payload = malloc(r->len + 1);
	if (!c->payload)
		return err_sys(e, -ENOMEM, "the go message");
	memcpy(c->payload, r->data, r->len);
	c->payload_len = r->len;
	c->gone = true;
	ret = go_decode(c->payload, c->payload_len, &terms, &c->go, e);
	if (ret < 0)
		return ret;
	m = c->go.procs[c->memory].msg;
	if (m->vmas.len)
		ret = core_take_layout(c, m->vmas.data, m->vmas.len, e);
	if (ret == 0)
		ret = go_check_pages(&c->go.procs[c->memory], &c->layout, e);
	return ret < 0 ? ret : note_runs(c, &m->runs, e);
}

static int take_frame(struct core *c, const struct archive_record *r, pid_t pid, struct err *e)
{
	if (r->type == FRAME_OFFER && !c->offer.msg)
		return take_offer(c, r, pid, e);
	if (!c->offer.msg || c->gone)
		return err_set(e, -EBADMSG, "%s: frames of the image are out of order", c->image);
	if (r->type == FRAME_FILES)
		return take_files(c, r, e);
	if (r->type == FRAME_ROUND)
		return core_take_round(c, r, e);
	if (r->type == FRAME_CONTENT)
		return take_content(c, r, e);
	return r->type == FRAME_GO && r->stream == ARCHIVE_GO ? take_go(c, r, e) : 0;
}

static int read_first(struct core *c, pid_t pid, struct err *e)
{
	struct archive_record r;
	int ret;

	while ((ret = archive_next(c->archive, true, &r, e)) > 0) {
		ret = 0;
		if (r.kind == ARCHIVE_FRAME)
			ret = take_frame(c, &r, pid, e);
		else if (r.kind == ARCHIVE_ANSWERS && c->offer.msg)
			ret = take_answers(c, &r, e);
		else if (r.kind == ARCHIVE_PAGES && c->offer.msg && r.stream == c->memory)
			ret = note_stream(c, &r, e);
		if (ret < 0)
			return ret;
	}
	return ret < 0 || c->gone ? ret : err_set(e, -EBADMSG, "%s: it does not say what it is of", c->image);
}

/* --- the file --- */

static int make_file(struct core *c, const char *path, char *temporary, size_t size, struct err *e)
{
	if (snprintf(temporary, size, "%s.XXXXXX", path) >= (int)size)
		return err_set(e, -ENAMETOOLONG, "%s", path);
	c->fd = mkostemp(temporary, O_CLOEXEC);
	if (c->fd < 0)
		return err_sys(e, -errno, "%s", temporary);
	if (ftruncate(c->fd, (off_t)c->end) < 0)
		return err_sys(e, -errno, "%s: a file of %llu bytes, with holes", path, (unsigned long long)c->end);
	return 0;
}

static int fill_file(struct core *c, struct err *e)
{
	int ret = archive_rewind(c->archive, e);

	if (ret == 0)
		ret = core_write_memory(c, e);
	return ret < 0 ? ret : core_write_head(c, e);
}

static void say_made(const struct core *c, struct core_made *ret)
{
	struct stat st;

	ret->pid = c->offer.procs[c->process].msg->pid;
	ret->threads = (uint32_t)c->go.procs[c->process].nthreads;
	ret->mappings = (uint32_t)c->last.n;
	for (size_t i = 0; i < c->nsegments; i++)
		ret->memory_bytes += c->segments[i].contents ? c->segments[i].end - c->segments[i].start : 0;
	if (fstat(c->fd, &st) == 0)
		ret->file_bytes = (uint64_t)st.st_blocks * 512;
}

static int write_file(struct core *c, const char *out, struct core_made *ret, struct err *e)
{
	char temporary[sizeof(ret->path) + 8];
	int code = core_plan(c, e);

	if (out)
		snprintf(ret->path, sizeof(ret->path), "%s", out);
	else
		snprintf(ret->path, sizeof(ret->path), "core.%d", c->offer.procs[c->process].msg->pid);
	if (code < 0)
		return code;
	code = make_file(c, ret->path, temporary, sizeof(temporary), e);
	if (code == 0)
		code = fill_file(c, e);
	if (code == 0 && rename(temporary, ret->path) < 0)
		code = err_sys(e, -errno, "%s", ret->path);
	if (code == 0)
		say_made(c, ret);
	else if (c->fd >= 0)
		unlink(temporary);
	return code;
}

int image_core(const char *image, const struct archive_key *key, pid_t pid, const char *out, struct core_made *ret, struct err *e)
{
	struct core c = { .image = image, .fd = -1 };
	char path[PATH_MAX];
	int code = archive_newest(image, path, e);

	*ret = (struct core_made){ 0 };
	if (code == 0)
		code = archive_open(path, -1, key, &c.archive, e);
	if (code == 0)
		c.image = path;
	if (code == 0)
		code = read_first(&c, pid, e);
	if (code == 0)
		code = write_file(&c, out, ret, e);
	close_fdp(&c.fd);
	if (c.gone)
		go_free(&c.go);
	offer_free(&c.offer);
	vma_list_free(&c.layout);
	vma_list_free(&c.last);
	range_list_free(&c.common);
	range_list_free(&c.pages);
	free(c.answers);
	free(c.payload);
	free(c.segments);
	archive_close(c.archive);
	return code;
}
