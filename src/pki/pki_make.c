/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pki_make.c - keys and certificates of CAs and nodes; see pki.h */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <sys/stat.h>

#include "base/util.h"
#include "pki/pki_internal.h"
#include "pki/pki_join.h"

#define CLOCKS_MAY_DIFFER_S 3600
#define DAY_S 86400
#define KEY_ID_MAX 64

static void crt_free(gnutls_x509_crt_t *cert)
{
	gnutls_x509_crt_deinit(*cert);
}

static void key_free(gnutls_x509_privkey_t *key)
{
	gnutls_x509_privkey_deinit(*key);
}

#define cleanup_crt __attribute__((cleanup(crt_free)))
#define cleanup_key __attribute__((cleanup(key_free)))

/* Does a step unless one before it has failed. */
#define THEN(code, step) ((code) = (code) < 0 ? (code) : (step))

static int make_key(gnutls_x509_privkey_t *ret)
{
	int code = gnutls_x509_privkey_init(ret);

	return code < 0 ? code : gnutls_x509_privkey_generate(*ret, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
}

/* A certificate with all that any has: a random serial number, a name, a time. For a key, or, where that is NULL, for one of which only the public part is known. */
static int begin_for(gnutls_x509_crt_t *ret, gnutls_x509_privkey_t key, gnutls_pubkey_t public, const char *name, unsigned days)
{
	uint8_t serial[PKI_SERIAL_BYTES] = { 0 }, id[KEY_ID_MAX];
	time_t now = time(NULL);
	size_t len = sizeof(id);
	int code = gnutls_x509_crt_init(ret);

	THEN(code, gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial)));
	serial[0] = (serial[0] & 0x7f) | 0x40; /* positive, and always as long */
	THEN(code, gnutls_x509_crt_set_version(*ret, 3));
	THEN(code, gnutls_x509_crt_set_serial(*ret, serial, sizeof(serial)));
	THEN(code, gnutls_x509_crt_set_dn_by_oid(*ret, GNUTLS_OID_X520_COMMON_NAME, 0, name, (unsigned)strlen(name)));
	THEN(code, gnutls_x509_crt_set_activation_time(*ret, now - CLOCKS_MAY_DIFFER_S));
	THEN(code, gnutls_x509_crt_set_expiration_time(*ret, now + (time_t)days * DAY_S));
	THEN(code, key ? gnutls_x509_crt_set_key(*ret, key) : gnutls_x509_crt_set_pubkey(*ret, public));
	THEN(code, gnutls_x509_crt_get_key_id(*ret, 0, id, &len));
	THEN(code, gnutls_x509_crt_set_subject_key_id(*ret, id, len));
	return code;
}

static int begin(gnutls_x509_crt_t *ret, gnutls_x509_privkey_t key, const char *name, unsigned days)
{
	return begin_for(ret, key, NULL, name, days);
}

static int sign(gnutls_x509_crt_t cert, gnutls_x509_crt_t issuer, gnutls_x509_privkey_t key)
{
	uint8_t id[KEY_ID_MAX];
	size_t len = sizeof(id);
	int code = gnutls_x509_crt_get_subject_key_id(issuer, id, &len, NULL);

	THEN(code, gnutls_x509_crt_set_authority_key_id(cert, id, len));
	THEN(code, gnutls_x509_crt_sign2(cert, issuer, key, GNUTLS_DIG_SHA256, 0));
	return code;
}

static int write_cert(const struct pki *p, const char *file, gnutls_x509_crt_t cert, struct err *e)
{
	gnutls_datum_t pem;
	int code = gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_PEM, &pem);

	return code < 0 ? pki_gnutls(e, code, "%s", file) : pki_write_pem(p->fd, file, &pem, 0644, e);
}

static int write_key(int at, const char *file, gnutls_x509_privkey_t key, struct err *e)
{
	gnutls_datum_t pem;
	int code = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &pem);

	return code < 0 ? pki_gnutls(e, code, "%s", file) : pki_write_pem(at, file, &pem, 0600, e);
}

