/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keep.h - copies of protected units: what a node that keeps them answers (ROLE_KEEP), and asking it; docs/protect.md
 */
#ifndef GODWIT_DAEMON_KEEP_H
#define GODWIT_DAEMON_KEEP_H

#include "daemon/daemon.h"
#include "daemon/keep_wire.h"
#include "migrate/registry.h"

/* Once, in the main process: where it is remembered which run of this host it is (a directory that does not outlive it). */
int keep_init(const char *run_directory, const char *node, struct err *e);
/* That: a random text, another one after each boot, and after this node has lost its protected units (fence.h). */
const char *keep_run(void);

/* "HOME:PID@ID" of a unit that is protected. */
void keep_key(const struct registry_entry *entry, char key[KEEP_UNIT_MAX]);

/* keep_serve.c: in the main process: another node asks; takes over a copy of fd. */
int keep_serve(struct daemon *d, int fd, const Gw__Hello *hello, struct err *e);
/* Restores the copy that the record of this unit names, which must say that this node is to (q->word is KEEP_TAKE). For workers; blocks until it runs. */
void keep_take(const struct daemon *d, const struct keep_question *q, struct keep_answer *answer);

/* What is not STORE, TAKE or LIST, asked by this node itself. */
void keep_obey(const struct daemon *d, const struct keep_question *q, struct keep_answer *answer);

/* keep_ask.c: for workers. */

/* One question to the node at that address, within timeout_ms. Whatever it answers is no error; keep_answer_free. */
int keep_ask(const struct daemon *d, const struct sockaddr_in *address, const struct keep_question *q, int timeout_ms, struct keep_answer *ret, struct err *e);
/* Sends a copy, the file `image`; q->bytes is filled in. As above. */
int keep_send(const struct daemon *d, const struct sockaddr_in *address, struct keep_question *q, const char *image, struct keep_answer *ret, struct err *e);

#endif
