/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * queue_peek.bpf.c - an iterator over the descriptors of one process that writes what waits in the queue of one of them
 *
 * For what cannot be peeked at: the events of an inotify instance, and the connections in the accept queue of a unix socket with what
 * has been sent on them.
 */
#include "iter.h"
#include "tid.h"

#include "../queue_record.h"

#define EVENTS_MAX 16384
#define CONNECTIONS_MAX 512
#define MESSAGES_MAX 512

/* Which descriptor, and what it is. */
int wanted_fd = -1;
int wanted_inotify = 0;

static struct {
	struct queue_record head;
	char data[QUEUE_DATA_MAX + 8];
} out;

struct list_head {
	struct list_head *next;
} CO_RE;

struct idr {
	unsigned int idr_next;
} CO_RE;

struct inotify_group_private_data {
	struct idr idr;
} CO_RE;

struct fsnotify_group {
	struct list_head notification_list;
	unsigned int q_len;
	struct inotify_group_private_data inotify_data;
} CO_RE;

struct fsnotify_event {
	struct list_head list;
} CO_RE;

struct inotify_event_info {
	struct fsnotify_event fse;
	unsigned int mask;
	int wd;
	unsigned int sync_cookie;
	int name_len;
	char name[0];
} CO_RE;

struct sk_buff;

struct sk_buff_head {
	struct sk_buff *next;
} CO_RE;

typedef struct {
	unsigned int val;
} kuid_t;

typedef struct {
	unsigned int val;
} kgid_t;

struct cred {
	kuid_t euid;
	kgid_t egid;
} CO_RE;

struct sock {
	struct sk_buff_head sk_receive_queue;
	struct pid *sk_peer_pid;
	const struct cred *sk_peer_cred;
} CO_RE;

struct sk_buff {
	struct sk_buff *next;
	struct sock *sk;
	char cb[48];
	unsigned int len, data_len;
	unsigned char *data;
} CO_RE;

struct task_struct {
	struct pid *thread_pid;
} CO_RE;

struct scm_fp_list;

struct unix_skb_parms {
	struct pid *pid;
	kuid_t uid;
	kgid_t gid;
	struct scm_fp_list *fp;
	unsigned int consumed;
} CO_RE;

struct sockaddr_un {
	unsigned short sun_family;
};

struct unix_address {
	int len;
	struct sockaddr_un name[0];
} CO_RE;

struct unix_sock {
	struct sock sk;
	struct unix_address *addr;
	struct sock *peer;
} CO_RE;

struct socket {
	struct sock *sk;
} CO_RE;

struct file {
	void *private_data;
} CO_RE;

struct walk {
	struct seq_file *seq;
	void *next, *end;      /* of the outer queue */
	void *message, *last;  /* of one connection's */
};

static __always_inline void put(struct seq_file *seq, unsigned int kind, const void *data, unsigned int len)
{
	out.head.kind = kind;
	if (len > QUEUE_DATA_MAX)
		len = QUEUE_DATA_MAX;
	out.head.len = len;
	if (len)
		bpf_probe_read_kernel(out.data, len, data);
	bpf_seq_write(seq, &out, sizeof(out.head) + ((len + 7) & 0x1ff8));
}

static long event_step(unsigned int i, void *context)
{
	struct walk *w = context;
	struct inotify_event_info *e = w->next;

	(void)i;
	if (!e || e == w->end)
		return 1;
	out.head.a = BPF_CORE_READ(e, mask);
	out.head.b = (unsigned int)BPF_CORE_READ(e, wd);
	out.head.c = BPF_CORE_READ(e, sync_cookie);
	put(w->seq, QUEUE_EVENT, (char *)e + bpf_core_field_offset(struct inotify_event_info, name),
		(unsigned int)BPF_CORE_READ(e, name_len) & 0xfff);
	w->next = BPF_CORE_READ(e, fse.list.next);
	return 0;
}

static __always_inline void write_events(struct seq_file *seq, struct fsnotify_group *group)
{
	struct walk w = { .seq = seq };

	out.head.a = BPF_CORE_READ(group, inotify_data.idr.idr_next);
	out.head.b = BPF_CORE_READ(group, q_len);
	put(seq, QUEUE_WATCHES, 0, 0);
	w.end = (char *)group + bpf_core_field_offset(struct fsnotify_group, notification_list);
	w.next = BPF_CORE_READ(group, notification_list.next);
	bpf_loop(EVENTS_MAX, event_step, &w, 0);
}

