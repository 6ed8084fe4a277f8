/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stub.c - the loop that every task of Godwit inside a foreign address space runs
 *
 * Theory of operation: a task (the agent, a parked thread of the source, a thread of the skeleton) owns one slot. The
 * worker writes a command into the slot, raises slot->seq and wakes the task; the task executes it, sets slot->done and
 * wakes the worker. Nothing here touches vector registers or thread-local storage, so the program's own stay as they are.
 *
 * A parked thread has no tracer. When the worker dies, the agent sees the end of its socket and decides by the state
 * word of the unit (agent_orphaned below). The compare-and-exchange on that word with the worker's own, made just before the go message
 * leaves, is what keeps the two, and the agents of several processes, from deciding differently.
 */
#include "sys.h"

#include "delta.h"

void stub_restore(struct slot *slot) __attribute__((noreturn));
long stub_spawn(const struct remote_call *call, struct slot *child, struct scratch_header *header);
void stub_task(struct slot *slot, struct scratch_header *h) __attribute__((noreturn, used));

_Static_assert(offsetof(struct slot, sigmask) == 40, "entry.S");
_Static_assert(offsetof(struct slot, regs) == 48, "entry.S");
_Static_assert(offsetof(struct slot, regs.eflags) == 192, "entry.S");
_Static_assert(offsetof(struct slot, regs.rsp) == 200, "entry.S");
_Static_assert(offsetof(struct slot, thunk_address) == 256, "entry.S");

void *memcpy(void *to, const void *from, size_t n)
{
	void *ret = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return ret;
}

void *memset(void *to, int c, size_t n)
{
	void *ret = to;

	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return ret;
}

static void futex_wait(uint32_t *word, uint32_t value)
{
	sys(__NR_futex, (long)word, FUTEX_WAIT_OP, value, 0);
}

static void futex_wake(uint32_t *word)
{
	sys(__NR_futex, (long)word, FUTEX_WAKE_OP, 0x7fffffff);
}

static struct slot *slot_at(struct scratch_header *h, uint32_t i)
{
	return (struct slot *)(h->base + SCRATCH_SLOTS + (uint64_t)i * SLOT_SIZE);
}

/* The worker has checked them. */
static long write_deltas(const uint64_t *at, uint64_t len_bytes)
{
	const uint64_t *end = at + len_bytes / 8;

	while (at < end) {
		const struct delta *d = (const struct delta *)at;
		uint64_t *to = (uint64_t *)d->address;

		at += sizeof(*d) / 8;
		for (uint32_t i = 0; i < d->len / 8; i++)
			*to++ = *at++;
	}
	return 0;
}

static long run_call(const struct remote_call *c)
{
	if (c->nr == CALL_WRITE_DELTAS)
		return write_deltas((const uint64_t *)c->arg[0], c->arg[1]);
	if (c->nr == CALL_COMPARE)
		return agent_compare((const struct compare_job *)c->arg[0]);
	return sys6((long)c->nr, (long)c->arg[0], (long)c->arg[1], (long)c->arg[2], (long)c->arg[3], (long)c->arg[4], (long)c->arg[5]);
}

void stub_run_list(struct remote_call *calls, uint32_t n, uint32_t *ret_ran)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		struct remote_call *c = &calls[i];

		c->ret = run_call(c);
		if (c->ret < 0 && c->ret >= -4095 && !(c->flags & CALL_MAY_FAIL)) {
			i++;
			break;
		}
	}
	*ret_ran = i;
	for (; i < n; i++)
		calls[i].ret = CALL_SKIPPED;
}

/* "mov $rdi, %rdi; jmp *0(%rip); .quad rip": needs no stack and no register. */
static void make_thunk(struct slot *slot, const struct scratch_header *h)
{
	uint8_t *p = slot->thunk;

	p[0] = 0x48;
	p[1] = 0xbf;
	__builtin_memcpy(p + 2, &slot->regs.rdi, 8);
	p[10] = 0xff;
	p[11] = 0x25;
	p[12] = p[13] = p[14] = p[15] = 0;
	__builtin_memcpy(p + 16, &slot->regs.rip, 8);
	slot->thunk_address = (uint64_t)p + h->exec_delta;
}

static void command_slot(struct slot *slot, uint32_t command)
{
	slot->command = command;
	store_release(&slot->seq, slot->seq + 1);
	futex_wake(&slot->seq);
}

static void __attribute__((noreturn)) leave_by_exit(void)
{
	for (;;)
		sys(__NR_exit_group, 0);
}

#define DIE_TRIES 50 /* of 10 ms */

