/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stub.c - the stub: what a unit's number at home is while the unit runs elsewhere
 *
 * Theory of operation: the frozen main thread of the source's copy execs this program, so that number, parent, session, group, controlling terminal and
 * credentials stay, and memory, threads and handlers go. It has no C library, some 20 KiB of memory, and one descriptor: a socket to the process
 * godwit-home, which does all that needs thought. All signals are blocked; a signalfd says that one is pending, and rt_sigtimedwait takes it with its
 * siginfo. What is the stub's own affair is not forwarded: children of the unit that die here, timers and descriptors that signalled here after
 * the unit had been frozen. When godwit-home is gone nothing can be known any more: the stub dies by SIGKILL.
 */
#include <asm/unistd.h>
#include <stddef.h>

#include "stub_abi.h"

#define SIG_CHLD 17
#define SIG_CONT 18
#define SIG_ALRM 14
#define SIG_STOP 19
#define SIG_ILL 4
#define SIG_TRAP 5
#define SIG_FPE 8
#define SIG_SEGV 11
#define SIG_VTALRM 26
#define SIG_PROF 27
#define SIG_IO 29
#define SIG_KILL 9
#define CODE_KERNEL 0x80
#define CODE_QUEUE (-1)
#define CODE_TIMER (-2)
#define CODE_ASYNCNL (-60)
#define CODE_TKILL (-6)
#define E_AGAIN (-11)
#define E_INTR (-4)
#define POLL_IN 1
#define PR_GET_NAME 16
#define COMM_BYTES 16
#define WAIT_NOHANG_ALL (1 | 0x40000000) /* WNOHANG, __WALL */

struct poll_fd {
	int fd;
	short events, revents;
};

struct kernel_action {
	uint64_t handler, flags, restorer, mask;
};

struct stub {
	int signals;
	int started;
	uint8_t skip[STUB_SIGNALS + 1];
	char *line, *line_end;  /* argv[0], for ps(1) */
	char program[256];      /* what follows the host in it */
};

static long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 asm("r10") = d;
	register long r8 asm("r8") = e;
	register long r9 asm("r9") = f;
	long ret;

	asm volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return ret;
}

#define sys(nr, ...) sys_array(nr, (const long[6]){ __VA_ARGS__ })

