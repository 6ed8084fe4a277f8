/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_freeze.c - stopping and parking all threads, and capturing what only a stopped process shows
 *
 * Theory of operation: everything that can be done before the stop is (lists of calls are written, files opened). Each thread is seized, stopped, read by ptrace
 * (thread_capture_stopped), and pointed at the stub with its list of calls, which it runs while the worker goes on with mappings and descriptors. The
 * registers in its slot are those with which it goes on here if nothing comes of the move.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "image/clocks.h"
#include "image/restart.h"
#include "kern/trace.h"
#include "migrate/pace.h"
#include "migrate/source.h"
#include "migrate/timeline.h"

#define RECORDS_MAX 4096u
#define FREEZE_STALL_MS 3000 /* the process may not stand still because the destination takes no more pages */
#define PRECOPY_GO_PAGES_MAX 512u
#define FDS_MAX 65536u /* of one poll call */
#define ARGUMENT_PAGES 2u
#define HOT_THREADS 8u /* with more threads than this only stack and TLS pages of each travel with the registers */

static const Gw__Thread *offered_thread(const struct source *s, pid_t tid)
{
	for (size_t i = 0; i < s->unit.nthreads; i++)
		if (s->unit.threads[i]->tid == tid)
			return s->unit.threads[i];
	return NULL;
}

static struct parked *add_parked(struct source *s, pid_t tid, struct err *e)
{
	unsigned slots = scratch_header(&s->agent.scratch)->nslots;
	struct parked *t;

	if (s->nparked + 1 >= slots) {
		err_set(e, -EAGAIN, "process %d has made more than %u threads since the offer", s->unit.pid, THREADS_SPARE);
		return NULL;
	}
	t = &s->parked[s->nparked++];
	*t = (struct parked){ .tid = tid, .task = { &s->agent.scratch, (unsigned)s->nparked, tid, TASK_FUTEX, -1 } };
	t->batch = batch_new(&t->task);
	return t;
}

static void plan_thread(struct source *s, struct parked *t)
{
	t->msg = thread_new(t->tid);
	thread_capture_plan(t->batch, &t->query, offered_thread(s, t->tid));
}

/* Lists of calls for the threads that are known. */
static int plan(struct source *s, struct err *e)
{
	int ret;

	s->parked = calloc(scratch_header(&s->agent.scratch)->nslots, sizeof(*s->parked));
	if (!s->parked)
		return err_sys(e, ENOMEM, "parking threads");
	for (size_t i = 0; i < s->unit.nthreads; i++) {
		struct parked *t = add_parked(s, s->unit.threads[i]->tid, e);

		if (!t)
			return e ? e->code : -EAGAIN;
		if (i == 0) {
			ret = process_capture_plan(t->batch, &s->process_query, s->unit.pid, e);
			if (ret < 0)
				return ret;
			s->brk = mm_capture_plan(t->batch);
			s->children = batch_try(t->batch, "waitid", SYS_waitid, P_ALL, 0, 0, WNOHANG | WNOWAIT | WEXITED | __WALL);
		}
		plan_thread(s, t);
		/* Seizing does not stop it; a thread that has ended meanwhile is found out later. */
		t->traced = trace_seize(t->tid, 0, NULL) == 0;
	}
	s->process = process_new(s->unit.pid);
	return 0;
}

/* Seizes and stops threads until there is none that is not stopped. Threads that have ended are left out (batch and all). */
static int wait_stops(struct source *s, struct err *e)
{
	for (size_t k = 0; k < s->nparked; k++) {
		int ret;

		if (!s->parked[k].interrupted || s->parked[k].stopped)
			continue;
		ret = trace_wait_stop(s->parked[k].tid, e);
		if (ret < 0)
			return ret;
		s->parked[k].stopped = true;
	}
	return 0;
}

