// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * migrate.c - godwit migrate: asks for a move, shows its progress, cancels it on Ctrl-C
 *
 * The first SIGINT or SIGTERM asks godwitd to cancel and waits for what comes of it: the process has either stayed or already left. The
 * second one leaves without knowing.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>

#include "base/util.h"
#include "cli/bridge.h"
#include "cli/cli.h"

struct options {
	int pid;            /* 0: a unit is named */
	const char *process; /* as it was given: a number, or several, or HOME:PID */
	const char *host;
	const char *strategy, *files, *tcp, *ssh;
	unsigned timeout_ms;
	bool bootstrap, as_json, quiet, portable, dry_run;
};

struct progress {
	bool shown;         /* a line is on the terminal */
	bool enabled;
	uint64_t last_ns;
	double last_bytes, rate;
};

static void clear_line(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}

static void show_progress(struct progress *p, const struct options *o, const json_t *line)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	double bytes = (double)number_of(line, "bytes_sent");
	char rate[16], sent[32], total[32], text[160];

	if (!p->enabled)
		return;
	if (p->last_ns && now > p->last_ns + 50000000 && bytes >= p->last_bytes)
		p->rate = (bytes - p->last_bytes) * 1e9 / (double)(now - p->last_ns);
	if (!p->last_ns || now > p->last_ns + 50000000) {
		p->last_ns = now;
		p->last_bytes = bytes;
	}
	bytes_text(p->rate, rate);
	count_text(number_of(line, "pages_sent"), sent);
	count_text(number_of(line, "pages_total"), total);
	snprintf(text, sizeof(text), "%.30s to %.30s: %-10.20s %.20s of %.20s pages, %.12s/s", o->process, o->host, text_of(line, "phase"), sent, total, rate);
	text[MIN(strlen(text), 79u)] = 0;
	fputs("\r\033[K", stderr);
	put_text(stderr, text);
	fflush(stderr);
	p->shown = true;
}

static void show_moved(const json_t *r)
{
	char bytes[16], sent[32], total[32], file[32], zero[32], faulted[32];
	long long here = number_of(r, "pid");
	const json_t *note;
	size_t i;

	bytes_text((double)number_of(r, "bytes_sent"), bytes);
	count_text(number_of(r, "pages_sent"), sent);
	count_text(number_of(r, "pages_total"), total);
	count_text(number_of(r, "pages_skipped_file"), file);
	count_text(number_of(r, "pages_skipped_zero"), zero);
	count_text(number_of(r, "pages_faulted"), faulted);
	put_text(stdout, text_of(r, "unit"));
	fputs(" now runs on ", stdout);
	put_text(stdout, text_of(r, "to"));
	printf(" as process %lld (%s).\n", here, text_of(r, "strategy"));
	printf("It stood still for %.2f ms; the whole move took %.0f ms and sent %s.\n", (double)number_of(r, "freeze_us") / 1000.0,
	       json_number_value(json_object_get(r, "total_ms")), bytes);
	if (strcmp(text_of(r, "strategy"), "portable") != 0)
		printf("Of %s pages %s were sent (%s of them on demand); not sent: %s in files that are there too, %s zero.\n", total, sent, faulted, file,
	       zero);
	json_array_foreach(json_object_get(r, "notes"), i, note) {
		fputs("Note: ", stdout);
		put_text(stdout, json_string_value(note));
		fputs("\n", stdout);
	}
}

/* The object for --json when godwitd did not give one. */
static json_t *empty_result(const struct options *o, const char *outcome)
{
	static const char *const zeros[] = { "freeze_us", "total_ms", "bytes_sent", "pages_total", "pages_sent", "pages_skipped_file",
					     "pages_skipped_zero", "pages_faulted", "rounds" };
	json_t *r = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i}", "unit", o->pid ? "" : o->process, "from", "", "to", o->host, "strategy", o->strategy, "outcome", outcome,
			      "pid", o->pid);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(zeros); i++)
		json_object_set_new(r, zeros[i], json_integer(0));
	return r;
}

static int status_of(const char *code)
{
	static const struct {
		const char *code;
		int status;
	} table[] = {
		{ "refused", EXIT_REFUSED },     { "here-already", EXIT_REFUSED }, { "busy", EXIT_REFUSED },      { "namespace", EXIT_REFUSED },
		{ "cancelled", EXIT_CANCELLED }, { "in-doubt", EXIT_IN_DOUBT },    { "bad-request", EXIT_USAGE },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(table[i].code, code))
			return table[i].status;
	return EXIT_FAILED;
}

