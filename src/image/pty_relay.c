/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pty_relay.c - the source's view of a pseudo-terminal whose master is outside of the unit; see relay.h
 *
 * All is read by way of the slave. Its session's leader may be outside, too (a shell whose job the root is): then the root has it from whoever stands for its parent at the
 * destination, and the foreground group counts only if it is one of the unit's.
 */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/process_check.h"
#include "image/pty_internal.h"
#include "image/pty_session.h"
#include "image/relay.h"
#include "kern/tty_modes.h"
#include "kern/tty_peek.h"

static int read_settings(Gw__FdPty *p, int fd, struct err *e)
{
	struct termios2 settings;
	struct termios locked;
	struct winsize window;
	struct stat st;

	if (tty_modes_get(fd, &settings) < 0 || ioctl(fd, TIOCGLCKTRMIOS, &locked) < 0 || ioctl(fd, TIOCGWINSZ, &window) < 0 || fstat(fd, &st) < 0)
		return err_sys(e, -errno, "/dev/pts/%u: its settings", p->number);
	pty_set_bytes(&p->termios, &settings, sizeof(settings));
	pty_set_bytes(&p->termios_locked, &locked, sizeof(locked));
	pty_set_bytes(&p->window, &window, sizeof(window));
	if (major(st.st_rdev) == 136) { /* not what was opened as /dev/tty */
		p->mode = st.st_mode & 07777;
		p->uid = st.st_uid;
		p->gid = st.st_gid;
	}
	return 0;
}

/* The session, as the unit numbers it; 0: its leader is outside, or there is none. */
static int read_session(const struct pty_source *s, Gw__FdPty *p, bool known, struct err *e)
{
	struct process_stat stat = { 0 };
	pid_t pid, session = 0;
	bool inherited = false, found = false;

	for (size_t i = 0; !found && (pid = s->process(s->arg, i)); i++)
		found = process_stat_read(pid, &stat, NULL) == 0 && pty_number_of_tty(stat.tty) == (int)p->number;
	if (found && s->inside(s->arg, stat.sid))
		session = s->seen(s->arg, F_OWNER_PID, stat.sid);
	else if (found)
		inherited = getsid(s->process(s->arg, 0)) == stat.sid;
	if (known && (session != p->session || inherited != p->inherited))
		return err_set(e, -EAGAIN, "/dev/pts/%u: its session changed during the migration; try again", p->number);
	p->session = session;
	p->inherited = inherited;
	p->foreground = found && stat.tpgid > 0 ? s->seen(s->arg, F_OWNER_PGRP, stat.tpgid) : 0;
	/* Members of a group that another process has begun (seq | less) get a group of the root's there. */
	if (inherited && p->foreground && !s->inside(s->arg, stat.tpgid))
		p->foreground = s->seen(s->arg, F_OWNER_PID, s->process(s->arg, 0));
	return 0;
}

static int read_contents(const struct pty_source *s, Gw__FdPty *p, int fd, struct err *e)
{
	const struct termios2 *settings = (const void *)p->termios.data;
	cleanup_free uint8_t *waiting = NULL;
	const struct tty_record_pair *pair;
	int r = s->relays_travel ? tty_peek_pair(fd, &pair, e) : tty_peek_now(fd, &pair, e);

	if (r < 0)
		return r;
	if (pair->slave.discipline)
		return err_set(e, -EBUSY, "/dev/pts/%u: a line discipline other than that of terminals", p->number);
	/* Typed for somebody else. */
	if (p->inherited && !p->foreground && !s->relays_travel)
		return 0;
	pty_capture_queue(&pair->slave, (settings->c_lflag & (ICANON | EXTPROC)) == ICANON, p->slave);
	if (!s->relays_travel)
		return 0;
	if (pair->master.flip_len > TTY_FLIP_BYTES || pair->slave.flip_len > TTY_FLIP_BYTES)
		return err_set(e, -EAGAIN, "/dev/pts/%u: more than %u bytes wait in it; try again", p->number, TTY_FLIP_BYTES);
	pty_capture_queue(&pair->master, false, p->master);
	p->master->exclusive = p->master->stopped = false;
	pty_set_bytes(&p->slave->waiting, pair->slave.flip, pair->slave.flip_len);
	waiting = fd_alloc(pair->master.flip_len + 3 * TTY_QUEUE_BYTES);
	memcpy(waiting, pair->master.flip, pair->master.flip_len);
	pty_set_bytes(&p->master->waiting, waiting, pair->master.flip_len + pty_decode_echo(&pair->slave, waiting + pair->master.flip_len));
	return 0;
}

int pty_capture_relayed(const struct pty_source *s, uint32_t index, int slave, bool known, struct err *e)
{
	Gw__FdPty *p = s->msg->ptys[index];
	int r;

	known &= s->frozen;
	if (s->frozen && (!known || !p->relay))
		return err_set(e, -EAGAIN, "/dev/pts/%u: it was opened during the migration; try again", p->number);
	if (!p->relay) {
		p->relay = p->slave_opened = true;
		p->relay_id = RELAY_TERMINAL_ID;
		p->mode = 0620;
		p->master_path = fd_strdup("/dev/ptmx");
	}
	r = read_settings(p, slave, e);
	if (r == 0)
		r = read_session(s, p, known, e);
	return r == 0 && s->frozen ? read_contents(s, p, slave, e) : r;
}
