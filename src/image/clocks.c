/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* clocks.c - monotonic clocks that go on counting; see clocks.h */
#include "image/clocks.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <time.h>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/ns_user.h"
#include "image/bytes.h"
#include "kern/nsfs.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#define NS_PER_S 1000000000ll
#define CLOCK_MAX_NS (INT64_MAX / 4) /* 73 years */

static int read_offsets(pid_t pid, int64_t *ret_monotonic, int64_t *ret_boottime, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], name[32];
	long long s;
	long ns;

	*ret_monotonic = *ret_boottime = 0;
	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/timens_offsets", pid);
	else
		snprintf(path, sizeof(path), "/proc/self/timens_offsets");
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "%s", path); /* no time namespaces here */
	while (fscanf(f, "%31s %lld %ld", name, &s, &ns) == 3) {
		if (strcmp(name, "monotonic") == 0 || strcmp(name, "1") == 0)
			*ret_monotonic = s * NS_PER_S + ns;
		else
			*ret_boottime = s * NS_PER_S + ns;
	}
	return 0;
}

/*
 * The caller's own offsets, kept from before clock_enter_namespace: afterwards /proc/self/timens_offsets tells those of the
 * namespace that its children will live in.
 */
static int own_offsets(int64_t *ret_monotonic, int64_t *ret_boottime, struct err *e)
{
	static int64_t monotonic, boottime;
	static pid_t known_for;
	int rc = 0;

	if (known_for != getpid())
		rc = read_offsets(0, &monotonic, &boottime, e);
	if (rc < 0)
		return rc;
	known_for = getpid();
	*ret_monotonic = monotonic;
	*ret_boottime = boottime;
	return 0;
}

int clocks_read(pid_t pid, Gw__Clocks *ret_clocks, struct err *e)
{
	cleanup_fclose FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	int64_t own_monotonic, own_boottime, monotonic, boottime;
	char boot_id[40] = "";
	int rc;

	if (!f || fscanf(f, "%39s", boot_id) != 1)
		return err_set(e, -EIO, "cannot read /proc/sys/kernel/random/boot_id");
	rc = own_offsets(&own_monotonic, &own_boottime, e);
	if (rc < 0)
		return rc;
	monotonic = own_monotonic;
	boottime = own_boottime;
	rc = pid ? read_offsets(pid, &monotonic, &boottime, e) : 0;
	if (rc < 0)
		return rc;
	string_set(&ret_clocks->boot_id, boot_id);
	ret_clocks->monotonic_offset_ns = monotonic;
	ret_clocks->boottime_offset_ns = boottime;
	ret_clocks->realtime_ns = clock_ns(CLOCK_REALTIME);
	ret_clocks->boottime_ns = clock_ns(CLOCK_BOOTTIME) - (uint64_t)own_boottime;
	ret_clocks->monotonic_ns = clock_ns(CLOCK_MONOTONIC) - (uint64_t)own_monotonic;
	return 0;
}

int clocks_validate(const Gw__Clocks *clocks, struct err *e)
{
	if (!clocks || strlen(clocks->boot_id) > 64)
		return err_set(e, -EBADMSG, "clocks are missing");
	if (clocks->monotonic_ns > CLOCK_MAX_NS || clocks->boottime_ns > CLOCK_MAX_NS ||
	    clocks->monotonic_offset_ns > CLOCK_MAX_NS || clocks->monotonic_offset_ns < -CLOCK_MAX_NS ||
	    clocks->boottime_offset_ns > CLOCK_MAX_NS || clocks->boottime_offset_ns < -CLOCK_MAX_NS)
		return err_set(e, -EBADMSG, "clocks are out of range");
	return 0;
}

struct clock_offsets clock_offsets_for(const Gw__Clocks *source, const Gw__Clocks *dest)
{
	struct clock_offsets offsets = { source->monotonic_offset_ns, source->boottime_offset_ns, true };

	if (strcmp(source->boot_id, dest->boot_id) != 0) {
		offsets.monotonic_ns += (int64_t)(source->monotonic_ns - dest->monotonic_ns);
		offsets.boottime_ns += (int64_t)(source->boottime_ns - dest->boottime_ns);
	}
	offsets.needed = offsets.monotonic_ns != dest->monotonic_offset_ns || offsets.boottime_ns != dest->boottime_offset_ns;
	return offsets;
}

static void split(int64_t ns, long long *ret_s, long long *ret_ns)
{
	*ret_s = ns / NS_PER_S;
	*ret_ns = ns % NS_PER_S;
	if (*ret_ns < 0) { /* the kernel wants 0 <= ns */
		*ret_ns += NS_PER_S;
		*ret_s -= 1;
	}
}

