/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fill.c - the destination's agent: where pages belong, and putting them there; see pager.c */
#include "pager.h"

#define UFFDIO_COPY_IOCTL 0xc028aa03ul
#define UFFDIO_MOVE_IOCTL 0xc028aa05ul
#define PENDING_MAX 1024u /* pages: two page tables */

struct fill {
	uint64_t dst, src, len, mode;
	int64_t done;
};

/* --- pieces --- */

static void piece_add(struct pager_context *c, uint64_t original, uint64_t current, uint64_t len)
{
	if (!len)
		return;
	if (c->npieces == c->capacity) {
		uint64_t bytes = (uint64_t)c->capacity * 2 * sizeof(*c->pieces);
		long at = sys(__NR_mmap, 0, (long)bytes, 3, 0x22, -1, 0);

		if (at < 0 && at > -4096)
			return; /* the piece is lost: its faults get zeros; only when memory has run out */
		sys(__NR_madvise, at, (long)bytes, MADV_DONTFORK_ADVICE);
		memcpy((void *)at, c->pieces, c->npieces * sizeof(*c->pieces));
		c->pieces = (struct pager_piece *)at;
		c->capacity *= 2;
	}
	c->pieces[c->npieces++] = (struct pager_piece){ original, current, len };
}

/* Takes [start, end) of current addresses out of the pieces; with `to`, puts what was there at `to`. */
void pieces_cut(struct pager_context *c, uint64_t start, uint64_t end, int move, uint64_t to)
{
	uint32_t n = c->npieces;

	for (uint32_t i = 0; i < n; i++) {
		struct pager_piece old = c->pieces[i];
		uint64_t a = old.current > start ? old.current : start;
		uint64_t b = old.current + old.len < end ? old.current + old.len : end;

		if (a >= b)
			continue;
		c->pieces[i].len = a - old.current;
		piece_add(c, old.original + (b - old.current), b, old.current + old.len - b);
		if (move)
			piece_add(c, old.original + (a - old.current), to + (a - start), b - a);
	}
	for (uint32_t i = 0; i < c->npieces;) {
		if (c->pieces[i].len)
			i++;
		else
			c->pieces[i] = c->pieces[--c->npieces];
	}
}

static struct pager_piece *piece_by_original(struct pager_context *c, uint64_t original)
{
	for (uint32_t i = 0; i < c->npieces; i++)
		if (original - c->pieces[i].original < c->pieces[i].len)
			return &c->pieces[i];
	return 0;
}

struct pager_piece *piece_by_current(struct pager_context *c, uint64_t current)
{
	for (uint32_t i = 0; i < c->npieces; i++)
		if (current - c->pieces[i].current < c->pieces[i].len)
			return &c->pieces[i];
	return 0;
}

/* How much of [original, original + len), which begins outside of every piece, is outside of them. */
static uint64_t gap_before_piece(const struct pager_context *c, uint64_t original, uint64_t len)
{
	for (uint32_t i = 0; i < c->npieces; i++)
		if (c->pieces[i].original - original < len)
			len = c->pieces[i].original - original;
	return len;
}

/* --- filling --- */

void context_drop(struct pager *p, uint32_t i)
{
	sys(__NR_close, p->contexts[i].uffd);
	p->contexts[i] = p->contexts[--p->ncontexts];
}

int in_pool(const struct pager *p, uint64_t from)
{
	return from - p->h->pool < p->h->pool_pages * AGENT_PAGE;
}

static long fill_once(struct pager *p, uint32_t context, uint64_t at, uint64_t from, uint64_t len)
{
	struct pager_context *c = &p->contexts[context];
	struct fill m = { at, from, len, 0, 0 };
	long ret;

	if (!from) {
		struct zero_fill z = { at, len, 0, 0 };

		ret = sys(__NR_ioctl, c->uffd, (long)UFFDIO_ZEROPAGE_IOCTL, (long)&z);
		return z.done > 0 ? z.done : ret < 0 ? ret : z.done;
	}
	/* Other address spaces get copies, and before this one's pages are moved away. */
	if (context == 0 && in_pool(p, from)) {
		ret = sys(__NR_ioctl, c->uffd, (long)UFFDIO_MOVE_IOCTL, (long)&m);
		if (m.done > 0)
			return m.done;
		if (ret == E_EXIST || ret == E_AGAIN || ret == E_SRCH)
			return ret;
		m.done = 0;
	}
	ret = sys(__NR_ioctl, c->uffd, (long)UFFDIO_COPY_IOCTL, (long)&m);
	return m.done > 0 ? m.done : ret;
}

