/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cred.c - credentials of a task; see cred.h */
#include "image/cred.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/admission.h"
#include "image/bytes.h"
#include "image/ns_other.h"
#include "image/ns_user.h"

#define GROUPS_MAX 65536
#define ASK_REQUEST_KEYRING ((uint64_t)KEY_REQKEY_DEFL_NO_CHANGE) /* sets nothing, returns what is set */

static unsigned last_cap(void)
{
	static unsigned last;

	if (last)
		return last;
	while (last + 1 < CRED_CAPS_MAX && prctl(PR_CAPBSET_READ, last + 1, 0, 0, 0) >= 0)
		last++;
	return last;
}

static void parse_ids(const char *text, uint32_t ids[4])
{
	sscanf(text, "%u %u %u %u", &ids[0], &ids[1], &ids[2], &ids[3]);
}

static void set_ids(uint32_t **field, size_t *n, const uint32_t *ids, size_t count)
{
	free(*field);
	*field = must_alloc(count * sizeof(**field));
	if (count)
		memcpy(*field, ids, count * sizeof(*ids));
	*n = count;
}

static void parse_groups(const char *text, Gw__Credentials *msg)
{
	uint32_t *groups = must_alloc(GROUPS_MAX * sizeof(*groups));
	size_t n = 0;
	int used;

	while (n < GROUPS_MAX && sscanf(text, "%u%n", &groups[n], &used) == 1) {
		text += used;
		n++;
	}
	set_ids(&msg->groups, &msg->n_groups, groups, n);
	free(groups);
}

int cred_capture_outside(pid_t pid, pid_t tid, Gw__Credentials *msg, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	size_t size = 0;
	uint32_t uids[4] = { 0 }, gids[4] = { 0 };
	char path[64];
	unsigned found = 0;
	uint32_t was;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
	f = fopen(path, "re");
	if (!f)
		return err_sys(e, -errno, "%s", path);
	while (getline(&line, &size, f) > 0) {
		if (strncmp(line, "Uid:", 4) == 0)
			parse_ids(line + 4, uids), found++;
		else if (strncmp(line, "Gid:", 4) == 0)
			parse_ids(line + 4, gids), found++;
		else if (strncmp(line, "Groups:", 7) == 0)
			parse_groups(line + 7, msg), found++;
		else if (strncmp(line, "CapInh:", 7) == 0)
			msg->cap_inheritable = strtoull(line + 7, NULL, 16), found++;
		else if (strncmp(line, "CapPrm:", 7) == 0)
			msg->cap_permitted = strtoull(line + 7, NULL, 16), found++;
		else if (strncmp(line, "CapEff:", 7) == 0)
			msg->cap_effective = strtoull(line + 7, NULL, 16), found++;
		else if (strncmp(line, "CapBnd:", 7) == 0)
			msg->cap_bounding = strtoull(line + 7, NULL, 16), found++;
		else if (strncmp(line, "CapAmb:", 7) == 0)
			msg->cap_ambient = strtoull(line + 7, NULL, 16), found++;
	}
	if (found != 8)
		return err_set(e, -EIO, "%s: not all of the credentials are there", path);
	was = ns_user_choose(ns_others_user_of(pid));
	for (unsigned i = 0; i < 4; i++) { /* as the process sees them */
		uids[i] = ns_user_sees(false, uids[i]);
		gids[i] = ns_user_sees(true, gids[i]);
	}
	for (size_t i = 0; i < msg->n_groups; i++)
		msg->groups[i] = ns_user_sees(true, msg->groups[i]);
	ns_user_choose(was);
	set_ids(&msg->uids, &msg->n_uids, uids, 4);
	set_ids(&msg->gids, &msg->n_gids, gids, 4);
	return 0;
}

