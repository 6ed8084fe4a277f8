/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * listener.h - clients at home of unix sockets that the unit listens on: each is relayed like a socket that was connected before the unit left (channel.h)
 *
 * godwit-home gives a channel its number, which may have been another's whose end both sides know.
 */
#ifndef GODWIT_HOME_LISTENER_H
#define GODWIT_HOME_LISTENER_H

#include "home/channel.h"
#include "home/door.h"

/* godwit-home: takes over fd. */
void listener_take(struct channels *c, const struct door_connect *client, int fd, const int32_t sender[3], struct session *s);
/* godwit-away, HOME_OPEN: connects to the socket of the unit whose root is process `root`; says BROKEN when nobody listens there. */
void listener_open(struct channels *c, const Gw__HomeMessage *m, pid_t root, struct session *s);

#endif
