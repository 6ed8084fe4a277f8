// SPDX-License-Identifier: GPL-2.0-or-later
/* protect_journal.c - see protect_journal.h */
#include "daemon/protect_journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/util.h"
#include "daemon/keep.h"

#define FILE_BYTES_MAX 16384

static char directory[PATH_MAX / 2] = "/run/godwit/protect";

void protect_use_directory(const char *new_directory)
{
	snprintf(directory, sizeof(directory), "%s", new_directory);
}

const char *protect_directory(void)
{
	return directory;
}

static void path_of(const char *key, const char *suffix, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s%s", directory, key, suffix);
}

static int read_text(const char *path, char *text, size_t size)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;

	if (n < 0)
		return -errno;
	text[n] = 0;
	return (int)n;
}

static void read_keepers(const json_t *list, struct protect_journal *j)
{
	const json_t *one;
	size_t i;

	json_array_foreach(list, i, one) {
		const char *name;
		json_int_t seq;
		int current, told, answers;
		struct protect_keeper *k;

		if (j->n_keepers == PROTECT_KEEPERS_MAX ||
		    json_unpack((json_t *)(uintptr_t)one, "{s:s, s:I, s:b, s:b, s:b}", "name", &name, "seq", &seq, "current", &current, "told", &told, "answers", &answers) || !hello_name_valid(name))
			continue;
		k = &j->keepers[j->n_keepers++];
		*k = (struct protect_keeper){ .seq = (uint64_t)seq, .current = current, .told = told, .answers = answers };
		snprintf(k->name, sizeof(k->name), "%s", name);
	}
}

static int decode(const json_t *o, struct protect_journal *ret)
{
	const char *key, *to, *error;
	json_int_t base = 0, start, moves, seq, complete_ms, bytes, ended_s;
	int stage, pid, have, copies, made, late, failed, freeze_us, took_ms;
	const json_t *keepers;

	if (json_unpack((json_t *)(uintptr_t)o, "{s:s, s:i, s:s, s:i, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:s, s:I, s:o, s?I}", "key", &key, "stage", &stage, "to", &to, "pid", &pid,
			"start_ticks", &start, "moves", &moves, "seq", &seq, "complete_ms", &complete_ms, "have", &have, "copies", &copies, "made", &made, "late", &late, "failed", &failed,
			"freeze_us", &freeze_us, "took_ms", &took_ms, "bytes", &bytes, "error", &error, "ended_s", &ended_s, "keepers", &keepers, "base", &base) ||
	    stage < PROTECT_RUNS || stage > PROTECT_FENCED || !keep_key_valid(key, false))
		return -EBADMSG;
	*ret = (struct protect_journal){
		.stage = (enum protect_stage)stage, .pid = pid, .start_ticks = (uint64_t)start, .moves = (uint64_t)moves, .seq = (uint64_t)seq, .base = (uint64_t)base, .complete_ms = (uint64_t)complete_ms,
		.have = (unsigned)have, .copies = (unsigned)copies, .made = (unsigned)made, .late = (unsigned)late, .failed = (unsigned)failed, .freeze_us = (unsigned)freeze_us,
		.took_ms = (unsigned)took_ms, .bytes = (uint64_t)bytes, .ended_s = ended_s,
	};
	snprintf(ret->key, sizeof(ret->key), "%s", key);
	snprintf(ret->to, sizeof(ret->to), "%s", to);
	snprintf(ret->error, sizeof(ret->error), "%s", error);
	read_keepers(keepers, ret);
	return 0;
}

int protect_journal_read(const char *key, struct protect_journal *ret, struct err *e)
{
	char path[PATH_MAX], text[FILE_BYTES_MAX];
	json_t *o;
	int n, r;

	path_of(key, ".json", path);
	n = read_text(path, text, sizeof(text));
	if (n < 0)
		return n == -ENOENT ? n : err_sys(e, n, "%s", path);
	o = json_loadb(text, (size_t)n, 0, NULL);
	r = o ? decode(o, ret) : -EBADMSG;
	json_decref(o);
	return r < 0 ? err_set(e, r, "%s is no journal of a protected unit", path) : 0;
}

int protect_journal_write(const struct protect_journal *j, struct err *e)
{
	char path[PATH_MAX], fresh[PATH_MAX];
	cleanup_close int fd = -1;
	cleanup_free char *text = NULL;
	json_t *keepers = json_array(), *o;
	ssize_t len;

	for (size_t i = 0; i < j->n_keepers; i++)
		json_array_append_new(keepers, json_pack("{s:s, s:I, s:b, s:b, s:b}", "name", j->keepers[i].name, "seq", (json_int_t)j->keepers[i].seq, "current", j->keepers[i].current, "told",
							 j->keepers[i].told, "answers", j->keepers[i].answers));
	o = json_pack("{s:s, s:i, s:s, s:i, s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:s, s:I, s:o, s:I}", "key", j->key, "stage", (int)j->stage, "to", j->to, "pid", (int)j->pid,
		      "start_ticks", (json_int_t)j->start_ticks, "moves", (json_int_t)j->moves, "seq", (json_int_t)j->seq, "complete_ms", (json_int_t)j->complete_ms, "have", (int)j->have,
		      "copies", (int)j->copies, "made", (int)j->made, "late", (int)j->late, "failed", (int)j->failed, "freeze_us", (int)j->freeze_us, "took_ms", (int)j->took_ms, "bytes",
		      (json_int_t)j->bytes, "error", j->error, "ended_s", (json_int_t)j->ended_s, "keepers", keepers, "base", (json_int_t)j->base);
	text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
	json_decref(o);
	if (!text)
		return err_sys(e, -ENOMEM, "the journal of %s", j->key);
	path_of(j->key, ".json", path);
	path_of(j->key, ".new", fresh);
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return err_sys(e, -errno, "%s", fresh);
	len = (ssize_t)strlen(text);
	errno = 0;
	if (write(fd, text, (size_t)len) != len)
		return err_sys(e, errno ? -errno : -EIO, "%s", fresh);
	return rename(fresh, path) < 0 ? err_sys(e, -errno, "%s", path) : 0;
}

