/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* partial.c - calls that were ended with a part; see partial.h */
#include "image/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/trace.h"

#define RED_ZONE 128
#define MEMORY_DEVICES 1 /* their major number */

/* What the code takes from the stack. */
struct frame {
	uint64_t done, rsi, rdx, r10, rdi, r8, rip, rsp;
};

const uint8_t partial_code[PARTIAL_CODE_BYTES] = {
	0x0f, 0x05,             /* syscall */
	0x31, 0xc9,             /* xor %ecx,%ecx */
	0x48, 0x85, 0xc0,       /* test %rax,%rax */
	0x48, 0x0f, 0x48, 0xc1, /* cmovs %rcx,%rax: an error is that of the next call */
	0x59,                   /* pop %rcx: what had been done */
	0x48, 0x01, 0xc8,       /* add %rcx,%rax */
	0x5e,                   /* pop %rsi */
	0x5a,                   /* pop %rdx */
	0x41, 0x5a,             /* pop %r10 */
	0x5f,                   /* pop %rdi */
	0x41, 0x58,             /* pop %r8 */
	0x59,                   /* pop %rcx: where a call leaves its return address, too */
	0x41, 0x53,             /* push %r11: where it leaves the flags */
	0x9d,                   /* popfq */
	0x48, 0x8b, 0x24, 0x24, /* mov (%rsp),%rsp */
	0xff, 0xe1,             /* jmp *%rcx */
};

static bool receives_all(uint64_t flags)
{
	return (flags & MSG_WAITALL) && !(flags & (MSG_DONTWAIT | MSG_PEEK | MSG_OOB | MSG_ERRQUEUE));
}

static bool sends_all(uint64_t flags)
{
	return !(flags & (MSG_DONTWAIT | MSG_OOB | MSG_FASTOPEN));
}

bool partial_may_be(const struct user_regs_struct *regs)
{
	int64_t done = (int64_t)regs->rax;

	if (done <= 0)
		return false;
	switch (regs->orig_rax) {
	case SYS_write:
	case SYS_read:
		return (uint64_t)done < regs->rdx;
	case SYS_sendto:
		return (uint64_t)done < regs->rdx && sends_all(regs->r10);
	case SYS_recvfrom:
		return (uint64_t)done < regs->rdx && receives_all(regs->r10);
	case SYS_getrandom:
		return (uint64_t)done < regs->rsi;
	case SYS_sendfile:
		return (uint64_t)done < regs->r10;
	case SYS_writev: /* only memory tells how much it was to be */
		return true;
	case SYS_sendmsg:
		return sends_all(regs->rdx);
	case SYS_recvmsg:
		return receives_all(regs->rdx);
	}
	return false;
}

/* A signal waits that a handler, or the end, will follow. One that nothing follows waits as well while its thread is traced. */
static bool has_signal(pid_t pid, pid_t tid)
{
	const unsigned long long harmless = 1ull << (SIGCHLD - 1) | 1ull << (SIGCONT - 1) | 1ull << (SIGURG - 1) | 1ull << (SIGWINCH - 1);
	unsigned long long own = 0, shared = 0, blocked = 0, ignored = 0, caught = 0, word;
	char path[64], line[256];
	cleanup_fclose FILE *f = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)pid, (int)tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "SigPnd: %llx", &word) == 1)
			own = word;
		else if (sscanf(line, "ShdPnd: %llx", &word) == 1)
			shared = word;
		else if (sscanf(line, "SigBlk: %llx", &word) == 1)
			blocked = word;
		else if (sscanf(line, "SigIgn: %llx", &word) == 1)
			ignored = word;
		else if (sscanf(line, "SigCgt: %llx", &word) == 1)
			caught = word;
	}
	return !f || ((own | shared) & ~(blocked | ignored | (harmless & ~caught)));
}

static bool has_limit(int fd, int option)
{
	struct timeval limit = { 0 };
	socklen_t len = sizeof(limit);

	return getsockopt(fd, SOL_SOCKET, option, &limit, &len) < 0 || limit.tv_sec || limit.tv_usec;
}

static bool receives(const struct user_regs_struct *regs)
{
	return regs->orig_rax == SYS_recvfrom || regs->orig_rax == SYS_recvmsg;
}

/* Whether a call goes on until all is done. */
static bool waits(pid_t pid, const struct user_regs_struct *regs)
{
	cleanup_close int process = (int)syscall(SYS_pidfd_open, pid, 0), fd = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, (int)regs->rdi, 0);
	int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL), type = 0;
	socklen_t len = sizeof(type);
	struct stat st;

	if (flags < 0 || fstat(fd, &st) < 0)
		return false;
	if (regs->orig_rax == SYS_read)
		return S_ISCHR(st.st_mode) && major(st.st_rdev) == MEMORY_DEVICES && (minor(st.st_rdev) == 5 || minor(st.st_rdev) == 8 || minor(st.st_rdev) == 9);
	if (flags & O_NONBLOCK)
		return false;
	if (S_ISSOCK(st.st_mode))
		return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM && !has_limit(fd, receives(regs) ? SO_RCVTIMEO : SO_SNDTIMEO);
	/* sendfile into a pipe does not wait for more room. */
	return (S_ISFIFO(st.st_mode) && regs->orig_rax != SYS_sendfile) || (S_ISCHR(st.st_mode) && isatty(fd));
}

