// SPDX-License-Identifier: GPL-2.0-or-later
/* keep_wire.c - see keep_wire.h */
#include "daemon/keep_wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "keep.pb-c.h"
#include "migrate/protection.h"

#define PID_DIGITS_MAX 10

size_t keep_name_length(const char *key)
{
	return strcspn(key, "@");
}

bool keep_key_valid(const char *key, bool plain)
{
	char home[HELLO_NAME_MAX + 1];
	size_t len = strcspn(key, ":"), digits = key[len] ? strspn(key + len + 1, "0123456789") : 0;
	const char *rest = key[len] ? key + len + 1 + digits : "";

	if (len >= sizeof(home) || !digits || digits > PID_DIGITS_MAX)
		return false;
	memcpy(home, key, len);
	home[len] = 0;
	return hello_name_valid(home) && ((plain && !*rest) || (*rest == '@' && protection_id_valid(rest + 1)));
}

static bool name_or_nothing(const char *name)
{
	return !*name || hello_name_valid(name);
}

/* Of a host: letters, digits and '-'. */
static bool run_valid(const char *run)
{
	size_t n = strspn(run, "0123456789abcdefghijklmnopqrstuvwxyz-");

	return !run[n] && n < KEEP_RUN_MAX;
}

static bool printable(const char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			return false;
	return true;
}

/* --- questions --- */

void *keep_question_encode(const struct keep_question *q, size_t *ret_len)
{
	Gw__Keep m = GW__KEEP__INIT;
	uint8_t *packed;

	m.word = q->word;
	m.unit = (char *)(uintptr_t)q->unit;
	m.owner = (char *)(uintptr_t)q->owner;
	m.moves = q->moves;
	m.seq = q->seq;
	m.bytes = q->bytes;
	m.first = q->base;
	m.to = (char *)(uintptr_t)q->to;
	m.run = (char *)(uintptr_t)q->run;
	m.again = q->again;
	packed = malloc(gw__keep__get_packed_size(&m) + 1);
	if (packed)
		*ret_len = gw__keep__pack(&m, packed);
	return packed;
}

static bool question_good(const Gw__Keep *m)
{
	if (m->word < KEEP_STORE || m->word >= KEEP_WORDS)
		return false;
	if (m->word == KEEP_LIST)
		return !*m->unit && name_or_nothing(m->owner) && !*m->to && run_valid(m->run);
	return keep_key_valid(m->unit, false) && hello_name_valid(m->owner) && name_or_nothing(m->to) && run_valid(m->run) && m->moves < UINT64_MAX && m->bytes <= KEEP_IMAGE_BYTES_MAX &&
	       ((m->word != KEEP_MOVED && m->word != KEEP_SEAL) || *m->to) && (m->word != KEEP_STORE || (m->seq && m->bytes && *m->run && m->first <= m->seq));
}

int keep_question_decode(const void *data, size_t len, struct keep_question *ret, struct err *e)
{
	Gw__Keep *m = len <= KEEP_QUESTION_BYTES_MAX ? gw__keep__unpack(NULL, len, data) : NULL;
	bool good = m && question_good(m);

	if (good) {
		*ret = (struct keep_question){ .word = (enum keep_word)m->word, .moves = m->moves, .seq = m->seq, .base = m->first, .bytes = m->bytes, .again = m->again };
		snprintf(ret->unit, sizeof(ret->unit), "%s", m->unit);
		snprintf(ret->owner, sizeof(ret->owner), "%s", m->owner);
		snprintf(ret->to, sizeof(ret->to), "%s", m->to);
		snprintf(ret->run, sizeof(ret->run), "%s", m->run);
	}
	if (m)
		gw__keep__free_unpacked(m, NULL);
	return good ? 0 : err_set(e, -EPROTO, "a question about copies that is none");
}

/* --- answers --- */

static void fill_entry(Gw__KeepEntry *m, const struct keep_record *r)
{
	gw__keep_entry__init(m);
	m->unit = (char *)(uintptr_t)r->unit;
	m->state = r->state;
	m->owner = (char *)(uintptr_t)r->owner;
	m->moves = r->moves;
	m->seq = r->seq;
	m->bytes = r->has_copy ? MAX(r->bytes, 1) : 0;
	m->to = (char *)(uintptr_t)r->to;
	m->run = (char *)(uintptr_t)r->run;
}

