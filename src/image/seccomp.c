/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* seccomp.c - system call filters of threads; see seccomp.h */
#include "image/seccomp.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"

#define FILTERS_MAX 1024u
#define GET_FILTER 0x420c   /* PTRACE_SECCOMP_GET_FILTER */
#define GET_METADATA 0x420d /* PTRACE_SECCOMP_GET_METADATA */

#ifndef SECCOMP_RET_USER_NOTIF
#define SECCOMP_RET_USER_NOTIF 0x7fc00000u
#endif
#ifndef SECCOMP_RET_ACTION_FULL
#define SECCOMP_RET_ACTION_FULL 0xffff0000u
#endif

/* struct seccomp_metadata */
struct metadata {
	uint64_t number, flags;
};

enum seccomp_kind seccomp_mode_of(pid_t tid)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[256];

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "Seccomp:", 8) == 0)
			return (enum seccomp_kind)atoi(line + 8);
	return SECCOMP_NONE;
}

static bool may_suspend(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_SYS_ADMIN & 1) && seccomp_mode_of(getpid()) == SECCOMP_NONE;
}

void seccomp_check(const Gw__Thread *msg, const char *where, struct refusals *r)
{
	if (!msg->seccomp_mode || may_suspend())
		return;
	refusals_add(r, "task.seccomp", "moving system call filters needs CAP_SYS_ADMIN, and a godwitd without such a filter of its own",
		     "start godwitd with CAP_SYS_ADMIN and outside of a sandbox", "thread %d (seccomp; godwitd on the %s)", msg->tid, where);
}

