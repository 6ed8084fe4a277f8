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

#include "base/log.h"
#include "base/util.h"
#include "migrate/arrival.h"
#include "migrate/decode.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "migrate/registry.h"
#include "migrate/timeline.h"

#define OFFER_MS 60000
#define STEP_MS 120000
#define GO_BUFFER (4u << 20)
#define KNOWN_MS 2000

static int step_hello(void *context, struct err *e)
{
	struct dest *d = context;
	Gw__Hello hello;
	int ret;

	hello_fill(&hello);
	hello.role = ROLE_CONTROL;
	hello.node_name = (char *)(uintptr_t)d->self_name;
	hello.mig_id = (ProtobufCBinaryData){ HELLO_MIG_ID_BYTES, d->mig_id };
	ret = hello_send(d->link.fd[ROLE_CONTROL], &hello, e);
	if (ret == 0)
		ret = link_accept(&d->link, d->handoff, LINK_TIMEOUT_MS, e);
	d->go_buffer = mmap(NULL, GO_BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (d->go_buffer == MAP_FAILED)
		return err_sys(e, ENOMEM, "the go buffer");
	d->go_buffer_len = GO_BUFFER;
	return ret;
}

/* --- offer --- */

static int take_offer(struct dest *d, const struct frame *f, struct err *e)
{
	struct offer o;
	int ret = offer_decode(f->payload, f->len, &o, e);

	/* This worker ends with the migration: what has been decoded is kept until then, whole or not. */
	d->offer = o.msg;
	d->process = o.process;
	d->threads = o.threads;
	d->nthreads = o.nthreads;
	d->files = o.files;
	d->vmas = o.vmas;
	d->vdso = o.vdso;
	d->mm = o.mm;
	d->fds = o.fds;
	return ret;
}

/* Every reason why the unit cannot be taken. */
static int judge(struct dest *d, struct refusals *refusals, struct err *e)
{
	struct vma_list self = { 0 };
	struct fsfile_table none = { 0 };
	struct refusals ignored = { 0 };
	struct vdso here;
	int ret;

	process_validate_here(d->process, refusals);
	for (size_t i = 0; i < d->nthreads; i++)
		thread_validate_here(d->threads[i], refusals);
	ret = vma_list_read(getpid(), &none, &ignored, &self, e);
	if (ret == 0)
		ret = vdso_read(getpid(), &self, &here, e);
	if (ret == 0)
		vdso_compatible(&d->vdso, &here, refusals);
	vma_list_free(&self);
	fsfile_table_free(&none);
	refusals_free(&ignored);
	d->answers = calloc(d->files.n + 1, sizeof(*d->answers));
	if (!d->answers)
		return err_sys(e, ENOMEM, "files");
	for (uint32_t i = 0; i < d->files.n; i++) {
		d->answers[i] = FSFILE_ANSWER_INIT;
		d->files.v[i].unit = d->offer->unit;
	}
	for (uint32_t i = 0; i < d->files.n && ret == 0; i++)
		ret = fsfile_match(&d->files.v[i], &d->answers[i], refusals, e);
	return ret;
}

int dest_send_refuse(struct dest *d, const struct refusals *r, struct err *e)
{
	Gw__Refuse refuse = GW__REFUSE__INIT;
	Gw__RefusalReason *reasons = calloc(r->n, sizeof(*reasons)), **pointers = calloc(r->n, sizeof(*pointers));
	cleanup_free uint8_t *packed = NULL;
	int ret = -ENOMEM;

	for (size_t i = 0; reasons && pointers && i < r->n; i++) {
		gw__refusal_reason__init(&reasons[i]);
		reasons[i].code = r->v[i].code;
		reasons[i].thing = r->v[i].thing;
		reasons[i].cause = r->v[i].cause;
		reasons[i].way_out = r->v[i].way_out;
		pointers[i] = &reasons[i];
	}
	refuse.n_reasons = r->n;
	refuse.reasons = pointers;
	packed = malloc(gw__refuse__get_packed_size(&refuse));
	if (reasons && pointers && packed)
		ret = frame_send(d->link.fd[ROLE_CONTROL], FRAME_REFUSE, packed, gw__refuse__pack(&refuse, packed), e);
	free(reasons);
	free(pointers);
	return ret < 0 ? ret : err_set(e, -EPERM, "refused: %s", r->v[0].thing);
}

int dest_send_accept(struct dest *d, uint32_t first, struct err *e)
{
	Gw__Accept accept = GW__ACCEPT__INIT;
	cleanup_free uint8_t *packed = NULL, *answers = NULL;
	size_t len;
	int ret = fsfile_answers_encode(d->answers + first, d->files.n - first, &answers, &len, e);

	if (ret < 0)
		return ret;
	accept.answers = (ProtobufCBinaryData){ len, answers };
	packed = malloc(gw__accept__get_packed_size(&accept) + 1);
	if (!packed)
		return err_sys(e, ENOMEM, "the answer");
	return frame_send(d->link.fd[ROLE_CONTROL], FRAME_ACCEPT, packed, gw__accept__pack(&accept, packed), e);
}

static int step_offer(void *context, struct err *e)
{
	struct dest *d = context;
	struct refusals refusals = { 0 };
	struct frame f;
	int ret = frame_recv_expect(d->link.fd[ROLE_CONTROL], FRAME_OFFER, &f, FRAME_PAYLOAD_MAX, OFFER_MS, e);

	if (ret < 0)
		return ret;
	ret = take_offer(d, &f, e);
	frame_free(&f);
	if (ret == 0)
		ret = judge(d, &refusals, e);
	if (ret == 0) {
		enum strategy strategy = d->offer->strategy;

		d->post_copy = strategy == STRATEGY_FREEZE_FREE || strategy == STRATEGY_HYBRID || strategy == STRATEGY_COPY_ON_REFERENCE;
		d->push = strategy != STRATEGY_COPY_ON_REFERENCE;
		ret = refusals.n ? dest_send_refuse(d, &refusals, e) : dest_send_accept(d, 0, e);
		vma_list_apply_answers(&d->vmas, d->answers, d->files.n);
	}
	refusals_free(&refusals);
	return ret;
}

/* --- content --- */

/* How much memory the process will need, and where. */
static int take_expectations(struct dest *d, const Gw__Content *c, struct err *e)
{
	d->lazy_pages = c->lazy_pages;
	d->mlock_future = c->mlock_future;
	return content_ranges(c, &d->lazy_ranges, e);
}

static int step_content(void *context, struct err *e)
{
	struct dest *d = context;
	int ret = 0;

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
	return frame_send(d->link.fd[ROLE_CONTROL], FRAME_ROUND, NULL, 0, e);
}

static int wait_received(struct dest *d, struct err *e)
{
	int ret = task_wait(&d->skeleton.agent.task, STEP_MS, e);
	int64_t result = scratch_slot(&d->skeleton.agent.scratch, 0)->result;

	if (ret == 0 && result < 0)
		ret = err_sys(e, (int)result, "receiving pages");
	return ret;
}

int dest_take_round(struct dest *d, const struct frame *f, bool *ret_over, struct err *e)
{
	struct vma_list vmas = { 0 };
	bool changed, last;
	int ret = round_decode(f->payload, f->len, d->files.n, &vmas, &changed, ret_over, e);

	if (ret < 0)
		return ret;
	last = *ret_over && d->post_copy;
	/* The pages of the old layout end with a barrier, and so do all that were sent before the freeze. */
	if (changed || *ret_over)
		ret = wait_received(d, e);
	if (ret == 0 && changed)
		ret = dest_sync_layout(d, &vmas, e);
	if (ret == 0 && changed)
		ret = dest_set_pieces(d, e);
	if (ret == 0 && (changed || *ret_over) && !last) {
		task_command(&d->skeleton.agent.task, COMMAND_RECEIVE);
		ret = task_wake(&d->skeleton.agent.task, e);
	}
	return ret;
}

/* News of files comes before. */
static int receive_round(struct dest *d, struct frame *ret, struct err *e)
{
	for (;;) {
		int code = frame_recv(d->link.fd[ROLE_CONTROL], ret, FRAME_PAYLOAD_MAX, -1, e);

		if (code < 0)
			return err_wrap(e, "waiting for a round"), code;
		if (ret->type == FRAME_ROUND)
			return 0;
		if (ret->type == FRAME_FILES)
			code = dest_files_running(d, ret, e);
		else if (ret->type == FRAME_ERROR)
			code = frame_error_decode(ret, e);
		else
			code = err_set(e, -EPROTO, "%s instead of a round", frame_type_name(ret->type));
		frame_free(ret);
		if (code < 0)
			return code;
	}
}

static int step_rounds(void *context, struct err *e)
{
	struct dest *d = context;
	bool over = false;
	int ret;

	task_command(&d->skeleton.agent.task, COMMAND_RECEIVE);
	ret = task_wake(&d->skeleton.agent.task, e);
	if (ret == 0)
		ret = frame_send(d->link.fd[ROLE_CONTROL], FRAME_PREPARED, NULL, 0, e);
	while (!over && ret == 0) {
		struct frame f;

		ret = receive_round(d, &f, e);
		if (ret < 0)
			return ret;
		ret = dest_take_round(d, &f, &over, e);
		frame_free(&f);
		if (ret == 0 && over && d->post_copy && d->offer->strategy != STRATEGY_HYBRID)
			ret = dest_register(d, NULL, e);
		if (ret == 0 && over) {
			for (size_t i = 0; i < d->skeleton.nthreads; i++)
				pace_boost(d->skeleton.threads[i]->task.tid);
			pace_rule();
		}
		if (ret == 0)
			ret = answer_round(d, e);
	}
	return ret;
}

/* --- after the commit --- */

/* Somebody wants to move the process on: the source sends what it has kept. The agent's requests on this socket are as short, so they do not mix. */
static void pull_rest(struct dest *d)
{
	struct fault_request q = { .kind = FAULT_PULL };

	if (send(d->link.fd[ROLE_FAULT], &q, sizeof(q), MSG_NOSIGNAL) == (ssize_t)sizeof(q))
		d->push = true;
}

static int step_pull(void *context, struct err *e)
{
	struct dest *d = context;
	struct scratch_header *h = scratch_header(&d->skeleton.agent.scratch);
	struct pollfd p = { d->skeleton.agent.pidfd, POLLIN, 0 };

	while (d->post_copy && !__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE)) {
		poll(&p, 1, d->push ? 2 : 50);
		if (arrival_wanted() && !d->push)
			pull_rest(d);
		if (__atomic_load_n(&h->drained, __ATOMIC_ACQUIRE) && d->skeleton.agent.uffd >= 0) {
			close_fdp(&d->skeleton.agent.uffd);
			__atomic_store_n(&h->uffd_released, 1, __ATOMIC_RELEASE);
		}
		if (p.revents && !__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE))
			return err_set(e, -ESRCH, "the agent of process %d ended before all pages were there", d->skeleton.pid);
	}
	if (h->agent_error)
		return err_sys(e, h->agent_error, "receiving the pages of process %d", d->skeleton.pid);
	return 0;
}

