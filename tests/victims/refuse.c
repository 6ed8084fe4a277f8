// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * refuse.c - states that cannot move: Godwit has to say so, naming the thing, before the process is touched
 *
 * Each kind's text is a regular expression that the refusal must match ("fd N" stands for the number that "info fd=" reports).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uring.h"
#include "victim.h"

static int held, urgent_from;
static pid_t helper;

/* Works all the time, so that harm shows. */
static uint64_t work_sum, work_rounds;

static void work(void)
{
	uint64_t s = 0;

	for (uint64_t i = 0; i < 10000; i++)
		s += mix(i);
	work_sum += s;
	work_rounds++;
	usleep(1000);
}

static void check(void)
{
	uint64_t s = 0;

	for (uint64_t i = 0; i < 10000; i++)
		s += mix(i);
	expect_u64("sum", s * work_rounds, work_sum);
	if (helper > 0)
		kill(helper, SIGKILL);
}

#define REFUSED(name, setup, text) VICTIM_TEXT(victim_refuse_##name, "refuse_" #name, setup, work, check, V_REFUSED, text)

static void hold(int fd)
{
	must(fd >= 0);
	held = fd;
	report("info fd=%d", fd);
}

/* Pipe to which a process that is not ours, and not our child, holds the other end. */
static void detached_helper(void (*run)(void *), void *arg)
{
	int p[2], status;
	pid_t child;

	must(!pipe2(p, O_CLOEXEC));
	child = fork();
	must(child >= 0);
	if (!child) {
		pid_t grandchild = fork();

		if (grandchild) {
			must(write(p[1], &grandchild, sizeof(grandchild)) == sizeof(grandchild));
			_exit(0);
		}
		signal(SIGTERM, SIG_DFL);
		alarm(120);
		run(arg);
		_exit(0);
	}
	must(read(p[0], &helper, sizeof(helper)) == sizeof(helper));
	must(waitpid(child, &status, 0) == child);
	close(p[0]);
	close(p[1]);
}

static void just_wait(void *arg)
{
	for (;;)
		pause();
}

/* A thread that stands in vfork(), since its child does not call exec. */
static void *stand_in_vfork(void *arg)
{
	pid_t pid = vfork();

	if (!pid) {
		helper = getpid();
		for (;;)
			pause();
	}
	return NULL;
}

static void vfork_setup(void)
{
	spawn(stand_in_vfork, NULL, NULL);
	while (!*(volatile pid_t *)&helper)
		usleep(1000);
}

/* It cannot be stopped as a whole either. */
VICTIM_TEXT(victim_refuse_vfork, "refuse_vfork", vfork_setup, work, check, V_REFUSED | V_NO_STOP, "vfork");

static void send_urgent(void *arg)
{
	must(send(urgent_from, "!", 1, MSG_OOB) == 1);
	just_wait(arg);
}

/* The other end is held by a process outside, which has sent urgent data. */
static int tcp_pair(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), s;

	must(!bind(l, (struct sockaddr *)&sin, len) && !listen(l, 1) && !getsockname(l, (struct sockaddr *)&sin, &len));
	must(!connect(c, (struct sockaddr *)&sin, len));
	s = urgent_from = accept(l, NULL, NULL);
	must(s >= 0);
	detached_helper(send_urgent, NULL);
	close(s);
	close(l);
	must(poll(&(struct pollfd){ .fd = c, .events = POLLPRI }, 1, 10000) == 1);
	return c;
}

static void tcp_setup(void)
{
	hold(tcp_pair());
}

REFUSED(tcp, tcp_setup, "(?i)fd N\\b.*tcp.*ESTABLISHED");

/* What has been sent lies in the queue of a socket that nobody has yet. */
static void udp_setup(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(9) };

	/* Nothing leads its datagrams elsewhere. */
	hold(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDPLITE));
	must(!connect(held, (struct sockaddr *)&sin, sizeof(sin)));
}

REFUSED(udp, udp_setup, "(?i)fd N\\b.*udp|udp.*fd N\\b");

static void corked_setup(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int on = 1;

	hold(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	must(!bind(held, (struct sockaddr *)&sin, len) && !getsockname(held, (struct sockaddr *)&sin, &len) && !connect(held, (struct sockaddr *)&sin, len));
	must(!setsockopt(held, IPPROTO_UDP, 1 /* UDP_CORK */, &on, sizeof(on)) && send(held, "half", 4, 0) == 4);
}

REFUSED(corked, corked_setup, "(?i)fd N\\b.*UDP.*not complete");

/* The other end is held by a process outside. */
static void unix_setup(void)
{
	int s[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s));
	detached_helper(just_wait, NULL);
	close(s[1]);
	hold(s[0]);
}

REFUSED(unix, unix_setup, "(?i)fd N\\b.*(unix|socketpair)");

