/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * delta.h - the differences of pages between two moments; shared by the agent and the worker
 *
 * Those of a page, or of many, are a row of `struct delta`, each with its bytes behind it: the format of docs/wire.md.
 */
#ifndef GODWIT_AGENT_DELTA_H
#define GODWIT_AGENT_DELTA_H

#include <stddef.h>
#include <stdint.h>

/* One difference: `len` bytes (behind this) at an address, both multiples of 8, all in one page. */
struct delta {
	uint64_t address;
	uint32_t len, reserved;
};

/* Room that the differences of one page need at most. */
#define DELTA_PAGE_MAX (4096u + sizeof(struct delta))

/* Writes the differences of a page to `to`; returns how many bytes that are. */
size_t delta_make(const uint64_t *before, const uint64_t *now, uint64_t address, uint8_t *to);

#endif
