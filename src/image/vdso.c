/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdso.c - moves the kernel's own mappings; see vdso.h */
#include "image/vdso.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/sha256.h"
#include "mm.pb-c.h"

static bool kernels(const struct vma *v)
{
	return v->kind == VMA_VDSO || v->kind == VMA_VVAR;
}

/*
 * How much of the vdso's bytes counts: up to the end of its section headers. Behind them is padding, which a tracer may
 * have used for code of its own (so does Godwit's agent when it leaves).
 */
static size_t used_bytes(const uint8_t *bytes, size_t size)
{
	Elf64_Ehdr h;
	uint64_t end;

	if (size < sizeof(h))
		return size;
	memcpy(&h, bytes, sizeof(h));
	end = h.e_shoff + (uint64_t)h.e_shnum * h.e_shentsize;
	return memcmp(h.e_ident, ELFMAG, SELFMAG) || h.e_shoff > size || end > size ? size : end;
}

int vdso_read(pid_t pid, const struct vma_list *l, struct vdso *ret, struct err *e)
{
	struct vdso out = { 0 };
	cleanup_close int fd = -1;
	cleanup_free uint8_t *bytes = malloc(VDSO_SIZE_MAX);
	struct sha256 hash;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	if (!bytes)
		return err_set(e, -ENOMEM, "no memory for the vdso");
	sha256_start(&hash);
	for (size_t i = 0; i < l->n; i++) {
		const struct vma *v = &l->v[i];
		uint64_t size = v->end - v->start;
		ssize_t n;

		if (!kernels(v))
			continue;
		if (out.n == VDSO_PARTS_MAX || size > VDSO_SIZE_MAX)
			return err_set(e, -E2BIG, "pid %d: unexpected vdso mappings", pid);
		out.size[out.n] = size;
		out.kind[out.n++] = v->kind;
		if (v->kind != VMA_VDSO)
			continue;
		n = pread(fd, bytes, size, v->start);
		if (n != (ssize_t)size) /* nothing: it has ended, or called exec, since this was opened */
			return err_sys(e, n < 0 ? errno : ESRCH, "%s: reading the vdso", path);
		sha256_add(&hash, bytes, used_bytes(bytes, size));
	}
	sha256_end(&hash, out.sha256);
	*ret = out;
	return 0;
}

bool vdso_compatible(const struct vdso *source, const struct vdso *here, struct refusals *refusals)
{
	if (!source->n)
		return true;
	if (source->n == here->n && !memcmp(source->size, here->size, sizeof(source->size)) &&
	    !memcmp(source->kind, here->kind, sizeof(source->kind)) && !memcmp(source->sha256, here->sha256, sizeof(source->sha256)))
		return true;
	refusals_add(refusals, "vdso.different",
		     "the destination's kernel has another vdso, and the program's calls into it would go astray",
		     "move to a host with the same kernel build", "vdso");
	return false;
}

static int collect(const struct vma_list *l, const struct vma **parts, uint32_t *ret_n, struct err *e)
{
	uint32_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		if (!kernels(&l->v[i]))
			continue;
		if (n == VDSO_PARTS_MAX)
			return err_set(e, -E2BIG, "more than %u vdso mappings", VDSO_PARTS_MAX);
		parts[n++] = &l->v[i];
	}
	*ret_n = n;
	return 0;
}

static void plan_mremap(struct batch *b, uint64_t from, uint64_t to, uint64_t size)
{
	batch_call(b, "mremap of the vdso", SYS_mremap, from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to);
}

