/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dest_rehearse.c - the go message is decoded and its lists are planned before it has come
 *
 * Theory of operation: what is touched for the first time in a while costs several times what it costs then: code, the heap, tables of the C library. So a message is made up from the offer,
 * each process with its main thread, and goes through what the real one will go through, up to where a skeleton would be touched; what comes of it is thrown away. It takes some
 * 100 us while the source looks for the working set and gets ready to stop.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/user.h>

#include "base/util.h"
#include "image/signal.h"
#include "image/xstate.h"
#include "migrate/dest.h"

#define PROCESSES_MAX 8u /* with more of them, those behind warm what is needed by the first ones */

static uint8_t handlers[SIGNAL_COUNT * sizeof(struct signal_kernel_action)], registers[sizeof(struct user_regs_struct)], state[XSTATE_LEGACY_LEN];

static int encode_one(struct dest_process *p, Gw__GoProcess *msg, ProtobufCBinaryData *thread, struct err *e)
{
	const ProtobufCBinaryData before = p->process->sigactions, regs = p->threads[0]->regs, xstate = p->threads[0]->xstate;
	int ret;

	gw__go_process__init(msg);
	p->process->sigactions = (ProtobufCBinaryData){ sizeof(handlers), handlers };
	ret = process_encode(p->process, &msg->process.data, &msg->process.len);
	p->process->sigactions = before;
	p->threads[0]->regs = (ProtobufCBinaryData){ sizeof(registers), registers };
	p->threads[0]->xstate = (ProtobufCBinaryData){ sizeof(state), state };
	if (ret == 0)
		ret = thread_encode(p->threads[0], &thread->data, &thread->len);
	p->threads[0]->regs = regs;
	p->threads[0]->xstate = xstate;
	msg->threads = thread;
	msg->n_threads = 1;
	return ret < 0 ? ret : mm_encode(&p->mm, &msg->mm.data, &msg->mm.len, e);
}

/* *ret_len: of the message, behind its length. */
static uint8_t *encode(struct dest *d, size_t *ret_len)
{
	Gw__GoProcess procs[PROCESSES_MAX], *list[PROCESSES_MAX];
	ProtobufCBinaryData threads[PROCESSES_MAX] = { 0 };
	struct err unheard = ERR_INIT;
	Gw__Go msg = GW__GO__INIT;
	uint32_t len = 0;
	uint8_t *ret;
	int code = 0;

	for (size_t i = 0; i < d->nprocs && code == 0; i++) {
		list[i] = &procs[i];
		code = encode_one(&d->procs[i], &procs[i], &threads[i], &unheard);
		msg.n_processes++;
	}
	msg.processes = list;
	ret = code == 0 ? malloc(sizeof(len) + gw__go__get_packed_size(&msg)) : NULL;
	if (ret) {
		len = (uint32_t)gw__go__pack(&msg, ret + sizeof(len));
		memcpy(ret, &len, sizeof(len));
		*ret_len = sizeof(len) + len;
	}
	for (size_t i = 0; i < msg.n_processes; i++) {
		free(procs[i].process.data);
		free(procs[i].mm.data);
		free(threads[i].data);
	}
	return ret;
}

void dest_rehearse(struct dest *d)
{
	struct go_terms terms = { d->offered.procs, d->nprocs, THREADS_SPARE, d->files.n, d->fds };
	cleanup_free uint8_t *message = NULL;
	struct err unheard = ERR_INIT;
	struct go go = { 0 };
	size_t len;

	if (d->nprocs > PROCESSES_MAX)
		return;
	message = encode(d, &len);
	/* The update of descriptors, which is missing, comes last. */
	if (message)
		go_decode(message, len, &terms, &go, &unheard);
	for (size_t i = 0; i < go.nprocs; i++)
		if (go.procs[i].process && go.procs[i].nthreads)
			dest_rehearse_lists(&d->procs[i], &go.procs[i]);
	go_free(&go);
}
