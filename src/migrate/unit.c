/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unit.c - the image of a unit on the source; see unit.h */
#include "migrate/unit.h"

#include <errno.h>

#include "base/util.h"
#include "image/process.h"
#include "image/thread.h"
#include "kern/fdpass.h"
#include "kern/trace.h"
#include "migrate/migrate.h"

static int capture_threads(struct unit *u, struct refusals *refusals, struct err *e)
{
	cleanup_free pid_t *tids = NULL;
	size_t n;
	int ret = trace_list_threads(u->pid, &tids, &n, e);

	if (ret < 0)
		return ret;
	u->threads = calloc(n, sizeof(*u->threads));
	if (!u->threads)
		return err_sys(e, ENOMEM, "process %d: threads", u->pid);
	/* The main thread first. */
	for (size_t i = 0; i < n; i++)
		if (tids[i] == u->pid) {
			tids[i] = tids[0];
			tids[0] = u->pid;
		}
	for (size_t i = 0; i < n; i++) {
		Gw__Thread *t = thread_new(tids[i]);

		ret = thread_capture_outside(u->pid, tids[i], t, refusals, e);
		if ((ret == -ESRCH || ret == -ENOENT) && i > 0) { /* it ended meanwhile */
			gw__thread__free_unpacked(t, NULL);
			continue;
		}
		u->threads[u->nthreads++] = t;
		if (ret < 0)
			return ret;
	}
	return 0;
}

int unit_capture(pid_t pid, struct unit *ret_unit, struct refusals *refusals, struct err *e)
{
	struct unit u = UNIT_INIT;
	int ret;

	u.pid = pid;
	u.pidfd = ret = pidfd_open_process(pid, e);
	if (ret >= 0) {
		u.process = process_new(pid);
		ret = process_capture_outside(pid, u.process, refusals, e);
	}
	if (ret >= 0 && !refusals->n) /* what is no ordinary process has no memory to look at */
		ret = capture_threads(&u, refusals, e);
	if (ret >= 0)
		ret = vma_list_read(pid, &u.files, refusals, &u.vmas, e);
	if (ret >= 0)
		ret = vdso_read(pid, &u.vmas, &u.vdso, e);
	if (ret >= 0)
		ret = mm_read(pid, &u.vmas, &u.files, &u.mm, e);
	if (ret >= 0)
		ret = fdtable_capture(pid, u.pidfd, &u.fds, &u.files, refusals, e);
	if (ret < 0 && refusals->n)
		ret = 0; /* the reasons found so far say more than what failed because of them */
	if (ret < 0) {
		unit_free(&u);
		return ret;
	}
	*ret_unit = u;
	return 0;
}

void unit_free(struct unit *u)
{
	fdtable_free(&u->fds);
	vma_list_free(&u->vmas);
	fsfile_table_free(&u->files);
	for (size_t i = 0; i < u->nthreads; i++)
		gw__thread__free_unpacked(u->threads[i], NULL);
	free(u->threads);
	if (u->process)
		gw__process__free_unpacked(u->process, NULL);
	close_fdp(&u->pidfd);
	*u = UNIT_INIT;
}

void bytes_list_free(struct bytes_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].data);
	free(l->v);
	*l = (struct bytes_list){ 0 };
}

int unit_encode_threads(Gw__Thread *const *threads, size_t n, struct bytes_list *ret_list, struct err *e)
{
	ret_list->v = calloc(n, sizeof(*ret_list->v));
	if (!ret_list->v)
		return err_sys(e, ENOMEM, "encoding threads");
	for (size_t i = 0; i < n; i++) {
		size_t len;

		if (thread_encode(threads[i], &ret_list->v[i].data, &len) < 0)
			return err_sys(e, ENOMEM, "encoding threads");
		ret_list->v[i].len = len;
		ret_list->n++;
	}
	return 0;
}

int migrate_check(pid_t pid, struct refusals *refusals, struct err *e)
{
	struct unit u;
	int ret = unit_capture(pid, &u, refusals, e);

	if (ret == 0)
		unit_free(&u);
	return ret;
}
