/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* redirect_internal.h - what the files of redirect.h share */
#ifndef GODWIT_NET_REDIRECT_INTERNAL_H
#define GODWIT_NET_REDIRECT_INTERNAL_H

#include "kern/netlink.h"
#include "net/redirect.h"
#include "net/sockets.h"

#define REDIRECT_VERSION 7 /* of the maps' layout, and of what is in them */

/* The kernel gives each element of an array map that can be mapped eight bytes at least. */
struct port_count {
	uint32_t n, unused;
};

struct redirect {
	int programs[REDIRECT_PROGRAMS]; /* -1: found only */
	int lock_fd, ends_fd, moves_fd, nodes_fd, ports_fd, config_fd, fragments_fd, sources_fd, callers_fd, locals_fd;
	int calls_fd; /* -1: not looked for yet, or this kernel has no such thing (redirect_call.c) */
	/* The maps, mapped. */
	struct redirect_move_state *moves;
	struct redirect_node *nodes;
	struct port_count *ports;
	struct redirect_config *config;
	struct redirect_address *owned;
	size_t n_owned;
};

struct redirect_move {
	uint64_t entered_ns; /* of all its entries: when they were changed last */
	struct redirect *r;
	uint32_t index; /* in r->moves */
	uint32_t node;
	bool arriving;
	bool done;      /* forwarded, or live */
	int tun_fd;
	uint32_t tun;
	struct redirect_flow *flows;
	struct redirect_end *was; /* as they were before; moves_made of UINT32_MAX: there was none */
	size_t n, room;
	struct redirect_flow *left_out; /* senders */
	size_t n_left_out;
};

#define cleanup_redirect __attribute__((cleanup(redirect_close)))

/* redirect_open.c */
#define REDIRECT_PROGRAMS_NONE { -1, -1, -1, -1 }
void redirect_programs_close(int programs[REDIRECT_PROGRAMS]);

/* redirect.c. Calls that change the table are made with the lock. */
struct redirect *redirect_new(struct err *e);
/* Where the descriptor of a map of that name belongs; NULL: nowhere. */
int *redirect_map_slot(struct redirect *r, const char *name);
/* The maps of a program; mapping them. */
int redirect_find_maps(struct redirect *r, int program, struct err *e);
int redirect_map_all(struct redirect *r, struct err *e);
/* 1 when programs are attached: the table is theirs. */
int redirect_find_attached(struct redirect *r, struct err *e);
void redirect_lock(struct redirect *r);
void redirect_unlock(struct redirect *r);
/* The index of a node, which is entered if it is new. */
int redirect_node_index(struct redirect *r, const struct redirect_node *node, uint32_t *ret, struct err *e);
/* One end: false when there is none. [freeze] */
bool redirect_get(struct redirect *r, const struct redirect_flow *flow, struct redirect_end *ret);
/* Enters or replaces. [freeze] */
int redirect_put(struct redirect *r, const struct redirect_flow *flow, const struct redirect_end *end);
/* Takes its source address along (redirect_set_source). */
void redirect_remove(struct redirect *r, const struct redirect_flow *flow);
/* The same unless it has been made anew, as a packet that begins a connection between the same ends does, since it had this changed_ns. */
bool redirect_remove_unchanged(struct redirect *r, const struct redirect_flow *flow, uint64_t changed_ns);
/* The state and node that count now, of an entry that may belong to a move. */
/* Calls `each` for all ends: a walk over the whole table, milliseconds. Stops at less than 0, and returns it. */
int redirect_each(struct redirect *r, int (*each)(const struct redirect_flow *flow, const struct redirect_end *end, void *arg), void *arg, struct err *e);
/* An end of UDP without a peer sends from its own address, unless the port has another one already; or from none of ours any more. [freeze] */
void redirect_set_source(struct redirect *r, const struct redirect_flow *flow);
void redirect_unset_source(struct redirect *r, const struct redirect_flow *flow);
/* 1: its own, 0: another, -ENOENT: whichever routing chooses. */
int redirect_is_source(struct redirect *r, const struct redirect_flow *flow);
/* Tells the programs which addresses this host has. After host_load. */
void redirect_tell_addresses(struct redirect *r);
void redirect_effective(const struct redirect *r, struct redirect_end *end);
void redirect_other(const struct redirect_flow *flow, struct redirect_flow *ret);

