/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * abi.h - the layout of the scratch area, shared by the agent (freestanding) and the worker
 *
 * The scratch is one memfd mapped shared into the process that moves and into its worker. Offsets:
 *
 *   0                      code of the agent (position independent)
 *   SCRATCH_HEADER         struct scratch_header
 *   SCRATCH_AGENT_STACK    stack of the agent
 *   SCRATCH_BUFFERS        struct agent_buffers: the agent's working memory
 *   SCRATCH_UNIT           struct unit_page: one page for all processes of the unit (the root's is mapped over the others')
 *   SCRATCH_SLOTS          one struct slot a task, SLOT_SIZE apart; slot 0 is the agent's, slot 1.. the threads'
 *   header->arena          arena: lists of calls and their data, handed out by the worker
 *   at its end             room of the length of all before the arena. Where a program may have no memory that is both writable and executable (PR_SET_MDWE), that
 *                          much of the scratch is mapped there once more, executable, and code runs there (header->exec_delta)
 *
 * Words that both sides write are 32-bit futex words, accessed with __atomic builtins. All pointers in the scratch are
 * addresses in the process, not in the worker.
 */
#ifndef GODWIT_AGENT_ABI_H
#define GODWIT_AGENT_ABI_H

#include <stddef.h>
#include <stdint.h>

#include "handover.h"

/* One system call. ret is the raw kernel result (negative errno). */
struct remote_call {
	uint64_t nr;
	uint64_t arg[6];
	int64_t ret;
	uint32_t flags; /* CALL_* */
	uint32_t reserved;
};

/* In the place of a system call's number: writes the differences (delta.h) at arg[0], arg[1] bytes, into pages that exist and may be written. */
#define CALL_WRITE_DELTAS (1ull << 32)
/* For the agent at the source: compares as a struct compare_job at arg[0] says; the result is the length of the differences, or -EFAULT when a page cannot be read. */
#define CALL_COMPARE (CALL_WRITE_DELTAS + 1)

#define CALL_MAY_FAIL 1u     /* a failure does not end the list */
#define CALL_SKIPPED (-4095) /* ret of calls behind the one that ended the list */

#define SCRATCH_HEADER 0x8000u
#define SCRATCH_AGENT_STACK 0x9000u
#define SCRATCH_AGENT_STACK_TOP 0xd000u
#define SCRATCH_BUFFERS 0xd000u
#define SCRATCH_UNIT 0x30000u
#define SCRATCH_SLOTS 0x31000u
#define SLOT_SIZE 4096u

/*
 * What all processes of a unit have in common. `state` is changed by compare-and-exchange only, since the worker and every agent may come to a conclusion at the
 * same time: the first one counts for all.
 */
struct unit_page {
	uint32_t state;     /* enum scratch_state (handover.h); futex word of the held threads */
	uint32_t told;      /* destination: the source has been told by a word on the go connection, by the worker or an agent */
	uint32_t serving;   /* source: agents whose work is not done yet */
};

/* Whether the process is to become a stub (src/home) instead of being killed. Set by the worker. */
enum home_state {
	HOME_OFF,     /* the agent kills it */
	HOME_PENDING, /* the worker is about to make the stub; when it dies before, the agent kills */
	HOME_DONE,    /* it is the stub */
};

enum slot_command {
	COMMAND_RUN = 1, /* run slot->list */
	COMMAND_RESTORE, /* load slot->regs and slot->sigmask and go on there; never returns */
	COMMAND_DIE,     /* clear the robust list and the tid address, then sleep until killed */
	COMMAND_SPAWN,   /* run the one call in slot->list (clone or clone3); the child starts the stub with slot->spawn_slot */
	COMMAND_SEND,    /* agent at the source: send the frames of header->frames with their pages */
	COMMAND_SERVE,   /* agent at the source: serve page requests, push pages */
	COMMAND_RECEIVE, /* agent at the destination: receive pushed pages until a BARRIER frame */
	COMMAND_PAGER,   /* agent at the destination: faults and pushed pages until everything is here */
	COMMAND_LEAVE,   /* unmap the scratch and exit */
	COMMAND_HOLD,    /* agent: makes no system call until header->hold is HOLD_NONE */
	COMMAND_AWAIT,   /* thread at the destination: wait for the unit's state; COMMITTED: as RESTORE, ABORTED: end the process, memory untouched */
};

