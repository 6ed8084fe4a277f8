/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pki_revoke.c - the CAs of a directory over time, and what they have revoked; see pki.h */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/util.h"
#include "pki/pki_internal.h"

#define DAY_S 86400

/* The list is replaced when something is revoked, and by nothing else: one that grew old by itself would end the cluster. */
#define CRL_DAYS PKI_CA_DAYS

int pki_init(const char *directory, struct err *e)
{
	cleanup_pki struct pki p = PKI_INIT, made = PKI_INIT;

	if (pki_create(directory, &p, e) < 0)
		return e->code;
	if (pki_newest(&p, PKI_GENERATIONS_MAX))
		return err_set(e, -EEXIST, "%s has a CA already; `godwit pki rotate` makes another beside it", directory);
	if (pki_make_ca(&p, 1, e) < 0)
		return e->code;
	pki_close(&p);
	return pki_open(directory, &made, e) < 0 ? e->code : pki_publish(&made, e);
}

int pki_rotate(const char *directory, struct err *e)
{
	cleanup_pki struct pki p = PKI_INIT, made = PKI_INIT;

	if (pki_open(directory, &p, e) < 0)
		return e->code;
	if (p.n_cas > 1)
		return err_set(e, -EBUSY, "%s has two CAs: when all nodes have certificates of the newer one, `godwit pki retire` removes the other", directory);
	if (pki_make_ca(&p, p.cas[0].generation + 1, e) < 0)
		return e->code;
	pki_close(&p);
	return pki_open(directory, &made, e) < 0 ? e->code : pki_publish(&made, e);
}

/* Nodes whose certificate is of another CA than the newest. */
struct behind {
	char names[256];
	size_t n;
};

static int is_behind(const struct pki *p, const char *node, void *context, struct err *e)
{
	struct behind *x = context;
	gnutls_datum_t pem = { 0 };
	gnutls_x509_crt_t cert = NULL;
	char file[PKI_FILE_MAX];

	snprintf(file, sizeof(file), "nodes/%s/node.pem", node);
	if (!pki_name_valid(node) || pki_load(p->fd, file, &pem, NULL) < 0)
		return 0;
	if (gnutls_x509_crt_init(&cert) >= 0 && gnutls_x509_crt_import(cert, &pem, GNUTLS_X509_FMT_PEM) >= 0 && !gnutls_x509_crt_check_issuer(cert, p->cas[0].cert)) {
		size_t len = strlen(x->names);

		snprintf(x->names + len, sizeof(x->names) - len, "%s%s", x->n ? ", " : "", node);
		x->n++;
	}
	gnutls_x509_crt_deinit(cert);
	gnutls_free(pem.data);
	return 0;
}

int pki_retire(const char *directory, struct err *e)
{
	cleanup_pki struct pki p = PKI_INIT, left = PKI_INIT;
	struct behind behind = { 0 };
	char file[PKI_FILE_MAX];

	if (pki_open(directory, &p, e) < 0)
		return e->code;
	if (p.n_cas < 2)
		return err_set(e, -ENOENT, "%s has only one CA; `godwit pki rotate` makes another", directory);
	if (pki_each(&p, "nodes", is_behind, &behind, e) < 0)
		return e->code;
	if (behind.n)
		return err_set(e, -EBUSY, "%s: %s %s certificates of the old CA only: issue new ones first (`godwit pki issue NODE`), and copy them; or remove nodes/NODE of nodes that there are no longer",
			       directory, behind.names, behind.n == 1 ? "has" : "have");
	snprintf(file, sizeof(file), "ca-%u.pem", p.cas[1].generation);
	if (unlinkat(p.fd, file, 0) < 0)
		return err_sys(e, -errno, "%s/%s", directory, file);
	snprintf(file, sizeof(file), "ca-%u.key", p.cas[1].generation);
	(void)unlinkat(p.fd, file, 0);
	snprintf(file, sizeof(file), "cross-%u.pem", p.cas[0].generation);
	(void)unlinkat(p.fd, file, 0);
	pki_close(&p);
	return pki_open(directory, &left, e) < 0 ? e->code : pki_publish(&left, e);
}

struct revoking {
	const char *node;
	size_t n;
};

