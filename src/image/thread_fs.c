/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* thread_fs.c - threads with a working directory of their own; see thread_fs.h */
#include "image/thread_fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/cwd.h"
#include "image/ns_info.h"
#include "image/process.h"

/* --- source --- */

static int read_path(pid_t pid, pid_t tid, const char *name, char ret[PATH_MAX])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%d/task/%d/%s", (int)pid, (int)tid, name);
	n = readlink(link, ret, PATH_MAX - 1);
	ret[MAX(n, 0)] = 0;
	return n < 0 ? -errno : 0;
}

static int read_umask(pid_t pid, pid_t tid, uint32_t *ret)
{
	char path[64], text[1024];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)pid, (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	text[MAX(n, 0)] = 0;
	return process_read_umask(text, ret) ? 0 : -ESRCH;
}

static bool is_there(pid_t pid, pid_t tid, const char *path)
{
	char link[64], full[PATH_MAX + 64];
	struct stat st, there;

	snprintf(link, sizeof(link), "/proc/%d/task/%d/cwd", (int)pid, (int)tid);
	snprintf(full, sizeof(full), "/proc/%d/root%s", (int)pid, path);
	return stat(link, &st) == 0 && stat(full, &there) == 0 && st.st_dev == there.st_dev && st.st_ino == there.st_ino;
}

/* One that ends just now has nothing any more, as nothing of its own. */
int thread_fs_capture(pid_t pid, pid_t tid, Gw__Thread *msg, struct err *e)
{
	char root[PATH_MAX], other[PATH_MAX], cwd[PATH_MAX];
	const char *below;
	uint32_t mask;

	if (msg->own_fs)
		gw__thread_fs__free_unpacked(msg->own_fs, NULL);
	msg->own_fs = NULL;
	if (pid == tid || syscall(SYS_kcmp, pid, tid, KCMP_FS, 0, 0) <= 0)
		return 0;
	if (read_path(pid, pid, "root", root) < 0 || read_path(pid, tid, "root", other) < 0 || read_path(pid, tid, "cwd", cwd) < 0 || read_umask(pid, tid, &mask) < 0)
		return 0;
	below = path_below(cwd, root);
	if (strcmp(root, other) != 0)
		return err_set(e, -EBUSY, "thread %d has a root directory of its own, and such threads cannot move yet", (int)tid);
	if (!below || !is_there(pid, tid, *below ? below : "/"))
		return err_set(e, -EBUSY, "thread %d has a working directory of its own to which no path leads, and such threads cannot move yet", (int)tid);
	msg->own_fs = must_alloc(sizeof(*msg->own_fs));
	gw__thread_fs__init(msg->own_fs);
	string_set(&msg->own_fs->cwd, *below ? below : "/");
	msg->own_fs->umask = mask;
	return 0;
}

int thread_fs_offer(pid_t pid, pid_t tid, Gw__Thread *msg, struct refusals *r, struct err *e)
{
	struct err why = ERR_INIT;
	int ret = thread_fs_capture(pid, tid, msg, &why);

	if (ret != -EBUSY)
		return ret < 0 ? err_set(e, ret, "%s", why.message) : 0;
	refusals_add(r, "task.directory-own", why.message, "let the thread end first", "thread %d", (int)tid);
	return 0;
}

int thread_fs_check(pid_t tid, const Gw__Thread *msg, pid_t other, const Gw__Thread *other_msg, struct err *e)
{
	if (!msg->own_fs || !other_msg->own_fs || syscall(SYS_kcmp, tid, other, KCMP_FS, 0, 0) != 0)
		return 0;
	return err_set(e, -EBUSY, "threads %d and %d have a working directory in common that is not their process's, and such threads cannot move yet", (int)other, (int)tid);
}

/* --- destination --- */

int thread_fs_validate(const Gw__Thread *msg, struct err *e)
{
	if (msg->own_fs && (msg->own_fs->cwd[0] != '/' || strlen(msg->own_fs->cwd) >= PATH_MAX || msg->own_fs->umask > 0777))
		return err_set(e, -EBADMSG, "thread %d: working directory or umask", msg->tid);
	return 0;
}

void thread_fs_validate_here(const Gw__Thread *msg, const Gw__Process *process, struct refusals *r)
{
	char path[2 * PATH_MAX];
	Gw__Process as = *process;

	if (!msg->own_fs)
		return;
	snprintf(path, sizeof(path), "%s%s", strcmp(process->root, "/") != 0 ? process->root : "", msg->own_fs->cwd);
	as.cwd = path;
	as.cwd_removed = NULL;
	cwd_validate_here(&as, r);
}

void thread_fs_plan(struct batch *b, const Gw__Thread *msg)
{
	if (!msg->own_fs)
		return;
	batch_call(b, "unshare(CLONE_FS)", SYS_unshare, CLONE_FS);
	batch_call(b, "chdir", SYS_chdir, batch_string(b, msg->own_fs->cwd));
	batch_call(b, "umask", SYS_umask, msg->own_fs->umask);
}
