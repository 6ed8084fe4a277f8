/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pager.c - the destination's agent after the resume: the process runs while its memory arrives
 *
 * Theory of operation: all missing pages belong to mappings registered with a userfaultfd. Three things happen, in one thread, so that no
 * lock is needed: page faults become requests on the fault connection; answers and the pushed stream are received
 * and put into place; and what the running process does to its address space (fork, mremap, munmap, madvise) is learned from the userfaultfd's events.
 *
 * Pushed pages are received into the pool, memory that was made to exist before the freeze, and moved from there (UFFDIO_MOVE): nothing is copied
 * a second time or cleared, and the memory that the process needs is known to be there before it is committed. Answers to faults, what does not fit
 * the pool, and pages of mappings that cannot be moved into (read-only or locked ones, UFFDIO_MOVE is strict) are copied (UFFDIO_COPY)
 * from a small staging area.
 *
 * Pages travel under their address at the source. Every address space that lacks pages (a *context*: the process, and each child
 * forked meanwhile) has a sorted-by-nothing list of *pieces* that says where a range of source addresses is now.
 * mremap moves pieces, munmap and madvise(DONTNEED) remove them: a page of a removed piece is dropped when it arrives, and a
 * fault outside of every piece is a fault on fresh memory, answered with zeros. Each arriving page goes to every context that lacks it.
 *
 * While an event is unread, the kernel answers every fill with EAGAIN; so after each EAGAIN the events are read and the place is
 * looked up anew.
 */
#include "sys.h"

#define UFFDIO_COPY_IOCTL 0xc028aa03ul
#define UFFDIO_ZEROPAGE_IOCTL 0xc020aa04ul
#define UFFDIO_POISON_IOCTL 0xc020aa08ul
#define UFFDIO_MOVE_IOCTL 0xc028aa05ul
#define ADDRESS_END 0x7ffffffff000ul
#define EVENT_PAGEFAULT 0x12
#define EVENT_FORK 0x13
#define EVENT_REMAP 0x14
#define EVENT_REMOVE 0x15
#define EVENT_UNMAP 0x16

struct uffd_message {
	uint8_t event, r1;
	uint16_t r2;
	uint32_t r3;
	union {
		struct { uint64_t flags, address; uint32_t ptid; } fault;
		struct { uint32_t ufd; } fork;
		struct { uint64_t from, to, len; } remap;
		struct { uint64_t start, end; } remove;
	};
} __attribute__((packed));

struct fill {
	uint64_t dst, src, len, mode;
	int64_t done;
};

struct zero_fill {
	uint64_t start, len, mode;
	int64_t done;
};

/* A connection that is read in pieces. */
struct stream {
	int fd;
	enum { WANT_FRAME, WANT_RUNS, WANT_PAGES } want;
	uint64_t got, need; /* bytes of the part under way */
	struct stream_frame *f;
	uint64_t small, staging; /* staging: where the pages of this frame go: small, or in the pool */
};

struct pager {
	struct scratch_header *h;
	struct agent_buffers *b;
	struct pager_context *contexts; /* [0]: the process */
	uint32_t ncontexts;
	struct stream bulk, fault;
	uint64_t pool_used; /* pages */
	int bulk_ended, fault_ended;
	int process_gone;
};

static long drain_events(struct pager *p);

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
static void pieces_cut(struct pager_context *c, uint64_t start, uint64_t end, int move, uint64_t to)
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

static struct pager_piece *piece_by_current(struct pager_context *c, uint64_t current)
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

static void context_drop(struct pager *p, uint32_t i)
{
	sys(__NR_close, p->contexts[i].uffd);
	p->contexts[i] = p->contexts[--p->ncontexts];
}

static int in_pool(const struct pager *p, uint64_t from)
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

static void fill_all(struct pager *p, const struct page_run *run, uint64_t from)
{
	uint64_t len = run->npages * AGENT_PAGE;

	for (uint32_t i = p->ncontexts; i-- > 0;)
		fill_context(p, i, run->address, from, len);
}

/* --- events --- */

