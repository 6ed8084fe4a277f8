/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_files.c - files that travel: their contents, and what has become of them since the destination was told
 *
 * Theory of operation: the process runs on after the offer. It opens and maps other files, uses known ones in other ways, and writes to those that
 * the destination keeps a copy of. Before each round the source looks, and sends the news (FILES; the destination answers, and contents follow). What is new
 * in the freeze goes before the go message, without an answer: entries, and contents inline where the destination may lack them. If it
 * then cannot have a file, it gives the migration up, the process goes on here, and the next attempt begins with a new offer.
 *
 * A copy is kept up to date by chunks: for each chunk a number stands for the content that was sent (0: zeros, as in a new file). A look at a
 * file whose times or size have changed reads it, and sends the chunks whose number has changed. So a log that grows costs its end only. Of a
 * chunk, blocks of zeros stay away that have always been zeros there: holes stay holes.
 */
#include <errno.h>
#include <sys/stat.h>

#include "base/util.h"
#include "kern/task.h"
#include "migrate/source.h"
#include "wire/frame.h"

#define CHUNK (64ull << 10)
#define BLOCK (CHUNK / 16)
#define ALL_BLOCKS 0xffff
#define MANY_CHUNKS 256u /* worth looking for holes */
#define SUM_UNKNOWN UINT64_MAX
#define TMPFS 0x01021994
#define RACY_NS 20000000ll             /* times of files may be this coarse */
#define NEW_CONTENT_MAX (1ull << 20)   /* of one new file in the freeze */
#define FROZEN_CONTENT_MAX (64ull << 20)
#define ANSWER_MS 60000

/* What the destination knows of one file. */
struct file_told {
	uint32_t uses;
	bool racy;          /* it could have changed again without another time */
	size_t nranges;     /* mapped_only: ranges sent so far */
	uint64_t nchunks;
	uint64_t *sum;      /* of each chunk as sent */
	uint16_t *blocks;   /* of each chunk: those that have been sent */
};

/* Where contents go. */
struct sink {
	int (*put)(struct source *s, uint32_t file, uint64_t offset, const uint8_t *data, size_t len, struct err *e);
};

static bool same_kernel(const struct source *s)
{
	Gw__Hello self;

	hello_fill(&self);
	return !strcmp(self.boot_id, s->peer->boot_id);
}

/* --- contents --- */

/* Not against attacks: whoever makes two contents with one sum spoils his own file. */
static uint64_t sum_chunk(const uint8_t *p)
{
	uint64_t lane[4] = { 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0xd6e8feb86659fd93 }, word[4], any = 0, sum = 0;

	for (size_t i = 0; i < CHUNK; i += sizeof(word)) {
		memcpy(word, p + i, sizeof(word));
		for (int k = 0; k < 4; k++) {
			any |= word[k];
			lane[k] = ((lane[k] ^ word[k]) << 29 | (lane[k] ^ word[k]) >> 35) * 0xff51afd7ed558ccd;
		}
	}
	for (int k = 0; k < 4; k++)
		sum = (sum ^ lane[k] ^ lane[k] >> 32) * 0xc4ceb9fe1a85ec53;
	return !any ? 0 : sum ? sum : 1;
}

static int resize_sums(struct file_told *t, uint64_t size, struct err *e)
{
	uint64_t n = (size + CHUNK - 1) / CHUNK;
	uint64_t *grown;
	uint16_t *blocks;

	if (n > t->nchunks) {
		grown = realloc(t->sum, n * sizeof(*grown));
		if (grown)
			t->sum = grown;
		blocks = realloc(t->blocks, n * sizeof(*blocks));
		if (blocks)
			t->blocks = blocks;
		if (!grown || !blocks)
			return err_sys(e, ENOMEM, "account of a file");
		memset(grown + t->nchunks, 0, (n - t->nchunks) * sizeof(*grown));
		memset(blocks + t->nchunks, 0, (n - t->nchunks) * sizeof(*blocks));
	}
	t->nchunks = n;
	return 0;
}

