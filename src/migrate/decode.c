/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* decode.c - the messages of a migration: from untrusted bytes to checked values; see decode.h */
#include "migrate/decode.h"

#include <errno.h>
#include <limits.h>
#include <sys/mman.h>

#include "agent/abi.h"
#include "base/util.h"
#include "image/membarrier.h"
#include "image/notes.h"
#include "image/ns_conntrack.h"
#include "image/ns_other.h"
#include "image/signal.h"
#include "migrate/migrate.h"
#include "migrate/registry.h"
#include "wire/hello.h"

#define TEXT_MAX 4096u
#define PID_NUMBER_MAX 0x400000

static bool printable(const char *text, size_t max)
{
	size_t len = strnlen(text, max);

	for (size_t i = 0; i < len; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return len < max;
}

/* --- offer --- */

static bool offer_plausible(const Gw__Offer *o)
{
	size_t threads = 0;
	struct protection protection;

	if (!o->n_processes || o->n_processes > OFFER_PROCESSES_MAX || o->strategy > STRATEGY_COPY_ON_REFERENCE || o->files_policy >= FSFILE_POLICIES ||
	    !printable(o->unit, sizeof(((struct registry_entry *)0)->unit)) || !printable(o->reason, REGISTRY_REASON_MAX) || !hello_name_valid(o->from) || o->home_parent < 0 ||
	    o->home_parent > PID_NUMBER_MAX || (o->keeps_name && !o->saved) || protection_from_message(o->protection, &protection, NULL) < 0)
		return false;
	for (size_t i = 0; i < o->n_processes; i++) {
		const Gw__OfferProcess *p = o->processes[i];

		threads += p->n_threads;
		if (!p->n_threads || threads > OFFER_THREADS_MAX || p->pid < 1 || !p->scratch_base || p->scratch_base % PAGE_SIZE_BYTES ||
		    p->scratch_base >= VMA_TASK_SIZE)
			return false;
	}
	return true;
}

static int decode_threads(const ProtobufCBinaryData *data, size_t n, Gw__Thread ***ret, size_t *ret_n, struct err *e)
{
	int code = 0;

	*ret_n = 0;
	*ret = calloc(n, sizeof(**ret));
	if (!*ret)
		return err_sys(e, ENOMEM, "threads");
	for (size_t i = 0; i < n && code >= 0; i++) {
		code = thread_decode(data[i].data, data[i].len, &(*ret)[i], e);
		*ret_n += code >= 0;
	}
	return code < 0 ? code : 0;
}

static void free_threads(Gw__Thread **threads, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gw__thread__free_unpacked(threads[i], NULL);
	free(threads);
}

int threads_ahead_decode(const void *data, size_t len, size_t nprocs, struct threads_ahead *ret, struct err *e)
{
	Gw__ThreadsAhead *m = gw__threads_ahead__unpack(NULL, len, data);
	int code = m && m->process < nprocs ? 0 : err_set(e, -EPROTO, "not threads of a process");

	*ret = (struct threads_ahead){ .process = code == 0 ? m->process : 0 };
	if (code == 0)
		code = decode_threads(m->threads, m->n_threads, &ret->v, &ret->n, e);
	for (size_t i = 0; i < ret->n && code == 0; i++)
		if (!ret->v[i]->regs.len)
			code = err_set(e, -EPROTO, "thread %d is told without its registers", ret->v[i]->tid);
	if (m)
		gw__threads_ahead__free_unpacked(m, NULL);
	if (code < 0)
		threads_ahead_free(ret);
	return code;
}

void threads_ahead_free(struct threads_ahead *a)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->v[i])
			gw__thread__free_unpacked(a->v[i], NULL);
	free(a->v);
	*a = (struct threads_ahead){ 0 };
}

