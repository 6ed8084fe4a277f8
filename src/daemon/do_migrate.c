// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * do_migrate.c - the source worker: one migration for one client
 *
 * The client may hang up or send {"verb":"cancel"}; before the commit that cancels, after it the engine ignores it. Progress lines are
 * dropped when the client does not read, so that it can never hold the migration up.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/history.h"
#include "daemon/owner.h"
#include "daemon/portable.h"
#include "daemon/protect_journal.h"
#include "daemon/reply.h"
#include "home/where.h"
#include "migrate/kin.h"
#include "migrate/migrate.h"
#include "migrate/registry.h"
#include "wire/bridge.h"
#include "wire/conn.h"

#define PROGRESS_INTERVAL_NS 100000000ull

struct watcher {
	const struct daemon *d;
	const char *reason;
	pid_t pid;
	struct owner_claim claim;
	struct protect_leaving leaving;
	int fd;
	bool cancelled;
	bool answered; /* the client has its result; the worker goes on without it */
	const char *phase;
	uint64_t last_ns;
	char input[256];
	size_t have;
};

/* Looks whether the client wants to stop; remembers it. */
static bool client_cancels(struct watcher *w)
{
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	struct request request;
	ssize_t n;
	char *end;

	if (w->cancelled || poll(&p, 1, 0) <= 0)
		return w->cancelled;
	if (p.revents & (POLLHUP | POLLERR)) {
		w->cancelled = true;
		return true;
	}
	n = recv(w->fd, w->input + w->have, sizeof(w->input) - w->have, MSG_DONTWAIT);
	if (n <= 0) /* it has only closed its sending side */
		return false;
	w->have += (size_t)n;
	end = memchr(w->input, '\n', w->have);
	if (end && !request_parse(w->input, (size_t)(end - w->input), &request, NULL) && request.verb == VERB_CANCEL)
		w->cancelled = true;
	if (end || w->have == sizeof(w->input))
		w->have = 0;
	return w->cancelled;
}

static void log_moved(const struct migrate_report *report, const char *reason)
{
	log_info("event=moved unit=%s to=%s freeze_us=%llu total_ms=%.1f pages_sent=%llu reason=\"%s\"", report->unit, report->to,
		 (unsigned long long)report->freeze_us, report->total_ms, (unsigned long long)report->pages_sent, reason);
}

