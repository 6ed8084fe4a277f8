/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_ahead.c - the working set goes ahead of the freeze, and its differences with the registers; see ahead.h
 *
 * Theory of operation: what is sent is what this worker has read and keeps, torn or not: the process runs. In the freeze the pages are read again and compared, whatever write tracking
 * says. A page whose bit in the account has been turned off meanwhile (its mapping was made anew, or the destination is told to drop it) is none of these any more,
 * also when it has travelled again since.
 *
 * Many are compared by the agent, which has them mapped and may run on the CPU that the program has just left, while this worker does other things: the kernel takes almost 2 us to read a page
 * of another process. When a page cannot be read there, or is left out, this worker does it after all.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/uio.h>

#include "base/log.h"
#include "base/util.h"
#include "migrate/source.h"
#include "wire/frame.h"

#define AT_ONCE 128u /* pages read by one call */
#define THREAD_PAGES 4u
#define THREADS_MAX 512u /* whose stacks go ahead */
#define AGENT_MIN 12u    /* pages: waking the agent takes as long as comparing a few */
#define AGENT_MAX 4096u
#define AGENT_DIFFERENT 1024u /* of them; where more differ, this worker compares */
#define AGENT_SPARE 8192u /* agent/compare.c wants so much room */
#define AGENT_TOUCH (64ul << 10)

/* Reads n <= AT_ONCE pages from the i-th on; whether all could be read. */
static bool read_some(const struct source_process *p, size_t i, size_t n, uint8_t *to)
{
	struct iovec remote[AT_ONCE], local = { to, n * PAGE_SIZE_BYTES };

	for (size_t k = 0; k < n; k++)
		remote[k] = (struct iovec){ (void *)(uintptr_t)p->ahead.addresses[i + k], PAGE_SIZE_BYTES };
	return process_vm_readv(p->u->pid, &local, 1, remote, n, 0) == (ssize_t)local.iov_len;
}

static bool read_all(const struct source_process *p, uint8_t *to)
{
	const struct pages_ahead *a = &p->ahead;

	for (size_t i = 0; i < a->n; i += AT_ONCE)
		if (!read_some(p, i, MIN(a->n - i, (size_t)AT_ONCE), to + i * PAGE_SIZE_BYTES))
			return false;
	return true;
}

/* on: whether the destination has a version of it already. */
static void choose_page(struct source_process *p, uint64_t address, bool on)
{
	uint64_t at = PAGE_ALIGN_DOWN(address);

	if (source_page_may_go(p, at) && pages_is_lazy(&p->pages, at) && pages_sent_bit(&p->pages, at) == on)
		p->ahead.addresses[p->ahead.n++] = at;
}

static void choose_runs(struct source_process *p, const struct run_list *runs, bool on, size_t max)
{
	for (size_t i = 0; i < runs->n; i++)
		for (uint32_t k = 0; k < runs->v[i].npages && p->ahead.n < max; k++)
			choose_page(p, runs->v[i].address + k * PAGE_SIZE_BYTES, on);
}

/* What will be wanted for each thread (source_choose.c). Threads that sleep have not moved since the kernel was asked for this. */
static void choose_stacks(struct source_process *p)
{
	for (size_t i = 0; i < MIN(p->nrecords[0], (size_t)THREADS_MAX); i++) {
		const struct restart_record *r = &p->records[0][i];
		const uint64_t wanted[THREAD_PAGES] = { r->stack, r->stack + PAGE_SIZE_BYTES, r->fs, r->rseq };

		for (unsigned k = 0; k < THREAD_PAGES; k++)
			choose_page(p, wanted[k], false);
	}
}

static void sort_out(struct pages_ahead *a)
{
	size_t kept = 0;

	qsort(a->addresses, a->n, sizeof(*a->addresses), ahead_compare);
	for (size_t i = 0; i < a->n; i++)
		if (!kept || a->addresses[kept - 1] != a->addresses[i])
			a->addresses[kept++] = a->addresses[i];
	a->n = kept;
}

