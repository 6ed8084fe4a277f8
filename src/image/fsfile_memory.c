/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsfile_memory.c - objects of memory that are treated as files: memfds, shared anonymous memory, System V segments; see fsfile.h
 *
 * The destination makes an object of the same kind, so that /proc/PID/maps, ipcs(1) and seals show what they showed. Shared anonymous memory and segments have
 * no descriptor; one is had through /proc/self/map_files while the worker maps the object for a moment. A segment gets its number by
 * /proc/sys/kernel/shm_next_id; see sysvipc(7), memfd_create(2), fcntl(2).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/util.h"
#include "image/fsfile_internal.h"

#ifndef SHM_STAT_ANY
#define SHM_STAT_ANY 15
#endif
#ifndef SHM_DEST
#define SHM_DEST 01000
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#define HUGE_SHIFT_BITS 26 /* where mmap, memfd_create and shmget take the size of huge pages */
#define SYSV_INDEX_MASK 0x7fff
#define NEXT_ID "/proc/sys/kernel/shm_next_id"

enum fsfile_type fsfile_memory_type(const char *path)
{
	if (!strncmp(path, "/memfd:", 7))
		return FSFILE_MEMFD;
	if (!strncmp(path, "/SYSV", 5))
		return FSFILE_SYSV;
	if (!strcmp(path, "/dev/zero") || !strcmp(path, "/anon_hugepage"))
		return FSFILE_SHARED_ANON;
	return FSFILE_REGULAR;
}

static int read_seals(int fd, struct fsfile *f, struct err *e)
{
	cleanup_close int opened = f->read_fd >= 0 ? -1 : fsfile_reopen(fd, O_RDONLY);
	int readable = f->read_fd >= 0 ? f->read_fd : opened, seals;

	if (readable < 0)
		return err_sys(e, readable, "%s", f->path);
	seals = fcntl(readable, F_GET_SEALS);
	f->seals = seals < 0 ? F_SEAL_SEAL : (uint32_t)seals;
	return 0;
}

/* The kernel shows a segment's number as the inode number of its file. */
static int read_segment(struct fsfile *f, struct err *e)
{
	struct shmid_ds ds;

	if (shmctl((int)f->ino, IPC_STAT, &ds) < 0)
		return err_sys(e, -errno, "System V shared memory %d (%s)", (int)f->ino, f->path);
	f->sysv.id = (int32_t)f->ino;
	f->sysv.key = ds.shm_perm.__key;
	f->sysv.cuid = ds.shm_perm.cuid;
	f->sysv.cgid = ds.shm_perm.cgid;
	f->sysv.destroyed = ds.shm_perm.mode & SHM_DEST;
	f->uid = ds.shm_perm.uid;
	f->gid = ds.shm_perm.gid;
	f->mode = ds.shm_perm.mode & 0777;
	f->size = ds.shm_segsz;
	return 0;
}

int fsfile_memory_read(int fd, struct fsfile *f, struct err *e)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return err_sys(e, -errno, "%s", f->path);
	f->huge_shift = fs.f_type == FSFILE_HUGETLBFS_MAGIC ? (uint32_t)__builtin_ctzll((uint64_t)fs.f_bsize) : 0;
	if (f->type == FSFILE_SYSV)
		return read_segment(f, e);
	return f->type == FSFILE_MEMFD ? read_seals(fd, f, e) : 0;
}

void fsfile_memory_match(const struct fsfile *f, struct refusals *refusals)
{
	struct shmid_ds ds;
	int id;

	if (f->type != FSFILE_SYSV)
		return;
	id = shmctl(f->sysv.id & SYSV_INDEX_MASK, SHM_STAT_ANY, &ds);
	if (id >= 0)
		refusals_add(refusals, "vma.sysv.id", "on the destination its number belongs to another segment",
			     "remove that one (ipcrm), when nobody needs it", "System V shared memory %d (there: %d, key %#x)", f->sysv.id, id,
			     (unsigned)ds.shm_perm.__key);
	if (f->sysv.key != IPC_PRIVATE && (shmget(f->sysv.key, 0, 0) >= 0 || errno != ENOENT))
		refusals_add(refusals, "vma.sysv.key", "on the destination its key belongs to another segment",
			     "remove that one (ipcrm -M KEY), when nobody needs it", "System V shared memory %d (key %#x)", f->sysv.id,
			     (unsigned)f->sysv.key);
}

