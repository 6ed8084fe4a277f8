/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_freeze.c - the freeze's look at the tables by BPF: most of 10,000 descriptors have not changed, and are done with in one read
 *
 * Theory of operation: while the unit runs, captures go by duplicates (file.c), and while those are held the worker reads *its own*
 * table by BPF: so it learns which open file description in the kernel (an address) each description of the image is. In the freeze it
 * reads the tables of the processes. A number whose address is the known one has the description that it had; equal addresses are
 * one description, different ones are two. An address may have been given to another description meanwhile: so inode, operations
 * and access mode are compared as well, and for what they agree on it makes no difference, since everything that can differ is sent again.
 *
 * A description of a *plain* kind, of which nobody holds a lock and that has no owner, is nothing but position and flags: they are in
 * the record. All others are fetched and looked at as ever. A record of such a number that is the same as right before the freeze, byte by byte, is
 * not even looked at: what is known of 10,000 descriptions does not fit into the caches, their records do.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "base/util.h"
#include "image/epoll.h"
#include "image/file_state.h"
#include "image/tcp_outside.h"
#include "image/view.h"
#include "kern/tcp_record.h"

#define CLOEXEC_IN_FLAGS 02000000u
#define KIND_FLAGS (O_ACCMODE | O_PATH)

static const struct file_reader *used_reader;

void fdtable_use_reader(const struct file_reader *reader)
{
	used_reader = reader;
}

const struct file_reader *fdtable_reader(void)
{
	return used_reader;
}

void fdtable_watch(struct fdtable *t, const struct file_reader *reader)
{
	bool all = file_watch_open(reader, getpid(), &t->self, NULL) == 0;

	for (size_t i = 0; i < t->n_views && all; i++)
		if (t->views[i].fd_dir >= 0)
			all = file_watch_open(reader, t->views[i].pid, &t->views[i].watch, NULL) == 0;
	if (!all)
		fdtable_unwatch(t);
}

void fdtable_unwatch(struct fdtable *t)
{
	file_watch_close(t->self);
	t->self = NULL;
	for (size_t i = 0; i < t->n_views; i++) {
		file_watch_close(t->views[i].watch);
		free(t->views[i].records);
		free(t->views[i].known);
		free(t->views[i].easy);
		free(t->views[i].told);
		t->views[i].told = NULL;
		t->views[i].watch = NULL;
		t->views[i].records = t->views[i].known = NULL;
		t->views[i].easy = NULL;
		t->views[i].n_records = t->views[i].records_room = t->views[i].n_known = t->views[i].known_room = 0;
	}
	free(t->records);
	t->records = NULL;
	t->records_room = 0;
	t->learned = false;
}

/* What the kernel does with files that home serves, whose locks no record shows; 0: there are none. */
static uint64_t homes_operations;

static void learn(struct fd_held *held, const struct file_record *r)
{
	held->file = r->file;
	held->inode = r->inode;
	held->operations = r->kind;
}

bool fdtable_is_plain(const Gw__FdDesc *d)
{
	return (d->kind == GW__FD_KIND__FD_FILE || d->kind == GW__FD_KIND__FD_DIRECTORY || d->kind == GW__FD_KIND__FD_PATH ||
		d->kind == GW__FD_KIND__FD_DEVICE) && !d->owner && !d->signal && !d->lease;
}

void fdtable_note_digests(struct fdtable *t)
{
	for (size_t v = 0; v < t->n_views; v++)
		for (size_t i = 0; t->views[v].n_records == t->views[v].n_seen && i < t->views[v].n_seen; i++)
			if ((uint32_t)t->views[v].seen[i].fd == t->views[v].records[i].fd)
				t->held[t->views[v].seen[i].desc].digest = t->views[v].records[i].digest;
}

static uint64_t digest_of(const uint8_t *data, size_t len)
{
	uint64_t digest = 14695981039346656037ull;

	for (size_t i = 0; i < len; i++)
		digest = (digest ^ data[i]) * 1099511628211ull;
	return digest | 1;
}