static int decode_offered(const Gw__OfferProcess *o, uint32_t n_files, struct offer_process *ret, struct err *e)
{
	int code;

	ret->msg = o;
	code = process_decode(o->process.data, o->process.len, true, &ret->process, e);
	if (code >= 0)
		code = decode_threads(o->threads, o->n_threads, &ret->threads, &ret->nthreads, e);
	if (code >= 0)
		code = vma_list_decode(o->vmas.data, o->vmas.len, n_files, &ret->vmas, e);
	if (code >= 0)
		code = vdso_decode(o->vdso.data, o->vdso.len, &ret->vdso, e);
	if (code >= 0)
		code = mm_decode(o->mm.data, o->mm.len, n_files, &ret->mm, e);
	if (code >= 0 && (ret->threads[0]->tid != o->pid || ret->process->pid != o->pid))
		code = err_set(e, -EPROTO, "the first thread of an offered process is not the main one");
	if (code >= 0 && vma_find(&ret->vmas, o->scratch_base))
		code = err_set(e, -EPROTO, "an offer whose scratch lies in a mapping of the process");
	return code < 0 ? code : 0;
}

/* Whether the offered processes are those of the tree that live, in its order. */
static int check_tree(const struct offer *o, struct err *e)
{
	size_t k = 0;

	for (size_t i = 0; i < o->tree.n; i++) {
		if (o->tree.v[i].zombie)
			continue;
		if (k == o->nprocs || o->procs[k].msg->pid != o->tree.v[i].pid)
			return err_set(e, -EPROTO, "an offer whose processes are not those of its tree");
		k++;
	}
	return k == o->nprocs ? 0 : err_set(e, -EPROTO, "an offer with processes that are not in its tree");
}

int offer_decode(const void *data, size_t len, struct offer *ret, struct err *e)
{
	Gw__Offer *o = gw__offer__unpack(NULL, len, data);
	int code;

	*ret = (struct offer){ .msg = o };
	if (!o || !offer_plausible(o))
		return err_set(e, -EPROTO, "an offer that cannot be read");
	ret->procs = calloc(o->n_processes, sizeof(*ret->procs));
	if (!ret->procs)
		return err_sys(e, ENOMEM, "the offer");
	ret->nprocs = o->n_processes;
	code = fsfile_table_decode(o->files.data, o->files.len, &ret->files, e);
	for (size_t i = 0; i < ret->nprocs && code >= 0; i++)
		code = decode_offered(o->processes[i], ret->files.n, &ret->procs[i], e);
	if (code >= 0)
		code = fdtable_decode(o->fds.data, o->fds.len, ret->files.n, ret->nprocs, &ret->fds, e);
	if (code >= 0)
		code = tree_decode(o->tree.data, o->tree.len, &ret->tree, e);
	if (code == 0 && o->cgroups.len) {
		ret->cgroups = gw__cgroups__unpack(NULL, o->cgroups.len, o->cgroups.data);
		code = ret->cgroups ? cgroups_validate(ret->cgroups, e) : err_set(e, -EBADMSG, "control groups that cannot be read");
	}
	if (code == 0 && o->namespaces.len)
		code = ns_decode(o->namespaces.data, o->namespaces.len, &ret->ns, e);
	for (size_t i = 0; i < ret->nprocs && code == 0; i++)
		code = ns_others_validate_process(ret->ns, ret->procs[i].process, e);
	if (code == 0 && o->processes[0]->pid == 1 && !(ret->ns && ret->ns->owned & NS_BIT(NS_PID)))
		code = err_set(e, -EPROTO, "the first process of a host in an offer");
	return code < 0 ? code : check_tree(ret, e);
}

void offer_free(struct offer *o)
{
	for (size_t i = 0; i < o->nprocs; i++) {
		struct offer_process *p = &o->procs[i];

		if (p->process)
			gw__process__free_unpacked(p->process, NULL);
		free_threads(p->threads, p->nthreads);
		vma_list_free(&p->vmas);
	}
	free(o->procs);
	tree_free(&o->tree);
	if (o->cgroups)
		gw__cgroups__free_unpacked(o->cgroups, NULL);
	if (o->ns)
		gw__namespaces__free_unpacked(o->ns, NULL);
	fsfile_table_free(&o->files);
	if (o->fds)
		gw__fd_table__free_unpacked(o->fds, NULL);
	if (o->msg)
		gw__offer__free_unpacked(o->msg, NULL);
	*o = (struct offer){ 0 };
}

