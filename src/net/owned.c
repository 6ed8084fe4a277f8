/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* owned.c - see owned.h */
#include "net/owned.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/util.h"
#include "kern/proc_start.h"
#include "net/owned_internal.h"
#include "net/redirect.h"

#define RECORD_BYTES_MAX 8192

static char directory[PATH_MAX - 64] = OWNED_DEFAULT_DIRECTORY;

void owned_use_directory(const char *new_directory)
{
	snprintf(directory, sizeof(directory), "%s", new_directory);
}

const char *owned_directory(void)
{
	return directory;
}

static void make_directory(void)
{
	char parent[PATH_MAX];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", directory);
	slash = strrchr(parent, '/');
	if (slash && slash != parent) {
		*slash = 0;
		mkdir(parent, 0755);
	}
	mkdir(directory, 0755);
}

int owned_lock(struct err *e)
{
	cleanup_close int fd = -1;
	char path[PATH_MAX];

	make_directory();
	snprintf(path, sizeof(path), "%s/lock", directory);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_sys(e, -errno, "%s", path);
	return take_fd(&fd);
}

/* --- records --- */

static void record_path(char path[PATH_MAX], pid_t pid, const char *suffix)
{
	snprintf(path, PATH_MAX, "%s/%d.json%s", directory, (int)pid, suffix);
}

static json_t *pack(const struct owned *o)
{
	json_t *list = json_array();

	for (size_t i = 0; i < o->n; i++) {
		char text[ADDRESS_TEXT];

		json_array_append_new(list, json_pack("{s:s, s:s}", "address", address_text_whole(&o->v[i], text), "on", o->v[i].on));
	}
	return json_pack("{s:i, s:I, s:i, s:I, s:b, s:o}", "pid", (int)o->pid, "start_ticks", (json_int_t)o->start_ticks, "keeper", (int)o->keeper, "keeper_ticks",
			 (json_int_t)o->keeper_ticks, "coming", o->coming, "addresses", list);
}

int owned_write(const struct owned *o, struct err *e)
{
	char path[PATH_MAX], temporary[PATH_MAX];
	json_t *record = pack(o);
	int r = -ENOMEM;

	record_path(path, o->pid, "");
	record_path(temporary, o->pid, ".new");
	if (record)
		r = json_dump_file(record, temporary, JSON_INDENT(1)) < 0 || rename(temporary, path) < 0 ? -EIO : 0;
	json_decref(record);
	return r < 0 ? err_sys(e, r, "%s: writing which addresses process %d has", path, (int)o->pid) : 0;
}

void owned_erase(pid_t pid)
{
	char path[PATH_MAX];

	record_path(path, pid, "");
	unlink(path);
}

static int unpack_addresses(const json_t *list, struct owned *o)
{
	const json_t *one;
	size_t i;

	if (json_array_size(list) > OWNED_MAX)
		return -EBADMSG;
	json_array_foreach(list, i, one) {
		const char *text = json_string_value(json_object_get(one, "address")), *on = json_string_value(json_object_get(one, "on"));

		if (!text || !on || address_parse(text, &o->v[i], NULL) < 0)
			return -EBADMSG;
		snprintf(o->v[i].on, sizeof(o->v[i].on), "%s", on);
	}
	o->n = i;
	return 0;
}

static int unpack(json_t *record, struct owned *ret)
{
	json_int_t start, keeper_ticks;
	json_t *list;
	int pid, keeper, coming;

	if (json_unpack(record, "{s:i, s:I, s:i, s:I, s:b, s:o}", "pid", &pid, "start_ticks", &start, "keeper", &keeper, "keeper_ticks", &keeper_ticks, "coming", &coming,
			"addresses", &list) < 0)
		return -EBADMSG;
	*ret = (struct owned){ .pid = pid, .start_ticks = (uint64_t)start, .keeper = keeper, .keeper_ticks = (uint64_t)keeper_ticks, .coming = coming };
	return unpack_addresses(list, ret);
}

int owned_read(pid_t pid, struct owned *ret)
{
	char path[PATH_MAX], text[RECORD_BYTES_MAX];
	cleanup_close int fd = -1;
	json_t *record;
	ssize_t n;
	int r;

	record_path(path, pid, "");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (n < 0)
		return -ENOENT;
	record = json_loadb(text, (size_t)n, 0, NULL);
	r = record ? unpack(record, ret) : -EBADMSG;
	json_decref(record);
	return r;
}

int owned_find(pid_t pid, struct owned *ret)
{
	int r = owned_read(pid, ret);

	return r == 0 && (ret->pid != pid || ret->start_ticks != proc_start_ticks(pid)) ? -ENOENT : r;
}

void owned_list(int (*each)(const struct owned *o, void *arg), void *arg)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;
	struct owned o;

	while (d && (item = readdir(d))) {
		char *end;
		long pid = strtol(item->d_name, &end, 10);

		if (pid > 0 && pid <= INT_MAX && !strcmp(end, ".json") && owned_read((pid_t)pid, &o) == 0 && each(&o, arg))
			return;
	}
}

struct question {
	const struct owned_address *a;
	bool found;
};

static int has(const struct owned *o, void *arg)
{
	struct question *q = arg;

	for (size_t i = 0; i < o->n; i++)
		q->found |= !memcmp(o->v[i].address, q->a->address, sizeof(o->v[i].address));
	return q->found;
}

bool owned_has(const struct owned_address *a)
{
	struct question q = { .a = a };

	owned_list(has, &q);
	return q.found;
}

/* --- giving and taking --- */

