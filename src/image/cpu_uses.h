/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cpu_uses.h - which instructions the program of a process may use
 *
 * A program chooses them when it begins, by what the processor of that host says; it keeps them wherever it goes. What has begun here may use all that there is here, less what
 * `godwit run --cpu-baseline` has kept it from. What has come from another host was asked about there, and is known by the 16 random bytes that the kernel gives each program that begins
 * (AT_RANDOM of getauxval(3)): children have the same until they call exec.
 */
#ifndef GODWIT_IMAGE_CPU_USES_H
#define GODWIT_IMAGE_CPU_USES_H

#include <sys/types.h>

#include "base/cpu.h"
#include "image/refuse.h"
#include "task.pb-c.h"

#define CPU_PROGRAMS_MAX 8u
#define CPU_USES_MAX (64u * CPU_WORDS)

struct cpu_program {
	uint64_t id; /* of the random bytes; 0: none, or not known */
	struct cpu_set64 uses;
};

/* Those of a unit that have come from elsewhere. One that has found no room is taken for one that began here, where there is all that it needs. */
struct cpu_programs {
	struct cpu_program v[CPU_PROGRAMS_MAX];
	size_t n;
};

/* Before the offer: puts what a process may use into its message. It may run. */
void cpu_uses_describe(pid_t pid, const struct cpu_programs *known, Gw__Process *msg);
/* At the destination: remembers it. */
void cpu_uses_remember(const Gw__Process *msg, struct cpu_programs *programs);
/* Of an untrusted message. */
int cpu_uses_validate(const Gw__Process *msg, struct err *e);
/* Refuses what this host lacks. */
void cpu_uses_check(const Gw__Process *msg, struct refusals *r);
/* Which of the registers of XCR0 that the source has the process needs here. */
uint64_t cpu_uses_state(const Gw__Process *msg);

#endif
