/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * address.h - an address that belongs to a unit, at the device of a host (ip-address(8), RFC 5227, RFC 4862)
 *
 * It is one more address of a device: in version 4 a secondary one where the device has others of that network, in version 6 one that is deprecated, so that no other process
 * of the host gets it for its own connections unless it asks for it. Routing would give it to those of the host that call it, too: a local route with another preferred source comes before the kernel's. All calls block for less than a millisecond, but address_is_taken.
 */
#ifndef GODWIT_NET_ADDRESS_H
#define GODWIT_NET_ADDRESS_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "kern/neighbour.h"
#include "kern/netlink.h"

#define ADDRESS_TEXT 80

struct owned_address {
	uint8_t address[16];  /* network order; of IPv4 mapped (::ffff:a.b.c.d), as in struct redirect_flow */
	uint8_t prefix;       /* 1 to 32, or 128; 0: that of the device's network */
	char device[IFNAMSIZ]; /* that was asked for; "": the one whose network contains the address */
	char on[IFNAMSIZ];     /* the device that it is at, on this host; "": not known yet */
};

/* ADDRESS[/PREFIX][%DEVICE]. -EINVAL with words. */
int address_parse(const char *text, struct owned_address *ret, struct err *e);
/* As address_parse takes it, without the device; and with it. */
const char *address_text(const struct owned_address *a, char text[ADDRESS_TEXT]);
const char *address_text_whole(const struct owned_address *a, char text[ADDRESS_TEXT]);
bool address_is_ipv4(const struct owned_address *a);

/*
 * Which device of this host it is to be at (`on`), and its prefix: the one that was asked for, or the one whose network contains it. nl: of the host's network namespace.
 * -ENODEV with words when there is none, or when it is not up or not one of Ethernet.
 */
int address_choose_device(struct netlink *nl, struct owned_address *a, struct err *e);
/* Whether a device of this host has it. */
bool address_is_here(struct netlink *nl, const struct owned_address *a);
/* The device's number and hardware address. -ENODEV. */
int address_device(struct netlink *nl, const struct owned_address *a, uint32_t *ret_device, uint8_t ret_hardware[6], struct err *e);
/* Who answers for it on the link (neighbour_ask), other than this host itself. ns: the network namespace of `nl`, or -1. Some hundredths of a second. */
enum neighbour_answer address_ask(struct netlink *nl, int ns, const struct owned_address *a, const uint8_t expected[6], uint8_t other[6]);

/* [freeze] Adds it; 0 also when it is there already. */
int address_add(struct netlink *nl, const struct owned_address *a, struct err *e);
/* Once it is there: processes of this host that call it keep an address of the host's, instead of getting this one as their own. */
void address_spare(struct netlink *nl, const struct owned_address *a);
/* Removes it; 0 also when it was not there. */
int address_remove(struct netlink *nl, const struct owned_address *a, struct err *e);
/* Tells the link's hosts. */
void address_announce(struct netlink *nl, const struct owned_address *a);

#endif
