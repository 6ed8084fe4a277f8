// SPDX-License-Identifier: GPL-2.0-or-later
/* peer_cred.c - victims about what a unix socket says of who made the other end */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

#define ENDS 10
static int fds[ENDS], listeners[2];
static struct ucred was[ENDS];
static gid_t groups_were[ENDS][8];
static socklen_t groups_len[ENDS];
static struct sockaddr_un names[2];
static socklen_t name_len[2];

static void raise_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	must(!syscall(SYS_capget, &header, data));
	data[0].effective = data[0].permitted;
	data[1].effective = data[1].permitted;
	must(!syscall(SYS_capset, &header, data));
}

/* Who calls what follows; 0: root. */
static void be(uid_t uid)
{
	gid_t groups[2] = { uid + 500, uid + 600 };

	must(!setresuid(-1, 0, -1) && !setresgid(-1, uid ? uid + 100 : 0, -1) && !setgroups(uid ? 2 : 0, groups) && !setresuid(-1, uid, -1));
	raise_capabilities();
}

static void look(int fd, struct ucred *ret, gid_t groups[8], socklen_t *ret_len)
{
	socklen_t len = sizeof(*ret);

	expect(!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &len));
	*ret_len = 8 * sizeof(gid_t);
	expect(!getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, ret_len));
}

static int connect_as(uid_t uid, int i)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	be(uid);
	must(fd >= 0 && !connect(fd, (void *)&names[i], name_len[i]));
	be(0);
	return fd;
}

/* A listener of one, a connection from another that has been accepted, and one from a third that waits. */
static void serve(int i, const char *name, uid_t uid)
{
	names[i].sun_family = AF_UNIX;
	snprintf(names[i].sun_path + !*name, sizeof(names[i].sun_path) - 1, "%s", *name ? name : "peer-cred");
	name_len[i] = *name ? sizeof(names[i]) : (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen("peer-cred"));
	listeners[i] = socket(AF_UNIX, SOCK_STREAM, 0);
	must(listeners[i] >= 0 && !bind(listeners[i], (void *)&names[i], name_len[i]));
	be(uid);
	must(!listen(listeners[i], 5));
	be(0);
	fds[3 * i] = connect_as(uid + 1, i);
	fds[3 * i + 1] = accept(listeners[i], NULL, NULL);
	fds[3 * i + 2] = connect_as(uid + 2, i);
	must(fds[3 * i + 1] >= 0);
}

static char stack[16384] __attribute__((aligned(16)));

/* In the table of descriptors of its parent. */
static int pair_of_another(void *fd)
{
	if (syscall(SYS_setresgid, 1341, 1341, 1341) || syscall(SYS_setresuid, 1241, 1241, 1241))
		return 1;
	return socketpair(AF_UNIX, SOCK_DGRAM, 0, fd) < 0;
}

static void setup(void)
{
	int status = -1;
	pid_t child;

	serve(0, "", 1201);
	serve(1, beside("socket"), 1211);
	be(1221);
	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, &fds[6]));
	be(0);
	child = clone(pair_of_another, stack + sizeof(stack), CLONE_FILES | CLONE_VM | SIGCHLD, &fds[8]);
	must(child > 0 && waitpid(child, &status, 0) == child && !status);
	for (int i = 0; i < ENDS; i++)
		look(fds[i], &was[i], groups_were[i], &groups_len[i]);
	must(was[0].uid == 1201 && was[1].uid == 1202 && was[3].uid == 1211 && was[4].uid == 1212 && was[6].uid == 1221 && was[8].pid == child);
}

static void compare(const char *what, int fd, const struct ucred *expected, const gid_t *groups, socklen_t len)
{
	struct ucred now = { 0 };
	gid_t now_groups[8];
	socklen_t now_len;

	look(fd, &now, now_groups, &now_len);
	expect_u64(what, expected->uid, now.uid);
	expect_u64(what, expected->gid, now.gid);
	expect(now_len == len && !memcmp(now_groups, groups, len));
}

static void check(void)
{
	static const char *const whats[] = { "client", "accepted", "client that waits" };
	struct ucred now = { 0 };
	gid_t groups[8];
	socklen_t len;
	char what[80];

	for (int i = 0; i < ENDS; i++) {
		snprintf(what, sizeof(what), "peer of fd %d (%s)", i, i < 6 ? whats[i % 3] : i < 8 ? "pair" : "pair of the dead");
		compare(what, fds[i], &was[i], groups_were[i], groups_len[i]);
	}
	look(fds[8], &now, groups, &len);
	expect_u64("who made the pair of the dead", (uint64_t)was[8].pid, (uint64_t)now.pid);
	for (int i = 0; i < 2; i++) {
		int fd = connect_as(0, i), accepted = accept(listeners[i], NULL, NULL);

		expect(fd >= 0 && accepted >= 0);
		look(accepted, &now, groups, &len);
		expect_u64("who has waited to be accepted", 1203 + 10 * (uint64_t)i, now.uid);
		expect_u64("the group of who has waited to be accepted", 1303 + 10 * (uint64_t)i, now.gid);
		look(fd, &now, groups, &len);
		expect_u64("who listens", was[3 * i].uid, now.uid);
	}
	unlink(names[1].sun_path);
}

VICTIM(unix_peer_cred, 0, setup, NULL, check);

/* ---- descriptors that are passed on all the time, into a buffer that has room for nothing else ---- */

static int passing[2];

static void passing_setup(void)
{
	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, passing));
}

static void passing_work(void)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} c;
	char byte = 'p';
	struct iovec iov = { &byte, 1 };

	for (int i = 0; i < 64; i++) {
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof(c) };
		int got;

		c.head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&c.head), &passing[0], sizeof(int));
		must(sendmsg(passing[0], &m, 0) == 1);
		m.msg_controllen = sizeof(c);
		must(recvmsg(passing[1], &m, MSG_CMSG_CLOEXEC) == 1);
		if (m.msg_flags & MSG_CTRUNC || m.msg_controllen < sizeof(c.head) || c.head.cmsg_type != SCM_RIGHTS) {
			fail("a message with a descriptor came with %zu bytes of control messages, the first of type %d", (size_t)m.msg_controllen, c.head.cmsg_type);
			return;
		}
		memcpy(&got, CMSG_DATA(&c.head), sizeof(int));
		must(!close(got));
	}
}

static void passing_check(void)
{
	passing_work();
}

VICTIM(unix_passing, V_OPENS, passing_setup, passing_work, passing_check);
