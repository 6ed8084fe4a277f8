/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bpf_map.h - BPF maps (bpf(2)) that only the unit has: created anew and filled with the same entries
 *
 * Hash, array, LRU, trie, and their per-CPU forms (between hosts with equally many CPUs). A map that a loaded program uses, or another
 * process, is part of this host and refused. Entries are read in the freeze.
 */
#ifndef GODWIT_IMAGE_BPF_MAP_H
#define GODWIT_IMAGE_BPF_MAP_H

#include "image/file_look.h"
#include "image/refuse.h"

bool bpf_map_is_one(const char *link);
/* Fills d->bpf_map; with contents when `frozen`. FD_REFUSED with a refusal. */
int bpf_map_capture(const struct fd_look *look, Gw__FdDesc *d, bool frozen, struct refusals *refusals, struct err *e);
int bpf_map_validate(const Gw__FdDesc *d, struct err *e);
int bpf_map_open(const Gw__FdDesc *d, int *ret_fd, struct err *e);
int bpf_map_fill(const Gw__FdDesc *d, int fd, struct err *e);

#endif
