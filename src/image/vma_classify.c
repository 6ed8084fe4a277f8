/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vma_classify.c - what a mapping is; see vma.h
 *
 * Names in /proc/PID/maps can be forged (a memfd or a file may be called almost anything), so what has a device and an
 * inode number is opened through map_files and looked at. Names in brackets without an inode come from the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "base/util.h"
#include "image/fsfile_internal.h"
#include "image/vma_internal.h"

void vma_refuse(struct vma_reader *r, const struct vma_line *l, const char *code, const char *cause, const char *way_out)
{
	r->list->complete = false;
	refusals_add(r->refusals, code, cause, way_out, "mapping %llx-%llx%s%.*s%s", (unsigned long long)l->start,
		     (unsigned long long)l->end, l->path_len ? " (" : "", (int)MIN(l->path_len, 200u), l->path, l->path_len ? ")" : "");
}

/* An anonymous mapping's name, from "[anon:NAME]". */
static void take_name(const struct vma_line *l, struct vma *v)
{
	const char *colon = vma_line_starts(l, "[anon") ? memchr(l->path, ':', l->path_len) : NULL;
	size_t len;

	if (!colon)
		return;
	len = l->path + l->path_len - 1 - (colon + 1);
	len = MIN(len, VMA_NAME_MAX - 1);
	memcpy(v->name, colon + 1, len);
}

/* Mappings without an inode: anonymous memory and what the kernel maps. Returns 1 to keep it, 0 when refused. */
static int classify_kernel(struct vma_reader *r, const struct vma_line *l, struct vma *v)
{
	if (!l->path_len || vma_line_starts(l, "[heap]") || vma_line_starts(l, "[stack") || vma_line_starts(l, "[anon:")) {
		v->kind = VMA_ANON;
		v->content = VMA_CONTENT_ANON;
		v->offset = 0;
		take_name(l, v);
		return 1;
	}
	if (vma_line_starts(l, "[vdso]") || vma_line_starts(l, "[vvar")) {
		v->kind = vma_line_starts(l, "[vdso]") ? VMA_VDSO : VMA_VVAR;
		v->content = VMA_CONTENT_NONE;
		v->bits = 0;
		return 1;
	}
	if (vma_line_starts(l, "[uprobes]"))
		vma_refuse(r, l, "vma.uprobes", "the program is being traced with uprobes", "end the tracing first");
	else
		vma_refuse(r, l, "vma.special", "the kernel's own mapping of this kind is not known",
		       "close what made it before moving the program");
	return 0;
}

/* Device nodes, anonymous inodes, sockets: only /dev/zero can be carried. */
static int classify_special(struct vma_reader *r, const struct vma_line *l, const struct stat *st, struct vma *v)
{
	if (S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 5) && !l->shared) {
		v->kind = VMA_ANON;
		v->content = VMA_CONTENT_ANON;
		v->offset = 0;
		return 1;
	}
	if (vma_line_starts(l, "anon_inode:[io_uring]"))
		vma_refuse(r, l, "vma.io-uring", "io_uring rings cannot move yet",
		       "let the program use epoll (redis: io-threads; node: UV_USE_IO_URING=0)");
	else if (vma_line_starts(l, "anon_inode:[perf_event]"))
		vma_refuse(r, l, "vma.perf", "performance counters belong to this host", "end the profiling first");
	else if (vma_line_starts(l, "socket:"))
		vma_refuse(r, l, "vma.packet", "packet rings of a socket cannot move", "close the capture first");
	else
		vma_refuse(r, l, "vma.device", "a mapped device or kernel object cannot move to another host",
		       "close it before moving the program");
	return 0;
}

/* Whether an earlier mapping is of the same object. */
static bool seen_before(const struct vma_reader *r, const struct vma_line *l)
{
	for (size_t i = 0; i < r->list->n; i++)
		if (r->list->v[i].dev == l->dev && r->list->v[i].ino == l->ino)
			return true;
	return false;
}

/* Shared anonymous memory that turns out to be mapped more than once is a file, so that it stays one object. */
static void join_mappings(struct vma_reader *r, const struct vma *v)
{
	for (size_t i = 0; i < r->list->n; i++) {
		struct vma *other = &r->list->v[i];

		if (other->kind != VMA_SHARED_ANON || other->dev != v->dev || other->ino != v->ino)
			continue;
		other->kind = VMA_FILE_SHARED;
		other->file = v->file;
		r->files->v[v->file].uses |= other->bits & VMA_WRITE_SHARED ? FSFILE_MAPPED_WRITE : FSFILE_MAPPED_SHARED;
	}
}