void protect_journal_remove(const char *key)
{
	char path[PATH_MAX];

	path_of(key, ".json", path);
	unlink(path);
	protect_leaving_forget(key);
}

int protect_journal_list(int (*each)(const struct protect_journal *j, void *arg), void *arg)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;
	int n = 0;

	while (d && (item = readdir(d))) {
		size_t len = strlen(item->d_name);
		struct protect_journal j;
		char key[KEEP_UNIT_MAX];

		if (len <= 5 || len - 5 >= sizeof(key) || strcmp(item->d_name + len - 5, ".json") != 0)
			continue;
		memcpy(key, item->d_name, len - 5);
		key[len - 5] = 0;
		if (!keep_key_valid(key, false) || protect_journal_read(key, &j, NULL) < 0)
			continue;
		n++;
		if (each && each(&j, arg))
			break;
	}
	return n;
}

struct protect_keeper *protect_journal_keeper(struct protect_journal *j, const char *name, bool make)
{
	struct protect_keeper *free_one = j->n_keepers < PROTECT_KEEPERS_MAX ? &j->keepers[j->n_keepers] : NULL;

	for (size_t i = 0; i < j->n_keepers; i++) {
		if (!strcmp(j->keepers[i].name, name))
			return &j->keepers[i];
		if (!free_one && !j->keepers[i].current && !j->keepers[i].seq)
			free_one = &j->keepers[i];
	}
	if (!make || !free_one)
		return NULL;
	if (free_one == &j->keepers[j->n_keepers])
		j->n_keepers++;
	*free_one = (struct protect_keeper){ .answers = true };
	snprintf(free_one->name, sizeof(free_one->name), "%s", name);
	return free_one;
}

/* --- units that move --- */

void protect_note_leaving(struct protect_leaving *l, pid_t pid, const char *to)
{
	struct registry_entry entry;
	char path[PATH_MAX];
	cleanup_fclose FILE *f = NULL;

	l->key[0] = 0;
	if (registry_lookup(pid, &entry, NULL) < 0 || !entry.protection.every_ms)
		return;
	keep_key(&entry, l->key);
	path_of(l->key, ".leaving", path);
	f = fopen(path, "we");
	if (f)
		fprintf(f, "%d %s\n", (int)getpid(), to);
}

void protect_note_end(struct protect_leaving *l, bool left)
{
	char path[PATH_MAX], done[PATH_MAX];

	if (!l->key[0])
		return;
	path_of(l->key, ".leaving", path);
	path_of(l->key, ".left", done);
	if (left)
		rename(path, done);
	else
		unlink(path);
	l->key[0] = 0;
}

void protect_note_lost(const struct registry_entry *entry)
{
	char key[KEEP_UNIT_MAX], path[PATH_MAX];
	int fd;

	keep_key(entry, key);
	path_of(key, ".lost", path);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd >= 0)
		close(fd);
}

void protect_forget_lost(const char *key)
{
	char path[PATH_MAX];

	path_of(key, ".lost", path);
	unlink(path);
}

double protect_lost_age_s(const char *key)
{
	char path[PATH_MAX];
	struct stat st;

	path_of(key, ".lost", path);
	return stat(path, &st) < 0 ? 0 : (double)(time(NULL) - st.st_mtime);
}

int protect_list_lost(void (*each)(const char *key, void *arg), void *arg)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;
	int n = 0;

	while (d && (item = readdir(d))) {
		size_t len = strlen(item->d_name);
		char key[KEEP_UNIT_MAX];

		if (len <= 5 || len - 5 >= sizeof(key) || strcmp(item->d_name + len - 5, ".lost") != 0)
			continue;
		memcpy(key, item->d_name, len - 5);
		key[len - 5] = 0;
		n++;
		if (each)
			each(key, arg);
	}
	return n;
}

static bool read_word(const char *path, int *ret_pid, char ret_to[HELLO_NAME_MAX + 1])
{
	char text[128], to[HELLO_NAME_MAX + 1];

	if (read_text(path, text, sizeof(text)) <= 0 || sscanf(text, "%d %64s", ret_pid, to) != 2 || !hello_name_valid(to))
		return false;
	strcpy(ret_to, to);
	return true;
}

char protect_leaving_state(const char *key, char ret_to[HELLO_NAME_MAX + 1])
{
	char path[PATH_MAX];
	int pid;

	ret_to[0] = 0;
	path_of(key, ".lost", path);
	if (access(path, F_OK) == 0)
		return 'x';
	path_of(key, ".left", path);
	if (read_word(path, &pid, ret_to))
		return 'L';
	path_of(key, ".leaving", path);
	if (!read_word(path, &pid, ret_to))
		return 'n';
	/* A worker that died in between: the unit may run there. */
	return registry_start_ticks(pid) ? 'l' : 'L';
}

void protect_leaving_forget(const char *key)
{
	char path[PATH_MAX];

	path_of(key, ".left", path);
	unlink(path);
	path_of(key, ".leaving", path);
	unlink(path);
}
