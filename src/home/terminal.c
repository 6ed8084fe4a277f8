/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* terminal.c - the terminal at home, while its unit is elsewhere; see terminal.h */
#include "home/terminal.h"

#include <fcntl.h>
#include <signal.h>

#include "base/util.h"
#include "kern/tty_modes.h"

#define END_OF_FILE_KEY 4
#define HOLD_NS 20000000ull

static void send_data(struct session *s, Gw__HomeKind kind, const void *data, size_t len)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = kind;
	m.data = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)data };
	session_send(s, &m);
}

/* All keys come through as they are. What is done to output stays: others write here, too. */
static struct termios2 without_keys(struct termios2 modes)
{
	modes.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IUCLC | IXON);
	modes.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	modes.c_cc[VMIN] = 1;
	modes.c_cc[VTIME] = 0;
	return modes;
}

static void set_modes(struct terminal *t)
{
	t->set = without_keys(t->modes);
	tty_modes_hide(t->fd, &t->set, &t->modes);
	ioctl(t->fd, TCSETS2, &t->set);
	ioctl(t->fd, TCGETS2, &t->set); /* as the driver has taken it */
	tty_modes_hide(t->fd, &t->set, &t->modes);
	t->raw = true;
}

void terminal_begin(struct terminal *t, int fd, const struct termios2 *modes, bool foreground)
{
	*t = (struct terminal){ .fd = fd, .modes = *modes, .begun = foreground };
	if (foreground)
		set_modes(t);
}

void terminal_open(struct terminal *t, uint32_t channel, int fd)
{
	t->there = true;
	t->channel = channel;
	t->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/* The first time the unit has taken its modes along, and may have changed them since. */
static void come(struct terminal *t, struct session *s)
{
	if (t->begun && tty_modes_get(t->fd, &t->modes) == 0)
		send_data(s, GW__HOME_KIND__HOME_TERMIOS, &t->modes, sizeof(t->modes));
	t->begun = true;
	set_modes(t);
}

static void tell_foreground(struct terminal *t, bool foreground, struct session *s)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = GW__HOME_KIND__HOME_FOREGROUND;
	m.count = foreground;
	session_send(s, &m);
	t->foreground = foreground;
}

static bool is_shown(const struct terminal *t)
{
	struct termios2 now;

	return ioctl(t->fd, TCGETS2, &now) == 0 && !memcmp(&now, &t->modes, sizeof(now)) && memcmp(&now, &t->set, sizeof(now)) != 0;
}

void terminal_update(struct terminal *t, bool foreground, struct session *s)
{
	struct winsize size = { 0 };

	if (!t->there)
		return;
	if (ioctl(t->fd, TIOCGWINSZ, &size) == 0 && memcmp(&size, &t->size, sizeof(size))) {
		t->size = size;
		send_data(s, GW__HOME_KIND__HOME_WINDOW, &size, sizeof(size));
	}
	if (foreground && !t->raw)
		come(t, s);
	else if (foreground && is_shown(t)) /* another unit that has the terminal, too, has ended */
		set_modes(t);
	if (foreground != t->foreground)
		tell_foreground(t, foreground, s);
	if (!foreground)
		terminal_leave(t);
}

void terminal_take_modes(struct terminal *t, const Gw__HomeMessage *m)
{
	struct termios2 modes;

	if (!t->there || m->data.len != sizeof(modes))
		return;
	memcpy(&modes, m->data.data, sizeof(modes));
	if (!t->raw && t->begun) /* whoever is in the foreground now has modes of its own */
		return;
	t->modes = modes;
	if (t->raw)
		set_modes(t);
}

/* --- what was typed and not read --- */

static void type(struct terminal *t, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		ioctl(t->fd, TIOCSTI, &data[i]);
}

