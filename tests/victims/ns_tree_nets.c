// SPDX-License-Identifier: GPL-2.0-or-later
/* ns_tree_nets.c - victims whose processes are in several network namespaces, with devices that lead from one to the other */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ns.h"
#include "tree.h"

#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894C
#endif
#define NETS 3
#define TALK_MS 20000

static pid_t members[NETS];
static int nets[NETS]; /* of the first process and of each member */
static struct text before[NETS];

static void alone(int told)
{
	must(!unshare(CLONE_NEWNET));
	member_ready(told);
	member_wait();
	_exit(0);
}

static int open_net(pid_t pid)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	return fd;
}

static void go_to(size_t net)
{
	must(!setns(nets[net], CLONE_NEWNET));
}

static int udp_at(size_t net, const char *address)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(4712) };
	int fd;

	go_to(net);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && inet_pton(AF_INET, address, &a.sin_addr) == 1);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
		fail("%s cannot be bound: errno %d", address, errno);
	return fd;
}

/* Over the pair between two namespaces; the first datagram may be dropped while the neighbour is found. */
static void talk(size_t from, const char *own, size_t to, const char *other)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(4712) };
	int sender = udp_at(from, own), receiver = udp_at(to, other), got = 0;

	inet_pton(AF_INET, other, &a.sin_addr);
	for (int i = 0; i < TALK_MS / 100 && !got; i++) {
		struct pollfd p = { receiver, POLLIN, 0 };

		(void)!sendto(sender, "x", 1, 0, (struct sockaddr *)&a, sizeof(a));
		got = poll(&p, 1, 100) > 0;
	}
	if (!got)
		fail("nothing gets from %s to %s", own, other);
	close(sender);
	close(receiver);
	go_to(0);
}

static void remember(struct text *t, size_t first)
{
	for (size_t i = first; i < NETS; i++) {
		go_to(i);
		read_network(&t[i]);
	}
	go_to(0);
}

static void begin(void)
{
	nets[0] = open_net(getpid());
	for (size_t i = 1; i < NETS; i++) {
		members[i] = member_fork(alone, true);
		nets[i] = open_net(members[i]);
	}
	go_to(1);
	run_tools("ip link set lo up\n");
	run_tools("ip link add va address 02:00:00:00:03:01 type veth peer name vb address 02:00:00:00:03:02\n");
}

/* To where va's other end is to be. */
static void spread(void)
{
	char line[128];

	snprintf(line, sizeof(line), "ip link set vb netns %d\n", members[2]);
	run_tools(line);
	run_tools("ip link set va addrgenmode none mtu 1400 up\n"
		  "ip addr add 10.77.0.1/24 dev va\n"
		  "ip route add 10.78.0.0/16 via 10.77.0.2\n");
	go_to(2);
	run_tools("ip link add br7 address 02:00:00:00:03:07 type bridge stp_state 0\n"
		  "ip link set vb addrgenmode none up\n"
		  "ip link set br7 addrgenmode none up\n"
		  "ip link set vb master br7\n"
		  "ip addr add 10.77.0.2/24 dev br7\n"
		  "nft add table inet u\n"
		  "nft add chain inet u c '{ type filter hook input priority 0; }'\n"
		  "nft add rule inet u c udp dport 9999 drop\n");
	talk(1, "10.77.0.1", 2, "10.77.0.2");
	talk(2, "10.77.0.2", 1, "10.77.0.1");
}

static void ask_all(void)
{
	for (size_t i = 1; i < NETS; i++)
		member_ask("member", members[i]);
}

static void nets_setup(void)
{
	begin();
	spread();
	remember(before, 1);
}

static void check_from(size_t first)
{
	struct text now[NETS] = { 0 };

	remember(now, first);
	for (size_t i = first; i < NETS; i++)
		expect_text("a network", before[i].s, now[i].s);
	talk(1, "10.77.0.1", 2, "10.77.0.2");
	talk(2, "10.77.0.2", 1, "10.77.0.1");
}

static void nets_check(void)
{
	check_from(1);
	ask_all();
}

