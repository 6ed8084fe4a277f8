/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bridge_channel.c - the connections of a bridge; see bridge.h and bridge_internal.h
 *
 * A channel's number is used once. Who has freed a channel ignores what still comes for it; who hears RESET frees it without a word. A connection of the engine that has ended both ways stays
 * open until the engine closes: so it can tell an orderly end from others (conn_ended_orderly).
 */
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/util.h"
#include "wire/bridge_internal.h"

#define QUESTION_MAX 4096u
#define CREDIT_AT (BRIDGE_WINDOW / 4)

static const uint8_t no_answer[16];

static struct channel **slot_of(struct relay *r, uint32_t id)
{
	return &r->slots[id & 1][(id >> 1) % BRIDGE_CHANNELS];
}

static struct channel *find(struct relay *r, uint32_t id)
{
	struct channel *c = *slot_of(r, id);

	return c && c->id == id ? c : NULL;
}

static struct channel *make(struct relay *r, int fd)
{
	struct channel *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = fd;
	c->credit = BRIDGE_WINDOW;
	c->next = r->all;
	r->all = c;
	r->n_channels++;
	return c;
}

/* A free number of this side's; false: too many. */
static bool give_id(struct relay *r, struct channel *c)
{
	for (unsigned i = 0; i < BRIDGE_CHANNELS; i++) {
		uint32_t id = r->next_id;

		r->next_id += 2;
		if (*slot_of(r, id))
			continue;
		c->id = id;
		*slot_of(r, id) = c;
		return true;
	}
	return false;
}

static void watch(struct relay *r, struct channel *c)
{
	struct epoll_event event = { .data.ptr = c };
	bool wanted;

	if (c->fd < 0)
		return;
	if (c->state == CHANNEL_NEW || (c->state == CHANNEL_ASKER && !c->asker) || (c->state == CHANNEL_OPEN && !c->up_ended && c->credit))
		event.events |= EPOLLIN;
	if (c->down_have)
		event.events |= EPOLLOUT;
	/* An end is always told of, and would be again and again while what came before it may not be read. */
	wanted = event.events || c->state != CHANNEL_OPEN || c->up_ended;
	if (wanted && c->listed && event.events != c->events)
		epoll_ctl(r->epoll, EPOLL_CTL_MOD, c->fd, &event);
	else if (wanted && !c->listed)
		epoll_ctl(r->epoll, EPOLL_CTL_ADD, c->fd, &event);
	else if (!wanted && c->listed)
		epoll_ctl(r->epoll, EPOLL_CTL_DEL, c->fd, NULL);
	c->listed = wanted;
	c->events = event.events;
}

static void close_engine(struct channel *c)
{
	close_fdp(&c->fd); /* nobody else has it, so epoll forgets it */
	c->listed = false;
	freep(&c->down);
	c->down_have = 0;
}

/* Later, when nobody looks at it. */
static void end(struct relay *r, struct channel *c)
{
	if (c->gone)
		return;
	c->gone = true;
	close_engine(c);
	if (c->state != CHANNEL_ASKER && find(r, c->id) == c)
		*slot_of(r, c->id) = NULL;
	if (c->asker) {
		c->asker->asker = NULL;
		if (c->asker->state == CHANNEL_ASKER)
			watch(r, c->asker);
	}
	r->used_ns = clock_ns(CLOCK_MONOTONIC);
}

static void reset(struct relay *r, struct channel *c)
{
	if (c->gone)
		return;
	if (c->state >= CHANNEL_OPENING)
		relay_say(r, BRIDGE_RESET, c->id, NULL, 0);
	end(r, c);
}

