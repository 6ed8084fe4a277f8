/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tokens.h - who may use the API over TLS: a file with a line "NAME USER SHA256" for each token (docs/api.md)
 *
 * A token is 256 random bits, "gwt_" and 64 hexadecimal digits; the file has only what SHA-256 makes of it (which needs no salt: nobody guesses one). It belongs to root, mode 0600.
 */
#ifndef GODWIT_PKI_TOKENS_H
#define GODWIT_PKI_TOKENS_H

#include "base/err.h"

#define TOKENS_DEFAULT_PATH "/etc/godwit/api-tokens"
#define TOKEN_TEXT 69u /* with the final 0 */
#define TOKEN_NAME_MAX 64u
#define TOKEN_USER_MAX 64u
#define TOKENS_MAX 1024u

struct token {
	char name[TOKEN_NAME_MAX + 1], user[TOKEN_USER_MAX + 1], hash[65];
};

/* Whose it is. -ENOENT: nobody's; another error: the file is not as it must be. */
int tokens_find(const char *path, const char *token, char ret_user[TOKEN_USER_MAX + 1], struct err *e);
/* Makes one. -EEXIST: there is one of that name. */
int tokens_add(const char *path, const char *name, const char *user, char ret_token[TOKEN_TEXT], struct err *e);
/* -ENOENT. */
int tokens_remove(const char *path, const char *name, struct err *e);
/* All; the caller's. No file: none. */
int tokens_read(const char *path, struct token **ret, size_t *ret_n, struct err *e);

#endif
