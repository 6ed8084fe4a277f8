/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cred.h - user and group ids, capabilities, securebits, and where keys go that are asked for: per task, whatever POSIX says
 *
 * See credentials(7), capabilities(7). The bounding set can only change when the task has CAP_SETPCAP, and the ambient set only when
 * something is inheritable; otherwise what was read from /proc beforehand is still right, and 80 calls are saved.
 */
#ifndef GODWIT_IMAGE_CRED_H
#define GODWIT_IMAGE_CRED_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"
#include "kern/remote.h"
#include "task.pb-c.h"

#define CRED_CAPS_MAX 64

struct cred_query {
	const uint32_t *ids; /* real, effective, saved uid, 4 bytes apart; then gid */
	struct remote_call *fsuid, *fsgid, *groups_call, *securebits, *request_keyring;
	const uint32_t *groups, *caps;
	unsigned last_cap;
	struct remote_call *bounding[CRED_CAPS_MAX], *ambient[CRED_CAPS_MAX];
	uint64_t known_bounding;
	bool has_bounding, has_ambient; /* queried */
};

/* Reads /proc/PID/task/TID/status. */
int cred_capture_outside(pid_t pid, pid_t tid, Gw__Credentials *msg, struct err *e);
/* Adds the calls, run by the task itself. `offered` (NULL: none) is what cred_capture_outside gave. */
void cred_capture_plan(struct batch *b, struct cred_query *q, const Gw__Credentials *offered);
/* -EAGAIN when things changed so that another plan with offered NULL is needed. */
int cred_capture_collect(const struct cred_query *q, Gw__Credentials *msg, struct err *e);

int cred_validate(const Gw__Credentials *msg, struct err *e);
/* What this host's daemon cannot give. */
void cred_validate_here(const Gw__Credentials *msg, int32_t tid, struct refusals *r);
/* Whether these are the credentials of this process: what it has forked has them already. */
bool cred_are_own(const Gw__Credentials *msg);
/* Adds the calls that make the calling task, still privileged like the daemon, have these credentials. */
int cred_plan_restore(struct batch *b, const Gw__Credentials *msg, struct err *e);

#endif