static uint64_t number_of(const void *arg, uint32_t desc)
{
	(void)arg;
	return desc + 1ull;
}

/* Of a connection with others whose queues are empty: what traffic changes, all else that fdtable_digest_settings leaves out. */
static uint64_t digest_traffic(const Gw__FdTcp *p)
{
	uint8_t packed[256]; /* for some 130 at most */
	Gw__FdTcp traffic = GW__FD_TCP__INIT;
	size_t len;

	traffic.numbers = p->numbers;
	traffic.segment_bytes = p->segment_bytes;
	traffic.quiet = p->quiet;
	len = gw__fd_tcp__pack(&traffic, packed);
	return digest_of(packed, len);
}

uint64_t fdtable_digest_desc(const struct fd_held *held, const Gw__FdDesc *d)
{
	cleanup_free uint8_t *packed = NULL;

	if (d->kind == GW__FD_KIND__FD_EPOLL)
		return epoll_digest(d, number_of, NULL);
	if (!held->quiet || !d->socket)
		return 0;
	if (held->image_settings && tcp_outside_is_one(d->socket) && !d->socket->tcp->received.len && !d->socket->tcp->unsent.len)
		return held->image_settings ^ digest_traffic(d->socket->tcp);
	packed = fd_alloc(gw__fd_socket__get_packed_size(d->socket));
	return digest_of(packed, gw__fd_socket__pack(d->socket, packed));
}

uint64_t fdtable_digest_settings(const Gw__FdDesc *d)
{
	cleanup_free uint8_t *packed = NULL;
	Gw__FdSocket s;
	Gw__FdTcp p;

	if (!d->socket || !d->socket->tcp || d->socket->tcp->kind != GW__FD_TCP_KIND__TCP_OUTSIDE)
		return 0;
	p = *d->socket->tcp;
	p.numbers = NULL;
	p.segment_bytes = 0;
	p.quiet = false;
	p.received = p.unsent = (ProtobufCBinaryData){ 0 };
	s = *d->socket;
	s.tcp = &p;
	packed = fd_alloc(gw__fd_socket__get_packed_size(&s));
	return digest_of(packed, gw__fd_socket__pack(&s, packed));
}

static uint64_t file_of(const void *arg, uint32_t desc)
{
	const struct fdtable *t = arg;

	return t->held[desc].file;
}

/* A set of epoll that is what the image says. By its contents: one that changes and changes back must not be taken for the one that was seen in between. */
static bool is_same_set(const struct fdtable *t, const Gw__FdDesc *d, uint64_t digest)
{
	return d->kind == GW__FD_KIND__FD_EPOLL && digest && !d->owner && !d->signal && epoll_digest(d, file_of, t) == digest;
}

/* A connection over which nothing goes, and of which the kernel keeps nothing else than when it was looked at. */
static bool is_quiet(const struct fd_held *held, const Gw__FdDesc *d, uint64_t digest)
{
	return held->quiet && held->digest && held->digest == digest && d->socket && d->socket->tcp && !d->owner && !d->signal;
}

/* Whether the record is all that there is to know about a number with this description, and it is as the image has it. */
static bool is_easy(const struct fdtable *t, const struct fd_seen *s, const struct file_record *r)
{
	const struct fd_held *held = &t->held[s->desc];
	const Gw__FdDesc *d = t->msg->descs[s->desc];

	return (uint32_t)s->fd == r->fd && held->file == r->file && held->inode == r->inode && held->operations == r->kind && held->known &&
		!held->refused && !held->changed && (fdtable_is_plain(d) || is_quiet(held, d, r->digest) || is_same_set(t, d, r->digest)) && d->flags == (r->flags & ~CLOEXEC_IN_FLAGS) && d->position == r->position &&
		s->cloexec == r->cloexec && !s->has_locks && !r->has_locks && !r->has_owner && !(r->flags & O_ASYNC);
}

