// SPDX-License-Identifier: GPL-2.0-or-later
/* A confined process: what it may still do, what not, and that nothing brings its privileges back. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/confine.h"
#include "base/util.h"

static bool denied(long ret)
{
	return ret < 0 && errno == EPERM;
}

/* A line of /proc/self/status. */
static bool says(const char *line)
{
	char text[8192], *at;
	int fd = open("/proc/self/status", O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	close(fd);
	text[MAX(n, (ssize_t)0)] = 0;
	at = strstr(text, line);
	return at && at[strlen(line)] == '\n';
}

/* Each returns whether it is as it should be. */
static bool is_nobody(void)
{
	return getuid() == CONFINE_USER && geteuid() == CONFINE_USER && getgid() == CONFINE_USER && says("Groups:\t ");
}

static bool has_nothing(void)
{
	return says("CapEff:\t0000000000000000") && says("CapPrm:\t0000000000000000") && says("CapBnd:\t0000000000000000") && says("NoNewPrivs:\t1") && says("Seccomp:\t2");
}

static bool opens_to_read_only(void)
{
	int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	bool good = fd >= 0;

	close(fd);
	return good && denied(open("/dev/null", O_RDWR)) && denied(open("/dev/null", O_WRONLY)) && denied(open("/tmp/confined", O_RDONLY | O_CREAT, 0600)) &&
	       denied(syscall(SYS_open, "/dev/null", O_WRONLY)) && denied(open("/tmp", O_TMPFILE | O_RDWR, 0600)) && open("/etc/shadow", O_RDONLY) < 0;
}

static bool starts_nothing(void)
{
	char *const words[] = { (char[]){ "true" }, NULL };

	return denied(execve("/bin/true", words, words)) && denied(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) && denied(syscall(SYS_clone3, NULL, 0)) && denied(syscall(SYS_fork));
}

static bool touches_nobody(void)
{
	return denied(kill(getppid(), 0)) && denied(ptrace(PTRACE_SEIZE, getppid(), 0, 0)) && denied(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0)) &&
	       denied(syscall(SYS_pidfd_open, getppid(), 0)) && denied(unlink("/tmp/confined")) && denied(syscall(SYS_bpf, 0, NULL, 0)) && denied(syscall(SYS_openat2, AT_FDCWD, "/", NULL, 0));
}

static bool talks_by_what_it_has_only(void)
{
	return denied(socket(AF_INET, SOCK_STREAM, 0)) && denied(socket(AF_UNIX, SOCK_STREAM, 0)) && denied(syscall(SYS_connect, 0, NULL, 0)) && denied(syscall(SYS_prctl, PR_SET_NAME, "x"));
}

static bool runs_no_new_code(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return page != MAP_FAILED && denied(mprotect(page, 4096, PROT_READ | PROT_EXEC)) &&
	       mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && denied(syscall(SYS_pkey_mprotect, page, 4096, PROT_EXEC, -1));
}

static bool more_is_more(void)
{
	return syscall(SYS_getcwd, (char[256]){ 0 }, 256) > 0;
}

static bool (*const checks[])(void) = { is_nobody, has_nothing, opens_to_read_only, starts_nothing, touches_nobody, talks_by_what_it_has_only, runs_no_new_code, more_is_more };

/* The status says which check has failed, from 1 on. */
static void test_confined(void **state)
{
	int status;
	pid_t child;

	if (geteuid() != 0)
		skip();
	child = fork();
	if (!child) {
		struct err e = ERR_INIT;

		if (confine((const int[]){ SYS_getcwd }, 1, &e) < 0)
			_exit(100);
		for (size_t i = 0; i < ARRAY_SIZE(checks); i++)
			if (!checks[i]())
				_exit((int)i + 1);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* It is killed with its parent all the same. */
static void test_dies_with_its_parent(void **state)
{
	int ends[2], status;
	char byte;

	if (geteuid() != 0)
		skip();
	assert_int_equal(pipe(ends), 0);
	if (!fork()) {
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(ends[0]);
			if (confine(NULL, 0, NULL) == 0)
				(void)!write(ends[1], "c", 1);
			for (;;)
				sleep(1);
		}
		close(ends[1]);
		if (read(ends[0], &byte, 1) != 1)
			_exit(1);
		_exit(0);
	}
	close(ends[1]);
	assert_true(wait(&status) > 0);
	assert_int_equal(status, 0);
	assert_int_equal(read(ends[0], &byte, 1), 0); /* nobody has the other end any more */
	close(ends[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_confined),
		cmocka_unit_test(test_dies_with_its_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