/* host.c: this host's addresses, devices, rules, settings */
int host_load(struct err *e);
bool host_is_loopback(const uint8_t address[16]);
bool host_is_ipv4(const uint8_t address[16]);
/* Whether an address is this host's. [freeze] */
bool host_has_address(const uint8_t address[16]);
void host_list_addresses(void (*each)(const uint8_t address[16], void *arg), void *arg);
/* Calls `each` for every device that is up and has an address, or is the loopback device. */
int host_each_device(void (*each)(unsigned device, bool has_header, void *arg), void *arg, struct err *e);
/* The rule for REDIRECT_MARK, its table of routes, the settings of a device that forged-looking packets arrive on. */
int host_add_rules(struct err *e);
void host_remove_rules(void);
void host_trust_device(const char *device);
/* The device over which an address is reached; -EHOSTUNREACH when it is not on a link of ours. */
int host_device_towards(int family, const void *address, uint32_t *ret, struct err *e);
/* Packets on the loopback device become as small as those on another. */
int host_lower_lo(struct redirect *r, uint32_t device, struct err *e);
void host_restore_lo(struct redirect *r);
/* A neighbour that does not answer, but has ends that are elsewhere, is taken for one that does: routing would drop their packets. */
void host_revive_neighbour(uint32_t device, const uint8_t address[16]);
/* An IPv4 address of the host on a link that has the other address, as neighbours are known since host_load_neighbours: for people. The same one when none is known. */
void host_load_neighbours(void);
void host_ipv4_beside(const uint8_t address[16], uint8_t ret[16]);
/* A tun device that keeps packets until they are read, large ones as they are (TUNSETOFFLOAD): each has a header of this many bytes, which is written back with it. */
#define HOST_TUN_HEADER 10 /* struct virtio_net_hdr */
int host_make_tun(int *ret_fd, uint32_t *ret_device, struct err *e);

/* redirect_move.c: an entry of a move (end->move) gets for good what the move has come to; if that is nothing, what it was before. */
void redirect_settle_end(struct redirect *r, const struct redirect_flow *flow, struct redirect_end *end);
/* Whether the old copy of a listener that is elsewhere has no socket here any more, and what follows: another one here comes first. After host_load. */
bool redirect_has_ended(const struct redirect_flow *flow, const struct redirect_end *end, const struct sockets *sockets);
void redirect_end_listener(struct redirect *r, const struct redirect_flow *flow, struct redirect_end *end);
/* Of an end whose address the unit takes along. */
bool redirect_owns(const struct redirect *r, const struct redirect_flow *flow);
bool redirect_is_listener(const struct redirect_flow *flow);
/* Of an end that is HERE: its address is one of this host, and means no other one elsewhere. Nobody need know where it is. */
bool redirect_is_at_home(const struct redirect_flow *flow, const struct redirect_end *end);

/* redirect_attach.c */
extern const char *const redirect_program_names[REDIRECT_PROGRAMS];
int redirect_attach(struct redirect *r, struct err *e);
/* For a tun device: what is written into it. */
int redirect_attach_raw(struct redirect *r, uint32_t device, struct err *e);
/* The program that is attached to the loopback device: a descriptor, 0 when there is none. */
int redirect_attached(void);
struct bpf_program;
/* For what arrives at the loopback device (redirect_call.c); the program that does so: a descriptor or -errno. */
int redirect_attach_call(struct redirect *r, const struct bpf_program *program);
int redirect_attached_call(struct redirect *r);
void redirect_detach(struct redirect *r);

#endif
