/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_tcp.c - TCP connections at the source; see socket_tcp.h */
#include "image/socket_tcp.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/ns.h"
#include "image/socket_address.h"
#include "image/socket_options.h"
#include "image/tcp_outside.h"
#include "kern/tcp_peek.h"

#define URGENT_READ 0x400u      /* in the kernel's urg_data */
#define TCPI_OPT_USEC 64u       /* TCPI_OPT_USEC_TS, of newer headers */
#define PEEK_SLACK (1u << 20)   /* the first segment of a send queue may be acknowledged in part */

bool socket_tcp_is_one(const Gw__FdSocket *s)
{
	return (s->family == AF_INET || s->family == AF_INET6) && s->type == SOCK_STREAM && s->protocol == IPPROTO_TCP;
}

static struct endpoint local_of(const struct tcp_record *r)
{
	struct endpoint p = { .port = htons((uint16_t)r->local_port) };

	memcpy(&p.address, r->local, sizeof(p.address));
	return p;
}

static struct endpoint peer_of(const struct tcp_record *r)
{
	struct endpoint p = { .port = htons((uint16_t)r->peer_port) };

	memcpy(&p.address, r->peer, sizeof(p.address));
	return p;
}

/* --- who is whose other end --- */

enum owner { OWNER_NONE, OWNER_KERNEL, OWNER_PROCESS };

/* Who has the other end of a connection: a process, the kernel (not accepted yet, or closed but not ended), or nobody. */
static enum owner find_owner(const struct tcp_record *r)
{
	/* Opened once: to close it takes milliseconds. */
	static int nl = -1;
	struct endpoint local = peer_of(r), peer = local_of(r);
	bool mapped = IN6_IS_ADDR_V4MAPPED(&local.address);
	struct {
		struct nlmsghdr head;
		struct inet_diag_req_v2 request;
	} message = {
		.head = { .nlmsg_len = sizeof(message), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST },
		.request = { .sdiag_family = mapped ? AF_INET : AF_INET6, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u },
	};
	struct inet_diag_sockid *id = &message.request.id;
	_Alignas(struct nlmsghdr) char answer[4096];
	const struct nlmsghdr *head = (void *)answer;
	ssize_t n;

