/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unix_name.c - binding unix sockets to their names; see unix_name.h */
#include "image/unix_name.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"
#include "image/place.h"

#define PATH_AT offsetof(struct sockaddr_un, sun_path)

unsigned int unix_name_address(const ProtobufCBinaryData *name, struct sockaddr_un *ret)
{
	size_t len = MIN(name->len, sizeof(*ret));

	memset(ret, 0, sizeof(*ret));
	memcpy(ret, name->data, len);
	return (unsigned int)len;
}

bool unix_name_is_path(const ProtobufCBinaryData *name)
{
	return name->len > PATH_AT && name->data[PATH_AT] != '\0';
}

bool unix_name_equal(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

/* The path of a name, ended by a null byte, which the kernel does not insist on. */
static void path_of(const ProtobufCBinaryData *name, char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1])
{
	size_t len = name->len > PATH_AT ? name->len - PATH_AT : 0;

	len = MIN(len, sizeof(((struct sockaddr_un *)0)->sun_path));
	memcpy(path, name->data + PATH_AT, len);
	path[len] = '\0';
}

void unix_name_describe(const ProtobufCBinaryData *name, char *out, size_t size)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];

	if (name->len <= PATH_AT) {
		snprintf(out, size, "no name");
		return;
	}
	path_of(name, path);
	for (size_t i = 1; i < name->len - PATH_AT; i++)
		if (!path[0] && (path[i] < ' ' || path[i] > '~'))
			path[i] = '?';
	snprintf(out, size, "%s%s", path[0] ? "" : "@", path[0] ? path : path + 1);
}

int unix_name_validate(const ProtobufCBinaryData *name, struct err *e)
{
	struct sockaddr_un a;

	if (!name->len)
		return 0;
	if (name->len <= PATH_AT || name->len > sizeof(a))
		return err_set(e, -EPROTO, "unix socket: a name of %zu bytes", name->len);
	unix_name_address(name, &a);
	return a.sun_family == AF_UNIX ? 0 : err_set(e, -EPROTO, "unix socket: a name of another family");
}

/* --- the den --- */

static int den_make(struct unix_den *d, struct err *e)
{
	if (d->path[0])
		return 0;
	strcpy(d->path, "/tmp/godwit-names-XXXXXX");
	if (!mkdtemp(d->path)) {
		d->path[0] = '\0';
		return err_sys(e, -errno, "/tmp: a directory for names of sockets");
	}
	d->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	d->cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return d->root < 0 || d->cwd < 0 ? err_sys(e, -errno, "opening the root directory") : 0;
}

int unix_den_enter(struct unix_den *d, struct err *e)
{
	int r = den_make(d, e);

	if (r < 0)
		return r;
	if (chroot(d->path) < 0)
		return err_sys(e, -errno, "chroot to %s", d->path);
	if (chdir("/") < 0) {
		r = -errno;
		(void)!(fchdir(d->root) == 0 && chroot(".") == 0 && fchdir(d->cwd) == 0);
		return err_sys(e, r, "chroot to %s", d->path);
	}
	return 0;
}

/* A worker that cannot get out of the den is of no use: it ends, and with it the attempt. */
void unix_den_leave(const struct unix_den *d)
{
	if (fchdir(d->root) < 0 || chroot(".") < 0)
		abort();
	if (fchdir(d->cwd) < 0 && chdir("/") < 0)
		abort();
}

static void remember(struct unix_den *d, const char *path)
{
	for (size_t i = 0; i < d->n_made; i++)
		if (!strcmp(d->made[i], path))
			return;
	fd_append(&d->made, &d->n_made, fd_strdup(path));
}

/* Inside: the directories of a path. What fails will show at bind. */
static void make_parents(struct unix_den *d, char *path)
{
	for (char *slash = path; (slash = strchr(slash, '/')); slash++) {
		if (slash == path)
			continue;
		*slash = '\0';
		if (mkdir(path, 0700) == 0)
			remember(d, path);
		*slash = '/';
	}
}

