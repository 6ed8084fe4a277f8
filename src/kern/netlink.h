/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * netlink.h - questions to the kernel over netlink (netlink(7), libmnl), and their answers
 *
 * A socket belongs to the network namespace in which it was opened, wherever its holder goes.
 */
#ifndef GODWIT_KERN_NETLINK_H
#define GODWIT_KERN_NETLINK_H

#include <libmnl/libmnl.h>

#include "base/err.h"

#define NETLINK_BYTES 32768u /* of a message that is built here */

#define NETLINK_WHY_MAX 128

struct netlink {
	struct mnl_socket *socket;
	uint32_t seq;
	char why[NETLINK_WHY_MAX]; /* what the kernel said about the last request when it refused it; may be empty */
};

/* `ns`: the network namespace (a descriptor) to open it in, where the caller comes back from; -1: the caller's. */
int netlink_open(struct netlink *nl, int protocol, int ns, struct err *e);
/* Also for one that was never opened (all zero). */
void netlink_close(struct netlink *nl);

/* Sets the error of a request that was answered with `code`, with the kernel's own words; returns code. */
int netlink_error(const struct netlink *nl, int code, struct err *e, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Begins a message of `type` in buf (NETLINK_BYTES long), with a header of `header` bytes, all zero. */
struct nlmsghdr *netlink_begin(void *buf, uint16_t type, uint16_t flags, size_t header);
/* Sends the request for a list and calls `each` for every message of the answer until that returns less than 0. Returns 0 or -errno. */
int netlink_dump(struct netlink *nl, struct nlmsghdr *request, int (*each)(const struct nlmsghdr *m, void *arg), void *arg);
/* Sends a request and waits for the acknowledgement; 0 or -errno. `each` (NULL: nobody) sees what is answered besides. */
int netlink_ask(struct netlink *nl, struct nlmsghdr *request, int (*each)(const struct nlmsghdr *m, void *arg), void *arg);
#define netlink_do(nl, request) netlink_ask(nl, request, NULL, NULL)

/* Fills table[0..max] with the attributes behind a header of `header` bytes, NULL where there is none, or the message is too short. */
void netlink_attributes(const struct nlmsghdr *m, size_t header, const struct nlattr **table, unsigned max);
/* The same for a nested attribute; NULL is one without any. */
void netlink_nested(const struct nlattr *nest, const struct nlattr **table, unsigned max);
/* Appends a copy of an attribute. */
void netlink_copy(struct nlmsghdr *m, const struct nlattr *a);

#endif
