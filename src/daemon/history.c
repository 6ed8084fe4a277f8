// SPDX-License-Identifier: GPL-2.0-or-later
/* history.c - see history.h */
#include "daemon/history.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/util.h"
#include "image/process.h"

struct place {
	uint32_t sequence; /* odd: it is being written */
	bool active;       /* of a worker's place: it moves something */
	struct history_move move;
};

struct history {
	size_t n_places;
	uint64_t last; /* the number of the last move that has ended */
	struct history_sums sums;
	struct place ended[HISTORY_MOVES];
	struct place places[];
};

const uint64_t history_freeze_us[HISTORY_BUCKETS] = { 250, 500, 1000, 2000, 3000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000, 3000000, 10000000, UINT64_MAX };
const uint64_t history_total_us[HISTORY_BUCKETS] = { 20000,   50000,   100000,   200000,   500000,   1000000,   2000000,    5000000,
						     10000000, 20000000, 60000000, 120000000, 300000000, 600000000, 3600000000, UINT64_MAX };

/* As the agent counts them (agent/abi.h). */
_Static_assert(HISTORY_BUCKETS == MIGRATE_FAULT_BUCKETS, "one for each of the agent's");
const uint64_t history_fault_us[HISTORY_BUCKETS] = { 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, UINT64_MAX };

const char *history_outcome_name(enum history_outcome outcome)
{
	static const char *const names[] = { "moved", "refused", "failed", "cancelled", "in-doubt", "unknown" };

	return names[outcome];
}

static enum history_outcome outcome_of(const char *name)
{
	for (unsigned i = 0; i < HISTORY_OUTCOMES; i++)
		if (!strcmp(name, history_outcome_name((enum history_outcome)i)))
			return (enum history_outcome)i;
	return HISTORY_FAILED;
}

