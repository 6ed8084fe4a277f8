/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* xattr.c - extended attributes; see xattr.h */
#include "image/xattr.h"

#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>

#include "image/bytes.h"

#define XATTRS_MAX 4096u

static bool is_programs(const char *name)
{
	return strncmp(name, "trusted.overlay.", 16) != 0 && strncmp(name, "trusted.godwit.", 15) != 0;
}

static bool is_label(const char *name)
{
	return !strncmp(name, "security.", 9) && strcmp(name, "security.capability") != 0;
}

static ssize_t list_names(const char *path, bool follow, char *names, size_t size)
{
	return follow ? listxattr(path, names, size) : llistxattr(path, names, size);
}

static Gw__Xattr *make(const char *name, const void *value, size_t len)
{
	Gw__Xattr *x = must_alloc(sizeof(*x));

	gw__xattr__init(x);
	string_set(&x->name, name);
	bytes_set(&x->value, value, len);
	return x;
}

void xattrs_read(const char *path, bool follow, Gw__Xattr ***ret, size_t *ret_n)
{
	static char names[XATTR_LIST_MAX], value[XATTR_SIZE_MAX];
	ssize_t len = list_names(path, follow, names, sizeof(names));
	Gw__Xattr **v = NULL;
	size_t n = 0;

	for (const char *at = names; len > 0 && at < names + len && n < XATTRS_MAX; at += strlen(at) + 1) {
		ssize_t size = is_programs(at) ? (follow ? getxattr : lgetxattr)(path, at, value, sizeof(value)) : -1;

		if (size < 0)
			continue;
		v = realloc(v, (n + 1) * sizeof(*v));
		if (!v)
			abort();
		v[n++] = make(at, value, (size_t)size);
	}
	*ret = v;
	*ret_n = n;
}

static const Gw__Xattr *find(Gw__Xattr *const *v, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(v[i]->name, name))
			return v[i];
	return NULL;
}

int xattrs_set(const char *path, bool follow, Gw__Xattr *const *v, size_t n, bool loose, struct err *e)
{
	static char names[XATTR_LIST_MAX];
	ssize_t len = list_names(path, follow, names, sizeof(names));

	for (const char *at = names; len > 0 && at < names + len; at += strlen(at) + 1)
		if (is_programs(at) && !is_label(at) && !find(v, n, at) && (follow ? removexattr : lremovexattr)(path, at) < 0)
			return err_sys(e, -errno, "removing the extended attribute %s", at);
	for (size_t i = 0; i < n; i++)
		if ((follow ? setxattr : lsetxattr)(path, v[i]->name, v[i]->value.data, v[i]->value.len, 0) < 0 && !is_label(v[i]->name) && !(loose && errno == EOPNOTSUPP))
			return err_sys(e, -errno, "setting the extended attribute %s", v[i]->name);
	return 0;
}

Gw__Xattr **xattrs_copy(Gw__Xattr *const *v, size_t n)
{
	Gw__Xattr **copy = n ? must_alloc(n * sizeof(*copy)) : NULL;

	for (size_t i = 0; i < n; i++)
		copy[i] = make(v[i]->name, v[i]->value.data, v[i]->value.len);
	return copy;
}

void xattrs_free(Gw__Xattr **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gw__xattr__free_unpacked(v[i], NULL);
	free(v);
}

bool xattrs_are_good(Gw__Xattr *const *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!v[i]->name[0] || strlen(v[i]->name) > XATTR_NAME_MAX || v[i]->value.len > XATTR_SIZE_MAX || !is_programs(v[i]->name))
			return false;
	return n <= XATTRS_MAX;
}
