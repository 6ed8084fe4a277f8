/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * outcome.h - who owns the process when the link has died: the destination's record of the commit, and how the source asks for it
 *
 * The destination's worker keeps one small file a migration, DIRECTORY/MIG_ID. It is locked (fcntl, so no child inherits the lock) as
 * long as somebody lives who could still write into it, the worker or an agent of the unit, and its one byte says whether the commit has happened. So godwitd,
 * also one that was started later, can answer for every worker, dead or alive (HANDOVER_RECORDS):
 *
 *	byte  locked  answer     the source
 *	'P'   yes     PENDING    asks again
 *	'P'   no      ABORTED    resumes the process: the skeleton died with its tracer, or waits for a word that nobody can write any more
 *	'C'   -       COMMITTED  lets go of its copy
 *	no file       UNKNOWN    resumes the process: nothing was committed, or this host has lost its /run with all that ran on it
 *
 * The order that makes this safe (agent/handover.h): outcome_begin, and the agents' locks, before PREPARED is sent; outcome_commit behind the commit point, and before
 * the first thread is let go; outcome_forget when the source is known to know (RELEASE).
 */
#ifndef GODWIT_MIGRATE_OUTCOME_H
#define GODWIT_MIGRATE_OUTCOME_H

#include <netinet/in.h>
#include <stdint.h>

#include "base/err.h"
#include "kern/remote.h"
#include "wire/hello.h"

#define OUTCOME_DEFAULT_DIRECTORY "/run/godwit/outcomes"
#define OUTCOME_BOOT_ID_MAX 128

/* The numbers are part of the protocol. */
enum outcome { OUTCOME_UNKNOWN, OUTCOME_PENDING, OUTCOME_ABORTED, OUTCOME_COMMITTED };

/* For this process and its children; the default is OUTCOME_DEFAULT_DIRECTORY. */
void outcome_use_directory(const char *directory);

/* Destination's worker. Returns the locked descriptor, which must stay open (and the only one of that file) as long as the worker may commit. */
int outcome_begin(const uint8_t mig_id[HELLO_MIG_ID_BYTES], struct err *e);
/* The agent of the unit's root, by `b`, holds the record as well, by the descriptor `fd` that it has: it writes it when the worker has died behind the commit point (agent/stub.c). */
int outcome_share(struct batch *b, int fd, struct err *e);
/* From now on the destination owns the process. Does not block; after a failure the record says what it said. */
int outcome_commit(int fd, struct err *e);
/* The other side needs no answer any more. Closes fd. */
void outcome_forget(const uint8_t mig_id[HELLO_MIG_ID_BYTES], int fd);

/* godwitd of the destination: what the record says. */
int outcome_query(const uint8_t mig_id[HELLO_MIG_ID_BYTES], enum outcome *ret, struct err *e);
/* Sends the answer to a connection whose HELLO had ROLE_ASK. */
int outcome_answer(int fd, const uint8_t mig_id[HELLO_MIG_ID_BYTES], struct err *e);
/*
 * Removes records of migrations that came to nothing and whose worker is dead, when they are older than a day: without a record the answer is UNKNOWN, which
 * means the same. A record of a commit stays for a source that is cut off longer than that.
 */
void outcome_clean(void);

/*
 * Source: asks the destination's godwitd once, within timeout_ms. ret_boot_id: of the host that answers (another one than in its HELLO:
 * it was booted since, nothing that it had received runs any more). Errors: the host cannot be reached, or is no node.
 */
int outcome_ask(const struct sockaddr_in *to, const Gw__Hello *self, int timeout_ms, enum outcome *ret, char ret_boot_id[OUTCOME_BOOT_ID_MAX],
		struct err *e);
/* What an ANSWER says. */
int outcome_answer_decode(const void *data, size_t len, enum outcome *ret, char ret_boot_id[OUTCOME_BOOT_ID_MAX], struct err *e);
/* "pending", ... */
const char *outcome_name(enum outcome outcome);

#endif