/* It has gone through the unit's line discipline: nothing in it is special any more, but where a line ends, or the file. */
static void type_again(struct terminal *t, const uint8_t *data, size_t len)
{
	struct termios2 last, plain;

	if (!len || ioctl(t->fd, TCGETS2, &last) < 0)
		return;
	plain = last;
	plain.c_iflag = 0;
	plain.c_lflag &= ICANON | EXTPROC;
	memset(plain.c_cc, 0, sizeof(plain.c_cc));
	plain.c_cc[VMIN] = 1;
	for (size_t i = 0; i < len; i++) {
		bool end = (plain.c_lflag & ICANON) && !data[i];

		plain.c_cc[VEOF] = end ? END_OF_FILE_KEY : 0;
		if (!i || end)
			ioctl(t->fd, TCSETS2, &plain);
		type(t, end ? &plain.c_cc[VEOF] : &data[i], 1);
		plain.c_cc[VEOF] = 0;
		if (end)
			ioctl(t->fd, TCSETS2, &plain);
	}
	ioctl(t->fd, TCSETS2, &last);
}

static void keep_unread(struct terminal *t, const uint8_t *data, size_t len)
{
	uint8_t *grown = realloc(t->unread, t->n_unread + len + 1);

	if (!grown)
		abort();
	t->unread = grown;
	memcpy(t->unread + t->n_unread, data, len);
	t->n_unread += len;
}

void terminal_take_back(struct terminal *t, const Gw__HomeMessage *m)
{
	if (!t->there)
		return;
	if (!t->raw) { /* it came late */
		type(t, m->data.data, m->data.len);
		return;
	}
	keep_unread(t, m->data.data, m->data.len);
	if (m->count)
		t->n_seen = t->n_unread;
}

static void keep_typed(struct terminal *t)
{
	struct pollfd p = { t->fd, POLLIN, 0 };
	uint8_t data[4096];
	ssize_t n;

	while (poll(&p, 1, 0) > 0 && (n = read(t->fd, data, sizeof(data))) > 0)
		keep_unread(t, data, (size_t)n);
}

/* Not when somebody else has set modes of its own meanwhile. */
void terminal_leave(struct terminal *t)
{
	struct termios2 now;

	if (!t->there || !t->raw)
		return;
	if (t->n_unread)
		keep_typed(t);
	if (ioctl(t->fd, TCGETS2, &now) == 0 && !memcmp(&now, &t->set, sizeof(now))) {
		ioctl(t->fd, TCSETS2, &t->modes);
		tty_modes_show(t->fd);
	}
	t->raw = false;
	type_again(t, t->unread, t->n_seen);
	type(t, t->unread + t->n_seen, t->n_unread - t->n_seen);
	t->n_unread = t->n_seen = 0;
}

/* --- output --- */

static bool ends_lines(const struct terminal *t)
{
	struct termios2 now;

	return ioctl(t->fd, TCGETS2, &now) == 0 && (now.c_oflag & OPOST) && (now.c_oflag & ONLCR);
}

size_t terminal_undo_output(struct terminal *t, uint8_t *data, size_t len)
{
	size_t n = 0;

	if (t->held_ns) { /* it comes before the rest */
		memmove(data + 1, data, len++);
		data[0] = '\r';
		t->held_ns = 0;
	}
	if (!len || !ends_lines(t))
		return len;
	for (size_t i = 0; i < len; i++)
		if (data[i] != '\r' || i + 1 == len || data[i + 1] != '\n')
			data[n++] = data[i];
	if (n && data[n - 1] == '\r') {
		n--;
		t->held_ns = clock_ns(CLOCK_MONOTONIC);
	}
	return n;
}

bool terminal_release(struct terminal *t)
{
	if (!t->held_ns || clock_ns(CLOCK_MONOTONIC) - t->held_ns < HOLD_NS)
		return false;
	t->held_ns = 0;
	return true;
}

int terminal_signal_of(const struct terminal *t, uint8_t key)
{
	const uint8_t *keys = t->modes.c_cc;

	if (!(t->modes.c_lflag & ISIG) || !key)
		return 0;
	return key == keys[VINTR] ? SIGINT : key == keys[VQUIT] ? SIGQUIT : key == keys[VSUSP] ? SIGTSTP : 0;
}