/* A descriptor for what is mapped at p in this process. */
static int open_mapped(const char *p, size_t len, struct err *e)
{
	char link[80];
	int fd;

	snprintf(link, sizeof(link), "/proc/self/map_files/%lx-%lx", (unsigned long)p, (unsigned long)(p + len));
	fd = open(link, O_RDWR | O_CLOEXEC);
	return fd < 0 ? err_sys(e, -errno, "%s (CAP_CHECKPOINT_RESTORE is needed)", link) : fd;
}

static uint64_t whole_pages(const struct fsfile *f)
{
	uint64_t page = f->huge_shift ? 1ull << f->huge_shift : PAGE_SIZE_BYTES;

	return (f->size + page - 1) & ~(page - 1);
}

static int make_anonymous(const struct fsfile *f, struct err *e)
{
	int flags = MAP_SHARED | MAP_ANONYMOUS | (f->noreserve ? MAP_NORESERVE : 0);
	size_t len = whole_pages(f);
	char *p;
	int fd;

	if (f->huge_shift)
		flags |= MAP_HUGETLB | (int)(f->huge_shift << HUGE_SHIFT_BITS);
	p = mmap(NULL, len, PROT_NONE, flags, -1, 0);
	if (p == MAP_FAILED)
		return err_sys(e, -errno, "shared anonymous memory of %zu bytes", len);
	fd = open_mapped(p, len, e);
	munmap(p, len);
	return fd;
}

static int make_memfd(const struct fsfile *f, struct err *e)
{
	unsigned flags = MFD_CLOEXEC | (f->seals == F_SEAL_SEAL ? 0 : MFD_ALLOW_SEALING);
	char name[256];
	int fd;

	snprintf(name, sizeof(name), "%.240s", strncmp(f->path, "/memfd:", 7) ? "memory" : f->path + 7);
	if (f->huge_shift)
		flags |= MFD_HUGETLB | f->huge_shift << HUGE_SHIFT_BITS;
	fd = memfd_create(name, flags);
	return fd < 0 ? err_sys(e, -errno, "memfd_create") : fd;
}

/* As its creator, whom the kernel writes down, with the capabilities of this worker. Returns the number or -errno. */
static int create_segment(const struct fsfile *f)
{
	unsigned flags = IPC_CREAT | IPC_EXCL | f->mode | (f->noreserve ? SHM_NORESERVE : 0);
	int id, code, bits = prctl(PR_GET_SECUREBITS);
	gid_t gid = getegid();
	uid_t uid = geteuid();

	if (f->huge_shift)
		flags |= SHM_HUGETLB | f->huge_shift << HUGE_SHIFT_BITS;
	/* Of this thread only: the wrappers of the C library would change all. */
	if (bits < 0 || prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP) < 0)
		return -errno;
	if (syscall(SYS_setresgid, -1, f->sysv.cgid, -1) < 0 || syscall(SYS_setresuid, -1, f->sysv.cuid, -1) < 0)
		return -errno;
	id = shmget(f->sysv.key, f->size, (int)flags);
	code = -errno;
	if (syscall(SYS_setresuid, -1, uid, -1) < 0 || syscall(SYS_setresgid, -1, gid, -1) < 0 || prctl(PR_SET_SECUREBITS, bits) < 0)
		return -errno;
	return id < 0 ? code : id;
}

static int make_segment(const struct fsfile *f, struct err *e)
{
	cleanup_close int next = open(NEXT_ID, O_WRONLY | O_CLOEXEC);
	char text[16];
	char *p;
	int id, fd, len = snprintf(text, sizeof(text), "%d", f->sysv.id);

	if (next < 0 || write(next, text, (size_t)len) != len)
		return err_sys(e, -errno, "System V shared memory %d: " NEXT_ID, f->sysv.id);
	id = create_segment(f);
	if (id < 0)
		return err_sys(e, id, "System V shared memory %d of %llu bytes", f->sysv.id, (unsigned long long)f->size);
	if (id != f->sysv.id) {
		shmctl(id, IPC_RMID, NULL);
		return err_set(e, -EAGAIN, "System V shared memory %d: the number has been taken on the destination meanwhile", f->sysv.id);
	}
	p = shmat(id, NULL, 0);
	fd = p == (void *)-1 ? err_sys(e, -errno, "shmat") : open_mapped(p, whole_pages(f), e);
	if (p != (void *)-1)
		shmdt(p);
	if (fd < 0)
		shmctl(id, IPC_RMID, NULL);
	return fd;
}

