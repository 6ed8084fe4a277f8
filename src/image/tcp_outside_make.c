/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tcp_outside_make.c - connections with others, at the destination; see tcp_outside.h */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/socket_address.h"
#include "image/socket_options.h"
#include "image/tcp_outside.h"
#include "image/tcp_repair.h"
#include "kern/sock_destroy.h"

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif
#define AGAIN_SEGMENTS 8u /* a new connection sends ten before it has heard anything */
#define TCPI_OPT_USEC 64u /* TCPI_OPT_USEC_TS: stamps count microseconds */
#define SETTLE_MS 200
#define PREPARATION_S 600
#define NS_PER_MS 1000000
#define NS_PER_US 1000

static bool begun;
static int64_t delta_ns; /* to this process's monotonic clock: the source host's */

int tcp_outside_begin(uint32_t mark, int64_t monotonic_delta_ns, struct err *e)
{
	/* What the kernel stamps with is the host's clock, whatever time namespace this process is in. */
	cleanup_close int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	int host_ms = probe < 0 ? -1 : socket_get_int(probe, IPPROTO_TCP, TCP_TIMESTAMP);
	int64_t own_ms = (int64_t)clock_ns(CLOCK_MONOTONIC) / NS_PER_MS;

	if (probe < 0)
		return err_sys(e, -errno, "socket");
	delta_ns = monotonic_delta_ns + (int64_t)(int32_t)((uint32_t)host_ms - (uint32_t)own_ms) * NS_PER_MS;
	begun = true;
	return tcp_forge_open(mark, e);
}

void tcp_outside_judge(const Gw__FdSocket *s, int fd, struct refusals *refusals)
{
	const Gw__FdSockOpt *bound = socket_options_find(s->options, s->n_options, SOL_SOCKET, SO_BINDTODEVICE);
	struct endpoint peer = endpoint_of(&s->peer);
	char device[IFNAMSIZ] = "", cause[128];

	if (bound)
		memcpy(device, bound->value.data, MIN(bound->value.len, sizeof(device) - 1));
	if (!device[0])
		return;
	if (!if_nametoindex(device)) {
		snprintf(cause, sizeof(cause), "it is bound to %s, and the destination has no such device", device);
		refusals_add(refusals, "fd.socket.tcp.device", cause, "end the connection first", "fd %d (TCP connection)", fd);
	} else if (endpoint_is_local(&peer)) {
		snprintf(cause, sizeof(cause), "it is bound to %s, and its other end is on the destination, so that packets would come by the loopback device", device);
		refusals_add(refusals, "fd.socket.tcp.device", cause, "move it to another host, or end the connection first", "fd %d (TCP connection)", fd);
	}
}

bool tcp_outside_begun(void)
{
	return begun;
}

int tcp_outside_set_transparent(const Gw__FdSocket *s, int fd)
{
	int r = socket_set_int(fd, IPPROTO_IP, IP_TRANSPARENT, 1);

	return r == 0 && s->family == AF_INET6 ? socket_set_int(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1) : r;
}

static bool has_ended(const Gw__FdTcp *p)
{
	return p->numbers->state == TCP_CLOSE;
}

/* Its own end of stream has been acknowledged. */
static bool is_end_known(const Gw__FdTcp *p)
{
	return p->sent_end && p->numbers->state == TCP_FIN_WAIT2;
}

static uint32_t first_to_send(const Gw__FdTcp *p)
{
	return p->numbers->send - (is_end_known(p) ? 1 : 0);
}

/*
 * How much of what has not been acknowledged the socket begins with as sent. It has no idea yet how long an answer may take, and would wait a second before it sent
 * that again. So where it is little all is sent anew, at once: before anything can arrive that acknowledges it.
 */
static size_t count_sent(const Gw__FdTcp *p)
{
	size_t gone = MIN((size_t)(p->numbers->sent - first_to_send(p)), p->unsent.len);

	return gone > AGAIN_SEGMENTS * (size_t)MAX(p->segment_bytes, TCP_SEGMENT_MIN) ? gone : 0;
}

static bool has_end_gone(const Gw__FdTcp *p)
{
	return is_end_known(p) || (p->sent_end && p->unsent.len && p->numbers->sent - first_to_send(p) > p->unsent.len && count_sent(p) == p->unsent.len);
}

