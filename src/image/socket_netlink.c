/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket_netlink.c - netlink and packet sockets; see socket_netlink.h */
#include "image/socket_netlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/packet_diag.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/socket_options.h"

#define GROUP_WORDS_MAX 64u
#define GROUPS_MAX (GROUP_WORDS_MAX * 32)
#define MEMBERSHIPS_MAX 4096u

bool socket_host_is_one(const Gw__FdSocket *s)
{
	return s->family == AF_NETLINK || s->family == AF_PACKET;
}

/* --- netlink --- */

static void capture_groups(int fd, Gw__FdSocket *s)
{
	uint32_t words[GROUP_WORDS_MAX];
	socklen_t len = sizeof(words);

	memset(words, 0, sizeof(words));
	if (getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, words, &len) < 0)
		return;
	s->groups = fd_alloc(GROUPS_MAX * sizeof(*s->groups));
	for (uint32_t i = 0; i < MIN(len, (socklen_t)sizeof(words)) * 8; i++)
		if (words[i / 32] & (1u << (i % 32)))
			s->groups[s->n_groups++] = i + 1;
}

static int capture_netlink(const struct fd_look *look, Gw__FdSocket *s, struct err *e)
{
	struct sockaddr_nl local = { 0 }, peer = { 0 };
	socklen_t len = sizeof(local);

	if (getsockname(look->held, (void *)&local, &len) < 0)
		return err_sys(e, -errno, "fd %d: getsockname", look->fd);
	local.nl_groups = 0; /* they are listed apart */
	if (local.nl_pid)
		bytes_set(&s->local, &local, sizeof(local));
	len = sizeof(peer);
	if (getpeername(look->held, (void *)&peer, &len) == 0 && (peer.nl_pid || peer.nl_groups))
		bytes_set(&s->peer, &peer, sizeof(peer));
	capture_groups(look->held, s);
	return 0;
}

static int fill_netlink(const Gw__FdSocket *s, int fd, struct err *e)
{
	struct sockaddr_nl local = { .nl_family = AF_NETLINK }, peer;

	if (s->local.len) {
		memcpy(&local, s->local.data, sizeof(local));
		if (bind(fd, (void *)&local, sizeof(local)) < 0)
			return err_sys(e, -errno, "netlink socket: port %u", local.nl_pid);
	}
	for (size_t i = 0; i < s->n_groups; i++) {
		int group = (int)s->groups[i];

		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
			return err_sys(e, -errno, "netlink socket: group %d of protocol %u", group, s->protocol);
	}
	if (s->peer.len) {
		memcpy(&peer, s->peer.data, sizeof(peer));
		if (connect(fd, (void *)&peer, sizeof(peer)) < 0)
			return err_sys(e, -errno, "netlink socket: connecting to port %u", peer.nl_pid);
	}
	return 0;
}

/* --- packet --- */

struct packet_facts {
	bool found;
};

/* A ring as sock_diag describes it, as setsockopt takes it. */
static void take_ring(const struct nlattr *a, ProtobufCBinaryData *ret)
{
	const struct packet_diag_ring *r = (const void *)(a + 1);
	struct tpacket_req3 request = { .tp_block_size = r->pdr_block_size, .tp_block_nr = r->pdr_block_nr, .tp_frame_size = r->pdr_frame_size,
		.tp_frame_nr = r->pdr_frame_nr, .tp_retire_blk_tov = r->pdr_retire_tmo, .tp_sizeof_priv = r->pdr_sizeof_priv,
		.tp_feature_req_word = r->pdr_features };

	if (a->nla_len >= sizeof(*a) + sizeof(*r) && r->pdr_block_nr)
		bytes_set(ret, &request, sizeof(request));
}

