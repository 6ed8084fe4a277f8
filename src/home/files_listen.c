/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files_listen.c - sockets at home in the place of a unit's; see files_listen.h */
#include "home/files_listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"
#include "home/door.h"

#define BACKLOG 128
#define WAIT_MS 20

struct listener {
	int fd;
	int file; /* O_PATH: its file */
	char path[sizeof(((struct door_connect *)0)->path)]; /* as the unit sees it, too */
};

static struct listener list[FILES_LISTEN_MAX];
static size_t n_list;
static char unit[DOOR_NAME_MAX];
static bool waits; /* for godwit-home */

void files_listen_for(const char *name)
{
	snprintf(unit, sizeof(unit), "%s", name);
}

static bool has_client(const struct listener *l)
{
	struct pollfd p = { l->fd, POLLIN, 0 };

	return poll(&p, 1, 0) > 0;
}

/* Those whose file has gone. */
static void sweep(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < n_list; i++) {
		struct stat st;

		if ((fstat(list[i].file, &st) == 0 && st.st_nlink) || has_client(&list[i])) {
			list[kept++] = list[i];
			continue;
		}
		close(list[i].fd);
		close(list[i].file);
	}
	n_list = kept;
}

/* A program may have renamed it. But one that the unit's next host has put aside has its name no more (image/unix_name.c). */
static void look_at_path(struct listener *l)
{
	char link[32], path[sizeof(l->path)];
	struct stat st;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", l->file);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0 || fstat(l->file, &st) < 0 || !st.st_nlink)
		return;
	path[n] = 0;
	if (!l->path[0] || !strstr(path, ".godwit-"))
		memcpy(l->path, path, sizeof(path));
}

int files_listen_make(int parent, const char *name, mode_t mode)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	int file;

	sweep();
	if (fd < 0 || n_list == FILES_LISTEN_MAX || snprintf(at.sun_path, sizeof(at.sun_path), "/proc/self/fd/%d/%s", parent, name) >= (int)sizeof(at.sun_path))
		return mknodat(parent, name, mode, 0);
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		if (errno == EADDRINUSE)
			errno = EEXIST;
		return -1;
	}
	file = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (file < 0 || fchmodat(parent, name, mode & 07777, 0) < 0 || listen(fd, BACKLOG) < 0) {
		close_fdp(&file);
		return -1;
	}
	list[n_list] = (struct listener){ .fd = take_fd(&fd), .file = file };
	look_at_path(&list[n_list++]);
	return 0;
}

size_t files_listen_poll(struct pollfd *p)
{
	for (size_t i = 0; i < n_list; i++)
		p[i] = (struct pollfd){ waits ? -1 : list[i].fd, POLLIN, 0 };
	return n_list;
}

int files_listen_timeout(int ms)
{
	return waits ? MIN(ms, WAIT_MS) : ms;
}

static void take_client(struct listener *l)
{
	cleanup_close int door = door_connect(unit, NULL), fd = -1;
	struct door_connect word = { .word = DOOR_CONNECT };
	struct ucred who;
	socklen_t len = sizeof(who);

	waits = door < 0;
	if (door < 0)
		return;
	fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
	look_at_path(l);
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
		return;
	memcpy(word.path, l->path, sizeof(word.path));
	word.uid = who.uid;
	word.gid = who.gid;
	door_send(door, &word, sizeof(word), &fd, 1, NULL);
}

void files_listen_step(const struct pollfd *p, size_t n)
{
	bool waited = waits;

	waits = false;
	for (size_t i = 0; i < n && i < n_list; i++)
		if (waited ? has_client(&list[i]) : p[i].revents != 0)
			take_client(&list[i]);
}

void files_listen_end(void)
{
	for (size_t i = 0; i < n_list; i++)
		for (waits = false; !waits && has_client(&list[i]);)
			take_client(&list[i]);
}
