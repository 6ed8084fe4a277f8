/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cli.h - the `godwit` command: a table of verbs, one file each, and what they share
 *
 * godwit knows nothing about migration: it sends one request to godwitd and shows what comes back.
 */
#ifndef GODWIT_CLI_CLI_H
#define GODWIT_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>

#include "ask/ask.h"
#include "base/err.h"
#include "wire/archive.h"

/* Exit statuses (godwit(1)). */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_REFUSED = 3, EXIT_CANCELLED = 4, EXIT_IN_DOUBT = 5 };

struct command {
	const char *name;
	const char *arguments;
	const char *summary;
	const char *help; /* the options, with final newlines; may be "" */
	int (*run)(int argc, char **argv); /* argv[0] is the verb; returns the exit status */
};

int verb_migrate(int argc, char **argv);
int verb_checkpoint(int argc, char **argv);
int verb_restore(int argc, char **argv);
int verb_image(int argc, char **argv);
int verb_protect(int argc, char **argv);
int verb_unprotect(int argc, char **argv);
int verb_failover(int argc, char **argv);
int verb_bridge(int argc, char **argv);
int verb_balance(int argc, char **argv);
int verb_drain(int argc, char **argv);
int verb_undrain(int argc, char **argv);
int verb_ps(int argc, char **argv);
int verb_nodes(int argc, char **argv);
int verb_connections(int argc, char **argv);
int verb_check(int argc, char **argv);
int verb_run(int argc, char **argv);
int verb_select(int argc, char **argv);
int verb_config(int argc, char **argv);
int verb_cluster(int argc, char **argv);
int verb_pki(int argc, char **argv);
int verb_explain(int argc, char **argv);
int verb_trace(int argc, char **argv);
int verb_metrics(int argc, char **argv);
int verb_top(int argc, char **argv);
int verb_dashboard(int argc, char **argv);
int verb_token(int argc, char **argv);

/* Prints how a verb is used, on stderr, and returns EXIT_USAGE. */
int usage_error(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for what getopt_long has returned, whose list of short options begins with a colon: '?' or ':'. */
int option_error(const char *verb, int returned, char *const *argv);
/* "godwit: ..." on stderr. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ask.c: conversations with godwitd, over its socket. */

/* The socket's path: --socket, else $GODWIT_SOCKET, else the default. */
extern const char *socket_path;

/* Connects and sends the request (takes the reference). The message says what to do when godwitd is not there. */
int ask_open(struct ask *ask, json_t *request, struct err *e);
/*
 * A whole conversation: request (takes the reference), final answer. EXIT_OK with *ret_result (the caller's); otherwise the failure has
 * been shown, as JSON on stdout when asked for.
 */
int ask_result(json_t *request, bool as_json, json_t **ret_result);
/* The whole of a command that prints what is answered. Consumes the request; returns the exit status. */
int ask_and_show(json_t *request, bool as_json, void (*show)(const json_t *result));

/* show.c: for people. Text from elsewhere is made harmless for the terminal. */

/* A member as text ("" when absent); the pointer belongs to the object. */
const char *text_of(const json_t *o, const char *key);
long long number_of(const json_t *o, const char *key);
/* Prints text with control characters replaced. */
void put_text(FILE *f, const char *text);
/* "12.3 MiB" */
void bytes_text(double bytes, char text[16]);
/* "1.234 ms", "12.3 s" */
void elapsed_text(double ns, char text[24]);
/* A time of today, or the day; 0: "" */
void since_text(long long since, char text[32]);
/* "1,234,567" */
void count_text(long long n, char text[32]);
/* Each refusal in two lines: what and why, then what to do. */
void show_refusals(FILE *f, const json_t *refusals);
void show_json(const json_t *o);
/* plan.c: what `migrate` would do. */
void show_plan(const json_t *plan);

/* Rows of cells under a heading; columns as wide as needed. n_cells = rows * columns, row after row, the heading first. */
void show_table(char *const *cells, size_t n_cells, size_t columns);
/* The same; on a terminal that is narrower it goes on below, each part with the first column. */
void show_table_in_parts(char *const *cells, size_t n_cells, size_t columns);

/* list.c: the whole of a verb that asks godwitd for a list and takes no argument but --json; returns the exit status. */
int show_list(int argc, char **argv, void (*show)(const json_t *result));

/*
 * select.c: the nodes that match, the best first: an object with "node" (this one) and "nodes" (names). take: something is about to be sent to the first. As ask_result.
 */
int select_nodes(const char *require, bool take, bool as_json, json_t **ret);

/* Reads "500ms", "10s", "2m", "1h", or seconds ("1.5"). -EINVAL with the reason. */
int duration_parse(const char *text, unsigned *ret_ms, struct err *e);
/* Reads a process number; -EINVAL with the reason. */
int pid_parse(const char *text, int *ret_pid, struct err *e);
/* The key in a file, of an image (image/secret.h); its digits into a request. */
int key_read(const char *path, struct archive_key *ret, struct err *e);
int key_set(json_t *request, const char *path, struct err *e);
/* "PID", or "PID,PID...", which are one unit: the first, and an array of the others in the request. */
int pids_parse(const char *text, int *ret_pid, json_t *request, struct err *e);

#endif
