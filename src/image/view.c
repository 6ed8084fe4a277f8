/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* view.c - directories of home in a mount namespace of the unit; see view.h */
#include "image/admission.h"
#include "image/view.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns_info.h"
#include "image/ns_mount.h"

#define TYPE "fuse.godwit"
#define TOP "/run/godwit/view" /* where the whole file system is for a moment, in the holder's own mount namespace */
#define MAX_READ 131072u

/* Of the root file system: what each host has for itself, whoever runs there. */
static const char *const of_hosts[] = { "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr" };

/* Mounted file systems that are the same everywhere, or no place for files, beside the kernel's own. */
static const char *const of_all[] = { "hugetlbfs", "autofs", "nfs", "nfs4", "cifs", "smb3", "ceph", "gfs2", "ocfs2", "lustre", "9p", "afs", TYPE };

static const Gw__View *used; /* this worker's unit's */
static dev_t device;         /* 0: the unit is not in it */

void view_use(const Gw__View *v)
{
	used = v;
	device = 0;
}

bool view_has_device(dev_t d)
{
	return device && d == device;
}

struct line {
	char root[PATH_MAX], where[PATH_MAX], type[64], source[PATH_MAX];
};

static bool parse(const char *text, struct line *l)
{
	const char *dash = strstr(text, " - ");

	if (!dash || sscanf(text, "%*s %*s %*s %4095s %4095s", l->root, l->where) != 2 || sscanf(dash + 3, "%63s %4095s", l->type, l->source) != 2)
		return false;
	mount_unescape(l->root);
	mount_unescape(l->where);
	return true;
}

static FILE *open_mounts(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", pid);
	return fopen(path, "re");
}

/* --- the source --- */

static int take_source(const char *source, Gw__View *v, struct err *e)
{
	const char *slash = strchr(source, '/');
	unsigned ip[4], port;

	if (!slash || strlen(slash + 1) != 2 * VIEW_TOKEN_BYTES || sscanf(source, "%u.%u.%u.%u:%u", &ip[0], &ip[1], &ip[2], &ip[3], &port) != 5)
		return err_set(e, -EPROTO, "a mount of type " TYPE " whose source is %.100s", source);
	v->address = ip[0] << 24 | ip[1] << 16 | ip[2] << 8 | ip[3];
	v->port = port;
	v->token.len = VIEW_TOKEN_BYTES;
	v->token.data = must_alloc(VIEW_TOKEN_BYTES);
	for (size_t i = 0; i < VIEW_TOKEN_BYTES; i++) {
		unsigned byte;

		if (sscanf(slash + 1 + 2 * i, "%2x", &byte) != 1)
			return err_set(e, -EPROTO, "a mount of type " TYPE " whose source is %.100s", source);
		v->token.data[i] = (uint8_t)byte;
	}
	return 0;
}

static int take_line(const struct line *l, Gw__View **v, struct err *e)
{
	unsigned long index = l->root[0] == '/' ? strtoul(l->root + 1, NULL, 10) : VIEW_DIRECTORIES_MAX;
	int ret;

	if (strcmp(l->type, TYPE) || index >= VIEW_DIRECTORIES_MAX)
		return 0;
	if (!*v) {
		*v = must_alloc(sizeof(**v));
		gw__view__init(*v);
		(*v)->directories = must_alloc(VIEW_DIRECTORIES_MAX * sizeof(*(*v)->directories));
		ret = take_source(l->source, *v, e);
		if (ret < 0)
			return ret;
	}
	/* In the order of their numbers, which need not be that of the lines. */
	while ((*v)->n_directories <= index)
		string_set(&(*v)->directories[(*v)->n_directories++], "");
	string_set(&(*v)->directories[index], l->where);
	return 0;
}

int view_read(pid_t pid, Gw__View **ret, struct err *e)
{
	cleanup_fclose FILE *f = open_mounts(pid);
	cleanup_free char *text = NULL;
	static struct line l;
	Gw__View *v = NULL;
	size_t size = 0;
	int code = f ? 0 : err_sys(e, -errno, "the mounts of process %d", pid);

	*ret = NULL;
	while (f && code == 0 && getline(&text, &size, f) > 0)
		if (parse(text, &l))
			code = take_line(&l, &v, e);
	if (v && code == 0)
		code = view_validate(v, e);
	if (code < 0 && v)
		gw__view__free_unpacked(v, NULL);
	else
		*ret = v;
	return code;
}

void view_enter(pid_t pid, const Gw__View *v)
{
	char path[PATH_MAX + 32];
	struct stat st;

	view_use(v);
	snprintf(path, sizeof(path), "/proc/%d/root%s", pid, v->directories[0]);
	if (stat(path, &st) == 0)
		device = st.st_dev;
}

int view_validate(const Gw__View *v, struct err *e)
{
	if (v->token.len != VIEW_TOKEN_BYTES || !v->n_directories || v->n_directories > VIEW_DIRECTORIES_MAX || !v->port || v->port > 65535 || !v->address)
		return err_set(e, -EBADMSG, "a view of %zu directories that cannot be", v->n_directories);
	for (size_t i = 0; i < v->n_directories; i++) {
		const char *d = v->directories[i];

		if (d[0] != '/' || !d[1] || strlen(d) >= PATH_MAX || strstr(d, "/../") || path_below(d, "/proc") || path_below(d, "/sys"))
			return err_set(e, -EBADMSG, "a view with the directory \"%.100s\"", d);
	}
	return 0;
}

