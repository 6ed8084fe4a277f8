/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * send.c - the source's agent while the process runs: sends pages straight from where they lie
 *
 * The worker chooses the pages; write tracking tells it which of them changed while they were on their way. A page that was unmapped meanwhile is sent as
 * zeros, so that the stream keeps its shape: the layout has changed then, and the worker tells the destination. Memory that the program itself may not
 * read (PROT_NONE) is read through /proc/self/mem.
 */
#include "sys.h"

/* Makes iovecs of a frame: header and runs, then the pages themselves. iov has room for STREAM_RUNS_MAX + 1. */
void frame_message(struct stream_frame *f, struct io_vec *iov, struct msg_hdr *m)
{
	uint64_t n = 1;

	iov[0] = (struct io_vec){ (uint64_t)f, sizeof(f->frame) + f->frame.nruns * sizeof(f->runs[0]) };
	for (uint32_t i = 0; i < f->frame.nruns; i++)
		if (!(f->runs[i].flags & RUN_ZERO))
			iov[n++] = (struct io_vec){ f->runs[i].address, f->runs[i].npages * AGENT_PAGE };
	memset(m, 0, sizeof(*m));
	m->iov = iov;
	m->iovlen = n;
}

/* Sends the rest of a page that could not be read where it lies: by the other way, or zeros. */
static long send_hole(struct scratch_header *h, struct msg_hdr *m)
{
	uint64_t left = AGENT_PAGE - (m->iov->base & (AGENT_PAGE - 1));
	uint64_t n = left < m->iov->len ? left : m->iov->len;
	uint8_t *copy = agent_buffers(h)->hole;
	struct io_vec iov = { (uint64_t)copy, n };
	struct msg_hdr zeros;
	long ret = h->mem_fd < 0 ? -1 : sys(__NR_pread64, h->mem_fd, (long)copy, (long)n, (long)m->iov->base);

	if (ret != (long)n)
		memset(copy, 0, n);

	memset(&zeros, 0, sizeof(zeros));
	zeros.iov = &iov;
	zeros.iovlen = 1;
	ret = send_all(h->bulk_fd, &zeros);
	if (ret == 0)
		message_advance(m, n);
	return ret;
}

long agent_send(struct scratch_header *h)
{
	struct stream_frame *frames = (struct stream_frame *)h->frames;

	for (uint64_t i = 0; i < h->nframes; i++) {
		struct msg_hdr m;

		frame_message(&frames[i], agent_buffers(h)->iov, &m);
		while (m.iovlen) {
			long ret = send_all(h->bulk_fd, &m);

			if (ret == E_FAULT)
				ret = send_hole(h, &m);
			if (ret < 0)
				return ret;
		}
	}
	return 0;
}