/* Every thread is told to forget what the kernel would write into memory at its death ... */
void stub_kill_begin(struct scratch_header *h)
{
	if (h->tgid > 0) /* a signal may have stopped them since the freeze */
		signal_process(h, SIGNAL_CONT);
	for (uint32_t i = 1; i < h->nslots; i++)
		if (slot_at(h, i)->regs.rip && slot_at(h, i)->command != COMMAND_DIE)
			command_slot(slot_at(h, i), COMMAND_DIE);
}

/* One that has a system call filter and no tracer any more may never answer: migrate/source_held.c. */
static void wait_for_done(struct slot *s, uint32_t done)
{
	const long slice[2] = { 0, 10000000 };

	sys(__NR_futex, (long)&s->done, FUTEX_WAIT_OP, done, (long)slice);
}

/* ... and when all have, the process is killed. Its memory lives on in the agent. */
void stub_kill_finish(struct scratch_header *h)
{
	if (h->tgid <= 0)
		return;
	for (uint32_t i = 1; i < h->nslots; i++) {
		struct slot *s = slot_at(h, i);
		uint32_t done, tries = 0;

		while (s->command == COMMAND_DIE && (done = load_acquire(&s->done)) != s->seq && tries++ < DIE_TRIES)
			wait_for_done(s, done);
	}
	signal_process(h, 9);
	h->tgid = 0;
}

#define STOPPED_TRIES 100 /* of a millisecond */

static void leave(struct scratch_header *h) __attribute__((noreturn));
static void served(struct scratch_header *h) __attribute__((noreturn));

/* Tells the source. What it sent and nobody read is taken out first: closing with unread bytes would be a reset, which proves nothing. */
static void say_go(struct scratch_header *h, uint64_t word)
{
	uint8_t *sink = agent_buffers(h)->message;

	while (word == GO_ABORTED && sys(__NR_recvfrom, h->go_fd, (long)sink, sizeof(agent_buffers(h)->message), MSG_DONTWAIT_FLAG) > 0)
		;
	sys(__NR_sendto, h->go_fd, (long)&word, sizeof(word), MSG_NOSIGNAL_FLAG);
}

/* The worker may have written it. What cannot be written now may be there all the same. */
static int is_recorded(const struct scratch_header *h)
{
	char byte = 0;

	return (sys(__NR_pread64, h->record_fd, (long)&byte, 1, 0) == 1 && byte == 'C') || sys(__NR_pwrite64, h->record_fd, (long)"C", 1, 0) == 1;
}

/* Nobody has run yet: who does is known before, for ever, and to whoever asks. The root's agent writes it for all. */
static void record_commit(struct scratch_header *h)
{
	struct unit_page *u = unit_page(h);

	while (load_acquire(&u->state) == STATE_DECIDED) {
		if (h->root_pidfd >= 0)
			futex_wait(&u->state, STATE_DECIDED);
		else
			unit_step(h, is_recorded(h) ? HANDOVER_RECORDED : HANDOVER_RECORD_FAILED);
	}
}

/*
 * Destination, the worker is dead: whether the process runs here. A root that was not committed has been killed by the kernel (PTRACE_O_EXITKILL) before the
 * worker's pidfd becomes readable, though it may not have ended yet; one that was let go runs into `await` and says so. One of the two happens. Then it is written
 * down. The threads of all processes, which are held now, learn it from the state; the source is told when the worker had no time to.
 */
int stub_runs_here(struct scratch_header *h)
{
	struct poll_fd worker = { h->worker_pidfd, POLL_IN, 0 }, process = { h->process_pidfd, POLL_IN, 0 };
	struct poll_fd root = { h->root_pidfd >= 0 ? h->root_pidfd : h->process_pidfd, POLL_IN, 0 };
	struct unit_page *u = unit_page(h);
	uint32_t tries = 0;
	int committed;

	while (sys(__NR_poll, (long)&worker, 1, -1) <= 0)
		;
	while (load_acquire(&u->state) == STATE_COMMITTING) {
		if (sys(__NR_poll, (long)&root, 1, 1) > 0)
			unit_step(h, HANDOVER_ROOT_KILLED);
		else if (++tries == STOPPED_TRIES) /* a process that was to arrive stopped cannot say anything */
			sys(__NR_pidfd_send_signal, root.fd, SIGNAL_CONT, 0, 0);
	}
	unit_step(h, HANDOVER_DEST_ORPHANED);
	record_commit(h);
	committed = load_acquire(&u->state) == STATE_COMMITTED;
	futex_wake(&u->state);
	if (committed && tries >= STOPPED_TRIES)
		sys(__NR_pidfd_send_signal, root.fd, SIGNAL_STOP, 0, 0);
	if (!committed && !h->seated)
		sys(__NR_pidfd_send_signal, h->process_pidfd, SIGNAL_CONT, 0, 0);
	if (!__atomic_exchange_n(&u->told, 1, __ATOMIC_ACQ_REL))
		say_go(h, committed ? GO_RESUMED : GO_ABORTED);
	return committed && sys(__NR_poll, (long)&process, 1, 0) == 0;
}