/* Entries of connections that had it, from when it left this host. */
static void forget(const struct owned *o)
{
	struct redirect *r = NULL;

	if (redirect_find(&r, NULL) == 0 && r)
		for (size_t i = 0; i < o->n; i++)
			redirect_forget_address(r, o->v[i].address);
	redirect_close(&r);
}

void owned_take_away(struct netlink *nl, const struct owned *o)
{
	for (size_t i = 0; i < o->n && !o->coming; i++)
		address_remove(nl, &o->v[i], NULL);
	owned_erase(o->pid);
}

static int check_free(struct netlink *nl, const struct owned_address *a, struct err *e)
{
	char text[ADDRESS_TEXT];
	uint8_t other[6];

	address_text(a, text);
	if (owned_has(a))
		return err_set(e, -EADDRINUSE, "address %s belongs to another unit of this host: choose another one", text);
	if (address_is_here(nl, a))
		return err_set(e, -EADDRINUSE, "address %s is one of this host: a unit needs one that nobody has, which it can take along", text);
	if (address_ask(nl, -1, a, NULL, other) != NEIGHBOUR_NOBODY)
		return err_set(e, -EADDRINUSE, "address %s: another host has it (%02x:%02x:%02x:%02x:%02x:%02x on the link of %s): choose another one", text, other[0], other[1],
			       other[2], other[3], other[4], other[5], a->on);
	return 0;
}

static int check(struct netlink *nl, pid_t pid, struct owned_address *v, size_t n, struct err *e)
{
	struct owned o;
	int r = 0;

	if (owned_find(pid, &o) == 0)
		return err_set(e, -EEXIST, "process %d has addresses of its own already", (int)pid);
	for (size_t i = 0; i < n && r == 0; i++) {
		for (size_t k = 0; k < i; k++)
			if (!memcmp(v[i].address, v[k].address, sizeof(v[i].address)))
				return err_set(e, -EINVAL, "an address is given twice");
		r = address_choose_device(nl, &v[i], e);
		if (r == 0)
			r = check_free(nl, &v[i], e);
	}
	return r;
}

/* Nobody will tell it anything. */
static int start_keeper(struct owned *o, int ns, struct err *e)
{
	struct owned_keeper keeper;
	int r = owned_keeper_prepare(ns, &keeper, e);

	if (r == 0)
		r = owned_keeper_begin(&keeper, o, e);
	owned_keeper_close(&keeper);
	return r;
}

static int give(struct netlink *nl, pid_t pid, struct owned_address *v, size_t n, struct err *e)
{
	struct owned o = { .pid = pid, .start_ticks = proc_start_ticks(pid), .n = n };
	int r = check(nl, pid, v, n, e);

	if (r < 0)
		return r;
	if (!o.start_ticks)
		return err_set(e, -ESRCH, "there is no process %d", (int)pid);
	memcpy(o.v, v, n * sizeof(*v));
	/* The record first: what is not in it nobody would remove. */
	r = start_keeper(&o, -1, e);
	for (size_t i = 0; i < n && r == 0; i++)
		r = address_add(nl, &v[i], e);
	for (size_t i = 0; i < n && r == 0; i++)
		address_spare(nl, &v[i]);
	if (r < 0)
		owned_take_away(nl, &o);
	else
		forget(&o);
	return r;
}

int owned_give(pid_t pid, struct owned_address *v, size_t n, struct err *e)
{
	cleanup_close int lock = -1;
	struct netlink nl;
	int r;

	if (n > OWNED_MAX)
		return err_set(e, -E2BIG, "more than %u addresses", OWNED_MAX);
	lock = owned_lock(e);
	if (lock < 0)
		return lock;
	r = netlink_open(&nl, NETLINK_ROUTE, -1, e);
	if (r == 0)
		r = give(&nl, pid, v, n, e);
	netlink_close(&nl);
	return r;
}

int owned_expect(struct owned_keeper *keeper, pid_t pid, const struct owned_address *v, size_t n, struct err *e)
{
	struct owned o = { .pid = pid, .start_ticks = proc_start_ticks(pid), .coming = true, .n = n };
	cleanup_close int lock = owned_lock(e);

	if (lock < 0)
		return lock;
	memcpy(o.v, v, n * sizeof(*v));
	return owned_keeper_begin(keeper, &o, e);
}

void owned_arrived(struct netlink *nl, const struct owned_address *v, size_t n, const struct owned_keeper *keeper)
{
	for (size_t i = 0; i < n; i++)
		address_add(nl, &v[i], NULL); /* what fails, the keeper tries again */
	(void)!send(keeper->socket, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void owned_release(pid_t pid, int ns)
{
	cleanup_close int lock = owned_lock(NULL);
	struct netlink nl = { 0 };
	struct owned o;

	if (lock >= 0 && owned_read(pid, &o) == 0 && netlink_open(&nl, NETLINK_ROUTE, ns, NULL) == 0)
		owned_take_away(&nl, &o);
	netlink_close(&nl);
}

struct tidying {
	int ns;
	bool any;
};

static int tidy(const struct owned *o, void *arg)
{
	struct tidying *t = arg;
	cleanup_close int lock = -1;
	struct owned now;

	t->any = true;
	if (o->keeper && proc_start_ticks(o->keeper) == o->keeper_ticks)
		return 0;
	lock = owned_lock(NULL);
	if (lock >= 0 && owned_read(o->pid, &now) == 0 && now.keeper == o->keeper)
		start_keeper(&now, t->ns, NULL);
	return 0;
}

bool owned_tidy(int ns)
{
	struct tidying t = { .ns = ns };

	owned_list(tidy, &t);
	return t.any;
}