void cred_capture_plan(struct batch *b, struct cred_query *q, const Gw__Credentials *offered)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	size_t groups_max = offered ? offered->n_groups + 32 : 1024;
	uint64_t at;

	*q = (struct cred_query){ .last_cap = last_cap() };
	q->ids = batch_space(b, 6 * 4, &at);
	batch_call(b, "getresuid", SYS_getresuid, at, at + 4, at + 8);
	batch_call(b, "getresgid", SYS_getresgid, at + 12, at + 16, at + 20);
	q->fsuid = batch_call(b, "setfsuid", SYS_setfsuid, (uint32_t)-1);
	q->fsgid = batch_call(b, "setfsgid", SYS_setfsgid, (uint32_t)-1);
	q->groups = batch_space(b, groups_max * 4, &at);
	q->groups_call = batch_try(b, "getgroups", SYS_getgroups, groups_max, at);
	q->caps = batch_space(b, 2 * sizeof(struct __user_cap_data_struct), &at);
	batch_call(b, "capget", SYS_capget, batch_data(b, &header, sizeof(header)), at);
	q->securebits = batch_call(b, "prctl(PR_GET_SECUREBITS)", SYS_prctl, PR_GET_SECUREBITS);
	q->request_keyring = batch_try(b, "keyctl(KEYCTL_SET_REQKEY_KEYRING)", SYS_keyctl, KEYCTL_SET_REQKEY_KEYRING, ASK_REQUEST_KEYRING);
	q->has_bounding = !offered || (offered->cap_permitted >> CAP_SETPCAP & 1);
	q->has_ambient = !offered || offered->cap_inheritable;
	if (offered)
		q->known_bounding = offered->cap_bounding;
	for (unsigned i = 0; i <= q->last_cap; i++) {
		if (q->has_bounding)
			q->bounding[i] = batch_call(b, "prctl(PR_CAPBSET_READ)", SYS_prctl, PR_CAPBSET_READ, i);
		if (q->has_ambient)
			q->ambient[i] = batch_call(b, "prctl(PR_CAP_AMBIENT)", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i);
	}
}

int cred_capture_collect(const struct cred_query *q, Gw__Credentials *msg, struct err *e)
{
	const uint32_t *c = q->caps;
	uint32_t uids[4], gids[4];

	memcpy(uids, q->ids, 12);
	memcpy(gids, q->ids + 3, 12);
	uids[3] = (uint32_t)q->fsuid->ret;
	gids[3] = (uint32_t)q->fsgid->ret;
	if (q->groups_call->ret < 0)
		return err_set(e, -EAGAIN, "the process got more supplementary groups meanwhile");
	set_ids(&msg->uids, &msg->n_uids, uids, 4);
	set_ids(&msg->gids, &msg->n_gids, gids, 4);
	set_ids(&msg->groups, &msg->n_groups, q->groups, (size_t)q->groups_call->ret);
	msg->cap_effective = c[0] | (uint64_t)c[3] << 32;
	msg->cap_permitted = c[1] | (uint64_t)c[4] << 32;
	msg->cap_inheritable = c[2] | (uint64_t)c[5] << 32;
	msg->securebits = (uint32_t)q->securebits->ret;
	msg->request_keyring = q->request_keyring->ret > 0 ? (uint32_t)q->request_keyring->ret : 0; /* a kernel without keys */
	msg->cap_bounding = q->has_bounding ? 0 : q->known_bounding;
	msg->cap_ambient = 0;
	if ((!q->has_ambient && msg->cap_inheritable) || (!q->has_bounding && (msg->cap_permitted >> CAP_SETPCAP & 1)))
		return err_set(e, -EAGAIN, "the process got more capabilities meanwhile");
	for (unsigned i = 0; i <= q->last_cap; i++) {
		if (q->has_bounding && q->bounding[i]->ret == 1)
			msg->cap_bounding |= 1ull << i;
		if (q->has_ambient && q->ambient[i]->ret == 1)
			msg->cap_ambient |= 1ull << i;
	}
	return 0;
}