int history_init(struct history **ret, size_t n_workers, struct err *e)
{
	struct history *h = mmap(NULL, sizeof(*h) + n_workers * sizeof(h->places[0]), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (h == MAP_FAILED)
		return err_sys(e, -errno, "mmap");
	h->n_places = n_workers;
	*ret = h;
	return 0;
}

/* Even before, even afterwards, though who wrote last may have been killed in between. */
static void write_begin(struct place *p)
{
	__atomic_store_n(&p->sequence, p->sequence | 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static void write_end(struct place *p)
{
	__atomic_store_n(&p->sequence, (p->sequence | 1) + 1, __ATOMIC_RELEASE);
}

static bool read_place(const struct place *p, struct place *ret)
{
	uint32_t before = __atomic_load_n(&p->sequence, __ATOMIC_ACQUIRE);

	memcpy(ret, p, sizeof(*ret));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return !(before & 1) && __atomic_load_n(&p->sequence, __ATOMIC_RELAXED) == before;
}

void history_begin(struct history *h, size_t place, pid_t pid, const char *reason, const struct migrate_report *report)
{
	struct place *p = &h->places[place];

	write_begin(p);
	p->active = true;
	p->move = (struct history_move){ .pid = pid, .began_ns = clock_ns(CLOCK_REALTIME), .report = *report };
	p->move.has_uid = process_read_owner(pid, &p->move.uid) == 0;
	snprintf(p->move.reason, sizeof(p->move.reason), "%s", reason);
	if (getrandom(p->move.trace, sizeof(p->move.trace), GRND_NONBLOCK) != (ssize_t)sizeof(p->move.trace))
		memcpy(p->move.trace, &p->move.began_ns, sizeof(p->move.began_ns));
	write_end(p);
}

void history_progress(struct history *h, size_t place, const struct migrate_report *report)
{
	struct place *p = &h->places[place];

	write_begin(p);
	p->move.report = *report;
	p->move.outcome = report->outcome;
	write_end(p);
}

static void add(uint64_t *sum, uint64_t n)
{
	__atomic_fetch_add(sum, n, __ATOMIC_RELAXED);
}

static void add_to_histogram(struct history_histogram *g, const uint64_t *ends, uint64_t us)
{
	size_t i = 0;

	while (us > ends[i])
		i++;
	add(&g->buckets[i], 1);
	add(&g->sum_us, us);
}

/* What it has come to since `before`: what has been counted of it then. */
static void count_work(struct history_sums *s, const struct migrate_report *before, const struct migrate_report *now)
{
	add(&s->bytes_sent, now->bytes_sent - before->bytes_sent);
	add(&s->pages_sent, now->pages_sent - before->pages_sent);
	add(&s->pages_in_files, now->pages_skipped_file - before->pages_skipped_file);
	add(&s->pages_zero, now->pages_skipped_zero - before->pages_skipped_zero);
	add(&s->pages_faulted, now->pages_faulted - before->pages_faulted);
	add(&s->rounds, now->rounds - before->rounds);
	add(&s->attempts, now->attempts - before->attempts);
}

static void count_end(struct history_sums *s, const struct history_move *m)
{
	size_t strategy = MIN((size_t)m->report.strategy, HISTORY_STRATEGIES - 1);
	enum history_outcome outcome = outcome_of(m->outcome);

	add(&s->moves[outcome][strategy], 1);
	if (outcome != HISTORY_MOVED)
		return;
	add_to_histogram(&s->freeze[strategy], history_freeze_us, m->report.freeze_us);
	add_to_histogram(&s->total[strategy], history_total_us, (m->ended_ns - MIN(m->began_ns, m->ended_ns)) / 1000);
}

/* Into the ring, or there once more what has been in it. */
static void keep(struct history *h, struct history_move *m)
{
	bool again = m->number;
	struct place *to;

	if (!again)
		m->number = __atomic_add_fetch(&h->last, 1, __ATOMIC_RELAXED);
	to = &h->ended[m->number % HISTORY_MOVES];
	if (again && to->move.number != m->number)
		return;
	write_begin(to);
	to->move = *m;
	write_end(to);
}

/* The move of a place has ended as it says. */
static void end(struct history *h, struct place *p, const struct migrate_report *report, bool last)
{
	static const struct migrate_report none;
	bool again = p->move.number;
	struct migrate_report before = again ? h->ended[p->move.number % HISTORY_MOVES].move.report : none;

	/* Who comes so late that the ring has gone round has no "before". */
	if (again && h->ended[p->move.number % HISTORY_MOVES].move.number != p->move.number)
		before = *report;
	p->move.report = *report;
	p->move.ended_ns = clock_ns(CLOCK_REALTIME);
	count_work(&h->sums, &before, report);
	if (!again)
		count_end(&h->sums, &p->move);
	keep(h, &p->move);
	p->active = !last;
}

void history_end(struct history *h, size_t place, const struct migrate_report *report, const char *outcome, const char *error, bool last)
{
	struct place *p = &h->places[place];
	const struct timeline_mark *marks;

	if (!p->active)
		return;
	write_begin(p);
	if (!p->move.number) { /* what the user has been told stays */
		p->move.outcome = history_outcome_name(outcome_of(outcome));
		snprintf(p->move.error, sizeof(p->move.error), "%s", error ? error : "");
	}
	p->move.n_marks = timeline_read(&marks);
	memcpy(p->move.marks, marks, p->move.n_marks * sizeof(*marks));
	end(h, p, report, last);
	write_end(p);
}

void history_gone(struct history *h, size_t place, int signal)
{
	struct place *p = &h->places[place];

	if (!p->active)
		return;
	write_begin(p);
	if (p->move.number) {
		p->active = false;
	} else {
		struct migrate_report report = p->move.report;

		p->move.outcome = history_outcome_name(HISTORY_UNKNOWN);
		snprintf(p->move.error, sizeof(p->move.error), "its worker ended in the step %s (signal %d)", report.phase ? report.phase : "hello", signal);
		end(h, p, &report, true);
	}
	write_end(p);
}

void history_arrived(struct history *h, bool arrived, const struct migrate_faults *faults)
{
	add(arrived ? &h->sums.arrived : &h->sums.not_arrived, 1);
	for (size_t i = 0; i < HISTORY_BUCKETS; i++)
		add(&h->sums.faults.buckets[i], faults->buckets[i]);
	add(&h->sums.faults.sum_us, faults->us);
}

int history_list_ended(const struct history *h, int (*each)(const struct history_move *move, void *arg), void *arg)
{
	uint64_t last = __atomic_load_n(&h->last, __ATOMIC_RELAXED);
	cleanup_free struct place *copy = malloc(sizeof(*copy));
	int r = copy ? 0 : -ENOMEM;

	for (uint64_t i = last > HISTORY_MOVES ? last - HISTORY_MOVES + 1 : 1; !r && i <= last; i++)
		if (read_place(&h->ended[i % HISTORY_MOVES], copy) && copy->move.number == i)
			r = each(&copy->move, arg);
	return r;
}

int history_list_running(const struct history *h, int (*each)(const struct history_move *move, void *arg), void *arg)
{
	cleanup_free struct place *copy = malloc(sizeof(*copy));
	int r = copy ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < h->n_places; i++)
		if (__atomic_load_n(&h->places[i].active, __ATOMIC_RELAXED) && read_place(&h->places[i], copy) && copy->active)
			r = each(&copy->move, arg);
	return r;
}

void history_read_sums(const struct history *h, struct history_sums *ret)
{
	memcpy(ret, &h->sums, sizeof(*ret));
}
