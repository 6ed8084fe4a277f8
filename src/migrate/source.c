/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source.c - the source's worker: the table of its steps, those that have no file of their own, and attempts
 *
 * Theory of operation: see ARCHITECTURE.md, "One migration". The process runs untouched until the step "agent", shortly stops there, and runs on until the
 * step "freeze". Every step before "commit" can be undone; from "commit" on the process here never runs again. Techniques of Roush and Campbell
 * (1996): nothing is asked or answered between the stop and the resume (source_go sends one message); the pages that the first instructions need
 * are known from the registers (source_freeze.c); the destination has built everything before (the steps "offer" to "rounds").
 */
#include "migrate/source.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/util.h"
#include "image/ns_net.h"
#include "image/restart.h"
#include "kern/fdpass.h"
#include "migrate/checkpoint.h"
#include "migrate/guard.h"
#include "migrate/hold.h"
#include "migrate/kin.h"
#include "migrate/pace.h"
#include "migrate/registry.h"
#include "migrate/timeline.h"
#include "wire/frame.h"

#define PREPARED_MS 60000
#define COUNT_UP_MS_MAX 86400000ull
#define TRIES 40
#define TRIES_RUNNING 3              /* after so many the unit is held from the beginning */
#define TORN_TRIES 4
#define PASSING_NS 5000000000ull /* how long nothing but a vfork() that has not called exec (its parent waits like for a device), or connections that are not accepted, may be in the way */
#define PASSING_PAUSE_US 2000
#define AGAIN_NS 10000000000ull       /* attempts are begun for so long ... */
#define TRIES_AT_LEAST (TRIES_RUNNING + 2) /* ... and some with the unit held, however slow the machine */
#define AGENT_END_MS 60000

struct link_peer source_peer(const struct source *s)
{
	return (struct link_peer){ &s->request->dest, s->mig_id, s->request->self_name, s->request->image != NULL };
}

/* --- hello --- */

static int step_hello(void *context, struct err *e)
{
	struct source *s = context;
	struct link_peer peer = source_peer(s);
	struct frame f;
	int ret;

	if (s->request->image)
		memcpy(s->mig_id, s->request->image->mig_id, sizeof(s->mig_id));
	else if (getrandom(s->mig_id, sizeof(s->mig_id), 0) != (ssize_t)sizeof(s->mig_id))
		return err_sys(e, errno, "random numbers");
	ret = link_connect(&s->link, ROLE_CONTROL, 0, &peer, e);
	if (ret < 0)
		return ret;
	ret = frame_recv_expect(s->link.control, FRAME_HELLO, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, e);
	if (ret == -EBUSY) /* the node as a whole takes nothing now */
		refusals_add(s->refusals, "node.closed", e->message, "name another node (`godwit nodes` shows how they are), or open that one", "host %s", s->request->dest_name);
	if (ret < 0)
		return err_wrap(e, "%s", s->request->dest_name);
	ret = hello_decode(f.payload, f.len, &s->peer, e);
	frame_free(&f);
	if (ret == 0 && strcmp(s->peer->arch, hello_arch()) != 0) {
		refusals_add(s->refusals, "node.arch", "registers and addresses mean nothing there", "use a program that says what its state is (libgodwit-portable), or another host",
			     "%s is of another architecture (%s) than this host (%s)", s->request->dest_name, s->peer->arch, hello_arch());
		return err_set(e, -EPERM, "process %d cannot move", s->request->pid);
	}
	return ret < 0 ? ret : link_connect(&s->link, ROLE_GO, 0, &peer, e);
}

/* --- content --- */

static int step_content(void *context, struct err *e)
{
	int ret = source_track_shared(context, e);

	if (ret == 0)
		ret = source_send_common(context, e);
	return ret < 0 ? ret : source_send_contents(context, e);
}

/* --- prepare: the destination builds; nothing to do here but wait --- */

