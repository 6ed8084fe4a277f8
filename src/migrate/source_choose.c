/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_choose.c - which pages go with the registers, and reading them
 *
 * Those without which the first instructions could not run: around the stack pointers, thread-local storage, what registers and interrupted calls point to; the working set; and
 * what the destination has in an older version. With strategies that leave nothing behind all that is left goes, in the message or over the bulk connection.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/util.h"
#include "image/restart.h"
#include "migrate/source.h"

#define FREEZE_STALL_MS 3000 /* the process may not stand still because the destination takes no more pages */
#define PRECOPY_GO_PAGES_MAX 512u
#define FDS_MAX 65536u /* of one poll call */
#define ARGUMENT_PAGES 2u
#define IOVECS 512 /* of one process_vm_readv */
#define FLIGHT_BYTES_MAX (16u << 20)
#define HOT_THREADS 8u /* with more threads than this only stack and TLS pages of each travel with the registers */

bool source_page_may_go(struct source_process *p, uint64_t address)
{
	const struct vma_list *l = source_layout(p);
	const struct vma *v = vma_find(l, address);
	size_t guard = range_list_behind(&l->guards, address);

	if (!v || v->content != VMA_CONTENT_ANON || !(v->prot & PROT_READ))
		return false;
	return guard == l->guards.n || address < l->guards.v[guard].start;
}

/* A page that does not exist reads as zeros: sending those is right, too. */
static int want_page(struct source_process *p, uint64_t address, struct run_list *list)
{
	uint64_t page = PAGE_ALIGN_DOWN(address);

	if (!source_page_may_go(p, page) || !pages_is_lazy(&p->pages, page) || pages_sent_bit(&p->pages, page))
		return 0;
	pages_mark(&p->pages, page, 1);
	return run_list_add(list, page, 1, 0);
}

/*
 * What an interrupted call points at: the destination issues such calls anew, or writes the time that remains, before the commit, when no page can be
 * asked for. A structure may lie across two pages.
 */
static int want_call_pages(struct source_process *p, const Gw__Thread *t, const struct user_regs_struct *r, struct run_list *list)
{
	const uint64_t args[] = { r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9 };
	uint64_t fds_end = r->rdi + MIN(r->rsi, FDS_MAX) * sizeof(struct pollfd);
	bool polls = r->orig_rax == SYS_poll || r->orig_rax == SYS_ppoll || r->orig_rax == SYS_restart_syscall;
	int ret = 0;

	if (!t->restart || t->restart->kind == GW__RESTART__KIND__NONE)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(args) && ret == 0; i++) {
		ret = want_page(p, args[i], list);
		if (ret == 0)
			ret = want_page(p, args[i] + sizeof(struct timespec) - 1, list);
	}
	for (uint64_t at = r->rsp - PARTIAL_FRAME_BYTES - 256; t->restart->kind == GW__RESTART__KIND__PARTIAL && at < r->rsp && ret == 0; at += PAGE_SIZE_BYTES)
		ret = want_page(p, at, list);
	for (uint64_t at = PAGE_ALIGN_DOWN(r->rdi); polls && at < fds_end && ret == 0; at += PAGE_SIZE_BYTES)
		ret = want_page(p, at, list);
	return ret;
}

static int want_thread_pages(struct source_process *p, const Gw__Thread *t, bool few, struct run_list *list)
{
	struct user_regs_struct r;
	int ret = 0;

	memcpy(&r, t->regs.data, sizeof(r));
	const uint64_t first[] = { r.rsp, r.rsp - 128, r.rsp - 256, r.rsp + PAGE_SIZE_BYTES, r.fs_base, r.fs_base - 64, t->rseq, t->rseq + 31 };
	const uint64_t pointed[] = { r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.gs_base };

	for (size_t i = 0; i < ARRAY_SIZE(first) && ret == 0; i++)
		ret = want_page(p, first[i], list);
	for (size_t i = 0; i < ARRAY_SIZE(pointed) && few && ret == 0; i++)
		ret = want_page(p, pointed[i], list);
	if (ret == 0)
		ret = want_call_pages(p, t, &r, list);
	return ret;
}

/* /proc/PID/cmdline reads empty, and ps shows no command, while these pages are missing: the kernel does not wait for them there. */
static int want_argument_pages(struct source_process *p, struct run_list *list)
{
	const struct mm_fields *m = &p->u->mm;
	uint64_t at = PAGE_ALIGN_DOWN(m->arg_start);
	int ret = 0;

	for (unsigned n = 0; n < ARGUMENT_PAGES && at < m->arg_end && ret == 0; n++, at += PAGE_SIZE_BYTES)
		ret = want_page(p, at, list);
	return ret;
}

