/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsfile.h - the files that a process refers to, by a mapping or by a descriptor
 *
 * The source collects them in one table (an index into it is what mappings and descriptors carry). The destination looks
 * for each at the same path (fsfile_match) and answers how it will have it:
 *
 *   HAVE      the same file, or one with the same content where it is only mapped privately; nothing is sent
 *   STAND_IN  only mapped or read: a sparse file of the same size under FSFILE_DIR, filled with what is mapped (or all of it)
 *   CREATE    absent at its path, and writable by the process: made there, with content, mode, owner and times
 *   TEMP      unlinked at the source: a file without a name; for memory (FSFILE_MEMFD and what follows it) an object of the same kind
 *   REFUSE    another file is at the path and the process could write to it
 *
 * A file in a directory that home serves (view.h) is HAVE, by its inode number. Which directories those are is decided by fsfile_policy.h.
 *
 * A file that was made for a unit (CREATE), and one that a unit has left behind because the destination made it, carries a mark
 * (extended attribute trusted.godwit.unit, where the file system has them). When the unit comes back, such a file is replaced,
 * unless somebody else has changed it meanwhile.
 *
 * What proves that two files are one: the same boot id, device and inode (one kernel); or the same network file system
 * with the same inode, size and mtime; or, for files that are only mapped privately or read, the same size and build-id
 * (mapped), or the same SHA-256 where there is no build-id.
 *
 * Contents of STAND_IN, CREATE and TEMP travel before the freeze (fsfile_content_next, fsfile_put); fsfile_changed says
 * inside the freeze which must be sent again. Writes through shared mappings do not always move the mtime: pages of
 * writable shared mappings travel as pages (VMA_CONTENT_SHARED, see vma_list_apply_answers).
 */
#ifndef GODWIT_IMAGE_FSFILE_H
#define GODWIT_IMAGE_FSFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "image/refuse.h"
#include "xattr.pb-c.h"

#define FSFILE_DIR "/var/lib/godwit/files"
#define FSFILE_MAX 65536u                    /* files in one unit */
#define FSFILE_BUILD_ID_MAX 64u
#define FSFILE_SIZE_MAX (1ull << 62)

/* How the process uses the file. */
enum {
	FSFILE_MAPPED_PRIVATE = 1,
	FSFILE_MAPPED_SHARED = 2,       /* shared mapping of a file opened read-only */
	FSFILE_MAPPED_WRITE = 4,        /* shared mapping that is or can be made writable */
	FSFILE_OPEN_READ = 8,
	FSFILE_OPEN_WRITE = 16,
	FSFILE_PROGRAM = 32,            /* /proc/PID/exe */
	FSFILE_USES_ALL = 63,
};

#define FSFILE_DIRECTORIES_MAX 16u

/* A directory that a file lies in. */
struct fsfile_directory {
	uint32_t mode, uid, gid;
};

/* The last three are memory: in the kernel's own tmpfs or hugetlbfs, on no file system that anybody has mounted. */
enum fsfile_type {
	FSFILE_REGULAR,
	FSFILE_MEMFD,
	FSFILE_SHARED_ANON,             /* what mmap(MAP_SHARED | MAP_ANONYMOUS) made */
	FSFILE_SYSV,                    /* a System V shared memory segment */
	FSFILE_TYPES,
};

/* Of a System V segment, beside mode, uid and gid. */
struct fsfile_sysv {
	int32_t key, id;
	uint32_t cuid, cgid;            /* its creator */
	bool destroyed;                 /* IPC_RMID: goes with the last attachment */
};

