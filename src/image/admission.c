/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* admission.c - as whom what other hosts send may run here; see admission.h */
#include "image/admission.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/ns_user.h"

static const struct admission *used;
static const char *only_home;

static const char *const capability_names[] = {
	[CAP_CHOWN] = "chown", [CAP_DAC_OVERRIDE] = "dac_override", [CAP_DAC_READ_SEARCH] = "dac_read_search", [CAP_FOWNER] = "fowner", [CAP_FSETID] = "fsetid", [CAP_KILL] = "kill",
	[CAP_SETGID] = "setgid", [CAP_SETUID] = "setuid", [CAP_SETPCAP] = "setpcap", [CAP_LINUX_IMMUTABLE] = "linux_immutable", [CAP_NET_BIND_SERVICE] = "net_bind_service",
	[CAP_NET_BROADCAST] = "net_broadcast", [CAP_NET_ADMIN] = "net_admin", [CAP_NET_RAW] = "net_raw", [CAP_IPC_LOCK] = "ipc_lock", [CAP_IPC_OWNER] = "ipc_owner",
	[CAP_SYS_MODULE] = "sys_module", [CAP_SYS_RAWIO] = "sys_rawio", [CAP_SYS_CHROOT] = "sys_chroot", [CAP_SYS_PTRACE] = "sys_ptrace", [CAP_SYS_PACCT] = "sys_pacct",
	[CAP_SYS_ADMIN] = "sys_admin", [CAP_SYS_BOOT] = "sys_boot", [CAP_SYS_NICE] = "sys_nice", [CAP_SYS_RESOURCE] = "sys_resource", [CAP_SYS_TIME] = "sys_time",
	[CAP_SYS_TTY_CONFIG] = "sys_tty_config", [CAP_MKNOD] = "mknod", [CAP_LEASE] = "lease", [CAP_AUDIT_WRITE] = "audit_write", [CAP_AUDIT_CONTROL] = "audit_control",
	[CAP_SETFCAP] = "setfcap", [CAP_MAC_OVERRIDE] = "mac_override", [CAP_MAC_ADMIN] = "mac_admin", [CAP_SYSLOG] = "syslog", [CAP_WAKE_ALARM] = "wake_alarm",
	[CAP_BLOCK_SUSPEND] = "block_suspend", [CAP_AUDIT_READ] = "audit_read", [CAP_PERFMON] = "perfmon", [CAP_BPF] = "bpf", [CAP_CHECKPOINT_RESTORE] = "checkpoint_restore",
};

/* --- reading --- */

/* Skips what divides words; false at the end. */
static bool next_word(const char **text)
{
	*text += strspn(*text, " \t,");
	return **text;
}

static bool read_id(const char **text, uint32_t *ret)
{
	char *end;
	unsigned long long n;

	if (!isdigit((unsigned char)**text))
		return false;
	n = strtoull(*text, &end, 10);
	*text = end;
	*ret = (uint32_t)n;
	return n < UINT32_MAX; /* (uid_t)-1 is nobody */
}

int admission_parse_ids(const char *text, struct admission_ids *ret, struct err *e)
{
	struct admission_ids ids = { .n = 0 };
	const char *p = text;
	bool good = true;

	while (good && next_word(&p)) {
		good = ids.n < ADMISSION_RANGES_MAX && read_id(&p, &ids.v[ids.n].from);

		if (good)
			ids.v[ids.n].to = ids.v[ids.n].from;
		if (good && *p == '-') {
			p++;
			good = read_id(&p, &ids.v[ids.n].to) && ids.v[ids.n].to >= ids.v[ids.n].from;
		}
		good = good && (!*p || strchr(" \t,", *p));
		ids.n++;
	}
	if (!good || !ids.n)
		return err_set(e, -EINVAL, "'%.80s': use 1 to %d numbers and ranges such as 1000-59999", text, ADMISSION_RANGES_MAX);
	*ret = ids;
	return 0;
}

static int find_capability(const char *name, size_t len)
{
	if (len > 4 && !strncmp(name, "cap_", 4)) {
		name += 4;
		len -= 4;
	}
	for (size_t i = 0; i < ARRAY_SIZE(capability_names); i++)
		if (strlen(capability_names[i]) == len && !strncmp(capability_names[i], name, len))
			return (int)i;
	return -1;
}

int admission_parse_capabilities(const char *text, struct admission *ret, struct err *e)
{
	uint64_t capabilities = 0;
	const char *p = text;

	if (!strcmp(text, "all") || !strcmp(text, "none")) {
		ret->has_capabilities = text[0] == 'n';
		ret->capabilities = 0;
		return 0;
	}
	while (next_word(&p)) {
		size_t len = strcspn(p, " \t,");
		int number = find_capability(p, len);

		if (number < 0)
			return err_set(e, -EINVAL, "'%.*s' is no capability: use all, none, or names such as cap_net_raw", (int)MIN(len, 80ul), p);
		capabilities |= 1ull << number;
		p += len;
	}
	if (!capabilities)
		return err_set(e, -EINVAL, "use all, none, or names of capabilities such as cap_net_raw");
	ret->has_capabilities = true;
	ret->capabilities = capabilities;
	return 0;
}

/* --- judging --- */

void admission_use(const struct admission *a)
{
	used = a;
}

void admission_only_back_to(const char *home)
{
	only_home = home;
}

