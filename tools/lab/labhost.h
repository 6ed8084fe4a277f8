/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * labhost.h - the hosts of the lab: what the subcommands of labhost share
 *
 * A host is a set of namespaces (net, pid, mnt, uts, ipc) held by its init. The orchestrator (lab.py) makes the network
 * and calls labhost for what must be quick or must be done from inside: `init`, `exec`, `kill`.
 *
 * The state directory (GODWIT_LAB_DIR) has, for a host: hosts/NAME/init ("PID STARTTIME" of its init, absent when it is
 * down), and for the lab: path (what is put before PATH in the hosts). A pid alone is never trusted: it counts
 * only with its start time, and is used only through a pidfd.
 */
#ifndef GODWIT_LAB_LABHOST_H
#define GODWIT_LAB_LABHOST_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Exit status for failures of the lab itself, as env, nohup and docker have it; 126 and 127 are the command's. */
#define LABHOST_FAILED 125

struct labhost {
	const char *state;      /* state directory of the lab */
	const char *prefix;     /* prefix of the network namespaces, "gw" */
	const char *name;       /* host, "n1" */
};

/* Prints "lab: HOST: message[: errno text]" on stderr and exits with LABHOST_FAILED. */
void lab_die(const struct labhost *host, int errnum, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));

/* Start time (clock ticks since boot) of process `pid`, 0 when there is no such process. */
unsigned long long lab_start_time(pid_t pid);

/* The init of the host: a pidfd that is certain to be it, and its pid. -1 when the host is not running. */
int lab_open_init(const struct labhost *host, pid_t *ret_pid);

/* The namespace of the lab or of a host (/run/netns/PREFIX-WHAT), open; -1 with errno. */
int lab_open_netns(const struct labhost *host, const char *what);

/*
 * The control group of a host in the hierarchy of version 2, as the machine sees it; false: the machine has none. A host's cgroup namespace begins there, and its
 * processes are in "/host", so that controllers can be handed down to other groups. Hierarchies of version 1 are the machine's.
 */
bool lab_cgroup(const struct labhost *host, char *path, size_t size);

/* Sends what pty_open_inside makes through `channel`: the master of a new pty of the host. Runs in the host. */
int pty_open_inside(int channel);

/* Takes the master from `channel`; -1 with errno. */
int pty_receive(int channel);

/* Copies between our terminal and `master` until the process `pidfd` ends; our terminal is raw in between. */
void pty_relay(int master, int pidfd);

int host_init(struct labhost *host, int argc, char **argv);
int host_exec(struct labhost *host, int argc, char **argv);
int host_kill(struct labhost *host, int argc, char **argv);

#endif
