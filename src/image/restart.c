/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* restart.c - interrupted system calls; see restart.h */
#include "image/restart.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/clocks.h"

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define URING_ENTER_ABS_TIMER (1u << 5)
#define URING_ENTER_EXT_ARG_REG (1u << 6)
#define RED_ZONE 128
#define SYSCALL_LEN 2
#define LOWEST_ADDRESS 4096u
#define FUTEX_COMMAND(op) ((op) & 0x7f)
#define CPUCLOCK_SCHED 2
#define CPUCLOCK_PERTHREAD 4

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum timeout_form { TIMEOUT_NONE, TIMEOUT_MS, TIMEOUT_SPEC, TIMEOUT_URING };

/*
 * Calls that return EINTR when a thread is only stopped and goes on (signal(7), "Interruption of system calls and library functions by stop
 * signals"), and those that do so when a socket has a timeout, which the kernel takes anew each time.
 */
static const struct {
	uint32_t nr;
	enum timeout_form form;
	int arg;
} eintr_calls[] = {
	{ SYS_epoll_wait, TIMEOUT_MS, 3 },
	{ SYS_epoll_pwait, TIMEOUT_MS, 3 },
	{ SYS_epoll_pwait2, TIMEOUT_SPEC, 3 },
	{ SYS_rt_sigtimedwait, TIMEOUT_SPEC, 2 },
	{ SYS_semtimedop, TIMEOUT_SPEC, 3 },
	{ SYS_io_getevents, TIMEOUT_SPEC, 4 },
	{ SYS_io_pgetevents, TIMEOUT_SPEC, 4 },
	{ SYS_io_uring_enter, TIMEOUT_URING, 4 }, /* only one that has submitted nothing */
	{ SYS_semop, TIMEOUT_NONE, 0 },
	{ SYS_msgrcv, TIMEOUT_NONE, 0 },
	{ SYS_msgsnd, TIMEOUT_NONE, 0 },
	{ SYS_accept, TIMEOUT_NONE, 0 },
	{ SYS_accept4, TIMEOUT_NONE, 0 },
	{ SYS_connect, TIMEOUT_NONE, 0 },
	{ SYS_recvfrom, TIMEOUT_NONE, 0 },
	{ SYS_recvmsg, TIMEOUT_NONE, 0 },
	{ SYS_recvmmsg, TIMEOUT_NONE, 0 },
	{ SYS_sendto, TIMEOUT_NONE, 0 },
	{ SYS_sendmsg, TIMEOUT_NONE, 0 },
	{ SYS_sendmmsg, TIMEOUT_NONE, 0 },
	{ SYS_read, TIMEOUT_NONE, 0 },
	{ SYS_readv, TIMEOUT_NONE, 0 },
	{ SYS_write, TIMEOUT_NONE, 0 },
	{ SYS_writev, TIMEOUT_NONE, 0 },
	{ SYS_pselect6, TIMEOUT_NONE, 0 }, /* these two with their timeout in read-only memory or STICKY_TIMEOUTS */
	{ SYS_ppoll, TIMEOUT_NONE, 0 },
};

static unsigned long long *argument(struct user_regs_struct *regs, int i)
{
	switch (i) {
	case 0:
		return &regs->rdi;
	case 1:
		return &regs->rsi;
	case 2:
		return &regs->rdx;
	case 3:
		return &regs->r10;
	case 4:
		return &regs->r8;
	default:
		return &regs->r9;
	}
}

static int find_eintr(uint64_t nr)
{
	for (size_t i = 0; i < ARRAY_SIZE(eintr_calls); i++)
		if (eintr_calls[i].nr == nr)
			return (int)i;
	return -1;
}

struct restart_now restart_now_read(int64_t monotonic_offset_ns, int64_t boottime_offset_ns)
{
	return (struct restart_now){
		.monotonic_ns = clock_process_ns(monotonic_offset_ns),
		.boottime_ns = clock_process_boottime_ns(boottime_offset_ns),
		.realtime_ns = clock_ns(CLOCK_REALTIME),
		.tai_ns = clock_ns(CLOCK_TAI),
	};
}

static uint64_t now_on(const struct restart_now *now, int clock)
{
	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_ALARM:
		return now->realtime_ns;
	case CLOCK_BOOTTIME:
	case CLOCK_BOOTTIME_ALARM:
		return now->boottime_ns;
	case CLOCK_TAI:
		return now->tai_ns;
	default:
		return now->monotonic_ns;
	}
}

