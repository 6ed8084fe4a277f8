/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tls_identity.c - certificates of this node and of others; see tls_identity.h */
#include "wire/tls_identity.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/util.h"

#define FILE_MAX (1u << 20)
#define CHAIN_MAX 4u
#define NAMES_MAX 32u

static void wipe(gnutls_datum_t *d)
{
	if (d->data)
		explicit_bzero(d->data, d->size);
	free(d->data);
	*d = (gnutls_datum_t){ 0 };
}

static int check_file(int fd, const char *path, unsigned never, const char *way_out, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "%s", path);
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return err_set(e, -EINVAL, "%s: no ordinary file, or larger than %u bytes", path, FILE_MAX);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return err_set(e, -EINVAL, "%s belongs to user %u, who could change it: chown root %s", path, st.st_uid, path);
	if (st.st_mode & never)
		return err_set(e, -EINVAL, "%s: others than its owner may %s it: chmod %s %s", path, never & 044 ? "use" : "change", way_out, path);
	return 0;
}

/* The whole of a file that nobody else may change, nor read if it is secret. wipe() is for what comes out. */
static int load(const char *what, const char *path, bool secret, gnutls_datum_t *ret, struct err *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	gnutls_datum_t d = { .data = malloc(FILE_MAX + 1) };
	ssize_t n;

	if (!d.data)
		return err_sys(e, -ENOMEM, "%s", path);
	if (fd < 0 || check_file(fd, path, secret ? 077 : 022, secret ? "600" : "644", e) < 0) {
		int code = fd < 0 ? err_sys(e, -errno, "%s, %s", what, path) : e ? e->code : -EINVAL;

		wipe(&d);
		return code;
	}
	while ((n = read(fd, d.data + d.size, FILE_MAX - d.size)) > 0)
		d.size += (unsigned)n;
	d.data[d.size] = 0;
	*ret = d;
	return n < 0 ? err_sys(e, -errno, "%s", path) : 0;
}

static int read_trust(const struct tls_paths *paths, struct tls_identity *id, struct err *e)
{
	gnutls_datum_t ca = { 0 }, crl = { 0 };
	int ret = load("ca", paths->ca, false, &ca, e), code;

	if (ret == 0)
		ret = load("crl", paths->crl, false, &crl, e);
	if (ret == 0 && gnutls_x509_trust_list_init(&id->trust, 0) < 0)
		ret = err_sys(e, -ENOMEM, "certificates");
	if (ret == 0 && (code = gnutls_x509_trust_list_add_trust_mem(id->trust, &ca, NULL, GNUTLS_X509_FMT_PEM, 0, 0)) <= 0)
		ret = err_set(e, -EINVAL, "%s: no certificates of CAs are in it%s%s", paths->ca, code < 0 ? ": " : "", code < 0 ? gnutls_strerror(code) : "");
	/* Only what is signed by one of those CAs counts. */
	if (ret == 0 && (code = gnutls_x509_trust_list_add_trust_mem(id->trust, NULL, &crl, GNUTLS_X509_FMT_PEM, GNUTLS_TL_VERIFY_CRL, 0)) <= 0)
		ret = err_set(e, -EINVAL, "%s: no list of revocations by a CA of %s is in it%s%s", paths->crl, paths->ca, code < 0 ? ": " : "", code < 0 ? gnutls_strerror(code) : "");
	wipe(&ca);
	wipe(&crl);
	return ret;
}

static int read_own(const struct tls_paths *paths, struct tls_identity *id, struct err *e)
{
	gnutls_datum_t cert = { 0 }, key = { 0 };
	int ret = load("certificate", paths->certificate, false, &cert, e), code;

	if (ret == 0)
		ret = load("key", paths->key, true, &key, e);
	if (ret == 0 && gnutls_certificate_allocate_credentials(&id->credentials) < 0)
		ret = err_sys(e, -ENOMEM, "certificates");
	if (ret == 0) {
		code = gnutls_certificate_set_x509_key_mem2(id->credentials, &cert, &key, GNUTLS_X509_FMT_PEM, NULL, 0);
		if (code == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
			ret = err_set(e, -EINVAL, "%s is not the key of the certificate in %s: copy both from the same `godwit pki issue`", paths->key, paths->certificate);
		else if (code < 0)
			ret = err_set(e, -EINVAL, "%s and %s: %s", paths->certificate, paths->key, gnutls_strerror(code));
	}
	wipe(&cert);
	wipe(&key);
	return ret;
}

const char *tls_verdict_text(enum tls_verdict verdict)
{
	static const char *const texts[] = {
		[TLS_GOOD] = "it is good",
		[TLS_REVOKED] = "it has been revoked (`godwit pki issue` makes a new one)",
		[TLS_EXPIRED] = "it has expired (`godwit pki issue` makes a new one)",
		[TLS_NOT_YET] = "it is not valid yet (do the clocks agree?)",
		[TLS_OLD_LIST] = "the list of revocations, crl, has expired (`godwit pki revoke` makes a new one)",
		[TLS_STRANGER] = "it is by no CA that is believed (ca)",
		[TLS_OTHER_NAME] = "it is for another node",
		[TLS_NONE] = "there is none that can be read",
	};

	return texts[verdict];
}

static enum tls_verdict verdict_of(unsigned status)
{
	if (!status)
		return TLS_GOOD;
	if (status & GNUTLS_CERT_REVOKED)
		return TLS_REVOKED;
	if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE | GNUTLS_CERT_SIGNER_NOT_CA | GNUTLS_CERT_INSECURE_ALGORITHM))
		return TLS_STRANGER;
	if (status & GNUTLS_CERT_EXPIRED)
		return TLS_EXPIRED;
	if (status & GNUTLS_CERT_NOT_ACTIVATED)
		return TLS_NOT_YET;
	if (status & (GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED | GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE))
		return TLS_OLD_LIST;
	return TLS_STRANGER;
}

