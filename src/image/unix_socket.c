/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* unix_socket.c - capturing and checking unix sockets; see unix_socket.h */
#include "image/unix_socket.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/inode_path.h"
#include "image/ns_mount.h"
#include "image/ns_other.h"
#include "image/peer_cred.h"
#include "image/place.h"
#include "image/socket_options.h"
#include "image/unix_diag.h"
#include "image/unix_name.h"
#include "image/relay.h"
#include "image/unix_queue.h"
#include "kern/queue_peek.h"

#define BACKLOG_MAX 0x7fffffffu
#define SHUT_BOTH 3u

struct unix_capture {
	struct unix_member *m;
	size_t n;
	Gw__FdTable *t;
	bool frozen;
	struct unix_diag diag;
	struct other_diag {      /* of network namespaces that the first process is not in */
		uint32_t space;
		struct unix_diag diag;
	} *others;
	size_t n_others;
	struct refusals *refusals;
};

static const char *type_name(uint32_t type)
{
	return type == SOCK_STREAM ? "unix stream socket" : type == SOCK_DGRAM ? "unix datagram socket" : "unix seqpacket socket";
}

static int refuse(struct unix_capture *c, struct unix_member *m, const char *code, const char *cause, const char *way_out)
{
	const Gw__FdUnix *u = c->t->descs[m->desc]->unix_socket;
	char name[200];

	unix_name_describe(&u->name, name, sizeof(name));
	m->refused = true;
	if (m->fd >= 0)
		refusals_add(c->refusals, code, cause, way_out, "fd %d (%s, %s)", m->fd, type_name(u->type), name);
	else
		refusals_add(c->refusals, code, cause, way_out, "a %s in flight (%s)", type_name(u->type), name);
	return FD_REFUSED;
}

static int compare_members(const void *a, const void *b)
{
	uint64_t x = ((const struct unix_member *)a)->ino, y = ((const struct unix_member *)b)->ino;

	return x < y ? -1 : x > y;
}

static struct unix_member *find_member(const struct unix_capture *c, uint64_t ino)
{
	struct unix_member key = { .ino = ino };

	return ino && c->n ? bsearch(&key, c->m, c->n, sizeof(key), compare_members) : NULL;
}

/* The name that `call` (getsockname, getpeername) gives; empty when there is none. */
static void capture_name(int fd, int (*call)(int, struct sockaddr *, socklen_t *), ProtobufCBinaryData *ret)
{
	struct sockaddr_un a;
	socklen_t len = sizeof(a);

	memset(&a, 0, sizeof(a));
	if (call(fd, (void *)&a, &len) < 0 || len <= offsetof(struct sockaddr_un, sun_path))
		len = 0;
	bytes_set(ret, &a, MIN(len, sizeof(a)));
}

#define IS_THERE 2 /* neither 0 nor FD_REFUSED */

static int refuse_relative(struct unix_capture *c, struct unix_member *m)
{
	return refuse(c, m, "fd.socket.unix.relative", "it is bound to a relative path, and from which directory cannot be found out",
		"bind it to an absolute path");
}

/* The directory that a relative name begins in, where that is not the working directory (any more). IS_THERE, 0 when the file has been removed, or FD_REFUSED. */
static int find_directory(struct unix_capture *c, struct unix_member *m, const char *name, const struct unix_diag_info *diag, char directory[PATH_MAX])
{
	cleanup_free char *path = NULL;
	int found = inode_path_by_number(m->pid, diag->file_dev, diag->file_ino, &path);
	size_t len, tail = strlen(name);

	if (found == 0)
		return 0;
	len = path ? strlen(path) : 0;
	if (found < 0 || len <= tail || len >= PATH_MAX || path[len - tail - 1] != '/' || strcmp(path + len - tail, name))
		return refuse_relative(c, m);
	snprintf(directory, PATH_MAX, "%.*s", len - tail == 1 ? 1 : (int)(len - tail - 1), path);
	return IS_THERE;
}

static bool is_its_file(const char *path, const struct unix_diag_info *diag, struct stat *st)
{
	return lstat(path, st) == 0 && S_ISSOCK(st->st_mode) && (uint32_t)st->st_ino == diag->file_ino;
}

