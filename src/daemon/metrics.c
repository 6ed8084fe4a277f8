// SPDX-License-Identifier: GPL-2.0-or-later
/* metrics.c - see metrics.h */
#include "daemon/metrics.h"

#include <inttypes.h>

#include "base/util.h"
#include "daemon/balance.h"
#include "daemon/history.h"
#include "daemon/node_state.h"
#include "home/door.h"
#include "home/where.h"
#include "net/redirect.h"
#include "net/tidy.h"
#include "version.h"

static void family(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(FILE *f, const char *name, const char *type, const char *help, double value)
{
	family(f, name, type, help);
	fprintf(f, "%s %.15g\n", name, value);
}

/* --- moves --- */

static void write_moves(FILE *f, const struct history_sums *s)
{
	family(f, "godwit_migrations_total", "counter", "Migrations from this node that have ended, by how and by strategy.");
	for (unsigned o = 0; o < HISTORY_OUTCOMES; o++)
		for (unsigned i = 0; i < HISTORY_STRATEGIES; i++)
			fprintf(f, "godwit_migrations_total{outcome=\"%s\",strategy=\"%s\"} %" PRIu64 "\n", history_outcome_name((enum history_outcome)o), strategy_name((enum strategy)i), s->moves[o][i]);
}

/* label: of all of its samples, "" for none: strategy="hybrid" */
static void write_histogram(FILE *f, const char *name, const char *label, const struct history_histogram *g, const uint64_t *ends)
{
	const char *open = *label ? "{" : "", *close = *label ? "}" : "", *comma = *label ? "," : "";
	uint64_t n = 0;

	for (size_t i = 0; i < HISTORY_BUCKETS; i++) {
		char end[32] = "+Inf";

		if (ends[i] != UINT64_MAX)
			snprintf(end, sizeof(end), "%g", (double)ends[i] / 1e6);
		n += g->buckets[i];
		fprintf(f, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", name, label, comma, end, n);
	}
	fprintf(f, "%s_sum%s%s%s %.6f\n%s_count%s%s%s %" PRIu64 "\n", name, open, label, close, (double)g->sum_us / 1e6, name, open, label, close, n);
}

static void write_histograms(FILE *f, const char *name, const char *help, const struct history_histogram v[HISTORY_STRATEGIES], const uint64_t *ends)
{
	family(f, name, "histogram", help);
	for (unsigned i = 0; i < HISTORY_STRATEGIES; i++) {
		char label[64];

		snprintf(label, sizeof(label), "strategy=\"%s\"", strategy_name((enum strategy)i));
		write_histogram(f, name, label, &v[i], ends);
	}
}

static void write_work(FILE *f, const struct history_sums *s)
{
	single(f, "godwit_sent_bytes_total", "counter", "Bytes of memory and files that migrations from this node have sent.", (double)s->bytes_sent);
	family(f, "godwit_saved_bytes_total", "counter", "Bytes of memory that need not be sent: the destination has them in its own file, or they are zeros.");
	fprintf(f, "godwit_saved_bytes_total{technique=\"file\"} %.15g\n", (double)s->pages_in_files * PAGE_SIZE_BYTES);
	fprintf(f, "godwit_saved_bytes_total{technique=\"zero\"} %.15g\n", (double)s->pages_zero * PAGE_SIZE_BYTES);
	single(f, "godwit_sent_pages_total", "counter", "Pages of 4 KiB that migrations from this node have sent.", (double)s->pages_sent);
	single(f, "godwit_faulted_pages_total", "counter", "Of these, pages that the program has asked for before they came.", (double)s->pages_faulted);
	single(f, "godwit_rounds_total", "counter", "Rounds of pre-copy.", (double)s->rounds);
	single(f, "godwit_attempts_total", "counter", "Attempts of migrations; more than one is made when the unit has changed between offer and freeze.", (double)s->attempts);
	family(f, "godwit_arrivals_total", "counter", "Migrations to this node that have ended, by how.");
	fprintf(f, "godwit_arrivals_total{outcome=\"arrived\"} %" PRIu64 "\ngodwit_arrivals_total{outcome=\"failed\"} %" PRIu64 "\n", s->arrived, s->not_arrived);
	family(f, "godwit_fault_seconds", "histogram", "How long programs that came to this node waited for a page that had not come: from when the fault was heard of until the page was in place.");
	write_histogram(f, "godwit_fault_seconds", "", &s->faults, history_fault_us);
}

/* --- now --- */

static void write_running(FILE *f, const struct daemon *d)
{
	unsigned leaving = 0, arriving = 0;

	for (size_t i = 0; i < WORKERS_MAX; i++) {
		const struct worker *w = &d->workers[i];

		if (!w->pid || __atomic_load_n(&d->done[i], __ATOMIC_ACQUIRE))
			continue;
		leaving += w->kind == WORKER_SOURCE && w->peer[0];
		arriving += w->kind == WORKER_DEST;
	}
	family(f, "godwit_migrations_running", "gauge", "Migrations under way.");
	fprintf(f, "godwit_migrations_running{direction=\"leaving\"} %u\ngodwit_migrations_running{direction=\"arriving\"} %u\n", leaving, arriving);
}

struct unit_count {
	const struct daemon *d;
	unsigned here, foreign, protected, away;
};

static int count_unit(const struct registry_entry *entry, void *arg)
{
	struct unit_count *n = arg;

	n->here++;
	n->foreign += !entry->local;
	n->protected += entry->protection.every_ms > 0;
	return 0;
}

static int count_away(const char *unit, void *arg)
{
	struct unit_count *n = arg;
	struct door_where w;

	n->away += where_ask(unit, &w, NULL) == 0 && strcmp(w.host, n->d->config.name) != 0;
	return 0;
}

static void write_units(FILE *f, const struct daemon *d)
{
	struct unit_count n = { .d = d };
	char prefix[HELLO_NAME_MAX + 2];

	snprintf(prefix, sizeof(prefix), "%s:", d->config.name);
	registry_list(count_unit, &n, NULL);
	door_list(prefix, count_away, &n);
	single(f, "godwit_units", "gauge", "Units that run on this node.", n.here);
	single(f, "godwit_units_foreign", "gauge", "Of these, units that began elsewhere.", n.foreign);
	single(f, "godwit_units_protected", "gauge", "Of these, units of which copies are kept on other nodes.", n.protected);
	single(f, "godwit_units_away", "gauge", "Units that began here and run elsewhere, for whom somebody waits.", n.away);
}

static void write_nodes(FILE *f, const struct daemon *d)
{
	cleanup_free struct cluster_node *nodes = NULL;
	size_t n = 0;

	if (node_list(d, &nodes, &n, NULL) < 0 || !n)
		return;
	family(f, "godwit_nodes", "gauge", "Nodes of the cluster as this one sees them, by whether they answer.");
	for (int reachable = 1; reachable >= 0; reachable--) {
		unsigned count = 0;

		for (size_t i = 0; i < n; i++)
			count += nodes[i].reachable == (bool)reachable;
		fprintf(f, "godwit_nodes{reachable=\"%s\"} %u\n", reachable ? "yes" : "no", count);
	}
	family(f, "godwit_node_state", "gauge", "1 for the state that this node is in.");
	fprintf(f, "godwit_node_state{state=\"%s\"} 1\n", cluster_node_state(&nodes[0]));
	if (!nodes[0].measured_ms)
		return;
	family(f, "godwit_load", "gauge", "The load vector of this node; docs/cluster.md has the indices.");
	for (int i = 0; i < LOAD_INDICES; i++)
		fprintf(f, "godwit_load{index=\"%s\"} %.9g\n", load_name((enum load_index)i), nodes[0].load.v[i]);
}

static int count_connection(const struct redirect_item *item, void *arg)
{
	unsigned *counts = arg;

	/* As in do_connections.c: an end that has never moved is there for its other end. */
	if (item->state != REDIRECT_NONE && !(item->state == REDIRECT_HERE && item->flags & REDIRECT_NATIVE && !item->moves_made))
		counts[item->state & 3]++;
	return 0;
}

static void write_connections(FILE *f)
{
	unsigned counts[4] = { 0 };
	struct redirect *r = NULL;

	if (redirect_find(&r, NULL) == 0 && r)
		redirect_list(r, count_connection, counts, NULL);
	redirect_close(&r);
	family(f, "godwit_connections", "gauge", "Connections and listeners that have moved and that this node redirects: the socket is here, there (on another node), or held (it moves just now).");
	fprintf(f, "godwit_connections{state=\"here\"} %u\ngodwit_connections{state=\"there\"} %u\ngodwit_connections{state=\"held\"} %u\n", counts[REDIRECT_HERE], counts[REDIRECT_THERE], counts[REDIRECT_HELD]);
}

static void write_balance(FILE *f, const struct daemon *d)
{
	single(f, "godwit_balance_on", "gauge", "1 while this node balances by itself.", node_state_balances(d->shared));
	single(f, "godwit_balance_moves_total", "counter", "Units that this node has moved by itself.", (double)d->balance->moves);
	single(f, "godwit_balance_failures_total", "counter", "Units that it has tried to move in vain.", (double)d->balance->failures);
}

void metrics_write(const struct daemon *d, FILE *f)
{
	uint64_t up_ns = clock_ns(CLOCK_BOOTTIME) - d->started_ns;
	struct history_sums s;

	history_read_sums(d->history, &s);
	family(f, "godwit_build_info", "gauge", "1, with the version.");
	fprintf(f, "godwit_build_info{version=\"" GODWIT_VERSION "\"} 1\n");
	single(f, "godwit_start_time_seconds", "gauge", "When godwitd was started, in seconds since 1970; the sums begin then.", (double)(clock_ns(CLOCK_REALTIME) - up_ns) / 1e9);
	write_moves(f, &s);
	write_histograms(f, "godwit_freeze_seconds", "How long units that moved stood still.", s.freeze, history_freeze_us);
	write_histograms(f, "godwit_migration_seconds", "How long migrations took until nothing of the unit was left here, or the user had his answer.", s.total, history_total_us);
	write_work(f, &s);
	write_running(f, d);
	write_units(f, d);
	write_nodes(f, d);
	write_connections(f);
	write_balance(f, d);
}
