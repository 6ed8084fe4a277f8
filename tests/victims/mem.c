// SPDX-License-Identifier: GPL-2.0-or-later
/* mem.c - victims whose state is memory: contents, protection, flags, growth, files behind it */
#include <alloca.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

#define MIB (1024ul * 1024)
#define PAGE 4096ul

static char *area;
static size_t area_len;

/* One line for each mapping in [start, end), as /proc/self/maps has it, or with the flags of smaps. */
static void snapshot_maps(struct text *t, uintptr_t start, uintptr_t end)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[4096];

	must(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx", &a, &b) == 2 && a < end && b > start)
			text_add(t, "%s", line);
	}
	fclose(f);
}

/* ---- plain contents ---- */

static void anon_setup(void)
{
	area_len = (size_t)victim_arg(0, 32) * MIB;
	area = map_anon(area_len, PROT_READ | PROT_WRITE, 0);
	fill(area, area_len, 1);
}

static void anon_check(void)
{
	verify("anonymous memory", area, area_len, 1);
}

VICTIM(mem_anon, 0, anon_setup, NULL, anon_check);

static void big_setup(void)
{
	area_len = (size_t)victim_arg(0, 128) * MIB;
	area = map_anon(area_len, PROT_READ | PROT_WRITE, 0);
	fill(area, area_len, 1);
}

VICTIM(mem_big, 0, big_setup, NULL, anon_check);

#define SPARSE_LEN (256 * MIB)

static void sparse_setup(void)
{
	area = map_anon(SPARSE_LEN, PROT_READ | PROT_WRITE, MAP_NORESERVE);
	must(!madvise(area, SPARSE_LEN, MADV_NOHUGEPAGE));
	for (size_t off = 0; off < SPARSE_LEN; off += 64 * PAGE)
		fill(area + off, PAGE, off);
}

static long dirty_kib(const char *what, const void *at)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[4096];
	bool in = false;
	long kib = -1;

	must(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2 && strchr(line, '-') < line + 17)
			in = (uintptr_t)at >= a && (uintptr_t)at < b;
		else if (in && !strncmp(line, what, strlen(what)))
			kib = strtol(line + strlen(what) + 1, NULL, 10);
	}
	fclose(f);
	return kib;
}

static void sparse_check(void)
{
	long kib = dirty_kib("Private_Dirty", area);

	if (kib > (long)(SPARSE_LEN / 64 / 1024) + 64)
		fail("sparse memory: dirty KiB, expected %lu, got %ld", SPARSE_LEN / 64 / 1024, kib);
	for (size_t off = 0; off < SPARSE_LEN; off += 64 * PAGE) {
		verify("sparse memory: written page", area + off, PAGE, off);
		verify_zero("sparse memory: untouched page", area + off + PAGE, 63 * PAGE);
	}
}

VICTIM(mem_sparse, 0, sparse_setup, NULL, sparse_check);

static void zero_setup(void)
{
	area = map_anon(16 * MIB, PROT_READ | PROT_WRITE, 0);
	memset(area, 0, 16 * MIB);
	for (size_t off = 0; off < 16 * MIB; off += 7 * PAGE)
		*(uint64_t *)(area + off + 4088) = mix(off);
	for (size_t off = PAGE; off < 16 * MIB; off += 7 * PAGE) { /* was something, is zero again */
		memset(area + off, 0xff, PAGE);
		memset(area + off, 0, PAGE);
	}
}

static void zero_check(void)
{
	for (size_t off = 0; off < 16 * MIB; off += PAGE) {
		verify_zero("zero page", area + off, 4088);
		expect_u64("last word of a page", off % (7 * PAGE) ? 0 : mix(off), *(uint64_t *)(area + off + 4088));
	}
}

VICTIM(mem_zero, 0, zero_setup, NULL, zero_check);

/* ---- protection ---- */

static sigjmp_buf fault_jump;
static volatile int fault_code;
static void *volatile fault_addr;

