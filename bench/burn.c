// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * burn.c - a job for the cluster benchmark: `burn ITERATIONS [MIB [MIB_PER_S]]`
 *
 * First it writes into MIB of memory, at that pace, then it computes for so many iterations, then it reads what it wrote and ends: 0 when all was there. ITERATIONS 0 is said how many it
 * does in a second of CPU time; -1: it sleeps for ever instead.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MIB (1ul << 20)
#define PAGE 4096ul
#define SECOND 1000000000ull

static uint64_t compute(uint64_t x, long iterations)
{
	while (iterations-- > 0)
		x = x * 6364136223846793005ull + 1442695040888963407ull;
	return x;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void calibrate(void)
{
	uint64_t x = compute(1, 10000000), begin = cpu_ns(), took;
	long n = 0;

	do {
		x = compute(x, 10000000);
		n += 10000000;
		took = cpu_ns() - begin;
	} while (took < SECOND);
	printf("%.0f %u\n", (double)n * (double)SECOND / (double)took, (unsigned)x);
}

static unsigned char *fill(size_t mib, double mib_per_s)
{
	unsigned char *memory = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		exit(3);
	for (size_t at = 0; at < mib; at++) {
		for (size_t page = 0; page < MIB; page += PAGE)
			memset(memory + at * MIB + page, (int)(at % 251) + 1, PAGE);
		if (mib_per_s > 0)
			usleep((useconds_t)(1e6 / mib_per_s));
	}
	return memory;
}

int main(int argc, char **argv)
{
	long iterations = argc > 1 ? atol(argv[1]) : 0;
	size_t mib = argc > 2 ? (size_t)atol(argv[2]) : 0;
	unsigned char *memory;
	uint64_t x;

	if (!iterations) {
		calibrate();
		return 0;
	}
	memory = mib ? fill(mib, argc > 3 ? atof(argv[3]) : 0) : NULL;
	while (iterations < 0)
		pause();
	x = compute((uint64_t)argc, iterations);
	for (size_t page = 0; page < mib * MIB; page += PAGE)
		if (memory[page] != (unsigned char)(page / MIB % 251 + 1))
			return 1;
	return x == 1 ? 2 : 0;
}
