// SPDX-License-Identifier: GPL-2.0-or-later
/* tracer_death.c - when a tracer is killed, its stopped tracee goes on with the registers and the signal mask that the tracer had set */
#include "fact.h"

struct shared {
	volatile uint32_t counter, redirected;
	volatile int stage;
	volatile uint64_t mask;
};

static struct shared *shared;
static char stack[65536] __attribute__((aligned(16)));

static void elsewhere(void)
{
	sigset_t set;
	uint64_t mask = 0;

	sigprocmask(SIG_BLOCK, NULL, &set);
	memcpy(&mask, &set, 8);
	shared->mask = mask;
	shared->redirected = 1;
	for (;;)
		pause();
}

static pid_t spawn(bool sleeping)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;) {
			shared->counter++;
			if (sleeping)
				sleep(100);
		}
	return pid;
}

static void one(bool sleeping)
{
	memset(shared, 0, sizeof(*shared));
	pid_t victim = spawn(sleeping);

	while (!shared->counter)
		usleep(100);
	usleep(5000);
	pid_t tracer = fork();
	if (tracer == 0) {
		struct user_regs_struct r;
		uint64_t all = ~0ull;

		seize_stop(victim, 0);
		MUST(ptrace(PTRACE_GETREGS, victim, 0, &r) == 0);
		r.rip = (uintptr_t)elsewhere;
		r.rsp = (uintptr_t)stack + sizeof(stack) - 8;
		r.orig_rax = -1ul; /* no system call to restart */
		MUST(ptrace(PTRACE_SETREGS, victim, 0, &r) == 0);
		MUST(ptrace(PTRACE_SETSIGMASK, victim, 8, &all) == 0);
		shared->stage = 1;
		for (;;)
			pause();
	}
	while (shared->stage != 1)
		usleep(100);
	FACT(!shared->redirected, "%s victim stays stopped while the tracer lives", sleeping ? "sleeping" : "running");
	uint64_t t = now_ns();
	kill(tracer, SIGKILL);
	waitpid(tracer, NULL, 0);
	while (!shared->redirected && now_ns() - t < 1000000000ull)
		;
	FACT(shared->redirected, "the tracer was killed: the victim runs at the changed registers, %llu us after", (unsigned long long)(now_ns() - t) / 1000);
	FACT((shared->mask | 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1)) == ~0ull, "with the mask that was set: %#llx",
	     (unsigned long long)shared->mask);
	kill(victim, SIGKILL);
	waitpid(victim, NULL, 0);
}

int main(void)
{
	shared = map_shared(PAGE);
	one(false);
	one(true);
	return fact_result();
}
