/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tcp_peek.bpf.c - an iterator over the descriptors of one process that writes a record for each TCP socket, and a program that does for those that are asked for
 *
 * With the connections that wait in the queues of listeners behind these. The second writes digests as well. Two more: what has been sent on connections that wait, and who is calling (a
 * walk over all connections of the host).
 */
#include "inet_file.h"

#include <stdbool.h>

#include <bpf/bpf_endian.h>

#include "../tcp_record.h"

#define PROTOCOL_TCP 6
#define STATE_LISTEN 10
#define FLAG_DONE 2 /* 1 << SOCK_DONE */
#define STATE_CALLING 12 /* TCP_NEW_SYN_RECV */
#define WAITING_MAX 4096
#define SEGMENTS_MAX 4096
#define PIECES_MAX 32 /* of a segment: its head and its fragments */
#define PARTS_MAX 1024
#define PAGE_BITS 12
/* Where the kernel maps all memory, and its list of pages, unless it chooses that when it begins: x86-64, four levels. */
#define MEMORY_AT 0xffff888000000000ul
#define PAGES_AT 0xffffea0000000000ul
/* TCPI_OPT_* */
#define OPTION_STAMPS 1
#define OPTION_SACK 2
#define OPTION_SCALE 4
#define OPTION_ECN 8
#define OPTION_USEC 64

extern const void page_offset_base __ksym __weak;
extern const void vmemmap_base __ksym __weak;

/*
 * What is told of one descriptor must fit into the 32 KiB that an iterator has for it. So of what waits for a listener only what begins in a window of bytes is told; `more` says that there is
 * something behind that.
 */
unsigned int window_start = 0;
unsigned int more = 0;
#define PINGPONG_MAX 3

static struct tcp_record out;

static struct {
	struct tcp_data_record head;
	char data[TCP_DATA_MAX + 8];
} piece;

struct sock;

struct sock_common {
	unsigned int skc_daddr, skc_rcv_saddr;
	unsigned short skc_dport, skc_num, skc_family;
	unsigned char skc_state;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
	unsigned long skc_flags;
	struct sock *skc_listener; /* of a request */
	unsigned int skc_rcv_wnd;
	struct {
		void *net;
	} skc_net;
} CO_RE;

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *next;
	unsigned int qlen;
} CO_RE;

typedef struct {
	int counter;
} atomic_t;

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue, sk_error_queue;
	atomic_t sk_zckey;
	int sk_err;
	unsigned short sk_type, sk_protocol;
	unsigned char sk_shutdown;
	unsigned int sk_ack_backlog, sk_max_ack_backlog;
	int sk_rcvbuf, sk_sndbuf;
} CO_RE;

struct inet_sock {
	unsigned short inet_sport;
} CO_RE;

struct sk_buff {
	struct sk_buff *next;
	char cb[48];
	unsigned int len, data_len, end;
	unsigned char *head, *data;
} CO_RE;

struct tcp_skb_cb {
	unsigned int seq;
} CO_RE;

struct page;

/* The same under all its names (struct bio_vec, with a netmem_ref): where the page is, and what of it. */
struct fragment {
	unsigned long page;
	unsigned int len, offset;
};

struct skb_shared_info {
	unsigned char nr_frags;
	struct sk_buff *frag_list;
	struct fragment frags[17];
} CO_RE;

struct page {
	unsigned long flags;
} CO_RE;

struct request_sock {
	struct request_sock *dl_next;
	struct sock *sk;
	unsigned short mss;
	unsigned int ts_recent;
} CO_RE;

struct inet_request_sock {
	struct request_sock req;
	unsigned short snd_wscale : 4, rcv_wscale : 4, tstamp_ok : 1, sack_ok : 1, wscale_ok : 1, ecn_ok : 1;
} CO_RE;

struct tcp_request_sock {
	struct inet_request_sock req;
	_Bool req_usec_ts;
	unsigned int rcv_isn, snt_isn, ts_off;
} CO_RE;

struct request_sock_queue {
	atomic_t qlen;
	struct request_sock *rskq_accept_head;
} CO_RE;

struct ack_state {
	unsigned char pingpong;
} CO_RE;

struct inet_connection_sock {
	struct request_sock_queue icsk_accept_queue;
	struct ack_state icsk_ack;
	void *icsk_ulp_ops;
} CO_RE;

