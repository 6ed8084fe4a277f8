// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fuzz_go.c - the go message, against what was offered before
 *
 * Input: pid (u32), number of pages behind the message (u8), length (u16) and bytes of the offered descriptor table, length (u16) and bytes of the layout, the message.
 */
#include <stdlib.h>

#include "agent/abi.h"
#include "base/util.h"
#include "migrate/ahead.h"
#include "migrate/decode.h"

#define FILES 16
#define THREADS_MAX 8
#define LOOK_PAGES 64 /* of one run: the others are like these */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct input {
	const uint8_t *at;
	size_t left;
};

static bool take(struct input *in, void *to, size_t n)
{
	if (in->left < n)
		return false;
	memcpy(to, in->at, n);
	in->at += n;
	in->left -= n;
	return true;
}

static bool take_part(struct input *in, const uint8_t **ret, uint16_t *ret_len)
{
	if (!take(in, ret_len, sizeof(*ret_len)) || in->left < *ret_len)
		return false;
	*ret = in->at;
	in->at += *ret_len;
	in->left -= *ret_len;
	return true;
}

static void check_run(const struct vma_list *l, const struct page_run *r)
{
	const uint32_t looks[] = { 0, r->npages / 2, r->npages - 1 };

	for (size_t i = 0; i < ARRAY_SIZE(looks); i++) {
		const struct vma *v = vma_find(l, r->address + (uint64_t)looks[i] * PAGE_SIZE_BYTES);

		if (!v || v->content == VMA_CONTENT_NONE)
			abort();
	}
	for (uint32_t i = 0; i < MIN(r->npages, LOOK_PAGES); i++)
		if (!vma_find(l, r->address + (uint64_t)i * PAGE_SIZE_BYTES))
			abort();
}

/* What passed the check is what the destination relies on: every page of a run has its mapping and its bytes. */
static void check_pages(const struct go_process *g, const struct vma_list *l)
{
	const uint8_t *from = g->pages;

	for (size_t k = 0; k < 2; k++) {
		const ProtobufCBinaryData *runs = k ? &g->msg->runs : &g->msg->stale;

		for (size_t i = 0; i < runs->len; i += sizeof(struct page_run)) {
			struct page_run r;

			memcpy(&r, runs->data + i, sizeof(r));
			check_run(l, &r);
			for (uint32_t n = 0; k && n < r.npages; n++, from += PAGE_SIZE_BYTES)
				if (from[0] | from[PAGE_SIZE_BYTES - 1]) /* they are all zeros here; the sanitizer looks at the access */
					abort();
		}
	}
}

/* What is taken for a difference lies in the message, and within one page. */
static void check_deltas(const ProtobufCBinaryData *deltas)
{
	const uint8_t *at = deltas->data, *data;
	size_t left = deltas->len;
	struct delta d;

	while (delta_next(&at, &left, &d, &data, NULL) > 0)
		if (data < deltas->data || data + d.len > deltas->data + deltas->len || d.address / PAGE_SIZE_BYTES != (d.address + d.len - 1) / PAGE_SIZE_BYTES)
			abort();
}

static void try_threads(const struct input *in)
{
	struct threads_ahead a;

	if (threads_ahead_decode(in->at, in->left, 2, &a, NULL) < 0)
		return;
	if (a.process > 1)
		abort();
	for (size_t i = 0; i < a.n; i++)
		if (!a.v[i]->regs.len)
			abort();
	threads_ahead_free(&a);
}

static void try_ahead(const struct input *in)
{
	struct ahead a;

	if (ahead_decode(in->at, in->left, 1, &a, NULL) == 0 && (a.head.process || !a.head.npages || a.pages + a.head.npages * PAGE_SIZE_BYTES != in->at + in->left))
		abort();
}

static void try_go(uint32_t pid, unsigned npages, Gw__FdTable *fds, const struct vma_list *l, const struct input *in)
{
	Gw__OfferProcess offered = GW__OFFER_PROCESS__INIT;
	const struct offer_process process = { .msg = &offered, .nthreads = THREADS_MAX };
	const struct go_terms terms = { &process, 1, 0, FILES, fds };
	uint32_t msg_len = (uint32_t)in->left;
	size_t len = sizeof(msg_len) + msg_len + npages * PAGE_SIZE_BYTES;
	uint8_t *payload = calloc(1, len);
	struct err e = ERR_INIT;
	struct go g;
	int ret;

	if (!payload)
		abort();
	offered.pid = (int32_t)pid;
	memcpy(payload, &msg_len, sizeof(msg_len));
	memcpy(payload + sizeof(msg_len), in->at, in->left);
	ret = go_decode(payload, len, &terms, &g, &e);
	if (ret > 0 || (ret < 0 && !e.message[0]))
		abort();
	if (ret == 0 && (g.nprocs != 1 || !g.procs[0].nthreads || g.procs[0].nthreads > THREADS_MAX || g.procs[0].threads[0]->tid != (pid_t)pid))
		abort();
	if (ret == 0)
		check_deltas(&g.procs[0].msg->deltas);
	if (ret == 0 && go_check_pages(&g.procs[0], l, &e) == 0)
		check_pages(&g.procs[0], l);
	go_free(&g);
	/* A length that is a lie. */
	msg_len = UINT32_MAX - npages;
	memcpy(payload, &msg_len, sizeof(msg_len));
	if (go_decode(payload, len, &terms, &g, NULL) == 0)
		abort();
	go_free(&g);
	free(payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	const uint8_t *table, *layout;
	uint16_t table_len, layout_len;
	struct vma_list l = { 0 };
	Gw__FdTable *fds;
	uint32_t pid;
	uint8_t npages;

	if (!take(&in, &pid, sizeof(pid)) || !take(&in, &npages, 1) || !take_part(&in, &table, &table_len) || !take_part(&in, &layout, &layout_len))
		return 0;
	if (fdtable_decode(table, table_len, FILES, 1, &fds, NULL) < 0)
		return 0;
	if (vma_list_decode(layout, layout_len, FILES, &l, NULL) == 0)
		try_go(pid, npages, fds, &l, &in);
	try_ahead(&in);
	try_threads(&in);
	vma_list_free(&l);
	gw__fd_table__free_unpacked(fds, NULL);
	return 0;
}
