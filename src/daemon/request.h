/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * request.h - what a client asks of godwitd: one JSON object on one line (see docs/wire.md)
 */
#ifndef GODWIT_DAEMON_REQUEST_H
#define GODWIT_DAEMON_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "cluster/require.h"
#include "migrate/caller.h"
#include "migrate/migrate.h"
#include "migrate/registry.h"
#include "net/owned.h"
#include "wire/archive_chain.h"
#include "wire/bridge.h"

#define REQUEST_BYTES_MAX 4096u
#define REQUEST_HOPS_MAX 3u
#define REQUEST_PATH_MAX 3072u
#define REQUEST_PARALLEL_MAX 32u
#define REQUEST_PARALLEL_DEFAULT 4u
#define REQUEST_ALSO_MAX 64u
#define REQUEST_NODES_MAX 64u
#define REQUEST_REASON_MAX REGISTRY_REASON_MAX
#define REQUEST_LAST_MAX 1024u
#define REQUEST_LAST_DEFAULT 32u
#define REQUEST_TIMEOUT_MAX_MS (24u * 3600u * 1000u)

enum verb { VERB_MIGRATE, VERB_PS, VERB_NODES, VERB_CHECK, VERB_CANCEL, VERB_CONNECTIONS, VERB_SELECT, VERB_DRAIN, VERB_UNDRAIN, VERB_STARTED, VERB_BALANCE, VERB_ADDRESS, VERB_CHECKPOINT, VERB_RESTORE, VERB_PROTECT, VERB_UNPROTECT, VERB_FAILOVER, VERB_HISTORY, VERB_METRICS, VERB_BRIDGE, VERB_OUTCOME, VERB_PLAN };
enum bridge_action { BRIDGE_LIST, BRIDGE_OPEN_HERE, BRIDGE_SERVE, BRIDGE_SHUT };
enum balance_action { BALANCE_STATUS, BALANCE_ON, BALANCE_OFF, BALANCE_EXPLAIN };

struct request {
	enum verb verb;
	struct caller caller;   /* who asks: by the socket, or as the node says that hands it on ("as": [UID, GID]; absent: who may do everything) */
	pid_t pid;              /* migrate, protect, unprotect, check, started, balance, address, history; 0: none */
	char unit[300];         /* migrate, balance, protect, unprotect, history: HOME:PID instead of a pid; "": none */
	unsigned hops;          /* migrate: how many nodes have handed it on */
	char host[256];         /* migrate; check: who is asked, drain, undrain, balance, restore: which node, or "" */
	char path[REQUEST_PATH_MAX]; /* checkpoint, restore: of the image, absolute */
	bool has_key;           /* checkpoint, restore: the image is encrypted, with `key` */
	struct archive_key key;
	struct protection protection; /* protect: without an id */
	size_t n_nodes;         /* failover: those that are dead */
	char nodes[REQUEST_NODES_MAX][HELLO_NAME_MAX + 1];
	bool copy;              /* checkpoint: one of many, for godwit-protect: no news */
	bool incremental;       /* checkpoint: only what is new; `path` is a directory, or, with `chain`, a file */
	char chain[REQUEST_PATH_MAX], name[ARCHIVE_LINK_NAME_MAX]; /* with copy: the chain's index, and the image's name in it; "": none */
	bool keep_running, store; /* checkpoint: the unit goes on; without compression */
	bool accept_changed;    /* restore: files that have changed are used as they are */
	enum strategy strategy; /* migrate */
	enum fsfile_policy files; /* migrate */
	enum tcp_outside_policy tcp;
	unsigned timeout_ms;    /* migrate, drain; 0: none */
	char reason[REQUEST_REASON_MAX]; /* migrate: why, for people; "": somebody said so */
	bool portable;          /* migrate: by the program's own state, also where the engine could */
	char migration[2 * HELLO_MIG_ID_BYTES + 1]; /* outcome */
	bool drain;             /* plan: of a node that would be drained; host, parallel and also are as for that */
	bool here;              /* migrate: only when the process itself is here, not for whom it stands; ps, history: of this node alone */
	unsigned last;          /* history: so many that have ended */
	enum balance_action action; /* balance */
	unsigned parallel;      /* drain: moves at once */
	pid_t also[REQUEST_ALSO_MAX]; /* drain: further processes; migrate, check: others that are of one unit with pid */
	size_t n_also;
	char require[REQUIRE_TEXT_MAX + 1]; /* select: what the nodes have to be, checked */
	struct owned_address addresses[OWNED_MAX]; /* address */
	size_t n_addresses;
	enum bridge_action bridge;
	char how[BRIDGE_HOW_MAX]; /* bridge, open: what ssh was told; list: only that one, "": all */
	char ssh[128];          /* bridge, serve: SSH_CONNECTION */
	bool kept;              /* bridge, open: until it is closed */
	bool take;              /* select: something is about to be sent to the first one; started: where the unit had better begin is asked */
};

/* Reads and validates one line (untrusted, without its newline). -EINVAL with words for the client. */
int request_parse(const char *line, size_t len, struct request *ret, struct err *e);

#endif
