/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_beside.c - what the agent does in the freeze while the worker does other things
 *
 * Theory of operation: from the stop on until threads are parked the CPU that the program has left has nothing to do, and the agent has the program's memory mapped. It compares what went
 * ahead (source_ahead.c), and then looks through half of a large memory for pages that were written (pages_stale.c). Both is done in a list of calls, begun when all threads
 * stand still, and has been rehearsed. An agent that has inherited a filter of system calls may not do what is needed for it.
 */
#include <errno.h>

#include "image/seccomp.h"
#include "migrate/pace.h"
#include "migrate/source.h"

bool source_has_beside(const struct source_process *p)
{
	return !seccomp_in_use(p->u->threads, p->u->nthreads);
}

static int wait_planned(void *process, struct err *e)
{
	return source_end_beside(process, e);
}

int source_plan_beside(struct source_process *p, struct err *e)
{
	struct err tried = ERR_INIT;
	bool scans = p->s->strategy == STRATEGY_HYBRID || p->s->strategy == STRATEGY_PRE_COPY;
	int ret;

	if (!source_has_beside(p))
		return 0;
	p->beside.b = batch_new(&p->agent.task);
	if (p->ahead.n && p->ahead.job)
		p->beside.compare = batch_try(p->beside.b, "comparing the working set", CALL_COMPARE, p->ahead.job_address);
	if (scans)
		pages_plan_scan(&p->pages, p->beside.b);
	p->pages.wait_planned = wait_planned;
	p->pages.wait_arg = p;
	if (!batch_count(p->beside.b)) {
		source_free_beside(p);
		return 0;
	}
	ret = source_begin_beside(p, &tried);
	if (ret == 0)
		ret = source_end_beside(p, &tried);
	if (ret == -ENOMEM) { /* no room in the scratch */
		source_free_beside(p);
		return 0;
	}
	if (ret < 0 && e)
		*e = tried;
	return ret;
}

int source_begin_beside(struct source_process *p, struct err *e)
{
	if (!p->beside.b)
		return 0;
	p->beside.begun = true;
	return batch_start(p->beside.b, e);
}

int source_end_beside(struct source_process *p, struct err *e)
{
	if (!p->beside.begun)
		return 0;
	p->beside.begun = false;
	/* Somebody else may have the other CPUs: then it may have this one, which is free while it is waited for. */
	if (!task_is_done(&p->agent.task))
		pace_together(p->agent.pid, &p->beside.cpus);
	return batch_finish(p->beside.b, e);
}

void source_free_beside(struct source_process *p)
{
	batch_free(p->beside.b);
	p->beside = (struct beside){ 0 };
	p->pages.planned = (struct pagemap_planned){ 0 };
}