static uint64_t to_process_clock(const struct restart_context *c, int clock, uint64_t host_ns)
{
	if (clock == CLOCK_MONOTONIC)
		return host_ns + (uint64_t)c->monotonic_offset_ns;
	if (clock == CLOCK_BOOTTIME || clock == CLOCK_BOOTTIME_ALARM)
		return host_ns + (uint64_t)c->boottime_offset_ns;
	return host_ns;
}

static void set_expiry(Gw__Restart *r, const struct restart_context *c, int clock, uint64_t host_ns)
{
	r->has_expiry = true;
	r->clock = (uint32_t)clock;
	r->expires_ns = to_process_clock(c, clock, host_ns);
	r->exact = true;
}

/* CPU clocks go on from another value on the destination: what is left travels. */
static int set_cpu_remaining(Gw__Restart *r, const struct restart_context *c, pid_t tid, const struct restart_record *record, struct err *e)
{
	clockid_t clock = record->clock;
	struct timespec now;
	uint64_t now_ns;

	if (clock == CLOCK_PROCESS_CPUTIME_ID || (clock < 0 && clock >> 3 == -1))
		clock = (clockid_t)(~(unsigned)((clock < 0 && (clock & CPUCLOCK_PERTHREAD)) ? tid : c->pid) << 3 |
				    (clock < 0 ? (unsigned)clock & 7 : CPUCLOCK_SCHED));
	if (clock_gettime(clock, &now) < 0)
		return err_sys(e, -errno, "thread %d sleeps on CPU clock %d", tid, record->clock);
	now_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
	r->has_expiry = r->expiry_is_remaining = r->exact = true;
	r->expires_ns = record->expires > now_ns ? record->expires - now_ns : 0;
	return 0;
}

/* Calls restarted once before have orig_rax restart_syscall; the arguments are still those of the first call. */
static uint32_t original_call(const struct user_regs_struct *regs, const struct restart_record *record)
{
	if (regs->orig_rax != SYS_restart_syscall)
		return (uint32_t)regs->orig_rax;
	if (record->kind == RESTART_RECORD_POLL)
		return SYS_poll;
	if (record->kind == RESTART_RECORD_FUTEX)
		return SYS_futex;
	/* the first argument of one is a pointer, of the other a clock */
	return record->kind == RESTART_RECORD_CPU_SLEEP || regs->rdi < LOWEST_ADDRESS ? SYS_clock_nanosleep : SYS_nanosleep;
}

static int capture_block(Gw__Restart *r, struct user_regs_struct *regs, const struct restart_context *c, pid_t tid, struct err *e)
{
	const struct restart_record *record = c->after;

	r->nr = original_call(regs, record);
	r->pointer = record->pointer;
	r->value = record->value;
	r->flags = record->flags;
	r->bitset = record->bitset;
	switch (record->kind) {
	case RESTART_RECORD_SLEEP:
		r->kind = GW__RESTART__KIND__SLEEP;
		set_expiry(r, c, record->clock, record->expires);
		return 0;
	case RESTART_RECORD_CPU_SLEEP:
		r->kind = GW__RESTART__KIND__SLEEP;
		return set_cpu_remaining(r, c, tid, record, e);
	case RESTART_RECORD_POLL:
		r->kind = GW__RESTART__KIND__POLL;
		if (record->flags)
			set_expiry(r, c, CLOCK_MONOTONIC, record->expires);
		return 0;
	case RESTART_RECORD_FUTEX:
		r->kind = GW__RESTART__KIND__FUTEX;
		set_expiry(r, c, CLOCK_MONOTONIC, record->expires);
		return 0;
	default:
		return err_set(e, -EBUSY, "thread %d: system call %u cannot be restarted elsewhere; try again", tid, r->nr);
	}
}

static bool read_spec(pid_t pid, uint64_t at, uint64_t *ret_ns)
{
	struct timespec spec;
	struct iovec local = { &spec, sizeof(spec) }, remote = { (void *)(uintptr_t)at, sizeof(spec) };

	if (!at || process_vm_readv(pid, &local, 1, &remote, 1, 0) != (ssize_t)sizeof(spec) || spec.tv_sec < 0)
		return false;
	*ret_ns = (uint64_t)spec.tv_sec * NS_PER_S + (uint64_t)spec.tv_nsec;
	return true;
}

