/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fake_skeleton.c - see fake_skeleton.h */
#include "fake_skeleton.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTROL 4096
#define STACK_TOP 65536
#define CALLS 65536
#define ARENA (2ul << 20)

struct control {
	uint32_t state; /* 0 idle, 1 run */
	uint32_t n;
};

extern const char fake_stub_start[], fake_stub_end[];

/*
 * The loop of the child; rbx: control, r12: first call. Position independent, no stack. FUTEX_WAIT = 0, FUTEX_WAKE = 1.
 */
__asm__(".text\n.globl fake_stub_start\n.globl fake_stub_end\n"
	"fake_stub_start:\n"
	"1:	cmpl $1, (%rbx)\n"
	"	je 2f\n"
	"	mov $202, %eax\n	mov %rbx, %rdi\n	xor %esi, %esi\n"
	"	xor %edx, %edx\n	xor %r10d, %r10d\n	syscall\n"
	"	jmp 1b\n"
	"2:	mov %r12, %r13\n	mov 4(%rbx), %r14d\n"
	"3:	test %r14d, %r14d\n	jz 5f\n"
	"	mov (%r13), %rax\n	mov 8(%r13), %rdi\n	mov 16(%r13), %rsi\n	mov 24(%r13), %rdx\n"
	"	mov 32(%r13), %r10\n	mov 40(%r13), %r8\n	mov 48(%r13), %r9\n	syscall\n"
	"	mov %rax, 56(%r13)\n"
	"	cmp $-4095, %rax\n	jb 4f\n"
	"	testl $1, 64(%r13)\n	jz 5f\n"
	"4:	add $72, %r13\n	dec %r14d\n	jmp 3b\n"
	"5:	movl $0, (%rbx)\n"
	"	mov $202, %eax\n	mov %rbx, %rdi\n	mov $1, %esi\n	mov $1, %edx\n	syscall\n"
	"	jmp 1b\n"
	"fake_stub_end:\n");

static void __attribute__((noreturn)) child(uint64_t address, int memfd, void *parents)
{
	char *base = mmap((void *)address, FAKE_SCRATCH_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_SHARED | MAP_FIXED_NOREPLACE, memfd, 0);

	if (base != (void *)address)
		_exit(99);
	munmap(parents, FAKE_SCRATCH_SIZE);
	close(memfd);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (__rseq_size)
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32, 1, 0x53053053);
	syscall(SYS_set_robust_list, NULL, 24);
	syscall(SYS_set_tid_address, NULL);
	__asm__ volatile("mov %0, %%rbx\n\tmov %1, %%r12\n\tmov %2, %%rsp\n\tjmp *%3"
			 : : "r"(base + CONTROL), "r"(base + CALLS), "r"(base + STACK_TOP), "r"(base) : "rbx", "r12");
	__builtin_unreachable();
}

