/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_chain.c - images that say only what is new: what is put together is what was recorded, and what is not as it was is refused with a reason */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "wire/archive_chain_internal.h"
#include "wire/crc32c.h"

#define PAGES 300u
#define HEAD_BYTES 16u

static char directory[] = "/tmp/godwit-chain-XXXXXX";
static uint8_t memory[PAGES][ARCHIVE_PAGE_BYTES];

static char *path_of(const char *name)
{
	static char path[4][PATH_MAX];
	static unsigned at;
	char *p = path[at++ % 4];

	snprintf(p, PATH_MAX, "%s/%s", directory, name);
	return p;
}

static void change(unsigned page, unsigned value)
{
	for (size_t i = 0; i < ARCHIVE_PAGE_BYTES; i += sizeof(value))
		memcpy(&memory[page][i], &(unsigned){ value * 2654435761u + (unsigned)i }, sizeof(value));
}

static void begin(void)
{
	strcpy(strrchr(directory, '-'), "-XXXXXX");
	assert_non_null(mkdtemp(directory));
	for (unsigned i = 0; i < PAGES; i++)
		change(i, i + 1);
}

static void end(void)
{
	char command[PATH_MAX + 16];

	snprintf(command, sizeof(command), "rm -r %s", directory);
	assert_int_equal(system(command), 0);
}

/* Everything, in the order that `step` gives, in frames of up to 64 pages with a head before each. */
static uint64_t write_image(const char *name, unsigned step, bool defer)
{
	struct archive_chain *chain = NULL;
	struct archive_writer *w = NULL;
	static uint8_t chunk[PAGES * ARCHIVE_PAGE_BYTES + 64 * HEAD_BYTES];
	struct archive_span spans[64];
	size_t len = 0, n = 0;
	uint64_t bytes;

	if (archive_chain_load(path_of(ARCHIVE_CHAIN_NAME), &chain, NULL) < 0 || archive_chain_worn(chain, directory)) {
		archive_chain_free(chain);
		assert_int_equal(archive_chain_new(&chain, NULL), 0);
	}
	assert_int_equal(archive_create(path_of(name), true, NULL, &w, NULL), 0);
	assert_int_equal(archive_use_chain(w, chain, name, NULL), 0);
	assert_int_equal(archive_restart(w, NULL), 0);
	assert_int_equal(archive_put(w, ARCHIVE_HEAD, 0, 0, "head", 4, NULL), 0);
	if (defer)
		archive_defer(w, 64u << 20);
	for (unsigned i = 0; i < PAGES; i++) {
		if (i % 64 == 0) {
			memset(chunk + len, (int)i, HEAD_BYTES);
			len += HEAD_BYTES;
			spans[n++] = (struct archive_span){ (uint32_t)len, MIN(64u, PAGES - i) };
		}
		memcpy(chunk + len, memory[i * step % PAGES], ARCHIVE_PAGE_BYTES);
		len += ARCHIVE_PAGE_BYTES;
	}
	assert_int_equal(archive_put_pages(w, 7, chunk, len, spans, n, NULL), 0);
	assert_int_equal(archive_put(w, ARCHIVE_SUMMARY, 0, 0, "summary", 7, NULL), 0);
	assert_int_equal(archive_seal(w, NULL), 0);
	assert_int_equal(archive_publish(w, NULL), 0);
	archive_chain_grow(w);
	assert_int_equal(archive_chain_save(chain, path_of(ARCHIVE_CHAIN_NAME), NULL), 0);
	bytes = archive_file_bytes(w);
	archive_discard(w, false);
	archive_chain_free(chain);
	return bytes;
}

/* What of memory an image has; 0, or the error. */
static int read_image(const char *name, unsigned step, struct err *e)
{
	struct archive_reader *r = NULL;
	struct archive_record record;
	int ret = archive_open(path_of(name), -1, NULL, &r, e), records = 0;

	for (int pass = 0; pass < 2 && ret == 0; pass++) {
		while ((ret = archive_next(r, true, &record, e)) > 0) {
			records++;
			if (record.kind != ARCHIVE_PAGES)
				continue;
			assert_int_equal(record.stream, 7);
			assert_int_equal(record.type, 0);
			for (unsigned i = 0, at = 0; i < PAGES; i++) {
				if (i % 64 == 0) {
					assert_int_equal(record.data[at], (uint8_t)i);
					at += HEAD_BYTES;
				}
				assert_memory_equal(record.data + at, memory[i * step % PAGES], ARCHIVE_PAGE_BYTES);
				at += ARCHIVE_PAGE_BYTES;
				assert_true(at <= record.len);
			}
		}
		if (ret == 0)
			ret = archive_rewind(r, e);
	}
	if (ret == 0)
		assert_int_equal(records, 6);
	archive_close(r);
	return ret;
}

static void assert_refused(const char *name, const char *why)
{
	struct err e = ERR_INIT;

	assert_true(read_image(name, 1, &e) < 0);
	if (!strstr(e.message, why))
		fail_msg("\"%s\" is not in: %s", why, e.message);
}

static void test_chain(void **state)
{
	uint64_t whole, less;

	(void)state;
	begin();
	whole = write_image("a", 1, false);
	assert_true(whole > PAGES * ARCHIVE_PAGE_BYTES / 8);
	assert_int_equal(read_image("a", 1, NULL), 0);
	change(5, 1000);
	change(6, 1001);
	change(299, 1002);
	less = write_image("b", 1, true);
	assert_true(less < whole / 20);
	assert_int_equal(read_image("b", 1, NULL), 0);
	/* in another order, with something that is in the first, something in the second, and something new */
	change(100, 1003);
	less = write_image("c", 7, false);
	assert_true(less < whole / 10);
	assert_int_equal(read_image("c", 7, NULL), 0);
	/* nothing is new */
	less = write_image("d", 1, false);
	assert_true(less < 8192);
	assert_int_equal(read_image("d", 1, NULL), 0);
	end();
}