VICTIM(ns_nets, V_TREE, nets_setup, NULL, nets_check);

/* The first process has its own, and a pair leads from there to a member's. */
static void nets_below_setup(void)
{
	char line[128];

	must(!unshare(CLONE_NEWNET));
	begin();
	spread();
	go_to(0);
	run_tools("ip link set lo up\n"
		  "ip link add out address 02:00:00:00:03:03 type veth peer name in address 02:00:00:00:03:04\n");
	snprintf(line, sizeof(line), "ip link set in netns %d\n", members[1]);
	run_tools(line);
	run_tools("ip link set out addrgenmode none up\nip addr add 10.79.0.1/24 dev out\n");
	go_to(1);
	run_tools("ip link set in addrgenmode none up\nip addr add 10.79.0.2/24 dev in\n");
	talk(0, "10.79.0.1", 1, "10.79.0.2");
	remember(before, 0);
}

static void nets_below_check(void)
{
	check_from(0);
	talk(1, "10.79.0.2", 0, "10.79.0.1");
	ask_all();
}

VICTIM(ns_nets_below, V_TREE, nets_below_setup, NULL, nets_below_check);

/* The first process holds sockets of a member's network namespace. */
enum { LISTENER, UDP, PACKET, ROUTES, SOCKETS };
static int sockets[SOCKETS];

static void sockets_setup(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(4713) };
	struct sockaddr_ll device = { .sll_family = AF_PACKET, .sll_protocol = htons(0x88b5) }; /* nobody sends such */
	struct sockaddr_nl own = { .nl_family = AF_NETLINK };

	begin();
	spread();
	go_to(1);
	inet_pton(AF_INET, "10.77.0.1", &a.sin_addr);
	sockets[LISTENER] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(sockets[LISTENER] >= 0 && !bind(sockets[LISTENER], (struct sockaddr *)&a, sizeof(a)) && !listen(sockets[LISTENER], 5));
	sockets[UDP] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(sockets[UDP] >= 0 && !bind(sockets[UDP], (struct sockaddr *)&a, sizeof(a)));
	sockets[PACKET] = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	device.sll_ifindex = (int)if_nametoindex("va");
	must(sockets[PACKET] >= 0 && !bind(sockets[PACKET], (struct sockaddr *)&device, sizeof(device)));
	sockets[ROUTES] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	must(sockets[ROUTES] >= 0 && !bind(sockets[ROUTES], (struct sockaddr *)&own, sizeof(own)));
	go_to(0);
}

static ino_t net_of(int fd, bool is_socket)
{
	int ns = is_socket ? ioctl(fd, SIOCGSKNS) : dup(fd);
	struct stat st;

	must(ns >= 0 && !fstat(ns, &st));
	close(ns);
	return st.st_ino;
}

static void sockets_check(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(4713) };
	struct sockaddr_ll device;
	socklen_t len = sizeof(device);
	struct pollfd p[2] = { { sockets[LISTENER], POLLIN, 0 }, { sockets[UDP], POLLIN, 0 } };
	int stream, datagram;

	for (int i = 0; i < SOCKETS; i++)
		expect(net_of(sockets[i], true) == net_of(nets[1], false));
	go_to(1);
	expect(!getsockname(sockets[PACKET], (struct sockaddr *)&device, &len) && device.sll_ifindex == (int)if_nametoindex("va"));
	go_to(2);
	inet_pton(AF_INET, "10.77.0.1", &a.sin_addr);
	stream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	datagram = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	expect(!connect(stream, (struct sockaddr *)&a, sizeof(a)));
	expect(sendto(datagram, "x", 1, 0, (struct sockaddr *)&a, sizeof(a)) == 1);
	expect(poll(&p[0], 1, TALK_MS) == 1 && accept(sockets[LISTENER], NULL, NULL) >= 0);
	expect(poll(&p[1], 1, TALK_MS) == 1);
	go_to(0);
	ask_all();
}

VICTIM(ns_nets_sockets, V_TREE, sockets_setup, NULL, sockets_check);
