/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * late.c - signals that came to the source's copy after its pending ones had been captured; see late.h
 *
 * Theory of operation: parked threads have every signal blocked, so that the shared queue only grows: what is behind the entries that were captured is new.
 * SIGSTOP cannot be blocked; it stops the parked threads, and shows as the signal of the stop that PTRACE_SEIZE finds them in. SIGKILL shows as the
 * copy's death.
 */
#include "migrate/late.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/util.h"
#include "home/stub_abi.h"
#include "image/bytes.h"
#include "image/process_check.h"
#include "image/pty_session.h"
#include "image/signal.h"
#include "migrate/decode.h"
#include "kern/trace.h"
#include "migrate/dest.h"
#include "migrate/source.h"

/* It would make no calls, and could not end. */
static void go_on(struct source_process *p)
{
	siginfo_t info = { .si_signo = SIGCONT, .si_code = SI_QUEUE };

	info.si_pid = getpid();
	info.si_value.sival_ptr = (void *)(uintptr_t)STUB_CONTINUE_VALUE; /* not passed on */
	syscall(SYS_rt_sigqueueinfo, p->u->pid, SIGCONT, &info);
}

/* What somebody sent; not what the copy's own timers and descriptors, which are at the destination, too, signalled here. */
static bool was_sent(const siginfo_t *info)
{
	return info->si_code == SI_USER || info->si_code == SI_QUEUE || info->si_code == SI_TKILL ||
	       (info->si_code == SI_KERNEL && info->si_signo != SIGALRM && info->si_signo != SIGVTALRM && info->si_signo != SIGPROF);
}

/*
 * The kernel's word that a terminal of the unit has been hung up: because another process of the copy has ended, which led the session or had the master, or the surrogate parent.
 * Nobody else can hang it up.
 */
static bool is_own_hangup(const struct source_process *p, const siginfo_t *info)
{
	const struct unit *u = &p->s->unit;

	return info->si_code == SI_KERNEL && (info->si_signo == SIGHUP || info->si_signo == SIGCONT) && u->fds.msg && p->u->in_tree < u->tree.n &&
	       (pty_of_session(u->fds.msg, u->tree.v[p->u->in_tree].sid) >= 0 || (u->fds.relays_travel && pty_inherited(u->fds.msg) >= 0));
}

static void keep_sent(struct source_process *p, const ProtobufCBinaryData *queue)
{
	for (size_t i = p->peeked; i + SIGNAL_INFO_LEN <= queue->len; i += SIGNAL_INFO_LEN) {
		siginfo_t info;

		memcpy(&info, queue->data + i, sizeof(info));
		if (was_sent(&info) && !is_own_hangup(p, &info))
			bytes_append(&p->late_queue, &info, sizeof(info));
	}
	p->peeked = MAX(p->peeked, queue->len);
}

void late_look(struct source_process *p)
{
	struct pollfd end = { p->u->pidfd, POLLIN, 0 };
	ProtobufCBinaryData queue = { 0 };
	int signal = SIGTRAP;
	bool stopped, stop;

	p->late_kill = poll(&end, 1, 0) > 0;
	if (p->late_kill || (!p->held && trace_seize(p->u->pid, 0, NULL) < 0))
		return;
	stopped = trace_interrupt(p->u->pid, NULL) == 0 && trace_wait_stop_signal(p->u->pid, &signal, NULL) == 0;
	if (stopped && signal_peek(p->u->pid, true, &queue, NULL) == 0)
		keep_sent(p, &queue);
	free(queue.data);
	stop = signal != SIGTRAP && !p->stop_signal;
	p->late_stop |= stop;
	if (stopped && p->held)
		ptrace(PTRACE_CONT, p->u->pid, 0, 0);
	else if (stopped)
		trace_detach(p->u->pid, NULL);
	if (stop)
		go_on(p);
}

uint8_t *late_encode(const struct source *s, size_t *ret_len)
{
	Gw__Release release = GW__RELEASE__INIT;
	cleanup_free Gw__LateSignals *late = calloc(s->nprocs, sizeof(*late));
	cleanup_free Gw__LateSignals **list = calloc(s->nprocs, sizeof(*list));
	uint8_t *packed;

	for (size_t i = 0; late && list && i < s->nprocs; i++) {
		const struct source_process *p = &s->procs[i];

		if (!p->late_queue.len && !p->late_stop && !p->late_kill)
			continue;
		gw__late_signals__init(&late[i]);
		late[i].process = (uint32_t)i;
		late[i].queue = p->late_queue;
		late[i].stop = p->late_stop;
		late[i].kill = p->late_kill;
		list[release.n_late++] = &late[i];
	}
	if (!release.n_late)
		return NULL;
	release.late = list;
	*ret_len = gw__release__get_packed_size(&release);
	packed = malloc(*ret_len);
	if (packed)
		gw__release__pack(&release, packed);
	return packed;
}

/* The kernel lets nobody pretend to be another process or itself: those are sent in this worker's name. */
static void send_one(pid_t pid, const uint8_t *data)
{
	siginfo_t info;

	memcpy(&info, data, sizeof(info));
	if (info.si_code >= 0 || info.si_code == SI_TKILL || syscall(SYS_rt_sigqueueinfo, pid, info.si_signo, &info) < 0)
		kill(pid, info.si_signo);
}

static void deliver_one(const struct dest *d, const Gw__LateSignals *late)
{
	pid_t pid = d->procs[late->process].skeleton->pid;

	log_info("event=late-signals pid=%d n=%zu stop=%d kill=%d", pid, late->queue.len / SIGNAL_INFO_LEN, late->stop, late->kill);
	for (size_t i = 0; i < late->queue.len; i += SIGNAL_INFO_LEN)
		send_one(pid, late->queue.data + i);
	if (late->stop)
		kill(pid, SIGSTOP);
	if (late->kill)
		kill(pid, SIGKILL);
}

void late_deliver(const struct dest *d, const void *data, size_t len)
{
	struct err e = ERR_INIT;
	Gw__Release *release;

	if (release_decode(data, len, d->nprocs, &release, &e) < 0) {
		log_warning("event=late-signals-ignored text=\"%s\"", e.message);
		return;
	}
	for (size_t i = 0; i < release->n_late; i++)
		deliver_one(d, release->late[i]);
	gw__release__free_unpacked(release, NULL);
}
