/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fake_skeleton.h - a child process that runs lists of calls from a shared scratch, in place of the agent and its batches */
#ifndef GODWIT_TESTS_UNIT_FAKE_SKELETON_H
#define GODWIT_TESTS_UNIT_FAKE_SKELETON_H

#include "kern/remote.h"

struct batch {
	pid_t pid;
	uint64_t address;       /* of the scratch in the child */
	unsigned char *scratch; /* here */
	uint32_t n_calls;
	uint64_t arena;         /* used so far */
	const char *what[16384];
};

#define FAKE_SCRATCH_SIZE (8ul << 20)

/* Forks the child, with the scratch at `address`. It inherits all descriptors. Ends the test process on failure. */
void fake_skeleton_start(struct batch *b, uint64_t address);
/* The same for a second child that shares the descriptor table of the first (CLONE_FILES). */
void fake_skeleton_start_sharing(struct batch *a, uint64_t address_a, struct batch *b, uint64_t address_b);
void fake_skeleton_end(struct batch *b);

#endif
