/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image_read.c - the reader: sends a destination what an image has recorded; see checkpoint.h
 *
 * Theory of operation: the image is read twice. The first time nothing is done but to see that it is whole, and what it says of itself. The second time its records are
 * sent in their order, and what a destination answers is waited for where a source would wait for it. The offer is changed in what is true only now: whose unit it is, which
 * clocks it goes by, and how files are to be known again. What a destination lacks of files can only be sent if the image has it.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "image.pb-c.h"
#include "migrate/checkpoint.h"
#include "migrate/decode.h"
#include "migrate/image_read.h"
#include "migrate/link.h"
#include "migrate/outcome.h"
#include "wire/archive_chain.h"
#include "wire/frame.h"

#define ANSWER_MS 60000
#define PREPARED_MS 120000
#define RESUMED_MS 120000
#define RELEASE_MS 10000
#define ASK_MS 3000
#define ASK_ONLY_MS 2000
#define ASKS_MAX 20
#define ASK_PAUSE_US 300000

struct reader {
	const struct image_restore *r;
	struct image_restored *ret;
	struct refusals *refusals;
	struct archive_reader *archive;
	struct image_facts facts;
	uint8_t mig_id[HELLO_MIG_ID_BYTES];
	struct link link;
	Gw__Hello *peer;
	struct fsfile_answer *answers; /* of the destination */
	uint32_t nanswers, asked_from; /* what has been asked for last */
	size_t nprocs;
	bool prepared, over, gone;     /* gone: the go message has been sent */
};

/* --- talking to the destination --- */

static int connect_one(struct reader *x, enum migrate_role role, uint32_t process, struct err *e)
{
	struct link_peer peer = { &x->r->dest, x->mig_id, x->r->self_name, false };

	return link_connect(&x->link, role, process, &peer, e);
}

static int begin(struct reader *x, struct err *e)
{
	cleanup_frame struct frame f = { 0 };
	int ret = connect_one(x, ROLE_CONTROL, 0, e);

	if (ret == 0)
		ret = frame_recv_expect(x->link.control, FRAME_HELLO, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, e);
	if (ret == 0)
		ret = hello_decode(f.payload, f.len, &x->peer, e);
	if (ret == 0 && !(hello_common_features(x->peer) & FEATURE_IMAGES))
		ret = err_set(e, -EPROTONOSUPPORT, "its Godwit is older, and cannot restore images");
	if (ret < 0)
		return err_wrap(e, "%s", x->r->dest_name);
	snprintf(x->ret->node, sizeof(x->ret->node), "%s", x->peer->node_name);
	return connect_one(x, ROLE_GO, 0, e);
}

static int connect_pages(struct reader *x, struct err *e)
{
	int ret = link_expect(&x->link, x->nprocs, e);

	for (uint32_t i = 0; i < x->nprocs && ret == 0; i++)
		ret = connect_one(x, ROLE_FAULT, i, e);
	for (uint32_t i = 0; i < x->nprocs && ret == 0; i++)
		ret = connect_one(x, ROLE_BULK, i, e);
	return ret;
}

static int expect(struct reader *x, enum frame_type type, int timeout_ms, struct err *e)
{
	struct frame f;
	int ret = frame_recv_expect(x->link.control, type, &f, FRAME_HELLO_MAX, timeout_ms, e);

	if (ret == 0)
		frame_free(&f);
	return ret;
}

static int send_bytes(int fd, const uint8_t *data, size_t len, struct err *e)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, -errno, "sending pages");
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

/* --- files --- */

static int take_refuse(struct reader *x, const struct frame *f, struct err *e)
{
	struct path_list from_home;
	int ret = refuse_decode(f->payload, f->len, x->refusals, &from_home, e);

	path_list_free(&from_home);
	return ret < 0 ? ret : err_set(e, -EPERM, "%s cannot take it", x->r->dest_name);
}

