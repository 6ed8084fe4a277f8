/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* owned_internal.h - what the files of owned.h share */
#ifndef GODWIT_NET_OWNED_INTERNAL_H
#define GODWIT_NET_OWNED_INTERNAL_H

#include "net/owned.h"

/* owned.c. Records are changed, and addresses with them, by one at a time: a descriptor to be closed, -errno. */
int owned_lock(struct err *e);
int owned_write(const struct owned *o, struct err *e);
void owned_erase(pid_t pid);
/* As it is written, whether the process lives or not. */
int owned_read(pid_t pid, struct owned *ret);
const char *owned_directory(void);
/* With the lock: from the devices, and the record goes. */
void owned_take_away(struct netlink *nl, const struct owned *o);

/* owned_keeper.c: the keeper of a record, which is written; with the lock. It has been prepared before. */
int owned_keeper_begin(struct owned_keeper *keeper, struct owned *o, struct err *e);

#endif