	if (nl < 0)
		nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	id->idiag_sport = local.port;
	id->idiag_dport = peer.port;
	id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	memcpy(id->idiag_src, &local.address.s6_addr[mapped ? 12 : 0], mapped ? 4 : 16);
	memcpy(id->idiag_dst, &peer.address.s6_addr[mapped ? 12 : 0], mapped ? 4 : 16);
	n = nl < 0 || send(nl, &message, sizeof(message), 0) < 0 ? -1 : recv(nl, answer, sizeof(answer), 0);
	if (n < (ssize_t)sizeof(*head))
		return OWNER_PROCESS;
	if (head->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return OWNER_NONE;
	return ((const struct inet_diag_msg *)NLMSG_DATA(head))->idiag_inode ? OWNER_PROCESS : OWNER_KERNEL;
}

static void refuse(struct tcp_member *m, const char *why, const char *way_out)
{
	m->class = TCP_CLASS_REFUSED;
	m->why = why;
	m->way_out = way_out;
}

static void link_as(struct tcp_member *m, Gw__FdTcpKind kind)
{
	m->class = TCP_CLASS_LINKED;
	m->kind = kind;
}

/* It has ended, in good order. */
static bool is_over(const struct tcp_record *r)
{
	return r->state == TCP_CLOSE && r->peer_port && r->flags & TCP_RECORD_FINISHED && r->shut_down == 3 && !r->error;
}

static bool has_sent_end(const struct tcp_record *r)
{
	return is_over(r) || r->state == TCP_FIN_WAIT1 || r->state == TCP_FIN_WAIT2 || r->state == TCP_CLOSING || r->state == TCP_LAST_ACK;
}

/* Both addresses are ones that the destination has as well. */
static bool is_at_home(const struct tcp_record *r)
{
	struct endpoint local = local_of(r), peer = peer_of(r);

	if (ns_has_net())
		return endpoint_is_local(&local) && endpoint_is_local(&peer);
	return endpoint_is_loopback(&local) && endpoint_is_loopback(&peer);
}

/* What has its other end outside of the unit. why, way_out: when such cannot move. */
static void sort_outside(struct tcp_member *m, const char *why, const char *way_out)
{
	const char *obstacle, *way = NULL;

	if (tcp_outside_policy() == TCP_OUTSIDE_REFUSE || m->foreign || ns_has_net()) {
		refuse(m, why, way_out);
		return;
	}
	obstacle = tcp_outside_policy() == TCP_OUTSIDE_KEEP ? tcp_outside_obstacle(m->record, &way) : NULL;
	if (obstacle)
		refuse(m, obstacle, way);
	else if (tcp_outside_policy() == TCP_OUTSIDE_CLOSE)
		m->class = TCP_CLASS_FREE;
	else
		link_as(m, GW__FD_TCP_KIND__TCP_OUTSIDE);
}

static void sort_ended(struct tcp_member *m)
{
	const struct tcp_record *r = m->record;
	bool at_home = r->peer_port && is_at_home(r);

	if (!r->peer_port || (!at_home && !r->error && !tcp_unread_bytes(r)))
		m->class = TCP_CLASS_FREE;
	else if (r->error && r->error != ECONNRESET && r->error != EPIPE && (r->error != ECONNREFUSED || !at_home))
		refuse(m, "an error of its connection that has not been reported cannot move", "let the program read it (SO_ERROR) first");
	else if (!at_home)
		sort_outside(m, "what a connection to another host has left cannot move yet", "let the program read it first");
	else
		link_as(m, GW__FD_TCP_KIND__TCP_ENDED);
}

/* One whose other end is in no process of the unit. */
static void sort_lonely(struct tcp_member *m)
{
	enum owner owner = is_at_home(m->record) ? find_owner(m->record) : OWNER_PROCESS;

	if (owner == OWNER_PROCESS || tcp_outside_is_elsewhere(m->record))
		sort_outside(m, "connected sockets cannot move yet, unless both ends do", "close the connection first");
	else if (m->record->flags & TCP_RECORD_FINISHED)
		link_as(m, GW__FD_TCP_KIND__TCP_HALF);
	else if (owner == OWNER_NONE)
		refuse(m, "its other end has vanished", "try again when the program has noticed");
	else
		refuse(m, "its other end waits to be accepted by another process, or was closed with data under way", "try again later");
}

/* Records with the same key are two ends: the smaller endpoint comes first. */
struct key {
	struct endpoint a, b;
	struct tcp_member *m;
};

static int compare_keys(const void *x, const void *y)
{
	const struct key *p = x, *q = y;
	int c = memcmp(&p->a, &q->a, sizeof(p->a));

	return c ? c : memcmp(&p->b, &q->b, sizeof(p->b));
}

static struct key key_of(struct tcp_member *m)
{
	struct key k;

