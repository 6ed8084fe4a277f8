/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * access.h - who may ask godwitd for what
 *
 * By the credentials that a client had when it connected (SO_PEERCRED, unix(7)): root, and the members of the group that the configuration names, may do everything. Others may look at
 * the nodes, start programs, and move, examine and list what is theirs (caller.h says which processes those are).
 */
#ifndef GODWIT_DAEMON_ACCESS_H
#define GODWIT_DAEMON_ACCESS_H

#include "base/err.h"
#include "daemon/config.h"
#include "daemon/request.h"

/* -EACCES: nobody without privileges is served. */
int access_read(int fd, const struct config *config, struct caller *ret, struct err *e);
/* Whether such a caller may ask for that at all; of which processes is asked where they are known. -EACCES. */
int access_check(const struct request *request, struct err *e);

#endif
