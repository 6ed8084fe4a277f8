/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidy.c - see tidy.h */
#include "net/tidy.h"

#include <errno.h>
#include <signal.h>

#include "base/util.h"
#include "kern/sock_destroy.h"
#include "net/redirect_internal.h"
#include "net/sockets.h"

#define OWNED_NS (20 * 1000000000ull) /* how long packets for an address that has left may still come, from the last one on */
#define UNUSED_NS (600 * 1000000000ull) /* from the last open to the end of programs that nothing needs: somebody may have opened them for a move */

uint64_t tidy_forget_ns = 600 * 1000000000ull;
uint64_t tidy_young_ns = 20 * 1000000000ull;

struct tidying {
	struct redirect *r;
	struct sockets sockets;
	struct redirect_flow *flows; /* to be changed, with what they are */
	struct redirect_end *ends;
	size_t n, room, all;
	uint64_t now;
};

static bool is_dead(const struct redirect_move_state *move)
{
	return move->owner && kill((pid_t)move->owner, 0) < 0 && errno == ESRCH;
}

static int note(struct tidying *t, const struct redirect_flow *flow, const struct redirect_end *end)
{
	void *more;

	if (t->n == t->room) {
		t->room = t->room * 2 + 256;
		more = realloc(t->flows, t->room * sizeof(*t->flows));
		if (more)
			t->flows = more;
		if (!more || !(more = realloc(t->ends, t->room * sizeof(*t->ends))))
			return -ENOMEM;
		t->ends = more;
	}
	t->flows[t->n] = *flow;
	t->ends[t->n++] = *end;
	return 0;
}

/* What is later than the look at the clock is of no age. */
static uint64_t age(const struct tidying *t, uint64_t then)
{
	return t->now > then ? t->now - then : 0;
}

static int judge(const struct redirect_flow *flow, const struct redirect_end *end, void *arg)
{
	struct tidying *t = arg;
	const struct redirect_move_state *move = &t->r->moves[end->move % REDIRECT_MOVES_MAX];
	/* A listener was there before its entry was settled; of a connection that has just been learned there may be no socket yet. */
	bool young = !redirect_is_listener(flow) && (age(t, end->changed_ns) < tidy_young_ns || age(t, end->seen_ns) < tidy_young_ns);

	t->all++;
	if (end->move) {
		/* Its worker died while it was not known who has the unit: as long as the sockets are here it may be either. */
		if (move->owner && !is_dead(move))
			return 0;
		return move->state == REDIRECT_HELD && sockets_have(&t->sockets, flow) ? 0 : note(t, flow, end);
	}
	if (end->flags & REDIRECT_OWNED && end->state == REDIRECT_HERE && host_has_address(flow->own))
		return note(t, flow, end);
	if (end->flags & REDIRECT_OWNED && end->state == REDIRECT_THERE)
		return age(t, end->changed_ns) > OWNED_NS && age(t, end->seen_ns) > OWNED_NS ? note(t, flow, end) : 0;
	if (end->state == REDIRECT_HERE && end->flags & REDIRECT_ENDED)
		return age(t, end->changed_ns) > tidy_forget_ns ? note(t, flow, end) : 0;
	if (end->state == REDIRECT_HERE && !sockets_have(&t->sockets, flow) && !young)
		return note(t, flow, end);
	if (redirect_has_ended(flow, end, &t->sockets))
		return note(t, flow, end);
	if (end->state == REDIRECT_NONE && age(t, end->changed_ns) > tidy_forget_ns)
		return note(t, flow, end);
	return 0;
}

static void destroy(const struct redirect_flow *flow)
{
	struct sockaddr_in6 own = { .sin6_family = AF_INET6, .sin6_port = flow->own_port }, peer = { .sin6_family = AF_INET6, .sin6_port = flow->peer_port };

	memcpy(&own.sin6_addr, flow->own, sizeof(own.sin6_addr));
	memcpy(&peer.sin6_addr, flow->peer, sizeof(peer.sin6_addr));
	if (flow->protocol == IPPROTO_TCP && !redirect_is_listener(flow))
		sock_destroy((const void *)&own, (const void *)&peer);
}

