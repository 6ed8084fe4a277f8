// SPDX-License-Identifier: GPL-2.0-or-later
/* order_all.c - see order_all.h */
#include "daemon/order_all.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/util.h"
#include "daemon/reply.h"
#include "wire/conn.h"

#define FIRST_BYTES 16384

struct asking {
	int fd; /* -1: decided */
	bool connected;
	char *text;
	size_t have, size;
};

int order_answer_decode(const char *line, size_t len, json_t **ret, struct err *e)
{
	json_t *o = json_loadb(line, len, 0, NULL), *result = json_object_get(o, "result");
	const char *event = json_string_value(json_object_get(o, "event")), *message = json_string_value(json_object_get(json_object_get(o, "error"), "message"));
	int r = 0;

	if (!event)
		r = err_set(e, -EPROTO, "an answer that is no line of JSON with an event");
	else if (!strcmp(event, "error"))
		r = err_set(e, -EREMOTEIO, "%.300s", message ? message : "it says only that it failed");
	else if (strcmp(event, "result") != 0 || !json_is_object(result))
		r = err_set(e, -EPROTO, "an answer without a result");
	else
		*ret = json_incref(result);
	json_decref(o);
	return r;
}

static int send_order(const struct daemon *d, struct asking *a, const struct cluster_node *node, const char *line, struct err *e)
{
	static uint8_t none[HELLO_MIG_ID_BYTES];
	Gw__Hello hello;
	int r = conn_finish(a->fd, &node->address, e);

	if (r < 0)
		return r;
	hello_fill(&hello);
	hello.role = ROLE_ORDER;
	hello.node_name = (char *)(uintptr_t)d->config.name;
	hello.mig_id = (ProtobufCBinaryData){ sizeof(none), none };
	a->connected = true;
	r = hello_send(a->fd, &hello, e);
	return r < 0 ? r : reply_bytes(a->fd, line, strlen(line), 0) < 0 ? err_set(e, -EPIPE, "sending the request") : 0;
}

static int grow(struct asking *a, struct err *e)
{
	size_t size = a->size ? 2 * a->size : FIRST_BYTES;
	char *grown;

	if (a->have < a->size)
		return 0;
	if (size > ORDER_ANSWER_MAX)
		return err_set(e, -EMSGSIZE, "an answer of more than %u bytes", ORDER_ANSWER_MAX);
	grown = realloc(a->text, size);
	if (!grown)
		return err_sys(e, -ENOMEM, "an answer");
	a->text = grown;
	a->size = size;
	return 0;
}

/* 1: the answer is there, 0: not yet. */
static int read_answer(struct asking *a, json_t **ret, struct err *e)
{
	ssize_t n;
	char *end;

	if (grow(a, e) < 0)
		return e->code;
	n = recv(a->fd, a->text + a->have, a->size - a->have, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		return err_sys(e, -errno, "reading the answer");
	if (!n)
		return err_set(e, -ECONNRESET, "it ended the connection without an answer");
	end = memchr(a->text + a->have, '\n', (size_t)n);
	a->have += (size_t)n;
	if (!end)
		return 0;
	return order_answer_decode(a->text, (size_t)(end - a->text), ret, e) < 0 ? e->code : 1;
}

static void step(const struct daemon *d, struct asking *a, struct order_answer *answer, const char *line)
{
	int r = a->connected ? read_answer(a, &answer->result, &answer->error) : send_order(d, a, answer->node, line, &answer->error);

	if (r != 0)
		close_fdp(&a->fd);
}

static void talk(const struct daemon *d, struct asking *a, struct order_answer *answers, size_t n, struct pollfd *p, const char *line, int timeout_ms)
{
	uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + (uint64_t)timeout_ms * 1000000ull;
	size_t i, open;

	for (i = 0; i < n; i++)
		a[i].fd = conn_begin(&answers[i].node->address, &answers[i].error);
	for (;;) {
		uint64_t now = clock_ns(CLOCK_MONOTONIC);

		for (i = open = 0; i < n; i++) {
			p[i] = (struct pollfd){ .fd = a[i].fd, .events = a[i].connected ? POLLIN : conn_decided(a[i].fd) };
			open += a[i].fd >= 0;
		}
		if (!open || now >= deadline)
			break;
		if (poll(p, n, (int)((deadline - now + 999999) / 1000000)) < 0 && errno != EINTR)
			break;
		for (i = 0; i < n; i++)
			if (a[i].fd >= 0 && p[i].revents)
				step(d, &a[i], &answers[i], line);
	}
	for (i = 0; i < n; i++) {
		if (a[i].fd >= 0)
			err_set(&answers[i].error, -ETIMEDOUT, "no answer within %d ms", timeout_ms);
		close_fdp(&a[i].fd);
		free(a[i].text);
	}
}

int order_all(const struct daemon *d, const struct cluster_node *nodes, size_t n, const json_t *order, int timeout_ms, struct order_answer **ret, struct err *e)
{
	struct order_answer *answers = calloc(n + 1, sizeof(*answers));
	cleanup_free struct asking *a = calloc(n + 1, sizeof(*a));
	cleanup_free struct pollfd *p = calloc(n + 1, sizeof(*p));
	cleanup_free char *text = json_dumps(order, JSON_COMPACT);
	cleanup_free char *line = text ? malloc(strlen(text) + 2) : NULL;

	if (!answers || !a || !p || !line) {
		free(answers);
		return err_sys(e, -ENOMEM, "asking %zu nodes", n);
	}
	sprintf(line, "%s\n", text);
	for (size_t i = 0; i < n; i++)
		answers[i].node = &nodes[i];
	talk(d, a, answers, n, p, line, timeout_ms);
	*ret = answers;
	return 0;
}

void order_answers_free(struct order_answer *answers, size_t n)
{
	for (size_t i = 0; i < n; i++)
		json_decref(answers[i].result);
	free(answers);
}
