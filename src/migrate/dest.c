/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest.c - the destination's worker: the steps of a migration
 *
 * Theory of operation: see ARCHITECTURE.md, "One migration". Until the step "commit" everything that has been built dies with this worker (skeleton.h) or is
 * taken back by undo functions (files that were created). The worker is driven by the source's frames; it asks nothing after PREPARED.
 */
#include "migrate/dest.h"

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/util.h"
#include "image/admission.h"
#include "image/aio.h"
#include "image/uring.h"
#include "image/notes.h"
#include "image/ns_mount.h"
#include "image/ns_net.h"
#include "image/ns_other.h"
#include "image/ns_user.h"
#include "image/ns_publish.h"
#include "image/place.h"
#include "image/thread_fs.h"
#include "image/tun_helper.h"
#include "migrate/arrival.h"
#include "migrate/decode.h"
#include "migrate/guard.h"
#include "migrate/late.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "migrate/protection.h"
#include "migrate/refuse_send.h"
#include "migrate/registry.h"
#include "migrate/timeline.h"

#define OFFER_MS 60000
#define STEP_MS 120000
#define GO_BUFFER (4ul << 20)
#define GO_BUFFER_MIN (512ul << 10)
#define GO_BUFFER_MAX (16ul << 20)
#define GO_QUEUES_MAX (128ul << 20)
#define GO_THREAD_BYTES 16384ul
#define EARLY_MS 200             /* it comes within a millisecond when the source lives */
#define RELEASE_MAX (16u << 20)
#define KNOWN_MS 2000
#define LEASES_EARLY_MS 30      /* until the source's copy has ended */
#define LEASES_MS 3000

int dest_enlarge_buffer(struct dest *d, size_t len, struct err *e)
{
	void *p;

	if (len <= d->go_buffer_len)
		return 0;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p == MAP_FAILED)
		return err_sys(e, ENOMEM, "a go message of %zu bytes", len);
	if (d->go_buffer)
		munmap(d->go_buffer, d->go_buffer_len);
	d->go_buffer = p;
	d->go_buffer_len = len;
	return 0;
}

/* Memory that can have changed. */
static size_t writable_bytes(const struct dest *d)
{
	size_t bytes = 0;

	for (size_t i = 0; i < d->nprocs; i++)
		for (size_t k = 0; k < d->procs[i].vmas.n && bytes < GO_BUFFER; k++)
			if (d->procs[i].vmas.v[k].prot & PROT_WRITE)
				bytes += d->procs[i].vmas.v[k].end - d->procs[i].vmas.v[k].start;
	return bytes;
}

/* For the go message of so many threads: a larger one than that is received more slowly. */
static int prepare_buffer(struct dest *d, size_t threads, struct err *e)
{
	size_t pages = MIN(GO_BUFFER_MIN + writable_bytes(d), GO_BUFFER);

	return dest_enlarge_buffer(d, pages + MIN(threads * GO_THREAD_BYTES, GO_BUFFER_MAX - pages), e);
}

static int step_hello(void *context, struct err *e)
{
	struct dest *d = context;
	Gw__Hello hello;
	int ret;

	hello_fill(&hello);
	hello.role = ROLE_CONTROL;
	hello.node_name = (char *)(uintptr_t)d->self_name;
	hello.mig_id = (ProtobufCBinaryData){ HELLO_MIG_ID_BYTES, d->mig_id };
	ret = hello_send(d->link.control, &hello, e);
	return ret < 0 ? ret : link_accept(&d->link, d->handoff, LINK_TIMEOUT_MS, e);
}

/* --- offer --- */

/* This worker ends with the migration: what has been decoded is kept until then, whole or not. */
static int take_offer(struct dest *d, const struct frame *f, struct err *e)
{
	struct offer *o = &d->offered;
	int ret = offer_decode(f->payload, f->len, o, e);

	if (ret < 0)
		return ret;
	d->offer = o->msg;
	d->files = o->files;
	d->fds = o->fds;
	d->procs = calloc(o->nprocs, sizeof(*d->procs));
	if (!d->procs)
		return err_sys(e, ENOMEM, "the offer");
	d->nprocs = o->nprocs;
	for (size_t i = 0; i < o->nprocs; i++) {
		const struct offer_process *from = &o->procs[i];

		d->procs[i] = (struct dest_process){ .d = d, .index = (uint32_t)i, .pid = from->msg->pid, .process = from->process, .threads = from->threads,
						     .nthreads = from->nthreads, .vmas = from->vmas, .vdso = from->vdso, .mm = from->mm,
						     .scratch_base = from->msg->scratch_base, .arrival_fd = -1, .transfer_kept = -1 };
	}
	return 0;
}

