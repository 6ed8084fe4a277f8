// SPDX-License-Identifier: GPL-2.0-or-later
/* ident.c - victims about what a process is to the kernel: ids, credentials, limits, prctl state, scheduling, /proc files */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/membarrier.h>
#include <linux/mempolicy.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "victim.h"

static struct text before;

static void add_link(struct text *t, const char *path)
{
	char target[4096] = "";

	if (readlink(path, target, sizeof(target) - 1) < 0)
		snprintf(target, sizeof(target), "(errno %d)", errno);
	text_add(t, "%s -> %s\n", path, target);
}

static void add_status(struct text *t)
{
	static const char *lines[] = { "Name:", "Umask:", "Tgid:", "Pid:", "TracerPid:", "Uid:", "Gid:", "FDSize", "Groups:", "Threads:", "SigPnd:", "ShdPnd:",
				       "SigBlk:", "SigIgn:", "SigCgt:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:",
				       "Speculation_Store_Bypass:", "SpeculationIndirectBranch:", "THP_enabled:", "CoreDumping:", NULL };

	lines[7] = "Groups:"; /* the descriptor table's size is the kernel's affair */
	text_file(t, "/proc/self/status", lines);
}

static void add_limits(struct text *t)
{
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit r;

		if (!getrlimit((__rlimit_resource_t)i, &r))
			text_add(t, "limit %d: %llu %llu\n", i, (unsigned long long)r.rlim_cur, (unsigned long long)r.rlim_max);
	}
}

static void add_prctl(struct text *t)
{
	static const struct {
		int op;
		const char *name;
		bool by_pointer;
	} ops[] = {
		{ PR_GET_DUMPABLE, "dumpable", false },	      { PR_GET_PDEATHSIG, "death signal", true },
		{ PR_GET_CHILD_SUBREAPER, "subreaper", true }, { PR_GET_THP_DISABLE, "thp disable", false },
		{ PR_GET_TIMERSLACK, "timer slack", false },  { PR_GET_KEEPCAPS, "keepcaps", false },
		{ PR_GET_SECUREBITS, "securebits", false },   { PR_GET_NO_NEW_PRIVS, "no_new_privs", false },
		{ PR_GET_TIMING, "timing", false },	      { PR_MCE_KILL_GET, "mce", false },
		{ PR_GET_TSC, "tsc", true },		      { PR_GET_IO_FLUSHER, "io flusher", false },
	};
	char name[17] = "";

	prctl(PR_GET_NAME, name);
	text_add(t, "name %s\n", name);
	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
		int value = 0;
		long ret = prctl(ops[i].op, ops[i].by_pointer ? (unsigned long)&value : 0, 0, 0, 0);

		text_add(t, "prctl %s: %ld %d\n", ops[i].name, ret < 0 ? -errno : ret, value);
	}
	text_add(t, "personality %#x\n", (unsigned)personality(0xffffffff));
}

static void add_sched(struct text *t)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
		uint32_t util_min, util_max;
	} attr = { 0 };
	cpu_set_t set;

	CPU_ZERO(&set);
	syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0);
	text_add(t, "policy %u flags %#llx nice %d priority %u, slack %d\n", attr.policy, (unsigned long long)attr.flags, attr.nice, attr.priority,
		 prctl(PR_GET_TIMERSLACK));
	if (attr.policy == SCHED_DEADLINE)
		text_add(t, "deadline %llu %llu %llu\n", (unsigned long long)attr.runtime, (unsigned long long)attr.deadline, (unsigned long long)attr.period);
	sched_getaffinity(0, sizeof(set), &set);
	text_add(t, "nice by getpriority %d, affinity %#lx, ioprio %#lx\n", getpriority(PRIO_PROCESS, 0), set.__bits[0],
		 syscall(SYS_ioprio_get, 1, 0));
}

static char *bound; /* a mapping with a policy of its own */

static void add_policy(struct text *t, const char *what, void *address)
{
	unsigned long nodes[16] = { 0 };
	int mode = -1;
	long ret = syscall(SYS_get_mempolicy, &mode, nodes, sizeof(nodes) * 8, address, address ? MPOL_F_ADDR : 0);

	text_add(t, "NUMA policy of %s: %ld %#x %#lx\n", what, ret, (unsigned)mode, nodes[0]);
}

