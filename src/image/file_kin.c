/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * file_kin.c - the source's side of the tables: TCP sockets that are alike
 *
 * Theory of operation: to ask for all options of a socket takes 200 us, and what a listener has accepted has the same ones. What the kernel keeps about a socket, without addresses
 * and numbers, has a digest (kern/tcp_mask.h): one socket of each is looked at, and of all others the record tells the rest. So there need not be a duplicate of them.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "base/util.h"
#include "image/file_state.h"
#include "image/socket_options.h"
#include "image/socket_tcp.h"
#include "kern/tcp_peek.h"

#ifndef IPV6_FLOWINFO_SEND
#define IPV6_FLOWINFO_SEND 33
#endif
#define KIN_MAX 256u
#define CLOEXEC_IN_FLAGS 02000000u

struct fd_kin {
	uint64_t kin;
	bool linked;     /* such have not all options */
	uint8_t *packed; /* struct Gw__FdSocket: what is the same about all */
	size_t len;
};

void fdtable_forget_kin(struct fdtable *t)
{
	for (size_t i = 0; i < t->n_kin; i++)
		free(t->kin[i].packed);
	free(t->kin);
	t->kin = NULL;
	t->n_kin = 0;
}

static const struct fd_kin *find(const struct fdtable *t, uint64_t kin, bool linked)
{
	for (size_t i = 0; i < t->n_kin; i++)
		if (t->kin[i].kin == kin && t->kin[i].linked == linked)
			return &t->kin[i];
	return NULL;
}

void fdtable_note_kin(struct fdtable *t, uint32_t desc, const struct tcp_told *before, const struct tcp_told *after)
{
	const struct tcp_member *m = fdtable_find_tcp(t, desc);
	const Gw__FdSocket *s = t->msg->descs[desc]->socket;
	Gw__FdSocket common = GW__FD_SOCKET__INIT;
	struct fd_kin *kin;

	if (!m || !s || !before->is_told || !after->is_told || before->kin != after->kin || m->foreign || m->leaked || m->class == TCP_CLASS_REFUSED || t->held[desc].refused ||
	    find(t, after->kin, m->class == TCP_CLASS_LINKED) || socket_options_int(s->options, s->n_options, IPPROTO_IPV6, IPV6_FLOWINFO_SEND) > 0)
		return;
	if (t->n_kin == KIN_MAX)
		fdtable_forget_kin(t);
	t->kin = realloc(t->kin, (t->n_kin + 1) * sizeof(*t->kin));
	if (!t->kin)
		abort();
	common.family = s->family;
	common.type = s->type;
	common.protocol = s->protocol;
	common.space = s->space;
	common.options = s->options;
	common.n_options = s->n_options;
	kin = &t->kin[t->n_kin++];
	*kin = (struct fd_kin){ .kin = after->kin, .linked = m->class == TCP_CLASS_LINKED, .len = gw__fd_socket__get_packed_size(&common) };
	kin->packed = fd_alloc(kin->len + 1);
	gw__fd_socket__pack(&common, kin->packed);
}

static void set_int(Gw__FdSocket *s, int level, int name, int value)
{
	for (size_t i = 0; i < s->n_options; i++) {
		Gw__FdSockOpt *o = s->options[i];

		if (o->level == (uint32_t)level && o->name == (uint32_t)name && o->value.len == sizeof(value))
			memcpy(o->value.data, &value, sizeof(value));
	}
}

static bool is_simple(const struct fdtable *t, uint32_t desc, const struct tcp_member *m, const struct file_record *r)
{
	const struct fd_held *held = &t->held[desc];

	return !held->in_flight && !held->leaked && m->class != TCP_CLASS_REFUSED && !m->foreign && !m->leaked && !m->n_waiting && !r->has_owner && !r->has_locks && !(r->flags & O_ASYNC) &&
		!socket_tcp_has_scope(m->record);
}

bool fdtable_take_kin(struct fdtable *t, uint32_t desc)
{
	const struct tcp_told *told = fdtable_told(t, desc);
	const struct tcp_member *m = told ? fdtable_find_tcp(t, desc) : NULL;
	const struct file_record *r = fdtable_record_of(t, desc);
	const struct fd_kin *kin = m ? find(t, told->kin, m->class == TCP_CLASS_LINKED) : NULL;
	struct fd_held *held = &t->held[desc];
	Gw__FdDesc *d = t->msg->descs[desc];
	Gw__FdSocket *s;

	if (!kin || !is_simple(t, desc, m, r))
		return false;
	s = gw__fd_socket__unpack(NULL, kin->len, kin->packed);
	if (!s)
		abort();
	set_int(s, SOL_SOCKET, SO_RCVBUF, told->record.receive_buffer);
	set_int(s, SOL_SOCKET, SO_SNDBUF, told->record.send_buffer);
	set_int(s, IPPROTO_TCP, TCP_WINDOW_CLAMP, (int)told->record.window_clamp);
	socket_tcp_capture_told(m, s);
	if (d->socket)
		gw__fd_socket__free_unpacked(d->socket, NULL);
	if (d->owner)
		gw__fd_owner__free_unpacked(d->owner, NULL);
	d->owner = NULL;
	d->signal = 0;
	d->socket = s;
	d->kind = GW__FD_KIND__FD_SOCKET;
	d->flags = r->flags & ~CLOEXEC_IN_FLAGS;
	d->position = r->position;
	held->known = true;
	held->refused = held->changed = false;
	held->quiet = socket_tcp_is_quiet(m) && socket_tcp_can_be_quiet(s);
	held->settings = told->settings;
	return true;
}
