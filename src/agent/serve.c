/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * serve.c - the source's agent after the commit: the frozen image is its own page server
 *
 * Theory of operation: two connections. On the fault connection requests for single pages come in and are answered at
 * once; on the bulk connection everything else is pushed, in frames of at most STREAM_PAGES_MAX pages, straight from the pages
 * where they lie. A bitmap with one bit a page says what has been sent; a page is never sent twice: a request for a page
 * that is already in the bulk stream gets no answer, for the stream brings it. The pages that exist are found by PAGEMAP_SCAN
 * as the cursor goes along. A fault moves the cursor behind the faulting page, so that what is used next comes next.
 *
 * Nothing changes these pages any more, so the push need not copy them: through a pipe (vmsplice, splice) the socket gets references. Where that does not
 * work they are sent as usual.
 */
#include "sys.h"

struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN_IOCTL 0xc0606610ul
#define SCAN_PAGES 512 /* looked for at once for the push */
#define LOOK_AHEAD 12  /* pages whose beginnings are on their way into the cache while one is looked at */
#define HOLE_STEP 32 /* pages that do not exist for one of the window of those that do: they cost nothing on the way */
#define LAST_WORD_MS 2000
#define PM_PRESENT (1u << 3)
#define PM_SWAPPED (1u << 4)
#define PM_PFNZERO (1u << 5)

struct server {
	struct scratch_header *h;
	struct agent_buffers *b;
	struct page_range *ranges;
	uint64_t *bitmap;
	uint64_t range, cursor;   /* where the push is */
	long nfound, next_found;  /* b->regions: what the last scan of the push has found, and how much of it is done */
	uint64_t scanned;         /* up to here it has looked */
	int moved;                /* a fault moved the cursor: another pass is needed */
	int pushing, pushed;      /* pushed: END is on its way or sent */
	struct msg_hdr message;   /* the frame being sent; iovlen 0 when none */
	uint64_t next_expected;   /* for sequential faults */
	uint32_t window;          /* pages to answer with */
	uint32_t request_got;     /* bytes of a request that has not come whole */
	struct fault_request request;
	int pipe[2];              /* -1 when pages are copied */
	uint64_t piped;           /* bytes of the message that are in the pipe */
	int done;
};

static long scan(const struct server *s, struct pm_scan_arg *arg)
{
	arg->size = sizeof(*arg);
	arg->category_anyof_mask = PM_PRESENT | PM_SWAPPED;
	arg->return_mask = PM_PRESENT | PM_SWAPPED | PM_PFNZERO;
	return sys(__NR_ioctl, s->h->pagemap_fd, (long)PAGEMAP_SCAN_IOCTL, (long)arg);
}

/* Finds the first page that exists in [start, end): 1, or 0. */
static long scan_one(const struct server *s, uint64_t start, uint64_t end, struct pm_region *ret_region)
{
	return scan(s, &(struct pm_scan_arg){ .start = start, .end = end, .vec = (uint64_t)ret_region, .vec_len = 1, .max_pages = 1 });
}

/* Whether a page that the scan calls swapped is one, and not a marker in the page table. */
static int is_marker(const struct server *s, uint64_t address)
{
	uint64_t entry = 0;

	if (!s->h->marker_type)
		return 0;
	sys(__NR_pread64, s->h->pagemap_fd, (long)&entry, sizeof(entry), (long)(address / AGENT_PAGE * sizeof(entry)));
	return (entry >> 62 & 1) && (entry & 0x1f) == s->h->marker_type;
}

/* The program never runs here again: its protections no longer matter. */
static long make_readable(struct page_range *r)
{
	long ret = r->flags & RANGE_UNREADABLE ? sys(__NR_mprotect, (long)r->start, (long)(r->end - r->start), PROT_READ_ONLY) : 0;

	if (ret == 0)
		r->flags &= ~RANGE_UNREADABLE;
	return ret;
}

static int is_zero(uint64_t address)
{
	const uint64_t *p = (const uint64_t *)address;

	for (int i = 0; i < 512; i += 8)
		if (p[i] | p[i + 1] | p[i + 2] | p[i + 3] | p[i + 4] | p[i + 5] | p[i + 6] | p[i + 7])
			return 0;
	return 1;
}

static struct page_range *find_range(struct server *s, uint64_t address)
{
	uint64_t lo = 0, hi = s->h->nranges;