/* Of the process, in a sentence that goes on with why. */
static const char *what_became(const json_t *error, int status)
{
	if (!strcmp(text_of(error, "code"), "unknown-unit") || number_of(error, "errno") == ESRCH)
		return "was not found (pgrep NAME says numbers)";
	return status == EXIT_IN_DOUBT ? "may have moved, nobody knows yet" : "stays here and goes on";
}

/* line: godwitd's error line. Shows it; returns the exit status. */
static int show_error(const struct options *o, const json_t *line)
{
	const json_t *error = json_object_get(line, "error"), *refusals = json_object_get(error, "refusals");
	const char *code = text_of(error, "code");
	int status = status_of(code);
	json_t *r;

	if (!o->as_json && json_array_size(refusals)) {
		complain("process %s cannot move to %s, it was not touched:", o->process, o->host);
		show_refusals(stderr, refusals);
		return status;
	}
	if (!o->as_json && status == EXIT_USAGE) {
		complain("migrate: %s", text_of(error, "message"));
		return status;
	}
	if (!o->as_json) {
		complain("process %s %s: %s", o->process, what_became(error, status), text_of(error, "message"));
		return status;
	}
	r = json_incref(json_object_get(line, "result"));
	if (!r)
		r = empty_result(o, status == EXIT_REFUSED ? "refused" : "failed");
	json_object_set_new(r, "error", json_pack("{s:s, s:s}", "code", code, "message", text_of(error, "message")));
	json_object_set_new(r, "refusals", refusals ? json_incref((json_t *)refusals) : json_array());
	show_json(r);
	json_decref(r);
	return status;
}

/* A failure on this side. */
static int show_own_error(const struct options *o, const char *code, const char *message)
{
	json_t *line;
	int status;

	if (!o->as_json) {
		complain("%s", message);
		return status_of(code);
	}
	line = json_pack("{s:{s:s, s:s, s:[]}, s:o}", "error", "code", code, "message", message, "refusals", "result",
			 empty_result(o, strcmp(code, "in-doubt") ? "failed" : "in-doubt"));
	status = show_error(o, line);
	json_decref(line);
	return status;
}

