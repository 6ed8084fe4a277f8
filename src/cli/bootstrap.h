/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * bootstrap.h - the programs for a host that has none: godwit, godwitd, and the libraries that they need
 *
 * They are a tar archive, filled up to whole blocks, so that dd(1) can take it from ssh's channel over there, and not a byte more; what comes behind is the bridge's. The libraries of the C library itself are
 * those of the host: its loader does not go with others.
 */
#ifndef GODWIT_CLI_BOOTSTRAP_H
#define GODWIT_CLI_BOOTSTRAP_H

#include <stddef.h>

#include "base/err.h"

#define BOOTSTRAP_BLOCK 65536u

struct bootstrap {
	char *data;    /* malloc'ed */
	size_t len, done, blocks;
};

/* bin/godwit, bin/godwitd, lib/. By ldd(1) and tar(1). */
int bootstrap_pack(struct bootstrap *ret, struct err *e);
/* On the other host, by the program that has been copied: from now on its directory is godwitd's, to remove at its end. */
void bootstrap_mark(void);

#endif
