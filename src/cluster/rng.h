/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rng.h - random numbers that can be had again: the same seed, the same choices (gossip, policies, the simulator)
 *
 * splitmix64 (Steele, Lea, Flood, 2014): one word of state, good enough to choose nodes by. Not for secrets.
 */
#ifndef GODWIT_CLUSTER_RNG_H
#define GODWIT_CLUSTER_RNG_H

#include <stdint.h>

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* 0 to below n; n > 0. The bias is below n / 2^64. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)rng_next(r) * n) >> 64);
}

/* 0 <= x < 1 */
static inline double rng_unit(struct rng *r)
{
	return (double)(rng_next(r) >> 11) * 0x1p-53;
}

#endif