struct tcp_options_received {
	unsigned int ts_recent;
	unsigned short tstamp_ok : 1, wscale_ok : 1, sack_ok : 3;
	unsigned char snd_wscale : 4, rcv_wscale : 4;
	unsigned short user_mss, mss_clamp;
} CO_RE;

struct tcp_sock {
	unsigned int snd_una, write_seq, rcv_nxt, copied_seq, urg_seq;
	unsigned int snd_nxt, snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup, tsoffset;
	unsigned long long tcp_wstamp_ns, tcp_clock_cache;
	unsigned short urg_data;
	struct tcp_options_received rx_opt;
	unsigned int mss_cache, window_clamp;
	_Bool is_mptcp;
	unsigned char tcp_usec_ts : 1;
	unsigned char ecn_flags;
	void *md5sig_info, *ao_info;
} CO_RE;

struct tcp6_sock {
	struct tcp_sock tcp;
} CO_RE;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} CO_RE;

struct files_struct {
	struct fdtable *fdt;
} CO_RE;

struct task_struct {
	struct files_struct *files;
} CO_RE;

extern struct task_struct *bpf_task_from_pid(int pid) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;

struct walk {
	struct seq_file *seq;
	struct request_sock *next;
	int fd;
	unsigned int at;
};

static __always_inline bool is_in_window(struct walk *w, unsigned int len)
{
	unsigned int at = w->at;

	w->at += len;
	if (at >= window_start + TCP_WINDOW_BYTES)
		more = 1;
	return at >= window_start && at < window_start + TCP_WINDOW_BYTES;
}

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
	out.send_scale = BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.snd_wscale);
	out.receive_scale = BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.rcv_wscale);
	out.options = (BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.tstamp_ok) ? OPTION_STAMPS : 0) | (BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.sack_ok) ? OPTION_SACK : 0) |
		(BPF_CORE_READ_BITFIELD_PROBED(tp, rx_opt.wscale_ok) ? OPTION_SCALE : 0) | (BPF_CORE_READ(tp, ecn_flags) & 1 ? OPTION_ECN : 0);
	if (bpf_core_field_exists(tp->tcp_usec_ts) && BPF_CORE_READ_BITFIELD_PROBED(tp, tcp_usec_ts))
		out.options |= OPTION_USEC;
}

/* Into `out`. By address: a function of its own. */
__noinline int read_record(unsigned long address, int fd, unsigned int flags)
{
	struct sock *sk = (struct sock *)address;
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
	if (BPF_CORE_READ(sk, sk_error_queue.qlen))
		out.flags |= TCP_RECORD_TELLING;
	if (bpf_core_field_exists(sk->sk_zckey) && BPF_CORE_READ(sk, sk_zckey.counter))
		out.flags |= TCP_RECORD_LENDING;
	out.shut_down = BPF_CORE_READ(sk, sk_shutdown);
	out.error = BPF_CORE_READ(sk, sk_err);
	out.snd_una = BPF_CORE_READ(tp, snd_una);
	out.write_seq = BPF_CORE_READ(tp, write_seq);
	out.rcv_nxt = BPF_CORE_READ(tp, rcv_nxt);
	out.copied_seq = BPF_CORE_READ(tp, copied_seq);
	out.urgent_seq = BPF_CORE_READ(tp, urg_seq);
	out.urgent = BPF_CORE_READ(tp, urg_data);
	out.user_mss = BPF_CORE_READ(tp, rx_opt.user_mss);
	out.listener = out.state == STATE_LISTEN ? (unsigned long)sk : 0;
	out.half_open = out.state == STATE_LISTEN ? BPF_CORE_READ(icsk, icsk_accept_queue.qlen.counter) : 0;
	out.waiting = out.state == STATE_LISTEN ? BPF_CORE_READ(sk, sk_ack_backlog) : 0;
	out.backlog = out.state == STATE_LISTEN ? BPF_CORE_READ(sk, sk_max_ack_backlog) : 0;
	out.mss = BPF_CORE_READ(tp, mss_cache);
	out.receive_buffer = BPF_CORE_READ(sk, sk_rcvbuf);
	out.send_buffer = BPF_CORE_READ(sk, sk_sndbuf);
	out.window_clamp = BPF_CORE_READ(tp, window_clamp);
	out.net = (unsigned long)BPF_CORE_READ(sk, __sk_common.skc_net.net);
	read_numbers(tp);
	read_address(out.local, &sk->__sk_common.skc_v6_rcv_saddr, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr), family);
	read_address(out.peer, &sk->__sk_common.skc_v6_daddr, BPF_CORE_READ(sk, __sk_common.skc_daddr), family);
	out.local_port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	out.peer_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	return 0;
}

