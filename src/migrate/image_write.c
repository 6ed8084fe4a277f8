/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image_write.c - the writer: speaks for a destination, and records; see checkpoint.h
 *
 * Theory of operation: what comes on different connections is recorded in an order in which it can be sent again. What a ROUND or the go message says holds for the pages
 * behind a barrier of the page stream, so all pages up to that barrier are recorded before it. Nothing that is sent is changed, and of the page stream nothing is
 * understood but where its frames end.
 */
#include "migrate/image_write.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "image/clocks.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "wire/conn.h"

#define HELLO_MS 5000
#define STEP_MS 120000
#define RELEASE_MAX (16u << 20)
#define CONTENT_MAX ((1u << 20) + 4096)
#define STREAM_BYTES (ARCHIVE_CHUNK_BYTES + sizeof(struct page_frame) + STREAM_RUNS_MAX * sizeof(struct page_run) + STREAM_PAGES_MAX * PAGE_SIZE_BYTES)
#define DEFERRED_MAX (512ul << 20)
#define CONNECTIONS_MAX 16384u

/* --- connections --- */

/* A connection of this migration, whose HELLO has been read. Others (anybody can connect to the loopback address) are closed. */
static int accept_one(struct image_writer *w, Gw__Hello **ret, struct err *e)
{
	cleanup_close int fd = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC);
	cleanup_frame struct frame f = { 0 };

	if (fd < 0)
		return err_sys(e, -errno, "accepting a connection");
	conn_tune(fd);
	if (frame_recv_expect(fd, FRAME_HELLO, &f, FRAME_HELLO_MAX, HELLO_MS, NULL) < 0 || hello_decode(f.payload, f.len, ret, NULL) < 0)
		return -EAGAIN;
	if (memcmp((*ret)->mig_id.data, w->image->mig_id, HELLO_MIG_ID_BYTES) != 0) {
		hello_free(ret);
		return -EAGAIN;
	}
	return take_fd(&fd);
}

static int *place_of(struct link *l, const Gw__Hello *hello)
{
	if (hello->role == ROLE_GO)
		return &l->go;
	if (hello->process >= l->npages || (hello->role != ROLE_FAULT && hello->role != ROLE_BULK))
		return NULL;
	return hello->role == ROLE_FAULT ? &l->pages[hello->process].fault : &l->pages[hello->process].bulk;
}

static bool complete(const struct link *l)
{
	bool all = l->go >= 0;

	for (size_t i = 0; i < l->npages; i++)
		all = all && l->pages[i].fault >= 0 && l->pages[i].bulk >= 0;
	return all;
}

static int accept_others(struct image_writer *w, struct err *e)
{
	while (!complete(&w->link)) {
		struct pollfd p[2] = { { w->listener, POLLIN, 0 }, { w->link.control, POLLRDHUP, 0 } };
		cleanup_hello Gw__Hello *hello = NULL;
		int fd, *place;

		if (poll(p, 2, LINK_TIMEOUT_MS) <= 0)
			return err_set(e, -ETIMEDOUT, "the source did not open its connections");
		if (p[1].revents)
			return err_set(e, -ECONNRESET, "the source went away");
		fd = accept_one(w, &hello, e);
		if (fd == -EAGAIN)
			continue;
		if (fd < 0)
			return fd;
		place = place_of(&w->link, hello);
		if (!place || *place >= 0) {
			close(fd);
			return err_set(e, -EPROTO, "an unexpected connection (role %u, process %u)", hello->role, hello->process);
		}
		*place = fd;
	}
	return 0;
}

/* --- recording --- */

static int put_frame(struct image_writer *w, enum archive_stream stream, uint16_t type, const void *payload, size_t len, struct err *e)
{
	return archive_put(w->archive, ARCHIVE_FRAME, stream, type, payload, len, e);
}

static int flush_stream(struct image_writer *w, size_t i, struct err *e)
{
	struct image_stream *s = &w->streams[i];
	int ret = s->len ? archive_put_pages(w->archive, (uint32_t)i, s->buffer, s->len, s->spans, s->nspans, e) : 0;

	w->page_bytes += s->len;
	s->len = s->nspans = 0;
	return ret;
}

static int receive(int fd, void *to, size_t len, struct err *e)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = recv(fd, (char *)to + got, len - got, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? err_sys(e, -errno, "the source") : err_set(e, -ECONNRESET, "the source ended the migration");
		got += (size_t)n;
	}
	return 0;
}

