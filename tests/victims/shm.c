// SPDX-License-Identifier: GPL-2.0-or-later
/* shm.c - victims whose state is memory that is an object of its own: System V segments, memfds and their seals, POSIX shared memory, unlinked files, huge pages */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

#define PAGE 4096ul
#define MIB (1024ul * 1024)
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

/* ---- System V ---- */

#define SEGMENT_LEN (300 * PAGE)

static int segment;
static char *attached, *read_only, *parts;
static struct shmid_ds segment_before;

/* What the kernel lets a program set. The times of attaching and the processes' numbers are not among them. */
static void compare_segment(void)
{
	struct shmid_ds now;

	if (shmctl(segment, IPC_STAT, &now)) {
		fail("segment %d: %s", segment, strerror(errno));
		return;
	}
	expect_u64("key", (uint64_t)segment_before.shm_perm.__key, (uint64_t)now.shm_perm.__key);
	expect_u64("mode", segment_before.shm_perm.mode, now.shm_perm.mode);
	expect_u64("uid", segment_before.shm_perm.uid, now.shm_perm.uid);
	expect_u64("gid", segment_before.shm_perm.gid, now.shm_perm.gid);
	expect_u64("cuid", segment_before.shm_perm.cuid, now.shm_perm.cuid);
	expect_u64("size", segment_before.shm_segsz, now.shm_segsz);
	expect_u64("attachments", segment_before.shm_nattch, now.shm_nattch);
}

static void sysv_setup(void)
{
	segment = shmget(0x60d00000 + getpid(), SEGMENT_LEN, IPC_CREAT | IPC_EXCL | 0640);
	must(segment >= 0);
	must(!shmctl(segment, IPC_STAT, &segment_before));
	segment_before.shm_perm.uid = 12345;
	segment_before.shm_perm.gid = 54321;
	must(!shmctl(segment, IPC_SET, &segment_before));
	attached = shmat(segment, NULL, 0);
	read_only = shmat(segment, NULL, SHM_RDONLY);
	must(attached != (void *)-1 && read_only != (void *)-1);
	fill(attached, SEGMENT_LEN, 1);
	must(!shmctl(segment, IPC_STAT, &segment_before));
}

static uint64_t sysv_steps;

static void sysv_work(void)
{
	uint64_t n = sysv_steps++, *word = (uint64_t *)(attached + mix(n) % SEGMENT_LEN / 8 * 8);
	uint64_t before = *word;

	*word = before ^ mix(n);
	expect_u64("what the other attachment shows", before ^ mix(n), *(uint64_t *)(read_only + ((char *)word - attached)));
	if (n % 64 == 0)
		usleep(500);
}

/* Undoes all the work, in reverse, so that the first contents must come out again. */
static void sysv_check(void)
{
	compare_segment();
	while (sysv_steps--)
		*(uint64_t *)(attached + mix(sysv_steps) % SEGMENT_LEN / 8 * 8) ^= mix(sysv_steps);
	verify("segment", attached, SEGMENT_LEN, 1);
	verify("its second attachment", read_only, SEGMENT_LEN, 1);
	expect_u64("the segment of that key", (uint64_t)segment, (uint64_t)shmget(segment_before.shm_perm.__key, 0, 0));
	expect(!shmdt(read_only));
	segment_before.shm_nattch--;
	compare_segment();
	expect(!shmctl(segment, IPC_RMID, NULL));
}

VICTIM(shm_sysv, 0, sysv_setup, sysv_work, sysv_check);

