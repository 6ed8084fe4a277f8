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
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "image/mqueue.h"
#include "image/seccomp.h"
#include "migrate/checkpoint.h"
#include "migrate/late.h"
#include "migrate/decode.h"
#include "migrate/outcome.h"
#include "migrate/pace.h"
#include "migrate/source.h"
#include "migrate/timeline.h"
#include "migrate/unit_page.h"
#include "wire/bridge.h"
#include "wire/conn.h"
#include "wire/frame.h"
#include "wire/tls.h"

#define ASK_TIMEOUT_MS 3000
#define WHY_MS 1000

/* Of a unit that is certain to go on here they need not be given up for a moment. */
static int release_locks(struct source *s, struct err *e)
{
	int ret = 0;

	if (s->request->image && s->request->image->keep_running)
		return 0;
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		struct source_process *p = &s->procs[i];
		struct batch *b = p->parked[0].batch;

		batch_reset(b);
		fdtable_plan_release_locks(&s->unit.fds, (uint32_t)i, b);
		if (!batch_count(b))
			continue;
		p->locks_released = true;
		ret = batch_run(b, e);
	}
	return ret;
}

/* One process; what it allocates hangs on *go and `threads`, also after a failure. */
static int encode_process(struct source_process *p, Gw__GoProcess *go, struct bytes_list *threads, struct err *e)
{
	cleanup_free Gw__Thread **msgs = calloc(p->nparked, sizeof(*msgs));
	int ret;

	if (!msgs)
		return err_sys(e, ENOMEM, "the go message");
	for (size_t i = 0; i < p->nparked; i++) {
		msgs[i] = p->parked[i].msg;
		seccomp_make_alike(msgs[0], msgs[i]);
	}
	/* The boot id of the clocks is known from the offer. */
	ret = unit_encode_threads(msgs, p->nparked, threads, e);
	if (ret >= 0)
		ret = process_encode(p->process, &go->process.data, &go->process.len);
	if (ret >= 0)
		ret = mm_encode(&p->u->mm, &go->mm.data, &go->mm.len, e);
	if (ret >= 0 && p->layout_changed)
		ret = vma_list_encode(&p->frozen_vmas, &go->vmas.data, &go->vmas.len, e);
	go->bulk = p->bulk_in_freeze;
	go->n_threads = threads->n;
	go->threads = threads->v;
	go->runs = (ProtobufCBinaryData){ p->go_runs.n * sizeof(struct page_run), (uint8_t *)p->go_runs.v };
	go->deltas = (ProtobufCBinaryData){ p->ahead.deltas_len, (uint8_t *)(uintptr_t)p->ahead.deltas };
	go->stale = (ProtobufCBinaryData){ p->stale.n * sizeof(struct page_run), (uint8_t *)p->stale.v };
	return ret;
}

/* The go message while it is made. */
struct go_out {
	Gw__Go msg;
	Gw__GoProcess *procs, **list;
	struct bytes_list *threads;
	uint8_t *packed;
	uint32_t len;
	struct fd_queues queues; /* the unit's memory */
	struct iovec *pieces;
};

static int encode(struct source *s, struct go_out *out, struct err *e)
{
	int ret = 0;

	*out = (struct go_out){ GW__GO__INIT, calloc(s->nprocs, sizeof(*out->procs)), calloc(s->nprocs, sizeof(*out->list)),
				calloc(s->nprocs, sizeof(*out->threads)), NULL, 0, { 0 }, NULL };
	if (!out->procs || !out->list || !out->threads)
		return err_sys(e, ENOMEM, "the go message");
	for (size_t i = 0; i < s->nprocs && ret >= 0; i++) {
		gw__go_process__init(&out->procs[i]);
		out->list[i] = &out->procs[i];
		ret = encode_process(&s->procs[i], &out->procs[i], &out->threads[i], e);
	}
	out->msg.processes = out->list;
	out->msg.n_processes = s->nprocs;
	out->msg.stopped_ns = s->stopped_ns;
	out->msg.home_handled = s->home.handled;
	out->msg.home_sent = s->home.sent;
	if (s->unit.ns && s->unit.ns->n_nets)
		out->msg.connections = s->unit.ns->nets[0]->connections;
	source_net_go(s, &out->msg);
	if (ret >= 0)
		ret = fdtable_encode_update(&s->unit.fds, &out->msg.fds.data, &out->msg.fds.len, &out->queues, e);
	if (ret < 0)
		return ret;
	out->packed = malloc(gw__go__get_packed_size(&out->msg));
	out->pieces = malloc((3 + out->queues.n) * sizeof(*out->pieces));
	if (!out->packed || !out->pieces)
		return err_sys(e, ENOMEM, "the go message");
	out->len = (uint32_t)gw__go__pack(&out->msg, out->packed);
	return 0;
}

