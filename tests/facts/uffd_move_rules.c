// SPDX-License-Identifier: GPL-2.0-or-later
/* uffd_move_rules.c - who may issue UFFDIO_MOVE and UFFDIO_COPY, on which mappings, and what they report when they stop early */
#include "fact.h"

#define PAGES 16ul
#define MAYBE(text, r, done) SAW("%s: %s, done %lld", text, (r) ? strerror(-(r)) : "ok", (long long)(done))

static int fd;

static char *destination(void)
{
	char *p = map_anon(PAGES * PAGE);

	MUST(uffd_register(fd, p, PAGES * PAGE, UFFDIO_REGISTER_MODE_MISSING) == 0);
	return p;
}

static char *source(void)
{
	char *p = map_anon(PAGES * PAGE);

	for (unsigned i = 0; i < PAGES; i++)
		memset(p + i * PAGE, 'a' + (int)i, PAGE);
	return p;
}

/* A forked child has another mm: the userfaultfd that it inherited still means the parent's addresses. */
static void other_process(void)
{
	char *to = destination(), *from = source(), *to2 = destination();
	int *result = map_shared(PAGE);
	pid_t pid;

	/* The child unmaps its own copies: what the ioctl sees must be the parent's. */
	pid = fork();
	if (pid == 0) {
		int64_t done;

		result[0] = uffd_move(fd, to, from, PAGES * PAGE, 0, &done);
		if (result[0] == -EBUSY || result[0] == -EAGAIN) { /* pages are shared with the child by fork */
			munmap(from, PAGES * PAGE);
			result[0] = uffd_move(fd, to, from, PAGES * PAGE, 0, &done);
			result[2] = 1;
		}
		char *mine = map_anon(PAGE);
		memset(mine, 'c', PAGE);
		result[1] = uffd_copy(fd, to2, mine, PAGE, &done);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	SAW("MOVE by another process: %s%s; its mm owns no right to it", result[0] ? strerror(-result[0]) : "ok",
	    result[2] ? " (first EBUSY: pages shared by fork)" : "");
	if (result[0])
		FACT(1, "MOVE works only within the caller's own mm: the agent (CLONE_VM) must issue it");
	FACT(result[1] == 0 && to2[0] == 'c', "COPY by another process works and copies from the CALLER's memory into the owner's mm");
}

static void errors_of_move(void)
{
	char *to = destination(), *from = source();
	int64_t done;
	int r;

	MUST(uffd_copy(fd, to + 5 * PAGE, from, PAGE, &done) == 0);
	r = uffd_move(fd, to, from, PAGES * PAGE, 0, &done);
	MAYBE("MOVE of 16 pages, the 6th present at the destination", r, done);
	FACT(r == -EAGAIN && done == 5 * (int64_t)PAGE, "MOVE stops at the first present page: EAGAIN, done = bytes before it");
	r = uffd_move(fd, to + 5 * PAGE, from + 5 * PAGE, PAGES * PAGE - 5 * PAGE, 0, &done);
	MAYBE("MOVE again from the present page on", r, done);
	FACT(r == -EEXIST && done == -EEXIST, "MOVE whose first page is present: EEXIST, and the field holds -EEXIST");
	r = uffd_move(fd, to + 6 * PAGE, from + 6 * PAGE, PAGES * PAGE - 6 * PAGE, 0, &done);
	FACT(r == 0 && done == 10 * (int64_t)PAGE, "MOVE behind the present page: ok, done %lld", (long long)done);

	to = destination(), from = source();
	madvise(from + 3 * PAGE, PAGE, MADV_DONTNEED);
	r = uffd_move(fd, to, from, PAGES * PAGE, 0, &done);
	MAYBE("MOVE with a hole in the source (4th)", r, done);
	FACT(r == -EAGAIN && done == 3 * (int64_t)PAGE, "a hole in the source stops MOVE with EAGAIN and the bytes before it");
	r = uffd_move(fd, to + 3 * PAGE, from + 3 * PAGE, PAGE, 0, &done);
	FACT(r == -ENOENT, "MOVE of a hole: %s", strerror(-r));
	r = uffd_move(fd, to + 3 * PAGE, from + 3 * PAGE, 13 * PAGE, UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES, &done);
	FACT(r == 0 && done == 13 * (int64_t)PAGE, "ALLOW_SRC_HOLES passes over holes (nothing is placed there)");

	from = source(), to = destination();
	volatile char c = from[0];
	(void)c;
	pid_t pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	r = uffd_move(fd, to, from, PAGE, 0, &done);
	FACT(r == -EBUSY, "MOVE of a page shared by fork: %s", r ? strerror(-r) : "ok");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);

	from = source(), to = destination();
	MUST(uffd_copy(fd, to, from, PAGES * PAGE, &done) == 0);
	r = uffd_copy(fd, to, from, PAGE, &done);
	FACT(r == -EEXIST && done == -EEXIST, "COPY over a present page: %s, field %lld", strerror(-r), (long long)done);
	to = destination();
	MUST(uffd_copy(fd, to + 2 * PAGE, from, PAGE, &done) == 0);
	r = uffd_copy(fd, to, from, PAGES * PAGE, &done);
	FACT(r == -EAGAIN && done == 2 * (int64_t)PAGE, "COPY of a run stops at a present page: %s, done %lld", strerror(-r), (long long)done);
	munmap(to, PAGES * PAGE);
	r = uffd_copy(fd, to, from, PAGE, &done);
	FACT(r == -ENOENT, "COPY into an unmapped range: %s", strerror(-r));
	r = uffd_move(fd, to, from, PAGE, 0, &done);
	FACT(r < 0, "MOVE into an unmapped range: %s", strerror(-r));
	char *whole = map_anon(2 * PAGES * PAGE);
	MUST(uffd_register(fd, whole, 2 * PAGES * PAGE, UFFDIO_REGISTER_MODE_MISSING) == 0);
	mprotect(whole + PAGES * PAGE, PAGES * PAGE, PROT_READ); /* splits the mapping in two */
	from = source();
	r = uffd_move(fd, whole + (PAGES - 2) * PAGE, from, 4 * PAGE, 0, &done);
	MAYBE("MOVE across the border of two mappings", r, done);
	r = uffd_copy(fd, whole + (PAGES - 2) * PAGE, from + 4 * PAGE, 4 * PAGE, &done);
	MAYBE("COPY across the border of two mappings", r, done);
}

