/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * features.h - does this kernel have what a migration needs?
 *
 * Each feature is probed by using it, never by the kernel's version. Probes fork short-lived children and need root; each takes
 * milliseconds and leaves nothing behind.
 */
#ifndef GODWIT_KERN_FEATURES_H
#define GODWIT_KERN_FEATURES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct feature {
	const char *name;    /* stable word: "userfaultfd-wp-async" */
	const char *purpose; /* what Godwit does with it */
	const char *way_out; /* what to do when it is missing */
	bool required;       /* without it nothing moves */
	int (*probe)(struct err *e);
};

size_t features_count(void);
const struct feature *features_get(size_t i);
/* 0 when it is there, otherwise a negative errno and the step that failed. */
int feature_probe(const struct feature *feature, struct err *e);

#endif
