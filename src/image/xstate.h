/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xstate.h - the extended processor state (XSAVE, standard format) between two hosts
 *
 * The state travels cut behind the last component in use, with the source's table of component offsets (they differ between makers of
 * processors). The destination lays it out for its own kernel. Reference: Intel SDM volume 1, chapter 13.
 */
#ifndef GODWIT_IMAGE_XSTATE_H
#define GODWIT_IMAGE_XSTATE_H

#include <errno.h>

#include "base/err.h"
#include "image/refuse.h"
#include "task.pb-c.h"

#define XSTATE_MAX 65536u
#define XSTATE_COMPONENTS 63
#define XSTATE_LEGACY_LEN 576u /* legacy area and header */
#define XSTATE_TILE_DATA 18

struct xstate_layout {
	uint64_t features; /* XCR0 */
	uint32_t len;      /* of the whole area */
	struct {
		uint32_t offset, size;
	} component[XSTATE_COMPONENTS];
};

/* This host's layout; read once (CPUID is slow in virtual machines), call it early. */
const struct xstate_layout *xstate_layout_here(void);
/* Length of the prefix that holds every component in use. */
size_t xstate_used_len(const void *area, size_t len);
/*
 * The kernel's own copy of a thread's state (compacted or not), as ptrace(2) would tell it, cut behind the last component in use: into `to`, of XSTATE_MAX bytes. Returns its length; 0: it
 * cannot be told from here. `pkru` is kept apart by the kernel.
 */
size_t xstate_from_kernel(const void *area, size_t len, uint32_t pkru, uint8_t *to);
/* Asks the processor for what the former needs, once. */
void xstate_from_kernel_prepare(void);
/* Puts this host's layout into the message. */
void xstate_describe(Gw__Process *msg);
/* The source's layout from a message that process_validate has accepted. */
void xstate_layout_of(const Gw__Process *msg, struct xstate_layout *ret_layout);
/* Checks the table in an untrusted message. */
int xstate_validate_layout(const Gw__Process *msg, struct err *e);
/*
 * Lays a thread's state out for this host: ret_area has xstate_layout_here()->len bytes, zeroed. -EOPNOTSUPP when it uses a component
 * that this host lacks.
 */
int xstate_translate(const struct xstate_layout *from, const void *area, size_t len, uint8_t *ret_area, struct err *e);

#endif
