/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hold.c - a unit that stands still from the offer on; see hold.h */
#include "migrate/hold.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "base/util.h"
#include "image/tree.h"
#include "kern/trace.h"
#include "migrate/borrow.h"

#define LOOKS_MAX 200

/* In the order of their numbers. */
static struct held {
	pid_t tid, pid;
	int signal; /* by which its process was stopped already, SIGTRAP: by none */
} *held;
static size_t nheld, allocated;

static size_t place_of(pid_t tid)
{
	size_t lo = 0, hi = nheld;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (held[mid].tid < tid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool hold_has(pid_t tid)
{
	size_t i = place_of(tid);

	return i < nheld && held[i].tid == tid;
}

int hold_signal(pid_t tid)
{
	size_t i = place_of(tid);

	return i < nheld && held[i].tid == tid ? held[i].signal : SIGTRAP;
}

void hold_give(pid_t tid)
{
	size_t i = place_of(tid);

	if (i < nheld && held[i].tid == tid)
		memmove(&held[i], &held[i + 1], (--nheld - i) * sizeof(*held));
}

static int add(pid_t pid, pid_t tid, int signal, struct err *e)
{
	size_t i = place_of(tid);

	if (nheld == allocated) {
		size_t more = allocated ? 2 * allocated : 64;
		struct held *grown = realloc(held, more * sizeof(*grown));

		if (!grown)
			return err_sys(e, ENOMEM, "holding threads");
		held = grown;
		allocated = more;
	}
	memmove(&held[i + 1], &held[i], (nheld++ - i) * sizeof(*held));
	held[i] = (struct held){ tid, pid, signal };
	return 0;
}

/* Stops the threads of one process that are not yet; adds their number to *ret_fresh. Those that end meanwhile do not count. */
static int hold_process(pid_t pid, size_t *ret_fresh, struct err *e)
{
	cleanup_free pid_t *tids = NULL;
	size_t n = 0;

	if (trace_list_threads(pid, &tids, &n, NULL) < 0)
		return 0;
	/* The main thread last: see source_seize(). */
	for (size_t i = n; i-- > 0;) {
		int ret, signal;

		if (hold_has(tids[i]) || tree_waits_in_vfork(pid, tids[i]) || trace_seize(tids[i], 0, NULL) < 0 || trace_interrupt(tids[i], NULL) < 0)
			continue;
		ret = trace_try_stop(tids[i], &signal, e);
		if (ret == -ETIMEDOUT)
			return ret;
		if (ret < 0) {
			if (e)
				*e = ERR_INIT;
			continue;
		}
		ret = add(pid, tids[i], signal, e);
		if (ret < 0) {
			borrow_let_go(pid, tids[i], signal);
			return ret;
		}
		++*ret_fresh;
	}
	return 0;
}

int hold_unit(pid_t root, const pid_t *also, size_t n_also, struct err *e)
{
	for (int look = 0; look < LOOKS_MAX; look++) {
		struct refusals ignored = { 0 };
		struct tree t = TREE_INIT;
		size_t fresh = 0;
		int ret;

		/* The root at once: the fewer run, the sooner the others are found. */
		ret = hold_process(root, &fresh, e);
		if (ret == 0)
			ret = tree_capture(root, also, n_also, &t, &ignored, e);
		for (size_t i = 0; i < t.n && ret == 0; i++)
			if (!t.v[i].zombie)
				ret = hold_process(t.v[i].host_pid, &fresh, e);
		tree_free(&t);
		refusals_free(&ignored);
		if (ret < 0 && ret != -EAGAIN)
			return ret;
		if (ret == 0 && !fresh)
			return 0;
	}
	return err_set(e, -EBUSY, "process %d makes processes faster than they can be stopped", root);
}

void hold_release(void)
{
	for (size_t i = 0; i < nheld; i++)
		borrow_let_go(held[i].pid, held[i].tid, held[i].signal);
	nheld = 0;
}
