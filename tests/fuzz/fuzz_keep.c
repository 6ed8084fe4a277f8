// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_keep.c - what nodes say about copies of protected units: a question, or, behind a first byte that is odd, an answer */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "daemon/keep_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void ask(const uint8_t *data, size_t len)
{
	struct keep_record record = { 0 };
	struct keep_question q;
	struct err e = ERR_INIT;

	if (keep_question_decode(data, len, &q, &e) < 0) {
		if (!e.message[0])
			abort();
		return;
	}
	if (q.word != KEEP_LIST && (!keep_key_valid(q.unit, false) || strchr(q.unit, '/') || !hello_name_valid(q.owner)))
		abort();
	keep_judge(&record, &q, "n1");
	if (record.state != KEEP_NOTHING && strcmp(record.unit, q.unit) != 0)
		abort();
}

static void answer(const uint8_t *data, size_t len)
{
	struct keep_answer a;
	struct err e = ERR_INIT;

	if (keep_answer_decode(data, len, &a, &e) < 0) {
		if (!e.message[0])
			abort();
		return;
	}
	for (size_t i = 0; i < a.n_entries; i++)
		if (!keep_key_valid(a.entries[i].unit, true) || a.entries[i].state == KEEP_NOTHING || a.entries[i].state >= KEEP_STATES)
			abort();
	keep_answer_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	if (data[0] & 1)
		answer(data + 1, len - 1);
	else
		ask(data + 1, len - 1);
	return 0;
}