static void on_fork(struct pager *p, uint32_t parent, int uffd)
{
	struct pager_context *c, *from = &p->contexts[parent];
	uint64_t bytes = ((uint64_t)from->npieces * 2 + 64) * sizeof(struct pager_piece);
	long at = sys(__NR_mmap, 0, (long)bytes, 3, 0x22, -1, 0);

	if (p->ncontexts == CONTEXTS_MAX || (at < 0 && at > -4096)) {
		sys(__NR_close, uffd); /* the child's missing pages become zeros: more children than anyone has */
		return;
	}
	sys(__NR_madvise, at, (long)bytes, MADV_DONTFORK_ADVICE);
	c = &p->contexts[p->ncontexts++];
	c->uffd = uffd;
	c->capacity = (uint32_t)(bytes / sizeof(struct pager_piece));
	c->npieces = from->npieces;
	c->pieces = (struct pager_piece *)at;
	memcpy(c->pieces, from->pieces, from->npieces * sizeof(*c->pieces));
}

static long on_fault(struct pager *p, uint32_t context, uint64_t address)
{
	struct pager_piece *piece;
	struct fault_request q = { 0, FAULT_PAGE, 1 };
	struct io_vec iov = { (uint64_t)&q, sizeof(q) };
	struct msg_hdr m;

	address &= ~(AGENT_PAGE - 1);
	piece = piece_by_current(&p->contexts[context], address);
	if (!piece) {
		struct zero_fill z = { address, AGENT_PAGE, 0, 0 };

		while (sys(__NR_ioctl, p->contexts[context].uffd, (long)UFFDIO_ZEROPAGE_IOCTL, (long)&z) == E_AGAIN)
			if (drain_events(p) == 0)
				sys(__NR_sched_yield);
		return 0;
	}
	q.address = piece->original + (address - piece->current);
	p->h->counters.pages_faulted++;
	memset(&m, 0, sizeof(m));
	m.iov = &iov;
	m.iovlen = 1;
	return send_all(p->h->fault_fd, &m);
}

/* Reads one message of one context: 1 handled, 0 none. */
static long take_event(struct pager *p, uint32_t i)
{
	struct uffd_message e;
	long n = sys(__NR_read, p->contexts[i].uffd, (long)&e, sizeof(e));

	if (n != (long)sizeof(e))
		return 0;
	switch (e.event) {
	case EVENT_PAGEFAULT:
		n = on_fault(p, i, e.fault.address);
		return n < 0 ? n : 1;
	case EVENT_FORK:
		on_fork(p, i, (int)e.fork.ufd);
		break;
	case EVENT_REMAP:
		pieces_cut(&p->contexts[i], e.remap.from, e.remap.from + e.remap.len, 1, e.remap.to);
		break;
	case EVENT_REMOVE:
	case EVENT_UNMAP:
		pieces_cut(&p->contexts[i], e.remove.start, e.remove.end, 0, 0);
		break;
	}
	return 1;
}

static long drain_events(struct pager *p)
{
	long any = 0, n;

	for (uint32_t i = 0; i < p->ncontexts; i++) {
		while ((n = take_event(p, i)) > 0)
			any = 1;
		if (n < 0)
			return n;
	}
	return any;
}

/* --- streams --- */

static uint8_t *part_buffer(struct stream *s)
{
	if (s->want == WANT_FRAME)
		return (uint8_t *)&s->f->frame;
	if (s->want == WANT_RUNS)
		return (uint8_t *)s->f->runs;
	return (uint8_t *)s->staging;
}

static void next_part(struct stream *s, int want, uint64_t need)
{
	s->want = want;
	s->need = need;
	s->got = 0;
}

static long install_frame(struct pager *p, struct stream *s)
{
	uint64_t from = s->staging;

	for (uint32_t i = 0; i < s->f->frame.nruns; i++) {
		const struct page_run *run = &s->f->runs[i];

		fill_all(p, run, run->flags & RUN_ZERO ? 0 : from);
		if (!(run->flags & RUN_ZERO))
			from += run->npages * AGENT_PAGE;
		p->h->counters.pages_received += run->npages;
	}
	return 0;
}

