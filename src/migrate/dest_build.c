/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest_build.c - building the skeleton while the process still runs at the source: agent, threads, descriptors; mappings are in dest_memory.c */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/util.h"
#include "image/aio.h"
#include "image/uring.h"
#include "image/cwd.h"
#include "image/file_owner.h"
#include "image/host_keeper.h"
#include "image/keyring.h"
#include "image/loginuid.h"
#include "image/membarrier.h"
#include "image/cgroup.h"
#include "image/ns_user.h"
#include "image/relay.h"
#include "kern/fdpass.h"
#include "kern/pagemap.h"
#include "kern/trace.h"
#include "migrate/dest.h"
#include "migrate/arrival.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "migrate/pages.h"
#include "migrate/unit_page.h"
#include "migrate/timeline.h"

/* --- agent --- */

/* In a user namespace the agent may not make one by itself: the worker opens the door. *ret_door: its number in the agent, -1: not needed. */
static int open_userfaultfd_door(struct dest_process *p, int *ret_door, struct err *e)
{
	uint32_t was = ns_user_choose(dest_user_of(p));
	bool needed = ns_user_is_owned();
	cleanup_close int door = -1;
	int ret;

	ns_user_choose(was);
	*ret_door = -1;
	if (!needed)
		return 0;
	door = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (door < 0)
		return err_sys(e, errno, "/dev/userfaultfd, for a unit with a user namespace");
	ret = fd_send(p->skeleton->agent.socket, &door, 1, e);
	return ret < 0 ? ret : batch_receive_fds(p->skeleton->agent.batch, p->skeleton->agent_end, ret_door, 1, e);
}

static struct remote_call *plan_userfaultfd(struct batch *b, int door)
{
	struct remote_call *made;

