/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* refill.c - giving a pipe back; see refill.h */
#include "home/refill.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <time.h>

#include "base/util.h"

#define MARK_BYTES 32
#define PAUSE_NS 50000      /* who finds no room is asleep again */
#define TRIES 100000        /* somebody who waits for room all the time is in between in perhaps half of them */
#define ROOM_MAX (1u << 20) /* fs.pipe-max-size, as a rule, which binds those who have no rights only */

static uint8_t *make_space(struct refill *r, size_t len)
{
	uint8_t *grown = realloc(r->data, r->len + len + 1);

	if (!grown)
		abort();
	r->data = grown;
	return grown + r->len;
}

void refill_add(struct refill *r, const void *data, size_t len)
{
	memcpy(make_space(r, len), data, len);
	r->len += len;
}

void refill_free(struct refill *r)
{
	free(r->data);
	*r = REFILL_INIT;
}

/* The same pipe with a description of its own. */
static int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* What lies there and what goes in, in one write. (Behind what lies there it need not fit: refill_behind waits.) */
static size_t needed_bytes(const struct refill *r)
{
	int waiting = 0;

	ioctl(r->fd, FIONREAD, &waiting);
	return PAGE_ALIGN_UP((size_t)waiting + r->len + MARK_BYTES);
}

int refill_check_room(const struct refill *r, struct err *e)
{
	int size = r->len ? fcntl(r->fd, F_GETPIPE_SZ) : 0;

	if (size < 0)
		return err_sys(e, -errno, "a relayed pipe: its size");
	if (r->len && needed_bytes(r) > MAX((size_t)size, (size_t)ROOM_MAX))
		return err_set(e, -EAGAIN, "a relayed pipe: no room for %zu more bytes", r->len);
	return 0;
}

/* So that nobody has to wait until it is read. */
static void make_room(const struct refill *r)
{
	size_t needed = needed_bytes(r);

	if (needed > (size_t)fcntl(r->fd, F_GETPIPE_SZ))
		fcntl(r->fd, F_SETPIPE_SZ, (int)MIN(needed, (size_t)ROOM_MAX));
}

/* What lies there now, and not what somebody writes meanwhile for ever. */
static int read_all(int fd, struct refill *to)
{
	int waiting = 0;
	ssize_t n;

	if (ioctl(fd, FIONREAD, &waiting) < 0)
		return -errno;
	n = waiting ? read(fd, make_space(to, (size_t)waiting), (size_t)waiting) : 0;
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	to->len += (size_t)n;
	return 0;
}

/*
 * Takes out what lies there until the pipe can be made as small as pipes are: whoever waits for room in it, and is woken by that, cannot put much into it then. A full pipe that is
 * made larger is full again at once.
 */
static int take_out(int fd, struct refill *r)
{
	int ret = read_all(fd, r);

	for (int tries = 0; ret == 0 && fcntl(fd, F_SETPIPE_SZ, (int)PAGE_SIZE_BYTES) < 0 && errno == EBUSY && tries < TRIES; tries++)
		ret = read_all(fd, r);
	return ret;
}

/* What is known from its first bytes to be of ours. Whole pages, so that the kernel writes of it whole pages or nothing. */
struct piece {
	uint8_t *data;    /* malloc'ed */
	size_t len, lead; /* of which the first `lead` bytes are no data */
	size_t written;
};

static int make_piece(struct piece *p, const void *data, size_t len, size_t more)
{
	*p = (struct piece){ .len = PAGE_ALIGN_UP(MARK_BYTES + len + more) };
	p->lead = p->len - len - more;
	p->data = calloc(1, p->len);
	if (!p->data)
		abort();
	memcpy(p->data + p->lead, data, len);
	return getrandom(p->data, MARK_BYTES, 0) == MARK_BYTES ? 0 : -EIO;
}

/* 0: there was no room. */
static int write_piece(int fd, struct piece *p)
{
	ssize_t n = write(fd, p->data, p->len);

	p->written = n > 0 ? (size_t)n : 0;
	return n < 0 && errno != EAGAIN ? -errno : 0;
}

/* Whether a piece is the first thing that lies there; what is read goes to `all`. */
static bool comes_next(int fd, const struct piece *p, struct refill *all)
{
	size_t at = all->len;
	ssize_t n = read(fd, make_space(all, p->lead), p->lead);

	all->len += (size_t)MAX(n, (ssize_t)0);
	return n == (ssize_t)p->lead && p->written == p->len && (!p->lead || !memcmp(all->data + at, p->data, p->lead));
}

