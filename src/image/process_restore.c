/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* process_restore.c - what belongs to a process, at the destination; see process.h */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/cpu_uses.h"
#include "image/cwd.h"
#include "image/loginuid.h"
#include "image/mempolicy.h"
#include "image/ns_info.h"
#include "image/place.h"
#include "image/process.h"
#include "image/process_abi.h"
#include "image/sysv.h"
#include "image/xstate.h"
#include "kern/nsfs.h"

#define DUMPABLE_BY_ROOT 2 /* cannot be set by prctl: what a change of ids gives under fs.suid_dumpable=2 */

static const char *const rlimit_names[PROCESS_RLIMITS] = {
	"cpu time", "file size", "data", "stack", "core", "resident set", "processes", "open files", "locked memory", "address space",
	"file locks", "pending signals", "message queue bytes", "nice", "real-time priority", "real-time time",
};

static bool have_sys_resource(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_SYS_RESOURCE & 1);
}

/* `space`: of the mount namespace that the process is in. */
static void check_root(uint32_t space, const char *path, struct refusals *r)
{
	char marked[PATH_MAX + 64];
	struct stat st;

	if (!place_mark(space, path, marked, sizeof(marked)) || stat(place_of(marked), &st) < 0 || !S_ISDIR(st.st_mode))
		refusals_add(r, "task.directory", "there is no such directory on the destination", "make it there", "root directory %s", path);
}

static int own_oom_score_adj(void)
{
	cleanup_fclose FILE *f = fopen("/proc/self/oom_score_adj", "re");
	int value = 0;

	if (!f || fscanf(f, "%d", &value) != 1)
		return 0;
	return value;
}

static void check_limits(const Gw__Process *msg, bool may_raise, struct refusals *r)
{
	struct rlimit own;

	for (unsigned i = 0; i < PROCESS_RLIMITS; i++) {
		if (may_raise || getrlimit((int)i, &own) < 0 || msg->rlimits[2 * i + 1] <= own.rlim_max)
			continue;
		refusals_add(r, "task.rlimit", "godwitd on the destination has a lower hard limit and may not raise it",
			     "start the destination's godwitd with a higher limit, or with CAP_SYS_RESOURCE", "limit on %s (%llu)", rlimit_names[i],
			     (unsigned long long)msg->rlimits[2 * i + 1]);
	}
}

static bool has_limits_of(const Gw__Process *msg, const Gw__Process *other)
{
	return msg->n_rlimits == other->n_rlimits && !memcmp(msg->rlimits, other->rlimits, msg->n_rlimits * sizeof(*msg->rlimits));
}

void process_validate_here(const Gw__Process *msg, const Gw__Process *known, struct refusals *r)
{
	uint32_t space = msg->n_namespaces ? msg->namespaces[NS_MNT] : 0;
	uint64_t lacking = cpu_uses_state(known ? known : msg) & ~xstate_layout_here()->features;
	bool may_raise = false;

	if (!known || !has_limits_of(msg, known) || msg->oom_score_adj != known->oom_score_adj) {
		may_raise = have_sys_resource();
		check_limits(msg, may_raise, r);
	}
	if ((!known || msg->oom_score_adj != known->oom_score_adj) && msg->oom_score_adj < own_oom_score_adj() && !may_raise)
		refusals_add(r, "task.oom-score", "lowering it needs CAP_SYS_RESOURCE, which godwitd on the destination lacks",
			     "raise the process's oom_score_adj, or lower that of the destination's godwitd", "oom_score_adj %d",
			     msg->oom_score_adj);
	if (!known)
		cpu_uses_check(msg, r);
	/* One that has not used them yet may do so after the move. */
	if (lacking)
		refusals_add(r, "host.cpu", "the destination's processor lacks registers that the source's has",
			     "choose a destination with the same features", "processor state 0x%llx", (unsigned long long)lacking);
	if (msg->dumpable == DUMPABLE_BY_ROOT)
		refusals_add(r, "task.dumpable", "this mode cannot be set by a program", "set sysctl fs.suid_dumpable to 0 before it starts",
			     "process %d (dumpable by root only)", msg->pid);
	sysv_validate_here(msg, r);
	if (!known || msg->loginuid_plus_1 != known->loginuid_plus_1)
		loginuid_validate_here(msg, r);
	if (!known || strcmp(msg->cwd, known->cwd) != 0)
		cwd_validate_here(msg, r);
	if (!known || strcmp(msg->root, known->root) != 0)
		check_root(space, msg->root, r);
}

static void plan_early(struct batch *b, const Gw__Process *msg)
{
	if (!msg->cwd_removed)
		cwd_plan(b, msg, false);
	if (strcmp(msg->root, "/") != 0)
		batch_call(b, "chroot", SYS_chroot, batch_string(b, msg->root));
	batch_call(b, "umask", SYS_umask, msg->umask);
	signal_plan_defaults(b);
}

