/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file.c - the source's side of a descriptor table: which numbers there are, and which descriptions they refer to
 *
 * Theory of operation: the numbers are listed (getdents of /proc/PID/fd) and fetched (pidfd_getfd, 0.6 us). Which of them share a
 * description is found by keeping those seen sorted by (device, inode, kcmp order), so that 10,000 descriptors cost n log n
 * comparisons.
 *
 * The duplicates are dropped at the end of the offer's capture: while the process runs, a duplicate would keep a closed pipe from
 * ending, a closed connection from being shut and a closed file in its epoll sets. The freeze fetches them anew and they stay
 * until fdtable_release. A number that is of the same kind on the same file as before *adopts* the description of the offer:
 * whether it is that very description does not matter, since everything that can differ is sent again. The fdinfo of each number
 * is read; where its text is the same as before, nothing that it shows has changed (position, flags, FD_CLOEXEC, locks, counts,
 * epoll entries).
 */
#include "image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/file_state.h"

#define KEPT_INFO_MAX 2048
#define CLOEXEC_IN_FLAGS 02000000u

struct linux_dirent64 {
	uint64_t ino;
	int64_t off;
	unsigned short reclen;
	unsigned char type;
	char name[];
};

static int compare_fd(const void *a, const void *b)
{
	return *(const int *)a < *(const int *)b ? -1 : *(const int *)a > *(const int *)b;
}

