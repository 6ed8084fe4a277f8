// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tcp_remake.c - what src/image/tcp_outside*.c rely on: a connection goes on with another socket, on a host that does not have its address
 *
 * Three hosts as network namespaces: the peer, which knows nothing; the source, whose address 10.9.0.2 is; the destination, to which the peer's packets are led from some
 * moment on, and which delivers them by a rule. Numbers are set in repair mode with IP_TRANSPARENT. What has been sent and not acknowledged goes into the send queue in repair
 * mode, the rest is sent afterwards. An end of stream that has been acknowledged comes as a forged segment through lo, by a mark. A socket that is closed in
 * repair mode sends nothing. A connect goes on with the number of the first attempt when that has been set in repair mode before.
 */
#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "fact.h"

#ifndef TCP_REPAIR_OFF_NO_WP
#define TCP_REPAIR_OFF_NO_WP (-1)
#endif

struct repair_opt {
	unsigned int code, value;
};

static int ns_peer, ns_source, ns_dest;

static void set(int fd, int level, int name, int value)
{
	MUST(setsockopt(fd, level, name, &value, sizeof(value)) == 0);
}

static unsigned get(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	MUST(getsockopt(fd, level, name, &value, &len) == 0);
	return (unsigned)value;
}

static int state_of(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	return info.tcpi_state;
}

static void enter(int ns)
{
	MUST(setns(ns, CLONE_NEWNET) == 0);
}

static int make_ns(void)
{
	int fd;

	MUST(unshare(CLONE_NEWNET) == 0);
	fd = open("/proc/self/ns/net", O_RDONLY);
	MUST(fd >= 0 && system("ip link set dev lo up") == 0);
	return fd;
}

static void sh(int ns, const char *commands)
{
	enter(ns);
	MUST(system(commands) == 0);
}

static void make_hosts(void)
{
	char text[512];

	ns_source = make_ns();
	ns_dest = make_ns();
	ns_peer = make_ns();
	snprintf(text, sizeof(text), "ip link add ps type veth peer name s netns /proc/%d/fd/%d && ip link add pd type veth peer name d netns /proc/%d/fd/%d", getpid(), ns_source, getpid(), ns_dest);
	sh(ns_peer, text);
	sh(ns_peer, "ip addr add 10.9.0.1/32 dev lo && ip link set dev ps up && ip link set dev pd up && ip route add 10.9.0.2 dev ps src 10.9.0.1 && ip route add 10.9.0.3 dev pd src 10.9.0.1 && "
		"sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.ps.rp_filter=0 net.ipv4.conf.pd.rp_filter=0");
	sh(ns_source, "ip addr add 10.9.0.2/32 dev s && ip link set dev s up && ip route add 10.9.0.1 dev s");
	sh(ns_dest, "ip addr add 10.9.0.3/32 dev d && ip link set dev d up && ip route add 10.9.0.1 dev d && ip rule add iif d pref 10 lookup 100 && ip rule add fwmark 1 pref 11 lookup 100 && "
		"ip route add local 0.0.0.0/0 dev lo table 100 && sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.d.rp_filter=0 net.ipv4.conf.lo.rp_filter=0 net.ipv4.conf.d.proxy_arp=1 "
		"net.ipv4.conf.all.accept_local=1");
}

static struct sockaddr_in at(const char *address, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	inet_pton(AF_INET, address, &a.sin_addr);
	return a;
}

/* The server at the source, the client at the peer. */
static void make(int port, int *client, int *server)
{
	struct sockaddr_in a = at("10.9.0.2", port);
	int listener;

	enter(ns_source);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	MUST(bind(listener, (void *)&a, sizeof(a)) == 0 && listen(listener, 8) == 0);
	enter(ns_peer);
	*client = socket(AF_INET, SOCK_STREAM, 0);
	MUST(connect(*client, (void *)&a, sizeof(a)) == 0);
	*server = accept(listener, NULL, NULL);
	MUST(*server >= 0);
	close(listener);
}

struct taken {
	unsigned snd, rcv, ts;
	char in[64], out[64];
	int n_in, n_out;
	struct tcp_repair_window w;
	struct sockaddr_in local, peer;
};

static unsigned seq_of(int fd, int queue)
{
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
	return get(fd, IPPROTO_TCP, TCP_QUEUE_SEQ);
}

/* fin: of the peer, which counts as one. */
static struct taken take(int fd)
{
	struct taken t = { 0 };
	socklen_t len = sizeof(t.w), alen = sizeof(t.local);

