/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* decode.c - the messages of a migration: from untrusted bytes to checked values; see decode.h */
#include "migrate/decode.h"

#include <errno.h>
#include <sys/mman.h>

#include "agent/abi.h"
#include "base/util.h"
#include "migrate/migrate.h"
#include "migrate/registry.h"
#include "wire/hello.h"

#define TEXT_MAX 4096u

static bool printable(const char *text, size_t max)
{
	size_t len = strnlen(text, max);

	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return len < max;
}

/* --- offer --- */

static bool offer_plausible(const Gw__Offer *o)
{
	return o->n_threads && o->n_threads <= OFFER_THREADS_MAX && o->pid > 1 && o->strategy <= STRATEGY_COPY_ON_REFERENCE && o->scratch_base &&
	       o->scratch_base % PAGE_SIZE_BYTES == 0 && o->scratch_base < VMA_TASK_SIZE &&
	       printable(o->unit, sizeof(((struct registry_entry *)0)->unit)) && hello_name_valid(o->from);
}

static int decode_threads(const ProtobufCBinaryData *data, size_t n, Gw__Thread ***ret, size_t *ret_n, struct err *e)
{
	int code = 0;

	*ret_n = 0;
	*ret = calloc(n, sizeof(**ret));
	if (!*ret)
		return err_sys(e, ENOMEM, "threads");
	for (size_t i = 0; i < n && code >= 0; i++) {
		code = thread_decode(data[i].data, data[i].len, &(*ret)[i], e);
		*ret_n += code >= 0;
	}
	return code < 0 ? code : 0;
}

static void free_threads(Gw__Thread **threads, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gw__thread__free_unpacked(threads[i], NULL);
	free(threads);
}

int offer_decode(const void *data, size_t len, struct offer *ret, struct err *e)
{
	Gw__Offer *o = gw__offer__unpack(NULL, len, data);
	int code;

	*ret = (struct offer){ .msg = o };
	if (!o || !offer_plausible(o))
		return err_set(e, -EPROTO, "an offer that cannot be read");
	code = process_decode(o->process.data, o->process.len, true, &ret->process, e);
	if (code >= 0)
		code = decode_threads(o->threads, o->n_threads, &ret->threads, &ret->nthreads, e);
	if (code >= 0)
		code = fsfile_table_decode(o->files.data, o->files.len, &ret->files, e);
	if (code >= 0)
		code = vma_list_decode(o->vmas.data, o->vmas.len, ret->files.n, &ret->vmas, e);
	if (code >= 0)
		code = vdso_decode(o->vdso.data, o->vdso.len, &ret->vdso, e);
	if (code >= 0)
		code = mm_decode(o->mm.data, o->mm.len, ret->files.n, &ret->mm, e);
	if (code >= 0)
		code = fdtable_decode(o->fds.data, o->fds.len, ret->files.n, &ret->fds, e);
	if (code >= 0 && ret->threads[0]->tid != o->pid)
		code = err_set(e, -EPROTO, "the first thread of an offer is not the main one");
	if (code >= 0 && vma_find(&ret->vmas, o->scratch_base))
		code = err_set(e, -EPROTO, "an offer whose scratch lies in a mapping of the process");
	return code < 0 ? code : 0;
}

void offer_free(struct offer *o)
{
	if (o->msg)
		gw__offer__free_unpacked(o->msg, NULL);
	if (o->process)
		gw__process__free_unpacked(o->process, NULL);
	free_threads(o->threads, o->nthreads);
	fsfile_table_free(&o->files);
	vma_list_free(&o->vmas);
	if (o->fds)
		gw__fd_table__free_unpacked(o->fds, NULL);
	*o = (struct offer){ 0 };
}

/* --- go --- */

static int split_go(const uint8_t *payload, size_t len, struct go *ret, struct err *e)
{
	uint32_t msg_len;

	if (len < sizeof(msg_len))
		return err_set(e, -EPROTO, "a go message of %zu bytes", len);
	memcpy(&msg_len, payload, sizeof(msg_len));
	if (msg_len <= len - sizeof(msg_len))
		ret->msg = gw__go__unpack(NULL, msg_len, payload + sizeof(msg_len));
	if (!ret->msg)
		return err_set(e, -EPROTO, "a go message that cannot be read");
	ret->pages = payload + sizeof(msg_len) + msg_len;
	ret->npages = (len - sizeof(msg_len) - msg_len) / PAGE_SIZE_BYTES;
	return 0;
}

