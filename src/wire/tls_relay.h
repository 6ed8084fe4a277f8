/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tls_relay.h - the process that has one connection's TLS; see tls.h */
#ifndef GODWIT_WIRE_TLS_RELAY_H
#define GODWIT_WIRE_TLS_RELAY_H

#include "wire/tls_identity.h"

/*
 * Takes the request that comes on `local`, gives all rights away, and relays until either side has ended. For a process of its own, which ends then with the status that is returned, and which has
 * `local` and `id` (freed after the handshake, with the key).
 */
int tls_relay_run(struct tls_identity *id, int local);

#endif
