/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vma_read.c - reads a layout from /proc; see vma.h. What each mapping is, vma_classify.c tells */
#include "image/vma.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/util.h"
#include "image/fsfile_internal.h"
#include "image/vma_internal.h"
#include "kern/pagemap.h"

/* PAGE_IS_GUARD: madvise(MADV_GUARD_INSTALL), Linux 6.13 and later. Such pages count as swapped, too. */
#define CATEGORY_GUARD (1u << 8)

#define ATTEMPTS 20

/* VmFlags of smaps: what it sets, or why it cannot move. */
struct vm_flag {
	char name[3];
	uint32_t bit;
	const char *code, *cause, *way_out;
};

static const struct vm_flag vm_flags[] = {
	{ "sh", VMA_WRITE_SHARED }, { "gd", VMA_GROWSDOWN }, { "lo", VMA_LOCKED }, { "lf", VMA_LOCKONFAULT }, { "hg", VMA_HUGEPAGE },
	{ "nh", VMA_NOHUGEPAGE }, { "dc", VMA_DONTFORK }, { "dd", VMA_DONTDUMP }, { "wf", VMA_WIPEONFORK }, { "mg", VMA_MERGEABLE },
	{ "rr", VMA_RANDOM }, { "sr", VMA_SEQUENTIAL }, { "nr", VMA_NORESERVE }, { "ac", VMA_ACCOUNT }, { "sf", VMA_SYNC },
	{ "dp", VMA_DROPPABLE }, { "sl", VMA_SEALED },
	{ "pf", 0, "vma.device", "memory of a device cannot move to another host", "close the device before moving the program" },
	{ "io", 0, "vma.device", "memory of a device cannot move to another host", "close the device before moving the program" },
	{ "um", 0, "vma.userfaultfd", "the program handles page faults by itself (userfaultfd)", "let it close its userfaultfd first" },
	{ "uw", 0, "vma.userfaultfd", "the program tracks writes by itself (userfaultfd)", "let it close its userfaultfd first" },
	{ "ui", 0, "vma.userfaultfd", "the program handles page faults by itself (userfaultfd)", "let it close its userfaultfd first" },
	{ "ss", 0, "vma.shadow-stack", "shadow stacks cannot move yet", "start it with GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK" },
};

static uint64_t parse_hex(const char **p)
{
	uint64_t value = 0;

	for (;; (*p)++) {
		unsigned char c = **p;

		if (c >= '0' && c <= '9')
			value = value << 4 | (c - '0');
		else if (c >= 'a' && c <= 'f')
			value = value << 4 | (c - 'a' + 10);
		else
			return value;
	}
}

bool vma_parse_line(const char **p, struct vma_line *l)
{
	const char *s = *p, *end = strchr(s, '\n');

	if (!end)
		return false;
	l->start = parse_hex(&s);
	if (*s++ != '-')
		return false;
	l->end = parse_hex(&s);
	if (end - s < 6 || *s != ' ')
		return false;
	l->prot = (s[1] == 'r' ? PROT_READ : 0) | (s[2] == 'w' ? PROT_WRITE : 0) | (s[3] == 'x' ? PROT_EXEC : 0);
	l->shared = s[4] == 's';
	s += 6;
	l->offset = parse_hex(&s);
	s += *s == ' ';
	l->dev = parse_hex(&s) << 32;
	s += *s == ':';
	l->dev |= parse_hex(&s);
	s += *s == ' ';
	for (l->ino = 0; *s >= '0' && *s <= '9'; s++)
		l->ino = l->ino * 10 + (*s - '0');
	while (*s == ' ')
		s++;
	l->path = s;
	l->path_len = end - s;
	*p = end + 1;
	return true;
}

bool vma_left_out(const struct vma_line *l)
{
	return l->start >= VMA_TASK_SIZE || vma_line_starts(l, VMA_SCRATCH_NAME);
}

