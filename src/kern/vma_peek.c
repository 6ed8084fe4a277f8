/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vma_peek.c - loads and reads the iterator over mappings; see vma_peek.h and bpf/vma_peek.bpf.c */
#include "kern/vma_peek.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/bpf_iter.h"
#include "kern/vma_peek.skel.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif
#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#define PAGE 4096ul
#define RAW_WRITE 2ull /* VM_WRITE; the low four are as old as the system calls */

/* How a mapping of our own gets the flag: another type or flags of mmap, an advice, or a lock. */
struct lesson {
	int type, advice, lock; /* lock: of mlock2, plus one */
};

static const struct lesson lessons[VMA_PEEK_FLAGS] = {
	[VMA_PEEK_GROWSDOWN] = { .type = MAP_PRIVATE | MAP_GROWSDOWN },
	[VMA_PEEK_LOCKED] = { .lock = 1 },
	[VMA_PEEK_LOCKONFAULT] = { .lock = 1 + MLOCK_ONFAULT },
	[VMA_PEEK_HUGEPAGE] = { .advice = MADV_HUGEPAGE },
	[VMA_PEEK_NOHUGEPAGE] = { .advice = MADV_NOHUGEPAGE },
	[VMA_PEEK_DONTFORK] = { .advice = MADV_DONTFORK },
	[VMA_PEEK_DONTDUMP] = { .advice = MADV_DONTDUMP },
	[VMA_PEEK_WIPEONFORK] = { .advice = MADV_WIPEONFORK },
	[VMA_PEEK_MERGEABLE] = { .advice = MADV_MERGEABLE },
	[VMA_PEEK_RANDOM] = { .advice = MADV_RANDOM },
	[VMA_PEEK_SEQUENTIAL] = { .advice = MADV_SEQUENTIAL },
	[VMA_PEEK_NORESERVE] = { .type = MAP_PRIVATE | MAP_NORESERVE },
	[VMA_PEEK_DROPPABLE] = { .type = MAP_DROPPABLE },
	[VMA_PEEK_GUARDED] = { .advice = MADV_GUARD_INSTALL },
};

static struct vma_peek_bpf *loaded;
static uint64_t bits[VMA_PEEK_FLAGS];

/* Processes that are looked at in the freeze: those of one unit. */
static struct watch {
	pid_t pid;
	struct bpf_iter_watch iter, digest;
} *watches;
static size_t n_watches;

static bool has_digest;

static int program(void)
{
	return bpf_program__fd(loaded->progs.read_mapping);
}

static int digest_program(void)
{
	return has_digest ? bpf_program__fd(loaded->progs.digest_mappings) : -1;
}

static struct watch *find_watch(pid_t pid)
{
	for (size_t i = 0; i < n_watches; i++)
		if (watches[i].pid == pid)
			return &watches[i];
	return NULL;
}

/* Of the first thread only. */
static int open_digest(struct bpf_iter_watch *ret, pid_t pid, struct err *e)
{
	union bpf_iter_link_info info = { .task.tid = (uint32_t)pid };

	*ret = (struct bpf_iter_watch){ -1, -1 };
	return has_digest ? bpf_iter_watch_open(ret, digest_program(), &info, pid, e) : err_set(e, -ENOSYS, "this kernel has no digest of mappings");
}

void vma_peek_ready(pid_t pid)
{
	/* By .task.tid an iteration that takes several reads would never end; the threads of a process are not iterated over. */
	union bpf_iter_link_info info = { .task.pid = (uint32_t)pid };
	struct watch *w = loaded ? find_watch(pid) : NULL, *grown;

	if (loaded && !w) {
		grown = realloc(watches, (n_watches + 1) * sizeof(*watches));
		if (!grown)
			return;
		watches = grown;
		w = &watches[n_watches];
		w->pid = pid;
		if (bpf_iter_watch_open(&w->iter, program(), &info, pid, NULL) < 0)
			return;
		open_digest(&w->digest, pid, NULL);
		n_watches++;
	}
	if (!w)
		return;
	bpf_iter_watch_prepare(&w->iter);
	if (w->digest.link_fd >= 0)
		bpf_iter_watch_prepare(&w->digest);
}

static ssize_t read_mappings(pid_t pid, const struct vma_record **ret, struct err *e)
{
	static void *buffer;
	static size_t room;
	struct watch *w = find_watch(pid);
	cleanup_close int fd = w ? bpf_iter_watch_take(&w->iter, e) : bpf_iter_of(program(), pid, e);
	ssize_t n = fd < 0 ? fd : bpf_iter_read_all(fd, &buffer, &room, e);

	*ret = buffer;
	return n < 0 ? n : n / (ssize_t)sizeof(**ret);
}

static uint64_t flags_at(const struct vma_record *v, ssize_t n, const char *address)
{
	for (ssize_t i = 0; i < n; i++)
		if ((uintptr_t)address >= v[i].start && (uintptr_t)address < v[i].end)
			return v[i].flags;
	return 0;
}

