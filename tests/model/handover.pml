/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * handover.pml - a model of the handover for spin: never two copies, and none only where the host that had it is dead
 *
 * The steps, what follows from what the source hears, and what a record means are written down in src/agent/handover.h; the three tables here say the same
 * (tests/unit/test_handover.py compares them). Everything else is what the code does with them: src/migrate/source_go.c and src/agent/doubt.c at the source,
 * src/migrate/dest_go.c, skeleton_commit.c, src/agent/stub.c at the destination, src/migrate/outcome.c for the record.
 *
 * One migration, from the moment at which the destination has said PREPARED. FAULTS of these happen, at any moment and in any order: a worker is killed; the go connection
 * breaks, with what is on its way; hosts cannot reach each other; the destination's daemon is killed; the destination's kernel ends its process for want of memory, with the agent,
 * which has the same memory; a host loses its power. Afterwards, and only then, everything is mended that can be: daemons are started, the link is healed, the destination is booted.
 *
 * What the kernel does when a worker dies are three moments (kernel/exit.c): its descriptors and locks go; what is traced with EXITKILL is killed, other tracees go on; its
 * pidfd becomes readable.
 */
#ifndef FAULTS
#define FAULTS 3
#endif

#define SOURCE 0
#define DEST 1

mtype = { FROZEN, IN_DOUBT, COMMITTING, DECIDED, COMMITTED, ABORTED };                  /* states */
mtype = { WORD_RESUMED, WORD_ABORTED, ORDERLY_END, BROKEN };                            /* what is heard on the go connection ... */
mtype = { ANSWER_UNKNOWN, ANSWER_PENDING, ANSWER_ABORTED, ANSWER_COMMITTED };           /* ... and from the destination's daemon */
mtype = { HEARD_COMMITTED, HEARD_ABORTED, ASK };
mtype = { NONE, PENDING };                                                              /* records; COMMITTED is one, too */
mtype = { RUNS, STANDS, GONE };                                                         /* a copy */
mtype = { GO };

mtype state[2] = FROZEN;
mtype copy[2] = STANDS;         /* the source's thread is stopped, the destination's has not run yet */

bool host[2] = true;
bool worker[2] = true;
bool agent[2] = true;
bool daemon = true;             /* the destination's */
bool net = true;                /* hosts reach each other */
bool connection = true;         /* the go connection has not broken */
bool shut = false;              /* the source's agent has said on it that nothing more will come */
chan go = [1] of { mtype };     /* on the go connection, to the destination */
chan word = [2] of { mtype };   /* and back */
bool end_worker = true, end_agent = true;       /* who holds the destination's end of it */
bool released = false;          /* the source has said that it knows */

mtype record = PENDING;
bool locked_worker = true;
bool locked_agent = true;
bool exitkill = true;           /* the root ends with its worker */
bool detached = false, reaped = false;          /* the destination's worker is dead: moments two and three */

bool ran = false;               /* a thread of the unit has run at the destination */
bool written = false;           /* the record has said so */
bool booted = false, no_memory = false;

/* --- the tables of handover.h --- */

inline step(side, from, to)
{
	atomic {
		if
		:: state[side] == from -> state[side] = to; made = true
		:: else -> made = false
		fi
	}
}

#define GO_LEAVES        step(SOURCE, FROZEN, IN_DOUBT)
#define SOURCE_ORPHANED  step(SOURCE, FROZEN, ABORTED)
#define STEP_HEARD_COMMITTED step(SOURCE, IN_DOUBT, COMMITTED)
#define STEP_HEARD_ABORTED   step(SOURCE, IN_DOUBT, ABORTED)
#define RELEASE_BEGINS   step(DEST, FROZEN, COMMITTING)
#define RELEASE_FAILED   step(DEST, COMMITTING, FROZEN)
#define ROOT_RELEASED    step(DEST, COMMITTING, DECIDED)
#define SEAT_TAKEN       step(DEST, FROZEN, DECIDED)
#define RECORDED         step(DEST, DECIDED, COMMITTED)
#define RECORD_FAILED    step(DEST, DECIDED, ABORTED)
#define DEST_ORPHANED    step(DEST, FROZEN, ABORTED)
#define ROOT_KILLED      step(DEST, COMMITTING, ABORTED)

