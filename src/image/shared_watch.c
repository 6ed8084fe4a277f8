/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* shared_watch.c - tells what becomes of mappings of shared memory between two looks; see shared_watch.h */
#include "image/shared_watch.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"

#define UNMAPPED_MAX 64u /* ranges that are kept */

struct shared_watch {
	pthread_t thread;
	int stop;             /* eventfd */
	size_t n;
	struct pollfd *fds;   /* of the n processes, and `stop` */
	pthread_mutex_t lock; /* of what follows */
	bool *remapped;
	struct range_list *unmapped;
};

static void take_event(struct shared_watch *w, size_t i, const struct uffd_msg *m)
{
	if (m->event != UFFD_EVENT_UNMAP || w->unmapped[i].n >= UNMAPPED_MAX || range_list_add(&w->unmapped[i], m->arg.remove.start, m->arg.remove.end) < 0)
		w->remapped[i] = true;
}

/* Whoever waits goes on as soon as the event has been read: nobody may ask before it is kept, so the lock is taken before. */
static void take_events(struct shared_watch *w, size_t i)
{
	struct uffd_msg m;

	pthread_mutex_lock(&w->lock);
	while (read(w->fds[i].fd, &m, sizeof(m)) == sizeof(m))
		take_event(w, i, &m);
	pthread_mutex_unlock(&w->lock);
}

static void *watch(void *arg)
{
	struct shared_watch *w = arg;

	while (poll(w->fds, w->n + 1, -1) >= 0 || errno == EINTR) {
		if (w->fds[w->n].revents)
			break;
		for (size_t i = 0; i < w->n; i++) {
			if (w->fds[i].revents & POLLIN)
				take_events(w, i);
			if (w->fds[i].revents & ~POLLIN) /* its address space is gone */
				w->fds[i].fd = -1;
		}
	}
	return NULL;
}

static void release(struct shared_watch *w)
{
	if (w->stop >= 0)
		close(w->stop);
	for (size_t i = 0; w->unmapped && i < w->n; i++)
		range_list_free(&w->unmapped[i]);
	pthread_mutex_destroy(&w->lock);
	free(w->unmapped);
	free(w->remapped);
	free(w->fds);
	free(w);
}

struct shared_watch *shared_watch_start(const int *uffds, size_t n, struct err *e)
{
	struct shared_watch *w = calloc(1, sizeof(*w));
	int code = 0;

	if (!w) {
		err_sys(e, ENOMEM, "watch of shared memory");
		return NULL;
	}
	w->n = n;
	pthread_mutex_init(&w->lock, NULL);
	w->stop = eventfd(0, EFD_CLOEXEC);
	w->fds = calloc(n + 1, sizeof(*w->fds));
	w->remapped = calloc(n + 1, sizeof(*w->remapped));
	w->unmapped = calloc(n + 1, sizeof(*w->unmapped));
	if (w->stop >= 0 && w->fds && w->remapped && w->unmapped) {
		for (size_t i = 0; i < n; i++)
			w->fds[i] = (struct pollfd){ .fd = uffds[i], .events = POLLIN };
		w->fds[n] = (struct pollfd){ .fd = w->stop, .events = POLLIN };
		code = pthread_create(&w->thread, NULL, watch, w);
		if (!code)
			return w;
	}
	err_sys(e, code ? code : errno, "watch of shared memory");
	release(w);
	return NULL;
}

bool shared_watch_take(struct shared_watch *w, size_t i, struct range_list *ret_unmapped)
{
	bool remapped;

	if (!w || i >= w->n)
		return false;
	pthread_mutex_lock(&w->lock);
	remapped = w->remapped[i];
	w->remapped[i] = false;
	for (size_t k = 0; k < w->unmapped[i].n; k++)
		if (range_list_add(ret_unmapped, w->unmapped[i].v[k].start, w->unmapped[i].v[k].end) < 0)
			remapped = true;
	w->unmapped[i].n = 0;
	pthread_mutex_unlock(&w->lock);
	return remapped;
}

void shared_watch_stop(struct shared_watch *w)
{
	if (!w)
		return;
	eventfd_write(w->stop, 1);
	pthread_join(w->thread, NULL);
	release(w);
}
