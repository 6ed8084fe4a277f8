// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * run.c - godwit run: starts a program here that may run elsewhere
 *
 * The program takes this process's place (execve), so whoever started `godwit run` has it as a child, with these standard streams, this terminal, these
 * signals and its own status. With --node, -R, or when godwitd says where it should begin (while balancing is on), a helper, which is nobody's child by then, waits until the program has begun and asks godwitd to move it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/cpu.h"
#include "base/util.h"
#include "cli/cli.h"

#define BEGUN_TRIES 200
#define TRIES 8
#define PAUSE_US 50000

/* Where a program goes when it has begun; NULL: it stays. asked_for: by the user, who is told when it cannot. A program that godwitd has sent there may as well have ended before. */
struct destination {
	const char *node;
	bool asked_for;
};

/* Somebody has said since where it is to be, who is not to be contradicted. */
static bool is_moved_by_others(const char *code)
{
	return !strcmp(code, "busy") || !strcmp(code, "not-here");
}

/* One attempt: 0 moved, 1 another may do better, -1 it cannot be. ret_why: a sentence. */
static int ask_to_move(int pid, const struct destination *to, const char *strategy, char ret_why[ERR_MESSAGE_MAX])
{
	json_t *request = json_pack("{s:s, s:i, s:s, s:s, s:s, s:b}", "verb", "migrate", "pid", pid, "host", to->node, "strategy", strategy, "reason",
				    "run: it was to begin there", "here", 1), *line = NULL;
	cleanup_ask struct ask ask = { .fd = -1 };
	struct err e = ERR_INIT;
	int ret = -1;

	if (ask_open(&ask, request, &e) < 0) {
		snprintf(ret_why, ERR_MESSAGE_MAX, "%s", e.message);
		return -1;
	}
	while (ask_next(&ask, true, &line, &e) > 0) {
		const json_t *error = json_object_get(line, "error");

		if (!strcmp(text_of(line, "event"), "result"))
			ret = 0;
		else if (error)
			ret = is_moved_by_others(text_of(error, "code")) ? 0 : strcmp(text_of(error, "code"), "failed") ? -1 : 1;
		snprintf(ret_why, ERR_MESSAGE_MAX, "%s", error ? text_of(error, "message") : "");
		if (ret < 0 && to->asked_for)
			show_refusals(stderr, json_object_get(error, "refusals"));
		if (error || !ret)
			return ret;
		json_decref(line);
	}
	snprintf(ret_why, ERR_MESSAGE_MAX, "%s", e.message);
	return -1;
}

/* Descriptors are closed in the middle of execve: it is over when the process has arguments and is no longer in that call. */
static void wait_begun(int pid)
{
	for (int i = 0; i < BEGUN_TRIES; i++) {
		char path[64], text[64] = "";
		cleanup_fclose FILE *f = NULL;

		snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
		f = fopen(path, "re");
		usleep(PAUSE_US / 10);
		if (!f || (fgets(text, sizeof(text), f) && strncmp(text, "59 ", 3) && strncmp(text, "322 ", 4)))
			return;
	}
}

/*
 * In the helper: EOF on the pipe means that the program has been started, a byte that it could not be. A program that has just been started changes faster than
 * at any later time.
 */
static void __attribute__((noreturn)) move(int started, int pid, const struct destination *to, const char *strategy)
{
	char why[ERR_MESSAGE_MAX] = "", byte;
	int ret = 1;

	if (read(started, &byte, 1) != 0)
		_exit(0);
	for (int i = 1; i <= TRIES && ret > 0; i++) {
		wait_begun(pid);
		ret = ask_to_move(pid, to, strategy, why);
		if (ret > 0)
			usleep(PAUSE_US * (unsigned)i);
	}
	if (ret != 0 && to->asked_for)
		complain("the program runs here: %s", why);
	_exit(0);
}

static int start_helper(const struct destination *to, const char *strategy, int *ret_started)
{
	int pipe_fds[2], self = getpid();
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		if (fork() != 0)
			_exit(0);
		setsid();
		close(pipe_fds[1]);
		close(STDIN_FILENO); /* a pipe of the program's must not be held open here */
		close(STDOUT_FILENO);
		move(pipe_fds[0], self, to, strategy);
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(pipe_fds[0]);
	*ret_started = pipe_fds[1];
	return 0;
}

