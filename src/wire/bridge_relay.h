/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bridge_relay.h - what the process godwit-bridge does: many connections on one side, one channel of ssh on the other (bridge.h)
 *
 * Each connection may have BRIDGE_WINDOW bytes on their way that the other side has not taken yet, so one that is slow holds up no other; frames are small and connections take turns, so that
 * a fault's answer does not wait behind pages for long. Whether the other host lives is asked by PING. When it has been silent for as long as makes a peer dead (conn.h), connections
 * are reset, as TCP would do it, but for those that are patient (conn_make_patient): these are over when ssh is.
 */
#ifndef GODWIT_WIRE_BRIDGE_RELAY_H
#define GODWIT_WIRE_BRIDGE_RELAY_H

#include "wire/bridge.h"

struct bridge {
	const struct bridge_record *record;
	int in, out;   /* ssh: what is read, what is written; may be one, twice */
	int client;    /* the conversation of who has opened it: until its end it is wanted, and its end is that of a bridge which was made from the other side; -1: over */
	int dead_ms;
};

/* Listens; after bridge_record_take. The descriptor. */
int bridge_relay_listen(const struct bridge_record *record, struct err *e);
/* Until nobody wants it any more, or it is lost. Takes all descriptors; returns why it has ended: 0, or what has become of ssh. */
int bridge_relay_run(const struct bridge *bridge, int listener, struct err *e);

#endif
