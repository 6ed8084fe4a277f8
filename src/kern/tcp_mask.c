/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tcp_mask.c - see tcp_mask.h */
#include "kern/tcp_mask.h"

#include <bpf/btf.h>
#include <errno.h>
#include <string.h>

#include "base/util.h"

/* What traffic changes: numbers, times, queues, timers, locks, references, what congestion control and routing remember. */
static const char *const of_common[] = {
	"skc_refcnt", "skc_rx_queue_mapping", "skc_tx_queue_mapping", "skc_incoming_cpu",
	NULL,
};

static const char *const of_sock[] = {
	"sk_drops", "sk_rx_dst", "sk_rx_dst_ifindex", "sk_rx_dst_cookie", "sk_napi_id", "sk_lock", "sk_forward_alloc", "sk_receive_queue", "sk_backlog",
	"sk_error_queue", "sk_write_pending", "sk_omem_alloc", "sk_err_soft", "sk_wmem_queued", "sk_wmem_alloc", "sk_tsq_flags", "sk_send_head",
	"sk_write_queue", "sk_dst_pending_confirm", "sk_frag", "sk_timer", "sk_pacing_rate", "sk_dst_cache", "sk_txhash", "sk_callback_lock",
	"sk_peer_lock", "sk_stamp",
	NULL,
};

static const char *const of_inet[] = { "inet_id", NULL };

static const char *const of_connection[] = {
	"icsk_retransmit_timer", "icsk_delack_timer", "icsk_rto", "icsk_pmtu_cookie", "icsk_retransmits", "icsk_pending", "icsk_backoff", "icsk_probes_out",
	"icsk_ack", "icsk_mtup", "icsk_probes_tstamp", "icsk_ca_priv", "icsk_timeout",
	NULL,
};

static const char *const of_tcp[] = {
	"max_window", "rcv_ssthresh", "reordering", "gso_segs", "retransmit_skb_hint", "lost_skb_hint", "snd_wnd", "mss_cache", "snd_cwnd", "prr_out",
	"lost_out", "sacked_out", "copied_seq", "snd_wl1", "tlp_high_seq", "rttvar_us", "retrans_out", "lost", "snd_ssthresh", "rtt_min",
	"out_of_order_queue", "segs_out", "data_segs_out", "bytes_sent", "snd_sml", "chrono_type", "chrono_start", "chrono_stat", "write_seq", "pushed_seq",
	"lsndtime", "mdev_us", "rtt_seq", "tcp_wstamp_ns", "accecn_opt_tstamp", "tsorted_sent_queue", "highest_sack", "pred_flags", "tcp_clock_cache",
	"tcp_mstamp", "rcv_nxt", "snd_nxt", "snd_una", "srtt_us", "packets_out", "snd_up", "delivered", "delivered_ce", "received_ce", "app_limited",
	"rcv_wnd", "rcv_tstamp", "bytes_received", "segs_in", "data_segs_in", "rcv_wup", "max_packets_out", "cwnd_usage_seq", "rate_delivered",
	"rate_interval_us", "rcv_rtt_last_tsecr", "first_tx_mstamp", "delivered_mstamp", "bytes_acked", "rcv_rtt_est", "rcvq_space", "dsack_dups",
	"compressed_ack_rcv_nxt", "tsq_node", "rack", "last_oow_ack_time", "compressed_ack", "mdev_max_us", "reord_seen", "snd_cwnd_cnt", "snd_cwnd_used",
	"snd_cwnd_stamp", "prior_cwnd", "prr_delivered", "pacing_timer", "compressed_ack_timer", "ooo_last_skb", "duplicate_sack", "selective_acks",
	"recv_sack_cache", "prior_ssthresh", "high_seq", "retrans_stamp", "undo_marker", "undo_retrans", "bytes_retrans", "total_retrans", "rto_stamp",
	"total_rto", "total_rto_recoveries", "total_rto_time", "rcv_ooopack", "timeout_rehash", "tcp_rtx_queue",
	NULL,
};

static const char *const of_options[] = {
	"ts_recent_stamp", "ts_recent", "rcv_tsval", "rcv_tsecr", "num_sacks",
	NULL,
};

static const char *const of_inet6[] = { "dst_cookie", NULL };

