/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* thread_plain.c - threads of which BPF tells all; see thread_plain.h */
#include "image/thread_plain.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/user.h>

#include "base/util.h"
#include "image/bytes.h"
#include "image/thread_abi.h"
#include "image/xstate.h"

#define CODE_64BIT 0x33
#define FLAG_SINGLE_STEP 0x100u
#define DISARM 0x80000000u /* SS_AUTODISARM */
#define REG_CS 17
#define REG_FLAGS 18

_Static_assert(sizeof(struct user_regs_struct) == sizeof(((struct thread_record *)0)->regs), "registers");
_Static_assert(offsetof(struct user_regs_struct, cs) == REG_CS * 8 && offsetof(struct user_regs_struct, eflags) == REG_FLAGS * 8, "registers");

static bool is_readable(const struct thread_record *r)
{
	/* The limit of CPUs: kern/bpf/thread_peek.bpf.c. */
	static long cpus;

	if (!cpus)
		cpus = sysconf(_SC_NPROCESSORS_CONF);
	return !(r->state & THREAD_INCOMPLETE) && cpus <= THREAD_CPU_WORDS * 64;
}

bool thread_is_plain(const struct thread_record *r, const struct thread_record *main)
{
	return is_readable(r) && is_readable(main) && !r->pending && r->regs[REG_CS] == CODE_64BIT && !(r->regs[REG_FLAGS] & FLAG_SINGLE_STEP) && !r->class.seccomp &&
	       !r->class.io_bitmap && !r->class.mempolicy && r->class.policy != POLICY_DEADLINE && memcmp(&r->class, &main->class, sizeof(r->class)) == 0;
}

int thread_fill_plain(const struct thread_record *r, Gw__Thread *msg)
{
	char name[sizeof(r->name) + 1] = "";
	uint8_t area[XSTATE_MAX];
	size_t len = xstate_from_kernel(r + 1, r->xstate_len, r->pkru, area);

	if (!len)
		return -EAGAIN;
	bytes_set(&msg->regs, r->regs, sizeof(r->regs));
	bytes_set(&msg->xstate, area, len);
	memcpy(name, r->name, sizeof(r->name));
	string_set(&msg->name, name);
	msg->sigmask = r->sigmask;
	msg->altstack_sp = r->altstack_sp;
	msg->altstack_size = r->altstack_size;
	msg->altstack_flags = (r->altstack_flags & DISARM) | (r->altstack_size ? 0 : SS_DISABLE);
	msg->robust_list = r->robust_list;
	msg->robust_list_len = sizeof(struct robust_list_head);
	msg->rseq = r->rseq;
	msg->rseq_len = r->rseq ? r->rseq_len : 0;
	msg->rseq_signature = r->rseq ? r->rseq_signature : 0;
	msg->clear_tid = r->clear_tid;
	return 0;
}

static uint32_t *copy_ids(const uint32_t *ids, size_t n)
{
	uint32_t *copy = must_alloc(n * sizeof(*copy));

	if (n)
		memcpy(copy, ids, n * sizeof(*copy));
	return copy;
}

static void copy_credentials(const Gw__Credentials *from, Gw__Thread *msg)
{
	if (msg->credentials)
		gw__credentials__free_unpacked(msg->credentials, NULL);
	msg->credentials = must_alloc(sizeof(*msg->credentials));
	*msg->credentials = *from;
	msg->credentials->uids = copy_ids(from->uids, from->n_uids);
	msg->credentials->gids = copy_ids(from->gids, from->n_gids);
	msg->credentials->groups = copy_ids(from->groups, from->n_groups);
}

void thread_complete_plain(const Gw__Thread *main, Gw__Thread *msg)
{
	bytes_set(&msg->sched_attr, main->sched_attr.data, main->sched_attr.len);
	bytes_set(&msg->affinity, main->affinity.data, main->affinity.len);
	msg->ioprio = main->ioprio;
	msg->timer_slack_ns = main->timer_slack_ns;
	msg->no_new_privs = main->no_new_privs;
	msg->pdeath_signal = main->pdeath_signal;
	msg->mce_kill = main->mce_kill;
	msg->tsc_mode = main->tsc_mode;
	msg->cpuid_faults = main->cpuid_faults;
	msg->spec_store_bypass = main->spec_store_bypass;
	msg->spec_indirect_branch = main->spec_indirect_branch;
	msg->spec_l1d_flush = main->spec_l1d_flush;
	msg->seccomp_mode = main->seccomp_mode;
	copy_credentials(main->credentials, msg);
}
