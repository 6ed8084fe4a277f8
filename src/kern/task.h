/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * task.h - the scratch, its slots, and the tasks that run the stub
 *
 * A struct scratch is the worker's view of the memfd described in agent/abi.h. A struct task is one slot and the way to make its
 * task take a command: a futex (parked threads), a byte on a socket as well (the agent once it has one), or PTRACE_CONT
 * (skeleton threads, which rest in a ptrace stop and are traced by the caller).
 */
#ifndef GODWIT_KERN_TASK_H
#define GODWIT_KERN_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/abi.h"
#include "base/err.h"

#define SCRATCH_NAME "godwit-scratch" /* shows as /memfd:godwit-scratch (deleted) */

struct scratch {
	int memfd;
	uint8_t *map;
	size_t size;
	uint64_t base; /* address in the target; 0 until known */
	size_t arena_start, arena_used, arena_end;
	uint64_t exec_delta; /* abi.h */
};

/* Size of a scratch for `threads` threads with an arena of at least arena_bytes; page aligned. */
size_t scratch_size(unsigned threads, size_t arena_bytes);

/* Takes over `memfd` (of any length), sizes it, maps it, copies the agent's code into it and fills the header. */
int scratch_init(struct scratch *s, int memfd, unsigned threads, size_t arena_bytes, struct err *e);
void scratch_free(struct scratch *s);
void scratch_set_base(struct scratch *s, uint64_t base);
/* Code is executed at the end of the scratch, where the caller has mapped arena_start bytes once more. */
void scratch_set_apart(struct scratch *s);

static inline struct scratch_header *scratch_header(const struct scratch *s)
{
	return (struct scratch_header *)(s->map + SCRATCH_HEADER);
}

/* The page of the unit: the root's, once agent_equip has been told so. */
static inline struct unit_page *scratch_unit(const struct scratch *s)
{
	return (struct unit_page *)(s->map + SCRATCH_UNIT);
}

/* Whether the step of the handover was made: the unit's state was what it comes from, and is what it leads to now. */
static inline bool scratch_unit_step(const struct scratch *s, enum handover_step step)
{
	uint32_t from = handover_from(step);

	return __atomic_compare_exchange_n(&scratch_unit(s)->state, &from, handover_to(step), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline struct slot *scratch_slot(const struct scratch *s, unsigned i)
{
	return (struct slot *)(s->map + SCRATCH_SLOTS + (size_t)i * SLOT_SIZE);
}

static inline uint64_t scratch_slot_address(const struct scratch *s, unsigned i)
{
	return s->base + SCRATCH_SLOTS + (uint64_t)i * SLOT_SIZE;
}

/* Maps the unit page of the root's scratch, whose memfd this is, over the one of `s`, in this process only. */
int scratch_share_unit(struct scratch *s, int root_memfd, struct err *e);

/* Zeroed space (of a fresh memfd: untouched pages cost nothing) that stays until scratch_free; NULL when the scratch is full. 16-byte aligned. */
void *scratch_alloc(struct scratch *s, size_t len_bytes, uint64_t *ret_address);

/*
 * Touches the part of the scratch that a freeze uses (header, slots of `threads` threads, the beginning of the arena), here and in the task's address space, so
 * that no page fault happens there later.
 */
#define SCRATCH_WARM_BYTES (512ul << 10)
struct batch;
int scratch_warm(struct scratch *s, unsigned threads, struct batch *b, struct err *e);

/* TASK_HELD: like TASK_FUTEX, but still the caller's tracee: it is sent on whenever it stops meanwhile. */
enum task_wake { TASK_FUTEX, TASK_SOCKET, TASK_PTRACE, TASK_HELD };

struct task {
	struct scratch *scratch;
	unsigned slot;
	pid_t tid; /* as the worker sees it */
	enum task_wake wake;
	int bell_fd; /* TASK_SOCKET */
	unsigned long event; /* TASK_PTRACE: message of its last ptrace event: a child's number, as the worker sees it */
};

/* Puts a command into the slot without waking anybody (for a task that will enter the stub in a moment). */
void task_command(struct task *t, enum slot_command command);
/* Wakes the task that has been given a command. */
int task_wake(struct task *t, struct err *e);
/* Waits for the end of the newest command. -EAGAIN: the task was stopped by a signal, and goes on with it when it is continued. TASK_PTRACE: returns with the task in its ptrace stop again. */
int task_wait(struct task *t, int timeout_ms, struct err *e);
/* Whether it has done what it was last told; not for one in a ptrace stop. */
bool task_is_done(const struct task *t);
/* The three together. */
int task_run(struct task *t, enum slot_command command, int timeout_ms, struct err *e);

struct batch;
struct batch *batch_new(struct task *t);
void batch_free(struct batch *b);
/* batch_run in two halves, so that the lists of many tasks run at the same time. Only for lists that fit one chunk (BATCH_CHUNK calls);
 * longer ones run whole in batch_finish. batch_prepare does not wake the task. */
#define BATCH_CHUNK 192
void batch_prepare(struct batch *b);
int batch_start(struct batch *b, struct err *e);
int batch_finish(struct batch *b, struct err *e);
size_t batch_count(const struct batch *b);
/* Address and length of a list of one chunk, for lists that the agent runs by itself later (0 when it is empty or longer). */
uint64_t batch_list(const struct batch *b, uint64_t *ret_ncalls);

#endif