/* The destination's kernel pins registered buffers before the commit, when no page can be asked for. */
static int want_pinned_pages(struct source_process *p, struct run_list *list)
{
	int ret = 0;

	for (size_t i = 0; i < p->process->n_urings; i++)
		for (size_t k = 0; k < p->process->urings[i]->n_buffers; k++) {
			const Gw__UringSlot *slot = p->process->urings[i]->buffers[k];
			uint64_t end = slot->address + slot->len;

			for (uint64_t at = PAGE_ALIGN_DOWN(slot->address); at < end && ret == 0; at += PAGE_SIZE_BYTES)
				ret = want_page(p, at, list);
		}
	return ret;
}

/* Requests in flight may end as soon as they are submitted again, before the commit. */
static int want_flight_pages(struct source_process *p, struct run_list *list, struct err *e)
{
	uint64_t bytes = 0;
	int ret = 0;

	for (size_t i = 0; i < p->process->n_urings; i++)
		for (size_t k = 0; k < p->process->urings[i]->n_requests && ret == 0; k++) {
			const Gw__UringRequest *r = p->process->urings[i]->requests[k];
			uint64_t end = r->address + r->len;

			bytes += r->len;
			if (bytes > FLIGHT_BYTES_MAX)
				return err_set(e, -EAGAIN, "process %d: requests of io_uring in flight with more than %u bytes; --strategy=pre-copy has no such limit", p->u->pid,
					       FLIGHT_BYTES_MAX);
			for (uint64_t at = PAGE_ALIGN_DOWN(r->address); r->len && at < end && ret == 0; at += PAGE_SIZE_BYTES)
				ret = want_page(p, at, list);
			if (ret == 0 && r->opcode == IORING_OP_ACCEPT)
				ret = want_page(p, r->address, list);
			if (ret == 0 && r->opcode == IORING_OP_ACCEPT)
				ret = want_page(p, r->address + sizeof(struct sockaddr_storage), list);
			if (ret == 0 && r->opcode == IORING_OP_ACCEPT)
				ret = want_page(p, r->address2, list);
		}
	return ret;
}

/* A working set found before the freeze, as long as there is room. */
static int want_hot_pages(struct source_process *p, struct run_list *list)
{
	int ret = 0;

	for (size_t i = 0; i < p->hot.n && ret == 0; i++)
		for (uint32_t k = 0; k < p->hot.v[i].npages && ret == 0 && list->pages < HOT_PAGES_MAX; k++)
			ret = want_page(p, p->hot.v[i].address + k * PAGE_SIZE_BYTES, list);
	return ret;
}

static bool all_ahead(const struct source_process *p, const struct page_run *r)
{
	for (uint64_t k = 0; k < r->npages; k++)
		if (!source_is_ahead(p, r->address + k * PAGE_SIZE_BYTES))
			return false;
	return true;
}

/* Lazy pages that the destination has in an older version: some travel now, of the others it is told to forget its copy. */
static int treat_stale(struct source_process *p, struct run_list *stale, struct run_list *list)
{
	int ret = 0;

	for (size_t i = 0; i < stale->n && ret == 0; i++) {
		const struct page_run *r = &stale->v[i];

		if (!(r->flags & RUN_ZERO) && all_ahead(p, r)) {
			pages_mark(&p->pages, r->address, r->npages);
			continue;
		}
		if (r->flags & RUN_ZERO || list->pages + r->npages > GO_PAGES_MAX) {
			ret = run_list_add(&p->stale, r->address, r->npages, 0);
			pages_unmark(&p->pages, r->address, r->npages); /* it may have gone ahead since */
			continue;
		}
		ret = run_list_add(list, r->address, r->npages, 0);
		pages_mark(&p->pages, r->address, r->npages);
	}
	return ret;
}

static int compare_runs(const void *a, const void *b)
{
	uint64_t x = ((const struct page_run *)a)->address, y = ((const struct page_run *)b)->address;

	return x < y ? -1 : x > y;
}

/* Everything that the destination lacks, over the bulk connection; the threads stand still meanwhile. */
static int send_all_now(struct source_process *p, struct err *e)
{
	int ret;

	p->bulk_in_freeze = true;
	link_limit_stall(p->link->bulk, FREEZE_STALL_MS);
	ret = pages_round(&p->pages, PAGES_LAZY | PAGES_EAGER, NULL, e);
	return ret < 0 ? ret : pages_barrier(&p->pages, e);
}

