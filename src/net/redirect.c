/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* redirect.c - the table of ends: opening, finding, reading and writing it; see redirect.h */
#include "net/redirect.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/util.h"
#include "net/redirect_internal.h"

#define MAPS_MAX 16
#define BATCH 4096u /* ends read at a time */
#define LOCK_PATH "/run/godwit/redirect.lock"

static void set_address(uint8_t to[16], uint16_t *port, const struct sockaddr *from)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;

	if (from->sa_family == AF_INET6) {
		memcpy(to, &v6->sin6_addr, 16);
		*port = v6->sin6_port;
		return;
	}
	memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	memcpy(to + 12, &v4->sin_addr, 4);
	*port = v4->sin_port;
}

bool redirect_flow_set(struct redirect_flow *flow, uint8_t protocol, const struct sockaddr *own, const struct sockaddr *peer)
{
	if ((own->sa_family != AF_INET && own->sa_family != AF_INET6) || (peer && peer->sa_family != AF_INET && peer->sa_family != AF_INET6))
		return false;
	*flow = (struct redirect_flow){ .protocol = protocol };
	set_address(flow->own, &flow->own_port, own);
	if (peer)
		set_address(flow->peer, &flow->peer_port, peer);
	return true;
}

static void address_text(const uint8_t a[16], uint16_t port, char text[INET6_ADDRSTRLEN + 10])
{
	char address[INET6_ADDRSTRLEN] = "?";

	if (host_is_ipv4(a))
		inet_ntop(AF_INET, a + 12, address, sizeof(address));
	else
		inet_ntop(AF_INET6, a, address, sizeof(address));
	snprintf(text, INET6_ADDRSTRLEN + 10, host_is_ipv4(a) ? "%s:%u" : "[%s]:%u", address, ntohs(port));
}

bool redirect_is_listener(const struct redirect_flow *flow)
{
	static const uint8_t none[16];

	return !flow->peer_port && !memcmp(flow->peer, none, sizeof(none));
}

const char *redirect_flow_text(const struct redirect_flow *flow, char text[REDIRECT_FLOW_TEXT])
{
	char own[INET6_ADDRSTRLEN + 10], peer[INET6_ADDRSTRLEN + 10];
	const char *protocol = flow->protocol == IPPROTO_TCP ? "tcp" : "udp";

	address_text(flow->own, flow->own_port, own);
	address_text(flow->peer, flow->peer_port, peer);
	if (redirect_is_listener(flow))
		snprintf(text, REDIRECT_FLOW_TEXT, "%s %s", protocol, own);
	else
		snprintf(text, REDIRECT_FLOW_TEXT, "%s %s (peer %s)", protocol, own, peer);
	return text;
}

bool redirect_is_at_home(const struct redirect_flow *flow, const struct redirect_end *end)
{
	return end->flags & REDIRECT_NATIVE && !host_is_loopback(flow->own);
}

void redirect_other(const struct redirect_flow *flow, struct redirect_flow *ret)
{
	*ret = (struct redirect_flow){ .own_port = flow->peer_port, .peer_port = flow->own_port, .protocol = flow->protocol };
	memcpy(ret->own, flow->peer, 16);
	memcpy(ret->peer, flow->own, 16);
}

/* Maps that are found by their names, in the kernel's length. */
int *redirect_map_slot(struct redirect *r, const char *name)
{
	return !strcmp(name, "ends") ? &r->ends_fd : !strcmp(name, "moves") ? &r->moves_fd : !strcmp(name, "nodes") ? &r->nodes_fd :
		!strcmp(name, "ports") ? &r->ports_fd : !strcmp(name, "config") ? &r->config_fd : !strcmp(name, "fragments") ? &r->fragments_fd :
		!strcmp(name, "sources") ? &r->sources_fd : !strcmp(name, "callers") ? &r->callers_fd : !strcmp(name, "locals") ? &r->locals_fd : NULL;
}

