/* SPDX-License-Identifier: GPL-2.0-or-later */
/* inet_file.h - the Internet socket behind a descriptor */
#ifndef GODWIT_KERN_BPF_INET_FILE_H
#define GODWIT_KERN_BPF_INET_FILE_H

#include "iter.h"

#define FAMILY_INET 2
#define FAMILY_INET6 10
#define TYPE_STREAM 1
#define MODE_SOCKET 0140000
#define MODE_TYPE 0170000

struct in6_addr {
	unsigned char bytes[16];
};

struct inode {
	unsigned short i_mode;
} CO_RE;

struct file {
	struct inode *f_inode;
	void *private_data;
} CO_RE;

struct socket {
	struct sock *sk;
} CO_RE;

/* A flavour (CO-RE drops what follows the three underscores), beside the one of the program. */
struct sock_common___family {
	unsigned short skc_family;
} CO_RE;

struct sock___family {
	struct sock_common___family __sk_common;
} CO_RE;

/* NULL: it is none. */
static __always_inline struct sock *inet_sock_of(struct file *file, int *ret_family)
{
	struct socket *socket;
	struct sock *sk;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & MODE_TYPE) != MODE_SOCKET)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(socket, sk);
	if (!sk)
		return 0;
	*ret_family = BPF_CORE_READ((struct sock___family *)sk, __sk_common.skc_family);
	return *ret_family == FAMILY_INET || *ret_family == FAMILY_INET6 ? sk : 0;
}

#endif
