/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stub.c - the loop that every task of Godwit inside a foreign address space runs
 *
 * Theory of operation: a task (the agent, a parked thread of the source, a thread of the skeleton) owns one slot. The
 * worker writes a command into the slot, raises slot->seq and wakes the task; the task executes it, sets slot->done and
 * wakes the worker. Nothing here touches vector registers or thread-local storage, so the program's own stay as they are.
 *
 * A parked thread has no tracer. When the worker dies, the agent sees the end of its socket and decides by the state
 * word (agent_orphaned below). The compare-and-exchange on that word with the worker's own, made just before the go message
 * leaves, is what keeps the two from deciding differently.
 */
#include "sys.h"

void stub_restore(struct slot *slot) __attribute__((noreturn));
long stub_spawn(const struct remote_call *call, struct slot *child, struct scratch_header *header);
void stub_task(struct slot *slot, struct scratch_header *h) __attribute__((noreturn, used));

_Static_assert(offsetof(struct slot, sigmask) == 40, "entry.S");
_Static_assert(offsetof(struct slot, regs) == 48, "entry.S");
_Static_assert(offsetof(struct slot, regs.eflags) == 192, "entry.S");
_Static_assert(offsetof(struct slot, regs.rsp) == 200, "entry.S");
_Static_assert(offsetof(struct slot, thunk) == 224, "entry.S");

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

void stub_run_list(struct remote_call *calls, uint32_t n, uint32_t *ret_ran)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		struct remote_call *c = &calls[i];

		c->ret = sys6((long)c->nr, (long)c->arg[0], (long)c->arg[1], (long)c->arg[2], (long)c->arg[3], (long)c->arg[4], (long)c->arg[5]);
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
static void make_thunk(struct slot *slot)
{
	uint8_t *p = slot->thunk;

	p[0] = 0x48;
	p[1] = 0xbf;
	__builtin_memcpy(p + 2, &slot->regs.rdi, 8);
	p[10] = 0xff;
	p[11] = 0x25;
	p[12] = p[13] = p[14] = p[15] = 0;
	__builtin_memcpy(p + 16, &slot->regs.rip, 8);
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

/* Every thread is told to forget what the kernel would write into memory at its death ... */
void stub_kill_begin(struct scratch_header *h)
{
	for (uint32_t i = 1; i < h->nslots; i++)
		if (slot_at(h, i)->regs.rip && slot_at(h, i)->command != COMMAND_DIE)
			command_slot(slot_at(h, i), COMMAND_DIE);
}

/* ... and when all have, the process is killed. Its memory lives on in the agent. */
void stub_kill_finish(struct scratch_header *h)
{
	if (h->tgid <= 0)
		return;
	for (uint32_t i = 1; i < h->nslots; i++) {
		struct slot *s = slot_at(h, i);
		uint32_t done;

		while (s->command == COMMAND_DIE && (done = load_acquire(&s->done)) != s->seq)
			futex_wait(&s->done, done);
	}
	sys(__NR_kill, h->tgid, 9);
	h->tgid = 0;
}

static void leave(struct scratch_header *h) __attribute__((noreturn));

/* Tells the source. What it sent and nobody read is taken out first: closing with unread bytes would be a reset, which proves nothing. */
static void say_go(struct scratch_header *h, uint64_t word)
{
	uint8_t *sink = agent_buffers(h)->message;

	while (word == GO_ABORTED && sys(__NR_recvfrom, h->go_fd, (long)sink, sizeof(agent_buffers(h)->message), MSG_DONTWAIT_FLAG) > 0)
		;
	sys(__NR_sendto, h->go_fd, (long)&word, sizeof(word), MSG_NOSIGNAL_FLAG);
}

/*
 * Destination, the worker is dead: whether the process runs here. The kernel kills an uncommitted skeleton (PTRACE_O_EXITKILL) before the worker's
 * pidfd becomes readable, so that after that there is no more doubt. The source is told when the worker had no time to.
 */
int stub_runs_here(struct scratch_header *h)
{
	struct poll_fd worker = { h->worker_pidfd, POLL_IN, 0 }, process = { h->process_pidfd, POLL_IN, 0 };
	uint32_t state;
	int lives, committed;

	while (sys(__NR_poll, (long)&worker, 1, -1) <= 0)
		;
	state = load_acquire(&h->state);
	lives = sys(__NR_poll, (long)&process, 1, 0) == 0;
	committed = state == STATE_COMMITTED || (state == STATE_COMMITTING && lives);
	if (committed)
		store_release(&h->state, STATE_COMMITTED);
	if (!h->resumed_told)
		say_go(h, committed ? GO_RESUMED : GO_ABORTED);
	h->resumed_told = 1;
	return committed && lives;
}

/* The worker is dead. Source: before the go message the threads go on; after it see doubt.c. Destination: see above. */
static void __attribute__((noreturn)) agent_orphaned(struct scratch_header *h)
{
	uint32_t expected = STATE_FROZEN;

	if (h->finished)
		leave(h);
	if (h->worker_pidfd >= 0) {
		stub_runs_here(h);
		leave(h);
	}
	__atomic_compare_exchange_n(&h->state, &expected, STATE_ABORTED, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	/* A destination that waits for pages which nobody will send any more shall give up at once. */
	if (expected == STATE_IN_DOUBT && !h->nranges)
		sys(__NR_shutdown, h->bulk_fd, SHUT_WRITE);
	if (expected == STATE_IN_DOUBT)
		store_release(&h->state, doubt_resolve(h) ? STATE_COMMITTED : STATE_ABORTED);
	if (load_acquire(&h->state) == STATE_COMMITTED) {
		agent_serve(h);
		leave_by_exit();
	}
	for (uint32_t i = 1; i < h->nslots; i++)
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
	if (n == 0 || (n < 0 && n != E_AGAIN && n != E_INTR))
		agent_orphaned(h);
}

static void rest(struct slot *slot, struct scratch_header *h)
{
	if (slot->flags & SLOT_TRAP)
		sys(__NR_tgkill, sys(__NR_getpid), sys(__NR_gettid), SIGNAL_STOP); /* a ptrace stop: the tracer swallows it */
	else if (slot->flags & SLOT_AGENT)
		agent_wait(slot, h);
	else
		futex_wait(&slot->seq, slot->done);
}

static void leave(struct scratch_header *h)
{
	uint64_t base = h->base, size = h->size, trampoline = h->trampoline;

	if (h->staging)
		sys(__NR_munmap, (long)h->staging, STAGING_PAGES * AGENT_PAGE);
	if (!trampoline)
		leave_by_exit();
	/* munmap pulls this code from under the task: the call is made from outside of it. */
	asm volatile("jmp *%0" : : "r"(trampoline), "a"(__NR_munmap), "D"(base), "S"(size) : "memory");
	__builtin_unreachable();
}

static void finished(struct scratch_header *h, long error)
{
	h->agent_error = (int32_t)error;
	store_release(&h->finished, 1);
	futex_wake(&h->finished);
}

static void execute(struct slot *slot, struct scratch_header *h)
{
	switch (slot->command) {
	case COMMAND_RUN:
		stub_run_list((struct remote_call *)slot->list, slot->ncalls, &slot->ran);
		break;
	case COMMAND_RESTORE:
		make_thunk(slot);
		store_release(&slot->done, slot->seq);
		stub_restore(slot);
	case COMMAND_DIE:
		sys(__NR_set_robust_list, 0, 24);
		sys(__NR_set_tid_address, 0);
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