	set(fd, IPPROTO_TCP, TCP_REPAIR, 1);
	t.snd = seq_of(fd, TCP_SEND_QUEUE);
	t.n_out = (int)recv(fd, t.out, sizeof(t.out), MSG_PEEK | MSG_DONTWAIT);
	t.rcv = seq_of(fd, TCP_RECV_QUEUE);
	t.n_in = (int)recv(fd, t.in, sizeof(t.in), MSG_PEEK | MSG_DONTWAIT);
	t.n_in = t.n_in < 0 ? 0 : t.n_in;
	t.n_out = t.n_out < 0 ? 0 : t.n_out;
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &t.w, &len) == 0);
	t.ts = get(fd, IPPROTO_TCP, TCP_TIMESTAMP);
	MUST(getsockname(fd, (void *)&t.local, &alen) == 0 && getpeername(fd, (void *)&t.peer, &alen) == 0);
	return t;
}

static int remake(const struct taken *t)
{
	struct repair_opt opts[] = { { 2, 1460 }, { 4, 0 }, { 8, 0 }, { 3, 7 | 7 << 16 } };
	int fd;

	enter(ns_dest);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
	set(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
	set(fd, IPPROTO_TCP, TCP_REPAIR, 1);
	set(fd, IPPROTO_TCP, TCP_MAXSEG, 1460);
	MUST(bind(fd, (void *)&t->local, sizeof(t->local)) == 0);
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)(t->snd - (unsigned)t->n_out));
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
	set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, (int)(t->rcv - (unsigned)t->n_in));
	MUST(connect(fd, (void *)&t->peer, sizeof(t->peer)) == 0);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, opts, sizeof(opts)) == 0);
	set(fd, IPPROTO_TCP, TCP_TIMESTAMP, (int)((t->ts + 3) & ~1u));
	if (t->n_in)
		MUST(send(fd, t->in, (size_t)t->n_in, 0) == t->n_in);
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	if (t->n_out)
		MUST(send(fd, t->out, (size_t)t->n_out, 0) == t->n_out);
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &t->w, sizeof(t->w)) == 0);
	return fd;
}

static void lead(bool to_dest)
{
	sh(ns_peer, to_dest ? "ip route replace 10.9.0.2 dev pd src 10.9.0.1" : "ip route replace 10.9.0.2 dev ps src 10.9.0.1");
}

static bool comes(int fd, const char *text)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char got[64] = "";

	if (poll(&p, 1, 3000) != 1 || recv(fd, got, sizeof(got), MSG_DONTWAIT) < 0)
		return false;
	return !strcmp(got, text);
}

static unsigned short sum(const void *data, size_t len, unsigned acc)
{
	const unsigned short *w = data;

	for (; len > 1; len -= 2)
		acc += *w++;
	if (len)
		acc += *(const unsigned char *)w;
	while (acc >> 16)
		acc = (acc & 0xffff) + (acc >> 16);
	return (unsigned short)acc;
}

/* As if the peer had sent it. */
static void forge(const struct taken *t, unsigned seq, unsigned ack, bool fin)
{
	struct {
		struct iphdr ip;
		struct tcphdr tcp;
	} __attribute__((packed)) p = { 0 };
	struct {
		unsigned from, to;
		unsigned char zero, protocol;
		unsigned short len;
	} __attribute__((packed)) pseudo = { t->peer.sin_addr.s_addr, t->local.sin_addr.s_addr, 0, IPPROTO_TCP, htons(sizeof(p.tcp)) };
	struct sockaddr_in to = t->local;
	int raw;

	enter(ns_dest);
	raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	set(raw, SOL_SOCKET, SO_MARK, 1);
	p.ip = (struct iphdr){ .version = 4, .ihl = 5, .tot_len = htons(sizeof(p)), .ttl = 64, .protocol = IPPROTO_TCP, .saddr = t->peer.sin_addr.s_addr, .daddr = t->local.sin_addr.s_addr };
	p.tcp.source = t->peer.sin_port;
	p.tcp.dest = t->local.sin_port;
	p.tcp.seq = htonl(seq);
	p.tcp.ack_seq = htonl(ack);
	p.tcp.doff = 5;
	p.tcp.ack = 1;
	p.tcp.fin = fin;
	p.tcp.window = htons(500);
	p.tcp.check = (unsigned short)~sum(&p.tcp, sizeof(p.tcp), sum(&pseudo, sizeof(pseudo), 0));
	to.sin_port = 0;
	MUST(sendto(raw, &p, sizeof(p), 0, (void *)&to, sizeof(to)) == sizeof(p));
	close(raw);
}