int redirect_find_maps(struct redirect *r, int program, struct err *e)
{
	uint32_t ids[MAPS_MAX] = { 0 };
	struct bpf_prog_info info = { .nr_map_ids = MAPS_MAX, .map_ids = (uintptr_t)ids };
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(program, &info, &len) < 0)
		return err_sys(e, -errno, "reading about the program that redirects connections");
	for (uint32_t i = 0; i < MIN(info.nr_map_ids, (uint32_t)MAPS_MAX); i++) {
		cleanup_close int fd = bpf_map_get_fd_by_id(ids[i]);
		struct bpf_map_info map = { 0 };
		int *slot;

		len = sizeof(map);
		if (fd < 0 || bpf_obj_get_info_by_fd(fd, &map, &len) < 0)
			return err_sys(e, -errno, "reading about the maps that redirect connections");
		slot = redirect_map_slot(r, map.name);
		if (slot && *slot < 0)
			*slot = take_fd(&fd);
	}
	return 0;
}

static void *map_array(int fd, size_t len_bytes)
{
	void *p = fd < 0 ? MAP_FAILED : mmap(NULL, PAGE_ALIGN_UP(len_bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

int redirect_map_all(struct redirect *r, struct err *e)
{
	r->moves = map_array(r->moves_fd, REDIRECT_MOVES_MAX * sizeof(*r->moves));
	r->nodes = map_array(r->nodes_fd, REDIRECT_NODES_MAX * sizeof(*r->nodes));
	r->ports = map_array(r->ports_fd, 65536 * sizeof(*r->ports));
	r->config = map_array(r->config_fd, sizeof(*r->config));
	if (!r->moves || !r->nodes || !r->ports || !r->config || r->ends_fd < 0 || r->sources_fd < 0 || r->locals_fd < 0)
		return err_set(e, -EPROTO, "the programs that redirect connections are there, but not their maps: something else changes the filters of device lo");
	return 0;
}

void redirect_close(struct redirect **r)
{
	struct redirect *d = *r;

	if (!d)
		return;
	if (d->moves)
		munmap(d->moves, PAGE_ALIGN_UP(REDIRECT_MOVES_MAX * sizeof(*d->moves)));
	if (d->nodes)
		munmap(d->nodes, PAGE_ALIGN_UP(REDIRECT_NODES_MAX * sizeof(*d->nodes)));
	if (d->ports)
		munmap(d->ports, PAGE_ALIGN_UP(65536 * sizeof(*d->ports)));
	if (d->config)
		munmap(d->config, PAGE_ALIGN_UP(sizeof(*d->config)));
	redirect_programs_close(d->programs);
	close_fdp(&d->ends_fd);
	close_fdp(&d->moves_fd);
	close_fdp(&d->nodes_fd);
	close_fdp(&d->ports_fd);
	close_fdp(&d->config_fd);
	close_fdp(&d->fragments_fd);
	close_fdp(&d->sources_fd);
	close_fdp(&d->callers_fd);
	close_fdp(&d->locals_fd);
	close_fdp(&d->calls_fd);
	close_fdp(&d->lock_fd);
	free(d->owned);
	free(d);
	*r = NULL;
}

struct redirect *redirect_new(struct err *e)
{
	struct redirect *r = calloc(1, sizeof(*r));

	if (!r) {
		err_set(e, -ENOMEM, "out of memory");
		return NULL;
	}
	*r = (struct redirect){ REDIRECT_PROGRAMS_NONE, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, .calls_fd = -1 };
	mkdir("/run/godwit", 0755);
	r->lock_fd = open(LOCK_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (r->lock_fd < 0) {
		err_sys(e, -errno, LOCK_PATH);
		redirect_close(&r);
	}
	return r;
}

void redirect_lock(struct redirect *r)
{
	while (flock(r->lock_fd, LOCK_EX) < 0 && errno == EINTR)
		;
}

void redirect_unlock(struct redirect *r)
{
	flock(r->lock_fd, LOCK_UN);
}

int redirect_find_attached(struct redirect *r, struct err *e)
{
	cleanup_close int program = redirect_attached();
	int code;

	if (program <= 0) {
		code = program;
		program = -1; // NOLINT(clang-analyzer-deadcode.DeadStores): it is closed at the end
		return code < 0 ? err_sys(e, code, "looking for the programs that redirect connections") : 0;
	}
	code = redirect_find_maps(r, program, e);
	if (code >= 0)
		code = redirect_map_all(r, e);
	if (code < 0)
		return code;
	if (r->config->version != REDIRECT_VERSION)
		return err_set(e, -EPROTO, "connections are redirected here by another version of Godwit: end them, or go on with that version");
	return 1;
}

int redirect_find(struct redirect **ret, struct err *e)
{
	cleanup_redirect struct redirect *r = redirect_new(e);
	int code;

	if (!r)
		return e ? e->code : -ENOMEM;
	code = redirect_find_attached(r, e);
	if (code < 0)
		return code;
	*ret = code ? take_ptr(r) : NULL;
	return 0;
}

static void tell_address(const uint8_t address[16], void *arg)
{
	struct redirect *r = arg;
	struct redirect_address key;
	uint32_t value = 1;

	memcpy(key.a, address, sizeof(key.a));
	bpf_map_update_elem(r->locals_fd, &key, &value, BPF_ANY);
}

void redirect_tell_addresses(struct redirect *r)
{
	struct redirect_address key, next;
	bool more = bpf_map_get_next_key(r->locals_fd, NULL, &next) == 0;

	host_list_addresses(tell_address, r);
	while (more) {
		key = next;
		more = bpf_map_get_next_key(r->locals_fd, &key, &next) == 0;
		if (!host_has_address(key.a))
			bpf_map_delete_elem(r->locals_fd, &key);
	}
}

int redirect_set_owned(struct redirect *r, const void *addresses, size_t n, struct err *e)
{
	free(r->owned);
	r->owned = malloc(n * sizeof(*r->owned) + 1);
	r->n_owned = r->owned ? n : 0;
	if (r->owned)
		memcpy(r->owned, addresses, n * sizeof(*r->owned));
	return r->owned ? 0 : err_set(e, -ENOMEM, "out of memory");
}

bool redirect_owns(const struct redirect *r, const struct redirect_flow *flow)
{
	for (size_t i = 0; i < r->n_owned; i++)
		if (!memcmp(r->owned[i].a, flow->own, sizeof(flow->own)))
			return true;
	return false;
}

static bool is_same_node(const struct redirect_node *a, const struct redirect_node *b)
{
	return !memcmp(a->v4, b->v4, sizeof(a->v4)) && !memcmp(a->v6, b->v6, sizeof(a->v6));
}

int redirect_node_index(struct redirect *r, const struct redirect_node *node, uint32_t *ret, struct err *e)
{
	struct redirect_node entry = *node;
	uint32_t i;
	int code = host_device_towards(AF_INET, node->v4, &entry.device, e);

	if (code < 0)
		return err_wrap(e, "node %s", node->name);
	for (i = 1; i <= r->config->n_nodes && !is_same_node(&r->nodes[i], node); i++)
		;
	if (i >= REDIRECT_NODES_MAX)
		return err_set(e, -ENOSPC, "connections have been redirected to %d nodes already", REDIRECT_NODES_MAX - 1);
	/* Who reads it meanwhile finds either; only the device or the name can differ. */
	r->nodes[i] = entry;
	if (i > r->config->n_nodes)
		__atomic_store_n(&r->config->n_nodes, i, __ATOMIC_RELEASE);
	*ret = i;
	return 0;
}

int redirect_check_node(struct redirect *r, const struct redirect_node *node, bool ipv6, struct err *e)
{
	static const uint8_t none[16];
	uint32_t device;
	int code = host_device_towards(AF_INET, node->v4, &device, e);

	(void)r;
	if (code < 0)
		return err_wrap(e, "node %s", node->name);
	if (ipv6 && !memcmp(node->v6, none, 16))
		return err_set(e, -EHOSTUNREACH, "node %s: its device on this link has no IPv6 address: give it one (a link-local one will do)", node->name);
	return 0;
}

bool redirect_get(struct redirect *r, const struct redirect_flow *flow, struct redirect_end *ret)
{
	return bpf_map_lookup_elem(r->ends_fd, flow, ret) == 0;
}

int redirect_put(struct redirect *r, const struct redirect_flow *flow, const struct redirect_end *end)
{
	uint32_t *n = &r->ports[flow->own_port].n;

	__atomic_add_fetch(n, 1, __ATOMIC_RELEASE);
	if (bpf_map_update_elem(r->ends_fd, flow, end, BPF_NOEXIST) == 0)
		return 0;
	__atomic_sub_fetch(n, 1, __ATOMIC_RELEASE);
	return bpf_map_update_elem(r->ends_fd, flow, end, BPF_ANY) < 0 ? -errno : 0;
}

static bool has_source(const struct redirect_flow *flow)
{
	return flow->protocol == IPPROTO_UDP && redirect_is_listener(flow);
}

static struct redirect_source source_key(const struct redirect_flow *flow)
{
	return (struct redirect_source){ .port = flow->own_port, .ipv6 = !host_is_ipv4(flow->own) };
}

int redirect_is_source(struct redirect *r, const struct redirect_flow *flow)
{
	struct redirect_source key = source_key(flow);
	struct redirect_address address;

	if (!has_source(flow) || bpf_map_lookup_elem(r->sources_fd, &key, &address) < 0)
		return -ENOENT;
	return !memcmp(address.a, flow->own, sizeof(address.a));
}

void redirect_set_source(struct redirect *r, const struct redirect_flow *flow)
{
	struct redirect_source key = source_key(flow);
	struct redirect_address address;

	memcpy(address.a, flow->own, sizeof(address.a));
	if (has_source(flow))
		bpf_map_update_elem(r->sources_fd, &key, &address, BPF_NOEXIST);
}

void redirect_unset_source(struct redirect *r, const struct redirect_flow *flow)
{
	struct redirect_source key = source_key(flow);

	if (redirect_is_source(r, flow) == 1)
		bpf_map_delete_elem(r->sources_fd, &key);
}

void redirect_remove(struct redirect *r, const struct redirect_flow *flow)
{
	redirect_unset_source(r, flow);
	if (bpf_map_delete_elem(r->ends_fd, flow) == 0)
		__atomic_sub_fetch(&r->ports[flow->own_port].n, 1, __ATOMIC_RELEASE);
}

bool redirect_remove_unchanged(struct redirect *r, const struct redirect_flow *flow, uint64_t changed_ns)
{
	struct redirect_end now;

	if (!redirect_get(r, flow, &now) || now.move || now.changed_ns != changed_ns)
		return false;
	redirect_remove(r, flow);
	return true;
}

int redirect_each(struct redirect *r, int (*each)(const struct redirect_flow *flow, const struct redirect_end *end, void *arg), void *arg, struct err *e)
{
	cleanup_free struct redirect_flow *flows = malloc(BATCH * sizeof(*flows));
	cleanup_free struct redirect_end *v = malloc(BATCH * sizeof(*v));
	uint32_t at = 0, count;
	bool begun = false;
	int code = 0;

	if (!flows || !v)
		return err_set(e, -ENOMEM, "out of memory");
	while (code >= 0) {
		int more;

		count = BATCH;
		more = bpf_map_lookup_batch(r->ends_fd, begun ? &at : NULL, &at, flows, v, &count, NULL);
		if (more < 0 && errno != ENOENT)
			return err_sys(e, -errno, "reading the table of redirected connections");
		for (uint32_t i = 0; i < count && code >= 0; i++)
			code = each(&flows[i], &v[i], arg);
		begun = true;
		if (more < 0)
			break;
	}
	return code;
}

void redirect_effective(const struct redirect *r, struct redirect_end *end)
{
	const struct redirect_move_state *move = &r->moves[end->move % REDIRECT_MOVES_MAX];

	if (end->move && move->state) {
		end->state = move->state;
		end->node = move->node;
	}
	end->flags &= ~REDIRECT_COMING;
	end->move = 0;
}