	while (lo < hi) {
		uint64_t mid = (lo + hi) / 2;

		if (address < s->ranges[mid].start)
			hi = mid;
		else if (address >= s->ranges[mid].end)
			lo = mid + 1;
		else
			return &s->ranges[mid];
	}
	return 0;
}

static int take_page(struct server *s, const struct page_range *r, uint64_t address)
{
	uint64_t bit = r->first_bit + (address - r->start) / AGENT_PAGE;
	uint64_t mask = 1ull << (bit & 63);

	if (s->bitmap[bit >> 6] & mask)
		return 0;
	s->bitmap[bit >> 6] |= mask;
	return 1;
}

/* Adds a page to a frame; returns 0 when the frame has no room for another run. */
static int add_page(struct stream_frame *f, uint64_t address, uint32_t flags)
{
	struct page_run *last = f->frame.nruns ? &f->runs[f->frame.nruns - 1] : 0;

	if (last && last->flags == flags && last->address + last->npages * AGENT_PAGE == address) {
		last->npages++;
	} else {
		if (f->frame.nruns == STREAM_RUNS_MAX)
			return 0;
		f->runs[f->frame.nruns++] = (struct page_run){ address, 1, flags };
	}
	if (!(flags & RUN_ZERO))
		f->frame.npages++;
	return 1;
}

static void count_frame(struct server *s, const struct stream_frame *f)
{
	struct agent_counters *c = &s->h->counters;

	for (uint32_t i = 0; i < f->frame.nruns; i++) {
		if (f->runs[i].flags & RUN_ZERO)
			c->pages_zero += f->runs[i].npages;
		else
			c->pages_sent += f->runs[i].npages;
	}
	c->bytes_sent += sizeof(f->frame) + f->frame.nruns * sizeof(f->runs[0]) + f->frame.npages * AGENT_PAGE;
}

/* Puts the pages of one region into the frame; returns the address where it stopped. That pages hold more than zeros is known from their first words, mostly. */
static uint64_t gather_region(struct server *s, struct stream_frame *f, const struct page_range *r, const struct pm_region *region)
{
	for (uint64_t at = region->start; at < region->end; at += AGENT_PAGE) {
		uint64_t bit = r->first_bit + (at - r->start) / AGENT_PAGE;
		uint32_t flags;

		if (region->end - at > LOOK_AHEAD * AGENT_PAGE)
			__builtin_prefetch((const void *)(at + LOOK_AHEAD * AGENT_PAGE));
		if (s->bitmap[bit >> 6] & (1ull << (bit & 63)))
			continue;
		if ((region->categories & PM_SWAPPED) && is_marker(s, at))
			continue;
		flags = (region->categories & PM_PFNZERO) || is_zero(at) ? RUN_ZERO : 0;
		if (f->frame.npages >= s->h->chunk_pages && !flags)
			return at;
		if (!add_page(f, at, flags))
			return at;
		take_page(s, r, at);
	}
	return region->end;
}

/* Looks for what exists from the cursor on, for this frame and others. */
static long look(struct server *s, struct page_range *r)
{
	struct pm_scan_arg arg = { .start = s->cursor, .end = r->end, .vec = (uint64_t)s->b->regions, .vec_len = REGIONS_MAX, .max_pages = SCAN_PAGES };
	long n = scan(s, &arg);

	s->scanned = arg.walk_end;
	s->nfound = n < 0 ? 0 : n;
	s->next_found = 0;
	return n > 0 && make_readable(r) < 0 ? E_FAULT : n;
}

/* Puts what has been found into the frame; 1: all of it. */
static int gather_found(struct server *s, struct stream_frame *f, const struct page_range *r)
{
	for (; s->next_found < s->nfound; s->next_found++) {
		struct pm_region *region = &s->b->regions[s->next_found];

		region->start = s->cursor = gather_region(s, f, r, region);
		if (region->start < region->end)
			return 0;
	}
	s->cursor = s->scanned;
	return 1;
}

static void move_cursor(struct server *s, uint64_t range, uint64_t to)
{
	s->range = range;
	s->cursor = to;
	s->nfound = s->next_found = 0;
}

