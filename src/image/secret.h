/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* secret.h - keys in files: of the cluster, of an image */
#ifndef GODWIT_IMAGE_SECRET_H
#define GODWIT_IMAGE_SECRET_H

#include <stdint.h>

#include "base/err.h"

#define SECRET_BYTES 32u
#define SECRET_FILE_MIN 16
#define SECRET_FILE_MAX 4096

/*
 * SHA-256 of the contents of `path` without white space at the end. `what` is for messages ("the cluster's key"). -ENOENT and other errors of open(2); -EPERM: others than its
 * owner may use the file; -EINVAL: it is no regular file, or has not between SECRET_FILE_MIN and SECRET_FILE_MAX bytes. The file is expected to be random: nothing makes a
 * weak passphrase stronger here.
 */
int secret_read(const char *path, const char *what, uint8_t ret[SECRET_BYTES], struct err *e);

#endif
