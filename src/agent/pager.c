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
#include "pager.h"

#define UFFDIO_POISON_IOCTL 0xc020aa08ul
#define ADDRESS_END 0x7ffffffff000ul
#define EVENT_PAGEFAULT 0x12
#define EVENT_FORK 0x13
#define EVENT_REMAP 0x14
#define EVENT_REMOVE 0x15
#define EVENT_UNMAP 0x16
#define HURRY_FRAMES 32u  /* as much as the sockets hold */

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
	note_asked(p, q.address);
	if (is_pending(p, q.address)) {
		install_pending(p);
		return 0;
	}
	p->hurry = HURRY_FRAMES; /* it may be in the stream already */
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

long drain_events(struct pager *p)
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

_Static_assert(FRAME_LEAST <= 2 * sizeof(struct page_frame), "what has come behind an END is moved to where that was");

/* The next frame begins with what has come of it. */
static void next_frame(struct stream *s)
{
	memcpy(s->f, s->next, s->next_got);
	s->got = s->next_got;
	s->next_got = 0;
	s->want = WANT_FRAME;
	s->need = sizeof(struct page_frame);
}

static long install_frame(struct pager *p, struct stream *s)
{
	uint64_t from = s->staging;

	for (uint32_t i = 0; i < s->f->frame.nruns; i++) {
		const struct page_run *run = &s->f->runs[i];

		if (!(run->flags & RUN_ZERO) && in_pool(p, from))
			install_later(p, run, from);
		else
			fill_all(p, run, run->flags & RUN_ZERO ? 0 : from);
		if (!(run->flags & RUN_ZERO))
			from += run->npages * AGENT_PAGE;
		p->h->counters.pages_received += run->npages;
	}
	if (p->hurry && s == &p->bulk) {
		p->hurry--;
		install_pending(p);
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

/*
 * Room for the pages of a frame. In the pool it lies as the place of the first ones does in its page table, as long as there is something to spare: the kernel moves
 * what is in one page table on both sides at once, and flushes the TLBs once for that.
 */
static uint64_t take_pool(struct pager *p, const struct stream_frame *f)
{
	uint64_t at = p->h->pool + p->pool_used * AGENT_PAGE, skip;
	uint32_t i = 0;

	while (f->runs[i].flags & RUN_ZERO)
		i++;
	skip = ((f->runs[i].address - at) & (PAGE_TABLE_SPAN - 1)) / AGENT_PAGE;
	if (skip > p->pool_spare)
		skip = 0;
	if (f->frame.npages + skip > p->h->pool_pages - p->pool_used)
		return p->bulk.small;
	p->pool_spare -= skip;
	p->pool_used += skip + f->frame.npages;
	return at + skip * AGENT_PAGE;
}

/* The header has come whole. */
static long header_done(struct pager *p, struct stream *s)
{
	struct page_frame *f = &s->f->frame;

	if (f->magic != STREAM_MAGIC || f->nruns > STREAM_RUNS_MAX || f->npages > STREAM_PAGES_MAX)
		return E_PROTO;
	if (f->kind == STREAM_END) {
		if (s == &p->bulk)
			p->bulk_ended = 1;
		else
			p->fault_ended = 1;
		/* A page that does not exist, and was asked for while this was under way, is answered behind it. */
		s->got -= s->need;
		memcpy(s->f, (uint8_t *)s->f + s->need, s->got);
		return 0;
	}
	if (f->kind != STREAM_PAGES || !f->nruns)
		return E_PROTO;
	s->want = WANT_RUNS;
	s->need = sizeof(*f) + f->nruns * sizeof(struct page_run);
	return 0;
}

/* A part has come whole: on to the next one. */
static long part_done(struct pager *p, struct stream *s)
{
	long ret = 0;

	if (s->want == WANT_FRAME)
		return header_done(p, s);
	if (s->want == WANT_RUNS) {
		ret = check_frame(s);
		if (ret < 0)
			return ret;
		if (s->f->frame.npages) {
			s->staging = s == &p->bulk ? take_pool(p, s->f) : s->small;
			s->want = WANT_PAGES;
			s->need = s->f->frame.npages * AGENT_PAGE;
			s->got = 0;
			return 0;
		}
	}
	ret = install_frame(p, s);
	next_frame(s);
	return ret;
}

static long receive(struct stream *s)
{
	struct io_vec iov[2];
	struct msg_hdr m;
	uint64_t end = s->want == WANT_FRAME ? FRAME_LEAST : s->need;
	long n;

	if (s->want != WANT_PAGES)
		return sys(__NR_recvfrom, s->fd, (long)((uint8_t *)s->f + s->got), (long)(end - s->got), MSG_DONTWAIT_FLAG);
	memset(&m, 0, sizeof(m));
	iov[0] = (struct io_vec){ s->staging + s->got, s->need - s->got };
	iov[1] = (struct io_vec){ (uint64_t)s->next, sizeof(s->next) };
	m.iov = iov;
	m.iovlen = 2;
	n = sys(__NR_recvmsg, s->fd, (long)&m, MSG_DONTWAIT_FLAG);
	if (n > (long)iov[0].len)
		s->next_got = (uint64_t)n - iov[0].len;
	return n > (long)iov[0].len ? (long)iov[0].len : n;
}

/* Receives what is there: 1 something, 0 nothing. */
static long stream_step(struct pager *p, struct stream *s)
{
	long n = receive(s);

	if (n == E_AGAIN || n == E_INTR)
		return 0;
	if (n <= 0)
		return n ? n : E_PIPE;
	s->got += (uint64_t)n;
	while (s->got >= s->need) {
		n = part_done(p, s);
		if (n < 0)
			return n;
	}
	return 1;
}

/* --- the loop --- */

#define SHARED_LOOK_MS 200 /* how often it is looked whether others still have the memory */

static void wait_for_work(struct pager *p)
{
	struct poll_fd fds[64 + 4];
	struct scratch_header *h = p->h;
	uint32_t n = 0;

	fds[n++] = (struct poll_fd){ p->bulk.fd, POLL_IN, 0 };
	fds[n++] = (struct poll_fd){ p->fault.fd, POLL_IN, 0 };
	fds[n++] = (struct poll_fd){ h->shared ? -1 : h->process_pidfd, POLL_IN, 0 };
	fds[n++] = (struct poll_fd){ h->worker_fd, 0, 0 }; /* only its hang-up */
	for (uint32_t i = 0; i < p->ncontexts && i < 64; i++)
		fds[n++] = (struct poll_fd){ p->contexts[i].uffd, POLL_IN, 0 };
	/* More children than places: look at the rest now and then. */
	sys(__NR_poll, (long)fds, n, p->ncontexts > 64 ? 1 : h->shared ? SHARED_LOOK_MS : -1);
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
	next_frame(&p->bulk);
	next_frame(&p->fault);
	p->pool_spare = h->pool_spare;
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
		install_pending(p);
		wait_for_work(p);
		if (p->process_gone && p->ncontexts == 1)
			return 0;
		if (p->process_gone && !pulled) {
			say_done(p, FAULT_PULL);
			pulled = 1;
			p->h->process_pidfd = -1;
		}
	}
	install_pending(p);
	return 0;
}

/*
 * The worker holds the userfaultfd too, so that the death of this task alone would leave threads waiting for their pages rather than let
 * them read zeros. Now that all is here it lets go.
 */
static void wait_for_release(struct scratch_header *h)
{
	store_release(&h->drained, 1);
	stub_ring(h);
	while (h->worker_fd >= 0 && !load_acquire(&h->uffd_released)) {
		struct poll_fd worker = { h->worker_fd, POLL_IN, 0 };
		char bell[16];
		long n = sys(__NR_poll, (long)&worker, 1, -1);

		if (n > 0)
			n = sys(__NR_recvfrom, h->worker_fd, (long)bell, sizeof(bell), MSG_DONTWAIT_FLAG);
		if (n <= 0 && n != E_AGAIN && n != E_INTR)
			h->worker_fd = -1;
	}
}

/*
 * The pages that are not here will never come. The process is killed rather than left to read zeros; children that it has forked, and others that have the same memory, get
 * SIGBUS where they touch a missing page.
 */
static void lose(struct pager *p)
{
	if (p->h->process_pidfd >= 0)
		sys(__NR_pidfd_send_signal, p->h->process_pidfd, 9, 0, 0);
	for (uint32_t i = p->h->shared ? 0 : 1; i < p->ncontexts; i++)
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