void unix_den_address(size_t tag, uint8_t *buffer, ProtobufCBinaryData *ret_name)
{
	struct sockaddr_un *a = (void *)buffer;

	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	snprintf(a->sun_path, sizeof(a->sun_path), "/.%zu", tag);
	*ret_name = (ProtobufCBinaryData){ sizeof(*a), buffer };
}

int unix_den_bind(struct unix_den *d, int fd, const ProtobufCBinaryData *name, size_t tag, struct err *e)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1], text[200];
	struct sockaddr_un a;
	unsigned int len = unix_name_address(name, &a);
	int r = unix_den_enter(d, e);

	if (r < 0)
		return r;
	path_of(name, path);
	make_parents(d, path);
	unlink(path);
	if (bind(fd, (void *)&a, len) < 0) {
		r = -errno;
		unix_name_describe(name, text, sizeof(text));
		err_sys(e, r, "unix socket: the name %s", text);
	} else {
		snprintf(text, sizeof(text), "/.%zu", tag);
		if (rename(path, text) < 0)
			unlink(path);
		else
			remember(d, text);
	}
	unix_den_leave(d);
	return r;
}

int unix_den_connect(struct unix_den *d, int fd, size_t tag, struct err *e)
{
	struct sockaddr_un a;
	ProtobufCBinaryData name;
	int r = unix_den_enter(d, e);

	if (r < 0)
		return r;
	unix_den_address(tag, (uint8_t *)&a, &name);
	if (connect(fd, (void *)&a, sizeof(a)) < 0)
		r = err_sys(e, -errno, "unix socket: connecting to one without a file");
	unix_den_leave(d);
	return r;
}

void unix_den_clear(struct unix_den *d)
{
	if (d->path[0] && d->n_made && unix_den_enter(d, NULL) == 0) {
		/* What was made last lies deepest. */
		for (size_t i = d->n_made; i-- > 0;)
			(void)!(unlink(d->made[i]) == 0 || rmdir(d->made[i]) == 0);
		unix_den_leave(d);
	}
	for (size_t i = 0; i < d->n_made; i++)
		free(d->made[i]);
	free(d->made);
	if (d->path[0])
		rmdir(d->path);
	close_fdp(&d->root);
	close_fdp(&d->cwd);
	*d = UNIX_DEN_INIT;
}

/* --- files --- */

/* Where the file of a name is, from the root that it is bound in. */
static void inner_path(const Gw__FdUnix *u, char out[PATH_MAX])
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];

	path_of(&u->name, path);
	if (path[0] == '/')
		snprintf(out, PATH_MAX, "%s", path);
	else
		snprintf(out, PATH_MAX, "%s/%s", u->directory, path);
}

/* The same from everywhere: to be placed (place.h). False if it is too long. */
static bool full_path(const Gw__FdUnix *u, char out[PATH_MAX])
{
	char path[PATH_MAX];

	inner_path(u, path);
	return snprintf(out, PATH_MAX, "%s%s", u->root, path) < PATH_MAX;
}