/* The answers about n files more than before. */
static int take_accept(struct reader *x, uint32_t n, struct err *e)
{
	cleanup_frame struct frame f = { 0 };
	struct fsfile_answer *more = NULL, *grown;
	int ret = frame_recv(x->link.control, &f, FRAME_PAYLOAD_MAX, ANSWER_MS, e);

	if (ret < 0)
		return ret;
	if (f.type == FRAME_REFUSE)
		return take_refuse(x, &f, e);
	if (f.type == FRAME_ERROR)
		return frame_error_decode(&f, e);
	if (f.type != FRAME_ACCEPT)
		return err_set(e, -EPROTO, "%s instead of an answer", frame_type_name(f.type));
	ret = accept_decode(f.payload, f.len, n, &more, e);
	if (ret < 0)
		return ret;
	grown = realloc(x->answers, (x->nanswers + n + 1) * sizeof(*grown));
	if (grown) {
		memcpy(grown + x->nanswers, more, n * sizeof(*more));
		x->answers = grown;
		x->asked_from = x->nanswers;
		x->nanswers += n;
	}
	free(more);
	return grown ? 0 : err_sys(e, -ENOMEM, "answers");
}

/*
 * What the destination wants must be what the image has. A file that is mapped to be shared is different in the image's pages, too, depending on whether they were to make
 * it anew: then what was said must be said again.
 */
static int compare_answers(struct reader *x, const struct archive_record *record, struct err *e)
{
	struct fsfile_answer *then = NULL;
	uint32_t n = x->nanswers - x->asked_from;
	int ret = accept_decode(record->data, record->len, n, &then, e);

	for (uint32_t i = 0; i < n && ret == 0; i++) {
		const struct fsfile_answer *now = &x->answers[x->asked_from + i];
		const Gw__ImageFile *f = image_facts_file(&x->facts, x->asked_from + i);
		const char *path = f ? f->path : "";

		if (fsfile_answer_lacks(now) && !fsfile_answer_lacks(&then[i]))
			refusals_add(x->refusals, "file.missing", "it is not there, or has changed since the image was made, and the image does not contain it",
				     "put back the file that it was", "file %s", path);
		else if (!fsfile_answer_lacks(now) && fsfile_answer_lacks(&then[i]) && image_facts_is_shared(&x->facts, x->asked_from + i))
			refusals_add(x->refusals, "file.present", "it is there, and so it is in the image, with memory that is mapped from it", "move it away, or remove it", "file %s", path);
	}
	free(then);
	if (ret == 0 && x->refusals->n)
		ret = err_set(e, -EPERM, "files are not as they were");
	return ret;
}

static int send_content(struct reader *x, const struct archive_record *record, struct err *e)
{
	Gw__Content *c = gw__content__unpack(NULL, record->len, record->data);
	bool last, wanted;
	int ret;

	if (!c)
		return err_set(e, -EBADMSG, "contents that cannot be read");
	last = c->last;
	wanted = last || c->common || (c->file < x->nanswers && fsfile_answer_lacks(&x->answers[c->file]));
	gw__content__free_unpacked(c, NULL);
	ret = wanted ? frame_send(x->link.control, FRAME_CONTENT, record->data, record->len, e) : 0;
	if (ret < 0 || !last)
		return ret;
	if (x->prepared)
		return 0;
	x->prepared = true;
	return expect(x, FRAME_PREPARED, PREPARED_MS, e);
}

/* --- records --- */

static int send_offer(struct reader *x, const struct archive_record *record, struct err *e)
{
	const struct image_now now = { x->r->self_name, x->ret->node, x->r->accept_changed, x->r->unit, x->r->moves, x->r->reason };
	cleanup_free uint8_t *data = NULL;
	uint32_t nfiles = 0;
	size_t len;
	int ret = image_renew_offer(&x->facts, &now, record->data, record->len, &data, &len, &nfiles, &x->nprocs, e);

	if (ret == 0)
		ret = frame_send(x->link.control, FRAME_OFFER, data, len, e);
	return ret < 0 ? ret : take_accept(x, nfiles, e);
}

static int send_files(struct reader *x, const struct archive_record *record, struct err *e)
{
	int fd = record->stream == ARCHIVE_GO ? x->link.go : x->link.control;
	cleanup_free uint8_t *data = NULL;
	uint32_t added = 0;
	size_t len;
	int ret = image_renew_files(&x->facts, x->nanswers, record->data, record->len, &data, &len, &added, e);

	if (ret == 0)
		ret = frame_send(fd, FRAME_FILES, data, len, e);
	return ret < 0 || x->over ? ret : take_accept(x, added, e);
}

