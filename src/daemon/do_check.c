// SPDX-License-Identifier: GPL-2.0-or-later
/* do_check.c - can this kernel do it, can this process move? */
#include <errno.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "kern/features.h"
#include "migrate/migrate.h"

static int check_kernel(int fd)
{
	json_t *list = json_array();
	bool all = true;
	size_t i;

	for (i = 0; i < features_count(); i++) {
		const struct feature *f = features_get(i);
		struct err e = ERR_INIT;
		bool ok = feature_probe(f, &e) >= 0;

		if (!ok && f->required)
			all = false;
		json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:s, s:s, s:o}", "name", f->name, "ok", ok, "required", f->required, "purpose",
						      f->purpose, "way_out", ok ? "" : f->way_out, "error", reply_text(ok ? "" : e.message)));
	}
	reply_result(fd, json_pack("{s:b, s:o}", "ok", all, "features", list));
	return 0;
}

/* With a host it is asked, too: what is said then includes all that is said without. */
static int check_process(const struct daemon *d, const struct request *given, int fd)
{
	pid_t pid = given->pid;
	struct request kept = *given, *request = &kept;
	struct refusals refusals = { 0 };
	struct migrate_asked asked;
	struct err e = ERR_INIT;
	int r;

	request_keep_tops(request);
	r = request->host[0] ? do_migrate_ask(d, request, fd, &asked, &refusals, &e) : migrate_check(request->pid, request->also, request->n_also, &request->caller, &refusals, &e);
	if (r < 0 && !refusals.n)
		reply_error(fd, "failed", &e, NULL, NULL);
	else
		reply_result(fd, json_pack("{s:i, s:b, s:o}", "pid", (int)pid, "ok", refusals.n == 0, "refusals", reply_refusals(&refusals)));
	refusals_free(&refusals);
	return 0;
}

int do_check(const struct daemon *d, const struct request *request, int fd)
{
	return request->pid ? check_process(d, request, fd) : check_kernel(fd);
}
