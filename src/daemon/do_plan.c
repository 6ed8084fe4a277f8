// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_plan.c - what a move would do, for `godwit migrate --dry-run`
 *
 * The destination is asked as by `godwit check --to`, and nothing else happens. How long it would take is said from the moves that began here before: those to that host, otherwise to any,
 * otherwise links as they are common. A large move says how fast memory goes; a small one, how long a move takes beside that.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/history.h"
#include "daemon/reply.h"
#include "kern/nsfs.h"
#include "migrate/plan.h"

#define LARGE_BYTES (16u << 20)
#define MIB 1048576.0
/* Where nothing is known: from a gigabit to ten, and what moves take in the tests' labs and on busy machines. */
#define RATE_LOW_MIB_S 100.0
#define RATE_HIGH_MIB_S 1000.0
#define BESIDE_LOW_MS 20.0
#define BESIDE_HIGH_MS 1000.0
#define FEW 3          /* moves, of which the next one may well differ: */
#define FEW_FACTOR 2.0
#define MUCH_BYTES (1ull << 30)

struct experience {
	const char *to; /* NULL: anywhere */
	unsigned n, n_large;
	double ms_low, ms_high, rate_low, rate_high; /* of small ones, in bytes a millisecond of large ones */
};

static int learn(const struct history_move *m, void *arg)
{
	struct experience *x = arg;
	const struct migrate_report *r = &m->report;
	double rate = r->total_ms > 0 ? (double)r->bytes_sent / r->total_ms : 0;

	if (!m->outcome || strcmp(m->outcome, "moved") != 0 || r->portable || !rate || (x->to && strcmp(r->to, x->to) != 0))
		return 0;
	if (r->bytes_sent >= LARGE_BYTES) {
		x->rate_low = x->n_large ? MIN(x->rate_low, rate) : rate;
		x->rate_high = MAX(x->rate_high, rate);
		x->n_large++;
	} else {
		x->ms_low = x->n > x->n_large ? MIN(x->ms_low, r->total_ms) : r->total_ms;
		x->ms_high = MAX(x->ms_high, r->total_ms);
	}
	x->n++;
	return 0;
}

static json_t *estimate(const struct daemon *d, const char *to, const struct migrate_plan *plan)
{
	struct experience x = { .to = to };
	double bytes = (double)plan_send_bytes(plan), wide;
	char supposed[64], basis[300];

	history_list_ended(d->history, learn, &x);
	if (!x.n) {
		x = (struct experience){ 0 };
		history_list_ended(d->history, learn, &x);
	}
	wide = x.n < FEW ? FEW_FACTOR : 1;
	snprintf(supposed, sizeof(supposed), "supposed is a link of %.0f to %.0f MiB/s", RATE_LOW_MIB_S, RATE_HIGH_MIB_S);
	if (!x.n)
		snprintf(basis, sizeof(basis), "nothing has been moved from here yet: supposed are %.0f to %.0f MiB/s", RATE_LOW_MIB_S, RATE_HIGH_MIB_S);
	else
		snprintf(basis, sizeof(basis), "%u former move%s from here%s%s%s%s", x.n, x.n == 1 ? "" : "s", x.to ? " to " : ", none of them to that host", x.to ? x.to : "",
			 x.n_large ? "" : ", all of them small: ", x.n_large ? "" : supposed);
	if (!x.n_large) {
		x.rate_low = RATE_LOW_MIB_S * MIB / 1e3;
		x.rate_high = RATE_HIGH_MIB_S * MIB / 1e3;
	}
	if (x.n == x.n_large) {
		x.ms_low = BESIDE_LOW_MS;
		x.ms_high = BESIDE_HIGH_MS;
	}
	return json_pack("{s:f, s:f, s:s, s:i}", "low_ms", x.ms_low / wide + bytes / x.rate_high / wide, "high_ms", (x.ms_high + bytes / x.rate_low) * wide, "basis", basis, "moves", (int)x.n);
}

static json_t *descriptors(const struct migrate_plan *plan)
{
	json_t *list = json_array();

	for (int i = 0; i < PLAN_KINDS; i++)
		if (plan->kinds[i])
			json_array_append_new(list, json_pack("{s:s, s:i, s:s}", "kind", plan_kind_name((enum plan_kind)i), "n", (int)plan->kinds[i], "means", plan_kind_means((enum plan_kind)i)));
	return list;
}

static json_t *namespaces(const struct migrate_plan *plan)
{
	json_t *list = json_array();

	for (int i = 0; i < NS_KINDS; i++)
		if (plan->namespaces & (1u << i))
			json_array_append_new(list, json_string(ns_name((enum ns_kind)i)));
	return list;
}