static __always_inline void write_record(struct seq_file *seq, struct sock *sk, int fd, unsigned int flags)
{
	read_record((unsigned long)sk, fd, flags);
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
	if (sk && is_in_window(w, sizeof(out)))
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
	if (!window_start)
		write_record(w.seq, sk, w.fd, 0);
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != STATE_LISTEN)
		return 0;
	w.next = BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_accept_queue.rskq_accept_head);
	bpf_loop(WAITING_MAX, waiting_step, &w, 0);
	return 0;
}

/* --- what has been sent on connections that wait --- */

struct reading {
	struct walk walk;
	struct sk_buff *skb, *end;       /* of one connection's queue */
	unsigned int piece, n_pieces;    /* of a segment */
	unsigned long at;                /* of a piece */
	unsigned int left;
};

static long part_step(unsigned int i, void *context)
{
	struct reading *r = context;
	unsigned int len = r->left < TCP_DATA_MAX ? r->left : TCP_DATA_MAX;

	(void)i;
	if (!len)
		return 1;
	if (is_in_window(&r->walk, sizeof(piece.head) + len)) {
		if (bpf_probe_read_kernel(piece.data, len, (void *)r->at) < 0)
			piece.head.beyond = 1;
		piece.head.len = len;
		bpf_seq_write(r->walk.seq, &piece, sizeof(piece.head) + ((len + 7) & 0x1ff8));
	}
	piece.head.number += len;
	r->at += len;
	r->left -= len;
	return 0;
}

/* Where a page can be read. */
static __always_inline unsigned long address_of(unsigned long page)
{
	unsigned long memory = MEMORY_AT, pages = PAGES_AT;

	if (&page_offset_base)
		bpf_probe_read_kernel(&memory, sizeof(memory), &page_offset_base);
	if (&vmemmap_base)
		bpf_probe_read_kernel(&pages, sizeof(pages), &vmemmap_base);
	return memory + ((page - pages) / bpf_core_type_size(struct page) << PAGE_BITS);
}

static long piece_step(unsigned int i, void *context)
{
	struct reading *r = context;
	struct sk_buff *skb = r->skb;
	struct skb_shared_info *shared;
	struct fragment f = { 0 };

	if (i >= r->n_pieces)
		return 1;
	if (i == 0) {
		r->at = (unsigned long)BPF_CORE_READ(skb, data);
		r->left = BPF_CORE_READ(skb, len) - BPF_CORE_READ(skb, data_len);
	} else {
		shared = (void *)(BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, end));
		bpf_probe_read_kernel(&f, sizeof(f), (char *)shared + bpf_core_field_offset(struct skb_shared_info, frags) + (i - 1) * sizeof(f));
		/* Memory of a device. */
		if (f.page & 1)
			piece.head.beyond = 1;
		r->at = address_of(f.page & ~3ul) + f.offset;
		r->left = f.len;
	}
	bpf_loop(PARTS_MAX, part_step, r, 0);
	return 0;
}

static long segment_step(unsigned int i, void *context)
{
	struct reading *r = context;
	struct sk_buff *skb = r->skb;
	struct skb_shared_info *shared;
	struct tcp_skb_cb *cb;

	(void)i;
	if (!skb || skb == r->end)
		return 1;
	cb = (void *)((char *)skb + bpf_core_field_offset(struct sk_buff, cb));
	shared = (void *)(BPF_CORE_READ(skb, head) + BPF_CORE_READ(skb, end));
	piece.head.number = BPF_CORE_READ(cb, seq);
	piece.head.beyond = BPF_CORE_READ(shared, frag_list) ? 1 : 0;
	r->n_pieces = 1 + BPF_CORE_READ(shared, nr_frags);
	bpf_loop(PIECES_MAX, piece_step, r, 0);
	r->skb = BPF_CORE_READ(skb, next);
	return 0;
}

