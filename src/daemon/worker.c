// SPDX-License-Identifier: GPL-2.0-or-later
/* worker.c - the processes that do the work: starting, remembering, reaping; see daemon.h */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/balance.h"
#include "daemon/cluster_loop.h"
#include "daemon/daemon.h"
#include "daemon/history.h"
#include "daemon/node_state.h"
#include "daemon/reserve.h"
#include "daemon/work.h"
#include "migrate/migrate.h"
#include "migrate/registry.h"
#include "net/redirect.h"

#define KEEP_MAX 17

#define DRAIN_READS_MAX 64
#define CLUSTER_AGAIN_NS 1000000000ull

/* Closes every descriptor above the standard streams that is not in keep[]. */
static void close_others(const int *keep, size_t n_keep)
{
	unsigned from = 3;

	for (;;) {
		unsigned next = UINT_MAX;
		size_t i;

		for (i = 0; i < n_keep; i++)
			if (keep[i] >= 0 && (unsigned)keep[i] >= from && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		if (next == UINT_MAX)
			break;
		if (next > from)
			close_range(from, next - 1, 0);
		from = next + 1;
	}
	close_range(from, UINT_MAX, 0);
}

#define KEEP_CLUSTER MIGRATE_KEEP_FDS
#define KEEP_NET (KEEP_CLUSTER + 1)
/* What the engine has loaded for all, what wakes godwit-cluster, and what is prepared for redirection. */
static int always_keep[KEEP_NET + REDIRECT_PROGRAMS];

/*
 * A session of its own, so that Ctrl-C on a terminal where godwitd runs does not reach the worker. No PR_SET_PDEATHSIG: it outlives
 * the main process. SIGPIPE stays ignored: a log reader that goes away must not end a migration.
 */
static void become_worker(const int *keep, size_t n_keep)
{
	int all[KEEP_MAX];
	sigset_t none;
	size_t i;
	int s;

	for (s = 1; s < NSIG; s++)
		if (s != SIGPIPE && s != SIGKILL && s != SIGSTOP)
			signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	for (i = 0; i < n_keep && i < KEEP_MAX - ARRAY_SIZE(always_keep); i++)
		all[i] = keep[i];
	for (s = 0; s < (int)ARRAY_SIZE(always_keep); s++)
		all[i++] = always_keep[s];
	close_others(all, i);
}

int worker_init(struct daemon *d, struct err *e)
{
	for (int i = 0; i < REDIRECT_PROGRAMS; i++)
		always_keep[KEEP_NET + i] = -1;
	migrate_init(always_keep);
	if (node_state_init(&d->shared, d->config.name, &always_keep[KEEP_CLUSTER], e) < 0 || cluster_view_init(&d->view, d->shared, e) < 0 ||
	    balance_init(&d->balance, e) < 0 || reserve_init(&d->reserved, e) < 0 || history_init(&d->history, WORKERS_MAX, e) < 0 || work_init(d->asks, e) < 0)
		return e->code;
	d->done = mmap(NULL, WORKERS_MAX * sizeof(*d->done), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return d->done == MAP_FAILED ? err_sys(e, -errno, "mmap") : 0;
}

void worker_keep_programs(const int *programs)
{
	memcpy(&always_keep[KEEP_NET], programs, REDIRECT_PROGRAMS * sizeof(*programs));
}

void worker_set_done(const struct daemon *d)
{
	__atomic_store_n(&d->done[d->self], 1, __ATOMIC_RELEASE);
}

struct worker *worker_start(struct daemon *d, enum worker_kind kind, const int *keep, size_t n_keep, bool *ret_child, struct err *e)
{
	struct worker *w = NULL;
	size_t i;
	pid_t pid;

	*ret_child = false;
	for (i = 0; i < WORKERS_MAX && !w; i++)
		if (!d->workers[i].pid)
			w = &d->workers[i];
	if (!w) {
		err_set(e, -EBUSY, "godwitd on %s runs %d workers already, its limit: wait until some have ended", d->config.name, WORKERS_MAX);
		return NULL;
	}
	d->self = (size_t)(w - d->workers);
	d->done[d->self] = 0;
	pid = fork();
	if (pid < 0) {
		err_sys(e, -errno, "fork");
		return NULL;
	}
	if (!pid) {
		become_worker(keep, n_keep);
		*ret_child = true;
		return NULL;
	}
	*w = (struct worker){ .pid = pid, .kind = kind, .handoff = -1 };
	node_state_set_arriving(d->shared, worker_count(d, WORKER_DEST));
	d->redirects = d->redirects || kind == WORKER_SOURCE || kind == WORKER_DEST;
	return w;
}

int worker_answer(struct daemon *d, int fd, const Gw__Hello *hello, int (*answer)(const struct daemon *d, int fd, const char *from), struct err *e)
{
	struct worker *w;
	bool child;

	set_blocking(fd);
	w = worker_start(d, WORKER_REQUEST, &fd, 1, &child, e);
	if (child)
		_exit(answer(d, fd, hello->node_name));
	return w ? 0 : e->code;
}

int cluster_tick(struct daemon *d)
{
	struct cluster_setup setup = { &d->config, d->view, d->shared, d->udp_fd, always_keep[KEEP_CLUSTER], getpid() };
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	bool child;

	if (d->udp_fd < 0 || worker_count(d, WORKER_CLUSTER))
		return -1; /* its end wakes */
	if (now >= d->cluster_due_ns) {
		d->cluster_due_ns = now + CLUSTER_AGAIN_NS;
		worker_start(d, WORKER_CLUSTER, &d->udp_fd, 1, &child, NULL);
		if (child)
			cluster_loop(&setup);
	}
	return (int)(CLUSTER_AGAIN_NS / 1000000);
}

void drain(int fd)
{
	char sink[4096];
	int i;

	shutdown(fd, SHUT_WR);
	for (i = 0; i < DRAIN_READS_MAX && recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0; i++)
		;
}

struct worker *worker_find_source(struct daemon *d, pid_t moving)
{
	size_t i;

	for (i = 0; i < WORKERS_MAX; i++)
		if (d->workers[i].pid && d->workers[i].kind == WORKER_SOURCE && d->workers[i].moving == moving &&
		    !__atomic_load_n(&d->done[i], __ATOMIC_ACQUIRE))
			return &d->workers[i];
	return NULL;
}

struct worker *worker_find_dest(struct daemon *d, const uint8_t mig_id[HELLO_MIG_ID_BYTES])
{
	size_t i;

	for (i = 0; i < WORKERS_MAX; i++)
		if (d->workers[i].pid && d->workers[i].kind == WORKER_DEST && !memcmp(d->workers[i].mig_id, mig_id, HELLO_MIG_ID_BYTES))
			return &d->workers[i];
	return NULL;
}

unsigned worker_count_of(const struct daemon *d, const struct caller *caller)
{
	unsigned n = 0;

	for (size_t i = 0; i < WORKERS_MAX; i++)
		n += d->workers[i].pid && d->workers[i].caller.limited && d->workers[i].caller.uid == caller->uid;
	return n;
}

unsigned worker_count(const struct daemon *d, enum worker_kind kind)
{
	unsigned n = 0;
	size_t i;

	for (i = 0; i < WORKERS_MAX; i++)
		n += d->workers[i].pid && d->workers[i].kind == kind;
	return n;
}

static void log_end(const struct worker *w, pid_t pid, int status)
{
	static const char *const kinds[] = { "request", "source", "dest", "net", "cluster", "leave", "balance", "prepare", "protect", "watch", "tls", "api", "gate" };
	const char *how = WIFEXITED(status) ? "exit" : "signal";
	int number = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);

	if (!w)
		log_info("event=unit-ended pid=%d %s=%d", (int)pid, how, number);
	else if (WIFSIGNALED(status))
		log_error("event=worker-died kind=%s worker=%d signal=%d moving=%d", kinds[w->kind], (int)pid, number, (int)w->moving);
	else if (w->kind == WORKER_SOURCE || w->kind == WORKER_DEST)
		log_line(w->peer[0] ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "event=worker-ended kind=%s worker=%d exit=%d peer=%s", kinds[w->kind], (int)pid, number, w->peer);
}

void worker_reap(struct daemon *d)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		struct worker *w = NULL;
		size_t i;

		if (WIFSTOPPED(status) || WIFCONTINUED(status))
			continue;
		for (i = 0; i < WORKERS_MAX && !w; i++)
			if (d->workers[i].pid == pid)
				w = &d->workers[i];
		/* Others that end here are processes below a unit's root, and helpers of workers that are gone. */
		if (w || registry_remove(pid, NULL) > 0)
			log_end(w, pid, status);
		if (w && w->kind == WORKER_NET)
			net_ended(d, status);
		if (w && w->kind == WORKER_PREPARE)
			net_prepared(d, w->handoff);
		if (w) {
			history_gone(d->history, (size_t)(w - d->workers), WIFSIGNALED(status) ? WTERMSIG(status) : 0);
			close_fdp(&w->handoff);
			w->pid = 0;
		}
	}
	node_state_set_arriving(d->shared, worker_count(d, WORKER_DEST));
	/* What has been committed is on its way still. */
	if (d->leaving && !worker_count(d, WORKER_LEAVE) && !worker_count(d, WORKER_SOURCE))
		d->stopping = true;
}
