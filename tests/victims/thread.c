// SPDX-License-Identifier: GPL-2.0-or-later
/* thread.c - victims about threads: names, ids, thread-local storage, robust lists, rseq, alternate stacks, coming and going */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/rseq.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "victim.h"

#define N 16

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t started;
static bool go_on;

static void wait_for_check(void)
{
	pthread_mutex_lock(&lock);
	while (!go_on)
		pthread_cond_wait(&wake, &lock);
	pthread_mutex_unlock(&lock);
}

static void let_go(void)
{
	pthread_mutex_lock(&lock);
	go_on = true;
	pthread_cond_broadcast(&wake);
	pthread_mutex_unlock(&lock);
	join_all();
}

/* ---- identity ---- */

static _Thread_local uint64_t tls_word = 77;
static _Thread_local char tls_block[10000];

static void thread_snapshot(struct text *t)
{
	char name[17] = "", path[64];
	void *robust;
	size_t robust_len;
	int *tid_address = NULL;

	pthread_getname_np(pthread_self(), name, sizeof(name));
	syscall(SYS_get_robust_list, 0, &robust, &robust_len);
	prctl(PR_GET_TID_ADDRESS, &tid_address);
	snprintf(path, sizeof(path), "/proc/self/task/%ld/comm", syscall(SYS_gettid));
	text_add(t, "tid %ld of %d, name %s, self %lx, robust list %p (%zu), tid address %p, tls %p %llu %llx\n", syscall(SYS_gettid), getpid(),
		 name, pthread_self(), robust, robust_len, (void *)tid_address, (void *)&tls_word, (unsigned long long)tls_word,
		 *(unsigned long long *)(tls_block + 800));
	text_file(t, path, NULL);
}

static void *ident_thread(void *arg)
{
	struct text before = { 0 }, after = { 0 };
	char name[16];

	snprintf(name, sizeof(name), "worker-%lu%%)\"", (unsigned long)arg);
	pthread_setname_np(pthread_self(), name);
	tls_word = mix((uintptr_t)arg);
	fill(tls_block, sizeof(tls_block), (uintptr_t)arg);
	thread_snapshot(&before);
	pthread_barrier_wait(&started);
	wait_for_check();
	thread_snapshot(&after);
	expect_text("thread", before.s, after.s);
	verify("thread-local storage", tls_block, sizeof(tls_block) & ~7ul, (uintptr_t)arg);
	return NULL;
}

static struct text main_before;

static void ident_setup(void)
{
	pthread_barrier_init(&started, NULL, N + 1);
	prctl(PR_SET_NAME, "main (x) y");
	for (uintptr_t i = 0; i < N; i++)
		spawn(ident_thread, (void *)i, NULL);
	pthread_barrier_wait(&started);
	thread_snapshot(&main_before);
}

static void ident_check(void)
{
	struct text after = { 0 };

	thread_snapshot(&after);
	expect_text("main thread", main_before.s, after.s);
	let_go(); /* joins: needs the tid address of each thread */
}

VICTIM(thread_ident, 0, ident_setup, NULL, ident_check);

/* ---- where keys go that a thread asks for (KEYCTL_SET_REQKEY_KEYRING) ---- */

static pid_t keyring_child;
static int keyring_ask[2];

static long keys_go(int where)
{
	return syscall(SYS_keyctl, KEYCTL_SET_REQKEY_KEYRING, where);
}

/* The first threads set one of their own, the others have the main thread's. */
static int keyring_of(uintptr_t i)
{
	return i <= KEY_REQKEY_DEFL_USER_SESSION_KEYRING ? (int)i : KEY_REQKEY_DEFL_USER_KEYRING;
}

static void *keyring_thread(void *arg)
{
	uintptr_t i = (uintptr_t)arg;

	if (i <= KEY_REQKEY_DEFL_USER_SESSION_KEYRING)
		must(keys_go(keyring_of(i)) >= 0);
	pthread_barrier_wait(&started);
	wait_for_check();
	expect_u64("a thread's keyring for keys asked for", (uint64_t)keyring_of(i), (uint64_t)keys_go(KEY_REQKEY_DEFL_NO_CHANGE));
	return NULL;
}

static _Noreturn void keyring_fork(void)
{
	char c;

	must(keys_go(KEY_REQKEY_DEFL_THREAD_KEYRING) >= 0);
	_exit(read(keyring_ask[0], &c, 1) == 1 ? (int)keys_go(KEY_REQKEY_DEFL_NO_CHANGE) : 99);
}

static void keyring_setup(void)
{
	pthread_barrier_init(&started, NULL, N + 1);
	must(!pipe2(keyring_ask, O_CLOEXEC));
	must(keys_go(KEY_REQKEY_DEFL_USER_KEYRING) >= 0);
	keyring_child = fork();
	must(keyring_child >= 0);
	if (!keyring_child)
		keyring_fork();
	for (uintptr_t i = 0; i < N; i++)
		spawn(keyring_thread, (void *)i, NULL);
	pthread_barrier_wait(&started);
}

