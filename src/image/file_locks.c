/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_locks.c - the source's side of the tables: which locks the unit holds, and on what
 *
 * fdinfo shows a POSIX lock at the numbers of the description that it was set through, in the process whose table owns it, and
 * names the process that set it; the other locks at every number of their description.
 */
#include <fcntl.h>

#include "base/util.h"
#include "image/file_state.h"
#include "image/flock.h"
#include "image/lease.h"

/* Whether the lock can be taken again through d: fcntl wants write access for a write lock, read access for a read lock. */
static bool lock_usable(const Gw__FdDesc *d, const struct flock_line *l)
{
	uint32_t access = d->flags & O_ACCMODE;

	return l->kind == GW__FD_LOCK_KIND__LOCK_FLOCK || access == O_RDWR || access == (l->write ? O_WRONLY : O_RDONLY);
}

static bool same_file(const struct fd_held *a, const struct fd_held *b)
{
	return a->dev == b->dev && a->ino == b->ino;
}

static bool lock_known(const struct fdtable *t, const Gw__FdLock *l)
{
	for (size_t i = t->msg->n_locks; i-- > 0;) {
		const Gw__FdLock *k = t->msg->locks[i];

		if (k->kind != l->kind || k->start != l->start || k->end != l->end)
			continue;
		if (k->kind == GW__FD_LOCK_KIND__LOCK_POSIX ? t->views[k->process].first == t->views[l->process].first &&
		    same_file(&t->held[k->desc], &t->held[l->desc]) : k->desc == l->desc)
			return true;
	}
	return false;
}

/* Of the processes that share the table of `view`: the one that has set the lock. */
static uint32_t find_locker(const struct fdtable *t, uint32_t view, const struct flock_line *line)
{
	for (uint32_t i = 0; i < t->n_views && line->kind == GW__FD_LOCK_KIND__LOCK_POSIX; i++)
		if (t->views[i].first == view && t->views[i].pid == line->pid)
			return i;
	return view;
}

/* One lock line; the second pass refuses what the first could not attribute to any description. */
static void capture_lock(struct capture *c, uint32_t view, const struct fd_seen *s, const struct flock_line *line, bool second_pass)
{
	struct fdtable *t = c->t;
	Gw__FdLock wanted = GW__FD_LOCK__INIT, *l;

	wanted.kind = line->kind;
	wanted.write = line->write;
	wanted.desc = s->desc;
	wanted.start = line->start;
	wanted.end = line->end;
	wanted.process = find_locker(t, view, line);
	if (line->lease) {
		/* Whose description was not looked at, since it had none. */
		if (!second_pass && !t->msg->descs[s->desc]->lease && !t->held[s->desc].refused)
			refusals_add(c->refusals, "fd.lease", "a lease was taken during the migration", "try again", "fd %d", s->fd);
		return;
	}
	if (lock_known(t, &wanted))
		return;
	if (second_pass) {
		refusals_add(c->refusals, "fd.lock.access", "no open descriptor has the access that taking its lock again needs",
			"release the lock first",
			"fd %d (locked file)", s->fd);
		return;
	}
	if (!lock_usable(t->msg->descs[s->desc], line))
		return;
	l = fd_alloc(sizeof(*l));
	*l = wanted;
	fd_append(&t->msg->locks, &t->msg->n_locks, l);
}

/* In the freeze the numbers that are not looked at have none. */
static bool some_locks(const struct fdtable *t)
{
	if (!t->few)
		return true;
	for (size_t i = 0; i < t->n_views; i++)
		for (size_t k = 0; k < t->views[i].n_records; k++)
			if (t->views[i].records[k].has_locks)
				return true;
	return false;
}

void fdtable_capture_locks(struct capture *c)
{
	Gw__FdTable *m = c->t->msg;

	for (size_t i = 0; i < m->n_locks; i++)
		gw__fd_lock__free_unpacked(m->locks[i], NULL);
	free(m->locks);
	m->locks = NULL;
	m->n_locks = 0;
	for (int pass = 0; pass < 2 && some_locks(c->t); pass++) {
		for (uint32_t view = 0; view < c->t->n_views; view++)
			for (size_t i = 0; i < c->t->views[view].n_seen; i++) {
				const struct fd_seen *s = &c->t->views[view].seen[i];
				const char *line = s->has_locks ? s->text : NULL;
				struct flock_line parsed;

				while (flock_parse(&line, &parsed))
					capture_lock(c, view, s, &parsed, pass == 1);
			}
	}
}

/* A number of the description in that table. */
static int number_in(const struct fd_view *view, uint32_t desc)
{
	for (size_t i = 0; i < view->n_seen; i++)
		if (view->seen[i].desc == desc)
			return view->seen[i].fd;
	return -1;
}

static void plan(const struct fdtable *t, uint32_t process, struct batch *b, bool take)
{
	const struct fd_view *view = &t->views[t->views[process].first];

	for (size_t i = 0; i < t->msg->n_locks; i++)
		if (t->msg->locks[i]->process == process)
			flock_plan(b, t->msg->locks[i], take, number_in(view, t->msg->locks[i]->desc));
}

static int held_fd(void *arg, uint32_t desc)
{
	return ((const struct fdtable *)arg)->held[desc].fd;
}

void fdtable_plan_release_locks(const struct fdtable *t, uint32_t process, struct batch *b)
{
	if (!process)
		lease_release_all(t->msg, held_fd, (void *)(uintptr_t)t);
	plan(t, process, b, false);
}

void fdtable_plan_retake_locks(const struct fdtable *t, uint32_t process, struct batch *b)
{
	if (!process)
		lease_retake_all(t->msg, held_fd, (void *)(uintptr_t)t);
	plan(t, process, b, true);
}
