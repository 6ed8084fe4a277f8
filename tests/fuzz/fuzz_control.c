// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_control.c - what the two sides of a migration say on the control connection. The first byte says which message */
#include <signal.h>
#include <stdlib.h>

#include "base/util.h"
#include "image/ns_mount.h"
#include "migrate/decode.h"
#include "migrate/dest.h"
#include "migrate/migrate.h"
#include "migrate/outcome.h"
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

static int try_ask(const uint8_t *data, size_t len, struct err *e)
{
	Gw__NsAnswer answer = GW__NS_ANSWER__INIT;
	Gw__NsAsk *ask;
	int ret = ns_ask_decode(data, len, &ask, e);

	if (ret < 0)
		return ret;
	ns_mounts_answer(ask, &answer); /* looks, and changes nothing */
	if (answer.n_lacking != ask->n_paths)
		abort();
	free(answer.lacking);
	gw__ns_ask__free_unpacked(ask, NULL);
	return 0;
}

static int try_answer(const uint8_t *data, size_t len, struct err *e)
{
	Gw__NsAnswer *answer;
	int ret = ns_answer_decode(data, len, &answer, e);

	if (ret == 0)
		gw__ns_answer__free_unpacked(answer, NULL);
	return ret;
}

static int try_resumed(const uint8_t *data, size_t len, struct err *e)
{
	Gw__Resumed *resumed;
	int ret = resumed_decode(data, len, &resumed, e);

	if (ret == 0 && resumed->pid < 1)
		abort();
	if (ret == 0)
		gw__resumed__free_unpacked(resumed, NULL);
	return ret;
}

static int try_release(const uint8_t *data, size_t len, struct err *e)
{
	Gw__Release *release;
	int ret = release_decode(data, len, PROCESSES, &release, e);

	for (size_t i = 0; ret == 0 && i < release->n_late; i++)
		if (release->late[i]->process >= PROCESSES || release->late[i]->queue.len % sizeof(siginfo_t))
			abort();
	if (ret == 0)
		gw__release__free_unpacked(release, NULL);
	return ret;
}

static int try_outcome(const uint8_t *data, size_t len, struct err *e)
{
	char boot_id[OUTCOME_BOOT_ID_MAX];
	enum outcome outcome;
	int ret = outcome_answer_decode(data, len, &outcome, boot_id, e);

	if (ret == 0 && (outcome > OUTCOME_COMMITTED || strlen(boot_id) >= sizeof(boot_id)))
		abort();
	return ret;
}

/* By the first byte. */
static const struct {
	uint8_t letter;
	int (*try)(const uint8_t *data, size_t len, struct err *e);
} messages[] = {
	{ 'o', try_offer }, { 'c', try_content }, { 'n', try_files }, { 'r', try_round }, { 'a', try_accept }, { 'f', try_refuse },
	{ 'q', try_ask }, { 'm', try_answer }, { 'd', try_resumed }, { 'l', try_release }, { 'w', try_outcome },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err e = ERR_INIT;
	int ret = 0;

	if (!len || len > 65536)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(messages); i++)
		if (messages[i].letter == data[0])
			ret = messages[i].try(data + 1, len - 1, &e);
	if (ret > 0 || (ret < 0 && !e.message[0]))
		abort();
	return 0;
}