struct fsfile {
	enum fsfile_type type;
	char *path;                     /* as /proc shows it, without " (deleted)"; a memfd's: its name */
	char *marked;                   /* path before it was placed (place.h); NULL: it was not */
	uint64_t dev, ino, size;
	uint32_t mode, uid, gid, nlink; /* mode: permission bits only */
	int64_t mtime_ns, ctime_ns;
	uint32_t uses;                  /* FSFILE_* */
	bool unlinked;
	bool out_of_reach; /* no path leads to it: something has been mounted over it, or it is on a mount that the namespace does not have */
	uint64_t fs_magic, fsid;        /* statfs f_type, f_fsid */
	uint8_t boot_id[16];            /* of the kernel that dev and ino belong to */
	uint8_t build_id[FSFILE_BUILD_ID_MAX];
	uint32_t build_id_len;          /* 0: none */
	bool has_sha256;
	uint8_t sha256[32];
	uint32_t seals;                 /* F_SEAL_*, memfd only */
	uint32_t huge_shift;            /* memory in explicit huge pages: their size as a power of two; 0: ordinary pages */
	bool noreserve;                 /* memory that is mapped with MAP_NORESERVE */
	struct fsfile_sysv sysv;
	struct fsfile_directory directories[FSFILE_DIRECTORIES_MAX]; /* the nearest first */
	uint32_t ndirectories;
	const char *unit;               /* name for marks, borrowed; NULL: none. Not encoded */
	int fd;                         /* source: O_PATH to the very file, owned; -1 elsewhere */
	int read_fd;                    /* source: opened for reading when first needed, owned */
	Gw__Xattr **xattrs;             /* owned: of what the destination may have to make */
	size_t nxattrs;
	bool has_xattrs;                /* source: they have been read. Destination: there have been some */
	bool servable;                  /* the source could serve a directory that it is in (view.h) */
};

struct fsfile_table {
	struct fsfile *v;
	uint32_t n;
};

static inline bool fsfile_is_memory(const struct fsfile *f)
{
	return f->type != FSFILE_REGULAR;
}

/* Whether it is in a directory that home serves or is to serve, so that it is the same file on both hosts. */
bool fsfile_is_homes(const struct fsfile *f);
struct statfs;
/* Whether a file system of the source (f_type, f_fsid) is the same network file system as one here. */
bool fsfile_is_network_same(uint64_t fs_magic, uint64_t fsid, const struct statfs *here);

/*
 * Adds the file behind a magic link (/proc/PID/map_files/A-B, /proc/PID/fd/N, /proc/PID/exe) or finds it in the table,
 * adds `uses` to it, and sets *ret_index. -ENODEV with words when it is no regular file; other errors from opening it.
 * Opens nothing but O_PATH, so devices are not touched.
 */
int fsfile_add(struct fsfile_table *t, const char *link, uint32_t uses, uint32_t *ret_index, struct err *e);
void fsfile_table_free(struct fsfile_table *t);

/*
 * Source, before the offer: reads build-ids of mapped files, and hashes mapped-only files that have none where the
 * destination may have to compare contents (same_kernel false, or the file lies on a tmpfs). Reads whole files: blocks
 * for as long as the disk takes.
 */
int fsfile_prepare_offer(struct fsfile_table *t, bool same_kernel, struct err *e);

/* A descriptor for reading the content on the source; owned by the table. */
int fsfile_read_fd(struct fsfile *f, struct err *e);

/*
 * The next extent with data at or after *offset, at most max_len bytes, of a file on the source: sets *ret_offset and
 * *ret_len (0 at the end). Holes are left out. Returns 0 or an error.
 */
int fsfile_content_next(struct fsfile *f, uint64_t offset, uint64_t max_len, uint64_t *ret_offset, uint64_t *ret_len, struct err *e);

/*
 * Whether size, mtime, ctime or seals differ from the table's; updates the table. One or two system
 * calls. The content of a file that changed, and its entry (encoded in a table of its own), have to be sent again:
 * fsfile_update, fsfile_put, fsfile_finish.
 */
int fsfile_changed(struct fsfile *f, bool *ret_changed, struct err *e);

enum fsfile_verdict { FSFILE_HAVE, FSFILE_STAND_IN, FSFILE_CREATE, FSFILE_TEMP, FSFILE_REFUSE, FSFILE_VERDICTS };

struct fsfile_answer {
	enum fsfile_verdict verdict;
	bool mapped_only;   /* STAND_IN: only the ranges that are mapped are needed (vma_file_ranges) */
	bool differs;       /* destination: there is no such file here, or another one. Not encoded */
	bool same;          /* destination, HAVE: the very file, so that the process may write to it. Not encoded */
	bool born_open;     /* destination: fd is what memfd_create returned, which does not keep the file from being executed. Not encoded */
	int fd;             /* destination: the file, owned by the answer; -1 until there is one. Not encoded */
	bool replaces;      /* destination, CREATE: the unit's own old file is at the path. Not encoded */
	char *aside;        /* where that file is until the commit, owned. Not encoded */
	uint32_t made;      /* directories that were made for it. Not encoded */
	bool created;       /* destination: made by fsfile_open_lacking at its path; undone by fsfile_answer_undo. Not encoded */
};

