/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ns_make.c - namespaces at the destination; see ns.h
 *
 * Theory of operation: the worker unshares the namespaces that it can live in itself. The mount namespace is made by a child, the holder: below a directory of the
 * host it mounts what the unit had, makes that its root, and waits; the worker reaches the files through it. What belongs to a pid namespace (proc) can
 * only be mounted from inside, so that the unit's first process does that when it joins.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"
#include "image/ns_mount.h"
#include "image/ns_net.h"
#include "image/ns_other.h"
#include "image/ns_terminal.h"
#include "image/ns_user.h"

static int write_setting(const Gw__NsSetting *s, struct err *e)
{
	cleanup_close int fd = -1;
	char path[128], text[300];
	ssize_t n;

	if (ns_setting_is(s->name, s->value)) /* which is not for everybody to write */
		return 0;
	snprintf(path, sizeof(path), "/proc/sys/%s", s->name);
	n = snprintf(text, sizeof(text), "%s\n", s->value);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, errno, "%s", path);
	return write(fd, text, (size_t)n) == n ? 0 : err_sys(e, errno, "%s: writing %s", path, s->value);
}

int ns_settings_restore(Gw__NsSetting *const *v, size_t n, struct err *e)
{
	int ret = 0;

	for (size_t i = 0; i < n && ret == 0; i++)
		ret = write_setting(v[i], e);
	return ret;
}

/* In the owner of the user namespace: settings that only its root may write. */
static int fill_as_owner(const Gw__Namespaces *msg)
{
	return msg->user->inside & NS_BIT(NS_IPC) ? ns_settings_restore(msg->settings, msg->n_settings, NULL) : 0;
}

/* --- the holder --- */

/* What the holder says before it waits. */
struct report {
	volatile int done;
	int code;
	pid_t spaces[NS_OTHERS_MAX];
	struct ns_terminals terminals;
	struct err e;
};

static void __attribute__((noreturn)) hold(int (*make)(const void *arg, pid_t *ret_pids, struct err *e), const void *arg, struct report *report, int ready)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "godwit-mounts");
	report->code = unshare(CLONE_NEWNS) < 0 ? err_sys(&report->e, errno, "a mount namespace") : make(arg, report->spaces, &report->e);
	ns_terminals_settle(&report->terminals, ready, &ready);
	report->done = 1;
	(void)!write(ready, "", 1);
	close(ready);
	while (report->code == 0)
		pause();
	_exit(1);
}

static int make_mounts(const void *arg, pid_t *ret_pids, struct err *e)
{
	return ns_mounts_make(arg, ret_pids, e);
}

static bool has_mounts(const Gw__Namespaces *msg)
{
	return msg->owned & NS_BIT(NS_MNT);
}

/* The owner of the user namespace is the holder of the mounts, which belong to it, as soon as it is told so. */
static void hold_as_owner(const Gw__Namespaces *msg, int socket, void *arg)
{
	char byte;

	if (read(socket, &byte, 1) == 1)
		hold(make_mounts, msg, arg, socket);
}

/* For those that join, who may not look into the holder. */
static int open_mounts(struct ns_made *made, struct err *e)
{
	cleanup_close int fd = ns_open(made->holder, NS_MNT);

	made->mounts = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, NS_HIGH_FD);
	return made->mounts < 0 ? err_sys(e, errno, "the mount namespace of process %d", made->holder) : 0;
}

static int wait_held(struct report *report, int ready, bool first, struct ns_made *made, struct err *e)
{
	char byte;
	int ret;

	(void)!read(ready, &byte, 1);
	memcpy(made->spaces, report->spaces, sizeof(made->spaces));
	ret = !report->done	? err_set(e, -ECHILD, "the process that makes the unit's mounts has ended")
	     : report->code < 0 ? err_set(e, report->code, "%s", report->e.message)
	     : first		? open_mounts(made, e)
				: 0;
	return ret < 0 ? ret : ns_terminals_take(made->holder, &report->terminals, e);
}

