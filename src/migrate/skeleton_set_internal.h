/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* skeleton_set_internal.h - what skeleton_set.c and skeleton_commit.c share */
#ifndef GODWIT_MIGRATE_SKELETON_SET_INTERNAL_H
#define GODWIT_MIGRATE_SKELETON_SET_INTERNAL_H

#include "migrate/skeleton_set.h"

/* Takes one pending signal out of the queue of a process, 0: none. */
int skeleton_take_signal(struct skeleton *s, uint32_t signal, struct err *e);

#endif