inline hear(news, follows)
{
	if
	:: news == WORD_RESUMED     -> follows = HEARD_COMMITTED
	:: news == WORD_ABORTED     -> follows = HEARD_ABORTED
	:: news == ORDERLY_END      -> follows = HEARD_ABORTED
	:: news == BROKEN           -> follows = ASK
	:: news == ANSWER_UNKNOWN   -> follows = HEARD_ABORTED
	:: news == ANSWER_PENDING   -> follows = ASK
	:: news == ANSWER_ABORTED   -> follows = HEARD_ABORTED
	:: news == ANSWER_COMMITTED -> follows = HEARD_COMMITTED
	fi
}

#define LOCKED (locked_worker || locked_agent)
#define FREE   (!LOCKED)

inline answer(news)
{
	if
	:: record == PENDING && LOCKED   -> news = ANSWER_PENDING
	:: record == PENDING && FREE     -> news = ANSWER_ABORTED
	:: record == COMMITTED && LOCKED -> news = ANSWER_COMMITTED
	:: record == COMMITTED && FREE   -> news = ANSWER_COMMITTED
	:: record == NONE                -> news = ANSWER_UNKNOWN
	fi
}

/* --- what a copy may do --- */

inline let_go(side)
{
	atomic {
		if
		:: copy[side] == STANDS ->
			copy[side] = RUNS;
			ran = ran || side == DEST;
			assert(copy[1 - side] != RUNS);
			/*
			 * What has run is not undone, unless that host lost its power, and with it the knowledge; or both its worker and, before the agent had told the source,
			 * what it had just let go were killed.
			 */
			assert(side == DEST || !ran || booted || (no_memory && !worker[DEST]))
		:: else /* somebody else has let it go, or it was killed */
		fi
	}
}

/* --- the source --- */

/* Words are looked at and stay. */
#define ENDED (len(word) == 0 && connection && !end_worker && !end_agent)

inline listen(news)
{
	if
	:: word?[WORD_RESUMED] -> news = WORD_RESUMED
	:: word?[WORD_ABORTED] -> news = WORD_ABORTED
	:: len(word) == 0 && !connection -> news = BROKEN
	:: ENDED && len(go) == 0 && !shut -> news = ORDERLY_END
	:: ENDED && len(go) == 0 && shut -> news = BROKEN
	:: ENDED && len(go) > 0 -> connection = false; news = BROKEN       /* closed with unread bytes */
	fi
}

inline find_out(news, follows)
{
	atomic { listen(news); hear(news, follows) }
	do
	:: follows == ASK -> atomic { (net && host[DEST] && daemon) -> answer(news); hear(news, follows) }
		if
		:: follows == ASK -> (FREE || record != PENDING)        /* asks again, which is of no use before this */
		:: else
		fi
	:: else -> break
	od
}

#define DIES(side) (!worker[side] || !host[side])

active proctype source_worker()
{
	mtype news, follows;
	bool made;

	{
		GO_LEAVES;
		if
		:: made ->
			atomic {
				if
				:: connection -> go!GO  /* and where the link is cut, it arrives when that is mended, or the connection breaks */
				:: else
				fi
			};
			find_out(news, follows);
			if
			:: follows == HEARD_COMMITTED -> STEP_HEARD_COMMITTED; copy[SOURCE] = GONE; released = net && connection
			:: else -> STEP_HEARD_ABORTED; let_go(SOURCE)
			fi
		:: else
		fi
	} unless { DIES(SOURCE) }
}

active proctype source_agent()
{
	mtype news, follows;
	bool made;

	{
		!worker[SOURCE];
		SOURCE_ORPHANED;
		if
		:: state[SOURCE] == IN_DOUBT ->
			shut = true;
			find_out(news, follows);
			if
			:: follows == HEARD_COMMITTED -> STEP_HEARD_COMMITTED
			:: else -> STEP_HEARD_ABORTED
			fi
		:: else
		fi;
		if
		:: state[SOURCE] == COMMITTED -> copy[SOURCE] = GONE
		:: state[SOURCE] == ABORTED -> let_go(SOURCE)
		fi
	} unless { !host[SOURCE] }
}

/* --- the destination --- */

inline tell(what)
{
	atomic {
		if
		:: what == WORD_ABORTED && len(go) > 0 -> go?_    /* what nobody has read is taken out first */
		:: what != WORD_ABORTED || len(go) == 0
		fi
	};
	atomic {
		if
		:: connection -> word!what
		:: else
		fi
	}
}

