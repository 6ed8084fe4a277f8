/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* caller.c - on whose behalf a unit is moved; see caller.h */
#include "migrate/caller.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"

/* By itself and for good. Whoever has no user id 0 any more has no capabilities (capabilities(7)). */
static int become(const struct caller *caller)
{
	return setgroups(0, NULL) < 0 || setresgid(caller->gid, caller->gid, caller->gid) < 0 || setresuid(caller->uid, caller->uid, caller->uid) < 0 ? -errno : 0;
}

/* auxv: opening it asks for PTRACE_MODE_READ, and shows it (proc_pid_auxv(5)). */
static void ask(const pid_t *pids, size_t n, bool *allowed)
{
	for (size_t i = 0; i < n; i++) {
		char path[64];
		int fd;

		snprintf(path, sizeof(path), "/proc/%d/auxv", (int)pids[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		allowed[i] = fd >= 0;
		if (fd >= 0)
			close(fd);
	}
}

static int ask_as(const struct caller *caller, const pid_t *pids, size_t n, bool *allowed, struct err *e)
{
	pid_t child = fork();
	int status = -1;

	if (child < 0)
		return err_sys(e, -errno, "fork");
	if (child == 0) {
		if (caller->uid == 0 || become(caller) < 0)
			_exit(1);
		ask(pids, n, allowed);
		_exit(0);
	}
	while (waitpid(child, &status, __WALL) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : err_set(e, -EPERM, "what user %u may touch could not be found out", caller->uid);
}

static void refuse(pid_t pid, const struct caller *caller, struct refusals *r)
{
	char path[32], cause[160];
	struct stat st = { .st_uid = 0 };

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st) == 0 && st.st_uid != caller->uid)
		snprintf(cause, sizeof(cause), "it is of user %u, or may not be looked into, and you are user %u", st.st_uid, caller->uid);
	else
		snprintf(cause, sizeof(cause), "it has, or had, other ids or privileges than you, user %u, have", caller->uid);
	refusals_add(r, "task.not-yours", cause, "let root move it, or a member of the group that godwit.conf names in [access]", "process %d", (int)pid);
}

int caller_check(const struct caller *caller, const pid_t *pids, size_t n, struct refusals *r, struct err *e)
{
	bool *allowed;
	int ret;

	if (!caller || !caller->limited || !n)
		return 0;
	allowed = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (allowed == MAP_FAILED)
		return err_sys(e, -errno, "mmap");
	ret = ask_as(caller, pids, n, allowed, e);
	for (size_t i = 0; i < n && ret == 0; i++)
		if (!allowed[i] && !(kill(pids[i], 0) < 0 && errno == ESRCH))
			refuse(pids[i], caller, r);
	munmap(allowed, n);
	return ret;
}
