/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsfile_wire.c - the table of files and the answers as bytes, and their validation; see fsfile.h */
#include "image/fsfile.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/util.h"
#include "image/xattr.h"
#include "mm.pb-c.h"

static void put(struct fsfile *f, Gw__FsFile *m, Gw__FsDirectory *directories, Gw__FsDirectory **pointers)
{
	gw__fs_file__init(m);
	m->type = f->type;
	m->path = (ProtobufCBinaryData){ strlen(fsfile_told(f)), (uint8_t *)(uintptr_t)fsfile_told(f) };
	m->dev = f->dev;
	m->ino = f->ino;
	m->size = f->size;
	m->mode = f->mode;
	m->uid = f->uid;
	m->gid = f->gid;
	m->nlink = f->nlink;
	m->mtime_ns = f->mtime_ns;
	m->ctime_ns = f->ctime_ns;
	m->uses = f->uses;
	m->unlinked = f->unlinked;
	m->out_of_reach = f->out_of_reach;
	m->fs_magic = f->fs_magic;
	m->fsid = f->fsid;
	m->boot_id = (ProtobufCBinaryData){ sizeof(f->boot_id), f->boot_id };
	m->build_id = (ProtobufCBinaryData){ f->build_id_len, f->build_id };
	m->sha256 = (ProtobufCBinaryData){ f->has_sha256 ? sizeof(f->sha256) : 0, f->sha256 };
	m->seals = f->seals;
	m->huge_shift = f->huge_shift;
	m->noreserve = f->noreserve;
	m->servable = f->servable;
	m->sysv_key = f->sysv.key;
	m->sysv_id = f->sysv.id;
	m->sysv_cuid = f->sysv.cuid;
	m->sysv_cgid = f->sysv.cgid;
	m->sysv_destroyed = f->sysv.destroyed;
	m->xattrs = f->xattrs;
	m->n_xattrs = f->nxattrs;
	m->directories = pointers;
	m->n_directories = f->ndirectories;
	for (uint32_t i = 0; i < f->ndirectories; i++) {
		gw__fs_directory__init(&directories[i]);
		directories[i].mode = f->directories[i].mode;
		directories[i].uid = f->directories[i].uid;
		directories[i].gid = f->directories[i].gid;
		pointers[i] = &directories[i];
	}
}

int fsfile_table_encode(const struct fsfile_table *t, uint8_t **ret_data, size_t *ret_len, struct err *e)
{
	Gw__FsFiles m = GW__FS_FILES__INIT;
	cleanup_free Gw__FsFile *files = calloc(t->n + 1, sizeof(*files));
	cleanup_free Gw__FsFile **pointers = calloc(t->n + 1, sizeof(*pointers));
	cleanup_free Gw__FsDirectory *directories = NULL;
	cleanup_free Gw__FsDirectory **directory_pointers = NULL;
	size_t n = 0;

	for (uint32_t i = 0; i < t->n; i++)
		n += t->v[i].ndirectories;
	directories = calloc(n + 1, sizeof(*directories));
	directory_pointers = calloc(n + 1, sizeof(*directory_pointers));
	if (!files || !pointers || !directories || !directory_pointers)
		return err_set(e, -ENOMEM, "no memory for the files message");
	n = 0;
	for (uint32_t i = 0; i < t->n; i++) {
		put(&t->v[i], &files[i], &directories[n], &directory_pointers[n]);
		n += t->v[i].ndirectories;
		pointers[i] = &files[i];
	}
	m.files = pointers;
	m.n_files = t->n;
	*ret_len = gw__fs_files__get_packed_size(&m);
	*ret_data = malloc(*ret_len ? *ret_len : 1);
	if (!*ret_data)
		return err_set(e, -ENOMEM, "no memory for the files message");
	gw__fs_files__pack(&m, *ret_data);
	return 0;
}

static int take(const Gw__FsFile *m, struct fsfile *f, struct err *e)
{
	*f = (struct fsfile){ .fd = -1, .read_fd = -1 };
	if (m->type >= FSFILE_TYPES || !m->path.len || m->path.len >= PATH_MAX || memchr(m->path.data, 0, m->path.len) ||
	    m->boot_id.len != sizeof(f->boot_id) || m->build_id.len > FSFILE_BUILD_ID_MAX ||
	    (m->sha256.len && m->sha256.len != sizeof(f->sha256)) || m->n_directories > FSFILE_DIRECTORIES_MAX || !xattrs_are_good(m->xattrs, m->n_xattrs))
		return err_set(e, -EBADMSG, "files: a field is out of range");
	f->type = m->type;
	f->dev = m->dev;
	f->ino = m->ino;
	f->size = m->size;
	f->mode = m->mode;
	f->uid = m->uid;
	f->gid = m->gid;
	f->nlink = m->nlink;
	f->mtime_ns = m->mtime_ns;
	f->ctime_ns = m->ctime_ns;
	f->uses = m->uses;
	f->unlinked = m->unlinked;
	f->out_of_reach = m->out_of_reach;
	f->fs_magic = m->fs_magic;
	f->fsid = m->fsid;
	f->seals = m->seals;
	f->huge_shift = m->huge_shift;
	f->noreserve = m->noreserve;
	f->servable = m->servable;
	f->sysv = (struct fsfile_sysv){ m->sysv_key, m->sysv_id, m->sysv_cuid, m->sysv_cgid, m->sysv_destroyed };
	for (size_t i = 0; i < m->n_directories; i++)
		f->directories[f->ndirectories++] =
			(struct fsfile_directory){ m->directories[i]->mode & 07777, m->directories[i]->uid, m->directories[i]->gid };
	memcpy(f->boot_id, m->boot_id.data, sizeof(f->boot_id));
	f->build_id_len = m->build_id.len;
	if (m->build_id.len)
		memcpy(f->build_id, m->build_id.data, m->build_id.len);
	f->has_sha256 = m->sha256.len != 0;
	if (f->has_sha256)
		memcpy(f->sha256, m->sha256.data, sizeof(f->sha256));
	f->xattrs = xattrs_copy(m->xattrs, m->n_xattrs);
	f->nxattrs = m->n_xattrs;
	f->has_xattrs = f->nxattrs;
	f->path = strndup((const char *)m->path.data, m->path.len);
	return f->path ? fsfile_place(f, e) : err_set(e, -ENOMEM, "no memory for a path");
}