static long check_frame(struct stream *s)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < s->f->frame.nruns; i++) {
		const struct page_run *run = &s->f->runs[i];

		if (!run->npages || (run->address & (AGENT_PAGE - 1)) || run->address >= ADDRESS_END ||
		    run->npages > (ADDRESS_END - run->address) / AGENT_PAGE)
			return E_PROTO;
		if (!(run->flags & RUN_ZERO))
			pages += run->npages;
	}
	return pages == s->f->frame.npages ? 0 : E_PROTO;
}

static uint64_t take_pool(struct pager *p, uint32_t npages)
{
	uint64_t at = p->h->pool + p->pool_used * AGENT_PAGE;

	if (npages > p->h->pool_pages - p->pool_used)
		return p->bulk.small;
	p->pool_used += npages;
	return at;
}

/* A part has come whole: on to the next one. */
static long part_done(struct pager *p, struct stream *s)
{
	struct page_frame *f = &s->f->frame;
	long ret = 0;

	if (s->want == WANT_FRAME) {
		if (f->magic != STREAM_MAGIC || f->nruns > STREAM_RUNS_MAX || f->npages > STREAM_PAGES_MAX)
			return E_PROTO;
		if (f->kind == STREAM_END) {
			if (s == &p->bulk)
				p->bulk_ended = 1;
			else
				p->fault_ended = 1;
			next_part(s, WANT_FRAME, sizeof(*f));
			return 0;
		}
		if (f->kind != STREAM_PAGES || !f->nruns)
			return E_PROTO;
		next_part(s, WANT_RUNS, f->nruns * sizeof(struct page_run));
		return 0;
	}
	if (s->want == WANT_RUNS) {
		ret = check_frame(s);
		if (ret < 0)
			return ret;
		if (f->npages) {
			s->staging = s == &p->bulk ? take_pool(p, f->npages) : s->small;
			next_part(s, WANT_PAGES, f->npages * AGENT_PAGE);
			return 0;
		}
	}
	ret = install_frame(p, s);
	next_part(s, WANT_FRAME, sizeof(*f));
	return ret;
}

/* Receives what is there: 1 something, 0 nothing. */
static long stream_step(struct pager *p, struct stream *s)
{
	long n = sys(__NR_recvfrom, s->fd, (long)(part_buffer(s) + s->got), (long)(s->need - s->got), MSG_DONTWAIT_FLAG);

	if (n == E_AGAIN || n == E_INTR)
		return 0;
	if (n <= 0)
		return n ? n : E_PIPE;
	s->got += (uint64_t)n;
	if (s->got < s->need)
		return 1;
	n = part_done(p, s);
	return n < 0 ? n : 1;
}

/* --- the loop --- */

static void wait_for_work(struct pager *p)
{
	struct poll_fd fds[64 + 4];
	struct scratch_header *h = p->h;
	uint32_t n = 0;

	fds[n++] = (struct poll_fd){ p->bulk.fd, POLL_IN, 0 };
	fds[n++] = (struct poll_fd){ p->fault.fd, POLL_IN, 0 };
	fds[n++] = (struct poll_fd){ h->process_pidfd, POLL_IN, 0 };
	fds[n++] = (struct poll_fd){ h->worker_fd, 0, 0 }; /* only its hang-up */
	for (uint32_t i = 0; i < p->ncontexts && i < 64; i++)
		fds[n++] = (struct poll_fd){ p->contexts[i].uffd, POLL_IN, 0 };
	/* More children than places: look at the rest now and then. */
	sys(__NR_poll, (long)fds, n, p->ncontexts > 64 ? 1 : -1);
	if (fds[2].revents)
		p->process_gone = 1;
	if (fds[3].revents && h->worker_fd >= 0) {
		h->worker_fd = -1;
		if (!stub_runs_here(h))
			p->process_gone = 1;
	}
}

static void say_done(struct pager *p, uint32_t kind)
{
	struct fault_request q = { 0, kind, 0 };
	struct io_vec iov = { (uint64_t)&q, sizeof(q) };
	struct msg_hdr m;

	memset(&m, 0, sizeof(m));
	m.iov = &iov;
	m.iovlen = 1;
	send_all(p->h->fault_fd, &m);
}

