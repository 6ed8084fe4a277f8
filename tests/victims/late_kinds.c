// SPDX-License-Identifier: GPL-2.0-or-later
/* late_kinds.c - late.c for sockets, terminals, System V objects and message queues */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "late.h"
#include "victim.h"

#define BEGIN(table) late_begin(table, (int)(sizeof(table) / sizeof(*table)))

static int unixes[2];

/* ---- of sockets ---- */

static int listening, tcp[2], udp;

static void put(int fd, int level, int name, int v) { must(!setsockopt(fd, level, name, &v, sizeof(v))); }
static int get(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof(v);

	must(!getsockopt(fd, level, name, &v, &len));
	return v;
}
#define OPTION(id, fd, level, name, base)                                 \
	static void set_##id(int v) { put(fd, level, name, (base) + v); } \
	static int get_##id(void) { return get(fd, level, name) - (base); }

OPTION(keepalive, tcp[0], SOL_SOCKET, SO_KEEPALIVE, 0)
OPTION(nodelay, tcp[0], IPPROTO_TCP, TCP_NODELAY, 0)
OPTION(keepidle, tcp[0], IPPROTO_TCP, TCP_KEEPIDLE, 100)
OPTION(user_timeout, tcp[0], IPPROTO_TCP, TCP_USER_TIMEOUT, 1000)
OPTION(notsent, tcp[0], IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1000)
OPTION(ttl, udp, IPPROTO_IP, IP_TTL, 10)
OPTION(broadcast, udp, SOL_SOCKET, SO_BROADCAST, 0)
OPTION(priority, udp, SOL_SOCKET, SO_PRIORITY, 0)
OPTION(mark, udp, SOL_SOCKET, SO_MARK, 0)
OPTION(pktinfo, udp, IPPROTO_IP, IP_PKTINFO, 0)
OPTION(recverr, udp, IPPROTO_IP, IP_RECVERR, 0)
OPTION(timestamp, udp, SOL_SOCKET, SO_TIMESTAMP, 0)
OPTION(passcred, unixes[0], SOL_SOCKET, SO_PASSCRED, 0)
OPTION(passpidfd, unixes[1], SOL_SOCKET, 76, 0)
OPTION(peek_off, unixes[0], SOL_SOCKET, SO_PEEK_OFF, 0)
OPTION(lowat, tcp[1], SOL_SOCKET, SO_RCVLOWAT, 1)
OPTION(oob, tcp[1], SOL_SOCKET, SO_OOBINLINE, 0)

