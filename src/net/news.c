/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* news.c - see news.h */
#include "net/news.h"

#include <errno.h>

#include "base/util.h"
#include "net.pb-c.h"
#include "net/redirect_internal.h"

#define AGAIN_NS (60 * 1000000000ull)
#define RETRY_NS 2000000000ull /* the first time; then twice as long, and so on */
#define RETRIES 5              /* after that it is AGAIN_NS */

uint64_t news_settled_ns = 60 * 1000000000ull;

int news_due(struct redirect *r, uint32_t *ret_number)
{
	uint32_t number = __atomic_load_n(&r->config->news, __ATOMIC_SEQ_CST);

	uint64_t wait_ns = number == r->config->told || r->config->tries >= RETRIES ? AGAIN_NS : RETRY_NS << r->config->tries;

	*ret_number = number;
	return number != r->config->tried || clock_ns(CLOCK_MONOTONIC) - r->config->tried_ns > wait_ns;
}

void news_told(struct redirect *r, uint32_t number, bool all)
{
	r->config->tries = all || number != r->config->tried ? 0 : r->config->tries + 1;
	r->config->tried = number;
	r->config->tried_ns = clock_ns(CLOCK_MONOTONIC);
	if (all)
		r->config->told = number;
}

struct list {
	struct redirect *r;
	Gw__NetEnd *ends;
	struct redirect_flow *flows;
	size_t n, room;
};

static int add(const struct redirect_flow *flow, const struct redirect_end *end, void *arg)
{
	struct list *l = arg;
	struct redirect_end now = *end;

	redirect_effective(l->r, &now);
	if (now.state != REDIRECT_HERE || now.flags & REDIRECT_OWNED || (redirect_is_at_home(flow, &now) && !now.moves_made))
		return 0;
	if (l->n == l->room) {
		void *ends, *flows;

		l->room = l->room * 2 + 64;
		ends = realloc(l->ends, l->room * sizeof(*l->ends));
		if (ends)
			l->ends = ends;
		flows = realloc(l->flows, l->room * sizeof(*l->flows));
		if (flows)
			l->flows = flows;
		if (!ends || !flows)
			return -ENOMEM;
	}
	gw__net_end__init(&l->ends[l->n]);
	l->ends[l->n].moves_made = now.moves_made;
	l->ends[l->n].native = redirect_is_at_home(flow, &now);
	l->ends[l->n].ended = now.flags & REDIRECT_ENDED;
	l->flows[l->n++] = *flow;
	return 0;
}

int news_write(struct redirect *r, const struct redirect_node *self, void **ret, size_t *ret_len, struct err *e)
{
	static const uint8_t none[16];
	struct list l = { .r = r };
	Gw__NetNews news = GW__NET_NEWS__INIT;
	cleanup_free Gw__NetEnd **pointers = NULL;
	int code = r ? redirect_each(r, add, &l, e) : 0;

	pointers = calloc(l.n + 1, sizeof(*pointers));
	for (size_t i = 0; i < l.n && pointers; i++) {
		l.ends[i].flow = (ProtobufCBinaryData){ sizeof(*l.flows), (uint8_t *)&l.flows[i] };
		pointers[i] = &l.ends[i];
	}
	news.ends = pointers;
	news.n_ends = pointers ? l.n : 0;
	if (memcmp(self->v6, none, 16))
		news.v6 = (ProtobufCBinaryData){ 16, (uint8_t *)self->v6 };
	*ret_len = gw__net_news__get_packed_size(&news);
	*ret = code >= 0 && pointers ? malloc(*ret_len + 1) : NULL;
	if (*ret)
		gw__net_news__pack(&news, *ret);
	free(l.ends);
	free(l.flows);
	return *ret ? 0 : code < 0 && code != -ENOMEM ? code : err_set(e, -ENOMEM, "out of memory");
}

static bool is_valid(const Gw__NetEnd *end)
{
	const struct redirect_flow *flow = (const void *)end->flow.data;

	if (end->flow.len != sizeof(*flow) || end->moves_made > UINT32_MAX / 2)
		return false;
	return (flow->protocol == IPPROTO_TCP || flow->protocol == IPPROTO_UDP) && flow->own_port && !flow->unused[0] && !flow->unused[1] && !flow->unused[2];
}

/* Whether packets for an end of which nothing is known here yet would be sent by this host. */
static bool concerns_us(struct redirect *r, const struct redirect_flow *flow)
{
	struct redirect_flow other;
	struct redirect_end end;

	if (host_is_loopback(flow->own))
		return false;
	if (redirect_is_listener(flow) || host_has_address(flow->peer))
		return true;
	redirect_other(flow, &other);
	if (r && flow->protocol == IPPROTO_UDP && !redirect_get(r, &other, &end)) {
		other.peer_port = 0;
		memset(other.peer, 0, sizeof(other.peer));
	}
	if (!r || !redirect_get(r, &other, &end))
		return false;
	redirect_effective(r, &end);
	return end.state == REDIRECT_HERE;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct redirect_flow));
}

struct reader {
	struct redirect *r; /* NULL: nothing is redirected here yet */
	uint32_t node;
	struct redirect_flow *flows; /* ascending */
	size_t n;
	struct old {
		struct redirect_flow flow;
		uint64_t changed_ns;
	} *old;
	size_t n_old;
};

