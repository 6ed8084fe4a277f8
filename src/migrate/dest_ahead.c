/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_ahead.c - the working set that comes ahead of the go message, and its differences; see ahead.h
 *
 * Only pages that came ahead may have differences: they exist, so that writing to them does not wait for the pager, which does not run yet.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "base/util.h"
#include "kern/trace.h"
#include "migrate/dest.h"
#include "migrate/timeline.h"

#define IOVECS 256
#define TOUCHED_MAX 256u /* pages */
#define PLANNED_MAX (64ul << 10) /* bytes of differences that a thread writes by itself */

/*
 * The process writes some of what has come over what has come: the first access of an address space to a page is dear where a hypervisor keeps page tables of its own (20 us, of which
 * the guest's kernel sees nothing), and in the freeze the process writes the differences. Nothing depends on it.
 */
static void touch_ahead(struct dest_process *p, const struct ahead *a)
{
	const size_t each = sizeof(struct delta) + sizeof(uint64_t), n = MIN(p->nahead, (size_t)TOUCHED_MAX);
	struct batch *b = p->skeleton->threads[0]->batch;
	struct err unheard = ERR_INIT;
	uint64_t address;
	uint8_t *to = batch_space(b, n * each, &address);
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		const struct delta d = { .address = p->ahead[i], .len = sizeof(uint64_t) };

		if (!(vma_find(&p->vmas, p->ahead[i])->prot & PROT_WRITE))
			continue;
		memcpy(to + used, &d, sizeof(d));
		memcpy(to + used + sizeof(d), a->pages + i * PAGE_SIZE_BYTES, sizeof(uint64_t));
		used += each;
	}
	batch_call(b, "touching the working set", CALL_WRITE_DELTAS, address, used);
	batch_run(b, &unheard);
	batch_reset(b);
}

int dest_take_ahead(struct dest *d, const void *payload, size_t len, struct err *e)
{
	struct dest_process *p;
	struct ahead a;
	int ret = ahead_decode(payload, len, (uint32_t)d->nprocs, &a, e);

	if (ret < 0)
		return ret;
	p = &d->procs[a.head.process];
	if (p->ahead)
		return err_set(e, -EPROTO, "process %d: pages go ahead twice", p->pid);
	p->ahead = calloc(a.head.npages, sizeof(*p->ahead));
	if (!p->ahead)
		return err_sys(e, ENOMEM, "%u pages that go ahead", a.head.npages);
	memcpy(p->ahead, a.addresses, a.head.npages * sizeof(*p->ahead));
	for (; p->nahead < a.head.npages && ret == 0; p->nahead++) {
		const struct vma *v = vma_find(&p->vmas, p->ahead[p->nahead]);

		if (!v || v->content != VMA_CONTENT_ANON)
			return err_set(e, -EPROTO, "process %d: a page that goes ahead is outside of its memory", p->pid);
		ret = dest_install(p, v, p->ahead[p->nahead], a.pages + p->nahead * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES, e);
	}
	if (ret == 0)
		touch_ahead(p, &a);
	timeline_mark("working set touched");
	return ret;
}

static void leave_out_stale(struct dest_process *p)
{
	const struct page_run *r = (const struct page_run *)p->go->msg->stale.data;

	for (size_t i = 0; i < p->go->msg->stale.len / sizeof(*r) && p->nahead; i++)
		ahead_leave_out(p->ahead, p->nahead, r[i].address, r[i].address + (uint64_t)r[i].npages * PAGE_SIZE_BYTES);
}

/* Whether the page is there. */
static bool has_page(const struct dest_process *p, uint64_t page)
{
	const struct vma *v = vma_find(&p->vmas, page);

	return v && v->content == VMA_CONTENT_ANON && p->nahead && bsearch(&page, p->ahead, p->nahead, sizeof(*p->ahead), ahead_compare);
}

bool dest_has_ahead(const struct dest_process *p, uint64_t address)
{
	return has_page(p, PAGE_ALIGN_DOWN(address));
}

/* Differences on their way to the process. */
struct writing {
	struct iovec local[IOVECS], remote[IOVECS];
	size_t n, bytes;
};

/* All at once, or one after another where the program itself may not write. */
static int write_out(const struct dest_process *p, struct writing *w, struct err *e)
{
	int ret = 0;

	if (w->n && process_vm_writev(p->skeleton->pid, w->local, w->n, w->remote, w->n, 0) != (ssize_t)w->bytes)
		for (size_t i = 0; i < w->n && ret == 0; i++)
			ret = trace_poke(p->skeleton->mem_fd, (uint64_t)(uintptr_t)w->remote[i].iov_base, w->local[i].iov_base, w->local[i].iov_len, e);
	w->n = w->bytes = 0;
	return ret;
}

