/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest_spaces.c - processes of the unit that are in other namespaces than its first process; see image/ns_other.h */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/ns_mount.h"
#include "image/ns_other.h"
#include "image/ns_user.h"
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

/* All that there are, also over an exec. */
static void plan_capabilities(struct batch *b)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct all[2];
	unsigned last = 0;

	while (prctl(PR_CAPBSET_READ, last + 1, 0, 0, 0) >= 0)
		last++;
	for (unsigned i = 0; i < 2; i++) {
		uint64_t bits = ((2ull << last) - 1) >> 32 * i;

		all[i] = (struct __user_cap_data_struct){ (uint32_t)bits, (uint32_t)bits, (uint32_t)bits };
	}
	batch_call(b, "capset", SYS_capset, batch_data(b, &header, sizeof(header)), batch_data(b, all, sizeof(all)));
	for (unsigned i = 0; i <= last; i++)
		batch_call(b, "prctl(PR_CAP_AMBIENT)", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0);
}

/* The ids that it has on the host, as far as they can be had from where it is: those that are not mapped in there can only be had before. */
static void plan_ids(struct batch *b, const Gw__Process *p, uint32_t from)
{
	cleanup_free uint32_t *groups = calloc(p->n_host_groups + 1, sizeof(*groups));
	uint32_t was = ns_user_choose(from), ids[NS_USER_IDS];
	bool mapped[3] = { groups && !ns_user_denies_groups(), true, true };

	for (size_t i = 0; i < p->n_host_groups && mapped[0]; i++) {
		groups[i] = p->host_groups[i];
		mapped[0] = ns_user_maps(true, &groups[i]);
	}
	for (size_t i = 0; i < NS_USER_IDS; i++) {
		ids[i] = p->host_ids[i];
		mapped[1 + i / 3] = ns_user_maps(i >= 3, &ids[i]) && mapped[1 + i / 3];
	}
	ns_user_choose(was);
	batch_call(b, "prctl(PR_SET_SECUREBITS)", SYS_prctl, PR_SET_SECUREBITS, 1 << SECURE_NO_SETUID_FIXUP);
	if (mapped[0])
		batch_call(b, "setgroups", SYS_setgroups, p->n_host_groups, batch_data(b, groups, p->n_host_groups * sizeof(*groups)));
	if (mapped[2])
		batch_call(b, "setresgid", SYS_setresgid, ids[3], ids[4], ids[5]);
	if (mapped[1])
		batch_call(b, "setresuid", SYS_setresuid, ids[0], ids[1], ids[2]);
}

static int enter_user(struct skeleton *s, const Gw__Process *p, int ns, struct err *e)
{
	struct batch *b = s->threads[0]->batch;
	int ret;

	plan_ids(b, p, s->namespaces[NS_USER]);
	ret = batch_run(b, e);
	batch_reset(b);
	if (ret == 0)
		ret = skeleton_setns(s, ns, CLONE_NEWUSER, e);
	if (ret < 0)
		return ret;
	plan_capabilities(b);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

static int enter(struct dest *d, struct skeleton *s, const Gw__Process *p, enum ns_kind kind, struct err *e)
{
	uint32_t wanted = p->n_namespaces ? p->namespaces[kind] : 0;
	cleanup_close int ns = -1;
	int ret;

	if (s->namespaces[kind] == wanted)
		return 0;
	ns = open_wanted(d, kind, wanted);
	if (ns < 0)
		ret = err_sys(e, errno, "the unit's %s namespace", ns_name(kind));
	else
		ret = kind == NS_USER ? enter_user(s, p, ns, e) : skeleton_setns(s, ns, ns_flag(kind), e);
	if (ret == 0 && kind == NS_MNT && wanted)
		ret = show_numbers(d, s, wanted, e);
	if (ret < 0)
		return err_wrap(e, "process %d: entering its %s namespace", p->pid, ns_name(kind)), ret;
	s->namespaces[kind] = wanted;
	return 0;
}

/* Into its pid namespace it was born. The user namespace comes last: from outside of it all that belongs to it can be entered, from inside nothing else. */
int dest_enter_namespaces(struct skeleton *s, pid_t number, void *arg, struct err *e)
{
	static const enum ns_kind kinds[] = { NS_UTS, NS_IPC, NS_NET, NS_CGROUP, NS_MNT, NS_TIME, NS_USER };
	struct dest *d = arg;
	const struct dest_process *p = find(d, number);
	int ret = 0;

	for (size_t i = 0; p && i < ARRAY_SIZE(kinds) && ret == 0; i++)
		ret = enter(d, s, p->process, kinds[i], e);
	return ret;
}

uint32_t dest_user_of(const struct dest_process *p)
{
	return p->process->n_namespaces ? p->process->namespaces[NS_USER] : 0;
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