static void on_fault(int sig, siginfo_t *info, void *ctx)
{
	fault_code = info->si_code;
	fault_addr = info->si_addr;
	siglongjmp(fault_jump, sig);
}

static void catch_faults(void)
{
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER };

	must(!sigaction(SIGSEGV, &sa, NULL));
	must(!sigaction(SIGBUS, &sa, NULL));
}

/* An access has to fault with this si_code at this address. */
static void expect_fault(const char *what, char *p, bool write, int code)
{
	fault_code = 0;
	if (!sigsetjmp(fault_jump, 1)) {
		if (write)
			*(volatile char *)p = 1;
		else
			(void)*(volatile char *)p;
		fail("%s: access at %p, expected SIGSEGV, got none", what, (void *)p);
		return;
	}
	expect_u64(what, (uint64_t)code, (uint64_t)fault_code);
	expect_u64("si_addr", (uintptr_t)p, (uintptr_t)fault_addr);
}

/* An area of its own: pages without access on both sides keep the kernel from merging it with a neighbour. */
static void fenced_area(void)
{
	char *p = map_anon(area_len + 2 * PAGE, PROT_NONE, MAP_NORESERVE);

	must(!mprotect(p + PAGE, area_len, PROT_READ | PROT_WRITE));
	area = p + PAGE;
}

static const int prots[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC, PROT_READ | PROT_WRITE | PROT_EXEC };
static struct text maps_before;

static void prot_setup(void)
{
	static const unsigned char code[] = { 0xb8, 0x2a, 0, 0, 0, 0xc3 }; /* mov $42, %eax; ret */

	area_len = 100 * 4 * PAGE;
	fenced_area();
	fill(area, area_len, 3);
	for (int i = 0; i < 100; i++) {
		if (prots[i % 5] & PROT_EXEC)
			memcpy(area + i * 4 * PAGE, code, sizeof(code));
		must(!mprotect(area + i * 4 * PAGE, 4 * PAGE, prots[i % 5]));
	}
	catch_faults();
	snapshot_maps(&maps_before, (uintptr_t)area, (uintptr_t)area + area_len);
}

static void prot_check(void)
{
	struct text after = { 0 };

	snapshot_maps(&after, (uintptr_t)area, (uintptr_t)area + area_len);
	expect_text("protections", maps_before.s, after.s);
	for (int i = 0; i < 100 && !failed(); i++) {
		char *p = area + i * 4 * PAGE;
		size_t skip = 0;

		if (!(prots[i % 5] & PROT_READ))
			expect_fault("read of a PROT_NONE page", p + 100, false, SEGV_ACCERR);
		if (!(prots[i % 5] & PROT_WRITE))
			expect_fault("write of a read-only page", p + PAGE + 7, true, SEGV_ACCERR);
		if (prots[i % 5] & PROT_EXEC) {
			expect_u64("result of code in an anonymous page", 42, (uint64_t)((int (*)(void))p)());
			skip = 8;
		}
		must(!mprotect(p, 4 * PAGE, PROT_READ));
		verify("page under mprotect", p + skip, 4 * PAGE - skip, 3 + (uint64_t)i * 4 * PAGE / 8 + skip / 8);
	}
}

VICTIM(mem_prot, 0, prot_setup, NULL, prot_check);

static void guard_setup(void)
{
	area_len = 65 * PAGE;
	area = map_anon(area_len, PROT_NONE, MAP_NORESERVE);
	for (int i = 1; i < 65; i += 2) {
		must(!mprotect(area + i * PAGE, PAGE, PROT_READ | PROT_WRITE));
		fill(area + i * PAGE, PAGE, (uint64_t)i);
	}
	catch_faults();
	must(!munmap(area + 32 * PAGE, PAGE)); /* a hole is a guard, too */
	snapshot_maps(&maps_before, (uintptr_t)area, (uintptr_t)area + area_len);
}