int cred_validate(const Gw__Credentials *msg, struct err *e)
{
	if (!msg || msg->n_uids != 4 || msg->n_gids != 4 || msg->n_groups > GROUPS_MAX)
		return err_set(e, -EBADMSG, "credentials are incomplete");
	for (unsigned i = 0; i < 4; i++)
		if (msg->uids[i] == UINT32_MAX || msg->gids[i] == UINT32_MAX)
			return err_set(e, -EBADMSG, "invalid user or group id");
	if (msg->securebits & ~(uint32_t)(SECURE_ALL_BITS | SECURE_ALL_LOCKS))
		return err_set(e, -EBADMSG, "unknown securebits 0x%x", msg->securebits);
	if (msg->request_keyring > KEY_REQKEY_DEFL_USER_SESSION_KEYRING)
		return err_set(e, -EBADMSG, "unknown keyring %u for keys that are asked for", msg->request_keyring);
	if ((msg->cap_effective & ~msg->cap_permitted) || (msg->cap_ambient & ~(msg->cap_permitted & msg->cap_inheritable)))
		return err_set(e, -EBADMSG, "capability sets contradict each other");
	return 0;
}

/* Who enters a user namespace of the unit's own has all there are. */
static uint64_t all_capabilities(void)
{
	return (2ull << last_cap()) - 1;
}

/* This process's own; read once a process, since it costs some forty calls. */
struct own {
	pid_t pid;
	uint32_t uids[4], gids[4];
	int ngroups, securebits;
	uint32_t request_keyring;
	uint64_t permitted, effective, inheritable, bounding, ambient;
};

static const struct own *own_credentials(void)
{
	static struct own own;
	long keyring;
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (own.pid == getpid())
		return &own;
	own = (struct own){ .pid = getpid(), .ngroups = (int)syscall(SYS_getgroups, 0, NULL), .securebits = prctl(PR_GET_SECUREBITS) };
	syscall(SYS_getresuid, &own.uids[0], &own.uids[1], &own.uids[2]);
	syscall(SYS_getresgid, &own.gids[0], &own.gids[1], &own.gids[2]);
	keyring = syscall(SYS_keyctl, KEYCTL_SET_REQKEY_KEYRING, ASK_REQUEST_KEYRING);
	own.request_keyring = keyring > 0 ? (uint32_t)keyring : 0;
	own.uids[3] = (uint32_t)syscall(SYS_setfsuid, -1);
	own.gids[3] = (uint32_t)syscall(SYS_setfsgid, -1);
	syscall(SYS_capget, &header, data);
	own.permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	own.effective = data[0].effective | (uint64_t)data[1].effective << 32;
	own.inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
	for (unsigned i = 0; i <= last_cap(); i++) {
		own.bounding |= prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1 ? 1ull << i : 0;
		own.ambient |= prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1 ? 1ull << i : 0;
	}
	return &own;
}

static uint64_t own_permitted(void)
{
	return ns_user_is_owned() ? all_capabilities() : own_credentials()->permitted;
}

static uint64_t own_bounding(void)
{
	return ns_user_is_owned() ? all_capabilities() : own_credentials()->bounding;
}

bool cred_are_own(const Gw__Credentials *msg)
{
	const struct own *own = own_credentials();

	return !ns_user_is_owned() && msg->n_uids == 4 && msg->n_gids == 4 && !memcmp(msg->uids, own->uids, sizeof(own->uids)) &&
	       !memcmp(msg->gids, own->gids, sizeof(own->gids)) && !msg->n_groups && !own->ngroups && (int)msg->securebits == own->securebits && msg->request_keyring == own->request_keyring &&
	       msg->cap_permitted == own->permitted && msg->cap_effective == own->effective && msg->cap_inheritable == own->inheritable &&
	       msg->cap_bounding == own->bounding && msg->cap_ambient == own->ambient;
}

