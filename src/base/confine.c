/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* confine.c - see confine.h; seccomp(2), capabilities(7) */
#include "base/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

/* Whatever their arguments. */
static const int calls[] = {
	SYS_read, SYS_pread64, SYS_readv, SYS_write, SYS_writev, SYS_close, SYS_fcntl, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_stat, SYS_lstat, SYS_statfs, SYS_fstatfs, SYS_access, SYS_faccessat,
	SYS_faccessat2, SYS_readlink, SYS_readlinkat, SYS_getdents64, SYS_poll, SYS_ppoll, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_clock_nanosleep, SYS_nanosleep,
	SYS_restart_syscall, SYS_futex, SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_exit, SYS_exit_group,
	SYS_getpid, SYS_gettid, SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getrandom, SYS_sched_yield, SYS_sched_getaffinity, SYS_uname, SYS_sysinfo,
};

#define AT(field) (uint32_t)offsetof(struct seccomp_data, field)
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, AT(field))
#define IF_EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), yes, no)
#define IF_ANY(mask, yes, no) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(mask), yes, no)
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define DENY (SECCOMP_RET_ERRNO | EPERM)

/* What it may still open is there to be read. */
#define OPEN_FLAGS_NEVER (O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY) | O_APPEND)

/* System calls `number` with a flag of `never` in argument `n` (from 0 on) fail, others go through; what is no such call goes on behind this. Four instructions. */
#define GUARD(number, n, never) IF_EQUAL(number, 0, 4), LOAD(args[n]), IF_ANY(never, 0, 1), RETURN(DENY), RETURN(SECCOMP_RET_ALLOW)

static int set_filter(const int *more, size_t n, struct err *e)
{
	static const struct sock_filter head[] = {
		LOAD(arch), IF_EQUAL(AUDIT_ARCH_X86_64, 1, 0), RETURN(SECCOMP_RET_KILL_PROCESS), LOAD(nr),
		GUARD(SYS_open, 1, OPEN_FLAGS_NEVER), GUARD(SYS_openat, 2, OPEN_FLAGS_NEVER), GUARD(SYS_mmap, 2, PROT_EXEC), GUARD(SYS_mprotect, 2, PROT_EXEC),
	};
	struct sock_filter filter[ARRAY_SIZE(head) + 2 * (ARRAY_SIZE(calls) + CONFINE_MORE_MAX) + 1];
	struct sock_fprog program = { .filter = filter };
	size_t len = ARRAY_SIZE(head);

	memcpy(filter, head, sizeof(head));
	for (size_t i = 0; i < ARRAY_SIZE(calls) + MIN(n, (size_t)CONFINE_MORE_MAX); i++) {
		filter[len++] = (struct sock_filter)IF_EQUAL(i < ARRAY_SIZE(calls) ? calls[i] : more[i - ARRAY_SIZE(calls)], 0, 1);
		filter[len++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
	}
	filter[len++] = (struct sock_filter)RETURN(DENY);
	program.len = (unsigned short)len;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? err_sys(e, -errno, "a filter of system calls") : 0;
}

/* As long as it may: others come from execve(2) only, which it may not call. */
static void empty_bounding_set(void)
{
	for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
		prctl(PR_CAPBSET_DROP, capability);
}

static int drop_capabilities(struct err *e)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &header, none) < 0 ? err_sys(e, -errno, "giving capabilities away") : 0;
}

static int become_nobody(struct err *e)
{
	if (geteuid() != 0)
		return 0;
	if (setgroups(0, NULL) < 0 && errno != EPERM)
		return err_sys(e, -errno, "setgroups");
	if (setresgid(CONFINE_USER, CONFINE_USER, CONFINE_USER) < 0 || setresuid(CONFINE_USER, CONFINE_USER, CONFINE_USER) < 0)
		return errno == EINVAL || errno == EPERM ? 0 : err_sys(e, -errno, "becoming nobody");
	return 0;
}

int confine(const int *more, size_t n, struct err *e)
{
	int at_death = 0;

	prctl(PR_GET_PDEATHSIG, &at_death); /* another user has none at first */
	empty_bounding_set();
	if (become_nobody(e) < 0 || drop_capabilities(e) < 0)
		return e ? e->code : -EPERM;
	prctl(PR_SET_PDEATHSIG, at_death);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(e, -errno, "no new privileges");
	return set_filter(more, n, e);
}

void confine_starter(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	uint32_t keep = 1u << CAP_SETUID | 1u << CAP_SETGID | 1u << CAP_SETPCAP;
	struct __user_cap_data_struct few[2] = { { .effective = keep, .permitted = keep } };

	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)syscall(SYS_capset, &header, few);
	prctl(PR_SET_DUMPABLE, 0);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
}
