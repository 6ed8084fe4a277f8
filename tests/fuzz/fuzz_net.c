// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_net.c - redirected connections: what nodes tell each other about them, the ends that an offer names, and how the destination is reached */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "migrate/net_flows.h"
#include "net/news.h"
#include "wire/control.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_refused(const struct err *e)
{
	if (!e->code || !e->message[0])
		abort();
}

static void check_news(const uint8_t *data, size_t len)
{
	struct err e = ERR_INIT;
	Gw__NetNews *news;

	if (news_decode(data, len, &news, &e) < 0) {
		check_refused(&e);
		return;
	}
	for (size_t i = 0; i < news->n_ends; i++) {
		struct redirect_flow flow;

		memcpy(&flow, news->ends[i]->flow.data, sizeof(flow));
		if ((flow.protocol != IPPROTO_TCP && flow.protocol != IPPROTO_UDP) || !flow.own_port)
			abort();
	}
	gw__net_news__free_unpacked(news, NULL);
}

static void check_flows(const uint8_t *data, size_t len)
{
	Gw__Offer *offer = gw__offer__unpack(NULL, len, data);
	struct redirect_known *known = NULL;
	struct err e = ERR_INIT;
	struct net_flows l;

	if (!offer)
		return;
	if (net_flows_decode(offer->flows, offer->n_flows, &l, &known, &e) < 0) {
		check_refused(&e);
	} else {
		for (size_t i = 0; i < l.n; i++)
			if (!net_flows_has(&l, &l.v[i]) || !l.v[i].own_port)
				abort();
		net_flows_free(&l);
		free(known);
	}
	gw__offer__free_unpacked(offer, NULL);
}

static void check_answer(const uint8_t *data, size_t len)
{
	Gw__NetAnswer *answer = gw__net_answer__unpack(NULL, len, data);
	struct redirect_node node;
	struct err e = ERR_INIT;

	if (answer && answer->node && net_node_decode(answer->node, &node, &e) < 0)
		check_refused(&e);
	else if (answer && answer->node && (!node.name[0] || strnlen(node.name, sizeof(node.name)) == sizeof(node.name)))
		abort();
	if (answer)
		gw__net_answer__free_unpacked(answer, NULL);
}

/* The first byte says which. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	if (data[0] % 3 == 0)
		check_news(data + 1, len - 1);
	else if (data[0] % 3 == 1)
		check_flows(data + 1, len - 1);
	else
		check_answer(data + 1, len - 1);
	return 0;
}