void admission_judge_unit(const char *unit, struct refusals *r)
{
	size_t len = only_home ? strlen(only_home) : 0;

	if (only_home && (strncmp(unit, only_home, len) != 0 || unit[len] != ':'))
		refusals_add(r, "bridge.back-only", "the bridge was made from the destination, which takes back over it what has come from there, and nothing else", "move it from there: make a bridge from here to that host",
			     "unit %s", unit);
}

bool admission_is_limited(void)
{
	return used && (used->users.n || used->groups.n || used->has_capabilities);
}

/* Whether all of them are admitted. */
static bool admits(const struct admission_ids *ids, uint64_t from, uint64_t to)
{
	while (ids->n && from <= to) {
		size_t i = 0;

		while (i < ids->n && !(ids->v[i].from <= from && from <= ids->v[i].to))
			i++;
		if (i == ids->n)
			return false;
		from = (uint64_t)ids->v[i].to + 1;
	}
	return true;
}

static void refuse_id(const char *what, uint32_t id, const char *thing, struct refusals *r)
{
	char cause[128];

	snprintf(cause, sizeof(cause), "nothing of %s %u is taken by the destination", what, id);
	refusals_add(r, "task.not-admitted", cause, "move it elsewhere, or let its godwit.conf admit it ([access])", "%s", thing);
}

static bool judge_ids(const struct admission_ids *ids, const char *what, const uint32_t *v, size_t n, const char *thing, struct refusals *r)
{
	for (size_t i = 0; i < n; i++)
		if (!admits(ids, v[i], v[i])) {
			refuse_id(what, v[i], thing, r);
			return false;
		}
	return true;
}

/* What it has, can take, or gets with its next execve(2). */
static uint64_t can_have(const Gw__Credentials *msg)
{
	uint64_t all = msg->cap_permitted | msg->cap_inheritable | msg->cap_ambient;

	for (size_t i = 0; i < msg->n_uids; i++)
		if (msg->uids[i] == 0)
			all |= msg->cap_bounding;
	return all;
}

static void judge_capabilities(const Gw__Credentials *msg, const char *thing, struct refusals *r)
{
	uint64_t beyond = used->has_capabilities ? can_have(msg) & ~used->capabilities : 0;
	char cause[160];
	size_t i = 0;

	if (!beyond)
		return;
	while (!(beyond >> i & 1))
		i++;
	if (i < ARRAY_SIZE(capability_names))
		snprintf(cause, sizeof(cause), "nothing with the capability cap_%s is taken by the destination", capability_names[i]);
	else
		snprintf(cause, sizeof(cause), "nothing with capability %zu is taken by the destination", i);
	refusals_add(r, "task.not-admitted", cause, "move it elsewhere, or let its godwit.conf admit it ([access])", "%s", thing);
}

void admission_judge_credentials(const Gw__Credentials *msg, int32_t tid, struct refusals *r)
{
	char thing[32];

	if (!admission_is_limited() || ns_user_is_owned())
		return;
	snprintf(thing, sizeof(thing), "thread %d", tid);
	if (judge_ids(&used->users, "user", msg->uids, msg->n_uids, thing, r) && judge_ids(&used->groups, "group", msg->gids, msg->n_gids, thing, r) &&
	    judge_ids(&used->groups, "group", msg->groups, msg->n_groups, thing, r))
		judge_capabilities(msg, thing, r);
}

/* Lines "inside outside count". */
static void judge_map(const char *map, const struct admission_ids *ids, const char *what, struct refusals *r)
{
	unsigned long long inside, outside, count;
	int used_chars;

	for (; sscanf(map, "%llu %llu %llu%n", &inside, &outside, &count, &used_chars) == 3; map += used_chars) {
		if (!count || admits(ids, outside, outside + count - 1))
			continue;
		refusals_add(r, "task.not-admitted", "it is mapped to ids of which the destination takes nothing", "move it elsewhere, or let its godwit.conf admit them ([access])",
			     "%ss %llu to %llu of a user namespace", what, outside, outside + count - 1);
		return;
	}
}

static void judge_other(const Gw__NsOther *o, struct refusals *r)
{
	judge_map(o->uid_map, &used->users, "user", r);
	judge_map(o->gid_map, &used->groups, "group", r);
}

void admission_judge_namespaces(const Gw__Namespaces *ns, struct refusals *r)
{
	if (!admission_is_limited() || !ns)
		return;
	if (ns->user) {
		judge_map(ns->user->uid_map, &used->users, "user", r);
		judge_map(ns->user->gid_map, &used->groups, "group", r);
		judge_ids(&used->users, "user", &ns->user->owner, 1, "a user namespace", r);
		for (size_t i = 0; i < ns->user->n_above; i++)
			judge_other(ns->user->above[i], r);
	}
	for (size_t i = 0; i < ns->n_others; i++)
		judge_other(ns->others[i], r);
}

void admission_judge_file(const struct fsfile *f, struct refusals *r)
{
	const char *seen = fsfile_seen(f);
	bool lends = f->mode & (S_ISUID | S_ISGID);

	if (!admission_is_limited())
		return;
	for (size_t i = 0; i < f->nxattrs; i++)
		lends = lends || !strcmp(f->xattrs[i]->name, "security.capability");
	if (lends)
		refusals_add(r, "file.not-admitted", "it would be made on the destination, which makes no files that lend ids or capabilities", "install it there, or move it elsewhere", "%s", seen);
	else if (judge_ids(&used->users, "user", &f->uid, 1, seen, r))
		judge_ids(&used->groups, "group", &f->gid, 1, seen, r);
}