static void unix_urgent_setup(void)
{
	int s[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) && send(s[1], "urgent", 6, MSG_OOB) == 6);
	hold(s[0]);
}

REFUSED(unix_urgent, unix_urgent_setup, "(?i)fd N\\b.*out-of-band data");

/* Who has not been accepted yet has sent a descriptor. */
static void unix_waiting_setup(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa_family_t);
	int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .head = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	struct iovec iov = { (char[]){ 'd' }, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };

	hold(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	must(!bind(held, (struct sockaddr *)&name, len) && !listen(held, 4)); /* the kernel chooses a name */
	len = sizeof(name);
	must(!getsockname(held, (struct sockaddr *)&name, &len) && !connect(client, (struct sockaddr *)&name, len));
	memcpy(CMSG_DATA(&control.head), &client, sizeof(client));
	must(sendmsg(client, &m, 0) == 1);
}

REFUSED(unix_waiting, unix_waiting_setup, "(?i)fd N\\b.*accept queue cannot be read");

static void ring_setup(void)
{
	struct tpacket_req ring = { .tp_block_size = 4096, .tp_block_nr = 1, .tp_frame_size = 2048, .tp_frame_nr = 2 };

	hold(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
	must(!setsockopt(held, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)));
	must(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, held, 0) != MAP_FAILED);
}

REFUSED(packet_ring, ring_setup, "(?i)packet ring");

static void hold_pipe(void *arg)
{
	just_wait(NULL);
}

static void pipe_setup(void)
{
	int p[2];

	/* With only one of them it would be relayed. */
	must(!pipe2(p, 0));
	detached_helper(hold_pipe, NULL);
	hold(p[0]);
}

REFUSED(pipe, pipe_setup, "(?i)fd N\\b.*pipe");

/* Two terminals whose other ends are held by a process outside: one could be relayed. */
static void tty_setup(void)
{
	int m[2], s[2];

	for (int i = 0; i < 2; i++) {
		m[i] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
		must(m[i] >= 0 && !grantpt(m[i]) && !unlockpt(m[i]));
	}
	detached_helper(just_wait, NULL);
	for (int i = 0; i < 2; i++) {
		s[i] = open(ptsname(m[i]), O_RDWR | O_NOCTTY | O_CLOEXEC);
		must(s[i] >= 0);
		close(m[i]);
	}
	hold(s[0]);
}

REFUSED(tty, tty_setup, "(?i)fd N\\b.*(tty|terminal|pts)");

static void be_tracer(void *arg)
{
	pid_t victim = (pid_t)(uintptr_t)arg;
	int status;

	if (ptrace(PTRACE_SEIZE, victim, 0, 0))
		_exit(1);
	for (;;) {
		pid_t p = waitpid(-1, &status, __WALL);

		if (p < 0)
			_exit(0);
		if (WIFSTOPPED(status))
			ptrace(PTRACE_CONT, p, 0, status >> 16 ? 0 : WSTOPSIG(status));
	}
}

static void ptraced_setup(void)
{
	FILE *f;
	char line[256];
	bool traced = false;

	detached_helper(be_tracer, (void *)(uintptr_t)getpid());
	for (int i = 0; i < 100 && !traced; i++) {
		usleep(10000);
		f = fopen("/proc/self/status", "re");
		while (fgets(line, sizeof(line), f)) {
			if (!strncmp(line, "TracerPid:", 10))
				traced = atoi(line + 10) > 0;
		}
		fclose(f);
	}
	must(traced);
}

REFUSED(ptraced, ptraced_setup, "(?i)trac");

static void seccomp_setup(void)
{
	struct sock_filter f[] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 1),
				   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog prog = { 4, f };
	int listener;

	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
	must(listener >= 0);
	close(listener); /* it stands for one that another process holds */
}

REFUSED(seccomp_notify, seccomp_setup, "(?i)seccomp");

static void landlock_setup(void)
{
	const uint64_t handled = 1 << 12; /* LANDLOCK_ACCESS_FS_MAKE_SYM */
	int rules = (int)syscall(444, &handled, sizeof(handled), 0); /* landlock_create_ruleset */

	must(rules >= 0 && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !syscall(446, rules, 0));
	close(rules);
}

REFUSED(landlock, landlock_setup, "(?i)landlock");

static void keys_setup(void)
{
	must(syscall(SYS_add_key, "user", "of a victim", "secret", 6, -2 /* KEY_SPEC_PROCESS_KEYRING */) > 0);
}

REFUSED(keys, keys_setup, "(?i)keyring");