static void keyring_check(void)
{
	int status;

	expect_u64("the main thread's keyring for keys asked for", KEY_REQKEY_DEFL_USER_KEYRING, (uint64_t)keys_go(KEY_REQKEY_DEFL_NO_CHANGE));
	let_go();
	must(write(keyring_ask[1], "?", 1) == 1);
	expect(waitpid(keyring_child, &status, 0) == keyring_child && WIFEXITED(status));
	expect_u64("a child's keyring for keys asked for", KEY_REQKEY_DEFL_THREAD_KEYRING, (uint64_t)WEXITSTATUS(status));
}

VICTIM(thread_keyring, 0, keyring_setup, NULL, keyring_check);

/* ---- robust mutexes ---- */

static pthread_mutex_t robust[N];

static void *robust_thread(void *arg)
{
	pthread_mutex_lock(&robust[(uintptr_t)arg]);
	pthread_barrier_wait(&started);
	wait_for_check();
	return NULL; /* dies with the mutex held */
}

static void robust_setup(void)
{
	pthread_mutexattr_t attr;

	pthread_barrier_init(&started, NULL, N + 1);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	for (uintptr_t i = 0; i < N; i++)
		pthread_mutex_init(&robust[i], &attr);
	for (uintptr_t i = 0; i < N; i++)
		spawn(robust_thread, (void *)i, NULL);
	pthread_barrier_wait(&started);
}

static void robust_check(void)
{
	for (int i = 0; i < N; i++)
		expect_u64("trylock of a held mutex", EBUSY, (uint64_t)pthread_mutex_trylock(&robust[i]));
	let_go();
	for (int i = 0; i < N; i++) {
		struct timespec soon;

		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_sec += 3;
		expect_u64("lock of a dead thread's robust mutex", EOWNERDEAD, (uint64_t)pthread_mutex_timedlock(&robust[i], &soon));
	}
}

VICTIM(thread_robust, 0, robust_setup, NULL, robust_check);

/* ---- restartable sequences ---- */

#define CPUS 256
static struct {
	volatile uint64_t count;
	uint64_t pad[7];
} per_cpu[CPUS] __attribute__((aligned(64)));
static uint64_t rseq_done[64], rseq_aborts;

/* per_cpu[cpu] + 1 with a long window between load and store; false when the kernel sent us to the abort handler. */
static bool rseq_increment(struct rseq *rs, volatile uint64_t *word, uint32_t cpu)
{
	asm goto(".pushsection __rseq_cs, \"aw\"\n.balign 32\n"
		 "3: .long 0, 0\n.quad 1f, 2f - 1f, 4f\n.popsection\n"
		 "leaq 3b(%%rip), %%rax\nmovq %%rax, 8(%[rs])\n"
		 "1: cmpl %[cpu], 4(%[rs])\njne 4f\n"
		 "movq (%[word]), %%rax\nmovl $200, %%ecx\n"
		 "5: decl %%ecx\njnz 5b\n"
		 "incq %%rax\nmovq %%rax, (%[word])\n"
		 "2:\n"
		 ".pushsection __rseq_failure, \"ax\"\n.byte 0x0f, 0xb9, 0x3d\n.long 0x53053053\n"
		 "4: jmp %l[aborted]\n.popsection\n"
		 : : [rs] "r"(rs), [word] "r"(word), [cpu] "r"(cpu) : "rax", "rcx", "memory", "cc" : aborted);
	return true;
aborted:
	return false;
}

static void *rseq_thread(void *arg)
{
	struct rseq *rs = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	uintptr_t me = (uintptr_t)arg;
	uint64_t mismatches = 0, rounds = 0;

	while (!victim_stopping && !failed()) {
		uint32_t cpu = rs->cpu_id_start;
		unsigned real;

		must(cpu < CPUS);
		if (rseq_increment(rs, &per_cpu[cpu].count, cpu))
			rseq_done[me]++;
		else
			__atomic_add_fetch(&rseq_aborts, 1, __ATOMIC_RELAXED);
		if (++rounds % 64)
			continue;
		syscall(SYS_getcpu, &real, NULL, NULL);
		mismatches = rs->cpu_id == real ? 0 : mismatches + 1;
		if (mismatches > 1000)
			fail("rseq cpu_id of thread %lu, expected %u, got %u, 1000 times in a row", (unsigned long)me, real, rs->cpu_id);
	}
	return NULL;
}

static void rseq_setup(void)
{
	must(__rseq_size >= 20);
	for (uintptr_t i = 0; i < 8; i++)
		spawn(rseq_thread, (void *)i, NULL);
}

