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
		/* What may be dropped at any time is: no userfaultfd works there. */
		v->content = v->bits & VMA_DROPPABLE ? VMA_CONTENT_NONE : VMA_CONTENT_ANON;
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
	if (vma_line_starts(l, "anon_inode:[io_uring]")) {
		v->kind = VMA_URING;
		v->content = VMA_CONTENT_NONE;
		v->bits = 0;
		return 1;
	}
	if (vma_line_starts(l, "anon_inode:[perf_event]"))
		vma_refuse(r, l, "vma.perf", "performance counters belong to this host", "end the profiling first");
	else if (vma_line_starts(l, "socket:"))
		vma_refuse(r, l, "vma.packet", "packet rings of a socket cannot move", "close the capture first");
	else
		vma_refuse(r, l, "vma.device", "a mapped device or kernel object cannot move to another host",
		       "close it before moving the program");
	return 0;
}

/*
 * Memory of the kernel's own tmpfs or of hugetlbfs: memfds, shared anonymous memory, System V segments. Returns 1 to go on as a file, 2 to keep, 0
 * when refused.
 */
static int classify_memory(struct vma_reader *r, const struct vma_line *l, const struct stat *st, const struct statfs *fs, struct vma *v)
{
	bool huge = fs->f_type == FSFILE_HUGETLBFS_MAGIC;

	if (huge && vma_line_starts(l, "/anon_hugepage") && !l->shared) {
		v->kind = VMA_HUGE;
		v->content = VMA_CONTENT_PRIVATE;
		v->bits |= fs->f_bsize == 2 << 20 ? VMA_HUGE_2M : VMA_HUGE_1G;
		return 2;
	}
	if (huge && !vma_line_starts(l, "/anon_hugepage") && !vma_line_starts(l, "/memfd:") && !vma_line_starts(l, "/SYSV")) {
		vma_refuse(r, l, "vma.hugetlb", "files of a mounted hugetlbfs cannot move yet", "let the program use MAP_HUGETLB or memfd_create");
		return 0;
	}
	v->content = l->shared ? VMA_CONTENT_SHARED : VMA_CONTENT_PRIVATE;
	if (vma_line_starts(l, "/SYSV")) {
		uint64_t page = huge ? (uint64_t)fs->f_bsize : PAGE_SIZE_BYTES;

		v->kind = VMA_SYSV;
		v->object_bytes = ((uint64_t)st->st_size + page - 1) & ~(page - 1);
	}
	return 1;
}

/* A file that an earlier mapping refers to as well: no need to open it again. */
static int known_file(struct vma_reader *r, const struct vma_line *l)
{
	size_t n = r->list->n;

	for (size_t i = n; i-- > 0 && n - i < 64;) {
		const struct vma *v = &r->list->v[i];

		if (v->file >= 0 && v->dev == l->dev && v->ino == l->ino && (v->kind != VMA_FILE_PRIVATE) == l->shared &&
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
		v->kind = VMA_AIO;
		v->content = VMA_CONTENT_NONE;
		v->bits = 0;
		return 1;
	}
	if (!S_ISREG(st.st_mode))
		return classify_special(r, l, &st, v);
	if (st.st_dev == r->shm_dev || fs.f_type == FSFILE_HUGETLBFS_MAGIC) {
		kept = classify_memory(r, l, &st, &fs, v);
		if (kept != 1)
			return kept ? 1 : 0;
	}
	kept = fsfile_add_fd(r->files, fd, uses, &index, r->e);
	if (kept < 0)
		return err_wrap(r->e, "mapping %llx", (unsigned long long)l->start);
	take_fd(&fd);
	v->file = index;
	r->files->v[index].noreserve |= l->shared && (v->bits & VMA_NORESERVE);
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
