// SPDX-License-Identifier: GPL-2.0-or-later
/* host_load.c - see host_load.h */
#include "daemon/host_load.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/util.h"
#include "cluster/measure.h"
#include "cluster/view.h"

#define PERIOD_US 1000000

struct host_load {
	pthread_mutex_t lock; /* whoever dies with it leaves nothing half done that matters */
	pid_t daemon;         /* the main process */
	bool measured;
	struct load load;
	struct view view;     /* of which only what was sent */
};

int host_load_init(struct host_load **ret, struct err *e)
{
	struct host_load *h = mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_t attr;

	if (h == MAP_FAILED)
		return err_sys(e, -errno, "mmap");
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&h->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	h->daemon = getpid();
	*ret = h;
	return 0;
}

static void take(struct host_load *h)
{
	if (pthread_mutex_lock(&h->lock) == EOWNERDEAD)
		pthread_mutex_consistent(&h->lock);
}

static uint64_t now_ms(void)
{
	return clock_ns(CLOCK_BOOTTIME) / 1000000;
}

void host_load_measure(struct host_load *h, double speed)
{
	struct measure m;
	struct load load;

	prctl(PR_SET_NAME, "godwit-load");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	measure_init(&m, speed, NULL);
	while (getppid() == h->daemon) { /* which may be the first process of a container */
		measure_take(&m, clock_ns(CLOCK_BOOTTIME), &load);
		take(h);
		h->load = load;
		h->measured = true;
		pthread_mutex_unlock(&h->lock);
		for (int i = 0; i < MEASURE_SAMPLES; i++) {
			usleep(PERIOD_US / MEASURE_SAMPLES);
			measure_sample(&m);
		}
	}
	measure_free(&m);
	_exit(0);
}

void host_load_read(struct host_load *h, double speed, struct load *ret)
{
	bool measured;
	struct measure m;

	take(h);
	measured = h->measured;
	*ret = h->load;
	pthread_mutex_unlock(&h->lock);
	if (measured)
		return;
	measure_init(&m, speed, NULL);
	measure_sample(&m);
	measure_take(&m, clock_ns(CLOCK_BOOTTIME), ret);
	measure_free(&m);
}

void host_load_add_sent(struct host_load *h, struct policy_node *nodes, size_t n)
{
	take(h);
	for (size_t i = 0; i < n; i++)
		view_add_sent(&h->view, &policy_default, &nodes[i], now_ms());
	pthread_mutex_unlock(&h->lock);
}

void host_load_sent(struct host_load *h, uint64_t id, double run, double mem_mib)
{
	take(h);
	view_note_sent(&h->view, &policy_default, id, run, mem_mib, now_ms());
	pthread_mutex_unlock(&h->lock);
}
