// SPDX-License-Identifier: GPL-2.0-or-later
/* do_ps.c - the units on this node, those that have left it and are waited for here, and the migrations under way */
#include <fcntl.h>

#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/reply.h"
#include "home/where.h"
#include "migrate/registry.h"

struct listing {
	const struct daemon *d;
	json_t *units;
};

/* Reads a small file of /proc; zero bytes become spaces. Returns the length. */
static size_t read_proc(pid_t pid, const char *name, char *text, size_t size)
{
	cleanup_close int fd = -1;
	char path[64];
	ssize_t n, i;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, size - 1) : 0;
	n = MAX(n, 0);
	for (i = 0; i < n; i++)
		if ((unsigned char)text[i] < ' ')
			text[i] = ' ';
	while (n > 0 && text[n - 1] == ' ')
		n--;
	text[n] = 0;
	return (size_t)n;
}

static const char *state_word(const struct daemon *d, pid_t pid)
{
	char text[1024];
	const char *p;
	size_t i;

	for (i = 0; i < WORKERS_MAX; i++)
		if (d->workers[i].pid && d->workers[i].kind == WORKER_SOURCE && d->workers[i].moving == pid)
			return "leaving";
	read_proc(pid, "stat", text, sizeof(text));
	p = strrchr(text, ')');
	if (!p || !p[1])
		return "gone";
	switch (p[2]) {
	case 'R':
		return "running";
	case 'S':
		return "sleeping";
	case 'D':
		return "waiting";
	case 'T':
	case 't':
		return "stopped";
	default:
		return "idle";
	}
}

static int add_unit(const struct registry_entry *entry, void *arg)
{
	struct listing *l = arg;
	char home[HELLO_NAME_MAX + 1], command[512];

	snprintf(home, sizeof(home), "%.*s", (int)strcspn(entry->unit, ":"), entry->unit);
	if (!read_proc(entry->pid, "cmdline", command, sizeof(command)))
		read_proc(entry->pid, "comm", command, sizeof(command));
	json_array_append_new(l->units, json_pack("{s:o, s:i, s:s, s:o, s:o, s:o, s:i, s:I, s:s, s:o, s:I, s:o}", "unit", reply_text(entry->unit), "pid",
						  (int)entry->pid, "on", l->d->config.name, "command", reply_text(command), "home", reply_text(home), "from",
						  reply_text(entry->from), "moves", (int)entry->moves, "since", (json_int_t)entry->since,
						  "state", state_word(l->d, entry->pid), "strategy", reply_text(entry->strategy),
						  "freeze_us", (json_int_t)entry->freeze_us, "reason", reply_text(entry->reason)));
	return 0;
}

/* A unit whose home is here, and which has left. Its number is its stub's; 0: nobody waits for it. */
static int add_away(const char *unit, void *arg)
{
	struct listing *l = arg;
	struct door_where w;

	if (where_ask(unit, &w, NULL) < 0 || !strcmp(w.host, l->d->config.name))
		return 0;
	json_array_append_new(l->units, json_pack("{s:o, s:i, s:o, s:o, s:s, s:s}", "unit", reply_text(unit), "pid", (int)w.pid, "on", reply_text(w.host), "command",
						  reply_text(w.command), "home", l->d->config.name, "state", w.stopped ? "stopped" : "away"));
	return 0;
}

static json_t *migrations(const struct daemon *d)
{
	json_t *list = json_array();
	size_t i;

	for (i = 0; i < WORKERS_MAX; i++) {
		const struct worker *w = &d->workers[i];

		if (!w->pid || (w->kind != WORKER_SOURCE && w->kind != WORKER_DEST) || __atomic_load_n(&d->done[i], __ATOMIC_ACQUIRE))
			continue;
		json_array_append_new(list, json_pack("{s:s, s:o, s:i, s:i}", "direction", w->kind == WORKER_SOURCE ? "leaving" : "arriving",
						      "peer", reply_text(w->peer), "pid", (int)w->moving, "worker", (int)w->pid));
	}
	return list;
}

int do_ps(const struct daemon *d, int fd)
{
	struct listing l = { d, json_array() };
	struct err e = ERR_INIT;
	char prefix[HELLO_NAME_MAX + 2];

	snprintf(prefix, sizeof(prefix), "%s:", d->config.name);
	door_list(prefix, add_away, &l);
	if (registry_list(add_unit, &l, &e) < 0) {
		reply_error(fd, "failed", &e, NULL, NULL);
		return 1;
	}
	reply_result(fd, json_pack("{s:s, s:o, s:o}", "node", d->config.name, "units", l.units, "migrations", migrations(d)));
	return 0;
}