/* Makes the records that have been read those known. */
static void take_known(struct fdtable *t, struct fd_view *view)
{
	struct file_record *records = view->known;
	size_t room = view->known_room;

	view->known = view->records;
	view->known_room = view->records_room;
	view->n_known = view->n_records;
	view->records = records;
	view->records_room = room;
	free(view->easy);
	free(view->told);
	view->told = NULL;
	view->easy = fd_alloc(view->n_known);
	for (size_t i = 0; i < view->n_known && view->n_known == view->n_seen; i++)
		view->easy[i] = is_easy(t, &view->seen[i], &view->known[i]);
	/* So that memory for the next read exists, and it is nothing but a read. */
	if (view->records_room < view->known_room) {
		free(view->records);
		view->records_room = view->known_room;
		view->records = fd_alloc(view->records_room * sizeof(*view->records));
		memset(view->records, 0xff, view->records_room * sizeof(*view->records));
	}
	file_watch_prepare(view->watch);
}

static bool differs(const struct fdtable *t, size_t i)
{
	const struct fd_held *held = &t->held[i];
	const Gw__FdDesc *d = t->msg->descs[i];

	return !held->offered || !(fdtable_is_plain(d) || (held->offered_digest && held->offered_digest == fdtable_digest_desc(held, d))) ||
		d->flags != held->offered_flags || d->position != held->offered_position;
}

/* Compared with what was offered, whether or not it changes once more. */
static void learn_difference(struct fdtable *t, size_t i)
{
	struct fd_held *held = &t->held[i];

	held->image_settings = fdtable_digest_settings(t->msg->descs[i]);
	held->as_offered = held->offered_settings && held->offered_settings == held->image_settings;
	t->differs[i] = differs(t, i);
}

void fdtable_learn_differences(struct fdtable *t)
{
	size_t n = t->msg->n_descs;

	if (t->differs_room < n) {
		free(t->differs);
		free(t->todo);
		t->differs_room = t->todo_room = n + n / 4 + 64;
		t->differs = fd_alloc(t->differs_room);
		t->todo = fd_alloc(t->todo_room * sizeof(*t->todo));
	}
	for (size_t i = 0; i < n; i++)
		learn_difference(t, i);
}

/* Which description each number is of was known before anything was looked at, and so the records are those from before. */
static void learn_running(struct fdtable *t)
{
	for (size_t i = 0; i < t->msg->n_descs; i++)
		if (!t->held[i].closed && t->msg->descs[i]->kind == GW__FD_KIND__FD_FILE && view_has_device(t->held[i].dev))
			homes_operations = t->held[i].operations;
	for (size_t i = 0; i < t->n_views; i++)
		if (t->views[i].watch)
			take_known(t, &t->views[i]);
	t->learned = true;
	fdtable_learn_differences(t);
}

void fdtable_learn(struct fdtable *t)
{
	cleanup_free const struct file_record **by_number = NULL;
	ssize_t n;
	size_t numbers;

	if (t->few) { /* none has become another one */
		for (size_t i = 0; i < t->n_views; i++)
			if (t->views[i].watch)
				take_known(t, &t->views[i]);
		for (size_t k = 0; k < t->n_todo; k++)
			learn_difference(t, t->todo[k]);
		for (size_t k = 0; k < t->n_briefs; k++) /* whose settings are those that they had */
			t->differs[t->briefs[k]] = differs(t, t->briefs[k]);
		return;
	}
	if (t->running) {
		learn_running(t);
		return;
	}
	n = file_watch_read(t->self, &t->records, &t->records_room, NULL);
	if (n <= 0)
		return;
	for (size_t i = 0; i < t->msg->n_descs; i++)
		t->held[i].file = 0;
	numbers = t->records[n - 1].fd + 1;
	by_number = fd_alloc(numbers * sizeof(*by_number));
	for (ssize_t i = 0; i < n; i++)
		by_number[t->records[i].fd] = &t->records[i];
	for (size_t i = 0; i < t->msg->n_descs; i++) {
		struct fd_held *held = &t->held[i];

		if (held->fd >= 0 && (size_t)held->fd < numbers && by_number[held->fd])
			learn(held, by_number[held->fd]);
		if (held->file && t->msg->descs[i]->kind == GW__FD_KIND__FD_FILE && view_has_device(held->dev))
			homes_operations = held->operations;
	}
	t->learned = true;
	if (!fdtable_read_records(t))
		return;
	for (size_t i = 0; i < t->n_views; i++)
		if (t->views[i].watch)
			take_known(t, &t->views[i]);
	fdtable_learn_differences(t);
}

