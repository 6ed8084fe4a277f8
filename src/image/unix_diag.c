/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unix_diag.c - unix sockets through sock_diag(7); see unix_diag.h */
#include "image/unix_diag.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>

#include "base/util.h"

#define SINGLE_LOOKS 12u
#define ANSWER_BYTES 65536u

struct request {
	struct nlmsghdr head;
	struct unix_diag_req diag;
};

static void take_attribute(const struct nlattr *a, struct unix_diag_info *info)
{
	const void *value = a + 1;
	size_t len = a->nla_len - sizeof(*a);

	if (a->nla_type == UNIX_DIAG_RQLEN && len >= sizeof(struct unix_diag_rqlen)) {
		info->backlog = (int)((const struct unix_diag_rqlen *)value)->udiag_wqueue;
	} else if (a->nla_type == UNIX_DIAG_PEER && len >= sizeof(uint32_t)) {
		info->has_peer = true;
		info->peer_ino = *(const uint32_t *)value;
	} else if (a->nla_type == UNIX_DIAG_SHUTDOWN && len >= 1) {
		info->shut_down = *(const uint8_t *)value & 3;
	} else if (a->nla_type == UNIX_DIAG_VFS && len >= sizeof(struct unix_diag_vfs)) {
		info->has_file = true;
		info->file_ino = ((const struct unix_diag_vfs *)value)->udiag_vfs_ino;
		info->file_dev = ((const struct unix_diag_vfs *)value)->udiag_vfs_dev;
	} else if (a->nla_type == UNIX_DIAG_ICONS && len >= sizeof(uint32_t)) {
		free(info->waiting);
		info->waiting = malloc(len);
		if (!info->waiting)
			abort();
		memcpy(info->waiting, value, len);
		info->n_waiting = len / sizeof(uint32_t);
	}
}

static bool take_message(const struct nlmsghdr *head, struct unix_diag_info *ret)
{
	const struct unix_diag_msg *message = NLMSG_DATA(head);
	const char *at = (const char *)(message + 1), *end = (const char *)head + head->nlmsg_len;

	if (head->nlmsg_type != SOCK_DIAG_BY_FAMILY || head->nlmsg_len < NLMSG_LENGTH(sizeof(*message)))
		return false;
	*ret = (struct unix_diag_info){ .ino = message->udiag_ino, .state = message->udiag_state, .backlog = -1 };
	while (end - at >= (long)sizeof(struct nlattr)) {
		const struct nlattr *a = (const void *)at;

		if (a->nla_len < sizeof(*a) || a->nla_len > end - at)
			break;
		take_attribute(a, ret);
		at += NLA_ALIGN(a->nla_len);
	}
	return true;
}

static bool ask(struct unix_diag *d, uint32_t ino, bool all)
{
	struct request r = {
		.head = { .nlmsg_len = sizeof(r), .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST | (all ? NLM_F_DUMP : 0) },
		.diag = { .sdiag_family = AF_UNIX, .udiag_states = ~0u, .udiag_ino = ino, .udiag_cookie = { ~0u, ~0u },
			.udiag_show = UDIAG_SHOW_RQLEN | UDIAG_SHOW_PEER | UDIAG_SHOW_VFS | UDIAG_SHOW_ICONS },
	};

	if (d->nl < 0)
		d->nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	return d->nl >= 0 && send(d->nl, &r, sizeof(r), 0) == sizeof(r);
}

static int compare_ino(const void *a, const void *b)
{
	uint32_t x = ((const struct unix_diag_info *)a)->ino, y = ((const struct unix_diag_info *)b)->ino;

	return x < y ? -1 : x > y;
}

static void add(struct unix_diag *d, const struct unix_diag_info *info)
{
	if (!d->v || (d->n & (d->n - 1)) == 0) {
		struct unix_diag_info *grown = realloc(d->v, (d->n ? d->n * 2 : 64) * sizeof(*grown));

		if (!grown)
			abort();
		d->v = grown;
	}
	d->v[d->n++] = *info;
}

static void forget(struct unix_diag *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->v[i].waiting);
	free(d->v);
	d->v = NULL;
	d->n = 0;
}

/* All sockets. Returns false when the list is not complete. */
static bool list(struct unix_diag *d)
{
	cleanup_free char *answer = malloc(ANSWER_BYTES);

	if (!answer || !ask(d, 0, true))
		return false;
	for (;;) {
		ssize_t n = recv(d->nl, answer, ANSWER_BYTES, 0);
		struct nlmsghdr *head = (void *)answer;

		if (n <= 0)
			return false;
		for (; NLMSG_OK(head, n); head = NLMSG_NEXT(head, n)) {
			struct unix_diag_info info;

			if (head->nlmsg_type == NLMSG_DONE) {
				if (d->v)
					qsort(d->v, d->n, sizeof(*d->v), compare_ino);
				return true;
			}
			if (head->nlmsg_type == NLMSG_ERROR)
				return false;
			if (take_message(head, &info))
				add(d, &info);
		}
	}
}

static const struct unix_diag_info *look_once(struct unix_diag *d, uint64_t ino)
{
	union {
		struct nlmsghdr head;
		char bytes[16384];
	} reply;
	ssize_t n;

	free(d->one.waiting);
	d->one = (struct unix_diag_info){ 0 };
	if (!ask(d, (uint32_t)ino, false))
		return NULL;
	n = recv(d->nl, &reply, sizeof(reply), 0);
	return n >= (ssize_t)sizeof(reply.head) && reply.head.nlmsg_len <= (size_t)n && take_message(&reply.head, &d->one) ? &d->one : NULL;
}

const struct unix_diag_info *unix_diag_look(struct unix_diag *d, uint64_t ino)
{
	struct unix_diag_info key = { .ino = (uint32_t)ino };

	if (!d->v && d->looks++ < SINGLE_LOOKS)
		return look_once(d, ino);
	if (!d->v && !list(d)) {
		forget(d);
		return NULL;
	}
	return !d->v ? NULL : bsearch(&key, d->v, d->n, sizeof(key), compare_ino);
}

void unix_diag_done(struct unix_diag *d)
{
	forget(d);
	free(d->one.waiting);
	close_fdp(&d->nl);
	*d = UNIX_DIAG_INIT;
}
