/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * host_init.c - makes a host's namespaces and becomes its pid 1
 *
 * labhost init STATE PREFIX NAME PID_BASE SHARED...
 *
 * The network namespace exists (PREFIX-NAME). Everything else is made here: pid, mount, uts and ipc namespace, and in
 * the mount namespace what a machine has of its own:
 *
 *   /tmp /run /dev/shm            tmpfs, empty at every start
 *   /proc /sys /dev/pts           of the host's namespaces ; /sys/fs/cgroup: its own part of the hierarchy of version 2
 *   /var/lib/godwit               STATE/hosts/NAME/lib, kept over restarts, like a disk
 *   /etc/hosts /etc/godwit        STATE/hosts/NAME/etc-hosts, STATE/hosts/NAME/etc
 *
 * SHARED are directories that must stay visible although they lie under /tmp or /run: the checkout, the build.
 *
 * The launcher returns when the host is ready, after it has written STATE/hosts/NAME/init. The init itself then does one thing:
 * it reaps. It blocks every signal, so that only SIGKILL from outside ends it, and with it the whole host.
 */
#include "labhost.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x4
#endif

/* A detached copy of the mounts at `path`, to be put back with attach(); -1 when there is nothing. */
static int detach_copy(const char *path)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE);
}

static int attach(int tree, const char *path)
{
	return (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
}

static void must_mount(const struct labhost *host, const char *type, const char *target, unsigned long flags, const char *options)
{
	if (mount(type, target, type, flags, options) < 0)
		lab_die(host, errno, "mount %s on %s", type, target);
}

static void must_bind(const struct labhost *host, const char *what, const char *target)
{
	char source[512];

	snprintf(source, sizeof(source), "%s/hosts/%s/%s", host->state, host->name, what);
	if (mount(source, target, NULL, MS_BIND, NULL) < 0)
		lab_die(host, errno, "bind %s to %s", source, target);
}

static void make_directories(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
	mkdir(path, 0755);
}

static void mount_tmp_and_run(const struct labhost *host, int shared_count, char **shared)
{
	int trees[shared_count + 1];

	for (int i = 0; i < shared_count; i++) {
		trees[i] = detach_copy(shared[i]);
		if (trees[i] < 0)
			lab_die(host, errno, "%s", shared[i]);
	}
	must_mount(host, "tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
	/* Our copies of the mounts in /run/netns would keep the namespaces of other hosts alive. */
	umount2("/run/netns", MNT_DETACH);
	must_mount(host, "tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
	mkdir("/run/lock", 01777);
	for (int i = 0; i < shared_count; i++) {
		make_directories(shared[i]);
		if (attach(trees[i], shared[i]) < 0)
			lab_die(host, errno, "keeping %s visible", shared[i]);
		close(trees[i]);
	}
}

static void mount_control_groups(const struct labhost *host)
{
	char point[4096];

	if (!lab_cgroup(host, point, sizeof(point)))
		return;
	*strrchr(point, '/') = '\0';
	*strrchr(point, '/') = '\0';
	umount2(point, MNT_DETACH); /* one file system is not mounted twice on one place */
	must_mount(host, "cgroup2", point, MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static void mount_kernel_filesystems(const struct labhost *host)
{
	cleanup_close int cgroups = detach_copy("/sys/fs/cgroup");

	must_mount(host, "proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	must_mount(host, "sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	if (cgroups >= 0 && attach(cgroups, "/sys/fs/cgroup") < 0)
		lab_die(host, errno, "putting back /sys/fs/cgroup");
	mount_control_groups(host);
	must_mount(host, "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5");
	must_mount(host, "tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	if (access("/dev/mqueue", F_OK) == 0)
		must_mount(host, "mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static void join(const struct labhost *host, const char *group)
{
	char procs[5000];
	cleanup_close int fd = -1;

	snprintf(procs, sizeof(procs), "%s/cgroup.procs", group);
	fd = open(procs, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		lab_die(host, errno, "%s", procs);
}

/* What controllers there are in a group, those below it can use as well. */
static void hand_down(const char *group)
{
	char names[4096] = "", path[4200], word[128], *save;
	cleanup_fclose FILE *f = NULL;

	snprintf(path, sizeof(path), "%s/cgroup.controllers", group);
	f = fopen(path, "re");
	if (!f || !fgets(names, sizeof(names), f))
		return;
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", group);
	for (char *c = strtok_r(names, " \n", &save); c; c = strtok_r(NULL, " \n", &save)) {
		cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
		int len = snprintf(word, sizeof(word), "+%.100s", c);

		if (fd >= 0 && write(fd, word, (size_t)len) < 0)
			continue; /* one that cannot be shared out */
	}
}

/* Its own part of the hierarchy of control groups. */
static void make_control_groups(const struct labhost *host)
{
	char group[4096], leaf[4200], *end;

	if (!lab_cgroup(host, group, sizeof(group)))
		return;
	snprintf(leaf, sizeof(leaf), "%s/host", group);
	make_directories(leaf);
	end = strrchr(group, '/'); /* of the lab, and before that the machine */
	*end = '\0';
	*strrchr(group, '/') = '\0';
	hand_down(group);
	group[strlen(group)] = '/';
	hand_down(group);
	*end = '/';
	join(host, group);
	if (unshare(CLONE_NEWCGROUP) < 0)
		lab_die(host, errno, "making a cgroup namespace");
	join(host, leaf);
}

static void set_last_pid(const struct labhost *host, const char *base)
{
	cleanup_close int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, base, strlen(base)) < 0)
		lab_die(host, errno, "/proc/sys/kernel/ns_last_pid to %s", base);
}

/* pid 1. `ready` is closed once a byte was written: the launcher's sign that the host is complete. */
static _Noreturn void run_init(const struct labhost *host, int ready, const char *pid_base, int shared_count, char **shared)
{
	sigset_t all;

	make_control_groups(host);
	/* Only here: the launcher still needs the machine's /proc. */
	if (unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC) < 0)
		lab_die(host, errno, "making namespaces");
	if (sethostname(host->name, strlen(host->name)) < 0)
		lab_die(host, errno, "sethostname");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		lab_die(host, errno, "making the mounts private");
	must_bind(host, "lib", "/var/lib/godwit");
	must_bind(host, "etc-hosts", "/etc/hosts");
	must_bind(host, "etc", "/etc/godwit");
	mount_tmp_and_run(host, shared_count, shared);
	mount_kernel_filesystems(host);
	set_last_pid(host, pid_base);

	setsid();
	if (chdir("/") < 0)
		lab_die(host, errno, "chdir /");
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_NAME, "lab-init");
	if (write(ready, "", 1) != 1)
		_exit(1);
	/* Nothing of the launcher is kept: whoever waits for the end of its streams must see that end. */
	syscall(SYS_close_range, 0u, ~0u, 0u);
	for (;;) {
		if (waitpid(-1, NULL, 0) < 0)
			sigwaitinfo(&all, NULL);
	}
}

static void write_init_file(const struct labhost *host, pid_t pid)
{
	char path[512], temporary[520];
	FILE *f;

	snprintf(path, sizeof(path), "%s/hosts/%s/init", host->state, host->name);
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	f = fopen(temporary, "we");
	if (!f || fprintf(f, "%d %llu\n", (int)pid, lab_start_time(pid)) < 0 || fclose(f) != 0 || rename(temporary, path) < 0) {
		kill(pid, SIGKILL);
		lab_die(host, errno, "%s", path);
	}
}

int host_init(struct labhost *host, int argc, char **argv)
{
	cleanup_close int netns = lab_open_netns(host, host->name);
	int ready[2];
	pid_t pid;
	char c;

	if (argc < 1)
		lab_die(host, EINVAL, "init");
	if (netns < 0 || setns(netns, CLONE_NEWNET) < 0)
		lab_die(host, errno, "network namespace %s-%s", host->prefix, host->name);
	if (unshare(CLONE_NEWPID) < 0)
		lab_die(host, errno, "making a pid namespace");
	if (pipe2(ready, O_CLOEXEC) < 0)
		lab_die(host, errno, "pipe");
	pid = fork();
	if (pid < 0)
		lab_die(host, errno, "fork");
	if (pid == 0) {
		close(ready[0]);
		run_init(host, ready[1], argv[0], argc - 1, argv + 1);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1) {
		kill(pid, SIGKILL);
		lab_die(host, 0, "its init did not come up");
	}
	write_init_file(host, pid);
	return 0;
}
