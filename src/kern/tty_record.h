/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tty_record.h - what the BPF program of tty_peek.c writes about terminals; shared by both, so it includes nothing */
#ifndef GODWIT_KERN_TTY_RECORD_H
#define GODWIT_KERN_TTY_RECORD_H

#define TTY_QUEUE_BYTES 4096  /* the line discipline's buffers (N_TTY_BUF_SIZE) */
#define TTY_FLIP_BYTES 32768  /* more than a pseudo-terminal lets wait for the line discipline */
#define TTY_FLIP_BUFFER 4096  /* more than one of the kernel's buffers there */
#define TTY_FLIP_BUFFERS 160

/* One descriptor that is a terminal. */
struct tty_record_file {
	unsigned int fd;
	unsigned int is_master;     /* of a pseudo-terminal */
	unsigned int is_pty;
	unsigned int number;        /* N of /dev/pts/N */
	unsigned long long id;      /* equal for descriptors of one end */
	unsigned long long peer;    /* the other end's id */
	unsigned int opened;        /* open file descriptions of this end */
	unsigned int peer_opened;
};

/* One end of a pseudo-terminal. Offsets into the buffers count from 0 on and are taken modulo their size. */
struct tty_record_end {
	unsigned char exclusive, other_closed, packet, packet_status;
	unsigned char stopped, stopped_by_call, line_next, no_room;
	unsigned int discipline;
	unsigned int column;
	unsigned long long read_head, read_tail, canon_head, echo_head, echo_tail;
	unsigned int flip_len;      /* TTY_FLIP_BYTES + 1: there was more */
	unsigned char read_buffer[TTY_QUEUE_BYTES];
	unsigned long long line_ends[TTY_QUEUE_BYTES / 64]; /* one bit for each place of read_buffer */
	unsigned char echo_buffer[TTY_QUEUE_BYTES];
	unsigned char flip[TTY_FLIP_BYTES + TTY_FLIP_BUFFER]; /* not seen by the line discipline yet */
};

struct tty_record_pair {
	unsigned int valid;
	struct tty_record_end master, slave;
};

#endif
