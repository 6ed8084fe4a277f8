/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_survey.c - the mounts of a unit, with a descriptor of each one's root
 *
 * Theory of operation: a path leads only to what lies on top. So a child makes a copy of the unit's mount namespace for itself, takes the copy apart from the
 * leaves on, and opens the root of each mount just before it takes it off: then nothing lies on it, or on anything in it. It shares the worker's table of descriptors, where they
 * stay. The unit's own namespace is not touched; the copy ends with the child.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/notes.h"
#include "image/ns_mount.h"

struct found {
	int code; /* of the child */
	size_t n;
	int fds[NS_MOUNTS_MAX];
};

#define HIDDEN (-2) /* of fds */

/*
 * In a user namespace of the unit's own, what came from outside cannot be taken off. If nothing lies on it, its path leads to it all the same. What it lies on itself is hidden for
 * good, from everybody in there: that is not there then.
 */
static bool is_root_of(int fd, int mount_id)
{
	struct statx st;

	return statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) == 0 && st.stx_mask & STATX_MNT_ID && st.stx_mnt_id == (uint64_t)mount_id;
}

/* The whole text of a file of /proc/self, whose number is that of another namespace's /proc. */
static int copy_lines(int proc, int lines, char **ret)
{
	cleanup_close int info = openat(proc, "self/mountinfo", O_RDONLY | O_CLOEXEC);
	cleanup_free char *text = NULL;

	if (info < 0 || read_whole(info, &text, NULL) < 0)
		return -errno;
	if (pwrite(lines, text, strlen(text), 0) != (ssize_t)strlen(text))
		return -EIO;
	if (ret)
		*ret = take_ptr(text);
	return 0;
}

/* Whether it is the root of a mount. */
static bool is_root(int fd)
{
	struct statx st;

	return statx(fd, "", AT_EMPTY_PATH, STATX_INO, &st) == 0 && st.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

static int take_apart(int proc, int lines, struct found *found)
{
	struct mount_infos l = { 0 };
	char *text = NULL;
	int ret = copy_lines(proc, lines, &text);

	if (ret < 0)
		return ret;
	if (mount_infos_parse(text, &l, NULL) < 0 || mount_infos_order(&l, NULL) < 0)
		return -EOPNOTSUPP;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	for (size_t i = l.n; i-- > 0;) {
		found->fds[i] = open(l.v[i].where, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (i && umount2(l.v[i].where, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && found->fds[i] >= 0 && !is_root_of(found->fds[i], l.v[i].id)) {
			bool locked = errno == EINVAL && is_root(found->fds[i]);

			close(found->fds[i]);
			found->fds[i] = locked ? HIDDEN : -1; /* -1: a place that has no path any more */
		}
	}
	for (size_t i = 1; i < l.n; i++)
		if (found->fds[i] < 0 && l.v[i].above >= 0 && found->fds[l.v[i].above] == HIDDEN)
			found->fds[i] = HIDDEN;
	found->n = l.n;
	return 0;
}

static void __attribute__((noreturn)) survey(int ns, int user, int proc, const int lines[2], struct found *found)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* In another user namespace the copy would be locked as a whole. EINVAL: it is the same. */
	if (setns(user, CLONE_NEWUSER) < 0 && errno != EINVAL)
		_exit(1);
	found->code = setns(ns, CLONE_NEWNS) < 0 ? -errno : copy_lines(proc, lines[0], NULL);
	if (found->code == 0)
		found->code = unshare(CLONE_NEWNS) < 0 ? -errno : take_apart(proc, lines[1], found);
	_exit(0);
}

/* What hides one lies on it: it lies where that one did, then. */
static void leave_out_hidden(struct mount_infos *l)
{
	cleanup_free int *places = must_alloc((l->n + 1) * sizeof(*places));
	size_t kept = 0;

	for (size_t i = 0; i < l->n; i++) {
		int above = l->v[i].above < 0 ? -1 : places[l->v[i].above];

		places[i] = l->v[i].fd == HIDDEN ? above : (int)kept;
		if (l->v[i].fd == HIDDEN)
			continue;
		l->v[kept] = l->v[i];
		l->v[kept++].above = above;
	}
	if (kept < l->n)
		notes_add("%zu mounts that lie under others for good, in a mount namespace of a user namespace, are not there.", l->n - kept);
	l->n = kept;
	for (size_t i = 0; i < l->n; i++) /* which point into what has moved */
		mount_info_set_at(l, i);
}

int ns_survey(pid_t pid, struct mount_infos *ret, char **ret_lines, struct err *e)
{
	struct found *found = mmap(NULL, sizeof(*found), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cleanup_close int own = memfd_create("mountinfo", MFD_CLOEXEC), copy = memfd_create("mountinfo", MFD_CLOEXEC), proc = open("/proc", O_PATH | O_CLOEXEC);
	cleanup_close int ns = -1, user = -1;
	cleanup_free char *text = NULL, *own_text = NULL;
	struct mount_infos l = { 0 };
	pid_t child;
	int code;

	ns = ns_open(pid, NS_MNT);
	user = ns < 0 ? -1 : ioctl(ns, NS_GET_USERNS); /* not the process's: it may have entered one since */
	if (found == MAP_FAILED || own < 0 || copy < 0 || proc < 0 || ns < 0 || user < 0)
		return err_sys(e, errno, "the mounts of process %d", pid);
	found->code = -ECHILD;
	child = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, NULL, NULL, 0);
	if (child == 0)
		survey(ns, user, proc, (int[]){ own, copy }, found);
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	code = child < 0 ? -errno : found->code;
	if (code == 0)
		code = read_whole(copy, &text, e);
	if (code == 0)
		code = read_whole(own, &own_text, e);
	if (code == 0)
		code = mount_infos_parse(text, &l, e);
	if (code == 0)
		code = mount_infos_order(&l, e);
	for (size_t i = 0; i < found->n; i++)
		if (code == 0 && l.n == found->n)
			l.v[i].fd = found->fds[i];
		else if (found->fds[i] >= 0)
			close(found->fds[i]);
	munmap(found, sizeof(*found));
	if (code < 0) {
		free(l.v);
		return err_sys(e, code, "the mounts of process %d", pid);
	}
	leave_out_hidden(&l);
	*ret = l;
	*ret_lines = take_ptr(own_text);
	return 0;
}