static void set_sndbuf(int v) { put(tcp[0], SOL_SOCKET, SO_SNDBUF, 20000 + 1000 * v); }
static int get_sndbuf(void) { return (get(tcp[0], SOL_SOCKET, SO_SNDBUF) / 2 - 20000) / 1000; }
static void set_linger(int v)
{
	struct linger l = { v > 0, v };

	must(!setsockopt(tcp[1], SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
}
static int get_linger(void)
{
	struct linger l = { 0 };
	socklen_t len = sizeof(l);

	must(!getsockopt(tcp[1], SOL_SOCKET, SO_LINGER, &l, &len));
	return l.l_onoff ? l.l_linger : 0;
}
static void set_rcvtimeo(int v)
{
	struct timeval t = { v, 0 };

	must(!setsockopt(udp, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)));
}
static int get_rcvtimeo(void)
{
	struct timeval t = { -1, 0 };
	socklen_t len = sizeof(t);

	must(!getsockopt(udp, SOL_SOCKET, SO_RCVTIMEO, &t, &len));
	return (int)t.tv_sec;
}
static void set_backlog(int v) { must(!listen(listening, 10 + v)); }
static int get_backlog(void)
{
	struct tcp_info i;
	socklen_t len = sizeof(i);

	must(!getsockopt(listening, IPPROTO_TCP, TCP_INFO, &i, &len));
	return (int)i.tcpi_sacked - 10;
}
static const struct late_attribute of_sockets[] = {
	LATE(keepalive, 2), LATE(nodelay, 2), LATE(keepidle, 100), LATE(user_timeout, 100), LATE(notsent, 100),
	LATE(ttl, 50), LATE(broadcast, 2), LATE(priority, 6), LATE(mark, 100), LATE(pktinfo, 2), LATE(recverr, 2),
	LATE(timestamp, 2), LATE(passcred, 2), LATE(passpidfd, 2), LATE(peek_off, 20), LATE(lowat, 20), LATE(oob, 2),
	LATE(sndbuf, 20), LATE(linger, 10), LATE(rcvtimeo, 30), LATE(backlog, 50),
};

static void sockets_setup(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);

	must((listening = socket(AF_INET, SOCK_STREAM, 0)) >= 0 && !bind(listening, (struct sockaddr *)&a, len) && !listen(listening, 10));
	must(!getsockname(listening, (struct sockaddr *)&a, &len) && (tcp[0] = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
	must(!connect(tcp[0], (struct sockaddr *)&a, len) && (tcp[1] = accept(listening, NULL, NULL)) >= 0);
	must((udp = socket(AF_INET, SOCK_DGRAM, 0)) >= 0 && !socketpair(AF_UNIX, SOCK_STREAM, 0, unixes));
	BEGIN(of_sockets);
}

VICTIM(late_sockets, 0, sockets_setup, late_work, late_check);

/* ---- of other families ---- */

static int raw, six, route, packets, named;

OPTION(hdrincl, raw, IPPROTO_IP, IP_HDRINCL, 0)
OPTION(raw_ttl, raw, IPPROTO_IP, IP_TTL, 20)
OPTION(hops, six, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 30)
OPTION(tclass, six, IPPROTO_IPV6, IPV6_TCLASS, 0)
OPTION(recvpktinfo, six, IPPROTO_IPV6, IPV6_RECVPKTINFO, 0)
OPTION(six_mark, six, SOL_SOCKET, SO_MARK, 0)
OPTION(auxdata, packets, SOL_PACKET, PACKET_AUXDATA, 0)
OPTION(packet_mark, packets, SOL_SOCKET, SO_MARK, 0)
OPTION(unix_pass, named, SOL_SOCKET, SO_PASSCRED, 0)

static void set_member(int v)
{
	struct ip_mreqn m = { .imr_multiaddr.s_addr = htonl(0xe0010203), .imr_ifindex = 1 };
	static bool is;

	if (is != !!v)
		must(!setsockopt(raw, IPPROTO_IP, v ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, &m, sizeof(m)));
	is = v;
}
static int get_member(void)
{
	struct ip_mreqn m = { .imr_multiaddr.s_addr = htonl(0xe0010203), .imr_ifindex = 1 };

	if (setsockopt(raw, IPPROTO_IP, IP_DROP_MEMBERSHIP, &m, sizeof(m)) < 0)
		return 0;
	must(!setsockopt(raw, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)));
	return 1;
}
static void set_group(int v) { put(route, SOL_NETLINK, v ? NETLINK_ADD_MEMBERSHIP : NETLINK_DROP_MEMBERSHIP, RTNLGRP_ND_USEROPT); }
static int get_group(void)
{
	uint32_t groups[4] = { 0 };
	socklen_t len = sizeof(groups);

	must(!getsockopt(route, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &len));
	return groups[(RTNLGRP_ND_USEROPT - 1) / 32] >> (RTNLGRP_ND_USEROPT - 1) % 32 & 1;
}
static void set_netlink_info(int v) { put(route, SOL_NETLINK, NETLINK_PKTINFO, v); }
static int get_netlink_info(void) { return get(route, SOL_NETLINK, NETLINK_PKTINFO); }

static const struct late_attribute of_families[] = {
	LATE(hdrincl, 2), LATE(raw_ttl, 20), LATE(hops, 20), LATE(tclass, 50), LATE(recvpktinfo, 2), LATE(six_mark, 50), LATE(auxdata, 2), LATE(packet_mark, 50),
	LATE(unix_pass, 2), LATE(member, 2), LATE(group, 2), LATE(netlink_info, 2),
};

static void families_setup(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "\0late-families" };

	must((raw = socket(AF_INET, SOCK_RAW, 253)) >= 0 && (six = socket(AF_INET6, SOCK_DGRAM, 0)) >= 0);
	must((route = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)) >= 0 && (packets = socket(AF_PACKET, SOCK_RAW, 0)) >= 0);
	must((named = socket(AF_UNIX, SOCK_DGRAM, 0)) >= 0 && !bind(named, (struct sockaddr *)&a, sizeof(a)));
	BEGIN(of_families);
}

VICTIM(late_families, 0, families_setup, late_work, late_check);

/* ---- terminals, System V objects, message queues ---- */

static int master, slave, queue_id, sem_id, shm_id;
static mqd_t queue;
static char *attached;

