// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_home.c - the messages between home and where a unit runs: one message, or with a first byte 0xff the frames of a connection */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "home/session.h"

#define FRAMES_MAX 32768u /* fits into a socket */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(const Gw__HomeMessage *m)
{
	if (m->signal > 64 || (m->info.len && m->info.len != 128) || m->channel >= CHANNELS_MAX || m->data.len > CHANNEL_DATA_MAX || m->count > CHANNEL_COUNT_MAX)
		abort();
}

static void handle(void *arg, const Gw__HomeMessage *m)
{
	check(m);
	++*(uint64_t *)arg;
}

/* Whatever comes, the session's account stays right: each message is handled once, and what was sent is kept until it is said to be handled. */
static void try_frames(const uint8_t *data, size_t len)
{
	struct session s = SESSION_INIT;
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;
	uint64_t handled = 0;
	struct err e = ERR_INIT;
	int pair[2];

	if (len > FRAMES_MAX || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	if (write(pair[1], data, len) != (ssize_t)len)
		abort();
	shutdown(pair[1], SHUT_WR);
	session_attach(&s, pair[0]);
	m.kind = GW__HOME_KIND__HOME_SIGNAL;
	m.signal = 1;
	session_send(&s, &m);
	if (session_input(&s, handle, &handled, &e) >= 0 || !e.message[0] || handled != s.handled)
		abort();
	if (session_output(&s, NULL) < 0 && session_settled(&s) && !s.resumed)
		abort();
	session_free(&s);
	close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	Gw__HomeMessage *m;
	struct err e = ERR_INIT;

	if (len && data[0] == 0xff) {
		try_frames(data + 1, len - 1);
		return 0;
	}
	if (home_message_decode(data, len, &m, &e) < 0) {
		if (!e.message[0])
			abort();
		return 0;
	}
	check(m);
	gw__home_message__free_unpacked(m, NULL);
	return 0;
}
