/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unit.c - the image of a unit on the source; see unit.h */
#include "migrate/unit.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/limits.h"
#include "base/util.h"
#include "image/tcp_outside.h"
#include "image/file_owner.h"
#include "image/notes.h"
#include "image/ns_mount.h"
#include "image/ns_other.h"
#include "image/ns_terminal.h"
#include "image/aio.h"
#include "image/process.h"
#include "image/process_check.h"
#include "image/pty_session.h"
#include "image/thread.h"
#include "image/thread_fs.h"
#include "image/tun_holder.h"
#include "image/view.h"
#include "home/home.h"
#include "kern/fdpass.h"
#include "kern/trace.h"
#include "migrate/kin.h"
#include "migrate/migrate.h"

#define FDTABLE_TRIES 8
#define CHECK_TRIES 50 /* for a unit that forks all the time */

pid_t unit_number(const struct unit_process *u, pid_t tid)
{
	return !u->elsewhere ? tid : fd_owner_seen(tid, "NSpid:");
}

static void check_directories(const struct unit_process *u, struct refusals *refusals)
{
	for (size_t i = 1; i < u->nthreads; i++)
		for (size_t k = 1; k < i && u->threads[i]->own_fs; k++) {
			struct err why = ERR_INIT;

			if (thread_fs_check(u->tids[i], u->threads[i], u->tids[k], u->threads[k], &why) < 0)
				refusals_add(refusals, "task.directory-own", why.message, "let the threads end first", "process %d", (int)u->pid);
		}
}

static int capture_threads(struct unit_process *u, struct refusals *refusals, struct err *e)
{
	cleanup_free pid_t *tids = NULL;
	size_t n;
	int ret = trace_list_threads(u->pid, &tids, &n, e);

	if (ret < 0)
		return ret;
	u->threads = calloc(n, sizeof(*u->threads));
	u->tids = calloc(n, sizeof(*u->tids));
	if (!u->threads || !u->tids)
		return err_sys(e, ENOMEM, "process %d: threads", u->pid);
	/* The main thread first. */
	for (size_t i = 0; i < n; i++)
		if (tids[i] == u->pid) {
			tids[i] = tids[0];
			tids[0] = u->pid;
		}
	for (size_t i = 0; i < n; i++) {
		Gw__Thread *t = thread_new(tids[i]);

		ret = thread_capture_outside(u->pid, tids[i], t, refusals, e);
		if ((ret == -ESRCH || ret == -ENOENT) && i > 0) { /* it ended meanwhile */
			gw__thread__free_unpacked(t, NULL);
			continue;
		}
		t->tid = unit_number(u, tids[i]);
		u->tids[u->nthreads] = tids[i];
		u->threads[u->nthreads++] = t;
		if (ret < 0)
			return ret;
	}
	check_directories(u, refusals);
	return 0;
}

static bool has_vdso(const struct vma_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].kind == VMA_VDSO)
			return true;
	return false;
}

static int capture_process(struct unit *unit, struct unit_process *u, struct refusals *refusals, struct err *e)
{
	size_t before = refusals->n;
	int ret;

	u->pidfd = ret = pidfd_open_process(u->pid, e);
	if (ret >= 0) {
		u->process = process_new(u->pid);
		ret = process_capture_outside(u->pid, u->process, refusals, e);
		u->process->pid = u->number;
		ns_others_name(u->pid, u->process);
	}
	if (ret >= 0 && refusals->n == before) /* what is no ordinary process has no memory to look at */
		ret = capture_threads(u, refusals, e);
	if (ret >= 0)
		ret = vma_list_read(u->pid, &unit->files, refusals, &u->vmas, e);
	if (ret >= 0 && !u->vmas.n)
		ret = err_set(e, -ESRCH, "process %d ends, or calls exec", u->pid);
	if (ret >= 0)
		ret = vdso_read(u->pid, &u->vmas, &u->vdso, e);
	if (ret >= 0 && !u->guest && refusals->n == before && !has_vdso(&u->vmas))
		refusals_add(refusals, "task.no-vdso", "it has unmapped its vdso, out of which calls are made in it", "start the program without doing so",
			     "process %d", u->pid);
	if (ret >= 0)
		ret = mm_read(u->pid, &u->vmas, &unit->files, &u->mm, e);
	if (ret >= 0 && !u->guest)
		ret = aio_check(u->pid, &u->vmas, refusals, e);
	if (u->guest)
		vma_list_free(&u->vmas);
	return ret < 0 && refusals->n > before ? 0 : ret; /* the reasons found so far say more than what failed because of them */
}

