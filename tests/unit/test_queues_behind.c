/* SPDX-License-Identifier: GPL-2.0-or-later */
/* test_queues_behind.c - what lies in queues of connections follows the go message (image/file_codec.c) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "image/file.h"

struct table {
	Gw__FdTable msg;
	Gw__FdDesc desc[2], *descs[2];
	Gw__FdSocket socket[2];
	Gw__FdTcp tcp[2];
	Gw__FdTcpNumbers numbers[2];
	struct sockaddr_in own, peer[2];
	Gw__FdNumbers fds, *tables[1];
	protobuf_c_boolean cloexec[2];
	uint32_t fd[2], index[2], table_of[1], changed[2];
};

static void fill_desc(struct table *t, unsigned i)
{
	gw__fd_desc__init(&t->desc[i]);
	gw__fd_socket__init(&t->socket[i]);
	gw__fd_tcp__init(&t->tcp[i]);
	gw__fd_tcp_numbers__init(&t->numbers[i]);
	t->peer[i] = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)(40000 + i)), .sin_addr.s_addr = htonl(0x0a000002) };
	t->desc[i].kind = GW__FD_KIND__FD_SOCKET;
	t->desc[i].flags = O_RDWR;
	t->desc[i].socket = &t->socket[i];
	t->socket[i].family = AF_INET;
	t->socket[i].type = SOCK_STREAM;
	t->socket[i].protocol = IPPROTO_TCP;
	t->socket[i].local = (ProtobufCBinaryData){ sizeof(t->own), (uint8_t *)&t->own };
	t->socket[i].peer = (ProtobufCBinaryData){ sizeof(t->peer[i]), (uint8_t *)&t->peer[i] };
	t->socket[i].tcp = &t->tcp[i];
	t->tcp[i].kind = GW__FD_TCP_KIND__TCP_OUTSIDE;
	t->tcp[i].numbers = &t->numbers[i];
	t->numbers[i].state = TCP_ESTABLISHED;
	t->descs[i] = &t->desc[i];
	t->fd[i] = 3 + i;
	t->index[i] = t->changed[i] = i;
}

static void fill(struct table *t)
{
	memset(t, 0, sizeof(*t));
	gw__fd_table__init(&t->msg);
	gw__fd_numbers__init(&t->fds);
	t->own = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(0x0a000001) };
	fill_desc(t, 0);
	fill_desc(t, 1);
	t->fds.fd = t->fd;
	t->fds.desc = t->index;
	t->fds.cloexec = t->cloexec;
	t->fds.n_fd = t->fds.n_desc = t->fds.n_cloexec = 2;
	t->tables[0] = &t->fds;
	t->msg.descs = t->descs;
	t->msg.tables = t->tables;
	t->msg.table_of = t->table_of;
	t->msg.n_descs = 2;
	t->msg.n_tables = t->msg.n_table_of = 1;
}

static size_t pack(const struct table *t, uint8_t **ret)
{
	*ret = malloc(gw__fd_table__get_packed_size(&t->msg));
	assert_non_null(*ret);
	return gw__fd_table__pack(&t->msg, *ret);
}

static Gw__FdTable *make_offer(void)
{
	struct err e = ERR_INIT;
	Gw__FdTable *ret = NULL;
	struct table t;
	uint8_t *data;
	size_t len;

	fill(&t);
	len = pack(&t, &data);
	if (fdtable_decode(data, len, 0, 1, &ret, &e) < 0)
		fail_msg("%s", e.message);
	/* Nothing follows an offer. */
	t.tcp[1].unsent_behind = 1;
	free(data);
	len = pack(&t, &data);
	assert_int_equal(fdtable_decode(data, len, 0, 1, &(Gw__FdTable *){ NULL }, NULL), -EPROTO);
	free(data);
	return ret;
}

static void fill_difference(struct table *t, uint32_t received, uint32_t unsent, uint32_t received_next)
{
	fill(t);
	t->msg.difference = true;
	t->msg.n_descs_all = 2;
	t->msg.changed = t->changed;
	t->msg.n_changed = 2;
	t->msg.n_table_of = 0;
	t->tcp[0].received_behind = received;
	t->tcp[0].unsent_behind = unsent;
	t->tcp[1].received_behind = received_next;
}

static int decode(const struct table *t, const void *queues, size_t len, const Gw__FdTable *offer, Gw__FdTable **ret)
{
	uint8_t *data;
	size_t n = pack(t, &data);
	int r = fdtable_decode_update(data, n, queues, len, 0, offer, ret, NULL);

	free(data);
	return r;
}

static void test_all_has_come(void **state)
{
	Gw__FdTable *offer = make_offer(), *now = NULL;
	struct table t;

	(void)state;
	fill_difference(&t, 3, 2, 4);
	assert_int_equal(decode(&t, "abcdefghi", 9, offer, &now), 0);
	assert_int_equal(now->descs[0]->socket->tcp->received.len, 3);
	assert_memory_equal(now->descs[0]->socket->tcp->received.data, "abc", 3);
	assert_memory_equal(now->descs[0]->socket->tcp->unsent.data, "de", 2);
	assert_int_equal(now->descs[1]->socket->tcp->received.len, 4);
	assert_memory_equal(now->descs[1]->socket->tcp->received.data, "fghi", 4);
	assert_int_equal(now->descs[1]->socket->tcp->unsent.len, 0);
	fdtable_update_free(now, offer);
	gw__fd_table__free_unpacked(offer, NULL);
}

static void test_too_little_has_come(void **state)
{
	Gw__FdTable *offer = make_offer(), *now = NULL;
	uint8_t inside[2] = { 1, 2 };
	struct table t;

	(void)state;
	fill_difference(&t, 3, 2, 4);
	assert_int_equal(decode(&t, "abcdefgh", 8, offer, &now), -EPROTO);
	fill_difference(&t, 3, UINT32_MAX, UINT32_MAX);
	assert_int_equal(decode(&t, "abcdefgh", 8, offer, &now), -EPROTO);
	fill_difference(&t, 3, 2, 0);
	t.tcp[0].received = (ProtobufCBinaryData){ sizeof(inside), inside };
	assert_int_equal(decode(&t, "abcdefgh", 8, offer, &now), -EPROTO);
	gw__fd_table__free_unpacked(offer, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_all_has_come), cmocka_unit_test(test_too_little_has_come) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
