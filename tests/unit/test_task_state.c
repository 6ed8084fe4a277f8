/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * test_task_state.c - capture of a process with unusual state, restore into a fresh one, capture of that: nothing differs
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/rseq.h>
#include <linux/securebits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/util.h"
#include "image/clocks.h"
#include "image/process.h"
#include "image/thread.h"
#include "inject_batch.h"

struct image {
	Gw__Process *process;
	Gw__Thread *thread;
};

static struct shared {
	volatile int ready;
	uint64_t robust[3];
} *shared;

static void must(int rc, const struct err *e)
{
	if (rc < 0)
		fail_msg("%s", e->message);
}

static void handler(int signo)
{
	(void)signo;
}

static void queue_signals(void)
{
	siginfo_t info = { .si_signo = SIGRTMIN + 3, .si_code = SI_QUEUE };
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < 40; i++) {
		info.si_value.sival_int = i * 7;
		syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGRTMIN + 3, &info);
	}
	info.si_signo = SIGUSR2;
	syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR2, &info);
	info.si_signo = SIGCHLD;
	info.si_code = CLD_EXITED;
	syscall(SYS_rt_sigqueueinfo, getpid(), SIGCHLD, &info);
	kill(getpid(), SIGHUP);
}

static void set_timers(void)
{
	struct itimerval it = { { 3, 0 }, { 1000, 0 } };
	struct itimerspec spec = { { 0, 70000000 }, { 5000, 5 } };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 5, .sigev_value.sival_int = 42 };
	int id;

	setitimer(ITIMER_REAL, &it, NULL);
	setitimer(ITIMER_PROF, &it, NULL);
	event._sigev_un._tid = gettid();
	for (int i = 0; i < 6; i++) {
		syscall(SYS_timer_create, i == 3 ? CLOCK_REALTIME : i == 4 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &event, &id);
		assert_int_equal(id, i);
		event.sigev_notify = i == 1 ? SIGEV_NONE : SIGEV_SIGNAL;
	}
	syscall(SYS_timer_delete, 1);
	for (int i = 2; i < 6; i++)
		syscall(SYS_timer_settime, i, 0, &spec, NULL);
}

static void set_credentials(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 1 << CAP_NET_RAW, 1 << CAP_NET_RAW | 1 << CAP_KILL, 1 << CAP_NET_RAW | 1 << CAP_SYS_CHROOT } };
	gid_t groups[] = { 5, 7, 70000 };

	prctl(PR_SET_SECUREBITS, 1 << SECURE_NO_SETUID_FIXUP);
	assert_int_equal(syscall(SYS_setgroups, 3, groups), 0);
	assert_int_equal(syscall(SYS_setresgid, 1001, 1002, 1003), 0);
	syscall(SYS_setfsgid, 1003);
	assert_int_equal(syscall(SYS_setresuid, 2001, 2002, 2003), 0);
	prctl(PR_CAPBSET_DROP, CAP_SYS_TIME);
	prctl(PR_SET_SECUREBITS, 1 << SECURE_NOROOT | 1 << SECURE_NO_SETUID_FIXUP | 1 << SECURE_KEEP_CAPS);
	assert_int_equal(syscall(SYS_capset, &header, data), 0);
	assert_int_equal(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0), 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
}

static void unusual(void)
{
	static char stack[65536];
	stack_t altstack = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK };
	struct rlimit limit = { 100, 200 };
	cpu_set_t cpus;
	FILE *f;

	setsid();
	umask(0137);
	if (chdir("/usr/lib") < 0)
		abort();
	setrlimit(RLIMIT_NOFILE, &limit);
	sigaction(SIGUSR1, &action, NULL);
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
	sigaltstack(&altstack, NULL);
	prctl(PR_SET_NAME, "odd name)");
	prctl(PR_SET_TIMERSLACK, 77777);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
	syscall(SYS_set_robust_list, shared->robust, 24);
	syscall(SYS_set_tid_address, &shared->robust[2]);
	setpriority(PRIO_PROCESS, 0, 7);
	syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6);
	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	f = fopen("/proc/self/oom_score_adj", "w");
	fprintf(f, "321");
	fclose(f);
	f = fopen("/proc/self/coredump_filter", "w");
	fprintf(f, "0x21");
	fclose(f);
	set_timers();
	queue_signals();
	set_credentials();
	prctl(PR_SET_DUMPABLE, 1);
}

