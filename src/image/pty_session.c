/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pty_session.c - controlling terminals; see pty_session.h */
#include "image/pty_session.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "base/util.h"

/* Numbers as stat and the device calls have them. */
int pty_number_of_tty(int tty_nr)
{
	int device_major = tty_nr >> 8 & 0xfff;

	return device_major == 136 ? (tty_nr & 0xff) | (tty_nr >> 12 & 0xfff00) : -1;
}

void pty_check_controlling(pid_t pid, int tty_nr, const Gw__FdTable *t, bool (*inside)(void *arg, pid_t pid), void *arg, struct refusals *r)
{
	int number = pty_number_of_tty(tty_nr);

	if (!tty_nr)
		return;
	for (size_t i = 0; t && i < t->n_ptys && number >= 0; i++)
		if (t->ptys[i]->number == (uint32_t)number && t->ptys[i]->master_path[0] && (t->ptys[i]->inherited || inside(arg, t->ptys[i]->session)))
			return;
	refusals_add(r, "task.controlling-terminal",
		     number < 0 ? "its controlling terminal is no pseudo-terminal" : "no descriptor of its controlling terminal is to be had, or it is not that of the unit's root",
		     "run it in a pseudo-terminal (tmux, script), or start it with setsid", "process %d (terminal %d:%d)",
		     (int)pid, tty_nr >> 8 & 0xfff, number >= 0 ? number : tty_nr & 0xff);
}

int pty_of_session(const Gw__FdTable *t, pid_t session)
{
	for (size_t i = 0; i < t->n_ptys; i++)
		if (session > 0 && t->ptys[i]->session == session && t->ptys[i]->master_path[0])
			return (int)i;
	return -1;
}

int pty_inherited(const Gw__FdTable *t)
{
	for (size_t i = 0; i < t->n_ptys; i++)
		if (t->ptys[i]->inherited)
			return (int)i;
	return -1;
}

int pty_restore_controlling(const Gw__FdTable *t, pid_t pid, struct batch *b, struct err *e)
{
	int index = pty_of_session(t, pid);
	char path[64];
	int64_t fd;
	int r;

	if (index < 0)
		return 0;
	snprintf(path, sizeof(path), "/dev/pts/%u", t->ptys[index]->number);
	fd = remote_do(b, e, "opening the controlling terminal", SYS_openat, AT_FDCWD, batch_string(b, path), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return (int)fd;
	batch_call(b, "TIOCSCTTY", SYS_ioctl, (uint64_t)fd, TIOCSCTTY, 0);
	batch_call(b, "close", SYS_close, (uint64_t)fd);
	r = batch_run(b, e);
	batch_reset(b);
	return r < 0 ? r : 0;
}

int pty_give_up_controlling(struct batch *b, struct err *e)
{
	int64_t fd = remote_do(b, e, "opening the controlling terminal", SYS_openat, AT_FDCWD, batch_string(b, "/dev/tty"), O_RDWR | O_NOCTTY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return (int)fd;
	batch_call(b, "TIOCNOTTY", SYS_ioctl, (uint64_t)fd, TIOCNOTTY);
	batch_call(b, "close", SYS_close, (uint64_t)fd);
	r = batch_run(b, e);
	batch_reset(b);
	return r < 0 ? r : 0;
}

static uint64_t lowest_free(const Gw__FdNumbers *n)
{
	uint64_t fd = 0;

	for (size_t i = 0; i < n->n_fd && n->fd[i] == fd; i++)
		fd++;
	return fd;
}

void pty_plan_foreground(const Gw__FdTable *t, pid_t pid, uint32_t process, pid_t home_group, const struct tree *tree, struct batch *b)
{
	int index = process || pty_inherited(t) < 0 ? pty_of_session(t, pid) : pty_inherited(t);
	uint64_t fd, group_at;
	uint32_t own;
	pid_t *group;
	char path[64];

	if (index < 0 || !t->ptys[index]->foreground)
		return;
	fd = lowest_free(t->tables[t->table_of[process]]);
	snprintf(path, sizeof(path), "/dev/pts/%u", t->ptys[index]->number);
	if (home_group && t->ptys[index]->relay)
		snprintf(path, sizeof(path), "/dev/tty");
	group = batch_space(b, sizeof(*group), &group_at);
	own = tree_find(tree, pid);
	*group = home_group && t->ptys[index]->foreground == pid ? home_group : tree_seen(tree, own == TREE_NONE ? 0 : tree->v[own].space, (pid_t)t->ptys[index]->foreground);
	batch_call(b, "opening the controlling terminal", SYS_openat, AT_FDCWD, batch_string(b, path), O_RDWR | O_NOCTTY | O_CLOEXEC);
	/* A group whose last process has ended cannot be set; nobody can be told the difference but by its number. */
	batch_try(b, "TIOCSPGRP", SYS_ioctl, fd, TIOCSPGRP, group_at);
	batch_call(b, "close", SYS_close, fd);
}
