/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* strategy.c - names of the strategies */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "migrate/migrate.h"

static const char *const names[] = { "freeze-free", "pre-copy", "hybrid", "stop-copy", "copy-on-reference" };

const char *strategy_name(enum strategy strategy)
{
	return strategy < ARRAY_SIZE(names) ? names[strategy] : "unknown";
}

int strategy_parse(const char *name, enum strategy *ret_strategy, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i], name)) {
			*ret_strategy = (enum strategy)i;
			return 0;
		}
	return err_set(e, -EINVAL, "no strategy '%s': freeze-free, pre-copy, hybrid, stop-copy or copy-on-reference", name);
}