/* Pages of which the destination has an older version, whole or, where they went ahead, by their differences. */
static int send_again(struct source_process *p, const struct page_run *r)
{
	int ret = 0;

	for (uint64_t k = 0; k < r->npages && ret == 0; k++)
		if (!source_is_ahead(p, r->address + k * PAGE_SIZE_BYTES))
			ret = run_list_add(&p->go_runs, r->address + k * PAGE_SIZE_BYTES, 1, 0);
	pages_mark(&p->pages, r->address, r->npages);
	return ret;
}

/*
 * What goes over the bulk connection and what went ahead on the go connection come in any order: a page of both is right at the destination only by its differences, which are written when
 * both are there. So it stays on the account as one that is compared.
 */
static void keep_ahead(struct source_process *p, const struct page_run *r)
{
	for (uint64_t k = 0; k < r->npages; k++)
		if (source_is_ahead(p, r->address + k * PAGE_SIZE_BYTES))
			pages_mark(&p->pages, r->address + k * PAGE_SIZE_BYTES, 1);
}

static int choose_precopy(struct source_process *p, struct err *e)
{
	struct run_list rest = { 0 };
	int ret = pages_stale(&p->pages, PAGES_LAZY | PAGES_EAGER | PAGES_UNSENT, &rest, e);

	p->too_much = ret == 0 && rest.pages > PRECOPY_GO_PAGES_MAX;
	for (size_t i = 0; i < rest.n && ret == 0; i++) {
		/* What is too much goes over the bulk connection. What is gone is not found there: it is no longer on the account. */
		if (rest.v[i].flags & RUN_ZERO)
			ret = run_list_add(&p->stale, rest.v[i].address, rest.v[i].npages, 0);
		else if (p->too_much)
			keep_ahead(p, &rest.v[i]);
		else
			ret = send_again(p, &rest.v[i]);
	}
	run_list_free(&rest);
	if (ret == 0)
		ret = pages_gone(&p->pages, &p->stale, e);
	return ret < 0 ? ret : source_compare_ahead(p, e);
}

static int choose_first(struct source_process *p, struct err *e)
{
	struct run_list stale = { 0 };
	int ret = 0;

	if (p->s->strategy == STRATEGY_HYBRID || p->common.n)
		ret = pages_stale(&p->pages, PAGES_LAZY, &stale, e);
	for (size_t i = 0; i < p->pages.lost.n && ret == 0; i++)
		ret = run_list_add(&stale, p->pages.lost.v[i].start, (p->pages.lost.v[i].end - p->pages.lost.v[i].start) / PAGE_SIZE_BYTES, 0);
	if (ret == 0)
		ret = pages_settle_eager(&p->pages, &p->go_runs, &p->stale, e);
	if (ret == 0)
		ret = treat_stale(p, &stale, &p->go_runs);
	for (size_t i = 0; i < p->nparked && ret == 0; i++)
		ret = want_thread_pages(p, p->parked[i].msg, p->nparked <= HOT_THREADS, &p->go_runs);
	if (ret == 0)
		ret = want_pinned_pages(p, &p->go_runs);
	if (ret == 0)
		ret = want_flight_pages(p, &p->go_runs, e);
	if (ret == 0)
		ret = want_argument_pages(p, &p->go_runs);
	if (ret == 0)
		ret = want_hot_pages(p, &p->go_runs);
	if (ret == 0)
		ret = source_compare_ahead(p, e);
	run_list_free(&stale);
	return ret;
}

/* Which pages go with the registers; `too_much` when they go over the bulk connection instead. */
static int choose_pages(struct source_process *p, struct err *e)
{
	enum strategy strategy = p->s->strategy;
	int ret = 0;

	if (strategy == STRATEGY_STOP_COPY)
		p->too_much = true;
	else if (strategy == STRATEGY_PRE_COPY)
		ret = choose_precopy(p, e);
	else
		ret = choose_first(p, e);
	if (p->go_runs.n)
		qsort(p->go_runs.v, p->go_runs.n, sizeof(*p->go_runs.v), compare_runs);
	return ret < 0 && e && !e->code ? err_sys(e, ret, "choosing pages") : ret;
}

