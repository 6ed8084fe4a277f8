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
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns_other.h"

#define OVERFLOW_ID 65534u
#define MAP_BYTES_MAX 65536
#define GROUPS_MAX 65536u
#define LEVELS_MAX 33u /* of user namespaces, the kernel's bound */
#define ABOVE (NS_OTHERS_MAX + 1) /* number of the outermost that the first process's lies in */

/* Of the unit's user namespaces: [0] is the one that its first process is in, [n] others[n - 1] (ns_other.h), [ABOVE + n] user.above[n]. */
static struct user {
	char *maps[2]; /* of users and of groups; NULL: it is the host's, or none */
	bool denies_groups, has_mounts;
} *users, *current;
static size_t n_users;

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

void ns_user_remember(uint32_t number, const char *uid_map, const char *gid_map, bool deny_groups, bool has_mounts)
{
	uint32_t chosen = ns_user_chosen();
	struct user *u;

	if (number >= n_users) {
		u = realloc(users, (number + 1) * sizeof(*u));
		if (!u)
			abort();
		memset(u + n_users, 0, (number + 1 - n_users) * sizeof(*u));
		users = u;
		n_users = number + 1;
	}
	u = &users[number];
	free(u->maps[0]);
	free(u->maps[1]);
	*u = (struct user){ { strdup(uid_map), strdup(gid_map) }, deny_groups || !gid_map[0], has_mounts };
	if (!u->maps[0] || !u->maps[1])
		abort();
	ns_user_choose(chosen);
}

uint32_t ns_user_chosen(void)
{
	return current ? (uint32_t)(current - users) : 0;
}

uint32_t ns_user_choose(uint32_t number)
{
	uint32_t was = ns_user_chosen();

	current = number < n_users ? &users[number] : NULL;
	return was;
}

static void remember(const Gw__NsUser *u)
{
	ns_user_remember(0, u->uid_map, u->gid_map, u->deny_groups, u->inside & NS_BIT(NS_MNT));
	ns_user_choose(0);
}

void ns_user_leave(void)
{
	for (size_t i = 0; i < n_users; i++) {
		free(users[i].maps[0]);
		free(users[i].maps[1]);
	}
	free(users);
	users = current = NULL;
	n_users = 0;
}

bool ns_user_is_owned(void)
{
	return current && current->maps[0];
}

uint32_t ns_user_sees(bool group, uint32_t host_id)
{
	uint32_t id = OVERFLOW_ID;

	if (!ns_user_is_owned())
		return host_id;
	translate(current->maps[group], true, host_id, &id);
	return id;
}

bool ns_user_maps(bool group, uint32_t *id)
{
	return !ns_user_is_owned() || translate(current->maps[group], true, *id, id);
}

uint32_t ns_user_gives(bool group, uint32_t host_id)
{
	return current && current->has_mounts ? ns_user_sees(group, host_id) : host_id;
}

bool ns_user_can_take(bool group, uint32_t id)
{
	uint32_t host_id;

	return !ns_user_is_owned() || translate(current->maps[group], false, id, &host_id);
}

bool ns_user_denies_groups(void)
{
	return current && current->denies_groups;
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

void ns_user_read_ids(pid_t pid, uint32_t **ret_ids, size_t *ret_n_ids, uint32_t **ret_groups, size_t *ret_n_groups)
{
	cleanup_fclose FILE *f = NULL;
	cleanup_free char *line = NULL;
	uint32_t *ids = must_alloc(NS_USER_IDS * sizeof(*ids)), *groups = NULL;
	size_t size = 0, n = 0;
	char path[64];

	memset(ids, 0xff, NS_USER_IDS * sizeof(*ids));
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && getline(&line, &size, f) > 0) {
		const char *at = strchr(line, ':');
		int used;

		if (strncmp(line, "Uid:", 4) == 0 || strncmp(line, "Gid:", 4) == 0)
			sscanf(at + 1, "%u %u %u", &ids[line[0] == 'G' ? 3 : 0], &ids[line[0] == 'G' ? 4 : 1], &ids[line[0] == 'G' ? 5 : 2]);
		if (strncmp(line, "Groups:", 7) || groups)
			continue;
		groups = must_alloc(GROUPS_MAX * sizeof(*groups));
		for (at++; n < GROUPS_MAX && sscanf(at, "%u%n", &groups[n], &used) == 1; at += used)
			n++;
	}
	*ret_ids = ids;
	*ret_n_ids = NS_USER_IDS;
	*ret_groups = groups;
	*ret_n_groups = n;
}