/* Those of a dead owner that held packets, and whose sockets are gone, have left: packets follow. */
static void end_move(struct tidying *t, const struct redirect_flow *flow, struct redirect_end *end)
{
	struct redirect_move_state *move = &t->r->moves[end->move];

	/* Who would have ended it without a word has been killed; what it says is dropped as long as this entry is there. */
	if (move->state == REDIRECT_NONE && end->flags & REDIRECT_COMING)
		destroy(flow);
	if (move->state == REDIRECT_HELD)
		__atomic_store_n(&move->state, REDIRECT_THERE, __ATOMIC_SEQ_CST);
	redirect_settle_end(t->r, flow, end);
	__atomic_add_fetch(&t->r->config->news, 1, __ATOMIC_SEQ_CST);
}

static void free_moves(struct redirect *r)
{
	for (uint32_t i = 1; i < REDIRECT_MOVES_MAX; i++)
		if (is_dead(&r->moves[i]) && r->moves[i].state != REDIRECT_HELD)
			r->moves[i] = (struct redirect_move_state){ 0 };
}

/* Others are told of those that they know, as long as others that have not moved since are remembered. */
static bool is_to_be_told(const struct redirect_flow *flow, const struct redirect_end *end)
{
	return end->state == REDIRECT_HERE && redirect_is_listener(flow) && !redirect_is_at_home(flow, end) && !(end->flags & (REDIRECT_ENDED | REDIRECT_OWNED));
}

/* It has come home and has ended. Others remember longer how often it had moved, and would take news of another one for older. */
static bool is_to_be_remembered(const struct redirect_flow *flow, const struct redirect_end *end)
{
	return end->state == REDIRECT_HERE && redirect_is_listener(flow) && redirect_is_at_home(flow, end) && end->moves_made && !(end->flags & REDIRECT_OWNED);
}

static void carry_out(struct tidying *t)
{
	struct redirect_end now;

	for (size_t i = 0; i < t->n; i++) {
		if (!redirect_get(t->r, &t->flows[i], &now))
			continue;
		if (now.move && now.move == t->ends[i].move) {
			end_move(t, &t->flows[i], &now);
		} else if (!now.move && now.changed_ns == t->ends[i].changed_ns && now.state == REDIRECT_THERE && !(now.flags & REDIRECT_OWNED)) {
			redirect_end_listener(t->r, &t->flows[i], &now);
		} else if (!now.move && now.changed_ns == t->ends[i].changed_ns && is_to_be_told(&t->flows[i], &now)) {
			now.changed_ns = t->now;
			redirect_unset_source(t->r, &t->flows[i]);
			redirect_end_listener(t->r, &t->flows[i], &now);
			__atomic_add_fetch(&t->r->config->news, 1, __ATOMIC_SEQ_CST);
		} else if (!now.move && now.changed_ns == t->ends[i].changed_ns && is_to_be_remembered(&t->flows[i], &now)) {
			now = (struct redirect_end){ .state = REDIRECT_NONE, .moves_made = now.moves_made, .changed_ns = t->now, .seen_ns = now.seen_ns };
			redirect_unset_source(t->r, &t->flows[i]);
			redirect_put(t->r, &t->flows[i], &now);
		} else if (!now.move && now.changed_ns == t->ends[i].changed_ns) {
			redirect_remove(t->r, &t->flows[i]);
			t->all--;
		}
	}
	free_moves(t->r);
}

static bool any_moves(const struct redirect *r)
{
	for (uint32_t i = 1; i < REDIRECT_MOVES_MAX; i++)
		if (r->moves[i].owner)
			return true;
	return false;
}

static int revive(const struct redirect_flow *flow, const struct redirect_end *end, void *arg)
{
	struct redirect *r = arg;
	struct redirect_end now = *end;
	static uint8_t last[16];

	uint32_t device = 0;

	redirect_effective(r, &now);
	if (now.state == REDIRECT_NONE || now.flags & (REDIRECT_NATIVE | REDIRECT_OWNED) || !memcmp(last, flow->own, 16) || host_has_address(flow->own))
		return 0;
	memcpy(last, flow->own, 16);
	/* What is here has peers here, too, whose packets go out first. */
	if (now.state == REDIRECT_THERE)
		device = r->nodes[now.node % REDIRECT_NODES_MAX].device;
	else if (host_device_towards(host_is_ipv4(flow->own) ? AF_INET : AF_INET6, host_is_ipv4(flow->own) ? flow->own + 12 : flow->own, &device, NULL) < 0)
		return 0;
	host_revive_neighbour(device, flow->own);
	return 0;
}

