/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * godwit.h - libgodwit: what there is in a cluster of Godwit, and moving it, for programs in C
 *
 *	struct godwit_error e;
 *	struct godwit *g;
 *	struct godwit_move *move;
 *
 *	if (godwit_open(NULL, &g, &e) < 0 || godwit_move_begin(g, "n1:4711", "n2", NULL, &move, &e) < 0)
 *		errx(1, "%s", e.message);
 *	if (godwit_move_wait(move, -1, &e) < 0)
 *		errx(1, "%s", e.message);
 *	printf("it stood still for %lld microseconds\n", (long long)godwit_move_result(move)->freeze_us);
 *	godwit_move_free(move);
 *	godwit_close(g);
 *
 * The library talks with the godwitd of this host, over its unix socket, which knows the cluster and decides who may do what. It is linked by
 * `pkg-config --cflags --libs godwit`; docs/libgodwit.md has an introduction.
 *
 * Errors: functions that return int give 0 or more, or a negative errno; then a `struct godwit_error`, if there is one, says what happened.
 * Outputs are set on success only. The library neither prints nor exits, nor does it touch signals.
 *
 * Memory: texts and structures belong to what they were got from (a list, a move, an event) and are never NULL but where it is said. What
 * godwit_units, godwit_nodes and godwit_check give is given back with godwit_free; whatever ends in _free, _close takes NULL.
 * The library makes all structures but godwit_error, and later versions may make them longer: programs do not copy them, nor ask for their size.
 *
 * Threads: a `struct godwit` can be used by any number of threads at once. A move or a feed of events is used by one at a time, but
 * godwit_move_cancel may be called while another one waits. All functions that ask godwitd block until it has answered.
 *
 * Texts are UTF-8. They come from other users and other hosts: a program that prints them on a terminal looks at control characters first.
 */
#ifndef GODWIT_H
#define GODWIT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What has failed. code: for programs, as the command and the API have it: "no-daemon", "permission", "refused", "cancelled", "unknown-unit",
 * "in-doubt" (it may have moved: the list of units says where it is), "failed"... message: a sentence that names thing, cause and way out.
 */
struct godwit_error {
	int number;        /* the negative errno that was returned */
	char code[32];
	char message[768];
};

struct godwit;

/*
 * For all that follows. socket: the path of godwitd's; NULL: the environment's GODWIT_SOCKET (not in a set-user-ID program), else /run/godwit/godwitd.sock. Nothing
 * is asked yet. -ENAMETOOLONG, -ENOMEM. The caller gives it back with godwit_close when all moves and events that came from it are freed.
 */
int godwit_open(const char *socket, struct godwit **ret, struct godwit_error *e);
void godwit_close(struct godwit *g);

/* Gives back a list. */
void godwit_free(const void *list);

/* --- what there is --- */

/* A process with its descendants, which moves as one. */
struct godwit_unit {
	const char *name;    /* HOME:PID, for life */
	const char *on;      /* the node where it is */
	const char *home;    /* the node where it began */
	const char *command;
	const char *state;   /* "running", "sleeping", "moving"... */
	const char *reason;  /* why it moved last; "" */
	int pid;             /* on the node where it is */
	int moves;           /* how often it has moved */
	int64_t since;       /* when it came there: seconds of the Epoch; 0: unknown */
};

struct godwit_node {
	const char *name;
	const char *address; /* ADDRESS:PORT */
	const char *state;   /* "ok" and others (`godwit nodes`) */
	const char *labels;
	const char *error;   /* why it cannot be used; "" */
	int self;            /* 1: it is this one */
	int units;           /* how many are there; -1: unknown */
	int64_t age_ms;      /* how old this is; -1: nothing is known */
	double cores;        /* these three are -1 when they are unknown */
	double load;         /* processes that want to run, of the last minute */
	double mem_mib;      /* free memory */
};

/* A reason why a unit cannot move. */
struct godwit_refusal {
	const char *code;    /* docs/refusals.md, `godwit explain CODE` */
	const char *thing;
	const char *cause;
	const char *way_out;
};

/* The units that the caller may see, on all nodes that answer; a NULL behind the last one. Returns how many. */
int godwit_units(struct godwit *g, const struct godwit_unit *const **ret, struct godwit_error *e);
/* The nodes of the cluster; a NULL behind the last one. Returns how many. */
int godwit_nodes(struct godwit *g, const struct godwit_node *const **ret, struct godwit_error *e);