static uint32_t first_received(const Gw__FdTcp *p)
{
	return p->numbers->receive - (p->got_end ? 1 : 0) - (uint32_t)p->received.len;
}

/* Not less than any that has been sent: the other end would drop the segment (RFC 7323, 5). */
uint32_t tcp_outside_stamp(const Gw__FdTcp *p)
{
	int64_t unit = p->options & TCPI_OPT_USEC ? NS_PER_US : NS_PER_MS, now = (int64_t)clock_ns(CLOCK_MONOTONIC) + delta_ns;

	return (uint32_t)(MAX(now, p->numbers->stamp_ns) / unit) + p->numbers->stamp_offset + 3;
}

/* The lowest bit says in what they count. */
static int set_stamps(const Gw__FdTcp *p, int fd)
{
	if (!(p->options & TCPI_OPT_TIMESTAMPS))
		return 0;
	return socket_set_int(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)((tcp_outside_stamp(p) & ~1u) | ((p->options & TCPI_OPT_USEC) != 0)));
}

static int set_window(const Gw__FdTcp *p, int fd)
{
	const Gw__FdTcpNumbers *n = p->numbers;
	uint32_t next = n->receive - (p->got_end ? 1 : 0);
	struct tcp_repair_window w = { .snd_wl1 = n->window_set_at, .snd_wnd = n->peer_window, .max_window = MAX(n->peer_window_max, n->peer_window),
		.rcv_wnd = n->window, .rcv_wup = n->window_at };

	/* The end of the stream, which counts, is still to come. */
	if ((int32_t)(w.rcv_wup - next) > 0) {
		w.rcv_wnd += w.rcv_wup - next;
		w.rcv_wup = next;
	}
	if ((int32_t)(w.snd_wl1 - next) > 0)
		w.snd_wl1 = next;
	return tcp_repair_set_window(fd, &w);
}

/* Up to here the socket is bound, in repair mode. Behind it, it is connected. */
static int connect_it(const Gw__FdSocket *s, int fd, struct err *e)
{
	const Gw__FdTcp *p = s->tcp;
	int r = tcp_repair_set_numbers(fd, first_to_send(p), first_received(p));

	if (r == 0 && connect(fd, (void *)s->peer.data, (socklen_t)s->peer.len) < 0)
		r = -errno;
	/* An old copy of it, from when the unit was here, or what another connection between the two has left. */
	if ((r == -EADDRNOTAVAIL || r == -EADDRINUSE) && sock_destroy_orphan((void *)s->local.data, (void *)s->peer.data))
		r = connect(fd, (void *)s->peer.data, (socklen_t)s->peer.len) < 0 ? -errno : 0;
	if (r == -EADDRNOTAVAIL || r == -EADDRINUSE)
		return err_set(e, r, "TCP: a connection between the same two addresses and ports exists on this host");
	if (r == 0)
		r = tcp_repair_set_settled(fd, p, false, p->numbers->segment_max);
	if (r == 0)
		r = set_stamps(p, fd);
	return r < 0 ? err_sys(e, r, "TCP: making a connection") : 0;
}

/* What the freeze has nothing to add to. */
static int set_all_options(const Gw__FdSocket *s, int fd, struct err *e)
{
	Gw__FdSockOpt *kept[512];
	size_t n = 0;

	for (size_t i = 0; i < s->n_options && n < ARRAY_SIZE(kept); i++)
		if (s->options[i]->level != IPPROTO_TCP || s->options[i]->name != TCP_CONGESTION)
			kept[n++] = s->options[i];
	tcp_repair_compute_segments(fd);
	socket_set_int(fd, IPPROTO_TCP, TCP_MAXSEG, (int)s->tcp->user_segment_bytes);
	return socket_options_set(fd, kept, n, OPTIONS_LATE, e);
}

/* Within this time nobody must give it up because of probes that are not answered, as nobody hears them yet. */
static bool is_impatient(int fd)
{
	int idle_s = socket_get_int(fd, IPPROTO_TCP, TCP_KEEPIDLE), probes = socket_get_int(fd, IPPROTO_TCP, TCP_KEEPCNT), interval_s = socket_get_int(fd, IPPROTO_TCP, TCP_KEEPINTVL);

	if (socket_get_int(fd, SOL_SOCKET, SO_KEEPALIVE) <= 0)
		return false;
	return idle_s + (socket_get_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) > 0 ? 0 : probes * interval_s) < PREPARATION_S;
}