/* Source, the worker is dead: the state as it stays. STATE_IN_DOUBT: this process has been killed, others look after the rest. */
static uint32_t settle_state(struct scratch_header *h)
{
	struct unit_page *u = unit_page(h);

	unit_step(h, HANDOVER_SOURCE_ORPHANED);
	if (load_acquire(&u->state) == STATE_IN_DOUBT) {
		int step;

		/* A destination that waits for pages, or for the rest of a go message, which nobody will send any more shall give up at once. */
		if (!h->nranges)
			sys(__NR_shutdown, h->bulk_fd, SHUT_WRITE);
		sys(__NR_shutdown, h->go_fd, SHUT_WRITE);
		step = doubt_resolve(h);
		if (step != DOUBT_MOOT)
			unit_step(h, (enum handover_step)step);
	}
	return load_acquire(&u->state);
}

/* The worker is dead. Source: before the go message the threads go on; after it see doubt.c. Destination: see above. */
static void __attribute__((noreturn)) agent_orphaned(struct scratch_header *h)
{
	uint32_t state;

	if (h->finished)
		leave(h);
	if (h->worker_pidfd >= 0) {
		stub_runs_here(h);
		leave(h);
	}
	state = settle_state(h);
	if (state == STATE_COMMITTED) {
		agent_serve(h);
		served(h);
	}
	for (uint32_t i = 1; i < h->nslots && state == STATE_ABORTED; i++)
		if (slot_at(h, i)->regs.rip)
			command_slot(slot_at(h, i), COMMAND_RESTORE);
	leave_by_exit();
}

static void agent_wait(struct slot *slot, struct scratch_header *h)
{
	struct poll_fd p = { h->worker_fd, POLL_IN, 0 };
	char bell[16];
	long n;

	if (h->worker_fd < 0) {
		futex_wait(&slot->seq, slot->done);
		return;
	}
	sys(__NR_poll, (long)&p, 1, -1);
	n = sys(__NR_recvfrom, h->worker_fd, (long)bell, sizeof(bell), MSG_DONTWAIT_FLAG);
	/* Given before the commit, with the bell to be rung behind it: the pager finds out by itself what has become of the worker. */
	if (load_acquire(&slot->seq) != slot->done && slot->command == COMMAND_PAGER)
		return;
	if (n == 0 || (n < 0 && n != E_AGAIN && n != E_INTR))
		agent_orphaned(h);
}

/* A process in the place of its stub is to be a stub again when its worker has died: godwit-home points its main thread elsewhere, and ends the others. */
static void __attribute__((noreturn)) wait_for_home(struct slot *slot)
{
	for (;;)
		futex_wait(&slot->seq, load_acquire(&slot->seq));
}

static void rest(struct slot *slot, struct scratch_header *h)
{
	if (slot->flags & SLOT_TRAP) {
		sys(__NR_tgkill, sys(__NR_getpid), sys(__NR_gettid), SIGNAL_STOP); /* a ptrace stop: the tracer swallows it */
		if (h->seated && load_acquire(&slot->seq) == slot->done) /* the tracer would not have sent it on for nothing */
			wait_for_home(slot);
	} else if (slot->flags & SLOT_AGENT)
		agent_wait(slot, h);
	else
		futex_wait(&slot->seq, slot->done);
}

/*
 * The first process of a pid namespace dies of no signal from within, and takes the agents of all others along. So it ends by itself, when they have done their work.
 * (A worker would have killed it.)
 */
static void end_namespace(struct scratch_header *h)
{
	const long pause[2] = { 0, 10000000 };
	struct remote_call *end = (struct remote_call *)agent_buffers(h)->message;
	struct slot *first = slot_at(h, 1);

	while (load_acquire(&unit_page(h)->serving))
		sys(__NR_nanosleep, (long)pause, 0);
	memset(end, 0, sizeof(*end));
	end->nr = __NR_exit_group;
	end->arg[0] = load_acquire(&h->home) == HOME_PENDING ? 137 : 0; /* somebody waits for it, who was to see SIGKILL */
	first->list = (uint64_t)end;
	first->ncalls = 1;
	command_slot(first, COMMAND_RUN);
	for (;;)
		sys(__NR_nanosleep, (long)pause, 0); /* our code is in its memory: it ends us */
}

static void served(struct scratch_header *h)
{
	__atomic_sub_fetch(&unit_page(h)->serving, 1, __ATOMIC_ACQ_REL);
	if (h->ends_namespace && load_acquire(&h->home) != HOME_DONE)
		end_namespace(h);
	leave_by_exit();
}