ssize_t vma_read_whole(const char *path, char **buffer, size_t *size, struct err *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;

	if (fd < 0)
		return err_sys(e, -errno, "%s", path);
	for (;;) {
		ssize_t got;

		if (len + 8192 > *size) {
			size_t bigger = *size ? *size * 2 : 131072;
			char *grown = realloc(*buffer, bigger);

			if (!grown)
				return err_set(e, -ENOMEM, "%s: no memory", path);
			*buffer = grown;
			*size = bigger;
		}
		got = read(fd, *buffer + len, *size - len - 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_sys(e, -errno, "%s", path);
		if (!got)
			break;
		len += got;
	}
	(*buffer)[len] = 0;
	return len;
}

/* Reads "VmFlags: rd wr ..." into bits; returns the first flag that cannot move, or NULL. */
static const struct vm_flag *parse_flags(const struct vma_reader *r, const char *s, uint32_t *ret_bits)
{
	const struct vm_flag *bad = NULL;

	*ret_bits = 0;
	while (*s && *s != '\n') {
		if (*s == ' ') {
			s++;
			continue;
		}
		for (size_t i = 0; i < ARRAY_SIZE(vm_flags); i++) {
			if (s[0] != vm_flags[i].name[0] || s[1] != vm_flags[i].name[1])
				continue;
			*ret_bits |= vm_flags[i].bit;
			if (vm_flags[i].code && !bad && !(r->ours && !strcmp(vm_flags[i].code, "vma.userfaultfd")))
				bad = &vm_flags[i];
		}
		s += s[1] && s[1] != '\n' ? 2 : 1;
	}
	return bad;
}

static int add_region(const struct pagemap_region *region, void *arg)
{
	return range_list_add(arg, region->start, region->end);
}

/* Appends the ranges whose pages have a category. */
static int scan(struct vma_reader *r, uint64_t start, uint64_t end, uint64_t category, struct range_list *ranges)
{
	struct pagemap_query query = { .all_of = category, .want = category };
	cleanup_close int fd = -1;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", r->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(r->e, -errno, "%s", path);
	return pagemap_scan(fd, start, end, &query, add_region, ranges, r->e);
}

/*
 * Whether it has pages that nobody can read where they lie, for ever: sealed, and not readable. Once the program runs elsewhere, the source's agent makes what it sends readable, and
 * can this only do where nothing is sealed.
 */
static int is_locked_away(struct vma_reader *r, const struct vma *v)
{
	struct range_list pages = { 0 };
	int rc;

	if (!(v->bits & VMA_SEALED) || v->prot & PROT_READ || v->content != VMA_CONTENT_ANON)
		return 0;
	rc = scan(r, v->start, v->end, PAGE_CATEGORY_PRESENT, &pages);
	if (rc == 0 && !pages.n)
		rc = scan(r, v->start, v->end, PAGE_CATEGORY_SWAPPED, &pages);
	rc = rc < 0 ? rc : pages.n > 0;
	range_list_free(&pages);
	return rc;
}

/* What smaps says of a mapping besides its line in maps. */
struct smaps_more {
	const char *flags;
	bool huge;
	bool keyed; /* it has a protection key */
};

/* Takes one mapping with its flags into the list. */
static int take_mapping(struct vma_reader *r, const struct vma_line *l, const struct smaps_more *more)
{
	const char *flags = more->flags;
	bool huge = more->huge;
	struct vma v = { .file = -1 };
	const struct vm_flag *bad = parse_flags(r, flags, &v.bits);
	int kept;

	if (vma_left_out(l))
		return 0;
	if (r->list->n && l->start < r->list->v[r->list->n - 1].end)
		return err_set(r->e, -EAGAIN, "mapping %llx changed while the layout was read", (unsigned long long)l->start);
	if (bad && !vma_line_starts(l, "[v") && !vma_line_starts(l, "anon_inode:")) {
		vma_refuse(r, l, bad->code, bad->cause, bad->way_out);
		return 0;
	}
	/* The kernel itself gives a key to what may only be executed, and does so again. */
	if (more->keyed && l->prot != PROT_EXEC) {
		vma_refuse(r, l, "vma.pkey", "memory protection keys (pkey_alloc) cannot move yet", "start the program without them");
		return 0;
	}
	kept = vma_classify(r, l, &v);
	if (kept <= 0)
		return kept;
	kept = is_locked_away(r, &v);
	if (kept > 0)
		vma_refuse(r, l, "vma.sealed", "it is sealed (mseal) and not readable, but has content", "start the program without sealing");
	if (kept)
		return kept < 0 ? kept : 0;
	kept = huge ? scan(r, v.start, v.end, PAGE_CATEGORY_HUGE, &r->list->huge) : 0;
	if (kept < 0)
		return kept;
	if (r->list->n >= VMA_MAX)
		return err_set(r->e, -E2BIG, "pid %d has more than %u mappings", r->pid, VMA_MAX);
	if (vma_list_append(r->list, &v) < 0)
		return err_set(r->e, -ENOMEM, "no memory for the list of mappings");
	return 0;
}

/* The start of the next line, or the end of the text. */
static const char *next_line(const char *p)
{
	p += strcspn(p, "\n");
	return *p ? p + 1 : p;
}

static int read_smaps(struct vma_reader *r)
{
	cleanup_free char *text = NULL;
	size_t size = 0;
	char path[64];
	const char *p;
	int rc;

	snprintf(path, sizeof(path), "/proc/%d/smaps", r->pid);
	if (vma_read_whole(path, &text, &size, r->e) < 0 || !text)
		return r->e ? r->e->code : -EIO;
	for (p = text; *p;) {
		struct smaps_more more = { 0 };
		struct vma_line l;

		if (!vma_parse_line(&p, &l))
			return err_set(r->e, -EPROTO, "%s: unexpected line \"%.60s\"", path, p);
		while (*p && strncmp(p, "VmFlags:", 8)) {
			if (!strncmp(p, "AnonHugePages:", 14))
				more.huge = strtoull(p + 14, NULL, 10) > 0;
			if (!strncmp(p, "ProtectionKey:", 14))
				more.keyed = strtoull(p + 14, NULL, 10) > 0;
			p = next_line(p);
		}
		more.flags = p + 8;
		rc = *p ? take_mapping(r, &l, &more) : err_set(r->e, -EPROTO, "%s: no VmFlags", path);
		if (rc < 0)
			return rc;
		p = next_line(p);
	}
	if (!r->list->n)
		return err_set(r->e, -ESRCH, "pid %d has no address space", r->pid);
	rc = scan(r, 0, PAGE_ALIGN_DOWN(VMA_TASK_SIZE), CATEGORY_GUARD, &r->list->guards);
	/* A kernel that does not know the category has no way to say where guards are */
	return rc == -EINVAL ? 0 : rc;
}

int vma_bits_at(pid_t pid, uint64_t start, uint32_t *ret_bits, struct err *e)
{
	const struct vma_reader r = { .pid = pid, .ours = true };
	cleanup_free char *text = NULL;
	struct vma_line l;
	size_t size = 0;
	char path[64];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/%d/smaps", pid);
	len = vma_read_whole(path, &text, &size, e);
	if (len < 0)
		return (int)len;
	for (const char *p = text; *p && vma_parse_line(&p, &l); p = next_line(p)) {
		while (*p && strncmp(p, "VmFlags:", 8))
			p = next_line(p);
		if (l.start == start && *p)
			return parse_flags(&r, p + 8, ret_bits), 0;
	}
	return err_set(e, -ENOENT, "process %d has no mapping at %llx", pid, (unsigned long long)start);
}

static int read_layout(pid_t pid, bool ours, struct fsfile_table *files, struct refusals *refusals, struct vma_list *ret, struct err *e)
{
	struct vma_list list = { .complete = true };
	struct err local = ERR_INIT;
	struct vma_reader r = { .pid = pid, .ours = ours, .files = files, .refusals = refusals, .list = &list, .e = e ? e : &local };
	int rc = fsfile_shm_device(&r.shm_dev, r.e);

	if (rc == 0)
		rc = read_smaps(&r);
	if (rc == 0 && vma_list_index(&list) < 0)
		rc = err_set(r.e, -ENOMEM, "no memory for the list of mappings");
	if (rc < 0) {
		vma_list_free(&list);
		return rc;
	}
	*ret = list;
	return 0;
}

/* Drops the refusals from index `keep` on: the reading is repeated. */
static void forget_refusals(struct refusals *refusals, size_t keep)
{
	struct refusals tail = { refusals->v + keep, refusals->n - keep };

	for (size_t i = 0; i < tail.n; i++) {
		free(tail.v[i].code);
		free(tail.v[i].thing);
		free(tail.v[i].cause);
		free(tail.v[i].way_out);
	}
	refusals->n = keep;
}

/* A mapping may go away between smaps and map_files, or grow between two reads of smaps: the program runs. Then once more. */
static int read_patiently(pid_t pid, bool ours, struct fsfile_table *files, struct refusals *refusals, struct vma_list *ret, struct err *e)
{
	for (int attempt = 0;; attempt++) {
		size_t refused = refusals->n;
		int rc = read_layout(pid, ours, files, refusals, ret, e);

		if (rc != -EAGAIN || attempt == ATTEMPTS)
			return rc;
		forget_refusals(refusals, refused);
	}
}

int vma_list_read(pid_t pid, struct fsfile_table *files, struct refusals *refusals, struct vma_list *ret, struct err *e)
{
	return read_patiently(pid, false, files, refusals, ret, e);
}

/* Whether `l` is a piece of the same object at the same place as v. */
static bool same_object(const struct vma_line *l, const struct vma *v)
{
	bool shared = v->kind == VMA_FILE_SHARED || v->kind == VMA_SYSV || v->kind == VMA_AIO || v->kind == VMA_URING;

	if (l->dev != v->dev || l->ino != v->ino || l->shared != shared)
		return false;
	if (l->ino || l->dev)
		return v->kind == VMA_ANON || l->offset - l->start == v->offset - v->start;
	return (v->kind == VMA_VDSO) == vma_line_starts(l, "[vdso]") && (v->kind == VMA_VVAR) == vma_line_starts(l, "[vvar");
}

static bool same_line(const struct vma_line *l, const struct vma *v)
{
	return l->start == v->start && l->end == v->end && l->prot == v->prot && same_object(l, v);
}

/*
 * Guards come and go without a change of the layout. They are looked for where the flags of the mapping say that there have been any, or, in a kernel whose
 * flags do not, where there were some. *at: the first that ends behind the mappings before.
 */
static int scan_guards(struct vma_reader *r, struct vma_flags *flags, const struct range_list *old, size_t *at, const struct vma *v, struct range_list *ret)
{
	int guarded = vma_flags_guarded(flags, v->start, v->end);

	while (*at < old->n && old->v[*at].end <= v->start)
		(*at)++;
	if (guarded < 0)
		guarded = *at < old->n && old->v[*at].start < v->end;
	return guarded ? scan(r, v->start, v->end, CATEGORY_GUARD, ret) : 0;
}

/* Whether mappings that have guards have the same as before. */
static int same_guards(struct vma_reader *r, struct vma_flags *flags, const struct vma_list *old, bool *ret_same)
{
	struct range_list now = { 0 };
	size_t at = 0;
	int rc = 0;

	for (size_t i = 0; i < old->n && rc == 0; i++)
		rc = scan_guards(r, flags, &old->guards, &at, &old->v[i], &now);
	*ret_same = now.n == old->guards.n && (!now.n || !memcmp(now.v, old->guards.v, now.n * sizeof(*now.v)));
	range_list_free(&now);
	flags->at = 0;
	return rc;
}

bool vma_guards_same(pid_t pid, const struct vma_list *old, bool *ret_guarded)
{
	struct vma_reader r = { .pid = pid };
	struct vma_flags flags;
	bool same = true;
	int guarded;

	vma_flags_read(pid, &flags);
	guarded = vma_flags_guarded(&flags, 0, VMA_TASK_SIZE);
	*ret_guarded = guarded < 0 ? old->guards.n != 0 : guarded;
	return !*ret_guarded || (same_guards(&r, &flags, old, &same) == 0 && same);
}

/* What a changed layout is made from; at, guard: how far its lines have come. */
struct was {
	const struct vma_list *list;
	struct vma_flags *flags;
	size_t at, guard;
};

/* Guards in a mapping of the changed layout; `old`: what lay there, NULL: something else. Where flags do not tell, what is new of it is looked at. */
static int take_guards(struct vma_reader *r, struct was *was, const struct vma *v, const struct vma *old)
{
	struct range_list *guards = &r->list->guards;
	bool told = vma_flags_guarded(was->flags, v->start, v->end) >= 0;
	struct vma kept = { .start = told ? v->start : old ? MAX(old->start, v->start) : v->end, .end = told ? v->end : old ? MIN(old->end, v->end) : v->end };
	int rc = kept.start > v->start ? scan(r, v->start, kept.start, CATEGORY_GUARD, guards) : 0;

	if (rc == 0 && kept.start < kept.end)
		rc = scan_guards(r, was->flags, &was->list->guards, &was->guard, &kept, guards);
	if (rc == 0 && kept.end < v->end)
		rc = scan(r, kept.end, v->end, CATEGORY_GUARD, guards);
	return rc == -EINVAL ? 0 : rc;
}

static int append(struct vma_reader *r, struct was *was, struct vma *v, const struct vma *old)
{
	int rc = vma_flags_apply(was->flags, v, r->e);

	if (rc == 0 && is_locked_away(r, v))
		rc = err_set(r->e, -EAGAIN, "mapping %llx has been sealed since the offer, and cannot be read", (unsigned long long)v->start);
	if (rc < 0)
		return rc;
	if (vma_list_append(r->list, v) < 0)
		return err_set(r->e, -ENOMEM, "no memory for the list of mappings");
	return take_guards(r, was, v, old);
}

/* A line of the changed layout. Without records of flags those of the mapping that was there are taken over, or guessed. */
static int take_changed(struct vma_reader *r, const struct vma_line *l, struct was *was)
{
	const struct vma_list *old = was->list;
	struct vma v = { .file = -1 };
	int kept;

	if (r->list->n && l->start < r->list->v[r->list->n - 1].end)
		return err_set(r->e, -EAGAIN, "mapping %llx changed while the layout was read", (unsigned long long)l->start);
	while (was->at < old->n && old->v[was->at].end <= l->start)
		was->at++;
	for (size_t i = was->at; i < old->n && old->v[i].start < l->end; i++) {
		if (!same_object(l, &old->v[i]))
			continue;
		v = old->v[i];
		v.offset = (l->ino || l->dev) && v.kind != VMA_ANON ? l->offset : v.offset;
		v.start = l->start;
		v.end = l->end;
		v.prot = l->prot;
		return append(r, was, &v, old->v[i].prot == v.prot ? &old->v[i] : NULL);
	}
	v.bits = VMA_GUESSED;
	if (l->prot & PROT_WRITE)
		v.bits |= l->shared ? VMA_WRITE_SHARED : VMA_ACCOUNT;
	kept = vma_classify(r, l, &v);
	return kept <= 0 ? kept : append(r, was, &v, NULL);
}

/* Remembers that the text in old->buffer is this list. The other buffer is made as large, and touched: the next reading may be in the freeze. */
static void remember_text(struct vma_list *old, size_t len)
{
	char *text = old->buffer, *other = old->known;
	size_t size = old->buffer_size;

	if (old->known_size < size) {
		other = realloc(old->known, size);
		if (!other)
			return;
		memset(other, 0, size);
	}
	old->buffer = other;
	old->buffer_size = size;
	old->known = text;
	old->known_size = size;
	old->known_len = len;
}

/* Whether the process has the layout `old`: by the very text of the last time, or line by line. *ret_text: as it has been read. */
static int is_same(struct vma_reader *r, struct vma_list *old, struct vma_flags *flags, bool *ret_same, const char **ret_text)
{
	bool same = true;
	struct vma_line l;
	size_t i = 0;
	char path[64];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/%d/maps", r->pid);
	len = vma_read_whole(path, &old->buffer, &old->buffer_size, r->e);
	if (len < 0)
		return r->e->code;
	vma_flags_read(r->pid, flags);
	*ret_text = old->buffer;
	if (old->known && (size_t)len == old->known_len && !memcmp(old->buffer, old->known, old->known_len)) {
		*ret_same = vma_flags_same(flags, old);
		return 0;
	}
	for (const char *p = old->buffer; same && *p && vma_parse_line(&p, &l);)
		if (!vma_left_out(&l))
			same = i < old->n && same_line(&l, &old->v[i++]);
	*ret_same = same && i == old->n && vma_flags_same(flags, old);
	if (same && i == old->n)
		remember_text(old, (size_t)len);
	return 0;
}

static bool is_ring(const struct vma *v)
{
	return v->kind == VMA_AIO || v->kind == VMA_URING;
}

/* Contexts of asynchronous I/O, and io_urings, are made in the preparation only. */
static bool same_rings(const struct vma_list *a, const struct vma_list *b)
{
	size_t i = 0, k = 0;

	for (;; i++, k++) {
		while (i < a->n && !is_ring(&a->v[i]))
			i++;
		while (k < b->n && !is_ring(&b->v[k]))
			k++;
		if (i == a->n || k == b->n)
			return i == a->n && k == b->n;
		if (a->v[i].start != b->v[k].start || a->v[i].end != b->v[k].end || a->v[i].ino != b->v[k].ino)
			return false;
	}
}

static int compare_once(struct vma_reader *r, struct vma_list *old, struct vma_flags *flags, bool *ret_changed)
{
	struct vma_list *list = r->list;
	bool same = false;
	struct vma_line l;
	struct was was = { .list = old, .flags = flags };
	const char *p = "";
	int rc = is_same(r, old, flags, &same, &p);

	if (rc == 0 && same)
		rc = same_guards(r, flags, old, &same);
	*ret_changed = !same;
	if (rc < 0 || same)
		return rc;
	rc = fsfile_shm_device(&r->shm_dev, r->e);
	for (size_t k = 0; rc == 0 && k < old->huge.n; k++)
		if (range_list_add(&list->huge, old->huge.v[k].start, old->huge.v[k].end) < 0)
			rc = err_set(r->e, -ENOMEM, "no memory for the list of mappings");
	while (rc == 0 && *p && vma_parse_line(&p, &l))
		rc = vma_left_out(&l) ? 0 : take_changed(r, &l, &was);
	if (rc == 0 && !list->n)
		rc = err_set(r->e, -ESRCH, "pid %d has no address space", r->pid);
	if (rc == 0 && !same_rings(old, list))
		rc = err_set(r->e, -EAGAIN, "process %d has other contexts of asynchronous I/O, or other io_urings, than before", r->pid);
	if (rc == 0 && vma_list_index(list) < 0)
		rc = err_set(r->e, -ENOMEM, "no memory for the list of mappings");
	return rc;
}

/* Content classes are left out: they depend on the destination's answers. */
static bool same_layout(const struct vma_list *a, const struct vma_list *b)
{
	if (a->n != b->n || a->guards.n != b->guards.n || a->complete != b->complete)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		const struct vma *v = &a->v[i], *w = &b->v[i];

		if (v->start != w->start || v->end != w->end || v->offset != w->offset || v->prot != w->prot || v->bits != w->bits ||
		    v->kind != w->kind || v->object_bytes != w->object_bytes || v->file != w->file || v->dev != w->dev || v->ino != w->ino ||
		    strcmp(v->name, w->name))
			return false;
	}
	return !a->guards.n || !memcmp(a->guards.v, b->guards.v, a->guards.n * sizeof(*a->guards.v));
}

