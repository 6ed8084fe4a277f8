/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mpi.c - a job of MPI whose result is known: built by the end-to-end tests with each MPI that there is (mpicc)
 *
 *	mpi ROUNDS PAUSE_US [HURRY]
 *
 * In each round every rank sends a block to the next one in a ring and gets one from the one before, compares every word of it, and all sum what they have.
 * Rank 0 prints a line each hundred rounds, and at the end "done SUM", which is the same without a move. Between rounds they pause, until there is a file HURRY.
 */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static uint64_t word(uint64_t rank, uint64_t round, uint64_t i)
{
	uint64_t x = rank * 0x9e3779b97f4a7c15ull + round * 0xbf58476d1ce4e5b9ull + i * 0x94d049bb133111ebull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	return x ^ x >> 31;
}

int main(int argc, char **argv)
{
	uint64_t rounds, n, sum = 0, *out, *in;
	int rank, ranks, pause_us;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000;
	pause_us = argc > 2 ? atoi(argv[2]) : 0;
	n = 65536 / sizeof(*out);
	out = malloc(n * sizeof(*out));
	in = malloc(n * sizeof(*in));
	for (uint64_t round = 0; round < rounds; round++) {
		int before = (rank + ranks - 1) % ranks, after = (rank + 1) % ranks;
		uint64_t mine = 0, all = 0, some = round % 16 ? 1 + n / 64 : n;

		for (uint64_t i = 0; i < some; i++)
			out[i] = word((uint64_t)rank, round, i);
		MPI_Sendrecv(out, (int)some, MPI_UINT64_T, after, 7, in, (int)some, MPI_UINT64_T, before, 7, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		for (uint64_t i = 0; i < some; i++) {
			if (in[i] != word((uint64_t)before, round, i)) {
				printf("WRONG: rank %d, round %llu, word %llu\n", rank, (unsigned long long)round, (unsigned long long)i);
				fflush(stdout);
				MPI_Abort(MPI_COMM_WORLD, 1);
			}
			mine += in[i];
		}
		MPI_Allreduce(&mine, &all, 1, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
		sum = sum * 31 + all;
		if (rank == 0 && round % 100 == 0) {
			printf("round %llu\n", (unsigned long long)round);
			fflush(stdout);
		}
		if (argc > 3 && pause_us && round % 16 == 0 && access(argv[3], F_OK) == 0)
			pause_us = 0;
		if (pause_us)
			usleep((useconds_t)pause_us);
	}
	if (rank == 0)
		printf("done %llx\n", (unsigned long long)sum);
	fflush(stdout);
	MPI_Finalize();
	return 0;
}
