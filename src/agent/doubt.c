/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * doubt.c - who owns the process, for an agent whose worker has died after the go message
 *
 * Theory of operation: the destination answers on the go connection with one word: resumed, or given up. The connection's orderly end without a word is a proof as
 * well, because the other end is held by all who could still let the process run there. Any error proves nothing, a reset neither (the destination
 * may have given up a connection that it had already answered on). Then the destination's daemon is asked, as the worker would have done
 * (migrate/outcome.h), with a HELLO frame that the worker has left in the scratch, over a socket that it has made: the process may be in a network namespace from
 * which that host cannot be reached. As long as it does not answer, the process stands still.
 *
 * With several processes each agent does this. What they find is the same, and the first to write it into the unit's state decides. What follows from what is heard
 * says handover.h.
 */
#include "sys.h"

#define FRAME_HEADER 16u
#define FRAME_ANSWER_TYPE 12u
#define ANSWER_MAX 496u
#define TAG_OUTCOME 0x08
#define TAG_BOOT_ID 0x12
#define ANSWERS (NEWS_ANSWER_COMMITTED - NEWS_ANSWER_UNKNOWN + 1) /* their numbers in the message are in the order of handover.h */

/* The first field of the message Answer: a tag and a number below 128; left out when 0, so that the boot id comes first. Anything else is no answer. */
static long parse_answer(const uint8_t *frame)
{
	const uint8_t *payload = frame + FRAME_HEADER;
	uint32_t len;

	__builtin_memcpy(&len, frame + 8, sizeof(len));
	if (len >= 2 && payload[0] == TAG_OUTCOME && payload[1] < ANSWERS)
		return NEWS_ANSWER_UNKNOWN + payload[1];
	return len >= 2 && payload[0] == TAG_BOOT_ID ? NEWS_ANSWER_UNKNOWN : E_PROTO;
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

/* One question: what is heard (enum handover_news), or a negative error. */
static long ask(struct scratch_header *h)
{
	const uint64_t nowhere[2] = { 0 }; /* AF_UNSPEC: whatever became of the connection, the socket can be connected again */
	struct io_vec iov = { h->ask, h->ask_len };
	int relayed = !h->ask_address[0] && !h->ask_address[1]; /* a relay connects, each time that something is sent (wire/tls.h) */
	long fd = h->ask_fd, n;
	struct msg_hdr m;

	memset(&m, 0, sizeof(m));
	m.iov = &iov;
	m.iovlen = 1;
	n = relayed ? 0 : sys(__NR_connect, fd, (long)h->ask_address, sizeof(h->ask_address));
	if (n == 0)
		n = send_all((int)fd, &m);
	if (n == 0)
		n = receive_answer((int)fd, agent_buffers(h)->message);
	if (!relayed)
		sys(__NR_connect, fd, (long)nowhere, sizeof(nowhere));
	return n;
}

/*
 * An end after an error reads like any other, once somebody has taken the error; the connection's state still tells. After a shutdown of this end (stub.c) it does not, and
 * the daemon is asked. Of a relayed connection (wire/tls.h) poll(2) tells: the relay shuts down after an orderly end, and closes after any other.
 */
static enum handover_news how_it_ended(int fd)
{
	uint8_t info[8] = { 0 }; /* struct tcp_info: the state comes first */
	uint32_t len = sizeof(info);
	struct poll_fd p = { fd, POLL_RDHUP, 0 };

	if (sys(__NR_getsockopt, fd, LEVEL_TCP, TCP_INFO_OPTION, (long)info, (long)&len) < 0)
		return sys(__NR_poll, (long)&p, 1, 0) == 1 && p.revents == POLL_RDHUP ? NEWS_ORDERLY_END : NEWS_BROKEN;
	return info[0] == TCP_STATE_CLOSE_WAIT ? NEWS_ORDERLY_END : NEWS_BROKEN;
}

/* The word on the go connection is only looked at, so that the agents of all processes of the unit find it. */
static enum handover_news peek_go(struct scratch_header *h)
{
	uint64_t word = 0;
	long n;

	if (h->go_fd < 0)
		return NEWS_BROKEN;
	do
		n = sys(__NR_recvfrom, h->go_fd, (long)&word, sizeof(word), MSG_PEEK_FLAG | MSG_WAITALL_FLAG);
	while (n == E_INTR);
	if (n == 0)
		return how_it_ended(h->go_fd);
	if (n == sizeof(word) && (word == GO_RESUMED || word == GO_ABORTED))
		return word == GO_RESUMED ? NEWS_WORD_RESUMED : NEWS_WORD_ABORTED;
	return NEWS_BROKEN;
}

long signal_process(const struct scratch_header *h, long signal)
{
	return h->process_pidfd >= 0 ? sys(__NR_pidfd_send_signal, h->process_pidfd, signal, 0, 0) : sys(__NR_kill, h->tgid, signal);
}

int doubt_resolve(struct scratch_header *h)
{
	const long pause[2] = { 0, 300000000 };
	enum handover_step step = handover_hear(peek_go(h));

	while (step == HANDOVER_ASK) {
		long n;

		if (load_acquire(&unit_page(h)->state) != STATE_IN_DOUBT || (h->tgid > 0 && signal_process(h, 0) == E_SRCH))
			return DOUBT_MOOT;
		n = h->ask_len && h->ask_fd >= 0 ? ask(h) : E_PROTO;
		step = handover_hear(n >= 0 ? (enum handover_news)n : NEWS_BROKEN);
		if (step == HANDOVER_ASK)
			sys(__NR_nanosleep, (long)pause, 0);
	}
	return (int)step;
}