static pid_t start(bool odd)
{
	pid_t pid;

	shared->ready = 0;
	pid = fork();
	if (pid == 0) {
		double x = 1.5;

		if (odd)
			unusual();
		shared->ready = 1;
		for (;;) {
			x *= 1.0000001;
			asm volatile("" : "+x"(x));
		}
	}
	assert_true(pid > 0);
	while (!shared->ready)
		sched_yield();
	inject_stop(pid);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void capture(pid_t pid, struct image *ret_image)
{
	struct err e = ERR_INIT;
	struct process_query pq;
	struct thread_query tq;
	struct batch *b = inject_batch(pid);
	Gw__Process *p = process_new(pid);
	Gw__Thread *t = thread_new(pid);
	uint8_t *data;
	size_t len;

	must(thread_capture_stopped(pid, t, &e), &e);
	must(process_capture_plan(b, &pq, pid, &e), &e);
	thread_capture_plan(b, &tq, NULL);
	must(batch_run(b, &e), &e);
	must(process_capture_collect(&pq, p, &e), &e);
	must(thread_capture_collect(&tq, t, &p->pending, true, &e), &e);
	process_query_close(&pq);
	inject_free(b);
	process_encode(p, &data, &len);
	must(process_decode(data, len, false, &ret_image->process, &e), &e);
	free(data);
	thread_encode(t, &data, &len);
	must(thread_decode(data, len, &ret_image->thread, &e), &e);
	free(data);
	gw__process__free_unpacked(p, NULL);
	gw__thread__free_unpacked(t, NULL);
}

static void image_free(struct image *image)
{
	gw__process__free_unpacked(image->process, NULL);
	gw__thread__free_unpacked(image->thread, NULL);
}

static void restore(pid_t pid, const struct image *image)
{
	struct err e = ERR_INIT;
	struct xstate_layout layout;
	struct batch *b = inject_batch(pid);
	Gw__Process *p = image->process;
	Gw__Thread *t = image->thread;
	struct present present;

	must(present_ask(b, &present, &e), &e);
	/* ids stay the same in a migration; here the second process has one of its own */
	p->pid = pid;
	for (size_t i = 0; i < p->n_timers; i++)
		if (p->timers[i]->notify & SIGEV_THREAD_ID)
			p->timers[i]->notify_tid = pid;
	process_plan_restore(b, p, PROCESS_EARLY, NULL, 0);
	must(thread_plan_restore(b, t, THREAD_MODES, &e), &e);
	process_plan_restore(b, p, PROCESS_THREADS, NULL, 0);
	must(thread_plan_restore(b, t, THREAD_CREDENTIALS, &e), &e);
	process_plan_restore(b, p, PROCESS_LATE, &(struct process_before){ p, &present }, 0);
	thread_plan_memory(b, t);
	signal_plan_queue(b, pid, pid, false, &t->pending);
	process_plan_restore(b, p, PROCESS_ARM, NULL, clock_process_ns(0));
	must(batch_run(b, &e), &e);
	must(process_restore_outside(pid, p, NULL, &e), &e);
	must(thread_restore_placement(pid, t, &e), &e);
	must(thread_restore_sched(pid, t, &e), &e);
	xstate_layout_of(p, &layout);
	must(thread_apply_registers(pid, t, &layout, &e), &e);
	present_free(&present);
	inject_free(b);
}

static void assert_bytes(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
	assert_int_equal(a.len, b.len);
	if (a.len)
		assert_memory_equal(a.data, b.data, a.len);
}

/* Pending signals of the two, apart from the ids of the sender. */
static void assert_queue(ProtobufCBinaryData a, ProtobufCBinaryData b)
{
	assert_int_equal(a.len, b.len);
	for (size_t i = 0; i < a.len; i += sizeof(siginfo_t)) {
		assert_memory_equal(a.data + i, b.data + i, 12);
		assert_memory_equal(a.data + i + 24, b.data + i + 24, 8);
	}
}

static void compare_process(const Gw__Process *a, const Gw__Process *b)
{
	assert_string_equal(a->cwd, b->cwd);
	assert_string_equal(a->root, b->root);
	assert_int_equal(a->umask, b->umask);
	assert_int_equal(a->personality, b->personality);
	assert_memory_equal(a->rlimits, b->rlimits, 8 * a->n_rlimits);
	assert_int_equal(a->oom_score_adj, b->oom_score_adj);
	assert_int_equal(a->coredump_filter, b->coredump_filter);
	assert_int_equal(a->dumpable, b->dumpable);
	assert_int_equal(a->child_subreaper, b->child_subreaper);
	assert_int_equal(a->thp_disable, b->thp_disable);
	assert_bytes(a->sigactions, b->sigactions);
	assert_queue(a->pending, b->pending);
	assert_int_equal(a->n_timers, b->n_timers);
	for (size_t i = 0; i < a->n_timers; i++) {
		const Gw__PosixTimer *x = a->timers[i], *y = b->timers[i];

		assert_int_equal(x->id, y->id);
		assert_int_equal(x->clock, y->clock);
		assert_int_equal(x->signal, y->signal);
		assert_int_equal(x->notify, y->notify);
		assert_int_equal(x->value, y->value);
		assert_int_equal(x->armed, y->armed);
		assert_int_equal(x->interval_ns, y->interval_ns);
		/* exact but for the two clocks not being read at the same moment */
		assert_true(llabs((long long)(x->expires_ns - y->expires_ns)) < 1000000000);
	}
	assert_true(llabs((long long)(a->itimer_real_expires_ns - b->itimer_real_expires_ns)) < 1000000000);
	assert_memory_equal(a->itimers.data, b->itimers.data, 16);
}

static void compare_credentials(const Gw__Credentials *a, const Gw__Credentials *b)
{
	uint8_t packed[2][4096];
	size_t len = gw__credentials__get_packed_size(a);

	assert_in_range(len, 1, sizeof(packed[0]));
	assert_int_equal(gw__credentials__get_packed_size(b), len);
	gw__credentials__pack(a, packed[0]);
	gw__credentials__pack(b, packed[1]);
	assert_memory_equal(packed[0], packed[1], len);
}

static void compare_thread(const Gw__Thread *a, const Gw__Thread *b)
{
	struct user_regs_struct x, y;

	memcpy(&x, a->regs.data, sizeof(x));
	memcpy(&y, b->regs.data, sizeof(y));
	assert_memory_equal(&x, &y, sizeof(x));
	assert_bytes(a->xstate, b->xstate);
	assert_string_equal(a->name, b->name);
	assert_int_equal(a->sigmask, b->sigmask);
	assert_queue(a->pending, b->pending);
	assert_int_equal(a->altstack_sp, b->altstack_sp);
	assert_int_equal(a->altstack_size, b->altstack_size);
	assert_int_equal(a->robust_list, b->robust_list);
	assert_int_equal(a->clear_tid, b->clear_tid);
	assert_bytes(a->sched_attr, b->sched_attr);
	assert_bytes(a->affinity, b->affinity);
	assert_int_equal(a->ioprio, b->ioprio);
	assert_int_equal(a->timer_slack_ns, b->timer_slack_ns);
	compare_credentials(a->credentials, b->credentials);
	assert_int_equal(a->no_new_privs, b->no_new_privs);
	assert_int_equal(a->pdeath_signal, b->pdeath_signal);
	assert_int_equal(a->mce_kill, b->mce_kill);
}

static void test_round_trip(void **state)
{
	struct image before, after;
	pid_t source = start(true), dest;

	(void)state;
	capture(source, &before);
	assert_int_equal(before.process->umask, 0137);
	assert_int_equal(before.process->n_timers, 5);
	assert_int_equal(before.thread->pending.len, 40 * sizeof(siginfo_t));
	assert_int_equal(before.process->pending.len, 3 * sizeof(siginfo_t));
	assert_string_equal(before.thread->name, "odd name)");
	assert_int_equal(before.thread->robust_list, (uint64_t)(uintptr_t)shared->robust);
	assert_int_equal(before.thread->credentials->n_groups, 3);
	end(source);
	dest = start(false);
	before.thread->rseq = 0; /* registered by the C library in both */
	restore(dest, &before);
	capture(dest, &after);
	compare_process(before.process, after.process);
	compare_thread(before.thread, after.thread);
	end(dest);
	image_free(&before);
	image_free(&after);
}

static bool refused(const struct refusals *r, const char *code)
{
	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->v[i].code, code) == 0)
			return true;
	return false;
}

