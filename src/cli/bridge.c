// SPDX-License-Identifier: GPL-2.0-or-later
/* bridge.c - godwit bridge: bridges to other hosts over ssh, and the end of one that ssh has begun here; see bridge.h */
#include "cli/bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/program.h"
#include "base/util.h"
#include "cli/bootstrap.h"
#include "cli/ssh.h"

#define START_TRIES 100
#define START_AGAIN_US 50000

bool bridge_is_way(const char *host)
{
	return strchr(host, '@') || !strncmp(host, "ssh://", 6);
}

/* --- both ends of ssh go to godwitd --- */

static int send_ends(int to, int in, int out, struct err *e)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	const int ends[2] = { in, out };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(ends));
	memcpy(CMSG_DATA(c), ends, sizeof(ends));
	return sendmsg(to, &m, MSG_NOSIGNAL) == 1 ? 0 : err_sys(e, -errno, "sending to godwitd");
}

/* An error of godwitd's. */
static int fail(const json_t *line, struct err *e)
{
	const json_t *error = json_object_get(line, "error");

	return err_set(e, !strcmp(text_of(error, "code"), "ssh-ended") ? -ECONNRESET : -EIO, "%s", text_of(error, "message"));
}

/* godwitd is asked, and waits for both ends. */
static int begin(json_t *request, struct ask *ask, struct err *e)
{
	json_t *line = NULL;
	int r = ask_open(ask, request, e);

	if (r == 0)
		r = ask_next(ask, true, &line, e);
	if (r > 0 && strcmp(text_of(line, "event"), "send") != 0)
		r = fail(line, e);
	json_decref(line);
	return MIN(r, 0);
}

static void pass_errors(struct ssh *ssh, bool quiet)
{
	char text[1024];
	ssize_t n = read(ssh->errors, text, sizeof(text));

	if (n <= 0)
		close_fdp(&ssh->errors);
	else if (!quiet)
		(void)!write(STDERR_FILENO, text, (size_t)n);
}

/* Until godwitd says that it has heard the other side. */
static int wait_made(struct ask *ask, struct ssh *ssh, int signals, bool quiet, json_t **ret, struct err *e)
{
	for (;;) {
		struct pollfd p[] = { { ask->fd, POLLIN, 0 }, { ssh->errors, POLLIN, 0 }, { signals, POLLIN, 0 } };
		int r;

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return err_sys(e, -errno, "poll");
		if (p[1].revents) {
			pass_errors(ssh, quiet);
			continue; /* first what ssh says, then what follows from it */
		}
		if (p[2].revents)
			return err_set(e, -ECANCELED, "cancelled");
		r = ask_next(ask, false, ret, e);
		if (r)
			return MIN(r, 0);
	}
}

/* As fast as ssh takes them; it may ask for a password first. */
static int bring_programs(struct ssh *ssh, struct bootstrap *b, int signals, bool quiet, const char *host, struct err *e)
{
	while (b->done < b->len) {
		struct pollfd p[] = { { ssh->fd, POLLOUT, 0 }, { ssh->errors, POLLIN, 0 }, { signals, POLLIN, 0 } };
		ssize_t n;

		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return err_sys(e, -errno, "poll");
		if (p[2].revents)
			return err_set(e, -ECANCELED, "cancelled");
		if (p[1].revents)
			pass_errors(ssh, quiet);
		if (!p[0].revents)
			continue;
		n = send(ssh->fd, b->data + b->done, b->len - b->done, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			while (ssh->errors >= 0)
				pass_errors(ssh, quiet);
			return ssh_end(ssh, host, e);
		}
		b->done += (size_t)MAX(n, 0);
	}
	return 0;
}

static int make(const char *host, const char *command, bool kept, bool quiet, struct bootstrap *b, struct bridge_way *ret, struct err *e)
{
	char what[SSH_COMMAND_MAX];
	cleanup_close int signals = -1;
	struct ssh ssh = SSH_NONE;
	sigset_t set, before;
	json_t *line = NULL;
	int r = begin(json_pack("{s:s, s:s, s:s, s:b}", "verb", "bridge", "action", "open", "how", host, "kept", kept), &ret->ask, e);

	if (r < 0)
		return r;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, &before);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	ssh_bridge_command(b->blocks, what);
	r = ssh_start(command, host, what, &ssh, e);
	if (r == 0 && b->blocks)
		r = bring_programs(&ssh, b, signals, quiet, host, e);
	if (r == 0)
		r = send_ends(ret->ask.fd, ssh.fd, ssh.fd, e);
	close_fdp(&ssh.fd);
	if (r == 0)
		r = wait_made(&ret->ask, &ssh, signals, quiet, &line, e);
	if (r == -ECANCELED)
		kill(ssh.pid, SIGTERM);
	else if (r == 0 && strcmp(text_of(line, "event"), "result") != 0 && (r = fail(line, e)) == -ECONNRESET)
		r = ssh_end(&ssh, host, e);
	if (r == 0)
		snprintf(ret->node, sizeof(ret->node), "%.64s", text_of(json_object_get(line, "result"), "node"));
	json_decref(line);
	ssh_close(&ssh);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return r;
}

