/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* refill.c - giving a pipe back; see refill.h */
#include "home/refill.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/random.h>

#include "base/util.h"

#define MARK_BYTES 32
#define TRIES 1000 /* a try takes some 10 us; somebody who writes all the time is in between in few of them */
#define SLACK (64u << 10)
#define ROOM_MAX (1u << 20) /* fs.pipe-max-size, as a rule */
#define READ_BYTES 65536u

void refill_add(struct refill *r, const void *data, size_t len)
{
	uint8_t *grown = realloc(r->data, r->len + len + 1);

	if (!grown)
		abort();
	memcpy(grown + r->len, data, len);
	r->data = grown;
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

/* Also for what somebody writes before all is in again. */
static void make_room(const struct refill *r)
{
	size_t needed = needed_bytes(r) + SLACK;

	if (needed > (size_t)fcntl(r->fd, F_GETPIPE_SZ))
		fcntl(r->fd, F_SETPIPE_SZ, (int)MIN(needed, (size_t)ROOM_MAX));
}

/* What lies there now, and not what somebody writes meanwhile for ever. */
static int read_all(int fd, struct refill *to)
{
	uint8_t buffer[READ_BYTES];
	int waiting = 0;
	ssize_t n;

	if (ioctl(fd, FIONREAD, &waiting) < 0)
		return -errno;
	for (; waiting > 0; waiting -= (int)n) {
		n = read(fd, buffer, sizeof(buffer));
		if (n <= 0)
			return n < 0 && errno != EAGAIN ? -errno : 0;
		refill_add(to, buffer, (size_t)n);
	}
	return 0;
}

/*
 * Somebody was in between: in the pipe lie a piece of theirs, the mark, `written` bytes of ours, and perhaps more of theirs. Theirs comes behind all of ours.
 */
static int take_apart(int fd, struct refill *r, const uint8_t *mark, const struct refill *head, size_t written)
{
	struct refill all = REFILL_INIT;
	uint8_t *at;
	int ret;

	refill_add(&all, head->data, head->len);
	ret = read_all(fd, &all);
	at = ret < 0 ? NULL : memmem(all.data, all.len, mark, MARK_BYTES);
	if (at) {
		size_t before = (size_t)(at - all.data), ours = before + MARK_BYTES + written;

		refill_add(r, all.data, before);
		if (ours < all.len)
			refill_add(r, all.data + ours, all.len - ours);
	} else if (ret == 0) {
		refill_add(r, all.data, all.len); /* nothing of ours had room */
	}
	refill_free(&all);
	return ret;
}

/* 1: it is done; 0: somebody was in between, and all is in r again. */
static int try_before(int fd, struct refill *r, struct err *e)
{
	struct refill out = REFILL_INIT, head = REFILL_INIT;
	uint8_t mark[MARK_BYTES], seen[MARK_BYTES];
	ssize_t n;
	int ret = 0;

	if (getrandom(mark, sizeof(mark), 0) != (ssize_t)sizeof(mark))
		return err_sys(e, -errno, "getrandom");
	ret = read_all(fd, r);
	if (ret < 0)
		return err_sys(e, ret, "a relayed pipe: reading it");
	refill_add(&out, mark, sizeof(mark));
	refill_add(&out, r->data, r->len);
	n = write(fd, out.data, out.len);
	if (n < 0)
		n = errno == EAGAIN ? 0 : -errno;
	if (n < 0) {
		ret = err_sys(e, (int)n, "a relayed pipe: filling it");
	} else if (read(fd, seen, sizeof(seen)) == (ssize_t)sizeof(seen) && (size_t)n == out.len && !memcmp(seen, mark, sizeof(mark))) {
		ret = 1;
	} else {
		refill_add(&head, seen, sizeof(seen));
		ret = take_apart(fd, r, mark, &head, n > MARK_BYTES ? (size_t)n - MARK_BYTES : 0);
	}
	refill_free(&head);
	refill_free(&out);
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

int refill_before(struct refill *r, struct err *e)
{
	cleanup_close int both = r->len ? reopen(r->fd, O_RDWR) : -1;
	int ret = 0, size = r->len ? fcntl(r->fd, F_GETPIPE_SZ) : 0;

	if (!r->len)
		return 0;
	if (both < 0)
		return err_sys(e, -errno, "a relayed pipe");
	for (int tries = 0; ret == 0 && tries < TRIES; tries++) {
		make_room(r);
		ret = try_before(both, r, e);
	}
	fcntl(both, F_SETPIPE_SZ, size); /* as it was, when that is enough */
	return ret == 0 ? refill_behind(r, e) : MIN(ret, 0); /* somebody writes without a pause: rather in another order than not at all */
}