int fsfile_memory_make(const struct fsfile *f, struct err *e)
{
	if (f->type == FSFILE_SYSV)
		return make_segment(f, e);
	return f->type == FSFILE_SHARED_ANON ? make_anonymous(f, e) : make_memfd(f, e);
}

int fsfile_memory_write(const struct fsfile *f, int fd, uint64_t offset, const void *data, size_t len_bytes, struct err *e)
{
	uint64_t huge = 1ull << f->huge_shift, start = offset & ~(huge - 1), end = (offset + len_bytes + huge - 1) & ~(huge - 1);
	char *p = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)start);

	if (p == MAP_FAILED)
		return err_sys(e, -errno, "%s: huge pages", f->path);
	memcpy(p + (offset - start), data, len_bytes);
	munmap(p, end - start);
	return 0;
}

/* Seals that are set when the mappings are there: they forbid writable ones, but not those that are older. */
static uint32_t late_seals(const struct fsfile *f)
{
	return f->seals & F_SEAL_FUTURE_WRITE && !(f->seals & F_SEAL_WRITE) ? f->seals : 0;
}

static int add_seals(const struct fsfile *f, int fd, struct err *e)
{
	int now = fcntl(fd, F_GET_SEALS);

	if (now < 0 || !(f->seals & ~(uint32_t)now))
		return 0;
	if (fcntl(fd, F_ADD_SEALS, f->seals) == 0)
		return 0;
	/* It was sealed after its mappings had been made here as they were then. */
	return errno == EBUSY ? err_set(e, -EAGAIN, "%s has been sealed during the preparation", f->path) : err_sys(e, -errno, "%s: seals", f->path);
}

static int set_segment_owner(const struct fsfile *f, struct err *e)
{
	struct shmid_ds ds;

	if (shmctl(f->sysv.id, IPC_STAT, &ds) < 0)
		return err_sys(e, -errno, "System V shared memory %d", f->sysv.id);
	ds.shm_perm.uid = f->uid;
	ds.shm_perm.gid = f->gid;
	ds.shm_perm.mode = (ds.shm_perm.mode & ~0777u) | (f->mode & 0777);
	return shmctl(f->sysv.id, IPC_SET, &ds) < 0 ? err_sys(e, -errno, "System V shared memory %d: owner and mode", f->sysv.id) : 0;
}

int fsfile_memory_finish(const struct fsfile *f, int fd, struct err *e)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { f->mtime_ns / 1000000000, f->mtime_ns % 1000000000 } };

	if (f->type == FSFILE_SYSV)
		return set_segment_owner(f, e);
	if (f->type == FSFILE_SHARED_ANON)
		return 0;
	if (fchown(fd, f->uid, f->gid) < 0 || fchmod(fd, f->mode) < 0)
		return err_sys(e, -errno, "%s: owner and mode", f->path);
	if (f->mtime_ns >= 0 && futimens(fd, times) < 0)
		return err_sys(e, -errno, "%s: times", f->path);
	return late_seals(f) ? 0 : add_seals(f, fd, e);
}

int fsfile_memory_finish_late(const struct fsfile *f, int fd, struct err *e)
{
	if (f->type == FSFILE_SYSV && f->sysv.destroyed && shmctl(f->sysv.id, IPC_RMID, NULL) < 0)
		return err_sys(e, -errno, "System V shared memory %d: IPC_RMID", f->sysv.id);
	return f->type == FSFILE_MEMFD && late_seals(f) ? add_seals(f, fd, e) : 0;
}

void fsfile_memory_remove(const struct fsfile *f)
{
	if (f->type == FSFILE_SYSV)
		shmctl(f->sysv.id, IPC_RMID, NULL);
}