bool ns_user_ids_are_good(size_t n_ids, size_t n_groups)
{
	return n_ids == NS_USER_IDS && n_groups <= GROUPS_MAX;
}

/* Those that one lies in, up to the host's: nobody of the unit has to be in them. */
static int capture_above(int ns, Gw__NsUser *u, struct err *e)
{
	int fd = ioctl(ns, NS_GET_PARENT), ret = 0;

	u->above = must_alloc(LEVELS_MAX * sizeof(*u->above));
	while (ret == 0 && fd >= 0 && ns_id_of(fd) != ns_id(0, NS_USER)) {
		Gw__NsOther *out = must_alloc(sizeof(*out));
		int next = ioctl(fd, NS_GET_PARENT);

		gw__ns_other__init(out);
		out->kind = NS_USER;
		memmove(u->above + 1, u->above, u->n_above++ * sizeof(*u->above));
		u->above[0] = out;
		ret = u->n_above < LEVELS_MAX ? ns_user_read(fd, out, e) : err_set(e, -E2BIG, "more than %u user namespaces in each other", LEVELS_MAX);
		close(fd);
		fd = next;
	}
	if (ret == 0 && fd < 0)
		ret = err_sys(e, errno, "the user namespaces above that of the unit");
	if (fd >= 0)
		close(fd);
	return ret;
}

int ns_user_capture(pid_t root, Gw__Namespaces *msg, struct err *e)
{
	cleanup_close int ns = -1;
	uint64_t theirs = ns_id(root, NS_USER);
	Gw__NsUser *u = msg->user = must_alloc(sizeof(*u));
	cleanup_free char *setgroups_text = NULL;
	uid_t owner = 0;
	int ret;

	gw__ns_user__init(u);
	ns = ns_open(root, NS_USER);
	if (ns < 0 || !theirs || ioctl(ns, NS_GET_OWNER_UID, &owner) < 0)
		return err_sys(e, errno, "the user namespace of process %d", root);
	u->owner = owner;
	ret = capture_above(ns, u, e);
	if (ret < 0)
		return ret;
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
	ns_user_read_ids(root, &u->ids, &u->n_ids, &u->groups, &u->n_groups);
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
	if (u && (!ns_user_ids_are_good(u->n_ids, u->n_groups) || u->inside & ~msg->owned || !good_map(u->uid_map) || !good_map(u->gid_map)))
		return err_set(e, -EBADMSG, "user namespace: ids, groups or maps");
	if (u && u->n_above >= LEVELS_MAX)
		return err_set(e, -EBADMSG, "user namespaces in each other");
	for (size_t i = 0; u && i < u->n_above; i++)
		if (ns_user_validate_other(u->above[i], e) < 0)
			return -EBADMSG;
	return 0;
}

