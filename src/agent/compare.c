/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * compare.c - what has changed in pages of the program since copies of them were made
 *
 * Theory of operation: the pages are read where they are, by the one who has them mapped; asking the kernel for each of them costs more than comparing it. What the worker knows of the
 * mappings may be old by now (a guard page, memory that was given back, in a rehearsal anything), so a page may not be readable. This task has signal handlers of
 * its own: SIGSEGV and SIGBUS are let through meanwhile, and end the comparison (entry.S), and only that.
 */
#include "sys.h"

#include "delta.h"

long compare_guarded(struct scratch_header *h, const struct compare_job *job);
long compare_pages(struct scratch_header *h, const struct compare_job *job);
/* entry.S; only their addresses are used: without the attribute the compiler would look for those in a table, which there is not. */
void compare_fault(void) __attribute__((visibility("hidden")));
void compare_return(void) __attribute__((visibility("hidden")));

#define PAGE_WORST 8192u /* of one page that is written meanwhile, in a rehearsal */

_Static_assert(offsetof(struct scratch_header, recover_stack) == 8 && SCRATCH_HEADER == 0x8000, "entry.S");

/* Called through compare_guarded. */
long compare_pages(struct scratch_header *h, const struct compare_job *job)
{
	const uint64_t *addresses = (const uint64_t *)job->addresses;
	uint64_t used = 0;

	(void)h;
	for (uint64_t i = 0; i < job->n; i++) {
		const uint64_t *sent = (const uint64_t *)(job->sent + i * AGENT_PAGE);

		if (job->room - used < PAGE_WORST)
			return E_NOMEM;
		used += delta_make(sent, (const uint64_t *)addresses[i], addresses[i], (uint8_t *)job->out + used);
	}
	return (long)used;
}

static long set_handler(int signal, uint64_t handler)
{
	const struct {
		uint64_t handler, flags, restorer, mask;
	} action = { handler, SA_RESTORER_FLAG | SA_SIGINFO_FLAG, (uint64_t)compare_return, ~0ull };

	return sys(__NR_rt_sigaction, signal, (long)&action, 0, sizeof(action.mask));
}

long agent_compare(const struct compare_job *job)
{
	const uint64_t all = ~0ull, faults = ~(1ull << (SIGNAL_SEGV - 1) | 1ull << (SIGNAL_BUS - 1));
	long ret = set_handler(SIGNAL_SEGV, (uint64_t)compare_fault);

	if (ret == 0)
		ret = set_handler(SIGNAL_BUS, (uint64_t)compare_fault);
	if (ret == 0)
		ret = sys(__NR_rt_sigprocmask, SIG_SETMASK_HOW, (long)&faults, 0, sizeof(faults));
	if (ret == 0)
		ret = compare_guarded((struct scratch_header *)job->header, job);
	sys(__NR_rt_sigprocmask, SIG_SETMASK_HOW, (long)&all, 0, sizeof(all));
	return ret;
}
