// SPDX-License-Identifier: GPL-2.0-or-later
/* cgroup.c - victims in control groups of their own: settings, groups of threads, groups that nobody is in, a cgroup namespace */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

static char top[2048], home[2048]; /* the hierarchy of version 2, and the group of the start */

static void write_text(const char *group, const char *name, const char *text)
{
	char path[8192];
	int fd;

	snprintf(path, sizeof(path), "%s%s/%s", top, group, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		broken_setup(__FILE__, __LINE__, path);
	close(fd);
}

/* All that a group says of itself, but for what the kernel counts. */
static void read_group(struct text *t, const char *group)
{
	static const char *const names[] = { "cgroup.type", "cgroup.max.depth", "cgroup.max.descendants", "cgroup.subtree_control", "hugetlb.2MB.max", "pids.max", "cpu.max", "cgroup.freeze" };
	struct stat st;
	char path[8192], got[256];

	snprintf(path, sizeof(path), "%s%s", top, group);
	text_add(t, "%s", group);
	if (!stat(path, &st))
		text_add(t, " %o %u %u", st.st_mode, st.st_uid, st.st_gid);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		ssize_t n;
		int fd;

		snprintf(path, sizeof(path), "%s%s/%s", top, group, names[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? -1 : read(fd, got, sizeof(got) - 1);
		close(fd);
		if (n < 0)
			continue;
		got[n] = 0;
		text_add(t, " %s=%s", names[i], got);
	}
	text_add(t, "\n");
}

/* The place of a task in the hierarchy. */
static void read_place(const char *who, char place[2048])
{
	char path[128], line[4096];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/cgroup", who);
	f = fopen(path, "re");
	must(f);
	place[0] = 0;
	while (fgets(line, sizeof(line), f))
		(void)!sscanf(line, "0::%2047[^\n]", place);
	fclose(f);
}

static char group[2][512]; /* of this victim, and one in it */
static struct text before;
static char place_before[2048], thread_before[2048], thread_path[64];

static void find_top(void)
{
	FILE *f = fopen("/proc/self/mounts", "re");
	char line[8192], point[2048], type[64];

	must(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %2047s %63s", point, type) == 2 && !strcmp(type, "cgroup2"))
			strcpy(top, point);
	fclose(f);
	must(top[0]);
}

static void make_group(const char *name)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s%s", top, name);
	must(!mkdir(path, 0755));
}

static const char *in_group(const char *name)
{
	static char path[2][1024];
	static int next;

	next = !next;
	snprintf(path[next], sizeof(path[next]), "%s/%s", group[0], name);
	return path[next];
}

static void make_groups(const char *what)
{
	char path[4096];

	find_top();
	read_place("self", home);
	snprintf(group[0], sizeof(group[0]), "/victim-%s-%d", what, getpid());
	make_group(group[0]);
	snprintf(path, sizeof(path), "%s%s", top, group[0]);
	must(!chown(path, 7, 8));
	write_text(group[0], "cgroup.max.depth", "7");
	snprintf(group[1], sizeof(group[1]), "%s", in_group("in"));
}

static void leave(void)
{
	char path[4096];

	write_text(home, "cgroup.procs", "0");
	snprintf(path, sizeof(path), "%s%s", top, group[1]);
	(void)!rmdir(path);
	snprintf(path, sizeof(path), "%s%s", top, in_group("empty"));
	(void)!rmdir(path);
	snprintf(path, sizeof(path), "%s%s", top, group[0]);
	(void)!rmdir(path);
}

static void read_all(struct text *t)
{
	read_group(t, group[0]);
	read_group(t, group[1]);
	read_group(t, in_group("empty"));
}

/* ---- settings, and a group in which threads are ---- */

static void *thread(void *arg)
{
	(void)arg;
	write_text(group[1], "cgroup.threads", "0");
	snprintf(thread_path, sizeof(thread_path), "self/task/%d", gettid());
	read_place(thread_path, thread_before);
	for (;;)
		pause();
	return NULL;
}

static void groups_setup(void)
{
	pthread_t t;

	make_groups("threads");
	write_text(group[0], "cgroup.procs", "0");
	make_group(group[1]);
	write_text(group[1], "cgroup.type", "threaded");
	write_text(group[1], "cgroup.max.descendants", "5");
	make_group(in_group("empty"));
	write_text(in_group("empty"), "cgroup.type", "threaded");
	write_text(in_group("empty"), "cgroup.freeze", "1");
	must(!pthread_create(&t, NULL, thread, NULL));
	while (!*(volatile char *)thread_before)
		sleep_ms(1);
	read_all(&before);
	read_place("self", place_before);
	expect_text("place", group[0], place_before);
}

static void groups_check(void)
{
	struct text now = { 0 };
	char place[2048];

	read_all(&now);
	expect_text("groups", before.s, now.s);
	read_place("self", place);
	expect_text("place", place_before, place);
	read_place(thread_path, place);
	expect_text("place of the thread", thread_before, place);
	if (!failed())
		leave();
}

VICTIM(cgroup_threads, V_KEEP_OUT, groups_setup, NULL, groups_check);

/* ---- a namespace: limits of a controller above and below its root ---- */

static void namespace_setup(void)
{
	make_groups("ns");
	write_text(group[0], "cgroup.procs", "0");
	must(!unshare(CLONE_NEWCGROUP));
	make_group(group[1]);
	make_group(in_group("empty"));
	write_text(group[1], "cgroup.procs", "0");
	write_text(group[1], "cgroup.max.descendants", "3");
	read_all(&before);
	read_place("self", place_before);
	expect_text("place", "/in", place_before);
}

static void namespace_check(void)
{
	struct text now = { 0 };
	char place[2048];

	read_all(&now);
	expect_text("groups", before.s, now.s);
	read_place("self", place);
	expect_text("place", "/in", place);
	if (!failed())
		leave();
}

VICTIM(cgroup_ns, V_KEEP_OUT, namespace_setup, NULL, namespace_check);

/* ---- a filter of devices, as containers have it ---- */

#define INSN(c, d, s, o, i) { .code = c, .dst_reg = d, .src_reg = s, .off = o, .imm = i }

/* No character device 1:5 (/dev/zero). */
static void filter_devices(const char *path)
{
	struct bpf_insn code[] = {
		INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0), /* access_type, the device's type in its lower half */
		INSN(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff),
		INSN(BPF_LDX | BPF_MEM | BPF_W, 3, 1, 4, 0), /* major */
		INSN(BPF_LDX | BPF_MEM | BPF_W, 4, 1, 8, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1),
		INSN(BPF_JMP | BPF_JNE | BPF_K, 2, 0, 3, 2 /* BPF_DEVCG_DEV_CHAR */),
		INSN(BPF_JMP | BPF_JNE | BPF_K, 3, 0, 2, 1),
		INSN(BPF_JMP | BPF_JNE | BPF_K, 4, 0, 1, 5),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (uintptr_t)code, .insn_cnt = sizeof(code) / sizeof(*code), .license = (uintptr_t)"GPL" };
	int program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr)), dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	must(program >= 0 && dir >= 0);
	attr = (union bpf_attr){ .target_fd = (uint32_t)dir, .attach_bpf_fd = (uint32_t)program, .attach_type = BPF_CGROUP_DEVICE, .attach_flags = BPF_F_ALLOW_MULTI };
	must(!syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)));
	close(program);
	close(dir);
}

static bool can_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 && !close(fd);
}

static void devices_setup(void)
{
	char path[4096];

	make_groups("devices");
	write_text(group[0], "cgroup.procs", "0");
	snprintf(path, sizeof(path), "%s%s", top, group[0]);
	filter_devices(path);
	must(!can_open("/dev/zero") && errno == EPERM && can_open("/dev/null"));
}

static void devices_check(void)
{
	expect(!can_open("/dev/zero"));
	expect(can_open("/dev/null"));
	if (!failed())
		leave();
}

VICTIM(cgroup_devices, V_KEEP_OUT, devices_setup, NULL, devices_check);
