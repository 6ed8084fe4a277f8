/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_go.c - the go message, and learning what became of it
 *
 * Theory of operation: before the message leaves, the state word in the scratch goes from FROZEN to IN_DOUBT; if the agent has already given the process
 * back to its program (because it took this worker for dead), the exchange fails and nothing is sent. The destination answers eight bytes on the same
 * connection when the process runs there, or eight others when it never will. The connection's orderly end without them means the latter, because the destination's
 * end is held by all who could still let it run. Any error, a reset too, means that nobody knows: then the destination's daemon is asked until it answers, and
 * the process stands still. When this worker dies meanwhile, the agent does the same (agent/doubt.c).
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "migrate/source.h"
#include "migrate/timeline.h"
#include "wire/frame.h"

#define ASK_TIMEOUT_MS 3000
#define WHY_MS 1000

static int release_locks(struct source *s, struct err *e)
{
	struct batch *b = s->parked[0].batch;

	batch_reset(b);
	fdtable_plan_release_locks(&s->unit.fds, b);
	if (!batch_count(b))
		return 0;
	s->locks_released = true;
	return batch_run(b, e);
}

static int encode(struct source *s, Gw__Go *go, struct bytes_list *threads, uint8_t *part[4], struct err *e)
{
	Gw__Thread **msgs = calloc(s->nparked, sizeof(*msgs));
	size_t len[4] = { 0 };
	int ret;

	if (!msgs)
		return err_sys(e, ENOMEM, "the go message");
	for (size_t i = 0; i < s->nparked; i++)
		msgs[i] = s->parked[i].msg;
	/* The boot id of the clocks is known from the offer. */
	ret = unit_encode_threads(msgs, s->nparked, threads, e);
	free(msgs);
	if (ret >= 0)
		ret = process_encode(s->process, &part[0], &len[0]);
	if (ret >= 0)
		ret = mm_encode(&s->unit.mm, &part[1], &len[1], e);
	if (ret >= 0)
		ret = fdtable_encode(&s->unit.fds, &part[2], &len[2], e);
	if (ret >= 0 && s->layout_changed)
		ret = vma_list_encode(&s->frozen_vmas, &part[3], &len[3], e);
	go->bulk = s->bulk_in_freeze;
	go->process = (ProtobufCBinaryData){ len[0], part[0] };
	go->mm = (ProtobufCBinaryData){ len[1], part[1] };
	go->fds = (ProtobufCBinaryData){ len[2], part[2] };
	go->vmas = (ProtobufCBinaryData){ len[3], part[3] };
	go->n_threads = threads->n;
	go->threads = threads->v;
	go->runs = (ProtobufCBinaryData){ s->go_runs.n * sizeof(struct page_run), (uint8_t *)s->go_runs.v };
	go->stale = (ProtobufCBinaryData){ s->stale.n * sizeof(struct page_run), (uint8_t *)s->stale.v };
	return ret;
}

