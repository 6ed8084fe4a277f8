/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_mount_make.c - the mounts of a unit at the destination; see ns_mount.h
 *
 * Theory of operation: every file system of the unit's is mounted beside its root to be, filled, and each mount is a clone of a part of it, or of a part of
 * what the host has. Clones are put in place by descriptors, so that what lies on top does not matter, and are private while that goes on. Then come peer
 * groups: the first of a group is made shared, the others take its group over; a slave takes over the group of its master and is made its slave. What
 * belongs to a pid namespace is mounted by its first process when it joins, where the first mount of such a file system is the one that the others are cloned from.
 *
 * Each mount namespace that the first process is not in is put together in the same way by a child of the holder, in a copy of the holder's from before it has put its own
 * together. They share a table of descriptors, so that the holder has the mounts of all of them for the peer groups, which go over the borders.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns_mount_internal.h"
#include "image/ns_other.h"
#include "image/ns_terminal.h"
#include "image/ns_user.h"

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x200000
#endif
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

#define TOP NS_MOUNT_TOP
#define SPACE_TOP TOP "/space" /* for mount namespaces that belong to other user namespaces than the holder's, which may make nothing in the holder's */

/*
 * Clones of what mounts show of the host, made outside: in a mount namespace that belongs to another user namespace, what the host has mounted cannot be taken
 * apart. NULL: they are made when they are needed.
 */
static int *borrowed;

static int *shared_ints(size_t n)
{
	int *v = mmap(NULL, (n + 1) * sizeof(*v), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (v == MAP_FAILED)
		abort();
	memset(v, 0xff, (n + 1) * sizeof(*v)); /* -1 */
	return v;
}

/* The user namespace that a mount namespace belongs to, if the first process is not in it; 0: none. */
static uint32_t user_of(const Gw__Namespaces *msg, uint32_t space)
{
	return space && msg->others[space - 1]->user != NS_HOSTS ? msg->others[space - 1]->user : 0;
}

bool ns_mounts_have_users(const Gw__Namespaces *msg)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (user_of(msg, msg->mounts[i]->space))
			return true;
	return false;
}

static struct maker maker_new(const Gw__Namespaces *msg, bool late)
{
	struct maker m = { msg, late, 0, TOP, 0, shared_ints(msg->n_mounts), must_alloc((msg->n_fs + 1) * sizeof(int)), shared_ints(msg->n_others) };

	for (size_t i = 0; i < msg->n_fs; i++)
		m.fs[i] = -1;
	return m;
}

static void maker_free(struct maker *m)
{
	for (size_t i = 0; i < m->msg->n_mounts; i++)
		close_fdp(&m->mounts[i]);
	for (size_t i = 0; i < m->msg->n_fs; i++)
		close_fdp(&m->fs[i]);
	for (size_t i = 0; i <= m->msg->n_others; i++)
		close_fdp(&m->spaces[i]);
	munmap(m->mounts, (m->msg->n_mounts + 1) * sizeof(*m->mounts));
	munmap(m->spaces, (m->msg->n_others + 1) * sizeof(*m->spaces));
	free(m->fs);
}

int ns_mounts_borrow(const Gw__Namespaces *msg, struct err *e)
{
	borrowed = shared_ints(msg->n_mounts);
	for (size_t i = 0; i < msg->n_mounts; i++) {
		cleanup_close int fd = msg->mounts[i]->fs ? -1 : open_tree(AT_FDCWD, msg->mounts[i]->root, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);

		borrowed[i] = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, NS_HIGH_FD);
		if (!msg->mounts[i]->fs && borrowed[i] < 0)
			return err_sys(e, errno, "mount %s: %s of the host", msg->mounts[i]->where, msg->mounts[i]->root);
	}
	return 0;
}

/* --- file systems --- */

