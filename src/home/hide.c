/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hide.c - an empty directory over the root of the mount namespace that a stub is in; see hide.h */
#include "home/hide.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/nsfs.h"

static bool is_in(pid_t pid, const pid_t *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == pid)
			return true;
	return false;
}

static bool has_others(pid_t stub, uint64_t id, const pid_t *unit, size_t n)
{
	cleanup_closedir DIR *proc = opendir("/proc");
	struct dirent *item;

	while (proc && (item = readdir(proc))) {
		pid_t pid = atoi(item->d_name);

		if (pid > 0 && pid != stub && !is_in(pid, unit, n) && ns_id(pid, NS_MNT) == id)
			return true;
	}
	return false;
}

/* Who enters has what lies uppermost as root. It must not get to the host's mounts of the same peer group. */
static int cover(int ns)
{
	if (setns(ns, CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_PRIVATE, NULL) < 0 ||
	    mount("godwit-away", "/", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0555,size=4k,nr_inodes=1") < 0)
		return errno;
	return 0;
}

int hide_mounts(pid_t stub, const pid_t *unit, size_t n, struct err *e)
{
	cleanup_close int ns = ns_open(stub, NS_MNT);
	uint64_t id = ns < 0 ? 0 : ns_id_of(ns);
	int status = 0;
	pid_t child;

	if (!id || id == ns_id(0, NS_MNT) || has_others(stub, id, unit, n))
		return 0;
	child = fork();
	if (child == 0)
		_exit(cover(ns));
	if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
		return err_sys(e, errno, "the mount namespace of process %d", stub);
	return WEXITSTATUS(status) ? err_sys(e, -WEXITSTATUS(status), "covering the mounts of process %d", stub) : 0;
}