static int become_in_doubt(struct source *s, struct err *e)
{
	struct scratch_header *h = scratch_header(&s->agent.scratch);
	uint32_t expected = STATE_FROZEN;

	if (!__atomic_compare_exchange_n(&h->state, &expected, STATE_IN_DOUBT, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return err_set(e, -EAGAIN, "the agent has given process %d back to its program", s->unit.pid);
	return 0;
}

int source_go(void *context, struct err *e)
{
	struct source *s = context;
	Gw__Go go = GW__GO__INIT;
	struct bytes_list threads = { 0 };
	uint8_t *part[4] = { NULL }, *packed = NULL;
	int ret = encode(s, &go, &threads, part, e);

	timeline_mark("encoded");
	if (ret >= 0) {
		packed = malloc(gw__go__get_packed_size(&go));
		ret = packed ? release_locks(s, e) : err_sys(e, ENOMEM, "the go message");
	}
	/* All that the agent needs to go on alone comes before the message. */
	if (ret >= 0) {
		link_make_patient(&s->link);
		pages_hand_over(&s->pages, s->push);
		if (!s->post_copy)
			scratch_header(&s->agent.scratch)->nranges = 0;
		ret = s->news_frame ? frame_send(s->link.fd[ROLE_GO], FRAME_FILES, s->news_frame, s->news_frame_len, e) : 0;
	}
	if (ret >= 0)
		ret = become_in_doubt(s, e);
	if (ret >= 0) {
		uint32_t len = (uint32_t)gw__go__pack(&go, packed);
		const struct iovec iov[3] = { { &len, sizeof(len) }, { packed, len }, { s->go_pages, s->go_pages_len } };

		/* From here on the step "commit" finds out who owns the process, whatever frame_sendv says. */
		if (frame_sendv(s->link.fd[ROLE_GO], FRAME_GO, 0, iov, 3, e) < 0)
			log_warning("event=go-failed text=\"%s\"", e ? e->message : "");
		timeline_mark("go sent");
		if (!s->post_copy && !s->bulk_in_freeze && pages_barrier(&s->pages, NULL) < 0)
			log_warning("event=no-barrier pid=%d", s->unit.pid);
	}
	free(packed);
	bytes_list_free(&threads);
	for (size_t i = 0; i < ARRAY_SIZE(part); i++)
		free(part[i]);
	return ret < 0 ? ret : 0;
}

/* 1: resumed there; 0: certainly not; negative: nobody knows. */
static int wait_resumed(struct source *s, struct err *e)
{
	uint64_t word;
	int fd = s->link.fd[ROLE_GO];

	for (;;) {
		struct pollfd p = { fd, POLLIN, 0 };
		/* Peeked, so that the agent finds it when this worker dies before it has told the agent. */
		ssize_t n = recv(fd, &word, sizeof(word), MSG_PEEK | MSG_DONTWAIT);

		if (n == (ssize_t)sizeof(word))
			return word == GO_RESUMED ? 1 : word == GO_ABORTED ? 0 : err_set(e, -EPROTO, "nonsense from the destination");
		if (n == 0)
			return 0;
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			scratch_header(&s->agent.scratch)->go_broken = 1;
			return err_sys(e, errno, "waiting for the destination");
		}
		poll(&p, 1, -1); /* not spinning: the resumed program may want this CPU */
	}
}

static void fill_ask(struct source *s, Gw__Hello *ret)
{
	hello_fill(ret);
	ret->role = ROLE_ASK;
	ret->node_name = (char *)(uintptr_t)s->request->self_name;
	ret->mig_id = (ProtobufCBinaryData){ HELLO_MIG_ID_BYTES, s->mig_id };
}

int source_prepare_ask(struct source *s, struct err *e)
{
	struct scratch_header *h = scratch_header(&s->agent.scratch);
	uint8_t frame_header[FRAME_HEADER_BYTES], *to;
	cleanup_free void *payload = NULL;
	uint64_t address;
	Gw__Hello self;
	size_t len;

	fill_ask(s, &self);
	payload = hello_encode(&self, &len);
	to = payload ? scratch_alloc(&s->agent.scratch, sizeof(frame_header) + len, &address) : NULL;
	if (!to)
		return err_sys(e, ENOMEM, "the question after the outcome");
	frame_header_encode(frame_header, FRAME_HELLO, 0, (uint32_t)len);
	memcpy(to, frame_header, sizeof(frame_header));
	memcpy(to + sizeof(frame_header), payload, len);
	_Static_assert(sizeof(h->ask_address) == sizeof(s->request->dest), "struct sockaddr_in");
	memcpy(h->ask_address, &s->request->dest, sizeof(h->ask_address));
	h->ask = address;
	h->ask_len = (uint32_t)(sizeof(frame_header) + len);
	return 0;
}

static void back_out(struct source *s)
{
	__atomic_store_n(&scratch_header(&s->agent.scratch)->state, STATE_ABORTED, __ATOMIC_SEQ_CST);
	s->backed_out = true;
	source_thaw(s);
	pages_untrack(&s->pages);
	agent_remove(&s->agent, s->unit.pid);
}

/*
 * Asks the destination's daemon until it knows. A host that knows nothing of the migration has lost its /run since it said PREPARED: it was
 * booted anew, and nothing that it had received runs any more.
 */
static int ask_until_known(struct source *s)
{
	Gw__Hello self;

	fill_ask(s, &self);
	for (;;) {
		struct pollfd process = { s->unit.pidfd, POLLIN, 0 };
		char boot_id[OUTCOME_BOOT_ID_MAX];
		enum outcome outcome = OUTCOME_PENDING;

		if (outcome_ask(&s->request->dest, &self, ASK_TIMEOUT_MS, &outcome, boot_id, NULL) == 0 && outcome != OUTCOME_PENDING) {
			log_info("event=doubt-resolved pid=%d outcome=%s", s->unit.pid, outcome_name(outcome));
			return outcome == OUTCOME_COMMITTED;
		}
		if (s->request->progress)
			s->request->progress(s->report, s->request->progress_arg);
		if (poll(&process, 1, 300) > 0)
			return 0; /* somebody has killed it meanwhile */
	}
}

static int decide(struct source *s)
{
	struct err cause = ERR_INIT;
	int who = wait_resumed(s, &cause);

	if (who < 0) {
		log_error("event=in-doubt pid=%d text=\"%s\"", s->unit.pid, cause.message);
		s->report->outcome = "in-doubt";
		if (s->request->progress)
			s->request->progress(s->report, s->request->progress_arg);
		who = ask_until_known(s);
		s->report->outcome = NULL;
	}
	return who;
}

static void take_resumed(struct source *s)
{
	struct frame f;
	Gw__Resumed *resumed;
	uint64_t now = clock_ns(CLOCK_REALTIME), there = now;

	if (frame_recv_expect(s->link.fd[ROLE_CONTROL], FRAME_RESUMED, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, NULL) == 0) {
		resumed = gw__resumed__unpack(NULL, f.len, f.payload);
		if (resumed) {
			there = resumed->realtime_ns;
			s->report->new_pid = resumed->pid;
			gw__resumed__free_unpacked(resumed, NULL);
		}
		frame_free(&f);
	}
	/* The other host's clock counts as far as it is plausible. */
	s->report->freeze_us = (there > s->stopped_ns && there <= now ? there - s->stopped_ns : now - s->stopped_ns) / 1000;
}

/* -EAGAIN when the destination says that another attempt may do better (dest_files.c), otherwise -ECONNABORTED. */
static int say_why(struct source *s, struct err *e)
{
	struct err why = ERR_INIT;
	struct frame f;
	int code = frame_recv_expect(s->link.fd[ROLE_CONTROL], FRAME_RESUMED, &f, FRAME_HELLO_MAX, WHY_MS, &why);

	if (code == 0)
		frame_free(&f);
	return err_set(e, code == -EAGAIN ? -EAGAIN : -ECONNABORTED, "%s ended the migration before the process ran there (%s); process %d goes on here",
		       s->request->dest_name, code ? why.message : "it does not say why", s->unit.pid);
}

int source_commit(void *context, struct err *e)
{
	struct source *s = context;
	struct scratch_header *h = scratch_header(&s->agent.scratch);
	uint64_t word;
	int who = decide(s);

	timeline_mark("resumed there");
	if (who == 0) {
		back_out(s);
		return say_why(s, e);
	}
	__atomic_store_n(&h->state, STATE_COMMITTED, __ATOMIC_SEQ_CST);
	task_command(&s->agent.task, COMMAND_SERVE);
	task_wake(&s->agent.task, NULL);
	pace_calm(0);
	pace_cool();
	if (recv(s->link.fd[ROLE_GO], &word, sizeof(word), MSG_DONTWAIT) < 0)
		log_debug("event=resumed-known-by-asking");
	fdtable_free(&s->unit.fds);
	/* The destination need not remember the outcome any longer. */
	frame_send(s->link.fd[ROLE_CONTROL], FRAME_RELEASE, NULL, 0, NULL);
	take_resumed(s);
	source_mark_left(s);
	return 0;
}
