/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_go.c - from the go message to the running process
 *
 * Theory of operation: the message is read into memory that has been touched before. Pages that come with it are put in place, then every thread of the skeleton
 * runs its list of calls, all at the same time; registers follow, and skeleton_release lets go. Nothing is asked of the source.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "image/restart.h"
#include "kern/pagemap.h"
#include "kern/trace.h"
#include "migrate/dest.h"
#include "migrate/arrival.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "migrate/registry.h"
#include "migrate/timeline.h"

#define PRIME_TRIES 200

/* --- receiving --- */

static int receive_exactly(int fd, void *to, size_t len, struct err *e)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = recv(fd, (char *)to + got, len - got, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? err_sys(e, errno, "the go message") : err_set(e, -ECONNRESET, "the source ended the migration");
		got += (size_t)n;
	}
	return 0;
}

static int receive_go(struct dest *d, bool news_taken, struct frame *ret, struct err *e)
{
	uint8_t header[FRAME_HEADER_BYTES];
	int ret_code = receive_exactly(d->link.fd[ROLE_GO], header, sizeof(header), e);

	if (ret_code == 0)
		ret_code = frame_header_decode(header, DEST_GO_MAX, ret, e);
	if (ret_code)
		return ret_code;
	if (ret->type == FRAME_FILES && !news_taken) {
		cleanup_free void *news = malloc(ret->len + 1ul);

		ret_code = news ? receive_exactly(d->link.fd[ROLE_GO], news, ret->len, e) : err_sys(e, ENOMEM, "news of files");
		if (ret_code == 0)
			ret_code = dest_files_frozen(d, news, ret->len, e);
		return ret_code < 0 ? ret_code : receive_go(d, true, ret, e);
	}
	if (ret->type != FRAME_GO || ret->len < sizeof(uint32_t))
		return err_set(e, -EPROTO, "%s instead of the go message", frame_type_name(ret->type));
	if (ret->len > d->go_buffer_len) {
		d->go_buffer = mmap(NULL, ret->len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (d->go_buffer == MAP_FAILED)
			return err_sys(e, ENOMEM, "the go message of %u bytes", ret->len);
		d->go_buffer_len = ret->len;
	}
	return receive_exactly(d->link.fd[ROLE_GO], d->go_buffer, ret->len, e);
}

static int decode_go(struct dest *d, uint32_t payload_len, struct err *e)
{
	const struct go_terms terms = { d->offer->pid, scratch_header(&d->skeleton.agent.scratch)->nslots, d->files.n, d->fds };
	struct refusals refusals = { 0 };
	int ret = go_decode(d->go_buffer, payload_len, &terms, &d->decoded, e);

	d->go = d->decoded.msg;
	d->final_process = d->decoded.process;
	d->final_threads = d->decoded.threads;
	d->nfinal = d->decoded.nthreads;
	d->final_fds = d->decoded.fds;
	d->final_mm = d->decoded.mm;
	if (ret == 0)
		process_validate_here(d->final_process, &refusals);
	if (refusals.n)
		ret = err_set(e, -EPERM, "%s: %s", refusals.v[0].thing, refusals.v[0].cause);
	refusals_free(&refusals);
	return ret;
}

/*
 * A program that is stopped while it changes its mappings: where all pages come in the freeze, the layout comes before them, and both before the go
 * message.
 */
static int take_late_layout(struct dest *d, struct err *e)
{
	struct pollfd p[2] = { { d->link.fd[ROLE_GO], POLLIN, 0 }, { d->link.fd[ROLE_CONTROL], POLLIN, 0 } };
	struct frame f;
	bool over;
	char byte;
	int ret;

	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	/* The end of the control connection says nothing: the go connection tells the rest. */
	if (!p[1].revents || recv(p[1].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
		return 0;
	ret = frame_recv_expect(d->link.fd[ROLE_CONTROL], FRAME_ROUND, &f, FRAME_PAYLOAD_MAX, LINK_TIMEOUT_MS, e);
	if (ret < 0)
		return ret;
	ret = dest_take_round(d, &f, &over, e);
	frame_free(&f);
	return ret;
}

int dest_go(void *context, struct err *e)
{
	struct dest *d = context;
	struct frame f;
	int ret;

	link_make_patient(&d->link);
	ret = d->post_copy ? 0 : take_late_layout(d, e);
	if (ret == 0)
		ret = receive_go(d, false, &f, e);
	timeline_mark("go received");
	if (ret == 0)
		ret = decode_go(d, f.len, e);
	timeline_mark("go decoded");
	if (ret == 0 && d->go->bulk) {
		int64_t *result = &scratch_slot(&d->skeleton.agent.scratch, 0)->result;

		ret = task_wait(&d->skeleton.agent.task, 60000, e);
		if (ret == 0 && *result < 0)
			ret = err_sys(e, (int)*result, "receiving pages");
	}
	return ret;
}

/* --- memory --- */

static int drop_stale(struct dest *d, struct err *e)
{
	const struct page_run *r = (const struct page_run *)d->go->stale.data;
	struct batch *b = d->skeleton.threads[0]->batch;
	int ret;

	for (size_t i = 0; i < d->go->stale.len / sizeof(*r); i++)
		batch_call(b, "madvise", SYS_madvise, r[i].address, (uint64_t)r[i].npages * PAGE_SIZE_BYTES, MADV_DONTNEED);
	ret = batch_run(b, e);
	batch_reset(b);
	return ret;
}

/* Puts pages into one mapping: by the userfaultfd where it watches, over what is there otherwise. */
static int install_run(struct dest *d, const struct vma *v, uint64_t to, const uint8_t *from, uint64_t len, struct err *e)
{
	if (d->post_copy && v->content == VMA_CONTENT_ANON) {
		int ret = uffd_copy(d->skeleton.agent.uffd, to, from, len, NULL);

		/* What is one mapping at the source may be several here, when parts of it were made at different times (ENOENT). */
		if (ret == 0)
			return 0;
		for (uint64_t at = 0; at < len; at += PAGE_SIZE_BYTES) {
			ret = uffd_copy(d->skeleton.agent.uffd, to + at, from + at, PAGE_SIZE_BYTES, e);
			if (ret == -EEXIST)
				ret = trace_poke(d->skeleton.mem_fd, to + at, from + at, PAGE_SIZE_BYTES, e);
			if (ret < 0)
				return ret;
		}
		return 0;
	}
	return trace_poke(d->skeleton.mem_fd, to, from, len, e);
}

static int install_pages(struct dest *d, struct err *e)
{
	const struct page_run *r = (const struct page_run *)d->go->runs.data;
	const uint8_t *from = d->decoded.pages;

	for (size_t i = 0; i < d->go->runs.len / sizeof(*r); i++) {
		uint64_t at = r[i].address, end = at + (uint64_t)r[i].npages * PAGE_SIZE_BYTES;

		while (at < end) {
			const struct vma *v = vma_find(&d->vmas, at);
			uint64_t len = MIN(v->end, end) - at;
			int ret = install_run(d, v, at, from, len, e);

			if (ret < 0)
				return ret;
			at += len;
			from += len;
		}
	}
	return 0;
}

static int restore_memory(struct dest *d, struct err *e)
{
	struct vma_list vmas = { 0 };
	int ret = 0;

	if (d->go->vmas.len) {
		ret = vma_list_decode(d->go->vmas.data, d->go->vmas.len, d->files.n, &vmas, e);
		if (ret == 0)
			ret = dest_sync_layout(d, &vmas, e);
	}
	if (ret == 0)
		ret = go_check_pages(&d->decoded, &d->vmas, e);
	if (ret == 0)
		ret = drop_stale(d, e);
	if (ret == 0 && d->offer->strategy == STRATEGY_HYBRID)
		ret = dest_register(d, NULL, e);
	if (ret == 0)
		ret = install_pages(d, e);
	if (ret == 0 && d->post_copy)
		ret = dest_set_pieces(d, e);
	if (ret == 0 && d->post_copy) {
		task_command(&d->skeleton.agent.task, COMMAND_PAGER);
		ret = task_wake(&d->skeleton.agent.task, e);
	}
	return ret;
}

/* --- threads --- */

static const Gw__Thread *find_thread(Gw__Thread *const *threads, size_t n, pid_t tid)
{
	for (size_t i = 0; i < n; i++)
		if (threads[i]->tid == tid)
			return threads[i];
	return NULL;
}

/* Threads that were made or ended at the source since the offer. */
static int match_threads(struct dest *d, struct err *e)
{
	struct skeleton *s = &d->skeleton;
	int ret = 0;

	for (size_t i = s->nthreads; i-- > 1 && ret == 0;)
		if (!find_thread(d->final_threads, d->nfinal, s->threads[i]->tid))
			ret = skeleton_end_thread(s, s->threads[i]->tid, e);
	for (size_t i = 0; i < d->nfinal && ret == 0; i++) {
		if (!skeleton_find_thread(s, d->final_threads[i]->tid))
			ret = skeleton_add_thread(s, d->final_threads[i]->tid, e);
	}
	return ret;
}

static int plan_thread(const struct dest *d, struct skeleton_thread *t, const Gw__Thread *msg, struct err *e)
{
	int ret = thread_plan_restore(t->batch, msg, THREAD_MODES, e);

	if (ret == 0)
		ret = thread_plan_restore(t->batch, msg, THREAD_CREDENTIALS, e);
	if (ret == 0) {
		signal_plan_queue(t->batch, d->offer->pid, msg->tid, false, &msg->pending);
		thread_plan_memory(t->batch, msg);
	}
	return ret;
}

static int plan_main(struct dest *d, struct err *e)
{
	struct batch *b = d->skeleton.threads[0]->batch;
	int ret = fdtable_restore_update(d->fds, d->final_fds, &d->env, &d->restore, b, e);

	if (ret == 0 && memcmp(&d->mm, &d->final_mm, sizeof(d->mm)))
		mm_plan_restore(b, &d->final_mm, -1);
	if (ret == 0)
		ret = process_plan_restore(b, d->final_process, PROCESS_THREADS, NULL, 0);
	return ret;
}

static int run_lists(struct dest *d, struct err *e)
{
	struct skeleton *s = &d->skeleton;
	struct batch *b = s->threads[0]->batch;
	uint64_t now = clock_process_ns(d->clocks.monotonic_ns);
	int ret = plan_main(d, e);

	timeline_mark("main planned");
	for (size_t i = 0; i < d->nfinal && ret == 0; i++)
		ret = plan_thread(d, skeleton_find_thread(s, d->final_threads[i]->tid), d->final_threads[i], e);
	if (ret == 0)
		ret = process_plan_restore(b, d->final_process, PROCESS_LATE, NULL, now);
	if (ret == 0)
		ret = process_plan_restore(b, d->final_process, PROCESS_ARM, NULL, now);
	if (ret < 0 && !e->code)
		err_set(e, ret, "the lists of calls");
	timeline_mark("lists planned");
	for (size_t i = 0; i < s->nthreads && ret == 0; i++)
		ret = batch_start(s->threads[i]->batch, e);
	timeline_mark("lists started");
	/* Beside them, what the worker has to do for the process from outside. */
	if (ret == 0)
		ret = process_restore_outside(s->pid, d->final_process, d->process, e);
	for (size_t i = 0; i < s->nthreads && ret == 0; i++) {
		ret = batch_finish(s->threads[i]->batch, e);
		if (i == 0)
			timeline_mark("main list done");
	}
	timeline_mark("lists done");
	return ret < 0 ? ret : fdtable_restore_check(&d->restore, e);
}

/* --- interrupted calls --- */

/* The call has ended; the thread must come to its rest, or the SIGSTOP by which it rests would still be on its way when it is let go. */
static int rest_again(struct skeleton_thread *t, int status, struct err *e)
{
	if (WSTOPSIG(status) == SIGSTOP && status >> 16 == 0)
		return 0;
	if (ptrace(PTRACE_CONT, t->task.tid, 0, 0) < 0)
		return err_sys(e, errno, "thread %d: priming", t->tid);
	return task_wait(&t->task, -1, e);
}

/*
 * Has a thread issue a call and stops it in there, so that the kernel's own restart block is set. Returns with the thread stopped; *ret_result is what the
 * registers say.
 */
static int prime(struct skeleton_thread *t, const struct restart_prime *p, int64_t *ret_result, struct err *e)
{
	struct slot *slot = scratch_slot(t->task.scratch, t->task.slot);
	struct remote_call *call;
	uint64_t arg[6];

	batch_reset(t->batch);
	memcpy(arg, p->arg, sizeof(arg));
	if (p->request_arg >= 0)
		arg[p->request_arg] = batch_data(t->batch, p->request, sizeof(p->request));
	call = batch_call_array(t->batch, "primed call", p->nr, CALL_MAY_FAIL, arg);
	batch_prepare(t->batch);
	if (ptrace(PTRACE_CONT, t->task.tid, 0, 0) < 0)
		return err_sys(e, errno, "thread %d: priming", t->tid);
	for (int i = 0; i < PRIME_TRIES; i++) {
		struct user_regs_struct regs;
		int status, ret;

		usleep(10u << MIN(i / 16, 9)); /* on a busy host the thread needs time to get a CPU */
		if (trace_interrupt(t->task.tid, e) < 0 || waitpid(t->task.tid, &status, __WALL) < 0)
			return err_sys(e, errno, "thread %d: priming", t->tid);
		if (!WIFSTOPPED(status))
			return err_set(e, -ESRCH, "thread %d ended while it was primed", t->tid);
		if (__atomic_load_n(&slot->done, __ATOMIC_ACQUIRE) == slot->seq) {
			*ret_result = call->ret;
			return rest_again(t, status, e);
		}
		ret = trace_get_regs(t->task.tid, &regs, e);
		if (ret)
			return ret;
		if (regs.orig_rax == p->nr && (int64_t)regs.rax < 0) {
			*ret_result = (int64_t)regs.rax;
			return 0;
		}
		if (ptrace(PTRACE_CONT, t->task.tid, 0, 0) < 0)
			return err_sys(e, errno, "thread %d: priming", t->tid);
	}
	return err_set(e, -ETIMEDOUT, "thread %d did not enter its interrupted call", t->tid);
}

static int settle_restart(struct dest *d, struct skeleton_thread *t, Gw__Thread *msg, struct err *e)
{
	struct restart_now now = restart_now_read(d->clocks.monotonic_ns, d->clocks.boottime_ns);
	struct user_regs_struct *regs = (struct user_regs_struct *)msg->regs.data;
	struct restart_patch patch = { 0 };
	struct restart_prime p;

	if (!msg->restart || msg->restart->kind == GW__RESTART__KIND__NONE)
		return 0;
	if (restart_prime_call(msg, &now, &p)) {
		int64_t result = -EINTR;
		int ret = prime(t, &p, &result, e);

		if (ret < 0)
			return ret;
		restart_prime_done(regs, result);
		return 0;
	}
	restart_finish(regs, msg->restart, &now, &patch);
	return patch.len ? trace_poke(d->skeleton.mem_fd, patch.address, patch.data, patch.len, e) : 0;
}

static int set_registers(struct dest *d, struct err *e)
{
	struct xstate_layout layout;
	int ret = 0;

	xstate_layout_of(d->final_process, &layout);
	for (size_t i = 0; i < d->nfinal && ret == 0; i++) {
		struct skeleton_thread *t = skeleton_find_thread(&d->skeleton, d->final_threads[i]->tid);

		ret = settle_restart(d, t, d->final_threads[i], e);
		if (ret == 0)
			ret = thread_restore_sched(t->task.tid, d->final_threads[i], e);
		if (ret == 0)
			ret = thread_apply_registers(t->task.tid, d->final_threads[i], &layout, e);
	}
	return ret;
}

int dest_restore(void *context, struct err *e)
{
	struct dest *d = context;
	int ret = match_threads(d, e);

	if (ret == 0)
		ret = restore_memory(d, e);
	timeline_mark("memory restored");
	if (ret == 0)
		ret = run_lists(d, e);
	timeline_mark("lists run");
	ret = ret < 0 ? ret : set_registers(d, e);
	timeline_mark("registers set");
	return ret;
}

/* --- commit --- */

static void register_unit(struct dest *d)
{
	struct registry_entry entry = { .pid = d->skeleton.pid, .moves = d->offer->moves + 1 };

	snprintf(entry.unit, sizeof(entry.unit), "%s", d->offer->unit);
	snprintf(entry.from, sizeof(entry.from), "%s", d->offer->from);
	snprintf(entry.strategy, sizeof(entry.strategy), "%s", strategy_name((enum strategy)d->offer->strategy));
	registry_add(&entry, NULL);
}

/* SIGSTOP cannot be queued while it is blocked, as the others are: one that was on its way is sent now. */
static void stop_if_pending(const struct dest *d)
{
	bool stop = signal_has_stop(&d->final_process->pending);

	for (size_t i = 0; i < d->nfinal; i++)
		stop |= signal_has_stop(&d->final_threads[i]->pending);
	if (stop)
		kill(d->skeleton.pid, SIGSTOP);
}

static void tell_resumed(struct dest *d, uint64_t when)
{
	Gw__Resumed resumed = GW__RESUMED__INIT;
	uint8_t packed[64];

	resumed.realtime_ns = when;
	resumed.pid = d->skeleton.pid;
	frame_send(d->link.fd[ROLE_CONTROL], FRAME_RESUMED, packed, gw__resumed__pack(&resumed, packed), NULL);
}

/* What was sent and nobody read is taken out first: closing with unread bytes would be a reset, which proves nothing to the source. */
void dest_tell_aborted(struct dest *d)
{
	const uint64_t word = GO_ABORTED;
	int fd = d->link.fd[ROLE_GO];

	if (fd < 0)
		return;
	while (recv(fd, d->go_buffer, d->go_buffer_len, MSG_DONTWAIT) > 0)
		;
	if (send(fd, &word, sizeof(word), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_warning("event=abort-untold text=\"%s\"", strerror(errno));
}

int dest_commit(void *context, struct err *e)
{
	struct dest *d = context;
	struct scratch_header *h = scratch_header(&d->skeleton.agent.scratch);
	uint64_t word = GO_RESUMED, when;
	int ret;

	timeline_mark("committing");
	ret = outcome_commit(d->outcome_fd, e);
	if (ret == 0)
		ret = skeleton_release(&d->skeleton, e);
	when = clock_ns(CLOCK_REALTIME);
	timeline_mark("released");
	if (ret < 0 && h->state == STATE_FROZEN)
		return ret;
	d->committed = true;
	if (send(d->link.fd[ROLE_GO], &word, sizeof(word), MSG_NOSIGNAL) < 0)
		log_warning("event=resumed-untold text=\"%s\"", strerror(errno));
	h->resumed_told = 1;
	timeline_mark("resumed told");
	pace_calm(0);
	tell_resumed(d, when);
	stop_if_pending(d);
	fdtable_restore_free(&d->restore);
	for (uint32_t i = 0; i < d->files.n; i++)
		fsfile_answer_close(&d->answers[i]);
	register_unit(d);
	return 0;
}