/* What came late to the kernel, or is told by others. */
static void add_more(struct text *t)
{
	static const char *lines[] = { "/autogroup", NULL };
	struct text autogroup = { 0 };
	char key[256] = "";

	text_add(t, "write or execute %ld, merge %ld\n", syscall(SYS_prctl, 66 /* PR_GET_MDWE */, 0, 0, 0, 0), syscall(SYS_prctl, 68 /* PR_GET_MEMORY_MERGE */, 0, 0, 0, 0));
	add_policy(t, "the thread", NULL);
	if (bound)
		add_policy(t, "the mapping", bound);
	text_file(&autogroup, "/proc/self/autogroup", lines);
	if (autogroup.s && strstr(autogroup.s, " nice "))
		text_add(t, "autogroup%s", strstr(autogroup.s, " nice "));
	free(autogroup.s);
	if (syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, key, sizeof(key) - 1) > 0)
		text_add(t, "session keyring %s\n", strrchr(key, ';') ? strrchr(key, ';') : key);
}

static void add_everything(struct text *t)
{
	add_status(t);
	add_limits(t);
	add_prctl(t);
	add_sched(t);
	add_more(t);
	text_add(t, "pid %d tid %ld, brk %p\n", getpid(), syscall(SYS_gettid), sbrk(0));
	add_link(t, "/proc/self/cwd");
	add_link(t, "/proc/self/exe");
	add_link(t, "/proc/self/root");
	text_file(t, "/proc/self/cmdline", NULL);
	text_file(t, "/proc/self/environ", NULL);
	text_file(t, "/proc/self/auxv", NULL);
	text_file(t, "/proc/self/comm", NULL);
	text_file(t, "/proc/self/oom_score_adj", NULL);
	text_file(t, "/proc/self/coredump_filter", NULL);
	text_file(t, "/proc/self/loginuid", NULL);
}

static void snapshot_now(void)
{
	static struct text warm;

	add_everything(&warm); /* so that the heap has grown already */
	before.s = malloc(4 * warm.len + 65536);
	before.cap = 4 * warm.len + 65536;
	must(before.s);
	before.len = 0;
	add_everything(&before);
}

static void compare_now(void)
{
	static struct text after;

	add_everything(&after);
	/* the break may move for this text's own memory */
	for (char *p = before.s; (p = strstr(p, "brk ")); p++)
		memset(p, 'x', strcspn(p, "\n"));
	for (char *p = after.s; (p = strstr(p, "brk ")); p++)
		memset(p, 'x', strcspn(p, "\n"));
	expect_text("process state", before.s, after.s);
}

static void plain_setup(void)
{
	setenv("VICTIM_EXTRA", "changed after the start", 1);
	snapshot_now();
}

VICTIM(ident_plain, 0, plain_setup, NULL, compare_now);

static void creds_setup(void)
{
	gid_t groups[] = { 5, 1007, 70000, 4294967294u };

	must(!setgroups(4, groups));
	must(!setresgid(1001, 1002, 1003));
	must(!setresuid(2001, 2002, 2003));
	umask(0137);
	snapshot_now();
}

VICTIM(ident_creds, V_KEEP_OUT, creds_setup, NULL, compare_now);

static void user_setup(void)
{
	must(!setgroups(0, NULL));
	must(!setresgid(65534, 65534, 65534));
	must(!setresuid(65534, 65534, 65534));
	snapshot_now();
}

VICTIM(ident_user, V_KEEP_OUT, user_setup, NULL, compare_now);

static void caps_setup(void)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2] = { 0 };
	uint32_t keep = 1u << CAP_SETPCAP | 1u << CAP_NET_ADMIN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_SYS_NICE;

	must(!prctl(PR_CAPBSET_DROP, CAP_SYS_TIME) && !prctl(PR_CAPBSET_DROP, CAP_MKNOD));
	must(!prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT));
	must(!setresuid(1234, 1234, 1234));
	d[0].permitted = keep;
	d[0].effective = 1u << CAP_DAC_OVERRIDE;
	d[0].inheritable = 1u << CAP_NET_ADMIN;
	must(!syscall(SYS_capset, &h, d));
	must(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0));
	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	snapshot_now();
}

VICTIM(ident_caps, V_KEEP_OUT, caps_setup, NULL, compare_now);

