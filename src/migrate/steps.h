/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * steps.h - a migration as a table of steps, and faults injected into it
 *
 * Each side runs its table in order. When a step fails before the commit, the undo functions of all steps that were begun run in reverse.
 * `committed` marks the first step of the other side of the commit: from there on nothing is undone.
 */
#ifndef GODWIT_MIGRATE_STEPS_H
#define GODWIT_MIGRATE_STEPS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct step {
	const char *name;
	int (*run)(void *context, struct err *e);
	void (*undo)(void *context); /* NULL: nothing to undo */
	bool committed;
	bool guarded; /* the process may stand still, or the other side wait without an end: the worker must not be stopped (guard.h) */
};

struct step_table {
	const char *side; /* "source" or "dest" */
	const struct step *steps;
	size_t n;
};

extern const struct step_table source_steps, dest_steps;

/* Called before each step; a negative return ends the migration there. NULL: none. */
typedef int step_watch(void *context, const struct step *step, struct err *e);

/* Returns 0, or the error of the step that failed. *ret_committed says on which side of the commit that was. */
int steps_run(const struct step_table *table, void *context, step_watch *watch, bool *ret_committed, struct err *e);

/*
 * Fault injection for tests: a line "side:step:action" in /run/godwit/fault, read when a migration begins. Action kill: SIGKILL for this worker; killall: for the
 * daemon as well; stop: SIGSTOP; error: the step fails; garbage: nonsense on `fd`.
 */
void fault_load(void);
int fault_point(const char *side, const char *step, int fd, struct err *e);

#endif
