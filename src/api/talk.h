/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * talk.h - a conversation with godwitd on behalf of whoever is at the other end of a connection
 *
 * godwit-api is nobody and can connect to nothing. Over a channel (SOCK_SEQPACKET) that it was born with it sends one end of a new socket pair together with the caller's connection itself; godwitd asks the
 * kernel whose that is (daemon/api.h), and treats the pair as it does a connection to its own socket: one line of JSON, then lines back. So nobody is believed about who asks.
 */
#ifndef GODWIT_API_TALK_H
#define GODWIT_API_TALK_H

#include "ask/ask.h"

/* Once, before threads. */
void talk_use(int channel);
/* Sends the request (takes the reference) of the caller at `connection`. */
int talk_open(struct ask *ask, int connection, json_t *request, struct err *e);

#endif