static void free_encoded(struct source *s, struct go_out *out)
{
	for (size_t i = 0; out->procs && out->threads && i < s->nprocs; i++) {
		free(out->procs[i].process.data);
		free(out->procs[i].mm.data);
		free(out->procs[i].vmas.data);
		bytes_list_free(&out->threads[i]);
	}
	free(out->msg.fds.data);
	source_net_gone(&out->msg);
	free(out->procs);
	free(out->list);
	free(out->threads);
	free(out->packed);
	free(out->queues.v);
	free(out->pieces);
}

static int become_in_doubt(struct source *s, struct err *e)
{
	if (!unit_step(source_root(s), HANDOVER_GO_LEAVES))
		return err_set(e, -EAGAIN, "the agent has given process %d back to its program", s->request->pid);
	return 0;
}

/* All that the agents need to go on alone. */
static void hand_over(struct source *s)
{
	bool limited = false; /* source_choose.c has limited how long the freeze may wait for a connection */

	scratch_unit(&source_root(s)->scratch)->serving = (uint32_t)s->nprocs;
	for (size_t i = 0; i < s->nprocs; i++) {
		pages_hand_over(&s->procs[i].pages, s->push);
		limited |= s->procs[i].bulk_in_freeze;
		if (!s->post_copy)
			scratch_header(&s->procs[i].agent.scratch)->nranges = 0;
	}
	if (limited)
		link_make_patient(&s->link);
}

/* From here on the step "commit" finds out who owns the unit, whatever sending it says. */
static void send_go(struct source *s, const struct go_out *out, struct err *e)
{
	struct iovec *iov = out->pieces;

	iov[0] = (struct iovec){ (void *)(uintptr_t)&out->len, sizeof(out->len) };
	iov[1] = (struct iovec){ out->packed, out->len };
	iov[2] = (struct iovec){ s->go_pages, s->go_pages_len };
	if (out->queues.n)
		memcpy(iov + 3, out->queues.v, out->queues.n * sizeof(*iov));
	if (frame_sendv(s->link.go, FRAME_GO, 0, iov, 3 + out->queues.n, e) < 0)
		log_warning("event=go-failed text=\"%s\"", e ? e->message : "");
	timeline_mark("go sent");
	for (size_t i = 0; i < s->nprocs && !s->post_copy; i++)
		if (!s->procs[i].bulk_in_freeze && pages_barrier(&s->procs[i].pages, NULL) < 0)
			log_warning("event=no-barrier pid=%d", s->unit.procs[i].pid);
	/* What is held for connections is to be given on at once. */
	if (!s->net.move)
		pace_give_way();
}

int source_go(void *context, struct err *e)
{
	struct source *s = context;
	struct go_out out;
	int ret = encode(s, &out, e);

	timeline_mark("encoded");
	if (ret >= 0)
		ret = release_locks(s, e);
	if (ret >= 0) {
		hand_over(s);
		ret = s->news_frame ? frame_send(s->link.go, FRAME_FILES, s->news_frame, s->news_frame_len, e) : 0;
	}
	if (ret >= 0)
		ret = become_in_doubt(s, e);
	if (ret >= 0)
		send_go(s, &out, e);
	free_encoded(s, &out);
	return ret < 0 ? ret : 0;
}

/* What is heard on the go connection. */
static enum handover_news wait_resumed(struct source *s, struct err *e)
{
	uint64_t word;
	int fd = s->link.go;

