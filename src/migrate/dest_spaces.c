/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest_spaces.c - processes of the unit that are in other namespaces than its first process; see image/ns_other.h */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/ns_mount.h"
#include "image/ns_other.h"
#include "kern/fdpass.h"
#include "migrate/dest.h"

static struct dest_process *find(struct dest *d, pid_t number)
{
	for (size_t i = 0; i < d->nprocs; i++)
		if (d->procs[i].pid == number)
			return &d->procs[i];
	return NULL;
}

/* The first process is in those of number 0. */
static int open_wanted(const struct dest *d, enum ns_kind kind, uint32_t number)
{
	return number ? fcntl(ns_others_fd(number), F_DUPFD_CLOEXEC, 0) : ns_open(d->set.v[0]->pid, kind);
}

/* A mount namespace that shows the numbers of a pid namespace of the unit's. */
static bool shows_own(const Gw__Namespaces *msg, uint32_t space)
{
	for (size_t i = 0; i < msg->n_mounts; i++)
		if (msg->mounts[i]->space == space && ns_mount_numbers(msg, i))
			return true;
	return false;
}

/* In a pid namespace that is there for a number (skeleton_start.c), /proc of the host would show others. */
static int show_numbers(const struct dest *d, struct skeleton *s, uint32_t space, struct err *e)
{
	static bool done[NS_OTHERS_MAX];
	struct batch *b = s->threads[0]->batch;
	uint64_t type;

	if (!d->set.namespace_init || done[space - 1] || shows_own(d->offered.ns, space))
		return 0;
	done[space - 1] = true;
	type = batch_string(b, "proc");
	return (int)remote_do(b, e, "mounting /proc", SYS_mount, type, batch_string(b, "/proc"), type, MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
}

int dest_enter_namespaces(struct skeleton *s, pid_t number, void *arg, struct err *e)
{
	struct dest *d = arg;
	const struct dest_process *p = find(d, number);

	for (int k = 0; p && k < NS_KINDS; k++) {
		if (k == NS_PID) /* it was born into that */
			continue;
		uint32_t wanted = p->process->n_namespaces ? p->process->namespaces[k] : 0;
		cleanup_close int ns = -1;
		int ret;

		if (s->namespaces[k] == wanted)
			continue;
		ns = open_wanted(d, (enum ns_kind)k, wanted);
		ret = ns < 0 ? err_sys(e, errno, "the unit's %s namespace", ns_name((enum ns_kind)k)) : skeleton_setns(s, ns, ns_flag((enum ns_kind)k), e);
		if (ret == 0 && k == NS_MNT && wanted)
			ret = show_numbers(d, s, wanted, e);
		if (ret < 0)
			return err_wrap(e, "process %d: entering its %s namespace", number, ns_name((enum ns_kind)k)), ret;
		s->namespaces[k] = wanted;
	}
	return 0;
}

/* The first process of a pid namespace is there: others can be made in it, and what shows its numbers. */
int dest_open_numbers(struct skeleton *s, uint32_t space, void *arg, struct err *e)
{
	struct dest *d = arg;
	int fd = ns_open(s->pid, NS_PID);

	if (fd < 0)
		return err_sys(e, errno, "the pid namespace of process %d", s->pid);
	ns_others_put(space, fd);
	return ns_mounts_show_numbers(d->offered.ns, space, ns_others_fd(space), d->ns.mounts, e);
}

int dest_lead_children(struct dest *d, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		struct skeleton s = *d->procs[i].skeleton;
		uint32_t space = d->procs[i].process->children_space;

		s.transfer = d->procs[i].transfer.worker_end; /* it has the unit's descriptors by now */
		s.transfer_end = d->procs[i].transfer.task_number;
		if (space)
			ret = skeleton_setns(&s, ns_others_fd(space), CLONE_NEWPID, e);
	}
	return ret;
}

void dest_set_clocks(struct dest *d, const Gw__Clocks *here)
{
	const Gw__Clocks *first = d->procs[0].process->clocks;

	d->clocks = clock_offsets_for(first, here);
	for (size_t i = 0; i < d->nprocs; i++) {
		const Gw__Clocks *own = d->procs[i].process->clocks;

		d->procs[i].clocks = d->clocks;
		d->procs[i].clocks.monotonic_ns += own->monotonic_offset_ns - first->monotonic_offset_ns;
		d->procs[i].clocks.boottime_ns += own->boottime_offset_ns - first->boottime_offset_ns;
	}
}

struct fd_clocks dest_clock_deltas(const struct dest *d)
{
	const Gw__Clocks *first = d->procs[0].process->clocks;

	return (struct fd_clocks){ d->clocks.monotonic_ns - first->monotonic_offset_ns, d->clocks.boottime_ns - first->boottime_offset_ns };
}