/* Root's, or the first id that is inside, for files that are made there. */
static uint32_t first_id(const char *map)
{
	unsigned long inside = 0;
	uint32_t id;

	if (translate(map, false, 0, &id))
		return 0;
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

/* Becomes the user who makes a namespace, in number `parent`, which that is to lie in (parent_fd; -1: the host's). */
static int go_above(uint32_t owner, uint32_t parent, int parent_fd)
{
	uint32_t gid = 0;

	/* Who makes one has ids that are mapped above it. */
	if (parent < n_users && users[parent].maps[1] && !translate(users[parent].maps[1], false, first_id(users[parent].maps[1]), &gid))
		return -EINVAL;
	if (prctl(PR_SET_SECUREBITS, 1 << SECURE_NO_SETUID_FIXUP) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(owner, owner, owner) < 0)
		return -errno;
	if (parent_fd >= 0 && setns(parent_fd, CLONE_NEWUSER) < 0)
		return -errno;
	live_with_parent();
	return 0;
}

/* Runs in the owner. */
static int be_owner(const Gw__NsUser *u, uint32_t parent, int parent_fd, int socket)
{
	int others = 0, ret;

	live_with_parent();
	ret = parent_fd >= 0 ? go_above(u->owner, parent, parent_fd) : 0;
	remember(u);
	if (ret == 0 && parent_fd < 0 && u->owner && setresuid(u->owner, u->owner, u->owner) < 0)
		ret = -errno;
	if (ret < 0)
		return ret;
	if (parent_fd >= 0)
		prctl(PR_SET_DUMPABLE, 1); /* so that its maps can be written by a process without rights on the host */
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

/* Lines "inside outside count" with outside as the host counts; the same as number `parent` counts. */
static int map_seen_from(uint32_t parent, bool group, const char *map, char **ret)
{
	const char *above = parent < n_users ? users[parent].maps[group] : NULL;
	unsigned long inside, outside, count;
	size_t size = strlen(map) * 2 + 64, len = 0;
	char *text = must_alloc(size);
	int used;

	text[0] = 0;
	for (const char *line = map; sscanf(line, " %lu %lu %lu%n", &inside, &outside, &count, &used) == 3; line += used) {
		uint32_t seen = (uint32_t)outside;

		if (above && !translate(above, true, (uint32_t)outside, &seen)) {
			free(text);
			return -EINVAL;
		}
		len += (size_t)snprintf(text + len, size - len, "%lu %u %lu\n", inside, seen, count);
	}
	*ret = text;
	return 0;
}

/* Those of a process in a new namespace below number `parent`, which the caller is in. */
static int write_maps(pid_t pid, const Gw__NsUser *u, uint32_t parent)
{
	cleanup_free char *uids = NULL, *gids = NULL;
	int ret = map_seen_from(parent, false, u->uid_map, &uids);

	if (ret == 0)
		ret = map_seen_from(parent, true, u->gid_map, &gids);
	if (ret == 0 && u->deny_groups)
		ret = write_text(pid, "setgroups", "deny");
	if (ret == 0)
		ret = write_text(pid, "gid_map", gids);
	return ret < 0 ? ret : write_text(pid, "uid_map", uids);
}

/* The owner's maps: by a process in the one above, since they can be written from there only. */
static int write_owner_maps(pid_t pid, const Gw__NsUser *u, uint32_t parent, int parent_fd)
{
	int status = 0;
	pid_t writer;

	if (parent_fd < 0)
		return write_maps(pid, u, parent);
	writer = fork();
	if (writer == 0) {
		status = go_above(u->owner, parent, parent_fd);
		_exit(-(status < 0 ? status : write_maps(pid, u, parent)));
	}
	if (writer < 0 || waitpid(writer, &status, 0) != writer)
		return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

/* Those that the first process's lies in. *ret_parent, *ret_fd: the innermost; NS_HOSTS, -1: there are none. */
static int make_above(const Gw__NsUser *u, uint32_t *ret_parent, int *ret_fd, struct err *e)
{
	cleanup_close int above = -1;

	*ret_parent = NS_HOSTS;
	for (size_t i = 0; i < u->n_above; i++) {
		const Gw__NsOther *o = u->above[i];
		int fd = ns_user_make_other(o, *ret_parent, above, e);

		if (fd < 0)
			return fd;
		close_fdp(&above);
		above = fd;
		*ret_parent = ABOVE + (uint32_t)i;
		ns_user_remember(*ret_parent, o->uid_map, o->gid_map, o->deny_groups, true);
	}
	*ret_fd = take_fd(&above);
	return 0;
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
	cleanup_close int fd = -1, above = -1;
	uint32_t parent;
	int pair[2], code = make_above(u, &parent, &above, e);

	if (code < 0)
		return code;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "socketpair");
	ret->pid = fork();
	if (ret->pid == 0) {
		close(pair[0]);
		code = be_owner(u, parent, above, pair[1]);
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
		code = write_owner_maps(ret->pid, u, parent, above);
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
static int create_as(const struct user *u, int directory, const char *name, int open_flags, mode_t mode)
{
	long bits = prctl(PR_GET_SECUREBITS);
	uint32_t uid, gid;
	int fd, code;

	if (!translate(u->maps[0], false, first_id(u->maps[0]), &uid) || !translate(u->maps[1], false, first_id(u->maps[1]), &gid) ||
	    prctl(PR_SET_SECUREBITS, bits | 1 << SECURE_NO_SETUID_FIXUP) < 0)
		return -EOVERFLOW;
	setfsgid(gid);
	setfsuid(uid);
	fd = openat(directory, name, open_flags, mode);
	code = errno;
	setfsuid(geteuid());
	setfsgid(getegid());
	prctl(PR_SET_SECUREBITS, bits);
	return fd < 0 ? -code : fd;
}

int ns_user_create(int directory, const char *name, int open_flags, mode_t mode)
{
	int fd = openat(directory, name, open_flags, mode), code = errno;

	for (size_t i = 0; fd < 0 && code == EOVERFLOW && i < n_users; i++) /* of whichever the file system is */
		if (users[i].maps[0]) {
			fd = create_as(&users[i], directory, name, open_flags, mode);
			code = fd < 0 ? -fd : 0;
			fd = MAX(fd, -1);
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

/* --- those that the first process is not in --- */

/* A process in a user namespace, which waits until the socket is closed. */
static pid_t visitor(int ns, int *ret_socket)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		live_with_parent();
		say(pair[1], setns(ns, CLONE_NEWUSER) < 0 ? -errno : 0);
		hear(pair[1]);
		_exit(0);
	}
	close(pair[1]);
	*ret_socket = pair[0];
	return pid < 0 ? -errno : pid;
}

static void end_visitor(pid_t pid, int socket)
{
	close(socket);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

int ns_user_read(int ns, Gw__NsOther *out, struct err *e)
{
	cleanup_free char *setgroups_text = NULL;
	int socket = -1, ret;
	uid_t owner = 0;
	pid_t pid = visitor(ns, &socket);

	ret = pid < 0 ? pid : hear(socket);
	if (ret == 0)
		ret = read_text(pid, "uid_map", &out->uid_map);
	if (ret == 0)
		ret = read_text(pid, "gid_map", &out->gid_map);
	if (ret == 0)
		ret = read_text(pid, "setgroups", &setgroups_text);
	if (ret == 0 && ioctl(ns, NS_GET_OWNER_UID, &owner) < 0)
		ret = -errno;
	out->deny_groups = setgroups_text && strncmp(setgroups_text, "deny", 4) == 0;
	out->owner = owner;
	end_visitor(pid, socket);
	return ret < 0 ? err_sys(e, ret, "a user namespace") : 0;
}

int ns_user_validate_other(const Gw__NsOther *o, struct err *e)
{
	return good_map(o->uid_map) && good_map(o->gid_map) ? 0 : err_set(e, -EBADMSG, "maps of a user namespace");
}

/* In the process that is to be in the new one. */
static void __attribute__((noreturn)) be_member(int socket)
{
	live_with_parent();
	say(socket, unshare(CLONE_NEWUSER) < 0 ? -errno : prctl(PR_SET_DUMPABLE, 1) < 0 ? -errno : 0);
	hear(socket); /* until it is known */
	_exit(0);
}

/* In a process in the one above: makes it, and writes its maps, which can be written from there only. *ret_member: as this process sees it. */
static int make_from_above(const Gw__NsOther *o, uint32_t parent, int parent_fd, pid_t *ret_member, int *ret_socket)
{
	Gw__NsUser u = GW__NS_USER__INIT;
	int pair[2], ret;

	u.uid_map = o->uid_map;
	u.gid_map = o->gid_map;
	u.deny_groups = o->deny_groups;
	ret = go_above(o->owner, parent, parent_fd);
	if (ret < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return ret < 0 ? ret : -errno;
	*ret_member = fork();
	if (*ret_member == 0)
		be_member(pair[1]);
	close(pair[1]);
	*ret_socket = pair[0];
	ret = *ret_member < 0 ? -errno : hear(pair[0]);
	return ret < 0 ? ret : write_maps(*ret_member, &u, parent);
}

/* What the process above says: of which process it is. */
struct made {
	volatile int code, member;
};

int ns_user_make_other(const Gw__NsOther *o, uint32_t parent, int parent_fd, struct err *e)
{
	struct made *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int pair[2], member_socket = -1, fd = -1, ret;
	pid_t pid, member = 0;

	if (m == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, errno, "a user namespace");
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		live_with_parent();
		ret = make_from_above(o, parent, parent_fd, &member, &member_socket);
		m->member = member;
		say(pair[1], ret);
		hear(pair[1]); /* until the namespace has been opened */
		close_fdp(&member_socket);
		_exit(0);
	}
	close(pair[1]);
	ret = pid < 0 ? -errno : hear(pair[0]);
	if (ret == 0 && (fd = ns_open(m->member, NS_USER)) < 0)
		ret = -errno;
	end_visitor(pid, pair[0]);
	munmap(m, sizeof(*m));
	return ret < 0 ? err_sys(e, ret, "a user namespace of a part of the unit") : fd;
}

int ns_user_be(int ns, uint32_t number)
{
	const struct user *u = number < n_users ? &users[number] : NULL;

	if (setns(ns, CLONE_NEWUSER) < 0)
		return -errno;
	if (u && u->maps[1] && u->maps[1][0] && setresgid(first_id(u->maps[1]), first_id(u->maps[1]), first_id(u->maps[1])) < 0)
		return -errno;
	if (u && u->maps[0] && u->maps[0][0]) {
		if (prctl(PR_SET_SECUREBITS, 1 << SECURE_NO_SETUID_FIXUP) < 0 || setresuid(first_id(u->maps[0]), first_id(u->maps[0]), first_id(u->maps[0])) < 0)
			return -errno;
	}
	live_with_parent();
	prctl(PR_SET_DUMPABLE, 1); /* so that files of /proc/self are its own */
	ns_user_choose(number);
	return 0;
}
