/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* program.c - see program.h */
#include "base/program.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

const char *program_beside(const char *name, char ret[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);
	char *slash;

	ret[MAX(n, 0)] = 0;
	slash = strrchr(ret, '/');
	slash = slash ? slash + 1 : ret;
	snprintf(slash, (size_t)(ret + PATH_MAX - slash), "%s", name);
	return ret;
}
