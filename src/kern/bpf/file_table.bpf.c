/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * file_table.bpf.c - what tells whether a descriptor has changed: by an iterator over those of a task, and by a program that is run for groups of numbers
 *
 * The first finds all there are and writes a record for each; half of its time goes into references and single calls. The second finds a map whose elements
 * are groups of 64 numbers, and reads a group at once, without a reference: right only for a table that nobody changes. It is no iterator over that map, since some
 * hosts allow none that could write into what it iterates over.
 */
#include "iter.h"

#include "../file_record.h"

#define FAMILY_INET 2
#define FAMILY_INET6 10
#define TYPE_STREAM 1
#define PROTOCOL_TCP 6
#define MODE_SOCKET 0140000
#define MODE_TYPE 0170000
#define SOCK_WORDS 512
#define CLOCK_REALTIME_ALARM 8
#define CLOCK_BOOTTIME_ALARM 9
#define TIMER_IS_QUEUED 1 /* HRTIMER_STATE_ENQUEUED, ALARMTIMER_STATE_ENQUEUED */
#define EPOLL_STEPS (1u << 20)
#define WORD_BITS (8 * sizeof(unsigned long))

struct list_head {
	struct list_head *next;
} CO_RE;

struct file_lock_context {
	struct list_head flc_flock;
	struct list_head flc_posix;
	struct list_head flc_lease;
} CO_RE;

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
	unsigned int i_generation;
	struct file_lock_context *i_flctx;
} CO_RE;

struct sock_common {
	unsigned short skc_family;
} CO_RE;

struct sock {
	struct sock_common __sk_common;
	unsigned short sk_type, sk_protocol;
} CO_RE;

struct socket {
	struct sock *sk;
} CO_RE;

struct tcp_sock {
	unsigned int rcv_nxt;
} CO_RE;

struct tcp6_sock {
	struct tcp_sock tcp;
} CO_RE;

struct file_operations {
	void *show_fdinfo;
} CO_RE;

struct hrtimer;

struct hrtimer_clock_base {
	struct hrtimer *running;
} CO_RE;

struct hrtimer {
	struct hrtimer_clock_base *base;
	unsigned char state;
} CO_RE;

struct alarm {
	int state;
} CO_RE;

struct timerfd_ctx {
	union {
		struct hrtimer tmr;
		struct alarm alarm;
	} t;
	long long tintv;
	int clockid;
	unsigned short expired;
} CO_RE;

struct file {
	const struct file_operations *f_op;
	unsigned int f_flags;
	long long f_pos;
	struct inode *f_inode;
	void *private_data;
	void *f_owner;
} CO_RE;

struct rb_node {
	unsigned long __rb_parent_color;
	struct rb_node *rb_right, *rb_left;
} CO_RE;

struct rb_root {
	struct rb_node *rb_node;
} CO_RE;

struct rb_root_cached {
	struct rb_root rb_root;
} CO_RE;

struct eventpoll {
	struct rb_root_cached rbr;
	unsigned int busy_poll_usecs;
	unsigned short busy_poll_budget;
	_Bool prefer_busy_poll;
} CO_RE;

struct epoll_filefd {
	struct file *file;
	int fd;
} CO_RE;

struct epoll_event {
	unsigned int events;
	unsigned long long data;
} CO_RE;

struct epitem {
	struct rb_node rbn;
	struct epoll_filefd ffd;
	struct epoll_event event;
} CO_RE;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
	unsigned long *close_on_exec, *open_fds;
} CO_RE;

struct files_struct {
	struct fdtable *fdt;
} CO_RE;

struct task_struct {
	int tgid;
	struct files_struct *files;
} CO_RE;

struct groups_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(key_size, sizeof(unsigned int));
	__uint(value_size, sizeof(struct file_group));
};

/* The groups of those who read tables now, by struct file_groups_key. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, FILE_GROUPS_MAPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct file_groups_key);
	__array(values, struct groups_map);
} groups_of SEC(".maps");

extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern void *bpf_rdonly_cast(const void *object, unsigned int type) __ksym;

static __always_inline int has_locks(struct inode *inode)
{
	struct file_lock_context *c = inode->i_flctx;

	return c && (c->flc_flock.next != &c->flc_flock || c->flc_posix.next != &c->flc_posix || c->flc_lease.next != &c->flc_lease);
}

extern const void timerfd_show __ksym __weak;

/* Also one whose function runs, or which expires again as soon as somebody looks at it: a periodic one stands still when it has expired. */
static __always_inline unsigned char armed(struct file *file)
{
	struct timerfd_ctx *timer = file->private_data;
	struct hrtimer *hrtimer;
	int clock, queued;

	if (!&timerfd_show || file->f_op->show_fdinfo != &timerfd_show || !bpf_core_field_exists(timer->t.tmr.state))
		return FILE_ARMED_UNKNOWN;
	clock = BPF_CORE_READ(timer, clockid);
	if (clock == CLOCK_REALTIME_ALARM || clock == CLOCK_BOOTTIME_ALARM) {
		queued = BPF_CORE_READ(timer, t.alarm.state) & TIMER_IS_QUEUED;
	} else {
		hrtimer = (void *)((char *)timer + bpf_core_field_offset(struct timerfd_ctx, t.tmr));
		queued = BPF_CORE_READ(hrtimer, state) & TIMER_IS_QUEUED || BPF_CORE_READ(hrtimer, base, running) == hrtimer;
	}
	return queued || (BPF_CORE_READ(timer, expired) && BPF_CORE_READ(timer, tintv)) ? FILE_ARMED_YES : FILE_ARMED_NO;
}

