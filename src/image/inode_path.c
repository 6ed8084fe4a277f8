/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* inode_path.c - from an inode to its path; see inode_path.h */
#include "image/inode_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/ns_info.h"

#define SEARCH_ENTRIES_MAX 1000000u
#define SEARCH_DEPTH_MAX 40
#define FILEID_INO32_GEN 1u /* linux/exportfs.h of the kernel */

static uint32_t kernel_dev(dev_t dev)
{
	return (uint32_t)(major(dev) << 20 | minor(dev));
}

static bool field(const char *line, const char *key, uint64_t *ret)
{
	const char *at = strstr(line, key), *end = strchr(line, '\n');

	if (!at || (end && at > end))
		return false;
	*ret = strtoull(at + strlen(key), NULL, 16);
	return true;
}

bool inode_id_parse(const char *line, struct inode_id *ret)
{
	uint64_t ino, sdev, bytes = 0, type = 0;
	const char *hex, *end = strchr(line, '\n');

	if (!field(line, " ino:", &ino) || !field(line, " sdev:", &sdev))
		return false;
	*ret = (struct inode_id){ .ino = ino, .sdev = (uint32_t)sdev };
	hex = strstr(line, "f_handle:");
	if (!field(line, "fhandle-bytes:", &bytes) || !field(line, "fhandle-type:", &type) || !hex || (end && hex > end) ||
	    bytes > sizeof(ret->handle))
		return true;
	hex += strlen("f_handle:");
	for (size_t i = 0; i < bytes; i++) {
		unsigned int byte;

		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			return true;
		ret->handle[i] = (uint8_t)byte;
	}
	ret->handle_bytes = (uint32_t)bytes;
	ret->handle_type = (uint32_t)type;
	return true;
}

static bool is_inode(const char *path, const struct inode_id *id)
{
	struct stat st;

	return lstat(path, &st) == 0 && st.st_ino == id->ino && kernel_dev(st.st_dev) == id->sdev;
}

/* The mount points of pid, one after the other: *f is opened first. Octal escapes are resolved. */
struct mounts {
	FILE *f;
	int id;
	uint32_t sdev;
	char path[PATH_MAX];
};

static bool mounts_next(struct mounts *m, pid_t pid)
{
	char line[PATH_MAX * 2], path[64], format[32];
	unsigned int dev_major, dev_minor;

	if (!m->f) {
		snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
		m->f = fopen(path, "re");
	}
	snprintf(format, sizeof(format), "%%d %%*d %%u:%%u %%*s %%%ds", PATH_MAX - 1);
	while (m->f && fgets(line, sizeof(line), m->f)) {
		if (sscanf(line, format, &m->id, &dev_major, &dev_minor, m->path) != 4)
			continue;
		m->sdev = dev_major << 20 | dev_minor;
		mount_unescape(m->path);
		return true;
	}
	if (m->f)
		fclose(m->f);
	m->f = NULL;
	return false;
}

/* Through a mount of its file system; O_PATH. -1 if it cannot be. */
static int open_by_handle(const char *mount_point, const struct inode_id *id)
{
	union {
		struct file_handle head;
		char bytes[sizeof(struct file_handle) + sizeof(id->handle)];
	} handle = { .head = { .handle_bytes = id->handle_bytes, .handle_type = (int)id->handle_type } };
	cleanup_close int mount_fd = open(mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (mount_fd < 0 || !id->handle_bytes)
		return -1;
	memcpy(handle.head.f_handle, id->handle, id->handle_bytes);
	return open_by_handle_at(mount_fd, &handle.head, O_PATH | O_CLOEXEC);
}

static char *path_of_open(int fd, const struct inode_id *id)
{
	char link[64], path[PATH_MAX];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len <= 0)
		return NULL;
	path[len] = '\0';
	return is_inode(path, id) ? fd_strdup(path) : NULL;
}