/* --- go --- */

/* Gives each process its part of the pages behind the message. What is behind them lies in queues. */
static int split_pages(struct go *ret, const uint8_t *pages, size_t len, struct err *e)
{
	uint64_t left = len / PAGE_SIZE_BYTES;

	for (size_t i = 0; i < ret->nprocs; i++) {
		const ProtobufCBinaryData *runs = &ret->procs[i].msg->runs;
		struct page_run r;

		ret->procs[i].pages = pages;
		if (runs->len % sizeof(r))
			return err_set(e, -EPROTO, "runs of pages that cannot be read");
		for (size_t k = 0; k < runs->len; k += sizeof(r)) {
			memcpy(&r, runs->data + k, sizeof(r));
			if (r.npages > left)
				return err_set(e, -EPROTO, "a go message with fewer pages than it says");
			left -= r.npages;
			pages += (size_t)r.npages * PAGE_SIZE_BYTES;
			len -= (size_t)r.npages * PAGE_SIZE_BYTES;
		}
	}
	ret->queues = pages;
	ret->queues_len = len;
	return 0;
}

static int split_go(const uint8_t *payload, size_t len, size_t nprocs, struct go *ret, struct err *e)
{
	uint32_t msg_len;

	if (len < sizeof(msg_len))
		return err_set(e, -EPROTO, "a go message of %zu bytes", len);
	memcpy(&msg_len, payload, sizeof(msg_len));
	if (msg_len <= len - sizeof(msg_len))
		ret->msg = gw__go__unpack(NULL, msg_len, payload + sizeof(msg_len));
	if (!ret->msg)
		return err_set(e, -EPROTO, "a go message that cannot be read");
	if (ret->msg->n_processes != nprocs)
		return err_set(e, -EPROTO, "a go message of %zu processes instead of %zu", ret->msg->n_processes, nprocs);
	ret->procs = calloc(nprocs, sizeof(*ret->procs));
	if (!ret->procs)
		return err_sys(e, ENOMEM, "the go message");
	ret->nprocs = nprocs;
	for (size_t i = 0; i < nprocs; i++)
		ret->procs[i].msg = ret->msg->processes[i];
	return split_pages(ret, payload + sizeof(msg_len) + msg_len, len - sizeof(msg_len) - msg_len, e);
}

static int decode_gone(const struct offer_process *offered, const struct go_terms *terms, struct go_process *ret, struct err *e)
{
	const Gw__GoProcess *msg = ret->msg;
	int code = process_decode(msg->process.data, msg->process.len, false, &ret->process, e);

	if (code >= 0 && (!msg->n_threads || msg->n_threads > offered->nthreads + terms->threads_spare))
		code = err_set(e, -EPROTO, "a go message with %zu threads", msg->n_threads);
	if (code >= 0)
		code = decode_threads(msg->threads, msg->n_threads, &ret->threads, &ret->nthreads, e);
	if (code >= 0 && (ret->threads[0]->tid != offered->msg->pid || ret->process->pid != offered->msg->pid))
		code = err_set(e, -EPROTO, "the go message is of another process");
	if (code >= 0)
		code = mm_decode(msg->mm.data, msg->mm.len, terms->n_files, &ret->mm, e);
	return code < 0 ? code : 0;
}

int go_decode(const uint8_t *payload, size_t len, const struct go_terms *terms, struct go *ret, struct err *e)
{
	int code;

	*ret = (struct go){ .offered_fds = terms->fds };
	code = split_go(payload, len, terms->nprocs, ret, e);
	if (code >= 0 && !conntrack_is_valid(&ret->msg->connections))
		code = err_set(e, -EBADMSG, "go: tracked connections");
	for (size_t i = 0; i < ret->nprocs && code >= 0; i++)
		code = decode_gone(&terms->procs[i], terms, &ret->procs[i], e);
	if (code >= 0)
		code = fdtable_decode_update(ret->msg->fds.data, ret->msg->fds.len, ret->queues, ret->queues_len, terms->n_files, terms->fds, &ret->fds, e);
	return code < 0 ? code : 0;
}

