/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xattr.h - extended attributes of a file (xattr(7)): those that a program has given it, access control lists and capabilities
 *
 * What layers of an overlay and Godwit mark files with is left out.
 */
#ifndef GODWIT_IMAGE_XATTR_H
#define GODWIT_IMAGE_XATTR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "xattr.pb-c.h"

/* The last part of a path is followed where it is a symbolic link, as those of /proc/self/fd are, or not. */

/* A malloc'ed list; none where the file system has none. */
void xattrs_read(const char *path, bool follow, Gw__Xattr ***ret, size_t *ret_n);
/*
 * Makes these the file's, and removes others. Labels of security modules are given by each host's own rules where they cannot be set. `loose`: what the file system does not take
 * is left out, too.
 */
int xattrs_set(const char *path, bool follow, Gw__Xattr *const *v, size_t n, bool loose, struct err *e);
Gw__Xattr **xattrs_copy(Gw__Xattr *const *v, size_t n);
void xattrs_free(Gw__Xattr **v, size_t n);
/* Of a message. */
bool xattrs_are_good(Gw__Xattr *const *v, size_t n);

#endif
