/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* away_terminal.c - the terminal that a unit has where it runs; see terminal.h */
#include <errno.h>
#include <unistd.h>

#include "base/util.h"
#include "home/terminal.h"

static pid_t foreground_group(const struct away_terminal *t)
{
	pid_t group = 0;

	return ioctl(t->slave, TIOCGPGRP, &group) == 0 ? group : 0;
}

void away_terminal_open(struct away_terminal *t, int master)
{
	t->master = master;
	t->foreground = !t->controls || foreground_group(t) != getpgrp();
}

static void send_back(struct session *s, const void *data, size_t len, bool typed)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = GW__HOME_KIND__HOME_UNREAD;
	m.data = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)data };
	m.count = typed;
	session_send(s, &m);
}

static void take_off(struct session *s, uint32_t channel, size_t len)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = GW__HOME_KIND__HOME_TAKEN;
	m.channel = channel;
	m.count = (uint32_t)len;
	session_send(s, &m);
}

void away_terminal_tell_modes(struct away_terminal *t, struct session *s)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;
	struct termios2 now;

	if (t->master < 0 || ioctl(t->master, TCGETS2, &now) < 0 || (t->told && !memcmp(&now, &t->modes, sizeof(now))))
		return;
	t->modes = now;
	t->told = true;
	m.kind = GW__HOME_KIND__HOME_TERMIOS;
	m.data = (ProtobufCBinaryData){ sizeof(now), (uint8_t *)&now };
	session_send(s, &m);
}

static void take_modes(struct away_terminal *t, const Gw__HomeMessage *m)
{
	struct termios2 modes;

	if (m->data.len != sizeof(modes))
		return;
	memcpy(&modes, m->data.data, sizeof(modes));
	if (ioctl(t->master, TCSETS2, &modes) == 0 && ioctl(t->master, TCGETS2, &t->modes) == 0)
		t->told = true;
}

static void take_window(const struct away_terminal *t, const Gw__HomeMessage *m)
{
	struct winsize size;

	if (m->data.len != sizeof(size))
		return;
	memcpy(&size, m->data.data, sizeof(size));
	ioctl(t->master, TIOCSWINSZ, &size);
}

bool away_terminal_handle(struct away_terminal *t, const Gw__HomeMessage *m, struct session *s)
{
	switch (m->kind) {
	case GW__HOME_KIND__HOME_TERMIOS:
		take_modes(t, m);
		return true;
	case GW__HOME_KIND__HOME_WINDOW:
		take_window(t, m);
		return true;
	case GW__HOME_KIND__HOME_DATA:
		if (t->foreground || t->master < 0)
			return false;
		send_back(s, m->data.data, m->data.len, false);
		take_off(s, m->channel, m->data.len);
		return true;
	default:
		return false;
	}
}

void away_terminal_take(struct away_terminal *t, pid_t root)
{
	pid_t group = t->group;

	if (t->foreground)
		return;
	t->foreground = true;
	if (!t->controls || foreground_group(t) != getpgrp())
		return;
	if (group > 0 && ioctl(t->slave, TIOCSPGRP, &group) == 0)
		return;
	group = getpgid(root); /* the first time, or that group is gone */
	ioctl(t->slave, TIOCSPGRP, &group);
}

/* In the modes in which what has been typed can be read at once, whatever it is. Who is in the background (the unit, by now) cannot set others. */
static void send_unread(struct away_terminal *t, struct session *s)
{
	struct termios2 last, plain;
	uint8_t data[4096];
	ssize_t n;

	if (ioctl(t->master, TCGETS2, &last) < 0)
		return;
	plain = last;
	plain.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ECHONL | ISIG);
	plain.c_cc[VMIN] = plain.c_cc[VTIME] = 0;
	ioctl(t->master, TCSETS2, &plain);
	while ((n = read(t->slave, data, sizeof(data))) > 0)
		send_back(s, data, (size_t)n, true);
	ioctl(t->master, TCSETS2, &last);
}

void away_terminal_return(struct away_terminal *t, struct session *s)
{
	pid_t own = getpgrp();

	if (t->master < 0 || !t->returns || !t->foreground)
		return;
	t->foreground = false;
	if (t->controls) {
		t->group = foreground_group(t);
		ioctl(t->slave, TIOCSPGRP, &own);
	}
	send_unread(t, s);
}