void go_free(struct go *g)
{
	for (size_t i = 0; i < g->nprocs; i++) {
		if (g->procs[i].process)
			gw__process__free_unpacked(g->procs[i].process, NULL);
		free_threads(g->procs[i].threads, g->procs[i].nthreads);
	}
	free(g->procs);
	if (g->fds)
		fdtable_update_free(g->fds, g->offered_fds);
	if (g->msg)
		gw__go__free_unpacked(g->msg, NULL);
	*g = (struct go){ 0 };
}

/* Whether all pages of runs lie in mappings with content. */
static bool runs_inside(const struct vma_list *l, const ProtobufCBinaryData *runs)
{
	struct page_run r;

	if (runs->len % sizeof(r))
		return false;
	for (size_t i = 0; i < runs->len; i += sizeof(r)) {
		uint64_t at, end;

		memcpy(&r, runs->data + i, sizeof(r));
		at = r.address;
		if (at % PAGE_SIZE_BYTES || !r.npages || at >= VMA_TASK_SIZE || r.npages > (VMA_TASK_SIZE - at) / PAGE_SIZE_BYTES)
			return false;
		end = at + (uint64_t)r.npages * PAGE_SIZE_BYTES;
		while (at < end) {
			const struct vma *v = vma_find(l, at);

			if (!v || v->content == VMA_CONTENT_NONE)
				return false;
			at = v->end;
		}
	}
	return true;
}

int go_check_pages(const struct go_process *g, const struct vma_list *l, struct err *e)
{
	if (!runs_inside(l, &g->msg->stale) || !runs_inside(l, &g->msg->runs))
		return err_set(e, -EPROTO, "pages outside of the process");
	return 0;
}

/* --- content, rounds --- */

int content_decode(const void *data, size_t len, const struct fsfile_answer *answers, uint32_t n_files, Gw__Content **ret, struct err *e)
{
	Gw__Content *c = gw__content__unpack(NULL, len, data);

	if (!c)
		return err_set(e, -EPROTO, "file content that cannot be read");
	if (!c->last && !c->common && (c->file >= n_files || !fsfile_answer_lacks(&answers[c->file]))) {
		gw__content__free_unpacked(c, NULL);
		return err_set(e, -EPROTO, "file content that was not asked for");
	}
	for (size_t i = 0; i < c->n_expectations; i++) {
		uint32_t flags = c->expectations[i]->mlock_future;

		if ((!flags || flags == MCL_FUTURE || flags == (MCL_FUTURE | MCL_ONFAULT)) && membarrier_is_valid(c->expectations[i]->membarrier))
			continue;
		gw__content__free_unpacked(c, NULL);
		return err_set(e, -EPROTO, "flags of mlockall or membarrier that cannot be");
	}
	*ret = c;
	return 0;
}

int expectation_ranges(const Gw__Expectation *c, struct range_list *ret, struct err *e)
{
	struct range r;
	uint64_t before = 0;

	if (c->lazy_ranges.len % sizeof(r))
		return err_set(e, -EPROTO, "ranges that cannot be read");
	for (size_t i = 0; i < c->lazy_ranges.len; i += sizeof(r)) {
		memcpy(&r, c->lazy_ranges.data + i, sizeof(r));
		if (r.start < before || r.start >= r.end || r.end > VMA_TASK_SIZE || (r.start | r.end) % PAGE_SIZE_BYTES)
			return err_set(e, -EPROTO, "a range that cannot be");
		before = r.end;
		if (range_list_add(ret, r.start, r.end) < 0)
			return err_sys(e, ENOMEM, "ranges");
	}
	return 0;
}