bool view_has(const char *path)
{
	return view_covers(used, path);
}

bool view_covers(const Gw__View *v, const char *path)
{
	for (size_t i = 0; v && i < v->n_directories; i++)
		if (path_below(path, v->directories[i]))
			return true;
	return false;
}

struct sockaddr_in view_address(const Gw__View *v)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)v->port), .sin_addr.s_addr = htonl(v->address) };
}

/* --- which directory --- */

static bool is_listed(const char *name, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(name, list[i]) == 0)
			return true;
	return false;
}

/* The mount that the path is on: the longest mount point above it, the last one of those. */
static bool find_mount(const char *path, struct line *best)
{
	cleanup_fclose FILE *f = open_mounts(getpid());
	cleanup_free char *text = NULL;
	static struct line l;
	size_t size = 0;
	bool found = false;

	while (f && getline(&text, &size, f) > 0)
		if (parse(text, &l) && (strcmp(l.where, "/") == 0 || path_below(path, l.where)) && (!found || strlen(l.where) >= strlen(best->where))) {
			*best = l;
			found = true;
		}
	return found;
}

bool view_directory_for(const char *path, char *ret)
{
	static struct line on;
	struct stat st;
	size_t len;

	if (path[0] != '/' || !find_mount(path, &on) || ns_mount_is_kernels(on.type) || is_listed(on.type, of_all, ARRAY_SIZE(of_all)))
		return false;
	if (strcmp(on.where, "/") == 0) {
		len = 1 + strcspn(path + 1, "/");
		if (path_below(path, "/var") && path[len]) /* which has a bit of everything */
			len += 1 + strcspn(path + len + 1, "/");
		snprintf(ret, PATH_MAX, "%.*s", (int)len, path);
	} else {
		snprintf(ret, PATH_MAX, "%s", on.where);
	}
	for (size_t i = 0; i < ARRAY_SIZE(of_hosts); i++)
		if (path_below(ret, of_hosts[i]))
			return false;
	return strcmp(ret, "/") && stat(ret, &st) == 0 && S_ISDIR(st.st_mode);
}

/* --- the destination --- */

struct plan {
	const Gw__View *v;
	int fuse;
};

static int mount_whole(const struct plan *p, struct err *e)
{
	const Gw__View *v = p->v;
	char source[128], options[160];
	size_t len;

	len = (size_t)snprintf(source, sizeof(source), "%u.%u.%u.%u:%u/", v->address >> 24, v->address >> 16 & 255, v->address >> 8 & 255, v->address & 255, v->port);
	for (size_t i = 0; i < VIEW_TOKEN_BYTES; i++)
		len += (size_t)snprintf(source + len, sizeof(source) - len, "%02x", v->token.data[i]);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%u", p->fuse, MAX_READ);
	if (mkdir(TOP, 0700) < 0 && errno != EEXIST)
		return err_sys(e, errno, "%s", TOP);
	return mount(source, TOP, TYPE, admission_is_limited() ? MS_NOSUID | MS_NODEV : 0, options) < 0 ? err_sys(e, errno, "mounting the files of home (is FUSE in this kernel?)") : 0;
}

/* A directory that this host does not have has no place for a mount. */
static int make_place(const char *path, struct err *e)
{
	char part[PATH_MAX];
	struct stat st;

	for (const char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", slash ? (int)(slash - path) : (int)strlen(path), path);
		if (stat(part, &st) < 0 && mkdir(part, 0755) < 0)
			return err_sys(e, errno, "making %s", part);
		if (!slash)
			return 0;
	}
}

static int place_directories(const struct plan *p, struct err *e)
{
	int trees[VIEW_DIRECTORIES_MAX], ret = 0;
	size_t n = p->v->n_directories;

	for (size_t i = 0; i < n; i++) {
		char path[64];

		snprintf(path, sizeof(path), TOP "/%zu", i);
		trees[i] = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		if (trees[i] < 0)
			return err_sys(e, errno, "%s, which home serves", p->v->directories[i]);
	}
	if (umount2(TOP, MNT_DETACH) < 0)
		return err_sys(e, errno, "%s", TOP);
	for (size_t i = 0; i < n && ret == 0; i++) {
		ret = make_place(p->v->directories[i], e);
		if (ret == 0 && syscall(SYS_move_mount, trees[i], "", AT_FDCWD, p->v->directories[i], MOVE_MOUNT_F_EMPTY_PATH) < 0)
			ret = err_sys(e, errno, "mounting %s of home", p->v->directories[i]);
		close(trees[i]);
	}
	return ret;
}

static int make(const void *arg, pid_t *unused, struct err *e)
{
	const struct plan *p = arg;
	int ret;

	/* What the host mounts later appears here, too, and nothing of this there. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return err_sys(e, errno, "a mount namespace");
	ret = mount_whole(p, e);
	return ret < 0 ? ret : place_directories(p, e);
}

int view_make(const Gw__View *v, int fuse, struct ns_made *made, struct err *e)
{
	const struct plan p = { v, fuse };

	return ns_hold(make, &p, true, made, e);
}
