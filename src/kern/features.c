// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * features.c - probing the kernel by doing; see features.h
 *
 * Constants that Debian 12's headers lack are defined here with the values of the kernel's user API.
 */
#include "kern/features.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/util.h"

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#define FEATURE_MOVE (1 << 16)
#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f
#endif
#define SCAN_WRITTEN 2u /* PAGE_IS_WRITTEN */

/* struct pm_scan_arg of linux/fs.h (6.7) */
struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, any, categories;
};
struct scan_region {
	uint64_t start, end, categories;
};
/* struct uffdio_move of linux/userfaultfd.h (6.8) */
struct move_arg {
	uint64_t dst, src, len, mode;
	int64_t moved;
};
#define IOCTL_SCAN _IOWR('f', 16, struct scan_arg)
#define IOCTL_MOVE _IOWR(UFFDIO, 0x05, struct move_arg)

static void unmap_pages(void **p)
{
	if (*p != MAP_FAILED)
		munmap(*p, 2 * PAGE_SIZE_BYTES);
}

static void *map_pages(void)
{
	return mmap(NULL, 2 * PAGE_SIZE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static int open_uffd(uint64_t features, struct err *e)
{
	cleanup_close int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (fd < 0)
		return err_sys(e, -errno, "userfaultfd");
	if (ioctl(fd, UFFDIO_API, &api) < 0)
		return err_sys(e, -errno, "UFFDIO_API with features 0x%llx", (unsigned long long)features);
	return take_fd(&fd);
}

static int register_range(int fd, void *p, uint64_t mode, struct err *e)
{
	struct uffdio_register reg = { .range = { (uintptr_t)p, PAGE_SIZE_BYTES }, .mode = mode };

	return ioctl(fd, UFFDIO_REGISTER, &reg) < 0 ? err_sys(e, -errno, "UFFDIO_REGISTER") : 0;
}

static int probe_userfaultfd(struct err *e)
{
	uint64_t events = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP;
	__attribute__((cleanup(unmap_pages))) void *p = map_pages();
	cleanup_close int fd = open_uffd(events, e);
	struct uffdio_zeropage zero = { .range = { (uintptr_t)p, PAGE_SIZE_BYTES } };
	int r;

	if (fd < 0)
		return fd;
	r = register_range(fd, p, UFFDIO_REGISTER_MODE_MISSING, e);
	if (r < 0)
		return r;
	return ioctl(fd, UFFDIO_ZEROPAGE, &zero) < 0 ? err_sys(e, -errno, "UFFDIO_ZEROPAGE") : 0;
}

/* How many of the pages have been written since they were armed; also arms. */
static int scan_written(void *p, struct err *e)
{
	cleanup_close int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct scan_region region;
	struct scan_arg arg = {
		.size = sizeof(arg), .flags = 3, /* PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC */
		.start = (uintptr_t)p, .end = (uintptr_t)p + PAGE_SIZE_BYTES, .vec = (uintptr_t)&region, .vec_len = 1,
		.mask = SCAN_WRITTEN, .categories = SCAN_WRITTEN,
	};
	int n;

	if (fd < 0)
		return err_sys(e, -errno, "/proc/self/pagemap");
	n = ioctl(fd, IOCTL_SCAN, &arg);
	return n < 0 ? err_sys(e, -errno, "PAGEMAP_SCAN") : n;
}

static int probe_wp_async(struct err *e)
{
	__attribute__((cleanup(unmap_pages))) void *p = map_pages();
	cleanup_close int fd = open_uffd(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED, e);
	int r;

	if (fd < 0)
		return fd;
	*(volatile char *)p = 1;
	r = register_range(fd, p, UFFDIO_REGISTER_MODE_WP, e);
	if (r >= 0)
		r = scan_written(p, e);
	if (r < 0)
		return r;
	r = scan_written(p, e);
	if (r)
		return r < 0 ? r : err_set(e, -ENOTSUP, "an armed page that nobody wrote counts as written");
	*(volatile char *)p = 2;
	r = scan_written(p, e);
	return r < 0 ? r : r == 1 ? 0 : err_set(e, -ENOTSUP, "a write to an armed page is not seen");
}

static int probe_pagemap_scan(struct err *e)
{
	cleanup_close int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct scan_arg arg = { .size = sizeof(arg), .start = (uintptr_t)&arg & ~(PAGE_SIZE_BYTES - 1), .mask = 8, .categories = 8 };
	struct scan_region region;

	arg.end = arg.start + PAGE_SIZE_BYTES;
	arg.vec = (uintptr_t)&region;
	arg.vec_len = 1;
	if (fd < 0)
		return err_sys(e, -errno, "/proc/self/pagemap");
	return ioctl(fd, IOCTL_SCAN, &arg) < 0 ? err_sys(e, -errno, "PAGEMAP_SCAN") : 0;
}

static int probe_move(struct err *e)
{
	__attribute__((cleanup(unmap_pages))) void *p = map_pages();
	cleanup_close int fd = open_uffd(FEATURE_MOVE, e);
	char *page = p;
	struct move_arg move = { .dst = (uintptr_t)p, .src = (uintptr_t)p + PAGE_SIZE_BYTES, .len = PAGE_SIZE_BYTES };
	int r;

	if (fd < 0)
		return fd;
	page[PAGE_SIZE_BYTES] = 42;
	r = register_range(fd, p, UFFDIO_REGISTER_MODE_MISSING, e);
	if (r < 0)
		return r;
	if (ioctl(fd, IOCTL_MOVE, &move) < 0)
		return err_sys(e, -errno, "UFFDIO_MOVE");
	return page[0] == 42 ? 0 : err_set(e, -EIO, "UFFDIO_MOVE moved something else");
}

/* A child that waits to be killed. */
static pid_t start_child(struct err *e)
{
	pid_t pid = fork();

	if (!pid)
		for (;;)
			pause();
	return pid < 0 ? err_sys(e, -errno, "fork") : pid;
}

static void end_childp(pid_t *pid)
{
	if (*pid <= 0)
		return;
	kill(*pid, SIGKILL);
	waitpid(*pid, NULL, __WALL);
}
#define cleanup_child __attribute__((cleanup(end_childp)))

static int probe_pidfd_getfd(struct err *e)
{
	cleanup_child pid_t pid = start_child(e);
	cleanup_close int pidfd = -1, fd = -1;

	if (pid < 0)
		return pid;
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		return err_sys(e, -errno, "pidfd_open");
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, 2, 0);
	return fd < 0 ? err_sys(e, -errno, "pidfd_getfd") : 0;
}

static int probe_set_tid(struct err *e)
{
	struct clone_args args = { .exit_signal = SIGCHLD, .set_tid_size = 1 };
	pid_t wanted = start_child(e), pid;
	int status, tries;

	if (wanted < 0)
		return wanted;
	end_childp(&wanted); /* a number that is surely free now */
	for (tries = 0; tries < 8; tries++, wanted++) {
		args.set_tid = (uintptr_t)&wanted;
		pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
		if (!pid)
			_exit((pid_t)syscall(SYS_getpid) != wanted);
		if (pid < 0 && errno == EEXIST)
			continue;
		if (pid < 0)
			return err_sys(e, -errno, "clone3 with set_tid");
		waitpid(pid, &status, 0);
		return pid == wanted && !status ? 0 : err_set(e, -EIO, "clone3 gave pid %d instead of %d", (int)pid, (int)wanted);
	}
	return err_set(e, -EEXIST, "no free pid near %d", (int)wanted);
}

/* Runs a probe in a child, for what changes the process for good; its message comes back over a pipe. */
static int in_child(int (*probe)(struct err *e), struct err *e)
{
	struct err answer = ERR_INIT;
	int pipe_fds[2], r;
	ssize_t n;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_sys(e, -errno, "pipe");
	pid = fork();
	if (!pid) {
		r = probe(&answer);
		answer.code = r;
		_exit(write(pipe_fds[1], &answer, sizeof(answer)) != sizeof(answer));
	}
	close(pipe_fds[1]);
	n = pid < 0 ? -1 : read(pipe_fds[0], &answer, sizeof(answer));
	close(pipe_fds[0]);
	if (pid < 0)
		return err_sys(e, -EAGAIN, "fork");
	waitpid(pid, NULL, 0);
	if (n != sizeof(answer))
		return err_set(e, -EIO, "the probe died");
	answer.message[sizeof(answer.message) - 1] = 0;
	return answer.code < 0 ? err_set(e, answer.code, "%s", answer.message) : 0;
}

static int set_time_offset(struct err *e)
{
	static const char offsets[] = "monotonic 1000 0\nboottime 1000 0\n";
	cleanup_close int fd = -1;

	if (unshare(CLONE_NEWTIME) < 0)
		return err_sys(e, -errno, "unshare(CLONE_NEWTIME)");
	fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, offsets, sizeof(offsets) - 1) < 0)
		return err_sys(e, -errno, "/proc/self/timens_offsets");
	return 0;
}

