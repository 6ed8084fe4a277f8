/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* owner.h - whose process a stub is: what it was, for as long as it is root's (back.h) */
#ifndef GODWIT_HOME_OWNER_H
#define GODWIT_HOME_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct owner {
	uint32_t uid[3], gid[3]; /* real, effective, saved */
	uint32_t *groups;
	size_t n_groups;
};

/* Fills in *ret, which is empty; owner_forget frees what it has. */
int owner_read(pid_t pid, struct owner *ret, struct err *e);
void owner_forget(struct owner *o);
/* Whether the process can get the rights that making processes takes, by a set-user-ID program. */
bool owner_can_be_root(pid_t pid);

#endif
