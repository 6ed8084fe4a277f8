/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_identity.c - which numbers of all processes refer to the same open file description
 *
 * Theory of operation: the descriptions seen are kept sorted by (device, inode, kcmp order), so that 10,000 descriptors cost n log n
 * comparisons, of duplicates that the worker holds: so it does not matter which process has a number. A number that is of the same
 * kind on the same file as before *adopts* the description of the offer: whether it is that very description does not matter, since
 * everything that can differ is sent again. The next number that had this description must refer to the same one to keep it.
 */
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/file_state.h"

/* Our own pid, without a system call for each comparison. */
static pid_t self_pid;

/* Order of a descriptor of process `pid` and a duplicate of the worker: by file, then as the kernel orders descriptions. 0: the same description. */
static int compare_with(pid_t pid, const struct fd_held *a, const struct fd_held *b)
{
	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	switch (syscall(SYS_kcmp, pid, self_pid, KCMP_FILE, a->fd, b->fd)) {
	case 0:
		return 0;
	case 1:
		return -1;
	default:
		return 1;
	}
}

static int compare_held(const struct fd_held *a, const struct fd_held *b)
{
	return compare_with(self_pid, a, b);
}

bool fdtable_same_held(const struct fd_held *a, const struct fd_held *b)
{
	self_pid = getpid();
	return compare_held(a, b) == 0;
}

