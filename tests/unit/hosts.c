/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hosts.c - see hosts.h */
#include "hosts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/ip.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#define MUST(x)                                                                              \
	do {                                                                                 \
		if (!(x)) {                                                                  \
			fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #x, strerror(errno)); \
			abort();                                                             \
		}                                                                            \
	} while (0)

#define CLOCK_SLACK 2 /* ms that the clock of a connection is put forward: its lowest bit is not told */

static int namespaces[HOSTS + 1];

static int new_namespace(void)
{
	int fd;

	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0);
	return fd;
}

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...)
{
	char command[512];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	if (system(command)) {
		fprintf(stderr, "failed: %s\n", command);
		abort();
	}
}

void hosts_enter(enum host h)
{
	MUST(setns(namespaces[h], CLONE_NEWNET) == 0);
}

void hosts_cut(enum host h, bool cut)
{
	hosts_enter((enum host)HOSTS);
	run("ip link set port%d %s", (int)h, cut ? "nomaster" : "master switch");
}

bool hosts_make(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("none", "/run", "tmpfs", 0, NULL) < 0)
		return false;
	for (int i = HOSTS; i >= 0; i--) {
		namespaces[i] = new_namespace();
		if (namespaces[i] < 0)
			return false;
		run("ip link set lo up");
	}
	hosts_enter((enum host)HOSTS);
	run("ip link add switch type bridge mcast_snooping 0; ip link set switch up");
	for (int i = 0; i < HOSTS; i++) {
		run("ip link add port%d type veth peer name eth0 netns /proc/%d/fd/%d && ip link set port%d master switch up", i, (int)getpid(), namespaces[i], i);
		hosts_enter((enum host)i);
		run("ip addr add 10.77.0.%d/24 dev eth0; ip addr add fd77::%d/64 dev eth0 nodad; ip link set eth0 up", i + 1, i + 1);
		hosts_enter((enum host)HOSTS);
	}
	return true;
}

void hosts_address(enum host h, int family, uint16_t port, struct sockaddr_storage *ret)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
	char text[32];

	memset(ret, 0, sizeof(*ret));
	ret->ss_family = (sa_family_t)family;
	if (family == AF_INET) {
		snprintf(text, sizeof(text), "10.77.0.%d", h + 1);
		inet_pton(AF_INET, text, &v4->sin_addr);
		v4->sin_port = htons(port);
	} else {
		snprintf(text, sizeof(text), "fd77::%d", h + 1);
		inet_pton(AF_INET6, text, &v6->sin6_addr);
		v6->sin6_port = htons(port);
	}
}

socklen_t hosts_address_len(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static void set(int fd, int option, int value)
{
	MUST(setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value)) == 0);
}

static uint32_t get(int fd, int option)
{
	uint32_t value = 0;

	MUST(getsockopt(fd, IPPROTO_TCP, option, &value, &(socklen_t){ sizeof(value) }) == 0);
	return value;
}

static void take_queue(int fd, struct taken *t, int i, int queue, unsigned long length)
{
	int n = 0;

	set(fd, TCP_REPAIR_QUEUE, queue);
	t->seq[i] = get(fd, TCP_QUEUE_SEQ);
	MUST(ioctl(fd, length, &n) == 0);
	t->n[i] = (uint32_t)n;
	t->data[i] = malloc((size_t)n + 1);
	MUST(!n || recv(fd, t->data[i], (size_t)n, MSG_PEEK | MSG_DONTWAIT) == n);
	t->seq[i] -= t->n[i];
}

void tcp_take(int fd, struct taken *t)
{
	struct tcp_info info = { 0 };

	*t = (struct taken){ 0 };
	set(fd, TCP_REPAIR, 1);
	take_queue(fd, t, 0, TCP_RECV_QUEUE, SIOCINQ);
	take_queue(fd, t, 1, TCP_SEND_QUEUE, SIOCOUTQ);
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &t->window, &(socklen_t){ sizeof(t->window) }) == 0);
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &(socklen_t){ sizeof(info) }) == 0);
	t->timestamp = get(fd, TCP_TIMESTAMP);
	t->mss_clamp = (int)get(fd, TCP_MAXSEG);
	t->mss = (int)info.tcpi_snd_mss;
	t->options = info.tcpi_options;
	t->wscale_send = info.tcpi_snd_wscale;
	t->wscale_receive = info.tcpi_rcv_wscale;
}

static void fill_queue(int fd, struct taken *t, int i, int queue)
{
	uint32_t done = 0;

	set(fd, TCP_REPAIR_QUEUE, queue);
	while (done < t->n[i]) {
		ssize_t n = send(fd, t->data[i] + done, t->n[i] - done > 32768 ? 32768 : t->n[i] - done, 0);

		MUST(n > 0);
		done += (uint32_t)n;
	}
	free(t->data[i]);
}

static void set_options(int fd, const struct taken *t)
{
	struct tcp_repair_opt options[4];
	int n = 0;

	options[n++] = (struct tcp_repair_opt){ 2 /* MSS */, (uint32_t)t->mss_clamp };
	if (t->options & TCPI_OPT_WSCALE)
		options[n++] = (struct tcp_repair_opt){ 3, t->wscale_send | (uint32_t)t->wscale_receive << 16 };
	if (t->options & TCPI_OPT_SACK)
		options[n++] = (struct tcp_repair_opt){ 4, 0 };
	if (t->options & TCPI_OPT_TIMESTAMPS)
		options[n++] = (struct tcp_repair_opt){ 8, 0 };
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, (socklen_t)(n * (int)sizeof(*options))) == 0);
}

int tcp_make(struct taken *t, const struct sockaddr_storage *own, const struct sockaddr_storage *peer, void (*live)(void *), void *arg)
{
	int fd = socket(own->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	MUST(fd >= 0);
	if (own->ss_family == AF_INET)
		MUST(setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof(one)) == 0);
	else
		MUST(setsockopt(fd, IPPROTO_IPV6, 75 /* IPV6_TRANSPARENT */, &one, sizeof(one)) == 0);
	set(fd, TCP_REPAIR, 1);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	MUST(bind(fd, (const struct sockaddr *)own, hosts_address_len(own)) == 0);
	set(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
	set(fd, TCP_QUEUE_SEQ, (int)t->seq[0]);
	set(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
	set(fd, TCP_QUEUE_SEQ, (int)t->seq[1]);
	setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &t->mss, sizeof(t->mss));
	if (connect(fd, (const struct sockaddr *)peer, hosts_address_len(peer)) < 0) {
		close(fd);
		return -1;
	}
	set(fd, TCP_MAXSEG, 0);
	set_options(fd, t);
	set(fd, TCP_TIMESTAMP, (int)(t->timestamp + CLOCK_SLACK));
	fill_queue(fd, t, 0, TCP_RECV_QUEUE);
	fill_queue(fd, t, 1, TCP_SEND_QUEUE);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &t->window, sizeof(t->window)) == 0);
	if (live)
		live(arg);
	set(fd, TCP_REPAIR, 0);
	return fd;
}
