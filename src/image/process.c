/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* process.c - what belongs to a process: capture and validation; see process.h. Restoring is in process_restore.c */
#include "image/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/aio.h"
#include "image/uring.h"
#include "image/bytes.h"
#include "image/ns_mount.h"
#include "image/cpu_uses.h"
#include "image/cgroup.h"
#include "image/clocks.h"
#include "image/cwd.h"
#include "image/keyring.h"
#include "image/membarrier.h"
#include "image/mempolicy.h"
#include "image/process_abi.h"
#include "image/process_check.h"
#include "image/sysv.h"
#include "image/xstate.h"

#define STATUS_MAX 8192

_Static_assert(PROCESS_RLIMITS == RLIM_NLIMITS, "resource limits");

Gw__Process *process_new(pid_t pid)
{
	Gw__Process *msg = must_alloc(sizeof(*msg));

	gw__process__init(msg);
	msg->pid = pid;
	return msg;
}

/* Read once: sysconf opens files in /sys. */
static uint32_t online_cpus(void)
{
	static uint32_t online;

	if (!online)
		online = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	return online;
}

static Gw__Clocks *clocks_of(Gw__Process *msg)
{
	if (!msg->clocks) {
		msg->clocks = must_alloc(sizeof(*msg->clocks));
		gw__clocks__init(msg->clocks);
	}
	return msg->clocks;
}

static void set_rlimits(Gw__Process *msg, const uint64_t *limits)
{
	free(msg->rlimits);
	msg->rlimits = must_alloc(2 * PROCESS_RLIMITS * sizeof(*limits));
	memcpy(msg->rlimits, limits, 2 * PROCESS_RLIMITS * sizeof(*limits));
	msg->n_rlimits = 2 * PROCESS_RLIMITS;
}

/* prlimit(2) on another user's process needs CAP_SYS_RESOURCE, which not every root has; /proc does not. */
static int read_limits(pid_t pid, Gw__Process *msg, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	uint64_t limits[2 * PROCESS_RLIMITS];
	char path[64], line[256], soft[24], hard[24];

	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f))
		return err_sys(e, -errno, "%s", path);
	for (unsigned i = 0; i < PROCESS_RLIMITS; i++) {
		if (!fgets(line, sizeof(line), f) || strlen(line) < 27 || sscanf(line + 26, "%23s %23s", soft, hard) != 2)
			return err_set(e, -EIO, "%s: unexpected form", path);
		limits[2 * i] = soft[0] == 'u' ? RLIM_INFINITY : strtoull(soft, NULL, 10);
		limits[2 * i + 1] = hard[0] == 'u' ? RLIM_INFINITY : strtoull(hard, NULL, 10);
	}
	set_rlimits(msg, limits);
	return 0;
}

static int read_link(pid_t pid, const char *name, char **field, struct err *e)
{
	char path[64], text[PATH_MAX + 16];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	n = readlink(path, text, sizeof(text) - 1);
	if (n < 0)
		return err_sys(e, -errno, "%s", path);
	text[n] = 0;
	string_set(field, text);
	return 0;
}

static int read_number(int fd, int base, long *ret_number)
{
	char text[32];
	ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return -EIO;
	text[n] = 0;
	*ret_number = strtol(text, NULL, base);
	return 0;
}

/* "/autogroup-NUMBER nice NICE"; nothing when it is in the group of all that have none. */
static int read_autogroup_nice(int fd)
{
	char text[64];
	ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);
	const char *nice;

	text[MAX(n, 0)] = 0;
	nice = strstr(text, " nice ");
	return nice ? atoi(nice + 6) : 0;
}

int process_read_owner(pid_t pid, uid_t *ret)
{
	cleanup_close int fd = -1;
	char path[64], text[STATUS_MAX];
	const char *line;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	text[MAX(n, 0)] = 0;
	line = strstr(text, "\nUid:");
	if (!line)
		return -ESRCH;
	*ret = (uid_t)strtoul(line + 5, NULL, 10);
	return 0;
}

bool process_read_umask(const char *status, uint32_t *ret)
{
	const char *line = strstr(status, "\nUmask:");

	if (line)
		*ret = (uint32_t)strtoul(line + 7, NULL, 8) & 0777;
	return line;
}

