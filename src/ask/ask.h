/* SPDX-License-Identifier: GPL-2.0-or-later */
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
