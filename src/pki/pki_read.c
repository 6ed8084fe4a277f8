/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pki_read.c - what is in a file of certificates; see pki.h */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>

#include "base/util.h"
#include "pki/pki_internal.h"

#define ITEMS_MAX 64u

struct reading {
	struct pki_item *items; /* ITEMS_MAX */
	size_t n;
};

static void hex_text(const uint8_t *bytes, size_t len, char *to, size_t size)
{
	to[0] = 0;
	for (size_t i = 0; i < len && 2 * i + 2 < size; i++)
		snprintf(to + 2 * i, 3, "%02x", bytes[i]);
}

/* Whatever a name has in it, a word comes out. */
static void add_name(struct pki_item *item, const char *name)
{
	size_t len = strlen(item->names), room = sizeof(item->names) - len;

	if (room < strlen(name) + 5) {
		if (room > 4 && (len < 3 || strcmp(item->names + len - 3, "...") != 0))
			snprintf(item->names + len, room, " ...");
		return;
	}
	snprintf(item->names + len, room, "%s%s", len ? " " : "", name);
}

static void read_names(gnutls_x509_crt_t cert, struct pki_item *item)
{
	for (unsigned i = 0; i < 2 * PKI_ADDRESSES_MAX; i++) {
		char name[256], text[INET6_ADDRSTRLEN];
		size_t len = sizeof(name) - 1;
		int type = gnutls_x509_crt_get_subject_alt_name(cert, i, name, &len, NULL);

		if (type < 0)
			break;
		name[len] = 0;
		if (type == GNUTLS_SAN_DNSNAME)
			add_name(item, name);
		else if (type == GNUTLS_SAN_IPADDRESS && (len == 4 || len == 16) && inet_ntop(len == 4 ? AF_INET : AF_INET6, name, text, sizeof(text)))
			add_name(item, text);
	}
}

static void read_cert(gnutls_x509_crt_t cert, struct pki_item *item)
{
	uint8_t bytes[64];
	size_t len = sizeof(item->subject);

	item->kind = gnutls_x509_crt_get_ca_status(cert, NULL) > 0 ? PKI_AUTHORITY : PKI_CERTIFICATE;
	if (gnutls_x509_crt_get_dn_by_oid(cert, GNUTLS_OID_X520_COMMON_NAME, 0, 0, item->subject, &len) < 0)
		item->subject[0] = 0;
	len = sizeof(item->issuer);
	if (gnutls_x509_crt_get_issuer_dn_by_oid(cert, GNUTLS_OID_X520_COMMON_NAME, 0, 0, item->issuer, &len) < 0)
		item->issuer[0] = 0;
	len = sizeof(bytes);
	if (gnutls_x509_crt_get_serial(cert, bytes, &len) >= 0)
		hex_text(bytes, len, item->serial, sizeof(item->serial));
	len = sizeof(bytes);
	if (gnutls_x509_crt_get_fingerprint(cert, GNUTLS_DIG_SHA256, bytes, &len) >= 0)
		hex_text(bytes, len, item->sha256, sizeof(item->sha256));
	item->from = gnutls_x509_crt_get_activation_time(cert);
	item->until = gnutls_x509_crt_get_expiration_time(cert);
	read_names(cert, item);
}

static void read_crl(gnutls_x509_crl_t crl, struct pki_item *item)
{
	int n = gnutls_x509_crl_get_crt_count(crl);
	size_t len = sizeof(item->issuer);

	item->kind = PKI_REVOCATIONS;
	if (gnutls_x509_crl_get_issuer_dn_by_oid(crl, GNUTLS_OID_X520_COMMON_NAME, 0, 0, item->issuer, &len) < 0)
		item->issuer[0] = 0;
	item->from = gnutls_x509_crl_get_this_update(crl);
	item->until = gnutls_x509_crl_get_next_update(crl);
	for (int i = 0; i < n; i++) {
		uint8_t serial[64];
		char text[sizeof(item->serial)];
		size_t size = sizeof(serial);

		if (gnutls_x509_crl_get_crt_serial(crl, (unsigned)i, serial, &size, NULL) < 0)
			break;
		hex_text(serial, size, text, sizeof(text));
		add_name(item, text);
	}
}

static void read_certs(const gnutls_datum_t *pem, struct reading *r)
{
	gnutls_x509_crt_t *certs = NULL;
	unsigned n = 0;

	if (gnutls_x509_crt_list_import2(&certs, &n, pem, GNUTLS_X509_FMT_PEM, 0) < 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		if (r->n < ITEMS_MAX)
			read_cert(certs[i], &r->items[r->n++]);
		gnutls_x509_crt_deinit(certs[i]);
	}
	gnutls_free(certs);
}

static void read_crls(const gnutls_datum_t *pem, struct reading *r)
{
	gnutls_x509_crl_t *crls = NULL;
	unsigned n = 0;

	if (gnutls_x509_crl_list_import2(&crls, &n, pem, GNUTLS_X509_FMT_PEM, 0) < 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		if (r->n < ITEMS_MAX)
			read_crl(crls[i], &r->items[r->n++]);
		gnutls_x509_crl_deinit(crls[i]);
	}
	gnutls_free(crls);
}

static void read_key(const gnutls_datum_t *pem, struct reading *r)
{
	gnutls_x509_privkey_t key = NULL;
	unsigned bits = 0;
	int algorithm;

	if (gnutls_x509_privkey_init(&key) < 0)
		return;
	if (gnutls_x509_privkey_import(key, pem, GNUTLS_X509_FMT_PEM) >= 0 && r->n < ITEMS_MAX) {
		struct pki_item *item = &r->items[r->n++];

		algorithm = gnutls_x509_privkey_get_pk_algorithm2(key, &bits);
		item->kind = PKI_KEY;
		snprintf(item->subject, sizeof(item->subject), "%s, %u bits", gnutls_pk_get_name((gnutls_pk_algorithm_t)algorithm), bits);
	}
	gnutls_x509_privkey_deinit(key);
}

int pki_read(const char *path, struct pki_item **ret, size_t *ret_n, struct err *e)
{
	struct reading r = { .items = calloc(ITEMS_MAX, sizeof(*r.items)) };
	gnutls_datum_t pem = { 0 };

	if (!r.items)
		return err_sys(e, -ENOMEM, "%s", path);
	if (pki_load(AT_FDCWD, path, &pem, e) < 0) {
		free(r.items);
		return e->code;
	}
	read_certs(&pem, &r);
	read_crls(&pem, &r);
	read_key(&pem, &r);
	explicit_bzero(pem.data, pem.size);
	gnutls_free(pem.data);
	if (!r.n) {
		free(r.items);
		return err_set(e, -EINVAL, "%s: there is no certificate, list of revocations or key in it (as PEM)", path);
	}
	*ret = r.items;
	*ret_n = r.n;
	return 0;
}
