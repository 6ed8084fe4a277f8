/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sock_peek.bpf.c - an iterator over the descriptors of one process that writes what no call shows of one Internet socket
 */
#include "inet_file.h"

#include "../sock_record.h"

#define GROUPS_MAX 4096

int wanted_fd = -1;

static struct sock_record out;

struct in_addr {
	unsigned int s_addr;
};

struct ip_mreqn {
	struct in_addr imr_multiaddr;
	int imr_ifindex;
} CO_RE;

struct ip_sf_socklist {
	unsigned int sl_count;
} CO_RE;

struct ip_mc_socklist {
	struct ip_mc_socklist *next_rcu;
	struct ip_mreqn multi;
	unsigned int sfmode; /* 0: all but those listed */
	struct ip_sf_socklist *sflist;
} CO_RE;

struct ip6_sf_socklist {
	unsigned int sl_count;
} CO_RE;

struct ipv6_mc_socklist {
	struct in6_addr addr;
	int ifindex;
	unsigned int sfmode;
	struct ipv6_mc_socklist *next;
	struct ip6_sf_socklist *sflist;
} CO_RE;

struct sock_reuseport {
	void *prog;
} CO_RE;

struct sk_buff_head {
	unsigned int qlen;
} CO_RE;

struct sock {
	unsigned short sk_type;
	int sk_err;
	struct sk_buff_head sk_error_queue;
	struct sock_reuseport *sk_reuseport_cb;
	void *sk_policy[2];
} CO_RE;

struct ipv6_pinfo {
	void *opt, *ipv6_ac_list;
	struct ipv6_mc_socklist *ipv6_mc_list;
} CO_RE;

/* Of older kernels. */
struct ipv6_pinfo___labels {
	void *ipv6_fl_list;
} CO_RE;

struct inet_sock {
	struct ipv6_pinfo *pinet6;
	void *ipv6_fl_list;
	struct ip_mc_socklist *mc_list;
	int mc_index;
} CO_RE;

struct walk {
	struct seq_file *seq;
	struct ip_mc_socklist *v4;
	struct ipv6_mc_socklist *v6;
};

static long group_step(unsigned int i, void *context)
{
	struct walk *w = context;
	struct ip_mc_socklist *g = w->v4;
	struct ip_sf_socklist *sources;
	unsigned int address;

	(void)i;
	if (!g)
		return 1;
	sources = BPF_CORE_READ(g, sflist);
	__builtin_memset(&out, 0, sizeof(out));
	out.kind = SOCK_GROUP;
	out.family = FAMILY_INET;
	out.device = BPF_CORE_READ(g, multi.imr_ifindex);
	out.flags = BPF_CORE_READ(g, sfmode) || (sources && BPF_CORE_READ(sources, sl_count)) ? SOCK_HAS_FILTERED : 0;
	address = BPF_CORE_READ(g, multi.imr_multiaddr.s_addr);
	__builtin_memcpy(out.address, &address, sizeof(address));
	bpf_seq_write(w->seq, &out, sizeof(out));
	w->v4 = BPF_CORE_READ(g, next_rcu);
	return 0;
}

static long group6_step(unsigned int i, void *context)
{
	struct walk *w = context;
	struct ipv6_mc_socklist *g = w->v6;
	struct ip6_sf_socklist *sources;

	(void)i;
	if (!g)
		return 1;
	sources = BPF_CORE_READ(g, sflist);
	__builtin_memset(&out, 0, sizeof(out));
	out.kind = SOCK_GROUP;
	out.family = FAMILY_INET6;
	out.device = BPF_CORE_READ(g, ifindex);
	out.flags = BPF_CORE_READ(g, sfmode) || (sources && BPF_CORE_READ(sources, sl_count)) ? SOCK_HAS_FILTERED : 0;
	bpf_probe_read_kernel(out.address, sizeof(out.address), &g->addr);
	bpf_seq_write(w->seq, &out, sizeof(out));
	w->v6 = BPF_CORE_READ(g, next);
	return 0;
}

static __always_inline int has_labels(struct sock *sk, struct ipv6_pinfo *np)
{
	struct inet_sock *inet = (void *)sk;
	struct ipv6_pinfo___labels *old = (void *)np;

	if (bpf_core_field_exists(inet->ipv6_fl_list))
		return BPF_CORE_READ(inet, ipv6_fl_list) != 0;
	return bpf_core_field_exists(old->ipv6_fl_list) && BPF_CORE_READ(old, ipv6_fl_list);
}

static __always_inline unsigned int flags_of(struct sock *sk, struct ipv6_pinfo *np)
{
	struct sock_reuseport *port = BPF_CORE_READ(sk, sk_reuseport_cb);
	unsigned int flags = 0;

	if (port && BPF_CORE_READ(port, prog))
		flags |= SOCK_HAS_CHOOSER;
	if (bpf_core_field_exists(sk->sk_policy) && (BPF_CORE_READ(sk, sk_policy[0]) || BPF_CORE_READ(sk, sk_policy[1])))
		flags |= SOCK_HAS_POLICY;
	if (BPF_CORE_READ(sk, sk_error_queue.qlen))
		flags |= SOCK_HAS_ERRORS;
	if (BPF_CORE_READ(sk, sk_err))
		flags |= SOCK_HAS_ERROR;
	if (!np)
		return flags;
	flags |= BPF_CORE_READ(np, opt) ? SOCK_HAS_EXTENSIONS : 0;
	flags |= BPF_CORE_READ(np, ipv6_ac_list) ? SOCK_HAS_ANYCAST : 0;
	return flags | (has_labels(sk, np) ? SOCK_HAS_FLOWLABELS : 0);
}

SEC("iter/task_file")
int read_socket(struct bpf_iter__task_file *ctx)
{
	struct walk w = { .seq = ctx->meta->seq };
	struct ipv6_pinfo *np;
	int family = 0;
	struct sock *sk = (int)ctx->fd == wanted_fd ? inet_sock_of(ctx->file, &family) : 0;

	if (!sk)
		return 0;
	np = family == FAMILY_INET6 ? BPF_CORE_READ((struct inet_sock *)sk, pinet6) : 0;
	__builtin_memset(&out, 0, sizeof(out));
	out.kind = SOCK_STATE;
	out.family = family;
	out.flags = flags_of(sk, np);
	out.error = (unsigned int)BPF_CORE_READ(sk, sk_err);
	out.device = BPF_CORE_READ((struct inet_sock *)sk, mc_index);
	bpf_seq_write(w.seq, &out, sizeof(out));
	w.v4 = BPF_CORE_READ((struct inet_sock *)sk, mc_list);
	bpf_loop(GROUPS_MAX, group_step, &w, 0);
	w.v6 = np ? BPF_CORE_READ(np, ipv6_mc_list) : 0;
	bpf_loop(GROUPS_MAX, group6_step, &w, 0);
	return 0;
}