/* Fills the next frame from the cursor on. */
static long gather(struct server *s)
{
	struct stream_frame *f = &s->b->out;

	f->frame = (struct page_frame){ STREAM_MAGIC, STREAM_PAGES, 0, 0 };
	while (f->frame.npages < s->h->chunk_pages && f->frame.nruns < STREAM_RUNS_MAX) {
		struct page_range *r = &s->ranges[s->range];
		long n;

		if (s->range == s->h->nranges) {
			if (!s->moved)
				break;
			s->moved = 0;
			move_cursor(s, 0, s->ranges[0].start);
			continue;
		}
		n = s->next_found < s->nfound ? 0 : look(s, r);
		if (n < 0)
			return n;
		if (gather_found(s, f, r) && s->cursor >= r->end)
			move_cursor(s, s->range + 1, s->range + 1 < s->h->nranges ? r[1].start : 0);
	}
	return 0;
}

/* Starts the next frame of the push, or END when nothing is left. */
static long next_frame(struct server *s)
{
	struct stream_frame *f = &s->b->out;
	long ret = gather(s);

	if (ret < 0)
		return ret;
	if (!f->frame.nruns) {
		f->frame.kind = STREAM_END;
		s->pushed = 1;
	}
	count_frame(s, f);
	frame_message(f, s->b->iov, &s->message);
	return 0;
}

static long end_faults(struct server *s)
{
	struct page_frame end = { STREAM_MAGIC, STREAM_END, 0, 0 };
	struct io_vec iov = { (uint64_t)&end, sizeof(end) };
	struct msg_hdr m;

	memset(&m, 0, sizeof(m));
	m.iov = &iov;
	m.iovlen = 1;
	return send_all(s->h->fault_fd, &m);
}

static void pipe_close(struct server *s)
{
	if (s->pipe[0] >= 0) {
		sys(__NR_close, s->pipe[0]);
		sys(__NR_close, s->pipe[1]);
	}
	s->pipe[0] = s->pipe[1] = -1;
	s->piped = 0;
}

static void pipe_open(struct server *s)
{
	long flags;

	if (sys(__NR_pipe2, (long)s->pipe, O_CLOEXEC_FLAG | O_NONBLOCK_FLAG) < 0)
		s->pipe[0] = s->pipe[1] = -1;
	if (s->pipe[0] < 0)
		return;
	sys(__NR_fcntl, s->pipe[1], F_SETPIPE_SZ_COMMAND, STREAM_PAGES_MAX * AGENT_PAGE); /* less does, too */
	flags = sys(__NR_fcntl, s->h->bulk_fd, F_GETFL_COMMAND);
	if (flags < 0 || sys(__NR_fcntl, s->h->bulk_fd, F_SETFL_COMMAND, flags | O_NONBLOCK_FLAG) < 0)
		pipe_close(s);
}

/* One step of sending the message: its head is copied, then come the pages. */
static long send_step(struct server *s)
{
	struct msg_hdr head = s->message;
	long n;

	if (s->pipe[0] >= 0 && s->message.iov == s->b->iov && s->message.iovlen > 1) {
		head.iovlen = 1;
		return sys(__NR_sendmsg, s->h->bulk_fd, (long)&head, MSG_DONTWAIT_FLAG | MSG_NOSIGNAL_FLAG | MSG_MORE_FLAG);
	}
	if (s->pipe[0] >= 0 && s->message.iov != s->b->iov) {
		n = s->piped ? (long)s->piped : sys(__NR_vmsplice, s->pipe[1], (long)s->message.iov, (long)s->message.iovlen, SPLICE_NONBLOCK_FLAG);
		if (n > 0) {
			s->piped = (uint64_t)n;
			n = sys(__NR_splice, s->pipe[0], 0, s->h->bulk_fd, 0, n, SPLICE_NONBLOCK_FLAG);
		}
		if (n > 0)
			s->piped -= (uint64_t)n;
		if (n > 0 || n == E_AGAIN || n == E_INTR || n == E_PIPE)
			return n;
		pipe_close(s); /* what was in it has not been sent */
	}
	return sys(__NR_sendmsg, s->h->bulk_fd, (long)&s->message, MSG_DONTWAIT_FLAG | MSG_NOSIGNAL_FLAG);
}

/* Sends what the socket takes of the message now; its head and what follows at once. */
static long send_some(struct server *s)
{
	long n;
	int head;

	do {
		head = s->message.iov == s->b->iov && s->message.iovlen > 1;
		n = send_step(s);
		if (n > 0)
			message_advance(&s->message, (uint64_t)n);
	} while (n > 0 && head && s->message.iov != s->b->iov && s->message.iovlen);
	return n;
}

