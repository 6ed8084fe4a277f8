// SPDX-License-Identifier: GPL-2.0-or-later
/* ns.c - victims with namespaces of their own: names, limits of IPC, mounts, files in memory, the loopback device, numbers */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mroute.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "ns.h"

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);

	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void expect_file(const char *path, const char *text)
{
	char got[256] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, got, sizeof(got) - 1) < 0)
		fail("%s: errno %d", path, errno);
	expect_text(path, text, got);
	close(fd);
}

static struct utsname names;

static void uts_setup(void)
{
	must(!unshare(CLONE_NEWUTS | CLONE_NEWIPC));
	must(!sethostname("of-the-unit", 11) && !setdomainname("domain", 6));
	write_text("/proc/sys/kernel/msgmax", "12345");
	write_text("/proc/sys/kernel/sem", "100 200 30 40");
	must(!uname(&names));
}

static void uts_check(void)
{
	struct utsname now;

	expect(!uname(&now));
	expect_text("host name", names.nodename, now.nodename);
	expect_text("domain name", names.domainname, now.domainname);
	expect_file("/proc/sys/kernel/msgmax", "12345\n");
	expect_file("/proc/sys/kernel/sem", "100\t200\t30\t40\n");
}

VICTIM(ns_uts, 0, uts_setup, NULL, uts_check);

/* ---- network: the loopback device ---- */

static int talk(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), code;
	char byte;

	must(fd >= 0);
	a.sin_port = htons(4711);
	code = bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || sendto(fd, "x", 1, 0, (struct sockaddr *)&a, sizeof(a)) != 1 || read(fd, &byte, 1) != 1 ? -errno : 0;
	close(fd);
	return code;
}

static void net_setup(void)
{
	struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	must(!unshare(CLONE_NEWNET));
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &r) && !close(fd) && talk() == 0);
}

static void net_check(void)
{
	expect(talk() == 0);
}

VICTIM(ns_net, 0, net_setup, NULL, net_check);

/* Home's files are for a unit that cannot reach home over its own network, too. */
static char private_path[64];
static int private_fd = -1;

