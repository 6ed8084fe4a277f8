/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * protection.h - how a unit is protected: how often it is copied, how many nodes keep the copy, and how the copy is made (docs/protect.md)
 *
 * It belongs to the unit: it is in its record on the host where it runs (registry.h), travels in the offer, and is in every image of it.
 */
#ifndef GODWIT_MIGRATE_PROTECTION_H
#define GODWIT_MIGRATE_PROTECTION_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "control.pb-c.h"
#include "image/fsfile_policy.h"
#include "image/tcp_outside.h"
#include "wire/hello.h"

#define PROTECTION_COPIES_MAX 8u
#define PROTECTION_ID_DIGITS 16
#define PROTECTION_EVERY_MIN_MS 200u
#define PROTECTION_EVERY_MAX_MS 86400000u

struct protection {
	unsigned every_ms; /* 0: it is not protected, and nothing else counts */
	char id[PROTECTION_ID_DIGITS + 1]; /* random, so that a number of a process that comes again is another unit for who keeps copies */
	unsigned copies;   /* 1 to PROTECTION_COPIES_MAX */
	enum fsfile_policy files;
	enum tcp_outside_policy tcp;
	size_t n_to;       /* 0: any nodes; otherwise at least `copies` */
	char to[PROTECTION_COPIES_MAX][HELLO_NAME_MAX + 1];
};

/* Ranges, names and that no node is there twice. -EINVAL. */
int protection_check(const struct protection *p, struct err *e);

/* Gives it a new id. */
int protection_new_id(struct protection *p, struct err *e);
/* Whether a text may be an id. */
bool protection_id_valid(const char *id);

/* Whether units that are protected may come here at this moment: a sentence why not, NULL: they may. Once, in the worker; without it they may. */
void protection_use(const char *(*why_not)(void));
const char *protection_why_not(void);

/* As JSON; NULL: it is not protected, or there is no memory. */
json_t *protection_json(const struct protection *p);
/* What protection_json has made; NULL and what is none become no protection. */
void protection_from_json(const json_t *o, struct protection *ret);

/* Into a message whose texts borrow from p; `to` must have room for PROTECTION_COPIES_MAX. */
void protection_to_message(const struct protection *p, Gw__Protection *ret, char *to[PROTECTION_COPIES_MAX]);
/* From a peer; NULL: none. -EINVAL. */
int protection_from_message(const Gw__Protection *m, struct protection *ret, struct err *e);

#endif
