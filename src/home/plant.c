/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * plant.c - making the stub: the parked main thread of the source's copy execs it
 *
 * Theory of operation: the thread runs lists of calls (kern/remote.h). It closes the program's descriptors and makes a socket pair, one end of which this worker
 * takes by pidfd_getfd; the stub's program, an executable memfd, goes the other way by SCM_RIGHTS. execve then ends the other threads and lets go of the
 * memory, which lives on in the agent. Signals that came since the freeze stay pending: the thread's mask blocks all, and both outlive execve.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "home/home.h"
#include "home/tracer.h"
#include "kern/fdpass.h"
#include "kern/task.h"
#include "kern/trace.h"

extern const uint8_t home_stub_blob[], home_stub_blob_end[];

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

#define READY_MS 10000

static int write_program(int fd, mode_t mode, struct err *e)
{
	size_t len = (size_t)(home_stub_blob_end - home_stub_blob);

	if (write(fd, home_stub_blob, len) != (ssize_t)len || fchmod(fd, mode) < 0)
		return err_sys(e, -errno, "the stub program");
	return 0;
}

static int make_program(struct err *e)
{
	cleanup_close int fd = memfd_create("godwit-stub", MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0)
		fd = memfd_create("godwit-stub", MFD_CLOEXEC);
	if (fd < 0)
		return err_sys(e, -errno, "the stub program");
	return write_program(fd, 0755, e) < 0 ? (e ? e->code : -EIO) : take_fd(&fd);
}

/* Of a memfd, set-user-id does not count. A file that has never had a name, where programs may be run so. */
int home_program_of_root(struct err *e)
{
	static const char *const places[] = { "/run", "/var/lib", "/var/tmp", "/tmp", "/" };

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		cleanup_close int fd = -1;
		struct statvfs fs;
		char path[64];
		int ret;

		if (statvfs(places[i], &fs) < 0 || fs.f_flag & (ST_NOSUID | ST_NOEXEC))
			continue;
		fd = open(places[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0700);
		if (fd < 0 || fchown(fd, 0, 0) < 0 || write_program(fd, 04755, NULL) < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		ret = open(path, O_RDONLY | O_CLOEXEC); /* a file that is open for writing cannot be run */
		if (ret >= 0)
			return ret;
	}
	return err_set(e, -EACCES, "no directory where a program of root's may be put for a moment (all are mounted with nosuid or noexec)");
}

static ssize_t read_proc(pid_t pid, const char *name, char *text, size_t size)
{
	cleanup_close int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, text, size - 1) : 0;
	text[n > 0 ? n : 0] = 0;
	return n;
}

/* What ps(1) shows: "godwit-stub: HOST: the program's arguments". */
static void describe(struct home *h)
{
	char arguments[HOME_LINE_BYTES - 128];
	ssize_t n;

	if (h->line[0]) /* it has been a stub before */
		return;
	n = read_proc(h->pid, "cmdline", arguments, sizeof(arguments));
	for (ssize_t i = 0; i + 1 < n; i++)
		if (!arguments[i])
			arguments[i] = ' ';
	read_proc(h->pid, "comm", h->comm, sizeof(h->comm));
	h->comm[strcspn(h->comm, "\n")] = 0;
	snprintf(h->line, sizeof(h->line), "godwit-stub: %s: %s", h->host, n > 0 ? arguments : h->comm);
}

static int wait_ready(struct home *h, const struct remote_call *exec, struct err *e)
{
	struct stub_message ready = { 0 };

	for (int waited = 0; waited < READY_MS; waited += 10) {
		struct pollfd p = { h->stub, POLLIN, 0 };

		tracer_send_on_all(h->pid); /* threads that have ended must be waited for, or execve waits */
		if (poll(&p, 1, 10) > 0) {
			if (recv(h->stub, &ready, sizeof(ready), 0) == sizeof(ready) && ready.kind == STUB_READY)
				return 0;
			return err_set(e, -ECHILD, "the stub of process %d ended early", h->pid);
		}
		if (exec->ret < 0 && exec->ret != CALL_SKIPPED) /* as it is before its turn */
			return err_sys(e, (int)exec->ret, "process %d: making it a stub", h->pid);
	}
	return err_set(e, -ETIMEDOUT, "process %d has not become a stub", h->pid);
}

