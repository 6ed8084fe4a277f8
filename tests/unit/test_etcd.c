// SPDX-License-Identifier: GPL-2.0-or-later
/* test_etcd.c - what is said to etcd and what it answers, word for word; and membership without a store. The real etcd: tests/e2e/test_gossip.py */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "cluster/etcd_wire.h"

static void assert_says(json_t *o, const char *text)
{
	char *said = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);

	assert_string_equal(said, text);
	free(said);
	json_decref(o);
}

static void test_questions(void **state)
{
	assert_says(etcd_make_grant(10), "{\"TTL\":\"10\"}");
	assert_says(etcd_make_lease(UINT64_MAX), "{\"ID\":\"18446744073709551615\"}");
	assert_says(etcd_make_put("a", "bc", 7), "{\"key\":\"YQ==\",\"lease\":\"7\",\"value\":\"YmM=\"}");
	assert_says(etcd_make_range("/g/", true), "{\"key\":\"L2cv\",\"range_end\":\"L2cw\"}"); /* "/g0" */
	assert_says(etcd_make_range("abc", false), "{\"key\":\"YWJj\"}");
	assert_says(etcd_make_swap("a", 5, "b"), "{\"compare\":[{\"key\":\"YQ==\",\"mod_revision\":\"5\",\"result\":\"EQUAL\",\"target\":\"MOD\"}],"
						 "\"success\":[{\"requestPut\":{\"key\":\"YQ==\",\"value\":\"Yg==\"}}]}");
	assert_says(etcd_make_swap_if("a", 5, "b", "c", 0), "{\"compare\":[{\"key\":\"YQ==\",\"mod_revision\":\"5\",\"result\":\"EQUAL\",\"target\":\"MOD\"},"
		    "{\"key\":\"Yw==\",\"mod_revision\":\"0\",\"result\":\"EQUAL\",\"target\":\"MOD\"}],\"success\":[{\"requestPut\":{\"key\":\"YQ==\",\"value\":\"Yg==\"}}]}");
	assert_says(etcd_make_swap("a", 0, NULL), "{\"compare\":[{\"key\":\"YQ==\",\"mod_revision\":\"0\",\"result\":\"EQUAL\",\"target\":\"MOD\"}],"
						  "\"success\":[{\"requestDeleteRange\":{\"key\":\"YQ==\"}}]}");
}

/* {"kvs":[{"key":K,"value":V,"mod_revision":"9"}]} */
static json_t *answer(const char *key, const char *value)
{
	json_t *pair = etcd_make_put(key, value, 0);

	json_object_set_new(pair, "mod_revision", json_string("9"));
	return json_pack("{s:{s:s}, s:[o]}", "header", "revision", "12", "kvs", pair);
}

static size_t nodes_of(const char *key, const char *value, struct membership_node *ret)
{
	json_t *said = answer(key, value);
	struct membership_node *nodes;
	size_t n = 0;

	assert_int_equal(etcd_read_nodes(said, "/g/nodes/", &nodes, &n, NULL), 0);
	if (n)
		*ret = nodes[0];
	free(nodes);
	json_decref(said);
	return n;
}

static void test_nodes(void **state)
{
	static const char *const wrong[] = { "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:+1", "10.0.0:1", "", "10.0.0.1:1 " };
	struct membership_node self = { "n1", { 10, 66, 0, 1 }, 4470, "0123abcd", 0 }, got;
	char *value = etcd_node_value(&self);

	assert_int_equal(nodes_of("/g/nodes/n1", value, &got), 1);
	assert_string_equal(got.name, self.name);
	assert_memory_equal(got.address, self.address, sizeof(got.address));
	assert_int_equal(got.port, self.port);
	assert_string_equal(got.run, self.run);
	assert_int_equal(got.revision, 9);
	assert_int_equal(nodes_of("/g/nodes/n1", "{\"address\":\"10.66.0.1:1\",\"run\":\"../x\"}", &got), 1);
	assert_string_equal(got.run, "");
	assert_int_equal(nodes_of("/g/nodes/n 1", value, &got), 0);
	assert_int_equal(nodes_of("/g/nodes/", value, &got), 0);
	assert_int_equal(nodes_of("/other/n1", value, &got), 0);
	assert_int_equal(nodes_of("/g/nodes/n1", "10.66.0.1:4470", &got), 0);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		char text[80];

		snprintf(text, sizeof(text), "{\"address\":\"%s\"}", wrong[i]);
		assert_int_equal(nodes_of("/g/nodes/n1", text, &got), 0);
	}
	free(value);
}