/*
 * Whether a unit of this host could move now. unit: HOME:PID, or the number of a process. host: where to, it is asked, too; NULL: anywhere. Nothing is changed.
 * 1: it could, and *ret is an empty list; 0: it could not, and the list has why. -ENOENT: no such unit is on this host.
 */
int godwit_check(struct godwit *g, const char *unit, const char *host, const struct godwit_refusal *const **ret, struct godwit_error *e);

/* --- moving --- */

struct godwit_move;

/* How far it is. */
struct godwit_progress {
	const char *phase;   /* "": it has hardly begun */
	int64_t pages_total, pages_sent, bytes_sent;
};

struct godwit_result {
	const char *unit, *from, *to;
	const char *strategy;
	int pid;             /* there */
	int64_t freeze_us;   /* for how long it stood still */
	double total_ms;
	int64_t bytes_sent;
};

/*
 * Begins to move a unit (HOME:PID, wherever it is; or the number of a process of this host) to a node, or "home". options: texts "KEY=VALUE", a NULL
 * behind the last one; or NULL. Keys: strategy, files, tcp, reason, as godwit(1) has them, and timeout_ms. -EINVAL: the arguments are wrong. Whether it can move is
 * what godwit_move_wait says.
 */
int godwit_move_begin(struct godwit *g, const char *unit, const char *host, const char *const *options, struct godwit_move **ret, struct godwit_error *e);
/*
 * Waits for at most so many milliseconds (-1: for as long as it takes; 0: not at all). 1: it has moved; 0: it has not ended yet; else it has not moved: it goes on where
 * it was, or e->code is "in-doubt". What has been the end stays so. A move should be waited for every few seconds: godwitd does not wait for long for who does not listen.
 */
int godwit_move_wait(struct godwit_move *move, int timeout_ms, struct godwit_error *e);
/* A descriptor for poll(2): something has come when it can be read, and is taken by godwit_move_wait(move, 0, ...). It belongs to the move. */
int godwit_move_fd(const struct godwit_move *move);
/* Asks for its end. Whether that came in time is what godwit_move_wait says: it has moved, or the error's code is "cancelled". */
int godwit_move_cancel(struct godwit_move *move, struct godwit_error *e);
/* These belong to the move, and hold until it is waited for again. The result is NULL unless it has moved; refusals: a NULL behind the last one. */
const struct godwit_progress *godwit_move_progress(const struct godwit_move *move);
const struct godwit_result *godwit_move_result(const struct godwit_move *move);
const struct godwit_refusal *const *godwit_move_refusals(const struct godwit_move *move);
/* One that has not ended is cancelled, if it is not too late. */
void godwit_move_free(struct godwit_move *move);

/* --- what happens --- */

struct godwit_events;

enum godwit_event_kind { /* later versions may have others: ignore them */
	GODWIT_UNIT_APPEARED = 1,
	GODWIT_UNIT_MOVED,    /* from and to are nodes */
	GODWIT_UNIT_CHANGED,  /* its number, command, or count of moves */
	GODWIT_UNIT_ENDED,    /* as it was when it was last seen */
	GODWIT_NODE_APPEARED,
	GODWIT_NODE_CHANGED,  /* its state, address or labels; load changes all the time, godwit_nodes has it */
	GODWIT_NODE_GONE
};

struct godwit_event {
	enum godwit_event_kind kind;
	const struct godwit_unit *unit; /* or NULL */
	const struct godwit_node *node; /* or NULL */
	const char *from, *to;          /* or "" */
};

/* Everything that happens from now on: godwitd is asked now, and once a second while godwit_events_next is called. */
int godwit_events_open(struct godwit *g, struct godwit_events **ret, struct godwit_error *e);
/*
 * The next one, which holds until the next call; waits for about so many milliseconds (-1: for as long as it takes). 1: there is one; 0: not yet. An error ends nothing: with the next
 * call godwitd is asked again, and what was missed is told.
 */
int godwit_events_next(struct godwit_events *events, int timeout_ms, const struct godwit_event **ret, struct godwit_error *e);
void godwit_events_close(struct godwit_events *events);

#ifdef __cplusplus
}
#endif

#endif