int redirect_tidy(struct redirect *r, bool *ret_empty, struct err *e)
{
	struct tidying t = { .r = r, .now = clock_ns(CLOCK_MONOTONIC) };
	int code = host_load(e);

	*ret_empty = false;
	redirect_tell_addresses(r);
	redirect_lock(r);
	if (code >= 0)
		code = sockets_read(&t.sockets, e);
	if (code >= 0)
		code = redirect_each(r, judge, &t, e);
	if (code >= 0)
		carry_out(&t);
	if (code >= 0 && !t.all && !any_moves(r) && age(&t, r->config->opened_ns) > UNUSED_NS) {
		redirect_detach(r);
		*ret_empty = true;
	}
	redirect_unlock(r);
	if (code >= 0 && !*ret_empty)
		code = redirect_each(r, revive, r, e);
	sockets_free(&t.sockets);
	free(t.flows);
	free(t.ends);
	return code;
}

struct forgetting {
	struct redirect *r;
	const uint8_t *address;
	struct redirect_flow *flows;
	size_t n;
};

static int note_forgotten(const struct redirect_flow *flow, const struct redirect_end *end, void *arg)
{
	struct forgetting *f = arg;
	struct redirect_flow *more;

	if (end->move || !(end->flags & REDIRECT_OWNED) || memcmp(flow->own, f->address, sizeof(flow->own)))
		return 0;
	more = realloc(f->flows, (f->n + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	f->flows = more;
	f->flows[f->n++] = *flow;
	return 0;
}

void redirect_forget_address(struct redirect *r, const uint8_t address[16])
{
	struct forgetting f = { .r = r, .address = address };

	redirect_lock(r);
	redirect_each(r, note_forgotten, &f, NULL);
	for (size_t i = 0; i < f.n; i++)
		redirect_remove(r, &f.flows[i]);
	if (host_load(NULL) >= 0)
		redirect_tell_addresses(r);
	redirect_unlock(r);
	free(f.flows);
}

struct listing {
	struct redirect *r;
	int (*each)(const struct redirect_item *item, void *arg);
	void *arg;
};

static int list_one(const struct redirect_flow *flow, const struct redirect_end *end, void *arg)
{
	struct listing *l = arg;
	struct redirect_end now = *end, other;
	struct redirect_flow other_flow;
	struct redirect_item item = { .flow = *flow, .flags = now.flags, .moves_made = now.moves_made, .node = "", .other = "" };
	uint64_t ns = clock_ns(CLOCK_MONOTONIC);

	host_ipv4_beside(flow->own, item.own_host);
	host_ipv4_beside(flow->peer, item.peer_host);
	redirect_effective(l->r, &now);
	if (now.flags & REDIRECT_OWNED || (now.state == REDIRECT_HERE && now.flags & REDIRECT_ENDED))
		return 0; /* nothing depends on it */
	item.state = now.state;
	item.listener = redirect_is_listener(flow);
	item.own_is_ours = host_has_address(flow->own);
	item.peer_is_ours = !item.listener && host_has_address(flow->peer);
	item.idle_ns = ns > now.seen_ns ? ns - now.seen_ns : 0;
	if (now.state == REDIRECT_THERE || now.state == REDIRECT_HELD)
		item.node = l->r->nodes[now.node % REDIRECT_NODES_MAX].name;
	redirect_other(flow, &other_flow);
	if (!item.listener && redirect_get(l->r, &other_flow, &other)) {
		redirect_effective(l->r, &other);
		if (other.state == REDIRECT_THERE)
			item.other = l->r->nodes[other.node % REDIRECT_NODES_MAX].name;
		else if (other.state == REDIRECT_HERE)
			item.peer_is_ours = true;
	}
	return l->each(&item, l->arg);
}

int redirect_list(struct redirect *r, int (*each)(const struct redirect_item *item, void *arg), void *arg, struct err *e)
{
	struct listing l = { r, each, arg };
	int code = host_load(e);

	host_load_neighbours();
	return code < 0 ? code : redirect_each(r, list_one, &l, e);
}
