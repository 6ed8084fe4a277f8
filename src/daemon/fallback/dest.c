// SPDX-License-Identifier: GPL-2.0-or-later
/* dest.c - stands in until the library has migrate_dest; linked behind it */
#include <errno.h>

#include "migrate/migrate.h"

int migrate_dest(int control, const void *hello_payload, size_t hello_len, int handoff, const char *self_name, struct err *e)
{
	return err_set(e, -ENOSYS, "this build cannot receive processes yet");
}
