/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * host_load.h - how busy this host is, and what this godwitd has sent to others lately: memory that the main process shares with its workers
 *
 * A process of its own, godwit-load, measures once a second (cluster/measure.h), so that averages go on whatever the others do. It ends with godwitd.
 */
#ifndef GODWIT_DAEMON_HOST_LOAD_H
#define GODWIT_DAEMON_HOST_LOAD_H

#include "cluster/load.h"
#include "cluster/policy.h"

struct host_load;

/* Once, before any worker is started. */
int host_load_init(struct host_load **ret, struct err *e);
/* What godwit-load does; it does not return. */
void __attribute__((noreturn)) host_load_measure(struct host_load *h, double speed);
/* The latest vector; before there is one, what can be known without having watched. */
void host_load_read(struct host_load *h, double speed, struct load *ret);
/* What has been sent to these nodes since they measured themselves is added to what they say (policy.h: policy_sent). */
void host_load_add_sent(struct host_load *h, struct policy_node *nodes, size_t n);
/* Something is being sent to a node. */
void host_load_sent(struct host_load *h, uint64_t id, double run, double mem_mib);

#endif