#define FSFILE_ANSWER_INIT ((struct fsfile_answer){ .verdict = FSFILE_REFUSE, .fd = -1 })

/* Whether the content must travel. */
static inline bool fsfile_answer_lacks(const struct fsfile_answer *a)
{
	return a->verdict == FSFILE_STAND_IN || a->verdict == FSFILE_CREATE || a->verdict == FSFILE_TEMP;
}

/*
 * Destination: looks for f. HAVE comes (except for a file without uses) with the opened file (for writing where the process needs it). REFUSE comes with
 * a refusal in `refusals`. Nothing is created. Returns an error only when the search itself failed.
 */
/*
 * Destination, of a unit that comes out of an image (migrate/checkpoint.h): a named file is the one that it was if it has size and time of the last change; numbers of inodes and
 * kernels prove nothing. accept_changed: another one is used as it is, unless it is mapped as a program is.
 */
void fsfile_set_saved(bool saved, bool accept_changed);
int fsfile_match(const struct fsfile *f, struct fsfile_answer *ret, struct refusals *refusals, struct err *e);

/*
 * Destination, when the offer has been accepted: makes the file for STAND_IN, CREATE and TEMP; answer->fd is open for
 * reading and writing.
 */
int fsfile_open_lacking(const struct fsfile *f, struct fsfile_answer *answer, struct err *e);
int fsfile_put(const struct fsfile *f, struct fsfile_answer *answer, uint64_t offset, const void *data, size_t len_bytes,
	       struct err *e);
/*
 * Destination: takes over what fsfile_changed saw, and further uses; `now` comes from a decoded table. -EAGAIN when the answer given does not
 * hold for the new uses. A file that was made for the process gets its new size, and loses its name when the source's has.
 */
int fsfile_update(struct fsfile *f, const struct fsfile *now, struct fsfile_answer *answer, struct err *e);
/*
 * All content is there: size, mode, owner, times, seals. `f` has the source's last values. Afterwards answer->fd is what
 * the process needs: read-only for a stand-in that is a program (so that it can be executed), unchanged otherwise.
 */
int fsfile_finish(const struct fsfile *f, struct fsfile_answer *answer, struct err *e);
/*
 * When the process has all its mappings and nothing is written any more, inside the freeze: what would have been in the way before. Seals against
 * future writes, and System V segments that go with the last attachment.
 */
int fsfile_finish_late(const struct fsfile *f, struct fsfile_answer *answer, struct err *e);
/*
 * Source, after the commit, for a file that the destination has made: marks it as left behind by f->unit. Where that cannot be, nothing is done. A System V
 * segment is removed: it has moved.
 */
void fsfile_mark_left(const struct fsfile *f);
/* After the commit: closes the answer's descriptor, and removes what it replaces. */
void fsfile_answer_close(struct fsfile_answer *answer);
/* The migration failed before the commit: also removes what fsfile_open_lacking made. */
void fsfile_answer_undo(const struct fsfile *f, struct fsfile_answer *answer);

/* The offer's and the answer's bytes (malloc'ed); decoding validates everything and never trusts a count. */
int fsfile_table_encode(const struct fsfile_table *t, uint8_t **ret_data, size_t *ret_len, struct err *e);
/* Where the unit has a mount namespace of its own (place.h): the path as this worker reaches it, in f->path from then on; and as the unit sees it. */
int fsfile_place(struct fsfile *f, struct err *e);
const char *fsfile_seen(const struct fsfile *f);
/* As it travels: with the mark of its mount namespace. */
const char *fsfile_told(const struct fsfile *f);
int fsfile_table_decode(const void *data, size_t len, struct fsfile_table *ret, struct err *e);
int fsfile_table_validate(const struct fsfile_table *t, struct err *e);
int fsfile_answers_encode(const struct fsfile_answer *answers, uint32_t n, uint8_t **ret_data, size_t *ret_len, struct err *e);
/* n is the number of files offered; another number of answers is an error. *ret is malloc'ed. */
int fsfile_answers_decode(const void *data, size_t len, uint32_t n, struct fsfile_answer **ret, struct err *e);

/* boot_id of the running kernel as 16 bytes. */
int fsfile_boot_id(uint8_t ret[16], struct err *e);

#endif
