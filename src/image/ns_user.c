/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_user.c - see ns_user.h */
#include "image/ns_user.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/bytes.h"

#define OVERFLOW_ID 65534u
#define MAP_BYTES_MAX 65536
#define GROUPS_MAX 65536u

static char *maps[2]; /* of users and of groups, while the unit has a user namespace of its own */
static bool denies_groups, has_mounts;

/* --- maps --- */

/* Looks for an id in a map (lines "inside outside count"); from column `from` to the other. */
static bool translate(const char *map, bool to_inside, uint32_t id, uint32_t *ret)
{
	unsigned long inside, outside, count;
	int used;

	for (const char *line = map; sscanf(line, " %lu %lu %lu%n", &inside, &outside, &count, &used) == 3; line += used) {
		unsigned long from = to_inside ? outside : inside;

		if (id >= from && id - from < count) {
			*ret = (uint32_t)((to_inside ? inside : outside) + (id - from));
			return true;
		}
	}
	return false;
}

static void remember(const Gw__NsUser *u)
{
	ns_user_leave();
	maps[0] = strdup(u->uid_map);
	maps[1] = strdup(u->gid_map);
	has_mounts = u->inside & NS_BIT(NS_MNT);
	denies_groups = u->deny_groups || !u->gid_map[0];
	if (!maps[0] || !maps[1])
		abort();
}

void ns_user_leave(void)
{
	free(maps[0]);
	free(maps[1]);
	maps[0] = maps[1] = NULL;
	denies_groups = has_mounts = false;
}

bool ns_user_is_owned(void)
{
	return maps[0] != NULL;
}

uint32_t ns_user_sees(bool group, uint32_t host_id)
{
	uint32_t id = OVERFLOW_ID;

	if (!maps[group])
		return host_id;
	translate(maps[group], true, host_id, &id);
	return id;
}

uint32_t ns_user_gives(bool group, uint32_t host_id)
{
	return has_mounts ? ns_user_sees(group, host_id) : host_id;
}

bool ns_user_can_take(bool group, uint32_t id)
{
	uint32_t host_id;

	return !maps[group] || translate(maps[group], false, id, &host_id);
}

bool ns_user_denies_groups(void)
{
	return denies_groups;
}

/* --- source --- */

static int read_text(pid_t pid, const char *name, char **ret)
{
	char path[64];
	cleanup_close int fd = -1;
	cleanup_free char *text = must_alloc(MAP_BYTES_MAX);
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, MAP_BYTES_MAX - 1);
	if (n < 0)
		return -errno;
	text[n] = 0;
	string_set(ret, text);
	return 0;
}

static void read_ids(pid_t root, Gw__NsUser *u)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	size_t size = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", root);
	f = fopen(path, "re");
	u->ids = must_alloc(6 * sizeof(*u->ids));
	u->n_ids = 6;
	while (f && getline(&line, &size, f) > 0) {
		const char *at = strchr(line, ':');
		int used;

		if (strncmp(line, "Uid:", 4) == 0 || strncmp(line, "Gid:", 4) == 0)
			sscanf(at + 1, "%u %u %u", &u->ids[line[0] == 'G' ? 3 : 0], &u->ids[line[0] == 'G' ? 4 : 1], &u->ids[line[0] == 'G' ? 5 : 2]);
		if (strncmp(line, "Groups:", 7))
			continue;
		u->groups = must_alloc(GROUPS_MAX * sizeof(*u->groups));
		for (at++; u->n_groups < GROUPS_MAX && sscanf(at, "%u%n", &u->groups[u->n_groups], &used) == 1; at += used)
			u->n_groups++;
	}
}

