// SPDX-License-Identifier: GPL-2.0-or-later
/* test_keep_rules.c - keepers of copies: what they accept, and that a unit is restored once whoever asks for it, in whatever order */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "cluster/rng.h"
#include "daemon/fence.h"
#include "daemon/keep_rules.h"
#include "daemon/keep_wire.h"

#define KEY "n1:7@00000000000000aa"

static struct keep_question ask(enum keep_word word, const char *owner, uint64_t moves, uint64_t seq)
{
	struct keep_question q = { .word = word, .moves = moves, .seq = seq, .bytes = 1 };

	strcpy(q.unit, KEY);
	strcpy(q.owner, owner);
	strcpy(q.run, "r");
	return q;
}

static enum keep_verdict say(struct keep_record *r, enum keep_word word, const char *owner, uint64_t moves, uint64_t seq)
{
	struct keep_question q = ask(word, owner, moves, seq);

	return keep_judge(r, &q, "k");
}

static enum keep_verdict say_to(struct keep_record *r, enum keep_word word, uint64_t moves, uint64_t seq, const char *to, bool again)
{
	struct keep_question q = ask(word, "n1", moves, seq);

	strcpy(q.to, to);
	q.again = again;
	return keep_judge(r, &q, "k");
}

static enum keep_verdict add(struct keep_record *r, uint64_t moves, uint64_t seq, uint64_t base, uint64_t bytes)
{
	struct keep_question q = ask(KEEP_STORE, "n1", moves, seq);

	q.base = base;
	q.bytes = bytes;
	return keep_judge(r, &q, "k");
}

/* What says only what is new is of use with the chain that it belongs to. */
static void test_chains(void **state)
{
	struct keep_record r = { 0 };

	(void)state;
	assert_int_equal(add(&r, 0, 11, 10, 5), KEEP_NO); /* nothing is here */
	assert_int_equal(add(&r, 0, 10, 10, 100), KEEP_YES);
	assert_int_equal(add(&r, 0, 12, 10, 5), KEEP_YES);
	assert_int_equal(add(&r, 0, 15, 10, 5), KEEP_YES);
	assert_true(r.base == 10 && r.seq == 15 && r.bytes == 110);
	assert_int_equal(add(&r, 0, 14, 10, 5), KEEP_STALE);
	assert_int_equal(add(&r, 0, 16, 9, 5), KEEP_NO); /* another chain */
	assert_int_equal(add(&r, 1, 16, 10, 5), KEEP_NO); /* it has moved */
	assert_int_equal(add(&r, 0, 16, 16, 90), KEEP_YES);
	assert_true(r.base == 16 && r.bytes == 90);
	assert_int_equal(add(&r, 0, 17, 0, 80), KEEP_YES); /* as older nodes say that it is whole */
	assert_true(r.base == 17 && r.bytes == 80);
	assert_int_equal(say(&r, KEEP_ENDED, "n1", 0, 18), KEEP_YES);
	assert_int_equal(add(&r, 0, 19, 17, 5), KEEP_NO);
}

static void test_copies(void **state)
{
	struct keep_record r = { 0 };

	(void)state;
	assert_int_equal(say(&r, KEEP_STORE, "n1", 0, 10), KEEP_YES);
	assert_int_equal(r.state, KEEP_COPY);
	assert_int_equal(say(&r, KEEP_STORE, "n1", 0, 10), KEEP_STALE);
	assert_int_equal(say(&r, KEEP_STORE, "n9", 0, 11), KEEP_STALE); /* another node with the same number */
	assert_int_equal(say(&r, KEEP_STORE, "n1", 0, 11), KEEP_YES);
	assert_int_equal(say(&r, KEEP_STORE, "n2", 1, 5), KEEP_YES); /* it has moved */
	assert_string_equal(r.owner, "n2");
	assert_int_equal(say(&r, KEEP_STORE, "n1", 0, 99), KEEP_FENCED);
	assert_int_equal(say(&r, KEEP_ASK, "n1", 0, 0), KEEP_FENCED);
	assert_int_equal(say(&r, KEEP_ASK, "n2", 1, 0), KEEP_YES);
	assert_int_equal(say(&r, KEEP_DROP, "n2", 1, 5), KEEP_YES); /* it is the newest */
	assert_int_equal(r.state, KEEP_COPY);
	assert_int_equal(say(&r, KEEP_DROP, "n2", 1, 6), KEEP_YES);
	assert_int_equal(r.state, KEEP_NOTHING);
}

