/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pty_fill.c - contents and settings of pseudo-terminals, in the freeze; see pty.h */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "image/pty_internal.h"
#include "kern/tty_peek.h"

#define EOF_CHAR 4
#define STOP_CHAR 19
#define LITERAL_CHAR 22
#define ONE_BY_ONE 512u     /* up to so many bytes are given one at a time, which is done when the call returns */
#define WRITE_BYTES 256ul    /* more of these fit than of larger ones: the kernel's smallest buffers */
#define WRITE_TRIES 20000
#define WRITE_PAUSE_US 50

/* A terminal being filled. */
struct filling {
	const Gw__FdPty *p;
	int master;
	int slave;               /* a description of its own; -1: nobody has opened the slave yet, and it must stay so */
	struct termios2 now;     /* the settings in force */
	struct err *e;
};

static int failed(const struct filling *f, const char *what)
{
	return err_sys(f->e, -errno, "/dev/pts/%u: %s", f->p->number, what);
}

static int set(struct filling *f, const struct termios2 *to)
{
	if (!memcmp(&f->now, to, sizeof(*to)))
		return 0;
	if (ioctl(f->master, TCSETS2, to) < 0)
		return failed(f, "TCSETS2");
	f->now = *to;
	return 0;
}

/* The settings in which nothing is special. What decides how lines are kept is the final one, since a change of it would forget them. */
static struct termios2 plain(const struct filling *f)
{
	struct termios2 t;

	memcpy(&t, f->p->termios.data, sizeof(t));
	t.c_iflag = t.c_oflag = 0;
	t.c_lflag = (t.c_lflag & (ICANON | EXTPROC)) | IEXTEN;
	memset(t.c_cc, 0, sizeof(t.c_cc));
	t.c_cc[VMIN] = 1;
	return t;
}

/* One character for the slave's line discipline, at once. */
static int give(struct filling *f, uint8_t c)
{
	const struct tty_record_pair *pair;

	if (f->slave >= 0)
		return ioctl(f->slave, TIOCSTI, &c) < 0 ? failed(f, "TIOCSTI") : 0;
	if (write(f->master, &c, 1) != 1)
		return failed(f, "writing its input");
	return tty_peek_pair(f->master, &pair, f->e); /* waits until it has arrived */
}

/* With one special character. */
static int give_special(struct filling *f, int which, uint8_t special, uint8_t c)
{
	struct termios2 t = plain(f);
	int r;

	t.c_cc[which] = special;
	r = set(f, &t);
	return r < 0 ? r : give(f, c);
}

static int give_plain(struct filling *f, uint8_t c)
{
	struct termios2 t = plain(f);
	int r = set(f, &t);

	return r < 0 ? r : give(f, c);
}

static int give_line_end(struct filling *f, uint8_t c)
{
	if (c == '\n')
		return give_plain(f, c);
	/* The end of the file is kept as a 0 at which a line ends. */
	return c ? give_special(f, VEOL, c, c) : give_special(f, VEOF, EOF_CHAR, EOF_CHAR);
}

/* A newline that ends no line was typed after the character that takes the next one literally. */
static int give_literal(struct filling *f, uint8_t c)
{
	int r = give_special(f, VLNEXT, LITERAL_CHAR, LITERAL_CHAR);

	return r < 0 ? r : give(f, c);
}

static int fill_input(struct filling *f)
{
	const Gw__FdPtyEnd *end = f->p->slave;
	bool lines = (plain(f).c_lflag & (ICANON | EXTPROC)) == ICANON;
	size_t next = 0;
	int r = 0;

	for (size_t i = 0; i < end->queue.len && r == 0; i++) {
		uint8_t c = end->queue.data[i];
		bool ends = next < end->n_line_ends && end->line_ends[next] == i;

		next += ends;
		if (ends && lines)
			r = give_line_end(f, c);
		else
			r = lines && c == '\n' ? give_literal(f, c) : give_plain(f, c);
	}
	if (r == 0 && end->line_next && lines)
		r = give_special(f, VLNEXT, LITERAL_CHAR, LITERAL_CHAR);
	return r;
}