/* Puts pages under their source address into one context. from: staging, or 0 for zeros. */
static void fill_context(struct pager *p, uint32_t context, uint64_t original, uint64_t from, uint64_t len)
{
	struct agent_counters *count = &p->h->counters;

	while (len) {
		struct pager_piece *piece;
		uint64_t step = len;
		long n;

		if (context >= p->ncontexts)
			return;
		piece = piece_by_original(&p->contexts[context], original);
		if (!piece) {
			step = gap_before_piece(&p->contexts[context], original, len);
			n = (long)step;
		} else {
			uint64_t left = piece->original + piece->len - original;

			if (step > left)
				step = left;
			n = fill_once(p, context, piece->current + (original - piece->original), from, step);
			if (n > 0)
				count->pages_installed += (uint64_t)n / AGENT_PAGE;
		}
		if (n == E_AGAIN) {
			uint32_t known = p->ncontexts;

			if (drain_events(p) == 0)
				sys(__NR_sched_yield);
			/* A child forked just now lacks these pages too. */
			for (uint32_t i = known; i < p->ncontexts; i++)
				fill_context(p, i, original, from, len);
			continue;
		}
		if (n == E_SRCH)
			return;
		if (n == E_NOMEM) {
			long pause[2] = { 0, 10000000 };

			sys(__NR_nanosleep, (long)pause, 0);
			continue;
		}
		if (n <= 0 && n != E_EXIST && step > AGENT_PAGE) {
			/* the range crosses mappings that the process has split: page by page */
			fill_context(p, context, original, from, AGENT_PAGE);
			n = AGENT_PAGE;
		} else if (n <= 0) {
			count->pages_discarded++;
			n = AGENT_PAGE;
		}
		original += (uint64_t)n;
		from += from ? (uint64_t)n : 0;
		len -= (uint64_t)n;
	}
}

/* --- how long faults take --- */

static uint64_t now_ns(void)
{
	uint64_t ts[2] = { 0, 0 };

	sys(__NR_clock_gettime, CLOCK_MONOTONIC_ID, (long)ts);
	return ts[0] * 1000000000ull + ts[1];
}

void note_asked(struct pager *p, uint64_t address)
{
	uint32_t place = p->next_asked % ASKED_MAX;

	for (uint32_t i = 0; p->nasked && i < ASKED_MAX; i++)
		if (p->asked[i].address == address)
			return;
	p->nasked += !p->asked[place].address;
	p->asked[place].address = address;
	p->asked[place].ns = now_ns();
	p->next_asked++;
}

/* Those that have come with this run. */
static void settle_asked(struct pager *p, const struct page_run *run)
{
	struct agent_counters *count = &p->h->counters;
	uint64_t now = 0;

	for (uint32_t i = 0; p->nasked && i < ASKED_MAX; i++) {
		uint64_t us, bucket = 0;

		if (!p->asked[i].address || p->asked[i].address - run->address >= run->npages * AGENT_PAGE)
			continue;
		now = now ? now : now_ns();
		us = (now - p->asked[i].ns) / 1000;
		while (bucket < AGENT_FAULT_BUCKETS - 1 && us > 16ull << bucket)
			bucket++;
		count->fault_buckets[bucket]++;
		count->fault_us += us;
		p->asked[i].address = 0;
		p->nasked--;
	}
}

void fill_all(struct pager *p, const struct page_run *run, uint64_t from)
{
	uint64_t len = run->npages * AGENT_PAGE;

	for (uint32_t i = p->ncontexts; i-- > 0;)
		fill_context(p, i, run->address, from, len);
	settle_asked(p, run);
}

/* Moving pages makes the kernel interrupt every CPU on which the process runs (20 to 40 us in a virtual machine): as many at once as may be. */
static void install_some(struct pager *p, uint32_t npages)
{
	struct page_run run = { p->pending.address, npages, p->pending.flags };
	uint64_t from = p->pending_from, len = (uint64_t)npages * AGENT_PAGE;

	p->pending.address += len;
	p->pending.npages -= npages;
	p->pending_from += len;
	if (npages)
		fill_all(p, &run, from);
}

void install_pending(struct pager *p)
{
	install_some(p, p->pending.npages);
}

int is_pending(const struct pager *p, uint64_t original)
{
	return original - p->pending.address < p->pending.npages * AGENT_PAGE;
}

void install_later(struct pager *p, const struct page_run *run, uint64_t from)
{
	uint64_t len = p->pending.npages * AGENT_PAGE;

	if (!len || p->pending.address + len != run->address || p->pending_from + len != from) {
		install_pending(p);
		p->pending = *run;
		p->pending_from = from;
	} else {
		p->pending.npages += run->npages;
	}
	if (p->pending.npages >= PENDING_MAX) {
		/* What is in a page table of which more will come waits for that: it is moved table by table. */
		uint64_t over = (p->pending.address / AGENT_PAGE + p->pending.npages) % (PAGE_TABLE_SPAN / AGENT_PAGE);

		install_some(p, p->pending.npages - (uint32_t)over);
	}
}
