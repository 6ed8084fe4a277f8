/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_compare.c - what the running process may have changed since the last round: mappings, descriptors, and what /proc says
 *
 * Theory of operation: it is looked at while the process runs (the rehearsal), and in the freeze only where the kernel's own numbers do not say that nothing has changed since.
 */
#include <errno.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/aio.h"
#include "image/cwd.h"
#include "image/ns_mount.h"
#include "image/ns_net.h"
#include "kern/vma_peek.h"
#include "migrate/source.h"
#include "migrate/timeline.h"

#define DIGEST_ATTEMPTS 16 /* the program may change its mappings at that moment */

void source_look_at_descriptors(struct source *s)
{
	struct refusals ignored = { 0 };
	struct err unheard = ERR_INIT;

	fdtable_recapture(&s->unit.fds, false, &s->unit.files, &ignored, &unheard);
	fdtable_release(&s->unit.fds);
	refusals_free(&ignored);
}

/* What the records say of the address space; 0: nothing. */
static uint64_t layout_now(const struct source_process *p, int which)
{
	return p->nrecords[which] ? p->records[which][0].layout : 0;
}

void source_note_layouts(struct source *s)
{
	s->layouts_moved = true;
	source_read_records(s, 0);
	for (size_t i = 0; i < s->nprocs; i++)
		s->procs[i].compared_layout = layout_now(&s->procs[i], 0);
}

static bool have_layouts_moved(const struct source *s)
{
	for (size_t i = 0; i < s->nprocs; i++)
		if (!s->procs[i].compared_layout || layout_now(&s->procs[i], 1) != s->procs[i].compared_layout)
			return true;
	return false;
}

/*
 * Whether the mappings are those that the rehearsal has seen, and found unchanged: nobody has changed any since (the kernel counts), or what was changed is as it was.
 * which: the records read last.
 */
static bool is_as_rehearsed(const struct source_process *p, int which)
{
	struct vma_digest now;

	if (p->rehearsed_layout && layout_now(p, which) == p->rehearsed_layout)
		return true;
	return p->rehearsed_digest.count && vma_peek_digest(p->u->pid, &now, NULL) == 0 && !memcmp(&now, &p->rehearsed_digest, sizeof(now));
}

/*
 * The digest of the layout that has just been compared: that which the layout must have, or, where that is not known, what the kernel says if it has counted no change since
 * before the comparison. A digest of another moment is not it: a mapping may have come, or gone, in between, and the freeze would take that layout for the known one.
 */
static struct vma_digest digest_of(struct source_process *p, uint64_t before)
{
	struct vma_digest known = { 0 }, d = { 0 };
	struct err unheard = ERR_INIT;
	int ret = -EAGAIN, told = vma_list_digest(p->u->pid, &p->u->vmas, &known, &unheard);

	for (int i = 0; i < DIGEST_ATTEMPTS && (ret == -EAGAIN || (ret == 0 && told == 0 && d.digest != known.digest)); i++)
		ret = vma_peek_digest(p->u->pid, &d, NULL);
	if (ret == 0 && told == 0 && d.digest == known.digest && d.count == known.count)
		return d;
	source_read_process_records(p, 0);
	return ret == 0 && before && layout_now(p, 0) == before ? d : (struct vma_digest){ 0 };
}

/* Whether the process has the layout of the last round, and what tells in the freeze that it still has it. */
static void rehearse_layout(struct source_process *p, struct refusals *refusals)
{
	struct unit_process *u = p->u;
	uint64_t before = layout_now(p, 0);
	struct vma_list vmas = { 0 };
	struct err unheard = ERR_INIT;
	bool changed = true;

	if (vma_guards_same(u->pid, &u->vmas, &p->guarded) && is_as_rehearsed(p, 0)) {
		p->rehearsed_layout = before;
		return;
	}
	p->rehearsed_layout = 0;
	p->rehearsed_digest = (struct vma_digest){ 0 };
	if (vma_list_reread(u->pid, &u->vmas, false, &p->s->unit.files, refusals, &vmas, &changed, &unheard) == 0 && !changed) {
		p->rehearsed_layout = before;
		p->rehearsed_digest = digest_of(p, before);
	}
	vma_list_free(&vmas);
}

