/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* owner.c - whose process a stub is; see owner.h */
#include "home/owner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/nsfs.h"

struct rights {
	uint64_t effective, bounding;
	int no_new_privs;
};

static int read_status(pid_t pid, struct owner *o, struct rights *r, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	char path[64];
	size_t size = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	if (!f)
		return err_sys(e, -errno, "%s", path);
	while (getline(&line, &size, f) > 0) {
		sscanf(line, "Uid: %u %u %u", &o->uid[0], &o->uid[1], &o->uid[2]);
		sscanf(line, "Gid: %u %u %u", &o->gid[0], &o->gid[1], &o->gid[2]);
		sscanf(line, "CapEff: %lx", &r->effective);
		sscanf(line, "CapBnd: %lx", &r->bounding);
		sscanf(line, "NoNewPrivs: %d", &r->no_new_privs);
		if (strncmp(line, "Groups:", 7))
			continue;
		for (char *p = line + 7, *end; ; p = end) {
			unsigned long group = strtoul(p, &end, 10);

			if (end == p)
				break;
			o->groups = realloc(o->groups, (o->n_groups + 1) * sizeof(*o->groups));
			if (!o->groups)
				abort();
			o->groups[o->n_groups++] = (uint32_t)group;
		}
	}
	return 0;
}

void owner_forget(struct owner *o)
{
	free(o->groups);
	*o = (struct owner){ 0 };
}

static bool same_mounts(pid_t pid)
{
	return ns_id(pid, NS_MNT) == ns_id(0, NS_MNT);
}

bool owner_can_be_root(pid_t pid)
{
	struct owner o = { 0 }, self = { 0 };
	struct rights r = { 0 }, own = { 0 };
	bool ok = read_status(pid, &o, &r, NULL) == 0 && read_status(getpid(), &self, &own, NULL) == 0;

	if (ok && (o.uid[1] || (own.effective & ~r.effective)))
		ok = !r.no_new_privs && !(own.effective & ~r.bounding) && same_mounts(pid);
	owner_forget(&o);
	owner_forget(&self);
	return ok;
}

int owner_read(pid_t pid, struct owner *ret, struct err *e)
{
	struct rights ignored;

	return read_status(pid, ret, &ignored, e);
}
