/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_mark.c - which of the unit's mounts descriptors and directories are on; see ns_mount.h */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/ns_mount_internal.h"
#include "image/place.h"

#define MARKED_MAX (sizeof(PLACE_SPACE) + 16 + PATH_MAX)

static bool identify(int at, const char *path, int flags, struct statx *ret)
{
	const unsigned wanted = STATX_INO | STATX_MNT_ID;

	return statx(at, path, flags | AT_NO_AUTOMOUNT, wanted, ret) == 0 && (ret->stx_mask & wanted) == wanted;
}

static bool same_file(const struct statx *a, const struct statx *b)
{
	return a->stx_ino == b->stx_ino && a->stx_dev_major == b->stx_dev_major && a->stx_dev_minor == b->stx_dev_minor;
}

/* The mount namespace of the unit's that a mount is in, which is used from then on; NULL: none of those that the unit owns. */
static const struct mount_space *space_of(uint64_t mount, const char **ret_where)
{
	size_t n;
	const struct mount_space *spaces = mount_spaces(&n);

	for (size_t k = 0; k < n; k++)
		for (size_t i = 0; i < spaces[k].n_own; i++)
			if ((uint64_t)spaces[k].own[i].id == mount) {
				*ret_where = spaces[k].own[i].where;
				spaces[k].own[i].used = true;
				return &spaces[k];
			}
	return NULL;
}

/* Whether the first process is among the host's mounts. */
static bool first_is_hosts(void)
{
	size_t n;
	const struct mount_space *spaces = mount_spaces(&n);

	return !n || spaces[0].number;
}

static const char *where_on_host(uint64_t mount)
{
	const struct mount_infos *host = mount_host();

	for (size_t i = 0; i < host->n; i++)
		if ((uint64_t)host->v[i].id == mount)
			return host->v[i].where;
	return NULL;
}

static void mark(uint32_t number, char *path, size_t size)
{
	char marked[MARKED_MAX];

	if (place_mark(number, path, marked, sizeof(marked)) && strlen(marked) < size)
		memcpy(path, marked, strlen(marked) + 1);
}

/* What is the same file by the same path for the first process is not marked. Directories are, since what is mounted below them may be something else. */
static void mark_space(const struct mount_space *s, const struct stat *here, char *path, size_t size)
{
	struct stat at;

	if (!s->number || (!S_ISDIR(here->st_mode) && !S_ISLNK(here->st_mode) && lstat(place_of(path), &at) == 0 && here->st_dev == at.st_dev && here->st_ino == at.st_ino))
		return;
	mark(s->number, path, size);
}

/* A path as it is, or of a mount that nobody has any more, which begins at its root. */
static void mark_outside(const struct stat *here, char *path, size_t size)
{
	const struct mount_infos *host = mount_host();
	char marked[sizeof(PLACE_OUTSIDE) + 2 * PATH_MAX];
	struct stat at;

	for (size_t i = 0; i <= host->n; i++) {
		snprintf(marked, sizeof(marked), PLACE_OUTSIDE "%s%s", i && strcmp(host->v[i - 1].where, "/") ? host->v[i - 1].where : "", path);
		if (strlen(marked) < size && lstat(marked, &at) == 0 && here->st_dev == at.st_dev && here->st_ino == at.st_ino) {
			memcpy(path, marked, strlen(marked) + 1);
			return;
		}
	}
}

void ns_mark_outside(int fd, char *path, size_t size)
{
	const struct mount_space *s;
	const char *where;
	struct statx mount;
	struct stat here;
	size_t n;

	mount_spaces(&n);
	if (!n || path[0] != '/' || fstat(fd, &here) < 0 || !identify(fd, "", AT_EMPTY_PATH, &mount))
		return;
	s = space_of(mount.stx_mnt_id, &where);
	if (s)
		mark_space(s, &here, path, size);
	else if (!first_is_hosts())
		mark_outside(&here, path, size);
}

/* --- where files are opened --- */