/*
 * What tells one socket from another: addresses, its places in the kernel's tables, what belongs to its file. What grows with traffic and is shown by options (sizes of buffers,
 * TCP_WINDOW_CLAMP) is in the record.
 */
static const char *const own_common[] = {
	"skc_daddr", "skc_rcv_saddr", "skc_hash", "skc_dport", "skc_num", "skc_bind_node", "skc_v6_daddr", "skc_v6_rcv_saddr", "skc_cookie", "skc_node", "skc_rxhash",
	NULL,
};

static const char *const own_sock[] = { "sk_socket", "sk_wq", "sk_ino", "sk_rcvbuf", "sk_sndbuf", NULL };

static const char *const own_inet[] = { "inet_saddr", "inet_sport", "pinet6", "cork", NULL };

static const char *const own_connection[] = { "icsk_bind_hash", "icsk_bind2_hash", NULL };

static const char *const own_tcp[] = { "tsoffset", "scaling_ratio", "window_clamp", NULL };

static const char *const own_inet6[] = { "saddr", "rcv_flowinfo", NULL };

/* A structure that begins at the socket, or is a member of one that does. */
static const struct part {
	const char *name, *outer, *member;
	const char *const *left_out, *const *own;
} parts[] = {
	{ "sock_common", NULL, NULL, of_common, own_common }, { "sock", NULL, NULL, of_sock, own_sock }, { "inet_sock", NULL, NULL, of_inet, own_inet },
	{ "inet_connection_sock", NULL, NULL, of_connection, own_connection }, { "tcp_sock", NULL, NULL, of_tcp, own_tcp },
	{ "tcp_options_received", "tcp_sock", "rx_opt", of_options, NULL }, { "ipv6_pinfo", "tcp6_sock", "inet6", of_inet6, own_inet6 },
};

/* Where a member lies, also one of a nameless structure within. Bit fields count as what is not there. */
static bool find_member(const struct btf *btf, int type, const char *name, uint32_t *at, uint32_t *size)
{
	const struct btf_type *t = btf__type_by_id(btf, (uint32_t)type);
	const struct btf_member *m = btf_members(t);

	for (uint32_t i = 0; i < btf_vlen(t); i++) {
		const char *own = btf__name_by_offset(btf, m[i].name_off);
		uint32_t offset = btf_member_bit_offset(t, i) / 8;
		int inner = own[0] ? -1 : btf__resolve_type(btf, m[i].type);

		if (own[0] && !strcmp(own, name) && !btf_member_bitfield_size(t, i)) {
			int64_t bytes = btf__resolve_size(btf, m[i].type);

			*at += offset;
			*size = bytes > 0 ? (uint32_t)bytes : 0;
			return true;
		}
		if (inner >= 0 && btf_is_composite(btf__type_by_id(btf, (uint32_t)inner)) && find_member(btf, inner, name, at, size)) {
			*at += offset;
			return true;
		}
	}
	return false;
}

static void leave_out(const struct btf *btf, const struct part *p, const char *const *names, uint8_t *mask)
{
	int type = btf__find_by_name_kind(btf, p->name, BTF_KIND_STRUCT), outer = p->outer ? btf__find_by_name_kind(btf, p->outer, BTF_KIND_STRUCT) : 0;
	uint32_t base = 0, ignored;

	if (type < 0 || outer < 0 || (p->outer && !find_member(btf, outer, p->member, &base, &ignored)))
		return;
	for (const char *const *name = names; name && *name; name++) {
		uint32_t at = 0, size = 0;

		if (find_member(btf, type, *name, &at, &size) && base + at + size <= TCP_MASK_WORDS * sizeof(uint64_t))
			memset(mask + base + at, 0, size);
	}
}

int tcp_mask_fill(uint64_t mask[TCP_MASK_WORDS], uint64_t kin[TCP_MASK_WORDS], struct err *e)
{
	struct btf *btf = btf__load_vmlinux_btf();

	memset(mask, 0xff, TCP_MASK_WORDS * sizeof(*mask));
	if (!btf)
		return err_sys(e, -errno, "what the kernel's structures are");
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		leave_out(btf, &parts[i], parts[i].left_out, (uint8_t *)mask);
	memcpy(kin, mask, TCP_MASK_WORDS * sizeof(*kin));
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		leave_out(btf, &parts[i], parts[i].own, (uint8_t *)kin);
	btf__free(btf);
	return 0;
}