static void pager_start(struct pager *p, struct scratch_header *h)
{
	struct agent_buffers *b = agent_buffers(h);
	uint32_t n = (uint32_t)h->npieces;

	memset(p, 0, sizeof(*p));
	p->h = h;
	p->b = b;
	p->contexts = b->contexts;
	p->ncontexts = 1;
	/* The arena holds npieces pieces and room for as many again. */
	p->contexts[0] = (struct pager_context){ h->uffd, n, n * 2 + 64, (struct pager_piece *)h->pieces };
	p->bulk = (struct stream){ .fd = h->bulk_fd, .f = &b->in, .small = h->staging };
	p->fault = (struct stream){ .fd = h->fault_fd, .f = &b->fault_in, .small = h->staging + STREAM_PAGES_MAX * AGENT_PAGE };
	next_part(&p->bulk, WANT_FRAME, sizeof(struct page_frame));
	next_part(&p->fault, WANT_FRAME, sizeof(struct page_frame));
}

static long pager_loop(struct pager *p)
{
	int pulled = 0;

	while (!p->bulk_ended || !p->fault_ended) {
		long a, b, c;

		a = drain_events(p);
		b = a < 0 ? a : stream_step(p, &p->fault);
		c = b < 0 ? b : stream_step(p, &p->bulk);
		if (c < 0)
			return c;
		if (a || b || c)
			continue;
		wait_for_work(p);
		if (p->process_gone && p->ncontexts == 1)
			return 0;
		if (p->process_gone && !pulled) {
			say_done(p, FAULT_PULL);
			pulled = 1;
			p->h->process_pidfd = -1;
		}
	}
	return 0;
}

/*
 * The worker holds the userfaultfd too, so that the death of this task alone would leave threads waiting for their pages rather than let
 * them read zeros. Now that all is here it lets go.
 */
static void wait_for_release(struct scratch_header *h)
{
	store_release(&h->drained, 1);
	while (h->worker_fd >= 0 && !load_acquire(&h->uffd_released)) {
		struct poll_fd worker = { h->worker_fd, 0, 0 };

		if (sys(__NR_poll, (long)&worker, 1, 1) > 0)
			h->worker_fd = -1;
	}
}

/*
 * The pages that are not here will never come. The process is killed rather than left to read zeros; children that it has forked get SIGBUS where they touch
 * a missing page.
 */
static void lose(struct pager *p)
{
	if (p->h->process_pidfd >= 0)
		sys(__NR_pidfd_send_signal, p->h->process_pidfd, 9, 0, 0);
	for (uint32_t i = 1; i < p->ncontexts; i++)
		for (uint32_t k = 0; k < p->contexts[i].npieces; k++)
			for (uint64_t at = 0; at < p->contexts[i].pieces[k].len; at += AGENT_PAGE) {
				struct zero_fill z = { p->contexts[i].pieces[k].current + at, AGENT_PAGE, 0, 0 };

				sys(__NR_ioctl, p->contexts[i].uffd, (long)UFFDIO_POISON_IOCTL, (long)&z);
			}
}

long agent_pager(struct scratch_header *h)
{
	struct pager p;
	uint32_t ran;
	long ret;

	pager_start(&p, h);
	ret = pager_loop(&p);
	if (ret < 0) {
		lose(&p);
		return ret;
	}
	while (p.ncontexts > 1)
		context_drop(&p, p.ncontexts - 1);
	if (h->pool_pages)
		sys(__NR_munmap, (long)h->pool, (long)(h->pool_pages * AGENT_PAGE));
	wait_for_release(h);
	/* Closing ends the registration and wakes whoever waits; only then may the list touch memory that nobody ever wrote. */
	sys(__NR_close, h->uffd);
	h->uffd = -1;
	if (!p.process_gone)
		stub_run_list((struct remote_call *)h->finish_list, (uint32_t)h->nfinish, &ran);
	say_done(&p, FAULT_DONE);
	return 0;
}