static bool is_word(const char *name, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (name[i] <= ' ' || name[i] > '~')
			return false;
	return len > 0;
}

/* Names and addresses that it is for, with blanks between them. */
static void read_names(gnutls_x509_crt_t cert, char ret[ERR_MESSAGE_MAX])
{
	size_t len = 0;

	ret[0] = 0;
	for (unsigned i = 0; i < NAMES_MAX; i++) {
		char name[256], text[INET6_ADDRSTRLEN];
		size_t n = sizeof(name) - 1;
		int type = gnutls_x509_crt_get_subject_alt_name(cert, i, name, &n, NULL);

		if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (type < 0)
			continue;
		name[n] = 0;
		if (type == GNUTLS_SAN_IPADDRESS && (n == 4 || n == 16) && inet_ntop(n == 4 ? AF_INET : AF_INET6, name, text, sizeof(text)))
			snprintf(name, sizeof(name), "%s", text);
		else if (type != GNUTLS_SAN_DNSNAME || !is_word(name, n))
			continue;
		n = strlen(name);
		if (len + n + 2 < ERR_MESSAGE_MAX)
			len += (size_t)snprintf(ret + len, ERR_MESSAGE_MAX - len, "%s%s", len ? " " : "", name);
	}
}

enum tls_verdict tls_judge(const struct tls_identity *id, const gnutls_datum_t *chain, unsigned n, const char *purpose, char ret_names[ERR_MESSAGE_MAX])
{
	gnutls_typed_vdata_st use = { .type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)(uintptr_t)purpose };
	gnutls_x509_crt_t certs[CHAIN_MAX] = { NULL };
	enum tls_verdict verdict = TLS_NONE;
	unsigned read = 0, status = 0;

	ret_names[0] = 0;
	while (read < MIN(n, CHAIN_MAX) && gnutls_x509_crt_init(&certs[read]) >= 0 && gnutls_x509_crt_import(certs[read], &chain[read], GNUTLS_X509_FMT_DER) >= 0)
		read++;
	if (read && read == n) {
		read_names(certs[0], ret_names);
		/* By itself first: what leads to an older CA does not matter where that is trusted no longer. */
		for (unsigned with = 1; with <= n && (with == 1 || verdict == TLS_STRANGER); with = with == 1 && n > 1 ? n : n + 1)
			verdict = gnutls_x509_trust_list_verify_crt2(id->trust, certs, with, &use, 1, 0, &status, NULL) < 0 ? TLS_NONE : verdict_of(status);
	}
	for (unsigned i = 0; i < CHAIN_MAX; i++)
		gnutls_x509_crt_deinit(certs[i]);
	return verdict;
}

/* As others will judge it. */
static int check_own(const struct tls_paths *paths, const char *node, struct tls_identity *id, struct err *e)
{
	gnutls_x509_crt_t *certs = NULL;
	gnutls_datum_t chain[CHAIN_MAX] = { { 0 } };
	char names[ERR_MESSAGE_MAX] = "";
	enum tls_verdict verdict = TLS_NONE;
	unsigned n = 0, read = 0;

	if (gnutls_certificate_get_x509_crt(id->credentials, 0, &certs, &n) < 0)
		return err_set(e, -EINVAL, "%s: no certificate is in it", paths->certificate);
	id->until = n ? gnutls_x509_crt_get_expiration_time(certs[0]) : 0;
	while (read < MIN(n, CHAIN_MAX) && gnutls_x509_crt_export2(certs[read], GNUTLS_X509_FMT_DER, &chain[read]) >= 0)
		read++;
	if (read && read == n)
		verdict = tls_judge(id, chain, n, GNUTLS_KP_TLS_WWW_SERVER, names);
	if (verdict == TLS_GOOD)
		verdict = tls_judge(id, chain, n, GNUTLS_KP_TLS_WWW_CLIENT, names);
	for (unsigned i = 0; i < CHAIN_MAX; i++)
		gnutls_free(chain[i].data);
	for (unsigned i = 0; i < n; i++)
		gnutls_x509_crt_deinit(certs[i]);
	gnutls_free(certs);
	if (verdict != TLS_GOOD)
		return err_set(e, -EINVAL, "%s: this node's certificate would be refused: %s", paths->certificate, tls_verdict_text(verdict));
	if (!tls_names_have(names, node))
		return err_set(e, -EINVAL, "%s is a certificate of %s, and this node is %s: `godwit pki issue %s`, or set name in [node]", paths->certificate, names, node, node);
	return 0;
}

int tls_identity_load(const struct tls_paths *paths, const char *node, struct tls_identity *ret, struct err *e)
{
	struct tls_identity id = { 0 };
	struct err why = ERR_INIT;

	if (read_trust(paths, &id, &why) < 0 || read_own(paths, &id, &why) < 0 || check_own(paths, node, &id, &why) < 0) {
		tls_identity_free(&id);
		return err_set(e, why.code, "%s", why.message);
	}
	*ret = id;
	return 0;
}

void tls_identity_free(struct tls_identity *id)
{
	if (id->credentials)
		gnutls_certificate_free_credentials(id->credentials);
	if (id->trust)
		gnutls_x509_trust_list_deinit(id->trust, 1);
	*id = (struct tls_identity){ 0 };
}