	if (door < 0)
		return batch_call(b, "userfaultfd", SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	made = batch_call(b, "ioctl(USERFAULTFD_IOC_NEW)", SYS_ioctl, door, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	batch_call(b, "close", SYS_close, door);
	return made;
}

static int equip_agent(struct dest_process *p, struct err *e)
{
	struct agent *a = &p->skeleton->agent;
	const struct skeleton *root = p->d->procs[0].skeleton;
	struct scratch_header *h = scratch_header(&a->scratch);
	cleanup_close int self = pidfd_open_process(getpid(), e);
	struct agent_fds fds = { p->d->link.go, p->link->fault, p->link->bulk, -1, p->skeleton->mem_fd, p->skeleton->pidfd, self,
				 p->index ? root->agent.scratch.memfd : -1, p->index ? root->pidfd : -1, -1,
				 p->index ? -1 : p->d->outcome_fd };
	struct remote_call *map, *uffd;
	int door, ret = self < 0 ? self : open_userfaultfd_door(p, &door, e);

	if (ret < 0)
		return ret;
	h->shared = p->has_guests;
	map = batch_call(a->batch, "mmap", SYS_mmap, 0, STAGING_PAGES * PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, ~0ull, 0);
	uffd = plan_userfaultfd(a->batch, door);
	ret = batch_run(a->batch, e);
	if (ret < 0)
		return ret;
	h->staging = (uint64_t)map->ret;
	h->uffd = (int32_t)uffd->ret;
	batch_reset(a->batch);
	ret = (int)remote_do(a->batch, e, "madvise", SYS_madvise, h->staging, STAGING_PAGES * PAGE_SIZE_BYTES, MADV_DONTFORK);
	if (ret == 0)
		a->uffd = ret = pidfd_get(a->pidfd, h->uffd, e);
	if (ret >= 0)
		ret = uffd_enable(a->uffd, UFFD_FEATURES_PAGER, e);
	if (ret == 0)
		ret = agent_equip(a, p->skeleton->agent_end, &fds, e);
	if (ret == 0 && h->record_fd >= 0)
		ret = outcome_share(a->batch, h->record_fd, e);
	if (p->d->offer->held)
		pace_hurry(a->pid);
	else
		pace_calm_beside(a->pid, p->nthreads); /* the program goes first when the agent and it want the same CPU */
	return ret;
}

/* --- threads and descriptors --- */

/* A descriptor of the working directory whose name was removed, of a process that has it already; -1: none has. */
static int open_removed_cwd(const struct dest_process *p)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/cwd", p->skeleton->pid);
	return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static int removed_cwd(const void *arg, const Gw__FdInode *inode)
{
	const struct dest *d = arg;

	for (size_t i = 0; i < d->nprocs; i++)
		if (cwd_is_removed_inode(d->procs[i].process, inode))
			return open_removed_cwd(&d->procs[i]);
	return -1;
}

/* The first process that has it makes it. */
static int enter_removed_cwd(struct dest_process *p, struct err *e)
{
	bool of_process = cwd_is_of_process(p->process);
	struct proc_ended stand = PROC_ENDED_INIT;
	struct batch *b = dest_main_batch(p);
	cleanup_close int fd = -1;
	int ret = of_process ? proc_ended_start(&stand, p->process->cwd, p->skeleton->pid, e) : 0, number;

	for (size_t i = 0; i < p->index && fd < 0 && !of_process; i++)
		if (cwd_is_same(p->d->procs[i].process, p->process))
			fd = open_removed_cwd(&p->d->procs[i]);
	if (fd < 0 && ret == 0)
		ret = cwd_make_removed(p->process, &stand, &fd, e);
	if (ret == 0)
		ret = fd_send(p->transfer.worker_end, &fd, 1, e);
	if (ret == 0)
		ret = batch_receive_fds(b, p->transfer.task_number, &number, 1, e);
	if (ret == 0) {
		batch_call(b, "fchdir", SYS_fchdir, number);
		batch_call(b, "close", SYS_close, number);
		ret = batch_run(b, e);
		batch_reset(b);
	}
	proc_ended_stop(&stand);
	return ret;
}

static int build_threads(struct dest_process *p, struct err *e)
{
	struct skeleton *s = p->skeleton;
	int ret = p->process->cwd_removed ? enter_removed_cwd(p, e) : 0;

	for (size_t i = 0; i < s->nthreads && ret == 0; i++) /* threads that had to fork are there already; the others inherit it */
		ret = loginuid_set(s->threads[i]->batch, p->process, e);
	if (ret == 0)
		ret = process_plan_restore(dest_main_batch(p), p->process, PROCESS_EARLY, NULL, 0);
	keyring_plan_join(dest_main_batch(p), p->process, p->threads[0]->credentials->uids[0], p->threads[0]->credentials->gids[0]);
	if (ret == 0)
		ret = batch_run(dest_main_batch(p), e);
	batch_reset(dest_main_batch(p));
	for (size_t i = 1; i < p->nthreads && ret == 0; i++)
		ret = skeleton_add_thread(s, p->threads[i]->tid, e);
	return ret;
}

static pid_t host_pid(const void *arg, pid_t pid)
{
	const struct dest *d = arg;

	for (size_t i = 0; i < d->nprocs; i++)
		if (d->procs[i].pid == pid)
			return d->procs[i].skeleton->pid;
	for (size_t i = 0; i < d->set.tree.n; i++) /* one that is to end */
		if (d->set.tree.v[i].pid == pid && d->set.v[i])
			return d->set.v[i]->pid;
	return 0;
}

static struct batch *thread_batch(void *arg, pid_t tid)
{
	struct skeleton_thread *t = skeleton_find_thread(arg, tid);

	return t ? t->batch : NULL;
}

static int lend(const void *arg, pid_t pid, uint32_t number, struct err *e)
{
	const struct dest *d = arg;
	int ret = -ESRCH;

	for (size_t i = 0; i < d->nprocs; i++)
		if (d->procs[i].pid == pid && d->procs[i].skeleton) {
			struct batch *b = dest_main_batch(&d->procs[i]);

			batch_call(b, "lending a descriptor (dup3)", SYS_dup3, (uint64_t)d->procs[i].transfer.task_number, number, O_CLOEXEC);
			ret = batch_run(b, e);
			batch_reset(b);
			return ret;
		}
	return err_set(e, ret, "process %d: there is none to lend a descriptor to", (int)pid);
}

struct uring_skeleton dest_uring_skeleton(struct dest_process *p)
{
	return (struct uring_skeleton){ dest_main_batch(p), thread_batch, p->skeleton, p->skeleton->pid, p->skeleton->pidfd, { p->clocks.monotonic_ns, p->clocks.boottime_ns } };
}

/* Numbers first, in all processes: sets of epoll, and owners, may refer to any of them. */
static int build_descriptors(struct dest *d, struct err *e)
{
	int ret;

	d->pids = calloc(d->nprocs, sizeof(*d->pids));
	if (!d->pids)
		return err_sys(e, -ENOMEM, "descriptors");
	for (size_t i = 0; i < d->nprocs; i++)
		d->pids[i] = d->procs[i].skeleton ? d->procs[i].skeleton->pid : 0;
	d->env = (struct fd_env){ .answers = d->answers, .n_files = d->files.n, .clocks = dest_clock_deltas(d),
				  .host_pid = host_pid, .removed_cwd = removed_cwd, .lend = lend, .host_pid_arg = d, .pids = d->pids, .n_pids = d->nprocs };
	ret = fdtable_restore_open(d->fds, &d->env, &d->restore, e);
	d->env.lend = NULL;
	for (uint32_t i = 0; i < d->nprocs && ret == 0; i++) {
		ret = fdtable_restore_place(d->fds, i, &d->restore, &d->procs[i].transfer, dest_main_batch(&d->procs[i]), e);
		batch_reset(dest_main_batch(&d->procs[i]));
		/* In a shared table there is one transfer left. */
		d->procs[i].transfer = d->procs[fdtable_first_sharer(d->fds, i)].transfer;
	}
	for (uint32_t i = 0; i < d->nprocs && ret == 0; i++) {
		struct uring_skeleton s = dest_uring_skeleton(&d->procs[i]);

		ret = uring_make(&s, d->procs[i].process, d->fds->tables[d->fds->table_of[i]], &d->procs[i].urings, e);
	}
	for (uint32_t i = 0; i < d->nprocs && ret == 0; i++) {
		ret = fdtable_restore_late(d->fds, i, &d->restore, &d->procs[i].transfer, dest_main_batch(&d->procs[i]), e);
		batch_reset(dest_main_batch(&d->procs[i]));
	}
	return ret;
}

/* Whether the number of one of the threads (not a main one: skeleton_create sees to that) belongs to somebody here. */
static bool some_thread_is_taken(const struct dest *d)
{
	char path[64];

	for (size_t i = 0; i < d->nprocs; i++) {
		for (size_t k = 1; k < d->procs[i].nthreads; k++) {
			snprintf(path, sizeof(path), "/proc/%d", d->procs[i].threads[k]->tid);
			if (access(path, F_OK) == 0)
				return true;
		}
	}
	return false;
}

/* From inside a user namespace only numbers of a pid namespace that belongs to it can be chosen. */
static bool needs_numbers(const struct dest *d)
{
	const Gw__Namespaces *ns = d->offered.ns;
	const struct tree_process *root = &d->offered.tree.v[0];
	bool more = d->offered.tree.n > 1 || d->procs[0].nthreads > 1 || root->sid != root->pid || root->pgid != root->pid; /* the last: helpers (tree_plan.h) */

	return ns && ns->user && !(ns->user->inside & NS_BIT(NS_PID)) && more;
}

/* Every process with its mappings and threads. */
static int build_process(struct dest_process *p, struct err *e)
{
	int ret = p->host ? 0 : dest_build_layout(p, e);

	if (ret == 0 && p->host)
		scratch_header(&p->skeleton->agent.scratch)->trampoline = scratch_header(&p->host->skeleton->agent.scratch)->trampoline;
	else if (ret == 0)
		ret = skeleton_place_trampoline(p->skeleton, e);
	return ret < 0 ? ret : build_threads(p, e);
}

static pid_t find_thread(void *arg, pid_t tid)
{
	struct skeleton_thread *t = skeleton_find_thread(arg, tid);

	return t ? t->task.tid : 0;
}

/* What comes when the descriptors are in place. */
static int finish_process(struct dest_process *p, struct err *e)
{
	int ret = equip_agent(p, e);

	membarrier_plan(dest_main_batch(p), p->membarrier, 0);
	if (ret == 0)
		ret = batch_run(dest_main_batch(p), e);
	batch_reset(dest_main_batch(p));
	dest_plan_finish(p);
	if (ret == 0)
		ret = scratch_warm(&p->skeleton->agent.scratch, (unsigned)p->nthreads, dest_main_batch(p), e);
	if (ret == 0)
		ret = present_ask(dest_main_batch(p), &p->present, e);
	p->transfer_kept = ret == 0 ? pidfd_get(p->skeleton->pidfd, p->transfer.task_number, NULL) : -1;
	if (ret == 0)
		p->arrival_fd = ret = arrival_begin(p->skeleton->pid, e);
	if (ret >= 0)
		ret = dest_make_pool(p, e);
	if (ret == 0)
		ret = dest_populate_ranges(p, e);
	if (ret == 0)
		ret = process_restore_outside(p->skeleton->pid, p->process, NULL, e);
	if (ret == 0)
		ret = cgroup_join(p->skeleton->pid, p->process, find_thread, p->skeleton, e);
	return ret < 0 ? ret : dest_set_pieces(p, e);
}

static void take_skeleton(struct dest_process *p, struct skeleton *s)
{
	p->skeleton = s;
	p->transfer = (struct fd_transfer){ s->transfer, s->transfer_end };
}

/* The surrogate parent stands for who leads the session at home: what is led from outside of the unit is inherited from it (tree_plan.h). */
static void inherit_session(struct tree *t)
{
	pid_t sid = t->v[0].sid;

	if (tree_find(t, sid) != TREE_NONE)
		return;
	for (size_t i = 0; i < t->n; i++) {
		if (t->v[i].sid != sid)
			continue;
		t->v[i].sid = 0;
		if (tree_find(t, t->v[i].pgid) == TREE_NONE)
			t->v[i].pgid = 0;
	}
}

/* At home the root has its stub's session and group: whoever is in the root's is in that one. */
static void take_place(struct tree *t, const struct dest_home *h)
{
	pid_t root = t->v[0].pid;

	for (size_t i = 0; i < t->n; i++) {
		if (t->v[i].pgid == root)
			t->v[i].pgid = 0;
		if (t->v[i].sid == root && h->session == root)
			t->v[i].sid = 0;
	}
}

/* Who is the parent of the root: the one at home, whose child its stub is, or one that stands for it. */
static void choose_parent(struct dest *d)
{
	d->parent = PARENT_INIT;
	if (!d->offer->home)
		return;
	inherit_session(&d->offered.tree);
	madvise(d->go_buffer, d->go_buffer_len, MADV_DONTFORK);
	if (dest_home_comes(&d->home)) {
		d->restore.originals = &d->home.originals;
		d->restore.ptys.home = d->home.terminal.fd >= 0 ? &d->home.terminal : NULL;
		if (d->home.seat.pid) {
			take_place(&d->offered.tree, &d->home);
			d->set.seat = &d->home.seat;
		}
		return;
	}
	snprintf(d->parent.unit, sizeof(d->parent.unit), "%s", d->offer->unit);
	memcpy(d->parent.mig_id, d->mig_id, sizeof(d->parent.mig_id));
	d->parent.wanted_pid = d->offer->home_parent;
	d->parent.leads = d->offer->home_leads;
	d->set.parent = &d->parent;
}

/* The surrogate parent keeps a relayed terminal from being hung up; where it leads the session it is its own, and whoever is born to it has it. */
static int give_terminal(struct dest *d, struct err *e)
{
	int index = fdtable_relayed_terminal(d->fds);

	if (index < 0 || !d->offer->home || dest_home_comes(&d->home))
		return 0;
	d->parent.slave = pty_open_slave(d->restore.ptys.v[index].master, O_RDWR | O_NONBLOCK, e);
	d->parent.controls = d->fds->ptys[index]->inherited;
	return MIN(d->parent.slave, 0);
}

/* They do not run yet. */
static int record_commit(void *arg, struct err *e)
{
	return outcome_commit(((struct dest *)arg)->outcome_fd, e);
}

static void dest_committed(void *arg)
{
	struct dest *d = arg;

	dest_address_live(d);
	if (d->addresses.n)
		timeline_mark("addresses here");
	dest_net_live(d);
	if (dest_home_comes(&d->home))
		dest_home_back(d);
	dest_drop_duplicates(d);
}

/* All processes, each with its agent and nothing else. */
static int create_skeletons(struct dest *d, struct err *e)
{
	const struct tree *t = &d->offered.tree;
	cleanup_free struct skeleton_terms *terms = calloc(t->n, sizeof(*terms));
	cleanup_free struct dest_process **of = calloc(t->n, sizeof(*of));
	size_t k = 0;
	int ret;

	choose_parent(d);
	if (!terms || !of)
		return err_sys(e, ENOMEM, "the skeleton");
	for (size_t i = 0; i < t->n; i++) {
		struct dest_process *p = of[i] = &d->procs[k];

		if (t->v[i].zombie)
			continue;
		terms[i] = (struct skeleton_terms){ p->scratch_base, (unsigned)p->nthreads + THREADS_SPARE, pages_arena_bytes(&p->vmas) };
		p->host = t->v[i].memory == i ? NULL : of[t->v[i].memory];
		if (p->host)
			p->host->has_guests = true;
		k++;
	}
	if (d->offered.ns || d->ns.holder) {
		d->world = (struct skeleton_world){ d->offered.ns, &d->ns, mmap(NULL, sizeof(struct err), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) };
		if (d->world.why == MAP_FAILED)
			return err_sys(e, errno, "the skeleton");
		d->set.world = &d->world;
	}
	d->set.fds = d->fds;
	d->set.first = dest_common_begin;
	d->set.first_arg = d;
	d->set.settle = dest_enter_namespaces;
	d->set.opened = dest_open_numbers;
	d->set.record = record_commit;
	d->set.committed = dest_committed;
	ret = pty_make_all(d->fds, &d->restore.ptys, e);
	if (ret == 0)
		ret = give_terminal(d, e);
	if (ret == 0)
		ret = skeleton_set_create(&d->set, t, some_thread_is_taken(d) || needs_numbers(d), terms, e);
	if (ret == 0)
		fd_owner_level(skeleton_levels(d->set.v[0]->pid), d->set.tree.n_numbers);
	if (ret == 0)
		ret = host_keepers_keep(d->set.v[0]->pid, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		take_skeleton(&d->procs[i], skeleton_set_find(&d->set, d->procs[i].pid));
	return ret == 0 ? dest_address_expect(d, e) : ret;
}

int dest_prepare(void *context, struct err *e)
{
	struct dest *d = context;
	int ret;

	d->outcome_fd = ret = outcome_begin(d->mig_id, e);
	if (ret >= 0)
		ret = clock_enter_namespace(&d->clocks, e);
	if (ret == 0)
		dest_home_ask(d);
	if (ret == 0)
		ret = create_skeletons(d, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = build_process(&d->procs[i], e);
	if (ret == 0)
		ret = build_descriptors(d, e);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		ret = finish_process(&d->procs[i], e);
	if (ret == 0)
		ret = dest_lead_children(d, e); /* after all threads: none could be made then */
	dest_common_free(d);
	return ret;
}

void dest_prepare_undo(void *context)
{
	struct dest *d = context;

	for (size_t i = 0; i < d->nprocs; i++) {
		batch_free(d->procs[i].finish);
		uring_set_free(d->procs[i].urings);
		d->procs[i].urings = NULL;
	}
	if (d->nprocs && d->procs[0].go)
		sysv_remove(d->procs[0].go->process, &d->sysv);
	fdtable_restore_undo(&d->restore);
	skeleton_set_destroy(&d->set);
	dest_common_free(d);
	parent_abort(&d->parent);
	dest_home_free(d);
}
