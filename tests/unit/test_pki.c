// SPDX-License-Identifier: GPL-2.0-or-later
/* A directory of certificates: who is believed by whom, from the first CA over a rotation to the end of the old one, and after a revocation. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <cmocka.h>

#include "base/util.h"
#include "pki/pki.h"

struct place {
	char root[64], pki[96];
};

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	strcpy(p->root, "/tmp/godwit-pki-XXXXXX");
	if (!mkdtemp(p->root))
		return -1;
	snprintf(p->pki, sizeof(p->pki), "%s/pki", p->root);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;
	char command[128];
	int status;

	snprintf(command, sizeof(command), "rm -rf %s", p->root);
	status = system(command);
	free(p);
	return status;
}

static void issue(const struct place *p, const char *node, const char *address)
{
	cleanup_free char *files = NULL;
	struct err e = ERR_INIT;

	if (pki_issue(p->pki, node, &address, address != NULL, PKI_NODE_DAYS, &files, &e) < 0)
		fail_msg("%s", e.message);
}

/* A node's files as they are now. */
struct files {
	gnutls_datum_t chain, ca, crl;
};

static gnutls_datum_t load(const struct place *p, const char *node, const char *name)
{
	gnutls_datum_t ret;
	char path[256];

	snprintf(path, sizeof(path), "%s/nodes/%s/%s", p->pki, node, name);
	assert_int_equal(gnutls_load_file(path, &ret), 0);
	return ret;
}

static struct files take(const struct place *p, const char *node)
{
	return (struct files){ load(p, node, "node.pem"), load(p, node, "ca.pem"), load(p, node, "crl.pem") };
}

static void give_back(struct files *f)
{
	gnutls_free(f->chain.data);
	gnutls_free(f->ca.data);
	gnutls_free(f->crl.data);
}

/* What a node with the files `by` says of the certificates `of` another: enum gnutls_certificate_status_t. */
static unsigned judge(const struct files *by, const struct files *of)
{
	gnutls_x509_trust_list_t list;
	gnutls_x509_crt_t *certs;
	unsigned n, status = 0;

	assert_int_equal(gnutls_x509_trust_list_init(&list, 0), 0);
	assert_true(gnutls_x509_trust_list_add_trust_mem(list, &by->ca, &by->crl, GNUTLS_X509_FMT_PEM, 0, 0) > 0);
	assert_true(gnutls_x509_crt_list_import2(&certs, &n, &of->chain, GNUTLS_X509_FMT_PEM, 0) >= 0);
	assert_int_equal(gnutls_x509_trust_list_verify_crt2(list, certs, n, NULL, 0, 0, &status, NULL), 0);
	for (unsigned i = 0; i < n; i++)
		gnutls_x509_crt_deinit(certs[i]);
	gnutls_free(certs);
	gnutls_x509_trust_list_deinit(list, 1);
	return status;
}

static unsigned mode_of(const char *directory, const char *name)
{
	struct stat st;
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return stat(path, &st) < 0 ? 0 : st.st_mode & 07777;
}

static void test_first(void **state)
{
	const struct place *p = *state;
	struct err e = ERR_INIT;
	struct files a, b;

	assert_int_equal(pki_init(p->pki, &e), 0);
	assert_int_equal(pki_init(p->pki, &e), -EEXIST);
	assert_int_equal(mode_of(p->root, "pki"), 0700);
	assert_int_equal(mode_of(p->pki, "ca-1.key"), 0600);
	assert_int_equal(mode_of(p->pki, "ca.pem"), 0644);
	issue(p, "n1", "10.0.0.1");
	issue(p, "n2", NULL);
	assert_int_equal(mode_of(p->pki, "nodes/n1/node.key"), 0600);
	a = take(p, "n1");
	b = take(p, "n2");
	assert_int_equal(judge(&a, &b), 0);
	assert_int_equal(judge(&b, &a), 0);
	give_back(&a);
	give_back(&b);
}

static void test_what_is_in_it(void **state)
{
	const struct place *p = *state;
	cleanup_free struct pki_item *items = NULL;
	struct err e = ERR_INIT;
	char path[256];
	size_t n;

	assert_int_equal(pki_init(p->pki, &e), 0);
	issue(p, "n1", "fd00::1");
	snprintf(path, sizeof(path), "%s/nodes/n1/node.pem", p->pki);
	assert_int_equal(pki_read(path, &items, &n, &e), 0);
	assert_int_equal(n, 1);
	assert_int_equal(items[0].kind, PKI_CERTIFICATE);
	assert_string_equal(items[0].subject, "n1");
	assert_string_equal(items[0].names, "n1 fd00::1");
	assert_int_equal(strlen(items[0].sha256), 64);
	assert_true(items[0].until > time(NULL) + 700 * 86400);
	freep(&items);
	snprintf(path, sizeof(path), "%s/nodes/n1/node.key", p->pki);
	assert_int_equal(pki_read(path, &items, &n, &e), 0);
	assert_int_equal(items[0].kind, PKI_KEY);
	freep(&items);
	assert_int_equal(pki_read("/etc/hostname", &items, &n, &e), -EINVAL);
	assert_int_equal(pki_read("/nowhere", &items, &n, &e), -ENOENT);
}