/*
 * It lives from now on; what it would send does not leave the host (net/redirect.h), and there is nothing that it would want to, unless it is closed. So nothing is left to be done
 * in the freeze. 1: but what tcp_outside_patch does.
 */
static int enliven(const Gw__FdSocket *s, int fd, struct err *e)
{
	int r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);

	if (r < 0)
		return err_sys(e, r, "TCP: letting a connection go on");
	r = set_all_options(s, fd, e);
	if (r < 0)
		return r;
	r = socket_options_int(s->options, s->n_options, SOL_SOCKET, SO_REUSEADDR) != 1;
	/* So that a listener with the same port can listen. */
	socket_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (!is_impatient(fd))
		return r;
	socket_set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
	return 1;
}

int tcp_outside_patch(const Gw__FdSocket *s, int fd, struct err *e)
{
	int r = socket_options_set_one(fd, s->options, s->n_options, SOL_SOCKET, SO_REUSEADDR, e);

	return r < 0 ? r : socket_options_set_one(fd, s->options, s->n_options, SOL_SOCKET, SO_KEEPALIVE, e);
}

/* What disconnecting it has taken away. */
static int set_lost(const Gw__FdSocket *s, int fd, struct err *e)
{
	int r = socket_options_set_one(fd, s->options, s->n_options, SOL_SOCKET, SO_PEEK_OFF, e);

	tcp_repair_compute_segments(fd);
	socket_set_int(fd, IPPROTO_TCP, TCP_MAXSEG, (int)s->tcp->user_segment_bytes);
	if (r == 0)
		r = socket_options_set_one(fd, s->options, s->n_options, IPPROTO_TCP, TCP_WINDOW_CLAMP, e);
	return r < 0 ? r : socket_options_set_one(fd, s->options, s->n_options, IPPROTO_TCP, TCP_QUICKACK, e);
}

/* That, and what has been left for the freeze. */
static int patch_anew(const Gw__FdSocket *s, int fd, struct err *e)
{
	int r = tcp_outside_patch(s, fd, e);

	return r < 0 ? r : set_lost(s, fd, e);
}

int tcp_outside_open(const Gw__FdSocket *s, int fd, bool early, struct err *e)
{
	int segment = (int)MIN(MAX(s->tcp->numbers->segment_max, TCP_SEGMENT_MIN), TCP_SEGMENT_MAX), r = tcp_outside_set_transparent(s, fd);

	if (r == 0)
		(void)!setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
	if (r == 0)
		r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	if (r == 0)
		r = socket_set_int(fd, IPPROTO_TCP, TCP_MAXSEG, segment);
	if (r == 0 && bind(fd, (void *)s->local.data, (socklen_t)s->local.len) < 0)
		r = -errno;
	if (r < 0)
		return err_sys(e, r, "TCP: a socket with the address of another host");
	if (!tcp_outside_is_idle(s))
		return 0;
	r = connect_it(s, fd, e);
	if (r == 0 && (r = set_window(s->tcp, fd)) < 0)
		return err_sys(e, r, "TCP: its windows");
	if (r < 0)
		return r;
	return early ? enliven(s, fd, e) : set_all_options(s, fd, e);
}

/* --- the freeze --- */

/* An idle one over which something has gone since: as it was before it was connected, in repair mode. */
static int disconnect(const Gw__FdSocket *was, int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int segment = (int)MIN(MAX(was->tcp->numbers->segment_max, TCP_SEGMENT_MIN), TCP_SEGMENT_MAX);

	if (socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON) < 0 || connect(fd, &none, sizeof(none)) < 0)
		return -errno;
	socket_get_int(fd, SOL_SOCKET, SO_ERROR);
	return socket_set_int(fd, IPPROTO_TCP, TCP_MAXSEG, segment);
}

/* As tcp_outside_open leaves one that is idle, and as enliven leaves it; what disconnecting does not take away is still there. */
static int connect_again(const Gw__FdSocket *s, int fd, struct err *e)
{
	int r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);

	if (r < 0)
		return err_sys(e, r, "TCP: letting a connection go on");
	r = set_lost(s, fd, e);
	socket_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	return r;
}