static int stop_all(struct source *s, struct err *e)
{
	int ret;

	/* Those that have been seized are stopped before anybody looks who else there is. */
	for (size_t k = 0; k < s->nparked; k++)
		s->parked[k].interrupted = s->parked[k].traced && trace_interrupt(s->parked[k].tid, NULL) == 0;
	ret = wait_stops(s, e);
	if (ret < 0)
		return ret;
	for (;;) {
		cleanup_free pid_t *tids = NULL;
		size_t n, fresh = 0;

		ret = trace_list_threads(s->unit.pid, &tids, &n, e);
		if (ret < 0)
			return ret;
		for (size_t i = 0; i < n; i++) {
			struct parked *t = NULL;

			for (size_t k = 0; k < s->nparked; k++)
				if (s->parked[k].tid == tids[i])
					t = &s->parked[k];
			if (!t && (t = add_parked(s, tids[i], e)))
				plan_thread(s, t);
			if (!t)
				return e ? e->code : -EAGAIN;
			if (t->interrupted)
				continue;
			if ((!t->traced && trace_seize(t->tid, 0, e) < 0) || trace_interrupt(t->tid, e) < 0) {
				if (kill(s->unit.pid, 0) == 0 && syscall(SYS_tgkill, s->unit.pid, t->tid, 0) < 0)
					continue; /* it has ended */
				return e ? e->code : -EIO;
			}
			t->traced = t->interrupted = true;
			fresh++;
		}
		if (!fresh)
			return 0;
		ret = wait_stops(s, e);
		if (ret < 0)
			return ret;
	}
}

/* Registers with which a parked thread goes on here without a tracer. */
static void regs_to_go_on(const Gw__Thread *msg, const struct restart_now *now, struct user_regs_struct *ret_regs)
{
	memcpy(ret_regs, msg->regs.data, sizeof(*ret_regs));
	if (msg->restart && msg->restart->kind == GW__RESTART__KIND__TIMED_CALL)
		restart_finish_in(msg->tid, ret_regs, msg->restart, now);
	if ((int64_t)ret_regs->orig_rax >= 0 && (int64_t)ret_regs->rax == RESTART_BLOCK) {
		ret_regs->rax = SYS_restart_syscall;
		ret_regs->rip -= 2;
	} else {
		restart_to_call(ret_regs);
	}
}

static void fill_slot(struct slot *slot, const struct user_regs_struct *r, uint64_t mask)
{
	slot->regs = (struct slot_regs){ .r15 = r->r15, .r14 = r->r14, .r13 = r->r13, .r12 = r->r12, .rbp = r->rbp, .rbx = r->rbx, .r11 = r->r11,
					 .r10 = r->r10, .r9 = r->r9, .r8 = r->r8, .rax = r->rax, .rcx = r->rcx, .rdx = r->rdx, .rsi = r->rsi,
					 .rdi = r->rdi, .orig_rax = r->orig_rax, .rip = r->rip, .cs = r->cs, .eflags = r->eflags, .rsp = r->rsp, .ss = r->ss };
	slot->sigmask = mask;
	slot->flags = 0;
}

static const struct restart_record *find_record(const struct source *s, int which, pid_t tid)
{
	return restart_record_find(s->records[which], s->nrecords[which], tid);
}

/* Reads a stopped thread and points it at the stub with its list of calls; it stays stopped. */
static int park(struct source *s, struct parked *t, const struct restart_now *now, struct err *e)
{
	const Gw__Clocks *clocks = s->unit.process->clocks;
	struct restart_context context = { .pid = s->unit.pid, .before = find_record(s, 0, t->tid), .after = find_record(s, 1, t->tid),
					   .monotonic_offset_ns = clocks->monotonic_offset_ns, .boottime_offset_ns = clocks->boottime_offset_ns };
	struct user_regs_struct regs;
	int ret = thread_capture_stopped(t->tid, t->msg, e);

	if (ret < 0)
		return ret;
	memcpy(&regs, t->msg->regs.data, sizeof(regs));
	ret = rseq_abort_fix(s->unit.pid, t->msg, &regs, e);
	if (ret < 0)
		return ret;
	memcpy(t->msg->regs.data, &regs, sizeof(regs));
	ret = restart_capture(t->msg, &context, e);
	if (ret < 0)
		return ret;
	regs_to_go_on(t->msg, now, &regs);
	fill_slot(scratch_slot(&s->agent.scratch, t->task.slot), &regs, t->msg->sigmask);
	batch_prepare(t->batch);
	/* In this order: if this worker died in between, a mask without the stub would stay for good. */
	ret = trace_enter_stub(t->tid, &s->agent.scratch, t->task.slot, &regs, e);
	t->parked = ret == 0;
	return ret < 0 ? ret : trace_set_mask(t->tid, UINT64_MAX, e);
}