/* Position of a descriptor of process `pid` in t->order; *ret_found says whether its description is there. */
static size_t order_find_of(const struct fdtable *t, pid_t pid, const struct fd_held *held, bool *ret_found)
{
	size_t low = 0, high = t->n_order;

	*ret_found = false;
	while (low < high) {
		size_t middle = (low + high) / 2;
		int c = compare_with(pid, held, &t->held[t->order[middle]]);

		if (c == 0) {
			*ret_found = true;
			return middle;
		}
		if (c < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static size_t order_find(const struct fdtable *t, const struct fd_held *held, bool *ret_found)
{
	return order_find_of(t, self_pid, held, ret_found);
}

/* Where nothing is held: by a number of the unit's that it was found by. */
static bool find_number(const struct fdtable *t, pid_t pid, const struct fd_held *theirs, uint32_t *ret_desc)
{
	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		const struct fd_held *held = &t->held[i];

		if (held->closed || held->loose || !held->uses || held->dev != theirs->dev || held->ino != theirs->ino ||
		    syscall(SYS_kcmp, pid, t->views[held->view].pid, KCMP_FILE, theirs->fd, fdtable_number_of(t, i)->fd) != 0)
			continue;
		*ret_desc = i;
		return true;
	}
	return false;
}

bool fdtable_find_held(const struct fdtable *t, pid_t pid, const struct fd_held *theirs, uint32_t *ret_desc)
{
	bool found;
	size_t at;

	if (t->order_is_old)
		return find_number(t, pid, theirs, ret_desc);
	self_pid = getpid();
	at = order_find_of(t, pid, theirs, &found);
	if (found)
		*ret_desc = t->order[at];
	return found;
}

static void order_insert(struct fdtable *t, uint32_t desc, size_t at)
{
	memmove(&t->order[at + 1], &t->order[at], (t->n_order - at) * sizeof(*t->order));
	t->order[at] = desc;
	t->n_order++;
}

uint32_t fdtable_add_desc(struct fdtable *t, const struct fd_held *held)
{
	size_t n = t->msg->n_descs;
	Gw__FdDesc *d = fd_alloc(sizeof(*d));

	gw__fd_desc__init(d);
	if ((n & (n - 1)) == 0) {
		size_t room = n ? n * 2 : 1;

		t->held = realloc(t->held, room * sizeof(*t->held));
		t->order = realloc(t->order, room * sizeof(*t->order));
		if (!t->held || !t->order)
			abort();
	}
	t->held[n] = *held;
	fd_append(&t->msg->descs, &t->msg->n_descs, d);
	return (uint32_t)n;
}

/* Whether `got`, found at a number of description `desc`, is of the same kind on the same file, so that only what is sent again differs. */
static bool may_adopt(const struct fdtable *t, uint32_t desc, const struct fd_held *got)
{
	const struct fd_held *was = &t->held[desc];
	const Gw__FdDesc *d = t->msg->descs[desc];
	int flags;

	if (was->closed || was->fd >= 0 || was->dev != got->dev || was->ino != got->ino)
		return false;
	flags = fcntl(got->fd, F_GETFL);
	if (flags < 0 || (((uint32_t)flags ^ d->flags) & (O_ACCMODE | O_PATH)))
		return false;
	return was->refused || fdtable_same_kind(d, got->fd);
}

/*
 * Decides which description `held` is. First for all numbers without searching (search false): what was known before and may be
 * adopted; returns false for the others. Then, with the order checked, by searching; a duplicate that is not needed is closed
 * then.
 */
static bool assign_number(struct fdtable *t, struct fd_held *held, struct fd_seen *old, bool search, uint32_t *ret_desc)
{
	bool found;
	size_t at;

	if (!search) {
		if (!old)
			return false;
		*ret_desc = old->desc;
		if (may_adopt(t, old->desc, held)) {
			t->held[old->desc].fd = held->fd;
			return true;
		}
		return !t->held[old->desc].closed && t->held[old->desc].fd >= 0 && compare_held(held, &t->held[old->desc]) == 0;
	}
	at = order_find(t, held, &found);
	if (found) {
		*ret_desc = t->order[at];
		close(held->fd);
	} else if (old && may_adopt(t, old->desc, held)) {
		*ret_desc = old->desc;
		t->held[old->desc].fd = held->fd;
		order_insert(t, old->desc, at);
	} else {
		*ret_desc = fdtable_add_desc(t, held);
		order_insert(t, *ret_desc, at);
	}
	return true;
}

/*
 * Reduces the order of the last capture to what has been adopted, and checks that it still is one: two descriptions of then may
 * be one now, or the kernel may have put others in their place. n comparisons.
 */
static bool order_still_holds(struct fdtable *t)
{
	size_t kept = 0;

	for (size_t i = 0; i < t->n_order; i++) {
		uint32_t desc = t->order[i];

		if (t->held[desc].fd < 0)
			continue;
		if (kept && compare_held(&t->held[t->order[kept - 1]], &t->held[desc]) >= 0)
			return false;
		t->order[kept++] = desc;
	}
	t->n_order = kept;
	return true;
}

void fdtable_identify(struct fdtable *t, struct fd_fetched *got, size_t n)
{
	bool holds;

	self_pid = getpid();
	for (size_t i = 0; i < n; i++)
		got[i].assigned = !got[i].like && assign_number(t, &got[i].held, got[i].old, false, &got[i].desc);
	holds = !t->order_is_old && order_still_holds(t);
	t->order_is_old = false;
	for (size_t i = 0; i < n; i++) {
		struct fd_held *adopted = got[i].assigned ? &t->held[got[i].desc] : NULL;

		if (!adopted)
			continue;
		if (!holds && adopted->fd == got[i].held.fd)
			adopted->fd = -1; /* everything is decided anew */
		else if (holds && adopted->fd != got[i].held.fd)
			close_fdp(&got[i].held.fd);
	}
	if (!holds)
		t->n_order = 0;
	for (size_t i = 0; i < n; i++)
		if (got[i].like)
			got[i].desc = got[got[i].like - 1].desc;
		else if (!holds || !got[i].assigned)
			assign_number(t, &got[i].held, got[i].old, true, &got[i].desc);
}

uint32_t fdtable_identify_loose(struct fdtable *t, struct fd_held *held)
{
	bool found = false;
	size_t at;

	self_pid = getpid();
	at = order_find(t, held, &found);
	if (found) {
		close_fdp(&held->fd);
		return t->order[at];
	}
	for (uint32_t i = 0; i < t->msg->n_descs; i++)
		if (may_adopt(t, i, held)) {
			t->held[i].fd = held->fd;
			order_insert(t, i, at);
			return i;
		}
	order_insert(t, fdtable_add_desc(t, held), at);
	return t->order[at];
}

uint32_t fdtable_move_desc(struct fdtable *t, uint32_t desc)
{
	struct fd_held moved = t->held[desc];
	uint32_t now;

	moved.known = moved.refused = false;
	moved.changed = true;
	now = fdtable_add_desc(t, &moved);
	t->held[desc] = (struct fd_held){ .fd = -1, .dev = moved.dev, .ino = moved.ino };
	for (size_t i = 0; i < t->n_order; i++)
		if (t->order[i] == desc)
			t->order[i] = now;
	return now;
}
