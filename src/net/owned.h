/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * owned.h - addresses that belong to units (godwit run --address), on this host
 *
 * Theory of operation. Such an address is at the host where its unit is, and nowhere else: it is taken along, so that whoever talks to it, with Godwit or without, depends on no
 * other host. What this host has is in a record, a small JSON file for each process that has some (DIRECTORY/PID.json). A keeper, a process of its own (godwit-address), tells the link of the address, and takes it
 * away when the process ends. Who takes it elsewhere removes the record, which ends the keeper. A keeper that has been killed is replaced by godwitd (owned_tidy).
 *
 *	coming  a record that is made before the commit: nothing is at the device yet. The keeper has a socket to the worker that moves the unit here; a byte says
 *	        that the unit is here. When the socket ends without, the keeper finds out: a process that is there and that nobody traces has been let go.
 *	here    the address is at the device
 *
 * At the source the address stays until the commit; so nothing has to be undone. After it, it is removed at once by whoever learns of the commit (owned_release), and in any case by the keeper when the
 * process has ended or has become a stub (home/home.h): exactly one host has it in the end.
 *
 * All calls must be made in the host's network namespace, or with the descriptor of it, and may block for milliseconds.
 */
#ifndef GODWIT_NET_OWNED_H
#define GODWIT_NET_OWNED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/address.h"

#define OWNED_DEFAULT_DIRECTORY "/run/godwit/addresses"
#define OWNED_MAX 16u

struct owned {
	pid_t pid;            /* as godwitd sees it */
	uint64_t start_ticks; /* kern/proc_start.h */
	pid_t keeper;         /* 0: none yet */
	uint64_t keeper_ticks;
	bool coming;
	size_t n;
	struct owned_address v[OWNED_MAX];
};

/* Where the records are; the default is OWNED_DEFAULT_DIRECTORY. */
void owned_use_directory(const char *directory);
/* Of a live process: 0, or -ENOENT. */
int owned_find(pid_t pid, struct owned *ret);
/* Calls `each` for every record, in no order, until it returns non-zero. */
void owned_list(int (*each)(const struct owned *o, void *arg), void *arg);
/* Whether a unit of this host has it. */
bool owned_has(const struct owned_address *a);

/*
 * Gives process `pid` addresses, which are checked first: nobody has them, here or on the link. All or none. -EADDRINUSE, -ENODEV, -EEXIST (the process has some already)
 * with words. Chooses devices and prefixes in v.
 */
int owned_give(pid_t pid, struct owned_address *v, size_t n, struct err *e);

/*
 * The destination's side. The keeper is forked early, when its maker has nothing yet that should not be kept for long, and outside of the unit's pid and time namespaces. It ends when the socket
 * does before owned_expect. ns: the host's network namespace, or -1.
 */
struct owned_keeper {
	pid_t pid;
	int socket; /* -1: none */
};
int owned_keeper_prepare(int ns, struct owned_keeper *ret, struct err *e);
void owned_keeper_close(struct owned_keeper *keeper);
/* The record of what is to come. Devices have been chosen. */
int owned_expect(struct owned_keeper *keeper, pid_t pid, const struct owned_address *v, size_t n, struct err *e);
/* [freeze] The unit is here: it is at the device. nl: opened before, in the host's network namespace. The keeper does what is left. */
void owned_arrived(struct netlink *nl, const struct owned_address *v, size_t n, const struct owned_keeper *keeper);

/* The source's side, after the commit: the addresses of a process leave this host. */
void owned_release(pid_t pid, int ns);

/* Keepers that have died are replaced. False: there are no records. ns: see owned_keeper_prepare. */
bool owned_tidy(int ns);

#endif
