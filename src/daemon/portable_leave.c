// SPDX-License-Identifier: GPL-2.0-or-later
/* portable_leave.c - the source's side of a move by a program's own state; see portable.h */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/portable.h"
#include "daemon/reply.h"
#include "migrate/caller.h"
#include "migrate/decode.h"
#include "migrate/outcome.h"
#include "migrate/registry.h"
#include "migrate/steps.h"
#include "portable/state.h"
#include "wire/conn.h"

#define CONNECT_MS 10000
#define PREPARED_MS 600000 /* the other side reads the state */
#define RESUMED_MS 30000
#define LOOK_MS 100
#define SILENCE_S 600 /* of a program that looks through its state, or has stopped in the middle of it */
#define ASK_MS 1000
#define END_MS 10000
#define REFUSE_BYTES_MAX 65536u

struct leaving {
	const struct migrate_request *order;
	struct migrate_report *report;
	struct refusals *refusals;
	struct portable_program program;
	uint8_t mig_id[HELLO_MIG_ID_BYTES];
	int link, talk, pidfd;
	uint64_t begin_ns, deadline_ns, stopped_ns;
	bool in_doubt; /* GO has been sent, or may have been */
};

static int phase(struct leaving *l, const char *name, struct err *e)
{
	bool again = l->report->phase && !strcmp(l->report->phase, name);
	int r;

	l->report->phase = name;
	if (l->order->progress && l->order->progress(l->report, l->order->progress_arg))
		return err_set(e, -ECANCELED, "cancelled");
	if (l->deadline_ns && clock_ns(CLOCK_MONOTONIC) > l->deadline_ns)
		return err_set(e, -ETIMEDOUT, "the program has not come to a point (godwit_point) within %u ms", l->order->timeout_ms);
	r = again ? 0 : fault_point("psource", name, l->link, e);
	return r;
}

static int say_offer(struct leaving *l, const Gw__PortableOffer *offer, struct err *e)
{
	size_t len = gw__portable_offer__get_packed_size(offer);
	cleanup_free uint8_t *packed = malloc(len);
	Gw__Hello hello;
	int r;

	if (!packed)
		return err_sys(e, -ENOMEM, "the offer");
	l->link = conn_connect(&l->order->dest, CONNECT_MS, e);
	if (l->link < 0)
		return l->link;
	hello_fill(&hello);
	hello.role = ROLE_PORTABLE;
	hello.node_name = (char *)(uintptr_t)l->order->self_name;
	hello.mig_id = (ProtobufCBinaryData){ HELLO_MIG_ID_BYTES, l->mig_id };
	r = hello_send(l->link, &hello, e);
	return r < 0 ? r : frame_send(l->link, FRAME_OFFER, packed, gw__portable_offer__pack(offer, packed), e);
}

static int hear_answer(struct leaving *l, struct err *e)
{
	cleanup_frame struct frame f = { 0 };
	struct path_list none = { 0 };
	int r = frame_recv(l->link, &f, REFUSE_BYTES_MAX, CONNECT_MS, e);

	if (r < 0)
		return err_wrap(e, "%s", l->order->dest_name);
	if (f.type == FRAME_ACCEPT)
		return 0;
	if (f.type == FRAME_ERROR) {
		r = frame_error_decode(&f, e);
		if (r == -EBUSY)
			refusals_add(l->refusals, "node.closed", e->message, "name another node (`godwit nodes` shows how they are), or open that one", "host %s", l->order->dest_name);
		return r;
	}
	if (f.type != FRAME_REFUSE || refuse_decode(f.payload, f.len, l->refusals, &none, e) < 0)
		return err_set(e, -EPROTO, "%s: expected an answer to the offer", l->order->dest_name);
	path_list_free(&none);
	return err_set(e, -EPERM, "process %d cannot move", (int)l->order->pid);
}

