// SPDX-License-Identifier: GPL-2.0-or-later
/* vdso_room.c - the end of the vdso's last page is zero padding, can be written through /proc/PID/mem, and can hold a trampoline */
#include "fact.h"

/* munmap(rdi, rsi) with rax = SYS_munmap on entry; exit(0) */
static const unsigned char trampoline[] = {
	0x0f, 0x05,                   /* syscall */
	0x31, 0xff,                   /* xor edi, edi */
	0xb8, 0x3c, 0x00, 0x00, 0x00, /* mov eax, SYS_exit */
	0x0f, 0x05,                   /* syscall */
};

int main(void)
{
	uintptr_t end, start = vdso_range(getpid(), &end);
	unsigned char *p = (void *)start;
	size_t len = end - start, used = len;

	MUST(start != 0);
	while (used > 0 && p[used - 1] == 0)
		used--;
	SAW("vdso %#lx-%#lx, %zu bytes, last byte used %zu", start, end, len, used);
	FACT(len - used >= 64, "zero padding at its end: %zu bytes", len - used);
	FACT(vdso_syscall(getpid()) != 0, "it has a syscall instruction at +%#lx", vdso_syscall(getpid()) - start);

	int *scratch = map_shared(PAGE);
	char *victim_page = map_anon(PAGE);
	pid_t pid = fork();
	if (pid == 0)
		for (;;)
			scratch[0]++;
	usleep(2000);
	uintptr_t at = end - 64;
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	int mem = open(path, O_RDWR | O_CLOEXEC);
	ssize_t n = pwrite(mem, trampoline, sizeof(trampoline), (off_t)at);
	FACT(n == (ssize_t)sizeof(trampoline), "written through /proc/PID/mem without stopping it: %s", n < 0 ? strerror(errno) : "ok");
	FACT(memcmp((void *)at, trampoline, sizeof(trampoline)) != 0, "and only there: other processes' vdso is unchanged");
	int pm;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	pm = open(path, O_RDONLY | O_CLOEXEC);
	SAW("its page is now: %s", categories_text(page_categories(pm, (void *)(at & ~(PAGE - 1)))));
	seize_stop(pid, 0);
	struct user_regs_struct r;
	ptrace(PTRACE_GETREGS, pid, 0, &r);
	r.rip = at, r.rax = SYS_munmap, r.rdi = (uintptr_t)victim_page, r.rsi = PAGE, r.orig_rax = -1ul;
	ptrace(PTRACE_SETREGS, pid, 0, &r);
	ptrace(PTRACE_DETACH, pid, 0, 0);
	int status;
	waitpid(pid, &status, 0);
	FACT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the trampoline ran: status %#x", status);
	return fact_result();
}
