// SPDX-License-Identifier: GPL-2.0-or-later
/* test_config.c - godwit.conf, clients' requests, durations, the registry of units */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/util.h"
#include "cli/cli.h"
#include "daemon/config.h"
#include "daemon/request.h"
#include "migrate/outcome.h"
#include "migrate/registry.h"

static void test_defaults(void **state)
{
	struct config c;
	struct err e = ERR_INIT;

	config_init(&c);
	assert_int_equal(config_load(&c, "/nonexistent/godwit.conf", 0, &e), 0);
	assert_true(hello_name_valid(c.name));
	assert_int_equal(ntohs(c.listen.sin_port), 4470);
	assert_int_equal(c.n_nodes, 0);
	assert_int_equal(config_load(&c, "/nonexistent/godwit.conf", 1, &e), -ENOENT);
	config_free(&c);
}

static void test_full_file(void **state)
{
	struct config c;
	struct err e = ERR_INIT;

	config_init(&c);
	assert_int_equal(config_parse(&c, "[node]\nname = n1\nlisten = 10.66.0.1\nport = 4471\nspeed = 1.5\ndrain_at_stop = yes\ndrain_timeout_ms = 5000\nlabels = gpu zone=east\narch = aarch64\nemulator = /usr/bin/qemu-aarch64-static\n[access]\narriving_users = 1000-59999, 65534\narriving_capabilities = cap_net_raw sys_nice\n[nodes]\nn1 = 10.66.0.1:4471\nn2 = 10.66.0.2\n", "f", &e), 0);
	assert_string_equal(c.name, "n1");
	assert_int_equal(c.listen.sin_addr.s_addr, inet_addr("10.66.0.1"));
	assert_int_equal(ntohs(c.listen.sin_port), 4471);
	assert_float_equal(c.speed, 1.5, 0);
	assert_string_equal(c.arch, "aarch64");
	assert_string_equal(c.emulator, "/usr/bin/qemu-aarch64-static");
	assert_true(c.drain_at_stop);
	assert_int_equal(c.drain_timeout_ms, 5000);
	assert_string_equal(c.labels, "gpu zone=east");
	assert_int_equal(c.arriving.users.n, 2);
	assert_int_equal(c.arriving.users.v[0].to, 59999);
	assert_int_equal(c.arriving.users.v[1].from, 65534);
	assert_int_equal(c.arriving.groups.n, 0);
	assert_true(c.arriving.has_capabilities && c.arriving.capabilities == (1ull << 13 | 1ull << 23));
	assert_int_equal(c.n_nodes, 2);
	assert_int_equal(ntohs(config_find(&c, "n1")->address.sin_port), 4471);
	assert_int_equal(ntohs(config_find(&c, "n2")->address.sin_port), 4470);
	assert_null(config_find(&c, "n3"));
	config_free(&c);
}

static void wrong_config(const char *text, const char *words)
{
	struct config c;
	struct err e = ERR_INIT;

	config_init(&c);
	assert_int_equal(config_parse(&c, text, "godwit.conf", &e), -EINVAL);
	if (!strstr(e.message, words))
		fail_msg("'%s' lacks '%s'", e.message, words);
	config_free(&c);
}