static int write_offsets(int64_t monotonic_ns, int64_t boottime_ns, struct err *e)
{
	cleanup_close int fd = -1;
	long long ms, mns, bs, bns;
	char text[128];
	int len;

	if (unshare(CLONE_NEWTIME) < 0)
		return err_sys(e, errno == EINVAL ? -EOPNOTSUPP : -errno, "unshare(CLONE_NEWTIME)");
	fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, -errno, "/proc/self/timens_offsets");
	split(monotonic_ns, &ms, &mns);
	split(boottime_ns, &bs, &bns);
	len = snprintf(text, sizeof(text), "monotonic %lld %lld\nboottime %lld %lld\n", ms, mns, bs, bns);
	if (write(fd, text, (size_t)len) != len)
		return err_sys(e, -errno, "clock offsets (%lld s, %lld s)", ms, bs);
	return 0;
}

int clock_enter_namespace(const struct clock_offsets *offsets, struct err *e)
{
	int64_t own_monotonic, own_boottime;
	int rc = offsets->needed ? own_offsets(&own_monotonic, &own_boottime, e) : 0;

	return rc < 0 || !offsets->needed ? rc : write_offsets(offsets->monotonic_ns, offsets->boottime_ns, e);
}

/* --- time namespaces apart from the caller's: a child lives in them --- */

/* What the child has to say; it waits until the caller has seen it. */
struct visit {
	int code, user; /* user: a user namespace for it, number `number`; -1: the caller's */
	uint32_t number;
	int64_t monotonic_ns, boottime_ns;
};

/* ns >= 0: enters it and reads its offsets; -1: makes one with those in v. *ret_child is to be ended by end_visit. */
static int begin_visit(int ns, struct visit *v, pid_t *ret_child, int *ret_socket, struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(e, -errno, "socketpair");
	*ret_child = fork();
	if (*ret_child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		if (ns < 0 && v->user >= 0 && (v->code = ns_user_be(v->user, v->number)) < 0)
			;
		else if (ns < 0)
			v->code = write_offsets(v->monotonic_ns, v->boottime_ns, NULL);
		else if ((v->code = ns_enter(ns, NS_TIME)) == 0)
			v->code = read_offsets(0, &v->monotonic_ns, &v->boottime_ns, NULL);
		if (write(pair[1], v, sizeof(*v)) == sizeof(*v))
			(void)!read(pair[1], &v->code, 1);
		_exit(0);
	}
	close(pair[1]);
	*ret_socket = pair[0];
	if (*ret_child < 0 || read(pair[0], v, sizeof(*v)) != sizeof(*v))
		v->code = -ECHILD;
	return v->code < 0 ? err_sys(e, v->code, "a time namespace") : 0;
}

static void end_visit(pid_t child, int socket)
{
	close(socket);
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
}

int clocks_offsets_of(int ns, int64_t *ret_monotonic, int64_t *ret_boottime, struct err *e)
{
	struct visit v = { .user = -1 };
	pid_t child = 0;
	int socket = -1, rc = begin_visit(ns, &v, &child, &socket, e);

	end_visit(child, socket);
	*ret_monotonic = v.monotonic_ns;
	*ret_boottime = v.boottime_ns;
	return rc;
}

int clocks_make_namespace(int64_t monotonic_ns, int64_t boottime_ns, int user, uint32_t number, struct err *e)
{
	struct visit v = { 0, user, number, monotonic_ns, boottime_ns };
	pid_t child = 0;
	int socket = -1, rc = begin_visit(-1, &v, &child, &socket, e), fd = -1;

	if (rc == 0 && (fd = ns_open_for_children(child, NS_TIME)) < 0)
		rc = err_sys(e, -errno, "a time namespace");
	end_visit(child, socket);
	return rc < 0 ? rc : fd;
}

uint64_t clock_process_ns(int64_t monotonic_offset_ns)
{
	int64_t own_monotonic = 0, own_boottime;

	own_offsets(&own_monotonic, &own_boottime, NULL);
	return clock_ns(CLOCK_MONOTONIC) - (uint64_t)own_monotonic + (uint64_t)monotonic_offset_ns;
}

uint64_t clock_process_boottime_ns(int64_t boottime_offset_ns)
{
	int64_t own_monotonic, own_boottime = 0;

	own_offsets(&own_monotonic, &own_boottime, NULL);
	return clock_ns(CLOCK_BOOTTIME) - (uint64_t)own_boottime + (uint64_t)boottime_offset_ns;
}