static void net_files_setup(void)
{
	must(!unshare(CLONE_NEWNET));
	snprintf(private_path, sizeof(private_path), "/tmp/ns-net-files-%d", getpid());
	private_fd = open(private_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	must(private_fd >= 0 && write(private_fd, "before", 6) == 6);
}

static void net_files_check(void)
{
	expect(write(private_fd, " after", 6) == 6);
	expect_file(private_path, "before after");
	expect(!unlink(private_path));
}

VICTIM(ns_net_files, 0, net_files_setup, NULL, net_files_check);

/* ---- network: devices, addresses, routes, rules, neighbours, filters, settings ---- */

static struct text network;
static int held;

void run_tools(const char *commands)
{
	char line[256];

	for (const char *next = commands; *next;) {
		const char *end = strchr(next, '\n');

		snprintf(line, sizeof(line), "%.*s", (int)(end - next), next);
		if (system(line) != 0)
			fail("%s", line);
		next = end + 1;
	}
}

void read_network(struct text *t)
{
	char line[4096];
	FILE *f = popen("exec 2>&1; ip -d link | grep -v gso_max; ip -o addr | sort; ip -4 route show table all; ip -6 route show table all | sort; ip rule; ip -6 rule;"
			"ip neigh show nud permanent; ip neigh show proxy; ip nexthop; bridge -d link | grep -v state; nft -s list ruleset",
			"r");

	must(f);
	while (fgets(line, sizeof(line), f))
		text_add(t, "%s", line);
	must(pclose(f) == 0);
}

static void devices_setup(void)
{
	must(!unshare(CLONE_NEWNET));
	run_tools("ip link set lo up\n"
		  "ip link add pa address 02:00:00:00:01:01 type veth peer name pb address 02:00:00:00:01:02\n"
		  "ip link add br0 address 02:00:00:00:01:03 type bridge stp_state 0 ageing_time 1234\n"
		  "ip link set pa master br0\n"
		  "ip link set pa alias other addrgenmode none up\n"
		  "ip link set pb mtu 1400 addrgenmode none up\n"
		  "ip link set br0 addrgenmode none up\n"
		  "bridge link set dev pa cost 77 hairpin on\n"
		  "ip link add mv0 link pb address 02:00:00:00:01:04 type macvlan mode bridge\n"
		  "ip link add vx0 address 02:00:00:00:01:05 type vxlan id 42 remote 10.99.0.77 dstport 4789 dev pb\n"
		  "ip tuntap add dev tun7 mode tun user 1000\n"
		  "ip tuntap add dev tap7 mode tap\n"
		  "ip link set tap7 address 02:00:00:00:01:06 mtu 9000 addrgenmode none up\n"
		  "ip addr add 10.99.0.5/24 dev pb\n"
		  "ip addr add 10.99.0.6/24 dev pb\n"
		  "ip addr add fd00::5/64 dev pb nodad\n"
		  "ip addr add 192.168.7.1/24 dev br0\n"
		  "ip addr del 127.0.0.1/8 dev lo\n"
		  "ip route add default via 10.99.0.1\n"
		  "ip -6 route add default via fd00::1\n"
		  "ip route add 172.16.0.0/12 via 10.99.0.1 table 100\n"
		  "ip route add 10.200.0.0/16 nexthop via 10.99.0.1 weight 2 nexthop via 10.99.0.77\n"
		  "ip nexthop add id 5 via 10.99.0.1 dev pb\n"
		  "ip route add 10.201.0.0/16 nhid 5\n"
		  "ip rule add from 10.99.0.6 table 100 prio 1000\n"
		  "ip -6 rule add to fd01::/16 table 101 prio 900\n"
		  "ip neigh add 10.99.0.77 lladdr 02:11:22:33:44:55 dev pb nud permanent\n"
		  "ip neigh add proxy 10.99.0.200 dev pb\n"
		  "nft add table inet t\n"
		  "nft add chain inet t c '{ type filter hook input priority 0; }'\n"
		  "nft add set inet t s '{ type ipv4_addr; flags timeout; }'\n"
		  "nft add element inet t s '{ 1.2.3.4 timeout 1h }'\n"
		  "nft add rule inet t c ip saddr @s counter drop\n");
	write_text("/proc/sys/net/ipv4/ip_forward", "1");
	write_text("/proc/sys/net/ipv4/conf/pb/rp_filter", "2");
	write_text("/proc/sys/net/ipv6/conf/lo/mtu", "1280");
	read_network(&network);
}

static void devices_check(void)
{
	struct text now = { 0 };

	read_network(&now);
	expect_text("the network", network.s, now.s);
	expect_file("/proc/sys/net/ipv4/ip_forward", "1\n");
	expect_file("/proc/sys/net/ipv4/conf/pb/rp_filter", "2\n");
	expect_file("/proc/sys/net/ipv4/conf/pb/forwarding", "1\n");
	expect_file("/proc/sys/net/ipv6/conf/lo/mtu", "1280\n");
	run_tools("ip route get 10.200.1.1 >/dev/null\n"
		  "ip link del br0\n");
}

VICTIM(ns_devices, 0, devices_setup, NULL, devices_check);

static void qdisc_setup(void)
{
	must(!unshare(CLONE_NEWNET));
	run_tools("tc qdisc add dev lo root handle 1: pfifo\n");
}

static void qdisc_check(void)
{
	run_tools("tc qdisc show dev lo | grep -q pfifo\n");
}

VICTIM_TEXT(victim_refuse_ns_qdisc, "refuse_ns_qdisc", qdisc_setup, NULL, qdisc_check, V_REFUSED, "qdisc pfifo.*queueing disciplines");

#define REFUSED_NETWORK(id, setup, text) VICTIM_TEXT(victim_refuse_##id, "refuse_" #id, setup, NULL, nothing_check, V_REFUSED, text)

static void nothing_check(void)
{
}

static void xfrm_setup(void)
{
	must(!unshare(CLONE_NEWNET));
	run_tools("ip xfrm policy add src 10.77.0.0/16 dst 10.78.0.0/16 dir out tmpl src 10.77.0.1 dst 10.78.0.1 proto esp mode tunnel\n");
}

REFUSED_NETWORK(ns_xfrm, xfrm_setup, "policies of IPsec");

static void group_setup(void)
{
	must(!unshare(CLONE_NEWNET));
	run_tools("ip link add br0 type bridge\n"
		  "ip link add pa type veth peer name pb\n"
		  "ip link set pa master br0 up\n"
		  "ip link set br0 up\n"
		  "bridge mdb add dev br0 port pa grp 239.7.7.7 permanent\n");
}

REFUSED_NETWORK(ns_groups, group_setup, "groups in a bridge's table");

static void multicast_setup(void)
{
	must(!unshare(CLONE_NEWNET));
	run_tools("ip link add pa type veth peer name pb\n"
		  "ip maddress add 33:33:00:00:77:77 dev pa\n");
}

REFUSED_NETWORK(ns_maddress, multicast_setup, "multicast addresses");

static void route_setup(void)
{
	must(!unshare(CLONE_NEWNET));
	held = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_IGMP);
	must(held >= 0 && !setsockopt(held, IPPROTO_IP, 200 /* MRT_INIT */, &(int){ 1 }, sizeof(int)));
	run_tools("ip link add pa type veth peer name pb\n"
		  "ip addr add 10.77.0.1/24 dev pa\n"
		  "ip link set pa up\n");
	must(!setsockopt(held, IPPROTO_IP, 202 /* MRT_ADD_VIF */,
			 &(struct vifctl){ .vifc_flags = 8 /* VIFF_USE_IFINDEX */, .vifc_lcl_ifindex = (int)if_nametoindex("pa") }, sizeof(struct vifctl)));
}