int vdso_plan_move(struct batch *b, const struct vma_list *source, const struct vma_list *own, struct err *e)
{
	const struct vma *to[VDSO_PARTS_MAX], *from[VDSO_PARTS_MAX];
	uint32_t n_to = 0, n_from = 0;
	uint64_t total = 0, way = 0, done = 0;
	bool overlap = false;
	int rc = collect(source, to, &n_to, e);

	if (rc == 0)
		rc = collect(own, from, &n_from, e);
	if (rc < 0)
		return rc;
	if (n_to && n_to != n_from)
		return err_set(e, -ENOTSUP, "the program has %u mappings of the vdso, the skeleton %u", n_to, n_from);
	for (uint32_t i = 0; i < n_from; i++) {
		total += from[i]->end - from[i]->start;
		for (uint32_t k = 0; k < n_to; k++)
			overlap = overlap || (from[i]->start < to[k]->end && to[k]->start < from[i]->end);
		if (!n_to)
			batch_call(b, "munmap of the vdso", SYS_munmap, from[i]->start, from[i]->end - from[i]->start);
	}
	if (!n_to)
		return 0;
	for (uint32_t i = 0; i < n_from; i++)
		if (from[i]->kind != to[i]->kind || from[i]->end - from[i]->start != to[i]->end - to[i]->start)
			return err_set(e, -ENOTSUP, "the program's vdso has another layout than the skeleton's");
	if (overlap) {
		/* below the scratch's favourite place, so that the two do not meet */
		way = vma_find_free(source, own, total + (1ull << 30));
		if (!way)
			return err_set(e, -ENOMEM, "no free place to move the vdso through");
	}
	for (uint32_t i = 0; i < n_from && overlap; i++) {
		plan_mremap(b, from[i]->start, way + done, from[i]->end - from[i]->start);
		done += from[i]->end - from[i]->start;
	}
	done = 0;
	for (uint32_t i = 0; i < n_from; i++) {
		plan_mremap(b, overlap ? way + done : from[i]->start, to[i]->start, to[i]->end - to[i]->start);
		done += to[i]->end - to[i]->start;
	}
	return 0;
}

int vdso_encode(const struct vdso *v, uint8_t **ret_data, size_t *ret_len, struct err *e)
{
	Gw__Vdso m = GW__VDSO__INIT;
	uint64_t size[VDSO_PARTS_MAX];
	uint32_t kind[VDSO_PARTS_MAX];
	uint8_t hash[32];

	memcpy(size, v->size, sizeof(size));
	memcpy(kind, v->kind, sizeof(kind));
	memcpy(hash, v->sha256, sizeof(hash));
	m.sizes = size;
	m.n_sizes = v->n;
	m.kinds = kind;
	m.n_kinds = v->n;
	m.sha256 = (ProtobufCBinaryData){ sizeof(hash), hash };
	*ret_len = gw__vdso__get_packed_size(&m);
	*ret_data = malloc(*ret_len ? *ret_len : 1);
	if (!*ret_data)
		return err_set(e, -ENOMEM, "no memory for the vdso message");
	gw__vdso__pack(&m, *ret_data);
	return 0;
}

int vdso_decode(const void *data, size_t len, struct vdso *ret, struct err *e)
{
	Gw__Vdso *m = gw__vdso__unpack(NULL, len, data);
	struct vdso v = { 0 };
	bool good;

	if (!m)
		return err_set(e, -EBADMSG, "vdso: not a message");
	good = m->n_sizes <= VDSO_PARTS_MAX && m->n_sizes == m->n_kinds && m->sha256.len == sizeof(v.sha256);
	for (size_t i = 0; good && i < m->n_sizes; i++) {
		good = m->sizes[i] && m->sizes[i] <= VDSO_SIZE_MAX && m->sizes[i] % PAGE_SIZE_BYTES == 0 &&
		       (m->kinds[i] == VMA_VDSO || m->kinds[i] == VMA_VVAR);
		v.size[i] = m->sizes[i];
		v.kind[i] = m->kinds[i];
	}
	if (good) {
		v.n = m->n_sizes;
		memcpy(v.sha256, m->sha256.data, sizeof(v.sha256));
		*ret = v;
	}
	gw__vdso__free_unpacked(m, NULL);
	return good ? 0 : err_set(e, -EBADMSG, "vdso: sizes, kinds or hash out of range");
}
