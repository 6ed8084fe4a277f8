/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * redirect_move.c - the ends of a unit that leaves or arrives; see redirect.h
 *
 * Entries of a move keep the state that they had, which counts as long as the move's own is NONE. The moves are an array that is mapped here and read by
 * the BPF programs: a store of one word changes all entries.
 */
#include <errno.h>
#include <unistd.h>

#include "base/util.h"
#include "net/redirect_internal.h"

#define NEW_ENTRY UINT32_MAX
#define PACKET_BYTES_MAX 66000
#define DRAIN_NS 20000000ull /* a peer that goes on sending all the time does not keep them from being given on for ever */

/* Who has sent an IP packet with TCP or UDP in it, to whom. */
static struct redirect_flow sender_of(const uint8_t *packet, size_t n)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	bool ipv4 = packet[0] >> 4 == 4;
	size_t ports = ipv4 ? (packet[0] & 15u) * 4 : 40;
	struct redirect_flow f = { .protocol = ipv4 ? packet[9] : packet[6] };

	if (n < ports + 4)
		return (struct redirect_flow){ 0 };
	memcpy(f.own, mapped, 12);
	memcpy(f.peer, mapped, 12);
	memcpy(ipv4 ? f.own + 12 : f.own, packet + (ipv4 ? 12 : 8), ipv4 ? 4 : 16);
	memcpy(ipv4 ? f.peer + 12 : f.peer, packet + (ipv4 ? 16 : 24), ipv4 ? 4 : 16);
	memcpy(&f.own_port, packet + ports, 2);
	memcpy(&f.peer_port, packet + ports + 2, 2);
	return f;
}

static bool is_left_out(const struct redirect_move *m, const uint8_t *packet, size_t n)
{
	struct redirect_flow sender;

	if (!m->done || !m->n_left_out)
		return false;
	sender = sender_of(packet, n);
	for (size_t i = 0; i < m->n_left_out; i++)
		if (!memcmp(&m->left_out[i], &sender, sizeof(sender)))
			return true;
	return false;
}

void redirect_leave_out(struct redirect_move *m, const struct redirect_flow *sender)
{
	struct redirect_flow *more = realloc(m->left_out, (m->n_left_out + 1) * sizeof(*more));

	if (!more)
		return;
	m->left_out = more;
	m->left_out[m->n_left_out++] = *sender;
}

/* The kernel says hello on a new device itself: neighbour discovery, and the like. Errors are for sockets. */
static bool is_greeting(const uint8_t *packet, size_t n)
{
	uint8_t protocol = packet[0] >> 4 == 4 ? packet[9] : packet[6];

	return protocol == IPPROTO_HOPOPTS || (protocol == IPPROTO_ICMPV6 && !(n > 40 && packet[40] >= 1 && packet[40] <= 4));
}

/* Packets that were kept go in where they came from: what becomes of them is decided anew. */
static void replay(struct redirect_move *m, uint64_t until_ns)
{
	static uint8_t frame[HOST_TUN_HEADER + PACKET_BYTES_MAX];
	const uint8_t *packet = frame + HOST_TUN_HEADER;
	ssize_t n;

	while (m->tun_fd >= 0 && clock_ns(CLOCK_MONOTONIC) < until_ns && (n = read(m->tun_fd, frame, sizeof(frame))) > HOST_TUN_HEADER)
		if (!is_greeting(packet, (size_t)n - HOST_TUN_HEADER) && !is_left_out(m, packet, (size_t)n - HOST_TUN_HEADER) && write(m->tun_fd, frame, (size_t)n) < 0)
			return;
}

static void set_state(struct redirect_move *m, uint32_t state)
{
	struct redirect_move_state *s = &m->r->moves[m->index];

	s->node = m->node;
	s->tun = m->tun;
	__atomic_store_n(&s->state, state, __ATOMIC_SEQ_CST);
}

/*
 * What has been kept is given on before anything that comes later, which is kept behind it as long: a segment that is overtaken by later ones has a time stamp that is too old (RFC 7323, 5), and
 * all that is behind it waits for a retransmission.
 */
static void drain(struct redirect_move *m, enum redirect_drain how, uint32_t state)
{
	struct redirect_move_state *s = &m->r->moves[m->index];

	s->node = m->node;
	if (s->state == REDIRECT_HELD) {
		__atomic_store_n(&s->drain, how, __ATOMIC_SEQ_CST);
		replay(m, clock_ns(CLOCK_MONOTONIC) + DRAIN_NS);
	}
	set_state(m, state);
	__atomic_store_n(&s->drain, REDIRECT_DRAIN_NOT, __ATOMIC_SEQ_CST);
	replay(m, UINT64_MAX);
}