bool fdtable_read_records(struct fdtable *t)
{
	for (size_t i = 0; i < t->n_views; i++) {
		struct fd_view *view = &t->views[i];
		ssize_t n = view->watch ? file_watch_read(view->watch, &view->records, &view->records_room, NULL) : 0;

		if (n < 0)
			return false;
		view->n_records = (size_t)n;
		for (ssize_t k = 0; homes_operations && k < n; k++)
			view->records[k].has_locks |= view->records[k].kind == homes_operations;
	}
	return t->learned || t->running;
}

/* --- which description is behind which number --- */

/* Descriptions by address: open addressing, a power of two of places. */
struct addresses {
	uint32_t *desc; /* plus one; 0: free */
	size_t mask;
};

static size_t place_of(const struct addresses *a, uint64_t file)
{
	return (size_t)((file >> 6) * 0x9e3779b97f4a7c15ull >> 32) & a->mask;
}

static void addresses_add(const struct fdtable *t, struct addresses *a, uint32_t desc)
{
	size_t at = place_of(a, t->held[desc].now);

	while (a->desc[at])
		at = (at + 1) & a->mask;
	a->desc[at] = desc + 1;
}

/* -1: none. */
static int64_t addresses_find(const struct fdtable *t, const struct addresses *a, uint64_t file)
{
	for (size_t at = place_of(a, file); a->desc[at]; at = (at + 1) & a->mask)
		if (t->held[a->desc[at] - 1].now == file)
			return a->desc[at] - 1;
	return -1;
}

static void addresses_init(const struct fdtable *t, struct addresses *a, size_t n_more)
{
	size_t places = 64;

	while (places < 2 * (t->msg->n_descs + n_more))
		places *= 2;
	a->desc = fd_alloc(places * sizeof(*a->desc));
	a->mask = places - 1;
	for (uint32_t i = 0; i < t->msg->n_descs; i++)
		if (t->held[i].now)
			addresses_add(t, a, i);
}

/* Whether the description is one that the record may be of. */
static bool fits(const struct fdtable *t, uint32_t desc, const struct file_record *r)
{
	const struct fd_held *held = &t->held[desc];

	return !held->closed && held->file && held->inode == r->inode && held->operations == r->kind &&
		!((t->msg->descs[desc]->flags ^ r->flags) & KIND_FLAGS);
}

enum match { MATCH_PENDING, MATCH_KNOWN, MATCH_SAME, MATCH_GONE };

/* What one process's records have come to. */
struct matched {
	struct fd_taken *v;   /* one a record */
	uint8_t *state;       /* enum match */
	size_t n_pending;
	bool moved;           /* numbers have come, gone or changed */
};

/* easy: what is known of the view's numbers holds. */
static void match_known(struct fdtable *t, struct fd_view *view, bool easy, struct matched *m)
{
	size_t j = 0;

	m->moved = view->n_records != view->n_seen;
	for (size_t i = 0; i < view->n_records; i++) {
		const struct file_record *r = &view->records[i];
		struct fd_seen *old;

		while (j < view->n_seen && (uint32_t)view->seen[j].fd < r->fd)
			j++;
		old = j < view->n_seen && (uint32_t)view->seen[j].fd == r->fd ? &view->seen[j] : NULL;
		m->v[i] = (struct fd_taken){ .fd = (int)r->fd, .old = old };
		if (old && easy && view->easy[j] && !memcmp(r, &view->known[j], sizeof(*r)))
			m->state[i] = MATCH_SAME;
		else if (old && t->held[old->desc].file == r->file && fits(t, old->desc, r))
			m->state[i] = MATCH_KNOWN;
		if (old && m->state[i]) {
			m->v[i].desc = old->desc;
			t->held[old->desc].now = r->file;
		} else {
			m->n_pending++;
			m->moved = true;
		}
	}
}