static int capture_descriptors(struct unit *u, struct refusals *refusals, struct err *e)
{
	cleanup_free struct fd_process *list = calloc(u->nprocs, sizeof(*list));
	int ret = -EAGAIN;

	if (!list)
		return err_sys(e, ENOMEM, "descriptors");
	for (size_t i = 0; i < u->nprocs; i++)
		list[i] = (struct fd_process){ u->procs[i].pid, u->procs[i].pidfd };
	/* A server that is busy opens and closes descriptors all the time. */
	for (int tries = 0; tries < FDTABLE_TRIES && ret == -EAGAIN; tries++) {
		if (e)
			*e = ERR_INIT;
		ret = fdtable_capture(list, u->nprocs, &u->fds, &u->files, refusals, e);
	}
	return ret < 0 && refusals->n ? 0 : ret;
}

/* Processes that share a table of descriptors, or memory, with an earlier one have no rings of their own. */
static int capture_urings(struct unit *u, struct refusals *refusals, struct err *e)
{
	bool any = false;
	int ret = 0;

	for (uint32_t i = 0; i < u->nprocs && ret == 0; i++) {
		struct unit_process *p = &u->procs[i];
		bool first = fdtable_first_sharer(u->fds.msg, i) == i;

		if (!uring_is_in(u->fds.msg, i, &p->vmas) || (!first && p->guest))
			continue;
		if (!first || p->guest)
			refusals_add(refusals, "fd.io_uring", "memory and descriptors of what uses it are those of different processes", "start it in another way",
				     "process %d (io_uring)", p->pid);
		else
			ret = uring_capture(p->pid, p->pidfd, &p->vmas, p->process, &p->urings, refusals, e);
		if (ret == 0)
			uring_refuse_relayed(u->fds.msg, i, p->process, refusals);
	}
	for (uint32_t i = 0; i < u->nprocs; i++)
		any = any || uring_is_in(u->fds.msg, i, &u->procs[i].vmas);
	trace_expects_workers = any || ret < 0;
	uring_refuse_shared(u->fds.msg, refusals);
	return ret;
}

static bool same_pid_namespace(pid_t pid)
{
	return !ns_differs(pid, 0, NS_PID);
}

static pid_t top_of(const struct tree *t, uint32_t i)
{
	while (tree_parent(t, i) != TREE_NONE)
		i = t->v[i].parent;
	return t->v[i].host_pid;
}

static int list_processes(struct unit *u, struct err *e)
{
	u->procs = calloc(u->tree.n, sizeof(*u->procs));
	if (!u->procs)
		return err_sys(e, ENOMEM, "processes");
	for (size_t i = 0; i < u->tree.n; i++)
		if (!u->tree.v[i].zombie)
			u->procs[u->nprocs++] = (struct unit_process){ .pid = u->tree.v[i].host_pid, .number = u->tree.v[i].pid, .in_tree = (uint32_t)i, .top = top_of(&u->tree, (uint32_t)i),
								       .elsewhere = !same_pid_namespace(u->tree.v[i].host_pid), .pidfd = -1 };
	for (uint32_t i = 0; i < u->nprocs; i++) {
		while (u->procs[u->procs[i].host].in_tree != u->tree.v[u->procs[i].in_tree].memory)
			u->procs[i].host++;
		u->procs[i].guest = u->procs[i].host != i;
	}
	return u->nprocs ? 0 : err_set(e, -ESRCH, "the process has ended");
}

