// SPDX-License-Identifier: GPL-2.0-or-later
/* protect.c - godwit-protect: when which unit is copied, and what is done when it ends; see protect.h */
#include "daemon/protect.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/fence.h"
#include "daemon/keep.h"
#include "daemon/unit_kill.h"
#include "migrate/pace.h"

#define LOOK_MS 500         /* of godwitd: is there anything to protect? */
#define TICK_MS 250         /* of godwit-protect: has the registry changed? */
#define RESCAN_NS 1000000000ull
#define ASK_NS 1000000000ull
#define TELL_NS 2000000000ull
#define COPIES_AT_ONCE 4
#define UNITS_MAX 1024

enum child_work { WORK_NONE, WORK_COPY, WORK_ASK, WORK_TELL };

/* How a child ends. */
enum { STATUS_DONE, STATUS_AGAIN, STATUS_FENCED = 3 };

struct guarded {
	struct registry_entry entry;
	struct protect_journal journal;
	bool seen;           /* in the registry, at the last look */
	int pidfd;           /* -1: it has ended */
	enum child_work work;
	pid_t child;
	int childfd;
	bool must_ask;       /* before anything else: this godwit-protect, or the way to a keeper, is new */
	bool was_late;
	uint64_t due_ns, ask_ns, tell_ns;
};

struct protector {
	const struct daemon *d;
	struct guarded *v;
	size_t n;
	struct timespec registry_changed;
	uint64_t scan_ns;
};

int protect_init(const char *run_directory, struct err *e)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/protect", run_directory);
	protect_use_directory(path);
	return registry_make_directory(path, 0755, e);
}

/* --- in godwitd --- */

static int is_protected(const struct registry_entry *entry, void *arg)
{
	*(bool *)arg |= entry->protection.every_ms > 0;
	return *(bool *)arg;
}

int protect_tick(struct daemon *d)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	bool any = false, child;

	if (worker_count(d, WORKER_PROTECT))
		return -1; /* its end wakes */
	if (now < d->protect_due_ns)
		return LOOK_MS;
	d->protect_due_ns = now + LOOK_MS * 1000000ull;
	if (registry_count())
		registry_list(is_protected, &any, NULL);
	if (any || protect_journal_list(NULL, NULL)) {
		pid_t daemon = getpid();

		worker_start(d, WORKER_PROTECT, NULL, 0, &child, NULL);
		if (child)
			protect_loop(d, daemon);
	}
	return registry_count() ? LOOK_MS : 2 * LOOK_MS;
}

/* --- what is protected --- */

static struct guarded *find(struct protector *p, const char *key)
{
	for (size_t i = 0; i < p->n; i++)
		if (!strcmp(p->v[i].journal.key, key))
			return &p->v[i];
	return NULL;
}

static struct guarded *add(struct protector *p, const char *key)
{
	struct guarded *grown = p->n < UNITS_MAX ? reallocarray(p->v, p->n + 1, sizeof(*grown)) : NULL;

	if (!grown)
		return NULL;
	p->v = grown;
	grown += p->n++;
	*grown = (struct guarded){ .pidfd = -1, .childfd = -1, .must_ask = true };
	snprintf(grown->journal.key, sizeof(grown->journal.key), "%s", key);
	return grown;
}

static void write_journal(const struct protect_journal *j)
{
	struct err e = ERR_INIT;

	if (protect_journal_write(j, &e) < 0)
		log_error("event=journal-failed unit=%s error=\"%s\"", j->key, e.message);
}

/* It has come, or come anew, or godwit-protect has been started anew. */
static void begin(struct guarded *g, const struct registry_entry *entry)
{
	struct protect_journal *j = &g->journal;
	struct protect_journal old;

	if (protect_journal_read(j->key, &old, NULL) == 0 && old.pid == entry->pid && old.start_ticks == entry->start_ticks)
		*j = old;
	else
		*j = (struct protect_journal){ .seq = j->seq };
	keep_key(entry, j->key);
	protect_leaving_forget(j->key);
	protect_forget_lost(j->key);
	j->stage = PROTECT_RUNS;
	j->pid = entry->pid;
	j->start_ticks = entry->start_ticks;
	j->moves = entry->moves;
	j->copies = entry->protection.copies;
	close_fdp(&g->pidfd);
	g->pidfd = (int)syscall(SYS_pidfd_open, entry->pid, 0);
	g->must_ask = true;
	g->due_ns = 0;
	write_journal(j);
	log_info("event=protecting unit=%s every_ms=%u copies=%u", j->key, entry->protection.every_ms, entry->protection.copies);
}

static int see(const struct registry_entry *entry, void *arg)
{
	struct protector *p = arg;
	char key[KEEP_UNIT_MAX];
	struct guarded *g;

	if (!entry->protection.every_ms)
		return 0;
	keep_key(entry, key);
	g = find(p, key);
	if (!g)
		g = add(p, key);
	if (!g)
		return 1;
	if (g->work == WORK_NONE && (g->journal.pid != entry->pid || g->journal.start_ticks != entry->start_ticks || g->journal.moves != entry->moves))
		begin(g, entry);
	g->entry = *entry;
	g->seen = g->journal.pid == entry->pid;
	return 0;
}