static void test_config_errors(void **state)
{
	wrong_config("[node]\nnmae = n1\n", "godwit.conf:2: unknown key 'nmae'");
	wrong_config("[node]\nport = 0\n", "port");
	wrong_config("[node]\nspeed = fast\n", "speed 'fast'");
	wrong_config("[node]\nspeed = 0\n", "speed '0'");
	wrong_config("[node]\narch = AMD64\n", "arch 'AMD64'");
	wrong_config("[node]\nemulator = qemu\n", "emulator 'qemu'");
	wrong_config("[node]\nworkstation = 1\n", "workstation '1'");
	wrong_config("[node]\nowner_idle_ms = 1\n", "owner_idle_ms '1'");
	wrong_config("[node]\ndrain_at_stop = maybe\n", "drain_at_stop 'maybe'");
	wrong_config("[node]\ndrain_timeout_ms = 10\n", "drain_timeout_ms '10'");
	wrong_config("[node]\nlabels = a  b\n", "labels 'a  b'");
	wrong_config("[node]\nlabels = a=\n", "labels 'a='");
	wrong_config("[node]\nlabels = 7a\n", "labels '7a'");
	wrong_config("[node]\nname = a/b\n", "a/b");
	wrong_config("[nodes]\na = 1.2.3\n", "IPv4");
	wrong_config("[nodes]\na = 1.2.3.4\n\na = 1.2.3.4\n", "godwit.conf:4: node 'a' is there twice");
	wrong_config("[balance]\ntransfer = both\n", "transfer 'both'");
	wrong_config("[balance]\nlocation = best\n", "location 'best'");
	wrong_config("[balance]\non = yes\n", "unknown key 'on'");
	wrong_config("[access]\nusers = some\n", "users 'some': use yes or no");
	wrong_config("[access]\ngroup = there-is-no-such-group\n", "there is no such group");
	wrong_config("[access]\nuser = yes\n", "unknown key 'user'");
	wrong_config("[access]\narriving_users = 5-3\n", "arriving_users: '5-3'");
	wrong_config("[access]\narriving_users = 4294967295\n", "use 1 to 32 numbers");
	wrong_config("[access]\narriving_groups = 1000-\n", "arriving_groups: '1000-'");
	wrong_config("[access]\narriving_groups =\n", "arriving_groups");
	wrong_config("[access]\narriving_capabilities = cap_net_raw cap_fly\n", "'cap_fly' is no capability");
	wrong_config("[custer]\na = b\n", "unknown section [custer]");
	wrong_config("[cluster]\nseed = 10.0.0\n", "10.0.0");
	wrong_config("[cluster]\nkey_file = key\n", "key_file 'key'");
	wrong_config("[node]\nbusy = mem<\n", "busy: ");
	wrong_config("[api]\nenabled = on\n", "enabled 'on': use yes or no");
	wrong_config("[api]\nport = 80\n", "unknown key 'port' in [api]");
	wrong_config("[tls]\nca = ca.pem\n", "ca 'ca.pem': use a path that begins with /");
	wrong_config("[tls]\ncert = /a\n", "unknown key 'cert' in [tls]");
	wrong_config("[node]\nhello\n", "godwit.conf:2:");
}

static int parse(const char *text, struct request *ret, struct err *e)
{
	return request_parse(text, strlen(text), ret, e);
}

static void test_request(void **state)
{
	struct request r;
	struct err e = ERR_INIT;

	assert_int_equal(parse("{\"verb\":\"migrate\",\"pid\":412,\"host\":\"n2\",\"strategy\":\"hybrid\",\"timeout_ms\":500}", &r, &e), 0);
	assert_int_equal(r.verb, VERB_MIGRATE);
	assert_int_equal(r.pid, 412);
	assert_string_equal(r.host, "n2");
	assert_int_equal(r.strategy, STRATEGY_HYBRID);
	assert_int_equal(r.timeout_ms, 500);
	assert_int_equal(parse("{\"verb\":\"check\"}", &r, &e), 0);
	assert_int_equal(r.pid, 0);
}

static void test_request_errors(void **state)
{
	static const char *const wrong[] = {
		"", "{", "[]", "{}", "{\"verb\":1}", "{\"verb\":\"fly\"}", "{\"verb\":\"migrate\"}", "{\"verb\":\"migrate\",\"pid\":0,\"host\":\"n2\"}",
		"{\"verb\":\"migrate\",\"pid\":1}", "{\"verb\":\"migrate\",\"pid\":1,\"host\":\"a b\"}", "{\"verb\":\"check\",\"pid\":\"1\"}",
		"{\"verb\":\"check\",\"pid\":4294967297}", "{\"verb\":\"migrate\",\"pid\":1,\"host\":\"n2\",\"strategy\":\"warp\"}",
		"{\"verb\":\"migrate\",\"pid\":1,\"host\":\"n2\",\"timeout_ms\":-1}", "{\"verb\":\"ps\",\"verb\":\"ps\"}",
	};
	struct request r;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct err e = ERR_INIT;

		if (parse(wrong[i], &r, &e) != -EINVAL || !e.message[0])
			fail_msg("taken: %s", wrong[i]);
	}
}