static void test_end(void **state)
{
	struct keep_record r = { 0 };

	(void)state;
	say(&r, KEEP_STORE, "n1", 0, 10);
	assert_int_equal(say(&r, KEEP_ENDED, "n1", 0, 12), KEEP_YES);
	assert_false(r.has_copy);
	assert_int_equal(say(&r, KEEP_STORE, "n1", 0, 11), KEEP_STALE); /* it was on its way */
	assert_int_equal(say_to(&r, KEEP_SEAL, 0, 10, "k", true), KEEP_STALE);
	assert_int_equal(say(&r, KEEP_ENDED, "n1", 0, 12), KEEP_YES); /* said again */
	assert_int_equal(say(&r, KEEP_STORE, "n1", 0, 13), KEEP_YES);
	assert_int_equal(say(&r, KEEP_ENDED, "n0", 0, 0), KEEP_YES);
	r = (struct keep_record){ 0 };
	assert_int_equal(say(&r, KEEP_ENDED, "n1", 0, 12), KEEP_YES); /* also where there is no copy: one may come late */
	assert_int_equal(say(&r, KEEP_STORE, "n1", 0, 12), KEEP_STALE);
}

static void test_move(void **state)
{
	struct keep_record r = { 0 };

	(void)state;
	assert_int_equal(say_to(&r, KEEP_MOVED, 0, 0, "n2", false), KEEP_YES);
	assert_int_equal(r.state, KEEP_NOTHING);
	say(&r, KEEP_STORE, "n1", 0, 10);
	assert_int_equal(say_to(&r, KEEP_MOVED, 0, 10, "n2", false), KEEP_YES);
	assert_string_equal(r.owner, "n2");
	assert_int_equal(r.moves, 1);
	assert_int_equal(r.seq, 10);
	assert_int_equal(say(&r, KEEP_STORE, "n1", 0, 11), KEEP_FENCED);
	assert_int_equal(say(&r, KEEP_STORE, "n2", 1, 11), KEEP_YES);
	assert_int_equal(say_to(&r, KEEP_MOVED, 0, 10, "n2", false), KEEP_YES); /* said again, too late */
	assert_int_equal(say_to(&r, KEEP_MOVED, 1, 11, "n3", false), KEEP_YES);
	assert_int_equal(say_to(&r, KEEP_MOVED, 2, 11, "k", false), KEEP_YES); /* it comes here */
	assert_int_equal(r.state, KEEP_NOTHING);
	say(&r, KEEP_STORE, "n2", 1, 11);
	assert_int_equal(r.seq, 11);
	assert_int_equal(say(&r, KEEP_ENDED, "n1", 0, 11), KEEP_FENCED);
}

static void test_restore(void **state)
{
	struct keep_record r = { 0 };

	(void)state;
	say(&r, KEEP_STORE, "n1", 0, 10);
	assert_int_equal(say_to(&r, KEEP_TAKE, 0, 10, "", false), KEEP_STALE); /* not sealed */
	assert_int_equal(say_to(&r, KEEP_SEAL, 0, 10, "k", false), KEEP_YES);
	assert_int_equal(say(&r, KEEP_STORE, "n1", 0, 11), KEEP_FENCED);
	assert_int_equal(say_to(&r, KEEP_SEAL, 0, 10, "other", false), KEEP_FENCED);
	assert_int_equal(say_to(&r, KEEP_TAKE, 0, 9, "", false), KEEP_STALE);
	assert_int_equal(say_to(&r, KEEP_TAKE, 0, 10, "", false), KEEP_YES);
	assert_int_equal(r.state, KEEP_TAKING);
	assert_int_equal(say_to(&r, KEEP_TAKE, 0, 10, "", false), KEEP_FENCED);
	assert_int_equal(say_to(&r, KEEP_SEAL, 0, 10, "other", true), KEEP_FENCED);
	assert_int_equal(say(&r, KEEP_STORE, "n9", 7, 11), KEEP_FENCED);
	keep_taken(&r, false);
	assert_true(r.has_copy);
	assert_int_equal(say_to(&r, KEEP_SEAL, 0, 10, "other", true), KEEP_YES); /* it has failed here */
	assert_int_equal(say_to(&r, KEEP_TAKE, 0, 10, "", false), KEEP_STALE);
	assert_int_equal(say_to(&r, KEEP_SEAL, 0, 10, "k", true), KEEP_YES);
	assert_int_equal(say_to(&r, KEEP_TAKE, 0, 10, "", false), KEEP_YES);
	keep_taken(&r, true);
	assert_int_equal(say_to(&r, KEEP_SEAL, 0, 10, "other", true), KEEP_FENCED);
	assert_int_equal(say(&r, KEEP_ASK, "n1", 0, 0), KEEP_FENCED); /* the old owner is back */
	assert_int_equal(say(&r, KEEP_STORE, "k", 1, 11), KEEP_YES);
}

static struct keep_told told(const char *node, enum keep_state s, const char *owner, uint64_t moves, uint64_t seq, const char *to)
{
	struct keep_told t = { .node = node, .record = { .state = s, .moves = moves, .seq = seq, .has_copy = s == KEEP_COPY || s == KEEP_SEALED } };