/* See migrate/keeper.c. */
enum hold_state { HOLD_NONE, HOLD_REQUESTED, HOLD_SPINNING, HOLD_FREE, HOLD_FAILED };

/* Registers in the order of struct user_regs_struct. */
struct slot_regs {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp, ss;
};

/*
 * Destination threads rest in a ptrace stop instead of a futex: each sends itself SIGSTOP, which the tracer swallows. (A breakpoint would do but for the
 * kernel's setting SIGTRAP's action to the default when it is blocked or ignored.)
 */
#define SLOT_TRAP 1u
#define SLOT_AGENT 2u /* the agent: waits on header->worker_fd when there is one */
#define SLOT_ROOT 4u  /* destination: the main thread of the unit's root. That it runs at all while the state is COMMITTING shows that the commit point has passed */

struct slot {
	uint32_t seq;     /* number of the newest command; futex word */
	uint32_t done;    /* number of the last finished command; futex word for the worker */
	uint32_t command; /* enum slot_command */
	uint32_t flags;   /* SLOT_* */
	uint64_t list;    /* struct remote_call[ncalls] */
	uint32_t ncalls;
	uint32_t ran;     /* calls that ran in the last COMMAND_RUN */
	uint64_t spawn_slot;
	uint64_t sigmask;
	struct slot_regs regs;
	int64_t result;
	uint8_t thunk[32]; /* the last instructions of COMMAND_RESTORE, made by the stub */
	uint64_t thunk_address; /* where they can be executed */
};

#define SLOT_STACK 1024u /* where its stack begins in a slot */
#define SLOT_STACK_BYTES (SLOT_SIZE - SLOT_STACK - 64)
#define SLOT_STACK_TOP(slot) ((slot) + SLOT_SIZE - 64)

/* A range of the process whose pages the source serves. */
struct page_range {
	uint64_t start, end;
	uint64_t first_bit; /* index of its first page in the bitmap of pages sent */
	uint32_t flags;     /* RANGE_* */
	uint32_t reserved;
};

#define RANGE_UNREADABLE 1u /* the mapping's protection must be changed before its pages can be sent */

/*
 * The page stream. A frame is this header, `nruns` runs, and the pages of the DATA runs in order. Little-endian. At most
 * STREAM_PAGES_MAX pages and STREAM_RUNS_MAX runs a frame.
 */
#define STREAM_MAGIC 0x50474447u /* "GDGP" */
#define STREAM_PAGES_MAX 64u
#define STREAM_RUNS_MAX 64u
/* The staging area: one frame for the bulk stream, one for the fault stream. */
#define STAGING_PAGES (2 * STREAM_PAGES_MAX)

enum stream_kind {
	STREAM_PAGES = 1, /* runs */
	STREAM_BARRIER,   /* everything before it has been sent; ends COMMAND_RECEIVE */
	STREAM_END,       /* nothing more will come on this connection, but on that for faults answers to what had been asked for before */
};

struct page_frame {
	uint32_t magic;
	uint32_t kind;
	uint32_t nruns;
	uint32_t npages; /* of DATA runs */
};

#define RUN_ZERO 1u     /* the pages hold zeros (or nothing); no data follows */
#define RUN_IN_PLACE 2u /* the mapping is writable: may be received in place */

struct page_run {
	uint64_t address;
	uint32_t npages;
	uint32_t flags;
};

struct stream_frame {
	struct page_frame frame;
	struct page_run runs[STREAM_RUNS_MAX];
};

/* On the go connection, destination to source, when the process has been resumed: these eight bytes. */
#define GO_RESUMED 0x31444d5352444747ull
/* Or these, when it will never run there: then the source goes on. */
#define GO_ABORTED 0x3154524241444747ull

/* On the fault connection, destination to source. */
enum fault_request_kind { FAULT_PAGE = 1, FAULT_PULL, FAULT_DONE };

struct fault_request {
	uint64_t address;
	uint32_t kind;
	uint32_t npages; /* wanted from address on, 1.. */
};
/* The answer is a struct page_frame with one run; no answer when the page is in the bulk stream already. */

/* One address space that still lacks pages: the process, and children that it forked meanwhile. */
struct pager_piece {
	uint64_t original; /* address at the source */
	uint64_t current;  /* where that piece is now */
	uint64_t len;
};

