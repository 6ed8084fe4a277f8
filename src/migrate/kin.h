/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* kin.h - which process to move instead, when what is in the way is one that stays behind and is a relative */
#ifndef GODWIT_MIGRATE_KIN_H
#define GODWIT_MIGRATE_KIN_H

#include <sys/types.h>

#include "image/refuse.h"

/*
 * Two ranks of a job that share memory, two workers of a pool: each is in the other's way, and both move as one unit with their nearest common ancestor. Where there is one,
 * below the host's first process and godwitd, the way out of such refusals (refusals_blame) says so. One ancestor is named, of all that are in the way. Where there is none, as of a
 * daemon that has left the tree, the way out names the processes that have to be given for one unit; also[n_also] have been.
 */
void kin_advise(pid_t pid, const pid_t *also, size_t n_also, struct refusals *refusals);

/* Takes out of a list of processes those that are below another one of it. */
void kin_keep_tops(pid_t *v, size_t *n);

#endif