static void limits_setup(void)
{
	struct rlimit r;

	for (int i = 0; i < RLIM_NLIMITS; i++) {
		must(!getrlimit((__rlimit_resource_t)i, &r));
		if (i == RLIMIT_AS || i == RLIMIT_DATA || i == RLIMIT_CPU || i == RLIMIT_STACK || i == RLIMIT_RTTIME)
			continue;
		if (r.rlim_cur == RLIM_INFINITY || r.rlim_cur > 1000)
			r.rlim_cur = (i == RLIMIT_NPROC || i == RLIMIT_FSIZE ? 1000000u : 500u) + (unsigned)i;
		if (r.rlim_max == RLIM_INFINITY && i != RLIMIT_NICE)
			r.rlim_max = 7000000u + (unsigned)i;
		if (r.rlim_cur > r.rlim_max)
			r.rlim_cur = r.rlim_max;
		must(!setrlimit((__rlimit_resource_t)i, &r));
	}
	snapshot_now();
}

VICTIM(ident_limits, 0, limits_setup, NULL, compare_now);

static void cwd_setup(void)
{
	char dir[8192];

	umask(0027);
	snprintf(dir, sizeof(dir), "%s", beside("cwd"));
	must(!mkdir(dir, 0755) && !chdir(dir));
	snapshot_now();
}

static void cwd_check(void)
{
	int fd;
	struct stat st;

	compare_now();
	fd = open("made-after-the-move", O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
	expect(fd >= 0);
	expect(!fstat(fd, &st));
	expect_u64("mode under the umask", 0640, st.st_mode & 0777);
	expect(!unlink("made-after-the-move"));
}

VICTIM(ident_cwd, 0, cwd_setup, NULL, cwd_check);

static void root_setup(void)
{
	char dir[8192];

	snprintf(dir, sizeof(dir), "%s", beside("root"));
	must(!mkdir(dir, 0755) && !chdir(dir) && !mkdir("inside", 0755) && !chroot(".") && !chdir("/inside"));
}

static void root_check(void)
{
	char cwd[256];

	expect(getcwd(cwd, sizeof(cwd)) != NULL);
	expect_text("working directory below a changed root", "/inside", cwd);
	expect(!access("/inside", F_OK));
	expect(access("/proc", F_OK) < 0);
	expect(!chdir("/") && !rmdir("/inside"));
}

VICTIM(ident_root, V_KEEP_OUT, root_setup, NULL, root_check);

static void personality_setup(void)
{
	must(personality(ADDR_NO_RANDOMIZE | SHORT_INODE | PER_LINUX) >= 0);
	snapshot_now();
}

VICTIM(ident_personality, 0, personality_setup, NULL, compare_now);

static void prctl_setup(void)
{
	must(!prctl(PR_SET_NAME, "new\tname )("));
	must(!prctl(PR_SET_DUMPABLE, 0) && !prctl(PR_SET_PDEATHSIG, SIGUSR2));
	must(!prctl(PR_SET_CHILD_SUBREAPER, 1) && !prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	must(!prctl(PR_SET_TIMERSLACK, 123456) && !prctl(PR_SET_KEEPCAPS, 1));
	must(!prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
	snapshot_now();
}

VICTIM(ident_prctl, 0, prctl_setup, NULL, compare_now);

static void write_own(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void memory_setup(void)
{
	const unsigned long node = 1;

	bound = map_anon(1 << 20, PROT_READ | PROT_WRITE, 0);
	fill(bound, 1 << 20, 12);
	must(!syscall(SYS_mbind, bound, 1 << 20, MPOL_BIND | MPOL_F_STATIC_NODES, &node, 8 * sizeof(node), 0));
	must(!syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &node, 8 * sizeof(node)));
	must(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "of a victim") > 0);
	write_own("/proc/self/autogroup", "5");
	syscall(SYS_prctl, 67 /* PR_SET_MEMORY_MERGE */, 1, 0, 0, 0);
	must(!syscall(SYS_prctl, 65 /* PR_SET_MDWE */, 1, 0, 0, 0)); /* last: what is mapped from here on is writable or executable */
	snapshot_now();
}

static void memory_work(void)
{
	bound[123] ^= 1;
	bound[123] ^= 1;
	usleep(100);
}

static void memory_check(void)
{
	compare_now();
	verify("memory with a NUMA policy", bound, 1 << 20, 12);
	expect(mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EACCES);
}

VICTIM(ident_memory, 0, memory_setup, memory_work, memory_check);

static void oom_setup(void)
{
	write_own("/proc/self/oom_score_adj", "555");
	write_own("/proc/self/coredump_filter", "0x17");
	snapshot_now();
}

VICTIM(ident_oom, 0, oom_setup, NULL, compare_now);

/* ---- registrations for membarrier(2) ---- */

static long membarrier(int command)
{
	return syscall(SYS_membarrier, command, 0, 0);
}

static long registered;

static void membarrier_setup(void)
{
	must(!membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) && !membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) &&
	     !membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ));
	registered = membarrier(1 << 9); /* MEMBARRIER_CMD_GET_REGISTRATIONS */
	must(registered > 0);
}

