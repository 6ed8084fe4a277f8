// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * client.c - requests from the unix socket
 *
 * A client sends one line of JSON and gets lines back until the connection ends. A pid in a request is meant as the client sees it, so
 * the client must live in godwitd's pid namespace.
 *
 * Who wants to move a process that is being moved waits for his turn (and goes on to where it is by then), as a client whose request is complete.
 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/access.h"
#include "daemon/daemon.h"
#include "daemon/node_state.h"
#include "daemon/reply.h"
#include "home/where.h"
#include "kern/nsfs.h"
#include "migrate/registry.h"

#define TURN_MS 60000
#define TURN_LOOK_MS 20 /* a worker that has done does not wake anybody before it ends */
#define TURNS_MAX (CLIENTS_PENDING_MAX / 2)

void client_drop(struct client *c)
{
	close_fdp(&c->fd);
	c->waits = false;
	c->turn_until_ns = 0;
	c->have = 0;
}

static void refuse(int fd, const char *code, const struct err *e)
{
	reply_error(fd, code, e, NULL, NULL);
	drain(fd);
}

static bool is_of(const struct client *c, const struct caller *caller)
{
	return c->fd >= 0 && !c->peer && c->caller.limited && c->caller.uid == caller->uid;
}

/* Whether a user without privileges has all the connections that he may have. */
static bool has_enough(const struct daemon *d, const struct caller *caller)
{
	unsigned n = 0;

	for (size_t i = 0; i < CLIENTS_PENDING_MAX; i++)
		n += is_of(&d->clients[i], caller);
	return caller->limited && n >= CLIENTS_EACH_MAX;
}

static void take(struct daemon *d, int fd, const struct caller *caller)
{
	struct client *c = &d->clients[0];
	size_t i;

	for (i = 0; i < CLIENTS_PENDING_MAX && c->fd >= 0; i++) /* there are always some that do not wait */
		if (d->clients[i].fd < 0 || (!d->clients[i].waits && (c->waits || d->clients[i].deadline_ns < c->deadline_ns)))
			c = &d->clients[i];
	client_drop(c);
	c->fd = fd;
	c->peer = !caller;
	c->caller = caller ? *caller : (struct caller){ 0 };
	c->deadline_ns = clock_ns(CLOCK_MONOTONIC) + PENDING_TIMEOUT_MS * 1000000ull;
}

void client_admit(struct daemon *d, int fd, int credentials)
{
	struct caller caller;
	struct err e = ERR_INIT;
	int r = access_read(credentials, &d->config, &caller, &e);

	if (r == 0 && has_enough(d, &caller))
		r = err_set(&e, -EBUSY, "user %u has %d requests that are not complete already: wait until some have ended", caller.uid, CLIENTS_EACH_MAX);
	if (r == 0) {
		take(d, fd, &caller);
		return;
	}
	refuse(fd, r == -EACCES ? "permission" : "limit", &e);
	close(fd);
}

void client_accept(struct daemon *d)
{
	int fd = accept4(d->unix_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0)
		client_admit(d, fd, fd);
}

void client_adopt(struct daemon *d, int fd)
{
	take(d, fd, NULL);
}

/* Whether the numbers that this client writes are the numbers that godwitd sees. */
static int check_namespace(int fd, struct err *e)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return err_sys(e, -errno, "SO_PEERCRED");
	if (cred.pid <= 0 || ns_id(cred.pid, NS_PID) != ns_id(0, NS_PID))
		return err_set(e, -EXDEV, "you are in another pid namespace than godwitd, where process numbers mean other processes: "
				       "run godwit in godwitd's namespace (nsenter -p -t PID_OF_GODWITD)");
	return 0;
}

