/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* where.h - asking godwit-home where a unit is that has left this host; for whoever knows its name (HOME:PID) */
#ifndef GODWIT_HOME_WHERE_H
#define GODWIT_HOME_WHERE_H

#include "home/door.h"

/* -ENOENT: nobody here cares for a unit of that name. Waits a second at most. */
int where_ask(const char *unit, struct door_where *ret, struct err *e);

#endif
