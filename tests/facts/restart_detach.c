// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * restart_detach.c - what the kernel does with registers set at a stop when the tracer detaches: it restarts calls by rax and orig_rax, also
 * at an int3 and for calls that the thread never made; a call in which the thread was interrupted leaves its own restart block
 */
#include <sys/prctl.h>

#include "fact.h"

static struct shared {
	volatile int handled;
	volatile uint64_t begin, end;
	volatile long result;
	struct timespec t;
} *s;

static unsigned char *code; /* syscall; int3; then: syscall, store, exit */

static void handler(int signo)
{
	(void)signo;
	s->handled = 1;
}

static void finished(long result)
{
	s->result = result;
	s->end = now_ns();
	_exit(0);
}

/* syscall; mov rdi, rax; jmp to finished; the stack is aligned as at a call */
static void write_code(void)
{
	static const unsigned char text[] = { 0x0f, 0x05, 0xcc, 0x0f, 0x05, 0x48, 0x89, 0xc7, 0x48, 0xb8 };
	static const unsigned char jump[] = { 0xff, 0xe0 };
	void (*to)(long) = finished;

	code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(code != MAP_FAILED);
	memcpy(code, text, sizeof(text));
	memcpy(code + sizeof(text), &to, 8);
	memcpy(code + sizeof(text) + 8, jump, sizeof(jump));
}

#define AFTER_SYSCALL (code + 5)

/* A child that stands at an int3. */
static pid_t start(void)
{
	int status;
	pid_t pid;

	memset(s, 0, sizeof(*s));
	pid = fork();
	if (pid == 0) {
		struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };

		sigaction(SIGUSR1, &action, NULL);
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		__asm__ volatile("int3");
		_exit(9);
	}
	MUST(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	return pid;
}

static struct user_regs_struct regs_for(pid_t pid, long nr, long result, uint64_t a, uint64_t b, uint64_t c)
{
	struct user_regs_struct r;

	MUST(ptrace(PTRACE_GETREGS, pid, 0, &r) == 0);
	r.rsp = (r.rsp & ~15ull) - 8 - 256;
	r.rax = (uint64_t)result;
	r.orig_rax = (uint64_t)nr;
	r.rip = (uint64_t)AFTER_SYSCALL;
	r.rdi = a;
	r.rsi = b;
	r.rdx = c;
	return r;
}

static void detach(pid_t pid, struct user_regs_struct *r, int signo)
{
	s->begin = now_ns();
	MUST(ptrace(PTRACE_SETREGS, pid, 0, r) == 0);
	if (signo)
		kill(pid, signo);
	MUST(ptrace(PTRACE_DETACH, pid, 0, 0) == 0);
	MUST(waitpid(pid, NULL, 0) == pid);
}

static unsigned long long took_ms(void)
{
	return (s->end - s->begin) / 1000000;
}

static void calls_again(void)
{
	static const long results[] = { -512, -513, -514 };

	for (size_t i = 0; i < 3; i++) {
		pid_t pid = start();
		struct user_regs_struct r = regs_for(pid, SYS_poll, results[i], 0, 0, 20);

		detach(pid, &r, 0);
		FACT(s->result == 0 && took_ms() >= 20, "rax %ld, orig_rax poll, at an int3: poll is made, result %ld after %llu ms", results[i], s->result,
		     took_ms());
	}
}

static void signal_wins(void)
{
	static const struct {
		long result;
		bool interrupted;
	} one[] = { { -514, true }, { -516, true }, { -512, false } };

	for (size_t i = 0; i < 3; i++) {
		pid_t pid = start();
		struct user_regs_struct r = regs_for(pid, SYS_poll, one[i].result, 0, 0, 20);

		detach(pid, &r, SIGUSR1);
		FACT(s->handled && (s->result == -EINTR) == one[i].interrupted, "rax %ld and a pending signal with an SA_RESTART handler: %s", one[i].result,
		     s->result == -EINTR ? "EINTR" : "the call is made after the handler");
	}
}

static void no_block(void)
{
	pid_t pid = start();
	struct user_regs_struct r = regs_for(pid, SYS_poll, -516, 0, 0, 20);

	detach(pid, &r, 0);
	FACT(s->result == -EINTR, "rax -516 in a thread without a restart block: EINTR (%ld)", s->result);
}

static void primed(void)
{
	pid_t pid = start();
	struct user_regs_struct r = regs_for(pid, -1, SYS_poll, 0, 0, 80), seen;
	uint64_t begin = now_ns();
	int status;

	r.rip = (uint64_t)code;
	MUST(ptrace(PTRACE_SETREGS, pid, 0, &r) == 0);
	MUST(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
	usleep(20000);
	kill(pid, SIGCONT); /* this tracee was not seized; any signal stops it */
	MUST(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	MUST(ptrace(PTRACE_GETREGS, pid, 0, &seen) == 0);
	FACT((long)seen.rax == -516, "interrupted in an injected poll: rax %ld", (long)seen.rax);
	r = regs_for(pid, SYS_poll, -516, 1, 2, 3); /* the arguments do not matter any more */
	detach(pid, &r, 0);
	FACT(s->result == 0 && s->end - begin >= 80000000 && s->end - begin < 100000000 + 60000000,
	     "then rax -516 with registers of another moment: the poll ends at its time (%llu ms)", (unsigned long long)(s->end - begin) / 1000000);
}

static void timer_ids(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_NONE };
	int id = 4242;

	if (prctl(77, 1, 0, 0, 0) < 0) {
		SAW("no PR_TIMER_CREATE_RESTORE_IDS: timers are created and deleted until the number is reached");
		return;
	}
	FACT(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id) == 0 && id == 4242, "PR_TIMER_CREATE_RESTORE_IDS: timer %d", id);
	prctl(77, 0, 0, 0, 0);
}

int main(void)
{
	s = map_shared(PAGE);
	write_code();
	calls_again();
	signal_wins();
	no_block();
	primed();
	timer_ids();
	return fact_result();
}
