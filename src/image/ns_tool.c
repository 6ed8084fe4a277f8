/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_tool.c - see ns_tool.h */
#include "image/ns_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/bytes.h"

#define OUTPUT_MAX (4u << 20)

int net_tool_run(const char *const *arguments, int at, int fd)
{
	posix_spawn_file_actions_t actions;
	int status, ret;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	for (int i = 0; i < 3; i++)
		if (i == at)
			posix_spawn_file_actions_adddup2(&actions, fd, i);
		else
			posix_spawn_file_actions_addopen(&actions, i, "/dev/null", O_RDWR, 0);
	ret = posix_spawnp(&pid, arguments[0], &actions, NULL, (char *const *)(uintptr_t)arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (ret)
		return -ret;
	while ((ret = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
		;
	return ret < 0 ? -errno : WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

int net_tool_file(struct err *e)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	return fd < 0 ? err_sys(e, errno, "/tmp: a file for what the network's tools say") : fd;
}

int net_tool_save(const char *const *arguments, ProtobufCBinaryData *ret, struct err *e)
{
	cleanup_close int fd = net_tool_file(e);
	cleanup_free uint8_t *data = NULL;
	struct stat st;
	int status;

	if (fd < 0)
		return fd;
	status = net_tool_run(arguments, 1, fd);
	if (status == -ENOENT)
		return err_set(e, -ENOENT, "%s is not installed", arguments[0]);
	if (status || fstat(fd, &st) < 0 || st.st_size > OUTPUT_MAX)
		return err_set(e, -EIO, "%s %s failed (%d)", arguments[0], arguments[1], status);
	data = must_alloc((size_t)st.st_size + 1);
	if (pread(fd, data, (size_t)st.st_size, 0) != st.st_size)
		return err_sys(e, EIO, "what %s says", arguments[0]);
	bytes_set(ret, data, (size_t)st.st_size);
	return 0;
}