	for (;;) {
		struct pollfd p = { fd, POLLIN, 0 };
		/* Peeked, so that the agent finds it when this worker dies before it has told the agent. */
		ssize_t n = recv(fd, &word, sizeof(word), MSG_PEEK | MSG_DONTWAIT);

		if (n == (ssize_t)sizeof(word) && (word == GO_RESUMED || word == GO_ABORTED))
			return word == GO_RESUMED ? NEWS_WORD_RESUMED : NEWS_WORD_ABORTED;
		/* An end after an error reads like any other, once somebody has taken the error (an agent, or this worker). */
		if (n == 0 && conn_ended_orderly(fd))
			return NEWS_ORDERLY_END;
		if (n == (ssize_t)sizeof(word))
			err_set(e, -EPROTO, "nonsense from the destination");
		else if (n == 0)
			err_set(e, -ECONNRESET, "the connection to the destination has broken");
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			err_sys(e, errno, "waiting for the destination");
		if (e->code < 0)
			return NEWS_BROKEN;
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

/* The godwitd that keeps the record of the outcome. */
static const struct sockaddr_in *ask_whom(const struct source *s)
{
	return s->request->image ? &s->request->image->ask : &s->request->dest;
}

/* Of the network that the destination was reached from, whatever namespace the unit is in. Over TLS, and over a bridge, a relay connects it each time. *ret_relayed: it has no need of an address. */
static int make_ask_socket(const struct sockaddr_in *whom, int *ret_socket, bool *ret_relayed, struct err *e)
{
	const struct timeval timeout = { ASK_TIMEOUT_MS / 1000, 0 };
	cleanup_close int net = -1, fd = -1;
	bool bridged = bridge_is_address(whom), relayed = bridged || tls_is_used();

	ns_outside(true);
	net = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ns_outside(false);
	if (net < 0)
		return err_sys(e, errno, "a socket for the question after the outcome");
	if (relayed && (fd = bridged ? bridge_begin(BRIDGE_ASK, whom, ASK_TIMEOUT_MS, e) : tls_begin(TLS_ASK, net, whom, ASK_TIMEOUT_MS, e)) < 0)
		return e->code;
	if (!relayed)
		fd = take_fd(&net);
	else if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0)
		return err_sys(e, errno, "fcntl");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	*ret_socket = take_fd(&fd);
	*ret_relayed = relayed;
	return 0;
}

int source_prepare_ask(struct source_process *p, int *ret_socket, struct err *e)
{
	struct source *s = p->s;
	struct scratch_header *h = scratch_header(&p->agent.scratch);
	uint8_t frame_header[FRAME_HEADER_BYTES], *to;
	cleanup_free void *payload = NULL;
	uint64_t address;
	bool relayed = false;
	Gw__Hello self;
	size_t len;
	int ret;

	fill_ask(s, &self);
	payload = hello_encode(&self, &len);
	to = payload ? scratch_alloc(&p->agent.scratch, sizeof(frame_header) + len, &address) : NULL;
	if (!to)
		return err_sys(e, ENOMEM, "the question after the outcome");
	frame_header_encode(frame_header, FRAME_HELLO, 0, (uint32_t)len);
	memcpy(to, frame_header, sizeof(frame_header));
	memcpy(to + sizeof(frame_header), payload, len);
	_Static_assert(sizeof(h->ask_address) == sizeof(s->request->dest), "struct sockaddr_in");
	ret = make_ask_socket(ask_whom(s), ret_socket, &relayed, e);
	if (ret < 0)
		return ret;
	if (!relayed)
		memcpy(h->ask_address, ask_whom(s), sizeof(h->ask_address));
	h->ask = address;
	h->ask_len = (uint32_t)(sizeof(frame_header) + len);
	return 0;
}

static void back_out(struct source *s)
{
	unit_step(source_root(s), HANDOVER_HEARD_ABORTED);
	s->backed_out = true;
	source_thaw(s);
	s->report->stopped_at_ns = s->stopped_ns;
	s->report->freeze_us = (clock_ns(CLOCK_REALTIME) - s->stopped_ns) / 1000;
	source_remove_agents(s);
}

/*
 * Asks the destination's daemon until it knows. A host that knows nothing of the migration has lost its /run since it said PREPARED: it was
 * booted anew, and nothing that it had received runs any more.
 */
static enum handover_step ask_until_known(struct source *s)
{
	Gw__Hello self;

	fill_ask(s, &self);
	ns_outside(true);
	for (;;) {
		struct pollfd process = { s->unit.procs[0].pidfd, POLLIN, 0 };
		char boot_id[OUTCOME_BOOT_ID_MAX];
		enum outcome outcome = OUTCOME_PENDING;
		enum handover_step step = HANDOVER_ASK;

		if (outcome_ask(ask_whom(s), &self, ASK_TIMEOUT_MS, &outcome, boot_id, NULL) == 0)
			step = handover_hear((enum handover_news)(NEWS_ANSWER_UNKNOWN + outcome));
		if (step != HANDOVER_ASK) {
			log_info("event=doubt-resolved pid=%d outcome=%s", s->request->pid, outcome_name(outcome));
			return step;
		}
		if (s->request->progress)
			s->request->progress(s->report, s->request->progress_arg);
		if (poll(&process, 1, 300) > 0)
			return HANDOVER_HEARD_ABORTED; /* somebody has killed it meanwhile */
	}
}

static enum handover_step decide(struct source *s)
{
	struct err cause = ERR_INIT;
	enum handover_step step = handover_hear(wait_resumed(s, &cause));