int ns_user_capture(pid_t root, Gw__Namespaces *msg, struct refusals *r, struct err *e)
{
	cleanup_close int ns = -1, parent = -1;
	uint64_t theirs = ns_id(root, NS_USER);
	Gw__NsUser *u = msg->user = must_alloc(sizeof(*u));
	cleanup_free char *setgroups_text = NULL;
	uid_t owner = 0;
	int ret;

	gw__ns_user__init(u);
	ns = ns_open(root, NS_USER);
	parent = ns < 0 ? -1 : ioctl(ns, NS_GET_PARENT);
	if (ns < 0 || !theirs || ioctl(ns, NS_GET_OWNER_UID, &owner) < 0)
		return err_sys(e, errno, "the user namespace of process %d", root);
	if (ns_id_of(parent) != ns_id(0, NS_USER))
		refusals_add(r, "ns.user.nested", "it is in a user namespace inside another one that stays", "move the process that made that", "process %d", root);
	u->owner = owner;
	ret = read_text(root, "uid_map", &u->uid_map);
	if (ret == 0)
		ret = read_text(root, "gid_map", &u->gid_map);
	if (ret == 0)
		ret = read_text(root, "setgroups", &setgroups_text);
	if (ret < 0)
		return err_sys(e, -ret, "maps of process %d", root);
	u->deny_groups = setgroups_text && strncmp(setgroups_text, "deny", 4) == 0;
	for (int k = 0; k < NS_KINDS; k++) {
		cleanup_close int fd = -1, of = -1;

		if (k == NS_USER || !(msg->owned & NS_BIT(k)))
			continue;
		fd = ns_open(root, (enum ns_kind)k);
		of = fd < 0 ? -1 : ioctl(fd, NS_GET_USERNS);
		u->inside |= ns_id_of(of) == theirs ? NS_BIT(k) : 0;
	}
	read_ids(root, u);
	remember(u);
	return 0;
}

/* --- destination --- */

static bool good_map(const char *map)
{
	size_t lines = 0;

	for (const char *p = map; *p; p++) {
		lines += *p == '\n';
		if (!strchr("0123456789 \n", *p))
			return false;
	}
	return lines <= 340 && strlen(map) < MAP_BYTES_MAX;
}

int ns_user_validate(const Gw__Namespaces *msg, struct err *e)
{
	const Gw__NsUser *u = msg->user;

	if (!u != !(msg->owned & NS_BIT(NS_USER)))
		return err_set(e, -EBADMSG, "user namespace");
	if (u && (u->n_ids != 6 || u->n_groups > GROUPS_MAX || u->inside & ~msg->owned || !good_map(u->uid_map) || !good_map(u->gid_map)))
		return err_set(e, -EBADMSG, "user namespace: ids, groups or maps");
	return 0;
}

/* The first id that is inside, for files that are made there. */
static uint32_t first_id(const char *map)
{
	unsigned long inside = 0;

	return sscanf(map, " %lu", &inside) == 1 ? (uint32_t)inside : 0;
}

static void say(int socket, int code)
{
	(void)!write(socket, &code, sizeof(code));
}

static int hear(int socket)
{
	int code;

	return read(socket, &code, sizeof(code)) == sizeof(code) ? code : -ECHILD;
}

static void live_with_parent(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* forgotten when ids change */
}

/* Runs in the owner. */
static int be_owner(const Gw__NsUser *u, int socket)
{
	int others = 0, ret;

	live_with_parent();
	remember(u);
	if (u->owner && setresuid(u->owner, u->owner, u->owner) < 0)
		return -errno;
	ret = unshare(CLONE_NEWUSER) < 0 ? -errno : 0;
	say(socket, ret);
	if (ret < 0 || hear(socket) < 0) /* until the maps are written */
		return -ECHILD;
	if (u->gid_map[0] && setresgid(first_id(u->gid_map), first_id(u->gid_map), first_id(u->gid_map)) < 0)
		return -errno;
	if (u->uid_map[0] && setresuid(first_id(u->uid_map), first_id(u->uid_map), first_id(u->uid_map)) < 0)
		return -errno;
	live_with_parent();
	for (int k = 0; k < NS_KINDS; k++)
		if (u->inside & NS_ENTERED & NS_BIT(k))
			others |= ns_flag((enum ns_kind)k);
	return unshare(others) < 0 ? -errno : 0;
}

static int write_text(pid_t pid, const char *name, const char *text)
{
	char path[64];
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || (text[0] && write(fd, text, strlen(text)) != (ssize_t)strlen(text)) ? -errno : 0;
}

static int write_maps(pid_t pid, const Gw__NsUser *u)
{
	int ret = u->deny_groups ? write_text(pid, "setgroups", "deny") : 0;

	if (ret == 0)
		ret = write_text(pid, "gid_map", u->gid_map);
	return ret < 0 ? ret : write_text(pid, "uid_map", u->uid_map);
}