/* The kernel writes into a thread's area for rseq(2) from the moment on when it is registered: what has come for that must be there before. */
static int list_areas(struct dest_process *p, struct err *e)
{
	p->rseq_pages = calloc(2 * p->go->nthreads, sizeof(*p->rseq_pages));
	if (!p->rseq_pages)
		return err_sys(e, ENOMEM, "areas of restartable sequences");
	for (size_t i = 0; i < p->go->nthreads; i++) {
		const Gw__Thread *t = p->go->threads[i];

		if (!t->rseq)
			continue;
		p->rseq_pages[p->n_rseq_pages++] = PAGE_ALIGN_DOWN(t->rseq);
		p->rseq_pages[p->n_rseq_pages++] = PAGE_ALIGN_DOWN(t->rseq + t->rseq_len);
	}
	qsort(p->rseq_pages, p->n_rseq_pages, sizeof(*p->rseq_pages), ahead_compare);
	return 0;
}

/* Threads of guests have their areas in here, too. */
static bool has_area(const struct dest_process *p, uint64_t page)
{
	return p->has_guests || (p->n_rseq_pages && bsearch(&page, p->rseq_pages, p->n_rseq_pages, sizeof(page), ahead_compare));
}

static int apply(struct dest_process *p, bool areas, struct err *e)
{
	const uint8_t *at = p->go->msg->deltas.data, *data;
	size_t left = p->go->msg->deltas.len;
	uint64_t checked = 0;
	bool wanted = false;
	struct writing w;
	struct delta d;
	int ret;

	w.n = w.bytes = 0;
	while ((ret = delta_next(&at, &left, &d, &data, e)) > 0) {
		uint64_t page = PAGE_ALIGN_DOWN(d.address);

		if (page != checked)
			wanted = has_area(p, page) == areas;
		if (page != checked && wanted && !has_page(p, page))
			return err_set(e, -EPROTO, "process %d: a difference of a page that is not here", p->pid);
		checked = page;
		if (!wanted)
			continue;
		w.local[w.n] = (struct iovec){ (void *)(uintptr_t)data, d.len };
		w.remote[w.n++] = (struct iovec){ (void *)(uintptr_t)d.address, d.len };
		w.bytes += d.len;
		if (w.n == IOVECS && (ret = write_out(p, &w, e)) < 0)
			return ret;
	}
	return ret < 0 ? ret : write_out(p, &w, e);
}

int dest_apply_first_deltas(struct dest_process *p, struct err *e)
{
	int ret = p->go->msg->deltas.len ? list_areas(p, e) : 0;

	if (p->go->msg->deltas.len)
		leave_out_stale(p);
	return ret < 0 || (!p->has_guests && !p->n_rseq_pages) ? ret : apply(p, true, e);
}

int dest_apply_deltas(struct dest_process *p, struct err *e)
{
	return p->has_guests || p->deltas_planned ? 0 : apply(p, false, e); /* guests: then all have been */
}

/* Copies those outside of areas for rseq to `to`. Returns their length; 0 when one of them is where the program itself may not write. */
static int64_t gather(const struct dest_process *p, uint8_t *to, struct err *e)
{
	const uint8_t *at = p->go->msg->deltas.data, *data;
	size_t left = p->go->msg->deltas.len, used = 0;
	uint64_t checked = 0;
	bool wanted = false;
	struct delta d;
	int ret;

	while ((ret = delta_next(&at, &left, &d, &data, e)) > 0) {
		uint64_t page = PAGE_ALIGN_DOWN(d.address);

		if (page != checked)
			wanted = !has_area(p, page);
		if (page != checked && wanted && !has_page(p, page))
			return err_set(e, -EPROTO, "process %d: a difference of a page that is not here", p->pid);
		if (page != checked && wanted && !(vma_find(&p->vmas, page)->prot & PROT_WRITE))
			return 0;
		checked = page;
		if (!wanted)
			continue;
		memcpy(to + used, &d, sizeof(d));
		memcpy(to + used + sizeof(d), data, d.len);
		used += sizeof(d) + d.len;
	}
	return ret < 0 ? ret : (int64_t)used;
}

int dest_plan_deltas(struct dest_process *p, struct batch *b, struct err *e)
{
	size_t len = p->go->msg->deltas.len;
	uint64_t address;
	uint8_t *to;
	int64_t used;

	if (!len || len > PLANNED_MAX || p->has_guests)
		return 0;
	to = batch_space(b, len, &address);
	used = gather(p, to, e);
	if (used <= 0)
		return (int)used;
	batch_call(b, "differences of the working set", CALL_WRITE_DELTAS, address, (uint64_t)used);
	p->deltas_planned = true;
	return 0;
}