	memset(&k, 0, sizeof(k));
	k.a = local_of(m->record);
	k.b = peer_of(m->record);
	k.m = m;
	if (memcmp(&k.a, &k.b, sizeof(k.a)) > 0) {
		struct endpoint swap = k.a;

		k.a = k.b;
		k.b = swap;
	}
	return k;
}

static bool is_connected(const struct tcp_member *m)
{
	static const unsigned states = 1u << TCP_ESTABLISHED | 1u << TCP_FIN_WAIT1 | 1u << TCP_FIN_WAIT2 | 1u << TCP_CLOSE_WAIT |
		1u << TCP_LAST_ACK | 1u << TCP_CLOSING;

	return states >> m->record->state & 1 && !m->foreign;
}

static void make_pairs(struct tcp_member *m, size_t n, struct tcp_member *waiting, size_t n_waiting)
{
	cleanup_free struct key *keys = fd_alloc((n + n_waiting) * sizeof(*keys));
	size_t n_keys = 0;

	for (size_t i = 0; i < n; i++)
		if (is_connected(&m[i]) || (is_over(m[i].record) && !m[i].foreign))
			keys[n_keys++] = key_of(&m[i]);
	for (size_t i = 0; i < n_waiting; i++)
		keys[n_keys++] = key_of(&waiting[i]);
	qsort(keys, n_keys, sizeof(*keys), compare_keys);
	for (size_t i = 0; i < n_keys; i++) {
		/* A socket can be connected to itself. */
		if (!memcmp(&keys[i].a, &keys[i].b, sizeof(keys[i].a)))
			keys[i].m->other = keys[i].m;
		if (i && !keys[i - 1].m->other && compare_keys(&keys[i - 1], &keys[i]) == 0) {
			keys[i].m->other = keys[i - 1].m;
			keys[i - 1].m->other = keys[i].m;
		}
	}
	/* Of two ends one may have ended before the other has heard of it. */
	for (size_t i = 0; i < n_keys; i++) {
		struct tcp_member *x = keys[i].m, *y = x->other;

		if (y && is_over(x->record) && y->record->state != TCP_LAST_ACK)
			x->other = y->other = NULL;
	}
}

/* Whether who calls is of the unit, and has not heard anything yet: it calls again. */
static bool is_of_unit(const struct tcp_member *m, size_t n, const struct tcp_record *call)
{
	struct endpoint local = peer_of(call), peer = local_of(call);

	for (size_t i = 0; i < n; i++) {
		struct endpoint a = local_of(m[i].record), b = peer_of(m[i].record);

		if (m[i].record->state == TCP_SYN_SENT && endpoint_same(&a, &local) && endpoint_same(&b, &peer))
			return true;
	}
	return false;
}

static bool can_be_put(const struct tcp_member *listener)
{
	char device[64];
	socklen_t len = sizeof(device);

	if (!tcp_outside_takes_waiting() || tcp_outside_policy() != TCP_OUTSIDE_KEEP || listener->foreign || ns_has_net())
		return false;
	/* What puts them in comes by the loopback device. */
	return getsockopt(listener->held, SOL_SOCKET, SO_BINDTODEVICE, device, &len) < 0 || !len || !device[0];
}

/* What a client of the unit has begun is made again by its call. As long as the program runs it may accept the others. */
static void sort_waiting(struct tcp_member *listener, struct tcp_member *w, bool of_unit, bool frozen)
{
	bool calling = w->record->flags & TCP_RECORD_CALLING, ended = w->record->state == TCP_CLOSE || w->record->flags & TCP_RECORD_FINISHED;

	w->gone = !w->other && !calling && ended && is_at_home(w->record) && find_owner(w->record) != OWNER_PROCESS;
	w->outside = frozen && !w->other && !w->gone && !of_unit && can_be_put(listener);
	if (w->other || w->gone || w->outside || calling || tcp_outside_policy() == TCP_OUTSIDE_CLOSE)
		return;
	if (frozen || tcp_outside_policy() == TCP_OUTSIDE_REFUSE)
		refuse(listener, "connections of others wait in its accept queue, and such cannot move yet", "try again when the program has accepted them");
}

static void sort_listening(struct tcp_member *m, const struct tcp_member *all, size_t n, bool frozen)
{
	m->class = TCP_CLASS_LISTENING;
	m->code = "fd.socket.accept-queue";
	for (size_t i = 0; i < m->n_waiting && m->class != TCP_CLASS_REFUSED; i++) {
		const struct tcp_record *r = m->waiting[i].record;

		sort_waiting(m, &m->waiting[i], r->flags & TCP_RECORD_CALLING && is_of_unit(all, n, r), frozen);
	}
}

void socket_tcp_sort(struct tcp_member *m, size_t n, struct tcp_member *waiting, size_t n_waiting, bool frozen)
{
	for (size_t i = 0; i < n; i++)
		m[i].foreign = m[i].held < 0 ? m[i].foreign : !socket_same_net_namespace(m[i].held);
	make_pairs(m, n, waiting, n_waiting);
	for (size_t i = 0; i < n; i++) {
		const struct tcp_record *r = m[i].record;

		if (r->flags & (TCP_RECORD_MPTCP | TCP_RECORD_ULP))
			refuse(&m[i], r->flags & TCP_RECORD_ULP ? "a protocol on top of it in the kernel (TCP_ULP) cannot move" :
				"MPTCP connections cannot move yet", "close the connection first");
		else if (r->flags & TCP_RECORD_SIGNED)
			refuse(&m[i], "keys that sign its segments (TCP_MD5SIG, TCP_AO) cannot move", "use it without");
		else if (r->flags & TCP_RECORD_TELLING)
			refuse(&m[i], "what the kernel tells of data that it has sent (MSG_ERRQUEUE) waits to be read, and such cannot move", "try again when the program has read it");
		else if (r->flags & TCP_RECORD_LENDING)
			refuse(&m[i], "it is sent to with MSG_ZEROCOPY, and the kernel's count of that cannot move", "close the connection first");
		else if (r->state == TCP_LISTEN)
			sort_listening(&m[i], m, n, frozen);
		else if (r->state == TCP_CLOSE && !m[i].other)
			sort_ended(&m[i]);
		else if (r->state == TCP_SYN_SENT && is_at_home(r))
			link_as(&m[i], GW__FD_TCP_KIND__TCP_CONNECTING);
		else if (m[i].other && is_at_home(r))
			link_as(&m[i], m[i].other->waits ? GW__FD_TCP_KIND__TCP_WAITING : GW__FD_TCP_KIND__TCP_PAIR);
		else if (is_connected(&m[i]))
			sort_lonely(&m[i]);
		else if (r->state == TCP_SYN_SENT)
			sort_outside(&m[i], "connected sockets cannot move yet, unless both ends do", "close the connection first");
		else
			refuse(&m[i], "connected sockets cannot move yet, unless both ends do", "close the connection first");
	}
	for (size_t i = 0; i < n; i++)
		if (m[i].other && (m[i].class == TCP_CLASS_REFUSED || m[i].other->class == TCP_CLASS_REFUSED))
			m[i].other = NULL;
}

static bool is_idle(const struct tcp_record *r)
{
	return r->state == TCP_ESTABLISHED && !r->error && !r->shut_down && !(r->flags & TCP_RECORD_FINISHED) && !tcp_unread_bytes(r) && r->write_seq == r->snd_una;
}

bool socket_tcp_is_quiet(const struct tcp_member *m)
{
	if (m->class != TCP_CLASS_LINKED || !is_idle(m->record))
		return false;
	return m->kind == GW__FD_TCP_KIND__TCP_OUTSIDE || (m->kind == GW__FD_TCP_KIND__TCP_PAIR && m->other && is_idle(m->other->record));
}

static bool is_endpoint(struct endpoint p, const ProtobufCBinaryData *b)
{
	struct endpoint q = endpoint_of(b);

	return (!p.port && !b->len) || endpoint_same(&p, &q);
}

bool socket_tcp_is_same(const struct tcp_member *m, const Gw__FdSocket *s)
{
	if (m->class == TCP_CLASS_REFUSED)
		return true;
	if ((m->leaked ? s->local.len > 0 : !is_endpoint(local_of(m->record), &s->local)) || s->listening != (m->class == TCP_CLASS_LISTENING) || !s->tcp != (m->class != TCP_CLASS_LINKED))
		return false;
	if (m->class == TCP_CLASS_FREE)
		return s->shut_down == (m->record->shut_down & 3);
	return m->class != TCP_CLASS_LINKED || (s->tcp->kind == m->kind && is_endpoint(peer_of(m->record), &s->peer) &&
		s->tcp->other == (m->other && m->kind != GW__FD_TCP_KIND__TCP_OUTSIDE ? m->other->desc + 1 : 0));
}

/* --- what is carried --- */

static void capture_state(const struct tcp_record *r, Gw__FdTcp *p)
{
	p->sent_end = has_sent_end(r);
	p->got_end = (r->flags & TCP_RECORD_FINISHED) != 0;
	p->deaf = (r->shut_down & 1) && !p->got_end;
	p->error = r->error;
	if (p->kind == GW__FD_TCP_KIND__TCP_OUTSIDE)
		tcp_outside_capture(r, p);
}

/* A filter that is locked can be attached only once. */
bool socket_tcp_may_be_quiet(const Gw__FdSocket *s)
{
	const Gw__FdTcp *p = s->tcp;

	if (p->kind != GW__FD_TCP_KIND__TCP_PAIR && (p->kind != GW__FD_TCP_KIND__TCP_OUTSIDE || !tcp_outside_may_be_idle(p)))
		return false;
	return !p->received.len && !p->unsent.len && !p->sent_end && !p->got_end && !p->deaf && !p->error &&
		socket_options_int(s->options, s->n_options, SOL_SOCKET, SO_LOCK_FILTER) <= 0;
}

static void capture_link(const struct tcp_member *m, Gw__FdTcp *p)
{
	const struct tcp_record *r = m->record;
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	p->kind = m->kind;
	/* Of two ends that are outside each has an address of a host. */
	p->other = m->other && m->kind != GW__FD_TCP_KIND__TCP_OUTSIDE ? m->other->desc + 1 : 0;
	capture_state(r, p);
	p->user_segment_bytes = r->user_mss;
	getsockopt(m->held, IPPROTO_TCP, TCP_INFO, &info, &len);
	p->segment_bytes = info.tcpi_snd_mss;
	p->options = info.tcpi_options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE | TCPI_OPT_USEC);
	p->send_scale = info.tcpi_snd_wscale;
	p->receive_scale = info.tcpi_rcv_wscale;
}

