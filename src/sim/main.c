// SPDX-License-Identifier: GPL-2.0-or-later
/* main.c - godwit-sim: experiments on a simulated cluster (godwit-sim(1)) */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "sim/sim.h"
#include "version.h"

#define SERIES_MAX 16
#define POINTS_MAX SIM_SAMPLES

static const char usage[] =
	"usage: godwit-sim EXPERIMENT [options]\n"
	"Runs Godwit's gossip and placement policies over a simulated cluster, and prints a table.\n"
	"\n"
	"experiments\n"
	"  schedulers   no balancing, placement, migration, both, and an omniscient scheduler\n"
	"  policies     who begins a move, and how its destination is chosen\n"
	"  load         slowdown against the load offered\n"
	"  overhead     speed-up against the overhead of a migration\n"
	"  age          age of information and messages against the number of nodes\n"
	"  failure      many nodes die at once\n"
	"options\n"
	"  --nodes N           default 100                --load PART        of all CPUs; default 0.5\n"
	"  --cores N           of a node; default 1       --spread X         speeds from 1/X to X; default 1\n"
	"  --memory MIB        of a node; default 16384   --job-memory MIB   median of a job; default 64\n"
	"  --seconds S         default 3600               --warm S           not counted; default 300\n"
	"  --hot PART          of the jobs arrive at a tenth of the nodes; default 0.1: no difference\n"
	"  --lifetime S        the longest CPU time of a job; default 1000\n"
	"  --freeze S          of a move; default 0.001   --fail PART        of the nodes; default 0.3 in `failure`\n"
	"  --table N           entries that a node keeps; default 64\n"
	"  --trace FILE        recorded jobs: seconds, CPU seconds and MiB a line\n"
	"  --seed N            default 1                  --json FILE        all results\n"
	"  --plot FILE.svg     the plot of the experiment\n"
	"  --version, --help\n";

struct experiment {
	struct sim_config base;
	const char *json_path, *plot_path;
	char names[SERIES_MAX][32];
	struct sim_result results[SERIES_MAX];
	double x[SERIES_MAX];
	size_t n;
};

/* Runs one, and says on stderr what it does when somebody looks. */
static int run(struct experiment *x, const struct sim_config *c, const char *name, double at, struct err *e)
{
	int ret;

	if (isatty(STDERR_FILENO))
		fprintf(stderr, "%s ...\n", name);
	snprintf(x->names[x->n], sizeof(x->names[x->n]), "%s", name);
	x->x[x->n] = at;
	ret = sim_run(c, &x->results[x->n], e);
	x->n += ret == 0;
	return ret;
}

static int plot(const struct experiment *x, const char *title, const char *x_label, const char *y_label, const char *const *names, const double *at,
		const double *const *y, size_t n_series, size_t n_points, bool log_x, struct err *e)
{
	return x->plot_path ? report_svg(x->plot_path, title, x_label, y_label, names, at, y, n_series, n_points, log_x, e) : 0;
}

/* The slowdown over time of all runs. */
static int plot_series(const struct experiment *x, const char *title, struct err *e)
{
	const char *names[SERIES_MAX];
	const double *y[SERIES_MAX];
	double at[SIM_SAMPLES];

	for (size_t i = 0; i < SIM_SAMPLES; i++)
		at[i] = x->base.end_s * ((double)i + 0.5) / SIM_SAMPLES;
	for (size_t i = 0; i < x->n; i++) {
		names[i] = x->names[i];
		y[i] = x->results[i].series_slowdown;
	}
	return plot(x, title, "seconds", "mean slowdown of the jobs that end", names, at, y, x->n, SIM_SAMPLES, false, e);
}

static void print(const struct experiment *x, const char *title)
{
	const char *names[SERIES_MAX];

	for (size_t i = 0; i < x->n; i++)
		names[i] = x->names[i];
	report_table(title, names, x->results, x->n);
}