static bool get(pid_t pid, uint64_t at, void *ret, size_t len)
{
	struct iovec local = { ret, len }, remote = { (void *)(uintptr_t)at, len };

	return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)len;
}

/* Descriptors have gone with the first bytes. Other control messages go with each. */
static bool has_only_descriptors(pid_t pid, const struct msghdr *m)
{
	struct cmsghdr first;

	return !m->msg_controllen || (m->msg_controllen >= sizeof(first) && get(pid, (uintptr_t)m->msg_control, &first, sizeof(first)) && first.cmsg_level == SOL_SOCKET &&
				      first.cmsg_type == SCM_RIGHTS && CMSG_ALIGN(first.cmsg_len) >= m->msg_controllen);
}

/* The buffers that are left. False: there are none, or they cannot be known. */
static bool find_buffers(pid_t pid, const struct user_regs_struct *regs, struct partial *ret)
{
	struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)regs->rsi, .msg_iovlen = regs->rdx };
	uint64_t done = ret->done, at;
	struct iovec v = { NULL, 0 };

	if (regs->orig_rax != SYS_writev && (!get(pid, regs->rsi, &m, sizeof(m)) || (receives(regs) ? m.msg_control != NULL : !has_only_descriptors(pid, &m))))
		return false;
	for (at = (uintptr_t)m.msg_iov; m.msg_iovlen; m.msg_iovlen--, at += sizeof(v), done -= v.iov_len)
		if (!get(pid, at, &v, sizeof(v)) || done < v.iov_len)
			break;
	if (!m.msg_iovlen || m.msg_iovlen > PARTIAL_BUFFERS || !get(pid, at, ret->buffers, m.msg_iovlen * sizeof(v)))
		return false;
	ret->n_buffers = m.msg_iovlen;
	ret->buffers[0].iov_base = (char *)ret->buffers[0].iov_base + done;
	ret->buffers[0].iov_len -= done;
	return true;
}

/* In the room that is kept at the end of the vdso, behind the agent's last call. */
static uint64_t find_code(pid_t pid)
{
	static const uint8_t nothing[PARTIAL_CODE_BYTES];
	uint8_t there[PARTIAL_CODE_BYTES];
	cleanup_close int mem = -1;
	uint64_t at;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	if (mem < 0 || trace_find_tail(pid, &at, NULL) < 0 || trace_peek(mem, at + TRACE_TAIL_CONTINUE, there, sizeof(there), NULL) < 0 ||
	    (memcmp(there, nothing, sizeof(there)) != 0 && memcmp(there, partial_code, sizeof(there)) != 0))
		return 0;
	return at + TRACE_TAIL_CONTINUE;
}

bool partial_is_one(pid_t pid, pid_t tid, const struct user_regs_struct *regs, struct partial *ret)
{
	bool vector = regs->orig_rax == SYS_writev || regs->orig_rax == SYS_sendmsg || regs->orig_rax == SYS_recvmsg;

	*ret = (struct partial){ .nr = regs->orig_rax, .done = regs->rax };
	if ((regs->orig_rax != SYS_getrandom && !waits(pid, regs)) || has_signal(pid, tid) || (vector && !find_buffers(pid, regs, ret)))
		return false;
	ret->code = find_code(pid);
	return ret->code != 0;
}

int partial_put_code(pid_t pid, uint64_t code)
{
	cleanup_close int mem = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	mem = open(path, O_RDWR | O_CLOEXEC);
	return mem < 0 ? -errno : trace_poke(mem, code, partial_code, sizeof(partial_code), NULL);
}

size_t partial_go_on(struct user_regs_struct *regs, const struct partial *p, uint8_t ret_frame[PARTIAL_FRAME_BYTES])
{
	struct frame f = { p->done, regs->rsi, regs->rdx, regs->r10, regs->rdi, regs->r8, regs->rip, regs->rsp };
	struct msghdr m = { .msg_iovlen = p->n_buffers };
	size_t len = sizeof(f);

	if (p->n_buffers)
		len += sizeof(m) + p->n_buffers * sizeof(*p->buffers);
	regs->rsp = (regs->rsp - RED_ZONE - len) & ~15ull;
	m.msg_iov = (struct iovec *)(uintptr_t)(regs->rsp + sizeof(f) + sizeof(m));
	memcpy(ret_frame, &f, sizeof(f));
	if (p->n_buffers) {
		memcpy(ret_frame + sizeof(f), &m, sizeof(m));
		memcpy(ret_frame + sizeof(f) + sizeof(m), p->buffers, p->n_buffers * sizeof(*p->buffers));
	}
	if (p->nr == SYS_writev) {
		regs->rsi = (uintptr_t)m.msg_iov;
		regs->rdx = m.msg_iovlen;
	} else if (p->n_buffers) {
		regs->rsi = regs->rsp + sizeof(f);
	} else if (p->nr == SYS_sendfile) {
		regs->r10 -= p->done;
	} else if (p->nr == SYS_getrandom) {
		regs->rdi += p->done;
		regs->rsi -= p->done;
	} else {
		regs->rsi += p->done;
		regs->rdx -= p->done;
	}
	regs->rip = p->code;
	regs->rax = p->nr;
	regs->orig_rax = (unsigned long long)-1;
	return len;
}