static struct report *report_new(void)
{
	return mmap(NULL, sizeof(struct report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

int ns_hold(int (*make)(const void *arg, pid_t *ret_pids, struct err *e), const void *arg, bool first, struct ns_made *made, struct err *e)
{
	struct report *report = report_new();
	int ready[2], code;

	if (report == MAP_FAILED || pipe2(ready, O_CLOEXEC) < 0)
		return err_sys(e, errno, "a mount namespace");
	made->holder = fork();
	if (made->holder == 0)
		hold(make, arg, report, ready[1]);
	close(ready[1]);
	code = made->holder < 0 ? err_sys(e, errno, "a mount namespace") : wait_held(report, ready[0], first, made, e);
	close(ready[0]);
	munmap(report, sizeof(*report));
	return code;
}

void ns_made_free(struct ns_made *made)
{
	if (made->holder > 0) {
		kill(made->holder, SIGKILL);
		waitpid(made->holder, NULL, 0);
	}
	close_fdp(&made->user);
	close_fdp(&made->mounts);
	ns_terminals_free();
	*made = NS_MADE_INIT;
}

/* --- the others --- */

/* Those that the worker lives in; `inside`: they are there. */
static int enter_new(const Gw__Namespaces *msg, uint32_t inside, struct err *e)
{
	uint32_t own = msg->owned & NS_ENTERED & ~inside & ~(ns_has_cgroups() ? NS_BIT(NS_CGROUP) : 0);
	int flags = 0;

	for (int k = 0; k < NS_KINDS; k++)
		flags |= own & NS_BIT(k) ? ns_flag((enum ns_kind)k) : 0;
	return unshare(flags) < 0 ? err_sys(e, errno, "namespaces %#x", own) : 0;
}

static int fill(const Gw__Namespaces *msg, struct err *e)
{
	int ret = msg->user && msg->user->inside & NS_BIT(NS_IPC) ? 0 : ns_settings_restore(msg->settings, msg->n_settings, e);

	if (ret == 0 && msg->owned & NS_BIT(NS_UTS) && (sethostname(msg->nodename, strlen(msg->nodename)) < 0 || setdomainname(msg->domainname, strlen(msg->domainname)) < 0))
		return err_sys(e, errno, "the names of a host");
	return ret;
}

static int make_all(const Gw__Namespaces *msg, struct report *report, struct ns_made *made, struct refusals *r, struct err *e)
{
	struct ns_owner owner = { 0, -1, -1 };
	uint32_t inside = msg->user ? msg->user->inside : 0;
	int ret = ns_remember_hosts(e);

	if (ret == 0 && msg->owned & NS_BIT(NS_NET))
		ret = ns_remember_host_net(e);
	if (ret == 0 && (inside & NS_BIT(NS_MNT) || ns_mounts_have_users(msg)))
		ret = ns_mounts_borrow(msg, e);
	if (ret == 0 && msg->user)
		ret = ns_user_make(msg, fill_as_owner, hold_as_owner, report, &owner, e);
	made->holder = owner.pid;
	made->user = owner.fd;
	if (ret == 0)
		ret = enter_new(msg, inside, e);
	if (ret == 0 && msg->owned & NS_BIT(NS_NET))
		ret = ns_remember_unit_net(e);
	if (ret == 0)
		ret = fill(msg, e);
	if (ret == 0 && !r->n)
		ret = ns_others_begin(msg, made, e);
	if (ret == 0 && !r->n && inside & NS_BIT(NS_MNT)) {
		(void)!write(owner.socket, "", 1);
		ret = wait_held(report, owner.socket, true, made, e);
	} else if (owner.pid > 0) {
		close_fdp(&owner.socket); /* it ends */
		waitpid(owner.pid, NULL, 0);
		made->holder = 0;
		ret = ret == 0 && !r->n && msg->n_mounts ? ns_hold(make_mounts, msg, has_mounts(msg), made, e) : ret;
	} else if (ret == 0 && !r->n && msg->n_mounts) {
		ret = ns_hold(make_mounts, msg, has_mounts(msg), made, e);
	}
	close_fdp(&owner.socket);
	return ret;
}

int ns_make(const Gw__Namespaces *msg, struct ns_made *made, struct refusals *r, struct err *e)
{
	struct report *report = report_new();
	int ret;

	if (report == MAP_FAILED || (mkdir(NS_MOUNT_TOP, 0755) < 0 && errno != EEXIST))
		return err_sys(e, errno, "%s", NS_MOUNT_TOP);
	ret = make_all(msg, report, made, r, e);
	munmap(report, sizeof(*report));
	return ret;
}

int ns_join(const Gw__Namespaces *msg, const struct ns_made *made, struct err *e)
{
	return ns_mounts_join(msg, made->mounts, e);
}