REFUSED_NETWORK(ns_mroute, route_setup, "multicast routing");

/* ---- what a filter and the translation of addresses know about connections ---- */

static int asks, answers;
static struct text tracked;

static int socket_at(int type, uint32_t address, uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address) };
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	must(fd >= 0 && !bind(fd, (void *)&a, sizeof(a)));
	return fd;
}

/* Without the time that is left and what is counted. */
static void read_tracked(struct text *t)
{
	FILE *f = fopen("/proc/net/nf_conntrack", "re");
	char line[1024], protocol[16], rest[1024];

	must(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %*s %15s %*s %*s %1023[^\n]", protocol, rest) == 2)
			text_add(t, "%s %s\n", protocol, rest);
	fclose(f);
}

static void tracked_setup(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(0x0a4d0009) };
	char byte;

	must(!unshare(CLONE_NEWNET));
	run_tools("ip link set lo up\n"
		  "ip addr add 10.77.0.7/32 dev lo\n"
		  "ip addr add 10.77.0.9/32 dev lo\n"
		  "nft add table ip t\n"
		  "nft add chain ip t o '{ type nat hook output priority -100; }'\n"
		  "nft add rule ip t o ip daddr 10.77.0.9 udp dport 53 dnat to 10.77.0.7:7053\n"
		  "nft add chain ip t i '{ type filter hook input priority 0; }'\n"
		  "nft add rule ip t i ct state established counter accept\n");
	asks = socket_at(SOCK_DGRAM, 0x0a4d0007, 9999);
	answers = socket_at(SOCK_DGRAM, 0x0a4d0007, 7053);
	must(sendto(asks, "?", 1, 0, (void *)&to, sizeof(to)) == 1 && recv(answers, &byte, 1, 0) == 1);
	run_tools("nft add rule ip t i ct state new counter drop\n");
	read_tracked(&tracked);
	must(strstr(tracked.s, "UNREPLIED"));
}

/* An answer to what was asked before the move comes from whom was asked, and passes. */
static void tracked_check(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9999), .sin_addr.s_addr = htonl(0x0a4d0007) }, from = { 0 };
	struct text now = { 0 };
	socklen_t len = sizeof(from);
	char byte;

	read_tracked(&now);
	expect_text("tracked connections", tracked.s, now.s);
	expect(!setsockopt(asks, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 5, 0 }, sizeof(struct timeval)));
	expect(sendto(answers, "!", 1, 0, (void *)&to, sizeof(to)) == 1);
	expect(recvfrom(asks, &byte, 1, 0, (void *)&from, &len) == 1);
	expect_u64("port that the answer comes from", 53, ntohs(from.sin_port));
	expect_u64("address that the answer comes from", 0x0a4d0009, ntohl(from.sin_addr.s_addr));
}

VICTIM(ns_tracked, 0, tracked_setup, NULL, tracked_check);

static int stream[2];