/*
 * Memory of the kernel's own tmpfs: memfds, shared anonymous memory, System V segments. Returns 1 to go on as a file, 2
 * to keep, 0 when refused.
 */
static int classify_shm(struct vma_reader *r, const struct vma_line *l, const struct stat *st, struct vma *v)
{
	if (vma_line_starts(l, "/SYSV")) {
		vma_refuse(r, l, "vma.sysv", "System V shared memory cannot move yet", "detach the segment (shmdt) first");
		return 0;
	}
	if (vma_line_starts(l, "/dev/zero") && l->shared && !l->offset && (uint64_t)st->st_size == l->end - l->start && !seen_before(r, l)) {
		v->kind = VMA_SHARED_ANON;
		v->content = VMA_CONTENT_SHARED;
		return 2;
	}
	v->content = l->shared ? VMA_CONTENT_SHARED : VMA_CONTENT_PRIVATE;
	return 1;
}

/* A file that an earlier mapping refers to as well: no need to open it again. */
static int known_file(struct vma_reader *r, const struct vma_line *l)
{
	size_t n = r->list->n;

	for (size_t i = n; i-- > 0 && n - i < 64;) {
		const struct vma *v = &r->list->v[i];

		if (v->file >= 0 && v->dev == l->dev && v->ino == l->ino && (v->kind == VMA_FILE_SHARED) == l->shared &&
		    r->files->v[v->file].type == FSFILE_REGULAR)
			return v->file;
	}
	return -1;
}

/* Mappings with an inode. Returns 1 to keep it, 0 when refused, or an error. */
static int classify_file(struct vma_reader *r, const struct vma_line *l, struct vma *v)
{
	uint32_t uses = !l->shared ? FSFILE_MAPPED_PRIVATE : v->bits & VMA_WRITE_SHARED ? FSFILE_MAPPED_WRITE : FSFILE_MAPPED_SHARED;
	cleanup_close int fd = -1;
	int known = known_file(r, l), kept;
	uint32_t index;
	struct statfs fs;
	struct stat st;
	char link[80];

	v->kind = l->shared ? VMA_FILE_SHARED : VMA_FILE_PRIVATE;
	v->content = l->shared ? VMA_CONTENT_NONE : VMA_CONTENT_PRIVATE;
	if (known >= 0) {
		r->files->v[known].uses |= uses;
		v->file = known;
		return 1;
	}
	snprintf(link, sizeof(link), "/proc/%d/map_files/%llx-%llx", r->pid, (unsigned long long)l->start, (unsigned long long)l->end);
	fd = open(link, O_PATH | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return err_set(r->e, -EAGAIN, "mapping %llx went away while the layout was read", (unsigned long long)l->start);
	if (fd < 0)
		return err_sys(r->e, -errno, "%s (CAP_CHECKPOINT_RESTORE is needed)", link);
	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return err_sys(r->e, -errno, "%s", link);
	if (fs.f_type == 0x5345434d) {
		vma_refuse(r, l, "vma.secretmem", "secret memory (memfd_secret) cannot be read from outside", "start the program without it");
		return 0;
	}
	if (vma_line_starts(l, "/[aio]")) {
		vma_refuse(r, l, "vma.aio", "contexts of asynchronous I/O (io_setup) cannot move yet",
		       "configure the program not to use native AIO");
		return 0;
	}
	if (!S_ISREG(st.st_mode))
		return classify_special(r, l, &st, v);
	if (st.st_dev == r->shm_dev) {
		kept = classify_shm(r, l, &st, v);
		if (kept != 1)
			return kept ? 1 : 0;
	}
	kept = fsfile_add_fd(r->files, fd, uses, &index, r->e);
	if (kept < 0)
		return err_wrap(r->e, "mapping %llx", (unsigned long long)l->start);
	take_fd(&fd);
	v->file = index;
	if (r->files->v[index].type == FSFILE_MEMFD)
		join_mappings(r, v);
	return 1;
}

int vma_classify(struct vma_reader *r, const struct vma_line *l, struct vma *v)
{
	v->start = l->start;
	v->end = l->end;
	v->offset = l->offset;
	v->dev = l->dev;
	v->ino = l->ino;
	v->prot = l->prot;
	v->file = -1;
	if (!l->ino && !l->dev)
		return classify_kernel(r, l, v);
	return classify_file(r, l, v);
}
