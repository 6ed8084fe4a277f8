// SPDX-License-Identifier: GPL-2.0-or-later
/* keep_rules.c - see keep_rules.h */
#include "daemon/keep_rules.h"

#include <stdio.h>
#include <string.h>

#include "base/util.h"

bool keep_is_newer(uint64_t moves_a, uint64_t seq_a, uint64_t moves_b, uint64_t seq_b)
{
	return moves_a > moves_b || (moves_a == moves_b && seq_a > seq_b);
}

/* Another node is to restore the unit, or has, since the owner of that number was lost. */
static bool is_lost(const struct keep_record *r)
{
	return r->state == KEEP_SEALED || r->state == KEEP_TAKING || r->state == KEEP_TAKEN;
}

/* An owner with that fencing number is not one any more. */
static bool fences(const struct keep_record *r, uint64_t moves)
{
	return r->state != KEEP_NOTHING && (moves < r->moves || (moves == r->moves && is_lost(r)));
}

static void name(struct keep_record *r, const struct keep_question *q)
{
	memcpy(r->unit, q->unit, sizeof(r->unit));
	memcpy(r->owner, q->owner, sizeof(r->owner));
	r->moves = q->moves;
	r->to[0] = 0;
}

/* It says only what is new since another one, which this node must have. */
static bool adds(const struct keep_question *q)
{
	return q->base && q->base != q->seq;
}

static enum keep_verdict store(struct keep_record *r, const struct keep_question *q)
{
	if (r->state == KEEP_TAKING)
		return KEEP_FENCED;
	if (fences(r, q->moves))
		return KEEP_FENCED;
	if (r->state != KEEP_NOTHING && q->moves == r->moves && (q->seq <= r->seq || (r->state == KEEP_COPY && strcmp(r->owner, q->owner) != 0)))
		return KEEP_STALE;
	if (adds(q) && (r->state != KEEP_COPY || !r->has_copy || r->moves != q->moves || r->base != q->base))
		return KEEP_NO;
	name(r, q);
	memcpy(r->run, q->run, sizeof(r->run));
	r->state = KEEP_COPY;
	r->seq = q->seq;
	r->base = adds(q) ? q->base : q->seq;
	r->bytes = MIN((adds(q) ? r->bytes : 0) + q->bytes, KEEP_IMAGE_BYTES_MAX);
	r->has_copy = true;
	return KEEP_YES;
}

static enum keep_verdict end(struct keep_record *r, const struct keep_question *q)
{
	if (r->state == KEEP_TAKING || fences(r, q->moves))
		return KEEP_FENCED;
	if (r->state == KEEP_NOTHING || q->moves > r->moves)
		r->seq = 0;
	name(r, q);
	r->state = KEEP_HAS_ENDED;
	r->seq = MAX(r->seq, q->seq);
	r->has_copy = false;
	r->bytes = 0;
	return KEEP_YES;
}

static enum keep_verdict moved(struct keep_record *r, const struct keep_question *q, const char *self)
{
	if (r->state == KEEP_NOTHING)
		return KEEP_YES;
	if (q->moves + 1 == r->moves && r->state != KEEP_TAKING && !is_lost(r))
		return KEEP_YES; /* where it is now has been faster */
	if (r->state == KEEP_TAKING || fences(r, q->moves))
		return KEEP_FENCED;
	if (r->state != KEEP_COPY)
		return KEEP_STALE;
	if (!strcmp(q->to, self)) { /* here: no copy of what is here is of use */
		r->state = KEEP_NOTHING;
		r->has_copy = false;
		return KEEP_YES;
	}
	memcpy(r->owner, q->to, sizeof(r->owner));
	r->moves = q->moves + 1;
	r->run[0] = 0;
	return KEEP_YES;
}

static enum keep_verdict seal(struct keep_record *r, const struct keep_question *q)
{
	bool known = r->state != KEEP_NOTHING;

	if (r->state == KEEP_TAKING || r->state == KEEP_TAKEN)
		return KEEP_FENCED;
	if (known && (q->moves < r->moves || (q->moves == r->moves && r->state == KEEP_HAS_ENDED)))
		return r->state == KEEP_SEALED ? KEEP_FENCED : KEEP_STALE;
	if (r->state == KEEP_SEALED && strcmp(r->to, q->to) != 0 && !q->again)
		return KEEP_FENCED;
	if (!known) {
		name(r, q);
		r->seq = r->bytes = 0;
		r->has_copy = false;
	}
	r->state = KEEP_SEALED;
	r->moves = q->moves;
	memcpy(r->to, q->to, sizeof(r->to));
	return KEEP_YES;
}

static enum keep_verdict drop(struct keep_record *r, const struct keep_question *q)
{
	if (r->state == KEEP_TAKING || fences(r, q->moves))
		return KEEP_FENCED;
	if (r->state == KEEP_COPY && r->seq < q->seq) {
		r->state = KEEP_NOTHING;
		r->has_copy = false;
	}
	return KEEP_YES;
}