static void membarrier_check(void)
{
	expect(!membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED));
	expect(!membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ));
	expect(membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) < 0);
	expect_u64("registrations for membarrier", (uint64_t)registered, (uint64_t)membarrier(1 << 9));
}

VICTIM(ident_membarrier, 0, membarrier_setup, NULL, membarrier_check);

/* ---- who logged in ---- */

static void loginuid_setup(void)
{
	write_own("/proc/self/loginuid", "1717");
	snapshot_now();
}

VICTIM(ident_loginuid, 0, loginuid_setup, NULL, compare_now);

static void nnp_setup(void)
{
	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	snapshot_now();
}

VICTIM(ident_nnp, 0, nnp_setup, NULL, compare_now);

/* ---- scheduling, for each thread ---- */

static pthread_barrier_t ready_barrier;
static volatile int compared; /* the threads are among what is compared: none may end before that */

static void *sched_thread(void *arg)
{
	static const int policies[] = { SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_RR, SCHED_FIFO, SCHED_OTHER, SCHED_OTHER };
	struct text mine = { 0 }, after = { 0 };
	int i = (int)(uintptr_t)arg, policy = policies[i];
	struct sched_param p = { .sched_priority = policy == SCHED_RR || policy == SCHED_FIFO ? 1 + i : 0 };
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(i % 2, &set);
	if (i != 6)
		sched_setaffinity(0, sizeof(set), &set);
	must(!sched_setscheduler(0, policy | (i == 4 ? SCHED_RESET_ON_FORK : 0), &p));
	if (policy == SCHED_OTHER || policy == SCHED_BATCH)
		must(!setpriority(PRIO_PROCESS, 0, i * 3 - 2));
	must(!syscall(SYS_ioprio_set, 1, 0, i == 3 ? 3 << 13 : i == 5 ? 1 << 13 | 4 : 2 << 13 | i));
	prctl(PR_SET_TIMERSLACK, 60000 + i);
	add_sched(&mine);
	pthread_barrier_wait(&ready_barrier);
	while (!compared)
		usleep(10000);
	add_sched(&after);
	expect_text("scheduling of a thread", mine.s, after.s);
	return NULL;
}

static void sched_setup(void)
{
	pthread_barrier_init(&ready_barrier, NULL, 8);
	for (uintptr_t i = 0; i < 7; i++)
		spawn(sched_thread, (void *)i, NULL);
	pthread_barrier_wait(&ready_barrier);
	must(!setpriority(PRIO_PROCESS, 0, 5));
	snapshot_now();
}

static void sched_check(void)
{
	compare_now();
	compared = 1;
	join_all();
}

/* A deadline reservation, and options of transparent huge pages that came later than the others. */
static void *deadline_thread(void *arg)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = { sizeof(attr), 6 /* SCHED_DEADLINE */, 2 /* SCHED_FLAG_RECLAIM */, 0, 0, 2000000, 15000000, 20000000 };
	struct text mine = { 0 }, after = { 0 };

	must(!syscall(SYS_sched_setattr, 0, &attr, 0));
	add_sched(&mine);
	pthread_barrier_wait(&ready_barrier);
	while (!compared)
		usleep(10000);
	add_sched(&after);
	expect_text("scheduling of a thread with a deadline", mine.s, after.s);
	return NULL;
}

static void deadline_setup(void)
{
	pthread_barrier_init(&ready_barrier, NULL, 2);
	spawn(deadline_thread, NULL, NULL);
	pthread_barrier_wait(&ready_barrier);
	prctl(PR_SET_THP_DISABLE, 1, 2 /* PR_THP_DISABLE_EXCEPT_ADVISED */, 0, 0);
	snapshot_now();
}

VICTIM(ident_deadline, 0, deadline_setup, NULL, sched_check);

VICTIM(ident_sched, 0, sched_setup, NULL, sched_check);