static void take_memberships(const struct nlattr *a, Gw__FdSocket *s)
{
	const struct packet_diag_mclist *m = (const void *)(a + 1);
	size_t n = (a->nla_len - sizeof(*a)) / sizeof(*m);

	for (size_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < m[i].pdmc_count; j++) {
			Gw__FdMembership *x = fd_alloc(sizeof(*x));
			char name[IF_NAMESIZE] = "";

			gw__fd_membership__init(x);
			x->device = fd_strdup(if_indextoname(m[i].pdmc_index, name) ? name : "");
			x->type = m[i].pdmc_type;
			bytes_set(&x->address, m[i].pdmc_addr, MIN((size_t)m[i].pdmc_alen, sizeof(m[i].pdmc_addr)));
			fd_append(&s->memberships, &s->n_memberships, x);
		}
}

static void take_packet(const struct nlmsghdr *head, Gw__FdSocket *s, struct packet_facts *facts)
{
	const struct packet_diag_msg *message = NLMSG_DATA(head);
	const char *at = (const char *)(message + 1), *end = (const char *)head + head->nlmsg_len;

	facts->found = true;
	if (s->type == SOCK_PACKET)
		s->protocol = htons(message->pdiag_num);
	while (end - at >= (long)sizeof(struct nlattr)) {
		const struct nlattr *a = (const void *)at;

		if (a->nla_len < sizeof(*a) || a->nla_len > end - at)
			return;
		if (a->nla_type == PACKET_DIAG_RX_RING)
			take_ring(a, &s->rx_ring);
		if (a->nla_type == PACKET_DIAG_TX_RING)
			take_ring(a, &s->tx_ring);
		if (a->nla_type == PACKET_DIAG_FANOUT) {
			s->has_fanout = true;
			s->fanout = *(const uint32_t *)(const void *)(a + 1);
		}
		if (a->nla_type == PACKET_DIAG_MCLIST)
			take_memberships(a, s);
		at += NLA_ALIGN(a->nla_len);
	}
}

