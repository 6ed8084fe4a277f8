/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * layout_sequence.c - which changes of memory the sequence number of an address space shows
 *
 * The freeze compares no mapping when the number is the one of the rehearsal: every call that changes mappings or their flags has to change it. Guard pages
 * (MADV_GUARD_INSTALL, Linux 6.13) do not: PAGEMAP_SCAN shows them, in mappings whose flags say that there have been any ("gu" of later kernels).
 */
#include "fact.h"

#include "kern/restart_block.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

static struct restart_watch *watch;

static uint64_t sequence(void)
{
	struct restart_record r[4];
	struct err e = ERR_INIT;

	MUST(restart_watch_read(watch, r, 4, &e) == 1);
	return r[0].layout;
}

static char *flags_of(char *p, char *line, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	bool inside = false;
	unsigned long start;

	MUST(f);
	while (fgets(line, (int)size, f)) {
		if (sscanf(line, "%lx-", &start) == 1 && strchr(line, '-'))
			inside = start == (unsigned long)p;
		if (inside && !strncmp(line, "VmFlags:", 8))
			break;
	}
	fclose(f);
	return line;
}

#define CHANGES(what, call)                                            \
	do {                                                           \
		uint64_t before_ = sequence();                         \
		MUST(call);                                            \
		FACT(sequence() != before_, what " changes the number"); \
	} while (0)

int main(void)
{
	char *p = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), before[512], after[512];
	struct restart_reader *reader;
	struct err e = ERR_INIT;
	uint64_t number;
	bool told;

	MUST(p != MAP_FAILED);
	if (restart_reader_load(&reader, &e) < 0)
		SKIP("no BPF: %s", e.message);
	MUST(restart_watch_open(reader, getpid(), &watch, &e) == 0);
	flags_of(p, before, sizeof(before));
	memset(p, 1, 8 * PAGE);
	sequence();
	number = sequence();
	if (!number)
		SKIP("this kernel has no such number");
	FACT(sequence() == number, "nothing done: the same number");
	p[0] = 2;
	FACT(sequence() == number, "writing memory does not change it");
	MUST(madvise(p, PAGE, MADV_DONTNEED) == 0);
	FACT(sequence() == number, "giving memory back does not change it");
	CHANGES("mmap", mmap(p + 6 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
	CHANGES("munmap", munmap(p + 6 * PAGE, 2 * PAGE) == 0);
	CHANGES("mprotect", mprotect(p + 5 * PAGE, PAGE, PROT_READ) == 0);
	CHANGES("madvise(MADV_DONTFORK)", madvise(p + 4 * PAGE, PAGE, MADV_DONTFORK) == 0);
	CHANGES("mlock", mlock(p + 3 * PAGE, PAGE) == 0);
	flags_of(p, before, sizeof(before));
	number = sequence();
	if (madvise(p, 2 * PAGE, MADV_GUARD_INSTALL) < 0)
		SKIP("this kernel has no guard pages in page tables");
	FACT(sequence() == number, "guard pages do not change it");
	SAW("%s", strtok(flags_of(p, after, sizeof(after)), "\n"));
	SAW("%s (before)", strtok(before, "\n"));
	told = strstr(after, " gu") != NULL;
	MUST(madvise(p, 2 * PAGE, MADV_GUARD_REMOVE) == 0);
	FACT(sequence() == number, "nor does their removal");
	FACT(!told || strstr(flags_of(p, after, sizeof(after)), " gu"), "where flags tell, they go on telling when the guards are gone");
	restart_watch_close(watch);
	restart_reader_free(reader);
	return fact_failures != 0;
}