static int probe_time_namespace(struct err *e)
{
	return in_child(set_time_offset, e);
}

static int make_pid_namespace(struct err *e)
{
	return unshare(CLONE_NEWPID | CLONE_NEWNS) < 0 ? err_sys(e, -errno, "unshare(CLONE_NEWPID | CLONE_NEWNS)") : 0;
}

static int probe_pid_namespace(struct err *e)
{
	return in_child(make_pid_namespace, e);
}

/* Seizes a child with options, stops it and makes one request. */
static int ptrace_child(unsigned long options, int request, void *addr, void *data, struct err *e)
{
	cleanup_child pid_t pid = start_child(e);
	int status;

	if (pid < 0)
		return pid;
	if (ptrace(PTRACE_SEIZE, pid, 0, options) < 0)
		return err_sys(e, -errno, "PTRACE_SEIZE with options 0x%lx", options);
	if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0 || waitpid(pid, &status, __WALL) != pid)
		return err_sys(e, -errno, "PTRACE_INTERRUPT");
	if (request && ptrace((enum __ptrace_request)request, pid, addr, data) < 0)
		return err_sys(e, -errno, "ptrace request 0x%x", (unsigned)request);
	return 0;
}

static int probe_ptrace(struct err *e)
{
	uint64_t mask;

	return ptrace_child(PTRACE_O_EXITKILL, PTRACE_GETSIGMASK, (void *)sizeof(mask), &mask, e);
}

