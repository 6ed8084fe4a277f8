/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stub_abi.h - what the stub and the process godwit-home tell each other, over a unix SOCK_SEQPACKET pair: one struct stub_message each
 *
 *	stub                          godwit-home
 *	READY         ->
 *	              <- START        how many signals of each number the unit has taken along: the stub throws as many away; whose process it is
 *	FAILED        ->              it could not BECOME, and is what it was
 *	SIGNAL        ->              one came
 *	              <- EXIT, DIE    ends with this status, by this signal
 *	              <- STOP         stops itself by this signal
 *	              <- HOST         `text` is the host's name for ps(1)
 *	              <- BECOME       with descriptors: execs the last of them, this program again, with all rights, and has the others from
 *	                              STUB_BECOME_FIRST on; then READY (the unit comes back: home/back.h)
 */
#ifndef GODWIT_HOME_STUB_ABI_H
#define GODWIT_HOME_STUB_ABI_H

#include <stdint.h>

enum stub_kind { STUB_READY = 1, STUB_SIGNAL, STUB_START, STUB_EXIT, STUB_DIE, STUB_STOP, STUB_HOST, STUB_BECOME, STUB_FAILED };

#define STUB_INFO_BYTES 128
#define STUB_SIGNALS 64

struct stub_message {
	uint32_t kind;  /* enum stub_kind */
	uint32_t value; /* signal or exit status */
	union {
		uint8_t info[STUB_INFO_BYTES];   /* SIGNAL: siginfo_t */
		struct {
			uint8_t skip[STUB_SIGNALS + 1]; /* by number */
			uint8_t owned;                  /* it takes these user ids: real, effective, saved */
			uint32_t uid[3];
		} start;                         /* START */
		char text[STUB_INFO_BYTES];      /* HOST */
	};
};

/* A SIGCONT with this value (sigqueue) is from godwit-home and means: the unit goes on; it is not forwarded. */
#define STUB_CONTINUE_VALUE 0x676f6477u

/* Second string of its environment: behind READY it spins, with this in RCX, until somebody traces it (tracer.h) and sets RAX. */
#define STUB_SPINS "spins"
#define STUB_SPINNING 0x676f6477

/* The stub's only descriptor. */
#define STUB_SOCKET 0
/* BECOME: the scratch, the transfer socket and the agent's bell of a skeleton (migrate/skeleton_seat.c); the program. */
#define STUB_BECOME_FDS 4
#define STUB_BECOME_FIRST 3

#endif
