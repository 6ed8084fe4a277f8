// SPDX-License-Identifier: GPL-2.0-or-later
/* strategy.c - stands in until the library has strategy_name and strategy_parse; linked behind it */
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "migrate/migrate.h"

static const char *const names[] = { "freeze-free", "pre-copy", "hybrid", "stop-copy", "copy-on-reference" };

const char *strategy_name(enum strategy strategy)
{
	return (size_t)strategy < ARRAY_SIZE(names) ? names[strategy] : "unknown";
}

int strategy_parse(const char *name, enum strategy *ret_strategy, struct err *e)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], name))
			continue;
		*ret_strategy = (enum strategy)i;
		return 0;
	}
	return err_set(e, -EINVAL, "unknown strategy '%.40s'; known are freeze-free, pre-copy, hybrid, stop-copy, copy-on-reference", name);
}
