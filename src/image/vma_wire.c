/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vma_wire.c - layouts as bytes, and their validation; see vma.h */
#include "image/vma.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "mm.pb-c.h"

/* Points pointers[i] at ranges[i], which get the values of l. */
static void put_ranges(const struct range_list *l, Gw__Range *ranges, Gw__Range **pointers)
{
	for (size_t i = 0; i < l->n; i++) {
		gw__range__init(&ranges[i]);
		ranges[i].start = l->v[i].start;
		ranges[i].end = l->v[i].end;
		pointers[i] = &ranges[i];
	}
}

int vma_list_encode(const struct vma_list *l, uint8_t **ret_data, size_t *ret_len, struct err *e)
{
	Gw__VmaList m = GW__VMA_LIST__INIT;
	cleanup_free Gw__Vma *vmas = calloc(l->n + 1, sizeof(*vmas));
	cleanup_free Gw__Vma **vma_pointers = calloc(l->n + 1, sizeof(*vma_pointers));
	cleanup_free Gw__Range *ranges = calloc(l->huge.n + l->guards.n + 1, sizeof(*ranges));
	cleanup_free Gw__Range **range_pointers = calloc(l->huge.n + l->guards.n + 1, sizeof(*range_pointers));

	if (!vmas || !vma_pointers || !ranges || !range_pointers)
		return err_set(e, -ENOMEM, "no memory for the layout message");
	for (size_t i = 0; i < l->n; i++) {
		const struct vma *v = &l->v[i];

		gw__vma__init(&vmas[i]);
		vmas[i].start_page = v->start / PAGE_SIZE_BYTES;
		vmas[i].pages = (v->end - v->start) / PAGE_SIZE_BYTES;
		vmas[i].offset = v->offset;
		vmas[i].prot = v->prot;
		vmas[i].bits = v->bits;
		vmas[i].kind = v->kind;
		vmas[i].content = v->content;
		vmas[i].file_plus_one = v->file + 1;
		vmas[i].object_bytes = v->object_bytes;
		vmas[i].name = (ProtobufCBinaryData){ strlen(v->name), (uint8_t *)v->name };
		vma_pointers[i] = &vmas[i];
	}
	put_ranges(&l->huge, ranges, range_pointers);
	put_ranges(&l->guards, ranges + l->huge.n, range_pointers + l->huge.n);
	m.vmas = vma_pointers;
	m.n_vmas = l->n;
	m.huge = range_pointers;
	m.n_huge = l->huge.n;
	m.guards = range_pointers + l->huge.n;
	m.n_guards = l->guards.n;
	*ret_len = gw__vma_list__get_packed_size(&m);
	*ret_data = malloc(*ret_len ? *ret_len : 1);
	if (!*ret_data)
		return err_set(e, -ENOMEM, "no memory for the layout message");
	gw__vma_list__pack(&m, *ret_data);
	return 0;
}

static int take(const Gw__Vma *in, uint32_t n_files, struct vma *v, struct err *e)
{
	if (in->start_page > VMA_TASK_SIZE / PAGE_SIZE_BYTES || in->pages > VMA_TASK_SIZE / PAGE_SIZE_BYTES || in->kind >= VMA_KINDS ||
	    in->content >= VMA_CONTENTS || in->file_plus_one > n_files || in->name.len >= VMA_NAME_MAX)
		return err_set(e, -EBADMSG, "layout: a mapping is out of range");
	*v = (struct vma){
		.start = in->start_page * PAGE_SIZE_BYTES,
		.end = (in->start_page + in->pages) * PAGE_SIZE_BYTES,
		.offset = in->offset,
		.prot = in->prot,
		.bits = in->bits,
		.kind = in->kind,
		.content = in->content,
		.object_bytes = in->object_bytes,
		.file = (int32_t)in->file_plus_one - 1,
	};
	if (in->name.len)
		memcpy(v->name, in->name.data, in->name.len);
	return 0;
}

static int take_ranges(Gw__Range *const *in, size_t n, struct range_list *l, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (in[i]->start >= in[i]->end || range_list_add(l, in[i]->start, in[i]->end) < 0)
			return err_set(e, -EBADMSG, "layout: a range ends before it starts");
	return 0;
}

int vma_list_decode(const void *data, size_t len, uint32_t n_files, struct vma_list *ret, struct err *e)
{
	Gw__VmaList *m = gw__vma_list__unpack(NULL, len, data);
	struct vma_list l = { .complete = true };
	int rc = 0;

	if (!m)
		return err_set(e, -EBADMSG, "layout: not a message");
	if (m->n_vmas > VMA_MAX || m->n_huge > VMA_MAX || m->n_guards > VMA_MAX)
		rc = err_set(e, -EBADMSG, "layout: too many mappings");
	for (size_t i = 0; rc == 0 && i < m->n_vmas; i++) {
		struct vma v;

		rc = take(m->vmas[i], n_files, &v, e);
		if (rc == 0 && vma_list_append(&l, &v) < 0)
			rc = err_set(e, -ENOMEM, "no memory for the layout");
	}
	if (rc == 0)
		rc = take_ranges(m->huge, m->n_huge, &l.huge, e);
	if (rc == 0)
		rc = take_ranges(m->guards, m->n_guards, &l.guards, e);
	gw__vma_list__free_unpacked(m, NULL);
	if (rc == 0)
		rc = vma_list_validate(&l, n_files, e);
	if (rc < 0) {
		vma_list_free(&l);
		return rc;
	}
	*ret = l;
	return 0;
}

