// SPDX-License-Identifier: GPL-2.0-or-later
/* test_home.c - the link between home and a unit's host: messages across broken connections, relayed pipes */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "home/channel.h"

struct side {
	struct session session;
	struct channels channels;
	unsigned got[256];
	size_t n;
};

static void handle(void *arg, const Gw__HomeMessage *m)
{
	struct side *s = arg;

	if (m->kind == GW__HOME_KIND__HOME_SIGNAL)
		s->got[s->n++] = m->signal;
	else
		channels_handle(&s->channels, m, &s->session);
}

static void link_sides(struct side *a, struct side *b)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	session_attach(&a->session, pair[0]);
	session_attach(&b->session, pair[1]);
}

static void step(struct side *s)
{
	struct pollfd p[8];

	channels_poll(&s->channels, p);
	poll(p, s->channels.n, 0);
	channels_step(&s->channels, p, &s->session);
	session_input(&s->session, handle, s, NULL);
	session_output(&s->session, NULL);
}

static void settle(struct side *a, struct side *b)
{
	for (int i = 0; i < 200; i++) {
		step(a);
		step(b);
	}
}

static void send_signal(struct side *s, unsigned number)
{
	Gw__HomeMessage m = GW__HOME_MESSAGE__INIT;

	m.kind = GW__HOME_KIND__HOME_SIGNAL;
	m.signal = number;
	session_send(&s->session, &m);
}

static void test_each_once(void **state)
{
	static struct side a, b;

	(void)state;
	a.session = b.session = SESSION_INIT;
	send_signal(&a, 1); /* before there is a connection */
	link_sides(&a, &b);
	settle(&a, &b);
	send_signal(&a, 2);
	session_output(&a.session, NULL);
	session_input(&b.session, handle, &b, NULL); /* handled, but its acknowledgement is lost */
	session_detach(&a.session);
	session_detach(&b.session);
	send_signal(&a, 3);
	link_sides(&a, &b);
	settle(&a, &b);
	assert_int_equal(b.n, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(b.got[i], i + 1);
	assert_true(session_settled(&a.session));
	session_free(&a.session);
	session_free(&b.session);
}

static void test_another_peer(void **state)
{
	static struct side a, b, c;

	(void)state;
	a.session = b.session = c.session = SESSION_INIT;
	link_sides(&a, &b);
	settle(&a, &b);
	send_signal(&a, 1);
	settle(&a, &b);
	send_signal(&a, 2);
	send_signal(&a, 3);
	session_renew(&a.session, b.session.handled);
	link_sides(&a, &c);
	settle(&a, &c);
	assert_int_equal(c.n, 2);
	assert_int_equal(c.got[0], 2);
	assert_int_equal(c.got[1], 3);
	session_free(&a.session);
	session_free(&b.session);
	session_free(&c.session);
}

/* A pipe that is cut in two: writer -> [w | home reads] ... [away writes | r] -> reader. */
struct cut {
	struct side home, away;
	int writer, reader;
};

static void make_cut(struct cut *c)
{
	int at_home[2], there[2];

	memset(c, 0, sizeof(*c));
	c->home.session = c->away.session = SESSION_INIT;
	assert_int_equal(pipe2(at_home, O_CLOEXEC), 0);
	assert_int_equal(pipe2(there, O_CLOEXEC), 0);
	c->writer = at_home[1];
	c->reader = there[0];
	fcntl(c->writer, F_SETFL, O_WRONLY | O_NONBLOCK);
	fcntl(c->reader, F_SETFL, O_RDONLY | O_NONBLOCK);
	assert_int_equal(channels_add(&c->home.channels, 7, CHANNEL_READS, at_home[0], NULL), 0);
	assert_int_equal(channels_add(&c->away.channels, 7, CHANNEL_WRITES, there[1], NULL), 0);
	link_sides(&c->home, &c->away);
	settle(&c->home, &c->away);
}

static void free_cut(struct cut *c)
{
	channels_close(&c->home.channels);
	channels_close(&c->away.channels);
	session_free(&c->home.session);
	session_free(&c->away.session);
	close(c->reader);
	close(c->writer);
}

static void test_data_and_end(void **state)
{
	static struct cut c;
	char text[16] = "";

	(void)state;
	make_cut(&c);
	assert_int_equal(write(c.writer, "hello", 5), 5);
	settle(&c.home, &c.away);
	assert_int_equal(read(c.reader, text, sizeof(text)), 5);
	assert_string_equal(text, "hello");
	assert_int_equal(read(c.reader, text, sizeof(text)), -1);
	assert_int_equal(errno, EAGAIN);
	write(c.writer, "bye", 3);
	close(c.writer);
	settle(&c.home, &c.away);
	assert_int_equal(read(c.reader, text, sizeof(text)), 3);
	assert_int_equal(read(c.reader, text, sizeof(text)), 0);
	free_cut(&c);
}

static void test_back_pressure(void **state)
{
	static struct cut c;
	static char block[4096];
	size_t in = 0, out = 0;
	ssize_t n;

	(void)state;
	make_cut(&c);
	for (int i = 0; i < 300; i++) {
		while ((n = write(c.writer, block, sizeof(block))) > 0)
			in += (size_t)n;
		settle(&c.home, &c.away);
		if (i == 5)
			assert_true(in <= 3 * 65536 + 65536); /* two pipes and what is on its way */
		if (i > 5)
			for (int k = 0; k < 8 && (n = read(c.reader, block, sizeof(block))) > 0; k++)
				out += (size_t)n;
	}
	for (int i = 0; i < 50; i++) {
		while ((n = read(c.reader, block, sizeof(block))) > 0)
			out += (size_t)n;
		settle(&c.home, &c.away);
	}
	assert_int_equal(in, out);
	free_cut(&c);
}

static void test_broken(void **state)
{
	static struct cut c;

	(void)state;
	make_cut(&c);
	close(c.reader);
	settle(&c.home, &c.away);
	assert_int_equal(write(c.writer, "x", 1), -1);
	assert_int_equal(errno, EPIPE);
	free_cut(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_once), cmocka_unit_test(test_another_peer), cmocka_unit_test(test_data_and_end),
		cmocka_unit_test(test_back_pressure), cmocka_unit_test(test_broken),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
