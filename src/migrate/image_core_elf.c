/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* image_core_elf.c - headers and notes of a core file, and what of memory gets a place in it; see image_core.c */
#include <errno.h>
#include <signal.h>
#include <sys/procfs.h>
#include <sys/user.h>

#include "base/util.h"
#include "image/xstate.h"
#include "migrate/image_core_internal.h"

#define XCR0_AT 464u /* where the kernel says which components there are, in the part of the legacy area that processors leave to software */
#define FXSAVE_BYTES 512u
/* Of memory that the program wants to be in no core file, and that is as large, nothing is: it would be larger than file systems allow (shadows of sanitizers). */
#define UNWANTED_MAX (64ull << 30)

/* --- notes --- */

struct notes {
	uint8_t *data;
	size_t len, allocated;
	bool failed;
};

static void add_bytes(struct notes *n, const void *data, size_t len)
{
	if (!n->failed && n->len + len > n->allocated) {
		size_t allocated = 2 * (n->len + len);
		uint8_t *grown = realloc(n->data, allocated);

		n->failed = !grown;
		n->data = grown ? grown : n->data;
		n->allocated = grown ? allocated : n->allocated;
	}
	if (n->failed)
		return;
	if (data)
		memcpy(n->data + n->len, data, len);
	else
		memset(n->data + n->len, 0, len);
	n->len += len;
}

static void add_note(struct notes *n, uint32_t type, const char *owner, const void *data, size_t len)
{
	const Elf64_Nhdr header = { (Elf64_Word)strlen(owner) + 1, (Elf64_Word)len, type };

	add_bytes(n, &header, sizeof(header));
	add_bytes(n, owner, header.n_namesz);
	add_bytes(n, NULL, -header.n_namesz % 4u);
	add_bytes(n, data, len);
	add_bytes(n, NULL, -len % 4u);
}

static void get_ids(const struct core *c, pid_t *parent, pid_t *group, pid_t *session)
{
	const struct tree *t = &c->offer.tree;
	uint32_t at = tree_find(t, c->offer.procs[c->process].msg->pid);

	*parent = *group = *session = 0;
	if (at == TREE_NONE)
		return;
	*parent = t->v[at].parent < t->n ? t->v[t->v[at].parent].pid : 0;
	*group = t->v[at].pgid;
	*session = t->v[at].sid;
}

/* The stream has them as they are; only the first ones are in the note. */
static uint64_t first_pending(const ProtobufCBinaryData *queue)
{
	uint64_t set = 0;

	for (size_t i = 0; i + sizeof(siginfo_t) <= queue->len; i += sizeof(siginfo_t)) {
		siginfo_t info;

		memcpy(&info, queue->data + i, sizeof(info));
		if (info.si_signo > 0 && info.si_signo <= 64)
			set |= 1ull << (info.si_signo - 1);
	}
	return set;
}

static void add_registers(struct notes *n, const struct core *c, const Gw__Thread *t)
{
	struct elf_prstatus status = { .pr_pid = t->tid, .pr_sighold = t->sigmask, .pr_sigpend = first_pending(&t->pending), .pr_fpvalid = 1 };

	get_ids(c, &status.pr_ppid, &status.pr_pgrp, &status.pr_sid);
	memcpy(&status.pr_reg, t->regs.data, MIN(t->regs.len, sizeof(status.pr_reg)));
	add_note(n, NT_PRSTATUS, "CORE", &status, sizeof(status));
}

/* As long as the processor's area, so that a debugger knows how it is laid out; components behind its end are not in use. */
static void add_extended(struct notes *n, const struct core *c, const Gw__Thread *t)
{
	const Gw__Process *offered = c->offer.procs[c->process].process;
	static uint8_t area[XSTATE_MAX];
	size_t len = MIN(MAX((size_t)offered->xstate_len, t->xstate.len), sizeof(area));

	if (t->xstate.len < XSTATE_LEGACY_LEN || t->xstate.len > len)
		return;
	memset(area, 0, len);
	memcpy(area, t->xstate.data, t->xstate.len);
	memcpy(area + XCR0_AT, &offered->xfeatures, sizeof(offered->xfeatures));
	add_note(n, NT_FPREGSET, "CORE", area, FXSAVE_BYTES);
	add_note(n, NT_X86_XSTATE, "LINUX", area, len);
}

