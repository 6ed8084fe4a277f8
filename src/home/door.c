/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* door.c - named sockets of processes that outlive godwitd; see door.h */
#include "home/door.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"

#define FDS_MAX 8

static char directory[PATH_MAX] = DOOR_DEFAULT_DIRECTORY;

void door_use_directory(const char *new_directory)
{
	snprintf(directory, sizeof(directory), "%s", new_directory);
}

void door_name_of_migration(const uint8_t mig_id[16], char name[DOOR_NAME_MAX])
{
	for (int i = 0; i < 16; i++)
		snprintf(name + 2 * i, 3, "%02x", mig_id[i]);
}

static int address_of(const char *name, struct sockaddr_un *ret, struct err *e)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strchr(name, '/') || snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/%s", directory, name) >= (int)sizeof(ret->sun_path))
		return err_set(e, -ENAMETOOLONG, "%s/%s: too long for a socket's path", directory, name);
	return 0;
}

/* A socket for that address. */
static int make_socket(const char *name, struct sockaddr_un *ret_at, struct err *e)
{
	int ret = address_of(name, ret_at, e), fd;

	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 ? err_sys(e, -errno, "socket") : fd;
}

int door_open(const char *name, struct err *e)
{
	struct sockaddr_un at;
	cleanup_close int fd = make_socket(name, &at, e);

	if (fd < 0)
		return fd;
	mkdir(directory, 0700);
	unlink(at.sun_path);
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 4) < 0)
		return err_sys(e, -errno, "%s", at.sun_path);
	return take_fd(&fd);
}

void door_remove(const char *name)
{
	struct sockaddr_un at;

	if (address_of(name, &at, NULL) == 0)
		unlink(at.sun_path);
}

void door_list(const char *prefix, int (*each)(const char *name, void *arg), void *arg)
{
	cleanup_closedir DIR *d = opendir(directory);
	struct dirent *item;

	while (d && (item = readdir(d)))
		if (!strncmp(item->d_name, prefix, strlen(prefix)) && each(item->d_name, arg))
			break;
}

int door_connect(const char *name, struct err *e)
{
	struct sockaddr_un at;
	cleanup_close int fd = make_socket(name, &at, e);

	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
		return take_fd(&fd);
	if (errno == ENOENT || errno == ECONNREFUSED)
		return err_set(e, -ENOENT, "%s: nobody listens there", at.sun_path);
	return err_sys(e, -errno, "%s", at.sun_path);
}

union control {
	struct cmsghdr align;
	char space[CMSG_SPACE(sizeof(int) * FDS_MAX)];
};

int door_send(int fd, const void *data, size_t len, const int *fds, size_t n_fds, struct err *e)
{
	union control control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds > FDS_MAX)
		return err_set(e, -E2BIG, "%zu descriptors", n_fds);
	if (n_fds) {
		struct cmsghdr *c;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? err_sys(e, -errno, "sending to a process of Godwit") : 0;
}

ssize_t door_receive(int fd, void *data, size_t len, int *ret_fds, size_t max_fds, size_t *ret_n_fds, struct err *e)
{
	union control control = { 0 };
	struct iovec iov = { data, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	size_t got = 0;

	if (ret_n_fds)
		*ret_n_fds = 0;
	if (n < 0)
		return err_sys(e, -errno, "receiving from a process of Godwit");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < count; i++) {
			int one;

			memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof(one));
			if (got < max_fds)
				ret_fds[got++] = one;
			else
				close(one);
		}
	}
	if (ret_n_fds)
		*ret_n_fds = got;
	return n;
}
