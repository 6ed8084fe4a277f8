/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* image_summary.c - what an image says of itself, for people (`godwit image show`) and for the reader; see image_write.h */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>

#include "base/util.h"
#include "image.pb-c.h"
#include "image/socket_address.h"
#include "migrate/image_write.h"

#define THREADS_SPARE 64u

int image_put_head(struct image_writer *w, const Gw__Hello *hello, const char *unit, struct err *e)
{
	Gw__ImageHead head = GW__IMAGE_HEAD__INIT;
	cleanup_free uint8_t *packed_hello = NULL, *packed = NULL;
	size_t len = 0;

	if (w->chain && archive_chain_unit(w->chain)[0] && strcmp(archive_chain_unit(w->chain), unit) != 0)
		return err_set(e, -EEXIST, "%s is in the chain of unit %s: name another directory", w->wish->path, archive_chain_unit(w->chain));
	if (w->chain)
		archive_chain_name_unit(w->chain, unit);
	packed_hello = hello_encode(hello, &len);
	if (!packed_hello)
		return err_sys(e, -ENOMEM, "the image");
	head.hello = (ProtobufCBinaryData){ len, packed_hello };
	head.unit = (char *)(uintptr_t)unit;
	head.node = (char *)(uintptr_t)w->self_name;
	head.keep_running = w->image->keep_running;
	head.godwit = (char *)(uintptr_t)w->wish->version;
	packed = malloc(gw__image_head__get_packed_size(&head) + 1);
	if (!packed)
		return err_sys(e, -ENOMEM, "the image");
	return archive_put(w->archive, ARCHIVE_HEAD, 0, 0, packed, gw__image_head__pack(&head, packed), e);
}

/* What goes into the message is freed with it, as if it had been unpacked. */
static char *copy_of(const char *s)
{
	char *copy = strdup(s ? s : "");

	return copy ? copy : (char *)(uintptr_t)protobuf_c_empty_string;
}

static const struct tree_process *in_tree(const struct offer *o, pid_t pid)
{
	for (size_t i = 0; i < o->tree.n; i++)
		if (o->tree.v[i].pid == pid)
			return &o->tree.v[i];
	return NULL;
}

/* As it was in the go message, where that can be read; as offered otherwise. */
static int add_processes(struct image_writer *w, const struct go *go, Gw__ImageSummary *s)
{
	const struct offer *o = &w->offered;

	s->processes = calloc(o->nprocs + 1, sizeof(*s->processes));
	for (size_t i = 0; s->processes && i < o->nprocs; i++) {
		const struct offer_process *p = &o->procs[i];
		const struct tree_process *t = in_tree(o, p->msg->pid);
		Gw__ImageProcess *to = calloc(1, sizeof(*to));

		if (!to)
			return -ENOMEM;
		gw__image_process__init(to);
		s->processes[s->n_processes++] = to;
		to->pid = p->msg->pid;
		to->parent = t && t->parent != TREE_NONE && t->parent < o->tree.n ? o->tree.v[t->parent].pid : 0;
		to->name = copy_of(go && i < go->nprocs && go->procs[i].nthreads ? go->procs[i].threads[0]->name : "");
		to->program = copy_of(p->mm.exe_file >= 0 && (uint32_t)p->mm.exe_file < o->files.n ? fsfile_seen(&o->files.v[p->mm.exe_file]) : "");
		to->threads = (uint32_t)(go && i < go->nprocs ? go->procs[i].nthreads : p->nthreads);
		to->mappings = (uint32_t)p->vmas.n;
		for (size_t k = 0; k < p->vmas.n; k++)
			to->mapped_bytes += p->vmas.v[k].end - p->vmas.v[k].start;
		to->pages = w->streams[i].pages;
		for (size_t k = 0; go && i < go->nprocs && k + sizeof(struct page_run) <= go->procs[i].msg->runs.len; k += sizeof(struct page_run)) {
			struct page_run r;

			memcpy(&r, go->procs[i].msg->runs.data + k, sizeof(r));
			to->pages += r.npages;
		}
	}
	return s->processes ? 0 : -ENOMEM;
}

static bool is_known_again(const struct fsfile *f)
{
	return f->type == FSFILE_REGULAR && !f->unlinked && f->uses;
}

static int add_files(const struct image_writer *w, Gw__ImageSummary *s)
{
	const struct fsfile_table *t = &w->offered.files;

	s->files = calloc(t->n + 1, sizeof(*s->files));
	for (uint32_t i = 0; s->files && i < t->n; i++) {
		Gw__ImageFile *to = calloc(1, sizeof(*to));

		if (!to)
			return -ENOMEM;
		gw__image_file__init(to);
		s->files[s->n_files++] = to;
		to->path = copy_of(fsfile_seen(&t->v[i]));
		to->size = t->v[i].size;
		to->mtime_ns = t->v[i].mtime_ns;
		to->inside = w->inside[i];
		to->known = !w->inside[i] && is_known_again(&t->v[i]);
	}
	return s->files ? 0 : -ENOMEM;
}

