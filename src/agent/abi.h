/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * abi.h - the layout of the scratch area, shared by the agent (freestanding) and the worker
 *
 * The scratch is one memfd mapped shared into the process that moves and into its worker. Offsets:
 *
 *   0                      code of the agent (read-only, executable in the process)
 *   SCRATCH_HEADER         struct scratch_header
 *   SCRATCH_SLOTS          one struct slot a task, SLOT_SIZE apart; slot 0 is the agent's, slot 1.. the threads'
 *   header->arena_offset   arena: lists of calls and their data, handed out by the worker
 *
 * All words that both sides write are 32-bit futex words, accessed with __atomic builtins.
 */
#ifndef GODWIT_AGENT_ABI_H
#define GODWIT_AGENT_ABI_H

#include <stdint.h>

/* One system call. ret is the raw kernel result (negative errno). */
struct remote_call {
	uint64_t nr;
	uint64_t arg[6];
	int64_t ret;
	uint32_t flags; /* CALL_* */
	uint32_t reserved;
};

#define CALL_MAY_FAIL 1u /* a failure does not end the list */
#define CALL_SKIPPED (-4095) /* ret of calls behind the one that ended the list */

#endif