static void greet(int fd, int code, const char *text)
{
	struct tls_greeting g = { .magic = TLS_MAGIC, .code = code };

	snprintf(g.text, sizeof(g.text), "%.700s", text);
	(void)!send(fd, &g, sizeof(g), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* --- questions --- */

static void answer(struct relay *r, struct channel *question)
{
	struct channel *asker = question->asker;
	const uint8_t *text = question->answer_len ? question->answer : no_answer;
	size_t len = question->answer_len ? question->answer_len : sizeof(no_answer);

	if (asker && asker->fd >= 0)
		(void)!send(asker->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	reset(r, question);
}

static void ask(struct relay *r, struct channel *asker)
{
	uint8_t text[QUESTION_MAX];
	ssize_t n = recv(asker->fd, text, sizeof(text), MSG_DONTWAIT);
	struct channel *q;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end(r, asker);
		return;
	}
	q = r->lost || relay_is_silent(r) ? NULL : make(r, -1);
	if (q)
		q->answer = malloc(TLS_ANSWER_MAX + (size_t)n);
	if (!q || !q->answer || !give_id(r, q)) {
		if (q)
			q->gone = true;
		(void)!send(asker->fd, no_answer, sizeof(no_answer), MSG_NOSIGNAL | MSG_DONTWAIT);
		return;
	}
	memcpy(q->answer + TLS_ANSWER_MAX, text, (size_t)n);
	q->question_len = (uint16_t)n;
	q->state = CHANNEL_OPENING;
	q->asker = asker;
	asker->asker = q;
	q->deadline_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)MAX(asker->timeout_ms, 0) * 1000000;
	relay_say(r, BRIDGE_OPEN, q->id, NULL, 0);
	watch(r, asker);
}

/* --- the engine --- */

void channel_take(struct relay *r, int fd)
{
	struct channel *c = make(r, fd);

	if (c)
		watch(r, c);
	else
		close(fd);
}

void channel_accept(struct relay *r)
{
	int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0)
		channel_take(r, fd);
}

static void refuse(struct relay *r, struct channel *c, int code, const char *text)
{
	greet(c->fd, code, text);
	end(r, c);
}

static void take_close(struct relay *r, struct channel *c)
{
	char text[200];
	size_t n = channels_in_use(r) - 1; /* this one asks */

	if (n && !r->lost) {
		snprintf(text, sizeof(text), "%zu connection%s of units that have moved go%s over the bridge to %s: move them home, or let them end, first", n, n == 1 ? "" : "s", n == 1 ? "es" : "",
			 r->b.record->node);
		refuse(r, c, -EBUSY, text);
		return;
	}
	r->closing = true;
	refuse(r, c, 0, r->b.record->node);
}

static void take_request(struct relay *r, struct channel *c)
{
	struct bridge_request request;
	ssize_t n = recv(c->fd, &request, sizeof(request), MSG_DONTWAIT);
	char text[160];

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != (ssize_t)sizeof(request) || request.magic != BRIDGE_MAGIC || request.kind > BRIDGE_CLOSE) {
		end(r, c);
		return;
	}
	if (request.kind == BRIDGE_CLOSE) {
		take_close(r, c);
		return;
	}
	if (request.kind == BRIDGE_ASK) {
		c->state = CHANNEL_ASKER;
		c->timeout_ms = request.timeout_ms;
		watch(r, c);
		return;
	}
	if (r->lost || relay_is_silent(r)) {
		snprintf(text, sizeof(text), "the bridge to %s: %s", r->b.record->node, r->lost ? "ssh has ended" : "the other host has been silent for some time");
		refuse(r, c, r->lost ? -ENOTCONN : -ETIMEDOUT, text);
		return;
	}
	if (!give_id(r, c)) {
		refuse(r, c, -EBUSY, "the bridge has as many connections as it can have");
		return;
	}
	c->state = CHANNEL_OPENING;
	relay_say(r, BRIDGE_OPEN, c->id, NULL, 0);
	watch(r, c);
}

/* A byte that has come with a descriptor is the last of what was read (unix(7)), and no data (tls_make_patient). */
static ssize_t receive(struct channel *c, uint8_t *to, size_t len)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct iovec iov = { to, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	bool word = false;

	if (n <= 0)
		return n < 0 ? -errno : 0;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		word = h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS;
		for (size_t i = 0; word && i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
			close(fd);
		}
	}
	c->patient = c->patient || word;
	return word && n == 1 ? -EAGAIN : n - word;
}

static void read_up(struct relay *r, struct channel *c)
{
	size_t room;
	uint8_t *to = relay_room(r, &room);
	ssize_t n;

	room = MIN(room, (size_t)c->credit);
	if (!room)
		return;
	n = receive(c, to, room);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n < 0) { /* it has closed with something unread: so does the other side, without a word */
		reset(r, c);
		return;
	}
	if (n == 0) {
		c->up_ended = true;
		relay_say(r, BRIDGE_END, c->id, NULL, 0);
		return;
	}
	c->credit -= (uint32_t)n;
	relay_said_data(r, c->id, (size_t)n);
}

static void tell_credit(struct relay *r, struct channel *c, size_t taken)
{
	uint32_t owed;

	c->owed += (uint32_t)taken;
	if (c->owed < CREDIT_AT || c->down_ended)
		return;
	owed = htole32(c->owed);
	c->owed = 0;
	relay_say(r, BRIDGE_CREDIT, c->id, &owed, sizeof(owed));
}