static int compare(struct source *s, struct err *e)
{
	int ret = vma_list_reread(s->unit.pid, &s->unit.vmas, false, &s->unit.files, s->refusals, &s->frozen_vmas, &s->layout_changed, e);

	if (ret == 0)
		ret = fdtable_recapture(&s->unit.fds, &s->unit.files, s->refusals, e);
	if (ret == 0 && s->refusals->n)
		ret = err_set(e, -EPERM, "process %d has begun something that cannot move", s->unit.pid);
	if (ret == 0 && s->layout_changed)
		vma_list_apply_answers(&s->frozen_vmas, s->answers, s->nanswers);
	return ret < 0 ? ret : source_files_frozen(s, s->layout_changed ? &s->frozen_vmas : &s->unit.vmas, e);
}

static int check_children(struct source *s, struct err *e)
{
	if (s->children->ret == -ECHILD)
		return 0;
	refusals_add(s->refusals, "task.children", "it has started a child since the offer, and processes with children cannot move yet",
		     "move it when its children have ended", "process %d", s->unit.pid);
	return err_set(e, -EPERM, "process %d has started a child", s->unit.pid);
}

static void read_records(struct source *s, int which)
{
	int n = s->watch ? restart_watch_read(s->watch, s->records[which], RECORDS_MAX, NULL) : 0;

	s->nrecords[which] = n > 0 ? (size_t)n : 0;
}

/* Drops the entries of threads that ended between the offer and the stop. */
static void drop_ended(struct source *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->nparked; i++) {
		if (s->parked[i].interrupted) {
			/* Batches point at the task inside: entries do not move, only their order of use does. */
			if (kept != i) {
				struct parked *from = &s->parked[i], *to = &s->parked[kept];

				*to = *from;
				to->batch = batch_new(&to->task);
				gw__thread__free_unpacked(to->msg, NULL);
				plan_thread(s, to);
			}
			kept++;
		} else {
			gw__thread__free_unpacked(s->parked[i].msg, NULL);
			batch_free(s->parked[i].batch);
		}
	}
	s->nparked = kept;
}

static int stop_and_park(struct source *s, struct err *e)
{
	const Gw__Clocks *clocks = s->unit.process->clocks;
	struct restart_now now;
	int ret;

	read_records(s, 0);
	pace_warm();
	s->stopped_ns = clock_ns(CLOCK_REALTIME);
	ret = stop_all(s, e);
	timeline_mark("stopped");
	if (ret < 0)
		return ret;
	drop_ended(s);
	read_records(s, 1);
	now = restart_now_read(clocks->monotonic_offset_ns, clocks->boottime_offset_ns);
	timeline_mark("restart records read");
	ret = signal_peek(s->unit.pid, true, &s->process->pending, e);
	s->process_query.pending_taken = true;
	/* Whatever happens: those that are parked run the stub, the others are let go as they are (source_thaw). */
	for (size_t i = 0; i < s->nparked && ret == 0; i++) {
		ret = park(s, &s->parked[i], &now, e);
		if (ret == 0)
			ret = trace_detach(s->parked[i].tid, e);
		if (ret == 0)
			s->parked[i].traced = false;
	}
	return ret;
}