/* A segment that goes with its last attachment, and of which only parts are mapped, one of them elsewhere. */
static void sysv_parts_setup(void)
{
	segment = shmget(IPC_PRIVATE, SEGMENT_LEN, 0600);
	attached = shmat(segment, NULL, 0);
	must(attached != (void *)-1);
	fill(attached, SEGMENT_LEN, 2);
	must(!munmap(attached + 100 * PAGE, 50 * PAGE));
	must(mmap(attached + 120 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED);
	fill(attached + 120 * PAGE, PAGE, 3);
	parts = mremap(attached + 200 * PAGE, 20 * PAGE, 20 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map_anon(20 * PAGE, PROT_NONE, 0));
	must(parts != MAP_FAILED);
	must(!mprotect(attached + 10 * PAGE, 5 * PAGE, PROT_READ) && !mprotect(attached + 20 * PAGE, 5 * PAGE, PROT_NONE));
	must(!shmctl(segment, IPC_RMID, NULL) && !shmctl(segment, IPC_STAT, &segment_before));
}

static void sysv_parts_check(void)
{
	compare_segment();
	expect(!mprotect(attached + 20 * PAGE, 5 * PAGE, PROT_READ));
	verify("segment", attached, 100 * PAGE, 2);
	verify("memory in its gap", attached + 120 * PAGE, PAGE, 3);
	verify("segment behind the gap", attached + 150 * PAGE, 50 * PAGE, 2 + 150 * PAGE / 8);
	verify("part that was moved", parts, 20 * PAGE, 2 + 200 * PAGE / 8);
	verify("end of the segment", attached + 220 * PAGE, 80 * PAGE, 2 + 220 * PAGE / 8);
	expect(!munmap(attached, SEGMENT_LEN) && !munmap(parts, 20 * PAGE));
	if (shmctl(segment, IPC_STAT, &segment_before) == 0)
		fail("segment %d is there after its last attachment has gone", segment);
}

VICTIM(shm_sysv_parts, 0, sysv_parts_setup, NULL, sysv_parts_check);

/* ---- memfds and their seals ---- */

static int sealed, future, program;
static char *sealed_at, *future_at;

static void sealed_setup(void)
{
	char *p;

	sealed = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(sealed >= 0 && !ftruncate(sealed, MIB));
	p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, sealed, 0);
	must(p != MAP_FAILED);
	fill(p, MIB, 4);
	must(!munmap(p, MIB) && !fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
	sealed_at = mmap(NULL, MIB, PROT_READ, MAP_SHARED, sealed, 0);
	must(sealed_at != MAP_FAILED);
	future = memfd_create("future", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	must(future >= 0 && !ftruncate(future, MIB));
	future_at = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, future, 0);
	must(future_at != MAP_FAILED && !fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	fill(future_at, MIB, 5);
	program = memfd_create("program", 0);
	must(program >= 0 && write(program, "#!/bin/true\n", 12) == 12);
}

/* Its descriptor, though it may write, does not keep it from being executed: memfd_create did not open it. */
static void expect_executable(void)
{
	static char *const argv[] = { "program", NULL };
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		fexecve(program, argv, argv + 1);
		_exit(errno);
	}
	expect(waitpid(pid, &status, 0) == pid);
	expect_u64("status of a memfd that was executed", 0, (uint64_t)status);
}

static uint64_t future_steps;

static void sealed_work(void)
{
	future_steps++;
	fill(future_at + future_steps % 256 * PAGE, PAGE, 6 + future_steps);
	usleep(200);
}

static void sealed_check(void)
{
	char c = 1;

	expect_u64("seals", F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, (uint64_t)fcntl(sealed, F_GET_SEALS));
	expect_u64("seals against future writes", F_SEAL_FUTURE_WRITE, (uint64_t)fcntl(future, F_GET_SEALS));
	verify("sealed memfd", sealed_at, MIB, 4);
	expect(pwrite(sealed, &c, 1, 0) == -1 && errno == EPERM);
	expect(mprotect(sealed_at, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
	expect(pwrite(future, &c, 1, 0) == -1 && errno == EPERM);
	for (uint64_t i = future_steps > 255 ? future_steps - 255 : 1; i <= future_steps; i++)
		verify("page written through the old mapping", future_at + i % 256 * PAGE, PAGE, 6 + i);
	fill(future_at, PAGE, 7);
	verify("page written after the move", future_at, PAGE, 7);
	expect(!fcntl(future, F_ADD_SEALS, F_SEAL_SHRINK));
	expect_executable();
}

VICTIM(shm_sealed, 0, sealed_setup, sealed_work, sealed_check);

/* ---- every way to write to shared memory, again and again ---- */

#define WAYS_PAGES 512ul
static char *way_a, *way_b;
static int way_fd, way_anonymous;
static uint64_t model[WAYS_PAGES], way_steps;

/* Two mappings, a descriptor, and mappings that come and go. */
static void ways_start(void)
{
	way_a = mmap(NULL, WAYS_PAGES * PAGE, PROT_READ | PROT_WRITE, way_anonymous ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED, way_fd, 0);
	must(way_a != MAP_FAILED);
	way_b = mremap(way_a, 0, WAYS_PAGES * PAGE, MREMAP_MAYMOVE);
	must(way_b != MAP_FAILED);
	for (uint64_t i = 0; i < WAYS_PAGES; i++)
		fill(way_a + i * PAGE, PAGE, model[i] = mix(i));
}

static void ways_memfd_setup(void)
{
	way_fd = memfd_create("ways", MFD_CLOEXEC);
	must(way_fd >= 0 && !ftruncate(way_fd, (long)(WAYS_PAGES * PAGE)));
	ways_start();
}

static void ways_anon_setup(void)
{
	way_anonymous = 1;
	way_fd = -1;
	ways_start();
}

static void ways_posix_setup(void)
{
	char name[64];

	snprintf(name, sizeof(name), "/victim-ways-%d", getpid());
	way_fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	must(way_fd >= 0 && !ftruncate(way_fd, (long)(WAYS_PAGES * PAGE)));
	ways_start();
}

static void ways_unlinked_setup(void)
{
	char name[64];

	ways_posix_setup();
	snprintf(name, sizeof(name), "/victim-ways-%d", getpid());
	must(!shm_unlink(name));
}

static void ways_work(void)
{
	uint64_t n = way_steps++, i = mix(n) % WAYS_PAGES, buf[512];
	char *p;

	verify("page of shared memory", (n % 2 ? way_a : way_b) + i * PAGE, PAGE, model[i]);
	model[i] = mix(n + 7777);
	switch (n % 5) {
	case 0:
		fill(way_a + i * PAGE, PAGE, model[i]);
		break;
	case 1:
		fill(way_b + i * PAGE, PAGE, model[i]);
		break;
	case 2: /* written, and the entry in the page table dropped */
		fill(way_a + i * PAGE, PAGE, model[i]);
		must(!madvise(way_a + i * PAGE, PAGE, MADV_DONTNEED));
		break;
	case 3: /* the second mapping is made anew, usually at the same place */
		fill(way_b + i * PAGE, PAGE, model[i]);
		must(!munmap(way_b, WAYS_PAGES * PAGE));
		way_b = mremap(way_a, 0, WAYS_PAGES * PAGE, MREMAP_MAYMOVE);
		must(way_b != MAP_FAILED);
		break;
	case 4:
		fill(buf, PAGE, model[i]);
		if (way_fd >= 0) {
			must(pwrite(way_fd, buf, PAGE, (long)(i * PAGE)) == (long)PAGE);
			break;
		}
		p = way_a + i * PAGE;
		must(!madvise(p, PAGE, MADV_REMOVE)); /* a hole, then the new contents */
		fill(p, PAGE, model[i]);
		break;
	}
	if (n % 16 == 0)
		usleep(300);
}

static void ways_check(void)
{
	char name[64];

	for (uint64_t i = 0; i < WAYS_PAGES && !failed(); i++) {
		verify("first mapping", way_a + i * PAGE, PAGE, model[i]);
		verify("second mapping", way_b + i * PAGE, PAGE, model[i]);
	}
	fill(way_a, PAGE, 1);
	verify("the second mapping follows the first", way_b, PAGE, 1);
	for (int i = 0; i < 1000 && !failed(); i++) {
		if (i == 0)
			model[0] = 1;
		ways_work();
	}
	snprintf(name, sizeof(name), "/victim-ways-%d", getpid());
	shm_unlink(name);
}

VICTIM(shm_ways_memfd, 0, ways_memfd_setup, ways_work, ways_check);
VICTIM(shm_ways_anon, 0, ways_anon_setup, ways_work, ways_check);
VICTIM(shm_ways_posix, 0, ways_posix_setup, ways_work, ways_check);
VICTIM(shm_ways_unlinked, 0, ways_unlinked_setup, ways_work, ways_check);

/* Memory that is mapped for each write only, and seen through a descriptor or a read-only attachment. */
static void transient_setup(void)
{
	way_fd = memfd_create("transient", MFD_CLOEXEC);
	must(way_fd >= 0 && !ftruncate(way_fd, (long)(WAYS_PAGES * PAGE)));
	segment = shmget(IPC_PRIVATE, WAYS_PAGES * PAGE, 0600);
	read_only = shmat(segment, NULL, SHM_RDONLY);
	must(read_only != (void *)-1);
}

static void transient_work(void)
{
	uint64_t n = way_steps++, i = mix(n) % WAYS_PAGES;
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, way_fd, (long)(i * PAGE)), *q = shmat(segment, NULL, 0);

	must(p != MAP_FAILED && q != (void *)-1);
	model[i] = mix(n + 99);
	fill(p, PAGE, model[i]);
	fill(q + i * PAGE, PAGE, model[i]);
	must(!munmap(p, PAGE) && !shmdt(q));
	if (n % 4 == 0)
		usleep(300);
}

static void transient_check(void)
{
	char page[PAGE];

	for (uint64_t i = 0; i < WAYS_PAGES && !failed(); i++) {
		must(pread(way_fd, page, PAGE, (long)(i * PAGE)) == (long)PAGE);
		if (!model[i]) {
			verify_zero("memfd page that was not written", page, PAGE);
			verify_zero("page of the segment that was not written", read_only + i * PAGE, PAGE);
			continue;
		}
		verify("memfd page that was mapped for a moment", page, PAGE, model[i]);
		verify("page of a segment that was attached for a moment", read_only + i * PAGE, PAGE, model[i]);
	}
	expect(!shmctl(segment, IPC_RMID, NULL));
}

VICTIM(shm_transient, 0, transient_setup, transient_work, transient_check);

/* Shared anonymous memory of which only parts are mapped, read-only or not at all accessible, and what has been taken out of it. */
static char *holes;

static void holes_setup(void)
{
	holes = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(holes != MAP_FAILED);
	fill(holes, 64 * PAGE, 8);
	must(!madvise(holes + 4 * PAGE, 4 * PAGE, MADV_REMOVE));
	must(!madvise(holes, 64 * PAGE, MADV_DONTNEED)); /* in the object, in no page table */
	must(!munmap(holes + 30 * PAGE, 4 * PAGE));
	must(!mprotect(holes + 10 * PAGE, 10 * PAGE, PROT_READ) && !mprotect(holes + 20 * PAGE, 10 * PAGE, PROT_NONE));
}

static void holes_check(void)
{
	char *again = mremap(holes + 34 * PAGE, 0, 30 * PAGE, MREMAP_MAYMOVE);

	verify("shared memory", holes, 4 * PAGE, 8);
	verify_zero("what was taken out", holes + 4 * PAGE, 4 * PAGE);
	expect(!mprotect(holes + 20 * PAGE, 10 * PAGE, PROT_READ));
	verify("its read-only and inaccessible parts", holes + 8 * PAGE, 22 * PAGE, 8 + 8 * PAGE / 8);
	verify("behind the hole", holes + 34 * PAGE, 30 * PAGE, 8 + 34 * PAGE / 8);
	expect(again != MAP_FAILED);
	fill(again, PAGE, 9);
	verify("another mapping of it", holes + 34 * PAGE, PAGE, 9);
}

VICTIM(shm_holes, 0, holes_setup, NULL, holes_check);

/* ---- files that have ended ---- */

static sigjmp_buf fault_jump;
static char *beyond, *unlinked;
static int beyond_fd;

static void on_bus(int sig)
{
	siglongjmp(fault_jump, sig);
}

static void beyond_setup(void)
{
	char page[3 * PAGE];

	fill(page, sizeof(page), 10);
	beyond_fd = open(beside("beyond"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(beyond_fd >= 0 && write(beyond_fd, page, 2 * PAGE + 1000) == 2 * PAGE + 1000);
	beyond = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, beyond_fd, 0);
	must(beyond != MAP_FAILED);
	fill(beyond + PAGE, 1000, 11);
	signal(SIGBUS, on_bus);
}

static void expect_bus(char *p)
{
	if (!sigsetjmp(fault_jump, 1)) {
		(void)*(volatile char *)p;
		fail("access behind the end of the file at %p, expected SIGBUS, got none", (void *)p);
	}
}

static void beyond_check(void)
{
	char page[PAGE];

	verify("mapping of the file", beyond, PAGE, 10);
	verify("its modified page", beyond + PAGE, 1000, 11);
	verify("the file's last bytes", beyond + 2 * PAGE, 1000, 10 + 2 * PAGE / 8);
	verify_zero("behind the file's end in its last page", beyond + 2 * PAGE + 1000, PAGE - 1000);
	for (int i = 3; i < 8; i++)
		expect_bus(beyond + i * PAGE);
	fill(page, PAGE, 12);
	expect(pwrite(beyond_fd, page, PAGE, 3 * PAGE) == (long)PAGE);
	verify("mapping of what the file has got since", beyond + 3 * PAGE, PAGE, 12);
	expect_bus(beyond + 4 * PAGE);
	unlink(beside("beyond"));
}

VICTIM(shm_beyond_end, 0, beyond_setup, NULL, beyond_check);

static void unlinked_setup(void)
{
	const char *name = beside("unlinked");
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char *p;

	must(fd >= 0 && !ftruncate(fd, (long)MIB));
	p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(p != MAP_FAILED);
	fill(p, MIB, 13);
	must(!munmap(p, MIB));
	unlinked = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	must(unlinked != MAP_FAILED && !close(fd) && !unlink(name));
	for (size_t i = 0; i < MIB; i += 8 * PAGE)
		fill(unlinked + i, PAGE, 14 + i);
	must(!mprotect(unlinked + MIB / 2, MIB / 2, PROT_READ));
}

static void unlinked_check(void)
{
	for (size_t i = 0; i < MIB && !failed(); i += PAGE)
		verify("private mapping of an unlinked file", unlinked + i, PAGE, i % (8 * PAGE) ? 13 + i / 8 : 14 + i);
}

VICTIM(shm_unlinked_private, 0, unlinked_setup, NULL, unlinked_check);

/* ---- explicit huge pages ---- */

#define HUGE (2 * MIB)
static char *huge_private, *huge_shared, *huge_memfd, *huge_low;
static long huge_added;

/* The hosts of a test share one kernel: there must be pages for the source and for the destination. */
static long set_huge_pages(long more)
{
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", "r+e");
	long was = 0, now = 0;

	if (!f || fscanf(f, "%ld", &was) != 1)
		return 0;
	rewind(f);
	fprintf(f, "%ld", was + more);
	fflush(f);
	rewind(f);
	if (fscanf(f, "%ld", &now) != 1)
		now = was;
	fclose(f);
	return now - was;
}

static void huge_setup(void)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);

	huge_added = set_huge_pages(16);
	huge_private = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	huge_shared = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	must(fd >= 0 && !ftruncate(fd, (long)HUGE));
	huge_memfd = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(huge_private != MAP_FAILED && huge_shared != MAP_FAILED && huge_memfd != MAP_FAILED);
	/* The lowest of them is a private one, above what is no huge page. */
	huge_low = mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	must(huge_low != MAP_FAILED);
	fill(huge_private, HUGE, 15);
	fill(huge_shared, HUGE, 16);
	fill(huge_memfd, HUGE, 17);
	fill(huge_low, HUGE, 19);
}

static long huge_kib(const void *at)
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
		else if (in && !strncmp(line, "KernelPageSize:", 15))
			kib = strtol(line + 15, NULL, 10);
	}
	fclose(f);
	return kib;
}