/* The scratch; returns its memfd. */
static int prepare(struct batch *b, uint64_t address)
{
	int memfd = memfd_create("godwit-scratch", MFD_CLOEXEC);

	if (memfd < 0 || ftruncate(memfd, FAKE_SCRATCH_SIZE) < 0)
		abort();
	memset(b, 0, sizeof(*b));
	b->scratch = mmap(NULL, FAKE_SCRATCH_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (b->scratch == MAP_FAILED)
		abort();
	b->address = address;
	memcpy(b->scratch, fake_stub_start, fake_stub_end - fake_stub_start);
	return memfd;
}

void fake_skeleton_start(struct batch *b, uint64_t address)
{
	int memfd = prepare(b, address);

	b->pid = fork();
	if (b->pid == 0)
		child(address, memfd, b->scratch);
	close(memfd);
}

void fake_skeleton_start_sharing(struct batch *a, uint64_t address_a, struct batch *b, uint64_t address_b)
{
	int memfd_a = prepare(a, address_a), memfd_b = prepare(b, address_b);
	struct control *told = (struct control *)(b->scratch + CONTROL);

	a->pid = fork();
	if (a->pid == 0) {
		pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);

		if (pid == 0)
			child(address_b, memfd_b, b->scratch);
		__atomic_store_n(&told->n, (uint32_t)pid, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &told->n, FUTEX_WAKE, 1, NULL, NULL, 0);
		child(address_a, memfd_a, a->scratch);
	}
	while (!__atomic_load_n(&told->n, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &told->n, FUTEX_WAIT, 0, NULL, NULL, 0);
	b->pid = (pid_t)told->n;
	close(memfd_a);
	close(memfd_b);
	/* Once it runs lists, it does not need its memfd any more, which the other one may close. */
	if (batch_run(b, NULL) < 0)
		abort();
}

void fake_skeleton_end(struct batch *b)
{
	kill(b->pid, SIGKILL);
	waitpid(b->pid, NULL, 0);
	munmap(b->scratch, FAKE_SCRATCH_SIZE);
}

static struct remote_call *calls(struct batch *b)
{
	return (struct remote_call *)(b->scratch + CALLS);
}

struct remote_call *batch_call_array(struct batch *b, const char *what, uint64_t nr, uint32_t flags, const uint64_t arg[6])
{
	struct remote_call *c = &calls(b)[b->n_calls];

	if (b->n_calls == 16384)
		abort();
	memset(c, 0, sizeof(*c));
	c->nr = nr;
	c->flags = flags;
	c->ret = CALL_SKIPPED;
	memcpy(c->arg, arg, sizeof(c->arg));
	b->what[b->n_calls++] = what;
	return c;
}

void *batch_space(struct batch *b, size_t len_bytes, uint64_t *ret_address)
{
	uint64_t at = ARENA + b->arena;

	b->arena += (len_bytes + 15) & ~15ul;
	if (ARENA + b->arena > FAKE_SCRATCH_SIZE)
		abort();
	memset(b->scratch + at, 0, len_bytes);
	*ret_address = b->address + at;
	return b->scratch + at;
}

uint64_t batch_data(struct batch *b, const void *data, size_t len_bytes)
{
	uint64_t address;

	memcpy(batch_space(b, len_bytes, &address), data, len_bytes);
	return address;
}

uint64_t batch_string(struct batch *b, const char *text)
{
	return batch_data(b, text, strlen(text) + 1);
}

int batch_run(struct batch *b, struct err *e)
{
	struct control *c = (struct control *)(b->scratch + CONTROL);
	struct timespec second = { 1, 0 };

	c->n = b->n_calls;
	__atomic_store_n(&c->state, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &c->state, FUTEX_WAKE, 1, NULL, NULL, 0);
	while (__atomic_load_n(&c->state, __ATOMIC_SEQ_CST) == 1) {
		int status;

		syscall(SYS_futex, &c->state, FUTEX_WAIT, 1, &second, NULL, 0);
		if (waitpid(b->pid, &status, WNOHANG) == b->pid)
			return err_set(e, -ECHILD, "the skeleton died, status %x", status);
	}
	for (uint32_t i = 0; i < b->n_calls; i++) {
		struct remote_call *r = &calls(b)[i];

		if (!(r->flags & CALL_MAY_FAIL) && r->ret < 0 && r->ret >= -4095)
			return err_sys(e, r->ret, "%s(%llx, %llx, %llx, %llx, %lld)", b->what[i], (unsigned long long)r->arg[0],
				       (unsigned long long)r->arg[1], (unsigned long long)r->arg[2], (unsigned long long)r->arg[3],
				       (long long)r->arg[4]);
	}
	return 0;
}

void batch_reset(struct batch *b)
{
	b->n_calls = 0;
	b->arena = 0;
}

int64_t remote_do_array(struct batch *b, struct err *e, const char *what, uint64_t nr, const uint64_t arg[6])
{
	struct remote_call *c = batch_call_array(b, what, nr, 0, arg);
	int64_t ret;

	batch_run(b, e);
	ret = c->ret;
	batch_reset(b);
	return ret;
}