void redirect_set_owner(struct redirect_move *m, pid_t pid)
{
	__atomic_store_n(&m->r->moves[m->index].owner, (uint32_t)pid, __ATOMIC_SEQ_CST);
}

void redirect_park(struct redirect_move *m)
{
	set_state(m, REDIRECT_HELD);
}

void redirect_unpark(struct redirect_move *m)
{
	if (m->r->moves[m->index].state != REDIRECT_HELD)
		return;
	drain(m, REDIRECT_DRAIN_BACK, REDIRECT_NONE);
}

void redirect_forward(struct redirect_move *m)
{
	m->done = true;
	drain(m, REDIRECT_DRAIN_THERE, REDIRECT_THERE);
}

void redirect_live(struct redirect_move *m)
{
	m->done = true;
	set_state(m, REDIRECT_HERE);
}

static int move_new(struct redirect *r, bool arriving, struct redirect_move **ret, struct err *e)
{
	struct redirect_move *m = calloc(1, sizeof(*m));
	uint32_t i;

	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	for (i = 1; i < REDIRECT_MOVES_MAX && r->moves[i].owner; i++)
		;
	if (i == REDIRECT_MOVES_MAX) {
		free(m);
		return err_set(e, -ENOSPC, "%d units with connections are moving already", REDIRECT_MOVES_MAX - 1);
	}
	*m = (struct redirect_move){ .r = r, .index = i, .arriving = arriving, .tun_fd = -1, .entered_ns = clock_ns(CLOCK_MONOTONIC) };
	r->moves[i] = (struct redirect_move_state){ .owner = (uint32_t)getpid() };
	*ret = m;
	return 0;
}

static int make_room(struct redirect_move *m, size_t n, struct err *e)
{
	size_t room = MAX(m->room * 2, m->n + n + 16);
	void *flows, *was;

	if (m->n + n <= m->room)
		return 0;
	flows = realloc(m->flows, room * sizeof(*m->flows));
	if (flows)
		m->flows = flows;
	was = realloc(m->was, room * sizeof(*m->was));
	if (was)
		m->was = was;
	if (!flows || !was)
		return err_set(e, -ENOMEM, "out of memory");
	m->room = room;
	return 0;
}

static int enter(struct redirect_move *m, const struct redirect_flow *flow, const struct redirect_end *end, struct err *e)
{
	struct redirect_end entry = *end;
	char text[REDIRECT_FLOW_TEXT];
	int r;

	if (!redirect_get(m->r, flow, &m->was[m->n]))
		m->was[m->n].moves_made = NEW_ENTRY;
	else
		redirect_effective(m->r, &m->was[m->n]);
	m->flows[m->n++] = *flow;
	entry.changed_ns = m->entered_ns;
	r = redirect_put(m->r, flow, &entry);
	return r < 0 ? err_sys(e, r, "%s: entering it in the table of redirected connections", redirect_flow_text(flow, text)) : 0;
}

static bool is_any(const uint8_t a[16])
{
	static const uint8_t none[16];

	return !memcmp(a, none, 16);
}

/* Packets of the other end of a connection are to reach this host even when their source is an address of ours. */
static int expect_companion(struct redirect_move *m, const struct redirect_flow *flow, struct err *e)
{
	struct redirect_flow other;
	struct redirect_end end = { 0 };
	int r;

	/* Of UDP it is seen by the address; and the other end may be one without a peer, whose entry counts. */
	if (flow->protocol == IPPROTO_UDP || is_any(flow->peer) || !host_has_address(flow->peer))
		return 0;
	redirect_other(flow, &other);
	if (redirect_get(m->r, &other, &end)) {
		redirect_effective(m->r, &end);
		if (end.state != REDIRECT_HERE || end.flags & REDIRECT_OVER_LO)
			return 0;
	} else {
		end = (struct redirect_end){ .state = REDIRECT_HERE, .flags = REDIRECT_NATIVE };
	}
	end.flags |= REDIRECT_OVER_LO;
	r = make_room(m, 1, e);
	return r < 0 ? r : enter(m, &other, &end, e);
}

