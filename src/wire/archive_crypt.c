/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* archive_crypt.c - the encryption of an image's records, by GnuTLS; see archive.h */
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "wire/archive_internal.h"

#define CIPHER GNUTLS_CIPHER_AES_256_GCM
#define FILE_KEY_BYTES 32u
#define NONCE_BYTES 12u
#define AUTHENTICATED offsetof(struct archive_header, crc)

struct archive_cipher {
	gnutls_aead_cipher_hd_t handle;
};

static const char purpose[] = "godwit image";

/* A key that no other file has, so that the numbers of records may be nonces. */
static int derive(const struct archive_key *key, const uint8_t *salt, uint8_t ret[FILE_KEY_BYTES])
{
	const gnutls_datum_t given = { (unsigned char *)(uintptr_t)key->bytes, sizeof(key->bytes) }, salted = { (unsigned char *)(uintptr_t)salt, ARCHIVE_SALT_BYTES };
	const gnutls_datum_t info = { (unsigned char *)(uintptr_t)purpose, sizeof(purpose) - 1 };
	uint8_t extracted[32];
	const gnutls_datum_t middle = { extracted, sizeof(extracted) };
	int code = gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &given, &salted, extracted);

	if (code >= 0)
		code = gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &middle, &info, ret, FILE_KEY_BYTES);
	explicit_bzero(extracted, sizeof(extracted));
	return code;
}

int archive_cipher_open(const struct archive_key *key, const uint8_t salt[ARCHIVE_SALT_BYTES], struct archive_cipher **ret, struct err *e)
{
	struct archive_cipher *c = calloc(1, sizeof(*c));
	uint8_t file_key[FILE_KEY_BYTES];
	const gnutls_datum_t datum = { file_key, sizeof(file_key) };
	int code;

	if (!c)
		return err_sys(e, -ENOMEM, "the encryption of an image");
	code = derive(key, salt, file_key);
	if (code >= 0)
		code = gnutls_aead_cipher_init(&c->handle, CIPHER, &datum);
	explicit_bzero(file_key, sizeof(file_key));
	if (code < 0) {
		free(c);
		return err_set(e, -EIO, "the encryption of an image: %s", gnutls_strerror(code));
	}
	*ret = c;
	return 0;
}

static void nonce_of(const struct archive_header *h, uint8_t ret[NONCE_BYTES])
{
	memset(ret, 0, NONCE_BYTES);
	memcpy(ret, &h->number, sizeof(h->number));
}

int archive_cipher_seal(struct archive_cipher *c, const struct archive_header *h, const void *data, size_t len, uint8_t *to, struct err *e)
{
	size_t room = len + ARCHIVE_TAG_BYTES;
	uint8_t nonce[NONCE_BYTES];
	int code;

	nonce_of(h, nonce);
	code = gnutls_aead_cipher_encrypt(c->handle, nonce, sizeof(nonce), h, AUTHENTICATED, ARCHIVE_TAG_BYTES, data, len, to, &room);
	return code < 0 || room != len + ARCHIVE_TAG_BYTES ? err_set(e, -EIO, "the encryption of an image: %s", gnutls_strerror(code)) : 0;
}

int archive_cipher_unseal(struct archive_cipher *c, const struct archive_header *h, uint8_t *data)
{
	size_t len = h->stored - ARCHIVE_TAG_BYTES;
	giovec_t authenticated = { (void *)(uintptr_t)h, AUTHENTICATED }, payload = { data, len };
	uint8_t nonce[NONCE_BYTES];

	nonce_of(h, nonce);
	return gnutls_aead_cipher_decryptv2(c->handle, nonce, sizeof(nonce), &authenticated, 1, &payload, 1, data + len, ARCHIVE_TAG_BYTES) < 0 ? -EBADMSG : 0;
}

void archive_cipher_close(struct archive_cipher *c)
{
	if (!c)
		return;
	gnutls_aead_cipher_deinit(c->handle);
	free(c);
}
