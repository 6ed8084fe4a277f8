// SPDX-License-Identifier: GPL-2.0-or-later
/* ns_user.c - victims with a user namespace of their own: maps, credentials inside, what belongs to it; alone and with threads and children */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/nsfs.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

static struct text before;

static void read_lines(struct text *t, const char *path, const char *const *starts)
{
	char line[512];
	FILE *f = fopen(path, "re");

	must(f);
	while (fgets(line, sizeof(line), f))
		for (size_t i = 0; !starts || starts[i]; i++)
			if (!starts || strncmp(line, starts[i], strlen(starts[i])) == 0) {
				text_add(t, "%s", line);
				break;
			}
	fclose(f);
}

/* Whether a namespace belongs to the user namespace. */
static bool belongs(const char *ns)
{
	char path[64];
	struct stat owner, user;
	int fd, of;

	snprintf(path, sizeof(path), "/proc/self/ns/%s", ns);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	of = ioctl(fd, NS_GET_USERNS);
	must(fd >= 0 && (of >= 0 || errno == EPERM));
	close(fd);
	if (of < 0)
		return false; /* to one further out */
	must(!fstat(of, &owner) && !stat("/proc/self/ns/user", &user));
	close(of);
	return owner.st_ino == user.st_ino;
}

static void snapshot(struct text *t)
{
	static const char *const lines[] = { "Uid:", "Gid:", "Groups:", "Cap", NULL };
	gid_t groups[64];
	int n = getgroups(64, groups);

	read_lines(t, "/proc/self/status", lines);
	read_lines(t, "/proc/self/uid_map", NULL);
	read_lines(t, "/proc/self/gid_map", NULL);
	read_lines(t, "/proc/self/setgroups", NULL);
	text_add(t, "ids %d %d, securebits %#x, uts %d net %d ipc %d, groups %d", getuid(), getegid(), prctl(PR_GET_SECUREBITS), belongs("uts"), belongs("net"), belongs("ipc"), n);
	for (int i = 0; i < n; i++)
		text_add(t, " %d", groups[i]);
}

/* The namespace, with maps written by a child that stays outside. */
static void enter(const char *uids, const char *gids)
{
	pid_t self = getpid(), child;
	int gate[2], status;
	char byte;

	must(!pipe(gate));
	child = fork();
	if (child == 0) {
		close(gate[1]);
		(void)!read(gate[0], &byte, 1);
		write_proc(self, "uid_map", uids);
		write_proc(self, "gid_map", gids);
		_exit(0);
	}
	must(child > 0 && !unshare(CLONE_NEWUSER));
	close(gate[0]);
	close(gate[1]);
	must(waitpid(child, &status, 0) == child && status == 0);
}

static void setup(void)
{
	static const gid_t groups[] = { 3, 900 };

	enter("0 100000 1000\n5000 200000 10\n", "0 300000 1000\n");
	must(!setgroups(2, groups) && !setresgid(7, 8, 9) && !setresuid(0, 5001, 0));
	must(!seteuid(0) && !unshare(CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC) && !sethostname("inside", 6));
	must(!prctl(PR_CAPBSET_DROP, 22) && !prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS));
	snapshot(&before);
}

static void check(void)
{
	struct text now = { 0 };
	char name[64];

	snapshot(&now);
	expect_text("credentials and maps", before.s, now.s);
	expect(!gethostname(name, sizeof(name)));
	expect_text("host name", "inside", name);
	expect(!sethostname("again", 5) && !setresuid(5002, 5002, 5002));
	expect(setresuid(1001, 1001, 1001) < 0 && errno == EINVAL); /* is not mapped */
}

VICTIM(ns_user, V_KEEP_OUT, setup, NULL, check);

/* ---- with setgroups denied and one id, a thread and a child ---- */

static pid_t child;
static int ends[2];

static void *sleeper(void *arg)
{
	while (!victim_stopping)
		usleep(10000);
	return arg;
}

static void deny_setup(void)
{
	pthread_t thread;
	char byte;

	must(!unshare(CLONE_NEWUSER));
	write_proc(getpid(), "setgroups", "deny");
	write_proc(getpid(), "uid_map", "1000 0 1");
	write_proc(getpid(), "gid_map", "1000 0 1");
	snapshot(&before);
	must(!pipe2(ends, O_CLOEXEC));
	child = fork();
	if (child == 0) {
		close(ends[1]);
		_exit(read(ends[0], &byte, 1) == 0 && getuid() == 1000 ? 3 : 4);
	}
	must(child > 0 && !pthread_create(&thread, NULL, sleeper, NULL));
}

static void deny_check(void)
{
	struct text now = { 0 };
	gid_t group = 1000;
	int status;

	snapshot(&now);
	expect_text("credentials and maps", before.s, now.s);
	expect(setgroups(1, &group) < 0 && errno == EPERM);
	close(ends[1]);
	expect(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

VICTIM(ns_user_deny, V_KEEP_OUT, deny_setup, NULL, deny_check);
