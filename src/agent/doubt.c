/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * doubt.c - who owns the process, for an agent whose worker has died after the go message
 *
 * Theory of operation: the destination answers on the go connection with one word: resumed, or given up. The connection's orderly end without a word is a proof as
 * well, because the other end is held by all who could still let the process run there. Any error proves nothing, a reset neither (the destination
 * may have given up a connection that it had already answered on). Then the destination's daemon is asked, as the worker would have done
 * (migrate/outcome.h), with a HELLO frame that the worker has left in the scratch; as long as it does not answer, the process stands still.
 */
#include "sys.h"

#define AF_INET_FAMILY 2
#define SOCK_STREAM_CLOEXEC (1 | 02000000)
#define SOL_SOCKET_LEVEL 1
#define SO_RCVTIMEO_OPTION 20
#define SO_SNDTIMEO_OPTION 21
#define ASK_TIMEOUT_S 3
#define FRAME_HEADER 16u
#define FRAME_ANSWER_TYPE 12u
#define ANSWER_MAX 496u
#define TAG_OUTCOME 0x08
#define TAG_BOOT_ID 0x12
#define OUTCOME_PENDING_NUMBER 1
#define OUTCOME_COMMITTED_NUMBER 3

/* The first field of the message Answer: a tag and a number below 128; left out when 0, so that the boot id comes first. Anything else is no answer. */
static int parse_answer(const uint8_t *frame)
{
	const uint8_t *payload = frame + FRAME_HEADER;
	uint32_t len;

	__builtin_memcpy(&len, frame + 8, sizeof(len));
	if (len >= 2 && payload[0] == TAG_OUTCOME && payload[1] <= OUTCOME_COMMITTED_NUMBER)
		return payload[1];
	return len >= 2 && payload[0] == TAG_BOOT_ID ? 0 : E_PROTO;
}

static long receive_answer(int fd, uint8_t *frame)
{
	static const uint8_t magic[6] = { 'G', 'D', 'W', '1', FRAME_ANSWER_TYPE, 0 };
	uint32_t got = 0, want = FRAME_HEADER, len;

	while (got < want) {
		long n = sys(__NR_recvfrom, fd, (long)(frame + got), want - got, 0);

		if (n == E_INTR)
			continue;
		if (n <= 0)
			return n ? n : E_PIPE;
		got += (uint32_t)n;
		if (got != FRAME_HEADER || want != FRAME_HEADER)
			continue;
		for (uint32_t i = 0; i < sizeof(magic); i++)
			if (frame[i] != magic[i])
				return E_PROTO;
		__builtin_memcpy(&len, frame + 8, sizeof(len));
		if (len > ANSWER_MAX)
			return E_PROTO;
		want += len;
	}
	return parse_answer(frame);
}

/* One question: the outcome's number, or a negative error. */
static long ask(struct scratch_header *h)
{
	const long timeout[2] = { ASK_TIMEOUT_S, 0 };
	struct io_vec iov = { h->ask, h->ask_len };
	long fd = sys(__NR_socket, AF_INET_FAMILY, SOCK_STREAM_CLOEXEC, 0), n;
	struct msg_hdr m;

	if (fd < 0)
		return fd;
	sys(__NR_setsockopt, fd, SOL_SOCKET_LEVEL, SO_RCVTIMEO_OPTION, (long)timeout, sizeof(timeout));
	sys(__NR_setsockopt, fd, SOL_SOCKET_LEVEL, SO_SNDTIMEO_OPTION, (long)timeout, sizeof(timeout));
	memset(&m, 0, sizeof(m));
	m.iov = &iov;
	m.iovlen = 1;
	n = sys(__NR_connect, fd, (long)h->ask_address, sizeof(h->ask_address));
	if (n == 0)
		n = send_all((int)fd, &m);
	if (n == 0)
		n = receive_answer((int)fd, agent_buffers(h)->message);
	sys(__NR_close, fd);
	return n;
}

int doubt_resolve(struct scratch_header *h)
{
	const long pause[2] = { 0, 300000000 };
	uint64_t word = 0;
	long n = h->go_fd >= 0 && !h->go_broken ? read_all(h->go_fd, &word, sizeof(word)) : E_PROTO;

	if (n == 0 && (word == GO_RESUMED || word == GO_ABORTED))
		return word == GO_RESUMED;
	if (n == E_PIPE)
		return 0;
	for (;;) {
		if (h->tgid > 0 && sys(__NR_kill, h->tgid, 0) == E_SRCH)
			return 0; /* somebody has killed it meanwhile */
		n = h->ask_len ? ask(h) : E_PROTO;
		if (n >= 0 && n != OUTCOME_PENDING_NUMBER)
			return n == OUTCOME_COMMITTED_NUMBER;
		sys(__NR_nanosleep, (long)pause, 0);
	}
}