static int judge_vdso(struct dest *d, struct refusals *refusals, struct err *e)
{
	struct vma_list self = { 0 };
	struct fsfile_table none = { 0 };
	struct refusals ignored = { 0 };
	struct vdso here;
	int ret = vma_list_read(getpid(), &none, &ignored, &self, e);

	if (ret == 0)
		ret = vdso_read(getpid(), &self, &here, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		vdso_compatible(&d->procs[i].vdso, &here, refusals);
	vma_list_free(&self);
	fsfile_table_free(&none);
	refusals_free(&ignored);
	return ret;
}

static int judge_files(struct dest *d, struct refusals *refusals, struct err *e)
{
	int ret = 0;

	d->answers = calloc(d->files.n + 1, sizeof(*d->answers));
	if (!d->answers)
		return err_sys(e, ENOMEM, "files");
	for (uint32_t i = 0; i < d->files.n; i++) {
		d->answers[i] = FSFILE_ANSWER_INIT;
		d->files.v[i].unit = d->offer->unit;
	}
	dest_view_judge(d);
	for (uint32_t i = 0; i < d->files.n && ret == 0; i++)
		ret = dest_match_file(d, i, refusals, e);
	fdtable_judge(d->fds, &d->files, d->offered.ns && d->offered.ns->owned & NS_BIT(NS_NET), refusals);
	return ret;
}

static void judge_huge_pages(struct dest *d, struct refusals *refusals)
{
	cleanup_free const struct vma_list **lists = calloc(d->nprocs + 1, sizeof(*lists));

	for (size_t i = 0; lists && i < d->nprocs; i++)
		lists[i] = &d->procs[i].vmas;
	if (lists)
		vma_validate_here(lists, d->nprocs, &d->files, refusals);
}

/* Every reason why the unit cannot be taken. */
static int judge(struct dest *d, struct refusals *refusals, struct err *e)
{
	int ret;

	for (size_t i = 0; i < d->nprocs; i++) {
		uint32_t was = ns_user_choose(dest_user_of(&d->procs[i]));

		process_validate_here(d->procs[i].process, NULL, refusals);
		for (size_t k = 0; k < d->procs[i].nthreads; k++) {
			thread_validate_here(d->procs[i].threads[k], refusals);
			thread_fs_validate_here(d->procs[i].threads[k], d->procs[i].process, refusals);
		}
		ns_user_choose(was);
	}
	for (size_t i = 0; i < d->nprocs; i++)
		aio_validate_here(&d->procs[i].vmas, refusals);
	for (size_t i = 0; i < d->nprocs; i++)
		uring_validate_here(d->procs[i].process, refusals);
	if (d->offer->protection && protection_why_not())
		refusals_add(refusals, "protect.lease", protection_why_not(), "wait until it has one, or `godwit unprotect` the unit", "unit %s", d->offer->unit);
	admission_judge_unit(d->offer->unit, refusals);
	judge_huge_pages(d, refusals);
	admission_judge_namespaces(d->offered.ns, refusals);
	ret = judge_vdso(d, refusals, e);
	return ret < 0 ? ret : judge_files(d, refusals, e);
}

int dest_send_accept(struct dest *d, uint32_t first, struct err *e)
{
	Gw__Accept accept = GW__ACCEPT__INIT;
	char *notes[NOTES_MAX];
	cleanup_free uint8_t *packed = NULL, *answers = NULL;
	size_t len;
	int ret = fsfile_answers_encode(d->answers + first, d->files.n - first, &answers, &len, e);

	if (ret < 0)
		return ret;
	accept.answers = (ProtobufCBinaryData){ len, answers };
	for (accept.n_notes = 0; accept.n_notes < notes_count(); accept.n_notes++)
		notes[accept.n_notes] = (char *)(uintptr_t)notes_get(accept.n_notes);
	accept.notes = notes;
	packed = malloc(gw__accept__get_packed_size(&accept) + 1);
	if (!packed)
		return err_sys(e, ENOMEM, "the answer");
	return frame_send(d->link.control, FRAME_ACCEPT, packed, gw__accept__pack(&accept, packed), e);
}

/* Not when something is lacking that they are made of. */
static int make_namespaces(struct dest *d, struct refusals *refusals, struct err *e)
{
	int ret;

	ns_mounts_judge(d->offered.ns, refusals);
	ret = refusals->n ? 0 : ns_make(d->offered.ns, &d->ns, refusals, e);
	if (ret == 0 && !refusals->n)
		ret = ns_others_make(d->offered.ns, &d->ns, d->procs[0].process->clocks, &d->clocks, e);
	if (ret == 0 && !refusals->n)
		ret = ns_nets_restore(d->offered.ns, refusals, e);
	if (ret == 0 && !refusals->n)
		ret = tun_helpers_start(d->offered.ns, &d->ns, refusals, e);
	if (ret == 0 && !refusals->n)
		ret = published_make(d->offered.ns, e);
	if (ret == 0 && d->ns.mounts >= 0)
		place_set(d->ns.holder);
	for (uint32_t i = 0; i < d->files.n && ret == 0; i++)
		ret = fsfile_place(&d->files.v[i], e);
	return ret;
}

static int answer_about_mounts(struct dest *d, const struct frame *f, struct err *e)
{
	Gw__NsAnswer answer = GW__NS_ANSWER__INIT;
	cleanup_free uint8_t *packed = NULL;
	Gw__NsAsk *ask;
	int ret = ns_ask_decode(f->payload, f->len, &ask, e);

	if (ret < 0)
		return ret;
	ns_mounts_answer(ask, &answer);
	gw__ns_ask__free_unpacked(ask, NULL);
	packed = malloc(gw__ns_answer__get_packed_size(&answer) + 1);
	ret = packed ? frame_send(d->link.control, FRAME_MOUNTS, packed, gw__ns_answer__pack(&answer, packed), e) : err_sys(e, ENOMEM, "mounts");
	free(answer.lacking);
	return ret;
}

/* The offer, and before it what the source asks. */
static int receive_offer(struct dest *d, struct frame *ret_frame, struct err *e)
{
	struct frame f;
	int ret = frame_recv(d->link.control, &f, FRAME_PAYLOAD_MAX, OFFER_MS, e);

	while (ret == 0 && (f.type == FRAME_MOUNTS || f.type == FRAME_NET)) {
		ret = f.type == FRAME_NET ? dest_net_answer(d, e) : answer_about_mounts(d, &f, e);
		frame_free(&f);
		if (ret == 0)
			ret = frame_recv(d->link.control, &f, FRAME_PAYLOAD_MAX, OFFER_MS, e);
	}
	if (ret < 0)
		return ret;
	if (f.type == FRAME_OFFER) {
		*ret_frame = f;
		return 0;
	}
	ret = f.type == FRAME_ERROR ? frame_error_decode(&f, e) : err_set(e, -EPROTO, "%s instead of the offer", frame_type_name(f.type));
	frame_free(&f);
	return ret;
}

/* A cgroup namespace that belongs to a user namespace is made in that. */
static bool owns_cgroups(const Gw__Namespaces *ns)
{
	return ns && ns->owned & NS_BIT(NS_CGROUP) && !(ns->user && ns->user->inside & NS_BIT(NS_CGROUP));
}

static int step_offer(void *context, struct err *e)
{
	struct dest *d = context;
	struct refusals refusals = { 0 };
	Gw__Clocks here;
	struct frame f = { 0 };
	int ret = receive_offer(d, &f, e);

	if (ret)
		return ret;
	gw__clocks__init(&here);
	ret = clocks_read(0, &here, e); /* at once: the source read its own just before it sent the offer */
	if (ret >= 0)
		ret = take_offer(d, &f, e);
	if (ret >= 0)
		fsfile_set_saved(d->offer->saved, d->offer->accept_changed);
	if (ret >= 0 && d->offer->held)
		pace_hurry(0);
	if (ret >= 0)
		dest_set_clocks(d, &here);
	free(here.boot_id == protobuf_c_empty_string ? NULL : here.boot_id);
	frame_free(&f);
	if (ret == 0 && d->offered.cgroups)
		ret = cgroups_make(d->offered.cgroups, owns_cgroups(d->offered.ns), &d->cgroups, e);
	if (ret == 0 && d->offered.ns)
		ret = make_namespaces(d, &refusals, e);
	if (ret == 0 && !refusals.n)
		ret = dest_view_begin(d, e);
	if (ret == 0 && !refusals.n)
		ret = judge(d, &refusals, e);
	if (ret == 0 && !refusals.n)
		ret = dest_address_judge(d, &refusals, e);
	if (ret == 0 && !refusals.n)
		ret = dest_net_judge(d, &refusals, e);
	if (ret == 0) {
		d->post_copy = strategy_is_post_copy(d->offer->strategy);
		d->push = strategy_pushes(d->offer->strategy);
		/* With those files there may be no reason left. */
		ret = d->n_from_home ? dest_view_refuse(d, e) : refusals.n ? refusals_send(d->link.control, &refusals, e) : dest_send_accept(d, 0, e);
	}
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		vma_list_apply_answers(&d->procs[i].vmas, d->answers, d->files.n);
	refusals_free(&refusals);
	return ret;
}

static void undo_offer(void *context)
{
	dest_net_undo(context);
	dest_address_undo(context);
}

/* --- content --- */

/* How much memory each process will need, and where. */
static int take_expectations(struct dest *d, const Gw__Content *c, struct err *e)
{
	int ret = 0;

	if (c->n_expectations != d->nprocs)
		return err_set(e, -EPROTO, "expectations of %zu processes instead of %zu", c->n_expectations, d->nprocs);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		const Gw__Expectation *x = c->expectations[i];

		d->procs[i].lazy_pages = x->lazy_pages;
		d->procs[i].mlock_future = x->mlock_future;
		d->procs[i].membarrier = x->membarrier;
		ret = expectation_ranges(x, &d->procs[i].lazy_ranges, e);
	}
	return ret;
}