static void huge_check(void)
{
	verify("private huge page", huge_private, HUGE, 15);
	verify_zero("huge page that was never touched", huge_private + HUGE, HUGE);
	verify("shared huge page", huge_shared, HUGE, 16);
	verify("memfd in huge pages", huge_memfd, HUGE, 17);
	verify("private huge page below the others", huge_low, HUGE, 19);
	expect_u64("page size in KiB", 2048, (uint64_t)huge_kib(huge_private));
	expect_u64("page size in KiB", 2048, (uint64_t)huge_kib(huge_shared));
	expect_u64("page size in KiB", 2048, (uint64_t)huge_kib(huge_memfd));
	munmap(huge_private, 2 * HUGE);
	munmap(huge_shared, HUGE);
	munmap(huge_memfd, HUGE);
	munmap(huge_low, HUGE);
	set_huge_pages(-huge_added);
}

VICTIM(shm_huge, 0, huge_setup, NULL, huge_check);

/* ---- memory that may be dropped ---- */

static char *droppable;

static void droppable_setup(void)
{
	droppable = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	if (droppable == MAP_FAILED) {
		report("info droppable=0");
		return;
	}
	fill(droppable, 16 * PAGE, 18);
}

static bool has_flag(const void *at, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	bool in = false, has = false;
	char line[4096];

	must(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long a, b;

		if (sscanf(line, "%lx-%lx ", &a, &b) == 2 && strchr(line, '-') < line + 17)
			in = (uintptr_t)at >= a && (uintptr_t)at < b;
		else if (in && !strncmp(line, "VmFlags:", 8))
			has = strstr(line, flag) != NULL;
	}
	fclose(f);
	return has;
}

