/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tree_watch.c - whether a unit's processes are still those that were seen, in the freeze; see tree.h
 *
 * Theory of operation: a process that was born since must have a parent that is known, and that one stands still by now: so one look at each list of children is
 * enough. Where no number was given to any task since the table was read (ns_last_pid) nobody was born. The lists, one a thread, are opened before; those of threads
 * made since are added by who knows them (tree_watch_thread), and without that the answer is that something has changed. Who has ended is noticed by whoever stops it, but nobody
 * stops a zombie: by its pidfd it is seen that it still waits, or else one that was waited for and one that was born would make the same number of children.
 */
#include "image/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

struct list_of_children {
	int fd;
	pid_t tid;
	uint32_t parent;
};

struct tree_watch {
	const struct tree *t;
	struct list_of_children *lists; /* one a thread */
	size_t nlists;
	struct watched {
		pid_t pgid, sid;        /* as godwitd sees them */
		int task_fd;            /* its directory of threads; -1: zombie */
		int zombie_fd;          /* its pidfd; -1: not one */
		uint32_t nthreads, nchildren;
		size_t first;           /* of its lists: nthreads of them, of the threads that it had at the beginning */
		bool told;              /* of all threads that it has now */
	} *v;
	int last_pid_fd;
	long last_pid;
};

void tree_watch_free(struct tree_watch *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < w->nlists; i++)
		close_fdp(&w->lists[i].fd);
	for (size_t i = 0; w->v && i < w->t->n; i++) {
		close_fdp(&w->v[i].task_fd);
		close_fdp(&w->v[i].zombie_fd);
	}
	close_fdp(&w->last_pid_fd);
	free(w->lists);
	free(w->v);
	free(w);
}

static long read_last_pid(const struct tree_watch *w)
{
	char text[32];
	ssize_t n = pread(w->last_pid_fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return -1;
	text[n] = 0;
	return atol(text);
}

static uint32_t count_threads(const struct watched *v)
{
	struct stat st;

	return fstat(v->task_fd, &st) < 0 ? 0 : (uint32_t)st.st_nlink - 2;
}

static int add_list(struct tree_watch *w, uint32_t parent, pid_t tid, struct err *e)
{
	struct list_of_children *grown = realloc(w->lists, (w->nlists + 1) * sizeof(*grown));
	char path[64];

	if (!grown)
		return err_sys(e, ENOMEM, "watching processes");
	w->lists = grown;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", w->t->v[parent].host_pid, tid);
	w->lists[w->nlists++] = (struct list_of_children){ open(path, O_RDONLY | O_CLOEXEC), tid, parent };
	return 0;
}

static int open_lists(struct tree_watch *w, uint32_t parent, struct err *e)
{
	cleanup_closedir DIR *dir = NULL;
	char path[64];
	int ret = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", w->t->v[parent].host_pid);
	dir = opendir(path);
	w->v[parent].task_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	w->v[parent].first = w->nlists;
	for (struct dirent *d; dir && ret == 0 && (d = readdir(dir));) {
		if (d->d_name[0] == '.')
			continue;
		ret = add_list(w, parent, atoi(d->d_name), e);
		w->v[parent].nthreads++;
	}
	return ret;
}

int tree_watch_open(const struct tree *t, struct tree_watch **ret_watch, struct err *e)
{
	struct tree_watch *w = calloc(1, sizeof(*w));
	long last;
	int ret = 0;

	if (!w)
		return err_sys(e, ENOMEM, "watching processes");
	*w = (struct tree_watch){ .t = t, .v = calloc(t->n, sizeof(*w->v)), .last_pid_fd = open("/proc/sys/kernel/ns_last_pid", O_RDONLY | O_CLOEXEC) };
	if (!w->v)
		ret = err_sys(e, ENOMEM, "watching processes");
	w->last_pid = read_last_pid(w);
	for (uint32_t i = 0; i < t->n && ret == 0; i++) {
		w->v[i] = (struct watched){ .pgid = getpgid(t->v[i].host_pid), .sid = getsid(t->v[i].host_pid), .task_fd = -1,
					   .zombie_fd = t->v[i].zombie ? (int)syscall(SYS_pidfd_open, t->v[i].host_pid, 0) : -1 };
		if (tree_parent(t, i) != TREE_NONE)
			w->v[t->v[i].parent].nchildren++;
	}
	for (uint32_t i = 0; i < t->n && ret == 0; i++)
		if (!t->v[i].zombie)
			ret = open_lists(w, i, e);
	if (ret < 0) {
		tree_watch_free(w);
		return ret;
	}
	*ret_watch = w;
	/* What happened between the reading of the table and the opening of the lists. */
	last = w->last_pid;
	w->last_pid = -1;
	ret = tree_watch_changed(w, e);
	if (ret == 0)
		w->last_pid = last;
	return ret < 0 ? ret : 0;
}

/* Adds up how many children are in a list. */
static int count_children(const struct tree_watch *w, const struct list_of_children *l, uint32_t *counts, struct err *e)
{
	char text[4096];
	off_t at = 0;
	ssize_t n;
	bool in_number = false;

	if (l->fd < 0)
		return 0;
	while ((n = pread(l->fd, text, sizeof(text), at)) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			bool digit = text[i] >= '0' && text[i] <= '9';

			counts[l->parent] += digit && !in_number;
			in_number = digit;
		}
		at += n;
	}
	if (n < 0 && errno != ESRCH)
		return err_sys(e, errno, "the children of process %d", w->t->v[l->parent].host_pid);
	return 0;
}

