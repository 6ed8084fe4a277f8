/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tcp_peek.bpf.c - an iterator over the descriptors of one process that writes a record for each TCP socket
 *
 * With the connections that wait in the queues of listeners behind these.
 */
#include "inet_file.h"

#include <bpf/bpf_endian.h>

#include "../tcp_record.h"

#define PROTOCOL_TCP 6
#define STATE_LISTEN 10
#define FLAG_DONE 2 /* 1 << SOCK_DONE */
#define WAITING_MAX 4096

static struct tcp_record out;

struct sock_common {
	unsigned int skc_daddr, skc_rcv_saddr;
	unsigned short skc_dport, skc_num, skc_family;
	unsigned char skc_state;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
	unsigned long skc_flags;
} CO_RE;

struct sock {
	struct sock_common __sk_common;
	int sk_err;
	unsigned short sk_type, sk_protocol;
	unsigned char sk_shutdown;
} CO_RE;

struct inet_sock {
	unsigned short inet_sport;
} CO_RE;

struct request_sock {
	struct request_sock *dl_next;
	struct sock *sk;
} CO_RE;

typedef struct {
	int counter;
} atomic_t;

struct request_sock_queue {
	atomic_t qlen;
	struct request_sock *rskq_accept_head;
} CO_RE;

struct inet_connection_sock {
	struct request_sock_queue icsk_accept_queue;
	void *icsk_ulp_ops;
} CO_RE;

struct tcp_options_received {
	unsigned int ts_recent;
	unsigned short user_mss, mss_clamp;
} CO_RE;

struct tcp_sock {
	unsigned int snd_una, write_seq, rcv_nxt, copied_seq, urg_seq;
	unsigned int snd_nxt, snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup, tsoffset;
	unsigned long long tcp_wstamp_ns, tcp_clock_cache;
	unsigned short urg_data;
	struct tcp_options_received rx_opt;
	_Bool is_mptcp;
	void *md5sig_info, *ao_info;
} CO_RE;

struct walk {
	struct seq_file *seq;
	struct request_sock *next;
	int fd;
};

static __always_inline void read_address(unsigned char *to, struct in6_addr *v6, unsigned int v4, int family)
{
	__builtin_memset(to, 0, 16);
	if (family == FAMILY_INET6) {
		bpf_probe_read_kernel(to, 16, v6);
	} else if (v4) {
		to[10] = to[11] = 0xff;
		__builtin_memcpy(to + 12, &v4, 4);
	}
}

static __always_inline void read_numbers(struct tcp_sock *tp)
{
	unsigned long long sent = BPF_CORE_READ(tp, tcp_wstamp_ns), clock = BPF_CORE_READ(tp, tcp_clock_cache);

	out.snd_nxt = BPF_CORE_READ(tp, snd_nxt);
	out.snd_wl1 = BPF_CORE_READ(tp, snd_wl1);
	out.snd_wnd = BPF_CORE_READ(tp, snd_wnd);
	out.max_window = BPF_CORE_READ(tp, max_window);
	out.rcv_wnd = BPF_CORE_READ(tp, rcv_wnd);
	out.rcv_wup = BPF_CORE_READ(tp, rcv_wup);
	out.ts_offset = BPF_CORE_READ(tp, tsoffset);
	out.ts_recent = BPF_CORE_READ(tp, rx_opt.ts_recent);
	out.mss_clamp = BPF_CORE_READ(tp, rx_opt.mss_clamp);
	out.stamp_ns = sent > clock ? sent : clock;
}

static __always_inline void write_record(struct seq_file *seq, struct sock *sk, int fd, unsigned int flags)
{
	struct tcp_sock *tp = (void *)sk;
	struct inet_connection_sock *icsk = (void *)sk;
	int family = BPF_CORE_READ(sk, __sk_common.skc_family);

	out.fd = fd;
	out.flags = flags;
	out.state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (BPF_CORE_READ(sk, __sk_common.skc_flags) & FLAG_DONE)
		out.flags |= TCP_RECORD_FINISHED;
	if (BPF_CORE_READ(tp, is_mptcp))
		out.flags |= TCP_RECORD_MPTCP;
	if (BPF_CORE_READ(icsk, icsk_ulp_ops))
		out.flags |= TCP_RECORD_ULP;
	if ((bpf_core_field_exists(tp->md5sig_info) && BPF_CORE_READ(tp, md5sig_info)) || (bpf_core_field_exists(tp->ao_info) && BPF_CORE_READ(tp, ao_info)))
		out.flags |= TCP_RECORD_SIGNED;
	out.shut_down = BPF_CORE_READ(sk, sk_shutdown);
	out.error = BPF_CORE_READ(sk, sk_err);
	out.snd_una = BPF_CORE_READ(tp, snd_una);
	out.write_seq = BPF_CORE_READ(tp, write_seq);
	out.rcv_nxt = BPF_CORE_READ(tp, rcv_nxt);
	out.copied_seq = BPF_CORE_READ(tp, copied_seq);
	out.urgent_seq = BPF_CORE_READ(tp, urg_seq);
	out.urgent = BPF_CORE_READ(tp, urg_data);
	out.user_mss = BPF_CORE_READ(tp, rx_opt.user_mss);
	out.half_open = out.state == STATE_LISTEN ? BPF_CORE_READ(icsk, icsk_accept_queue.qlen.counter) : 0;
	read_numbers(tp);
	read_address(out.local, &sk->__sk_common.skc_v6_rcv_saddr, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr), family);
	read_address(out.peer, &sk->__sk_common.skc_v6_daddr, BPF_CORE_READ(sk, __sk_common.skc_daddr), family);
	out.local_port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	out.peer_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	bpf_seq_write(seq, &out, sizeof(out));
}

static long waiting_step(unsigned int i, void *context)
{
	struct walk *w = context;
	struct request_sock *r = w->next;
	struct sock *sk;

	(void)i;
	if (!r)
		return 1;
	sk = BPF_CORE_READ(r, sk);
	if (sk)
		write_record(w->seq, sk, w->fd, TCP_RECORD_WAITING);
	w->next = BPF_CORE_READ(r, dl_next);
	return 0;
}

SEC("iter/task_file")
int read_tcp(struct bpf_iter__task_file *ctx)
{
	struct walk w = { .seq = ctx->meta->seq, .fd = (int)ctx->fd };
	int family = 0;
	struct sock *sk = inet_sock_of(ctx->file, &family);

	if (!sk || BPF_CORE_READ(sk, sk_type) != TYPE_STREAM || BPF_CORE_READ(sk, sk_protocol) != PROTOCOL_TCP)
		return 0;
	write_record(w.seq, sk, w.fd, 0);
	if (out.state != STATE_LISTEN)
		return 0;
	w.next = BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_accept_queue.rskq_accept_head);
	bpf_loop(WAITING_MAX, waiting_step, &w, 0);
	return 0;
}
