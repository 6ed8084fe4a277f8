/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * image_renew.c - what an image says, brought up to date; see image_read.h
 *
 * Clocks: CLOCK_MONOTONIC goes on from where it was when the unit stood still, as if no time had passed: that is what it does over a suspend to disk, too, and
 * no timeout that a program has set itself passes because it was in a file. CLOCK_BOOTTIME counts the time in the file, as it counts that of a suspend. CLOCK_REALTIME is what it is.
 */
#include "migrate/image_read.h"

#include <errno.h>
#include <sys/random.h>

#include "base/util.h"
#include "image/fsfile.h"
#include "image/fsfile_policy.h"
#include "mm.pb-c.h"
#include "task.pb-c.h"

#define SAVED_BOOT_ID "image" /* of no kernel, so that clocks are compared */

int image_new_id(uint8_t ret[HELLO_MIG_ID_BYTES], struct err *e)
{
	return getrandom(ret, HELLO_MIG_ID_BYTES, 0) == (ssize_t)HELLO_MIG_ID_BYTES ? 0 : err_sys(e, -errno, "random numbers");
}

void image_facts_free(struct image_facts *f)
{
	if (f->head)
		gw__image_head__free_unpacked(f->head, NULL);
	if (f->summary)
		gw__image_summary__free_unpacked(f->summary, NULL);
	free(f->shared);
	*f = (struct image_facts){ 0 };
}

const Gw__ImageFile *image_facts_file(const struct image_facts *f, uint32_t file)
{
	return f->summary && file < f->summary->n_files ? f->summary->files[file] : NULL;
}

bool image_facts_is_shared(const struct image_facts *f, uint32_t file)
{
	return file < f->nshared && f->shared[file];
}

int image_facts_read(struct archive_reader *archive, struct image_facts *ret, struct err *e)
{
	struct archive_record record;
	int code;

	while ((code = archive_next(archive, true, &record, e)) > 0) {
		if (ret->summary)
			return err_set(e, -EBADMSG, "the image goes on behind its summary");
		if (record.kind == ARCHIVE_HEAD)
			ret->head = gw__image_head__unpack(NULL, record.len, record.data);
		if (record.kind == ARCHIVE_SUMMARY)
			ret->summary = gw__image_summary__unpack(NULL, record.len, record.data);
		if ((record.kind == ARCHIVE_HEAD && !ret->head) || (record.kind == ARCHIVE_SUMMARY && !ret->summary))
			return err_set(e, -EBADMSG, "what the image says of itself cannot be read");
	}
	return code < 0 || (ret->head && ret->summary) ? code : err_set(e, -EBADMSG, "the image does not say what it is of");
}

/* --- files --- */

static int note_shared(struct image_facts *f, size_t first, const Gw__FsFiles *m, struct err *e)
{
	bool *grown = realloc(f->shared, (first + m->n_files + 1) * sizeof(*grown));

	if (!grown)
		return err_sys(e, -ENOMEM, "files");
	f->shared = grown;
	f->nshared = first + m->n_files;
	for (size_t i = 0; i < m->n_files; i++)
		grown[first + i] = m->files[i]->uses & (FSFILE_MAPPED_SHARED | FSFILE_MAPPED_WRITE);
	return 0;
}

/* A table whose first file has the number `first`; replaces *bytes, which is the message's. */
static int renew_table(struct image_facts *f, size_t first, ProtobufCBinaryData *bytes, uint32_t *ret_n, struct err *e)
{
	Gw__FsFiles *m = gw__fs_files__unpack(NULL, bytes->len, bytes->data);
	uint8_t *packed = NULL;
	int ret = m && m->n_files <= FSFILE_MAX && first <= FSFILE_MAX ? note_shared(f, first, m, e) : err_set(e, -EBADMSG, "files that cannot be read");

	for (size_t i = 0; ret == 0 && i < m->n_files; i++) {
		const Gw__ImageFile *last = image_facts_file(f, (uint32_t)(first + i));

		if (!last || !last->known)
			continue;
		m->files[i]->size = last->size;
		m->files[i]->mtime_ns = last->mtime_ns;
	}
	if (ret == 0) {
		packed = malloc(gw__fs_files__get_packed_size(m) + 1);
		ret = packed ? 0 : err_sys(e, -ENOMEM, "files");
	}
	if (ret == 0) {
		free(bytes->data);
		*bytes = (ProtobufCBinaryData){ gw__fs_files__pack(m, packed), packed };
		*ret_n = (uint32_t)m->n_files;
	}
	if (m)
		gw__fs_files__free_unpacked(m, NULL);
	return ret;
}