static void set_address(ProtobufCBinaryData *b, uint32_t family, struct endpoint p)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = p.port };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = p.port, .sin6_addr = p.address };

	memcpy(&in.sin_addr, &p.address.s6_addr[12], sizeof(in.sin_addr));
	bytes_set(b, family == AF_INET ? (void *)&in : &in6, family == AF_INET ? sizeof(in) : sizeof(in6));
}

static Gw__FdTcp *link_new(Gw__FdTcpKind kind)
{
	Gw__FdTcp *p = fd_alloc(sizeof(*p));

	gw__fd_tcp__init(p);
	p->kind = kind;
	return p;
}

/* Of a socket that nobody has a descriptor of. */
static void capture_unseen(const struct tcp_record *r, Gw__FdTcpWaiting *to)
{
	Gw__FdTcp *p = to->tcp ? to->tcp : link_new(GW__FD_TCP_KIND__TCP_OUTSIDE);

	to->tcp = p;
	to->calling = (r->flags & TCP_RECORD_CALLING) != 0;
	capture_state(r, p);
	p->options = r->options;
	p->send_scale = r->send_scale;
	p->receive_scale = r->receive_scale;
	p->segment_bytes = r->mss_clamp;
	if (r->flags & TCP_RECORD_CALLING)
		p->numbers->state = TCP_SYN_RECV;
}