struct words {
	unsigned long long v[SOCK_WORDS];
};

/* Where a socket is read to, of each thread that reads tables: others read at the same time, on other CPUs and on this one. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct words);
} words_of SEC(".maps");

/*
 * The structure as a whole, since options, queues and states are all over it: when nothing of it has changed, nothing has. Connections over which nothing goes
 * are most of those of a busy server.
 */
static __always_inline unsigned long long digest_of(struct sock *sk)
{
	struct words *words;
	unsigned short family = BPF_CORE_READ(sk, __sk_common.skc_family);
	unsigned int size = family == FAMILY_INET6 ? bpf_core_type_size(struct tcp6_sock) : bpf_core_type_size(struct tcp_sock);
	unsigned long long a = 14695981039346656037ull, b = 1099511628211ull, c = 0x165667b19e3779f9ull, d = 0x27d4eb2f165667c5ull;

	if ((family != FAMILY_INET && family != FAMILY_INET6) || BPF_CORE_READ(sk, sk_type) != TYPE_STREAM || BPF_CORE_READ(sk, sk_protocol) != PROTOCOL_TCP)
		return 0;
	words = bpf_task_storage_get(&words_of, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!words || size > sizeof(*words) || bpf_probe_read_kernel(words, size, sk))
		return bpf_ktime_get_ns() | 1;
	for (unsigned int i = 0; i < 3; i++)
		if (size / 8 + i < SOCK_WORDS)
			words->v[size / 8 + i] = 0;
	/* Four at a time, none of which waits for the others. */
	for (unsigned int i = 0; i < SOCK_WORDS; i += 4) {
		if (i >= size / 8)
			break;
		a = (a ^ words->v[i]) * 0x9e3779b97f4a7c15ull;
		b = (b ^ words->v[i + 1]) * 0xc2b2ae3d27d4eb4full;
		c = (c ^ words->v[i + 2]) * 0xd6e8feb86659fd93ull;
		d = (d ^ words->v[i + 3]) * 0xff51afd7ed558ccdull;
		a ^= a >> 32;
		b ^= b >> 32;
		c ^= c >> 32;
		d ^= d >> 32;
	}
	return (a ^ (b << 17 | b >> 47) ^ (c << 31 | c >> 33) ^ (d << 43 | d >> 21)) | 1;
}

/* By address: for the verifier a function of its own, which it goes through once. */
__noinline unsigned long long digest_of_socket(unsigned long private)
{
	struct sock *sk = 0;

	bpf_probe_read_kernel(&sk, sizeof(sk), (char *)private + bpf_core_field_offset(struct socket, sk));
	return sk ? digest_of(sk) : 0;
}

/* struct rb_node, with numbers for addresses, which the verifier lets nobody calculate with. */
struct links {
	unsigned long above, right, left;
};

/* An entry of a set of epoll, as far as it fits. */
#define ENTRY_BYTES 128

union entry {
	struct links links;
	unsigned int halves[ENTRY_BYTES / 4];
};

enum { FROM_ABOVE, FROM_LEFT, FROM_RIGHT };

struct epoll_walk {
	union entry entry;
	unsigned long node;
	unsigned long long digest;
	unsigned int from;
};

/* What lies there in the entry, of 4 or 8 bytes. */
static __always_inline unsigned long long value_at(const union entry *e, unsigned int at, unsigned int size)
{
	unsigned long long low = at / 4 < ENTRY_BYTES / 4 ? e->halves[at / 4] : 0;

	return size == 8 && at / 4 + 1 < ENTRY_BYTES / 4 ? low | (unsigned long long)e->halves[at / 4 + 1] << 32 : low;
}

#define VALUE_OF(entry, member) value_at(entry, bpf_core_field_offset(struct epitem, member), bpf_core_field_size(((struct epitem *)0)->member))