static void test_refused(void **state)
{
	static const char *const wrong[] = { "", ".", "..", "a/b", "a b", ".new-x", "\xc3\xa9" };
	const struct place *p = *state;
	const char *address = "10.0.0";
	char *files = NULL;
	struct err e = ERR_INIT;
	size_t n;

	assert_int_equal(pki_issue(p->pki, "n1", NULL, 0, 1, &files, &e), -ENOENT);
	assert_int_equal(pki_init(p->pki, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(pki_issue(p->pki, wrong[i], NULL, 0, 1, &files, &e), -EINVAL);
		assert_int_equal(pki_revoke(p->pki, wrong[i], &n, &e), -EINVAL);
	}
	assert_int_equal(pki_issue(p->pki, "n1", &address, 1, 1, &files, &e), -EINVAL);
	assert_int_equal(pki_issue(p->pki, "n1", NULL, 0, 0, &files, &e), -EINVAL);
	assert_int_equal(pki_revoke(p->pki, "n1", &n, &e), -ENOENT);
	assert_int_equal(pki_retire(p->pki, &e), -ENOENT);
}

static void test_revoked(void **state)
{
	const struct place *p = *state;
	struct files before, a, b, again;
	struct err e = ERR_INIT;
	size_t n = 0;

	assert_int_equal(pki_init(p->pki, &e), 0);
	issue(p, "n1", NULL);
	issue(p, "n2", NULL);
	issue(p, "n2", NULL);
	before = take(p, "n1");
	b = take(p, "n2");
	assert_int_equal(pki_revoke(p->pki, "n2", &n, &e), 0);
	assert_int_equal(n, 2);
	a = take(p, "n1"); /* nothing of n1's has been issued since: its list of revocations is a new one by itself */
	assert_int_equal(judge(&before, &b), 0);
	assert_int_equal(judge(&a, &b), GNUTLS_CERT_INVALID | GNUTLS_CERT_REVOKED);
	assert_int_equal(judge(&a, &a), 0);
	issue(p, "n2", NULL);
	again = take(p, "n2");
	assert_int_equal(judge(&a, &again), 0);
	give_back(&before);
	give_back(&a);
	give_back(&b);
	give_back(&again);
}

/* One node after the other gets new files; until the old CA is retired all believe all. */
static void test_rotated(void **state)
{
	const struct place *p = *state;
	struct files old, changed, after;
	struct err e = ERR_INIT;
	size_t n;

	assert_int_equal(pki_init(p->pki, &e), 0);
	issue(p, "n1", NULL);
	issue(p, "n2", NULL);
	old = take(p, "n1");
	assert_int_equal(pki_rotate(p->pki, &e), 0);
	assert_int_equal(pki_rotate(p->pki, &e), -EBUSY);
	issue(p, "n2", NULL);
	changed = take(p, "n2");
	assert_int_equal(judge(&old, &changed), 0); /* through the cross certificate */
	assert_int_equal(judge(&changed, &old), 0);
	assert_int_equal(judge(&changed, &changed), 0);
	assert_int_equal(pki_retire(p->pki, &e), -EBUSY); /* n1 would be lost */
	assert_non_null(strstr(e.message, "n1"));
	issue(p, "n1", NULL);
	assert_int_equal(pki_revoke(p->pki, "n1", &n, &e), 0); /* of both CAs */
	assert_int_equal(n, 2);
	give_back(&changed);
	changed = take(p, "n2");
	assert_int_equal(judge(&changed, &old), GNUTLS_CERT_INVALID | GNUTLS_CERT_REVOKED);
	issue(p, "n1", NULL);
	assert_int_equal(pki_retire(p->pki, &e), 0);
	assert_int_equal(mode_of(p->pki, "ca-1.key"), 0);
	after = take(p, "n1");
	assert_true(judge(&after, &old) & GNUTLS_CERT_INVALID);
	assert_int_equal(judge(&after, &after), 0);
	assert_int_equal(judge(&changed, &after), 0);
	assert_int_equal(pki_rotate(p->pki, &e), 0);
	give_back(&old);
	give_back(&changed);
	give_back(&after);
}

/* Somebody else's nodes, of the same names. */
static void test_stranger(void **state)
{
	const struct place *p = *state;
	struct place other = *p;
	struct err e = ERR_INIT;
	struct files a, b;

	snprintf(other.pki, sizeof(other.pki), "%s/other", p->root);
	assert_int_equal(pki_init(p->pki, &e), 0);
	assert_int_equal(pki_init(other.pki, &e), 0);
	issue(p, "n1", NULL);
	issue(&other, "n1", NULL);
	a = take(p, "n1");
	b = take(&other, "n1");
	assert_true(judge(&a, &b) & GNUTLS_CERT_INVALID);
	give_back(&a);
	give_back(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first, set_up, tear_down),   cmocka_unit_test_setup_teardown(test_what_is_in_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down), cmocka_unit_test_setup_teardown(test_revoked, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rotated, set_up, tear_down), cmocka_unit_test_setup_teardown(test_stranger, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
