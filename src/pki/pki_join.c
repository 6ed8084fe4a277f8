/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pki_join.c - what goes between a new node and who has the CA; see pki_join.h. Certificates for it are made in pki_make.c */
#include "pki/pki_join.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <string.h>

#include "base/util.h"
#include "pki/pki_internal.h"

#define TOKEN_BYTES (2u + PKI_DIGEST_BYTES + JOIN_SECRET_BYTES)
#define TOKEN_BEGIN "godwit1-"

static const char request_magic[8] = "GDWJOIN1", answer_magic[8] = "GDWJOIN2";
static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"; /* base64url, RFC 4648 */

/* --- the token --- */

void join_token_text(const struct join_token *token, char ret[JOIN_TOKEN_TEXT])
{
	uint8_t bytes[TOKEN_BYTES];
	uint16_t port = htobe16(token->port);
	size_t n = strlen(TOKEN_BEGIN);

	_Static_assert(TOKEN_BYTES % 3 == 0, "no rest");
	memcpy(bytes, &port, 2);
	memcpy(bytes + 2, token->ca, PKI_DIGEST_BYTES);
	memcpy(bytes + 2 + PKI_DIGEST_BYTES, token->secret, JOIN_SECRET_BYTES);
	memcpy(ret, TOKEN_BEGIN, n);
	for (size_t i = 0; i < TOKEN_BYTES; i += 3) {
		uint32_t v = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | bytes[i + 2];

		for (int shift = 18; shift >= 0; shift -= 6)
			ret[n++] = digits[v >> shift & 63];
	}
	ret[n] = 0;
	explicit_bzero(bytes, sizeof(bytes));
}

int join_token_parse(const char *text, struct join_token *ret, struct err *e)
{
	uint8_t bytes[TOKEN_BYTES];
	size_t begin = strlen(TOKEN_BEGIN);
	uint16_t port;

	if (strncmp(text, TOKEN_BEGIN, begin) != 0 || strlen(text) != begin + TOKEN_BYTES / 3 * 4)
		return err_set(e, -EINVAL, "that is no token, or not all of it: `godwit cluster token` prints one, which begins with " TOKEN_BEGIN " and has %zu characters", begin + TOKEN_BYTES / 3 * 4);
	text += begin;
	for (size_t i = 0; i < TOKEN_BYTES; i += 3) {
		uint32_t v = 0;

		for (int k = 0; k < 4; k++) {
			const char *digit = strchr(digits, *text++);

			if (!digit || !*digit)
				return err_set(e, -EINVAL, "that is no token: it has a character that no token has");
			v = v << 6 | (uint32_t)(digit - digits);
		}
		bytes[i] = (uint8_t)(v >> 16);
		bytes[i + 1] = (uint8_t)(v >> 8);
		bytes[i + 2] = (uint8_t)v;
	}
	memcpy(&port, bytes, 2);
	ret->port = be16toh(port);
	memcpy(ret->ca, bytes + 2, PKI_DIGEST_BYTES);
	memcpy(ret->secret, bytes + 2 + PKI_DIGEST_BYTES, JOIN_SECRET_BYTES);
	explicit_bzero(bytes, sizeof(bytes));
	return ret->port ? 0 : err_set(e, -EINVAL, "that is no token: it names no port");
}

/* --- request and answer --- */

#define AT_SECRET sizeof(request_magic)
#define AT_NODE (AT_SECRET + JOIN_SECRET_BYTES)
#define AT_ADDRESS (AT_NODE + PKI_NAME_MAX + 1)
#define AT_LEN (AT_ADDRESS + 46)
#define AT_CSR (AT_LEN + 2)

void join_request_encode(const struct join_request *request, uint8_t to[JOIN_REQUEST_BYTES])
{
	uint16_t len = htole16(request->csr_len);

	_Static_assert(AT_CSR + JOIN_CSR_MAX == JOIN_REQUEST_BYTES, "the layout");
	memset(to, 0, JOIN_REQUEST_BYTES);
	memcpy(to, request_magic, sizeof(request_magic));
	memcpy(to + AT_SECRET, request->secret, JOIN_SECRET_BYTES);
	memcpy(to + AT_NODE, request->node, strnlen(request->node, PKI_NAME_MAX));
	memcpy(to + AT_ADDRESS, request->address, strnlen(request->address, 45));
	memcpy(to + AT_LEN, &len, 2);
	memcpy(to + AT_CSR, request->csr, MIN(request->csr_len, JOIN_CSR_MAX));
}

