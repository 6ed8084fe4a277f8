// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vandal.c - changes one thing in a running victim, to show that the victim notices
 *
 * vandal PID call NR [ARG...]      makes the main thread run a system call (its own call is restarted); prints the result
 * vandal PID flip PATTERN OFFSET   flips a bit OFFSET bytes into the largest writable mapping whose line matches PATTERN ("" for anonymous)
 * vandal TID reg WHICH             flips a bit: rbx, r15, xmm7, zmm20, k3, mxcsr, st, gs, carry
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t target;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "vandal: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void wait_stop(void)
{
	int status;

	if (waitpid(target, &status, __WALL) != target || !WIFSTOPPED(status))
		die("waitpid");
}

static void attach(void)
{
	if (ptrace(PTRACE_SEIZE, target, 0, PTRACE_O_TRACESYSGOOD) || ptrace(PTRACE_INTERRUPT, target, 0, 0))
		die("attach");
	wait_stop();
}

/* Address of a `syscall` instruction in the C library or the program. */
static uint64_t find_syscall(int mem)
{
	char path[64], line[4096];
	static unsigned char buf[1 << 20];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", target);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long a, b;
		ssize_t n;

		if (sscanf(line, "%lx-%lx r-xp", &a, &b) != 2 || !strstr(line, "r-xp") || strstr(line, "[v"))
			continue;
		n = pread(mem, buf, sizeof(buf) < b - a ? sizeof(buf) : b - a, (off_t)a);
		for (ssize_t i = 0; i + 1 < n; i++) {
			if (buf[i] == 0x0f && buf[i + 1] == 0x05)
				return a + (uint64_t)i;
		}
	}
	errno = ENOENT;
	die("no syscall instruction");
}

static int do_call(int argc, char **argv)
{
	struct user_regs_struct saved, r;
	uint64_t arg[7] = { 0 };
	char path[64];
	int mem;

	snprintf(path, sizeof(path), "/proc/%d/mem", target);
	mem = open(path, O_RDWR | O_CLOEXEC);
	for (int i = 0; i < argc && i < 7; i++)
		arg[i] = strtoull(argv[i], NULL, 0);
	if (mem < 0 || ptrace(PTRACE_GETREGS, target, 0, &saved))
		die("registers");
	r = saved;
	r.rip = find_syscall(mem);
	r.rax = arg[0];
	r.orig_rax = (uint64_t)-1;
	r.rdi = arg[1];
	r.rsi = arg[2];
	r.rdx = arg[3];
	r.r10 = arg[4];
	r.r8 = arg[5];
	r.r9 = arg[6];
	if (ptrace(PTRACE_SETREGS, target, 0, &r) || ptrace(PTRACE_SYSCALL, target, 0, 0))
		die("set registers");
	wait_stop();
	if (ptrace(PTRACE_SYSCALL, target, 0, 0))
		die("run the call");
	wait_stop();
	if (ptrace(PTRACE_GETREGS, target, 0, &r))
		die("result");
	printf("%lld\n", (long long)r.rax);
	/* The call in progress comes again: as the kernel would do it, by hand. */
	if ((int64_t)saved.orig_rax >= 0 && ((int64_t)saved.rax == -512 || (int64_t)saved.rax == -513 || (int64_t)saved.rax == -514 ||
					     (int64_t)saved.rax == -516)) {
		saved.rax = saved.orig_rax;
		saved.rip -= 2;
		saved.orig_rax = (uint64_t)-1;
	}
	if (ptrace(PTRACE_SETREGS, target, 0, &saved))
		die("restore registers");
	return 0;
}

static int do_flip(const char *pattern, uint64_t offset)
{
	char path[64], line[4096];
	unsigned long best = 0, best_len = 0;
	unsigned char c;
	FILE *f;
	int mem;

	snprintf(path, sizeof(path), "/proc/%d/maps", target);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long a, b, inode = 0;
		char perms[5] = "", file[2048] = "";

		if (sscanf(line, "%lx-%lx %4s %*s %*s %lu %2047s", &a, &b, perms, &inode, file) < 4)
			continue;
		if (*pattern ? !strstr(file, pattern) : file[0] != 0)
			continue;
		if (b - a > best_len && perms[0] == 'r') {
			best = a;
			best_len = b - a;
		}
	}
	snprintf(path, sizeof(path), "/proc/%d/mem", target);
	mem = open(path, O_RDWR | O_CLOEXEC);
	if (!best || offset >= best_len || pread(mem, &c, 1, (off_t)(best + offset)) != 1)
		die("no such byte");
	c ^= 0x10;
	if (pwrite(mem, &c, 1, (off_t)(best + offset)) != 1)
		die("write");
	printf("%lx\n", best + offset);
	return 0;
}

static int flip_xstate(const char *which)
{
	static uint8_t x[16384] __attribute__((aligned(64)));
	struct iovec iov = { x, sizeof(x) };

	if (ptrace(PTRACE_GETREGSET, target, NT_X86_XSTATE, &iov))
		die("NT_X86_XSTATE");
	if (!strcmp(which, "mxcsr"))
		x[24 + 1] ^= 0x20;
	else if (!strcmp(which, "st"))
		x[32 + 5] ^= 1;
	else if (!strcmp(which, "xmm7"))
		x[160 + 7 * 16 + 3] ^= 1;
	else if (!strcmp(which, "ymm9"))
		x[576 + 9 * 16 + 3] ^= 1;
	else if (!strcmp(which, "k3"))
		x[1088 + 3 * 8] ^= 1; /* standard offsets of processors with MPX's room left */
	else
		return -1;
	if (ptrace(PTRACE_SETREGSET, target, NT_X86_XSTATE, &iov))
		die("set NT_X86_XSTATE");
	return 0;
}

static int do_reg(const char *which)
{
	struct user_regs_struct r;
	static const struct {
		const char *name;
		size_t off;
	} regs[] = { { "rbx", offsetof(struct user_regs_struct, rbx) }, { "r15", offsetof(struct user_regs_struct, r15) },
		     { "rbp", offsetof(struct user_regs_struct, rbp) }, { "rdx", offsetof(struct user_regs_struct, rdx) } };

	if (!flip_xstate(which))
		return 0;
	if (ptrace(PTRACE_GETREGS, target, 0, &r))
		die("registers");
	for (size_t i = 0; i < sizeof(regs) / sizeof(*regs); i++) {
		if (!strcmp(which, regs[i].name))
			*(uint64_t *)((char *)&r + regs[i].off) ^= 1ull << 40;
	}
	if (!strcmp(which, "carry"))
		r.eflags ^= 1;
	if (!strcmp(which, "gs"))
		r.gs_base += 8;
	if (ptrace(PTRACE_SETREGS, target, 0, &r))
		die("set registers");
	return 0;
}

int main(int argc, char **argv)
{
	int ret;

	if (argc < 4) {
		fprintf(stderr, "usage: vandal PID call NR [ARG...] | flip PATTERN OFFSET | reg WHICH\n");
		return 2;
	}
	target = atoi(argv[1]);
	attach();
	if (!strcmp(argv[2], "call"))
		ret = do_call(argc - 3, argv + 3);
	else if (!strcmp(argv[2], "flip") && argc == 5)
		ret = do_flip(argv[3], strtoull(argv[4], NULL, 0));
	else
		ret = do_reg(argv[3]);
	ptrace(PTRACE_DETACH, target, 0, 0);
	return ret;
}
