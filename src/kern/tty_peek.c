/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tty_peek.c - loads and reads the iterator over terminals; see tty_peek.h */
#include "kern/tty_peek.h"

#include <errno.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/tty_peek.skel.h"

#define SETTLE_TRIES 2000
#define SETTLE_PAUSE_US 50
#define SETTLE_NOW_TRIES 20

static struct tty_peek_bpf *loaded;

int tty_peek_load(struct err *e)
{
	if (!loaded)
		loaded = BPF_ITER_LOAD(tty_peek_bpf__open_and_load);
	return loaded ? 0 : err_sys(e, -errno, "loading the BPF iterator that reads terminals");
}

int tty_peek_list(struct tty_record_file **ret, size_t *ret_n, struct err *e)
{
	size_t len = 0;
	int r = tty_peek_load(e);

	if (r < 0)
		return r;
	loaded->data->wanted_fd = -1;
	r = bpf_iter_read_own(bpf_program__fd(loaded->progs.read_ttys), (void **)ret, &len, e);
	*ret_n = len / sizeof(**ret);
	return r;
}

/* One look at a pair, into loaded->bss->pair. */
static int look(int fd, struct err *e)
{
	cleanup_close int iteration = -1;
	int r = tty_peek_load(e);
	char byte;

	if (r < 0)
		return r;
	loaded->data->wanted_fd = fd;
	loaded->bss->pair.valid = 0;
	iteration = bpf_iter_own(bpf_program__fd(loaded->progs.read_ttys), e);
	if (iteration < 0)
		return iteration;
	while (read(iteration, &byte, 1) < 0)
		if (errno != EINTR)
			return err_sys(e, -errno, "BPF iterator of terminals");
	return loaded->bss->pair.valid ? 0 : err_set(e, -ENOTTY, "descriptor %d is no pseudo-terminal", fd);
}

/* Whether nothing is on its way to the line discipline, unless that has no room. */
static bool settled(const struct tty_record_end *end)
{
	return !end->flip_len || end->no_room;
}

int tty_peek_pair(int fd, const struct tty_record_pair **ret, struct err *e)
{
	static struct tty_record_pair before;

	for (int i = 0; i < SETTLE_TRIES; i++) {
		const struct tty_record_pair *now;
		int r = look(fd, e);

		if (r < 0)
			return r;
		now = &loaded->bss->pair;
		/* Twice the same: what is echoed goes from one end to the other between two looks. */
		if (settled(&now->slave) && settled(&now->master) && i && !memcmp((const char *)&before, (const char *)now, sizeof(before))) {
			*ret = now;
			return 0;
		}
		before = *now;
		if (!settled(&now->slave) || !settled(&now->master))
			usleep(SETTLE_PAUSE_US);
	}
	return err_set(e, -EAGAIN, "a terminal whose buffers do not settle; try again");
}

int tty_peek_now(int fd, const struct tty_record_pair **ret, struct err *e)
{
	for (int i = 0; i < SETTLE_NOW_TRIES; i++) {
		int r = look(fd, e);

		if (r < 0)
			return r;
		if (settled(&loaded->bss->pair.slave))
			break;
		usleep(SETTLE_PAUSE_US);
	}
	*ret = &loaded->bss->pair;
	return 0;
}