static void leave(struct scratch_header *h)
{
	uint64_t base = h->base, size = h->size, trampoline = h->trampoline;

	if (h->seated && load_acquire(&unit_page(h)->state) == STATE_ABORTED)
		leave_by_exit(); /* the main thread waits in the scratch */
	if (h->worker_pidfd < 0 && load_acquire(&unit_page(h)->state) == STATE_COMMITTED)
		served(h);
	if (h->staging)
		sys(__NR_munmap, (long)h->staging, STAGING_PAGES * AGENT_PAGE);
	if (!trampoline)
		leave_by_exit();
	/* munmap pulls this code from under the task: the call is made from outside of it. */
	asm volatile("jmp *%0" : : "r"(trampoline), "a"(__NR_munmap), "D"(base), "S"(size) : "memory");
	__builtin_unreachable();
}

/* A call that a stop has interrupted is issued again, as the kernel would do it when there is no signal; it cannot be told to from here. */
static void restart_call(struct slot_regs *r)
{
	int64_t result = (int64_t)r->rax;

	if ((int64_t)r->orig_rax < 0 || !(result == E_RESTARTSYS || result == E_RESTARTNOINTR || result == E_RESTARTNOHAND || result == E_RESTART_RESTARTBLOCK))
		return;
	r->rax = result == E_RESTART_RESTARTBLOCK ? __NR_restart_syscall : r->orig_rax;
	r->rip -= 2;
}

static void forget_memory(void)
{
	sys(__NR_set_robust_list, 0, 24);
	sys(__NR_set_tid_address, 0);
}

/*
 * A thread of the destination whose worker died about the commit (it would have been given its registers by ptrace otherwise). No call with a timeout is made here, so
 * that a restart block that the kernel keeps for the thread stays.
 */
static void await(struct slot *slot, struct scratch_header *h)
{
	struct unit_page *u = unit_page(h);
	uint32_t state;

	while ((state = load_acquire(&u->state)) == STATE_FROZEN || state == STATE_COMMITTING || state == STATE_DECIDED) {
		if (state == STATE_COMMITTING && slot->flags & SLOT_ROOT && unit_step(h, HANDOVER_ROOT_RELEASED))
			futex_wake(&u->state);
		else
			futex_wait(&u->state, state);
	}
	if (state == STATE_COMMITTED) {
		restart_call(&slot->regs);
		return;
	}
	if (h->seated)
		wait_for_home(slot);
	forget_memory();
	leave_by_exit();
}

void stub_ring(const struct scratch_header *h)
{
	if (h->worker_fd >= 0)
		sys(__NR_sendto, h->worker_fd, (long)"", 1, MSG_DONTWAIT_FLAG | MSG_NOSIGNAL_FLAG);
}

static void finished(struct scratch_header *h, long error)
{
	h->agent_error = (int32_t)error;
	store_release(&h->finished, 1);
	futex_wake(&h->finished);
	stub_ring(h);
}

static void execute(struct slot *slot, struct scratch_header *h)
{
	switch (slot->command) {
	case COMMAND_RUN:
		stub_run_list((struct remote_call *)slot->list, slot->ncalls, &slot->ran);
		break;
	case COMMAND_AWAIT:
		await(slot, h);
		/* fall through */
	case COMMAND_RESTORE:
		make_thunk(slot, h);
		store_release(&slot->done, slot->seq);
		stub_restore(slot);
	case COMMAND_DIE:
		forget_memory();
		break;
	case COMMAND_SPAWN:
		slot->result = stub_spawn((struct remote_call *)slot->list, (struct slot *)slot->spawn_slot, h);
		break;
	case COMMAND_SEND:
		slot->result = agent_send(h);
		break;
	case COMMAND_SERVE:
		finished(h, agent_serve(h));
		break;
	case COMMAND_RECEIVE:
		slot->result = agent_receive(h);
		break;
	case COMMAND_PAGER:
		finished(h, agent_pager(h));
		if (h->worker_fd < 0) /* the worker died meanwhile */
			leave(h);
		break;
	case COMMAND_LEAVE:
		leave(h);
		break;
	case COMMAND_HOLD:
		store_release(&h->hold, HOLD_SPINNING);
		while (load_acquire(&h->hold) != HOLD_NONE)
			asm volatile("pause");
		break;
	}
}

void stub_task(struct slot *slot, struct scratch_header *h)
{
	for (;;) {
		uint32_t seq;

		while ((seq = load_acquire(&slot->seq)) == slot->done)
			rest(slot, h);
		execute(slot, h);
		store_release(&slot->done, seq);
		futex_wake(&slot->done);
	}
}
