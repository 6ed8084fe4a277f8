/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sock_record.h - what the BPF program writes about an Internet socket; shared by it and sock_peek.c, so it includes nothing */
#ifndef GODWIT_KERN_SOCK_RECORD_H
#define GODWIT_KERN_SOCK_RECORD_H

enum sock_record_kind {
	SOCK_STATE = 1, /* first, always */
	SOCK_GROUP,     /* a multicast group that it is a member of */
};

/* SOCK_STATE: things that no call shows. */
#define SOCK_HAS_CHOOSER 1u      /* a program chooses among the sockets of its port (SO_ATTACH_REUSEPORT_*) */
#define SOCK_HAS_POLICY 2u       /* a policy of IPsec of its own */
#define SOCK_HAS_ERRORS 4u       /* its error queue is not empty */
#define SOCK_HAS_ERROR 8u        /* an error that has not been reported yet */
#define SOCK_HAS_EXTENSIONS 16u  /* extension headers of IPv6 are set */
#define SOCK_HAS_ANYCAST 32u     /* it has joined anycast groups */
#define SOCK_HAS_FLOWLABELS 64u  /* it has leased flow labels */
#define SOCK_HAS_FILTERED 128u   /* SOCK_GROUP: only from some sources, or not from some */

struct sock_record {
	unsigned int kind, flags;
	unsigned int device; /* SOCK_STATE: IP_MULTICAST_IF; SOCK_GROUP: where it is a member */
	unsigned int family;
	unsigned char address[16];
	unsigned int error; /* SOCK_STATE: that has not been reported yet */
};

#endif
