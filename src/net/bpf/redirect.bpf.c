/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * redirect.bpf.c - programs at the devices (tcx) that give packets of moved connections to the host where the socket is; see ../redirect.h
 *
 * They run for every packet, so the first question costs next to nothing: whether any moved end has this port (`ports`). *_raw are for
 * devices without a link layer header, such as the tun device that kept packets are written back to.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../redirect_map.h"
#include "redirect_packet.h"

char LICENSE[] SEC("license") = "GPL";

#define ETHER_BYTES 14
#define INET 2
#define INET6 10
#define OTHER_HOST 3 /* PACKET_OTHERHOST */
#define FLAG_SYN 2
#define FLAG_RST 4
#define FLAG_ACK 16
#define UNSPEC (-1) /* TC_ACT_UNSPEC: none of our business */
#define SHOT 2
#define SECOND_NS 1000000000ull

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, REDIRECT_ENDS_MAX);
	__type(key, struct redirect_flow);
	__type(value, struct redirect_end);
} ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, REDIRECT_MOVES_MAX);
	__type(key, __u32);
	__type(value, struct redirect_move_state);
} moves SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, REDIRECT_NODES_MAX);
	__type(key, __u32);
	__type(value, struct redirect_node);
} nodes SEC(".maps");

/* By port (as in the packet): how many ends have it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct redirect_config);
} config SEC(".maps");

/* Sockets of UDP that are bound to every address, and have come from another host: the address that they send from. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, REDIRECT_SOURCES_MAX);
	__type(key, struct redirect_source);
	__type(value, struct redirect_address);
} sources SEC(".maps");

/* Peers of theirs who know them by another: the peer of the end, whose own address is not in it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct redirect_flow);
	__type(value, struct redirect_address);
} callers SEC(".maps");

/* Addresses of this host. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, REDIRECT_LOCALS_MAX);
	__type(key, struct redirect_address);
	__type(value, __u32);
} locals SEC(".maps");

struct place {
	__u32 state, flags, node, tun;
};

static __always_inline bool port_used(__u16 port)
{
	__u32 key = port, *n = bpf_map_lookup_elem(&ports, &key);

	return n && *n;
}

/* ifindex: of the device that the packet comes from. */
static __always_inline void place_of(struct redirect_end *end, struct place *place, __u32 ifindex)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u32 key = end->move;
	struct redirect_move_state *move;

	place->state = end->state;
	place->node = end->node;
	place->flags = end->flags;
	place->tun = 0;
	if (key) {
		move = bpf_map_lookup_elem(&moves, &key);
		if (move && move->state && !(move->drain == REDIRECT_DRAIN_BACK && ifindex == move->tun)) {
			place->state = move->drain && ifindex == move->tun ? REDIRECT_THERE : move->state;
			place->node = move->node;
			place->tun = move->tun;
			place->flags &= ~REDIRECT_COMING;
		}
	}
	if ((__s64)(now - end->seen_ns) > (__s64)SECOND_NS)
		end->seen_ns = now;
}