static int collect(struct source *s, struct err *e)
{
	for (size_t i = 0; i < s->nparked; i++) {
		struct parked *t = &s->parked[i];
		int ret = batch_finish(t->batch, e);

		if (ret == 0)
			ret = thread_capture_collect(&t->query, t->msg, &s->process->pending, i == 0, e);
		if (ret == -EAGAIN) {
			batch_reset(t->batch);
			thread_capture_plan(t->batch, &t->query, NULL);
			ret = batch_run(t->batch, e);
			if (ret == 0)
				ret = thread_capture_collect(&t->query, t->msg, &s->process->pending, i == 0, e);
		}
		if (ret < 0)
			return ret;
		if (i == 0) {
			mm_capture_collect(&s->unit.mm, s->brk);
			ret = process_capture_collect(&s->process_query, s->process, e);
		}
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* --- the pages that go with the registers --- */

/* Whether a page may travel with the registers: one that the program cannot read is of no use to its first instructions. */
static bool may_go(const struct source *s, uint64_t address)
{
	const struct vma_list *l = s->layout_changed ? &s->frozen_vmas : &s->unit.vmas;
	const struct vma *v = vma_find(l, address);
	size_t lo = 0, hi = l->guards.n;

	if (!v || v->content != VMA_CONTENT_ANON || !(v->prot & PROT_READ))
		return false;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (address >= l->guards.v[mid].end)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo == l->guards.n || address < l->guards.v[lo].start;
}

/* A page that does not exist reads as zeros: sending those is right, too. */
static int want_page(struct source *s, uint64_t address, struct run_list *list)
{
	uint64_t page = PAGE_ALIGN_DOWN(address);

	if (!may_go(s, page) || !pages_is_lazy(&s->pages, page) || pages_sent_bit(&s->pages, page))
		return 0;
	pages_mark(&s->pages, page, 1);
	return run_list_add(list, page, 1, 0);
}

/*
 * What an interrupted call points at: the destination issues such calls anew, or writes the time that remains, before the commit, when no page can be
 * asked for. A structure may lie across two pages.
 */
static int want_call_pages(struct source *s, const Gw__Thread *t, const struct user_regs_struct *r, struct run_list *list)
{
	const uint64_t args[] = { r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9 };
	uint64_t fds_end = r->rdi + MIN(r->rsi, FDS_MAX) * sizeof(struct pollfd);
	bool polls = r->orig_rax == SYS_poll || r->orig_rax == SYS_ppoll || r->orig_rax == SYS_restart_syscall;
	int ret = 0;

	if (!t->restart || t->restart->kind == GW__RESTART__KIND__NONE)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(args) && ret == 0; i++) {
		ret = want_page(s, args[i], list);
		if (ret == 0)
			ret = want_page(s, args[i] + sizeof(struct timespec) - 1, list);
	}
	for (uint64_t at = PAGE_ALIGN_DOWN(r->rdi); polls && at < fds_end && ret == 0; at += PAGE_SIZE_BYTES)
		ret = want_page(s, at, list);
	return ret;
}

static int want_thread_pages(struct source *s, const Gw__Thread *t, bool few, struct run_list *list)
{
	struct user_regs_struct r;
	int ret = 0;

	memcpy(&r, t->regs.data, sizeof(r));
	const uint64_t first[] = { r.rsp, r.rsp - 128, r.rsp + PAGE_SIZE_BYTES, r.fs_base, r.fs_base - 64, t->rseq, t->rseq + 31 };
	const uint64_t pointed[] = { r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.gs_base };

	for (size_t i = 0; i < ARRAY_SIZE(first) && ret == 0; i++)
		ret = want_page(s, first[i], list);
	for (size_t i = 0; i < ARRAY_SIZE(pointed) && few && ret == 0; i++)
		ret = want_page(s, pointed[i], list);
	if (ret == 0)
		ret = want_call_pages(s, t, &r, list);
	return ret;
}

/* /proc/PID/cmdline reads empty, and ps shows no command, while these pages are missing: the kernel does not wait for them there. */
static int want_argument_pages(struct source *s, struct run_list *list)
{
	const struct mm_fields *m = &s->unit.mm;
	uint64_t at = PAGE_ALIGN_DOWN(m->arg_start);
	int ret = 0;

	for (unsigned n = 0; n < ARGUMENT_PAGES && at < m->arg_end && ret == 0; n++, at += PAGE_SIZE_BYTES)
		ret = want_page(s, at, list);
	return ret;
}

/* A working set found before the freeze, as long as there is room. */
static int want_hot_pages(struct source *s, struct run_list *list)
{
	int ret = 0;

	for (size_t i = 0; i < s->hot.n && ret == 0; i++)
		for (uint32_t k = 0; k < s->hot.v[i].npages && ret == 0 && list->pages < GO_PAGES_MAX; k++)
			ret = want_page(s, s->hot.v[i].address + k * PAGE_SIZE_BYTES, list);
	return ret;
}

/* Lazy pages that the destination has in an older version: some travel now, of the others it is told to forget its copy. */
static int treat_stale(struct source *s, struct run_list *stale, struct run_list *list)
{
	int ret = 0;

	for (size_t i = 0; i < stale->n && ret == 0; i++) {
		const struct page_run *r = &stale->v[i];

		if (r->flags & RUN_ZERO || list->pages + r->npages > GO_PAGES_MAX) {
			ret = run_list_add(&s->stale, r->address, r->npages, 0);
			continue;
		}
		ret = run_list_add(list, r->address, r->npages, 0);
		pages_mark(&s->pages, r->address, r->npages);
	}
	return ret;
}

static int compare_runs(const void *a, const void *b)
{
	uint64_t x = ((const struct page_run *)a)->address, y = ((const struct page_run *)b)->address;

	return x < y ? -1 : x > y;
}

/* Everything that the destination lacks, over the bulk connection; the threads stand still meanwhile. */
static int send_all_now(struct source *s, struct err *e)
{
	int ret;

	s->bulk_in_freeze = true;
	link_limit_stall(s->link.fd[ROLE_BULK], FREEZE_STALL_MS);
	ret = s->layout_changed ? source_tell_layout(s, &s->frozen_vmas, true, e) : 0;
	if (ret == 0)
		ret = pages_round(&s->pages, PAGES_LAZY | PAGES_EAGER, NULL, e);
	return ret < 0 ? ret : pages_barrier(&s->pages, e);
}

/* What was written since the last round travels with the registers when it is little. */
static int choose_precopy_rest(struct source *s, struct err *e)
{
	struct run_list rest = { 0 };
	int ret = pages_stale(&s->pages, PAGES_LAZY | PAGES_EAGER | PAGES_UNSENT, &rest, e);

	if (ret == 0 && rest.pages > PRECOPY_GO_PAGES_MAX) {
		run_list_free(&rest);
		return send_all_now(s, e);
	}
	for (size_t i = 0; i < rest.n && ret == 0; i++) {
		ret = run_list_add(rest.v[i].flags & RUN_ZERO ? &s->stale : &s->go_runs, rest.v[i].address, rest.v[i].npages, 0);
		pages_mark(&s->pages, rest.v[i].address, rest.v[i].npages);
	}
	run_list_free(&rest);
	if (s->go_runs.n)
		qsort(s->go_runs.v, s->go_runs.n, sizeof(*s->go_runs.v), compare_runs);
	return ret < 0 && e && !e->code ? err_sys(e, ret, "choosing pages") : ret;
}

static int choose_pages(struct source *s, struct err *e)
{
	struct run_list stale = { 0 };
	int ret = 0;

	if (s->request->strategy == STRATEGY_STOP_COPY)
		return send_all_now(s, e);
	if (s->request->strategy == STRATEGY_PRE_COPY)
		return choose_precopy_rest(s, e);
	if (s->request->strategy == STRATEGY_HYBRID)
		ret = pages_stale(&s->pages, PAGES_LAZY, &stale, e);
	if (ret == 0)
		ret = pages_stale(&s->pages, PAGES_EAGER, &s->go_runs, e);
	if (ret == 0)
		ret = treat_stale(s, &stale, &s->go_runs);
	for (size_t i = 0; i < s->nparked && ret == 0; i++)
		ret = want_thread_pages(s, s->parked[i].msg, s->nparked <= HOT_THREADS, &s->go_runs);
	if (ret == 0)
		ret = want_argument_pages(s, &s->go_runs);
	if (ret == 0)
		ret = want_hot_pages(s, &s->go_runs);
	run_list_free(&stale);
	if (s->go_runs.n)
		qsort(s->go_runs.v, s->go_runs.n, sizeof(*s->go_runs.v), compare_runs);
	return ret < 0 && e && !e->code ? err_sys(e, ret, "choosing pages") : ret;
}

/* Runs of which some pages may be protected from the program itself: the other way into its memory does not mind that. */
static int read_one_by_one(struct source *s, const struct page_run *runs, size_t n, uint8_t *to, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		for (uint64_t k = 0; k < runs[i].npages; k++, to += PAGE_SIZE_BYTES) {
			uint64_t at = runs[i].address + k * PAGE_SIZE_BYTES;

			if (pread(s->mem_fd, to, PAGE_SIZE_BYTES, (off_t)at) != PAGE_SIZE_BYTES)
				return err_sys(e, errno, "reading page %#" PRIx64, at);
		}
	}
	return 0;
}

