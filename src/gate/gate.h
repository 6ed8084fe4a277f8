/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * gate.h - godwit-gate: the API over TLS (docs/api.md), started by godwitd where [api] has `listen`
 *
 *	somebody --TLS--> relay (wire/tls.h) --bytes--> visit --HTTP--> api.sock
 *	                                                  |
 *	                                      token       |  a connection to api.sock,
 *	                                        v         |  made by a process that is the user
 *	                                      the gate ---+
 *
 * A *visit* is a process for each connection. It reads what strangers send, so it is nobody, without capabilities and under a filter of system calls, before the first byte. It has no key and no list of tokens:
 * it hands the token that it was sent to the gate, which looks it up and has a child become the token's user and connect to api.sock. So godwit-api and godwitd see a connection of that user like any other
 * (SO_PEERCRED), and whoever gets hold of a visit has what the visitor has. Without a token there is a connection of nobody's, for the dashboard's files; it is not for questions.
 */
#ifndef GODWIT_GATE_GATE_H
#define GODWIT_GATE_GATE_H

#include "pki/tokens.h"

/* From a visit to the gate. "": for a page. */
struct gate_question {
	char token[TOKEN_TEXT];
};

/* Runs in a process of its own, which ends then: `net` is a relay's socket (tls_begin), `gate` leads to the gate. */
int visit_run(int net, int gate);

#endif
