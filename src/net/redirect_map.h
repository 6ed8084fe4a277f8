/* SPDX-License-Identifier: GPL-2.0-or-later */
/* redirect_map.h - the maps that the programs (bpf/redirect.bpf.c) and redirect.c share; see redirect.h */
#ifndef GODWIT_NET_REDIRECT_MAP_H
#define GODWIT_NET_REDIRECT_MAP_H

#ifdef __bpf__
#include <linux/types.h>
#define RM_U8 __u8
#define RM_U16 __u16
#define RM_U32 __u32
#define RM_U64 __u64
#else
#include <stdint.h>
#define RM_U8 uint8_t
#define RM_U16 uint16_t
#define RM_U32 uint32_t
#define RM_U64 uint64_t
#endif

#define REDIRECT_ENDS_MAX 262144
#define REDIRECT_MOVES_MAX 1024
#define REDIRECT_NODES_MAX 1024
#define REDIRECT_SOURCES_MAX 16384
#define REDIRECT_LOCALS_MAX 4096
#define REDIRECT_CALLS_MAX 16384
#define REDIRECT_NAME_MAX 64
#define REDIRECT_MARK 0x67770001u /* of packets that are ours, and of those that have been sent on */
#define REDIRECT_TABLE 26487      /* of routes: everything is local */

/* The socket with address own, whose peer is peer (all zero: every peer). Network order; IPv4 mapped into IPv6. */
struct redirect_flow {
	RM_U8 own[16], peer[16];
	RM_U16 own_port, peer_port;
	RM_U8 protocol;
	RM_U8 unused[3];
};

enum redirect_state {
	REDIRECT_NONE,  /* where its address says; of a move: what the entry says */
	REDIRECT_HERE,
	REDIRECT_THERE,
	REDIRECT_HELD,
};

#define REDIRECT_NATIVE 1u   /* HERE, and own is an address of this host: nothing need be done */
#define REDIRECT_OVER_LO 2u  /* HERE, and packets that come from a device would be taken for forged: they arrive over the loopback device */
/*
 * Of a listener. THERE: the old copy has ended here. A listener that is here now is another one, and comes first. HERE: it has ended by itself. Others are told so (news.h); who has
 * not heard yet is answered that nobody listens
 */
#define REDIRECT_ENDED 8u
#define REDIRECT_COMING 16u  /* of a move that has not come to anything yet: what its socket here sends is dropped */
#define REDIRECT_LEARNED 4u  /* made by a packet for a listener */
#define REDIRECT_OWNED 32u   /* own moves along: packets come where the end is by themselves. Only for those that are on their way, or come from who has not heard of it */
#define REDIRECT_CALLED 64u  /* HERE, and perhaps no socket yet, but a call (struct redirect_call): packets arrive over the loopback device, where that is looked for */

/* Which sockets of UDP without a peer have a source address of another host, or had one. */
struct redirect_source {
	RM_U16 port;
	RM_U8 ipv6, unused;
};

struct redirect_address {
	RM_U8 a[16]; /* as in struct redirect_flow */
};

struct redirect_end {
	RM_U32 state, flags;
	RM_U32 node;       /* THERE: index in `nodes` */
	RM_U32 move;       /* index in `moves`, whose state comes first; 0: none */
	RM_U32 moves_made; /* how often the end has moved: what is known later counts */
	RM_U32 home;       /* of a listener with a loopback address that is HERE: the node where it was made; 0: none */
	RM_U64 changed_ns; /* CLOCK_MONOTONIC: when it got here what it says */
	RM_U64 seen_ns;    /* CLOCK_MONOTONIC, of the last packet that needed this entry, to a second */
};

struct redirect_move_state {
	RM_U32 state; /* enum redirect_state */
	RM_U32 node;
	RM_U32 tun;   /* HELD: the device that keeps packets */
	RM_U32 owner; /* pid of its worker, 0: free */
	RM_U32 drain; /* HELD: what becomes of packets that come from that device again, enum redirect_drain */
	RM_U32 unused;
};

/* While kept packets are given on others are still kept, behind them: they must not overtake. */
enum redirect_drain {
	REDIRECT_DRAIN_NOT,
	REDIRECT_DRAIN_BACK,  /* where the entry says */
	REDIRECT_DRAIN_THERE,
};

/* What is known of a connection that has no socket yet: RFC 9293, RFC 7323. What acknowledges the listener's answer says the numbers. */
struct redirect_call {
	RM_U64 until_ns;   /* CLOCK_MONOTONIC: nobody comes any more then */
	RM_U32 stamp, peer_stamp;
	RM_U16 segment_max;
	RM_U8 send_scale, receive_scale; /* of windows */
	RM_U8 has_stamps, has_scale, has_sack, has_ecn, counts_us, unused[3];
};

/* A host that runs Godwit, as others on the link reach it. */
struct redirect_node {
	char name[REDIRECT_NAME_MAX]; /* ends with a 0 */
	RM_U8 v4[4], v6[16];          /* all zero: none */
	RM_U32 device;                /* of this host, towards it; set here */
};

struct redirect_config {
	RM_U32 lo;
	RM_U32 version;
	RM_U32 news; /* counted up when others are to be told something */
	RM_U32 n_nodes;
	RM_U32 lo_mtu;   /* before it was lowered; 0: it was not */
	RM_U32 tried;    /* `news` when others were told last */
	RM_U32 told;     /* ... and all of them had heard it */
	RM_U32 tries;    /* to tell those who did not hear it */
	RM_U64 tried_ns, opened_ns;
};

/* What the source tells the destination of an end. */
struct redirect_known {
	RM_U32 moves_made;          /* of this end, before this move */
	RM_U32 other_moves_made;
	RM_U32 is_source;           /* of UDP without a peer: its own address is the one that it sends from */
	struct redirect_node other; /* where the other end is; no name: where its address says */
};

#endif
