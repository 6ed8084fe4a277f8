/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * portable.h - moving a program by the state that it describes itself (libgodwit-portable; portable/talk.h is how it and godwitd meet)
 *
 * Over a connection with the role PORTABLE; S is the source's worker, D the destination's:
 *
 *	S  OFFER      PortableOffer: which program, as whom
 *	D  ACCEPT, or REFUSE with every reason; the program has not been asked for anything yet
 *	S  CONTENT    flags 1: how it was started; then, flags 2: its state, in pieces; flags 3: that was all
 *	D  PREPARED   its own binary has read the state, and waits
 *	S  GO         from now on the source does not know who has it
 *	D  RESUMED    u32 process number; its record has said so before (migrate/outcome.h)
 *	S  RELEASE    the program has ended here
 *
 * Either side may send ERROR before GO; then, as when the connection is lost, the program goes on at the source. After GO the source asks for the outcome until it knows.
 */
#ifndef GODWIT_DAEMON_PORTABLE_H
#define GODWIT_DAEMON_PORTABLE_H

#include "daemon/daemon.h"
#include "image/refuse.h"
#include "portable/talk.h"

#define PORTABLE_PIECE_BYTES (1u << 20)
#define PORTABLE_GROUPS_MAX 1024u
#define PORTABLE_LIMITS 16u /* RLIMIT_NLIMITS */
enum portable_content { PORTABLE_START = 1, PORTABLE_STATE = 2, PORTABLE_END = 3 };

/* A process that has a page (talk.h), and what it says there: nobody's word but its own. */
struct portable_program {
	int memory_fd, talk_number;
	unsigned version;
	char name[256], machine[32], path[4096];
};

/* portable_look.c: at the source */
/* -ENOENT: it has none, and the refusal is added. */
int portable_find(pid_t pid, struct portable_program *ret, struct refusals *r, struct err *e);
/* As whom it runs, and what is in the way of its moving so. */
int portable_look(pid_t pid, Gw__PortableOffer *offer, struct refusals *r, struct err *e);
/* What portable_look has allocated. */
void portable_look_free(Gw__PortableOffer *offer);

/* portable_leave.c: as migrate_source, for a process that has a page. */
int portable_leave(const struct daemon *d, const struct migrate_request *order, struct migrate_report *report, struct refusals *refusals, struct err *e);

/* portable_arrive.c: in the destination's worker, which serves the connection. */
int portable_arrive(const struct daemon *d, int fd, const Gw__Hello *hello);
/* Sizes and characters of an offer from a peer. */
int portable_offer_decode(const void *data, size_t len, Gw__PortableOffer **ret, struct err *e);

/* portable_start.c: how a program was started at the source, decoded from what start.c has written. */
struct portable_standard {
	unsigned flags; /* FILE_... of portable/state.h */
	uint64_t position;
	const char *path; /* NULL: none */
};
struct portable_start {
	const char *directory;
	mode_t mask;
	char **arguments, **environment; /* each ends with NULL; the texts are in the data */
	size_t n_arguments, n_environment;
	struct portable_standard standard[3];
};
/* data: a copy of the caller's that stays. */
int portable_start_decode(char *data, size_t len, struct portable_start *ret, struct err *e);
void portable_start_free(struct portable_start *s);

#endif
