/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_freeze.c - the freeze: everything is made ready, all threads are parked, and what only a stopped process shows is captured
 *
 * Theory of operation: everything that can be done before the stop is (lists of calls are written, files opened). The stop is in source_park.c, the looks at what has changed in
 * source_compare.c, the choice of pages in source_choose.c.
 */
#include <errno.h>

#include "base/util.h"
#include "image/cwd.h"
#include "image/mempolicy.h"
#include "image/ns_other.h"
#include "image/thread_plain.h"
#include "migrate/pace.h"
#include "migrate/source.h"
#include "migrate/timeline.h"

/* More than there was room for, groups for example: the thread is asked again, beside its list, whose answers about the process are still to be read. */
static int ask_thread_again(struct source_process *p, struct parked *t, bool is_main, struct err *e)
{
	struct batch *b = batch_new(&t->task);
	int ret;

	thread_capture_plan(b, &t->query, NULL);
	ret = batch_run(b, e);
	if (ret == 0)
		ret = thread_capture_collect(&t->query, t->msg, &p->process->pending, is_main, e);
	batch_free(b);
	return ret;
}

static int collect_thread(struct source_process *p, struct parked *t, bool is_main, struct err *e)
{
	int ret = t->plain ? 0 : batch_finish(t->batch, e);

	if (t->plain) {
		thread_complete_plain(p->parked[0].msg, t->msg);
		return 0;
	}
	if (ret == 0)
		ret = thread_capture_collect(&t->query, t->msg, &p->process->pending, is_main, e);
	return ret == -EAGAIN ? ask_thread_again(p, t, is_main, e) : ret;
}

/* /proc shows the numbers of the pid namespace that it is of: godwitd's. */
static void use_inner_numbers(struct source_process *p)
{
	p->process->pid = p->u->number;
	for (size_t i = 0; i < p->process->n_timers; i++) {
		Gw__PosixTimer *t = p->process->timers[i];

		if (t->notify_tid > 0)
			t->notify_tid = p->u->elsewhere ? ns_seen(t->notify_tid) : t->notify_tid; /* as the process sees it */
	}
}

static int collect(struct source_process *p, struct err *e)
{
	int ret = 0;

	/* The last one first, as in wait_stops. What comes of it is seen below. */
	if (p->nparked > 1)
		task_wait(&p->parked[p->nparked - 1].task, 60000, NULL);
	for (size_t i = 0; i < p->nparked && ret == 0; i++) {
		ret = collect_thread(p, &p->parked[i], i == 0, e);
		if (ret == 0 && i == 0) {
			mm_capture_collect(&p->u->mm, p->brk);
			ret = process_capture_collect(&p->query, p->process, e);
			mempolicy_keep(p->u->process, source_layout(p), p->process);
			use_inner_numbers(p);
			if (ret == 0 && p->process->loginuid_plus_1 != p->u->process->loginuid_plus_1)
				ret = err_set(e, -EAGAIN, "process %d has changed its login id since the offer", p->u->pid);
		}
	}
	return ret;
}

static int plan_all(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = source_plan_parking(&s->procs[i], e);
	return ret;
}

static int collect_sysv(struct source *s, struct err *e)
{
	cleanup_free Gw__Process **msgs = calloc(s->nprocs, sizeof(*msgs));

	if (!msgs)
		return err_sys(e, ENOMEM, "System V objects");
	for (size_t i = 0; i < s->nprocs; i++)
		msgs[i] = s->procs[i].process;
	return sysv_recapture(s->unit.sysv, s->procs[0].u->process, msgs, e);
}

static int collect_all(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = collect(&s->procs[i], e);
	return ret < 0 ? ret : collect_sysv(s, e);
}

static size_t count_threads(const struct source *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->nprocs; i++)
		n += s->procs[i].nparked;
	return n;
}

/*
 * All that the freeze needs is planned and touched, then the working set is looked for and goes ahead: the less time passes from there to the stop, the less differs, and the more of it is in
 * this CPU's cache.
 */
static int get_ready(struct source *s, struct err *e)
{
	int ret = plan_all(s, e);

	timeline_mark("planned");
	link_make_patient(&s->link);
	pace_warm_prepare(true);
	pace_prepare_for(count_threads(s));
	pace_touch();
	timeline_mark("touched");
	if (ret == 0 && s->post_copy && s->strategy != STRATEGY_HYBRID)
		ret = source_find_working_set(s, e);
	timeline_mark("working set found");
	if (ret == 0 && !s->direct_io)
		ret = source_send_ahead(s, e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = source_plan_beside(&s->procs[i], e);
	timeline_mark("working set sent ahead");
	if (ret == 0)
		ret = source_home_hold(s, e);
	if (ret == 0)
		ret = source_net_tell_ahead(s, s->link.go, e);
	if (ret == 0)
		source_rehearse(s, true);
	return ret;
}

int source_freeze(void *context, struct err *e)
{
	struct source *s = context;
	int ret;

	ret = source_net_depart(s, e);
	if (ret == 0)
		ret = get_ready(s, e);
	if (ret == 0)
		source_net_hold(s);
	if (ret == 0)
		ret = source_address_hold(s, e);
	timeline_mark("ready");
	pace_remember(s->procs[0].u->pid);
	for (size_t i = 0; i < s->nprocs; i++)
		if (s->procs[i].beside.b)
			pace_apart(s->procs[i].agent.pid, &s->procs[i].beside.cpus);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		source_seize(&s->procs[i]);
	timeline_mark("seized");
	pace_rule();
	if (ret == 0)
		ret = source_stop_and_park(s, e);
	timeline_mark("parked");
	if (ret == 0)
		ret = source_compare(s, e);
	timeline_mark("layout and descriptors compared");
	/* The threads run their lists meanwhile. */
	if (ret == 0)
		ret = source_choose_pages(s, e);
	timeline_mark("pages chosen");
	if (ret == 0)
		ret = source_read_pages(s, e);
	timeline_mark("pages read");
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		ret = source_look(&s->procs[i], e);
		if (ret == 0 && strcmp(s->procs[i].process->root, s->procs[i].u->process->root) != 0)
			ret = err_set(e, -EAGAIN, "process %d has called chroot since the offer", s->procs[i].u->pid);
		if (ret == 0 && cwd_is_news(s->procs[i].u->process, s->procs[i].process))
			ret = err_set(e, -EAGAIN, "process %d: its working directory was removed since the offer", s->procs[i].u->pid);
	}
	timeline_mark("processes seen");
	ret = ret < 0 ? ret : collect_all(s, e);
	timeline_mark("collected");
	return ret;
}
