/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * home.h - the unit's presence at home after it has left: the stub, and the process godwit-home that cares for it
 *
 * See docs/home.md.
 */
#ifndef GODWIT_HOME_HOME_H
#define GODWIT_HOME_HOME_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "home/channel.h"
#include "home/stub_abi.h"
#include "home/terminal.h"
#include "kern/remote.h"
#include "wire/hello.h"

#define HOME_LINE_BYTES 1024

struct home {
	char unit[300];      /* HOME:PID */
	char self_name[HELLO_NAME_MAX + 1], host[HELLO_NAME_MAX + 1]; /* this node; where the unit runs */
	struct sockaddr_in address;
	uint8_t mig_id[HELLO_MIG_ID_BYTES];
	pid_t pid;           /* of the stub; 0: there is none, only relays */
	int stub;            /* socket to it; -1: nobody waits, there are only relays */
	uint32_t uid, gid;   /* real ones of the unit's root */
	uint8_t skip[STUB_SIGNALS + 1]; /* signals that the unit has taken along */
	bool killed;         /* it has been, before it was the stub */
	bool init;           /* it is the first process of a pid namespace: only SIGKILL and SIGSTOP from outside have their default actions */
	bool traced;         /* it has system call filters: tracer.h */
	struct channels channels; /* relays; their descriptors become godwit-home's */
	char line[HOME_LINE_BYTES], comm[32]; /* of the stub, for ps(1) */
	/* a terminal among the channels */
	size_t typed;        /* bytes that were typed and not read when the unit was frozen: it has them */
	bool leads;          /* the unit's root leads a session */
	bool controls;       /* the terminal is the one of the root's session */
	bool foreground;     /* ... whose leader stays here, and in which a group of the unit's is in the foreground: the stub's is to be that from now on */
	struct terminal terminal; /* godwit-home's */
};

#define HOME_INIT ((struct home){ .stub = -1 })

/*
 * Whether somebody on this host waits for process `pid` with parent `ppid`: its parent is neither init nor godwitd (`daemon`). A parent outside of
 * this pid namespace, which has the number 0 here (podman exec, nsenter), waits as well. For init as the parent nobody can tell; systemd as init waits for its services' main processes.
 */
bool home_is_awaited(pid_t ppid, pid_t daemon);

/*
 * Makes the stub out of the frozen process: `main` is the list of its parked main thread; the other threads have been told to DIE, its memory is held by the agent. Fills in
 * h->stub. The caller traces all threads, and no more when this is done; with h->traced the stub spins until godwit-home does. When it fails the process is still what it was.
 */
int home_plant(struct home *h, struct batch *main, int process_pidfd, struct err *e);

/* A descriptor of the stub's program by which whoever execs it becomes root. */
int home_program_of_root(struct err *e);

/* Starts godwit-home, a child of godwitd that outlives it. Closes h->stub here. */
int home_start(struct home *h, struct err *e);

#endif