/* How long the destination may take to bring new io_urings to where the old ones are (image/uring.h), at a microsecond for each request. */
static uint64_t count_up_ms(const struct source *s)
{
	uint64_t requests = 0;

	for (size_t i = 0; i < s->unit.nprocs; i++)
		for (size_t k = 0; k < s->unit.procs[i].process->n_urings; k++)
			requests += MAX(s->unit.procs[i].process->urings[k]->sq_head, s->unit.procs[i].process->urings[k]->cq_tail);
	return MIN(requests / 1000, COUNT_UP_MS_MAX);
}

static int step_prepare(void *context, struct err *e)
{
	struct source *s = context;
	struct frame f;
	int ret = frame_recv_expect(s->link.control, FRAME_PREPARED, &f, FRAME_HELLO_MAX, (int)(PREPARED_MS + count_up_ms(s)), e);

	if (ret < 0)
		return err_wrap(e, "%s", s->request->dest_name);
	frame_free(&f);
	return 0;
}

/* --- push --- */

void source_account(struct source *s)
{
	struct migrate_report *r = s->report;

	r->pages_sent = r->pages_skipped_zero = r->pages_faulted = 0;
	r->bytes_sent = s->content_bytes + s->ahead_bytes + s->go_pages_len;
	for (size_t i = 0; i < s->nprocs; i++) {
		const struct source_process *p = &s->procs[i];
		const struct agent_counters *c = &scratch_header(&p->agent.scratch)->counters;

		r->pages_sent += p->pages.sent.pages_sent + p->go_runs.pages + c->pages_sent;
		r->pages_skipped_zero += p->pages.sent.pages_zero + c->pages_zero;
		r->pages_faulted += c->pages_faulted;
		r->bytes_sent += p->pages.sent.bytes_sent + c->bytes_sent;
	}
}

/* Waits until the agent of one process has sent everything. */
static int wait_pushed(struct source_process *p, struct err *e)
{
	struct source *s = p->s;
	struct scratch_header *h = scratch_header(&p->agent.scratch);
	struct pace_demand demand = { 0 };

	while (!__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE)) {
		struct pollfd f[3] = { { p->agent.pidfd, POLLIN, 0 }, { s->link.control, POLLIN | POLLRDHUP, 0 }, { p->agent.socket, POLLIN, 0 } };

		pace_warm_on_demand(&demand, h->counters.pages_faulted);
		poll(f, ARRAY_SIZE(f), s->push ? 5 : 200);
		agent_heard(&p->agent);
		source_account(s);
		if (s->request->progress)
			s->request->progress(s->report, s->request->progress_arg);
		if (f[0].revents && !__atomic_load_n(&h->finished, __ATOMIC_ACQUIRE))
			return err_set(e, -ESRCH, "the frozen image of process %d ended before all its pages had left", p->u->pid);
		if (f[1].revents)
			usleep(1000);
	}
	pace_cool();
	if (h->agent_error)
		return err_sys(e, h->agent_error, "pushing the pages of process %d", p->u->pid);
	return 0;
}

static int step_push(void *context, struct err *e)
{
	struct source *s = context;
	int ret = 0;

	if (s->unit.ns)
		ns_nets_gone(s->unit.ns);
	if (!s->push) {
		s->report->total_ms = (double)(clock_ns(CLOCK_MONOTONIC) - s->begin_ns) / 1e6;
		s->report->outcome = "moved"; /* what is left stays until it is asked for; the user need not wait */
	}
	/* One that fails does not end the others. */
	for (size_t i = 0; i < s->nprocs; i++) {
		int one = wait_pushed(&s->procs[i], ret < 0 ? NULL : e);

		ret = ret < 0 ? ret : one;
	}
	source_account(s);
	return ret;
}

/* --- release --- */