static void rehearse_layouts(struct source *s)
{
	struct refusals ignored = { 0 };

	source_read_records(s, 0);
	for (size_t i = 0; i < s->nprocs; i++)
		if (!s->unit.procs[i].guest)
			rehearse_layout(&s->procs[i], &ignored);
	for (size_t i = 0; i < s->nprocs; i++)
		vma_peek_ready(s->unit.procs[i].pid);
	refusals_free(&ignored);
}

/* What /proc says of the process; the records are those of rehearse_layouts. And a scan that changes nothing. */
static void rehearse_look(struct source_process *p)
{
	const struct restart_record *r = source_find_record(p, 0, p->u->pid, 0);
	struct run_list ignored = { 0 };
	struct err unheard = ERR_INIT;

	p->seen = (struct process_look){ 0 };
	if (r && process_capture_look(&p->query, p->process, &unheard) == 0 && process_is_as_seen(&p->query, p->process, &r->look))
		p->seen = r->look;
	if (!p->pages.forgotten.n)
		pages_stale(&p->pages, PAGES_EAGER, &ignored, &unheard);
	run_list_free(&ignored);
}

void source_rehearse(struct source *s, bool again)
{
	rehearse_layouts(s);
	for (size_t i = 0; i < s->nprocs && again; i++)
		rehearse_look(&s->procs[i]);
	if (again)
		return;
	source_look_at_descriptors(s);
	source_read_records(s, 0);
}

/* Nothing is compared when no change has been possible since the rehearsal found none. */
static int compare_layout(struct source_process *p, struct err *e)
{
	struct source *s = p->s;
	int ret;

	p->layout_changed = false;
	if (p->u->guest || (is_as_rehearsed(p, 1) && (!p->guarded || vma_guards_same(p->u->pid, &p->u->vmas, &p->guarded))))
		return 0;
	timeline_mark("layout has changed since the rehearsal");
	ret = vma_list_reread(p->u->pid, &p->u->vmas, false, &s->unit.files, s->refusals, &p->frozen_vmas, &p->layout_changed, e);
	if (ret == 0 && s->refusals->n)
		ret = refusals_begun(s->refusals, p->u->pid, e);
	return ret;
}

static int tell_files(struct source *s, struct err *e)
{
	cleanup_free const struct vma_list **now = calloc(s->nprocs, sizeof(*now));

	if (!now)
		return err_sys(e, ENOMEM, "layouts");
	for (size_t i = 0; i < s->nprocs; i++)
		now[i] = source_layout(&s->procs[i]);
	s->layouts_moved = have_layouts_moved(s);
	return source_files_frozen(s, &(struct layouts){ now, s->nprocs }, e);
}

/* Until there is no connection with others over which something may still come. */
static int capture_descriptors(struct source *s, struct err *e)
{
	int ret = fdtable_recapture(&s->unit.fds, true, &s->unit.files, s->refusals, e);

	while (ret == 0 && !s->refusals->n && (ret = source_net_add(s, e)) > 0)
		ret = fdtable_recapture(&s->unit.fds, true, &s->unit.files, s->refusals, e);
	return ret == 0 ? source_address_check(s, e) : ret;
}

/* Its list of calls has been run, or runs: this one comes behind it. A thread that has none is a tracee, and can make no call. */
static int enter_uring(void *arg, pid_t tid, unsigned fd, struct err *e)
{
	struct parked *t = source_find_parked(arg, tid, 0);
	struct batch *b;
	int ret;

	if (!t || t->plain)
		return err_set(e, -EAGAIN, "thread %d, which uses an io_uring, is not parked", tid);
	ret = task_wait(&t->task, 5000, e);
	if (ret < 0)
		return ret;
	b = batch_new(&t->task);
	batch_try(b, "io_uring_enter", SYS_io_uring_enter, fd, 0, 0, IORING_ENTER_GETEVENTS, 0, 0);
	ret = batch_run(b, e);
	batch_free(b);
	return ret;
}