#define AGENT_FAULT_BUCKETS 16 /* up to 16 us, 32 us, ... 262 ms, and all that is longer */

struct agent_counters {
	uint64_t pages_sent, pages_zero, pages_faulted, bytes_sent;
	uint64_t faults_served, pages_received, pages_installed, pages_discarded;
	uint64_t ranges_done;
	uint64_t fault_us, fault_buckets[AGENT_FAULT_BUCKETS]; /* destination: from when a fault was heard of until its page was in place */
};

/* CALL_COMPARE: n pages, at these addresses (u64), with what they were; what differs goes to `out` (delta.h). */
struct compare_job {
	uint64_t header; /* struct scratch_header */
	uint64_t addresses, n, sent;
	uint64_t out, room;
};

struct scratch_header {
	uint32_t nslots;
	uint32_t reserved;
	uint64_t recover_stack; /* CALL_COMPARE: where a page that cannot be read ends it; entry.S */
	uint64_t base, size; /* of the scratch in the process */
	uint64_t arena;      /* offset */
	uint64_t exec_delta; /* what is at an address can be executed so much behind it */
	uint64_t trampoline; /* address of "syscall; xor edi,edi; mov $60,eax; syscall" outside the scratch */
	int32_t tgid;        /* of the process, in its pid namespace (if that is not the agent's, see process_pidfd); 0: do not kill it */
	uint32_t ends_namespace; /* it is the first process of a pid namespace, with which all agents end: it goes last, by itself */
	/* Descriptors in the agent's own table; -1 when unused. */
	int32_t worker_fd, go_fd, fault_fd, bulk_fd, uffd, pagemap_fd, mem_fd, process_pidfd, worker_pidfd;
	int32_t ask_fd;     /* source: a socket for the question after the outcome, of the host's network namespace */
	int32_t root_pidfd; /* destination: of the unit's root, whose life means that the unit was committed; -1: this process is it */
	int32_t record_fd;  /* destination: the record of the commit, which this agent keeps locked as long as it may write it */
	/* COMMAND_SEND */
	uint64_t frames; /* struct stream_frame[nframes] */
	uint64_t nframes;
	/* COMMAND_SERVE */
	uint64_t ranges; /* struct page_range[nranges], sorted */
	uint64_t nranges;
	uint64_t bitmap; /* one bit a page of all ranges: sent */
	uint32_t push;   /* 1: push everything; 0: only what is asked for (copy-on-reference) */
	uint32_t chunk_pages;
	uint64_t first;  /* struct page_run[nfirst]: pages that the program used just before the freeze */
	uint64_t nfirst;
	uint32_t marker_type; /* swap type of page table markers, which are no pages; 0: not known */
	/* COMMAND_PAGER */
	uint64_t staging; /* STAGING_PAGES pages of private anonymous memory */
	uint64_t pool;    /* pool_pages pages of private anonymous memory that exist already: pages of the stream are received there and moved */
	uint64_t pool_pages;
	uint64_t pool_spare; /* of them: more than are expected */
	uint64_t pieces;  /* initial struct pager_piece[npieces] */
	uint64_t npieces;
	uint64_t finish_list; /* struct remote_call[nfinish], run when all pages are here */
	uint64_t nfinish;
	uint32_t drained;       /* COMMAND_PAGER: all pages are here; the worker closes its userfaultfd ... */
	uint32_t uffd_released; /* ... and says so; futex word */
	/* Source: who to ask when the go connection says nothing any more (doubt.c). */
	uint64_t ask;          /* a HELLO frame */
	uint32_t ask_len;
	uint8_t ask_address[16]; /* struct sockaddr_in; all 0: the socket is a relay's (wire/tls.h: TLS_ASK) */
	uint32_t hold;         /* enum hold_state */
	int32_t agent_error; /* why SERVE or PAGER ended early; negative errno */
	uint32_t finished;   /* futex word: 1 when SERVE or PAGER has ended */
	struct agent_counters counters;
	uint32_t shared; /* destination: other processes have this memory, too: it is needed after the end of this one */
	uint32_t home; /* source, the unit's root: enum home_state */
	uint32_t seated; /* destination, the unit's root: it has taken the place of its stub (src/home), and is not killed with the worker */
};

#endif
