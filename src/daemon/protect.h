/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * protect.h - units of this node are copied to others, again and again (docs/protect.md)
 *
 * Theory of operation: a process of godwitd's, godwit-protect, runs while a unit is protected. What it protects is in the registry, what it has done in the journal (protect_journal.h), so that it goes on where
 * it was after its own death, and godwitd's. Each copy is made by a child of its own (protect_copy.c), which has godwitd take an image by its own unix socket, as `godwit checkpoint --keep-running` does, sends
 * it to the nodes that keep it, and writes down what has become of it: one at a time for a unit, and COPIES_AT_ONCE on a node. What ends, leaves, or is no longer protected is told to those nodes, until all of them
 * know.
 *
 *	stage    means                                  what is done
 *	RUNS     it runs here, and is protected         a copy every so often; while a keeper does not answer, it is asked once a second whose the unit is
 *	ENDED    it has ended, or is not protected      keepers are told, until all know
 *	LEFT     it runs on another node                keepers are told which
 *	FENCED   a keeper said: it is another node's    all its processes are killed, at once; nothing is told
 */
#ifndef GODWIT_DAEMON_PROTECT_H
#define GODWIT_DAEMON_PROTECT_H

#include <jansson.h>

#include "daemon/daemon.h"
#include "daemon/protect_journal.h"

#define PROTECT_TOLD_FOR_S 86400 /* that a unit has ended; who has not heard it by then is down, and asks the operator */

/* In the main process, once: where the journal is. */
int protect_init(const char *run_directory, struct err *e);
/* In the main process: starts godwit-protect when there is something to protect; the time until it looks again, -1: never. */
int protect_tick(struct daemon *d);
/* What godwit-protect does. */
void protect_loop(const struct daemon *d, pid_t daemon) __attribute__((noreturn));

/* protect_copy.c: what its children do, each for one unit whose journal is *j; they write it. */

/* Asks its keepers whose it is. Returns false when it is another node's; then j says so. */
bool protect_ask(const struct daemon *d, struct protect_journal *j);
/* Makes a copy and sends it. */
void protect_copy(const struct daemon *d, const struct registry_entry *entry, struct protect_journal *j);
/* Tells the keepers what j->stage says. True when all know. */
bool protect_tell(const struct daemon *d, struct protect_journal *j);
/* How many nodes could keep copies of it. */
size_t protect_candidates(const struct daemon *d, const struct protection *p);

/* Adds to what `godwit ps` says of a unit how it is protected. */
void protect_describe(const struct registry_entry *entry, json_t *unit);

#endif
