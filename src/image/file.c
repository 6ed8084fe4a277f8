/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file.c - the source's side of the tables: which numbers there are in each process, and capturing all of them
 *
 * Theory of operation: the numbers are listed (getdents of /proc/PID/fd) and fetched (pidfd_getfd, 0.6 us), of all processes of the
 * unit; file_identity.c finds which of them share a description. A table that processes share (kcmp) is looked at once.
 *
 * While the unit runs, a duplicate would keep a closed pipe from ending, a closed connection from being shut and a closed file in its epoll sets: numbers are found by records then, and
 * there is one duplicate at a time (file_running.c), unless the kernel does not take the programs. The freeze fetches them anew and they stay
 * until fdtable_release. The fdinfo of each number is read; where its text is the same as before, nothing that it shows has changed
 * (position, flags, FD_CLOEXEC, locks, counts, epoll entries).
 *
 * Between offer and freeze the same is done several times, to no effect but that less is new in the freeze. Such a look may fail in the
 * middle, since the unit runs: what it has seen changed stays marked until it has been captured (held->changed, t->changed).
 */
#include "image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/file_shared.h"
#include "image/file_state.h"
#include "image/file_unix.h"
#include "image/process_check.h"
#include "image/socket_tcp.h"
#include "kern/tcp_peek.h"

#define CAPTURE_LOOKS 16
#define OWN_TABLE_LOOKS 3
#define FLAG_EXITING 0x4u /* PF_EXITING */

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

/* What became of a process that has ended meanwhile: the next attempt will find that out. */
static int gone(int error)
{
	return error == ESRCH || error == ENOENT ? -EAGAIN : -error;
}