static long waiting_data_step(unsigned int i, void *context)
{
	struct reading *r = context;
	struct request_sock *request = r->walk.next;
	struct sock *sk;
	int family;

	(void)i;
	if (!request)
		return 1;
	r->walk.next = BPF_CORE_READ(request, dl_next);
	sk = BPF_CORE_READ(request, sk);
	if (!sk)
		return 0;
	family = BPF_CORE_READ(sk, __sk_common.skc_family);
	piece.head.fd = r->walk.fd;
	read_address(piece.head.local, &sk->__sk_common.skc_v6_rcv_saddr, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr), family);
	read_address(piece.head.peer, &sk->__sk_common.skc_v6_daddr, BPF_CORE_READ(sk, __sk_common.skc_daddr), family);
	piece.head.peer_port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	r->end = (void *)((char *)sk + bpf_core_field_offset(struct sock, sk_receive_queue));
	r->skb = BPF_CORE_READ(sk, sk_receive_queue.next);
	bpf_loop(SEGMENTS_MAX, segment_step, r, 0);
	return 0;
}

SEC("iter/task_file")
int read_waiting(struct bpf_iter__task_file *ctx)
{
	struct reading r = { .walk = { .seq = ctx->meta->seq, .fd = (int)ctx->fd } };
	int family = 0;
	struct sock *sk = inet_sock_of(ctx->file, &family);

	if (!sk || BPF_CORE_READ(sk, sk_type) != TYPE_STREAM || BPF_CORE_READ(sk, sk_protocol) != PROTOCOL_TCP ||
	    BPF_CORE_READ(sk, __sk_common.skc_state) != STATE_LISTEN)
		return 0;
	r.walk.next = BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_accept_queue.rskq_accept_head);
	bpf_loop(WAITING_MAX, waiting_data_step, &r, 0);
	return 0;
}

/* --- who is calling --- */

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
	unsigned int uid;
} CO_RE;

SEC("iter/tcp")
int read_calling(struct bpf_iter__tcp *ctx)
{
	struct tcp_request_sock *t = (void *)ctx->sk_common;
	struct inet_request_sock *q = (void *)t;
	struct sock_common *c = (void *)t;
	int family;

	if (!t || BPF_CORE_READ(c, skc_state) != STATE_CALLING)
		return 0;
	family = BPF_CORE_READ(c, skc_family);
	__builtin_memset(&out, 0, sizeof(out));
	out.fd = -1;
	out.flags = TCP_RECORD_WAITING | TCP_RECORD_CALLING;
	out.state = STATE_CALLING;
	out.listener = (unsigned long)BPF_CORE_READ(c, skc_listener);
	out.snd_una = out.snd_nxt = out.write_seq = BPF_CORE_READ(t, snt_isn) + 1;
	out.rcv_nxt = out.copied_seq = out.rcv_wup = BPF_CORE_READ(t, rcv_isn) + 1;
	out.rcv_wnd = BPF_CORE_READ(c, skc_rcv_wnd);
	out.ts_offset = BPF_CORE_READ(t, ts_off);
	out.ts_recent = BPF_CORE_READ(&q->req, ts_recent);
	out.stamp_ns = bpf_ktime_get_ns();
	out.mss_clamp = BPF_CORE_READ(&q->req, mss);
	out.send_scale = BPF_CORE_READ_BITFIELD_PROBED(q, snd_wscale);
	out.receive_scale = BPF_CORE_READ_BITFIELD_PROBED(q, rcv_wscale);
	out.options = (BPF_CORE_READ_BITFIELD_PROBED(q, tstamp_ok) ? OPTION_STAMPS : 0) | (BPF_CORE_READ_BITFIELD_PROBED(q, sack_ok) ? OPTION_SACK : 0) |
		(BPF_CORE_READ_BITFIELD_PROBED(q, wscale_ok) ? OPTION_SCALE : 0) | (BPF_CORE_READ_BITFIELD_PROBED(q, ecn_ok) ? OPTION_ECN : 0);
	if (bpf_core_field_exists(t->req_usec_ts) && BPF_CORE_READ(t, req_usec_ts))
		out.options |= OPTION_USEC;
	read_address(out.local, &c->skc_v6_rcv_saddr, BPF_CORE_READ(c, skc_rcv_saddr), family);
	read_address(out.peer, &c->skc_v6_daddr, BPF_CORE_READ(c, skc_daddr), family);
	out.local_port = BPF_CORE_READ(c, skc_num);
	out.peer_port = bpf_ntohs(BPF_CORE_READ(c, skc_dport));
	bpf_seq_write(ctx->meta->seq, &out, sizeof(out));
	return 0;
}

