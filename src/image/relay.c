/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* relay.c - descriptors whose other end stays at home; see relay.h */
#include "image/relay.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "base/util.h"
#include "image/file_state.h"

void fd_relays_free(struct fd_relays *r)
{
	free(r->v);
	*r = (struct fd_relays){ 0 };
}

struct fd_relay *fd_relays_find(const struct fd_relays *r, const Gw__FdPipe *p)
{
	for (size_t i = 0; r && p->relay && i < r->n; i++)
		if (r->v[i].id == p->relay_id && r->v[i].kind == (enum relay_kind)p->relay)
			return &r->v[i];
	return NULL;
}

struct fd_relay *fd_relays_find_socket(const struct fd_relays *r, const Gw__FdUnix *u)
{
	for (size_t i = 0; r && u->relay && i < r->n; i++)
		if (r->v[i].id == u->relay_id && r->v[i].kind == RELAY_SOCKET)
			return &r->v[i];
	return NULL;
}

int fd_relays_add(struct fd_relay **v, size_t *n, const struct fd_relay *relay, struct err *e)
{
	struct fd_relay *grown = realloc(*v, (*n + 1) * sizeof(*grown));

	if (!grown) {
		close(relay->fd);
		return err_sys(e, ENOMEM, "relays");
	}
	grown[(*n)++] = *relay;
	*v = grown;
	return 0;
}

static const Gw__FdUnix *relayed_socket(const Gw__FdTable *t, size_t i)
{
	const Gw__FdDesc *d = t->descs[i];

	return d->kind == GW__FD_KIND__FD_UNIX && d->unix_socket && d->unix_socket->relay ? d->unix_socket : NULL;
}

int fdtable_check_relays(const struct fdtable *t, struct err *e)
{
	for (uint32_t i = 0; t->relays_travel && i < t->msg->n_descs; i++) {
		int unread = 0;

		if (relayed_socket(t->msg, i) && t->held[i].fd >= 0 && ioctl(t->held[i].fd, SIOCOUTQ, &unread) == 0 && unread)
			return err_set(e, -EAGAIN, "fd %d (unix socket): what was written into it is still on its way home", fdtable_number_of(t, i)->fd);
	}
	return 0;
}

static bool is_listed(const struct fd_relays *r, uint32_t id)
{
	for (size_t i = 0; i < r->n; i++)
		if (r->v[i].id == id)
			return true;
	return false;
}

int fdtable_list_relays(const struct fdtable *t, struct fd_relays *ret, struct err *e)
{
	struct fd_relays r = { .v = calloc(t->msg->n_pipes + t->msg->n_descs + 2, sizeof(*r.v)) };

	if (!r.v)
		return err_sys(e, ENOMEM, "relays");
	for (uint32_t i = 0; i < t->msg->n_descs; i++) {
		const Gw__FdDesc *d = t->msg->descs[i];
		const Gw__FdPipe *p = d->kind == GW__FD_KIND__FD_PIPE ? t->msg->pipes[d->index] : NULL;
		const Gw__FdUnix *u = relayed_socket(t->msg, i);

		if (d->kind == GW__FD_KIND__FD_PTY_SLAVE && t->msg->ptys[d->index]->relay && !d->hung_up && !is_listed(&r, RELAY_TERMINAL_ID))
			r.v[r.n++] = (struct fd_relay){ RELAY_TERMINAL_ID, RELAY_TERMINAL, t->held[i].view, fdtable_number_of(t, i)->fd, d->device_minor };
		if (u)
			r.v[r.n++] = (struct fd_relay){ u->relay_id, RELAY_SOCKET, t->held[i].view, fdtable_number_of(t, i)->fd, t->held[i].peer_ino };
		if (!p || !p->relay || is_listed(&r, p->relay_id))
			continue;
		r.v[r.n++] = (struct fd_relay){ p->relay_id, (enum relay_kind)p->relay, t->held[i].view, fdtable_number_of(t, i)->fd, t->pipe_ids[d->index].ino };
	}
	if (t->terminal > 0 && fdtable_relayed_terminal(t->msg) >= 0 && !is_listed(&r, RELAY_TERMINAL_ID))
		r.v[r.n++] = (struct fd_relay){ RELAY_TERMINAL_ID, RELAY_TERMINAL, RELAY_OWN, t->terminal, 0 };
	*ret = r;
	return 0;
}

size_t fdtable_name_relays(struct fdtable *t, const struct fd_relays *known)
{
	size_t unknown = 0;

	for (size_t i = 0; i < t->msg->n_ptys; i++) {
		bool found = !t->msg->ptys[i]->relay;

		for (size_t k = 0; k < known->n && !found; k++)
			found = known->v[k].kind == RELAY_TERMINAL && known->v[k].ino == t->msg->ptys[i]->number;
		unknown += !found;
	}
	for (size_t i = 0; i < t->msg->n_pipes; i++) {
		Gw__FdPipe *p = t->msg->pipes[i];
		bool found = false;

		for (size_t k = 0; k < known->n && p->relay; k++)
			if (known->v[k].kind != RELAY_TERMINAL && known->v[k].ino == t->pipe_ids[i].ino) {
				p->relay_id = known->v[k].id;
				found = true;
			}
		unknown += p->relay && !found;
	}
	for (size_t i = 0; i < t->msg->n_descs; i++) {
		Gw__FdUnix *u = relayed_socket(t->msg, i) ? t->msg->descs[i]->unix_socket : NULL;
		bool found = !u;

		for (size_t k = 0; k < known->n && u; k++)
			if (known->v[k].ino == t->held[i].peer_ino) {
				u->relay_id = known->v[k].id;
				found = true;
			}
		unknown += !found;
	}
	return unknown;
}

bool fdtable_has_relays(const Gw__FdTable *t)
{
	for (size_t i = 0; i < t->n_pipes; i++)
		if (t->pipes[i]->relay)
			return true;
	for (size_t i = 0; i < t->n_descs; i++)
		if (relayed_socket(t, i))
			return true;
	return fdtable_relayed_terminal(t) >= 0;
}

bool fdtable_has_unix_listeners(const Gw__FdTable *t)
{
	for (size_t i = 0; i < t->n_descs; i++)
		if (t->descs[i]->kind == GW__FD_KIND__FD_UNIX && t->descs[i]->unix_socket->state == GW__FD_UNIX_STATE__UNIX_LISTENING && t->descs[i]->unix_socket->has_file)
			return true;
	return false;
}

int fdtable_relayed_terminal(const Gw__FdTable *t)
{
	for (size_t i = 0; i < t->n_ptys; i++)
		if (t->ptys[i]->relay)
			return (int)i;
	return -1;
}