int files_decode(const void *data, size_t len, uint32_t n_files, struct file_news *ret, struct err *e)
{
	Gw__FileSync *m = gw__file_sync__unpack(NULL, len, data);
	int code;

	*ret = (struct file_news){ .msg = m };
	if (!m)
		return err_set(e, -EPROTO, "news of files that cannot be read");
	code = fsfile_table_decode(m->added.data, m->added.len, &ret->added, e);
	if (code == 0)
		code = fsfile_table_decode(m->values.data, m->values.len, &ret->values, e);
	if (code == 0 && (ret->values.n != m->n_changed || ret->added.n > FSFILE_MAX - MIN(n_files, FSFILE_MAX)))
		code = err_set(e, -EPROTO, "news of %u files and %zu changes", ret->added.n, m->n_changed);
	for (size_t i = 0; i < m->n_changed && code == 0; i++)
		if (m->changed[i] >= n_files)
			code = err_set(e, -EPROTO, "a change of file %u, which there is not", m->changed[i]);
	for (size_t i = 0; i < m->n_content && code == 0; i++)
		if (m->content[i]->last || m->content[i]->file >= n_files + ret->added.n)
			code = err_set(e, -EPROTO, "content of file %u, which there is not", m->content[i]->file);
	for (size_t i = 0; i < m->n_filled && code == 0; i++)
		if (m->filled[i] < n_files || m->filled[i] >= n_files + ret->added.n)
			code = err_set(e, -EPROTO, "file %u is not new", m->filled[i]);
	return code;
}

void file_news_free(struct file_news *n)
{
	if (n->msg)
		gw__file_sync__free_unpacked(n->msg, NULL);
	fsfile_table_free(&n->added);
	fsfile_table_free(&n->values);
	*n = (struct file_news){ 0 };
}

int round_decode(const void *data, size_t len, uint32_t n_files, size_t nprocs, struct round_news *ret, struct err *e)
{
	Gw__Round *round = gw__round__unpack(NULL, len, data);
	int code = 0;

	*ret = (struct round_news){ .msg = round };
	if (!round || round->n_layouts > nprocs)
		return err_set(e, -EPROTO, "a round that cannot be read");
	ret->layouts = calloc(round->n_layouts + 1, sizeof(*ret->layouts));
	if (!ret->layouts)
		return err_sys(e, ENOMEM, "a round");
	ret->n = round->n_layouts;
	for (size_t i = 0; i < ret->n && code == 0; i++) {
		const Gw__RoundLayout *l = round->layouts[i];

		if (l->process >= nprocs || (i && l->process <= round->layouts[i - 1]->process))
			return err_set(e, -EPROTO, "a layout of process %u, which there is not", l->process);
		code = vma_list_decode(l->vmas.data, l->vmas.len, n_files, &ret->layouts[i], e);
	}
	return code < 0 ? code : 0;
}

void round_news_free(struct round_news *r)
{
	for (size_t i = 0; i < r->n; i++)
		vma_list_free(&r->layouts[i]);
	free(r->layouts);
	if (r->msg)
		gw__round__free_unpacked(r->msg, NULL);
	*r = (struct round_news){ 0 };
}

/* --- the source's side --- */

/* These sentences go to a terminal: no control characters, and not without end. */
static char *tame(char *text)
{
	size_t i;

	for (i = 0; i < TEXT_MAX && text[i]; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			text[i] = '?';
	if (text[i])
		text[i] = 0;
	return text;
}

int accept_decode(const void *data, size_t len, uint32_t n_files, struct fsfile_answer **ret, struct err *e)
{
	Gw__Accept *accept = gw__accept__unpack(NULL, len, data);
	int code;

	if (!accept)
		return err_set(e, -EPROTO, "an answer to the offer that cannot be read");
	code = fsfile_answers_decode(accept->answers.data, accept->answers.len, n_files, ret, e);
	for (size_t i = 0; i < accept->n_notes && i < NOTES_MAX && code == 0; i++)
		notes_add("%s", tame(accept->notes[i]));
	gw__accept__free_unpacked(accept, NULL);
	return code;
}

void path_list_free(struct path_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct path_list){ 0 };
}