/* One MOVE into a destination of other attributes than the (read-write, unlocked, private anonymous) source. */
static int move_into(char *to)
{
	char *from = source();
	int64_t done;

	return uffd_move(fd, to, from, PAGE, 0, &done);
}

static void attributes(void)
{
	static const struct {
		int prot;
		const char *name;
	} prots[] = { { PROT_READ, "r--" }, { PROT_NONE, "---" }, { PROT_READ | PROT_EXEC, "r-x" },
		      { PROT_READ | PROT_WRITE | PROT_EXEC, "rwx" }, { PROT_WRITE, "-w-" } };
	int64_t done;
	int r;

	for (unsigned i = 0; i < sizeof(prots) / sizeof(prots[0]); i++) {
		char *to = destination(), *to2 = destination(), *from = source();

		MUST(mprotect(to, PAGES * PAGE, prots[i].prot) == 0 && mprotect(to2, PAGES * PAGE, prots[i].prot) == 0);
		r = move_into(to);
		int c = uffd_copy(fd, to2, from, PAGE, &done);
		SAW("destination %s: MOVE %s, COPY %s", prots[i].name, r ? strerror(-r) : "ok", c ? strerror(-c) : "ok");
		mprotect(to2, PAGES * PAGE, PROT_READ);
		if (c == 0)
			FACT(to2[0] == 'a', "the page copied under %s is there", prots[i].name);
	}
	char *to = destination();
	MUST(mlock2(to, PAGES * PAGE, MLOCK_ONFAULT) == 0);
	r = move_into(to);
	FACT(r == -EINVAL, "MOVE from unlocked into VM_LOCKED: %s", r ? strerror(-r) : "ok");
	char *from = source();
	char *locked = source();
	MUST(mlock(locked, PAGES * PAGE) == 0);
	r = uffd_move(fd, to, locked, PAGES * PAGE, 0, &done);
	FACT(r == 0, "MOVE from VM_LOCKED into VM_LOCKED: %s", r ? strerror(-r) : "ok");
	char *to_rwx = destination(), *from_rwx = source();
	mprotect(to_rwx, PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	mprotect(from_rwx, PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
	r = uffd_move(fd, to_rwx, from_rwx, PAGES * PAGE, 0, &done);
	FACT(r == 0, "MOVE from rwx into rwx: %s", r ? strerror(-r) : "ok");
	mprotect(to_rwx = destination(), PAGES * PAGE, PROT_READ);
	mprotect(from_rwx = source(), PAGES * PAGE, PROT_READ);
	r = uffd_move(fd, to_rwx, from_rwx, PAGES * PAGE, 0, &done);
	FACT(r == -EINVAL, "MOVE from r-- into r-- (equal, but not writable): %s", r ? strerror(-r) : "ok");
	to = destination();
	MUST(mlock2(to, PAGES * PAGE, MLOCK_ONFAULT) == 0);
	FACT(uffd_copy(fd, to, from, PAGE, &done) == 0, "COPY into VM_LOCKED (mlock2 ONFAULT): ok");

}

static void kinds_of_mapping(void)
{
	int64_t done;
	int m = memfd_create("f", MFD_CLOEXEC);
	MUST(ftruncate(m, PAGES * PAGE) == 0);
	char *from = source(), *to = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, m, 0);
	int r = uffd_register(fd, to, PAGES * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	SAW("register MISSING on a private memfd mapping: %s", r ? strerror(-r) : "ok");
	if (r == 0) {
		SAW("  MOVE into it: %s", strerror(-move_into(to)));
		r = uffd_copy(fd, to + PAGE, from, PAGE, &done);
		SAW("  COPY into it: %s", r ? strerror(-r) : "ok");
	}
	to = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	r = uffd_register(fd, to, PAGES * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	SAW("register MISSING on shared anonymous memory: %s", r ? strerror(-r) : "ok");
	if (r == 0) {
		r = move_into(to);
		SAW("  MOVE into it: %s", r ? strerror(-r) : "ok");
		r = uffd_copy(fd, to + PAGE, from, PAGE, &done);
		SAW("  COPY into it: %s", r ? strerror(-r) : "ok");
	}
	int f = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	to = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, f, 0);
	r = uffd_register(fd, to, PAGE, UFFDIO_REGISTER_MODE_MISSING);
	FACT(r == -EINVAL, "register MISSING on a private mapping of a disk file: %s", r ? strerror(-r) : "ok");
	to = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
	r = uffd_register(fd, to, PAGES * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	SAW("register MISSING on MAP_GROWSDOWN: %s; MOVE into it: %s", r ? strerror(-r) : "ok", strerror(-move_into(to)));
}

static void unregistered(void)
{
	char *to = map_anon(PAGES * PAGE), *from = source();
	int64_t done;
	int r = uffd_move(fd, to, from, PAGE, 0, &done);

	FACT(r < 0, "MOVE into a range that is not registered: %s", strerror(-r));
	r = uffd_copy(fd, to, from, PAGE, &done);
	FACT(r < 0, "COPY into a range that is not registered: %s", strerror(-r));
	to = map_anon(PAGES * PAGE);
	MUST(uffd_register(fd, to, PAGES * PAGE, UFFDIO_REGISTER_MODE_WP) == 0);
	r = uffd_move(fd, to, from, PAGE, 0, &done);
	SAW("MOVE into a range registered for WP only: %s", r ? strerror(-r) : "ok");
	/* the shared scratch as a source */
	char *shared = map_shared(PAGES * PAGE);
	shared[0] = 1;
	to = destination();
	r = uffd_move(fd, to, shared, PAGE, 0, &done);
	FACT(r == -EINVAL, "MOVE out of a shared mapping (scratch memfd): %s", r ? strerror(-r) : "ok");
}

int main(void)
{
	fd = uffd_open(UFFD_FEATURE_MOVE);
	other_process();
	errors_of_move();
	attributes();
	kinds_of_mapping();
	unregistered();
	return fact_result();
}
