/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pty_restore.c - making pseudo-terminals at the destination, empty; see pty.h. What is filled in the freeze is in pty_fill.c */
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/ns_terminal.h"
#include "image/place.h"
#include "image/pty_internal.h"
#include "image/relay.h"

#define PTMX "/dev/ptmx"
#define PTMX_MINOR 2
#define OPEN_FLAGS (O_ACCMODE | O_NONBLOCK)
#define PACKET_STATUS_ALL 0x7fu
#define WAITING_MAX 65536u

static int validate_end(const Gw__FdPtyEnd *end, struct err *e)
{
	if (!end || end->queue.len > 4096 || end->waiting.len > WAITING_MAX || end->column > 65535)
		return err_set(e, -EPROTO, "terminal: buffers out of range");
	for (size_t i = 0; i < end->n_line_ends; i++)
		if (end->line_ends[i] >= end->queue.len || (i && end->line_ends[i] <= end->line_ends[i - 1]))
			return err_set(e, -EPROTO, "terminal: ends of lines out of range");
	return 0;
}

static int validate_pty(const Gw__FdPty *p, struct err *e)
{
	int r;

	if (p->number >= 1u << 20 || p->mode & ~07777u || p->packet_status & ~PACKET_STATUS_ALL || p->session < 0 || p->foreground < 0)
		return err_set(e, -EPROTO, "terminal: out of range");
	if (strlen(p->master_path) >= PATH_MAX || (p->master_path[0] && p->master_path[0] != '/'))
		return err_set(e, -EPROTO, "terminal: bad path");
	if (p->relay ? p->relay_id != RELAY_TERMINAL_ID || !p->master_path[0] : p->inherited)
		return err_set(e, -EPROTO, "terminal: bad relay");
	if (p->master_path[0] && (p->termios.len != sizeof(struct termios2) || p->termios_locked.len != sizeof(struct termios) ||
				  p->window.len != sizeof(struct winsize)))
		return err_set(e, -EPROTO, "terminal: settings of a strange size");
	r = validate_end(p->master, e);
	return r < 0 ? r : validate_end(p->slave, e);
}

int pty_validate(const Gw__FdTable *t, struct err *e)
{
	cleanup_free uint8_t *has_master = fd_alloc(t->n_ptys);

	if (t->n_ptys > PTYS_MAX)
		return err_set(e, -EPROTO, "%zu terminals", t->n_ptys);
	for (size_t i = 0; i < t->n_ptys; i++) {
		int r = validate_pty(t->ptys[i], e);

		if (r < 0)
			return r;
		for (size_t k = 0; k < i; k++)
			if (t->ptys[k]->number == t->ptys[i]->number && !t->ptys[k]->relay && !t->ptys[i]->relay)
				return err_set(e, -EPROTO, "two terminals with the number %u", t->ptys[i]->number);
	}
	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdDesc *d = t->descs[i];
		bool master = d->kind == GW__FD_KIND__FD_PTY_MASTER;

		if (!pty_is_kind(d->kind))
			continue;
		if (d->index >= t->n_ptys || d->device_minor != t->ptys[d->index]->number || (master && d->hung_up))
			return err_set(e, -EPROTO, "description %zu: terminal %u of %zu", i, d->index, t->n_ptys);
		if (master ? !t->ptys[d->index]->master_path[0] || has_master[d->index]++ : !t->ptys[d->index]->master_path[0] && !d->hung_up)
			return err_set(e, -EPROTO, "description %zu: not the only master, or one without a master", i);
	}
	return 0;
}

int pty_validate_update(const Gw__FdTable *old, const Gw__FdTable *new, struct err *e)
{
	if (new->n_ptys < old->n_ptys)
		return err_set(e, -EPROTO, "descriptor table: the freeze has fewer terminals than the offer");
	for (size_t i = 0; i < old->n_ptys; i++)
		if (new->ptys[i]->relay != old->ptys[i]->relay || (!old->ptys[i]->relay && new->ptys[i]->number != old->ptys[i]->number))
			return err_set(e, -EPROTO, "descriptor table: terminal %zu is not the offer's", i);
	for (size_t i = 0; i < old->n_descs; i++)
		if (pty_is_kind(new->descs[i]->kind) && new->descs[i]->hung_up != old->descs[i]->hung_up)
			return err_set(e, -EPROTO, "descriptor table: the terminal of description %zu was hung up", i);
	return 0;
}