static int add_departing(struct redirect_move *m, const struct redirect_flow *flow, struct err *e)
{
	struct redirect_end end;
	int r = make_room(m, 1, e);

	if (r < 0)
		return r;
	if (redirect_get(m->r, flow, &end))
		redirect_effective(m->r, &end);
	else
		end = (struct redirect_end){ .state = REDIRECT_NONE };
	/* Another one that has ended here. */
	if (end.state == REDIRECT_HERE && end.flags & REDIRECT_ENDED)
		end = (struct redirect_end){ .state = REDIRECT_NONE, .moves_made = end.moves_made };
	if (redirect_owns(m->r, flow))
		end.flags |= REDIRECT_OWNED;
	end.move = m->index;
	r = enter(m, flow, &end, e);
	return r < 0 ? r : expect_companion(m, flow, e);
}

static bool is_elsewhere(const struct redirect_node *node)
{
	uint8_t address[16] = { [10] = 0xff, [11] = 0xff };

	memcpy(address + 12, node->v4, 4);
	return node->name[0] && !host_has_address(address);
}

/* The other end of one that arrives: where the source says, unless this host knows better. */
static int enter_other(struct redirect_move *m, const struct redirect_flow *flow, const struct redirect_known *known, struct err *e)
{
	struct redirect_flow other;
	struct redirect_end end;
	uint32_t node;
	int r = 0;

	if (is_any(flow->peer))
		return 0;
	redirect_other(flow, &other);
	if (!redirect_get(m->r, &other, &end))
		end = (struct redirect_end){ .state = REDIRECT_NONE };
	else if (end.move == m->index) /* it comes along */
		return 0;
	else if (end.state != REDIRECT_NONE && end.moves_made >= known->other_moves_made)
		/* Entered by an earlier attempt, perhaps, which is about to take it back. */
		return end.move || end.state != REDIRECT_THERE || (r = make_room(m, 1, e)) < 0 ? MIN(r, 0) : enter(m, &other, &end, e);
	if (!is_elsewhere(&known->other) && end.state != REDIRECT_THERE)
		return 0;
	end = (struct redirect_end){ .state = REDIRECT_NONE, .moves_made = known->other_moves_made };
	if (is_elsewhere(&known->other)) {
		end.state = REDIRECT_THERE;
		r = redirect_node_index(m->r, &known->other, &node, e);
		if (r < 0)
			return r;
		end.node = node;
	}
	r = make_room(m, 1, e);
	if (r < 0)
		return r;
	return enter(m, &other, &end, e);
}

static uint32_t flags_here(const struct redirect_flow *flow)
{
	uint32_t flags = host_has_address(flow->own) ? REDIRECT_NATIVE : 0;

	if (host_is_loopback(flow->own) || (!is_any(flow->peer) && host_has_address(flow->peer)))
		flags |= REDIRECT_OVER_LO;
	return flags;
}

static int add_arriving(struct redirect_move *m, const struct redirect_flow *flow, const struct redirect_known *known, struct err *e)
{
	struct redirect_end end;
	int r = make_room(m, 1, e);

	if (r < 0)
		return r;
	if (redirect_get(m->r, flow, &end))
		redirect_effective(m->r, &end);
	else
		end = (struct redirect_end){ .state = REDIRECT_NONE };
	end.flags = flags_here(flow) | REDIRECT_COMING | (redirect_owns(m->r, flow) ? REDIRECT_OWNED : 0);
	if (known->is_source)
		redirect_set_source(m->r, flow);
	end.moves_made = MAX(end.moves_made, known->moves_made);
	if (is_any(flow->peer) && host_is_loopback(flow->own) && is_elsewhere(&known->other)) {
		r = redirect_node_index(m->r, &known->other, &end.home, e);
		if (r < 0)
			return r;
	}
	end.move = m->index;
	r = enter(m, flow, &end, e);
	if (r < 0)
		return r;
	return enter_other(m, flow, known, e);
}

static bool is_known_valid(const struct redirect_known *k)
{
	return memchr(k->other.name, 0, sizeof(k->other.name)) && k->is_source <= 1 && k->moves_made < NEW_ENTRY / 2 && k->other_moves_made < NEW_ENTRY / 2;
}

int redirect_add(struct redirect_move *m, const struct redirect_flow *flows, const struct redirect_known *known, size_t n, struct err *e)
{
	static const struct redirect_known nothing;
	char text[REDIRECT_FLOW_TEXT];
	int r = 0;

	for (size_t i = 0; i < n && r >= 0; i++) {
		if (known && !is_known_valid(&known[i]))
			return err_set(e, -EPROTO, "%s: what the source tells of it is out of range", redirect_flow_text(&flows[i], text));
		r = m->arriving ? add_arriving(m, &flows[i], known ? &known[i] : &nothing, e) : add_departing(m, &flows[i], e);
	}
	return r;
}

