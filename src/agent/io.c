/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* io.c - whole messages on sockets, for the freestanding agent */
#include "sys.h"

long read_all(int fd, void *to, uint64_t len)
{
	uint8_t *p = to;

	while (len) {
		long n = sys(__NR_recvfrom, fd, (long)p, (long)len, 0);

		if (n == E_INTR)
			continue;
		if (n == E_AGAIN) {
			struct poll_fd wait = { fd, POLL_IN, 0 };
			sys(__NR_poll, (long)&wait, 1, -1);
			continue;
		}
		if (n <= 0)
			return n ? n : E_PIPE;
		p += n;
		len -= (uint64_t)n;
	}
	return 0;
}

void message_advance(struct msg_hdr *m, uint64_t n)
{
	while (n && m->iovlen) {
		if (n < m->iov->len) {
			m->iov->base += n;
			m->iov->len -= n;
			return;
		}
		n -= m->iov->len;
		m->iov++;
		m->iovlen--;
	}
}

long send_all(int fd, struct msg_hdr *m)
{
	while (m->iovlen) {
		long n = sys(__NR_sendmsg, fd, (long)m, MSG_NOSIGNAL_FLAG);

		if (n == E_INTR)
			continue;
		if (n == E_AGAIN) /* a blocking socket with SO_SNDTIMEO: the other side has taken nothing for so long */
			return E_TIMEDOUT;
		if (n < 0)
			return n;
		message_advance(m, (uint64_t)n);
	}
	return 0;
}
