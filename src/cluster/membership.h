/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * membership.h - who belongs to the cluster, and whose each unit is: one interface, two ways to know it
 *
 * *Static*: the nodes of the configuration; what else there is is learned by gossip (members.h). There is no store: a unit is whose the commit of its last move says, and the fencing number
 * is counted by who asks.
 * *etcd*: a store that all nodes ask. Each node is entered under a lease that it keeps alive, so that it disappears from the list when it is gone; each unit has a record with
 * its owner. Records change by transactions only: who changes one says which fencing number it has now, and of two who do so at once one fails. The fencing number is the store's
 * revision of the change (mod_revision), which grows with everything that is ever written: it never comes again, also when a record was removed and made anew.
 *
 * Keys of etcd, below a prefix: nodes/NAME is {"address": "10.0.0.1:4470", "run": "..."}, units/HOME:PID is {"owner": "n1", "moves": 2}, while it moves with "to": "n2".
 *
 * All functions block; with etcd for up to MEMBERSHIP_TIMEOUT_MS for each server that is asked, in turn, until one answers.
 */
#ifndef GODWIT_CLUSTER_MEMBERSHIP_H
#define GODWIT_CLUSTER_MEMBERSHIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/gossip.h"

#define MEMBERSHIP_TIMEOUT_MS 2000
#define MEMBERSHIP_NODES_MAX 10240
#define MEMBERSHIP_SERVERS_MAX 8
#define MEMBERSHIP_SERVER_MAX 200
#define MEMBERSHIP_UNIT_MAX 300
#define MEMBERSHIP_RUN_MAX 40

struct membership_node {
	char name[GOSSIP_NAME_MAX + 1];
	uint8_t address[4]; /* IPv4 */
	uint16_t port;
	char run[MEMBERSHIP_RUN_MAX]; /* which run of the host it is: another one after each boot; "": it does not say */
	uint64_t revision;  /* of its key */
};

struct membership_record {
	char unit[MEMBERSHIP_UNIT_MAX];
	char owner[GOSSIP_NAME_MAX + 1];
	uint64_t moves;     /* that it had made when it came there */
	char to[GOSSIP_NAME_MAX + 1]; /* the owner is moving it to that node; "": it is not */
	uint64_t fence;     /* grows with every change */
};

/* How etcd is reached. */
struct membership_etcd {
	char servers[MEMBERSHIP_SERVERS_MAX][MEMBERSHIP_SERVER_MAX]; /* "http://10.0.0.1:2379" */
	size_t n_servers;
	char prefix[64];                                             /* "/godwit/" */
	char ca[256], cert[256], key[256];                           /* of TLS: files; "": none */
	unsigned lease_s;
};

struct membership;

/* `nodes` stays the caller's and must live as long. Never fails but for -ENOMEM. */
int membership_open_static(struct membership **ret, const struct membership_node *nodes, size_t n, struct err *e);
/* Does not connect yet. -ENOENT: libcurl is not installed. */
int membership_open_etcd(struct membership **ret, const struct membership_etcd *etcd, const struct membership_node *self, struct err *e);
void membership_close(struct membership *m);

/* Enters this node, or keeps it entered; to be called at least every third of a lease. */
int membership_keep(struct membership *m, struct err *e);
/* The same, but a node that is not entered, or not any more, is not: -ENOKEY (e is not set). */
int membership_renew(struct membership *m, struct err *e);
/* With which run of its host it enters from now on. */
void membership_say_run(struct membership *m, const char *run);
/* Takes it out. */
int membership_leave(struct membership *m, struct err *e);
/* All nodes that are entered, this one perhaps among them; the caller frees *ret. */
int membership_list(struct membership *m, struct membership_node **ret, size_t *ret_n, struct err *e);

/* -ENOENT: there is no record of it (e is not set). */
int membership_owner(struct membership *m, const char *unit, struct membership_record *ret, struct err *e);
/* Calls `each` for every record, until it returns not 0. */
int membership_records(struct membership *m, int (*each)(const struct membership_record *record, void *arg), void *arg, struct err *e);
/*
 * Writes a record whose fencing number is record->fence now, 0: that is not there yet. On success it is the new one. -ESTALE: somebody else was faster, or it has another one;
 * membership_owner says how it is.
 */
int membership_own(struct membership *m, struct membership_record *record, struct err *e);
/* As membership_own, if `node` is as it was when it was listed with that revision, too; 0: if it is not entered. */
int membership_take(struct membership *m, struct membership_record *record, const char *node, uint64_t revision, struct err *e);
/* Removes a record that has this number. -ESTALE as above. */
int membership_disown(struct membership *m, const char *unit, uint64_t fence, struct err *e);

/* For the two kinds. */
struct membership_ops {
	int (*keep)(struct membership *m, bool may_enter, struct err *e);
	void (*say_run)(struct membership *m, const char *run);
	int (*leave)(struct membership *m, struct err *e);
	int (*list)(struct membership *m, struct membership_node **ret, size_t *ret_n, struct err *e);
	int (*owner)(struct membership *m, const char *unit, struct membership_record *ret, struct err *e);
	int (*records)(struct membership *m, int (*each)(const struct membership_record *record, void *arg), void *arg, struct err *e);
	int (*own)(struct membership *m, struct membership_record *record, struct err *e);
	int (*take)(struct membership *m, struct membership_record *record, const char *node, uint64_t revision, struct err *e);
	int (*disown)(struct membership *m, const char *unit, uint64_t fence, struct err *e);
	void (*close)(struct membership *m);
};

struct membership {
	const struct membership_ops *ops;
};

#endif
