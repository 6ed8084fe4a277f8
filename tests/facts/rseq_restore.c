// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * rseq_restore.c - an rseq area whose bytes are overwritten after registration (as a restore does) gets its cpu_id back from the
 * kernel at the next return to user space after a context switch or migration, and PTRACE_GET_RSEQ_CONFIGURATION tells the registration
 */
#include "fact.h"

#define PTRACE_GET_RSEQ_CONFIGURATION_ 0x420f

struct area {
	volatile uint32_t cpu_id_start, cpu_id;
	volatile uint64_t rseq_cs;
	volatile uint32_t flags, node_id, mm_cid, pad;
} __attribute__((aligned(32)));

struct configuration {
	uint64_t pointer;
	uint32_t size, signature, flags, pad;
};

/* A process made by a raw fork keeps glibc's registration; end it first. */
static void child(struct area *a, volatile int *stage)
{
	extern const ptrdiff_t __rseq_offset __attribute__((weak));
	extern const unsigned __rseq_size __attribute__((weak));

	if (&__rseq_size && __rseq_size)
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, 1 /* UNREGISTER */, 0x53053053);
	pin(1);
	*stage = syscall(SYS_rseq, a, 32, 0, 0x53053053) == 0 ? 1 : -errno;
	if (*stage < 0)
		_exit(1);
	for (;;)
		; /* never enters the kernel by itself */
}

int main(void)
{
	struct area *a = map_shared(PAGE);
	volatile int *stage = map_shared(PAGE);
	pid_t pid = fork();

	if (pid == 0)
		child(a, stage);
	while (!*stage)
		usleep(100);
	MUST(*stage == 1);
	usleep(1000);
	FACT(a->cpu_id == 1, "registered: cpu_id %u", a->cpu_id);
	/* a registration can be read from outside */
	seize_stop(pid, 0);
	struct configuration c = { 0 };
	long n = ptrace(PTRACE_GET_RSEQ_CONFIGURATION_, pid, sizeof(c), &c);
	FACT(n > 0 && c.pointer == (uintptr_t)a && c.signature == 0x53053053, "PTRACE_GET_RSEQ_CONFIGURATION: address, size %u, signature %#x", c.size,
	     c.signature);
	/* overwritten while stopped, as a restore would */
	a->cpu_id_start = 77, a->cpu_id = 77, a->mm_cid = 99, a->node_id = 55;
	ptrace(PTRACE_CONT, pid, 0, 0);
	uint64_t t = now_ns();
	while (a->cpu_id == 77 && now_ns() - t < 1000000000ull)
		;
	FACT(a->cpu_id == 1 && a->cpu_id_start == 1, "overwritten while stopped: fixed %llu us after the resume (cpu_id %u, start %u, node %u, mm_cid %u)",
	     (unsigned long long)(now_ns() - t) / 1000, a->cpu_id, a->cpu_id_start, a->node_id, a->mm_cid);
	/* registered by the tracer in a stopped task, the area written afterwards without a resume in between */
	ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	int status;
	waitpid(pid, &status, __WALL);
	uintptr_t at = vdso_syscall(pid);
	FACT(inject(pid, at, SYS_rseq, (long)a, 32, 1, 0x53053053, 0, 0) == 0, "unregister by an injected call");
	FACT(inject(pid, at, SYS_rseq, (long)a, 32, 0, 0x53053053, 0, 0) == 0, "register by an injected call");
	a->cpu_id_start = 77, a->cpu_id = 77;
	ptrace(PTRACE_DETACH, pid, 0, 0);
	t = now_ns();
	while (a->cpu_id == 77 && now_ns() - t < 1000000000ull)
		;
	FACT(a->cpu_id == 1, "registered, overwritten, detached: fixed %llu us after (cpu_id %u)", (unsigned long long)(now_ns() - t) / 1000, a->cpu_id);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return fact_result();
}