static __always_inline void enter(const struct redirect_flow *flow, const struct redirect_end *end)
{
	__u32 key = flow->own_port, *n;

	if (bpf_map_update_elem(&ends, flow, end, BPF_NOEXIST))
		return;
	n = bpf_map_lookup_elem(&ports, &key);
	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline void other_end(const struct redirect_flow *flow, struct redirect_flow *other)
{
	__builtin_memset(other, 0, sizeof(*other));
	__builtin_memcpy(other->own, flow->peer, 16);
	__builtin_memcpy(other->peer, flow->own, 16);
	other->own_port = flow->peer_port;
	other->peer_port = flow->own_port;
	other->protocol = flow->protocol;
}

/*
 * A connection to a listener that is elsewhere is there from its first packet on. `local`: who connects is on this host, and so was the listener: then
 * what comes back has a source address of ours. Of loopback addresses the host is known by the listener only.
 */
static __always_inline void learn(const struct redirect_flow *flow, const struct redirect_end *listener, const struct place *place, bool local)
{
	struct redirect_end end = {
		.state = place->state,
		.flags = place->flags | REDIRECT_LEARNED,
		.node = place->node,
		.moves_made = listener->moves_made,
		.changed_ns = bpf_ktime_get_ns(),
		.seen_ns = bpf_ktime_get_ns(),
	};
	struct redirect_flow other;

	enter(flow, &end);
	if (!local && !listener->home)
		return;
	other_end(flow, &other);
	end.moves_made = 0;
	end.state = local ? REDIRECT_HERE : REDIRECT_THERE;
	end.flags = (local ? REDIRECT_NATIVE | REDIRECT_OVER_LO : 0) | REDIRECT_LEARNED;
	end.node = local ? 0 : listener->home;
	enter(&other, &end);
}

/*
 * A socket of UDP that is bound to every address sends from the one that routing chooses, which is another host's when it has moved. Its peers know it by the
 * address that they have sent to, and those that it has spoken to first by the one that it had at first.
 */

static __always_inline bool is_same_address(const __u8 a[16], const __u8 b[16])
{
	const __u64 *x = (const void *)a, *y = (const void *)b;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline bool is_loopback(const __u8 a[16])
{
	const __u32 *word = (const void *)a;

	if (word[0] || word[1])
		return false;
	return word[2] ? word[2] == bpf_htonl(0xffff) && a[12] == 127 : word[3] == bpf_htonl(1);
}

static __always_inline bool is_local(const __u8 a[16])
{
	struct redirect_address key;

	__builtin_memcpy(key.a, a, 16);
	return bpf_map_lookup_elem(&locals, &key);
}

/* What comes from another host with an address of ours as its source would be taken for forged. It has gone from here to there, and back, or its end has left. */
static __always_inline bool looks_forged(const struct packet *p)
{
	return p->to.protocol == UDP && (is_loopback(p->to.peer) || is_local(p->to.peer));
}

static __always_inline struct redirect_address *source_of(__u16 port, bool ipv6)
{
	struct redirect_source key = { .port = port, .ipv6 = ipv6 };

	return bpf_map_lookup_elem(&sources, &key);
}

/* A datagram has come for such a socket. */
static __always_inline void remember_caller(struct __sk_buff *skb, const struct packet *p)
{
	struct redirect_address *usual, *known, now;
	struct redirect_flow key = p->to;

	usual = p->to.protocol == UDP && !skb->pkt_type ? source_of(p->to.own_port, p->ipv6) : NULL;
	if (!usual || is_loopback(p->to.own))
		return;
	__builtin_memset(key.own, 0, 16);
	known = bpf_map_lookup_elem(&callers, &key);
	if (is_same_address(p->to.own, usual->a)) {
		if (known)
			bpf_map_delete_elem(&callers, &key);
	} else if (!known || !is_same_address(p->to.own, known->a)) {
		__builtin_memcpy(now.a, p->to.own, 16);
		bpf_map_update_elem(&callers, &key, &now, BPF_ANY);
	}
}

static __always_inline void write_source(struct __sk_buff *skb, struct packet *p, __u32 l2, const __u8 to[16])
{
	__u32 was, now;
	__s64 sum;

	if (p->ipv6) {
		sum = bpf_csum_diff((__be32 *)p->to.peer, 16, (__be32 *)to, 16, 0);
		if (p->header)
			bpf_l4_csum_replace(skb, p->header + 6, 0, (__u64)sum, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | BPF_F_IPV6);
		bpf_skb_store_bytes(skb, l2 + 8, to, 16, 0);
	} else {
		__builtin_memcpy(&was, p->to.peer + 12, 4);
		__builtin_memcpy(&now, to + 12, 4);
		if (p->header)
			bpf_l4_csum_replace(skb, p->header + 6, was, now, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | 4);
		bpf_l3_csum_replace(skb, l2 + 10, was, now, 4);
		bpf_skb_store_bytes(skb, l2 + 12, &now, 4, 0);
	}
	__builtin_memcpy(p->to.peer, to, 16);
}

/* Such a socket sends. */
static __always_inline void keep_source(struct __sk_buff *skb, struct packet *p, __u32 l2)
{
	struct redirect_address *address = source_of(p->to.peer_port, p->ipv6), *known, to;
	struct redirect_flow key;

	/* Whoever has chosen another host's has done so itself. */
	if (!address || is_loopback(p->to.peer) || !is_local(p->to.peer))
		return;
	other_end(&p->to, &key);
	__builtin_memset(key.own, 0, 16);
	known = bpf_map_lookup_elem(&callers, &key);
	if (known)
		address = known;
	__builtin_memcpy(to.a, address->a, 16);
	if (!is_same_address(to.a, p->to.peer))
		write_source(skb, p, l2, to.a);
}

static __always_inline bool has_udp_socket(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = { 0 };
	struct bpf_sock *socket;

	packet_tuple(p, &tuple);
	socket = bpf_sk_lookup_udp(skb, &tuple, p->ipv6 ? sizeof(tuple.ipv6) : sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (socket)
		bpf_sk_release(socket);
	return socket;
}

/* The state of the socket of this host that a segment would reach; 0: none. */
static __always_inline __u32 tcp_socket_state(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = { 0 };
	struct bpf_sock *socket;
	__u32 state;

	packet_tuple(p, &tuple);
	socket = bpf_skc_lookup_tcp(skb, &tuple, p->ipv6 ? sizeof(tuple.ipv6) : sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return 0;
	state = socket->state;
	bpf_sk_release(socket);
	return state;
}

/*
 * Whether a packet that begins a connection is for a socket of this host: one that an old listener has not done with, or a new listener. The one that has gone, and has not
 * ended yet, does not count.
 */
static __always_inline bool is_for_us(struct __sk_buff *skb, const struct packet *p, __u32 flags)
{
	__u32 state;

	if (p->to.protocol == UDP)
		return flags & REDIRECT_ENDED && has_udp_socket(skb, p);
	state = tcp_socket_state(skb, p);
	return state == BPF_TCP_LISTEN ? flags & REDIRECT_ENDED : state && state != BPF_TCP_TIME_WAIT;
}

/*
 * What came here has ended by itself. Who calls from here means the host that has the address. Others have not heard yet, and must not be led to a server of this host that
 * has the same port.
 */
static __always_inline bool is_somebody_else(struct __sk_buff *skb, const struct packet *p)
{
	return !skb->ingress_ifindex || (p->to.protocol == UDP ? has_udp_socket(skb, p) : tcp_socket_state(skb, p) == BPF_TCP_LISTEN);
}

/* The other end of a call from this host to a listener of this host that is held, or elsewhere. */
static __always_inline void expect_answer(const struct redirect_flow *flow)
{
	struct redirect_end end = {
		.state = REDIRECT_HERE,
		.flags = REDIRECT_NATIVE | REDIRECT_OVER_LO | REDIRECT_LEARNED,
		.changed_ns = bpf_ktime_get_ns(),
		.seen_ns = bpf_ktime_get_ns(),
	};
	struct redirect_flow other;

	other_end(flow, &other);
	enter(&other, &end);
}

/* Of loopback addresses the host is known by the end that has moved only: who sends to it has the address there. */
static __always_inline void expect_at_home(const struct redirect_flow *flow, const struct redirect_end *moved)
{
	struct redirect_end end = {
		.state = REDIRECT_THERE,
		.flags = REDIRECT_LEARNED,
		.node = moved->home,
		.changed_ns = bpf_ktime_get_ns(),
		.seen_ns = bpf_ktime_get_ns(),
	};
	struct redirect_flow other;

	other_end(flow, &other);
	enter(&other, &end);
}

static __always_inline void forget(const struct redirect_flow *flow)
{
	__u32 key = flow->own_port, *n = bpf_map_lookup_elem(&ports, &key);

	if (!bpf_map_delete_elem(&ends, flow) && n)
		__sync_fetch_and_add(n, -1);
}

/*
 * A packet that begins a connection goes to where the listener is now. What is known of an earlier connection between the same ends, which may have moved, or of a first
 * packet like it, which perhaps never arrived, is forgotten.
 */
static __always_inline bool find_listener(struct __sk_buff *skb, struct packet *p, struct place *place, bool local, bool earlier)
{
	struct redirect_flow any = p->to;
	struct redirect_end *end;

	__builtin_memset(any.peer, 0, 16);
	any.peer_port = 0;
	end = bpf_map_lookup_elem(&ends, &any);
	if (!end)
		return false;
	place_of(end, place, skb->ifindex);
	if (place->state == REDIRECT_HERE && place->flags & REDIRECT_ENDED) {
		if (is_somebody_else(skb, p)) {
			place->state = REDIRECT_NONE;
			place->node = 0;
			if (earlier)
				forget(&p->to);
			return true;
		}
	}
	if (p->to.protocol != TCP) {
		if (place->state == REDIRECT_THERE && is_for_us(skb, p, place->flags))
			place->state = REDIRECT_NONE;
		else if (place->state == REDIRECT_HERE && end->home)
			expect_at_home(&p->to, end);
		return true;
	}
	if (earlier)
		forget(&p->to);
	if (place->state != REDIRECT_HERE && is_for_us(skb, p, place->flags))
		place->state = REDIRECT_NONE;
	else if (place->state == REDIRECT_HELD && local)
		expect_answer(&p->to);
	else if (place->state == REDIRECT_THERE ||
		 (place->state == REDIRECT_HERE && (place->flags & (REDIRECT_NATIVE | REDIRECT_OVER_LO)) != REDIRECT_NATIVE))
		learn(&p->to, end, place, local);
	/* It may come from this host, and have gone by way of the former one. Those that follow do not. */
	if (place->state == REDIRECT_HERE && (earlier || !(place->flags & REDIRECT_NATIVE)))
		place->flags |= REDIRECT_OVER_LO;
	return true;
}

static __always_inline bool find(struct __sk_buff *skb, struct packet *p, struct place *place, bool local)
{
	struct redirect_end *end = bpf_map_lookup_elem(&ends, &p->to);
	bool begins = p->to.protocol != TCP || (p->tcp_flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN;
	bool earlier = end && !end->move && p->to.protocol == TCP;

	if (begins && (!end || earlier) && find_listener(skb, p, place, local, earlier))
		return true;
	/* A call that the listener's entry has led elsewhere is led there no more when that has gone. */
	if (!end || (begins && earlier && end->flags & REDIRECT_LEARNED))
		return false;
	place_of(end, place, skb->ifindex);
	return true;
}

/* Gives a packet without a link layer header one. */
static __always_inline bool give_header(struct __sk_buff *skb)
{
	__u16 protocol = (__u16)skb->protocol;

	return !bpf_skb_change_head(skb, ETHER_BYTES, 0) && !bpf_skb_store_bytes(skb, 12, &protocol, sizeof(protocol), 0);
}

/*
 * What comes from another host and goes on to a third has passed a router. Hosts that know different things of an end that is gone could send a packet in a circle, for ever
 * without this.
 */
static __always_inline bool count_hop(struct __sk_buff *skb, const struct packet *p, __u32 l2)
{
	__u32 at = l2 + (p->ipv6 ? 7 : 8);
	struct {
		__u8 ttl, protocol;
	} old, new;

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)) < 0 || old.ttl <= 1)
		return false;
	new = old;
	new.ttl--;
	if (!p->ipv6 && bpf_l3_csum_replace(skb, l2 + 10, *(__u16 *)&old, *(__u16 *)&new, sizeof(__u16)) < 0)
		return false;
	return !bpf_skb_store_bytes(skb, at, &new, p->ipv6 ? 1 : sizeof(new), 0);
}

static __always_inline int send_on(struct __sk_buff *skb, const struct packet *p, __u32 key, __u32 l2)
{
	struct redirect_node *node = bpf_map_lookup_elem(&nodes, &key);
	struct bpf_redir_neigh next = { 0 };

	if (!node || (!l2 && !give_header(skb)))
		return SHOT;
	if (p->ipv6) {
		next.nh_family = INET6;
		__builtin_memcpy(next.ipv6_nh, node->v6, 16);
	} else {
		next.nh_family = INET;
		__builtin_memcpy(&next.ipv4_nh, node->v4, 4);
	}
	skb->mark = REDIRECT_MARK;
	return (int)bpf_redirect_neigh(node->device, &next, sizeof(next), 0);
}

/* To the local socket by way of the loopback device, where no packet is too strange. */
static __always_inline int deliver_over_lo(struct __sk_buff *skb, __u32 l2)
{
	struct redirect_config *c;
	__u8 nobody[6] = { 0 };
	__u32 zero = 0;

	c = bpf_map_lookup_elem(&config, &zero);
	if (!c || (!l2 && !give_header(skb)))
		return SHOT;
	/* Its device has no address: to any other the packet would be somebody else's. */
	bpf_skb_store_bytes(skb, 0, nobody, sizeof(nobody), 0);
	skb->mark = REDIRECT_MARK;
	return (int)bpf_redirect(c->lo, BPF_F_INGRESS);
}

/* An error about what a moved end has sent goes where the end is: it tells its socket that the path takes smaller packets only, or that nobody is there. */
static __always_inline int pass_error(struct __sk_buff *skb, struct packet *p, __u32 l2, bool comes_in)
{
	struct redirect_end *end;
	struct place place;

	if (!port_used(p->to.own_port))
		return UNSPEC;
	end = bpf_map_lookup_elem(&ends, &p->to);
	if (!end && p->to.protocol == UDP) {
		__builtin_memset(p->to.peer, 0, 16);
		p->to.peer_port = 0;
		end = bpf_map_lookup_elem(&ends, &p->to);
	}
	if (!end)
		return UNSPEC;
	place_of(end, &place, skb->ifindex);
	if (place.state == REDIRECT_HELD)
		return (int)bpf_redirect(place.tun, 0);
	if (place.state == REDIRECT_THERE && place.flags & REDIRECT_OWNED && !comes_in)
		return UNSPEC;
	if (place.state == REDIRECT_THERE)
		return !comes_in || count_hop(skb, p, l2) ? send_on(skb, p, place.node, l2) : SHOT;
	if (place.state != REDIRECT_HERE || place.flags & REDIRECT_NATIVE)
		return UNSPEC;
	if (!comes_in || place.flags & REDIRECT_OVER_LO)
		return deliver_over_lo(skb, l2);
	skb->mark = REDIRECT_MARK;
	return UNSPEC;
}

struct tcp {
	__u16 from, to;
	__u32 number, acknowledged;
	__u8 len, flags;
	__u16 window, sum, urgent;
};

/* Into the answer that nobody listens: RFC 9293, 3.10.7.1. What it says of checksums stays as it was, perhaps not made yet (CHECKSUM_PARTIAL). */
static __always_inline bool make_reset(struct __sk_buff *skb, const struct packet *p, __u32 l2)
{
	struct {
		struct tcp head;
		__u32 options[10];
	} old = { 0 };
	struct tcp new = { 0 };
	__u64 len = (skb->len - p->header) & 0xffff;
	__s64 sum;

	asm volatile("" : "+r"(len)); /* the verifier is to see the register that is compared where it is used */
	/* Neither options of IP nor data: such a call is made again without. */
	if (p->header != l2 + (p->ipv6 ? sizeof(struct ipv6) : sizeof(struct ipv4)) || len < sizeof(new) || len > sizeof(old) ||
	    bpf_skb_load_bytes(skb, p->header, &old, (__u32)len) < 0 || (old.head.len >> 4) * 4 != len)
		return false;
	new.from = old.head.to;
	new.to = old.head.from;
	new.acknowledged = bpf_htonl(bpf_ntohl(old.head.number) + 1);
	new.len = sizeof(new) / 4 << 4;
	new.flags = FLAG_RST | FLAG_ACK;
	new.sum = old.head.sum;
	sum = bpf_csum_diff((__be32 *)&old, sizeof(old), (__be32 *)&new, sizeof(new), 0);
	if (bpf_skb_change_tail(skb, p->header + sizeof(new), 0) < 0 || bpf_skb_store_bytes(skb, p->header, &new, sizeof(new), 0) < 0)
		return false;
	bpf_l4_csum_replace(skb, p->header + 16, 0, (__u64)sum, 0);
	bpf_l4_csum_replace(skb, p->header + 16, bpf_htons((__u16)len), bpf_htons(sizeof(new)), BPF_F_PSEUDO_HDR | 2);
	return true;
}

/* The kernel says nothing in the name of an address that it has not. */
static __always_inline int refuse(struct __sk_buff *skb, const struct packet *p, __u32 l2)
{
	__u16 was_len, len = bpf_htons(sizeof(struct ipv4) + sizeof(struct tcp));

	if (!make_reset(skb, p, l2) || (!l2 && !give_header(skb)))
		return SHOT;
	l2 = ETHER_BYTES;
	if (p->ipv6) {
		len = bpf_htons(sizeof(struct tcp));
		bpf_skb_store_bytes(skb, l2 + 4, &len, sizeof(len), 0);
		bpf_skb_store_bytes(skb, l2 + 8, p->to.own, 16, 0);
		bpf_skb_store_bytes(skb, l2 + 24, p->to.peer, 16, 0);
	} else {
		if (bpf_skb_load_bytes(skb, l2 + 2, &was_len, sizeof(was_len)) < 0)
			return SHOT;
		bpf_l3_csum_replace(skb, l2 + 10, was_len, len, sizeof(len));
		bpf_skb_store_bytes(skb, l2 + 2, &len, sizeof(len), 0);
		bpf_skb_store_bytes(skb, l2 + 12, p->to.own + 12, 4, 0);
		bpf_skb_store_bytes(skb, l2 + 16, p->to.peer + 12, 4, 0);
	}
	return (int)bpf_redirect_neigh(skb->ifindex, 0, 0, 0);
}

static __always_inline bool nobody_listens(struct __sk_buff *skb, const struct packet *p, const struct place *place)
{
	return p->to.protocol == TCP && (p->tcp_flags & (FLAG_SYN | FLAG_ACK | FLAG_RST)) == FLAG_SYN && !(place->flags & (REDIRECT_NATIVE | REDIRECT_CALLED)) &&
		!tcp_socket_state(skb, p);
}

static __always_inline bool is_lo(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct redirect_config *c = bpf_map_lookup_elem(&config, &zero);

	return c && c->lo == skb->ifindex;
}

static __always_inline int arriving(struct __sk_buff *skb, __u32 l2)
{
	struct packet p = { 0 };
	struct place place;

	/* A switch shows everybody what goes to a link address that it has not learned. */
	if (skb->pkt_type == OTHER_HOST || !parse(skb, &p, l2))
		return UNSPEC;
	if (p.error)
		return pass_error(skb, &p, l2, true);
	/* A call within a unit that arrives, to its listener, which is elsewhere as yet for everybody else. */
	if (skb->mark == REDIRECT_MARK && p.to.protocol == TCP && (p.tcp_flags & (FLAG_SYN | FLAG_ACK)) == FLAG_SYN && is_lo(skb))
		return UNSPEC;
	if (!port_used(p.to.own_port) || !find(skb, &p, &place, false)) {
		remember_caller(skb, &p);
		return port_used(p.to.peer_port) && looks_forged(&p) ? deliver_over_lo(skb, l2) : UNSPEC;
	}
	if (place.state == REDIRECT_THERE)
		return count_hop(skb, &p, l2) ? send_on(skb, &p, place.node, l2) : SHOT;
	if (place.state == REDIRECT_HELD)
		return (int)bpf_redirect(place.tun, 0);
	remember_caller(skb, &p);
	/* At home again, and who has sent it here has not heard of that yet (news.h). */
	if (place.state == REDIRECT_NONE && place.node && !is_local(p.to.own))
		return count_hop(skb, &p, l2) ? send_on(skb, &p, place.node, l2) : SHOT;
	if (place.state == REDIRECT_NONE)
		return looks_forged(&p) ? deliver_over_lo(skb, l2) : UNSPEC;
	if (nobody_listens(skb, &p, &place))
		return refuse(skb, &p, l2);
	if (place.flags & (REDIRECT_OVER_LO | REDIRECT_CALLED) || looks_forged(&p))
		return deliver_over_lo(skb, l2);
	if (!(place.flags & REDIRECT_NATIVE))
		skb->mark = REDIRECT_MARK;
	return UNSPEC;
}

/* Whether it is sent by the old copy of a socket that is, or may be, elsewhere. */
static __always_inline bool is_stale(const struct packet *p)
{
	struct redirect_flow from;
	struct redirect_end *end;
	struct place place;

	other_end(&p->to, &from);
	end = bpf_map_lookup_elem(&ends, &from);
	if (!end)
		return false;
	place_of(end, &place, 0);
	return place.state == REDIRECT_THERE || place.state == REDIRECT_HELD || place.flags & REDIRECT_COMING;
}

/* Where a loopback address is of the host that a socket was made on: its node; 0: this one. */
static __always_inline __u32 home_of_peer(struct __sk_buff *skb, const struct packet *p)
{
	struct redirect_flow from;
	struct redirect_end *end;

	if (p->to.protocol != UDP || !is_loopback(p->to.own) || !port_used(p->to.peer_port))
		return 0;
	other_end(&p->to, &from);
	__builtin_memset(from.peer, 0, 16);
	from.peer_port = 0;
	end = bpf_map_lookup_elem(&ends, &from);
	return end && end->home && !has_udp_socket(skb, p) ? end->home : 0;
}

static __always_inline int leaving(struct __sk_buff *skb, __u32 l2)
{
	struct packet p = { 0 };
	struct place place;
	__u32 home;

	if (skb->mark == REDIRECT_MARK || !parse(skb, &p, l2))
		return UNSPEC;
	if (p.error)
		return pass_error(skb, &p, l2, false);
	if (!skb->ingress_ifindex && port_used(p.to.peer_port)) {
		if (p.to.protocol == UDP)
			keep_source(skb, &p, l2);
		if (is_stale(&p))
			return SHOT;
	}
	if (is_lo(skb))
		remember_caller(skb, &p);
	if (!port_used(p.to.own_port) || !find(skb, &p, &place, is_lo(skb))) {
		home = home_of_peer(skb, &p);
		return home ? send_on(skb, &p, home, l2) : UNSPEC;
	}
	/* Once the address has left, routing knows best where it is. As long as it is here, packets for it go over the loopback device. */
	if (place.state == REDIRECT_THERE && place.flags & REDIRECT_OWNED && !is_lo(skb))
		return UNSPEC;
	if (place.state == REDIRECT_THERE)
		return send_on(skb, &p, place.node, l2);
	if (place.state == REDIRECT_HELD)
		return (int)bpf_redirect(place.tun, 0);
	if (place.state == REDIRECT_HERE && (!(place.flags & REDIRECT_NATIVE) || place.flags & REDIRECT_CALLED)) {
		remember_caller(skb, &p);
		return deliver_over_lo(skb, l2);
	}
	return UNSPEC;
}

SEC("tc")
int gw_in(struct __sk_buff *skb)
{
	return arriving(skb, ETHER_BYTES);
}

SEC("tc")
int gw_out(struct __sk_buff *skb)
{
	return leaving(skb, ETHER_BYTES);
}

SEC("tc")
int gw_in_raw(struct __sk_buff *skb)
{
	return arriving(skb, 0);
}

SEC("tc")
int gw_out_raw(struct __sk_buff *skb)
{
	return leaving(skb, 0);
}