int unit_check_sharing(const struct unit *u, struct refusals *refusals, struct err *e)
{
	cleanup_free const struct vma_list **lists = calloc(u->nprocs + 1, sizeof(*lists));
	cleanup_free pid_t *pids = calloc(u->nprocs + 1, sizeof(*pids));
	int ret;

	if (!lists || !pids)
		return err_sys(e, ENOMEM, "shared memory");
	for (size_t i = 0; i < u->nprocs; i++) {
		lists[i] = &u->procs[i].vmas;
		pids[i] = u->procs[i].pid;
	}
	ret = vma_check_sharing(pids, lists, u->nprocs, refusals);
	return ret < 0 ? err_sys(e, ret, "/proc") : 0;
}

static bool is_inside(void *arg, pid_t pid)
{
	return tree_find(&((const struct unit *)arg)->tree, pid) != TREE_NONE;
}

/* The same, or an agent of an earlier move that is still in one of them. */
static bool belongs(void *arg, pid_t pid)
{
	const struct unit *u = arg;

	for (size_t i = 0; i < u->nprocs; i++)
		if (syscall(SYS_kcmp, u->procs[i].pid, pid, KCMP_VM, 0, 0) == 0)
			return true;
	return is_inside(arg, pid);
}

/* Terminals that come along, or none. */
static void check_terminals(struct unit *u, struct refusals *refusals)
{
	struct process_stat stat;

	for (size_t i = 0; i < u->nprocs; i++)
		if (process_stat_read(u->procs[i].pid, &stat, NULL) == 0)
			pty_check_controlling(u->procs[i].pid, stat.tty, u->fds.msg, is_inside, u, refusals);
}

static int capture_sysv(struct unit *u, struct refusals *refusals, struct err *e)
{
	cleanup_free pid_t *pids = calloc(u->nprocs, sizeof(*pids));

	if (!pids)
		return err_sys(e, ENOMEM, "System V objects");
	for (size_t i = 0; i < u->nprocs; i++)
		pids[i] = u->procs[i].pid;
	return sysv_capture(pids, u->nprocs, u->procs[0].process, &u->sysv, refusals, e);
}

static int capture_cgroups(struct unit *u, struct refusals *refusals, struct err *e)
{
	cleanup_free Gw__Process **processes = calloc(u->nprocs, sizeof(*processes));

	if (!processes)
		return err_sys(e, ENOMEM, "control groups");
	for (size_t i = 0; i < u->nprocs; i++)
		processes[i] = u->procs[i].process;
	return cgroups_capture(u->procs[0].pid, processes, u->nprocs, &u->cgroups, refusals, e);
}

static int capture_others(struct unit *u, struct refusals *refusals, struct err *e)
{
	cleanup_free pid_t *pids = calloc(u->tree.n, sizeof(*pids));
	size_t n = u->nprocs;
	struct err why = ERR_INIT;
	int ret;

	if (!pids)
		return err_sys(e, ENOMEM, "namespaces");
	for (size_t i = 0; i < u->nprocs; i++)
		pids[i] = u->procs[i].pid;
	for (size_t i = 0; i < u->tree.n; i++) /* which are in a pid namespace still */
		if (u->tree.v[i].zombie)
			pids[n++] = u->tree.v[i].host_pid;
	ret = ns_others_capture(pids, n, &u->ns, refusals, e);
	if (ret == 0 && u->tree.n_numbers && !refusals->n)
		ret = ns_others_name_tree(u->ns, &u->tree, e);
	if (ret == 0 && u->tree.n_numbers && !refusals->n && tree_check_spaces(&u->tree, &why) < 0)
		refusals_add(refusals, "tree.namespaces", why.message, "start it anew", "the processes below %d", u->procs[0].pid);
	return ret == -ESRCH ? err_set(e, -EAGAIN, "processes of the unit have ended meanwhile") : ret;
}

static bool has_ended(const struct unit_process *u, int error)
{
	struct pollfd p = { u->pidfd, POLLIN, 0 };

	return error == -ESRCH || error == -ENOENT || (u->pidfd >= 0 && poll(&p, 1, 0) > 0);
}

static int check_caller(const struct caller *caller, const struct unit *u, struct refusals *refusals, struct err *e)
{
	cleanup_free pid_t *pids = calloc(u->nprocs, sizeof(*pids));

	if (!pids)
		return err_sys(e, ENOMEM, "processes");
	for (size_t i = 0; i < u->nprocs; i++)
		pids[i] = u->procs[i].pid;
	return caller_check(caller, pids, u->nprocs, refusals, e);
}

