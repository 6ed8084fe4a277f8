// SPDX-License-Identifier: GPL-2.0-or-later
/* source.c - stands in until the library has migrate_source; linked behind it */
#include <errno.h>

#include "migrate/migrate.h"

int migrate_source(const struct migrate_request *request, struct migrate_report *report, struct refusals *refusals, struct err *e)
{
	return err_set(e, -ENOSYS, "this build cannot move processes yet");
}
