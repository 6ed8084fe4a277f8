/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * model.h - nodes that share their cores among jobs, and the moments at which the next one ends
 *
 * A node counts *virtual time*: the CPU time that each of its jobs has got so far. A job ends when that reaches a value fixed at its arrival, so nothing need be done to the
 * jobs when their number changes. An indexed heap holds, for each node, when its next job ends.
 */
#ifndef GODWIT_SIM_MODEL_H
#define GODWIT_SIM_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct job {
	double arrival_s, cpu_s;  /* all that it needs */
	double mem_mib;
	double end_virtual;       /* of its node */
	double moved_s;           /* -1: never */
	uint32_t node;
	uint32_t at;              /* its place among the jobs of the node */
	uint32_t moves;
	uint8_t overhead;         /* the work of a move, and no job of a user's */
};

struct machine {
	struct job **jobs;
	uint32_t n, room, n_users; /* users: without overhead */
	double virtual_s, at_s;   /* virtual time at the moment at_s */
	double cores, speed, mem_mib, used_mib;
	double busy_s;            /* CPU time that it has given */
	uint32_t heap_at;
	uint8_t dead;
};

struct model {
	struct machine *machines;
	size_t n;
	uint32_t *heap;           /* of machines by next_s */
	double *next_s;           /* when the next job of each ends; HUGE_VAL: none */
};

int model_init(struct model *m, size_t n, struct err *e);
void model_free(struct model *m);
/* Brings virtual time to now. */
void model_advance(struct model *m, uint32_t node, double now_s);
/* CPU time that a job still needs; the node has been advanced. */
double model_left(const struct model *m, const struct job *job);
int model_add(struct model *m, uint32_t node, struct job *job, double left_s, double now_s, struct err *e);
void model_remove(struct model *m, struct job *job, double now_s);
/* The machine whose job ends first, and when. */
uint32_t model_first(const struct model *m, double *ret_s);
/* The job of a machine that ends first, NULL: it has none. */
struct job *model_ending(const struct model *m, uint32_t node);

#endif
