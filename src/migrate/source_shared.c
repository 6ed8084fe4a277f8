/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* source_shared.c - memory that mappings of the unit share: which processes are looked at; see image/shared.h */
#include <errno.h>

#include "base/util.h"
#include "image/shared_watch.h"
#include "migrate/source.h"

/* What has become of mappings is for the next look (`take`). */
static struct shared_view *views_of(struct source *s, const struct layouts *now, bool take, struct err *e)
{
	struct shared_view *v = calloc(s->nprocs + 1, sizeof(*v));

	if (!v)
		err_sys(e, ENOMEM, "account of shared memory");
	for (size_t i = 0; v && i < s->nprocs; i++)
		v[i] = (struct shared_view){ .pid = s->procs[i].u->pid, .pagemap_fd = s->procs[i].pages.pagemap_fd, .uffd = s->procs[i].agent.shared_uffd,
					     .vmas = now ? now->v[i] : &s->procs[i].u->vmas,
					     .scratch = { s->procs[i].agent.scratch.base, s->procs[i].agent.scratch.base + s->procs[i].agent.scratch.size } };
	for (size_t i = 0; v && take && i < s->nprocs; i++)
		v[i].remapped = shared_watch_take(s->shared_watch, i, &v[i].unmapped);
	return v;
}

static bool is_any_mapped(const struct source *s)
{
	for (size_t i = 0; i < s->nprocs; i++)
		if (s->procs[i].u->vmas.n_shared)
			return true;
	return false;
}

/* What has been mapped since the offer, before anybody would have told of it. */
static int track_newest(struct source *s, struct err *e)
{
	struct round r;
	int ret = source_round_begin(s, &r, e);

	if (ret == 0) {
		const struct layouts now = { r.now, s->nprocs };
		cleanup_free struct shared_view *views = views_of(s, &now, false, e);

		ret = views ? shared_track(&s->shared, views, s->nprocs, e) : -ENOMEM;
	}
	source_round_end(s, &r);
	return ret;
}

int source_track_shared(struct source *s, struct err *e)
{
	cleanup_free struct shared_view *views = views_of(s, NULL, false, e);
	cleanup_free int *uffds = calloc(s->nprocs + 1, sizeof(*uffds));
	int ret;

	if (!views || !uffds)
		return -ENOMEM;
	for (size_t i = 0; i < s->nprocs; i++)
		uffds[i] = s->procs[i].agent.shared_uffd;
	s->shared_watch = shared_watch_start(uffds, s->nprocs, e);
	ret = s->shared_watch ? shared_track(&s->shared, views, s->nprocs, e) : -ENOMEM;
	return ret < 0 || !is_any_mapped(s) ? ret : track_newest(s, e);
}

/* The descriptors are closed at once: a thread that waits in mremap() can be stopped by nobody. */
void source_untrack_shared(struct source *s)
{
	shared_watch_stop(s->shared_watch);
	s->shared_watch = NULL;
	for (size_t i = 0; i < s->nprocs; i++)
		close_fdp(&s->procs[i].agent.shared_uffd);
}

int source_collect_shared(struct source *s, const struct layouts *now, bool frozen, struct err *e)
{
	cleanup_free struct shared_view *views = views_of(s, now, true, e);
	int ret = views ? 0 : -ENOMEM;

	if (ret == 0 && frozen && s->direct_io && shared_distrust(&s->shared) < 0)
		ret = err_sys(e, ENOMEM, "account of shared memory");
	if (ret == 0)
		ret = shared_collect(&s->shared, views, s->nprocs, s->unit.files.n, frozen, e);
	for (size_t i = 0; views && i < s->nprocs; i++)
		range_list_free(&views[i].unmapped);
	return ret;
}

/* Whether files that the destination makes are written by somebody outside of the unit, too. */
int source_check_sharing(struct source *s, struct err *e)
{
	bool any = false;

	for (size_t i = 0; i < s->nprocs; i++)
		for (size_t k = 0; k < s->unit.procs[i].vmas.n && !any; k++) {
			const struct vma *v = &s->unit.procs[i].vmas.v[k];

			any = v->content == VMA_CONTENT_SHARED && v->file >= 0 && !fsfile_is_memory(&s->unit.files.v[v->file]);
		}
	return any ? unit_check_sharing(&s->unit, s->refusals, e) : 0;
}