bool join_request_proves(const uint8_t from[JOIN_REQUEST_BYTES], const uint8_t secret[JOIN_SECRET_BYTES])
{
	return gnutls_memcmp(from + AT_SECRET, secret, JOIN_SECRET_BYTES) == 0 && !memcmp(from, request_magic, sizeof(request_magic));
}

int join_request_decode(const uint8_t from[JOIN_REQUEST_BYTES], struct join_request *ret, struct err *e)
{
	struct join_request r = { 0 };
	uint8_t address[16];
	uint16_t len;

	memcpy(r.secret, from + AT_SECRET, JOIN_SECRET_BYTES);
	memcpy(r.node, from + AT_NODE, PKI_NAME_MAX);
	memcpy(r.address, from + AT_ADDRESS, 45);
	memcpy(&len, from + AT_LEN, 2);
	r.csr_len = le16toh(len);
	if (memcmp(from, request_magic, sizeof(request_magic)) != 0 || !r.csr_len || r.csr_len > JOIN_CSR_MAX)
		return err_set(e, -EPROTO, "the request is none");
	if (!pki_name_valid(r.node))
		return err_set(e, -EPROTO, "a node's name has 1 to %u letters, digits, '.', '_', '-'", PKI_NAME_MAX);
	if (inet_pton(AF_INET, r.address, address) != 1)
		return err_set(e, -EPROTO, "its address is none");
	memcpy(r.csr, from + AT_CSR, r.csr_len);
	*ret = r;
	return 0;
}

void join_answer_encode(const struct join_answer *answer, uint8_t to[JOIN_ANSWER_BYTES])
{
	uint32_t v = htole32((uint32_t)answer->code);

	memcpy(to, answer_magic, sizeof(answer_magic));
	memcpy(to + 8, &v, 4);
	for (int i = 0; i < JOIN_PARTS; i++) {
		v = htole32(answer->part[i].size);
		memcpy(to + 12 + 4 * i, &v, 4);
	}
}

int join_answer_decode(const uint8_t from[JOIN_ANSWER_BYTES], struct join_answer *ret, struct err *e)
{
	struct join_answer a = { 0 };
	uint32_t v;

	if (memcmp(from, answer_magic, sizeof(answer_magic)) != 0)
		return err_set(e, -EPROTO, "the answer is none");
	memcpy(&v, from + 8, 4);
	a.code = (int32_t)le32toh(v);
	for (int i = 0; i < JOIN_PARTS; i++) {
		memcpy(&v, from + 12 + 4 * i, 4);
		a.part[i].size = le32toh(v);
		if (a.part[i].size > JOIN_PART_MAX || (a.code >= 0 && !a.part[i].size))
			return err_set(e, -EPROTO, "the answer is none: a part of %u bytes", a.part[i].size);
	}
	*ret = a;
	return 0;
}

void join_answer_free(struct join_answer *answer)
{
	for (int i = 0; i < JOIN_PARTS; i++) {
		if (answer->part[i].data)
			explicit_bzero(answer->part[i].data, answer->part[i].size);
		gnutls_free(answer->part[i].data);
	}
	*answer = (struct join_answer){ 0 };
}

/* --- whom the new node believes --- */

bool join_is_by(const gnutls_datum_t *certificate, const uint8_t ca[JOIN_CA_BYTES], const uint8_t digest[PKI_DIGEST_BYTES])
{
	gnutls_x509_crt_t certs[2] = { NULL, NULL };
	uint8_t seen[PKI_DIGEST_BYTES];
	unsigned status = ~0u;
	gnutls_datum_t der;
	uint16_t len;
	bool good;

	memcpy(&len, ca, 2);
	der = (gnutls_datum_t){ (unsigned char *)(uintptr_t)ca + 2, le16toh(len) };
	if (der.size > JOIN_CA_BYTES - 2 || gnutls_hash_fast(GNUTLS_DIG_SHA256, der.data, der.size, seen) < 0 || gnutls_memcmp(seen, digest, sizeof(seen)) != 0)
		return false;
	good = gnutls_x509_crt_init(&certs[0]) == 0 && gnutls_x509_crt_init(&certs[1]) == 0 && gnutls_x509_crt_import(certs[0], certificate, GNUTLS_X509_FMT_DER) == 0 &&
	       gnutls_x509_crt_import(certs[1], &der, GNUTLS_X509_FMT_DER) == 0 && gnutls_x509_crt_verify(certs[0], &certs[1], 1, 0, &status) == 0 && !status;
	for (int i = 0; i < 2; i++)
		if (certs[i])
			gnutls_x509_crt_deinit(certs[i]);
	return good;
}