static void write_down(struct relay *r, struct channel *c)
{
	ssize_t n;

	if (c->down_have) {
		n = send(c->fd, c->down + c->down_at, c->down_have, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			reset(r, c);
			return;
		}
		n = MAX(n, 0);
		c->down_at += (size_t)n;
		c->down_have -= (size_t)n;
		tell_credit(r, c, (size_t)n);
	}
	if (!c->down_have)
		freep(&c->down);
	if (!c->down_have && c->down_ended && !c->told) {
		c->told = true;
		shutdown(c->fd, SHUT_WR);
	}
}

void channel_event(struct relay *r, struct channel *c, unsigned events)
{
	if (c->gone)
		return;
	if (c->state == CHANNEL_NEW) {
		take_request(r, c);
		return;
	}
	if (c->state == CHANNEL_ASKER) {
		if (c->asker) /* only its end is told of now */
			end(r, c);
		else
			ask(r, c);
		return;
	}
	if (c->state == CHANNEL_OPENING) {
		reset(r, c); /* the engine has given up */
		return;
	}
	if (events & EPOLLOUT)
		write_down(r, c);
	if (!c->gone && !c->up_ended && events & (EPOLLIN | EPOLLHUP | EPOLLERR) && c->credit)
		read_up(r, c);
	if (!c->gone && c->up_ended && events & (EPOLLHUP | EPOLLERR)) {
		if (c->down_ended)
			end(r, c);
		else
			close_engine(c); /* what still comes is answered by RESET */
	}
	if (!c->gone)
		watch(r, c);
}

/* --- the other side --- */

static int connect_entrance(const struct relay *r, struct err *e)
{
	const struct bridge_record *b = r->b.record;
	const struct sockaddr_in own = bridge_address(b->self), peer = bridge_address(b->node);
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	char path[BRIDGE_PATH_MAX];

	if (fd < 0)
		return err_sys(e, -errno, "socket");
	bridge_entrance(path);
	memcpy(to.sun_path, path, sizeof(path));
	bridge_name_end(fd, &peer, &own, b->peer, b->own);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		return err_set(e, -ECONNREFUSED, "connecting to %s: does godwitd run there?", b->self);
	greet(fd, 0, b->node);
	return take_fd(&fd);
}

static void say_refused(struct relay *r, uint32_t id, const struct err *e)
{
	uint8_t data[BRIDGE_REFUSED_MAX];
	uint32_t code = htole32((uint32_t)-e->code);
	size_t len = MIN(strlen(e->message), sizeof(data) - sizeof(code));

	memcpy(data, &code, sizeof(code));
	memcpy(data + sizeof(code), e->message, len);
	relay_say(r, BRIDGE_REFUSED, id, data, sizeof(code) + len);
}

static void on_open(struct relay *r, uint32_t id)
{
	struct err e = ERR_INIT;
	struct channel *c;
	int fd;

	if ((id & 1) == (r->b.record->ours ? 0 : 1) || *slot_of(r, id)) {
		if (find(r, id) || (id & 1) == (r->b.record->ours ? 0 : 1)) {
			relay_lose(r, -EPROTO, "nonsense over ssh: a connection that is there already");
			return;
		}
		err_set(&e, -EBUSY, "the bridge has as many connections as it can have");
		say_refused(r, id, &e);
		return;
	}
	fd = connect_entrance(r, &e);
	c = fd >= 0 ? make(r, fd) : NULL;
	if (!c) {
		close_fdp(&fd);
		say_refused(r, id, &e);
		return;
	}
	c->id = id;
	*slot_of(r, id) = c;
	c->state = CHANNEL_OPEN;
	relay_say(r, BRIDGE_OPENED, id, NULL, 0);
	watch(r, c);
}

static void on_opened(struct relay *r, struct channel *c)
{
	if (c->state != CHANNEL_OPENING)
		return;
	c->state = CHANNEL_OPEN;
	if (!c->answer) {
		greet(c->fd, 0, r->b.record->node);
		watch(r, c);
		return;
	}
	relay_say(r, BRIDGE_DATA, c->id, c->answer + TLS_ANSWER_MAX, c->question_len);
}

static void on_refused(struct relay *r, struct channel *c, const uint8_t *data, size_t len)
{
	char text[BRIDGE_REFUSED_MAX];
	uint32_t code;
	size_t n = len - sizeof(code);

	memcpy(&code, data, sizeof(code));
	code = le32toh(code);
	for (size_t i = 0; i < n; i++)
		text[i] = (char)(iscntrl(data[sizeof(code) + i]) ? '?' : data[sizeof(code) + i]);
	text[n] = 0;
	if (c->state != CHANNEL_OPENING)
		return;
	if (c->fd >= 0)
		greet(c->fd, code && code < 4096 ? -(int)code : -EPROTO, text);
	if (c->answer)
		answer(r, c);
	else
		end(r, c);
}