/* Of a relative name: IS_THERE and the directory, 0 when the file is not there, or FD_REFUSED. */
static int look_below_directory(struct unix_capture *c, struct unix_member *m, const Gw__FdUnix *u, const char *name, const struct unix_diag_info *diag,
	char directory[PATH_MAX], struct stat *st)
{
	char path[2 * PATH_MAX], link[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/cwd/%s", (int)m->pid, name);
	if (is_its_file(path, diag, st)) {
		snprintf(link, sizeof(link), "/proc/%d/cwd", (int)m->pid);
		n = readlink(link, directory, PATH_MAX - 1);
		if (n <= 0 || directory[0] != '/')
			return refuse(c, m, "fd.socket.unix.relative", "it is bound to a relative path in a directory without a path", "bind it to an absolute path");
		directory[n] = 0;
		return IS_THERE;
	}
	/* Nobody can reach it by its name but who is connected. */
	if (u->state != GW__FD_UNIX_STATE__UNIX_LISTENING && (u->state != GW__FD_UNIX_STATE__UNIX_FREE || u->type != SOCK_DGRAM))
		return 0;
	n = find_directory(c, m, name, diag, directory);
	if (n != IS_THERE)
		return (int)n;
	snprintf(path, sizeof(path), "/proc/%d/root%s/%s", (int)m->pid, directory, name);
	return is_its_file(path, diag, st) ? IS_THERE : refuse_relative(c, m);
}

/* Whoever has the socket need not be in the mount namespace that it was bound in. IS_THERE and the root there, 0 when the file is nowhere, or FD_REFUSED. */
static int look_in_others(struct unix_capture *c, struct unix_member *m, const Gw__FdUnix *u, const char *name, const struct unix_diag_info *diag, char root[PATH_MAX],
	struct stat *st)
{
	cleanup_free char *path = NULL;
	char at[2 * PATH_MAX];

	for (size_t i = 0; ns_root_number(i, root, PATH_MAX); i++) {
		snprintf(at, sizeof(at), "%s%s", root, name);
		if (is_its_file(place_of(at), diag, st))
			return IS_THERE;
	}
	/* Nobody can reach it by its name but who is connected. */
	if (u->state != GW__FD_UNIX_STATE__UNIX_LISTENING && (u->state != GW__FD_UNIX_STATE__UNIX_FREE || u->type != SOCK_DGRAM))
		return 0;
	return inode_path_by_number(m->pid, diag->file_dev, diag->file_ino, &path) == 0 ? 0 :
		refuse(c, m, "fd.socket.unix.root", "the path that it is bound to leads to it in none of the unit's mount namespaces", "close it");
}

/* Whether the file that the name means, as the process sees it, is the socket's own. */
static int capture_file(struct unix_capture *c, struct unix_member *m, Gw__FdUnix *u, const struct unix_diag_info *diag)
{
	char path[PATH_MAX], directory[PATH_MAX] = "", root[PATH_MAX], name[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
	struct sockaddr_un a;
	struct stat st;
	int there;

	u->has_file = false;
	if (!unix_name_is_path(&u->name) || !diag->has_file)
		return 0;
	unix_name_address(&u->name, &a);
	snprintf(name, sizeof(name), "%.*s", (int)sizeof(a.sun_path), a.sun_path);
	snprintf(path, sizeof(path), "/proc/%d/root%s", (int)m->pid, name);
	if (name[0] == '/')
		there = is_its_file(path, diag, &st) ? IS_THERE : 0;
	else
		there = look_below_directory(c, m, u, name, diag, directory, &st);
	if (there == IS_THERE && !ns_root_of(m->pid, directory[0] != 0, root, sizeof(root)))
		return refuse(c, m, "fd.socket.unix.root", "it is bound below a root directory that is in none of the unit's mount namespaces", "close it");
	if (there == 0 && name[0] == '/' && place_has_spaces())
		there = look_in_others(c, m, u, name, diag, root, &st);
	if (there != IS_THERE)
		return there;
	string_set(&u->root, root);
	if (directory[0]) {
		free(u->directory == protobuf_c_empty_string ? NULL : u->directory);
		u->directory = fd_strdup(directory);
	}
	u->has_file = true;
	u->mode = st.st_mode & 07777;
	u->uid = st.st_uid;
	u->gid = st.st_gid;
	return 0;
}

/* State as sock_diag has it; peers follow. */
static Gw__FdUnixState state_of(const struct unix_diag_info *diag)
{
	if (diag->state == 10)
		return GW__FD_UNIX_STATE__UNIX_LISTENING;
	if (!diag->has_peer)
		return GW__FD_UNIX_STATE__UNIX_FREE;
	return diag->peer_ino ? GW__FD_UNIX_STATE__UNIX_CONNECTED : GW__FD_UNIX_STATE__UNIX_GONE;
}

static struct unix_diag *diag_of(struct unix_capture *c, uint32_t space)
{
	struct other_diag *grown;

	for (size_t i = 0; i < c->n_others; i++)
		if (c->others[i].space == space)
			return &c->others[i].diag;
	grown = realloc(c->others, (c->n_others + 1) * sizeof(*grown));
	if (!grown)
		abort();
	c->others = grown;
	grown[c->n_others] = (struct other_diag){ space, UNIX_DIAG_INIT };
	return &grown[c->n_others++].diag;
}

/* sock_diag tells of the sockets of one network namespace. */
static const struct unix_diag_info *ask_diag(struct unix_capture *c, uint32_t space, uint64_t ino)
{
	const struct unix_diag_info *info;
	int back;

	if (!space)
		return unix_diag_look(&c->diag, ino);
	back = ns_others_visit(NS_NET, space);
	if (back < 0)
		return NULL;
	info = unix_diag_look(diag_of(c, space), ino);
	ns_others_return(NS_NET, back);
	return info;
}

static void diags_done(struct unix_capture *c)
{
	unix_diag_done(&c->diag);
	for (size_t i = 0; i < c->n_others; i++)
		unix_diag_done(&c->others[i].diag);
	free(c->others);
}

/* What the socket itself and sock_diag say. */
static int capture_own(struct unix_capture *c, struct unix_member *m, const struct unix_diag_info **ret_diag, struct err *e)
{
	Gw__FdDesc *d = c->t->descs[m->desc];
	Gw__FdUnix *u = d->unix_socket;
	const struct unix_diag_info *diag;
	struct fd_look seen = { .fd = m->fd, .held = m->held };

	if (!u) {
		u = d->unix_socket = fd_alloc(sizeof(*u));
		gw__fd_unix__init(u);
		u->type = (uint32_t)socket_get_int(m->held, SOL_SOCKET, SO_TYPE);
	}
	u->space = socket_same_net_namespace(m->held) ? 0 : socket_net_namespace(m->held);
	if (!u->space && !socket_same_net_namespace(m->held)) {
		m->refused = true;
		return socket_refuse_namespace(&seen, type_name(u->type), c->refusals);
	}
	if (socket_options_refuse(&seen, c->refusals)) {
		m->refused = true;
		return FD_REFUSED;
	}
	*ret_diag = diag = ask_diag(c, u->space, m->ino);
	if (!diag)
		return err_set(e, -EAGAIN, "fd %d: the kernel (sock_diag) does not know this unix socket", m->fd);
	u->state = state_of(diag);
	u->shut_down = diag->shut_down;
	u->backlog = u->state == GW__FD_UNIX_STATE__UNIX_LISTENING && diag->backlog > 0 ? (uint32_t)diag->backlog : 0;
	u->peer = 0;
	u->relay = false;
	capture_name(m->held, getsockname, &u->name);
	socket_options_free(&u->options, &u->n_options);
	socket_options_capture(m->held, AF_UNIX, u->type, &u->options, &u->n_options);
	u->peer_cred = u->peer_cred ? u->peer_cred : peer_cred_capture(m->held);
	return capture_file(c, m, u, diag);
}

static void forget_waiting(Gw__FdUnix *u)
{
	for (size_t i = 0; i < u->n_waiting; i++)
		gw__fd_unix_waiting__free_unpacked(u->waiting[i], NULL);
	free(u->waiting);
	u->waiting = NULL;
	u->n_waiting = 0;
}

static Gw__FdUnixCred *new_cred(const struct queue_record *r)
{
	Gw__FdUnixCred *cred = fd_alloc(sizeof(*cred));

	gw__fd_unix_cred__init(cred);
	cred->pid = (int32_t)r->b;
	cred->uid = r->c;
	cred->gid = r->d;
	return cred;
}

static void add_waiting(Gw__FdUnix *u, const struct queue_record *r, const char *name)
{
	Gw__FdUnixWaiting *w = fd_alloc(sizeof(*w));

	gw__fd_unix_waiting__init(w);
	bytes_set(&w->name, name, r->len > offsetof(struct sockaddr_un, sun_path) ? r->len : 0);
	w->cred = new_cred(r);
	fd_append(&u->waiting, &u->n_waiting, w);
}

static void add_sent(Gw__FdUnixWaiting *w, const struct queue_record *r, const char *data)
{
	Gw__FdUnixMessage *m = fd_alloc(sizeof(*m));

	gw__fd_unix_message__init(m);
	m->data.data = fd_alloc(r->len);
	m->data.len = r->len;
	memcpy(m->data.data, data, r->len);
	if (r->b)
		m->cred = new_cred(r);
	fd_append(&w->queue, &w->n_queue, m);
}

/* What has been sent on connections that nobody has accepted. False when that cannot be read. */
static bool read_waiting(struct unix_member *m, Gw__FdUnix *u)
{
	cleanup_free void *records = NULL;
	const struct queue_record *r;
	size_t len = 0, at = 0;
	const char *data;

	forget_waiting(u);
	if (queue_peek(m->held, false, &records, &len, NULL) < 0)
		return false;
	while ((r = queue_next(records, len, &at, &data))) {
		if (r->kind == QUEUE_CONNECTION)
			add_waiting(u, r, data);
		else if (r->kind != QUEUE_MESSAGE || (r->a & QUEUE_MESSAGE_MORE) || !u->n_waiting)
			return false;
		else
			add_sent(u->waiting[u->n_waiting - 1], r, data);
	}
	return true;
}

/* The clients in a listener's accept queue become WAITING. */
static int capture_accept_queue(struct unix_capture *c, struct unix_member *m, const struct unix_diag_info *diag)
{
	Gw__FdUnix *u = c->t->descs[m->desc]->unix_socket;
	bool readable;

	free(u->accept_queue);
	u->accept_queue = diag->n_waiting ? fd_alloc(diag->n_waiting * sizeof(*u->accept_queue)) : NULL;
	u->n_accept_queue = 0;
	forget_waiting(u);
	for (size_t i = 0; i < diag->n_waiting; i++) {
		struct unix_member *client = find_member(c, diag->waiting[i]);

		/* One that has gone has no inode any more. */
		if (!client && diag->waiting[i])
			return refuse(c, m, "fd.socket.unix.accept-queue", "a connection of another process waits in its accept queue",
				"try again when the program has accepted it");
		u->accept_queue[u->n_accept_queue++] = client ? client->desc + 1 : 0;
	}
	readable = !u->n_accept_queue || read_waiting(m, u);
	if (!c->frozen) /* what they are in the freeze counts; whether they can be read is to be known before */
		forget_waiting(u);
	if (!readable || (c->frozen && u->n_accept_queue && u->n_waiting != u->n_accept_queue))
		return refuse(c, m, "fd.socket.unix.accept-queue",
			"what has been sent on connections in its accept queue cannot be read: too much, or descriptors",
			"try again when the program has accepted them");
	return 0;
}

/*
 * It goes as one whose other end is gone, which is somebody of Godwit's there. What it says about the peer (name, SO_PEERCRED) stays.
 */
static void relay(struct unix_capture *c, struct unix_member *m, uint32_t peer_ino)
{
	Gw__FdUnix *u = c->t->descs[m->desc]->unix_socket;

	if (!u->relay_id)
		u->relay_id = RELAYS_SOCKETS + m->desc;
	u->relay = true;
	u->state = GW__FD_UNIX_STATE__UNIX_GONE;
	u->reset = false;
	u->has_file = false; /* its name is that of the one at home, which is still there */
	m->peer_ino = peer_ino;
	capture_name(m->held, getpeername, &u->peer_name);
}

/* After all members are known: who is connected to whom. */
static int capture_peer(struct unix_capture *c, struct unix_member *m, uint32_t peer_ino)
{
	Gw__FdUnix *u = c->t->descs[m->desc]->unix_socket;
	struct pollfd p = { .fd = m->held };
	struct unix_member *peer;

	if (u->state == GW__FD_UNIX_STATE__UNIX_CONNECTED) {
		peer = find_member(c, peer_ino);
		if (!peer && m->desc < RELAYS_MAX - RELAYS_SOCKETS && m->fd >= 0) {
			relay(c, m, peer_ino);
			return 0;
		}
		if (!peer)
			return refuse(c, m, "fd.socket.unix.outside", "it is connected to a process that would stay behind",
				"close the connection first");
		if (u->type != SOCK_DGRAM && c->t->descs[peer->desc]->unix_socket && c->t->descs[peer->desc]->unix_socket->space != u->space)
			return refuse(c, m, "fd.socket.unix.namespaces", "its peer is a socket of another network namespace of the unit", "close the connection first");
		u->peer = peer->desc + 1;
	} else if (u->state == GW__FD_UNIX_STATE__UNIX_GONE) {
		/* The end of a stream shuts both directions of its peer. */
		if (u->type != SOCK_DGRAM && u->shut_down != SHUT_BOTH)
			return refuse(c, m, "fd.socket.unix.outside",
				"it waits to be accepted by a process that would stay behind", "close the connection first");
		capture_name(m->held, getpeername, &u->peer_name);
		u->reset = poll(&p, 1, 0) == 1 && (p.revents & POLLERR);
	}
	return 0;
}

static void mark_waiting(struct unix_capture *c, const struct unix_member *listener)
{
	const Gw__FdUnix *l = c->t->descs[listener->desc]->unix_socket;

	for (size_t i = 0; i < l->n_accept_queue; i++) {
		Gw__FdUnix *u = l->accept_queue[i] ? c->t->descs[l->accept_queue[i] - 1]->unix_socket : NULL;

		if (!u)
			continue;
		u->state = GW__FD_UNIX_STATE__UNIX_WAITING;
		u->peer = listener->desc + 1;
	}
}

bool unix_socket_is_construction_same(const Gw__FdUnix *was, const Gw__FdUnix *now)
{
	bool same_peer = was->state == now->state && was->peer == now->peer && unix_name_equal(&was->peer_name, &now->peer_name);

	return was->type == now->type && unix_name_equal(&was->name, &now->name) && !strcmp(was->root, now->root) && was->space == now->space && same_peer;
}

/* What the offer said, to be compared. */
struct before {
	Gw__FdUnix u;
	ProtobufCBinaryData name, peer_name;
};

static void remember(const Gw__FdUnix *u, struct before *b)
{
	*b = (struct before){ .u = *u };
	bytes_set(&b->name, u->name.data, u->name.len);
	bytes_set(&b->peer_name, u->peer_name.data, u->peer_name.len);
	b->u.name = b->name;
	b->u.peer_name = b->peer_name;
	b->u.root = fd_strdup(u->root);
}

static void forget(struct before *b)
{
	free(b->name.data);
	free(b->peer_name.data);
	free(b->u.root);
}

static int capture_all(struct unix_capture *c, uint32_t *peer_ino, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < c->n && r >= 0; i++) {
		const struct unix_diag_info *diag = NULL;

		r = capture_own(c, &c->m[i], &diag, e);
		if (r != 0 || !diag)
			continue;
		peer_ino[i] = diag->peer_ino;
		if (diag->n_waiting || c->t->descs[c->m[i].desc]->unix_socket->n_accept_queue)
			r = capture_accept_queue(c, &c->m[i], diag);
	}
	for (size_t i = 0; i < c->n && r >= 0; i++)
		if (!c->m[i].refused)
			mark_waiting(c, &c->m[i]);
	for (size_t i = 0; i < c->n && r >= 0; i++)
		if (!c->m[i].refused)
			r = capture_peer(c, &c->m[i], peer_ino[i]);
	return r < 0 ? r : 0;
}

/* Whoever is connected to a socket that is made anew is made anew, too. */
static void spread_renewal(struct unix_member *m, size_t n, const Gw__FdTable *t)
{
	cleanup_free uint8_t *anew = NULL;

	for (bool again = true; again;) {
		again = false;
		for (size_t i = 0; i < n; i++) {
			const Gw__FdUnix *u = t->descs[m[i].desc]->unix_socket;

			if (!anew && m[i].renew)
				anew = fd_alloc(t->n_descs);
			if (!anew || !u)
				continue;
			if (!m[i].renew && u->peer && anew[u->peer - 1])
				m[i].renew = true;
			again = again || (m[i].renew && !anew[m[i].desc]);
			anew[m[i].desc] = anew[m[i].desc] || m[i].renew;
		}
	}
}

int unix_sockets_capture(struct unix_member *m, size_t n, Gw__FdTable *t, bool frozen, struct refusals *refusals, struct err *e)
{
	struct unix_capture c = { m, n, t, frozen, UNIX_DIAG_INIT, .refusals = refusals };
	cleanup_free uint32_t *peer_ino = fd_alloc(n * sizeof(*peer_ino));
	cleanup_free struct before *before = fd_alloc(n * sizeof(*before));
	int r;

	qsort(m, n, sizeof(*m), compare_members);
	for (size_t i = 0; i < n; i++) {
		const Gw__FdUnix *u = t->descs[m[i].desc]->unix_socket;

		m[i].refused = m[i].renew = false;
		if (u && frozen)
			remember(u, &before[i]);
	}
	r = capture_all(&c, peer_ino, e);
	for (size_t i = 0; i < n; i++) {
		const Gw__FdUnix *u = t->descs[m[i].desc]->unix_socket;

		if (r == 0 && before[i].u.type && u && !m[i].refused)
			m[i].renew = !unix_socket_is_construction_same(&before[i].u, u);
		forget(&before[i]);
	}
	spread_renewal(m, n, t);
	diags_done(&c);
	return r;
}

bool unix_socket_same(const Gw__FdDesc *d, int fd)
{
	ProtobufCBinaryData name = { 0 };
	bool same;

	if (!d->unix_socket || socket_get_int(fd, SOL_SOCKET, SO_DOMAIN) != AF_UNIX)
		return false;
	capture_name(fd, getsockname, &name);
	same = unix_name_equal(&name, &d->unix_socket->name) && (uint32_t)socket_get_int(fd, SOL_SOCKET, SO_TYPE) == d->unix_socket->type;
	free(name.data);
	return same;
}

bool unix_socket_must_be_alone(const Gw__FdUnix *u)
{
	return u->state != GW__FD_UNIX_STATE__UNIX_FREE && u->state != GW__FD_UNIX_STATE__UNIX_LISTENING;
}

void unix_queue_refuse(const struct unix_member *m, int code, struct refusals *refusals)
{
	const char *cause = code == -ENODATA ? "out-of-band data lies in its queue, and such cannot move yet" :
		"its queue cannot be read";

	refusals_add(refusals, "fd.socket.unix.queue", cause, "try again when the program has read it", "fd %d (unix socket)", m->fd);
}

/* --- what a peer sent --- */

static const Gw__FdUnix *unix_at(const Gw__FdTable *t, uint32_t index_plus_one)
{
	const Gw__FdDesc *d = index_plus_one && index_plus_one <= t->n_descs ? t->descs[index_plus_one - 1] : NULL;

	return d && d->kind == GW__FD_KIND__FD_UNIX ? d->unix_socket : NULL;
}

static int validate_links(const Gw__FdTable *t, size_t index, const Gw__FdUnix *u, struct err *e)
{
	const Gw__FdUnix *peer = unix_at(t, u->peer);

	switch (u->state) {
	case GW__FD_UNIX_STATE__UNIX_FREE:
	case GW__FD_UNIX_STATE__UNIX_LISTENING:
	case GW__FD_UNIX_STATE__UNIX_GONE:
		if (u->peer)
			return err_set(e, -EPROTO, "unix socket: a peer in state %d", (int)u->state);
		break;
	case GW__FD_UNIX_STATE__UNIX_CONNECTED:
		if (!peer || peer->type != u->type)
			return err_set(e, -EPROTO, "unix socket: peer %u", u->peer);
		if (u->type != SOCK_DGRAM && (peer == u || peer->state != u->state || peer->peer != index + 1))
			return err_set(e, -EPROTO, "unix socket: its ends do not belong together");
		break;
	case GW__FD_UNIX_STATE__UNIX_WAITING:
		if (!peer || peer->type != u->type || peer->state != GW__FD_UNIX_STATE__UNIX_LISTENING)
			return err_set(e, -EPROTO, "unix socket: it waits at %u, which does not listen", u->peer);
		break;
	default:
		return err_set(e, -EPROTO, "unix socket: state %d", (int)u->state);
	}
	if (u->type == SOCK_DGRAM && (u->state == GW__FD_UNIX_STATE__UNIX_LISTENING || u->state == GW__FD_UNIX_STATE__UNIX_WAITING))
		return err_set(e, -EPROTO, "unix socket: a datagram socket in state %d", (int)u->state);
	return 0;
}

static int validate_accept_queue(const Gw__FdTable *t, size_t index, const Gw__FdUnix *u, struct err *e)
{
	if (u->n_accept_queue && (u->state != GW__FD_UNIX_STATE__UNIX_LISTENING || u->n_accept_queue > t->n_descs))
		return err_set(e, -EPROTO, "unix socket: an accept queue in state %d", (int)u->state);
	if (u->n_waiting && u->n_waiting != u->n_accept_queue)
		return err_set(e, -EPROTO, "unix socket: %zu connections of %zu", u->n_waiting, u->n_accept_queue);
	for (size_t i = 0; i < u->n_waiting; i++) {
		int r = unix_name_validate(&u->waiting[i]->name, e);

		if (r == 0)
			r = unix_queue_validate(u->waiting[i]->queue, u->waiting[i]->n_queue, u->type, 0, e);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < u->n_accept_queue; i++) {
		const Gw__FdUnix *client = unix_at(t, u->accept_queue[i]);

		if (!u->accept_queue[i])
			continue;
		if (!client || client->state != GW__FD_UNIX_STATE__UNIX_WAITING || client->peer != index + 1)
			return err_set(e, -EPROTO, "unix socket: client %u in an accept queue", u->accept_queue[i]);
	}
	return 0;
}

int unix_socket_validate(const Gw__FdTable *t, size_t index, struct err *e)
{
	const Gw__FdUnix *u = t->descs[index]->unix_socket;
	int r;

	if (!u || (u->type != SOCK_STREAM && u->type != SOCK_DGRAM && u->type != SOCK_SEQPACKET))
		return err_set(e, -EPROTO, "unix socket: type %u", u ? u->type : 0);
	if (u->mode > 07777 || u->shut_down > SHUT_BOTH || u->backlog > BACKLOG_MAX)
		return err_set(e, -EPROTO, "unix socket: mode, shutdown or backlog out of range");
	if (u->relay && (u->state != GW__FD_UNIX_STATE__UNIX_GONE || u->relay_id >= RELAYS_MAX))
		return err_set(e, -EPROTO, "unix socket: relay %u", u->relay_id);
	if (u->has_file && (!unix_name_is_path(&u->name) ||
	    (u->name.data[offsetof(struct sockaddr_un, sun_path)] != '/' && u->directory[0] != '/')))
		return err_set(e, -EPROTO, "unix socket: a file without a path");
	if (u->root[0] && (u->root[0] != '/' || strlen(u->root) >= PATH_MAX || strstr(u->root, "/../")))
		return err_set(e, -EPROTO, "unix socket: bound below a root that cannot be");
	if (strlen(u->directory) >= PATH_MAX - sizeof(struct sockaddr_un))
		return err_set(e, -EPROTO, "unix socket: a directory of %zu bytes", strlen(u->directory));
	r = unix_name_validate(&u->name, e);
	if (r == 0)
		r = unix_name_validate(&u->peer_name, e);
	if (r == 0)
		r = validate_links(t, index, u, e);
	if (r == 0)
		r = validate_accept_queue(t, index, u, e);
	if (r == 0)
		r = socket_options_validate(AF_UNIX, u->type, u->options, u->n_options, e);
	if (r == 0)
		r = unix_queue_validate(u->queue, u->n_queue, u->type, t->n_descs, e);
	for (size_t i = 0; i < u->n_queue && r == 0; i++)
		for (size_t j = 0; j < u->queue[i]->n_descs && r == 0; j++)
			if (t->descs[u->queue[i]->descs[j]]->kind == GW__FD_KIND__FD_CLOSED)
				r = err_set(e, -EPROTO, "unix socket: a closed description in flight");
	return r;
}

void unix_socket_mark_in_flight(const Gw__FdTable *t, uint8_t *used)
{
	for (size_t i = 0; i < t->n_descs; i++) {
		const Gw__FdUnix *u = t->descs[i]->kind == GW__FD_KIND__FD_UNIX ? t->descs[i]->unix_socket : NULL;

		for (size_t j = 0; u && j < u->n_queue; j++)
			for (size_t k = 0; k < u->queue[j]->n_descs; k++)
				if (t->descs[u->queue[j]->descs[k]]->kind != GW__FD_KIND__FD_CLOSED)
					used[u->queue[j]->descs[k]] = 1;
	}
}