/* The numbers of the process, ascending. */
static int list_numbers(const struct fd_view *view, int **ret, size_t *ret_n, struct err *e)
{
	cleanup_free int *v = NULL;
	_Alignas(8) char buffer[32768];
	size_t n = 0, room = 0;
	bool sorted = true;
	long len;

	if (lseek(view->fd_dir, 0, SEEK_SET) < 0)
		return err_sys(e, -errno, "pid %d: rewinding its list of descriptors", (int)view->pid);
	while ((len = syscall(SYS_getdents64, view->fd_dir, buffer, sizeof(buffer))) > 0) {
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
		return err_sys(e, gone(errno), "pid %d: reading its list of descriptors", (int)view->pid);
	if (!sorted)
		qsort(v, n, sizeof(*v), compare_fd);
	*ret = take_ptr(v);
	*ret_n = n;
	return 0;
}

int fdtable_fetch(const struct fd_view *view, int fd, struct fd_held *ret, struct err *e)
{
	struct fd_held held = { .fd = (int)syscall(SYS_pidfd_getfd, view->pidfd, fd, 0) };
	struct statx st;

	if (held.fd < 0 && errno == EBADF)
		return 0;
	if (held.fd < 0 && errno == EMFILE)
		return err_set(e, -EMFILE, "pid %d: more descriptors than this daemon may hold; raise its LimitNOFILE", (int)view->pid);
	/* What never changes about a file: where it is served by another host, that one is not asked. */
	if (held.fd < 0 || statx(held.fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) < 0) {
		int r = err_sys(e, gone(errno), "pid %d: fetching its descriptor %d", (int)view->pid, fd);

		close_fdp(&held.fd);
		return r;
	}
	held.dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	held.ino = st.stx_ino;
	*ret = held;
	return 1;
}

/* All numbers of this capture, process after process. */
struct numbers {
	struct fd_fetched *v;
	size_t n, room;
};

static void forget_numbers(struct numbers *all)
{
	while (all->n)
		close_fdp(&all->v[--all->n].held.fd);
	free(all->v);
}

static struct fd_fetched *next_number(struct numbers *all)
{
	if (all->n == all->room) {
		struct fd_fetched *grown = realloc(all->v, (all->room = all->room * 2 + 64) * sizeof(*grown));

		if (!grown)
			abort();
		all->v = grown;
	}
	return &all->v[all->n];
}

/*
 * Where a description was fetched already, of another process, that duplicate is enough, if it still is the same: many processes that
 * inherited the same would be more than this process may hold.
 */
static void find_like(const struct numbers *all, uint32_t *first, struct fd_fetched *f)
{
	uint32_t *at = f->old ? &first[f->old->desc] : NULL;

	if (!at)
		return;
	if (!*at) {
		*at = (uint32_t)all->n + 1;
	} else if (fdtable_same_held(&all->v[*at - 1].held, &f->held)) {
		f->like = *at;
		close_fdp(&f->held.fd);
	}
}

/* Fetches all numbers of one process. */
static int fetch_view(struct fdtable *t, uint32_t index, struct numbers *all, uint32_t *first, struct err *e)
{
	struct fd_view *view = &t->views[index];
	cleanup_free int *numbers = NULL;
	size_t n = 0, j = 0;
	int r = list_numbers(view, &numbers, &n, e);

	for (size_t i = 0; i < n && r >= 0; i++) {
		struct fd_fetched *f = next_number(all);

		while (j < view->n_seen && view->seen[j].fd < numbers[i])
			j++;
		*f = (struct fd_fetched){ .fd = numbers[i], .view = index };
		if (j < view->n_seen && view->seen[j].fd == numbers[i])
			f->old = &view->seen[j];
		r = fdtable_fetch(view, numbers[i], &f->held, e);
		if (r == 1)
			find_like(all, first, f);
		all->n += r == 1;
	}
	return r < 0 ? r : 0;
}

void fdtable_take_numbers(struct fdtable *t, struct fd_view *view, const struct fd_taken *got, size_t n)
{
	struct fd_seen *next = fd_alloc(n * sizeof(*next));

	t->changed = t->changed || n != view->n_seen;
	for (size_t i = 0; i < n; i++) {
		struct fd_seen *old = got[i].old;

		if (old && old->desc == got[i].desc) {
			next[i] = *old;
			*old = (struct fd_seen){ .fd = -1, .info = -1 };
			continue;
		}
		next[i] = (struct fd_seen){ .fd = got[i].fd, .info = -1, .desc = got[i].desc };
		t->changed = true;
	}
	/* What was taken over is empty by now. */
	for (size_t i = 0; i < view->n_seen; i++)
		fdtable_drop_seen(t, &view->seen[i]);
	free(view->seen);
	view->seen = next;
	view->n_seen = n;
}

/* Decides on those from `from` on. */
static void identify(struct fdtable *t, struct numbers *all, size_t from)
{
	fdtable_identify(t, all->v + from, all->n - from);
	for (size_t i = from; i < all->n; i++)
		all->v[i].held.fd = -1; /* the table's from here on */
}

static void take_all(struct fdtable *t, const struct numbers *all)
{
	cleanup_free struct fd_taken *taken = fd_alloc(all->n * sizeof(*taken));
	size_t at = 0;

	for (size_t i = 0; i < all->n; i++)
		taken[i] = (struct fd_taken){ all->v[i].old, all->v[i].desc, all->v[i].fd };
	for (uint32_t i = 0; i < t->n_views; i++) {
		size_t n = 0;

		while (at + n < all->n && all->v[at + n].view == i)
			n++;
		if (t->views[i].first == i)
			fdtable_take_numbers(t, &t->views[i], taken + at, n);
		at += n;
	}
}

/* Brings the numbers of all processes up to date. */
static int sync_numbers(struct fdtable *t, struct err *e)
{
	cleanup_free uint32_t *first = fd_alloc(t->msg->n_descs * sizeof(*first));
	bool is_first_look = t->msg->n_descs == 0;
	struct numbers all = { 0 };
	size_t at = 0;
	int r = 0;

	fdtable_release(t);
	t->holding = true;
	for (uint32_t i = 0; i < t->n_views && r == 0; i++) {
		at = all.n;
		if (t->views[i].fd_dir >= 0)
			r = fetch_view(t, i, &all, first, e);
		if (r == 0 && is_first_look)
			identify(t, &all, at);
	}
	if (r < 0) {
		forget_numbers(&all);
		return r;
	}
	if (!is_first_look)
		identify(t, &all, 0);
	take_all(t, &all);
	free(all.v);
	return 0;
}

/* Descriptions that no number refers to any more are gone; each keeps its place in the image. */
static void drop_unused(struct fdtable *t)
{
	for (size_t i = 0; i < t->msg->n_descs; i++) {
		if (t->held[i].closed || t->held[i].uses)
			continue;
		t->held[i].closed = true;
		gw__fd_desc__free_unpacked(t->msg->descs[i], NULL);
		t->msg->descs[i] = fd_alloc(sizeof(Gw__FdDesc));
		gw__fd_desc__init(t->msg->descs[i]);
	}
}

static void write_table(const struct fd_view *view, Gw__FdNumbers *m)
{
	if (m->n_fd != view->n_seen) {
		free(m->fd);
		free(m->desc);
		free(m->cloexec);
		m->fd = fd_alloc(view->n_seen * sizeof(*m->fd));
		m->desc = fd_alloc(view->n_seen * sizeof(*m->desc));
		m->cloexec = fd_alloc(view->n_seen * sizeof(*m->cloexec));
		m->n_fd = m->n_desc = m->n_cloexec = view->n_seen;
	}
	for (size_t i = 0; i < view->n_seen; i++) {
		m->fd[i] = (uint32_t)view->seen[i].fd;
		m->desc[i] = view->seen[i].desc;
		m->cloexec[i] = view->seen[i].cloexec;
	}
}

/* Whether processes that shared a table still do; that they have one in common from now on cannot be. */
static int check_sharers(const struct fdtable *t, struct err *e)
{
	for (uint32_t i = 0; i < t->n_views; i++) {
		const struct fd_view *view = &t->views[i], *first = &t->views[view->first];

		if (view != first && syscall(SYS_kcmp, first->pid, view->pid, KCMP_FILES, 0, 0) != 0)
			return err_set(e, -EAGAIN, "pid %d: has left the descriptor table that it shared; try again", (int)view->pid);
	}
	return 0;
}

static int sync_infos(struct fdtable *t, struct err *e)
{
	for (size_t i = 0; i < t->msg->n_descs; i++) {
		t->held[i].uses = 0;
		t->held[i].settled = t->held[i].same = false;
	}
	for (uint32_t i = 0; i < t->n_views; i++) {
		struct fd_view *view = &t->views[i];

		for (size_t k = 0; k < view->n_seen; k++) {
			struct fd_held *held = &t->held[view->seen[k].desc];
			int r;

			if (!held->uses++) {
				held->view = i;
				held->slot = (uint32_t)k;
			}
			r = fdtable_read_info(t, view, &view->seen[k], e);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static void forget_briefs(struct fdtable *t)
{
	while (t->n_briefs)
		t->held[t->briefs[--t->n_briefs]].brief = false;
}

static int sync_all(struct fdtable *t, struct err *e)
{
	bool records = fdtable_read_records(t);
	int r;

	if (!records)
		t->running = false;

	if (records && !t->retaken && fdtable_is_few(t)) {
		r = fdtable_sync_few(t, e);
		if (r < 0 || fdtable_capture_tcp(t))
			return r;
		t->few = false;
		forget_briefs(t);
	}
	if (records && (t->frozen || t->running))
		return fdtable_sync_by_records(t, e);
	r = sync_numbers(t, e);
	return r < 0 ? r : sync_infos(t, e);
}

int fdtable_recapture(struct fdtable *t, bool frozen, struct fsfile_table *files, struct refusals *refusals, struct err *e)
{
	int r = check_sharers(t, e);

	t->frozen = frozen;
	t->running = !frozen && t->self && fdtable_reader() && file_reader_can_ask(fdtable_reader()) && tcp_peek_told();
	t->few = false;
	forget_briefs(t);
	t->retaken = t->retaken && frozen;
	if (r == 0)
		r = sync_all(t, e);
	t->ends_listed = t->ends_listed && frozen && t->few;
	if (r == 0 && !frozen && t->self)
		fdtable_note_digests(t);
	if (r == 0 && t->running && !t->few)
		r = fdtable_hold_unix(t, e);
	if (r == 0 && !t->few)
		r = fdtable_find_in_flight(t, refusals, e);
	if (r == 0 && !t->few)
		r = fdtable_capture_unix(t, refusals, e);
	if (r == 0 && !t->few)
		fdtable_capture_tcp(t);
	if (r < 0) {
		t->running = false;
		return r;
	}
	if (t->changed)
		drop_unused(t);
	for (uint32_t i = 0; i < t->n_views && !t->few; i++)
		if (t->views[i].first == i)
			write_table(&t->views[i], t->msg->tables[t->msg->table_of[i]]);
	r = fdtable_capture_contents(t, t->changed, files, refusals, e);
	if (r == 0)
		t->changed = false;
	t->retaken = frozen && (t->retaken || !t->few);
	if (r == 0 && !frozen && t->self)
		fdtable_learn(t);
	if (t->running)
		fdtable_release(t);
	t->running = false;
	return r;
}

/* A thread that ends has no table any more while it is still listed: that is no table of its own. */
static bool has_own_table(pid_t pid, pid_t tid)
{
	struct process_stat stat;

	for (int look = 0; look < OWN_TABLE_LOOKS; look++) {
		if (syscall(SYS_kcmp, pid, tid, KCMP_FILES, 0, 0) <= 0 || process_stat_read(tid, &stat, NULL) < 0 || stat.flags & FLAG_EXITING)
			return false;
		usleep(1000);
	}
	return true;
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

		if (tid > 0 && tid != pid && has_own_table(pid, tid))
			refusals_add(refusals, "fd.unshared",
				"it has a descriptor table of its own (unshare), and such threads cannot move yet",
				"let the thread end first", "thread %d", (int)tid);
	}
}

static bool is_inside(const struct fdtable *t, pid_t pid)
{
	for (size_t i = 0; i < t->n_views; i++)
		if (t->views[i].pid == pid)
			return true;
	return false;
}

/* A process outside of the unit with the same table (CLONE_FILES): the two would no longer see each other's descriptors. */
static void refuse_sharers_outside(const struct fdtable *t, struct refusals *refusals)
{
	cleanup_closedir DIR *proc = opendir("/proc");

	for (struct dirent *entry; proc && (entry = readdir(proc));) {
		pid_t other = atoi(entry->d_name);

		if (other <= 0 || is_inside(t, other))
			continue;
		for (size_t i = 0; i < t->n_views; i++)
			if (t->views[i].fd_dir >= 0 && syscall(SYS_kcmp, t->views[i].pid, other, KCMP_FILES, 0, 0) == 0) {
				refusals_add(refusals, "fd.shared-table", "a process that would stay behind shares its descriptor table",
					"end the other process first", "process %d (shared with process %d)", (int)t->views[i].pid, (int)other);
				refusals_blame(refusals, refusals->n - 1, other);
			}
	}
}

static int open_view(struct fdtable *t, uint32_t i, struct err *e)
{
	struct fd_view *view = &t->views[i];
	Gw__FdNumbers *numbers;
	char path[64];

	for (uint32_t k = 0; k < i && view->pidfd >= 0; k++)
		if (t->views[k].first == k && t->views[k].pidfd >= 0 && syscall(SYS_kcmp, t->views[k].pid, view->pid, KCMP_FILES, 0, 0) == 0) {
			view->first = k;
			t->msg->table_of[i] = t->msg->table_of[k];
			return 0;
		}
	view->first = i;
	numbers = fd_alloc(sizeof(*numbers));
	gw__fd_numbers__init(numbers);
	t->msg->table_of[i] = (uint32_t)t->msg->n_tables;
	fd_append(&t->msg->tables, &t->msg->n_tables, numbers);
	if (view->pidfd < 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/fd", (int)view->pid);
	view->fd_dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)view->pid);
	view->info_dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (view->fd_dir < 0 || view->info_dir < 0)
		return err_sys(e, gone(errno), "pid %d: reading its descriptors", (int)view->pid);
	return 0;
}

static int open_views(struct fdtable *t, const struct fd_process *p, size_t n, struct err *e)
{
	int r = 0;

	t->msg = fd_alloc(sizeof(*t->msg));
	gw__fd_table__init(t->msg);
	t->held = fd_alloc(sizeof(*t->held));
	t->order = fd_alloc(sizeof(*t->order));
	t->views = fd_alloc(n * sizeof(*t->views));
	t->msg->table_of = fd_alloc(n * sizeof(*t->msg->table_of));
	t->msg->n_table_of = n;
	for (; t->n_views < n; t->n_views++) {
		const struct fd_process *from = &p[t->n_views];

		t->views[t->n_views] = (struct fd_view){ .pid = from->pid, .pidfd = from->pidfd, .fd_dir = -1, .info_dir = -1 };
	}
	for (uint32_t i = 0; i < n && r == 0; i++)
		r = open_view(t, i, e);
	return r;
}

int fdtable_capture(const struct fd_process *p, size_t n, struct fdtable *ret, struct fsfile_table *files, struct refusals *refusals,
	struct err *e)
{
	struct fdtable t = FDTABLE_INIT;
	int r;

	r = open_views(&t, p, n, e);
	if (r == 0 && fdtable_reader())
		fdtable_watch(&t, fdtable_reader());
	/* While the unit runs, a number may change between two looks at it; the next attempt sees it settled. */
	for (int look = 1; r == 0 && look <= CAPTURE_LOOKS; look++) {
		size_t refused = refusals->n;

		r = fdtable_recapture(&t, false, files, refusals, e);
		if (r == 0 || refusals->n > refused || look == CAPTURE_LOOKS)
			break;
		r = 0;
	}
	if (r == 0)
		fdtable_note_shared(&t, files);
	fdtable_release(&t);
	for (size_t i = 0; i < n && r == 0; i++)
		if (p[i].pidfd >= 0)
			refuse_own_tables(p[i].pid, refusals);
	if (r == 0)
		refuse_sharers_outside(&t, refusals);
	if (r < 0) {
		fdtable_free(&t);
		return r;
	}
	*ret = t;
	return 0;
}

const struct fd_seen *fdtable_find_number(const struct fdtable *t, uint32_t index, uint32_t fd)
{
	const struct fd_view *view = &t->views[t->views[index].first];
	size_t low = 0, high = view->n_seen;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if ((uint32_t)view->seen[middle].fd == fd)
			return &view->seen[middle];
		if ((uint32_t)view->seen[middle].fd < fd)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

void fdtable_release(struct fdtable *t)
{
	if (!t->holding)
		return;
	t->holding = false;
	for (size_t i = 0; t->msg && i < t->msg->n_descs; i++)
		close_fdp(&t->held[i].fd);
}

/* One that has not changed has not been fetched. */
static void end_connection(const struct fdtable *t, uint32_t i)
{
	const struct fd_held *held = &t->held[i];
	struct fd_held got = { .fd = -1 };

	if (held->fd < 0 && held->uses && fdtable_fetch(&t->views[held->view], fdtable_number_of(t, i)->fd, &got, NULL) != 1)
		return;
	socket_tcp_forget(held->fd >= 0 ? held->fd : got.fd);
	close_fdp(&got.fd);
}

void fdtable_end_connections(const struct fdtable *t)
{
	for (uint32_t i = 0; i < t->msg->n_descs; i++)
		if (t->msg->descs[i]->socket && t->msg->descs[i]->socket->tcp)
			end_connection(t, i);
}

static void free_view(struct fdtable *t, struct fd_view *view)
{
	for (size_t i = 0; i < view->n_seen; i++)
		fdtable_drop_seen(t, &view->seen[i]);
	free(view->seen);
	if (view->offered)
		gw__fd_numbers__free_unpacked(view->offered, NULL);
	close_fdp(&view->fd_dir);
	close_fdp(&view->info_dir);
}

void fdtable_free(struct fdtable *t)
{
	fdtable_forget_queues(t);
	fdtable_forget_tcp(t);
	fdtable_forget_kin(t);
	fdtable_release(t);
	fdtable_unwatch(t);
	for (size_t i = 0; i < t->n_views; i++)
		free_view(t, &t->views[i]);
	if (t->msg)
		gw__fd_table__free_unpacked(t->msg, NULL);
	free(t->views);
	free(t->held);
	free(t->order);
	free(t->pipe_ids);
	free(t->pty_ids);
	if (t->terminal > 0)
		close(t->terminal);
	free(t->todo);
	free(t->differs);
	free(t->briefs);
	free(t->text);
	*t = FDTABLE_INIT;
}

static size_t next_ring(const struct fdtable *t, const Gw__FdNumbers *n, size_t from)
{
	while (from < n->n_fd && (n->desc[from] >= t->msg->n_descs || t->msg->descs[n->desc[from]]->kind != GW__FD_KIND__FD_URING))
		from++;
	return from;
}

static bool have_rings_moved(const struct fdtable *t, const Gw__FdNumbers *was, const Gw__FdNumbers *now)
{
	size_t i = next_ring(t, was, 0), k = next_ring(t, now, 0);

	for (; i < was->n_fd && k < now->n_fd; i = next_ring(t, was, i + 1), k = next_ring(t, now, k + 1))
		if (was->fd[i] != now->fd[k] || was->desc[i] != now->desc[k])
			return true;
	return i < was->n_fd || k < now->n_fd;
}

bool fdtable_has_moved_rings(const struct fdtable *t)
{
	for (size_t v = 0; v < t->n_views; v++) {
		const Gw__FdNumbers *was = t->views[v].offered;

		if (was && have_rings_moved(t, was, t->msg->tables[t->msg->table_of[v]]))
			return true;
	}
	return false;
}

bool fdtable_has_direct_io(const Gw__FdTable *t)
{
	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if ((d->kind == GW__FD_KIND__FD_FILE || d->kind == GW__FD_KIND__FD_DEVICE || d->kind == GW__FD_KIND__FD_LEASED) && (d->flags & O_DIRECT) &&
		    (d->flags & O_ACCMODE) != O_WRONLY)
			return true;
	}
	return false;
}