/* A process's number as this one sees it; 0: none. */
static __always_inline unsigned int number_of(struct pid *pid)
{
	struct task_struct *me = (void *)bpf_get_current_task_btf();
	unsigned int level = BPF_CORE_READ(me, thread_pid, level);
	int nr = 0;

	if (!pid || level > 32 || BPF_CORE_READ(pid, level) < level)
		return 0;
	bpf_probe_read_kernel(&nr, sizeof(nr), (char *)pid + bpf_core_field_offset(struct pid, numbers) +
		level * bpf_core_type_size(struct upid) + bpf_core_field_offset(struct upid, nr));
	return (unsigned int)nr;
}

static long message_step(unsigned int i, void *context)
{
	struct walk *w = context;
	struct sk_buff *skb = w->message;
	struct unix_skb_parms *parms;
	unsigned int len, more;

	(void)i;
	if (!skb || skb == w->last)
		return 1;
	parms = (void *)((char *)skb + bpf_core_field_offset(struct sk_buff, cb));
	len = BPF_CORE_READ(skb, len);
	more = BPF_CORE_READ(skb, data_len) || len > QUEUE_DATA_MAX || BPF_CORE_READ(parms, fp) || BPF_CORE_READ(parms, consumed);
	out.head.a = more ? QUEUE_MESSAGE_MORE : 0;
	out.head.b = number_of(BPF_CORE_READ(parms, pid));
	out.head.c = BPF_CORE_READ(parms, uid.val);
	out.head.d = BPF_CORE_READ(parms, gid.val);
	put(w->seq, QUEUE_MESSAGE, BPF_CORE_READ(skb, data), len);
	w->message = BPF_CORE_READ(skb, next);
	return 0;
}

static long connection_step(unsigned int i, void *context)
{
	struct walk *w = context;
	struct sk_buff *skb = w->next;
	struct unix_sock *embryo, *client;
	struct unix_address *addr;
	struct sk_buff_head *queue;

	(void)i;
	if (!skb || skb == w->end)
		return 1;
	embryo = (struct unix_sock *)BPF_CORE_READ(skb, sk);
	client = (struct unix_sock *)BPF_CORE_READ(embryo, peer);
	addr = client ? BPF_CORE_READ(client, addr) : 0;
	out.head.b = number_of(BPF_CORE_READ(embryo, sk.sk_peer_pid));
	out.head.c = BPF_CORE_READ(embryo, sk.sk_peer_cred, euid.val);
	out.head.d = BPF_CORE_READ(embryo, sk.sk_peer_cred, egid.val);
	put(w->seq, QUEUE_CONNECTION, addr ? (char *)addr + bpf_core_field_offset(struct unix_address, name) : 0,
		addr ? (unsigned int)BPF_CORE_READ(addr, len) & 0xff : 0);
	queue = (void *)((char *)embryo + bpf_core_field_offset(struct sock, sk_receive_queue));
	w->last = queue;
	w->message = BPF_CORE_READ(queue, next);
	bpf_loop(MESSAGES_MAX, message_step, w, 0);
	w->next = BPF_CORE_READ(skb, next);
	return 0;
}

static __always_inline void write_connections(struct seq_file *seq, struct socket *socket)
{
	struct sock *sk = BPF_CORE_READ(socket, sk);
	struct walk w = { .seq = seq };

	w.end = (char *)sk + bpf_core_field_offset(struct sock, sk_receive_queue);
	w.next = BPF_CORE_READ(sk, sk_receive_queue.next);
	bpf_loop(CONNECTIONS_MAX, connection_step, &w, 0);
}

SEC("iter/task_file")
int read_queue(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;

	if (!file || (int)ctx->fd != wanted_fd)
		return 0;
	if (wanted_inotify)
		write_events(ctx->meta->seq, BPF_CORE_READ(file, private_data));
	else
		write_connections(ctx->meta->seq, BPF_CORE_READ(file, private_data));
	return 0;
}