/* Whether one leads there already. */
static bool is_there(const char *host, struct bridge_way *ret)
{
	cleanup_ask struct ask ask = { .fd = -1 };
	json_t *line = NULL;
	const json_t *b;
	bool found = false;
	size_t i;

	if (ask_open(&ask, json_pack("{s:s, s:s}", "verb", "bridge", "action", "list"), NULL) < 0 || ask_next(&ask, true, &line, NULL) < 0)
		return false;
	json_array_foreach(json_object_get(json_object_get(line, "result"), "bridges"), i, b) {
		if (found || strcmp(text_of(b, "how"), host) != 0)
			continue;
		found = true;
		snprintf(ret->node, sizeof(ret->node), "%.64s", text_of(b, "node"));
	}
	json_decref(line);
	return found;
}

int bridge_go(const char *host, const char *command, bool kept, bool quiet, bool bootstrap, struct bridge_way *ret, struct err *e)
{
	struct bootstrap b = { 0 };
	const char *from_environment = getenv("GODWIT_SSH");
	int r = 0;

	*ret = (struct bridge_way){ .ask = { .fd = -1 } };
	if (!command)
		command = from_environment && *from_environment ? from_environment : "ssh";
	if (kept || !is_there(host, ret)) {
		r = bootstrap ? bootstrap_pack(&b, e) : 0;
		if (r == 0)
			r = make(host, command, kept, quiet, &b, ret, e);
		free(b.data);
	}
	snprintf(ret->host, sizeof(ret->host), "ssh:%s", ret->node);
	return r;
}

/* --- the end that ssh has begun --- */

/* The one that belongs to this program, or any. */
static void __attribute__((noreturn)) run_daemon(void)
{
	char path[PATH_MAX], log[PATH_MAX], *slash;
	int null = open("/dev/null", O_RDWR), to;

	snprintf(log, sizeof(log), "%s.log", socket_path);
	slash = strrchr(log, '/');
	if (slash)
		*slash = 0;
	(void)mkdir(slash ? log : ".", 0755);
	if (slash)
		*slash = '/';
	to = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	setsid();
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(to >= 0 ? to : null, STDERR_FILENO);
	close_range(STDERR_FILENO + 1, ~0u, 0);
	(void)!chdir("/");
	if (fork() != 0)
		_exit(0);
	bootstrap_mark();
	execl(program_beside("godwitd", path), "godwitd", "--on-demand", "--socket", socket_path, (char *)NULL);
	execlp("godwitd", "godwitd", "--on-demand", "--socket", socket_path, (char *)NULL);
	dprintf(STDERR_FILENO, "godwitd: %s\n", strerror(errno));
	_exit(1);
}

/* What the daemon that did not come up has said last. */
static void last_words(char ret[400])
{
	char path[PATH_MAX], *line;
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "%s.log", socket_path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)lseek(fd, -399, SEEK_END);
	n = fd >= 0 ? read(fd, ret, 399) : 0;
	while (n > 0 && ret[n - 1] == '\n')
		n--;
	ret[MAX(n, 0)] = 0;
	line = strrchr(ret, '\n');
	if (line)
		memmove(ret, line + 1, strlen(line + 1) + 1);
}

/* As begin, with a godwitd that is started where there is none, and that lives as long as it is needed (godwitd --on-demand). */
static int begin_anyhow(json_t *request, struct ask *ask, struct err *e)
{
	char words[400];
	pid_t pid;
	int r = begin(json_incref(request), ask, e);

	if (r == -ENOENT || r == -ECONNREFUSED) {
		pid = fork();
		if (pid == 0)
			run_daemon();
		waitpid(pid, NULL, 0);
		for (int i = 0; i < START_TRIES && (r == -ENOENT || r == -ECONNREFUSED); i++) {
			usleep(START_AGAIN_US);
			*e = ERR_INIT;
			r = begin(json_incref(request), ask, e);
		}
	}
	json_decref(request);
	if (r != -ENOENT && r != -ECONNREFUSED)
		return r;
	last_words(words);
	return err_set(e, r, "no godwitd runs here, and none could be started: %s", words);
}

