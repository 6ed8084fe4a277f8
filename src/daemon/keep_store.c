// SPDX-License-Identifier: GPL-2.0-or-later
/* keep_store.c - see keep_store.h */
#include "daemon/keep_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/util.h"
#include "daemon/keep_wire.h"
#include "daemon/node_state.h"
#include "migrate/registry.h"

#define RECORD_BYTES_MAX 4096
#define ENDED_KEEP_S (7 * 24 * 3600)

static char directory[PATH_MAX / 4] = STATE_DIRECTORY "/localhost.copies";

void keep_store_use(const char *node)
{
	snprintf(directory, sizeof(directory), STATE_DIRECTORY "/%s.copies", node);
}

static void path_of(const char *key, const char *suffix, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s%s", directory, key, suffix);
}

void keep_store_part_path(const char *key, char path[PATH_MAX])
{
	path_of(key, ".part", path);
}

void keep_store_image_path(const struct keep_record *record, char path[PATH_MAX])
{
	char suffix[40];

	snprintf(suffix, sizeof(suffix), ".%llu.img", (unsigned long long)record->seq);
	path_of(record->unit, suffix, path);
}

int keep_store_lock(struct err *e)
{
	char path[PATH_MAX];
	cleanup_close int fd = -1;
	int r = registry_make_directory(directory, 0700, e);

	if (r < 0)
		return r;
	path_of("lock", "", path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || flock(fd, LOCK_EX) < 0)
		return err_sys(e, -errno, "%s", path);
	return take_fd(&fd);
}

double keep_store_age_s(const char *key)
{
	char path[PATH_MAX];
	struct stat st;

	path_of(key, ".json", path);
	return stat(path, &st) < 0 ? 0 : (double)(time(NULL) - st.st_mtime);
}

/* --- records --- */

static int decode(const char *text, size_t len, struct keep_record *ret)
{
	const char *unit, *owner, *to, *run;
	json_int_t moves, seq, bytes, base = 0;
	int state, has_copy, r;
	json_t *o = json_loadb(text, len, 0, NULL);

	r = o ? json_unpack(o, "{s:i, s:s, s:s, s:I, s:I, s:I, s:s, s:s, s:b, s?I}", "state", &state, "unit", &unit, "owner", &owner, "moves", &moves, "seq", &seq, "bytes", &bytes, "to", &to,
			    "run", &run, "has_copy", &has_copy, "base", &base) : -1;
	if (r == 0 && state > KEEP_NOTHING && state < KEEP_RUNS && keep_key_valid(unit, false)) {
		*ret = (struct keep_record){ .state = (enum keep_state)state, .moves = (uint64_t)moves, .seq = (uint64_t)seq, .base = (uint64_t)(base ? base : seq), .bytes = (uint64_t)bytes, .has_copy = has_copy };
		snprintf(ret->unit, sizeof(ret->unit), "%s", unit);
		snprintf(ret->owner, sizeof(ret->owner), "%s", owner);
		snprintf(ret->to, sizeof(ret->to), "%s", to);
		snprintf(ret->run, sizeof(ret->run), "%s", run);
	} else {
		r = -EBADMSG;
	}
	json_decref(o);
	return r;
}

int keep_store_read(const char *key, struct keep_record *ret, struct err *e)
{
	char path[PATH_MAX], text[RECORD_BYTES_MAX];
	cleanup_close int fd = -1;
	ssize_t n;

	*ret = (struct keep_record){ .state = KEEP_NOTHING };
	path_of(key, ".json", path);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "%s", path);
	n = read(fd, text, sizeof(text));
	if (n < 0)
		return err_sys(e, -errno, "%s", path);
	return decode(text, (size_t)n, ret) < 0 ? err_set(e, -EBADMSG, "%s is no record of a copy", path) : 0;
}

bool keep_store_of_chain(const struct keep_record *record, const char *name)
{
	size_t len = strlen(record->unit);
	char *end;
	uint64_t seq;

	if (strncmp(name, record->unit, len) != 0 || name[len] != '.')
		return false;
	seq = strtoull(name + len + 1, &end, 10);
	return !strcmp(end, ".img") && seq >= record->base && seq <= record->seq;
}

/* Those that are not of its chain, and those that are of nobody. */
static void remove_images(const struct keep_record *record)
{
	size_t len = strlen(record->unit);
	char path[PATH_MAX];
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;

	while (d && (item = readdir(d))) {
		const char *end = strrchr(item->d_name, '.');

		if (strncmp(item->d_name, record->unit, len) != 0 || item->d_name[len] != '.' || !end || strcmp(end, ".img") != 0)
			continue;
		path_of(item->d_name, "", path);
		if (!record->has_copy || !keep_store_of_chain(record, item->d_name))
			unlink(path);
	}
}

static int sync_directory(struct err *e)
{
	cleanup_close int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? err_sys(e, -errno, "%s", directory) : 0;
}

