/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_threads.c - what threads that sleep are, told ahead of the freeze
 *
 * Theory of operation: what BPF sees of a thread that does not run is probably what the freeze will find, so the destination can give it to its own thread beforehand. The go message tells
 * all of each thread nevertheless; where it says something else the destination begins anew. Only threads are told whose areas that the kernel writes to (rseq(2), the word at the
 * end of a thread, its list of robust futexes) lie in pages that went ahead, and whose list is empty there: so the thread at the destination waits for no page, and its end changes nothing.
 */
#include <errno.h>
#include <sys/prctl.h>

#include "base/util.h"
#include "image/seccomp.h"
#include "image/thread_plain.h"
#include "migrate/source.h"
#include "wire/frame.h"

#define RSEQ_AREA 32u

static const uint8_t *sent_copy(const struct source_process *p, uint64_t address, size_t len)
{
	const struct pages_ahead *a = &p->ahead;
	uint64_t page = PAGE_ALIGN_DOWN(address);
	const uint64_t *at = a->n && address + len <= page + PAGE_SIZE_BYTES ? bsearch(&page, a->addresses, a->n, sizeof(page), ahead_compare) : NULL;

	return at ? a->sent + (size_t)(at - a->addresses) * PAGE_SIZE_BYTES + (address - page) : NULL;
}

/* struct robust_list_head: what is in the list, an offset, what is about to be. */
static bool has_no_futexes(const struct source_process *p, const struct thread_record *r)
{
	const uint8_t *head = sent_copy(p, r->robust_list, 3 * sizeof(uint64_t));
	uint64_t words[3];

	if (!r->robust_list)
		return true;
	if (!head)
		return false;
	memcpy(words, head, sizeof(words));
	return words[0] == r->robust_list && !words[2];
}

static bool may_go_ahead(const struct source_process *p, const struct thread_record *r)
{
	return !(r->state & THREAD_INCOMPLETE) && !r->pending && !r->class.seccomp && !r->class.io_bitmap && !r->class.mempolicy &&
	       (!r->rseq || sent_copy(p, r->rseq, RSEQ_AREA)) && (!r->clear_tid || sent_copy(p, r->clear_tid, sizeof(int))) && has_no_futexes(p, r);
}

static Gw__Thread *describe(const struct thread_record *r, const Gw__Thread *offered)
{
	Gw__Thread *msg = thread_new(offered->tid);

	if (thread_fill_plain(r, msg) < 0) {
		gw__thread__free_unpacked(msg, NULL);
		return NULL;
	}
	thread_complete_plain(offered, msg);
	msg->credentials->securebits = r->class.securebits;
	msg->credentials->request_keyring = r->class.request_keyring;
	msg->timer_slack_ns = r->class.slack;
	msg->no_new_privs = r->class.atomic_flags & 1;
	msg->pdeath_signal = r->class.pdeath_signal;
	msg->mce_kill = PR_MCE_KILL_DEFAULT;
	msg->tsc_mode = PR_TSC_ENABLE;
	return msg;
}

/* Of the threads of the offer, in their order mostly. */
static const Gw__Thread *offered_of(const struct unit_process *u, pid_t tid, size_t near)
{
	for (size_t k = 0; k < u->nthreads; k++)
		if (u->tids[(near + k) % u->nthreads] == tid)
			return u->threads[(near + k) % u->nthreads];
	return NULL;
}

static int send_them(struct source_process *p, Gw__Thread **msgs, size_t n, struct err *e)
{
	Gw__ThreadsAhead m = GW__THREADS_AHEAD__INIT;
	struct bytes_list threads = { 0 };
	cleanup_free uint8_t *packed = NULL;
	int ret = unit_encode_threads(msgs, n, &threads, e);

	m.process = (uint32_t)(p - p->s->procs);
	m.n_threads = threads.n;
	m.threads = threads.v;
	packed = ret < 0 ? NULL : malloc(gw__threads_ahead__get_packed_size(&m));
	if (ret >= 0 && !packed)
		ret = err_sys(e, ENOMEM, "threads");
	if (ret >= 0)
		ret = frame_send(p->s->link.go, FRAME_THREADS, packed, (uint32_t)gw__threads_ahead__pack(&m, packed), e);
	bytes_list_free(&threads);
	return ret;
}

int source_send_threads(struct source_process *p, struct err *e)
{
	const struct unit_process *u = p->u;
	cleanup_free Gw__Thread **msgs = NULL;
	size_t n = 0;
	int ret = 0;

	if (p->peek.next_fd < 0 || !p->ahead.n || u->guest || p->s->hold || seccomp_in_use(u->threads, u->nthreads) || thread_peek_read(&p->peek, NULL) < 0)
		return 0;
	msgs = calloc(p->peek.n + 1, sizeof(*msgs));
	if (!msgs)
		return err_sys(e, ENOMEM, "threads");
	for (size_t i = 0; i < p->peek.n; i++) {
		const Gw__Thread *offered = offered_of(u, (pid_t)p->peek.v[i]->tid, i);

		if (offered && offered != u->threads[0] && may_go_ahead(p, p->peek.v[i]) && (msgs[n] = describe(p->peek.v[i], offered)))
			n++;
	}
	if (n)
		ret = send_them(p, msgs, n, e);
	for (size_t i = 0; i < n; i++)
		gw__thread__free_unpacked(msgs[i], NULL);
	thread_peek_again(&p->peek, u->pid, NULL);
	return ret;
}
