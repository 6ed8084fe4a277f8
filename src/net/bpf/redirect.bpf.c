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

char LICENSE[] SEC("license") = "GPL";

#define ETHER_BYTES 14
#define PROTO_IP 0x0800
#define PROTO_IPV6 0x86dd
#define TCP 6
#define UDP 17
#define IPV6_FRAGMENT 44
#define INET 2
#define INET6 10
#define FLAG_SYN 2
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

/* Fragments behind the first one have no ports. */
struct fragment {
	__u8 to[16], from[16];
	__u32 id;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct fragment);
	__type(value, __u32);
} fragments SEC(".maps");

struct packet {
	struct redirect_flow to; /* the end that it goes to */
	__u8 tcp_flags;
	bool ipv6;
};

struct place {
	__u32 state, flags, node, tun;
};

struct ipv4 {
	__u8 version_len, tos;
	__u16 len, id, offset;
	__u8 ttl, protocol;
	__u16 sum;
	__u32 from, to;
};

struct ipv6 {
	__u32 version;
	__u16 len;
	__u8 next, hops;
	__u8 from[16], to[16];
};

struct ipv6_fragment {
	__u8 next, reserved;
	__u16 offset;
	__u32 id;
};

static __always_inline bool port_used(__u16 port)
{
	__u32 key = port, *n = bpf_map_lookup_elem(&ports, &key);

	return n && *n;
}

static __always_inline void map_ipv4(__u8 to[16], __u32 address)
{
	((__u32 *)to)[0] = 0;
	((__u32 *)to)[1] = 0;
	((__u32 *)to)[2] = bpf_htonl(0xffff);
	((__u32 *)to)[3] = address;
}

/* The ports of a fragment: in the packet at `offset`, if it is the first one. */
static __always_inline bool fragment_ports(struct __sk_buff *skb, struct packet *p, __u32 offset, bool first, __u32 id)
{
	struct fragment key = { .id = id, .protocol = p->to.protocol };
	__u32 both, *known;

	__builtin_memcpy(key.to, p->to.own, 16);
	__builtin_memcpy(key.from, p->to.peer, 16);
	if (first) {
		if (bpf_skb_load_bytes(skb, offset, &both, sizeof(both)) < 0)
			return false;
		bpf_map_update_elem(&fragments, &key, &both, BPF_ANY);
	} else {
		known = bpf_map_lookup_elem(&fragments, &key);
		if (!known)
			return false;
		both = *known;
	}
	p->to.peer_port = (__u16)both;
	p->to.own_port = (__u16)(both >> 16);
	return true;
}

static __always_inline bool plain_ports(struct __sk_buff *skb, struct packet *p, __u32 offset)
{
	struct {
		__u16 from, to;
		__u8 other[9], flags;
	} tcp;

	if (p->to.protocol == TCP) {
		if (bpf_skb_load_bytes(skb, offset, &tcp, 14) < 0)
			return false;
		p->tcp_flags = tcp.flags;
	} else if (bpf_skb_load_bytes(skb, offset, &tcp, 4) < 0) {
		return false;
	}
	p->to.peer_port = tcp.from;
	p->to.own_port = tcp.to;
	return true;
}

static __always_inline bool parse_ipv4(struct __sk_buff *skb, struct packet *p, __u32 l2)
{
	struct ipv4 ip;
	__u32 offset;

	if (bpf_skb_load_bytes(skb, l2, &ip, sizeof(ip)) < 0 || (ip.protocol != TCP && ip.protocol != UDP))
		return false;
	offset = l2 + (ip.version_len & 15) * 4;
	p->to.protocol = ip.protocol;
	map_ipv4(p->to.own, ip.to);
	map_ipv4(p->to.peer, ip.from);
	if (ip.offset & bpf_htons(0x3fff))
		return fragment_ports(skb, p, offset, !(ip.offset & bpf_htons(0x1fff)), ip.id);
	return plain_ports(skb, p, offset);
}

