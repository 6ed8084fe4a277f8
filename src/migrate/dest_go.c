/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_go.c - the go message, and the commit
 *
 * Theory of operation: the message is read into memory that has been touched before. What it says is done in dest_restore.c; then skeleton_set_release lets go.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "home/channel.h"
#include "home/door.h"
#include "image/admission.h"
#include "image/ns_user.h"
#include "image/ns_other.h"
#include "image/uring.h"
#include "image/ns_net.h"
#include "image/pty_session.h"
#include "image/relay.h"
#include "migrate/dest.h"
#include "migrate/arrival.h"
#include "migrate/pace.h"
#include "migrate/registry.h"
#include "migrate/timeline.h"
#include "migrate/unit_page.h"

#define DROPPED_MAX 512u /* some 100 us */

/* --- receiving --- */

static int receive_exactly(int fd, void *to, size_t len, struct err *e)
{
	for (size_t got = 0; got < len;) {
		ssize_t n = recv(fd, (char *)to + got, len - got, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? err_sys(e, errno, "the go message") : err_set(e, -ECONNRESET, "the source ended the migration");
		got += (size_t)n;
	}
	return 0;
}

/* The payload of a frame whose header has been read, into the buffer for the go message. */
static int receive_payload(struct dest *d, const struct frame *f, struct err *e)
{
	int ret = dest_enlarge_buffer(d, f->len, e);

	return ret < 0 ? ret : receive_exactly(d->link.go, d->go_buffer, f->len, e);
}

/* What may come before the go message: working sets and threads, one a process, news of connections, then of files. */
static int take_before_go(struct dest *d, const struct frame *f, bool *news_taken, struct err *e)
{
	int ret;

	if (f->type != FRAME_AHEAD && f->type != FRAME_THREADS && f->type != FRAME_CONNECTIONS && (f->type != FRAME_FILES || *news_taken))
		return err_set(e, -EPROTO, "%s instead of the go message", frame_type_name(f->type));
	ret = receive_payload(d, f, e);
	if (ret < 0)
		return ret;
	if (f->type == FRAME_AHEAD)
		return dest_take_ahead(d, d->go_buffer, f->len, e);
	if (f->type == FRAME_THREADS)
		return dest_take_threads(d, d->go_buffer, f->len, e);
	if (f->type == FRAME_CONNECTIONS)
		return dest_net_take_ahead(d, d->go_buffer, f->len, e);
	*news_taken = true;
	return dest_files_frozen(d, d->go_buffer, f->len, e);
}

/* Waits until something of the go message is there. 1: there is something on the control connection before it. */
static int is_layout_late(struct dest *d)
{
	struct pollfd p[2] = { { d->link.go, POLLIN, 0 }, { d->link.control, POLLIN, 0 } };
	char byte;

	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	/* The end of the control connection says nothing: the go connection tells the rest. */
	return p[1].revents && recv(p[1].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/*
 * A program that is stopped while it changes its mappings: where all pages come in the freeze, the layout comes before them, before that what is new about files,
 * and all before the go message.
 */
static int take_late_layouts(struct dest *d, bool *news_taken, struct err *e)
{
	int ret = 0;

	while (ret == 0 && is_layout_late(d)) {
		struct frame f;
		bool over;

		ret = frame_recv(d->link.control, &f, FRAME_PAYLOAD_MAX, LINK_TIMEOUT_MS, e);
		if (ret < 0)
			return ret;
		if (f.type == FRAME_ROUND)
			ret = dest_take_round(d, &f, &over, e);
		else if (f.type == FRAME_FILES && !*news_taken)
			ret = dest_files_frozen(d, f.payload, f.len, e);
		else if (f.type == FRAME_ERROR)
			ret = frame_error_decode(&f, e);
		else
			ret = err_set(e, -EPROTO, "%s instead of a layout", frame_type_name(f.type));
		*news_taken |= f.type == FRAME_FILES;
		frame_free(&f);
	}
	return ret;
}

static int receive_go(struct dest *d, struct frame *ret, struct err *e)
{
	uint8_t header[FRAME_HEADER_BYTES];
	bool news_taken = false, rehearsed = false;
	int code;

	dest_rehearse(d);
	for (;;) {
		code = d->post_copy ? 0 : take_late_layouts(d, &news_taken, e);
		if (code == 0)
			code = receive_exactly(d->link.go, header, sizeof(header), e);
		if (code < 0)
			break;
		code = frame_header_decode(header, DEST_GO_MAX, ret, e);
		if (code < 0 || ret->type == FRAME_GO)
			break;
		code = take_before_go(d, ret, &news_taken, e);
		if (code < 0)
			break;
		/* Again, now that the freeze is near. */
		if (!rehearsed && ret->type == FRAME_AHEAD)
			dest_rehearse(d);
		rehearsed |= ret->type == FRAME_AHEAD;
	}
	if (code < 0)
		return code;
	return ret->len < sizeof(uint32_t) ? err_set(e, -EPROTO, "a go message of %u bytes", ret->len) : receive_payload(d, ret, e);
}

/* They may have become other ones since the offer. */
static void judge_credentials(const struct dest_process *p, struct refusals *refusals)
{
	uint32_t was;

	if (!admission_is_limited())
		return;
	was = ns_user_choose(dest_user_of(p));
	for (size_t i = 0; i < p->go->nthreads; i++)
		admission_judge_credentials(p->go->threads[i]->credentials, p->go->threads[i]->tid, refusals);
	ns_user_choose(was);
}

static int decode_go(struct dest *d, uint32_t payload_len, struct err *e)
{
	const struct go_terms terms = { d->offered.procs, d->nprocs, THREADS_SPARE, d->files.n, d->fds };
	struct refusals refusals = { 0 };
	int ret = go_decode(d->go_buffer, payload_len, &terms, &d->go, e);

	if (ret == 0)
		pty_set_numbers(d->fds, d->go.fds);
	for (size_t i = 0; i < d->nprocs && ret == 0; i++) {
		d->procs[i].go = &d->go.procs[i];
		ns_others_take_over(d->procs[i].process, d->go.procs[i].process);
		process_validate_here(d->go.procs[i].process, d->procs[i].process, &refusals);
		judge_credentials(&d->procs[i], &refusals);
	}
	if (refusals.n)
		ret = err_set(e, -EPERM, "%s: %s", refusals.v[0].thing, refusals.v[0].cause);
	refusals_free(&refusals);
	return ret;
}

/* Pages were sent over the bulk connection inside the freeze. */
static int wait_bulk(struct dest_process *p, struct err *e)
{
	int64_t *result = &scratch_slot(&p->skeleton->agent.scratch, 0)->result;
	int ret = task_wait(&p->skeleton->agent.task, 60000, e);

	return ret == 0 && *result < 0 ? err_sys(e, (int)*result, "receiving pages") : ret;
}

int dest_go(void *context, struct err *e)
{
	struct dest *d = context;
	struct frame f;
	int ret;

	link_make_patient(&d->link);
	ret = receive_go(d, &f, e);
	timeline_mark("go received");
	if (ret == 0)
		ret = decode_go(d, f.len, e);
	timeline_mark("go decoded");
	for (size_t i = 0; i < d->nprocs && ret == 0; i++)
		if (d->procs[i].go->msg->bulk)
			ret = wait_bulk(&d->procs[i], e);
	return ret;
}

/* --- commit --- */

/* They have their command since before the commit; until then they would only be in the way of the threads. */
static void wake_pagers(struct dest *d)
{
	for (size_t i = 0; i < d->nprocs && d->post_copy; i++)
		if (!d->procs[i].host)
			task_wake(&d->procs[i].skeleton->agent.task, NULL);
}

/* Whether the unit has its name from this node. */
static bool is_home(const struct dest *d)
{
	size_t len = strlen(d->self_name);

	return !d->offer->keeps_name || (!strncmp(d->offer->unit, d->self_name, len) && d->offer->unit[len] == ':');
}

/* resumed_ns: when it ran here, by CLOCK_REALTIME. Clocks of two hosts may say that this was before it stood still: then it is not known how long it did. */
static void register_unit(struct dest *d, uint64_t resumed_ns)
{
	struct registry_entry entry = { .pid = d->procs[0].skeleton->pid, .moves = d->offer->moves + 1 };

	snprintf(entry.unit, sizeof(entry.unit), "%s", d->offer->unit);
	if (d->offer->saved && !d->offer->keeps_name) { /* the number that it had may be another's here */
		snprintf(entry.unit, sizeof(entry.unit), "%s:%d", d->self_name, entry.pid);
		entry.moves = 0;
	}
	snprintf(entry.from, sizeof(entry.from), "%s", d->offer->from);
	snprintf(entry.strategy, sizeof(entry.strategy), "%s", strategy_name((enum strategy)d->offer->strategy));
	snprintf(entry.reason, sizeof(entry.reason), "%s", d->offer->reason);
	entry.started = d->offer->started;
	entry.cpu_ms = d->offer->cpu_ms;
	if (!d->offer->saved && d->go.msg->stopped_ns && resumed_ns > d->go.msg->stopped_ns)
		entry.freeze_us = (resumed_ns - d->go.msg->stopped_ns) / 1000;
	protection_from_message(d->offer->protection, &entry.protection, NULL);
	for (size_t i = 0; i < d->nprocs; i++)
		cpu_uses_remember(d->procs[i].process, &entry.programs);
	entry.local = dest_home_comes(&d->home) || (d->offer->saved && is_home(d));
	if (d->offer->home && !entry.local) {
		char door[DOOR_NAME_MAX];

		door_name_of_migration(d->mig_id, door);
		snprintf(entry.home, sizeof(entry.home), "%s", door);
		entry.parent = d->offer->home_parent;
	}
	registry_add(&entry, NULL);
}

static void tell_resumed(struct dest *d, uint64_t when)
{
	Gw__Resumed resumed = GW__RESUMED__INIT;
	uint8_t packed[64];

	resumed.realtime_ns = when;
	resumed.pid = d->procs[0].skeleton->pid;
	frame_send(d->link.control, FRAME_RESUMED, packed, gw__resumed__pack(&resumed, packed), NULL);
}

/* What was sent and nobody read is taken out first: closing with unread bytes would be a reset, which proves nothing to the source. */
void dest_tell_aborted(struct dest *d)
{
	const uint64_t word = GO_ABORTED;
	int fd = d->link.go;

	if (fd < 0)
		return;
	while (recv(fd, d->go_buffer, d->go_buffer_len, MSG_DONTWAIT) > 0)
		;
	if (send(fd, &word, sizeof(word), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_warning("event=abort-untold text=\"%s\"", strerror(errno));
}

static void give_terminal(struct dest *d)
{
	const unsigned kind = CHANNEL_READS | CHANNEL_WRITES | CHANNEL_OWN | CHANNEL_TERMINAL | CHANNEL_MASTER;
	int index = fdtable_relayed_terminal(d->go.fds);
	struct err e = ERR_INIT;

	if (index >= 0 && d->parent.control >= 0 && parent_add_channel(&d->parent, RELAY_TERMINAL_ID, kind, d->restore.ptys.v[index].master, &e) < 0)
		log_error("event=relay-lost id=%u text=\"%s\"", RELAY_TERMINAL_ID, e.message);
}

/* The surrogate parent gets the other ends of what is relayed. */
static void give_relays(struct dest *d)
{
	for (size_t i = 0; i < d->restore.n_relays && d->parent.control >= 0; i++) {
		const struct fd_relay *r = &d->restore.relays[i];
		struct err e = ERR_INIT;

		if (parent_add_channel(&d->parent, r->id, r->kind == RELAY_SOCKET ? CHANNEL_READS | CHANNEL_WRITES | CHANNEL_SOCKET :
				       r->kind == RELAY_UNIT_READS ? CHANNEL_WRITES : CHANNEL_READS, r->fd, &e) < 0)
			log_error("event=relay-lost id=%u text=\"%s\"", r->id, e.message);
	}
	give_terminal(d);
}

void dest_drop_duplicates(struct dest *d)
{
	if (!d->committed && d->restore.n + d->files.n > DROPPED_MAX)
		return;
	fdtable_restore_drop(&d->restore, d->go.fds);
	for (uint32_t i = 0; i < d->files.n; i++)
		fsfile_answer_close(&d->answers[i]);
}

int dest_commit(void *context, struct err *e)
{
	struct dest *d = context;
	uint64_t word = GO_RESUMED, when;
	uint32_t state;
	int ret;

	timeline_mark("committing");
	ret = skeleton_set_release(&d->set, e);
	when = clock_ns(CLOCK_REALTIME);
	timeline_mark("released");
	state = unit_state(&d->procs[0].skeleton->agent);
	if (ret < 0 && (state == STATE_FROZEN || state == STATE_ABORTED))
		return ret;
	d->committed = true;
	dest_drop_duplicates(d);
	if (send(d->link.go, &word, sizeof(word), MSG_NOSIGNAL) < 0)
		log_warning("event=resumed-untold text=\"%s\"", strerror(errno));
	scratch_unit(&d->procs[0].skeleton->agent.scratch)->told = 1;
	wake_pagers(d);
	timeline_mark("resumed told");
	pace_calm(0);
	for (size_t i = 0; i < d->nprocs && d->offer->held; i++)
		pace_calm_beside(d->procs[i].skeleton->agent.pid, d->procs[i].nthreads);
	if (!d->post_copy)
		pace_cool();
	tell_resumed(d, when);
	if (d->offered.ns)
		ns_nets_announce(d->offered.ns);
	give_relays(d);
	dest_net_settle(d);
	fdtable_restore_free(&d->restore);
	for (size_t i = 0; i < d->nprocs; i++) {
		close_fdp(&d->procs[i].transfer_kept);
		uring_set_free(d->procs[i].urings);
		d->procs[i].urings = NULL;
	}
	for (uint32_t i = 0; i < d->files.n; i++)
		fsfile_answer_close(&d->answers[i]);
	if (!dest_home_comes(&d->home) || d->offer->started) /* at home it is a process as any other */
		register_unit(d, when);
	parent_commit(&d->parent);
	dest_home_free(d);
	return 0;
}