/* One step along an edge of the tree of entries. */
static long epoll_step(unsigned int i, void *context)
{
	struct epoll_walk *w = context;
	struct links *l = &w->entry.links;
	unsigned long below, left = 0;
	unsigned int size = w->from == FROM_ABOVE ? bpf_core_type_size(struct epitem) : sizeof(*l);

	(void)i;
	if (size > sizeof(w->entry) || bpf_probe_read_kernel(&w->entry, size, (void *)w->node))
		return 1;
	if (w->from == FROM_ABOVE) {
		w->digest += file_record_entry(VALUE_OF(&w->entry, ffd.file), (unsigned int)VALUE_OF(&w->entry, ffd.fd), (unsigned int)VALUE_OF(&w->entry, event.events),
			VALUE_OF(&w->entry, event.data));
	}
	if (w->from == FROM_ABOVE && l->left) {
		w->node = l->left;
		return 0;
	}
	if (w->from != FROM_RIGHT && l->right) {
		w->node = l->right;
		w->from = FROM_ABOVE;
		return 0;
	}
	below = w->node;
	w->node = l->above & ~3ul;
	if (!w->node)
		return 1;
	bpf_probe_read_kernel(&left, sizeof(left), (char *)w->node + bpf_core_field_offset(struct rb_node, rb_left));
	w->from = left == below ? FROM_LEFT : FROM_RIGHT;
	return 0;
}

extern const void ep_show_fdinfo __ksym __weak;

/* Of all that a set of epoll is, in whatever order its entries are. */
__noinline unsigned long long digest_of_epoll(unsigned long address)
{
	struct eventpoll *ep = bpf_rdonly_cast((void *)address, bpf_core_type_id_kernel(struct eventpoll));
	struct epoll_walk w = { .digest = file_record_set(0, 0, 0) };

	/* Entries lead to their tree's node. */
	if (bpf_core_field_offset(struct epitem, rbn) || bpf_core_type_size(struct epitem) > ENTRY_BYTES)
		return 0;
	if (bpf_core_field_exists(ep->busy_poll_usecs))
		w.digest = file_record_set(ep->busy_poll_usecs, ep->busy_poll_budget, ep->prefer_busy_poll);
	bpf_probe_read_kernel(&w.node, sizeof(w.node), (char *)address + bpf_core_field_offset(struct eventpoll, rbr.rb_root.rb_node));
	if (w.node)
		bpf_loop(EPOLL_STEPS, epoll_step, &w, 0);
	/* Not to its end. */
	return w.node ? 0 : w.digest | 1;
}

/* Members are read directly, which the verifier allows for what the iterator hands out: a helper call for each would take longer than all else. */
static __always_inline void describe(struct file *file, unsigned int fd, unsigned char cloexec, struct file_record *r)
{
	struct inode *inode = file->f_inode;

	r->fd = fd;
	r->file = (unsigned long)file;
	/*
	 * Memory of an inode that is gone is another one's next, and so, on some file systems, is its number. The address is read as a number: the verifier lets nobody
	 * calculate with pointers.
	 */
	r->inode = (unsigned long)BPF_CORE_READ(file, f_inode) ^ (inode->i_ino * 0x9e3779b97f4a7c15ull + inode->i_generation * 0xc2b2ae3d27d4eb4full);
	r->number = inode->i_ino;
	r->kind = (unsigned long)file->f_op;
	r->flags = file->f_flags;
	r->position = file->f_pos;
	r->cloexec = cloexec;
	/* In older kernels the owner is no pointer but lies in the description itself: it may be there. */
	r->has_owner = bpf_core_field_size(file->f_owner) != sizeof(void *) || file->f_owner;
	r->has_locks = has_locks(inode);
	r->armed = armed(file);
	r->digest = (inode->i_mode & MODE_TYPE) == MODE_SOCKET ? digest_of_socket((unsigned long)BPF_CORE_READ(file, private_data)) : 0;
}

SEC("iter/task_file")
int read_file(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct file_record r = {};
	unsigned long word = 0;

	if (!task || !file)
		return 0;
	bpf_probe_read_kernel(&word, sizeof(word), task->files->fdt->close_on_exec + ctx->fd / WORD_BITS);
	describe(file, ctx->fd, word >> ctx->fd % WORD_BITS & 1, &r);
	r.process = (unsigned int)task->tgid;
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}

static __always_inline unsigned long word_of(unsigned long *words, unsigned int i)
{
	unsigned long word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), words + i);
	return word;
}

/* Whether there are numbers from `from`, a multiple of 64, on. */
__noinline int are_more(unsigned long words, unsigned int from, unsigned int n)
{
	for (unsigned int i = 0; i < FILE_GROUPS_BEYOND; i++) {
		if (from / WORD_BITS + i >= n / WORD_BITS)
			return 0;
		if (word_of((unsigned long *)words, from / WORD_BITS + i))
			return 1;
	}
	return from / WORD_BITS + FILE_GROUPS_BEYOND < n / WORD_BITS;
}