static int send_round(struct reader *x, const struct archive_record *record, struct err *e)
{
	Gw__Round *round = gw__round__unpack(NULL, record->len, record->data);
	bool answered = !x->over;
	int ret;

	if (!round)
		return err_set(e, -EBADMSG, "a round that cannot be read");
	x->over |= round->over;
	gw__round__free_unpacked(round, NULL);
	ret = frame_send(x->link.control, FRAME_ROUND, record->data, record->len, e);
	return ret < 0 || !answered ? ret : expect(x, FRAME_ROUND, ANSWER_MS, e);
}

static int send_frame(struct reader *x, const struct archive_record *record, struct err *e)
{
	if (record->stream == ARCHIVE_CONTROL && record->type == FRAME_OFFER && !x->nprocs)
		return send_offer(x, record, e);
	if (!x->nprocs || x->gone)
		return err_set(e, -EBADMSG, "frames of the image are out of order");
	if (record->type == FRAME_FILES)
		return send_files(x, record, e);
	if (record->stream == ARCHIVE_GO) {
		x->gone = record->type == FRAME_GO;
		return frame_send(x->link.go, (uint16_t)record->type, record->data, record->len, e);
	}
	if (record->type == FRAME_CONTENT)
		return send_content(x, record, e);
	if (record->type == FRAME_ROUND && x->prepared)
		return send_round(x, record, e);
	return err_set(e, -EBADMSG, "the image has a frame that does not belong there (%s)", frame_type_name((uint16_t)record->type));
}

static int send_record(struct reader *x, const struct archive_record *record, struct err *e)
{
	int ret;

	switch (record->kind) {
	case ARCHIVE_HEAD:
	case ARCHIVE_SUMMARY:
		return 0;
	case ARCHIVE_FRAME:
		return send_frame(x, record, e);
	case ARCHIVE_ANSWERS:
		ret = x->nprocs ? compare_answers(x, record, e) : err_set(e, -EBADMSG, "answers of the image are out of order");
		if (ret == 0 && !x->link.npages)
			ret = connect_pages(x, e);
		/* It waits for them, and says then what it is told. */
		return ret == 0 && x->r->ask_only ? err_set(e, -ECANCELED, "it was only asked") : ret;
	case ARCHIVE_PAGES:
		if (record->stream >= x->link.npages || !x->prepared || x->gone)
			return err_set(e, -EBADMSG, "pages of the image are out of order");
		return send_bytes(x->link.pages[record->stream].bulk, record->data, record->len, e);
	default:
		return err_set(e, -EBADMSG, "a record of an unknown kind");
	}
}

/* What the destination has said meanwhile is more than that it has gone. */
static int say_why(struct reader *x, int code, struct err *e)
{
	struct err why = ERR_INIT;
	struct frame f;
	struct pollfd p = { x->link.control, POLLIN, 0 };
	int said;

	if (x->link.control < 0 || poll(&p, 1, 1000) <= 0)
		return code;
	said = frame_recv(x->link.control, &f, FRAME_HELLO_MAX, 1000, NULL);
	if (said < 0)
		return code;
	if (f.type == FRAME_ERROR) {
		frame_error_decode(&f, &why);
		*e = why;
		code = err_wrap(e, "%s", x->r->dest_name);
	}
	frame_free(&f);
	return code;
}

static int send_all(struct reader *x, struct err *e)
{
	struct archive_record record;
	int ret;

	while ((ret = archive_next(x->archive, true, &record, e)) > 0) {
		if (!x->gone && x->r->cancelled && x->r->cancelled(x->r->arg))
			return err_set(e, -ECANCELED, "cancelled");
		ret = send_record(x, &record, e);
		if (ret == -EPIPE || ret == -ECONNRESET)
			ret = say_why(x, ret, e);
		if (ret < 0)
			return ret;
	}
	return ret < 0 || x->gone ? ret : err_set(e, -EBADMSG, "the image has no go message");
}

/* --- the end --- */