static void set_min(int v)
{
	struct termios t;

	must(!tcgetattr(slave, &t));
	t.c_cc[VMIN] = (cc_t)(v + 1);
	t.c_lflag = v % 2 ? t.c_lflag | ECHO : t.c_lflag & ~(tcflag_t)ECHO;
	must(!tcsetattr(slave, TCSANOW, &t));
}
static int get_min(void)
{
	struct termios t;

	must(!tcgetattr(slave, &t));
	return t.c_cc[VMIN] % 2 == !!(t.c_lflag & ECHO) ? -1 : t.c_cc[VMIN] - 1;
}
static void set_rows(int v)
{
	struct winsize w = { (unsigned short)v, 80, 0, 0 };

	must(!ioctl(master, TIOCSWINSZ, &w));
}
static int get_rows(void)
{
	struct winsize w = { 0 };

	ioctl(slave, TIOCGWINSZ, &w);
	return w.ws_row;
}
static void set_packet(int v) { must(!ioctl(master, TIOCPKT, &v)); }
static int get_packet(void)
{
	int v = -1;

	ioctl(master, TIOCGPKT, &v);
	return v;
}
static void set_semaphore(int v) { must(semctl(sem_id, 1, SETVAL, v) >= 0); }
static int get_semaphore(void) { return semctl(sem_id, 1, GETVAL); }
static void set_sem_mode(int v)
{
	struct semid_ds d;

	must(!semctl(sem_id, 0, IPC_STAT, &d));
	d.sem_perm.mode = v ? 0600 : 0666;
	must(!semctl(sem_id, 0, IPC_SET, &d));
}
static int get_sem_mode(void)
{
	struct semid_ds d;

	must(!semctl(sem_id, 0, IPC_STAT, &d));
	return (d.sem_perm.mode & 0777) == 0600;
}
static void set_attached(int v)
{
	if (attached)
		must(!shmdt(attached));
	attached = v ? shmat(shm_id, NULL, v == 2 ? SHM_RDONLY : 0) : NULL;
	must(attached != (void *)-1);
}
static int get_attached(void)
{
	struct shmid_ds d;

	must(!shmctl(shm_id, IPC_STAT, &d));
	if (d.shm_nattch != (attached ? 2u : 1u))
		return -1;
	return !attached ? 0 : syscall(SYS_getcwd, attached, 4096) < 0 ? 2 : 1; /* the kernel may write there, or not */
}
static void set_messages(int v)
{
	struct { long type; char text[8]; } m = { 1, "late" };

	while (msgrcv(queue_id, &m, sizeof(m.text), 0, IPC_NOWAIT) >= 0)
		;
	for (int i = 0; i < v; i++)
		must(!msgsnd(queue_id, &m, 4, IPC_NOWAIT));
}
static int get_messages(void)
{
	struct msqid_ds d;

	must(!msgctl(queue_id, IPC_STAT, &d));
	return (int)d.msg_qnum;
}
static void set_posted(int v)
{
	char b[64];
	unsigned prio;

	while (mq_receive(queue, b, sizeof(b), &prio) >= 0)
		;
	for (int i = 0; i < v; i++)
		must(!mq_send(queue, "late", 4, (unsigned)i));
}
static int get_posted(void)
{
	struct mq_attr a;

	must(!mq_getattr(queue, &a));
	return (int)a.mq_curmsgs;
}

static const struct late_attribute of_objects[] = {
	LATE(min, 20), LATE(rows, 60), LATE(packet, 2), LATE(semaphore, 50), LATE(sem_mode, 2), LATE(attached, 3), LATE(messages, 6), LATE(posted, 6),
};

static void objects_setup(void)
{
	struct mq_attr a = { .mq_maxmsg = 8, .mq_msgsize = 64 };
	char name[32];

	must((master = posix_openpt(O_RDWR | O_NOCTTY)) >= 0 && !grantpt(master) && !unlockpt(master) && (slave = open(ptsname(master), O_RDWR | O_NOCTTY)) >= 0);
	must((sem_id = semget(IPC_PRIVATE, 3, 0666)) >= 0 && (queue_id = msgget(IPC_PRIVATE, 0666)) >= 0 && (shm_id = shmget(IPC_PRIVATE, 8192, 0666)) >= 0);
	must(shmat(shm_id, NULL, 0) != (void *)-1);
	snprintf(name, sizeof(name), "/late.%d", getpid());
	must((queue = mq_open(name, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &a)) != (mqd_t)-1 && !mq_unlink(name));
	BEGIN(of_objects);
}

static void objects_check(void)
{
	late_check();
	semctl(sem_id, 0, IPC_RMID);
	msgctl(queue_id, IPC_RMID, NULL);
	shmctl(shm_id, IPC_RMID, NULL);
}

VICTIM(late_objects, 0, objects_setup, late_work, objects_check);

/* ---- numbers that change files with each other all the time: each must have its own when it has it again ---- */

#define NUMBERS 4

static int number[NUMBERS], holds[NUMBERS];
static uint64_t change;

static void see_file(int i)
{
	uint64_t id = 0;

	must(pread(number[i], &id, sizeof(id), 0) == (ssize_t)sizeof(id));
	if (id != (uint64_t)holds[i] + 1)
		fail("descriptor %d: the file of another one, expected %d, got %d", number[i], holds[i] + 1, (int)id);
}

static void numbers_setup(void)
{
	for (int i = 0; i < NUMBERS; i++) {
		uint64_t id = (uint64_t)(holds[i] = i) + 1;

		must((number[i] = memfd_create("late", MFD_CLOEXEC)) >= 0 && write(number[i], &id, sizeof(id)) == (ssize_t)sizeof(id));
	}
}

static void numbers_work(void)
{
	int i = (int)(change % NUMBERS), j = (int)(mix(change) % NUMBERS), spare = dup(number[i]), held = holds[i];

	must(spare >= 0 && dup2(number[j], number[i]) >= 0 && dup2(spare, number[j]) >= 0 && !close(spare));
	holds[i] = holds[j];
	holds[j] = held;
	see_file(i);
	see_file(j);
	change++;
}

static void numbers_check(void)
{
	for (int i = 0; i < NUMBERS; i++)
		see_file(i);
}

VICTIM(late_numbers, V_OPENS, numbers_setup, numbers_work, numbers_check);