static void filter_setup(void)
{
	int listening, on = 1;
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(7001), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	must(!unshare(CLONE_NEWNET));
	run_tools("ip link set lo up\n"
		  "ipset create friends hash:ip\n"
		  "ipset add friends 127.0.0.1\n"
		  "nft add table ip t\n"
		  "nft add chain ip t i '{ type filter hook input priority 0; }'\n"
		  "nft add rule ip t i ct state established counter accept\n");
	listening = socket_at(SOCK_STREAM, INADDR_LOOPBACK, 7001);
	must(!listen(listening, 1));
	stream[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(!connect(stream[0], (void *)&a, sizeof(a)));
	stream[1] = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	must(stream[1] >= 0 && !close(listening) && !setsockopt(stream[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	run_tools("nft add rule ip t i ct state new counter drop\n");
	read_tracked(&tracked);
	must(strstr(tracked.s, "ESTABLISHED"));
}

static void filter_check(void)
{
	struct text now = { 0 };
	char byte;

	read_tracked(&now);
	expect_text("tracked connections", tracked.s, now.s);
	for (int i = 0; i < 2; i++) {
		expect(!setsockopt(stream[i], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 5, 0 }, sizeof(struct timeval)));
		expect(send(stream[!i], "x", 1, 0) == 1 && recv(stream[i], &byte, 1, 0) == 1);
	}
	run_tools("ipset test friends 127.0.0.1 2>/dev/null\n");
}

VICTIM(ns_filter, 0, filter_setup, NULL, filter_check);

/* ---- mounts ---- */

static struct text mounts;
static char place[4096];

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Without what the kernel numbers; in whatever order they were made. */
static void read_mounts(struct text *t)
{
	char *lines[1024];
	size_t n = 0;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[8192], where[4096], flags[1024];

	must(f);
	while (fgets(line, sizeof(line), f)) {
		char *rest = strstr(line, " - ");

		if (rest && sscanf(line, "%*d %*d %*s %*s %4095s %1023s", where, flags) == 2)
			must(n < 1024 && asprintf(&lines[n++], "%s %s%s", where, flags, rest) > 0);
	}
	fclose(f);
	qsort(lines, n, sizeof(*lines), compare_lines);
	for (size_t i = 0; i < n; i++)
		text_add(t, "%s", lines[i]);
}

static char *inside(const char *name)
{
	static char path[8192];

	snprintf(path, sizeof(path), "%s/%s", place, name);
	return path;
}

static void mounts_setup(void)
{
	char dir[8192];

	snprintf(place, sizeof(place), "%s", beside("mnt"));
	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	must(!mkdir(place, 0755) && !mount("mine", place, "tmpfs", MS_NOSUID | MS_NOEXEC, "size=4m,mode=711"));
	must(!mkdir(inside("dir"), 0700) && !mkdir(inside("again"), 0700) && !chown(inside("dir"), 7, 8));
	write_text(inside("dir/text"), "content");
	must(!symlink("dir/text", inside("link")) && !mkfifo(inside("fifo"), 0600));
	held = open(inside("held"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(held >= 0 && write(held, "of a file that is open", 22) == 22 && lseek(held, 2, SEEK_SET) == 2);
	snprintf(dir, sizeof(dir), "%s", inside("dir"));
	must(!mount(dir, inside("again"), NULL, MS_BIND, NULL));
	must(!mount(dir, dir, NULL, MS_BIND, NULL)); /* on itself */
	read_mounts(&mounts);
}

static void mounts_check(void)
{
	struct text now = { 0 };
	struct stat st;
	char got[64] = "";

	read_mounts(&now);
	expect_text("mounts", mounts.s, now.s);
	expect(read(held, got, sizeof(got)) == 20);
	expect_text("an open file in memory", " a file that is open", got);
	expect_file(inside("held"), "of a file that is open");
	expect_file(inside("link"), "content");
	expect_file(inside("again/text"), "content");
	expect(!stat(inside("dir"), &st) && st.st_uid == 7 && st.st_gid == 8 && (st.st_mode & 07777) == 0700);
	expect(!stat(inside("fifo"), &st) && S_ISFIFO(st.st_mode));
	write_text(inside("new"), "still there to be written");
}

VICTIM(ns_mounts, V_KEEP_OUT, mounts_setup, NULL, mounts_check);

/* ---- what lies over what, and what propagates where ---- */

static struct text tree_of_mounts;

static const char *below(const char *where)
{
	static char path[2][4200];
	static int next;

	next = !next;
	snprintf(path[next], sizeof(path[next]), "%s/%s", place, where);
	return path[next];
}

static void mount_at(const char *where, const char *source)
{
	must(!mkdir(below(where), 0755) || errno == EEXIST);
	must(!mount(source, below(where), "tmpfs", 0, "size=1m"));
}

static void bind_at(const char *from, const char *to, unsigned long kind)
{
	must(!mkdir(below(to), 0755) || errno == EEXIST);
	must(!mount(below(from), below(to), NULL, MS_BIND, NULL));
	must(!kind || !mount(NULL, below(to), NULL, kind, NULL));
}

/* The number by which a peer group is known from here on: in the order in which they are met. */
static unsigned group_name(unsigned *names_of, unsigned *n, unsigned group)
{
	for (unsigned i = 0; i < *n; i++)
		if (names_of[i] == group)
			return i + 1;
	must(*n < 64);
	names_of[(*n)++] = group;
	return *n;
}

static int by_place(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Mounts below the place with what is mounted, over which path of which parent, and their peer groups. */
static void read_tree(struct text *t)
{
	char *lines[128], line[8192], root[4096], where[4096];
	unsigned groups[64], ngroups = 0;
	size_t n = 0;
	FILE *f = fopen("/proc/self/mountinfo", "re");

	must(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*u %*u %*s %4095s %4095s", root, where) == 2 && !strncmp(where, place, strlen(place)))
			must(n < 128 && asprintf(&lines[n++], "%s %s %s", where, root, strstr(line, where) + strlen(where)) > 0);
	fclose(f);
	qsort(lines, n, sizeof(*lines), by_place);
	for (size_t i = 0; i < n; i++) {
		char *dash = strstr(lines[i], " - "), *shared = strstr(lines[i], "shared:"), *master = strstr(lines[i], "master:"), *closed = strstr(lines[i], "unbindable");

		must(dash);
		*strchr(strchr(lines[i], ' ') + 1, ' ') = 0;
		text_add(t, "%s%s", lines[i], closed && closed < dash ? " unbindable" : "");
		if (shared && shared < dash)
			text_add(t, " shared %u", group_name(groups, &ngroups, (unsigned)atoi(shared + 7)));
		if (master && master < dash)
			text_add(t, " slave of %u", group_name(groups, &ngroups, (unsigned)atoi(master + 7)));
		text_add(t, "%s", dash);
		free(lines[i]);
	}
}

static void tree_setup(void)
{
	snprintf(place, sizeof(place), "%s", beside("tree"));
	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	must(!mkdir(place, 0755) && !mount("top", place, "tmpfs", 0, "size=1m"));
	mount_at("a", "a"); /* shared by a, c and the part b; d is their slave, e a slave of that and shared itself */
	must(!mount(NULL, below("a"), NULL, MS_SHARED, NULL) && !mkdir(below("a/sub"), 0700) && !mkdir(below("a/late"), 0700));
	bind_at("a/sub", "b", 0);
	bind_at("a", "c", 0);
	bind_at("a", "d", MS_SLAVE);
	bind_at("d", "e", 0);
	must(!mount(NULL, below("d"), NULL, MS_SHARED, NULL));
	bind_at("d", "f", MS_SLAVE);
	mount_at("a/sub", "spread"); /* propagates to all of them */
	mount_at("hidden", "under"); /* contents under contents */
	write_text(below("hidden/text"), "that nobody sees");
	must(!mkdir(below("hidden/dir"), 0755));
	write_text(below("hidden/dir/text"), "covered in part");
	mount_at("hidden/dir", "middle");
	mount_at("hidden", "over");
	write_text(below("hidden/text"), "that is seen");
	must(!mkdir(below("hidden/gone"), 0755));
	bind_at("hidden/gone", "gone", 0); /* a directory without a name */
	must(!rmdir(below("hidden/gone")));
	mount_at("part", "whole"); /* only a part of it is left */
	must(!mkdir(below("part/left"), 0755));
	write_text(below("part/left/text"), "of a part");
	bind_at("part/left", "left", MS_UNBINDABLE);
	must(!umount2(below("part"), MNT_DETACH));
	read_tree(&tree_of_mounts);
}

static void tree_check(void)
{
	struct text now = { 0 };

	read_tree(&now);
	expect_text("mounts", tree_of_mounts.s, now.s);
	expect_file(below("hidden/text"), "that is seen");
	expect(!umount(below("hidden")));
	expect_file(below("hidden/text"), "that nobody sees");
	expect(!umount(below("hidden/dir")));
	expect_file(below("hidden/dir/text"), "covered in part");
	expect_file(below("left/text"), "of a part");
	expect(!mount("new", below("a/late"), "tmpfs", 0, NULL)); /* goes where it would have gone */
	expect(!access(below("f/late"), F_OK) && !umount(below("f/late")) && !umount(below("a/late")));
}

VICTIM(ns_mount_tree, V_KEEP_OUT, tree_setup, NULL, tree_check);

/* ---- what is mounted was removed since: directories and files of the host, and of a file system in memory ---- */

static struct text removed_mounts;
static int removed_fds[2];

static void bind_file(const char *from, const char *to)
{
	close(make_text_file(below(to), ""));
	must(!mount(below(from), below(to), NULL, MS_BIND, NULL));
}

static void bind_and_remove(const char *from, const char *text, const char *to, const char *to_as_well)
{
	close(make_text_file(below(from), text));
	bind_file(from, to);
	if (to_as_well)
		bind_file(from, to_as_well);
	must(!unlink(below(from)));
}

static void bind_directory_and_remove(const char *from, const char *to)
{
	must(!mkdir(below(from), 0710) && !chown(below(from), 7, 8));
	bind_at(from, to, 0);
	must(!rmdir(below(from)));
}

/* What is mounted where. */
static void read_roots(struct text *t)
{
	char *lines[128], line[8192], root[4096], where[4096];
	FILE *f = fopen("/proc/self/mountinfo", "re");
	size_t n = 0;

	must(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*u %*u %*s %4095s %4095s", root, where) == 2 && !strncmp(where, place, strlen(place)))
			must(n < 128 && asprintf(&lines[n++], "%s%s", where, strstr(root, "//deleted") ? " of something removed" : "") > 0);
	fclose(f);
	qsort(lines, n, sizeof(*lines), by_place);
	for (size_t i = 0; i < n; i++) {
		text_add(t, "%s\n", lines[i]);
		free(lines[i]);
	}
}

static void removed_setup(void)
{
	snprintf(place, sizeof(place), "%s", beside("removed"));
	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) && !mkdir(place, 0755));
	bind_directory_and_remove("gone", "directory");
	bind_and_remove("file", "the first of that name", "first", "again");
	bind_and_remove("file.1", "whose name the next one could get", "third", NULL);
	bind_and_remove("file", "the second of that name", "second", NULL);
	must(!mkfifo(below("pipe"), 0640));
	bind_file("pipe", "fifo");
	must(!unlink(below("pipe")));
	mount_at("memory", "memory");
	bind_directory_and_remove("memory/gone", "memory/directory");
	bind_and_remove("memory/file", "in memory", "memory/first", NULL);
	removed_fds[0] = open(below("first"), O_RDONLY | O_CLOEXEC);
	removed_fds[1] = open(below("directory"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(removed_fds[0] >= 0 && lseek(removed_fds[0], 4, SEEK_SET) == 4 && removed_fds[1] >= 0 && !chdir(below("directory")));
	read_roots(&removed_mounts);
}

static void expect_same(const char *what, const struct stat *a, const char *path)
{
	struct stat b;

	if (stat(path, &b) < 0 || a->st_dev != b.st_dev || a->st_ino != b.st_ino || b.st_nlink)
		fail("%s (%lx:%lu) is not %s any more (%lx:%lu), or has a name (%lu)", what, (long)a->st_dev, (long)a->st_ino, path, (long)b.st_dev, (long)b.st_ino, (long)b.st_nlink);
}

static void removed_check(void)
{
	struct text now = { 0 };
	struct stat file, dir, cwd, st;
	char got[64] = "";
	FILE *f;

	read_roots(&now);
	expect_text("mounts", removed_mounts.s, now.s);
	expect_file(below("memory/first"), "in memory");
	expect(!fstat(removed_fds[0], &file) && !fstat(removed_fds[1], &dir) && !stat(".", &cwd));
	expect_same("the open file", &file, below("first"));
	expect_same("the open directory", &dir, below("directory"));
	expect_same("the working directory", &cwd, below("directory"));
	expect(read(removed_fds[0], got, sizeof(got)) == 18 && !strcmp(got, "first of that name"));
	expect(dir.st_uid == 7 && dir.st_gid == 8 && (dir.st_mode & 07777) == 0710);
	expect(mkdir("nothing", 0755) < 0 && errno == ENOENT);
	expect(!stat(below("fifo"), &st) && S_ISFIFO(st.st_mode) && (st.st_mode & 07777) == 0640);
	f = fopen(below("again"), "a");
	expect(f && fputs(", written to later", f) > 0 && !fclose(f));
	expect_file(below("first"), "the first of that name, written to later");
	expect_file(below("second"), "the second of that name");
	expect_file(below("third"), "whose name the next one could get");
	expect(access(below("file"), F_OK) < 0 && access(below("gone"), F_OK) < 0);
}

VICTIM(ns_mounts_removed, V_KEEP_OUT, removed_setup, NULL, removed_check);

/* A lease on a file that the host has elsewhere. */
static int leased = -1;

/* A directory of the host, by another path. */
static void mount_here(void)
{
	must(!mkdir(beside("dir"), 0755) && !unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	must(!mount(beside("dir"), "/mnt", NULL, MS_BIND, NULL));
}

static void lease_setup(void)
{
	mount_here();
	leased = open("/mnt/leased", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	must(leased >= 0 && !fcntl(leased, F_SETLEASE, F_WRLCK));
}

static void lease_check(void)
{
	/* It comes back when nobody at the source has the file open any more. */
	for (int i = 0; i < 500 && fcntl(leased, F_GETLEASE) != F_WRLCK; i++)
		usleep(10000);
	expect_u64("lease", F_WRLCK, (uint64_t)fcntl(leased, F_GETLEASE));
	expect(write(leased, "still", 5) == 5 && !fcntl(leased, F_SETLEASE, F_UNLCK));
	expect_file("/mnt/leased", "still");
}

VICTIM(ns_lease, V_KEEP_OUT, lease_setup, NULL, lease_check);

/* A file that something has been mounted over since. */
static int below_fd = -1;
static char below_dir[4200];

static void over_setup(void)
{
	char path[4300];

	snprintf(below_dir, sizeof(below_dir), "%s", beside("below"));
	snprintf(path, sizeof(path), "%s/file", below_dir);
	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) && !mkdir(below_dir, 0755));
	write_text(path, "below");
	below_fd = open(path, O_RDONLY | O_CLOEXEC);
	must(below_fd >= 0 && !mount("over", below_dir, "tmpfs", 0, NULL));
	write_text(path, "above");
}

static void over_check(void)
{
	char text[16] = "", path[4300];

	snprintf(path, sizeof(path), "%s/file", below_dir);
	expect(read(below_fd, text, sizeof(text)) == 5);
	expect_text("a file below a mount", "below", text);
	expect_file(path, "above");
	expect(!umount(below_dir)); /* not in use */
}

VICTIM(ns_mounted_over, V_KEEP_OUT | V_HIDDEN, over_setup, NULL, over_check);

/* A datagram of somebody who has gone, at a socket whose path is one of the unit's mounts. */
static int receiver = -1;

static void datagram_setup(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "/mnt/receiver" };
	int sender = socket(AF_UNIX, SOCK_DGRAM, 0);

	mount_here();
	receiver = socket(AF_UNIX, SOCK_DGRAM, 0);
	must(receiver >= 0 && !bind(receiver, (void *)&a, sizeof(a)));
	must(sender >= 0 && !connect(sender, (void *)&a, sizeof(a)) && send(sender, "said", 4, 0) == 4 && !close(sender));
}

static void datagram_check(void)
{
	char text[16] = "";

	expect(recv(receiver, text, sizeof(text), MSG_DONTWAIT) == 4);
	expect_text("a datagram", "said", text);
}

VICTIM(ns_datagram, V_KEEP_OUT, datagram_setup, NULL, datagram_check);

/* The first segment of an IPC namespace has the number of any other one's first. */
static char *segment_data;

static void segment_setup(void)
{
	int id;

	must(!unshare(CLONE_NEWIPC));
	id = shmget(IPC_PRIVATE, 65536, 0600);
	segment_data = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
	must(id == 0 && segment_data != (void *)-1 && !shmctl(id, IPC_RMID, NULL));
	fill(segment_data, 65536, (uint64_t)getpid());
}

static void segment_check(void)
{
	verify("the segment", segment_data, 65536, (uint64_t)getpid());
}

VICTIM(ns_segment, 0, segment_setup, NULL, segment_check);