static int schedulers(struct experiment *x, struct err *e)
{
	int ret = 0;

	for (int s = 0; ret == 0 && s < SIM_SCHEDULERS; s++) {
		struct sim_config c = x->base;

		c.scheduler = (enum sim_scheduler)s;
		ret = run(x, &c, sim_scheduler_name(c.scheduler), s, e);
	}
	if (ret < 0)
		return ret;
	print(x, "slowdown by scheduler");
	printf("both: %.2f times the omniscient one, %.0f %% below none\n", x->results[SIM_BOTH].slowdown_mean / x->results[SIM_OMNISCIENT].slowdown_mean,
	       100 * (1 - x->results[SIM_BOTH].slowdown_mean / x->results[SIM_NONE].slowdown_mean));
	return plot_series(x, "slowdown over time", e);
}

static int policies(struct experiment *x, struct err *e)
{
	static const char *const transfers[] = { "sender", "receiver", "symmetric" }, *const locations[] = { "opportunity", "two choices", "best fit", "random" };
	int ret = 0;

	for (int t = 0; t < 3; t++)
		for (int l = 0; ret == 0 && l < 4; l++) {
			struct sim_config c = x->base;
			char name[32];

			c.policy.transfer = (enum policy_transfer)t;
			c.policy.location = (enum policy_location)l;
			snprintf(name, sizeof(name), "%s, %s", transfers[t], locations[l]);
			ret = run(x, &c, name, t * 4 + l, e);
		}
	if (ret < 0)
		return ret;
	print(x, "slowdown by policy");
	return plot_series(x, "slowdown over time, by policy", e);
}

static int load(struct experiment *x, struct err *e)
{
	static const double loads[] = { 0.3, 0.5, 0.7, 0.8, 0.9 };
	static const enum sim_scheduler which[] = { SIM_NONE, SIM_BOTH, SIM_OMNISCIENT };
	const char *names[] = { "none", "both", "omniscient" };
	double y[3][ARRAY_SIZE(loads)];
	const double *const lines[] = { y[0], y[1], y[2] };
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(which); i++)
		for (size_t j = 0; ret == 0 && j < ARRAY_SIZE(loads); j++) {
			struct sim_config c = x->base;
			char name[32];

			c.scheduler = which[i];
			c.load = loads[j];
			snprintf(name, sizeof(name), "%s, load %.1f", names[i], loads[j]);
			ret = run(x, &c, name, loads[j], e);
			y[i][j] = x->results[x->n - (ret == 0)].slowdown_mean;
		}
	if (ret < 0)
		return ret;
	print(x, "slowdown by load");
	return plot(x, "slowdown by load", "offered load", "mean slowdown", names, loads, lines, 3, ARRAY_SIZE(loads), false, e);
}

/* The question of Roush and Campbell: what does a cheaper migration bring? The time that a job stands still is the overhead. */
static int overhead(struct experiment *x, struct err *e)
{
	static const double freezes[] = { 0.001, 0.01, 0.1, 0.3, 1, 3, 10, 30 };
	const char *name = "migration";
	double speedup[ARRAY_SIZE(freezes)] = { 0 };
	const double *const line = speedup;
	struct sim_config c = x->base;
	int ret;

	c.scheduler = SIM_NONE;
	ret = run(x, &c, "no migration", 0, e);
	for (size_t i = 0; ret == 0 && i < ARRAY_SIZE(freezes); i++) {
		char text[32];

		c.scheduler = SIM_MIGRATE;
		c.freeze_s = freezes[i];
		c.policy.cost.move_s = x->base.policy.cost.move_s + freezes[i];
		snprintf(text, sizeof(text), "%g s a move", freezes[i]);
		ret = run(x, &c, text, freezes[i], e);
		speedup[i] = ret < 0 ? 0 : x->results[0].slowdown_mean / x->results[i + 1].slowdown_mean;
	}
	if (ret < 0)
		return ret;
	print(x, "speed-up by the overhead of a migration");
	for (size_t i = 0; i < ARRAY_SIZE(freezes); i++)
		printf("%8g s a move: speed-up %.3f\n", freezes[i], speedup[i]);
	return plot(x, "speed-up by the overhead of a migration", "seconds that a move costs the job", "speed-up over no migration", &name, freezes, &line, 1,
		    ARRAY_SIZE(freezes), true, e);
}

