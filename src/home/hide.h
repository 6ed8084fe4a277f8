/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hide.h - what whoever enters the namespaces of a stub finds there */
#ifndef GODWIT_HOME_HIDE_H
#define GODWIT_HOME_HIDE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/*
 * A unit that had a mount namespace of its own has left it behind with its stub, and with files as they were when it left. Who enters it (podman exec, nsenter) shall not take them for
 * the unit's: it finds an empty directory. Nothing is done to a namespace that is the host's, or that another process is in than the `n` of `unit`, which are about to end. Blocks for a moment.
 */
int hide_mounts(pid_t stub, const pid_t *unit, size_t n, struct err *e);

#endif
