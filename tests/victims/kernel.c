// SPDX-License-Identifier: GPL-2.0-or-later
/* kernel.c - victims about descriptors of kernel objects: watches of files, pidfds, netlink and packet sockets, BPF maps, tun interfaces */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

static int fd[32];
static char paths[8][4200];

static void make_path(int i, const char *name, bool dir)
{
	snprintf(paths[i], sizeof(paths[i]), "%s", beside(name));
	if (dir)
		must(!mkdir(paths[i], 0700));
	else
		close(open(paths[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

static void touch_in(const char *dir, const char *name, bool remove)
{
	char path[8500];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if (remove)
		expect(!unlink(path));
	else
		close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

/* ---- inotify ---- */

static int wd[8];

static void inotify_setup(void)
{
	int gone;

	make_path(0, "watched", true);
	make_path(1, "file", false);
	make_path(2, "other", true);
	fd[0] = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	fd[1] = inotify_init1(0);
	gone = inotify_add_watch(fd[0], "/etc", IN_CREATE);
	must(gone > 0);
	wd[0] = inotify_add_watch(fd[0], paths[0], IN_CREATE | IN_DELETE | IN_EXCL_UNLINK);
	wd[1] = inotify_add_watch(fd[0], paths[1], IN_MODIFY | IN_CLOSE_WRITE | IN_DELETE_SELF);
	must(!inotify_rm_watch(fd[0], gone)); /* a number that is free again */
	wd[2] = inotify_add_watch(fd[0], paths[2], IN_ONESHOT | IN_CREATE);
	wd[3] = inotify_add_watch(fd[1], paths[0], IN_ALL_EVENTS);
	must(wd[0] > 1 && wd[2] > wd[1] && wd[3] == 1);
	while (read(fd[0], paths[7], sizeof(paths[7])) > 0)
		; /* the number that is gone */
}

static void expect_event(int s, int watch, uint32_t mask, const char *name)
{
	_Alignas(struct inotify_event) static char buf[2][8192];
	static ssize_t have[2], at[2];
	int i = s == fd[1];
	struct inotify_event *e;

	if (at[i] >= have[i]) {
		struct pollfd p = { .fd = s, .events = POLLIN };

		at[i] = 0;
		have[i] = poll(&p, 1, 2000) == 1 ? read(s, buf[i], sizeof(buf[i])) : 0;
		if (have[i] <= 0) {
			fail("inotify: expected event %#x of %d, got none", mask, watch);
			return;
		}
	}
	e = (void *)(buf[i] + at[i]);
	at[i] += (ssize_t)(sizeof(*e) + e->len);
	if (e->wd != watch || e->mask != mask || strcmp(e->len ? e->name : "", name))
		fail("inotify: expected event %#x of %d '%s', got %#x of %d '%s'", mask, watch, name, e->mask, e->wd, e->len ? e->name : "");
}

static void inotify_check(void)
{
	char c;
	int f;

	expect(fcntl(fd[0], F_GETFL) & O_NONBLOCK);
	expect(!(fcntl(fd[1], F_GETFL) & O_NONBLOCK));
	expect(read(fd[0], &c, 1) < 0 && errno == EAGAIN); /* nothing of what happened meanwhile */
	touch_in(paths[0], "a", false);
	expect_event(fd[0], wd[0], IN_CREATE, "a");
	expect_event(fd[1], wd[3], IN_CREATE, "a");
	expect_event(fd[1], wd[3], IN_OPEN, "a");
	expect_event(fd[1], wd[3], IN_CLOSE_WRITE, "a");
	touch_in(paths[0], "a", true);
	expect_event(fd[0], wd[0], IN_DELETE, "a");
	f = open(paths[1], O_WRONLY | O_CLOEXEC);
	expect(write(f, "x", 1) == 1);
	close(f);
	expect_event(fd[0], wd[1], IN_MODIFY, "");
	expect_event(fd[0], wd[1], IN_CLOSE_WRITE, "");
	touch_in(paths[2], "once", false);
	expect_event(fd[0], wd[2], IN_CREATE, "once");
	expect_event(fd[0], wd[2], IN_IGNORED, "");
	touch_in(paths[2], "once", true);
	expect(!inotify_rm_watch(fd[0], wd[0]));
	expect_event(fd[0], wd[0], IN_IGNORED, "");
	f = inotify_add_watch(fd[0], paths[0], IN_CREATE);
	expect(f > wd[2]);
	unlink(paths[1]);
	rmdir(paths[0]);
	rmdir(paths[2]);
}

VICTIM(kernel_inotify, 0, inotify_setup, NULL, inotify_check);

/* What the program has not read yet. */
static char unread[16384];
static ssize_t unread_len;

static void unread_setup(void)
{
	char path[8500], other[8500];
	int f, twin = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), a, b;

	make_path(0, "unread", true);
	make_path(1, "unread_too", true);
	make_path(2, "unread_file", false);
	fd[0] = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	/* The twin sees the same, and is read at once. */
	for (int i = 0; i < 3; i++) {
		a = inotify_add_watch(fd[0], paths[i], IN_ALL_EVENTS);
		b = inotify_add_watch(twin, paths[i], IN_ALL_EVENTS);
		must(a > 0 && a == b);
	}
	snprintf(path, sizeof(path), "%s/x", paths[0]);
	snprintf(other, sizeof(other), "%s/y", paths[1]);
	f = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	must(write(f, "abc", 3) == 3 && lseek(f, 0, SEEK_SET) == 0 && read(f, other + 8000, 3) == 3);
	close(f);
	must(!rename(path, other) && !chmod(other, 0640) && !unlink(other));
	must(!mkdir(path, 0700) && !rmdir(path));
	close(open(paths[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	must(!rename(paths[1], path));
	must(!rename(path, paths[1]));
	f = open(paths[2], O_WRONLY | O_CLOEXEC);
	must(!unlink(paths[2]));
	close(f); /* and with it the watch */
	unread_len = read(twin, unread, sizeof(unread));
	must(unread_len > 20 * (ssize_t)sizeof(struct inotify_event));
	close(twin);
}

static void unread_check(void)
{
	_Alignas(struct inotify_event) static char now[16384];
	ssize_t n = read(fd[0], now, sizeof(now));
	int watch;

	expect_u64("bytes of events", (uint64_t)unread_len, (uint64_t)n);
	for (ssize_t at = 0; at < n && !failed();) {
		struct inotify_event *x = (void *)(now + at), *y = (void *)(unread + at);

		/* A cookie is good for nothing but being equal to another. */
		if (x->wd != y->wd || x->mask != y->mask || !x->cookie != !y->cookie || x->len != y->len || (x->len && strcmp(x->name, y->name)))
			fail("inotify event %zd, expected %#x of %d '%s', got %#x of %d '%s'", at, y->mask, y->wd, y->len ? y->name : "", x->mask,
				x->wd, x->len ? x->name : "");
		at += (ssize_t)sizeof(*x) + x->len;
	}
	watch = inotify_add_watch(fd[0], "/", IN_DELETE_SELF);
	expect_u64("number of the next watch", 4, (uint64_t)watch);
	touch_in(paths[0], "after", false);
	touch_in(paths[0], "after", true);
	n = read(fd[0], now, sizeof(now));
	expect(n > 0 && ((struct inotify_event *)(void *)now)->wd == 1 && ((struct inotify_event *)(void *)now)->mask == IN_CREATE);
	rmdir(paths[0]);
	rmdir(paths[1]);
}

VICTIM(kernel_inotify_unread, 0, unread_setup, NULL, unread_check);

/* A watch of a file that has no name any more. */
static void nameless_setup(void)
{
	make_path(0, "nameless", false);
	fd[1] = open(paths[0], O_RDWR | O_CLOEXEC);
	fd[0] = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	must(fd[1] >= 0 && inotify_add_watch(fd[0], paths[0], IN_MODIFY) == 1 && !unlink(paths[0]));
}

static void nameless_check(void)
{
	expect(write(fd[1], "x", 1) == 1);
	expect_event(fd[0], 1, IN_MODIFY, "");
}

VICTIM(kernel_inotify_nameless, 0, nameless_setup, NULL, nameless_check);

/* ---- fanotify ---- */

static void fanotify_setup(void)
{
	make_path(0, "marked", false);
	make_path(1, "ignored", false);
	fd[0] = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
	must(fd[0] >= 0);
	must(!fanotify_mark(fd[0], FAN_MARK_ADD, FAN_MODIFY | FAN_CLOSE_WRITE, AT_FDCWD, paths[0]));
	must(!fanotify_mark(fd[0], FAN_MARK_ADD, FAN_MODIFY | FAN_CLOSE_WRITE, AT_FDCWD, paths[1]));
	must(!fanotify_mark(fd[0], FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_MODIFY, AT_FDCWD, paths[1]));
}

static void write_to(const char *path)
{
	int f = open(path, O_WRONLY | O_CLOEXEC);

	expect(write(f, "x", 1) == 1);
	close(f);
}

static uint64_t fanotify_mask(void)
{
	struct fanotify_event_metadata m[8];
	ssize_t n = read(fd[0], m, sizeof(m));
	uint64_t mask = 0;

	for (size_t i = 0; n > 0 && i < (size_t)n / sizeof(m[0]); i++) {
		mask |= m[i].mask;
		expect(m[i].pid == getpid());
		close(m[i].fd);
	}
	return mask;
}

static void fanotify_check(void)
{
	expect_u64("events from before", 0, fanotify_mask());
	write_to(paths[0]);
	expect_u64("events of a marked file", FAN_MODIFY | FAN_CLOSE_WRITE, fanotify_mask());
	write_to(paths[1]);
	expect_u64("events of a file with some ignored", FAN_CLOSE_WRITE, fanotify_mask());
	unlink(paths[0]);
	unlink(paths[1]);
}

VICTIM(kernel_fanotify, 0, fanotify_setup, NULL, fanotify_check);

/* ---- pidfds ---- */

static volatile int looked; /* at the thread's pidfd: until then it does not end */

static void *thread_main(void *arg)
{
	*(volatile pid_t *)arg = (pid_t)syscall(SYS_gettid);
	while (!looked)
		usleep(10000);
	return NULL;
}

static void pidfd_setup(void)
{
	static volatile pid_t tid;
	pid_t child = fork();

	must(child >= 0);
	if (!child)
		_exit(7);
	fd[0] = (int)syscall(SYS_pidfd_open, child, 0);
	fd[4] = (int)syscall(SYS_pidfd_open, child, 0); /* another of the same */
	must(fd[0] >= 0 && fd[4] >= 0 && waitpid(child, NULL, 0) == child);
	child = fork();
	must(child >= 0);
	if (!child)
		_exit(8);
	fd[5] = (int)syscall(SYS_pidfd_open, child, 0); /* of one that waits for us */
	must(fd[5] >= 0 && !waitid(P_PID, (id_t)child, &(siginfo_t){ 0 }, WEXITED | WNOWAIT));
	fd[1] = (int)syscall(SYS_pidfd_open, getpid(), O_NONBLOCK);
	fd[2] = dup(fd[1]);
	spawn(thread_main, (void *)&tid, NULL);
	while (!tid)
		usleep(1000);
	fd[3] = (int)syscall(SYS_pidfd_open, tid, O_EXCL); /* PIDFD_THREAD */
}

static long pid_in_info(int pidfd)
{
	char path[64], line[200];
	long pid = -2;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "Pid: %ld", &pid);
	if (f)
		fclose(f);
	return pid;
}

static void pidfd_check(void)
{
	struct pollfd p = { .fd = fd[0], .events = POLLIN };
	siginfo_t ended = { 0 };
	struct stat a, b;

	expect(poll(&p, 1, 0) == 1 && (p.revents & POLLIN));
	expect(!fstat(fd[0], &a) && !fstat(fd[4], &b) && a.st_ino == b.st_ino);
	expect(syscall(SYS_pidfd_send_signal, fd[0], 0, NULL, 0) < 0 && errno == ESRCH);
	p.fd = fd[5];
	expect(poll(&p, 1, 0) == 1 && (p.revents & POLLIN));
	expect(!waitid((idtype_t)3 /* P_PIDFD */, (id_t)fd[5], &ended, WEXITED) && ended.si_code == CLD_EXITED && ended.si_status == 8);
	p.fd = fd[1];
	expect(poll(&p, 1, 0) == 0);
	expect(!syscall(SYS_pidfd_send_signal, fd[2], 0, NULL, 0));
	expect_u64("process behind a pidfd", (uint64_t)getpid(), (uint64_t)pid_in_info(fd[1]));
	expect(fcntl(fd[1], F_GETFL) & O_NONBLOCK);
	if (fd[3] >= 0)
		expect(!syscall(SYS_pidfd_send_signal, fd[3], 0, NULL, 0));
	looked = 1;
	join_all();
}

VICTIM(kernel_pidfd, 0, pidfd_setup, NULL, pidfd_check);

/* ---- netlink, packet and raw sockets ---- */

static struct sockaddr_nl nl_name;

static void netlink_setup(void)
{
	struct sockaddr_nl any = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK }, kernel = { .nl_family = AF_NETLINK };
	socklen_t len = sizeof(nl_name);
	int on = 1, group = RTNLGRP_NEXTHOP;

	fd[0] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	must(!bind(fd[0], (void *)&any, sizeof(any)) && !getsockname(fd[0], (void *)&nl_name, &len));
	must(!setsockopt(fd[0], SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)));
	must(!setsockopt(fd[0], SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on)));
	fd[1] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	must(!connect(fd[1], (void *)&kernel, sizeof(kernel)));
	fd[2] = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
}

/* Interfaces of others come and go. */
static void netlink_work(void)
{
	char news[8192];

	while (recv(fd[0], news, sizeof(news), MSG_DONTWAIT) > 0)
		;
	usleep(1000);
}

static void netlink_check(void)
{
	struct {
		struct nlmsghdr head;
		struct ifinfomsg info;
	} request = { .head = { .nlmsg_len = sizeof(request), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 77 },
		.info.ifi_index = (int)if_nametoindex("lo") };
	struct sockaddr_nl now = { 0 };
	socklen_t len = sizeof(now);
	uint32_t groups[4] = { 0 };
	char answer[8192];
	int value = 0;

	expect(!getsockname(fd[0], (void *)&now, &len));
	expect_u64("netlink port", nl_name.nl_pid, now.nl_pid);
	expect_u64("netlink groups", RTMGRP_LINK | 1u << (RTNLGRP_NEXTHOP - 1), now.nl_groups);
	len = sizeof(groups);
	expect(!getsockopt(fd[0], SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &len));
	expect(groups[0] & 1u << (RTNLGRP_NEXTHOP - 1));
	len = sizeof(value);
	expect(!getsockopt(fd[0], SOL_NETLINK, NETLINK_EXT_ACK, &value, &len) && value == 1);
	for (int i = 0; i < 2; i++) {
		expect(send(fd[i], &request, sizeof(request), 0) == sizeof(request));
		do
			expect(recv(fd[i], answer, sizeof(answer), 0) > 0);
		while (!failed() && ((struct nlmsghdr *)(void *)answer)->nlmsg_seq != 77);
		expect(((struct nlmsghdr *)(void *)answer)->nlmsg_type == RTM_NEWLINK);
	}
}

VICTIM(kernel_netlink, 0, netlink_setup, netlink_work, netlink_check);

static void packet_setup(void)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = (int)if_nametoindex("lo") };
	struct packet_mreq join = { .mr_ifindex = a.sll_ifindex, .mr_type = PACKET_MR_PROMISC };
	struct sock_filter code[] = { { BPF_LD | BPF_B | BPF_ABS, 0, 0, 14 }, { BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 'y' },
		{ BPF_RET | BPF_K, 0, 0, 0xffff }, { BPF_RET | BPF_K, 0, 0, 0 } };
	struct sock_fprog filter = { 4, code };
	struct tpacket_req ring = { .tp_block_size = 8192, .tp_block_nr = 2, .tp_frame_size = 2048, .tp_frame_nr = 8 };
	int on = 1;

	fd[0] = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	must(!bind(fd[0], (void *)&a, sizeof(a)));
	must(!setsockopt(fd[0], SOL_PACKET, PACKET_ADD_MEMBERSHIP, &join, sizeof(join)));
	must(!setsockopt(fd[0], SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)));
	must(!setsockopt(fd[0], SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)));
	fd[1] = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* receives nothing */
	fd[4] = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	must(!setsockopt(fd[4], SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)));
	fd[2] = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, 253);
	must(!setsockopt(fd[2], IPPROTO_IP, IP_HDRINCL, &on, sizeof(on)));
	fd[3] = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, 254);
}