/* A description that is new at this number: one that another number has, one that may be taken for the old one, or a new one. 1: it has gone, while the unit runs. */
static int match_new(struct fdtable *t, struct addresses *a, struct fd_view *view, struct fd_taken *f, const struct file_record *r, struct err *e)
{
	int64_t known = addresses_find(t, a, r->file);
	struct fd_held held;
	int ret;

	if (known >= 0) {
		f->desc = (uint32_t)known;
		return 0;
	}
	ret = t->running ? fdtable_find_inode(view, r, &held) : fdtable_fetch(view, f->fd, &held, e);
	if (ret < 0 || (ret == 0 && !t->running))
		return ret < 0 ? ret : err_set(e, -EAGAIN, "pid %d: its descriptor %d has gone", (int)view->pid, f->fd);
	if (ret == 0)
		return 1;
	if (!t->running && f->old && !t->held[f->old->desc].now && fits(t, f->old->desc, r) && fdtable_same_kind(t->msg->descs[f->old->desc], held.fd)) {
		f->desc = f->old->desc;
		t->held[f->desc].fd = held.fd;
	} else {
		f->desc = fdtable_add_desc(t, &held);
	}
	t->held[f->desc].now = r->file;
	learn(&t->held[f->desc], r);
	addresses_add(t, a, f->desc);
	return 0;
}

/* What one end of a connection has sent may lie in the queue of the other: both are as they were, or neither is. */
static void match_ends(const struct fdtable *t, struct matched *m)
{
	cleanup_free uint8_t *same = fd_alloc(t->msg->n_descs);

	for (int pass = 0; pass < 2; pass++)
		for (size_t v = 0; v < t->n_views; v++)
			for (size_t i = 0; m[v].v && i < t->views[v].n_records; i++) {
				const Gw__FdDesc *d = m[v].state[i] == MATCH_SAME ? t->msg->descs[m[v].v[i].desc] : NULL;

				if (!d || !d->socket || !d->socket->tcp)
					continue;
				if (pass == 0)
					same[m[v].v[i].desc] = 1;
				else if (d->socket->tcp->kind != GW__FD_TCP_KIND__TCP_OUTSIDE && (!d->socket->tcp->other || !same[d->socket->tcp->other - 1]))
					m[v].state[i] = MATCH_KNOWN;
			}
}

/* Sets of epoll refer to descriptions: where some are others now, they are looked at. */
static void match_sets(const struct fdtable *t, struct matched *m)
{
	bool moved = false;

	for (size_t v = 0; v < t->n_views; v++)
		moved = moved || (m[v].v && m[v].moved);
	for (size_t v = 0; moved && v < t->n_views; v++)
		for (size_t i = 0; m[v].v && i < t->views[v].n_records; i++)
			if (m[v].state[i] == MATCH_SAME && t->msg->descs[m[v].v[i].desc]->kind == GW__FD_KIND__FD_EPOLL)
				m[v].state[i] = MATCH_KNOWN;
}

/* While the unit runs: what has been closed since it was read is none of its numbers. */
static void drop_gone(struct fd_view *view, struct matched *m)
{
	size_t n = 0;

	for (size_t i = 0; i < view->n_records; i++) {
		if (m->state[i] == MATCH_GONE)
			continue;
		view->records[n] = view->records[i];
		m->v[n] = m->v[i];
		m->state[n] = m->state[i];
		if (view->told)
			view->told[n] = view->told[i];
		n++;
	}
	m->moved = m->moved || n < view->n_records;
	view->n_records = n;
}