/* A filter whose answer comes from another process, which has a descriptor for that. */
static bool asks_a_supervisor(const struct sock_filter *program, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (BPF_CLASS(program[i].code) == BPF_RET && BPF_RVAL(program[i].code) == BPF_K &&
		    (program[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF)
			return true;
	return false;
}

static int read_filter(pid_t tid, unsigned i, size_t n, Gw__SeccompFilter *filter, struct err *e)
{
	struct metadata metadata = { .number = i };

	filter->program.len = n * sizeof(struct sock_filter);
	filter->program.data = must_alloc(filter->program.len);
	if (ptrace(GET_FILTER, tid, i, filter->program.data) != (long)n)
		return err_sys(e, -errno, "thread %d: reading its seccomp filter %u", tid, i);
	if (ptrace(GET_METADATA, tid, sizeof(metadata), &metadata) < 0)
		return err_sys(e, -errno, "thread %d: flags of its seccomp filter %u", tid, i);
	filter->flags = (uint32_t)metadata.flags;
	if (asks_a_supervisor((const void *)filter->program.data, n))
		return err_set(e, -EREMOTE, "thread %d has a seccomp filter that asks another process (SECCOMP_RET_USER_NOTIF), which cannot move", tid);
	return 0;
}

int seccomp_capture(pid_t tid, Gw__Thread *msg, struct err *e)
{
	for (unsigned i = 0;; i++) {
		long n = ptrace(GET_FILTER, tid, i, NULL);
		Gw__SeccompFilter **grown;
		int rc;

		if (n < 0 && (errno == ENOENT || errno == EINVAL || errno == EIO || errno == EACCES)) /* no more; none; not built into the kernel; see seccomp_check */
			return 0;
		if (n <= 0 || n > BPF_MAXINSNS || i == FILTERS_MAX)
			return err_set(e, n < 0 ? -errno : -E2BIG, "thread %d: its seccomp filter %u cannot be read", tid, i);
		grown = realloc(msg->seccomp_filters, (i + 1) * sizeof(*grown));
		if (!grown)
			return err_sys(e, -ENOMEM, "seccomp filters");
		msg->seccomp_filters = grown;
		grown[i] = must_alloc(sizeof(**grown));
		gw__seccomp_filter__init(grown[i]);
		msg->n_seccomp_filters = i + 1;
		msg->seccomp_mode = SECCOMP_FILTERS;
		rc = read_filter(tid, i, (size_t)n, grown[i], e);
		if (rc < 0)
			return rc;
	}
}

static bool filter_equal(const Gw__SeccompFilter *a, const Gw__SeccompFilter *b)
{
	return a->flags == b->flags && bytes_equal(a->program, b->program);
}

/* How many filters from the first one on two threads have in common. */
static size_t common(const Gw__Thread *a, const Gw__Thread *b)
{
	size_t n = 0;

	if (b->seccomp_as_main)
		return a->n_seccomp_filters;
	while (n < a->n_seccomp_filters && n < b->n_seccomp_filters && filter_equal(a->seccomp_filters[n], b->seccomp_filters[n]))
		n++;
	return n;
}

void seccomp_make_alike(const Gw__Thread *first, Gw__Thread *msg)
{
	if (first == msg || !first->n_seccomp_filters || first->n_seccomp_filters != msg->n_seccomp_filters || common(first, msg) < msg->n_seccomp_filters)
		return;
	for (size_t i = 0; i < msg->n_seccomp_filters; i++)
		gw__seccomp_filter__free_unpacked(msg->seccomp_filters[i], NULL);
	free(msg->seccomp_filters);
	msg->seccomp_filters = NULL;
	msg->n_seccomp_filters = 0;
	msg->seccomp_as_main = true;
}

int seccomp_validate(const Gw__Thread *msg, struct err *e)
{
	if (msg->seccomp_mode > SECCOMP_FILTERS || msg->n_seccomp_filters > FILTERS_MAX ||
	    (msg->seccomp_mode != SECCOMP_FILTERS && (msg->n_seccomp_filters || msg->seccomp_as_main)) ||
	    (msg->seccomp_as_main && msg->n_seccomp_filters))
		return err_set(e, -EBADMSG, "thread %d: seccomp mode %u with %zu filters", msg->tid, msg->seccomp_mode, msg->n_seccomp_filters);
	for (size_t i = 0; i < msg->n_seccomp_filters; i++) {
		const Gw__SeccompFilter *f = msg->seccomp_filters[i];

		/* whether it is a program that makes sense the kernel says */
		if (!f->program.len || f->program.len % sizeof(struct sock_filter) || f->program.len / sizeof(struct sock_filter) > BPF_MAXINSNS ||
		    (f->flags & ~(uint32_t)SECCOMP_FILTER_FLAG_LOG))
			return err_set(e, -EBADMSG, "thread %d: seccomp filter of %zu bytes, flags %#x", msg->tid, f->program.len, f->flags);
	}
	return 0;
}

bool seccomp_in_use(Gw__Thread *const *threads, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (threads[i]->seccomp_mode)
			return true;
	return false;
}

static size_t common_to_all(Gw__Thread *const *threads, size_t n)
{
	size_t shared = n > 1 ? threads[0]->n_seccomp_filters : 0;

	for (size_t i = 1; i < n && shared; i++)
		shared = MIN(shared, common(threads[0], threads[i]));
	return shared;
}

/* SPEC_ALLOW: what a filter did to speculation when it was installed is part of the thread's own modes by now, and travels with those. */
static void plan_filter(struct batch *b, const Gw__SeccompFilter *f, uint64_t flags)
{
	struct {
		uint16_t len;
		uint64_t filter;
	} program = { (uint16_t)(f->program.len / sizeof(struct sock_filter)), batch_data(b, f->program.data, f->program.len) };

	batch_call(b, "seccomp(SECCOMP_SET_MODE_FILTER)", SYS_seccomp, SECCOMP_SET_MODE_FILTER, f->flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW | flags,
		   batch_data(b, &program, sizeof(program)));
}

void seccomp_plan_shared(struct batch *b, Gw__Thread *const *threads, size_t n)
{
	size_t shared = common_to_all(threads, n);

	for (size_t i = 0; i < shared; i++)
		plan_filter(b, threads[0]->seccomp_filters[i], SECCOMP_FILTER_FLAG_TSYNC);
}

void seccomp_plan_own(struct batch *b, Gw__Thread *const *threads, size_t n, const Gw__Thread *msg)
{
	const Gw__Thread *from = msg->seccomp_as_main ? threads[0] : msg;

	if (msg->seccomp_mode == SECCOMP_STRICT)
		batch_call(b, "seccomp(SECCOMP_SET_MODE_STRICT)", SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, 0);
	for (size_t i = common_to_all(threads, n); i < from->n_seccomp_filters; i++)
		plan_filter(b, from->seccomp_filters[i], 0);
}
