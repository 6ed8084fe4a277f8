/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * keyring.h - keyrings (keyrings(7)) and Landlock domains (landlock(7)): what hangs on the credentials and cannot be read; and what else only BPF sees
 *
 * A key's number is the kernel's to give, and what is in most keys cannot be read: only session keyrings without keys of their own are made again, one for each
 * process, with the same name. Keys of a user or a thread, and Landlock domains, keep a unit from moving.
 */
#ifndef GODWIT_IMAGE_KEYRING_H
#define GODWIT_IMAGE_KEYRING_H

#include "base/err.h"
#include "image/refuse.h"
#include "kern/remote.h"
#include "task.pb-c.h"

int keyring_capture(pid_t pid, Gw__Process *msg, struct refusals *r, struct err *e);
int keyring_validate(const Gw__Process *msg, struct err *e);
/* Early, while privileged: the threads to come inherit it. */
void keyring_plan_join(struct batch *b, const Gw__Process *msg, uint32_t uid, uint32_t gid);
/* When the main thread has its ids. */
void keyring_plan_link(struct batch *b, const Gw__Process *msg);

#endif