/* Runs in the worker. */
static int serve(const struct daemon *d, const struct request *request, int fd)
{
	switch (request->verb) {
	case VERB_MIGRATE:
		prctl(PR_SET_NAME, "godwit-source");
		return do_migrate(d, request, fd);
	case VERB_CHECKPOINT:
		prctl(PR_SET_NAME, "godwit-source");
		return do_checkpoint(d, request, fd);
	case VERB_RESTORE:
		return do_restore(d, request, fd);
	case VERB_PS:
		return do_ps(d, request, fd);
	case VERB_NODES:
		return do_nodes(d, fd);
	case VERB_CHECK:
		return do_check(d, request, fd);
	case VERB_CONNECTIONS:
		return do_connections(d, fd);
	case VERB_SELECT:
		return do_select(d, request, fd);
	case VERB_DRAIN:
		return do_drain(d, request, fd);
	case VERB_UNDRAIN:
		return do_undrain(d, request, fd);
	case VERB_STARTED:
		return do_started(d, request, fd);
	case VERB_BALANCE:
		return do_balance(d, request, fd);
	case VERB_ADDRESS:
		return do_address(request, fd);
	case VERB_PROTECT:
	case VERB_UNPROTECT:
		return do_protect(d, request, fd);
	case VERB_FAILOVER:
		return do_failover(d, request, fd);
	case VERB_HISTORY:
		return do_history(d, request, fd);
	case VERB_BRIDGE:
		return do_bridge(d, request, fd);
	case VERB_PLAN:
		return do_plan(d, request, fd);
	case VERB_OUTCOME:
		return do_outcome(d, request, fd);
	case VERB_METRICS:
		return do_metrics(d, fd);
	case VERB_CANCEL:
		break;
	}
	return 1;
}

static int match_unit(const struct registry_entry *entry, void *arg)
{
	struct request *request = arg;

	if (!strcmp(entry->unit, request->unit))
		request->pid = entry->pid;
	return request->pid;
}

/* The number in a unit's name "NODE:PID", 0: it is no name of this node's. */
static int number_in_name(const struct daemon *d, const char *unit)
{
	size_t len = strlen(d->config.name);
	char *end;
	long pid;

	if (strncmp(unit, d->config.name, len) || unit[len] != ':' || !isdigit((unsigned char)unit[len + 1]))
		return 0;
	pid = strtol(unit + len + 1, &end, 10);
	return *end || pid > INT_MAX ? 0 : (int)pid;
}

/* The number here of a unit that is named. A process of this host that has never left it has its name already. */
static void find_unit(const struct daemon *d, struct request *request)
{
	cleanup_close int door = -1;
	int pid;

	if (!request->unit[0] || request->verb == VERB_HISTORY) /* which wants the name of one that may be gone */
		return;
	registry_list(match_unit, request, NULL);
	pid = number_in_name(d, request->unit);
	if (request->pid || !pid)
		return;
	door = door_connect(request->unit, NULL); /* asking nothing: godwitd itself waits for nobody */
	if (door != -ENOENT)
		return;
	if (kill(pid, 0) == 0 || errno != ESRCH)
		request->pid = pid;
}

/* Those that take a process of this host apart. */
static bool takes_process(const struct request *request)
{
	return request->verb == VERB_MIGRATE || request->verb == VERB_CHECKPOINT;
}

/* Numbers of processes mean something on one node only. */
static bool may_be_handed_on(const struct request *request)
{
	switch (request->verb) {
	case VERB_DRAIN:
	case VERB_UNDRAIN:
		return true;
	case VERB_MIGRATE:
	case VERB_PLAN:
	case VERB_BALANCE:
	case VERB_PROTECT:
	case VERB_UNPROTECT:
		return !request->pid;
	case VERB_PS:
	case VERB_HISTORY:
		return request->here;
	default:
		return false;
	}
}

/* Whoever moves units by itself had better look anew at which of them should. */
static bool may_wait(const struct daemon *d, struct client *c, const struct request *request)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	size_t waiting = 0;

	for (size_t i = 0; i < CLIENTS_PENDING_MAX; i++)
		waiting += d->clients[i].waits;
	if (!c->turn_until_ns)
		c->turn_until_ns = now + TURN_MS * 1000000ull;
	return !request->here && waiting < TURNS_MAX && now < c->turn_until_ns;
}

/* false: it has been refused, or c->waits now. */
static bool has_turn(struct daemon *d, struct client *c, const struct request *request)
{
	struct worker *w = takes_process(request) && request->pid ? worker_find_source(d, request->pid) : NULL;
	struct err e = ERR_INIT;

	if (!w)
		return true;
	c->waits = may_wait(d, c, request);
	if (c->waits)
		return false;
	err_set(&e, -EALREADY, "process %d is being moved to %s already: wait for that migration", (int)request->pid, w->peer);
	refuse(c->fd, "busy", &e);
	return false;
}

