/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hello.h - the first frame of every connection: who speaks, about which migration, and what it can do
 *
 * Versions differ incompatibly; features are bits of which both sides use the intersection, so that an unknown
 * bit never refuses a peer.
 */
#ifndef GODWIT_WIRE_HELLO_H
#define GODWIT_WIRE_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "control.pb-c.h"

#define HELLO_VERSION 1u
#define FEATURE_ADDRESSES 1ull /* takes addresses of units (Offer.addresses) */
#define FEATURE_IMAGES 2ull    /* takes what comes out of an image (Offer.saved) */
#define HELLO_FEATURES (FEATURE_ADDRESSES | FEATURE_IMAGES) /* the bits that this build knows */
#define HELLO_MIG_ID_BYTES 16u
#define HELLO_ROLE_MAX 15u
#define HELLO_NAME_MAX 64u

/* Roles beyond those of a migration (enum migrate_role, which begins at 0). */
enum hello_role { ROLE_PORTABLE = 7, ROLE_NODE_INFO = 8, ROLE_ASK = 9, ROLE_HOME = 10, ROLE_ORDER = 11, ROLE_NET = 12, ROLE_RESERVE = 13, ROLE_WORK = 14, ROLE_KEEP = 15 };

/*
 * Fills version, features, boot id, kernel, arch, XCR0 and clocks. The strings are static and stay valid. The caller sets
 * role, node_name and mig_id (which borrow the caller's memory). Does gw__hello__init itself.
 */
void hello_fill(Gw__Hello *hello);
/* Of this node: the kernel's, or what the configuration says (arch), which must stay; for this process and its children. */
void hello_use_arch(const char *arch);
const char *hello_arch(void);
/* Packs into a malloc'ed buffer of *ret_len bytes; NULL when out of memory. Set the clocks (hello_fill) just before. */
void *hello_encode(const Gw__Hello *hello, size_t *ret_len);
/* hello_encode and frame_send in one. */
int hello_send(int fd, const Gw__Hello *hello, struct err *e);
/* The HELLO of a question to a node that is about no migration; node_name: who asks. */
int hello_ask(int fd, uint32_t role, const char *node_name, struct err *e);
/*
 * Unpacks and validates a payload from a peer. -EPROTO for what does not parse or is out of range, -EPROTONOSUPPORT for
 * another version. hello_free what comes out.
 */
int hello_decode(const void *payload, size_t len, Gw__Hello **ret, struct err *e);
/* Sizes, ranges and characters of every field. */
int hello_validate(const Gw__Hello *hello, struct err *e);
void hello_free(Gw__Hello **hello);
#define cleanup_hello __attribute__((cleanup(hello_free)))
/* The bits that both sides have. */
uint64_t hello_common_features(const Gw__Hello *peer);
/* Whether a text may be a node's name: 1 to 64 of letters, digits, '.', '_', '-'. */
bool hello_name_valid(const char *name);

#endif