/* One of an earlier godwit-protect that is not in the registry any more. */
static int recall(const struct protect_journal *j, void *arg)
{
	struct protector *p = arg;
	struct guarded *g = find(p, j->key);

	if (g)
		return 0;
	g = add(p, j->key);
	if (!g)
		return 1;
	g->journal = *j;
	g->must_ask = false;
	return 0;
}

static void scan(struct protector *p)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	struct stat st = { 0 };

	stat(registry_directory(), &st);
	if (now < p->scan_ns && !memcmp(&st.st_mtim, &p->registry_changed, sizeof(st.st_mtim)))
		return;
	p->registry_changed = st.st_mtim;
	p->scan_ns = now + RESCAN_NS;
	for (size_t i = 0; i < p->n; i++)
		p->v[i].seen = false;
	registry_list(see, p, NULL);
	protect_journal_list(recall, p);
}

/* --- children --- */

static int work(const struct daemon *d, struct guarded *g, enum child_work what)
{
	struct protect_journal *j = &g->journal;
	int status = STATUS_DONE;

	prctl(PR_SET_PDEATHSIG, SIGTERM); /* what it has asked of godwitd is cancelled then */
	pace_calm(0);
	if (what == WORK_TELL) {
		status = protect_tell(d, j) ? STATUS_DONE : STATUS_AGAIN;
	} else if (what == WORK_ASK) {
		protect_ask(d, j);
	} else {
		protect_copy(d, &g->entry, j);
	}
	write_journal(j);
	return j->stage == PROTECT_FENCED ? STATUS_FENCED : status;
}

static void start(struct protector *p, struct guarded *g, enum child_work what)
{
	pid_t child = fork();

	if (child < 0)
		return;
	if (!child) {
		prctl(PR_SET_NAME, "godwit-protect");
		_exit(work(p->d, g, what));
	}
	g->child = child;
	g->childfd = (int)syscall(SYS_pidfd_open, child, 0);
	g->work = what;
}

static bool misses_keepers(const struct protect_journal *j)
{
	for (size_t i = 0; i < j->n_keepers; i++)
		if ((j->keepers[i].current || j->keepers[i].seq) && !j->keepers[i].answers)
			return true;
	return false;
}

/* It is another node's by now: the older of two copies ends. */
static void end_fenced(struct guarded *g)
{
	unsigned n = unit_kill(g->journal.pid, g->journal.start_ticks);

	log_error("event=fenced-killed unit=%s pid=%d processes=%u owner=%s", g->journal.key, (int)g->journal.pid, n, g->journal.to);
}

static void collect(struct guarded *g)
{
	enum child_work was = g->work;
	int status = 0;

	if (was == WORK_NONE || waitpid(g->child, &status, WNOHANG) != g->child)
		return;
	close_fdp(&g->childfd);
	g->work = WORK_NONE;
	protect_journal_read(g->journal.key, &g->journal, NULL);
	status = WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_AGAIN;
	if (status == STATUS_FENCED)
		end_fenced(g);
	if (was == WORK_TELL && status == STATUS_DONE)
		g->journal.pid = 0; /* nothing is left to do */
	if (was == WORK_ASK)
		g->must_ask = false;
	g->must_ask |= was == WORK_COPY && misses_keepers(&g->journal);
}

/* --- what is to be done --- */

static bool runs(const struct guarded *g)
{
	return registry_start_ticks(g->journal.pid) == g->journal.start_ticks && g->journal.start_ticks;
}

/* It does not run here any more, or is not protected. */
static void step_away(struct guarded *g)
{
	struct protect_journal *j = &g->journal;
	char to[HELLO_NAME_MAX + 1];
	char state = protect_leaving_state(j->key, to);

	if (state == 'l')
		return;
	if (state == 'x') { /* there is nothing to tell: who keeps copies knows from the store what he is to do */
		j->stage = PROTECT_FENCED;
		return;
	}
	j->stage = state == 'L' ? PROTECT_LEFT : PROTECT_ENDED;
	snprintf(j->to, sizeof(j->to), "%s", state == 'L' ? to : "");
	j->ended_s = time(NULL);
	log_info("event=protected-%s unit=%s to=%s", state == 'L' ? "left" : "ended", j->key, j->to);
	write_journal(j);
}

static unsigned count_copies(const struct protector *p)
{
	unsigned n = 0;

	for (size_t i = 0; i < p->n; i++)
		n += p->v[i].work == WORK_COPY;
	return n;
}

static void step_running(struct protector *p, struct guarded *g, uint64_t now)
{
	char to[HELLO_NAME_MAX + 1];

	if (g->must_ask && now >= g->ask_ns) {
		g->ask_ns = now + ASK_NS;
		start(p, g, WORK_ASK);
		return;
	}
	if (!fence_holds())
		return;
	if (now < g->due_ns || count_copies(p) >= COPIES_AT_ONCE || protect_leaving_state(g->journal.key, to) != 'n')
		return;
	g->due_ns = now + g->entry.protection.every_ms * 1000000ull;
	start(p, g, WORK_COPY);
}