static void test_outside(void **state)
{
	struct refusals r = { 0 };
	struct err e = ERR_INIT;
	pid_t pid = start(true);
	Gw__Process *p = process_new(pid);
	Gw__Thread *t = thread_new(pid);

	(void)state;
	must(process_capture_outside(pid, p, &r, &e), &e);
	must(thread_capture_outside(pid, pid, t, &r, &e), &e);
	assert_int_equal(r.n, 0); /* traced by this test: the caller may trace what it is going to move */
	must(process_validate(p, true, &e), &e);
	must(thread_validate(t, &e), &e);
	refusals_free(&r);
	process_validate_here(p, NULL, &r);
	thread_validate_here(t, &r);
	if (r.n)
		fail_msg("%s", refusals_text(&r));
	assert_int_equal(p->rlimits[2 * RLIMIT_NOFILE], 100);
	assert_string_equal(p->cwd, "/usr/lib");
	end(pid);
	gw__process__free_unpacked(p, NULL);
	gw__thread__free_unpacked(t, NULL);
}

static void test_refusals(void **state)
{
	struct refusals r = { 0 };
	struct err e = ERR_INIT;
	Gw__Process *p = process_new(0);
	pid_t child;

	(void)state;
	child = fork();
	if (child == 0)
		_exit(0);
	waitid(P_PID, (id_t)child, NULL, WEXITED | WNOWAIT);
	must(process_capture_outside(getpid(), p, &r, &e), &e);
	assert_true(refused(&r, "task.self"));
	refusals_free(&r);
	must(process_capture_outside(child, p, &r, &e), &e);
	assert_true(refused(&r, "task.dead"));
	refusals_free(&r);
	waitpid(child, NULL, 0);
	assert_int_equal(process_capture_outside(child, p, &r, &e), -ESRCH);
	gw__process__free_unpacked(p, NULL);
}