static int capture(struct unit *u, const struct caller *caller, struct refusals *refusals, struct err *e)
{
	size_t before = refusals->n;
	int ret = list_processes(u, e);

	if (ret >= 0)
		ret = check_caller(caller, u, refusals, e);
	if (ret >= 0 && refusals->n > before)
		return 0;
	if (ret >= 0 && ns_owned(u->procs[0].pid) & NS_BIT(NS_MNT))
		ret = view_read(u->procs[0].pid, &u->view, e);
	if (ret >= 0 && u->view)
		view_enter(u->procs[0].pid, u->view);
	if (ret >= 0)
		ret = ns_capture(u->procs[0].pid, u->view, &u->ns, refusals, e);
	if (ret >= 0)
		ret = capture_others(u, refusals, e);
	if (ret >= 0 && u->ns)
		ns_check_others(belongs, u, refusals);
	for (size_t i = 0; i < u->nprocs && ret >= 0; i++) {
		ret = capture_process(u, &u->procs[i], refusals, e);
		if (i && has_ended(&u->procs[i], ret))
			ret = err_set(e, -EAGAIN, "process %d of the unit has ended meanwhile", u->procs[i].pid);
	}
	if (ret >= 0)
		ret = capture_descriptors(u, refusals, e);
	if (ret >= 0 && !u->fds.msg) /* the reasons that were found before are enough */
		return 0;
	if (ret >= 0)
		ret = capture_urings(u, refusals, e);
	if (ret >= 0 && u->ns)
		tun_check_holders(u->ns, u->fds.msg, refusals);
	if (ret >= 0)
		ret = unit_check_sharing(u, refusals, e);
	if (ret >= 0)
		check_terminals(u, refusals);
	if (ret >= 0 && u->ns)
		ns_terminals_check(u->ns, u->fds.msg, refusals);
	if (ret >= 0 && u->ns)
		ret = ns_entries_capture(u->ns, 0, &u->files, refusals, e);
	if (ret >= 0 && !refusals->n)
		ret = capture_cgroups(u, refusals, e);
	if (ret >= 0 && !refusals->n)
		ret = capture_sysv(u, refusals, e);
	return ret;
}

bool unit_has_changed(const struct unit *u)
{
	for (size_t i = 1; i < u->nprocs; i++)
		if (has_ended(&u->procs[i], 0))
			return true;
	return u->nprocs && !has_ended(&u->procs[0], 0) && u->watch && tree_watch_changed(u->watch, NULL) > 0;
}

/* Whether process `other` is gone, or has been made by the unit since its processes were listed. */
static bool is_passing(const struct unit *u, pid_t other)
{
	struct process_stat stat;

	while (other > 1) {
		if (tree_find(&u->tree, other) != TREE_NONE || process_stat_read(other, &stat, NULL) < 0)
			return true;
		other = stat.ppid;
	}
	return false;
}

/* A child that the unit has made meanwhile, or that has ended again, looked like an outsider. */
static bool are_passing(const struct unit *u, const struct refusals *r)
{
	for (size_t i = 0; i < r->n; i++)
		if (!r->v[i].other || !is_passing(u, r->v[i].other))
			return false;
	return r->n > 0;
}

/* Who is the first of its pid namespace adopts what is left alone there, and waits for nobody. */
static bool is_awaited(pid_t parent)
{
	return home_is_awaited(parent, getppid()) && !ns_is_first(parent);
}

static void check_detached(pid_t root, const pid_t *also, size_t n_also, struct refusals *r)
{
	for (size_t i = 0; i < n_also; i++) {
		struct process_stat stat, parent;

		if (process_stat_read(also[i], &stat, NULL) < 0) /* tree_capture says so */
			continue;
		if (ns_differs(root, also[i], NS_PID) || ns_is_first(root))
			refusals_add(r, "unit.pid-namespace", "processes that move as one unit must be in one pid namespace, of which none is the first, unless one descends from the other",
				     "move a process that has both below it", "process %d", also[i]);
		else if (is_awaited(stat.ppid))
			refusals_add(r, "unit.awaited", "its parent waits for it, and would see it end", "name its parent, so that it moves along", "process %d (child of process %d, %s)",
				     also[i], stat.ppid, process_stat_read(stat.ppid, &parent, NULL) == 0 ? parent.name : "outside");
	}
}