static char *map(int protection, int type)
{
	void *p = mmap(NULL, PAGE, protection, type | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static char *learn_from(const struct lesson *l)
{
	char *p = map(PROT_READ | PROT_WRITE, l->type ? l->type : MAP_PRIVATE);
	int ret = 0;

	if (p && l->advice)
		ret = madvise(p, PAGE, l->advice);
	if (p && l->lock)
		ret = mlock2(p, PAGE, (unsigned)l->lock - 1);
	if (ret < 0) {
		munmap(p, PAGE);
		return NULL;
	}
	return p;
}

static void __attribute__((noreturn)) seal_and_wait(char *at, int told)
{
	char done = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	done = syscall(SYS_mseal, at, PAGE, 0) == 0 && write(told, &done, 1) == 1;
	while (done)
		pause();
	_exit(0);
}

/* In a child: what is sealed remains for as long as its process, and would be in all that are forked from this one. `plain`: a mapping with the flags `base`. */
static void learn_seal(char *plain, uint64_t base)
{
	const struct vma_record *v;
	int told[2];
	pid_t child;
	ssize_t n;
	char byte;

	if (pipe2(told, O_CLOEXEC) < 0)
		return;
	child = fork();
	if (child == 0)
		seal_and_wait(plain, told[1]);
	close(told[1]);
	if (child > 0 && read(told[0], &byte, 1) == 1 && (n = read_mappings(child, &v, NULL)) > 0)
		bits[VMA_PEEK_SEALED] = flags_at(v, n, plain) & ~base;
	close(told[0]);
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
}

static int learn(struct err *e)
{
	char *with[VMA_PEEK_FLAGS] = { 0 }, *plain = map(PROT_READ | PROT_WRITE, MAP_PRIVATE), *readable = map(PROT_READ, MAP_PRIVATE);
	const struct vma_record *v;
	ssize_t n;
	uint64_t base;

	if (!plain || !readable)
		return err_sys(e, -errno, "mappings to learn from");
	for (int i = 0; i < VMA_PEEK_FLAGS; i++)
		if (i != VMA_PEEK_ACCOUNT && i != VMA_PEEK_SEALED)
			with[i] = learn_from(&lessons[i]);
	n = read_mappings(getpid(), &v, e);
	base = n < 0 ? 0 : flags_at(v, n, plain);
	for (int i = 0; i < VMA_PEEK_FLAGS && n >= 0; i++)
		bits[i] = with[i] ? flags_at(v, n, with[i]) & ~base : 0;
	if (n >= 0)
		bits[VMA_PEEK_ACCOUNT] = base & ~flags_at(v, n, readable) & ~RAW_WRITE;
	bits[VMA_PEEK_LOCKONFAULT] &= ~bits[VMA_PEEK_LOCKED];
	/* It comes with several others. */
	for (int i = 0; i < VMA_PEEK_DROPPABLE; i++)
		bits[VMA_PEEK_DROPPABLE] &= ~bits[i];
	for (int i = 0; i < VMA_PEEK_FLAGS; i++)
		if (with[i])
			munmap(with[i], PAGE);
	if (n >= 0)
		learn_seal(plain, base);
	munmap(plain, PAGE);
	munmap(readable, PAGE);
	return n < 0 ? (int)n : 0;
}

/* Before Linux 6.7 no program could go through mappings by itself. */
static struct vma_peek_bpf *load_without_digest(void)
{
	struct vma_peek_bpf *bpf = vma_peek_bpf__open();

	if (!bpf)
		return NULL;
	bpf_program__set_autoload(bpf->progs.digest_mappings, false);
	if (vma_peek_bpf__load(bpf) == 0)
		return bpf;
	vma_peek_bpf__destroy(bpf);
	return NULL;
}

int vma_peek_prepare(int ret_fds[VMA_PEEK_FDS], struct err *e)
{
	int ret = 0;

	ret_fds[0] = ret_fds[1] = -1;
	if (!loaded) {
		loaded = BPF_ITER_LOAD(vma_peek_bpf__open_and_load);
		has_digest = loaded;
		if (!loaded)
			loaded = BPF_ITER_LOAD(load_without_digest);
		ret = loaded ? learn(e) : err_sys(e, -errno, "loading the BPF iterator that reads flags of mappings");
	}
	if (ret < 0) {
		vma_peek_bpf__destroy(loaded);
		loaded = NULL;
		return ret;
	}
	ret_fds[0] = program();
	ret_fds[1] = digest_program();
	return 0;
}

int vma_peek_digest(pid_t pid, struct vma_digest *ret, struct err *e)
{
	struct watch *w = find_watch(pid);
	bool watched = w && w->digest.link_fd >= 0;
	struct bpf_iter_watch own = { -1, -1 };
	struct vma_digest d = { 0 };
	int rc = watched ? 0 : open_digest(&own, pid, e), fd = rc < 0 ? rc : bpf_iter_watch_take(watched ? &w->digest : &own, e);

	bpf_iter_watch_close(&own);
	if (fd < 0)
		return fd;
	if (bpf_iter_fill(fd, &d, sizeof(d), e) != sizeof(d) || !d.count)
		rc = err_set(e, -EAGAIN, "process %d: its mappings cannot be read now", pid);
	close(fd);
	if (rc == 0)
		*ret = d;
	return rc;
}

ssize_t vma_peek(pid_t pid, const struct vma_record **ret, struct err *e)
{
	return loaded ? read_mappings(pid, ret, e) : err_set(e, -ENOSYS, "flags of mappings cannot be read by BPF here");
}

uint64_t vma_peek_bit(enum vma_peek_flag flag)
{
	return bits[flag];
}