static int capture_urings(struct source_process *p, struct err *e)
{
	const Gw__Clocks *clocks = p->u->process->clocks;
	const struct uring_enter enter = { enter_uring, p, { clocks->monotonic_offset_ns, clocks->boottime_offset_ns } };

	return p->u->guest ? 0 : uring_recapture(p->u->pid, p->u->pidfd, source_layout(p), p->u->urings, &enter, p->process, e);
}

static bool have_pinned(const struct source *s)
{
	for (size_t i = 0; i < s->nprocs; i++)
		if (uring_pinned_bytes(s->procs[i].process))
			return true;
	return false;
}

int source_compare(struct source *s, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = compare_layout(&s->procs[i], e);
	/* What is in flight writes memory and files. */
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = aio_capture(s->procs[i].u->pid, source_layout(&s->procs[i]), s->procs[i].process, e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = capture_urings(&s->procs[i], e);
	if (ret == 0)
		ret = capture_descriptors(s, e);
	for (uint32_t i = 0; i < s->nprocs && ret == 0; i++)
		uring_refuse_relayed(s->unit.fds.msg, i, s->procs[i].process, s->refusals);
	if (ret == 0 && s->refusals->n)
		ret = refusals_begun(s->refusals, s->request->pid, e);
	if (ret == 0 && !s->direct_io && (fdtable_has_direct_io(s->unit.fds.msg) || have_pinned(s)))
		ret = err_set(e, -EAGAIN, "process %d has begun direct I/O since the offer", s->request->pid);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		ret = uring_recheck(s->procs[i].u->pid, s->procs[i].u->urings, e);
	if (ret == 0 && fdtable_has_moved_rings(&s->unit.fds))
		ret = err_set(e, -EAGAIN, "process %d has other io_urings than at the offer", s->request->pid);
	if (ret == 0 && s->unit.ns)
		ret = ns_entries_check(s->unit.ns, &s->unit.files, e);
	if (ret == 0 && s->unit.ns)
		ret = ns_nets_freeze(s->unit.ns, e);
	if (ret == 0)
		ret = source_home_check(s, e);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		if (s->procs[i].layout_changed)
			vma_list_apply_answers(&s->procs[i].frozen_vmas, s->answers, s->nanswers);
	return ret < 0 ? ret : tell_files(s, e);
}

/* mlockall(2) may have been called since the agent came. */
static int check_locking(const struct source_process *p, const struct restart_record *r, struct err *e)
{
	uint32_t now = r && r->new_mappings & vma_peek_bit(VMA_PEEK_LOCKED) ? MCL_FUTURE : 0;

	if (!r || !vma_peek_bit(VMA_PEEK_LOCKED) || p->u->guest)
		return 0;
	if (now && r->new_mappings & vma_peek_bit(VMA_PEEK_LOCKONFAULT))
		now |= MCL_ONFAULT;
	return now == p->agent.mlock_future ? 0 : err_set(e, -EAGAIN, "process %d has called mlockall or munlockall since the offer", p->u->pid);
}

/* Where nothing of it can have changed since, nothing is looked at. */
int source_look(struct source_process *p, struct err *e)
{
	const struct restart_record *r = source_find_record(p, 1, p->u->pid, 0);
	int rc;

	if (check_locking(p, r, e) < 0)
		return -EAGAIN;
	p->process->continue_unreported = r && r->look.known && r->look.continued;
	if (p->seen.known && r && !memcmp(&r->look, &p->seen, sizeof(p->seen)) && !p->process->stopped_by)
		return 0;
	rc = process_capture_look(&p->query, p->process, e);
	if (rc < 0)
		return rc;
	return cwd_is_reached(p->u->pid, p->process) ? 0 : err_set(e, -EAGAIN, "process %d is in a directory that no path leads to", p->u->pid);
}
