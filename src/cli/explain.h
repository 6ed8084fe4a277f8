/* SPDX-License-Identifier: GPL-2.0-or-later */
/* explain.h - what the codes of refusals mean: docs/refusals.md, as tools/refusals.py makes it a table */
#ifndef GODWIT_CLI_EXPLAIN_H
#define GODWIT_CLI_EXPLAIN_H

#include <stddef.h>

struct explanation {
	const char *code;
	const char *text; /* lines of 80 columns, without the last newline */
};

/* By code. */
extern const struct explanation explanations[];
extern const size_t n_explanations;

#endif