static int accept_pages(struct dest *d, struct err *e)
{
	int ret = link_expect(&d->link, d->nprocs, e);

	if (ret == 0)
		ret = link_accept(&d->link, d->handoff, LINK_TIMEOUT_MS, e);
	for (size_t i = 0; i < d->nprocs; i++)
		d->procs[i].link = &d->link.pages[i];
	return ret;
}

static int step_content(void *context, struct err *e)
{
	struct dest *d = context;
	int ret = accept_pages(d, e);

	for (uint32_t i = 0; i < d->files.n && ret == 0; i++)
		if (fsfile_answer_lacks(&d->answers[i]))
			ret = fsfile_open_lacking(&d->files.v[i], &d->answers[i], e);
	if (ret == 0)
		ret = dest_take_content(d, take_expectations, e);
	for (uint32_t i = 0; i < d->files.n && ret == 0; i++)
		if (fsfile_answer_lacks(&d->answers[i]))
			ret = fsfile_finish(&d->files.v[i], &d->answers[i], e);
	return ret;
}

static void undo_content(void *context)
{
	struct dest *d = context;

	for (uint32_t i = 0; d->answers && i < d->files.n; i++)
		fsfile_answer_undo(&d->files.v[i], &d->answers[i]);
}

/* --- rounds --- */

