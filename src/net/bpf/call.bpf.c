/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * call.bpf.c - a program at the loopback device that makes connections which another host's listener has answered; see ../redirect.h (redirect_expect_call)
 *
 * What acknowledges the answer arrives here; what the handshake has settled is in the table. The kernel makes the socket as it does for one that comes back with a SYN cookie
 * (bpf_sk_assign_tcp_reqsk, Linux 6.8), and puts it into the listener's queue.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "../redirect_map.h"
#include "redirect_packet.h"

char LICENSE[] SEC("license") = "GPL";

#define ETHER_BYTES 14
#define FLAG_SYN 2
#define FLAG_RST 4
#define FLAG_ACK 16
#define SEGMENT_MIN6 1220 /* the kernel takes no less, and every link of IPv6 has it */
#define UNSPEC (-1) /* TC_ACT_UNSPEC: none of our business */

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, REDIRECT_CALLS_MAX);
	__type(key, struct redirect_flow);
	__type(value, struct redirect_call);
} calls SEC(".maps");

/* The kernel's struct bpf_tcp_req_attrs. */
struct bpf_tcp_req_attrs {
	__u32 rcv_tsval, rcv_tsecr;
	__u16 mss;
	__u8 rcv_wscale, snd_wscale, ecn_ok, wscale_ok, sack_ok, tstamp_ok, usec_ts_ok;
	__u8 reserved[3];
};

/* Whatever is in it. */
struct sock {
	char unused;
};

extern int bpf_sk_assign_tcp_reqsk(struct __sk_buff *skb, struct sock *sk, struct bpf_tcp_req_attrs *attrs, int attrs__sz) __ksym;

static __always_inline void give(struct __sk_buff *skb, struct bpf_sock *listener, const struct redirect_call *call, bool ipv6)
{
	struct bpf_tcp_req_attrs attrs = {
		.rcv_tsval = call->peer_stamp,
		.rcv_tsecr = call->stamp,
		.mss = ipv6 && call->segment_max < SEGMENT_MIN6 ? SEGMENT_MIN6 : call->segment_max,
		.rcv_wscale = call->receive_scale,
		.snd_wscale = call->send_scale,
		.ecn_ok = call->has_ecn,
		.wscale_ok = call->has_scale,
		.sack_ok = call->has_sack,
		.tstamp_ok = call->has_stamps,
		.usec_ts_ok = call->counts_us,
	};
	struct sock *sk = (struct sock *)bpf_skc_to_tcp_sock(listener);

	if (sk)
		bpf_sk_assign_tcp_reqsk(skb, sk, &attrs, sizeof(attrs));
}

SEC("tc")
int gw_call(struct __sk_buff *skb)
{
	struct bpf_sock_tuple tuple = { 0 };
	struct packet p = { 0 };
	struct redirect_call *call;
	struct bpf_sock *sk;

	if (skb->mark != REDIRECT_MARK || !parse(skb, &p, ETHER_BYTES) || p.to.protocol != TCP || (p.tcp_flags & (FLAG_SYN | FLAG_RST | FLAG_ACK)) != FLAG_ACK)
		return UNSPEC;
	call = bpf_map_lookup_elem(&calls, &p.to);
	if (!call)
		return UNSPEC;
	packet_tuple(&p, &tuple);
	sk = bpf_skc_lookup_tcp(skb, &tuple, p.ipv6 ? sizeof(tuple.ipv6) : sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return UNSPEC;
	if (sk->state != BPF_TCP_LISTEN || bpf_ktime_get_ns() > call->until_ns)
		bpf_map_delete_elem(&calls, &p.to);
	else
		give(skb, sk, call, p.ipv6);
	bpf_sk_release(sk);
	return UNSPEC;
}
