/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* net_flows.c - see net_flows.h */
#include "migrate/net_flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "image/bytes.h"

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct redirect_flow));
}

static void add(struct net_flows *l, const struct redirect_flow *f)
{
	if (l->n == l->room) {
		l->room = l->room ? 2 * l->room : 64;
		l->v = realloc(l->v, l->room * sizeof(*l->v));
		if (!l->v)
			abort();
	}
	l->v[l->n++] = *f;
}

static void sort(struct net_flows *l)
{
	size_t n = 0;

	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), compare);
	for (size_t i = 0; i < l->n; i++)
		if (!n || compare(&l->v[n - 1], &l->v[i]))
			l->v[n++] = l->v[i];
	l->n = n;
}

bool net_flow_is_connection(const struct redirect_flow *f)
{
	return f->peer_port != 0;
}

static bool is_any(const struct sockaddr *a)
{
	const struct sockaddr_in6 *in6 = (const void *)a;

	return a->sa_family == AF_INET ? ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr == 0 : IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
}

struct listing {
	struct net_flows *l;
	struct redirect *r;
	struct err *e;
	int code;
};

/* A socket that is bound to every address; one of IPv6 mostly to those of IPv4, too. */
static void add_wildcard(struct listing *x, uint8_t protocol, const struct sockaddr *own)
{
	uint16_t port = own->sa_family == AF_INET ? ((const struct sockaddr_in *)(const void *)own)->sin_port : ((const struct sockaddr_in6 *)(const void *)own)->sin6_port;

	for (int k = 0; x->r && k < (own->sa_family == AF_INET ? 1 : 2) && x->code == 0; k++) {
		cleanup_free struct redirect_flow *v = NULL;
		size_t n = 0;

		x->code = redirect_listening(x->r, protocol, k ? AF_INET6 : AF_INET, port, &v, &n, x->e);
		for (size_t i = 0; i < n && x->code == 0; i++)
			add(x->l, &v[i]);
	}
}

static void add_end(void *arg, uint8_t protocol, const struct sockaddr *own, const struct sockaddr *peer)
{
	struct listing *x = arg;
	struct redirect_flow f;

	if (!peer && is_any(own))
		add_wildcard(x, protocol, own);
	else if (redirect_flow_set(&f, protocol, own, peer))
		add(x->l, &f);
}

int net_flows_of(const Gw__FdTable *t, struct redirect *r, struct net_flows *ret, struct err *e)
{
	struct listing x = { .l = ret, .r = r, .e = e };

	*ret = (struct net_flows){ 0 };
	fdtable_list_ends(t, add_end, &x);
	sort(ret);
	return x.code;
}

int net_flows_of_fresh(struct fdtable *t, struct redirect *r, struct net_flows *ret, struct err *e)
{
	struct listing x = { .l = ret, .r = r, .e = e };

	*ret = (struct net_flows){ 0 };
	fdtable_list_fresh_ends(t, add_end, &x);
	sort(ret);
	return x.code;
}

bool net_flows_has(const struct net_flows *l, const struct redirect_flow *f)
{
	return l->n && bsearch(f, l->v, l->n, sizeof(*f), compare);
}

void net_flows_new(const struct net_flows *l, const struct net_flows *known, struct net_flows *ret)
{
	*ret = (struct net_flows){ 0 };
	for (size_t i = 0; i < l->n; i++)
		if (!net_flows_has(known, &l->v[i]))
			add(ret, &l->v[i]);
}

void net_flows_merge(struct net_flows *l, const struct net_flows *more)
{
	for (size_t i = 0; i < more->n; i++)
		add(l, &more->v[i]);
	sort(l);
}

bool net_flows_have_ipv6(const struct net_flows *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (!IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(const void *)l->v[i].own))
			return true;
	return false;
}

void net_flows_free(struct net_flows *l)
{
	free(l->v);
	*l = (struct net_flows){ 0 };
}

/* --- on the wire --- */

void net_node_encode(const struct redirect_node *node, Gw__NetNode *ret)
{
	static const uint8_t none[16];

	gw__net_node__init(ret);
	ret->name = (char *)(uintptr_t)node->name;
	if (memcmp(node->v4, none, sizeof(node->v4)))
		ret->v4 = (ProtobufCBinaryData){ sizeof(node->v4), (uint8_t *)(uintptr_t)node->v4 };
	if (memcmp(node->v6, none, sizeof(node->v6)))
		ret->v6 = (ProtobufCBinaryData){ sizeof(node->v6), (uint8_t *)(uintptr_t)node->v6 };
}

