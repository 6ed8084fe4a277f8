/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* wish.c - what a program asks godwitd for; see wish.h */
#include "portable/wish.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "portable/program.h"

#define LINE_MAX_BYTES 65536u
#define LOOK_MS 5
#define ANSWER_MS 10000

static int wished = -1; /* the connection of godwit_migrate_self: its end would cancel the move */

/* Sends one line; the connection, or < 0. */
static int ask(const char *line, struct err *e)
{
	const char *path = getenv("GODWIT_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t len = strlen(line);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path ? path : "/run/godwit/godwitd.sock");
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 || send(fd, line, len, MSG_NOSIGNAL) != (ssize_t)len) {
		int code = -errno;

		if (fd >= 0)
			close(fd);
		return err_sys(e, code, "godwitd (%s)", to.sun_path);
	}
	return fd;
}

/* The next line, without its end; 0: not within the time, or no more. */
static int next_line(int fd, char *line, int timeout_ms)
{
	size_t have = 0;
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (have < LINE_MAX_BYTES - 1 && poll(&p, 1, timeout_ms) > 0 && recv(fd, line + have, 1, 0) == 1) {
		if (line[have] == '\n') {
			line[have] = 0;
			return 1;
		}
		have++;
	}
	return 0;
}

/* The value of a member that is a text, as it stands, without what is escaped. False: there is none. */
static bool text_of(const char *line, const char *key, char *ret, size_t size)
{
	const char *at = strstr(line, key);
	size_t n = 0;

	if (!at)
		return false;
	at += strlen(key);
	at += strspn(at, ": ");
	if (*at++ != '"')
		return false;
	for (; *at && *at != '"' && n + 1 < size; at++) {
		if (*at == '\\' && at[1])
			at++;
		ret[n++] = *at;
	}
	ret[n] = 0;
	return true;
}

static bool is_name(const char *host)
{
	return host && host[0] && strlen(host) < 256 && strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:") == strlen(host);
}

void wish_forget(void)
{
	if (wished >= 0)
		close(wished);
	wished = -1;
}

/* An answer while the word is not set yet: an error, or news. */
static int hear(char *line)
{
	char why[512];

	if (!next_line(wished, line, ANSWER_MS))
		return err_set(&godwit_program.error, -ECONNRESET, "godwitd has given no answer");
	if (!strstr(line, "\"event\":\"error\"") && !strstr(line, "\"event\": \"error\""))
		return 0;
	if (!text_of(line, "\"message\"", why, sizeof(why)))
		snprintf(why, sizeof(why), "godwitd refuses");
	return err_set(&godwit_program.error, -EPERM, "%s", why);
}

EXPORT int godwit_migrate_self(const char *host)
{
	char request[512], *line;
	int r = 0;

	if (!is_name(host))
		return err_set(&godwit_program.error, -EINVAL, "'%s' is no name of a host", host ? host : "");
	if (!godwit_program.begun || godwit_point_fd() < 0)
		return err_set(&godwit_program.error, -EINVAL, "godwit_portable_begin has not been called, or has failed");
	wish_forget();
	snprintf(request, sizeof(request), "{\"verb\":\"migrate\",\"pid\":%d,\"host\":\"%s\",\"strategy\":\"freeze-free\",\"portable\":true,\"reason\":\"the program asked for it\"}\n", (int)getpid(), host);
	wished = ask(request, &godwit_program.error);
	line = wished >= 0 ? malloc(LINE_MAX_BYTES) : NULL;
	if (!line)
		return wished < 0 ? wished : err_set(&godwit_program.error, -ENOMEM, "no memory for an answer");
	while (r == 0 && !*godwit_asked_) {
		struct pollfd p = { .fd = wished, .events = POLLIN };

		if (poll(&p, 1, LOOK_MS) > 0)
			r = hear(line);
	}
	free(line);
	if (r < 0)
		wish_forget();
	return r;
}

/* Asks, and takes the first line that is no progress. */
static int question(const char *request, char *line, struct err *e)
{
	int fd = ask(request, e), r;

	if (fd < 0)
		return fd;
	r = next_line(fd, line, ANSWER_MS) ? 0 : err_set(e, -ETIMEDOUT, "godwitd has given no answer");
	close(fd);
	return r;
}

EXPORT int godwit_suggest(char *ret_host, size_t size)
{
	char request[128], *line = malloc(LINE_MAX_BYTES), why[512];
	int r;

	if (!line)
		return err_set(&godwit_program.error, -ENOMEM, "no memory for an answer");
	snprintf(request, sizeof(request), "{\"verb\":\"balance\",\"action\":\"explain\",\"pid\":%d}\n", (int)getpid());
	r = question(request, line, &godwit_program.error);
	if (r == 0 && strstr(line, "\"event\":\"error\""))
		r = err_set(&godwit_program.error, -EPERM, "%s", text_of(line, "\"message\"", why, sizeof(why)) ? why : "godwitd refuses");
	else if (r == 0)
		r = text_of(line, "\"to\"", ret_host, size) && ret_host[0];
	free(line);
	return r;
}

int wish_outcome(const char *migration)
{
	char request[1200], *line = malloc(LINE_MAX_BYTES), id[64] = "", host[300] = "", outcome[32] = "";
	int r = -EAGAIN;

	if (line && sscanf(migration, "%63[0-9a-f] %299[A-Za-z0-9._:-]", id, host) == 2) {
		snprintf(request, sizeof(request), "{\"verb\":\"outcome\",\"migration\":\"%s\",\"host\":\"%s\"}\n", id, host);
		if (question(request, line, NULL) == 0 && text_of(line, "\"outcome\"", outcome, sizeof(outcome)))
			r = !strcmp(outcome, "committed") ? 1 : !strcmp(outcome, "aborted") || !strcmp(outcome, "unknown") ? 0 : -EAGAIN;
	}
	free(line);
	return r;
}
