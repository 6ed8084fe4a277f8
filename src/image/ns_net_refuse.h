/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ns_net_refuse.h - what may be in a network namespace and is carried by nobody: looked for, so that it is refused and not dropped */
#ifndef GODWIT_IMAGE_NS_NET_REFUSE_H
#define GODWIT_IMAGE_NS_NET_REFUSE_H

#include <stdbool.h>

#include "base/err.h"
#include "image/refuse.h"

/* All of the calling process's network namespace. */
int ns_net_refuse(struct refusals *r, struct err *e);

/* Whether there are sets of ipset(8), tables of nft(8), of iptables(8) and ip6tables(8). */
bool net_has_sets(void);
bool net_has_tables(void);
bool net_has_iptables(void);
bool net_has_ip6tables(void);

#endif
