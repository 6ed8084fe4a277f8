/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cluster_loop.h - what godwit-cluster does, a process of godwitd's: it measures this host, gossips, and publishes what it knows (cluster_view.h)
 *
 * The main process has nothing to do with it but the UDP socket, which is bound before; when this process dies another one goes on with the same socket. Once a second it measures
 * (cluster/measure.h) and probes (cluster/members.h); in between it answers. When godwitd ends, in whatever way, it says goodbye to others and ends as well. It reads what
 * strangers send, and so has no rights (base/confine.h): godwit-etcd is started by a process that it began with.
 */
#ifndef GODWIT_DAEMON_CLUSTER_LOOP_H
#define GODWIT_DAEMON_CLUSTER_LOOP_H

#include <sys/types.h>

#include "daemon/cluster_view.h"
#include "daemon/config.h"

struct cluster_setup {
	const struct config *config;
	struct cluster_view *view;
	struct node_shared *shared;
	int udp_fd, wake_fd;
	pid_t daemon; /* the main process */
};

/* -EADDRINUSE and the like. A non-blocking socket on the address and port that the nodes' TCP connections use. */
int cluster_open_udp(const struct config *config, struct err *e);
void __attribute__((noreturn)) cluster_loop(const struct cluster_setup *setup);

#endif