int fsfile_table_decode(const void *data, size_t len, struct fsfile_table *ret, struct err *e)
{
	Gw__FsFiles *m = gw__fs_files__unpack(NULL, len, data);
	struct fsfile_table t = { 0 };
	int rc = 0;

	if (!m)
		return err_set(e, -EBADMSG, "files: not a message");
	if (m->n_files > FSFILE_MAX)
		rc = err_set(e, -EBADMSG, "files: more than %u", FSFILE_MAX);
	else if (!(t.v = calloc(m->n_files + 1, sizeof(*t.v))))
		rc = err_set(e, -ENOMEM, "no memory for the table of files");
	for (size_t i = 0; t.v && rc == 0 && i < m->n_files; i++) {
		rc = take(m->files[i], &t.v[i], e);
		t.n++; /* what was taken until then is freed */
	}
	gw__fs_files__free_unpacked(m, NULL);
	if (rc == 0)
		rc = fsfile_table_validate(&t, e);
	if (rc < 0) {
		fsfile_table_free(&t);
		return rc;
	}
	*ret = t;
	return 0;
}

/* Absolute, and without ".." that would lead elsewhere. */
static bool good_path(const char *path)
{
	if (path[0] != '/' || !path[1])
		return false;
	for (const char *p = path; (p = strstr(p, "/..")); p += 3)
		if (!p[3] || p[3] == '/')
			return false;
	return true;
}

int fsfile_table_validate(const struct fsfile_table *t, struct err *e)
{
	if (t->n > FSFILE_MAX)
		return err_set(e, -EBADMSG, "files: more than %u", FSFILE_MAX);
	for (uint32_t i = 0; i < t->n; i++) {
		const struct fsfile *f = &t->v[i];

		if (!f->path || !good_path(f->path))
			return err_set(e, -EBADMSG, "files: number %u has no good path", i);
		if (f->size > FSFILE_SIZE_MAX || f->mode & ~07777u || f->uses & ~(uint32_t)FSFILE_USES_ALL || f->seals & ~0x3fu ||
		    f->build_id_len > FSFILE_BUILD_ID_MAX || f->type >= FSFILE_TYPES)
			return err_set(e, -EBADMSG, "files: %.200s: size, mode, uses or seals out of range", f->path);
		if ((f->huge_shift && (f->huge_shift < 16 || f->huge_shift > 34 || !fsfile_is_memory(f))) || f->sysv.id < 0)
			return err_set(e, -EBADMSG, "files: %.200s: size of huge pages or number out of range", f->path);
	}
	return 0;
}

int fsfile_answers_encode(const struct fsfile_answer *answers, uint32_t n, uint8_t **ret_data, size_t *ret_len, struct err *e)
{
	Gw__FsAnswers m = GW__FS_ANSWERS__INIT;
	cleanup_free Gw__FsAnswer *each = calloc(n + 1, sizeof(*each));
	cleanup_free Gw__FsAnswer **pointers = calloc(n + 1, sizeof(*pointers));

	if (!each || !pointers)
		return err_set(e, -ENOMEM, "no memory for the answers message");
	for (uint32_t i = 0; i < n; i++) {
		gw__fs_answer__init(&each[i]);
		each[i].verdict = answers[i].verdict;
		each[i].mapped_only = answers[i].mapped_only;
		pointers[i] = &each[i];
	}
	m.answers = pointers;
	m.n_answers = n;
	*ret_len = gw__fs_answers__get_packed_size(&m);
	*ret_data = malloc(*ret_len ? *ret_len : 1);
	if (!*ret_data)
		return err_set(e, -ENOMEM, "no memory for the answers message");
	gw__fs_answers__pack(&m, *ret_data);
	return 0;
}

int fsfile_answers_decode(const void *data, size_t len, uint32_t n, struct fsfile_answer **ret, struct err *e)
{
	Gw__FsAnswers *m = gw__fs_answers__unpack(NULL, len, data);
	struct fsfile_answer *answers;
	int rc = 0;

	if (!m)
		return err_set(e, -EBADMSG, "answers: not a message");
	answers = calloc((size_t)n + 1, sizeof(*answers));
	if (!answers)
		rc = err_set(e, -ENOMEM, "no memory for the answers");
	else if (m->n_answers != n)
		rc = err_set(e, -EBADMSG, "answers: %zu for %u files", m->n_answers, n);
	for (uint32_t i = 0; answers && rc == 0 && i < n; i++) {
		if (m->answers[i]->verdict >= FSFILE_VERDICTS)
			rc = err_set(e, -EBADMSG, "answers: unknown verdict %u", m->answers[i]->verdict);
		answers[i] = (struct fsfile_answer){
			.verdict = m->answers[i]->verdict, .mapped_only = m->answers[i]->mapped_only, .fd = -1,
		};
	}
	gw__fs_answers__free_unpacked(m, NULL);
	if (rc < 0) {
		free(answers);
		return rc;
	}
	*ret = answers;
	return 0;
}