/* Everything that is read from /proc in the freeze too: about 12 us. */
static int read_proc(struct process_query *q, Gw__Process *msg, struct err *e)
{
	char text[STATUS_MAX];
	long number;
	ssize_t n = pread(q->status_fd, text, sizeof(text) - 1, 0);
	int rc;

	if (n <= 0)
		return err_sys(e, n < 0 ? -errno : -ESRCH, "/proc/%d/status", q->pid);
	text[n] = 0;
	if (!process_read_umask(text, &msg->umask))
		return err_set(e, -EAGAIN, "process %d is ending", q->pid); /* its working directory has gone already */
	if (read_number(q->oom_fd, 10, &number) == 0)
		msg->oom_score_adj = (int32_t)number;
	msg->autogroup_nice = read_autogroup_nice(q->autogroup_fd);
	if (read_number(q->filter_fd, 16, &number) == 0)
		msg->coredump_filter = (uint32_t)number;
	if (read_number(q->login_fd, 10, &number) == 0)
		msg->loginuid_plus_1 = (uint32_t)number + 1;
	rc = cwd_capture(q->pid, msg, e);
	return rc < 0 ? rc : read_link(q->pid, "root", &msg->root, e);
}

static int open_proc(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int open_query(struct process_query *q, pid_t pid, struct err *e)
{
	*q = (struct process_query){ .pid = pid, .oom_fd = -1, .filter_fd = -1, .login_fd = -1, .autogroup_fd = -1, .timers.listing_fd = -1 };
	q->status_fd = open_proc(pid, "status");
	if (q->status_fd < 0)
		return err_sys(e, -errno, "/proc/%d/status", pid);
	q->oom_fd = open_proc(pid, "oom_score_adj");
	q->autogroup_fd = open_proc(pid, "autogroup"); /* absent without CONFIG_SCHED_AUTOGROUP */
	q->filter_fd = open_proc(pid, "coredump_filter"); /* absent without core dumps */
	q->login_fd = open_proc(pid, "loginuid"); /* absent without auditing */
	return 0;
}

void process_query_close(struct process_query *q)
{
	close_fdp(&q->status_fd);
	close_fdp(&q->oom_fd);
	close_fdp(&q->autogroup_fd);
	close_fdp(&q->filter_fd);
	close_fdp(&q->login_fd);
	timer_query_close(&q->timers);
}

/* A working directory that was deleted is made again for a moment (process_restore.c); of a root more than its name would be missing. */
static void check_root(pid_t pid, struct refusals *r)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/root", pid);
	if (stat(path, &st) == 0 && st.st_nlink == 0)
		refusals_add(r, "task.deleted-directory", "the directory was deleted", "let the program change to another directory",
			     "process %d (root)", pid);
}

static void check_directory(pid_t pid, const char *name, const char *path, const char *what, bool reached, struct refusals *r)
{
	if (!reached)
		refusals_add(r, "task.directory-hidden", "no path leads to it: it is on a mount that is nowhere in the tree of files, or something has been mounted over it",
			     "let the program change to another directory, or unmount what is over it", "process %d (%s %s)", pid, what, path);
	else if (ns_directory_is_elsewhere(pid, name)) /* it could only have it by a descriptor: its path would lead to another one in its own namespace */
		refusals_add(r, "task.directory-elsewhere", "the directory is on a mount of another mount namespace than its own", "let the program change to another directory", "process %d (%s)", pid, what);
}

static void check_directories(pid_t pid, const Gw__Process *msg, struct refusals *r)
{
	char root[PATH_MAX];

	(void)ns_root_of(pid, false, root, sizeof(root)); /* it uses the mount that it is on */
	check_directory(pid, "cwd", msg->cwd, "working directory", cwd_is_reached(pid, msg), r);
	if (!cwd_root_is_reached(pid, msg))
		check_directory(pid, "root", msg->root, "root", false, r);
}

static bool read_label(const char *pid, char text[1024])
{
	cleanup_close int fd = -1;
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%s/attr/current", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, 1023);
	text[MAX(n, 0)] = 0;
	text[strcspn(text, "\n")] = 0;
	return n > 0;
}

/* What arrives is confined as godwitd is. Where no security module has labels, reading fails. */
static void check_label(pid_t pid, struct refusals *r)
{
	char number[16], theirs[1024], ours[1024];

	snprintf(number, sizeof(number), "%d", pid);
	if (read_label(number, theirs) && (!read_label("self", ours) || strcmp(theirs, ours) != 0))
		refusals_add(r, "task.lsm-label", "security labels other than godwitd's cannot move", "run it without a profile of its own, or godwitd with the same",
			     "process %d (label %s)", pid, theirs);
}

/* Tasks that may share a core with each other only (PR_SCHED_CORE): who else has the cookie cannot be made anew. */
static void check_core_cookie(pid_t pid, struct refusals *r)
{
	uint64_t cookie = 0;

	if (prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, pid, 0 /* this thread */, &cookie) == 0 && cookie)
		refusals_add(r, "task.core-cookie", "core scheduling (PR_SCHED_CORE) cannot move yet", "start the program without it", "process %d", pid);
}