/* As `order` says, what the process is, and whether it may. */
static int make_offer(struct leaving *l, struct err *e)
{
	Gw__PortableOffer offer = GW__PORTABLE_OFFER__INIT;
	struct registry_entry entry = { 0 };
	int r = caller_check(l->order->caller, &l->order->pid, 1, l->refusals, e);

	if (r == 0 && !l->refusals->n)
		r = portable_find(l->order->pid, &l->program, l->refusals, e);
	if (r < 0 || l->refusals->n)
		return r < 0 ? r : err_set(e, -EPERM, "process %d cannot move", (int)l->order->pid);
	if (registry_lookup(l->order->pid, &entry, NULL) == 0)
		snprintf(l->report->unit, sizeof(l->report->unit), "%s", entry.unit);
	offer.unit = l->report->unit;
	offer.from = (char *)(uintptr_t)l->order->self_name;
	offer.moves = entry.moves;
	offer.reason = (char *)(uintptr_t)(l->order->reason ? l->order->reason : "");
	offer.cpu_ms = entry.cpu_ms + registry_cpu_ms(l->order->pid);
	offer.program = l->program.name;
	offer.version = l->program.version;
	offer.path = l->program.path;
	offer.machine = l->program.machine;
	r = portable_look(l->order->pid, &offer, l->refusals, e);
	if (r == 0 && l->refusals->n)
		r = err_set(e, -EPERM, "process %d cannot move", (int)l->order->pid);
	if (r == 0)
		r = say_offer(l, &offer, e);
	portable_look_free(&offer);
	if (r == 0)
		r = hear_answer(l, e);
	if (r == 0 && l->order->may_leave)
		r = l->order->may_leave(l->report->unit, entry.moves, l->order->dest_name, l->refusals, l->order->leave_arg, e);
	return r;
}

/* --- the program --- */

static void set_asked(const struct leaving *l, uint8_t value)
{
	const uint8_t word[4] = { value, value, value, value };

	(void)!pwrite(l->program.memory_fd, word, sizeof(word), 0);
}

