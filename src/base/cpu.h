/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cpu.h - instructions that a processor has or lacks, by name
 *
 * Of the extensions of x86-64 those that programs and libraries choose by CPUID when they start, and that end a program by SIGILL where they are missing. Not those that make no difference then
 * (prefetches, ERMS), and not those for kernels. Names are those of /proc/cpuinfo. References: Intel SDM volume 2 (CPUID), AMD APM volume 3, the psABI's levels x86-64-v2 to v4.
 */
#ifndef GODWIT_BASE_CPU_H
#define GODWIT_BASE_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define CPU_WORDS 2
#define CPU_NAME_MAX 24u /* bytes of a name, with its 0 */
#define CPU_BASELINE_VARIABLE "GODWIT_CPU_BASELINE"
#define CPU_VARIABLES 4
#define CPU_VARIABLE_MAX 1024

struct cpu_set64 {
	uint64_t word[CPU_WORDS];
};

/* How many features there are, and their names: 0 <= i < cpu_features(). On other architectures there are none. */
unsigned int cpu_features(void);
const char *cpu_feature_name(unsigned int i);
/* -1: no such name. */
int cpu_feature_find(const char *name);

bool cpu_has(const struct cpu_set64 *set, unsigned int i);
void cpu_add(struct cpu_set64 *set, unsigned int i);

/* What this processor has and the operating system supports, less what has been hidden. CPUID is asked once. */
struct cpu_set64 cpu_here(void);
/* Names with blanks or commas between: as if this processor lacked them. -EINVAL for a name that is none. */
int cpu_hide(const char *names, struct err *e);

/* What a program may use that has been started for that level ("x86-64", "x86-64-v2" to "x86-64-v4"). false: no such level. */
bool cpu_baseline(const char *level, struct cpu_set64 *ret);
/*
 * Variables that keep what a program starts with to a level: glibc's choice of functions and of directories for libraries, OpenSSL's, the Go runtime's; and the one that says so. "NAME=VALUE"
 * each, with what `before` (getenv-like) says kept. -EINVAL: no such level. What asks the processor by itself (virtual machines of languages, NumPy) is not told by them.
 */
int cpu_baseline_variables(const char *level, const char *(*before)(const char *name), char ret[CPU_VARIABLES][CPU_VARIABLE_MAX], struct err *e);

#endif