int image_renew_files(struct image_facts *f, uint32_t nfiles, const uint8_t *data, size_t len, uint8_t **ret, size_t *ret_len, uint32_t *ret_added, struct err *e)
{
	Gw__FileSync *m = gw__file_sync__unpack(NULL, len, data);
	int code = m ? renew_table(f, nfiles, &m->added, ret_added, e) : err_set(e, -EBADMSG, "news of files that cannot be read");

	if (code == 0) {
		*ret = malloc(gw__file_sync__get_packed_size(m) + 1);
		code = *ret ? 0 : err_sys(e, -ENOMEM, "news of files");
	}
	if (code == 0)
		*ret_len = gw__file_sync__pack(m, *ret);
	if (m)
		gw__file_sync__free_unpacked(m, NULL);
	return code;
}

/* --- the offer --- */

static void renew_clocks(const Gw__ImageSummary *s, Gw__Clocks *c)
{
	uint64_t now = clock_ns(CLOCK_REALTIME), away = now > s->realtime_ns ? now - s->realtime_ns : 0;

	if (c->boot_id != (const char *)protobuf_c_empty_string)
		free(c->boot_id);
	c->boot_id = strdup(SAVED_BOOT_ID);
	c->monotonic_ns = s->monotonic_ns;
	c->boottime_ns = s->boottime_ns + away;
	c->realtime_ns = now;
}

static int renew_process(const Gw__ImageSummary *s, Gw__OfferProcess *o, struct err *e)
{
	Gw__Process *p = gw__process__unpack(NULL, o->process.len, o->process.data);
	uint8_t *packed = NULL;
	int ret = p && p->clocks ? 0 : err_set(e, -EBADMSG, "a process that cannot be read");

	if (ret == 0) {
		renew_clocks(s, p->clocks);
		packed = p->clocks->boot_id ? malloc(gw__process__get_packed_size(p) + 1) : NULL;
		ret = packed ? 0 : err_sys(e, -ENOMEM, "a process");
	}
	if (ret == 0) {
		free(o->process.data);
		o->process = (ProtobufCBinaryData){ gw__process__pack(p, packed), packed };
	}
	if (p)
		gw__process__free_unpacked(p, NULL);
	return ret;
}

/* protobuf-c: a text that was not sent is a static one. */
static int set_text(char **field, const char *text, struct err *e)
{
	char *copy = strdup(text);

	if (!copy)
		return err_sys(e, -ENOMEM, "the offer");
	if (*field != (const char *)protobuf_c_empty_string)
		free(*field);
	*field = copy;
	return 0;
}

static int renew(struct image_facts *f, const struct image_now *now, Gw__Offer *o, uint32_t *ret_files, struct err *e)
{
	char unit[300];
	int ret = renew_table(f, 0, &o->files, ret_files, e);

	for (size_t i = 0; i < o->n_processes && ret == 0; i++)
		ret = renew_process(f->summary, o->processes[i], e);
	/* At home where it is restored, as a program that is started there. */
	snprintf(unit, sizeof(unit), "%s:%d", now->node, o->processes[0]->pid);
	if (ret == 0)
		ret = set_text(&o->unit, now->unit ? now->unit : unit, e);
	if (ret == 0)
		ret = set_text(&o->from, now->from, e);
	if (ret == 0)
		ret = set_text(&o->reason, now->unit ? now->reason : "restored from an image", e);
	o->keeps_name = now->unit != NULL;
	o->moves = now->unit ? now->moves : 0;
	if (o->protection && !now->unit) {
		gw__protection__free_unpacked(o->protection, NULL);
		o->protection = NULL;
	}
	o->cpu_ms = 0;
	o->home = false;
	o->home_parent = 0;
	o->held = false;
	o->started = true;
	o->saved = true;
	/* There is no home that could serve files. */
	o->files_policy = FSFILE_POLICY_COPY;
	for (size_t i = 0; i < o->n_places; i++)
		gw__place__free_unpacked(o->places[i], NULL);
	o->n_places = 0;
	o->accept_changed = now->accept_changed;
	return ret;
}

int image_renew_offer(struct image_facts *f, const struct image_now *now, const uint8_t *data, size_t len, uint8_t **ret, size_t *ret_len, uint32_t *ret_files, size_t *ret_procs,
		      struct err *e)
{
	Gw__Offer *o = gw__offer__unpack(NULL, len, data);
	int code = o && o->n_processes ? renew(f, now, o, ret_files, e) : err_set(e, -EBADMSG, "an offer that cannot be read");

	if (code == 0) {
		*ret = malloc(gw__offer__get_packed_size(o) + 1);
		code = *ret ? 0 : err_sys(e, -ENOMEM, "the offer");
	}
	if (code == 0) {
		*ret_len = gw__offer__pack(o, *ret);
		*ret_procs = o->n_processes;
	}
	if (o)
		gw__offer__free_unpacked(o, NULL);
	return code;
}