static void test_clocks(void **state)
{
	Gw__Clocks a = GW__CLOCKS__INIT, b = GW__CLOCKS__INIT;
	struct clock_offsets o;
	struct err e = ERR_INIT;
	uint64_t now;
	int status;
	pid_t pid;

	(void)state;
	must(clocks_read(0, &a, &e), &e);
	must(clocks_read(getpid(), &b, &e), &e);
	o = clock_offsets_for(&a, &b);
	assert_false(o.needed);
	b.boot_id[0] ^= 1;
	b.monotonic_ns = a.monotonic_ns + 1000000000;
	o = clock_offsets_for(&a, &b);
	assert_true(o.needed);
	assert_int_equal(o.monotonic_ns, a.monotonic_offset_ns - 1000000000);
	o.monotonic_ns = 86400000000123ll;
	o.boottime_ns = 99999000000456ll;
	pid = fork();
	if (pid == 0) {
		if (clock_enter_namespace(&o, &e) < 0)
			_exit(2);
		now = clock_process_ns(o.monotonic_ns);
		pid = fork();
		if (pid == 0) { /* lives there */
			int64_t ahead = (int64_t)(clock_ns(CLOCK_MONOTONIC) - now);

			_exit(ahead < 0 || ahead > 1000000000);
		}
		waitpid(pid, &status, 0);
		_exit(WEXITSTATUS(status));
	}
	waitpid(pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), 0);
	free(a.boot_id);
	free(b.boot_id);
}