/* What is told of TCP sockets is what is looked at while the unit runs. */
static void ask_running(struct fd_view *view, struct matched *m)
{
	cleanup_free uint8_t *wanted = fd_alloc(view->n_records), *gone = fd_alloc(view->n_records);

	for (size_t i = 0; i < view->n_records; i++)
		wanted[i] = m->state[i] != MATCH_SAME;
	fdtable_ask_tcp(view, wanted, gone);
	for (size_t i = 0; i < view->n_records; i++)
		if (gone[i])
			m->state[i] = MATCH_GONE;
	drop_gone(view, m);
}

static int match_view(struct fdtable *t, struct addresses *a, struct fd_view *view, struct matched *m, struct err *e)
{
	int ret = 0;

	for (size_t k = 0; m->v && k < view->n_records && ret >= 0; k++)
		if (m->state[k] == MATCH_PENDING) {
			ret = match_new(t, a, view, &m->v[k], &view->records[k], e);
			m->state[k] = ret > 0 ? MATCH_GONE : MATCH_PENDING;
		}
	if (t->running && m->v)
		drop_gone(view, m);
	return MIN(ret, 0);
}

static int match_all(struct fdtable *t, struct matched *m, struct err *e)
{
	struct addresses a = { 0 };
	size_t n_pending = 0;
	int ret = 0;

	for (uint32_t i = 0; i < t->n_views; i++) {
		struct fd_view *view = &t->views[i];

		if (!view->watch)
			continue;
		m[i].v = fd_alloc(view->n_records * sizeof(*m[i].v));
		m[i].state = fd_alloc(view->n_records);
		match_known(t, view, !t->changed && !t->retaken && view->n_known == view->n_seen, &m[i]);
		n_pending += m[i].n_pending;
	}
	if (t->has_tcp)
		match_ends(t, m);
	for (uint32_t i = 0; i < t->n_views && t->running; i++)
		if (m[i].v)
			ask_running(&t->views[i], &m[i]);
	match_sets(t, m);
	if (!n_pending)
		return 0;
	addresses_init(t, &a, n_pending);
	for (uint32_t i = 0; i < t->n_views && ret == 0; i++)
		ret = match_view(t, &a, &t->views[i], &m[i], e);
	free(a.desc);
	/* Again: some may have gone. */
	match_sets(t, m);
	return ret;
}

/* --- what is in the records --- */

/* Position and flags of a plain description; false: it has to be looked at. */
static bool settle(struct fdtable *t, uint32_t desc, const struct file_record *r)
{
	struct fd_held *held = &t->held[desc];
	Gw__FdDesc *d = t->msg->descs[desc];

	if (!held->known || held->refused || held->changed || !fdtable_is_plain(d) || r->has_owner || (r->flags & O_ASYNC))
		return false;
	/* What a position of a directory means is found out by reading it. */
	if (d->kind == GW__FD_KIND__FD_DIRECTORY && r->position != d->position)
		return false;
	d->flags = r->flags & ~CLOEXEC_IN_FLAGS;
	d->position = r->position;
	return true;
}

/* While the unit runs: all but the locks is looked at behind this, one description after the other. */
static int look_at_running(struct fdtable *t, struct fd_view *view, size_t i, struct err *e)
{
	const struct file_record *r = &view->records[i];
	struct fd_seen *s = &view->seen[i];
	bool by_home = r->has_locks && r->kind == homes_operations;
	int ret = by_home ? fdtable_hold(t, s->desc, e) : 1;

	if (ret > 0)
		ret = r->has_locks ? fdtable_read_info(t, view, s, e) : 0;
	else if (ret == 0)
		ret = err_set(e, -EAGAIN, "pid %d: its descriptor %d has gone", (int)view->pid, s->fd);
	if (by_home)
		fdtable_let_go(t, s->desc);
	s->has_locks = s->has_locks && (r->has_locks || view_has_device(t->held[s->desc].dev));
	s->cloexec = r->cloexec;
	return ret;
}