/* What was written while the working set was looked for, and stacks; after rounds, what the last one has sent, of which the destination has a version already. */
static int choose(struct source_process *p, struct err *e)
{
	size_t max = MAX(GO_PAGES_MAX, PAGES_RECENT_MAX); // NOLINT(bugprone-branch-clone): they need not be the same number

	p->ahead.addresses = calloc(max + MIN(p->nrecords[0], (size_t)THREADS_MAX) * THREAD_PAGES, sizeof(*p->ahead.addresses));
	if (!p->ahead.addresses)
		return err_sys(e, ENOMEM, "the working set");
	if (strategy_is_post_copy(p->s->strategy) && p->s->strategy != STRATEGY_HYBRID) {
		choose_runs(p, &p->hot, false, max);
		choose_stacks(p);
	} else if (p->pages.recent.pages <= PAGES_RECENT_MAX) {
		choose_runs(p, &p->pages.recent, true, max);
	}
	sort_out(&p->ahead);
	return 0;
}

/* In the scratch; where there is no room, this worker compares. */
static void allocate_job(struct source_process *p)
{
	struct pages_ahead *a = &p->ahead;
	struct scratch *s = &p->agent.scratch;
	struct compare_job job = { .header = s->base + SCRATCH_HEADER, .n = a->n, .room = MIN(a->n, (size_t)AGENT_DIFFERENT) * DELTA_PAGE_MAX + AGENT_SPARE };
	uint64_t *addresses = scratch_alloc(s, a->n * sizeof(*addresses), &job.addresses);
	uint8_t *sent = scratch_alloc(s, a->n * PAGE_SIZE_BYTES, &job.sent);

	a->job_out = scratch_alloc(s, job.room, &job.out);
	a->job = scratch_alloc(s, sizeof(job), &a->job_address);
	if (!addresses || !sent || !a->job_out || !a->job) {
		a->job = NULL;
		return;
	}
	memcpy(addresses, a->addresses, a->n * sizeof(*addresses));
	memset(a->job_out, 0, MIN(job.room, AGENT_TOUCH));
	a->sent = sent;
	*a->job = job;
}

/* Memory for the freeze, touched now: what was sent, some of what is there then, the differences of some pages. */
static int allocate(struct source_process *p, struct err *e)
{
	struct pages_ahead *a = &p->ahead;
	size_t at_once = MIN(a->n, (size_t)AT_ONCE), now = at_once * PAGE_SIZE_BYTES;

	if (a->n >= AGENT_MIN && a->n <= AGENT_MAX && source_has_beside(p))
		allocate_job(p);
	if (a->job)
		return 0;
	a->own_room = at_once * DELTA_PAGE_MAX;
	a->sent = malloc(a->n * PAGE_SIZE_BYTES);
	a->now = malloc(now);
	a->own = malloc(a->own_room);
	if (!a->sent || !a->now || !a->own)
		return err_sys(e, ENOMEM, "the working set");
	memset(a->now, 0, now);
	memset(a->own, 0, a->own_room);
	return 0;
}

static int send_process(struct source_process *p, struct err *e)
{
	struct pages_ahead *a = &p->ahead;
	struct ahead_head head = { (uint32_t)(p - p->s->procs), 0 };
	int ret = choose(p, e);

	if (ret == 0 && a->n)
		ret = allocate(p, e);
	if (ret < 0 || !a->n)
		return ret;
	if (!read_all(p, a->sent)) { /* it changes its mappings just now: then they go as others do */
		a->n = 0;
		return 0;
	}
	p->pages.ahead = a->addresses;
	p->pages.nahead = a->n;
	head.npages = (uint32_t)a->n;
	for (size_t i = 0; i < a->n; i++)
		pages_mark(&p->pages, a->addresses[i], 1);
	const struct iovec iov[3] = { { &head, sizeof(head) }, { a->addresses, a->n * sizeof(*a->addresses) }, { a->sent, a->n * PAGE_SIZE_BYTES } };

	p->s->ahead_bytes += a->n * PAGE_SIZE_BYTES;
	return frame_sendv(p->s->link.go, FRAME_AHEAD, 0, iov, ARRAY_SIZE(iov), e);
}

