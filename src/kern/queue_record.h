/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* queue_record.h - what the BPF program writes about a queue; shared by it and queue_peek.c, so it includes nothing */
#ifndef GODWIT_KERN_QUEUE_RECORD_H
#define GODWIT_KERN_QUEUE_RECORD_H

#define QUEUE_DATA_MAX 4096u

enum queue_record_kind {
	QUEUE_WATCHES = 1, /* of inotify, first: a the number that the next watch gets, b the length of the queue */
	QUEUE_EVENT,       /* a mask, b watch, c cookie; data: the name, without its null byte */
	QUEUE_CONNECTION,  /* of a listening unix socket: b, c, d the pid, uid and gid of who has connected; data: the address of the other end */
	QUEUE_MESSAGE,     /* in its queue: a QUEUE_MESSAGE_*; b, c, d the sender's pid (0: no credentials), uid, gid; data */
};

#define QUEUE_MESSAGE_MORE 1u /* it has more than its data: descriptors, or bytes elsewhere */

/* Followed by len bytes, padded to a multiple of 8. */
struct queue_record {
	unsigned int kind, len;
	unsigned int a, b, c, d;
};

#endif