static int apply_end(struct reader *reader, const Gw__NetEnd *news, struct err *e)
{
	struct redirect_flow flow;
	struct redirect_end end = { 0 };
	bool known, at_home;
	int code;

	memcpy(&flow, news->flow.data, sizeof(flow));
	known = redirect_get(reader->r, &flow, &end);
	if (news->ended && (!known || end.state != REDIRECT_THERE || end.node != reader->node))
		return 0;
	if (end.move || end.moves_made > news->moves_made || (end.state == REDIRECT_HERE && end.moves_made == news->moves_made && known))
		return 0;
	if (!known && (news->native || !concerns_us(reader->r, &flow)))
		return 0;
	if (known && !news->ended && end.moves_made == news->moves_made && end.state == (news->native ? REDIRECT_NONE : REDIRECT_THERE) &&
	    end.node == reader->node)
		return 0;
	/* At home again: for who knows nothing as for us. How often it has moved is kept, lest old news be taken for new. Where it has left this host, it still has. */
	at_home = news->native || news->ended;
	end = (struct redirect_end){ .state = at_home ? REDIRECT_NONE : REDIRECT_THERE, .node = news->ended ? 0 : reader->node, .moves_made = news->moves_made,
				     .flags = at_home || end.state != REDIRECT_THERE ? 0 : end.flags & REDIRECT_ENDED,
				     .changed_ns = clock_ns(CLOCK_MONOTONIC), .seen_ns = end.seen_ns };
	code = redirect_put(reader->r, &flow, &end);
	return code < 0 ? err_sys(e, code, "entering news in the table of redirected connections") : 0;
}

static int find_old(const struct redirect_flow *flow, const struct redirect_end *end, void *arg)
{
	struct reader *reader = arg;

	if (end->move || end->state != REDIRECT_THERE || end->node != reader->node || clock_ns(CLOCK_MONOTONIC) - end->changed_ns < news_settled_ns ||
	    bsearch(flow, reader->flows, reader->n, sizeof(*flow), compare))
		return 0;
	if (!(reader->n_old & 63)) {
		void *more = realloc(reader->old, (reader->n_old + 64) * sizeof(*reader->old));

		if (!more)
			return -ENOMEM;
		reader->old = more;
	}
	reader->old[reader->n_old++] = (struct old){ *flow, end->changed_ns };
	return 0;
}

static int apply_locked(struct reader *reader, const struct redirect_node *from, const Gw__NetNews *news, struct err *e)
{
	int code = redirect_node_index(reader->r, from, &reader->node, e);

	for (size_t i = 0; i < news->n_ends && code >= 0; i++)
		code = apply_end(reader, news->ends[i], e);
	if (code >= 0)
		code = redirect_each(reader->r, find_old, reader, e);
	for (size_t i = 0; i < reader->n_old; i++)
		redirect_remove_unchanged(reader->r, &reader->old[i].flow, reader->old[i].changed_ns);
	return code;
}

static int apply(struct reader *reader, const struct redirect_node *from, const Gw__NetNews *news, struct err *e)
{
	bool concerns = false;
	int code;

	for (size_t i = 0; i < news->n_ends; i++) {
		memcpy(&reader->flows[i], news->ends[i]->flow.data, sizeof(*reader->flows));
		concerns = concerns || (!news->ends[i]->native && !news->ends[i]->ended && concerns_us(reader->r, &reader->flows[i]));
	}
	reader->n = news->n_ends;
	qsort(reader->flows, reader->n, sizeof(*reader->flows), compare);
	if (!reader->r && !concerns)
		return 0;
	/* Devices may be new as well. */
	if (concerns) {
		redirect_close(&reader->r);
		code = redirect_open(&reader->r, e);
		if (code < 0)
			return code;
	}
	redirect_lock(reader->r);
	code = apply_locked(reader, from, news, e);
	redirect_unlock(reader->r);
	return code;
}

int news_decode(const void *data, size_t len, Gw__NetNews **ret, struct err *e)
{
	Gw__NetNews *news = gw__net_news__unpack(NULL, len, data);
	bool valid = news && (news->v6.len == 0 || news->v6.len == sizeof(((struct redirect_node *)0)->v6));

	for (size_t i = 0; valid && i < news->n_ends; i++)
		valid = is_valid(news->ends[i]);
	if (valid) {
		*ret = news;
		return 0;
	}
	if (news)
		gw__net_news__free_unpacked(news, NULL);
	return err_set(e, -EPROTO, "news of redirected connections that make no sense");
}

int news_apply(const struct redirect_node *from, const void *data, size_t len, struct err *e)
{
	struct redirect_node node = *from;
	struct reader reader = { 0 };
	Gw__NetNews *news;
	int code = news_decode(data, len, &news, e);

	if (code < 0)
		return code;
	if (news->v6.len)
		memcpy(node.v6, news->v6.data, news->v6.len);
	reader.flows = calloc(news->n_ends + 1, sizeof(*reader.flows));
	code = host_load(e);
	if (code >= 0)
		code = redirect_find(&reader.r, e);
	if (code >= 0)
		code = reader.flows ? apply(&reader, &node, news, e) : err_set(e, -ENOMEM, "out of memory");
	gw__net_news__free_unpacked(news, NULL);
	free(reader.flows);
	free(reader.old);
	redirect_close(&reader.r);
	return code;
}
