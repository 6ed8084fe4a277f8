/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unix_diag.c - unix sockets through sock_diag(7); see unix_diag.h */
#include "image/unix_diag.h"

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>

#include "base/util.h"

static void take_attribute(const struct nlattr *a, struct unix_diag_info *info)
{
	const void *value = a + 1;
	size_t len = a->nla_len - sizeof(*a);

	if (a->nla_type == UNIX_DIAG_RQLEN && len >= sizeof(struct unix_diag_rqlen))
		info->backlog = (int)((const struct unix_diag_rqlen *)value)->udiag_wqueue;
	else if (a->nla_type == UNIX_DIAG_PEER && len >= sizeof(uint32_t))
		info->peer_ino = *(const uint32_t *)value;
	else if (a->nla_type == UNIX_DIAG_SHUTDOWN && len >= 1)
		info->shut_down = *(const uint8_t *)value & 3;
}

bool unix_diag_look(uint64_t ino, struct unix_diag_info *ret)
{
	cleanup_close int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	struct {
		struct nlmsghdr head;
		struct unix_diag_req request;
	} message = {
		.head = { .nlmsg_len = sizeof(message), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST },
		.request = { .sdiag_family = AF_UNIX, .udiag_states = ~0u, .udiag_ino = (uint32_t)ino, .udiag_cookie = { ~0u, ~0u },
			.udiag_show = UDIAG_SHOW_RQLEN | UDIAG_SHOW_PEER },
	};
	union {
		struct nlmsghdr head;
		char bytes[2048];
	} reply;
	ssize_t n;

	if (nl < 0 || send(nl, &message, sizeof(message), 0) < 0)
		return false;
	n = recv(nl, &reply, sizeof(reply), 0);
	if (n < (ssize_t)(NLMSG_HDRLEN + sizeof(struct unix_diag_msg)) || reply.head.nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return false;
	*ret = (struct unix_diag_info){ .backlog = -1 };
	for (size_t at = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(struct unix_diag_msg)); at + sizeof(struct nlattr) <= (size_t)n;) {
		const struct nlattr *a = (const void *)(reply.bytes + at);

		if (a->nla_len < sizeof(*a) || at + a->nla_len > (size_t)n)
			break;
		take_attribute(a, ret);
		at += NLA_ALIGN(a->nla_len);
	}
	return true;
}