static enum keep_verdict take(struct keep_record *r, const struct keep_question *q, const char *self)
{
	if (r->state == KEEP_TAKING || r->state == KEEP_TAKEN)
		return KEEP_FENCED;
	if (r->state != KEEP_SEALED || strcmp(r->to, self) != 0 || r->moves != q->moves || r->seq != q->seq || !r->has_copy)
		return KEEP_STALE;
	r->state = KEEP_TAKING;
	return KEEP_YES;
}

enum keep_verdict keep_judge(struct keep_record *r, const struct keep_question *q, const char *self)
{
	switch (q->word) {
	case KEEP_STORE:
		return store(r, q);
	case KEEP_ENDED:
		return end(r, q);
	case KEEP_MOVED:
		return moved(r, q, self);
	case KEEP_SEAL:
		return seal(r, q);
	case KEEP_TAKE:
		return take(r, q, self);
	case KEEP_DROP:
		return drop(r, q);
	case KEEP_ASK:
		return r->state == KEEP_TAKING || fences(r, q->moves) ? KEEP_FENCED : KEEP_YES;
	default:
		return KEEP_NO;
	}
}

void keep_taken(struct keep_record *r, bool runs)
{
	r->state = runs ? KEEP_TAKEN : KEEP_SEALED;
	if (!runs)
		return;
	r->has_copy = false;
	r->bytes = 0;
}

/* --- failover --- */

static bool is_among(const char *node, const char *const *dead, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(node, dead[i]))
			return true;
	return false;
}

/* With one number: who says more than that there is a copy knows more. */
static int rank(enum keep_state state)
{
	static const int ranks[KEEP_STATES] = { [KEEP_COPY] = 1, [KEEP_SEALED] = 2, [KEEP_HAS_ENDED] = 3, [KEEP_TAKING] = 4, [KEEP_TAKEN] = 5, [KEEP_RUNS] = 6 };

	return ranks[state];
}

/* Of two with the same number of moves. That it has ended says nothing about a copy that was made later. */
static bool knows_more(const struct keep_record *a, const struct keep_record *b)
{
	if (a->state == KEEP_HAS_ENDED && b->state == KEEP_COPY)
		return a->seq >= b->seq;
	if (a->state == KEEP_COPY && b->state == KEEP_HAS_ENDED)
		return a->seq > b->seq;
	return rank(a->state) > rank(b->state) || (rank(a->state) == rank(b->state) && a->seq > b->seq);
}

/* The newest of what all have told. */
static const struct keep_record *newest(const struct keep_told *told, size_t n)
{
	const struct keep_record *found = NULL;

	for (size_t i = 0; i < n; i++) {
		const struct keep_record *r = &told[i].record;

		if (!told[i].failed && (!found || r->moves > found->moves || (r->moves == found->moves && knows_more(r, found))))
			found = r;
	}
	return found;
}

static bool has_failed(const struct keep_told *told, size_t n, const char *node)
{
	for (size_t i = 0; i < n; i++)
		if (told[i].failed && !strcmp(told[i].node, node))
			return true;
	return false;
}

static bool can_restore(const struct keep_told *t, const char *const *dead, size_t n_dead)
{
	return t->record.has_copy && !t->failed && !is_among(t->node, dead, n_dead) && (t->record.state == KEEP_COPY || t->record.state == KEEP_SEALED);
}

/* Why nobody is to restore it; NULL: somebody is. */
static const char *obstacle(const struct keep_record *last)
{
	switch (last ? last->state : KEEP_NOTHING) {
	case KEEP_COPY:
	case KEEP_SEALED:
		return NULL;
	case KEEP_HAS_ENDED:
		return "it has ended, or was not protected any more";
	case KEEP_TAKING:
		return "it is being restored at this moment";
	case KEEP_TAKEN:
	case KEEP_RUNS:
		return "it runs already";
	default:
		return "nobody has a copy of it";
	}
}

int keep_choose(const struct keep_told *told, size_t n, const char *const *dead, size_t n_dead, const char **ret_why)
{
	const struct keep_record *last = newest(told, n);
	const char *chosen = NULL;
	int best = -1;

	*ret_why = obstacle(last);
	if (*ret_why)
		return -1;
	if (last->state == KEEP_SEALED && !has_failed(told, n, last->to) && !is_among(last->to, dead, n_dead))
		chosen = last->to; /* somebody else has begun */
	for (size_t i = 0; i < n; i++) {
		const struct keep_record *r = &told[i].record, *b = best >= 0 ? &told[best].record : NULL;

		if (!can_restore(&told[i], dead, n_dead) || (chosen && strcmp(told[i].node, chosen) != 0))
			continue;
		if (!b || r->seq > b->seq || (r->seq == b->seq && strcmp(told[i].node, told[best].node) < 0))
			best = (int)i;
	}
	*ret_why = best < 0 ? "no node that answers has a copy of it that it could restore" : NULL;
	return best;
}
