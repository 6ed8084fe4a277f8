/* SPDX-License-Identifier: GPL-2.0-or-later */
/* redirect_packet.h - to which end a packet goes; part of redirect.bpf.c and call.bpf.c */
#ifndef GODWIT_NET_REDIRECT_PACKET_H
#define GODWIT_NET_REDIRECT_PACKET_H

#define PROTO_IP 0x0800
#define PROTO_IPV6 0x86dd
#define TCP 6
#define UDP 17
#define IPV6_FRAGMENT 44
#define ICMP 1
#define ICMPV6 58
#define ICMP_BYTES 8 /* in front of the packet that an error is about */

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
	__u32 header;            /* where that of its protocol is; 0: in another fragment */
	__u8 tcp_flags;
	bool ipv6;
	bool error;              /* ICMP, about a packet that the end `to` has sent */
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
		p->header = offset;
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
	p->header = offset;
	return true;
}

static __always_inline bool error_ports(struct __sk_buff *skb, struct packet *p, __u32 offset)
{
	__u16 ports[2];

	if ((p->to.protocol != TCP && p->to.protocol != UDP) || bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)) < 0)
		return false;
	p->error = true;
	p->to.own_port = ports[0];
	p->to.peer_port = ports[1];
	return true;
}

/* What an error is about: unreachable (also because it would have to be fragmented), time exceeded, a parameter problem. */
static __always_inline bool parse_error_ipv4(struct __sk_buff *skb, struct packet *p, __u32 offset)
{
	struct ipv4 ip;
	__u8 type;

	if (bpf_skb_load_bytes(skb, offset, &type, sizeof(type)) < 0 || (type != 3 && type != 11 && type != 12) ||
	    bpf_skb_load_bytes(skb, offset + ICMP_BYTES, &ip, sizeof(ip)) < 0 || ip.offset & bpf_htons(0x1fff))
		return false;
	p->to.protocol = ip.protocol;
	map_ipv4(p->to.own, ip.from);
	map_ipv4(p->to.peer, ip.to);
	return error_ports(skb, p, offset + ICMP_BYTES + (ip.version_len & 15) * 4);
}

static __always_inline bool parse_error_ipv6(struct __sk_buff *skb, struct packet *p, __u32 offset)
{
	struct ipv6 ip;
	__u8 type;

	if (bpf_skb_load_bytes(skb, offset, &type, sizeof(type)) < 0 || type < 1 || type > 4 || bpf_skb_load_bytes(skb, offset + ICMP_BYTES, &ip, sizeof(ip)) < 0)
		return false;
	p->to.protocol = ip.next;
	__builtin_memcpy(p->to.own, ip.from, 16);
	__builtin_memcpy(p->to.peer, ip.to, 16);
	return error_ports(skb, p, offset + ICMP_BYTES + sizeof(ip));
}

static __always_inline bool parse_ipv4(struct __sk_buff *skb, struct packet *p, __u32 l2)
{
	struct ipv4 ip;
	__u32 offset;

	if (bpf_skb_load_bytes(skb, l2, &ip, sizeof(ip)) < 0)
		return false;
	offset = l2 + (ip.version_len & 15) * 4;
	if (ip.protocol == ICMP && !(ip.offset & bpf_htons(0x1fff)))
		return parse_error_ipv4(skb, p, offset);
	if (ip.protocol != TCP && ip.protocol != UDP)
		return false;
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
	if (ip.next == ICMPV6)
		return parse_error_ipv6(skb, p, l2 + sizeof(ip));
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

static __always_inline void packet_tuple(const struct packet *p, struct bpf_sock_tuple *tuple)
{
	if (p->ipv6) {
		__builtin_memcpy(tuple->ipv6.saddr, p->to.peer, 16);
		__builtin_memcpy(tuple->ipv6.daddr, p->to.own, 16);
		tuple->ipv6.sport = p->to.peer_port;
		tuple->ipv6.dport = p->to.own_port;
	} else {
		__builtin_memcpy(&tuple->ipv4.saddr, p->to.peer + 12, 4);
		__builtin_memcpy(&tuple->ipv4.daddr, p->to.own + 12, 4);
		tuple->ipv4.sport = p->to.peer_port;
		tuple->ipv4.dport = p->to.own_port;
	}
}

#endif