/* The first processes of pid namespaces are left to us (equip), unless the root has become a stub. */
static void end_namespaces(struct source *s)
{
	bool waited = false;

	for (size_t i = s->nprocs; i-- > 0;) {
		if (!scratch_header(&s->procs[i].agent.scratch)->ends_namespace || (!i && source_home_has_stub(s)))
			continue;
		for (size_t k = 0; k < s->nprocs && !waited; k++)
			poll(&(struct pollfd){ s->procs[k].agent.pidfd, POLLIN, 0 }, 1, 5000);
		waited = true;
		pidfd_signal(s->unit.procs[i].pidfd, SIGKILL);
		source_held_reap(&s->procs[i]);
	}
}

/*
 * The processes have ended; that their agents free the memory (half a second for some GiB) nobody needs to wait for. Where namespaces or control groups of the unit's own
 * end with the agents, it is only then that all has gone.
 */
static void tell_left(struct source *s)
{
	if (!s->request->progress || s->unit.ns || (s->unit.cgroups && s->unit.cgroups->n_groups))
		return;
	s->report->left = true;
	s->report->total_ms = (double)(clock_ns(CLOCK_MONOTONIC) - s->begin_ns) / 1e6;
	s->report->outcome = "moved";
	s->request->progress(s->report, s->request->progress_arg);
	timeline_mark("told");
}

static int step_release(void *context, struct err *e)
{
	struct source *s = context;
	struct frame f;

	(void)e;
	for (size_t i = 0; i < s->nprocs; i++) {
		struct agent *a = &s->procs[i].agent;

		task_wait(&a->task, 1000, NULL);
		pace_calm(a->pid); /* what is left to do for it is to free memory */
		task_command(&a->task, COMMAND_LEAVE);
		task_wake(&a->task, NULL);
	}
	if (frame_recv_expect(s->link.control, FRAME_RELEASE, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, NULL) == 0)
		frame_free(&f);
	end_namespaces(s);
	for (size_t i = 0; i < s->nprocs; i++) {
		struct pollfd process = { s->unit.procs[i].pidfd, POLLIN, 0 };

		if (s->home.kind != HOME_STUB || i > 0)
			poll(&process, 1, 5000);
		registry_remove(s->unit.procs[i].pid, NULL);
	}
	tell_left(s);
	for (size_t i = 0; i < s->nprocs; i++)
		poll(&(struct pollfd){ s->procs[i].agent.pidfd, POLLIN, 0 }, 1, AGENT_END_MS);
	if (s->unit.cgroups)
		cgroups_remove(s->unit.cgroups);
	return 0;
}

static const struct step steps[] = {
	{ "hello", step_hello, NULL, false, false },
	{ "offer", source_offer, source_offer_undo, false, true },
	{ "agent", source_agent, source_agent_undo, false, true },
	{ "content", step_content, NULL, false, true },
	{ "prepare", step_prepare, NULL, false, true },
	{ "rounds", source_rounds, NULL, false, true },
	{ "freeze", source_freeze, source_thaw, false, true },
	{ "go", source_go, NULL, false, true },
	{ "commit", source_commit, NULL, true, true },
	{ "home", source_home, NULL, true, true },
	{ "push", step_push, NULL, true, false },
	{ "release", step_release, NULL, true, false },
};

const struct step_table source_steps = { "source", steps, ARRAY_SIZE(steps) };

static int watch_step(void *context, const struct step *step, struct err *e)
{
	struct source *s = context;
	unsigned timeout_ms = s->request->timeout_ms;

	s->report->phase = step->name;
	timeline_step(step->name);
	if (!strcmp(step->name, "home") && s->request->has_left)
		s->request->has_left(s->request->leave_arg);
	if (step->committed || !strcmp(step->name, "go"))
		return fault_point("source", step->name, s->link.control, e);
	if (s->request->progress && s->request->progress(s->report, s->request->progress_arg))
		return err_set(e, -ECANCELED, "cancelled before the commit; process %d goes on here", s->request->pid);
	if (timeout_ms && clock_ns(CLOCK_MONOTONIC) - s->begin_ns > (uint64_t)timeout_ms * 1000000)
		return err_set(e, -ETIMEDOUT, "not committed within %u ms; process %d goes on here", timeout_ms, s->request->pid);
	if (!strcmp(step->name, "agent") && s->request->may_leave) {
		int r = s->request->may_leave(s->report->unit, s->moves, s->peer->node_name, s->refusals, s->request->leave_arg, e);

		if (r < 0)
			return r;
	}
	return fault_point("source", step->name, s->link.control, e);
}