/* Looks at one number as far as its record is not all of it. */
static int look_at_number(struct fdtable *t, struct fd_view *view, size_t i, bool first, struct err *e)
{
	const struct file_record *r = &view->records[i];
	struct fd_seen *s = &view->seen[i];
	struct fd_held *held = &t->held[s->desc];
	int ret = 0;

	if (first) {
		held->settled = settle(t, s->desc, r);
		held->armed = r->armed;
	}
	if (t->running)
		return look_at_running(t, view, i, e);
	if (((first && !held->settled) || (r->has_locks && r->kind == homes_operations)) && held->fd < 0) {
		struct fd_held got;

		t->holding = true;
		ret = fdtable_fetch(view, s->fd, &got, e);
		if (ret == 0)
			ret = err_set(e, -EAGAIN, "pid %d: its descriptor %d has gone", (int)view->pid, s->fd);
		if (ret < 0)
			return ret;
		held->fd = got.fd;
	}
	ret = (first && !held->settled) || r->has_locks ? fdtable_read_info(t, view, s, e) : 0;
	s->has_locks = s->has_locks && (r->has_locks || view_has_device(held->dev));
	s->cloexec = r->cloexec;
	return ret;
}

/* Takes over the records of one process. */
static int take_records(struct fdtable *t, uint32_t index, const uint8_t *state, struct err *e)
{
	struct fd_view *view = &t->views[index];
	int ret = 0;

	for (size_t i = 0; i < view->n_records && ret == 0; i++) {
		struct fd_held *held = &t->held[view->seen[i].desc];
		bool first = !held->uses++;

		if (first) {
			held->view = index;
			held->slot = (uint32_t)i;
			held->settled = held->same = state[i] == MATCH_SAME;
		}
		if (state[i] != MATCH_SAME)
			ret = look_at_number(t, view, i, first, e);
	}
	return ret;
}

/* --- when no number has come, gone or changed its description --- */

/* What one end of a connection inside of the unit does changes the other one. */
static bool has_end_inside(const Gw__FdDesc *d)
{
	return d->socket && d->socket->tcp && d->socket->tcp->kind != GW__FD_TCP_KIND__TCP_OUTSIDE;
}

static bool is_alone(const struct fdtable *t, const struct fd_seen *s, const struct file_record *r)
{
	return (uint32_t)s->fd == r->fd && t->held[s->desc].file == r->file && fits(t, s->desc, r) && !(t->has_tcp && has_end_inside(t->msg->descs[s->desc]));
}

static bool same_numbers(const struct fdtable *t)
{
	for (size_t v = 0; v < t->n_views; v++) {
		const struct fd_view *view = &t->views[v];

		if (!view->watch)
			continue;
		if (view->n_records != view->n_known || view->n_records != view->n_seen)
			return false;
		for (size_t i = 0; i < view->n_records; i++)
			if (!(view->easy[i] && !memcmp(&view->records[i], &view->known[i], sizeof(view->records[i]))) &&
			    !is_alone(t, &view->seen[i], &view->records[i]))
				return false;
	}
	return true;
}

/* A connection with others that has been offered as it is, but for what traffic changes. */
static bool may_be_brief(const struct fd_held *held, const Gw__FdDesc *d, const struct file_record *r)
{
	return held->known && !held->refused && !held->changed && held->offered && held->settings && held->as_offered && d->flags == held->offered_flags && d->flags == (r->flags & ~CLOEXEC_IN_FLAGS) && !d->owner && !d->signal && !r->has_owner && !r->has_locks && !(r->flags & O_ASYNC);
}

static int look_at_changed(struct fdtable *t, struct fd_view *view, size_t i, bool first, struct err *e)
{
	uint32_t desc = view->seen[i].desc;
	const struct fd_held *held = &t->held[desc];
	int ret = look_at_number(t, view, i, first, e);

	t->msg->tables[t->msg->table_of[view - t->views]]->cloexec[i] = view->seen[i].cloexec;
	if (!first)
		return ret;
	t->differs[desc] = !held->settled || !held->offered || t->msg->descs[desc]->flags != held->offered_flags ||
		t->msg->descs[desc]->position != held->offered_position;
	if (!held->settled)
		t->todo[t->n_todo++] = desc;
	return ret;
}