/* Returns 1 when something was sent, 0 when the socket is full. */
static long push_some(struct server *s)
{
	long n;

	if (!s->message.iovlen) {
		if (s->pushed || !s->pushing)
			return 0;
		n = next_frame(s);
		if (n < 0)
			return n;
	}
	n = send_some(s);
	if (n == E_AGAIN || n == E_INTR)
		return 0;
	if (n < 0)
		return n;
	/* What was asked for may still be on its way on the other connection: the end is told there, too, behind it. */
	if (s->pushed && !s->message.iovlen) {
		n = end_faults(s);
		if (n < 0)
			return n;
	}
	return 1;
}

/* The page asked for does not exist; a sequential reader is told at once how far there is nothing. Adds the pages behind it. */
static void add_hole(struct server *s, struct stream_frame *f, const struct page_range *r, uint64_t at)
{
	uint64_t limit = (uint64_t)(s->window - 1) * HOLE_STEP * AGENT_PAGE, end = r->end - at > limit ? at + limit : r->end;
	struct pm_region next;
	long n = end > at + AGENT_PAGE ? scan_one(s, at, end, &next) : -1;

	if (n < 0)
		return;
	if (n > 0)
		end = next.start;
	while ((at += AGENT_PAGE) < end && take_page(s, r, at))
		add_page(f, at, RUN_ZERO);
}

/* Answers a request with the page and, for a sequential reader, some pages behind it. */
static long answer(struct server *s, const struct fault_request *q)
{
	struct stream_frame *f = &s->b->reply;
	struct page_range *r = find_range(s, q->address);
	struct io_vec iov[STREAM_RUNS_MAX + 1];
	struct pm_region page;
	struct msg_hdr m;
	uint64_t at = q->address & ~(AGENT_PAGE - 1);
	long n;

	s->h->counters.pages_faulted++;
	if (!r || !take_page(s, r, at))
		return 0;
	s->window = at == s->next_expected ? (s->window < 16 ? s->window * 2 : 16) : 1;
	f->frame = (struct page_frame){ STREAM_MAGIC, STREAM_PAGES, 0, 0 };
	n = scan_one(s, at, at + AGENT_PAGE, &page);
	if (n < 0)
		return n;
	if (n > 0 && make_readable(r) < 0)
		return E_FAULT;
	if (n > 0 && (page.categories & PM_SWAPPED) && is_marker(s, at))
		n = 0;
	add_page(f, at, n == 0 || (page.categories & PM_PFNZERO) ? RUN_ZERO : 0);
	if (n == 0)
		add_hole(s, f, r, at);
	for (uint32_t i = 1; n > 0 && i < s->window && at + i * AGENT_PAGE < r->end; i++) {
		uint64_t next = at + i * AGENT_PAGE;

		if (scan_one(s, next, next + AGENT_PAGE, &page) != 1 || (page.categories & (PM_PFNZERO | PM_SWAPPED)) || !take_page(s, r, next))
			break;
		add_page(f, next, 0);
	}
	s->next_expected = at + f->runs[0].npages * AGENT_PAGE;
	count_frame(s, f);
	frame_message(f, iov, &m);
	if (s->pushing && !s->pushed && s->next_expected < r->end) {
		move_cursor(s, (uint64_t)(r - s->ranges), s->next_expected);
		s->moved = 1;
	}
	return send_all(s->h->fault_fd, &m);
}

/*
 * What the program used just before the freeze and did not travel with it is sent before it is asked for. On the connection for faults, where nothing
 * is in the way.
 */
static long push_first(struct server *s)
{
	const struct page_run *first = (const struct page_run *)s->h->first;
	struct stream_frame *f = &s->b->reply;
	struct io_vec iov[STREAM_RUNS_MAX + 1];
	struct msg_hdr m;

	f->frame = (struct page_frame){ STREAM_MAGIC, STREAM_PAGES, 0, 0 };
	for (uint64_t i = 0; i < s->h->nfirst; i++) {
		for (uint64_t k = 0; k < first[i].npages && f->frame.npages < STREAM_PAGES_MAX; k++) {
			uint64_t at = first[i].address + k * AGENT_PAGE;
			struct page_range *r = find_range(s, at);
			struct pm_region page;

			if (!r || scan_one(s, at, at + AGENT_PAGE, &page) != 1 || (page.categories & (PM_PFNZERO | PM_SWAPPED)) || !take_page(s, r, at))
				continue;
			if (make_readable(r) < 0)
				return E_FAULT;
			add_page(f, at, 0);
		}
	}
	if (!f->frame.nruns)
		return 0;
	count_frame(s, f);
	frame_message(f, iov, &m);
	return send_all(s->h->fault_fd, &m);
}