/* Of a shell's own job, say, of which nothing is left here. */
static void take_foreground(struct batch *b)
{
	int64_t group = remote_do(b, NULL, "getpgrp", SYS_getpgrp), fd = remote_do(b, NULL, "opening the controlling terminal", SYS_openat, AT_FDCWD, batch_string(b, "/dev/tty"), O_RDWR | O_NOCTTY);
	pid_t number = (pid_t)group;

	if (group <= 0 || fd < 0)
		return;
	batch_try(b, "TIOCSPGRP", SYS_ioctl, (uint64_t)fd, TIOCSPGRP, batch_data(b, &number, sizeof(number)));
	batch_try(b, "close", SYS_close, (uint64_t)fd);
	batch_run(b, NULL);
	batch_reset(b);
}

/* The pair's first end becomes the stub's descriptor 0; the program's number is behind it. */
static int open_pair(struct home *h, struct batch *b, int process_pidfd, int *ret_program, struct err *e)
{
	cleanup_close int program = make_program(e);
	int *pair, ret;
	uint64_t at;

	if (program < 0)
		return program;
	batch_try(b, "set_robust_list", SYS_set_robust_list, 0, 24);
	batch_try(b, "set_tid_address", SYS_set_tid_address, 0);
	batch_call(b, "close_range", SYS_close_range, 0, ~0u, CLOSE_RANGE_UNSHARE);
	pair = batch_space(b, 2 * sizeof(*pair), &at);
	batch_call(b, "socketpair", SYS_socketpair, AF_UNIX, SOCK_SEQPACKET, 0, at);
	ret = batch_run(b, e);
	if (ret == 0 && pair[0] != STUB_SOCKET)
		ret = err_set(e, -EBADF, "process %d: descriptor %d instead of 0", h->pid, pair[0]);
	if (ret == 0)
		h->stub = ret = pidfd_get(process_pidfd, pair[1], e);
	if (ret < 0)
		return ret;
	ret = fd_send(h->stub, &program, 1, e);
	if (ret == 0) {
		batch_reset(b);
		ret = batch_receive_fds(b, STUB_SOCKET, ret_program, 1, e);
	}
	return ret;
}

/* It waits for START, or spins. If the process is stopped by a signal it is from here on. One that has been killed meanwhile is godwit-home's affair. */
static void let_go(const struct home *h)
{
	if (trace_interrupt(h->pid, NULL) == 0 && trace_wait_stop(h->pid, NULL) == 0)
		trace_detach(h->pid, NULL);
}

int home_plant(struct home *h, struct batch *b, int process_pidfd, struct err *e)
{
	struct remote_call *exec;
	uint64_t *argv, *envp, argv_at, envp_at;
	int program = -1, ret;

	describe(h);
	batch_reset(b);
	if (h->foreground)
		take_foreground(b);
	ret = open_pair(h, b, process_pidfd, &program, e);
	batch_reset(b);
	if (ret < 0)
		return ret;
	argv = batch_space(b, 2 * sizeof(*argv), &argv_at);
	envp = batch_space(b, 3 * sizeof(*envp), &envp_at);
	argv[0] = batch_string(b, h->line);
	envp[0] = batch_string(b, h->comm);
	envp[1] = h->traced ? batch_string(b, STUB_SPINS) : 0;
	batch_call(b, "close_range", SYS_close_range, STUB_SOCKET + 1, ~0u, CLOSE_RANGE_CLOEXEC);
	exec = batch_call(b, "execveat", SYS_execveat, (uint64_t)program, batch_string(b, ""), argv_at, envp_at, AT_EMPTY_PATH);
	ret = batch_start(b, e);
	if (ret == 0)
		ret = wait_ready(h, exec, e);
	if (ret == 0)
		let_go(h);
	else
		close_fdp(&h->stub);
	return ret;
}