static int set_options(int context, const char *options)
{
	cleanup_free char *copy = strdup(options);
	char *save;

	for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		char *value = strchr(word, '='), id[16];

		if (value)
			*value++ = 0;
		if (value && (strcmp(word, "uid") == 0 || strcmp(word, "gid") == 0)) { /* which are read as the host's ids, and are given as one's own */
			snprintf(id, sizeof(id), "%u", ns_user_gives(word[0] == 'g', (uint32_t)strtoul(value, NULL, 10)));
			value = id;
		}
		if (fsconfig(context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, word, value, 0) < 0)
			return -errno;
	}
	return 0;
}

static int make_fs(const Gw__NsFs *fs, struct err *e)
{
	cleanup_close int context = fsopen(fs->type, FSOPEN_CLOEXEC);
	const char *extra = strcmp(fs->type, "devpts") == 0 ? "newinstance" : strcmp(fs->type, "cgroup") == 0 && strstr(fs->options, "name=") ? "none" : "";
	int fd = -1, ret;

	if (context < 0)
		return err_sys(e, errno, "file systems of type %s", fs->type);
	(void)!fsconfig(context, FSCONFIG_SET_STRING, "source", fs->source, 0);
	ret = set_options(context, extra);
	if (ret == 0)
		ret = set_options(context, fs->options);
	if (ret == 0 && fs->readonly && !fs->n_trees && fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0)
		ret = -errno;
	if (ret == 0 && (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 || (fd = fsmount(context, FSMOUNT_CLOEXEC, 0)) < 0))
		ret = -errno;
	return ret < 0 ? err_sys(e, ret, "a file system %s (%s, %s)", fs->source, fs->type, fs->options) : fd;
}