static int answer_round(struct dest *d, struct err *e)
{
	return frame_send(d->link.control, FRAME_ROUND, NULL, 0, e);
}

static int begin_receiving(struct dest_process *p, struct err *e)
{
	task_command(&p->skeleton->agent.task, COMMAND_RECEIVE);
	return task_wake(&p->skeleton->agent.task, e);
}

static int wait_received(struct dest_process *p, struct err *e)
{
	int ret = task_wait(&p->skeleton->agent.task, STEP_MS, e);
	int64_t result = scratch_slot(&p->skeleton->agent.scratch, 0)->result;

	if (ret == 0 && result < 0)
		ret = err_sys(e, (int)result, "receiving pages");
	return ret;
}

/* The pages of the old layout end with a barrier, and so do all that were sent before the freeze. */
static int take_round_of(struct dest_process *p, struct vma_list *vmas, bool over, struct err *e)
{
	bool last = over && p->d->post_copy;
	int ret = vmas || over ? wait_received(p, e) : 0;

	if (ret == 0 && vmas)
		ret = dest_sync_layout(p, vmas, e);
	if (ret == 0 && vmas)
		ret = dest_set_pieces(p, e);
	if (ret == 0 && last)
		ret = dest_prepare_pieces(p, e);
	if (ret == 0 && (vmas || over) && !last)
		ret = begin_receiving(p, e);
	return ret;
}