int tcp_outside_open_again(Gw__FdSocket *s, Gw__FdTcp *now, int fd, struct err *e)
{
	bool was_idle = tcp_outside_is_idle(s);
	Gw__FdTcpNumbers *numbers = s->tcp->numbers;
	int r = was_idle ? disconnect(s, fd) : 0;

	if (r < 0)
		return err_sys(e, r, "TCP: making a connection again");
	s->tcp->numbers = now->numbers;
	now->numbers = numbers;
	bytes_set(&s->tcp->received, NULL, 0);
	bytes_set(&s->tcp->unsent, NULL, 0);
	s->tcp->quiet = true;
	r = connect_it(s, fd, e);
	if (r == 0 && (r = set_window(s->tcp, fd)) < 0)
		return err_sys(e, r, "TCP: its windows");
	if (r < 0)
		return r;
	return was_idle ? connect_again(s, fd, e) : enliven(s, fd, e);
}

static void wait_for_state(int fd, int state)
{
	for (int i = 0; i < SETTLE_MS && tcp_state_of(fd) != state; i++)
		poll(NULL, 0, 1);
}


static int end_own_stream(int fd)
{
	int r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);

	if (r == 0 && shutdown(fd, SHUT_WR) < 0)
		r = -errno;
	return r < 0 ? r : socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
}

/* What the other end has said, or what it has heard, in its own words. */
static int say_again(const Gw__FdSocket *s, int fd, int state, struct err *e)
{
	const Gw__FdTcp *p = s->tcp;
	int r = tcp_forge(s, p->numbers->receive - (p->got_end ? 1 : 0), p->numbers->send, p->got_end ? TCP_FORGE_FIN : 0, e);

	if (r < 0)
		return r;
	wait_for_state(fd, state);
	return tcp_state_of(fd) == state ? 0 : err_set(e, -EIO, "TCP: a connection in state %d could not be brought to state %d", tcp_state_of(fd), state);
}

/* One that has ended both streams (CLOSING) may be as one that has ended its own last (LAST_ACK): the program sees no difference. */
static int end_streams(const Gw__FdSocket *s, int fd, struct err *e)
{
	const Gw__FdTcp *p = s->tcp;
	int r = p->got_end ? say_again(s, fd, TCP_CLOSE_WAIT, e) : 0;

	if (r == 0 && has_end_gone(p) && (r = end_own_stream(fd)) < 0)
		return err_sys(e, r, "TCP: ending its stream");
	return r == 0 && is_end_known(p) ? say_again(s, fd, TCP_FIN_WAIT2, e) : r;
}

/* What lies in it is still to be read; then comes how it ended. */
static int fill_ended(const Gw__FdSocket *s, int fd, struct err *e)
{
	const Gw__FdTcp *p = s->tcp;
	uint32_t next = p->numbers->receive - (p->got_end ? 1 : 0), send = first_to_send(p);
	int r = tcp_repair_fill(fd, TCP_RECV_QUEUE, p->received.data, p->received.len);

	if (r < 0)
		return err_sys(e, r, "TCP: filling its queue");
	if (p->got_end)
		r = tcp_forge(s, next++, send, TCP_FORGE_FIN, e);
	if (r == 0 && p->error)
		r = tcp_forge(s, next, send, TCP_FORGE_RST, e);
	if (r == 0 && !p->error && p->got_end) {
		wait_for_state(fd, TCP_CLOSE_WAIT);
		r = end_own_stream(fd);
		if (r == 0)
			r = tcp_forge(s, next, send + 1, 0, e);
		else if (tcp_state_of(fd) == TCP_CLOSE) /* the other end's host has been quicker: it knows no such connection */
			r = 0;
		else
			return err_sys(e, r, "TCP: ending the stream of a connection that has ended, in state %d", tcp_state_of(fd));
	} else if (r == 0 && !p->error) {
		r = tcp_forge(s, next, send, TCP_FORGE_RST, e);
	}
	wait_for_state(fd, TCP_CLOSE);
	if (r == 0 && tcp_state_of(fd) != TCP_CLOSE)
		return err_set(e, -EIO, "TCP: a connection that has ended does not end here");
	if (!p->error)
		socket_get_int(fd, SOL_SOCKET, SO_ERROR);
	return r;
}

