/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* link.h - the connections of one migration: control, go, fault, bulk */
#ifndef GODWIT_MIGRATE_LINK_H
#define GODWIT_MIGRATE_LINK_H

#include <netinet/in.h>
#include <stdint.h>

#include "base/err.h"
#include "migrate/migrate.h"
#include "wire/hello.h"

struct link {
	int fd[4]; /* by enum migrate_role; -1: not there */
};

#define LINK_INIT ((struct link){ { -1, -1, -1, -1 } })
#define LINK_TIMEOUT_MS 10000

/* Source: connects and says HELLO for one role. */
int link_connect(struct link *l, enum migrate_role role, const struct sockaddr_in *to, const uint8_t mig_id[HELLO_MIG_ID_BYTES], const char *self_name,
		 struct err *e);
/* Destination: waits until the daemon has handed over the other three. */
int link_accept(struct link *l, int handoff, int timeout_ms, struct err *e);
/*
 * For the two connections that carry pages after the commit, called before the go message: they wait out ten minutes of a broken link. After that the process at
 * the destination has lost its memory and is killed.
 */
void link_make_patient(struct link *l);
/* How long the destination may take no pages before the commit; later the agent sends without blocking, and this does not count. */
void link_limit_stall(int bulk, int timeout_ms);
void link_close(struct link *l);

#endif