/* What packet_diag says of the socket with this inode. */
static struct packet_facts ask_packet_diag(uint64_t ino, Gw__FdSocket *s)
{
	cleanup_close int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	struct {
		struct nlmsghdr head;
		struct packet_diag_req request;
	} message = {
		.head = { .nlmsg_len = sizeof(message), .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.request = { .sdiag_family = AF_PACKET,
			.pdiag_show = PACKET_SHOW_INFO | PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG | PACKET_SHOW_FANOUT },
	};
	_Alignas(struct nlmsghdr) char answer[32768];
	struct packet_facts facts = { 0 };
	bool done = nl < 0 || send(nl, &message, sizeof(message), 0) < 0;

	while (!done) {
		ssize_t n = recv(nl, answer, sizeof(answer), 0);

		done = n <= 0;
		for (struct nlmsghdr *head = (void *)answer; !done && NLMSG_OK(head, n); head = NLMSG_NEXT(head, n)) {
			done = head->nlmsg_type == NLMSG_DONE || head->nlmsg_type == NLMSG_ERROR;
			if (!done && ((struct packet_diag_msg *)NLMSG_DATA(head))->pdiag_ino == (uint32_t)ino)
				take_packet(head, s, &facts);
		}
	}
	return facts;
}

static int capture_packet(const struct fd_look *look, Gw__FdSocket *s, struct refusals *refusals, struct err *e)
{
	struct sockaddr_ll local;
	struct sockaddr old = { 0 };
	socklen_t len = sizeof(local), old_len = sizeof(old);
	char name[IF_NAMESIZE] = "";
	struct packet_facts facts;
	struct stat st;

	memset(&local, 0, sizeof(local));
	if (getsockname(look->held, (void *)&local, &len) < 0 || fstat(look->held, &st) < 0)
		return err_sys(e, -errno, "fd %d: getsockname", look->fd);
	if (local.sll_ifindex > 0 && !if_indextoname((unsigned int)local.sll_ifindex, name)) {
		refusals_add(refusals, "fd.socket.packet.device", "the interface that it was bound to has gone", "close it first",
			"fd %d (packet socket)", look->fd);
		return FD_REFUSED;
	}
	facts = ask_packet_diag(st.st_ino, s);
	if (!facts.found) {
		refusals_add(refusals, "fd.socket.packet", "the kernel does not tell its state", "close it first", "fd %d (packet socket)", look->fd);
		return FD_REFUSED;
	}
	/* The old kind has the name of its interface as its address. */
	if (s->type == SOCK_PACKET) {
		memset(&local, 0, sizeof(local));
		local.sll_family = AF_PACKET;
		if (getsockname(look->held, &old, &old_len) == 0)
			snprintf(name, sizeof(name), "%.14s", old.sa_data);
	}
	local.sll_ifindex = 0; /* a number of this host */
	local.sll_halen = 0;
	local.sll_hatype = 0;
	memset(local.sll_addr, 0, sizeof(local.sll_addr));
	bytes_set(&s->local, &local, sizeof(local));
	if (name[0])
		s->device = fd_strdup(name);
	return 0;
}

static int find_device(const char *name, int *ret_index, struct err *e)
{
	*ret_index = (int)if_nametoindex(name);
	return *ret_index ? 0 : err_set(e, -ENODEV, "packet socket: this host has no interface %s", name);
}

static size_t ring_bytes(int fd)
{
	return socket_get_int(fd, SOL_PACKET, PACKET_VERSION) == TPACKET_V3 ? sizeof(struct tpacket_req3) : sizeof(struct tpacket_req);
}

/* SOCK_PACKET: it has been receiving since it was made. */
static int fill_old_packet(const Gw__FdSocket *s, int fd, struct err *e)
{
	struct sockaddr name = { .sa_family = AF_PACKET };
	char byte;

	snprintf(name.sa_data, sizeof(name.sa_data), "%s", s->device);
	if (s->device[0] && bind(fd, &name, sizeof(name)) < 0)
		return err_sys(e, -errno, "packet socket: binding to %s", s->device);
	while (recv(fd, &byte, 1, MSG_DONTWAIT) >= 0)
		;
	return 0;
}

static int fill_packet(const Gw__FdSocket *s, int fd, struct err *e)
{
	struct sockaddr_ll local;
	int r = 0;

	memcpy(&local, s->local.data, sizeof(local));
	if (s->type == SOCK_PACKET)
		return fill_old_packet(s, fd, e);
	if ((s->rx_ring.len && setsockopt(fd, SOL_PACKET, PACKET_RX_RING, s->rx_ring.data, (socklen_t)ring_bytes(fd)) < 0) ||
	    (s->tx_ring.len && setsockopt(fd, SOL_PACKET, PACKET_TX_RING, s->tx_ring.data, (socklen_t)ring_bytes(fd)) < 0))
		return err_sys(e, -errno, "packet socket: its ring");
	if (s->device[0])
		r = find_device(s->device, &local.sll_ifindex, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->n_memberships && r == 0; i++) {
		const Gw__FdMembership *m = s->memberships[i];
		struct packet_mreq request = { .mr_type = (unsigned short)m->type, .mr_alen = (unsigned short)m->address.len };

		if (m->address.len)
			memcpy(request.mr_address, m->address.data, MIN(m->address.len, sizeof(request.mr_address)));
		r = find_device(m->device, &request.mr_ifindex, e);
		if (r == 0 && setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request, sizeof(request)) < 0)
			r = err_sys(e, -errno, "packet socket: membership of type %u on %s", m->type, m->device);
	}
	if (r == 0 && (local.sll_protocol || local.sll_ifindex) && bind(fd, (void *)&local, sizeof(local)) < 0)
		return err_sys(e, -errno, "packet socket: binding to %s", s->device[0] ? s->device : "all interfaces");
	if (r == 0 && s->has_fanout && setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &s->fanout, sizeof(s->fanout)) < 0)
		return err_sys(e, -errno, "packet socket: its fanout group");
	return r;
}

