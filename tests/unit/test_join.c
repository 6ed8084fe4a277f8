// SPDX-License-Identifier: GPL-2.0-or-later
/* What a host joins with: tokens, requests, certificates that come of them, and the changes to godwit.conf. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <cmocka.h>

#include "base/util.h"
#include "cli/conf_edit.h"
#include "pki/pki_join.h"

static void test_token(void **state)
{
	struct join_token token = { .port = 4471 }, again;
	char text[JOIN_TOKEN_TEXT];
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < sizeof(token.ca); i++)
		token.ca[i] = (uint8_t)(i * 37 + 200);
	for (size_t i = 0; i < sizeof(token.secret); i++)
		token.secret[i] = (uint8_t)(255 - i);
	join_token_text(&token, text);
	assert_int_equal(join_token_parse(text, &again, &e), 0);
	assert_memory_equal(&token, &again, sizeof(token));
	text[strlen(text) - 1] = 0;
	assert_int_equal(join_token_parse(text, &again, &e), -EINVAL);
	assert_int_equal(join_token_parse("godwit1-", &again, &e), -EINVAL);
	join_token_text(&token, text);
	text[20] = '!';
	assert_int_equal(join_token_parse(text, &again, &e), -EINVAL);
	token.port = 0;
	join_token_text(&token, text);
	assert_int_equal(join_token_parse(text, &again, &e), -EINVAL);
}

static void remove_all(const char *directory)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", directory);
	assert_int_equal(system(command), 0);
}

/* The certificate is for the key of the request, which is nowhere where the CA is; a name is given once. */
static void test_request(void **state)
{
	char root[] = "/tmp/godwit-join-XXXXXX", pki[64];
	struct join_request request = { .secret = "secret", .node = "n2", .address = "10.0.0.2" }, read;
	gnutls_certificate_credentials_t credentials = NULL;
	uint8_t bytes[JOIN_REQUEST_BYTES], other[JOIN_SECRET_BYTES] = "secreT", ca[JOIN_CA_BYTES], digest[PKI_DIGEST_BYTES];
	struct join_answer answer = { 0 };
	gnutls_datum_t key;
	struct err e = ERR_INIT;

	(void)state;
	assert_non_null(mkdtemp(root));
	snprintf(pki, sizeof(pki), "%s/pki", root);
	assert_int_equal(pki_init(pki, &e), 0);
	assert_int_equal(pki_make_request("n2", &request, &key, &e), 0);
	join_request_encode(&request, bytes);
	assert_true(join_request_proves(bytes, request.secret));
	assert_false(join_request_proves(bytes, other));
	assert_int_equal(join_request_decode(bytes, &read, &e), 0);
	assert_memory_equal(&request, &read, sizeof(read));

	assert_int_equal(pki_issue_request(pki, &read, 10, &answer, &e), 0);
	assert_int_equal(gnutls_certificate_allocate_credentials(&credentials), 0);
	assert_int_equal(gnutls_certificate_set_x509_key_mem(credentials, &answer.part[JOIN_CERTIFICATE], &key, GNUTLS_X509_FMT_PEM), 0);
	gnutls_certificate_free_credentials(credentials);
	join_answer_free(&answer);
	snprintf(pki + strlen(pki), sizeof(pki) - strlen(pki), "/nodes/n2/node.key");
	assert_int_equal(access(pki, F_OK), -1);
	snprintf(pki, sizeof(pki), "%s/pki", root);
	assert_int_equal(pki_issue_request(pki, &read, 10, &answer, &e), -EEXIST);

	/* A request that is not signed by its key. */
	snprintf(read.node, sizeof(read.node), "n3");
	read.csr[read.csr_len / 2] ^= 1;
	assert_true(pki_issue_request(pki, &read, 10, &answer, &e) < 0);

	assert_int_equal(pki_join_identity(pki, 60, &credentials, ca, digest, &e), 0);
	gnutls_certificate_free_credentials(credentials);
	gnutls_free(key.data);
	remove_all(root);
}

static void test_nonsense(void **state)
{
	struct join_request request = { .node = "n2", .address = "10.0.0.2", .csr_len = 4 }, read;
	struct join_answer answer = { .code = 0 }, got;
	uint8_t bytes[JOIN_REQUEST_BYTES], head[JOIN_ANSWER_BYTES];
	struct err e = ERR_INIT;

	(void)state;
	join_request_encode(&request, bytes);
	assert_int_equal(join_request_decode(bytes, &read, &e), 0);
	for (unsigned i = 0; i < 2; i++) { /* a name with a slash, an address that is none */
		struct join_request bad = request;

		snprintf(i ? bad.address : bad.node, i ? sizeof(bad.address) : sizeof(bad.node), "%s", i ? "10.0.0" : "../n2");
		join_request_encode(&bad, bytes);
		assert_int_equal(join_request_decode(bytes, &read, &e), -EPROTO);
	}
	for (int i = 0; i < JOIN_PARTS; i++)
		answer.part[i].size = 10;
	join_answer_encode(&answer, head);
	assert_int_equal(join_answer_decode(head, &got, &e), 0);
	answer.part[3].size = JOIN_PART_MAX + 1;
	join_answer_encode(&answer, head);
	assert_int_equal(join_answer_decode(head, &got, &e), -EPROTO);
}

static void set(char **text, const char *section, const char *key, const char *value, const char *expected)
{
	struct err e = ERR_INIT;

	assert_int_equal(conf_set(text, section, key, value, &e), 0);
	assert_string_equal(*text, expected);
}

static void test_conf(void **state)
{
	char *text = strdup("# a comment, listen = 1\n[node]\n# listen = no\nlisten = 127.0.0.1\n\n[nodes]\nlisten = 10.0.0.9");

	(void)state;
	set(&text, "node", "listen", "10.0.0.1", "# a comment, listen = 1\n[node]\n# listen = no\nlisten = 10.0.0.1\n\n[nodes]\nlisten = 10.0.0.9");
	set(&text, "node", "name", "n1", "# a comment, listen = 1\n[node]\n# listen = no\nlisten = 10.0.0.1\nname = n1\n\n[nodes]\nlisten = 10.0.0.9");
	set(&text, "nodes", "n1", "10.0.0.1", "# a comment, listen = 1\n[node]\n# listen = no\nlisten = 10.0.0.1\nname = n1\n\n[nodes]\nlisten = 10.0.0.9\nn1 = 10.0.0.1\n");
	set(&text, "nodes", "listen", NULL, "# a comment, listen = 1\n[node]\n# listen = no\nlisten = 10.0.0.1\nname = n1\n\n[nodes]\nn1 = 10.0.0.1\n");
	set(&text, "tls", "ca", "/x", "# a comment, listen = 1\n[node]\n# listen = no\nlisten = 10.0.0.1\nname = n1\n\n[nodes]\nn1 = 10.0.0.1\n\n[tls]\nca = /x\n");
	set(&text, "tls", "crl", NULL, "# a comment, listen = 1\n[node]\n# listen = no\nlisten = 10.0.0.1\nname = n1\n\n[nodes]\nn1 = 10.0.0.1\n\n[tls]\nca = /x\n");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_token), cmocka_unit_test(test_request), cmocka_unit_test(test_nonsense), cmocka_unit_test(test_conf) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