static int enter_inner(pid_t owner, const Gw__NsUser *u, struct err *e)
{
	for (int k = 0; k < NS_KINDS; k++) {
		cleanup_close int fd = -1;

		if (!(NS_ENTERED & u->inside & NS_BIT(k)))
			continue;
		fd = ns_open(owner, (enum ns_kind)k);
		if (fd < 0 || ns_enter(fd, (enum ns_kind)k) < 0)
			return err_sys(e, errno, "the unit's %s namespace", ns_name((enum ns_kind)k));
	}
	return 0;
}

int ns_user_make(const Gw__Namespaces *msg, int (*fill)(const Gw__Namespaces *msg), ns_user_then then, void *arg, struct ns_owner *ret, struct err *e)
{
	const Gw__NsUser *u = msg->user;
	cleanup_close int fd = -1;
	int pair[2], code;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "socketpair");
	ret->pid = fork();
	if (ret->pid == 0) {
		close(pair[0]);
		code = be_owner(u, pair[1]);
		if (code == 0)
			code = fill(msg);
		say(pair[1], code);
		if (code == 0)
			then(msg, pair[1], arg);
		_exit(1);
	}
	close(pair[1]);
	ret->socket = pair[0];
	code = ret->pid < 0 ? -errno : hear(pair[0]);
	if (code == 0)
		code = write_maps(ret->pid, u);
	say(pair[0], code);
	if (code == 0)
		code = hear(pair[0]);
	if (code < 0)
		return err_sys(e, -code, "a user namespace");
	fd = ns_open(ret->pid, NS_USER);
	ret->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, NS_HIGH_FD);
	if (ret->fd < 0)
		return err_sys(e, errno, "the user namespace of process %d", ret->pid);
	remember(u);
	return enter_inner(ret->pid, u, e);
}

/*
 * Who makes a file in a file system that belongs to a user namespace must have ids that are mapped there. With them the worker keeps its capabilities, since its
 * securebits say so.
 */
int ns_user_create(const char *path, int open_flags, mode_t mode)
{
	int fd = open(path, open_flags, mode), code = errno;
	uint32_t uid, gid;
	long bits;

	if (fd >= 0 || code != EOVERFLOW || !ns_user_is_owned() || !translate(maps[0], false, first_id(maps[0]), &uid) ||
	    !translate(maps[1], false, first_id(maps[1]), &gid))
		return fd;
	bits = prctl(PR_GET_SECUREBITS);
	if (prctl(PR_SET_SECUREBITS, bits | 1 << SECURE_NO_SETUID_FIXUP) == 0) {
		setfsgid(gid);
		setfsuid(uid);
		fd = open(path, open_flags, mode);
		code = errno;
		setfsuid(geteuid());
		setfsgid(getegid());
		prctl(PR_SET_SECUREBITS, bits);
	}
	errno = code;
	return fd;
}

/* All that there are, inheritable and ambient: an exec by a user other than root would take them away. */
static int keep_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (int i = 0; i < 2; i++)
		data[i].inheritable = data[i].permitted;
	if (syscall(SYS_capset, &header, data) < 0)
		return -errno;
	for (unsigned long i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) < 0)
			return -errno;
	return 0;
}

int ns_user_enter(const Gw__NsUser *u, int ns, struct err *e)
{
	int ret;

	/* Ids that are not mapped can only be had from outside. */
	if (setgroups(u->n_groups, u->groups) < 0 || prctl(PR_SET_SECUREBITS, 1 << SECURE_NO_SETUID_FIXUP) < 0 ||
	    syscall(SYS_setresgid, u->ids[3], u->ids[4], u->ids[5]) < 0 || syscall(SYS_setresuid, u->ids[0], u->ids[1], u->ids[2]) < 0)
		return err_sys(e, errno, "the ids of a user namespace");
	if (setns(ns, CLONE_NEWUSER) < 0)
		return err_sys(e, errno, "entering the user namespace");
	ret = keep_capabilities();
	return ret < 0 ? err_sys(e, -ret, "capabilities in the user namespace") : 0;
}
