/* SPDX-License-Identifier: GPL-2.0-or-later */
/* file_move.h - moves the descriptor table of a child into a fake skeleton, and compares the two */
#ifndef GODWIT_TESTS_UNIT_FILE_MOVE_H
#define GODWIT_TESTS_UNIT_FILE_MOVE_H

#include <sys/types.h>

#include "fake_skeleton.h"
#include "image/file.h"

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

struct file_move {
	struct file_source source;
	struct fdtable table;
	struct fsfile_table files;
	struct batch skeleton;
	struct fd_restore restore;
	uint64_t recapture_ns, update_ns;
};

/* Capture, phase 0; preparation; phase 1; capture again, phase 2 in the source (releases locks); update. Asserts that nothing fails. */
void file_move_run(struct file_move *m, void (*phase)(int), void (*before_restore)(void));
/* Captures the skeleton and asserts that its table is the source's. */
void file_move_compare(struct file_move *m);
/* A copy of the skeleton's descriptor. */
int file_move_get(struct file_move *m, int fd);
void file_move_end(struct file_move *m);

#endif
