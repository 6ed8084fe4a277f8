/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image_offer.c - what of an offer an image keeps, and what it cannot keep; see image_write.h
 *
 * Files on a disk are only named: they are found again by path, size and time of the last change, or by what they contain. What has no name, or is in memory (tmpfs), goes into
 * the image, and so do, if that is wished (--files=copy), all that the unit has open.
 */
#include <errno.h>
#include <linux/magic.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/relay.h"
#include "migrate/image_write.h"
#include "migrate/refuse_send.h"

#define WRITES (FSFILE_OPEN_WRITE | FSFILE_MAPPED_WRITE)
#define RAMFS 0x858458f6u

static bool is_volatile(const struct fsfile *f)
{
	return f->fs_magic == TMPFS_MAGIC || f->fs_magic == RAMFS;
}

/* Of one that is here. */
static void choose_verdict(const struct image_writer *w, const struct fsfile *f, struct fsfile_answer *a)
{
	bool used = f->uses & (FSFILE_OPEN_READ | FSFILE_MAPPED_SHARED | WRITES), copy = w->offered.msg->files_policy == FSFILE_POLICY_COPY;

	if (a->verdict != FSFILE_HAVE || !f->uses || f->type != FSFILE_REGULAR || f->fs_magic == PROC_SUPER_MAGIC || f->fs_magic == SYSFS_MAGIC || f->fs_magic == CGROUP2_SUPER_MAGIC)
		return;
	if (!is_volatile(f) && !(copy && used))
		return;
	a->verdict = used ? FSFILE_CREATE : FSFILE_STAND_IN;
	a->mapped_only = !used;
}

static int answer_files(struct image_writer *w, struct refusals *refusals, struct err *e)
{
	struct fsfile_answer *answers = realloc(w->answers, (w->offered.files.n + 1) * sizeof(*answers));
	bool *inside = realloc(w->inside, (w->offered.files.n + 1) * sizeof(*inside));
	int ret = 0;

	if (answers)
		w->answers = answers;
	if (inside)
		w->inside = inside;
	if (!answers || !inside)
		return err_sys(e, -ENOMEM, "files");
	for (; w->nanswers < w->offered.files.n && ret == 0; w->nanswers++) {
		const struct fsfile *f = &w->offered.files.v[w->nanswers];
		struct fsfile_answer *a = &w->answers[w->nanswers];

		*a = FSFILE_ANSWER_INIT;
		/* Numbers of segments are taken here: by the very ones that go into the image. */
		if (fsfile_is_memory(f) && f->uses)
			a->verdict = FSFILE_TEMP;
		else
			ret = fsfile_match(f, a, refusals, e);
		close_fdp(&a->fd);
		choose_verdict(w, f, a);
		w->inside[w->nanswers] = fsfile_answer_lacks(a);
	}
	return ret;
}

static void judge(const struct image_writer *w, struct refusals *r)
{
	const struct offer *o = &w->offered;

	if (o->ns)
		refusals_add(r, "image.namespaces", "it has namespaces of its own (it is a container, or in a sandbox), which images cannot keep yet", "move it to another host instead",
			     "process %d", o->procs[0].msg->pid);
	if (o->msg->view)
		refusals_add(r, "image.view", "its home serves it files, which an image cannot do", "move it home first", "process %d", o->procs[0].msg->pid);
	if (o->msg->home || fdtable_has_relays(o->fds))
		refusals_add(r, "image.relay", "a process outside has the other end of a pipe, socket or terminal of it, and will not be there when it is made again",
			     "begin it with files or /dev/null instead (setsid PROGRAM < /dev/null > FILE 2>&1)", "process %d", o->procs[0].msg->pid);
	if (strategy_is_post_copy((enum strategy)o->msg->strategy))
		refusals_add(r, "image.strategy", "its memory would stay here", "take pre-copy or stop-copy", "process %d", o->procs[0].msg->pid);
}

int image_take_offer(struct image_writer *w, const struct frame *f, struct err *e)
{
	struct refusals refusals = { 0 };
	int ret;

	w->has_offer = true;
	ret = offer_decode(f->payload, f->len, &w->offered, e);
	if (ret < 0)
		return ret;
	w->streams = calloc(w->offered.nprocs + 1, sizeof(*w->streams));
	if (!w->streams)
		return err_sys(e, -ENOMEM, "the offer");
	judge(w, &refusals);
	if (!refusals.n)
		ret = answer_files(w, &refusals, e);
	if (ret == 0 && refusals.n)
		ret = refusals_send(w->link.control, &refusals, e);
	refusals_free(&refusals);
	return ret;
}

/* The table's files become those of the offer. */
static int append(struct image_writer *w, struct fsfile_table *added, struct err *e)
{
	struct fsfile_table *t = &w->offered.files;
	struct fsfile *grown = realloc(t->v, (t->n + added->n + 1) * sizeof(*grown));

	if (!grown)
		return err_sys(e, -ENOMEM, "files");
	t->v = grown;
	if (added->n)
		memcpy(t->v + t->n, added->v, added->n * sizeof(*grown));
	t->n += added->n;
	free(added->v);
	*added = (struct fsfile_table){ 0 };
	return 0;
}

/* Those that the source cannot ask about any more: it has sent what may be lacking. */
static int append_frozen(struct image_writer *w, const struct file_news *news, uint32_t before, struct err *e)
{
	bool *inside = realloc(w->inside, (w->offered.files.n + 1) * sizeof(*inside));

	if (!inside)
		return err_sys(e, -ENOMEM, "files");
	w->inside = inside;
	for (uint32_t i = before; i < w->offered.files.n; i++)
		inside[i] = false;
	for (size_t i = 0; i < news->msg->n_filled; i++)
		inside[news->msg->filled[i]] = true;
	return 0;
}

int image_take_files(struct image_writer *w, const struct frame *f, bool frozen, struct err *e)
{
	struct refusals refusals = { 0 };
	uint32_t before = w->offered.files.n;
	struct file_news news;
	int ret = files_decode(f->payload, f->len, before, &news, e);

	for (uint32_t i = 0; i < news.values.n && ret == 0; i++) {
		struct fsfile *to = &w->offered.files.v[news.msg->changed[i]];

		to->size = news.values.v[i].size;
		to->mtime_ns = news.values.v[i].mtime_ns;
		to->unlinked = news.values.v[i].unlinked;
		to->uses = news.values.v[i].uses;
	}
	if (ret == 0)
		ret = append(w, &news.added, e);
	if (ret == 0)
		ret = frozen ? append_frozen(w, &news, before, e) : answer_files(w, &refusals, e);
	if (ret == 0 && refusals.n)
		ret = refusals_send(w->link.control, &refusals, e);
	refusals_free(&refusals);
	file_news_free(&news);
	return ret;
}

void image_look_at_files(struct image_writer *w)
{
	for (uint32_t i = 0; i < w->offered.files.n; i++) {
		struct fsfile *f = &w->offered.files.v[i];
		struct stat st;

		if (f->type != FSFILE_REGULAR || f->unlinked || w->inside[i] || stat(f->path, &st) < 0 || f->dev != st.st_dev || f->ino != st.st_ino)
			continue;
		f->size = (uint64_t)st.st_size;
		f->mtime_ns = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
	}
}

void image_forget_offer(struct image_writer *w)
{
	if (w->has_offer)
		offer_free(&w->offered);
	w->offered = (struct offer){ 0 };
	w->has_offer = false;
	freep(&w->answers);
	freep(&w->inside);
	w->nanswers = 0;
}