static int probe_rseq(struct err *e)
{
	uint64_t configuration[3];

	return ptrace_child(0, PTRACE_GET_RSEQ_CONFIGURATION, (void *)sizeof(configuration), configuration, e);
}

static int probe_suspend_seccomp(struct err *e)
{
	return ptrace_child(PTRACE_O_SUSPEND_SECCOMP, 0, NULL, NULL, e);
}

/* A task iterator is what reads the restart block of an interrupted sleep. */
static int probe_bpf(struct err *e)
{
	struct bpf_insn program[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = BPF_TRACE_ITER);
	struct btf *btf = btf__load_vmlinux_btf();
	cleanup_close int fd = -1;
	int id;

	if (!btf || libbpf_get_error(btf))
		return err_sys(e, -ENOENT, "the kernel's types (/sys/kernel/btf/vmlinux)");
	id = btf__find_by_name_kind(btf, "bpf_iter_task", BTF_KIND_FUNC);
	btf__free(btf);
	if (id < 0)
		return err_set(e, -ENOENT, "the kernel has no task iterator");
	options.attach_btf_id = (uint32_t)id;
	fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, "godwit_probe", "GPL", program, ARRAY_SIZE(program), &options);
	return fd < 0 ? err_sys(e, fd == -1 ? -errno : fd, "loading a task iterator") : 0;
}