/* Without BPF: nanosleep has just written what is left to rmtp if it was given one; anything else starts over. */
static int guess_block(Gw__Restart *r, const struct user_regs_struct *regs, const struct restart_context *c, pid_t tid, struct err *e)
{
	struct restart_now now = restart_now_read(0, 0);
	uint64_t left, request = regs->rdi;

	r->nr = (uint32_t)regs->orig_rax;
	r->pointer = regs->rsi;
	switch (regs->orig_rax) {
	case SYS_clock_nanosleep:
		request = regs->rdx;
		r->pointer = regs->r10;
		/* fall through */
	case SYS_nanosleep:
		r->kind = GW__RESTART__KIND__SLEEP;
		if (!read_spec(c->pid, r->pointer, &left) && !read_spec(c->pid, request, &left))
			return err_set(e, -EBUSY, "thread %d: its sleep cannot be read; try again", tid);
		set_expiry(r, c, CLOCK_MONOTONIC, now.monotonic_ns + left);
		r->exact = r->pointer != 0;
		return 0;
	case SYS_poll:
		r->kind = GW__RESTART__KIND__POLL;
		return 0;
	case SYS_futex:
		r->kind = GW__RESTART__KIND__FUTEX;
		return 0;
	default:
		return err_set(e, -EBUSY, "thread %d: what it sleeps for can only be read with BPF, which failed here", tid);
	}
}

static bool futex_is_absolute(const struct user_regs_struct *regs)
{
	return regs->orig_rax == SYS_futex && FUTEX_COMMAND(regs->rsi) != FUTEX_WAIT;
}

/* io_uring_enter(2) with IORING_ENTER_EXT_ARG: sigmask, its size and min_wait_usec, timespec. */
struct uring_argument {
	uint64_t sigmask;
	uint32_t sigmask_bytes, min_wait_us;
	uint64_t spec;
};

/* Its argument is kept in r, to be made again with the time that is left. False: it has no time, or one that does not pass while it is interrupted. */
static bool capture_uring_wait(Gw__Restart *r, const struct user_regs_struct *regs, pid_t pid)
{
	struct uring_argument a;
	struct iovec local = { &a, sizeof(a) }, remote = { (void *)(uintptr_t)regs->r8, sizeof(a) };

	if (!(regs->r10 & IORING_ENTER_EXT_ARG) || regs->r10 & (URING_ENTER_ABS_TIMER | URING_ENTER_EXT_ARG_REG) || regs->r9 != sizeof(a) ||
	    process_vm_readv(pid, &local, 1, &remote, 1, 0) != (ssize_t)sizeof(a) || !a.spec)
		return false;
	r->pointer = a.sigmask;
	r->value = a.sigmask_bytes;
	r->flags = a.min_wait_us;
	return true;
}

/* The call returned EINTR only because of the stop; with -514 the kernel calls it again unless a handler runs. */
static void capture_eintr(Gw__Restart *r, struct user_regs_struct *regs, const struct restart_context *c)
{
	const struct restart_record *before = c->before;
	int i = find_eintr(regs->orig_rax);
	uint64_t timeout;

	if (i < 0)
		return;
	r->kind = GW__RESTART__KIND__AGAIN;
	r->nr = (uint32_t)regs->orig_rax;
	regs->rax = (uint64_t)RESTART_NOHAND;
	timeout = *argument(regs, eintr_calls[i].arg);
	if (eintr_calls[i].form == TIMEOUT_URING && !capture_uring_wait(r, regs, c->pid))
		return;
	if (eintr_calls[i].form == TIMEOUT_NONE || (eintr_calls[i].form == TIMEOUT_MS ? (int32_t)timeout < 0 : !timeout))
		return;
	r->kind = GW__RESTART__KIND__TIMED_CALL;
	/* one switch since: to this stop. More: it is another call, begun after the reading, and its time is just beginning */
	if (before && before->has_timer && before->nr == (int64_t)regs->orig_rax && (!c->after || c->after->switches - before->switches <= 1))
		set_expiry(r, c, before->timer_clock, before->timer_expires);
}

bool restart_has_all_time(const struct user_regs_struct *regs)
{
	return (int64_t)regs->rax == RESTART_NOHAND && regs->orig_rax == SYS_io_pgetevents;
}

