/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* shared_watch.c - tells of mappings of shared memory that are made from others between two looks; see shared_watch.h */
#include "image/shared_watch.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/util.h"

struct shared_watch {
	pthread_t thread;
	int stop;             /* eventfd */
	size_t n;
	struct pollfd *fds;   /* of the n processes, and `stop` */
	bool *remapped;
};

/* The mark comes first: who has called mremap() goes on as soon as the event has been read. */
static void take_events(struct shared_watch *w, size_t i)
{
	struct uffd_msg m;

	__atomic_store_n(&w->remapped[i], true, __ATOMIC_SEQ_CST);
	while (read(w->fds[i].fd, &m, sizeof(m)) == sizeof(m))
		;
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

struct shared_watch *shared_watch_start(const int *uffds, size_t n, struct err *e)
{
	struct shared_watch *w = calloc(1, sizeof(*w));
	int code = 0;

	if (!w) {
		err_sys(e, ENOMEM, "watch of shared memory");
		return NULL;
	}
	w->n = n;
	w->stop = eventfd(0, EFD_CLOEXEC);
	w->fds = calloc(n + 1, sizeof(*w->fds));
	w->remapped = calloc(n + 1, sizeof(*w->remapped));
	if (w->stop >= 0 && w->fds && w->remapped) {
		for (size_t i = 0; i < n; i++)
			w->fds[i] = (struct pollfd){ .fd = uffds[i], .events = POLLIN };
		w->fds[n] = (struct pollfd){ .fd = w->stop, .events = POLLIN };
		code = pthread_create(&w->thread, NULL, watch, w);
		if (!code)
			return w;
	}
	err_sys(e, code ? code : errno, "watch of shared memory");
	if (w->stop >= 0)
		close(w->stop);
	free(w->fds);
	free(w->remapped);
	free(w);
	return NULL;
}

bool shared_watch_remapped(const struct shared_watch *w, size_t i)
{
	return w && i < w->n && __atomic_load_n(&w->remapped[i], __ATOMIC_SEQ_CST);
}

void shared_watch_stop(struct shared_watch *w)
{
	if (!w)
		return;
	eventfd_write(w->stop, 1);
	pthread_join(w->thread, NULL);
	close(w->stop);
	free(w->fds);
	free(w->remapped);
	free(w);
}