static int probe_kcmp(struct err *e)
{
	pid_t pid = getpid();

	return syscall(SYS_kcmp, pid, pid, KCMP_FILES, 0, 0) ? err_sys(e, -errno, "kcmp") : 0;
}

static int probe_soft_dirty(struct err *e)
{
	__attribute__((cleanup(unmap_pages))) void *p = map_pages();
	cleanup_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	cleanup_close int clear = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	off_t at = (off_t)((uintptr_t)p / PAGE_SIZE_BYTES * 8);
	uint64_t before = 0, after = 0;

	*(volatile char *)p = 1;
	if (pagemap < 0 || clear < 0 || write(clear, "4", 1) != 1)
		return err_sys(e, -errno, "/proc/self/clear_refs");
	if (pread(pagemap, &before, 8, at) != 8)
		return err_sys(e, -errno, "/proc/self/pagemap");
	*(volatile char *)p = 2;
	if (pread(pagemap, &after, 8, at) != 8)
		return err_sys(e, -errno, "/proc/self/pagemap");
	return !(before >> 55 & 1) && after >> 55 & 1 ? 0 : err_set(e, -ENOTSUP, "writes are not recorded (CONFIG_MEM_SOFT_DIRTY)");
}

#define ROOT "run godwitd as root with all capabilities; then: "

static const struct feature features[] = {
	{ "ptrace", "stops threads, reads and sets registers", ROOT "kernel.yama.ptrace_scope must not be 3", true, probe_ptrace },
	{ "userfaultfd", "fills pages after the resume (post-copy), with fork, remap, remove and unmap events",
	  ROOT "a kernel with CONFIG_USERFAULTFD", true, probe_userfaultfd },
	{ "userfaultfd-wp-async", "tracks which pages the program writes", ROOT "Linux 6.7 or later", true, probe_wp_async },
	{ "userfaultfd-move", "moves received pages into place without copying", ROOT "Linux 6.8 or later", true, probe_move },
	{ "pagemap-scan", "lists the pages that are there", ROOT "Linux 6.7 or later", true, probe_pagemap_scan },
	{ "pidfd-getfd", "takes descriptors of the program", ROOT "Linux 5.6 or later", true, probe_pidfd_getfd },
	{ "clone3-set-tid", "keeps process and thread numbers (CAP_CHECKPOINT_RESTORE)", ROOT "Linux 5.5 or later", true, probe_set_tid },
	{ "kcmp", "tells shared open files from equal ones", ROOT "a kernel with CONFIG_KCMP", true, probe_kcmp },
	{ "ptrace-rseq", "carries restartable sequences (glibc 2.35 and later use them)", ROOT "Linux 5.13 or later", true, probe_rseq },
	{ "bpf-btf", "reads the rest of an interrupted sleep, so that it does not start over", ROOT "a kernel with CONFIG_DEBUG_INFO_BTF", true,
	  probe_bpf },
	{ "time-namespace", "lets monotonic clocks go on counting across the move", ROOT "a kernel with CONFIG_TIME_NS", true,
	  probe_time_namespace },
	{ "pid-namespace", "keeps process numbers that are taken at the destination", ROOT "a kernel with CONFIG_PID_NS", false,
	  probe_pid_namespace },
	{ "suspend-seccomp", "moves programs that have a seccomp filter",
	  ROOT "a kernel with CONFIG_CHECKPOINT_RESTORE, and no seccomp filter on godwitd itself", false, probe_suspend_seccomp },
	{ "soft-dirty", "an older way to track writes; not needed where userfaultfd-wp-async is there", "nothing to do", false, probe_soft_dirty },
};

size_t features_count(void)
{
	return ARRAY_SIZE(features);
}

const struct feature *features_get(size_t i)
{
	return i < ARRAY_SIZE(features) ? &features[i] : NULL;
}

int feature_probe(const struct feature *feature, struct err *e)
{
	int r = feature->probe(e);

	return r < 0 ? r : 0;
}