static int age(struct experiment *x, struct err *e)
{
	static const double sizes[] = { 10, 30, 100, 300, 1000, 3000, 10000 };
	const char *names[] = { "mean age, s", "99th percentile, s", "messages a node and second" };
	double y[3][ARRAY_SIZE(sizes)];
	const double *const lines[] = { y[0], y[1], y[2] };
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < ARRAY_SIZE(sizes); i++) {
		struct sim_config c = x->base;
		char name[32];

		c.nodes = (size_t)sizes[i];
		snprintf(name, sizeof(name), "%g nodes", sizes[i]);
		ret = run(x, &c, name, sizes[i], e);
		if (ret < 0)
			break;
		y[0][i] = x->results[i].age_mean_s;
		y[1][i] = x->results[i].age_p99_s;
		y[2][i] = x->results[i].messages_node_s;
	}
	if (ret < 0)
		return ret;
	print(x, "age of information by the number of nodes");
	return plot(x, "age of information by the number of nodes", "nodes", "", names, sizes, lines, 3, ARRAY_SIZE(sizes), true, e);
}

static int failure(struct experiment *x, struct err *e)
{
	struct sim_config c = x->base;
	int ret;

	if (c.fail_part == 0)
		c.fail_part = 0.3;
	c.fail_at_s = (c.warm_s + c.end_s) / 2;
	ret = run(x, &c, "with balancing", 0, e);
	c.scheduler = SIM_NONE;
	if (ret == 0)
		ret = run(x, &c, "without", 1, e);
	if (ret < 0)
		return ret;
	print(x, "a mass failure");
	printf("%.0f %% of the nodes die at %.0f s; nobody counts with a dead one any more after %.1f s; %llu questions went to dead ones\n", 100 * c.fail_part,
	       c.fail_at_s, x->results[0].dead_known_s, (unsigned long long)x->results[0].lost);
	return plot_series(x, "slowdown over time: nodes die", e);
}

static const struct {
	const char *name;
	int (*run)(struct experiment *x, struct err *e);
} experiments[] = {
	{ "schedulers", schedulers }, { "policies", policies }, { "load", load }, { "overhead", overhead }, { "age", age }, { "failure", failure },
};

static int write_json(const struct experiment *x, const char *name, struct err *e)
{
	json_t *runs = json_array(), *all;
	int ret;

	for (size_t i = 0; i < x->n; i++) {
		const struct sim_result *r = &x->results[i];

		json_array_append_new(runs, json_pack("{s:s, s:f, s:I, s:f, s:f, s:f, s:f, s:I, s:f, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "name", x->names[i], "x", x->x[i],
			"jobs", (json_int_t)r->jobs, "slowdown_mean", r->slowdown_mean, "slowdown_p50", r->slowdown_p50, "slowdown_p99", r->slowdown_p99,
			"slowdown_long_mean", r->long_mean, "moves", (json_int_t)r->moves, "moves_a_job", r->moves_a_job, "refused", (json_int_t)r->refused,
			"placed_elsewhere", (json_int_t)r->placed_elsewhere, "utilisation", r->utilisation, "age_mean_s", r->age_mean_s, "age_p99_s", r->age_p99_s,
			"messages_node_s", r->messages_node_s, "dead_known_s", r->dead_known_s, "wall_s", r->wall_s));
	}
	all = json_pack("{s:s, s:I, s:f, s:I, s:f, s:o}", "experiment", name, "nodes", (json_int_t)x->base.nodes, "load", x->base.load, "seed",
			(json_int_t)x->base.seed, "seconds", x->base.end_s, "runs", runs);
	ret = all ? json_dump_file(all, x->json_path, JSON_INDENT(2)) : -1;
	json_decref(all);
	return ret < 0 ? err_sys(e, errno ? -errno : -ENOMEM, "%s", x->json_path) : 0;
}

