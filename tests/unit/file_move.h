/* SPDX-License-Identifier: GPL-2.0-or-later */
/* file_move.h - moves the descriptor tables of children into fake skeletons, and compares the two */
#ifndef GODWIT_TESTS_UNIT_FILE_MOVE_H
#define GODWIT_TESTS_UNIT_FILE_MOVE_H

#include <sys/types.h>

#include "fake_skeleton.h"
#include "image/file.h"

#define FILE_PROCESSES_MAX 4
#define FILE_PHASE_ALL 100

/* A child with an empty descriptor table in which `phase(0)`, `phase(1)`... run on request. */
struct file_source {
	pid_t pid;
	int pidfd;
	struct file_shared *shared;
};

void file_source_start(struct file_source *s, void (*phase)(int));
/* Runs a phase in the child, and waits for it. */
void file_source_phase(struct file_source *s, int phase);
void file_source_end(struct file_source *s);

/* Processes that fork each other: the first is the root. */
struct file_tree {
	size_t n;
	int parent[FILE_PROCESSES_MAX];
	bool shares[FILE_PROCESSES_MAX]; /* its parent's descriptor table; only 1 may, that of 0 */
	/* Phase 0 of a process runs before the next one is forked; FILE_PHASE_ALL when all are there, before the capture. */
	void (*phase)(int process, int phase);
};

struct file_move {
	struct file_source source[FILE_PROCESSES_MAX];
	size_t n;
	struct fdtable table;
	struct fsfile_table files;
	struct batch skeleton[FILE_PROCESSES_MAX];
	struct fd_transfer transfer[FILE_PROCESSES_MAX];
	struct fd_restore restore;
	uint64_t recapture_ns, wire_ns, update_ns;
	size_t update_bytes;
	uint8_t *queues; /* behind it */
};

/* With it tables are read by BPF in the freeze; NULL: without. */
extern struct file_reader *file_move_reader;

/* Capture, phase 0; preparation; phase 1; capture again, phase 2 in the source (releases locks); update. Asserts that nothing fails. */
void file_move_run(struct file_move *m, void (*phase)(int), void (*before_restore)(void));
/* The same with several processes: each phase in all of them, in order. */
void file_move_run_tree(struct file_move *m, const struct file_tree *tree);
/* Captures the skeletons and asserts that their tables are the sources'. */
void file_move_compare(struct file_move *m);
/* Captures n processes; fails the test when they are refused. */
void file_capture_all(const struct fd_process *p, size_t n, struct fdtable *ret, struct fsfile_table *files);
/* A copy of the skeleton's descriptor. */
int file_move_get(struct file_move *m, int fd);
int file_move_get_from(struct file_move *m, int process, int fd);
void file_move_end(struct file_move *m);

/* Runs tests without BPF and, where the kernel has it, with it. In a directory of their own; the result is for main. */
#define file_move_main(tests) file_move_run_tests(tests, ARRAY_SIZE(tests))
struct CMUnitTest;
int file_move_run_tests(const struct CMUnitTest *tests, size_t n);

#endif