/* A client that has no description is seen from the other side. */
static void capture_waiting(const struct tcp_member *m, Gw__FdSocket *s)
{
	for (size_t i = 0; i < m->n_waiting; i++) {
		const struct tcp_member *w = &m->waiting[i];
		Gw__FdTcpWaiting *to;

		if (!w->other && !w->gone && !w->outside)
			continue;
		to = fd_alloc(sizeof(*to));
		gw__fd_tcp_waiting__init(to);
		to->client = w->other ? w->other->desc + 1 : 0;
		if (w->outside)
			capture_unseen(w->record, to);
		if (!w->other) {
			set_address(&to->local, s->family, peer_of(w->record));
			set_address(&to->peer, s->family, local_of(w->record));
		}
		fd_append(&s->waiting, &s->n_waiting, to);
	}
}

void socket_tcp_capture(const struct tcp_member *m, Gw__FdSocket *s)
{
	struct sockaddr_storage peer;
	/* Not more than there is. */
	socklen_t len = s->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);

	if (m->class == TCP_CLASS_FREE)
		s->shut_down = m->record->shut_down & 3;
	/* The segment size is what the connection had that it is to be without, which may be more than can be asked for. */
	if (m->class == TCP_CLASS_FREE && m->record->peer_port)
		socket_options_drop(s->options, &s->n_options, IPPROTO_TCP, TCP_MAXSEG);
	if (m->leaked) {
		bytes_set(&s->local, NULL, 0);
		s->listening = false;
		s->backlog = 0;
	}
	if (m->class == TCP_CLASS_LISTENING)
		capture_waiting(m, s);
	if (m->class != TCP_CLASS_LINKED)
		return;
	/* Segment size: of the connection, not what was asked for. The call of TCP_FASTOPEN_CONNECT has been made. */
	socket_options_drop(s->options, &s->n_options, IPPROTO_TCP, TCP_MAXSEG);
	socket_options_drop(s->options, &s->n_options, IPPROTO_TCP, TCP_FASTOPEN_CONNECT);
	memset(&peer, 0, sizeof(peer));
	if (getsockopt(m->held, SOL_SOCKET, SO_PEERNAME, &peer, &len) < 0)
		len = 0;
	bytes_set(&s->peer, &peer, len);
	if (!s->tcp)
		s->tcp = link_new(m->kind);
	capture_link(m, s->tcp);
	s->tcp->quiet = socket_tcp_may_be_quiet(s);
}