static bool is_ours(unsigned long ino, const int *ours, size_t n)
{
	struct stat st;

	for (size_t i = 0; i < n; i++)
		if (ours[i] >= 0 && fstat(ours[i], &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == ino)
			return true;
	return false;
}

/*
 * Whether a socket of this network namespace, other than ours, is bound to the path. Connecting would disturb the source's own server
 * behind a shared file.
 */
static bool path_is_served(const char *path, const int *ours, size_t n)
{
	cleanup_fclose FILE *f = fopen("/proc/net/unix", "re");
	char line[512], at[256];
	unsigned long ino;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %*s %*s %*s %*s %*s %lu %255s", &ino, at) == 2 && !strcmp(at, path) && !is_ours(ino, ours, n))
			return true;
	return false;
}

int unix_place_check(const Gw__FdUnix *u, const int *ours, size_t n_ours, struct err *e)
{
	char path[PATH_MAX], full[PATH_MAX];
	struct stat st;

	inner_path(u, path);
	if (!full_path(u, full))
		return err_set(e, -ENAMETOOLONG, "unix socket %s: its path is too long to be reached", path);
	if (lstat(place_of(full), &st) < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "unix socket %s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EADDRINUSE, "unix socket %s: a file that is no socket is there on this host; move it away", path);
	if (path_is_served(path, ours, n_ours))
		return err_set(e, -EADDRINUSE, "unix socket %s: another process on this host uses the path; stop it first", path);
	return 0;
}

/* bind or connect where a relative name begins. */
static int call_there(const Gw__FdUnix *u, int (*call)(int, const struct sockaddr *, socklen_t), int fd)
{
	struct sockaddr_un a;
	unsigned int len = unix_name_address(&u->name, &a);
	cleanup_close int cwd = -1;
	int r;

	if (!unix_name_is_path(&u->name) || a.sun_path[0] == '/')
		return call(fd, (void *)&a, len) < 0 ? -errno : 0;
	cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (cwd < 0 || chdir(u->directory) < 0)
		return -errno;
	r = call(fd, (void *)&a, len) < 0 ? -errno : 0;
	if (fchdir(cwd) < 0 && chdir("/") < 0)
		abort();
	return r;
}

int unix_place_address(const Gw__FdUnix *u, uint8_t *buffer, ProtobufCBinaryData *ret_name, struct err *e)
{
	struct sockaddr_un *a = (void *)buffer;
	char path[PATH_MAX];

	inner_path(u, path);
	if (strlen(path) >= sizeof(a->sun_path))
		return err_set(e, -ENAMETOOLONG, "unix socket %s: its path is too long to be reached", path);
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	strcpy(a->sun_path, path);
	*ret_name = (ProtobufCBinaryData){ sizeof(*a), buffer };
	return 0;
}

static void aside_name(const char *path, char *out, size_t size)
{
	snprintf(out, size, "%s.godwit-%d", path, (int)getpid());
}

static int bind_inside(const Gw__FdUnix *u, int fd, char **ret_aside, struct err *e)
{
	char path[PATH_MAX], full[PATH_MAX], aside[PATH_MAX + 32], text[200];
	bool is_path = unix_name_is_path(&u->name);
	struct stat st;
	int r;

	*ret_aside = NULL;
	unix_name_describe(&u->name, text, sizeof(text));
	if (is_path) {
		inner_path(u, path);
		if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
			aside_name(path, aside, sizeof(aside));
			if (rename(path, aside) < 0)
				return err_sys(e, -errno, "unix socket %s: moving the old one aside", path);
			*ret_aside = fd_strdup(full_path(u, full) ? full : path);
		}
	}
	r = call_there(u, bind, fd);
	if (r == -EADDRINUSE)
		return err_set(e, r, "unix socket %s: another process on this host has the name; stop it first", text);
	if (r < 0)
		return err_sys(e, r, "unix socket: binding to %s", text);
	if (is_path && ((u->mode && chmod(path, u->mode) < 0) || lchown(path, u->uid, u->gid) < 0))
		return err_sys(e, -errno, "unix socket %s: its mode and owner", path);
	return 0;
}

int unix_place_bind(const Gw__FdUnix *u, int fd, char **ret_aside, struct err *e)
{
	int r = place_enter(u->root);

	if (r < 0)
		return err_sys(e, r, "the root of the unit");
	r = bind_inside(u, fd, ret_aside, e);
	place_leave();
	return r;
}

int unix_place_connect(const Gw__FdUnix *to, int fd, struct err *e)
{
	char text[200];
	int r = place_enter(to->root);

	if (r == 0) {
		r = call_there(to, connect, fd);
		place_leave();
	}

	if (r == 0)
		return 0;
	unix_name_describe(&to->name, text, sizeof(text));
	return err_sys(e, r, "unix socket: connecting to %s", text);
}

void unix_aside_remove(const char *path)
{
	char aside[PATH_MAX + 32];

	aside_name(place_of(path), aside, sizeof(aside));
	unlink(aside);
}

void unix_aside_restore(const char *path)
{
	char aside[PATH_MAX + 32];

	aside_name(place_of(path), aside, sizeof(aside));
	rename(aside, place_of(path));
}