/* One frame of pages, whole. */
static int take_pages(struct image_writer *w, size_t i, struct err *e)
{
	struct image_stream *s = &w->streams[i];
	int fd = w->link.pages[i].bulk, ret;
	struct page_frame f;
	size_t more;

	if (!s->buffer) {
		s->buffer = malloc(STREAM_BYTES);
		if (!s->buffer)
			return err_sys(e, -ENOMEM, "pages");
	}
	ret = receive(fd, &f, sizeof(f), e);
	if (ret < 0)
		return ret;
	if (f.magic != STREAM_MAGIC || f.nruns > STREAM_RUNS_MAX || f.npages > STREAM_PAGES_MAX)
		return err_set(e, -EPROTO, "pages that cannot be read");
	memcpy(s->buffer + s->len, &f, sizeof(f));
	more = f.nruns * sizeof(struct page_run) + f.npages * PAGE_SIZE_BYTES;
	ret = receive(fd, s->buffer + s->len + sizeof(f), more, e);
	if (ret < 0)
		return ret;
	if (f.npages)
		s->spans[s->nspans++] = (struct archive_span){ (uint32_t)(s->len + sizeof(f) + f.nruns * sizeof(struct page_run)), f.npages };
	s->len += sizeof(f) + more;
	s->pages += f.npages;
	s->barriers += f.kind == STREAM_BARRIER;
	return s->len >= ARCHIVE_CHUNK_BYTES || s->nspans == STREAM_SPANS ? flush_stream(w, i, e) : 0;
}

/* All up to the barriers that are expected. */
static int take_expected(struct image_writer *w, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < w->link.npages && ret == 0; i++) {
		while (w->streams[i].barriers < w->streams[i].expected && ret == 0)
			ret = take_pages(w, i, e);
		if (ret == 0)
			ret = flush_stream(w, i, e);
	}
	return ret;
}

/* --- the steps --- */

static int say_hello(struct image_writer *w, struct err *e)
{
	Gw__Hello hello;

	hello_fill(&hello);
	hello.role = ROLE_CONTROL;
	hello.features = 0;
	hello.node_name = (char *)(uintptr_t)"image";
	/* Not this kernel: the image is read at another time, when numbers of inodes prove nothing, so the source tells what files contain. */
	hello.boot_id = (char *)(uintptr_t)"image";
	hello.mig_id = (ProtobufCBinaryData){ HELLO_MIG_ID_BYTES, (uint8_t *)(uintptr_t)w->image->mig_id };
	return hello_send(w->link.control, &hello, e);
}

static int receive_offer(struct image_writer *w, const Gw__Hello *hello, struct err *e)
{
	cleanup_frame struct frame f = { 0 };
	int ret = frame_recv(w->link.control, &f, FRAME_PAYLOAD_MAX, STEP_MS, e);

	if (ret < 0)
		return ret;
	if (f.type == FRAME_ERROR)
		return frame_error_decode(&f, e);
	if (f.type == FRAME_MOUNTS)
		return err_set(e, -EOPNOTSUPP, "units with mounts of their own (containers) cannot be put into an image");
	if (f.type != FRAME_OFFER)
		return err_set(e, -EPROTO, "%s instead of the offer", frame_type_name(f.type));
	ret = image_take_offer(w, &f, e);
	if (ret == 0)
		ret = image_put_head(w, hello, w->offered.msg->unit, e);
	return ret < 0 ? ret : put_frame(w, ARCHIVE_CONTROL, FRAME_OFFER, f.payload, f.len, e);
}

static int put_answers(struct image_writer *w, uint32_t first, struct err *e)
{
	cleanup_free uint8_t *answers = NULL, *packed = NULL;
	Gw__Accept accept = GW__ACCEPT__INIT;
	size_t len;
	int ret = fsfile_answers_encode(w->answers + first, w->nanswers - first, &answers, &len, e);

	if (ret < 0)
		return ret;
	accept.answers = (ProtobufCBinaryData){ len, answers };
	packed = malloc(gw__accept__get_packed_size(&accept) + 1);
	if (!packed)
		return err_sys(e, -ENOMEM, "the answer");
	len = gw__accept__pack(&accept, packed);
	ret = archive_put(w->archive, ARCHIVE_ANSWERS, ARCHIVE_CONTROL, FRAME_ACCEPT, packed, len, e);
	return ret < 0 ? ret : frame_send(w->link.control, FRAME_ACCEPT, packed, len, e);
}

