// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * resume_latency.c - from the last steps of a restore (SETREGSET of general registers and XSAVE, signal mask, DETACH) to the first
 * user instruction: idle cores, busy cores, tracer at FIFO or nice -20, target pinned beside the tracer or on its core
 * (argument "all": more rounds)
 */
#include <elf.h>
#include <limits.h>

#include "fact.h"

#define ROUNDS_MAX 60

static int rounds = 8; /* with an argument: ROUNDS_MAX */

static volatile uint64_t *first; /* [0] when the target saw itself running, [1] armed */

static pid_t spawn_target(int cpu, int nice_value)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	if (cpu >= 0)
		pin(cpu);
	setpriority(PRIO_PROCESS, 0, nice_value);
	for (;;)
		if (first[1]) {
			first[0] = now_ns();
			first[1] = 0;
		}
}

static pid_t burner(int cpu)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	pin(cpu);
	for (volatile uint64_t n = 0;; n++)
		;
}

static void measure(const char *name, int tracer_cpu, int target_cpu, int target_nice, bool sleep_before)
{
	static uint64_t calls[ROUNDS_MAX], total[ROUNDS_MAX];
	static unsigned char xsave[32768];
	struct user_regs_struct r;
	size_t xlen = 0;

	if (tracer_cpu >= 0)
		pin(tracer_cpu);
	pid_t pid = spawn_target(target_cpu, target_nice);
	usleep(3000);
	for (int i = 0; i < rounds; i++) {
		uint64_t mask = 0;
		struct iovec general = { &r, sizeof(r) }, x = { xsave, sizeof(xsave) };

		seize_stop(pid, 0);
		MUST(ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &general) == 0);
		MUST(ptrace(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &x) == 0);
		xlen = x.iov_len;
		if (sleep_before)
			usleep(2000);
		first[0] = 0;
		first[1] = 1;
		uint64_t t = now_ns();
		MUST(ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &general) == 0);
		MUST(ptrace(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &x) == 0);
		MUST(ptrace(PTRACE_SETSIGMASK, pid, 8, &mask) == 0);
		MUST(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
		calls[i] = now_ns() - t;
		if (tracer_cpu >= 0 && tracer_cpu == target_cpu)
			usleep(20000);
		while (!first[0])
			if (tracer_cpu == target_cpu)
				usleep(1000);
		total[i] = first[0] - t;
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	SAW("%-62s calls %5.1f us; first instruction median %6.1f, p90 %7.1f, max %8.1f us", name, (double)percentile(calls, (size_t)rounds, 50) / 1000,
	    (double)percentile(total, (size_t)rounds, 50) / 1000, (double)percentile(total, (size_t)rounds, 90) / 1000, (double)percentile(total, (size_t)rounds, 100) / 1000);
	(void)xlen;
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1)
		rounds = ROUNDS_MAX;
	first = map_shared(PAGE);
	measure("idle, other core, tracer spins up to it", 0, 1, 0, false);
	measure("idle, other core, tracer slept 2 ms before", 0, 1, 0, true);
	measure("idle, same core (tracer then sleeps)", 0, 0, 0, false);
	measure("idle, nothing pinned", -1, -1, 0, true);
	pin(0);
	pid_t b0 = burner(0), b1 = burner(1);
	measure("both cores busy, normal tracer, other core", 0, 1, 0, true);
	measure("both cores busy, target at nice -20", 0, 1, -20, true);
	setpriority(PRIO_PROCESS, 0, -20);
	measure("both cores busy, tracer at nice -20, other core", 0, 1, 0, true);
	measure("both cores busy, tracer and target at nice -20, other core", 0, 1, -20, true);
	measure("both cores busy, tracer at nice -20, same core, then sleeps", 0, 0, 0, true);
	setpriority(PRIO_PROCESS, 0, 0);
	struct sched_param sp = { .sched_priority = 1 };
	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &sp) == 0) {
		measure("both cores busy, tracer FIFO, other core", 0, 1, 0, true);
		measure("both cores busy, tracer FIFO, same core, then sleeps", 0, 0, 0, true);
	} else
		SAW("SCHED_FIFO: %s", strerror(errno));
	kill(b0, SIGKILL);
	kill(b1, SIGKILL);
	FACT(fact_failures == 0, "a tracer resumes a task with four calls");
	return fact_result();
}