static int write_text(const char *path, const char *text, struct err *e)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	ssize_t len = (ssize_t)strlen(text);

	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	errno = 0;
	return write(fd, text, (size_t)len) != len || fsync(fd) < 0 ? err_sys(e, errno ? -errno : -EIO, "%s: write", path) : 0;
}

int keep_store_write(const struct keep_record *record, struct err *e)
{
	char path[PATH_MAX], fresh[PATH_MAX];
	json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:I, s:I, s:s, s:s, s:b, s:I}", "state", (int)record->state, "unit", record->unit, "owner", record->owner, "moves", (json_int_t)record->moves,
			      "seq", (json_int_t)record->seq, "bytes", (json_int_t)record->bytes, "to", record->to, "run", record->run, "has_copy", record->has_copy, "base", (json_int_t)record->base);
	cleanup_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	int r;

	json_decref(o);
	if (!text)
		return err_sys(e, -ENOMEM, "a record");
	path_of(record->unit, ".json", path);
	if (record->state == KEEP_NOTHING) {
		unlink(path);
		remove_images(record);
		return 0;
	}
	path_of(record->unit, ".new", fresh);
	r = write_text(fresh, text, e);
	if (r < 0)
		return r;
	if (rename(fresh, path) < 0)
		return err_sys(e, -errno, "%s: rename", path);
	r = sync_directory(e);
	if (r == 0)
		remove_images(record);
	return r;
}

/* "KEY.json": its length without the end, 0: it is another file. */
static size_t key_length(const char *name, char key[KEEP_UNIT_MAX])
{
	size_t len = strlen(name);

	if (len <= 5 || len - 5 >= KEEP_UNIT_MAX || strcmp(name + len - 5, ".json") != 0)
		return 0;
	memcpy(key, name, len - 5);
	key[len - 5] = 0;
	return keep_key_valid(key, false) ? len - 5 : 0;
}

int keep_store_list(int (*each)(const struct keep_record *record, void *arg), void *arg, struct err *e)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;

	if (!d)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "%s", directory);
	while ((item = readdir(d))) {
		char key[KEEP_UNIT_MAX], path[PATH_MAX];
		struct keep_record record;

		if (!key_length(item->d_name, key) || keep_store_read(key, &record, NULL) < 0 || record.state == KEEP_NOTHING)
			continue;
		if ((record.state == KEEP_HAS_ENDED || record.state == KEEP_TAKEN) && keep_store_age_s(key) > ENDED_KEEP_S) {
			path_of(key, ".json", path);
			unlink(path);
			continue;
		}
		if (each(&record, arg))
			break;
	}
	return 0;
}

/* --- images --- */

struct room {
	size_t n;
	uint64_t bytes; /* of copies */
	const char *key;
};

static int add(const struct keep_record *record, void *arg)
{
	struct room *room = arg;

	room->n++;
	if (record->has_copy && strcmp(record->unit, room->key) != 0)
		room->bytes += record->bytes;
	return 0;
}

static int check_room(const char *key, uint64_t bytes, uint64_t max_mib, struct err *e)
{
	struct room room = { .key = key };
	struct statvfs fs;
	int r = keep_store_list(add, &room, e);

	if (r < 0)
		return r;
	if (room.n >= KEEP_RECORDS_MAX)
		return err_set(e, -EDQUOT, "it keeps copies of %zu units already, its limit", room.n);
	if (max_mib && (room.bytes + bytes) >> 20 >= max_mib)
		return err_set(e, -EDQUOT, "copies may take %llu MiB there, and %llu MiB are taken", (unsigned long long)max_mib, (unsigned long long)(room.bytes >> 20));
	if (statvfs(directory, &fs) < 0)
		return err_sys(e, -errno, "%s", directory);
	if (fs.f_bavail * fs.f_frsize < bytes + fs.f_blocks * fs.f_frsize / KEEP_FREE_PART)
		return err_set(e, -ENOSPC, "no room for a copy of %llu MiB: a tenth of the file system of %s stays free", (unsigned long long)((bytes >> 20) + 1), directory);
	return 0;
}

int keep_store_begin(const char *key, uint64_t bytes, uint64_t max_mib, struct err *e)
{
	char path[PATH_MAX];
	int fd, r = check_room(key, bytes, max_mib, e);

	if (r < 0)
		return r;
	keep_store_part_path(key, path);
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? err_sys(e, -errno, "%s", path) : fd;
}

int keep_store_name(int fd, const struct keep_record *record, struct err *e)
{
	char from[PATH_MAX], to[PATH_MAX];
	struct stat ours, there;

	keep_store_part_path(record->unit, from);
	keep_store_image_path(record, to);
	if (fstat(fd, &ours) < 0 || stat(from, &there) < 0 || ours.st_ino != there.st_ino)
		return err_set(e, -EBUSY, "another copy of the unit is on its way");
	if (fsync(fd) < 0 || rename(from, to) < 0)
		return err_sys(e, -errno, "%s", to);
	return 0;
}
