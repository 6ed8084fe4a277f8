// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * peer.c - connections from other nodes
 *
 * Each begins with a HELLO, whose role says what becomes of it: CONTROL starts a destination worker; NODE_INFO is answered
 * here, and so is ASK, from the records of the destination workers; ORDER is a request that another node hands on (client.c), NET is news for a worker of its own (do_net.c), RESERVE, WORK and KEEP questions for one (reserve.c, work.c, keep_serve.c); every other role belongs to a migration and is handed on to its worker (struct link_handoff). Bytes that follow the HELLO are
 * left in the socket for the worker.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/util.h"
#include "daemon/daemon.h"
#include "daemon/history.h"
#include "daemon/fence.h"
#include "daemon/keep.h"
#include "daemon/node_state.h"
#include "daemon/portable.h"
#include "daemon/reply.h"
#include "daemon/reserve.h"
#include "daemon/work.h"
#include "home/door.h"
#include "migrate/migrate.h"
#include "migrate/outcome.h"
#include "wire/bridge.h"
#include "wire/conn.h"
#include "wire/tls.h"

void peer_drop(struct peer *p)
{
	close_fdp(&p->fd);
	frame_reader_free(&p->reader);
}

/* -1: the connection is lost. */
static int take_relay(int fd, const struct sockaddr_in *from)
{
	struct err e = ERR_INIT;
	int relay = tls_begin(TLS_ACCEPT, fd, from, TLS_HANDSHAKE_MS, &e);

	if (relay < 0)
		log_error("event=peer-lost error=\"%s\"", e.message);
	return MAX(relay, -1);
}

/* For one more; the oldest gives way. */
static struct peer *place(struct daemon *d)
{
	struct peer *p = &d->peers[0];

	for (size_t i = 0; i < PEERS_PENDING_MAX && p->fd >= 0; i++)
		if (d->peers[i].fd < 0 || d->peers[i].deadline_ns < p->deadline_ns)
			p = &d->peers[i];
	peer_drop(p);
	p->greeted = p->bridged = false;
	p->deadline_ns = clock_ns(CLOCK_MONOTONIC) + PENDING_TIMEOUT_MS * 1000000ull;
	return p;
}

void peer_accept(struct daemon *d)
{
	struct sockaddr_in from = { 0 };
	socklen_t len = sizeof(from);
	cleanup_close int fd = accept4(d->tcp_fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct peer *p;

	if (fd < 0)
		return;
	conn_tune(fd);
	p = place(d);
	p->relayed = tls_is_used();
	p->fd = p->relayed ? take_relay(fd, &from) : take_fd(&fd);
	conn_address_text(&from, p->address);
}

void peer_accept_bridged(struct daemon *d)
{
	cleanup_close int fd = accept4(d->bridge_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred who = { .uid = (uid_t)-1 };
	struct sockaddr_in own, from;
	struct peer *p;

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &(socklen_t){ sizeof(who) }) < 0 || who.uid != 0 || bridge_addresses(fd, false, &own, &from) < 0)
		return;
	p = place(d);
	p->relayed = p->bridged = true;
	p->fd = take_fd(&fd);
	snprintf(p->address, sizeof(p->address), "ssh");
}

void set_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0)
		fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