bool socket_tcp_has_scope(const struct tcp_record *r)
{
	struct endpoint local = local_of(r), peer = peer_of(r);

	return IN6_IS_ADDR_LINKLOCAL(&local.address) || IN6_IS_ADDR_LINKLOCAL(&peer.address);
}

void socket_tcp_capture_told(const struct tcp_member *m, Gw__FdSocket *s)
{
	const struct tcp_record *r = m->record;
	Gw__FdTcp *p;

	if (r->local_port)
		set_address(&s->local, s->family, local_of(r));
	s->listening = m->class == TCP_CLASS_LISTENING;
	s->backlog = s->listening ? r->backlog : 0;
	if (m->class == TCP_CLASS_FREE)
		s->shut_down = r->shut_down & 3;
	if (m->class == TCP_CLASS_LISTENING)
		capture_waiting(m, s);
	if (m->class != TCP_CLASS_LINKED)
		return;
	if (r->peer_port)
		set_address(&s->peer, s->family, peer_of(r));
	p = s->tcp = link_new(m->kind);
	p->other = m->other && m->kind != GW__FD_TCP_KIND__TCP_OUTSIDE ? m->other->desc + 1 : 0;
	capture_state(r, p);
	p->user_segment_bytes = r->user_mss;
	p->segment_bytes = r->mss;
	p->options = r->options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE | TCPI_OPT_USEC);
	p->send_scale = r->options & TCPI_OPT_WSCALE ? r->send_scale : 0;
	p->receive_scale = r->options & TCPI_OPT_WSCALE ? r->receive_scale : 0;
	p->quiet = socket_tcp_may_be_quiet(s);
}

/* --- queues, in the freeze --- */

/* To be filled altogether: megabytes, which are not cleared before. */
static uint8_t *alloc_queue(size_t len)
{
	uint8_t *p = malloc(len);

	if (!p)
		abort();
	return p;
}

