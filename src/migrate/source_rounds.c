/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_rounds.c - the source's step "rounds": changes of layouts, and pages before the freeze
 *
 * A round tells what has changed in the layouts, then sends pages: all that are not at the destination (pre-copy, hybrid), or only eager ones. After the last
 * one come the working set and the rehearsal of the freeze.
 */
#include "migrate/source.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/util.h"
#include "image/mempolicy.h"
#include "migrate/timeline.h"
#include "wire/frame.h"

#define ROUNDS_MAX 12u
#define ROUND_SMALL 128u              /* pages: a round this small is followed by the freeze */
#define ROUND_ANSWER_MS 60000
#define WORKING_SET_NS 2000000        /* how long write tracking watches before the freeze */

/*
 * New layouts. A barrier goes before each in its process's stream of pages: the destination changes the layout when it has received the pages of the old one,
 * and before it takes those of the new one. The last round ends with a barrier too: what goes with the registers is newer than what may
 * still be on its way.
 */
int source_tell_layouts(struct source *s, const struct layouts *changed, bool over, struct err *e)
{
	Gw__Round round = GW__ROUND__INIT;
	cleanup_free Gw__RoundLayout *l = calloc(s->nprocs, sizeof(*l)), **list = calloc(s->nprocs, sizeof(*list));
	cleanup_free uint8_t *packed = NULL;
	int ret = l && list ? 0 : err_sys(e, ENOMEM, "a round");

	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		if (changed->v[i] || over)
			ret = pages_barrier(&s->procs[i].pages, e);
		if (ret < 0 || !changed->v[i])
			continue;
		list[round.n_layouts] = &l[i];
		gw__round_layout__init(&l[i]);
		l[i].process = (uint32_t)i;
		ret = vma_list_encode(changed->v[i], &l[i].vmas.data, &l[i].vmas.len, e);
		round.n_layouts++;
	}
	round.layouts = list;
	round.over = over;
	round.queued = over ? fdtable_expect_queues(&s->unit.fds) : 0;
	packed = ret == 0 ? malloc(gw__round__get_packed_size(&round) + 1) : NULL;
	if (ret == 0)
		ret = packed ? frame_send(s->link.control, FRAME_ROUND, packed, gw__round__pack(&round, packed), e) : err_sys(e, ENOMEM, "a round");
	for (size_t i = 0; l && i < s->nprocs; i++)
		free(l[i].vmas.data);
	return ret;
}

static int take_new_layout(struct source_process *p, struct vma_list *vmas, struct err *e)
{
	struct vma_list old = p->u->vmas;
	int ret;

	p->u->vmas = *vmas;
	*vmas = (struct vma_list){ 0 };
	p->rehearsed_layout = 0;
	p->rehearsed_digest = (struct vma_digest){ 0 };
	ret = pages_layout(&p->pages, &p->u->vmas, e);
	if (ret == 0)
		ret = pages_forget_remapped(&p->pages, &old, &p->u->vmas, p->s->unit.files.n, e);
	vma_list_free(&old);
	return ret;
}

/* A program that calls exec has another vdso: nothing of what was offered holds any more. */
static bool has_executed(const struct vma_list *old, const struct vma_list *new)
{
	for (size_t i = 0; i < old->n; i++) {
		const struct vma *v = old->v[i].kind == VMA_VDSO ? vma_find(new, old->v[i].start) : NULL;

		if (old->v[i].kind == VMA_VDSO)
			return !v || v->kind != VMA_VDSO || v->start != old->v[i].start;
	}
	return false;
}

static int reread_layouts(struct source *s, struct round *r, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		struct unit_process *u = &s->unit.procs[i];
		bool changed = false;

		ret = u->guest ? 0 : vma_list_reread(u->pid, &u->vmas, true, &s->unit.files, s->refusals, &r->vmas[i], &changed, e);
		if (ret == 0 && s->refusals->n)
			ret = refusals_begun(s->refusals, u->pid, e);
		if (ret == 0 && changed && has_executed(&u->vmas, &r->vmas[i]))
			ret = err_set(e, -EAGAIN, "process %d has called exec since the offer", u->pid);
		if (ret == 0 && changed)
			vma_list_apply_answers(&r->vmas[i], s->answers, s->nanswers);
		r->now[i] = changed ? &r->vmas[i] : &u->vmas;
		r->changed[i] = changed ? &r->vmas[i] : NULL;
	}
	return ret;
}

int source_round_begin(struct source *s, struct round *r, struct err *e)
{
	*r = (struct round){ calloc(s->nprocs, sizeof(*r->vmas)), calloc(s->nprocs, sizeof(*r->now)), calloc(s->nprocs, sizeof(*r->changed)) };
	return r->vmas && r->now && r->changed ? reread_layouts(s, r, e) : err_sys(e, ENOMEM, "a round");
}

