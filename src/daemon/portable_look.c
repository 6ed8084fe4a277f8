// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * portable_look.c - a process that may say what its state is, as it looks from outside; see portable.h
 *
 * What the program is started with elsewhere is what godwitd can give to any process there: ids, groups, limits. So what it may not do here it must not be able to
 * do there: a process with a filter of system calls, with capabilities that are not those of its user id, or in namespaces of its own is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/util.h"
#include "daemon/portable.h"
#include "kern/nsfs.h"

#define NO_LIBRARY "it does not say what its state is (libgodwit-portable), and only such programs move between architectures"

#define LIMITS_SOFT 26 /* columns of /proc/PID/limits */
#define LIMITS_HARD 47

/* A descriptor of the process that is the page; -1: none. */
static int find_page(pid_t pid)
{
	static const char name[] = "/memfd:" PAGE_NAME " (deleted)";
	char path[64], target[64];
	cleanup_closedir DIR *dir = NULL;
	struct dirent *item;
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && (item = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), item->d_name, target, sizeof(target));
		int fd;

		if (n != (ssize_t)sizeof(name) - 1 || memcmp(target, name, sizeof(name) - 1) != 0)
			continue;
		fd = openat(dirfd(dir), item->d_name, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size == PAGE_BYTES)
			return fd;
		close_fdp(&fd);
	}
	return -1;
}

static bool is_plain(const char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			return false;
	return true;
}

int portable_find(pid_t pid, struct portable_program *ret, struct refusals *r, struct err *e)
{
	struct portable_program p = { .memory_fd = find_page(pid) };
	char text[PAGE_WHY - PAGE_TEXT + 1] = "";
	unsigned form = 0;

	if (p.memory_fd < 0) {
		refusals_add(r, "task.portable", NO_LIBRARY, "move it to a host of the same architecture", "process %d", (int)pid);
		return err_set(e, -ENOENT, "process %d: %s", (int)pid, NO_LIBRARY);
	}
	if (pread(p.memory_fd, text, sizeof(text) - 1, PAGE_TEXT) < 0 ||
	    sscanf(text, "godwit-portable %u program %255[^\n] version %u talk %d machine %31s path %4095[^\n]", &form, p.name, &p.version, &p.talk_number, p.machine, p.path) != 6 ||
	    form != 1 || p.path[0] != '/' || !is_plain(p.name) || !is_plain(p.machine)) {
		close_fdp(&p.memory_fd);
		refusals_add(r, "task.portable", "what its libgodwit-portable says cannot be read: it is of another version, or has not begun", "use the same release on all hosts", "process %d", (int)pid);
		return err_set(e, -ENOENT, "process %d has no page that can be read", (int)pid);
	}
	*ret = p;
	return 0;
}

/* --- as whom it runs --- */

struct status {
	uint32_t uid[4], gid[4];
	uint64_t inheritable, permitted, effective, bounding, ambient;
	unsigned seccomp, no_new_privs;
};

static int read_status(const char *path, struct status *ret, Gw__PortableOffer *offer, struct err *e)
{
	cleanup_fclose FILE *f = fopen(path, "re");
	struct status s = { 0 };
	char line[16384];

	if (!f)
		return err_sys(e, -errno, "%s", path);
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "Uid: %u %u %u %u", &s.uid[0], &s.uid[1], &s.uid[2], &s.uid[3]);
		sscanf(line, "Gid: %u %u %u %u", &s.gid[0], &s.gid[1], &s.gid[2], &s.gid[3]);
		sscanf(line, "CapInh: %lx", &s.inheritable);
		sscanf(line, "CapPrm: %lx", &s.permitted);
		sscanf(line, "CapEff: %lx", &s.effective);
		sscanf(line, "CapBnd: %lx", &s.bounding);
		sscanf(line, "CapAmb: %lx", &s.ambient);
		sscanf(line, "NoNewPrivs: %u", &s.no_new_privs);
		sscanf(line, "Seccomp: %u", &s.seccomp);
		if (!offer || strncmp(line, "Groups:", 7) != 0)
			continue;
		for (char *at = line + 7, *end; offer->n_groups < PORTABLE_GROUPS_MAX; at = end) {
			uint32_t group = (uint32_t)strtoul(at, &end, 10);

			if (end == at)
				break;
			offer->groups[offer->n_groups++] = group;
		}
	}
	*ret = s;
	return 0;
}