static void droppable_check(void)
{
	if (droppable == MAP_FAILED)
		return;
	expect(has_flag(droppable, " dp "));
	for (int i = 0; i < 16 && !failed(); i++) {
		if (*(uint64_t *)(droppable + i * PAGE)) /* dropped means zeros */
			verify("droppable memory", droppable + i * PAGE, PAGE, 18 + (uint64_t)i * PAGE / 8);
	}
}

VICTIM(shm_droppable, 0, droppable_setup, NULL, droppable_check);

/* ---- sealed mappings (mseal) ---- */

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

enum { SEAL_READ, SEAL_WRITE, SEAL_NONE, SEAL_LATE, SEALS };

static char *seals[SEALS];
static bool late_seal, can_seal;
static uint64_t seal_at;

static int seal(char *at)
{
	return (int)syscall(SYS_mseal, at, 4 * PAGE, 0);
}

static void seal_setup(void)
{
	for (int i = 0; i < SEALS; i++) {
		seals[i] = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		must(seals[i] != MAP_FAILED);
		fill(seals[i], 8 * PAGE, 30 + i);
	}
	must(!mprotect(seals[SEAL_READ], 8 * PAGE, PROT_READ));
	must(!madvise(seals[SEAL_NONE], 4 * PAGE, MADV_DONTNEED) && !mprotect(seals[SEAL_NONE], 8 * PAGE, PROT_NONE)); /* what is sealed of it is empty */
	seal_at = now_ns(CLOCK_MONOTONIC) + 150000000;
	can_seal = !seal(seals[SEAL_READ]);
	if (!can_seal)
		report("info seals=0");
	else
		must(!seal(seals[SEAL_WRITE]) && !seal(seals[SEAL_NONE]));
}

