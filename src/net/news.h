/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * news.h - what nodes tell each other of ends that have moved
 *
 * The node that has ends tells all others: after each move, when a listener has ended by itself, and every minute, always the whole list (NetNews); who did not hear it is told again
 * soon. The answer is the other node's list: so a host that has lost its table is found out. Who has the other end of a connection, or its address, sends there directly from then on;
 * listeners concern everybody, and that one has ended is said explicitly. What else a node said once and does not say any more has ended. An end that has moved more often is the later
 * news. Until then, and for hosts without Godwit, the host that was left forwards.
 */
#ifndef GODWIT_NET_NEWS_H
#define GODWIT_NET_NEWS_H

#include "net/redirect.h"
#include "wire/net.pb-c.h"

#define NEWS_FRAME 60u /* of FRAME_*: NetNews, and its answer: NetNews, too */
#define NEWS_BYTES_MAX (32u << 20)

/* How long an entry is kept that the node it leads to does not speak of, since it may be younger than the news: 60 s, less in tests. */
extern uint64_t news_settled_ns;

/* Whether others are to be told something: 1, with the number to be given to news_told. */
int news_due(struct redirect *r, uint32_t *ret_number);
/* all: who did not hear it is told again in a moment. */
void news_told(struct redirect *r, uint32_t number, bool all);
/* The whole list; r NULL: nothing is redirected here. self: redirect_self of the connection that it will go over. *ret is malloc'ed. */
int news_write(struct redirect *r, const struct redirect_node *self, void **ret, size_t *ret_len, struct err *e);
/* The bytes of another node, checked; freed by gw__net_news__free_unpacked. -EPROTO. */
int news_decode(const void *data, size_t len, Gw__NetNews **ret, struct err *e);
/* What the node `from` (v4 set; v6 comes with the news) says, untrusted. Opens the table when something has to be entered. -EPROTO. */
int news_apply(const struct redirect_node *from, const void *data, size_t len, struct err *e);

#endif
