// SPDX-License-Identifier: GPL-2.0-or-later
/* model.c - machines with processor sharing; see model.h */
#include "sim/model.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/util.h"

int model_init(struct model *m, size_t n, struct err *e)
{
	*m = (struct model){ .n = n };
	m->machines = calloc(n, sizeof(*m->machines));
	m->heap = calloc(n, sizeof(*m->heap));
	m->next_s = calloc(n, sizeof(*m->next_s));
	if (!m->machines || !m->heap || !m->next_s)
		return err_sys(e, -ENOMEM, "%zu nodes", n);
	for (size_t i = 0; i < n; i++) {
		m->heap[i] = m->machines[i].heap_at = (uint32_t)i;
		m->next_s[i] = HUGE_VAL;
	}
	return 0;
}

void model_free(struct model *m)
{
	for (size_t i = 0; m->machines && i < m->n; i++)
		free(m->machines[i].jobs);
	freep(&m->machines);
	freep(&m->heap);
	freep(&m->next_s);
}

/* CPU time a second that each job gets. */
static double rate(const struct machine *k)
{
	return k->n ? k->speed * MIN(1, k->cores / k->n) : 0;
}

static void put(struct model *m, size_t at, uint32_t node)
{
	m->heap[at] = node;
	m->machines[node].heap_at = (uint32_t)at;
}

static void sift(struct model *m, uint32_t node)
{
	size_t at = m->machines[node].heap_at, child;
	double key = m->next_s[node];

	for (; at > 0 && m->next_s[m->heap[(at - 1) / 2]] > key; at = (at - 1) / 2)
		put(m, at, m->heap[(at - 1) / 2]);
	while ((child = 2 * at + 1) < m->n) {
		if (child + 1 < m->n && m->next_s[m->heap[child + 1]] < m->next_s[m->heap[child]])
			child++;
		if (m->next_s[m->heap[child]] >= key)
			break;
		put(m, at, m->heap[child]);
		at = child;
	}
	put(m, at, node);
}

void model_advance(struct model *m, uint32_t node, double now_s)
{
	struct machine *k = &m->machines[node];
	double got = (now_s - k->at_s) * rate(k);

	k->virtual_s += got;
	k->busy_s += got * k->n / k->speed;
	k->at_s = now_s;
}

struct job *model_ending(const struct model *m, uint32_t node)
{
	const struct machine *k = &m->machines[node];
	struct job *first = NULL;

	for (uint32_t i = 0; i < k->n; i++)
		if (!first || k->jobs[i]->end_virtual < first->end_virtual)
			first = k->jobs[i];
	return first;
}

static void changed(struct model *m, uint32_t node)
{
	const struct machine *k = &m->machines[node];
	const struct job *first = model_ending(m, node);

	m->next_s[node] = first ? k->at_s + MAX(first->end_virtual - k->virtual_s, 0) / rate(k) : HUGE_VAL;
	sift(m, node);
}

double model_left(const struct model *m, const struct job *job)
{
	return MAX(job->end_virtual - m->machines[job->node].virtual_s, 0);
}

int model_add(struct model *m, uint32_t node, struct job *job, double left_s, double now_s, struct err *e)
{
	struct machine *k = &m->machines[node];

	if (k->n == k->room) {
		uint32_t room = MAX(8, 2 * k->room);
		struct job **grown = reallocarray(k->jobs, room, sizeof(struct job *));

		if (!grown)
			return err_sys(e, -ENOMEM, "jobs");
		k->jobs = grown;
		k->room = room;
	}
	model_advance(m, node, now_s);
	job->node = node;
	job->at = k->n;
	job->end_virtual = k->virtual_s + left_s;
	k->jobs[k->n++] = job;
	k->n_users += !job->overhead;
	k->used_mib += job->mem_mib;
	changed(m, node);
	return 0;
}

void model_remove(struct model *m, struct job *job, double now_s)
{
	struct machine *k = &m->machines[job->node];

	model_advance(m, job->node, now_s);
	k->jobs[job->at] = k->jobs[--k->n];
	k->jobs[job->at]->at = job->at;
	k->n_users -= !job->overhead;
	k->used_mib -= job->mem_mib;
	changed(m, job->node);
}

uint32_t model_first(const struct model *m, double *ret_s)
{
	*ret_s = m->next_s[m->heap[0]];
	return m->heap[0];
}
