// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_control.c - what the two sides of a migration say on the control connection. The first byte says which message: o c n r a f */
#include <stdlib.h>

#include "base/util.h"
#include "migrate/decode.h"
#include "migrate/migrate.h"
#include "wire/hello.h"

#define FILES 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int try_offer(const uint8_t *data, size_t len, struct err *e)
{
	struct offer o;
	int ret = offer_decode(data, len, &o, e);

	if (ret == 0) {
		if (!o.nthreads || o.nthreads > OFFER_THREADS_MAX || o.nthreads != o.msg->n_threads || o.threads[0]->tid != o.msg->pid)
			abort();
		if (o.msg->strategy > STRATEGY_COPY_ON_REFERENCE || !hello_name_valid(o.msg->from) || vma_find(&o.vmas, o.msg->scratch_base))
			abort();
		if (vma_list_validate(&o.vmas, o.files.n, e) < 0 || mm_validate(&o.mm, o.files.n, e) < 0 || fdtable_validate(o.fds, o.files.n, e) < 0)
			abort();
	}
	offer_free(&o);
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
	if (!c->last && (c->file == 0 || c->file >= FILES))
		abort();
	if (c->last)
		ret = content_ranges(c, &ranges, e);
	for (size_t i = 0; ret == 0 && i < ranges.n; i++)
		if (ranges.v[i].start >= ranges.v[i].end || ranges.v[i].end > VMA_TASK_SIZE || (i && ranges.v[i].start < ranges.v[i - 1].end))
			abort();
	range_list_free(&ranges);
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
	struct vma_list vmas = { 0 };
	bool changed = false, over;
	int ret = round_decode(data, len, FILES, &vmas, &changed, &over, e);

	if (ret == 0 && !changed && vmas.n)
		abort();
	if (ret == 0 && changed && vma_list_validate(&vmas, FILES, e) < 0)
		abort();
	vma_list_free(&vmas);
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
	int ret = refuse_decode(data, len, &r, e);

	if (ret == 0 && !r.n)
		abort();
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
