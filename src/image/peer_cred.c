/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* peer_cred.c - what SO_PEERCRED says of the other end of a unix socket; see peer_cred.h */
#include "image/peer_cred.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

#define KEEP ((uid_t)-1)

static void capture_groups(int fd, Gw__FdUnixCred *cred)
{
	uint32_t groups[64];
	socklen_t len = sizeof(groups);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0 || !len)
		return;
	cred->groups = malloc(len);
	if (!cred->groups)
		abort();
	memcpy(cred->groups, groups, len);
	cred->n_groups = len / sizeof(*groups);
}

Gw__FdUnixCred *peer_cred_capture(int fd)
{
	struct ucred got;
	socklen_t len = sizeof(got);
	Gw__FdUnixCred *cred;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &got, &len) < 0 || got.uid == KEEP)
		return NULL;
	cred = calloc(1, sizeof(*cred));
	if (!cred)
		abort();
	gw__fd_unix_cred__init(cred);
	cred->pid = got.pid;
	cred->uid = got.uid;
	cred->gid = got.gid;
	capture_groups(fd, cred);
	return cred;
}

bool peer_cred_equal(const Gw__FdUnixCred *a, const Gw__FdUnixCred *b)
{
	if (!a || !b)
		return a == b;
	return a->pid == b->pid && a->uid == b->uid && a->gid == b->gid && a->n_groups == b->n_groups &&
		(!a->n_groups || !memcmp(a->groups, b->groups, a->n_groups * sizeof(*a->groups)));
}

/* Effective capabilities go with the effective id 0; the permitted ones stay, since the real id does. */
static void raise_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &header, data) < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(data); i++)
		data[i].effective = data[i].permitted;
	syscall(SYS_capset, &header, data);
}

/* By the bare calls: those of the C library change all threads. */
static bool set_ids(uid_t uid, gid_t gid)
{
	return syscall(SYS_setresgid, KEEP, gid, KEEP) == 0 && syscall(SYS_setresuid, KEEP, uid, KEEP) == 0;
}

void peer_cred_enter(const Gw__FdUnixCred *cred, struct peer_cred_own *own)
{
	*own = (struct peer_cred_own){ .uid = geteuid(), .gid = getegid(), .dumpable = prctl(PR_GET_DUMPABLE) };
	if (!cred || own->uid != 0)
		return;
	own->groups_n = (int)syscall(SYS_getgroups, (int)ARRAY_SIZE(own->groups), own->groups);
	if (own->groups_n < 0)
		return;
	prctl(PR_GET_PDEATHSIG, &own->death_signal);
	own->changed = true;
	if (syscall(SYS_setgroups, cred->n_groups, cred->groups) == 0 && set_ids(cred->uid, cred->gid))
		raise_capabilities();
	else
		peer_cred_leave(own);
}

/* A worker that stayed somebody else would be of no use. */
void peer_cred_leave(const struct peer_cred_own *own)
{
	if (!own->changed)
		return;
	if (syscall(SYS_setresuid, KEEP, own->uid, KEEP) < 0 || syscall(SYS_setresgid, KEEP, own->gid, KEEP) < 0 ||
	    syscall(SYS_setgroups, own->groups_n, own->groups) < 0)
		abort();
	raise_capabilities();
	prctl(PR_SET_DUMPABLE, own->dumpable == 1);
	prctl(PR_SET_PDEATHSIG, own->death_signal);
}
