// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * regs.c - threads that hold a pattern of their own in every register
 *
 * hold_registers loads a pattern into the general, x87, vector and mask registers, spins (or sleeps in the kernel) with everything in
 * place, and stores what is there afterwards. Nearly all the time is spent between load and store.
 */
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

struct regset {
	uint64_t gpr[14];       /*   0: rbx rcx rdx rsi rdi r8..r15 rbp */
	uint64_t mxcsr;         /* 112 */
	uint64_t x87_cw;        /* 120 */
	double st[8];           /* 128: ST(0) first in `out`, loaded from the last */
	uint64_t k[8];          /* 192 */
	uint8_t zmm[32][64];    /* 256 */
	uint64_t carry;         /* 2304 */
	uint64_t rax;           /* 2312: result of the call in the sleeping variant */
} __attribute__((aligned(64)));

_Static_assert(offsetof(struct regset, zmm) == 256 && offsetof(struct regset, carry) == 2304, "layout is known to the assembly");

/* level: 0 SSE, 1 AVX, 2 AVX-512. sleep_spec: NULL to spin. */
void hold_registers(const struct regset *in, struct regset *out, uint64_t spins, uint64_t level, const struct timespec *sleep_spec);

#define Z1(op, r, n) op " " n "*64+256(%rax), %" r n "\n"
#define LOAD16(op, r) Z1(op, r, "0") Z1(op, r, "1") Z1(op, r, "2") Z1(op, r, "3") Z1(op, r, "4") Z1(op, r, "5") Z1(op, r, "6") Z1(op, r, "7") \
	Z1(op, r, "8") Z1(op, r, "9") Z1(op, r, "10") Z1(op, r, "11") Z1(op, r, "12") Z1(op, r, "13") Z1(op, r, "14") Z1(op, r, "15")
#define LOAD32(op, r) Z1(op, r, "16") Z1(op, r, "17") Z1(op, r, "18") Z1(op, r, "19") Z1(op, r, "20") Z1(op, r, "21") Z1(op, r, "22") \
	Z1(op, r, "23") Z1(op, r, "24") Z1(op, r, "25") Z1(op, r, "26") Z1(op, r, "27") Z1(op, r, "28") Z1(op, r, "29") Z1(op, r, "30") Z1(op, r, "31")
#define S1(op, r, n) op " %" r n ", " n "*64+256(%rax)\n"
#define STORE16(op, r) S1(op, r, "0") S1(op, r, "1") S1(op, r, "2") S1(op, r, "3") S1(op, r, "4") S1(op, r, "5") S1(op, r, "6") S1(op, r, "7") \
	S1(op, r, "8") S1(op, r, "9") S1(op, r, "10") S1(op, r, "11") S1(op, r, "12") S1(op, r, "13") S1(op, r, "14") S1(op, r, "15")
#define STORE32(op, r) S1(op, r, "16") S1(op, r, "17") S1(op, r, "18") S1(op, r, "19") S1(op, r, "20") S1(op, r, "21") S1(op, r, "22") \
	S1(op, r, "23") S1(op, r, "24") S1(op, r, "25") S1(op, r, "26") S1(op, r, "27") S1(op, r, "28") S1(op, r, "29") S1(op, r, "30") S1(op, r, "31")
#define K1(n) "kmovq " n "*8+192(%rax), %k" n "\n"
#define KS1(n) "kmovq %k" n ", " n "*8+192(%rax)\n"