inline give_up()
{
	copy[DEST] = GONE;
	tell(WORD_ABORTED);
	record = NONE;
	locked_worker = false;
	end_worker = false;
	end_agent = false;
	agent[DEST] = false;
	locked_agent = false
}

active proctype dest_worker()
{
	bool made;

	{
		if
		:: go?GO ->
#ifdef SEATED
			exitkill = false;
			SEAT_TAKEN;
#else
			RELEASE_BEGINS;
			if
			:: RELEASE_FAILED; give_up(); goto over
			:: atomic { copy[DEST] != GONE -> exitkill = false }
			fi;
			ROOT_RELEASED;
#endif
			if
			:: RECORD_FAILED; give_up(); goto over
			:: atomic { record = COMMITTED; written = true }
			fi;
			RECORDED;
			let_go(DEST);
			tell(WORD_RESUMED);
			if
			:: released -> record = NONE
			:: true
			fi
		:: len(go) == 0 && (!connection || shut) -> give_up()
		fi
over:		skip
	} unless { DIES(DEST) };
	if
	:: host[DEST] && !worker[DEST] ->
		locked_worker = false;
		end_worker = false;
		if
		:: exitkill -> copy[DEST] = GONE
		:: else
		fi;
		detached = true;
		reaped = true
	:: else
	fi
}

/* The main thread, in AWAIT, when nothing holds it any more. */
active proctype dest_root()
{
	bool made;

	{
		detached && copy[DEST] == STANDS;
		do
#ifndef SEATED
		:: state[DEST] == COMMITTING -> ROOT_RELEASED
#endif
		:: state[DEST] == COMMITTED -> let_go(DEST); break
		:: state[DEST] == ABORTED -> copy[DEST] = GONE; break
		od
	} unless { copy[DEST] == GONE || copy[DEST] == RUNS }
}

active proctype dest_agent()
{
	bool made;

	{
		reaped;
		do
		:: state[DEST] == COMMITTING && copy[DEST] == GONE -> ROOT_KILLED
		:: state[DEST] != COMMITTING -> break
		od;
		DEST_ORPHANED;
		if
		:: state[DEST] == DECIDED ->
			if
			:: atomic { record = COMMITTED; written = true }; RECORDED
			:: record != COMMITTED -> RECORD_FAILED
			fi
		:: else
		fi;
		if
		:: state[DEST] == COMMITTED -> tell(WORD_RESUMED)
		:: state[DEST] == ABORTED -> tell(WORD_ABORTED); end_agent = false; locked_agent = false; agent[DEST] = false
		fi
	} unless { !agent[DEST] || !host[DEST] }
}

/* --- what goes wrong --- */

inline power_cut(side)
{
	host[side] = false;
	worker[side] = false;
	agent[side] = false;
	copy[side] = GONE;
	connection = false;
	if
	:: side == DEST -> daemon = false; record = NONE; locked_worker = false; locked_agent = false; end_worker = false; end_agent = false; booted = true
	:: else
	fi
}

active proctype faults()
{
	byte left = FAULTS;

	do
	:: atomic { left > 0 && worker[SOURCE] -> worker[SOURCE] = false; left-- }
	:: atomic { left > 0 && worker[DEST] -> worker[DEST] = false; left-- }
	:: atomic { left > 0 && connection -> connection = false;
		if
		:: len(go) > 0 -> go?_
		:: true
		fi;
		if
		:: len(word) > 0 -> word?_
		:: true
		fi;
		left-- }
	:: atomic { left > 0 && net -> net = false; left-- }
	:: atomic { left > 0 && daemon -> daemon = false; left-- }
	:: atomic { left > 0 && agent[DEST] && copy[DEST] != GONE ->
		copy[DEST] = GONE; agent[DEST] = false; end_agent = false; locked_agent = false; no_memory = true; left-- }
	:: atomic { left > 0 && host[SOURCE] -> power_cut(SOURCE); left-- }
	:: atomic { left > 0 && host[DEST] -> power_cut(DEST); left-- }
	:: atomic { net = true; daemon = true; host[DEST] = true; break }
	od;
	/* Nobody sends or hears any more: the end. */
	timeout;
	assert((copy[SOURCE] == RUNS) != (copy[DEST] == RUNS) || copy[SOURCE] == GONE);
	assert(copy[SOURCE] == RUNS || copy[DEST] == RUNS || !host[SOURCE] || (written && (booted || no_memory)))
}