static void plan_late(struct batch *b, const Gw__Process *msg, const Gw__Process *early, const struct present *present)
{
	for (unsigned i = 0; i < PROCESS_RLIMITS; i++)
		if (i != RLIMIT_SIGPENDING && !present_has_limit(present, i, &msg->rlimits[2 * i]))
			batch_call(b, "prlimit64", SYS_prlimit64, 0, i, batch_data(b, &msg->rlimits[2 * i], 16), 0);
	signal_plan_actions(b, msg);
	/* ids changed by other modules or threads make it undumpable again, so it is set each time */
	batch_call(b, "prctl(PR_SET_DUMPABLE)", SYS_prctl, PR_SET_DUMPABLE, msg->dumpable == 1);
	if (!present_has_personality(present, msg->personality))
		batch_call(b, "personality", SYS_personality, msg->personality);
	mempolicy_plan_bind(b, msg);
	if (msg->child_subreaper)
		batch_call(b, "prctl(PR_SET_CHILD_SUBREAPER)", SYS_prctl, PR_SET_CHILD_SUBREAPER, msg->child_subreaper);
	if (msg->thp_disable)
		batch_call(b, "prctl(PR_SET_THP_DISABLE)", SYS_prctl, PR_SET_THP_DISABLE, msg->thp_disable, msg->thp_disable_flags);
	if (msg->memory_merge)
		batch_call(b, "prctl(PR_SET_MEMORY_MERGE)", SYS_prctl, PR_SET_MEMORY_MERGE, msg->memory_merge);
	if (msg->xcomp_permitted >> XSTATE_TILE_DATA & 1)
		batch_call(b, "arch_prctl(ARCH_REQ_XCOMP_PERM)", SYS_arch_prctl, PROCESS_ARCH_REQ_XCOMP_PERM, XSTATE_TILE_DATA);
	if (msg->umask != early->umask)
		batch_call(b, "umask", SYS_umask, msg->umask);
	if (!msg->cwd_removed && (early->cwd_removed || strcmp(msg->cwd, early->cwd) != 0))
		cwd_plan(b, msg, true);
	if (msg->mdwe) /* from here on no mapping becomes executable */
		batch_call(b, "prctl(PR_SET_MDWE)", SYS_prctl, PR_SET_MDWE, msg->mdwe);
}

int process_plan_restore(struct batch *b, const Gw__Process *msg, enum process_stage stage, const struct process_before *before, uint64_t now_ns)
{
	switch (stage) {
	case PROCESS_EARLY:
		plan_early(b, msg);
		break;
	case PROCESS_THREADS:
		timer_plan_create(b, msg);
		break;
	case PROCESS_LATE:
		plan_late(b, msg, before->early, before->present);
		break;
	case PROCESS_ARM:
		signal_plan_queue(b, msg->pid, msg->pid, true, &msg->pending);
		timer_plan_arm(b, msg, now_ns);
		break;
	}
	return 0;
}

bool process_plan_pending_limit(struct batch *b, const Gw__Process *msg, const struct present *present)
{
	if (present_has_limit(present, RLIMIT_SIGPENDING, &msg->rlimits[2 * RLIMIT_SIGPENDING]))
		return false;
	batch_call(b, "prlimit64", SYS_prlimit64, 0, RLIMIT_SIGPENDING, batch_data(b, &msg->rlimits[2 * RLIMIT_SIGPENDING], 16), 0);
	return true;
}

static int write_number(pid_t pid, const char *name, bool hex, long number, struct err *e)
{
	cleanup_close int fd = -1;
	char path[64], text[32];
	int len = snprintf(text, sizeof(text), hex ? "0x%lx" : "%ld", number);

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)len) != len)
		return err_sys(e, -errno, "%s: writing %s", path, text);
	return 0;
}

int process_restore_outside(pid_t pid, const Gw__Process *msg, const Gw__Process *done, struct err *e)
{
	int rc = 0;

	if (!done || msg->oom_score_adj != done->oom_score_adj)
		rc = write_number(pid, "oom_score_adj", false, msg->oom_score_adj, e);
	/* One whose session began outside of the unit is in godwitd's group. */
	if (rc == 0 && msg->autogroup_nice && msg->sid && (!done || msg->autogroup_nice != done->autogroup_nice) && access("/proc/self/autogroup", F_OK) == 0)
		rc = write_number(pid, "autogroup", false, msg->autogroup_nice, e);
	if (rc == 0 && msg->coredump_filter && (!done || msg->coredump_filter != done->coredump_filter))
		rc = write_number(pid, "coredump_filter", true, msg->coredump_filter, e);
	return rc;
}