static int reread_exactly(pid_t pid, const struct vma_list *old, struct fsfile_table *files, struct refusals *refusals,
			  struct vma_list *ret, bool *ret_changed, struct err *e)
{
	struct vma_list list = { 0 };
	int rc = read_patiently(pid, true, files, refusals, &list, e);

	if (rc < 0)
		return rc;
	*ret_changed = !same_layout(old, &list);
	if (*ret_changed)
		*ret = list;
	else
		vma_list_free(&list);
	return 0;
}

int vma_list_reread(pid_t pid, struct vma_list *old, bool exact, struct fsfile_table *files, struct refusals *refusals,
		    struct vma_list *ret, bool *ret_changed, struct err *e)
{
	struct err local = ERR_INIT;

	if (exact)
		return reread_exactly(pid, old, files, refusals, ret, ret_changed, e);
	for (int attempt = 0;; attempt++) {
		struct vma_list list = { .complete = true };
		struct vma_reader r = { .pid = pid, .ours = true, .files = files, .refusals = refusals, .list = &list, .e = e ? e : &local };
		size_t refused = refusals->n;
		struct vma_flags flags = { 0 };
		bool changed = false;
		int rc = compare_once(&r, old, &flags, &changed);

		if (rc == 0 && changed)
			*ret = list;
		else
			vma_list_free(&list);
		if (rc == 0)
			*ret_changed = changed;
		if (rc != -EAGAIN || attempt == ATTEMPTS)
			return rc;
		forget_refusals(refusals, refused);
	}
}