int source_send_ahead(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = send_process(&s->procs[i], e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = source_send_threads(&s->procs[i], e);
	return ret;
}

bool source_is_ahead(const struct source_process *p, uint64_t address)
{
	return p->ahead.n && bsearch(&address, p->ahead.addresses, p->ahead.n, sizeof(address), ahead_compare);
}

/*
 * Pages of mappings that are gone, or that the destination makes anew, are not there any more: what is sent of them from now on are the pages as they are, and
 * their bits, which may come on again by that, no longer say that there is something to compare with.
 */
void source_forget_ahead(struct source_process *p)
{
	for (size_t i = 0; i < p->ahead.n; i++)
		if (!pages_sent_bit(&p->pages, p->ahead.addresses[i]))
			p->ahead.addresses[i] |= AHEAD_LEFT_OUT;
}

/* Those that the destination is told to drop will not be there either, even if they come again with the registers: left out from here on. */
static void leave_out(struct source_process *p)
{
	struct pages_ahead *a = &p->ahead;
	size_t kept = 0;

	for (size_t i = 0; i < p->stale.n && a->n; i++)
		ahead_leave_out(a->addresses, a->n, p->stale.v[i].address, p->stale.v[i].address + p->stale.v[i].npages * PAGE_SIZE_BYTES);
	for (size_t i = 0; i < a->n; i++) {
		if (a->addresses[i] & AHEAD_LEFT_OUT || !pages_sent_bit(&p->pages, a->addresses[i]))
			continue;
		if (kept != i)
			memcpy(a->sent + kept * PAGE_SIZE_BYTES, a->sent + i * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES);
		a->addresses[kept++] = a->addresses[i];
	}
	a->n = kept;
}

/* Some may be protected from the program itself by now: the other way into its memory does not mind that. */
static int read_one_by_one(const struct source_process *p, size_t i, size_t n, uint8_t *to, struct err *e)
{
	for (size_t k = 0; k < n; k++) {
		uint64_t at = p->ahead.addresses[i + k];

		if (pread(p->mem_fd, to + k * PAGE_SIZE_BYTES, PAGE_SIZE_BYTES, (off_t)at) != (ssize_t)PAGE_SIZE_BYTES)
			return err_set(e, -EAGAIN, "process %d has put a guard over page %#" PRIx64 " of its working set", p->u->pid, at);
	}
	return 0;
}

static int make_room(struct pages_ahead *a, size_t bytes, struct err *e)
{
	size_t room = 2 * a->own_room + bytes;
	uint8_t *grown;

	if (a->own_room - a->deltas_len >= bytes)
		return 0;
	grown = realloc(a->own, room);
	if (!grown)
		return err_sys(e, ENOMEM, "differences of the working set");
	a->own = grown;
	a->own_room = room;
	return 0;
}

static int compare_some(struct source_process *p, size_t i, size_t n, struct err *e)
{
	struct pages_ahead *a = &p->ahead;
	int ret = read_some(p, i, n, a->now) ? 0 : read_one_by_one(p, i, n, a->now, e);

	if (ret == 0)
		ret = make_room(a, n * DELTA_PAGE_MAX, e);
	for (size_t k = 0; k < n && ret == 0; k++) {
		const uint8_t *sent = a->sent + (i + k) * PAGE_SIZE_BYTES, *now = a->now + k * PAGE_SIZE_BYTES;

		a->deltas_len += delta_make((const uint64_t *)sent, (const uint64_t *)now, a->addresses[i + k], a->own + a->deltas_len);
	}
	return ret;
}

int source_compare_ahead(struct source_process *p, struct err *e)
{
	struct pages_ahead *a = &p->ahead;
	size_t before = a->n;
	int ret = source_end_beside(p, e);

	if (ret < 0)
		return ret;
	p->pages.nahead = 0;
	leave_out(p);
	if (p->beside.compare && p->beside.compare->ret >= 0 && a->n == before) {
		a->deltas = a->job_out;
		a->deltas_len = (size_t)p->beside.compare->ret;
		return 0;
	}
	if (a->n && !a->now) {
		a->now = malloc(AT_ONCE * PAGE_SIZE_BYTES);
		if (!a->now)
			return err_sys(e, ENOMEM, "the working set");
	}
	for (size_t i = 0; i < a->n && ret == 0; i += AT_ONCE)
		ret = compare_some(p, i, MIN(a->n - i, (size_t)AT_ONCE), e);
	a->deltas = a->own;
	return ret;
}

void source_free_ahead(struct source_process *p)
{
	free(p->ahead.addresses);
	if (!p->ahead.job)
		free(p->ahead.sent);
	free(p->ahead.now);
	free(p->ahead.own);
	p->ahead = (struct pages_ahead){ 0 };
}