/* Writes without waiting for a reader; the kernel carries it to the other end's line discipline meanwhile. */
static int write_out(struct filling *f, int fd, const uint8_t *data, size_t len)
{
	for (int i = 0; len && i < WRITE_TRIES; i++) {
		ssize_t n = write(fd, data, MIN(len, WRITE_BYTES));

		if (n < 0 && errno != EAGAIN)
			return failed(f, "writing what was in it");
		if (n <= 0) {
			usleep(WRITE_PAUSE_US);
			continue;
		}
		data += n;
		len -= (size_t)n;
	}
	return len ? err_set(f->e, -EIO, "/dev/pts/%u: %zu bytes that were in it do not fit", f->p->number, len) : 0;
}

static int wait_readable(struct filling *f, int len)
{
	int have = 0;

	for (int i = 0; i < WRITE_TRIES; i++) {
		if (ioctl(f->master, FIONREAD, &have) < 0)
			return failed(f, "FIONREAD");
		if (have >= len)
			return 0;
		usleep(WRITE_PAUSE_US);
	}
	return err_set(f->e, -EIO, "/dev/pts/%u: its master has %d bytes to read, not %d", f->p->number, have, len);
}

static int fill_output(struct filling *f)
{
	const Gw__FdPtyEnd *end = f->p->master;
	struct termios2 t = plain(f);
	int r = set(f, &t);

	if (r < 0 || !(end->queue.len + end->waiting.len))
		return r;
	for (size_t i = 0; i < end->queue.len && end->queue.len <= ONE_BY_ONE; i++)
		if (ioctl(f->master, TIOCSTI, &end->queue.data[i]) < 0)
			return failed(f, "TIOCSTI");
	if (end->queue.len <= ONE_BY_ONE && !end->waiting.len)
		return 0;
	if (f->slave < 0)
		return err_set(f->e, -EPROTO, "/dev/pts/%u: output without anybody who wrote it", f->p->number);
	if (end->queue.len > ONE_BY_ONE)
		r = write_out(f, f->slave, end->queue.data, end->queue.len);
	if (r == 0)
		r = write_out(f, f->slave, end->waiting.data, end->waiting.len);
	return r < 0 ? r : wait_readable(f, (int)MIN(end->queue.len, 4095ul));
}

/* The column that the cursor is in, for tabs: by as many spaces, which are then thrown away. */
static int fill_column(struct filling *f)
{
	struct termios2 t = plain(f);
	uint32_t left = f->p->slave->column;
	char spaces[256];
	int r;

	if (!left || f->slave < 0)
		return 0;
	memset(spaces, ' ', sizeof(spaces));
	t.c_oflag = OPOST;
	r = set(f, &t);
	while (r == 0 && left) {
		uint32_t n = MIN(left, (uint32_t)sizeof(spaces));

		r = write_out(f, f->slave, (uint8_t *)spaces, n);
		left -= n;
		if (r == 0 && (ioctl(f->slave, TCFLSH, TCOFLUSH) < 0 || ioctl(f->master, TCFLSH, TCIFLUSH) < 0))
			return failed(f, "TCFLSH");
	}
	return r;
}

static int stop(struct filling *f)
{
	const Gw__FdPtyEnd *end = f->p->slave;
	struct termios2 last = f->now, t = plain(f);
	int r;

	if (!end->stopped || f->slave < 0)
		return 0;
	if (end->stopped_by_call)
		return ioctl(f->slave, TCXONC, TCOOFF) < 0 ? failed(f, "TCOOFF") : 0;
	/* As if it had been typed. */
	t.c_iflag = IXON;
	t.c_cc[VSTOP] = STOP_CHAR;
	r = set(f, &t);
	if (r == 0)
		r = give(f, STOP_CHAR);
	return r < 0 ? r : set(f, &last);
}

/* Packet mode, and the events that the master has not read yet: they are made to happen again. */
static int fill_packet(struct filling *f)
{
	uint32_t status = f->p->packet_status;
	struct termios2 last = f->now, other = last;
	int on = 1, r = 0;

	if (!f->p->packet)
		return 0;
	if (ioctl(f->master, TIOCPKT, &on) < 0)
		return failed(f, "TIOCPKT");
	if (f->slave >= 0 && (((status & TIOCPKT_FLUSHREAD) && ioctl(f->slave, TCFLSH, TCIFLUSH) < 0) ||
			      ((status & TIOCPKT_FLUSHWRITE) && ioctl(f->slave, TCFLSH, TCOFLUSH) < 0)))
		return failed(f, "TCFLSH");
	other.c_iflag ^= IXON;
	other.c_cc[VSTOP] = STOP_CHAR;
	other.c_cc[VSTART] = STOP_CHAR - 2;
	if (status & (TIOCPKT_DOSTOP | TIOCPKT_NOSTOP | TIOCPKT_IOCTL))
		r = set(f, &other);
	if (r == 0)
		r = set(f, &last);
	if (r == 0 && (status & TIOCPKT_START) && f->slave >= 0 &&
	    (ioctl(f->slave, TCXONC, TCOOFF) < 0 || ioctl(f->slave, TCXONC, TCOON) < 0))
		return failed(f, "TCXONC");
	return r;
}