static bool somebody_moved(const struct tree_watch *w)
{
	for (size_t i = 0; i < w->t->n; i++)
		if (getpgid(w->t->v[i].host_pid) != w->v[i].pgid || getsid(w->t->v[i].host_pid) != w->v[i].sid)
			return true;
	return false;
}

/* Whether each zombie still waits for its parent. */
static bool zombies_are_there(const struct tree_watch *w)
{
	for (size_t i = 0; i < w->t->n; i++)
		if (w->t->v[i].zombie && syscall(SYS_pidfd_send_signal, w->v[i].zombie_fd, 0, NULL, 0) < 0)
			return false;
	return true;
}

bool tree_watch_idle(const struct tree_watch *w)
{
	return w->last_pid >= 0 && read_last_pid(w) == w->last_pid;
}

int tree_watch_thread(struct tree_watch *w, uint32_t i, size_t near, pid_t tid, struct err *e)
{
	struct watched *v = &w->v[i];

	v->told = true;
	for (size_t k = 0; k < v->nthreads; k++)
		if (w->lists[v->first + (near + k) % v->nthreads].tid == tid)
			return 0;
	return add_list(w, i, tid, e);
}

void tree_watch_agent(struct tree_watch *w, uint32_t i, int n)
{
	if (i != TREE_NONE)
		w->v[i].nchildren += (uint32_t)n;
}

int tree_watch_changed(struct tree_watch *w, struct err *e)
{
	cleanup_free uint32_t *counts = NULL;
	int ret = 0;

	if (somebody_moved(w) || !zombies_are_there(w))
		return 1;
	if (tree_watch_idle(w))
		return 0;
	counts = calloc(w->t->n, sizeof(*counts));
	if (!counts)
		return err_sys(e, ENOMEM, "watching processes");
	for (size_t i = 0; i < w->nlists && ret == 0; i++)
		ret = count_children(w, &w->lists[i], counts, e);
	for (size_t i = 0; i < w->t->n && ret == 0; i++)
		if (counts[i] != w->v[i].nchildren || (w->v[i].task_fd >= 0 && !w->v[i].told && count_threads(&w->v[i]) != w->v[i].nthreads))
			ret = 1;
	return ret;
}