static void packet_check(void)
{
	struct sockaddr_ll a = { 0 };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	char frame[64] = { 0 }, buf[128];
	int value = 0;

	expect(!getsockname(fd[0], (void *)&a, &len));
	expect_u64("protocol of a packet socket", htons(0x88b5), a.sll_protocol);
	expect_u64("interface of a packet socket", if_nametoindex("lo"), (uint64_t)a.sll_ifindex);
	len = sizeof(value);
	expect(!getsockopt(fd[0], SOL_PACKET, PACKET_AUXDATA, &value, &len) && value == 1);
	frame[12] = (char)0x88;
	frame[13] = (char)0xb5;
	for (int i = 0; i < 2; i++) { /* 'x' does not pass the filter */
		frame[14] = (char)('x' + i);
		expect(send(fd[0], frame, sizeof(frame), 0) == sizeof(frame));
	}
	expect(recv(fd[0], buf, sizeof(buf), 0) == sizeof(frame) && buf[14] == 'y');
	expect(mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd[4], 0) != MAP_FAILED);
	len = sizeof(value);
	expect(!getsockopt(fd[2], IPPROTO_IP, IP_HDRINCL, &value, &len) && value == 1);
	len = sizeof(value);
	expect(!getsockopt(fd[3], SOL_SOCKET, SO_PROTOCOL, &value, &len) && value == 254);
	expect(sendto(fd[3], "raw", 3, 0, (void *)&to, sizeof(to)) == 3);
	expect(recv(fd[3], buf, sizeof(buf), 0) == 23 && !memcmp(buf + 20, "raw", 3));
}

