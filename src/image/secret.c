/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* secret.c - keys in files; see secret.h */
#include "image/secret.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "image/sha256.h"

/* A key is as good as it is secret. */
static int check_file(int fd, const char *path, const char *what, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s: %s must be an ordinary file", path, what);
	if (st.st_mode & 077)
		return err_set(e, -EPERM, "%s: others than its owner may use %s: chmod 600 %s", path, what, path);
	return 0;
}

int secret_read(const char *path, const char *what, uint8_t ret[SECRET_BYTES], struct err *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char text[SECRET_FILE_MAX + 1];
	struct sha256 sum;
	ssize_t n;

	if (fd < 0)
		return err_sys(e, -errno, "%s, %s", what, path);
	if (check_file(fd, path, what, e) < 0)
		return e->code;
	n = read(fd, text, sizeof(text));
	if (n < 0)
		return err_sys(e, -errno, "%s: read", path);
	while (n > 0 && isspace((unsigned char)text[n - 1])) /* an editor's newline makes no other key */
		n--;
	if (n >= SECRET_FILE_MIN && n <= SECRET_FILE_MAX) {
		sha256_start(&sum);
		sha256_add(&sum, text, (size_t)n);
		sha256_end(&sum, ret);
		explicit_bzero(&sum, sizeof(sum));
	}
	explicit_bzero(text, sizeof(text));
	if (n < SECRET_FILE_MIN || n > SECRET_FILE_MAX)
		return err_set(e, -EINVAL, "%s: a key has from %d to %d bytes: head -c 32 /dev/urandom | base64 >%s", path, SECRET_FILE_MIN, SECRET_FILE_MAX, path);
	return 0;
}