static int read_pages(struct source *s, struct err *e)
{
	uint8_t *to;

	s->go_pages_len = s->go_runs.pages * PAGE_SIZE_BYTES;
	if (s->go_pages_len > (64 << 20))
		return err_set(e, -E2BIG, "process %d writes %" PRIu64 " pages of file mappings faster than they can be sent", s->unit.pid, s->go_runs.pages);
	if (!s->go_pages)
		s->go_pages = malloc(MAX(s->go_pages_len, GO_PAGES_MAX * 2 * PAGE_SIZE_BYTES));
	if (!s->go_pages)
		return err_sys(e, ENOMEM, "pages that go with the registers");
	to = s->go_pages;
	for (size_t i = 0; i < s->go_runs.n; i += 512) {
		struct iovec remote[512], local = { to, 0 };
		size_t n = MIN(s->go_runs.n - i, 512ul);

		for (size_t k = 0; k < n; k++) {
			remote[k] = (struct iovec){ (void *)s->go_runs.v[i + k].address, s->go_runs.v[i + k].npages * PAGE_SIZE_BYTES };
			local.iov_len += remote[k].iov_len;
		}
		if (process_vm_readv(s->unit.pid, &local, 1, remote, n, 0) != (ssize_t)local.iov_len) {
			int ret = read_one_by_one(s, &s->go_runs.v[i], n, to, e);

			if (ret < 0)
				return ret;
		}
		to += local.iov_len;
	}
	return 0;
}