int dest_take_round(struct dest *d, const struct frame *f, bool *ret_over, struct err *e)
{
	struct round_news news;
	size_t k = 0;
	int ret = round_decode(f->payload, f->len, d->files.n, d->nprocs, &news, e);

	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		bool changed = k < news.n && news.msg->layouts[k]->process == i;

		ret = take_round_of(&d->procs[i], changed ? &news.layouts[k] : NULL, news.msg->over, e);
		k += changed;
	}
	if (ret == 0)
		*ret_over = news.msg->over;
	/* What comes behind the message grows, and has a place in it. */
	if (ret == 0 && news.msg->over && news.msg->queued)
		ret = dest_enlarge_buffer(d, GO_BUFFER + MIN(news.msg->queued, GO_QUEUES_MAX), e);
	round_news_free(&news);
	return ret;
}

/* News of files and connections comes before. */
static int receive_round(struct dest *d, struct frame *ret, struct err *e)
{
	for (;;) {
		int code = frame_recv(d->link.control, ret, FRAME_PAYLOAD_MAX, -1, e);

		if (code < 0)
			return err_wrap(e, "waiting for a round"), code;
		if (ret->type == FRAME_ROUND)
			return 0;
		if (ret->type == FRAME_FILES)
			code = dest_files_running(d, ret, e);
		else if (ret->type == FRAME_CONNECTIONS)
			code = dest_net_take_ahead(d, ret->payload, ret->len, e);
		else if (ret->type == FRAME_ERROR)
			code = frame_error_decode(ret, e);
		else
			code = err_set(e, -EPROTO, "%s instead of a round", frame_type_name(ret->type));
		frame_free(ret);
		if (code < 0)
			return code;
	}
}

/* The freeze is next. */
static int get_ready(struct dest *d, struct err *e)
{
	size_t threads = 0;
	int ret = 0;

	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		struct dest_process *p = &d->procs[i];

		if (d->post_copy && !dest_registers_late(p))
			ret = dest_register(p, NULL, e);
		for (size_t k = 0; k < p->skeleton->nthreads; k++)
			pace_boost(p->skeleton->threads[k]->task.tid);
		threads += p->skeleton->nthreads;
	}
	pace_prepare_for(threads);
	if (ret == 0)
		ret = prepare_buffer(d, threads, e);
	if (ret == 0)
		ret = dest_net_prepare(d, e);
	pace_touch();
	pace_warm_prepare(false);
	pace_warm();
	pace_rule();
	return ret;
}

static int step_rounds(void *context, struct err *e)
{
	struct dest *d = context;
	bool over = false;
	int ret = 0;

	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = begin_receiving(&d->procs[i], e);
	if (ret == 0)
		ret = frame_send(d->link.control, FRAME_PREPARED, NULL, 0, e);
	while (!over && ret == 0) {
		struct frame f;

		ret = receive_round(d, &f, e);
		if (ret < 0)
			return ret;
		ret = dest_take_round(d, &f, &over, e);
		frame_free(&f);
		if (ret == 0 && over)
			ret = get_ready(d, e);
		if (ret == 0)
			ret = answer_round(d, e);
	}
	return ret;
}

/* --- after the commit --- */

/* Somebody wants to move the unit on: the source sends what it has kept. The agent's requests on this socket are as short, so they do not mix. */
static void pull_rest(struct dest *d)
{
	struct fault_request q = { .kind = FAULT_PULL };

	d->push = true;
	for (size_t i = 0; i < d->nprocs; i++)
		d->push &= send(d->procs[i].link->fault, &q, sizeof(q), MSG_NOSIGNAL) == (ssize_t)sizeof(q);
}

/* The agent has got all pages: this worker's hold on the userfaultfd is the last that keeps it. */
static void release_uffd(struct agent *a)
{
	struct scratch_header *h = scratch_header(&a->scratch);

	if (a->uffd < 0 || !__atomic_load_n(&h->drained, __ATOMIC_ACQUIRE))
		return;
	close_fdp(&a->uffd);
	__atomic_store_n(&h->uffd_released, 1, __ATOMIC_RELEASE);
	task_wake(&a->task, NULL);
}