static int revoke_file(const struct pki *p, const char *name, void *context, struct err *e)
{
	struct revoking *x = context;
	char node[PKI_NAME_MAX + 1], from[PKI_FILE_MAX + 8], to[PKI_FILE_MAX + 8];
	unsigned generation;

	if (!pki_file_parse(name, &generation, node) || strcmp(node, x->node) != 0)
		return 0;
	snprintf(from, sizeof(from), "issued/%s", name);
	snprintf(to, sizeof(to), "revoked/%s", name);
	if (renameat(p->fd, from, p->fd, to) < 0)
		return err_sys(e, -errno, "%s", from);
	x->n++;
	return 0;
}

int pki_revoke(const char *directory, const char *node, size_t *ret_n, struct err *e)
{
	cleanup_pki struct pki p = PKI_INIT;
	struct revoking x = { .node = node };

	if (!pki_name_valid(node))
		return err_set(e, -EINVAL, "'%.80s' is no name of a node", node);
	if (pki_open(directory, &p, e) < 0)
		return e->code;
	if (mkdirat(p.fd, "revoked", 0700) < 0 && errno != EEXIST)
		return err_sys(e, -errno, "%s/revoked", directory);
	if (pki_each(&p, "issued", revoke_file, &x, e) < 0)
		return e->code;
	if (!x.n)
		return err_set(e, -ENOENT, "%s has issued no certificate for %s that is not revoked", directory, node);
	if (pki_publish(&p, e) < 0)
		return e->code;
	*ret_n = x.n;
	return 0;
}

struct listing {
	gnutls_x509_crl_t crl;
	unsigned generation;
};

static int list_file(const struct pki *p, const char *name, void *context, struct err *e)
{
	struct listing *x = context;
	char node[PKI_NAME_MAX + 1], file[PKI_FILE_MAX + 8];
	gnutls_x509_crt_t cert = NULL;
	gnutls_datum_t pem = { 0 };
	unsigned generation;
	int code;

	if (!pki_file_parse(name, &generation, node) || generation != x->generation)
		return 0;
	snprintf(file, sizeof(file), "revoked/%s", name);
	if (pki_load(p->fd, file, &pem, e) < 0)
		return e->code;
	code = gnutls_x509_crt_init(&cert);
	if (code >= 0)
		code = gnutls_x509_crt_import(cert, &pem, GNUTLS_X509_FMT_PEM);
	if (code >= 0)
		code = gnutls_x509_crl_set_crt(x->crl, cert, time(NULL));
	gnutls_x509_crt_deinit(cert);
	gnutls_free(pem.data);
	return code < 0 ? pki_gnutls(e, code, "%s", file) : 0;
}

int pki_make_crl(const struct pki *p, const struct pki_ca *ca, gnutls_datum_t *ret, struct err *e)
{
	struct listing x = { .generation = ca->generation };
	uint64_t number = __builtin_bswap64(clock_ns(CLOCK_REALTIME)); /* grows */
	uint8_t id[64];
	size_t len = sizeof(id);
	int code = gnutls_x509_crl_init(&x.crl);

	if (code < 0)
		return pki_gnutls(e, code, "a list of revocations");
	if (pki_each(p, "revoked", list_file, &x, e) < 0) {
		gnutls_x509_crl_deinit(x.crl);
		return e->code;
	}
	code = gnutls_x509_crl_set_version(x.crl, 2);
	if (code >= 0)
		code = gnutls_x509_crl_set_this_update(x.crl, time(NULL));
	if (code >= 0)
		code = gnutls_x509_crl_set_next_update(x.crl, time(NULL) + (time_t)CRL_DAYS * DAY_S);
	if (code >= 0)
		code = gnutls_x509_crl_set_number(x.crl, &number, sizeof(number));
	if (code >= 0)
		code = gnutls_x509_crt_get_subject_key_id(ca->cert, id, &len, NULL);
	if (code >= 0)
		code = gnutls_x509_crl_set_authority_key_id(x.crl, id, len);
	if (code >= 0)
		code = gnutls_x509_crl_sign2(x.crl, ca->cert, ca->key, GNUTLS_DIG_SHA256, 0);
	if (code >= 0)
		code = gnutls_x509_crl_export2(x.crl, GNUTLS_X509_FMT_PEM, ret);
	gnutls_x509_crl_deinit(x.crl);
	return code < 0 ? pki_gnutls(e, code, "a list of revocations") : 0;
}
