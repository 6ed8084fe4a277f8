/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* link.h - the connections of one migration: control and go, and for each process fault and bulk */
#ifndef GODWIT_MIGRATE_LINK_H
#define GODWIT_MIGRATE_LINK_H

#include <netinet/in.h>
#include <stdint.h>

#include "base/err.h"
#include "migrate/migrate.h"
#include "wire/hello.h"

/* The two connections that carry the pages of one process of the unit. */
struct page_link {
	int fault, bulk; /* -1: not there */
};

struct link {
	int control, go; /* -1: not there */
	struct page_link *pages;
	size_t npages;   /* processes */
};

#define LINK_INIT ((struct link){ .control = -1, .go = -1 })
#define LINK_TIMEOUT_MS 10000

/* Makes room for the connections of n processes. */
int link_expect(struct link *l, size_t n, struct err *e);

/* Source: connects and says HELLO for one role, and for which process of the unit (with ROLE_FAULT and ROLE_BULK). */
struct link_peer {
	const struct sockaddr_in *to;
	const uint8_t *mig_id; /* HELLO_MIG_ID_BYTES */
	const char *self_name;
	bool here; /* a part of this migration on this host, and no godwitd */
};
int link_connect(struct link *l, enum migrate_role role, uint32_t process, const struct link_peer *peer, struct err *e);
/* Destination: waits until the daemon has handed over the go connection, or with l->npages processes also all of theirs. */
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
