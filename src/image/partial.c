/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* partial.c - calls that were ended with a part; see partial.h */
#include "image/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/util.h"
#include "kern/trace.h"

#define FRAME_DROP 0xd0 /* the red zone, the frame, and room for what the code pushes */

const uint8_t partial_code[PARTIAL_CODE_BYTES] = {
	0x0f, 0x05,                                     /* syscall */
	0x48, 0x8b, 0x0c, 0x24,                         /* mov (%rsp),%rcx: what had been done */
	0x48, 0x85, 0xc0,                               /* test %rax,%rax */
	0x79, 0x05,                                     /* jns 1f */
	0x48, 0x89, 0xc8,                               /* mov %rcx,%rax: an error is that of the next call */
	0xeb, 0x03,                                     /* jmp 2f */
	0x48, 0x01, 0xc8,                               /* 1: add %rcx,%rax */
	0x48, 0x8b, 0x74, 0x24, 0x08,                   /* 2: mov 8(%rsp),%rsi */
	0x48, 0x8b, 0x54, 0x24, 0x10,                   /* mov 16(%rsp),%rdx */
	0x48, 0x8b, 0x4c, 0x24, 0x18,                   /* mov 24(%rsp),%rcx: where a call leaves its return address, too */
	0x41, 0x53,                                     /* push %r11: where it leaves the flags */
	0x9d,                                           /* popfq */
	0x48, 0x8d, 0xa4, 0x24, FRAME_DROP, 0, 0, 0,    /* lea FRAME_DROP(%rsp),%rsp */
	0xff, 0xe1,                                     /* jmp *%rcx */
};

bool partial_may_be(const struct user_regs_struct *regs)
{
	int64_t done = (int64_t)regs->rax;

	if (done <= 0 || (uint64_t)done >= regs->rdx)
		return false;
	switch (regs->orig_rax) {
	case SYS_write:
		return true;
	case SYS_sendto:
		return !(regs->r10 & (MSG_DONTWAIT | MSG_OOB));
	case SYS_recvfrom:
		return (regs->r10 & MSG_WAITALL) && !(regs->r10 & (MSG_DONTWAIT | MSG_PEEK | MSG_OOB | MSG_ERRQUEUE));
	}
	return false;
}

/* A signal waits that a handler, or the end, will follow. */
static bool has_signal(pid_t pid, pid_t tid)
{
	unsigned long long own = 0, shared = 0, blocked = 0, word;
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
	}
	return !f || ((own | shared) & ~blocked);
}

static bool has_limit(int fd, int option)
{
	struct timeval limit = { 0 };
	socklen_t len = sizeof(limit);

	return getsockopt(fd, SOL_SOCKET, option, &limit, &len) < 0 || limit.tv_sec || limit.tv_usec;
}

/* Whether a call on it waits until all is done. */
static bool waits(pid_t pid, const struct user_regs_struct *regs)
{
	cleanup_close int process = (int)syscall(SYS_pidfd_open, pid, 0), fd = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, (int)regs->rdi, 0);
	int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL), type = 0;
	socklen_t len = sizeof(type);
	struct stat st;

	if (flags < 0 || flags & O_NONBLOCK || fstat(fd, &st) < 0)
		return false;
	if (S_ISSOCK(st.st_mode))
		return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM && !has_limit(fd, regs->orig_rax == SYS_recvfrom ? SO_RCVTIMEO : SO_SNDTIMEO);
	return S_ISFIFO(st.st_mode) || (S_ISCHR(st.st_mode) && isatty(fd));
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

bool partial_is_one(pid_t pid, pid_t tid, const struct user_regs_struct *regs, uint64_t *ret_code)
{
	uint64_t code = 0;

	if (waits(pid, regs) && !has_signal(pid, tid))
		code = find_code(pid);
	*ret_code = code;
	return code != 0;
}

int partial_put_code(pid_t pid, uint64_t code)
{
	cleanup_close int mem = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	mem = open(path, O_RDWR | O_CLOEXEC);
	return mem < 0 ? -errno : trace_poke(mem, code, partial_code, sizeof(partial_code), NULL);
}

void partial_go_on(struct user_regs_struct *regs, uint64_t nr, uint64_t done, uint64_t code, uint64_t ret_frame[4])
{
	ret_frame[0] = done;
	ret_frame[1] = regs->rsi;
	ret_frame[2] = regs->rdx;
	ret_frame[3] = regs->rip;
	regs->rsp -= FRAME_DROP;
	regs->rsi += done;
	regs->rdx -= done;
	regs->rip = code;
	regs->rax = nr;
	regs->orig_rax = (unsigned long long)-1;
}
