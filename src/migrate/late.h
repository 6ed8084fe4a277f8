/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * late.h - signals that came to the source's copy after its pending ones had been captured
 *
 * They travel with the first RELEASE after the commit, and are sent anew. Where a stub is left (docs/home.md) it forwards them itself. What comes
 * between this look and the copy's end is lost: by then its number belongs to nobody.
 */
#ifndef GODWIT_MIGRATE_LATE_H
#define GODWIT_MIGRATE_LATE_H

#include <stdint.h>
#include <stddef.h>

struct source;
struct source_process;
struct dest;

/* Source, after the commit, before the copy is ended; again and again. */
void late_look(struct source_process *p);
/* What was found, as the payload of RELEASE; malloc'ed, NULL when there is nothing. */
uint8_t *late_encode(const struct source *s, size_t *ret_len);

/* Destination: takes such a payload. What makes no sense is ignored: the process runs already. */
void late_deliver(const struct dest *d, const void *data, size_t len);

#endif
