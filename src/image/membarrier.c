/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* membarrier.c - see membarrier.h */
#include "image/membarrier.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>

#define GET_REGISTRATIONS (1 << 9) /* MEMBARRIER_CMD_GET_REGISTRATIONS, Linux 6.3 */

static const uint32_t kinds[] = {
	MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED,
	MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
	MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
	MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ,
};

struct remote_call *membarrier_plan_read(struct batch *b)
{
	return batch_try(b, "membarrier", SYS_membarrier, GET_REGISTRATIONS);
}

uint32_t membarrier_of(const struct remote_call *call)
{
	return call->ret < 0 ? 0 : (uint32_t)call->ret;
}

bool membarrier_is_valid(uint32_t registered)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		registered &= ~kinds[i];
	return !registered;
}

void membarrier_plan(struct batch *b, uint32_t wanted, uint32_t done)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (kinds[i] & wanted & ~done)
			batch_call(b, "membarrier", SYS_membarrier, kinds[i]);
}
