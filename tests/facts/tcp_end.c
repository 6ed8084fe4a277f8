// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tcp_end.c - how a TCP connection has ended, for who comes later than the error
 *
 * The end of the go connection without a word is a proof only when it was an orderly one (agent/doubt.c). A reset is told once: who reads after that gets 0 bytes,
 * as at an orderly end. The state (TCP_INFO) tells them apart for good: CLOSE_WAIT after the other side's FIN, CLOSE after a reset, also one behind a FIN.
 */
#include "fact.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static void pair(int fd[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	MUST(listener >= 0 && bind(listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(listener, 1) == 0);
	MUST(getsockname(listener, (struct sockaddr *)&a, &len) == 0);
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	MUST(connect(fd[0], (struct sockaddr *)&a, sizeof(a)) == 0);
	fd[1] = accept(listener, NULL, NULL);
	MUST(fd[1] >= 0);
	close(listener);
}

static int state_of(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	return info.tcpi_state;
}

static void reset(int fd)
{
	const struct linger now = { 1, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

int main(void)
{
	int fd[2];
	ssize_t n;
	char c;

	pair(fd);
	close(fd[1]);
	WAIT_FOR(state_of(fd[0]) != TCP_ESTABLISHED);
	n = recv(fd[0], &c, 1, MSG_PEEK);
	FACT(n == 0 && state_of(fd[0]) == TCP_CLOSE_WAIT, "an orderly end: recv says %zd, the state is %d (CLOSE_WAIT: %d)", n, state_of(fd[0]), TCP_CLOSE_WAIT);

	pair(fd);
	reset(fd[1]);
	WAIT_FOR(state_of(fd[0]) != TCP_ESTABLISHED);
	n = recv(fd[0], &c, 1, MSG_PEEK);
	FACT(n < 0 && errno == ECONNRESET, "a reset: the first recv says %zd, %s", n, strerror(errno));
	n = recv(fd[0], &c, 1, MSG_PEEK);
	FACT(n == 0 && state_of(fd[0]) == TCP_CLOSE, "the second one says %zd, as at an orderly end; the state is %d (CLOSE: %d)", n, state_of(fd[0]), TCP_CLOSE);

	pair(fd);
	MUST(send(fd[0], "go", 2, 0) == 2);
	shutdown(fd[1], SHUT_WR);
	WAIT_FOR(state_of(fd[0]) == TCP_CLOSE_WAIT);
	close(fd[1]); /* with bytes that nobody has read */
	WAIT_FOR(state_of(fd[0]) == TCP_CLOSE);
	FACT(state_of(fd[0]) == TCP_CLOSE, "a reset behind an orderly end: the state is %d", state_of(fd[0]));
	return fact_result();
}
