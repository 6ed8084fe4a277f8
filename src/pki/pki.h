/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pki.h - the certificates of a cluster's nodes: a directory on one machine of the administrator's, which need be no node
 *
 *	ca-N.pem, ca-N.key      the CA of generation N (1, 2, ...); the highest one issues, all are trusted
 *	cross-N.pem             that CA's key, certified by the generation before: who trusts only the old one believes the new one through it
 *	ca.pem, crl.pem         for the nodes: all trusted CAs, the newest first; what each has revoked
 *	issued/, revoked/       certificates, as GENERATION-SERIAL-NODE.pem
 *	nodes/NODE/             what NODE needs: node.pem (with the cross certificate behind it), node.key, ca.pem, crl.pem
 *	lock                    held by whoever changes something
 *
 * Keys are ECDSA on P-256, readable by their owner alone, and made anew with every certificate. A certificate names its node as a DNS name, and addresses where it is to be believed
 * under them as well. A file is replaced by one that is whole (rename(2)), and so is a node's directory. RFC 5280.
 *
 * Nodes need not be changed at once: a node with new files and one with old ones believe each other from `rotate` until `retire`.
 */
#ifndef GODWIT_PKI_PKI_H
#define GODWIT_PKI_PKI_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "base/err.h"

#define PKI_DEFAULT_DIRECTORY "/etc/godwit/pki"
#define PKI_NODE_DAYS 730u
#define PKI_DAYS_MAX 36500u
#define PKI_NAME_MAX 64u
#define PKI_ADDRESSES_MAX 16u

/* The first CA. -EEXIST when the directory has one. The directory is made; what is above it must be there, but for /etc/godwit. */
int pki_init(const char *directory, struct err *e);
/*
 * A key and a certificate for a node, in place of those in nodes/NODE, which stay valid until they expire or are revoked. addresses: n texts, IPv4 or IPv6.
 * *ret_files: the node's directory, malloc'ed.
 */
int pki_issue(const char *directory, const char *node, const char *const *addresses, size_t n, unsigned days, char **ret_files, struct err *e);
/* A new CA beside the old one, which is still trusted. -EBUSY when there are two already. */
int pki_rotate(const char *directory, struct err *e);
/* The old CA is trusted no longer, and its key removed. -ENOENT when there is only one; -EBUSY with names when certificates of it are the newest that a node has. */
int pki_retire(const char *directory, struct err *e);
/* All certificates that the node has got until now are listed as revoked. *ret_n: how many. -ENOENT when there is none. */
int pki_revoke(const char *directory, const char *node, size_t *ret_n, struct err *e);

/* What is in a file. */
enum pki_kind { PKI_CERTIFICATE, PKI_AUTHORITY, PKI_REVOCATIONS, PKI_KEY };
struct pki_item {
	enum pki_kind kind;
	char subject[128], issuer[128]; /* common names; of a key: its algorithm */
	char names[512];                /* of a certificate: names and addresses; of a list: the serial numbers. Blanks between them; "..." where they are too many */
	char serial[48], sha256[65];
	time_t from, until;
};

/* Certificates, lists of revocations, and whether there is a key (of which nothing else is said). *ret: malloc'ed, *ret_n of them. -EINVAL when there is nothing of the kind. */
int pki_read(const char *path, struct pki_item **ret, size_t *ret_n, struct err *e);

#endif