void pty_judge(const Gw__FdTable *t, struct refusals *refusals)
{
	for (size_t i = 0; i < t->n_ptys; i++) {
		char path[64];
		struct stat st;

		if (!t->ptys[i]->master_path[0])
			continue;
		snprintf(path, sizeof(path), "/dev/pts/%u", t->ptys[i]->number);
		if (lstat(place_of(path), &st) == 0 && !t->ptys[i]->relay && !ns_terminal_is_made(t->ptys[i]->number))
			refusals_add(refusals, "fd.tty.number", "another terminal has that name on the destination, and programs know theirs by its name",
				     "end what uses it there, or choose another destination", "terminal %s", path);
		else if (access(place_of("/dev/pts"), F_OK) < 0 || access(place_of(PTMX), F_OK) < 0)
			refusals_add(refusals, "fd.tty.missing", "the destination has no pseudo-terminals (/dev/ptmx, /dev/pts)", "mount devpts there",
				     "terminal %s", path);
	}
}

static bool is_ptmx(const char *path)
{
	struct stat st;

	return stat(place_of(path), &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(5, PTMX_MINOR);
}

/* The kernel gives the lowest free number: those below are held until the right one comes. */
int pty_make_master(int dir, const char *path, uint32_t number, bool higher_does, struct err *e)
{
	cleanup_free int *below = fd_alloc((number + 1) * sizeof(*below));
	uint32_t n = 0, got = 0;
	int fd, r = 0;

	for (;;) {
		fd = openat(dir, path, O_RDWR | O_CLOEXEC | O_NOCTTY);
		if (fd < 0 || ioctl(fd, TIOCGPTN, &got) < 0) {
			r = err_sys(e, -errno, "%s: making a pseudo-terminal", place_seen(path));
			break;
		}
		if (got == number || (got > number && higher_does))
			break;
		if (got > number || n == number) {
			r = err_set(e, -EBUSY, "/dev/pts/%u is another terminal on this host by now", number);
			break;
		}
		below[n++] = fd;
	}
	while (n)
		close(below[--n]);
	if (r < 0)
		close_fdp(&fd);
	return r < 0 ? r : fd;
}

static int make_numbered(const Gw__FdPty *p, struct err *e)
{
	const char *path = is_ptmx(p->master_path) ? p->master_path : PTMX;

	/* One that is hung up for good has no name any more; a relayed one can have another. */
	return pty_make_master(AT_FDCWD, place_of(path), p->number, p->relay || !p->master_path[0], e);
}

static int open_number(const Gw__FdPty *p, int *ret_master, struct err *e)
{
	int fd = p->master_path[0] ? ns_terminal_open(p->number) : -1, unlock = 0, r;

	if (fd < 0)
		fd = make_numbered(p, e);
	if (fd < 0)
		return fd;
	if (ioctl(fd, TIOCSPTLCK, &unlock) < 0) {
		r = err_sys(e, -errno, "/dev/pts/%u: unlocking it", p->number);
		close(fd);
		return r;
	}
	*ret_master = fd;
	return 0;
}

int pty_set_owner(const Gw__FdPty *p, struct err *e)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/pts/%u", p->number);
	if (chown(place_of(path), p->uid, p->gid) < 0 || chmod(place_of(path), p->mode) < 0)
		return err_sys(e, -errno, "%s: owner and mode", path);
	return 0;
}

int pty_open_slave(int master, int flags, struct err *e)
{
	/* O_CLOEXEC would show in the flags of the description. */
	int fd = ioctl(master, TIOCGPTPEER, flags | O_NOCTTY);

	if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return err_sys(e, -errno, "opening a terminal by its master (TIOCGPTPEER)");
	return fd;
}