/* The record of the commit goes when the source has said that it knows; otherwise it stays for its question. */
static void forget_when_known(struct dest *d)
{
	struct frame f;

	if (frame_recv_expect(d->link.fd[ROLE_CONTROL], FRAME_RELEASE, &f, FRAME_HELLO_MAX, KNOWN_MS, NULL) < 0) {
		close_fdp(&d->outcome_fd);
		return;
	}
	frame_free(&f);
	outcome_forget(d->mig_id, take_fd(&d->outcome_fd));
}

static int step_release(void *context, struct err *e)
{
	struct dest *d = context;

	if (!d->post_copy && !d->go->bulk)
		wait_received(d, NULL); /* only the barrier was still to come */
	/* Where nothing was pushed the list of late calls is still to be run. */
	if (!d->post_copy && d->finish)
		batch_run(d->finish, NULL);
	task_command(&d->skeleton.agent.task, COMMAND_LEAVE);
	task_wake(&d->skeleton.agent.task, NULL);
	agent_wait_exit(&d->skeleton.agent, 5000);
	arrival_end(d->skeleton.pid, take_fd(&d->arrival_fd));
	frame_send(d->link.fd[ROLE_CONTROL], FRAME_RELEASE, NULL, 0, NULL);
	forget_when_known(d);
	return 0;
}

