// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tcp_pair.c - what src/image/socket_tcp*.c rely on about TCP connections that are made without a handshake (TCP_REPAIR)
 *
 * Two sockets of one host become the ends of a connection by a bind and a connect in repair mode each; any sequence numbers will do when those
 * of one are the other's. Data, urgent data and ends of stream then travel as ever. A repair-mode connect computes the segment size from the
 * default of 536 bytes; setting IP options anew computes it again. A socket that is disconnected in repair mode sends nothing.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "fact.h"

struct repair_opt {
	unsigned int code, value;
};

static void set(int fd, int level, int name, int value)
{
	MUST(setsockopt(fd, level, name, &value, sizeof(value)) == 0);
}

static int get(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	MUST(getsockopt(fd, level, name, &value, &len) == 0);
	return value;
}

static int state_of(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	return info.tcpi_state;
}

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void seq(int fd, int queue, unsigned value)
{
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
	set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)value);
}

static int end(int from, int to, unsigned send, unsigned receive)
{
	struct repair_opt opts[] = { { 2, 65483 }, { 4, 0 }, { 8, 0 }, { 3, 7 | 7 << 16 } };
	struct tcp_repair_window w = { .snd_wl1 = receive, .snd_wnd = 400000, .max_window = 400000, .rcv_wnd = 400000, .rcv_wup = receive };
	struct sockaddr_in local = loopback(from), peer = loopback(to);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	MUST(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
	set(fd, SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20);
	set(fd, SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20);
	set(fd, IPPROTO_TCP, TCP_REPAIR, 1);
	MUST(bind(fd, (void *)&local, sizeof(local)) == 0);
	seq(fd, TCP_SEND_QUEUE, send);
	seq(fd, TCP_RECV_QUEUE, receive);
	MUST(connect(fd, (void *)&peer, sizeof(peer)) == 0);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, opts, sizeof(opts)) == 0);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &w, sizeof(w)) == 0);
	set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	return fd;
}

static void pair(int port, int fd[2])
{
	fd[0] = end(port, port + 1, 1000, 5000000);
	fd[1] = end(port + 1, port, 5000000, 1000);
}

/* Silently. */
static void forget(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	set(fd, IPPROTO_TCP, TCP_REPAIR, 1);
	MUST(connect(fd, &none, sizeof(none)) == 0);
	close(fd);
}

static void traffic(void)
{
	static char data[300000], got[300000];
	int fd[2], have = -1;
	char c = 0;

	pair(4000, fd);
	FACT(state_of(fd[0]) == TCP_ESTABLISHED && state_of(fd[1]) == TCP_ESTABLISHED, "both ends are ESTABLISHED");
	FACT(get(fd[0], IPPROTO_TCP, TCP_MAXSEG) < 537, "the segment size is computed from the default (%d)", get(fd[0], IPPROTO_TCP, TCP_MAXSEG));
	MUST(setsockopt(fd[0], IPPROTO_IP, IP_OPTIONS, NULL, 0) == 0);
	FACT(get(fd[0], IPPROTO_TCP, TCP_MAXSEG) > 30000, "IP options set anew: %d", get(fd[0], IPPROTO_TCP, TCP_MAXSEG));
	memset(data, 'x', sizeof(data));
	FACT(send(fd[0], data, sizeof(data), 0) == sizeof(data), "all that the window admits can be sent at once");
	FACT(ioctl(fd[1], FIONREAD, &have) == 0 && have == sizeof(data), "and has arrived when the call returns (%d)", have);
	FACT(recv(fd[1], got, sizeof(got), 0) == sizeof(got), "and can be read");
	MUST(send(fd[1], "a!", 2, MSG_OOB) == 2 && send(fd[1], "b", 1, 0) == 1);
	FACT(recv(fd[0], &c, 1, MSG_OOB) == 1 && c == '!', "urgent data arrives");
	shutdown(fd[0], SHUT_WR);
	FACT(state_of(fd[1]) == TCP_CLOSE_WAIT, "an end of stream arrives at once, too; its acknowledgement may take 40 ms");
	forget(fd[0]);
	FACT(state_of(fd[1]) == TCP_CLOSE_WAIT, "a disconnect in repair mode sends nothing");
	shutdown(fd[1], SHUT_WR);
	FACT(state_of(fd[1]) == TCP_CLOSE, "who then ends the stream is reset");
	FACT(get(fd[1], SOL_SOCKET, SO_ERROR) != 0 && get(fd[1], SOL_SOCKET, SO_ERROR) == 0, "which is an error that can be taken away");
	close(fd[1]);
	pair(4000, fd);
	FACT(true, "and the pair of ports is free again");
	forget(fd[0]);
	forget(fd[1]);
}

static void reset_keeps_data(void)
{
	struct linger now = { 1, 0 };
	char got[8];
	int fd[2];

	pair(4010, fd);
	MUST(send(fd[0], "abc", 3, 0) == 3);
	MUST(setsockopt(fd[0], SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
	close(fd[0]);
	FACT(state_of(fd[1]) == TCP_CLOSE, "a reset closes");
	FACT(recv(fd[1], got, sizeof(got), 0) == 3, "what had arrived before can still be read");
	FACT(recv(fd[1], got, sizeof(got), 0) < 0 && errno == ECONNRESET, "then comes the error");
	FACT(recv(fd[1], got, sizeof(got), 0) == 0, "once");
	close(fd[1]);
}

static void peeking(void)
{
	char got[16] = "";
	int fd[2], off = 1;

	pair(4020, fd);
	MUST(send(fd[0], "abc!", 4, MSG_OOB) == 4 && send(fd[0], "def", 3, 0) == 3);
	set(fd[1], SOL_SOCKET, SO_PEEK_OFF, off);
	FACT(recv(fd[1], got, sizeof(got), MSG_PEEK) == 2 && !memcmp(got, "bc", 2), "a peek begins at SO_PEEK_OFF and ends before the urgent byte");
	set(fd[1], SOL_SOCKET, SO_PEEK_OFF, 4);
	FACT(recv(fd[1], got, sizeof(got), MSG_PEEK) == 3 && !memcmp(got, "def", 3), "or begins behind it");
	FACT(recv(fd[1], got, 1, MSG_PEEK | MSG_OOB) == 1 && got[0] == '!', "the urgent byte can be peeked at");
	set(fd[1], SOL_SOCKET, SO_PEEK_OFF, -1);
	FACT(recv(fd[1], got, sizeof(got), 0) == 3, "and nothing is gone");
	forget(fd[0]);
	forget(fd[1]);
}

int main(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };

	MUST(unshare(CLONE_NEWNET) == 0);
	MUST(ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &lo) == 0);
	traffic();
	reset_keeps_data();
	peeking();
	return fact_failures ? 1 : 0;
}