static void add_process(struct notes *n, const struct core *c)
{
	const struct go_process *g = &c->go.procs[c->process];
	const Gw__Credentials *who = g->threads[0]->credentials;
	struct elf_prpsinfo info = { .pr_sname = 'S', .pr_state = 1, .pr_pid = g->threads[0]->tid };
	size_t len = MIN(g->mm.arg_end - g->mm.arg_start, sizeof(info.pr_psargs) - 1);

	get_ids(c, &info.pr_ppid, &info.pr_pgrp, &info.pr_sid);
	info.pr_uid = who && who->n_uids ? who->uids[0] : 0;
	info.pr_gid = who && who->n_gids ? who->gids[0] : 0;
	snprintf(info.pr_fname, sizeof(info.pr_fname), "%s", g->threads[0]->name);
	if (c->fd >= 0 && g->mm.arg_end > g->mm.arg_start && core_read(c, g->mm.arg_start, info.pr_psargs, len))
		for (size_t i = 0; i + 1 < len; i++)
			info.pr_psargs[i] = info.pr_psargs[i] ? info.pr_psargs[i] : ' ';
	add_note(n, NT_PRPSINFO, "CORE", &info, sizeof(info));
}

static const char *path_of(const struct core *c, const struct vma *v)
{
	return v->file >= 0 && (uint32_t)v->file < c->offer.files.n ? fsfile_seen(&c->offer.files.v[v->file]) : NULL;
}

/* How many there are and the size of a page; start, end, and offset in pages of each; their names. */
static void add_files(struct notes *n, const struct core *c)
{
	struct notes files = { 0 };
	uint64_t head[2] = { 0, PAGE_SIZE_BYTES };

	for (size_t i = 0; i < c->last.n; i++)
		head[0] += path_of(c, &c->last.v[i]) != NULL;
	add_bytes(&files, head, sizeof(head));
	for (size_t i = 0; i < c->last.n; i++) {
		const struct vma *v = &c->last.v[i];
		const uint64_t words[3] = { v->start, v->end, v->offset / PAGE_SIZE_BYTES };

		if (path_of(c, v))
			add_bytes(&files, words, sizeof(words));
	}
	for (size_t i = 0; i < c->last.n; i++) {
		const char *path = path_of(c, &c->last.v[i]);

		if (path)
			add_bytes(&files, path, strlen(path) + 1);
	}
	n->failed |= files.failed;
	if (!files.failed)
		add_note(n, NT_FILE, "CORE", files.data, files.len);
	free(files.data);
}

/* The process's own are behind the first thread's registers, as the kernel has them. */
static int make_notes(const struct core *c, struct notes *n, struct err *e)
{
	const struct go_process *g = &c->go.procs[c->process];
	const siginfo_t none = { 0 };

	for (size_t i = 0; i < g->nthreads; i++) {
		add_registers(n, c, g->threads[i]);
		if (i == 0) {
			add_process(n, c);
			add_note(n, NT_SIGINFO, "CORE", &none, sizeof(none));
			add_note(n, NT_AUXV, "CORE", g->mm.auxv, g->mm.n_auxv * sizeof(g->mm.auxv[0]));
			add_files(n, c);
		}
		add_extended(n, c, g->threads[i]);
	}
	return n->failed ? err_sys(e, -ENOMEM, "the notes of the core file") : 0;
}

/* --- segments --- */

static int add_segment(struct core *c, size_t *allocated, const struct core_segment *s, struct err *e)
{
	if (s->start == s->end)
		return 0;
	if (c->nsegments + 1 >= *allocated) { /* there is always one to spare */
		size_t n = *allocated ? 2 * *allocated : 256;
		struct core_segment *grown = realloc(c->segments, n * sizeof(*grown));

		if (!grown)
			return err_sys(e, -ENOMEM, "the segments of the core file");
		c->segments = grown;
		*allocated = n;
	}
	c->segments[c->nsegments++] = *s;
	return 0;
}

/* A file mapping of which some pages have been written to: these are in the image, the others in the file. */
static int add_pieces(struct core *c, size_t *allocated, const struct vma *v, struct err *e)
{
	uint64_t at = v->start;
	int ret = 0;

	for (size_t i = range_list_behind(&c->pages, at); at < v->end && ret == 0; i++) {
		uint64_t from = i < c->pages.n ? MIN(MAX(c->pages.v[i].start, at), v->end) : v->end, to = i < c->pages.n ? MIN(c->pages.v[i].end, v->end) : v->end;

		ret = add_segment(c, allocated, &(struct core_segment){ at, from, 0, v->prot, false }, e);
		if (ret == 0 && from < to)
			ret = add_segment(c, allocated, &(struct core_segment){ from, to, 0, v->prot, true }, e);
		at = MAX(from, to);
	}
	return ret;
}