static void test_duration(void **state)
{
	static const char *const wrong[] = { "", "x", "-1", "1 s", "10d", "0x10", "nan", "inf", "1e9", "99999h" };
	unsigned ms = 0;
	size_t i;

	assert_int_equal(duration_parse("3", &ms, NULL), 0);
	assert_int_equal(ms, 3000);
	assert_int_equal(duration_parse("1.5", &ms, NULL), 0);
	assert_int_equal(ms, 1500);
	assert_int_equal(duration_parse("500ms", &ms, NULL), 0);
	assert_int_equal(ms, 500);
	assert_int_equal(duration_parse("10s", &ms, NULL), 0);
	assert_int_equal(ms, 10000);
	assert_int_equal(duration_parse("2m", &ms, NULL), 0);
	assert_int_equal(ms, 120000);
	for (i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(duration_parse(wrong[i], &ms, NULL), -EINVAL);
}

static void test_numbers(void **state)
{
	char text[32];
	int pid;

	count_text(1234567, text);
	assert_string_equal(text, "1,234,567");
	count_text(-123, text);
	assert_string_equal(text, "-123");
	bytes_text(1536, text);
	assert_string_equal(text, "1.5 KiB");
	assert_int_equal(pid_parse("12", &pid, NULL), 0);
	assert_int_equal(pid_parse("12a", &pid, NULL), -EINVAL);
	assert_int_equal(pid_parse("0", &pid, NULL), -EINVAL);
}

static void test_registry(void **state)
{
	char directory[] = "/tmp/godwit-registry-XXXXXX", units[64];
	struct registry_entry entry = { .unit = "n1:77", .from = "n1", .strategy = "freeze-free", .freeze_us = 150, .moves = 3 }, got;
	struct err e = ERR_INIT;
	pid_t child = fork();

	if (!child)
		for (;;)
			pause();
	assert_non_null(mkdtemp(directory));
	snprintf(units, sizeof(units), "%s/units", directory);
	registry_use_directory(units);
	assert_int_equal(registry_list(NULL, NULL, &e), 0);
	entry.pid = child;
	assert_int_equal(registry_add(&entry, &e), 0);
	assert_int_equal(registry_lookup(child, &got, &e), 0);
	assert_string_equal(got.unit, "n1:77");
	assert_int_equal(got.moves, 3);
	assert_int_equal(got.freeze_us, 150);
	assert_true(got.since > 0);
	assert_int_equal(registry_lookup(getpid(), &got, &e), -ENOENT);
	assert_int_equal(registry_list(NULL, NULL, &e), 1);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_int_equal(registry_list(NULL, NULL, &e), 0); /* the dead one's entry is gone */
	assert_int_equal(registry_add(&entry, &e), -ESRCH);
	assert_int_equal(registry_remove(child, &e), 0);
	assert_int_equal(rmdir(units), 0);
	assert_int_equal(rmdir(directory), 0);
}

/* Two days ago. */
static void make_old(const char *directory)
{
	char command[300];

	snprintf(command, sizeof(command), "touch -d '2 days ago' %s/*", directory);
	assert_int_equal(system(command), 0);
}

/* The answers of outcome.h's table, from a worker that lives and one that has died. */
static void test_outcome(void **state)
{
	char directory[] = "/tmp/godwit-outcome-XXXXXX", records[64];
	static const uint8_t pending[HELLO_MIG_ID_BYTES] = { 1 }, committed[HELLO_MIG_ID_BYTES] = { 2 }, unknown[HELLO_MIG_ID_BYTES] = { 3 };
	enum outcome outcome;
	struct err e = ERR_INIT;
	int ready[2];
	pid_t child;
	char byte;

	assert_non_null(mkdtemp(directory));
	snprintf(records, sizeof(records), "%s/outcomes", directory);
	outcome_use_directory(records);
	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (!child) {
		bool good = outcome_begin(pending, NULL) >= 0 && outcome_commit(outcome_begin(committed, NULL), NULL) >= 0;

		if (write(ready[1], good ? "y" : "n", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(byte, 'y');
	assert_int_equal(outcome_query(pending, &outcome, &e), 0);
	assert_int_equal(outcome, OUTCOME_PENDING);
	assert_int_equal(outcome_begin(pending, &e), -EEXIST);
	outcome_clean();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_int_equal(outcome_query(pending, &outcome, &e), 0);
	assert_int_equal(outcome, OUTCOME_ABORTED);
	assert_int_equal(outcome_query(committed, &outcome, &e), 0);
	assert_int_equal(outcome, OUTCOME_COMMITTED);
	assert_int_equal(outcome_query(unknown, &outcome, &e), 0);
	assert_int_equal(outcome, OUTCOME_UNKNOWN);
	make_old(records);
	outcome_clean();
	assert_int_equal(outcome_query(pending, &outcome, &e), 0);
	assert_int_equal(outcome, OUTCOME_UNKNOWN);
	assert_int_equal(outcome_query(committed, &outcome, &e), 0);
	assert_int_equal(outcome, OUTCOME_COMMITTED);
	outcome_forget(committed, -1);
	assert_int_equal(rmdir(records), 0);
	assert_int_equal(rmdir(directory), 0);
	close(ready[0]);
	close(ready[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),       cmocka_unit_test(test_full_file), cmocka_unit_test(test_config_errors),
		cmocka_unit_test(test_request),        cmocka_unit_test(test_request_errors), cmocka_unit_test(test_duration),
		cmocka_unit_test(test_numbers),        cmocka_unit_test(test_registry), cmocka_unit_test(test_outcome),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