/* In repair mode. */
static int peek_to_send(struct tcp_member *m, uint32_t len)
{
	ssize_t n;
	int r = socket_set_int(m->held, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);

	if (r < 0)
		return r;
	m->to_send = alloc_queue(len + PEEK_SLACK);
	n = recv(m->held, m->to_send, len + PEEK_SLACK, MSG_PEEK | MSG_DONTWAIT);
	r = n < 0 ? -errno : 0;
	m->n_to_send = n > 0 ? (size_t)n : 0;
	socket_set_int(m->held, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
	return r;
}

/* The number behind the last byte of its stream. */
static uint32_t end_of_stream(const struct tcp_record *r)
{
	return r->write_seq - (has_sent_end(r) && r->write_seq != r->snd_una ? 1 : 0);
}

uint64_t socket_tcp_queued(const struct tcp_member *m)
{
	const struct tcp_record *r = m->record;

	if (m->class != TCP_CLASS_LINKED || !r || r->state == TCP_CLOSE || r->state == TCP_SYN_SENT)
		return 0;
	return (uint64_t)tcp_unread_bytes(r) + (uint32_t)(end_of_stream(r) - r->snd_una);
}

int socket_tcp_read_to_send(struct tcp_member *m, struct err *e)
{
	const struct tcp_record *r = m->record;
	uint32_t len = end_of_stream(r) - r->snd_una;
	int reuse, ret;

	if (m->class != TCP_CLASS_LINKED || !len || r->state == TCP_CLOSE || r->state == TCP_SYN_SENT)
		return 0;
	if (len > TCP_QUEUE_BYTES_MAX)
		return err_set(e, -E2BIG, "TCP: %u bytes wait to be sent", len);
	/* Leaving repair mode sets it. */
	reuse = socket_get_int(m->held, SOL_SOCKET, SO_REUSEADDR);
	tcp_outside_in_repair(m->held, reuse);
	ret = socket_set_int(m->held, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	if (ret == 0) {
		ret = peek_to_send(m, len);
		socket_set_int(m->held, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
		socket_set_int(m->held, SOL_SOCKET, SO_REUSEADDR, reuse);
	}
	tcp_outside_in_repair(-1, 0);
	if (ret < 0)
		return err_sys(e, ret, "TCP: reading what it has to send");
	m->end = end_of_stream(r);
	return m->n_to_send ? 1 : 0;
}

/* Bytes from `at` up to the urgent byte, that byte, or bytes behind it. */
static ssize_t peek_piece(int fd, uint8_t *data, uint32_t at, uint32_t len, uint32_t urgent, bool inlined)
{
	ssize_t n;

	if (at == urgent && !inlined) {
		n = recv(fd, data + at, 1, MSG_PEEK | MSG_OOB);
		if (n >= 0)
			return n;
		data[at] = 0; /* it has been read: a byte that nobody will see */
		return 1;
	}
	if (socket_set_int(fd, SOL_SOCKET, SO_PEEK_OFF, (int)at) < 0)
		return -1;
	return recv(fd, data + at, (at < urgent ? MIN(len, urgent) : len) - at, MSG_PEEK | MSG_DONTWAIT);
}

static int read_received(const struct tcp_member *m, Gw__FdTcp *p, struct err *e)
{
	const struct tcp_record *r = m->record;
	uint32_t len = tcp_unread_bytes(r), at = 0, urgent = r->urgent ? r->urgent_seq - r->copied_seq : len;
	bool inlined = socket_get_int(m->held, SOL_SOCKET, SO_OOBINLINE) == 1;
	int was;

	p->urgent = r->urgent && urgent < len ? urgent + 1 : 0;
	p->urgent_read = p->urgent && (r->urgent & URGENT_READ);
	bytes_set(&p->received, NULL, 0);
	if (!len)
		return 0;
	if (len > TCP_QUEUE_BYTES_MAX)
		return err_set(e, -E2BIG, "TCP: %u bytes wait to be read", len);
	was = socket_get_int(m->held, SOL_SOCKET, SO_PEEK_OFF);
	p->received.data = alloc_queue(len);
	p->received.len = len;
	while (at < len) {
		ssize_t n = peek_piece(m->held, p->received.data, at, len, p->urgent ? urgent : len, inlined);

		if (n <= 0)
			break;
		at += (uint32_t)n;
	}
	socket_set_int(m->held, SOL_SOCKET, SO_PEEK_OFF, was);
	p->received.len = at;
	return at < len ? err_set(e, -EAGAIN, "TCP: %u bytes to be read, of which %u can be peeked at", len, at) : 0;
}

/* Everything from the first number that has not been acknowledged on. */
static int keep_unacknowledged(struct tcp_member *m, Gw__FdTcp *p, struct err *e)
{
	uint32_t end = m->to_send ? m->end : end_of_stream(m->record), len = end - m->record->snd_una;

	bytes_set(&p->unsent, NULL, 0);
	if (m->record->state == TCP_CLOSE || m->record->state == TCP_SYN_SENT || (int32_t)len <= 0)
		return 0;
	if (len > m->n_to_send)
		return err_set(e, -EAGAIN, "TCP: %u bytes have not been acknowledged, of which %zu can be seen", len, m->n_to_send);
	if (m->to_send && len < m->n_to_send)
		memmove(m->to_send, m->to_send + m->n_to_send - len, len);
	p->unsent = (ProtobufCBinaryData){ len, m->to_send };
	m->to_send = NULL;
	m->n_to_send = 0;
	return 0;
}

/* What the other end has not got yet. */
static void trim_to_send(const struct tcp_member *m, Gw__FdTcp *p)
{
	int32_t got = m->other ? (int32_t)(m->other->record->rcv_nxt - (m->end - (uint32_t)m->n_to_send)) : 0;
	size_t skip = got > 0 ? MIN((size_t)got, m->n_to_send) : 0;

	bytes_set(&p->unsent, m->to_send ? m->to_send + skip : NULL, m->to_send ? m->n_to_send - skip : 0);
}

int socket_tcp_read_received(struct tcp_member *m, Gw__FdSocket *s, struct err *e)
{
	Gw__FdTcp *p = s->tcp;
	bool outside = p->kind == GW__FD_TCP_KIND__TCP_OUTSIDE;
	int r;

	if (outside)
		capture_state(m->record, p);
	r = read_received(m, p, e);
	if (r == 0 && outside)
		r = keep_unacknowledged(m, p, e);
	else if (r == 0)
		trim_to_send(m, p);
	p->quiet = p->quiet && socket_tcp_may_be_quiet(s);
	return r;
}

/* --- what has been sent on connections that wait --- */

bool socket_tcp_has_waiting_data(const struct tcp_member *m)
{
	for (size_t i = 0; i < m->n_waiting; i++)
		if (tcp_unread_bytes(m->waiting[i].record))
			return true;
	return false;
}

static bool is_of(const struct tcp_data_record *d, const struct tcp_record *r)
{
	return d->fd == r->fd && d->peer_port == r->peer_port && !memcmp(d->peer, r->peer, sizeof(d->peer)) && !memcmp(d->local, r->local, sizeof(d->local));
}

/* Pieces may say again what others have said. */
static int collect(const struct tcp_record *r, const void *data, size_t data_len, uint8_t *to, uint32_t len, struct err *e)
{
	const struct tcp_data_record *d;
	const uint8_t *bytes;
	uint32_t have = 0;

	for (size_t at = 0; (d = tcp_data_next(data, data_len, &at, &bytes));) {
		int32_t from = (int32_t)(d->number - r->copied_seq), skip = (int32_t)have - from;

		if (!is_of(d, r) || skip < 0 || (uint32_t)skip >= d->len || have == len)
			continue;
		if (d->beyond)
			return err_set(e, -EIO, "TCP: what has been sent on a connection that has not been accepted yet lies in memory of a device");
		memcpy(to + have, bytes + skip, MIN(d->len - (uint32_t)skip, len - have));
		have += MIN(d->len - (uint32_t)skip, len - have);
	}
	return have == len ? 0 : err_set(e, -EAGAIN, "TCP: %u bytes have been sent on a connection that has not been accepted yet, of which %u can be seen", len, have);
}

/* Of a client of the unit: it says that again. */
static void say_before(Gw__FdTcp *client, const uint8_t *data, size_t len)
{
	ProtobufCBinaryData was = client->unsent;

	client->unsent.data = fd_alloc(len + was.len);
	client->unsent.len = len + was.len;
	memcpy(client->unsent.data, data, len);
	if (was.len)
		memcpy(client->unsent.data + len, was.data, was.len);
	free(was.data);
}

int socket_tcp_read_waiting(struct tcp_member *m, Gw__FdSocket *s, const Gw__FdTable *t, const struct tcp_data *data, struct err *e)
{
	size_t k = 0;

	for (size_t i = 0; i < m->n_waiting; i++) {
		struct tcp_member *w = &m->waiting[i];
		uint32_t len = tcp_unread_bytes(w->record);
		Gw__FdTcpWaiting *to;
		cleanup_free uint8_t *bytes = NULL;
		int r;

		if (!w->other && !w->gone && !w->outside)
			continue;
		if (k == s->n_waiting)
			return err_set(e, -EAGAIN, "TCP: the queue of a listener has changed");
		to = s->waiting[k++];
		if (w->outside)
			capture_unseen(w->record, to);
		if (!len)
			continue;
		bytes = fd_alloc(len);
		r = len > TCP_QUEUE_BYTES_MAX ? err_set(e, -E2BIG, "TCP: %u bytes wait to be read", len) : collect(w->record, data->bytes, data->len, bytes, len, e);
		if (r < 0)
			return r;
		if (w->other) {
			say_before(t->descs[w->other->desc]->socket->tcp, bytes, len);
			continue;
		}
		if (!to->tcp)
			to->tcp = link_new(GW__FD_TCP_KIND__TCP_HALF);
		bytes_set(&to->tcp->received, bytes, len);
	}
	return 0;
}
