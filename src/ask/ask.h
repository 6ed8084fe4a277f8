/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ask.h - a conversation with godwitd, for who has a connection to it: lines of JSON */
#ifndef GODWIT_ASK_ASK_H
#define GODWIT_ASK_ASK_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

struct ask {
	int fd;
	char *buffer;
	size_t have, size;
};

/* Connects to the socket of that path and sends the request (takes the reference). The message says what to do when godwitd is not there. Blocks. */
int ask_open_at(struct ask *ask, const char *path, json_t *request, struct err *e);
/* Sends a line; takes the reference. */
int ask_send(struct ask *ask, json_t *line, struct err *e);
/*
 * The next line from godwitd in *ret (the caller's reference). wait: block for it. 1: there is one; 0: not yet (only without wait);
 * -ECONNRESET: godwitd closed without a final line.
 */
int ask_next(struct ask *ask, bool wait, json_t **ret, struct err *e);
void ask_close(struct ask *ask);
#define cleanup_ask __attribute__((cleanup(ask_close)))

#endif