/* Reads chunk i, zeros behind the end. */
static int read_chunk(const struct fsfile *f, int fd, uint64_t i, uint8_t *buffer, size_t *ret_len, struct err *e)
{
	size_t len = MIN(CHUNK, f->size - i * CHUNK), got = 0;

	while (got < len) {
		ssize_t n = pread(fd, buffer + got, len - got, (off_t)(i * CHUNK + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, errno, "%s", f->path);
		if (n == 0)
			break;
		got += (size_t)n;
	}
	memset(buffer + got, 0, CHUNK - got);
	*ret_len = len;
	return 0;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

/* Sends chunk i but for what is zeros here and a hole there. */
static int put_chunk(struct source *s, uint32_t file, uint64_t i, const uint8_t *data, size_t len, const struct sink *sink, struct err *e)
{
	uint16_t *blocks = &s->told[file].blocks[i];
	size_t at = 0, end;
	int ret = 0;

	for (unsigned k = 0; k * BLOCK < len; k++)
		if (!is_zero(data + k * BLOCK, BLOCK))
			*blocks |= (uint16_t)(1u << k);
	while (at < len && ret == 0) {
		if (!(*blocks >> at / BLOCK & 1)) {
			at += BLOCK;
			continue;
		}
		for (end = at; end < len && *blocks >> end / BLOCK & 1;)
			end += BLOCK;
		end = MIN(end, len);
		ret = sink->put(s, file, i * CHUNK + at, data + at, end - at, e);
		at = end;
	}
	return ret;
}

/* Brings chunk i up to date at the destination, whatever is in it. */
static int sync_chunk(struct source *s, uint32_t file, uint64_t i, const struct sink *sink, struct err *e)
{
	static uint8_t buffer[CHUNK];
	struct fsfile *f = &s->unit.files.v[file];
	struct file_told *t = &s->told[file];
	int fd = fsfile_read_fd(f, e), ret;
	size_t len = 0;
	uint64_t sum;

	if (fd < 0)
		return fd;
	ret = read_chunk(f, fd, i, buffer, &len, e);
	sum = ret < 0 ? 0 : sum_chunk(buffer);
	if (ret < 0 || sum == t->sum[i])
		return ret;
	ret = put_chunk(s, file, i, buffer, len, sink, e);
	if (ret == 0)
		t->sum[i] = sum;
	return ret;
}

/* Brings chunks [from, to) up to date at the destination. Looking for holes costs 10 us for each MiB. */
static int sync_chunks(struct source *s, uint32_t file, uint64_t from, uint64_t to, const struct sink *sink, struct err *e)
{
	struct fsfile *f = &s->unit.files.v[file];
	const struct file_told *t = &s->told[file];
	uint64_t data_start = from * CHUNK, data_end = data_start;
	int ret = 0;

	for (uint64_t i = from; i < MIN(to, t->nchunks) && ret == 0; i++) {
		uint64_t at, n;

		if (i * CHUNK >= data_end) {
			ret = fsfile_content_next(f, i * CHUNK, FSFILE_SIZE_MAX, &at, &n, e);
			if (ret < 0)
				return ret;
			data_start = n ? at : UINT64_MAX;
			data_end = n ? at + n : UINT64_MAX;
		}
		if ((i + 1) * CHUNK > data_start || t->sum[i])
			ret = sync_chunk(s, file, i, sink, e);
	}
	return ret;
}

/* The ranges of a file that any process maps. */
static int mapped_ranges(const struct layouts *now, uint32_t file, struct range_list *ret, struct err *e)
{
	int code = 0;

	for (size_t i = 0; i < now->n && code == 0; i++)
		code = vma_file_ranges(now->v[i], file, ret, e);
	return code;
}

/* All of a file that the destination needs. */
static int sync_file(struct source *s, uint32_t file, const struct layouts *now, const struct sink *sink, struct err *e)
{
	struct file_told *t = &s->told[file];
	struct range_list ranges = { 0 };
	int ret = resize_sums(t, s->unit.files.v[file].size, e);

	if (ret < 0)
		return ret;
	if (!s->answers[file].mapped_only)
		return sync_chunks(s, file, 0, t->nchunks, sink, e);
	ret = mapped_ranges(now, file, &ranges, e);
	for (size_t i = 0; i < ranges.n && ret == 0; i++)
		ret = sync_chunks(s, file, ranges.v[i].start / CHUNK, (ranges.v[i].end + CHUNK - 1) / CHUNK, sink, e);
	t->nranges = ranges.n;
	range_list_free(&ranges);
	return ret;
}

/* [start, end) of a chunk: sent without comparing. */
static int sync_part(struct source *s, uint32_t file, uint64_t start, uint64_t end, const struct sink *sink, struct err *e)
{
	static uint8_t buffer[CHUNK];
	struct file_told *t = &s->told[file];
	int fd = fsfile_read_fd(&s->unit.files.v[file], e), ret;
	ssize_t n = fd < 0 ? 0 : pread(fd, buffer, end - start, (off_t)start);

	if (n < 0)
		return err_sys(e, errno, "%s", s->unit.files.v[file].path);
	memset(buffer + n, 0, CHUNK - (size_t)n);
	if (fd < 0 || (!t->sum[start / CHUNK] && !sum_chunk(buffer)))
		return fd < 0 ? fd : 0;
	ret = sink->put(s, file, start, buffer, end - start, e);
	t->sum[start / CHUNK] = SUM_UNKNOWN;
	t->blocks[start / CHUNK] = ALL_BLOCKS;
	return ret;
}

/* What was written through mappings. */
static int sync_dirty(struct source *s, uint32_t file, const struct sink *sink, struct err *e)
{
	const struct range_list *l = &s->shared.dirty[file];
	uint64_t size = s->unit.files.v[file].size;
	int ret = resize_sums(&s->told[file], size, e);

	for (size_t i = 0; i < l->n && ret == 0; i++) {
		uint64_t at = l->v[i].start, end = MIN(l->v[i].end, size);

		while (at < end && ret == 0) {
			uint64_t whole = end == size ? (end + CHUNK - 1) / CHUNK : end / CHUNK;

			if (at % CHUNK == 0 && at / CHUNK + MANY_CHUNKS < whole) {
				ret = sync_chunks(s, file, at / CHUNK, whole, sink, e);
				at = whole * CHUNK;
				continue;
			}
			if (at % CHUNK == 0 && at / CHUNK < whole)
				ret = sync_chunk(s, file, at / CHUNK, sink, e);
			else
				ret = sync_part(s, file, at, MIN(end, (at / CHUNK + 1) * CHUNK), sink, e);
			at = (at / CHUNK + 1) * CHUNK;
		}
	}
	return ret;
}

/* A destination that has given up says why before it hangs up. */
static int send_content(struct source *s, const Gw__Content *c, uint8_t *packed, struct err *e)
{
	int fd = s->link.control, ret = frame_send(fd, FRAME_CONTENT, packed, gw__content__pack(c, packed), e), code;
	struct err why = ERR_INIT;
	struct frame f;

	if (ret != -EPIPE && ret != -ECONNRESET)
		return ret;
	code = frame_recv_expect(fd, FRAME_ACCEPT, &f, FRAME_HELLO_MAX, 100, &why);
	if (code == 0)
		frame_free(&f);
	return code == 0 || code == -ECONNRESET || code == -ETIMEDOUT ? ret : err_set(e, code, "%s: %s", s->request->dest_name, why.message);
}

static int put_frame(struct source *s, uint32_t file, uint64_t offset, const uint8_t *data, size_t len, struct err *e)
{
	Gw__Content c = GW__CONTENT__INIT;
	cleanup_free uint8_t *packed = NULL;

	c.file = file;
	c.offset = offset;
	c.data = (ProtobufCBinaryData){ len, (uint8_t *)(uintptr_t)data };
	packed = malloc(gw__content__get_packed_size(&c));
	if (!packed)
		return err_sys(e, ENOMEM, "file content");
	s->content_bytes += len;
	return send_content(s, &c, packed, e);
}

static int end_content(struct source *s, bool first, struct err *e)
{
	Gw__Content c = GW__CONTENT__INIT;
	cleanup_free Gw__Expectation *x = calloc(s->nprocs, sizeof(*x)), **list = calloc(s->nprocs, sizeof(*list));
	cleanup_free uint8_t *packed = NULL;

	c.last = true;
	if (!x || !list)
		return err_sys(e, ENOMEM, "file content");
	for (size_t i = 0; first && i < s->nprocs; i++) {
		struct source_process *p = &s->procs[i];

		gw__expectation__init(&x[i]);
		list[c.n_expectations++] = &x[i];
		x[i].lazy_pages = p->count.lazy;
		x[i].mlock_future = p->agent.mlock_future;
		x[i].membarrier = p->agent.membarrier;
		if (!strategy_is_post_copy(s->strategy))
			x[i].lazy_ranges = (ProtobufCBinaryData){ p->count.lazy_ranges.n * sizeof(struct range), (uint8_t *)p->count.lazy_ranges.v };
	}
	c.expectations = list;
	packed = malloc(gw__content__get_packed_size(&c));
	if (!packed)
		return err_sys(e, ENOMEM, "file content");
	return send_content(s, &c, packed, e);
}

/* In the freeze: kept until it is sent with the news. */
static int keep(struct source *s, uint32_t file, uint64_t offset, const uint8_t *data, size_t len, struct err *e)
{
	struct file_news_out *out = &s->news;
	Gw__Content *c = calloc(1, sizeof(*c)), **grown = realloc(out->content, (out->ncontent + 1) * sizeof(*grown));
	uint8_t *copy = malloc(len + 1);

	if (grown)
		out->content = grown;
	if (!c || !grown || !copy) {
		free(c);
		free(copy);
		return err_sys(e, ENOMEM, "file content");
	}
	memcpy(copy, data, len);
	gw__content__init(c);
	c->file = file;
	c->offset = offset;
	c->data = (ProtobufCBinaryData){ len, copy };
	out->content[out->ncontent++] = c;
	out->content_bytes += len;
	s->content_bytes += len;
	if (out->content_bytes > FROZEN_CONTENT_MAX)
		return err_set(e, -E2BIG, "%s changes faster than it can be sent", s->unit.files.v[file].path);
	return 0;
}

/* --- names --- */

int source_look_at_files(struct source *s, struct err *e)
{
	for (uint32_t i = 0; i < s->unit.files.n; i++) {
		bool ignored;
		int ret = fsfile_changed(&s->unit.files.v[i], &ignored, e);

		if (ret < 0)
			return ret;
	}
	return 0;
}

bool source_files_replaced(struct source *s)
{
	for (uint32_t i = 0; i < s->unit.files.n; i++) {
		const struct fsfile *f = &s->unit.files.v[i];
		struct stat st;

		if (f->type == FSFILE_REGULAR && !f->unlinked && !f->out_of_reach && f->uses && (stat(f->path, &st) < 0 || st.st_dev != f->dev || st.st_ino != f->ino))
			return true;
	}
	return false;
}

/* --- news --- */

static bool is_racy(const struct fsfile *f)
{
	return f->mtime_ns > (int64_t)clock_ns(CLOCK_REALTIME) - RACY_NS;
}

static int grow_told(struct source *s, struct err *e)
{
	uint32_t n = s->unit.files.n;
	struct file_told *grown = realloc(s->told, (n + 1) * sizeof(*grown));

	if (!grown)
		return err_sys(e, ENOMEM, "account of files");
	s->told = grown;
	for (uint32_t i = s->ntold; i < n; i++)
		grown[i] = (struct file_told){ .uses = s->unit.files.v[i].uses, .racy = true };
	s->ntold = n;
	return 0;
}

static bool more_is_mapped(const struct source *s, uint32_t file, const struct layouts *now)
{
	struct range_list ranges = { 0 };
	bool more = s->answers[file].mapped_only && mapped_ranges(now, file, &ranges, NULL) == 0 && ranges.n != s->told[file].nranges;

	range_list_free(&ranges);
	return more;
}

/*
 * Whether only mappings that are tracked can have written: then the ranges that are found say all, and times say nothing. Nobody else can where no descriptor
 * allows it; but a segment may have been attached for a moment.
 */
static bool is_tracked(const struct source *s, const struct fsfile *f)
{
	if (!(fsfile_is_memory(f) || (f->fs_magic == TMPFS && f->unlinked)) || f->uses & FSFILE_OPEN_WRITE)
		return false;
	return f->type != FSFILE_SYSV || !s->layouts_moved;
}

/* Finds the old files of which there is news; todo[i]: the content has to be looked at. */
static int find_changed(struct source *s, const struct layouts *now, struct file_news_out *out, struct err *e)
{
	for (uint32_t i = 0; i < s->nanswers; i++) {
		struct fsfile *f = &s->unit.files.v[i];
		struct file_told *t = &s->told[i];
		bool lacks = fsfile_answer_lacks(&s->answers[i]), changed = false;
		uint32_t more = f->uses & ~t->uses;

		if (more & ~(uint32_t)(FSFILE_MAPPED_PRIVATE | FSFILE_PROGRAM) && s->answers[i].mapped_only)
			s->answers[i].mapped_only = false;
		if (lacks) {
			int ret = fsfile_changed(f, &changed, e);

			if (ret < 0)
				return ret;
			out->todo[i] = ((changed || t->racy) && !is_tracked(s, f)) || more || more_is_mapped(s, i, now);
			t->racy = is_racy(f);
		}
		if (out->todo[i] || more || changed || shared_is_dirty(&s->shared, i))
			out->changed[out->nchanged++] = i;
		t->uses = f->uses;
	}
	return 0;
}

static bool is_mapped(const struct source *s, const struct layouts *now, int32_t file)
{
	for (size_t i = 0; i < now->n; i++) {
		const struct vma_list *l = now->v[i];

		if (s->unit.procs[i].mm.exe_file == file)
			return true;
		for (size_t k = 0; k < l->n; k++)
			if (l->v[k].file == file)
				return true;
	}
	return false;
}

/* Files that were seen for a moment only are no matter any more: nothing is asked about them. */
static void forget_unused(struct source *s, const struct layouts *now)
{
	const Gw__FdTable *fds = s->unit.fds.msg;

	for (uint32_t i = s->nanswers; i < s->unit.files.n; i++) {
		bool used = is_mapped(s, now, (int32_t)i);

		for (size_t k = 0; k < fds->n_descs && !used; k++)
			used = fds->descs[k]->kind == GW__FD_KIND__FD_FILE && fds->descs[k]->index == i;
		if (!used)
			s->unit.files.v[i].uses = s->told[i].uses = 0;
	}
}

static int encode_news(struct source *s, struct file_news_out *out, uint8_t **ret, size_t *ret_len, struct err *e)
{
	struct fsfile_table added = { s->unit.files.v + s->nanswers, s->unit.files.n - s->nanswers }, values = { 0 };
	cleanup_free uint8_t *added_bytes = NULL, *value_bytes = NULL;
	cleanup_free struct fsfile *copies = calloc(out->nchanged + 1, sizeof(*copies));
	Gw__FileSync m = GW__FILE_SYNC__INIT;
	int code;

	if (!copies)
		return err_sys(e, ENOMEM, "news of files");
	for (size_t i = 0; i < out->nchanged; i++)
		copies[i] = s->unit.files.v[out->changed[i]];
	values = (struct fsfile_table){ copies, (uint32_t)out->nchanged };
	code = fsfile_table_encode(&added, &added_bytes, &m.added.len, e);
	if (code == 0)
		code = fsfile_table_encode(&values, &value_bytes, &m.values.len, e);
	if (code < 0)
		return code;
	m.added.data = added_bytes;
	m.values.data = value_bytes;
	m.changed = out->changed;
	m.n_changed = out->nchanged;
	m.content = out->content;
	m.n_content = out->ncontent;
	m.filled = out->filled;
	m.n_filled = out->nfilled;
	*ret_len = gw__file_sync__get_packed_size(&m);
	*ret = malloc(*ret_len + 1);
	if (!*ret)
		return err_sys(e, ENOMEM, "news of files");
	gw__file_sync__pack(&m, *ret);
	return 0;
}

static int begin_news(struct source *s, struct file_news_out *out, struct err *e)
{
	uint32_t n = s->unit.files.n;

	source_news_free(out);
	out->changed = calloc(n + 1, sizeof(*out->changed));
	out->filled = calloc(n + 1, sizeof(*out->filled));
	out->todo = calloc(n + 1, sizeof(*out->todo));
	if (!out->changed || !out->filled || !out->todo)
		return err_sys(e, ENOMEM, "news of files");
	return grow_told(s, e);
}

void source_news_free(struct file_news_out *out)
{
	for (size_t i = 0; i < out->ncontent; i++) {
		free(out->content[i]->data.data);
		free(out->content[i]);
	}
	free(out->content);
	free(out->changed);
	free(out->filled);
	free(out->todo);
	*out = (struct file_news_out){ 0 };
}

void source_files_free(struct source *s)
{
	source_news_free(&s->news);
	for (uint32_t i = 0; i < s->ntold; i++) {
		free(s->told[i].sum);
		free(s->told[i].blocks);
	}
	free(s->told);
	s->told = NULL;
	s->ntold = 0;
}

static int sync_todo(struct source *s, struct file_news_out *out, const struct layouts *now, const struct sink *sink, struct err *e)
{
	int ret = 0;

	for (uint32_t i = 0; i < s->nanswers && ret == 0; i++) {
		/* A mapping of a new file counts as written until it is known whether the destination has the file. */
		if (fsfile_answer_lacks(&s->answers[i]) && (out->todo[i] || shared_is_dirty(&s->shared, i)))
			ret = out->todo[i] ? sync_file(s, i, now, sink, e) : sync_dirty(s, i, sink, e);
		shared_clean(&s->shared, i);
	}
	return ret;
}

int source_send_contents(struct source *s, struct err *e)
{
	static const struct sink frames = { put_frame };
	cleanup_free const struct vma_list **vmas = calloc(s->nprocs, sizeof(*vmas));
	const struct layouts now = { vmas, s->nprocs };
	int ret = vmas ? begin_news(s, &s->news, e) : err_sys(e, ENOMEM, "layouts");

	for (size_t i = 0; i < s->nprocs && ret == 0; i++)
		vmas[i] = &s->unit.procs[i].vmas;
	for (uint32_t i = 0; i < s->nanswers && ret == 0; i++)
		s->news.todo[i] = fsfile_answer_lacks(&s->answers[i]);
	if (ret == 0)
		ret = sync_todo(s, &s->news, &now, &frames, e);
	return ret < 0 ? ret : end_content(s, true, e);
}

static int take_more_answers(struct source *s, struct err *e)
{
	uint32_t n = s->unit.files.n - s->nanswers;
	struct fsfile_answer *more = NULL, *grown;
	int ret = source_take_accept(s, n, &more, e);

	if (ret < 0)
		return ret;
	grown = realloc(s->answers, (s->unit.files.n + 1) * sizeof(*grown));
	if (grown) {
		memcpy(grown + s->nanswers, more, n * sizeof(*more));
		s->answers = grown;
		s->nanswers += n;
	}
	free(more);
	return grown ? 0 : err_sys(e, ENOMEM, "answers");
}

int source_tell_files(struct source *s, const struct layouts *now, struct err *e)
{
	static const struct sink frames = { put_frame };
	struct fsfile_table added = { s->unit.files.v + s->nanswers, s->unit.files.n - s->nanswers };
	cleanup_free uint8_t *packed = NULL;
	uint32_t before = s->nanswers;
	bool any = added.n > 0;
	size_t len;
	int ret = source_view_flush(s, e);

	if (ret == 0)
		ret = begin_news(s, &s->news, e);
	if (ret == 0)
		ret = source_collect_shared(s, now, false, e);
	if (ret == 0)
		forget_unused(s, now);
	if (ret == 0)
		ret = find_changed(s, now, &s->news, e);
	for (uint32_t i = 0; i < before && ret == 0; i++)
		any |= s->news.todo[i];
	if (ret < 0 || (!any && !s->news.nchanged))
		return ret;
	if (added.n)
		ret = fsfile_prepare_offer(&added, same_kernel(s), e);
	if (ret == 0)
		ret = encode_news(s, &s->news, &packed, &len, e);
	if (ret == 0)
		ret = frame_send(s->link.control, FRAME_FILES, packed, len, e);
	if (ret == 0)
		ret = take_more_answers(s, e);
	for (uint32_t i = before; i < s->nanswers && ret == 0; i++)
		s->news.todo[i] = fsfile_answer_lacks(&s->answers[i]);
	if (ret == 0)
		ret = sync_todo(s, &s->news, now, &frames, e);
	return ret < 0 ? ret : end_content(s, false, e);
}

void source_mark_left(struct source *s)
{
	for (uint32_t i = 0; i < s->nanswers; i++) {
		struct fsfile *f = &s->unit.files.v[i];

		if (f->type != FSFILE_SYSV && (s->answers[i].verdict != FSFILE_CREATE || f->unlinked || s->request->image))
			continue;
		f->unit = s->report->unit;
		fsfile_mark_left(f);
	}
}

/* Whether a new file is probably not at the destination. */
static bool may_lack(const struct fsfile *f, bool same)
{
	return !fsfile_is_homes(f) && (!same || fsfile_is_memory(f) || f->unlinked || f->fs_magic == TMPFS);
}

static int keep_new(struct source *s, uint32_t i, const struct sink *sink, struct err *e)
{
	const struct fsfile *f = &s->unit.files.v[i];
	int ret;

	if (!f->uses || !may_lack(f, same_kernel(s)) || f->size > NEW_CONTENT_MAX)
		return 0;
	ret = resize_sums(&s->told[i], f->size, e);
	if (ret == 0)
		ret = sync_chunks(s, i, 0, s->told[i].nchunks, sink, e);
	if (ret == 0)
		s->news.filled[s->news.nfilled++] = i;
	return ret;
}

int source_files_frozen(struct source *s, const struct layouts *now, struct err *e)
{
	static const struct sink kept = { keep };
	struct fsfile_table added = { s->unit.files.v + s->nanswers, s->unit.files.n - s->nanswers };
	int ret = source_view_flush(s, e);

	if (ret == 0)
		ret = begin_news(s, &s->news, e);
	if (ret == 0)
		ret = source_collect_shared(s, now, true, e);
	if (ret == 0)
		forget_unused(s, now);
	if (ret == 0)
		ret = find_changed(s, now, &s->news, e);
	if (ret == 0 && added.n)
		ret = fsfile_prepare_offer(&added, same_kernel(s), e);
	if (ret == 0)
		ret = sync_todo(s, &s->news, now, &kept, e);
	for (uint32_t i = s->nanswers; i < s->unit.files.n && ret == 0; i++)
		ret = keep_new(s, i, &kept, e);
	if (ret < 0 || (!added.n && !s->news.nchanged && !s->news.ncontent))
		return ret;
	return encode_news(s, &s->news, &s->news_frame, &s->news_frame_len, e);
}