	strcpy(t.record.unit, KEY);
	strcpy(t.record.owner, owner);
	strcpy(t.record.to, to);
	return t;
}

static int choose(struct keep_told *v, size_t n)
{
	static const char *const dead[] = { "n1" };
	const char *why;

	return keep_choose(v, n, dead, 1, &why);
}

static void test_choice(void **state)
{
	struct keep_told v[4];

	(void)state;
	v[0] = told("a", KEEP_COPY, "n1", 0, 10, "");
	v[1] = told("b", KEEP_COPY, "n1", 0, 11, "");
	assert_int_equal(choose(v, 2), 1); /* the newest copy */
	v[0].record.seq = 11;
	assert_int_equal(choose(v, 2), 0); /* of two alike the first by name */
	v[2] = told("n1", KEEP_COPY, "n1", 0, 99, "");
	assert_int_equal(choose(v, 3), 0); /* not on a dead node */
	v[2] = told("c", KEEP_RUNS, "c", 1, 0, "");
	assert_int_equal(choose(v, 3), -1); /* it has moved, or was restored */
	v[2] = told("c", KEEP_HAS_ENDED, "n1", 0, 12, "");
	assert_int_equal(choose(v, 3), -1);
	v[2] = told("c", KEEP_HAS_ENDED, "n1", 0, 5, ""); /* it had ended then */
	assert_int_equal(choose(v, 3), 0);
	v[2] = told("c", KEEP_SEALED, "n1", 0, 0, "b");
	v[2].record.has_copy = false;
	assert_int_equal(choose(v, 3), 1); /* somebody else has chosen */
	v[1].failed = true;
	assert_int_equal(choose(v, 3), 0);
	v[1].failed = false;
	strcpy(v[2].record.to, "n1");
	assert_int_equal(choose(v, 3), 0); /* who was chosen is dead as well */
	v[2] = told("c", KEEP_TAKING, "n1", 0, 10, "c");
	assert_int_equal(choose(v, 3), -1);
	v[2] = told("c", KEEP_TAKEN, "x", 0, 10, "c");
	v[0] = told("a", KEEP_COPY, "n1", 2, 20, "");
	assert_int_equal(choose(v, 3), 0); /* it was there, and has moved on since */
	assert_int_equal(choose(v, 0), -1);
}

/* --- everything at random --- */

#define NODES 4
#define ASKERS 3

static const char *const names[NODES] = { "a", "b", "c", "d" };
static struct rng rng;

static unsigned draw(void)
{
	return (unsigned)(rng_next(&rng) >> 33);
}

struct asker {
	enum { LISTS, SEALS, TAKES, OVER } step;
	struct keep_told told[NODES];
	struct keep_question q;
	size_t at, n;
	int chosen;
	bool again;
};

struct play {
	struct keep_record keepers[NODES];
	bool takes[NODES];  /* TAKING here is under way */
	unsigned running, restored;
};

static void list_all(struct asker *a, const struct play *p)
{
	static const char *const dead[] = { "n1" };
	const char *why;

	a->n = 0;
	for (size_t i = 0; i < NODES; i++)
		if (p->keepers[i].state != KEEP_NOTHING)
			a->told[a->n++] = (struct keep_told){ .node = names[i], .record = p->keepers[i] };
	a->chosen = keep_choose(a->told, a->n, dead, 1, &why);
	a->step = a->chosen < 0 ? OVER : SEALS;
	a->at = 0;
	if (a->chosen < 0)
		return;
	a->q = ask(KEEP_SEAL, "n1", 0, a->told[a->chosen].record.seq);
	for (size_t i = 0; i < a->n; i++)
		a->q.moves = MAX(a->q.moves, a->told[i].record.moves);
	strcpy(a->q.to, a->told[a->chosen].node);
	a->q.again = a->again;
}

static size_t index_of(const char *name)
{
	size_t i = 0;

	while (strcmp(names[i], name) != 0)
		i++;
	return i;
}

static void play_asker(struct asker *a, struct play *p)
{
	size_t i;

	switch (a->step) {
	case LISTS:
		list_all(a, p);
		break;
	case SEALS:
		i = index_of(a->told[a->at].node);
		if (keep_judge(&p->keepers[i], &a->q, names[i]) != KEEP_YES)
			a->step = draw() % 2 ? LISTS : OVER;
		else if (++a->at == a->n)
			a->step = TAKES;
		break;
	case TAKES:
		i = index_of(a->q.to);
		a->q.word = KEEP_TAKE;
		if (keep_judge(&p->keepers[i], &a->q, names[i]) == KEEP_YES) {
			p->takes[i] = true;
			a->again = true; /* if it fails there, others are tried */
		}
		a->step = LISTS;
		break;
	default:
		break;
	}
}

