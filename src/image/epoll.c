/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epoll.c - epoll sets; see epoll.h */
#include "image/epoll.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "base/util.h"
#include "image/bytes.h"
#include "kern/file_record.h"

#define EPOLL_FD_MAX (1u << 20)

/* How it polls devices that are busy: struct epoll_params of newer kernels' headers. */
struct poll_params {
	uint32_t busy_poll_usecs;
	uint16_t busy_poll_budget;
	uint8_t prefer_busy_poll, pad;
};
#define SET_PARAMS _IOW(0x8a, 1, struct poll_params)
#define GET_PARAMS _IOR(0x8a, 2, struct poll_params)

static bool watches(const struct fd_look *look, int held, uint32_t tfd, uint32_t nth)
{
	struct kcmp_epoll_slot slot = { .efd = (uint32_t)look->held, .tfd = tfd, .toff = nth };
	pid_t self = getpid();

	return syscall(SYS_kcmp, self, self, KCMP_EPOLL_TFD, held, &slot) == 0;
}

/* Finds the description that the nth entry with number tfd watches; -1 when none of the unit's does. */
static int find_target(const struct fd_look *look, const struct fd_resolver *r, uint32_t tfd, uint32_t nth, uint64_t ino, uint64_t device)
{
	int guess = r->slot(r->arg, look, tfd), held;
	uint32_t n = r->count(r->arg);

	if (guess >= 0 && r->ino(r->arg, (uint32_t)guess) == ino) {
		/* Whose number no other socket has: the kernel need not look for it among all entries of a large set. */
		if (r->is_socket(r->arg, (uint32_t)guess, device))
			return guess;
		held = r->held(r->arg, (uint32_t)guess);
		if (held >= 0 && watches(look, held, tfd, nth))
			return guess;
	}
	for (uint32_t i = 0; i < n; i++) {
		held = r->ino(r->arg, i) == ino ? r->held(r->arg, i) : -1;
		if (held >= 0 && watches(look, held, tfd, nth))
			return (int)i;
	}
	return -1;
}

static void free_items(Gw__FdDesc *d)
{
	for (size_t i = 0; i < d->n_items; i++)
		gw__fd_epoll_item__free_unpacked(d->items[i], NULL);
	free(d->items);
	d->items = NULL;
	d->n_items = 0;
}

/* How many entries with this number came before: the kernel tells entries with the same number apart by their order. */
static uint32_t count_number(uint32_t **seen, uint32_t *n_seen, uint32_t fd)
{
	if (fd >= *n_seen) {
		uint32_t n = fd + fd / 2 + 64;

		*seen = realloc(*seen, n * sizeof(**seen));
		if (!*seen)
			abort();
		memset(*seen + *n_seen, 0, (n - *n_seen) * sizeof(**seen));
		*n_seen = n;
	}
	return (*seen)[fd]++;
}

int epoll_capture(const struct fd_look *look, Gw__FdDesc *d, const struct fd_resolver *resolver, uint32_t *ret_lost, struct err *e)
{
	cleanup_free uint32_t *seen = NULL;
	struct poll_params params = { 0 }, none = { 0 };
	uint32_t n_seen = 0;

	free_items(d);
	(void)ioctl(look->held, GET_PARAMS, &params);
	bytes_set(&d->epoll_params, &params, memcmp(&params, &none, sizeof(none)) ? sizeof(params) : 0);
	for (const char *line = look->info; line && *line; line = fdinfo_next_line(line)) {
		uint32_t fd, events;
		uint64_t data, ino, device;
		Gw__FdEpollItem *item;
		int desc;

		if (sscanf(line, "tfd: %u events: %x data: %lx pos:%*d ino:%lx sdev:%lx", &fd, &events, &data, &ino, &device) != 5 || fd >= EPOLL_FD_MAX)
			continue;
		if (d->n_items >= EPOLL_ITEMS_MAX)
			return err_set(e, -E2BIG, "fd %d: epoll set of more than %u entries", look->fd, EPOLL_ITEMS_MAX);
		desc = find_target(look, resolver, fd, count_number(&seen, &n_seen, fd), ino, device);
		if (desc < 0 && resolver->has_changed(resolver->arg, look, fd))
			continue;
		if (desc < 0) {
			*ret_lost = fd;
			return err_set(e, -ENOENT, "fd %d: its epoll set watches number %u, which no descriptor refers to any more",
				look->fd, fd);
		}
		item = fd_alloc(sizeof(*item));
		gw__fd_epoll_item__init(item);
		item->fd = fd;
		item->desc = (uint32_t)desc;
		item->events = events;
		item->data = data;
		fd_append(&d->items, &d->n_items, item);
	}
	return 0;
}

uint64_t epoll_digest(const Gw__FdDesc *d, uint64_t (*file)(const void *arg, uint32_t desc), const void *arg)
{
	struct poll_params params = { 0 };
	uint64_t digest;

	if (d->epoll_params.len == sizeof(params))
		memcpy(&params, d->epoll_params.data, sizeof(params));
	digest = file_record_set(params.busy_poll_usecs, params.busy_poll_budget, params.prefer_busy_poll);
	for (size_t i = 0; i < d->n_items; i++)
		digest += file_record_entry(file(arg, d->items[i]->desc), d->items[i]->fd, d->items[i]->events, d->items[i]->data);
	return digest | 1;
}