static int number(const char *name, const char *text, double *ret, struct err *e)
{
	char *end;

	*ret = strtod(text, &end);
	return end == text || *end ? err_set(e, -EINVAL, "--%s: '%.80s' is no number", name, text) : 0;
}

/* Options with a number, and where it goes. */
static int set_number(struct experiment *x, const char *name, double v)
{
	struct sim_config *c = &x->base;
	const struct {
		const char *name;
		double *to;
	} all[] = {
		{ "cores", &c->cores }, { "spread", &c->speed_spread }, { "memory", &c->mem_mib }, { "load", &c->load }, { "hot", &c->hot }, { "lifetime", &c->lifetime_max_s },
		{ "job-memory", &c->job_mem_mib }, { "seconds", &c->end_s }, { "warm", &c->warm_s }, { "freeze", &c->freeze_s }, { "fail", &c->fail_part },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (!strcmp(all[i].name, name)) {
			*all[i].to = v;
			return 0;
		}
	if (v < 0 || v > 1e15)
		return -EINVAL;
	if (!strcmp(name, "nodes"))
		c->nodes = (size_t)v;
	else if (!strcmp(name, "table"))
		c->table = (size_t)v;
	else
		c->seed = (uint64_t)v;
	return 0;
}

static int read_options(struct experiment *x, int argc, char **argv, struct err *e)
{
	static const struct option options[] = {
		{ "nodes", 1, NULL, 'n' }, { "cores", 1, NULL, 'n' }, { "spread", 1, NULL, 'n' }, { "memory", 1, NULL, 'n' }, { "load", 1, NULL, 'n' }, { "hot", 1, NULL, 'n' },
		{ "lifetime", 1, NULL, 'n' }, { "job-memory", 1, NULL, 'n' }, { "seconds", 1, NULL, 'n' }, { "warm", 1, NULL, 'n' }, { "freeze", 1, NULL, 'n' },
		{ "fail", 1, NULL, 'n' }, { "table", 1, NULL, 'n' }, { "seed", 1, NULL, 'n' }, { "trace", 1, NULL, 't' }, { "json", 1, NULL, 'j' }, { "plot", 1, NULL, 'p' },
		{ "version", 0, NULL, 'V' }, { "help", 0, NULL, 'h' }, { 0 },
	};
	int o, at;

	while ((o = getopt_long(argc, argv, "h", options, &at)) != -1) {
		double v;

		if (o == 't')
			x->base.trace = optarg;
		else if (o == 'j')
			x->json_path = optarg;
		else if (o == 'p')
			x->plot_path = optarg;
		else if (o != 'n')
			return o;
		else if (number(options[at].name, optarg, &v, e) < 0)
			return e->code;
		else if (set_number(x, options[at].name, v) < 0)
			return err_set(e, -EINVAL, "--%s: '%.80s' is out of range", options[at].name, optarg);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct experiment x;
	struct err e = ERR_INIT;
	size_t i;
	int ret;

	sim_config_init(&x.base);
	ret = read_options(&x, argc, argv, &e);
	if (ret == 'h' || ret == 'V') {
		fputs(ret == 'h' ? usage : "godwit-sim " GODWIT_VERSION "\n", stdout);
		return 0;
	}
	if (ret > 0 || (ret == 0 && optind + 1 != argc)) {
		fputs(usage, stderr);
		return 2;
	}
	for (i = 0; ret == 0 && i < ARRAY_SIZE(experiments) && strcmp(experiments[i].name, argv[optind]) != 0; i++)
		;
	if (ret == 0 && i == ARRAY_SIZE(experiments))
		ret = err_set(&e, -EINVAL, "'%.80s': no such experiment; see --help", argv[optind]);
	if (ret == 0)
		ret = experiments[i].run(&x, &e);
	if (ret == 0 && x.json_path)
		ret = write_json(&x, experiments[i].name, &e);
	if (ret < 0)
		fprintf(stderr, "godwit-sim: %s\n", e.message);
	return ret < 0;
}
