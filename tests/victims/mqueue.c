// SPDX-License-Identifier: GPL-2.0-or-later
/* mqueue.c - victims with POSIX message queues: names, attributes, messages in the order of their priorities, threads that wait */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "victim.h"

#define MESSAGES 9
#define BYTES 700

static mqd_t named, reader, nameless, full;
static char name[64];

static mqd_t make(const char *suffix, long messages, long bytes, int mode)
{
	struct mq_attr attr = { .mq_maxmsg = messages, .mq_msgsize = bytes };
	mqd_t q;

	snprintf(name, sizeof(name), "/victim-%d%s", getpid(), suffix);
	q = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode, &attr);
	must(q >= 0);
	return q;
}

static size_t length_of(int i)
{
	return i == 4 ? 0 : (size_t)(i * 91) % BYTES + 1;
}

static void messages_setup(void)
{
	char data[BYTES];

	nameless = make("-nameless", 3, 64, 0600);
	must(!mq_send(nameless, "nobody", 6, 0) && !mq_unlink(name));
	full = make("-full", 2, 8, 0600);
	must(!mq_send(full, "one", 3, 5) && !mq_send(full, "two", 3, 5));
	named = make("", 10, BYTES, 0640);
	must(!fchmod(named, 0604));
	reader = mq_open(name, O_RDONLY | O_NONBLOCK);
	must(reader >= 0);
	for (int i = 0; i < MESSAGES; i++) {
		fill(data, sizeof(data), (uint64_t)i);
		must(!mq_send(named, data, length_of(i), (unsigned)(i % 3) * 100));
	}
}

static void expect_message(mqd_t q, const char *text, unsigned priority)
{
	char data[BYTES];
	unsigned got = 0;
	ssize_t n = mq_receive(q, data, sizeof(data), &got);

	if (n != (ssize_t)strlen(text) || memcmp(data, text, (size_t)n))
		fail("message, expected %s, got %zd bytes (errno %d)", text, n, errno);
	expect_u64("priority", priority, got);
}

static void messages_check(void)
{
	char data[BYTES];
	struct mq_attr attr;
	struct stat st;
	unsigned priority;
	mqd_t again = mq_open(name, O_RDONLY | O_NONBLOCK);

	expect(again >= 0 && !mq_getattr(again, &attr));
	expect_u64("messages by the name", MESSAGES, (uint64_t)attr.mq_curmsgs);
	expect(!mq_getattr(reader, &attr) && attr.mq_flags == O_NONBLOCK && attr.mq_maxmsg == 10 && attr.mq_msgsize == BYTES);
	expect(!mq_getattr(named, &attr) && attr.mq_flags == 0);
	expect(!fstat(named, &st));
	expect_u64("mode", 0604, st.st_mode & 0777u);
	for (int level = 2; level >= 0; level--)
		for (int i = level; i < MESSAGES; i += 3) {
			expect(mq_receive(reader, data, sizeof(data), &priority) == (ssize_t)length_of(i));
			expect_u64("priority", (uint64_t)level * 100, priority);
			verify("message", data, length_of(i), (uint64_t)i);
		}
	expect(mq_receive(reader, data, sizeof(data), NULL) < 0 && errno == EAGAIN);
	expect_message(full, "one", 5);
	expect_message(full, "two", 5);
	expect(!fstat(nameless, &st) && st.st_nlink == 0);
	expect_message(nameless, "nobody", 0);
	mq_unlink(name);
	snprintf(name, sizeof(name), "/victim-%d-full", getpid());
	mq_unlink(name);
}

VICTIM(mqueue_messages, 0, messages_setup, NULL, messages_check);

/* ---- a stream through a queue, and a reader that waits with a limit ---- */

static uint64_t sent, received;
static mqd_t quiet;

static void *stream_reader(void *arg)
{
	uint64_t x;

	while (mq_receive(named, (char *)&x, sizeof(x), NULL) == sizeof(x) && x)
		expect_u64("stream of messages", ++received, x);
	return NULL;
}

static void *limited_reader(void *arg)
{
	char data[8];

	while (!victim_stopping) {
		struct timespec limit;
		uint64_t begin = now_ns(CLOCK_MONOTONIC);

		clock_gettime(CLOCK_REALTIME, &limit);
		limit.tv_sec += 2;
		expect(mq_timedreceive(quiet, data, sizeof(data), NULL, &limit) < 0 && errno == ETIMEDOUT);
		expect(now_ns(CLOCK_MONOTONIC) - begin >= 1900000000ull);
	}
	return NULL;
}

static void wait_setup(void)
{
	quiet = make("-quiet", 1, 8, 0600);
	must(!mq_unlink(name));
	named = make("-stream", 4, 8, 0600);
	must(!mq_unlink(name));
	spawn(stream_reader, NULL, NULL);
	spawn(limited_reader, NULL, NULL);
}

/* May wait in mq_send(3): the signal that asks for the check would end that. */
static void wait_work(void)
{
	uint64_t x = ++sent;

	expect(!mq_send(named, (char *)&x, sizeof(x), 0));
	usleep(300);
}

static void wait_check(void)
{
	uint64_t end = 0;

	expect(!mq_send(named, (char *)&end, sizeof(end), 0));
	join_all();
	expect_u64("messages received", sent, received);
}

VICTIM(mqueue_wait, V_CHECK_FILE, wait_setup, wait_work, wait_check);
