/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ns.h - what victims with network namespaces share; see ns.c */
#ifndef GODWIT_VICTIM_NS_H
#define GODWIT_VICTIM_NS_H

#include "victim.h"

/* Lines of commands, which must not fail. */
void run_tools(const char *commands);
/* What ip(8), bridge(8) and nft(8) say of the network namespace that the caller is in. */
void read_network(struct text *t);

#endif
