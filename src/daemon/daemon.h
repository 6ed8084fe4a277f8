/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * daemon.h - godwitd's state, shared by its files
 *
 * The main process never blocks and never touches a process that moves: it accepts clients (unix socket) and peers (TCP), reads one
 * request or one HELLO from each, and hands the connection to a worker that it forks. It reaps workers and, as child
 * subreaper, the processes that have arrived. Nothing that it holds is needed by a running migration except the hand-on of later
 * connections, so its death costs nothing else.
 *
 *	main.c     options, sockets, the poll loop        worker.c   fork, table, reaping
 *	client.c   requests from the unix socket          peer.c     HELLOs from other nodes, hand-on
 *	cluster_*  godwit-cluster, and what it publishes
 *	do_*.c     what runs in the worker of a request; do_net.c also what runs without one
 */
#ifndef GODWIT_DAEMON_DAEMON_H
#define GODWIT_DAEMON_DAEMON_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/service.h"
#include "daemon/cluster_view.h"
#include "daemon/config.h"
#include "daemon/request.h"
#include "migrate/plan.h"
#include "node.pb-c.h"
#include "wire/frame.h"
#include "wire/hello.h"

#define DAEMON_DEFAULT_SOCKET "/run/godwit/godwitd.sock"
#define CLIENTS_PENDING_MAX 32 /* connections whose request is not complete; the oldest is dropped for a new one */
#define PEERS_PENDING_MAX 512
#define WORKERS_MAX 256
#define CLIENTS_EACH_MAX 8 /* of them, and of workers, a user without privileges has no more than so many */
#define WORKERS_EACH_MAX 32
#define PENDING_TIMEOUT_MS 5000 /* for a request or a HELLO to be complete */

enum worker_kind { WORKER_REQUEST, WORKER_SOURCE, WORKER_DEST, WORKER_NET, WORKER_CLUSTER, WORKER_LEAVE, WORKER_BALANCE, WORKER_PREPARE, WORKER_PROTECT, WORKER_WATCH, WORKER_TLS, WORKER_API, WORKER_GATE };

struct worker {
	pid_t pid;                            /* 0: slot free */
	enum worker_kind kind;
	pid_t moving;                         /* SOURCE: the process that it moves */
	struct caller caller;                 /* REQUEST, SOURCE: for whom */
	char peer[256];                       /* the other node */
	uint8_t mig_id[HELLO_MIG_ID_BYTES];   /* DEST */
	int handoff;                          /* DEST: our end of the socket for later connections; PREPARE: of the one for the programs; -1 otherwise */
};

struct client {
	int fd; /* -1: slot free */
	bool peer; /* another node, which hands a request on */
	struct caller caller; /* of others, by the socket */
	bool waits; /* for the end of a migration of the process that it wants to move: the line is its request */
	uint64_t deadline_ns, turn_until_ns; /* for its request to be complete; for it to wait, 0: it has not waited yet */
	size_t have;
	char line[REQUEST_BYTES_MAX + 1];
};

struct peer {
	int fd; /* -1: slot free */
	uint64_t deadline_ns;
	struct frame_reader reader;
	char address[24];
	bool relayed;                 /* over TLS or a bridge: a greeting comes first */
	bool bridged;                 /* over a bridge */
	bool greeted;                 /* its certificate, or ssh, says who it is: */
	char names[ERR_MESSAGE_MAX];  /* one of these */
};

struct daemon {
	struct config config;
	char socket_path[PATH_MAX];
	int lock_fd, unix_fd, tcp_fd, signal_fd;
	int udp_fd; /* for godwit-cluster */
	int bridge_fd; /* where what comes over bridges connects */
	int tls_fd; /* where godwit-tls listens (tls_starter.h); -1: connections are plain */
	char tls_path[PATH_MAX + 16];
	int api_fd, api_channel; /* where godwit-api listens, and our end of what it has with us (api.h); -1: there is none */
	char api_path[PATH_MAX + 16];
	int gate_fd;             /* where godwit-gate listens (gate.h), or -1 */
	bool stopping;
	bool on_demand;      /* it has no port, and stops when there is nothing to care for */
	uint64_t idle_since_ns;
	bool leaving;        /* it stops as soon as everything has been given away */
	bool unix_is_passed; /* unix_fd is the service manager's, which keeps its path */
	bool redirects;      /* connections may be redirected here: net_tick */
	bool cannot_prepare; /* net_prepare: once is enough */
	uint64_t started_ns; /* CLOCK_BOOTTIME */
	struct service service;
	struct worker workers[WORKERS_MAX];
	uint32_t *done; /* WORKERS_MAX words shared with the workers: 1 when one has only its answer left to give */
	size_t self;    /* in a worker: its slot */
	struct cluster_view *view; /* shared with the workers and godwit-cluster */
	struct node_shared *shared; /* so are these: node_state.h, */
	struct balance_shared *balance; /* balance.h, */
	struct reserve_table *reserved; /* reserve.h, */
	struct history *history; /* history.h */
	int asks[2]; /* work.h: questions for godwit-balance; it has the first end */
	uint64_t balance_due_ns, protect_due_ns, watch_due_ns;
	uint64_t tls_due_ns, api_due_ns, gate_due_ns;
	uint64_t cluster_due_ns;   /* godwit-cluster is not started anew before */
	uint64_t net_due_ns;
	struct client clients[CLIENTS_PENDING_MAX];
	struct peer peers[PEERS_PENDING_MAX];
};

