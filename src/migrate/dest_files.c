/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dest_files.c - contents of files that this host lacks, and news of files since the offer; see source_files.c */
#include <errno.h>

#include "base/util.h"
#include "image/admission.h"
#include "migrate/decode.h"
#include "migrate/dest.h"
#include "migrate/refuse_send.h"

#define STEP_MS 120000
#define CONTENT_MAX ((1u << 20) + 4096)

int dest_take_content(struct dest *d, int (*expectations)(struct dest *d, const Gw__Content *last, struct err *e), struct err *e)
{
	bool last = false;
	int ret = 0;

	while (!last && ret == 0) {
		Gw__Content *c;
		struct frame f;

		ret = frame_recv_expect(d->link.control, FRAME_CONTENT, &f, CONTENT_MAX, STEP_MS, e);
		if (ret < 0)
			return ret;
		ret = content_decode(f.payload, f.len, d->answers, d->files.n, &c, e);
		frame_free(&f);
		if (ret < 0)
			return ret;
		last = c->last;
		if (last)
			ret = expectations ? expectations(d, c, e) : 0;
		else if (c->common)
			ret = dest_take_common(d, c, e);
		else
			ret = fsfile_put(&d->files.v[c->file], &d->answers[c->file], c->offset, c->data.data, c->data.len, e);
		gw__content__free_unpacked(c, NULL);
	}
	return ret;
}

int dest_match_file(struct dest *d, uint32_t i, struct refusals *refusals, struct err *e)
{
	size_t before = refusals->n;
	int ret = fsfile_match(&d->files.v[i], &d->answers[i], refusals, e);

	if (ret == 0 && !dest_view_wants(d, &d->files.v[i], &d->answers[i], refusals, before))
		fsfile_policy_apply((enum fsfile_policy)d->offer->files_policy, &d->files.v[i], &d->answers[i], refusals);
	if (ret == 0 && (d->answers[i].verdict == FSFILE_CREATE || d->answers[i].verdict == FSFILE_TEMP))
		admission_judge_file(&d->files.v[i], refusals);
	return ret;
}

/* Appends the new files and finds them here. */
static int add_files(struct dest *d, struct fsfile_table *added, struct refusals *refusals, struct err *e)
{
	struct fsfile_answer *answers = realloc(d->answers, (d->files.n + added->n + 1) * sizeof(*answers));
	struct fsfile *files;
	int ret = 0;

	if (answers)
		d->answers = answers;
	files = realloc(d->files.v, (d->files.n + added->n + 1) * sizeof(*files));
	if (files)
		d->files.v = files;
	if (!answers || !files)
		return err_sys(e, ENOMEM, "files");
	for (uint32_t i = 0; i < added->n; i++) {
		files[d->files.n] = added->v[i];
		files[d->files.n].unit = d->offer->unit;
		answers[d->files.n++] = FSFILE_ANSWER_INIT;
	}
	free(added->v); /* the entries have moved */
	*added = (struct fsfile_table){ 0 };
	d->env.answers = d->answers;
	for (uint32_t i = d->env.n_files; i < d->files.n && ret == 0; i++)
		ret = dest_match_file(d, i, refusals, e);
	for (uint32_t i = d->env.n_files; i < d->files.n && ret == 0 && !refusals->n && !d->n_from_home; i++)
		if (fsfile_answer_lacks(&answers[i]))
			ret = fsfile_open_lacking(&files[i], &answers[i], e);
	return ret;
}

static int update_files(struct dest *d, const struct file_news *news, struct err *e)
{
	int ret = 0;

	for (uint32_t i = 0; i < news->values.n && ret == 0; i++) {
		uint32_t file = news->msg->changed[i];

		ret = fsfile_update(&d->files.v[file], &news->values.v[i], &d->answers[file], e);
	}
	return ret;
}

static int put_contents(struct dest *d, const Gw__FileSync *m, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < m->n_content && ret == 0; i++) {
		const Gw__Content *c = m->content[i];

		/* The source did not know whether a new file is here already. */
		if (fsfile_answer_lacks(&d->answers[c->file]))
			ret = fsfile_put(&d->files.v[c->file], &d->answers[c->file], c->offset, c->data.data, c->data.len, e);
	}
	return ret;
}

/* Sizes, owners and times at last: of the changed and of the new ones. */
static int finish_files(struct dest *d, const struct file_news *news, uint32_t first_new, struct err *e)
{
	int ret = 0;

	for (uint32_t i = 0; i < news->values.n && ret == 0; i++)
		ret = fsfile_finish(&d->files.v[news->msg->changed[i]], &d->answers[news->msg->changed[i]], e);
	for (uint32_t i = first_new; i < d->files.n && ret == 0; i++)
		ret = fsfile_finish(&d->files.v[i], &d->answers[i], e);
	return ret;
}

int dest_files_running(struct dest *d, const struct frame *f, struct err *e)
{
	struct refusals refusals = { 0 };
	uint32_t before = d->files.n;
	struct file_news news;
	int ret = files_decode(f->payload, f->len, before, &news, e);

	d->env.n_files = before;
	if (ret == 0)
		ret = add_files(d, &news.added, &refusals, e);
	if (ret == 0)
		ret = update_files(d, &news, e);
	if (ret == 0)
		ret = d->n_from_home ? dest_view_refuse(d, e) : refusals.n ? refusals_send(d->link.control, &refusals, e) : dest_send_accept(d, before, e);
	d->env.n_files = d->files.n;
	if (ret == 0)
		ret = dest_take_content(d, NULL, e);
	if (ret == 0)
		ret = finish_files(d, &news, before, e);
	refusals_free(&refusals);
	file_news_free(&news);
	return ret;
}

static bool is_filled(const Gw__FileSync *m, uint32_t file)
{
	for (size_t i = 0; i < m->n_filled; i++)
		if (m->filled[i] == file)
			return true;
	return false;
}

int dest_files_frozen(struct dest *d, const void *data, size_t len, struct err *e)
{
	struct refusals refusals = { 0 };
	uint32_t before = d->files.n;
	struct file_news news;
	int ret = files_decode(data, len, before, &news, e);

	d->env.n_files = before;
	if (ret == 0)
		ret = add_files(d, &news.added, &refusals, e);
	d->env.n_files = d->files.n;
	if (ret == 0 && d->n_from_home)
		ret = err_set(e, -EAGAIN, "%s has been opened since the last round, and is to be served from home", d->from_home[0]);
	if (ret == 0 && refusals.n)
		ret = err_set(e, -EAGAIN, "%s: %s", refusals.v[0].thing, refusals.v[0].cause);
	for (uint32_t i = before; i < d->files.n && ret == 0; i++)
		if (fsfile_answer_lacks(&d->answers[i]) && !is_filled(news.msg, i))
			ret = err_set(e, -EAGAIN, "%s has been opened since the last round, and is not on this host", d->files.v[i].path);
	if (ret == 0)
		ret = update_files(d, &news, e);
	if (ret == 0)
		ret = put_contents(d, news.msg, e);
	if (ret == 0)
		ret = finish_files(d, &news, before, e);
	refusals_free(&refusals);
	file_news_free(&news);
	return ret;
}