VICTIM(kernel_packet, 0, packet_setup, NULL, packet_check);

/* ---- BPF maps ---- */

static long bpf_call(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int make_map(uint32_t type, uint32_t key, uint32_t value, uint32_t n, uint32_t flags, const char *name)
{
	union bpf_attr a = { .map_type = type, .key_size = key, .value_size = value, .max_entries = n, .map_flags = flags };

	strcpy(a.map_name, name);
	return (int)bpf_call(BPF_MAP_CREATE, &a);
}

static long map_set(int map, const void *key, const void *value)
{
	union bpf_attr a = { .map_fd = (uint32_t)map, .key = (uintptr_t)key, .value = (uintptr_t)value };

	return bpf_call(BPF_MAP_UPDATE_ELEM, &a);
}

static long map_get(int map, const void *key, void *value)
{
	union bpf_attr a = { .map_fd = (uint32_t)map, .key = (uintptr_t)key, .value = (uintptr_t)value };

	return bpf_call(BPF_MAP_LOOKUP_ELEM, &a);
}

static void bpf_setup(void)
{
	fd[0] = make_map(BPF_MAP_TYPE_HASH, 4, 16, 1000, 0, "victim_hash");
	fd[1] = make_map(BPF_MAP_TYPE_ARRAY, 4, 8, 50, 0, "victim_array");
	fd[2] = make_map(BPF_MAP_TYPE_ARRAY, 4, 8, 5, 0, "frozen");
	must(fd[0] >= 0 && fd[1] >= 0 && fd[2] >= 0);
	for (uint32_t i = 0; i < 700; i++) {
		uint64_t v[2] = { mix(i), i };

		must(!map_set(fd[0], &i, v));
	}
	for (uint32_t i = 0; i < 50; i++) {
		uint64_t v = mix(1000 + i);

		must(!map_set(fd[1], &i, &v));
	}
	must(!bpf_call(BPF_MAP_FREEZE, &(union bpf_attr){ .map_fd = (uint32_t)fd[2] }));
}

static void bpf_check(void)
{
	struct bpf_map_info info = { 0 };
	union bpf_attr a = { .info = { .bpf_fd = (uint32_t)fd[0], .info_len = sizeof(info), .info = (uintptr_t)&info } };
	uint64_t v[2] = { 0 };
	uint32_t key = 700;

	expect(!bpf_call(BPF_OBJ_GET_INFO_BY_FD, &a));
	expect_text("name of a map", "victim_hash", info.name);
	expect_u64("size of a map", 1000, info.max_entries);
	for (uint32_t i = 0; i < 700; i++) {
		expect(!map_get(fd[0], &i, v));
		expect_u64("value in a hash", mix(i), v[0]);
	}
	expect(map_get(fd[0], &key, v) < 0 && errno == ENOENT);
	for (uint32_t i = 0; i < 50; i++) {
		expect(!map_get(fd[1], &i, v));
		expect_u64("value in an array", mix(1000 + i), v[0]);
	}
	expect(!map_set(fd[0], &key, v));
	key = 1;
	expect(map_set(fd[2], &key, v) < 0 && errno == EPERM);
}

VICTIM(kernel_bpf_map, 0, bpf_setup, NULL, bpf_check);

/* ---- tun ---- */

static char tun_name[IFNAMSIZ];

static void tun_setup(void)
{
	struct ifreq r = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	struct sockaddr_in *in = (void *)&r.ifr_addr;
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char drop[2000];

	snprintf(r.ifr_name, sizeof(r.ifr_name), "vt%d", getpid() % 10000);
	fd[0] = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	must(fd[0] >= 0 && !ioctl(fd[0], TUNSETIFF, &r));
	strcpy(tun_name, r.ifr_name);
	fd[1] = open("/dev/net/tun", O_RDWR | O_CLOEXEC); /* makes none */
	must(fd[1] >= 0);
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(0x0a630001 + ((uint32_t)getpid() % 250 << 8));
	must(!ioctl(s, SIOCSIFADDR, &r));
	in->sin_addr.s_addr = htonl(0xffffff00);
	must(!ioctl(s, SIOCSIFNETMASK, &r));
	r.ifr_mtu = 1300;
	must(!ioctl(s, SIOCSIFMTU, &r));
	r.ifr_flags = 1 /* IFF_UP */;
	must(!ioctl(s, SIOCSIFFLAGS, &r));
	close(s);
	usleep(300000); /* what IPv6 sends first */
	while (read(fd[0], drop, sizeof(drop)) > 0)
		;
}

static void tun_work(void)
{
	char drop[2000];

	while (read(fd[0], drop, sizeof(drop)) > 0)
		;
	usleep(1000);
}

static void tun_check(void)
{
	struct ifreq r = { 0 };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char packet[2000];
	bool found = false;

	expect(!ioctl(fd[0], TUNGETIFF, &r));
	expect_text("name of an interface", tun_name, r.ifr_name);
	expect(ioctl(fd[1], TUNGETIFF, &r) < 0);
	expect(fcntl(fd[0], F_GETFL) & O_NONBLOCK);
	strcpy(r.ifr_name, tun_name);
	expect(!ioctl(s, SIOCGIFMTU, &r) && r.ifr_mtu == 1300);
	expect(!ioctl(s, SIOCGIFADDR, &r));
	to.sin_addr.s_addr = htonl(0x0a630002 + ((uint32_t)getpid() % 250 << 8));
	expect_u64("address of an interface", ntohl(to.sin_addr.s_addr) - 1, ntohl(((struct sockaddr_in *)(void *)&r.ifr_addr)->sin_addr.s_addr));
	expect(sendto(s, "through the tunnel", 18, 0, (void *)&to, sizeof(to)) == 18);
	for (int i = 0; i < 200 && !found; i++) {
		ssize_t n = read(fd[0], packet, sizeof(packet));

		found = n == 46 && !memcmp(packet + 28, "through the tunnel", 18);
		if (n < 0)
			usleep(1000);
	}
	if (!found)
		fail("a packet for the other end of a tunnel did not come");
	close(s);
}

VICTIM(kernel_tun, 0, tun_setup, tun_work, tun_check);