/* Whether a path leads to that mount, be it to that file or not. */
static bool leads_to_mount(const char *path, const struct statx *file, bool same)
{
	struct statx there;

	return identify(AT_FDCWD, place_of(path), AT_SYMLINK_NOFOLLOW, &there) && there.stx_mnt_id == file->stx_mnt_id && (!same || same_file(&there, file));
}

/* What has no name is made in the directory where it had one. */
static bool is_beside(const char *told, const struct statx *file)
{
	char path[PATH_MAX];
	char *slash;

	snprintf(path, sizeof(path), "%s", told);
	slash = strrchr(path, '/');
	if (!slash)
		return false;
	slash[slash == path] = 0;
	return leads_to_mount(path, file, false);
}

int ns_place_file(int fd, const char *told, bool named, char *ret, size_t size, bool *ret_through)
{
	const struct mount_space *s;
	const char *where = NULL;
	char link[64], own[MARKED_MAX] = "";
	struct statx file;
	ssize_t len;
	size_t n;

	s = mount_spaces(&n);
	if (!n || (n == 1 && !s->number) || !identify(fd, "", AT_EMPTY_PATH, &file))
		return 0;
	s = space_of(file.stx_mnt_id, &where);
	if (!s && !(first_is_hosts() && (where = where_on_host(file.stx_mnt_id)))) /* of what nobody in the unit has among its mounts only the file is known */
		return 0;
	if (named ? leads_to_mount(told, &file, true) : is_beside(told, &file))
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, own, sizeof(own) - 1);
	own[MAX(len, 0)] = 0;
	*ret_through = false;
	mark(s ? s->number : 0, own, sizeof(own));
	if (!named || !leads_to_mount(own, &file, true)) { /* by its number, then: the mount is all that a path has to lead to */
		*ret_through = true;
		snprintf(own, sizeof(own), "%s", where);
		mark(s ? s->number : 0, own, sizeof(own));
	}
	if (!leads_to_mount(own, &file, false) || strlen(own) >= size)
		return -ENOENT;
	memcpy(ret, own, strlen(own) + 1);
	return 1;
}

bool ns_directory_is_elsewhere(pid_t pid, const char *link)
{
	char path[64], name[PATH_MAX], at[PATH_MAX + 64];
	const char *where;
	struct statx own, there;
	ssize_t len;
	size_t n;

	mount_spaces(&n);
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, link);
	if (!n || !identify(AT_FDCWD, path, 0, &own) || (len = readlink(path, name, sizeof(name) - 1)) < 0)
		return false;
	name[len] = 0;
	snprintf(at, sizeof(at), "/proc/%d/root%s", pid, name);
	space_of(own.stx_mnt_id, &where);
	if (!identify(AT_FDCWD, at, 0, &there)) { /* removed, or something lies over it: then its root says where it ought to be */
		snprintf(at, sizeof(at), "/proc/%d/root", pid);
		if (!identify(AT_FDCWD, at, 0, &there))
			return false;
	}
	return space_of(own.stx_mnt_id, &where) != space_of(there.stx_mnt_id, &where);
}

bool ns_root_of(pid_t pid, bool bare, char *ret, size_t size)
{
	char path[64], name[PATH_MAX];
	const struct mount_space *s;
	const char *where;
	struct statx root;
	ssize_t len;
	size_t n;

	mount_spaces(&n);
	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	if (!identify(AT_FDCWD, path, 0, &root) || (len = readlink(path, name, sizeof(name) - 1)) < 0)
		return false;
	name[len] = 0;
	s = space_of(root.stx_mnt_id, &where);
	if (n && !s && !(first_is_hosts() && where_on_host(root.stx_mnt_id)))
		return false;
	return place_mark(s ? s->number : 0, bare || !strcmp(name, "/") ? "" : name, ret, size);
}

bool ns_root_number(size_t i, char *ret, size_t size)
{
	size_t n;
	const struct mount_space *spaces = mount_spaces(&n);

	if (i == 0)
		return place_mark(0, "", ret, size);
	return i <= n && place_mark(spaces[i - 1].number, "", ret, size);
}
