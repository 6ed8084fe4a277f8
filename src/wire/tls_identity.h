/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tls_identity.h - this node's certificate and key, and whom it believes: the files of [tls] in godwit.conf(5). The key is in memory as long as this is */
#ifndef GODWIT_WIRE_TLS_IDENTITY_H
#define GODWIT_WIRE_TLS_IDENTITY_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <time.h>

#include "wire/tls.h"

struct tls_identity {
	gnutls_certificate_credentials_t credentials;
	gnutls_x509_trust_list_t trust; /* CAs, and what they have revoked */
	time_t until;                   /* the certificate is valid */
};

/*
 * Reads the files. Refused: what others than root may write, a key that others may read, a certificate that is not for the key, not valid now, not believed by its own CAs, revoked, or without the node's
 * name. -EINVAL with the file.
 */
int tls_identity_load(const struct tls_paths *paths, const char *node, struct tls_identity *ret, struct err *e);
void tls_identity_free(struct tls_identity *id);

/* What is wrong with somebody's certificates. */
enum tls_verdict { TLS_GOOD, TLS_REVOKED, TLS_EXPIRED, TLS_NOT_YET, TLS_OLD_LIST, TLS_STRANGER, TLS_OTHER_NAME, TLS_NONE };
/* Of a chain as it came, for an end of that kind (GNUTLS_KP_TLS_WWW_*). ret_names: as in a greeting. */
enum tls_verdict tls_judge(const struct tls_identity *id, const gnutls_datum_t *chain, unsigned n, const char *purpose, char ret_names[ERR_MESSAGE_MAX]);
/* "it has been revoked (crl)" */
const char *tls_verdict_text(enum tls_verdict verdict);

#endif
