/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vma_sharing.c - what the mappings of all processes of a unit share with the rest of the host; see vma.h */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/vma_internal.h"

struct sharing {
	const pid_t *pids;
	const struct vma_list *const *lists;
	size_t n;
	struct refusals *refusals;
	char *buffer;
	size_t buffer_size;
};

static bool is_ours(const struct sharing *s, pid_t pid)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->pids[i] == pid)
			return true;
	return false;
}

static bool is_segment(const struct vma_line *l)
{
	return l->path_len > 5 && !memcmp(l->path, "/SYSV", 5);
}

/* The inode number of a System V segment is its number, which each IPC namespace counts by itself. */
static bool may_be_same(const struct vma *v, pid_t pid, const struct vma_line *l, pid_t other)
{
	struct stat own, theirs;
	char path[64];

	if (v->ino != l->ino || v->dev != l->dev || is_segment(l) != (v->kind == VMA_SYSV))
		return false;
	if (v->kind != VMA_SYSV)
		return true;
	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", pid);
	if (stat(path, &own) < 0)
		return true;
	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", other);
	return stat(path, &theirs) < 0 || (own.st_ino == theirs.st_ino && own.st_dev == theirs.st_dev);
}

/* The unit's mapping of the same object that travels. */
static const struct vma *find_object(const struct sharing *s, const struct vma_line *l, pid_t other, pid_t *ret_pid)
{
	for (size_t i = 0; i < s->n; i++)
		for (size_t k = 0; k < s->lists[i]->n; k++) {
			const struct vma *v = &s->lists[i]->v[k];

			if (v->content == VMA_CONTENT_SHARED && may_be_same(v, s->pids[i], l, other)) {
				*ret_pid = s->pids[i];
				return v;
			}
		}
	return NULL;
}

static void check_other(struct sharing *s, pid_t other)
{
	struct vma_line l;
	const char *p;
	char path[64];

	if (is_ours(s, other))
		return;
	snprintf(path, sizeof(path), "/proc/%d/maps", other);
	if (vma_read_whole(path, &s->buffer, &s->buffer_size, NULL) <= 0)
		return;
	for (p = s->buffer; *p && vma_parse_line(&p, &l);) {
		const struct vma *v;
		pid_t pid;

		if (!(l.ino || l.dev) || !l.shared || vma_left_out(&l))
			continue;
		v = find_object(s, &l, other, &pid);
		if (!v)
			continue;
		/* Agents, and tasks that only share the address space */
		if (syscall(SYS_kcmp, pid, other, KCMP_VM, 0, 0) == 0)
			return;
		refusals_add(s->refusals, "vma.shared-elsewhere", "it is shared with another process that does not move",
			     "end the other process first", "mapping %llx-%llx (%.*s, also in pid %d)", (unsigned long long)v->start,
			     (unsigned long long)v->end, (int)MIN(l.path_len, 200u), l.path, other);
		refusals_blame(s->refusals, s->refusals->n - 1, other);
		return;
	}
}

int vma_check_sharing(const pid_t *pids, const struct vma_list *const *lists, size_t n, struct refusals *refusals)
{
	struct sharing s = { .pids = pids, .lists = lists, .n = n, .refusals = refusals };
	cleanup_closedir DIR *proc = NULL;
	bool any = false;
	struct dirent *d;

	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < lists[i]->n && !any; k++)
			any = lists[i]->v[k].content == VMA_CONTENT_SHARED;
	if (!any)
		return 0;
	proc = opendir("/proc");
	if (!proc)
		return -errno;
	while ((d = readdir(proc))) {
		pid_t other = isdigit((unsigned char)d->d_name[0]) ? atoi(d->d_name) : 0;

		if (other)
			check_other(&s, other);
	}
	free(s.buffer);
	return 0;
}

/* --- huge pages on the destination --- */

static uint64_t read_number(unsigned shift, const char *name)
{
	char path[128], text[32] = "";
	cleanup_close int fd = -1;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/%s", (1ull << shift) / 1024, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 ? 0 : strtoull(text, NULL, 10);
}

/* Pages that nobody has and nobody has reserved; those that the kernel may still make count too. */
static uint64_t huge_pages_free(unsigned shift)
{
	uint64_t unused = read_number(shift, "free_hugepages"), reserved = read_number(shift, "resv_hugepages");
	uint64_t more = read_number(shift, "nr_overcommit_hugepages"), surplus = read_number(shift, "surplus_hugepages");

	return (unused > reserved ? unused - reserved : 0) + (more > surplus ? more - surplus : 0);
}

void vma_validate_here(const struct vma_list *const *lists, size_t n, const struct fsfile_table *files, struct refusals *refusals)
{
	static const unsigned shifts[] = { 21, 30 };

	for (size_t s = 0; s < ARRAY_SIZE(shifts); s++) {
		uint64_t bytes = 0, need, have, bit = shifts[s] == 21 ? VMA_HUGE_2M : VMA_HUGE_1G;

		for (size_t i = 0; i < n; i++)
			for (size_t k = 0; k < lists[i]->n; k++)
				if (lists[i]->v[k].bits & bit)
					bytes += lists[i]->v[k].end - lists[i]->v[k].start;
		for (uint32_t i = 0; i < files->n; i++)
			if (files->v[i].huge_shift == shifts[s])
				bytes += files->v[i].size;
		need = bytes >> shifts[s];
		have = need ? huge_pages_free(shifts[s]) : 0;
		if (need > have)
			refusals_add(refusals, "vma.hugetlb", "the destination has not so many free huge pages",
				     "raise vm.nr_hugepages there", "%llu huge pages of %llu KiB (%llu free)", (unsigned long long)need,
				     (1ull << shifts[s]) / 1024, (unsigned long long)have);
	}
}