/* --- both --- */

static int capture_state(const struct fd_look *look, Gw__FdSocket *s, struct refusals *refusals, struct err *e)
{
	int r = s->family == AF_NETLINK ? capture_netlink(look, s, e) : capture_packet(look, s, refusals, e);

	if (r == 0)
		socket_options_capture(look->held, s->family, s->type, &s->options, &s->n_options);
	return r;
}

static bool fans_out_by_program(int fd, const Gw__FdSocket *s)
{
	int fanout = s->family == AF_PACKET ? socket_get_int(fd, SOL_PACKET, PACKET_FANOUT) : 0, type = fanout >> 16 & 0xff;

	return type == PACKET_FANOUT_CBPF || type == PACKET_FANOUT_EBPF;
}

int socket_host_capture(const struct fd_look *look, Gw__FdDesc *d, struct refusals *refusals, struct err *e)
{
	const char *what = d->socket->family == AF_NETLINK ? "netlink socket" : "packet socket";

	if (!socket_same_net_namespace(look->held))
		return socket_refuse_namespace(look, what, refusals);
	if (socket_options_refuse(look, refusals))
		return FD_REFUSED;
	if (fans_out_by_program(look->held, d->socket)) {
		refusals_add(refusals, "fd.socket.packet.fanout", "a program of BPF chooses among the sockets of its fanout group, and such cannot move yet", "use another kind of fanout",
			     "fd %d (%s)", look->fd, what);
		return FD_REFUSED;
	}
	return capture_state(look, d->socket, refusals, e);
}

/* Whether the kernel is to answer more of a request for a list (NLM_F_DUMP) when the program reads on; proc_pid_net(5): /proc/net/netlink. */
static bool is_dump_under_way(int fd)
{
	cleanup_fclose FILE *f = fopen("/proc/thread-self/net/netlink", "re");
	char line[256];
	struct stat st;

	if (!f || fstat(fd, &st) < 0)
		return false;
	while (fgets(line, sizeof(line), f)) {
		unsigned long ino;
		int dump;

		if (sscanf(line, "%*s %*s %*s %*s %*s %*s %d %*s %*s %lu", &dump, &ino) == 2 && ino == st.st_ino)
			return dump;
	}
	return false;
}

int socket_host_recheck(const struct fd_look *look, const Gw__FdDesc *d, struct err *e)
{
	struct pollfd p = { .fd = look->held, .events = POLLIN };

	if (d->socket->family == AF_NETLINK && is_dump_under_way(look->held))
		return err_set(e, -EAGAIN, "fd %d (netlink socket): the kernel has not sent all of its answer yet", look->fd);
	if (poll(&p, 1, 0) != 1 || !(p.revents & POLLIN))
		return 0;
	return err_set(e, -EAGAIN, "fd %d (%s socket): messages wait in its queue and cannot be put into another; try again when the program "
		"has read them", look->fd, d->socket->family == AF_NETLINK ? "netlink" : "packet");
}

bool socket_host_same(const Gw__FdDesc *d, int fd)
{
	struct fd_look look = { .fd = fd, .held = fd };
	struct refusals ignored = { 0 };
	Gw__FdSocket *now = fd_alloc(sizeof(*now));
	bool same = false;

	gw__fd_socket__init(now);
	now->family = d->socket->family;
	now->space = d->socket->space; /* it is looked at in there */
	now->type = (uint32_t)socket_get_int(fd, SOL_SOCKET, SO_TYPE);
	now->protocol = (uint32_t)socket_get_int(fd, SOL_SOCKET, SO_PROTOCOL);
	if ((uint32_t)socket_get_int(fd, SOL_SOCKET, SO_DOMAIN) == now->family && capture_state(&look, now, &ignored, NULL) == 0) {
		size_t len = gw__fd_socket__get_packed_size(now);
		cleanup_free uint8_t *a = fd_alloc(len), *b = fd_alloc(len);

		same = len == gw__fd_socket__get_packed_size(d->socket);
		if (same) {
			gw__fd_socket__pack(now, a);
			gw__fd_socket__pack(d->socket, b);
			same = !memcmp(a, b, len);
		}
	}
	refusals_free(&ignored);
	gw__fd_socket__free_unpacked(now, NULL);
	return same;
}

