/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * talks.h - with whom units talk, and how much: bytes of their TCP connections, by the node where the other end is
 *
 * Every TALKS_S godwit-balance takes what the kernel counts for each connection (sock_diag) and the sockets of each unit's processes. Where the other end of a connection is says the table of redirected
 * connections (net/redirect.h), or its address. Godwit's own that work for a unit count as the unit: what relays the files that home serves to it, and what relays its standard streams; so a unit that
 * reads much from home is drawn home. Connections that are younger than a sample are not seen, nor those in network namespaces of a unit's own.
 */
#ifndef GODWIT_DAEMON_TALKS_H
#define GODWIT_DAEMON_TALKS_H

#include "daemon/units.h"

#define TALKS_S 5.0
#define TALKS_UNITS 64 /* that talk most lately; shared with those who explain */

/* What is known of one unit. Written by godwit-balance only; readers may see one that is being written. */
struct talks_of {
	pid_t pid;
	uint64_t start_ticks;
	double since_s;    /* CLOCK_BOOTTIME: it has been talking since then */
	size_t n;
	struct policy_talk talks[POLICY_TALKS_MAX]; /* the most first */
};

struct talks_shared {
	struct talks_of v[TALKS_UNITS];
	size_t next;
};

struct talks_socket {
	uint64_t bytes;
	uint32_t inode;
	uint32_t unit; /* index */
};

struct talks {
	struct talks_socket *before; /* by inode */
	size_t n_before;
	double at_s;                 /* 0: nothing has been read yet */
};

/* When it is time. */
void talks_sample(struct talks *t, struct talks_shared *shared, const struct daemon *d, const struct units *units);
/* Fills in what is known of a unit. */
void talks_add(const struct talks_shared *shared, const struct unit_info *unit, struct policy_unit *ret);

#endif
