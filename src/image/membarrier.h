/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * membarrier.h - what an address space is registered for with membarrier(2)
 *
 * Registrations are bits (MEMBARRIER_CMD_REGISTER_*) of the address space, not of a thread: any task in it can read and make them. They are only
 * ever added; exec makes them none. Making one takes up to 30 ms where several tasks use the address space (the kernel waits for all CPUs),
 * so they are read before the freeze and made in the preparation; in the freeze only what has come since.
 */
#ifndef GODWIT_IMAGE_MEMBARRIER_H
#define GODWIT_IMAGE_MEMBARRIER_H

#include <stdbool.h>

#include "kern/remote.h"

/* Asks for the registrations; membarrier_of the call's result (none on kernels before 6.3, which cannot tell). */
struct remote_call *membarrier_plan_read(struct batch *b);
uint32_t membarrier_of(const struct remote_call *call);
bool membarrier_is_valid(uint32_t registered);
/* Makes those of `wanted` that are not in `done`. */
void membarrier_plan(struct batch *b, uint32_t wanted, uint32_t done);

#endif