static inline long sys_array(long nr, const long a[6])
{
	return sys6(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* The compiler may call these by itself. */
void *memcpy(void *to, const void *from, size_t n)
{
	void *ret = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return ret;
}

void *memset(void *to, int c, size_t n)
{
	void *ret = to;

	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return ret;
}

/* --- ending and stopping --- */

static void __attribute__((noreturn)) leave(int status)
{
	for (;;)
		sys(__NR_exit_group, status);
}

/* The default action of a signal, on itself. */
static void strike(int number)
{
	struct kernel_action none = { 0 };
	uint64_t bit = 1ull << (number - 1);

	sys(__NR_rt_sigaction, number, (long)&none, 0, 8);
	sys(__NR_kill, sys(__NR_getpid), number);
	sys(__NR_rt_sigprocmask, 1, (long)&bit, 0, 8); /* SIG_UNBLOCK: here it strikes */
	sys(__NR_rt_sigprocmask, 0, (long)&bit, 0, 8);
}

/* The first process of a pid namespace dies of no signal from within, but of what it does. */
static void fault(int number)
{
	if (number == SIG_SEGV)
		asm volatile("movq $0, 0" : : : "memory");
	else if (number == SIG_ILL)
		asm volatile("ud2");
	else if (number == SIG_TRAP)
		asm volatile("int3");
	else if (number == SIG_FPE)
		asm volatile("xorl %%ecx, %%ecx\n\txorl %%edx, %%edx\n\tdivl %%ecx" : : : "ecx", "edx", "eax");
}

/* Without a core: there is nothing of the program in this one. */
static void __attribute__((noreturn)) die(int number)
{
	uint64_t none[2] = { 0, 0 };

	sys(__NR_prlimit64, 0, 4, (long)none, 0); /* RLIMIT_CORE */
	sys(__NR_prctl, 4, 0);                    /* PR_SET_DUMPABLE */
	strike(number);
	fault(number);
	leave(128 + number);
}

/* --- signals --- */

static int is_own_affair(int number, int code, uint32_t value)
{
	if (number == SIG_CHLD && code > 0) {
		while (sys(__NR_wait4, -1, 0, WAIT_NOHANG_ALL, 0) > 0)
			;
		return 1;
	}
	if (number == SIG_CONT && code == CODE_QUEUE && value == STUB_CONTINUE_VALUE)
		return 1;
	if ((code <= CODE_TIMER && code > CODE_TKILL) || code == CODE_ASYNCNL)
		return 1;
	if ((number == SIG_ALRM || number == SIG_VTALRM || number == SIG_PROF) && code == CODE_KERNEL)
		return 1;
	return number == SIG_IO && code > 0;
}

static void forward_signals(struct stub *s)
{
	static const uint64_t all = ~0ull;
	static const int64_t at_once[2] = { 0, 0 };
	struct stub_message m = { .kind = STUB_SIGNAL };

	for (;;) {
		long number = sys(__NR_rt_sigtimedwait, (long)&all, (long)m.info, (long)at_once, 8);
		int code;
		uint32_t value;

		if (number <= 0)
			return;
		memcpy(&code, m.info + 8, sizeof(code));
		memcpy(&value, m.info + 24, sizeof(value));
		if (number <= STUB_SIGNALS && s->skip[number]) {
			s->skip[number]--;
			continue;
		}
		if (is_own_affair((int)number, code, value))
			continue;
		m.value = (uint32_t)number;
		if (sys(__NR_sendto, STUB_SOCKET, (long)&m, sizeof(m), 0x4000, 0, 0) < 0) /* MSG_NOSIGNAL */
			die(SIG_KILL);
	}
}

static void open_signals(struct stub *s)
{
	static const uint64_t all = ~0ull;
	uint64_t none[4] = { 0 };

	sys(__NR_rt_sigprocmask, 2, (long)&all, 0, 8);
	for (int i = 0; i < 3; i++)
		sys(__NR_setitimer, i, (long)none, 0); /* they live through execve */
	s->signals = (int)sys(__NR_signalfd4, -1, (long)&all, 8, 02000000);
	if (s->signals < 0)
		die(SIG_KILL);
}

/* --- the name in ps(1) --- */

/* "godwit-stub: HOST: PROGRAM" over argv[0], cut where its room ends. */
static void show_host(struct stub *s, const char *host)
{
	static const char prefix[] = "godwit-stub: ";
	const char *parts[] = { prefix, host, ": ", s->program };
	char *at = s->line;

	for (unsigned i = 0; i < 4; i++)
		for (const char *p = parts[i]; *p && at < s->line_end; p++)
			*at++ = *p;
	while (at < s->line_end)
		*at++ = 0;
}

static void keep_program(struct stub *s)
{
	unsigned n = 0;
	char *p = s->line;

	for (int colons = 0; *p && colons < 2; p++)
		colons += p[0] == ':' && p[1] == ' ';
	while (*p == ' ')
		p++;
	for (; p < s->line_end && *p && n < sizeof(s->program) - 1; p++)
		s->program[n++] = *p;
	s->program[n] = 0;
}

/* --- the unit comes back --- */

/*
 * This program again, from a file that is root's (a program without rights could not make processes), with its line for ps(1) and its name. Signals stay pending
 * through that. The descriptors are moved out of the way of their numbers first.
 */
static void become(struct stub *s, const int *fds)
{
	char empty[] = "", name[COMM_BYTES], *const argv[] = { s->line, 0 }, *const envp[] = { name, 0 };
	struct stub_message failed;
	long moved[STUB_BECOME_FDS];

	memset(&failed, 0, sizeof(failed));
	failed.kind = STUB_FAILED;
	memset(name, 0, sizeof(name));
	sys(__NR_prctl, PR_GET_NAME, (long)name);
	for (int i = 0; i < STUB_BECOME_FDS; i++)
		moved[i] = sys(__NR_fcntl, fds[i], 0, STUB_BECOME_FIRST + STUB_BECOME_FDS); /* F_DUPFD */
	for (int i = 0; i < STUB_BECOME_FDS; i++)
		sys(__NR_dup3, moved[i], STUB_BECOME_FIRST + i, 0);
	sys(__NR_close_range, STUB_SOCKET + 1, STUB_BECOME_FIRST - 1, 0);
	sys(__NR_close_range, STUB_BECOME_FIRST + STUB_BECOME_FDS - 1, ~0u, 4); /* CLOSE_RANGE_CLOEXEC */
	sys(__NR_execveat, STUB_BECOME_FIRST + STUB_BECOME_FDS - 1, (long)empty, (long)argv, (long)envp, 0x1000); /* AT_EMPTY_PATH */
	sys(__NR_close_range, STUB_SOCKET + 1, ~0u, 0); /* as it was */
	open_signals(s);
	sys(__NR_sendto, STUB_SOCKET, (long)&failed, sizeof(failed), 0x4000, 0, 0);
}

/* --- system call filters --- */

/*
 * They are in force until godwit-home traces it. Nobody does any more after half a minute or so. That it is here, and has not just been stopped on its way, RCX
 * says, in which every system call leaves something else.
 */
static void wait_for_tracer(void)
{
	uint64_t go, left = 1ull << 30;

	asm volatile("xorl %%eax, %%eax\n\tmovq %2, %%rcx\n1: pause\n\ttestq %%rax, %%rax\n\tjnz 2f\n\tdecq %1\n\tjnz 1b\n\tud2\n2:"
		     : "=&a"(go), "+r"(left) : "i"(STUB_SPINNING) : "rcx", "cc");
}

/* --- messages --- */

struct control {
	uint64_t len;
	int level, type;
	int fds[STUB_BECOME_FDS + 1];
};

struct message_header {
	void *name;
	uint32_t namelen, pad;
	struct {
		void *base;
		uint64_t len;
	} *iov;
	uint64_t iovlen;
	void *control;
	uint64_t controllen;
	uint32_t flags, pad2;
};

static void obey(struct stub *s, const struct stub_message *m, const struct control *c)
{
	switch (m->kind) {
	case STUB_START:
		memcpy(s->skip, m->start.skip, sizeof(s->skip));
		s->started = 1;
		if (m->start.owned)
			sys(__NR_setresuid, m->start.uid[0], m->start.uid[1], m->start.uid[2]);
		sys(__NR_close_range, STUB_BECOME_FIRST, STUB_BECOME_FIRST + STUB_BECOME_FDS - 1, 0);
		return;
	case STUB_EXIT:
		leave((int)m->value);
	case STUB_DIE:
		die((int)m->value);
	case STUB_STOP:
		strike((int)m->value);
		return;
	case STUB_HOST:
		show_host(s, m->text);
		return;
	case STUB_BECOME:
		become(s, c->fds);
		return;
	}
}

/* Returns when there is no message now. */
static void receive(struct stub *s)
{
	for (;;) {
		struct stub_message m;
		struct control c;
		struct message_header h;
		__typeof__(*h.iov) iov = { &m, sizeof(m) };
		long n;

		memset(&h, 0, sizeof(h));
		memset(&m, 0, sizeof(m));
		h.iov = &iov;
		h.iovlen = 1;
		h.control = &c;
		h.controllen = sizeof(c);
		n = sys(__NR_recvmsg, STUB_SOCKET, (long)&h, 0x40); /* MSG_DONTWAIT */
		if (n == E_AGAIN || n == E_INTR)
			return;
		if (n != (long)sizeof(m))
			die(SIG_KILL);
		m.text[sizeof(m.text) - 1] = 0;
		obey(s, &m, &c);
	}
}

void __attribute__((noreturn, used)) stub_main(long *stack)
{
	struct stub s;
	struct stub_message ready;
	char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;

	memset(&s, 0, sizeof(s));
	memset(&ready, 0, sizeof(ready));
	ready.kind = STUB_READY;
	ready.value = (uint32_t)sys(__NR_geteuid);
	open_signals(&s);
	s.line = s.line_end = argv[0];
	while (*s.line_end)
		s.line_end++;
	keep_program(&s);
	if (envp[0])
		sys(__NR_prctl, 15, (long)envp[0]); /* PR_SET_NAME */
	if (sys(__NR_sendto, STUB_SOCKET, (long)&ready, sizeof(ready), 0x4000, 0, 0) < 0)
		die(SIG_KILL);
	if (envp[0] && envp[1])
		wait_for_tracer();
	for (;;) {
		struct poll_fd p[2] = { { STUB_SOCKET, POLL_IN, 0 }, { s.signals, POLL_IN, 0 } };

		sys(__NR_poll, (long)p, s.started ? 2 : 1, -1);
		if (p[0].revents)
			receive(&s);
		if (p[1].revents && s.started)
			forward_signals(&s);
	}
}

asm(".globl _start\n_start: xorl %ebp, %ebp\n\tmovq %rsp, %rdi\n\tandq $-16, %rsp\n\tcall stub_main\n\tud2\n");