/* Handles one line; returns the exit status when it was the final one, -1 otherwise. */
static int on_line(const struct options *o, struct progress *p, const json_t *line)
{
	const char *event = text_of(line, "event");

	if (!strcmp(event, "progress")) {
		show_progress(p, o, line);
		return -1;
	}
	clear_line(p);
	if (!strcmp(event, "error"))
		return show_error(o, line);
	if (strcmp(event, "result"))
		return -1; /* a later version's event */
	if (o->as_json)
		show_json(json_object_get(line, "result"));
	else if (o->dry_run && !o->quiet)
		show_plan(json_object_get(line, "result"));
	else if (!o->quiet)
		show_moved(json_object_get(line, "result"));
	return EXIT_OK;
}

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int converse(const struct options *o, struct ask *ask, struct progress *p)
{
	cleanup_close int signals = open_signals();
	struct signalfd_siginfo info;
	struct err e = ERR_INIT;
	bool cancelling = false;

	for (;;) {
		struct pollfd fds[2] = { { .fd = ask->fd, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
		json_t *line = NULL;
		int r, status;

		while ((r = ask_next(ask, false, &line, &e)) > 0) {
			status = on_line(o, p, line);
			json_decref(line);
			if (status >= 0)
				return status;
		}
		if (r < 0) {
			clear_line(p);
			return show_own_error(o, "in-doubt",
					      "godwitd's worker ended without an answer; `godwit ps` on both hosts says where the process is");
		}
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return show_own_error(o, "in-doubt", "poll failed");
		if (signals < 0 || read(signals, &info, sizeof(info)) != sizeof(info))
			continue;
		clear_line(p);
		if (cancelling)
			return show_own_error(o, "in-doubt", "left without an answer; `godwit ps` on both hosts says where the process is");
		cancelling = true;
		if (!o->quiet && !o->as_json)
			complain("cancelling, if it is not too late (again to leave without knowing)");
		ask_send(ask, json_pack("{s:s}", "verb", "cancel"), NULL);
	}
}

static int read_options(int argc, char **argv, struct options *ret, json_t *request)
{
	static const struct option options[] = {
		{ "strategy", required_argument, NULL, 's' }, { "timeout", required_argument, NULL, 't' },
		{ "json", no_argument, NULL, 'j' },           { "quiet", no_argument, NULL, 'q' },
		{ "files", required_argument, NULL, 'f' },    { "tcp", required_argument, NULL, 'c' },
		{ "ssh", required_argument, NULL, 'S' },      { "bootstrap", no_argument, NULL, 'b' },
		{ "portable", no_argument, NULL, 'p' },      { "dry-run", no_argument, NULL, 'n' },
		{ 0 },
	};
	struct err e = ERR_INIT;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":s:t:q", options, NULL)) != -1) {
		if (o == 's')
			ret->strategy = optarg;
		else if (o == 'f')
			ret->files = optarg;
		else if (o == 'c')
			ret->tcp = optarg;
		else if (o == 'S')
			ret->ssh = optarg;
		else if (o == 'b')
			ret->bootstrap = true;
		else if (o == 'j')
			ret->as_json = true;
		else if (o == 'q')
			ret->quiet = true;
		else if (o == 'p')
			ret->portable = true;
		else if (o == 'n')
			ret->dry_run = true;
		else if (o != 't')
			return option_error("migrate", o, argv);
		else if (duration_parse(optarg, &ret->timeout_ms, &e) < 0)
			return usage_error("migrate", "--timeout: %s", e.message);
	}
	if (ret->dry_run && ret->bootstrap)
		return usage_error("migrate", "--dry-run changes nothing anywhere, and --bootstrap does");
	if (argc - optind != 2)
		return usage_error("migrate", "expected a process and a host, got %d argument%s", argc - optind, argc - optind == 1 ? "" : "s");
	ret->process = argv[optind];
	if (!strchr(ret->process, ':') && pids_parse(ret->process, &ret->pid, request, &e) < 0)
		return usage_error("migrate", "%s, and no HOME:PID", e.message);
	ret->host = argv[optind + 1];
	return EXIT_OK;
}

/* The host as godwitd is to know it. EXIT_OK, or the failure has been shown. */
static int find_way(const struct options *o, struct bridge_way *way, const char **ret_host)
{
	struct err e = ERR_INIT;
	int r;

	*ret_host = o->host;
	if (!bridge_is_way(o->host))
		return EXIT_OK;
	r = bridge_go(o->host, o->ssh, false, o->as_json, o->bootstrap, way, &e);
	*ret_host = way->host;
	return r < 0 ? show_own_error(o, r == -ECANCELED ? "cancelled" : "unknown-host", e.message) : EXIT_OK;
}

int verb_migrate(int argc, char **argv)
{
	struct options o = { .strategy = "freeze-free", .files = "auto", .tcp = "keep" };
	cleanup_ask struct ask ask = { .fd = -1 };
	struct bridge_way way = { .ask = { .fd = -1 } };
	struct progress p = { 0 };
	const char *host = NULL;
	struct err e = ERR_INIT;
	json_t *request = json_pack("{s:s}", "verb", "migrate");
	int status = read_options(argc, argv, &o, request);

	if (!status)
		status = find_way(&o, &way, &host);
	if (status) {
		json_decref(request);
		ask_close(&way.ask);
		return status;
	}
	if (o.dry_run) /* a verb of its own: a godwitd that does not know it must not move anything */
		json_object_set_new(request, "verb", json_string("plan"));
	p.enabled = !o.quiet && !o.as_json && isatty(STDERR_FILENO);
	json_object_update_new(request, json_pack("{s:s, s:s, s:s, s:s, s:I}", "host", host, "strategy", o.strategy, "files", o.files, "tcp", o.tcp, "timeout_ms",
						  (json_int_t)o.timeout_ms));
	if (o.portable)
		json_object_set_new(request, "portable", json_true());
	if (o.pid)
		json_object_set_new(request, "pid", json_integer(o.pid));
	else
		json_object_set_new(request, "unit", json_string(o.process));
	status = ask_open(&ask, request, &e) < 0 ? show_own_error(&o, "no-daemon", e.message) : converse(&o, &ask, &p);
	ask_close(&way.ask);
	return status;
}