static void flip(const char *name, off_t at)
{
	int fd = open(path_of(name), O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static void test_refused(void **state)
{
	struct stat st;

	(void)state;
	begin();
	write_image("a", 1, false);
	change(1, 2000);
	write_image("b", 1, false);
	change(2, 2001);
	write_image("c", 1, false);
	assert_int_equal(read_image("c", 1, NULL), 0);
	rename(path_of("b"), path_of("hidden"));
	assert_refused("c", "new since b: it is not there");
	rename(path_of("hidden"), path_of("b"));
	stat(path_of("a"), &st);
	flip("a", st.st_size / 2);
	assert_refused("c", "new since a: it has been altered since");
	flip("a", st.st_size / 2);
	truncate(path_of("a"), st.st_size - 100);
	assert_refused("c", "new since a: it has");
	end();

	/* two chains of the same history: an image of the other one is not taken for it */
	begin();
	write_image("a", 1, false);
	change(1, 2000);
	write_image("b", 1, false);
	rename(path_of("a"), path_of("first"));
	unlink(path_of(ARCHIVE_CHAIN_NAME));
	change(1, 2);
	write_image("a", 1, false);
	change(1, 2000);
	assert_refused("b", "new since a: it ");
	rename(path_of("first"), path_of("a"));
	assert_int_equal(read_image("b", 1, NULL), 0);
	end();
}

/* A second record that says what nobody would write, with the right checksum. */
static void test_forged(void **state)
{
	struct {
		struct archive_links_head head;
		struct archive_link link[2];
	} all;

	(void)state;
	for (int i = 0; i < 6; i++) {
		struct archive_parents *p = NULL;
		size_t len = sizeof(all);

		memset(&all, 0, sizeof(all));
		all.head.n = 2;
		memset(all.head.id, 9, sizeof(all.head.id));
		memset(all.link[0].id, 1, sizeof(all.link[0].id));
		memset(all.link[1].id, 2, sizeof(all.link[1].id));
		strcpy(all.link[0].name, "a");
		strcpy(all.link[1].name, i == 1 ? "../a" : i == 2 ? ".hidden" : i == 3 ? "a" : "b");
		if (i == 4) /* itself */
			memcpy(all.link[1].id, all.head.id, sizeof(all.head.id));
		if (i == 5)
			len--;
		assert_int_equal(parents_decode((const uint8_t *)&all, len, &p, NULL), i ? -EBADMSG : 0);
		parents_free(p);
	}
}

/* A whole one again: when the chain is long, when what was new is as much as a whole one, and when the index or an image has gone. */
static void test_renewed(void **state)
{
	struct archive_chain *c = NULL;
	uint64_t whole;
	char name[8];

	(void)state;
	begin();
	whole = write_image("00", 1, false);
	for (unsigned i = 1; i <= ARCHIVE_LINKS_MAX; i++) {
		uint64_t bytes;

		change(i, 5000 + i);
		snprintf(name, sizeof(name), "%02u", i);
		bytes = write_image(name, 1, false);
		assert_int_equal(bytes > whole / 2, i == ARCHIVE_LINKS_MAX);
		assert_int_equal(read_image(name, 1, NULL), 0);
	}
	for (unsigned i = 0; i < PAGES; i++)
		change(i, 10000 + i);
	assert_true(write_image("19", 1, false) > whole / 2);
	for (unsigned i = 0; i < 50; i++)
		change(i, 20000 + i);
	write_image("20", 1, false);
	assert_int_equal(archive_chain_load(path_of(ARCHIVE_CHAIN_NAME), &c, NULL), 0);
	assert_non_null(archive_chain_worn(c, NULL));
	assert_string_equal(archive_chain_worn(c, NULL), "what was new since the last whole one is as much as that one");
	archive_chain_free(c);
	assert_true(write_image("21", 1, false) > whole / 2);
	assert_true(write_image("22", 1, false) < whole / 10);
	unlink(path_of("22"));
	assert_true(write_image("23", 1, false) > whole / 2);
	flip(ARCHIVE_CHAIN_NAME, 4000);
	assert_int_equal(archive_chain_load(path_of(ARCHIVE_CHAIN_NAME), &c, NULL), -EBADMSG);
	assert_true(write_image("24", 1, false) > whole / 2);
	end();
}

static void test_directory(void **state)
{
	char name[ARCHIVE_LINK_NAME_MAX], path[PATH_MAX];

	(void)state;
	begin();
	assert_int_equal(archive_newest(directory, path, NULL), -ENOENT);
	assert_int_equal(archive_next_name(directory, name, NULL), 0);
	assert_string_equal(name, "00000001.img");
	write_image("00000041.img", 1, false);
	write_image("x.img", 1, false);
	assert_int_equal(archive_next_name(directory, name, NULL), 0);
	assert_string_equal(name, "00000042.img");
	assert_int_equal(archive_newest(directory, path, NULL), 0);
	assert_string_equal(strrchr(path, '/'), "/00000041.img");
	assert_int_equal(archive_newest("/nowhere", path, NULL), 0);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chain),	cmocka_unit_test(test_refused),	  cmocka_unit_test(test_forged),
		cmocka_unit_test(test_renewed), cmocka_unit_test(test_directory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