int net_node_decode(const Gw__NetNode *node, struct redirect_node *ret, struct err *e)
{
	memset(ret, 0, sizeof(*ret));
	if (!node->name[0] || strlen(node->name) >= sizeof(ret->name) || (node->v4.len && node->v4.len != sizeof(ret->v4)) ||
	    (node->v6.len && node->v6.len != sizeof(ret->v6)))
		return err_set(e, -EPROTO, "a node that cannot be");
	for (const char *c = node->name; *c; c++)
		if ((unsigned char)*c <= ' ' || *c == 0x7f)
			return err_set(e, -EPROTO, "a node's name with control characters");
	strcpy(ret->name, node->name);
	if (node->v4.len)
		memcpy(ret->v4, node->v4.data, sizeof(ret->v4));
	if (node->v6.len)
		memcpy(ret->v6, node->v6.data, sizeof(ret->v6));
	return 0;
}

void net_flows_encode(const struct net_flows *l, struct redirect *r, const struct redirect_node *self, Gw__NetFlow ***ret, size_t *ret_n)
{
	Gw__NetFlow **v = must_alloc(l->n * sizeof(*v));

	for (size_t i = 0; i < l->n; i++) {
		const struct redirect_flow *f = &l->v[i];
		struct redirect_known known;

		v[i] = must_alloc(sizeof(*v[i]));
		gw__net_flow__init(v[i]);
		v[i]->protocol = f->protocol;
		bytes_set(&v[i]->own, f->own, sizeof(f->own));
		v[i]->own_port = f->own_port;
		redirect_tell(r, f, self, &known);
		bytes_set(&v[i]->known, &known, sizeof(known));
		if (!net_flow_is_connection(f))
			continue;
		bytes_set(&v[i]->peer, f->peer, sizeof(f->peer));
		v[i]->peer_port = f->peer_port;
	}
	*ret = v;
	*ret_n = l->n;
}

void net_flows_release(Gw__NetFlow **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gw__net_flow__free_unpacked(v[i], NULL);
	free(v);
}

static int decode_flow(const Gw__NetFlow *m, struct redirect_flow *f, struct redirect_known *known, struct err *e)
{
	memset(f, 0, sizeof(*f));
	if ((m->protocol != IPPROTO_TCP && m->protocol != IPPROTO_UDP) || m->own.len != sizeof(f->own) || !m->own_port || m->own_port > UINT16_MAX ||
	    m->peer_port > UINT16_MAX || m->peer.len != (m->peer_port ? sizeof(f->peer) : 0) || m->known.len != sizeof(*known))
		return err_set(e, -EPROTO, "an end of a connection that cannot be");
	f->protocol = (uint8_t)m->protocol;
	memcpy(f->own, m->own.data, sizeof(f->own));
	f->own_port = (uint16_t)m->own_port;
	if (m->peer_port)
		memcpy(f->peer, m->peer.data, sizeof(f->peer));
	f->peer_port = (uint16_t)m->peer_port;
	memcpy(known, m->known.data, sizeof(*known));
	return 0;
}

int net_flows_decode(Gw__NetFlow *const *v, size_t n, struct net_flows *ret, struct redirect_known **ret_known, struct err *e)
{
	struct redirect_known *known;
	int code = 0;

	*ret = (struct net_flows){ 0 };
	if (n > NET_FLOWS_MAX)
		return err_set(e, -EPROTO, "%zu ends of connections", n);
	known = must_alloc(n * sizeof(*known));
	for (size_t i = 0; i < n && code == 0; i++) {
		struct redirect_flow f;

		code = decode_flow(v[i], &f, &known[i], e);
		if (code == 0 && i && compare(&ret->v[i - 1], &f) >= 0)
			code = err_set(e, -EPROTO, "ends of connections out of order");
		add(ret, &f);
	}
	if (code < 0) {
		net_flows_free(ret);
		free(known);
		return code;
	}
	*ret_known = known;
	return 0;
}
