// SPDX-License-Identifier: GPL-2.0-or-later
/* do_started.c - a program that `godwit run` starts is a unit from its beginning: drain and balance know of it */
#include <errno.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "migrate/registry.h"

int do_started(const struct daemon *d, const struct request *request, int fd)
{
	struct registry_entry entry = { .pid = request->pid, .local = true, .started = true }, known;
	struct err e = ERR_INIT;

	snprintf(entry.unit, sizeof(entry.unit), "%s:%d", d->config.name, (int)request->pid);
	snprintf(entry.from, sizeof(entry.from), "%s", d->config.name);
	if (registry_lookup(request->pid, &known, NULL) < 0 && registry_add(&entry, &e) < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	reply_result(fd, json_pack("{s:s}", "unit", entry.unit));
	return 0;
}