static int take_content(struct image_writer *w, struct err *e)
{
	bool last = false;
	int ret = 0;

	while (!last && ret == 0) {
		cleanup_frame struct frame f = { 0 };
		Gw__Content *c = NULL;

		ret = frame_recv_expect(w->link.control, FRAME_CONTENT, &f, CONTENT_MAX, STEP_MS, e);
		if (ret == 0)
			ret = content_decode(f.payload, f.len, w->answers, w->nanswers, &c, e);
		if (ret < 0 || !c)
			return ret;
		last = c->last;
		w->content_bytes += c->data.len;
		gw__content__free_unpacked(c, NULL);
		ret = put_frame(w, ARCHIVE_CONTROL, FRAME_CONTENT, f.payload, f.len, e);
	}
	return ret;
}

static int take_news(struct image_writer *w, const struct frame *f, struct err *e)
{
	uint32_t before = w->nanswers;
	int ret = image_take_files(w, f, false, e);

	if (ret == 0)
		ret = put_frame(w, ARCHIVE_CONTROL, FRAME_FILES, f->payload, f->len, e);
	if (ret == 0)
		ret = put_answers(w, before, e);
	return ret < 0 ? ret : take_content(w, e);
}

/* The one before the freeze, and those in it, are behind a barrier of every process, and of those whose layout changes. */
static int take_round(struct image_writer *w, const struct frame *f, struct err *e)
{
	struct round_news news;
	bool answered = !w->over;
	int ret = round_decode(f->payload, f->len, w->offered.files.n, w->offered.nprocs, &news, e);
	size_t k = 0;

	for (size_t i = 0; i < w->offered.nprocs && ret == 0; i++) {
		bool changed = k < news.n && news.msg->layouts[k]->process == i;

		w->streams[i].expected += changed || news.msg->over;
		k += changed;
	}
	if (ret == 0) {
		w->over |= news.msg->over;
		ret = take_expected(w, e);
	}
	round_news_free(&news);
	if (ret == 0)
		ret = put_frame(w, ARCHIVE_CONTROL, FRAME_ROUND, f->payload, f->len, e);
	if (ret == 0 && w->over) { /* the freeze is next, or has begun: nobody is to wait for the disk */
		archive_defer(w->archive, DEFERRED_MAX);
		pace_hurry(0);
	}
	return ret < 0 || !answered ? ret : frame_send(w->link.control, FRAME_ROUND, NULL, 0, e);
}

static int take_control(struct image_writer *w, struct err *e)
{
	cleanup_frame struct frame f = { 0 };
	int ret = frame_recv(w->link.control, &f, FRAME_PAYLOAD_MAX, STEP_MS, e);

	if (ret < 0)
		return ret;
	if (f.type == FRAME_ROUND)
		return take_round(w, &f, e);
	if (f.type == FRAME_FILES && !w->over)
		return take_news(w, &f, e);
	if (f.type == FRAME_FILES) {
		ret = image_take_files(w, &f, true, e);
		return ret < 0 ? ret : put_frame(w, ARCHIVE_CONTROL, FRAME_FILES, f.payload, f.len, e);
	}
	if (f.type == FRAME_ERROR)
		return frame_error_decode(&f, e);
	return err_set(e, -EPROTO, "%s instead of a round", frame_type_name(f.type));
}

/* 1: it was the go message. */
static int take_go(struct image_writer *w, struct err *e)
{
	cleanup_frame struct frame f = { 0 };
	int ret = frame_recv(w->link.go, &f, FRAME_PAYLOAD_MAX, STEP_MS, e);

	if (ret < 0)
		return ret;
	if (f.type == FRAME_GO) {
		w->monotonic_ns = clock_process_ns(0);
		w->boottime_ns = clock_process_boottime_ns(0);
		w->realtime_ns = clock_ns(CLOCK_REALTIME);
		for (size_t i = 0; i < w->link.npages; i++)
			w->streams[i].expected++;
		ret = take_expected(w, e);
	} else if (f.type == FRAME_FILES) {
		ret = image_take_files(w, &f, true, e);
	} else if (f.type != FRAME_AHEAD && f.type != FRAME_THREADS) {
		ret = err_set(e, -EPROTO, "%s instead of the go message", frame_type_name(f.type));
	}
	if (ret == 0)
		ret = put_frame(w, ARCHIVE_GO, f.type, f.payload, f.len, e);
	if (ret < 0 || f.type != FRAME_GO)
		return ret;
	w->go_len = f.len;
	w->go = take_ptr(f.payload);
	return 1;
}