void source_round_end(struct source *s, struct round *r)
{
	for (size_t i = 0; r->vmas && i < s->nprocs; i++)
		vma_list_free(&r->vmas[i]);
	free(r->vmas);
	free(r->now);
	free(r->changed);
}

static int exchange_round(struct source *s, struct round *r, bool over, struct err *e)
{
	const struct layouts now = { r->now, s->nprocs }, changed = { r->changed, s->nprocs };
	struct frame f;
	int ret;

	source_look_at_descriptors(s);
	source_note_layouts(s);
	ret = source_tell_files(s, &now, e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (r->changed[i])
			vma_list_apply_answers(&r->vmas[i], s->answers, s->nanswers);
	if (ret == 0)
		ret = source_tell_layouts(s, &changed, over, e);
	if (ret == 0)
		ret = frame_recv_expect(s->link.control, FRAME_ROUND, &f, FRAME_HELLO_MAX, ROUND_ANSWER_MS, e);
	if (ret < 0)
		return ret;
	frame_free(&f);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (r->changed[i])
			ret = take_new_layout(&s->procs[i], &r->vmas[i], e);
	return ret;
}

/* Sends a Round and waits for its answer. */
static int send_round(struct source *s, bool over, struct err *e)
{
	struct round r;
	int ret = source_round_begin(s, &r, e);

	if (ret == 0)
		ret = exchange_round(s, &r, over, e);
	source_round_end(s, &r);
	return ret;
}

static int all_pages_round(struct source *s, int kinds, uint64_t *ret_sent, struct err *e)
{
	uint64_t sent = 0;
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		uint64_t n = 0;

		ret = pages_round(&s->procs[i].pages, kinds, &n, e);
		sent += n;
	}
	if (ret_sent)
		*ret_sent = sent;
	return ret;
}

/* Repeats until little is left or it no longer becomes less. */
static int precopy_rounds(struct source *s, struct err *e)
{
	uint64_t last = UINT64_MAX;

	for (unsigned i = 0; i < ROUNDS_MAX; i++) {
		uint64_t sent = 0;
		int ret = send_round(s, false, e);

		if (ret == 0)
			ret = all_pages_round(s, PAGES_LAZY | PAGES_EAGER, &sent, e);
		if (ret < 0)
			return ret;
		s->report->rounds++;
		source_account(s);
		if (s->request->progress && s->request->progress(s->report, s->request->progress_arg))
			return err_set(e, -ECANCELED, "cancelled");
		if (sent <= ROUND_SMALL * s->nprocs || (i > 2 && sent >= last - last / 8))
			return 0;
		last = sent;
	}
	return 0;
}

int source_find_working_set(struct source *s, struct err *e)
{
	struct timespec pause = { 0, WORKING_SET_NS };
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		struct run_list ignored = { 0 };

		ret = pages_written(&s->procs[i].pages, 0, &ignored, e);
		run_list_free(&ignored);
	}
	if (ret < 0)
		return ret;
	nanosleep(&pause, NULL);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = pages_written(&s->procs[i].pages, GO_PAGES_MAX, &s->procs[i].hot, e);
	return ret;
}

static int find_memory_policies(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (!s->procs[i].u->guest)
			ret = mempolicy_find(s->procs[i].agent.batch, &s->procs[i].u->vmas, s->procs[i].u->process, e);
	return ret;
}

int source_rounds(void *context, struct err *e)
{
	struct source *s = context;
	enum strategy strategy = s->strategy;
	int ret = 0;

	s->post_copy = strategy_is_post_copy(strategy);
	s->push = strategy_pushes(strategy);
	for (size_t i = 0; i < s->nprocs && ret == 0 && strategy != STRATEGY_STOP_COPY; i++)
		ret = pages_track(&s->procs[i].pages, e);
	if (ret == 0 && (strategy == STRATEGY_PRE_COPY || strategy == STRATEGY_HYBRID))
		ret = precopy_rounds(s, e);
	else if (ret == 0 && strategy != STRATEGY_STOP_COPY && !s->direct_io)
		ret = all_pages_round(s, PAGES_EAGER, NULL, e);
	if (ret == 0)
		ret = source_net_tell_ahead(s, s->link.control, e);
	if (ret == 0)
		ret = send_round(s, true, e);
	if (ret == 0)
		ret = find_memory_policies(s, e);
	timeline_mark("rounds over");
	if (ret == 0)
		source_rehearse(s, false);
	timeline_mark("rehearsed");
	return ret;
}