	if (step == HANDOVER_ASK) {
		log_error("event=in-doubt pid=%d text=\"%s\"", s->request->pid, cause.message);
		s->report->outcome = "in-doubt";
		if (s->request->progress)
			s->request->progress(s->report, s->request->progress_arg);
		step = ask_until_known(s);
		s->report->outcome = NULL;
	}
	return step;
}

static void take_resumed(struct source *s)
{
	struct frame f;
	Gw__Resumed *resumed;
	uint64_t now = clock_ns(CLOCK_REALTIME), there = now;

	if (frame_recv_expect(s->link.control, FRAME_RESUMED, &f, FRAME_HELLO_MAX, LINK_TIMEOUT_MS, NULL) == 0) {
		if (resumed_decode(f.payload, f.len, &resumed, NULL) == 0) {
			there = resumed->realtime_ns;
			s->report->new_pid = resumed->pid;
			gw__resumed__free_unpacked(resumed, NULL);
		}
		frame_free(&f);
	}
	s->report->stopped_at_ns = s->stopped_ns;
	/* The other host's clock counts as far as it is plausible. */
	s->report->freeze_us = (there > s->stopped_ns && there <= now ? there - s->stopped_ns : now - s->stopped_ns) / 1000;
}

/* -EAGAIN when the destination says that another attempt may do better (dest_files.c), otherwise -ECONNABORTED. */
static int say_why(struct source *s, struct err *e)
{
	struct err why = ERR_INIT;
	struct frame f;
	int code = frame_recv_expect(s->link.control, FRAME_RESUMED, &f, FRAME_HELLO_MAX, WHY_MS, &why);

	if (code == 0)
		frame_free(&f);
	return err_set(e, code == -EAGAIN ? -EAGAIN : -ECONNABORTED, "%s ended the migration before the process ran there (%s); process %d goes on here",
		       s->request->dest_name, code ? why.message : "it does not say why", s->request->pid);
}

int source_commit(void *context, struct err *e)
{
	struct source *s = context;
	size_t late_len = 0;
	uint8_t *late;
	uint64_t word;
	enum handover_step step = decide(s);

	timeline_mark("resumed there");
	if (step == HANDOVER_HEARD_ABORTED) {
		back_out(s);
		return say_why(s, e);
	}
	source_net_forward(s);
	source_home_left(s);
	unit_step(source_root(s), HANDOVER_HEARD_COMMITTED);
	for (size_t i = 0; i < s->nprocs; i++) {
		source_end_later(&s->procs[i]);
		task_command(&s->procs[i].agent.task, COMMAND_SERVE);
		task_wake(&s->procs[i].agent.task, NULL);
		pace_together(s->procs[i].agent.pid, &s->procs[i].beside.cpus);
		pace_take_place(s->procs[i].agent.pid);
	}
	/* Before the processes end: that would end connections with words. */
	fdtable_end_connections(&s->unit.fds);
	source_address_release(s);
	source_end_copies(s);
	pace_calm(0);
	pace_cool();
	sysv_remove(s->procs[0].process, NULL);
	if (recv(s->link.go, &word, sizeof(word), MSG_DONTWAIT) < 0)
		log_debug("event=resumed-known-by-asking");
	mqueue_remove(s->unit.fds.msg);
	fdtable_free(&s->unit.fds);
	/* The destination need not remember the outcome any longer. */
	late = late_encode(s, &late_len);
	frame_send(s->link.control, FRAME_RELEASE, late, (uint32_t)late_len, NULL);
	free(late);
	take_resumed(s);
	source_net_settle(s);
	for (size_t i = 0; i < s->nprocs; i++)
		if (!scratch_header(&s->procs[i].agent.scratch)->ends_namespace) /* source.c, end_namespaces */
			source_held_reap(&s->procs[i]);
	source_mark_left(s);
	return 0;
}
