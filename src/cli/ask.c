// SPDX-License-Identifier: GPL-2.0-or-later
/* ask.c - questions to godwitd over its unix socket */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"
#include "cli/cli.h"

#define OPEN_TRIES 10
#define OPEN_AGAIN_US 100000

const char *socket_path = "/run/godwit/godwitd.sock";

static int open_once(struct ask *ask, json_t *request, struct err *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int r;

	*ask = (struct ask){ .fd = -1 };
	if (strlen(socket_path) >= sizeof(address.sun_path))
		return err_set(e, -ENAMETOOLONG, "%s: too long for a socket's path", socket_path);
	strcpy(address.sun_path, socket_path);
	ask->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ask->fd >= 0 && connect(ask->fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return ask_send(ask, json_incref(request), e);
	r = -errno;
	ask_close(ask);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return err_set(e, r, "godwitd does not run on this host (nobody listens on %s): start it, as root: godwitd", socket_path);
	if (r == -EACCES || r == -EPERM)
		return err_set(e, r, "no permission for %s: run it with sudo", socket_path);
	return err_sys(e, r, "%s", socket_path);
}

int ask_open(struct ask *ask, json_t *request, struct err *e)
{
	int r, tries = 0;

	/* A godwitd that was just ending took the connection with it. Nothing has been asked then: what it takes up is a whole line. */
	while ((r = open_once(ask, request, e)) == -EPIPE && ++tries < OPEN_TRIES) {
		ask_close(ask);
		usleep(OPEN_AGAIN_US);
	}
	json_decref(request);
	return r;
}

/* Takes a complete line out of the buffer. */
static int fail(const char *code, const char *message, bool as_json)
{
	if (as_json) {
		json_t *o = json_pack("{s:{s:s, s:s}}", "error", "code", code, "message", message);

		show_json(o);
		json_decref(o);
	} else {
		complain("%s", message);
	}
	return strcmp(code, "bad-request") ? EXIT_FAILED : EXIT_USAGE;
}

int ask_result(json_t *request, bool as_json, json_t **ret_result)
{
	cleanup_ask struct ask ask;
	struct err e = ERR_INIT;
	json_t *line = NULL;
	int status;

	if (ask_open(&ask, request, &e) < 0)
		return fail("no-daemon", e.message, as_json);
	if (ask_next(&ask, true, &line, &e) < 0)
		return fail("no-answer", e.message, as_json);
	if (!strcmp(text_of(line, "event"), "result")) {
		*ret_result = json_incref(json_object_get(line, "result"));
		status = *ret_result ? EXIT_OK : fail("no-answer", "godwitd's answer has no result", as_json);
	} else {
		const json_t *error = json_object_get(line, "error");

		status = fail(text_of(error, "code"), text_of(error, "message"), as_json);
	}
	json_decref(line);
	return status;
}

int ask_and_show(json_t *request, bool as_json, void (*show)(const json_t *result))
{
	json_t *result = NULL;
	int status = ask_result(request, as_json, &result);

	if (status)
		return status;
	if (as_json)
		show_json(result);
	else
		show(result);
	json_decref(result);
	return EXIT_OK;
}
