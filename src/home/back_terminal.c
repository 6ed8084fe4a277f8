/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * back_terminal.c - the unit comes home to its terminal; see back.h
 *
 * Theory of operation: the destination's worker opens the terminal anew for the unit (image/pty_restore.c). Nothing else is done to it before the commit but that the unit's
 * foreground group may be set, which is taken back with the rest. Then, before the unit runs, all that is on its way between the two terminals is given to this one: what the
 * unit has written, what was typed for it in the order in which it was typed, and its modes. From there on it is as if it had never had another one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "home/door.h"
#include "home/home_internal.h"

const char *back_terminal_why_not(const struct keeper *k)
{
	const struct channel *ch = channels_find(&k->h->channels, k->h->terminal.channel);

	if (!k->h->terminal.there)
		return NULL;
	if (!ch || ch->fd < 0 || ch->original < 0)
		return "its terminal has been hung up";
	return k->h->pid || !k->h->controls ? NULL : "its terminal is that of a session here";
}

/* As long as it takes: the program would wait, too. */
static void show(const struct channel *ch, const uint8_t *data, size_t len)
{
	while (len) {
		struct pollfd p = { ch->fd, POLLOUT, 0 };
		ssize_t n = write(ch->fd, data, len);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return; /* hung up */
		if (n < 0)
			poll(&p, 1, -1);
		data += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
}

static void show_rest(struct keeper *k, const struct channel *ch)
{
	struct terminal *t = &k->h->terminal;
	struct refill out = REFILL_INIT;

	keeper_read_rest(k, REST_OUTPUT, &out);
	refill_add(&out, "", 1); /* room */
	show(ch, out.data, terminal_undo_output(t, out.data, out.len - 1));
	if (t->held_ns)
		show(ch, (const uint8_t *)"\r", 1);
	t->held_ns = 0;
	refill_free(&out);
}

static void type_rest(struct keeper *k, uint32_t part, bool seen)
{
	struct refill typed = REFILL_INIT;
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	keeper_read_rest(k, part, &typed);
	m.kind = GW__HOME_KIND__HOME_UNREAD;
	m.data = (ProtobufCBinaryData){ typed.len, typed.data };
	m.count = seen;
	if (typed.len)
		terminal_take_back(&k->h->terminal, &m);
	refill_free(&typed);
}

static void set_modes(struct keeper *k)
{
	struct terminal *t = &k->h->terminal;
	struct refill modes = REFILL_INIT;

	keeper_read_rest(k, REST_MODES, &modes);
	if (t->raw && modes.len == sizeof(t->modes))
		memcpy(&t->modes, modes.data, sizeof(t->modes));
	refill_free(&modes);
	terminal_leave(t);
}

/* A change of size that the unit has not been told of. */
static void tell_size(struct keeper *k, const struct channel *ch)
{
	struct refill known = REFILL_INIT;
	struct winsize size = { 0 };
	struct stub_stat stat;

	keeper_read_rest(k, REST_WINDOW, &known);
	keeper_read_stat(k, &stat);
	if (known.len == sizeof(size) && ioctl(ch->fd, TIOCGWINSZ, &size) == 0 && memcmp(&size, known.data, sizeof(size)) && k->h->controls && stat.foreground > 0)
		kill(-stat.foreground, SIGWINCH);
	refill_free(&known);
}

void back_give_terminal(struct keeper *k)
{
	struct terminal *t = &k->h->terminal;
	const struct channel *ch = t->there ? channels_find(&k->h->channels, t->channel) : NULL;

	if (!ch || ch->fd < 0)
		return;
	show_rest(k, ch);
	type_rest(k, REST_TYPED, true);
	type_rest(k, REST_TYPED_BEHIND, false);
	session_each_kept(&k->session, keeper_keep_typed, k);
	set_modes(k);
	tell_size(k, ch);
	t->there = false;
}

void back_restore_foreground(struct keeper *k, struct batch *b)
{
	struct stub_stat stat;
	uint64_t at;
	pid_t *group;
	int64_t fd;

	keeper_read_stat(k, &stat);
	if (k->back.foreground <= 0 || stat.foreground == k->back.foreground)
		return;
	fd = remote_do(b, NULL, "opening the controlling terminal", SYS_openat, AT_FDCWD, batch_string(b, "/dev/tty"), O_RDWR | O_NOCTTY);
	if (fd < 0)
		return;
	group = batch_space(b, sizeof(*group), &at);
	*group = k->back.foreground;
	batch_try(b, "TIOCSPGRP", SYS_ioctl, (uint64_t)fd, TIOCSPGRP, at);
	batch_try(b, "close", SYS_close, (uint64_t)fd);
	batch_run(b, NULL);
	batch_reset(b);
}