static char *find_by_handle(const char *mount_point, const struct inode_id *id)
{
	cleanup_close int fd = open_by_handle(mount_point, id);

	return fd < 0 ? NULL : path_of_open(fd, id);
}

/* Depth first, without leaving the file system; *left counts down. */
static char *search(const char *dir_path, const struct inode_id *id, int depth, uint32_t *left)
{
	cleanup_closedir DIR *dir = opendir(dir_path);
	struct dirent *entry;
	char path[PATH_MAX];
	struct stat st;
	char *found = NULL;

	if (is_inode(dir_path, id))
		return fd_strdup(dir_path);
	while (dir && !found && *left && (entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		--*left;
		snprintf(path, sizeof(path), "%s/%s", strcmp(dir_path, "/") ? dir_path : "", entry->d_name);
		if (entry->d_ino == id->ino && is_inode(path, id))
			return fd_strdup(path);
		if (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN)
			continue;
		if (depth < SEARCH_DEPTH_MAX && lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && kernel_dev(st.st_dev) == id->sdev)
			found = search(path, id, depth + 1, left);
	}
	return found;
}

/* Where programs mostly watch: their working directory. */
static char *search_near(pid_t pid, const struct inode_id *id)
{
	char link[64], path[PATH_MAX];
	uint32_t left = SEARCH_ENTRIES_MAX / 10;
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/%d/cwd", (int)pid);
	len = readlink(link, path, sizeof(path) - 1);
	if (len <= 0)
		return NULL;
	path[len] = '\0';
	return search(path, id, 0, &left);
}

/* Without opening it, which who watches it would see. */
static char *find_mount_root(pid_t pid, const struct inode_id *id)
{
	struct mounts m = { 0 };
	char *found = NULL;

	while (mounts_next(&m, pid))
		if (!found && m.sdev == id->sdev && is_inode(m.path, id))
			found = fd_strdup(m.path);
	return found;
}

char *inode_path_by_handle(pid_t pid, const struct inode_id *id)
{
	char *found = find_mount_root(pid, id);
	struct mounts m = { 0 };

	while (mounts_next(&m, pid))
		if (!found && m.sdev == id->sdev)
			found = find_by_handle(m.path, id);
	return found;
}

int inode_path_by_number(pid_t pid, uint32_t sdev, uint32_t ino, char **ret)
{
	struct inode_id id = { .sdev = sdev, .ino = ino, .handle_type = FILEID_INO32_GEN, .handle_bytes = 2 * sizeof(uint32_t) };
	struct mounts m = { 0 };
	int found = -ENOENT;

	memcpy(id.handle, &ino, sizeof(ino)); /* the generation is 0: any */
	while (mounts_next(&m, pid)) {
		cleanup_close int fd = found == -ENOENT && m.sdev == sdev ? open_by_handle(m.path, &id) : -1;
		struct stat st;

		if (fd < 0 || fstat(fd, &st) < 0 || st.st_ino != ino || kernel_dev(st.st_dev) != sdev)
			continue;
		if (!st.st_nlink)
			found = 0;
		else if ((*ret = path_of_open(fd, &id)))
			found = 1;
	}
	return found;
}

char *inode_path_search(pid_t pid, const struct inode_id *id)
{
	uint32_t left = SEARCH_ENTRIES_MAX;
	struct mounts m = { 0 };
	char *found = search_near(pid, id);

	while (mounts_next(&m, pid))
		if (!found && m.sdev == id->sdev)
			found = search(m.path, id, 0, &left);
	return found;
}

char *inode_path_find(pid_t pid, const struct inode_id *id)
{
	char *found = inode_path_by_handle(pid, id);

	return found ? found : inode_path_search(pid, id);
}

char *mount_path_find(pid_t pid, int mnt_id, uint32_t sdev)
{
	struct mounts m = { 0 };
	char *found = NULL;

	while (mounts_next(&m, pid))
		if (!found && (mnt_id >= 0 ? m.id == mnt_id : m.sdev == sdev))
			found = fd_strdup(m.path);
	return found;
}
