/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sys.h - system calls and small helpers of the freestanding agent (x86-64) */
#ifndef GODWIT_AGENT_SYS_H
#define GODWIT_AGENT_SYS_H

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"

#ifdef AGENT_HOSTED
long sys6(long nr, long a, long b, long c, long d, long e, long f); /* a test's kernel */
#else
static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d;
	register long r8 asm("r8") = e;
	register long r9 asm("r9") = f;
	long ret;

	asm volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return ret;
}
#endif

#define sys(nr, ...) sys_array(nr, (const long[6]){ __VA_ARGS__ })

static inline __attribute__((always_inline)) long sys_array(long nr, const long a[6])
{
	return sys6(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);

#define load_acquire(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define store_release(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)

/* Kernel numbers that the freestanding agent needs; from the uapi headers. */
#define E_AGAIN (-11)
#define E_FAULT (-14)
#define E_INTR (-4)
#define E_EXIST (-17)
#define E_SRCH (-3)
#define E_NOMEM (-12)
#define E_PIPE (-32)
#define E_CONNRESET (-104)
#define E_PROTO (-71)
#define E_TIMEDOUT (-110)
#define SIGNAL_BUS 7
#define SIGNAL_SEGV 11
#define SIGNAL_CONT 18
#define E_RESTARTSYS (-512)
#define E_RESTARTNOINTR (-513)
#define E_RESTARTNOHAND (-514)
#define E_RESTART_RESTARTBLOCK (-516)
#define SIGNAL_STOP 19
#define SIG_SETMASK_HOW 2
#define SA_SIGINFO_FLAG 4
#define SA_RESTORER_FLAG 0x04000000
#define FUTEX_WAIT_OP 0
#define FUTEX_WAKE_OP 1
#define MSG_PEEK_FLAG 0x02
#define MSG_DONTWAIT_FLAG 0x40
#define MSG_WAITALL_FLAG 0x100
#define MSG_NOSIGNAL_FLAG 0x4000
#define MSG_MORE_FLAG 0x8000
#define SPLICE_NONBLOCK_FLAG 2
#define O_NONBLOCK_FLAG 04000
#define O_CLOEXEC_FLAG 02000000
#define F_GETFL_COMMAND 3
#define F_SETFL_COMMAND 4
#define F_SETPIPE_SZ_COMMAND 1031
#define SHUT_WRITE 1
#define LEVEL_TCP 6
#define TCP_INFO_OPTION 11
#define TCP_STATE_CLOSE_WAIT 8
#define PROT_READ_ONLY 1
#define POLL_IN 1
#define CLOCK_MONOTONIC_ID 1
#define POLL_OUT 4
#define POLL_ERR 8
#define POLL_HUP 16
#define POLL_RDHUP 0x2000
#define MADV_DONTNEED_LOCKED_ADVICE 24
#define MADV_DONTFORK_ADVICE 10
#define MADV_POPULATE_WRITE_ADVICE 23
#define AGENT_PAGE 4096ul

struct poll_fd {
	int fd;
	short events, revents;
};

struct io_vec {
	uint64_t base, len;
};

struct msg_hdr {
	void *name;
	uint32_t namelen, pad;
	struct io_vec *iov;
	uint64_t iovlen;
	void *control;
	uint64_t controllen;
	uint32_t flags, pad2;
};

/* The agent's working memory, at SCRATCH_BUFFERS. */
struct pm_region {
	uint64_t start, end, categories;
};

struct pager_context {
	int uffd;
	uint32_t npieces, capacity;
	struct pager_piece *pieces;
};

#define CONTEXTS_MAX 1024
#define REGIONS_MAX 64

struct agent_buffers {
	struct stream_frame out, in, reply, fault_in;
	uint8_t hole[AGENT_PAGE];
	struct io_vec iov[STREAM_RUNS_MAX + 2];
	struct pm_region regions[REGIONS_MAX];
	uint8_t message[512];
	struct pager_context contexts[CONTEXTS_MAX];
};

_Static_assert(SCRATCH_BUFFERS + sizeof(struct agent_buffers) <= SCRATCH_UNIT, "agent buffers outgrew their place");

static inline struct agent_buffers *agent_buffers(struct scratch_header *h)
{
	return (struct agent_buffers *)((uint8_t *)h - SCRATCH_HEADER + SCRATCH_BUFFERS);
}

static inline struct unit_page *unit_page(struct scratch_header *h)
{
	return (struct unit_page *)((uint8_t *)h - SCRATCH_HEADER + SCRATCH_UNIT);
}

/* Whether the step was made: the unit's state was what the step comes from, and is what it leads to now. */
static inline int unit_step(struct scratch_header *h, enum handover_step step)
{
	uint32_t from = handover_from(step);

	return __atomic_compare_exchange_n(&unit_page(h)->state, &from, handover_to(step), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* send.c, serve.c, receive.c, pager.c, stub.c */
void frame_message(struct stream_frame *f, struct io_vec *iov, struct msg_hdr *m);
long agent_send(struct scratch_header *h);
/* compare.c; the length of the differences, or a negative errno */
long agent_compare(const struct compare_job *job);
long agent_serve(struct scratch_header *h);
long agent_receive(struct scratch_header *h);
long agent_pager(struct scratch_header *h);
/*
 * doubt.c: HANDOVER_HEARD_COMMITTED or HANDOVER_HEARD_ABORTED; blocks until it is known. DOUBT_MOOT: this process has been killed meanwhile, or somebody else has
 * found out.
 */
#define DOUBT_MOOT (-1)
int doubt_resolve(struct scratch_header *h);
int stub_runs_here(struct scratch_header *h);
/* Source: to the process. One that is in another pid namespace than the agent is known by a descriptor only. */
long signal_process(const struct scratch_header *h, long signal);
void stub_kill_begin(struct scratch_header *h);
void stub_kill_finish(struct scratch_header *h);
/* Tells the worker that there is something to look at. */
void stub_ring(const struct scratch_header *h);
void stub_run_list(struct remote_call *calls, uint32_t n, uint32_t *ret_ran);

/* io.c: whole messages on blocking sockets; 0 or negative errno, E_PIPE at the end of the stream */
long read_all(int fd, void *to, uint64_t len);
long send_all(int fd, struct msg_hdr *message);
void message_advance(struct msg_hdr *m, uint64_t n);

#endif