/* Whether nobody is left who has the memory of this process. */
static bool all_have_ended(const struct dest_process *p)
{
	const struct tree *t = &p->d->set.tree;
	uint32_t own = tree_find(t, p->pid);

	for (size_t i = 0; i < p->d->nprocs; i++) {
		const struct dest_process *q = &p->d->procs[i];
		struct pollfd end = { q->skeleton->pidfd, POLLIN, 0 };
		uint32_t k = tree_find(t, q->pid);

		if (own != TREE_NONE && k != TREE_NONE && t->v[k].memory == own && poll(&end, 1, 0) == 0)
			return false;
	}
	return true;
}

static int pull(struct dest_process *p, struct err *e)
{
	struct dest *d = p->d;
	struct agent *a = &p->skeleton->agent;
	struct scratch_header *h = scratch_header(&a->scratch);
	struct pollfd f[2] = { { a->pidfd, POLLIN, 0 }, { a->socket, POLLIN, 0 } };
	struct pace_aside aside = { 0 };
	struct pace_demand demand = { 0 };

	while (!__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE)) {
		if (d->push && d->nprocs == 1) /* several processes have no CPU to spare */
			pace_aside(&aside, a->pid, p->skeleton->pid);
		pace_warm_on_demand(&demand, h->counters.pages_faulted);
		poll(f, ARRAY_SIZE(f), d->push ? 2 : 50);
		agent_heard(a);
		if (h->shared && all_have_ended(p))
			__atomic_store_n(&h->shared, 0, __ATOMIC_RELEASE);
		if (arrival_wanted() && !d->push)
			pull_rest(d);
		for (size_t i = 0; i < d->nprocs; i++)
			release_uffd(&d->procs[i].skeleton->agent);
		if (f[0].revents && !__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE))
			return err_set(e, -ESRCH, "the agent of process %d ended before all pages were there", p->skeleton->pid);
	}
	pace_cool();
	if (h->agent_error)
		return err_sys(e, h->agent_error, "receiving the pages of process %d", p->skeleton->pid);
	return 0;
}

/* The source says that it knows of the commit, and what signals have come meanwhile. */
static void take_release(struct dest *d, int timeout_ms)
{
	struct frame f;

	if (d->known || frame_recv_expect(d->link.control, FRAME_RELEASE, &f, RELEASE_MAX, timeout_ms, NULL) < 0)
		return;
	d->known = true;
	lease_late_take(&d->restore.late, LEASES_EARLY_MS);
	late_deliver(d, f.payload, f.len);
	frame_free(&f);
}

_Static_assert(MIGRATE_FAULT_BUCKETS == AGENT_FAULT_BUCKETS, "they are added one by one");

static struct migrate_faults faults;

const struct migrate_faults *migrate_dest_faults(void)
{
	return &faults;
}

static void count_faults(const struct agent_counters *c)
{
	faults.us += c->fault_us;
	for (size_t i = 0; i < MIGRATE_FAULT_BUCKETS; i++)
		faults.buckets[i] += c->fault_buckets[i];
}

static int step_pull(void *context, struct err *e)
{
	struct dest *d = context;
	int ret = 0;

	take_release(d, EARLY_MS);
	for (size_t i = 0; i < d->nprocs && d->post_copy; i++) {
		int one = d->procs[i].host ? 0 : pull(&d->procs[i], ret < 0 ? NULL : e);

		if (!d->procs[i].host)
			count_faults(&scratch_header(&d->procs[i].skeleton->agent.scratch)->counters);
		ret = ret < 0 ? ret : one;
	}
	return ret;
}

/* The record of the commit goes when the source has said that it knows; otherwise it stays for its question. */
static void forget_when_known(struct dest *d)
{
	take_release(d, KNOWN_MS);
	if (!d->known) {
		close_fdp(&d->outcome_fd);
		return;
	}
	outcome_forget(d->mig_id, take_fd(&d->outcome_fd));
}