int epoll_validate(const Gw__FdDesc *d, size_t n_descs, struct err *e)
{
	if (d->n_items > EPOLL_ITEMS_MAX)
		return err_set(e, -EPROTO, "epoll set of %zu entries", d->n_items);
	if (d->epoll_params.len && d->epoll_params.len != sizeof(struct poll_params))
		return err_set(e, -EPROTO, "epoll: parameters of %zu bytes", d->epoll_params.len);
	for (size_t i = 0; i < d->n_items; i++)
		if (d->items[i]->desc >= n_descs || d->items[i]->fd >= EPOLL_FD_MAX)
			return err_set(e, -EPROTO, "epoll entry out of range");
	return 0;
}

int epoll_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	(void)d;
	if (fd < 0)
		return err_sys(e, -errno, "epoll_create1");
	*ret_fd = fd;
	return 0;
}

/* Entries of a set, sorted by number and description, so that two sets are compared in linear time. */
static int compare_items(const void *a, const void *b)
{
	const Gw__FdEpollItem *x = *(Gw__FdEpollItem *const *)a, *y = *(Gw__FdEpollItem *const *)b;

	if (x->fd != y->fd)
		return x->fd < y->fd ? -1 : 1;
	return x->desc == y->desc ? 0 : x->desc < y->desc ? -1 : 1;
}

static const Gw__FdEpollItem **sorted(const Gw__FdDesc *d)
{
	size_t n = d ? d->n_items : 0;
	const Gw__FdEpollItem **v = fd_alloc(n * sizeof(*v));

	if (n) {
		memcpy(v, d->items, n * sizeof(*v));
		qsort(v, n, sizeof(*v), compare_items);
	}
	return v;
}

static bool same(const Gw__FdEpollItem *a, const Gw__FdEpollItem *b)
{
	return a->events == b->events && a->data == b->data;
}

/* One epoll_ctl; where the number is not the description's, it is made so around the call. */
static int plan_ctl(struct batch *b, int op, int epfd, const Gw__FdEpollItem *item, const struct fd_numbers *numbers, struct err *e)
{
	struct epoll_event *event;
	bool cloexec = false;
	int now = numbers->slot(numbers->arg, item->fd, &cloexec), number;
	uint64_t at;

	event = batch_space(b, sizeof(*event), &at);
	event->events = item->events;
	event->data.u64 = item->data;
	if (now == (int)item->desc) {
		batch_call(b, "epoll_ctl", SYS_epoll_ctl, (uint64_t)epfd, (uint64_t)op, item->fd, at);
		return 0;
	}
	number = numbers->number(numbers->arg, item->desc);
	if (number < 0)
		return err_set(e, -EPROTO, "epoll entry %u watches a closed descriptor", item->fd);
	if (now >= 0)
		batch_call(b, "dup3", SYS_dup3, item->fd, (uint64_t)numbers->spare, O_CLOEXEC);
	batch_call(b, "dup3", SYS_dup3, (uint64_t)number, item->fd, O_CLOEXEC);
	batch_call(b, "epoll_ctl", SYS_epoll_ctl, (uint64_t)(epfd == (int)item->fd ? numbers->spare : epfd), (uint64_t)op, item->fd, at);
	if (now >= 0) {
		batch_call(b, "dup3", SYS_dup3, (uint64_t)numbers->spare, item->fd, cloexec ? O_CLOEXEC : 0);
		batch_call(b, "close", SYS_close, (uint64_t)numbers->spare);
	} else {
		batch_call(b, "close", SYS_close, item->fd);
	}
	return 0;
}

void epoll_plan_remove(struct batch *b, const Gw__FdDesc *was, const Gw__FdDesc *d, int epfd, const struct fd_numbers *before)
{
	cleanup_free const Gw__FdEpollItem **old = sorted(was), **new = sorted(d);
	size_t n_old = was ? was->n_items : 0, n_new = d->n_items, j = 0;

	for (size_t i = 0; i < n_old; i++) {
		while (j < n_new && compare_items(&new[j], &old[i]) < 0)
			j++;
		if (j < n_new && compare_items(&new[j], &old[i]) == 0 && same(new[j], old[i]))
			continue;
		if (!before->mine(before->arg, old[i]))
			continue;
		/* An entry that changed is removed and added again: EPOLL_CTL_MOD cannot change every kind of entry. */
		plan_ctl(b, EPOLL_CTL_DEL, epfd, old[i], before, NULL);
	}
}

static void plan_params(struct batch *b, const Gw__FdDesc *was, const Gw__FdDesc *d, int epfd)
{
	static const ProtobufCBinaryData none;
	void *params;
	uint64_t at;

	if (bytes_equal(was ? was->epoll_params : none, d->epoll_params))
		return;
	params = batch_space(b, sizeof(struct poll_params), &at);
	if (d->epoll_params.len)
		memcpy(params, d->epoll_params.data, sizeof(struct poll_params));
	batch_call(b, "ioctl(EPIOCSPARAMS)", SYS_ioctl, (uint64_t)epfd, SET_PARAMS, at);
}

int epoll_plan_add(struct batch *b, const Gw__FdDesc *was, const Gw__FdDesc *d, int epfd, const struct fd_numbers *after, struct err *e)
{
	cleanup_free const Gw__FdEpollItem **old = sorted(was), **new = sorted(d);
	size_t n_old = was ? was->n_items : 0, n_new = d->n_items, j = 0;

	plan_params(b, was, d, epfd);
	for (size_t i = 0; i < n_new; i++) {
		int r;

		while (j < n_old && compare_items(&old[j], &new[i]) < 0)
			j++;
		if (j < n_old && compare_items(&old[j], &new[i]) == 0 && same(old[j], new[i]))
			continue;
		if (!after->mine(after->arg, new[i]))
			continue;
		r = plan_ctl(b, EPOLL_CTL_ADD, epfd, new[i], after, e);
		if (r < 0)
			return r;
	}
	return 0;
}
