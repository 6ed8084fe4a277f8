/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * source_agent.c - the source's step "agent": connections for pages, and an agent in each process of the unit
 */
#include "migrate/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/util.h"
#include "image/membarrier.h"
#include "kern/cred_peek.h"
#include "kern/tcp_peek.h"
#include "kern/vma_peek.h"
#include "migrate/pace.h"
#include "wire/frame.h"

#define RECORDS_MAX 4096u /* where there are more threads, /proc is read instead */

/* Of this process and its children. */
static struct restart_reader *reader;
static struct file_reader *file_reader;

void migrate_init(int ret_keep[MIGRATE_KEEP_FDS])
{
	int *files = &ret_keep[3 + VMA_PEEK_FDS];
	struct err e = ERR_INIT;

	if (!reader && restart_reader_load(&reader, &e) < 0)
		log_warning("event=no-bpf text=\"%s\"", e.message);
	if (!file_reader && file_reader_load(&file_reader, &e) < 0)
		log_warning("event=no-bpf text=\"%s\"", e.message);
	tcp_peek_prepare();
	ret_keep[0] = reader ? restart_reader_fd(reader) : -1;
	ret_keep[1] = cred_peek_prepare(&e);
	if (ret_keep[1] < 0)
		log_warning("event=no-bpf text=\"%s\"", e.message);
	ret_keep[2] = thread_peek_load(&e);
	if (ret_keep[2] < 0)
		log_warning("event=no-bpf text=\"%s\"", e.message);
	if (vma_peek_prepare(&ret_keep[3], &e) < 0)
		log_warning("event=no-bpf text=\"%s\"", e.message);
	for (int i = 0; i < FILE_READER_FDS; i++)
		files[i] = -1;
	if (file_reader)
		file_reader_fds(file_reader, files);
	fdtable_use_reader(file_reader);
}

static int connect_pages(struct source *s, struct err *e)
{
	struct link_peer peer = source_peer(s);
	int ret = link_expect(&s->link, s->nprocs, e);

	ns_outside(true);
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		ret = link_connect(&s->link, ROLE_FAULT, (uint32_t)i, &peer, e);
		if (ret == 0)
			ret = link_connect(&s->link, ROLE_BULK, (uint32_t)i, &peer, e);
		s->procs[i].link = &s->link.pages[i];
	}
	ns_outside(false);
	return ret;
}

static int open_proc(pid_t pid, const char *name, struct err *e)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? err_sys(e, errno, "%s", path) : fd;
}

static int read_membarrier(struct agent *a, struct err *e)
{
	struct remote_call *call = membarrier_plan_read(a->batch);
	int ret = batch_run(a->batch, e);

	a->membarrier = ret == 0 ? membarrier_of(call) : 0;
	batch_reset(a->batch);
	return ret;
}

static int equip(struct source_process *p, struct err *e)
{
	struct source *s = p->s;
	struct agent_fds fds = { s->link.go, p->link->fault, p->link->bulk, -1, -1, -1, -1, p == s->procs ? -1 : source_root(s)->scratch.memfd, -1 };
	cleanup_close int ask = -1;
	int ret;

	if (s->hold)
		pace_hurry(p->agent.pid);
	else
		pace_calm_beside(p->agent.pid, p->u->nthreads);
	p->pages = (struct pages){ .pid = p->u->pid, .agent = &p->agent, .pagemap_fd = -1 };
	p->pages.pagemap_fd = fds.pagemap = ret = open_proc(p->u->pid, "pagemap", e);
	if (ret >= 0)
		p->mem_fd = fds.mem = ret = open_proc(p->u->pid, "mem", e);
	if (ret < 0)
		return ret;
	/* The first process of a pid namespace takes the agents with it when it ends: it is killed by this worker when they have done their work. */
	scratch_header(&p->agent.scratch)->ends_namespace = ns_is_first(p->u->pid);
	scratch_header(&p->agent.scratch)->tgid = ns_is_first(p->u->pid) ? 0 : ns_seen(p->u->pid);
	if (ns_differs(p->u->pid, p->agent.pid, NS_PID)) /* that of its future children, in which the agent knows it by no number */
		fds.process_pidfd = p->u->pidfd;
	ret = source_prepare_ask(p, &ask, e);
	fds.ask = ask;
	if (ret == 0)
		ret = agent_equip(&p->agent, -1, &fds, e);
	if (ret == 0)
		ret = read_membarrier(&p->agent, e);
	if (ret == 0)
		ret = scratch_warm(&p->agent.scratch, (unsigned)p->u->nthreads, p->agent.batch, e);
	if (ret == 0)
		ret = pages_layout(&p->pages, &p->u->vmas, e);
	return ret < 0 ? ret : pages_count(&p->pages, &p->count, e);
}

static int prepare_agent(struct source_process *p, struct err *e)
{
	struct unit_process *u = p->u;
	struct err ignored = ERR_INIT;
	uint64_t base = p->agent.scratch.base;
	int ret;

	if (!reader || restart_watch_open(reader, u->pid, &p->watch, &ignored) < 0)
		log_warning("event=no-bpf text=\"%s\"", ignored.message);
	p->records_room = MIN(source_slots(u) + 1, RECORDS_MAX);
	for (int i = 0; i < 2; i++)
		p->records[i] = calloc(p->records_room, sizeof(**p->records));
	if (!p->records[0] || !p->records[1])
		return err_sys(e, ENOMEM, "restart records");
	ret = source_note_namespaces(p, e);
	if (ret < 0)
		return ret;
	p->agent.guest = u->guest;
	ret = agent_inject(&p->agent, u->pid, u->top, base, source_slots(u), pages_arena_bytes(&u->vmas), p->watch, e);
	if (ret == -EREMOTE)
		refusals_add(p->s->refusals, "task.seccomp-notify", e->message, "start it without that supervisor", "process %d (seccomp)", u->pid);
	return ret < 0 ? ret : equip(p, e);
}

int source_agent(void *context, struct err *e)
{
	struct source *s = context;
	int ret = connect_pages(s, e), unused[MIGRATE_KEEP_FDS];

	/* Without BPF timed sleeps that are interrupted start over: still right, only longer. */
	if (!reader)
		migrate_init(unused);
	s->report->pages_total = s->report->pages_skipped_file = 0;
	for (size_t i = 0; i < s->nprocs && ret == 0; i++) {
		ret = prepare_agent(&s->procs[i], e);
		if (ret == 0 && s->procs[i].agent.seen)
			tree_watch_agent(s->unit.watch, tree_find_host(&s->unit.tree, s->procs[i].agent.reaper), 1);
		s->report->pages_total += s->procs[i].count.total;
		s->report->pages_skipped_file += s->procs[i].count.in_file;
	}
	return ret;
}

void source_remove_agents(struct source *s)
{
	source_untrack_shared(s);
	for (size_t i = s->nprocs; i-- > 0;) { /* the root's last, which may have to wait for the others' */
		struct agent *a = &s->procs[i].agent;
		pid_t seen = a->seen, reaper = a->reaper;

		if (a->pid)
			pages_untrack(&s->procs[i].pages);
		agent_remove(a, s->procs[i].u->pid);
		if (seen)
			agent_reap(reaper, seen);
	}
}

void source_agent_undo(void *context)
{
	source_remove_agents(context);
}
