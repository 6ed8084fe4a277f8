// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * crowd_floor.c - what the kernel asks for stopping, reading and letting go many threads of one process: the floor under the freeze of a crowd. All of it grows with their number and not faster
 *
 * Threads sleep in read(2), as most threads of most programs do. Arguments: numbers of threads. Per step the median of some rounds, and what one thread costs. Without arguments few rounds are
 * made, and only the growth of what does not depend on the scheduler is judged.
 */
#include <elf.h>
#include <pthread.h>
#include <sys/prctl.h>

#include "fact.h"

#define MOST 4096
#define ROUNDS 7

enum step { STOP, GENERAL, XSTATE, SET, MASK, LET_GO, STEPS };

static const char *const names[STEPS] = { "interrupt and wait", "general registers read", "processor state read", "general registers set", "signal mask set", "let go, asleep again" };

static int gate[2];
static volatile pid_t *tids;
static volatile int *started;

static void *rest(void *unused)
{
	int i = __atomic_fetch_add((int *)(uintptr_t)started, 1, __ATOMIC_SEQ_CST);
	char byte;

	(void)unused;
	tids[i] = (pid_t)syscall(SYS_gettid);
	while (read(gate[0], &byte, 1) != 0)
		;
	return NULL;
}

static pid_t make_crowd(int n)
{
	pid_t pid;

	*started = 0;
	memset((void *)(uintptr_t)tids, 0, MOST * sizeof(*tids));
	pid = fork();
	if (pid == 0) {
		pthread_attr_t attr;
		pthread_t thread;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, 64 << 10);
		for (int i = 1; i < n; i++)
			MUST(pthread_create(&thread, &attr, rest, NULL) == 0);
		rest(NULL);
	}
	for (int i = 0; i < n; i++)
		while (!tids[i] || task_state(tids[i]) != 'S')
			usleep(100);
	return pid;
}

static void wait_stop(pid_t tid)
{
	int status;

	MUST(waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status));
}

/* One round over all threads; the time of each step. */
static void round_once(int n, uint64_t took[STEPS])
{
	static struct user_regs_struct regs[MOST];
	static unsigned char area[16384];
	uint64_t at[STEPS + 1], mask = 0;

	for (int i = 0; i < n; i++)
		MUST(ptrace(PTRACE_SEIZE, tids[i], 0, 0) == 0);
	at[STOP] = now_ns();
	for (int i = 0; i < n; i++)
		MUST(ptrace(PTRACE_INTERRUPT, tids[i], 0, 0) == 0);
	for (int i = n; i-- > 0;)
		wait_stop(tids[i]);
	at[GENERAL] = now_ns();
	for (int i = 0; i < n; i++)
		MUST(ptrace(PTRACE_GETREGSET, tids[i], NT_PRSTATUS, &(struct iovec){ &regs[i], sizeof(regs[i]) }) == 0);
	at[XSTATE] = now_ns();
	for (int i = 0; i < n; i++)
		MUST(ptrace(PTRACE_GETREGSET, tids[i], NT_X86_XSTATE, &(struct iovec){ area, sizeof(area) }) == 0);
	at[SET] = now_ns();
	for (int i = 0; i < n; i++)
		MUST(ptrace(PTRACE_SETREGSET, tids[i], NT_PRSTATUS, &(struct iovec){ &regs[i], sizeof(regs[i]) }) == 0);
	at[MASK] = now_ns();
	for (int i = 0; i < n; i++)
		MUST(ptrace(PTRACE_SETSIGMASK, tids[i], sizeof(mask), &mask) == 0);
	at[LET_GO] = now_ns();
	for (int i = 0; i < n; i++)
		MUST(ptrace(PTRACE_DETACH, tids[i], 0, 0) == 0);
	/* This process is in nobody's way meanwhile: they go back into their calls. */
	while (task_state(tids[n - 1]) != 'S')
		sched_yield();
	at[STEPS] = now_ns();
	for (int i = 0; i < STEPS; i++)
		took[i] = at[i + 1] - at[i];
}

/* Returns the nanoseconds that reading and setting one thread takes at best: other work on the machine does not count. */
static double measure(int n)
{
	uint64_t took[STEPS][ROUNDS], one[STEPS];
	pid_t pid = make_crowd(n);
	double sum = 0, best = 0;

	for (int r = 0; r < ROUNDS; r++) {
		round_once(n, one);
		for (int i = 0; i < STEPS; i++)
			took[i][r] = one[i];
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	for (int i = 0; i < STEPS; i++) {
		double median = (double)percentile(took[i], ROUNDS, 50);

		SAW("%4d threads: %-24s %8.1f us, %6.2f us each", n, names[i], median / 1000, median / 1000 / n);
		sum += median / n;
		best += i > STOP && i < LET_GO ? (double)percentile(took[i], ROUNDS, 0) / n : 0;
	}
	SAW("%4d threads: %-24s %8.1f us, %6.2f us each", n, "together", sum * n / 1000, sum / 1000);
	return best;
}

int main(int argc, char **argv)
{
	double few, many;

	tids = map_shared(MOST * sizeof(*tids));
	started = map_shared(PAGE);
	MUST(pipe(gate) == 0);
	for (int i = 1; i < argc; i++)
		measure((int)strtol(argv[i], NULL, 10));
	if (argc > 1)
		return 0;
	few = measure(16);
	many = measure(256);
	FACT(many < few * 4, "reading and setting one of 256 threads takes %.1f us, one of 16 %.1f", many / 1000, few / 1000);
	return fact_result();
}
