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

/* Whether the state was `from` and is `to` now. */
static inline bool unit_state_exchange(const struct agent *a, uint32_t from, uint32_t to)
{
	return __atomic_compare_exchange_n(&scratch_unit(&a->scratch)->state, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

#endif
