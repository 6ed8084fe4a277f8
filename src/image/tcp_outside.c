/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tcp_outside.c - connections with others, at the source; see tcp_outside.h */
#include "image/tcp_outside.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"
#include "image/socket_options.h"

static enum tcp_outside_policy policy = TCP_OUTSIDE_REFUSE;
static bool takes_waiting;
static int repaired = -1, repaired_reuse;
static bool (*elsewhere)(const struct sockaddr_in6 *own, const struct sockaddr_in6 *peer, void *arg);
static void *elsewhere_arg;

static const char *const names[] = { [TCP_OUTSIDE_REFUSE] = "refuse", [TCP_OUTSIDE_KEEP] = "keep", [TCP_OUTSIDE_CLOSE] = "close" };

const char *tcp_outside_policy_name(enum tcp_outside_policy p)
{
	return names[p];
}

int tcp_outside_policy_parse(const char *name, enum tcp_outside_policy *ret, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i], name)) {
			*ret = (enum tcp_outside_policy)i;
			return 0;
		}
	return err_set(e, -EINVAL, "no way to treat connections is called '%s': keep, close or refuse", name);
}

void tcp_outside_set_policy(enum tcp_outside_policy p)
{
	policy = p;
}

enum tcp_outside_policy tcp_outside_policy(void)
{
	return policy;
}

void tcp_outside_set_takes_waiting(bool takes)
{
	takes_waiting = takes;
}

bool tcp_outside_takes_waiting(void)
{
	return takes_waiting;
}

void tcp_outside_in_repair(int fd, int reuse)
{
	repaired_reuse = reuse;
	__atomic_store_n(&repaired, fd, __ATOMIC_SEQ_CST);
}

void tcp_outside_end_repair(void)
{
	int fd = __atomic_load_n(&repaired, __ATOMIC_SEQ_CST);

	if (fd < 0)
		return;
	socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	socket_set_int(fd, SOL_SOCKET, SO_REUSEADDR, repaired_reuse);
}

void tcp_outside_ask_elsewhere(bool (*ask)(const struct sockaddr_in6 *own, const struct sockaddr_in6 *peer, void *arg), void *arg)
{
	elsewhere = ask;
	elsewhere_arg = arg;
}

bool tcp_outside_is_elsewhere(const struct tcp_record *r)
{
	struct sockaddr_in6 own = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)r->local_port) };
	struct sockaddr_in6 peer = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)r->peer_port) };

	memcpy(&own.sin6_addr, r->local, sizeof(own.sin6_addr));
	memcpy(&peer.sin6_addr, r->peer, sizeof(peer.sin6_addr));
	return elsewhere && elsewhere(&own, &peer, elsewhere_arg);
}

const char *tcp_outside_obstacle(const struct tcp_record *r, const char **ret_way_out)
{
	*ret_way_out = "try again when the program has read it";
	if (r->urgent && (int32_t)(r->urgent_seq - r->copied_seq) >= 0 && (int32_t)(r->rcv_nxt - r->urgent_seq) > 0)
		return "urgent data of another host has not been read";
	if (r->error && r->state != TCP_CLOSE)
		return "it has an error that the program has not been told yet";
	return NULL;
}

void tcp_outside_capture(const struct tcp_record *r, Gw__FdTcp *p)
{
	Gw__FdTcpNumbers *n = p->numbers;

	if (!n) {
		n = p->numbers = fd_alloc(sizeof(*n));
		gw__fd_tcp_numbers__init(n);
	}
	n->state = r->state;
	n->send = r->snd_una;
	n->sent = r->snd_nxt;
	n->receive = r->rcv_nxt;
	n->window_set_at = r->snd_wl1;
	n->peer_window = r->snd_wnd;
	n->peer_window_max = r->max_window;
	n->window = r->rcv_wnd;
	n->window_at = r->rcv_wup;
	n->stamp_offset = r->ts_offset;
	n->stamp_ns = (int64_t)r->stamp_ns;
	n->peer_stamp = r->ts_recent;
	n->segment_max = r->mss_clamp;
}

bool tcp_outside_may_be_idle(const Gw__FdTcp *p)
{
	return p->numbers && p->numbers->state == TCP_ESTABLISHED && p->numbers->send == p->numbers->sent;
}

int tcp_outside_validate(const Gw__FdSocket *s, struct err *e)
{
	static const unsigned states = 1u << TCP_ESTABLISHED | 1u << TCP_SYN_SENT | 1u << TCP_FIN_WAIT1 | 1u << TCP_FIN_WAIT2 | 1u << TCP_CLOSE |
		1u << TCP_CLOSE_WAIT | 1u << TCP_LAST_ACK | 1u << TCP_CLOSING;
	const Gw__FdTcp *p = s->tcp;
	const Gw__FdTcpNumbers *n = p->numbers;

	if (!n)
		return err_set(e, -EPROTO, "TCP: a connection with others without numbers");
	if (n->state > TCP_CLOSING || !(states >> n->state & 1) || p->urgent || n->window > (1u << 30) || n->peer_window > (1u << 30) || n->segment_max > UINT16_MAX)
		return err_set(e, -EPROTO, "TCP: a connection with others that cannot be");
	if (n->state == TCP_CLOSE && p->error != 0 && p->error != ECONNRESET && p->error != EPIPE)
		return err_set(e, -EPROTO, "TCP: a connection with others that has ended with error %d", p->error);
	return 0;
}
