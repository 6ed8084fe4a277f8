/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tcp_record.h - what the BPF program writes about a TCP socket; shared by it and tcp_peek.c, so it includes nothing */
#ifndef GODWIT_KERN_TCP_RECORD_H
#define GODWIT_KERN_TCP_RECORD_H

enum tcp_record_flags {
	TCP_RECORD_FINISHED = 1, /* the peer's end of stream has arrived */
	TCP_RECORD_MPTCP = 2,
	TCP_RECORD_ULP = 4,
	TCP_RECORD_WAITING = 8,  /* nobody has accepted it yet: it waits in the queue of the listener with number fd */
	TCP_RECORD_SIGNED = 16,  /* TCP_MD5SIG, TCP_AO */
	TCP_RECORD_TELLING = 64, /* something about what it has sent waits to be read (MSG_ERRQUEUE) */
	TCP_RECORD_LENDING = 128, /* it has been sent to with MSG_ZEROCOPY, which the kernel counts */
	TCP_RECORD_CALLING = 32, /* with WAITING: the client's answer has not come yet, and there is no socket: the numbers that there are, the settled ones, and segment_max */
};

#define TCP_DATA_MAX 4096u
#define TCP_WINDOW_BYTES 24576u /* of what is read at a time of what waits for one listener */

/* Addresses as IPv6 has them, IPv4 mapped; ports as numbers. */
struct tcp_record {
	int fd;
	unsigned int state;      /* TCP_* of <netinet/tcp.h> */
	unsigned int flags;
	unsigned int shut_down;  /* 1: receiving, 2: sending */
	int error;               /* not reported yet */
	unsigned int snd_una, write_seq, rcv_nxt, copied_seq;
	unsigned int urgent_seq, urgent; /* the kernel's urg_data: 0x100 valid, 0x400 read */
	unsigned int user_mss;
	unsigned int half_open;  /* of a listener: connections that have begun, and whose client has not answered yet */
	unsigned int waiting, backlog; /* of a listener: connections that wait to be accepted, and how many may */
	unsigned int mss;        /* of what it sends now */
	int receive_buffer, send_buffer; /* SO_RCVBUF, SO_SNDBUF */
	unsigned int window_clamp; /* TCP_WINDOW_CLAMP */
	/* What a socket that takes its place must begin with. */
	unsigned int snd_nxt, snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup;
	unsigned int ts_offset;  /* of the time stamps that it sends, to the monotonic clock */
	unsigned int ts_recent;  /* the peer's last one */
	unsigned int mss_clamp;
	/* What the handshake has settled: TCPI_OPT_* and shifts of windows. */
	unsigned int options, send_scale, receive_scale;
	unsigned long long stamp_ns; /* the latest that it has sent, by that clock; with pacing it may lie ahead */
	unsigned char local[16], peer[16];
	unsigned int local_port, peer_port; /* 0: none */
	unsigned long long net;  /* the network namespace */
	unsigned long long listener; /* of a listener, or of what is calling one: the same number; of no meaning elsewhere */
};

/* A piece of what has been sent on a connection that nobody has accepted yet. Followed by len bytes, padded to a multiple of 8. */
struct tcp_data_record {
	int fd;                 /* the listener's */
	unsigned int number;    /* of its first byte */
	unsigned int len;
	unsigned int beyond;    /* there is something where it could not be read from */
	unsigned char local[16], peer[16];
	unsigned int peer_port, unused;
};

/* Words of the kernel's structure, at most. */
#define TCP_MASK_WORDS 512

/* So many sockets at a time. */
#define TCP_ASKED_MAX 2048

/* What is asked for and told of one socket of a process. */
struct tcp_told {
	int fd;                  /* given */
	unsigned int is_told;    /* 0: it is no TCP socket */
	unsigned long long file; /* as in struct file_record */
	unsigned long long digest, settings; /* of all that the kernel keeps about it; of what traffic does not change (tcp_mask.h) */
	unsigned long long kin;  /* the same without what tells one socket from another: that of sockets with the same options, but for those in the record */
	struct tcp_record record;
};

/* process: whose descriptors these are, as in struct file_record; 0: the caller's. */
struct tcp_ask {
	unsigned int process, n;
};

#endif
