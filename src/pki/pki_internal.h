/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pki_internal.h - between pki*.c: files of the directory (pki_files.c), certificates (pki_make.c), lists of revocations (pki_revoke.c) */
#ifndef GODWIT_PKI_INTERNAL_H
#define GODWIT_PKI_INTERNAL_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "pki/pki.h"

#define PKI_GENERATIONS_MAX 9999u
#define PKI_CA_DAYS 3650u
#define PKI_SERIAL_BYTES 16u
#define PKI_FILE_MAX 128u /* names in the directory */

/* A CA whose files are there. */
struct pki_ca {
	unsigned generation;
	gnutls_x509_crt_t cert;
	gnutls_x509_privkey_t key;
};

struct pki {
	int fd, lock; /* the directory; its lock */
	struct pki_ca cas[2]; /* the newest first */
	size_t n_cas;
};

#define PKI_INIT ((struct pki){ .fd = -1, .lock = -1 })
void pki_close(struct pki *p);
#define cleanup_pki __attribute__((cleanup(pki_close)))

/* An error of GnuTLS as one of ours; the message, and its text. */
int pki_gnutls(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Makes the directory and takes its lock, no more. */
int pki_create(const char *path, struct pki *ret, struct err *e);
/* Takes the lock, and reads the CAs; -ENOENT when there is none. */
int pki_open(const char *path, struct pki *ret, struct err *e);
/* The newest generation of a file called ca-N.pem, below `under`; 0: there is none. */
unsigned pki_newest(const struct pki *p, unsigned under);
/* Replaces a file below the directory by one that is whole, and on the disk. */
int pki_write(int at, const char *name, const void *data, size_t len, unsigned mode, struct err *e);
/* A whole file; gnutls_free(ret->data) is the caller's. */
int pki_load(int at, const char *name, gnutls_datum_t *ret, struct err *e);
/* Writes what GnuTLS has exported as PEM, and wipes and frees it. */
int pki_write_pem(int at, const char *name, gnutls_datum_t *pem, unsigned mode, struct err *e);
/* ca.pem and crl.pem, in the directory and for every node in nodes/. */
int pki_publish(const struct pki *p, struct err *e);
/* Calls f for each name in a directory below p->fd, in no order, until it fails. A directory that is not there is empty. */
int pki_each(const struct pki *p, const char *directory, int (*f)(const struct pki *p, const char *name, void *context, struct err *e), void *context, struct err *e);
/* Reads GENERATION-SERIAL-NODE.pem; false for any other name. */
bool pki_file_parse(const char *file, unsigned *ret_generation, char ret_node[PKI_NAME_MAX + 1]);

/* A key and a certificate that says of itself that it is a CA. */
int pki_make_ca(const struct pki *p, unsigned generation, struct err *e);
/* The list of what `ca` has revoked, signed, as PEM that gnutls_free is for. */
int pki_make_crl(const struct pki *p, const struct pki_ca *ca, gnutls_datum_t *ret, struct err *e);
/* Whether it can be a node's name: as hello_name_valid (wire/hello.h), and no name of a directory. */
bool pki_name_valid(const char *node);

#endif