/* --- those that are asked for --- */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TCP_ASKED_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, unsigned int);
	__type(value, struct tcp_told);
} told SEC(".maps");

static unsigned long long words[TCP_MASK_WORDS];
unsigned long long mask[TCP_MASK_WORDS], kin_mask[TCP_MASK_WORDS];

__noinline int digest(struct tcp_told *t, unsigned long address)
{
	struct sock *sk = (struct sock *)address;
	int family = BPF_CORE_READ(sk, __sk_common.skc_family);
	unsigned int size = family == FAMILY_INET6 ? bpf_core_type_size(struct tcp6_sock) : bpf_core_type_size(struct tcp_sock);
	unsigned long long a = 14695981039346656037ull, b = 1099511628211ull, c = 0x165667b19e3779f9ull;
	unsigned int pingpong;

	if (!t || size > sizeof(words) || bpf_probe_read_kernel(words, size, sk))
		return 0;
	for (unsigned int i = 0; i < TCP_MASK_WORDS; i++) {
		if (i >= size / 8)
			break;
		a = (a ^ words[i]) * 0x9e3779b97f4a7c15ull;
		b = (b ^ (words[i] & mask[i])) * 0xc2b2ae3d27d4eb4full;
		c = (c ^ (words[i] & kin_mask[i])) * 0xd6e8feb86659fd93ull;
		a ^= a >> 32;
		b ^= b >> 32;
		c ^= c >> 32;
	}
	/* By which TCP_QUICKACK is told; it counts up to that in traffic, and beyond. */
	pingpong = BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_ack.pingpong);
	b = (b ^ (pingpong < PINGPONG_MAX ? pingpong : PINGPONG_MAX)) * 0xc2b2ae3d27d4eb4full;
	c = (c ^ (pingpong < PINGPONG_MAX ? pingpong : PINGPONG_MAX)) * 0xd6e8feb86659fd93ull;
	t->digest = a | 1;
	t->settings = b | 1;
	t->kin = c | 1;
	return 1;
}

struct ask_walk {
	struct files_struct *files;
};

static long ask_step(unsigned int i, void *context)
{
	struct ask_walk *w = context;
	struct tcp_told *t = bpf_map_lookup_elem(&told, &i);
	struct files_struct *files = w->files;
	struct fdtable *table;
	struct file *file = 0, *again = 0;
	struct sock *sk;
	int family = 0;

	if (!t)
		return 1;
	t->is_told = 0;
	table = BPF_CORE_READ(files, fdt);
	if (t->fd < 0 || (unsigned int)t->fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), BPF_CORE_READ(table, fd) + t->fd);
	sk = inet_sock_of(file, &family);
	if (!sk || BPF_CORE_READ(sk, sk_type) != TYPE_STREAM || BPF_CORE_READ(sk, sk_protocol) != PROTOCOL_TCP)
		return 0;
	/* Before the record: what happens in between makes another digest. */
	if (!digest(t, (unsigned long)sk))
		return 0;
	read_record((unsigned long)sk, t->fd, 0);
	t->record = out;
	t->file = (unsigned long)file;
	/* Where the process runs, it may have closed it meanwhile, and the memory may be another one's. */
	bpf_probe_read_kernel(&again, sizeof(again), BPF_CORE_READ(table, fd) + t->fd);
	t->is_told = again == file;
	return 0;
}

SEC("syscall")
int read_asked(struct tcp_ask *ask)
{
	struct task_struct *task = 0;
	struct ask_walk w;

	if (!ask->process) {
		w.files = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), files);
	} else {
		task = bpf_task_from_pid((int)ask->process);
		if (!task)
			return 0;
		w.files = BPF_CORE_READ(task, files);
	}
	if (w.files)
		bpf_loop(ask->n, ask_step, &w, 0);
	if (task)
		bpf_task_release(task);
	return 1;
}
