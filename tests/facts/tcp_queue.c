/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tcp_queue.c - a connection that another host's listener has answered comes into the queue of a listener here (image/tcp_waiting.h, net/redirect.h)
 *
 * By one segment that acknowledges the answer, with the numbers, shifts and time stamps of the other host; what was said before follows. It needs a route to the other end, but
 * neither an address nor a packet from there. A queue that is full takes no more, and takes it when there is room again.
 */
#include "fact.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "image/socket_options.h"
#include "image/tcp_outside.h"
#include "image/tcp_repair.h"
#include "kern/sock_destroy.h"
#include "net/redirect.h"

#define PORT 4000
#define OURS 1000000u
#define THEIRS 2000000u
#define STAMP 77000000u

static struct sockaddr_in address(const char *text, uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { inet_addr(text) } };
}

static int listen_there(int backlog)
{
	struct sockaddr_in all = address("0.0.0.0", PORT);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

	MUST(fd >= 0 && setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof(on)) == 0);
	MUST(bind(fd, (void *)&all, sizeof(all)) == 0 && listen(fd, backlog) == 0);
	return fd;
}

static void switch_on(const char *device)
{
	struct ifreq r = { .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	strcpy(r.ifr_name, device);
	MUST(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &r) == 0);
	close(fd);
}

static int number_of(int fd, int queue)
{
	socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON);
	socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
	queue = socket_get_int(fd, IPPROTO_TCP, TCP_QUEUE_SEQ);
	socket_set_int(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
	return queue;
}

static void forge_call(struct redirect *r, uint16_t port, const char *said)
{
	struct sockaddr_in own = address("192.0.2.1", PORT), peer = address("198.51.100.7", port);
	struct redirect_call call = { .stamp = STAMP, .peer_stamp = 5, .segment_max = 1400, .send_scale = 9, .receive_scale = 6, .has_stamps = 1, .has_scale = 1, .has_sack = 1 };
	Gw__FdTcpNumbers numbers = GW__FD_TCP_NUMBERS__INIT;
	Gw__FdSocket s = GW__FD_SOCKET__INIT;
	Gw__FdTcp p = GW__FD_TCP__INIT;
	ProtobufCBinaryData data = { strlen(said), (uint8_t *)(uintptr_t)said };
	struct redirect_flow flow;

	s.local = (ProtobufCBinaryData){ sizeof(own), (uint8_t *)&own };
	s.peer = (ProtobufCBinaryData){ sizeof(peer), (uint8_t *)&peer };
	s.tcp = &p;
	p.numbers = &numbers;
	numbers.peer_window = 65535;
	MUST(redirect_flow_set(&flow, IPPROTO_TCP, (void *)&own, (void *)&peer));
	MUST(redirect_expect_call(r, &flow, &call, false) == 0);
	MUST(tcp_forge(&s, THEIRS, OURS, 0, NULL) == 0);
	if (sock_is_connected((void *)&own, (void *)&peer))
		MUST(tcp_forge_data(&s, THEIRS, OURS, &data, NULL) == 0);
}

int main(void)
{
	struct sockaddr_in own, peer;
	struct tcp_info info = { 0 };
	struct redirect *r = NULL;
	socklen_t len = sizeof(own);
	char text[16] = "";
	int listener, fd;

	MUST(unshare(CLONE_NEWNET) == 0);
	switch_on("lo");
	MUST(system("ip route add default dev lo") == 0);
	MUST(redirect_open(&r, NULL) == 0);
	MUST(redirect_takes_calls(r));
	MUST(tcp_forge_open(REDIRECT_MARK, NULL) == 0);
	listener = listen_there(0);
	forge_call(r, 5001, "hello");
	forge_call(r, 5002, "never heard");

	fd = accept(listener, (void *)&peer, &len);
	FACT(fd >= 0 && ntohs(peer.sin_port) == 5001 && peer.sin_addr.s_addr == inet_addr("198.51.100.7"), "the first one is accepted, with its address");
	FACT(getsockname(fd, (void *)&own, &len) == 0 && own.sin_addr.s_addr == inet_addr("192.0.2.1"), "it has the address of the other host's listener");
	FACT(recv(fd, text, sizeof(text), MSG_DONTWAIT) == 5 && !strcmp(text, "hello"), "what was said is there");
	len = sizeof(info);
	FACT(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && info.tcpi_state == TCP_ESTABLISHED && info.tcpi_snd_wscale == 9 && info.tcpi_rcv_wscale == 6 &&
	      (info.tcpi_options & 7) == 7, "what was settled holds");
	FACT((uint32_t)socket_get_int(fd, IPPROTO_TCP, TCP_TIMESTAMP) - STAMP < 60000, "time stamps go on");
	FACT((uint32_t)number_of(fd, TCP_SEND_QUEUE) == OURS && (uint32_t)number_of(fd, TCP_RECV_QUEUE) == THEIRS + 5, "and numbers");
	FACT(accept(listener, NULL, NULL) < 0 && errno == EAGAIN, "a full queue has not taken the second");
	forge_call(r, 5002, "");
	FACT(accept(listener, NULL, NULL) >= 0, "one with room does");
	redirect_close(&r);
	return fact_failures ? 1 : 0;
}