static int fill_settings(struct filling *f)
{
	struct termios2 last;
	struct winsize window;
	int r;

	memcpy(&last, f->p->termios.data, sizeof(last));
	r = set(f, &last);
	if (r < 0)
		return r;
	if (ioctl(f->master, TIOCGWINSZ, &window) < 0 ||
	    (memcmp(&window, f->p->window.data, sizeof(window)) && ioctl(f->master, TIOCSWINSZ, f->p->window.data) < 0))
		return failed(f, "window size");
	r = f->p->packet_status & TIOCPKT_STOP ? 0 : stop(f);
	if (r == 0)
		r = fill_packet(f);
	if (r == 0 && (f->p->packet_status & TIOCPKT_STOP))
		r = stop(f);
	if (r < 0)
		return r;
	if (f->p->master->stopped && ioctl(f->master, TCXONC, TCOOFF) < 0)
		return failed(f, "TCOOFF");
	if ((f->p->slave->exclusive && f->slave >= 0 && ioctl(f->slave, TIOCEXCL) < 0) ||
	    (f->p->master->exclusive && ioctl(f->master, TIOCEXCL) < 0))
		return failed(f, "TIOCEXCL");
	if (ioctl(f->master, TIOCSLCKTRMIOS, f->p->termios_locked.data) < 0)
		return failed(f, "TIOCSLCKTRMIOS");
	return 0;
}

/* What was typed behind a full buffer goes through the line discipline with the final settings, as it would have at the source. */
static int fill_typed(struct filling *f)
{
	int flags = fcntl(f->master, F_GETFL), r, locked = f->p->locked;

	if (f->p->slave->waiting.len) {
		if (flags < 0 || fcntl(f->master, F_SETFL, flags | O_NONBLOCK) < 0)
			return failed(f, "F_SETFL");
		r = write_out(f, f->master, f->p->slave->waiting.data, f->p->slave->waiting.len);
		if (r < 0)
			return r;
		if (fcntl(f->master, F_SETFL, flags) < 0)
			return failed(f, "F_SETFL");
	}
	return locked && ioctl(f->master, TIOCSPTLCK, &locked) < 0 ? failed(f, "TIOCSPTLCK") : 0;
}

static int fill_pty(const Gw__FdPty *p, int master, struct err *e)
{
	cleanup_close int slave = p->slave_opened ? pty_open_slave(master, O_RDWR | O_NONBLOCK, e) : -1;
	struct filling f = { .p = p, .master = master, .slave = slave, .e = e };
	struct termios2 t;
	int r;

	if (p->slave_opened && slave < 0)
		return slave;
	if (ioctl(master, TCGETS2, &f.now) < 0)
		return failed(&f, "TCGETS2");
	t = plain(&f);
	r = set(&f, &t);
	if (r == 0)
		r = fill_column(&f);
	if (r == 0)
		r = fill_input(&f);
	if (r == 0)
		r = fill_output(&f);
	if (r == 0)
		r = fill_settings(&f);
	return r < 0 ? r : fill_typed(&f);
}

static bool same_owner(const Gw__FdPty *a, const Gw__FdPty *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid;
}

int pty_fill(const Gw__FdTable *old, const Gw__FdTable *t, const struct pty_set *set, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < t->n_ptys && i < set->n && r == 0; i++) {
		const Gw__FdPty *p = t->ptys[i];

		if (set->v[i].master < 0 || !p->master_path[0])
			continue;
		if (i < old->n_ptys && !same_owner(old->ptys[i], p))
			r = pty_set_owner(p, e);
		if (r == 0)
			r = fill_pty(p, set->v[i].master, e);
	}
	return r;
}
