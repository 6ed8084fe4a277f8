// SPDX-License-Identifier: GPL-2.0-or-later
/* test_sim.c - the simulator: what queueing theory knows, and what the policies are held to */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/util.h"
#include "sim/sim.h"

static struct sim_result run(enum sim_scheduler scheduler, double load, double seconds)
{
	struct sim_config c;
	struct sim_result r;
	struct err e = ERR_INIT;

	sim_config_init(&c);
	c.scheduler = scheduler;
	c.load = load;
	c.end_s = seconds;
	c.lifetime_max_s = 100; /* what is longer does not come to an end in this time */
	if (sim_run(&c, &r, &e) < 0)
		fail_msg("%s", e.message);
	return r;
}

/* Mean slowdown under processor sharing is 1 / (1 - load), whatever the lifetimes (Kleinrock 1976). */
static void test_theory(void **state)
{
	for (int i = 3; i <= 7; i += 2) {
		double load = i / 10.0;
		struct sim_result r = run(SIM_NONE, load, 6000);

		print_message("load %.1f: slowdown %.3f, utilisation %.3f\n", load, r.slowdown_mean, r.utilisation);
		assert_float_equal(r.slowdown_mean, 1 / (1 - load), 0.07 / (1 - load));
		assert_float_equal(r.utilisation, load, 0.03);
	}
}

static void test_policy(void **state)
{
	struct sim_result none = run(SIM_NONE, 0.5, 1200), both = run(SIM_BOTH, 0.5, 1200), best = run(SIM_OMNISCIENT, 0.5, 1200);

	assert_true(best.slowdown_mean < 1.01);
	assert_true(both.slowdown_mean < 1.3 * best.slowdown_mean);
	assert_true(both.slowdown_mean < 0.6 * none.slowdown_mean);
	assert_true(both.moves > 0);
	assert_true(both.messages_node_s < 3);
}

static void test_same_seed_same_result(void **state)
{
	struct sim_result a = run(SIM_BOTH, 0.7, 600), b = run(SIM_BOTH, 0.7, 600);

	a.wall_s = b.wall_s = 0;
	assert_memory_equal(&a, &b, sizeof(a));
}

static void test_failure(void **state)
{
	struct sim_config c;
	struct sim_result r;

	sim_config_init(&c);
	c.end_s = 600;
	c.lifetime_max_s = 50;
	c.fail_part = 0.3;
	c.fail_at_s = 300;
	c.load = 0.4;
	assert_int_equal(sim_run(&c, &r, NULL), 0);
	print_message("no dead node counts after %.1f s\n", r.dead_known_s);
	assert_true(r.dead_known_s > 0 && r.dead_known_s <= c.policy.age_max_s + 2);
	assert_true(r.jobs > 1000);
}

static void test_wrong(void **state)
{
	struct sim_config c;
	struct sim_result r;
	struct err e = ERR_INIT;

	sim_config_init(&c);
	c.load = 1.5;
	assert_true(sim_run(&c, &r, &e) < 0);
	assert_non_null(strstr(e.message, "load"));
	sim_config_init(&c);
	c.trace = "/dev/null/none";
	assert_true(sim_run(&c, &r, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_theory),  cmocka_unit_test(test_policy), cmocka_unit_test(test_same_seed_same_result),
		cmocka_unit_test(test_failure), cmocka_unit_test(test_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