static int begin_ca(gnutls_x509_crt_t *ret, gnutls_x509_privkey_t key, const char *name)
{
	int code = begin(ret, key, name, PKI_CA_DAYS);

	THEN(code, gnutls_x509_crt_set_basic_constraints(*ret, 1, -1));
	THEN(code, gnutls_x509_crt_set_key_usage(*ret, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
	return code;
}

/* The names of CAs must differ, of other clusters' too: a random number is in them. */
static int ca_name(unsigned generation, char ret[64])
{
	uint8_t random[4];
	int code = gnutls_rnd(GNUTLS_RND_NONCE, random, sizeof(random));

	snprintf(ret, 64, "Godwit CA %u %02x%02x%02x%02x", generation, random[0], random[1], random[2], random[3]);
	return code;
}

/* The certificate comes last: without it the others are nothing, and are written anew. */
int pki_make_ca(const struct pki *p, unsigned generation, struct err *e)
{
	cleanup_crt gnutls_x509_crt_t cert = NULL, cross = NULL;
	cleanup_key gnutls_x509_privkey_t key = NULL;
	char name[64], file[PKI_FILE_MAX];
	int code = ca_name(generation, name);

	THEN(code, make_key(&key));
	THEN(code, begin_ca(&cert, key, name));
	THEN(code, sign(cert, cert, key));
	if (code >= 0 && p->n_cas) {
		THEN(code, begin_ca(&cross, key, name));
		THEN(code, sign(cross, p->cas[0].cert, p->cas[0].key));
	}
	if (code < 0)
		return pki_gnutls(e, code, "making a CA");
	snprintf(file, sizeof(file), "ca-%u.key", generation);
	if (write_key(p->fd, file, key, e) < 0)
		return e->code;
	snprintf(file, sizeof(file), "cross-%u.pem", generation);
	if (cross && write_cert(p, file, cross, e) < 0)
		return e->code;
	snprintf(file, sizeof(file), "ca-%u.pem", generation);
	return write_cert(p, file, cert, e);
}

static int add_address(gnutls_x509_crt_t cert, const char *text, struct err *e)
{
	uint8_t address[16];
	size_t len = inet_pton(AF_INET, text, address) == 1 ? 4 : inet_pton(AF_INET6, text, address) == 1 ? 16 : 0;
	int code;

	if (!len)
		return err_set(e, -EINVAL, "'%.64s' is no address: write 10.0.0.1 or fd00::1", text);
	code = gnutls_x509_crt_set_subject_alt_name(cert, GNUTLS_SAN_IPADDRESS, address, (unsigned)len, GNUTLS_FSAN_APPEND);
	return code < 0 ? pki_gnutls(e, code, "the address %s", text) : 0;
}

struct order {
	const char *node;
	const char *const *addresses;
	size_t n;
	unsigned days;
};

static int make_node_cert(const struct pki *p, const struct order *o, gnutls_x509_privkey_t key, gnutls_pubkey_t public, gnutls_x509_crt_t *ret, struct err *e)
{
	int code = begin_for(ret, key, public, o->node, o->days);

	THEN(code, gnutls_x509_crt_set_basic_constraints(*ret, 0, -1));
	THEN(code, gnutls_x509_crt_set_key_usage(*ret, GNUTLS_KEY_DIGITAL_SIGNATURE));
	THEN(code, gnutls_x509_crt_set_key_purpose_oid(*ret, GNUTLS_KP_TLS_WWW_SERVER, 0));
	THEN(code, gnutls_x509_crt_set_key_purpose_oid(*ret, GNUTLS_KP_TLS_WWW_CLIENT, 0));
	THEN(code, gnutls_x509_crt_set_subject_alt_name(*ret, GNUTLS_SAN_DNSNAME, o->node, (unsigned)strlen(o->node), GNUTLS_FSAN_APPEND));
	if (code < 0)
		return pki_gnutls(e, code, "a certificate for %s", o->node);
	for (size_t i = 0; i < o->n; i++)
		if (add_address(*ret, o->addresses[i], e) < 0)
			return e->code;
	code = sign(*ret, p->cas[0].cert, p->cas[0].key);
	return code < 0 ? pki_gnutls(e, code, "signing a certificate for %s", o->node) : 0;
}

/* The node's certificate, and behind it what leads from its CA to the one before. */
static int write_chain(const struct pki *p, const char *file, gnutls_x509_crt_t cert, struct err *e)
{
	gnutls_datum_t own, cross = { 0 };
	cleanup_free char *all = NULL;
	char name[PKI_FILE_MAX];
	int ret = gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_PEM, &own);

	if (ret < 0)
		return pki_gnutls(e, ret, "%s", file);
	snprintf(name, sizeof(name), "cross-%u.pem", p->cas[0].generation);
	if (p->n_cas > 1)
		ret = pki_load(p->fd, name, &cross, e);
	if (ret >= 0 && asprintf(&all, "%.*s%.*s", (int)own.size, own.data, (int)cross.size, cross.size ? (char *)cross.data : "") < 0) {
		all = NULL;
		ret = err_sys(e, -ENOMEM, "%s", file);
	}
	gnutls_free(own.data);
	gnutls_free(cross.data);
	return ret < 0 ? ret : pki_write(p->fd, file, all, strlen(all), 0644, e);
}

static int make_directory(const struct pki *p, const char *name, struct err *e)
{
	return mkdirat(p->fd, name, 0700) < 0 && errno != EEXIST ? err_sys(e, -errno, "%s", name) : 0;
}

static void remove_files(const struct pki *p, const char *directory)
{
	static const char *const files[] = { "node.pem", "node.key", "ca.pem", "crl.pem" };
	char name[PKI_FILE_MAX + 16];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(name, sizeof(name), "%s/%s", directory, files[i]);
		(void)unlinkat(p->fd, name, 0);
	}
	(void)unlinkat(p->fd, directory, AT_REMOVEDIR);
}

