// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_control.c - what the two sides of a migration say on the control connection. The first byte says which message: o c n r a f */
#include <stdlib.h>

#include "base/util.h"
#include "migrate/decode.h"
#include "migrate/dest.h"
#include "migrate/migrate.h"
#include "wire/hello.h"

#define FILES 4
#define PROCESSES 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int try_offer(const uint8_t *data, size_t len, struct err *e)
{
	struct offer o;
	int ret = offer_decode(data, len, &o, e);

	for (size_t i = 0; ret == 0 && i < o.nprocs; i++) {
		const struct offer_process *p = &o.procs[i];

		if (!p->nthreads || p->nthreads > OFFER_THREADS_MAX || p->nthreads != p->msg->n_threads || p->threads[0]->tid != p->msg->pid ||
		    vma_find(&p->vmas, p->msg->scratch_base))
			abort();
		if (vma_list_validate(&p->vmas, o.files.n, e) < 0 || mm_validate(&p->mm, o.files.n, e) < 0)
			abort();
	}
	if (ret == 0 && (!o.nprocs || o.msg->strategy > STRATEGY_COPY_ON_REFERENCE || !hello_name_valid(o.msg->from) || fdtable_validate(o.fds, o.files.n, o.nprocs, e) < 0))
		abort();
	offer_free(&o);
	return ret;
}

static void check_runs(const struct run_list *l)
{
	uint64_t end = 0, pages = 0;

	for (size_t i = 0; i < l->n; i++) {
		if (l->v[i].address < end || !l->v[i].npages || l->v[i].address % PAGE_SIZE_BYTES)
			abort();
		end = l->v[i].address + l->v[i].npages * PAGE_SIZE_BYTES;
		pages += l->v[i].npages;
		if (end > VMA_TASK_SIZE)
			abort();
	}
	if (pages != l->pages)
		abort();
}

/* Pages that processes share; the same again must be refused, as it is out of order. */
static int try_common(const Gw__Content *c, struct err *e)
{
	struct dest_process procs[PROCESSES] = { 0 };
	struct dest d = { .procs = procs, .nprocs = PROCESSES };
	int ret = dest_take_common(&d, c, e);

	if (ret == 0 && c->data.len && dest_take_common(&d, c, NULL) == 0)
		abort();
	check_runs(&d.common.runs);
	for (size_t i = 0; i < PROCESSES; i++)
		check_runs(&procs[i].common);
	dest_common_free(&d);
	return ret;
}

static int try_content(const uint8_t *data, size_t len, struct err *e)
{
	static const struct fsfile_answer answers[FILES] = { { FSFILE_HAVE }, { FSFILE_CREATE }, { FSFILE_TEMP }, { FSFILE_STAND_IN } };
	struct range_list ranges = { 0 };
	Gw__Content *c;
	int ret = content_decode(data, len, answers, FILES, &c, e);

	if (ret < 0)
		return ret;
	if (!c->last && c->common)
		ret = try_common(c, e);
	else if (!c->last && (c->file == 0 || c->file >= FILES))
		abort();
	for (size_t k = 0; k < c->n_expectations && ret == 0; k++) {
		ret = expectation_ranges(c->expectations[k], &ranges, e);
		for (size_t i = 0; ret == 0 && i < ranges.n; i++)
			if (ranges.v[i].start >= ranges.v[i].end || ranges.v[i].end > VMA_TASK_SIZE || (i && ranges.v[i].start < ranges.v[i - 1].end))
				abort();
		range_list_free(&ranges);
	}
	gw__content__free_unpacked(c, NULL);
	return ret;
}

/* What dest_files.c relies on. */
static int try_files(const uint8_t *data, size_t len, struct err *e)
{
	struct file_news news;
	int ret = files_decode(data, len, FILES, &news, e);

	if (ret == 0) {
		uint32_t all = FILES + news.added.n;

		if (news.values.n != news.msg->n_changed || all > FSFILE_MAX)
			abort();
		for (size_t i = 0; i < news.msg->n_changed; i++)
			if (news.msg->changed[i] >= FILES)
				abort();
		for (size_t i = 0; i < news.msg->n_content; i++)
			if (news.msg->content[i]->file >= all || news.msg->content[i]->last)
				abort();
		for (size_t i = 0; i < news.msg->n_filled; i++)
			if (news.msg->filled[i] < FILES || news.msg->filled[i] >= all)
				abort();
	}
	file_news_free(&news);
	return ret;
}

static int try_round(const uint8_t *data, size_t len, struct err *e)
{
	struct round_news news;
	int ret = round_decode(data, len, FILES, PROCESSES, &news, e);

	if (ret == 0 && news.n > PROCESSES)
		abort();
	for (size_t i = 0; ret == 0 && i < news.n; i++)
		if (news.msg->layouts[i]->process >= PROCESSES || vma_list_validate(&news.layouts[i], FILES, e) < 0)
			abort();
	round_news_free(&news);
	return ret;
}

static int try_accept(const uint8_t *data, size_t len, struct err *e)
{
	struct fsfile_answer *answers = NULL;
	int ret = accept_decode(data, len, FILES, &answers, e);

	for (size_t i = 0; ret == 0 && i < FILES; i++)
		if (answers[i].verdict >= FSFILE_VERDICTS)
			abort();
	free(answers);
	return ret;
}

static void check_text(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			abort();
}

static int try_refuse(const uint8_t *data, size_t len, struct err *e)
{
	struct refusals r = { 0 };
	struct path_list from_home;
	int ret = refuse_decode(data, len, &r, &from_home, e);

	if (ret == 0 && !r.n == !from_home.n)
		abort();
	for (size_t i = 0; i < from_home.n; i++)
		if (from_home.v[i][0] != '/')
			abort();
	path_list_free(&from_home);
	for (size_t i = 0; i < r.n; i++) {
		check_text(r.v[i].code);
		check_text(r.v[i].thing);
		check_text(r.v[i].cause);
		check_text(r.v[i].way_out);
	}
	refusals_free(&r);
	return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err e = ERR_INIT;
	int ret = 0;

	if (!len || len > 65536)
		return 0;
	switch (data[0]) {
	case 'o':
		ret = try_offer(data + 1, len - 1, &e);
		break;
	case 'c':
		ret = try_content(data + 1, len - 1, &e);
		break;
	case 'n':
		ret = try_files(data + 1, len - 1, &e);
		break;
	case 'r':
		ret = try_round(data + 1, len - 1, &e);
		break;
	case 'a':
		ret = try_accept(data + 1, len - 1, &e);
		break;
	case 'f':
		ret = try_refuse(data + 1, len - 1, &e);
		break;
	}
	if (ret > 0 || (ret < 0 && !e.message[0]))
		abort();
	return 0;
}