/* Takes one request when there is one: 1 it is in s->request, 0 none. */
static long take_request(struct server *s)
{
	long n = sys(__NR_recvfrom, s->h->fault_fd, (long)&s->request + s->request_got, sizeof(s->request) - s->request_got, MSG_DONTWAIT_FLAG);

	if (n == E_AGAIN || n == E_INTR)
		return 0;
	if (n <= 0)
		return n ? n : E_PIPE;
	s->request_got += (uint32_t)n;
	if (s->request_got < sizeof(s->request))
		return 0;
	s->request_got = 0;
	s->h->counters.faults_served++;
	return 1;
}

/* 1 handled, 0 none. */
static long serve_request(struct server *s)
{
	long n = take_request(s);

	if (n <= 0)
		return n;
	switch (s->request.kind) {
	case FAULT_PAGE:
		n = answer(s, &s->request);
		return n < 0 ? n : 1;
	case FAULT_PULL:
		s->pushing = 1;
		return 1;
	case FAULT_DONE:
		s->done = 1;
		return 1;
	}
	return E_PROTO;
}

/*
 * A program that ends there needs no more pages: the pager says so and goes, and what is on its way to it is refused. Its word, on another connection, may come behind
 * that.
 */
static int has_let_go(struct server *s)
{
	struct poll_fd word = { s->h->fault_fd, POLL_IN, 0 };

	while (!s->done && sys(__NR_poll, (long)&word, 1, LAST_WORD_MS) > 0) {
		long n = take_request(s);

		if (n < 0)
			break;
		s->done = n > 0 && s->request.kind == FAULT_DONE;
	}
	return s->done;
}

static long serve_all(struct server *s)
{
	struct scratch_header *h = s->h;
	int told = 0;
	long ret = push_first(s);

	if (ret < 0)
		return ret;
	pipe_open(s);
	while (!s->done) {
		struct poll_fd wait[2] = { { h->fault_fd, POLL_IN, 0 }, { h->bulk_fd, 0, 0 } };
		long n = serve_request(s);

		if (n < 0)
			return n;
		if (n > 0)
			continue;
		n = push_some(s);
		if (n < 0)
			return n;
		if (n > 0)
			continue;
		if (load_acquire(&h->home) != HOME_OFF) {
			; /* it is no longer this process that would be killed, or the worker has not come to it yet */
		} else if (!told) {
			stub_kill_begin(h);
			told = 1;
		} else if (h->tgid > 0) {
			stub_kill_finish(h);
		}
		wait[1].events = s->message.iovlen ? POLL_OUT : 0;
		sys(__NR_poll, (long)wait, 2, -1);
		if (wait[1].revents & (POLL_ERR | POLL_HUP))
			return E_PIPE;
	}
	return 0;
}

static long serve(struct scratch_header *h)
{
	struct server s = { .h = h, .b = agent_buffers(h), .ranges = (struct page_range *)h->ranges, .bitmap = (uint64_t *)h->bitmap,
			    .pushing = (int)h->push, .window = 1, .pipe = { -1, -1 } };
	long ret;

	if (!h->nranges) /* everything went before the commit */
		return 0;
	s.cursor = s.ranges[0].start;
	ret = serve_all(&s);
	return (ret == E_PIPE || ret == E_CONNRESET) && has_let_go(&s) ? 0 : ret;
}

/* Waits until the worker has made the stub, or has failed or died. */
static int stub_is_made(struct scratch_header *h)
{
	while (load_acquire(&h->home) == HOME_PENDING) {
		struct poll_fd worker = { h->worker_fd, 0, 0 };

		if (h->worker_fd < 0 || (sys(__NR_poll, (long)&worker, 1, 10) > 0 && (worker.revents & (POLL_HUP | POLL_ERR))))
			break;
	}
	return load_acquire(&h->home) == HOME_DONE;
}

/* Whether or not the pages could be sent: the process here must never run again. */
long agent_serve(struct scratch_header *h)
{
	long ret = serve(h);

	if (stub_is_made(h))
		return ret;
	stub_kill_begin(h);
	stub_kill_finish(h);
	return ret;
}
