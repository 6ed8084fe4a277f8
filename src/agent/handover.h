/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * handover.h - the handover of a unit from one host to the other, as a state machine: who owns it, and who may say so
 *
 * Each side has one word, the unit's state (struct unit_page), which all that take part on that host share: the worker, the agents and the threads that wait. It is
 * changed by compare-and-exchange only, and only by the steps below; a step is named by what has happened, and has one state to come from and one to go to. So
 * whoever names the step first decides for all, and a step that is not in the table cannot be made (unit_step in migrate/unit_page.h and in sys.h).
 *
 * The destination's record of the commit (migrate/outcome.h) is the third place that knows, for a source that can no longer be told. The *commit point* is the moment at
 * which the unit's root no longer ends with its worker; from then on either the worker or, when it is dead, an agent writes the record, and no thread of the unit
 * runs before it is written. Who may still write it keeps it locked: a record that says nothing and that nobody holds will say nothing for ever.
 *
 * tests/model/handover.pml is the model of it that spin checks; tests/unit/test_handover.py holds these tables against the model's.
 *
 * This file has no other include, since the agent has no C library.
 */
#ifndef GODWIT_AGENT_HANDOVER_H
#define GODWIT_AGENT_HANDOVER_H

/* What a parked thread or an agent without its worker does, too; see ARCHITECTURE.md. */
enum scratch_state {
	STATE_FROZEN,     /* source: frozen or not yet; the program may go on here. destination: not committed */
	STATE_IN_DOUBT,   /* source only: the go message may have been sent */
	STATE_COMMITTING, /* destination only: the root is about to be let go from its worker's fate, or has been */
	STATE_DECIDED,    /* destination only: it has been; the record does not say so yet */
	STATE_COMMITTED,  /* the destination owns the process */
	STATE_ABORTED,    /* the source goes on; destination: the held threads end */
};

/*
 * X(step, side, from, to)
 *
 *	GO_LEAVES          worker: the next thing it does is to send the go message
 *	SOURCE_ORPHANED    agent: the worker is dead, and no go message has left
 *	HEARD_COMMITTED    worker or agent: it is known that the unit runs there, or did
 *	HEARD_ABORTED      worker or agent: it is known that it never will
 *	RELEASE_BEGINS     worker: all other threads no longer end with it (PTRACE_O_EXITKILL), and now the root's main thread
 *	RELEASE_FAILED     worker: that could not be done
 *	ROOT_RELEASED      worker, or the root's main thread when the worker is dead: that it runs shows that the kernel had no order to kill it
 *	SEAT_TAKEN         worker: in the place of the stub, which never ends with the worker (src/home): this exchange is the commit point
 *	RECORDED           worker or agent: the record says so
 *	RECORD_FAILED      worker or agent: it could not be written; nothing has run yet
 *	DEST_ORPHANED      agent: the worker is dead before it began; or the keeper of the stub, or the worker, gives the seat up
 *	ROOT_KILLED        agent: the worker is dead, and its root ended with it
 */
#define HANDOVER_STEPS(X)                          \
	X(GO_LEAVES, SOURCE, FROZEN, IN_DOUBT)         \
	X(SOURCE_ORPHANED, SOURCE, FROZEN, ABORTED)    \
	X(HEARD_COMMITTED, SOURCE, IN_DOUBT, COMMITTED) \
	X(HEARD_ABORTED, SOURCE, IN_DOUBT, ABORTED)    \
	X(RELEASE_BEGINS, DEST, FROZEN, COMMITTING)    \
	X(RELEASE_FAILED, DEST, COMMITTING, FROZEN)    \
	X(ROOT_RELEASED, DEST, COMMITTING, DECIDED)    \
	X(SEAT_TAKEN, DEST, FROZEN, DECIDED)           \
	X(RECORDED, DEST, DECIDED, COMMITTED)          \
	X(RECORD_FAILED, DEST, DECIDED, ABORTED)       \
	X(DEST_ORPHANED, DEST, FROZEN, ABORTED)        \
	X(ROOT_KILLED, DEST, COMMITTING, ABORTED)

/*
 * X(what the source hears in doubt, what follows)
 *
 * On the go connection: a word, its orderly end (its other end is held by all who could still let the unit run there), or anything else, which proves nothing.
 * Then the destination's daemon is asked, which answers from the record; a host that knows of no record has never let the unit run, or was booted since.
 */
#define HANDOVER_NEWS(X)                  \
	X(WORD_RESUMED, HEARD_COMMITTED)      \
	X(WORD_ABORTED, HEARD_ABORTED)        \
	X(ORDERLY_END, HEARD_ABORTED)         \
	X(BROKEN, ASK)                        \
	X(ANSWER_UNKNOWN, HEARD_ABORTED)      \
	X(ANSWER_PENDING, ASK)                \
	X(ANSWER_ABORTED, HEARD_ABORTED)      \
	X(ANSWER_COMMITTED, HEARD_COMMITTED)

/*
 * X(what the record says, whether it is locked, the answer)
 *
 * PENDING and COMMITTED are the bytes of migrate/outcome.h; NONE: there is no such file.
 */
#define HANDOVER_RECORDS(X)                    \
	X(PENDING, LOCKED, ANSWER_PENDING)         \
	X(PENDING, FREE, ANSWER_ABORTED)           \
	X(COMMITTED, LOCKED, ANSWER_COMMITTED)     \
	X(COMMITTED, FREE, ANSWER_COMMITTED)       \
	X(NONE, FREE, ANSWER_UNKNOWN)

#define X(step, side, from, to) HANDOVER_##step,
enum handover_step { HANDOVER_STEPS(X) HANDOVER_N_STEPS, HANDOVER_ASK };
#undef X

#define X(news, step) NEWS_##news,
enum handover_news { HANDOVER_NEWS(X) };
#undef X

enum handover_record { RECORD_NONE, RECORD_PENDING, RECORD_COMMITTED };
enum handover_lock { RECORD_FREE, RECORD_LOCKED };

/* The states that a step leads from, and to. */
static inline unsigned handover_from(enum handover_step step)
{
	static const unsigned char states[] = {
#define X(step, side, from, to) STATE_##from,
		HANDOVER_STEPS(X)
#undef X
	};

	return states[step];
}

static inline unsigned handover_to(enum handover_step step)
{
	static const unsigned char states[] = {
#define X(step, side, from, to) STATE_##to,
		HANDOVER_STEPS(X)
#undef X
	};

	return states[step];
}

/* HANDOVER_HEARD_COMMITTED, HANDOVER_HEARD_ABORTED, or HANDOVER_ASK: nobody knows yet. */
static inline enum handover_step handover_hear(enum handover_news news)
{
	static const unsigned char steps[] = {
#define X(news, step) HANDOVER_##step,
		HANDOVER_NEWS(X)
#undef X
	};

	return (enum handover_step)steps[news];
}

static inline enum handover_news handover_answer(enum handover_record record, enum handover_lock lock)
{
#define X(says, held, answer)                             \
	if (record == RECORD_##says && lock == RECORD_##held) \
		return NEWS_##answer;
	HANDOVER_RECORDS(X)
#undef X
	return NEWS_ANSWER_UNKNOWN; /* nobody holds what is not there */
}

#endif