int tcp_outside_fill(const Gw__FdSocket *was, const Gw__FdSocket *s, int fd, struct err *e)
{
	const Gw__FdTcp *p = s->tcp;
	int r;

	if (was == s && tcp_outside_is_idle(s)) /* made in the freeze, altogether */
		return 0;
	r = was != s && tcp_outside_is_idle(was) ? disconnect(was, fd) : 0;
	if (r < 0)
		return err_sys(e, r, "TCP: making a connection again");
	if (p->numbers->state == TCP_SYN_SENT)
		return 0;
	r = connect_it(s, fd, e);
	if (r < 0 || has_ended(p))
		return r < 0 ? r : fill_ended(s, fd, e);
	tcp_make_room(fd, p->unsent.len);
	r = tcp_repair_fill(fd, TCP_RECV_QUEUE, p->received.data, p->received.len);
	if (r == 0)
		r = tcp_repair_fill(fd, TCP_SEND_QUEUE, p->unsent.data, count_sent(p));
	if (r == 0)
		r = set_window(p, fd);
	return r < 0 ? err_sys(e, r, "TCP: filling its queues") : end_streams(s, fd, e);
}

/* --- there is no way back --- */

/* With the number of the first attempt, which may have arrived. */
static int call_again(const Gw__FdSocket *s, int fd)
{
	int flags = fcntl(fd, F_GETFL), r = tcp_repair_set_numbers(fd, s->tcp->numbers->send, 0);

	socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	if (r == 0 && connect(fd, (void *)s->peer.data, (socklen_t)s->peer.len) < 0 && errno != EINPROGRESS)
		r = -errno;
	fcntl(fd, F_SETFL, flags);
	return r;
}

/* How much of what is to be sent the socket has been given. */
static size_t count_given(const Gw__FdTcp *p, int fd)
{
	uint32_t next = first_to_send(p);

	if (socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON) == 0 && socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE) == 0)
		next = (uint32_t)socket_get_int(fd, IPPROTO_TCP, TCP_QUEUE_SEQ);
	socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
	socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	return MIN((size_t)(next - first_to_send(p)), p->unsent.len);
}

static int send_rest(const Gw__FdTcp *p, int fd, bool again)
{
	size_t gone = again ? count_given(p, fd) : count_sent(p);
	int r;

	socket_set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	r = tcp_send_all(fd, p->unsent.data + gone, p->unsent.len - gone, 0);

	if (p->sent_end && !has_end_gone(p))
		shutdown(fd, SHUT_WR);
	if (p->deaf)
		shutdown(fd, SHUT_RD);
	return r;
}

static bool has_no_peer(int fd)
{
	int state = tcp_state_of(fd);

	return state == TCP_CLOSE || state == TCP_SYN_SENT;
}

int tcp_outside_go_live(const Gw__FdSocket *was, const Gw__FdSocket *s, int fd, bool again, struct err *e)
{
	const Gw__FdTcp *p = s->tcp;
	/* One that was in use when it was opened has not got its options yet. */
	bool idle = tcp_outside_is_idle(s) && tcp_outside_is_idle(was);
	int r = 0;

	if (p->numbers->state == TCP_SYN_SENT && again && tcp_state_of(fd) != TCP_CLOSE)
		return 0;
	if (p->numbers->state == TCP_SYN_SENT)
		r = call_again(s, fd);
	else
		r = socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, idle || has_ended(p) || count_sent(p) < p->unsent.len ? TCP_REPAIR_OFF_NO_WP : TCP_REPAIR_OFF);
	/* Leaving repair mode takes it away. */
	if (socket_options_int(s->options, s->n_options, SOL_SOCKET, SO_REUSEADDR) > 0)
		socket_set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r < 0)
		return err_sys(e, r, "TCP: letting a connection go on");
	if (idle)
		return patch_anew(s, fd, e);
	if (!has_ended(p) && p->numbers->state != TCP_SYN_SENT)
		r = send_rest(p, fd, again);
	if (r < 0)
		err_sys(e, r, "TCP: what it had not sent");
	if (r == 0)
		r = set_all_options(s, fd, e);
	if (r == 0)
		r = patch_anew(s, fd, e);
	/* One that has no peer to be known by later, and nothing to pace. */
	if (r == 0 && has_no_peer(fd))
		tcp_outside_settle(s, fd);
	return r;
}

void tcp_outside_settle(const Gw__FdSocket *s, int fd)
{
	socket_options_set_one(fd, s->options, s->n_options, IPPROTO_TCP, TCP_CONGESTION, NULL);
}