/* Bound elsewhere, opened there and removed: what the program writes would have to be what is mounted. */
static void mount_written_setup(void)
{
	char from[4096];

	snprintf(from, sizeof(from), "%s", beside("mounted"));
	close(make_text_file(from, "text"));
	close(make_text_file(beside("place"), ""));
	must(!unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) && !mount(from, beside("place"), NULL, MS_BIND, NULL));
	hold(open(beside("place"), O_RDWR | O_CLOEXEC));
	must(!unlink(from));
}

REFUSED(mount_written, mount_written_setup, "(?i)removed.* and the program writes to it");

static void uffd_setup(void)
{
	hold((int)syscall(SYS_userfaultfd, O_CLOEXEC));
}

REFUSED(userfaultfd, uffd_setup, "(?i)fd N\\b.*userfaultfd");

static void sqpoll_setup(void)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SQPOLL };

	hold((int)syscall(SYS_io_uring_setup, 4, &p));
}

REFUSED(uring_thread, sqpoll_setup, "(?i)fd N\\b.*IORING_SETUP_SQPOLL");

static void uring_linked_setup(void)
{
	static struct ring r;
	struct io_uring_sqe *sqe;
	int ends[2];

	ring_open(&r, 4, 0, 0);
	must(!pipe2(ends, O_CLOEXEC));
	sqe = ring_next(&r);
	sqe->opcode = IORING_OP_POLL_ADD;
	sqe->fd = ends[0];
	sqe->poll32_events = POLLIN;
	sqe->flags = IOSQE_IO_LINK;
	ring_next(&r)->opcode = IORING_OP_NOP;
	ring_submit(&r, 0);
	hold(r.fd);
}

REFUSED(uring_linked, uring_linked_setup, "(?i)fd N\\b.*IORING_OP_POLL_ADD in flight.*linked");

static void uring_absolute_setup(void)
{
	static struct ring r;
	struct io_uring_sqe *sqe;
	struct __kernel_timespec at = { 1ll << 40, 0 };

	ring_open(&r, 4, 0, 0);
	sqe = ring_next(&r);
	sqe->opcode = IORING_OP_TIMEOUT;
	sqe->addr = (uintptr_t)&at;
	sqe->len = 1;
	sqe->timeout_flags = IORING_TIMEOUT_ABS;
	ring_submit(&r, 0);
	hold(r.fd);
}

REFUSED(uring_absolute, uring_absolute_setup, "(?i)fd N\\b.*IORING_OP_TIMEOUT in flight.*IORING_TIMEOUT_ABS");

static void uring_shared_setup(void)
{
	struct io_uring_params p = { 0 };

	hold((int)syscall(SYS_io_uring_setup, 4, &p));
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
}

REFUSED(uring_shared, uring_shared_setup, "(?i)io_uring.*several processes");