static bool has_contents(const struct core *c, const struct vma *v)
{
	if (v->bits & VMA_DONTDUMP && v->end - v->start > UNWANTED_MAX)
		return false;
	return v->kind == VMA_VDSO || v->content == VMA_CONTENT_ANON || v->content == VMA_CONTENT_SHARED || core_has_file(c, v);
}

static int add_mapping(struct core *c, size_t *allocated, const struct vma *v, struct err *e)
{
	const struct core_segment whole = { v->start, v->end, 0, v->prot, has_contents(c, v) };

	if (v->content == VMA_CONTENT_PRIVATE && !core_has_file(c, v))
		return add_pieces(c, allocated, v, e);
	return add_segment(c, allocated, &whole, e);
}

int core_plan(struct core *c, struct err *e)
{
	struct notes notes = { 0 };
	size_t allocated = 0;
	int ret;

	range_list_join(&c->pages, 0);
	range_list_join(&c->common, 0);
	c->last = c->layout;
	c->layout = (struct vma_list){ 0 };
	ret = make_notes(c, &notes, e);
	free(notes.data);
	for (size_t i = 0; i < c->last.n && ret == 0; i++)
		ret = add_mapping(c, &allocated, &c->last.v[i], e);
	if (ret < 0)
		return ret;
	c->notes_at = sizeof(Elf64_Ehdr) + (c->nsegments + 1) * sizeof(Elf64_Phdr) + sizeof(Elf64_Shdr);
	c->notes_len = notes.len;
	c->end = PAGE_ALIGN_UP(c->notes_at + notes.len);
	for (size_t i = 0; i < c->nsegments; i++) {
		c->segments[i].at = c->end;
		if (c->segments[i].contents)
			c->end += c->segments[i].end - c->segments[i].start;
	}
	return 0;
}

/* --- headers --- */

static uint32_t flags_of(uint32_t prot)
{
	return (prot & 1 ? PF_R : 0) | (prot & 2 ? PF_W : 0) | (prot & 4 ? PF_X : 0);
}

/* Where there are more segments than the header's field can say, section 0 says how many. */
static void add_header(struct notes *head, const struct core *c)
{
	size_t n = c->nsegments + 1;
	Elf64_Ehdr h = { .e_type = ET_CORE, .e_machine = EM_X86_64, .e_version = EV_CURRENT, .e_phoff = sizeof(h), .e_ehsize = sizeof(h), .e_phentsize = sizeof(Elf64_Phdr) };

	memcpy(h.e_ident, ELFMAG, SELFMAG);
	h.e_ident[EI_CLASS] = ELFCLASS64;
	h.e_ident[EI_DATA] = ELFDATA2LSB;
	h.e_ident[EI_VERSION] = EV_CURRENT;
	h.e_phnum = n < PN_XNUM ? (Elf64_Half)n : PN_XNUM;
	if (n >= PN_XNUM) {
		h.e_shoff = sizeof(h) + n * sizeof(Elf64_Phdr);
		h.e_shentsize = sizeof(Elf64_Shdr);
		h.e_shnum = 1;
	}
	add_bytes(head, &h, sizeof(h));
}

static void add_segments(struct notes *head, const struct core *c)
{
	const Elf64_Phdr notes = { .p_type = PT_NOTE, .p_offset = c->notes_at, .p_filesz = c->notes_len, .p_align = 4 };
	const Elf64_Shdr count = { .sh_info = (Elf64_Word)c->nsegments + 1 };

	add_bytes(head, &notes, sizeof(notes));
	for (size_t i = 0; i < c->nsegments; i++) {
		const struct core_segment *s = &c->segments[i];
		const Elf64_Phdr h = { .p_type = PT_LOAD, .p_flags = flags_of(s->prot), .p_offset = s->at, .p_vaddr = s->start, .p_filesz = s->contents ? s->end - s->start : 0,
				       .p_memsz = s->end - s->start, .p_align = PAGE_SIZE_BYTES };

		add_bytes(head, &h, sizeof(h));
	}
	add_bytes(head, &count, sizeof(count));
}

int core_write_head(struct core *c, struct err *e)
{
	struct notes head = { 0 };
	int ret;

	add_header(&head, c);
	add_segments(&head, c);
	ret = make_notes(c, &head, e);
	if (ret == 0 && head.len != c->notes_at + c->notes_len)
		ret = err_set(e, -EIO, "the notes of the core file have become longer");
	if (ret == 0 && pwrite(c->fd, head.data, head.len, 0) != (ssize_t)head.len)
		ret = err_sys(e, errno ? -errno : -ENOSPC, "writing the core file");
	free(head.data);
	return ret;
}
