/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * protect_journal.h - what a node remembers of the protected units that are on it: one small file a unit, DIRECTORY/KEY.json, which outlives godwitd and not the host's run
 *
 * Beside it the worker that moves a unit away leaves a word: KEY.leaving ("PID TO", the worker's number) before the unit is touched, which becomes KEY.left after the commit and is removed when the move has
 * failed; and who kills it because this node has lost its lease (fence.h) KEY.lost. So it is known of a process that has ended whether the unit has.
 */
#ifndef GODWIT_DAEMON_PROTECT_JOURNAL_H
#define GODWIT_DAEMON_PROTECT_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "daemon/keep_rules.h"
#include "migrate/registry.h"

#define PROTECT_KEEPERS_MAX 16

/* A node that has been sent copies. */
struct protect_keeper {
	char name[HELLO_NAME_MAX + 1];
	uint64_t seq;   /* of what it has; 0: nothing */
	bool current;   /* it gets the next one, too */
	bool told;      /* that the unit has ended or moved */
	bool answers;   /* it has, when it was asked last */
};

enum protect_stage { PROTECT_RUNS, PROTECT_ENDED, PROTECT_LEFT, PROTECT_FENCED };

struct protect_journal {
	char key[KEEP_UNIT_MAX];
	enum protect_stage stage;
	char to[HELLO_NAME_MAX + 1]; /* LEFT, FENCED */
	pid_t pid;
	uint64_t start_ticks, moves;
	uint64_t seq;                /* of the last copy that was begun */
	uint64_t base;               /* seq of the whole image that its chain begins with; 0: the next one is whole */
	uint64_t complete_ms;        /* CLOCK_REALTIME of the state that the last copy has that came to all; 0: none has */
	unsigned have;               /* nodes that have the last one that any has */
	unsigned copies;             /* that there are to be */
	unsigned made, late, failed; /* copies: whole; that began late since the one before was not done; that failed */
	unsigned freeze_us, took_ms; /* of the last one */
	uint64_t bytes;
	char error[400];             /* why the last one failed; "": it did not */
	int64_t ended_s;             /* CLOCK_REALTIME: ENDED, LEFT since */
	size_t n_keepers;
	struct protect_keeper keepers[PROTECT_KEEPERS_MAX];
};

void protect_use_directory(const char *directory);
const char *protect_directory(void);

/* -ENOENT (e is not set): there is none. */
int protect_journal_read(const char *key, struct protect_journal *ret, struct err *e);
int protect_journal_write(const struct protect_journal *j, struct err *e);
void protect_journal_remove(const char *key);
int protect_journal_list(int (*each)(const struct protect_journal *j, void *arg), void *arg);
/* The keeper of that name; made when there is none and there is room, or one that has nothing. NULL. */
struct protect_keeper *protect_journal_keeper(struct protect_journal *j, const char *name, bool make);

/* For a worker that moves a unit; nothing when it is not protected. */
struct protect_leaving {
	char key[KEEP_UNIT_MAX]; /* "": none */
};
void protect_note_leaving(struct protect_leaving *l, pid_t pid, const char *to);
/* It has been handed over, or not. */
void protect_note_end(struct protect_leaving *l, bool left);
/* It is about to be killed, since its time here is over. */
void protect_note_lost(const struct registry_entry *entry);
/* Units that were; `each` with their names. */
int protect_list_lost(void (*each)(const char *key, void *arg), void *arg);
void protect_forget_lost(const char *key);
double protect_lost_age_s(const char *key);
/* What is known: 'n' nothing, 'l' it is leaving at this moment (to *ret_to), 'L' it has left, 'x' it has been killed since its time was over. */
char protect_leaving_state(const char *key, char ret_to[HELLO_NAME_MAX + 1]);
void protect_leaving_forget(const char *key);

#endif