/* Certificate and key belong together, so the directory with both is put in the place of the old one. */
static int put_in_place(const struct pki *p, const char *fresh, const char *place, struct err *e)
{
	if (renameat2(p->fd, fresh, p->fd, place, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EEXIST || renameat2(p->fd, fresh, p->fd, place, RENAME_EXCHANGE) < 0)
		return err_sys(e, -errno, "%s", place);
	remove_files(p, fresh);
	return 0;
}

static int write_node(const struct pki *p, const struct order *o, gnutls_x509_privkey_t key, gnutls_x509_crt_t cert, struct err *e)
{
	char fresh[PKI_NAME_MAX + 16], place[PKI_FILE_MAX], file[PKI_FILE_MAX], hex[2 * PKI_SERIAL_BYTES + 1];
	uint8_t serial[PKI_SERIAL_BYTES];
	size_t len = sizeof(serial);
	int code = gnutls_x509_crt_get_serial(cert, serial, &len);

	if (code < 0)
		return pki_gnutls(e, code, "a serial number");
	for (size_t i = 0; i < len; i++)
		snprintf(hex + 2 * i, 3, "%02x", serial[i]);
	snprintf(place, sizeof(place), "nodes/%s", o->node);
	snprintf(fresh, sizeof(fresh), "nodes/.new-%s", o->node);
	remove_files(p, fresh);
	if (make_directory(p, "nodes", e) < 0 || make_directory(p, "issued", e) < 0 || make_directory(p, fresh, e) < 0)
		return e->code;
	/* It can be revoked from here on, whatever becomes of the rest. */
	snprintf(file, sizeof(file), "issued/%u-%s-%s.pem", p->cas[0].generation, hex, o->node);
	if (write_cert(p, file, cert, e) < 0)
		return e->code;
	snprintf(file, sizeof(file), "%s/node.key", fresh);
	if (key && write_key(p->fd, file, key, e) < 0) /* who joins has it alone */
		return e->code;
	snprintf(file, sizeof(file), "%s/node.pem", fresh);
	if (write_chain(p, file, cert, e) < 0)
		return e->code;
	return put_in_place(p, fresh, place, e);
}

int pki_issue(const char *directory, const char *node, const char *const *addresses, size_t n, unsigned days, char **ret_files, struct err *e)
{
	const struct order o = { node, addresses, n, days };
	cleanup_pki struct pki p = PKI_INIT;
	cleanup_crt gnutls_x509_crt_t cert = NULL;
	cleanup_key gnutls_x509_privkey_t key = NULL;
	int code;

	if (!pki_name_valid(node))
		return err_set(e, -EINVAL, "'%.80s' is no name of a node: use 1 to %u letters, digits, '.', '_', '-'", node, PKI_NAME_MAX);
	if (!days || days > PKI_DAYS_MAX || n > PKI_ADDRESSES_MAX)
		return err_set(e, -EINVAL, "a certificate is valid for 1 to %u days, and has at most %u addresses", PKI_DAYS_MAX, PKI_ADDRESSES_MAX);
	if (pki_open(directory, &p, e) < 0)
		return e->code;
	code = make_key(&key);
	if (code < 0)
		return pki_gnutls(e, code, "a key for %s", node);
	if (make_node_cert(&p, &o, key, NULL, &cert, e) < 0 || write_node(&p, &o, key, cert, e) < 0 || pki_publish(&p, e) < 0)
		return e->code;
	return asprintf(ret_files, "%s/nodes/%s", directory, node) < 0 ? err_sys(e, -ENOMEM, "%s", node) : 0;
}

/* --- for who joins (pki_join.h) --- */

static void crq_free(gnutls_x509_crq_t *request)
{
	if (*request)
		gnutls_x509_crq_deinit(*request);
}

static void pubkey_free(gnutls_pubkey_t *key)
{
	if (*key)
		gnutls_pubkey_deinit(*key);
}

#define cleanup_crq __attribute__((cleanup(crq_free)))
#define cleanup_pubkey __attribute__((cleanup(pubkey_free)))

int pki_join_identity(const char *directory, unsigned seconds, gnutls_certificate_credentials_t *ret, uint8_t ret_ca[JOIN_CA_BYTES], uint8_t ret_digest[PKI_DIGEST_BYTES], struct err *e)
{
	cleanup_pki struct pki p = PKI_INIT;
	cleanup_crt gnutls_x509_crt_t cert = NULL;
	cleanup_key gnutls_x509_privkey_t key = NULL;
	size_t len = PKI_DIGEST_BYTES, size = JOIN_CA_BYTES - 2;
	uint16_t size_le;
	int code;

	if (pki_open(directory, &p, e) < 0)
		return e->code;
	code = make_key(&key);
	THEN(code, begin(&cert, key, "join.invalid", 1)); /* no node's name, and good for no node */
	THEN(code, gnutls_x509_crt_set_expiration_time(cert, time(NULL) + (time_t)seconds + CLOCKS_MAY_DIFFER_S));
	THEN(code, gnutls_x509_crt_set_basic_constraints(cert, 0, -1));
	THEN(code, gnutls_x509_crt_set_key_usage(cert, GNUTLS_KEY_DIGITAL_SIGNATURE));
	THEN(code, gnutls_x509_crt_set_key_purpose_oid(cert, GNUTLS_KP_TLS_WWW_SERVER, 0));
	THEN(code, sign(cert, p.cas[0].cert, p.cas[0].key));
	THEN(code, gnutls_x509_crt_get_fingerprint(p.cas[0].cert, GNUTLS_DIG_SHA256, ret_digest, &len));
	memset(ret_ca, 0, JOIN_CA_BYTES);
	THEN(code, gnutls_x509_crt_export(p.cas[0].cert, GNUTLS_X509_FMT_DER, ret_ca + 2, &size));
	size_le = htole16((uint16_t)size);
	memcpy(ret_ca, &size_le, 2);
	THEN(code, gnutls_certificate_allocate_credentials(ret));
	THEN(code, gnutls_certificate_set_x509_key(*ret, &cert, 1, key));
	return code < 0 ? pki_gnutls(e, code, "a certificate to be known by") : 0;
}

static int is_of_node(const struct pki *p, const char *file, void *context, struct err *e)
{
	char node[PKI_NAME_MAX + 1];
	unsigned generation;

	(void)p;
	return pki_file_parse(file, &generation, node) && !strcmp(node, context) ? err_set(e, -EEXIST, "node %s has a certificate: take another name, or `godwit pki revoke %s` first where the CA is", node, node) : 0;
}

/* Only its key is taken from it, and the proof that it has the key. */
static int read_request(const struct join_request *request, gnutls_pubkey_t *ret)
{
	const gnutls_datum_t text = { (unsigned char *)(uintptr_t)request->csr, request->csr_len };
	cleanup_crq gnutls_x509_crq_t crq = NULL;
	int code = gnutls_x509_crq_init(&crq);

	THEN(code, gnutls_x509_crq_import(crq, &text, GNUTLS_X509_FMT_PEM));
	THEN(code, gnutls_x509_crq_verify(crq, 0));
	THEN(code, gnutls_pubkey_init(ret));
	THEN(code, gnutls_pubkey_import_x509_crq(*ret, crq, 0));
	if (code >= 0 && gnutls_pubkey_get_pk_algorithm(*ret, NULL) != GNUTLS_PK_ECDSA)
		code = GNUTLS_E_UNSUPPORTED_SIGNATURE_ALGORITHM;
	return code;
}

static int answer_with(const struct pki *p, const char *node, struct join_answer *ret, struct err *e)
{
	char file[PKI_FILE_MAX];
	int r;

	snprintf(file, sizeof(file), "nodes/%s/node.pem", node);
	r = pki_load(p->fd, file, &ret->part[JOIN_CERTIFICATE], e);
	if (r == 0)
		r = pki_load(p->fd, "ca.pem", &ret->part[JOIN_CA], e);
	return r == 0 ? pki_load(p->fd, "crl.pem", &ret->part[JOIN_CRL], e) : r;
}

int pki_issue_request(const char *directory, const struct join_request *request, unsigned days, struct join_answer *ret, struct err *e)
{
	const char *const addresses[] = { request->address };
	const struct order o = { request->node, addresses, 1, days };
	cleanup_pki struct pki p = PKI_INIT;
	cleanup_crt gnutls_x509_crt_t cert = NULL;
	cleanup_pubkey gnutls_pubkey_t key = NULL;
	int code;

	if (pki_open(directory, &p, e) < 0 || pki_each(&p, "issued", is_of_node, (void *)(uintptr_t)request->node, e) < 0)
		return e->code;
	code = read_request(request, &key);
	if (code < 0)
		return pki_gnutls(e, code, "the request of %s", request->node);
	if (make_node_cert(&p, &o, NULL, key, &cert, e) < 0)
		return e->code;
	if (write_node(&p, &o, NULL, cert, e) < 0 || pki_publish(&p, e) < 0)
		return e->code;
	return answer_with(&p, request->node, ret, e);
}

int pki_make_request(const char *node, struct join_request *ret, gnutls_datum_t *ret_key, struct err *e)
{
	cleanup_key gnutls_x509_privkey_t key = NULL;
	cleanup_crq gnutls_x509_crq_t crq = NULL;
	gnutls_datum_t pem = { 0 };
	int code = make_key(&key);

	THEN(code, gnutls_x509_crq_init(&crq));
	THEN(code, gnutls_x509_crq_set_version(crq, 1));
	THEN(code, gnutls_x509_crq_set_dn_by_oid(crq, GNUTLS_OID_X520_COMMON_NAME, 0, node, (unsigned)strlen(node)));
	THEN(code, gnutls_x509_crq_set_key(crq, key));
	THEN(code, gnutls_x509_crq_sign2(crq, key, GNUTLS_DIG_SHA256, 0));
	THEN(code, gnutls_x509_crq_export2(crq, GNUTLS_X509_FMT_PEM, &pem));
	if (code >= 0 && pem.size > JOIN_CSR_MAX)
		code = GNUTLS_E_SHORT_MEMORY_BUFFER;
	if (code >= 0) {
		memcpy(ret->csr, pem.data, pem.size);
		ret->csr_len = (uint16_t)pem.size;
	}
	gnutls_free(pem.data);
	THEN(code, gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, ret_key));
	return code < 0 ? pki_gnutls(e, code, "a request for a certificate") : 0;
}