/* 0: it runs. */
static int ask(struct reader *x, struct err *e)
{
	Gw__Hello self;

	hello_fill(&self);
	self.role = ROLE_ASK;
	self.node_name = (char *)(uintptr_t)x->r->self_name;
	self.mig_id = (ProtobufCBinaryData){ sizeof(x->mig_id), x->mig_id };
	for (int i = 0; i < ASKS_MAX; i++) {
		char boot_id[OUTCOME_BOOT_ID_MAX];
		enum outcome outcome = OUTCOME_PENDING;

		if (outcome_ask(&x->r->dest, &self, ASK_MS, &outcome, boot_id, NULL) == 0 && outcome != OUTCOME_PENDING)
			return outcome == OUTCOME_COMMITTED ? 0 : err_set(e, -ECONNABORTED, "%s gave up", x->r->dest_name);
		usleep(ASK_PAUSE_US);
	}
	x->ret->in_doubt = true;
	return err_set(e, -ETIMEDOUT, "%s does not say whether it runs there: `godwit ps` there does", x->r->dest_name);
}

static int wait_resumed(struct reader *x, struct err *e)
{
	struct pollfd p = { x->link.go, POLLIN, 0 };
	uint64_t word = 0;
	ssize_t n = poll(&p, 1, RESUMED_MS) > 0 ? recv(x->link.go, &word, sizeof(word), MSG_WAITALL) : -1;

	if (n == (ssize_t)sizeof(word) && word == GO_RESUMED)
		return 0;
	if (n == 0 || (n == (ssize_t)sizeof(word) && word == GO_ABORTED)) {
		err_set(e, -ECONNABORTED, "%s gave up", x->r->dest_name);
		return say_why(x, -ECONNABORTED, e);
	}
	return ask(x, e);
}

static void take_resumed(struct reader *x)
{
	Gw__Resumed *resumed;
	struct frame f;

	if (frame_recv_expect(x->link.control, FRAME_RESUMED, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, NULL) < 0)
		return;
	if (resumed_decode(f.payload, f.len, &resumed, NULL) == 0) {
		x->ret->pid = resumed->pid;
		gw__resumed__free_unpacked(resumed, NULL);
	}
	frame_free(&f);
	if (x->r->unit)
		snprintf(x->ret->unit, sizeof(x->ret->unit), "%s", x->r->unit);
	else
		snprintf(x->ret->unit, sizeof(x->ret->unit), "%s:%d", x->ret->node, x->ret->pid);
	frame_send(x->link.control, FRAME_RELEASE, NULL, 0, NULL);
	if (frame_recv_expect(x->link.control, FRAME_RELEASE, &f, FRAME_HELLO_MAX, RELEASE_MS, NULL) == 0)
		frame_free(&f);
}

static int restore(struct reader *x, struct err *e)
{
	int ret = image_facts_read(x->archive, &x->facts, e);

	if (ret == 0)
		ret = archive_check_links(x->archive, true, e);
	if (ret == 0)
		ret = archive_rewind(x->archive, e);
	if (ret == 0)
		ret = image_new_id(x->mig_id, e);
	if (ret == 0)
		ret = begin(x, e);
	if (ret == 0)
		ret = send_all(x, e);
	if (ret < 0 && !x->gone) {
		if (x->link.control >= 0)
			frame_send_error(x->link.control, ret, e->message, NULL);
		if (x->r->ask_only && x->link.control >= 0) /* it shall read that before the others end */
			poll(&(struct pollfd){ x->link.control, POLLRDHUP, 0 }, 1, ASK_ONLY_MS);
		return ret;
	}
	/* Whatever sending the go message said: only the destination knows. */
	if (ret < 0)
		*e = ERR_INIT;
	ret = wait_resumed(x, e);
	if (ret == 0)
		take_resumed(x);
	return ret;
}

int migrate_restore(const struct image_restore *r, struct image_restored *ret, struct refusals *refusals, struct err *e)
{
	struct reader x = { .r = r, .ret = ret, .refusals = refusals, .link = LINK_INIT };
	char path[PATH_MAX];
	int code;

	*ret = (struct image_restored){ 0 };
	code = archive_newest(r->path, path, e);
	if (code == 0)
		code = archive_open(path, -1, r->key, &x.archive, e);
	if (code == 0)
		code = restore(&x, e);
	link_close(&x.link);
	image_facts_free(&x.facts);
	free(x.answers);
	if (x.peer)
		hello_free(&x.peer);
	archive_close(x.archive);
	return code;
}