/* Where layouts go before the go message, the files that they name go before them. */
static int tell_late_files(struct source *s, struct err *e)
{
	int ret = s->news_frame ? frame_send(s->link.control, FRAME_FILES, s->news_frame, s->news_frame_len, e) : 0;

	free(s->news_frame);
	s->news_frame = NULL;
	return ret;
}

/* New layouts go before the pages that lie in them. */
static int tell_late_layouts(struct source *s, struct err *e)
{
	cleanup_free const struct vma_list **changed = calloc(s->nprocs, sizeof(*changed));
	bool any = false;
	int ret;

	if (!changed)
		return err_sys(e, ENOMEM, "layouts");
	for (size_t i = 0; i < s->nprocs; i++) {
		changed[i] = s->procs[i].too_much && s->procs[i].layout_changed ? &s->procs[i].frozen_vmas : NULL;
		any |= changed[i] != NULL;
	}
	ret = any ? tell_late_files(s, e) : 0;
	return any && ret == 0 ? source_tell_layouts(s, &(struct layouts){ changed, s->nprocs }, true, e) : ret;
}

static int send_too_much(struct source *s, struct err *e)
{
	int ret = tell_late_layouts(s, e);

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (s->procs[i].too_much)
			ret = send_all_now(&s->procs[i], e);
	return ret;
}

/* A page of a mapping that is new since the last round has no bit: it is sent after the resume, or with the rest. */
static int account_layout(struct source_process *p, struct err *e)
{
	int ret = p->layout_changed ? pages_layout(&p->pages, &p->frozen_vmas, e) : 0;

	if (ret == 0 && p->layout_changed)
		ret = pages_forget_remapped(&p->pages, &p->u->vmas, &p->frozen_vmas, p->s->unit.files.n, e);
	if (ret == 0 && p->layout_changed)
		source_forget_ahead(p);
	return ret;
}

int source_choose_pages(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		ret = account_layout(&s->procs[i], e);
		if (ret == 0)
			ret = choose_pages(&s->procs[i], e);
	}
	return ret < 0 ? ret : send_too_much(s, e);
}

/* Runs of which some pages may be protected from the program itself: the other way into its memory does not mind that. */
static int read_one_by_one(const struct source_process *p, const struct page_run *runs, size_t n, uint8_t *to, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		for (uint64_t k = 0; k < runs[i].npages; k++, to += PAGE_SIZE_BYTES) {
			uint64_t at = runs[i].address + k * PAGE_SIZE_BYTES;

			if (pread(p->mem_fd, to, PAGE_SIZE_BYTES, (off_t)at) != PAGE_SIZE_BYTES)
				return err_set(e, -EAGAIN, "page %#" PRIx64 " cannot be read (%s): it has become a guard page, say; try again", at, strerror(errno));
		}
	}
	return 0;
}

static int read_pages(const struct source_process *p, uint8_t *to, struct err *e)
{
	for (size_t i = 0; i < p->go_runs.n; i += IOVECS) {
		struct iovec remote[IOVECS], local = { to, 0 };
		size_t n = MIN(p->go_runs.n - i, (size_t)IOVECS);

		for (size_t k = 0; k < n; k++) {
			remote[k] = (struct iovec){ (void *)p->go_runs.v[i + k].address, p->go_runs.v[i + k].npages * PAGE_SIZE_BYTES };
			local.iov_len += remote[k].iov_len;
		}
		if (process_vm_readv(p->u->pid, &local, 1, remote, n, 0) != (ssize_t)local.iov_len) {
			int ret = read_one_by_one(p, &p->go_runs.v[i], n, to, e);

			if (ret < 0)
				return ret;
		}
		to += local.iov_len;
	}
	return 0;
}

int source_read_pages(struct source *s, struct err *e)
{
	uint64_t pages = 0;
	uint8_t *to;
	int ret = 0;

	for (size_t i = 0; i < s->nprocs; i++)
		pages += s->procs[i].go_runs.pages;
	s->go_pages_len = pages * PAGE_SIZE_BYTES;
	if (s->go_pages_len > (64 << 20))
		return err_set(e, -E2BIG, "process %d writes %" PRIu64 " pages of file mappings faster than they can be sent", s->request->pid, pages);
	to = s->go_pages = malloc(MAX(s->go_pages_len, GO_PAGES_MAX * 2 * PAGE_SIZE_BYTES));
	if (!to)
		return err_sys(e, ENOMEM, "pages that go with the registers");
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		ret = read_pages(&s->procs[i], to, e);
		to += s->procs[i].go_runs.pages * PAGE_SIZE_BYTES;
	}
	return ret;
}