/* What is promised if a host or the link dies. */
static json_t *promises(const struct migrate_plan *plan)
{
	json_t *list = json_array();

	json_array_append_new(list, json_string("until it is handed over, whatever fails leaves it here, and it goes on; afterwards it never runs here again"));
	if (!plan->known)
		return list;
	if (!strategy_is_post_copy(plan->strategy))
		json_array_append_new(list, json_string("when it runs there all of its memory is there: this host may die then"));
	else if (strategy_pushes(plan->strategy))
		json_array_append_new(list, json_string("when it runs there the rest of its memory follows: a lost link is picked up again, but if this host dies before all of it is there, the unit is lost"));
	else
		json_array_append_new(list, json_string("its memory stays here until it is touched there: a lost link is picked up again, but if this host dies, the unit is lost"));
	if (plan->files_home || plan->kinds[PLAN_TCP_OUTSIDE])
		json_array_append_new(list, json_string("what goes by way of other hosts (files from home, connections) goes on needing them"));
	return list;
}

static json_t *risks(const struct migrate_plan *plan)
{
	json_t *list = json_array();

	json_array_append_new(list, json_string("what only shows when the unit stands still is not known yet, and it may open or connect something meanwhile: it may still be refused, and then goes on here"));
	if (plan->known && (plan->strategy == STRATEGY_PRE_COPY || plan->strategy == STRATEGY_HYBRID))
		json_array_append_new(list, json_string("how much memory it writes per second is not measured here: what it writes while it is copied is sent again"));
	if (plan->known && plan->strategy == STRATEGY_STOP_COPY)
		json_array_append_new(list, json_string("it stands still while all of its memory is sent"));
	if (plan->own_bytes + plan->swapped_bytes > MUCH_BYTES && strategy_is_post_copy(plan->strategy))
		json_array_append_new(list, json_string("there is much memory: until it is there, the program waits for pages that it touches first"));
	if (plan->swapped_bytes)
		json_array_append_new(list, json_string("some of its memory is swapped out and has to be read first"));
	if (plan->files_bytes > MUCH_BYTES)
		json_array_append_new(list, json_string("contents of large files are sent: --files relay serves from home what is only read"));
	return list;
}

/* Why that strategy; NULL: it is what was asked for. */
static const char *strategy_why(const struct request *request, const struct migrate_plan *plan)
{
	if (!plan->known)
		return request->portable ? "asked for" : "the destination is of another architecture: the program's own state is what can move";
	if (plan->strategy != request->strategy)
		return "a device or the kernel may write to its memory unseen (O_DIRECT, io_uring), so that no page can be sent while it runs";
	return request->strategy == STRATEGY_FREEZE_FREE ? "asked for, or the default: the shortest stop" : "asked for";
}

static json_t *plan_json(const struct daemon *d, const struct request *request, const struct migrate_asked *a)
{
	const struct migrate_plan *p = &a->plan;
	json_t *o = json_pack("{s:b, s:o, s:i, s:o, s:o, s:s, s:s, s:s, s:[]}", "dry_run", true, "unit", reply_text(a->report.unit), "pid", (int)request->pid, "from", reply_text(a->report.from), "to",
			      reply_text(a->report.to), "outcome", "possible", "strategy", p->known ? strategy_name(p->strategy) : "portable", "strategy_why", strategy_why(request, p), "refusals");

	if (p->known) {
		json_object_update_new(o, json_pack("{s:I, s:I, s:{s:I, s:I, s:I, s:I}, s:{s:i, s:i, s:i, s:I}}", "processes", (json_int_t)p->processes, "threads", (json_int_t)p->threads, "memory",
						    "resident_bytes", (json_int_t)p->resident_bytes, "own_bytes", (json_int_t)p->own_bytes, "swapped_bytes", (json_int_t)p->swapped_bytes, "send_bytes_max",
						    (json_int_t)plan_send_bytes(p), "files", "there", (int)p->files_there, "from_home", (int)p->files_home, "sent", (int)p->files_sent, "sent_bytes_max",
						    (json_int_t)p->files_bytes));
		json_object_set_new(o, "descriptors", descriptors(p));
		json_object_set_new(o, "namespaces", namespaces(p));
		json_object_set_new(o, "estimate", estimate(d, a->report.to, p));
	}
	json_object_set_new(o, "promises", promises(p));
	json_object_set_new(o, "risks", risks(p));
	return o;
}

static int plan_here(const struct daemon *d, const struct request *request, int fd)
{
	struct refusals refusals = { 0 };
	struct migrate_asked asked;
	struct err e = ERR_INIT;
	int r = do_migrate_ask(d, request, fd, &asked, &refusals, &e);

	if (r < 0)
		reply_error(fd, asked.code, &e, &refusals, reply_report(&asked.report));
	else
		reply_result(fd, plan_json(d, request, &asked));
	refusals_free(&refusals);
	return r < 0;
}

int do_plan(const struct daemon *d, const struct request *given, int fd)
{
	struct request request = *given;
	struct err e = ERR_INIT;

	if (request.drain)
		return do_plan_drain(d, &request, fd);
	request_keep_tops(&request);
	request_name_unit(d, &request);
	log_set_context("side=plan pid=%d", (int)request.pid);
	if (request.pid)
		return plan_here(d, &request, fd);
	if (do_forward(d, &request, fd, &e) >= 0)
		return 0;
	reply_error(fd, "unknown-unit", &e, NULL, NULL);
	return 1;
}