static void perf_setup(void)
{
	struct perf_event_attr a = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(a), .config = PERF_COUNT_SW_TASK_CLOCK };

	hold((int)syscall(SYS_perf_event_open, &a, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
}

REFUSED(perf, perf_setup, "(?i)fd N\\b.*perf");

static void secret_setup(void)
{
	int fd = (int)syscall(447, 0); /* memfd_secret */
	char *p;

	must(fd >= 0 && !ftruncate(fd, 65536));
	p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(p != MAP_FAILED);
	fill(p, 65536, 1);
	close(fd);
}

REFUSED(secretmem, secret_setup, "(?i)secret");

static void *elsewhere;

static void share_memory(void *arg)
{
	just_wait(arg);
}

/* Somebody who stays has it, too. */
static void shared_elsewhere_setup(void)
{
	elsewhere = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(elsewhere != MAP_FAILED);
	detached_helper(share_memory, NULL);
}

REFUSED(shared_elsewhere, shared_elsewhere_setup, "(?i)shared with another process");

/* As slirp4netns does: a process outside makes an interface in the network namespace of another one. */
static int hosts_net, tun_made[2];

static void hold_tun(void *arg)
{
	struct ifreq r = { .ifr_name = "tap7", .ifr_flags = IFF_TAP | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	must(fd >= 0 && !ioctl(fd, TUNSETIFF, &r));
	must(!setns(hosts_net, CLONE_NEWNET));
	must(write(tun_made[1], "", 1) == 1);
	just_wait(NULL);
}

static void tun_elsewhere_setup(void)
{
	char byte;

	hosts_net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	must(hosts_net >= 0 && !pipe2(tun_made, O_CLOEXEC) && !unshare(CLONE_NEWNET));
	detached_helper(hold_tun, NULL);
	must(read(tun_made[0], &byte, 1) == 1);
	close(tun_made[0]);
	close(tun_made[1]);
	close(hosts_net);
}

REFUSED(tun_elsewhere, tun_elsewhere_setup, "(?i)network device tap7, which process [0-9]+ .*stays behind");

static void mq_setup(void)
{
	char name[64];

	snprintf(name, sizeof(name), "/victim-%d", getpid());
	hold(mq_open(name, O_CREAT | O_RDWR | O_CLOEXEC, 0600, NULL));
	mq_unlink(name);
	must(!mq_notify(held, &(struct sigevent){ .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 }));
}

REFUSED(mqueue_notify, mq_setup, "(?i)fd N\\b.*queue.*notif");

static void pidfd_setup(void)
{
	detached_helper(just_wait, NULL);
	hold((int)syscall(SYS_pidfd_open, helper, 0));
}

REFUSED(pidfd, pidfd_setup, "(?i)fd N\\b.*pidfd");

static void proc_setup(void)
{
	char path[64];

	detached_helper(just_wait, NULL);
	snprintf(path, sizeof(path), "/proc/%d/status", helper);
	hold(open(path, O_RDONLY | O_CLOEXEC));
}

REFUSED(proc_file, proc_setup, "(?i)fd N\\b.*proc");

/* A mount that is in no tree of files: the kernel shows "/" for its root. */
static int mount_nowhere(void)
{
	int config = (int)syscall(430 /* fsopen */, "tmpfs", 1), top;

	must(config >= 0 && !syscall(431 /* fsconfig */, config, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0));
	top = (int)syscall(432 /* fsmount */, config, 1, 0);
	must(top >= 0 && !close(config));
	return top;
}

static void mount_setup(void)
{
	hold(mount_nowhere());
}

REFUSED(mount, mount_setup, "(?i)fd N\\b.*no path leads to it");

/* The path that the kernel shows for it leads to another one: the first of the host. */
static void cwd_nowhere_setup(void)
{
	int top = mount_nowhere();

	must(!fchdir(top) && !close(top));
}

REFUSED(cwd_nowhere, cwd_nowhere_setup, "(?i)process [0-9]+ \\(working directory /\\).*no path leads to it");

static void cwd_hidden_setup(void)
{
	const char *dir = beside("hidden");

	must(!mkdir(dir, 0755) && !chdir(dir) && !unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) && !mount("over", dir, "tmpfs", 0, NULL));
}

REFUSED(cwd_hidden, cwd_hidden_setup, "(?i)process [0-9]+ \\(working directory .*/hidden[.0-9]*\\).*no path leads to it");

/* Only the host that it is on has this directory. */
static const char *only_here(void)
{
	static char path[64];

	snprintf(path, sizeof(path), "/tmp/only-here-%d", getpid());
	must(!mkdir(path, 0755));
	return path;
}

static void watch_setup(void)
{
	hold(inotify_init1(IN_CLOEXEC));
	must(inotify_add_watch(held, only_here(), IN_CREATE) > 0);
}

REFUSED(watch, watch_setup, "(?i)fd N\\b.*inotify, /tmp/only-here.*not on the destination");

static void mark_setup(void)
{
	hold(fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY));
	must(!fanotify_mark(held, FAN_MARK_ADD, FAN_OPEN | FAN_EVENT_ON_CHILD, AT_FDCWD, only_here()));
}

REFUSED(mark, mark_setup, "(?i)fd N\\b.*fanotify, /tmp/only-here.*not on the destination");

static void proc_link_setup(void)
{
	hold(open("/proc/self/fd/1", O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

REFUSED(proc_link, proc_link_setup, "(?i)fd N\\b.*/fd/1.*file of a descriptor");

static int share_files(void *arg)
{
	for (;;)
		pause();
	return 0;
}

/* A process that shares our memory (and descriptors) without being a thread. */
static void share_setup(unsigned long flags)
{
	char *stack = map_anon(65536, PROT_READ | PROT_WRITE, 0);

	helper = clone(share_files, stack + 65536, (int)flags, NULL);
	must(helper > 0);
}

static void shared_vm_setup(void)
{
	share_setup(CLONE_VM | CLONE_PARENT | SIGCHLD);
}

REFUSED(shared_vm, shared_vm_setup, "(?i)memory|address space|child|share");

static void *unshared(void *arg)
{
	must(!unshare(CLONE_FILES));
	must(open("/dev/zero", O_RDONLY) >= 0);
	*(volatile int *)arg = 1;
	while (!victim_stopping)
		usleep(10000);
	return NULL;
}

static void unshared_files_setup(void)
{
	static volatile int up;

	spawn(unshared, (void *)&up, NULL);
	while (!up)
		usleep(1000);
}

REFUSED(unshared_files, unshared_files_setup, "(?i)descriptor table|files|thread");

/* Nobody can read it where it lies, once the program runs elsewhere. */
static void sealed_setup(void)
{
	char *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED);
	*p = 1;
	must(!mprotect(p, 4096, PROT_NONE) && !syscall(462, p, 4096, 0)); /* mseal */
}

REFUSED(sealed, sealed_setup, "(?i)sealed");
