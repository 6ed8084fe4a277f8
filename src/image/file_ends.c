/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_ends.c - the source's side of the tables: pipes, of which the unit must have all ends
 *
 * An end is outside when a process that is not of the unit has it: found by looking through /proc, once for each pipe. What
 * no visible process has (another pid namespace, a message in flight) shows by the kernel's word that the other end exists.
 */
#include <fcntl.h>

#include "base/util.h"
#include "image/file_gone.h"
#include "image/file_leak.h"
#include "image/file_state.h"
#include "image/pipe.h"
#include "image/relay.h"

void fdtable_add_pipe_end(struct capture *c, const struct fd_look *look, Gw__FdDesc *d)
{
	struct fdtable *t = c->t;
	size_t n = t->msg->n_pipes, len;
	Gw__FdPipe *p;

	for (size_t i = 0; i < n; i++)
		if (t->pipe_ids[i].ino == look->st->st_ino && t->pipe_ids[i].dev == look->st->st_dev) {
			d->index = (uint32_t)i;
			return;
		}
	p = fd_alloc(sizeof(*p));
	gw__fd_pipe__init(p);
	pipe_forget(p); /* until its contents are read */
	if (look->link[0] == '/')
		p->fifo_path = fd_strdup(look->link);
	if (file_gone(look->link, look->st, &len)) {
		p->fifo_path[len] = 0;
		p->deleted = file_gone_inode(look->st);
	}
	t->pipe_ids = realloc(t->pipe_ids, (n + 1) * sizeof(*t->pipe_ids));
	if (!t->pipe_ids)
		abort();
	t->pipe_ids[n] = (struct fd_pipe_id){ .dev = look->st->st_dev, .ino = look->st->st_ino };
	d->index = (uint32_t)n;
	fd_append(&t->msg->pipes, &t->msg->n_pipes, p);
}

/* The ends of one pipe that the unit holds: which, a duplicate (of a read end if there is one), and a description behind it. */
struct ends {
	int held;
	uint32_t desc;
	bool open, reads, writes;
};

void fdtable_scan_outside(const struct fdtable *t, struct pipe_holder *holders, size_t n)
{
	cleanup_free pid_t *inside = fd_alloc(t->n_views * sizeof(*inside));

	for (size_t i = 0; i < t->n_views; i++)
		inside[i] = t->views[i].pid;
	pipe_outside_scan(inside, t->n_views, holders, n);
}

static void refuse_pipe(struct capture *c, size_t i, const struct ends *ends, const struct pipe_holder *holder)
{
	const char *path = c->t->msg->pipes[i]->fifo_path;
	size_t refused = c->refusals->n;
	char cause[160];

	if (holder && holder->pid)
		snprintf(cause, sizeof(cause), "pid %d has it open too (its fd %d), and would stay behind", (int)holder->pid, holder->fd);
	else
		snprintf(cause, sizeof(cause), "a process that this host does not see has its other end");
	refusals_add(c->refusals, "fd.pipe.outside", cause, "start it with files instead of pipes, or let the other process end first",
		"fd %d (%s%s, %s end)", fdtable_number_of(c->t, ends->desc)->fd, path[0] ? "FIFO " : "pipe", path,
			ends->reads && ends->writes ? "either" : ends->reads ? "read" : "write");
	fdtable_name_process(c, refused, ends->desc);
	refusals_blame(c->refusals, refused, holder ? holder->pid : 0);
}

static void find_ends(struct fdtable *t, struct ends *ends)
{
	for (size_t i = 0; i < t->msg->n_pipes; i++)
		ends[i] = (struct ends){ .held = -1 };
	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		const Gw__FdDesc *d = t->msg->descs[i];
		uint32_t access = d->flags & O_ACCMODE;
		struct ends *x;

		if (d->kind != GW__FD_KIND__FD_PIPE)
			continue;
		x = &ends[d->index];
		if (!x->open || !x->reads) {
			x->held = t->held[i].fd;
			x->desc = i;
			x->open = t->running || x->held >= 0;
		}
		x->reads = x->reads || access != O_WRONLY;
		x->writes = x->writes || access != O_RDONLY;
	}
}

/* With one kind of end only, what goes through it can be relayed. */
static bool relay_pipe(struct fdtable *t, size_t i, const struct ends *ends)
{
	Gw__FdPipe *p = t->msg->pipes[i];

	if (ends->reads == ends->writes || i >= RELAYS_SOCKETS)
		return false;
	if (!p->relay)
		p->relay_id = (uint32_t)i;
	p->relay = ends->reads ? RELAY_UNIT_READS : RELAY_UNIT_WRITES;
	return true;
}

/* One of which nobody in the unit knows stays; the unit has a new one. */
static bool is_leaked(struct fdtable *t, size_t pipe)
{
	for (uint32_t i = 0; i < t->msg->n_descs; i++)
		if (t->msg->descs[i]->kind == GW__FD_KIND__FD_PIPE && t->msg->descs[i]->index == pipe && !fdtable_is_leaked(t, i, "pipe", NULL))
			return false;
	return true;
}

int fdtable_capture_pipes(struct capture *c, struct err *e)
{
	struct fdtable *t = c->t;
	size_t n = t->msg->n_pipes, n_new = 0;
	cleanup_free struct ends *ends = fd_alloc(n * sizeof(*ends));
	cleanup_free struct pipe_holder *holders = fd_alloc(n * sizeof(*holders));
	int r = 0;

	find_ends(t, ends);
	for (size_t i = 0; i < n; i++) {
		/* Inode 0: nobody has that. Looked for once; later ones could only come from the unit itself. */
		holders[i].ino = t->pipe_ids[i].scanned ? 0 : t->pipe_ids[i].ino;
		n_new += !t->pipe_ids[i].scanned;
	}
	if (n_new)
		fdtable_scan_outside(t, holders, n);
	for (size_t i = 0; i < n && r == 0; i++) {
		bool lone;

		if (t->running && ends[i].open && fdtable_hold(t, ends[i].desc, NULL) > 0)
			ends[i].held = t->held[ends[i].desc].fd;
		if (ends[i].held < 0) {
			pipe_forget(t->msg->pipes[i]);
			continue;
		}
		/* With one kind of end only, the kernel tells whether the other exists anywhere. */
		lone = ends[i].reads != ends[i].writes && !pipe_is_broken(ends[i].held, ends[i].writes);
		if (ends[i].reads && ends[i].writes && (t->held[ends[i].desc].leaked || holders[i].pid) && is_leaked(t, i))
			r = pipe_capture(ends[i].held, false, t->msg->pipes[i], e);
		else if ((holders[i].pid || lone) && !relay_pipe(t, i, &ends[i]))
			refuse_pipe(c, i, &ends[i], &holders[i]);
		else
			r = pipe_capture(ends[i].held, t->frozen && (!t->msg->pipes[i]->relay || t->relays_travel), t->msg->pipes[i], e);
		if (t->running)
			fdtable_let_go(t, ends[i].desc);
		t->pipe_ids[i].scanned = !holders[i].pid || t->msg->pipes[i]->relay || t->held[ends[i].desc].leaked;
	}
	return r;
}