static void test_records(void **state)
{
	struct membership_record record = { .unit = "n1:77", .owner = "n2", .moves = 3, .to = "n3" }, *got;
	char *value = etcd_record_value(&record);
	json_t *said = answer("/g/units/n1:77", value), *wrong = answer("/g/units/n1:77", "{\"owner\":7}");
	size_t n;

	assert_int_equal(etcd_read_records(said, "/g/units/", &got, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_string_equal(got[0].unit, "n1:77");
	assert_string_equal(got[0].owner, "n2");
	assert_int_equal(got[0].moves, 3);
	assert_string_equal(got[0].to, "n3");
	assert_int_equal(got[0].fence, 9);
	assert_int_equal(etcd_read_records(wrong, "/g/units/", &got, &n, NULL), -EPROTO);
	json_decref(said);
	json_decref(wrong);
	free(got);
	free(value);
}

static void test_answers(void **state)
{
	json_t *granted = json_pack("{s:s, s:s}", "ID", "77", "TTL", "10"), *alive = json_pack("{s:{s:s, s:s}}", "result", "ID", "77", "TTL", "10");
	json_t *expired = json_pack("{s:{s:s}}", "result", "ID", "77"), *done = json_pack("{s:{s:s}, s:b}", "header", "revision", "13", "succeeded", 1);
	json_t *stale = json_pack("{s:{s:s}}", "header", "revision", "13"), *wrong = json_pack("{s:s}", "succeeded", "yes");
	uint64_t n;
	bool yes;

	assert_int_equal(etcd_read_lease(granted, false, &n, NULL), 0);
	assert_int_equal(n, 77);
	assert_int_equal(etcd_read_lease(alive, true, &n, NULL), 0);
	assert_int_equal(n, 77);
	assert_int_equal(etcd_read_lease(expired, true, &n, NULL), 0);
	assert_int_equal(n, 0);
	assert_int_equal(etcd_read_lease(granted, true, &n, NULL), -EPROTO);
	assert_int_equal(etcd_read_swap(done, &yes, &n, NULL), 0);
	assert_true(yes);
	assert_int_equal(n, 13);
	assert_int_equal(etcd_read_swap(stale, &yes, &n, NULL), 0);
	assert_false(yes);
	assert_int_equal(etcd_read_swap(wrong, &yes, &n, NULL), -EPROTO);
	json_decref(granted);
	json_decref(alive);
	json_decref(expired);
	json_decref(done);
	json_decref(stale);
	json_decref(wrong);
}

static void test_static(void **state)
{
	const struct membership_node listed[] = { { "n1", { 10, 0, 0, 1 }, 4470 }, { "n2", { 10, 0, 0, 2 }, 4470 } };
	struct membership_record record = { .unit = "n1:7", .owner = "n2" };
	struct membership_node *nodes;
	struct membership *m;
	size_t n;

	assert_int_equal(membership_open_static(&m, listed, 2, NULL), 0);
	assert_int_equal(membership_keep(m, NULL), 0);
	assert_int_equal(membership_list(m, &nodes, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_string_equal(nodes[1].name, "n2");
	assert_int_equal(membership_own(m, &record, NULL), 0);
	assert_int_equal(record.fence, 1);
	assert_int_equal(membership_owner(m, "n1:7", &record, NULL), -ENOENT);
	free(nodes);
	membership_close(m);
}

/* Nobody listens there: an error with words, soon, from each server that was asked. */
static void test_nobody(void **state)
{
	struct membership_etcd etcd = { .servers = { "http://127.0.0.1:9", "http://127.0.0.1:1" }, .n_servers = 2, .prefix = "/godwit/", .lease_s = 10 };
	struct membership_node self = { "n1", { 10, 0, 0, 1 }, 4470 };
	struct err e = ERR_INIT;
	struct membership *m;

	assert_int_equal(membership_open_etcd(&m, &etcd, &self, &e), 0);
	assert_int_equal(membership_keep(m, &e), -ENOTCONN);
	assert_non_null(strstr(e.message, "http://127.0.0.1:1"));
	membership_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_questions), cmocka_unit_test(test_nodes),  cmocka_unit_test(test_records),
		cmocka_unit_test(test_answers),   cmocka_unit_test(test_static), cmocka_unit_test(test_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