int go_decode(const uint8_t *payload, size_t len, const struct go_terms *terms, struct go *ret, struct err *e)
{
	const Gw__Go *go;
	int code;

	*ret = (struct go){ 0 };
	code = split_go(payload, len, ret, e);
	if (code < 0)
		return code;
	go = ret->msg;
	code = process_decode(go->process.data, go->process.len, false, &ret->process, e);
	if (code >= 0 && (!go->n_threads || go->n_threads > terms->threads_max))
		code = err_set(e, -EPROTO, "a go message with %zu threads", go->n_threads);
	if (code >= 0)
		code = decode_threads(go->threads, go->n_threads, &ret->threads, &ret->nthreads, e);
	if (code >= 0 && ret->threads[0]->tid != terms->pid)
		code = err_set(e, -EPROTO, "the go message is of another process");
	if (code >= 0)
		code = fdtable_decode(go->fds.data, go->fds.len, terms->n_files, &ret->fds, e);
	if (code >= 0)
		code = fdtable_validate_update(terms->fds, ret->fds, e);
	if (code >= 0)
		code = mm_decode(go->mm.data, go->mm.len, terms->n_files, &ret->mm, e);
	return code < 0 ? code : 0;
}

void go_free(struct go *g)
{
	if (g->msg)
		gw__go__free_unpacked(g->msg, NULL);
	if (g->process)
		gw__process__free_unpacked(g->process, NULL);
	free_threads(g->threads, g->nthreads);
	if (g->fds)
		gw__fd_table__free_unpacked(g->fds, NULL);
	*g = (struct go){ 0 };
}

/* Counts the pages of runs that lie in mappings with content; false when one does not. */
static bool runs_inside(const struct vma_list *l, const ProtobufCBinaryData *runs, uint64_t *ret_pages)
{
	struct page_run r;

	*ret_pages = 0;
	if (runs->len % sizeof(r))
		return false;
	for (size_t i = 0; i < runs->len; i += sizeof(r)) {
		uint64_t at, end;

		memcpy(&r, runs->data + i, sizeof(r));
		at = r.address;
		if (at % PAGE_SIZE_BYTES || !r.npages || at >= VMA_TASK_SIZE || r.npages > (VMA_TASK_SIZE - at) / PAGE_SIZE_BYTES)
			return false;
		end = at + (uint64_t)r.npages * PAGE_SIZE_BYTES;
		*ret_pages += r.npages;
		while (at < end) {
			const struct vma *v = vma_find(l, at);

			if (!v || v->content == VMA_CONTENT_NONE)
				return false;
			at = v->end;
		}
	}
	return true;
}

int go_check_pages(const struct go *g, const struct vma_list *l, struct err *e)
{
	uint64_t stale, pages;

	if (!runs_inside(l, &g->msg->stale, &stale) || !runs_inside(l, &g->msg->runs, &pages))
		return err_set(e, -EPROTO, "pages outside of the process");
	return pages > g->npages ? err_set(e, -EPROTO, "a go message with fewer pages than it says") : 0;
}

/* --- content, rounds --- */

int content_decode(const void *data, size_t len, const struct fsfile_answer *answers, uint32_t n_files, Gw__Content **ret, struct err *e)
{
	Gw__Content *c = gw__content__unpack(NULL, len, data);

	if (!c)
		return err_set(e, -EPROTO, "file content that cannot be read");
	if (!c->last && (c->file >= n_files || !fsfile_answer_lacks(&answers[c->file]))) {
		gw__content__free_unpacked(c, NULL);
		return err_set(e, -EPROTO, "file content that was not asked for");
	}
	if (c->mlock_future && c->mlock_future != MCL_FUTURE && c->mlock_future != (MCL_FUTURE | MCL_ONFAULT)) {
		gw__content__free_unpacked(c, NULL);
		return err_set(e, -EPROTO, "flags of mlockall that cannot be");
	}
	*ret = c;
	return 0;
}

