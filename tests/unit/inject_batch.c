/* SPDX-License-Identifier: GPL-2.0-or-later */
/* inject_batch.c - batches that a test runs in a forked child by ptrace; see inject_batch.h */
#include "inject_batch.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "base/util.h"

#define ARENA_SIZE (4ul << 20)
#define CALLS_MAX 8192
#define MUST(x)                                                                  \
	do {                                                                     \
		if (!(x)) {                                                      \
			fprintf(stderr, "%s:%d: %s: %m\n", __FILE__, __LINE__, #x); \
			abort();                                                 \
		}                                                                \
	} while (0)

struct batch {
	pid_t tid;
	size_t used, n;
	struct remote_call call[CALLS_MAX];
	const char *what[CALLS_MAX];
};

static uint8_t *arena; /* the gadget first */

void inject_init(void)
{
	static const uint8_t gadget[] = { 0x0f, 0x05, 0xcc }; /* syscall; int3 */

	arena = mmap(NULL, ARENA_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	MUST(arena != MAP_FAILED);
	memcpy(arena, gadget, sizeof(gadget));
}

struct batch *inject_batch(pid_t tid)
{
	struct batch *b = calloc(1, sizeof(*b));

	MUST(b);
	b->tid = tid;
	batch_reset(b);
	return b;
}

void inject_free(struct batch *b)
{
	free(b);
}

void inject_stop(pid_t tid)
{
	int status;

	MUST(ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_EXITKILL) == 0);
	MUST(ptrace(PTRACE_INTERRUPT, tid, 0, 0) == 0);
	MUST(waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status));
}

struct remote_call *batch_call_array(struct batch *b, const char *what, uint64_t nr, uint32_t flags, const uint64_t arg[6])
{
	struct remote_call *call = &b->call[b->n];

	MUST(b->n < CALLS_MAX);
	*call = (struct remote_call){ .nr = nr, .flags = flags, .ret = CALL_SKIPPED };
	memcpy(call->arg, arg, sizeof(call->arg));
	b->what[b->n++] = what;
	return call;
}

void *batch_space(struct batch *b, size_t len_bytes, uint64_t *ret_address)
{
	uint8_t *p = arena + b->used;

	b->used += (len_bytes + 15) & ~15ul;
	MUST(b->used <= ARENA_SIZE);
	memset(p, 0, len_bytes);
	*ret_address = (uint64_t)(uintptr_t)p;
	return p;
}

uint64_t batch_data(struct batch *b, const void *data, size_t len_bytes)
{
	uint64_t at;
	void *p = batch_space(b, len_bytes, &at);

	if (len_bytes)
		memcpy(p, data, len_bytes);
	return at;
}

uint64_t batch_string(struct batch *b, const char *text)
{
	return batch_data(b, text, strlen(text) + 1);
}

static void point_at_call(pid_t tid, const struct user_regs_struct *base, const struct remote_call *call)
{
	struct user_regs_struct regs = *base;

	regs.rip = (uint64_t)(uintptr_t)arena;
	regs.orig_rax = (uint64_t)-1;
	regs.rax = call->nr;
	regs.rdi = call->arg[0];
	regs.rsi = call->arg[1];
	regs.rdx = call->arg[2];
	regs.r10 = call->arg[3];
	regs.r8 = call->arg[4];
	regs.r9 = call->arg[5];
	MUST(ptrace(PTRACE_SETREGS, tid, 0, &regs) == 0);
}

static int64_t inject(pid_t tid, const struct user_regs_struct *base, const struct remote_call *call)
{
	struct user_regs_struct regs;
	int status;

	point_at_call(tid, base, call);
	MUST(ptrace(PTRACE_CONT, tid, 0, 0) == 0);
	MUST(waitpid(tid, &status, __WALL) == tid);
	MUST(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
	MUST(ptrace(PTRACE_GETREGS, tid, 0, &regs) == 0);
	return (int64_t)regs.rax;
}

static bool asleep(pid_t tid)
{
	char path[64], text[512];
	cleanup_fclose FILE *f = NULL;
	const char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	f = fopen(path, "re");
	MUST(f && fgets(text, sizeof(text), f));
	p = strrchr(text, ')');
	return p && p[2] == 'S';
}

int64_t inject_blocking(pid_t tid, const struct remote_call *call)
{
	struct user_regs_struct regs;
	int status;

	MUST(ptrace(PTRACE_GETREGS, tid, 0, &regs) == 0);
	point_at_call(tid, &regs, call);
	MUST(ptrace(PTRACE_CONT, tid, 0, 0) == 0);
	while (!asleep(tid)) {
		if (waitpid(tid, &status, __WALL | WNOHANG) == tid) { /* at the int3: the call has returned */
			MUST(ptrace(PTRACE_GETREGS, tid, 0, &regs) == 0);
			return (int64_t)regs.rax;
		}
	}
	MUST(ptrace(PTRACE_INTERRUPT, tid, 0, 0) == 0);
	MUST(waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status));
	MUST(ptrace(PTRACE_GETREGS, tid, 0, &regs) == 0);
	return (int64_t)regs.rax;
}

int batch_run(struct batch *b, struct err *e)
{
	struct user_regs_struct base;
	uint64_t mask, all = UINT64_MAX;
	int rc = 0;

	MUST(ptrace(PTRACE_GETREGS, b->tid, 0, &base) == 0);
	MUST(ptrace(PTRACE_GETSIGMASK, b->tid, sizeof(mask), &mask) == 0);
	MUST(ptrace(PTRACE_SETSIGMASK, b->tid, sizeof(all), &all) == 0);
	for (size_t i = 0; i < b->n && rc == 0; i++) {
		b->call[i].ret = inject(b->tid, &base, &b->call[i]);
		if (b->call[i].ret < 0 && b->call[i].ret > -4096 && !(b->call[i].flags & CALL_MAY_FAIL))
			rc = err_sys(e, (int)b->call[i].ret, "%s", b->what[i]);
	}
	MUST(ptrace(PTRACE_SETSIGMASK, b->tid, sizeof(mask), &mask) == 0);
	MUST(ptrace(PTRACE_SETREGS, b->tid, 0, &base) == 0);
	return rc;
}

void batch_reset(struct batch *b)
{
	b->used = 64;
	b->n = 0;
}

int64_t remote_do_array(struct batch *b, struct err *e, const char *what, uint64_t nr, const uint64_t arg[6])
{
	struct remote_call *call = batch_call_array(b, what, nr, 0, arg);
	int rc = batch_run(b, e);
	int64_t ret = rc < 0 ? rc : call->ret;

	batch_reset(b);
	return ret;
}