static void rseq_check(void)
{
	uint64_t sum = 0, done = 0;

	join_all();
	for (int i = 0; i < CPUS; i++)
		sum += per_cpu[i].count;
	for (int i = 0; i < 64; i++)
		done += rseq_done[i];
	expect_u64("sum of the per-CPU counters", done, sum);
	report("info rseq_increments=%llu aborts=%llu", (unsigned long long)done, (unsigned long long)rseq_aborts);
}

VICTIM(thread_rseq, 0, rseq_setup, NULL, rseq_check);

/* ---- alternate stacks ---- */

static _Thread_local char *alt;
static _Thread_local volatile int handled_on_alt;
#define ALT_LEN 65536ul

static void on_usr(int sig)
{
	char here;

	handled_on_alt = &here >= alt && &here < alt + ALT_LEN ? 1 : 2;
}

static void alt_install(stack_t *ret)
{
	stack_t ss = { 0 };

	alt = map_anon(ALT_LEN, PROT_READ | PROT_WRITE, 0);
	ss.ss_sp = alt;
	ss.ss_size = ALT_LEN;
	must(!sigaltstack(&ss, NULL));
	must(!sigaltstack(NULL, ret));
}

static void alt_verify(const stack_t *before)
{
	stack_t after = { 0 };

	expect(!sigaltstack(NULL, &after));
	expect_u64("alternate stack", (uintptr_t)before->ss_sp, (uintptr_t)after.ss_sp);
	expect_u64("size of the alternate stack", before->ss_size, after.ss_size);
	expect_u64("flags of the alternate stack", (uint64_t)before->ss_flags, (uint64_t)after.ss_flags);
	handled_on_alt = 0;
	pthread_kill(pthread_self(), SIGUSR1);
	expect_u64("handler ran (1: on the alternate stack)", 1, (uint64_t)handled_on_alt);
}

static void *alt_thread(void *arg)
{
	sigset_t usr;
	stack_t before;

	sigemptyset(&usr);
	sigaddset(&usr, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &usr, NULL);
	alt_install(&before);
	pthread_barrier_wait(&started);
	wait_for_check();
	alt_verify(&before);
	return NULL;
}

static stack_t main_alt;

static void altstack_setup(void)
{
	struct sigaction sa = { .sa_handler = on_usr, .sa_flags = SA_ONSTACK };

	must(!sigaction(SIGUSR1, &sa, NULL));
	pthread_barrier_init(&started, NULL, N + 1);
	alt_install(&main_alt);
	for (uintptr_t i = 0; i < N; i++)
		spawn(alt_thread, (void *)i, NULL);
	pthread_barrier_wait(&started);
}

static void altstack_check(void)
{
	alt_verify(&main_alt);
	let_go();
}

VICTIM(thread_altstack, 0, altstack_setup, NULL, altstack_check);

/* Moved while a handler runs on the alternate stack: its return restores what the frame says. */
static volatile int spin_handler, handler_left;
static volatile uint64_t handler_sum;

static void on_usr_long(int sig)
{
	uint64_t local[64];

	fill(local, sizeof(local), 5);
	spin_handler = 1;
	while (!victim_stopping) {
		verify("stack of a running handler", local, sizeof(local), 5);
		handler_sum++;
	}
	handler_left = 1;
}

static void *in_handler_thread(void *arg)
{
	stack_t before, after = { 0 };
	sigset_t usr, mask_before, mask_after;

	sigemptyset(&usr);
	sigaddset(&usr, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &usr, NULL);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
	alt_install(&before);
	pthread_kill(pthread_self(), SIGUSR1);
	pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
	expect(!memcmp(&mask_before, &mask_after, sizeof(mask_after)));
	expect(!sigaltstack(NULL, &after));
	expect_u64("alternate stack after the handler", (uintptr_t)before.ss_sp, (uintptr_t)after.ss_sp);
	return NULL;
}

static void in_handler_setup(void)
{
	struct sigaction sa = { .sa_handler = on_usr_long, .sa_flags = SA_ONSTACK };

	must(!sigaction(SIGUSR1, &sa, NULL));
	spawn(in_handler_thread, NULL, NULL);
	while (!spin_handler)
		usleep(1000);
}

static void in_handler_check(void)
{
	join_all();
	expect(handler_left);
}

VICTIM(thread_in_handler, 0, in_handler_setup, NULL, in_handler_check);

/* ---- threads that come and go during the capture ---- */

static void *short_thread(void *arg)
{
	return (void *)mix((uintptr_t)arg);
}

