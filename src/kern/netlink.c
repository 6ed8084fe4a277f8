/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* netlink.c - see netlink.h */
#include "kern/netlink.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/util.h"
#include "kern/nsfs.h"

int netlink_open(struct netlink *nl, int protocol, int ns, struct err *e)
{
	cleanup_close int here = ns < 0 ? -1 : ns_open(0, NS_NET);
	struct mnl_socket *s;

	*nl = (struct netlink){ 0 };
	if (ns >= 0 && (here < 0 || ns_enter(ns, NS_NET) < 0))
		return err_sys(e, errno, "entering a network namespace");
	s = mnl_socket_open2(protocol, SOCK_CLOEXEC);
	if (ns >= 0 && ns_enter(here, NS_NET) < 0)
		abort(); /* everything else would be done in the wrong one */
	if (!s || mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) < 0) {
		int code = errno;

		if (s)
			mnl_socket_close(s);
		return err_sys(e, code, "netlink socket");
	}
	/* The words are a kindness of newer kernels. */
	(void)mnl_socket_setsockopt(s, NETLINK_CAP_ACK, &(int){ 1 }, sizeof(int));
	(void)mnl_socket_setsockopt(s, NETLINK_EXT_ACK, &(int){ 1 }, sizeof(int));
	nl->socket = s;
	return 0;
}

int netlink_error(const struct netlink *nl, int code, struct err *e, const char *format, ...)
{
	char what[192];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	return err_set(e, code, "%s: %s%s%s", what, strerror(-code), nl->why[0] ? ": " : "", nl->why);
}

void netlink_close(struct netlink *nl)
{
	if (nl->socket)
		mnl_socket_close(nl->socket);
	nl->socket = NULL;
}

struct nlmsghdr *netlink_begin(void *buf, uint16_t type, uint16_t flags, size_t header)
{
	struct nlmsghdr *m = mnl_nlmsg_put_header(buf);

	m->nlmsg_type = type;
	m->nlmsg_flags = NLM_F_REQUEST | flags;
	if (header)
		mnl_nlmsg_put_extra_header(m, header);
	return m;
}

struct each {
	int (*each)(const struct nlmsghdr *m, void *arg);
	void *arg;
	int code;
	char *why;
};

static int on_message(const struct nlmsghdr *m, void *arg)
{
	struct each *e = arg;

	if (e->each && e->code == 0)
		e->code = e->each(m, e->arg);
	return MNL_CB_OK;
}

/* What the kernel says about a refused request, in words too, where it has some. */
static int on_error(const struct nlmsghdr *m, void *arg)
{
	const struct nlmsgerr *answer = mnl_nlmsg_get_payload(m);
	struct each *e = arg;
	const struct nlattr *a;

	if (answer->error == 0)
		return MNL_CB_STOP;
	if (m->nlmsg_flags & NLM_F_ACK_TLVS && m->nlmsg_flags & NLM_F_CAPPED)
		mnl_attr_for_each(a, m, sizeof(*answer))
			if (mnl_attr_get_type(a) == NLMSGERR_ATTR_MSG && mnl_attr_validate(a, MNL_TYPE_NUL_STRING) == 0)
				snprintf(e->why, NETLINK_WHY_MAX, "%s", mnl_attr_get_str(a));
	errno = answer->error < 0 ? -answer->error : answer->error;
	return MNL_CB_ERROR;
}

static int transact(struct netlink *nl, struct nlmsghdr *request, struct each *each)
{
	static mnl_cb_t controls[NLMSG_ERROR + 1] = { [NLMSG_ERROR] = on_error };
	unsigned port = mnl_socket_get_portid(nl->socket);
	cleanup_free char *buf = malloc(NETLINK_BYTES * 2);
	ssize_t n;
	int ret;

	request->nlmsg_seq = ++nl->seq;
	nl->why[0] = 0;
	each->why = nl->why;
	if (!buf)
		return -ENOMEM;
	if (mnl_socket_sendto(nl->socket, request, request->nlmsg_len) < 0)
		return -errno;
	do {
		n = mnl_socket_recvfrom(nl->socket, buf, NETLINK_BYTES * 2);
		if (n < 0)
			return -errno;
		ret = mnl_cb_run2(buf, (size_t)n, nl->seq, port, on_message, each, controls, ARRAY_SIZE(controls));
	} while (ret > 0);
	return ret < 0 ? -errno : each->code;
}

int netlink_dump(struct netlink *nl, struct nlmsghdr *request, int (*each)(const struct nlmsghdr *m, void *arg), void *arg)
{
	struct each all = { each, arg, 0, NULL };

	request->nlmsg_flags |= NLM_F_DUMP;
	return transact(nl, request, &all);
}

int netlink_ask(struct netlink *nl, struct nlmsghdr *request, int (*each)(const struct nlmsghdr *m, void *arg), void *arg)
{
	struct each answer = { each, arg, 0, NULL };

	request->nlmsg_flags |= NLM_F_ACK;
	return transact(nl, request, &answer);
}

static void collect(const struct nlattr *a, const struct nlattr **table, unsigned max)
{
	unsigned type = mnl_attr_get_type(a);

	if (type <= max)
		table[type] = a;
}

void netlink_attributes(const struct nlmsghdr *m, size_t header, const struct nlattr **table, unsigned max)
{
	const struct nlattr *a;

	memset(table, 0, (max + 1) * sizeof(*table));
	if (m->nlmsg_len < MNL_NLMSG_HDRLEN + MNL_ALIGN(header))
		return;
	mnl_attr_for_each(a, m, (unsigned)header)
		collect(a, table, max);
}

void netlink_nested(const struct nlattr *nest, const struct nlattr **table, unsigned max)
{
	const struct nlattr *a;

	memset(table, 0, (max + 1) * sizeof(*table));
	if (!nest)
		return;
	mnl_attr_for_each_nested(a, nest)
		collect(a, table, max);
}

void netlink_copy(struct nlmsghdr *m, const struct nlattr *a)
{
	uint16_t len = mnl_attr_get_payload_len(a);
	char *copy = (char *)mnl_nlmsg_get_payload_tail(m) + MNL_ATTR_HDRLEN;

	mnl_attr_put(m, a->nla_type, len, mnl_attr_get_payload(a));
	memset(copy + len, 0, MNL_ALIGN(len) - len); /* so that copies compare equal */
}