static bool any_on_lo(const struct redirect_move *m)
{
	for (size_t i = 0; i < m->n; i++)
		if (host_is_loopback(m->flows[i].own) || (!m->arriving && !is_any(m->flows[i].peer) && host_has_address(m->flows[i].peer)))
			return true;
	return false;
}

static int depart(struct redirect_move *m, const struct redirect_node *node, const struct redirect_flow *flows, size_t n, struct err *e)
{
	int r = host_load(e);

	if (r >= 0)
		r = redirect_node_index(m->r, node, &m->node, e);
	if (r >= 0)
		r = host_make_tun(&m->tun_fd, &m->tun, e);
	if (r >= 0)
		r = redirect_attach_raw(m->r, m->tun, e);
	if (r >= 0)
		r = redirect_add(m, flows, NULL, n, e);
	if (r >= 0 && any_on_lo(m))
		r = host_lower_lo(m->r, m->r->nodes[m->node].device, e);
	return r;
}

static int arrive(struct redirect_move *m, const struct redirect_flow *flows, const struct redirect_known *known, size_t n, struct err *e)
{
	int r = host_load(e);

	if (r >= 0)
		r = redirect_add(m, flows, known, n, e);
	for (size_t i = 0; i < n && r >= 0; i++)
		if (known && is_elsewhere(&known[i].other) && host_is_loopback(flows[i].own)) {
			uint32_t device;

			r = host_device_towards(AF_INET, known[i].other.v4, &device, e);
			return r < 0 ? r : host_lower_lo(m->r, device, e);
		}
	return r;
}

/*
 * Whether an entry is still as this move has made it. Another attempt to bring the same unit here may have begun before this one has noticed its end, and has made it its
 * own.
 */
static bool is_still_ours(const struct redirect_move *m, const struct redirect_flow *flow)
{
	struct redirect_end now;

	return redirect_get(m->r, flow, &now) && now.changed_ns == m->entered_ns;
}

/* With the lock. */
static void undo(struct redirect_move *m)
{
	redirect_unpark(m);
	for (size_t i = m->n; i-- > 0;) {
		if (!is_still_ours(m, &m->flows[i]))
			continue;
		if (m->was[i].moves_made == NEW_ENTRY) {
			redirect_remove(m->r, &m->flows[i]);
			continue;
		}
		if (m->arriving)
			redirect_unset_source(m->r, &m->flows[i]);
		redirect_put(m->r, &m->flows[i], &m->was[i]);
	}
}

static void move_free(struct redirect_move **m)
{
	struct redirect_move *d = *m;

	__atomic_store_n(&d->r->moves[d->index].state, REDIRECT_NONE, __ATOMIC_SEQ_CST);
	__atomic_store_n(&d->r->moves[d->index].owner, 0, __ATOMIC_SEQ_CST);
	close_fdp(&d->tun_fd);
	free(d->flows);
	free(d->was);
	free(d->left_out);
	free(d);
	*m = NULL;
}

/* Takes the lock, which finish_begin gives back. */
static int begin(struct redirect *r, bool arriving, struct redirect_move **ret, struct err *e)
{
	int code;

	redirect_lock(r);
	code = move_new(r, arriving, ret, e);
	if (code < 0)
		redirect_unlock(r);
	return code;
}

static int finish_begin(struct redirect_move **m, int r, struct redirect_move **ret)
{
	struct redirect *table = (*m)->r;

	if (r < 0) {
		undo(*m);
		move_free(m);
	} else {
		*ret = *m;
	}
	redirect_unlock(table);
	return r;
}

int redirect_depart(struct redirect *r, const struct redirect_node *node, const struct redirect_flow *flows, size_t n, struct redirect_move **ret,
		    struct err *e)
{
	struct redirect_move *m = NULL;
	int code = begin(r, false, &m, e);

	return code < 0 ? code : finish_begin(&m, depart(m, node, flows, n, e), ret);
}

int redirect_arrive(struct redirect *r, const struct redirect_flow *flows, const struct redirect_known *known, size_t n, struct redirect_move **ret,
		    struct err *e)
{
	struct redirect_move *m = NULL;
	int code = begin(r, true, &m, e);

	return code < 0 ? code : finish_begin(&m, arrive(m, flows, known, n, e), ret);
}

