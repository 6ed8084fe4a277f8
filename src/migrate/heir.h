/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * heir.h - what is to be done when this worker has been killed in the middle of a migration
 *
 * The heir is a task of its own with the worker's memory and descriptors (clone(2): CLONE_VM, CLONE_FILES) that sleeps until the worker's end. Whatever the worker has
 * got to, it sees as it is, nothing of it being copied. It begins by closing all descriptors but those that it needs: others learn from their
 * end that the worker is dead. While the worker lives the heir touches nothing, not even errno, which they share.
 */
#ifndef GODWIT_MIGRATE_HEIR_H
#define GODWIT_MIGRATE_HEIR_H

#include <stddef.h>

#include "base/err.h"

struct heir {
	void (*first)(void *arg);     /* before anything is closed; NULL: nothing */
	/* The descriptors that are to stay open: at most `max`, or SIZE_MAX when there are more. */
	size_t (*keeps)(void *arg, int *ret, size_t max);
	void (*inherit)(void *arg);   /* then it ends */
	void *arg;
};

/* Returns its number. One at a time. *h must stay. */
int heir_start(const struct heir *h, struct err *e);
/* There is nothing to be inherited any more. */
void heir_dismiss(void);

#endif