int process_capture_outside(pid_t pid, Gw__Process *msg, struct refusals *r, struct err *e)
{
	struct process_query q;
	struct process_stat stat;
	size_t refused = r->n;
	int rc = process_stat_read(pid, &stat, e);

	if (rc < 0)
		return rc;
	rc = process_check(pid, &stat, r, e);
	if (rc < 0)
		return rc;
	if (r->n > refused && (stat.state == 'Z' || stat.state == 'X' || !stat.ppid || strcmp(r->v[refused].code, "task.kernel-thread") == 0))
		return 0; /* there is nothing more to see */
	check_root(pid, r);
	check_label(pid, r);
	check_core_cookie(pid, r);
	msg->pid = pid;
	msg->pgid = stat.pgid;
	msg->sid = stat.sid;
	msg->online_cpus = online_cpus();
	xstate_describe(msg);
	rc = open_query(&q, pid, e);
	if (rc == 0)
		rc = read_proc(&q, msg, e);
	process_query_close(&q);
	if (rc == 0)
		check_directories(pid, msg, r);
	if (rc == 0)
		rc = read_limits(pid, msg, e);
	if (rc == 0)
		rc = cgroup_capture(pid, msg, e);
	if (rc == 0)
		rc = keyring_capture(pid, msg, r, e);
	return rc < 0 ? rc : clocks_read(pid, clocks_of(msg), e);
}

int process_capture_plan(struct batch *b, struct process_query *q, pid_t pid, struct err *e)
{
	uint64_t at;
	int rc = open_query(q, pid, e);

	if (rc < 0)
		return rc;
	q->rlimits = batch_space(b, PROCESS_RLIMITS * 16, &at);
	for (unsigned i = 0; i < PROCESS_RLIMITS; i++)
		batch_call(b, "prlimit64", SYS_prlimit64, 0, i, 0, at + i * 16);
	q->personality = batch_call(b, "personality", SYS_personality, 0xffffffff);
	q->dumpable = batch_call(b, "prctl(PR_GET_DUMPABLE)", SYS_prctl, PR_GET_DUMPABLE);
	q->thp = batch_call(b, "prctl(PR_GET_THP_DISABLE)", SYS_prctl, PR_GET_THP_DISABLE);
	q->mdwe = batch_try(b, "prctl(PR_GET_MDWE)", SYS_prctl, PR_GET_MDWE);
	q->merge = batch_try(b, "prctl(PR_GET_MEMORY_MERGE)", SYS_prctl, PR_GET_MEMORY_MERGE);
	q->subreaper = batch_space(b, sizeof(int), &at);
	batch_call(b, "prctl(PR_GET_CHILD_SUBREAPER)", SYS_prctl, PR_GET_CHILD_SUBREAPER, at);
	q->xcomp = batch_space(b, 8, &at);
	q->xcomp_call = batch_try(b, "arch_prctl(ARCH_GET_XCOMP_PERM)", SYS_arch_prctl, PROCESS_ARCH_GET_XCOMP_PERM, at);
	q->untag = batch_space(b, 8, &at);
	q->untag_call = batch_try(b, "arch_prctl(ARCH_GET_UNTAG_MASK)", SYS_arch_prctl, PROCESS_ARCH_GET_UNTAG_MASK, at);
	q->membarrier = membarrier_plan_read(b);
	batch_space(b, 16, &at);
	q->ldt = batch_try(b, "modify_ldt", SYS_modify_ldt, 0, at, 16);
	signal_capture_plan(b, &q->signals, true);
	return timer_capture_plan(b, &q->timers, pid, e);
}

/* The kernel keeps what wait(2) would tell of a stop until somebody has been told: the last field of /proc/PID/stat. */
static bool stop_is_unreported(pid_t pid)
{
	struct process_stat stat;

	return process_stat_read(pid, &stat, NULL) == 0 && stat.exit_status != 0;
}

int process_capture_look(struct process_query *q, Gw__Process *msg, struct err *e)
{
	int rc = read_proc(q, msg, e);

	msg->stop_unreported = msg->stopped_by && stop_is_unreported(q->pid);
	q->looked = true;
	return rc < 0 ? rc : timer_capture_look(&q->timers, e);
}

bool process_is_as_seen(const struct process_query *q, const Gw__Process *msg, const struct process_look *look)
{
	return look->known && q->looked && !look->timers && !q->timers.n && look->umask == msg->umask && look->loginuid + 1 == msg->loginuid_plus_1 &&
	       look->oom_score_adj == msg->oom_score_adj && look->autogroup_nice == msg->autogroup_nice && look->coredump_filter == msg->coredump_filter;
}