static void guard_check(void)
{
	struct text after = { 0 };

	snapshot_maps(&after, (uintptr_t)area, (uintptr_t)area + area_len);
	expect_text("guards", maps_before.s, after.s);
	for (int i = 1; i < 65; i += 2)
		verify("page between guards", area + i * PAGE, PAGE, (uint64_t)i);
	for (int i = 0; i < 65; i += 2)
		expect_fault("guard page", area + i * PAGE, i & 2, i == 32 ? SEGV_MAPERR : SEGV_ACCERR);
}

VICTIM(mem_guard, 0, guard_setup, NULL, guard_check);

/* Guards made with MADV_GUARD_INSTALL live in page tables, not in mappings. */
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

static void guard_pte_setup(void)
{
	area_len = 64 * PAGE;
	area = map_anon(area_len, PROT_READ | PROT_WRITE, 0);
	fill(area, area_len, 5);
	must(!madvise(area + 16 * PAGE, 4 * PAGE, MADV_GUARD_INSTALL));
	catch_faults();
}

static void guard_pte_check(void)
{
	verify("before the guard", area, 16 * PAGE, 5);
	verify("behind the guard", area + 20 * PAGE, 44 * PAGE, 5 + 20 * PAGE / 8);
	for (int i = 16; i < 20; i++)
		expect_fault("MADV_GUARD_INSTALL page", area + i * PAGE, false, SEGV_MAPERR);
}

VICTIM(mem_guard_pte, 0, guard_pte_setup, NULL, guard_pte_check);

/* ---- growth ---- */

static void brk_setup(void)
{
	area = sbrk(0);
	must(sbrk(8 * MIB) == area);
	fill(area, 8 * MIB, 7);
}

static void brk_check(void)
{
	char *top = sbrk(0);

	expect_u64("program break", (uintptr_t)area + 8 * MIB, (uintptr_t)top);
	verify("heap", area, 8 * MIB, 7);
	expect(sbrk(4 * MIB) == top);
	verify_zero("heap grown after the move", top, 4 * MIB);
	fill(top, 4 * MIB, 8);
	expect(brk(top + MIB) == 0);
	expect(brk(top + 2 * MIB) == 0);
	verify("heap kept", top, MIB, 8);
	verify_zero("heap shrunk and grown", top + MIB, MIB);
	verify("heap", area, 8 * MIB, 7);
}

VICTIM(mem_brk, 0, brk_setup, NULL, brk_check);

static void growsdown_setup(void)
{
	area = map_anon(16 * MIB, PROT_NONE, MAP_NORESERVE);
	must(!munmap(area, 16 * MIB));
	area = mmap(area + 12 * MIB, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN, -1, 0);
	must(area != MAP_FAILED);
	fill(area, 4 * PAGE, 9);
	for (int i = 1; i <= 16; i++)
		fill(area - i * PAGE, PAGE, (uint64_t)i * 1000);
}

static void growsdown_check(void)
{
	verify("mapping that grows down", area, 4 * PAGE, 9);
	for (int i = 1; i <= 16; i++)
		verify("grown before the move", area - i * PAGE, PAGE, (uint64_t)i * 1000);
	for (int i = 17; i <= 256; i++) {
		verify_zero("grown after the move", area - i * PAGE, PAGE);
		fill(area - i * PAGE, PAGE, (uint64_t)i * 1000);
	}
	for (int i = 1; i <= 256; i++)
		verify("grown down", area - i * PAGE, PAGE, (uint64_t)i * 1000);
}

VICTIM(mem_growsdown, 0, growsdown_setup, NULL, growsdown_check);

static uint64_t __attribute__((noinline)) descend(int depth, uint64_t x)
{
	volatile uint64_t frame[512];

	for (int i = 0; i < 512; i++)
		frame[i] = mix(x + (uint64_t)i);
	x = depth ? descend(depth - 1, mix(x)) : x;
	for (int i = 0; i < 512; i++)
		x ^= frame[i];
	return x;
}

static uint64_t shallow, deep;