/* Stack while holding: 0 spins, 8 out, 16 level, 24 sleep_spec, 32 saved mxcsr and control word. The red zone is left alone. */
asm(".text\n.globl hold_registers\n.type hold_registers, @function\nhold_registers:\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\nsub $56, %rsp\n"
    "mov %rdx, (%rsp)\nmov %rsi, 8(%rsp)\nmov %rcx, 16(%rsp)\nmov %r8, 24(%rsp)\nstmxcsr 32(%rsp)\nfnstcw 36(%rsp)\n"
    "mov %rdi, %rax\n"
    "fninit\nfldcw 120(%rax)\n"
    "fldl 184(%rax)\nfldl 176(%rax)\nfldl 168(%rax)\nfldl 160(%rax)\nfldl 152(%rax)\nfldl 144(%rax)\nfldl 136(%rax)\nfldl 128(%rax)\n"
    "ldmxcsr 112(%rax)\n"
    "cmpq $1, 16(%rsp)\njb 1f\nje 2f\n"
    LOAD16("vmovdqu64", "zmm") LOAD32("vmovdqu64", "zmm")
    K1("0") K1("1") K1("2") K1("3") K1("4") K1("5") K1("6") K1("7") "jmp 3f\n"
    "2:\n" LOAD16("vmovdqu", "ymm") "jmp 3f\n"
    "1:\n" LOAD16("movdqu", "xmm")
    "3:\n"
    "mov (%rax), %rbx\nmov 8(%rax), %rcx\nmov 16(%rax), %rdx\nmov 24(%rax), %rsi\nmov 32(%rax), %rdi\nmov 40(%rax), %r8\n"
    "mov 48(%rax), %r9\nmov 56(%rax), %r10\nmov 64(%rax), %r11\nmov 72(%rax), %r12\nmov 80(%rax), %r13\nmov 88(%rax), %r14\n"
    "mov 96(%rax), %r15\nmov 104(%rax), %rbp\n"
    "cmpq $0, 24(%rsp)\njne 6f\n"
    "bt $0, %rbx\n" /* carry: bit 0 of rbx, left alone by dec */
    "5: decq (%rsp)\njnz 5b\n"
    "mov 8(%rsp), %rax\n"
    "jmp 7f\n"
    "6: mov 24(%rsp), %rdi\nxor %esi, %esi\nmov $35, %eax\nsyscall\n" /* nanosleep */
    "mov %rax, %rcx\nmov 8(%rsp), %rax\nmov %rcx, 2312(%rax)\nbt $0, %rbx\n"
    "7: setc 2304(%rax)\n"
    "mov %rbx, (%rax)\nmov %rcx, 8(%rax)\nmov %rdx, 16(%rax)\nmov %rsi, 24(%rax)\nmov %rdi, 32(%rax)\nmov %r8, 40(%rax)\n"
    "mov %r9, 48(%rax)\nmov %r10, 56(%rax)\nmov %r11, 64(%rax)\nmov %r12, 72(%rax)\nmov %r13, 80(%rax)\nmov %r14, 88(%rax)\n"
    "mov %r15, 96(%rax)\nmov %rbp, 104(%rax)\n"
    "stmxcsr 112(%rax)\nfnstcw 120(%rax)\n"
    "fstpl 128(%rax)\nfstpl 136(%rax)\nfstpl 144(%rax)\nfstpl 152(%rax)\nfstpl 160(%rax)\nfstpl 168(%rax)\nfstpl 176(%rax)\nfstpl 184(%rax)\n"
    "cmpq $1, 16(%rsp)\njb 1f\nje 2f\n"
    STORE16("vmovdqu64", "zmm") STORE32("vmovdqu64", "zmm")
    KS1("0") KS1("1") KS1("2") KS1("3") KS1("4") KS1("5") KS1("6") KS1("7") "vzeroupper\njmp 3f\n"
    "2:\n" STORE16("vmovdqu", "ymm") "vzeroupper\njmp 3f\n"
    "1:\n" STORE16("movdqu", "xmm")
    "3:\n"
    "fninit\nldmxcsr 32(%rsp)\nfldcw 36(%rsp)\nadd $56, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n"
    ".size hold_registers, .-hold_registers\n");

static uint64_t vector_level(void)
{
	if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
		return 2;
	return __builtin_cpu_supports("avx2") ? 1 : 0;
}

static void make_pattern(struct regset *r, uint64_t seed, uint64_t level)
{
	memset(r, 0, sizeof(*r));
	for (size_t i = 0; i < 14; i++)
		r->gpr[i] = mix(seed * 1000 + i);
	r->mxcsr = 0x1f80 | (seed & 3) << 13 | (seed & 1) << 15 | (seed >> 2 & 1) << 6 | (seed & 0x3f);
	r->x87_cw = 0x37f | (seed & 3) << 10;
	for (size_t i = 0; i < 8; i++)
		r->st[i] = (double)(mix(seed + i) >> 12) / 3;
	for (size_t i = 0; i < 8 && level == 2; i++)
		r->k[i] = mix(seed * 77 + i);
	for (size_t i = 0; i < (level == 2 ? 32 : 16); i++) {
		for (size_t j = 0; j < (16u << level) / 8; j++) {
			uint64_t w = mix(seed * 10000 + i * 8 + j);

			memcpy(&r->zmm[i][j * 8], &w, 8);
		}
	}
}

static const char *const gpr_names[] = { "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rbp" };