int content_ranges(const Gw__Content *c, struct range_list *ret, struct err *e)
{
	struct range r;
	uint64_t before = 0;

	if (c->lazy_ranges.len % sizeof(r))
		return err_set(e, -EPROTO, "ranges that cannot be read");
	for (size_t i = 0; i < c->lazy_ranges.len; i += sizeof(r)) {
		memcpy(&r, c->lazy_ranges.data + i, sizeof(r));
		if (r.start < before || r.start >= r.end || r.end > VMA_TASK_SIZE || (r.start | r.end) % PAGE_SIZE_BYTES)
			return err_set(e, -EPROTO, "a range that cannot be");
		before = r.end;
		if (range_list_add(ret, r.start, r.end) < 0)
			return err_sys(e, ENOMEM, "ranges");
	}
	return 0;
}

int files_decode(const void *data, size_t len, uint32_t n_files, struct file_news *ret, struct err *e)
{
	Gw__FileSync *m = gw__file_sync__unpack(NULL, len, data);
	int code;

	*ret = (struct file_news){ .msg = m };
	if (!m)
		return err_set(e, -EPROTO, "news of files that cannot be read");
	code = fsfile_table_decode(m->added.data, m->added.len, &ret->added, e);
	if (code == 0)
		code = fsfile_table_decode(m->values.data, m->values.len, &ret->values, e);
	if (code == 0 && (ret->values.n != m->n_changed || ret->added.n > FSFILE_MAX - MIN(n_files, FSFILE_MAX)))
		code = err_set(e, -EPROTO, "news of %u files and %zu changes", ret->added.n, m->n_changed);
	for (size_t i = 0; i < m->n_changed && code == 0; i++)
		if (m->changed[i] >= n_files)
			code = err_set(e, -EPROTO, "a change of file %u, which there is not", m->changed[i]);
	for (size_t i = 0; i < m->n_content && code == 0; i++)
		if (m->content[i]->last || m->content[i]->file >= n_files + ret->added.n)
			code = err_set(e, -EPROTO, "content of file %u, which there is not", m->content[i]->file);
	for (size_t i = 0; i < m->n_filled && code == 0; i++)
		if (m->filled[i] < n_files || m->filled[i] >= n_files + ret->added.n)
			code = err_set(e, -EPROTO, "file %u is not new", m->filled[i]);
	return code;
}

void file_news_free(struct file_news *n)
{
	if (n->msg)
		gw__file_sync__free_unpacked(n->msg, NULL);
	fsfile_table_free(&n->added);
	fsfile_table_free(&n->values);
	*n = (struct file_news){ 0 };
}

int round_decode(const void *data, size_t len, uint32_t n_files, struct vma_list *ret_vmas, bool *ret_changed, bool *ret_over, struct err *e)
{
	Gw__Round *round = gw__round__unpack(NULL, len, data);
	int code = 0;

	if (!round)
		return err_set(e, -EPROTO, "a round that cannot be read");
	*ret_changed = round->vmas.len > 0;
	if (*ret_changed)
		code = vma_list_decode(round->vmas.data, round->vmas.len, n_files, ret_vmas, e);
	*ret_over = round->over;
	gw__round__free_unpacked(round, NULL);
	return code;
}

/* --- the source's side --- */

int accept_decode(const void *data, size_t len, uint32_t n_files, struct fsfile_answer **ret, struct err *e)
{
	Gw__Accept *accept = gw__accept__unpack(NULL, len, data);
	int code;

	if (!accept)
		return err_set(e, -EPROTO, "an answer to the offer that cannot be read");
	code = fsfile_answers_decode(accept->answers.data, accept->answers.len, n_files, ret, e);
	gw__accept__free_unpacked(accept, NULL);
	return code;
}

/* These sentences go to a terminal: no control characters, and not without end. */
static char *tame(char *text)
{
	size_t i;

	for (i = 0; i < TEXT_MAX && text[i]; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			text[i] = '?';
	if (text[i])
		text[i] = 0;
	return text;
}

int refuse_decode(const void *data, size_t len, struct refusals *refusals, struct err *e)
{
	Gw__Refuse *refuse = gw__refuse__unpack(NULL, len, data);
	size_t n = refuse ? refuse->n_reasons : 0;

	for (size_t i = 0; i < n && n <= REFUSE_REASONS_MAX; i++) {
		Gw__RefusalReason *r = refuse->reasons[i];

		refusals_add(refusals, tame(r->code), tame(r->cause), tame(r->way_out), "%s", tame(r->thing));
	}
	if (refuse)
		gw__refuse__free_unpacked(refuse, NULL);
	return n && n <= REFUSE_REASONS_MAX ? 0 : err_set(e, -EPROTO, "a refusal that cannot be read");
}
