// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_join.c - what goes between a host that joins and who has the CA, by the first byte: a token, a request, the head of an answer, the CA's certificate */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "pki/pki_join.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void token(const uint8_t *data, size_t len)
{
	char text[JOIN_TOKEN_TEXT * 2], again[JOIN_TOKEN_TEXT];
	struct join_token t;

	len = MIN(len, sizeof(text) - 1);
	memcpy(text, data, len);
	text[len] = 0;
	if (join_token_parse(text, &t, NULL) < 0)
		return;
	join_token_text(&t, again);
	if (strcmp(text, again) != 0)
		abort();
}

static void request(const uint8_t *data, size_t len)
{
	uint8_t bytes[JOIN_REQUEST_BYTES] = { 0 };
	struct join_request r;

	memcpy(bytes, data, MIN(len, sizeof(bytes)));
	(void)join_request_proves(bytes, bytes);
	if (join_request_decode(bytes, &r, NULL) == 0 && (strchr(r.node, '/') || !r.node[0] || r.csr_len > JOIN_CSR_MAX))
		abort();
}

static void answer(const uint8_t *data, size_t len)
{
	uint8_t head[JOIN_ANSWER_BYTES] = { 0 };
	struct join_answer a;

	memcpy(head, data, MIN(len, sizeof(head)));
	if (join_answer_decode(head, &a, NULL) < 0)
		return;
	for (int i = 0; i < JOIN_PARTS; i++)
		if (a.part[i].size > JOIN_PART_MAX || a.part[i].data)
			abort();
}

static void ca(const uint8_t *data, size_t len)
{
	const uint8_t digest[PKI_DIGEST_BYTES] = { 0 };
	gnutls_datum_t certificate = { (unsigned char *)(uintptr_t)data, (unsigned)len };
	uint8_t bytes[JOIN_CA_BYTES] = { 0 };

	memcpy(bytes, data, MIN(len, sizeof(bytes)));
	if (join_is_by(&certificate, bytes, digest))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static void (*const what[])(const uint8_t *, size_t) = { token, request, answer, ca };

	if (len)
		what[data[0] % ARRAY_SIZE(what)](data + 1, len - 1);
	return 0;
}