static void compare(const struct regset *in, const struct regset *out, bool slept, unsigned long who)
{
	char what[64];

	for (size_t i = 0; i < 14; i++) {
		/* the call's own: rcx and r11 are changed by the instruction, rsi and rdi are arguments */
		if (slept && (i == 1 || i == 3 || i == 4 || i == 8))
			continue;
		snprintf(what, sizeof(what), "thread %lu: %s", who, gpr_names[i]);
		expect_u64(what, in->gpr[i], out->gpr[i]);
	}
	snprintf(what, sizeof(what), "thread %lu: mxcsr", who);
	expect_u64(what, in->mxcsr, out->mxcsr & 0xffffffff);
	snprintf(what, sizeof(what), "thread %lu: x87 control word", who);
	expect_u64(what, in->x87_cw & 0xffff, out->x87_cw & 0xffff);
	snprintf(what, sizeof(what), "thread %lu: carry", who);
	expect_u64(what, in->gpr[0] & 1, out->carry & 0xff);
	if (slept)
		expect_u64("nanosleep with registers held", 0, out->rax);
	for (size_t i = 0; i < 8; i++) {
		if (in->st[i] != out->st[i])
			fail("thread %lu: ST(%zu), expected %a, got %a", who, i, in->st[i], out->st[i]);
		snprintf(what, sizeof(what), "thread %lu: k%zu", who, i);
		expect_u64(what, in->k[i], out->k[i]);
	}
	for (size_t i = 0; i < 32; i++) {
		for (size_t j = 0; j < 8; j++) {
			uint64_t want, got;

			memcpy(&want, &in->zmm[i][j * 8], 8);
			memcpy(&got, &out->zmm[i][j * 8], 8);
			snprintf(what, sizeof(what), "thread %lu: word %zu of zmm%zu", who, j, i);
			expect_u64(what, want, got);
		}
	}
}

static bool regs_sleep;

static void *regs_thread(void *arg)
{
	static _Thread_local struct regset in, out;
	static _Thread_local uint64_t gs_word;
	struct timespec nap = { 0, 30000000 };
	unsigned long who = (unsigned long)arg;
	uint64_t level = who == 3 ? 0 : who == 5 ? (vector_level() ? 1 : 0) : vector_level(), gs;

	must(!syscall(SYS_arch_prctl, ARCH_SET_GS, &gs_word));
	gs_word = mix(who);
	for (uint64_t round = 0; !victim_stopping && !failed(); round++) {
		bool slept = regs_sleep && round % 2;

		make_pattern(&in, who * 131 + round, level);
		memset(&out, 0, sizeof(out));
		hold_registers(&in, &out, 300000, level, slept ? &nap : NULL);
		if (slept)
			in.gpr[0] = in.gpr[0];
		compare(&in, &out, slept, who);
		asm volatile("movq %%gs:0, %0" : "=r"(gs));
		expect_u64("word at gs:0", mix(who), gs);
	}
	return NULL;
}

static void regs_start(unsigned long n)
{
	for (unsigned long i = 1; i <= n; i++)
		spawn(regs_thread, (void *)i, NULL);
}

static void regs_1_setup(void)
{
	regs_start(1);
}

static void regs_8_setup(void)
{
	regs_start(8);
}

static void regs_64_setup(void)
{
	regs_sleep = true;
	regs_start(64);
}

VICTIM(regs_1, 0, regs_1_setup, NULL, join_all);
VICTIM(regs_8, 0, regs_8_setup, NULL, join_all);
VICTIM(regs_64, 0, regs_64_setup, NULL, join_all);

static void regs_sleep_setup(void)
{
	regs_sleep = true;
	regs_start(4);
}

VICTIM(regs_sleep, 0, regs_sleep_setup, NULL, join_all);

/* The main thread itself, no other thread. */
static void regs_main_work(void)
{
	static struct regset in, out;
	static uint64_t round;
	uint64_t level = vector_level();

	make_pattern(&in, ++round, level);
	hold_registers(&in, &out, 300000, level, NULL);
	compare(&in, &out, false, 0);
}

static void no_setup(void)
{
}

VICTIM(regs_main, 0, no_setup, regs_main_work, no_setup);

/* Protection keys: PKRU is part of the extended state. */
static void pkru_setup(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & 1u << 4))
		asm volatile("wrpkru" : : "a"(0x55555550u), "c"(0), "d"(0));
}

static void pkru_check(void)
{
	unsigned a, b, c, d;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(c & 1u << 4))
		return;
	asm volatile("rdpkru" : "=a"(a), "=d"(d) : "c"(0));
	expect_u64("PKRU", 0x55555550u, a);
}

VICTIM(regs_pkru, 0, pkru_setup, NULL, pkru_check);