static void on_data(struct relay *r, struct channel *c, const uint8_t *data, size_t len)
{
	size_t sent = 0;

	if (c->answer) {
		size_t more = MIN(len, (size_t)TLS_ANSWER_MAX - c->answer_len);

		memcpy(c->answer + c->answer_len, data, more);
		c->answer_len += (uint16_t)more;
		return;
	}
	if (c->fd < 0 || c->down_ended || c->state != CHANNEL_OPEN) {
		reset(r, c);
		return;
	}
	if (!c->down_have) {
		ssize_t n = send(c->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			reset(r, c);
			return;
		}
		sent = (size_t)MAX(n, 0);
		tell_credit(r, c, sent);
	}
	if (sent == len)
		return;
	if (!c->down && !(c->down = malloc(BRIDGE_WINDOW))) {
		reset(r, c);
		return;
	}
	if (c->down_have + len - sent > BRIDGE_WINDOW) {
		relay_lose(r, -EPROTO, "more came over ssh than was allowed");
		return;
	}
	if (c->down_at + c->down_have + len - sent > BRIDGE_WINDOW || !c->down_have) {
		memmove(c->down, c->down + c->down_at, c->down_have);
		c->down_at = 0;
	}
	memcpy(c->down + c->down_at + c->down_have, data + sent, len - sent);
	c->down_have += len - sent;
	watch(r, c);
}

static void on_end(struct relay *r, struct channel *c)
{
	c->down_ended = true;
	if (c->answer) {
		answer(r, c);
		return;
	}
	if (c->fd < 0) {
		end(r, c);
		return;
	}
	write_down(r, c);
	if (!c->gone)
		watch(r, c);
}

void channel_frame(struct relay *r, const struct bridge_frame *f, const uint8_t *data)
{
	struct channel *c = find(r, f->channel);
	uint32_t more;

	if (f->type == BRIDGE_OPEN) {
		on_open(r, f->channel);
		return;
	}
	if (!c || c->gone)
		return;
	switch (f->type) {
	case BRIDGE_OPENED:
		on_opened(r, c);
		break;
	case BRIDGE_REFUSED:
		on_refused(r, c, data, f->len);
		break;
	case BRIDGE_DATA:
		on_data(r, c, data, f->len);
		break;
	case BRIDGE_END:
		on_end(r, c);
		break;
	case BRIDGE_RESET:
		if (c->state == CHANNEL_OPENING && c->fd >= 0)
			greet(c->fd, -ECONNRESET, "the other side of the bridge has ended the connection");
		if (c->answer)
			answer(r, c);
		else
			end(r, c);
		break;
	case BRIDGE_CREDIT:
		memcpy(&more, data, sizeof(more));
		more = le32toh(more);
		if (more > BRIDGE_WINDOW || c->credit + more > BRIDGE_WINDOW) {
			relay_lose(r, -EPROTO, "nonsense over ssh: more credit than there is");
			return;
		}
		c->credit += more;
		watch(r, c);
		break;
	default:
		break;
	}
}

/* --- all --- */

void channels_reset(struct relay *r, bool patient_too)
{
	for (struct channel *c = r->all; c; c = c->next) {
		if (c->gone || c->state < CHANNEL_OPENING || (c->patient && !patient_too))
			continue;
		if (c->state == CHANNEL_OPENING && c->fd >= 0)
			greet(c->fd, r->lost ? -ECONNRESET : -ETIMEDOUT, r->lost ? "the bridge over ssh has ended" : "the host at the other side of the bridge does not answer");
		if (c->answer)
			answer(r, c);
		else
			reset(r, c);
	}
}

size_t channels_in_use(const struct relay *r)
{
	size_t n = 0;

	for (const struct channel *c = r->all; c; c = c->next)
		n += !c->gone && c->state != CHANNEL_ASKER;
	return n;
}

void channels_tick(struct relay *r)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	for (struct channel *c = r->all; c; c = c->next)
		if (!c->gone && c->answer && now >= c->deadline_ns)
			answer(r, c);
	for (struct channel **at = &r->all; *at;) {
		struct channel *c = *at;

		if (!c->gone) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		free(c->answer);
		free(c->down);
		free(c);
		r->n_channels--;
	}
}
