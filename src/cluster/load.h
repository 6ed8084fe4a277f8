/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * load.h - the load vector of a node: what the cluster knows about how busy it is
 *
 * The indices and their meaning are those of Utopia and LSF (Zhou et al., 1993; lsfintro): run queue lengths are *effective* ones,
 * that is for each unit of computing power, so that nodes of different size compare. Behind them come what a node is (cores, speed, maxmem)
 * and its pressure stall figures (kernel.org: accounting/psi), which say what a queue length cannot: how long work stood still for want of memory or I/O.
 *
 * A vector is a plain array of doubles, finite and not negative. Units: lengths in tasks, ut and psi* in parts of one, pg in pages a second, io in KiB a second,
 * it in minutes, sizes in MiB. `speed` is relative: 1 is the machine that the project's figures are from.
 */
#ifndef GODWIT_CLUSTER_LOAD_H
#define GODWIT_CLUSTER_LOAD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum load_index {
	LOAD_RUN,     /* tasks that ran or waited for a CPU in the last second; not an effective length: policies count with it */
	LOAD_R15S,    /* run queue, averaged over 15 s */
	LOAD_R1M,     /* over a minute */
	LOAD_R15M,    /* over 15 minutes */
	LOAD_UT,      /* CPU utilisation, over a minute */
	LOAD_PG,      /* paging: in and out */
	LOAD_IO,      /* disk transfers */
	LOAD_LS,      /* persons who are logged in */
	LOAD_IT,      /* since the last of them pressed a key */
	LOAD_TMP,     /* room in /tmp */
	LOAD_SWP,     /* free swap space */
	LOAD_MEM,     /* memory that can be had without paging */
	LOAD_CORES,   /* CPUs, or the part of them that a control group allows */
	LOAD_SPEED,   /* of one core */
	LOAD_MAXMEM,  /* memory that there is */
	LOAD_PSI_CPU, /* part of the last 10 s in which somebody waited for a CPU, */
	LOAD_PSI_MEM, /* for memory, */
	LOAD_PSI_IO,  /* for I/O */
	LOAD_INDICES
};

struct load {
	double v[LOAD_INDICES];
};

/* "r15s"; what requirement strings, `godwit nodes` and the API call it. */
const char *load_name(enum load_index index);
/* By its name or LSF's other one (ncpus, cpuf), -1 when there is none. `len` bytes, without a final 0. */
int load_find(const char *name, size_t len);
/* Whether more of it is better (mem), or less (ut). */
bool load_is_better_high(enum load_index index);
/* -EPROTO for what is no number, negative or beyond all reason. */
int load_check(const struct load *load, struct err *e);
/* What so many tasks and so much memory more will make of it. */
void load_add(struct load *load, double run, double mem_mib);
/* CPU work that can be done at once: cores times speed, never 0. */
double load_power(const struct load *load);

#endif
