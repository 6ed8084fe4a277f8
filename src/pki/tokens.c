// SPDX-License-Identifier: LGPL-2.1-or-later
/* tokens.c - see tokens.h */
#include "pki/tokens.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"

#define PREFIX "gwt_"
#define SECRET_BYTES 32u
#define WORD "%64[A-Za-z0-9._-]"

static void write_hex(const uint8_t *bytes, size_t n, char *text)
{
	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static int hash_of(const char *token, char ret[65], struct err *e)
{
	uint8_t bytes[32];

	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, token, strlen(token), bytes) < 0)
		return err_set(e, -EIO, "SHA-256 fails");
	write_hex(bytes, sizeof(bytes), ret);
	return 0;
}

static int open_file(const char *path, FILE **ret, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	*ret = NULL;
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "%s", path);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (st.st_uid != 0 && st.st_uid != geteuid()) || st.st_mode & 077) {
		close(fd);
		return err_set(e, -EINVAL, "%s: it must be an ordinary file that is root's and nobody else may read or change: chown root %s; chmod 600 %s", path, path, path);
	}
	*ret = fdopen(fd, "re");
	return *ret ? 0 : err_sys(e, -errno, "%s", path);
}

int tokens_read(const char *path, struct token **ret, size_t *ret_n, struct err *e)
{
	cleanup_free struct token *tokens = calloc(TOKENS_MAX, sizeof(*tokens));
	cleanup_fclose FILE *f = NULL;
	char line[256];
	size_t n = 0, number = 0;

	if (!tokens)
		return err_sys(e, -ENOMEM, "tokens");
	if (open_file(path, &f, e) < 0)
		return e ? e->code : -EINVAL;
	while (f && fgets(line, sizeof(line), f)) {
		int used = 0;

		number++;
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (n == TOKENS_MAX || sscanf(line, WORD " " WORD " %64[0-9a-f]%n", tokens[n].name, tokens[n].user, tokens[n].hash, &used) != 3 || strlen(tokens[n].hash) != 64 || line[used] != '\n')
			return err_set(e, -EINVAL, "%s, line %zu: not NAME USER SHA256, or more than %u tokens: `godwit token add` makes such lines", path, number, TOKENS_MAX);
		n++;
	}
	*ret = take_ptr(tokens);
	*ret_n = n;
	return 0;
}

int tokens_find(const char *path, const char *token, char ret_user[TOKEN_USER_MAX + 1], struct err *e)
{
	cleanup_free struct token *tokens = NULL;
	char hash[65];
	size_t n = 0;

	if (strncmp(token, PREFIX, strlen(PREFIX)) != 0 || strlen(token) != TOKEN_TEXT - 1)
		return err_set(e, -ENOENT, "no such token");
	if (hash_of(token, hash, e) < 0 || tokens_read(path, &tokens, &n, e) < 0)
		return e ? e->code : -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (!strcmp(tokens[i].hash, hash)) {
			memcpy(ret_user, tokens[i].user, sizeof(tokens[i].user));
			return 0;
		}
	}
	return err_set(e, -ENOENT, "no such token");
}

static int write_file(const char *path, const struct token *tokens, size_t n, struct err *e)
{
	char fresh[PATH_MAX];
	cleanup_fclose FILE *f = NULL;
	int fd;

	if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
		return err_set(e, -ENAMETOOLONG, "%s", path);
	(void)unlink(fresh);
	fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	f = fd >= 0 ? fdopen(fd, "we") : NULL;
	if (!f) {
		int r = err_sys(e, -errno, "%s", fresh);

		close_fdp(&fd);
		return r;
	}
	fputs("# who may use the API over TLS: NAME USER SHA256 (godwit token)\n", f);
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%s %s %s\n", tokens[i].name, tokens[i].user, tokens[i].hash);
	if (fflush(f) != 0 || fsync(fd) < 0 || rename(fresh, path) < 0) {
		int r = err_sys(e, -errno, "%s", path);

		(void)unlink(fresh);
		return r;
	}
	return 0;
}

static bool is_word(const char *text, size_t max)
{
	size_t len = strlen(text);

	return len && len <= max && text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")] == 0;
}

int tokens_add(const char *path, const char *name, const char *user, char ret_token[TOKEN_TEXT], struct err *e)
{
	cleanup_free struct token *tokens = NULL;
	uint8_t bytes[SECRET_BYTES];
	char token[TOKEN_TEXT] = PREFIX;
	size_t n = 0;
	int r;

	if (!is_word(name, TOKEN_NAME_MAX) || !is_word(user, TOKEN_USER_MAX))
		return err_set(e, -EINVAL, "names of tokens and users are letters, digits, '.', '_' and '-', at most %u", TOKEN_NAME_MAX);
	r = tokens_read(path, &tokens, &n, e);
	if (r < 0)
		return r;
	if (n == TOKENS_MAX)
		return err_set(e, -ENOSPC, "there are %u tokens already: remove some", TOKENS_MAX);
	for (size_t i = 0; i < n; i++)
		if (!strcmp(tokens[i].name, name))
			return err_set(e, -EEXIST, "there is a token '%s' already: remove it, or choose another name", name);
	if (gnutls_rnd(GNUTLS_RND_KEY, bytes, sizeof(bytes)) < 0)
		return err_set(e, -EIO, "no random numbers are to be had");
	write_hex(bytes, sizeof(bytes), token + strlen(PREFIX));
	explicit_bzero(bytes, sizeof(bytes));
	snprintf(tokens[n].name, sizeof(tokens[n].name), "%s", name);
	snprintf(tokens[n].user, sizeof(tokens[n].user), "%s", user);
	r = hash_of(token, tokens[n].hash, e);
	if (r == 0)
		r = write_file(path, tokens, n + 1, e);
	if (r == 0)
		memcpy(ret_token, token, sizeof(token));
	explicit_bzero(token, sizeof(token));
	return r;
}

int tokens_remove(const char *path, const char *name, struct err *e)
{
	cleanup_free struct token *tokens = NULL;
	size_t n = 0, kept = 0;
	int r = tokens_read(path, &tokens, &n, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if (strcmp(tokens[i].name, name) != 0)
			tokens[kept++] = tokens[i];
	if (kept == n)
		return err_set(e, -ENOENT, "there is no token '%s': `godwit token list` lists them", name);
	return write_file(path, tokens, kept, e);
}