static void established(void)
{
	int client, server, fd;
	struct taken t;

	make(5000, &client, &server);
	MUST(send(client, "to be read", 10, 0) == 10);
	WAIT_FOR(ioctl(server, FIONREAD, &fd) == 0 && fd == 10);
	t = take(server);
	close(server);
	FACT(state_of(client) == TCP_ESTABLISHED, "closing in repair mode tells the peer nothing");
	fd = remake(&t);
	lead(true);
	set(fd, IPPROTO_TCP, TCP_REPAIR, 0);
	FACT(comes(fd, "to be read"), "what had arrived can be read");
	MUST(send(fd, "answer", 6, 0) == 6);
	FACT(comes(client, "answer"), "the peer gets data from a host that does not have the address");
	MUST(send(client, "more", 4, 0) == 4);
	FACT(comes(fd, "more"), "and is heard there");
	close(client);
	close(fd);
	lead(false);
}

static void unacknowledged(void)
{
	int client, server, fd;
	struct taken t;

	make(5001, &client, &server);
	lead(true); /* acknowledgements get lost */
	sh(ns_source, "ip link set dev s down");
	MUST(send(server, "lost", 4, 0) == 4);
	t = take(server);
	FACT(t.n_out == 4, "what is not acknowledged can be peeked at in repair mode");
	close(server);
	fd = remake(&t);
	set(fd, IPPROTO_TCP, TCP_REPAIR, 0);
	FACT(comes(client, "lost"), "and is sent again by the new socket");
	sh(ns_source, "ip link set dev s up && ip route replace 10.9.0.1 dev s");
	close(client);
	close(fd);
	lead(false);
}

static void ended_by_peer(void)
{
	int client, server, fd;
	struct taken t;
	char c;

	make(5002, &client, &server);
	shutdown(client, SHUT_WR);
	WAIT_FOR(state_of(server) == TCP_CLOSE_WAIT);
	t = take(server);
	close(server);
	t.rcv--; /* the end of the stream counts */
	t.w.rcv_wup = t.rcv;
	t.w.rcv_wnd++;
	fd = remake(&t);
	lead(true);
	forge(&t, t.rcv, t.snd, true);
	FACT(state_of(fd) == TCP_CLOSE_WAIT, "a forged end of stream through lo, by a mark, is taken, also in repair mode (state %d)", state_of(fd));
	set(fd, IPPROTO_TCP, TCP_REPAIR, 0);
	FACT(recv(fd, &c, 1, MSG_DONTWAIT) == 0, "the program sees the end of the stream");
	MUST(send(fd, "last", 4, 0) == 4);
	FACT(comes(client, "last"), "the other direction goes on");
	close(fd);
	close(client);
	lead(false);
}

static void ended_here(void)
{
	int client, server, fd;
	struct taken t;

	make(5003, &client, &server);
	shutdown(server, SHUT_WR);
	WAIT_FOR(state_of(server) == TCP_FIN_WAIT2);
	t = take(server);
	close(server);
	t.snd--;
	fd = remake(&t);
	lead(true);
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	shutdown(fd, SHUT_WR);
	FACT(state_of(fd) == TCP_FIN_WAIT1, "an end of stream in repair mode is taken for sent");
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
	forge(&t, t.rcv, t.snd + 1, false);
	FACT(state_of(fd) == TCP_FIN_WAIT2, "its forged acknowledgement is taken (state %d)", state_of(fd));
	set(fd, IPPROTO_TCP, TCP_REPAIR, 0);
	MUST(send(client, "still", 5, 0) == 5);
	FACT(comes(fd, "still"), "the peer's direction goes on");
	close(fd);
	close(client);
	lead(false);
}

static void connecting(void)
{
	struct sockaddr_in a = at("10.9.0.1", 5004), from = at("10.9.0.2", 6000), got = { 0 };
	socklen_t len = sizeof(got);
	int listener, fd, accepted;

	enter(ns_peer);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	MUST(bind(listener, (void *)&a, sizeof(a)) == 0 && listen(listener, 8) == 0);
	lead(true);
	enter(ns_dest);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	set(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
	set(fd, IPPROTO_TCP, TCP_REPAIR, 1);
	MUST(bind(fd, (void *)&from, sizeof(from)) == 0);
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, 1000000);
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
	set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	FACT(connect(fd, (void *)&a, sizeof(a)) == 0, "connecting from an address that is not here");
	set(fd, IPPROTO_TCP, TCP_REPAIR, 1);
	FACT(seq_of(fd, TCP_SEND_QUEUE) == 1000001, "the first number is the one set before (%u)", seq_of(fd, TCP_SEND_QUEUE));
	set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
	set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	accepted = accept(listener, (void *)&got, &len);
	FACT(accepted >= 0 && got.sin_addr.s_addr == from.sin_addr.s_addr && got.sin_port == from.sin_port, "the peer sees the old address");
	lead(false);
}

int main(void)
{
	make_hosts();
	established();
	unacknowledged();
	ended_by_peer();
	ended_here();
	connecting();
	return fact_failures ? 1 : 0;
}