/* Late: it is time for the next one, and this one is not done. */
static void note_late(struct guarded *g, uint64_t now)
{
	bool late = g->work == WORK_COPY && now >= g->due_ns;

	if (late && !g->was_late) {
		g->journal.late++;
		log_warning("event=copy-late unit=%s every_ms=%u", g->journal.key, g->entry.protection.every_ms);
	}
	g->was_late = late;
}

static void step(struct protector *p, struct guarded *g)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	struct protect_journal *j = &g->journal;
	unsigned late = j->late;

	collect(g);
	note_late(g, now);
	if (g->work != WORK_NONE || !j->pid)
		return;
	if (j->late < late)
		j->late = late;
	if (j->stage == PROTECT_RUNS && (!g->seen || !runs(g)))
		step_away(g);
	if (j->stage == PROTECT_RUNS && g->seen && runs(g)) {
		step_running(p, g, now);
	} else if (j->stage == PROTECT_FENCED) {
		if (runs(g))
			end_fenced(g);
		else
			j->pid = 0;
	} else if (j->stage == PROTECT_ENDED || j->stage == PROTECT_LEFT) {
		if (time(NULL) - j->ended_s > PROTECT_TOLD_FOR_S)
			j->pid = 0;
		else if (now >= g->tell_ns)
			start(p, g, WORK_TELL);
		g->tell_ns = now >= g->tell_ns ? now + TELL_NS : g->tell_ns;
	}
}

static void forget_done(struct protector *p)
{
	for (size_t i = 0; i < p->n;) {
		struct guarded *g = &p->v[i];

		if (g->journal.pid || g->work != WORK_NONE || (g->seen && !g->journal.start_ticks)) {
			i++;
			continue;
		}
		protect_journal_remove(g->journal.key);
		close_fdp(&g->pidfd);
		*g = p->v[--p->n];
	}
}

static void wait_for_something(struct protector *p)
{
	cleanup_free struct pollfd *fds = calloc(2 * p->n + 1, sizeof(*fds));
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	int timeout_ms = TICK_MS;
	size_t n = 0;

	for (size_t i = 0; i < p->n && fds; i++) {
		const struct guarded *g = &p->v[i];

		if (g->childfd >= 0)
			fds[n++] = (struct pollfd){ g->childfd, POLLIN, 0 };
		else if (g->pidfd >= 0 && g->journal.stage == PROTECT_RUNS && runs(g))
			fds[n++] = (struct pollfd){ g->pidfd, POLLIN, 0 };
		if (g->work == WORK_NONE && g->journal.stage == PROTECT_RUNS && g->due_ns > now)
			timeout_ms = MIN(timeout_ms, (int)((g->due_ns - now) / 1000000) + 1);
	}
	poll(fds, n, timeout_ms);
}

void protect_loop(const struct daemon *d, pid_t daemon)
{
	struct protector p = { .d = d };

	prctl(PR_SET_NAME, "godwit-protect");
	log_set_context("side=protect");
	do {
		scan(&p);
		for (size_t i = 0; i < p.n; i++)
			step(&p, &p.v[i]);
		forget_done(&p);
		wait_for_something(&p);
	} while (getppid() == daemon && p.n);
	_exit(0);
}

/* --- for people --- */

/* CLOCK_REALTIME of the state that the newest copy has that anybody keeps; 0: nobody does. */
static uint64_t newest(const struct protect_journal *j)
{
	uint64_t seq = 0;

	for (size_t i = 0; i < j->n_keepers; i++)
		seq = MAX(seq, j->keepers[i].seq);
	return seq;
}

void protect_describe(const struct registry_entry *entry, json_t *unit)
{
	char key[KEEP_UNIT_MAX];
	struct protect_journal j = { 0 };

	if (!entry->protection.every_ms)
		return;
	keep_key(entry, key);
	protect_journal_read(key, &j, NULL);
	json_object_set_new(unit, "protect_every_ms", json_integer(entry->protection.every_ms));
	json_object_set_new(unit, "protect_copies", json_integer(entry->protection.copies));
	json_object_set_new(unit, "protect_have", json_integer(j.have));
	json_object_set_new(unit, "protect_newest_ms", json_integer((json_int_t)newest(&j)));
	json_object_set_new(unit, "protect_complete_ms", json_integer((json_int_t)j.complete_ms));
	json_object_set_new(unit, "protect_made", json_integer(j.made));
	json_object_set_new(unit, "protect_late", json_integer(j.late));
	json_object_set_new(unit, "protect_failed", json_integer(j.failed));
	json_object_set_new(unit, "protect_freeze_us", json_integer(j.freeze_us));
	json_object_set_new(unit, "protect_bytes", json_integer((json_int_t)j.bytes));
	if (j.error[0]) {
		for (char *c = j.error; *c; c++)
			*c = *c < ' ' || *c > '~' ? '?' : *c;
		json_object_set_new(unit, "protect_error", json_string(j.error));
	}
}