/* The numbers of one word of the table's bitmaps. */
__noinline int fill_group(struct file_group *g, unsigned long files_address)
{
	struct files_struct *files = bpf_rdonly_cast((void *)files_address, bpf_core_type_id_kernel(struct files_struct));
	unsigned long open, cloexec, pointers[FILE_GROUP / 4];
	struct fdtable *table;
	unsigned int first;

	if (!g)
		return 0;
	first = g->first;
	table = bpf_rdonly_cast(files->fdt, bpf_core_type_id_kernel(struct fdtable));
	g->open = 0;
	if (g->is_last && are_more((unsigned long)BPF_CORE_READ(table, open_fds), first + FILE_GROUP, table->max_fds))
		return 0;
	if (first < table->max_fds) {
		open = word_of(table->open_fds, first / WORD_BITS);
		cloexec = word_of(table->close_on_exec, first / WORD_BITS);
		for (unsigned int i = 0; i < FILE_GROUP; i++) {
			struct file *file;

			if (i % (FILE_GROUP / 4) == 0 && bpf_probe_read_kernel(pointers, sizeof(pointers), table->fd + first + i))
				return 0;
			if (!(open >> i & 1))
				continue;
			file = bpf_rdonly_cast((void *)pointers[i % (FILE_GROUP / 4)], bpf_core_type_id_kernel(struct file));
			/* A number that has been reserved and not been given yet. */
			if (!pointers[i % (FILE_GROUP / 4)])
				continue;
			describe(file, first + i, cloexec >> i & 1, &g->v[i]);
			if (&ep_show_fdinfo && file->f_op->show_fdinfo == &ep_show_fdinfo)
				g->v[i].digest = digest_of_epoll((unsigned long)BPF_CORE_READ(file, private_data));
			g->v[i].process = g->process;
			g->open |= 1ull << i;
		}
	}
	g->is_read = 1;
	return 1;
}

struct group_walk {
	void *map;
	unsigned long files;
	unsigned int first;
};

static long group_step(unsigned int i, void *context)
{
	struct group_walk *w = context;
	unsigned int number = w->first + i;
	struct file_group *g = bpf_map_lookup_elem(w->map, &number);

	return !g || !fill_group(g, w->files);
}

SEC("syscall")
int read_groups(struct file_groups_ask *ask)
{
	struct file_groups_key key = ask->key;
	struct group_walk w = { .map = bpf_map_lookup_elem(&groups_of, &key), .first = ask->first };
	struct task_struct *task;

	if (!w.map)
		return 0;
	task = bpf_task_from_pid((int)ask->process);
	if (!task)
		return 0;
	w.files = (unsigned long)BPF_CORE_READ(task, files);
	if (w.files)
		bpf_loop(ask->n_groups, group_step, &w, 0);
	bpf_task_release(task);
	return 0;
}

/* Without a reference, too: what has been closed and given anew meanwhile is not read. */
__noinline int fill_one(struct file_one *one, unsigned long files_address)
{
	struct files_struct *files = bpf_rdonly_cast((void *)files_address, bpf_core_type_id_kernel(struct files_struct));
	unsigned long pointer = 0, again = 0;
	struct fdtable *table;
	struct file *file;

	if (!one)
		return 0;
	table = bpf_rdonly_cast(files->fdt, bpf_core_type_id_kernel(struct fdtable));
	if (one->fd >= table->max_fds || bpf_probe_read_kernel(&pointer, sizeof(pointer), table->fd + one->fd) || !pointer)
		return 0;
	file = bpf_rdonly_cast((void *)pointer, bpf_core_type_id_kernel(struct file));
	describe(file, one->fd, word_of(table->close_on_exec, one->fd / WORD_BITS) >> one->fd % WORD_BITS & 1, &one->r);
	if (&ep_show_fdinfo && file->f_op->show_fdinfo == &ep_show_fdinfo)
		one->r.digest = digest_of_epoll((unsigned long)BPF_CORE_READ(file, private_data));
	bpf_probe_read_kernel(&again, sizeof(again), table->fd + one->fd);
	one->is_read = again == pointer;
	return 0;
}

SEC("syscall")
int read_one(struct file_one *ask)
{
	struct file_one one = { .process = ask->process, .fd = ask->fd };
	struct task_struct *task = 0;
	unsigned long files;

	if (one.process) {
		task = bpf_task_from_pid((int)one.process);
		if (!task)
			return 0;
		files = (unsigned long)BPF_CORE_READ(task, files);
	} else {
		files = (unsigned long)BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), files);
	}
	if (files)
		fill_one(&one, files);
	if (task)
		bpf_task_release(task);
	one.r.process = one.process;
	*ask = one;
	return 1;
}