/* worker.c */


/*
 * Throws away what has arrived, before a connection with a final message is closed: a close with unread bytes is a reset, which would take
 * the message with it.
 */
void drain(int fd);

/*
 * Forks a worker and enters it in the table. Returns the slot in the parent. In the child returns NULL with *ret_child true: only standard
 * streams and keep[] are open there, signals have their defaults (SIGPIPE: ignored). NULL with *ret_child false: failed, e is set.
 */
struct worker *worker_start(struct daemon *d, enum worker_kind kind, const int *keep, size_t n_keep, bool *ret_child, struct err *e);
/*
 * A peer's question that is answered in a worker: it gets the connection, and what `answer` returns is its exit status. from: the peer's name. The connection
 * stays the caller's.
 */
int worker_answer(struct daemon *d, int fd, const Gw__Hello *hello, int (*answer)(const struct daemon *d, int fd, const char *from), struct err *e);
/* Once, before all others. */
int worker_init(struct daemon *d, struct err *e);
/* Collects everything that has ended: workers, and processes that arrived here once. */
void worker_reap(struct daemon *d);
/* Workers get these programs (net/redirect.h). */
void worker_keep_programs(const int *programs);
/* In a worker: from now on it moves nothing, so that its process may be asked for again as soon as the client has the answer. */
void worker_set_done(const struct daemon *d);
/* The worker that moves a process from here, or the one that receives a migration; NULL when there is none. */
struct worker *worker_find_source(struct daemon *d, pid_t moving);
struct worker *worker_find_dest(struct daemon *d, const uint8_t mig_id[HELLO_MIG_ID_BYTES]);
unsigned worker_count(const struct daemon *d, enum worker_kind kind);
/* Those that serve this user. */
unsigned worker_count_of(const struct daemon *d, const struct caller *caller);

/* client.c: accept (the listener is readable), input (the client is), drop */
void client_accept(struct daemon *d);
/* A conversation for whoever has connected `credentials`, which stays the caller's; takes fd over, which may refuse to block. */
void client_admit(struct daemon *d, int fd, int credentials);
void client_input(struct daemon *d, struct client *c);
void client_drop(struct client *c);
/* Those whose turn it is by now get it. Returns the time in ms until that is looked at again; -1: nobody waits. */
int clients_tick(struct daemon *d);
/* A connection of another node that hands a request on (ROLE_ORDER); takes fd over. */
void client_adopt(struct daemon *d, int fd);

/* peer.c */
void set_blocking(int fd);
void peer_accept(struct daemon *d);
/* The same over a bridge. */
void peer_accept_bridged(struct daemon *d);
void peer_input(struct daemon *d, struct peer *p);
void peer_drop(struct peer *p);