int unit_capture(pid_t pid, const pid_t *also, size_t n_also, const struct caller *caller, struct unit *ret_unit, struct refusals *refusals, struct err *e)
{
	struct unit *u = ret_unit;
	int ret;

	*u = UNIT_INIT;
	notes_clear();
	ret = caller_check(caller, &pid, 1, refusals, e);
	if (ret == 0)
		ret = caller_check(caller, also, n_also, refusals, e);
	if (ret < 0 || refusals->n)
		return ret;
	check_detached(pid, also, n_also, refusals);
	if (refusals->n)
		return 0;
	ret = tree_capture(pid, also, n_also, &u->tree, refusals, e);
	if (ret >= 0)
		ret = tree_watch_open(&u->tree, &u->watch, e);
	if (ret >= 0)
		ret = capture(u, caller, refusals, e);
	if ((ret < 0 || refusals->n) && (unit_has_changed(u) || are_passing(u, refusals))) {
		refusals_free(refusals);
		*refusals = (struct refusals){ 0 };
		ret = err_set(e, -EAGAIN, "processes of unit %d have come or gone meanwhile", pid);
	}
	if (ret < 0)
		unit_free(u);
	return ret < 0 ? ret : 0;
}

static void process_free(struct unit_process *u)
{
	uring_told_free(u->urings);
	vma_list_free(&u->vmas);
	for (size_t i = 0; i < u->nthreads; i++)
		gw__thread__free_unpacked(u->threads[i], NULL);
	free(u->threads);
	free(u->tids);
	if (u->process)
		gw__process__free_unpacked(u->process, NULL);
	close_fdp(&u->pidfd);
}

void unit_free(struct unit *u)
{
	sysv_watch_free(u->sysv);
	fdtable_free(&u->fds);
	if (u->cgroups)
		gw__cgroups__free_unpacked(u->cgroups, NULL);
	if (u->ns)
		gw__namespaces__free_unpacked(u->ns, NULL);
	if (u->view) {
		view_use(NULL);
		gw__view__free_unpacked(u->view, NULL);
	}
	ns_leave();
	fsfile_table_free(&u->files);
	for (size_t i = 0; i < u->nprocs; i++)
		process_free(&u->procs[i]);
	free(u->procs);
	tree_watch_free(u->watch);
	tree_free(&u->tree);
	*u = UNIT_INIT;
}

void bytes_list_free(struct bytes_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].data);
	free(l->v);
	*l = (struct bytes_list){ 0 };
}

int unit_encode_threads(Gw__Thread *const *threads, size_t n, struct bytes_list *ret_list, struct err *e)
{
	ret_list->v = calloc(n, sizeof(*ret_list->v));
	if (!ret_list->v)
		return err_sys(e, ENOMEM, "encoding threads");
	for (size_t i = 0; i < n; i++) {
		size_t len;

		if (thread_encode(threads[i], &ret_list->v[i].data, &len) < 0)
			return err_sys(e, ENOMEM, "encoding threads");
		ret_list->v[i].len = len;
		ret_list->n++;
	}
	return 0;
}

int migrate_check(pid_t pid, const pid_t *also, size_t n_also, const struct caller *caller, struct refusals *refusals, struct err *e)
{
	struct unit u;
	int ret = -EAGAIN;

	limits_raise_descriptors();
	tcp_outside_set_policy(TCP_OUTSIDE_KEEP);
	for (int tries = 0; ret == -EAGAIN && tries < CHECK_TRIES; tries++) {
		if (e)
			*e = ERR_INIT;
		ret = unit_capture(pid, also, n_also, caller, &u, refusals, e);
	}
	if (ret == 0)
		unit_free(&u);
	kin_advise(pid, also, n_also, refusals);
	return ret;
}