static void dispatch(struct daemon *d, struct client *c, struct request *request)
{
	struct err e = ERR_INIT;
	struct worker *w;
	bool child;

	if (request->verb == VERB_CANCEL) {
		err_set(&e, -EINVAL, "cancel must follow a migrate request on the same connection");
		refuse(c->fd, "bad-request", &e);
		return;
	}
	if (c->peer && !may_be_handed_on(request)) {
		err_set(&e, -EINVAL, "another node may hand on migrations and protection of units that it names, drain, undrain and balance, and ask for the units and moves that are here");
		refuse(c->fd, "bad-request", &e);
		return;
	}
	if (!c->peer && request->pid && check_namespace(c->fd, &e) < 0) {
		refuse(c->fd, "namespace", &e);
		return;
	}
	if (access_check(request, &e) < 0) {
		refuse(c->fd, "permission", &e);
		return;
	}
	if (request->caller.limited && worker_count_of(d, &request->caller) >= WORKERS_EACH_MAX) {
		err_set(&e, -EBUSY, "user %u has %d requests under way already: wait until some have ended", request->caller.uid, WORKERS_EACH_MAX);
		refuse(c->fd, "limit", &e);
		return;
	}
	find_unit(d, request);
	if (!has_turn(d, c, request))
		return;
	if (request->verb == VERB_STARTED && !(request->take && node_state_balances(d->shared))) {
		do_started(d, request, c->fd); /* nobody is asked: a line and a file, and a program waits for it to begin */
		return;
	}
	w = worker_start(d, takes_process(request) ? WORKER_SOURCE : WORKER_REQUEST, &c->fd, 1, &child, &e);
	if (child)
		_exit(serve(d, request, c->fd));
	if (!w) {
		refuse(c->fd, "limit", &e);
		return;
	}
	d->redirects = d->redirects || request->verb == VERB_ADDRESS;
	w->moving = takes_process(request) ? request->pid : 0;
	w->caller = request->caller;
	snprintf(w->peer, sizeof(w->peer), "%s", request->host);
}

/* A client that waits has only one more thing to say. */
static void cancel(struct client *c)
{
	struct err e = ERR_INIT;

	err_set(&e, -ECANCELED, "it waited for the end of another migration of that process");
	refuse(c->fd, "cancelled", &e);
	client_drop(c);
}

/* Its line is complete. */
static void obey(struct daemon *d, struct client *c, size_t len)
{
	struct request request;
	struct err e = ERR_INIT;

	c->waits = false;
	if (request_parse(c->line, len, &request, &e) < 0) {
		refuse(c->fd, "bad-request", &e);
	} else {
		if (!c->peer)
			request.caller = c->caller;
		dispatch(d, c, &request);
	}
	explicit_bzero(&request.key, sizeof(request.key)); /* a child has its own */
	if (!c->waits)
		client_drop(c);
	else if (c->have > len + 1) /* said in one breath */
		cancel(c);
}

static size_t line_length(const struct client *c)
{
	const char *end = memchr(c->line, '\n', c->have);

	return end ? (size_t)(end - c->line) : SIZE_MAX;
}

int clients_tick(struct daemon *d)
{
	int next_ms = -1;

	for (size_t i = 0; i < CLIENTS_PENDING_MAX; i++) {
		struct client *c = &d->clients[i];

		if (c->waits)
			obey(d, c, line_length(c));
		if (c->waits)
			next_ms = TURN_LOOK_MS;
	}
	return next_ms;
}

static void hear_waiting(struct client *c)
{
	char text[256];
	ssize_t n = recv(c->fd, text, sizeof(text), MSG_DONTWAIT); /* who has the other end of a pair can make it block */

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		cancel(c);
	else
		client_drop(c);
}

static void hear(struct daemon *d, struct client *c)
{
	ssize_t n = recv(c->fd, c->line + c->have, REQUEST_BYTES_MAX - c->have, MSG_DONTWAIT);
	struct err e = ERR_INIT;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_drop(c);
		return;
	}
	c->have += (size_t)n;
	if (line_length(c) != SIZE_MAX) {
		obey(d, c, line_length(c));
	} else if (c->have == REQUEST_BYTES_MAX) {
		err_set(&e, -EINVAL, "the request is longer than %u bytes", REQUEST_BYTES_MAX);
		refuse(c->fd, "bad-request", &e);
		client_drop(c);
	}
}

void client_input(struct daemon *d, struct client *c)
{
	if (c->waits)
		hear_waiting(c);
	else
		hear(d, c);
}