static void id_text(const uint8_t id[HELLO_MIG_ID_BYTES], char text[9])
{
	snprintf(text, 9, "%02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
}

/* Gives a connection to the worker of its migration. Never blocks: a worker that does not take its connections loses this one. */
static int hand_on(const struct worker *w, int fd, const Gw__Hello *hello, struct err *e)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct link_handoff what = { .role = hello->role, .process = hello->process };
	struct iovec iov = { &what, sizeof(what) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	if (sendmsg(w->handoff, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return err_sys(e, -errno, "handing the connection to worker %d", (int)w->pid);
	return 0;
}

/* Runs in the worker. */
static int serve_dest(const struct daemon *d, int control, const struct frame *hello, int handoff, bool back_only)
{
	char unit[MIGRATE_UNIT_MAX];
	struct err e = ERR_INIT;
	int r;

	admission_use(&d->config.arriving);
	admission_only_back_to(back_only ? d->config.name : NULL);
	protection_use(fence_why_not);
	r = migrate_dest(control, hello->payload, hello->len, handoff, d->config.name, unit, &e);
	reserve_over(d->reserved, unit, r == 0);
	if (unit[0] && r != -ECANCELED) /* a question is no move, and neither is who does not come so far */
		history_arrived(d->history, r == 0, migrate_dest_faults());
	if (r == -ECANCELED)
		log_info("event=arrival-cancelled text=\"%s\"", e.message);
	else if (r < 0)
		log_error("event=arrival-failed error=\"%s\"", e.message);
	return r < 0;
}

/* Whoever has a bridge to a host has not made a node of it that may do here what nodes may. */
static bool is_limited(const struct peer *p, const Gw__Hello *hello)
{
	struct bridge_record record;

	return p->bridged && !(bridge_find(hello->node_name, &record) && (!record.ours || bridge_lets_both(&record)));
}

static int check_limits(const struct peer *p, const Gw__Hello *hello, struct err *e)
{
	if (!is_limited(p, hello))
		return 0;
	if (hello->role <= ROLE_BULK || hello->role == ROLE_NODE_INFO || hello->role == ROLE_ASK || hello->role == ROLE_HOME)
		return 0;
	return err_set(e, -EACCES, "it is at the other end of a bridge that was made from here, and may only send back what has come from here: ask on this host, or make a bridge from there");
}

/* Whether a unit may begin to arrive by the migration that hello names, whose text *id receives. */
static int may_arrive(struct daemon *d, const Gw__Hello *hello, char id[9], struct err *e)
{
	id_text(hello->mig_id.data, id);
	if (*node_state_why(d->shared))
		return err_set(e, -EBUSY, "%s takes no units: %s", d->config.name, node_state_why(d->shared));
	if (worker_find_dest(d, hello->mig_id.data))
		return err_set(e, -EALREADY, "migration %s is under way here already", id);
	return 0;
}

/* Its worker has been started. */
static void note_arrival(struct daemon *d, struct worker *w, const Gw__Hello *hello, const char *more)
{
	char id[9];

	id_text(hello->mig_id.data, id);
	cluster_view_sent(d->view, gossip_id(d->config.name), 1, 0);
	memcpy(w->mig_id, hello->mig_id.data, sizeof(w->mig_id));
	snprintf(w->peer, sizeof(w->peer), "%s", hello->node_name);
	log_info("event=arriving mig=%s from=%s worker=%d%s", id, hello->node_name, (int)w->pid, more);
}

static int start_dest(struct daemon *d, const struct peer *p, const struct frame *frame, const Gw__Hello *hello, struct err *e)
{
	cleanup_close int ours = -1, theirs = -1;
	bool back_only = is_limited(p, hello);
	int fd = p->fd;
	struct worker *w;
	char id[9];
	int pair[2];
	bool child;

	if (may_arrive(d, hello, id, e) < 0)
		return e->code;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, -errno, "socketpair");
	ours = pair[0];
	theirs = pair[1];
	set_blocking(fd);
	w = worker_start(d, WORKER_DEST, (int[]){ fd, theirs }, 2, &child, e);
	if (child) {
		prctl(PR_SET_NAME, "godwit-dest");
		log_set_context("mig=%s side=dest", id);
		_exit(serve_dest(d, fd, frame, theirs, back_only));
	}
	if (!w)
		return e->code;
	w->handoff = take_fd(&ours);
	note_arrival(d, w, hello, "");
	return 0;
}

/* A program that says itself what its state is: no further connections belong to it. */
static int start_portable(struct daemon *d, int fd, const Gw__Hello *hello, struct err *e)
{
	struct worker *w;
	char id[9];
	bool child;

	if (may_arrive(d, hello, id, e) < 0)
		return e->code;
	set_blocking(fd);
	w = worker_start(d, WORKER_DEST, &fd, 1, &child, e);
	if (child) {
		prctl(PR_SET_NAME, "godwit-dest");
		log_set_context("mig=%s side=dest", id);
		_exit(portable_arrive(d, fd, hello) < 0);
	}
	if (!w)
		return e->code;
	note_arrival(d, w, hello, " portable=1");
	return 0;
}

/* To the surrogate parent of a unit, which may have been started by an earlier godwitd. */
static int hand_home(int fd, const uint8_t mig_id[HELLO_MIG_ID_BYTES], struct err *e)
{
	cleanup_close int door = -1;
	const uint8_t word = DOOR_LINK;
	char name[DOOR_NAME_MAX];

	door_name_of_migration(mig_id, name);
	door = door_connect(name, e);
	return door < 0 ? door : door_send(door, &word, 1, &fd, 1, e);
}

static int dispatch(struct daemon *d, const struct peer *p, const struct frame *frame, const Gw__Hello *hello, struct err *e)
{
	int fd = p->fd;
	struct worker *w;
	char id[9];

	if (check_limits(p, hello, e) < 0) {
		if (hello->role != ROLE_ORDER)
			return e->code;
		reply_error(fd, "permission", e, NULL, NULL); /* who orders reads lines, and no frames */
		drain(fd);
		return 0;
	}

	if (hello->role == ROLE_NODE_INFO)
		return node_info_send(d, fd, e);
	if (hello->role == ROLE_ASK)
		return outcome_answer(fd, hello->mig_id.data, e);
	if (hello->role == ROLE_HOME)
		return hand_home(fd, hello->mig_id.data, e);
	if (hello->role == ROLE_ORDER) {
		client_adopt(d, fcntl(fd, F_DUPFD_CLOEXEC, 0));
		return 0;
	}
	if (hello->role == ROLE_NET)
		return net_news(d, fd, hello, e);
	if (hello->role == ROLE_RESERVE)
		return reserve_serve(d, fd, hello, e);
	if (hello->role == ROLE_WORK)
		return work_serve(d, fd, e);
	if (hello->role == ROLE_KEEP)
		return keep_serve(d, fd, hello, e);
	if (hello->role == ROLE_PORTABLE)
		return start_portable(d, fd, hello, e);
	if (hello->role == ROLE_CONTROL)
		return start_dest(d, p, frame, hello, e);
	w = worker_find_dest(d, hello->mig_id.data);
	if (!w) {
		id_text(hello->mig_id.data, id);
		return err_set(e, -ENOENT, "no migration %s is under way on %s", id, d->config.name);
	}
	set_blocking(fd);
	return hand_on(w, fd, hello, e);
}

/* Over TLS and bridges the first thing is what its relay says of it. 1: its bytes may be read, 0: not yet, or it has been dropped. */
static int hear_greeting(struct peer *p)
{
	struct err e = ERR_INIT;
	int r;

	if (!p->relayed || p->greeted)
		return 1;
	r = tls_greeting_take(p->fd, p->names, &e);
	if (r == -EAGAIN)
		return 0;
	p->greeted = r == 0;
	if (r < 0) {
		log_warning("event=peer-refused peer=%s error=\"%s\"", p->address, e.message);
		peer_drop(p);
	}
	return 0;
}

/* The first bytes of TLS, where none is expected. */
static bool begins_tls(int fd)
{
	uint8_t first[2];

	return recv(fd, first, sizeof(first), MSG_PEEK | MSG_DONTWAIT) == (ssize_t)sizeof(first) && first[0] == 0x16 && first[1] == 3;
}

static int read_hello(struct peer *p, struct frame *frame, Gw__Hello **ret, struct err *e)
{
	int r;

	if (!p->relayed && !p->reader.have && begins_tls(p->fd))
		return err_set(e, -EPROTO, "%s speaks TLS, and this node has no [tls] in its godwit.conf: set it here as well (`godwit pki issue`), or remove it there", p->address);
	r = frame_reader_step(&p->reader, p->fd, FRAME_HELLO_MAX, frame, e);
	if (r <= 0)
		return r;
	if (frame->type != FRAME_HELLO)
		return err_set(e, -EPROTO, "expected HELLO as the first frame, got %s (type %u)", frame_type_name(frame->type), frame->type);
	r = hello_decode(frame->payload, frame->len, ret, e);
	if (r == 0 && p->greeted && !tls_names_have(p->names, (*ret)->node_name))
		return err_set(e, -EACCES, "it says that it is %s, and its certificate (or the bridge that it comes over) is for %s", (*ret)->node_name, p->names);
	return r < 0 ? r : 1;
}

void peer_input(struct daemon *d, struct peer *p)
{
	cleanup_frame struct frame frame = { 0 };
	cleanup_hello Gw__Hello *hello = NULL;
	struct err e = ERR_INIT;
	int r = hear_greeting(p) ? read_hello(p, &frame, &hello, &e) : 0;

	if (!r)
		return;
	if (r > 0)
		r = dispatch(d, p, &frame, hello, &e);
	if (r < 0) {
		log_warning("event=peer-refused peer=%s error=\"%s\"", p->address, e.message);
		if (r != -ECONNRESET) {
			frame_send_error(p->fd, r, e.message, NULL);
			drain(p->fd);
		}
	}
	peer_drop(p);
}
