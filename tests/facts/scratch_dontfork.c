// SPDX-License-Identifier: GPL-2.0-or-later
/* scratch_dontfork.c - MADV_DONTFORK on a shared memfd mapping; shared futex and spinning between two processes through it */
#include <linux/futex.h>

#include "fact.h"

#define ROUNDS 2000

struct slot {
	volatile uint32_t command, answer;
};

static void futex(volatile uint32_t *word, int op, uint32_t value)
{
	syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

static void serve(struct slot *s, bool spin)
{
	for (uint32_t n = 1; n <= ROUNDS; n++) {
		while (s->command != n)
			if (!spin)
				futex(&s->command, FUTEX_WAIT, n - 1);
		s->answer = n;
		if (!spin)
			futex(&s->answer, FUTEX_WAKE, 1);
	}
	_exit(0);
}

static void ping(struct slot *s, const char *name, bool spin_serve, bool spin_ask, int cpu, unsigned pause_us)
{
	static uint64_t t[ROUNDS];
	pid_t pid;

	memset((void *)s, 0, sizeof(*s));
	pin(0);
	pid = fork();
	if (pid == 0) {
		pin(cpu);
		serve(s, spin_serve);
	}
	usleep(3000);
	for (uint32_t n = 1; n <= ROUNDS; n++) {
		for (uint64_t until = now_ns() + pause_us * 1000ull; now_ns() < until;)
			;
		uint64_t start = now_ns();
		s->command = n;
		if (!spin_serve)
			futex(&s->command, FUTEX_WAKE, 1);
		while (s->answer != n)
			if (!spin_ask)
				futex(&s->answer, FUTEX_WAIT, n - 1);
		t[n - 1] = now_ns() - start;
	}
	waitpid(pid, NULL, 0);
	SAW("%-48s round trip median %5.1f us, p99 %6.1f", name, (double)percentile(t, ROUNDS, 50) / 1000, (double)percentile(t, ROUNDS, 99) / 1000);
}

int main(void)
{
	int m = memfd_create("scratch", MFD_CLOEXEC);
	MUST(ftruncate(m, 4 * PAGE) == 0);
	char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
	int r = madvise(p, 4 * PAGE, MADV_DONTFORK);
	FACT(r == 0, "MADV_DONTFORK on a shared memfd mapping: %s", r ? strerror(errno) : "ok");
	pid_t pid = fork();
	if (pid == 0) {
		unsigned char v;
		_exit(mincore(p, PAGE, &v) < 0 && errno == ENOMEM ? 0 : 1);
	}
	int status;
	waitpid(pid, &status, 0);
	FACT(status == 0, "a forked child does not have it");
	char *x = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, m, 0);
	FACT(x != MAP_FAILED, "the same memfd maps executable: %s", x == MAP_FAILED ? strerror(errno) : "ok");
	struct slot *s = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
	ping(s, "futex both ways, other core, at once", false, false, 1, 0);
	ping(s, "futex both ways, other core, 100 us between", false, false, 1, 100);
	ping(s, "futex both ways, same core", false, false, 0, 0);
	ping(s, "asker spins, server asleep, other core, 100 us", false, true, 1, 100);
	ping(s, "both spin, other core", true, true, 1, 0);
	return fact_result();
}