/*
 * /dev/tty is the terminal of whoever opens it. The child, which shares our descriptors, makes a session of its own for as long as that takes,
 * and gives the terminal up again before it ends: a terminal whose session's leader ends is hung up.
 */
static void open_as_tty(int slave, int flags, int answer)
{
	int fd = -1;

	if (setsid() > 0 && ioctl(slave, TIOCSCTTY, 0) == 0) {
		fd = open("/dev/tty", flags | O_CLOEXEC | O_NOCTTY);
		if (ioctl(slave, TIOCNOTTY) < 0)
			_exit(1);
	}
	if (write(answer, &fd, sizeof(fd)) != (ssize_t)sizeof(fd))
		_exit(1);
	_exit(0);
}

static int open_tty(int master, int flags, struct err *e)
{
	cleanup_close int slave = pty_open_slave(master, O_RDWR | O_NONBLOCK, e);
	int answer[2], fd = -1, status;
	struct sigaction ignore = { .sa_handler = SIG_IGN }, old;
	pid_t child;

	if (slave < 0)
		return slave;
	if (pipe2(answer, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(e, -errno, "pipe");
	/* What giving up a terminal sends to its foreground group. */
	sigaction(SIGHUP, &ignore, &old);
	child = (pid_t)syscall(SYS_clone, CLONE_FILES, 0, 0, 0, 0);
	if (child == 0)
		open_as_tty(slave, flags, answer[1]);
	sigaction(SIGHUP, &old, NULL);
	if (child > 0)
		waitpid(child, &status, __WALL);
	if (child < 0 || read(answer[0], &fd, sizeof(fd)) != (ssize_t)sizeof(fd))
		fd = -1;
	close(answer[0]);
	close(answer[1]);
	return fd < 0 ? err_set(e, -ENXIO, "opening a terminal as /dev/tty") : fd;
}

static int open_end(const Gw__FdDesc *d, int master, struct err *e)
{
	int flags = (int)(d->flags & OPEN_FLAGS), fd, again;

	if (d->kind == GW__FD_KIND__FD_PTY_TTY)
		return open_tty(master, flags, e);
	fd = pty_open_slave(master, flags, e);
	if (fd < 0 || !(d->flags & FD_O_LARGEFILE))
		return fd;
	/* What was opened by its path shows that flag. */
	again = fd_reopen(fd, flags);
	close(fd);
	return again < 0 ? err_sys(e, again, "opening a terminal") : again;
}

/* What can only be opened now: what is to be hung up, and /dev/tty, for which the terminal must not be anybody's yet. */
static int open_early(const Gw__FdTable *t, uint32_t index, bool hung_up, struct pty_made *m, struct err *e)
{
	int first = -1;

	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if (!pty_is_kind(d->kind) || d->index != index || (bool)d->hung_up != hung_up || (!hung_up && d->kind != GW__FD_KIND__FD_PTY_TTY))
			continue;
		m->early[i] = open_end(d, m->master, e);
		if (m->early[i] < 0)
			return m->early[i];
		first = m->early[i];
	}
	if (hung_up && first >= 0 && ioctl(first, TIOCVHANGUP) < 0)
		return err_sys(e, -errno, "/dev/pts/%u: hanging it up", t->ptys[index]->number);
	return 0;
}

static uint32_t number_of_master(int master, uint32_t fallback)
{
	unsigned int number;

	return ioctl(master, TIOCGPTN, &number) == 0 ? number : fallback;
}

void pty_set_numbers(const Gw__FdTable *from, Gw__FdTable *t)
{
	for (size_t i = 0; i < from->n_ptys && i < t->n_ptys; i++)
		t->ptys[i]->number = from->ptys[i]->number;
}

static int take_home(Gw__FdPty *p, const struct pty_home *home, struct pty_made *m, struct err *e)
{
	int number = pty_number_of(home->fd);

	m->done = m->home = true;
	if (number < 0)
		return err_set(e, -EIO, "the terminal at home has been hung up");
	p->number = (uint32_t)number;
	return 0;
}

static int open_home(const Gw__FdDesc *d, const struct pty_home *home, int *ret_fd, struct err *e)
{
	int flags = (int)(d->flags & OPEN_FLAGS), fd;

	if (d->kind == GW__FD_KIND__FD_PTY_TTY)
		fd = home->open_tty ? home->open_tty(home->arg, flags, e) : err_set(e, -EAGAIN, "/dev/tty was opened during the migration; try again");
	else
		fd = fd_reopen(home->fd, flags);
	if (fd < 0)
		return d->kind == GW__FD_KIND__FD_PTY_TTY ? fd : err_sys(e, fd, "opening the terminal at home");
	*ret_fd = fd;
	return 0;
}

static int make(const Gw__FdTable *t, uint32_t index, const struct pty_home *home, struct pty_made *m, struct err *e)
{
	const Gw__FdPty *p = t->ptys[index];
	int r;

	if (p->relay && home)
		return take_home(t->ptys[index], home, m, e);
	r = open_number(p, &m->master, e);
	m->done = true;
	if (r == 0 && p->relay)
		t->ptys[index]->number = number_of_master(m->master, p->number);
	m->early = fd_alloc(t->n_descs * sizeof(*m->early));
	m->n_early = t->n_descs;
	memset(m->early, 0xff, t->n_descs * sizeof(*m->early));
	if (r == 0 && p->master_path[0])
		r = pty_set_owner(p, e);
	if (r == 0)
		r = open_early(t, index, true, m, e);
	if (r == 0)
		r = open_early(t, index, false, m, e);
	if (!p->master_path[0])
		close_fdp(&m->master);
	return r;
}

/* Those for which another number will do, without a master or relayed, come after the others. */
int pty_make_all(const Gw__FdTable *t, struct pty_set *set, struct err *e)
{
	struct pty_made *grown = realloc(set->v, (t->n_ptys + 1) * sizeof(*grown));
	int r = 0;

	if (!grown)
		return err_set(e, -ENOMEM, "no memory for %zu terminals", t->n_ptys);
	set->v = grown;
	for (; set->n < t->n_ptys; set->n++)
		set->v[set->n] = (struct pty_made){ .master = -1 };
	for (int without = 0; without < 2; without++)
		for (uint32_t i = 0; i < t->n_ptys && r == 0; i++)
			if (!set->v[i].done && (t->ptys[i]->relay || !t->ptys[i]->master_path[0]) == without)
				r = make(t, i, set->home, &set->v[i], e);
	return r;
}

int pty_open(const Gw__FdTable *t, size_t i, struct pty_set *set, int *ret_fd, struct err *e)
{
	const Gw__FdDesc *d = t->descs[i];
	struct pty_made *m;
	int fd = set->n < t->n_ptys ? pty_make_all(t, set, e) : 0;

	if (fd < 0)
		return fd;
	m = &set->v[d->index];
	if (m->home && !d->hung_up)
		return open_home(d, set->home, ret_fd, e);
	if (i < m->n_early && m->early[i] >= 0) {
		*ret_fd = take_fd(&m->early[i]);
		return 0;
	}
	if (d->hung_up || m->master < 0)
		return err_set(e, -EPROTO, "description %zu: a terminal that was hung up since the offer", i);
	fd = d->kind == GW__FD_KIND__FD_PTY_MASTER ? fcntl(m->master, F_DUPFD_CLOEXEC, 0) : open_end(d, m->master, e);
	if (fd < 0)
		return d->kind == GW__FD_KIND__FD_PTY_MASTER ? err_sys(e, -errno, "F_DUPFD_CLOEXEC") : fd;
	*ret_fd = fd;
	return 0;
}

void pty_set_free(struct pty_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		close_fdp(&set->v[i].master);
		for (size_t k = 0; k < set->v[i].n_early; k++)
			close_fdp(&set->v[i].early[k]);
		free(set->v[i].early);
	}
	free(set->v);
	*set = (struct pty_set){ 0 };
}