int process_capture_collect(struct process_query *q, Gw__Process *msg, struct err *e)
{
	int rc;

	if ((int)q->ldt->ret > 0)
		return err_set(e, -EBUSY, "process %d has a local descriptor table, which cannot move", q->pid);
	if (q->untag_call->ret == 0 && *q->untag != UINT64_MAX)
		return err_set(e, -EBUSY, "process %d began to use linear address masking, which cannot move", q->pid);
	msg->pid = q->pid;
	set_rlimits(msg, q->rlimits);
	msg->personality = (uint32_t)q->personality->ret;
	msg->dumpable = (uint32_t)q->dumpable->ret;
	msg->thp_disable = q->thp->ret & 1;
	msg->thp_disable_flags = (uint32_t)q->thp->ret & ~1u;
	msg->mdwe = q->mdwe->ret < 0 ? 0 : (uint32_t)q->mdwe->ret;
	msg->memory_merge = q->merge->ret > 0;
	msg->membarrier = membarrier_of(q->membarrier);
	msg->child_subreaper = *q->subreaper;
	msg->xcomp_permitted = q->xcomp_call->ret < 0 ? 0 : *q->xcomp;
	msg->online_cpus = online_cpus();
	if (!msg->n_xcomponents)
		xstate_describe(msg);
	signal_capture_collect_actions(&q->signals, msg);
	rc = q->looked ? 0 : process_capture_look(q, msg, e);
	if (rc < 0)
		return rc;
	rc = q->pending_taken ? 0 : signal_peek(q->pid, true, &msg->pending, e);
	return rc < 0 ? rc : timer_capture_collect(&q->timers, msg, e);
}

int process_encode(const Gw__Process *msg, uint8_t **ret_data, size_t *ret_len)
{
	*ret_len = gw__process__get_packed_size(msg);
	*ret_data = must_alloc(*ret_len);
	gw__process__pack(msg, *ret_data);
	return 0;
}

int process_decode(const void *data, size_t len, bool offer, Gw__Process **ret_msg, struct err *e)
{
	Gw__Process *msg = gw__process__unpack(NULL, len, data);
	int rc;

	if (!msg)
		return err_set(e, -EBADMSG, "not a process's message");
	rc = process_validate(msg, offer, e);
	if (rc < 0) {
		gw__process__free_unpacked(msg, NULL);
		return rc;
	}
	*ret_msg = msg;
	return 0;
}

int process_validate(const Gw__Process *msg, bool offer, struct err *e)
{
	int rc;

	if (msg->pid < 1 || msg->pid > 0x400000)
		return err_set(e, -EBADMSG, "process id %d", msg->pid);
	if (cwd_validate(msg, e) < 0)
		return -EBADMSG;
	if (msg->root[0] != '/' || strlen(msg->root) >= PATH_MAX)
		return err_set(e, -EBADMSG, "root directory is not an absolute path");
	if (msg->n_rlimits != 2 * PROCESS_RLIMITS)
		return err_set(e, -EBADMSG, "%zu resource limits", msg->n_rlimits);
	for (unsigned i = 0; i < PROCESS_RLIMITS; i++)
		if (msg->rlimits[2 * i] > msg->rlimits[2 * i + 1])
			return err_set(e, -EBADMSG, "resource limit %u: soft above hard", i);
	if (msg->stopped_by > SIGNAL_COUNT)
		return err_set(e, -EBADMSG, "process %d: stopped by signal %u", msg->pid, msg->stopped_by);
	if (msg->umask > 0777 || msg->oom_score_adj < -1000 || msg->oom_score_adj > 1000 || msg->dumpable > 2 || msg->mdwe > 3 || msg->autogroup_nice < -20 || msg->autogroup_nice > 19 ||
	    !membarrier_is_valid(msg->membarrier))
		return err_set(e, -EBADMSG, "process %d: value out of range", msg->pid);
	for (size_t i = 0; i < msg->n_memory_policies; i++)
		if (mempolicy_validate(msg->memory_policies[i], e) < 0)
			return -EBADMSG;
	rc = keyring_validate(msg, e);
	if (rc == 0)
		rc = sysv_validate(msg, offer, e);
	if (rc == 0)
		rc = aio_validate(msg, offer, e);
	if (rc == 0)
		rc = uring_validate(msg, e);
	if (rc == 0)
		rc = cgroup_validate(msg, e);
	if (rc == 0)
		rc = cpu_uses_validate(msg, e);
	if (rc == 0)
		rc = xstate_validate_layout(msg, e);
	if (rc < 0 || offer)
		return rc < 0 ? rc : clocks_validate(msg->clocks, e);
	rc = signal_validate_actions(&msg->sigactions, e);
	if (rc < 0)
		return rc;
	rc = signal_validate_queue(&msg->pending, e);
	return rc < 0 ? rc : timer_validate(msg, e);
}
