/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* home_internal.h - the life of godwit-home, for home.c and back.c */
#ifndef GODWIT_HOME_HOME_INTERNAL_H
#define GODWIT_HOME_HOME_INTERNAL_H

#include "home/back.h"
#include "home/door.h"
#include "home/home.h"
#include "home/session.h"
#include "home/tracer.h"

struct keeper {
	struct home *h;
	int pidfd, stat; /* of the stub; -1 */
	struct tracer tracer;
	struct session session;
	uint64_t next_try_ns;
	unsigned unknown;
	bool stub_gone;     /* killed, or ended by us */
	bool stub_ending;   /* told to end */
	bool stub_stopped;  /* as last seen */
	bool unit_stopped;
	uint32_t stop_due;  /* it has been stopped by this signal, which the stub is not yet */
	uint64_t continued; /* number of the last message that makes it go on, and of the last one that stops it because the stub was stopped */
	uint64_t stopped;
	bool free_terminal; /* the terminal is no session's */
	pid_t group;        /* of the stub */
	bool ended;         /* the unit has, with this status */
	uint32_t status;
	bool over;
	struct back back;
};

struct stub_stat {
	char state; /* 'X': it is gone */
	int group, terminal, foreground;
};

void keeper_read_stat(const struct keeper *k, struct stub_stat *ret);
/* Tells the stub. */
void keeper_command(struct keeper *k, enum stub_kind kind, uint32_t value);
void keeper_show_host(struct keeper *k);
void keeper_tell(struct keeper *k, Gw__HomeKind kind);
/* What lay at the unit's host: struct door_rest with this id. Appends to *r. */
void keeper_read_rest(const struct keeper *k, uint32_t id, struct refill *r);
/* For session_each_kept: what was typed and has not reached the unit. `arg` is the keeper. */
void keeper_keep_typed(void *arg, const Gw__HomeMessage *m);
/* back_terminal.c: why it cannot have its terminal back, or NULL; behind the commit; what the skeleton has done to it is taken back, by calls of the stub's. */
const char *back_terminal_why_not(const struct keeper *k);
void back_give_terminal(struct keeper *k);
void back_restore_foreground(struct keeper *k, struct batch *b);
/* Of a unix socket that the unit listens on. */
void keeper_take_client(struct keeper *k, const struct door_connect *client, int fd);
/* Who has killed it means the unit. */
void keeper_stub_killed(struct keeper *k);

#endif