static void cut_out(struct refill *all, const struct piece *p)
{
	uint8_t *at = p->written ? memmem(all->data, all->len, p->data, MARK_BYTES) : NULL;
	size_t behind = at ? (size_t)(at - all->data) + p->written : 0;

	if (!at || behind > all->len)
		return;
	memmove(at, all->data + behind, all->len - behind);
	all->len -= p->written;
}

/*
 * Fills the only page of the pipe, so that who waits for room sleeps again; makes it larger, and puts all in. Between either and the call before is next to nothing.
 * What lay in the page goes to the end of r.
 */
static int put_in(int fd, struct refill *r, struct piece *page, struct piece *all)
{
	const struct timespec pause = { 0, PAUSE_NS };
	int waiting = 0, ret;
	ssize_t last;

	if (ioctl(fd, FIONREAD, &waiting) < 0 || make_piece(page, "", 0, 0) < 0 || make_piece(all, r->data, r->len, (size_t)waiting) < 0)
		return -EIO;
	last = waiting ? read(fd, all->data + all->len - waiting, (size_t)waiting) : 0;
	ret = write_piece(fd, page);
	refill_add(r, all->data + all->len - waiting, (size_t)MAX(last, (ssize_t)0));
	if (ret < 0 || !page->written || last != waiting)
		return ret;
	nanosleep(&pause, NULL);
	fcntl(fd, F_SETPIPE_SZ, (int)MIN(page->len + all->len, (size_t)INT_MAX));
	return write_piece(fd, all);
}

/* 1: it is done; 0: somebody was in between, and all is in r again, theirs behind ours. */
static int try_before(int fd, struct refill *r, struct err *e)
{
	struct piece page = { 0 }, all = { 0 };
	struct refill seen = REFILL_INIT;
	int ret = take_out(fd, r);

	if (ret == 0)
		ret = put_in(fd, r, &page, &all);
	if (ret < 0) {
		err_sys(e, ret, "a relayed pipe: filling it");
	} else if (comes_next(fd, &page, &seen) && comes_next(fd, &all, &seen)) {
		ret = 1;
	} else {
		ret = read_all(fd, &seen);
		cut_out(&seen, &page);
		cut_out(&seen, &all);
		refill_add(r, seen.data, seen.len);
	}
	refill_free(&seen);
	free(page.data);
	free(all.data);
	return ret;
}

int refill_behind(struct refill *r, struct err *e)
{
	cleanup_close int fd = r->len ? reopen(r->fd, O_WRONLY) : -1;
	size_t done = 0;

	if (r->len && fd < 0)
		return err_sys(e, -errno, "a relayed pipe");
	if (r->len)
		make_room(r);
	while (done < r->len) {
		struct pollfd p = { fd, POLLOUT, 0 };
		ssize_t n = write(fd, r->data + done, r->len - done);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return 0; /* nobody reads */
		if (n < 0)
			poll(&p, 1, -1);
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Who is woken by the taking out must not get this processor first; on another one it is a race. */
static void hurry(bool on)
{
	static struct sched_param before;
	static int policy = -1;
	const struct sched_param now = { .sched_priority = 1 };

	if (on) {
		policy = sched_getscheduler(0);
		sched_getparam(0, &before);
		sched_setscheduler(0, SCHED_FIFO, &now);
	} else if (policy >= 0) {
		sched_setscheduler(0, policy, &before);
	}
}

int refill_before(struct refill *r, struct err *e)
{
	cleanup_close int both = r->len ? reopen(r->fd, O_RDWR) : -1;
	int ret = 0, size = r->len ? fcntl(r->fd, F_GETPIPE_SZ) : 0;

	if (!r->len)
		return 0;
	if (both < 0)
		return err_sys(e, -errno, "a relayed pipe");
	hurry(true);
	for (int tries = 0; ret == 0 && tries < TRIES; tries++)
		ret = try_before(both, r, e);
	hurry(false);
	fcntl(both, F_SETPIPE_SZ, size); /* as it was, when that is enough */
	return ret == 0 ? refill_behind(r, e) : MIN(ret, 0); /* somebody writes without a pause: rather in another order than not at all */
}