/* Connections with others, at their first number. */
static int take_connections(struct fdtable *t, struct fd_view *view, const struct fd_changed *v, size_t n, struct err *e)
{
	cleanup_free uint8_t *taken = fd_alloc(n);
	int ret = fdtable_take_brief(t, view, v, n, taken, e);

	for (size_t k = 0; k < n && ret == 0; k++) {
		if (!taken[k]) {
			ret = look_at_changed(t, view, v[k].record, true, e);
			continue;
		}
		t->differs[v[k].desc] = 1;
		if (!t->held[v[k].desc].settled)
			t->todo[t->n_todo++] = v[k].desc;
	}
	return ret;
}

static int take_changed(struct fdtable *t, struct fd_view *view, struct err *e)
{
	cleanup_free struct fd_changed *connections = NULL;
	Gw__FdNumbers *numbers = t->msg->tables[t->msg->table_of[view - t->views]];
	size_t n = 0;
	int ret = 0;

	for (size_t i = 0; i < view->n_records && ret == 0; i++) {
		uint32_t desc = view->seen[i].desc;
		struct fd_held *held;
		bool first;

		if (view->easy[i] && !memcmp(&view->records[i], &view->known[i], sizeof(view->records[i])))
			continue;
		held = &t->held[desc];
		first = held->round != t->round;
		held->round = t->round;
		if (first) {
			held->view = (uint32_t)(view - t->views);
			held->slot = (uint32_t)i;
		}
		if (first && may_be_brief(held, t->msg->descs[desc], &view->records[i])) {
			connections = connections ? connections : fd_alloc(view->n_records * sizeof(*connections));
			connections[n++] = (struct fd_changed){ desc, (uint32_t)i };
			view->seen[i].cloexec = view->records[i].cloexec;
			numbers->cloexec[i] = view->seen[i].cloexec;
			continue;
		}
		ret = look_at_changed(t, view, i, first, e);
	}
	return ret < 0 || !n ? ret : take_connections(t, view, connections, n, e);
}

/* Whether it is enough to look at a few, since no number has moved. Unix sockets are looked at together, and so are both ends of a connection. */
bool fdtable_is_few(const struct fdtable *t)
{
	return !t->changed && !t->has_unix && t->differs_room >= t->msg->n_descs && same_numbers(t);
}

int fdtable_sync_few(struct fdtable *t, struct err *e)
{
	int ret = 0;

	fdtable_release(t);
	t->few = true;
	t->n_todo = 0;
	t->round++;
	for (size_t i = 0; i < t->n_views && ret == 0; i++)
		if (t->views[i].watch)
			ret = take_changed(t, &t->views[i], e);
	return ret;
}

int fdtable_sync_by_records(struct fdtable *t, struct err *e)
{
	cleanup_free struct matched *m = fd_alloc(t->n_views * sizeof(*m));
	int ret;

	fdtable_release(t);
	t->order_is_old = true;
	t->holding = true;
	for (size_t i = 0; i < t->msg->n_descs; i++) {
		t->held[i].now = 0;
		t->held[i].uses = 0;
		t->held[i].settled = t->held[i].same = false;
	}
	ret = match_all(t, m, e);
	for (uint32_t i = 0; i < t->n_views; i++)
		if (ret == 0 && m[i].moved)
			fdtable_take_numbers(t, &t->views[i], m[i].v, t->views[i].n_records);
	for (uint32_t i = 0; i < t->n_views && ret == 0; i++)
		ret = take_records(t, i, m[i].state, e);
	for (uint32_t i = 0; i < t->n_views; i++) {
		free(m[i].v);
		free(m[i].state);
	}
	return ret;
}
