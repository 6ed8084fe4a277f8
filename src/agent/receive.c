/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * receive.c - the destination's agent before the resume: pushed pages go straight to their places
 *
 * Nothing of the process runs yet and no userfaultfd is registered, so that pages may come in any order and again. Runs in writable
 * mappings are received in place; others go through the staging area and /proc/self/mem, which does not mind protections.
 * RUN_ZERO drops what was there. A BARRIER frame ends the command.
 */
#include "sys.h"

static int inside_pieces(const struct scratch_header *h, const struct page_run *run)
{
	const struct pager_piece *p = (const struct pager_piece *)h->pieces;
	uint64_t len = run->npages * AGENT_PAGE, lo = 0, hi = h->npieces;

	if (!run->npages || (run->address & (AGENT_PAGE - 1)))
		return 0;
	while (lo < hi) {
		uint64_t mid = (lo + hi) / 2;

		if (run->address < p[mid].original)
			hi = mid;
		else if (run->address >= p[mid].original + p[mid].len)
			lo = mid + 1;
		else
			return len <= p[mid].original + p[mid].len - run->address;
	}
	return 0;
}

static long receive_run(struct scratch_header *h, const struct page_run *run)
{
	uint64_t len = run->npages * AGENT_PAGE;
	long n;

	if (run->flags & RUN_ZERO)
		return sys(__NR_madvise, (long)run->address, (long)len, MADV_DONTNEED_LOCKED_ADVICE);
	if (run->flags & RUN_IN_PLACE) {
		sys(__NR_madvise, (long)run->address, (long)len, MADV_POPULATE_WRITE_ADVICE);
		return read_all(h->bulk_fd, (void *)run->address, len);
	}
	n = read_all(h->bulk_fd, (void *)h->staging, len);
	if (n < 0)
		return n;
	for (uint64_t done = 0; done < len; done += (uint64_t)n) {
		n = sys(__NR_pwrite64, h->mem_fd, (long)(h->staging + done), (long)(len - done), (long)(run->address + done));
		if (n <= 0)
			return n ? n : E_PROTO;
	}
	return 0;
}

long agent_receive(struct scratch_header *h)
{
	struct stream_frame *f = &agent_buffers(h)->in;

	for (;;) {
		uint64_t pages = 0;
		long n = read_all(h->bulk_fd, &f->frame, sizeof(f->frame));

		if (n < 0)
			return n;
		if (f->frame.magic != STREAM_MAGIC || f->frame.nruns > STREAM_RUNS_MAX)
			return E_PROTO;
		if (f->frame.kind == STREAM_BARRIER)
			return 0;
		if (f->frame.kind != STREAM_PAGES)
			return E_PROTO;
		n = read_all(h->bulk_fd, f->runs, f->frame.nruns * sizeof(f->runs[0]));
		if (n < 0)
			return n;
		for (uint32_t i = 0; i < f->frame.nruns; i++) {
			if (!inside_pieces(h, &f->runs[i]))
				return E_PROTO;
			if (!(f->runs[i].flags & RUN_ZERO) && (pages += f->runs[i].npages) > STREAM_PAGES_MAX)
				return E_PROTO;
			n = receive_run(h, &f->runs[i]);
			if (n < 0)
				return n;
			h->counters.pages_received += f->runs[i].npages;
		}
	}
}