static void identify(struct source *s)
{
	struct registry_entry entry;

	if (registry_lookup(s->request->pid, &entry, NULL) == 0) {
		snprintf(s->report->unit, sizeof(s->report->unit), "%s", entry.unit);
		s->moves = entry.moves;
		s->cpu_ms = entry.cpu_ms;
		s->started = entry.started;
		s->protection = entry.protection;
		s->programs = entry.programs;
	} else {
		snprintf(s->report->unit, sizeof(s->report->unit), "%s:%d", s->request->self_name, s->request->pid);
	}
}

static void process_free(struct source_process *p)
{
	for (size_t i = 0; i < p->nparked; i++) {
		batch_free(p->parked[i].batch);
		if (p->parked[i].msg)
			gw__thread__free_unpacked(p->parked[i].msg, NULL);
	}
	free(p->parked);
	if (p->process)
		gw__process__free_unpacked(p->process, NULL);
	agent_forget(&p->agent);
	close_fdp(&p->mem_fd);
	for (int i = 0; i < 2; i++)
		free(p->records[i]);
	restart_watch_close(p->watch);
	thread_peek_close(&p->peek);
	range_list_free(&p->count.lazy_ranges);
	free(p->late_queue.data);
	run_list_free(&p->hot);
	source_free_beside(p);
	source_free_ahead(p);
	run_list_free(&p->common);
	run_list_free(&p->go_runs);
	run_list_free(&p->stale);
	vma_list_free(&p->frozen_vmas);
	pages_free(&p->pages);
}

static void source_free(struct source *s)
{
	hold_release();
	source_untrack_shared(s);
	for (size_t i = 0; i < s->nprocs; i++)
		process_free(&s->procs[i]);
	source_home_free(s);
	free(s->procs);
	free(s->go_pages);
	if (s->peer)
		hello_free(&s->peer);
	source_files_free(s);
	source_view_end(s);
	shared_free(&s->shared);
	free(s->news_frame);
	free(s->answers);
	source_net_free(s);
	source_address_free(s);
	unit_free(&s->unit);
	link_close(&s->link);
}

/* hold: the unit stands still from the beginning. */
static int try_once(const struct migrate_request *request, bool hold, struct migrate_report *report, struct refusals *refusals, bool *ret_committed,
		    struct err *e)
{
	static struct source s;
	int ret;

	s = (struct source){ .request = request, .report = report, .refusals = refusals, .begin_ns = clock_ns(CLOCK_MONOTONIC), .link = LINK_INIT,
			     .unit = UNIT_INIT, .hold = hold, .home = { .mover = -1 }, .export = FILES_EXPORT_INIT };
	timeline_begin();
	report->attempts++;
	report->strategy = request->strategy;
	snprintf(report->from, sizeof(report->from), "%s", request->self_name);
	snprintf(report->to, sizeof(report->to), "%s", request->dest_name);
	identify(&s);
	ret = steps_run(&source_steps, &s, watch_step, ret_committed, e);
	*ret_committed &= !s.backed_out;
	/* Then that is why something failed, or looked as if it could not move. */
	if (ret < 0 && ret != -ECANCELED && !*ret_committed && unit_has_changed(&s.unit)) {
		refusals_free(refusals);
		*refusals = (struct refusals){ 0 };
		ret = -EAGAIN;
	}
	if (ret < 0 && *ret_committed)
		err_wrap(e, "process %d has been handed over (`godwit ps` on %s says whether it runs there)", request->pid, request->dest_name);
	report->total_ms = (double)(clock_ns(CLOCK_MONOTONIC) - s.begin_ns) / 1e6;
	if (ret == 0)
		report->outcome = "moved";
	else if (report->outcome == NULL)
		report->outcome = *ret_committed ? "in-doubt" : refusals->n ? "refused" : ret == -ECANCELED ? "cancelled" : "failed";
	timeline_mark("end");
	timeline_log();
	source_free(&s);
	return ret;
}

