// SPDX-License-Identifier: GPL-2.0-or-later
/* access.c - who may ask for what; see access.h */
#include "daemon/access.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/process.h"

#define GROUPS_MAX 65536 /* NGROUPS_MAX of Linux */

static bool is_member(int fd, gid_t first, const struct config *config)
{
	cleanup_free gid_t *groups = malloc(GROUPS_MAX * sizeof(*groups));
	socklen_t len = GROUPS_MAX * sizeof(*groups);

	if (!config->has_access_group)
		return false;
	if (first == config->access_group)
		return true;
	if (!groups || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return false;
	for (size_t i = 0; i < len / sizeof(*groups); i++)
		if (groups[i] == config->access_group)
			return true;
	return false;
}

int access_read(int fd, const struct config *config, struct caller *ret, struct err *e)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	*ret = (struct caller){ 0 };
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return err_sys(e, -errno, "SO_PEERCRED");
	if (cred.uid == 0 || is_member(fd, cred.gid, config))
		return 0;
	if (config->root_only)
		return err_set(e, -EACCES, "moving processes is for root here, or for members of the group that godwit.conf names in [access]: run it with sudo");
	*ret = (struct caller){ true, cred.uid, cred.gid };
	return 0;
}

static bool is_theirs(pid_t pid, const struct caller *caller)
{
	uid_t uid;

	return process_read_owner(pid, &uid) == 0 && uid == caller->uid;
}

int access_check(const struct request *request, struct err *e)
{
	static const char *const what[] = { [VERB_CONNECTIONS] = "listing all connections", [VERB_DRAIN] = "draining a node", [VERB_UNDRAIN] = "ending a drain",
					    [VERB_BALANCE] = "balancing", [VERB_ADDRESS] = "giving out addresses", [VERB_CHECKPOINT] = "writing an image", [VERB_RESTORE] = "what an image becomes",
					    [VERB_PROTECT] = "protecting a unit", [VERB_UNPROTECT] = "protecting a unit", [VERB_FAILOVER] = "failover", [VERB_BRIDGE] = "a bridge to another host" };
	bool explains = request->verb == VERB_BALANCE && request->action == BALANCE_EXPLAIN;

	if (!request->caller.limited)
		return 0;
	if ((size_t)request->verb < ARRAY_SIZE(what) && what[request->verb] && !explains)
		return err_set(e, -EACCES, "%s is for root, or for members of the group that godwit.conf names in [access]: run it with sudo", what[request->verb]);
	if (request->drain)
		return err_set(e, -EACCES, "%s is for root, or for members of the group that godwit.conf names in [access]: run it with sudo", what[VERB_DRAIN]);
	if (request->verb == VERB_STARTED && !is_theirs(request->pid, &request->caller))
		return err_set(e, -EACCES, "process %d is not yours", (int)request->pid);
	return 0;
}