static void test_rseq(void **state)
{
	static uint32_t handler_with_signature[2] = { 0x53053053, 0 };
	static struct rseq_cs cs;
	static struct rseq area;
	struct user_regs_struct regs = { .rip = 0x10010 };
	struct err e = ERR_INIT;
	Gw__Thread *t = thread_new(getpid());

	(void)state;
	assert_int_equal(rseq_abort_fix(getpid(), t, &regs, &e), 0); /* not registered */
	t->rseq = (uint64_t)(uintptr_t)&area;
	t->rseq_signature = 0x53053053;
	assert_int_equal(rseq_abort_fix(getpid(), t, &regs, &e), 0); /* in no sequence */
	cs = (struct rseq_cs){ .start_ip = 0x10000, .post_commit_offset = 0x20, .abort_ip = (uint64_t)(uintptr_t)&handler_with_signature[1] };
	area.rseq_cs = (uint64_t)(uintptr_t)&cs;
	assert_int_equal(rseq_abort_fix(getpid(), t, &regs, &e), 1);
	assert_int_equal(regs.rip, cs.abort_ip);
	assert_int_equal(area.rseq_cs, 0);
	area.rseq_cs = (uint64_t)(uintptr_t)&cs;
	regs.rip = 0x10020; /* committed */
	assert_int_equal(rseq_abort_fix(getpid(), t, &regs, &e), 0);
	assert_int_equal(regs.rip, 0x10020);
	assert_int_equal(area.rseq_cs, 0);
	area.rseq_cs = (uint64_t)(uintptr_t)&cs;
	regs.rip = 0x10000;
	t->rseq_signature = 1;
	assert_int_equal(rseq_abort_fix(getpid(), t, &regs, &e), -EINVAL);
	gw__thread__free_unpacked(t, NULL);
}

static void test_validation(void **state)
{
	Gw__Process *p = process_new(100), *ret_p;
	Gw__Thread *t = thread_new(100), *ret_t;
	struct err e = ERR_INIT;
	uint8_t *data;
	size_t len;

	(void)state;
	process_encode(p, &data, &len);
	assert_int_equal(process_decode(data, len, false, &ret_p, &e), -EBADMSG);
	assert_int_equal(process_decode("\xff\xff", 2, false, &ret_p, &e), -EBADMSG);
	free(data);
	thread_encode(t, &data, &len);
	assert_int_equal(thread_decode(data, len, &ret_t, &e), -EBADMSG);
	free(data);
	gw__process__free_unpacked(p, NULL);
	gw__thread__free_unpacked(t, NULL);
}

/* What a task has, as it says itself, is what it has inherited, and anything else is not that. */
static void test_present(void **state)
{
	struct present present = { 0 };
	Gw__Credentials c = GW__CREDENTIALS__INIT;
	pid_t pid = start(false);
	struct batch *b;
	struct err e = ERR_INIT;

	(void)state;
	b = inject_batch(pid);
	must(cred_capture_outside(pid, pid, &c, &e), &e);
	assert_false(present_has_credentials(&present, &c));
	assert_false(present_has_personality(NULL, 0));
	must(present_ask(b, &present, &e), &e);
	for (unsigned i = 0; i < PROCESS_RLIMITS; i++) {
		uint64_t limit[2];

		assert_int_equal(getrlimit(i, (struct rlimit *)limit), 0);
		assert_true(present_has_limit(&present, i, limit));
		limit[i % 2]--;
		assert_false(present_has_limit(&present, i, limit));
	}
	assert_true(present_has_personality(&present, (uint64_t)personality(0xffffffff)));
	assert_false(present_has_personality(&present, 1));
	assert_true(present_has_credentials(&present, &c));
	for (unsigned i = 0; i < 4; i++) {
		c.uids[i]++;
		assert_false(present_has_credentials(&present, &c));
		c.uids[i]--;
		c.gids[i]++;
		assert_false(present_has_credentials(&present, &c));
		c.gids[i]--;
	}
	c.securebits ^= 1;
	assert_false(present_has_credentials(&present, &c));
	c.securebits ^= 1;
	uint64_t *const caps[] = { &c.cap_permitted, &c.cap_effective, &c.cap_inheritable, &c.cap_bounding, &c.cap_ambient };
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++) {
		*caps[i] ^= 2;
		assert_false(present_has_credentials(&present, &c));
		*caps[i] ^= 2;
	}
	c.n_groups++;
	assert_false(present_has_credentials(&present, &c));
	present_free(&present);
	inject_free(b);
	free(c.uids);
	free(c.gids);
	free(c.groups);
	kill(pid, SIGKILL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_present),
		cmocka_unit_test(test_outside),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_rseq),
		cmocka_unit_test(test_validation),
	};

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	inject_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
