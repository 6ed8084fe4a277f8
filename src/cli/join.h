/* SPDX-License-Identifier: GPL-2.0-or-later */
/* join.h - both ends of `godwit cluster join` (pki/pki_join.h says what goes between them) */
#ifndef GODWIT_CLI_JOIN_H
#define GODWIT_CLI_JOIN_H

#include "pki/pki_join.h"

#define JOIN_PORT 4471
#define JOIN_TRIES 5 /* wrong secrets, after which a token is good for nothing */

/* What a host that joins is given beside its certificate. */
struct join_offer {
	const char *pki;      /* directory */
	unsigned days;        /* of its certificate */
	const char *key_file; /* of the cluster */
	const char *seed;     /* "ADDRESS:PORT" */
	unsigned seconds;     /* that the token is good for */
	uint16_t port;
};

/* Listens, makes the token, and leaves a process behind that waits for who has it. */
int join_serve(const struct join_offer *offer, struct join_token *ret, struct err *e);
/* host: a name or an address. With *key, the key of ret's certificate. join_answer_free, and wipe the key. */
int join_ask(const char *host, const struct join_token *token, struct join_request *request, struct join_answer *ret, struct err *e);
/* The address from which this host reaches the one of that name. */
int join_own_address(const char *host, char ret[46], struct err *e);

#endif