/* The best node that matches; "" when that is this one. When none does, nothing is started: the program would not have what it needs. */
static int find_best(const char *require, char ret[256])
{
	json_t *result = NULL;
	const char *name;
	int r = select_nodes(require, true, false, &result);

	if (r != EXIT_OK)
		return r;
	name = json_string_value(json_array_get(json_object_get(result, "nodes"), 0));
	if (!name) {
		complain("no node matches '%s', and nothing has been started; `godwit nodes` shows how they are", require);
		r = EXIT_FAILED;
	} else {
		snprintf(ret, 256, "%s", strcmp(name, text_of(result, "node")) != 0 ? name : "");
	}
	json_decref(result);
	return r;
}

/* Godwit's own from the beginning, so that drain and balance know of it. ret_node: where it had better begin, "": here. Without a godwitd, or permission to ask it, it is a program as any other. */
static void tell_started(bool anywhere, char ret_node[256])
{
	const struct timeval patience = { 1, 0 };
	cleanup_ask struct ask ask = { .fd = -1 };
	json_t *line = NULL;

	if (ask_open(&ask, json_pack("{s:s, s:i, s:b}", "verb", "started", "pid", (int)getpid(), "take", anywhere), NULL) < 0)
		return;
	setsockopt(ask.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (ask_next(&ask, true, &line, NULL) <= 0)
		return;
	snprintf(ret_node, 256, "%s", text_of(json_object_get(line, "result"), "node"));
	json_decref(line);
}

/* The process that the program will be gets them before it begins. */
static int take_addresses(json_t *addresses)
{
	json_t *result = NULL;
	int r = ask_result(json_pack("{s:s, s:i, s:O}", "verb", "address", "pid", (int)getpid(), "addresses", addresses), false, &result);

	json_decref(result);
	return r;
}

static int start(char **command, const struct destination *to, const char *strategy)
{
	int started = -1, r = to->node ? start_helper(to, strategy, &started) : 0;

	if (r < 0) {
		complain("starting a helper: %s", strerror(-r));
		return EXIT_FAILED;
	}
	execvp(command[0], command);
	r = errno;
	if (started >= 0)
		(void)!write(started, "", 1);
	complain("%s: %s", command[0], strerror(r));
	return r == ENOENT ? 127 : 126;
}

static const char *environment(const char *name)
{
	return getenv(name);
}

/* For the program: what it is to find out about its processor. */
static int confine_to(const char *level)
{
	static char variables[CPU_VARIABLES][CPU_VARIABLE_MAX];
	struct err e = ERR_INIT;

	if (cpu_baseline_variables(level, environment, variables, &e) < 0)
		return usage_error("run", "%s", e.message);
	for (int i = 0; i < CPU_VARIABLES; i++)
		putenv(variables[i]);
	return EXIT_OK;
}

int verb_run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "node", required_argument, NULL, 'n' }, { "strategy", required_argument, NULL, 's' }, { "require", required_argument, NULL, 'R' },
		{ "address", required_argument, NULL, 'a' }, { "cpu-baseline", required_argument, NULL, 'c' }, { "here", no_argument, NULL, 'h' }, { 0 },
	};
	const char *node = NULL, *strategy = "freeze-free", *require = NULL, *level = NULL;
	char best[256], placed[256] = "";
	bool here = false;
	json_auto_t *addresses = json_array();
	int o, r;

	optind = 1;
	while ((o = getopt_long(argc, argv, "+:n:s:R:a:", options, NULL)) != -1) {
		if (o == 'n')
			node = optarg;
		else if (o == 's')
			strategy = optarg;
		else if (o == 'R')
			require = optarg;
		else if (o == 'a')
			json_array_append_new(addresses, json_string(optarg));
		else if (o == 'c')
			level = optarg;
		else if (o == 'h')
			here = true;
		else
			return option_error("run", o, argv);
	}
	if (optind >= argc)
		return usage_error("run", "a command is expected");
	if ((node != NULL) + (require != NULL) + here > 1)
		return usage_error("run", "--node and --here say where, and -R asks for it: one of them");
	if (level && (r = confine_to(level)) != EXIT_OK)
		return r;
	if (require) {
		r = find_best(require, best);
		if (r != EXIT_OK)
			return r;
		node = *best ? best : NULL;
		here = true; /* it has been decided */
	}
	if (json_array_size(addresses)) {
		r = take_addresses(addresses);
		if (r != EXIT_OK)
			return r;
	}
	json_decref(addresses); /* start() does not return where all is well */
	addresses = NULL;
	tell_started(!node && !here, placed);
	return start(&argv[optind], &(struct destination){ *placed ? placed : node, !*placed }, strategy);
}