static int validate_packet(const Gw__FdSocket *s, struct err *e)
{
	struct sockaddr_ll local;

	if ((s->rx_ring.len && s->rx_ring.len != sizeof(struct tpacket_req3)) || (s->tx_ring.len && s->tx_ring.len != sizeof(struct tpacket_req3)))
		return err_set(e, -EPROTO, "packet socket: ring of %zu bytes", s->rx_ring.len);
	if (s->local.len != sizeof(local) || strlen(s->device) >= IF_NAMESIZE || s->n_memberships > MEMBERSHIPS_MAX)
		return err_set(e, -EPROTO, "packet socket: address of %zu bytes", s->local.len);
	memcpy(&local, s->local.data, sizeof(local));
	if (local.sll_family != AF_PACKET)
		return err_set(e, -EPROTO, "packet socket: address of another family");
	for (size_t i = 0; i < s->n_memberships; i++)
		if (s->memberships[i]->type > 0xffff || s->memberships[i]->address.len > sizeof(((struct packet_mreq *)0)->mr_address) ||
		    strlen(s->memberships[i]->device) >= IF_NAMESIZE)
			return err_set(e, -EPROTO, "packet socket: membership %zu", i);
	return 0;
}

int socket_host_validate(const Gw__FdSocket *s, struct err *e)
{
	struct sockaddr_nl local;
	int r = socket_options_validate(s->family, s->type, s->options, s->n_options, e);

	if (r < 0)
		return r;
	if ((s->type != SOCK_RAW && s->type != SOCK_DGRAM && !(s->family == AF_PACKET && s->type == SOCK_PACKET)) || s->listening || s->protocol > 0xffff)
		return err_set(e, -EPROTO, "socket of family %u: type %u, protocol %u", s->family, s->type, s->protocol);
	if (s->family == AF_PACKET)
		return validate_packet(s, e);
	if ((s->local.len && s->local.len != sizeof(local)) || (s->peer.len && s->peer.len != sizeof(local)) || s->n_groups > GROUPS_MAX)
		return err_set(e, -EPROTO, "netlink socket: addresses of %zu and %zu bytes", s->local.len, s->peer.len);
	for (size_t i = 0; i < s->n_groups; i++)
		if (!s->groups[i] || s->groups[i] > GROUPS_MAX)
			return err_set(e, -EPROTO, "netlink socket: group %u", s->groups[i]);
	return 0;
}

int socket_host_open(const Gw__FdDesc *d, int *ret_fd, struct err *e)
{
	const Gw__FdSocket *s = d->socket;
	/* A packet socket with a protocol receives from its first moment. */
	int protocol = s->family == AF_PACKET && s->type != SOCK_PACKET ? 0 : (int)s->protocol, r;
	cleanup_close int fd = socket((int)s->family, (int)s->type | SOCK_CLOEXEC, protocol);

	if (fd < 0)
		return err_sys(e, -errno, "socket of family %u, protocol %u", s->family, s->protocol);
	r = socket_options_set(fd, s->options, s->n_options, OPTIONS_EARLY, e);
	if (r == 0)
		r = socket_options_set(fd, s->options, s->n_options, OPTIONS_LATE, e);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}

int socket_host_fill(const Gw__FdDesc *d, int fd, struct err *e)
{
	return d->socket->family == AF_NETLINK ? fill_netlink(d->socket, fd, e) : fill_packet(d->socket, fd, e);
}