/* Paths as they are: they need not be printable. */
static int take_paths(char **paths, size_t n, struct path_list *ret, struct err *e)
{
	ret->v = calloc(n + 1, sizeof(*ret->v));
	if (!ret->v)
		return err_sys(e, ENOMEM, "a refusal");
	for (size_t i = 0; i < n; i++) {
		if (paths[i][0] != '/' || strlen(paths[i]) >= PATH_MAX)
			return err_set(e, -EPROTO, "a refusal that cannot be read");
		ret->v[ret->n] = strdup(paths[i]);
		if (!ret->v[ret->n++])
			return err_sys(e, ENOMEM, "a refusal");
	}
	return 0;
}

int refuse_decode(const void *data, size_t len, struct refusals *refusals, struct path_list *ret_from_home, struct err *e)
{
	Gw__Refuse *refuse = gw__refuse__unpack(NULL, len, data);
	size_t n = refuse ? refuse->n_reasons : 0;
	int ret = 0;

	*ret_from_home = (struct path_list){ 0 };
	if (refuse && !n && refuse->n_from_home && refuse->n_from_home <= FSFILE_MAX) {
		ret = take_paths(refuse->from_home, refuse->n_from_home, ret_from_home, e);
		if (ret < 0)
			path_list_free(ret_from_home);
		gw__refuse__free_unpacked(refuse, NULL);
		return ret;
	}
	for (size_t i = 0; i < n && n <= REFUSE_REASONS_MAX; i++) {
		Gw__RefusalReason *r = refuse->reasons[i];

		refusals_add(refusals, tame(r->code), tame(r->cause), tame(r->way_out), "%s", tame(r->thing));
	}
	if (refuse)
		gw__refuse__free_unpacked(refuse, NULL);
	return n && n <= REFUSE_REASONS_MAX ? 0 : err_set(e, -EPROTO, "a refusal that cannot be read");
}

int ns_ask_decode(const void *data, size_t len, Gw__NsAsk **ret, struct err *e)
{
	Gw__NsAsk *ask = len <= NS_ASK_BYTES_MAX ? gw__ns_ask__unpack(NULL, len, data) : NULL;
	bool ok = ask && ask->n_paths <= NS_MOUNTS_MAX;

	for (size_t i = 0; ok && i < ask->n_paths; i++)
		ok = strlen(ask->paths[i]->path) < PATH_MAX;
	if (!ok) {
		if (ask)
			gw__ns_ask__free_unpacked(ask, NULL);
		return err_set(e, -EPROTO, "a question about mounts that cannot be read");
	}
	*ret = ask;
	return 0;
}

int ns_answer_decode(const void *data, size_t len, Gw__NsAnswer **ret, struct err *e)
{
	Gw__NsAnswer *answer = len <= NS_ASK_BYTES_MAX ? gw__ns_answer__unpack(NULL, len, data) : NULL;

	if (!answer || answer->n_lacking > NS_MOUNTS_MAX) {
		if (answer)
			gw__ns_answer__free_unpacked(answer, NULL);
		return err_set(e, -EPROTO, "an answer about mounts that cannot be read");
	}
	*ret = answer;
	return 0;
}

int resumed_decode(const void *data, size_t len, Gw__Resumed **ret, struct err *e)
{
	Gw__Resumed *resumed = gw__resumed__unpack(NULL, len, data);

	if (!resumed || resumed->pid < 1) {
		if (resumed)
			gw__resumed__free_unpacked(resumed, NULL);
		return err_set(e, -EPROTO, "a word that the process runs which cannot be read");
	}
	*ret = resumed;
	return 0;
}

int release_decode(const void *data, size_t len, size_t nprocs, Gw__Release **ret, struct err *e)
{
	Gw__Release *release = gw__release__unpack(NULL, len, data);
	int code = release ? 0 : err_set(e, -EPROTO, "late signals that cannot be read");

	for (size_t i = 0; code == 0 && i < release->n_late; i++) {
		if (release->late[i]->process >= nprocs)
			code = err_set(e, -EPROTO, "late signals for process %u of %zu", release->late[i]->process, nprocs);
		else
			code = signal_validate_queue(&release->late[i]->queue, e);
	}
	if (code < 0) {
		if (release)
			gw__release__free_unpacked(release, NULL);
		return code;
	}
	*ret = release;
	return 0;
}