int restart_capture(Gw__Thread *msg, const struct restart_context *c, struct err *e)
{
	struct user_regs_struct *regs = (void *)msg->regs.data;
	Gw__Restart *r = must_alloc(sizeof(*r));
	int64_t result = (int64_t)regs->rax;
	struct partial partial;
	int rc = 0;

	gw__restart__init(r);
	if (msg->restart)
		gw__restart__free_unpacked(msg->restart, NULL);
	msg->restart = r;
	if ((int64_t)regs->orig_rax < 0)
		return 0;
	if (result == -EINTR && c->stopped) {
		r->kind = GW__RESTART__KIND__NONE;
	} else if (result == -EINTR || restart_has_all_time(regs)) {
		capture_eintr(r, regs, c);
	} else if (result == RESTART_SYS || result == RESTART_NOINTR || result == RESTART_NOHAND) {
		r->kind = GW__RESTART__KIND__AGAIN;
		r->nr = (uint32_t)regs->orig_rax;
	} else if (partial_may_be(regs) && !c->stopped && partial_is_one(c->pid, c->tid, regs, &partial)) {
		r->kind = GW__RESTART__KIND__PARTIAL;
		r->nr = (uint32_t)partial.nr;
		r->value = (uint32_t)partial.done;
		r->pointer = partial.code;
		if (partial.n_buffers)
			bytes_set(&r->buffers, partial.buffers, partial.n_buffers * sizeof(*partial.buffers));
	} else if (result == RESTART_BLOCK && futex_is_absolute(regs)) {
		r->kind = GW__RESTART__KIND__AGAIN; /* the arguments say all */
		r->nr = SYS_futex;
		regs->rax = (uint64_t)RESTART_NOHAND;
	} else if (result == RESTART_BLOCK) {
		rc = c->after ? capture_block(r, regs, c, msg->tid, e) : guess_block(r, regs, c, msg->tid, e);
	}
	/* a futex wait begun absolute and restarted before */
	if (rc == 0 && r->kind == GW__RESTART__KIND__FUTEX && FUTEX_COMMAND(regs->rsi) != FUTEX_WAIT) {
		r->kind = GW__RESTART__KIND__AGAIN;
		regs->orig_rax = SYS_futex;
		regs->rax = (uint64_t)RESTART_NOHAND;
	}
	return rc;
}

int restart_validate(const Gw__Restart *restart, struct err *e)
{
	if (!restart)
		return 0;
	if (restart->buffers.len % sizeof(struct iovec) || restart->buffers.len > sizeof(((struct partial *)NULL)->buffers) || restart->kind > GW__RESTART__KIND__PARTIAL || restart->nr > 4096 || restart->clock > CLOCK_TAI || restart->expires_ns > INT64_MAX)
		return err_set(e, -EBADMSG, "interrupted system call %u makes no sense", restart->nr);
	return 0;
}

static uint64_t time_left(const Gw__Restart *restart, const struct restart_now *now)
{
	uint64_t clock = now_on(now, (int)restart->clock);

	if (restart->expiry_is_remaining)
		return restart->expires_ns;
	return restart->expires_ns > clock ? restart->expires_ns - clock : 0;
}

static uint64_t to_ms(uint64_t ns)
{
	return MIN((ns + NS_PER_MS - 1) / NS_PER_MS, (uint64_t)INT_MAX);
}

static void set_spec(struct user_regs_struct *regs, int arg, uint64_t left_ns, struct restart_patch *patch)
{
	int64_t spec[2] = { (int64_t)(left_ns / NS_PER_S), (int64_t)(left_ns % NS_PER_S) };

	patch->address = (regs->rsp - RED_ZONE - sizeof(spec)) & ~15ull;
	patch->len = sizeof(spec);
	memcpy(patch->data, spec, sizeof(spec));
	*argument(regs, arg) = patch->address;
}

static void set_uring_argument(struct user_regs_struct *regs, const Gw__Restart *restart, uint64_t left_ns, struct restart_patch *patch)
{
	struct uring_argument a = { restart->pointer, (uint32_t)restart->value, restart->flags, 0 };
	int64_t spec[2] = { (int64_t)(left_ns / NS_PER_S), (int64_t)(left_ns % NS_PER_S) };

	patch->address = (regs->rsp - RED_ZONE - sizeof(a) - sizeof(spec)) & ~15ull;
	patch->len = sizeof(a) + sizeof(spec);
	a.spec = patch->address + sizeof(a);
	memcpy(patch->data, &a, sizeof(a));
	memcpy(patch->data + sizeof(a), spec, sizeof(spec));
	regs->r8 = patch->address;
}

static void finish_timed(struct user_regs_struct *regs, const Gw__Restart *restart, uint64_t left, struct restart_patch *patch)
{
	int i = find_eintr(restart->nr);

	if (i < 0 || !restart->has_expiry)
		return;
	if (eintr_calls[i].form == TIMEOUT_MS)
		*argument(regs, eintr_calls[i].arg) = to_ms(left);
	else if (eintr_calls[i].form == TIMEOUT_SPEC)
		set_spec(regs, eintr_calls[i].arg, left, patch);
	else if (eintr_calls[i].form == TIMEOUT_URING)
		set_uring_argument(regs, restart, left, patch);
}