static void release(struct dest_process *p)
{
	struct agent *a = &p->skeleton->agent;

	if (!p->d->post_copy && !p->go->msg->bulk)
		wait_received(p, NULL); /* only the barrier was still to come */
	/* Where nothing was pushed, or it is too long for the agent, the list of late calls is still to be run. */
	if (p->finish && (!p->d->post_copy || !scratch_header(&a->scratch)->nfinish))
		batch_run(p->finish, NULL);
	task_command(&a->task, COMMAND_LEAVE);
	task_wake(&a->task, NULL);
}

/* Agents that are children of the first process of a pid namespace of the unit's. */
static void reap_agents(struct dest *d)
{
	for (size_t i = 0; i < d->nprocs; i++) {
		const struct agent *a = &d->procs[i].skeleton->agent;

		for (size_t k = 0; a->seen && k < d->nprocs; k++)
			if (d->procs[k].skeleton->pid == a->reaper)
				agent_reap(a->reaper, a->seen);
	}
}

static int step_release(void *context, struct err *e)
{
	struct dest *d = context;

	(void)e;
	for (size_t i = 0; i < d->nprocs; i++)
		release(&d->procs[i]);
	for (size_t i = 0; i < d->nprocs; i++) {
		agent_wait_exit(&d->procs[i].skeleton->agent, 5000);
		arrival_end(d->procs[i].skeleton->pid, take_fd(&d->procs[i].arrival_fd));
	}
	reap_agents(d);
	frame_send(d->link.control, FRAME_RELEASE, NULL, 0, NULL);
	forget_when_known(d);
	lease_late_take(&d->restore.late, LEASES_MS);
	if (d->restore.late.n)
		log_warning("event=lease-lost n=%zu text=\"somebody else has the file open\"", d->restore.late.n);
	lease_late_free(&d->restore.late);
	return 0;
}

static const struct step steps[] = {
	{ "hello", step_hello, NULL, false, false },
	{ "offer", step_offer, undo_offer, false, false },
	{ "content", step_content, undo_content, false, false },
	{ "prepare", dest_prepare, dest_prepare_undo, false, false },
	{ "rounds", step_rounds, NULL, false, true },
	{ "go", dest_go, NULL, false, true },
	{ "restore", dest_restore, NULL, false, true },
	{ "commit", dest_commit, NULL, false, true },
	{ "pull", step_pull, NULL, true, false },
	{ "release", step_release, NULL, true, false },
};

const struct step_table dest_steps = { "dest", steps, ARRAY_SIZE(steps) };

/* What was made on the host for the unit: when its skeletons are gone. */
static void undo_host(struct dest *d)
{
	if (d->offered.ns)
		ns_nets_undo(d->offered.ns);
	ns_in_own_cgroups(true);
	cgroups_made_undo(&d->cgroups);
}

static int watch_step(void *context, const struct step *step, struct err *e)
{
	struct dest *d = context;

	timeline_step(step->name);
	return fault_point("dest", step->name, d->link.control, e);
}

int migrate_dest(int control, const void *hello_payload, size_t hello_len, int handoff, const char *self_name, char ret_unit[MIGRATE_UNIT_MAX], struct err *e)
{
	static struct dest d;
	bool committed;
	int ret;

	d = (struct dest){ .self_name = self_name, .handoff = handoff, .outcome_fd = -1, .link = LINK_INIT, .ns = NS_MADE_INIT, .restore = FD_RESTORE_INIT, .home = DEST_HOME_INIT };
	d.link.control = control;
	*ret_unit = 0;
	ret = hello_decode(hello_payload, hello_len, &d.peer, e);
	if (ret < 0)
		return ret;
	memcpy(d.mig_id, d.peer->mig_id.data, sizeof(d.mig_id));
	fault_load();
	limits_raise_descriptors();
	guard_start();
	pace_calm(0);
	pace_prepare(true);
	ret = steps_run(&dest_steps, &d, watch_step, &committed, e);
	snprintf(ret_unit, MIGRATE_UNIT_MAX, "%s", d.offer ? d.offer->unit : "");
	if (ret < 0 && !committed && !d.committed) {
		dest_tell_aborted(&d);
		frame_send_error(d.link.control, ret, e->message, NULL);
		outcome_forget(d.mig_id, take_fd(&d.outcome_fd));
	}
	ns_made_free(&d.ns);
	dest_view_free(&d);
	if (!committed && !d.committed)
		undo_host(&d);
	timeline_mark("end");
	timeline_log();
	link_close(&d.link);
	return ret;
}