/* The numbers of the process, ascending. */
static int list_numbers(struct fdtable *t, int **ret, size_t *ret_n, struct err *e)
{
	cleanup_free int *v = NULL;
	_Alignas(8) char buffer[32768];
	size_t n = 0, room = 0;
	bool sorted = true;
	long len;

	if (lseek(t->fd_dir, 0, SEEK_SET) < 0)
		return err_sys(e, -errno, "pid %d: rewinding its list of descriptors", (int)t->pid);
	while ((len = syscall(SYS_getdents64, t->fd_dir, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < len;) {
			const struct linux_dirent64 *entry = (const void *)(buffer + at);

			at += entry->reclen;
			if (entry->name[0] == '.')
				continue;
			if (n == room) {
				int *grown = realloc(v, (room = room ? room * 2 : 64) * sizeof(*v));

				if (!grown)
					return err_set(e, -ENOMEM, "no memory for a list of %zu descriptors", room);
				v = grown;
			}
			v[n] = atoi(entry->name);
			sorted = sorted && (!n || v[n] > v[n - 1]);
			n++;
		}
	}
	if (len < 0)
		return err_sys(e, -errno, "pid %d: reading its list of descriptors", (int)t->pid);
	if (!sorted)
		qsort(v, n, sizeof(*v), compare_fd);
	*ret = take_ptr(v);
	*ret_n = n;
	return 0;
}

/* Our own pid, without a system call for each comparison. */
static pid_t self_pid;

/* Order of two duplicates of the worker: by file, then as the kernel orders descriptions. 0: the same description. */
static int compare_held(const struct fd_held *a, const struct fd_held *b)
{
	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	switch (syscall(SYS_kcmp, self_pid, self_pid, KCMP_FILE, a->fd, b->fd)) {
	case 0:
		return 0;
	case 1:
		return -1;
	default:
		return 1;
	}
}

/* Position of `held` in t->order; *ret_found says whether its description is there. */
static size_t order_find(const struct fdtable *t, const struct fd_held *held, bool *ret_found)
{
	size_t low = 0, high = t->n_order;

	*ret_found = false;
	while (low < high) {
		size_t middle = (low + high) / 2;
		int c = compare_held(held, &t->held[t->order[middle]]);

		if (c == 0) {
			*ret_found = true;
			return middle;
		}
		if (c < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static void order_insert(struct fdtable *t, uint32_t desc, size_t at)
{
	memmove(&t->order[at + 1], &t->order[at], (t->n_order - at) * sizeof(*t->order));
	t->order[at] = desc;
	t->n_order++;
}

static uint32_t add_desc(struct fdtable *t, const struct fd_held *held)
{
	size_t n = t->msg->n_descs;
	Gw__FdDesc *d = fd_alloc(sizeof(*d));

	gw__fd_desc__init(d);
	if ((n & (n - 1)) == 0) {
		size_t room = n ? n * 2 : 1;

		t->held = realloc(t->held, room * sizeof(*t->held));
		t->order = realloc(t->order, room * sizeof(*t->order));
		if (!t->held || !t->order)
			abort();
	}
	t->held[n] = *held;
	fd_append(&t->msg->descs, &t->msg->n_descs, d);
	return (uint32_t)n;
}

/* Whether `got`, found at a number of description `desc`, is of the same kind on the same file, so that only what is sent again differs. */
static bool may_adopt(const struct fdtable *t, uint32_t desc, const struct fd_held *got)
{
	const struct fd_held *was = &t->held[desc];
	const Gw__FdDesc *d = t->msg->descs[desc];
	int flags;

	if (was->closed || was->fd >= 0 || was->dev != got->dev || was->ino != got->ino)
		return false;
	flags = fcntl(got->fd, F_GETFL);
	if (flags < 0 || (((uint32_t)flags ^ d->flags) & (O_ACCMODE | O_PATH)))
		return false;
	return was->refused || fdtable_same_kind(d, got->fd);
}

/* Fetches a number. Returns 1, or 0 when the process has closed it meanwhile. */
static int fetch_number(struct fdtable *t, int fd, struct fd_held *ret, struct err *e)
{
	struct fd_held held = { .fd = (int)syscall(SYS_pidfd_getfd, t->pidfd, fd, 0) };
	struct stat st;

	if (held.fd < 0 && errno == EBADF)
		return 0;
	if (held.fd < 0 && errno == EMFILE)
		return err_set(e, -EMFILE, "pid %d: more descriptors than this daemon may hold; raise its LimitNOFILE", (int)t->pid);
	if (held.fd < 0 || fstat(held.fd, &st) < 0) {
		int r = err_sys(e, -errno, "pid %d: fetching its descriptor %d", (int)t->pid, fd);

		close_fdp(&held.fd);
		return r;
	}
	held.dev = st.st_dev;
	held.ino = st.st_ino;
	*ret = held;
	return 1;
}

/*
 * Decides which description `held` is. First for all numbers without searching (search false): what was known before and may be
 * adopted; returns false for the others. Then, with the order checked, by searching; a duplicate that is not needed is closed
 * then.
 */
static bool assign_number(struct fdtable *t, struct fd_held *held, struct fd_seen *old, bool search, uint32_t *ret_desc)
{
	bool found;
	size_t at;

	if (!search) {
		if (!old)
			return false;
		*ret_desc = old->desc;
		if (may_adopt(t, old->desc, held)) {
			t->held[old->desc].fd = held->fd;
			return true;
		}
		return !t->held[old->desc].closed && t->held[old->desc].fd >= 0 && compare_held(held, &t->held[old->desc]) == 0;
	}
	at = order_find(t, held, &found);
	if (found) {
		*ret_desc = t->order[at];
		close(held->fd);
	} else if (old && may_adopt(t, old->desc, held)) {
		*ret_desc = old->desc;
		t->held[old->desc].fd = held->fd;
		order_insert(t, old->desc, at);
	} else {
		*ret_desc = add_desc(t, held);
		order_insert(t, *ret_desc, at);
	}
	return true;
}

/*
 * Reduces the order of the last capture to what has been adopted, and checks that it still is one: two descriptions of then may
 * be one now, or the kernel may have put others in their place. n comparisons.
 */
static bool order_still_holds(struct fdtable *t)
{
	size_t kept = 0;

	for (size_t i = 0; i < t->n_order; i++) {
		uint32_t desc = t->order[i];

		if (t->held[desc].fd < 0)
			continue;
		if (kept && compare_held(&t->held[t->order[kept - 1]], &t->held[desc]) >= 0)
			return false;
		t->order[kept++] = desc;
	}
	t->n_order = kept;
	return true;
}

static void drop_seen(struct fdtable *t, struct fd_seen *s)
{
	if (s->info >= 0)
		t->kept_info--;
	close_fdp(&s->info);
	free(s->text);
	s->text = NULL;
}

/* A number of this capture. */
struct fetched {
	struct fd_held held;
	struct fd_seen *old; /* what the number was, or NULL */
	uint32_t desc;
	int fd;
	bool assigned;
};

/* Fetches all numbers. */
static int fetch_all(struct fdtable *t, const int *numbers, size_t n, struct fetched *got, size_t *ret_n, struct err *e)
{
	size_t n_got = 0, j = 0;

	for (size_t i = 0; i < n; i++) {
		struct fetched *f = &got[n_got];
		int r;

		while (j < t->n_seen && t->seen[j].fd < numbers[i])
			j++;
		*f = (struct fetched){ .fd = numbers[i], .old = j < t->n_seen && t->seen[j].fd == numbers[i] ? &t->seen[j] : NULL };
		r = fetch_number(t, numbers[i], &f->held, e);
		if (r < 0) {
			while (n_got)
				close(got[--n_got].held.fd);
			return r;
		}
		n_got += (size_t)r;
	}
	*ret_n = n_got;
	return 0;
}

static void assign_all(struct fdtable *t, struct fetched *got, size_t n)
{
	bool holds;

	for (size_t i = 0; i < n; i++)
		got[i].assigned = assign_number(t, &got[i].held, got[i].old, false, &got[i].desc);
	holds = order_still_holds(t);
	for (size_t i = 0; i < n; i++) {
		struct fd_held *adopted = got[i].assigned ? &t->held[got[i].desc] : NULL;

		if (!adopted)
			continue;
		if (!holds && adopted->fd == got[i].held.fd)
			adopted->fd = -1; /* everything is decided anew */
		else if (holds && adopted->fd != got[i].held.fd)
			close_fdp(&got[i].held.fd);
	}
	if (!holds)
		t->n_order = 0;
	for (size_t i = 0; i < n; i++)
		if (!holds || !got[i].assigned)
			assign_number(t, &got[i].held, got[i].old, true, &got[i].desc);
}

/* Brings t->seen up to date with the process's numbers. */
static int sync_numbers(struct fdtable *t, bool *ret_changed, struct err *e)
{
	cleanup_free struct fetched *got = NULL;
	cleanup_free int *numbers = NULL;
	struct fd_seen *next;
	size_t n = 0, n_got = 0;
	int r = list_numbers(t, &numbers, &n, e);

	if (r < 0)
		return r;
	fdtable_release(t);
	self_pid = getpid();
	got = fd_alloc(n * sizeof(*got));
	r = fetch_all(t, numbers, n, got, &n_got, e);
	if (r < 0)
		return r;
	assign_all(t, got, n_got);
	next = fd_alloc(n_got * sizeof(*next));
	*ret_changed = n_got != t->n_seen;
	for (size_t i = 0; i < n_got; i++) {
		struct fd_seen *old = got[i].old;

		if (old && old->desc == got[i].desc) {
			next[i] = *old;
			*old = (struct fd_seen){ .fd = -1, .info = -1 };
			continue;
		}
		next[i] = (struct fd_seen){ .fd = got[i].fd, .info = -1, .desc = got[i].desc };
		*ret_changed = true;
	}
	/* What was taken over is empty by now. */
	for (size_t i = 0; i < t->n_seen; i++)
		drop_seen(t, &t->seen[i]);
	free(t->seen);
	t->seen = next;
	t->n_seen = n_got;
	return 0;
}

/* Reads the whole fdinfo of a number into t->text. */
static int read_info(struct fdtable *t, struct fd_seen *s, size_t *ret_len, struct err *e)
{
	cleanup_close int opened = -1;
	int fd = s->info;
	size_t len = 0;

	if (fd < 0) {
		char name[16];

		snprintf(name, sizeof(name), "%d", s->fd);
		fd = opened = openat(t->info_dir, name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return err_sys(e, -errno, "pid %d: fdinfo of its descriptor %d", (int)t->pid, s->fd);
	}
	for (;;) {
		ssize_t n;

		if (t->text_size - len < 1024) {
			char *grown = realloc(t->text, t->text_size * 2 + 4096);

			if (!grown)
				return err_set(e, -ENOMEM, "no memory for a descriptor's fdinfo");
			t->text = grown;
			t->text_size = t->text_size * 2 + 4096;
		}
		n = pread(fd, t->text + len, t->text_size - len - 1, (off_t)len);
		if (n < 0)
			return err_sys(e, -errno, "pid %d: fdinfo of its descriptor %d", (int)t->pid, s->fd);
		len += (size_t)n;
		/* A short text comes in one read. */
		if (n == 0 || len < 1024)
			break;
	}
	t->text[len] = '\0';
	*ret_len = len;
	if (opened >= 0 && t->kept_info < KEPT_INFO_MAX) {
		s->info = take_fd(&opened);
		t->kept_info++;
	}
	return 0;
}

static int sync_info(struct fdtable *t, struct fd_seen *s, struct err *e)
{
	struct fd_held *held = &t->held[s->desc];
	uint64_t flags;
	size_t len = 0;
	int r;

	if (t->msg->descs[s->desc]->kind == GW__FD_KIND__FD_TIMERFD)
		timerfd_refresh(held->fd);
	r = read_info(t, s, &len, e);
	if (r < 0)
		return r;
	if (s->text && len == s->text_len && !memcmp(s->text, t->text, len))
		return 0;
	free(s->text);
	s->text = fd_alloc(len + 1);
	memcpy(s->text, t->text, len + 1);
	s->text_len = len;
	if (!fdinfo_u64(s->text, "flags", 8, &flags))
		return err_set(e, -EPROTO, "fd %d: its fdinfo shows no flags", s->fd);
	s->cloexec = flags & CLOEXEC_IN_FLAGS;
	s->has_locks = fdinfo_find(s->text, "lock") != NULL;
	held->changed = true;
	return 0;
}

/* Descriptions that no number refers to any more are gone; each keeps its place in the image. */
static void drop_unused(struct fdtable *t)
{
	for (size_t i = 0; i < t->msg->n_descs; i++) {
		if (t->held[i].closed || t->held[i].fd >= 0)
			continue;
		t->held[i].closed = true;
		gw__fd_desc__free_unpacked(t->msg->descs[i], NULL);
		t->msg->descs[i] = fd_alloc(sizeof(Gw__FdDesc));
		gw__fd_desc__init(t->msg->descs[i]);
	}
}

static void write_slots(struct fdtable *t)
{
	Gw__FdTable *m = t->msg;

	if (m->n_slot_fd != t->n_seen) {
		free(m->slot_fd);
		free(m->slot_desc);
		free(m->slot_cloexec);
		m->slot_fd = fd_alloc(t->n_seen * sizeof(*m->slot_fd));
		m->slot_desc = fd_alloc(t->n_seen * sizeof(*m->slot_desc));
		m->slot_cloexec = fd_alloc(t->n_seen * sizeof(*m->slot_cloexec));
		m->n_slot_fd = m->n_slot_desc = m->n_slot_cloexec = t->n_seen;
	}
	for (size_t i = 0; i < t->n_seen; i++) {
		m->slot_fd[i] = (uint32_t)t->seen[i].fd;
		m->slot_desc[i] = t->seen[i].desc;
		m->slot_cloexec[i] = t->seen[i].cloexec;
	}
}

int fdtable_recapture(struct fdtable *t, struct fsfile_table *files, struct refusals *refusals, struct err *e)
{
	bool changed = false;
	int r = sync_numbers(t, &changed, e);

	for (size_t i = 0; i < t->msg->n_descs; i++) {
		t->held[i].uses = 0;
		t->held[i].changed = false;
	}
	for (size_t i = 0; i < t->n_seen && r >= 0; i++) {
		struct fd_held *held = &t->held[t->seen[i].desc];

		if (!held->uses++)
			held->slot = (uint32_t)i;
		r = sync_info(t, &t->seen[i], e);
	}
	if (r < 0)
		return r;
	if (changed)
		drop_unused(t);
	write_slots(t);
	return fdtable_capture_contents(t, changed, files, refusals, e);
}

/* Threads that have left the process's descriptor table (unshare(CLONE_FILES)) have one of their own, which is not captured. */
static void refuse_own_tables(pid_t pid, struct refusals *refusals)
{
	cleanup_closedir DIR *tasks = NULL;
	struct dirent *entry;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	tasks = opendir(path);
	while (tasks && (entry = readdir(tasks))) {
		pid_t tid = atoi(entry->d_name);

		if (tid > 0 && tid != pid && syscall(SYS_kcmp, pid, tid, KCMP_FILES, 0, 0) > 0)
			refusals_add(refusals, "fd.unshared",
				"it has a descriptor table of its own (unshare), and such threads cannot move yet",
				"let the thread end first", "thread %d", (int)tid);
	}
}

int fdtable_capture(pid_t pid, int pidfd, struct fdtable *ret, struct fsfile_table *files, struct refusals *refusals, struct err *e)
{
	struct fdtable t = FDTABLE_INIT;
	struct rlimit limit;
	char path[64];
	int r = 0;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	t.pid = pid;
	t.pidfd = pidfd;
	t.msg = fd_alloc(sizeof(*t.msg));
	gw__fd_table__init(t.msg);
	t.held = fd_alloc(sizeof(*t.held));
	t.order = fd_alloc(sizeof(*t.order));
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	t.fd_dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)pid);
	t.info_dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t.fd_dir < 0 || t.info_dir < 0)
		r = err_sys(e, -errno, "pid %d: reading its descriptors", (int)pid);
	/* While the process runs, a number may change between two looks at it; the next attempt sees it settled. */
	for (int attempt = 0; r == 0 && attempt < 4; attempt++) {
		size_t refused = refusals->n;

		r = fdtable_recapture(&t, files, refusals, e);
		if (r == 0 || refusals->n > refused || attempt == 3)
			break;
		r = 0;
	}
	fdtable_release(&t);
	t.offered = true;
	if (r == 0)
		refuse_own_tables(pid, refusals);
	if (r < 0) {
		fdtable_free(&t);
		return r;
	}
	*ret = t;
	return 0;
}

void fdtable_release(struct fdtable *t)
{
	for (size_t i = 0; t->msg && i < t->msg->n_descs; i++)
		close_fdp(&t->held[i].fd);
}

void fdtable_free(struct fdtable *t)
{
	fdtable_release(t);
	for (size_t i = 0; i < t->n_seen; i++)
		drop_seen(t, &t->seen[i]);
	if (t->msg)
		gw__fd_table__free_unpacked(t->msg, NULL);
	free(t->seen);
	free(t->held);
	free(t->order);
	free(t->pipe_ids);
	free(t->text);
	close_fdp(&t->fd_dir);
	close_fdp(&t->info_dir);
	*t = FDTABLE_INIT;
}