static void stack_setup(void)
{
	shallow = descend(16, 1);
	deep = descend(1600, 2); /* computed once, then the stack is given back in effect by madvise */
	must(!madvise((char *)((uintptr_t)__builtin_frame_address(0) & ~(PAGE - 1)) - 6 * MIB, 5 * MIB, MADV_DONTNEED) || errno == ENOMEM);
}

static void stack_check(void)
{
	expect_u64("shallow recursion", shallow, descend(16, 1));
	expect_u64("deep recursion", deep, descend(1600, 2));
}

VICTIM(mem_stack, 0, stack_setup, NULL, stack_check);

static void stack_grow_setup(void)
{
	shallow = descend(16, 1);
}

static void stack_grow_check(void)
{
	uint64_t first = descend(1600, 2);

	expect_u64("shallow recursion", shallow, descend(16, 1));
	expect_u64("recursion below the stack that was moved", first, descend(1600, 2));
}

VICTIM(mem_stack_grow, 0, stack_grow_setup, NULL, stack_grow_check);

/* ---- files behind memory ---- */

static char file_path[8192];

static int data_file(size_t len_bytes, uint64_t seed)
{
	char *buf = malloc(len_bytes);
	int fd;

	must(buf);
	snprintf(file_path, sizeof(file_path), "%s", beside("data"));
	fd = open(file_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0);
	fill(buf, len_bytes, seed);
	must(write(fd, buf, len_bytes) == (ssize_t)len_bytes);
	free(buf);
	return fd;
}

#define FILE_LEN (4 * MIB)