static const char *what_is(const Gw__FdDesc *d)
{
	static char text[32];
	size_t n;
	const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(&gw__fd_kind__descriptor, (int)d->kind);

	if (d->kind == GW__FD_KIND__FD_SOCKET && d->socket && d->socket->tcp)
		return d->socket->tcp->kind == GW__FD_TCP_KIND__TCP_PAIR ? "tcp connection" : "tcp socket";
	if (d->kind == GW__FD_KIND__FD_SOCKET && d->socket)
		return d->socket->listening ? "listening socket" : "socket";
	if (!v || strncmp(v->name, "FD_", 3) != 0)
		return "other";
	for (n = 0; n + 1 < sizeof(text) && v->name[3 + n]; n++)
		text[n] = v->name[3 + n] == '_' ? ' ' : (char)tolower((unsigned char)v->name[3 + n]);
	text[n] = 0;
	return text;
}

static int count(Gw__ImageSummary *s, const char *what)
{
	Gw__ImageCount *to;

	for (size_t i = 0; i < s->n_descriptors; i++)
		if (s->descriptors[i] && !strcmp(s->descriptors[i]->what, what)) {
			s->descriptors[i]->n++;
			return 0;
		}
	to = calloc(1, sizeof(*to));
	if (!to)
		return -ENOMEM;
	gw__image_count__init(to);
	to->what = copy_of(what);
	to->n = 1;
	s->descriptors[s->n_descriptors++] = to;
	return 0;
}

static void add_listener(Gw__ImageSummary *s, const Gw__FdSocket *socket)
{
	struct endpoint p = endpoint_of(&socket->local);
	bool v4 = socket->family == AF_INET;
	char address[INET6_ADDRSTRLEN] = "", line[128];

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? (const void *)&p.address.s6_addr[12] : &p.address, address, sizeof(address));
	snprintf(line, sizeof(line), v4 ? "tcp %s:%u" : "tcp [%s]:%u", address, ntohs(p.port));
	s->listeners[s->n_listeners++] = copy_of(line);
}

static int add_descriptors(const Gw__FdTable *t, Gw__ImageSummary *s)
{
	int ret = 0;

	s->descriptors = calloc(t->n_descs + 1, sizeof(*s->descriptors));
	s->listeners = calloc(t->n_descs + 1, sizeof(*s->listeners));
	if (!s->descriptors || !s->listeners)
		return -ENOMEM;
	for (size_t i = 0; i < t->n_descs && ret == 0; i++) {
		const Gw__FdDesc *d = t->descs[i];

		if (d->kind == GW__FD_KIND__FD_CLOSED)
			continue;
		ret = count(s, what_is(d));
		if (d->kind == GW__FD_KIND__FD_SOCKET && d->socket && d->socket->listening && (d->socket->family == AF_INET || d->socket->family == AF_INET6))
			add_listener(s, d->socket);
	}
	return ret;
}

static int pack(struct image_writer *w, const Gw__ImageSummary *s, struct err *e)
{
	cleanup_free uint8_t *packed = malloc(gw__image_summary__get_packed_size(s) + 1);

	if (!packed)
		return err_sys(e, -ENOMEM, "the image");
	return archive_put(w->archive, ARCHIVE_SUMMARY, 0, 0, packed, gw__image_summary__pack(s, packed), e);
}

int image_put_summary(struct image_writer *w, struct err *e)
{
	const struct go_terms terms = { w->offered.procs, w->offered.nprocs, THREADS_SPARE, w->offered.files.n, w->offered.fds };
	Gw__ImageSummary *s = calloc(1, sizeof(*s));
	struct go go = { 0 };
	int ret, decoded;

	if (!s)
		return err_sys(e, -ENOMEM, "the image");
	gw__image_summary__init(s);
	s->monotonic_ns = w->monotonic_ns;
	s->boottime_ns = w->boottime_ns;
	s->realtime_ns = w->realtime_ns;
	s->strategy = copy_of(strategy_name((enum strategy)w->offered.msg->strategy));
	s->page_bytes = w->page_bytes;
	s->content_bytes = w->content_bytes;
	/* One that no destination could read is no image. */
	decoded = go_decode(w->go, w->go_len, &terms, &go, e);
	ret = decoded < 0 ? decoded : add_processes(w, &go, s);
	if (ret == 0)
		ret = add_files(w, s);
	if (ret == 0)
		ret = add_descriptors(go.fds, s);
	if (ret == -ENOMEM)
		err_sys(e, -ENOMEM, "the image");
	if (ret == 0)
		ret = pack(w, s, e);
	go_free(&go);
	gw__image_summary__free_unpacked(s, NULL);
	return ret;
}
