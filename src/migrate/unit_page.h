/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * unit_page.h - one page for all processes of a unit: who owns them (agent/abi.h, struct unit_page)
 *
 * Each scratch has the page at SCRATCH_UNIT. With one process it is an ordinary page of the scratch. With several the root's page is mapped there, in the
 * other processes and in the worker's views of their scratches, so that every agent and every held thread looks at the same word.
 */
#ifndef GODWIT_MIGRATE_UNIT_PAGE_H
#define GODWIT_MIGRATE_UNIT_PAGE_H

#include "migrate/agent.h"

static inline uint32_t unit_state(const struct agent *a)
{
	return __atomic_load_n(&scratch_unit(&a->scratch)->state, __ATOMIC_ACQUIRE);
}

/* Whether the step of the handover (agent/handover.h) was made. */
static inline bool unit_step(const struct agent *a, enum handover_step step)
{
	return scratch_unit_step(&a->scratch, step);
}

#endif
