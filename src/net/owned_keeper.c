/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* owned_keeper.c - godwit-address: keeps the addresses of one process at this host, as long as the process is here; see owned.h */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "kern/fdpass.h"
#include "kern/nsfs.h"
#include "kern/proc_start.h"
#include "net/owned_internal.h"
#include "net/redirect.h"

#define LOOK_MS 1000    /* at what no event tells of: that the process has become a stub */
#define DOUBT_MS 20
#define DOUBT_TIMES 25u /* how often it must be seen to run: who is killed with its tracer is traced by nobody for a moment */
#define ANNOUNCE_MAX 4u

static const unsigned announce_ms[ANNOUNCE_MAX] = { 0, 100, 1000, 3000 };

struct keeping {
	struct owned o;
	int process; /* a pidfd; -1: it had ended */
	int records; /* inotify */
	int maker;   /* a pidfd of who has forked this keeper */
	uint64_t began_ns;
	unsigned announced;
	struct netlink nl;
};

static bool has_ended(const struct keeping *k)
{
	struct pollfd p = { k->process, POLLIN, 0 };

	return k->process < 0 || poll(&p, 1, 0) > 0;
}

static ssize_t read_proc(pid_t pid, const char *name, char *text, size_t size)
{
	cleanup_close int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, size - 1);
	text[MAX(n, 0)] = 0;
	return n;
}

/* It stands for a unit that is elsewhere (home/stub.c). */
static bool is_stub(pid_t pid)
{
	char text[64];

	return read_proc(pid, "cmdline", text, sizeof(text)) > 0 && !strncmp(text, "godwit-stub: ", 13);
}

/* Still this keeper's record. */
static bool is_mine(struct keeping *k)
{
	struct owned now;

	return owned_read(k->o.pid, &now) == 0 && now.keeper == getpid();
}

static void set(const char *device, const char *name)
{
	char path[128];
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/%s", device, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)!write(fd, "1", 1);
}

static void __attribute__((noreturn)) give_up(struct keeping *k)
{
	cleanup_close int lock = owned_lock(NULL);

	if (lock >= 0 && is_mine(k))
		owned_take_away(&k->nl, &k->o);
	_exit(0);
}

/* Without a worker that could say so: whether the process has been let go. */
static void find_out(struct keeping *k)
{
	char text[4096], *at;

	for (unsigned times = 0; times < DOUBT_TIMES; poll(NULL, 0, DOUBT_MS)) {
		if (has_ended(k))
			give_up(k);
		at = read_proc(k->o.pid, "status", text, sizeof(text)) > 0 ? strstr(text, "\nTracerPid:") : NULL;
		times = at && strtol(at + 11, NULL, 10) == 0 ? times + 1 : 0;
	}
}

/* It lives here now. */
static void settle(struct keeping *k)
{
	cleanup_close int lock = owned_lock(NULL);
	struct redirect *r = NULL;

	if (lock < 0 || !is_mine(k))
		_exit(0); /* godwitd replaces it */
	k->o.coming = false;
	owned_write(&k->o, NULL);
	if (redirect_find(&r, NULL) < 0)
		r = NULL;
	for (size_t i = 0; i < k->o.n; i++) {
		address_add(&k->nl, &k->o.v[i], NULL);
		address_spare(&k->nl, &k->o.v[i]);
		if (r)
			redirect_forget_address(r, k->o.v[i].address);
	}
	redirect_close(&r);
}

/* Until the unit is here. */
static void await(struct keeping *k, int socket)
{
	struct pollfd p[] = { { socket, POLLIN, 0 }, { k->process, POLLIN, 0 }, { k->maker, POLLIN, 0 } };
	char byte;

	if (!k->o.coming)
		return;
	while (!has_ended(k) && poll(p, 3, -1) < 0 && errno == EINTR)
		;
	if (recv(socket, &byte, 1, MSG_DONTWAIT) != 1)
		find_out(k);
	settle(k);
}

