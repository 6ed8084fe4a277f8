/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uring_record.h - what the BPF program tells about io_urings; shared by it and uring_peek.c, so it includes nothing */
#ifndef GODWIT_KERN_URING_RECORD_H
#define GODWIT_KERN_URING_RECORD_H

enum {
	URING_RESTRICTED = 1 << 0,
	URING_NO_DRAIN = 1 << 1,   /* IOSQE_CQE_SKIP_SUCCESS was used: IOSQE_IO_DRAIN fails from then on */
	URING_PERSONALITIES = 1 << 2,
	URING_BUFFER_LISTS = 1 << 3,
	URING_ZERO_COPY = 1 << 4,  /* a registered queue of a network device */
	URING_NAPI = 1 << 5,
	URING_WAIT_REGION = 1 << 6,
	URING_OVERFLOW = 1 << 7,   /* completions for which the ring had no room */
	URING_SHARED_WORKERS = 1 << 8, /* its workers or its thread are another ring's, too */
};

/* A descriptor of a ring. */
struct uring_record {
	unsigned int fd;
	unsigned int flags;        /* IORING_SETUP_* */
	unsigned long long file, ctx, inode;
	unsigned long long eventfd; /* 0: none */
	unsigned int eventfd_async;
	unsigned int bits;         /* URING_* */
	unsigned int sq_entries, cq_entries;
	unsigned int sq_head, cq_tail; /* as the kernel counts them */
	unsigned int in_flight;    /* requests that are not over */
	int submitter;             /* IORING_SETUP_SINGLE_ISSUER: the thread that may submit, 0: any */
	unsigned int sq_idle;      /* milliseconds, IORING_SETUP_SQPOLL */
	int sq_cpu;
	int clock;
	unsigned int worker_limits[2];
	unsigned int n_files, n_buffers; /* places in the tables, also empty ones */
	unsigned int file_alloc_start, file_alloc_end;
	unsigned int ring_pages, sqe_pages;
	unsigned int open_flags;
};

/* A descriptor of any kind. */
struct uring_file {
	unsigned int fd;
	unsigned int unused;
	unsigned long long file, private;
};

/* IORING_REGISTER_RING_FDS of a thread. */
struct uring_registered {
	unsigned int tid, index;
	unsigned long long file;
};

enum uring_entry_kind {
	URING_ENTRY_FILE,   /* a: the file, b: its tag */
	URING_ENTRY_BUFFER, /* a: address, b: tag, c: bytes; 0, 0: of the kernel's */
};

/* What is registered in one ring, and what is in flight. */
struct uring_entry {
	unsigned int kind, index;
	unsigned long long a, b, c;
};

/* A request that waits for something. Which fields mean what depends on the operation: see in_flight.c and the kernel's structures of the same names. */
struct uring_request {
	unsigned char opcode;
	unsigned char flags;       /* IOSQE_* */
	unsigned char busy;        /* it is just being dealt with */
	unsigned char linked;      /* another one is to follow it */
	unsigned int tid;          /* the thread that submitted it */
	int fd;                    /* number, or place in the table of files, of what it waits for; -1: of nothing */
	unsigned int len;
	unsigned long long data;   /* user_data */
	unsigned long long file;
	unsigned long long address, address2, offset;
	unsigned long long done;   /* what has been transferred already */
	long long expires;         /* a timeout: on `clock`, nanoseconds */
	unsigned int clock;
	unsigned int events;       /* a poll */
	unsigned int operation_flags, ioprio, place;
	unsigned int repeats;
	long long period[2];       /* a timeout, as it was given */
};

#define URING_ENTRIES_MAX 32768
#define URING_REQUESTS_MAX 8192

#endif