static bool on_progress(const struct migrate_report *report, void *arg)
{
	struct watcher *w = arg;
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	uint64_t skipped = report->pages_skipped_file + report->pages_skipped_zero;
	cleanup_free char *text = NULL;
	json_t *line;

	history_progress(w->d->history, w->d->self, report);
	if (w->answered)
		return false;
	if (report->outcome && !strcmp(report->outcome, "moved")) {
		history_end(w->d->history, w->d->self, report, "moved", NULL, false);
		if (report->left) /* another process of that number may move */
			worker_set_done(w->d);
		log_moved(report, w->reason);
		reply_result(w->fd, reply_report(report));
		shutdown(w->fd, SHUT_RDWR);
		w->answered = true;
		return false;
	}
	if (client_cancels(w))
		return true;
	if (w->phase == report->phase && now - w->last_ns < PROGRESS_INTERVAL_NS)
		return false;
	w->phase = report->phase;
	w->last_ns = now;
	line = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:I}", "event", "progress", "phase", report->phase ? report->phase : "",
			 "pages_total", (json_int_t)report->pages_total, "pages_sent", (json_int_t)report->pages_sent, "pages_skipped",
			 (json_int_t)skipped, "pages_faulted",
			 (json_int_t)report->pages_faulted, "rounds", (int)report->rounds, "bytes_sent", (json_int_t)report->bytes_sent);
	text = json_dumps(line, JSON_COMPACT);
	json_decref(line);
	if (text) {
		size_t len = strlen(text);

		text[len] = '\n';
		(void)!send(w->fd, text, len + 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	return false;
}

/* Nobody can bind to an address of another host, so that the interfaces need not be listed; where that is allowed (ip_nonlocal_bind) they are. */
static bool may_be_own(struct sockaddr_in address)
{
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_port = 0;
	return fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno != EADDRNOTAVAIL;
}

static bool is_own_address(const struct config *config, const struct sockaddr_in *address)
{
	struct ifaddrs *all = NULL, *i;
	bool found = false;

	if (address->sin_port != config->listen.sin_port || !may_be_own(*address) || getifaddrs(&all) < 0)
		return false;
	for (i = all; i && !found; i = i->ifa_next)
		found = i->ifa_addr && i->ifa_addr->sa_family == AF_INET &&
			((struct sockaddr_in *)i->ifa_addr)->sin_addr.s_addr == address->sin_addr.s_addr;
	freeifaddrs(all);
	return found;
}

static int unknown_host(const struct daemon *d, const char *host, const char *why, struct err *e)
{
	cleanup_free struct cluster_node *nodes = NULL;
	char known[300] = "";
	size_t i, n = 0, len = 0;

	node_list_bridged(d, &nodes, &n, NULL);
	for (i = 1; i < n && len < sizeof(known) - 1; i++)
		len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s", len ? ", " : "", nodes[i].name);
	return err_set(e, -ENOENT, "host '%s': %s; nodes known here: %s (`godwit nodes`)", host, why,
		       len ? known : "none");
}

/*
 * A node's name, an address, or a name that the resolver knows; each of the latter two with :PORT or without, and for root only: home serves files to who has the unit, and
 * believes what it says, which is not for any host that a user names.
 */
int host_resolve(const struct daemon *d, const struct caller *caller, const char *host, struct sockaddr_in *ret, struct err *e)
{
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *list = NULL;
	char name[256];
	char *colon;
	int r;

	if (node_address(d, host, ret))
		return 0;
	if (caller->limited)
		return unknown_host(d, host, "only root may move processes to hosts that are no nodes of the cluster", e);
	if (!conn_address_parse(host, ret, NULL))
		return 0;
	snprintf(name, sizeof(name), "%s", host);
	colon = strchr(name, ':');
	if (colon)
		*colon = 0;
	r = getaddrinfo(name, NULL, &hints, &list);
	if (r)
		return unknown_host(d, host, gai_strerror(r), e);
	*ret = *(struct sockaddr_in *)list->ai_addr;
	freeaddrinfo(list);
	ret->sin_port = htons(CONN_DEFAULT_PORT);
	if (colon) {
		unsigned long port = strtoul(colon + 1, NULL, 10);

		if (port < 1 || port > 65535)
			return unknown_host(d, host, "the port is no number from 1 to 65535", e);
		ret->sin_port = htons((uint16_t)port);
	}
	return 0;
}

/* The stable word of a failure. */
static const char *outcome_word(int r, const struct migrate_report *report, const struct refusals *refusals)
{
	if (report->outcome && strcmp(report->outcome, "moved"))
		return report->outcome;
	if (refusals->n)
		return "refused";
	return r == -ECANCELED ? "cancelled" : "failed";
}

static void say_why(int r, const struct refusals *refusals, struct err *e)
{
	cleanup_free char *text = !e->code && refusals->n ? refusals_text(refusals) : NULL;

	if (!e->code)
		err_set(e, r, "%s", text ? text : strerror(-r));
}

/* The stable word when there is nowhere to go. */
static const char *no_destination(int r)
{
	return r == -ENOENT ? "unknown-host" : "here-already";
}

static void name_report(const struct daemon *d, pid_t pid, struct migrate_report *report)
{
	snprintf(report->unit, sizeof(report->unit), "%s:%d", d->config.name, (int)pid);
	snprintf(report->from, sizeof(report->from), "%s", d->config.name);
}

static void finish(const struct watcher *w, int r, struct migrate_report *report, const struct refusals *refusals, struct err *e)
{
	if (r >= 0) {
		report->outcome = "moved";
		history_end(w->d->history, w->d->self, report, report->outcome, NULL, true);
		log_moved(report, w->reason);
		reply_result(w->fd, reply_report(report));
		return;
	}
	report->outcome = outcome_word(r, report, refusals);
	say_why(r, refusals, e);
	history_end(w->d->history, w->d->self, report, report->outcome, e->message, true);
	log_warning("event=not-moved outcome=%s error=\"%s\"", report->outcome, e->message);
	reply_error(w->fd, report->outcome, e, refusals, reply_report(report));
}

/* "home": the host that the unit's name begins with. */
static int name_destination(const struct request *request, char host[sizeof(request->host)], struct err *e)
{
	struct registry_entry entry;
	char *colon;

	snprintf(host, sizeof(request->host), "%s", request->host);
	if (strcmp(host, "home"))
		return 0;
	if (registry_lookup_foreign(request->pid, &entry, NULL) < 0)
		return err_set(e, -EINVAL, "process %d has not come from another host: it is at home", (int)request->pid);
	colon = strrchr(entry.unit, ':');
	if (colon)
		*colon = 0;
	snprintf(host, sizeof(request->host), "%.255s", entry.unit);
	return 0;
}

void request_name_unit(const struct daemon *d, struct request *request)
{
	struct door_where where;
	char unit[sizeof(request->unit)];

	if (!request->pid)
		return;
	snprintf(unit, sizeof(unit), "%s:%d", d->config.name, (int)request->pid);
	if (where_ask(unit, &where, NULL) < 0 || where.pid != request->pid)
		return;
	memcpy(request->unit, unit, sizeof(unit));
	request->pid = 0;
}

void request_keep_tops(struct request *request)
{
	pid_t v[REQUEST_ALSO_MAX + 1] = { request->pid };
	size_t n = request->n_also + 1;

	if (!request->pid || !request->n_also)
		return;
	memcpy(v + 1, request->also, request->n_also * sizeof(*v));
	kin_keep_tops(v, &n);
	request->pid = v[0];
	request->n_also = n - 1;
	memcpy(request->also, v + 1, request->n_also * sizeof(*v));
}

/* "ssh:NODE": over the bridge that leads to it, and not as the cluster would reach a node of that name. */
#define BY_BRIDGE "ssh:"

static bool is_bridged(const struct request *request, char host[sizeof(request->host)])
{
	if (strncmp(host, BY_BRIDGE, strlen(BY_BRIDGE)) != 0)
		return false;
	memmove(host, host + strlen(BY_BRIDGE), strlen(host + strlen(BY_BRIDGE)) + 1);
	return true;
}

static int resolve_bridged(const struct request *request, const char *node, struct sockaddr_in *ret, struct err *e)
{
	if (request->caller.limited)
		return err_set(e, -EACCES, "only root may move processes to hosts that are no nodes of the cluster");
	if (!bridge_find(node, NULL))
		return err_set(e, -ENOENT, "there is no bridge to %s any more: `godwit bridge` lists those that there are", node);
	*ret = bridge_address(node);
	return 0;
}

/* Of a unit that is away. Also where the bridge is not there at the moment. */
static bool home_is_bridged(const struct daemon *d, pid_t pid)
{
	char home[sizeof(((struct registry_entry *)0)->unit)];
	struct registry_entry entry;
	struct cluster_node node;

	if (registry_lookup_foreign(pid, &entry, NULL) < 0)
		return false;
	snprintf(home, sizeof(home), "%.*s", (int)strcspn(entry.unit, ":"), entry.unit);
	return !config_find(&d->config, home) && !cluster_view_find(d->view, home, &node) && bridge_was(home);
}

/* Where request->pid is to go; order->dest_name is in `host`. */
static int find_destination(const struct daemon *d, const struct request *request, char host[sizeof(request->host)], struct migrate_request *order, struct err *e)
{
	int r = name_destination(request, host, e);

	if (r < 0)
		return r;
	order->home_is_bridged = home_is_bridged(d, request->pid);
	if (!strcmp(host, d->config.name))
		return err_set(e, -EINVAL, "process %d is on %s already: name another host", (int)request->pid, d->config.name);
	r = is_bridged(request, host) ? resolve_bridged(request, host, &order->dest, e) : host_resolve(d, &request->caller, host, &order->dest, e);
	if (!r && is_own_address(&d->config, &order->dest))
		r = err_set(e, -EINVAL, "%s is an address of this host: process %d is here already", host, (int)request->pid);
	return r;
}

/* The engine moves between hosts of one architecture; to others, and where it is asked for, the program's own state does. */
static int move_somehow(const struct daemon *d, const struct request *request, const struct migrate_request *order, struct migrate_report *report, struct refusals *refusals, struct err *e)
{
	int r = request->portable ? 0 : migrate_source(order, report, refusals, e);

	if (!request->portable && (r >= 0 || refusals->n != 1 || strcmp(refusals->v[0].code, "node.arch") != 0))
		return r;
	refusals_free(refusals);
	*e = ERR_INIT;
	report->outcome = NULL;
	return portable_leave(d, order, report, refusals, e);
}

static bool on_question(const struct migrate_report *report, void *arg)
{
	(void)report;
	return client_cancels(arg);
}

int do_migrate_ask(const struct daemon *d, const struct request *request, int fd, struct migrate_asked *ret, struct refusals *refusals, struct err *e)
{
	char host[sizeof(request->host)];
	struct watcher watcher = { .d = d, .fd = fd };
	struct migrate_request order = {
		.pid = request->pid, .also = request->also, .n_also = request->n_also, .caller = &request->caller, .self_name = d->config.name, .self = d->config.listen, .dest_name = host, .strategy = request->strategy,
		.files = request->files, .tcp = request->tcp, .progress = on_question, .progress_arg = &watcher, .ask_only = true,
		.plan = &ret->plan,
	};
	struct migrate_report *report = &ret->report;
	int r;

	*ret = (struct migrate_asked){ .report.strategy = request->strategy };
	name_report(d, request->pid, report);
	r = find_destination(d, request, host, &order, e);
	snprintf(report->to, sizeof(report->to), "%s", host);
	if (r < 0) {
		report->outcome = "failed";
		ret->code = no_destination(r);
		return r;
	}
	r = owner_ask(&d->config, request->pid, refusals, e);
	if (r == 0)
		r = move_somehow(d, request, &order, report, refusals, e);
	if (report->outcome && !strcmp(report->outcome, "possible"))
		return 0;
	ret->code = report->outcome = outcome_word(r, report, refusals);
	say_why(r, refusals, e);
	return r;
}

static int may_leave(const char *unit, unsigned moves, const char *to, struct refusals *refusals, void *arg, struct err *e)
{
	struct watcher *w = arg;

	int r = owner_claim_take(&w->claim, unit, moves, to, refusals, e);

	if (r == 0)
		protect_note_leaving(&w->leaving, w->pid, to);
	return r;
}

static void has_left(void *arg)
{
	struct watcher *w = arg;

	protect_note_end(&w->leaving, true);
	owner_claim_end(&w->claim, true);
}

static int migrate_here(const struct daemon *d, const struct request *request, int fd)
{
	char host[sizeof(request->host)];
	struct watcher watcher = { .d = d, .fd = fd, .reason = request->reason, .pid = request->pid, .claim = { .config = &d->config } };
	struct migrate_request order = {
		.pid = request->pid, .also = request->also, .n_also = request->n_also, .caller = &request->caller, .self_name = d->config.name, .self = d->config.listen, .dest_name = host, .strategy = request->strategy,
		.files = request->files, .tcp = request->tcp, .timeout_ms = request->timeout_ms, .reason = request->reason, .progress = on_progress, .progress_arg = &watcher,
		.may_leave = may_leave, .has_left = has_left, .leave_arg = &watcher,
	};
	struct migrate_report report = { .strategy = request->strategy };
	struct refusals refusals = { 0 };
	struct err e = ERR_INIT;
	int r;

	log_set_context("side=source pid=%d", (int)request->pid);
	name_report(d, request->pid, &report);
	r = find_destination(d, request, host, &order, &e);
	snprintf(report.to, sizeof(report.to), "%s", host);
	if (r < 0) {
		report.outcome = "failed";
		worker_set_done(d);
		reply_error(fd, no_destination(r), &e, NULL, reply_report(&report));
		return 1;
	}
	history_begin(d->history, d->self, request->pid, request->reason, &report);
	r = move_somehow(d, request, &order, &report, &refusals, &e);
	if (r >= 0 || !report.outcome || strcmp(report.outcome, "in-doubt") != 0) {
		protect_note_end(&watcher.leaving, r >= 0);
		owner_claim_end(&watcher.claim, r >= 0);
	}
	worker_set_done(d);
	if (watcher.answered)
		history_end(d->history, d->self, &report, "moved", NULL, true);
	else
		finish(&watcher, r, &report, &refusals, &e);
	refusals_free(&refusals);
	return r < 0;
}

int do_migrate(const struct daemon *d, const struct request *given, int fd)
{
	struct request request = *given;
	struct migrate_report report = { .strategy = request.strategy, .outcome = "failed" };
	struct err e = ERR_INIT;
	int ret;

	request_keep_tops(&request);
	request_name_unit(d, &request);
	if (request.pid)
		return migrate_here(d, &request, fd);
	if (request.here) {
		err_set(&e, -ESRCH, "process %d has left this host already", (int)given->pid);
		worker_set_done(d);
		reply_error(fd, "not-here", &e, NULL, NULL);
		return 1;
	}
	log_set_context("side=order unit=%s", request.unit);
	ret = do_forward(d, &request, fd, &e);
	if (ret >= 0)
		return 0;
	snprintf(report.unit, sizeof(report.unit), "%s", request.unit);
	snprintf(report.from, sizeof(report.from), "%s", d->config.name);
	snprintf(report.to, sizeof(report.to), "%s", request.host);
	worker_set_done(d);
	reply_error(fd, "unknown-unit", &e, NULL, reply_report(&report));
	return 1;
}