static __always_inline bool parse_ipv6(struct __sk_buff *skb, struct packet *p, __u32 l2)
{
	struct ipv6_fragment part;
	struct ipv6 ip;

	if (bpf_skb_load_bytes(skb, l2, &ip, sizeof(ip)) < 0)
		return false;
	p->ipv6 = true;
	__builtin_memcpy(p->to.own, ip.to, 16);
	__builtin_memcpy(p->to.peer, ip.from, 16);
	if (ip.next == IPV6_FRAGMENT) {
		if (bpf_skb_load_bytes(skb, l2 + sizeof(ip), &part, sizeof(part)) < 0 || (part.next != TCP && part.next != UDP))
			return false;
		p->to.protocol = part.next;
		return fragment_ports(skb, p, l2 + sizeof(ip) + sizeof(part), !(part.offset & bpf_htons(0xfff8)), part.id);
	}
	p->to.protocol = ip.next;
	return (ip.next == TCP || ip.next == UDP) && plain_ports(skb, p, l2 + sizeof(ip));
}

static __always_inline bool parse(struct __sk_buff *skb, struct packet *p, __u32 l2)
{
	if (skb->protocol == bpf_htons(PROTO_IP))
		return parse_ipv4(skb, p, l2);
	return skb->protocol == bpf_htons(PROTO_IPV6) && parse_ipv6(skb, p, l2);
}

static __always_inline void place_of(struct redirect_end *end, struct place *place)
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
		if (move && move->state) {
			place->state = move->state;
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
 * Whether a packet that begins a connection is for a socket of this host: one that an old listener has not done with, or a new listener. The one that has gone, and has not
 * ended yet, does not count.
 */
static __always_inline bool is_for_us(struct __sk_buff *skb, const struct packet *p, __u32 flags)
{
	struct bpf_sock_tuple tuple = { 0 };
	__u32 len = p->ipv6 ? sizeof(tuple.ipv6) : sizeof(tuple.ipv4), state;
	struct bpf_sock *socket;

	if (p->ipv6) {
		__builtin_memcpy(tuple.ipv6.saddr, p->to.peer, 16);
		__builtin_memcpy(tuple.ipv6.daddr, p->to.own, 16);
		tuple.ipv6.sport = p->to.peer_port;
		tuple.ipv6.dport = p->to.own_port;
	} else {
		__builtin_memcpy(&tuple.ipv4.saddr, p->to.peer + 12, 4);
		__builtin_memcpy(&tuple.ipv4.daddr, p->to.own + 12, 4);
		tuple.ipv4.sport = p->to.peer_port;
		tuple.ipv4.dport = p->to.own_port;
	}
	socket = bpf_skc_lookup_tcp(skb, &tuple, len, BPF_F_CURRENT_NETNS, 0);
	if (!socket)
		return false;
	state = socket->state;
	bpf_sk_release(socket);
	return state == BPF_TCP_LISTEN ? flags & REDIRECT_ENDED : state != BPF_TCP_TIME_WAIT;
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
	place_of(end, place);
	if (p->to.protocol != TCP)
		return true;
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
	place_of(end, place);
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

static __always_inline int arriving(struct __sk_buff *skb, __u32 l2)
{
	struct packet p = { 0 };
	struct place place;

	if (!parse(skb, &p, l2) || !port_used(p.to.own_port) || !find(skb, &p, &place, false))
		return UNSPEC;
	if (place.state == REDIRECT_THERE)
		return count_hop(skb, &p, l2) ? send_on(skb, &p, place.node, l2) : SHOT;
	if (place.state == REDIRECT_HELD)
		return (int)bpf_redirect(place.tun, 0);
	if (place.state != REDIRECT_HERE)
		return UNSPEC;
	if (place.flags & REDIRECT_OVER_LO)
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
	place_of(end, &place);
	return place.state == REDIRECT_THERE || place.state == REDIRECT_HELD || place.flags & REDIRECT_COMING;
}

static __always_inline bool is_lo(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct redirect_config *c = bpf_map_lookup_elem(&config, &zero);

	return c && c->lo == skb->ifindex;
}

static __always_inline int leaving(struct __sk_buff *skb, __u32 l2)
{
	struct packet p = { 0 };
	struct place place;

	if (skb->mark == REDIRECT_MARK || !parse(skb, &p, l2))
		return UNSPEC;
	if (!skb->ingress_ifindex && port_used(p.to.peer_port) && is_stale(&p))
		return SHOT;
	if (!port_used(p.to.own_port) || !find(skb, &p, &place, is_lo(skb)))
		return UNSPEC;
	if (place.state == REDIRECT_THERE)
		return send_on(skb, &p, place.node, l2);
	if (place.state == REDIRECT_HELD)
		return (int)bpf_redirect(place.tun, 0);
	if (place.state == REDIRECT_HERE && !(place.flags & REDIRECT_NATIVE))
		return deliver_over_lo(skb, l2);
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
