// SPDX-License-Identifier: GPL-2.0-or-later
/* fuzz_task.c - a process, a thread or a tree of processes as a peer describes it (first byte: which), and what is computed from it before anything is restored */
#include <stdlib.h>

#include "base/util.h"
#include "image/clocks.h"
#include "image/process.h"
#include "image/restart.h"
#include "image/thread.h"
#include "image/tree.h"
#include "image/tree_plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void try_process(const uint8_t *data, size_t len, bool offer)
{
	cleanup_free uint8_t *again = NULL;
	Gw__Process *msg;
	struct refusals r = { 0 };
	struct xstate_layout layout;
	struct err e = ERR_INIT;
	size_t again_len;

	if (process_decode(data, len, offer, &msg, &e) < 0) {
		if (!e.message[0])
			abort();
		return;
	}
	process_validate_here(msg, NULL, &r);
	refusals_free(&r);
	xstate_layout_of(msg, &layout);
	if (offer) {
		struct clock_offsets o = clock_offsets_for(msg->clocks, msg->clocks);

		if (o.monotonic_ns != msg->clocks->monotonic_offset_ns)
			abort();
	}
	process_encode(msg, &again, &again_len);
	gw__process__free_unpacked(msg, NULL);
}

static void try_thread(const uint8_t *data, size_t len)
{
	struct restart_now now = { 1000, 1000, 1000, 1000 };
	struct user_regs_struct regs;
	struct restart_patch patch;
	struct restart_prime prime;
	struct err e = ERR_INIT;
	uint8_t *area;
	Gw__Thread *msg;

	if (thread_decode(data, len, &msg, &e) < 0) {
		if (!e.message[0])
			abort();
		return;
	}
	signal_has_stop(&msg->pending);
	if (msg->regs.len) {
		memcpy(&regs, msg->regs.data, sizeof(regs));
		restart_prime_call(msg, &now, &prime);
		restart_finish(&regs, msg->restart, &now, &patch);
		restart_to_call(&regs);
		area = calloc(1, xstate_layout_here()->len);
		xstate_translate(xstate_layout_here(), msg->xstate.data, msg->xstate.len, area, &e);
		free(area);
	}
	gw__thread__free_unpacked(msg, NULL);
}

/* What is believed of it can be planned, or is said not to be; and it is the same when it is sent on. */
static void try_tree(const uint8_t *data, size_t len)
{
	cleanup_free uint8_t *again = NULL;
	struct tree t, same;
	struct tree_plan plan;
	struct err e = ERR_INIT;
	size_t again_len;

	if (tree_decode(data, len, &t, &e) < 0) {
		if (!e.message[0])
			abort();
		return;
	}
	if (tree_plan(&t, NULL, &plan, &e) == 0)
		tree_plan_free(&plan);
	else if (!e.message[0])
		abort();
	if (tree_encode(&t, &again, &again_len) < 0 || tree_decode(again, again_len, &same, &e) < 0 || memcmp(t.v, same.v, t.n * sizeof(*t.v)))
		abort();
	tree_free(&t);
	tree_free(&same);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 1 || len > 65536)
		return 0;
	if (data[0] == 't')
		try_thread(data + 1, len - 1);
	else if (data[0] == 'T')
		try_tree(data + 1, len - 1);
	else
		try_process(data + 1, len - 1, data[0] == 'o');
	return 0;
}
