/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tty_peek.bpf.c - an iterator over the descriptors of one process that tells what lies in its terminals
 *
 * Nothing but reading takes bytes out of a terminal, and what has been taken cannot be put back as it was. So the buffers are read
 * where the kernel has them: those of the line discipline, and those that wait for it.
 */
#include "iter.h"

#include "../tty_record.h"

#define IN_REGISTER(v) asm volatile("" : "+r"(v))
#define S_IFMT 0170000
#define S_IFCHR 0020000
#define TTY_MAJOR_AUX 5
#define PTY_MASTER_MAJOR 128
#define PTY_SLAVE_MAJOR 136
#define PTY_SLAVE_MAJOR_END 144
/* Bits of tty_struct.flags. */
#define FLAG_OTHER_CLOSED 2
#define FLAG_EXCLUSIVE 3

struct inode {
	unsigned short i_mode;
	unsigned int i_rdev;
} CO_RE;

struct file {
	struct inode *f_inode;
	void *private_data;
} CO_RE;

struct tty_driver {
	int major;
} CO_RE;

struct tty_buffer {
	struct tty_buffer *next;
	unsigned int used;
	unsigned int read;
	unsigned char data[0];
} CO_RE;

struct tty_bufhead {
	struct tty_buffer *head;
} CO_RE;

struct tty_port {
	struct tty_bufhead buf;
} CO_RE;

struct tty_ldisc_ops {
	int num;
} CO_RE;

struct tty_ldisc {
	struct tty_ldisc_ops *ops;
} CO_RE;

struct tty_struct {
	int index;
	struct tty_driver *driver;
	struct tty_port *port;
	struct tty_ldisc *ldisc;
	unsigned long flags;
	int count;
	struct {
		_Bool stopped, tco_stopped;
	} flow;
	struct {
		unsigned char pktstatus;
		_Bool packet;
	} ctrl;
	struct tty_struct *link;
	void *disc_data;
} CO_RE;

struct tty_file_private {
	struct tty_struct *tty;
} CO_RE;

struct n_tty_data {
	unsigned long read_head, canon_head, echo_head;
	_Bool no_room;
	unsigned char lnext : 1;
	unsigned char read_buf[TTY_QUEUE_BYTES];
	unsigned long read_flags[TTY_QUEUE_BYTES / 64];
	unsigned char echo_buf[TTY_QUEUE_BYTES];
	unsigned long read_tail;
	unsigned int column;
	unsigned long echo_tail;
} CO_RE;

struct task_struct;

/* The descriptor whose pair goes to `pair`; -1: all are listed. */
int wanted_fd = -1;
struct tty_record_pair pair;

static __always_inline struct tty_struct *terminal_of(struct file *file)
{
	unsigned int mode = BPF_CORE_READ(file, f_inode, i_mode), device = BPF_CORE_READ(file, f_inode, i_rdev), major = device >> 20;
	struct tty_file_private *private;

	/* /dev/tty, /dev/ptmx, /dev/pts/N; the kernel's own device numbers have 20 bits of minor */
	if ((mode & S_IFMT) != S_IFCHR || (major != TTY_MAJOR_AUX && (major < PTY_SLAVE_MAJOR || major >= PTY_SLAVE_MAJOR_END)))
		return 0;
	private = BPF_CORE_READ(file, private_data);
	return private ? BPF_CORE_READ(private, tty) : 0;
}

static __always_inline void read_flip(struct tty_struct *tty, struct tty_record_end *end)
{
	struct tty_buffer *b = BPF_CORE_READ(tty, port, buf.head);
	unsigned long len = 0;

	for (int i = 0; i < TTY_FLIP_BUFFERS && b; i++) {
		unsigned int from = BPF_CORE_READ(b, read);
		unsigned long n = BPF_CORE_READ(b, used) - from;

		/* So that the verifier sees the very values that are checked. */
		IN_REGISTER(n);
		IN_REGISTER(len);
		if (n > TTY_FLIP_BUFFER || len >= TTY_FLIP_BYTES) {
			len = TTY_FLIP_BYTES + 1;
			break;
		}
		bpf_probe_read_kernel(end->flip + len, n, (char *)b + bpf_core_field_offset(struct tty_buffer, data) + from);
		len += n;
		b = BPF_CORE_READ(b, next);
	}
	end->flip_len = b || len > TTY_FLIP_BYTES ? TTY_FLIP_BYTES + 1 : (unsigned int)len;
}

static __always_inline void read_end(struct tty_struct *tty, struct tty_record_end *end)
{
	struct n_tty_data *n = BPF_CORE_READ(tty, disc_data);
	unsigned long flags = BPF_CORE_READ(tty, flags);

	end->exclusive = flags >> FLAG_EXCLUSIVE & 1;
	end->other_closed = flags >> FLAG_OTHER_CLOSED & 1;
	end->packet = BPF_CORE_READ(tty, ctrl.packet);
	end->packet_status = BPF_CORE_READ(tty, ctrl.pktstatus);
	end->stopped = BPF_CORE_READ(tty, flow.stopped);
	end->stopped_by_call = BPF_CORE_READ(tty, flow.tco_stopped);
	end->discipline = BPF_CORE_READ(tty, ldisc, ops, num);
	read_flip(tty, end);
	if (end->discipline || !n)
		return;
	end->line_next = BPF_CORE_READ_BITFIELD_PROBED(n, lnext);
	end->no_room = BPF_CORE_READ(n, no_room);
	end->column = BPF_CORE_READ(n, column);
	end->read_head = BPF_CORE_READ(n, read_head);
	end->read_tail = BPF_CORE_READ(n, read_tail);
	end->canon_head = BPF_CORE_READ(n, canon_head);
	end->echo_head = BPF_CORE_READ(n, echo_head);
	end->echo_tail = BPF_CORE_READ(n, echo_tail);
	bpf_core_read(end->read_buffer, sizeof(end->read_buffer), &n->read_buf);
	bpf_core_read(end->line_ends, sizeof(end->line_ends), &n->read_flags);
	bpf_core_read(end->echo_buffer, sizeof(end->echo_buffer), &n->echo_buf);
}

SEC("iter/task_file")
int read_ttys(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct tty_record_file r = {};
	struct tty_struct *tty, *link;
	int major;

	if (!file || (wanted_fd >= 0 && ctx->fd != (unsigned int)wanted_fd))
		return 0;
	tty = terminal_of(file);
	if (!tty)
		return 0;
	link = BPF_CORE_READ(tty, link);
	r.fd = ctx->fd;
	major = BPF_CORE_READ(tty, driver, major);
	r.is_master = major >= PTY_MASTER_MAJOR && major < PTY_SLAVE_MAJOR;
	r.is_pty = r.is_master || (major >= PTY_SLAVE_MAJOR && major < PTY_SLAVE_MAJOR_END);
	if (wanted_fd >= 0) {
		if (!r.is_pty || !link)
			return 0;
		read_end(r.is_master ? tty : link, &pair.master);
		read_end(r.is_master ? link : tty, &pair.slave);
		pair.valid = 1;
		return 0;
	}
	r.number = (unsigned int)BPF_CORE_READ(tty, index);
	r.id = (unsigned long)tty;
	r.peer = (unsigned long)link;
	r.opened = (unsigned int)BPF_CORE_READ(tty, count);
	r.peer_opened = link ? (unsigned int)BPF_CORE_READ(link, count) : 0;
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}