static int announce(struct keeping *k)
{
	uint64_t age_ms = (clock_ns(CLOCK_MONOTONIC) - k->began_ns) / 1000000;

	if (k->announced < ANNOUNCE_MAX && age_ms >= announce_ms[k->announced]) {
		for (size_t i = 0; i < k->o.n; i++)
			address_announce(&k->nl, &k->o.v[i]);
		k->announced++;
	}
	return k->announced < ANNOUNCE_MAX ? (int)MIN((uint64_t)LOOK_MS, announce_ms[k->announced] - MIN(age_ms, (uint64_t)announce_ms[k->announced]) + 1) : LOOK_MS;
}

static void __attribute__((noreturn)) keep(struct keeping *k, int socket)
{
	char events[4096];

	/* Deleting the first address of a network would delete the others of it, too. */
	for (size_t i = 0; i < k->o.n; i++)
		set(k->o.v[i].on, "promote_secondaries");
	await(k, socket);
	k->began_ns = clock_ns(CLOCK_MONOTONIC);
	for (;;) {
		struct pollfd p[2] = { { k->process, POLLIN, 0 }, { k->records, POLLIN, 0 } };

		if (!is_mine(k))
			_exit(0);
		if (has_ended(k) || is_stub(k->o.pid))
			give_up(k);
		poll(p, 2, announce(k));
		while (read(k->records, events, sizeof(events)) > 0)
			;
	}
}

static void be_ordinary(void)
{
	static const struct sched_param none;
	sigset_t no_signals;

	sigemptyset(&no_signals);
	sigprocmask(SIG_SETMASK, &no_signals, NULL);
	(void)sched_setscheduler(0, SCHED_OTHER, &none);
	(void)setpriority(PRIO_PROCESS, 0, 0);
}

/* It is a fork of whoever has asked for it, which may be in namespaces of the unit and have anything open. */
static void __attribute__((noreturn)) keeper_main(int ns, int socket, int maker)
{
	struct keeping k = { .process = -1, .maker = 4 };
	int fd;

	prctl(PR_SET_NAME, "godwit-address");
	setsid();
	if (ns >= 0)
		(void)ns_enter(ns, NS_NET);
	be_ordinary();
	socket = fcntl(socket, F_DUPFD, 5);
	maker = fcntl(maker, F_DUPFD, 5);
	fd = dup2(socket, 3);
	dup2(maker, 4);
	for (int i = 0; i < 3; i++)
		dup2(open("/dev/null", O_RDWR | O_CLOEXEC), i);
	syscall(SYS_close_range, 5u, ~0u, 0u);
	if (read(fd, &k.o, sizeof(k.o)) != sizeof(k.o) || netlink_open(&k.nl, NETLINK_ROUTE, -1, NULL) < 0)
		_exit(0);
	k.process = proc_start_ticks(k.o.pid) == k.o.start_ticks ? pidfd_open_process(k.o.pid, NULL) : -1;
	k.records = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (k.records >= 0)
		inotify_add_watch(k.records, owned_directory(), IN_DELETE | IN_MOVED_TO);
	keep(&k, fd);
}

int owned_keeper_prepare(int ns, struct owned_keeper *ret, struct err *e)
{
	int pair[2];
	cleanup_close int maker = pidfd_open_process(getpid(), e);
	pid_t pid;

	if (maker < 0)
		return maker;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, -errno, "socketpair");
	pid = fork();
	if (pid == 0)
		keeper_main(ns, pair[1], maker);
	close(pair[1]);
	*ret = (struct owned_keeper){ pid, pair[0] };
	return pid < 0 ? err_sys(e, -errno, "godwit-address") : 0;
}

int owned_keeper_begin(struct owned_keeper *keeper, struct owned *o, struct err *e)
{
	int r;

	o->keeper = keeper->pid;
	o->keeper_ticks = proc_start_ticks(keeper->pid);
	r = owned_write(o, e);
	if (r == 0 && write(keeper->socket, o, sizeof(*o)) != (ssize_t)sizeof(*o))
		r = err_set(e, -EPIPE, "godwit-address has ended");
	return r;
}

void owned_keeper_close(struct owned_keeper *keeper)
{
	close_fdp(&keeper->socket);
}