static int validate_one(const struct vma *v, uint32_t n_files, struct err *e)
{
	bool file = v->kind == VMA_FILE_PRIVATE || v->kind == VMA_FILE_SHARED || v->kind == VMA_SYSV;
	uint64_t huge = v->bits & VMA_HUGE_2M ? 2ull << 20 : 1ull << 30;
	static const uint32_t contents[VMA_KINDS] = {
		[VMA_ANON] = 1 << VMA_CONTENT_ANON,
		[VMA_FILE_PRIVATE] = 1 << VMA_CONTENT_PRIVATE | 1 << VMA_CONTENT_NONE,
		[VMA_FILE_SHARED] = 1 << VMA_CONTENT_NONE | 1 << VMA_CONTENT_SHARED,
		[VMA_SYSV] = 1 << VMA_CONTENT_SHARED,
		[VMA_HUGE] = 1 << VMA_CONTENT_PRIVATE,
		[VMA_VDSO] = 1 << VMA_CONTENT_NONE,
		[VMA_VVAR] = 1 << VMA_CONTENT_NONE,
		[VMA_AIO] = 1 << VMA_CONTENT_NONE,
		[VMA_URING] = 1 << VMA_CONTENT_NONE,
	};

	if (v->kind >= VMA_KINDS || v->content >= VMA_CONTENTS ||
	    !((v->bits & VMA_DROPPABLE ? 1u << VMA_CONTENT_NONE : contents[v->kind]) & 1u << v->content))
		return err_set(e, -EBADMSG, "layout: %llx: kind %d with content %d", (unsigned long long)v->start, v->kind, v->content);
	if (v->start % PAGE_SIZE_BYTES || v->end % PAGE_SIZE_BYTES || v->offset % PAGE_SIZE_BYTES || v->offset > FSFILE_SIZE_MAX)
		return err_set(e, -EBADMSG, "layout: %llx: not page aligned", (unsigned long long)v->start);
	if (v->start >= v->end || v->start < 65536 || v->end > VMA_TASK_SIZE)
		return err_set(e, -EBADMSG, "layout: %llx-%llx: not in user space", (unsigned long long)v->start,
			       (unsigned long long)v->end);
	if (v->prot & ~(PROT_READ | PROT_WRITE | PROT_EXEC) || v->bits & ~VMA_BITS_ALL)
		return err_set(e, -EBADMSG, "layout: %llx: unknown protection or flags", (unsigned long long)v->start);
	if ((v->bits & (VMA_GROWSDOWN | VMA_DROPPABLE)) && v->kind != VMA_ANON)
		return err_set(e, -EBADMSG, "layout: %llx: flags that only anonymous memory has", (unsigned long long)v->start);
	if (!(v->bits & (VMA_HUGE_2M | VMA_HUGE_1G)) != (v->kind != VMA_HUGE) || (v->kind == VMA_HUGE && (v->start % huge || v->end % huge)))
		return err_set(e, -EBADMSG, "layout: %llx: flags of huge pages", (unsigned long long)v->start);
	if (v->kind == VMA_SYSV && (v->object_bytes % PAGE_SIZE_BYTES || v->object_bytes > VMA_TASK_SIZE || v->offset > v->object_bytes ||
				    v->end - v->start > v->object_bytes - v->offset))
		return err_set(e, -EBADMSG, "layout: %llx: more than its segment", (unsigned long long)v->start);
	if (file ? v->file < 0 || (uint32_t)v->file >= n_files : v->file != -1)
		return err_set(e, -EBADMSG, "layout: %llx: file index %d out of range", (unsigned long long)v->start, v->file);
	return 0;
}

static int validate_ranges(const struct range_list *l, struct err *e)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct range *r = &l->v[i];

		if (r->start % PAGE_SIZE_BYTES || r->end % PAGE_SIZE_BYTES || r->start >= r->end || r->end > VMA_TASK_SIZE ||
		    (i && r->start < l->v[i - 1].end))
			return err_set(e, -EBADMSG, "layout: the range at %llx is out of order or out of user space",
				       (unsigned long long)r->start);
	}
	return 0;
}

int vma_list_validate(const struct vma_list *l, uint32_t n_files, struct err *e)
{
	if (l->n > VMA_MAX || l->huge.n > VMA_MAX || l->guards.n > VMA_MAX)
		return err_set(e, -EBADMSG, "layout: too many mappings");
	for (size_t i = 0; i < l->n; i++) {
		int rc = validate_one(&l->v[i], n_files, e);

		if (rc < 0)
			return rc;
		if (i && l->v[i].start < l->v[i - 1].end)
			return err_set(e, -EBADMSG, "layout: %llx: out of order or overlapping", (unsigned long long)l->v[i].start);
		if (memchr(l->v[i].name, 0, VMA_NAME_MAX) == NULL)
			return err_set(e, -EBADMSG, "layout: %llx: name too long", (unsigned long long)l->v[i].start);
	}
	if (validate_ranges(&l->huge, e) < 0 || validate_ranges(&l->guards, e) < 0)
		return -EBADMSG;
	return 0;
}