void cred_validate_here(const Gw__Credentials *msg, int32_t tid, struct refusals *r)
{
	uint64_t lacking = msg->cap_permitted & ~own_permitted();
	uint64_t lacking_bound = (msg->cap_bounding | msg->cap_inheritable) & ~own_bounding();

	admission_judge_credentials(msg, tid, r);

	if (lacking)
		refusals_add(r, "task.capabilities", "godwitd on the destination lacks capabilities that it would have to give",
			     "run the destination's godwitd with these capabilities", "thread %d (capabilities 0x%llx)", tid,
			     (unsigned long long)lacking);
	else if (lacking_bound)
		refusals_add(r, "task.bounding-set", "the bounding set of godwitd on the destination is smaller than the process's",
			     "run the destination's godwitd with these capabilities in its bounding set", "thread %d (capabilities 0x%llx)",
			     tid, (unsigned long long)lacking_bound);
}

static void plan_capset(struct batch *b, uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable },
		{ (uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32) },
	};
	uint64_t at_header = batch_data(b, &header, sizeof(header)), at_data = batch_data(b, data, sizeof(data));

	batch_call(b, "capset", SYS_capset, at_header, at_data);
}

/* Ids that a user namespace does not map are there since the process entered it (ns_user_enter). */
static bool can_take(bool group, const uint32_t *ids)
{
	for (unsigned i = 0; i < 4; i++)
		if (!ns_user_can_take(group, ids[i]))
			return false;
	return true;
}

static bool can_take_groups(const Gw__Credentials *msg)
{
	for (size_t i = 0; i < msg->n_groups; i++)
		if (!ns_user_can_take(true, msg->groups[i]))
			return false;
	return !ns_user_denies_groups();
}

/*
 * The order: everything that needs a privilege before the capset that drops it. NO_SETUID_FIXUP keeps the capabilities across
 * setresuid; ambient ones are raised before securebits that could forbid it; what is inheritable may lie outside the bounding set, so
 * it is set before that shrinks.
 */
int cred_plan_restore(struct batch *b, const Gw__Credentials *msg, struct err *e)
{
	uint64_t mine = own_permitted(), bounding = own_bounding();

	if (msg->cap_permitted & ~mine)
		return err_set(e, -EPERM, "capabilities 0x%llx cannot be given", (unsigned long long)(msg->cap_permitted & ~mine));
	if (can_take_groups(msg))
		batch_call(b, "setgroups", SYS_setgroups, msg->n_groups, batch_data(b, msg->groups, msg->n_groups * 4));
	if (can_take(true, msg->gids)) {
		batch_call(b, "setresgid", SYS_setresgid, msg->gids[0], msg->gids[1], msg->gids[2]);
		batch_call(b, "setfsgid", SYS_setfsgid, msg->gids[3]);
	}
	batch_call(b, "prctl(PR_SET_SECUREBITS)", SYS_prctl, PR_SET_SECUREBITS, 1 << SECURE_NO_SETUID_FIXUP);
	if (can_take(false, msg->uids)) {
		batch_call(b, "setresuid", SYS_setresuid, msg->uids[0], msg->uids[1], msg->uids[2]);
		batch_call(b, "setfsuid", SYS_setfsuid, msg->uids[3]);
	}
	plan_capset(b, mine, mine, msg->cap_inheritable);
	batch_call(b, "prctl(PR_CAP_AMBIENT)", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL);
	for (unsigned i = 0; i <= last_cap(); i++)
		if (msg->cap_ambient >> i & 1)
			batch_call(b, "prctl(PR_CAP_AMBIENT)", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i);
	for (unsigned i = 0; i <= last_cap(); i++)
		if (bounding >> i & 1 && !(msg->cap_bounding >> i & 1))
			batch_call(b, "prctl(PR_CAPBSET_DROP)", SYS_prctl, PR_CAPBSET_DROP, i);
	batch_call(b, "prctl(PR_SET_SECUREBITS)", SYS_prctl, PR_SET_SECUREBITS, msg->securebits);
	/* As whom it is: that of a thread or a process is made by this, and belongs to the user. */
	if (msg->request_keyring != own_credentials()->request_keyring)
		batch_call(b, "keyctl(KEYCTL_SET_REQKEY_KEYRING)", SYS_keyctl, KEYCTL_SET_REQKEY_KEYRING, msg->request_keyring);
	plan_capset(b, msg->cap_effective, msg->cap_permitted, msg->cap_inheritable);
	return 0;
}