static int ask_program(struct leaving *l, struct err *e)
{
	const struct timeval patience = { .tv_sec = SILENCE_S };
	const uint8_t word = TALK_ASK;
	struct stat st;

	l->pidfd = (int)syscall(SYS_pidfd_open, l->order->pid, 0);
	if (l->pidfd >= 0)
		l->talk = (int)syscall(SYS_pidfd_getfd, l->pidfd, l->program.talk_number, 0);
	if (l->talk < 0)
		return err_sys(e, -errno, "process %d: the socket of its libgodwit-portable", (int)l->order->pid);
	if (fstat(l->talk, &st) < 0 || !S_ISSOCK(st.st_mode))
		return err_set(e, -EPROTO, "process %d: what its libgodwit-portable names is no socket", (int)l->order->pid);
	setsockopt(l->talk, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	set_asked(l, 1);
	send(l->talk, &word, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	return 0;
}

/* Until it comes to a point. */
static int wait_for_point(struct leaving *l, struct err *e)
{
	for (;;) {
		struct pollfd p[3] = { { l->talk, POLLIN, 0 }, { l->pidfd, POLLIN, 0 }, { l->link, POLLRDHUP, 0 } };
		int r = phase(l, "point", e);

		if (r < 0)
			return r;
		if (poll(p, 3, LOOK_MS) <= 0)
			continue;
		if (p[0].revents & POLLIN)
			return 0;
		if (p[0].revents || p[1].revents)
			return err_set(e, -ESRCH, "process %d has ended", (int)l->order->pid);
		if (p[2].revents)
			return err_set(e, -ECONNRESET, "%s has gone away", l->order->dest_name);
	}
}

/* Why the program has sent no more. */
static int why_not(const struct leaving *l, struct err *e)
{
	char why[PAGE_WHY_BYTES + 1] = "";

	(void)!pread(l->program.memory_fd, why, sizeof(why) - 1, PAGE_WHY);
	for (char *p = why; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return err_set(e, -EINVAL, "the program has not given its state away: %.700s", why[0] ? why : "it has ended");
}

static int receive(const struct leaving *l, void *data, size_t len, struct err *e)
{
	for (size_t have = 0; have < len;) {
		ssize_t n = recv(l->talk, (char *)data + have, len - have, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return why_not(l, e);
		have += (size_t)n;
	}
	return 0;
}

static int send_content(struct leaving *l, enum portable_content what, const void *data, size_t len, struct err *e)
{
	struct iovec iov = { (void *)(uintptr_t)data, len };

	l->report->bytes_sent += len;
	return frame_sendv(l->link, FRAME_CONTENT, (uint16_t)what, &iov, 1, e);
}

static int relay_start(struct leaving *l, uint8_t *buffer, struct err *e)
{
	uint8_t head[4];
	size_t len;
	int r = receive(l, head, sizeof(head), e);

	len = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
	if (r == 0 && (!len || len > TALK_START_MAX))
		r = err_set(e, -EPROTO, "the program says that it was started with %zu bytes", len);
	if (r == 0)
		r = receive(l, buffer, len, e);
	return r < 0 ? r : send_content(l, PORTABLE_START, buffer, len, e);
}

/* The head says how long the state is. */
static int state_length(const uint8_t head[STATE_HEAD + 8], uint64_t *ret, struct err *e)
{
	uint64_t x;

	memcpy(&x, head + STATE_HEAD, sizeof(x));
	x = head[9] == own_order() ? x : __builtin_bswap64(x);
	if (memcmp(head, STATE_MAGIC, 8) != 0 || x > STATE_BYTES_MAX)
		return err_set(e, -EPROTO, "what the program gives away is no state");
	*ret = x + STATE_DIGEST;
	return 0;
}

static int relay_state(struct leaving *l, uint8_t *buffer, struct err *e)
{
	uint64_t left = 0;
	int r = receive(l, buffer, STATE_HEAD + 8, e);

	if (r == 0)
		r = state_length(buffer, &left, e);
	if (r == 0)
		r = send_content(l, PORTABLE_STATE, buffer, STATE_HEAD + 8, e);
	while (r == 0 && left) {
		size_t n = (size_t)MIN(left, (uint64_t)PORTABLE_PIECE_BYTES);

		r = receive(l, buffer, n, e);
		if (r == 0)
			r = send_content(l, PORTABLE_STATE, buffer, n, e);
		left -= n;
		if (r == 0)
			r = phase(l, "state", e);
	}
	return r < 0 ? r : send_content(l, PORTABLE_END, NULL, 0, e);
}

static int relay(struct leaving *l, struct err *e)
{
	cleanup_free uint8_t *buffer = malloc(PORTABLE_PIECE_BYTES);
	int r;

	if (!buffer)
		return err_sys(e, -ENOMEM, "a buffer");
	l->deadline_ns = 0;
	l->stopped_ns = clock_ns(CLOCK_MONOTONIC);
	l->report->stopped_at_ns = clock_ns(CLOCK_REALTIME);
	r = relay_start(l, buffer, e);
	return r < 0 ? r : relay_state(l, buffer, e);
}

/* --- who has it --- */

static void tell(const struct leaving *l, enum talk word, const char *text)
{
	uint8_t head[3] = { (uint8_t)word };
	size_t len = text ? MIN(strlen(text), (size_t)TALK_TEXT_MAX) : 0;

	head[1] = (uint8_t)len;
	head[2] = (uint8_t)(len >> 8);
	send(l->talk, head, text ? 3 : 1, MSG_NOSIGNAL);
	if (len)
		send(l->talk, text, len, MSG_NOSIGNAL);
}

/* So that the program can ask by itself when this worker is dead. */
static void tell_decide(const struct leaving *l)
{
	char text[TALK_TEXT_MAX];
	size_t n = 0;

	for (size_t i = 0; i < HELLO_MIG_ID_BYTES; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%02x", l->mig_id[i]);
	snprintf(text + n, sizeof(text) - n, " %s", l->order->dest_name);
	tell(l, TALK_DECIDE, text);
}

static bool ask_outcome(struct leaving *l)
{
	char boot_id[OUTCOME_BOOT_ID_MAX];
	enum outcome outcome = OUTCOME_PENDING;
	Gw__Hello self;

	hello_fill(&self);
	self.node_name = (char *)(uintptr_t)l->order->self_name;
	self.mig_id = (ProtobufCBinaryData){ HELLO_MIG_ID_BYTES, l->mig_id };
	l->report->outcome = "in-doubt";
	for (;;) {
		if (outcome_ask(&l->order->dest, &self, ASK_MS, &outcome, boot_id, NULL) == 0 && outcome != OUTCOME_PENDING)
			break;
		if (l->order->progress)
			l->order->progress(l->report, l->order->progress_arg);
		usleep(LOOK_MS * 1000);
	}
	log_info("event=doubt-resolved pid=%d outcome=%s", (int)l->order->pid, outcome_name(outcome));
	l->report->outcome = NULL;
	return outcome == OUTCOME_COMMITTED;
}

static int hand_over(struct leaving *l, struct err *e)
{
	cleanup_frame struct frame prepared = { 0 }, resumed = { 0 };
	int r = frame_recv_expect(l->link, FRAME_PREPARED, &prepared, FRAME_HELLO_MAX, PREPARED_MS, e);

	if (r < 0)
		return err_wrap(e, "%s", l->order->dest_name);
	r = phase(l, "go", e);
	if (r < 0)
		return r;
	tell_decide(l);
	l->in_doubt = true;
	r = frame_send(l->link, FRAME_GO, NULL, 0, e);
	fault_point("psource", "gone", l->link, NULL);
	if (r == 0)
		r = frame_recv_expect(l->link, FRAME_RESUMED, &resumed, FRAME_HELLO_MAX, RESUMED_MS, e);
	if (r < 0 && !ask_outcome(l))
		return err_wrap(e, "%s has given up", l->order->dest_name);
	if (r == 0 && resumed.len == 4)
		l->report->new_pid = (pid_t)(resumed.payload[0] | resumed.payload[1] << 8 | resumed.payload[2] << 16 | resumed.payload[3] << 24);
	l->report->freeze_us = (clock_ns(CLOCK_MONOTONIC) - l->stopped_ns) / 1000;
	return 0;
}

/* The program runs there: here it ends. */
static void let_go(struct leaving *l)
{
	struct pollfd p = { l->pidfd, POLLIN, 0 };

	if (l->order->has_left)
		l->order->has_left(l->order->leave_arg);
	tell(l, TALK_LEAVE, NULL);
	if (poll(&p, 1, END_MS) <= 0) {
		log_warning("event=left-over pid=%d text=\"it should have ended, and is killed\"", (int)l->order->pid);
		syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0);
	}
	registry_remove(l->order->pid, NULL);
	frame_send(l->link, FRAME_RELEASE, NULL, 0, NULL);
}

static int move(struct leaving *l, struct err *e)
{
	int r = phase(l, "offer", e);

	if (r == 0)
		r = make_offer(l, e);
	if (r == 0 && l->order->ask_only) {
		l->report->outcome = "possible";
		return err_set(e, -ECANCELED, "%s would take process %d", l->order->dest_name, (int)l->order->pid);
	}
	if (r == 0)
		r = ask_program(l, e);
	if (r == 0)
		r = wait_for_point(l, e);
	if (r == 0)
		r = relay(l, e);
	return r < 0 ? r : hand_over(l, e);
}

int portable_leave(const struct daemon *d, const struct migrate_request *order, struct migrate_report *report, struct refusals *refusals, struct err *e)
{
	struct leaving l = { .order = order, .report = report, .refusals = refusals, .program = { .memory_fd = -1 }, .link = -1, .talk = -1, .pidfd = -1, .begin_ns = clock_ns(CLOCK_MONOTONIC) };
	int r;

	(void)d;
	fault_load();
	if (getrandom(l.mig_id, sizeof(l.mig_id), 0) != (ssize_t)sizeof(l.mig_id))
		return err_sys(e, -errno, "random numbers");
	report->portable = true;
	report->attempts = 1;
	l.deadline_ns = order->timeout_ms ? l.begin_ns + order->timeout_ms * 1000000ull : 0;
	r = move(&l, e);
	if (r == 0) {
		let_go(&l);
		report->left = true;
		report->outcome = "moved";
	} else if (l.talk >= 0) {
		set_asked(&l, 0);
		tell(&l, TALK_STAY, e->message);
	}
	report->total_ms = (double)(clock_ns(CLOCK_MONOTONIC) - l.begin_ns) / 1e6;
	if (r < 0 && l.link >= 0 && !l.in_doubt)
		frame_send_error(l.link, r, e->message, NULL);
	close_fdp(&l.link);
	close_fdp(&l.talk);
	close_fdp(&l.pidfd);
	close_fdp(&l.program.memory_fd);
	return r;
}

int do_outcome(const struct daemon *d, const struct request *request, int fd)
{
	uint8_t mig_id[HELLO_MIG_ID_BYTES];
	char boot_id[OUTCOME_BOOT_ID_MAX];
	enum outcome outcome = OUTCOME_UNKNOWN;
	struct err e = ERR_INIT;
	struct sockaddr_in to;
	Gw__Hello self;
	int r = host_resolve(d, &request->caller, request->host, &to, &e);

	for (size_t i = 0; i < sizeof(mig_id); i++)
		sscanf(request->migration + 2 * i, "%2hhx", &mig_id[i]);
	hello_fill(&self);
	self.node_name = (char *)(uintptr_t)d->config.name;
	self.mig_id = (ProtobufCBinaryData){ HELLO_MIG_ID_BYTES, mig_id };
	if (r == 0)
		r = outcome_ask(&to, &self, ASK_MS, &outcome, boot_id, &e);
	if (r < 0)
		reply_error(fd, "failed", &e, NULL, NULL);
	else
		reply_result(fd, json_pack("{s:s}", "outcome", outcome_name(outcome)));
	return r < 0;
}