static void play_node(struct play *p, size_t i)
{
	bool runs = draw() % 4 != 0;

	if (!p->takes[i])
		return;
	p->takes[i] = false;
	keep_taken(&p->keepers[i], runs);
	p->running += runs;
	p->restored += runs;
}

static unsigned play(unsigned seed, bool *ret_ended)
{
	struct asker askers[ASKERS] = { 0 };
	struct play p = { 0 };

	rng.state = seed + 1;
	for (size_t i = 0; i < NODES; i++)
		if (draw() % 3)
			say(&p.keepers[i], KEEP_STORE, "n1", 0, 10 + (uint64_t)(draw() % 2));
	*ret_ended = draw() % 4 == 0;
	if (*ret_ended)
		say(&p.keepers[draw() % NODES], KEEP_ENDED, "n1", 0, 12);
	for (int i = 0; i < 200; i++) {
		size_t who = (size_t)draw() % (ASKERS + NODES + 1);

		if (who < ASKERS)
			play_asker(&askers[who], &p);
		else if (who < ASKERS + NODES)
			play_node(&p, who - ASKERS);
		else /* what the dead node had sent comes late */
			say(&p.keepers[draw() % NODES], KEEP_STORE, "n1", 0, 11);
		assert_true(p.running <= 1);
		for (size_t k = 0; k < NODES; k++)
			assert_false(p.takes[k] && p.running);
	}
	return p.restored;
}

static void test_once(void **state)
{
	unsigned restored = 0;

	(void)state;
	for (unsigned seed = 0; seed < 20000; seed++) {
		bool ended;
		unsigned n = play(seed, &ended);

		assert_true(n <= 1);
		restored += n;
		assert_false(ended && n);
	}
	assert_true(restored > 10000);
}

/* --- messages --- */

static void test_messages(void **state)
{
	struct keep_question q = ask(KEEP_STORE, "n1", 3, 10), back;
	struct keep_record entries[2] = { { .state = KEEP_COPY, .moves = 3, .seq = 10, .bytes = 5, .has_copy = true }, { .state = KEEP_RUNS, .moves = 1 } };
	struct keep_answer a = { .verdict = KEEP_FENCED, .why = "it is another's", .to = "n2", .pid = 7, .run = "r1", .entries = entries, .n_entries = 2 }, read;
	struct err e = ERR_INIT;
	size_t len;
	cleanup_free void *packed = keep_question_encode(&q, &len), *answer = NULL;

	(void)state;
	assert_int_equal(keep_question_decode(packed, len, &back, &e), 0);
	assert_memory_equal(&q, &back, sizeof(q));
	strcpy(entries[0].unit, KEY);
	strcpy(entries[0].owner, "n1");
	strcpy(entries[0].run, "r");
	strcpy(entries[1].unit, "n1:9");
	strcpy(entries[1].owner, "n1");
	answer = keep_answer_encode(&a, &len);
	assert_int_equal(keep_answer_decode(answer, len, &read, &e), 0);
	assert_int_equal(read.n_entries, 2);
	assert_memory_equal(read.entries, entries, sizeof(entries));
	assert_string_equal(read.why, a.why);
	assert_string_equal(read.to, "n2");
	keep_answer_free(&read);
	assert_int_equal(keep_question_decode("x", 1, &back, &e), -EPROTO);
	strcpy(q.unit, "n1:7");
	freep(&packed);
	packed = keep_question_encode(&q, &len);
	assert_int_equal(keep_question_decode(packed, len, &back, &e), -EPROTO);
	assert_true(keep_key_valid(KEY, false) && keep_key_valid("n1:7", true) && !keep_key_valid("n1:7", false) && !keep_key_valid("n1:7@00000000000000a", true) && !keep_key_valid("../x:7", true) &&
		    !keep_key_valid("n1:7/@00000000000000aa", false));
}

/* Units are dead before a lease can have run out, and may live for more than two of its renewals. */
static void test_span(void **state)
{
	(void)state;
	assert_int_equal(fence_span_ns(10), 8000000000ull);
	for (unsigned lease_s = 3; lease_s <= 600; lease_s++) {
		assert_true(fence_span_ns(lease_s) <= (lease_s - 1) * 1000000000ull);
		assert_true(fence_span_ns(lease_s) >= 2 * lease_s * 1000000000ull / 3);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copies),	cmocka_unit_test(test_chains), cmocka_unit_test(test_end),  cmocka_unit_test(test_move),     cmocka_unit_test(test_restore),
		cmocka_unit_test(test_choice), cmocka_unit_test(test_once), cmocka_unit_test(test_messages), cmocka_unit_test(test_span),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