/* do_*.c: run in a worker, answer on fd and return its exit status. */
int do_migrate(const struct daemon *d, const struct request *request, int fd);
/* What has become of a move that request->host was the destination of. */
int do_outcome(const struct daemon *d, const struct request *request, int fd);
/* A move that was only asked about. */
struct migrate_asked {
	struct migrate_plan plan;
	struct migrate_report report;
	const char *code; /* why not, as do_migrate says it */
};
/* Asks request->host whether it would take request->pid. 0: it would, and *ret says how; refusals filled in, or an error: not. */
int do_migrate_ask(const struct daemon *d, const struct request *request, int fd, struct migrate_asked *ret, struct refusals *refusals, struct err *e);
/* do_plan.c: what a move would do (migrate --dry-run). */
int do_plan(const struct daemon *d, const struct request *request, int fd);
/* do_drain.c: what a drain would do. */
int do_plan_drain(const struct daemon *d, const struct request *request, int fd);
/* do_forward.c: has another node, where the unit is, do what is asked, and passes on what is said. -ENOENT: nobody knows it; nothing has been said then. */
int do_forward(const struct daemon *d, const struct request *request, int fd, struct err *e);
/* Has the node of that name do what `order` says, and passes on what is said. -ENOENT: nobody knows a node of that name; on errors nothing has been said. */
int do_forward_to(const struct daemon *d, const char *name, const json_t *order, int fd, struct err *e);
int do_drain(const struct daemon *d, const struct request *request, int fd);
int do_undrain(const struct daemon *d, const struct request *request, int fd);
int do_balance(const struct daemon *d, const struct request *request, int fd);
/* In a worker: leaves out of request->pid and also what is below another one of them. */
void request_keep_tops(struct request *request);
/* In a worker: a stub's number means the unit for which it stands; then request->pid is 0 and request->unit its name. */
void request_name_unit(const struct daemon *d, struct request *request);
/* Without a client: godwitd shuts down. */
int do_leave(const struct daemon *d);
/* A process of this host that `godwit run` is about to turn into a program. */
int do_started(const struct daemon *d, const struct request *request, int fd);
/* do_image.c */
int do_checkpoint(const struct daemon *d, const struct request *request, int fd);
int do_restore(const struct daemon *d, const struct request *request, int fd);
/* do_protect.c: protect, unprotect */
int do_protect(const struct daemon *d, const struct request *request, int fd);
int do_failover(const struct daemon *d, const struct request *request, int fd);
/* do_bridge.c: godwit-bridge (wire/bridge.h), and those that there are */
int do_bridge(const struct daemon *d, const struct request *request, int fd);
/* do_migrate.c: a node's name, an address, or a name that the resolver knows. */
int host_resolve(const struct daemon *d, const struct caller *caller, const char *host, struct sockaddr_in *ret, struct err *e);
int do_ps(const struct daemon *d, const struct request *request, int fd);
int do_nodes(const struct daemon *d, int fd);
int do_metrics(const struct daemon *d, int fd);
int do_select(const struct daemon *d, const struct request *request, int fd);
int do_history(const struct daemon *d, const struct request *request, int fd);
/* What a node says of itself: a name, text and numbers that are such. */
int node_info_decode(const void *data, size_t len, Gw__NodeInfo **ret, struct err *e);
int do_check(const struct daemon *d, const struct request *request, int fd);
int do_connections(const struct daemon *d, int fd);
/* Gives a process addresses of its own (net/owned.h). */
int do_address(const struct request *request, int fd);

/* do_net.c: the table of redirected connections (net/redirect.h) is looked after by a short worker every few seconds, as long as there is one. */

/* In the main process: starts one when it is time; the time until then, -1: never. */
int net_tick(struct daemon *d);
/* One has ended with this status. */
void net_ended(struct daemon *d, int status);
/* Has the programs for redirection loaded, so that no move waits for that; a worker of low priority does it. Its end, with our end of its socket. */
void net_prepare(struct daemon *d);
void net_prepared(struct daemon *d, int socket);
/* News of another node (ROLE_NET): takes over a copy of fd. */
int net_news(struct daemon *d, int fd, const Gw__Hello *hello, struct err *e);

/* In the main process: starts godwit-cluster when there is none; the time until it looks again. */
int cluster_tick(struct daemon *d);

/* node_list.c: nodes of the configuration and those that gossip tells of */

/* All of them, this one first; in a worker, for it may wait a second for godwit-cluster. The caller frees *ret. -ENOMEM. */
int node_list(const struct daemon *d, struct cluster_node **ret, size_t *ret_n, struct err *e);
/* The same for who wants their figures: a godwitd that has just been started waits until all have been heard of, a second at most. */
int node_list_heard(const struct daemon *d, struct cluster_node **ret, size_t *ret_n, struct err *e);
/* With those to which bridges lead (wire/bridge.h), which are no nodes of the cluster: for showing, asking and finding, not for choosing. */
int node_list_bridged(const struct daemon *d, struct cluster_node **ret, size_t *ret_n, struct err *e);
/* Where a node's godwitd is. False: nobody knows a node of that name. Never waits. */
bool node_address(const struct daemon *d, const char *name, struct sockaddr_in *ret);

/* Fills in and sends NodeInfo; for the main process (a few small reads). */
int node_info_send(const struct daemon *d, int fd, struct err *e);

#endif