static uint64_t read_limit(const char *text)
{
	return !strncmp(text, "unlimited", 9) ? RLIM_INFINITY : strtoull(text, NULL, 10);
}

/* proc_pid_limits(5): a heading, then the limits in the order of their numbers, in columns. */
static int read_limits(pid_t pid, Gw__PortableOffer *offer, struct err *e)
{
	cleanup_fclose FILE *f = NULL;
	char path[64], line[128];

	snprintf(path, sizeof(path), "/proc/%d/limits", (int)pid);
	f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f))
		return err_sys(e, f ? -EIO : -errno, "%s", path);
	while (offer->n_limits < 2ul * PORTABLE_LIMITS && fgets(line, sizeof(line), f) && strlen(line) > LIMITS_HARD) {
		offer->limits[offer->n_limits++] = read_limit(line + LIMITS_SOFT);
		offer->limits[offer->n_limits++] = read_limit(line + LIMITS_HARD);
	}
	return offer->n_limits == 2ul * PORTABLE_LIMITS ? 0 : err_set(e, -EPROTO, "%s has another form", path);
}

static bool all_the_same(const uint32_t id[4])
{
	return id[0] == id[1] && id[0] == id[2] && id[0] == id[3];
}

static void judge_privileges(pid_t pid, const struct status *s, const struct status *own, struct refusals *r)
{
	const char *cause = NULL;

	if (!all_the_same(s->uid) || !all_the_same(s->gid))
		cause = "its user or group ids differ from each other";
	else if (s->uid[0] ? s->permitted || s->ambient || s->inheritable : s->permitted != own->permitted || s->effective != own->permitted)
		cause = "it has other capabilities than its user id has on any host";
	else if (s->bounding != own->bounding)
		cause = "its capabilities are bounded otherwise than godwitd's";
	else if (s->seccomp)
		cause = "it has a filter of system calls, which would not be there";
	if (cause)
		refusals_add(r, "task.portable.privileges", cause, "move it by the engine, to a host of the same architecture", "process %d", (int)pid);
}

static void judge_namespaces(pid_t pid, struct refusals *r)
{
	static const struct {
		const char *name;
		int type;
	} kinds[] = { { "user", NS_USER }, { "mount", NS_MNT }, { "pid", NS_PID }, { "network", NS_NET } };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (ns_id(pid, kinds[i].type) != ns_id(0, kinds[i].type))
			refusals_add(r, "task.portable.namespace", "it would be started in those of the other host's godwitd", "move it by the engine, to a host of the same architecture",
				     "%s namespace of process %d", kinds[i].name, (int)pid);
}

static void judge_children(pid_t pid, struct refusals *r)
{
	char path[64], text[32] = "";
	cleanup_fclose FILE *f = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = fopen(path, "re");
	if (f && fgets(text, sizeof(text), f) && text[0])
		refusals_add(r, "task.portable.children", "only the program itself goes on elsewhere", "wait until they have ended", "children of process %d: %s", (int)pid, text);
}

int portable_look(pid_t pid, Gw__PortableOffer *offer, struct refusals *r, struct err *e)
{
	struct status s, own;
	char path[64];

	offer->groups = calloc(PORTABLE_GROUPS_MAX, sizeof(*offer->groups));
	offer->limits = calloc(2ul * PORTABLE_LIMITS, sizeof(*offer->limits));
	if (!offer->groups || !offer->limits)
		return err_sys(e, -ENOMEM, "the offer");
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (read_status(path, &s, offer, e) < 0 || read_status("/proc/self/status", &own, NULL, e) < 0)
		return e->code;
	if (read_limits(pid, offer, e) < 0)
		return e->code;
	offer->uid = s.uid[0];
	offer->gid = s.gid[0];
	offer->no_new_privs = s.no_new_privs;
	judge_privileges(pid, &s, &own, r);
	judge_namespaces(pid, r);
	judge_children(pid, r);
	return 0;
}

void portable_look_free(Gw__PortableOffer *offer)
{
	free(offer->groups);
	free(offer->limits);
	offer->groups = NULL;
	offer->limits = NULL;
}