static const struct step steps[] = {
	{ "hello", step_hello, NULL, false },
	{ "offer", step_offer, NULL, false },
	{ "content", step_content, undo_content, false },
	{ "prepare", dest_prepare, dest_prepare_undo, false },
	{ "rounds", step_rounds, NULL, false },
	{ "go", dest_go, NULL, false },
	{ "restore", dest_restore, NULL, false },
	{ "commit", dest_commit, NULL, false },
	{ "pull", step_pull, NULL, true },
	{ "release", step_release, NULL, true },
};

const struct step_table dest_steps = { "dest", steps, ARRAY_SIZE(steps) };

static int watch_step(void *context, const struct step *step, struct err *e)
{
	struct dest *d = context;

	timeline_mark(step->name);
	return fault_point("dest", step->name, d->link.fd[ROLE_CONTROL], e);
}

int migrate_dest(int control, const void *hello_payload, size_t hello_len, int handoff, const char *self_name, struct err *e)
{
	static struct dest d;
	bool committed;
	int ret;

	d = (struct dest){ .self_name = self_name, .handoff = handoff, .outcome_fd = -1, .arrival_fd = -1, .link = LINK_INIT, .skeleton = SKELETON_INIT, .restore = FD_RESTORE_INIT };
	d.link.fd[ROLE_CONTROL] = control;
	ret = hello_decode(hello_payload, hello_len, &d.peer, e);
	if (ret < 0)
		return ret;
	memcpy(d.mig_id, d.peer->mig_id.data, sizeof(d.mig_id));
	fault_load();
	pace_calm(0);
	pace_prepare();
	ret = steps_run(&dest_steps, &d, watch_step, &committed, e);
	if (ret < 0 && !committed && !d.committed) {
		dest_tell_aborted(&d);
		frame_send_error(d.link.fd[ROLE_CONTROL], ret, e->message, NULL);
		outcome_forget(d.mig_id, take_fd(&d.outcome_fd));
	}
	timeline_mark("end");
	timeline_log();
	link_close(&d.link);
	return ret;
}