/* Until godwitd has closed the bridge, or ssh has ended, which godwitd sees. */
static int serve_stdio(const char *ssh_connection)
{
	cleanup_ask struct ask ask = { .fd = -1 };
	struct err e = ERR_INIT;
	json_t *line = NULL;
	int r;

	signal(SIGPIPE, SIG_IGN);
	r = begin_anyhow(json_pack("{s:s, s:s, s:s}", "verb", "bridge", "action", "serve", "ssh", ssh_connection), &ask, &e);
	if (r == 0)
		r = send_ends(ask.fd, STDIN_FILENO, STDOUT_FILENO, &e);
	/* godwitd has them alone: their end is that of the bridge */
	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	while (r == 0 && ask_next(&ask, true, &line, &e) > 0) {
		if (!strcmp(text_of(line, "event"), "error"))
			r = fail(line, &e);
		json_decref(line);
	}
	if (r < 0 && r != -ECONNRESET)
		complain("%s", e.message);
	return r < 0 ? EXIT_FAILED : EXIT_OK;
}

/* --- the verb --- */

static void show_bridges(const json_t *result)
{
	const json_t *list = json_object_get(result, "bridges"), *b;
	const char *heading[] = { "NODE", "HOW", "MADE BY", "ADDRESS" };
	size_t n = json_array_size(list), i;
	char **cells = calloc((n + 1) * ARRAY_SIZE(heading), sizeof(*cells));

	if (!cells)
		return;
	if (!n)
		puts("There is no bridge.");
	for (i = 0; i < ARRAY_SIZE(heading); i++)
		cells[i] = (char *)(uintptr_t)heading[i];
	json_array_foreach(list, i, b) {
		char **row = cells + (i + 1) * ARRAY_SIZE(heading);
		bool ours = json_is_true(json_object_get(b, "ours"));

		row[0] = (char *)(uintptr_t)text_of(b, "node");
		row[1] = (char *)(uintptr_t)(ours ? text_of(b, "how") : "ssh");
		row[2] = (char *)(uintptr_t)(ours ? text_of(result, "node") : text_of(b, "node"));
		row[3] = (char *)(uintptr_t)(*text_of(b, "address") ? text_of(b, "address") : "-");
	}
	if (n)
		show_table(cells, (n + 1) * ARRAY_SIZE(heading), ARRAY_SIZE(heading));
	free(cells);
}

static void show_closed(const json_t *result)
{
	printf("The bridge to %s is closed.\n", text_of(result, "node"));
}

static int open_kept(const char *host, const char *command, bool bootstrap, bool as_json)
{
	struct bridge_way way;
	struct err e = ERR_INIT;
	int r = bridge_go(host, command, true, as_json, bootstrap, &way, &e);

	if (r < 0 && as_json) {
		json_t *o = json_pack("{s:{s:s, s:s}}", "error", "code", r == -ECANCELED ? "cancelled" : "failed", "message", e.message);

		show_json(o);
		json_decref(o);
	} else if (r < 0) {
		complain("%s", e.message);
	} else if (as_json) {
		json_t *o = json_pack("{s:s, s:s}", "node", way.node, "how", host);

		show_json(o);
		json_decref(o);
	} else {
		printf("%s is the node %s, until `godwit bridge --close %s`.\n", host, way.node, way.node);
	}
	ask_close(&way.ask);
	return r == 0 ? EXIT_OK : r == -ECANCELED ? EXIT_CANCELLED : EXIT_FAILED;
}

int verb_bridge(int argc, char **argv)
{
	static const struct option options[] = { { "stdio", no_argument, NULL, 's' },   { "close", required_argument, NULL, 'c' }, { "ssh", required_argument, NULL, 'S' },
						 { "json", no_argument, NULL, 'j' },
						 { "bootstrap", no_argument, NULL, 'b' }, { 0 } };
	const char *to_close = NULL, *command = NULL;
	bool stdio = false, as_json = false, bootstrap = false;
	int o;

	optind = 1;
	while ((o = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (o == 's')
			stdio = true;
		else if (o == 'c')
			to_close = optarg;
		else if (o == 'S')
			command = optarg;
		else if (o == 'j')
			as_json = true;
		else if (o == 'b')
			bootstrap = true;
		else
			return option_error("bridge", o, argv);
	}
	if (stdio)
		return serve_stdio(optind < argc ? argv[optind] : "");
	if (argc - optind > 1 || (to_close && optind < argc))
		return usage_error("bridge", "one host, or --close NODE, or nothing");
	if (to_close)
		return ask_and_show(json_pack("{s:s, s:s, s:s}", "verb", "bridge", "action", "close", "host", to_close), as_json, show_closed);
	if (optind == argc)
		return ask_and_show(json_pack("{s:s, s:s}", "verb", "bridge", "action", "list"), as_json, show_bridges);
	return open_kept(argv[optind], command, bootstrap, as_json);
}