static void private_file_setup(void)
{
	int fd = data_file(FILE_LEN, 11);

	area = mmap(NULL, FILE_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	must(area != MAP_FAILED);
	close(fd);
	for (size_t off = PAGE; off < FILE_LEN; off += 2 * PAGE)
		fill(area + off, PAGE, 5000 + off);
	for (size_t off = 0; off < FILE_LEN; off += 16 * PAGE) /* touched, unchanged */
		(void)*(volatile char *)(area + off);
	must(!mprotect(area + FILE_LEN / 2, FILE_LEN / 2, PROT_READ)); /* like RELRO: modified, then made read-only */
}

static void private_file_check(void)
{
	char page[PAGE];
	int fd = open(file_path, O_RDONLY | O_CLOEXEC);

	expect(fd >= 0);
	for (size_t off = 0; off < FILE_LEN && !failed(); off += PAGE) {
		if (off / PAGE % 2)
			verify("modified page of a private file mapping", area + off, PAGE, 5000 + off);
		else
			verify("unmodified page of a private file mapping", area + off, PAGE, 11 + off / 8);
		expect(pread(fd, page, PAGE, (off_t)off) == (ssize_t)PAGE);
		verify("the file itself", page, PAGE, 11 + off / 8);
	}
	close(fd);
	unlink(file_path);
}

VICTIM(mem_private_file, 0, private_file_setup, NULL, private_file_check);

static void shared_file_setup(void)
{
	int fd = data_file(FILE_LEN, 13);

	area = mmap(NULL, FILE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(area != MAP_FAILED);
	close(fd);
	for (size_t off = 0; off < FILE_LEN; off += 4 * PAGE)
		fill(area + off, PAGE, 6000 + off);
}

static void shared_file_check(void)
{
	int fd = open(file_path, O_RDONLY | O_CLOEXEC);
	char page[PAGE];

	expect(fd >= 0);
	for (size_t off = 2 * PAGE; off < FILE_LEN; off += 4 * PAGE)
		fill(area + off, PAGE, 7000 + off);
	expect(!msync(area, FILE_LEN, MS_SYNC));
	for (size_t off = 0; off < FILE_LEN && !failed(); off += PAGE) {
		uint64_t seed = off / PAGE % 4 == 0 ? 6000 + off : off / PAGE % 4 == 2 ? 7000 + off : 13 + off / 8;

		verify("shared file mapping", area + off, PAGE, seed);
		expect(pread(fd, page, PAGE, (off_t)off) == (ssize_t)PAGE);
		verify("the file behind a shared mapping", page, PAGE, seed);
	}
	close(fd);
	unlink(file_path);
}

VICTIM(mem_shared_file, 0, shared_file_setup, NULL, shared_file_check);

static char *alias;

static void shared_anon_setup(void)
{
	area_len = 8 * MIB;
	area = mmap(NULL, area_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(area != MAP_FAILED);
	fill(area, area_len, 15);
}

static void shared_anon_check(void)
{
	pid_t child;
	int status;

	verify("shared anonymous memory", area, area_len, 15);
	child = fork();
	if (!child) {
		fill(area, area_len, 16);
		_exit(0);
	}
	waitpid(child, &status, 0);
	verify("what a child wrote into shared memory", area, area_len, 16);
}

VICTIM(mem_shared_anon, 0, shared_anon_setup, NULL, shared_anon_check);

static void shared_alias_setup(void)
{
	shared_anon_setup();
	alias = mremap(area, 0, area_len, MREMAP_MAYMOVE); /* a second mapping of the same memory */
	must(alias != MAP_FAILED);
}

static void shared_alias_check(void)
{
	verify("shared memory", area, area_len, 15);
	verify("its second mapping", alias, area_len, 15);
	fill(area, area_len, 17);
	verify("the second mapping follows the first", alias, area_len, 17);
}

VICTIM(mem_shared_alias, 0, shared_alias_setup, NULL, shared_alias_check);

static int memfd = -1;

static void memfd_setup(void)
{
	memfd = memfd_create("victim", MFD_CLOEXEC);
	must(memfd >= 0 && !ftruncate(memfd, 4 * MIB));
	area = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	must(area != MAP_FAILED);
	fill(area, 4 * MIB, 19);
}

static void memfd_check(void)
{
	uint64_t page[512];

	verify("memfd", area, 4 * MIB, 19);
	fill(area, PAGE, 20);
	expect(pread(memfd, page, PAGE, 0) == (ssize_t)PAGE);
	verify("memfd read through its descriptor", page, PAGE, 20);
}

VICTIM(mem_memfd, 0, memfd_setup, NULL, memfd_check);

/* ---- flags ---- */

static const int advices[] = { MADV_SEQUENTIAL, MADV_RANDOM, MADV_DONTFORK, MADV_DONTDUMP, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_WIPEONFORK,
			       MADV_MERGEABLE };
#define N_ADVICES ((int)(sizeof(advices) / sizeof(*advices)))
static char *flagged[N_ADVICES + 3];

/* The flags of one mapping without those that tracking or accounting set. */
static void snapshot_flags(struct text *t)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[4096];
	int which = -1;

	must(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2 && strchr(line, '-') < line + 17) {
			which = -1;
			for (int i = 0; i < N_ADVICES + 3; i++) {
				if (flagged[i] && (uintptr_t)flagged[i] == a)
					which = i;
			}
		} else if (which >= 0 && !strncmp(line, "VmFlags:", 8)) {
			text_add(t, "mapping %d:", which);
			for (char *w = strtok(line + 8, " \n"); w; w = strtok(NULL, " \n")) {
				if (!strstr("um uw ui sd ac nr", w))
					text_add(t, " %s", w);
			}
			text_add(t, "\n");
		}
	}
	fclose(f);
}

static struct text flags_before;

static void vmflags_setup(void)
{
	for (int i = 0; i < N_ADVICES + 3; i++) {
		char *p = map_anon(5 * PAGE, PROT_NONE, 0); /* guards on both sides: no merging */

		must(!mprotect(p + PAGE, 3 * PAGE, PROT_READ | PROT_WRITE));
		flagged[i] = p + PAGE;
		if (i < N_ADVICES)
			(void)madvise(p + PAGE, 3 * PAGE, advices[i]);
		fill(p + PAGE, 3 * PAGE, (uint64_t)i);
	}
	must(!mlock(flagged[N_ADVICES], 3 * PAGE));
	must(!mlock2(flagged[N_ADVICES + 1], 3 * PAGE, MLOCK_ONFAULT));
	must(!madvise(flagged[N_ADVICES + 2], 3 * PAGE, MADV_DONTFORK) && !mlock(flagged[N_ADVICES + 2], 3 * PAGE));
	snapshot_flags(&flags_before);
}

static void vmflags_check(void)
{
	struct text after = { 0 };

	snapshot_flags(&after);
	expect_text("VmFlags", flags_before.s, after.s);
	for (int i = 0; i < N_ADVICES + 3; i++)
		verify("memory with flags", flagged[i], 3 * PAGE, (uint64_t)i);
}

VICTIM(mem_vmflags, 0, vmflags_setup, NULL, vmflags_check);

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static void named_setup(void)
{
	area_len = 16 * PAGE;
	fenced_area();
	fill(area, area_len, 23);
	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, area, area_len, "a name") && errno != EINVAL)
		must(false);
	snapshot_maps(&maps_before, (uintptr_t)area, (uintptr_t)area + area_len);
}