int source_rehearse(struct source *s, struct err *e)
{
	struct refusals ignored = { 0 };
	struct vma_list vmas = { 0 };
	struct err unheard = ERR_INIT;
	bool changed;

	(void)e; /* the process runs: what fails now is looked at again when it stands still */
	if (vma_list_reread(s->unit.pid, &s->unit.vmas, false, &s->unit.files, &ignored, &vmas, &changed, &unheard) == 0)
		fdtable_recapture(&s->unit.fds, &s->unit.files, &ignored, &unheard);
	vma_list_free(&vmas);
	fdtable_release(&s->unit.fds);
	refusals_free(&ignored);
	read_records(s, 0);
	return 0;
}

int source_freeze(void *context, struct err *e)
{
	struct source *s = context;
	int ret;

	timeline_mark("freeze begins");
	ret = plan(s, e);
	pace_warm_prepare();
	timeline_mark("planned");
	pace_rule();
	if (ret == 0)
		ret = stop_and_park(s, e);
	timeline_mark("parked");
	if (ret == 0)
		ret = compare(s, e);
	timeline_mark("layout and descriptors compared");
	if (ret == 0)
		ret = collect(s, e);
	if (ret == 0)
		ret = check_children(s, e);
	timeline_mark("collected");
	/* A page of a mapping that is new since the last round has no bit: it is sent after the resume, or with the rest. */
	if (ret == 0 && s->layout_changed)
		ret = pages_layout(&s->pages, &s->frozen_vmas, e);
	if (ret == 0 && s->layout_changed)
		ret = pages_forget_remapped(&s->pages, &s->unit.vmas, &s->frozen_vmas, s->unit.files.n, e);
	if (ret == 0)
		ret = choose_pages(s, e);
	timeline_mark("pages chosen");
	ret = ret < 0 ? ret : read_pages(s, e);
	timeline_mark("pages read");
	return ret;
}

/* Lets everything go on here. */
void source_thaw(void *context)
{
	struct source *s = context;

	pace_cool();
	if (s->locks_released && s->nparked) {
		batch_reset(s->parked[0].batch);
		fdtable_plan_retake_locks(&s->unit.fds, s->parked[0].batch);
		if (batch_run(s->parked[0].batch, NULL) < 0)
			log_error("event=locks-lost pid=%d", s->unit.pid);
	}
	fdtable_release(&s->unit.fds);
	for (size_t i = 0; i < s->nparked; i++) {
		struct parked *t = &s->parked[i];

		if (t->parked) {
			if (t->traced)
				trace_detach(t->tid, NULL);
			task_wait(&t->task, 5000, NULL);
			task_run(&t->task, COMMAND_RESTORE, 5000, NULL);
		} else if (t->traced) {
			trace_detach(t->tid, NULL);
		}
	}
	process_query_close(&s->process_query);
}
