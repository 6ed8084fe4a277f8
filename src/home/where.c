/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* where.c - asking godwit-home where a unit is; see where.h */
#include "home/where.h"

#include <errno.h>
#include <poll.h>

#include "base/util.h"

#define ANSWER_MS 1000

int where_ask(const char *unit, struct door_where *ret, struct err *e)
{
	cleanup_close int door = door_connect(unit, e);
	const uint8_t word = DOOR_WHERE;
	struct pollfd p = { door, POLLIN, 0 };

	if (door < 0)
		return door;
	if (door_send(door, &word, 1, NULL, 0, e) < 0)
		return -ENOENT;
	if (poll(&p, 1, ANSWER_MS) <= 0 || door_receive(door, ret, sizeof(*ret), NULL, 0, NULL, NULL) != (ssize_t)sizeof(*ret))
		return err_set(e, -ETIMEDOUT, "the process that cares for %s here does not answer", unit);
	ret->host[sizeof(ret->host) - 1] = 0;
	ret->command[sizeof(ret->command) - 1] = 0;
	return 0;
}