static void named_check(void)
{
	struct text after = { 0 };

	snapshot_maps(&after, (uintptr_t)area, (uintptr_t)area + area_len);
	expect_text("named mapping", maps_before.s, after.s);
	verify("named mapping", area, area_len, 23);
}

VICTIM(mem_named, 0, named_setup, NULL, named_check);

static void mlockall_setup(void)
{
	anon_setup();
	must(!mlockall(MCL_CURRENT | MCL_FUTURE));
}

static long locked_kib(void)
{
	struct text t = { 0 };
	const char *want[] = { "VmLck:", NULL };

	text_file(&t, "/proc/self/status", want);
	return strtol(t.s + 6, NULL, 10);
}

static void mlockall_check(void)
{
	long before = locked_kib();
	char *p = map_anon(MIB, PROT_READ | PROT_WRITE, 0);

	anon_check();
	expect(before >= (long)area_len / 1024);
	if (locked_kib() < before + 1024)
		fail("MCL_FUTURE: VmLck after another mapping, expected %ld, got %ld", before + 1024, locked_kib());
	expect(p != NULL);
}

VICTIM(mem_mlockall, 0, mlockall_setup, NULL, mlockall_check);

static void thp_setup(void)
{
	char *p = map_anon(34 * MIB, PROT_READ | PROT_WRITE, 0);

	area = (char *)(((uintptr_t)p + 2 * MIB - 1) & ~(2 * MIB - 1));
	must(!madvise(area, 32 * MIB, MADV_HUGEPAGE));
	fill(area, 32 * MIB, 21);
	report("info huge_kib=%ld", dirty_kib("AnonHugePages", area));
}

static void thp_check(void)
{
	verify("huge pages", area, 32 * MIB, 21);
	report("info huge_kib=%ld", dirty_kib("AnonHugePages", area));
}

VICTIM(mem_thp, 0, thp_setup, NULL, thp_check);

static void many_setup(void)
{
	area_len = 1000 * 4 * PAGE;
	fenced_area();
	for (size_t i = 0; i < 1000; i++) {
		fill(area + i * 4 * PAGE, PAGE, i);
		if (i % 2)
			must(!mprotect(area + i * 4 * PAGE, 2 * PAGE, PROT_READ));
		must(!munmap(area + i * 4 * PAGE + 3 * PAGE, PAGE));
	}
	snapshot_maps(&maps_before, (uintptr_t)area, (uintptr_t)area + area_len);
}

static void many_check(void)
{
	struct text after = { 0 };

	snapshot_maps(&after, (uintptr_t)area, (uintptr_t)area + area_len);
	expect_text("1,000 mappings", maps_before.s, after.s);
	for (size_t i = 0; i < 1000; i++) {
		verify("one of 1,000 mappings", area + i * 4 * PAGE, PAGE, i);
		verify_zero("untouched part of one of 1,000 mappings", area + i * 4 * PAGE + PAGE, 2 * PAGE);
	}
}

VICTIM(mem_many, 0, many_setup, NULL, many_check);