void restart_finish(struct user_regs_struct *regs, const Gw__Restart *restart, const struct restart_now *now, struct restart_patch *ret_patch)
{
	uint64_t left;

	*ret_patch = (struct restart_patch){ 0 };
	if (!restart || restart->kind == GW__RESTART__KIND__NONE || restart->kind == GW__RESTART__KIND__AGAIN)
		return;
	if (restart->kind == GW__RESTART__KIND__PARTIAL) {
		struct partial partial = { .nr = restart->nr, .done = restart->value, .code = restart->pointer, .n_buffers = restart->buffers.len / sizeof(struct iovec) };

		if (partial.n_buffers)
			memcpy(partial.buffers, restart->buffers.data, restart->buffers.len);
		ret_patch->len = (unsigned)partial_go_on(regs, &partial, ret_patch->data);
		ret_patch->address = regs->rsp;
		return;
	}
	left = time_left(restart, now);
	if (restart->kind == GW__RESTART__KIND__TIMED_CALL) {
		finish_timed(regs, restart, left, ret_patch);
		return;
	}
	regs->orig_rax = restart->nr;
	regs->rax = (uint64_t)RESTART_NOHAND;
	if (restart->kind == GW__RESTART__KIND__SLEEP && !left) {
		regs->rax = 0;
		regs->orig_rax = (uint64_t)-1;
	} else if (restart->kind == GW__RESTART__KIND__SLEEP) {
		set_spec(regs, restart->nr == SYS_clock_nanosleep ? 2 : 0, left, ret_patch);
	} else if (restart->kind == GW__RESTART__KIND__FUTEX && restart->has_expiry) {
		set_spec(regs, 3, left, ret_patch);
	} else if (restart->kind == GW__RESTART__KIND__POLL && restart->has_expiry) {
		regs->rdx = to_ms(left);
	}
}

void restart_finish_in(pid_t pid, struct user_regs_struct *regs, const Gw__Restart *restart, const struct restart_now *now)
{
	struct user_regs_struct finished = *regs;
	struct restart_patch patch;
	struct iovec local, remote;

	restart_finish(&finished, restart, now, &patch);
	if (restart->kind == GW__RESTART__KIND__PARTIAL && partial_put_code(pid, restart->pointer) < 0)
		return;
	local = (struct iovec){ patch.data, patch.len };
	remote = (struct iovec){ (void *)(uintptr_t)patch.address, patch.len };
	if (!patch.len || process_vm_writev(pid, &local, 1, &remote, 1, 0) == (ssize_t)patch.len)
		*regs = finished;
}

bool restart_prime_call(const Gw__Thread *msg, const struct restart_now *now, struct restart_prime *ret_prime)
{
	const Gw__Restart *restart = msg->restart;
	struct user_regs_struct regs;
	struct restart_prime prime = { .request_arg = -1 };
	uint64_t left;

	/* What follows a primed call is restart_syscall, which a filter that knows the call itself may forbid. */
	if (!restart || msg->seccomp_mode || !restart->has_expiry || restart->kind == GW__RESTART__KIND__NONE || restart->kind == GW__RESTART__KIND__AGAIN ||
	    restart_is_unfinished(restart))
		return false;
	memcpy(&regs, msg->regs.data, sizeof(regs));
	left = time_left(restart, now);
	prime.nr = restart->nr;
	for (int i = 0; i < 6; i++)
		prime.arg[i] = *argument(&regs, i);
	if (restart->kind == GW__RESTART__KIND__POLL)
		prime.arg[2] = to_ms(left);
	else if (restart->kind == GW__RESTART__KIND__SLEEP)
		prime.request_arg = restart->nr == SYS_clock_nanosleep ? 2 : 0;
	else
		prime.request_arg = 3;
	prime.request[0] = (int64_t)(left / NS_PER_S);
	prime.request[1] = (int64_t)(left % NS_PER_S);
	*ret_prime = prime;
	return true;
}

void restart_prime_done(struct user_regs_struct *regs, int64_t result)
{
	regs->rax = (uint64_t)result;
	if (result != RESTART_BLOCK)
		regs->orig_rax = (uint64_t)-1;
}

void restart_to_call(struct user_regs_struct *regs)
{
	int64_t result = (int64_t)regs->rax;

	if ((int64_t)regs->orig_rax < 0 || (result != RESTART_SYS && result != RESTART_NOINTR && result != RESTART_NOHAND && result != RESTART_BLOCK))
		return;
	regs->rax = result == RESTART_BLOCK ? SYS_restart_syscall : regs->orig_rax;
	regs->rip -= SYSCALL_LEN;
	regs->orig_rax = (uint64_t)-1;
}