/* The directories above `path`, and what the first entry is at it; a descriptor of it. */
static int make_tree_root(const Gw__NsTree *t, int top, char *path)
{
	const Gw__NsEntry *first = t->n_entries ? t->entries[0] : NULL;
	bool file = first && !S_ISDIR(first->mode);

	if (!path[0])
		return openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdirat(top, path, 0755);
		*slash = '/';
	}
	if (file && !S_ISREG(first->mode))
		return mknodat(top, path, first->mode & (S_IFMT | 07777), first->rdev) < 0 ? -errno : openat(top, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (!file && mkdirat(top, path, 0700) < 0 && (t->removed || errno != EEXIST))
		return -1;
	return openat(top, path, (file ? O_RDWR | O_CREAT | O_EXCL : O_RDONLY | O_DIRECTORY) | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void tree_path(const char *root, char path[PATH_MAX])
{
	size_t len;

	mount_root_is_removed(root, &len);
	snprintf(path, PATH_MAX, "%.*s", (int)len - 1, root + 1);
}

static int fill_fs(const Gw__NsFs *fs, int top, struct err *e)
{
	int ret = 0;

	for (int removed = 0; removed < 2; removed++)
		for (size_t i = 0; i < fs->n_trees && ret == 0; i++) {
			cleanup_close int root = -1;
			char path[PATH_MAX];

			if (fs->trees[i]->removed != removed)
				continue;
			tree_path(fs->trees[i]->root, path);
			root = make_tree_root(fs->trees[i], top, path);
			if (root < 0)
				return err_sys(e, errno, "%s of a file system in memory", fs->trees[i]->root);
			ret = ns_entries_make(fs->trees[i], root, e);
		}
	return ret;
}

/* What has no name in it any more, and whether it can be written: when all mounts of it are there. */
static int finish_fs(const Gw__NsFs *fs, int top, struct err *e)
{
	cleanup_close int context = -1;

	for (size_t i = 0; i < fs->n_trees; i++) {
		char path[PATH_MAX];

		tree_path(fs->trees[i]->root, path);
		if (fs->trees[i]->removed && unlinkat(top, path, 0) < 0 && unlinkat(top, path, AT_REMOVEDIR) < 0)
			return err_sys(e, errno, "removing %s in a file system in memory", path);
	}
	if (!fs->readonly || !fs->n_trees)
		return 0;
	context = fspick(top, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
	if (context < 0 || fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0 || fsconfig(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
		return err_sys(e, errno, "making a file system %s read-only", fs->type);
	return 0;
}

static bool fs_is_late(const Gw__Namespaces *msg, size_t fs)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->fs == fs + 1 && !ns_mount_is_late(msg, i))
			return false;
	return true;
}

/* Whether a mount is among those that are made now. */
static bool is_due(const struct maker *m, size_t i)
{
	bool late = ns_mount_is_late(m->msg, i);

	return m->msg->mounts[i]->space == m->space && late == m->late && (!late || ns_mount_numbers(m->msg, i) == m->numbers);
}

static bool fs_is_due(const struct maker *m, size_t fs)
{
	for (size_t i = 0; i < m->msg->n_mounts; i++)
		if (m->msg->mounts[i]->fs == fs + 1 && is_due(m, i))
			return true;
	return false;
}

/* Whoever puts the mount namespace together in which a file system comes first makes it, where that belongs to a user namespace: the file system belongs to it as well. 0: the holder. */
static uint32_t fs_maker(const Gw__Namespaces *msg, size_t fs)
{
	static const struct {
		const char *type;
		enum ns_kind shown;
	} types[] = { { "tmpfs", NS_USER }, { "devpts", NS_USER }, { "sysfs", NS_NET }, { "mqueue", NS_IPC } };
	uint32_t space = UINT32_MAX;
	size_t type = 0;

	while (type < ARRAY_SIZE(types) && strcmp(msg->fs[fs]->type, types[type].type))
		type++;
	if (type == ARRAY_SIZE(types)) /* which cannot be mounted from in there, and was mounted on the host at first */
		return 0;
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->fs == fs + 1)
			space = MIN(space, msg->mounts[i]->space);
	if (space == UINT32_MAX || !user_of(msg, space))
		return 0;
	return types[type].shown == NS_USER || ns_others_find_owned(msg, user_of(msg, space), types[type].shown) >= 0 ? space : 0;
}

/* Those of the unit, in directories beside its root to be: a part of what is mounted can be cloned. Late ones cannot be put anywhere, and are just made. */
static int make_all_fs(struct maker *m, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < m->msg->n_fs && ret >= 0; i++) {
		char path[64];

		if (fs_is_late(m->msg, i) != m->late || (m->late && !fs_is_due(m, i)) || (!m->late && fs_maker(m->msg, i) != m->space))
			continue;
		m->fs[i] = ret = make_fs(m->msg->fs[i], e);
		if (ret >= 0 && !m->late) {
			snprintf(path, sizeof(path), "%s/%zu", m->base, i);
			if (mkdir(path, 0755) < 0 || move_mount(m->fs[i], "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
				ret = err_sys(e, errno, "%s", path);
		}
		if (ret >= 0)
			ret = fill_fs(m->msg->fs[i], m->fs[i], e);
		if (ret >= 0)
			ret = ns_terminals_make(m->msg, i, m->fs[i], e);
	}
	return ret < 0 ? ret : 0;
}

/* --- mounts --- */

static int set_attributes(int fd, const Gw__NsMount *mount, struct err *e)
{
	static const struct {
		uint64_t flag, attr;
	} map[] = {
		{ MS_RDONLY, MOUNT_ATTR_RDONLY }, { MS_NOSUID, MOUNT_ATTR_NOSUID }, { MS_NODEV, MOUNT_ATTR_NODEV }, { MS_NOEXEC, MOUNT_ATTR_NOEXEC },
		{ MS_NODIRATIME, MOUNT_ATTR_NODIRATIME }, { MS_NOSYMFOLLOW, MOUNT_ATTR_NOSYMFOLLOW },
	};
	struct mount_attr a = { .attr_clr = MOUNT_ATTR__ATIME };

	/* What is a slave of the host's mount already stays so; nothing propagates from a slave. */
	a.propagation = mount->of_host && !mount->fs ? MS_SLAVE : MS_PRIVATE;
	a.attr_set = mount->flags & MS_NOATIME ? MOUNT_ATTR_NOATIME : mount->flags & MS_RELATIME ? MOUNT_ATTR_RELATIME : MOUNT_ATTR_STRICTATIME;
	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		*(mount->flags & map[i].flag ? &a.attr_set : &a.attr_clr) |= map[i].attr;
	return mount_setattr(fd, "", AT_EMPTY_PATH, &a, sizeof(a)) < 0 ? err_sys(e, errno, "flags of mount %s", mount->where) : 0;
}

/* A mount of the file system that is there and leads to what mount i shows, or -1. */
static int find_made(const struct maker *m, size_t i, const char **ret_below)
{
	const Gw__NsMount *mount = m->msg->mounts[i];

	for (size_t k = 0; k < m->msg->n_mounts; k++) {
		const char *below = m->msg->mounts[k]->fs == mount->fs && m->msg->mounts[k]->space == m->space && m->mounts[k] >= 0 ? path_below(mount->root, m->msg->mounts[k]->root) : NULL;

		if (!below)
			continue;
		*ret_below = below[0] == '/' ? below + 1 : below;
		return m->mounts[k];
	}
	return -1;
}

static int clone_mount(struct maker *m, size_t i, struct err *e)
{
	const Gw__NsMount *mount = m->msg->mounts[i];
	const char *below = NULL;
	char path[PATH_MAX];
	int from = -1, fd;

	tree_path(mount->root, path);
	if (borrowed && (!mount->fs || borrowed[i] >= 0)) {
		fd = take_fd(&borrowed[i]);
	} else if (!mount->fs) {
		fd = open_tree(AT_FDCWD, mount->root, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
	} else if (m->late && (from = find_made(m, i, &below)) < 0 && !path[0] && m->fs[mount->fs - 1] >= 0) {
		fd = fcntl(m->fs[mount->fs - 1], F_DUPFD_CLOEXEC, 0); /* the first: the mount that came with the file system itself */
	} else {
		from = m->late && below ? from : m->fs[mount->fs - 1];
		below = m->late && below ? below : path;
		fd = open_tree(from, below, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW | (below[0] ? 0 : AT_EMPTY_PATH));
	}
	return fd < 0 ? err_sys(e, errno, "mount %s: %s of file system %s", mount->where, mount->root, mount->fs ? m->msg->fs[mount->fs - 1]->type : "of the host") : fd;
}

static int attach(struct maker *m, size_t i, struct err *e)
{
	const Gw__NsMount *mount = m->msg->mounts[i];
	char path[64];
	int ret;

	snprintf(path, sizeof(path), "%s/root", m->base);
	if (ns_mount_is_root(m->msg, i))
		ret = move_mount(m->mounts[i], "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
	else
		ret = move_mount(m->mounts[i], "", m->mounts[mount->parent], mount->at, MOVE_MOUNT_F_EMPTY_PATH | (mount->at[0] ? 0 : MOVE_MOUNT_T_EMPTY_PATH));
	return ret < 0 ? err_sys(e, errno, "mounting %s", mount->where) : 0;
}

static int make_mounts(struct maker *m, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < m->msg->n_mounts && ret >= 0; i++) {
		if (!is_due(m, i))
			continue;
		m->mounts[i] = ret = clone_mount(m, i, e);
		if (ret >= 0)
			ret = set_attributes(m->mounts[i], m->msg->mounts[i], e);
		if (ret >= 0)
			ret = attach(m, i, e);
	}
	return ret < 0 ? ret : 0;
}

static int finish_all_fs(const struct maker *m, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < m->msg->n_fs && ret >= 0; i++)
		if (m->fs[i] >= 0 && fs_is_late(m->msg, i) == m->late && (m->late || fs_maker(m->msg, i) == m->space))
			ret = finish_fs(m->msg->fs[i], m->fs[i], e);
	return ret;
}

/* --- the two passes --- */

static int prepare_top(struct err *e)
{
	/* What is mounted from the host is a slave then: nothing that is done here gets back to the host. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return err_sys(e, errno, "a mount namespace");
	if (mount("godwit", TOP, "tmpfs", 0, "mode=755") < 0 || mkdir(TOP "/root", 0755) < 0 || mkdir(SPACE_TOP, 0755) < 0)
		return err_sys(e, errno, "%s", TOP);
	return 0;
}

static size_t find_root(const Gw__Namespaces *msg, uint32_t space)
{
	size_t i = 0;

	while (i < msg->n_mounts && msg->mounts[i]->space != space)
		i++;
	return i;
}

/* What lies over the first one's root: there paths begin. */
static int go_to_top(const struct maker *m, struct err *e)
{
	size_t top = find_root(m->msg, m->space);

	for (size_t i = top + 1; i < m->msg->n_mounts && m->msg->mounts[i]->space == m->space; i++)
		if (m->msg->mounts[i]->parent == top && !m->msg->mounts[i]->at[0])
			top = i;
	return fchdir(m->mounts[top]) < 0 || chroot(".") < 0 || chdir("/") < 0 ? err_sys(e, errno, "a root for the unit") : 0;
}

/* Puts together what m->space says, in the caller's own namespace, and makes it its root. */
static int make_space(struct maker *m, struct err *e)
{
	int ret = make_mounts(m, e);

	if (ret == 0 && (fchdir(m->mounts[find_root(m->msg, m->space)]) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0))
		return err_sys(e, errno, "a root for the unit");
	return ret;
}

/* Into the user namespace that it belongs to; file systems of the kernel show that one's other namespaces. */
static int enter_user(struct maker *m, uint32_t user)
{
	static const enum ns_kind shown[] = { NS_NET, NS_IPC, NS_CGROUP };
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(shown) && ret == 0; i++) {
		int fd = ns_others_find_owned(m->msg, user, shown[i]);

		ret = fd < 0 ? 0 : ns_enter(fd, shown[i]);
	}
	return ret < 0 ? ret : ns_user_be(ns_others_fd(user), user);
}

/* Its own file systems, in a directory of its own, and clones of them for mount namespaces that come later. */
static int make_own_fs(struct maker *m, struct err *e)
{
	int ret;

	m->base = SPACE_TOP;
	if (mount("godwit", SPACE_TOP, "tmpfs", 0, "mode=755") < 0 || mkdir(SPACE_TOP "/root", 0755) < 0)
		return err_sys(e, errno, "%s", SPACE_TOP);
	ret = make_all_fs(m, e);
	for (size_t i = 0; i < m->msg->n_mounts && ret == 0; i++) {
		const Gw__NsMount *mount = m->msg->mounts[i];
		char path[PATH_MAX];

		if (!mount->fs || mount->space == m->space || fs_is_late(m->msg, mount->fs - 1) || fs_maker(m->msg, mount->fs - 1) != m->space)
			continue;
		tree_path(mount->root, path);
		borrowed[i] = open_tree(m->fs[mount->fs - 1], path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW | (path[0] ? 0 : AT_EMPTY_PATH));
		if (borrowed[i] < 0)
			ret = err_sys(e, errno, "mount %s", mount->where);
	}
	return ret;
}

/* What a child that puts together another one has to say, in shared memory. */
struct child {
	int code;
	struct err e;
};

static void __attribute__((noreturn)) live_in_space(struct maker *m, uint32_t space, struct child *c, int ready)
{
	uint32_t user = user_of(m->msg, space);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "godwit-mounts");
	m->space = space;
	if (user && (c->code = enter_user(m, user)) < 0) {
		err_sys(&c->e, c->code, "entering a user namespace of the unit");
		_exit(1);
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	c->code = unshare(CLONE_NEWNS) < 0 ? err_sys(&c->e, errno, "copying a mount namespace") : 0;
	m->spaces[space] = ns_open(0, NS_MNT);
	for (size_t i = 0; i < m->msg->n_fs; i++) {
		char path[64];

		snprintf(path, sizeof(path), TOP "/%zu", i);
		m->fs[i] = m->fs[i] < 0 ? -1 : open(path, O_PATH | O_CLOEXEC);
	}
	if (c->code == 0 && user)
		c->code = make_own_fs(m, &c->e);
	if (c->code == 0)
		c->code = make_space(m, &c->e);
	if (c->code == 0 && user)
		c->code = finish_all_fs(m, &c->e);
	if (c->code == 0)
		c->code = go_to_top(m, &c->e);
	(void)!write(ready, "", 1);
	while (c->code == 0)
		pause();
	_exit(1);
}

static int make_other(struct maker *m, uint32_t space, pid_t *ret_pid, struct err *e)
{
	struct child *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int ready[2], end, ret;
	pid_t pid;

	if (c == MAP_FAILED || pipe2(ready, O_CLOEXEC) < 0)
		return err_sys(e, errno, "a mount namespace");
	c->code = -ECHILD;
	pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, NULL, NULL, 0);
	if (pid == 0)
		live_in_space(m, space, c, ready[1]);
	if (pid < 0)
		return err_sys(e, errno, "a mount namespace");
	*ret_pid = pid; /* in shared memory: not by the child */
	/* The end that it writes to is this process's as well. */
	end = (int)syscall(SYS_pidfd_open, pid, 0);
	poll((struct pollfd[]){ { ready[0], POLLIN, 0 }, { end, POLLIN, 0 } }, 2, -1);
	ret = c->code;
	if (ret < 0)
		err_set(e, ret, "%s", c->e.message[0] ? c->e.message : "the process that makes a mount namespace has ended");
	close_fdp(&end);
	close(ready[0]);
	close(ready[1]);
	munmap(c, sizeof(*c));
	return ret;
}

static int make_others(struct maker *m, pid_t *ret_pids, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < m->msg->n_mounts && ret == 0; i++)
		if (m->msg->mounts[i]->space && ns_mount_is_root(m->msg, i))
			ret = make_other(m, m->msg->mounts[i]->space, &ret_pids[m->msg->mounts[i]->space - 1], e);
	return ret;
}

int ns_mounts_make(const Gw__Namespaces *msg, pid_t *ret_pids, struct err *e)
{
	struct maker m = maker_new(msg, false);
	bool owned = msg->owned & NS_BIT(NS_MNT);
	int ret = prepare_top(e);

	m.spaces[0] = ns_open(0, NS_MNT);
	if (ret == 0)
		ret = make_all_fs(&m, e);
	if (ret == 0)
		ret = make_others(&m, ret_pids, e);
	if (ret == 0 && owned)
		ret = make_space(&m, e);
	if (ret == 0)
		ret = finish_all_fs(&m, e);
	if (ret == 0)
		ret = mount_set_groups(&m, e);
	if (ret == 0 && (ret = mount_enter_space(&m, 0)) < 0)
		err_sys(e, ret, "the mount namespace of the unit's first process");
	if (ret == 0 && owned)
		ret = go_to_top(&m, e);
	maker_free(&m);
	return ret;
}

/* In the same mount namespace, before: what is not late, and what belongs to a pid namespace whose first process is there. */
static bool is_made(const struct maker *m, size_t i)
{
	uint32_t numbers = ns_mount_numbers(m->msg, i);

	return m->msg->mounts[i]->space == m->space && !is_due(m, i) && (!ns_mount_is_late(m->msg, i) || !numbers || ns_others_fd(numbers) >= 0);
}

static int make_late(struct maker *m, struct err *e)
{
	int ret;

	for (size_t i = 0; i < m->msg->n_mounts; i++) /* those on top, of namespaces further up as well, are those that others are made on, or cloned from */
		if (is_made(m, i))
			m->mounts[i] = open(m->msg->mounts[i]->where, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	ret = make_mounts(m, e);
	if (ret == 0)
		ret = finish_all_fs(m, e);
	return ret == 0 ? mount_set_groups(m, e) : ret;
}

/* In a process of the pid namespace `numbers`: what belongs to that one in one of the mount namespaces, which `ns` is. */
static int join_space(const Gw__Namespaces *msg, uint32_t space, uint32_t numbers, int ns, struct err *e)
{
	struct maker m = maker_new(msg, true);
	bool any = false;
	int ret = 0;

	m.space = space;
	m.numbers = numbers;
	for (size_t i = 0; i < msg->n_mounts; i++)
		any |= is_due(&m, i);
	if (any && borrowed && unshare(CLONE_NEWNS) < 0)
		ret = err_sys(e, errno, "a mount namespace");
	if (ret == 0 && any)
		ret = make_all_fs(&m, e);
	if (ret == 0 && (any || (!space && !numbers)) && (ret = ns_enter(ns, NS_MNT)) < 0)
		err_sys(e, ret, "entering the mount namespace");
	if (ret == 0 && any)
		ret = make_late(&m, e);
	maker_free(&m);
	return ret;
}

/*
 * A file system of the kernel can be mounted in another user namespace only by whoever sees one that is whole, as the host's are: so that they are made in a copy of the
 * host's mount namespace, before the unit's is entered.
 */
static int join_others(const Gw__Namespaces *msg, uint32_t numbers, struct err *e)
{
	cleanup_close int before = ns_open(0, NS_MNT);
	int ret = 0;

	for (uint32_t space = 1; msg && space <= msg->n_others && ret == 0; space++) {
		if (msg->others[space - 1]->kind != NS_MNT || msg->others[space - 1]->of_host)
			continue;
		ret = join_space(msg, space, numbers, ns_others_fd(space), e);
		if (ret == 0)
			ret = ns_enter(before, NS_MNT);
	}
	return ret;
}

int mount_join_late(const Gw__Namespaces *msg, uint32_t numbers, int ns, struct err *e)
{
	int ret = join_others(msg, numbers, e);

	return ret == 0 && ns >= 0 ? join_space(msg, 0, numbers, ns, e) : ret;
}

int ns_mounts_join(const Gw__Namespaces *msg, int ns, struct err *e)
{
	int ret = join_others(msg, 0, e);

	if (ret < 0)
		return ret;
	if (msg && ns >= 0)
		return join_space(msg, 0, 0, ns, e);
	return ns >= 0 && (ret = ns_enter(ns, NS_MNT)) < 0 ? err_sys(e, ret, "entering the mount namespace") : 0;
}

/* --- the destination's judgement --- */

/* Whether what a mount is to lie on is there, as far as that is the host's. */
static bool has_place(const Gw__Namespaces *msg, size_t i)
{
	const Gw__NsMount *m = msg->mounts[i], *parent = msg->mounts[m->parent];
	char path[2 * PATH_MAX];

	if (ns_mount_is_root(msg, i) || !m->at[0] || parent->fs)
		return true;
	snprintf(path, sizeof(path), "%s/%s", strcmp(parent->root, "/") ? parent->root : "", m->at);
	return faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void ns_mounts_judge(const Gw__Namespaces *msg, struct refusals *r)
{
	for (size_t i = 0; i < msg->n_mounts; i++) {
		const Gw__NsMount *m = msg->mounts[i];

		if (!m->fs && access(m->root, F_OK) < 0)
			refusals_add(r, "ns.mount.lacking", "what is mounted there is not on the destination", "make it there, at the same path, or share it between the hosts",
				     "mount %s (%s of the host)", m->where, m->root);
		else if (!has_place(msg, i))
			refusals_add(r, "ns.mount.place", "the place where it is mounted is in a file system of the host, and not there on the destination", "make it there", "mount %s", m->where);
	}
}