/* At first it is the address by which others know this host. */
static bool is_source(struct redirect *r, const struct redirect_flow *flow, const struct redirect_node *self)
{
	int known = redirect_is_source(r, flow);

	if (known >= 0 || flow->protocol != IPPROTO_UDP)
		return known == 1;
	return !host_is_loopback(flow->own) && (!host_is_ipv4(flow->own) || !memcmp(flow->own + 12, self->v4, sizeof(self->v4)));
}

void redirect_tell(struct redirect *r, const struct redirect_flow *flow, const struct redirect_node *self, struct redirect_known *ret)
{
	struct redirect_flow other;
	struct redirect_end end;

	memset(ret, 0, sizeof(*ret));
	if (redirect_get(r, flow, &end)) {
		ret->moves_made = end.moves_made;
		if (is_any(flow->peer) && end.home && !(end.flags & REDIRECT_ENDED))
			ret->other = r->nodes[end.home % REDIRECT_NODES_MAX];
	}
	if (is_any(flow->peer)) {
		if (host_is_loopback(flow->own) && !ret->other.name[0])
			ret->other = *self;
		ret->is_source = is_source(r, flow, self);
		return;
	}
	redirect_other(flow, &other);
	if (redirect_get(r, &other, &end)) {
		redirect_effective(r, &end);
		ret->other_moves_made = end.moves_made;
		if (end.flags & REDIRECT_OWNED)
			return; /* where its address says */
		if (end.state == REDIRECT_THERE)
			ret->other = r->nodes[end.node % REDIRECT_NODES_MAX];
		else if (end.state == REDIRECT_HERE && (!(end.flags & REDIRECT_NATIVE) || host_is_loopback(other.own)))
			ret->other = *self;
	} else if (host_is_loopback(other.own)) {
		ret->other = *self;
	}
}

void redirect_settle_end(struct redirect *r, const struct redirect_flow *flow, struct redirect_end *end)
{
	uint32_t state = r->moves[end->move].state;

	redirect_effective(r, end);
	if (state == REDIRECT_NONE && end->state == REDIRECT_NONE) {
		redirect_remove(r, flow);
		return;
	}
	if (end->flags & REDIRECT_OWNED && end->state == REDIRECT_HERE && host_has_address(flow->own)) {
		redirect_remove(r, flow);
		return;
	}
	if (state != REDIRECT_NONE) {
		end->flags = state == REDIRECT_HERE ? end->flags & ~REDIRECT_LEARNED : end->flags & REDIRECT_OWNED;
		if (state == REDIRECT_THERE)
			redirect_unset_source(r, flow);
		end->moves_made++;
		end->changed_ns = clock_ns(CLOCK_MONOTONIC);
	}
	redirect_put(r, flow, end);
}

void redirect_end_listener(struct redirect *r, const struct redirect_flow *flow, struct redirect_end *end)
{
	end->flags |= REDIRECT_ENDED;
	redirect_put(r, flow, end);
}

bool redirect_has_ended(const struct redirect_flow *flow, const struct redirect_end *end, const struct sockets *sockets)
{
	return end->state == REDIRECT_THERE && !(end->flags & (REDIRECT_ENDED | REDIRECT_OWNED)) && redirect_is_listener(flow) && host_has_address(flow->own) && !sockets_have(sockets, flow);
}

void redirect_settle(struct redirect_move **m)
{
	struct sockets sockets = { 0 };
	struct redirect_end end;
	struct redirect *r;
	bool known;

	if (!*m || !(*m)->done) {
		redirect_cancel(m);
		return;
	}
	r = (*m)->r;
	redirect_lock(r);
	/* Mostly the old sockets are gone by now; what is not is seen later (tidy.c). */
	known = host_load(NULL) >= 0 && !(*m)->arriving && sockets_read(&sockets, NULL) >= 0;
	for (size_t i = 0; i < (*m)->n; i++) {
		const struct redirect_flow *flow = &(*m)->flows[i];

		if (!redirect_get(r, flow, &end) || end.move != (*m)->index)
			continue;
		redirect_settle_end(r, flow, &end);
		if (known && redirect_has_ended(flow, &end, &sockets))
			redirect_end_listener(r, flow, &end);
	}
	sockets_free(&sockets);
	replay(*m, UINT64_MAX);
	__atomic_add_fetch(&r->config->news, 1, __ATOMIC_SEQ_CST);
	move_free(m);
	redirect_unlock(r);
}

void redirect_cancel(struct redirect_move **m)
{
	struct redirect *r;

	if (!*m)
		return;
	r = (*m)->r;
	redirect_lock(r);
	undo(*m);
	move_free(m);
	redirect_unlock(r);
}