/* A vfork() or exec() is under way, or somebody has just connected to it, or gone, of which it is about to learn. */
static bool only_passing(const struct refusals *r)
{
	static const char *const codes[] = { "task.shared-memory", "task.uninterruptible", "task.no-vdso", "fd.socket.unix.accept-queue", "fd.socket.unix.queue", "fd.socket.accept-queue", "fd.outside" };

	for (size_t i = 0; i < r->n; i++) {
		bool passes = false;

		for (size_t k = 0; k < ARRAY_SIZE(codes); k++)
			passes |= !strncmp(r->v[i].code, codes[k], strlen(codes[k]));
		if (!passes)
			return false;
	}
	return r->n > 0;
}

/*
 * What was read of a running program at different moments may not fit together: a mapping that may be written to, of a file that has been sealed meanwhile. Such
 * a picture fails in one way or another where it is used; another one may be whole. What is wrong all the time fails again.
 */
static bool may_be_torn(int code)
{
	switch (-code) {
	case EPERM:
	case ENOENT:
	case ESRCH:
	case EBADF:
	case EACCES:
	case EFAULT:
	case EEXIST:
	case ENOTDIR:
	case ENODEV:
	case EINVAL:
		return true;
	}
	return false;
}

int migrate_source(const struct migrate_request *request, struct migrate_report *report, struct refusals *refusals, struct err *e)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC), spent, passing_since = 0;
	bool committed, passing, torn;
	int torn_tries = 0, ret;

	fault_load();
	tcp_outside_set_policy(request->tcp);
	limits_raise_descriptors();
	guard_start();
	pace_calm(0);
	pace_prepare(false);
	xstate_layout_here(); /* slow the first time */
	for (int tries = 1;; tries++) {
		ret = try_once(request, tries > TRIES_RUNNING && !request->ask_only, report, refusals, &committed, e);
		if (ret == -ESRCH && !committed && kill(request->pid, 0) == 0) /* another one of the unit has ended between two looks */
			ret = -EAGAIN;
		spent = clock_ns(CLOCK_MONOTONIC) - begin;
		passing = ret < 0 && only_passing(refusals);
		passing_since = !passing ? 0 : passing_since ? passing_since : MAX(spent, 1u);
		passing = passing && spent - passing_since < PASSING_NS;
		torn = ret < 0 && !refusals->n && may_be_torn(ret) && torn_tries++ < TORN_TRIES;
		if ((ret != -EAGAIN && ret != -ESTALE && !passing && !torn) || committed || (tries >= TRIES && !passing) ||
		    (spent > AGAIN_NS && tries >= TRIES_AT_LEAST)) {
			kin_advise(request->pid, request->also, request->n_also, refusals);
			return ret;
		}
		if (passing) {
			/* Not one after which the unit is held: who waits in vfork() cannot be stopped, and who is stopped accepts no connection. */
			if (spent <= AGAIN_NS)
				tries = MIN(tries, TRIES_RUNNING) - 1;
			refusals_free(refusals);
			*refusals = (struct refusals){ 0 };
			usleep(PASSING_PAUSE_US);
		}
		/* Something changed between the offer and the freeze that the destination had not been told of. */
		log_info("event=again pid=%d text=\"%s\"", request->pid, e->message);
		report->outcome = NULL;
		*e = ERR_INIT;
	}
}
