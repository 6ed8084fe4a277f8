// SPDX-License-Identifier: GPL-2.0-or-later
/* test_ahead.c - differences of pages: what is made of two pages turns the one into the other, and fits the room that is kept for it */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "migrate/ahead.h"

#define ADDRESS 0x7f0000001000ull
#define WORDS (PAGE_SIZE_BYTES / 8)

static uint64_t before[WORDS], now[WORDS];
static uint8_t room[DELTA_PAGE_MAX + 64];

/* Applies what was made, as the destination does; returns the number of differences. */
static unsigned apply(uint64_t *page, const uint8_t *at, size_t left)
{
	const uint8_t *data;
	struct delta d;
	unsigned n = 0;
	int ret;

	while ((ret = delta_next(&at, &left, &d, &data, NULL)) > 0) {
		assert_true(d.address >= ADDRESS && d.address + d.len <= ADDRESS + PAGE_SIZE_BYTES);
		memcpy((uint8_t *)page + (d.address - ADDRESS), data, d.len);
		n++;
	}
	assert_int_equal(ret, 0);
	return n;
}

static unsigned round_trip(void)
{
	uint64_t page[WORDS];
	size_t len;
	unsigned n;

	memset(room, 0xa5, sizeof(room));
	len = delta_make(before, now, ADDRESS, room);
	assert_true(len <= DELTA_PAGE_MAX);
	for (size_t i = len; i < sizeof(room); i++)
		assert_int_equal(room[i], 0xa5);
	memcpy(page, before, sizeof(page));
	n = apply(page, room, len);
	assert_memory_equal(page, now, sizeof(page));
	return n;
}

static void nothing_changed(void **state)
{
	(void)state;
	memset(before, 7, sizeof(before));
	memcpy(now, before, sizeof(now));
	assert_int_equal(delta_make(before, now, ADDRESS, room), 0);
	assert_int_equal(round_trip(), 0);
}

static void first_and_last_word(void **state)
{
	(void)state;
	memset(before, 0, sizeof(before));
	memset(now, 0, sizeof(now));
	now[0] = now[WORDS - 1] = 1;
	assert_int_equal(round_trip(), 2);
}

/* Every pattern of changed words up to a distance, so that joined and separate ones occur; the worst case for the room among them. */
static void every_distance(void **state)
{
	(void)state;
	memset(before, 0, sizeof(before));
	for (size_t step = 1; step < WORDS; step++)
		for (size_t first = 0; first < 8; first++) {
			memset(now, 0, sizeof(now));
			for (size_t i = first; i < WORDS; i += step)
				now[i] = i + 1;
			round_trip();
		}
}

static void at_random(void **state)
{
	(void)state;
	srandom(1);
	for (int round = 0; round < 3000; round++) {
		unsigned share = (unsigned)random() % 100;

		for (size_t i = 0; i < WORDS; i++) {
			before[i] = (uint64_t)random();
			now[i] = (unsigned)random() % 100 < share ? (uint64_t)random() : before[i];
		}
		round_trip();
	}
}

static void refused(const struct delta *d, size_t len)
{
	uint8_t bytes[64] = { 0 };
	const uint8_t *at = bytes, *data;
	struct delta ignored;

	memcpy(bytes, d, sizeof(*d));
	assert_int_equal(delta_next(&at, &len, &ignored, &data, NULL), -EPROTO);
}

static void nonsense_is_refused(void **state)
{
	(void)state;
	refused(&(struct delta){ ADDRESS, 8, 0 }, sizeof(struct delta) - 1);
	refused(&(struct delta){ ADDRESS, 8, 0 }, sizeof(struct delta) + 7);
	refused(&(struct delta){ ADDRESS, 0, 0 }, 64);
	refused(&(struct delta){ ADDRESS, 4, 0 }, 64);
	refused(&(struct delta){ ADDRESS + 4, 8, 0 }, 64);
	refused(&(struct delta){ ADDRESS + PAGE_SIZE_BYTES - 8, 16, 0 }, 64);
}

static int decode(uint32_t process, uint32_t npages, const uint64_t *addresses, size_t n, size_t len)
{
	cleanup_free uint8_t *payload = calloc(1, len + 64);
	struct ahead a;

	memcpy(payload, &(struct ahead_head){ process, npages }, sizeof(struct ahead_head));
	memcpy(payload + sizeof(struct ahead_head), addresses, n * sizeof(*addresses));
	return ahead_decode(payload, len, 2, &a, NULL);
}

static void frames(void **state)
{
	const uint64_t good[] = { ADDRESS, ADDRESS + PAGE_SIZE_BYTES }, twice[] = { ADDRESS, ADDRESS }, askew[] = { ADDRESS, ADDRESS + 8 };
	const size_t len = sizeof(struct ahead_head) + 2 * (8 + PAGE_SIZE_BYTES);

	(void)state;
	assert_int_equal(decode(1, 2, good, 2, len), 0);
	assert_int_equal(decode(2, 2, good, 2, len), -EPROTO);
	assert_int_equal(decode(0, 1, good, 2, len), -EPROTO);
	assert_int_equal(decode(0, 3, good, 2, len), -EPROTO);
	assert_int_equal(decode(0, 0, good, 0, sizeof(struct ahead_head)), -EPROTO);
	assert_int_equal(decode(0, 2, good, 2, len - 1), -EPROTO);
	assert_int_equal(decode(0, 2, twice, 2, len), -EPROTO);
	assert_int_equal(decode(0, 2, askew, 2, len), -EPROTO);
	assert_int_equal(decode(0, 2, good, 0, 4), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(nothing_changed), cmocka_unit_test(first_and_last_word), cmocka_unit_test(every_distance),
					    cmocka_unit_test(at_random), cmocka_unit_test(nonsense_is_refused), cmocka_unit_test(frames) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
