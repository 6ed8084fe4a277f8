/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file_owner.c - owners of asynchronous notification; see file_owner.h */
#include "image/file_owner.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/ns_other.h"

#define SIGNAL_MAX 64u

static int root_level = -1; /* of the unit's root's pid namespace below the worker's */
static bool has_several;

#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17
#endif

static void set_owner(const struct fd_look *look, Gw__FdDesc *d, int type, pid_t id)
{
	uid_t uids[2] = { 0, 0 };

	if (!id) {
		if (d->owner)
			gw__fd_owner__free_unpacked(d->owner, NULL);
		d->owner = NULL;
		return;
	}
	if (!d->owner) {
		d->owner = fd_alloc(sizeof(*d->owner));
		gw__fd_owner__init(d->owner);
	}
	fcntl(look->held, F_GETOWNER_UIDS, uids); /* root where the kernel does not tell */
	d->owner->type = (uint32_t)type;
	d->owner->id = (uint32_t)id;
	d->owner->uid = uids[0];
	d->owner->euid = uids[1];
}

bool fd_owner_capture(const struct fd_look *look, Gw__FdDesc *d, owner_in_unit *inside, const void *arg, struct refusals *refusals)
{
	static const char *const causes[] = { "its signals (F_SETOWN) go to a thread outside of the unit",
		"its signals (F_SETOWN) go to a process outside of the unit", "its signals (F_SETOWN) go to a process group outside of the unit" };
	struct f_owner_ex owner = { 0 };
	int signal_number;
	pid_t seen;

	if (d->flags & O_PATH)
		return true;
	signal_number = fcntl(look->held, F_GETSIG);
	if (fcntl(look->held, F_GETOWN_EX, &owner) < 0 || signal_number < 0)
		return true;
	d->signal = (uint32_t)signal_number;
	seen = owner.pid ? inside(arg, owner.type, owner.pid) : 0;
	if (owner.pid && !seen) {
		refusals_add(refusals, "fd.owner", causes[(unsigned)owner.type % ARRAY_SIZE(causes)], "close it first", "fd %d (%s; %d)",
			look->fd, look->link, (int)owner.pid);
		return false;
	}
	if (seen && has_several) {
		refusals_add(refusals, "fd.owner", "owners of signals (F_SETOWN) in a unit with several pid namespaces cannot move yet", "close it first", "fd %d (%s; %d)",
			look->fd, look->link, (int)owner.pid);
		return false;
	}
	if (seen && ns_others_have_users()) {
		refusals_add(refusals, "fd.owner", "owners of signals (F_SETOWN) in a unit with several user namespaces cannot move yet", "close it first", "fd %d (%s; %d)",
			look->fd, look->link, (int)owner.pid);
		return false;
	}
	set_owner(look, d, owner.type, seen);
	return true;
}


void fd_owner_level(unsigned level, bool several)
{
	root_level = (int)level;
	has_several = several;
}

/* The column of a line that is the root's; the last one where nothing is known of it. */
static const char *root_column(const char *line)
{
	if (root_level < 0)
		return strrchr(line, '\t');
	line = strchr(line, '\t');
	for (int i = 0; line && i < root_level; i++)
		line = strchr(line + 1, '\t');
	return line;
}

pid_t fd_owner_seen(pid_t host, const char *key)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[512];
	size_t len = strlen(key);

	snprintf(path, sizeof(path), "/proc/%d/status", (int)host);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		const char *column = strncmp(line, key, len) ? NULL : root_column(line);

		if (column)
			return (pid_t)atoi(column);
	}
	return 0;
}

int fd_owner_validate(const Gw__FdDesc *d, struct err *e)
{
	if (d->signal > SIGNAL_MAX)
		return err_set(e, -EPROTO, "signal %u", d->signal);
	if (d->owner && (d->owner->type > F_OWNER_PGRP || !d->owner->id || d->owner->id > INT32_MAX))
		return err_set(e, -EPROTO, "owner %u of type %u", d->owner->id, d->owner->type);
	return 0;
}

static bool same_owner(const Gw__FdOwner *a, const Gw__FdOwner *b)
{
	return a && b ? a->type == b->type && a->id == b->id && a->uid == b->uid && a->euid == b->euid : a == b;
}

/* By a task that is root, as all of the skeleton are until their credentials come last of all. */
static void plan_owner(struct batch *b, const Gw__FdOwner *o, int fd)
{
	const struct f_owner_ex owner = { .type = o ? (int)o->type : F_OWNER_PID, .pid = o ? (pid_t)o->id : 0 };
	bool other = o && (o->uid || o->euid);

	/* Root stays the saved id, so that the way back is open. */
	if (other)
		batch_call(b, "setresuid", SYS_setresuid, o->uid, o->euid, 0);
	batch_call(b, "F_SETOWN_EX", SYS_fcntl, (uint64_t)fd, F_SETOWN_EX, batch_data(b, &owner, sizeof(owner)));
	if (other)
		batch_call(b, "setresuid", SYS_setresuid, 0, 0, 0);
}

void fd_owner_plan(struct batch *b, const Gw__FdDesc *was, const Gw__FdDesc *d, int fd)
{
	if (fd < 0 || (d->flags & O_PATH) || d->kind == GW__FD_KIND__FD_CLOSED)
		return;
	if (d->signal != (was ? was->signal : 0))
		batch_call(b, "F_SETSIG", SYS_fcntl, (uint64_t)fd, F_SETSIG, d->signal);
	if (!same_owner(d->owner, was ? was->owner : NULL))
		plan_owner(b, d->owner, fd);
	if ((d->flags ^ (was ? was->flags : 0)) & O_ASYNC)
		batch_call(b, "F_SETFL O_ASYNC", SYS_fcntl, (uint64_t)fd, F_SETFL,
			d->flags & (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC));
}