void *keep_answer_encode(const struct keep_answer *a, size_t *ret_len)
{
	cleanup_free Gw__KeepEntry *entries = calloc(a->n_entries + 1, sizeof(*entries));
	cleanup_free Gw__KeepEntry **list = calloc(a->n_entries + 1, sizeof(*list));
	Gw__KeepAnswer m = GW__KEEP_ANSWER__INIT;
	uint8_t *packed;

	if (!entries || !list)
		return NULL;
	for (size_t i = 0; i < a->n_entries; i++) {
		fill_entry(&entries[i], &a->entries[i]);
		list[i] = &entries[i];
	}
	m.verdict = a->verdict;
	m.why = (char *)(uintptr_t)a->why;
	m.to = (char *)(uintptr_t)a->to;
	m.pid = a->pid;
	m.run = (char *)(uintptr_t)a->run;
	m.n_entries = a->n_entries;
	m.entries = list;
	packed = malloc(gw__keep_answer__get_packed_size(&m) + 1);
	if (packed)
		*ret_len = gw__keep_answer__pack(&m, packed);
	return packed;
}

static bool entry_good(const Gw__KeepEntry *m)
{
	return m->state > KEEP_NOTHING && m->state < KEEP_STATES && keep_key_valid(m->unit, m->state == KEEP_RUNS) && hello_name_valid(m->owner) && name_or_nothing(m->to) && run_valid(m->run) &&
	       m->moves < UINT64_MAX && m->bytes <= KEEP_IMAGE_BYTES_MAX && ((m->state != KEEP_SEALED && m->state != KEEP_TAKING && m->state != KEEP_TAKEN) || *m->to);
}

static void read_entry(const Gw__KeepEntry *m, struct keep_record *ret)
{
	*ret = (struct keep_record){ .state = (enum keep_state)m->state, .moves = m->moves, .seq = m->seq, .bytes = m->bytes, .has_copy = m->bytes > 0 };
	snprintf(ret->unit, sizeof(ret->unit), "%s", m->unit);
	snprintf(ret->owner, sizeof(ret->owner), "%s", m->owner);
	snprintf(ret->to, sizeof(ret->to), "%s", m->to);
	snprintf(ret->run, sizeof(ret->run), "%s", m->run);
}

static int read_answer(const Gw__KeepAnswer *m, struct keep_answer *ret, struct err *e)
{
	bool good = m->verdict >= KEEP_YES && m->verdict < KEEP_VERDICTS && strlen(m->why) < sizeof(ret->why) && printable(m->why) && name_or_nothing(m->to) && run_valid(m->run) && m->pid >= 0 &&
		    m->n_entries <= KEEP_ENTRIES_MAX;

	for (size_t i = 0; good && i < m->n_entries; i++)
		good = entry_good(m->entries[i]);
	if (!good)
		return err_set(e, -EPROTO, "an answer about copies that is none");
	*ret = (struct keep_answer){ .verdict = (enum keep_verdict)m->verdict, .pid = m->pid, .entries = calloc(m->n_entries + 1, sizeof(*ret->entries)), .n_entries = m->n_entries };
	if (!ret->entries)
		return err_sys(e, -ENOMEM, "an answer about copies");
	snprintf(ret->why, sizeof(ret->why), "%s", m->why);
	snprintf(ret->to, sizeof(ret->to), "%s", m->to);
	snprintf(ret->run, sizeof(ret->run), "%s", m->run);
	for (size_t i = 0; i < m->n_entries; i++)
		read_entry(m->entries[i], &ret->entries[i]);
	return 0;
}

int keep_answer_decode(const void *data, size_t len, struct keep_answer *ret, struct err *e)
{
	Gw__KeepAnswer *m = gw__keep_answer__unpack(NULL, len, data);
	int r = m ? read_answer(m, ret, e) : err_set(e, -EPROTO, "an answer about copies that does not parse");

	if (m)
		gw__keep_answer__free_unpacked(m, NULL);
	return r;
}

void keep_answer_free(struct keep_answer *a)
{
	freep(&a->entries);
	a->n_entries = 0;
}
