/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* redirect_list.c - which ends sockets that are bound to every address have; see redirect.h */
#include <errno.h>

#include "base/util.h"
#include "net/redirect_internal.h"

struct listening {
	struct redirect *r;
	struct redirect_flow like;
	bool ipv4;
	struct redirect_flow *v;
	size_t n;
};

static int add(struct listening *l, const uint8_t own[16])
{
	struct redirect_flow *more;

	for (size_t i = 0; i < l->n; i++)
		if (!memcmp(l->v[i].own, own, 16))
			return 0;
	more = realloc(l->v, (l->n + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	l->v = more;
	l->v[l->n] = l->like;
	memcpy(l->v[l->n++].own, own, 16);
	return 0;
}

static int add_brought(const struct redirect_flow *flow, const struct redirect_end *end, void *arg)
{
	static const uint8_t none[16];
	struct listening *l = arg;
	struct redirect_end now = *end;

	redirect_effective(l->r, &now);
	if (now.state != REDIRECT_HERE || now.flags & REDIRECT_ENDED || flow->protocol != l->like.protocol || flow->own_port != l->like.own_port || flow->peer_port ||
	    memcmp(flow->peer, none, 16) || host_is_ipv4(flow->own) != l->ipv4)
		return 0;
	return add(l, flow->own);
}

int redirect_listening(struct redirect *r, uint8_t protocol, int family, uint16_t port, struct redirect_flow **ret, size_t *ret_n, struct err *e)
{
	struct listening l = { .r = r, .like = { .protocol = protocol, .own_port = port }, .ipv4 = family == AF_INET };
	cleanup_free struct in6_addr *own = NULL;
	size_t n = 0;
	int code = redirect_addresses(family, &own, &n, e);

	for (size_t i = 0; i < n && code >= 0; i++)
		code = add(&l, own[i].s6_addr);
	if (code >= 0 && r->ports[port].n)
		code = redirect_each(r, add_brought, &l, e);
	if (code < 0) {
		free(l.v);
		return code == -ENOMEM ? err_set(e, -ENOMEM, "out of memory") : code;
	}
	*ret = l.v;
	*ret_n = l.n;
	return 0;
}