/* What the source has sent on the control connection before it began on the go connection is there by now. */
static bool control_comes_first(const struct image_writer *w)
{
	char byte;

	return recv(w->link.control, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Until the go message is there. */
static int take_rest(struct image_writer *w, struct err *e)
{
	size_t n = w->link.npages;
	cleanup_free struct pollfd *p = calloc(n + 2, sizeof(*p));
	int ret = p ? 0 : err_sys(e, -ENOMEM, "connections");

	while (ret == 0) {
		p[0] = (struct pollfd){ w->link.control, POLLIN, 0 };
		p[1] = (struct pollfd){ w->link.go, POLLIN, 0 };
		for (size_t i = 0; i < n; i++)
			p[2 + i] = (struct pollfd){ w->link.pages[i].bulk, POLLIN, 0 };
		if (poll(p, n + 2, -1) < 0 && errno != EINTR)
			return err_sys(e, -errno, "waiting for the source");
		for (size_t i = 0; i < n && ret == 0; i++)
			if (p[2 + i].revents)
				ret = take_pages(w, i, e);
		if (ret == 0 && p[0].revents)
			ret = take_control(w, e);
		else if (ret == 0 && p[1].revents)
			ret = control_comes_first(w) ? take_control(w, e) : take_go(w, e);
	}
	return ret < 0 ? ret : 0;
}

/* --- the end --- */

/* The process goes on where it is; what is not on the disk yet is put there while it runs. */
static int let_go_on(struct image_writer *w, struct err *e)
{
	const uint64_t word = GO_ABORTED;

	if (send(w->link.go, &word, sizeof(word), MSG_NOSIGNAL) < 0)
		log_warning("event=abort-untold text=\"%s\"", strerror(errno));
	frame_send_error(w->link.control, ECANCELED, "the image has been taken, and the process is to go on", NULL);
	pace_calm(0);
	w->complete = true;
	image_look_at_files(w);
	if (image_put_summary(w, e) < 0)
		return e ? e->code : -EIO;
	return archive_seal(w->archive, e);
}

static void tell_resumed(struct image_writer *w)
{
	Gw__Resumed resumed = GW__RESUMED__INIT;
	uint8_t packed[64];
	struct frame f;

	resumed.realtime_ns = clock_ns(CLOCK_REALTIME);
	resumed.pid = w->offered.procs[0].msg->pid;
	frame_send(w->link.control, FRAME_RESUMED, packed, gw__resumed__pack(&resumed, packed), NULL);
	if (frame_recv_expect(w->link.control, FRAME_RELEASE, &f, RELEASE_MAX, LINK_TIMEOUT_MS, NULL) < 0)
		return;
	frame_free(&f);
	outcome_forget(w->image->mig_id, take_fd(&w->outcome_fd));
	frame_send(w->link.control, FRAME_RELEASE, NULL, 0, NULL);
}

/* The commit: from outcome_commit on the image is what there is of the process. */
static int take_over(struct image_writer *w, struct err *e)
{
	const uint64_t word = GO_RESUMED;
	int ret;

	image_look_at_files(w);
	ret = image_put_summary(w, e);
	if (ret == 0)
		ret = archive_seal(w->archive, e);
	if (ret == 0)
		ret = archive_publish(w->archive, e);
	if (ret == 0)
		ret = outcome_commit(w->outcome_fd, e);
	if (ret < 0)
		return ret;
	w->complete = true;
	if (send(w->link.go, &word, sizeof(word), MSG_NOSIGNAL) < 0)
		log_warning("event=resumed-untold text=\"%s\"", strerror(errno));
	tell_resumed(w);
	return 0;
}

static int attempt(struct image_writer *w, const Gw__Hello *hello, struct err *e)
{
	int ret = archive_restart(w->archive, e);

	if (ret == 0)
		ret = say_hello(w, e);
	if (ret == 0)
		ret = accept_others(w, e);
	if (ret == 0)
		ret = receive_offer(w, hello, e);
	if (ret == 0)
		ret = put_answers(w, 0, e);
	if (ret == 0)
		ret = link_expect(&w->link, w->offered.nprocs, e);
	if (ret == 0)
		ret = accept_others(w, e);
	if (ret == 0)
		ret = take_content(w, e);
	if (ret == 0 && !w->image->keep_running && w->outcome_fd < 0)
		ret = w->outcome_fd = outcome_begin(w->image->mig_id, e);
	if (ret >= 0)
		ret = frame_send(w->link.control, FRAME_PREPARED, NULL, 0, e);
	if (ret == 0)
		ret = take_rest(w, e);
	if (ret < 0)
		return ret;
	return w->image->keep_running ? let_go_on(w, e) : take_over(w, e);
}

/* What was sent and nobody read is taken out first: closing with unread bytes would be a reset, which proves nothing to the source. */
static void tell_aborted(struct image_writer *w, int code, const char *why)
{
	const uint64_t word = GO_ABORTED;
	char sink[4096];

	while (w->link.go >= 0 && recv(w->link.go, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		;
	if (w->link.go >= 0 && send(w->link.go, &word, sizeof(word), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("event=abort-untold");
	frame_send_error(w->link.control, code, why, NULL);
}

static void end_attempt(struct image_writer *w)
{
	for (size_t i = 0; w->streams && i < w->offered.nprocs; i++)
		free(w->streams[i].buffer);
	freep(&w->streams);
	freep(&w->go);
	image_forget_offer(w);
	link_close(&w->link);
	pace_calm(0);
	w->over = false;
	w->content_bytes = w->page_bytes = 0;
}

/* One attempt of the source. *e says why it has failed, 0 when it has not; with its own errors the source tries again or says so. */
static void serve(struct image_writer *w, struct err *e)
{
	cleanup_hello Gw__Hello *hello = NULL;
	int fd = accept_one(w, &hello, e), ret;

	if (fd < 0)
		return;
	if (hello->role != ROLE_CONTROL) {
		close(fd);
		return;
	}
	w->link = LINK_INIT;
	w->link.control = fd;
	*e = ERR_INIT;
	ret = attempt(w, hello, e);
	if (ret < 0 && !w->complete)
		tell_aborted(w, ret, e->message);
	end_attempt(w);
}

/* Whether the source's worker says that it is as it should be; its end says no. */
static bool parent_agrees(const struct image_writer *w)
{
	char word = 0;

	return recv(w->parent, &word, 1, 0) == 1;
}

/* The chain has one image more. Without the index the next one is whole, and that is all. */
static void lengthen(struct image_writer *w, struct image_taken *ret)
{
	struct err e = ERR_INIT;

	archive_chain_links(w->chain, &ret->links);
	memcpy(ret->whole, w->whole, sizeof(ret->whole));
	archive_chain_grow(w->archive);
	if (archive_chain_save(w->chain, w->wish->chain, &e) < 0) {
		log_warning("event=chain-index-failed error=\"%s\"", e.message);
		unlink(w->wish->chain);
	}
	if (!ret->links && w->wish->directory)
		archive_remove_older(w->wish->directory, w->chain);
}

static void finish(struct image_writer *w, struct err *e)
{
	struct image_word word = { .code = e->code };
	bool agreed = parent_agrees(w);
	int ret = w->complete ? e->code : e->code ? e->code : err_set(e, -ECANCELED, "there was nothing to write");

	if (ret == 0 && w->image->keep_running)
		ret = agreed ? archive_publish(w->archive, e) : -ECONNRESET;
	word.code = ret;
	word.taken = (struct image_taken){ archive_file_bytes(w->archive), archive_raw_bytes(w->archive), 0, "" };
	if (ret == 0 && w->chain)
		lengthen(w, &word.taken);
	snprintf(word.message, sizeof(word.message), "%s", e->message);
	/* One that is whole and not committed to: it could not be told apart from one that is. */
	archive_discard(w->archive, !w->complete || ret < 0);
	if (w->outcome_fd >= 0 && !w->complete)
		outcome_forget(w->image->mig_id, take_fd(&w->outcome_fd));
	(void)!send(w->parent, &word, sizeof(word), MSG_NOSIGNAL);
}

void image_write(struct image_writer *w)
{
	struct err e = ERR_INIT;

	prctl(PR_SET_NAME, "godwit-image");
	while (!w->complete) {
		struct pollfd p[2] = { { w->listener, POLLIN, 0 }, { w->parent, POLLIN | POLLHUP, 0 } };

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		if (p[0].revents)
			serve(w, &e);
	}
	close_fdp(&w->listener); /* there is no further attempt */
	finish(w, &e);
	_exit(0);
}