static void *spawner(void *arg)
{
	uint64_t n = (uintptr_t)arg * 1000000;

	while (!victim_stopping && !failed()) {
		pthread_attr_t attr;
		pthread_t t;
		void *got;
		int err;

		pthread_attr_init(&attr);
		pthread_attr_setstacksize(&attr, 65536);
		err = pthread_create(&t, &attr, short_thread, (void *)++n);
		if (err) {
			fail("pthread_create, expected 0, got %s", strerror(err));
			return NULL;
		}
		pthread_join(t, &got);
		expect_u64("result of a short thread", mix(n), (uintptr_t)got);
		usleep(500);
	}
	return NULL;
}

static void spawners_setup(void)
{
	for (uintptr_t i = 0; i < 3; i++)
		spawn(spawner, (void *)i, NULL);
}

VICTIM(thread_spawn, 0, spawners_setup, NULL, join_all);

/* ---- a thread that the destination has to make anew in the freeze, since more has changed in it than can be told ahead ---- */

#define USUAL_SLACK 77000

static volatile int unusual_ready;

static void *unusual(void *arg)
{
	must(!prctl(PR_SET_TIMERSLACK, USUAL_SLACK + (uintptr_t)arg) && !prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	if (arg)
		must(!prctl(PR_SET_TIMERSLACK, 0)); /* the default again */
	__atomic_add_fetch(&unusual_ready, 1, __ATOMIC_SEQ_CST);
	while (!victim_stopping)
		usleep(10000);
	expect_u64("timer slack", arg ? 50000 : USUAL_SLACK, (uint64_t)prctl(PR_GET_TIMERSLACK));
	return NULL;
}

static void unusual_setup(void)
{
	spawn(unusual, NULL, NULL);
	spawn(unusual, (void *)1, NULL);
	while (unusual_ready < 2)
		usleep(1000);
}

VICTIM(thread_slack, 0, unusual_setup, NULL, join_all);

/* ---- threads with a working directory and an umask of their own ---- */

static const char *const homes[] = { "/usr/bin", "/", "/etc" };
static volatile int settled;

static void *settler(void *arg)
{
	const char *home = arg;
	char path[64] = "";

	must(!unshare(CLONE_FS) && !chdir(home));
	umask((mode_t)strlen(home));
	__atomic_add_fetch(&settled, 1, __ATOMIC_SEQ_CST);
	wait_for_check();
	expect(getcwd(path, sizeof(path)) != NULL);
	expect_text("directory of a thread", home, path);
	expect_u64("umask of a thread", strlen(home), umask(0));
	must(!chdir("/dev"));
	return NULL;
}

static void settlers_setup(void)
{
	must(!chdir("/usr/lib"));
	umask(0127);
	for (int i = 0; i < 3; i++)
		spawn(settler, (void *)(uintptr_t)homes[i], NULL);
	while (settled < 3)
		usleep(1000);
}

static void settlers_check(void)
{
	char path[64] = "";

	let_go();
	expect(getcwd(path, sizeof(path)) != NULL);
	expect_text("directory of the process", "/usr/lib", path);
	expect_u64("umask of the process", 0127, umask(0));
}

VICTIM(thread_directories, 0, settlers_setup, NULL, settlers_check);

/* Two that have left the others have theirs in common. */
static void *bystander(void *arg)
{
	wait_for_check();
	return arg;
}

static void *leader(void *arg)
{
	must(!unshare(CLONE_FS));
	spawn(bystander, NULL, NULL);
	settled++;
	wait_for_check();
	return arg;
}

static void couple_setup(void)
{
	spawn(leader, NULL, NULL);
	while (!settled)
		usleep(1000);
}

VICTIM_TEXT(victim_refuse_directories, "refuse_directories", couple_setup, NULL, let_go, V_REFUSED, "working directory in common");

/* ---- locks under contention: futexes that wake and wait all the time ---- */

static uint64_t contended;

static void *contender(void *arg)
{
	uint64_t mine = 0;

	while (!victim_stopping && !failed()) {
		pthread_mutex_lock(&lock);
		contended++;
		if (mine % 8 == 0)
			pthread_cond_signal(&wake);
		if (mine % 64 == 1) {
			struct timespec soon;

			clock_gettime(CLOCK_REALTIME, &soon);
			soon.tv_nsec += 2000000;
			if (soon.tv_nsec >= 1000000000) {
				soon.tv_nsec -= 1000000000;
				soon.tv_sec++;
			}
			pthread_cond_timedwait(&wake, &lock, &soon);
		}
		pthread_mutex_unlock(&lock);
		mine++;
	}
	__atomic_add_fetch((uint64_t *)arg, mine, __ATOMIC_SEQ_CST);
	return NULL;
}

static uint64_t contender_sum;

static void contend_setup(void)
{
	for (int i = 0; i < 6; i++)
		spawn(contender, &contender_sum, NULL);
}

static void contend_check(void)
{
	join_all();
	expect_u64("increments under a mutex", contender_sum, contended);
}

VICTIM(thread_contend, 0, contend_setup, NULL, contend_check);
