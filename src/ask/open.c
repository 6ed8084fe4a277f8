// SPDX-License-Identifier: LGPL-2.1-or-later
/* open.c - a connection to godwitd's unix socket; see ask.h */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ask/ask.h"

#define OPEN_TRIES 10
#define OPEN_AGAIN_US 100000

static int open_once(struct ask *ask, const char *path, json_t *request, struct err *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int r;

	*ask = (struct ask){ .fd = -1 };
	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(e, -ENAMETOOLONG, "%s: too long for a socket's path", path);
	strcpy(address.sun_path, path);
	ask->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ask->fd >= 0 && connect(ask->fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return ask_send(ask, json_incref(request), e);
	r = -errno;
	ask_close(ask);
	if (r == -ENOENT || r == -ECONNREFUSED)
		return err_set(e, r, "godwitd does not run on this host (nobody listens on %s): start it, as root: godwitd", path);
	if (r == -EACCES || r == -EPERM)
		return err_set(e, r, "no permission for %s: run it with sudo", path);
	return err_sys(e, r, "%s", path);
}

int ask_open_at(struct ask *ask, const char *path, json_t *request, struct err *e)
{
	int r, tries = 0;

	/* A godwitd that was just ending took the connection with it. Nothing has been asked then: what it takes up is a whole line. */
	while ((r = open_once(ask, path, request, e)) == -EPIPE && ++tries < OPEN_TRIES) {
		ask_close(ask);
		usleep(OPEN_AGAIN_US);
	}
	json_decref(request);
	return r;
}