/* One is sealed while the program runs on, somewhere. */
static void seal_work(void)
{
	if (can_seal && !late_seal && now_ns(CLOCK_MONOTONIC) > seal_at)
		late_seal = !seal(seals[SEAL_LATE]);
}

static void check_seal(int i)
{
	expect(has_flag(seals[i], " sl "));
	expect(!has_flag(seals[i] + 4 * PAGE, " sl "));
	expect(munmap(seals[i], 4 * PAGE) == -1 && errno == EPERM);
	expect(mprotect(seals[i], 4 * PAGE, PROT_READ | PROT_EXEC) == -1 && errno == EPERM);
	expect(mmap(seals[i], PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED && errno == EPERM);
}

static void seal_check(void)
{
	for (int i = 0; i < SEALS && can_seal; i++)
		if (i != SEAL_LATE || late_seal)
			check_seal(i);
	must(!mprotect(seals[SEAL_NONE] + 4 * PAGE, 4 * PAGE, PROT_READ));
	for (int i = 0; i < SEALS && !failed(); i++)
		verify("sealed memory", seals[i] + (i == SEAL_NONE ? 4 * PAGE : 0), (i == SEAL_NONE ? 4 : 8) * PAGE, 30 + i + (i == SEAL_NONE ? 4 * PAGE / 8 : 0));
}

VICTIM(shm_mseal, 0, seal_setup, seal_work, seal_check);
