/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pki_join.h - how a host gets a certificate of the cluster's over the network: `godwit cluster token` here, `godwit cluster join` there
 *
 * Theory of operation: the token is made where the CA is, and carried to the new node by whoever may do so (a person, by ssh or by hand). In it are the digest of the CA's certificate, by which the
 * new node knows whom it speaks to before it says anything; a secret, which proves that it may be given a certificate, once; and the port. The key is made on the new node and never leaves it:
 *
 *	new node                                          who has the CA (a process for this token alone)
 *	connects                                    ->
 *	                                            <-    TLS 1.3, with a certificate made for the purpose; then JOIN_CA_BYTES: the CA's
 *	the digest is the token's, and that certificate
 *	is by that CA, or it ends
 *	JOIN_REQUEST_BYTES: secret, name, request   ->    by a process that is nobody, to one that is root, which
 *	                                                  compares the secret; from then on the token is used up
 *	                                                  looks whether the name is free, and the request is signed by its key
 *	                                            <-    JOIN_ANSWER_BYTES, and what it says: certificate, CAs, revocations, the cluster's key; or why not
 *
 * What is sent before the secret has been compared has one size and is looked at by nobody. RFC 2986, RFC 8446.
 */
#ifndef GODWIT_PKI_JOIN_H
#define GODWIT_PKI_JOIN_H

#include <gnutls/gnutls.h>
#include <stdint.h>

#include "pki/pki.h"

#define PKI_DIGEST_BYTES 32u
#define JOIN_SECRET_BYTES 20u
#define JOIN_TOKEN_TEXT 128u
#define JOIN_CSR_MAX 4096u
#define JOIN_PART_MAX (256u << 10) /* of each part of an answer */
#define JOIN_CA_BYTES 2048u       /* a length of two bytes, little-endian, DER, and zeros */
#define JOIN_REQUEST_BYTES (8u + JOIN_SECRET_BYTES + 65u + 46u + 2u + JOIN_CSR_MAX)
#define JOIN_ANSWER_BYTES (8u + 4u + 5u * 4u)

struct join_token {
	uint16_t port;
	uint8_t ca[PKI_DIGEST_BYTES], secret[JOIN_SECRET_BYTES];
};

struct join_request {
	uint8_t secret[JOIN_SECRET_BYTES];
	char node[PKI_NAME_MAX + 1];
	char address[46]; /* where others reach it */
	uint16_t csr_len;
	uint8_t csr[JOIN_CSR_MAX]; /* PEM */
};

enum join_part { JOIN_CERTIFICATE, JOIN_CA, JOIN_CRL, JOIN_KEY, JOIN_SEED, JOIN_PARTS };

/* What comes back: with a code below 0 only the first part, a sentence. */
struct join_answer {
	int32_t code;
	gnutls_datum_t part[JOIN_PARTS]; /* gnutls_malloc'ed */
};

void join_token_text(const struct join_token *token, char ret[JOIN_TOKEN_TEXT]);
/* -EINVAL: it is none, or has not been copied whole. */
int join_token_parse(const char *text, struct join_token *ret, struct err *e);

void join_request_encode(const struct join_request *request, uint8_t to[JOIN_REQUEST_BYTES]);
/* Lengths and characters. -EPROTO. After the secret has been compared. */
int join_request_decode(const uint8_t from[JOIN_REQUEST_BYTES], struct join_request *ret, struct err *e);
/* Whether it has that secret; takes the same time whatever it has. */
bool join_request_proves(const uint8_t from[JOIN_REQUEST_BYTES], const uint8_t secret[JOIN_SECRET_BYTES]);

void join_answer_encode(const struct join_answer *answer, uint8_t to[JOIN_ANSWER_BYTES]);
/* The code, and how long each part is. -EPROTO. */
int join_answer_decode(const uint8_t from[JOIN_ANSWER_BYTES], struct join_answer *ret, struct err *e);
void join_answer_free(struct join_answer *answer);

/* --- where the CA is --- */

/* A certificate and key to be known by for `seconds`, the CA's certificate as it is sent, and its digest. */
int pki_join_identity(const char *directory, unsigned seconds, gnutls_certificate_credentials_t *ret, uint8_t ret_ca[JOIN_CA_BYTES], uint8_t ret_digest[PKI_DIGEST_BYTES], struct err *e);
/* A certificate for the key of a request. -EEXIST: the node has one. Fills in the first three parts. */
int pki_issue_request(const char *directory, const struct join_request *request, unsigned days, struct join_answer *ret, struct err *e);

/* --- the new node --- */

/* A key, PKCS #8 in PEM, gnutls_malloc'ed, to be wiped; and a request in *ret. */
int pki_make_request(const char *node, struct join_request *ret, gnutls_datum_t *ret_key, struct err *e);
/* Whether a CA that has been sent has that digest, and a certificate is by it. Nothing is decoded before the first is known. */
bool join_is_by(const gnutls_datum_t *certificate, const uint8_t ca[JOIN_CA_BYTES], const uint8_t digest[PKI_DIGEST_BYTES]);

#endif
